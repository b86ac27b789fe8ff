//! How much may wait in a Session at most, so that it can be said of some that they had room.
//!
//! What may have come to a Session since it surely held nothing, less what its client has taken for good, is no less than
//! what waits in it. Where that is no more than a queue may hold, the Session had room: a publish that was refused was
//! not refused because of it, and has come to it (0x97 says that at least one Session could not take a message, and that
//! the others have it).

use super::topics::TopicId;
use super::{At, Number, Oracle, SessionId};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Burden {
    /// When something may have come for it.
    came: Vec<At>,
    /// When its client had taken something for good.
    taken: Vec<At>,
}

impl Burden {
    pub(super) fn clear(&mut self) {
        self.came.clear();
        self.taken.clear();
    }

    /// Nobody knows of what was taken whether it is back.
    pub(super) fn lose(&mut self) {
        self.taken.clear();
    }

    /// How much waited at most at any moment since.
    fn most_since(&self, at: At) -> usize {
        let taken = self.taken.partition_point(|&taken| taken < at);
        self.came.len().saturating_sub(taken)
    }
}

impl Oracle {
    /// A message of a topic is on its way: once to each Session that may have a Subscription.
    pub(super) fn burden(&mut self, topic: TopicId) {
        if !self.rules.would_refuse {
            return;
        }
        let at = self.at;
        for filter in self.topics.matching(topic) {
            for &(id, n) in &self.topics.filter(filter).subscriptions {
                let session = &mut self.sessions[id];
                if session.subscriptions[n].ended.is_none() && session.burden.came.last() != Some(&at) {
                    session.burden.came.push(at);
                }
            }
        }
    }

    /// A Session subscribes: what is retained may come, and what is on its way.
    pub(super) fn burden_subscriber(&mut self, id: SessionId, filter: super::topics::FilterId) {
        if !self.rules.would_refuse {
            return;
        }
        let matches = |topic: TopicId| self.topics.matches(filter, topic);
        let under_way = self.open.iter().filter(|&&number| matches(self.life(number).topic));
        let retained = (0..self.retained.len()).filter(|&topic| matches(topic) && !self.retained[topic].is_empty());
        let count = under_way.count() + retained.count();
        let at = self.at;
        let came = &mut self.session_mut(id).burden.came;
        came.extend(std::iter::repeat_n(at, count));
    }

    /// A Session's client has acknowledged a delivery to its end, or was sent one that it does not acknowledge.
    pub fn taken(&mut self, id: SessionId) {
        if self.rules.would_refuse {
            let at = self.advance();
            self.session_mut(id).burden.taken.push(at);
        }
    }

    /// Whether a Session surely had room for a message, ever since it was published last. Of members of Shared
    /// Subscriptions nobody knows: what others lose may come to them.
    pub(super) fn had_room(&self, id: SessionId, number: Number) -> bool {
        let most = self.session(id).burden.most_since(self.life(number).last);
        let lacked_disk = self.lacked_disk_since(self.life(number).first);
        !self.may_lack_room() && !lacked_disk && !self.may_lend(id) && most <= self.queue_max
    }
}
