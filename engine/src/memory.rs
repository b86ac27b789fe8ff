//! What is kept is charged: `charge` and `refund` are the only way in and out.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::input::Level;

/// Bytes charged for a Session beyond what hangs on it.
pub(crate) const SESSION_BYTES: usize = 256;
/// Bytes charged for a Subscription beyond its filter's text.
pub(crate) const SUBSCRIPTION_BYTES: usize = 96;
/// Bytes charged for a retained message beyond itself and its topic as a key.
pub(crate) const RETAINED_BYTES: usize = 64;
/// Bytes charged for a Will beyond what it says.
pub(crate) const WILL_BYTES: usize = 96;
/// Bytes charged for a reference to a message.
pub(crate) const REFERENCE_BYTES: usize = 64;

/// A shard's account.
#[derive(Debug)]
pub(crate) struct Memory {
    used: usize,
    /// What all together may use.
    max: usize,
    /// What others use of it.
    elsewhere: usize,
    /// What is left of it for this shard.
    share: usize,
    peak: usize,
    /// Pressure from outside: the journal's disk, the process.
    pub(crate) outside: Level,
    full: bool,
}

impl Memory {
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            used: 0,
            max,
            elsewhere: 0,
            share: max,
            peak: 0,
            outside: Level::Normal,
            full: false,
        }
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.settle();
    }

    /// Of the limit others use this much.
    pub(crate) fn set_elsewhere(&mut self, bytes: usize) {
        self.elsewhere = bytes;
        self.settle();
    }

    fn settle(&mut self) {
        // Without a limit it does not matter how much others use.
        self.share = if self.max == usize::MAX {
            usize::MAX
        } else {
            self.max.saturating_sub(self.elsewhere)
        };
        self.full |= self.used > self.share;
    }

    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    pub(crate) const fn peak(&self) -> usize {
        self.peak
    }

    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
        self.full |= self.used > self.share;
    }

    #[inline]
    pub(crate) const fn refund(&mut self, bytes: usize) {
        debug_assert!(self.used >= bytes, "refunded more than was charged");
        self.used = self.used.saturating_sub(bytes);
    }

    /// Whether nothing more may be kept. Once full, it stays so until a twentieth is free, so that it does not flutter.
    pub(crate) const fn is_full(&mut self) -> bool {
        self.full &= !self.has_room();
        self.full || matches!(self.outside, Level::Full)
    }

    /// What [`is_full`](Self::is_full) would say.
    pub(crate) const fn would_be_full(&self) -> bool {
        self.has_met_max() || matches!(self.outside, Level::Full)
    }

    /// The same, pressure from outside left out.
    pub(crate) const fn has_met_max(&self) -> bool {
        self.full && !self.has_room()
    }

    const fn has_room(&self) -> bool {
        self.used < self.share.saturating_sub(self.max / 20)
    }
}
