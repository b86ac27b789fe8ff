//! The journal's thread as a model: commits become durable one by one, those of a transaction all at once.

use std::collections::{BTreeMap, BTreeSet};

use sol_engine::{Effects, Input, Part, Record, RecordId, Reference, Ticket, Transaction};

use super::store::Store;

/// Commits of all shards, from when they are submitted until they are told to be durable.
#[derive(Default)]
pub struct Writer {
    waiting: Vec<Submission>,
    transactions: BTreeMap<Transaction, Progress>,
    shards: Vec<Shard>,
}

struct Submission {
    shard: usize,
    ticket: u64,
    part: Option<Part>,
    records: Vec<Record>,
}

/// How many last parts have come, and how many will.
#[derive(Clone, Copy, Default)]
struct Progress {
    come: usize,
    expected: usize,
}

/// What of a shard is written, and what it was told of.
#[derive(Clone, Default)]
struct Shard {
    upto: u64,
    ahead: BTreeSet<u64>,
    told: u64,
    told_alone: BTreeSet<u64>,
}

impl Writer {
    pub fn new(shards: usize) -> Self {
        Self {
            shards: vec![Shard::default(); shards],
            ..Self::default()
        }
    }

    /// Takes the commits of a tray, and writes what is whole.
    pub fn submit(&mut self, shard: usize, effects: &Effects, store: &mut Store) {
        let mut from = 0;
        for commit in &effects.commits {
            if let Some(part) = commit.part {
                let progress = self.transactions.entry(part.transaction).or_default();
                progress.expected += part.forwards as usize;
                progress.come += usize::from(part.is_last);
            }
            self.waiting.push(Submission {
                shard,
                ticket: commit.ticket.0,
                part: commit.part,
                records: effects.records[from..commit.end].to_vec(),
            });
            from = commit.end;
        }
        assert_eq!(from, effects.records.len(), "a record that belongs to no commit");
        self.write(store);
    }

    /// Whether a transaction waits for a part.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn is_whole(&self, transaction: Transaction) -> bool {
        let progress = self.transactions.get(&transaction).copied().unwrap_or_default();
        progress.come == progress.expected + 1
    }

    /// Whatever has to do with a transaction that is not whole waits with it.
    fn write(&mut self, store: &mut Store) {
        let mut blocked: BTreeSet<usize> = BTreeSet::new();
        loop {
            let before = blocked.len();
            let mut ids: BTreeSet<RecordId> = BTreeSet::new();
            let of_blocked: BTreeSet<_> = blocked.iter().filter_map(|&at| self.transaction(at)).collect();
            for at in 0..self.waiting.len() {
                let after = self.waiting[at].part.and_then(|part| part.after);
                let touches = self.waiting[at].records.iter().flat_map(touched).chain(after);
                let transaction = self.transaction(at);
                let waits = transaction.is_some_and(|it| !self.is_whole(it) || of_blocked.contains(&it));
                if waits || blocked.contains(&at) || touches.clone().any(|id| ids.contains(&id)) {
                    ids.extend(touches);
                    blocked.insert(at);
                }
            }
            if blocked.len() == before {
                break;
            }
        }
        let mut records: Vec<Record> = Vec::new();
        let mut left = Vec::new();
        for (at, submission) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            if blocked.contains(&at) {
                left.push(submission);
                continue;
            }
            if let Some(part) = submission.part {
                self.transactions.remove(&part.transaction);
            }
            self.shards[submission.shard].done(submission.ticket);
            records.extend(submission.records);
        }
        self.waiting = left;
        store.apply(&records);
    }

    fn transaction(&self, at: usize) -> Option<Transaction> {
        self.waiting[at].part.map(|part| part.transaction)
    }

    /// What a shard is to be told now.
    pub fn news(&mut self, shard: usize) -> Vec<Input<'static>> {
        let shard = &mut self.shards[shard];
        let mut news = Vec::new();
        if shard.upto > shard.told {
            shard.told = shard.upto;
            news.push(Input::Durable(Ticket(shard.upto)));
        }
        for &ticket in &shard.ahead {
            if shard.told_alone.insert(ticket) {
                news.push(Input::DurableAlone(Ticket(ticket)));
            }
        }
        news
    }
}

impl Shard {
    fn done(&mut self, ticket: u64) {
        self.ahead.insert(ticket);
        while self.ahead.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
    }
}

/// The records that a record is about.
fn touched(record: &Record) -> impl Iterator<Item = RecordId> + Clone + use<> {
    let parent = match record {
        Record::Retained { body, .. } => Some(*body),
        Record::Reference(_, Reference { body, .. }) => *body,
        _ => None,
    };
    [Some(record.id()), parent].into_iter().flatten()
}
