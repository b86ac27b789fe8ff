//! UNSUBSCRIBE (section 3.10), and all Subscriptions of a Session that ends.

use alloc::{string::String, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{ReasonCode, TopicFilter, Unsubscribe};

use crate::effects::Effects;
use crate::engine::Engine;
use crate::ids::{ConnectionId, SessionKey};
use crate::journal::Gate;
use crate::mount::whole_filter;
use crate::rare::Rare;
use crate::session::acks::{Lane, Waiting};
use crate::shard_message::{Interest, ShardMessage};
use crate::tight;
use crate::time::Now;
use crate::topic_tree::{FilterKey, GroupKey, Weight};

impl Engine {
    pub(crate) fn on_unsubscribe(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: SessionKey,
        unsubscribe: &Unsubscribe<'_>,
        effects: &mut Effects,
    ) {
        if !self.can_answer(id, unsubscribe.filters.len()) {
            return;
        }
        let mut reason_codes = Vec::with_capacity(unsubscribe.filters.len());
        let mount = self.clients.mount_of(id);
        for filter in unsubscribe.filters.iter() {
            let whole = mount.as_deref().map(|mount| whole_filter(mount, filter));
            let existed = match whole.as_ref().map(|whole| whole.as_deref().map(TopicFilter::new)) {
                None => self.unsubscribe_one(now, key, filter, effects),
                Some(Some(Ok(whole))) => self.unsubscribe_one(now, key, whole, effects),
                Some(_) => false,
            };
            let code = if existed {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            };
            reason_codes.push(code);
        }
        if mutant("5.0/3.11.3-1") {
            reason_codes.reverse();
        }
        if mutant("5.0/3.10.4-5") && !reason_codes.contains(&ReasonCode::Success) {
            return;
        }
        let dirty = self.clients.journal.is_dirty();
        if !dirty && self.clients.lane_is_free(key, Lane::UnsubAck) {
            return self.send_codes(id, Lane::UnsubAck, unsubscribe.packet_id, reason_codes, effects);
        }
        let waits = u32::from(dirty);
        let waiting = Waiting {
            reason_codes,
            ..Waiting::new(unsubscribe.packet_id, ReasonCode::Success, waits)
        };
        if let Some(place) = self.clients.open_ack(key, Lane::UnsubAck, waiting)
            && dirty
        {
            let session = self.clients.sessions.reference(key);
            self.clients.journal.hold(Gate::Ack(session, place));
        }
        self.leave(now, key, Lane::UnsubAck, effects);
    }

    /// Ends one Subscription, compared character by character [MQTT-3.10.4-1]. Returns whether there was one.
    fn unsubscribe_one(&mut self, now: Now, key: SessionKey, filter: TopicFilter<'_>, effects: &mut Effects) -> bool {
        let existed = match filter.shared() {
            Some((share, plain)) => match self.tree.find_group(plain.as_str(), share.as_str()) {
                Some(group) => self.leave_group(key, group, effects),
                None => false,
            },
            None => match self.tree.unsubscribe(filter.as_str(), key) {
                Some(removed) => {
                    self.subscription_ended(key, filter.as_str(), removed.key, removed.last, effects);
                    true
                }
                None => false,
            },
        };
        if existed {
            self.delete_subscription_record(key, filter.as_str(), effects);
            self.stop_replay(now, key, filter.as_str(), effects);
        }
        existed
    }

    /// Tells the other shards that nobody here wants what a Session has subscribed to: a fault, to be found.
    pub(crate) fn lose_interest(&self, key: SessionKey, effects: &mut Effects) {
        let session = self.clients.sessions.get(key);
        let filters = session.and_then(|session| session.subscriptions.as_ref());
        for &filter_key in filters.iter().flat_map(|subscriptions| &subscriptions.filters) {
            let mut filter = String::new();
            self.tree.filter_of(filter_key, &mut filter);
            let interest = if filter_key.is_wildcard() {
                Interest::Wildcard(filter)
            } else {
                Interest::Exact(self.tree.topic_hash(&filter))
            };
            for shard in self.links.others() {
                effects.forwards.push((shard, ShardMessage::Lost(interest.clone())));
            }
        }
    }

    fn stop_replay(&mut self, now: Now, key: SessionKey, filter: &str, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(replays) = &mut session.replays else { return };
        if replays.has(filter) {
            self.clients.rares.note(Rare::ReplayStopped);
        }
        let mut messages = Vec::new();
        if replays.remove(filter, |message| messages.push(message)) {
            session.replays = None;
            self.clients.pump(now, key, effects);
        }
        for message in messages {
            self.clients.let_go(message, effects);
        }
        // The one behind it is next.
        self.replay(now, key, effects);
    }

    /// Settles what hung on a Subscription that the tree has let go.
    fn subscription_ended(
        &mut self,
        key: SessionKey,
        filter: &str,
        filter_key: FilterKey,
        last: bool,
        effects: &mut Effects,
    ) {
        self.clients.stats.subscriptions -= 1;
        self.clients
            .memory
            .refund(self.clients.subscription_charge(filter.len()));
        if let Some(session) = self.clients.sessions.get_mut(key) {
            tight::remove_sorted(&mut session.subscriptions_mut().filters, &filter_key);
        }
        if !last || self.links.is_alone() {
            return;
        }
        self.confirmations.forget(filter_key);
        let interest = if filter_key.is_wildcard() {
            Interest::Wildcard(String::from(filter))
        } else {
            let hash = self.tree.topic_hash(filter);
            if self.tree.exact_hash_count(hash) > 0 {
                return;
            }
            Interest::Exact(hash)
        };
        for shard in self.links.others() {
            effects.forwards.push((shard, ShardMessage::Lost(interest.clone())));
        }
    }

    /// Takes a Session out of a Shared Subscription. Returns whether it was in it.
    pub(crate) fn leave_group(&mut self, key: SessionKey, group: GroupKey, effects: &mut Effects) -> bool {
        let names = self.group_names(group);
        let told = self.tree.group(group).map(|group| group.told).unwrap_or_default();
        let Some(left) = self.tree.group_leave(group, key, self.is_online(key)) else {
            return false;
        };
        self.clients.stats.subscriptions -= 1;
        self.clients.stats.shared_subscriptions -= 1;
        let text = names.as_ref().map_or(0, |(share, filter)| share.len() + filter.len());
        self.clients.memory.refund(self.clients.subscription_charge(text));
        if let Some(session) = self.clients.sessions.get_mut(key) {
            tight::remove_sorted(&mut session.subscriptions_mut().groups, &group);
        }
        if left.last && told != Weight::default() {
            // The group may be gone.
            if let Some((share, filter)) = names {
                self.announce_weight(&share, &filter, Weight::default(), effects);
            }
            if let Some(group) = self.tree.group_mut(group) {
                group.told = Weight::default();
            }
        } else if !left.last && !self.links.is_alone() {
            self.untold.add(group);
        }
        true
    }

    /// Ends all Subscriptions of a Session.
    pub(crate) fn drop_subscriptions(&mut self, key: SessionKey, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(subscriptions) = session.subscriptions.take() else {
            return;
        };
        let mut filter = String::new();
        for &filter_key in &subscriptions.filters {
            filter.clear();
            self.tree.filter_of(filter_key, &mut filter);
            if let Some(last) = self.tree.unsubscribe_key(filter_key, key) {
                self.subscription_ended(key, &filter, filter_key, last, effects);
            }
        }
        for &group in &subscriptions.groups {
            self.leave_group(key, group, effects);
        }
        for &record in subscriptions.records.values() {
            self.clients.journal.delete(record, effects);
        }
        if let Some(session) = self.clients.sessions.get_mut(key) {
            session.subscriptions = None;
        }
    }
}
