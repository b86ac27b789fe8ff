//! CONNACK (section 3.2).

use core::num::{NonZeroU16, NonZeroU32};

use nom::number::complete::be_u8;

use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::primitive::{Parsed, fail, reason_code};
use crate::property::parse::{Value, section};
use crate::property::{Holder, PropertyId};
use crate::{DecodeErrorKind, PacketType, ProtocolVersion, QoS, ReasonCode, UserProperties};

/// CONNACK: the server's answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server goes on with a Session it had; always false on 3.1, which has no such flag.
    pub session_present: bool,
    /// Whether the client is in. On 3.x it stands for a return code, see [`ReasonCode::connect_return_code`].
    pub reason_code: ReasonCode,
    /// What the server can do and has decided; always empty on 3.x.
    pub properties: ConnAckProperties<'a>,
}

/// The Properties of a CONNACK; a field that is `None` leaves the specification's default in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    /// How long the Session outlives its Network Connection, in seconds; `None`: as the client asked.
    pub session_expiry_interval: Option<u32>,
    /// How many messages above QoS 0 the server takes at once; `None`: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest QoS that the server takes, [`QoS::AtMostOnce`] or [`QoS::AtLeastOnce`]; `None`: all, and so it is
    /// written for [`QoS::ExactlyOnce`], which the wire has no value for.
    pub maximum_qos: Option<QoS>,
    /// Whether the server keeps retained messages; `None`: yes.
    pub retain_available: Option<bool>,
    /// The largest packet that the server takes, in bytes; `None`: any.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The Client Identifier that the server chose for a client without one.
    pub assigned_client_id: Option<&'a str>,
    /// The largest Topic Alias that the server takes; `None`: 0.
    pub topic_alias_maximum: Option<u16>,
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Whether Subscriptions may hold wildcards; `None`: yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether Subscriptions may have identifiers; `None`: yes.
    pub subscription_ids_available: Option<bool>,
    /// Whether Subscriptions may be shared; `None`: yes.
    pub shared_subscription_available: Option<bool>,
    /// The Keep Alive that the client shall use instead of its own, in seconds.
    pub server_keep_alive: Option<u16>,
    /// The basis for Response Topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// The method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// What the method exchanges.
    pub authentication_data: Option<&'a [u8]>,
}

impl ConnAck<'_> {
    /// A CONNACK without Properties.
    #[must_use]
    pub fn new(session_present: bool, reason_code: ReasonCode) -> Self {
        Self {
            session_present,
            reason_code,
            properties: ConnAckProperties::default(),
        }
    }
}

impl Section for ConnAckProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        let maximum_qos = self
            .maximum_qos
            .filter(|qos| *qos < QoS::ExactlyOnce)
            .map(|qos| qos > QoS::AtMostOnce);
        out.put_u32_property(PropertyId::SessionExpiryInterval, self.session_expiry_interval);
        out.put_u16_property(PropertyId::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
        out.put_bool_property(PropertyId::MaximumQoS, maximum_qos);
        out.put_bool_property(PropertyId::RetainAvailable, self.retain_available);
        out.put_u32_property(
            PropertyId::MaximumPacketSize,
            self.maximum_packet_size.map(NonZeroU32::get),
        );
        out.put_str_property(PropertyId::AssignedClientIdentifier, self.assigned_client_id);
        out.put_u16_property(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        out.put_str_property(PropertyId::ReasonString, self.reason_string);
        self.user_properties.write(out);
        out.put_bool_property(
            PropertyId::WildcardSubscriptionAvailable,
            self.wildcard_subscription_available,
        );
        out.put_bool_property(
            PropertyId::SubscriptionIdentifierAvailable,
            self.subscription_ids_available,
        );
        out.put_bool_property(
            PropertyId::SharedSubscriptionAvailable,
            self.shared_subscription_available,
        );
        out.put_u16_property(PropertyId::ServerKeepAlive, self.server_keep_alive);
        out.put_str_property(PropertyId::ResponseInformation, self.response_information);
        out.put_str_property(PropertyId::ServerReference, self.server_reference);
        out.put_str_property(PropertyId::AuthenticationMethod, self.authentication_method);
        out.put_binary_property(PropertyId::AuthenticationData, self.authentication_data);
    }
}

/// What 3.x says for a failure that has no return code: the server is unavailable.
const RETURN_CODE_UNAVAILABLE: u8 = 0x03;

impl Body for ConnAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::ConnAck.first_byte()
    }

    fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
        let session_present = self.session_present && version > ProtocolVersion::V31;
        out.put_u8(u8::from(session_present));
        if version < ProtocolVersion::V5 {
            out.put_u8(
                self.reason_code
                    .connect_return_code()
                    .unwrap_or(RETURN_CODE_UNAVAILABLE),
            );
            return;
        }
        out.put_u8(self.reason_code.value());
        out.put_section(&self.properties);
    }
}

encodable!(ConnAck<'_>);

pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, ConnAck<'a>> {
    let (after_flags, flags) = be_u8(input)?;
    // 3.1 leaves this byte reserved without saying that it is zero.
    let session_present = flags & 0x01 != 0 && context.version > ProtocolVersion::V31;
    if flags > 1 && context.version > ProtocolVersion::V31 {
        return Err(fail(input, DecodeErrorKind::ReservedConnAckFlags));
    }
    let (rest, reason_code) = match context.version {
        ProtocolVersion::V5 => reason_code(after_flags, PacketType::ConnAck)?,
        _ => return_code(after_flags)?,
    };
    if session_present && reason_code.is_error() {
        return Err(fail(input, DecodeErrorKind::SessionPresentWithError));
    }
    let (rest, properties) = match context.version {
        ProtocolVersion::V5 => properties(rest, context)?,
        _ => (rest, ConnAckProperties::default()),
    };
    Ok((
        rest,
        ConnAck {
            session_present,
            reason_code,
            properties,
        },
    ))
}

fn return_code(input: &[u8]) -> Parsed<'_, ReasonCode> {
    let (rest, code) = be_u8(input)?;
    match ReasonCode::from_connect_return_code(code) {
        Some(reason_code) => Ok((rest, reason_code)),
        None => Err(fail(input, DecodeErrorKind::InvalidReasonCode(code))),
    }
}

fn properties<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, ConnAckProperties<'a>> {
    let mut properties = ConnAckProperties::default();
    let holder = Holder::Packet(PacketType::ConnAck);
    let (rest, checked) = section(input, holder, context.limits.direction, |id, value| {
        properties.set(id, value)
    })?;
    checked.check_authentication()?;
    properties.user_properties = checked.user_properties();
    Ok((rest, properties))
}

impl<'a> ConnAckProperties<'a> {
    fn set(&mut self, id: PropertyId, value: Value<'a>) {
        match id {
            PropertyId::SessionExpiryInterval => self.session_expiry_interval = value.u32(),
            PropertyId::ReceiveMaximum => self.receive_maximum = value.non_zero_u16(),
            PropertyId::MaximumQoS => self.maximum_qos = value.boolean().and_then(|qos| QoS::from_bits(u8::from(qos))),
            PropertyId::RetainAvailable => self.retain_available = value.boolean(),
            PropertyId::MaximumPacketSize => self.maximum_packet_size = value.non_zero_u32(),
            PropertyId::AssignedClientIdentifier => self.assigned_client_id = value.text(),
            PropertyId::TopicAliasMaximum => self.topic_alias_maximum = value.u16(),
            PropertyId::ReasonString => self.reason_string = value.text(),
            PropertyId::WildcardSubscriptionAvailable => self.wildcard_subscription_available = value.boolean(),
            PropertyId::SubscriptionIdentifierAvailable => self.subscription_ids_available = value.boolean(),
            PropertyId::SharedSubscriptionAvailable => self.shared_subscription_available = value.boolean(),
            PropertyId::ServerKeepAlive => self.server_keep_alive = value.u16(),
            PropertyId::ResponseInformation => self.response_information = value.text(),
            PropertyId::ServerReference => self.server_reference = value.text(),
            PropertyId::AuthenticationMethod => self.authentication_method = value.text(),
            PropertyId::AuthenticationData => self.authentication_data = value.binary(),
            _ => {}
        }
    }
}
