//! Transactions through the writer, over a disk that loses power.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
};

use sol_journal::{
    Batch, Event, Mode, Opened, Part, Store, Submission, Writer,
    model::{Fault, ModelDisk, Random},
};

use crate::support::writer::{Channel, Ticks, writer_options};
use crate::support::{SINGLE, State, options, state_of};

/// Records that many submissions put, one after the other.
const SHARED: u64 = 8;

/// What was submitted: its source and ticket, its transaction, and the shared records that it puts or deletes. It puts one
/// record that nobody else does, too: that of its own number.
struct Submitted {
    source: u16,
    ticket: u64,
    transaction: Option<u64>,
    shared: Vec<(u64, bool)>,
}

/// A part that is still to come: of which transaction.
type Forward = u64;

struct Sources {
    random: Random,
    tickets: [u64; 4],
    submitted: Vec<Submitted>,
    forwards: Vec<Forward>,
    /// How many last parts of each transaction are missing.
    missing: BTreeMap<u64, i64>,
}

impl Sources {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            tickets: [0; 4],
            submitted: Vec::new(),
            forwards: Vec::new(),
            missing: BTreeMap::new(),
        }
    }

    /// The next submission: a batch alone, a new transaction, or one of the parts that are still to come, in any order.
    fn next(&mut self, is_at_the_end: bool) -> Submission {
        let number = 100 + self.submitted.len() as u64;
        let source = self.random.below(4) as u16;
        let part = match self.random.below(4) {
            0 if !is_at_the_end => None,
            1 if !is_at_the_end => Some(number),
            _ if self.forwards.is_empty() => None,
            _ => {
                let at = self.random.below(self.forwards.len() as u64) as usize;
                Some(self.forwards.swap_remove(at))
            }
        };
        let part = part.map(|transaction| {
            let part = Part {
                transaction,
                forwards: if is_at_the_end { 0 } else { self.random.below(3) as u32 },
                is_last: is_at_the_end || self.random.below(4) > 0,
                after: None,
            };
            let more = u64::from(part.forwards) + u64::from(!part.is_last);
            self.forwards.extend((0..more).map(|_| transaction));
            *self.missing.entry(transaction).or_insert(1) += i64::from(part.forwards) - i64::from(part.is_last);
            part
        });
        let mut batch = Batch::default();
        let is_empty = self.random.below(6) == 0;
        let mut shared = Vec::new();
        if !is_empty {
            batch.put(SINGLE, number, b"");
            for _ in 0..self.random.below(3) {
                let (id, is_put) = (1 + self.random.below(SHARED), self.random.below(3) > 0);
                match is_put {
                    true => batch.put(SINGLE, id, &number.to_le_bytes()),
                    false => batch.delete(id),
                }
                shared.push((id, is_put));
            }
        }
        let ticket = self.tickets[usize::from(source)] + 1;
        self.tickets[usize::from(source)] = ticket;
        self.submitted.push(Submitted {
            source,
            ticket,
            transaction: part.map(|part| part.transaction),
            // What is empty is there at once: nothing can be looked for.
            shared: if is_empty { vec![(0, false)] } else { shared },
        });
        Submission {
            source,
            ticket,
            part,
            batch,
        }
    }

    /// What a naive owner expects of what is there after a crash.
    fn check(&self, state: &State, answered: &BTreeSet<(u16, u64)>, what: &str) {
        let numbered = || (100_u64..).zip(&self.submitted);
        let is_empty = |submitted: &Submitted| submitted.shared == [(0, false)];
        let (mut whole, mut absent) = (BTreeSet::new(), BTreeSet::new());
        for (number, submitted) in numbered() {
            let is_there = state.contains_key(&number);
            if answered.contains(&(submitted.source, submitted.ticket)) {
                assert!(is_there || is_empty(submitted), "{what}: {number} was answered");
                if let Some(transaction) = submitted.transaction {
                    whole.insert(transaction);
                }
            }
            if let Some(transaction) = submitted.transaction
                && !is_empty(submitted)
            {
                if is_there { &mut whole } else { &mut absent }.insert(transaction);
            }
        }
        let both: Vec<_> = whole.intersection(&absent).collect();
        assert!(both.is_empty(), "{what}: in part: {both:?}");
        for transaction in &whole {
            assert!(self.missing[transaction] <= 0, "{what}: {transaction} was not complete");
        }
        for id in 1..=SHARED {
            let mut value = None;
            for (number, submitted) in numbered().filter(|(number, _)| state.contains_key(number)) {
                for (_, is_put) in submitted.shared.iter().filter(|(other, _)| *other == id) {
                    value = is_put.then(|| number.to_le_bytes().to_vec());
                }
            }
            assert_eq!(
                state.get(&id).map(|record| record.2.clone()),
                value,
                "{what}: record {id}"
            );
        }
    }
}

fn answered(events: &mpsc::Receiver<(u16, Event)>) -> BTreeSet<(u16, u64)> {
    let mut answered = BTreeSet::new();
    let mut upto = [0; 4];
    while let Ok((source, event)) = events.recv() {
        match event {
            Event::Kept(ticket) => {
                let upto = &mut upto[usize::from(source)];
                answered.extend((*upto + 1..=ticket).map(|ticket| (source, ticket)));
                *upto = ticket;
            }
            Event::KeptAlone(ticket) => drop(answered.insert((source, ticket))),
            _ => {}
        }
    }
    answered
}

/// Whatever the order in which parts of transactions come that touch each other's records, and wherever the power goes out
/// or the process is killed: each transaction is there as a whole or not at all, what was answered is there, and records
/// are as whoever came last left them. Without a crash everything is answered.
#[test]
fn transactions_are_whole_after_a_crash() {
    let (mut crashes, mut answers) = (0, 0);
    for seed in 0..240 {
        let mode = if seed % 2 == 0 { Mode::Fsync } else { Mode::Os };
        let disk = ModelDisk::new(seed);
        let Opened { store, .. } = Store::open(disk.clone(), &options(), 0).unwrap();
        let mut sources = Sources::new(seed);
        let crashes_at = (sources.random.below(4) > 0).then(|| disk.calls() + 2 + sources.random.below(30));
        if let Some(call) = crashes_at {
            disk.plant(call, Fault::PowerOff);
        }
        let (sender, events) = mpsc::channel();
        let clock = Arc::new(Ticks::default());
        let writer = Writer::start(store, writer_options(mode, &options()), Channel(sender), clock).unwrap();
        let handle = writer.handle();
        for n in 0..150 {
            handle.submit(sources.next(false));
            if n % 4 == 0 {
                std::thread::yield_now();
            }
        }
        // Some lives end with transactions of which parts never came.
        while !sources.forwards.is_empty() && seed % 5 > 0 {
            handle.submit(sources.next(true));
        }
        let is_ok = writer.stop().is_ok();
        drop(handle);
        let answered = answered(&events);
        crashes += u32::from(!is_ok);
        answers += answered.len();
        if is_ok && seed % 5 > 0 {
            assert_eq!(answered.len(), sources.submitted.len(), "seed {seed}");
        }
        let disk = match mode {
            Mode::Fsync => disk.cut(seed),
            // An answer survives the process there, and no more.
            Mode::Os => disk.restart(),
        };
        let store = Store::open(disk, &options(), 0).unwrap().store;
        sources.check(&state_of(&store).unwrap(), &answered, &format!("seed {seed}"));
    }
    assert!(crashes > 40 && answers > 10_000, "{crashes} crashes, {answers} answers");
}
