//! UTF-8 by the rules of section 1.5.4, which are stricter than Unicode's: no U+0000.
//!
//! The fast path is one branch-free pass that learns everything a Topic Name is asked about, beside the standard
//! library's check (without `unsafe` that check is the only door to a `&str`, and on ASCII it goes a word at a time).
//! Surrogates need no rule of their own: no well-formed `&str` can hold one. The naive twin below spells out the
//! specification's table instead, and a property test holds the two together.

use crate::error::DecodeErrorKind;
use crate::mutants::mutant;

/// What one pass over a text has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// U+0000.
    pub(crate) nul: bool,
    /// `+` or `#`.
    pub(crate) wildcard: bool,
    /// How many `/`.
    pub(crate) separators: u32,
}

/// Looks at every byte once, eight at a time and without a branch that depends on its value.
#[inline]
pub(crate) fn scan(bytes: &[u8]) -> Scan {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut seen = Seen::default();
    for word in words {
        seen.look_at(u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        seen.look_at(padded(bytes, rest));
    }
    Scan {
        nul: seen.nul != 0 && !mutant("5.0/1.5.4-2"),
        wildcard: seen.wildcard != 0,
        separators: seen.separators,
    }
}

/// The last bytes as a word, filled up with 0xff, which nobody looks for.
#[inline]
fn padded(bytes: &[u8], rest: &[u8]) -> u64 {
    match bytes.last_chunk::<8>() {
        Some(last) => {
            let bits = u8::BITS.wrapping_mul(rest.len() as u32);
            u64::from_le_bytes(*last).rotate_left(bits) | u64::MAX << bits
        }
        None => rest.iter().fold(u64::MAX, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[derive(Default)]
struct Seen {
    nul: u64,
    wildcard: u64,
    separators: u32,
}

impl Seen {
    #[inline]
    fn look_at(&mut self, word: u64) {
        self.nul |= has_zero(word);
        // `+` is 0x2b and `#` is 0x23: they differ in one bit.
        self.wildcard |= has_zero(word & each(!0x08) ^ each(b'#'));
        let count = (zero_bytes(word ^ each(b'/')) >> 7).wrapping_mul(each(1)) >> 56;
        self.separators = self.separators.wrapping_add(count as u32);
    }
}

/// Eight times the same byte.
#[inline]
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Not zero if a byte is zero; says nothing of which.
#[inline]
const fn has_zero(word: u64) -> u64 {
    word.wrapping_sub(each(0x01)) & !word & each(0x80)
}

/// The high bit of every byte that is zero.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    !((word & each(0x7f)).wrapping_add(each(0x7f)) | word | each(0x7f))
}

/// The text that the bytes are, if they are well-formed [MQTT-1.5.4-1] and hold no U+0000 [MQTT-1.5.4-2].
#[inline]
pub(crate) fn check(bytes: &[u8]) -> Result<&str, DecodeErrorKind> {
    let text = well_formed(bytes)?;
    if scan(bytes).nul {
        Err(DecodeErrorKind::NulCharacter)
    } else {
        Ok(text)
    }
}

/// The text that the bytes are, U+0000 or not.
#[inline]
pub(crate) fn well_formed(bytes: &[u8]) -> Result<&str, DecodeErrorKind> {
    core::str::from_utf8(bytes).map_err(|_| DecodeErrorKind::InvalidUtf8)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Whether `bytes` is a string of MQTT, decided character by character with the arithmetic of RFC 3629.
    fn naive(bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let [first, tail @ ..] = rest {
            let (more, initial, least) = match first {
                0x00..=0x7f => (0, u32::from(*first), 0x01),
                0xc0..=0xdf => (1, u32::from(first & 0x1f), 0x80),
                0xe0..=0xef => (2, u32::from(first & 0x0f), 0x800),
                0xf0..=0xf7 => (3, u32::from(first & 0x07), 0x1_0000),
                _ => return false,
            };
            if tail.len() < more || !tail[..more].iter().all(|byte| byte & 0xc0 == 0x80) {
                return false;
            }
            let code = tail[..more]
                .iter()
                .fold(initial, |code, byte| code << 6 | u32::from(byte & 0x3f));
            if code < least || code > 0x10_ffff || (0xd800..=0xdfff).contains(&code) {
                return false;
            }
            rest = &tail[more..];
        }
        true
    }

    fn near_utf8() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            prop::collection::vec(0x20..0x7f_u8, 0..20),
            prop::collection::vec(any::<u8>(), 0..3),
            (0xd800..0xe000_u32).prop_map(|c| vec![
                0xe0 | (c >> 12) as u8,
                0x80 | (c >> 6 & 0x3f) as u8,
                0x80 | (c & 0x3f) as u8
            ]),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn fast_path_and_naive_twin_agree(bytes in near_utf8()) {
            // [MQTT-1.5.4-1], [MQTT-1.5.4-2]
            prop_assert_eq!(check(&bytes).is_ok(), naive(&bytes));
        }

        #[test]
        fn one_pass_sees_what_four_passes_see(bytes in near_utf8()) {
            // [MQTT-4.7.0-1], [MQTT-4.7.3-2]
            let seen = scan(&bytes);
            prop_assert_eq!(seen.nul, bytes.contains(&0));
            prop_assert_eq!(seen.wildcard, bytes.contains(&b'+') || bytes.contains(&b'#'));
            prop_assert_eq!(seen.separators as usize, bytes.split(|byte| *byte == b'/').count() - 1);
        }
    }

    #[test]
    fn a_byte_order_mark_is_kept() {
        // [MQTT-1.5.4-3]
        assert_eq!(check(b"\xef\xbb\xbfa"), Ok("\u{feff}a"));
    }
}
