//! Texts that occur often, kept once and counted: Topic Levels and ShareNames.

use alloc::boxed::Box;
use core::num::NonZeroU32;

use ahash::RandomState;

use super::hash_text;
use super::index::Index;
use super::slots::Slots;

/// Longest text that needs no allocation of its own.
const INLINE: usize = 10;

/// Names one text while somebody holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TextId(NonZeroU32);

impl TextId {
    /// The name of no text.
    pub(super) const MAX: Self = Self(NonZeroU32::MAX);

    const fn slot(self) -> u32 {
        self.0.get() - 1
    }
}

/// Texts, each with the number of its holders; one without holders is forgotten.
pub(super) struct Texts {
    hasher: RandomState,
    index: Index,
    texts: Slots<Text>,
}

/// 16 bytes, most levels included. The thin pointer is worth its second step: long levels are few.
enum Text {
    Short { len: u8, bytes: [u8; INLINE], holders: u32 },
    Long { holders: u32, text: Box<Box<[u8]>> },
}

impl Texts {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            hasher,
            index: Index::new(),
            texts: Slots::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text's name, if somebody holds it.
    pub(super) fn find(&self, text: &str) -> Option<TextId> {
        let hash = hash_text(&self.hasher, text.as_bytes());
        let slot = self
            .index
            .find(hash, |slot| self.texts.at(slot).bytes() == text.as_bytes())?;
        NonZeroU32::new(slot + 1).map(TextId)
    }

    /// Adds a holder; each must [`release`](Self::release) once.
    pub(super) fn hold(&mut self, text: &str) -> TextId {
        if let Some(id) = self.find(text) {
            *self.texts.at_mut(id.slot()).holders() += 1;
            return id;
        }
        let slot = self.texts.insert(Text::new(text.as_bytes()));
        self.index.insert(hash_text(&self.hasher, text.as_bytes()), slot);
        TextId(NonZeroU32::MIN.saturating_add(slot))
    }

    pub(super) fn release(&mut self, id: TextId) {
        let holders = self.texts.at_mut(id.slot()).holders();
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        if let Some(text) = self.texts.remove(id.slot()) {
            self.index.remove(hash_text(&self.hasher, text.bytes()), id.slot());
        }
    }

    /// Whether `id` names `text`: cheaper than asking for the name of `text`.
    pub(super) fn is(&self, id: TextId, text: &[u8]) -> bool {
        self.texts.at(id.slot()).bytes() == text
    }

    #[expect(clippy::expect_used, reason = "only a `&str` is ever held")]
    pub(super) fn text(&self, id: TextId) -> &str {
        core::str::from_utf8(self.texts.at(id.slot()).bytes()).expect("the text is UTF-8")
    }
}

impl Text {
    fn new(text: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..text.len()) {
            Some(short) => {
                short.copy_from_slice(text);
                Self::Short {
                    len: text.len() as u8,
                    bytes,
                    holders: 1,
                }
            }
            None => Self::Long {
                holders: 1,
                text: Box::new(text.into()),
            },
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`new` gives a short text the length of what it copied"
    )]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes, .. } => &bytes[..usize::from(*len)],
            Self::Long { text, .. } => text,
        }
    }

    const fn holders(&mut self) -> &mut u32 {
        match self {
            Self::Short { holders, .. } | Self::Long { holders, .. } => holders,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text has one name while it is held, however long it is, and is forgotten with its last holder.
    #[test]
    fn texts_live_as_long_as_their_holders() {
        let mut texts = Texts::new(RandomState::with_seeds(1, 2, 3, 4));
        let long = "x".repeat(70_000);
        let samples = ["", "tennis", "0123456789", "0123456789a", &long];
        for text in samples {
            let id = texts.hold(text);
            assert_eq!(
                (texts.hold(text), texts.find(text), texts.text(id)),
                (id, Some(id), text)
            );
        }
        assert_eq!(texts.len(), samples.len());
        for text in samples {
            let id = texts.find(text).unwrap();
            texts.release(id);
            assert_eq!(texts.find(text), Some(id));
            texts.release(id);
            assert_eq!(texts.find(text), None);
        }
        assert_eq!((texts.len(), texts.index.len()), (0, 0));
        assert_eq!(Slots::<Text>::SLOT_SIZE, 16);
    }
}
