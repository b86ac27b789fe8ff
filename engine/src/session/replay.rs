//! Retained messages on their way to a new Subscription (section 3.3.1.3), under the subscriber's flow control.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    string::String,
    vec::Vec,
};

use sol_codec::{PacketId, QoS, SubscriptionId};

use crate::ids::ShardId;
use crate::message::Message;
use crate::retained::Page;
use crate::subscription::Options;

/// One Subscription's replay.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) filter: Rc<str>,
    pub(crate) options: Options,
    pub(crate) subscription_id: Option<SubscriptionId>,
    /// Shards still to be asked; the last is being asked.
    pub(crate) shards: Vec<ShardId>,
    /// Where that shard's last page ended.
    pub(crate) after: Option<String>,
    /// What came and is not yet sent.
    pub(crate) page: VecDeque<Rc<Message>>,
    /// The outstanding question to another shard.
    pub(crate) asked: Option<u64>,
    /// The SUBSCRIBE it belongs to: it begins when that one's SUBACK has left.
    pub(crate) packet_id: PacketId,
}

impl Replay {
    pub(crate) fn new(
        filter: &str,
        options: Options,
        subscription_id: Option<SubscriptionId>,
        shards: Vec<ShardId>,
        packet_id: PacketId,
    ) -> Self {
        Self {
            filter: Rc::from(filter),
            options,
            subscription_id,
            shards,
            after: None,
            page: VecDeque::new(),
            asked: None,
            packet_id,
        }
    }

    /// Notes where a page ended.
    pub(crate) fn turn_page(&mut self, end: Page) {
        match end {
            Page::More(after) => self.after = Some(after),
            Page::Done => {
                self.after = None;
                self.shards.pop();
            }
        }
    }
}

/// A Session's open replays, the first at work, and what they must not overtake.
///
/// A filter has at most one that has not begun: there are never more than the Session has Subscriptions, and one.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    /// Replays by their number, in the order of their SUBSCRIBEs.
    open: BTreeMap<u64, Replay>,
    /// The replay of each filter that has not begun.
    ahead: BTreeMap<Rc<str>, u64>,
    /// The number of the next replay.
    next: u64,
    /// The SUBACKs of all replays below this number have left.
    ready: u64,
    /// Topics whose live retained update passed to the Session since, and what `ready` was when the latest did: in the
    /// pages of replays below that an entry for the topic is older, and is skipped.
    seen: BTreeMap<Box<[u8]>, u64>,
    /// `seen` is full: live messages wait until the replays have ended.
    pub(crate) holds_live: bool,
    /// The next free place in the window goes to a replay, though messages are queued.
    pub(crate) favoured: bool,
    /// The Session is listed among those whose replay waits for room in the journal.
    pub(crate) is_held: bool,
}

impl Replays {
    /// Lines up a replay. One of the same filter that has not begun would say the same, and goes. Returns whether there
    /// was one.
    pub(crate) fn push(&mut self, replay: Replay) -> bool {
        let n = self.next;
        self.next += 1;
        let old = self.ahead.insert(Rc::clone(&replay.filter), n);
        if let Some(old) = old {
            self.open.remove(&old);
        }
        self.open.insert(n, replay);
        old.is_some()
    }

    /// Lines up a replay of an earlier process: nothing has to leave before it. What the Session is owed from then is older than
    /// what is retained, or the same: it makes nothing stale.
    pub(crate) fn restore(&mut self, replay: Replay) {
        self.push(replay);
        self.ready = self.next;
    }

    /// A SUBACK has left: the replays of its SUBSCRIBE, which are the next, may run.
    pub(crate) fn start(&mut self, packet_id: PacketId) {
        while let Some((&n, replay)) = self.open.range(self.ready..).next()
            && replay.packet_id == packet_id
        {
            self.ready = n + 1;
        }
    }

    /// The replay at work, if its SUBACK has left: interest is confirmed by then.
    pub(crate) fn active(&mut self) -> Option<&mut Replay> {
        let entry = self.open.first_entry()?;
        (*entry.key() < self.ready).then(|| entry.into_mut())
    }

    /// The first replay begins: what is retained from now on may be missing in it.
    pub(crate) fn begin(&mut self) {
        if let Some((n, replay)) = self.open.first_key_value()
            && self.ahead.get(&replay.filter) == Some(n)
        {
            self.ahead.remove(&replay.filter);
        }
    }

    /// The replay that asked another shard this question: only the first asks.
    pub(crate) fn asked(&mut self, id: u64) -> Option<&mut Replay> {
        let first = self.open.first_entry()?.into_mut();
        (first.asked == Some(id)).then_some(first)
    }

    /// The first replay is done. Returns its filter, and whether it was the last.
    pub(crate) fn finish(&mut self) -> (Option<Rc<str>>, bool) {
        let done = self.open.pop_first().map(|(_, replay)| replay.filter);
        (done, self.open.is_empty())
    }

    /// The messages at hand, when the Session ends.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = Rc<Message>> {
        self.open.into_values().flat_map(|replay| replay.page)
    }

    /// A Subscription ended: its replays end with it. Gives `each` the messages at hand, and returns whether none is
    /// left.
    pub(crate) fn remove(&mut self, filter: &str, mut each: impl FnMut(Rc<Message>)) -> bool {
        if let Some(n) = self.ahead.remove(filter) {
            self.open.remove(&n);
        }
        if let Some(first) = self.open.first_entry()
            && *first.get().filter == *filter
        {
            first.remove().page.into_iter().for_each(&mut each);
        }
        self.open.is_empty()
    }

    /// Whether a Subscription's replay is open or about to be.
    pub(crate) fn has(&self, filter: &str) -> bool {
        let first = self.open.first_key_value();
        self.ahead.contains_key(filter) || first.is_some_and(|(_, first)| *first.filter == *filter)
    }

    /// Whether such a replay brings more than QoS 0. The Subscription may be another one by now.
    pub(crate) fn is_promised(&self, filter: &str) -> bool {
        let ahead = self.ahead.get(filter).and_then(|n| self.open.get(n));
        let first = self.open.first_key_value().map(|(_, first)| first);
        let of_filter = first.filter(|first| *first.filter == *filter).into_iter().chain(ahead);
        of_filter
            .into_iter()
            .any(|replay| replay.options.qos() > QoS::AtMostOnce)
    }

    /// A live retained update is about to pass. When more than `max` are remembered it has to wait, and so has
    /// everything after it.
    pub(crate) fn expect_to_see(&mut self, topic: &[u8], max: usize) {
        self.holds_live |= self.seen.len() >= max && !self.seen.contains_key(topic);
    }

    /// Notes that a live retained update passed.
    pub(crate) fn saw(&mut self, topic: &[u8]) {
        if let Some(ready) = self.seen.get_mut(topic) {
            *ready = self.ready;
        } else {
            self.seen.insert(topic.into(), self.ready);
        }
    }

    /// Whether a live update of this topic passed since the first replay's SUBACK left. What passed before was sent by
    /// shards that did not all know of the Subscription: another one may be kept by now that was not sent here. And one
    /// that passed before the SUBSCRIBE is what that asks for [MQTT-3.3.1-9].
    pub(crate) fn has_seen(&self, topic: &[u8]) -> bool {
        let Some((first, _)) = self.open.first_key_value() else {
            return false;
        };
        !self.seen.is_empty() && self.seen.get(topic).is_some_and(|ready| ready > first)
    }
}
