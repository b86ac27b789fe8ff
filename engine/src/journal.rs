//! Tickets and gates: what waits until its records are on stable storage (design: nothing acknowledged is lost).

use alloc::{collections::VecDeque, rc::Rc};

use sol_codec::PacketId;

use crate::effects::Effects;
use crate::ids::{ConnectionId, ShardId};
use crate::input::Ticket;
use crate::message::Message;
use crate::record::{Record, RecordId};
use crate::session::acks::Place;
use crate::session::sessions::SessionRef;

/// What a ticket holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// One completion of a waiting acknowledgement.
    Ack(SessionRef, Place),
    /// A CONNACK.
    Connect(ConnectionId),
    /// A QoS 2 PUBLISH, or a PUBREL, out of a durable Session.
    Send(SessionRef, PacketId),
    /// `Taken` for a forward of another shard.
    Forward(ShardId, u64),
}

/// The engine's side of the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    on: bool,
    next_id: u64,
    /// The ticket of the records emitted in the present call.
    current: u64,
    emitted: bool,
    /// All tickets up to this one are durable.
    durable: u64,
    /// The body emitted last in this call: a fan-out writes its body once.
    last_body: u64,
    gates: VecDeque<(u64, Gate)>,
}

impl Journal {
    /// Identifiers of different shards differ in their upper bits.
    pub(crate) fn new(on: bool, shard: ShardId) -> Self {
        Self {
            on,
            next_id: u64::from(shard.0) << 48,
            current: 1,
            emitted: false,
            durable: 0,
            last_body: 0,
            gates: VecDeque::new(),
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    /// An identifier that was never used.
    pub(crate) const fn next_id(&mut self) -> RecordId {
        self.next_id += 1;
        RecordId(self.next_id)
    }

    /// Identifiers below this were used by records that are being restored.
    pub(crate) fn seen(&mut self, id: RecordId) {
        if id.0 >> 48 == self.next_id >> 48 {
            self.next_id = self.next_id.max(id.0);
        }
    }

    pub(crate) fn emit(&mut self, record: Record, effects: &mut Effects) {
        self.emitted = true;
        effects.records.push(record);
    }

    pub(crate) fn delete(&mut self, id: RecordId, effects: &mut Effects) {
        if id != RecordId(0) {
            self.emit(Record::Delete(id), effects);
        }
    }

    /// Whether the present call has emitted records, so that something may have to wait for them.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.emitted
    }

    /// Emits a message's body, unless it was the one emitted last. Putting a body twice is harmless.
    pub(crate) fn body(&mut self, message: &Rc<Message>, effects: &mut Effects) {
        if message.body != self.last_body {
            self.last_body = message.body;
            self.emit(Record::Body(RecordId(message.body), Rc::clone(message)), effects);
        }
    }

    /// Holds something back until all records emitted so far are durable. `false`: they are.
    pub(crate) fn hold(&mut self, gate: Gate) -> bool {
        let ticket = if self.emitted { self.current } else { self.current - 1 };
        if ticket <= self.durable {
            return false;
        }
        self.gates.push_back((ticket, gate));
        true
    }

    /// The present call ends; its ticket is used up if it emitted records.
    pub(crate) const fn end_of_call(&mut self) {
        if self.emitted {
            self.emitted = false;
            self.current += 1;
            // By the next call everything that pointed at it may be gone, and the body with it.
            self.last_body = 0;
        }
    }

    /// The next gate that opens with this ticket.
    pub(crate) fn open(&mut self, ticket: Ticket) -> Option<Gate> {
        self.durable = self.durable.max(ticket.0);
        if self.gates.front()?.0 > ticket.0 {
            return None;
        }
        self.gates.pop_front().map(|(_, gate)| gate)
    }
}
