//! Connections that may take so long and no longer.

use std::collections::VecDeque;
use std::time::Duration;

use sol_engine::{ConnectionId, Instant};

/// A waiting room: everybody in it may stay equally long, so whoever came first leaves first and no heap is needed.
///
/// Nobody is taken out early. Who leaves at the end may long have got what it waited for, so the caller asks whether it
/// still waits; [`Waiting::skip`] keeps those from piling up at the front.
#[derive(Debug)]
pub(crate) struct Waiting {
    stay: Duration,
    queue: VecDeque<(Instant, ConnectionId)>,
}

impl Waiting {
    pub(crate) const fn new(stay: Duration) -> Self {
        Self {
            stay,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, now: Instant, connection: ConnectionId) {
        self.queue.push_back((now.saturating_add(self.stay), connection));
    }

    /// When the first one's time is up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|&(deadline, _)| deadline)
    }

    /// Takes one whose time is up.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<ConnectionId> {
        self.queue
            .pop_front_if(|(deadline, _)| *deadline <= now)
            .map(|(_, connection)| connection)
    }

    /// Takes the one that has waited longest of those that are `meant`, if it was there at `since`.
    pub(crate) fn first(&mut self, since: Instant, meant: impl FnMut(ConnectionId) -> bool) -> Option<ConnectionId> {
        let at = self.position(since, meant)?;
        self.queue.remove(at).map(|(_, connection)| connection)
    }

    /// Whether there is one to be taken.
    pub(crate) fn has_first(&self, since: Instant, meant: impl FnMut(ConnectionId) -> bool) -> bool {
        self.position(since, meant).is_some()
    }

    fn position(&self, since: Instant, mut meant: impl FnMut(ConnectionId) -> bool) -> Option<usize> {
        let since = since.saturating_add(self.stay);
        self.queue
            .iter()
            .take_while(|&&(deadline, _)| deadline <= since)
            .position(|&(_, connection)| meant(connection))
    }

    /// Forgets those at the front that do not wait any more.
    pub(crate) fn skip(&mut self, mut waits: impl FnMut(ConnectionId) -> bool) {
        while self.queue.pop_front_if(|(_, connection)| !waits(*connection)).is_some() {}
        if self.queue.is_empty() && self.queue.capacity() > 1_024 {
            self.queue.shrink_to(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;

    use super::*;

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId::new(slot, NonZeroU32::MIN)
    }

    #[test]
    fn whoever_came_first_leaves_first_and_not_before_the_time() {
        // A limit of time is neither cut short nor overstayed.
        let mut waiting = Waiting::new(Duration::from_nanos(10));
        waiting.push(Instant::from_nanos(1), connection(1));
        waiting.push(Instant::from_nanos(3), connection(2));
        assert_eq!(waiting.next_deadline(), Some(Instant::from_nanos(11)));
        assert_eq!(waiting.expired(Instant::from_nanos(10)), None);
        assert_eq!(waiting.expired(Instant::from_nanos(12)), Some(connection(1)));
        assert_eq!(waiting.expired(Instant::from_nanos(12)), None);
        let now = Instant::from_nanos(12);
        assert_eq!(waiting.first(now, |id| id == connection(3)), None);
        assert_eq!(waiting.first(Instant::from_nanos(2), |_| true), None);
        assert!(!waiting.has_first(Instant::from_nanos(2), |_| true));
        assert!(waiting.has_first(Instant::from_nanos(3), |_| true));
        assert_eq!(waiting.first(Instant::from_nanos(3), |_| true), Some(connection(2)));
        assert_eq!(waiting.next_deadline(), None);
    }

    #[test]
    fn those_who_wait_no_more_do_not_pile_up() {
        // A room that thousands passed through holds only those who are still in it.
        let mut waiting = Waiting::new(Duration::from_secs(1));
        for slot in 0..5_000 {
            waiting.push(Instant::from_nanos(u64::from(slot)), connection(slot));
            waiting.skip(|_| false);
        }
        assert_eq!(waiting.next_deadline(), None);
        assert!(waiting.queue.capacity() <= 64);
    }
}
