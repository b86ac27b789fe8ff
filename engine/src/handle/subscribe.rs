//! SUBSCRIBE (section 3.8): grant, store, tell the other shards, replay what is retained.

use alloc::{boxed::Box, string::String, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{
    PacketId, QoS, ReasonCode, RetainHandling, Subscribe, SubscriptionId, SubscriptionOptions, TopicFilter,
};

use crate::effects::Effects;
use crate::engine::Engine;
use crate::event::Cause;
use crate::ids::{ConnectionId, SessionKey, ShardId};
use crate::journal::Gate;
use crate::mount::whole_filter;
use crate::rare::Rare;
use crate::record::{Record, RecordId, SubscriptionRecord};
use crate::rights::{Action, may};
use crate::session::acks::{Lane, Waiting};
use crate::session::replay::Replay;
use crate::shard_message::{Interest, ShardMessage};
use crate::subscription::Options;
use crate::tight;
use crate::time::Now;
use crate::topic_tree::{FilterKey, GroupKey, Subscription};
use crate::violation::Violation;

/// What one filter of a SUBSCRIBE asks for.
struct Wish<'a> {
    maximum_qos: QoS,
    filter: TopicFilter<'a>,
    options: SubscriptionOptions,
    subscription_id: Option<SubscriptionId>,
    packet_id: PacketId,
}

impl Engine {
    pub(crate) fn on_subscribe(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: SessionKey,
        subscribe: &Subscribe<'_>,
        effects: &mut Effects,
    ) {
        if !self.can_answer(id, subscribe.filters.len()) {
            return;
        }
        let mut reason_codes = Vec::with_capacity(subscribe.filters.len());
        let mut announcement = 0;
        let announced = self.links.announced();
        let mut asks_others = false;
        let mount = self.clients.mount_of(id);
        let listener = self.clients.connections.get(id).map(|connection| connection.listener);
        let maximum_qos = self.clients.config.maximum_qos(listener.unwrap_or_default());
        self.clients.rights.begin();
        for (filter, options) in subscribe.filters.iter() {
            let whole = mount.as_deref().map(|mount| whole_filter(mount, filter));
            let filter = match whole.as_ref().map(|whole| whole.as_deref().map(TopicFilter::new)) {
                None => filter,
                Some(Some(Ok(whole))) => whole,
                Some(_) => {
                    reason_codes.push(ReasonCode::TopicFilterInvalid);
                    continue;
                }
            };
            let wish = Wish {
                maximum_qos,
                filter,
                options,
                subscription_id: subscribe.properties.subscription_id,
                packet_id: subscribe.packet_id,
            };
            let (code, n) = self.subscribe_one(key, &wish, &mut asks_others, effects);
            reason_codes.push(code);
            announcement = announcement.max(n);
        }
        if asks_others && self.links.announced() == announced {
            // Interest was told before. What another shard has routed since may be here, and its copy to be retained still
            // on its way there: once all have answered this, it has arrived.
            announcement = self.links.announce_nothing(effects);
        }
        if mutant("5.0/3.9.3-1") {
            reason_codes.reverse();
        }
        let is_confirmed = announcement <= self.links.confirmed() || mutant("shards/suback-before-confirmed");
        let mut waits = u32::from(!is_confirmed);
        let dirty = self.clients.journal.is_dirty();
        if waits == 0 && !dirty && self.clients.lane_is_free(key, Lane::SubAck) {
            self.send_codes(id, Lane::SubAck, subscribe.packet_id, reason_codes, effects);
            return self.start_replays(now, key, subscribe.packet_id, effects);
        }
        waits += u32::from(dirty);
        let waiting = Waiting {
            reason_codes,
            ..Waiting::new(subscribe.packet_id, ReasonCode::Success, waits)
        };
        let Some(place) = self.clients.open_ack(key, Lane::SubAck, waiting) else {
            return;
        };
        let session = self.clients.sessions.reference(key);
        if !is_confirmed {
            self.confirmations.add(announcement, (session, place));
        }
        if dirty {
            self.clients.journal.hold(Gate::Ack(session, place));
        }
        if mutant("shards/retained-before-confirmed") {
            self.start_replays(now, key, subscribe.packet_id, effects);
        }
        self.leave(now, key, Lane::SubAck, effects);
    }

    /// Whether a SUBACK or UNSUBACK with so many Reason Codes is within the client's Maximum Packet Size; if it is not,
    /// nothing is done and the connection ends [MQTT-3.1.2-24].
    pub(crate) fn can_answer(&mut self, id: ConnectionId, codes: usize) -> bool {
        // Packet Identifier, no Properties, and the codes; before them the Fixed Header.
        let remaining = 2 + 1 + codes;
        let bytes = remaining
            + match remaining {
                0..=0x7f => 2,
                0x80..=0x3fff => 3,
                0x4000..=0x1f_ffff => 4,
                _ => 5,
            };
        let Some(connection) = self.clients.connections.get(id) else {
            return false;
        };
        let fits = bytes <= connection.maximum_packet_size as usize;
        if !fits {
            self.clients.stats.protocol_errors += 1;
            self.clients.doom(id, Cause::Violation(Violation::AnswerTooLarge));
        }
        fits
    }

    /// Grants or refuses one filter. Returns its Reason Code and the announcement that its SUBACK waits for.
    /// Notes whether retained messages of other shards are to be asked for.
    fn subscribe_one(
        &mut self,
        key: SessionKey,
        wish: &Wish<'_>,
        asks_others: &mut bool,
        effects: &mut Effects,
    ) -> (ReasonCode, u64) {
        let granted = wish.options.qos.min(wish.maximum_qos);
        let Some(session) = self.clients.sessions.get(key) else {
            return (ReasonCode::UnspecifiedError, 0);
        };
        let share = wish.filter.shared();
        let plain = share.map_or(wish.filter, |(_, filter)| filter);
        if !may(&mut self.clients.rights, session, Action::Subscribe, plain.as_str()) {
            self.refuse_filter(key, wish.filter.as_str(), effects);
            return (ReasonCode::NotAuthorized, 0);
        }
        let held = session
            .subscriptions
            .as_ref()
            .map_or(0, |subscriptions| subscriptions.len());
        let has_no_room = self.clients.journal.is_full && session.is_durable();
        let full = held >= self.clients.config.subscriptions_max || has_no_room || self.clients.memory.is_full();
        if full && !self.has_subscription(key, wish.filter) {
            return (ReasonCode::QuotaExceeded, 0);
        }
        let options = Options::new(wish.options, granted);
        let n = match share {
            Some((share, filter)) => {
                let group = self.join_group(key, filter.as_str(), share.as_str(), options, wish.subscription_id);
                self.announce_members(group, effects)
            }
            None => {
                let (n, is_new) =
                    self.add_subscription(key, wish.filter.as_str(), options, wish.subscription_id, effects);
                *asks_others |= self.queue_replay(key, wish, options, is_new);
                n
            }
        };
        self.write_subscription(key, wish.filter.as_str(), options, wish.subscription_id, effects);
        (ReasonCode::granted(granted), n)
    }

    /// Whether a Session has this very Subscription, which may be replaced where a new one has no room.
    fn has_subscription(&self, key: SessionKey, filter: TopicFilter<'_>) -> bool {
        match filter.shared() {
            Some((share, plain)) => self
                .tree
                .find_group(plain.as_str(), share.as_str())
                .and_then(|group| self.tree.group(group))
                .is_some_and(|group| group.members.iter().any(|member| member.session == key)),
            None => self.tree.find(filter.as_str(), key).is_some(),
        }
    }

    /// Adds or replaces a Subscription [MQTT-3.8.4-3]. Returns the announcement to wait for, and whether it is new.
    pub(crate) fn add_subscription(
        &mut self,
        key: SessionKey,
        filter: &str,
        options: Options,
        id: Option<SubscriptionId>,
        effects: &mut Effects,
    ) -> (u64, bool) {
        let subscription = Subscription {
            session: key,
            sub_id: id.map_or(0, SubscriptionId::get),
            readable: self.readable_mark(key, filter),
            options: options.0,
        };
        let done = self.tree.subscribe(filter, subscription);
        let is_new = done.replaced.is_none();
        if let Some(old) = done.replaced.filter(|_| mutant("5.0/3.8.4-3")) {
            self.tree.subscribe(filter, old);
        }
        if is_new {
            self.clients.stats.subscriptions += 1;
            let charge = self.clients.subscription_charge(filter.len());
            self.clients.memory.charge(charge);
            if let Some(session) = self.clients.sessions.get_mut(key) {
                tight::insert_sorted(&mut session.subscriptions_mut().filters, done.key);
            }
        }
        (self.announce_interest(filter, done.key, done.first, effects), is_new)
    }

    /// Tells the other shards of a filter's first Subscription here. A later one waits for the same confirmation.
    fn announce_interest(&mut self, filter: &str, key: FilterKey, first: bool, effects: &mut Effects) -> u64 {
        if self.links.is_alone() {
            return 0;
        }
        if !first {
            if mutant("shards/second-subscribe-confirmed") {
                return 0;
            }
            return self.confirmations.number_of(key);
        }
        let interest = if key.is_wildcard() {
            Interest::Wildcard(String::from(filter))
        } else {
            let hash = self.tree.topic_hash(filter);
            if self.tree.exact_hash_count(hash) > 1 {
                // Another filter with this hash announced it; whether that is confirmed is not known per hash, so this
                // waits for the latest announcement of all.
                return self.links.announced();
            }
            Interest::Exact(hash)
        };
        let n = self.links.announce(
            |n| ShardMessage::Interest {
                n,
                filter: interest.clone(),
            },
            effects,
        );
        self.confirmations.remember(key, n);
        n
    }

    /// Makes a Session a member of a Shared Subscription, or replaces its options there. The others are to be told.
    pub(crate) fn join_group(
        &mut self,
        key: SessionKey,
        filter: &str,
        share: &str,
        options: Options,
        id: Option<SubscriptionId>,
    ) -> GroupKey {
        let member = Subscription {
            session: key,
            sub_id: id.map_or(0, SubscriptionId::get),
            readable: self.readable_mark(key, filter),
            options: options.0,
        };
        let done = self.tree.group_join(filter, share, member, self.is_online(key));
        if done.replaced.is_none() {
            self.clients.stats.subscriptions += 1;
            self.clients.stats.shared_subscriptions += 1;
            let charge = self.clients.subscription_charge(share.len() + filter.len());
            self.clients.memory.charge(charge);
            if let Some(session) = self.clients.sessions.get_mut(key) {
                tight::insert_sorted(&mut session.subscriptions_mut().groups, done.group);
            }
        }
        done.group
    }

    /// Lines up the retained messages that this Subscription is due [MQTT-3.3.1-9, -10, -11]. Returns whether another shard
    /// is to be asked for some.
    fn queue_replay(&mut self, key: SessionKey, wish: &Wish<'_>, options: Options, is_new: bool) -> bool {
        let wanted = match wish.options.retain_handling {
            RetainHandling::SendAtSubscribe => is_new || !mutant("5.0/3.8.4-4"),
            RetainHandling::SendIfNew => is_new || mutant("5.0/3.3.1-10"),
            RetainHandling::DoNotSend => false,
        };
        if !wanted || !self.clients.config.retain_available {
            return false;
        }
        let filter = wish.filter.as_str();
        if self.links.is_alone() {
            let is_due = if wish.filter.has_wildcards() {
                !self.retained.is_empty()
            } else {
                self.retained.get(filter).is_some()
            };
            if !is_due {
                return false;
            }
        }
        let shards = self.shards_to_replay(wish.filter);
        let asks_others = shards.iter().any(|&shard| shard != self.shard);
        let replay = Replay::new(filter, options, wish.subscription_id, shards, wish.packet_id);
        if let Some(session) = self.clients.sessions.get_mut(key) {
            let replaced = session.replays.get_or_insert_default().push(replay);
            if replaced {
                self.clients.note_rare(Rare::ReplayReplaced);
            }
        }
        asks_others
    }

    /// The shards that may have retained messages for a filter, in the order in which they are asked from the last one on.
    pub(crate) fn shards_to_replay(&self, filter: TopicFilter<'_>) -> Vec<ShardId> {
        if filter.has_wildcards() {
            self.links.others().chain([self.shard]).collect()
        } else {
            Vec::from([self.placement.home_of_hash(self.tree.topic_hash(filter.as_str()))])
        }
    }

    /// A Subscription has had the retained messages that it was due: a restart does not send them again.
    pub(crate) fn write_replay_end(&mut self, key: SessionKey, filter: &str, effects: &mut Effects) {
        if !self.clients.journal.is_on() {
            return;
        }
        if let Some(subscription) = self.tree.find(filter, key) {
            let options = Options(subscription.options);
            let subscription_id = SubscriptionId::new(subscription.sub_id);
            if options.qos() > QoS::AtMostOnce {
                self.write_subscription(key, filter, options, subscription_id, effects);
            }
        }
    }

    fn write_subscription(
        &mut self,
        key: SessionKey,
        filter: &str,
        options: Options,
        subscription_id: Option<SubscriptionId>,
        effects: &mut Effects,
    ) {
        if !self.clients.journal.is_on() {
            return;
        }
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        if !session.is_durable() {
            return;
        }
        let owner = session.record;
        // At QoS 0 nothing is promised.
        let replays = session.replays.as_ref().filter(|_| options.qos() > QoS::AtMostOnce);
        let replays = if replays.is_some_and(|replays| replays.is_promised(filter)) {
            SubscriptionRecord::REPLAYS
        } else {
            0
        };
        let records = &mut session.subscriptions_mut().records;
        let known = records.get(filter).copied();
        let record = known.unwrap_or_else(|| self.clients.journal.next_id());
        records.insert(String::from(filter), record);
        let written = SubscriptionRecord {
            session: owner,
            filter: String::from(filter),
            options: options.0 | replays,
            subscription_id,
        };
        self.clients
            .journal
            .emit(Record::Subscription(record, Box::new(written)), effects);
    }

    /// The record of a Subscription goes.
    pub(crate) fn delete_subscription_record(&mut self, key: SessionKey, filter: &str, effects: &mut Effects) {
        if !self.clients.journal.is_on() {
            return;
        }
        let record = self
            .clients
            .sessions
            .get_mut(key)
            .and_then(|session| session.subscriptions.as_mut()?.records.remove(filter))
            .unwrap_or(RecordId(0));
        self.clients.journal.delete(record, effects);
    }
}
