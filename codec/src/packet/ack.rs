//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): one shape, four names.

use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::primitive::{Parsed, packet_id, reason_code};
use crate::property::parse::section;
use crate::property::{Holder, PropertyId};
use crate::{PacketId, PacketType, ProtocolVersion, ReasonCode, UserProperties};

/// What an acknowledgement says beside its Reason Code; always empty on 3.x.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckProperties<'a> {
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl AckProperties<'_> {
    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

impl<'a> AckProperties<'a> {
    pub(super) fn parse(input: &'a [u8], context: Context<'_>) -> Parsed<'a, Self> {
        let mut reason_string = None;
        let holder = Holder::Packet(context.header.packet_type);
        let (rest, checked) = section(input, holder, context.limits.direction, |id, value| {
            if id == PropertyId::ReasonString {
                reason_string = value.text();
            }
        })?;
        Ok((
            rest,
            Self {
                reason_string,
                user_properties: checked.user_properties(),
            },
        ))
    }
}

impl Section for AckProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.put_str_property(PropertyId::ReasonString, self.reason_string);
        self.user_properties.write(out);
    }
}

macro_rules! acknowledgement {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<'a> {
            /// The Packet Identifier of the PUBLISH.
            pub packet_id: PacketId,
            /// How it went; always [`ReasonCode::Success`] on 3.x.
            pub reason_code: ReasonCode,
            /// Always empty on 3.x.
            pub properties: AckProperties<'a>,
        }

        impl $name<'_> {
            /// A success without Properties: four bytes on the wire.
            #[inline]
            #[must_use]
            pub fn success(packet_id: PacketId) -> Self {
                Self::new(packet_id, ReasonCode::Success)
            }

            /// An answer without Properties.
            #[inline]
            #[must_use]
            pub fn new(packet_id: PacketId, reason_code: ReasonCode) -> Self {
                Self {
                    packet_id,
                    reason_code,
                    properties: AckProperties::default(),
                }
            }
        }

        impl<'a> $name<'a> {
            #[inline]
            pub(crate) fn parse(input: &'a [u8], context: Context<'_>) -> Parsed<'a, Self> {
                let (rest, (packet_id, reason_code, properties)) = parse(input, context)?;
                Ok((
                    rest,
                    Self {
                        packet_id,
                        reason_code,
                        properties,
                    },
                ))
            }
        }

        impl Body for $name<'_> {
            #[inline]
            fn first_byte(&self) -> u8 {
                PacketType::$name.first_byte()
            }

            #[inline]
            fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
                write(self.packet_id, self.reason_code, &self.properties, version, out);
            }
        }

        encodable!($name<'_>);
    };
}

acknowledgement!(PubAck, "PUBACK: the receiver owns a QoS 1 message now.");
acknowledgement!(PubRec, "PUBREC: the receiver owns a QoS 2 message now.");
acknowledgement!(
    PubRel,
    "PUBREL: the sender has forgotten the message and will not send it again."
);
acknowledgement!(PubComp, "PUBCOMP: the receiver has forgotten the Packet Identifier.");

#[inline]
fn write(
    id: PacketId,
    code: ReasonCode,
    properties: &AckProperties<'_>,
    version: ProtocolVersion,
    out: &mut impl Sink,
) {
    out.put_u16(id.get());
    if version < ProtocolVersion::V5 {
        return;
    }
    let bare = properties.is_empty();
    if bare && code == ReasonCode::Success {
        return;
    }
    out.put_u8(code.value());
    if !bare {
        out.put_section(properties);
    }
}

/// Two bytes say success, three say a Reason Code, and only more bring Properties (section 3.4.2.1).
#[inline]
fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, (PacketId, ReasonCode, AckProperties<'a>)> {
    let (rest, packet_id) = packet_id(input)?;
    if !context.is_v5() || rest.is_empty() {
        return Ok((rest, (packet_id, ReasonCode::Success, AckProperties::default())));
    }
    let (rest, reason_code) = reason_code(rest, context.header.packet_type)?;
    if rest.is_empty() {
        return Ok((rest, (packet_id, reason_code, AckProperties::default())));
    }
    let (rest, properties) = AckProperties::parse(rest, context)?;
    Ok((rest, (packet_id, reason_code, properties)))
}
