//! Subscriptions as intervals: a SUBSCRIBE and an UNSUBSCRIBE have their effect at some moment before their answer.

use sol_codec::{QoS, ReasonCode, RetainHandling, SubscriptionOptions};

use super::debts::ReplayDebt;
use super::message::Life;
use super::session::Session;
use super::topics::FilterId;
use super::{At, LinkId, Message, Number, Oracle, SessionId};
use crate::violation::{Verdict, ensure};

/// One filter of one SUBSCRIBE. Another one for the same filter is another of these, which takes its place.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) filter: FilterId,
    /// The filter without its ShareName, which a Shared Subscription has.
    pub(super) plain: FilterId,
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
    /// The broker died before it answered: what was asked for has had an effect or not.
    pub(super) unsure: bool,
    must_replay: bool,
}

impl Subscription {
    /// Whether it is a Shared Subscription.
    pub(super) const fn is_shared(&self) -> bool {
        self.filter != self.plain
    }

    /// Whether it may have existed at some moment since `first`.
    pub(super) fn may_stand_since(&self, first: At) -> bool {
        self.ended.is_none_or(|ended| ended >= first)
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
            let filter = self.topics.filter_id(text);
            let plain = match &self.topics.filter(filter).share {
                None => filter,
                Some(_) => {
                    let plain = self.topics.filter(filter).plain.clone();
                    self.topics.filter_id(&plain)
                }
            };
            self.sessions[session].lends |= filter != plain;
            let of_session = &self.sessions[session].subscriptions;
            let same = || of_session.iter().filter(|s| s.filter == filter);
            let (may_be, is) = (same().any(|s| s.ended.is_none()), same().any(|s| s.stands_since(at)));
            let (may_replay, must_replay) = match options.retain_handling {
                _ if filter != plain => (false, false),
                RetainHandling::SendAtSubscribe => (true, true),
                RetainHandling::SendIfNew => (!is, !may_be),
                RetainHandling::DoNotSend => (false, false),
            };
            self.burden_subscriber(session, filter);
            let of_session = &mut self.sessions[session].subscriptions;
            let subscriptions = &mut self.topics.filter_mut(filter).subscriptions;
            subscriptions.push((session, of_session.len()));
            of_session.push(Subscription {
                filter,
                plain,
                options: *options,
                id,
                request: (link, packet_id),
                place,
                asked: at,
                granted: None,
                ending: None,
                ended: None,
                may_replay,
                unsure: false,
                must_replay,
            });
        }
    }

    /// Whether what a Session had begun to be sent may be over though its client has not acknowledged it: it is or was a
    /// member of a Shared Subscription, or may be another one.
    #[must_use]
    pub fn may_lend(&self, session: SessionId) -> bool {
        self.session(session).blurred || self.session(session).lends
    }

    /// A SUBACK leaves.
    pub fn suback(&mut self, link: LinkId, packet_id: u16, codes: &[ReasonCode]) -> Verdict {
        let at = self.advance();
        let Some(session) = self.session_of(link) else {
            return Ok(());
        };
        for n in 0..self.sessions[session].subscriptions.len() {
            let s = &self.sessions[session].subscriptions[n];
            if s.request != (link, packet_id) || s.granted.is_some() || s.ended.is_some() {
                continue;
            }
            let (filter, must_replay) = (s.filter, s.must_replay);
            let code = codes.get(s.place).copied();
            let is_refused = code.is_some_and(ReasonCode::is_error);
            if is_refused && (self.may_lack_room() || self.may_be_new_and_unwritable(session, n)) {
                self.sessions[session].subscriptions[n].ended = Some(at);
                continue;
            }
            let fits = code == Some(ReasonCode::granted(s.options.qos));
            ensure(fits, "I12", || {
                let text = &self.topics.filter(filter).plain;
                format!("{text} at {:?} is answered {code:?}", s.options.qos)
            })?;
            let of_session = &mut self.sessions[session].subscriptions;
            for s in of_session[..n].iter_mut().filter(|s| s.filter == filter) {
                s.ended.get_or_insert(at);
            }
            of_session[n].granted = Some(at);
            if must_replay {
                self.replay_debts.push(ReplayDebt {
                    link,
                    session,
                    subscription: n,
                });
            }
        }
        Ok(())
    }

    /// An UNSUBSCRIBE is handled. What has not begun to be sent may be forgotten [MQTT-3.10.4-2].
    pub fn unsubscribe(&mut self, link: LinkId, packet_id: u16, filters: &[String]) {
        let at = self.advance();
        let Some(session) = self.session_of(link) else { return };
        for text in filters {
            let filter = self.topics.filter_id(text);
            for s in &mut self.sessions[session].subscriptions {
                if s.filter == filter && s.ended.is_none() {
                    s.ending.get_or_insert(at);
                    s.request = (link, packet_id);
                }
            }
            self.forgive_filter(session, filter);
        }
    }

    /// An UNSUBACK leaves.
    pub fn unsuback(&mut self, link: LinkId, packet_id: u16) {
        let at = self.advance();
        let Some(session) = self.session_of(link) else { return };
        for s in &mut self.sessions[session].subscriptions {
            if s.request == (link, packet_id) && s.ending.is_some() {
                s.ended.get_or_insert(at);
            }
        }
    }

    /// A Session may be another one: it owes nothing, and its Subscriptions may be there or not.
    pub(super) fn forgive_session(&mut self, session: SessionId) {
        let of_session = self.session_mut(session);
        of_session.owed.clear();
        of_session.missing = 0;
        self.forgive_groups_of(session);
        for s in &mut self.sessions[session].subscriptions {
            s.granted = None;
        }
    }

    pub(super) fn end_subscriptions_of(&mut self, session: SessionId, at: At) {
        for s in &mut self.sessions[session].subscriptions {
            s.ending.get_or_insert(at);
            s.ended.get_or_insert(at);
        }
    }

    /// Everything is at rest: what was unsubscribed is gone though its answer was lost, and so is what was replaced.
    pub(super) fn close_subscriptions(&mut self) {
        let at = self.at;
        for &id in self.current.values() {
            let of_session = &mut self.sessions[id].subscriptions;
            for n in 0..of_session.len() {
                let s = &of_session[n];
                if s.ended.is_some() || s.unsure {
                    continue;
                }
                let mut later = of_session[n + 1..].iter();
                let replaced = later.any(|later| later.filter == s.filter && later.ended.is_none() && !later.unsure);
                if s.ending.is_some() || replaced && s.granted.is_none() {
                    of_session[n].ended = Some(at);
                }
            }
        }
    }

    /// Whether a Subscription may have existed at some moment since a message was published, and matches it.
    pub(super) fn may_match(&self, s: &Subscription, life: &Life) -> bool {
        s.may_stand_since(life.first) && self.topics.matches(s.filter, life.topic)
    }

    /// The QoS that a Session is surely owed a message with, by one Subscription or several that are not shared.
    /// `None`: by none.
    pub(super) fn owed_qos(&self, session: SessionId, number: Number) -> Option<QoS> {
        let (message, life) = (self.message(number), self.life(number));
        let Session { who, subscriptions, .. } = self.session(session);
        let plain = || {
            subscriptions
                .iter()
                .filter(|s| !s.is_shared() && self.may_match(s, life))
        };
        let standing = plain().filter(|s| s.stands_since(life.last));
        let worst = |standing: &Subscription| {
            let same = || plain().filter(|s| s.filter == standing.filter);
            if same().any(|s| s.excludes(*who, message)) {
                None
            } else {
                same().map(|s| s.options.qos.min(message.qos)).min()
            }
        };
        standing.filter_map(worst).max()
    }

    /// Sessions that may have a Subscription of their own, not shared, which stood when a message was published.
    pub(super) fn surely_subscribed(&self, number: Number) -> Vec<SessionId> {
        let life = self.life(number);
        let mut sessions = Vec::new();
        for filter in self.topics.matching(life.topic) {
            let filter = self.topics.filter(filter);
            for &(id, n) in filter.subscriptions.iter().filter(|_| filter.share.is_none()) {
                let session = self.session(id);
                if session.ended.is_none() && session.subscriptions[n].stands_since(life.last) {
                    sessions.push(id);
                }
            }
        }
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }

    /// Whether a Subscription of somebody may have existed since a message was published.
    pub(super) fn somebody_may_match(&self, number: Number) -> bool {
        let life = self.life(number);
        let mut filters = self.topics.matching(life.topic);
        filters.any(|filter| {
            let mut subscriptions = self.topics.filter(filter).subscriptions.iter();
            subscriptions.any(|&(id, n)| self.session(id).subscriptions[n].may_stand_since(life.first))
        })
    }

    /// Whether a Subscription of somebody surely stood when a message was published, and does still.
    pub(super) fn somebody_surely_matches(&self, number: Number) -> bool {
        let mut subscribed = self.surely_subscribed(number).into_iter();
        subscribed.any(|id| self.session(id).is_sure(self.now) && self.owed_qos(id, number).is_some())
    }
}
