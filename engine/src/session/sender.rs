//! QoS 1 and 2 as sender (section 4.3): the window of unfinished exchanges and the queue behind it.
//!
//! ```text
//! QoS 1   queue ──PUBLISH──► ExpectPuback ──PUBACK──► gone
//! QoS 2   queue ──PUBLISH──► ExpectPubrec ──PUBREC──► ExpectPubcomp ──PUBCOMP──► gone
//! ```
//! The window is a ring indexed by Packet Identifier minus the oldest one's, so that an identifier is found without a
//! search and a new one is never in use: the ring's span is limited, not only its count.

use alloc::{collections::VecDeque, rc::Rc, string::String, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, QoS, SubscriptionId};

use crate::effects::Delivery;
use crate::message::Message;
use crate::record::RecordId;
use crate::session::queue::Queue;
use crate::time::Now;

/// Packet Identifiers run from 1 to 65,535.
const PACKET_IDS: u16 = u16::MAX;
/// What an identifier is if arithmetic were ever wrong.
const FIRST: PacketId = PacketId::new(1).unwrap();
/// How far the newest identifier may be ahead of the oldest unfinished one.
const SPAN_MAX: usize = 16_384;
/// How many unexpired messages are looked past for expired ones when a queue is full.
const EXPIRED_LOOK_MAX: usize = 16;

/// Where an exchange stands, by what it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderFlow {
    /// Not sent yet.
    Queued,
    /// Its PUBLISH (QoS 2, durable Session) waits until the journal has its reference.
    ExpectDurable,
    ExpectPuback,
    ExpectPubrec,
    /// PUBREC came; its PUBREL waits until the journal has it.
    ExpectDurableRelease,
    ExpectPubcomp,
}

/// What only some deliveries carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    /// Subscription Identifiers beyond the first.
    pub(crate) subscription_ids: Option<Rc<Vec<SubscriptionId>>>,
    /// The Shared Subscription that it was picked for, `(ShareName, Topic Filter)`: it is given back if this member is
    /// lost.
    pub(crate) share: Option<(String, String)>,
}

/// A message owed to a Session.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    /// None once PUBREC came.
    pub(crate) message: Option<Rc<Message>>,
    pub(crate) extra: Option<Rc<Extra>>,
    pub(crate) record: RecordId,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) flow: SenderFlow,
    /// It was sent on an earlier connection.
    pub(crate) dup: bool,
}

impl Owed {
    /// The Shared Subscription that it was picked for.
    pub(crate) fn share(&self) -> Option<&(String, String)> {
        self.extra.as_ref()?.share.as_ref()
    }

    pub(crate) fn charge(&self) -> usize {
        Self::charge_of(self.message.as_ref())
    }

    /// What a message is charged that is owed to a Session.
    pub(crate) fn charge_of(message: Option<&Rc<Message>>) -> usize {
        let message = message.map_or(0, |message| message.charge());
        message.saturating_add(size_of::<Self>())
    }

    /// The PUBLISH of this message, if it is still one to be published.
    pub(crate) fn delivery(&self, packet_id: Option<PacketId>) -> Option<Delivery> {
        let mut delivery = Delivery::new(Rc::clone(self.message.as_ref()?), self.qos, self.retain);
        delivery.subscription_id = self.subscription_id;
        delivery.more_subscription_ids = self.extra.as_ref().and_then(|extra| extra.subscription_ids.clone());
        delivery.packet_id = packet_id;
        delivery.dup = self.dup;
        Some(delivery)
    }
}

/// The sending side of one Session.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    window: VecDeque<Option<Owed>>,
    /// The front's Packet Identifier, less one.
    front: u16,
    /// Entries of the window, from the front, that were sent on this connection.
    cursor: usize,
    /// Those of them that are unfinished: what the client's Receive Maximum limits (section 4.9).
    outstanding: u16,
    /// What waited for the journal, [`SenderFlow::ExpectDurable`], and waits only for room in the connection now, in order.
    pub(crate) released: VecDeque<PacketId>,
    pub(crate) queue: Queue,
    /// Messages dropped for this Session so far.
    pub(crate) dropped: u64,
}

impl Sender {
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.window.is_empty() && self.queue.is_empty()
    }

    /// Whether anything waits to be sent: in the queue, to be taken up again, or behind the journal.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || self.cursor < self.window.len() || !self.released.is_empty()
    }

    /// Whether a new message may be sent now, past an empty queue.
    pub(crate) fn has_room(&self, quota: u16, bytes_max: usize) -> bool {
        self.outstanding < quota
            && self.cursor == self.window.len()
            && self.window.len() < SPAN_MAX
            && (bytes_max == usize::MAX || self.window_bytes() < bytes_max)
    }

    /// Bytes of payload on their way. Few have a limit of these, and a window is short: they are not kept count of.
    #[cold]
    fn window_bytes(&self) -> usize {
        let messages = self.window.iter().flatten().filter_map(|owed| owed.message.as_ref());
        messages.map(|message| message.payload().len()).sum()
    }

    /// Takes out what has expired at the front of the queue, and among the few that come next.
    pub(crate) fn take_expired(&mut self, now: Now) -> Vec<Owed> {
        let mut expired = Vec::new();
        let mut kept = Vec::new();
        while kept.len() < EXPIRED_LOOK_MAX
            && let Some(owed) = self.queue.pop_front()
        {
            if owed.message.as_ref().is_some_and(|message| message.is_expired(now)) {
                expired.push(owed);
            } else {
                kept.push(owed);
            }
        }
        while let Some(owed) = kept.pop() {
            self.queue.push_front(owed);
        }
        expired
    }

    /// Whether a QoS 0 message that could be sent now would overtake another [MQTT-4.6.0-5].
    pub(crate) const fn queues_qos0(&self) -> bool {
        self.queue.has_qos0()
    }

    /// The same, with nothing before it in the queue.
    pub(crate) fn has_room_now(&self, quota: u16, bytes_max: usize) -> bool {
        self.queue.is_empty() && self.has_room(quota, bytes_max)
    }

    /// Takes a message into the window; it is sent from now on. Check [`Sender::has_room`] first.
    pub(crate) fn begin(&mut self, owed: Owed) -> PacketId {
        let packet_id = self.id_at(self.window.len());
        self.window.push_back(Some(owed));
        self.cursor = self.window.len();
        self.outstanding += 1;
        packet_id
    }

    /// The next exchange to take up again after the Session was resumed, if the quota allows one [MQTT-4.4.0-1].
    pub(crate) fn next_resend(&mut self, quota: u16) -> Option<(PacketId, &mut Owed)> {
        while let Some(None) = self.window.get(self.cursor) {
            self.cursor += 1;
        }
        if self.cursor >= self.window.len() || self.outstanding >= quota {
            return None;
        }
        let packet_id = self.id_at(self.cursor);
        self.outstanding += 1;
        self.cursor += 1;
        let owed = self.window.get_mut(self.cursor - 1)?.as_mut()?;
        Some((packet_id, owed))
    }

    /// The unfinished exchange of an identifier.
    pub(crate) fn get_mut(&mut self, packet_id: PacketId) -> Option<&mut Owed> {
        let at = self.index_of(packet_id)?;
        self.window.get_mut(at)?.as_mut()
    }

    /// Ends an exchange, and with it the use of its identifier.
    pub(crate) fn finish(&mut self, packet_id: PacketId) -> Option<Owed> {
        self.finish_if(packet_id, |_| true)
    }

    /// The same, if it is such an exchange.
    #[inline]
    pub(crate) fn finish_if(&mut self, packet_id: PacketId, is_such: impl FnOnce(&Owed) -> bool) -> Option<Owed> {
        let at = self.index_of(packet_id)?;
        let owed = self.window.get_mut(at)?.take_if(|owed| is_such(owed))?;
        if at < self.cursor {
            self.outstanding -= 1;
        }
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
            self.front = if self.front + 1 == PACKET_IDS {
                0
            } else {
                self.front + 1
            };
        }
        Some(owed)
    }

    /// The latest message that was begun was not sent: it is owed no more. `None`: another is the latest.
    pub(crate) fn unbegin(&mut self, packet_id: PacketId) -> Option<Owed> {
        let finished = self.window.iter().rev().take_while(|owed| owed.is_none()).count();
        self.window.truncate(self.window.len() - finished);
        self.cursor = self.cursor.min(self.window.len());
        let at = self.index_of(packet_id)?;
        if at + 1 != self.window.len() || at + 1 != self.cursor {
            return None;
        }
        let owed = self.window.pop_back().flatten()?;
        self.cursor = at;
        self.outstanding -= 1;
        Some(owed)
    }

    /// Puts such a message at the front of the queue, where it came from or would have been.
    pub(crate) fn requeue(&mut self, owed: Owed) {
        self.queue.push_front(owed);
    }

    /// The latest exchange that was taken up again was not sent: it waits for that once more.
    pub(crate) fn unresend(&mut self, packet_id: PacketId) -> bool {
        let at = self.index_of(packet_id).filter(|&at| at < self.cursor);
        if let Some(at) = at {
            self.cursor = at;
            // Counted anew: what was taken up behind it need not be a PUBLISH, and is not sent now either.
            self.outstanding = self.window.iter().take(at).flatten().count() as u16;
        }
        at.is_some()
    }

    /// Whether what is counted agrees with what is there.
    pub(crate) fn is_consistent(&self) -> bool {
        let sent = self.window.iter().take(self.cursor).flatten().count();
        let is_held = |&id: &PacketId| {
            let owed = self.index_of(id).and_then(|at| self.window.get(at)?.as_ref());
            owed.is_some_and(|owed| owed.flow == SenderFlow::ExpectDurable)
        };
        sent == usize::from(self.outstanding)
            && self.released.iter().all(is_held)
            && self.cursor <= self.window.len()
            && self.queue.is_consistent()
    }

    /// The connection is gone: all that is unfinished has to be taken up again on the next one.
    pub(crate) fn rewind(&mut self) {
        let sent = core::mem::take(&mut self.cursor);
        self.outstanding = 0;
        for owed in self.window.iter_mut().take(sent).flatten() {
            owed.dup |= matches!(owed.flow, SenderFlow::ExpectPuback | SenderFlow::ExpectPubrec);
        }
        // These were never sent.
        for packet_id in core::mem::take(&mut self.released) {
            if let Some(owed) = self.get_mut(packet_id) {
                owed.flow = SenderFlow::ExpectPubrec;
            }
        }
    }

    /// All unfinished exchanges in order, with their identifiers.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = (PacketId, &Owed)> {
        self.window
            .iter()
            .enumerate()
            .filter_map(|(at, owed)| Some((self.id_at(at), owed.as_ref()?)))
    }

    /// Everything that is owed, when the Session ends.
    pub(crate) fn into_owed(self) -> impl Iterator<Item = Owed> {
        self.window.into_iter().flatten().chain(self.queue.into_owed())
    }

    /// Whether anything owed came through a Shared Subscription.
    pub(crate) fn has_shared(&self) -> bool {
        self.window.iter().flatten().any(|owed| owed.share().is_some()) || self.queue.has_shared()
    }

    /// The exchanges that a Shared Subscription may give to another member: QoS 1 that was not acknowledged.
    pub(crate) fn begun_shared(&self) -> Vec<PacketId> {
        self.unfinished()
            .filter(|(_, owed)| owed.share().is_some())
            .filter(|(_, owed)| match owed.flow {
                SenderFlow::ExpectPuback => true,
                SenderFlow::ExpectPubrec => mutant("5.0/4.8.2-5") || mutant("shards/begun-qos2-handed-back"),
                _ => false,
            })
            .map(|(id, _)| id)
            .collect()
    }

    /// Takes out what a Shared Subscription may give to another member: what has not begun, and QoS 1 that was not
    /// acknowledged.
    pub(crate) fn take_shared(&mut self) -> Vec<Owed> {
        let mut taken = Vec::new();
        for id in self.begun_shared() {
            taken.extend(self.finish(id));
        }
        for _ in 0..self.queue.len() {
            let Some(owed) = self.queue.pop_front() else { break };
            if owed.share().is_some() {
                taken.push(owed);
            } else {
                self.queue.push_back(owed);
            }
        }
        taken
    }

    /// Number of unfinished exchanges on this connection.
    #[cfg(test)]
    pub(crate) const fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// Puts an exchange back as it was recorded, in any order: identifiers of one window are never further apart than
    /// its span, which tells those before the front from those after it.
    pub(crate) fn restore(&mut self, packet_id: PacketId, owed: Owed) {
        if self.window.is_empty() {
            self.front = packet_id.get() - 1;
        }
        let mut at = self.distance(packet_id);
        if at >= usize::from(PACKET_IDS) / 2 {
            for _ in at..usize::from(PACKET_IDS) {
                self.window.push_front(None);
            }
            self.front = packet_id.get() - 1;
            at = 0;
        }
        while self.window.len() <= at {
            self.window.push_back(None);
        }
        if let Some(place) = self.window.get_mut(at) {
            *place = Some(owed);
        }
    }

    fn id_at(&self, at: usize) -> PacketId {
        // `at` is below SPAN_MAX, so the sum stays far below u32::MAX and the remainder plus one is never 0.
        let id = (u32::from(self.front) + at as u32) % u32::from(PACKET_IDS) + 1;
        PacketId::new(id as u16).unwrap_or(FIRST)
    }

    fn index_of(&self, packet_id: PacketId) -> Option<usize> {
        let at = self.distance(packet_id);
        (at < self.window.len()).then_some(at)
    }

    /// How far an identifier is ahead of the front's.
    fn distance(&self, packet_id: PacketId) -> usize {
        let zero_based = u32::from(packet_id.get() - 1) + u32::from(PACKET_IDS);
        ((zero_based - u32::from(self.front)) % u32::from(PACKET_IDS)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed() -> Owed {
        Owed {
            message: Some(Rc::new(Message::new("t", b"", false))),
            extra: None,
            record: RecordId(0),
            subscription_id: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            flow: SenderFlow::ExpectPuback,
            dup: false,
        }
    }

    /// [MQTT-2.2.1-4]: identifiers are never 0 and never in use, through many turns of the counter.
    #[test]
    fn packet_ids_wrap_without_zero_or_reuse() {
        let mut sender = Sender::default();
        let mut open = VecDeque::new();
        for _ in 0..200_000 {
            assert!(sender.has_room(10, usize::MAX));
            let id = sender.begin(owed());
            assert!(!open.contains(&id));
            open.push_back(id);
            if open.len() == 10 {
                assert!(sender.finish(open.pop_front().unwrap()).is_some());
            }
        }
        assert_eq!(sender.outstanding(), 9);
    }

    /// When a PUBLISH that was taken up again has not left, what was taken up behind it waits once more, too.
    #[test]
    fn what_follows_a_resend_that_failed_waits_with_it() {
        let mut sender = Sender::default();
        let ids: Vec<_> = (0..3).map(|_| sender.begin(owed())).collect();
        if let Some(released) = sender.get_mut(ids[2]) {
            released.flow = SenderFlow::ExpectPubcomp;
        }
        sender.rewind();
        while sender.next_resend(10).is_some() {}
        assert!(sender.unresend(ids[1]));
        assert!(sender.is_consistent());
        assert_eq!(sender.next_resend(10).map(|(id, _)| id), Some(ids[1]));
        assert_eq!(sender.next_resend(10).map(|(id, _)| id), Some(ids[2]));
    }

    /// An exchange that never ends stops new ones before its identifier could be used again.
    #[test]
    fn an_unfinished_exchange_limits_the_span() {
        let mut sender = Sender::default();
        let stuck = sender.begin(owed());
        let mut begun = 0;
        while sender.has_room(10, usize::MAX) {
            let id = sender.begin(owed());
            sender.finish(id).unwrap();
            begun += 1;
        }
        assert_eq!(begun, SPAN_MAX - 1);
        sender.finish(stuck).unwrap();
        assert!(sender.has_room(10, usize::MAX) && sender.is_idle());
    }

    /// A replay may give identifiers out before older messages of the queue get theirs, so records come in any order.
    #[test]
    fn exchanges_are_restored_in_any_order() {
        for ids in [[7, 5, 9], [2, 65_535, 1], [65_534, 3, 65_535]] {
            let mut sender = Sender::default();
            for id in ids {
                sender.restore(PacketId::new(id).unwrap(), owed());
            }
            for id in ids {
                assert!(sender.finish(PacketId::new(id).unwrap()).is_some(), "{id} of {ids:?}");
            }
            assert!(sender.is_idle());
        }
    }

    /// [MQTT-3.3.1-1]: what waited for the journal through one connection, and for a CONNACK through the next, was never
    /// sent: it is no repeat.
    #[test]
    fn what_was_never_sent_is_no_repeat() {
        let mut sender = Sender::default();
        let mut held = owed();
        held.flow = SenderFlow::ExpectDurable;
        let id = sender.begin(held);
        sender.rewind();
        sender.get_mut(id).unwrap().flow = SenderFlow::ExpectPubrec;
        sender.rewind();
        assert!(!sender.next_resend(1).unwrap().1.dup);
        sender.rewind();
        assert!(sender.next_resend(1).unwrap().1.dup);
    }

    /// Acknowledgements of identifiers that are not in use change nothing.
    #[test]
    fn unknown_identifiers_are_not_found() {
        let mut sender = Sender::default();
        let id = sender.begin(owed());
        for other in [2, 3, 65_535] {
            assert!(sender.finish(PacketId::new(other).unwrap()).is_none());
        }
        assert!(sender.finish(id).is_some() && sender.finish(id).is_none());
    }

    /// [MQTT-4.4.0-1]: after a resume everything unfinished is sent again in its first order, as the quota allows.
    #[test]
    fn resend_follows_the_first_order_within_the_quota() {
        let mut sender = Sender::default();
        let ids: Vec<_> = (0..5).map(|_| sender.begin(owed())).collect();
        sender.finish(ids[1]).unwrap();
        sender.rewind();
        let mut resent = Vec::new();
        while let Some((id, owed)) = sender.next_resend(2) {
            assert!(owed.dup);
            resent.push(id);
        }
        assert_eq!(resent, [ids[0], ids[2]]);
        assert!(!sender.has_room(2, usize::MAX));
        sender.finish(ids[2]).unwrap();
        assert_eq!(sender.next_resend(2).unwrap().0, ids[3]);
    }
}
