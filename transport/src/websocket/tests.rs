//! What a client says, and what it gets for it. `twin` holds the filter against another implementation.

mod files;
mod request;
mod twin;

use super::*;

/// The request of RFC 6455, section 1.3, for MQTT.
const REQUEST: &str = "GET /mqtt?token=1 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
const GRANTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's connection: what it has said in MQTT, what it was sent, and how it ended.
#[derive(Debug, Default)]
struct Conversation {
    filter: WebSocket,
    rules: WebSocketRules,
    payload: Vec<u8>,
    out: Vec<u8>,
    end: Option<Ending>,
}

impl Conversation {
    /// One whose request was granted.
    fn open() -> Self {
        let mut conversation = Self::default();
        conversation.hear(REQUEST.as_bytes());
        assert_eq!(conversation.out, GRANTED.as_bytes());
        conversation.out.clear();
        conversation
    }

    fn hear(&mut self, segment: &[u8]) {
        let mut bytes = segment.to_vec();
        let Received { payload_len, end } = self.filter.receive(&mut bytes, &self.rules, &mut self.out);
        self.payload.extend_from_slice(&bytes[..payload_len]);
        assert!(
            self.end.is_none() || (end.is_none() && payload_len == 0),
            "it goes on behind its end"
        );
        self.end = self.end.or(end);
    }

    /// The connection ends.
    fn close(mut self) -> Self {
        self.filter.close(&mut self.out, CLOSE_NORMAL);
        self
    }

    /// All that can be seen of it.
    fn seen(&self) -> (&[u8], &[u8], Option<Ending>) {
        (&self.payload, &self.out, self.end)
    }
}

/// A client's frame: its first byte, and its payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match payload.len() {
        len @ ..126 => bytes.extend([first, 0x80 | len as u8]),
        len @ ..65_536 => {
            bytes.extend([first, 0xfe]);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.extend([first, 0xff]);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A long conversation, with every kind of frame in it.
fn everything() -> Vec<u8> {
    [
        REQUEST.as_bytes(),
        &frame(0x82, b"CONNECT"),
        &frame(0x82, b""),
        &frame(0x02, b"PUB"),
        &frame(0x89, b"are you there?"),
        &frame(0x00, b""),
        &frame(0x8a, b"not asked for"),
        &frame(0x80, b"LISH"),
        &frame(0x82, &[b'x'; 300]),
        &frame(0x89, b""),
        &frame(0x88, b"\x03\xe8bye"),
        &frame(0x82, b"too late"),
    ]
    .concat()
}

#[test]
fn a_filter_is_small() {
    // Every idle client pays for it.
    assert!(size_of::<WebSocket>() <= 64, "{}", size_of::<WebSocket>());
    let mut conversation = Conversation::default();
    conversation.hear(&REQUEST.as_bytes()[..100]);
    assert!((100..=256).contains(&conversation.filter.held_bytes()));
    conversation.hear(&REQUEST.as_bytes()[100..]);
    assert_eq!(conversation.filter.held_bytes(), 0);
    let ping = frame(0x89, &[7; 125]);
    conversation.hear(&ping[..50]);
    assert!((125..=140).contains(&conversation.filter.held_bytes()));
    conversation.hear(&ping[50..]);
    assert_eq!(conversation.filter.held_bytes(), 0);
}

#[test]
fn a_conversation_is_the_same_however_it_is_cut() {
    // Section 5.4, [MQTT-6.0.0-2]: neither segments nor frames have anything to do with packets.
    let all = everything();
    let mut whole = Conversation::default();
    whole.hear(&all);
    let whole = whole.close();
    let payload = [b"CONNECTPUBLISH".as_slice(), &[b'x'; 300]].concat();
    // Of the two Pings of one segment the last is answered.
    let out = [GRANTED.as_bytes(), b"\x8a\x00", b"\x88\x02\x03\xe8"].concat();
    assert_eq!(whole.seen(), (&payload[..], &out[..], Some(Ending::Closed(1000))));

    let with_both = [
        GRANTED.as_bytes(),
        b"\x8a\x0eare you there?",
        b"\x8a\x00",
        b"\x88\x02\x03\xe8",
    ]
    .concat();
    for cut in 0..=all.len() {
        let mut cut_once = Conversation::default();
        cut_once.hear(&all[..cut]);
        cut_once.hear(&all[cut..]);
        let cut_once = cut_once.close();
        let (heard, said, end) = cut_once.seen();
        assert_eq!((heard, end), (&payload[..], Some(Ending::Closed(1000))), "{cut}");
        assert!(said == out || said == with_both, "{cut}");
    }
    for len in [1, 2, 3, 5, 7, 13] {
        let mut pieces = Conversation::default();
        for piece in all.chunks(len) {
            pieces.hear(piece);
        }
        let end = Some(Ending::Closed(1000));
        assert_eq!(pieces.close().seen(), (&payload[..], &with_both[..], end), "{len}");
    }
}

#[test]
fn packets_may_span_frames_and_frames_may_hold_many() {
    // [MQTT-6.0.0-2], and nothing waits for the end of a frame or message.
    let mut conversation = Conversation::open();
    let long = frame(0x02, &(0..=255).cycle().take(70_000).collect::<Vec<u8>>());
    conversation.hear(&long[..1_014]);
    assert_eq!(conversation.payload.len(), 1_000);
    conversation.hear(&long[1_014..1_015]);
    conversation.hear(&long[1_015..]);
    assert_eq!(conversation.payload.len(), 70_000);
    assert!(conversation.payload.iter().zip((0..=255).cycle()).all(|(a, b)| *a == b));
    conversation.payload.clear();
    conversation.hear(&[frame(0x00, b"a"), frame(0x80, b"bc"), frame(0x82, b"def")].concat());
    assert_eq!(conversation.seen(), (b"abcdef".as_slice(), b"".as_slice(), None));
}

#[test]
fn a_length_may_be_written_longer_than_it_is() {
    // Section 5.2 asks the sender for the shortest form, and says nothing of who receives another.
    let mut conversation = Conversation::open();
    conversation.hear(&[&[0x82, 0xfe, 0, 1], &[0; 4][..], b"a"].concat());
    conversation.hear(&[&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1], &[0; 4][..], b"b"].concat());
    assert_eq!(conversation.seen(), (b"ab".as_slice(), b"".as_slice(), None));
}

#[test]
fn a_frame_that_breaks_a_rule_ends_the_connection_with_its_code() {
    // Sections 5.1 to 5.5 and 7.4, [MQTT-6.0.0-1]: at the first byte that tells, behind what was right before.
    let huge = |len: u64| [&[0x82, 0xff], &len.to_be_bytes()[..]].concat();
    let close = |payload: &[u8]| frame(0x88, payload);
    let begun = frame(0x02, b"");
    #[rustfmt::skip]
    let cases: [(Vec<u8>, Fault, u16); 34] = [
        (vec![0x82, 0x01], Fault::Unmasked, 1002),
        (vec![0x89, 0x00], Fault::Unmasked, 1002),
        (vec![0xc2], Fault::ReservedBits, 1002),
        (vec![0xa2], Fault::ReservedBits, 1002),
        (vec![0x92], Fault::ReservedBits, 1002),
        (vec![0xc9], Fault::ReservedBits, 1002),
        (vec![0x83], Fault::UnknownOpcode, 1002),
        (vec![0x87], Fault::UnknownOpcode, 1002),
        (vec![0x03], Fault::UnknownOpcode, 1002),
        (vec![0x8b], Fault::UnknownOpcode, 1002),
        (vec![0x8f], Fault::UnknownOpcode, 1002),
        (vec![0x0b], Fault::UnknownOpcode, 1002),
        (vec![0x81], Fault::Text, 1003),
        (vec![0x01], Fault::Text, 1003),
        (vec![0x89, 0xfe], Fault::LongControl, 1002),
        (vec![0x88, 0xff], Fault::LongControl, 1002),
        (vec![0x09], Fault::FragmentedControl, 1002),
        (vec![0x08], Fault::FragmentedControl, 1002),
        (vec![0x80], Fault::OrphanContinuation, 1002),
        (vec![0x00], Fault::OrphanContinuation, 1002),
        ([&begun[..], &[0x82]].concat(), Fault::NestedMessage, 1002),
        ([&begun[..], &[0x01]].concat(), Fault::NestedMessage, 1002),
        ([&begun[..], &frame(0x80, b""), &[0x80]].concat(), Fault::OrphanContinuation, 1002),
        (huge(1 << 63), Fault::NegativeLength, 1002),
        (huge(u64::MAX), Fault::NegativeLength, 1002),
        (huge(1 << 62), Fault::FrameTooLong, 1009),
        (huge(268_435_461), Fault::FrameTooLong, 1009),
        (close(b"\x03"), Fault::CloseLength, 1002),
        (close(b"\x00\x00"), Fault::CloseCode, 1002),
        (close(b"\x03\xe7"), Fault::CloseCode, 1002),
        (close(b"\x03\xed"), Fault::CloseCode, 1002),
        (close(b"\x07\xd0"), Fault::CloseCode, 1002),
        (close(b"\x13\x88"), Fault::CloseCode, 1002),
        (close(b"\x03\xe8\xc3\x28"), Fault::CloseReason, 1007),
    ];
    for (bytes, fault, code) in cases {
        let mut conversation = Conversation::open();
        conversation.hear(&[frame(0x82, b"before"), bytes.clone()].concat());
        let end = Some(Ending::Violated(fault));
        assert_eq!(
            conversation.seen(),
            (b"before".as_slice(), b"".as_slice(), end),
            "{bytes:02x?}"
        );
        assert!(!conversation.filter.is_open());
        conversation.hear(&frame(0x82, b"after"));
        let [high, low] = code.to_be_bytes();
        let closed = conversation.close();
        assert_eq!(
            closed.seen(),
            (b"before".as_slice(), [0x88, 2, high, low].as_slice(), end),
            "{bytes:02x?}"
        );
    }
}

#[test]
fn the_largest_packet_fits_into_a_frame() {
    // Section 1.5.5 of MQTT: 256 MiB less one byte, and the Fixed Header.
    let mut conversation = Conversation::open();
    conversation.hear(&[&[0x82, 0xff], &268_435_460_u64.to_be_bytes()[..], &[0; 4], b"a"].concat());
    assert_eq!(conversation.seen(), (b"a".as_slice(), b"".as_slice(), None));
}

#[test]
fn a_close_is_answered_once_with_its_code() {
    // Section 5.5.1.
    for (payload, code) in [
        (b"".as_slice(), CLOSE_NO_STATUS),
        (b"\x03\xe8", 1000),
        (b"\x03\xe9going", 1001),
        (b"\x03\xf6", 1014),
        (b"\x0b\xb8", 3000),
        (b"\x13\x87", 4999),
    ] {
        let mut conversation = Conversation::open();
        conversation.hear(&frame(0x88, payload));
        conversation.hear(&[frame(0x88, payload), frame(0x82, b"more"), vec![0xff; 100]].concat());
        let answer = close_frame(code);
        let mut closed = conversation.close();
        closed.filter.close(&mut closed.out, CLOSE_GOING_AWAY);
        assert_eq!(closed.seen(), (b"".as_slice(), &answer[..], Some(Ending::Closed(code))));
    }
}

fn close_frame(code: u16) -> Vec<u8> {
    match code.to_be_bytes() {
        _ if code == CLOSE_NO_STATUS => vec![0x88, 0],
        [high, low] => vec![0x88, 2, high, low],
    }
}

#[test]
fn the_broker_closes_with_its_own_code_and_hears_no_more() {
    // Section 5.5.1: and before the request was answered there is nothing to be said in frames.
    let mut conversation = Conversation::open();
    conversation.filter.close(&mut conversation.out, CLOSE_GOING_AWAY);
    conversation.hear(&frame(0x82, b"more"));
    assert_eq!(
        conversation.seen(),
        (b"".as_slice(), b"\x88\x02\x03\xe9".as_slice(), None)
    );
    let mut early = Conversation::default();
    early.hear(&REQUEST.as_bytes()[..50]);
    early = early.close();
    early.hear(&REQUEST.as_bytes()[50..]);
    assert_eq!(early.seen(), (b"".as_slice(), b"".as_slice(), None));
}

#[test]
fn pings_are_answered_with_the_last_one_of_a_segment() {
    // Section 5.5.3. A flood of them costs one answer a segment, and never more than it brings.
    let mut conversation = Conversation::open();
    let flood: Vec<u8> = (0..1_000).flat_map(|n: u32| frame(0x89, &n.to_be_bytes())).collect();
    conversation.hear(&flood);
    assert_eq!(
        conversation.seen(),
        (b"".as_slice(), b"\x8a\x04\x00\x00\x03\xe7".as_slice(), None)
    );
    conversation.out.clear();
    for byte in &flood {
        conversation.hear(&[*byte]);
    }
    let each: Vec<u8> = (0..1_000_u32)
        .flat_map(|n| [&[0x8a, 4], &n.to_be_bytes()[..]].concat())
        .collect();
    assert_eq!(conversation.seen(), (b"".as_slice(), &each[..], None));
    assert!(each.len() < flood.len());
    conversation.out.clear();
    conversation.hear(&frame(0x89, &[0xaa; 125]));
    assert_eq!(conversation.out, [&[0x8a, 125][..], &[0xaa; 125]].concat());
}

#[test]
fn small_frames_take_no_memory() {
    // However many they are, each is done with when the next begins.
    let mut conversation = Conversation::open();
    let segment: Vec<u8> = (0..=255).cycle().take(9_000).flat_map(|n| frame(0x82, &[n])).collect();
    for _ in 0..10 {
        conversation.hear(&segment);
        assert_eq!(conversation.filter.held_bytes(), 0);
    }
    assert_eq!(conversation.payload.len(), 90_000);
    assert!(
        conversation
            .payload
            .chunks(9_000)
            .all(|part| part.iter().zip((0..=255).cycle()).all(|(a, b)| *a == b))
    );
    assert!(conversation.out.is_empty());
}

#[test]
fn output_gets_the_shortest_header_where_it_lies() {
    // Sections 5.2 and 5.1: a server does not mask; [MQTT-6.0.0-1]: it is binary.
    for (len, header) in [
        (0, &b""[..]),
        (1, b"\x82\x01"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ] {
        let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
        let mut out = [b"before", &payload[..]].concat();
        WebSocket::wrap(&mut out, 6);
        assert!(out == [b"before", header, &payload].concat(), "{len}");
    }
    let mut out = b"ab".to_vec();
    WebSocket::wrap(&mut out, 5);
    assert_eq!(out, b"ab");
}

#[test]
fn an_end_says_why() {
    // The log line is all that an operator sees of it.
    for (ending, text) in [
        (Ending::NotHttp, "it speaks no HTTP"),
        (Ending::PlainMqtt, "it speaks MQTT without WebSocket"),
        (
            Ending::Refused(Refusal::Subprotocol),
            "its WebSocket request was refused: 400 Bad Request: The request needs Sec-WebSocket-Protocol: mqtt.",
        ),
        (Ending::Closed(1001), "it closed the WebSocket with code 1001"),
        (Ending::Closed(CLOSE_NO_STATUS), "it closed the WebSocket"),
        (
            Ending::Violated(Fault::Unmasked),
            "it broke the WebSocket protocol: a frame that is not masked",
        ),
    ] {
        assert_eq!(ending.to_string(), text);
    }
}
