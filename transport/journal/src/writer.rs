//! A store on a thread of its own: batches come through a queue, answers go to a sink.
//!
//! All that waits when the thread turns to it becomes one frame, one write and, in [`Mode::Fsync`], one sync. There is no
//! timer: while one sync runs the next frame fills. Nobody who submits ever waits for the disk.

mod counters;
mod tickets;
mod transactions;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::disk::Disk;
use crate::error::{CommitError, Failure};
use crate::ops::Batch;
use crate::store::{Pressure, Store, SyncJob};

use counters::Counters;
pub use counters::{BATCH_SIZES, Numbers};
use tickets::Tickets;
use transactions::Transactions;

/// A frame is closed at this length; one batch may be longer.
const FRAME_BYTES: usize = 1 << 20;
/// What a batch costs in the queue beside its bytes.
const BATCH_OVERHEAD: usize = 128;
/// How long the thread sleeps where nothing is to be done, and where it looks for room or moves records.
const TICK: Duration = Duration::from_secs(1);
const BUSY_TICK: Duration = Duration::from_millis(20);
/// How often what was written is synced in [`Mode::Os`], and how often sizes are counted.
const SYNC_NANOS: u64 = 1_000_000_000;
const COUNT_NANOS: u64 = 100_000_000;

/// What an answered ticket promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It survives the process: the operating system has it. A power cut loses at most about a second of it.
    Os,
    /// It survives a power cut: it was synced.
    Fsync,
}

/// What time it is: the journal does not ask the system.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn unix_millis(&self) -> u64;
    /// Nanoseconds since any moment; never backwards.
    fn nanos(&self) -> u64;
}

/// Who hears what becomes of batches. Called on the writer's thread, so it must not wait.
pub trait Sink: Send + 'static {
    /// Something happened to what a source submitted, or to the journal.
    fn tell(&mut self, source: u16, event: Event);
}

/// What a source hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All its tickets up to this one are kept as promised.
    Kept(u64),
    /// This ticket is, though one before it still waits for another source.
    KeptAlone(u64),
    /// Whether there is room has changed.
    Pressure(Pressure),
    /// The journal has failed: no ticket will be answered any more.
    Failed(Failure),
    /// A batch has been used up: it is empty, and can be filled again.
    Spent(Batch),
}

/// A batch to be kept.
#[derive(Debug)]
pub struct Submission {
    /// Whose.
    pub source: u16,
    /// Its number: tickets of a source count up by one, from 1.
    pub ticket: u64,
    /// The transaction that it is a part of.
    pub part: Option<Part>,
    /// Its records.
    pub batch: Batch,
}

/// A part of a transaction: it is kept together with all other parts, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The transaction's number, which no other one has.
    pub transaction: u64,
    /// How many parts it has. One that has nothing to keep is an empty batch.
    pub of: u16,
    /// It is the first, of whoever began it: the others are accepted whatever waits.
    pub is_first: bool,
}

/// How much waits in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Little.
    Normal,
    /// More than half of what may: bring less.
    High,
}

/// A submission that was not taken: too much waits.
#[derive(Debug)]
pub struct Refused(pub Submission);

/// How a writer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// What an answer promises.
    pub mode: Mode,
    /// Sources are numbered from 0 to below this.
    pub sources: u16,
    /// How many bytes may wait.
    pub queue_bytes_max: usize,
}

/// What submissions go through; clones are the same queue.
#[derive(Clone, Debug)]
pub struct Handle {
    sender: Sender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queued: AtomicUsize,
    queue_bytes_max: usize,
    counters: Counters,
}

#[derive(Debug)]
enum Message {
    Submit(Submission),
    Synced {
        frame: u64,
        result: io::Result<()>,
        nanos: u64,
    },
    Stop,
}

impl Handle {
    /// Queues a batch. Never waits.
    ///
    /// # Errors
    /// So much waits already that it is not taken. The part that completes another's transaction always is.
    pub fn submit(&self, submission: Submission) -> Result<Load, Refused> {
        let bytes = cost(&submission.batch);
        let must = submission.part.is_some_and(|part| !part.is_first);
        let queued = self.shared.queued.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if queued > self.shared.queue_bytes_max && !must {
            self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused(submission));
        }
        // The writer's thread outlives its queue's last sender; after a stop nobody asks for answers.
        let _ = self.sender.send(Message::Submit(submission));
        Ok(if queued > self.shared.queue_bytes_max / 2 {
            Load::High
        } else {
            Load::Normal
        })
    }

    /// What has been done, as numbers.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.shared
            .counters
            .numbers(self.shared.queued.load(Ordering::Relaxed) as u64)
    }
}

fn cost(batch: &Batch) -> usize {
    batch.len() + BATCH_OVERHEAD
}

/// The thread.
#[derive(Debug)]
pub struct Writer {
    handle: Handle,
    thread: JoinHandle<Result<(), CommitError>>,
}

impl Writer {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start<D: Disk>(
        store: Store<D>,
        options: WriterOptions,
        sink: impl Sink,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let (sender, receiver) = unbounded();
        let shared = Arc::new(Shared {
            queued: AtomicUsize::new(0),
            queue_bytes_max: options.queue_bytes_max,
            counters: Counters::default(),
        });
        let handle = Handle {
            sender: sender.clone(),
            shared: Arc::clone(&shared),
        };
        let syncer = match options.mode {
            Mode::Fsync => None,
            Mode::Os => Some(Syncer::start(sender, Arc::clone(&clock))?),
        };
        let now = clock.nanos();
        let thread = Thread {
            store,
            options,
            sink: Box::new(sink),
            clock,
            receiver,
            shared,
            syncer,
            transactions: Transactions::default(),
            tickets: (0..options.sources).map(|_| Tickets::default()).collect(),
            ready: Vec::new(),
            ready_bytes: 0,
            unanswered: Vec::new(),
            pressure: Pressure::Normal,
            has_told_failure: false,
            synced_at: now,
            counted_at: now,
            tended_at: now,
        };
        let thread = std::thread::Builder::new()
            .name("sol-journal".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self { handle, thread })
    }

    /// What to submit through.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes all that was submitted before, answers it, and closes the journal. Transactions that are not complete are
    /// dropped.
    ///
    /// # Errors
    /// Not all of it could be kept.
    pub fn stop(self) -> Result<(), CommitError> {
        let _ = self.handle.sender.send(Message::Stop);
        let fault = || {
            CommitError::Failed(Failure(
                "the journal's thread has died: a fault of this program".to_owned(),
            ))
        };
        self.thread.join().unwrap_or_else(|_| Err(fault()))
    }
}

/// Syncs beside the writer, which goes on answering meanwhile.
#[derive(Debug)]
struct Syncer<F> {
    jobs: Sender<SyncJob<F>>,
    thread: JoinHandle<()>,
    is_at_work: bool,
}

impl<F: crate::disk::DiskFile> Syncer<F> {
    fn start(results: Sender<Message>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (jobs, receiver) = bounded::<SyncJob<F>>(1);
        let thread = std::thread::Builder::new()
            .name("sol-journal-sync".to_owned())
            .spawn(move || {
                for job in receiver {
                    let before = clock.nanos();
                    let result = job.run();
                    let nanos = clock.nanos().saturating_sub(before);
                    let _ = results.send(Message::Synced {
                        frame: job.frame(),
                        result,
                        nanos,
                    });
                }
            })?;
        Ok(Self {
            jobs,
            thread,
            is_at_work: false,
        })
    }
}

struct Thread<D: Disk> {
    store: Store<D>,
    options: WriterOptions,
    sink: Box<dyn Sink>,
    clock: Arc<dyn Clock>,
    receiver: Receiver<Message>,
    shared: Arc<Shared>,
    syncer: Option<Syncer<D::File>>,
    transactions: Transactions,
    tickets: Vec<Tickets>,
    /// Batches for the next frame.
    ready: Vec<Submission>,
    ready_bytes: usize,
    /// What was given to the store and waits for its promise.
    unanswered: Vec<(u16, u64)>,
    pressure: Pressure,
    has_told_failure: bool,
    synced_at: u64,
    counted_at: u64,
    tended_at: u64,
}

impl<D: Disk> Thread<D> {
    fn run(mut self) -> Result<(), CommitError> {
        loop {
            let tick = if self.store.has_work() { BUSY_TICK } else { TICK };
            let mut is_idle = false;
            let mut stops = false;
            match self.receiver.recv_timeout(tick) {
                Ok(message) => stops |= self.take(message),
                Err(RecvTimeoutError::Timeout) => is_idle = true,
                Err(RecvTimeoutError::Disconnected) => stops = true,
            }
            while self.ready_bytes < FRAME_BYTES
                && let Ok(message) = self.receiver.try_recv()
            {
                stops |= self.take(message);
            }
            if stops {
                return self.stop();
            }
            // What fails is told to everybody, once; then there is nothing left to do but to say no more.
            if self.turn(is_idle).is_err() {
                self.tell_failure();
            }
        }
    }

    /// Whether it is the last one.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Submit(submission) => {
                let before = self.ready.len();
                self.transactions.take(submission, &mut self.ready);
                let new = self.ready.get(before..).unwrap_or_default();
                self.ready_bytes += new.iter().map(|submission| submission.batch.len()).sum::<usize>();
                false
            }
            Message::Synced { frame, result, nanos } => {
                self.shared.counters.sync(nanos);
                if let Some(syncer) = &mut self.syncer {
                    syncer.is_at_work = false;
                }
                // A failure is kept by the store.
                let _ = self.store.finished(frame, result);
                false
            }
            Message::Stop => true,
        }
    }

    fn turn(&mut self, is_idle: bool) -> Result<(), CommitError> {
        let now = self.clock.unix_millis();
        match self.write(now) {
            Ok(()) | Err(CommitError::Full) => {}
            failed => return failed,
        }
        // Room is looked for once a second even where deletions keep the thread busy.
        let nanos = self.clock.nanos();
        let is_due = is_idle || nanos.saturating_sub(self.tended_at) >= SYNC_NANOS;
        if is_due {
            self.tended_at = nanos;
        }
        self.store.tend(now, is_due)?;
        if is_idle {
            match self.store.mark(now) {
                Ok(()) | Err(CommitError::Full) => {}
                failed => return failed,
            }
        }
        self.sync_beside(is_idle)?;
        self.tell_pressure();
        self.count();
        Ok(())
    }

    /// One frame of all that is ready, and its answers.
    fn write(&mut self, now: u64) -> Result<(), CommitError> {
        if !self.unanswered.is_empty() {
            // There was no room for these.
            self.store.commit(now)?;
            self.answer()?;
        }
        if self.ready.is_empty() {
            return self
                .store
                .failure()
                .map_or(Ok(()), |failure| Err(failure.clone().into()));
        }
        self.shared.counters.batch(self.ready.len());
        let mut bytes = 0;
        for submission in self.ready.drain(..) {
            bytes += cost(&submission.batch);
            self.store.add(&submission.batch);
            self.unanswered.push((submission.source, submission.ticket));
            let mut batch = submission.batch;
            batch.clear();
            self.sink.tell(submission.source, Event::Spent(batch));
        }
        self.ready_bytes = 0;
        self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
        self.store.commit(now)?;
        self.answer()
    }

    /// The promise holds for all that was committed.
    fn answer(&mut self) -> Result<(), CommitError> {
        if self.options.mode == Mode::Fsync {
            self.sync()?;
        }
        for (source, ticket) in self.unanswered.drain(..) {
            if let Some(tickets) = self.tickets.get_mut(usize::from(source)) {
                tickets.done(ticket);
            }
        }
        for (source, tickets) in self.tickets.iter_mut().enumerate() {
            tickets.tell(|event| self.sink.tell(source as u16, event));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CommitError> {
        let before = self.clock.nanos();
        self.store.sync()?;
        self.shared.counters.sync(self.clock.nanos().saturating_sub(before));
        Ok(())
    }

    /// Syncs what no answer waits for.
    fn sync_beside(&mut self, is_idle: bool) -> Result<(), CommitError> {
        let now = self.clock.nanos();
        let Some(syncer) = &mut self.syncer else {
            if is_idle && self.store.sync_job().is_some() {
                self.sync()?;
            }
            return Ok(());
        };
        if !syncer.is_at_work
            && (is_idle || now.saturating_sub(self.synced_at) >= SYNC_NANOS)
            && let Some(job) = self.store.sync_job()
        {
            self.synced_at = now;
            syncer.is_at_work = syncer.jobs.try_send(job).is_ok();
        }
        Ok(())
    }

    fn tell_pressure(&mut self) {
        let pressure = self.store.pressure();
        if pressure != self.pressure {
            self.pressure = pressure;
            for source in 0..self.options.sources {
                self.sink.tell(source, Event::Pressure(pressure));
            }
        }
    }

    fn tell_failure(&mut self) {
        let mut bytes = 0;
        for submission in self.ready.drain(..) {
            bytes += cost(&submission.batch);
        }
        self.ready_bytes = 0;
        self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(failure) = self.store.failure()
            && !self.has_told_failure
        {
            self.has_told_failure = true;
            for source in 0..self.options.sources {
                self.sink.tell(source, Event::Failed(failure.clone()));
            }
        }
    }

    fn count(&mut self) {
        self.shared.counters.set(self.store.counts(), self.store.pressure());
        let now = self.clock.nanos();
        if now.saturating_sub(self.counted_at) >= COUNT_NANOS {
            self.counted_at = now;
            self.shared.counters.set_sizes(self.store.sizes());
        }
    }

    fn stop(mut self) -> Result<(), CommitError> {
        if let Some(Syncer { jobs, thread, .. }) = self.syncer.take() {
            drop(jobs);
            let _ = thread.join();
        }
        while let Ok(message) = self.receiver.try_recv() {
            self.take(message);
        }
        let now = self.clock.unix_millis();
        let result = self.write(now);
        self.count();
        match result {
            Ok(()) => self.store.close(now),
            failed => {
                self.tell_failure();
                failed
            }
        }
    }
}
