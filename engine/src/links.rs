//! What one shard has told the others and still waits to hear from them. Everything here is counted, so that one answer
//! a batch is enough.

use alloc::{collections::VecDeque, vec::Vec};

use crate::effects::Effects;
use crate::ids::ShardId;
use crate::session::acks::Place;
use crate::session::sessions::SessionRef;
use crate::shard_message::{Interest, ShardMessage};

/// What the answer to a forward is awaited for.
#[derive(Debug)]
enum Awaited {
    /// Nothing, or nothing any more.
    Nothing,
    /// An acknowledgement waits for it.
    By(SessionRef, Place),
    /// Nobody is told: these bytes count as unanswered, which is all the flow control there is.
    Bytes(usize),
}

/// Towards one other shard.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Its mailbox is above the mark.
    pub(crate) full: bool,
    /// Our announcements that it has confirmed.
    confirmed: u64,
    /// Its latest announcement, and the one we confirmed last.
    heard: u64,
    confirmed_to: u64,
    /// Our forwards to it that want an answer: numbers, and what each is awaited for.
    /// The numbers follow each other: an entry is found by its distance from the first.
    sent: u64,
    awaiting: VecDeque<(u64, Awaited)>,
    /// Bytes of those that no acknowledgement waits for.
    unanswered: usize,
    /// They were too many, and have not become few since.
    behind: bool,
    /// Its forwards that want an answer: the latest, those not yet settled in order, and what we told last.
    received: u64,
    unsettled: VecDeque<u64>,
    taken_to: u64,
}

/// Towards all other shards.
#[derive(Debug)]
pub(crate) struct Links {
    me: ShardId,
    links: Vec<Link>,
    /// Our latest announcement; the same number towards all.
    announced: u64,
}

impl Links {
    pub(crate) fn new(me: ShardId, shards: u16) -> Self {
        let mut links = Vec::new();
        links.resize_with(usize::from(shards), Link::default);
        Self {
            me,
            links,
            announced: 0,
        }
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.links.len() <= 1
    }

    /// All other shards.
    pub(crate) fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.me;
        (0..self.links.len() as u16)
            .map(ShardId)
            .filter(move |&shard| shard != me)
    }

    pub(crate) fn link_mut(&mut self, shard: ShardId) -> Option<&mut Link> {
        self.links.get_mut(usize::from(shard.0))
    }

    pub(crate) fn is_full(&self, shard: ShardId) -> bool {
        self.links.get(usize::from(shard.0)).is_some_and(|link| link.full)
    }

    /// A shard whose mailbox is above the mark, if there is one.
    pub(crate) fn full_one(&self) -> Option<ShardId> {
        let full = self.links.iter().position(|link| link.full)?;
        Some(ShardId(full as u16))
    }

    /// Whether a shard is behind with what nobody waits for.
    pub(crate) fn is_behind(&self, shard: ShardId) -> bool {
        self.links.get(usize::from(shard.0)).is_some_and(|link| link.behind)
    }

    /// A shard that is, if there is one.
    pub(crate) fn one_behind(&self) -> Option<ShardId> {
        let behind = self.links.iter().position(|link| link.behind)?;
        Some(ShardId(behind as u16))
    }

    /// Tells all others something they confirm; returns its number.
    pub(crate) fn announce(&mut self, message: impl Fn(u64) -> ShardMessage, effects: &mut Effects) -> u64 {
        self.announced += 1;
        for shard in self.others() {
            effects.forwards.push((shard, message(self.announced)));
        }
        self.announced
    }

    /// Asks all others to confirm that what they have routed so far was posted to everybody; returns the number.
    pub(crate) fn announce_nothing(&mut self, effects: &mut Effects) -> u64 {
        let message = |n| ShardMessage::Interest {
            n,
            filter: Interest::Nothing,
        };
        self.announce(message, effects)
    }

    /// Our latest announcement.
    pub(crate) const fn announced(&self) -> u64 {
        self.announced
    }

    /// The highest announcement that every other shard has confirmed.
    pub(crate) fn confirmed(&self) -> u64 {
        let others = self.others().filter_map(|shard| self.links.get(usize::from(shard.0)));
        others.map(|link| link.confirmed).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn on_confirmed(&mut self, from: ShardId, n: u64) {
        if let Some(link) = self.link_mut(from) {
            link.confirmed = link.confirmed.max(n);
        }
    }

    pub(crate) fn on_announced(&mut self, from: ShardId, n: u64) {
        if let Some(link) = self.link_mut(from) {
            link.heard = link.heard.max(n);
        }
    }

    /// A number for a forward that wants an answer; until [`Links::await_answer`] nobody waits for it.
    pub(crate) fn number_forward(&mut self, to: ShardId) -> u64 {
        let Some(link) = self.link_mut(to) else { return 0 };
        link.sent += 1;
        link.awaiting.push_back((link.sent, Awaited::Nothing));
        link.sent
    }

    /// A number for a forward that no acknowledgement will wait for: while more than `max` bytes of these are unanswered
    /// the shard is behind.
    pub(crate) fn number_unacknowledged(&mut self, to: ShardId, bytes: usize, max: usize) -> u64 {
        let Some(link) = self.link_mut(to) else { return 0 };
        link.sent += 1;
        link.awaiting.push_back((link.sent, Awaited::Bytes(bytes)));
        link.unanswered = link.unanswered.saturating_add(bytes);
        link.behind |= link.unanswered > max;
        link.sent
    }

    /// Whether a shard that was behind is so no more: half of `max` is unanswered at most.
    pub(crate) fn has_caught_up(&mut self, shard: ShardId, max: usize) -> bool {
        self.link_mut(shard)
            .is_some_and(|link| link.unanswered <= max / 2 && core::mem::take(&mut link.behind))
    }

    /// Lets an acknowledgement wait for a forward's answer.
    pub(crate) fn await_answer(&mut self, to: ShardId, n: u64, who: (SessionRef, Place)) {
        if let Some(entry) = self.awaiting(to, n) {
            *entry = Awaited::By(who.0, who.1);
        }
    }

    /// The next forward that a cumulative answer settles, and the acknowledgement that waits for it.
    pub(crate) fn next_taken(&mut self, from: ShardId, upto: u64) -> Option<Option<(SessionRef, Place)>> {
        let link = self.link_mut(from)?;
        if link.awaiting.front()?.0 > upto {
            return None;
        }
        Some(match link.awaiting.pop_front()?.1 {
            Awaited::Nothing => None,
            Awaited::By(session, place) => Some((session, place)),
            Awaited::Bytes(bytes) => {
                link.unanswered = link.unanswered.saturating_sub(bytes);
                None
            }
        })
    }

    /// The acknowledgement that one refused forward settles.
    pub(crate) fn on_refused(&mut self, from: ShardId, n: u64) -> Option<(SessionRef, Place)> {
        let awaited = self.awaiting(from, n)?;
        let Awaited::By(session, place) = *awaited else {
            return None;
        };
        *awaited = Awaited::Nothing;
        Some((session, place))
    }

    /// What a forward's answer is awaited for, until the cumulative answer has passed it.
    fn awaiting(&mut self, to: ShardId, n: u64) -> Option<&mut Awaited> {
        let awaiting = &mut self.link_mut(to)?.awaiting;
        let at = n.checked_sub(awaiting.front()?.0)?;
        awaiting.get_mut(usize::try_from(at).ok()?).map(|(_, awaited)| awaited)
    }

    /// A forward came that wants an answer.
    pub(crate) fn on_forward(&mut self, from: ShardId, n: u64) {
        if let Some(link) = self.link_mut(from)
            && n > 0
        {
            link.received = n;
            link.unsettled.push_back(n);
        }
    }

    /// A forward is settled: taken, or refused, which is told at once.
    pub(crate) fn settle(&mut self, from: ShardId, n: u64, refused: bool, effects: &mut Effects) {
        if let Some(link) = self.link_mut(from)
            && let Ok(at) = link.unsettled.binary_search(&n)
        {
            link.unsettled.remove(at);
            if refused {
                effects.forwards.push((from, ShardMessage::Refused(n)));
            }
        }
    }

    /// The answers of this turn, after everything else that was posted in it.
    pub(crate) fn answer(&mut self, effects: &mut Effects) {
        for shard in self.others() {
            let Some(link) = self.link_mut(shard) else { continue };
            if link.heard > link.confirmed_to {
                link.confirmed_to = link.heard;
                effects.forwards.push((shard, ShardMessage::Confirmed(link.heard)));
            }
            let settled = link.unsettled.front().map_or(link.received, |first| first - 1);
            if settled > link.taken_to {
                link.taken_to = settled;
                effects.forwards.push((shard, ShardMessage::Taken(settled)));
            }
        }
    }

    /// Whether an answer is due.
    pub(crate) fn owes_answer(&self) -> bool {
        self.links.iter().any(|link| {
            link.heard > link.confirmed_to
                || link.unsettled.front().map_or(link.received, |first| first - 1) > link.taken_to
        })
    }
}
