//! A running hash of all that crosses the engines' border: two runs that have the same have gone the same way.

use std::fmt;

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }
}

impl Hash {
    /// Takes in a number.
    pub(crate) const fn number(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// Takes in a text, if there is one.
    pub(crate) fn text(&mut self, text: Option<&str>) {
        self.number(u64::from(text.is_some()));
        self.bytes(text.unwrap_or_default().as_bytes());
    }

    /// Takes in bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (whole, rest) = bytes.as_chunks();
        for &eight in whole {
            self.number(u64::from_le_bytes(eight));
        }
        let last = rest.iter().fold(0, |last, &byte| last << 8 | u64::from(byte));
        self.number(last);
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// What has no other form than that of its `Debug`.
impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
