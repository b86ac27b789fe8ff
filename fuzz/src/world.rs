//! One engine and what surrounds it: a clock, four places for connections, a journal, an authenticator. It keeps the
//! engine's contracts as the transport does, and watches what every client is sent.

use std::collections::{BTreeSet, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{
    AckProperties, ConnAck, ConnAckProperties, DecodeLimits, Decoded, Direction, Disconnect, Packet, PacketId,
    ProtocolVersion, PubAck, PubComp, PubRec, PubRel, QoS, ReasonCode, ReasonCodes, SubAck, UnsubAck, decode,
};
use sol_engine::{
    AckKind, AuthOutcome, ConnAckData, ConnectionId, Effects, Engine, EngineConfig, Flow, Input, Instant, Level,
    ListenerId, ListenerRules, Now, Outgoing, QueueFull, Read, ShardId, Ticket, Transmit, UnixMillis,
};

use crate::conversation::{Setup, Step};
use crate::encoded;

/// Ticks that an engine may want without the clock moving.
const TICKS_MAX: usize = 10_000;
const INFLIGHT_MAX: u16 = 4;

/// See the [module](self).
pub struct World {
    engine: Engine,
    effects: Effects,
    now: Now,
    peers: [Option<Peer>; 4],
    generation: NonZeroU32,
    logins: VecDeque<ConnectionId>,
    /// Records emitted and records durable, as tickets.
    emitted: u64,
    durable: u64,
}

/// A client's end of a connection.
struct Peer {
    connection: ConnectionId,
    version: ProtocolVersion,
    /// The engine wants no packet now.
    stopped: bool,
    connected: bool,
    receive_maximum: usize,
    maximum_packet_size: usize,
    /// Identifiers of what was delivered and is not acknowledged.
    unacknowledged: BTreeSet<PacketId>,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        Self {
            engine: Engine::new(ShardId(0), Rc::new(config(setup)), [1, 2, 3, 4]),
            effects: Effects::default(),
            now: Now {
                mono: Instant::from_nanos(0),
                wall: UnixMillis::from_millis(1_000_000_000_000),
            },
            peers: [const { None }; 4],
            generation: NonZeroU32::MIN,
            logins: VecDeque::new(),
            emitted: 0,
            durable: 0,
        }
    }

    /// Lets one thing happen and looks whether the engine is still sound.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Open { who } => self.open(*who),
            Step::Send { who, request } => {
                if let Some(peer) = self.peer(*who) {
                    let bytes = request.bytes(peer.version);
                    self.receive(*who, &bytes);
                }
            }
            Step::Garbage { who, bytes } => self.receive(*who, bytes),
            Step::Lose { who } => {
                if let Some(peer) = self.peers[place(*who)].take() {
                    self.handle(Input::Closed(peer.connection));
                }
            }
            Step::Congest { who, unsent } => self.tell(*who, |connection| Input::Congested(connection, *unsent)),
            Step::Drain { who } => self.tell(*who, Input::Drained),
            Step::Login { accepted } => self.answer_login(*accepted),
            Step::Durable => self.make_durable(),
            Step::Pressure { full } => {
                self.handle(Input::Pressure(if *full { Level::Full } else { Level::Normal }));
            }
            Step::Tick => self.turn(),
            Step::Pass { seconds } => self.pass(Duration::from_secs(u64::from(*seconds))),
            Step::Shutdown => self.handle(Input::Shutdown),
        }
        self.check();
    }

    /// Everything comes to rest and to its end.
    pub fn end(mut self) {
        self.make_durable();
        self.pass(Duration::from_secs(1));
        self.handle(Input::Shutdown);
        self.make_durable();
        self.pass(Duration::from_secs(1));
        self.check();
        assert!(
            self.peers.iter().all(Option::is_none),
            "somebody was not told of the end"
        );
    }

    fn check(&self) {
        if let Err(fault) = self.engine.check() {
            panic!("{fault}");
        }
    }

    fn peer(&mut self, who: u8) -> Option<&mut Peer> {
        self.peers[place(who)].as_mut()
    }

    fn tell(&mut self, who: u8, input: impl FnOnce(ConnectionId) -> Input<'static>) {
        if let Some(connection) = self.peer(who).map(|peer| peer.connection) {
            self.handle(input(connection));
        }
    }

    fn open(&mut self, who: u8) {
        if self.peer(who).is_some() {
            return;
        }
        self.generation = self.generation.saturating_add(1);
        let connection = ConnectionId::new(u32::from(who & 0x03), self.generation);
        self.peers[place(who)] = Some(Peer {
            connection,
            version: ProtocolVersion::V311,
            stopped: false,
            connected: false,
            receive_maximum: usize::from(u16::MAX),
            maximum_packet_size: usize::MAX,
            unacknowledged: BTreeSet::new(),
        });
        let listener = ListenerId(u16::from(who & 0x01));
        self.handle(Input::Opened { connection, listener });
    }

    /// Bytes of a client arrive. What is no whole packet is forgotten.
    fn receive(&mut self, who: u8, bytes: &[u8]) {
        let Some(peer) = self.peer(who).filter(|peer| !peer.stopped) else {
            return;
        };
        let connection = peer.connection;
        let limits = DecodeLimits {
            maximum_packet_size: 1 << 20,
            direction: Direction::FromClient,
            ..DecodeLimits::default()
        };
        match decode(bytes, peer.version, &limits) {
            Ok(Decoded::Packet { packet, .. }) => {
                peer.says(&packet);
                let now = self.now;
                let flow = self
                    .engine
                    .handle(now, Input::Packet(connection, &packet), &mut self.effects);
                // A Resume in the tray of the same call comes after the Stop.
                if let Some(peer) = self.find(connection) {
                    peer.stopped = flow == Flow::Stop;
                }
                self.apply();
            }
            Ok(Decoded::NeedMore(_)) => {}
            Err(error) => {
                self.handle(Input::Malformed(connection, error));
                assert!(self.find(connection).is_none(), "a malformed packet has no consequence");
            }
        }
    }

    fn answer_login(&mut self, accepted: bool) {
        if let Some(connection) = self.logins.pop_front() {
            let outcome = if accepted {
                AuthOutcome::Accepted
            } else {
                AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword)
            };
            self.handle(Input::Authenticated(connection, outcome));
        }
    }

    fn make_durable(&mut self) {
        // What becomes durable may write more, but not for ever.
        for _ in 0..TICKS_MAX {
            if self.durable == self.emitted {
                return;
            }
            self.durable = self.emitted;
            self.handle(Input::Durable(Ticket(self.durable)));
        }
        panic!("the journal does not come to rest");
    }

    /// A turn of the loop without anything new: a tick, and everything leaves.
    fn turn(&mut self) {
        let now = self.now;
        self.engine.tick(now, &mut self.effects);
        self.apply();
        self.handle(Input::Flushed);
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now.mono.saturating_add(duration);
        for _ in 0..TICKS_MAX {
            let Some(next) = self.engine.next_deadline().filter(|next| *next <= end) else {
                self.move_clock(end);
                return self.turn();
            };
            self.move_clock(next.max(self.now.mono));
            self.turn();
        }
        panic!("the engine does not come to rest");
    }

    fn move_clock(&mut self, to: Instant) {
        let passed = to.saturating_since(self.now.mono).as_millis() as u64;
        self.now = Now {
            mono: to,
            wall: UnixMillis::from_millis(self.now.wall.as_millis() + passed),
        };
    }

    fn handle(&mut self, input: Input<'_>) {
        let _ = self.engine.handle(self.now, input, &mut self.effects);
        self.apply();
    }

    /// Applies the tray of one call.
    fn apply(&mut self) {
        self.emitted += u64::from(!self.effects.records.is_empty());
        let transmits = std::mem::take(&mut self.effects.transmits);
        for transmit in &transmits {
            self.transmit(transmit);
        }
        self.effects.transmits = transmits;
        assert!(
            self.effects.moves.is_empty() && self.effects.forwards.is_empty(),
            "there is one shard"
        );
        self.logins
            .extend(self.effects.auth_requests.iter().map(|request| request.connection));
        self.change_reading();
        let closes = std::mem::take(&mut self.effects.closes);
        for close in closes {
            let peer = self
                .peers
                .iter_mut()
                .find(|peer| peer.as_ref().is_some_and(|p| p.connection == close.connection));
            *peer.expect("a connection is closed that is gone or never was") = None;
        }
        self.effects.clear();
    }

    fn change_reading(&mut self) {
        for read in std::mem::take(&mut self.effects.reads) {
            let (connection, stopped) = match read {
                Read::Pause(connection) => (connection, true),
                Read::Resume(connection) | Read::Auth(connection) => (connection, false),
            };
            if let Some(peer) = self.find(connection) {
                peer.stopped = stopped;
            }
        }
    }

    fn find(&mut self, connection: ConnectionId) -> Option<&mut Peer> {
        self.peers
            .iter_mut()
            .flatten()
            .find(|peer| peer.connection == connection)
    }

    fn transmit(&mut self, transmit: &Transmit) {
        let peer = self
            .find(transmit.connection)
            .expect("a packet is for a connection that is gone or never was");
        peer.hears(&transmit.packet);
    }
}

impl Peer {
    fn says(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Connect(connect) if !self.connected => {
                self.version = connect.version;
                let properties = &connect.properties;
                self.receive_maximum = properties
                    .receive_maximum
                    .map_or(self.receive_maximum, |max| max.get().into());
                let largest = properties.maximum_packet_size.map(NonZeroU32::get);
                self.maximum_packet_size = largest.map_or(self.maximum_packet_size, |max| max as usize);
            }
            Packet::PubAck(PubAck { packet_id, .. }) | Packet::PubComp(PubComp { packet_id, .. }) => {
                self.unacknowledged.remove(packet_id);
            }
            Packet::PubRec(PubRec {
                packet_id, reason_code, ..
            }) if reason_code.is_error() => {
                self.unacknowledged.remove(packet_id);
            }
            _ => {}
        }
    }

    /// A client finds nothing wrong with what it is sent.
    fn hears(&mut self, packet: &Outgoing) {
        if let Outgoing::ConnAck(data) = packet {
            assert!(!self.connected, "a second CONNACK");
            self.connected = data.reason_code == ReasonCode::Success;
        } else {
            assert!(
                self.connected || matches!(packet, Outgoing::Disconnect(_) | Outgoing::Auth(_)),
                "{packet:?} before CONNACK"
            );
        }
        let Some(bytes) = wire(packet, self.version) else {
            return;
        };
        let limits = DecodeLimits {
            direction: Direction::FromServer,
            ..DecodeLimits::default()
        };
        match decode(&bytes, self.version, &limits) {
            Ok(Decoded::Packet {
                packet: Packet::Publish(publish),
                len,
            }) => {
                assert!(
                    len <= self.maximum_packet_size,
                    "[MQTT-3.1.2-24] {len} bytes: {publish:?}"
                );
                if let Some(id) = publish.packet_id {
                    assert!(self.unacknowledged.insert(id), "[MQTT-2.2.1-4] {id:?} is in use");
                    let quota = self.receive_maximum.min(INFLIGHT_MAX.into());
                    assert!(
                        self.unacknowledged.len() <= quota,
                        "[MQTT-3.3.4-9] Receive Maximum {quota}"
                    );
                }
            }
            Ok(Decoded::Packet { .. }) => {}
            other => panic!("{packet:?} is sent as {bytes:02x?}: {other:?}"),
        }
    }
}

/// The bytes of a packet; `None` where its version has none.
fn wire(packet: &Outgoing, version: ProtocolVersion) -> Option<Vec<u8>> {
    let properties = AckProperties::default();
    Some(match packet {
        Outgoing::Publish(delivery) => {
            delivery.with_publish(&mut Vec::new(), |publish| encoded(&Packet::Publish(*publish), version))
        }
        Outgoing::Ack {
            kind,
            packet_id,
            reason_code,
        } => encoded(&ack(*kind, *packet_id, *reason_code), version),
        Outgoing::ConnAck(data) => return connack(data),
        Outgoing::SubAck {
            packet_id,
            reason_codes,
        } => {
            let codes = codes(reason_codes);
            let reason_codes = ReasonCodes::from_slice(&codes);
            encoded(
                &Packet::SubAck(SubAck {
                    packet_id: *packet_id,
                    properties,
                    reason_codes,
                }),
                version,
            )
        }
        Outgoing::UnsubAck {
            packet_id,
            reason_codes,
        } => {
            let codes = codes(reason_codes);
            let reason_codes = ReasonCodes::from_slice(&codes);
            encoded(
                &Packet::UnsubAck(UnsubAck {
                    packet_id: *packet_id,
                    properties,
                    reason_codes,
                }),
                version,
            )
        }
        Outgoing::PingResp => encoded(&Packet::PingResp, version),
        Outgoing::Disconnect(_) if version < ProtocolVersion::V5 => return None,
        Outgoing::Disconnect(reason_code) => encoded(&Packet::Disconnect(Disconnect::new(*reason_code)), version),
        Outgoing::Auth(auth) => encoded(&Packet::Auth(auth.packet()), version),
    })
}

fn ack<'a>(kind: AckKind, packet_id: PacketId, reason_code: ReasonCode) -> Packet<'a> {
    match kind {
        AckKind::PubAck => Packet::PubAck(PubAck::new(packet_id, reason_code)),
        AckKind::PubRec => Packet::PubRec(PubRec::new(packet_id, reason_code)),
        AckKind::PubRel => Packet::PubRel(PubRel::new(packet_id, reason_code)),
        AckKind::PubComp => Packet::PubComp(PubComp::new(packet_id, reason_code)),
    }
}

fn connack(data: &ConnAckData) -> Option<Vec<u8>> {
    let packet = ConnAck {
        session_present: data.session_present,
        reason_code: data.reason_code,
        properties: ConnAckProperties {
            session_expiry_interval: data.session_expiry_interval,
            receive_maximum: data.receive_maximum.and_then(NonZeroU16::new),
            maximum_qos: data.maximum_qos,
            retain_available: data.retain_available,
            maximum_packet_size: data.maximum_packet_size.and_then(NonZeroU32::new),
            assigned_client_id: data.assigned_client_id.as_deref(),
            topic_alias_maximum: data.topic_alias_maximum,
            server_keep_alive: data.server_keep_alive,
            authentication_method: data.authentication_method.as_deref(),
            authentication_data: data.authentication_data.as_deref(),
            ..ConnAckProperties::default()
        },
    };
    Some(encoded(&Packet::ConnAck(packet), data.version))
}

fn codes(values: &[u8]) -> Vec<ReasonCode> {
    values
        .iter()
        .map(|&value| ReasonCode::from_value(value).expect("a Reason Code that does not exist"))
        .collect()
}

fn config(setup: Setup) -> EngineConfig {
    let rules = ListenerRules {
        allow_anonymous: true,
        ask: setup.ask,
    };
    let limits = usize::from(setup.limits);
    EngineConfig {
        listeners: vec![ListenerRules::default(), rules],
        receive_maximum: NonZeroU16::MIN.saturating_add(u16::from(setup.limits & 0x03)),
        inflight_max: INFLIGHT_MAX,
        queue_max: 1 + limits % 5,
        queue_bytes_max: 16 << (limits % 7),
        queue_full: match setup.queue_full % 3 {
            0 => QueueFull::Refuse,
            1 => QueueFull::DropNewest,
            _ => QueueFull::DropOldest,
        },
        queue_qos0: setup.queue_qos0,
        topic_alias_maximum: 4,
        topic_alias_out_max: 2,
        keep_alive_max: if setup.limits & 0x10 != 0 { 10 } else { 0 },
        session_expiry_max: if setup.limits & 0x20 != 0 { 100 } else { u32::MAX },
        maximum_qos: if setup.limits & 0x40 != 0 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        },
        retain_available: setup.limits & 0x80 == 0,
        memory_bytes_max: match setup.memory {
            0..=127 => usize::MAX,
            scarce => usize::from(scarce) * 64,
        },
        unsent_bytes_high: 64,
        unsent_bytes_max: 4_096,
        parked_bytes_max: 64,
        tray_max: 1 + limits % 9,
        fanout_waiting_max: 1 + limits % 3,
        retained_page_max: 1 + limits % 4,
        replay_seen_max: limits % 3,
        subscriptions_max: 1 + limits % 11,
        journal: setup.journal,
        ..EngineConfig::default()
    }
}

fn place(who: u8) -> usize {
    usize::from(who & 0x03)
}
