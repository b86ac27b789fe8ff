//! DISCONNECT (section 3.14), and every other end of a Network Connection; then, perhaps, the end of its Session.

use alloc::{boxed::Box, rc::Rc, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{
    ApplicationProperties, DecodeError, DecodeErrorKind, Disconnect, PacketType, ProtocolVersion, ReasonCode,
};

use crate::clients::Reason;
use crate::connection::{Connection, State, name_before_session};
use crate::effects::{Close, ConnAckData, Effects, Outgoing};
use crate::engine::Engine;
use crate::event::{Cause, Event};
use crate::ids::{ConnectionId, SessionKey};
use crate::input::{Flow, OwnedWill};
use crate::journal::Transaction;
use crate::memory::{REFERENCE_BYTES, SESSION_BYTES};
use crate::message::{Message, Origin};
use crate::rare::Rare;
use crate::record::RecordId;
use crate::rights::authors::Author;
use crate::rights::{Action, may};
use crate::route::{Publish, Source};
use crate::session::Session;
use crate::time::{Now, UnixMillis, after};
use crate::violation::Violation;

impl Engine {
    pub(crate) fn on_disconnect(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: SessionKey,
        disconnect: &Disconnect<'_>,
        effects: &mut Effects,
    ) -> Flow {
        let state = self.clients.connections.get(id).map(|connection| &connection.state);
        let was_cut = matches!(state, Some(State::Active(_, terms)) if terms.expiry_was_cut);
        if let Some(interval) = disconnect.properties.session_expiry_interval
            && let Some(session) = self.clients.sessions.get_mut(key)
        {
            if session.expiry_interval == 0 && interval > 0 && !was_cut {
                self.violate(now, id, Violation::ExpiryInDisconnect, effects);
                return Flow::Stop;
            }
            session.expiry_interval = interval.min(self.clients.config.session_expiry_max);
        }
        self.end_connection(now, id, Cause::Client(disconnect.reason_code), effects);
        Flow::Stop
    }

    pub(crate) fn on_closed(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        self.end_connection(now, id, Cause::Lost, effects);
    }

    /// Ends a connection, whatever state it is in. Ending one that is gone already does nothing.
    pub(crate) fn end_connection(&mut self, now: Now, id: ConnectionId, cause: Cause, effects: &mut Effects) {
        let Some(connection) = self.clients.connections.get(id) else {
            return;
        };
        let session = connection.session();
        let active = matches!(connection.state, State::Active(..));
        self.say_goodbye(id, &cause, effects);
        let Some(mut connection) = self.clients.connections.remove(id) else {
            return;
        };
        if let Some(parked) = &connection.parked {
            self.parking.remove(&parked.n);
            self.parking_for_room.remove(&parked.n);
        }
        self.clients.drop_connection_parts(&mut connection, effects);
        if connection.paused {
            self.forget_paused(id);
        }
        if !matches!(cause, Cause::Lost) {
            effects.closes.push(Close {
                connection: id,
                flush: !matches!(cause, Cause::Slow | Cause::KeepAlive),
            });
        }
        let client_id = match session.and_then(|key| self.clients.sessions.get(key)) {
            Some(session) => session.client_id.clone(),
            None => name_before_session(&connection.state).into_boxed_str(),
        };
        let stats = &mut self.clients.stats;
        stats.clients_connected -= u64::from(active);
        stats.slow_closed += u64::from(cause == Cause::Slow);
        stats.parked_closed += u64::from(matches!(cause, Cause::Parked | Cause::Unwritten));
        stats.paused_closed += u64::from(cause == Cause::Paused);
        stats.keep_alive_closed += u64::from(cause == Cause::KeepAlive);
        stats.login_expired_closed += u64::from(cause == Cause::LoginExpired);
        let clean = matches!(cause, Cause::Client(ReasonCode::Success));
        effects.events.push(Event::Disconnected {
            connection: id,
            client_id,
            cause,
        });
        if let Some(key) = session {
            if active {
                self.count_online(key, false);
            }
            self.leave_session(now, key, clean, effects);
        }
    }

    /// Tells the peer why its connection ends, where there is a packet for it [MQTT-3.14.0-1].
    fn say_goodbye(&mut self, id: ConnectionId, cause: &Cause, effects: &mut Effects) {
        let Some(connection) = self.clients.connections.get(id) else {
            return;
        };
        let v5 = connection.version == ProtocolVersion::V5;
        match (&connection.state, cause) {
            (State::ExpectConnect | State::ExpectNamed(_), Cause::Malformed(error)) => {
                if let Some(version) = version_of_refusal(error) {
                    let connack = ConnAckData::new(version, connack_reason(error.reason_code()));
                    self.clients.send(id, Outgoing::ConnAck(Box::new(connack)), 8, effects);
                }
            }
            (State::ExpectConnect, Cause::Violation(_) | Cause::Shutdown) if mutant("5.0/3.14.0-1") => {
                self.clients
                    .send(id, Outgoing::Disconnect(ReasonCode::ProtocolError), 4, effects);
            }
            (State::ExpectAuthentication(connect), Cause::Malformed(error)) if connect.expects_auth() => {
                // DISCONNECT must not come before CONNACK [MQTT-3.14.0-1].
                let connack = ConnAckData::new(connect.version, connack_reason(error.reason_code()));
                self.clients.send(id, Outgoing::ConnAck(Box::new(connack)), 8, effects);
            }
            (State::Active(..), _) if v5 => {
                let reason = match cause {
                    Cause::Malformed(error) => error.reason_code(),
                    Cause::Violation(violation) => violation.reason_code(),
                    Cause::KeepAlive => ReasonCode::KeepAliveTimeout,
                    Cause::TakenOver if mutant("5.0/3.1.4-3") => return,
                    Cause::TakenOver => ReasonCode::SessionTakenOver,
                    Cause::Revoked | Cause::LoginExpired => ReasonCode::NotAuthorized,
                    Cause::Shutdown => ReasonCode::ServerShuttingDown,
                    Cause::Fault => ReasonCode::ImplementationSpecificError,
                    Cause::Parked | Cause::Unwritten => ReasonCode::QuotaExceeded,
                    Cause::Paused => ReasonCode::ServerBusy,
                    Cause::Reauthentication(reason) => disconnect_reason(*reason),
                    Cause::Client(_) | Cause::Lost | Cause::Slow => return,
                };
                self.clients.send(id, Outgoing::Disconnect(reason), 4, effects);
            }
            _ => {}
        }
    }

    /// A Session has lost its connection. `clean`: by DISCONNECT 0x00, which drops the Will [MQTT-3.14.4-3].
    fn leave_session(&mut self, now: Now, key: SessionKey, clean: bool, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        session.connection = None;
        let listener = session.standing.get().listener();
        if let Some(sender) = &mut session.sender {
            sender.rewind();
        }
        if let Some(acks) = &mut session.acks {
            acks.mute();
        }
        session.inbound.leave();
        self.clients.count_left(listener);
        self.clients.count_user(key, false);
        if clean && !mutant("5.0/3.14.4-3") {
            self.clients.set_will(key, None);
        }
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let expiry = session.expiry_interval;
        let delay = session.will.as_ref().map(|will| will.delay.min(expiry));
        if delay == Some(0) {
            self.fire_will(now, key, effects);
        }
        if expiry == 0 {
            return self.end_session(now, key, effects);
        }
        let reference = self.clients.sessions.reference(key);
        if let Some(delay) = delay.filter(|&delay| delay > 0) {
            let timer = self
                .clients
                .timers
                .insert(after(now, delay), Reason::WillDelay(reference));
            self.clients.away_timers(key, |timers| timers.will = Some(timer));
        }
        if expiry != u32::MAX {
            let lasts = if mutant("5.0/4.1.0-2") { u32::MAX } else { expiry };
            let timer = self
                .clients
                .timers
                .insert(after(now, lasts), Reason::SessionExpiry(reference));
            self.clients.away_timers(key, |timers| timers.expiry = Some(timer));
        }
        self.clients.write_session(now, key, effects);
        self.give_back_shared(now, key, false, effects);
    }

    /// Publishes a Session's Will and forgets it [MQTT-3.1.2-8, -10].
    pub(crate) fn fire_will(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let Some(will) = self.clients.set_will(key, None) else {
            return;
        };
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let origin = session.origin;
        if !may(&mut self.clients.rights, session, Action::Will, &will.topic) {
            return self.refuse_will(key, &will.topic, effects);
        }
        let message = self.will_message(now, &will, origin, effects);
        let author = if will.retain { self.author(key) } else { None };
        let before = self.line.len();
        let transaction = self.clients.journal.begin();
        self.clients.journal.enter(transaction, false, effects);
        // Without the Will, or it would be published again after a crash.
        self.clients.write_session(now, key, effects);
        self.publish_own(now, message, author, transaction, effects);
        if self.line.len() > before {
            self.clients.note_rare(Rare::WillInLine);
        }
    }

    fn will_message(&mut self, now: Now, will: &OwnedWill, origin: Origin, effects: &mut Effects) -> Rc<Message> {
        let mut message = effects.spare_message();
        if let Some(alone) = Rc::get_mut(&mut message) {
            alone.reset();
            alone.fill(
                &will.topic,
                ApplicationProperties::from_stored(&will.properties),
                &will.payload,
            );
            alone.qos = will.qos;
            alone.retain = will.retain || mutant("5.0/3.1.2-14");
            alone.origin = origin;
            alone.expires_at = will
                .message_expiry_interval
                .map_or(UnixMillis::NEVER, |seconds| now.wall.plus_seconds(seconds));
            if self.clients.is_kept(alone) {
                self.clients.charge_message(alone);
            }
        }
        message
    }

    /// Publishes a message that no client waits for, and leaves the transaction that was entered for it, which is not for the
    /// caller to do: the place in line enters it again, and only here it is known whether this was its last part.
    pub(crate) fn publish_own(
        &mut self,
        now: Now,
        message: Rc<Message>,
        author: Option<Box<Author>>,
        transaction: Option<Transaction>,
        effects: &mut Effects,
    ) {
        let publish = Publish {
            message,
            source: Source::Broker,
            transaction,
        };
        if self.line.is_busy() {
            self.clients.journal.leave(false, effects);
            self.wait_in_line_or_drop(publish, author, effects);
        } else {
            let outcome = self.route_of(author, |engine| engine.route(now, publish, effects));
            self.clients.journal.leave(!outcome.cut, effects);
        }
    }

    /// The Session ends: its Will is due, its Subscriptions and messages go (section 4.1).
    pub(crate) fn end_session(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        self.clients.cancel_away_timers(key);
        self.fire_will(now, key, effects);
        self.give_back_shared(now, key, true, effects);
        self.drop_subscriptions(key, effects);
        let Some(session) = self.clients.sessions.remove(key) else {
            return;
        };
        self.clients
            .memory
            .refund(SESSION_BYTES + session.client_id.len() + session.user_charge());
        if self
            .clients
            .rights
            .change_own_rules(session.own_rules().is_some(), false)
        {
            self.start_marking();
        }
        self.forget_session(session, effects);
    }

    fn forget_session(&mut self, mut session: Session, effects: &mut Effects) {
        if let Some(sender) = session.sender.take() {
            for owed in sender.into_owed() {
                self.clients.forget(owed, effects);
            }
        }
        for record in session.inbound.take() {
            self.clients.journal.delete(record, effects);
            self.clients.memory.refund(REFERENCE_BYTES);
        }
        if let Some(replays) = session.replays.take() {
            for message in replays.into_messages() {
                self.clients.let_go(message, effects);
            }
        }
        if session.record != RecordId(0) {
            self.clients.journal.delete(session.record, effects);
        }
    }

    /// Messages of Shared Subscriptions that this Session holds go to other members. While it may come back, only if
    /// there is another member to take them.
    fn give_back_shared(&mut self, now: Now, key: SessionKey, ends: bool, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        if !session.sender.as_ref().is_some_and(|sender| sender.has_shared()) {
            return;
        }
        // None of them is ever owed to nobody, nor to two.
        let transaction = self.clients.journal.begin();
        self.clients.journal.enter(transaction, false, effects);
        // So that the end of the Session, which comes next, is not kept before.
        self.clients.write_session(now, key, effects);
        self.hand_on_shared(now, key, ends, effects);
        self.clients.journal.leave(true, effects);
    }

    fn hand_on_shared(&mut self, now: Now, key: SessionKey, ends: bool, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let groups = session
            .subscriptions
            .as_ref()
            .map(|subscriptions| subscriptions.groups.clone())
            .unwrap_or_default();
        if !ends {
            let shared_by_others: Vec<_> = groups.into_iter().filter(|&g| self.has_member_online(g)).collect();
            if !shared_by_others.is_empty() {
                self.lend(now, key, &shared_by_others, effects);
            }
            return;
        }
        for group in groups {
            self.leave_group(key, group, effects);
        }
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let owed = session.sender_mut().take_shared();
        self.give_back(now, owed, effects);
    }
}

impl crate::clients::Clients {
    /// What hangs on a connection and must not outlive it.
    fn drop_connection_parts(&mut self, connection: &mut Connection, effects: &mut Effects) {
        for timer in [connection.timer.take(), connection.congested_timer.take()]
            .into_iter()
            .flatten()
        {
            self.timers.cancel(timer);
        }
        if let Some((_, timer)) = connection.id.and_then(|id| self.expiring.remove(&id)) {
            self.timers.cancel(timer);
        }
        if let Some(enhanced) = connection.id.and_then(|id| self.enhanced.remove(&id)) {
            self.memory.refund(enhanced.noted_bytes());
        }
        if let Some(aliases) = connection.aliases.take() {
            self.memory.refund(aliases.bytes);
        }
        if let Some(parked) = connection.parked.take() {
            self.timers.cancel(parked.timer);
            for (message, _) in parked.waiting {
                self.let_go(message, effects);
            }
        }
    }
}

/// In which version a CONNECT that could not be read is answered; `None`: not at all.
fn version_of_refusal(error: &DecodeError) -> Option<ProtocolVersion> {
    match error.kind {
        // [MQTT-3.1.2-2]; a peer below 5 expects the return code of 3.1.1.
        DecodeErrorKind::UnsupportedProtocolVersion { level: 5.. } => Some(ProtocolVersion::V5),
        DecodeErrorKind::UnsupportedProtocolVersion { .. } => Some(ProtocolVersion::V311),
        // No return code of 3.x says "malformed" (3.1.1, [MQTT-3.1.4-1], [MQTT-3.2.2-6]).
        _ => error.connect_version.filter(|version| *version == ProtocolVersion::V5),
    }
}

/// Reason Codes that CONNACK does not have are a Protocol Error to it [MQTT-3.2.2-8].
fn connack_reason(reason: ReasonCode) -> ReasonCode {
    if reason.is_allowed_on(PacketType::ConnAck) {
        reason
    } else {
        ReasonCode::ProtocolError
    }
}

/// Reason Codes of a CONNACK that DISCONNECT does not have are one to it: no right to be here [MQTT-3.14.2-1].
fn disconnect_reason(reason: ReasonCode) -> ReasonCode {
    if reason.is_allowed_on(PacketType::Disconnect) {
        reason
    } else {
        ReasonCode::NotAuthorized
    }
}
