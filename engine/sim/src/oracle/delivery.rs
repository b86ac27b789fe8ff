//! A message has arrived: may it, and is it as it must be?

use sol_codec::{ProtocolVersion, QoS};
use sol_engine::Now;

use super::message::{Life, Told};
use super::session::{Session, Stream};
use super::subscriptions::Subscription;
use super::topics::FilterId;
use super::{At, Number, Oracle, SessionId};
use crate::packet::Received;
use crate::violation::{Verdict, broken, ensure};

/// A message as a client's application gets it for the first time.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The Session that it was sent to.
    pub session: SessionId,
    /// The version it was sent in.
    pub version: ProtocolVersion,
    /// What came.
    pub received: &'a Received,
    /// When it was sent.
    pub sent: Now,
    /// A delivery of QoS 2 is written to a journal before it is sent, and may expire meanwhile.
    pub journaled: bool,
}

/// What explains an arrival.
#[derive(Debug, Default)]
struct Causes {
    /// The Session has a Subscription of its own that matches.
    plain: bool,
    /// Shared Subscriptions that match and that it may be a member of.
    groups: Vec<FilterId>,
    /// Such a Subscription explains QoS and RETAIN, too.
    live: bool,
    /// Replays that may have it sent as a retained message: one of each SUBSCRIBE, and one more for each crash since.
    replays: u32,
    /// How often they may send it at QoS 1: what one of them has sent comes again after each crash that follows.
    replayed_max: u32,
    /// This may be one of those.
    replay: bool,
}

impl Causes {
    /// How often it may come, but for replays, each time that it is published.
    fn live_max(&self) -> u32 {
        u32::from(self.plain) + self.groups.len() as u32
    }
}

impl Oracle {
    /// A message reaches a client's application, and is no repeat.
    ///
    /// # Errors
    /// It must not, or not so.
    pub fn received(&mut self, arrival: &Arrival<'_>) -> Verdict {
        let at = self.advance();
        let (session, received) = (arrival.session, arrival.received);
        let Some(number) = received.number() else {
            return self.received_unnamed(arrival);
        };
        self.check_content(number, arrival)?;
        let causes = self.causes(session, number, received);
        ensure(causes.live || causes.replay, "I5", || {
            self.describe("has no cause", number, arrival)
        })?;
        self.check_number_of_copies(number, &causes, arrival)?;
        if !self.message(number).is_will {
            self.check_order(number, &causes, arrival)?;
        }
        self.check_subscription_ids(number, &causes, arrival)?;
        self.check_expiry(number, arrival)?;
        let copies = self.session_mut(session).copies.entry(number).or_default();
        let first = copies.all == 0;
        copies.all += 1;
        copies.exactly += u32::from(received.qos == QoS::ExactlyOnce);
        copies.latest = Some(at);
        if causes.replay {
            copies.replayed = Some(at);
        } else {
            copies.live += 1;
        }
        if first {
            self.life_mut(number).holders.push(session);
        }
        if !self.session_mut(session).owed.remove(&number) {
            self.serve_group(session, number);
        }
        if !causes.groups.is_empty() {
            self.check_groups(number, arrival)?;
        }
        Ok(())
    }

    fn describe(&self, what: &str, number: Number, arrival: &Arrival<'_>) -> String {
        let who = self.session(arrival.session).who;
        format!("message {number} at client {who} {what}: {:?}", arrival.received)
    }

    /// An empty message without a number is one of those that may come, and at rest there must be enough of them.
    fn received_unnamed(&mut self, arrival: &Arrival<'_>) -> Verdict {
        let Arrival { session, received, .. } = arrival;
        let (mut may_be, mut count_max) = (false, 0);
        let topic = received.topic.as_deref().unwrap_or_default();
        let topic = self.topics.topic(topic);
        let empties = self.empties.get(topic).map_or(&[][..], |empties| empties);
        for &number in empties {
            let life = self.life(number);
            let like_it = self.message(number).payload == received.payload;
            if like_it && life.is_published() && self.is_unnamed(*session, number) {
                let causes = self.causes(*session, number, received);
                may_be |= causes.live && self.expiry_fits(number, arrival);
                count_max += life.times * (1 + self.crashes_since(life.first)) * causes.live_max();
                if !causes.groups.is_empty() {
                    count_max += self.losses(number);
                }
            }
        }
        let who = self.session(*session).who;
        ensure(may_be, "I5", || format!("client {who} gets {received:?}"))?;
        let unnamed = self.session_mut(*session).unnamed.entry(topic).or_default();
        unnamed.came += 1;
        ensure(unnamed.came <= count_max, "I3", || {
            format!("client {who} gets too often {received:?}")
        })
    }

    /// Whether a Session's client cannot tell which message this is.
    pub(super) fn is_unnamed(&self, session: SessionId, number: Number) -> bool {
        let message = self.message(number);
        let is_told = message.tagged && self.session(session).version == ProtocolVersion::V5;
        message.payload.is_empty() && !is_told
    }

    fn check_content(&self, number: Number, arrival: &Arrival<'_>) -> Verdict {
        let Some(Told { message, life }) = self.messages.find(number) else {
            return Err(broken("I5", format!("nobody has published {:?}", arrival.received)));
        };
        let rule = if message.is_will { "I10" } else { "I5" };
        ensure(life.is_published(), rule, || {
            self.describe("was not published", number, arrival)
        })?;
        let received = arrival.received;
        let tag = (message.tagged && arrival.version == ProtocolVersion::V5).then_some(number);
        let same = received.topic.as_ref() == Some(&message.topic) && received.payload == message.payload;
        ensure(same && received.tag == tag, "content", || {
            self.describe("is not what was published", number, arrival)
        })
    }

    fn causes(&self, session: SessionId, number: Number, received: &Received) -> Causes {
        let (message, life) = (self.message(number), self.life(number));
        let who = self.session(session).who;
        let mut causes = Causes::default();
        let (mut qos_fits, mut retain_fits) = (false, false);
        let subscriptions = &self.session(session).subscriptions;
        for s in subscriptions {
            let matches = self.topics.matches(s.filter, life.topic);
            if !matches || !self.may_explain(s, subscriptions, life.first) {
                continue;
            }
            let same_qos = s.options.qos.min(message.qos) == received.qos;
            // A group's message may be given back and go to somebody who came later.
            let in_time = life.settled.is_none_or(|settled| s.asked < settled) || self.is_given_back(s);
            if in_time && !life.over && s.may_stand_since(life.first) && !s.excludes(who, message) {
                qos_fits |= same_qos;
                retain_fits |= received.retain == (message.retain && s.options.retain_as_published);
                if !s.is_shared() {
                    causes.plain = true;
                } else if !causes.groups.contains(&s.filter) {
                    causes.groups.push(s.filter);
                }
            }
            let was_retained = message.retain
                && !message.payload.is_empty()
                && life.replaced.is_none_or(|replaced| replaced > s.asked);
            if s.may_replay && was_retained {
                let begun = 1 + self.crashes_since(life.first.max(s.asked));
                causes.replays += begun;
                causes.replayed_max += begun * (begun + 1) / 2;
                // One that begins anew goes by what the Subscription has become.
                let become_of = |other: &Subscription| {
                    let takes_its_place = other.filter == s.filter && other.asked > s.asked;
                    takes_its_place && other.options.qos.min(message.qos) == received.qos
                };
                let fits = same_qos || begun > 1 && subscriptions.iter().any(become_of);
                causes.replay |= received.retain && fits;
            }
        }
        causes.live = causes.live_max() > 0 && qos_fits && retain_fits;
        causes
    }

    /// Whether a Subscription that matches a message may have to do with it: it may have existed since, or one of the
    /// same filter that took its place, and its retained messages may still be on their way.
    fn may_explain(&self, s: &Subscription, of_session: &[Subscription], first: At) -> bool {
        let takes_its_place = |other: &Subscription| other.plain == s.plain && other.may_stand_since(first);
        s.may_stand_since(first) || s.may_replay && of_session.iter().any(takes_its_place)
    }

    /// Whether a message of a Shared Subscription may have been given back: its member is lost, or was before the message
    /// was published, and not everybody knew.
    fn is_given_back(&self, member: &Subscription) -> bool {
        let mut members = self.topics.filter(member.filter).subscriptions.iter();
        member.is_shared()
            && members.any(|&(id, n)| {
                let session = self.session(id);
                let is_lost = session.ended.is_some() || session.may_be_over(self.now) || !session.left.is_empty();
                is_lost || session.subscriptions[n].ending.is_some()
            })
    }

    /// Each Subscription explains one copy each time that the message is published [MQTT-4.3.2-1, -4.3.3-1].
    fn check_number_of_copies(&self, number: Number, causes: &Causes, arrival: &Arrival<'_>) -> Verdict {
        let copies = self.session(arrival.session).copies.get(&number);
        let copies = copies.copied().unwrap_or_default();
        let exactly = arrival.received.qos == QoS::ExactlyOnce;
        // What a group has lost may come back to the member that had it.
        let back = if causes.groups.is_empty() {
            0
        } else {
            self.losses(number)
        };
        let &Life { times, first, .. } = self.life(number);
        let again = self.crashes_since(first);
        let fits = |all: u32, live: u32, each: u32, replays: u32| {
            let live_max = each * times * causes.live_max() + back;
            all < live_max + replays && (causes.replay || live < live_max)
        };
        // What was sent before its record was kept is sent again, and what was not acknowledged was perhaps not kept. QoS 2
        // is written before it is sent.
        let (other, all) = (copies.all - copies.exactly, copies.all);
        let fits = fits(all, copies.live, 1 + again, causes.replayed_max)
            && (!exactly || again == 0 || fits(all - other, 0, 1, causes.replays));
        let rule = if exactly { "I2" } else { "I3" };
        ensure(fits, rule, || self.describe("comes too often", number, arrival))
    }

    /// How many copies of a message may have been lost since with members of groups that it went to. A QoS 2 delivery
    /// stays where it has begun.
    fn losses(&self, number: Number) -> u32 {
        let (message, life) = (self.message(number), self.life(number));
        // Who is a member of two groups may lose a copy of each.
        let mut members: Vec<(SessionId, FilterId)> = Vec::new();
        let (mut at_least_once, mut endings) = (false, 0);
        for filter in self.topics.matching(life.topic) {
            if self.topics.filter(filter).share.is_none() {
                continue;
            }
            for (id, n) in self.members(filter, number) {
                let s = &self.session(id).subscriptions[n];
                at_least_once |= s.options.qos.min(message.qos) == QoS::AtLeastOnce;
                endings += usize::from(s.ending.is_some_and(|at| at > life.first));
                if !members.contains(&(id, filter)) {
                    members.push((id, filter));
                }
            }
        }
        if !at_least_once {
            return 0;
        }
        let lost = |&(id, _): &(SessionId, FilterId)| {
            let session = self.session(id);
            let left = session.left.iter().filter(|&&at| at > life.first).count();
            left + usize::from(session.may_be_over(self.now))
        };
        let losses = endings + members.iter().map(lost).sum::<usize>();
        losses as u32 * life.times
    }

    /// First deliveries come in the order of publishing, by publisher, topic and QoS [MQTT-4.6.0-5, -6]; and what is
    /// retained is not replayed after what replaced it.
    fn check_order(&mut self, number: Number, causes: &Causes, arrival: &Arrival<'_>) -> Verdict {
        let (message, life) = (self.message(number), self.life(number));
        let received = arrival.received;
        let stream: Stream = (message.origin, life.topic, message.qos, received.qos);
        // What a crash may have lost, for where it was to be retained, is perhaps here alone.
        let (first, last, retain) = (life.first, life.again, message.retain && !life.doubtful);
        let session = self.session(arrival.session);
        let is_first = session.copies.get(&number).is_none_or(|copies| copies.live == 0);
        // What came live may not have come to where it was to be retained.
        let may_be_lost = self.may_be_lost_in_line(message);
        let overtaken = |latest: Option<&u64>| latest.is_some_and(|&latest| latest > last);
        if !causes.replay && causes.groups.is_empty() && is_first {
            let late = overtaken(session.latest.get(&stream));
            ensure(!late, "I4", || {
                self.describe("comes after a later one", number, arrival)
            })?;
            let latest = self.session_mut(arrival.session).latest.entry(stream).or_default();
            *latest = (*latest).max(first);
        } else if causes.replay && !causes.live && !received.dup && !may_be_lost {
            let late = overtaken(session.latest_retained.get(&stream));
            ensure(!late, "I6", || {
                self.describe("is replayed after what replaced it", number, arrival)
            })?;
        }
        // A group's copy may overtake the replay of a Subscription of its member's own.
        if retain && causes.groups.is_empty() {
            let latest = self
                .session_mut(arrival.session)
                .latest_retained
                .entry(stream)
                .or_default();
            *latest = (*latest).max(first);
        }
        Ok(())
    }

    /// The Subscription Identifiers are those of the Subscriptions that match [MQTT-3.3.4-3, -4, -5].
    fn check_subscription_ids(&self, number: Number, causes: &Causes, arrival: &Arrival<'_>) -> Verdict {
        let (message, life) = (self.message(number), self.life(number));
        let ids = &arrival.received.subscription_ids;
        let session = arrival.session;
        let Session { who, subscriptions, .. } = self.session(session);
        let matches = |s: &&Subscription| self.topics.matches(s.filter, life.topic);
        let explains = |s: &Subscription| self.may_explain(s, subscriptions, life.first);
        let is_known = |id: &u32| {
            let mut matching = subscriptions.iter().filter(matches);
            matching.any(|s| s.id == Some(*id) && explains(s))
        };
        ensure(ids.iter().all(is_known), "I5", || {
            self.describe("has a strange Subscription Identifier", number, arrival)
        })?;
        if causes.replay || !causes.groups.is_empty() {
            return Ok(());
        }
        let possible = || subscriptions.iter().filter(|s| self.may_match(s, life));
        let must_be = possible().filter(|s| {
            let alone = possible().filter(|other| other.plain == s.plain).count() == 1;
            alone && s.stands_since(life.first) && !s.excludes(*who, message)
        });
        let complete = must_be.filter_map(|s| s.id).all(|id| ids.contains(&id));
        ensure(complete, "I5", || {
            self.describe("lacks a Subscription Identifier", number, arrival)
        })
    }

    /// It had not expired when it was sent first, and says how long it will last [MQTT-3.3.2-5, -6].
    fn check_expiry(&self, number: Number, arrival: &Arrival<'_>) -> Verdict {
        let expires = &self.life(number).expires;
        let (received, wall) = (arrival.received, arrival.sent.wall);
        let begun_before = received.dup || arrival.journaled && received.qos == QoS::ExactlyOnce;
        let expired = !expires.is_empty() && expires.iter().all(|&at| at < wall);
        ensure(begun_before || !expired, "expiry", || {
            self.describe("had expired", number, arrival)
        })?;
        let right = self.expiry_fits(number, arrival);
        ensure(right, "expiry", || {
            self.describe("says a wrong Message Expiry Interval", number, arrival)
        })
    }

    /// Whether the Message Expiry Interval is what is left of this message's [MQTT-3.3.2-6].
    fn expiry_fits(&self, number: Number, arrival: &Arrival<'_>) -> bool {
        let expires = &self.life(number).expires;
        match arrival.received.expiry {
            Some(left) => expires.iter().any(|at| at.seconds_from(arrival.sent.wall) == left),
            None => expires.is_empty() || arrival.version < ProtocolVersion::V5,
        }
    }

    /// One member of each Shared Subscription gets it, and another one only if that one was lost [MQTT-4.8.2-4, -5].
    fn check_groups(&self, number: Number, arrival: &Arrival<'_>) -> Verdict {
        let life = self.life(number);
        let times = life.times * (1 + self.crashes_since(life.first));
        let (mut groups, mut count) = (0, 0);
        for filter in self.topics.matching(life.topic) {
            let is_group = self.topics.filter(filter).share.is_some();
            groups += u32::from(is_group && self.members(filter, number).next().is_some());
        }
        for &id in &life.holders {
            let session = self.session(id);
            let is_plain = |s: &Subscription| !s.is_shared() && self.may_match(s, life);
            let plain = u32::from(session.subscriptions.iter().any(is_plain));
            let copies = session.copies.get(&number).map_or(0, |copies| copies.live);
            count += copies.saturating_sub(times * plain);
        }
        let max = times * groups + self.losses(number);
        ensure(count <= max, "I5", || {
            self.describe("went to several members of a group", number, arrival)
        })
    }
}
