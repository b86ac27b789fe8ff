//! Publishes under memory or disk pressure: a 5.0 publisher is told 0x97, an older one waits for its acknowledgement.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::{boxed::Box, collections::VecDeque, rc::Rc};

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, ReasonCode};

use crate::clients::{Clients, Reason};
use crate::connection::Parked;
use crate::effects::{Effects, Read};
use crate::engine::Engine;
use crate::event::Cause;
use crate::handle::publish::{Publisher, lane_of};
use crate::ids::ConnectionId;
use crate::input::Flow;
use crate::message::Message;
use crate::session::acks::Lane;
use crate::time::Now;

impl Engine {
    /// Whether earlier publishes of this connection are parked: later ones must not overtake them.
    pub(crate) fn has_parked(&self, id: ConnectionId) -> bool {
        let nobody_has = self.parking.is_empty() && self.parking_for_room.is_empty();
        !nobody_has && self.clients.connections.get(id).is_some_and(|c| c.parked.is_some())
    }

    /// Refuses a publish where that can be said, else parks it; when it does not fit there, the connection ends.
    pub(crate) fn refuse_or_park(
        &mut self,
        now: Now,
        from: Publisher,
        message: Rc<Message>,
        ack: Option<(Lane, PacketId)>,
        effects: &mut Effects,
    ) -> Flow {
        let Publisher { id, key, v5, .. } = from;
        if let Some((Lane::PubRec, packet_id)) = ack
            && self.has_inbound(key, packet_id)
        {
            if self.has_parked(id) {
                // What is parked before it is answered before it [MQTT-4.6.0-3].
                return self.park(now, id, message, ack, effects);
            }
            // It was taken before: a refusal would let the client use the identifier for another message.
            self.clients.let_go(message, effects);
            return self.answer_again(now, from, packet_id, effects);
        }
        if ack.is_some() && v5 {
            self.clients.let_go(message, effects);
            let is_said = !self.clients.journal.is_full || !mutant("journal/refusal-unsaid");
            let reason = if is_said {
                ReasonCode::QuotaExceeded
            } else {
                ReasonCode::Success
            };
            return self.answer(now, from, ack, reason, effects);
        }
        if ack.is_none() && !self.has_parked(id) {
            // QoS 0 with RETAIN: it goes to those who are there, and is not kept.
            return self.take_publish(now, from, message, ack, effects);
        }
        self.park(now, id, message, ack, effects)
    }

    fn park(
        &mut self,
        now: Now,
        id: ConnectionId,
        mut message: Rc<Message>,
        ack: Option<(Lane, PacketId)>,
        effects: &mut Effects,
    ) -> Flow {
        self.clients.keep_message(&mut message, effects);
        let (max, patience) = (self.clients.config.parked_bytes_max, self.clients.config.pause_time_max);
        let for_journal = self.clients.journal.is_full && !self.clients.memory.is_full();
        let Clients {
            connections, timers, ..
        } = &mut self.clients;
        let Some(connection) = connections.get_mut(id) else {
            self.clients.let_go(message, effects);
            return Flow::Stop;
        };
        let parked = connection.parked.get_or_insert_with(|| {
            self.last_parked = self.last_parked.wrapping_add(1);
            self.parking.insert(self.last_parked, id);
            Box::new(Parked {
                n: self.last_parked,
                timer: timers.insert(now.mono.saturating_add(patience), Reason::Parked(id)),
                waiting: VecDeque::new(),
                bytes: 0,
                for_journal,
            })
        });
        let bytes = parked.bytes.saturating_add(message.exact_charge());
        if bytes > max {
            self.clients.let_go(message, effects);
            self.end_parked(now, id, effects);
            return Flow::Stop;
        }
        parked.bytes = bytes;
        parked.waiting.push_back((message, ack.map(|(_, packet_id)| packet_id)));
        Flow::Go
    }

    /// A connection's publishes have waited for long enough, or are too many.
    pub(crate) fn end_parked(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        let connection = self.clients.connections.get(id);
        let parked = connection.and_then(|connection| connection.parked.as_ref());
        let cause = if parked.is_some_and(|parked| parked.for_journal) {
            Cause::Unwritten
        } else {
            Cause::Parked
        };
        self.end_connection(now, id, cause, effects);
    }

    /// There is memory: parked publishes go their way, in order, as far as this call's work and the line behind a fan-out
    /// go. The next tick goes on. What would be written waits on while the journal has no room, and with it what its
    /// connection sent later.
    pub(crate) fn release_parked(&mut self, now: Now, effects: &mut Effects) {
        while !self.clients.memory.is_full()
            && !self.has_done_enough(effects)
            && self.line.len() < self.clients.config.fanout_waiting_max
            && let Some((&n, &id)) = self.parking.first_key_value()
        {
            self.work = self.work.saturating_add(1);
            let next = self.clients.connections.get_mut(id).and_then(|connection| {
                let from = Publisher::of(id, connection)?;
                let (message, packet_id) = connection.parked.as_mut()?.waiting.pop_front()?;
                Some((from, message, packet_id))
            });
            let Some((from, message, packet_id)) = next else {
                self.parking.remove(&n);
                let parked = self.clients.connections.get_mut(id).and_then(|c| c.parked.take());
                if let Some(parked) = parked {
                    self.clients.timers.cancel(parked.timer);
                }
                continue;
            };
            if self.is_unwritable(from, &message) {
                let connection = self.clients.connections.get_mut(id);
                if let Some(parked) = connection.and_then(|connection| connection.parked.as_mut()) {
                    parked.waiting.push_front((message, packet_id));
                    parked.for_journal = true;
                }
                self.parking.remove(&n);
                self.parking_for_room.insert(n, id);
                continue;
            }
            let lane = lane_of(message.qos);
            let ack = packet_id.map(|packet_id| (lane, packet_id));
            let flow = self.take_publish(now, from, message, ack, effects);
            if self.stop_for_acks(now, id, from.key, flow) == Flow::Stop {
                effects.reads.push(Read::Pause(id));
            }
        }
    }
}
