//! What is counted by name over all shards: Sessions, and the connections of each user, where they have a limit.
//!
//! A CONNECT holds a place in each that it may add to before the engine is asked whether there is one, so the limits are
//! exact; no packet of a client that is in touches them.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sol_engine::Tally;

/// Tables, so that shards seldom wait for each other.
const TABLES: usize = 16;

/// The sums.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    tables: [Mutex<HashMap<Tally, Sum>>; TABLES],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Sum {
    count: usize,
    /// Places that are held for who may be let in.
    places: usize,
}

impl Tallies {
    /// Holds a place, and gives how many are taken beside it.
    pub(crate) fn hold(&self, tally: Tally) -> usize {
        let mut table = self.table(tally);
        let sum = table.entry(tally).or_default();
        let taken = sum.count.saturating_add(sum.places);
        sum.places = sum.places.saturating_add(1);
        taken
    }

    /// Gives a place back.
    pub(crate) fn release(&self, tally: Tally) {
        self.change(tally, |sum| sum.places = sum.places.saturating_sub(1));
    }

    /// A shard has so many more than it had, or less.
    pub(crate) fn add(&self, tally: Tally, grown: isize) {
        self.change(tally, |sum| sum.count = sum.count.saturating_add_signed(grown));
    }

    fn change(&self, tally: Tally, change: impl FnOnce(&mut Sum)) {
        let mut table = self.table(tally);
        change(table.entry(tally).or_default());
        if let Entry::Occupied(sum) = table.entry(tally)
            && sum.get().count == 0
            && sum.get().places == 0
        {
            sum.remove();
        }
    }

    fn table(&self, tally: Tally) -> MutexGuard<'_, HashMap<Tally, Sum>> {
        let at = usize::try_from(self.hasher.hash_one(tally)).unwrap_or(0) % TABLES;
        #[expect(clippy::indexing_slicing, reason = "a remainder of their number")]
        self.tables[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_counts_are_taken_together_and_nothing_is_left_of_them() {
        let tallies = Tallies::default();
        let (one, other) = (Tally::User(1), Tally::Sessions);
        assert_eq!((tallies.hold(one), tallies.hold(one), tallies.hold(other)), (0, 1, 0));
        tallies.add(one, 1);
        tallies.release(one);
        assert_eq!(tallies.hold(one), 2, "who is in, and whose place is held still");
        tallies.release(one);
        tallies.release(one);
        tallies.release(other);
        tallies.add(one, -1);
        assert!(tallies.tables.iter().all(|table| table.lock().unwrap().is_empty()));
    }
}
