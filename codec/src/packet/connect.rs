//! CONNECT (section 3.1).

use core::num::{NonZeroU16, NonZeroU32};

use nom::number::complete::{be_u8, be_u16};

use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::mutants::mutant;
use crate::primitive::{Fault, Parsed, binary, fail, string, topic_name};
use crate::property::parse::{Value, section};
use crate::property::{Holder, PropertyId};
use crate::{ApplicationProperties, DecodeErrorKind, PacketType, ProtocolVersion, QoS, TopicName, UserProperties};

/// CONNECT: the first packet of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that this connection speaks.
    pub version: ProtocolVersion,
    /// Whether to forget an earlier Session first; 3.x calls it Clean Session and forgets it at the end too.
    pub clean_start: bool,
    /// The longest silence of the client, in seconds; 0 for any.
    pub keep_alive: u16,
    /// Who the client is; empty if the server shall choose.
    pub client_id: &'a str,
    /// The message to publish when the client goes without a word.
    pub will: Option<Will<'a>>,
    /// Who asks.
    pub username: Option<&'a str>,
    /// The proof; on 3.x only beside a user name.
    pub password: Option<&'a [u8]>,
    /// Always empty on 3.x.
    pub properties: ConnectProperties<'a>,
}

/// The Properties of a CONNECT; a field that is `None` leaves the specification's default in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// How long the Session outlives its Network Connection, in seconds; `None`: not at all.
    pub session_expiry_interval: Option<u32>,
    /// How many messages above QoS 0 the client takes at once; `None`: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet that the client takes, in bytes; `None`: any.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The largest Topic Alias that the client takes; `None`: 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client wants Response Information; `None`: no.
    pub request_response_information: Option<bool>,
    /// Whether the client wants reasons in words on more than CONNACK, DISCONNECT and PUBLISH; `None`: yes.
    pub request_problem_information: Option<bool>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// The method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// What the method exchanges.
    pub authentication_data: Option<&'a [u8]>,
}

/// The Will Message (section 3.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it is published.
    pub topic: TopicName<'a>,
    /// What is published.
    pub payload: &'a [u8],
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is published as a retained message.
    pub retain: bool,
    /// Always empty on 3.x.
    pub properties: WillProperties<'a>,
}

/// The Properties of a Will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WillProperties<'a> {
    /// How long to wait for the client to come back, in seconds.
    pub will_delay_interval: u32,
    /// How long the message lives once it is published, in seconds; `None`: for ever.
    pub message_expiry_interval: Option<u32>,
    /// What is passed on with the message.
    pub application: ApplicationProperties<'a>,
}

const FLAG_CLEAN_START: u8 = 0x02;
const FLAG_WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS_MASK: u8 = 0x18;
const FLAG_WILL_RETAIN: u8 = 0x20;
const FLAG_PASSWORD: u8 = 0x40;
const FLAG_USERNAME: u8 = 0x80;

impl<'a> Connect<'a> {
    /// What asks for nothing in particular: Clean Start, no Keep Alive, no Will, no login, no Properties.
    #[must_use]
    pub fn new(version: ProtocolVersion, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive: 0,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }
}

impl Connect<'_> {
    fn flags(&self) -> u8 {
        let will = self.will.map_or(0, |will| {
            FLAG_WILL | (will.qos as u8) << WILL_QOS_SHIFT | if will.retain { FLAG_WILL_RETAIN } else { 0 }
        });
        will | if self.clean_start { FLAG_CLEAN_START } else { 0 }
            | if self.username.is_some() { FLAG_USERNAME } else { 0 }
            | if self.password().is_some() { FLAG_PASSWORD } else { 0 }
    }

    /// The password that the version can say [MQTT-3.1.2-22].
    fn password(&self) -> Option<&[u8]> {
        self.password
            .filter(|_| self.version == ProtocolVersion::V5 || self.username.is_some())
    }
}

impl Section for ConnectProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.put_u32_property(PropertyId::SessionExpiryInterval, self.session_expiry_interval);
        out.put_u16_property(PropertyId::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
        out.put_u32_property(
            PropertyId::MaximumPacketSize,
            self.maximum_packet_size.map(NonZeroU32::get),
        );
        out.put_u16_property(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        out.put_bool_property(
            PropertyId::RequestResponseInformation,
            self.request_response_information,
        );
        out.put_bool_property(PropertyId::RequestProblemInformation, self.request_problem_information);
        self.user_properties.write(out);
        out.put_str_property(PropertyId::AuthenticationMethod, self.authentication_method);
        out.put_binary_property(PropertyId::AuthenticationData, self.authentication_data);
    }
}

impl Section for WillProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        let delay = Some(self.will_delay_interval).filter(|delay| *delay > 0);
        out.put_u32_property(PropertyId::WillDelayInterval, delay);
        out.put_u32_property(PropertyId::MessageExpiryInterval, self.message_expiry_interval);
        self.application.write(out);
    }
}

impl Body for Connect<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Connect.first_byte()
    }

    /// The version of the packet counts, not the argument.
    fn write(&self, _: ProtocolVersion, out: &mut impl Sink) {
        out.put_str(self.version.name());
        out.put_u8(self.version.level());
        out.put_u8(self.flags());
        out.put_u16(self.keep_alive);
        if self.version == ProtocolVersion::V5 {
            out.put_section(&self.properties);
        }
        out.put_str(self.client_id);
        if let Some(will) = &self.will {
            if self.version == ProtocolVersion::V5 {
                out.put_section(&will.properties);
            }
            out.put_str(will.topic.as_str());
            out.put_binary(will.payload);
        }
        if let Some(username) = self.username {
            out.put_str(username);
        }
        if let Some(password) = self.password() {
            out.put_binary(password);
        }
    }
}

encodable!(Connect<'_>);

pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, Connect<'a>> {
    let (rest, version) = version(input)?;
    let context = Context { version, ..context };
    let (after_flags, flags) = be_u8(rest)?;
    check_flags(flags, version).map_err(|kind| fail(rest, kind))?;
    let (rest, keep_alive) = be_u16(after_flags)?;
    let (rest, properties) = properties(rest, context)?;
    let (rest, client_id) = string(rest)?;
    let (rest, will) = if flags & FLAG_WILL != 0 {
        will(rest, flags, context)?
    } else {
        (rest, None)
    };
    let (rest, username) = if has_login(rest, flags, FLAG_USERNAME, version) {
        some(string(rest)?)
    } else {
        (rest, None)
    };
    let (rest, password) = if has_login(rest, flags, FLAG_PASSWORD, version) {
        some(binary(rest)?)
    } else {
        (rest, None)
    };
    let clean_start = flags & FLAG_CLEAN_START != 0;
    Ok((
        rest,
        Connect {
            version,
            clean_start,
            keep_alive,
            client_id,
            will,
            username,
            password,
            properties,
        },
    ))
}

fn some<T>((rest, field): (&[u8], T)) -> (&[u8], Option<T>) {
    (rest, Some(field))
}

/// Whether that field of the login follows. 3.1 has the Remaining Length win over the flags ("connections should be
/// allowed to continue"), the later versions do not.
fn has_login(rest: &[u8], flags: u8, flag: u8, version: ProtocolVersion) -> bool {
    flags & flag != 0 && (version > ProtocolVersion::V31 || !rest.is_empty())
}

/// Protocol Name and Protocol Version [MQTT-3.1.2-1], [MQTT-3.1.2-2].
pub(crate) fn version(input: &[u8]) -> Parsed<'_, ProtocolVersion> {
    let (after_name, name) = binary(input)?;
    let (rest, level) = be_u8(after_name)?;
    match ProtocolVersion::from_name_and_level(name, level) {
        Some(version) => Ok((rest, version)),
        None => Err(fail(input, DecodeErrorKind::UnsupportedProtocolVersion { level })),
    }
}

fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeErrorKind> {
    let has_will = flags & FLAG_WILL != 0;
    let has_password_alone = flags & (FLAG_PASSWORD | FLAG_USERNAME) == FLAG_PASSWORD;
    if flags & 0x01 != 0 && !mutant("5.0/3.1.2-3") {
        Err(DecodeErrorKind::ReservedConnectFlag)
    } else if !has_will && flags & (WILL_QOS_MASK | FLAG_WILL_RETAIN) != 0 {
        Err(DecodeErrorKind::WillFlagsWithoutWill)
    } else if flags & WILL_QOS_MASK == WILL_QOS_MASK {
        Err(DecodeErrorKind::InvalidWillQoS)
    } else if has_password_alone && version < ProtocolVersion::V5 {
        Err(DecodeErrorKind::PasswordWithoutUsername)
    } else {
        Ok(())
    }
}

fn properties<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, ConnectProperties<'a>> {
    let mut properties = ConnectProperties::default();
    if !context.is_v5() {
        return Ok((input, properties));
    }
    let holder = Holder::Packet(PacketType::Connect);
    let (rest, checked) = section(input, holder, context.limits.direction, |id, value| {
        properties.set(id, value)
    })?;
    checked.check_authentication()?;
    properties.user_properties = checked.user_properties();
    Ok((rest, properties))
}

impl<'a> ConnectProperties<'a> {
    fn set(&mut self, id: PropertyId, value: Value<'a>) {
        match id {
            PropertyId::SessionExpiryInterval => self.session_expiry_interval = value.u32(),
            PropertyId::ReceiveMaximum => self.receive_maximum = value.non_zero_u16(),
            PropertyId::MaximumPacketSize => self.maximum_packet_size = value.non_zero_u32(),
            PropertyId::TopicAliasMaximum => self.topic_alias_maximum = value.u16(),
            PropertyId::RequestResponseInformation => self.request_response_information = value.boolean(),
            PropertyId::RequestProblemInformation => self.request_problem_information = value.boolean(),
            PropertyId::AuthenticationMethod => self.authentication_method = value.text(),
            PropertyId::AuthenticationData => self.authentication_data = value.binary(),
            _ => {}
        }
    }
}

fn will<'a>(input: &'a [u8], flags: u8, context: Context<'_>) -> Parsed<'a, Option<Will<'a>>> {
    let (after_properties, properties) = will_properties(input, context)?;
    let (rest, topic) = topic_name(after_properties, context.limits)?;
    let topic = topic.ok_or_else(|| fail(after_properties, DecodeErrorKind::EmptyTopic))?;
    let (rest, payload) = binary(rest)?;
    let qos = will_qos(flags, input)?;
    Ok((
        rest,
        Some(Will {
            topic,
            payload,
            qos,
            retain: flags & FLAG_WILL_RETAIN != 0,
            properties,
        }),
    ))
}

fn will_qos(flags: u8, at: &[u8]) -> Result<QoS, nom::Err<Fault<'_>>> {
    QoS::from_bits((flags & WILL_QOS_MASK) >> WILL_QOS_SHIFT).ok_or_else(|| fail(at, DecodeErrorKind::InvalidWillQoS))
}

fn will_properties<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, WillProperties<'a>> {
    let mut properties = WillProperties::default();
    if !context.is_v5() {
        return Ok((input, properties));
    }
    let (rest, checked) = section(input, Holder::Will, context.limits.direction, |id, value| match id {
        PropertyId::WillDelayInterval => properties.will_delay_interval = value.u32().unwrap_or_default(),
        PropertyId::MessageExpiryInterval => properties.message_expiry_interval = value.u32(),
        _ => {}
    })?;
    properties.application = checked.application();
    Ok((rest, properties))
}
