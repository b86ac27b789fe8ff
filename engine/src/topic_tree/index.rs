//! From a hash to a slot: the one hash table behind filters, levels and edges.
//!
//! Not a general map. It differs from `hashbrown` where a table of a million filters feels it: hash and slot lie side
//! by side, growing reads no keys, so that it takes milliseconds instead of a large part of a second, and it grows by
//! an eighth instead of doubling.
//!
//! Open addressing with linear probing. A hash's home is proportional to it, and entries are kept in the order of
//! their hashes: a search begins at the home and ends at the first greater hash. What is pushed beyond the last home
//! lies in a tail, so that nothing wraps around.

use alloc::vec::Vec;

/// Greater than any hash, so that a search ends here.
const VACANT: Entry = Entry {
    hash: u32::MAX,
    slot: 0,
};
/// The first entry makes room for this many.
const SMALLEST: usize = 4;

/// Slots by the upper half of their keys' hashes; the caller knows the keys.
pub(super) struct Index {
    /// The homes, and the tail.
    entries: Vec<Entry>,
    homes: usize,
    len: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    slot: u32,
}

impl Entry {
    const fn is_vacant(self) -> bool {
        self.hash == VACANT.hash
    }
}

impl Index {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            homes: 0,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The slot with that hash for which `is_it` holds, which is asked of hardly any other.
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.position(upper(hash), is_it).map(|(_, slot)| slot)
    }

    /// Adds a slot that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        // An eighth stays vacant: searches grow long in a fuller table.
        if self.len >= self.homes * 7 / 8 {
            self.resize((self.homes + self.homes / 8 + 1).max(SMALLEST));
        }
        self.len += 1;
        let hash = upper(hash);
        let at = self.skip(self.home(hash), |entry| entry.hash <= hash);
        let vacant = self.skip(at, |entry| !entry.is_vacant());
        if vacant == self.entries.len() {
            self.entries.reserve_exact(16);
            self.entries.push(VACANT);
        }
        *self.entry(vacant) = Entry { hash, slot };
        self.run(at, vacant).rotate_right(1);
    }

    /// Removes a slot.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let Some((at, _)) = self.position(upper(hash), |other| other == slot) else {
            return;
        };
        self.len -= 1;
        // The entries behind that are not at home move one nearer to it.
        let mut end = at + 1;
        while self
            .entries
            .get(end)
            .is_some_and(|entry| !entry.is_vacant() && self.home(entry.hash) < end)
        {
            end += 1;
        }
        *self.entry(at) = VACANT;
        self.run(at, end - 1).rotate_left(1);
        if self.len < self.homes / 4 {
            self.resize(self.len * 4 / 3 + SMALLEST);
        }
    }

    /// Where the entry with that hash is for whose slot `is_it` holds, and the slot.
    fn position(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<(usize, u32)> {
        let home = self.home(hash);
        for (distance, entry) in self.entries.get(home..)?.iter().enumerate() {
            if entry.hash > hash {
                return None;
            }
            if entry.hash == hash && is_it(entry.slot) {
                return Some((home + distance, entry.slot));
            }
        }
        None
    }

    /// The first position from `at` on for whose entry `skipped` does not hold.
    fn skip(&self, at: usize, skipped: impl Fn(Entry) -> bool) -> usize {
        at + self
            .entries
            .iter()
            .skip(at)
            .take_while(|&&entry| skipped(entry))
            .count()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`position` or `skip` has just found it, and no index comes from a peer"
    )]
    fn entry(&mut self, at: usize) -> &mut Entry {
        &mut self.entries[at]
    }

    /// The entries from `first` to `last`.
    #[expect(clippy::indexing_slicing, reason = "as of `entry`")]
    fn run(&mut self, first: usize, last: usize) -> &mut [Entry] {
        &mut self.entries[first..=last]
    }

    /// Lays the entries out anew; they are in order already, so each goes to its home or behind the one before.
    fn resize(&mut self, homes: usize) {
        let mut entries = Vec::new();
        entries.reserve_exact(homes + 16);
        self.homes = homes;
        for &entry in self.entries.iter().filter(|entry| !entry.is_vacant()) {
            let home = self.home(entry.hash);
            while entries.len() < home {
                entries.push(VACANT);
            }
            entries.push(entry);
        }
        entries.resize(entries.len().max(homes), VACANT);
        self.entries = entries;
    }

    /// Spreads the hashes evenly over a table of any size.
    const fn home(&self, hash: u32) -> usize {
        ((hash as u64 * self.homes as u64) >> 32) as usize
    }
}

/// The hash that belongs to vacant entries is not given to others.
fn upper(hash: u64) -> u32 {
    ((hash >> 32) as u32).min(VACANT.hash - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The table agrees with a list, also where hashes are equal or crowd at the end.
        #[test]
        fn the_index_agrees_with_a_list(ops in prop::collection::vec((any::<bool>(), 0_u32..60), 1..300)) {
            let hash = |slot: u32| match slot % 3 {
                0 => u64::MAX - u64::from(slot),
                1 => u64::from(slot / 6) << 59,
                _ => u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            let (mut index, mut list) = (Index::new(), Vec::new());
            for (insert, slot) in ops {
                match list.iter().position(|&known| known == slot) {
                    None if insert => {
                        index.insert(hash(slot), slot);
                        list.push(slot);
                    }
                    Some(at) if !insert => {
                        index.remove(hash(slot), slot);
                        list.swap_remove(at);
                    }
                    _ => {}
                }
                prop_assert_eq!(index.len(), list.len());
                prop_assert!(index.entries.is_sorted_by(|a, b| a.hash <= b.hash || a.is_vacant() || b.is_vacant()));
                for slot in 0..60 {
                    let found = index.find(hash(slot), |other| other == slot);
                    prop_assert_eq!(found, list.contains(&slot).then_some(slot));
                }
            }
        }
    }

    /// A table is at least three quarters full once it is large.
    #[test]
    fn a_growing_table_stays_full() {
        let mut index = Index::new();
        for slot in 0..100_000_u32 {
            index.insert(u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15), slot);
            assert!(index.len() < 100 || index.len() * 100 > index.entries.len() * 75);
        }
    }
}
