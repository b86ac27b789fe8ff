//! What is owed: noted when a message is acknowledged, asked for when everything is at rest.

use std::collections::BTreeSet;

use sol_codec::QoS;

use super::{LinkId, Number, Oracle, Rest, SessionId, matches};
use crate::violation::{Verdict, Violation, ensure};

/// One member of a Shared Subscription must get a message.
#[derive(Debug)]
pub(super) struct GroupDebt {
    number: Number,
    share: String,
    filter: String,
}

/// A Subscription must get the retained messages of its topics, while its connection stands.
#[derive(Debug)]
pub(super) struct ReplayDebt {
    pub(super) link: LinkId,
    pub(super) subscription: usize,
}

impl Oracle {
    /// A message is the broker's responsibility now.
    pub(super) fn owe(&mut self, number: Number) {
        let life = self.life_mut(number);
        // A repeat of QoS 2 is acknowledged again and published once.
        let known = std::mem::replace(&mut life.owed, life.last) == life.last;
        if known || life.refused || life.doubtful {
            return;
        }
        let sure: Vec<SessionId> = (self.current.values().copied())
            .filter(|&id| self.session(id).is_sure(self.now))
            .collect();
        for &id in &sure {
            let due = self.owed_qos(id, number).is_some_and(|qos| qos > QoS::AtMostOnce);
            if due && !self.session(id).copies.contains_key(&number) {
                self.session_mut(id).owed.insert(number);
            }
        }
        self.owe_groups(number, &sure);
    }

    fn owe_groups(&mut self, number: Number, sure: &[SessionId]) {
        let (message, life) = (self.message(number), self.life(number));
        let standing: BTreeSet<(String, String)> = (self.subscriptions.iter())
            .filter(|s| sure.contains(&s.session) && s.stands_since(life.last) && matches(&s.filter, &message.topic))
            .filter_map(|s| Some((s.share.clone()?, s.filter.clone())))
            .collect();
        let served = self.sessions.iter().any(|session| session.copies.contains_key(&number));
        let is_due = |(share, filter): &(String, String)| {
            // A member that left may have taken it along, and nobody can tell which empty message some member got.
            let is_sure = |s: usize| {
                let s = &self.subscriptions[s];
                s.ending.is_none() && s.options.qos.min(message.qos) > QoS::AtMostOnce
            };
            !served && !message.payload.is_empty() && self.members(share, filter, number).all(is_sure)
        };
        let due = standing.into_iter().filter(is_due);
        let debts: Vec<_> = due.map(|(share, filter)| GroupDebt { number, share, filter }).collect();
        self.group_debts.extend(debts);
    }

    /// Subscriptions of a group that may have existed since a message was published.
    pub(super) fn members<'a>(
        &'a self,
        share: &'a str,
        filter: &'a str,
        number: Number,
    ) -> impl Iterator<Item = usize> + 'a {
        let first = self.life(number).first;
        self.subscriptions.iter().enumerate().filter_map(move |(n, s)| {
            let is_member = s.share.as_deref() == Some(share) && s.filter == filter;
            (is_member && s.ended.is_none_or(|ended| ended >= first)).then_some(n)
        })
    }

    /// A copy came that no Subscription of the Session's own explains: some group's member has got its message.
    pub(super) fn serve_group(&mut self, session: SessionId, number: Number) {
        let members = |debt: &GroupDebt| -> BTreeSet<SessionId> {
            let members = self.members(&debt.share, &debt.filter, debt.number);
            members.map(|s| self.subscriptions[s].session).collect()
        };
        let debts = self
            .group_debts
            .iter()
            .enumerate()
            .filter(|(_, debt)| debt.number == number);
        let served = debts
            .map(|(n, debt)| (n, members(debt)))
            .filter(|(_, members)| members.contains(&session))
            // Others may serve the one with more members.
            .min_by_key(|(_, members)| members.len())
            .map(|(n, _)| n);
        if let Some(served) = served {
            self.group_debts.remove(served);
        }
    }

    /// A Session may forget what came by a filter and has not begun to be sent, unless another Subscription wants it.
    pub(super) fn forgive_filter(&mut self, session: SessionId, filter: &str) {
        let forgiven: Vec<Number> = (self.session(session).owed.iter().copied())
            .filter(|&number| {
                matches(filter, &self.message(number).topic)
                    && self.owed_qos(session, number).is_none_or(|qos| qos == QoS::AtMostOnce)
            })
            .collect();
        for number in forgiven {
            self.session_mut(session).owed.remove(&number);
        }
    }

    /// A member leaves a group.
    pub(super) fn forgive_group(&mut self, share: &str, filter: &str) {
        self.group_debts
            .retain(|debt| debt.share != share || debt.filter != filter);
    }

    /// A Session ends, and with it the QoS 2 messages that its groups have begun to send it [MQTT-4.8.2-5].
    pub(super) fn forgive_groups_of(&mut self, session: SessionId) {
        let groups: Vec<(String, String)> = (self.subscriptions.iter())
            .filter(|s| s.session == session)
            .filter_map(|s| Some((s.share.clone()?, s.filter.clone())))
            .collect();
        let messages = &self.messages;
        self.group_debts.retain(|debt| {
            let exactly = messages[&debt.number].0.qos == QoS::ExactlyOnce;
            !exactly
                || !groups
                    .iter()
                    .any(|(share, filter)| *share == debt.share && *filter == debt.filter)
        });
    }

    /// Everything is at rest: all that is owed to those who take it has come, or its loss has a name.
    pub(super) fn collect(&mut self, rest: &Rest) -> Verdict {
        let ready: Vec<SessionId> = (self.current.iter())
            .filter(|&(who, &id)| {
                let session = self.session(id);
                rest.ready.contains(who) && session.active.is_some() && !session.clogged
            })
            .map(|(_, &id)| id)
            .collect();
        for &id in &ready {
            let missing = self.collect_acknowledged(id)?;
            self.collect_unacknowledged(id, &missing);
        }
        self.collect_groups(&ready);
        self.collect_replays(&ready)?;
        ensure(self.missing.len() as u64 <= rest.dropped, "I1", || {
            format!(
                "{} were dropped, and these did not come: {:?}",
                rest.dropped, self.missing
            )
        })
    }

    fn collect_acknowledged(&mut self, id: SessionId) -> Result<Vec<Number>, Violation> {
        let owed = std::mem::take(&mut self.session_mut(id).owed);
        let owed = owed.into_iter().filter(|&number| !self.is_excused(id, number));
        let missing: Vec<Number> = owed
            .collect::<Vec<_>>()
            .into_iter()
            .filter(|&number| !self.take_unnamed(id, number))
            .collect();
        let who = self.session(id).who;
        self.missing
            .extend(missing.iter().map(|number| format!("{number} to client {who}")));
        let session = self.session_mut(id);
        session.missing += missing.len() as u64;
        let told = session.dropped.saturating_mul(2).saturating_sub(1);
        ensure(session.missing <= told, "I1", || {
            format!(
                "client {who} was told of {} drops and misses {missing:?}",
                session.dropped
            )
        })?;
        Ok(missing)
    }

    /// Whether one of those that cannot be told apart was this one.
    fn take_unnamed(&mut self, id: SessionId, number: Number) -> bool {
        let topic = self.message(number).topic.clone();
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
        let lost = self
            .open
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|&&number| {
                let life = self.life(number);
                let session = self.session(id);
                session.active.is_some_and(|active| active < life.first)
                    && !life.refused
                    && !life.doubtful
                    && !missing.contains(&number)
                    && !session.copies.contains_key(&number)
                    && !self.is_unnamed(id, number)
                    && self.owed_qos(id, number) == Some(QoS::AtMostOnce)
                    && !self.is_excused(id, number)
            });
        let who = self.session(id).who;
        let lost: Vec<String> = lost.map(|number| format!("{number} to client {who}")).collect();
        self.missing.extend(lost);
    }

    fn collect_groups(&mut self, ready: &[SessionId]) {
        let mut kept = Vec::new();
        for debt in std::mem::take(&mut self.group_debts) {
            let members: BTreeSet<SessionId> = (self.members(&debt.share, &debt.filter, debt.number))
                .map(|s| self.subscriptions[s].session)
                .collect();
            let is_over = |id: SessionId| self.session(id).ended.is_some();
            if !members.iter().all(|&id| is_over(id) || ready.contains(&id)) {
                kept.push(debt);
            } else if !members.iter().any(|&id| self.is_excused(id, debt.number)) && !self.may_be_served(&debt) {
                self.missing.push(format!("{} to {}", debt.number, debt.filter));
            }
        }
        self.group_debts = kept;
    }

    /// Whether a member may have got a message although nothing shows it: at QoS 0 after another one had lost it, or as
    /// the copy that was taken for that of a Subscription of its own.
    fn may_be_served(&self, debt: &GroupDebt) -> bool {
        let mut members = self.members(&debt.share, &debt.filter, debt.number);
        members.any(|s| {
            let member = &self.subscriptions[s];
            let copies = &self.session(member.session).copies;
            member.options.qos == QoS::AtMostOnce || copies.contains_key(&debt.number)
        })
    }

    fn collect_replays(&mut self, ready: &[SessionId]) -> Verdict {
        for debt in std::mem::take(&mut self.replay_debts) {
            let s = &self.subscriptions[debt.subscription];
            let session = self.session(s.session);
            if session.link != Some(debt.link) || !ready.contains(&s.session) || !s.stands_since(self.at) {
                continue;
            }
            for topic in self.retained.keys().filter(|topic| matches(&s.filter, topic)) {
                let Some(number) = self.surely_retained_since(topic, s.asked) else {
                    continue;
                };
                let came = session.copies.get(&number).and_then(|copies| copies.replayed);
                let due = !s.excludes(session.who, self.message(number)) && !self.is_excused(s.session, number);
                ensure(!due || came.is_some_and(|at| at > s.asked), "I6", || {
                    format!(
                        "client {} subscribed to {} and did not get message {number}",
                        session.who, s.filter
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Whether a message need not reach a Session: it has expired, or is too large for its client.
    fn is_excused(&self, id: SessionId, number: Number) -> bool {
        self.life(number).may_have_expired(self.now) || self.message(number).len_max() > self.session(id).packet_max
    }
}
