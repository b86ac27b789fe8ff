//! From the engine's owned packets to bytes.

use std::mem;
use std::rc::Rc;

use sol_codec::{
    AckProperties, Disconnect, PacketId, PingResp, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, PublishHead, QoS,
    ReasonCode, ReasonCodes, SubAck, SubscriptionId, UnsubAck,
};
use sol_engine::{AckKind, Delivery, Message, Outgoing};

/// Encodes packets; remembers the last PUBLISH of each shape, so that a fan-out copies instead of encoding.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// By [`Shape`]: what a receiver's version and QoS make of a message.
    last: [Last; 4],
    subscription_ids: Vec<SubscriptionId>,
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
            Outgoing::ConnAck(data) => data.packet().encode(data.version, out),
            Outgoing::SubAck {
                packet_id,
                reason_codes,
            } => SubAck {
                packet_id: *packet_id,
                properties: AckProperties::default(),
                reason_codes: ReasonCodes::from_slice(reason_codes),
            }
            .encode(version, out),
            Outgoing::UnsubAck {
                packet_id,
                reason_codes,
            } => UnsubAck {
                packet_id: *packet_id,
                properties: AckProperties::default(),
                reason_codes: ReasonCodes::from_slice(reason_codes),
            }
            .encode(version, out),
            Outgoing::PingResp => PingResp.encode(version, out),
            // 3.x has no DISCONNECT from the server; the close that follows says it.
            Outgoing::Disconnect(_) if version < ProtocolVersion::V5 => {}
            Outgoing::Disconnect(reason_code) => Disconnect::new(*reason_code).encode(version, out),
            Outgoing::Auth(auth) => auth.packet().encode(version, out),
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
        let ids = &mut self.subscription_ids;
        if is_v5 && (delivery.subscription_id.is_some() || delivery.topic_alias.is_some()) {
            return delivery.with_publish(ids, |publish| publish.encode(version, out));
        }
        let expiry = if is_v5 {
            delivery.message_expiry_interval()
        } else {
            None
        };
        let shape = usize::from(is_v5) << 1 | usize::from(delivery.qos > QoS::AtMostOnce);
        #[expect(clippy::indexing_slicing, reason = "there are four, and a shape has two bits")]
        let last = &mut self.last[shape];
        let message = Rc::as_ptr(&delivery.message);
        if last.message != message || last.expiry != expiry {
            // Most messages have one receiver; only a second one makes it worth remembering the bytes.
            *last = Last {
                message,
                expiry,
                head: None,
                bytes: mem::take(&mut last.bytes),
            };
            return delivery.with_publish(ids, |publish| publish.encode(version, out));
        }
        let head = *last.head.get_or_insert_with(|| {
            last.bytes.clear();
            delivery.with_publish(ids, |publish| {
                let head = PublishHead::encode(publish, version, &mut last.bytes);
                last.bytes.extend_from_slice(publish.payload);
                head
            })
        });
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

fn ack(kind: AckKind, packet_id: PacketId, reason_code: ReasonCode, version: ProtocolVersion, out: &mut Vec<u8>) {
    match kind {
        AckKind::PubAck => PubAck::new(packet_id, reason_code).encode(version, out),
        AckKind::PubRec => PubRec::new(packet_id, reason_code).encode(version, out),
        AckKind::PubRel => PubRel::new(packet_id, reason_code).encode(version, out),
        AckKind::PubComp => PubComp::new(packet_id, reason_code).encode(version, out),
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU16;

    use super::*;

    fn encoded(encoder: &mut Encoder, packet: &Outgoing, version: ProtocolVersion) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.encode(packet, version, &mut out);
        out
    }

    fn delivery(message: &Rc<Message>, qos: QoS, packet_id: u16) -> Outgoing {
        let mut delivery = Delivery::new(Rc::clone(message), qos, false);
        delivery.packet_id = PacketId::new(packet_id);
        Outgoing::Publish(delivery)
    }

    #[test]
    fn a_copied_publish_has_the_bytes_of_an_encoded_one() {
        // The fast path's naive twin is an encoder that has never seen the message.
        let messages = [
            Rc::new(Message::new("a/b", b"payload", false)),
            Rc::new(Message::new("c", b"", false)),
        ];
        let mut fast = Encoder::default();
        for round in 1..5 {
            for message in &messages {
                for version in ProtocolVersion::ALL {
                    for (qos, packet_id) in [
                        (QoS::AtMostOnce, 0),
                        (QoS::AtLeastOnce, round),
                        (QoS::ExactlyOnce, round + 1_000),
                    ] {
                        let packet = delivery(message, qos, packet_id);
                        for _ in 0..3 {
                            let naive = encoded(&mut Encoder::default(), &packet, version);
                            assert_eq!(encoded(&mut fast, &packet, version), naive, "{packet:?} {version:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_receiver_has_of_its_own_stays_its_own() {
        let message = Rc::new(Message::new("a", b"x", false));
        let shared = delivery(&message, QoS::AtMostOnce, 0);
        let mut own = Delivery::new(Rc::clone(&message), QoS::AtMostOnce, false);
        own.subscription_id = SubscriptionId::new(7);
        let own = Outgoing::Publish(own);
        let mut encoder = Encoder::default();
        for _ in 0..3 {
            assert_eq!(
                encoded(&mut encoder, &shared, ProtocolVersion::V5),
                b"\x30\x05\x00\x01a\x00x"
            );
            assert_eq!(
                encoded(&mut encoder, &own, ProtocolVersion::V5),
                b"\x30\x07\x00\x01a\x02\x0b\x07x"
            );
            assert_eq!(
                encoded(&mut encoder, &own, ProtocolVersion::V311),
                b"\x30\x04\x00\x01ax"
            );
        }
    }

    #[test]
    fn a_forgotten_message_is_not_taken_for_the_next_one_in_its_place() {
        // The tray recycles messages: the same address holds another message in the next turn.
        let mut message = Rc::new(Message::new("a", b"old", false));
        let mut encoder = Encoder::default();
        for _ in 0..2 {
            encoded(
                &mut encoder,
                &delivery(&message, QoS::AtMostOnce, 0),
                ProtocolVersion::V311,
            );
        }
        encoder.forget();
        Rc::get_mut(&mut message).unwrap().fill("a", Default::default(), b"new");
        for _ in 0..2 {
            let bytes = encoded(
                &mut encoder,
                &delivery(&message, QoS::AtMostOnce, 0),
                ProtocolVersion::V311,
            );
            assert_eq!(bytes, b"\x30\x06\x00\x01anew");
        }
    }

    #[test]
    fn the_small_packets_are_what_each_version_writes() {
        let packet_id = PacketId::new(NonZeroU16::MIN.get()).unwrap();
        let mut encoder = Encoder::default();
        let mut expect = |packet: Outgoing, v311: &[u8], v5: &[u8]| {
            assert_eq!(
                encoded(&mut encoder, &packet, ProtocolVersion::V311),
                v311,
                "{packet:?}"
            );
            assert_eq!(encoded(&mut encoder, &packet, ProtocolVersion::V5), v5, "{packet:?}");
        };
        let ack = |kind, reason_code| Outgoing::Ack {
            kind,
            packet_id,
            reason_code,
        };
        expect(
            ack(AckKind::PubAck, ReasonCode::Success),
            b"\x40\x02\x00\x01",
            b"\x40\x02\x00\x01",
        );
        expect(
            ack(AckKind::PubRec, ReasonCode::QuotaExceeded),
            b"\x50\x02\x00\x01",
            b"\x50\x03\x00\x01\x97",
        );
        expect(
            ack(AckKind::PubRel, ReasonCode::Success),
            b"\x62\x02\x00\x01",
            b"\x62\x02\x00\x01",
        );
        expect(
            ack(AckKind::PubComp, ReasonCode::Success),
            b"\x70\x02\x00\x01",
            b"\x70\x02\x00\x01",
        );
        expect(Outgoing::PingResp, b"\xd0\x00", b"\xd0\x00");
        // There is no DISCONNECT from a server before 5.0.
        expect(
            Outgoing::Disconnect(ReasonCode::ServerShuttingDown),
            b"",
            b"\xe0\x01\x8b",
        );
        let reason_codes = Box::new(vec![ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized]);
        expect(
            Outgoing::SubAck {
                packet_id,
                reason_codes,
            },
            b"\x90\x04\x00\x01\x01\x80",
            b"\x90\x05\x00\x01\x00\x01\x87",
        );
        expect(
            Outgoing::UnsubAck {
                packet_id,
                reason_codes: Box::new(vec![ReasonCode::NoSubscriptionExisted]),
            },
            b"\xb0\x02\x00\x01",
            b"\xb0\x04\x00\x01\x00\x11",
        );
    }
}
