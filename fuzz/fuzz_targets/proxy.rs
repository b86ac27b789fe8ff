//! The header of a proxy, of either version: wherever its bytes are cut, it says the same or is refused for the same reason, and
//! what comes behind it changes nothing.
//!
//! Input: a byte whose lowest bit says that it is version 2 and whose other bits are where the stream is cut in two, and the
//! stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_transport::ProxyVersion;
use sol_transport::bench_support::introduction;

const LINE_BYTES_MAX: usize = 107;
const HEADER_BYTES_MAX: usize = 1_024;

fuzz_target!(|input: &[u8]| {
    let Some((&first, stream)) = input.split_first() else {
        return;
    };
    let (version, bytes_max) = match first & 0x01 {
        0 => (ProxyVersion::V1, LINE_BYTES_MAX),
        _ => (ProxyVersion::V2, HEADER_BYTES_MAX),
    };
    let whole = introduction(version, &[stream]);
    let (front, back) = stream.split_at(usize::from(first >> 1).min(stream.len()));
    assert_eq!(introduction(version, &[front, back]), whole, "in two");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(introduction(version, &bytes), whole, "in single bytes");
    match whole {
        Ok(None) => assert!(stream.len() < bytes_max, "nobody waits for more than a header may have"),
        Ok(Some(header)) => {
            assert!(header.len <= bytes_max.min(stream.len()));
            let alone = introduction(version, &[&stream[..header.len]]);
            assert_eq!(alone.as_ref().ok(), Some(&Some(header.clone())), "what is behind it");
            assert_eq!(
                introduction(version, &[&stream[..header.len - 1]]),
                Ok(None),
                "its last byte"
            );
            assert!(header.is_encrypted || header.common_name.is_none());
            if version == ProxyVersion::V1 {
                assert!(!header.is_encrypted, "a line tells of no TLS");
            }
        }
        Err(_) => {
            let longer = [stream, &[0; 300]].concat();
            assert!(introduction(version, &[&longer]).is_err(), "no end makes it one");
        }
    }
});
