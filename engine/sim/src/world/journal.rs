//! A journal that keeps nothing but which records are live. It never fails and may be slow.

use std::collections::BTreeSet;

use sol_engine::{Record, RecordId};

use crate::violation::{Verdict, ensure};

/// One shard's journal.
#[derive(Debug, Default)]
pub(super) struct Journal {
    live: BTreeSet<RecordId>,
    dead: BTreeSet<RecordId>,
    /// Calls that wrote, and how many of them are on stable storage.
    pub(super) written: u64,
    pub(super) durable: u64,
}

impl Journal {
    /// Takes the records of one call.
    pub(super) fn write(&mut self, records: &[Record]) -> Verdict {
        self.written += u64::from(!records.is_empty());
        for record in records {
            match record {
                Record::Delete(id) => {
                    self.live.remove(id);
                    self.dead.insert(*id);
                }
                // A body lives while something points at it; nobody deletes it.
                Record::Body(..) => {}
                other => {
                    let id = other.id();
                    ensure(!self.dead.contains(&id), "journal", || {
                        format!("{id:?} is written after its end")
                    })?;
                    self.live.insert(id);
                }
            }
        }
        Ok(())
    }

    /// Records that are live.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }
}
