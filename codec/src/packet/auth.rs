//! AUTH (section 3.15): 5.0 only.

use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::primitive::{Parsed, fail, reason_code};
use crate::property::parse::section;
use crate::property::{Holder, PropertyId};
use crate::{DecodeErrorKind, PacketType, ProtocolVersion, ReasonCode, UserProperties};

/// AUTH: a step of enhanced authentication (section 4.12). 3.x has none, and nobody sends it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which step it is.
    pub reason_code: ReasonCode,
    /// What it carries.
    pub properties: AuthProperties<'a>,
}

/// The Properties of an AUTH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthProperties<'a> {
    /// The method, the same one in every step; required except on a bare success.
    pub authentication_method: Option<&'a str>,
    /// What the method exchanges.
    pub authentication_data: Option<&'a [u8]>,
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl Section for AuthProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.put_str_property(PropertyId::AuthenticationMethod, self.authentication_method);
        out.put_binary_property(PropertyId::AuthenticationData, self.authentication_data);
        out.put_str_property(PropertyId::ReasonString, self.reason_string);
        self.user_properties.write(out);
    }
}

impl Body for Auth<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Auth.first_byte()
    }

    fn write(&self, _: ProtocolVersion, out: &mut impl Sink) {
        if self.reason_code == ReasonCode::Success && self.properties == AuthProperties::default() {
            return;
        }
        out.put_u8(self.reason_code.value());
        out.put_section(&self.properties);
    }
}

encodable!(Auth<'_>);

/// No byte at all says success (section 3.15.2.1); anything else names its method.
pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, Auth<'a>> {
    if input.is_empty() {
        return Ok((
            input,
            Auth {
                reason_code: ReasonCode::Success,
                properties: AuthProperties::default(),
            },
        ));
    }
    let (after_code, reason_code) = reason_code(input, PacketType::Auth)?;
    let mut properties = AuthProperties::default();
    let holder = Holder::Packet(PacketType::Auth);
    let (rest, checked) = section(after_code, holder, context.limits.direction, |id, value| match id {
        PropertyId::AuthenticationMethod => properties.authentication_method = value.text(),
        PropertyId::AuthenticationData => properties.authentication_data = value.binary(),
        PropertyId::ReasonString => properties.reason_string = value.text(),
        _ => {}
    })?;
    checked.check_authentication()?;
    if properties.authentication_method.is_none() && reason_code != ReasonCode::Success {
        return Err(fail(after_code, DecodeErrorKind::MissingAuthenticationMethod));
    }
    properties.user_properties = checked.user_properties();
    Ok((
        rest,
        Auth {
            reason_code,
            properties,
        },
    ))
}
