//! What a well-formed packet can still do wrong, and which Reason Code answers it.

use core::fmt;

use sol_codec::ReasonCode;

/// A rule that a peer broke. Each names the statement it broke; [`Violation::reason_code`] is the only place that maps
/// them to Reason Codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The first packet was not CONNECT [MQTT-3.1.0-1].
    FirstPacketNotConnect,
    /// A second CONNECT came [MQTT-3.1.0-2].
    SecondConnect,
    /// An AUTH came, though CONNECT had no Authentication Method [MQTT-4.12.0-7].
    UninvitedAuth,
    /// An AUTH came that its exchange has no place for: an answer to nothing, or a second beginning (section 4.12).
    AuthOutOfTurn,
    /// An AUTH named another Authentication Method than CONNECT [MQTT-4.12.0-5].
    AnotherMethod,
    /// A packet that only a server sends.
    ServerPacket,
    /// A Topic Alias above the announced maximum [MQTT-3.3.2-9].
    TopicAliasTooLarge,
    /// A Topic Alias that stands for no topic yet (section 3.3.2.3.4).
    TopicAliasUnknown,
    /// A PUBLISH carried a Subscription Identifier [MQTT-3.3.4-6].
    SubscriptionIdInPublish,
    /// More QoS 2 messages without PUBREL than the announced Receive Maximum [MQTT-3.3.4-7].
    ReceiveMaximumExceeded,
    /// A QoS above the announced maximum [MQTT-3.2.2-11].
    QosNotSupported,
    /// RETAIN, though retained messages are not available [MQTT-3.2.2-14].
    RetainNotSupported,
    /// A Session Expiry Interval above 0 in DISCONNECT, though it was 0 in CONNECT (section 3.14.2.2.2).
    ExpiryInDisconnect,
    /// A request with more filters than the client's Maximum Packet Size lets an answer hold [MQTT-3.1.2-24].
    AnswerTooLarge,
}

impl Violation {
    /// The Reason Code of the DISCONNECT that answers it.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::TopicAliasTooLarge => ReasonCode::TopicAliasInvalid,
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::QosNotSupported => ReasonCode::QoSNotSupported,
            Self::RetainNotSupported => ReasonCode::RetainNotSupported,
            Self::AnswerTooLarge => ReasonCode::PacketTooLarge,
            Self::FirstPacketNotConnect
            | Self::SecondConnect
            | Self::UninvitedAuth
            | Self::AuthOutOfTurn
            | Self::AnotherMethod
            | Self::ServerPacket
            | Self::TopicAliasUnknown
            | Self::SubscriptionIdInPublish
            | Self::ExpiryInDisconnect => ReasonCode::ProtocolError,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstPacketNotConnect => "the first packet was not CONNECT",
            Self::SecondConnect => "a second CONNECT",
            Self::UninvitedAuth => "AUTH without an Authentication Method in CONNECT",
            Self::AuthOutOfTurn => "AUTH out of turn",
            Self::AnotherMethod => "another Authentication Method than in CONNECT",
            Self::ServerPacket => "a packet that only a server sends",
            Self::TopicAliasTooLarge => "a Topic Alias above the Topic Alias Maximum",
            Self::TopicAliasUnknown => "a Topic Alias that stands for no topic yet",
            Self::SubscriptionIdInPublish => "a Subscription Identifier in PUBLISH",
            Self::ReceiveMaximumExceeded => "more unfinished QoS 2 messages than Receive Maximum",
            Self::QosNotSupported => "a QoS above Maximum QoS",
            Self::RetainNotSupported => "RETAIN, though retained messages are not available",
            Self::ExpiryInDisconnect => "a Session Expiry Interval in DISCONNECT after 0 in CONNECT",
            Self::AnswerTooLarge => "more filters than its Maximum Packet Size lets the answer hold",
        })
    }
}
