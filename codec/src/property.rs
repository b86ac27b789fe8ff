//! Properties (section 2.2.2): one table, and the walk over a section that holds them.

pub(crate) mod application;
pub(crate) mod parse;
pub(crate) mod subscription_ids;
pub(crate) mod user;

use crate::packet::{PacketSet, PacketType};
use crate::var_int::{self, VarInt};

/// How a Property's value stands on the wire. The specification's one-byte Properties all allow 0 and 1 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Boolean,
    TwoByte,
    FourByte,
    VarInt,
    Utf8,
    Binary,
    Utf8Pair,
}

/// Whether a Property may stand more than once in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeats {
    Once,
    /// On a PUBLISH it may, elsewhere it may not.
    OnPublish,
    Always,
}

/// One row per Property: identifier, name, wire type, how often it may stand in a section, and where (`Will` is the
/// section of the Will in a CONNECT).
macro_rules! properties {
    ($($value:literal $name:ident $wire_type:ident $often:ident [$($packet:ident)+], $doc:literal;)+) => {
        /// A Property Identifier.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum PropertyId {
            $(#[doc = $doc] $name = $value,)+
        }

        impl PropertyId {
            /// Every Property, in order of identifier.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The Property with this identifier, if there is one.
            #[inline]
            #[must_use]
            pub const fn from_value(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)+
                    _ => None,
                }
            }

            #[inline]
            pub(crate) const fn wire_type(self) -> WireType {
                match self {
                    $(Self::$name => WireType::$wire_type,)+
                }
            }

            #[inline]
            const fn repeats(self) -> Repeats {
                match self {
                    $(Self::$name => Repeats::$often,)+
                }
            }

            #[inline]
            const fn holders(self) -> PacketSet {
                match self {
                    $(Self::$name => PacketSet::NONE$(.with(properties!(@ $packet)))+,)+
                }
            }
        }
    };
    (@ Will) => { Holder::Will };
    (@ $packet:ident) => { Holder::Packet(PacketType::$packet) };
}

properties! {
    0x01 PayloadFormatIndicator Boolean Once [Publish Will], "Payload Format Indicator: whether the payload is UTF-8.";
    0x02 MessageExpiryInterval FourByte Once [Publish Will], "Message Expiry Interval, in seconds.";
    0x03 ContentType Utf8 Once [Publish Will], "Content Type of the payload.";
    0x08 ResponseTopic Utf8 Once [Publish Will], "Response Topic for an answer.";
    0x09 CorrelationData Binary Once [Publish Will], "Correlation Data for an answer.";
    0x0b SubscriptionIdentifier VarInt OnPublish [Publish Subscribe], "Subscription Identifier; often on a PUBLISH.";
    0x11 SessionExpiryInterval FourByte Once [Connect ConnAck Disconnect], "Session Expiry Interval, in seconds.";
    0x12 AssignedClientIdentifier Utf8 Once [ConnAck], "Client Identifier that the Server assigned.";
    0x13 ServerKeepAlive TwoByte Once [ConnAck], "Keep Alive that the Server wants instead, in seconds.";
    0x15 AuthenticationMethod Utf8 Once [Connect ConnAck Auth], "Authentication Method.";
    0x16 AuthenticationData Binary Once [Connect ConnAck Auth], "Authentication Data.";
    0x17 RequestProblemInformation Boolean Once [Connect], "Whether the Client wants Reason Strings.";
    0x18 WillDelayInterval FourByte Once [Will], "Will Delay Interval, in seconds.";
    0x19 RequestResponseInformation Boolean Once [Connect], "Whether the Client wants Response Information.";
    0x1a ResponseInformation Utf8 Once [ConnAck], "Basis for Response Topics.";
    0x1c ServerReference Utf8 Once [ConnAck Disconnect], "Another Server to use.";
    0x1f ReasonString Utf8 Once [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth], "Reason in words.";
    0x21 ReceiveMaximum TwoByte Once [Connect ConnAck], "How many messages above QoS 0 may be in flight.";
    0x22 TopicAliasMaximum TwoByte Once [Connect ConnAck], "Largest Topic Alias that is accepted.";
    0x23 TopicAlias TwoByte Once [Publish], "Topic Alias.";
    0x24 MaximumQoS Boolean Once [ConnAck], "Largest QoS that the Server accepts, 0 or 1.";
    0x25 RetainAvailable Boolean Once [ConnAck], "Whether the Server keeps retained messages.";
    0x26 UserProperty Utf8Pair Always [Connect ConnAck Publish Will PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck Disconnect Auth], "User Property: a name and a value.";
    0x27 MaximumPacketSize FourByte Once [Connect ConnAck], "Largest packet that is accepted, in bytes.";
    0x28 WildcardSubscriptionAvailable Boolean Once [ConnAck], "Whether Subscriptions may hold wildcards.";
    0x29 SubscriptionIdentifierAvailable Boolean Once [ConnAck], "Whether Subscriptions may have identifiers.";
    0x2a SharedSubscriptionAvailable Boolean Once [ConnAck], "Whether Subscriptions may be shared.";
}

impl PropertyId {
    /// The identifier on the wire: one byte, although the specification allows more.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u8 {
        self as u8
    }

    #[inline]
    const fn may_repeat(self, holder: Holder) -> bool {
        match self.repeats() {
            Repeats::Once => false,
            Repeats::OnPublish => matches!(holder, Holder::Packet(PacketType::Publish)),
            Repeats::Always => true,
        }
    }

    /// Whether a Server passes it on unchanged with the Application Message [MQTT-3.3.2-4], [MQTT-3.3.2-15],
    /// [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-20].
    #[inline]
    pub(crate) const fn is_application(self) -> bool {
        matches!(
            self,
            Self::PayloadFormatIndicator
                | Self::ContentType
                | Self::ResponseTopic
                | Self::CorrelationData
                | Self::UserProperty
        )
    }
}

/// What a Property section belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Packet(PacketType),
    Will,
}

/// One Property of a section that was checked before: its bytes, whole and without the identifier.
#[derive(Clone, Copy)]
pub(crate) struct RawProperty<'a> {
    pub(crate) id: PropertyId,
    pub(crate) whole: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Walks a section without checking it again. On bytes that are no section it ends early.
#[derive(Clone, Copy)]
pub(crate) struct RawProperties<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for RawProperties<'a> {
    type Item = RawProperty<'a>;

    fn next(&mut self) -> Option<RawProperty<'a>> {
        let (&id, rest) = self.0.split_first()?;
        let id = PropertyId::from_value(id)?;
        let (value, rest) = rest.split_at_checked(raw_len(id.wire_type(), rest)?)?;
        let (whole, _) = self.0.split_at_checked(value.len().saturating_add(1))?;
        self.0 = rest;
        Some(RawProperty { id, whole, value })
    }
}

fn raw_len(wire_type: WireType, bytes: &[u8]) -> Option<usize> {
    Some(match wire_type {
        WireType::Boolean => 1,
        WireType::TwoByte => 2,
        WireType::FourByte => 4,
        WireType::VarInt => match var_int::read(bytes) {
            Ok(VarInt::Value(_, len)) => len,
            _ => return None,
        },
        WireType::Utf8 | WireType::Binary => raw_field_len(bytes)?,
        WireType::Utf8Pair => {
            let name = raw_field_len(bytes)?;
            raw_field_len(bytes.get(name..)?)?.saturating_add(name)
        }
    })
}

fn raw_field_len(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*bytes.first_chunk()?)).saturating_add(2))
}

/// The text of a checked string field, without its length.
pub(crate) fn raw_text(field: &[u8]) -> Option<&str> {
    core::str::from_utf8(field.get(2..)?).ok()
}
