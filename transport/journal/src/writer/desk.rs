//! The writer without its thread: what it does with submissions, a step at a time.

use crate::disk::Disk;
use crate::error::CommitError;
use crate::store::Store;

use super::tickets::Tickets;
use super::transactions::Transactions;
use super::{Event, Mode, Submission};

/// A store, what waits to be written to it, and who waits for that. [`Writer`](super::Writer) runs one on a thread;
/// simulations take each step when they like, and may take none that follows.
#[derive(Debug)]
pub struct Desk<D: Disk> {
    pub(super) store: Store<D>,
    mode: Mode,
    transactions: Transactions,
    tickets: Vec<Tickets>,
    /// For the next frame.
    pub(super) ready: Vec<Submission>,
    /// What was given to the store and waits for its promise.
    unanswered: Vec<(u16, u64)>,
}

impl<D: Disk> Desk<D> {
    /// One of so many sources.
    #[must_use]
    pub fn new(store: Store<D>, mode: Mode, sources: u16) -> Self {
        Self {
            store,
            mode,
            transactions: Transactions::default(),
            tickets: (0..sources).map(|_| Tickets::default()).collect(),
            ready: Vec::new(),
            unanswered: Vec::new(),
        }
    }

    /// Takes a submission: it is ready, or waits for what has to be kept before it or with it. `now` is the time, in a unit
    /// of the caller's own.
    pub fn take(&mut self, submission: Submission, now: u64) {
        self.transactions.take(submission, now, &mut self.ready);
    }

    /// Gives all that is ready to the store, and each submission to `spends`, its batch still full.
    pub fn fill(&mut self, mut spends: impl FnMut(Submission)) {
        for submission in self.ready.drain(..) {
            self.store.add(&submission.batch);
            self.unanswered.push((submission.source, submission.ticket));
            spends(submission);
        }
    }

    /// Writes what was given to the store, as one frame.
    ///
    /// # Errors
    /// There is no room yet, or the journal has failed.
    pub fn commit(&mut self, now_unix_millis: u64) -> Result<(), CommitError> {
        self.store.commit(now_unix_millis).map(drop)
    }

    /// Makes the promise of its mode true for all that was committed.
    ///
    /// # Errors
    /// The journal has failed.
    pub fn promise(&mut self) -> Result<(), CommitError> {
        match self.mode {
            Mode::Os => Ok(()),
            Mode::Fsync => self.store.sync(),
        }
    }

    /// The promise is true for all that was committed: tells each source of that.
    pub fn answer(&mut self, mut tell: impl FnMut(u16, Event)) {
        for (source, ticket) in self.unanswered.drain(..) {
            if let Some(tickets) = self.tickets.get_mut(usize::from(source)) {
                tickets.done(ticket);
            }
        }
        for (source, tickets) in self.tickets.iter_mut().enumerate() {
            tickets.tell(|event| tell(source as u16, event));
        }
    }

    /// Whether something is ready to be given to the store.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether somebody waits for what was given to the store.
    #[must_use]
    pub const fn owes_answers(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// How many transactions are not complete, and when the oldest of them began.
    #[must_use]
    pub fn waiting(&self) -> (usize, Option<u64>) {
        self.transactions.waiting()
    }

    /// What it writes to.
    #[must_use]
    pub const fn store(&self) -> &Store<D> {
        &self.store
    }

    /// What it writes to, to be looked after.
    #[must_use]
    pub const fn store_mut(&mut self) -> &mut Store<D> {
        &mut self.store
    }
}
