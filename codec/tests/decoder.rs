//! A decoder that remembers says what one says that does not.

use proptest::prelude::*;
use sol_codec::{DecodeLimits, Decoder, ProtocolVersion, decode};

/// PUBLISH packets of few topics, good and bad, some of them with a byte changed.
fn publishes() -> impl Strategy<Value = Vec<(Vec<u8>, u16)>> {
    let topic = prop::sample::select(vec![
        &b"a/b"[..],
        &b"a/b/c"[..],
        &b"a/+"[..],
        &b"a\0b"[..],
        &b""[..],
        "ä/b".as_bytes(),
        &b"\xff/b"[..],
    ]);
    let publish = (
        topic,
        any::<bool>(),
        prop::option::of((0_usize..12, any::<u8>())),
        1_u16..4,
    )
        .prop_map(|(topic, at_least_once, change, levels)| {
            let mut body = vec![0, topic.len() as u8];
            body.extend_from_slice(topic);
            if at_least_once {
                body.extend_from_slice(&[0, 7]);
            }
            body.extend_from_slice(b"payload");
            let mut bytes = vec![if at_least_once { 0x32 } else { 0x30 }, body.len() as u8];
            bytes.extend_from_slice(&body);
            if let Some((at, byte)) = change
                && let Some(slot) = bytes.get_mut(at)
            {
                *slot = byte;
            }
            (bytes, levels)
        });
    prop::collection::vec(publish, 1..20)
}

proptest! {
    #[test]
    fn remembering_changes_no_answer(publishes in publishes(), version in 0..3) {
        let version = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5][version as usize];
        let mut decoder = Decoder::default();
        for (bytes, topic_levels) in publishes {
            let limits = DecodeLimits { topic_levels, ..DecodeLimits::default() };
            prop_assert_eq!(decoder.decode(&bytes, version, &limits), decode(&bytes, version, &limits));
        }
    }
}
