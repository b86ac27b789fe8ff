//! A broker in this process, on either backend, and clients of it on blocking sockets.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, Subscribe, SubscribeProperties,
    SubscriptionOptions, Subscriptions, TopicFilter, TopicName,
};
use sol_engine::{Engine, EngineConfig, ListenerRules, ShardId};
use sol_transport::{Clock, Io, ListenAddr, ListenerConfig, Shards, TransportConfig};

use crate::packets::encoded;
use crate::process;

const SEEDS: [u64; 4] = [1, 2, 3, 4];
const VERSION: ProtocolVersion = ProtocolVersion::V311;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker on a free port.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    engine: EngineConfig,
    shards: Shards,
}

impl Broker {
    /// Starts one that lets everybody in.
    ///
    /// # Errors
    /// When the system refuses a port or the backend.
    pub fn start(io: Io, shards: u16) -> io::Result<Self> {
        let engine = EngineConfig {
            shards,
            listeners: vec![ListenerRules {
                allow_anonymous: true,
                ask: false,
                named: false,
            }],
            ..EngineConfig::default()
        };
        let address = ListenAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = TransportConfig {
            io,
            listeners: vec![ListenerConfig::new(address)],
            ..TransportConfig::default()
        };
        let shards = Shards::start(&config, &engine, SEEDS, Clock::start(), |_| ()).map_err(io::Error::other)?;
        match shards.addresses() {
            [ListenAddr::Tcp(address)] => Ok(Self {
                address: *address,
                engine,
                shards,
            }),
            other => Err(io::Error::other(format!("bound to {other:?}"))),
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A Client Identifier that is at home on a shard: `name` with a number behind it.
    #[must_use]
    pub fn name_on(&self, shard: u16, name: &str) -> String {
        let engine = Engine::new(ShardId(shard % self.engine.shards), Rc::new(self.engine.clone()), SEEDS);
        (0u32..)
            .map(|number| format!("{name}{number}"))
            .find(|name| engine.is_home_of_client(name))
            .unwrap_or_default()
    }

    /// A client that was let in.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn client(&self, client_id: &str) -> io::Result<Client> {
        let connect = Packet::Connect(Connect::new(VERSION, client_id));
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client { stream };
        client.send(&encoded(&connect, VERSION))?;
        client.receive(4)?;
        Ok(client)
    }

    /// Processor time that the shards' threads have used. Elapsed time would measure the clients beside them.
    ///
    /// # Errors
    /// On a system without Linux's accounting.
    pub fn processor_time(&self) -> io::Result<Duration> {
        let mut seconds = 0.0;
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.starts_with("shard-") {
                seconds += process::seconds(&task.join("stat"))?;
            }
        }
        Ok(Duration::from_secs_f64(seconds))
    }

    /// Stops it and waits for its end.
    pub fn stop(self) {
        self.shards.handle().stop();
        let _ = self.shards.join();
    }
}

/// One connection of a client.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Writes bytes.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// When the connection fails or they do not come.
    pub fn receive(&mut self, bytes: usize) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let mut left = bytes;
        while left > 0 {
            let room = left.min(buffer.len());
            let n = self.stream.read(&mut buffer[..room])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= n;
        }
        Ok(())
    }

    /// Subscribes at QoS 0.
    ///
    /// # Errors
    /// When the connection fails.
    ///
    /// # Panics
    /// When `filter` is no Topic Filter.
    pub fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let filter = TopicFilter::new(filter).expect("a Topic Filter");
        let filters = [(filter, SubscriptionOptions::default())];
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).expect("1 is not 0"),
            filters: Subscriptions::from_slice(&filters),
            properties: SubscribeProperties::default(),
        });
        self.send(&encoded(&subscribe, VERSION))?;
        self.receive(5)
    }
}

/// PUBLISH at QoS 0 with 64 bytes of payload.
///
/// # Panics
/// When `topic` is no Topic Name.
#[must_use]
pub fn publish(topic: &str) -> Vec<u8> {
    let publish = Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(TopicName::new(topic).expect("a Topic Name")),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: &[b'x'; 64],
    });
    encoded(&publish, VERSION)
}
