//! Why two codecs disagree. A rule is as narrow as it can be said: the codec, the packets, and the fault or the feature.

use sol_codec::{DecodeErrorKind as Kind, Packet, PacketType, PropertyId, ProtocolVersion, ReasonCode, TopicError};

use super::Difference::{OnlyTheyAccept, OnlyWeAccept, OtherMeaning};
use super::{Difference, Frame, Other};

struct Rule {
    name: &'static str,
    other: Other,
    explains: fn(Frame<'_>, &Difference<'_>) -> bool,
}

pub(super) fn find(other: Other, frame: Frame<'_>, difference: &Difference<'_>) -> Option<&'static str> {
    RULES
        .iter()
        .find(|rule| rule.other == other && (rule.explains)(frame, difference))
        .map(|rule| rule.name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.name)
}

/// One row per rule: its name, and what it explains.
macro_rules! rules {
    ($($other:ident $name:literal |$frame:tt| $($pattern:pat_param)|+ $(if $guard:expr)?,)+) => {
        const RULES: &[Rule] = &[$(Rule {
            name: $name,
            other: Other::$other,
            #[allow(unused_variables, reason = "not every rule asks for the frame")]
            explains: |$frame, difference| matches!(difference, $($pattern)|+ $(if $guard)?),
        }),+];
    };
}

rules! {
    MqttProto "proto-trailing-bytes" |_| OnlyTheyAccept(Kind::TrailingBytes),
    MqttProto "proto-long-length" |_| OnlyTheyAccept(Kind::VarIntNotMinimal),
    MqttProto "proto-nul" |_| OnlyTheyAccept(Kind::NulCharacter),
    MqttProto "proto-empty-topic" |_|
        OnlyTheyAccept(Kind::EmptyTopic | Kind::InvalidResponseTopic(TopicError::Empty)),
    MqttProto "proto-dup-qos0" |_| OnlyTheyAccept(Kind::DupAtQoS0),
    MqttProto "proto-will-retain-alone" |_| OnlyTheyAccept(Kind::WillFlagsWithoutWill),
    MqttProto "proto-password-alone" |_| OnlyTheyAccept(Kind::PasswordWithoutUsername),
    MqttProto "proto-auth-data-alone" |_| OnlyTheyAccept(Kind::AuthenticationDataWithoutMethod),
    MqttProto "proto-auth-without-method" |_| OnlyTheyAccept(Kind::MissingAuthenticationMethod),
    MqttProto "proto-zero" |_| OnlyTheyAccept(Kind::ZeroProperty(_) | Kind::ZeroTopicAlias),
    MqttProto "proto-session-present" |_| OnlyTheyAccept(Kind::SessionPresentWithError),
    MqttProto "proto-plus-and-text" |_| OnlyTheyAccept(Kind::InvalidTopicFilter(_)),
    MqttProto "proto-no-local-shared" |_| OnlyTheyAccept(Kind::NoLocalOnSharedSubscription),
    MqttProto "proto-no-reason-code" |_| OnlyTheyAccept(Kind::NoReasonCode),
    MqttProto "proto-connack-flags-3.1" |frame| OnlyWeAccept(Packet::ConnAck(_), _)
        if frame.version == ProtocolVersion::V31 && frame.body[0] > 1,
    MqttProto "proto-dup-3.1" |frame| OnlyWeAccept(Packet::PubRel(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_), _)
        if frame.version == ProtocolVersion::V31 && frame.first & 0x08 != 0,
    MqttProto "proto-subscription-ids" |_| OnlyWeAccept(Packet::Publish(publish), _)
        if publish.properties.subscription_ids.iter().count() > 1,
    MqttProto "proto-payload-format" |_| OnlyWeAccept(_, reason) if reason == "InvalidPayloadFormat",
    MqttProto "proto-short-login-3.1" |frame| OnlyWeAccept(Packet::Connect(_), reason)
        if frame.version == ProtocolVersion::V31 && reason == "IoError(UnexpectedEof)",
    MqttProto "proto-disconnect-8c" |_| OnlyWeAccept(Packet::Disconnect(disconnect), _)
        if disconnect.reason_code == ReasonCode::BadAuthenticationMethod,
    MqttProto "proto-suback-failure" |frame| OtherMeaning(Packet::SubAck(_), Err(Kind::InvalidReasonCode(3)))
        if frame.version < ProtocolVersion::V5,

    MqttProtocolCore "core-flags" |_| OnlyTheyAccept(Kind::ReservedFlags(_) | Kind::DupAtQoS0),
    MqttProtocolCore "core-long-length" |_| OnlyTheyAccept(Kind::VarIntNotMinimal),
    MqttProtocolCore "core-nul" |_| OnlyTheyAccept(Kind::NulCharacter),
    MqttProtocolCore "core-wildcard-in-name" |_| OnlyTheyAccept(Kind::InvalidTopicName(_) | Kind::InvalidResponseTopic(_)),
    MqttProtocolCore "core-topic-filter" |_| OnlyTheyAccept(Kind::InvalidTopicFilter(_)),
    MqttProtocolCore "core-connack-flags" |_| OnlyTheyAccept(Kind::ReservedConnAckFlags),
    MqttProtocolCore "core-empty-topic" |_| OnlyTheyAccept(Kind::EmptyTopic),
    MqttProtocolCore "core-publish-without-properties" |frame| OnlyTheyAccept(Kind::Truncated)
        if frame.version == ProtocolVersion::V5 && is_publish_without_properties(frame),
    MqttProtocolCore "core-zero-packet-id" |_| OnlyTheyAccept(Kind::ZeroPacketId),
    MqttProtocolCore "core-second-subscription-id" |_|
        OnlyTheyAccept(Kind::DuplicateProperty(PropertyId::SubscriptionIdentifier)),
    MqttProtocolCore "core-options-3.1.1" |frame| OnlyTheyAccept(Kind::ReservedSubscriptionOptions)
        if frame.version == ProtocolVersion::V311,
    MqttProtocolCore "core-auth-data-alone" |_| OnlyTheyAccept(Kind::AuthenticationDataWithoutMethod),
    MqttProtocolCore "core-auth-without-properties" |frame| OnlyTheyAccept(Kind::Truncated)
        if frame.packet_type() == Some(PacketType::Auth) && frame.body == [0],
    MqttProtocolCore "core-connect-flag" |_| OnlyTheyAccept(Kind::ReservedConnectFlag),
    MqttProtocolCore "core-will-flags-alone" |_| OnlyTheyAccept(Kind::WillFlagsWithoutWill),
    MqttProtocolCore "core-will-qos" |_| OnlyTheyAccept(Kind::InvalidWillQoS),
    MqttProtocolCore "core-session-present" |_| OnlyTheyAccept(Kind::SessionPresentWithError),
    MqttProtocolCore "core-ack-code-3.1.1" |frame| OnlyTheyAccept(Kind::TrailingBytes)
        if frame.version == ProtocolVersion::V311 && frame.body.len() == 3,
    MqttProtocolCore "core-no-local-shared" |_| OnlyTheyAccept(Kind::NoLocalOnSharedSubscription),
    MqttProtocolCore "core-password-alone" |_| OnlyWeAccept(Packet::Connect(connect), reason)
        if connect.username.is_none() && connect.password.is_some() && reason == "ProtocolError",
    MqttProtocolCore "core-disconnect-8c" |_| OnlyWeAccept(Packet::Disconnect(disconnect), _)
        if disconnect.reason_code == ReasonCode::BadAuthenticationMethod,
}

/// A PUBLISH that ends behind its Topic Name, or behind its Packet Identifier above QoS 0.
fn is_publish_without_properties(frame: Frame<'_>) -> bool {
    let topic = frame
        .body
        .first_chunk()
        .map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    let packet_id = if frame.first & 0x06 == 0 { 0 } else { 2 };
    frame.packet_type() == Some(PacketType::Publish) && frame.body.len() == 2 + topic + packet_id
}
