//! The one place that asks what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sol_engine::{Now, UnixMillis};

/// Both clocks of the process. Copies of one clock agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What time it is, monotonic and on the wall.
    #[must_use]
    pub fn now(&self) -> Now {
        // 2^64 ns are 584 years of uptime, and a wall clock before 1970 reads as 1970: neither is worth an error.
        let mono = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: sol_engine::Instant::from_nanos(mono),
            wall: UnixMillis::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_goes_back_and_the_wall_clock_is_in_this_century() {
        // The engine compares instants of different turns, and expiry is wall-clock time.
        let clock = Clock::start();
        let first = clock.now();
        let second = clock.now();
        assert!(second.mono >= first.mono);
        assert!(first.wall > UnixMillis::from_millis(1_700_000_000_000));
    }
}
