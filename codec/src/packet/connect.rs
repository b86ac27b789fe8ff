//! CONNECT (section 3.1).

use core::num::{NonZeroU16, NonZeroU32};

use crate::encode::{Body, Section, Sink, encodable};
use crate::property::PropertyId;
use crate::{ApplicationProperties, PacketType, ProtocolVersion, QoS, TopicName, UserProperties};

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
const FLAG_WILL_RETAIN: u8 = 0x20;
const FLAG_PASSWORD: u8 = 0x40;
const FLAG_USERNAME: u8 = 0x80;

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
