//! Sessions and connections, and everything that is needed to hand a message to one: windows, queues, limits, aliases.
//! This knows nothing of routing; the [`crate::Engine`] decides who gets what.

use alloc::{boxed::Box, rc::Rc, vec::Vec};

use ahash::RandomState;
use sol_codec::{PacketId, ProtocolVersion, QoS, ReasonCode, SubscriptionId};

use crate::config::{EngineConfig, QueueFull};
use crate::connection::{Connection, Connections, State};
use crate::effects::{AckKind, Delivery, Effects, Outgoing, Transmit};
use crate::event::{Cause, Event};
use crate::ids::{ConnectionId, SessionKey, ShardId};
use crate::journal::{Gate, Journal};
use crate::memory::{Memory, REFERENCE_BYTES};
use crate::message::Message;
use crate::record::{Record, RecordId, Reference, ReferenceState, SessionRecord};
use crate::rights::{Action, may};
use crate::session::sender::{Extra, Owed, SenderFlow};
use crate::session::sessions::{SessionRef, Sessions};
use crate::stats::Stats;
use crate::subscription::Options;
use crate::time::{Instant, Now, UnixMillis};
use crate::timer_wheel::TimerWheel;

/// Why a deadline was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// One and a half Keep Alives may have passed in silence.
    KeepAlive(ConnectionId),
    /// A connection has been congested for too long.
    Congested(ConnectionId),
    /// A Will's delay is over.
    WillDelay(SessionRef),
    /// A Session's expiry.
    SessionExpiry(SessionRef),
    /// Look for retained messages that have expired.
    SweepRetained,
}

/// Sessions, connections, and what they share.
pub(crate) struct Clients {
    pub(crate) config: Rc<EngineConfig>,
    pub(crate) sessions: Sessions,
    pub(crate) connections: Connections,
    pub(crate) timers: TimerWheel<Reason>,
    pub(crate) stats: Stats,
    pub(crate) memory: Memory,
    pub(crate) journal: Journal,
    /// Connections that must end once the present input is done.
    pub(crate) doomed: Vec<(ConnectionId, Cause)>,
    /// Number of the present flush.
    pub(crate) epoch: u32,
    /// Sessions with more to send than one turn may take.
    pub(crate) after_flush: Vec<SessionRef>,
}

/// How one Session receives one message.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) options: Options,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) extra: Option<Rc<Extra>>,
    /// The publisher is told if a queue is full.
    pub(crate) may_refuse: bool,
    /// The right that this delivery needs.
    pub(crate) action: Action,
}

/// What became of a message at one Session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Sent or kept.
    Taken,
    /// Not owed, or dropped and counted.
    Dropped,
    /// The queue is full and the publisher wants to know.
    Refused,
}

impl Clients {
    pub(crate) fn new(config: Rc<EngineConfig>, shard: ShardId, hasher: RandomState) -> Self {
        Self {
            sessions: Sessions::new(hasher),
            connections: Connections::default(),
            timers: TimerWheel::new(Instant::from_nanos(0)),
            stats: Stats::default(),
            memory: Memory::new(config.memory_bytes_max),
            journal: Journal::new(config.journal, shard),
            doomed: Vec::new(),
            epoch: 1,
            after_flush: Vec::new(),
            config,
        }
    }

    /// Hands a message to a Session: into its window, its queue, or nowhere.
    pub(crate) fn deliver(
        &mut self,
        now: Now,
        key: SessionKey,
        message: &Rc<Message>,
        how: &How,
        effects: &mut Effects,
    ) -> Delivered {
        let Some(session) = self.sessions.get_mut(key) else {
            return Delivered::Dropped;
        };
        if !may(session, how.action, message.topic()) {
            return Delivered::Dropped;
        }
        let mut holds = false;
        if let Some(replays) = &mut session.replays {
            if message.retain {
                replays.saw(message.topic().as_bytes(), self.config.replay_seen_max);
            }
            holds = replays.holds_live;
        }
        let qos = message.qos.min(how.options.qos());
        let retain = message.retain && how.options.retain_as_published();
        if qos == QoS::AtMostOnce && !holds {
            if let Some(connection) = session.connection {
                return self.send_qos0(now, connection, message, how, retain, effects);
            }
            if !self.config.queue_qos0 {
                return Delivered::Dropped;
            }
        }
        let owed = Owed {
            message: Some(Rc::clone(message)),
            extra: how.extra.clone(),
            record: RecordId(0),
            subscription_id: how.subscription_id,
            qos,
            retain,
            flow: SenderFlow::Queued,
            dup: false,
        };
        self.owe(now, key, owed, holds, how.may_refuse, effects)
    }

    #[inline]
    fn send_qos0(
        &mut self,
        now: Now,
        connection: ConnectionId,
        message: &Rc<Message>,
        how: &How,
        retain: bool,
        effects: &mut Effects,
    ) -> Delivered {
        let Some(state) = self.connections.get(connection) else {
            return Delivered::Dropped;
        };
        if !matches!(state.state, State::Active(_)) || state.is_clogged(self.config.unsent_bytes_high) {
            self.stats.publish_dropped += 1;
            return Delivered::Dropped;
        }
        let mut delivery = Delivery::new(Rc::clone(message), QoS::AtMostOnce, retain);
        delivery.subscription_id = how.subscription_id;
        delivery.more_subscription_ids = how.extra.as_ref().and_then(|extra| extra.subscription_ids.clone());
        if self.send_publish(now, connection, delivery, effects) {
            Delivered::Taken
        } else {
            Delivered::Dropped
        }
    }

    /// A QoS 1 or 2 message: sent at once if nothing is before it and the client's window has room, else queued.
    fn owe(
        &mut self,
        now: Now,
        key: SessionKey,
        mut owed: Owed,
        holds: bool,
        may_refuse: bool,
        effects: &mut Effects,
    ) -> Delivered {
        let Some(session) = self.sessions.get_mut(key) else {
            return Delivered::Dropped;
        };
        if !holds
            && let Some(id) = session.connection
            && let Some(connection) = self.connections.get(id)
            && matches!(connection.state, State::Active(_))
            && !connection.is_clogged(self.config.unsent_bytes_high)
        {
            let quota = connection.quota;
            let sender = session.sender.get_or_insert_default();
            if sender.queue.is_empty() && sender.has_room(quota) {
                self.begin(now, key, owed, effects);
                return Delivered::Taken;
            }
        }
        if let Some(verdict) = self.make_room(key, &owed, may_refuse, effects) {
            return verdict;
        }
        self.keep(key, &mut owed, effects);
        if let Some(session) = self.sessions.get_mut(key) {
            let sender = session.sender.get_or_insert_default();
            sender.queue_bytes += owed.charge();
            sender.queue.push_back(owed);
            self.memory.charge(REFERENCE_BYTES);
            self.stats.stored_messages += 1;
        }
        Delivered::Taken
    }

    /// Applies the queue's limits. `None`: there is room.
    fn make_room(
        &mut self,
        key: SessionKey,
        owed: &Owed,
        may_refuse: bool,
        effects: &mut Effects,
    ) -> Option<Delivered> {
        let full = self.memory.is_full();
        let (queue_max, bytes_max, policy) = (
            self.config.queue_max,
            self.config.queue_bytes_max,
            self.config.queue_full,
        );
        let sender = self.sessions.get_mut(key)?.sender_mut();
        let over = |queued: usize, bytes: usize| queued >= queue_max || bytes + owed.charge() > bytes_max;
        if !full && !over(sender.queue.len(), sender.queue_bytes) {
            return None;
        }
        if policy == QueueFull::DropOldest && !full {
            while let Some(sender) = self
                .sessions
                .get_mut(key)
                .and_then(|session| session.sender.as_deref_mut())
                && over(sender.queue.len(), sender.queue_bytes)
                && let Some(oldest) = self.pop_queue(key)
            {
                self.count_drop(key, effects);
                self.forget(oldest, effects);
            }
            return None;
        }
        if policy == QueueFull::Refuse && may_refuse {
            return Some(Delivered::Refused);
        }
        self.count_drop(key, effects);
        Some(Delivered::Dropped)
    }

    /// Counts a message that a Session did not get, and tells it at the first and at doubling counts.
    pub(crate) fn count_drop(&mut self, key: SessionKey, effects: &mut Effects) {
        self.stats.publish_dropped += 1;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let sender = session.sender.get_or_insert_default();
        sender.dropped += 1;
        if sender.dropped.is_power_of_two() {
            effects.events.push(Event::Dropped {
                client_id: (&*session.client_id).into(),
                count: sender.dropped,
            });
        }
    }

    /// Writes the reference of a message owed to a durable Session, and the body before the first of them.
    fn keep(&mut self, key: SessionKey, owed: &mut Owed, effects: &mut Effects) {
        if !self.journal.is_on() || owed.record != RecordId(0) || owed.qos == QoS::AtMostOnce {
            return;
        }
        if self.sessions.get(key).is_some_and(|session| session.is_durable()) {
            owed.record = self.journal.next_id();
            self.write_reference(key, owed, None, effects);
        }
    }

    /// Puts the reference of an owed message as it stands now.
    fn write_reference(&mut self, key: SessionKey, owed: &Owed, packet_id: Option<PacketId>, effects: &mut Effects) {
        let Some(session) = self.sessions.get(key) else { return };
        let state = match (owed.flow, packet_id) {
            (SenderFlow::ExpectPubcomp | SenderFlow::ExpectDurableRelease, Some(id)) => ReferenceState::Released(id),
            (SenderFlow::Queued, _) | (_, None) => ReferenceState::Queued,
            (_, Some(id)) => ReferenceState::Sent(id),
        };
        if let Some(message) = &owed.message {
            self.journal.body(message, effects);
        }
        let more = owed.extra.as_ref().and_then(|extra| extra.subscription_ids.as_ref());
        let reference = Reference {
            session: session.record,
            body: owed.message.as_ref().map(|message| RecordId(message.body)),
            qos: owed.qos,
            retain: owed.retain,
            subscription_ids: owed
                .subscription_id
                .into_iter()
                .chain(more.into_iter().flat_map(|m| m.iter().copied()))
                .collect(),
            state,
        };
        self.journal.emit(Record::Reference(owed.record, reference), effects);
    }

    /// Sends a QoS 1 or 2 message for the first time; the window has room.
    pub(crate) fn begin(&mut self, now: Now, key: SessionKey, mut owed: Owed, effects: &mut Effects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (Some(id), durable) = (session.connection, session.is_durable() && self.journal.is_on()) else {
            return;
        };
        let two = owed.qos == QoS::ExactlyOnce;
        owed.flow = match (two, durable) {
            (true, true) => SenderFlow::ExpectDurable,
            (true, false) => SenderFlow::ExpectPubrec,
            (false, _) => SenderFlow::ExpectPuback,
        };
        let held = owed.flow == SenderFlow::ExpectDurable;
        if durable && owed.record == RecordId(0) {
            owed.record = self.journal.next_id();
        }
        let delivery = if held { None } else { owed.delivery(None) };
        let written = durable.then(|| owed.clone());
        let packet_id = session.sender_mut().begin(owed);
        self.memory.charge(REFERENCE_BYTES);
        self.stats.stored_messages += 1;
        if let Some(written) = written {
            self.write_reference(key, &written, Some(packet_id), effects);
        }
        if held {
            self.journal.hold(Gate::Send(self.sessions.reference(key), packet_id));
        }
        if let Some(mut delivery) = delivery {
            delivery.packet_id = Some(packet_id);
            if !self.send_publish(now, id, delivery, effects) {
                self.finish(key, packet_id, effects);
            }
        }
    }

    /// Sends what a gate held: a QoS 2 PUBLISH or a PUBREL whose record is durable now.
    pub(crate) fn send_held(&mut self, now: Now, held: SessionRef, packet_id: PacketId, effects: &mut Effects) {
        let Some(key) = self.sessions.resolve(held) else { return };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        // A connection whose CONNACK has not left takes it up when it becomes active.
        let connection = session.connection.filter(|&id| self.connections.is_active(id));
        let Some(owed) = session.sender.as_mut().and_then(|sender| sender.get_mut(packet_id)) else {
            return;
        };
        match owed.flow {
            SenderFlow::ExpectDurable => {
                owed.flow = SenderFlow::ExpectPubrec;
                let delivery = owed.delivery(Some(packet_id));
                if let (Some(id), Some(delivery)) = (connection, delivery)
                    && !self.send_publish(now, id, delivery, effects)
                {
                    self.finish(key, packet_id, effects);
                }
            }
            SenderFlow::ExpectDurableRelease => {
                owed.flow = SenderFlow::ExpectPubcomp;
                if let Some(id) = connection {
                    self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
                }
            }
            _ => {}
        }
    }

    /// Ends an exchange and lets go of what it held. Returns whether there was one.
    pub(crate) fn finish(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) -> bool {
        let Some(sender) = self
            .sessions
            .get_mut(key)
            .and_then(|session| session.sender.as_deref_mut())
        else {
            return false;
        };
        let Some(owed) = sender.finish(packet_id) else {
            return false;
        };
        self.forget(owed, effects);
        true
    }

    /// PUBREC came: the message itself is no longer owed, its PUBREL is. `false` if no PUBLISH was under way.
    pub(crate) fn release(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) -> bool {
        let durable_on = self.journal.is_on();
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let (connection, durable) = (session.connection, durable_on && session.is_durable());
        let Some(owed) = session.sender.as_mut().and_then(|sender| sender.get_mut(packet_id)) else {
            return false;
        };
        match owed.flow {
            SenderFlow::ExpectPubrec => {}
            // A repeated PUBREC: the same PUBREL again.
            SenderFlow::ExpectPubcomp => {
                if let Some(id) = connection {
                    self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
                }
                return true;
            }
            SenderFlow::ExpectDurableRelease => return true,
            _ => return false,
        }
        let message = owed.message.take();
        owed.flow = if durable {
            SenderFlow::ExpectDurableRelease
        } else {
            SenderFlow::ExpectPubcomp
        };
        let written = durable.then(|| owed.clone());
        if let Some(message) = message {
            self.let_go(message, effects);
        }
        if let Some(written) = written {
            self.write_reference(key, &written, Some(packet_id), effects);
            self.journal.hold(Gate::Send(self.sessions.reference(key), packet_id));
        } else if let Some(id) = connection {
            self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
        }
        true
    }

    /// Sends all that a Session is owed and may have now: first what was begun on an earlier connection, then its queue.
    pub(crate) fn pump(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        while let Some((id, quota)) = self.sendable(key) {
            let Some(session) = self.sessions.get_mut(key) else {
                return;
            };
            let holds = session.replays.as_ref().is_some_and(|replays| replays.holds_live);
            let Some(sender) = session.sender.as_deref_mut() else {
                return;
            };
            if let Some((packet_id, owed)) = sender.next_resend(quota) {
                let (flow, delivery) = (owed.flow, owed.delivery(Some(packet_id)));
                self.send_again(now, key, id, packet_id, flow, delivery, effects);
                continue;
            }
            let room = sender.has_room(quota);
            let Some(next) = sender.queue.front() else { return };
            if holds || !(room || next.qos == QoS::AtMostOnce) {
                return;
            }
            let Some(owed) = self.pop_queue(key) else { return };
            self.send_queued(now, key, id, owed, effects);
        }
        self.go_on_after_flush(key);
    }

    /// Takes up an exchange of an earlier connection where it stood [MQTT-4.4.0-1].
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of one entry of the window, already taken apart"
    )]
    fn send_again(
        &mut self,
        now: Now,
        key: SessionKey,
        id: ConnectionId,
        packet_id: PacketId,
        flow: SenderFlow,
        delivery: Option<Delivery>,
        effects: &mut Effects,
    ) {
        if flow == SenderFlow::ExpectPubcomp {
            return self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
        }
        // What still waits for the journal is sent by its gate.
        let sendable = matches!(flow, SenderFlow::ExpectPuback | SenderFlow::ExpectPubrec);
        if let Some(delivery) = delivery.filter(|_| sendable)
            && !self.send_publish(now, id, delivery, effects)
        {
            self.finish(key, packet_id, effects);
        }
    }

    fn send_queued(&mut self, now: Now, key: SessionKey, id: ConnectionId, owed: Owed, effects: &mut Effects) {
        let Some(message) = owed.message.clone() else { return };
        let expired = message.is_expired(now);
        let allowed = self
            .sessions
            .get(key)
            .is_some_and(|session| may(session, Action::Replay, message.topic()));
        if expired || !allowed {
            self.stats.publish_expired += u64::from(expired);
            drop(message);
            return self.forget(owed, effects);
        }
        drop(message);
        if owed.qos == QoS::AtMostOnce {
            if let Some(delivery) = owed.delivery(None) {
                self.send_publish(now, id, delivery, effects);
            }
            self.forget(owed, effects);
        } else {
            // It moves from the queue to the window; `begin` charges it anew.
            self.memory.refund(REFERENCE_BYTES);
            self.stats.stored_messages -= 1;
            self.begin(now, key, owed, effects);
        }
    }

    /// The connection and quota of a Session that can be sent to at the moment.
    pub(crate) fn sendable(&self, key: SessionKey) -> Option<(ConnectionId, u16)> {
        let id = self.sessions.get(key)?.connection?;
        let connection = self.connections.get(id)?;
        let ready =
            matches!(connection.state, State::Active(_)) && !connection.is_clogged(self.config.unsent_bytes_high);
        // What is not flushed yet is bounded too, so that one Session's replay cannot fill the tray.
        (ready && self.has_unsent_room(connection)).then_some((id, connection.quota))
    }

    fn has_unsent_room(&self, connection: &Connection) -> bool {
        connection.unsent(self.epoch) < self.config.unsent_bytes_max / 2
    }

    /// A Session that could be sent to, but for what this turn has already put into its connection: it goes on after
    /// the flush.
    pub(crate) fn go_on_after_flush(&mut self, key: SessionKey) {
        let connection = self.sessions.get(key).and_then(|session| session.connection);
        let full = connection
            .and_then(|id| self.connections.get(id))
            .is_some_and(|connection| !connection.congested && !self.has_unsent_room(connection));
        let session = self.sessions.reference(key);
        if full && !self.after_flush.contains(&session) {
            self.after_flush.push(session);
        }
    }

    /// Takes the oldest message off a queue.
    pub(crate) fn pop_queue(&mut self, key: SessionKey) -> Option<Owed> {
        let sender = self.sessions.get_mut(key)?.sender.as_deref_mut()?;
        let owed = sender.queue.pop_front()?;
        sender.queue_bytes -= owed.charge();
        Some(owed)
    }

    /// An owed message is settled or dropped: its reference goes, and its charge with it.
    pub(crate) fn forget(&mut self, owed: Owed, effects: &mut Effects) {
        self.memory.refund(REFERENCE_BYTES);
        self.stats.stored_messages -= 1;
        self.journal.delete(owed.record, effects);
        if let Some(message) = owed.message {
            self.let_go(message, effects);
        }
    }

    /// Charges a message that will be kept or acknowledged; [`Clients::let_go`] refunds it.
    pub(crate) fn charge_message(&mut self, message: &mut Message) {
        message.charged = u32::try_from(message.charge()).unwrap_or(u32::MAX);
        self.memory.charge(message.charged as usize);
        if self.journal.is_on() && message.body == 0 {
            message.body = self.journal.next_id().0;
        }
    }

    /// Gives up one hold of a message; the last one refunds its charge and may recycle its buffer.
    pub(crate) fn let_go(&mut self, message: Rc<Message>, effects: &mut Effects) {
        self.memory.refund(effects.recycle(message));
    }

    /// Sends a PUBLISH. `false`: it is larger than the client's Maximum Packet Size, and done with [MQTT-3.1.2-25].
    pub(crate) fn send_publish(
        &mut self,
        now: Now,
        id: ConnectionId,
        mut delivery: Delivery,
        effects: &mut Effects,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return true;
        };
        if connection.version == ProtocolVersion::V5 {
            delivery.set_message_expiry_interval(delivery.message.expiry_left(now));
            (delivery.topic_alias, delivery.alias_only) = connection.alias_out(delivery.message.topic().as_bytes());
        }
        let bytes = delivery.bytes_max();
        if bytes > connection.maximum_packet_size
            && delivery.encoded_len(connection.version) > connection.maximum_packet_size as usize
        {
            if !delivery.alias_only {
                // The client will not see the packet that was to tell it.
                connection.forget_alias_out(delivery.message.topic().as_bytes());
            }
            self.stats.publish_oversized += 1;
            return false;
        }
        self.stats.publish_sent += 1;
        self.stats.publish_bytes_sent += delivery.message.payload().len() as u64;
        let unsent = connection.add_unsent(bytes, self.epoch);
        self.push(id, unsent, Outgoing::Publish(delivery), effects);
        true
    }

    /// Sends one of the four acknowledgements.
    #[inline]
    pub(crate) fn send_ack(
        &mut self,
        id: ConnectionId,
        kind: AckKind,
        packet_id: PacketId,
        reason_code: ReasonCode,
        effects: &mut Effects,
    ) {
        self.send(
            id,
            Outgoing::Ack {
                kind,
                packet_id,
                reason_code,
            },
            5,
            effects,
        );
    }

    /// Sends any packet; `bytes` is about its length.
    pub(crate) fn send(&mut self, id: ConnectionId, packet: Outgoing, bytes: u32, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let unsent = connection.add_unsent(bytes, self.epoch);
        self.push(id, unsent, packet, effects);
    }

    #[inline]
    fn push(&mut self, id: ConnectionId, unsent: u32, packet: Outgoing, effects: &mut Effects) {
        self.stats.packets_sent += 1;
        effects.transmits.push(Transmit { connection: id, packet });
        if unsent > self.config.unsent_bytes_max && self.connections.get(id).is_some_and(|c| c.congested) {
            self.doom(id, Cause::Slow);
        }
    }

    /// Marks a connection to be ended when the present input is done.
    pub(crate) fn doom(&mut self, id: ConnectionId, cause: Cause) {
        if !self.doomed.iter().any(|(doomed, _)| *doomed == id) {
            self.doomed.push((id, cause));
        }
    }

    /// Writes a Session as it stands now. One that need not survive any more keeps its record until it ends: what was
    /// written while it was durable refers to it.
    pub(crate) fn write_session(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        self.write_session_away(key, now.wall, effects);
    }

    /// The same for a Session that has been away since an earlier moment.
    pub(crate) fn write_session_away(&mut self, key: SessionKey, since: UnixMillis, effects: &mut Effects) {
        if !self.journal.is_on() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.record == RecordId(0) {
            if !session.is_durable() && session.will.is_none() {
                return;
            }
            session.record = self.journal.next_id();
        }
        let record = SessionRecord {
            client_id: (&*session.client_id).into(),
            username: session.username.as_deref().map(Into::into),
            expiry_interval: session.expiry_interval,
            disconnected_at: session.connection.is_none().then_some(since),
            will: session.will.as_deref().cloned(),
        };
        self.journal
            .emit(Record::Session(session.record, Box::new(record)), effects);
    }
}
