//! The packets that decoding and encoding are measured with.

use sol_codec::{
    ApplicationProperties, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, PubAck, Publish,
    PublishProperties, QoS, Subscribe, SubscribeProperties, SubscriptionOptions, Subscriptions, TopicFilter, TopicName,
};

/// A packet, what it is, and the version that it is written in.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What a benchmark calls it.
    pub name: &'static str,
    /// How it is written.
    pub version: ProtocolVersion,
    /// What is written.
    pub packet: Packet<'static>,
}

const PAYLOAD: &[u8; 64] = &[b'x'; 64];
/// Content Type, Response Topic, Correlation Data and one User Property, as they stand on the wire.
const APPLICATION: &[u8] =
    b"\x01\x01\x03\x00\x0aapplicable\x08\x00\x07replies\x09\x00\x04\x00\x01\x02\x03\x26\x00\x05trace\x00\x08deadbeef";

/// PUBLISH of a 64-byte payload in five forms, PUBACK, CONNECT and SUBSCRIBE.
///
/// # Panics
/// Never: the topics in it are valid.
#[must_use]
pub fn samples() -> Vec<Sample> {
    use ProtocolVersion::{V5, V311};
    let sample = |name, version, packet| Sample { name, version, packet };
    let properties = PublishProperties {
        message_expiry_interval: Some(60),
        application: ApplicationProperties::from_stored(APPLICATION),
        ..PublishProperties::default()
    };
    vec![
        sample(
            "PUBLISH QoS 0, 3.1.1",
            V311,
            publish(QoS::AtMostOnce, PublishProperties::default()),
        ),
        sample(
            "PUBLISH QoS 1, 3.1.1",
            V311,
            publish(QoS::AtLeastOnce, PublishProperties::default()),
        ),
        sample(
            "PUBLISH QoS 0, 5.0",
            V5,
            publish(QoS::AtMostOnce, PublishProperties::default()),
        ),
        sample(
            "PUBLISH QoS 1, 5.0",
            V5,
            publish(QoS::AtLeastOnce, PublishProperties::default()),
        ),
        sample(
            "PUBLISH QoS 1, 5.0 with Properties",
            V5,
            publish(QoS::AtLeastOnce, properties),
        ),
        sample("PUBACK, 5.0", V5, Packet::PubAck(PubAck::success(id()))),
        sample("CONNECT, 5.0", V5, connect()),
        sample("SUBSCRIBE, 5.0", V5, subscribe()),
    ]
}

/// The packet's bytes.
#[must_use]
pub fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

const fn id() -> PacketId {
    PacketId::new(7).expect("7 is not 0")
}

fn publish(qos: QoS, properties: PublishProperties<'static>) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::new("site/0042/dev0000042/temp").expect("a valid Topic Name")),
        packet_id: Some(id()).filter(|_| qos > QoS::AtMostOnce),
        properties,
        payload: PAYLOAD,
    })
}

fn connect() -> Packet<'static> {
    Packet::Connect(Connect {
        version: ProtocolVersion::V5,
        clean_start: false,
        keep_alive: 60,
        client_id: "dev0000042",
        will: None,
        username: Some("device"),
        password: Some(b"a long enough secret"),
        properties: ConnectProperties {
            session_expiry_interval: Some(3_600),
            ..ConnectProperties::default()
        },
    })
}

fn subscribe() -> Packet<'static> {
    static ONE: std::sync::LazyLock<[(TopicFilter<'static>, SubscriptionOptions); 1]> =
        std::sync::LazyLock::new(|| {
            let filter = TopicFilter::new("site/0042/+/temp").expect("a valid Topic Filter");
            [(
                filter,
                SubscriptionOptions {
                    qos: QoS::AtLeastOnce,
                    ..SubscriptionOptions::default()
                },
            )]
        });
    Packet::Subscribe(Subscribe {
        packet_id: id(),
        properties: SubscribeProperties::default(),
        filters: Subscriptions::from_slice(&*ONE),
    })
}
