//! I12: whatever the broker sends is encoded and read again as its receiver would, and must be legal there.

use std::num::NonZeroU16;

use sol_codec::{DecodeLimits, Decoded, Direction, Packet, ProtocolVersion, decode};
use sol_engine::{AckKind, Outgoing};

use crate::packet::{Received, Reply};
use crate::violation::{Verdict, Violation, broken, ensure};

/// A packet's way over the wire. `None`: the receiver's version has no such packet, and nothing is sent. `bytes` holds the packet
/// afterwards.
pub(crate) fn carry(
    packet: &Outgoing,
    version: ProtocolVersion,
    maximum_packet_size: usize,
    bytes: &mut Vec<u8>,
) -> Result<Option<Reply>, Violation> {
    if version < ProtocolVersion::V5 && matches!(packet, Outgoing::Disconnect(_)) {
        return Ok(None);
    }
    bytes.clear();
    write(packet, version, bytes)?;
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
    match decode(bytes, version, &limits) {
        Ok(Decoded::Packet { packet: read, len }) if len == bytes.len() => {
            let mut reply = reply(&read)?;
            tell_session_present(&mut reply, packet, version);
            Ok(Some(reply))
        }
        other => Err(broken("I12", format!("{packet:?} is read as {other:?}"))),
    }
}

/// A CONNACK of 3.1 does not say whether there is a Session (3.1, section 3.2). Its receiver knows by other means here: it
/// would go by its own memory, and nobody could say what follows if that is not the broker's.
fn tell_session_present(reply: &mut Reply, packet: &Outgoing, version: ProtocolVersion) {
    if let (Reply::ConnAck { session_present, .. }, Outgoing::ConnAck(data)) = (reply, packet)
        && version == ProtocolVersion::V31
    {
        *session_present = data.session_present;
    }
}

fn write(packet: &Outgoing, version: ProtocolVersion, bytes: &mut Vec<u8>) -> Verdict {
    match packet {
        Outgoing::Auth(_) => return Err(broken("I12", "an AUTH, and no client has asked for one".into())),
        Outgoing::ConnAck(data) => ensure(data.version == version, "I12", || {
            format!("a CONNACK of {:?}", data.version)
        })?,
        _ => {}
    }
    let announced = packet.with_packet(|packet| {
        packet.encode(version, bytes);
        packet.encoded_len(version)
    });
    ensure(announced == bytes.len(), "I12", || {
        format!("{packet:?} announces {announced} bytes and has {}", bytes.len())
    })
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
