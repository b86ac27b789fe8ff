//! Format 1: the bytes of a segment's header and of a frame's head. README.md draws them.
//!
//! All checksums begin with the store's and the segment's identifiers. So a frame of another store, or of a file that had
//! another name, is none; and nobody who may only choose a record's bytes can make them look like a frame.

use std::ops::RangeInclusive;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u16 = 1;

/// Bytes before a segment's first frame.
pub(crate) const HEADER: usize = 64;
/// Bytes of a frame before its operations.
pub(crate) const HEAD: usize = 48;
/// The longest frame: beyond it a length is damage. A publish of the largest MQTT packet fits four times.
pub(crate) const FRAME_MAX: usize = 1 << 30;

/// The most that a segment may have before it is full.
pub(crate) const SEGMENT_MAX: u32 = 1 << 30;

const MAGIC: [u8; 8] = *b"MQTTSEG\0";

/// The journal's own records moved these here; no owner put them.
pub(crate) const RELOCATION: u32 = 1;
/// The journal was closed after this frame.
pub(crate) const CLEAN_CLOSE: u32 = 2;
const KNOWN_FLAGS: u32 = RELOCATION | CLEAN_CLOSE;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) segment: u64,
    /// Segments before this one were not needed when this one was made.
    pub(crate) low: u64,
    pub(crate) store: [u8; 16],
    /// Frames up to this one were durable when this one was made.
    pub(crate) durable: u64,
}

/// Why the first bytes of a file are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// A whole one, of a later format, or with something that this version does not know.
    Newer,
    /// Not a whole one.
    Damaged,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = Cursor(&mut bytes, 0);
        put.bytes(&MAGIC);
        put.bytes(&FORMAT.to_le_bytes());
        put.bytes(&0_u16.to_le_bytes());
        put.bytes(&(HEADER as u32).to_le_bytes());
        put.bytes(&self.segment.to_le_bytes());
        put.bytes(&self.low.to_le_bytes());
        put.bytes(&self.store);
        put.bytes(&self.durable.to_le_bytes());
        let crc = crc32c::crc32c(bytes.get(..56).unwrap_or_default());
        Cursor(&mut bytes, 56).bytes(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let whole = bytes
            .get(..HEADER)
            .and_then(|bytes| bytes.get(..56))
            .ok_or(BadHeader::Damaged)?;
        if u32_at(bytes, 56) != Some(crc32c::crc32c(whole)) || !whole.starts_with(&MAGIC) {
            return Err(BadHeader::Damaged);
        }
        let u16_at = |at: usize| whole.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
        match (u16_at(8), u16_at(10), u32_at(whole, 12)) {
            (Some(FORMAT), Some(0), Some(length)) if length == HEADER as u32 => {}
            (Some(0), ..) => return Err(BadHeader::Damaged),
            _ => return Err(BadHeader::Newer),
        }
        Ok(Self {
            segment: u64_at(whole, 16).unwrap_or_default(),
            low: u64_at(whole, 24).unwrap_or_default(),
            store: whole.get(32..48).and_then(|id| id.try_into().ok()).unwrap_or_default(),
            durable: u64_at(whole, 48).unwrap_or_default(),
        })
    }
}

/// What the checksums of a segment's frames begin with.
pub(crate) fn salt(store: &[u8; 16], segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(store), &segment.to_le_bytes())
}

/// A frame's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of operations behind it.
    pub(crate) length: u32,
    pub(crate) body_crc: u32,
    /// Frames count up by one, through all segments.
    pub(crate) sequence: u64,
    /// Frames up to this one were durable when this one was written.
    pub(crate) durable: u64,
    pub(crate) unix_millis: u64,
    /// The checksum of the head before this one, so that no frame is followed by any but its own successor.
    pub(crate) previous: u32,
    pub(crate) records: u32,
    pub(crate) flags: u32,
    /// The checksum of all of the above.
    pub(crate) crc: u32,
}

impl Head {
    /// Writes the head in front of its operations, which begin at [`HEAD`]; sets both checksums and the length.
    pub(crate) fn seal(&mut self, salt: u32, frame: &mut [u8]) {
        let body = frame.get(HEAD..).unwrap_or_default();
        self.length = body.len() as u32;
        self.body_crc = crc32c::crc32c_append(salt, body);
        let mut put = Cursor(frame, 0);
        put.bytes(&self.length.to_le_bytes());
        put.bytes(&self.body_crc.to_le_bytes());
        put.bytes(&self.sequence.to_le_bytes());
        put.bytes(&self.durable.to_le_bytes());
        put.bytes(&self.unix_millis.to_le_bytes());
        put.bytes(&self.previous.to_le_bytes());
        put.bytes(&self.records.to_le_bytes());
        put.bytes(&self.flags.to_le_bytes());
        self.crc = crc32c::crc32c_append(salt, frame.get(..44).unwrap_or_default());
        Cursor(frame, 44).bytes(&self.crc.to_le_bytes());
    }

    /// The head that these bytes begin with, if its checksum holds.
    pub(crate) fn decode(salt: u32, bytes: &[u8]) -> Option<Self> {
        let crc = u32_at(bytes, 44)?;
        let head = Self {
            length: u32_at(bytes, 0)?,
            body_crc: u32_at(bytes, 4)?,
            sequence: u64_at(bytes, 8)?,
            durable: u64_at(bytes, 16)?,
            unix_millis: u64_at(bytes, 24)?,
            previous: u32_at(bytes, 32)?,
            records: u32_at(bytes, 36)?,
            flags: u32_at(bytes, 40)?,
            crc,
        };
        let plausible = head.length as usize <= FRAME_MAX && head.durable < head.sequence;
        (plausible && crc32c::crc32c_append(salt, bytes.get(..44)?) == crc).then_some(head)
    }

    /// Whether it has flags that this version does not know.
    pub(crate) const fn is_newer(&self) -> bool {
        self.flags & !KNOWN_FLAGS != 0
    }
}

/// The head and the operations of the frame that these bytes begin with, if both checksums hold.
pub(crate) fn frame(salt: u32, bytes: &[u8]) -> Option<(Head, &[u8])> {
    let head = Head::decode(salt, bytes)?;
    let body = bytes.get(HEAD..HEAD.checked_add(head.length as usize)?)?;
    (crc32c::crc32c_append(salt, body) == head.body_crc).then_some((head, body))
}

/// Where the next head is at or behind an offset: one of these sequence numbers whose checksum holds.
pub(crate) fn find_head(
    salt: u32,
    bytes: &[u8],
    from: usize,
    sequences: &RangeInclusive<u64>,
) -> Option<(usize, Head)> {
    let end = bytes.len().checked_sub(HEAD)?;
    (from..=end).find_map(|at| {
        // The number is looked at before the checksum: this runs over every byte behind damage.
        sequences.contains(&u64_at(bytes, at + 8)?).then_some(())?;
        Some((at, Head::decode(salt, bytes.get(at..)?)?))
    })
}

/// A segment's file name.
pub(crate) fn segment_name(segment: u64) -> String {
    format!("{segment:016x}.seg")
}

/// The segment of a file name.
pub(crate) fn segment_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let lower = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (digits.len() == 16 && lower).then(|| u64::from_str_radix(digits, 16).ok())?
}

struct Cursor<'a>(&'a mut [u8], usize);

impl Cursor<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.1 + bytes.len();
        if let Some(place) = self.0.get_mut(self.1..end) {
            place.copy_from_slice(bytes);
        }
        self.1 = end;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header is read as it was written, and any other bit makes it none.
    #[test]
    fn every_bit_of_a_header_counts() {
        let header = Header {
            segment: 7,
            low: 3,
            store: [9; 16],
            durable: 2,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..60 * 8 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&other), Err(BadHeader::Damaged), "bit {bit}");
        }
        for length in 0..64 {
            assert_eq!(Header::decode(&bytes[..length]), Err(BadHeader::Damaged));
        }
    }

    /// A later format, a flag and a length of the header that are not known are told from damage.
    #[test]
    fn a_later_format_is_newer() {
        let bytes = Header {
            segment: 1,
            low: 1,
            store: [0; 16],
            durable: 0,
        }
        .encode();
        for at in [8, 9, 10, 11, 12, 15] {
            let mut other = bytes;
            other[at] ^= 2;
            let crc = crc32c::crc32c(&other[..56]).to_le_bytes();
            other[56..60].copy_from_slice(&crc);
            assert_eq!(Header::decode(&other), Err(BadHeader::Newer), "{at}");
        }
    }

    /// A frame is read as it was written; any other bit, another store and another segment make it none.
    #[test]
    fn every_bit_of_a_frame_counts() {
        let mut bytes = vec![0; HEAD];
        bytes.extend_from_slice(b"operations");
        let mut head = Head {
            sequence: 5,
            durable: 4,
            unix_millis: 1,
            previous: 8,
            records: 2,
            ..Head::default()
        };
        head.seal(77, &mut bytes);
        assert_eq!(frame(77, &bytes), Some((head, &b"operations"[..])));
        assert_eq!(frame(78, &bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(frame(77, &other), None, "bit {bit}");
        }
        let mut shifted = vec![1; 100];
        shifted.extend_from_slice(&bytes);
        assert_eq!(find_head(77, &shifted, 0, &(5..=5)), Some((100, head)));
        assert_eq!(find_head(77, &shifted, 0, &(6..=9)), None);
        assert_eq!(find_head(77, &shifted, 101, &(5..=5)), None);
    }

    /// Only the names that segments are given are names of segments.
    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(segment_of(&segment_name(0xabc)), Some(0xabc));
        for other in [
            "LOCK",
            "abc.seg",
            "0000000000000ABC.seg",
            "0000000000000abc.seg.damaged",
            "+000000000000abc.seg",
        ] {
            assert_eq!(segment_of(other), None);
        }
    }
}
