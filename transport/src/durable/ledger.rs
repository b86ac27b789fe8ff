//! One shard's side of the journal: the tray's records become batches, one for all that a turn has written.

use std::sync::Arc;

use sol_engine::{Commit, Effects, Family, Part, Record};
use sol_journal::{Batch, Handle, Kind, Load, Submission};

use super::Numbers;

/// What a shard writes through.
#[derive(Debug)]
pub(crate) struct Ledger {
    handle: Handle,
    source: u16,
    numbers: Arc<Numbers>,
    payload: Vec<u8>,
}

impl Ledger {
    pub(crate) const fn new(handle: Handle, source: u16, numbers: Arc<Numbers>) -> Self {
        Self {
            handle,
            source,
            numbers,
            payload: Vec::new(),
        }
    }

    /// Has written what is in the tray. What the tray has for other shards must not leave before.
    pub(crate) fn write(&mut self, effects: &mut Effects) {
        let mut commits = std::mem::take(&mut effects.commits);
        let mut records = std::mem::take(&mut effects.records);
        let mut left = records.drain(..);
        let mut begin = 0;
        for Commit { ticket, end, part } in commits.drain(..) {
            let mut batch = self.handle.batch(self.source);
            for mut record in left.by_ref().take(end - begin) {
                record.renumber_listener(|listener| self.numbers.in_store(listener));
                put(&mut batch, &record, &mut self.payload);
                effects.spend(record);
            }
            begin = end;
            self.handle.submit(Submission {
                source: self.source,
                ticket: ticket.0,
                part: part.map(part_of),
                batch,
            });
        }
        drop(left);
        effects.records = records;
        effects.commits = commits;
    }

    /// Whether so much waits that who adds to it has to wait too.
    pub(crate) fn is_busy(&self) -> bool {
        self.handle.load() == Load::High
    }
}

/// Puts a record in a batch, or its end; `payload` is scratch memory.
pub(super) fn put(batch: &mut Batch, record: &Record, payload: &mut Vec<u8>) {
    payload.clear();
    record.encode(payload);
    let (kind, id) = (Kind::new(record.kind()), record.id().0);
    match record.family() {
        Family::Gone => batch.delete(id),
        Family::Single => batch.put(kind, id, payload),
        Family::Body => batch.body(kind, id, payload),
        Family::Child(parent) => batch.child(kind, id, parent.0, payload),
    }
}

fn part_of(part: Part) -> sol_journal::Part {
    sol_journal::Part {
        transaction: part.transaction.0.get(),
        forwards: part.forwards,
        is_last: part.is_last,
        after: part.after.map(|record| record.0),
    }
}
