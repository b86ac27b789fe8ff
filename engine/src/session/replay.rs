//! Retained messages on their way to a new Subscription (section 3.3.1.3), under the subscriber's flow control.

use alloc::{
    boxed::Box,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    string::String,
    vec::Vec,
};

use sol_codec::{PacketId, SubscriptionId};

use crate::ids::ShardId;
use crate::message::Message;
use crate::retained::Page;
use crate::subscription::Options;

/// One Subscription's replay.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) filter: String,
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
    /// The SUBSCRIBE it belongs to, while that one's SUBACK has not left.
    pub(crate) before_suback: Option<PacketId>,
}

impl Replay {
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
#[derive(Debug, Default)]
pub(crate) struct Replays {
    /// Replays in the order of their filters. Those at the end may not have begun: their SUBACK has not left.
    pub(crate) open: VecDeque<Replay>,
    /// Topics whose live retained update passed to the Session since: a page's entry for one is older and is skipped.
    seen: BTreeSet<Box<[u8]>>,
    /// `seen` is full: live messages wait until the replays have ended.
    pub(crate) holds_live: bool,
}

impl Replays {
    /// A SUBACK has left: the replays of its SUBSCRIBE may run.
    pub(crate) fn start(&mut self, packet_id: PacketId) {
        for replay in &mut self.open {
            if replay.before_suback == Some(packet_id) {
                replay.before_suback = None;
            }
        }
    }

    /// The replay at work, if its SUBACK has left: interest is confirmed by then.
    pub(crate) fn active(&mut self) -> Option<&mut Replay> {
        self.open.front_mut().filter(|replay| replay.before_suback.is_none())
    }

    /// The replay that asked another shard this question.
    pub(crate) fn asked(&mut self, id: u64) -> Option<&mut Replay> {
        self.open.iter_mut().find(|replay| replay.asked == Some(id))
    }

    /// The first replay is done. Returns whether it was the last.
    pub(crate) fn finish(&mut self) -> bool {
        self.open.pop_front();
        self.open.is_empty()
    }

    /// The messages at hand, when the Session ends.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = Rc<Message>> {
        self.open.into_iter().flat_map(|replay| replay.page)
    }

    /// A Subscription ended: its replays end with it. Gives `each` the messages at hand, and returns whether none is
    /// left.
    pub(crate) fn remove(&mut self, filter: &str, mut each: impl FnMut(Rc<Message>)) -> bool {
        self.open.retain_mut(|replay| {
            let stays = replay.filter != filter;
            if !stays {
                replay.page.drain(..).for_each(&mut each);
            }
            stays
        });
        self.open.is_empty()
    }

    /// Notes that a live retained update passed; at most `max` are remembered.
    pub(crate) fn saw(&mut self, topic: &[u8], max: usize) {
        if self.seen.len() >= max {
            self.holds_live = true;
        } else if !self.seen.contains(topic) {
            self.seen.insert(topic.into());
        }
    }

    /// Whether a live update of this topic passed already.
    pub(crate) fn has_seen(&self, topic: &[u8]) -> bool {
        !self.seen.is_empty() && self.seen.contains(topic)
    }
}
