//! Which tickets of a source are kept: all up to one, and some beyond it.

use std::collections::BTreeSet;

use super::Event;

#[derive(Debug, Default)]
pub(super) struct Tickets {
    upto: u64,
    told: u64,
    ahead: BTreeSet<u64>,
    untold: Vec<u64>,
}

impl Tickets {
    pub(super) fn done(&mut self, ticket: u64) {
        if ticket != self.upto + 1 {
            self.ahead.insert(ticket);
            self.untold.push(ticket);
            return;
        }
        self.upto = ticket;
        while self.ahead.first() == Some(&(self.upto + 1)) {
            self.ahead.pop_first();
            self.upto += 1;
        }
    }

    /// Says what is new.
    pub(super) fn tell(&mut self, mut event: impl FnMut(Event)) {
        if self.upto > self.told {
            self.told = self.upto;
            event(Event::Kept(self.upto));
        }
        for ticket in self.untold.drain(..) {
            if ticket > self.upto {
                event(Event::KeptAlone(ticket));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tickets: &mut Tickets) -> Vec<Event> {
        let mut events = Vec::new();
        tickets.tell(|event| events.push(event));
        events
    }

    /// A ticket is told once, alone only where one before it is not kept yet.
    #[test]
    fn a_hole_is_never_told_as_kept() {
        let mut tickets = Tickets::default();
        [1, 2, 4, 6].into_iter().for_each(|ticket| tickets.done(ticket));
        assert_eq!(
            told(&mut tickets),
            [Event::Kept(2), Event::KeptAlone(4), Event::KeptAlone(6)]
        );
        assert_eq!(told(&mut tickets), []);
        [5, 3].into_iter().for_each(|ticket| tickets.done(ticket));
        assert_eq!(told(&mut tickets), [Event::Kept(6)]);
        assert!(tickets.ahead.is_empty());
    }
}
