//! Tickets and gates: what waits until its records are on stable storage (design: nothing acknowledged is lost).
//!
//! Records leave in [`Commit`]s, each under a ticket: a call adds to the last one for as long as that is in the tray. What
//! belongs together though several calls or shards write it is a [`Transaction`]: its parts are commits of their own.

use alloc::{collections::VecDeque, rc::Rc};
use core::num::NonZeroU64;

use sol_codec::PacketId;
use sol_codec::mutants::mutant;

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

/// Records that are kept together or not at all, though several calls, or shards, write them. No other one in the node has
/// the same number while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction(pub NonZeroU64);

/// Records of the tray that are written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its number: they count up by one, from 1. [`crate::Input::Durable`] answers it.
    pub ticket: Ticket,
    /// Where its records end in [`Effects::records`]; they begin where those of the commit before end.
    pub end: usize,
    /// What else it has to be kept together with.
    pub part: Option<Part>,
}

/// A part of a transaction. It is complete when it has as many last parts as it has forwards and one: that of whoever began
/// it. A part comes before those of the forwards that it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub transaction: Transaction,
    /// Forwards that carry it to other shards, sent since the part before.
    pub forwards: u32,
    /// Nothing more comes of what began it here: the publish, or one forward.
    pub is_last: bool,
    /// Transactions that name the same record are kept in the order of their first parts.
    pub after: Option<RecordId>,
}

/// The engine's side of the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    on: bool,
    next_id: u64,
    next_transaction: u64,
    /// The latest commit.
    ticket: u64,
    /// The present call has emitted something, or depends on what was.
    dirty: bool,
    /// What the present call says is true only once all that was emitted before is durable.
    depends: bool,
    /// The latest commit that is a part of a transaction.
    part_ticket: u64,
    /// All tickets up to this one are durable.
    durable: u64,
    /// The body emitted last in this call: a fan-out writes its body once.
    last_body: u64,
    gates: VecDeque<Held>,
    entered: Option<Entered>,
    /// Much waits for it, so that who adds to it is not read.
    pub(crate) is_busy: bool,
    /// It has no room, so that nothing new is added to it.
    pub(crate) is_full: bool,
}

/// Something that waits.
#[derive(Debug)]
struct Held {
    ticket: u64,
    /// It waits for that ticket alone, and not for those before it too.
    is_own: bool,
    gate: Gate,
}

/// The transaction that what is emitted belongs to.
#[derive(Debug)]
struct Entered {
    transaction: Transaction,
    /// Other parts of it have been written, or will be.
    is_shared: bool,
    forwards: u32,
    after: Option<RecordId>,
    /// What stood in the tray and before the gates when it was entered.
    records: usize,
    gates: usize,
}

impl Journal {
    /// Identifiers of different shards differ in their upper bits.
    pub(crate) fn new(on: bool, shard: ShardId) -> Self {
        let upper = u64::from(shard.0) << RecordId::COUNT_BITS;
        Self {
            on,
            next_id: upper,
            next_transaction: upper,
            ticket: 0,
            part_ticket: 0,
            dirty: false,
            depends: false,
            durable: 0,
            last_body: 0,
            gates: VecDeque::new(),
            entered: None,
            is_busy: false,
            is_full: false,
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

    /// A record has this identifier: none of this engine's will be the same, nor be taken for an older one.
    pub(crate) fn seen(&mut self, id: RecordId) {
        let (upper, lower) = (self.next_id & !RecordId::COUNT, self.next_id & RecordId::COUNT);
        self.next_id = upper | lower.max(id.0 & RecordId::COUNT);
    }

    pub(crate) fn emit(&mut self, record: Record, effects: &mut Effects) {
        self.dirty = true;
        effects.records.push(record);
        if self.entered.is_none() {
            self.commit(effects);
        }
    }

    pub(crate) fn delete(&mut self, id: RecordId, effects: &mut Effects) {
        if id != RecordId(0) {
            self.emit(Record::Delete(id), effects);
        }
    }

    /// The present call found done what earlier ones have emitted, so that something may have to wait for all of that.
    pub(crate) fn depend(&mut self) {
        if self.ticket > self.durable && !mutant("journal/clear-unkept") {
            (self.depends, self.dirty) = (true, true);
        }
    }

    /// Whether something has to wait for what earlier calls have emitted.
    pub(crate) const fn depends(&self) -> bool {
        self.depends
    }

    /// Whether the present call has written anything, or depends on what was, so that something may have to wait for it.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty || self.entered.as_ref().is_some_and(|entered| entered.is_shared)
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
        // Of a transaction the ticket is known when it is left.
        let is_open = self.entered.is_some() && self.is_dirty();
        if self.ticket <= self.durable && !is_open {
            return false;
        }
        // What a Session is sent keeps its order, on its next connection too: it waits for what was written before as well.
        let keeps_order = matches!(gate, Gate::Send(..) | Gate::Connect(..));
        let is_own = self.is_dirty() && !self.depends && !keeps_order;
        self.gates.push_back(Held {
            ticket: self.ticket,
            is_own,
            gate,
        });
        true
    }

    /// Begins a transaction, if there is a journal.
    #[inline]
    pub(crate) fn begin(&mut self) -> Option<Transaction> {
        if !self.on {
            return None;
        }
        self.next_transaction += 1;
        NonZeroU64::new(self.next_transaction).map(Transaction)
    }

    /// What is emitted and forwarded from now on belongs to a transaction; `is_shared`: others write parts of it, or this
    /// engine did in an earlier call. To be [left](Self::leave) in the same call.
    #[inline]
    pub(crate) fn enter(&mut self, transaction: Option<Transaction>, is_shared: bool, effects: &Effects) {
        debug_assert!(self.entered.is_none(), "one transaction at a time");
        if let Some(transaction) = transaction {
            self.entered = Some(Entered {
                transaction,
                is_shared,
                forwards: 0,
                after: None,
                records: effects.records.len(),
                gates: self.gates.len(),
            });
        }
    }

    /// What was entered is kept after what was entered with the same record before. To be called at once.
    pub(crate) fn keep_order_of(&mut self, record: RecordId) {
        if let Some(entered) = &mut self.entered {
            entered.after = Some(record);
        }
    }

    /// Another shard gets a forward, which belongs to the transaction that was entered.
    pub(crate) fn forward(&mut self) -> Option<Transaction> {
        let entered = self.entered.as_mut()?;
        entered.forwards = entered.forwards.saturating_add(1);
        entered.is_shared = true;
        Some(entered.transaction)
    }

    /// The end of what belongs to the transaction that was entered; `is_last`: for ever.
    #[inline]
    pub(crate) fn leave(&mut self, is_last: bool, effects: &mut Effects) {
        if let Some(entered) = self.entered.take() {
            self.close(entered, is_last, effects);
        }
    }

    fn close(&mut self, entered: Entered, is_last: bool, effects: &mut Effects) {
        let Entered {
            transaction,
            is_shared,
            forwards,
            after,
            records,
            gates,
        } = entered;
        // One that is all here may have to wait for one that is not.
        let waits = after.is_some() && self.part_ticket > self.durable;
        if is_shared || !is_last || waits {
            self.ticket += 1;
            self.part_ticket = self.ticket;
            let part = Part {
                transaction,
                forwards,
                is_last,
                after,
            };
            effects.commits.push(Commit {
                ticket: Ticket(self.ticket),
                end: effects.records.len(),
                part: Some(part).filter(|_| !mutant("journal/parts-apart")),
            });
        } else if effects.records.len() > records {
            // All of it is here, and what is written together is kept together.
            self.commit(effects);
        }
        for held in self.gates.range_mut(gates..) {
            held.ticket = self.ticket;
        }
    }

    /// A call has not come to its end, and has emitted nothing.
    pub(crate) fn abandon(&mut self) {
        self.entered = None;
        self.end_of_call();
    }

    /// All that is in the tray belongs to a commit: the last one, unless that is a part of something.
    fn commit(&mut self, effects: &mut Effects) {
        let end = effects.records.len();
        match effects.commits.last_mut() {
            Some(last) if last.part.is_none() => last.end = end,
            _ => {
                self.ticket += 1;
                effects.commits.push(Commit {
                    ticket: Ticket(self.ticket),
                    end,
                    part: None,
                });
            }
        }
    }

    /// The present call ends.
    pub(crate) const fn end_of_call(&mut self) {
        (self.dirty, self.depends) = (false, false);
        // By the next call everything that pointed at it may be gone, and the body with it.
        self.last_body = 0;
    }

    /// The next gate that opens now that all tickets up to this one are durable.
    pub(crate) fn open(&mut self, ticket: Ticket) -> Option<Gate> {
        self.durable = self.durable.max(ticket.0);
        let opened = self.gates.pop_front_if(|held| held.ticket <= ticket.0)?;
        Some(opened.gate)
    }

    /// The next gate that opens now that this ticket is durable, though one before it is not.
    pub(crate) fn open_alone(&mut self, ticket: Ticket) -> Option<Gate> {
        let first = self.gates.partition_point(|held| held.ticket < ticket.0);
        let own = self
            .gates
            .range(first..)
            .take_while(|held| held.ticket == ticket.0)
            .position(|held| held.is_own)?;
        self.gates.remove(first.saturating_add(own)).map(|held| held.gate)
    }
}
