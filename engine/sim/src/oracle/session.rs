//! A Session (section 4.1), as far as it can be known from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sol_codec::{ProtocolVersion, QoS};
use sol_engine::{Instant, Now, UnixMillis};

use super::burdens::Burden;
use super::subscriptions::Subscription;
use super::topics::TopicId;
use super::{At, LinkId, Number};
use crate::packet::ConnectRequest;

/// How late a deadline may be kept by a broker that has nothing else to do.
pub(super) const LATENESS: Duration = Duration::from_secs(1);

/// A Session, by the order in which they began.
pub type SessionId = usize;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Session {
    pub(super) who: usize,
    pub(super) version: ProtocolVersion,
    pub(super) link: Option<LinkId>,
    /// When its latest CONNACK left.
    pub(super) active: Option<At>,
    /// Session Present of the next CONNACK; `None`: it may be either.
    pub(super) present: Option<bool>,
    /// Nobody can say whether it is one Session or two: its client came back late, and again before a CONNACK told.
    pub(super) blurred: bool,
    pub(super) expiry: u32,
    /// When it ends, if its client does not come back: at the earliest, and at the latest.
    pub(super) ends: Option<Instant>,
    pub(super) ends_latest: Option<Instant>,
    /// A CONNACK has told of it.
    pub(super) was_active: bool,
    /// That CONNACK has waited until all before it was kept, for it is one that lasts.
    pub(super) was_kept: bool,
    /// What it was before what has changed it since its latest CONNACK.
    pub(super) undone: Vec<State>,
    /// When its latest connection ended, by the wall clock too.
    pub(super) left_wall: Option<UnixMillis>,
    pub(super) left_at: At,
    pub(super) ended: Option<At>,
    pub(super) will: Option<Number>,
    pub(super) will_delay: u32,
    pub(super) will_due: Option<Instant>,
    /// When its connections ended.
    pub(super) left: Vec<At>,
    /// Its connection took nothing for a while since all was at rest.
    pub(super) clogged: bool,
    /// The smallest Maximum Packet Size of its connections.
    pub(super) packet_max: usize,
    /// That of the latest connection.
    pub(super) packet_max_now: usize,
    /// Its client's publishes that wait for PUBACK or PUBREC.
    pub(super) unanswered: BTreeMap<u16, Number>,
    /// QoS 2 identifiers of its client that wait for PUBREL.
    pub(super) inbound: BTreeSet<u16>,
    pub(super) copies: BTreeMap<Number, Copies>,
    /// What had come before much was forgotten, of what may still come to others.
    pub(super) had: BTreeSet<Number>,
    /// Messages that cannot be told apart, by topic.
    pub(super) unnamed: BTreeMap<TopicId, Unnamed>,
    /// What it has subscribed to, in the order of asking.
    pub(super) subscriptions: Vec<Subscription>,
    /// It is or was a member of a Shared Subscription.
    pub(super) lends: bool,
    /// What must come.
    pub(super) owed: BTreeSet<Number>,
    /// The latest publish of those that came, by publisher, topic, and QoS published and delivered.
    pub(super) latest: BTreeMap<Stream, At>,
    /// The same of those that were published with RETAIN.
    pub(super) latest_retained: BTreeMap<Stream, At>,
    /// Messages dropped, as the broker tells it at doubling counts; and those of before it died.
    pub(super) dropped: u64,
    pub(super) dropped_before: u64,
    /// How many did not come, and have no other excuse.
    pub(super) missing: u64,
    /// What may wait in it.
    pub(super) burden: Burden,
}

/// What of a Session is kept with it, and changes as its connections come and go.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// When it was so last.
    pub(super) at: At,
    pub(super) expiry: u32,
    pub(super) will: Option<Number>,
    pub(super) will_delay: u32,
    /// When its connection ended; `None` while there is one.
    pub(super) left: Option<UnixMillis>,
}

/// What comes in order: publisher, topic, and QoS published and delivered.
pub(super) type Stream = (usize, TopicId, QoS, QoS);

/// How often a message came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copies {
    /// Repeats left out.
    pub(super) all: u32,
    /// Of them, those at QoS 2.
    pub(super) exactly: u32,
    /// Of them, those that cannot have been replays of a retained message.
    pub(super) live: u32,
    /// When one came last that may have been a replay, and when one came last.
    pub(super) replayed: Option<At>,
    pub(super) latest: Option<At>,
}

/// Empty messages of one topic that nobody numbered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unnamed {
    /// How many came.
    pub(super) came: u32,
    /// For how many of them it is known which ones they must have been.
    pub(super) taken: u32,
}

impl Session {
    pub(super) fn new(who: usize) -> Self {
        Self {
            who,
            version: ProtocolVersion::V5,
            link: None,
            active: None,
            present: Some(false),
            blurred: false,
            expiry: 0,
            ends: None,
            ends_latest: None,
            was_active: false,
            was_kept: false,
            undone: Vec::new(),
            left_wall: None,
            left_at: 0,
            ended: None,
            will: None,
            will_delay: 0,
            will_due: None,
            left: Vec::new(),
            clogged: false,
            packet_max: usize::MAX,
            packet_max_now: usize::MAX,
            unanswered: BTreeMap::new(),
            inbound: BTreeSet::new(),
            copies: BTreeMap::new(),
            had: BTreeSet::new(),
            unnamed: BTreeMap::new(),
            subscriptions: Vec::new(),
            lends: false,
            owed: BTreeSet::new(),
            latest: BTreeMap::new(),
            latest_retained: BTreeMap::new(),
            dropped: 0,
            dropped_before: 0,
            missing: 0,
            burden: Burden::default(),
        }
    }

    /// A Session that has ended.
    pub(super) fn over(who: usize, at: At) -> Self {
        Self {
            ended: Some(at),
            ..Self::new(who)
        }
    }

    /// Everything is at rest: what has ended or come is forgotten, but of what may still come.
    pub(super) fn forget(&mut self, open: &[Number]) {
        self.subscriptions.retain(|s| s.ended.is_none());
        for s in &mut self.subscriptions {
            s.may_replay = false;
        }
        self.lends = self.subscriptions.iter().any(Subscription::is_shared);
        self.packet_max = self.packet_max_now;
        self.left.clear();
        let has_had = |number: &Number| self.copies.contains_key(number) || self.had.contains(number);
        self.had = open.iter().copied().filter(has_had).collect();
        self.copies.clear();
        self.unnamed.clear();
        self.unanswered.clear();
        self.latest.clear();
        self.latest_retained.clear();
        self.burden.clear();
        self.undone.clear();
    }

    /// A client's CONNECT is its own now.
    pub(super) fn take(&mut self, link: LinkId, connect: &ConnectRequest) {
        self.link = Some(link);
        self.version = connect.version;
        self.active = None;
        (self.ends, self.ends_latest, self.left_wall) = (None, None, None);
        self.expiry = connect.session_expiry_interval;
        let will = connect.will.as_ref();
        self.will = will.map(|will| will.number);
        self.will_delay = will.map_or(0, |will| will.delay);
        self.will_due = None;
        self.packet_max_now = connect.maximum_packet_size.map_or(usize::MAX, |max| max as usize);
        self.packet_max = self.packet_max.min(self.packet_max_now);
    }

    pub(super) fn come_back(&mut self, late: bool) {
        // Once in doubt it stays so until a CONNACK tells.
        let doubted = self.present.is_none();
        self.blurred |= doubted;
        self.present = if late || doubted { None } else { Some(true) };
    }

    pub(super) fn activate(&mut self, at: At) {
        self.active = Some(at);
        self.present = Some(true);
        self.was_active = true;
        self.was_kept |= self.expiry > 0;
        self.undone.clear();
    }

    /// As it is now.
    pub(super) fn state(&self, at: At) -> State {
        State {
            at,
            expiry: self.expiry,
            will: self.will,
            will_delay: self.will_delay,
            left: self.left_wall.filter(|_| self.link.is_none()),
        }
    }

    /// It is about to change.
    pub(super) fn remember(&mut self, at: At) {
        let state = self.state(at);
        self.undone.push(state);
    }

    /// What it may be again if nothing was kept since.
    pub(super) fn states_since(&self, horizon: At) -> impl Iterator<Item = &State> {
        self.undone.iter().filter(move |state| state.at >= horizon)
    }

    /// The Session that takes this one's place: its connection and what came with the latest CONNECT.
    pub(super) fn replace(&mut self) -> Self {
        Self {
            version: self.version,
            link: self.link.take(),
            expiry: self.expiry,
            will: self.will.take(),
            will_delay: self.will_delay,
            packet_max: self.packet_max,
            packet_max_now: self.packet_max_now,
            clogged: self.clogged,
            ..Self::new(self.who)
        }
    }

    pub(super) fn leave(&mut self, at: At, now: Now, clean: bool, expiry: Option<u32>) {
        self.remember(at);
        self.link = None;
        self.active = None;
        self.left.push(at);
        (self.left_wall, self.left_at) = (Some(now.wall), at);
        self.expiry = expiry.unwrap_or(self.expiry);
        self.ends = (self.expiry < u32::MAX).then(|| after(now, self.expiry));
        self.ends_latest = self.ends;
        if clean {
            self.will = None;
        }
        self.will_due = self.will.map(|_| after(now, self.will_delay.min(self.expiry)));
    }

    pub(super) fn end(&mut self, at: At) {
        self.ended = Some(at);
        self.link = None;
        self.owed.clear();
    }

    /// Its Will, if its time has come.
    pub(super) fn will_due(&self, now: Now) -> Option<Number> {
        self.will.filter(|_| self.will_due.is_some_and(|due| due <= now.mono))
    }

    /// Whether its time is up.
    fn is_over(&self, now: Now) -> bool {
        self.link.is_none() && self.ends.is_some_and(|end| end <= now.mono)
    }

    /// Whether it has surely ended, once everything is at rest.
    pub(super) fn is_surely_over(&self, now: Now) -> bool {
        self.link.is_none()
            && self
                .ends_latest
                .is_some_and(|end| end.saturating_add(LATENESS) <= now.mono)
    }

    /// Its Will, if it was surely published, once everything is at rest.
    pub(super) fn will_surely_due(&self, now: Now) -> Option<Number> {
        let is_due = |due: Instant| due.saturating_add(LATENESS) <= now.mono;
        self.will.filter(|_| self.will_due.is_some_and(is_due))
    }

    /// Whether it may have ended.
    pub(super) fn may_be_over(&self, now: Now) -> bool {
        self.present.is_none() || self.is_over(now)
    }

    /// Whether it surely exists.
    pub(super) fn is_sure(&self, now: Now) -> bool {
        self.ended.is_none() && !self.may_be_over(now)
    }
}

fn after(now: Now, seconds: u32) -> Instant {
    now.mono.saturating_add(Duration::from_secs(u64::from(seconds)))
}
