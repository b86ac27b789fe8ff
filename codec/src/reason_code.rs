//! Reason Codes (section 2.4): one table.

use core::fmt;

use crate::packet::{PacketSet, PacketType};
use crate::property::Holder;

/// One row per code: value, name, the packets it may stand on, the 3.1.1 CONNACK return code that says the same (if
/// one does), and a sentence for people.
macro_rules! reason_codes {
    ($($value:literal $name:ident [$($packet:ident)+] $return_code:expr, $sentence:literal;)+) => {
        /// How an operation ended. Values of 0x80 and above are failures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = $sentence] $name = $value,)+
        }

        impl ReasonCode {
            /// Every code, in order of value.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code with this value, if there is one.
            #[must_use]
            pub const fn from_value(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// One sentence for a person.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)+
                }
            }

            /// The packets on which the specification lists it.
            const fn packets(self) -> PacketSet {
                match self {
                    $(Self::$name => PacketSet::NONE$(.with(Holder::Packet(PacketType::$packet)))+,)+
                }
            }

            /// The CONNACK return code of 3.1 and 3.1.1 that says the same. `None`: no return code applies, and such
            /// a client is disconnected without a CONNACK (3.1.1, [MQTT-3.2.2-6]).
            #[must_use]
            pub const fn connect_return_code(self) -> Option<u8> {
                match self {
                    $(Self::$name => $return_code,)+
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth] Some(0), "Success.";
    0x01 GrantedQoS1 [SubAck] None, "Granted QoS 1.";
    0x02 GrantedQoS2 [SubAck] None, "Granted QoS 2.";
    0x04 DisconnectWithWillMessage [Disconnect] None, "The Client disconnects and wants its Will Message published.";
    0x10 NoMatchingSubscribers [PubAck PubRec] None, "The message was accepted, but there is no subscriber.";
    0x11 NoSubscriptionExisted [UnsubAck] None, "There was no such Subscription.";
    0x18 ContinueAuthentication [Auth] None, "Authentication goes on with another step.";
    0x19 ReAuthenticate [Auth] None, "The Client starts to authenticate again.";
    0x80 UnspecifiedError [ConnAck PubAck PubRec SubAck UnsubAck Disconnect] Some(3), "Something failed that no other code names.";
    0x81 MalformedPacket [ConnAck Disconnect] None, "A packet could not be parsed.";
    0x82 ProtocolError [ConnAck Disconnect] None, "A packet was not allowed here or held what is not allowed.";
    0x83 ImplementationSpecificError [ConnAck PubAck PubRec SubAck UnsubAck Disconnect] Some(3), "The packet is valid, but this receiver does not accept it.";
    0x84 UnsupportedProtocolVersion [ConnAck] Some(1), "The Server does not speak this protocol version.";
    0x85 ClientIdentifierNotValid [ConnAck] Some(2), "The Client Identifier is not allowed.";
    0x86 BadUserNameOrPassword [ConnAck] Some(4), "The user name or password is wrong.";
    0x87 NotAuthorized [ConnAck PubAck PubRec SubAck UnsubAck Disconnect] Some(5), "The Client is not authorised to do this.";
    0x88 ServerUnavailable [ConnAck] Some(3), "The Server is not available.";
    0x89 ServerBusy [ConnAck Disconnect] Some(3), "The Server is busy; try again later.";
    0x8a Banned [ConnAck] Some(5), "The Client has been banned.";
    0x8b ServerShuttingDown [Disconnect] None, "The Server is shutting down.";
    0x8c BadAuthenticationMethod [ConnAck Disconnect] Some(5), "The authentication method is not supported.";
    0x8d KeepAliveTimeout [Disconnect] None, "Nothing was received for one and a half times the Keep Alive.";
    0x8e SessionTakenOver [Disconnect] None, "Another connection took over the Session.";
    0x8f TopicFilterInvalid [SubAck UnsubAck Disconnect] None, "The Topic Filter is not accepted.";
    0x90 TopicNameInvalid [ConnAck PubAck PubRec Disconnect] None, "The Topic Name is not accepted.";
    0x91 PacketIdentifierInUse [PubAck PubRec SubAck UnsubAck] None, "The Packet Identifier is in use.";
    0x92 PacketIdentifierNotFound [PubRel PubComp] None, "The Packet Identifier is not known.";
    0x93 ReceiveMaximumExceeded [Disconnect] None, "More messages were in flight than the Receive Maximum allows.";
    0x94 TopicAliasInvalid [Disconnect] None, "The Topic Alias is zero, too large or unknown.";
    0x95 PacketTooLarge [ConnAck Disconnect] None, "The packet is larger than the Maximum Packet Size.";
    0x96 MessageRateTooHigh [Disconnect] None, "Messages arrive too fast.";
    0x97 QuotaExceeded [ConnAck PubAck PubRec SubAck Disconnect] Some(3), "A limit set by the Server has been reached.";
    0x98 AdministrativeAction [Disconnect] None, "An administrator closed the connection.";
    0x99 PayloadFormatInvalid [ConnAck PubAck PubRec Disconnect] None, "The payload is not what its format indicator says.";
    0x9a RetainNotSupported [ConnAck Disconnect] None, "The Server does not keep retained messages.";
    0x9b QoSNotSupported [ConnAck Disconnect] None, "The QoS is above the Server's Maximum QoS.";
    0x9c UseAnotherServer [ConnAck Disconnect] Some(3), "The Client should use another Server for now.";
    0x9d ServerMoved [ConnAck Disconnect] Some(3), "The Client should use another Server from now on.";
    0x9e SharedSubscriptionsNotSupported [SubAck Disconnect] None, "The Server does not support Shared Subscriptions.";
    0x9f ConnectionRateExceeded [ConnAck Disconnect] Some(3), "Connections arrive too fast.";
    0xa0 MaximumConnectTime [Disconnect] None, "The connection has lasted as long as it may.";
    0xa1 SubscriptionIdentifiersNotSupported [SubAck Disconnect] None, "The Server does not support Subscription Identifiers.";
    0xa2 WildcardSubscriptionsNotSupported [SubAck Disconnect] None, "The Server does not support wildcards in Subscriptions.";
}

impl ReasonCode {
    /// What a DISCONNECT calls 0x00.
    pub const NORMAL_DISCONNECTION: Self = Self::Success;
    /// What a SUBACK calls 0x00.
    pub const GRANTED_QOS_0: Self = Self::Success;

    /// The value on the wire.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u8 {
        self as u8
    }

    /// Whether the operation failed (0x80 and above).
    #[inline]
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.value() >= 0x80
    }

    /// Whether the specification lists this code for that packet.
    #[inline]
    #[must_use]
    pub const fn is_allowed_on(self, packet: PacketType) -> bool {
        self.packets().contains(Holder::Packet(packet))
    }

    /// What a CONNACK return code of 3.1 and 3.1.1 says in the words of 5.0; `None` for the reserved values.
    #[must_use]
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// The code with which a SUBACK grants this QoS.
    #[must_use]
    pub const fn granted(qos: crate::QoS) -> Self {
        match qos {
            crate::QoS::AtMostOnce => Self::Success,
            crate::QoS::AtLeastOnce => Self::GrantedQoS1,
            crate::QoS::ExactlyOnce => Self::GrantedQoS2,
        }
    }
}

/// The value and the sentence.
impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}: {}", self.value(), self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_codes_name_each_other() {
        // Section 2.4, table 2-6: 43 codes.
        assert_eq!(ReasonCode::ALL.len(), 43);
        for value in 0..=u8::MAX {
            if let Some(code) = ReasonCode::from_value(value) {
                assert_eq!(code.value(), value);
                assert!(ReasonCode::ALL.contains(&code));
            }
        }
    }

    #[test]
    fn every_return_code_of_3_1_1_comes_back_from_its_reason_code() {
        // Section 3.2.2.3 of 3.1.1, table 3.1.
        for code in 0..=5 {
            assert_eq!(
                ReasonCode::from_connect_return_code(code)
                    .unwrap()
                    .connect_return_code(),
                Some(code)
            );
        }
        assert_eq!(ReasonCode::from_connect_return_code(6), None);
    }
}
