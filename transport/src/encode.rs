//! From the engine's owned packets to bytes.

use std::rc::Rc;

use sol_codec::{
    AckProperties, ConnAck, ConnAckProperties, Disconnect, PacketId, PingResp, ProtocolVersion, PubAck, PubComp,
    PubRec, PubRel, Publish, PublishHead, PublishProperties, QoS, ReasonCode, ReasonCodes, SubAck, SubscriptionId,
    SubscriptionIds, TopicName, UnsubAck,
};
use sol_engine::{AckKind, ConnAckData, Delivery, Message, Outgoing};

/// Encodes packets; remembers the last PUBLISH of each shape, so that a fan-out copies instead of encoding.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// By [`Shape`]: what a receiver's version and QoS make of a message.
    last: [Last; 4],
    subscription_ids: Vec<SubscriptionId>,
    reason_codes: Vec<ReasonCode>,
}

/// A message that was encoded, and its bytes from the second time on.
#[derive(Debug)]
struct Last {
    /// Compared, never followed: the tray holds the message until [`Encoder::forget`].
    message: *const Message,
    expiry: Option<u32>,
    head: Option<PublishHead>,
    bytes: Vec<u8>,
}

impl Default for Last {
    fn default() -> Self {
        Self {
            message: core::ptr::null(),
            expiry: None,
            head: None,
            bytes: Vec::new(),
        }
    }
}

/// A remembered PUBLISH larger than this does not keep its memory.
const REMEMBERED_BYTES_MAX: usize = 256 << 10;

impl Encoder {
    /// Appends a packet in the form of `version`.
    pub(crate) fn encode(&mut self, packet: &Outgoing, version: ProtocolVersion, out: &mut Vec<u8>) {
        match packet {
            Outgoing::Publish(delivery) => self.publish(delivery, version, out),
            Outgoing::Ack {
                kind,
                packet_id,
                reason_code,
            } => ack(*kind, *packet_id, *reason_code, version, out),
            Outgoing::ConnAck(data) => connack(data, out),
            Outgoing::SubAck {
                packet_id,
                reason_codes,
            } => {
                let reason_codes = self.reason_codes(reason_codes);
                SubAck {
                    packet_id: *packet_id,
                    properties: AckProperties::default(),
                    reason_codes,
                }
                .encode(version, out);
            }
            Outgoing::UnsubAck {
                packet_id,
                reason_codes,
            } => {
                let reason_codes = self.reason_codes(reason_codes);
                UnsubAck {
                    packet_id: *packet_id,
                    properties: AckProperties::default(),
                    reason_codes,
                }
                .encode(version, out);
            }
            Outgoing::PingResp => PingResp.encode(version, out),
            // 3.x has no DISCONNECT from the server; the close that follows says it.
            Outgoing::Disconnect(_) if version < ProtocolVersion::V5 => {}
            Outgoing::Disconnect(reason_code) => Disconnect::new(*reason_code).encode(version, out),
        }
    }

    /// Forgets which messages were encoded: the tray is about to let go of them.
    pub(crate) fn forget(&mut self) {
        for last in &mut self.last {
            last.message = core::ptr::null();
            last.head = None;
            if last.bytes.capacity() > REMEMBERED_BYTES_MAX {
                last.bytes = Vec::new();
            }
        }
    }

    fn publish(&mut self, delivery: &Delivery, version: ProtocolVersion, out: &mut Vec<u8>) {
        let is_v5 = version == ProtocolVersion::V5;
        let has_own = delivery.subscription_id.is_some() || delivery.topic_alias.is_some();
        if is_v5 && has_own {
            return self.publish_own(delivery, version, out);
        }
        let expiry = if is_v5 {
            delivery.message_expiry_interval()
        } else {
            None
        };
        let shape = usize::from(is_v5) << 1 | usize::from(delivery.qos > QoS::AtMostOnce);
        let last = &mut self.last[shape];
        let message = Rc::as_ptr(&delivery.message);
        if last.message != message || last.expiry != expiry {
            // Most messages have one receiver; only a second one makes it worth remembering the bytes.
            last.message = message;
            last.expiry = expiry;
            last.head = None;
            return publish(delivery, SubscriptionIds::default(), version, |publish| {
                publish.encode(version, out)
            });
        }
        if last.head.is_none() {
            last.bytes.clear();
            let bytes = &mut last.bytes;
            publish(delivery, SubscriptionIds::default(), version, |publish| {
                last.head = Some(PublishHead::encode(&publish, version, bytes));
                bytes.extend_from_slice(publish.payload);
            });
        }
        if let Some(head) = last.head {
            out.reserve(last.bytes.len());
            head.copy(
                &last.bytes,
                delivery.dup,
                delivery.qos,
                delivery.retain,
                delivery.packet_id,
                out,
            );
        }
    }

    /// A PUBLISH with what only this receiver has.
    #[cold]
    fn publish_own(&mut self, delivery: &Delivery, version: ProtocolVersion, out: &mut Vec<u8>) {
        self.subscription_ids.clear();
        self.subscription_ids.extend(delivery.subscription_id);
        if let Some(more) = &delivery.more_subscription_ids {
            self.subscription_ids.extend_from_slice(more);
        }
        let ids = SubscriptionIds::from_slice(&self.subscription_ids);
        publish(delivery, ids, version, |publish| publish.encode(version, out));
    }

    fn reason_codes(&mut self, values: &[u8]) -> ReasonCodes<'_> {
        self.reason_codes.clear();
        let code = |&value| ReasonCode::from_value(value).unwrap_or(ReasonCode::UnspecifiedError);
        self.reason_codes.extend(values.iter().map(code));
        ReasonCodes::from_slice(&self.reason_codes)
    }
}

/// Borrows a delivery as the codec's packet.
#[inline]
fn publish(
    delivery: &Delivery,
    subscription_ids: SubscriptionIds<'_>,
    version: ProtocolVersion,
    write: impl FnOnce(Publish<'_>),
) {
    let message = &*delivery.message;
    let topic_alias = delivery.topic_alias.filter(|_| version == ProtocolVersion::V5);
    let alias_only = delivery.alias_only && topic_alias.is_some();
    write(Publish {
        dup: delivery.dup,
        qos: delivery.qos,
        retain: delivery.retain,
        topic: if alias_only {
            None
        } else {
            TopicName::new(message.topic()).ok()
        },
        packet_id: delivery.packet_id,
        properties: PublishProperties {
            message_expiry_interval: delivery.message_expiry_interval(),
            topic_alias,
            subscription_ids,
            application: message.properties(),
        },
        payload: message.payload(),
    });
}

fn ack(kind: AckKind, packet_id: PacketId, reason_code: ReasonCode, version: ProtocolVersion, out: &mut Vec<u8>) {
    let properties = AckProperties::default();
    match kind {
        AckKind::PubAck => PubAck {
            packet_id,
            reason_code,
            properties,
        }
        .encode(version, out),
        AckKind::PubRec => PubRec {
            packet_id,
            reason_code,
            properties,
        }
        .encode(version, out),
        AckKind::PubRel => PubRel {
            packet_id,
            reason_code,
            properties,
        }
        .encode(version, out),
        AckKind::PubComp => PubComp {
            packet_id,
            reason_code,
            properties,
        }
        .encode(version, out),
    }
}

fn connack(data: &ConnAckData, out: &mut Vec<u8>) {
    let packet = ConnAck {
        session_present: data.session_present,
        reason_code: data.reason_code,
        properties: ConnAckProperties {
            session_expiry_interval: data.session_expiry_interval,
            receive_maximum: data.receive_maximum.and_then(|maximum| maximum.try_into().ok()),
            maximum_qos: data.maximum_qos,
            retain_available: data.retain_available,
            maximum_packet_size: data.maximum_packet_size.and_then(|maximum| maximum.try_into().ok()),
            assigned_client_id: data.assigned_client_id.as_deref(),
            topic_alias_maximum: data.topic_alias_maximum,
            server_keep_alive: data.server_keep_alive,
            ..ConnAckProperties::default()
        },
    };
    packet.encode(data.version, out);
}
