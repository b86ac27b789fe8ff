//! The tray: what the engine said, done in order.

use std::mem;

use sol_engine::{ConnectionId, Event, Input};

use super::Core;
use super::filtering::SCRATCH_BYTES_MAX;
use crate::backend::{Backend, SendOp};
use crate::conns::{Conn, Phase};
use crate::handle::ShardAnswer;
use crate::observer::{Applicant, AuthReply, Observer, Source};

/// Sends lent to the backend at once.
const SENDS_MAX: usize = 256;

impl<O: Observer> Core<O> {
    /// Does what is in the tray, as far as it can be done before output leaves; `false`: there is more. What concerns
    /// the backend waits in lists.
    pub(super) fn apply(&mut self) -> bool {
        self.post_forwards();
        if !self.apply_transmits() {
            return false;
        }
        self.moves.append(&mut self.effects.moves);
        self.reads.append(&mut self.effects.reads);
        self.closes.append(&mut self.effects.closes);
        self.apply_auth_requests();
        self.apply_answers();
        self.apply_events();
        self.encoder.forget();
        self.effects.clear();
        self.encoded = 0;
        true
    }

    /// Has written what is to be kept, and puts what other shards are to hear into the batches for them, where its bytes are
    /// counted.
    pub(super) fn post_forwards(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.write(&mut self.effects);
        }
        let mut forwards = mem::take(&mut self.effects.forwards);
        for (to, message) in forwards.drain(..) {
            if let Some(spent) = self.mailbox.post(to, message) {
                self.effects.spend_forward(spent);
            }
        }
        self.effects.forwards = forwards;
    }

    fn apply_transmits(&mut self) -> bool {
        while let Some(transmit) = self.effects.transmits.get(self.encoded) {
            if self.outboxes.is_full() {
                return false;
            }
            self.encoded += 1;
            let Some(conn) = self.conns.get_mut(transmit.connection) else {
                continue;
            };
            let output = conn.output.get_or_insert_with(|| self.outboxes.lend());
            let before = output.bytes.len();
            self.encoder.encode(&transmit.packet, conn.version, &mut output.bytes);
            let unsent = output.unsent().len();
            self.outboxes.count(output.bytes.len() - before, unsent, conn.congested);
            if !conn.congested {
                self.outboxes.mark(conn);
            }
        }
        true
    }

    fn apply_auth_requests(&mut self) {
        for request in self.effects.auth_requests.drain(..) {
            let Some(conn) = self.conns.get(request.connection) else {
                continue;
            };
            let exchange = self.mailbox.exchange().clone();
            let reply = AuthReply::new(exchange, self.mailbox.shard(), request.connection);
            let Source { peer, listener } = conn.source();
            let listener = self.config.listeners.get(usize::from(listener.0));
            let applicant = Applicant {
                peer,
                is_brought: listener.is_some_and(|listener| listener.proxy.is_some()),
                certificates: conn.filter.as_ref().map_or(&[], |filter| filter.certificates()),
            };
            self.observer.auth(request, applicant, reply);
        }
    }

    fn apply_answers(&mut self) {
        if self.effects.answers.is_empty() {
            return;
        }
        let mut counters = self.counters;
        counters.connections = self.conns.len() as u64;
        counters.held_bytes = self.held_bytes() as u64;
        counters.unauthenticated = self.conns.unauthenticated as u64;
        counters.mailbox_bytes = self.mailbox.posted_bytes() as u64;
        counters.mailbox_bytes_maximum = self.mailbox.posted_bytes_max() as u64;
        for answer in self.effects.answers.drain(..) {
            if let Some(reply) = self.asks.pop_front() {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(ShardAnswer {
                    shard: self.mailbox.shard(),
                    answer,
                    counters,
                });
            }
        }
    }

    fn apply_events(&mut self) {
        for event in &self.effects.events {
            let source = connection_of(event).and_then(|id| self.conns.get(id)).map(Conn::source);
            self.observer.event(event, source);
        }
    }

    /// Sends what waits, one send for each connection.
    pub(super) fn flush<B: Backend>(&mut self, backend: &mut B) {
        let mut operations = mem::take(&mut self.outboxes.operations);
        let dirty = mem::take(&mut self.outboxes.dirty);
        for ids in dirty.chunks(SENDS_MAX) {
            for &connection in ids {
                if let Some(conn) = self.conns.get_mut(connection) {
                    self.outboxes.blocked_bytes -= conn.blocked_bytes();
                    conn.dirty = false;
                    let Some(mut output) = conn.output.take() else { continue };
                    let failed = match &mut conn.filter {
                        Some(filter) => !filter.seal(&mut output, &mut self.sealed),
                        None => false,
                    };
                    let unsent = output.unsent().len() as u64;
                    self.counters.bytes_out += unsent;
                    operations.push(SendOp {
                        connection,
                        output,
                        failed,
                    });
                }
            }
            backend.send_batch(&mut operations);
            for operation in operations.drain(..) {
                self.sent(backend, operation);
            }
        }
        if self.sealed.capacity() > SCRATCH_BYTES_MAX {
            self.sealed = Vec::new();
        }
        self.outboxes.flushed();
        self.outboxes.operations = operations;
        // Nothing becomes dirty while sending, so the list is still empty, and this one has its memory.
        self.outboxes.dirty = dirty;
        self.outboxes.dirty.clear();
    }

    fn sent<B: Backend>(&mut self, backend: &mut B, operation: SendOp) {
        let SendOp {
            connection,
            mut output,
            failed,
        } = operation;
        let unsent = output.unsent().len();
        self.counters.bytes_out -= unsent as u64;
        let Some(conn) = self.conns.get_mut(connection) else {
            return self.outboxes.take_back(output);
        };
        if failed {
            self.outboxes.take_back(output);
            return self.lose(connection);
        }
        if unsent > 0 {
            let is_served = conn.is_served();
            if is_served {
                output.shrink();
            } else {
                output.compact();
            }
            let capacity = output.bytes.capacity();
            conn.output = Some(output);
            conn.congested = true;
            if is_served {
                self.conns.charge_piece(connection, capacity);
            }
            self.outboxes.blocked_bytes += unsent;
            self.counters.short_sends += 1;
            self.congested
                .push((connection, u32::try_from(unsent).unwrap_or(u32::MAX)));
            return;
        }
        self.outboxes.take_back(output);
        let was_congested = mem::take(&mut conn.congested);
        if conn.phase == Phase::Closing {
            // What tells of the end may still have to be said.
            if conn.filter.as_ref().is_none_or(|filter| filter.is_finished()) {
                self.linger(backend, connection);
            }
        } else if conn.phase == Phase::Serving {
            self.conns.charge_piece(connection, 0);
            self.go_on_serving(connection);
        } else if was_congested {
            self.drained.push(connection);
        }
    }

    /// Tells the engine what has left and what has not.
    pub(super) fn tell_flushed(&mut self) {
        let mut congested = mem::take(&mut self.congested);
        for (id, unsent) in congested.drain(..) {
            if self.is_engines(id) {
                self.tell(Some(id), Input::Congested(id, unsent));
            }
        }
        self.congested = congested;
        self.tell(None, Input::Flushed);
        let mut drained = mem::take(&mut self.drained);
        for id in drained.drain(..) {
            self.tell(Some(id), Input::Drained(id));
        }
        self.drained = drained;
    }

    /// Whether the engine still knows a connection.
    fn is_engines(&self, id: ConnectionId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.is_engines() && !conn.ended)
    }
}

const fn connection_of(event: &Event) -> Option<ConnectionId> {
    match event {
        Event::Connected { connection, .. }
        | Event::Refused { connection, .. }
        | Event::Disconnected { connection, .. } => Some(*connection),
        Event::NotAuthorized { connection, .. } => *connection,
        _ => None,
    }
}
