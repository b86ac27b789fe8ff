//! One packet: no bytes panic, and what is accepted survives the way out and back in.
//!
//! Input: a byte for version and sender ([`sol_fuzz::receiver`]), then what the peer sent.
#![no_main]

use std::fmt::{self, Write};

use libfuzzer_sys::fuzz_target;
use sol_codec::{DecodeError, DecodeLimits, Decoded, Direction, Packet, ProtocolVersion, decode, peek_fixed_header};
use sol_fuzz::{encoded, receiver};

fuzz_target!(|input: &[u8]| {
    let Some((&first, bytes)) = input.split_first() else {
        return;
    };
    let (version, limits) = receiver(first);
    match decode(bytes, version, &limits) {
        Ok(Decoded::Packet { packet, len }) => accepted(bytes, len, packet, version, &limits),
        Ok(Decoded::NeedMore(total)) => incomplete(bytes, total, version, &limits),
        Err(error) => refused(bytes, error, version, &limits),
    }
});

fn accepted(bytes: &[u8], len: usize, packet: Packet<'_>, version: ProtocolVersion, limits: &DecodeLimits) {
    assert!((2..=bytes.len()).contains(&len));
    assert_eq!(
        decode(&bytes[..len - 1], version, limits),
        Ok(Decoded::NeedMore(len)),
        "the last byte was not needed"
    );
    assert_eq!(
        decode(&bytes[..len], version, limits),
        Ok(Decoded::Packet { packet, len }),
        "what follows matters"
    );
    let either = DecodeLimits {
        direction: Direction::Either,
        ..*limits
    };
    assert_eq!(
        decode(bytes, version, &either),
        Ok(Decoded::Packet { packet, len }),
        "one side sends what neither may"
    );
    write!(Nowhere, "{packet:?}").expect("nowhere is endless");

    let again = encoded(&packet, version);
    assert!(
        again.len() <= len,
        "{packet:?} grows from {len} bytes to {}",
        again.len()
    );
    let read = decode(&again, version, limits);
    assert_eq!(
        read,
        Ok(Decoded::Packet {
            packet,
            len: again.len()
        }),
        "from {again:02x?}"
    );
    if let Ok(Decoded::Packet { packet, .. }) = read {
        assert_eq!(encoded(&packet, version), again);
    }
}

fn incomplete(bytes: &[u8], total: usize, version: ProtocolVersion, limits: &DecodeLimits) {
    assert!(total > bytes.len(), "{total} bytes are there");
    match peek_fixed_header(bytes, version, limits) {
        Ok(Some(header)) => assert_eq!(header.packet_len(), total),
        Ok(None) => assert!(total <= 5, "a Fixed Header has 5 bytes at most"),
        Err(error) => panic!("the Fixed Header is refused alone: {error}"),
    }
}

fn refused(bytes: &[u8], error: DecodeError, version: ProtocolVersion, limits: &DecodeLimits) {
    assert!(error.offset <= bytes.len(), "{error}");
    assert!(error.reason_code().is_error(), "{error}");
    write!(Nowhere, "{error} {error:?}").expect("nowhere is endless");
    // No byte that follows can mend it, nor change what is said about it.
    let longer = [bytes, &[0; 8]].concat();
    assert_eq!(decode(&longer, version, limits), Err(error));
}

/// Runs `Debug`, which walks all lists of a packet, without keeping the text.
struct Nowhere;

impl Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}
