//! The text of an exact filter, in its slot where it is short.

use alloc::boxed::Box;

/// Longest text that needs no allocation of its own. A publish compares the text of the filter it finds: where that
/// lies beside the listeners, a look at memory that is in no cache is saved.
const INLINE: usize = 22;

/// 24 bytes, whatever the text.
pub(super) enum FilterText {
    Short { len: u8, bytes: [u8; INLINE] },
    Long(Box<str>),
}

const _: () = assert!(size_of::<FilterText>() <= 24);

impl FilterText {
    pub(super) fn new(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..text.len()) {
            Some(short) => {
                short.copy_from_slice(text.as_bytes());
                Self::Short {
                    len: text.len() as u8,
                    bytes,
                }
            }
            None => Self::Long(text.into()),
        }
    }

    #[inline]
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)) == Some(text.as_bytes()),
            Self::Long(long) => **long == *text,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            // Filled from a `&str` of this length.
            Self::Short { len, bytes } => {
                core::str::from_utf8(bytes.get(..usize::from(*len)).unwrap_or_default()).unwrap_or_default()
            }
            Self::Long(long) => long,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text comes back as it was, short or long, and is no other text.
    #[test]
    fn texts_of_every_length_come_back() {
        let all = "ä".repeat(40);
        for len in (0..=all.len()).filter(|&len| all.is_char_boundary(len)) {
            let text = FilterText::new(&all[..len]);
            assert_eq!(text.as_str(), &all[..len]);
            assert!(text.is(&all[..len]) && !text.is("x"));
        }
    }
}
