//! What all shards count by key: a connection of an address, a Session, a user's connections. Looked at when somebody comes
//! or goes, and never for a message.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};

/// Tables, so that shards seldom wait for each other.
const TABLES: usize = 16;

/// A count for each key; nothing is kept of one that is back at its beginning.
#[derive(Debug)]
pub(crate) struct Tables<K, V> {
    tables: [Mutex<HashMap<K, V>>; TABLES],
    hasher: RandomState,
}

impl<K, V> Default for Tables<K, V> {
    fn default() -> Self {
        Self {
            tables: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl<K: Eq + Hash, V: Default + PartialEq> Tables<K, V> {
    /// Changes a count, and gives what the change says.
    pub(crate) fn change<R>(&self, key: K, change: impl FnOnce(&mut V) -> R) -> R {
        let at = usize::try_from(self.hasher.hash_one(&key)).unwrap_or(0) % TABLES;
        #[expect(clippy::indexing_slicing, reason = "a remainder of their number")]
        let mut table = self.tables[at].lock().unwrap_or_else(PoisonError::into_inner);
        match table.entry(key) {
            Entry::Occupied(mut count) => {
                let said = change(count.get_mut());
                if *count.get() == V::default() {
                    count.remove();
                }
                said
            }
            Entry::Vacant(place) => {
                let mut count = V::default();
                let said = change(&mut count);
                if count != V::default() {
                    place.insert(count);
                }
                said
            }
        }
    }

    /// Whether nothing is counted.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.lock().unwrap().is_empty())
    }
}
