//! What can be wrong with a peer's bytes, and the Reason Code that says so.

use core::fmt;

use crate::{PacketType, PropertyId, ProtocolVersion, ReasonCode, TopicError};

/// Bytes that are no packet: what is wrong, where, and the Reason Code to answer with.
///
/// The Network Connection they came from is beyond use: nothing behind them can be told apart any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Where, in bytes from the first byte of the packet.
    pub offset: usize,
    /// For a CONNECT whose Protocol Name and Protocol Version are in order: the version, which a CONNACK that refuses
    /// it can be written in.
    pub connect_version: Option<ProtocolVersion>,
}

impl DecodeError {
    /// A fault at that byte of the packet.
    #[must_use]
    pub const fn new(kind: DecodeErrorKind, offset: usize) -> Self {
        Self {
            kind,
            offset,
            connect_version: None,
        }
    }

    /// The code for the DISCONNECT, or the CONNACK where there is no Session yet.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        self.kind.reason_code()
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of the packet)", self.kind, self.offset)
    }
}

impl core::error::Error for DecodeError {}

/// What is wrong with the bytes; each kind names the statement that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// Packet type 0, or 15 on 3.x (section 2.1.2).
    ReservedPacketType,
    /// The low four bits of the first byte are not what the packet asks for [MQTT-2.1.3-1].
    ReservedFlags(PacketType),
    /// This packet is sent by the other side only (section 2.1.2), or does not exist in this version.
    UnexpectedPacket(PacketType),
    /// A Variable Byte Integer goes on after its fourth byte (section 1.5.5).
    VarIntTooLong,
    /// A Variable Byte Integer takes more bytes than its value needs [MQTT-1.5.5-1].
    VarIntNotMinimal,
    /// The packet is larger than the receiver's Maximum Packet Size [MQTT-3.1.2-24].
    PacketTooLarge {
        /// The size the Fixed Header announces, in bytes, itself included.
        size: u32,
        /// The limit, in bytes.
        maximum: u32,
    },
    /// A field, or the Property section, reaches past what holds it (section 1.2, Malformed Packet).
    Truncated,
    /// Bytes follow the last field of the packet (section 1.2, Malformed Packet).
    TrailingBytes,
    /// A string is not well-formed UTF-8 [MQTT-1.5.4-1].
    InvalidUtf8,
    /// A string holds U+0000 [MQTT-1.5.4-2].
    NulCharacter,
    /// The Protocol Name and Protocol Version are of no version that this crate speaks [MQTT-3.1.2-1],
    /// [MQTT-3.1.2-2].
    UnsupportedProtocolVersion {
        /// The Protocol Version byte, the old bridges' 0x80 included: a peer at 5 and above understands a CONNACK of
        /// 5.0 (0x84), one below expects return code 0x01.
        level: u8,
    },
    /// The reserved bit of the Connect Flags is set [MQTT-3.1.2-3].
    ReservedConnectFlag,
    /// Will QoS or Will Retain is set without a Will [MQTT-3.1.2-11], [MQTT-3.1.2-13].
    WillFlagsWithoutWill,
    /// Both QoS bits of the Will are set [MQTT-3.1.2-12].
    InvalidWillQoS,
    /// A 3.x CONNECT has a password and no user name (3.1.1, [MQTT-3.1.2-22]).
    PasswordWithoutUsername,
    /// A reserved bit of the Connect Acknowledge Flags is set [MQTT-3.2.2-1].
    ReservedConnAckFlags,
    /// Session Present stands beside a failure [MQTT-3.2.2-6].
    SessionPresentWithError,
    /// Both QoS bits of a PUBLISH are set [MQTT-3.3.1-4].
    InvalidQoS,
    /// DUP is set at QoS 0 [MQTT-3.3.1-2].
    DupAtQoS0,
    /// A Packet Identifier is zero [MQTT-2.2.1-3].
    ZeroPacketId,
    /// The Topic Name is empty, and no Topic Alias stands in for it (section 3.3.2.1).
    EmptyTopic,
    /// The Topic Name breaks a rule of section 4.7, [MQTT-3.3.2-2] among them.
    InvalidTopicName(TopicError),
    /// The Topic Name has more levels than [`DecodeLimits::topic_levels`](crate::DecodeLimits::topic_levels).
    TopicTooDeep,
    /// The Topic Filter breaks a rule of section 4.7 or 4.8.2.
    InvalidTopicFilter(TopicError),
    /// The Topic Filter has more levels than [`DecodeLimits::topic_levels`](crate::DecodeLimits::topic_levels).
    FilterTooDeep,
    /// The Response Topic is no Topic Name [MQTT-3.3.2-14].
    InvalidResponseTopic(TopicError),
    /// A Topic Alias is zero [MQTT-3.3.2-8].
    ZeroTopicAlias,
    /// A SUBSCRIBE or UNSUBSCRIBE without a Topic Filter [MQTT-3.8.3-2], [MQTT-3.10.3-2].
    NoTopicFilter,
    /// A SUBACK or UNSUBACK without a Reason Code [MQTT-3.8.4-6], section 3.11.3.
    NoReasonCode,
    /// A reserved bit of the Subscription Options is set [MQTT-3.8.3-5].
    ReservedSubscriptionOptions,
    /// The QoS of a Subscription is 3 (section 3.8.3.1).
    InvalidSubscriptionQoS,
    /// Retain Handling is 3 (section 3.8.3.1).
    InvalidRetainHandling,
    /// No Local on a Shared Subscription [MQTT-3.8.3-4].
    NoLocalOnSharedSubscription,
    /// A Reason Code that does not exist or is not listed for its packet (section 2.4).
    InvalidReasonCode(u8),
    /// A Property Identifier that does not exist (section 2.2.2.2).
    UnknownProperty(u32),
    /// A Property that is not for this packet, or not from this side (section 2.2.2.2, [MQTT-3.3.4-6],
    /// [MQTT-3.14.2-2]).
    ForeignProperty(PropertyId),
    /// A Property that may stand once stands again (section 2.2.2.2).
    DuplicateProperty(PropertyId),
    /// A Receive Maximum, Maximum Packet Size or Subscription Identifier of zero (sections 3.1.2.11.3, 3.1.2.11.4,
    /// 3.8.2.1.2).
    ZeroProperty(PropertyId),
    /// A one-byte Property is neither 0 nor 1 (for example section 3.1.2.11.6).
    InvalidBoolean(PropertyId),
    /// Authentication Data without an Authentication Method (section 3.1.2.11.10).
    AuthenticationDataWithoutMethod,
    /// An AUTH that goes on without an Authentication Method (section 3.15.2.2.2).
    MissingAuthenticationMethod,
}

impl DecodeErrorKind {
    /// The code to answer with: the only place that maps bytes' faults to Reason Codes.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::ReservedPacketType
            | Self::ReservedFlags(_)
            | Self::VarIntTooLong
            | Self::VarIntNotMinimal
            | Self::Truncated
            | Self::TrailingBytes
            | Self::InvalidUtf8
            | Self::NulCharacter
            | Self::ReservedConnectFlag
            | Self::WillFlagsWithoutWill
            | Self::InvalidWillQoS
            | Self::PasswordWithoutUsername
            | Self::ReservedConnAckFlags
            | Self::InvalidQoS
            | Self::DupAtQoS0
            | Self::ReservedSubscriptionOptions
            | Self::UnknownProperty(_) => ReasonCode::MalformedPacket,
            Self::UnexpectedPacket(_)
            | Self::SessionPresentWithError
            | Self::ZeroPacketId
            | Self::EmptyTopic
            | Self::InvalidResponseTopic(_)
            | Self::NoTopicFilter
            | Self::NoReasonCode
            | Self::InvalidSubscriptionQoS
            | Self::InvalidRetainHandling
            | Self::NoLocalOnSharedSubscription
            | Self::InvalidReasonCode(_)
            | Self::ForeignProperty(_)
            | Self::DuplicateProperty(_)
            | Self::ZeroProperty(_)
            | Self::InvalidBoolean(_)
            | Self::AuthenticationDataWithoutMethod
            | Self::MissingAuthenticationMethod => ReasonCode::ProtocolError,
            Self::UnsupportedProtocolVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicTooDeep | Self::InvalidTopicName(_) => ReasonCode::TopicNameInvalid,
            Self::FilterTooDeep | Self::InvalidTopicFilter(_) => ReasonCode::TopicFilterInvalid,
            Self::ZeroTopicAlias => ReasonCode::TopicAliasInvalid,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::ReservedPacketType => "the packet type is reserved",
            Self::VarIntTooLong => "a Variable Byte Integer goes on after four bytes",
            Self::VarIntNotMinimal => "a Variable Byte Integer takes more bytes than it needs",
            Self::Truncated => "a field reaches past the end of the packet or of its Property section",
            Self::TrailingBytes => "bytes follow the last field of the packet",
            Self::InvalidUtf8 => "a string is not well-formed UTF-8",
            Self::NulCharacter => "a string holds U+0000",
            Self::ReservedConnectFlag => "the reserved bit of the Connect Flags is set",
            Self::WillFlagsWithoutWill => "Will QoS or Will Retain is set without a Will",
            Self::InvalidWillQoS => "the Will QoS is 3",
            Self::PasswordWithoutUsername => "a password stands without a user name",
            Self::ReservedConnAckFlags => "a reserved bit of the Connect Acknowledge Flags is set",
            Self::SessionPresentWithError => "Session Present is set on a refused connection",
            Self::InvalidQoS => "the QoS is 3",
            Self::DupAtQoS0 => "DUP is set at QoS 0",
            Self::ZeroPacketId => "the Packet Identifier is zero",
            Self::EmptyTopic => "the Topic Name is empty and no Topic Alias stands in for it",
            Self::TopicTooDeep => "the Topic Name has too many levels",
            Self::FilterTooDeep => "the Topic Filter has too many levels",
            Self::ZeroTopicAlias => "the Topic Alias is zero",
            Self::NoTopicFilter => "the packet holds no Topic Filter",
            Self::NoReasonCode => "the packet holds no Reason Code",
            Self::ReservedSubscriptionOptions => "a reserved bit of the Subscription Options is set",
            Self::InvalidSubscriptionQoS => "the QoS of a Subscription is 3",
            Self::InvalidRetainHandling => "Retain Handling is 3",
            Self::NoLocalOnSharedSubscription => "No Local is set on a Shared Subscription",
            Self::AuthenticationDataWithoutMethod => "Authentication Data stands without an Authentication Method",
            Self::MissingAuthenticationMethod => "the AUTH packet names no Authentication Method",
            Self::InvalidTopicName(_) => "the Topic Name is not allowed",
            Self::InvalidTopicFilter(_) => "the Topic Filter is not allowed",
            Self::InvalidResponseTopic(_) => "the Response Topic is not allowed",
            Self::ReservedFlags(_) => "the flags of the Fixed Header are not those of the packet",
            Self::UnexpectedPacket(_) => "the packet is not allowed from this side in this version",
            Self::PacketTooLarge { .. } => "the packet is larger than the Maximum Packet Size",
            Self::UnsupportedProtocolVersion { .. } => "the protocol version is not supported",
            Self::InvalidReasonCode(_) => "the Reason Code is not one of the packet's",
            Self::UnknownProperty(_) => "the Property Identifier does not exist",
            Self::ForeignProperty(_) => "the Property is not for this packet",
            Self::DuplicateProperty(_) => "the Property stands twice",
            Self::ZeroProperty(_) => "the Property is zero",
            Self::InvalidBoolean(_) => "the Property is neither 0 nor 1",
        }
    }
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())?;
        match self {
            Self::InvalidTopicName(why) | Self::InvalidTopicFilter(why) | Self::InvalidResponseTopic(why) => {
                write!(f, ": {why}")
            }
            Self::ReservedFlags(packet) | Self::UnexpectedPacket(packet) => write!(f, ": {packet:?}"),
            Self::PacketTooLarge { size, maximum } => write!(f, ": {size} bytes where {maximum} are allowed"),
            Self::UnsupportedProtocolVersion { level } => write!(f, ": level {level}"),
            Self::InvalidReasonCode(code) => write!(f, ": 0x{code:02x}"),
            Self::UnknownProperty(id) => write!(f, ": 0x{id:02x}"),
            Self::ForeignProperty(id)
            | Self::DuplicateProperty(id)
            | Self::ZeroProperty(id)
            | Self::InvalidBoolean(id) => write!(f, ": {id:?}"),
            _ => Ok(()),
        }
    }
}
