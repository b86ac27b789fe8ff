//! What counts against limits of the whole broker: sums over all shards, to which each adds what it has itself.
//!
//! These are plain atomics, and no packet touches them: a connection does when it is let in and when it ends, and memory
//! at the end of a turn that has changed it by a step. What is read from them is a turn old at most, so a limit of memory
//! is kept but for what each shard takes in one turn. Whoever finds it met says so before anybody is refused for it, and
//! then it is met for all: no client is let in by one shard after it was refused by another. The limit of connections is
//! exact, because a place is held before the engine is asked whether there is one.

use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sol_engine::{Instant, ListenerId, TALLIES_MAX, Tally};

use crate::admission::Doors;
use crate::mailbox::Padded;
use crate::tallies::Sums;

/// A place that is held for a connection which may be let in, beside those that are.
const PLACE: u64 = 1 << 32;

/// Bytes by which a shard's memory must have changed before the others hear of it, at most and at least.
const STEP_MAX: usize = 1 << 20;
const STEP_MIN: usize = 64;
/// The part of a limit by which all shards together may be wrong about each other.
const ERROR_PART: usize = 256;

/// The sums.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    connections: Padded<Connections>,
    memory: Padded<Memory>,
    /// Connections by listener, of those that have a limit of their own.
    listeners: Box<[Padded<AtomicU64>]>,
    /// Who was accepted.
    pub(crate) doors: Doors,
    /// What is counted by name.
    pub(crate) tallies: Sums,
    /// When an engine failed last, in nanoseconds; 0: none has.
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Connections {
    /// Those that are let in, and in the upper half the places held.
    now: AtomicU64,
    maximum: AtomicU64,
}

#[derive(Debug, Default)]
struct Memory {
    /// Bytes that engines are charged with.
    charged: AtomicUsize,
    /// Bytes that transports hold.
    held: AtomicUsize,
    maximum: AtomicUsize,
    /// How often a shard has found the limit met; 0: enough was set free since.
    found_full: AtomicUsize,
}

/// Bytes of memory, by who keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// The engine.
    pub(crate) charged: usize,
    /// The transport.
    pub(crate) held: usize,
}

impl Bytes {
    pub(crate) const fn total(self) -> usize {
        self.charged.saturating_add(self.held)
    }

    /// Both together.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            charged: self.charged.saturating_add(other.charged),
            held: self.held.saturating_add(other.held),
        }
    }
}

/// What the broker had at most, in all shards together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maxima {
    /// Connections that were let in.
    pub connections: u64,
    /// Bytes charged, within a step of each shard's.
    pub memory_bytes: u64,
}

impl Whole {
    /// Sums for so many listeners.
    pub(crate) fn new(listeners: usize) -> Self {
        Self {
            listeners: (0..listeners).map(|_| Padded(AtomicU64::new(0))).collect(),
            doors: Doors::new(listeners),
            ..Self::default()
        }
    }

    pub(crate) fn maxima(&self) -> Maxima {
        Maxima {
            connections: self.connections.0.maximum.load(Ordering::Relaxed),
            memory_bytes: self.memory.0.maximum.load(Ordering::Relaxed) as u64,
        }
    }

    /// An engine has failed. Gives when one failed before, on whichever shard.
    pub(crate) fn fail(&self, now: Instant) -> Option<Instant> {
        let last = self.failed.swap(now.as_nanos().max(1), Ordering::AcqRel);
        (last > 0).then(|| Instant::from_nanos(last))
    }

    /// What all shards keep together.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes {
            charged: self.memory.0.charged.load(Ordering::Relaxed),
            held: self.memory.0.held.load(Ordering::Relaxed),
        }
    }

    /// Whether the limit of memory is met, for all shards.
    pub(crate) fn is_full(&self) -> bool {
        self.memory.0.found_full.load(Ordering::Acquire) > 0
    }

    /// A shard, whose bytes have been added, finds the limit of memory met.
    pub(crate) fn find_full(&self) {
        self.memory.0.found_full.fetch_add(1, Ordering::AcqRel);
    }

    /// Asks whether the limit of memory is still met, if it was. `true`: it is no more.
    pub(crate) fn find_room(&self, is_still_full: impl FnOnce(Bytes) -> bool) -> bool {
        let found_full = &self.memory.0.found_full;
        let found = found_full.load(Ordering::Acquire);
        // Whoever finds it met meanwhile has the last word.
        found > 0
            && !is_still_full(self.bytes())
            && found_full
                .compare_exchange(found, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

/// What one shard has added to the sums.
#[derive(Debug, Default)]
pub(crate) struct Share {
    connections: u64,
    /// The same by listener.
    listeners: Vec<u64>,
    bytes: Bytes,
    holds_place: bool,
    holds_place_of: Option<ListenerId>,
    /// Where places are held of what is counted by name.
    pub(crate) holds_tallies: [Option<Tally>; TALLIES_MAX],
}

impl Share {
    /// Holds a place for one more connection, until [`Share::settle`]. Gives how many others are taken: by connections of
    /// other shards, and by those that other shards may be about to let in.
    pub(crate) fn hold_place(&mut self, whole: &Whole) -> usize {
        self.holds_place = true;
        let before = whole.connections.0.now.fetch_add(PLACE, Ordering::AcqRel);
        let taken = (before % PLACE) + (before / PLACE);
        usize::try_from(taken.saturating_sub(self.connections)).unwrap_or(usize::MAX)
    }

    /// The same among the connections of one listener, until [`Share::settle_of`].
    pub(crate) fn hold_place_of(&mut self, whole: &Whole, listener: ListenerId) -> usize {
        let Some(sum) = whole.listeners.get(usize::from(listener.0)) else {
            return 0;
        };
        self.holds_place_of = Some(listener);
        let before = sum.0.fetch_add(PLACE, Ordering::AcqRel);
        let taken = (before % PLACE) + (before / PLACE);
        usize::try_from(taken.saturating_sub(self.counted(listener))).unwrap_or(usize::MAX)
    }

    /// The listener in which a place is held.
    pub(crate) const fn place_of(&self) -> Option<ListenerId> {
        self.holds_place_of
    }

    /// Gives the place in a listener back, if one is held, and adds how many connections of it this shard has now.
    pub(crate) fn settle_of(&mut self, whole: &Whole, connections: usize) {
        if let Some(listener) = self.holds_place_of.take() {
            self.count_of(whole, listener, connections as u64, PLACE);
        }
    }

    /// Adds how many connections of a listener this shard has now, if that is another number than before.
    pub(crate) fn set_connections_of(&mut self, whole: &Whole, listener: ListenerId, connections: usize) {
        if connections as u64 != self.counted(listener) {
            self.count_of(whole, listener, connections as u64, 0);
        }
    }

    fn counted(&self, listener: ListenerId) -> u64 {
        self.listeners.get(usize::from(listener.0)).copied().unwrap_or(0)
    }

    fn count_of(&mut self, whole: &Whole, listener: ListenerId, connections: u64, places: u64) {
        let at = usize::from(listener.0);
        let Some(sum) = whole.listeners.get(at) else { return };
        let grown = connections.wrapping_sub(self.counted(listener));
        sum.0.fetch_add(grown.wrapping_sub(places), Ordering::AcqRel);
        if self.listeners.len() <= at {
            self.listeners.resize(at + 1, 0);
        }
        if let Some(counted) = self.listeners.get_mut(at) {
            *counted = connections;
        }
    }

    /// Gives the place back, if one is held, and adds how many connections this shard has now.
    pub(crate) fn settle(&mut self, whole: &Whole, connections: usize) {
        if mem::take(&mut self.holds_place) {
            self.count(whole, connections as u64, PLACE);
        }
    }

    /// Adds how many connections this shard has now, if that is another number than before.
    #[inline]
    pub(crate) fn set_connections(&mut self, whole: &Whole, connections: usize) {
        if connections as u64 != self.connections {
            self.count(whole, connections as u64, 0);
        }
    }

    fn count(&mut self, whole: &Whole, connections: u64, places: u64) {
        let grown = connections.wrapping_sub(self.connections);
        let now = &whole.connections.0;
        let change = grown.wrapping_sub(places);
        let after = now.now.fetch_add(change, Ordering::AcqRel).wrapping_add(change);
        if connections > self.connections {
            now.maximum.fetch_max(after % PLACE, Ordering::Relaxed);
        }
        self.connections = connections;
    }

    /// Adds what this shard keeps now, if that differs by a step from what it added before. Gives what all kept before and
    /// keep after it then.
    #[inline]
    pub(crate) fn set_bytes(&mut self, whole: &Whole, bytes: Bytes, step: usize) -> Option<(Bytes, Bytes)> {
        let is_step = |now: usize, before: usize| now.abs_diff(before) >= step || now == 0 && before != 0;
        if !is_step(bytes.charged, self.bytes.charged) && !is_step(bytes.held, self.bytes.held) {
            return None;
        }
        let sums = &whole.memory.0;
        let add = |sum: &AtomicUsize, now: usize, before: usize| {
            let change = now.wrapping_sub(before);
            let old = sum.fetch_add(change, Ordering::AcqRel);
            (old, old.wrapping_add(change))
        };
        let charged = add(&sums.charged, bytes.charged, self.bytes.charged);
        let held = add(&sums.held, bytes.held, self.bytes.held);
        sums.maximum.fetch_max(charged.1, Ordering::Relaxed);
        self.bytes = bytes;
        let of = |charged, held| Bytes { charged, held };
        Some((of(charged.0, held.0), of(charged.1, held.1)))
    }

    /// What this shard has added.
    pub(crate) const fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// What the other shards keep.
    pub(crate) fn others(&self, whole: &Whole) -> Bytes {
        let all = whole.bytes();
        Bytes {
            charged: all.charged.saturating_sub(self.bytes.charged),
            held: all.held.saturating_sub(self.bytes.held),
        }
    }
}

/// By how many bytes a shard's memory must have changed before the others hear of it, for this limit and so many shards.
pub(crate) fn step(memory_bytes_max: usize, shards: u16) -> usize {
    (memory_bytes_max / ERROR_PART / usize::from(shards.max(1))).clamp(STEP_MIN, STEP_MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_place_that_is_held_is_taken_for_the_others_until_it_is_given_back() {
        let whole = Whole::default();
        let (mut here, mut there) = (Share::default(), Share::default());
        assert_eq!(here.hold_place(&whole), 0);
        assert_eq!(there.hold_place(&whole), 1);
        here.settle(&whole, 1);
        there.settle(&whole, 0);
        assert_eq!((here.hold_place(&whole), there.hold_place(&whole)), (0, 2));
        // One that takes its own Session over needs no place more, and one that ends meanwhile sets one free.
        here.settle(&whole, 1);
        there.settle(&whole, 0);
        here.set_connections(&whole, 0);
        assert_eq!(there.hold_place(&whole), 0);
        there.settle(&whole, 0);
        assert_eq!(whole.maxima().connections, 1);
    }

    #[test]
    fn a_place_in_a_listener_is_taken_for_the_others_until_it_is_given_back() {
        let whole = Whole::new(2);
        let (mut here, mut there) = (Share::default(), Share::default());
        let (one, none) = (ListenerId(1), ListenerId(9));
        assert_eq!(
            (here.hold_place_of(&whole, one), there.hold_place_of(&whole, one)),
            (0, 1)
        );
        here.settle_of(&whole, 1);
        there.settle_of(&whole, 0);
        assert_eq!(there.hold_place_of(&whole, one), 1);
        there.settle_of(&whole, 1);
        here.set_connections_of(&whole, one, 0);
        assert_eq!((here.hold_place_of(&whole, one), here.place_of()), (1, Some(one)));
        here.settle_of(&whole, 0);
        // A listener that came with a reload could not be counted; there is none.
        assert_eq!((here.hold_place_of(&whole, none), here.place_of()), (0, None));
    }

    #[test]
    fn a_failure_is_remembered_for_all_shards() {
        let whole = Whole::default();
        assert_eq!(whole.fail(Instant::from_nanos(0)), None);
        assert_eq!(whole.fail(Instant::from_nanos(5)), Some(Instant::from_nanos(1)));
        assert_eq!(whole.fail(Instant::from_nanos(9)), Some(Instant::from_nanos(5)));
    }

    #[test]
    fn no_more_are_let_in_than_may_be_whatever_the_shards_do_at_once() {
        const MAX: usize = 3;
        let whole = Whole::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (mut share, mut own) = (Share::default(), 0);
                    for round in 0..20_000 {
                        let others = share.hold_place(&whole);
                        if own + others < MAX {
                            own += 1;
                        }
                        share.settle(&whole, own);
                        if round % 3 > 0 && own > 0 {
                            own -= 1;
                            share.set_connections(&whole, own);
                        }
                    }
                    share.set_connections(&whole, 0);
                });
            }
        });
        assert_eq!(whole.connections.0.now.load(Ordering::Relaxed), 0);
        assert!((1..=MAX as u64).contains(&whole.maxima().connections));
    }

    #[test]
    fn memory_is_added_by_steps_and_taken_away_to_nothing() {
        let whole = Whole::default();
        let (mut here, there) = (Share::default(), Share::default());
        let of = |charged, held| Bytes { charged, held };
        assert_eq!(here.set_bytes(&whole, of(99, 0), 100), None);
        assert_eq!(here.set_bytes(&whole, of(100, 0), 100), Some((of(0, 0), of(100, 0))));
        assert_eq!(
            here.set_bytes(&whole, of(150, 100), 100),
            Some((of(100, 0), of(150, 100)))
        );
        assert_eq!(here.others(&whole), of(0, 0));
        assert_eq!(there.others(&whole).total(), 250);
        // Below a step, but nothing: a shard that has become idle is not counted for what it had.
        assert_eq!(
            here.set_bytes(&whole, of(150, 0), 100),
            Some((of(150, 100), of(150, 0)))
        );
        assert_eq!(here.set_bytes(&whole, of(60, 0), 100), None);
        assert_eq!(whole.maxima().memory_bytes, 150);
    }

    #[test]
    fn a_limit_that_is_met_is_met_for_all_until_one_finds_room() {
        let whole = Whole::default();
        let mut here = Share::default();
        let of = |charged| Bytes { charged, held: 0 };
        assert!(!whole.is_full() && !whole.find_room(|_| false));
        here.set_bytes(&whole, of(100), 1);
        whole.find_full();
        assert!(whole.is_full() && !whole.find_room(|bytes| bytes == of(100)));
        // It is met anew while somebody looks.
        let finds_it_met = |_| {
            whole.find_full();
            false
        };
        assert!(!whole.find_room(finds_it_met) && whole.is_full());
        assert!(whole.find_room(|_| false) && !whole.is_full());
    }

    #[test]
    fn steps_are_small_beside_the_limit() {
        assert_eq!(step(usize::MAX, 1), STEP_MAX);
        assert_eq!(step(1 << 30, 4), 1 << 20);
        assert_eq!(step(64 << 20, 4), 64 << 10);
        assert_eq!(step(1 << 20, 256), STEP_MIN);
    }
}
