//! Faults of ours, planted: what they take with them and what they leave alone. And turns that end with everything done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::time::Duration;

use sol_codec::{Connect, ConnectProperties, Packet, ProtocolVersion, Publish, PublishProperties, QoS, TopicName};
use sol_engine::{AuthOutcome, AuthRequest, EngineConfig, Event, Input, ListenerRules, Query, ShardId};

use crate::{
    Applicant, AuthReply, Clock, Counters, Exit, ListenAddr, ListenerConfig, Notice, Observer, Shards, Source,
    TransportConfig,
};

const PATIENCE: Duration = Duration::from_secs(20);
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const ENGINE_TRAP: &[u8] = b"panic in the engine";
const DECODE_TRAP: &[u8] = b"panic in the codec";
const ADOPTION_TRAP: &[u8] = b"failure to adopt";
const FILTER_TRAP: &[u8] = b"panic in a filter";

/// Panics where the engine would, for a PUBLISH that asks for it.
pub(super) fn trap(input: &Input<'_>) {
    if let Input::Packet(_, Packet::Publish(publish)) = input {
        assert!(publish.payload != ENGINE_TRAP, "planted in the engine");
    }
}

/// Panics where the codec would, for bytes that ask for it.
pub(super) fn trap_decode(bytes: &[u8]) {
    assert!(!bytes.ends_with(DECODE_TRAP), "planted in the codec");
}

/// Panics where a filter would, for MQTT that asks for it.
pub(super) fn trap_filter(mqtt: &[u8]) {
    assert!(!mqtt.ends_with(FILTER_TRAP), "planted in a filter");
}

/// Gives readiness something that it takes in no socket's place, for bytes that ask for it.
pub(super) fn trap_adoption(socket: socket2::Socket, kept: &[u8]) -> socket2::Socket {
    if kept.ends_with(ADOPTION_TRAP) {
        let file = std::fs::File::open("/dev/null").unwrap();
        return std::os::fd::OwnedFd::from(file).into();
    }
    socket
}

/// Lets everybody in at once.
struct Doorman;

impl Observer for Doorman {
    fn event(&mut self, _: &Event, _: Option<Source>) {}

    fn notice(&mut self, _: Notice<'_>) {}

    fn auth(&mut self, _: AuthRequest, _: Applicant<'_>, reply: AuthReply) {
        reply.answer(AuthOutcome::Accepted);
    }
}

struct Broker {
    shards: Shards,
}

impl Broker {
    fn start() -> Self {
        Self::start_with(|_, _| ())
    }

    fn start_with(change: impl FnOnce(&mut TransportConfig, &mut EngineConfig)) -> Self {
        let address = ListenAddr::Tcp("127.0.0.1:0".parse().unwrap());
        let mut config = TransportConfig {
            listeners: vec![ListenerConfig::new(address)],
            ..TransportConfig::default()
        };
        let mut engine = EngineConfig::default();
        change(&mut config, &mut engine);
        Self {
            shards: Shards::start(&config, &engine, [1; 4], Clock::start(), |_| Doorman).unwrap(),
        }
    }

    fn open(&self) -> TcpStream {
        let ListenAddr::Tcp(address) = self.shards.addresses()[0] else {
            panic!("no TCP address")
        };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn connect(&self, client_id: &str) -> TcpStream {
        let mut stream = self.open();
        stream.write_all(&connect(client_id, None)).unwrap();
        expect(&mut stream, CONNACK);
        stream
    }

    fn counters(&self) -> Counters {
        let answers = self.shards.handle().ask(Query::Stats, PATIENCE);
        assert_eq!(answers[0].shard, ShardId(0));
        answers[0].counters
    }

    fn stop(self) {
        self.shards.handle().stop();
        assert!(matches!(self.shards.join(), Exit::Stopped));
    }
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, bytes);
}

fn connect(client_id: &str, username: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Connect {
        version: ProtocolVersion::V311,
        clean_start: true,
        keep_alive: 0,
        client_id,
        will: None,
        username,
        password: None,
        properties: ConnectProperties::default(),
    }
    .encode(ProtocolVersion::V311, &mut bytes);
    bytes
}

fn ping(stream: &mut TcpStream) {
    stream.write_all(&[0xc0, 0]).unwrap();
    expect(stream, &[0xd0, 0]);
}

fn publish(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(TopicName::new("trap").unwrap()),
        packet_id: None,
        properties: PublishProperties::default(),
        payload,
    }
    .encode(ProtocolVersion::V311, &mut bytes);
    bytes
}

fn expect_cut(mut stream: TcpStream) {
    // In order or by a reset, but it ends.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn a_panic_costs_the_connection_that_caused_it_and_nobody_else() {
    for planted in [ENGINE_TRAP, DECODE_TRAP] {
        let broker = Broker::start();
        let mut other = broker.connect("other");
        let mut guilty = broker.connect("guilty");
        ping(&mut guilty);
        guilty.write_all(&publish(planted)).unwrap();
        expect_cut(guilty);
        ping(&mut other);
        ping(&mut broker.connect("guilty"));
        assert_eq!(broker.counters().panics, 1);
        drop(other);
        broker.stop();
    }
}

#[test]
fn panics_while_decoding_cost_their_connections_however_many_there_are() {
    // Or whoever finds one sequence of bytes ends the broker by sending it twice.
    let broker = Broker::start();
    let mut other = broker.connect("other");
    for panics in 1..=3 {
        let mut guilty = broker.connect("guilty");
        guilty.write_all(&publish(DECODE_TRAP)).unwrap();
        expect_cut(guilty);
        assert_eq!(broker.counters().panics, panics);
    }
    ping(&mut other);
    drop(other);
    broker.stop();
}

#[test]
fn an_address_has_its_places_again_whatever_became_of_its_connections() {
    // Those that moved home, that were refused there, and that ended by a fault of ours: one that is never given back would
    // keep the address out until the broker starts again.
    const PLACES: u32 = 3;
    let broker = Broker::start_with(|config, engine| {
        engine.shards = 2;
        config.limits.all.per_address_max = NonZeroU32::new(PLACES);
        engine.sessions_max = 2;
    });
    let sum = |counter: fn(&Counters) -> u64| {
        let answers = broker.shards.handle().ask(Query::Stats, PATIENCE);
        answers.iter().map(|answer| counter(&answer.counters)).sum::<u64>()
    };
    let there_are = |count| {
        let clock = Clock::start();
        while sum(|counters| counters.connections) != count {
            assert!(u128::from(clock.now().mono.as_nanos()) < PATIENCE.as_nanos());
        }
    };
    for round in 0..8 {
        let inside: Vec<_> = (0..2).map(|n| broker.connect(&format!("client {round} {n}"))).collect();
        let mut refused = broker.open();
        refused.write_all(&connect("one too many", None)).unwrap();
        expect(&mut refused, &[0x20, 2, 0, 3]);
        drop((inside, refused));
        there_are(0);
    }
    let mut guilty = broker.connect("guilty");
    guilty.write_all(&publish(ENGINE_TRAP)).unwrap();
    expect_cut(guilty);
    there_are(0);
    let _silent: Vec<_> = (0..PLACES).map(|_| broker.open()).collect();
    there_are(PLACES.into());
    expect_cut(broker.open());
    assert_eq!(sum(|counters| counters.address_refused), 1);
    broker.stop();
}

#[test]
fn an_address_has_its_place_again_when_nobody_could_adopt_its_connection() {
    const ROUNDS: usize = 32;
    let broker = Broker::start_with(|config, engine| {
        engine.shards = 2;
        // What io_uring is given it takes.
        config.io = crate::Io::Epoll;
        config.limits.all.per_address_max = NonZeroU32::new(1);
    });
    let sum = |counter: fn(&Counters) -> u64| {
        let answers = broker.shards.handle().ask(Query::Stats, PATIENCE);
        answers.iter().map(|answer| counter(&answer.counters)).sum::<u64>()
    };
    let mut failures = 0;
    for round in 0..ROUNDS {
        let mut stream = broker.open();
        // In one piece, so that the rest moves with it.
        let bytes = [connect(&format!("client {round}"), None), publish(ADOPTION_TRAP)].concat();
        stream.write_all(&bytes).unwrap();
        let mut connack = [0; CONNACK.len()];
        // Which shard accepts it is the system's to say: who is at home there is let in.
        failures += usize::from(stream.read_exact(&mut connack).is_err());
        drop(stream);
        let clock = Clock::start();
        while sum(|counters| counters.connections) != 0 {
            assert!(u128::from(clock.now().mono.as_nanos()) < PATIENCE.as_nanos());
        }
    }
    assert!((1..ROUNDS).contains(&failures), "{failures}");
    assert_eq!(sum(|counters| counters.address_refused), 0);
    broker.stop();
}

#[test]
fn what_a_filter_said_before_it_failed_is_not_said_to_somebody_else() {
    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    let broker = Broker::start_with(|config, _| {
        config.listeners[0].protocol = crate::Protocol::WebSocket(std::sync::Arc::default())
    });
    let upgraded = || {
        let mut stream = broker.open();
        stream.write_all(UPGRADE).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        stream
    };
    let (mut other, mut guilty) = (upgraded(), upgraded());
    let mut bytes = b"\x89\x81\0\0\0\0g".to_vec();
    bytes.extend([0x82, 0x80 | u8::try_from(FILTER_TRAP.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend(FILTER_TRAP);
    guilty.write_all(&bytes).unwrap();
    let mut rest = Vec::new();
    let _ = guilty.read_to_end(&mut rest);
    assert!(!rest.contains(&b'g'), "{rest:?}");
    other.write_all(b"\x89\x81\0\0\0\0o").unwrap();
    expect(&mut other, b"\x8a\x01o");
    assert_eq!(broker.counters().panics, 1);
    drop(other);
    broker.stop();
}

#[test]
fn a_second_panic_within_a_minute_ends_the_shard_as_poisoned() {
    // One may be bad luck; two mean that something is wrong that goes on being wrong.
    // On which shard does not matter: clients choose theirs by their names.
    for shards in [1, 2] {
        let broker = Broker::start_with(|_, engine| engine.shards = shards);
        for client_id in ["first", "second"] {
            let mut guilty = broker.connect(client_id);
            guilty.write_all(&publish(ENGINE_TRAP)).unwrap();
            expect_cut(guilty);
        }
        let exit = broker.shards.join();
        assert!(
            matches!(&exit, Exit::Poisoned(text) if text.contains("planted in the engine")),
            "{exit:?}"
        );
    }
}

#[test]
fn a_turn_does_not_end_with_output_that_nobody_will_send() {
    // What a client sent before it was let in is decoded at the end of a turn; with a small tray its answers are encoded
    // there and then, the tray is empty, and nothing else would wake the shard.
    let broker = Broker::start_with(|config, engine| {
        config.tray_max = 0;
        engine.listeners = vec![ListenerRules {
            allow_anonymous: false,
            ask: true,
            named: false,
        }];
    });
    let mut stream = broker.open();
    let mut bytes = connect("early", Some("somebody"));
    bytes.extend([0xc0, 0]);
    stream.write_all(&bytes).unwrap();
    expect(&mut stream, CONNACK);
    expect(&mut stream, &[0xd0, 0]);
    drop(stream);
    broker.stop();
}
