//! Subscriptions as intervals: a SUBSCRIBE and an UNSUBSCRIBE have their effect at some moment before their answer.

use sol_codec::{QoS, ReasonCode, RetainHandling, SubscriptionOptions};

use super::debts::ReplayDebt;
use super::{At, LinkId, Message, Number, Oracle, SessionId, matches};
use crate::violation::{Verdict, ensure};

/// One filter of one SUBSCRIBE. Another one for the same filter is another of these, which takes its place.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) session: SessionId,
    /// ShareName, of a Shared Subscription.
    pub(super) share: Option<String>,
    pub(super) filter: String,
    pub(super) options: SubscriptionOptions,
    pub(super) id: Option<u32>,
    /// The request whose answer is waited for: SUBSCRIBE, then UNSUBSCRIBE.
    request: (LinkId, u16),
    place: usize,
    /// When the SUBSCRIBE was handled: it may exist.
    pub(super) asked: At,
    /// When the SUBACK left: it exists.
    pub(super) granted: Option<At>,
    /// When an UNSUBSCRIBE was handled: it may exist.
    pub(super) ending: Option<At>,
    /// When the UNSUBACK left, or the SUBACK of the one that took its place: it does not exist.
    pub(super) ended: Option<At>,
    /// Retained messages may be sent, and must be sent, because of it.
    pub(super) may_replay: bool,
    must_replay: bool,
}

impl Subscription {
    fn is_for(&self, session: SessionId, share: Option<&str>, filter: &str) -> bool {
        self.session == session && self.share.as_deref() == share && self.filter == filter
    }

    /// Whether it may have existed at some moment since `first`, and matches.
    pub(super) fn may_match(&self, session: SessionId, message: &Message, first: At) -> bool {
        self.session == session
            && self.ended.is_none_or(|ended| ended >= first)
            && matches(&self.filter, &message.topic)
    }

    /// Whether it surely existed at that moment and does still, or one that took its place.
    pub(super) fn stands_since(&self, at: At) -> bool {
        self.granted.is_some_and(|granted| granted <= at) && self.ending.is_none() && self.ended.is_none()
    }

    /// No Local, and the message is its own client's [MQTT-3.8.3-3].
    pub(super) fn excludes(&self, who: usize, message: &Message) -> bool {
        self.options.no_local && message.origin == who
    }
}

/// ShareName and Topic Filter.
pub(super) fn parts(filter: &str) -> (Option<&str>, &str) {
    let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    shared.map_or((None, filter), |(share, filter)| (Some(share), filter))
}

impl Oracle {
    /// A SUBSCRIBE is handled.
    pub fn subscribe(
        &mut self,
        link: LinkId,
        packet_id: u16,
        id: Option<u32>,
        filters: &[(String, SubscriptionOptions)],
    ) {
        let at = self.advance();
        let Some(session) = self.session_of(link) else { return };
        for (place, (text, options)) in filters.iter().enumerate() {
            let (share, filter) = parts(text);
            let same = || self.subscriptions.iter().filter(|s| s.is_for(session, share, filter));
            let (may_be, is) = (same().any(|s| s.ended.is_none()), same().any(|s| s.stands_since(at)));
            let (may_replay, must_replay) = match options.retain_handling {
                _ if share.is_some() => (false, false),
                RetainHandling::SendAtSubscribe => (true, true),
                RetainHandling::SendIfNew => (!is, !may_be),
                RetainHandling::DoNotSend => (false, false),
            };
            self.subscriptions.push(Subscription {
                session,
                share: share.map(str::to_owned),
                filter: filter.to_owned(),
                options: *options,
                id,
                request: (link, packet_id),
                place,
                asked: at,
                granted: None,
                ending: None,
                ended: None,
                may_replay,
                must_replay,
            });
        }
    }

    /// Whether what a Session had begun to be sent may be over though its client has not acknowledged it: it is or was a
    /// member of a Shared Subscription, or may be another one.
    #[must_use]
    pub fn may_lend(&self, session: SessionId) -> bool {
        self.session(session).blurred
            || self
                .subscriptions
                .iter()
                .any(|s| s.session == session && s.share.is_some())
    }

    /// A SUBACK leaves.
    pub fn suback(&mut self, link: LinkId, packet_id: u16, codes: &[ReasonCode]) -> Verdict {
        let at = self.advance();
        let Some(session) = self.session_of(link) else {
            return Ok(());
        };
        let granted: Vec<usize> = (0..self.subscriptions.len())
            .filter(|&n| {
                let s = &self.subscriptions[n];
                s.request == (link, packet_id) && s.granted.is_none() && s.ended.is_none()
            })
            .collect();
        for n in granted {
            let asked = self.subscriptions[n].clone();
            let code = codes.get(asked.place).copied();
            let fits = code == Some(ReasonCode::granted(asked.options.qos));
            ensure(fits, "I12", || {
                format!("{} at {:?} is answered {code:?}", asked.filter, asked.options.qos)
            })?;
            for s in self.subscriptions[..n].iter_mut() {
                if s.is_for(session, asked.share.as_deref(), &asked.filter) {
                    s.ended.get_or_insert(at);
                }
            }
            self.subscriptions[n].granted = Some(at);
            if asked.must_replay {
                self.replay_debts.push(ReplayDebt { link, subscription: n });
            }
        }
        Ok(())
    }

    /// An UNSUBSCRIBE is handled. What has not begun to be sent may be forgotten [MQTT-3.10.4-2].
    pub fn unsubscribe(&mut self, link: LinkId, packet_id: u16, filters: &[String]) {
        let at = self.advance();
        let Some(session) = self.session_of(link) else { return };
        for text in filters {
            let (share, filter) = parts(text);
            for s in &mut self.subscriptions {
                if s.is_for(session, share, filter) && s.ended.is_none() {
                    s.ending.get_or_insert(at);
                    s.request = (link, packet_id);
                }
            }
            self.forgive_filter(session, filter);
            if let Some(share) = share {
                self.forgive_group(share, filter);
            }
        }
    }

    /// An UNSUBACK leaves.
    pub fn unsuback(&mut self, link: LinkId, packet_id: u16) {
        let at = self.advance();
        for s in &mut self.subscriptions {
            if s.request == (link, packet_id) && s.ending.is_some() {
                s.ended.get_or_insert(at);
            }
        }
    }

    /// A Session may be another one: it owes nothing, and its Subscriptions may be there or not.
    pub(super) fn forgive_session(&mut self, session: SessionId) {
        self.session_mut(session).owed.clear();
        self.forgive_groups_of(session);
        for s in self.subscriptions.iter_mut().filter(|s| s.session == session) {
            s.granted = None;
        }
    }

    pub(super) fn end_subscriptions_of(&mut self, session: SessionId, at: At) {
        for s in &mut self.subscriptions {
            if s.session == session {
                s.ending.get_or_insert(at);
                s.ended.get_or_insert(at);
            }
        }
    }

    /// Everything is at rest: what was unsubscribed is gone though its answer was lost, and so is what was replaced.
    pub(super) fn close_subscriptions(&mut self) {
        let at = self.at;
        for n in 0..self.subscriptions.len() {
            let s = &self.subscriptions[n];
            if s.ended.is_some() {
                continue;
            }
            let later = &self.subscriptions[n + 1..];
            let replaced = later
                .iter()
                .any(|later| later.is_for(s.session, s.share.as_deref(), &s.filter) && later.ended.is_none());
            if s.ending.is_some() || replaced && s.granted.is_none() {
                self.subscriptions[n].ended = Some(at);
            }
        }
    }

    /// The QoS that a Session is surely owed a message with, by one Subscription or several that are not shared.
    /// `None`: by none.
    pub(super) fn owed_qos(&self, session: SessionId, number: Number) -> Option<QoS> {
        let (message, life) = (self.message(number), self.life(number));
        let who = self.session(session).who;
        let plain = |s: &&Subscription| s.share.is_none() && s.may_match(session, message, life.first);
        let of_session: Vec<&Subscription> = self.subscriptions.iter().filter(plain).collect();
        let standing = of_session.iter().filter(|s| s.stands_since(life.last));
        let worst = |standing: &&Subscription| {
            let same = of_session.iter().filter(|s| s.filter == standing.filter);
            let excluded = same.clone().any(|s| s.excludes(who, message));
            if excluded {
                None
            } else {
                same.map(|s| s.options.qos.min(message.qos)).min()
            }
        };
        standing.filter_map(worst).max()
    }

    /// Whether a Subscription of somebody surely stood when a message was published, and does still.
    pub(super) fn somebody_surely_matches(&self, number: Number) -> bool {
        self.current
            .values()
            .filter(|&&id| self.session(id).is_sure(self.now))
            .any(|&id| self.owed_qos(id, number).is_some())
    }
}
