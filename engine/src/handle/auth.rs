//! AUTH (section 3.15), and what the authenticator answers, while a client connects and later.

use alloc::{boxed::Box, string::String, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{Auth, Packet, ProtocolVersion, ReasonCode};

use crate::clients::Clients;
use crate::config::ListenerRules;
use crate::connection::State;
use crate::effects::{AuthData, AuthRequest, Credentials, Effects, Outgoing, Read};
use crate::engine::Engine;
use crate::enhanced::Enhanced;
use crate::event::{Cause, Event};
use crate::ids::{ConnectionId, ListenerId, SessionKey};
use crate::input::{AuthOutcome, Flow, Grant, OwnedConnect};
use crate::time::Now;
use crate::violation::Violation;

const PROVES_NOBODY: Event = Event::Odd("an authenticator accepts an exchange that has proven nobody");

impl Engine {
    /// Has a CONNECT's login checked; nothing more of its client is decoded meanwhile.
    pub(crate) fn ask(
        &mut self,
        id: ConnectionId,
        listener: ListenerId,
        connect: OwnedConnect,
        credentials: Credentials,
        effects: &mut Effects,
    ) -> Flow {
        effects.auth_requests.push(AuthRequest {
            connection: id,
            listener,
            client_id: connect.client_id.clone(),
            version: connect.version,
            credentials,
        });
        if let Some(connection) = self.clients.connections.get_mut(id) {
            connection.state = State::ExpectAuthentication(Box::new(connect));
        }
        Flow::Stop
    }

    /// Whether a Password without a User Name is asked about.
    pub(crate) fn asks_nameless(&self, listener: ListenerId) -> bool {
        self.clients
            .config
            .terms(listener)
            .is_some_and(|terms| terms.asks_nameless)
    }

    /// Whether clients of such a listener may prove who they are by an Authentication Method.
    pub(crate) fn may_prove_by(&self, method: &str, listener: ListenerId, rules: ListenerRules) -> bool {
        let config = &self.clients.config;
        let refused = config.terms(listener).is_some_and(|terms| terms.refuses_methods);
        rules.ask && !refused && config.authentication_methods.iter().any(|known| known == method)
    }

    /// A packet before CONNACK of a client whose AUTH is awaited: nothing but AUTH and DISCONNECT may come
    /// [MQTT-3.1.2-30]. What answers any other is a CONNACK, since DISCONNECT must not come before it [MQTT-3.14.0-1].
    pub(crate) fn on_packet_before_connack(
        &mut self,
        now: Now,
        id: ConnectionId,
        packet: &Packet<'_>,
        effects: &mut Effects,
    ) -> Flow {
        let reason = match packet {
            Packet::Auth(auth) => match self.go_on_connecting(id, auth, effects) {
                None => return Flow::Stop,
                Some(Violation::AnotherMethod) => ReasonCode::BadAuthenticationMethod,
                Some(violation) => violation.reason_code(),
            },
            Packet::Disconnect(disconnect) => {
                self.end_connection(now, id, Cause::Client(disconnect.reason_code), effects);
                return Flow::Stop;
            }
            // Ignored, until its AUTH comes.
            _ if mutant("5.0/3.1.2-30") => return Flow::Go,
            _ => ReasonCode::ProtocolError,
        };
        self.clients.stats.protocol_errors += 1;
        self.refuse_connecting(id, reason, effects);
        Flow::Stop
    }

    /// Asks about the next step of a client that connects, or says what is wrong with its AUTH.
    fn go_on_connecting(&mut self, id: ConnectionId, auth: &Auth<'_>, effects: &mut Effects) -> Option<Violation> {
        let connection = self.clients.connections.get_mut(id)?;
        let State::ExpectAuthentication(connect) = &mut connection.state else {
            return None;
        };
        match connect.enhanced.as_mut()?.take(auth) {
            Err(violation) => Some(violation),
            Ok(credentials) => {
                // This step is answered by the users of now; only what is revoked after it makes the answer old.
                connect.revocations = self.revocations;
                effects.auth_requests.push(AuthRequest {
                    connection: id,
                    listener: connection.listener,
                    client_id: connect.client_id.clone(),
                    version: connect.version,
                    credentials,
                });
                None
            }
        }
    }

    /// AUTH of a client that is in: it authenticates once more, and goes on publishing meanwhile (section 4.12.1).
    pub(crate) fn on_auth(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: SessionKey,
        auth: &Auth<'_>,
        effects: &mut Effects,
    ) -> Flow {
        let taken = match self.clients.enhanced.get_mut(&id) {
            // [MQTT-4.12.0-7]
            None => Err(Violation::UninvitedAuth),
            Some(enhanced) => {
                let noted = enhanced.noted_bytes();
                enhanced.take(auth).inspect(|_| self.clients.memory.refund(noted))
            }
        };
        match taken {
            Err(violation) => {
                self.violate(now, id, violation, effects);
                Flow::Stop
            }
            Ok(credentials) => {
                let listener = self.clients.connections.get(id).map(|connection| connection.listener);
                let client_id = self.clients.sessions.get(key).map(|session| &*session.client_id);
                effects.auth_requests.push(AuthRequest {
                    connection: id,
                    listener: listener.unwrap_or_default(),
                    client_id: String::from(client_id.unwrap_or_default()),
                    version: ProtocolVersion::V5,
                    credentials,
                });
                Flow::Go
            }
        }
    }

    /// The authenticator has answered.
    pub(crate) fn on_authenticated(&mut self, now: Now, id: ConnectionId, outcome: AuthOutcome, effects: &mut Effects) {
        // The client may be gone by now.
        let Some(connection) = self.clients.connections.get(id) else {
            return;
        };
        match &connection.state {
            State::ExpectAuthentication(connect) if !connect.expects_auth() => {
                self.on_connecting_answered(now, id, outcome, effects);
            }
            &State::Active(key, _)
                if self
                    .clients
                    .enhanced
                    .get(&id)
                    .is_some_and(|enhanced| enhanced.expects_answer()) =>
            {
                self.on_reauthentication_answered(now, id, key, outcome, effects);
            }
            _ => effects
                .events
                .push(Event::Odd("an authenticator answered where nobody had asked")),
        }
    }

    fn on_connecting_answered(&mut self, now: Now, id: ConnectionId, outcome: AuthOutcome, effects: &mut Effects) {
        let (username, data) = match outcome {
            AuthOutcome::Accepted | AuthOutcome::Granted(_) if self.is_exchange(id) => {
                // The User Name beside an exchange is a claim: nothing has proven it.
                effects.events.push(PROVES_NOBODY);
                return self.refuse_connecting(id, ReasonCode::UnspecifiedError, effects);
            }
            AuthOutcome::Accepted => (None, None),
            AuthOutcome::Granted(grant) => return self.let_in_as_granted(now, id, *grant, effects),
            AuthOutcome::Proven { username, data } => (Some(username), data),
            AuthOutcome::Continue { data, memo } => return self.challenge(id, data, memo, effects),
            AuthOutcome::Refused(reason) => return self.refuse_connecting(id, reason, effects),
        };
        let Some((listener, mut connect)) = self.take_connect(id) else {
            return;
        };
        if username.is_some() && connect.username.is_some() && username != connect.username {
            // A User Name in CONNECT is a claim; what the exchange proves may only confirm it.
            let reason = ReasonCode::NotAuthorized;
            return self.refuse(
                id,
                connect.version,
                &connect.client_id,
                connect.username.as_deref(),
                reason,
                effects,
            );
        }
        connect.username = username.or(connect.username);
        connect.authentication_data = data;
        if let Some(enhanced) = &mut connect.enhanced {
            enhanced.finish();
        }
        self.let_in(now, id, listener, *connect, effects);
    }

    /// Lets a client in as the authenticator says.
    fn let_in_as_granted(&mut self, now: Now, id: ConnectionId, grant: Grant, effects: &mut Effects) {
        let Some((listener, mut connect)) = self.take_connect(id) else {
            return;
        };
        connect.username = grant.username.or(connect.username);
        connect.granted = true;
        connect.expires_at = grant.expires_at;
        connect.rules = grant.rules;
        if connect.rules.is_some() && connect.username.is_none() || connect.expires_at <= now.wall {
            let username = connect.username.as_deref();
            let reason = ReasonCode::NotAuthorized;
            return self.refuse(id, connect.version, &connect.client_id, username, reason, effects);
        }
        self.let_in(now, id, listener, *connect, effects);
    }

    fn let_in(
        &mut self,
        now: Now,
        id: ConnectionId,
        listener: ListenerId,
        mut connect: OwnedConnect,
        effects: &mut Effects,
    ) {
        connect.vouched = true;
        if self.accept(now, id, listener, connect, effects) == Flow::Go {
            effects.reads.push(Read::Resume(id));
        }
    }

    /// Whether a client that connects has named an Authentication Method.
    fn is_exchange(&self, id: ConnectionId) -> bool {
        self.clients.connections.get(id).is_some_and(|connection| {
            matches!(&connection.state, State::ExpectAuthentication(connect) if connect.enhanced.is_some())
        })
    }

    /// Sends a client that connects the next step of its method, and waits for its AUTH.
    fn challenge(&mut self, id: ConnectionId, data: Vec<u8>, memo: Vec<u8>, effects: &mut Effects) {
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return;
        };
        let State::ExpectAuthentication(connect) = &mut connection.state else {
            return;
        };
        let Some(enhanced) = &mut connect.enhanced else {
            effects
                .events
                .push(Event::Odd("an authenticator wants to go on where there is no exchange"));
            return self.refuse_connecting(id, ReasonCode::UnspecifiedError, effects);
        };
        let auth = enhanced.go_on(data, memo);
        match self.clients.send_auth(id, auth, effects) {
            Ok(()) => effects.reads.push(Read::Auth(id)),
            Err(reason) => self.refuse_connecting(id, reason, effects),
        }
    }

    fn on_reauthentication_answered(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: SessionKey,
        outcome: AuthOutcome,
        effects: &mut Effects,
    ) {
        let user = self.clients.sessions.get(key).and_then(|session| session.username());
        let Some(enhanced) = self.clients.enhanced.get_mut(&id) else {
            return;
        };
        let answer = match outcome {
            AuthOutcome::Proven { username, .. } if user != Some(&*username) => Err(ReasonCode::NotAuthorized),
            AuthOutcome::Accepted | AuthOutcome::Granted(_) => {
                effects.events.push(PROVES_NOBODY);
                Err(ReasonCode::UnspecifiedError)
            }
            AuthOutcome::Proven { data, .. } => Ok(last_word(enhanced, data)),
            AuthOutcome::Continue { data, memo } => {
                self.clients.memory.charge(memo.len());
                Ok(enhanced.go_on(data, memo))
            }
            AuthOutcome::Refused(_) if mutant("5.0/4.12.1-2") => return,
            AuthOutcome::Refused(reason) => Err(reason),
        };
        let sent = answer.and_then(|auth| self.clients.send_auth(id, auth, effects));
        if let Err(reason) = sent {
            self.end_connection(now, id, Cause::Reauthentication(reason), effects);
        }
    }

    /// Refuses a client that has not been let in, whatever it waits for.
    fn refuse_connecting(&mut self, id: ConnectionId, reason: ReasonCode, effects: &mut Effects) {
        if let Some((_, connect)) = self.take_connect(id) {
            let username = connect.username.as_deref();
            self.refuse(id, connect.version, &connect.client_id, username, reason, effects);
        }
    }

    fn take_connect(&mut self, id: ConnectionId) -> Option<(ListenerId, Box<OwnedConnect>)> {
        let connection = self.clients.connections.get_mut(id)?;
        match core::mem::replace(&mut connection.state, State::ExpectConnect) {
            State::ExpectAuthentication(connect) => Some((connection.listener, connect)),
            other => {
                connection.state = other;
                None
            }
        }
    }
}

/// AUTH 0x00, which ends a re-authentication.
fn last_word(enhanced: &mut Enhanced, data: Option<Vec<u8>>) -> AuthData {
    enhanced.finish();
    enhanced.auth(ReasonCode::Success, data)
}

impl Clients {
    /// Sends an AUTH, unless the client does not take packets of its length [MQTT-3.1.2-24].
    fn send_auth(&mut self, id: ConnectionId, auth: AuthData, effects: &mut Effects) -> Result<(), ReasonCode> {
        let bytes = auth.encoded_len();
        let maximum = self.connections.get(id).map_or(0, |c| c.maximum_packet_size as usize);
        if bytes > maximum {
            return Err(ReasonCode::ImplementationSpecificError);
        }
        self.send(id, Outgoing::Auth(Box::new(auth)), bytes as u32, effects);
        Ok(())
    }
}
