//! What others ask the oracle about.

use super::{LinkId, Oracle, SessionId};

impl Oracle {
    /// The connection that a client's Session has now, and that Session.
    #[must_use]
    pub fn owner_of(&self, who: usize) -> Option<(LinkId, SessionId)> {
        let id = *self.current.get(&who)?;
        Some((self.session(id).link?, id))
    }

    /// Whether a connection's CONNACK will say that there was no Session.
    #[must_use]
    pub fn is_surely_new(&self, link: LinkId) -> bool {
        let session = self.session_of(link).map(|id| self.session(id));
        session.is_some_and(|session| session.present == Some(false))
    }

    /// Whether nobody can say if a connection's Session is one or two.
    #[must_use]
    pub fn is_blurred(&self, link: LinkId) -> bool {
        let session = self.session_of(link).map(|id| self.session(id));
        session.is_some_and(|session| session.blurred)
    }

    /// Whether a client is away and its Will waits for its delay.
    #[must_use]
    pub fn has_waiting_will(&self, who: usize) -> bool {
        let session = self.current.get(&who).map(|&id| self.session(id));
        session.is_some_and(|session| session.link.is_none() && session.will.is_some())
    }

    /// Whether a Session's Will has no delay.
    #[must_use]
    pub fn will_is_immediate(&self, id: SessionId) -> bool {
        let session = self.session(id);
        session.will.is_some() && session.will_delay.min(session.expiry) == 0
    }

    /// Whether a connection is to get retained messages that it has not surely got.
    #[must_use]
    pub fn awaits_replay(&self, link: LinkId) -> bool {
        self.replay_debts.iter().any(|debt| debt.link == link)
    }

    /// Whether a client surely has a Session that does not end by itself.
    #[must_use]
    pub fn lasts_for_ever(&self, who: usize) -> bool {
        let session = self.current.get(&who).map(|&id| self.session(id));
        session.is_some_and(|session| session.expiry == u32::MAX && session.is_sure(self.now))
    }

    /// Whether a client surely has a Session that outlives its connection.
    #[must_use]
    pub fn surely_lasts(&self, who: usize) -> bool {
        let session = self.current.get(&who).map(|&id| self.session(id));
        session.is_some_and(|session| session.expiry > 0 && session.was_kept && session.is_sure(self.now))
    }

    /// Whether a client has published with this identifier at QoS 2 and not released it.
    #[must_use]
    pub fn expects_pubrel(&self, link: LinkId, packet_id: u16) -> bool {
        let session = self.session_of(link).map(|id| self.session(id));
        session.is_some_and(|session| session.inbound.contains(&packet_id))
    }

    /// Whether somebody waits for a SUBACK of this filter.
    #[must_use]
    pub fn is_unconfirmed(&self, filter: &str) -> bool {
        let Some(filter) = self.topics.find_filter(filter) else {
            return false;
        };
        let mut subscriptions = self.topics.filter(filter).subscriptions.iter();
        subscriptions.any(|&(id, n)| {
            let s = &self.session(id).subscriptions[n];
            s.granted.is_none() && s.ended.is_none()
        })
    }

    /// Whether somebody has wanted this filter, is gone, and was not told that every shard knows.
    #[must_use]
    pub fn was_lost_unconfirmed(&self, filter: &str) -> bool {
        let Some(filter) = self.topics.find_filter(filter) else {
            return false;
        };
        let mut subscriptions = self.topics.filter(filter).subscriptions.iter();
        let lost = subscriptions
            .next_back()
            .map(|&(id, n)| &self.session(id).subscriptions[n]);
        lost.is_some_and(|s| s.granted.is_none() && s.ended.is_some())
    }

    /// Whether a Session is somebody's.
    #[must_use]
    pub fn is_current(&self, id: SessionId) -> bool {
        self.session(id).ended.is_none()
    }
}
