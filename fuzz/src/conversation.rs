//! What may happen to an engine, as data that a fuzzer makes: few clients, few topics, few identifiers, so that they
//! meet; and now and then something that is no packet at all.

use arbitrary::Arbitrary;
use sol_codec::{
    Auth, AuthProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId,
    ProtocolVersion, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeProperties, SubscriptionId, SubscriptionOptions, Subscriptions, TopicAlias, TopicFilter,
    TopicName, Unsubscribe, Will, WillProperties,
};

use crate::encoded;
use crate::world::World;

pub const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "/", "a//c", "$SYS/x", "b", "é/ü"];
const FILTERS: [&str; 16] = [
    "a",
    "a/b",
    "a/+",
    "#",
    "+",
    "a/#",
    "+/b",
    "/#",
    "a//+",
    "$SYS/#",
    "+/+/+",
    "b",
    "$share/g/a/#",
    "$share/g/#",
    "$share/h/a",
    "é/+",
];
pub const CLIENT_IDS: [&str; 3] = ["c", "d", "e"];
/// The engines know the first one.
pub const METHODS: [&str; 2] = ["SCRAM-SHA-256", "other"];

/// A configuration and a story.
#[derive(Arbitrary, Debug)]
pub struct Story {
    setup: Setup,
    steps: Vec<Step>,
}

impl Setup {
    /// The plainest one.
    pub const PLAIN: Self = Self {
        journal: false,
        ask: false,
        queue_qos0: false,
        queue_full: 0,
        limits: 0,
        memory: 0,
    };
}

impl Story {
    /// The most steps that are told.
    const STEPS_MAX: usize = 200;

    /// Tells it to so many engines.
    pub fn happen(&self, shards: u16) {
        let mut world = World::new(self.setup, shards);
        for step in self.steps.iter().take(Self::STEPS_MAX) {
            world.step(step);
        }
        world.end();
    }
}

/// What of the configuration matters to a conversation; small numbers, so that limits are met.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Setup {
    pub journal: bool,
    pub ask: bool,
    pub queue_qos0: bool,
    pub queue_full: u8,
    pub limits: u8,
    pub memory: u8,
}

/// One thing that happens; `who` is one of four places for a connection.
#[derive(Arbitrary, Debug)]
pub enum Step {
    Open {
        who: u8,
    },
    Send {
        who: u8,
        request: Request,
    },
    Garbage {
        who: u8,
        bytes: Vec<u8>,
    },
    Lose {
        who: u8,
    },
    Congest {
        who: u8,
        unsent: u32,
    },
    Drain {
        who: u8,
    },
    Login {
        answer: u8,
    },
    Durable,
    Pressure {
        full: bool,
    },
    Tick,
    Pass {
        seconds: u16,
    },
    Shutdown,
    /// Mail between shards lies where it is, until it is let through.
    Hold,
    Release,
    /// A shard's mailbox fills above its mark, or falls below it.
    Crowd {
        shard: u8,
        full: bool,
    },
}

/// What a client says.
#[derive(Arbitrary, Debug)]
pub enum Request {
    Connect(Introduction),
    Publish {
        topic: u8,
        level: u8,
        id: u8,
        flags: u8,
        alias: u8,
        expiry: u8,
        payload: Vec<u8>,
    },
    PubAck {
        id: u8,
        refused: bool,
    },
    PubRec {
        id: u8,
        refused: bool,
    },
    PubRel {
        id: u8,
    },
    PubComp {
        id: u8,
    },
    Subscribe {
        id: u8,
        filters: Vec<(u8, u8)>,
        subscription_id: u8,
    },
    Unsubscribe {
        id: u8,
        filters: Vec<u8>,
    },
    Ping,
    Disconnect {
        with_will: bool,
        expiry: Option<u8>,
    },
    Auth {
        reason: u8,
        method: u8,
        data: Option<Vec<u8>>,
    },
}

/// A CONNECT.
#[derive(Arbitrary, Debug)]
pub struct Introduction {
    version: u8,
    client_id: u8,
    clean_start: bool,
    keep_alive: u8,
    expiry: u8,
    receive_maximum: u8,
    packet_size: u8,
    aliases: u8,
    /// A user name with its password, an Authentication Method, or both.
    login: u8,
    will: Option<(u8, u8, u8)>,
}

impl Request {
    /// What goes over the wire; the version of a CONNECT is its own.
    pub fn bytes(&self, version: ProtocolVersion) -> Vec<u8> {
        match self {
            Self::Connect(introduction) => introduction.bytes(),
            Self::Publish { .. } => self.publish_bytes(version),
            Self::PubAck { id, refused } => {
                encoded(&Packet::PubAck(PubAck::new(packet_id(*id), reason(*refused))), version)
            }
            Self::PubRec { id, refused } => {
                encoded(&Packet::PubRec(PubRec::new(packet_id(*id), reason(*refused))), version)
            }
            Self::PubRel { id } => encoded(&Packet::PubRel(PubRel::success(packet_id(*id))), version),
            Self::PubComp { id } => encoded(&Packet::PubComp(PubComp::success(packet_id(*id))), version),
            Self::Subscribe {
                id,
                filters,
                subscription_id,
            } => subscribe(*id, filters, *subscription_id, version),
            Self::Unsubscribe { id, filters } => unsubscribe(*id, filters, version),
            Self::Ping => encoded(&Packet::PingReq, version),
            Self::Disconnect { with_will, expiry } => disconnect(*with_will, *expiry, version),
            Self::Auth { reason, method, data } => auth(*reason, *method, data.as_deref()),
        }
    }

    fn publish_bytes(&self, version: ProtocolVersion) -> Vec<u8> {
        let Self::Publish {
            topic,
            level,
            id,
            flags,
            alias,
            expiry,
            payload,
        } = self
        else {
            return Vec::new();
        };
        let qos = qos(*level);
        let properties = PublishProperties {
            message_expiry_interval: seconds(*expiry),
            topic_alias: TopicAlias::new(u16::from(*alias & 0x07)),
            ..PublishProperties::default()
        };
        let by_alias = version == ProtocolVersion::V5 && flags & 0x04 != 0;
        let publish = Publish {
            dup: flags & 0x01 != 0,
            qos,
            retain: flags & 0x02 != 0,
            topic: TopicName::new(pick(&TOPICS, *topic)).ok().filter(|_| !by_alias),
            packet_id: Some(packet_id(*id)),
            properties,
            payload,
        };
        encoded(&Packet::Publish(publish), version)
    }
}

impl Introduction {
    fn bytes(&self) -> Vec<u8> {
        let version = match self.version % 4 {
            0 => ProtocolVersion::V31,
            1 => ProtocolVersion::V311,
            _ => ProtocolVersion::V5,
        };
        let will = self.will.and_then(|(topic, level, delay)| {
            Some(Will {
                topic: TopicName::new(pick(&TOPICS, topic)).ok()?,
                payload: b"gone",
                qos: qos(level),
                retain: level & 0x80 != 0,
                properties: WillProperties {
                    will_delay_interval: u32::from(delay),
                    ..WillProperties::default()
                },
            })
        });
        let connect = Connect {
            version,
            clean_start: self.clean_start,
            keep_alive: u16::from(self.keep_alive),
            client_id: client_id(self.client_id),
            will,
            username: (self.login & 0x01 != 0).then_some("u"),
            password: (self.login & 0x01 != 0).then_some(b"p"),
            properties: ConnectProperties {
                session_expiry_interval: seconds(self.expiry),
                receive_maximum: u16::from(self.receive_maximum).try_into().ok(),
                maximum_packet_size: u32::from(self.packet_size).try_into().ok(),
                topic_alias_maximum: Some(u16::from(self.aliases & 0x03)),
                authentication_method: (self.login & 0x02 != 0).then_some(pick(&METHODS, self.login >> 2)),
                ..ConnectProperties::default()
            },
        };
        encoded(&Packet::Connect(connect), version)
    }
}

fn subscribe(id: u8, filters: &[(u8, u8)], subscription_id: u8, version: ProtocolVersion) -> Vec<u8> {
    let requests: Vec<_> = filters
        .iter()
        .filter_map(|&(filter, options)| Some((TopicFilter::new(pick(&FILTERS, filter)).ok()?, subscription(options))))
        .collect();
    let subscribe = Subscribe {
        packet_id: packet_id(id),
        properties: SubscribeProperties {
            subscription_id: SubscriptionId::new(u32::from(subscription_id)),
            ..SubscribeProperties::default()
        },
        filters: Subscriptions::from_slice(&requests),
    };
    encoded(&Packet::Subscribe(subscribe), version)
}

fn unsubscribe(id: u8, filters: &[u8], version: ProtocolVersion) -> Vec<u8> {
    let filters: Vec<_> = filters
        .iter()
        .filter_map(|&filter| TopicFilter::new(pick(&FILTERS, filter)).ok())
        .collect();
    let unsubscribe = Unsubscribe {
        packet_id: packet_id(id),
        user_properties: Default::default(),
        filters: sol_codec::Filters::from_slice(&filters),
    };
    encoded(&Packet::Unsubscribe(unsubscribe), version)
}

fn disconnect(with_will: bool, expiry: Option<u8>, version: ProtocolVersion) -> Vec<u8> {
    let reason_code = if with_will {
        ReasonCode::DisconnectWithWillMessage
    } else {
        ReasonCode::Success
    };
    let properties = DisconnectProperties {
        session_expiry_interval: expiry.map(u32::from),
        ..DisconnectProperties::default()
    };
    encoded(
        &Packet::Disconnect(Disconnect {
            reason_code,
            properties,
        }),
        version,
    )
}

fn auth(reason: u8, method: u8, data: Option<&[u8]>) -> Vec<u8> {
    let reason_code = match reason % 3 {
        0 => ReasonCode::ContinueAuthentication,
        1 => ReasonCode::ReAuthenticate,
        _ => ReasonCode::Success,
    };
    let properties = AuthProperties {
        authentication_method: Some(pick(&METHODS, method)),
        authentication_data: data,
        ..AuthProperties::default()
    };
    encoded(
        &Packet::Auth(Auth {
            reason_code,
            properties,
        }),
        ProtocolVersion::V5,
    )
}

/// Now and then none: the engine chooses one.
fn client_id(number: u8) -> &'static str {
    CLIENT_IDS.get(usize::from(number % 4)).copied().unwrap_or_default()
}

fn subscription(bits: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(bits),
        no_local: bits & 0x04 != 0,
        retain_as_published: bits & 0x08 != 0,
        retain_handling: RetainHandling::from_bits(bits >> 4 & 0x03).unwrap_or_default(),
    }
}

fn reason(refused: bool) -> ReasonCode {
    if refused {
        ReasonCode::UnspecifiedError
    } else {
        ReasonCode::Success
    }
}

fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits & 0x03).unwrap_or(QoS::AtLeastOnce)
}

fn packet_id(id: u8) -> PacketId {
    PacketId::new(1 + u16::from(id % 8)).expect("it is at least 1")
}

fn seconds(byte: u8) -> Option<u32> {
    match byte {
        0 => None,
        u8::MAX => Some(u32::MAX),
        _ => Some(u32::from(byte - 1)),
    }
}

fn pick<'a>(texts: &[&'a str], number: u8) -> &'a str {
    texts[usize::from(number) % texts.len()]
}
