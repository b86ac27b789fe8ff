//! How fast something may come: one second's worth at once, and never more than the rate over any longer time.
//!
//! A rate is kept as a moment: when all that has come would have been due, had it come evenly. Each message moves it on by
//! its part of a second, and whoever is ahead of the clock waits. So there is nothing to refill, and nobody is looked at who
//! sends nothing.

use core::num::NonZeroU32;
use std::time::Duration;

use sol_engine::{ConnectionId, Instant};

const SECOND: u64 = 1_000_000_000;
/// What may come at once after a silence.
const BURST: u64 = SECOND;
/// Whoever is held up waits for so much more than it owes, so that it goes on with more than one message.
const SLICE: u64 = SECOND / 10;
/// Nobody waits longer, whatever it owes: the rest is forgiven. Below the time for which a connection may be paused.
const WAIT_MAX: u64 = 20 * SECOND;

/// How much one client may send a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Packets, but for acknowledgements, which answer what we have sent.
    pub messages_max: Option<NonZeroU32>,
    /// Bytes of packets. At least [`Rates::BYTES_MIN`], or a single read could owe more than anybody waits for.
    pub bytes_max: Option<NonZeroU32>,
}

impl Rates {
    /// The least [`Rates::bytes_max`] that is kept exactly.
    pub const BYTES_MIN: u32 = 4 << 10;

    const fn is_limited(&self) -> bool {
        self.messages_max.is_some() || self.bytes_max.is_some()
    }
}

/// When so much of something is due that comes evenly at a rate.
const fn time_of(amount: u64, rate: NonZeroU32) -> u64 {
    amount.saturating_mul(SECOND) / rate.get() as u64
}

/// What one client has sent.
#[derive(Clone, Copy, Debug)]
struct Meter {
    connection: ConnectionId,
    /// When its messages were due, and its bytes, in nanoseconds.
    messages_at: u64,
    bytes_at: u64,
    /// Bytes at the front of what is kept of it that were counted already: a part of a packet.
    counted: usize,
}

impl Meter {
    /// A new client has a slice to begin with, or who comes again and again would have a second's worth each time.
    const fn new(connection: ConnectionId, now: u64) -> Self {
        let at = now.saturating_sub(SLICE);
        Self {
            connection,
            messages_at: at,
            bytes_at: at,
            counted: 0,
        }
    }

    /// Counts, and gives how long the client has to wait, if it has.
    fn count(&mut self, rates: &Rates, now: u64, messages: u64, bytes: u64) -> Option<Duration> {
        let add = |at: &mut u64, rate: Option<NonZeroU32>, amount| {
            let Some(rate) = rate else { return };
            let since = (*at).max(now.saturating_sub(BURST));
            *at = since
                .saturating_add(time_of(amount, rate))
                .min(now.saturating_add(WAIT_MAX));
        };
        add(&mut self.messages_at, rates.messages_max, messages);
        add(&mut self.bytes_at, rates.bytes_max, bytes);
        let due = |at, rate: Option<NonZeroU32>| if rate.is_some() { at } else { 0 };
        let at = due(self.messages_at, rates.messages_max).max(due(self.bytes_at, rates.bytes_max));
        let owed = at.saturating_sub(now);
        (owed > 0).then(|| Duration::from_nanos(owed.saturating_add(SLICE).min(WAIT_MAX)))
    }
}

/// What the clients of a shard have sent, of those that have a limit.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// By listener; empty where none has a limit.
    rates: Vec<Rates>,
    /// By the slot of a connection.
    meters: Vec<Option<Meter>>,
}

impl Meters {
    pub(crate) fn new(rates: impl Iterator<Item = Rates>) -> Self {
        let mut meters = Self::default();
        meters.set(rates);
        meters
    }

    /// Other rates are in force, by listener.
    pub(crate) fn set(&mut self, rates: impl Iterator<Item = Rates>) {
        self.rates = rates.collect();
        if !self.rates.iter().any(Rates::is_limited) {
            *self = Self::default();
        }
    }

    /// Whether nobody has a limit.
    #[inline]
    pub(crate) const fn are_off(&self) -> bool {
        self.rates.is_empty()
    }

    /// The rates of a listener's clients, if they have any.
    pub(crate) fn rates_of(&self, listener: u16) -> Option<Rates> {
        let rates = self.rates.get(usize::from(listener)).copied();
        rates.filter(Rates::is_limited)
    }

    /// Counts a packet of `len` bytes that has arrived whole.
    pub(crate) fn count_packet(
        &mut self,
        id: ConnectionId,
        rates: &Rates,
        now: Instant,
        is_message: bool,
        len: usize,
    ) -> Option<Duration> {
        let now = now.as_nanos();
        let meter = self.meter(id, now)?;
        let bytes = len.saturating_sub(std::mem::take(&mut meter.counted));
        meter.count(rates, now, u64::from(is_message), bytes as u64)
    }

    /// Counts the part of a packet of which `len` bytes have arrived.
    pub(crate) fn count_part(&mut self, id: ConnectionId, rates: &Rates, now: Instant, len: usize) -> Option<Duration> {
        let now = now.as_nanos();
        let meter = self.meter(id, now)?;
        let bytes = len.saturating_sub(meter.counted);
        meter.counted = len;
        meter.count(rates, now, 0, bytes as u64)
    }

    fn meter(&mut self, id: ConnectionId, now: u64) -> Option<&mut Meter> {
        let slot = id.slot();
        if slot >= self.meters.len() {
            self.meters.resize(slot.saturating_add(1), None);
        }
        let place = self.meters.get_mut(slot)?;
        let known = place.filter(|meter| meter.connection == id);
        Some(place.insert(known.unwrap_or_else(|| Meter::new(id, now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(generation: u32) -> ConnectionId {
        ConnectionId::new(3, NonZeroU32::new(generation).unwrap())
    }

    fn rates(messages: u32, bytes: u32) -> Rates {
        Rates {
            messages_max: NonZeroU32::new(messages),
            bytes_max: NonZeroU32::new(bytes),
        }
    }

    /// Sends as fast as it may for so long; gives how much was taken and the longest wait.
    fn flood(rates: &Rates, len: usize, time: Duration) -> (u64, Duration) {
        let mut meters = Meters::new([*rates].into_iter());
        let mut now = Instant::from_nanos(5 * SECOND);
        let end = now.saturating_add(time);
        let (mut taken, mut longest) = (0, Duration::ZERO);
        while now < end {
            taken += 1;
            if let Some(wait) = meters.count_packet(id(1), rates, now, true, len) {
                longest = longest.max(wait);
                now = now.saturating_add(wait);
            }
        }
        (taken, longest)
    }

    #[test]
    fn over_any_time_no_more_is_taken_than_the_rate_and_what_may_come_at_once() {
        let time = Duration::from_secs(60);
        for rate in [1, 7, 100, 10_000, 1_000_000] {
            let (taken, longest) = flood(&rates(rate, 0), 10, time);
            let (least, most) = (u64::from(rate) * 60, u64::from(rate) * 61 + 2);
            assert!((least..=most).contains(&taken), "{rate}: {taken}");
            assert!(longest <= Duration::from_millis(1_101), "{rate}: {longest:?}");
        }
        let (taken, longest) = flood(&rates(0, 4_096), 1_024, time);
        assert!((240..=245).contains(&taken), "{taken}");
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }

    #[test]
    fn the_stricter_of_two_rates_counts() {
        let time = Duration::from_secs(10);
        assert!(flood(&rates(10, 1 << 20), 100, time).0 <= 112);
        assert!(flood(&rates(1_000_000, 10_000), 100, time).0 <= 1_102);
    }

    #[test]
    fn nobody_waits_longer_than_a_connection_may_be_paused() {
        let rates = rates(0, 1);
        let mut meters = Meters::new([rates].into_iter());
        let wait = meters.count_packet(id(1), &rates, Instant::default(), true, usize::MAX);
        assert_eq!(wait, Some(Duration::from_nanos(WAIT_MAX)));
    }

    #[test]
    fn the_bytes_of_a_packet_that_comes_in_parts_are_counted_once() {
        let rates = rates(0, 1_000);
        let mut meters = Meters::new([rates].into_iter());
        let now = Instant::from_nanos(SECOND);
        assert_eq!(meters.count_part(id(1), &rates, now, 60), None);
        assert_eq!(meters.count_part(id(1), &rates, now, 60), None);
        assert_eq!(meters.count_part(id(1), &rates, now, 100), None);
        // A tenth of a second's worth is used up, and not a byte more.
        assert_eq!(meters.count_packet(id(1), &rates, now, true, 100), None);
        let owed = Duration::from_millis(10);
        let slice = Duration::from_nanos(SLICE);
        assert_eq!(meters.count_packet(id(1), &rates, now, true, 10), Some(owed + slice));
    }

    #[test]
    fn who_comes_again_begins_anew_with_a_slice() {
        let rates = rates(100, 0);
        let mut meters = Meters::new([rates].into_iter());
        let now = Instant::from_nanos(50 * SECOND);
        for generation in 1..4 {
            for _ in 0..10 {
                assert_eq!(meters.count_packet(id(generation), &rates, now, true, 5), None);
            }
            assert!(meters.count_packet(id(generation), &rates, now, true, 5).is_some());
        }
    }

    #[test]
    fn acknowledgements_are_no_messages() {
        let rates = rates(1, 0);
        let mut meters = Meters::new([rates].into_iter());
        for _ in 0..1_000 {
            let now = Instant::from_nanos(SECOND);
            assert_eq!(meters.count_packet(id(1), &rates, now, false, 4), None);
        }
    }

    #[test]
    fn without_a_limit_there_is_nothing_to_look_at() {
        assert!(Meters::new([Rates::default(); 3].into_iter()).are_off());
        let mut some = Meters::new([Rates::default(), rates(1, 0)].into_iter());
        assert!(!some.are_off());
        assert_eq!((some.rates_of(0), some.rates_of(1)), (None, Some(rates(1, 0))));
        some.set([Rates::default()].into_iter());
        assert!(some.are_off());
    }
}
