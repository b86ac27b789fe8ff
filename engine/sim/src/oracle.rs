//! What a broker owes and what it may do: a naive reference that never predicts one outcome where the standard allows
//! several.
//!
//! The world tells it everything that crosses the engines' border, in order: requests as they are handled, answers as
//! they leave. Each thing told is one moment of logical time ([`At`]). From the intervals between them follows
//!
//! ```text
//! allowed(Subscription, message)   the Subscription may have existed at some moment between the PUBLISH and now
//! owed(Subscription, message)      it was acknowledged before the PUBLISH and stood until that was acknowledged
//! ```
//! and the set of messages that may be retained for a topic. What is owed and does not come must have been dropped by a
//! named policy: expired, larger than the Maximum Packet Size, refused with 0x97, or told as an event and counted.
//!
//! It is not fast, knows no shard, and shares no code with the engine.

mod burdens;
mod crash;
mod debts;
mod delivery;
mod disk;
mod forget;
mod glance;
mod matching;
mod message;
mod retained;
mod session;
mod subscriptions;
mod topics;

use std::collections::{BTreeMap, BTreeSet};

use sol_codec::{ProtocolVersion, QoS, ReasonCode};
use sol_engine::{AckKind, EngineConfig, Now, QueueFull, UnixMillis};

pub use self::crash::{Crash, Found};
use self::debts::{GroupDebt, Missing, ReplayDebt};
pub use self::delivery::Arrival;
pub use self::matching::matches;
use self::message::{Life, Messages};
pub use self::message::{Message, Number};
use self::session::Session;
pub use self::session::SessionId;
use self::topics::{TopicId, Topics};
use crate::packet::ConnectRequest;
use crate::violation::{Verdict, ensure};

/// A moment of logical time.
pub type At = u64;

/// A Network Connection, by a number that is never used again.
pub type LinkId = usize;

/// Milliseconds that two clocks differ by because each is rounded.
const CLOCKS_APART_MAX: u64 = 10;
/// Longer queues than this one are never full here.
const QUEUE_MAX_MET: usize = 10_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Oracle {
    at: At,
    now: Now,
    topics: Topics,
    messages: Messages,
    sessions: Vec<Session>,
    /// The Session that each client has, if any.
    current: BTreeMap<usize, SessionId>,
    /// The Session of each connection.
    links: BTreeMap<LinkId, SessionId>,
    /// Messages that were published since everything was at rest.
    open: Vec<Number>,
    /// Messages that were published with RETAIN, by topic.
    retained: Vec<Vec<Number>>,
    /// Messages without payload, by topic.
    empties: Vec<Vec<Number>>,
    group_debts: Vec<GroupDebt>,
    replay_debts: Vec<ReplayDebt>,
    /// What was owed, did not come, and has no other excuse than the broker's counters of drops.
    missing: Missing,
    rules: Rules,
    /// The shortest that a full queue was since everything was forgotten.
    queue_max: usize,
    /// Memory was scarce, perhaps, since everything was forgotten.
    pressed: bool,
    /// Some shard thinks that the disk is full.
    lacks_disk: bool,
    /// When the last one did, since everything was forgotten.
    lacked_disk: Option<At>,
    /// The latest the wall clock was since then.
    wall_max: UnixMillis,
    /// When somebody set it last.
    wall_set: At,
    /// When the broker died, since everything was forgotten.
    crashes: Vec<At>,
}

/// What a broker may do by its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// A queue that is full refuses, though it may be too long ever to be.
    pub would_refuse: bool,
    /// Messages in a queue that is full.
    pub queue_max: usize,
    /// It may answer 0x97, because a queue is full.
    pub refuses: bool,
    /// It may have no room for Sessions, Subscriptions, or what is retained.
    pub lacks_room: bool,
    /// Many publishes may wait behind a fan-out, so that it drops QoS 0 of other shards and Wills; but what is to be
    /// retained only for want of memory.
    pub drops_in_line: bool,
}

impl Rules {
    /// The rules of a configuration.
    #[must_use]
    pub fn of(config: &EngineConfig) -> Self {
        let lacks_room = config.memory_bytes_max < usize::MAX || config.connections_max < usize::MAX;
        Self {
            would_refuse: config.queue_full == QueueFull::Refuse,
            queue_max: config.queue_max,
            refuses: config.queue_full == QueueFull::Refuse && config.queue_max < QUEUE_MAX_MET,
            lacks_room,
            drops_in_line: config.fanout_waiting_max < 100,
        }
    }
}

/// What the world knows when everything is at rest.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Clients that keep no acknowledgement to themselves and whose connection takes everything, and how many messages
    /// the broker counted as dropped for the Session of each by a full queue.
    pub ready: BTreeMap<usize, u64>,
    /// Messages that the broker counted as dropped so far by full queues.
    pub by_queues: u64,
    /// Those of Shared Subscriptions that no member took.
    pub by_groups: u64,
    /// Those that were dropped behind a long line, for all.
    pub in_line: u64,
}

impl Oracle {
    /// An oracle of a broker without Sessions.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            queue_max: rules.queue_max,
            ..Self::default()
        }
    }

    /// Memory is scarce from now on, perhaps, until everything is [forgotten](Self::forget).
    pub fn press(&mut self) {
        self.pressed = true;
        for number in self.open.clone() {
            self.doubt_in_line(number);
        }
    }

    /// What is to be retained at QoS 0, and is perhaps not even looked at where its topic is at home (section 3.3.1.3:
    /// it may be discarded at any time).
    fn doubt_in_line(&mut self, number: Number) {
        if self.may_be_lost_in_line(self.message(number)) {
            self.life_mut(number).doubtful = true;
        }
    }

    fn may_be_lost_in_line(&self, message: &Message) -> bool {
        let may_drop = self.rules.drops_in_line && self.may_lack_room();
        may_drop && message.retain && message.qos == QoS::AtMostOnce
    }

    /// The broker has other limits from now on, beside those that it had.
    pub fn expect(&mut self, config: &EngineConfig) {
        let rules = Rules::of(config);
        if rules.lacks_room {
            self.press();
        }
        self.rules.refuses |= rules.refuses;
        self.rules.drops_in_line |= rules.drops_in_line;
        self.queue_max = self.queue_max.min(rules.queue_max);
    }

    /// Whether the broker may have no room for more.
    #[must_use]
    pub const fn may_lack_room(&self) -> bool {
        self.rules.lacks_room || self.pressed
    }

    /// Whether the broker may answer 0x97 to a publish for another reason than a full disk.
    #[must_use]
    pub const fn may_refuse(&self) -> bool {
        self.rules.refuses || self.may_lack_room()
    }

    /// The present moment.
    #[must_use]
    pub const fn at(&self) -> At {
        self.at
    }

    fn advance(&mut self) -> At {
        self.at += 1;
        self.at
    }

    /// Time passes: deadlines that lie behind may have had their effect from now on.
    pub fn time(&mut self, now: Now) {
        self.look_at_clocks(now);
        self.now = now;
        self.wall_max = self.wall_max.max(now.wall);
        let due: Vec<Number> = (self.current.values())
            .filter_map(|&id| self.session(id).will_due(now))
            .collect();
        for number in due {
            self.begin_will(number);
        }
    }

    /// Whether the wall clock goes on as the other one does.
    fn look_at_clocks(&mut self, now: Now) {
        let passed = now.mono.saturating_since(self.now.mono).as_millis() as u64;
        let expected = self.now.wall.as_millis() + passed;
        if now.wall.as_millis().abs_diff(expected) > CLOCKS_APART_MAX {
            self.wall_set = self.at;
        }
    }

    /// A message exists, though nobody has published it.
    pub fn introduce(&mut self, message: Message) {
        let topic = self.topic(&message.topic);
        if message.payload.is_empty() {
            self.empties[topic].push(message.number);
        }
        self.messages.insert(message, topic);
    }

    fn topic(&mut self, name: &str) -> TopicId {
        let topic = self.topics.topic(name);
        if self.retained.len() <= topic {
            self.retained.resize_with(topic + 1, Vec::new);
            self.empties.resize_with(topic + 1, Vec::new);
        }
        topic
    }

    /// Which Session a connection belongs to.
    #[must_use]
    pub fn session_of(&self, link: LinkId) -> Option<SessionId> {
        self.links.get(&link).copied()
    }

    /// The smallest Maximum Packet Size that a Session's client has had, if there is this Session.
    #[must_use]
    pub fn packet_max(&self, id: SessionId) -> Option<usize> {
        let is_current = self.current.values().any(|&current| current == id);
        is_current.then(|| self.session(id).packet_max)
    }

    /// All topics that were published to with RETAIN.
    #[must_use]
    pub fn retained_topics(&self) -> Vec<String> {
        let used = (0..self.retained.len()).filter(|&topic| !self.retained[topic].is_empty());
        used.map(|topic| self.topics.name(topic).to_owned()).collect()
    }

    /// A CONNECT reaches the client's home.
    pub fn connect(&mut self, who: usize, link: LinkId, connect: &ConnectRequest) {
        self.advance();
        if let Some(old) = self.current.get(&who).and_then(|&id| self.session(id).link) {
            self.leave(old, false, None);
        }
        let id = match self.current.get(&who) {
            Some(&id) if !connect.clean_start => {
                self.resume(id);
                id
            }
            known => {
                if let Some(&id) = known {
                    self.end_session(id);
                }
                self.sessions.push(Session::new(who));
                self.sessions.len() - 1
            }
        };
        self.current.insert(who, id);
        self.links.insert(link, id);
        self.session_mut(id).take(link, connect);
    }

    /// A CONNACK leaves for a connection.
    pub fn connack(&mut self, link: LinkId, present: bool) -> Verdict {
        let at = self.advance();
        let Some(mut id) = self.session_of(link) else {
            return Ok(());
        };
        let session = self.session(id);
        let (expected, who) = (session.present, session.who);
        ensure(expected.is_none_or(|expected| expected == present), "session", || {
            format!("client {who}: Session Present {present}, and {expected:?} is right")
        })?;
        if expected.is_none() && !present {
            // It had expired after all.
            let fresh = self.session_mut(id).replace();
            self.end_session(id);
            self.sessions.push(fresh);
            id = self.sessions.len() - 1;
            self.current.insert(who, id);
            self.links.insert(link, id);
        }
        if self.session(id).blurred {
            self.forgive_session(id);
        }
        self.session_mut(id).activate(at);
        Ok(())
    }

    /// A connection ends. `clean`: by DISCONNECT 0x00; `expiry`: its new Session Expiry Interval.
    pub fn leave(&mut self, link: LinkId, clean: bool, expiry: Option<u32>) {
        let at = self.advance();
        let Some(id) = self.session_of(link) else { return };
        if self.session(id).link != Some(link) {
            return;
        }
        self.doubt_parked(link);
        let now = self.now;
        let session = self.session_mut(id);
        session.leave(at, now, clean, expiry);
        let (due, over) = (session.will_due(now), session.expiry == 0);
        if let Some(number) = due {
            self.session_mut(id).will = None;
            self.begin_will(number);
        }
        if over {
            self.end_session(id);
        }
    }

    /// A connection ends that may have held publishes until there was memory, or room on the disk: they go with it.
    fn doubt_parked(&mut self, link: LinkId) {
        let (lacks_room, lacked_disk) = (self.may_lack_room(), self.lacked_disk_at());
        for &number in &self.open {
            let life = &mut self.messages.get_mut(number).life;
            let may_wait = lacks_room || lacked_disk.is_some_and(|at| at >= life.first);
            life.doubtful |= may_wait && life.link == Some(link) && life.owed != life.last;
        }
    }

    /// A client's PUBLISH is handled.
    pub fn publish(&mut self, link: LinkId, number: Number, packet_id: Option<u16>) {
        let at = self.advance();
        let wall = self.now.wall;
        let Some(id) = self.session_of(link) else { return };
        let known = self.messages.find(number).filter(|told| told.life.is_published());
        let lacked_disk = self.lacked_disk_since(known.map_or(at, |told| told.life.first));
        let may_refuse = self.may_refuse() || lacked_disk;
        let Some(told) = self.messages.find_mut(number) else {
            return;
        };
        let (message, life) = (&told.message, &mut told.life);
        // A crash may have lost it: then it is published now, and else that was it.
        let was_lost = std::mem::take(&mut life.lost) && (life.refused || !self.sessions[id].blurred);
        if let Some(packet_id) = packet_id {
            let known = self.sessions[id].unanswered.insert(packet_id, number);
            let refuses = may_refuse && self.sessions[id].version == ProtocolVersion::V5;
            if message.qos == QoS::ExactlyOnce && !self.sessions[id].inbound.insert(packet_id) && !was_lost {
                // A repeat, which is not published again [MQTT-4.3.3-10]; unless a PUBREC with 0x97 that nobody was there
                // to hear has ended the exchange [MQTT-4.3.3-9], or the Session is another one.
                let may_have_parked = self.pressed || self.rules.lacks_room || lacked_disk;
                if refuses && known.is_some() || may_have_parked || self.sessions[id].blurred {
                    life.may_come_again(at);
                    let topic = life.topic;
                    life.expires
                        .extend(message.expiry.map(|seconds| wall.plus_seconds(seconds)));
                    self.burden(topic);
                }
                return;
            }
            debug_assert!(
                known.is_none_or(|known| known == number),
                "a Packet Identifier is in use"
            );
        }
        if was_lost && life.refused {
            life.may_come_again(at);
            life.doubtful = true;
        } else if was_lost {
            // If it was kept, who had no room for it then has lost it, and nobody says so any more.
            life.published_after_all(at, may_refuse);
            if may_refuse && self.sessions[id].version == ProtocolVersion::V5 {
                // Or it was refused, and the identifier is free again though nobody was told.
                life.times += 1;
            }
        } else {
            life.published(at);
        }
        life.link = Some(link);
        life.expires
            .extend(message.expiry.map(|seconds| wall.plus_seconds(seconds)));
        self.open.push(number);
        let topic = life.topic;
        if message.retain && !(was_lost && self.retained[topic].contains(&number)) {
            self.retained[topic].push(number);
        }
        self.burden(topic);
        self.doubt_in_line(number);
    }

    /// PUBACK or PUBREC leaves for a publisher.
    pub fn answered(&mut self, link: LinkId, kind: AckKind, packet_id: u16, reason: ReasonCode) -> Verdict {
        self.advance();
        let Some(id) = self.session_of(link) else { return Ok(()) };
        if kind == AckKind::PubComp {
            let right = matches!(reason, ReasonCode::Success | ReasonCode::PacketIdentifierNotFound);
            return ensure(right, "I12", || format!("PUBCOMP {packet_id} with {reason:?}"));
        }
        let number = self.session_mut(id).unanswered.remove(&packet_id);
        if reason.is_error() {
            self.check_refusal(id, number, reason)?;
        }
        let Some(number) = number else {
            return Ok(());
        };
        if reason.is_error() {
            self.session_mut(id).inbound.remove(&packet_id);
            self.life_mut(number).refused = true;
            self.settle(number);
            self.owe_refused(number);
            return Ok(());
        }
        if reason == ReasonCode::NoMatchingSubscribers {
            let somebody = self.somebody_surely_matches(number);
            ensure(!somebody, "I1", || {
                format!("message {number}: 0x10, though somebody has subscribed")
            })?;
        }
        self.settle(number);
        self.owe(number);
        Ok(())
    }

    /// A publish is refused: its publisher can be told why, and there is somebody who may have no room for it, or none at
    /// all.
    fn check_refusal(&self, publisher: SessionId, number: Option<Number>, reason: ReasonCode) -> Verdict {
        let is_told = self.session(publisher).version == ProtocolVersion::V5;
        let lacks_room = self.may_lack_room();
        let unwritable = self.may_be_unwritable(publisher, number);
        let right = reason == ReasonCode::QuotaExceeded && is_told && (self.may_refuse() || unwritable);
        ensure(right, "I12", || {
            let who = self.session(publisher).who;
            format!("message {number:?} of client {who} is refused with {reason:?}, and why?")
        })?;
        let may_be_full = number.is_none_or(|number| lacks_room || unwritable || self.somebody_may_match(number));
        ensure(may_be_full, "I12", || {
            format!("message {number:?} is refused, and nobody has subscribed to it")
        })
    }

    /// A client's PUBREL is handled.
    pub fn released(&mut self, link: LinkId, packet_id: u16) {
        self.advance();
        if let Some(id) = self.session_of(link) {
            self.session_mut(id).inbound.remove(&packet_id);
        }
    }

    /// The broker says that it has dropped messages for a client.
    pub fn dropped(&mut self, who: usize, count: u64) {
        if let Some(&id) = self.current.get(&who) {
            self.session_mut(id).dropped = count;
        }
    }

    /// A connection takes nothing for a while.
    pub fn clogged(&mut self, link: LinkId) {
        if let Some(id) = self.session_of(link) {
            self.session_mut(id).clogged = true;
        }
    }

    /// Everything is at rest: what was to happen has happened.
    pub fn rest(&mut self, rest: &Rest) -> Verdict {
        self.advance();
        let now = self.now;
        let current: Vec<SessionId> = self.current.values().copied().collect();
        for &id in &current {
            if self.session(id).will_surely_due(now).is_some() {
                self.session_mut(id).will = None;
            }
            if self.session(id).is_surely_over(now) {
                self.end_session(id);
            }
        }
        self.close_subscriptions();
        // A Will whose time has just come may be a little late.
        let wills: BTreeSet<Number> = (self.current.values())
            .filter_map(|&id| self.session(id).will)
            .collect();
        let open = std::mem::take(&mut self.open);
        let is_late = |number: &Number| wills.contains(number) || self.life(*number).may_yet_come(now);
        let (late, done) = open.into_iter().partition(is_late);
        self.open = done;
        for number in self.open.clone() {
            self.settle(number);
            if self.message(number).is_will {
                self.owe(number);
            }
        }
        self.collect(rest)?;
        self.open = late;
        for session in &mut self.sessions {
            session.clogged = false;
        }
        Ok(())
    }

    /// What a Session may still hold after its end is nobody's any more.
    fn end_session(&mut self, id: SessionId) {
        let at = self.advance();
        let session = self.session_mut(id);
        session.remember(at);
        session.end(at);
        let (who, will) = (session.who, session.will.take());
        if self.current.get(&who) == Some(&id) {
            self.current.remove(&who);
        }
        self.forgive_groups_of(id);
        self.end_subscriptions_of(id, at);
        if let Some(number) = will {
            self.begin_will(number);
        }
    }

    /// A client is back before its Session was seen to end.
    fn resume(&mut self, id: SessionId) {
        let (at, now) = (self.at, self.now);
        let late = self.session(id).may_be_over(now);
        self.session_mut(id).remember(at);
        let will = self.session_mut(id).will.take();
        if let Some(number) = will.filter(|&number| self.life(number).is_published()) {
            // Its time had come, but perhaps the client came first.
            self.life_mut(number).doubtful = true;
        }
        self.session_mut(id).come_back(late);
    }

    /// A Will may be published from now on.
    fn begin_will(&mut self, number: Number) {
        if self.life(number).is_published() {
            return;
        }
        let at = self.advance();
        self.life_mut(number).published(at);
        self.open.push(number);
        let topic = self.life(number).topic;
        if self.message(number).retain {
            self.retained[topic].push(number);
        }
        self.burden(topic);
        self.doubt_in_line(number);
    }

    fn session(&self, id: SessionId) -> &Session {
        &self.sessions[id]
    }

    fn session_mut(&mut self, id: SessionId) -> &mut Session {
        &mut self.sessions[id]
    }

    fn message(&self, number: Number) -> &Message {
        &self.messages.get(number).message
    }

    fn life(&self, number: Number) -> &Life {
        &self.messages.get(number).life
    }

    fn life_mut(&mut self, number: Number) -> &mut Life {
        &mut self.messages.get_mut(number).life
    }
}
