//! A table whose entries keep their index: vacant slots are used again, and the vector grows by a quarter.

use alloc::vec::Vec;

use crate::tight;

const NONE: u32 = u32::MAX;

/// Values of type `T` by index.
pub(super) struct Slots<T> {
    entries: Vec<Slot<T>>,
    /// First vacant slot; each names the next.
    vacant: u32,
    len: u32,
}

enum Slot<T> {
    Used(T),
    Vacant(u32),
}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            vacant: NONE,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        match self.entries.get(index as usize)? {
            Slot::Used(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// All values, in the order of their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|slot| match slot {
            Slot::Used(value) => Some(value),
            Slot::Vacant(_) => None,
        })
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize)? {
            Slot::Used(value) => Some(value),
            Slot::Vacant(_) => None,
        }
    }

    /// The value at an index that another entry of the topic tree names.
    #[expect(
        clippy::expect_used,
        reason = "an entry that names a slot is forgotten before the slot is vacated, and no index comes from a peer"
    )]
    pub(super) fn at(&self, index: u32) -> &T {
        self.get(index).expect("the slot is in use")
    }

    /// As [`at`](Self::at), to change it.
    #[expect(clippy::expect_used, reason = "as of `at`")]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("the slot is in use")
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        let index = self.vacant;
        match self.entries.get_mut(index as usize) {
            Some(slot) => {
                if let Slot::Vacant(next) = *slot {
                    self.vacant = next;
                }
                *slot = Slot::Used(value);
                index
            }
            None => {
                tight::push(&mut self.entries, Slot::Used(value));
                self.entries.len() as u32 - 1
            }
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.entries.get_mut(index as usize)?;
        if let Slot::Vacant(_) = slot {
            return None;
        }
        let Slot::Used(value) = core::mem::replace(slot, Slot::Vacant(self.vacant)) else {
            return None;
        };
        self.vacant = index;
        self.len -= 1;
        Some(value)
    }
}

#[cfg(test)]
impl<T> Slots<T> {
    /// The size of one slot in bytes.
    pub(super) const SLOT_SIZE: usize = size_of::<Slot<T>>();
}
