//! What the targets share: how an input's first byte chooses what the receiver expects.
#![forbid(unsafe_code)]

pub mod conversation;
pub mod differential;
pub mod naive;
pub mod packets;
pub mod peer;
pub mod world;

use sol_codec::{DecodeLimits, Direction, Packet, ProtocolVersion};

/// A receiver's side of things, from one byte: version in bits 0 and 1, sender in bits 2 and 3.
pub fn receiver(byte: u8) -> (ProtocolVersion, DecodeLimits) {
    let version = match byte & 0x03 {
        0 => ProtocolVersion::V31,
        1 => ProtocolVersion::V311,
        _ => ProtocolVersion::V5,
    };
    let direction = match byte >> 2 & 0x03 {
        0 => Direction::FromClient,
        1 => Direction::FromServer,
        _ => Direction::Either,
    };
    let limits = DecodeLimits {
        maximum_packet_size: 1 << 20,
        direction,
        ..DecodeLimits::default()
    };
    (version, limits)
}

/// The packet's bytes; their number is what it announces.
pub fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    assert_eq!(bytes.len(), packet.encoded_len(version), "{packet:?}");
    bytes
}

/// The stream, cut. A round of lengths that moves nothing is one byte long.
pub fn segments<'a>(stream: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut cut = Vec::new();
    let stuck = lengths.iter().all(|&length| length == 0);
    let lengths = if stuck { &[1] } else { lengths };
    for &length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (segment, after) = rest.split_at(usize::from(length).min(rest.len()));
        cut.push(segment);
        rest = after;
    }
    cut
}
