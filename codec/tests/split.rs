//! TCP cuts where it likes.

mod support;

use proptest::prelude::*;
use sol_codec::*;
use support::{encoded, version, versioned_packet};

proptest! {
    #[test]
    fn every_cut_gives_the_same_packet((version, packet) in versioned_packet()) {
        // Section 4.2: the transport is a stream of bytes, not of packets.
        let bytes = encoded(&packet, version);
        let limits = DecodeLimits::default();
        for cut in 0..bytes.len() {
            match decode(&bytes[..cut], version, &limits) {
                Ok(Decoded::NeedMore(total)) => prop_assert!(cut < total && total <= bytes.len(), "{cut} {total}"),
                other => prop_assert!(false, "{cut}: {other:?}"),
            }
        }
        prop_assert_eq!(decode(&bytes, version, &limits), Ok(Decoded::Packet { packet, len: bytes.len() }));
    }

    #[test]
    fn the_size_is_known_with_the_fixed_header((version, packet) in versioned_packet()) {
        // Section 2.1.4: a receiver can reserve exactly what is to come.
        let bytes = encoded(&packet, version);
        let header = peek_fixed_header(&bytes[..bytes.len().min(5)], version, &DecodeLimits::default());
        let header = header.unwrap().unwrap();
        prop_assert_eq!(header.packet_len(), bytes.len());
        prop_assert_eq!(header.packet_type, packet.packet_type());
    }

    #[test]
    fn a_packet_above_the_limit_is_refused_before_its_body((version, packet) in versioned_packet()) {
        // [MQTT-3.1.2-24]
        let bytes = encoded(&packet, version);
        let size = bytes.len() as u32;
        let limits = DecodeLimits { maximum_packet_size: size - 1, ..DecodeLimits::default() };
        let header = peek_fixed_header(&bytes, version, &DecodeLimits::default()).unwrap().unwrap();
        let refused = decode(&bytes[..usize::from(header.len)], version, &limits).unwrap_err();
        prop_assert_eq!(refused.kind, DecodeErrorKind::PacketTooLarge { size, maximum: size - 1 });
        prop_assert_eq!(refused.reason_code(), ReasonCode::PacketTooLarge);
        let enough = DecodeLimits { maximum_packet_size: size, ..limits };
        let is_whole = matches!(decode(&bytes, version, &enough), Ok(Decoded::Packet { .. }));
        prop_assert!(is_whole);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), version in version()) {
        // One bad packet costs one connection, never the process.
        look_at_everything(&bytes, version);
    }

    #[test]
    fn no_damaged_packet_panics(
        (version, packet) in versioned_packet(), other in version(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        // As above, much deeper in the parsers.
        let mut bytes = encoded(&packet, version);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        look_at_everything(&bytes, version);
        look_at_everything(&bytes, other);
    }

    #[test]
    fn no_stored_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        // Stored Properties are not checked again; on nonsense the accessors end early.
        let application = ApplicationProperties::from_stored(&bytes);
        let _ = format!("{application:?}");
        prop_assert_eq!(application.encoded_len(), bytes.len());
    }
}

/// Decodes, walks all that the packet holds and writes it again.
fn look_at_everything(bytes: &[u8], version: ProtocolVersion) {
    for direction in [Direction::FromClient, Direction::FromServer, Direction::Either] {
        let limits = DecodeLimits {
            direction,
            ..DecodeLimits::default()
        };
        match decode(bytes, version, &limits) {
            Ok(Decoded::Packet { packet, len }) => {
                assert!(len <= bytes.len());
                let _ = format!("{packet:?}");
                let again = encoded(&packet, version);
                assert_eq!(
                    decode(&again, version, &limits),
                    Ok(Decoded::Packet {
                        packet,
                        len: again.len()
                    })
                );
            }
            Ok(Decoded::NeedMore(total)) => assert!(total > bytes.len()),
            Err(error) => {
                assert!(error.offset <= bytes.len(), "{error}");
                assert!(error.reason_code().is_error());
            }
        }
    }
}
