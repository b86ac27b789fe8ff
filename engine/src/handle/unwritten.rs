//! What is not done while the journal has no room: what is new and would be written. What writes nothing goes on, and so does
//! what was taken before, which makes room.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use sol_codec::QoS;

use crate::clients::Clients;
use crate::engine::Engine;
use crate::handle::publish::Publisher;
use crate::ids::SessionKey;
use crate::input::{OwnedConnect, OwnedWill};
use crate::memory::BAGGAGE_BYTES_MAX;
use crate::message::Message;
use crate::record::RecordId;
use crate::route::is_own;
use crate::session::Session;
use crate::subscription::Options;
use crate::topic_tree::{GroupKey, Subscription};

impl Engine {
    /// Whether there is no room for what a client's publish would have written. Its cost is that of listing the Subscriptions
    /// that match.
    ///
    /// What other shards, or a choice among the members of a Shared Subscription, would write is not known here. A 5.0
    /// publisher hears of it from there; an older one cannot be told, and waits where something might be.
    #[inline]
    pub(crate) fn is_unwritable(&mut self, from: Publisher, message: &Message) -> bool {
        self.clients.journal.is_full && message.qos > QoS::AtMostOnce && self.would_be_written(from, message)
    }

    #[cold]
    #[inline(never)]
    fn would_be_written(&mut self, from: Publisher, message: &Message) -> bool {
        let is_durable = |key| self.clients.sessions.get(key).is_some_and(Session::is_durable);
        let is_retained = message.retain && self.clients.config.retain_available && !message.payload().is_empty();
        if is_retained || message.qos == QoS::ExactlyOnce && is_durable(from.key) {
            return true;
        }
        let Self {
            tree, clients, scratch, ..
        } = self;
        let mut matches = scratch.matches.take().unwrap_or_default();
        matches.clear();
        tree.matches(message.topic(), tree.topic_hash(message.topic()), &mut matches);
        let mut subscriptions = matches.filters.iter().flat_map(|&filter| tree.subscribers(filter));
        let is_unwritable = subscriptions.any(|it| clients.would_write(it, message))
            || !from.v5 && (matches.shards != 0 || matches.groups.iter().any(|&group| self.may_write(group, message)));
        self.scratch.matches = Some(matches);
        is_unwritable
    }

    /// Whether a member of a Shared Subscription would have the message written.
    fn may_write(&mut self, group: GroupKey, message: &Message) -> bool {
        let Self { tree, clients, .. } = self;
        tree.group(group).is_some_and(|group| {
            let mut members = group.members.iter();
            !group.remote.is_empty() || members.any(|member| clients.would_write(member, message))
        })
    }

    /// Whether there is no room for what a CONNECT would have written: a Session that outlives its connection, or one with a
    /// Will, and neither is there. Who comes to take what is queued gets in with a Will of usual size.
    pub(crate) fn has_no_room_on_disk_for(&self, connect: &OwnedConnect, known: Option<SessionKey>) -> bool {
        if !self.clients.journal.is_full {
            return false;
        }
        let is_durable = connect
            .session_expiry_interval
            .min(self.clients.config.session_expiry_max)
            > 0;
        let known = known.and_then(|key| self.clients.sessions.get(key));
        let Some(session) = known.filter(|session| session.record != RecordId(0)) else {
            return is_durable || connect.will.is_some();
        };
        let [will, has] = [&connect.will, &session.will].map(|will| will.as_deref().map_or(0, OwnedWill::charge));
        is_durable && !session.is_durable() || will > has.max(BAGGAGE_BYTES_MAX)
    }

    /// A durable Session's replay, of which each message is written, waits until there is room for that.
    pub(crate) fn hold_replay(&mut self, key: SessionKey) {
        let session = self.clients.sessions.reference(key);
        if let Some(replays) = self.replays_mut(key)
            && !core::mem::replace(&mut replays.is_held, true)
        {
            self.held_replays.push_back(session);
        }
    }

    /// If the journal has room again, replays that waited for it go on from the next tick.
    pub(crate) fn release_replays(&mut self) {
        if self.clients.journal.is_full {
            return;
        }
        for session in core::mem::take(&mut self.held_replays) {
            let Some(key) = self.clients.sessions.resolve(session) else {
                continue;
            };
            if let Some(replays) = self.replays_mut(key) {
                replays.is_held = false;
            }
            if let Some(id) = self.clients.sessions.get(key).and_then(|session| session.connection) {
                self.go_on_next_tick(key, id);
            }
        }
    }
}

impl Clients {
    /// Whether a message that goes to this Subscription is written.
    fn would_write(&mut self, subscription: &Subscription, message: &Message) -> bool {
        let options = Options(subscription.options);
        self.config.qos_out_max(message.qos).min(options.qos()) > QoS::AtMostOnce
            && self.sessions.get(subscription.session).is_some_and(Session::is_durable)
            && !(options.no_local() && is_own(self, subscription, message))
            && (self.rights.holds(subscription.readable) || self.may_read(subscription.session, message))
    }
}
