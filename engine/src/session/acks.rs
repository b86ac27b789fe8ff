//! Acknowledgements that wait by count (section 4.6).
//!
//! An acknowledgement that has nothing to wait for, with none of its kind before it, never comes here. The others stand
//! in a lane of their kind: they leave in order, when their count of completions is down to zero. Kinds do not wait for
//! each other.

use alloc::{collections::VecDeque, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, ReasonCode};

/// The kinds of acknowledgement that can have something to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    PubAck,
    PubRec,
    PubComp,
    SubAck,
    UnsubAck,
}

const LANES: usize = 5;

/// A waiting acknowledgement: its lane, and its place in it counted from the lane's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lane: Lane,
    n: u32,
}

/// An acknowledgement that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) packet_id: PacketId,
    pub(crate) reason_code: ReasonCode,
    /// Reason Codes of a SUBACK or UNSUBACK.
    pub(crate) reason_codes: Vec<ReasonCode>,
    /// Completions still to come.
    pub(crate) waits: u32,
    /// The connection that asked is gone: count down, but tell nobody.
    pub(crate) muted: bool,
    /// Tells once more what became of the message whose acknowledgement stands before it.
    pub(crate) repeats: bool,
}

/// The lanes of one Session.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    lanes: [Queue; LANES],
}

#[derive(Debug, Default)]
struct Queue {
    first: u32,
    waiting: VecDeque<Waiting>,
}

impl Acks {
    /// Whether an acknowledgement of this kind may leave without waiting for another.
    pub(crate) fn is_free(&self, lane: Lane) -> bool {
        self.queue(lane).waiting.is_empty() || mutant("3.1.1/4.6.0-2")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|queue| queue.waiting.is_empty())
    }

    /// How many acknowledgements wait in the longest lane.
    pub(crate) fn longest(&self) -> usize {
        self.lanes.iter().map(|queue| queue.waiting.len()).max().unwrap_or(0)
    }

    /// How many messages of the present connection wait for a PUBACK, or for a PUBREC that refuses them. Those whose
    /// identifier `is_noted` are counted by it.
    pub(crate) fn unfinished(&self, is_noted: impl Fn(PacketId) -> bool) -> usize {
        let told = |lane: Lane| self.queue(lane).waiting.iter().filter(|waiting| !waiting.muted);
        let refused = |waiting: &&Waiting| waiting.reason_code.is_error() && !is_noted(waiting.packet_id);
        told(Lane::PubAck).count() + told(Lane::PubRec).filter(refused).count()
    }

    /// An upper bound of [`Acks::unfinished`], found without looking at each.
    pub(crate) fn unfinished_max(&self) -> usize {
        [Lane::PubAck, Lane::PubRec]
            .map(|lane| self.queue(lane).waiting.len())
            .iter()
            .sum()
    }

    pub(crate) fn push(&mut self, lane: Lane, waiting: Waiting) -> Place {
        let queue = self.queue_mut(lane);
        queue.waiting.push_back(waiting);
        Place {
            lane,
            n: queue.first.wrapping_add(queue.waiting.len() as u32 - 1),
        }
    }

    /// The acknowledgement at a place, unless it left already.
    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut Waiting> {
        let queue = self.queue_mut(place.lane);
        queue.waiting.get_mut(place.n.wrapping_sub(queue.first) as usize)
    }

    /// An acknowledgement has just left its lane with this Reason Code: those that repeat it say the same. Behind them there
    /// may be one of another message, which has the identifier since.
    pub(crate) fn repeat(&mut self, lane: Lane, packet_id: PacketId, reason_code: ReasonCode) {
        let waiting = self.queue_mut(lane).waiting.iter_mut();
        for again in waiting
            .filter(|waiting| waiting.packet_id == packet_id)
            .take_while(|waiting| waiting.repeats)
        {
            again.reason_code = reason_code;
        }
    }

    /// The client asks again for an acknowledgement that waits: it is told after all, or once more, but not before those
    /// that it has asked for earlier on the same connection [MQTT-4.6.0-3]. `false`: none waits.
    pub(crate) fn ask_again(&mut self, lane: Lane, packet_id: PacketId) -> bool {
        let waiting = &mut self.queue_mut(lane).waiting;
        let Some(at) = waiting.iter().rposition(|waiting| waiting.packet_id == packet_id) else {
            return false;
        };
        let in_turn = waiting.iter().skip(at + 1).all(|later| later.muted);
        match waiting.get_mut(at) {
            Some(found) if found.muted && in_turn => found.muted = false,
            // What waits goes on, without a word if it is muted, and this one, behind it, tells what became of it.
            _ => waiting.push_back(Waiting {
                repeats: true,
                ..Waiting::new(packet_id, ReasonCode::Success, 0)
            }),
        }
        true
    }

    /// The next acknowledgement of a lane that may leave.
    pub(crate) fn pop_ready(&mut self, lane: Lane) -> Option<Waiting> {
        let queue = self.queue_mut(lane);
        if queue.waiting.front()?.waits > 0 {
            return None;
        }
        queue.first = queue.first.wrapping_add(1);
        queue.waiting.pop_front()
    }

    /// The connection is gone: nothing that waits is told to anybody, unless the client asks again.
    pub(crate) fn mute(&mut self) {
        for waiting in self.lanes.iter_mut().flat_map(|queue| queue.waiting.iter_mut()) {
            waiting.muted = true;
        }
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many queues as lanes")]
    const fn queue(&self, lane: Lane) -> &Queue {
        &self.lanes[lane as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many queues as lanes")]
    const fn queue_mut(&mut self, lane: Lane) -> &mut Queue {
        &mut self.lanes[lane as usize]
    }
}
