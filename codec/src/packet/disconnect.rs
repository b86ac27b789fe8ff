//! DISCONNECT (section 3.14).

use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::primitive::{Parsed, reason_code};
use crate::property::parse::section;
use crate::property::{Holder, PropertyId};
use crate::{PacketType, ProtocolVersion, ReasonCode, UserProperties};

/// DISCONNECT: the last packet on a Network Connection; on 3.x only a client sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; always [`ReasonCode::NORMAL_DISCONNECTION`] on 3.x.
    pub reason_code: ReasonCode,
    /// Always empty on 3.x.
    pub properties: DisconnectProperties<'a>,
}

/// The Properties of a DISCONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisconnectProperties<'a> {
    /// A new Session Expiry Interval in seconds; from a client only [MQTT-3.14.2-2].
    pub session_expiry_interval: Option<u32>,
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Another server to use; from a server only.
    pub server_reference: Option<&'a str>,
}

impl Disconnect<'_> {
    /// A DISCONNECT without Properties.
    #[must_use]
    pub fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            properties: DisconnectProperties::default(),
        }
    }
}

impl Section for DisconnectProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.put_u32_property(PropertyId::SessionExpiryInterval, self.session_expiry_interval);
        out.put_str_property(PropertyId::ReasonString, self.reason_string);
        self.user_properties.write(out);
        out.put_str_property(PropertyId::ServerReference, self.server_reference);
    }
}

impl Body for Disconnect<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Disconnect.first_byte()
    }

    fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
        let bare = self.properties == DisconnectProperties::default();
        if version < ProtocolVersion::V5 || (bare && self.reason_code == ReasonCode::NORMAL_DISCONNECTION) {
            return;
        }
        out.put_u8(self.reason_code.value());
        if !bare {
            out.put_section(&self.properties);
        }
    }
}

encodable!(Disconnect<'_>);

/// No byte says a normal end, one says a Reason Code, and only more bring Properties (section 3.14.2.1).
pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, Disconnect<'a>> {
    if !context.is_v5() || input.is_empty() {
        return Ok((input, Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)));
    }
    let (rest, reason_code) = reason_code(input, PacketType::Disconnect)?;
    if rest.is_empty() {
        return Ok((rest, Disconnect::new(reason_code)));
    }
    let mut properties = DisconnectProperties::default();
    let holder = Holder::Packet(PacketType::Disconnect);
    let (rest, checked) = section(rest, holder, context.limits.direction, |id, value| match id {
        PropertyId::SessionExpiryInterval => properties.session_expiry_interval = value.u32(),
        PropertyId::ReasonString => properties.reason_string = value.text(),
        PropertyId::ServerReference => properties.server_reference = value.text(),
        _ => {}
    })?;
    properties.user_properties = checked.user_properties();
    Ok((
        rest,
        Disconnect {
            reason_code,
            properties,
        },
    ))
}
