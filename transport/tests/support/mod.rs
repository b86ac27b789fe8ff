//! A broker on a free port of the loopback, and clients that write and read bytes.

#![allow(
    dead_code,
    unused_macros,
    unreachable_pub,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and a failure fails the test"
)]

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{
    AckProperties, ConnAck, Connect, DecodeLimits, Decoded, Disconnect, Packet, PacketId, ProtocolVersion, PubAck,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeProperties, SubscriptionOptions,
    Subscriptions, TopicFilter, TopicName, decode,
};
use sol_engine::{Engine, EngineConfig, Query, ShardId};
use sol_transport::{
    Clock, Counters, Exit, Io, ListenAddr, ListenerConfig, Observer, Shards, StartError, TransportConfig,
};

/// Long enough for a machine that is busy with other tests, short enough for somebody who waits for a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a test of each function, for each backend.
macro_rules! on_each_backend {
    ($($test:ident)*) => {
        mod readiness {
            $(#[test]
            fn $test() {
                crate::support::on(sol_transport::Io::Epoll, super::$test);
            })*
        }

        mod io_uring {
            $(#[test]
            fn $test() {
                crate::support::on(sol_transport::Io::IoUring, super::$test);
            })*
        }
    };
}

thread_local! {
    /// The backend of the brokers that a test starts.
    static IO: Cell<Io> = const { Cell::new(Io::Auto) };
    /// The test is about a certain number of shards.
    static KEEPS_SHARDS: Cell<bool> = const { Cell::new(false) };
}

/// To be called first by a test whose promise holds for its own number of shards only: limits are each shard's.
pub fn keep_shards() {
    KEEPS_SHARDS.set(true);
}

/// Runs a test on a backend, if the system permits that. Where `SOL_TEST_IO_URING` is set it must, or tests would pass
/// without a test.
pub fn on(io: Io, test: fn()) {
    IO.set(io);
    KEEPS_SHARDS.set(false);
    let config = TransportConfig {
        io,
        ..TransportConfig::default()
    };
    match Shards::start(&config, &EngineConfig::default(), SEEDS, Clock::start(), |_| ()) {
        Err(StartError::NoIoUring(why)) => {
            assert!(std::env::var_os("SOL_TEST_IO_URING").is_none(), "{why}");
            println!("skipped: {why}");
        }
        started => {
            drop(started.unwrap());
            test();
        }
    }
}

/// The backend that this test runs on, by the name of its module.
pub fn module() -> &'static str {
    match IO.get() {
        Io::IoUring => "io_uring",
        Io::Auto | Io::Epoll => "readiness",
    }
}

/// The shards of a broker: as many as a test wants, unless `SOL_TEST_SHARDS` says another number.
fn shards(wanted: u16) -> u16 {
    let forced = std::env::var("SOL_TEST_SHARDS").ok().filter(|_| !KEEPS_SHARDS.get());
    forced.map_or(wanted, |shards| shards.parse().unwrap())
}

/// What every broker here places its clients by.
pub const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// A name beginning with `stem` of a client that is at home on this one of two shards.
pub fn name_at_home(stem: &str, shard: u16) -> String {
    names_at_home(stem, shard).next().unwrap()
}

/// The same, one after the other.
pub fn names_at_home(stem: &str, shard: u16) -> impl Iterator<Item = String> + use<'_> {
    let config = EngineConfig {
        shards: 2,
        ..EngineConfig::default()
    };
    let engine = Engine::new(ShardId(shard), Rc::new(config), SEEDS);
    (0..)
        .map(move |n| format!("{stem} {n}"))
        .filter(move |name| engine.is_home_of_client(name))
}

pub struct Broker {
    shards: Option<Shards>,
    pub address: SocketAddr,
}

impl Broker {
    /// A broker with `shards` shards and whatever else is changed.
    pub fn start(shards: u16, change: impl FnOnce(&mut TransportConfig, &mut EngineConfig)) -> Self {
        Self::start_observed(shards, |_| (), change)
    }

    /// The same with somebody who is told and asked.
    pub fn start_observed<O: Observer>(
        shards: u16,
        observer: impl Fn(ShardId) -> O,
        change: impl FnOnce(&mut TransportConfig, &mut EngineConfig),
    ) -> Self {
        Self::start_by(shards, change, |config, engine| {
            Shards::start(config, engine, SEEDS, Clock::start(), observer)
        })
    }

    /// The same with another way to start.
    pub fn start_by(
        shards: u16,
        change: impl FnOnce(&mut TransportConfig, &mut EngineConfig),
        start: impl FnOnce(&TransportConfig, &EngineConfig) -> Result<Shards, StartError>,
    ) -> Self {
        let mut config = TransportConfig {
            io: IO.get(),
            listeners: vec![ListenerConfig::new(ListenAddr::Tcp("127.0.0.1:0".parse().unwrap()))],
            ..TransportConfig::default()
        };
        let mut engine = EngineConfig {
            shards: self::shards(shards),
            ..EngineConfig::default()
        };
        change(&mut config, &mut engine);
        let shards = start(&config, &engine).unwrap();
        let ListenAddr::Tcp(address) = shards.addresses()[0] else {
            panic!("not a TCP listener")
        };
        Self {
            shards: Some(shards),
            address,
        }
    }

    pub fn shards(&self) -> &Shards {
        self.shards.as_ref().unwrap()
    }

    /// The sum of all shards' counters.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for answer in self.shards().handle().ask(Query::Stats, PATIENCE) {
            sum.add(&answer.counters);
        }
        sum
    }

    /// Asks until the counters are as wanted; each question is a round trip through every shard.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Counters) -> bool) {
        let clock = Clock::start();
        let begin = clock.now().mono;
        loop {
            let counters = self.counters();
            if wanted(&counters) {
                return;
            }
            assert!(
                clock.now().mono.saturating_since(begin) < PATIENCE,
                "{what} did not happen: {counters:?}"
            );
        }
    }

    /// Waits for a broker that ends by itself.
    pub fn join(mut self) -> Exit {
        self.shards.take().unwrap().join()
    }

    pub fn stop(mut self) {
        let shards = self.shards.take().unwrap();
        shards.handle().stop();
        let exit = shards.join();
        assert!(matches!(exit, Exit::Stopped), "{exit:?}");
    }
}

pub struct Client {
    pub stream: TcpStream,
    version: ProtocolVersion,
    received: Vec<u8>,
}

impl Client {
    /// A connection on which nothing was sent.
    pub fn open(address: SocketAddr, version: ProtocolVersion) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            version,
            received: Vec::new(),
        }
    }

    /// A connection that was let in.
    pub fn connect(address: SocketAddr, version: ProtocolVersion, client_id: &str) -> Self {
        let mut client = Self::open(address, version);
        client.send(&connect(version, client_id));
        client.expect_connack();
        client
    }

    pub fn expect_connack(&mut self) {
        let code = self.with_packet(|packet| match packet {
            Packet::ConnAck(ConnAck { reason_code, .. }) => reason_code,
            other => panic!("no CONNACK: {other:?}"),
        });
        assert_eq!(code, ReasonCode::Success);
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Subscribes at QoS 0.
    pub fn subscribe(&mut self, filter: &str) {
        self.subscribe_at(filter, QoS::AtMostOnce);
    }

    pub fn subscribe_at(&mut self, filter: &str, qos: QoS) {
        let bytes = subscribe_at(self.version, filter, qos);
        self.send(&bytes);
        self.with_packet(|packet| assert!(matches!(packet, Packet::SubAck(_)), "no SUBACK: {packet:?}"));
    }

    /// A round trip.
    pub fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        self.with_packet(|packet| assert!(matches!(packet, Packet::PingResp), "no PINGRESP: {packet:?}"));
    }

    pub fn expect_publish(&mut self, topic: &str, payload: &[u8]) {
        self.with_packet(|packet| match packet {
            Packet::Publish(publish) => {
                assert_eq!(publish.topic.map(TopicName::as_str), Some(topic));
                assert_eq!(publish.payload, payload);
            }
            other => panic!("no PUBLISH: {other:?}"),
        });
    }

    pub fn expect_disconnect(&mut self, reason_code: ReasonCode) {
        self.with_packet(|packet| match packet {
            Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason_code, reason_code),
            other => panic!("no DISCONNECT: {other:?}"),
        });
        self.expect_end();
    }

    /// Nothing more comes, and the connection ends in an orderly way.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert!(
            self.received.is_empty() && rest.is_empty(),
            "{:?} {rest:?}",
            self.received
        );
    }

    /// Nothing more comes, and the connection ends by a reset or in order.
    pub fn expect_no_more(&mut self) {
        let mut rest = Vec::new();
        // What came before a reset is kept.
        let _ = self.stream.read_to_end(&mut rest);
        assert!(self.received.is_empty() && rest.is_empty(), "{rest:?}");
    }

    /// The connection ends, by a reset or in order, whatever comes before that.
    pub fn expect_cut(&mut self) {
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Waits for a packet.
    pub fn with_packet<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> T {
        with_packet(&mut self.stream, &mut self.received, self.version, look)
    }
}

/// Reads into `received` until a packet is whole, which is taken out of it.
pub fn with_packet<T>(
    from: &mut impl Read,
    received: &mut Vec<u8>,
    version: ProtocolVersion,
    look: impl FnOnce(Packet<'_>) -> T,
) -> T {
    loop {
        match decode(received, version, &DecodeLimits::default()).unwrap() {
            Decoded::Packet { packet, len } => {
                let seen = look(packet);
                received.drain(..len);
                return seen;
            }
            Decoded::NeedMore(_) => {
                let mut bytes = [0; 65_536];
                let n = from.read(&mut bytes).unwrap();
                assert!(n > 0, "the connection ended after {received:?}");
                received.extend_from_slice(&bytes[..n]);
            }
        }
    }
}

pub fn connect(version: ProtocolVersion, client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Connect::new(version, client_id).encode(version, &mut bytes);
    bytes
}

/// A SUBSCRIBE at QoS 0.
pub fn subscribe(version: ProtocolVersion, filter: &str) -> Vec<u8> {
    subscribe_at(version, filter, QoS::AtMostOnce)
}

pub fn subscribe_at(version: ProtocolVersion, filter: &str, qos: QoS) -> Vec<u8> {
    let mut bytes = Vec::new();
    let options = SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::default(),
    };
    Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        properties: SubscribeProperties::default(),
        filters: Subscriptions::from_slice(&[(TopicFilter::new(filter).unwrap(), options)]),
    }
    .encode(version, &mut bytes);
    bytes
}

/// A PUBLISH at QoS 0.
pub fn publish(version: ProtocolVersion, topic: &str, payload: &[u8]) -> Vec<u8> {
    publish_at(version, topic, payload, QoS::AtMostOnce, None)
}

pub fn publish_at(
    version: ProtocolVersion,
    topic: &str,
    payload: &[u8],
    qos: QoS,
    packet_id: Option<PacketId>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::new(topic).unwrap()),
        packet_id,
        properties: PublishProperties::default(),
        payload,
    }
    .encode(version, &mut bytes);
    bytes
}

pub fn puback(version: ProtocolVersion, packet_id: PacketId) -> Vec<u8> {
    let mut bytes = Vec::new();
    PubAck {
        packet_id,
        reason_code: ReasonCode::Success,
        properties: AckProperties::default(),
    }
    .encode(version, &mut bytes);
    bytes
}

pub fn disconnect(version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    Disconnect::new(ReasonCode::NORMAL_DISCONNECTION).encode(version, &mut bytes);
    bytes
}
