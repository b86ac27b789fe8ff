//! A WebSocket client: wherever its stream is cut, the filter gives the same MQTT and the same end, and what it gives is what
//! a naive reader finds.
//!
//! Input: a byte whose lowest bit says that a good request comes before the stream, and whose next bit that only one Origin
//! may come, and the next that files are served, too; a byte whose low four bits are a number of segment lengths, so many
//! lengths, and the stream. The lengths are used in turn until the stream ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_fuzz::segments;
use sol_transport::bench_support::{Ending, WebSocket};
use sol_transport::{Files, WebSocketRules};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let Some((&[first, count], rest)) = input.split_first_chunk() else {
        return;
    };
    let Some((lengths, stream)) = rest.split_at_checked(usize::from(count & 0x0f)) else {
        return;
    };
    let mut rules = WebSocketRules::default();
    if first & 0x02 != 0 {
        rules.origins.push("http://a".into());
    }
    if first & 0x04 != 0 {
        let mut files = Files::default();
        files.insert(b"/index.html", "text/html", b"a page".to_vec());
        rules.files = Some(files.into());
    }
    let request = if first & 0x01 != 0 { REQUEST } else { b"" };

    let whole = Heard::of(&rules, request, &[stream]);
    let pieces = Heard::of(&rules, request, &segments(stream, lengths));
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    let slowly = Heard::of(&rules, request, &bytes);
    assert_eq!((&pieces.mqtt, pieces.end), (&whole.mqtt, whole.end));
    assert_eq!((&slowly.mqtt, slowly.end), (&whole.mqtt, whole.end));
    if !request.is_empty() {
        assert!(slowly.answers <= stream.len(), "answers grow");
        assert_eq!(
            (whole.mqtt.clone(), whole.end.is_some()),
            naive(stream, rules.frame_bytes_max)
        );
    }

    let mut out = b"before".to_vec();
    out.extend_from_slice(&whole.mqtt);
    WebSocket::wrap(&mut out, 6);
    let header = out.len() - 6 - whole.mqtt.len();
    assert!(out.starts_with(b"before") && out.ends_with(&whole.mqtt));
    assert!(matches!(
        (header, whole.mqtt.len()),
        (0, 0) | (2, 1..126) | (4, 126..65_536) | (10, 65_536..)
    ));
});

/// What came of a stream.
struct Heard {
    mqtt: Vec<u8>,
    end: Option<Ending>,
    /// Bytes of answers to all behind the request.
    answers: usize,
}

impl Heard {
    fn of(rules: &WebSocketRules, request: &[u8], segments: &[&[u8]]) -> Self {
        let mut filter = WebSocket::default();
        let mut out = Vec::new();
        let mut heard = Self {
            mqtt: Vec::new(),
            end: None,
            answers: 0,
        };
        if !request.is_empty() {
            let received = filter.receive(&mut request.to_vec(), rules, &mut out);
            assert!(received.end.is_none() && filter.is_open());
        }
        let answered = out.len();
        for segment in segments {
            let mut bytes = segment.to_vec();
            let received = filter.receive(&mut bytes, rules, &mut out);
            assert!(heard.end.is_none() || (received.payload_len == 0 && received.end.is_none()));
            assert!(filter.held_bytes() <= 16_384);
            heard.mqtt.extend_from_slice(&bytes[..received.payload_len]);
            heard.end = heard.end.or(received.end);
        }
        heard.answers = out.len() - answered;
        assert!(filter.is_open() || heard.mqtt.is_empty() || heard.end.is_some());
        for _ in 0..2 {
            filter.close(&mut out, 1000);
            assert!(out.len() - answered - heard.answers <= 4);
        }
        assert!(!filter.is_open());
        heard
    }
}

/// The MQTT in a client's frames, and whether it said Close or broke a rule: byte by byte, as RFC 6455 says it.
fn naive(stream: &[u8], frame_bytes_max: u64) -> (Vec<u8>, bool) {
    let mut bytes = stream.iter().copied();
    let mut mqtt = Vec::new();
    let mut in_message = false;
    let ended = || -> Option<bool> {
        loop {
            let first = bytes.next()?;
            let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
            let is_control = matches!(opcode, 8..=10);
            let is_data = (opcode == 0 && in_message) || (opcode == 2 && !in_message);
            if first & 0x70 != 0 || !(is_control && is_final || is_data) {
                return Some(true);
            }
            let second = bytes.next()?;
            let short = second & 0x7f;
            if second & 0x80 == 0 || (is_control && short > 125) {
                return Some(true);
            }
            let extended = match short {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mut len = if extended == 0 { u64::from(short) } else { 0 };
            for _ in 0..extended {
                len = len << 8 | u64::from(bytes.next()?);
            }
            if len > frame_bytes_max {
                return Some(true);
            }
            let mask = [bytes.next()?, bytes.next()?, bytes.next()?, bytes.next()?];
            if is_data {
                in_message = !is_final;
            }
            for at in 0..len {
                let byte = bytes.next()? ^ mask[at as usize % 4];
                if is_data {
                    mqtt.push(byte);
                }
            }
            if opcode == 8 {
                return Some(true);
            }
        }
    }();
    (mqtt, ended.unwrap_or(false))
}
