//! Whose turn it is to shake hands.

use std::collections::VecDeque;
use std::time::Duration;

use sol_engine::ConnectionId;

/// How long the handshakes of one turn may take before the others wait for the next: a handful with an elliptic curve,
/// one or two with RSA. So long, and one handshake, is what a flood of them adds to the latency of everybody else.
const TURN_TIME_MAX: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// First come, first served.
    waiting: VecDeque<ConnectionId>,
    spent: Duration,
}

impl Handshakes {
    pub(super) const fn begin_turn(&mut self) {
        self.spent = Duration::ZERO;
    }

    pub(super) fn spend(&mut self, time: Duration) {
        self.spent = self.spent.saturating_add(time);
    }

    /// Whether one may begin that does not wait yet.
    pub(super) fn may_begin(&self) -> bool {
        self.spent < TURN_TIME_MAX
    }

    pub(super) fn push(&mut self, id: ConnectionId) {
        self.waiting.push_back(id);
    }

    /// The next one, while there is time.
    pub(super) fn next(&mut self) -> Option<ConnectionId> {
        if self.spent < TURN_TIME_MAX {
            self.waiting.pop_front()
        } else {
            None
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;

    use super::*;

    /// A turn ends its handshakes when their time is up, and the next one goes on with whoever came first.
    #[test]
    fn a_quantum_is_shared_in_order() {
        let id = |slot| ConnectionId::new(slot, NonZeroU32::MIN);
        let mut handshakes = Handshakes::default();
        assert!(handshakes.may_begin());
        handshakes.spend(TURN_TIME_MAX);
        assert!(!handshakes.may_begin());
        handshakes.push(id(1));
        handshakes.push(id(2));
        assert_eq!(handshakes.next(), None);
        handshakes.begin_turn();
        assert_eq!(handshakes.next(), Some(id(1)));
        handshakes.spend(TURN_TIME_MAX * 2);
        assert_eq!((handshakes.next(), handshakes.waiting()), (None, 1));
        handshakes.begin_turn();
        assert_eq!((handshakes.next(), handshakes.next()), (Some(id(2)), None));
    }
}
