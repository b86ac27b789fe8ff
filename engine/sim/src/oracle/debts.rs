//! What is owed: noted when a message is acknowledged, asked for when everything is at rest.

use std::collections::{BTreeMap, BTreeSet};

use sol_codec::{ProtocolVersion, QoS};

use super::message::{Life, Told};
use super::session::Session;
use super::subscriptions::Subscription;
use super::topics::FilterId;
use super::{LinkId, Number, Oracle, Rest, SessionId};
use crate::violation::{Verdict, Violation, ensure};

/// One member of a Shared Subscription must get a message.
#[derive(Debug)]
pub(super) struct GroupDebt {
    number: Number,
    filter: FilterId,
}

/// A Subscription must get the retained messages of its topics, while its connection stands.
#[derive(Debug)]
pub(super) struct ReplayDebt {
    pub(super) link: LinkId,
    pub(super) session: SessionId,
    pub(super) subscription: usize,
}

/// What was owed and did not come, by who it was for: what excuses one of them excuses no other.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// To a Session, which had a full queue then.
    by_sessions: Vec<String>,
    /// To a Shared Subscription: no member took it, or the one that did had to make room in its queue.
    by_groups: Vec<String>,
    /// QoS 0 that did not come to somebody, where it may be dropped on its way to all at once and is counted once then.
    at_all: BTreeSet<Number>,
    /// How many of each were found out and forgotten since.
    forgotten: [u64; 3],
}

impl Missing {
    pub(super) fn forget(&mut self) {
        self.forgotten = self.counts();
        self.by_sessions.clear();
        self.by_groups.clear();
        self.at_all.clear();
    }

    fn counts(&self) -> [u64; 3] {
        let [sessions, groups, all] = self.forgotten;
        [
            sessions + self.by_sessions.len() as u64,
            groups + self.by_groups.len() as u64,
            all + self.at_all.len() as u64,
        ]
    }

    /// Each is among those that were counted as dropped for its reason.
    fn check(&self, rest: &Rest) -> Verdict {
        let [sessions, groups, all] = self.counts();
        let Rest {
            by_queues,
            by_groups,
            in_line,
            ..
        } = *rest;
        let fits = sessions <= by_queues
            && sessions + groups <= by_queues + by_groups
            && sessions + groups + all <= by_queues + by_groups + in_line;
        ensure(fits, "I1", || {
            format!(
                "{by_queues} were dropped by queues, {by_groups} by groups, {in_line} in line, and {sessions}, {groups} and \
                 {all} did not come: {self:?}"
            )
        })
    }
}

impl Oracle {
    /// A message is the broker's responsibility now.
    pub(super) fn owe(&mut self, number: Number) {
        let life = self.life_mut(number);
        // A repeat of QoS 2 is acknowledged again and published once.
        let known = std::mem::replace(&mut life.owed, life.last) == life.last;
        if known || life.doubtful {
            return;
        }
        for id in self.surely_subscribed(number) {
            if self.is_due(id, number) && self.owed_qos(id, number).is_some_and(|qos| qos > QoS::AtMostOnce) {
                self.session_mut(id).owed.insert(number);
            }
        }
        self.owe_groups(number);
    }

    /// A message was refused because some Session could not take it: those that surely could have it. Which member of a
    /// Shared Subscription was asked, nobody knows.
    pub(super) fn owe_refused(&mut self, number: Number) {
        let life = self.life_mut(number);
        let known = std::mem::replace(&mut life.owed, life.last) == life.last;
        if known || life.doubtful {
            return;
        }
        for id in self.surely_subscribed(number) {
            if !self.is_due(id, number) || !self.had_room(id, number) {
                continue;
            }
            match self.owed_qos(id, number) {
                None => {}
                Some(QoS::AtMostOnce) => self.life_mut(number).had_room.push(id),
                Some(_) => drop(self.session_mut(id).owed.insert(number)),
            }
        }
    }

    /// Whether a Session surely exists, and has not had a message yet.
    fn is_due(&self, id: SessionId, number: Number) -> bool {
        let session = self.session(id);
        session.is_sure(self.now) && !session.copies.contains_key(&number) && !session.had.contains(&number)
    }

    fn owe_groups(&mut self, number: Number) {
        let (message, life) = (self.message(number), self.life(number));
        // Nobody can tell which empty message some member got.
        if message.payload.is_empty() || !life.holders.is_empty() {
            return;
        }
        let stands = |&(id, n): &(SessionId, usize)| {
            let session = self.session(id);
            session.subscriptions[n].stands_since(life.last) && session.is_sure(self.now)
        };
        let mut debts = Vec::new();
        for filter in self.topics.matching(life.topic) {
            let group = self.topics.filter(filter);
            if group.share.is_none() || !group.subscriptions.iter().any(stands) {
                continue;
            }
            // What has begun at QoS 2 ends with its Session [MQTT-4.8.2-5].
            let is_sure = |(id, n): (SessionId, usize)| {
                let session = self.session(id);
                match session.subscriptions[n].options.qos.min(message.qos) {
                    QoS::AtMostOnce => false,
                    QoS::AtLeastOnce => true,
                    QoS::ExactlyOnce => session.ended.is_none(),
                }
            };
            if self.members(filter, number).all(is_sure) {
                debts.push(GroupDebt { number, filter });
            }
        }
        self.group_debts.extend(debts);
    }

    /// Subscriptions of a group that may have existed since a message was published.
    pub(super) fn members(&self, filter: FilterId, number: Number) -> impl Iterator<Item = (SessionId, usize)> {
        let first = self.life(number).first;
        let members = self.topics.filter(filter).subscriptions.iter().copied();
        members.filter(move |&(id, n)| self.session(id).subscriptions[n].may_stand_since(first))
    }

    /// A copy came that no Subscription of the Session's own explains: some group's member has got its message.
    pub(super) fn serve_group(&mut self, session: SessionId, number: Number) {
        let served = (self.group_debts.iter().enumerate())
            .filter(|(_, debt)| debt.number == number)
            .filter(|(_, debt)| self.members(debt.filter, number).any(|(id, _)| id == session))
            // Others may serve the one with more members.
            .min_by_key(|(_, debt)| self.members(debt.filter, number).count())
            .map(|(n, _)| n);
        if let Some(served) = served {
            self.group_debts.remove(served);
        }
    }

    /// A Session may forget what came by a filter and has not begun to be sent, unless another Subscription wants it.
    pub(super) fn forgive_filter(&mut self, session: SessionId, filter: FilterId) {
        let forgiven: Vec<Number> = (self.session(session).owed.iter().copied())
            .filter(|&number| {
                self.topics.matches(filter, self.life(number).topic)
                    && self.owed_qos(session, number).is_none_or(|qos| qos == QoS::AtMostOnce)
            })
            .collect();
        for number in forgiven {
            self.session_mut(session).owed.remove(&number);
        }
    }

    /// A Session ends, and with it the QoS 2 messages that its groups have begun to send it [MQTT-4.8.2-5]. What it has
    /// at QoS 1 goes to another member.
    pub(super) fn forgive_groups_of(&mut self, session: SessionId) {
        let Self {
            sessions,
            messages,
            group_debts,
            ..
        } = self;
        let of_session = &sessions[session].subscriptions;
        group_debts.retain(|debt| {
            let Told { message, life } = messages.get(debt.number);
            let may_have_begun = |s: &Subscription| {
                s.filter == debt.filter
                    && s.may_stand_since(life.first)
                    && s.options.qos.min(message.qos) == QoS::ExactlyOnce
            };
            !of_session.iter().any(may_have_begun)
        });
    }

    /// A Session that nothing was kept for is lost, with all that its groups had given it.
    pub(super) fn forgive_all_groups_of(&mut self, session: SessionId) {
        let Self {
            sessions,
            messages,
            group_debts,
            ..
        } = self;
        let of_session = &sessions[session].subscriptions;
        group_debts.retain(|debt| {
            let first = messages.get(debt.number).life.first;
            let may_have_it = |s: &Subscription| s.filter == debt.filter && s.may_stand_since(first);
            !of_session.iter().any(may_have_it)
        });
    }

    /// Everything is at rest: all that is owed to those who take it has come, or its loss has a name.
    pub(super) fn collect(&mut self, rest: &Rest) -> Verdict {
        let is_ready = |who: usize, session: &Session| {
            let active = session.active.is_some() && !session.clogged;
            rest.ready.get(&who).copied().filter(|_| active)
        };
        let ready: BTreeMap<SessionId, u64> = (self.current.iter())
            .filter_map(|(&who, &id)| Some((id, is_ready(who, self.session(id))?)))
            .collect();
        for (&id, &dropped) in &ready {
            let missing = self.collect_acknowledged(id);
            self.collect_unacknowledged(id, &missing);
            self.check_session(id, dropped)?;
            self.session_mut(id).burden.clear();
        }
        self.collect_groups(|id| ready.contains_key(&id));
        self.collect_replays(|id| ready.contains_key(&id))?;
        self.missing.check(rest)
    }

    /// What a Session misses was dropped because its queue was full, and it was told so at the first and at doubling
    /// counts.
    fn check_session(&self, id: SessionId, dropped: u64) -> Verdict {
        let Session {
            who,
            missing,
            dropped: told,
            dropped_before,
            ..
        } = *self.session(id);
        ensure(missing <= dropped + dropped_before, "I1", || {
            format!(
                "client {who} misses {missing}, and {dropped} and {dropped_before} before were dropped: {:?}",
                self.missing
            )
        })?;
        // What was told while another connection took over may have been of the Session before this one.
        ensure(dropped < told.saturating_mul(2).max(1), "I1", || {
            format!("client {who} was told of {told} drops, and there were {dropped}")
        })
    }

    fn collect_acknowledged(&mut self, id: SessionId) -> Vec<Number> {
        let owed = std::mem::take(&mut self.session_mut(id).owed);
        let owed = owed.into_iter().filter(|&number| !self.is_excused(id, number));
        let missing: Vec<Number> = owed
            .collect::<Vec<_>>()
            .into_iter()
            .filter(|&number| !self.take_unnamed(id, number))
            .collect();
        self.miss(id, &missing);
        missing
    }

    fn miss(&mut self, id: SessionId, missing: &[Number]) {
        let session = self.session_mut(id);
        session.missing += missing.len() as u64;
        let who = session.who;
        let told = missing.iter().map(|number| format!("{number} to client {who}"));
        self.missing.by_sessions.extend(told);
    }

    /// Whether one of those that cannot be told apart was this one.
    fn take_unnamed(&mut self, id: SessionId, number: Number) -> bool {
        let topic = self.life(number).topic;
        if !self.is_unnamed(id, number) {
            return false;
        }
        let unnamed = self.session_mut(id).unnamed.entry(topic).or_default();
        let some_left = unnamed.taken < unnamed.came;
        unnamed.taken += u32::from(some_left);
        some_left
    }

    /// QoS 0 may be lost, but not without a reason while a connection stands and takes what comes.
    fn collect_unacknowledged(&mut self, id: SessionId, missing: &[Number]) {
        // Who published it and is gone may be told 0x97 when it comes again.
        let may_refuse = self.may_refuse();
        let has_been = |life: &Life| life.refused && !life.had_room.contains(&id);
        let lost = self
            .open
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|&&number| {
                let life = self.life(number);
                let session = self.session(id);
                session.active.is_some_and(|active| active < life.first)
                    && !has_been(life)
                    && !life.doubtful
                    && (!may_refuse && !self.lacked_disk_since(life.first) || self.is_answered(number))
                    && !missing.contains(&number)
                    && !session.copies.contains_key(&number)
                    && !session.had.contains(&number)
                    && !self.is_unnamed(id, number)
                    && self.owed_qos(id, number) == Some(QoS::AtMostOnce)
                    && !self.is_excused(id, number)
            });
        let lost: Vec<Number> = lost.copied().collect();
        if self.rules.drops_in_line {
            self.missing.at_all.extend(lost);
        } else {
            self.miss(id, &lost);
        }
    }

    /// Whether a message's PUBACK or PUBREC, if it has one, has left.
    fn is_answered(&self, number: Number) -> bool {
        let (message, life) = (self.message(number), self.life(number));
        message.qos == QoS::AtMostOnce || message.is_will || life.owed == life.last
    }

    fn collect_groups(&mut self, is_ready: impl Fn(SessionId) -> bool) {
        let mut kept = Vec::new();
        for debt in std::mem::take(&mut self.group_debts) {
            let is_settled = |(id, _)| self.session(id).ended.is_some() || is_ready(id);
            let excused = |(id, _)| self.is_excused(id, debt.number);
            if !self.members(debt.filter, debt.number).all(is_settled) {
                kept.push(debt);
            } else if !self.members(debt.filter, debt.number).any(excused) && !self.may_be_served(&debt) {
                let filter = self.topics.filter(debt.filter);
                self.missing
                    .by_groups
                    .push(format!("{} to a group of {}", debt.number, filter.plain));
            }
        }
        self.group_debts = kept;
    }

    /// Whether a member may have got a message although nothing shows it: at QoS 0 after another one had lost it, or as
    /// the copy that was taken for that of a Subscription of its own.
    fn may_be_served(&self, debt: &GroupDebt) -> bool {
        self.members(debt.filter, debt.number).any(|(id, n)| {
            let session = self.session(id);
            session.subscriptions[n].options.qos == QoS::AtMostOnce || session.copies.contains_key(&debt.number)
        })
    }

    fn collect_replays(&mut self, is_ready: impl Fn(SessionId) -> bool) -> Verdict {
        for debt in std::mem::take(&mut self.replay_debts) {
            let session = self.session(debt.session);
            let s = &session.subscriptions[debt.subscription];
            if session.link != Some(debt.link) || !is_ready(debt.session) || !s.stands_since(self.at) {
                continue;
            }
            for topic in (0..self.retained.len()).filter(|&topic| self.topics.matches(s.filter, topic)) {
                let Some(number) = self.surely_retained_since(topic, self.at + 1) else {
                    continue;
                };
                let (message, life) = (self.message(number), self.life(number));
                let copies = session.copies.get(&number).copied().unwrap_or_default();
                // A replay begins when the SUBACK has left, and that when every shard knows of the Subscription. So what was
                // published before that comes, and if not in the replay, as a live message, which may be dropped as one.
                let is_older = life.settled < Some(s.asked);
                let may_be_dropped = session.dropped > 0 || self.rules.drops_in_line && message.qos == QoS::AtMostOnce;
                let (promised, came) = if is_older {
                    (true, copies.replayed)
                } else {
                    (Some(life.first) < s.granted && !may_be_dropped, copies.latest)
                };
                let due = promised && !s.excludes(session.who, message) && !self.is_excused(debt.session, number);
                ensure(!due || came.is_some_and(|at| at > s.asked), "I6", || {
                    let filter = &self.topics.filter(s.filter).plain;
                    format!(
                        "client {} subscribed to {filter} and did not get message {number}",
                        session.who
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Everything is at rest, and no Session, Subscription or message has ended since much was forgotten: each message
    /// that was published to QoS 1 or 2 has come to each Subscription, was refused, or is among those that were
    /// `dropped`. Returns how many were refused.
    ///
    /// # Errors
    /// The sum is another.
    pub fn balance(&self, dropped: u64) -> Result<u64, Violation> {
        let (mut lost_in_all, mut refused) = (0, 0);
        for told in self.messages.iter().filter(|told| told.life.is_published()) {
            let (message, life) = (&told.message, &told.life);
            let lost: u64 = self.lost(message.number);
            let session = self.current.get(&message.origin).map(|&id| self.session(id));
            let may_be_refused = session.is_some_and(|session| session.version == ProtocolVersion::V5);
            if !self.may_refuse() || !may_be_refused {
                lost_in_all += lost;
            } else if life.times == 1 {
                refused += u64::from(life.refused);
                ensure((lost > 0) == life.refused, "I8", || {
                    format!("{lost} Sessions lack message {}: {life:?}", message.number)
                })?;
            }
        }
        ensure(lost_in_all == dropped, "I8", || {
            format!("{lost_in_all} messages did not come, and {dropped} were dropped")
        })?;
        Ok(refused)
    }

    /// How many copies of a message did not come that were to.
    fn lost(&self, number: Number) -> u64 {
        let times = self.life(number).times;
        let copies = |id: SessionId| self.session(id).copies.get(&number).map_or(0, |copies| copies.all);
        let sessions = self.surely_subscribed(number).into_iter();
        sessions.map(|id| u64::from(times.saturating_sub(copies(id)))).sum()
    }

    /// Whether a message need not reach a Session: it has expired, or is too large for its client.
    fn is_excused(&self, id: SessionId, number: Number) -> bool {
        self.life(number).may_have_expired(self.wall_max)
            || self.message(number).len_max() > self.session(id).packet_max
    }
}
