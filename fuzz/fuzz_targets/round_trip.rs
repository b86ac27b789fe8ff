//! Any packet that can be said: it is written as long as it announces, read as it was, and written the same way again.
//!
//! Input: a packet, as [`sol_fuzz::packets`] reads one from it.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::{Corpus, fuzz_target};
use sol_codec::{DecodeLimits, Decoded, Direction, Packet, ProtocolVersion, PublishHead, decode};
use sol_fuzz::encoded;
use sol_fuzz::packets::with_packet;

fuzz_target!(|input: &[u8]| -> Corpus {
    match with_packet(&mut Unstructured::new(input), check) {
        Ok(()) => Corpus::Keep,
        Err(_) => Corpus::Reject,
    }
});

fn check(version: ProtocolVersion, packet: &Packet<'_>) {
    let bytes = encoded(packet, version);
    let whole = Ok(Decoded::Packet {
        packet: *packet,
        len: bytes.len(),
    });
    let read = decode(&bytes, version, &limits(Direction::Either));
    assert_eq!(read, whole, "from {bytes:02x?}");
    if let Ok(Decoded::Packet { packet: again, .. }) = read {
        assert_eq!(encoded(&again, version), bytes);
    }
    let sides = [Direction::FromClient, Direction::FromServer];
    assert!(
        sides
            .iter()
            .any(|side| decode(&bytes, version, &limits(*side)) == whole)
            || is_of_both_sides(packet),
        "nobody may send {packet:?}"
    );
    if let Packet::Publish(publish) = packet {
        let mut head = Vec::new();
        let parts = PublishHead::encode(publish, version, &mut head);
        assert_eq!(parts.len(), head.len());
        head.extend_from_slice(publish.payload);
        assert_eq!(head, bytes, "a fan-out writes another packet");
    }
    older(version, packet);
}

/// What 5.0 says, the older versions say with less, and it is a packet there.
fn older(version: ProtocolVersion, packet: &Packet<'_>) {
    let unsayable = match packet {
        Packet::Auth(_) => true,
        Packet::Publish(publish) => publish.topic.is_none(),
        _ => version < ProtocolVersion::V5,
    };
    if unsayable {
        return;
    }
    for older in [ProtocolVersion::V31, ProtocolVersion::V311] {
        let bytes = encoded(packet, older);
        let read = decode(&bytes, older, &limits(Direction::Either));
        assert!(
            matches!(read, Ok(Decoded::Packet { packet: read, len }) if len == bytes.len()
                && read.packet_type() == packet.packet_type()),
            "{packet:?} on {older:?}: {bytes:02x?} {read:?}"
        );
    }
}

/// A DISCONNECT with a Property of the client and one of the server is read by a tool alone.
fn is_of_both_sides(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Disconnect(disconnect) if disconnect.properties.session_expiry_interval.is_some()
        && disconnect.properties.server_reference.is_some())
}

/// The limit of topic levels is Sol's, not the specification's.
fn limits(direction: Direction) -> DecodeLimits {
    DecodeLimits {
        topic_levels: u16::MAX,
        direction,
        ..DecodeLimits::default()
    }
}
