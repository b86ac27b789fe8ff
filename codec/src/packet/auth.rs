//! AUTH (section 3.15): 5.0 only.

use crate::encode::{Body, Section, Sink, encodable};
use crate::property::PropertyId;
use crate::{PacketType, ProtocolVersion, ReasonCode, UserProperties};

/// AUTH: a step of enhanced authentication (section 4.12).
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
