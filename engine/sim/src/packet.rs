//! Packets that outlive the call they were made in: what clients say, and what they are told.

use std::num::{NonZeroU16, NonZeroU32};

use sol_codec::{
    ApplicationProperties, ApplicationPropertiesBuilder, Connect, ConnectProperties, Disconnect, DisconnectProperties,
    Filters, Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, QoS,
    ReasonCode, Subscribe, SubscribeProperties, SubscriptionId, SubscriptionOptions, Subscriptions, TopicAlias,
    TopicFilter, TopicName, Unsubscribe, Will, WillProperties,
};
use sol_engine::AckKind;

/// The User Property that carries a message's number, so that an empty one can be told from others.
const NUMBER: &str = "n";

/// What a client says.
#[derive(Clone, Debug)]
pub enum Request {
    /// CONNECT.
    Connect(ConnectRequest),
    /// PUBLISH.
    Publish(PublishRequest),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(AckKind, u16),
    /// SUBSCRIBE.
    Subscribe {
        /// Packet Identifier.
        packet_id: u16,
        /// Subscription Identifier.
        subscription_id: Option<u32>,
        /// Topic Filters and their options.
        filters: Vec<(String, SubscriptionOptions)>,
    },
    /// UNSUBSCRIBE.
    Unsubscribe {
        /// Packet Identifier.
        packet_id: u16,
        /// Topic Filters.
        filters: Vec<String>,
    },
    /// DISCONNECT.
    Disconnect {
        /// Why.
        reason_code: ReasonCode,
        /// A new Session Expiry Interval.
        session_expiry_interval: Option<u32>,
    },
    /// The end of the stream, which is no packet.
    End,
}

/// What a CONNECT asks for. What a version has no word for is not said.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Protocol version.
    pub version: ProtocolVersion,
    /// Client Identifier.
    pub client_id: String,
    /// Clean Start.
    pub clean_start: bool,
    /// Session Expiry Interval.
    pub session_expiry_interval: u32,
    /// Receive Maximum.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size.
    pub maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: u16,
    /// The Will.
    pub will: Option<WillRequest>,
    /// User Name.
    pub username: Option<String>,
}

/// A Will in a CONNECT.
#[derive(Clone, Debug)]
pub struct WillRequest {
    /// The number of its message.
    pub number: u32,
    /// Topic Name.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Will Delay Interval.
    pub delay: u32,
}

/// A PUBLISH of a client.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// The number of its message.
    pub number: u32,
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; `None`: the alias stands for it.
    pub topic: Option<String>,
    /// Topic Alias.
    pub alias: Option<u16>,
    /// Packet Identifier.
    pub packet_id: Option<u16>,
    /// Message Expiry Interval.
    pub expiry: Option<u32>,
    /// The number is told as a User Property.
    pub tagged: bool,
    /// Payload.
    pub payload: String,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// CONNACK.
    ConnAck {
        /// Session Present.
        session_present: bool,
        /// Whether it was let in, and why not.
        reason_code: ReasonCode,
        /// Receive Maximum.
        receive_maximum: u16,
        /// Topic Alias Maximum.
        topic_alias_maximum: u16,
    },
    /// PUBLISH.
    Publish(Received),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(AckKind, u16, ReasonCode),
    /// SUBACK.
    SubAck(u16, Vec<ReasonCode>),
    /// UNSUBACK.
    UnsubAck(u16, Vec<ReasonCode>),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(ReasonCode),
}

/// A PUBLISH as a client receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; `None` until the alias was looked up.
    pub topic: Option<String>,
    /// Topic Alias.
    pub alias: Option<u16>,
    /// Packet Identifier.
    pub packet_id: Option<u16>,
    /// Message Expiry Interval.
    pub expiry: Option<u32>,
    /// Subscription Identifiers.
    pub subscription_ids: Vec<u32>,
    /// The number in the User Property.
    pub tag: Option<u32>,
    /// Payload.
    pub payload: String,
}

impl Received {
    /// The number of its message, if it can be told.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.tag.or_else(|| number_in(&self.payload))
    }

    pub(crate) fn new(publish: &Publish<'_>) -> Self {
        let properties = &publish.properties;
        let tag = properties.application.user_properties();
        Self {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic.map(|topic| topic.as_str().to_owned()),
            alias: properties.topic_alias.map(TopicAlias::get),
            packet_id: publish.packet_id.map(PacketId::get),
            expiry: properties.message_expiry_interval,
            subscription_ids: properties.subscription_ids.iter().map(SubscriptionId::get).collect(),
            tag: tag
                .iter()
                .find_map(|(name, value)| if name == NUMBER { value.parse().ok() } else { None }),
            payload: String::from_utf8_lossy(publish.payload).into_owned(),
        }
    }
}

/// The payload of a message: its number, then as much that says nothing.
#[must_use]
pub fn payload_of(number: u32, padding: usize) -> String {
    format!("{number}{}", ".".repeat(padding))
}

fn number_in(payload: &str) -> Option<u32> {
    payload.trim_end_matches('.').parse().ok()
}

impl Request {
    /// Gives `then` this as a packet; `None`: it is none.
    pub fn with_packet<R>(&self, version: ProtocolVersion, then: impl FnOnce(&Packet<'_>) -> R) -> Option<R> {
        Some(match self {
            Self::Connect(connect) => connect.with_packet(then),
            Self::Publish(publish) => publish.with_packet(version, then),
            Self::Ack(kind, packet_id) => then(&ack(*kind, id(*packet_id))),
            Self::Subscribe {
                packet_id,
                subscription_id,
                filters,
            } => {
                let requests: Vec<_> = filters.iter().map(|(text, options)| (filter(text), *options)).collect();
                then(&Packet::Subscribe(Subscribe {
                    packet_id: id(*packet_id),
                    properties: SubscribeProperties {
                        subscription_id: subscription_id.and_then(SubscriptionId::new),
                        ..SubscribeProperties::default()
                    },
                    filters: Subscriptions::from_slice(&requests),
                }))
            }
            Self::Unsubscribe { packet_id, filters } => {
                let filters: Vec<_> = filters.iter().map(|text| filter(text)).collect();
                then(&Packet::Unsubscribe(Unsubscribe {
                    packet_id: id(*packet_id),
                    user_properties: sol_codec::UserProperties::default(),
                    filters: Filters::from_slice(&filters),
                }))
            }
            Self::Disconnect {
                reason_code,
                session_expiry_interval,
            } => then(&Packet::Disconnect(Disconnect {
                reason_code: *reason_code,
                properties: DisconnectProperties {
                    session_expiry_interval: *session_expiry_interval,
                    ..DisconnectProperties::default()
                },
            })),
            Self::End => return None,
        })
    }
}

impl ConnectRequest {
    fn with_packet<R>(&self, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        let v5 = self.version == ProtocolVersion::V5;
        let will = self.will.as_ref().map(|will| Will {
            topic: topic(&will.topic),
            payload: will.payload.as_bytes(),
            qos: will.qos,
            retain: will.retain,
            properties: WillProperties {
                will_delay_interval: if v5 { will.delay } else { 0 },
                ..WillProperties::default()
            },
        });
        let mut properties = ConnectProperties::default();
        if v5 {
            properties.session_expiry_interval = Some(self.session_expiry_interval);
            properties.receive_maximum = self.receive_maximum.and_then(NonZeroU16::new);
            properties.maximum_packet_size = self.maximum_packet_size.and_then(NonZeroU32::new);
            properties.topic_alias_maximum = Some(self.topic_alias_maximum);
        }
        then(&Packet::Connect(Connect {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: 0,
            client_id: &self.client_id,
            will,
            username: self.username.as_deref(),
            password: None,
            properties,
        }))
    }
}

impl PublishRequest {
    fn with_packet<R>(&self, version: ProtocolVersion, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        let mut properties = Vec::new();
        let mut publish_properties = PublishProperties::default();
        if version == ProtocolVersion::V5 {
            if self.tagged {
                let _ =
                    ApplicationPropertiesBuilder::new(&mut properties).user_property(NUMBER, &self.number.to_string());
            }
            publish_properties = PublishProperties {
                message_expiry_interval: self.expiry,
                topic_alias: self.alias.and_then(TopicAlias::new),
                application: ApplicationProperties::from_stored(&properties),
                ..publish_properties
            };
        }
        then(&Packet::Publish(Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_deref().map(topic),
            packet_id: self.packet_id.map(id),
            properties: publish_properties,
            payload: self.payload.as_bytes(),
        }))
    }
}

fn ack<'a>(kind: AckKind, packet_id: PacketId) -> Packet<'a> {
    match kind {
        AckKind::PubAck => Packet::PubAck(PubAck::success(packet_id)),
        AckKind::PubRec => Packet::PubRec(PubRec::success(packet_id)),
        AckKind::PubRel => Packet::PubRel(PubRel::success(packet_id)),
        AckKind::PubComp => Packet::PubComp(PubComp::success(packet_id)),
    }
}

// A client of ours that says what is no packet is a fault of ours, and the run ends.

fn id(packet_id: u16) -> PacketId {
    PacketId::new(packet_id).unwrap_or_else(|| unreachable!("clients do not use 0"))
}

fn topic(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap_or_else(|error| unreachable!("{text} is no Topic Name: {error:?}"))
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap_or_else(|error| unreachable!("{text} is no Topic Filter: {error:?}"))
}
