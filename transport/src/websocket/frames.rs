//! Frames (RFC 6455, section 5).
//!
//! A payload is handed on as it comes, however many frames and messages it is spread over [MQTT-6.0.0-2]; only a header
//! and the payload of a control frame wait until they are whole. A data frame's length that is written with more bytes
//! than it needs is taken: that rule binds who sends. A control frame's is not, for it has no need of such a form.

use std::fmt;
use std::mem;

use super::{CLOSE_NO_STATUS, Ending, Received, WebSocketRules};

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// The least opcode of a control frame.
const CONTROL: u8 = 0x8;
/// Largest payload of a control frame, and largest length that fits into the second byte.
const CONTROL_BYTES_MAX: usize = 125;
/// Lengths in the second byte that announce a length of two and of eight bytes.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
/// Largest header of a client's frame: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// A rule of RFC 6455 that a client's frame broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A client must mask all of its frames (section 5.1).
    Unmasked,
    /// Without an extension the reserved bits are zero (section 5.2).
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 mean nothing (section 5.2).
    UnknownOpcode,
    /// MQTT is sent in binary messages [MQTT-6.0.0-1].
    Text,
    /// A control frame has 125 bytes at most (section 5.5).
    LongControl,
    /// A control frame is not fragmented (section 5.5).
    FragmentedControl,
    /// There is no message to be continued (section 5.4).
    OrphanContinuation,
    /// A message begins inside of another (section 5.4).
    NestedMessage,
    /// The most significant bit of a length is zero (section 5.2).
    NegativeLength,
    /// More than [`WebSocketRules::frame_bytes_max`] (section 10.4).
    FrameTooLong,
    /// A Close has no payload, or a code of two bytes in front (section 5.5.1).
    CloseLength,
    /// A Close has a code that may be sent (section 7.4).
    CloseCode,
    /// What follows the code is UTF-8 (section 5.5.1).
    CloseReason,
}

impl Fault {
    /// The code of the Close that answers it (section 7.4.1).
    pub(super) const fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::CloseReason => 1007,
            Self::FrameTooLong => 1009,
            _ => 1002,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unmasked => "a frame that is not masked",
            Self::ReservedBits => "a reserved bit is set",
            Self::UnknownOpcode => "an unknown opcode",
            Self::Text => "a text message, where MQTT is binary",
            Self::LongControl => "a control frame of more than 125 bytes",
            Self::FragmentedControl => "a control frame in fragments",
            Self::OrphanContinuation => "a continuation of nothing",
            Self::NestedMessage => "a message inside of another",
            Self::NegativeLength => "a length of more than 63 bits",
            Self::FrameTooLong => "a frame longer than any MQTT packet",
            Self::CloseLength => "half of a close code",
            Self::CloseCode => "a close code that may not be sent",
            Self::CloseReason => "a close reason that is not UTF-8",
        })
    }
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        Self::Violated(fault)
    }
}

/// The reader of one client's frames.
///
/// ```text
///     ┌──────────── the payload is whole ────────────┐
///     ▼                                              │
///  Header ──── data ─────────────────► Payload ──────┤
///     └─────── Ping, Pong, Close ────► Control ──────┘
/// ```
#[derive(Debug, Default)]
pub(super) struct Frames {
    expect: Expect,
    /// The last data frame was not its message's last.
    in_message: bool,
}

/// What comes next.
#[derive(Debug)]
enum Expect {
    /// A header, of which this part is there.
    Header(Part),
    /// So many bytes of payload, and the mask, turned so that its first byte is the next one's.
    Payload { left: u64, mask: [u8; 4] },
    /// The rest of a control frame.
    Control(Box<Control>),
}

impl Default for Expect {
    fn default() -> Self {
        Self::Header(Part::default())
    }
}

impl Frames {
    /// Takes the frames in `bytes[from..]`, and leaves their payload at the front of `bytes`.
    pub(super) fn receive(
        &mut self,
        bytes: &mut [u8],
        from: usize,
        rules: &WebSocketRules,
        out: &mut Vec<u8>,
    ) -> Received {
        let mut segment = Segment {
            bytes,
            read: from,
            written: 0,
        };
        let mut ping = None;
        let end = self.read_all(&mut segment, rules, &mut ping).err();
        if let Some(ping) = ping {
            let payload = ping.payload();
            push_header(out, PONG, payload.len());
            out.extend_from_slice(payload);
        }
        Received {
            payload_len: segment.written,
            end,
        }
    }

    pub(super) const fn held_bytes(&self) -> usize {
        match self.expect {
            Expect::Control(_) => size_of::<Control>(),
            Expect::Header(_) | Expect::Payload { .. } => 0,
        }
    }

    fn read_all(
        &mut self,
        segment: &mut Segment<'_>,
        rules: &WebSocketRules,
        ping: &mut Option<Control>,
    ) -> Result<(), Ending> {
        while !segment.rest().is_empty() {
            match &mut self.expect {
                Expect::Header(part) => {
                    if let Some(header) = part.complete(segment, self.in_message, rules)? {
                        self.begin(&header, segment, ping)?;
                    }
                }
                Expect::Payload { left, mask } => {
                    let taken = segment.take_payload(*left, *mask);
                    *left = left.saturating_sub(taken as u64);
                    mask.rotate_left(taken % 4);
                    if *left == 0 {
                        self.expect = Expect::default();
                    }
                }
                Expect::Control(control) => {
                    if control.fill(segment)
                        && let Expect::Control(control) = mem::take(&mut self.expect)
                    {
                        control.judge(ping)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what has come of a frame whose header was just read.
    #[inline]
    fn begin(&mut self, header: &Header, segment: &mut Segment<'_>, ping: &mut Option<Control>) -> Result<(), Ending> {
        if header.opcode >= CONTROL {
            let mut control = Control::new(header);
            if control.fill(segment) {
                return control.judge(ping);
            }
            self.expect = Expect::Control(Box::new(control));
            return Ok(());
        }
        self.in_message = !header.is_final;
        let taken = segment.take_payload(header.len, header.mask);
        let left = header.len.saturating_sub(taken as u64);
        if left > 0 {
            let mut mask = header.mask;
            mask.rotate_left(taken % 4);
            self.expect = Expect::Payload { left, mask };
        }
        Ok(())
    }
}

/// A segment on its way from frames to payload: `written` ≤ `read` ≤ its length.
struct Segment<'b> {
    bytes: &'b mut [u8],
    /// So many bytes were looked at.
    read: usize,
    /// So many bytes at the front are payload.
    written: usize,
}

impl Segment<'_> {
    #[inline]
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }

    #[inline]
    fn skip(&mut self, len: usize) {
        self.read = self.read.saturating_add(len).min(self.bytes.len());
    }

    /// Makes payload of what is there, `max` bytes at most, and gives their number.
    #[inline]
    fn take_payload(&mut self, max: u64, mask: [u8; 4]) -> usize {
        let len = self.rest().len().min(usize::try_from(max).unwrap_or(usize::MAX));
        let end = self.read.saturating_add(len);
        if let Some(payload) = self.bytes.get_mut(self.read..end) {
            unmask(payload, mask);
            if self.written < self.read {
                self.bytes.copy_within(self.read..end, self.written);
            }
        }
        self.written = self.written.saturating_add(len);
        self.read = end;
        len
    }
}

/// Removes a mask, eight bytes at a time.
#[inline]
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// The header of a data or control frame.
#[derive(Debug)]
struct Header {
    is_final: bool,
    opcode: u8,
    len: u64,
    mask: [u8; 4],
}

impl Header {
    /// Reads a header and gives its length with it; `None`: it is not whole. A fault is told as soon as its byte is there,
    /// so that it is the same wherever the segment ends.
    #[inline]
    fn read(bytes: &[u8], in_message: bool, rules: &WebSocketRules) -> Result<Option<(Self, usize)>, Fault> {
        let Some((&first, behind)) = bytes.split_first() else {
            return Ok(None);
        };
        let opcode = judge_first_byte(first, in_message)?;
        let Some((&second, behind)) = behind.split_first() else {
            return Ok(None);
        };
        if second & MASKED == 0 {
            return Err(Fault::Unmasked);
        }
        let short = second & LENGTH;
        if opcode >= CONTROL && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Fault::LongControl);
        }
        let length = match short {
            LENGTH_16 => behind
                .split_first_chunk()
                .map(|(long, behind)| (u64::from(u16::from_be_bytes(*long)), behind)),
            LENGTH_64 => behind
                .split_first_chunk()
                .map(|(long, behind)| (u64::from_be_bytes(*long), behind)),
            _ => Some((u64::from(short), behind)),
        };
        let Some((len, behind)) = length else {
            return Ok(None);
        };
        if len > i64::MAX as u64 {
            return Err(Fault::NegativeLength);
        }
        if len > rules.frame_bytes_max {
            return Err(Fault::FrameTooLong);
        }
        let Some((&mask, behind)) = behind.split_first_chunk() else {
            return Ok(None);
        };
        let header = Self {
            is_final: first & FINAL != 0,
            opcode,
            len,
            mask,
        };
        Ok(Some((header, bytes.len().saturating_sub(behind.len()))))
    }
}

/// The opcode, if it may come now.
#[inline]
const fn judge_first_byte(first: u8, in_message: bool) -> Result<u8, Fault> {
    if first & RESERVED != 0 {
        return Err(Fault::ReservedBits);
    }
    match first & OPCODE {
        CLOSE | PING | PONG if first & FINAL == 0 => Err(Fault::FragmentedControl),
        CONTINUATION if !in_message => Err(Fault::OrphanContinuation),
        TEXT | BINARY if in_message => Err(Fault::NestedMessage),
        TEXT => Err(Fault::Text),
        opcode @ (CONTINUATION | BINARY | CLOSE | PING | PONG) => Ok(opcode),
        _ => Err(Fault::UnknownOpcode),
    }
}

/// The part of a header that came with an earlier segment.
#[derive(Debug, Default)]
struct Part {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

impl Part {
    /// Reads a header that begins in this part. All is kept of one that is not whole.
    #[inline]
    fn complete(
        &mut self,
        segment: &mut Segment<'_>,
        in_message: bool,
        rules: &WebSocketRules,
    ) -> Result<Option<Header>, Fault> {
        if self.len == 0
            && let Some((header, len)) = Header::read(segment.rest(), in_message, rules)?
        {
            segment.skip(len);
            return Ok(Some(header));
        }
        self.complete_slowly(segment, in_message, rules)
    }

    #[cold]
    fn complete_slowly(
        &mut self,
        segment: &mut Segment<'_>,
        in_message: bool,
        rules: &WebSocketRules,
    ) -> Result<Option<Header>, Fault> {
        let had = usize::from(self.len);
        let rest = segment.rest();
        for (place, &byte) in self.bytes.iter_mut().skip(had).zip(rest) {
            *place = byte;
            self.len = self.len.saturating_add(1);
        }
        let part = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        if let Some((header, len)) = Header::read(part, in_message, rules)? {
            segment.skip(len.saturating_sub(had));
            self.len = 0;
            return Ok(Some(header));
        }
        segment.skip(rest.len());
        Ok(None)
    }
}

/// A control frame, or the part of it that has come.
#[derive(Debug)]
struct Control {
    opcode: u8,
    mask: [u8; 4],
    /// Bytes that it has when it is whole, and that it has now.
    total: u8,
    len: u8,
    bytes: [u8; CONTROL_BYTES_MAX],
}

impl Control {
    fn new(header: &Header) -> Self {
        Self {
            opcode: header.opcode,
            mask: header.mask,
            total: u8::try_from(header.len).unwrap_or(u8::MAX),
            len: 0,
            bytes: [0; CONTROL_BYTES_MAX],
        }
    }

    /// Takes what is there of it; `true`: it is whole, and not masked any more.
    fn fill(&mut self, segment: &mut Segment<'_>) -> bool {
        let missing = usize::from(self.total.saturating_sub(self.len));
        let places = self.bytes.iter_mut().skip(usize::from(self.len)).take(missing);
        for (place, &byte) in places.zip(segment.rest()) {
            *place = byte;
            self.len = self.len.saturating_add(1);
        }
        let still_missing = usize::from(self.total.saturating_sub(self.len));
        segment.skip(missing.saturating_sub(still_missing));
        if still_missing > 0 {
            return false;
        }
        unmask(&mut self.bytes, self.mask);
        true
    }

    fn payload(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// What to do about it: the last Ping is to be answered, a Pong was not asked for, and Close is the end.
    fn judge(self, ping: &mut Option<Self>) -> Result<(), Ending> {
        match self.opcode {
            PING => *ping = Some(self),
            CLOSE => return Err(Ending::Closed(self.close_code()?)),
            _ => {}
        }
        Ok(())
    }

    fn close_code(&self) -> Result<u16, Fault> {
        match self.payload() {
            [] => Ok(CLOSE_NO_STATUS),
            [_] => Err(Fault::CloseLength),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return Err(Fault::CloseCode);
                }
                std::str::from_utf8(reason).map_err(|_| Fault::CloseReason)?;
                Ok(code)
            }
        }
    }
}

/// Makes a binary message of `out[mark..]`, if there is something.
pub(super) fn wrap(out: &mut Vec<u8>, mark: usize) {
    let end = out.len();
    let len = end.saturating_sub(mark);
    if len == 0 {
        return;
    }
    push_header(out, BINARY, len);
    let header_len = out.len().saturating_sub(end);
    if let Some(message) = out.get_mut(mark..) {
        message.rotate_right(header_len);
    }
}

/// Appends a Close; [`CLOSE_NO_STATUS`] has no code.
pub(super) fn close(out: &mut Vec<u8>, code: u16) {
    if code == CLOSE_NO_STATUS {
        push_header(out, CLOSE, 0);
    } else {
        let code = code.to_be_bytes();
        push_header(out, CLOSE, code.len());
        out.extend_from_slice(&code);
    }
}

/// Appends the header of a whole message, which a server does not mask.
fn push_header(out: &mut Vec<u8>, opcode: u8, len: usize) {
    let first = FINAL | opcode;
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if len < LENGTH_16 => out.extend_from_slice(&[first, len]),
        (_, Ok(len)) => {
            let [a, b] = len.to_be_bytes();
            out.extend_from_slice(&[first, LENGTH_16, a, b]);
        }
        _ => {
            out.extend_from_slice(&[first, LENGTH_64]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}
