//! I12: whatever the broker sends is encoded and read again as its receiver would, and must be legal there.

use std::num::{NonZeroU16, NonZeroU32};

use sol_codec::{
    AckProperties, ConnAck, ConnAckProperties, DecodeLimits, Decoded, Direction, Disconnect, Packet, PacketId,
    ProtocolVersion, PubAck, PubComp, PubRec, PubRel, ReasonCode, ReasonCodes, SubAck, UnsubAck, decode,
};
use sol_engine::{AckKind, ConnAckData, Outgoing};

use crate::packet::{Received, Reply};
use crate::violation::{Verdict, Violation, broken, ensure};

/// A packet's way over the wire. `None`: the receiver's version has no such packet, and nothing is sent.
pub(crate) fn carry(
    packet: &Outgoing,
    version: ProtocolVersion,
    maximum_packet_size: usize,
) -> Result<Option<Reply>, Violation> {
    if version < ProtocolVersion::V5 && matches!(packet, Outgoing::Disconnect(_)) {
        return Ok(None);
    }
    let bytes = bytes_of(packet, version)?;
    ensure(bytes.len() <= maximum_packet_size, "I12", || {
        format!(
            "{} bytes for a client that takes {maximum_packet_size}: {packet:?}",
            bytes.len()
        )
    })?;
    let limits = DecodeLimits {
        direction: Direction::FromServer,
        ..DecodeLimits::default()
    };
    match decode(&bytes, version, &limits) {
        Ok(Decoded::Packet { packet: read, len }) if len == bytes.len() => reply(&read).map(Some),
        other => Err(broken("I12", format!("{packet:?} is read as {other:?}"))),
    }
}

fn bytes_of(packet: &Outgoing, version: ProtocolVersion) -> Result<Vec<u8>, Violation> {
    let mut bytes = Vec::new();
    let properties = AckProperties::default();
    let announced = match packet {
        Outgoing::Publish(delivery) => delivery.with_publish(&mut Vec::new(), |publish| {
            publish.encode(version, &mut bytes);
            publish.encoded_len(version)
        }),
        Outgoing::Ack {
            kind,
            packet_id,
            reason_code,
        } => write(&ack(*kind, *packet_id, *reason_code), version, &mut bytes),
        Outgoing::ConnAck(data) => {
            ensure(data.version == version, "I12", || {
                format!("a CONNACK of {:?}", data.version)
            })?;
            write(&Packet::ConnAck(connack(data)), version, &mut bytes)
        }
        Outgoing::SubAck {
            packet_id,
            reason_codes,
        } => {
            let codes = codes(reason_codes)?;
            let packet = SubAck {
                packet_id: *packet_id,
                properties,
                reason_codes: ReasonCodes::from_slice(&codes),
            };
            write(&Packet::SubAck(packet), version, &mut bytes)
        }
        Outgoing::UnsubAck {
            packet_id,
            reason_codes,
        } => {
            let codes = codes(reason_codes)?;
            let packet = UnsubAck {
                packet_id: *packet_id,
                properties,
                reason_codes: ReasonCodes::from_slice(&codes),
            };
            write(&Packet::UnsubAck(packet), version, &mut bytes)
        }
        Outgoing::Auth(_) => return Err(broken("I12", "an AUTH, and no client has asked for one".into())),
        Outgoing::PingResp => write(&Packet::PingResp, version, &mut bytes),
        Outgoing::Disconnect(reason) => write(&Packet::Disconnect(Disconnect::new(*reason)), version, &mut bytes),
    };
    ensure(announced == bytes.len(), "I12", || {
        format!("{packet:?} announces {announced} bytes and has {}", bytes.len())
    })?;
    Ok(bytes)
}

fn write(packet: &Packet<'_>, version: ProtocolVersion, bytes: &mut Vec<u8>) -> usize {
    packet.encode(version, bytes);
    packet.encoded_len(version)
}

fn ack<'a>(kind: AckKind, packet_id: PacketId, reason: ReasonCode) -> Packet<'a> {
    match kind {
        AckKind::PubAck => Packet::PubAck(PubAck::new(packet_id, reason)),
        AckKind::PubRec => Packet::PubRec(PubRec::new(packet_id, reason)),
        AckKind::PubRel => Packet::PubRel(PubRel::new(packet_id, reason)),
        AckKind::PubComp => Packet::PubComp(PubComp::new(packet_id, reason)),
    }
}

fn connack(data: &ConnAckData) -> ConnAck<'_> {
    ConnAck {
        session_present: data.session_present,
        reason_code: data.reason_code,
        properties: ConnAckProperties {
            session_expiry_interval: data.session_expiry_interval,
            receive_maximum: data.receive_maximum.and_then(NonZeroU16::new),
            maximum_qos: data.maximum_qos,
            retain_available: data.retain_available,
            maximum_packet_size: data.maximum_packet_size.and_then(NonZeroU32::new),
            assigned_client_id: data.assigned_client_id.as_deref(),
            topic_alias_maximum: data.topic_alias_maximum,
            server_keep_alive: data.server_keep_alive,
            ..ConnAckProperties::default()
        },
    }
}

fn codes(values: &[u8]) -> Result<Vec<ReasonCode>, Violation> {
    let known =
        |&value| ReasonCode::from_value(value).ok_or_else(|| broken("I12", format!("a Reason Code {value:02x}")));
    values.iter().map(known).collect()
}

fn reply(packet: &Packet<'_>) -> Result<Reply, Violation> {
    Ok(match packet {
        Packet::ConnAck(connack) => Reply::ConnAck {
            session_present: connack.session_present,
            reason_code: connack.reason_code,
            receive_maximum: connack.properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
            topic_alias_maximum: connack.properties.topic_alias_maximum.unwrap_or_default(),
        },
        Packet::Publish(publish) => {
            let received = Received::new(publish);
            is_legal(&received)?;
            Reply::Publish(received)
        }
        Packet::PubAck(ack) => Reply::Ack(AckKind::PubAck, ack.packet_id.get(), ack.reason_code),
        Packet::PubRec(ack) => Reply::Ack(AckKind::PubRec, ack.packet_id.get(), ack.reason_code),
        Packet::PubRel(ack) => Reply::Ack(AckKind::PubRel, ack.packet_id.get(), ack.reason_code),
        Packet::PubComp(ack) => Reply::Ack(AckKind::PubComp, ack.packet_id.get(), ack.reason_code),
        Packet::SubAck(ack) => Reply::SubAck(ack.packet_id.get(), ack.reason_codes.iter().collect()),
        Packet::UnsubAck(ack) => Reply::UnsubAck(ack.packet_id.get(), ack.reason_codes.iter().collect()),
        Packet::PingResp => Reply::PingResp,
        Packet::Disconnect(disconnect) => Reply::Disconnect(disconnect.reason_code),
        other => return Err(broken("I12", format!("a server does not send {other:?}"))),
    })
}

/// What a decoder need not look at [MQTT-3.3.1-2, -4.7.1-1 of topics].
fn is_legal(received: &Received) -> Verdict {
    let names_wildcard = received
        .topic
        .as_deref()
        .is_some_and(|topic| topic.contains(['#', '+']));
    let id_fits = received.packet_id.is_some() == (received.qos > sol_codec::QoS::AtMostOnce);
    ensure(!names_wildcard && id_fits, "I12", || format!("{received:?}"))
}
