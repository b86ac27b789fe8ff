//! CONNECT (section 3.1): who is it, may it, where does it live, and what is agreed.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::cell::Cell;
use core::fmt::Write as _;

use sol_codec::mutants::mutant;
use sol_codec::{Connect, Packet, ProtocolVersion, ReasonCode};

use crate::config::ListenerRules;
use crate::connection::{State, Terms};
use crate::effects::{Close, ConnAckData, Credentials, Effects, Move, Outgoing};
use crate::engine::Engine;
use crate::enhanced::Enhanced;
use crate::event::{Cause, Event};
use crate::handle::agree::{maximum_packet_size, owned_connect};
use crate::ids::{ConnectionId, ListenerId, SessionKey};
use crate::input::{Flow, Handover, OwnedConnect};
use crate::journal::Gate;
use crate::memory::SESSION_BYTES;
use crate::rare::Rare;
use crate::record::RecordId;
use crate::rights::Standing;
use crate::session::{Session, User};
use crate::tallies::Full;
use crate::time::Now;
use crate::violation::Violation;

impl Engine {
    pub(crate) fn on_opened(&mut self, now: Now, id: ConnectionId, listener: ListenerId) {
        self.clients.connections.open(id, listener, now.mono);
    }

    pub(crate) fn on_identified(&mut self, id: ConnectionId, username: String) {
        if let Some(connection) = self.clients.connections.get_mut(id)
            && let State::ExpectConnect = connection.state
        {
            connection.state = State::ExpectNamed(Box::new(username));
        }
    }

    /// The first packet must be CONNECT [MQTT-3.1.0-1].
    pub(crate) fn on_first_packet(
        &mut self,
        now: Now,
        id: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Effects,
    ) -> Flow {
        let Some(connection) = self.clients.connections.get(id) else {
            return Flow::Stop;
        };
        match (&connection.state, packet) {
            (State::ExpectConnect, Packet::Connect(connect)) => {
                let listener = connection.listener;
                self.on_connect(now, id, listener, connect, None, effects)
            }
            (State::ExpectNamed(name), Packet::Connect(connect)) => {
                let (listener, name) = (connection.listener, String::clone(name));
                self.on_connect(now, id, listener, connect, Some(name), effects)
            }
            (State::ExpectAuthentication(connect), _) if connect.expects_auth() => {
                self.on_packet_before_connack(now, id, packet, effects)
            }
            (State::ExpectConnect | State::ExpectNamed(_), _) => {
                self.violate(now, id, Violation::FirstPacketNotConnect, effects);
                Flow::Stop
            }
            // The caller decodes on although it was told to stop.
            _ => {
                effects
                    .events
                    .push(Event::Odd("a packet came while its connection was to wait"));
                Flow::Stop
            }
        }
    }

    fn on_connect(
        &mut self,
        now: Now,
        id: ConnectionId,
        listener: ListenerId,
        connect: &Connect<'_>,
        name: Option<String>,
        effects: &mut Effects,
    ) -> Flow {
        if let Some(connection) = self.clients.connections.get_mut(id) {
            // A refusal has to keep to it, too.
            connection.maximum_packet_size = maximum_packet_size(connect);
        }
        let rules = self.clients.config.listener(listener);
        let objection = self.objection(connect, listener, rules);
        if let Some(reason) = objection.or_else(|| objection_to_name(connect, rules, name.is_some())) {
            self.refuse(
                id,
                connect.version,
                connect.client_id,
                connect.username,
                reason,
                effects,
            );
            return Flow::Stop;
        }
        let mut owned = owned_connect(connect);
        owned.revocations = self.revocations;
        if owned.client_id.is_empty() {
            // Where users name clients, the name comes with the user.
            if !self
                .clients
                .config
                .terms(listener)
                .is_some_and(|terms| terms.username_is_client_id)
            {
                owned.client_id = self.assign_client_id(listener);
            }
            owned.assigned = true;
        }
        if let Some(name) = name {
            // What else its CONNECT shows for itself is not looked at.
            owned.username = Some(name);
            owned.vouched = true;
            return self.accept(now, id, listener, owned, effects);
        }
        self.log_in(now, id, listener, connect, owned, effects)
    }

    /// Finds out whether a client is who its CONNECT says.
    fn log_in(
        &mut self,
        now: Now,
        id: ConnectionId,
        listener: ListenerId,
        connect: &Connect<'_>,
        mut owned: OwnedConnect,
        effects: &mut Effects,
    ) -> Flow {
        let rules = self.clients.config.listener(listener);
        let method = connect.properties.authentication_method;
        // The switch has a method that nobody knows be as good as none.
        if let Some(method) =
            method.filter(|method| !mutant("5.0/4.12.0-1") || self.may_prove_by(method, listener, rules))
        {
            // The method proves who the client is: a Password beside it is not looked at.
            owned.enhanced = Some(Box::new(Enhanced::begin(method)));
            let credentials = Credentials::Exchange {
                method: String::from(method),
                memo: None,
                data: connect.properties.authentication_data.map(Vec::from),
            };
            return self.ask(id, listener, owned, credentials, effects);
        }
        let shows_something = connect.username.is_some() || connect.password.is_some() && self.asks_nameless(listener);
        match connect.username {
            username if rules.ask && shows_something => {
                let credentials = Credentials::Password {
                    username: username.map(String::from),
                    password: connect.password.map(Vec::from),
                };
                self.ask(id, listener, owned, credentials, effects)
            }
            _ if rules.allow_anonymous => self.accept(now, id, listener, owned, effects),
            _ => {
                let reason = ReasonCode::NotAuthorized;
                self.refuse(
                    id,
                    connect.version,
                    connect.client_id,
                    connect.username,
                    reason,
                    effects,
                );
                Flow::Stop
            }
        }
    }

    /// What speaks against a CONNECT before anybody is asked about its user.
    fn objection(&mut self, connect: &Connect<'_>, listener: ListenerId, rules: ListenerRules) -> Option<ReasonCode> {
        let config = &self.clients.config;
        let terms = config.terms(listener);
        if terms.is_some_and(|terms| terms.refused_versions.contains(&connect.version)) {
            return Some(ReasonCode::UnsupportedProtocolVersion);
        }
        if let Some(method) = connect.properties.authentication_method
            && !mutant("5.0/4.12.0-1")
            && !self.may_prove_by(method, listener, rules)
        {
            // [MQTT-4.12.0-1]
            return Some(ReasonCode::BadAuthenticationMethod);
        }
        let must_be_named = match connect.version {
            // It has one character at least (section 3.1 of MQTT 3.1).
            ProtocolVersion::V31 => true,
            // [MQTT-3.1.3-8] of 3.1.1: without a name nothing could be resumed.
            ProtocolVersion::V311 => !connect.clean_start && !mutant("3.1.1/3.1.3-8"),
            ProtocolVersion::V5 => false,
        };
        if connect.client_id.len() > config.client_id_bytes_max
            || connect.client_id.is_empty() && (must_be_named || !config.allow_empty_client_id(listener))
        {
            return Some(ReasonCode::ClientIdentifierNotValid);
        }
        if let Some(will) = &connect.will {
            if will.qos > config.maximum_qos(listener) && !mutant("5.0/3.2.2-12") {
                return Some(ReasonCode::QoSNotSupported);
            }
            if will.retain && !config.retain_available {
                return Some(ReasonCode::RetainNotSupported);
            }
        }
        if self.stopping {
            return Some(ReasonCode::ServerUnavailable);
        }
        None
    }

    /// The user whom the Session of this Client Identifier belongs to, if that is not who comes now. A Session that was
    /// made without a login is anybody's.
    fn other_owner(&self, connect: &OwnedConnect) -> Option<&User> {
        if !self
            .clients
            .config
            .listeners
            .iter()
            .any(|rules| rules.ask || rules.named)
        {
            // Nobody could prove to be the owner any more: each would be kept from his own Session, for ever.
            return None;
        }
        let key = self.clients.sessions.find(&connect.client_id)?;
        let user = self.clients.sessions.get(key)?.user.as_deref()?;
        let is_owner = connect.vouched && connect.username.as_deref() == Some(&*user.name);
        (user.vouched && !is_owner).then_some(user)
    }

    /// What speaks against one client more.
    fn objection_to_one_more(&mut self, listener: ListenerId, connect: &OwnedConnect) -> Option<ReasonCode> {
        let full = self.full_for(listener, connect)?;
        self.clients.stats.count_full(full);
        Some(ReasonCode::QuotaExceeded)
    }

    /// Where the broker has no room for a client that is at home here. One that takes its own Session over needs none.
    fn full_for(&mut self, listener: ListenerId, connect: &OwnedConnect) -> Option<Full> {
        let known = self.clients.sessions.find(&connect.client_id);
        let connected = known
            .and_then(|key| self.clients.sessions.get(key))
            .is_some_and(|session| session.connection.is_some());
        let settled = self.clients.settled.saturating_add(self.clients.settled_elsewhere);
        let full = settled >= self.clients.config.connections_max;
        let listener_full = !self.makes_room(listener, known) && self.is_listener_full(listener);
        if full && !connected || listener_full {
            Some(Full::Connections)
        } else if self.has_no_memory_for(connect, known) {
            Some(Full::Memory)
        } else if self.has_no_room_on_disk_for(connect, known) {
            Some(Full::Journal)
        } else {
            self.clients.tallies_full(listener, connect.named_user(), known)
        }
    }

    /// Whether a listener has as many connections as it may have.
    fn is_listener_full(&self, listener: ListenerId) -> bool {
        let (told, elsewhere) = self.clients.settled_elsewhere_at;
        let elsewhere = if told == self.clients.config.counted_at(listener) {
            elsewhere
        } else {
            0
        };
        let terms = self.clients.config.terms(listener);
        let settled = self.clients.settled_at(listener).saturating_add(elsewhere);
        terms.is_some_and(|terms| settled >= terms.connections_max)
    }

    /// Whether who comes takes over a connection that is counted where his will be.
    fn makes_room(&self, listener: ListenerId, known: Option<SessionKey>) -> bool {
        let counted_at = |listener| self.clients.config.counted_at(listener);
        let session = known.and_then(|key| self.clients.sessions.get(key));
        session.is_some_and(|session| {
            session.connection.is_some() && counted_at(session.standing.get().listener()) == counted_at(listener)
        })
    }

    /// Answers a CONNECT that is not let in, and closes [MQTT-3.2.2-7].
    pub(crate) fn refuse(
        &mut self,
        id: ConnectionId,
        version: ProtocolVersion,
        client_id: &str,
        username: Option<&str>,
        reason: ReasonCode,
        effects: &mut Effects,
    ) {
        self.clients.stats.connects_refused += 1;
        effects.events.push(Event::Refused {
            connection: id,
            client_id: client_id.into(),
            username: username.map(Into::into),
            reason,
        });
        // Where no return code of 3.1.1 fits, the close says it all [MQTT-3.2.2-6].
        let can_say = version == ProtocolVersion::V5 || reason.connect_return_code().is_some();
        let can_say = can_say || mutant("3.1.1/3.2.2-6");
        let mut connack = ConnAckData::new(version, reason);
        connack.session_present = mutant("5.0/3.2.2-6") && self.clients.sessions.find(client_id).is_some();
        if can_say && self.takes(id, &connack) {
            self.clients.send(id, Outgoing::ConnAck(Box::new(connack)), 8, effects);
        }
        self.clients.connections.remove(id);
        effects.closes.push(Close {
            connection: id,
            flush: true,
        });
    }

    /// A client that may come in: here, or on its home shard.
    pub(crate) fn accept(
        &mut self,
        now: Now,
        id: ConnectionId,
        listener: ListenerId,
        mut connect: OwnedConnect,
        effects: &mut Effects,
    ) -> Flow {
        if let Err(reason) = self.settle_names(listener, &mut connect) {
            let (version, username) = (connect.version, connect.username.as_deref());
            self.refuse(id, version, &connect.client_id, username, reason, effects);
            return Flow::Stop;
        }
        let home = self.placement.home_of(self.placement.origin(&connect.client_id));
        if home == self.shard {
            return self.settle_connection(now, id, connect, effects);
        }
        self.clients.connections.remove(id);
        let handover = Box::new(Handover { listener, connect });
        effects.moves.push(Move {
            connection: id,
            to: home,
            handover,
        });
        Flow::Stop
    }

    /// A connection that another shard accepted.
    pub(crate) fn on_adopted(&mut self, now: Now, id: ConnectionId, handover: Handover, effects: &mut Effects) -> Flow {
        self.on_opened(now, id, handover.listener);
        let Handover { connect, .. } = handover;
        if let Some(connection) = self.clients.connections.get_mut(id) {
            connection.maximum_packet_size = connect.maximum_packet_size;
        }
        if self.stopping {
            let (version, client_id) = (connect.version, connect.client_id);
            self.refuse(id, version, &client_id, None, ReasonCode::ServerUnavailable, effects);
            return Flow::Stop;
        }
        self.settle_connection(now, id, connect, effects)
    }

    /// Joins a connection and its Session: takes over, cleans, resumes or makes one (section 3.1.4).
    fn settle_connection(
        &mut self,
        now: Now,
        id: ConnectionId,
        mut connect: OwnedConnect,
        effects: &mut Effects,
    ) -> Flow {
        // Only who made a Session may resume it, take it over or discard it (section 5.4.2 of 5.0).
        let owner_is_gone = self.other_owner(&connect).map(|owner| owner.is_gone);
        let listener = self.clients.connections.get(id).map(|connection| connection.listener);
        let listener = listener.unwrap_or_default();
        let objection = if connect.vouched && connect.revocations < self.revocations {
            // Logins were revoked while this one was checked or on its way here, and it may be one of them: what ended
            // those did not find it. Asked again, the authenticator knows.
            Some(ReasonCode::ServerBusy)
        } else if owner_is_gone == Some(false) {
            Some(ReasonCode::NotAuthorized)
        } else {
            self.objection_to_one_more(listener, &connect)
        };
        if let Some(reason) = objection {
            let (version, username) = (connect.version, connect.username.as_deref());
            self.refuse(id, version, &connect.client_id, username, reason, effects);
            return Flow::Stop;
        }
        let mut connack = self.agree(id, &mut connect);
        if !self.takes(id, &connack) {
            // It holds what the client must know, so nothing of it can be left out [MQTT-3.1.2-24].
            let (version, username) = (connect.version, connect.username.as_deref());
            let reason = ReasonCode::ImplementationSpecificError;
            self.refuse(id, version, &connect.client_id, username, reason, effects);
            return Flow::Stop;
        }
        self.take_over(now, &connect.client_id, effects);
        let mut existing = self.clients.sessions.find(&connect.client_id);
        if let Some(key) = existing
            && (connect.clean_start || owner_is_gone.is_some())
        {
            self.end_session(now, key, effects);
            existing = None;
        }
        connack.session_present = existing.is_some();
        let key = existing.unwrap_or_else(|| self.new_session(&connect.client_id));
        self.clients.cancel_away_timers(key);
        if let Some(session) = self.clients.sessions.get_mut(key) {
            session.connection = Some(id);
            session.expiry_interval = connect
                .session_expiry_interval
                .min(self.clients.config.session_expiry_max);
        }
        self.clients.count_settled(listener);
        let user = connect.username.map(|name| User {
            rules: connect.rules,
            granted: connect.granted,
            ..User::new(name, connect.vouched)
        });
        self.set_owner(id, key, user);
        self.clients.count_user(key, true);
        self.clients.arm_login_expiry(now, id, connect.expires_at);
        // An old Will that waited for its delay is not sent: the client is back [MQTT-3.1.3-9].
        if mutant("5.0/3.1.3-9") {
            self.fire_will(now, key, effects);
        }
        self.clients.set_will(key, connect.will);
        self.clients.write_session(now, key, effects);
        if let Some(connection) = self.clients.connections.get_mut(id) {
            connection.state = State::ExpectDurable(key, Box::new(connack));
        }
        if let Some(enhanced) = connect.enhanced {
            self.clients.enhanced.insert(id, *enhanced);
        }
        if self.is_promise(key) && self.clients.journal.hold(Gate::Connect(id)) {
            self.clients.note_rare(Rare::ConnackHeld);
            return Flow::Stop;
        }
        self.activate(now, id, effects);
        Flow::Go
    }

    /// Whether a CONNACK promises anything of what is kept: its Session, or that the one before has ended and does not come
    /// back [MQTT-3.1.2-4].
    fn is_promise(&self, key: SessionKey) -> bool {
        let session = self.clients.sessions.get(key);
        self.clients.journal.is_dirty() || session.is_some_and(|session| session.record != RecordId(0))
    }

    /// Ends the connection that a client has already [MQTT-3.1.4-3].
    fn take_over(&mut self, now: Now, client_id: &str, effects: &mut Effects) {
        if let Some(key) = self.clients.sessions.find(client_id)
            && let Some(old) = self.clients.sessions.get(key).and_then(|session| session.connection)
        {
            self.clients.stats.takeovers += 1;
            if mutant("shards/interest-lost-on-takeover") {
                self.lose_interest(key, effects);
            }
            if mutant("shards/will-lost-on-takeover") {
                self.clients.set_will(key, None);
            }
            self.end_connection(now, old, Cause::TakenOver, effects);
        }
    }

    fn new_session(&mut self, client_id: &str) -> SessionKey {
        self.clients.memory.charge(SESSION_BYTES + client_id.len());
        // What was found for an earlier one of that name is not its.
        self.clients.rights.forget_clients();
        self.clients.sessions.insert(Session {
            client_id: client_id.into(),
            user: None,
            standing: Cell::new(Standing::at(ListenerId::default())),
            origin: self.placement.origin(client_id),
            generation: 0,
            expiry_interval: 0,
            connection: None,
            sender: None,
            inbound: Default::default(),
            acks: None,
            replays: None,
            subscriptions: None,
            will: None,
            timers: None,
            record: RecordId(0),
            mark: 0,
            mark_target: 0,
        })
    }

    /// CONNACK leaves, and with it everything that the Session is owed.
    pub(crate) fn activate(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return;
        };
        let (key, connack) = match core::mem::replace(&mut connection.state, State::ExpectConnect) {
            State::ExpectDurable(key, connack) => (key, connack),
            other => {
                connection.state = other;
                return;
            }
        };
        connection.state = State::Active(key, Terms::of(&connack));
        connection.last_heard = now.mono;
        let (version, keep_alive) = (connection.version, connection.keep_alive);
        let session_present = connack.session_present;
        self.clients.arm_keep_alive(now, id);
        self.clients.send(id, Outgoing::ConnAck(connack), 64, effects);
        let stats = &mut self.clients.stats;
        stats.connects_accepted += 1;
        stats.clients_connected += 1;
        stats.clients_maximum = stats.clients_maximum.max(stats.clients_connected);
        if let Some(session) = self.clients.sessions.get(key) {
            effects.events.push(Event::Connected {
                connection: id,
                client_id: session.client_id.clone(),
                username: session.username().map(Into::into),
                version,
                keep_alive,
                clean_start: !session_present,
                session_present,
            });
        }
        let queued = self
            .clients
            .sessions
            .get(key)
            .and_then(|session| session.sender.as_ref());
        if queued.is_some_and(|sender| sender.queue.len() >= self.clients.config.queue_max) {
            self.clients.note_rare(Rare::QueueFullOnResume);
        }
        self.count_online(key, true);
        self.clients.pump(now, key, effects);
        self.replay(now, key, effects);
    }

    /// A Client Identifier that nobody has, at home on this shard: the connection need not move. Whoever got one cannot
    /// tell the next.
    fn assign_client_id(&mut self, listener: ListenerId) -> String {
        loop {
            self.assigned += 1;
            let name = self.assigner.hash_one((self.shard.0, self.assigned));
            let mut client_id = String::from(self.clients.config.assigned_client_id_prefix(listener));
            // Writing to a String cannot fail.
            let _ = write!(client_id, "{:04x}-{:016x}", self.shard.0, name);
            let at_home = self.placement.home_of(self.placement.origin(&client_id)) == self.shard;
            if at_home && self.clients.sessions.find(&client_id).is_none() {
                return client_id;
            }
        }
    }

    /// A peer broke a rule: it is told why, where its version can say it, and the connection ends [MQTT-4.13.1-1].
    pub(crate) fn violate(&mut self, now: Now, id: ConnectionId, violation: Violation, effects: &mut Effects) {
        self.clients.stats.protocol_errors += 1;
        self.end_connection(now, id, Cause::Violation(violation), effects);
    }

    /// A packet that may not come in an established connection, or not from a client.
    pub(crate) fn on_out_of_place(
        &mut self,
        now: Now,
        id: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Effects,
    ) -> Flow {
        let violation = match packet {
            Packet::Connect(_) if mutant("5.0/3.1.0-2") => return Flow::Go,
            Packet::Connect(_) => Violation::SecondConnect,
            _ if mutant("5.0/4.13.1-1") => return Flow::Go,
            _ => Violation::ServerPacket,
        };
        self.violate(now, id, violation, effects);
        Flow::Stop
    }
}

/// What speaks against a CONNECT where the transport knows, or is to know, whose it is.
fn objection_to_name(connect: &Connect<'_>, rules: ListenerRules, is_named: bool) -> Option<ReasonCode> {
    if is_named && connect.properties.authentication_method.is_some() {
        // There is nothing left to be proven.
        return Some(ReasonCode::BadAuthenticationMethod);
    }
    (rules.named && !is_named).then_some(ReasonCode::BadUserNameOrPassword)
}
