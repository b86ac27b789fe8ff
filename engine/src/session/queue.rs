//! What waits to be sent to a Session, packed: a Session that is away may be owed thousands of messages, and most of
//! them are a message and a record.

use alloc::{boxed::Box, collections::VecDeque, rc::Rc};

use sol_codec::{QoS, SubscriptionId};

use crate::message::Message;
use crate::record::RecordId;
use crate::session::sender::{Extra, Owed, SenderFlow};

/// A queue that is emptied keeps room for this many entries at most; a longer one was an exception.
const KEPT_MAX: usize = 8;

/// Messages owed to a Session and not begun, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// What those entries have besides that say so, in their order.
    #[allow(clippy::box_collection, reason = "few Sessions have any: they pay for a pointer")]
    rests: Option<Box<VecDeque<Rest>>>,
    bytes: usize,
    qos0: usize,
}

/// A queued message in 16 bytes.
#[derive(Debug)]
struct Entry {
    message: Option<Rc<Message>>,
    packed: Packed,
}

const _: () = assert!(size_of::<Entry>() <= 16);

/// The count of a [`RecordId`] in the lower bits, then its shard if that is a usual one, then the flags.
#[derive(Clone, Copy, Debug)]
struct Packed(u64);

/// What few entries have, in 16 bytes more.
#[derive(Debug, Default)]
struct Rest {
    extra: Option<Rc<Extra>>,
    subscription_id: Option<SubscriptionId>,
    /// The shard of a record that came from elsewhere and does not fit.
    shard: u16,
}

impl Packed {
    const SHARD_BITS: u32 = 11;
    const QOS: u32 = RecordId::COUNT_BITS + Self::SHARD_BITS;
    const RETAIN: u64 = 1 << (Self::QOS + 2);
    const DUP: u64 = 1 << (Self::QOS + 3);
    const REST: u64 = 1 << (Self::QOS + 4);

    const fn flag(is_set: bool, flag: u64) -> u64 {
        if is_set { flag } else { 0 }
    }

    const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    const fn qos(self) -> QoS {
        match self.0 >> Self::QOS & 0b11 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// The record, without a shard that did not fit.
    const fn record(self) -> u64 {
        self.0 & ((1 << Self::QOS) - 1)
    }
}

impl Entry {
    fn charge(&self) -> usize {
        Owed::charge_of(self.message.as_ref())
    }

    fn unpack(self, rest: Option<Rest>) -> Owed {
        let rest = rest.unwrap_or_default();
        Owed {
            message: self.message,
            extra: rest.extra,
            record: RecordId(self.packed.record() | u64::from(rest.shard) << RecordId::COUNT_BITS),
            subscription_id: rest.subscription_id,
            qos: self.packed.qos(),
            retain: self.packed.has(Packed::RETAIN),
            flow: SenderFlow::Queued,
            dup: self.packed.has(Packed::DUP),
        }
    }
}

fn pack(owed: Owed) -> (Entry, Option<Rest>) {
    let shard = (owed.record.0 >> RecordId::COUNT_BITS) as u16;
    let fits = shard >> Packed::SHARD_BITS == 0;
    let record = if fits {
        owed.record.0
    } else {
        owed.record.0 & RecordId::COUNT
    };
    let rest = (!fits || owed.extra.is_some() || owed.subscription_id.is_some()).then_some(Rest {
        extra: owed.extra,
        subscription_id: owed.subscription_id,
        shard: if fits { 0 } else { shard },
    });
    let packed = record
        | (owed.qos as u64) << Packed::QOS
        | Packed::flag(owed.retain, Packed::RETAIN)
        | Packed::flag(owed.dup, Packed::DUP)
        | Packed::flag(rest.is_some(), Packed::REST);
    let entry = Entry {
        message: owed.message,
        packed: Packed(packed),
    };
    (entry, rest)
}

/// Grows by an eighth: what a queue's size doubled to would mostly stay empty, in as many queues as there are Sessions.
fn make_room<T>(entries: &mut VecDeque<T>) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact(1 + entries.len() / 8);
    }
}

fn give_back<T>(entries: &mut VecDeque<T>) {
    if entries.is_empty() && entries.capacity() > KEPT_MAX {
        entries.shrink_to(KEPT_MAX);
    }
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes charged for what waits.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether any of it has QoS 0.
    pub(crate) const fn has_qos0(&self) -> bool {
        self.qos0 > 0
    }

    /// The QoS of the oldest.
    pub(crate) fn front_qos(&self) -> Option<QoS> {
        Some(self.entries.front()?.packed.qos())
    }

    /// QoS and RETAIN of each.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (QoS, bool)> {
        let packed = self.entries.iter().map(|entry| entry.packed);
        packed.map(|packed| (packed.qos(), packed.has(Packed::RETAIN)))
    }

    /// Whether any of it came through a Shared Subscription.
    pub(crate) fn has_shared(&self) -> bool {
        let rests = self.rests.iter().flat_map(|rests| rests.iter());
        rests
            .filter_map(|rest| rest.extra.as_ref())
            .any(|extra| extra.share.is_some())
    }

    pub(crate) fn push_back(&mut self, owed: Owed) {
        let (entry, rest) = pack(owed);
        self.count(&entry);
        make_room(&mut self.entries);
        self.entries.push_back(entry);
        if let Some(rest) = rest {
            self.rests_with_room().push_back(rest);
        }
    }

    pub(crate) fn push_front(&mut self, owed: Owed) {
        let (entry, rest) = pack(owed);
        self.count(&entry);
        make_room(&mut self.entries);
        self.entries.push_front(entry);
        if let Some(rest) = rest {
            self.rests_with_room().push_front(rest);
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<Owed> {
        let entry = self.entries.pop_front()?;
        let rest = self.take_rest(&entry, VecDeque::pop_front);
        self.uncount(&entry);
        Some(entry.unpack(rest))
    }

    pub(crate) fn pop_back(&mut self) -> Option<Owed> {
        let entry = self.entries.pop_back()?;
        let rest = self.take_rest(&entry, VecDeque::pop_back);
        self.uncount(&entry);
        Some(entry.unpack(rest))
    }

    /// All of it, in order.
    pub(crate) fn into_owed(mut self) -> impl Iterator<Item = Owed> {
        core::iter::from_fn(move || self.pop_front())
    }

    fn rests_with_room(&mut self) -> &mut VecDeque<Rest> {
        let rests = self.rests.get_or_insert_default();
        make_room(rests);
        rests
    }

    fn take_rest(&mut self, entry: &Entry, pop: impl FnOnce(&mut VecDeque<Rest>) -> Option<Rest>) -> Option<Rest> {
        if !entry.packed.has(Packed::REST) {
            return None;
        }
        let rests = self.rests.as_deref_mut()?;
        let rest = pop(rests);
        give_back(rests);
        rest
    }

    fn count(&mut self, entry: &Entry) {
        self.bytes += entry.charge();
        self.qos0 += usize::from(entry.packed.qos() == QoS::AtMostOnce);
    }

    fn uncount(&mut self, entry: &Entry) {
        self.bytes -= entry.charge();
        self.qos0 -= usize::from(entry.packed.qos() == QoS::AtMostOnce);
        give_back(&mut self.entries);
    }

    /// Whether what is counted agrees with what is there.
    pub(crate) fn is_consistent(&self) -> bool {
        let qos0 = self.flags().filter(|&(qos, _)| qos == QoS::AtMostOnce).count();
        let rests = self.entries.iter().filter(|entry| entry.packed.has(Packed::REST));
        qos0 == self.qos0
            && rests.count() == self.rests.as_ref().map_or(0, |rests| rests.len())
            && self.entries.iter().map(Entry::charge).sum::<usize>() == self.bytes
    }

    #[cfg(test)]
    pub(crate) fn miscount(&mut self) {
        self.bytes += 1;
    }
}

#[cfg(test)]
mod tests {
    use alloc::{borrow::ToOwned, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn owed() -> impl Strategy<Value = Owed> {
        let shard = prop_oneof![0_u64..70, 2_046_u64..2_050, Just(65_535)];
        let count = prop_oneof![0_u64..9, Just(RecordId::COUNT)];
        let share = prop_oneof![Just(None), Just(None), Just(Some(("group".into(), "a/b".into())))];
        let ids = prop_oneof![Just(None), Just(None), Just(SubscriptionId::new(7))];
        let flags = (0_usize..3, any::<bool>(), any::<bool>(), 0_u32..2);
        ((shard, count, "[a-z]{0,9}"), flags, share, ids).prop_map(
            |((shard, count, topic), (qos, retain, dup, id), share, more)| {
                let extra = Extra {
                    subscription_ids: more.map(|id| Rc::new(alloc::vec![id])),
                    share,
                };
                Owed {
                    message: Some(Rc::new(Message::new(&topic, b"", false))),
                    extra: (extra != Extra::default()).then(|| Rc::new(extra)),
                    record: RecordId(shard << RecordId::COUNT_BITS | count),
                    subscription_id: SubscriptionId::new(id),
                    qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][qos],
                    retain,
                    flow: SenderFlow::Queued,
                    dup,
                }
            },
        )
    }

    fn parts(owed: &Owed) -> impl PartialEq + core::fmt::Debug + use<> {
        let topic = owed.message.as_ref().map(|message| message.topic().to_owned());
        let flags = (owed.qos, owed.retain, owed.flow, owed.dup);
        (topic, owed.extra.clone(), owed.record, owed.subscription_id, flags)
    }

    proptest! {
        /// Packed or not, what goes in at either end comes out as it was, from either end; the queue fills in one half of the
        /// steps and is emptied in the other.
        #[test]
        fn a_queue_is_a_deque(steps in prop::collection::vec((owed(), 0_u8..8), 0..200)) {
            let (mut queue, mut model) = (Queue::default(), VecDeque::<Owed>::new());
            let half = steps.len() / 2;
            for (at, (owed, step)) in steps.into_iter().enumerate() {
                match if at < half { step } else { 7 - step } {
                    0..4 => {
                        model.push_back(owed.clone());
                        queue.push_back(owed);
                    }
                    4 | 5 => {
                        model.push_front(owed.clone());
                        queue.push_front(owed);
                    }
                    6 => prop_assert_eq!(queue.pop_front().as_ref().map(parts), model.pop_front().as_ref().map(parts)),
                    _ => prop_assert_eq!(queue.pop_back().as_ref().map(parts), model.pop_back().as_ref().map(parts)),
                }
                prop_assert!(queue.is_consistent());
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.bytes(), model.iter().map(Owed::charge).sum::<usize>());
                prop_assert_eq!(queue.has_shared(), model.iter().any(|owed| owed.share().is_some()));
                prop_assert_eq!(queue.front_qos(), model.front().map(|owed| owed.qos));
                let flags: Vec<_> = model.iter().map(|owed| (owed.qos, owed.retain)).collect();
                prop_assert_eq!(queue.flags().collect::<Vec<_>>(), flags);
            }
            let left: Vec<_> = model.iter().map(parts).collect();
            prop_assert_eq!(queue.into_owed().map(|owed| parts(&owed)).collect::<Vec<_>>(), left);
        }
    }

    /// A queued message costs 16 bytes and at most an eighth of that, at every length; an emptied queue keeps little.
    #[test]
    fn a_queued_message_takes_at_most_18_bytes() {
        let owed = Owed {
            message: None,
            extra: None,
            record: RecordId(1),
            subscription_id: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            flow: SenderFlow::Queued,
            dup: false,
        };
        let mut queue = Queue::default();
        for n in 1..10_000 {
            queue.push_back(owed.clone());
            let bytes = queue.entries.capacity() * size_of::<Entry>();
            assert!(bytes <= 18 * n + 16, "{bytes} for {n}");
        }
        while queue.pop_back().is_some() {}
        assert!(queue.entries.capacity() <= KEPT_MAX);
    }
}
