//! The disk may be full: whom the broker may refuse something then, and what it keeps in memory alone.
//!
//! A shard refuses by what it was told last, and its answer may leave later. So what was asked for at some moment may be
//! refused if any shard thought that there was no room at some moment since.

use sol_codec::QoS;

use super::session::Session;
use super::{At, Number, Oracle, SessionId};

impl Oracle {
    /// A shard is told that there is no room on the disk.
    pub const fn lack_disk(&mut self) {
        self.lacks_disk = true;
        self.lacked_disk = Some(self.at);
    }

    /// All shards know that there is room.
    pub const fn have_disk(&mut self) {
        self.lacked_disk = self.lacked_disk_at();
        self.lacks_disk = false;
    }

    /// The last moment at which some shard thought that there was no room.
    pub(super) const fn lacked_disk_at(&self) -> Option<At> {
        if self.lacks_disk {
            Some(self.at)
        } else {
            self.lacked_disk
        }
    }

    /// Whether some shard has thought so at that moment, or since.
    pub(super) fn lacked_disk_since(&self, at: At) -> bool {
        self.lacked_disk_at().is_some_and(|lacked| lacked >= at)
    }

    /// Whether a publish may have been refused because something of it would have been written: as retained, as the
    /// identifier of a QoS 2 publish in a Session that lasts, or for a Session that lasts.
    pub(super) fn may_be_unwritable(&self, publisher: SessionId, number: Option<Number>) -> bool {
        let Some(number) = number else {
            return self.lacked_disk_at().is_some();
        };
        let (message, life) = (self.message(number), self.life(number));
        let is_kept = message.retain && !message.payload.is_empty()
            || message.qos == QoS::ExactlyOnce && self.session(publisher).may_last();
        self.lacked_disk_since(life.first) && (is_kept || self.somebody_may_keep(number))
    }

    /// Whether a message may be written for a Session.
    fn somebody_may_keep(&self, number: Number) -> bool {
        let (message, life) = (self.message(number), self.life(number));
        let mut filters = self.topics.matching(life.topic);
        filters.any(|filter| {
            let mut subscriptions = self.topics.filter(filter).subscriptions.iter();
            subscriptions.any(|&(id, n)| {
                let session = self.session(id);
                let s = &session.subscriptions[n];
                let is_for_it = s.may_stand_since(life.first) && !s.excludes(session.who, message);
                is_for_it && s.options.qos > QoS::AtMostOnce && session.may_last()
            })
        })
    }

    /// Whether a Subscription may have been refused because it would have been written: it is of a Session that lasts,
    /// and surely in place of none.
    pub(super) fn may_be_new_and_unwritable(&self, id: SessionId, n: usize) -> bool {
        let session = self.session(id);
        let s = &session.subscriptions[n];
        let is_there =
            |other: &super::subscriptions::Subscription| other.filter == s.filter && other.stands_since(s.asked);
        self.lacked_disk_since(s.asked) && session.may_last() && !session.subscriptions.iter().any(is_there)
    }

    /// What is retained at QoS 0 while the disk is full is kept in memory alone.
    pub(super) fn note_unwritten(&mut self, number: Number) {
        let message = self.message(number);
        if message.retain && message.qos == QoS::AtMostOnce && !message.payload.is_empty() {
            let unwritten = self.lacked_disk_since(self.life(number).first);
            self.life_mut(number).unwritten |= unwritten;
        }
    }

    /// The broker has died: what was retained in memory alone is gone, and what that had taken the place of is too.
    pub(super) fn doubt_unwritten(&mut self) {
        for topic in 0..self.retained.len() {
            let candidates = self.candidates(topic);
            candidates.iter().for_each(|&number| self.note_unwritten(number));
            if candidates.iter().any(|&number| self.life(number).unwritten) {
                for number in candidates {
                    self.life_mut(number).doubtful = true;
                }
            }
        }
    }
}

impl Session {
    /// Whether it may outlive its connection, or may have been one that would have.
    fn may_last(&self) -> bool {
        self.expiry > 0 || self.undone.iter().any(|state| state.expiry > 0)
    }
}
