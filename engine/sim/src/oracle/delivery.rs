//! A message has arrived: may it, and is it as it must be?

use std::collections::BTreeSet;

use sol_codec::{ProtocolVersion, QoS};
use sol_engine::Now;

use super::session::Stream;
use super::subscriptions::Subscription;
use super::{Number, Oracle, SessionId};
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
    groups: BTreeSet<(String, String)>,
    /// Such a Subscription explains QoS and RETAIN, too.
    live: bool,
    /// SUBSCRIBEs that may have it sent as a retained message.
    replays: u32,
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
        copies.all += 1;
        if causes.replay {
            copies.replayed = Some(at);
        } else {
            copies.live += 1;
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
        for (&number, (message, life)) in &self.messages {
            let like_it = message.payload == received.payload && received.topic.as_ref() == Some(&message.topic);
            if like_it && life.is_published() && self.is_unnamed(*session, number) {
                let causes = self.causes(*session, number, received);
                may_be |= causes.live && self.expiry_fits(number, arrival);
                count_max += life.times * causes.live_max();
                if !causes.groups.is_empty() {
                    count_max += self.losses(number);
                }
            }
        }
        let who = self.session(*session).who;
        ensure(may_be, "I5", || format!("client {who} gets {received:?}"))?;
        let topic = received.topic.clone().unwrap_or_default();
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
        let Some((message, life)) = self.messages.get(&number) else {
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
        for s in self.explanations(session, number) {
            let same_qos = s.options.qos.min(message.qos) == received.qos;
            // A group's message may be given back and go to somebody who came later.
            let in_time = life.settled.is_none_or(|settled| s.asked < settled) || self.is_given_back(s, number);
            if in_time && s.may_match(session, message, life.first) && !s.excludes(who, message) {
                qos_fits |= same_qos;
                retain_fits |= received.retain == (message.retain && s.options.retain_as_published);
                match &s.share {
                    Some(share) => drop(causes.groups.insert((share.clone(), s.filter.clone()))),
                    None => causes.plain = true,
                }
            }
            let was_retained = message.retain
                && !message.payload.is_empty()
                && life.replaced.is_none_or(|replaced| replaced > s.asked);
            if s.may_replay && was_retained {
                causes.replays += 1;
                causes.replay |= received.retain && same_qos;
            }
        }
        causes.live = causes.live_max() > 0 && qos_fits && retain_fits;
        causes
    }

    /// Subscriptions of a Session that may have to do with a message: those that may have existed since, and those that
    /// one of them took the place of, whose retained messages may still be on their way.
    fn explanations(&self, session: SessionId, number: Number) -> Vec<&Subscription> {
        let (message, first) = (self.message(number), self.life(number).first);
        let of_session = || self.subscriptions.iter().filter(|s| s.session == session);
        let standing: Vec<&Subscription> = of_session().filter(|s| s.may_match(session, message, first)).collect();
        let is_covered = |s: &Subscription| s.may_replay && standing.iter().any(|other| other.filter == s.filter);
        of_session()
            .filter(|s| s.may_match(session, message, first) || is_covered(s))
            .collect()
    }

    /// Whether a message of a Shared Subscription may have been given back since it was published.
    fn is_given_back(&self, member: &Subscription, number: Number) -> bool {
        let Some(share) = &member.share else { return false };
        let first = self.life(number).first;
        let is_lost = |s: usize| {
            let s = &self.subscriptions[s];
            let session = self.session(s.session);
            let left = session.left.iter().any(|&at| at > first);
            left || session.may_be_over(self.now) || s.ending.is_some_and(|at| at > first)
        };
        self.members(share, &member.filter, number).any(is_lost)
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
        let live_max = self.life(number).times * causes.live_max() + back;
        let fits = copies.all < live_max + causes.replays && (causes.replay || copies.live < live_max);
        let rule = if exactly { "I2" } else { "I3" };
        ensure(fits, rule, || self.describe("comes too often", number, arrival))
    }

    /// How many copies of a message may have been lost since with members of groups that it went to. A QoS 2 delivery
    /// stays where it has begun.
    fn losses(&self, number: Number) -> u32 {
        let (message, first) = (self.message(number), self.life(number).first);
        let shared = || {
            let may_be = |s: &&Subscription| s.share.is_some() && s.may_match(s.session, message, first);
            self.subscriptions.iter().filter(may_be)
        };
        if !shared().any(|s| s.options.qos.min(message.qos) == QoS::AtLeastOnce) {
            return 0;
        }
        // Who is a member of two groups may lose a copy of each.
        let members: BTreeSet<_> = shared().map(|s| (s.session, &s.share, &s.filter)).collect();
        let left = members.iter().flat_map(|(id, ..)| &self.session(*id).left);
        let ended = shared().filter_map(|s| s.ending.as_ref());
        let over = members
            .iter()
            .filter(|(id, ..)| self.session(*id).may_be_over(self.now));
        let losses = left.chain(ended).filter(|&&at| at > first).count() + over.count();
        losses as u32 * self.life(number).times
    }

    /// First deliveries come in the order of publishing, by publisher, topic and QoS [MQTT-4.6.0-5, -6]; and what is
    /// retained is not replayed after what replaced it.
    fn check_order(&mut self, number: Number, causes: &Causes, arrival: &Arrival<'_>) -> Verdict {
        let (message, life) = (self.message(number), self.life(number));
        let received = arrival.received;
        let stream: Stream = (message.origin, message.topic.clone(), message.qos, received.qos);
        let (first, last, retain) = (life.first, life.again, message.retain);
        let session = self.session(arrival.session);
        let is_first = session.copies.get(&number).is_none_or(|copies| copies.live == 0);
        let overtaken = |latest: Option<&u64>| latest.is_some_and(|&latest| latest > last);
        if !causes.replay && causes.groups.is_empty() && is_first {
            let late = overtaken(session.latest.get(&stream));
            ensure(!late, "I4", || {
                self.describe("comes after a later one", number, arrival)
            })?;
            let latest = self
                .session_mut(arrival.session)
                .latest
                .entry(stream.clone())
                .or_default();
            *latest = (*latest).max(first);
        } else if causes.replay && !causes.live && !received.dup {
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
        let who = self.session(session).who;
        let possible: Vec<&Subscription> = (self.subscriptions.iter())
            .filter(|s| s.may_match(session, message, life.first))
            .collect();
        let explanations = self.explanations(session, number);
        let known = ids.iter().all(|id| explanations.iter().any(|s| s.id == Some(*id)));
        ensure(known, "I5", || {
            self.describe("has a strange Subscription Identifier", number, arrival)
        })?;
        if causes.replay || !causes.groups.is_empty() {
            return Ok(());
        }
        let must_be = possible.iter().filter(|s| {
            let alone = possible.iter().filter(|other| other.filter == s.filter).count() == 1;
            alone && s.stands_since(life.first) && !s.excludes(who, message)
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
        let (message, life) = (self.message(number), self.life(number));
        let matching: Vec<&Subscription> = (self.subscriptions.iter())
            .filter(|s| s.share.is_some() && s.may_match(s.session, message, life.first))
            .collect();
        let groups: BTreeSet<_> = matching.iter().map(|s| (&s.share, &s.filter)).collect();
        let plain = |id: SessionId| {
            let is_plain = |s: &&Subscription| s.share.is_none() && s.may_match(id, message, life.first);
            u32::from(self.subscriptions.iter().any(|s| is_plain(&s)))
        };
        let shared = |(id, session): (SessionId, &super::Session)| {
            let copies = session.copies.get(&number).map_or(0, |copies| copies.live);
            copies.saturating_sub(life.times * plain(id))
        };
        let count: u32 = self.sessions.iter().enumerate().map(shared).sum();
        let max = life.times * groups.len() as u32 + self.losses(number);
        ensure(count <= max, "I5", || {
            self.describe("went to several members of a group", number, arrival)
        })
    }
}
