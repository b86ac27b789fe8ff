//! What an engine sends, as the bytes that a client reads.

use sol_codec::{
    AckProperties, Disconnect, Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, ReasonCode,
    ReasonCodes, SubAck, UnsubAck,
};
use sol_engine::{AckKind, Outgoing};

use crate::encoded;

/// The bytes of a packet; `None` where its version has none.
pub fn wire(packet: &Outgoing, version: ProtocolVersion) -> Option<Vec<u8>> {
    let properties = AckProperties::default();
    Some(match packet {
        Outgoing::Publish(delivery) => {
            delivery.with_publish(&mut Vec::new(), |publish| encoded(&Packet::Publish(*publish), version))
        }
        Outgoing::Ack {
            kind,
            packet_id,
            reason_code,
        } => encoded(&ack(*kind, *packet_id, *reason_code), version),
        Outgoing::ConnAck(data) => encoded(&Packet::ConnAck(data.packet()), data.version),
        Outgoing::SubAck {
            packet_id,
            reason_codes,
        } => {
            let codes = codes(reason_codes);
            let reason_codes = ReasonCodes::from_slice(&codes);
            encoded(
                &Packet::SubAck(SubAck {
                    packet_id: *packet_id,
                    properties,
                    reason_codes,
                }),
                version,
            )
        }
        Outgoing::UnsubAck {
            packet_id,
            reason_codes,
        } => {
            let codes = codes(reason_codes);
            let reason_codes = ReasonCodes::from_slice(&codes);
            encoded(
                &Packet::UnsubAck(UnsubAck {
                    packet_id: *packet_id,
                    properties,
                    reason_codes,
                }),
                version,
            )
        }
        Outgoing::Auth(auth) => encoded(&Packet::Auth(auth.packet()), version),
        Outgoing::PingResp => encoded(&Packet::PingResp, version),
        Outgoing::Disconnect(_) if version < ProtocolVersion::V5 => return None,
        Outgoing::Disconnect(reason_code) => encoded(&Packet::Disconnect(Disconnect::new(*reason_code)), version),
    })
}

fn ack<'a>(kind: AckKind, packet_id: PacketId, reason_code: ReasonCode) -> Packet<'a> {
    match kind {
        AckKind::PubAck => Packet::PubAck(PubAck::new(packet_id, reason_code)),
        AckKind::PubRec => Packet::PubRec(PubRec::new(packet_id, reason_code)),
        AckKind::PubRel => Packet::PubRel(PubRel::new(packet_id, reason_code)),
        AckKind::PubComp => Packet::PubComp(PubComp::new(packet_id, reason_code)),
    }
}

fn codes(values: &[u8]) -> Vec<ReasonCode> {
    values
        .iter()
        .map(|&value| ReasonCode::from_value(value).expect("a Reason Code that does not exist"))
        .collect()
}
