//! Reading and checking a Property section.

use core::num::{NonZeroU16, NonZeroU32};

use nom::Parser;
use nom::combinator::map;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::{Holder, PropertyId, WireType};
use crate::primitive::{Parsed, binary, fail, string, var_int};
use crate::{
    ApplicationProperties, DecodeErrorKind, Direction, PacketType, SubscriptionId, SubscriptionIds, TopicAlias,
    TopicName, UserProperties,
};

/// A Property's value, of the type that its identifier has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Boolean(bool),
    TwoByte(u16),
    FourByte(u32),
    VarInt(u32),
    Utf8(&'a str),
    Binary(&'a [u8]),
    Utf8Pair,
}

macro_rules! accessors {
    ($($name:ident -> $type:ty: $pattern:pat => $result:expr;)+) => {
        impl<'a> Value<'a> {
            $(
                #[inline]
                pub(crate) fn $name(self) -> Option<$type> {
                    match self {
                        $pattern => $result,
                        _ => None,
                    }
                }
            )+
        }
    };
}

accessors! {
    boolean -> bool: Value::Boolean(value) => Some(value);
    u16 -> u16: Value::TwoByte(value) => Some(value);
    u32 -> u32: Value::FourByte(value) => Some(value);
    non_zero_u16 -> NonZeroU16: Value::TwoByte(value) => NonZeroU16::new(value);
    non_zero_u32 -> NonZeroU32: Value::FourByte(value) => NonZeroU32::new(value);
    subscription_id -> SubscriptionId: Value::VarInt(value) => SubscriptionId::new(value);
    topic_alias -> TopicAlias: Value::TwoByte(value) => TopicAlias::new(value);
    text -> &'a str: Value::Utf8(value) => Some(value);
    binary -> &'a [u8]: Value::Binary(value) => Some(value);
}

/// A section that has been checked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Checked<'a> {
    section: &'a [u8],
    /// A bit for every identifier that occurs.
    seen: u64,
    /// How many bytes the application's Properties take.
    application_len: usize,
}

impl<'a> Checked<'a> {
    #[inline]
    pub(crate) fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::from_section(self.if_seen(PropertyId::UserProperty))
    }

    #[inline]
    pub(crate) fn subscription_ids(&self) -> SubscriptionIds<'a> {
        SubscriptionIds::from_section(self.if_seen(PropertyId::SubscriptionIdentifier))
    }

    #[inline]
    pub(crate) fn application(&self) -> ApplicationProperties<'a> {
        let section = if self.application_len > 0 { self.section } else { &[] };
        ApplicationProperties::from_section(section, self.application_len)
    }

    /// Authentication Data needs a method (section 3.1.2.11.10).
    pub(crate) fn check_authentication(&self) -> Result<(), nom::Err<crate::primitive::Fault<'a>>> {
        let alone = self.has(PropertyId::AuthenticationData) && !self.has(PropertyId::AuthenticationMethod);
        if alone {
            Err(fail(self.section, DecodeErrorKind::AuthenticationDataWithoutMethod))
        } else {
            Ok(())
        }
    }

    #[inline]
    fn has(&self, id: PropertyId) -> bool {
        self.seen & bit(id) != 0
    }

    /// The section, if it holds one of these: what walks it later then stops at once when there is nothing.
    #[inline]
    fn if_seen(&self, id: PropertyId) -> &'a [u8] {
        if self.has(id) { self.section } else { &[] }
    }
}

#[inline]
const fn bit(id: PropertyId) -> u64 {
    1 << id.value()
}

/// Parses a whole section and shows each Property to `visit`.
#[inline]
pub(crate) fn section<'a>(
    input: &'a [u8],
    holder: Holder,
    direction: Direction,
    mut visit: impl FnMut(PropertyId, Value<'a>),
) -> Parsed<'a, Checked<'a>> {
    // Most packets have none, and then it is one byte.
    if let [0, rest @ ..] = input {
        return Ok((rest, Checked::default()));
    }
    let (rest, section) = length_data(var_int).parse(input)?;
    let mut checked = Checked {
        section,
        seen: 0,
        application_len: 0,
    };
    let mut unread = section;
    while !unread.is_empty() {
        let (after, (id, value)) = property(unread, holder, direction, checked.seen)?;
        checked.seen |= bit(id);
        if id.is_application() {
            let len = unread.len().saturating_sub(after.len());
            checked.application_len = checked.application_len.saturating_add(len);
        }
        visit(id, value);
        unread = after;
    }
    Ok((rest, checked))
}

fn property(input: &[u8], holder: Holder, direction: Direction, seen: u64) -> Parsed<'_, (PropertyId, Value<'_>)> {
    let (rest, number) = var_int(input)?;
    let Some(id) = u8::try_from(number).ok().and_then(PropertyId::from_value) else {
        return Err(fail(input, DecodeErrorKind::UnknownProperty(number)));
    };
    if !id.holders().contains(holder) || is_from_the_other_side(id, holder, direction) {
        return Err(fail(input, DecodeErrorKind::ForeignProperty(id)));
    }
    if seen & bit(id) != 0 && !id.may_repeat(holder) {
        return Err(fail(input, DecodeErrorKind::DuplicateProperty(id)));
    }
    let (rest, value) = value(rest, id)?;
    match check_value(id, value) {
        Ok(()) => Ok((rest, (id, value))),
        Err(kind) => Err(fail(input, kind)),
    }
}

/// The three Properties that one side only may put on a packet of both.
const fn is_from_the_other_side(id: PropertyId, holder: Holder, direction: Direction) -> bool {
    match (id, holder, direction) {
        // [MQTT-3.3.4-6]
        (PropertyId::SubscriptionIdentifier, Holder::Packet(PacketType::Publish), Direction::FromClient) => true,
        // [MQTT-3.14.2-2]
        (PropertyId::SessionExpiryInterval, Holder::Packet(PacketType::Disconnect), Direction::FromServer) => true,
        // Section 3.14.2.2.5
        (PropertyId::ServerReference, Holder::Packet(PacketType::Disconnect), Direction::FromClient) => true,
        _ => false,
    }
}

fn value(input: &[u8], id: PropertyId) -> Parsed<'_, Value<'_>> {
    match id.wire_type() {
        WireType::Boolean => match be_u8(input)? {
            (rest, value @ 0..=1) => Ok((rest, Value::Boolean(value == 1))),
            _ => Err(fail(input, DecodeErrorKind::InvalidBoolean(id))),
        },
        WireType::TwoByte => map(be_u16, Value::TwoByte).parse(input),
        WireType::FourByte => map(be_u32, Value::FourByte).parse(input),
        WireType::VarInt => map(var_int, Value::VarInt).parse(input),
        WireType::Utf8 => map(string, Value::Utf8).parse(input),
        WireType::Binary => map(binary, Value::Binary).parse(input),
        WireType::Utf8Pair => map((string, string), |_| Value::Utf8Pair).parse(input),
    }
}

fn check_value(id: PropertyId, value: Value<'_>) -> Result<(), DecodeErrorKind> {
    match (id, value) {
        (PropertyId::TopicAlias, Value::TwoByte(0)) => Err(DecodeErrorKind::ZeroTopicAlias),
        (PropertyId::ReceiveMaximum, Value::TwoByte(0))
        | (PropertyId::MaximumPacketSize, Value::FourByte(0))
        | (PropertyId::SubscriptionIdentifier, Value::VarInt(0)) => Err(DecodeErrorKind::ZeroProperty(id)),
        (PropertyId::ResponseTopic, Value::Utf8(topic)) => TopicName::new(topic)
            .map(|_| ())
            .map_err(DecodeErrorKind::InvalidResponseTopic),
        _ => Ok(()),
    }
}
