//! A journal that keeps nothing but which records are live. It never fails and may be slow.

use std::collections::{BTreeMap, BTreeSet};

use sol_engine::{Commit, Input, Record, RecordId, Ticket, Transaction};

use crate::rng::Rng;
use crate::violation::{Verdict, ensure};

/// What of one shard's records is live.
#[derive(Debug, Default)]
pub(super) struct Journal {
    live: BTreeSet<RecordId>,
    dead: BTreeSet<RecordId>,
    /// Calls that wrote what is in the tray.
    calls: usize,
}

impl Journal {
    /// Takes the records of one call.
    pub(super) fn write(&mut self, records: &[Record]) -> Verdict {
        self.calls += usize::from(!records.is_empty());
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

    /// How many calls wrote since this was asked last.
    pub(super) fn take_calls(&mut self) -> usize {
        std::mem::take(&mut self.calls)
    }
}

/// The journal's thread: commits of all shards until they are told to be durable. Those of a transaction are at once.
#[derive(Debug, Default)]
pub(super) struct Writer {
    transactions: BTreeMap<Transaction, Parts>,
    shards: Vec<Tickets>,
}

/// Parts of a transaction that have come, and how many last ones have and will.
#[derive(Debug, Default)]
struct Parts {
    tickets: Vec<(usize, Ticket, usize)>,
    come: usize,
    expected: usize,
}

/// What of a shard is written and not told: tickets, each with how many calls wrote under it.
#[derive(Debug, Default)]
struct Tickets {
    /// All up to this one are told.
    told: u64,
    written: BTreeMap<u64, usize>,
    told_alone: BTreeSet<u64>,
}

impl Writer {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            transactions: BTreeMap::new(),
            shards: (0..shards).map(|_| Tickets::default()).collect(),
        }
    }

    /// Takes what a shard's tray had, which so many calls wrote.
    pub(super) fn submit(&mut self, shard: usize, commits: &[Commit], calls: usize) {
        for commit in commits {
            let Some(part) = commit.part else {
                self.shards[shard].written.insert(commit.ticket.0, calls);
                continue;
            };
            let parts = self.transactions.entry(part.transaction).or_default();
            parts.tickets.push((shard, commit.ticket, calls));
            parts.come += usize::from(part.is_last);
            parts.expected += part.forwards as usize;
            if parts.come == parts.expected + 1
                && let Some(parts) = self.transactions.remove(&part.transaction)
            {
                for (shard, ticket, calls) in parts.tickets {
                    self.shards[shard].written.insert(ticket.0, calls);
                }
            }
        }
    }

    /// Whether a shard can be told something.
    pub(super) fn has_news(&self, shard: usize) -> bool {
        let tickets = &self.shards[shard];
        tickets.written.contains_key(&(tickets.told + 1)) || tickets.written.len() > tickets.told_alone.len()
    }

    /// Something that a shard is told, and how many calls waited for it at most.
    pub(super) fn news(&mut self, shard: usize, rng: &mut Rng) -> (Input<'static>, usize) {
        let tickets = &mut self.shards[shard];
        let alone: Vec<_> = (tickets.written.keys().copied())
            .filter(|ticket| !tickets.told_alone.contains(ticket))
            .collect();
        let is_next = tickets.written.contains_key(&(tickets.told + 1));
        if !alone.is_empty() && (!is_next || rng.percent(20)) {
            let ticket = alone[rng.below(alone.len())];
            tickets.told_alone.insert(ticket);
            return (Input::DurableAlone(Ticket(ticket)), tickets.written[&ticket]);
        }
        let mut calls = 0;
        while let Some(of_this) = tickets.written.remove(&(tickets.told + 1)) {
            tickets.told += 1;
            tickets.told_alone.remove(&tickets.told);
            calls += of_this;
            if rng.percent(30) {
                break;
            }
        }
        (Input::Durable(Ticket(tickets.told)), calls)
    }

    /// Transactions that wait for a part.
    pub(super) fn waiting(&self) -> usize {
        self.transactions.len()
    }
}
