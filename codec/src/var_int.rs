//! Variable Byte Integers (section 1.5.5): seven bits a byte, least significant first, at most four bytes.

use crate::error::DecodeErrorKind;
use crate::mutants::mutant;

/// The largest value that four bytes can hold.
pub(crate) const MAX: u32 = 268_435_455;

/// What reading the front of a slice as a Variable Byte Integer gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarInt {
    /// The value and how many bytes it took.
    Value(u32, usize),
    /// Every byte that is there asks for another one.
    NeedMore,
}

/// Reads the front of `bytes`. A fourth byte that asks for a fifth is refused at once, and so is an encoding that is
/// longer than needed [MQTT-1.5.5-1].
#[inline]
pub(crate) fn read(bytes: &[u8]) -> Result<VarInt, DecodeErrorKind> {
    let mut value = 0;
    for (&byte, (len, shift)) in bytes.iter().zip([(1, 0), (2, 7), (3, 14), (4, 21)]) {
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && len > 1 && !mutant("5.0/1.5.5-1") {
                return Err(DecodeErrorKind::VarIntNotMinimal);
            }
            return Ok(VarInt::Value(value, len));
        }
    }
    if bytes.len() >= 4 {
        Err(DecodeErrorKind::VarIntTooLong)
    } else {
        Ok(VarInt::NeedMore)
    }
}

/// How many bytes `value` takes, 1 to 4.
#[inline]
pub(crate) const fn len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// How many bytes a length takes together with as many bytes as it says.
#[inline]
pub(crate) const fn len_with(bytes: usize) -> usize {
    len(bytes).saturating_add(bytes)
}
