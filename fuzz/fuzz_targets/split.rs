//! A stream: wherever it is cut, a reader gets the same packets and the same fault at the same byte.
//!
//! Input: a byte for version and sender ([`sol_fuzz::receiver`]), a byte whose low four bits are a number of segment
//! lengths, so many lengths, and the stream. The lengths are used in turn until the stream ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_codec::{DecodeErrorKind, DecodeLimits, Decoded, Packet, ProtocolVersion, decode};
use sol_fuzz::{encoded, receiver, segments};

fuzz_target!(|input: &[u8]| {
    let Some((&[first, count], rest)) = input.split_first_chunk() else {
        return;
    };
    let Some((lengths, stream)) = rest.split_at_checked(usize::from(count & 0x0f)) else {
        return;
    };
    let (version, limits) = receiver(first);

    let mut whole = Reader::new(version, limits, Asks::Always);
    whole.feed(stream);
    let expected = whole.end();
    for asks in [Asks::Always, Asks::WhenEnough] {
        let mut reader = Reader::new(version, limits, asks);
        for segment in segments(stream, lengths) {
            reader.feed(segment);
        }
        assert_eq!(reader.end(), expected, "{asks:?}");
    }
});

/// When a reader calls `decode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// After each segment.
    Always,
    /// Once as many bytes are there as the last answer asked for.
    WhenEnough,
}

/// What came of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    packets: Vec<Vec<u8>>,
    /// The fault, and its place in the stream.
    fault: Option<(DecodeErrorKind, usize)>,
    /// Bytes of a packet that did not end, when there is no fault.
    left: usize,
}

struct Reader {
    version: ProtocolVersion,
    limits: DecodeLimits,
    asks: Asks,
    buffer: Vec<u8>,
    wanted: usize,
    taken: usize,
    outcome: Outcome,
}

impl Reader {
    fn new(version: ProtocolVersion, limits: DecodeLimits, asks: Asks) -> Self {
        Self {
            version,
            limits,
            asks,
            buffer: Vec::new(),
            wanted: 0,
            taken: 0,
            outcome: Outcome::default(),
        }
    }

    fn feed(&mut self, segment: &[u8]) {
        self.buffer.extend_from_slice(segment);
        if self.asks == Asks::Always || self.buffer.len() >= self.wanted {
            self.read();
        }
    }

    fn read(&mut self) {
        let mut at = 0;
        while self.outcome.fault.is_none() {
            match decode(&self.buffer[at..], self.version, &self.limits) {
                Ok(Decoded::Packet { packet, len }) => {
                    self.outcome.packets.push(encoded(&packet, self.version));
                    if let Packet::Connect(connect) = packet {
                        self.version = connect.version;
                    }
                    at += len;
                }
                Ok(Decoded::NeedMore(total)) => {
                    self.wanted = total;
                    break;
                }
                Err(error) => self.outcome.fault = Some((error.kind, self.taken + at + error.offset)),
            }
        }
        self.buffer.drain(..at);
        self.taken += at;
    }

    /// A reader that waits for more looks once more when the peer closes.
    fn end(mut self) -> Outcome {
        self.read();
        if self.outcome.fault.is_none() {
            self.outcome.left = self.buffer.len();
        }
        self.outcome
    }
}
