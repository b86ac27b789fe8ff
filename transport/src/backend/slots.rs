//! The table of sockets: dense slots, each with the generation of its tenant.

use core::num::NonZeroU32;

use socket2::Socket;
use sol_engine::ConnectionId;

/// One socket and where it stands with its backend. Small: there is one for each idle connection.
#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) socket: Option<Socket>,
    generation: NonZeroU32,
    /// What the backend remembers of its tenant.
    pub(super) state: S,
}

impl<S> Slot<S> {
    pub(super) const fn connection(&self, index: usize) -> ConnectionId {
        // There are fewer descriptors than 2^32, and a slot for each.
        ConnectionId::new(index as u32, self.generation)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slots<S> {
    slots: Vec<Slot<S>>,
    vacant: Vec<u32>,
}

impl<S> Default for Slots<S> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl<S> Slots<S> {
    /// Gives a socket a slot.
    pub(super) fn insert(&mut self, socket: Socket, state: S) -> ConnectionId {
        if let Some(index) = self.vacant.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.socket = Some(socket);
            slot.state = state;
            return slot.connection(index as usize);
        }
        if self.slots.len() == self.slots.capacity() {
            // By a quarter, not by half: with a million connections the slack is what an operator sees.
            self.slots.reserve_exact(self.slots.len() / 4 + 64);
        }
        let index = self.slots.len();
        let slot = Slot {
            socket: Some(socket),
            generation: NonZeroU32::MIN,
            state,
        };
        let connection = slot.connection(index);
        self.slots.push(slot);
        connection
    }

    /// The slot at an index, if it holds a socket.
    pub(super) fn at(&mut self, index: usize) -> Option<&mut Slot<S>> {
        self.slots.get_mut(index).filter(|slot| slot.socket.is_some())
    }

    /// The slot of a connection, if it is still this one's.
    pub(super) fn find(&mut self, connection: ConnectionId) -> Option<&mut Slot<S>> {
        self.slots
            .get_mut(connection.slot())
            .filter(|slot| slot.generation == connection.generation())
    }

    /// Makes a slot available to a next tenant, whose name will be another.
    pub(super) fn free(&mut self, connection: ConnectionId) {
        if let Some(slot) = self.find(connection) {
            slot.socket = None;
            // Wrapped after 2^32 tenants, past 0, which stands for nobody.
            slot.generation = slot.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
            self.vacant.push(connection.slot() as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn a_slots_next_tenant_has_another_name() {
        // A late effect for a closed connection must not reach the one that came after it.
        let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let mut slots = Slots::default();
        let first = slots.insert(socket(), ());
        slots.free(first);
        slots.free(first);
        let second = slots.insert(socket(), ());
        assert_eq!(first.slot(), second.slot());
        assert_ne!(first, second);
        assert!(slots.find(first).is_none());
        assert!(slots.find(second).is_some());
        assert_ne!(slots.insert(socket(), ()).slot(), second.slot());
    }
}
