//! Time as data. The engine never asks for it: every input brings its [`Now`].

use core::time::Duration;

/// A point of the monotonic clock, in nanoseconds since an arbitrary start
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This instant moved by `duration`, or the end of time when that lies beyond it.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This instant moved back by `duration`, or the clock's start when that lies before it.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A point of the wall clock, in milliseconds since the Unix epoch. Message expiry lives on it, and so does the moment
/// since which a Session has been away as it is recorded, because they go on while the broker is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// Later than every moment that is ever compared with it.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment and `seconds` more.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds as u64 * 1_000))
    }

    /// Whole seconds from `now` to this moment, rounded up, so that what has not expired never reads 0.
    #[must_use]
    pub fn seconds_from(self, now: Self) -> u32 {
        u32::try_from(self.0.saturating_sub(now.0).div_ceil(1_000)).unwrap_or(u32::MAX)
    }
}

/// What time it is, on both clocks: [`Instant`] for what must not jump (Keep Alive, and Session expiry and Will Delay
/// while the process lives), [`UnixMillis`] for what must outlive it (message expiry, and for how long a Session has been
/// away when it is restored).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Instant,
    /// The wall clock.
    pub wall: UnixMillis,
}

/// The moment `seconds` from now.
pub(crate) fn after(now: Now, seconds: u32) -> Instant {
    now.mono.saturating_add(Duration::from_secs(u64::from(seconds)))
}
