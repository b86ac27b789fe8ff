//! Failures counted by key, and bans, in memory of a fixed size. Knows neither addresses nor users, and of time what it is
//! told.
//!
//! A key has its place in one of many small buckets, by a hash that nobody outside can reckon. In a full bucket the place of
//! the count that began first goes to the new key, and a ban's only where all are bans: the one that ends first. So whoever
//! has very many keys can make others' counts be forgotten, which costs a failed login for each; to lift a ban before its
//! time takes as many bans of one's own as there are places, on average.

use std::time::Duration;

/// Keys that are counted at a time: a third of a megabyte, which is asked for with the first failure.
pub(super) const KEYS_MAX: usize = 8_192;
/// Places of a bucket.
const WAYS: usize = 8;

/// When it is too much, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) failures_max: u32,
    pub(super) window: Duration,
    pub(super) ban: Duration,
}

/// Failures and bans; `T` names whose a ban is.
pub(super) struct Tally<T> {
    slots: Vec<Slot<T>>,
}

struct Slot<T> {
    /// 0 where the place is free.
    key: u64,
    /// When the window began in which `failures` were counted, in nanoseconds as all times here.
    since: u64,
    failures: u32,
    /// Those of the window before.
    failures_before: u32,
    /// The ban's end.
    until: u64,
    /// There as long as the ban has not been found to be over.
    whose: Option<Box<T>>,
}

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

impl<T> Slot<T> {
    const FREE: Self = Self {
        key: 0,
        since: 0,
        failures: 0,
        failures_before: 0,
        until: 0,
        whose: None,
    };

    /// Who must keep the place most: bans by their end, then counts by their beginning.
    const fn worth(&self, now: u64) -> (bool, u64) {
        let banned = self.until > now;
        (banned, if banned { self.until } else { self.since })
    }

    /// Counts one more failure in a sliding window: of the window before counts the part that the sliding one still covers.
    /// Whether it is one too many.
    fn fail(&mut self, now: u64, terms: &Terms) -> bool {
        let window = nanos(terms.window).max(1);
        let age = now.saturating_sub(self.since);
        if age >= window {
            self.failures_before = if age < window.saturating_mul(2) {
                self.failures
            } else {
                0
            };
            self.failures = 0;
            self.since = now - age % window;
        }
        self.failures = self.failures.saturating_add(1);
        let left = window - now.saturating_sub(self.since).min(window);
        let before = u128::from(self.failures_before) * u128::from(left) / u128::from(window);
        before + u128::from(self.failures) >= u128::from(terms.failures_max)
    }
}

impl<T> Tally<T> {
    /// Whether a key is banned.
    pub(super) fn is_banned(&self, key: u64, now: u64) -> bool {
        self.find(key).is_some_and(|slot| slot.until > now)
    }

    /// Counts a failure; whether the key is banned with it.
    pub(super) fn fail(&mut self, key: u64, now: u64, terms: &Terms, whose: impl FnOnce() -> T) -> bool {
        let slot = self.place(key, now);
        if slot.until > now || !slot.fail(now, terms) {
            return false;
        }
        *slot = Slot {
            key,
            until: now.saturating_add(nanos(terms.ban)),
            since: now,
            whose: Some(Box::new(whose())),
            ..Slot::FREE
        };
        true
    }

    /// Ends a ban; whether there was one.
    pub(super) fn lift(&mut self, key: u64, now: u64) -> bool {
        let at = self.find(key).is_some_and(|slot| slot.until > now);
        for slot in self.slots.iter_mut().filter(|slot| at && slot.key == key) {
            *slot = Slot::FREE;
        }
        at
    }

    /// Every ban, and how long it holds still.
    pub(super) fn bans(&self, now: u64) -> impl Iterator<Item = (&T, Duration)> {
        self.slots.iter().filter_map(move |slot| {
            let left = slot.until.checked_sub(now).filter(|left| *left > 0)?;
            Some((slot.whose.as_deref()?, Duration::from_nanos(left)))
        })
    }

    fn bucket(key: u64) -> usize {
        let buckets = (KEYS_MAX / WAYS) as u64;
        usize::try_from(key % buckets).unwrap_or(0) * WAYS
    }

    fn find(&self, key: u64) -> Option<&Slot<T>> {
        let at = Self::bucket(key);
        self.slots.get(at..at + WAYS)?.iter().find(|slot| slot.key == key)
    }

    /// The place of a key: its own, or another's who has the least claim to it.
    fn place(&mut self, key: u64, now: u64) -> &mut Slot<T> {
        if self.slots.is_empty() {
            self.slots.resize_with(KEYS_MAX, || Slot::FREE);
        }
        let at = Self::bucket(key);
        let bucket = &self.slots[at..at + WAYS];
        let own = bucket.iter().position(|slot| slot.key == key);
        let least = || (0..WAYS).min_by_key(|way| bucket[*way].worth(now));
        let way = own.or_else(least).unwrap_or(0);
        let slot = &mut self.slots[at + way];
        if slot.key != key {
            *slot = Slot {
                key,
                since: now,
                ..Slot::FREE
            };
        } else if slot.until <= now {
            slot.whose = None;
        }
        slot
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Pairs that were seen, in memory of a fixed size: of those that fall together the one goes that was not seen for longest.
#[derive(Default)]
pub(super) struct Seen {
    keys: Vec<u64>,
}

impl Seen {
    /// Half a megabyte, which is touched as it fills.
    const KEYS_MAX: usize = 65_536;

    pub(super) fn has(&self, key: u64) -> bool {
        let at = Self::bucket(key);
        self.keys.get(at..at + WAYS).is_some_and(|keys| keys.contains(&key))
    }

    pub(super) fn note(&mut self, key: u64) {
        if self.keys.is_empty() {
            self.keys = vec![0; Self::KEYS_MAX];
        }
        let at = Self::bucket(key);
        let keys = &mut self.keys[at..at + WAYS];
        let end = keys.iter().position(|known| *known == key).unwrap_or(WAYS - 1);
        keys[..=end].rotate_right(1);
        keys[0] = key;
    }

    fn bucket(key: u64) -> usize {
        let buckets = (Self::KEYS_MAX / WAYS) as u64;
        usize::try_from(key % buckets).unwrap_or(0) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const TERMS: Terms = Terms {
        failures_max: 5,
        window: Duration::from_secs(10),
        ban: Duration::from_secs(30),
    };

    fn fail(tally: &mut Tally<u64>, key: u64, second: u64) -> bool {
        tally.fail(key, second * SECOND, &TERMS, || key)
    }

    fn fail_often(tally: &mut Tally<u64>, key: u64, second: u64) {
        for _ in 0..TERMS.failures_max {
            fail(tally, key, second);
        }
    }

    /// The last failure that is allowed bans for the time that was said, no sooner and no longer; afterwards the count begins
    /// anew.
    #[test]
    fn a_ban_begins_and_ends() {
        let mut tally = Tally::default();
        assert!((0..4).all(|second| !fail(&mut tally, 1, second)));
        assert!(!tally.is_banned(1, 4 * SECOND));
        assert!(fail(&mut tally, 1, 4));
        assert!(tally.is_banned(1, 34 * SECOND - 1) && !tally.is_banned(1, 34 * SECOND));
        assert!(!tally.is_banned(2, 5 * SECOND));
        let bans: Vec<_> = tally.bans(5 * SECOND).collect();
        assert_eq!(bans, [(&1, Duration::from_secs(29))]);
        assert!(!fail(&mut tally, 1, 5), "a failure that was under way adds nothing");
        assert_eq!(tally.bans(34 * SECOND).count(), 0);
        assert!((34..38).all(|second| !fail(&mut tally, 1, second)));
        assert!(fail(&mut tally, 1, 38));
    }

    /// The window slides: as many failures as are allowed are too many wherever they lie in it, and as many are not where
    /// they lie further apart.
    #[test]
    fn the_window_slides() {
        let mut tally = Tally::default();
        // Four at the end of one window, four at the beginning of the next.
        let late = [0, 7, 8, 9].map(|second| fail(&mut tally, 1, second));
        assert_eq!(late, [false; 4]);
        assert!(!fail(&mut tally, 1, 14), "2.4 and 1");
        assert!(!fail(&mut tally, 1, 14), "2.4 and 2");
        assert!(fail(&mut tally, 1, 14), "2.4 and 3");
        assert!(
            (0..1_000).all(|n| !fail(&mut tally, 2, 3 * n)),
            "one in three seconds is never too many"
        );
        assert!((0..1_000).any(|n| fail(&mut tally, 3, 2 * n)), "one in two seconds is");
        // A window that nothing happened in is forgotten.
        assert!((0..4).all(|_| !fail(&mut tally, 4, 100)));
        assert!((0..4).all(|_| !fail(&mut tally, 4, 121)));
    }

    /// A ban that is lifted is none; one that is over cannot be.
    #[test]
    fn lifted() {
        let mut tally = Tally::default();
        fail_often(&mut tally, 1, 0);
        assert!(tally.lift(1, SECOND) && !tally.lift(1, SECOND) && !tally.lift(2, SECOND));
        assert!(!tally.is_banned(1, SECOND) && tally.bans(SECOND).count() == 0);
        fail_often(&mut tally, 1, 2);
        assert!(tally.is_banned(1, 3 * SECOND) && !tally.lift(1, 40 * SECOND));
    }

    /// A million keys take no more memory than a few, and end no ban; nor do ten times as many bans as there are places of a
    /// bucket, elsewhere. Where all places are bans, the one goes that ends first.
    #[test]
    fn many_keys() {
        let mut tally = Tally::default();
        let banned = 7;
        fail_often(&mut tally, banned, 0);
        for key in 1_000..1_001_000 {
            fail(&mut tally, key, 1);
        }
        assert_eq!(tally.slots.len(), KEYS_MAX);
        assert!(tally.is_banned(banned, 2 * SECOND));
        let buckets = (KEYS_MAX / WAYS) as u64;
        let alike = |n: u64| banned + n * buckets;
        for n in 1..WAYS as u64 {
            fail_often(&mut tally, alike(n), 2);
        }
        assert!((0..WAYS as u64).all(|n| tally.is_banned(alike(n), 3 * SECOND)));
        fail(&mut tally, alike(100), 3);
        assert!(!tally.is_banned(banned, 3 * SECOND) && tally.is_banned(alike(1), 3 * SECOND));
    }

    /// What was seen last is known; what was not seen for longest gives way, and the memory stays as it is.
    #[test]
    fn seen() {
        let mut seen = Seen::default();
        assert!(!seen.has(1));
        let buckets = (Seen::KEYS_MAX / WAYS) as u64;
        let alike = |n: u64| 1 + n * buckets;
        (0..WAYS as u64).for_each(|n| seen.note(alike(n)));
        seen.note(alike(0));
        seen.note(alike(100));
        assert!(seen.has(alike(0)) && !seen.has(alike(1)) && seen.has(alike(2)) && seen.has(alike(100)));
        assert_eq!(seen.keys.len(), Seen::KEYS_MAX);
    }
}
