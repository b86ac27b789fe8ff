//! Deadlines, each with a reason: one hierarchical wheel for everything a shard waits for.
//!
//! Not a clock and not a scheduler: the caller says what time it is, and asks what has become due.
//!
//! Time is cut into ticks of 8.4 ms. Seven levels of 64 places cover all of an [`Instant`]: level 0 holds the
//! deadlines that differ from the current tick in its lowest six bits only, level 1 those that differ in the next six,
//! and so on. When the current tick reaches the start of a place above level 0, its entries move down; an entry moves
//! at most six times in its life, however far its deadline is.
//!
//! ```text
//!  insert ──► level 6 ─► … ─► level 1 ─► level 0 ──► due ──► pop_due
//!         └──────────────────────┴──────────┴────────┘
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;
use core::num::NonZeroU32;

use crate::tight;
use crate::time::Instant;

/// Nanoseconds per tick: a power of two below 10 ms, so that a division is a shift.
const TICK: u64 = 1 << 23;
/// Bits of the tick number that one level resolves.
const LEVEL_BITS: u32 = 6;
const LEVELS: usize = 7;
const PLACES_PER_LEVEL: usize = 1 << LEVEL_BITS;
/// The list of entries that are due already: one place more than the levels have.
const DUE: u16 = (LEVELS * PLACES_PER_LEVEL) as u16;
const NONE: u32 = u32::MAX;

/// Names one deadline of a [`TimerWheel`]. Harmless once the deadline was popped or cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey {
    slot: u32,
    generation: NonZeroU32,
}

/// Deadlines with a reason of type `R` each.
pub(crate) struct TimerWheel<R> {
    entries: Vec<Entry<R>>,
    /// First vacant entry; the others follow through `next`.
    vacant: u32,
    len: usize,
    /// The latest moment that the caller told.
    now: Instant,
    /// The tick that the levels are arranged around: never after `now`.
    current: u64,
    /// One bit per place that has entries.
    occupied: [u64; LEVELS],
    /// First entry of each place; a place is a ring through `next` and `previous`.
    heads: Box<[u32; DUE as usize + 1]>,
}

struct Entry<R> {
    reason: R,
    /// First tick at which the deadline has passed.
    tick: u64,
    next: u32,
    previous: u32,
    generation: NonZeroU32,
    place: u16,
}

impl<R: Copy> TimerWheel<R> {
    /// An empty wheel at the moment `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            entries: Vec::new(),
            vacant: NONE,
            len: 0,
            now,
            current: now.as_nanos() / TICK,
            occupied: [0; LEVELS],
            heads: Box::new([NONE; DUE as usize + 1]),
        }
    }

    /// How many deadlines wait, the due ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a deadline. One that has passed already is handed out by the next [`pop_due`](Self::pop_due).
    pub(crate) fn insert(&mut self, deadline: Instant, reason: R) -> TimerKey {
        let tick = deadline.as_nanos().div_ceil(TICK);
        let place = if deadline <= self.now { DUE } else { self.place_of(tick) };
        let slot = self.occupy(reason, tick);
        self.link(slot, place);
        self.len += 1;
        TimerKey {
            slot,
            generation: self.entry(slot).generation,
        }
    }

    /// Removes a deadline; false when it was popped or cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> bool {
        let known = self
            .entries
            .get(key.slot as usize)
            .is_some_and(|entry| entry.generation == key.generation);
        if known {
            self.remove(key.slot);
        }
        known
    }

    /// Takes one deadline that has passed at `now`: never one that has not, and none later than a tick (8.4 ms) after
    /// it passed. Call until `None`. A `now` before an earlier one counts as that earlier one.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<R> {
        self.now = self.now.max(now);
        let target = self.now.as_nanos() / TICK;
        loop {
            let due = self.head(DUE);
            if due != NONE {
                return Some(self.remove(due));
            }
            let Some((start, place)) = self.next_place().filter(|&(start, _)| start <= target) else {
                self.current = target;
                return None;
            };
            self.current = start;
            self.cascade(place);
        }
    }

    /// When to call [`pop_due`](Self::pop_due) next: at or before the moment at which the earliest deadline is handed
    /// out. A call at that moment hands something out or moves this moment on, so a loop around both does not spin.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.head(DUE) != NONE {
            return Some(self.now);
        }
        self.next_place()
            .map(|(start, _)| Instant::from_nanos(start.saturating_mul(TICK)))
    }

    /// The first place with entries, and the tick at which it begins. A lower level ends before the next place of a
    /// higher one begins, and within a level the places are in order of time, so this is the earliest.
    fn next_place(&self) -> Option<(u64, u16)> {
        let (level, places) = self.occupied.iter().enumerate().find(|&(_, &places)| places != 0)?;
        let place = u64::from(places.trailing_zeros());
        let shift = LEVEL_BITS * level as u32;
        let around = self.current >> (shift + LEVEL_BITS) << LEVEL_BITS;
        Some((
            (around | place) << shift,
            (level * PLACES_PER_LEVEL) as u16 + place as u16,
        ))
    }

    fn place_of(&self, tick: u64) -> u16 {
        if tick <= self.current {
            return DUE;
        }
        let level = (tick ^ self.current).ilog2() / LEVEL_BITS;
        let place = (tick >> (level * LEVEL_BITS)) as u16 & (PLACES_PER_LEVEL as u16 - 1);
        level as u16 * PLACES_PER_LEVEL as u16 + place
    }

    /// Moves every entry of `place`, which the current tick has reached, to a lower level or among the due.
    fn cascade(&mut self, place: u16) {
        loop {
            let slot = self.head(place);
            if slot == NONE {
                return;
            }
            self.unlink(slot);
            let lower = self.place_of(self.entry(slot).tick);
            self.link(slot, lower);
        }
    }

    fn occupy(&mut self, reason: R, tick: u64) -> u32 {
        if self.vacant == NONE {
            let slot = self.entries.len() as u32;
            let generation = NonZeroU32::MIN;
            tight::push(
                &mut self.entries,
                Entry {
                    reason,
                    tick,
                    next: NONE,
                    previous: NONE,
                    generation,
                    place: DUE,
                },
            );
            return slot;
        }
        let slot = self.vacant;
        let entry = self.entry_mut(slot);
        entry.reason = reason;
        entry.tick = tick;
        self.vacant = entry.next;
        slot
    }

    fn remove(&mut self, slot: u32) -> R {
        self.unlink(slot);
        self.len -= 1;
        let vacant = mem::replace(&mut self.vacant, slot);
        let entry = self.entry_mut(slot);
        entry.generation = entry.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        entry.next = vacant;
        entry.reason
    }

    /// Appends to the ring of `place`, so that what was inserted first is handed out first.
    fn link(&mut self, slot: u32, place: u16) {
        let head = self.head(place);
        let (next, previous) = if head == NONE {
            (slot, slot)
        } else {
            (head, self.entry(head).previous)
        };
        let entry = self.entry_mut(slot);
        entry.place = place;
        entry.next = next;
        entry.previous = previous;
        self.entry_mut(previous).next = slot;
        self.entry_mut(next).previous = slot;
        if head == NONE {
            *self.head_mut(place) = slot;
            self.mark(place, true);
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Entry {
            next, previous, place, ..
        } = *self.entry(slot);
        if next == slot {
            *self.head_mut(place) = NONE;
            self.mark(place, false);
            return;
        }
        self.entry_mut(previous).next = next;
        self.entry_mut(next).previous = previous;
        if self.head(place) == slot {
            *self.head_mut(place) = next;
        }
    }

    fn mark(&mut self, place: u16, occupied: bool) {
        let bit = 1 << (usize::from(place) % PLACES_PER_LEVEL);
        // The list of the due has no level, hence no bit.
        if let Some(level) = self.occupied.get_mut(usize::from(place) / PLACES_PER_LEVEL) {
            *level = if occupied { *level | bit } else { *level & !bit };
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "slots come from `occupy`, and no entry is ever taken out of the vector"
    )]
    fn entry(&self, slot: u32) -> &Entry<R> {
        &self.entries[slot as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "as of `entry`")]
    fn entry_mut(&mut self, slot: u32) -> &mut Entry<R> {
        &mut self.entries[slot as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a place is `DUE` or a level below 7 with a place below 64: see `place_of` and `next_place`"
    )]
    fn head(&self, place: u16) -> u32 {
        self.heads[usize::from(place)]
    }

    #[expect(clippy::indexing_slicing, reason = "as of `head`")]
    fn head_mut(&mut self, place: u16) -> &mut u32 {
        &mut self.heads[usize::from(place)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// The obviously right wheel: a list, searched from end to end.
    #[derive(Default)]
    struct Naive(Vec<(u64, u32)>);

    impl Naive {
        fn remove(&mut self, reason: u32) -> Option<u64> {
            let at = self.0.iter().position(|&(_, r)| r == reason)?;
            Some(self.0.swap_remove(at).0)
        }

        fn earliest(&self) -> Option<u64> {
            self.0.iter().map(|&(deadline, _)| deadline).min()
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
        AdvanceToDeadline,
    }

    fn op() -> impl Strategy<Value = Op> {
        let span = || prop_oneof![0..3 * TICK, 0..100 * SECOND, 0..u64::from(u32::MAX) * SECOND];
        prop_oneof![
            4 => span().prop_map(Op::Insert),
            2 => any::<usize>().prop_map(Op::Cancel),
            2 => span().prop_map(Op::Advance),
            2 => Just(Op::AdvanceToDeadline),
        ]
    }

    /// Stops short of the end of time, six centuries away, whose last tick never begins.
    fn later(now: u64, by: u64) -> u64 {
        now.saturating_add(by).min(u64::MAX - 2 * TICK)
    }

    /// Pops everything that is due and checks it against the twin.
    fn drain(wheel: &mut TimerWheel<u32>, naive: &mut Naive, now: u64) {
        while let Some(reason) = wheel.pop_due(Instant(now)) {
            let deadline = naive.remove(reason).expect("popped twice, or after it was cancelled");
            assert!(deadline <= now, "early");
        }
        assert!(
            naive.earliest().is_none_or(|deadline| deadline + TICK > now),
            "late by more than a tick"
        );
        assert_eq!(wheel.len(), naive.0.len());
    }

    proptest! {
        /// Whatever is inserted and not cancelled comes out once, never early, and at most a tick late; and the wheel
        /// names a next moment that is never later than that, and passes when acted on.
        #[test]
        fn the_wheel_agrees_with_a_list(start in 0..u64::MAX / 4, ops in prop::collection::vec(op(), 1..80)) {
            let (mut now, mut reason) = (start, 0);
            let (mut wheel, mut naive, mut keys) = (TimerWheel::new(Instant(now)), Naive::default(), Vec::new());
            for op in ops {
                match op {
                    Op::Insert(after) => {
                        let deadline = later(now, after);
                        keys.push((wheel.insert(Instant(deadline), reason), reason));
                        naive.0.push((deadline, reason));
                        reason += 1;
                    }
                    Op::Cancel(which) if !keys.is_empty() => {
                        let (key, reason) = keys[which % keys.len()];
                        prop_assert_eq!(wheel.cancel(key), naive.remove(reason).is_some());
                        prop_assert!(!wheel.cancel(key));
                    }
                    Op::Cancel(_) => {}
                    Op::Advance(by) => {
                        now = later(now, by);
                        drain(&mut wheel, &mut naive, now);
                    }
                    Op::AdvanceToDeadline => {
                        let before = wheel.next_deadline();
                        prop_assert_eq!(before.is_some(), wheel.len() > 0);
                        now = now.max(before.map_or(now, Instant::as_nanos));
                        drain(&mut wheel, &mut naive, now);
                        prop_assert!(before.is_none() || wheel.next_deadline() != before || wheel.len() == 0);
                    }
                }
                let bound = wheel.next_deadline().map(Instant::as_nanos);
                prop_assert_eq!(bound.is_some(), naive.earliest().is_some());
                if let (Some(bound), Some(earliest)) = (bound, naive.earliest()) {
                    prop_assert!(bound <= earliest.max(now) + TICK);
                }
            }
        }
    }

    /// A Session Expiry Interval just below "never" is 136 years, and is kept to the tick.
    #[test]
    fn the_farthest_session_expiry_fires_on_time() {
        let mut wheel = TimerWheel::new(Instant(5));
        let deadline = Instant(5 + u64::from(u32::MAX) * SECOND);
        wheel.insert(deadline, 'x');
        let mut wakes = 0;
        while let Some(now) = wheel.next_deadline() {
            let popped = wheel.pop_due(now);
            assert_eq!(popped.is_some(), now >= deadline);
            wakes += 1;
        }
        assert!(wakes <= LEVELS);
    }

    /// What is due at once is handed out at once, in the order in which it was inserted.
    #[test]
    fn passed_deadlines_come_out_in_order_of_insertion() {
        let mut wheel = TimerWheel::new(Instant(3 * TICK + 7));
        for reason in 0..3 {
            wheel.insert(Instant(3 * TICK + 7 - reason), reason);
        }
        assert_eq!(wheel.next_deadline(), Some(Instant(3 * TICK + 7)));
        for reason in 0..3 {
            assert_eq!(wheel.pop_due(Instant(3 * TICK + 7)), Some(reason));
        }
        assert_eq!(
            (wheel.pop_due(Instant(3 * TICK + 7)), wheel.next_deadline()),
            (None, None)
        );
    }

    /// A deadline with a reason of eight bytes costs 32 bytes, and an optional key no more than a key.
    #[test]
    fn entries_and_keys_are_small() {
        assert_eq!(size_of::<Entry<u64>>(), 32);
        assert_eq!(size_of::<Option<TimerKey>>(), 8);
    }
}
