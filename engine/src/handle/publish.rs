//! PUBLISH in (section 3.3): alias, rights, QoS, and into the line.

use alloc::{rc::Rc, string::String};

use sol_codec::mutants::{mutant, planted};
use sol_codec::{Packet, PacketId, ProtocolVersion, QoS, ReasonCode, TopicName};

use crate::clients::Clients;
use crate::connection::{Connection, Connections, State, Terms};
use crate::effects::{AckKind, Effects};
use crate::engine::Engine;
use crate::fanout::Hold;
use crate::ids::{ConnectionId, SessionKey};
use crate::input::Flow;
use crate::journal::{Gate, Transaction};
use crate::memory::{Memory, REFERENCE_BYTES};
use crate::message::Message;
use crate::mount::whole_topic;
use crate::rare::{DropCause, Rare};
use crate::record::{Record, RecordId};
use crate::rights::{Action, Rights, may};
use crate::route::{Outcome, Publish, Source};
use crate::session::acks::{Acks, Lane, Waiting};
use crate::time::{Now, UnixMillis};
use crate::violation::Violation;

/// The client that a PUBLISH came from, looked up once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publisher {
    pub(crate) id: ConnectionId,
    pub(crate) key: SessionKey,
    /// It speaks 5.0: its acknowledgements can say what went wrong.
    pub(crate) v5: bool,
    pub(crate) terms: Terms,
}

impl Publisher {
    /// The client of a connection whose CONNACK has left: nothing that comes before is handled.
    #[inline]
    pub(crate) fn of(id: ConnectionId, connection: &Connection) -> Option<Self> {
        let State::Active(key, terms) = connection.state else {
            return None;
        };
        Some(Self {
            id,
            key,
            v5: connection.version == ProtocolVersion::V5,
            terms,
        })
    }
}

impl Engine {
    pub(crate) fn on_publish(
        &mut self,
        now: Now,
        from: Publisher,
        publish: &sol_codec::Publish<'_>,
        effects: &mut Effects,
    ) -> Flow {
        self.clients.stats.publish_received += 1;
        self.clients.stats.publish_bytes_received += publish.payload.len() as u64;
        if let Some(violation) = self.publish_violation(from, publish) {
            self.violate(now, from.id, violation, effects);
            return Flow::Stop;
        }
        let ack = publish.packet_id.map(|packet_id| (lane_of(publish.qos), packet_id));
        if publish.payload.len() > self.clients.config.payload_bytes_max {
            return self.refuse_payload(now, from, publish, ack, effects);
        }
        let Clients {
            sessions,
            connections,
            memory,
            stats,
            rights,
            config,
            ..
        } = &mut self.clients;
        let Some(session) = sessions.get(from.key) else {
            return Flow::Stop;
        };
        let Some((topic, connections)) = topic_of(connections, memory, from.id, publish) else {
            self.violate(now, from.id, Violation::TopicAliasUnknown, effects);
            return Flow::Stop;
        };
        assert!(!planted("panic/before", topic), "planted before an update");
        if planted("panic/unsound", topic) {
            stats.subscriptions += 1;
            assert!(!planted("panic/unsound", topic), "planted with the gauges wrong");
        }
        let is_known = rights.are_limited() && is_known(connections, from.id, topic, rights);
        if !is_known && !may(rights, session, Action::Publish, topic) {
            let topic = String::from(topic);
            return self.refuse_publish(now, from, &topic, ack, effects);
        }
        if !is_known && rights.are_limited() {
            note_allowed(connections, from.id, topic, rights);
        }
        if publish.dup && publish.qos == QoS::AtLeastOnce && mutant("5.0/4.3.2-5") {
            return self.answer(now, from, ack, ReasonCode::Success, effects);
        }
        let mut message = effects.spare_message();
        let Some(alone) = Rc::get_mut(&mut message) else {
            return Flow::Go;
        };
        alone.reset();
        alone.fill(topic, publish.properties.application, publish.payload);
        alone.qos = publish.qos;
        alone.retain = publish.retain;
        alone.origin = session.origin;
        let expiry = publish.properties.message_expiry_interval;
        alone.expires_at = expiry.map_or(UnixMillis::NEVER, |seconds| now.wall.plus_seconds(seconds));
        let is_kept = config.qos_out_max(publish.qos) > QoS::AtMostOnce || publish.retain;
        if self.has_parked(from.id) || is_kept && (self.clients.memory.is_full() || self.is_unwritable(from, alone)) {
            return self.refuse_or_park(now, from, message, ack, effects);
        }
        if is_kept {
            self.clients.charge_message(alone);
        }
        self.take_publish(now, from, message, ack, effects)
    }

    /// PUBLISH of a client whose listener has a mount point: the same with the whole topic. It goes the way of all others
    /// once more, where a second call would keep the first from being part of that way.
    #[cold]
    pub(crate) fn on_mounted_publish(
        &mut self,
        now: Now,
        from: Publisher,
        publish: &sol_codec::Publish<'_>,
        effects: &mut Effects,
    ) -> Flow {
        let alias = publish.properties.topic_alias;
        if alias.is_some_and(|alias| alias.get() > from.terms.topic_alias_maximum) {
            self.violate(now, from.id, Violation::TopicAliasTooLarge, effects);
            return Flow::Stop;
        }
        let Clients {
            connections,
            memory,
            config,
            ..
        } = &mut self.clients;
        let Some((topic, connections)) = topic_of(connections, memory, from.id, publish) else {
            self.violate(now, from.id, Violation::TopicAliasUnknown, effects);
            return Flow::Stop;
        };
        let listener = connections.get(from.id).map(|connection| connection.listener);
        let mount = listener.and_then(|listener| config.mount_point(listener));
        let Some(whole) = mount.and_then(|mount| whole_topic(mount, topic)) else {
            let ack = publish.packet_id.map(|packet_id| (lane_of(publish.qos), packet_id));
            return self.answer_refused(now, from, ack, ReasonCode::TopicNameInvalid, effects);
        };
        let mut publish = *publish;
        publish.topic = Some(TopicName::assume_valid(&whole));
        publish.properties.topic_alias = None;
        self.is_whole = true;
        self.clients.stats.packets_received -= 1;
        self.on_packet(now, from.id, &Packet::Publish(publish), effects)
    }

    /// A payload is too large to be passed on: it is dropped, and a 5.0 publisher told.
    #[cold]
    fn refuse_payload(
        &mut self,
        now: Now,
        from: Publisher,
        publish: &sol_codec::Publish<'_>,
        ack: Option<(Lane, PacketId)>,
        effects: &mut Effects,
    ) -> Flow {
        if let Some(connection) = self.clients.connections.get_mut(from.id)
            && let (Some(topic), Some(alias)) = (publish.topic, publish.properties.topic_alias)
        {
            // A Topic Alias that it sets is set all the same.
            connection.set_alias_in(alias, topic.as_str(), &mut self.clients.memory);
        }
        self.clients.count_dropped(DropCause::TooLarge);
        self.answer_refused(now, from, ack, ReasonCode::QuotaExceeded, effects)
    }

    /// Acknowledges a PUBLISH that is dropped, with a reason where its version has room for one.
    pub(crate) fn answer_refused(
        &mut self,
        now: Now,
        from: Publisher,
        ack: Option<(Lane, PacketId)>,
        reason: ReasonCode,
        effects: &mut Effects,
    ) -> Flow {
        if let Some((Lane::PubRec, packet_id)) = ack
            && self.has_inbound(from.key, packet_id)
        {
            // It was taken before: a refusal would let the client use the identifier for another message.
            return self.answer_again(now, from, packet_id, effects);
        }
        let reason = if from.v5 { reason } else { ReasonCode::Success };
        self.answer(now, from, ack, reason, effects)
    }

    /// What a well-formed PUBLISH can still do wrong.
    fn publish_violation(&self, from: Publisher, publish: &sol_codec::Publish<'_>) -> Option<Violation> {
        let Publisher { key, v5, terms, .. } = from;
        if v5 && !publish.properties.subscription_ids.is_empty() {
            return Some(Violation::SubscriptionIdInPublish);
        }
        if publish.qos > terms.maximum_qos {
            return Some(Violation::QosNotSupported);
        }
        if v5 && publish.retain && !terms.retain_available {
            return Some(Violation::RetainNotSupported);
        }
        if publish
            .properties
            .topic_alias
            .is_some_and(|alias| alias.get() > terms.topic_alias_maximum)
        {
            return Some(Violation::TopicAliasTooLarge);
        }
        if publish.qos > QoS::AtMostOnce && v5 {
            // 3.x clients were never told a Receive Maximum; their identifiers bound them.
            let session = self.clients.sessions.get(key)?;
            let (quota, fresh) = (usize::from(terms.receive_maximum), session.inbound.fresh());
            let acks = session.acks.as_deref();
            let repeated = || {
                publish
                    .packet_id
                    .is_some_and(|packet_id| session.inbound.contains_key(&packet_id))
            };
            let unfinished = |acks: &Acks| acks.unfinished(|packet_id| session.inbound.contains_key(&packet_id));
            if fresh + acks.map_or(0, Acks::unfinished_max) >= quota
                && fresh + acks.map_or(0, unfinished) >= quota
                && !repeated()
            {
                return Some(Violation::ReceiveMaximumExceeded);
            }
        }
        None
    }

    /// A client's message that is charged and allowed: notes a QoS 2 identifier, routes, and acknowledges in turn.
    pub(crate) fn take_publish(
        &mut self,
        now: Now,
        from: Publisher,
        message: Rc<Message>,
        ack: Option<(Lane, PacketId)>,
        effects: &mut Effects,
    ) -> Flow {
        let Publisher { id, key, v5, .. } = from;
        let mut transaction = None;
        if let Some((Lane::PubRec, packet_id)) = ack {
            // Were its identifier kept without the message, its repeat would be taken for one that was routed.
            transaction = self.enter_inbound(key, effects);
            if !self.note_inbound(key, packet_id, effects) && !mutant("5.0/4.3.3-10") {
                self.clients.journal.leave(true, effects);
                self.clients.let_go(message, effects);
                return self.answer_again(now, from, packet_id, effects);
            }
            self.unrouted = Some((key, Some(packet_id)));
        } else if ack.is_some() {
            self.unrouted = Some((key, None));
        }
        let may_refuse = ack.is_some() && v5;
        let mut publish = Publish {
            message,
            source: Source::Client {
                connection: id,
                may_refuse,
                ack: None,
            },
            transaction,
        };
        let overtakes = ack.is_none() && mutant("shards/fanout-overtaken");
        if self.line.is_busy() && !overtakes {
            if let Some((lane, packet_id)) = ack {
                let waiting = Waiting::new(packet_id, ReasonCode::Success, 1);
                let place = self.clients.open_ack(key, lane, waiting);
                let session = self.clients.sessions.reference(key);
                publish.source = Source::Client {
                    connection: id,
                    may_refuse,
                    ack: place.map(|place| (session, place)),
                };
            }
            self.unrouted = None;
            self.clients.journal.leave(false, effects);
            let behind = if publish.is_retained_unacknowledged() {
                self.links.one_behind()
            } else {
                None
            };
            let author = if publish.message.retain { self.author(key) } else { None };
            if self.wait_in_line(publish, author, effects) >= self.clients.config.fanout_waiting_max {
                self.clients.note_rare(Rare::LineLong);
                self.pause(now, id, Hold::Line);
                return Flow::Stop;
            }
            // Where it will go is not known yet; a line that is never empty must not get around a full mailbox.
            if let Some(shard) = behind {
                self.pause(now, id, Hold::Retaining(shard));
                return Flow::Stop;
            }
            return self.pause_for_any_full_shard(now, id);
        }
        let outcome = self.route(now, publish, effects);
        if let Some((lane, packet_id)) = ack {
            self.acknowledge_routed(now, from, (lane, packet_id), outcome, effects);
            self.unrouted = None;
            self.clients.journal.leave(!outcome.cut, effects);
        }
        self.pause_for_full_shard(now, id)
    }

    /// Enters the transaction of a QoS 2 publish whose identifier is kept. It is kept after those that its Session published
    /// before: what is not is published again after a crash, and would come behind it [MQTT-4.6.0-5].
    fn enter_inbound(&mut self, key: SessionKey, effects: &Effects) -> Option<Transaction> {
        let Clients { sessions, journal, .. } = &mut self.clients;
        if !journal.is_on() {
            return None;
        }
        let session = sessions.get(key).filter(|session| session.is_durable())?;
        let transaction = journal.begin();
        journal.enter(transaction, false, effects);
        journal.keep_order_of(session.record);
        transaction
    }

    /// Acknowledges what was routed just now: at once, or when all that it waits for has come.
    fn acknowledge_routed(
        &mut self,
        now: Now,
        from: Publisher,
        (lane, packet_id): (Lane, PacketId),
        outcome: Outcome,
        effects: &mut Effects,
    ) {
        let Publisher { id, key, .. } = from;
        let reason = match (outcome.refused, outcome.matched) {
            (true, _) => ReasonCode::QuotaExceeded,
            (false, false) if from.v5 => ReasonCode::NoMatchingSubscribers,
            (false, _) => ReasonCode::Success,
        };
        let is_settled = self.scratch.posted.is_empty() && !outcome.cut && !self.clients.journal.is_dirty();
        if is_settled && self.clients.lane_is_free(key, lane) {
            if lane == Lane::PubRec && reason.is_error() && !mutant("5.0/4.3.3-9") {
                self.forget_inbound(key, packet_id, effects);
            }
            return self.acknowledge(id, kind_of(lane), packet_id, reason, effects);
        }
        self.acknowledge_later(now, key, (lane, packet_id), reason, outcome.cut, effects);
    }

    /// Puts an acknowledgement in its lane, to leave when the journal, other shards and the rest of its fan-out are through.
    // One that waits for none of them pays for none of this.
    #[inline(never)]
    fn acknowledge_later(
        &mut self,
        now: Now,
        key: SessionKey,
        (lane, packet_id): (Lane, PacketId),
        reason: ReasonCode,
        is_cut: bool,
        effects: &mut Effects,
    ) {
        let waiting = Waiting::new(packet_id, reason, u32::from(is_cut));
        let Some(place) = self.clients.open_ack(key, lane, waiting) else {
            return;
        };
        let who = (self.clients.sessions.reference(key), place);
        self.wait_for_posted(who);
        if self.clients.journal.is_dirty()
            && self.clients.journal.hold(Gate::Ack(who.0, place))
            && let Some(waiting) = self.clients.ack_mut(key, place)
        {
            waiting.waits += 1;
        }
        if is_cut && let Some(Source::Client { ack, .. }) = self.line.open_source() {
            *ack = Some(who);
        }
        self.leave(now, key, lane, effects);
    }

    /// Acknowledges a PUBLISH that went nowhere, in its turn.
    pub(crate) fn answer(
        &mut self,
        now: Now,
        from: Publisher,
        ack: Option<(Lane, PacketId)>,
        reason: ReasonCode,
        effects: &mut Effects,
    ) -> Flow {
        let Publisher { id, key, .. } = from;
        let Some((lane, packet_id)) = ack else { return Flow::Go };
        if lane == Lane::PubRec && !reason.is_error() {
            self.note_inbound(key, packet_id, effects);
        }
        let dirty = self.clients.journal.is_dirty();
        if !dirty && self.clients.lane_is_free(key, lane) {
            self.acknowledge(id, kind_of(lane), packet_id, reason, effects);
            return Flow::Go;
        }
        let waiting = Waiting::new(packet_id, reason, u32::from(dirty));
        if let Some(place) = self.clients.open_ack(key, lane, waiting) {
            if dirty {
                let session = self.clients.sessions.reference(key);
                self.clients.journal.hold(Gate::Ack(session, place));
            }
            self.leave(now, key, lane, effects);
        }
        Flow::Go
    }

    /// A QoS 2 PUBLISH came again: its PUBREC again, behind the one that may still wait [MQTT-4.3.3-10].
    pub(crate) fn answer_again(
        &mut self,
        now: Now,
        from: Publisher,
        packet_id: PacketId,
        effects: &mut Effects,
    ) -> Flow {
        if self.clients.ask_again(from.key, Lane::PubRec, packet_id) {
            self.clients.note_rare(Rare::AskedAgain);
            return Flow::Go;
        }
        let ack = Some((Lane::PubRec, packet_id));
        self.answer(now, from, ack, ReasonCode::Success, effects)
    }

    /// Whether an inbound QoS 2 identifier is in use.
    pub(crate) fn has_inbound(&self, key: SessionKey, packet_id: PacketId) -> bool {
        self.clients
            .sessions
            .get(key)
            .is_some_and(|session| session.inbound.contains_key(&packet_id))
    }

    /// Notes an inbound QoS 2 identifier. `false`: it is in use, so the message is a repeat.
    fn note_inbound(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) -> bool {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return false;
        };
        let durable = session.is_durable() && self.clients.journal.is_on();
        if session.inbound.contains_key(&packet_id) {
            return false;
        }
        let record = if durable {
            self.clients.journal.next_id()
        } else {
            RecordId(0)
        };
        session.inbound.insert(packet_id, record);
        self.clients.memory.charge(REFERENCE_BYTES);
        if durable {
            let session = session.record;
            self.clients.journal.emit(
                Record::Inbound {
                    id: record,
                    session,
                    packet_id,
                },
                effects,
            );
        }
        true
    }

    /// A restart will not know an inbound QoS 2 identifier any more. Returns whether it would have.
    pub(crate) fn unwrite_inbound(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) -> bool {
        let session = self.clients.sessions.get_mut(key);
        let record = session.and_then(|session| session.inbound.take_record(&packet_id));
        let record = record.unwrap_or(RecordId(0));
        self.clients.journal.delete(record, effects);
        record != RecordId(0)
    }

    /// An inbound QoS 2 identifier is free again. Returns whether it was in use.
    pub(crate) fn forget_inbound(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) -> bool {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return false;
        };
        let Some(record) = session.inbound.remove(&packet_id) else {
            return false;
        };
        self.clients.memory.refund(REFERENCE_BYTES);
        self.clients.journal.delete(record, effects);
        true
    }

    /// A message of the broker's own.
    pub(crate) fn on_own_publish(&mut self, now: Now, mut message: Message, effects: &mut Effects) {
        if self.clients.is_kept(&message) {
            self.clients.charge_message(&mut message);
        }
        self.publish_own(now, Rc::new(message), None, None, effects);
    }

    /// A publisher whose messages go to a shard that cannot keep up is not read until it can; nor is one for whom something
    /// is written while the journal cannot, or may be on another shard.
    fn pause_for_full_shard(&mut self, now: Now, id: ConnectionId) -> Flow {
        let is_busy = self.clients.journal.is_busy;
        if is_busy && (self.clients.journal.is_dirty() || !self.scratch.posted.is_empty()) {
            self.pause(now, id, Hold::Journal);
            return Flow::Stop;
        }
        if self.links.is_alone() {
            return Flow::Go;
        }
        let because_of = self.scratch.posted_to().find_map(|(shard, unacknowledged)| {
            if self.links.is_full(shard) {
                Some(Hold::Shard(shard))
            } else if unacknowledged && self.links.is_behind(shard) {
                Some(Hold::Retaining(shard))
            } else {
                None
            }
        });
        match because_of {
            Some(because_of) => {
                self.pause(now, id, because_of);
                Flow::Stop
            }
            None => Flow::Go,
        }
    }

    /// A client that adds to what all other shards are told is not read while one of them cannot keep up.
    pub(crate) fn pause_for_any_full_shard(&mut self, now: Now, id: ConnectionId) -> Flow {
        match self.links.full_one() {
            Some(shard) => {
                self.pause(now, id, Hold::Shard(shard));
                Flow::Stop
            }
            None => Flow::Go,
        }
    }
}

pub(crate) const fn lane_of(qos: QoS) -> Lane {
    match qos {
        QoS::ExactlyOnce => Lane::PubRec,
        _ => Lane::PubAck,
    }
}

const fn kind_of(lane: Lane) -> AckKind {
    match lane {
        Lane::PubRec => AckKind::PubRec,
        Lane::PubComp => AckKind::PubComp,
        _ => AckKind::PubAck,
    }
}

/// The topic of a PUBLISH, its Topic Alias set or looked up. `None`: the alias stands for nothing.
fn topic_of<'a>(
    connections: &'a mut Connections,
    memory: &mut Memory,
    id: ConnectionId,
    publish: &sol_codec::Publish<'a>,
) -> Option<(&'a str, &'a Connections)> {
    match (publish.topic.map(TopicName::as_str), publish.properties.topic_alias) {
        (Some(topic), None) => Some((topic, connections)),
        (Some(topic), Some(alias)) => {
            if let Some(connection) = connections.get_mut(id) {
                connection.set_alias_in(alias, topic, memory);
            }
            Some((topic, connections))
        }
        (None, alias) => {
            let connections = &*connections;
            Some((connections.get(id)?.alias_in(alias?)?, connections))
        }
    }
}

/// Whether a client was found to have the right to publish to its latest topic, and this is it.
fn is_known(connections: &Connections, id: ConnectionId, topic: &str, rights: &Rights) -> bool {
    let last = connections
        .get(id)
        .and_then(|connection| connection.last_route.as_deref());
    last.is_some_and(|last| last.is_allowed(topic, rights.number()))
}

/// A client has the right to publish to this topic.
fn note_allowed(connections: &Connections, id: ConnectionId, topic: &str, rights: &Rights) {
    let last = connections
        .get(id)
        .and_then(|connection| connection.last_route.as_deref());
    if let Some(last) = last {
        last.allow(topic, rights.mark());
    }
}
