//! Faults that are put in on purpose, between clients and engines, to see that the checks bite. The oracle hears what
//! the clients said; the engines hear something else.

use sol_codec::{QoS, ReasonCode};
use sol_engine::{AckKind, Message, Outgoing};

use crate::packet::{ConnectRequest, PublishRequest, Request};

/// Something that a broker could do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A QoS 1 message is acknowledged and goes nowhere.
    LosesAcknowledged,
    /// Every message is answered with 0x97 and goes nowhere.
    RefusesAll,
    /// A QoS 2 message is delivered twice.
    RepeatsExactlyOnce,
    /// Two messages of one topic change places.
    SwapsOrder,
    /// An UNSUBSCRIBE is answered and has no effect.
    DeliversAfterUnsuback,
    /// An empty retained message clears nothing.
    KeepsCleared,
    /// A client that connects again does not take over.
    HasTwoOwners,
    /// No Local is ignored.
    IgnoresNoLocal,
    /// Retain Handling is ignored.
    IgnoresRetainHandling,
    /// Receive Maximum is ignored.
    IgnoresReceiveMaximum,
    /// A Will is published after DISCONNECT 0x00.
    PublishesWillAfterDisconnect,
    /// A Will is forgotten.
    ForgetsWill,
    /// A Message Expiry Interval is ignored.
    IgnoresExpiry,
    /// Retain As Published is ignored.
    IgnoresRetainAsPublished,
    /// A message of a Shared Subscription goes to all members.
    SharesWithAll,
    /// What is delivered again does not say so.
    ForgetsDup,
    /// A Session is lost with its connection.
    ForgetsSession,
}

/// What a fault makes of a request.
pub(crate) enum Given {
    /// The engine gets this.
    Request(Request),
    /// The engine gets nothing, and the client this.
    Answer(Outgoing),
    /// The engine gets this message besides.
    Besides(Request, Box<Message>),
}

impl Fault {
    /// What the engine gets instead of a request.
    pub(crate) fn change(self, request: &Request) -> Given {
        let mut changed = request.clone();
        match (self, &mut changed) {
            (Self::LosesAcknowledged, Request::Publish(publish)) => {
                if let (QoS::AtLeastOnce, Some(packet_id)) =
                    (publish.qos, publish.packet_id.and_then(sol_codec::PacketId::new))
                {
                    return Given::Answer(Outgoing::Ack {
                        kind: AckKind::PubAck,
                        packet_id,
                        reason_code: ReasonCode::Success,
                    });
                }
            }
            (Self::RefusesAll, Request::Publish(publish)) => {
                if let Some(packet_id) = publish.packet_id.and_then(sol_codec::PacketId::new) {
                    let kind = if publish.qos == QoS::ExactlyOnce {
                        AckKind::PubRec
                    } else {
                        AckKind::PubAck
                    };
                    return Given::Answer(Outgoing::Ack {
                        kind,
                        packet_id,
                        reason_code: ReasonCode::QuotaExceeded,
                    });
                }
            }
            (Self::RepeatsExactlyOnce, Request::Publish(publish)) => {
                if let (QoS::ExactlyOnce, Some(topic), false) = (publish.qos, &publish.topic, publish.tagged) {
                    let mut twin = Message::new(topic, publish.payload.as_bytes(), false);
                    twin.qos = QoS::ExactlyOnce;
                    return Given::Besides(changed, Box::new(twin));
                }
            }
            (Self::DeliversAfterUnsuback, Request::Unsubscribe { packet_id, filters }) => {
                if let Some(packet_id) = sol_codec::PacketId::new(*packet_id) {
                    return Given::Answer(Outgoing::UnsubAck {
                        packet_id,
                        reason_codes: Box::new(vec![ReasonCode::Success; filters.len()]),
                    });
                }
            }
            (Self::HasTwoOwners, Request::Connect(connect)) if connect.clean_start => connect.client_id.push('\''),
            (_, Request::Connect(connect)) => self.change_connect(connect),
            (_, Request::Publish(publish)) => self.change_publish(publish),
            (_, Request::Subscribe { filters, .. }) => {
                for (filter, options) in filters {
                    options.no_local &= self != Self::IgnoresNoLocal;
                    options.retain_as_published &= self != Self::IgnoresRetainAsPublished;
                    if self == Self::IgnoresRetainHandling {
                        options.retain_handling = sol_codec::RetainHandling::SendAtSubscribe;
                    }
                    if self == Self::SharesWithAll
                        && let Some((_, plain)) = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'))
                    {
                        *filter = plain.to_owned();
                        options.retain_handling = sol_codec::RetainHandling::DoNotSend;
                    }
                }
            }
            (Self::PublishesWillAfterDisconnect, Request::Disconnect { reason_code, .. }) => {
                *reason_code = ReasonCode::DisconnectWithWillMessage;
            }
            _ => {}
        }
        Given::Request(changed)
    }

    fn change_connect(self, connect: &mut ConnectRequest) {
        match self {
            Self::IgnoresReceiveMaximum => connect.receive_maximum = None,
            Self::ForgetsWill => connect.will = None,
            Self::ForgetsSession => connect.session_expiry_interval = 0,
            _ => {}
        }
    }

    fn change_publish(self, publish: &mut PublishRequest) {
        match self {
            Self::KeepsCleared => publish.retain &= !publish.payload.is_empty(),
            Self::IgnoresExpiry => publish.expiry = None,
            _ => {}
        }
    }
}
