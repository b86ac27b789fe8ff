//! What is counted by name over all shards: Sessions, and the connections of each user, where they have a limit.
//!
//! A CONNECT holds a place in each that it may add to before the engine is asked whether there is one, so the limits are
//! exact; no packet of a client that is in touches them.

use sol_engine::Tally;

use crate::tables::Tables;

/// The sums.
#[derive(Debug, Default)]
pub(crate) struct Sums(Tables<Tally, Sum>);

#[derive(Debug, Default, PartialEq)]
struct Sum {
    count: usize,
    /// Places that are held for who may be let in.
    places: usize,
}

impl Sums {
    /// Holds a place, and gives how many are taken beside it.
    pub(crate) fn hold(&self, tally: Tally) -> usize {
        self.0.change(tally, |sum| {
            let taken = sum.count.saturating_add(sum.places);
            sum.places = sum.places.saturating_add(1);
            taken
        })
    }

    /// Gives a place back.
    pub(crate) fn release(&self, tally: Tally) {
        self.0.change(tally, |sum| sum.places = sum.places.saturating_sub(1));
    }

    /// A shard has so many more than it had, or less.
    pub(crate) fn add(&self, tally: Tally, grown: isize) {
        self.0
            .change(tally, |sum| sum.count = sum.count.saturating_add_signed(grown));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_counts_are_taken_together_and_nothing_is_left_of_them() {
        let tallies = Sums::default();
        let (one, other) = (Tally::User(1), Tally::Sessions);
        assert_eq!((tallies.hold(one), tallies.hold(one), tallies.hold(other)), (0, 1, 0));
        tallies.add(one, 1);
        tallies.release(one);
        assert_eq!(tallies.hold(one), 2, "who is in, and whose place is held still");
        tallies.release(one);
        tallies.release(one);
        tallies.release(other);
        tallies.add(one, -1);
        assert!(tallies.0.is_empty());
    }
}
