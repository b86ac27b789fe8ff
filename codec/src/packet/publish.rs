//! PUBLISH (section 3.3).

use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::mutants::{mutant, planted};
use crate::primitive::{Parsed, binary, fail, packet_id, topic_name};
use crate::property::parse::section;
use crate::property::{Holder, PropertyId};
use crate::{
    ApplicationProperties, DecodeErrorKind, PacketId, PacketType, ProtocolVersion, QoS, SubscriptionIds, TopicAlias,
    TopicName,
};

/// PUBLISH: an Application Message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether this may be a repeat; false at QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// How hard the sender tries.
    pub qos: QoS,
    /// To a server: keep it as the retained message. To a client: it was kept, or `retain_as_published` is in force.
    pub retain: bool,
    /// Where it is published; `None` only on 5.0, where a Topic Alias stands in for it.
    pub topic: Option<TopicName<'a>>,
    /// `Some` exactly above QoS 0 [MQTT-2.2.1-2]; encoding panics where it is missing.
    pub packet_id: Option<PacketId>,
    /// Always empty on 3.x.
    pub properties: PublishProperties<'a>,
    /// What is published.
    pub payload: &'a [u8],
}

/// The Properties of a PUBLISH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// How long the message lives, in seconds; `None`: for ever.
    pub message_expiry_interval: Option<u32>,
    /// What stands, or shall stand, for the Topic Name.
    pub topic_alias: Option<TopicAlias>,
    /// For which Subscriptions it is delivered; from a server only [MQTT-3.3.4-6].
    pub subscription_ids: SubscriptionIds<'a>,
    /// What is passed on with the message.
    pub application: ApplicationProperties<'a>,
}

pub(super) const FLAG_RETAIN: u8 = 0x01;
pub(super) const QOS_SHIFT: u8 = 1;
pub(super) const FLAG_DUP: u8 = 0x08;

/// Packet type and flags of a PUBLISH.
#[inline]
pub(super) const fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    let dup = if dup { FLAG_DUP } else { 0 };
    let retain = if retain { FLAG_RETAIN } else { 0 };
    PacketType::Publish.first_byte() | dup | (qos as u8) << QOS_SHIFT | retain
}

impl Publish<'_> {
    /// The identifier that stands on the wire: at QoS 0 none [MQTT-2.2.1-2].
    ///
    /// # Panics
    /// If the caller left it out above QoS 0.
    #[inline]
    fn wire_packet_id(&self) -> Option<PacketId> {
        assert!(
            self.packet_id.is_some() || self.qos == QoS::AtMostOnce,
            "a PUBLISH above QoS 0 has a Packet Identifier"
        );
        self.packet_id.filter(|_| self.qos > QoS::AtMostOnce)
    }

    /// Everything between the Fixed Header and the payload. Gives where the Packet Identifier stands in it.
    #[inline]
    pub(super) fn write_head(&self, version: ProtocolVersion, out: &mut impl Sink) {
        out.put_str(self.topic.map_or("", TopicName::as_str));
        if let Some(packet_id) = self.wire_packet_id() {
            out.put_u16(packet_id.get());
        }
        if version == ProtocolVersion::V5 {
            out.put_section(&self.properties);
        }
    }
}

impl Section for PublishProperties<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.put_u32_property(PropertyId::MessageExpiryInterval, self.message_expiry_interval);
        out.put_u16_property(PropertyId::TopicAlias, self.topic_alias.map(TopicAlias::get));
        self.subscription_ids.write(out);
        self.application.write(out);
    }
}

impl Body for Publish<'_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        first_byte(self.dup && self.qos > QoS::AtMostOnce, self.qos, self.retain)
    }

    #[inline]
    fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
        self.write_head(version, out);
        out.put_slice(self.payload);
    }
}

encodable!(Publish<'_>);

#[inline]
pub(crate) fn parse<'a>(
    input: &'a [u8],
    context: Context<'_>,
    known: Option<TopicName<'a>>,
) -> Parsed<'a, Publish<'a>> {
    let flags = context.header.flags;
    let qos = QoS::from_bits(flags >> QOS_SHIFT & 0x03)
        .or_else(|| mutant("5.0/3.3.1-4").then_some(QoS::ExactlyOnce))
        .ok_or_else(|| fail(input, DecodeErrorKind::InvalidQoS))?;
    let (rest, topic) = match known {
        Some(topic) => binary(input).map(|(rest, _)| (rest, Some(topic)))?,
        None => topic_name(input, context.limits)?,
    };
    let is_planted = topic.is_some_and(|topic| planted("panic/decode", topic.as_str()));
    assert!(!is_planted, "planted in decode");
    let (rest, packet_id) = match qos {
        QoS::AtMostOnce => (rest, None),
        _ => packet_id(rest).map(|(rest, id)| (rest, Some(id)))?,
    };
    let (payload, properties) = match context.version {
        ProtocolVersion::V5 => properties(rest, context)?,
        _ => (rest, PublishProperties::default()),
    };
    if topic.is_none() && properties.topic_alias.is_none() {
        return Err(fail(input, DecodeErrorKind::EmptyTopic));
    }
    let (dup, retain) = (flags & FLAG_DUP != 0, flags & FLAG_RETAIN != 0);
    Ok((
        &[],
        Publish {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        },
    ))
}

#[inline]
fn properties<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, PublishProperties<'a>> {
    let mut properties = PublishProperties::default();
    let holder = Holder::Packet(PacketType::Publish);
    let (rest, checked) = section(input, holder, context.limits.direction, |id, value| match id {
        PropertyId::MessageExpiryInterval => properties.message_expiry_interval = value.u32(),
        PropertyId::TopicAlias => properties.topic_alias = value.topic_alias(),
        _ => {}
    })?;
    properties.subscription_ids = checked.subscription_ids();
    properties.application = checked.application();
    Ok((rest, properties))
}
