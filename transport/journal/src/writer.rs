//! A store on a thread of its own: batches come through a queue, answers go to a sink.
//!
//! All that waits when the thread turns to it becomes one frame, one write and, in [`Mode::Fsync`], one sync. There is no
//! timer: while one sync runs the next frame fills. Nobody who submits ever waits for the disk.

mod counters;
mod desk;
mod syncer;
mod thread;
mod tickets;
mod transactions;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::disk::Disk;
use crate::error::{CommitError, Failure};
use crate::ops::Batch;
use crate::store::{Pressure, Store};

use counters::Counters;
pub use counters::{BATCH_SIZES, Numbers};
pub use desk::Desk;
use thread::Thread;

/// What a batch costs in the queue beside its bytes.
const BATCH_OVERHEAD: usize = 128;
/// Empty batches that are kept for a source, and the largest that is: it would keep its room for good. A shard submits one a
/// turn, and all of them take turns.
const SPARES_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 256 << 10;

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
    /// Little waits in the queue, after so much did that [`Load::High`] was answered to somebody: bring more.
    Load(Load),
    /// The journal has failed: no ticket will be answered any more.
    Failed(Failure),
}

/// A batch to be kept.
#[derive(Debug)]
pub struct Submission {
    /// Whose.
    pub source: u16,
    /// Its number: a source's submissions count up by one, from 1; those with an empty batch too.
    pub ticket: u64,
    /// What it is a part of, if it is kept with others' submissions or not at all.
    pub part: Option<Part>,
    /// Its records.
    pub batch: Batch,
}

/// A part of a transaction: it is kept together with all other parts, or not at all.
///
/// How many parts there are turns out as they come: a transaction is complete when as many last parts have come as all its
/// parts together forwarded, and one more, of whoever began it. A part has to be submitted before whatever comes of its
/// forwards is, and every forward has to be answered by a last part, if only an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The transaction's number, which no other one has.
    pub transaction: u64,
    /// How many sources will send parts of their own because of this one.
    pub forwards: u32,
    /// Its source sends no more parts of what it was asked for once.
    pub is_last: bool,
    /// Transactions that name the same record are kept in the order of their first parts, as if each of them touched it.
    pub after: Option<u64>,
}

/// How much waits in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Little.
    Normal,
    /// More than half of what may: bring nothing new until [`Event::Load`] says that little waits.
    High,
}

/// How a writer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// What an answer promises.
    pub mode: Mode,
    /// Sources are numbered from 0 to below this.
    pub sources: u16,
    /// How many bytes are to wait at most. Nothing is refused: above half of it [`Load::High`] is answered, and a quarter
    /// is little again. What waits for parts of its transaction counts.
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
    /// [`Load::High`] was answered, and nothing has taken it back.
    is_high: AtomicBool,
    queue_bytes_max: usize,
    /// Batches of each source that have been used up. Whoever they are for finds them: nobody is woken for one.
    spares: Box<[(Sender<Batch>, Receiver<Batch>)]>,
    counters: Counters,
}

impl Shared {
    fn new(options: WriterOptions) -> Self {
        Self {
            queued: AtomicUsize::new(0),
            is_high: AtomicBool::new(false),
            queue_bytes_max: options.queue_bytes_max,
            spares: (0..options.sources).map(|_| bounded(SPARES_MAX)).collect(),
            counters: Counters::default(),
        }
    }

    /// A batch has been used up: it can be filled again.
    fn give_back(&self, source: u16, mut batch: Batch) {
        if batch.room() <= SPARE_BYTES_MAX
            && let Some((spares, _)) = self.spares.get(usize::from(source))
        {
            batch.clear();
            // Where there are enough of them it is freed.
            let _ = spares.try_send(batch);
        }
    }

    /// What waits is this much less. Says whether those who were told to bring less are to bring more.
    fn shrink(&self, bytes: usize) -> bool {
        let queued = self.queued.fetch_sub(bytes, Ordering::AcqRel).saturating_sub(bytes);
        // Whoever raises the flag does so before the submission is in the queue, so before the last call of this.
        queued <= self.queue_bytes_max / 4
            && self.is_high.load(Ordering::Acquire)
            && self.is_high.swap(false, Ordering::AcqRel)
    }
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
    /// An empty batch, which has the room of one that was used up if there is any.
    #[must_use]
    pub fn batch(&self, source: u16) -> Batch {
        let spares = self.shared.spares.get(usize::from(source));
        spares
            .and_then(|(_, spares)| spares.try_recv().ok())
            .unwrap_or_default()
    }

    /// Queues a batch: always, and without waiting. After the journal's end it is dropped.
    #[allow(clippy::must_use_candidate, reason = "who reads from nobody has nothing to stop")]
    pub fn submit(&self, submission: Submission) -> Load {
        debug_assert!(
            usize::from(submission.source) < self.shared.spares.len(),
            "nobody would be answered"
        );
        let bytes = cost(&submission.batch);
        let queued = self.shared.queued.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let is_high = queued > self.shared.queue_bytes_max / 2;
        if is_high {
            self.shared.is_high.store(true, Ordering::Release);
        }
        if self.sender.send(Message::Submit(submission)).is_err() {
            self.shared.queued.fetch_sub(bytes, Ordering::AcqRel);
        }
        if is_high { Load::High } else { Load::Normal }
    }

    /// How much waits: [`Load::High`] from when more than half of what may does until it is less than a quarter.
    #[must_use]
    pub fn load(&self) -> Load {
        if self.shared.is_high.load(Ordering::Acquire) {
            Load::High
        } else {
            Load::Normal
        }
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

/// The thread. Where it is dropped without having been stopped, it is stopped then.
#[derive(Debug)]
pub struct Writer {
    handle: Handle,
    thread: Option<JoinHandle<Result<(), CommitError>>>,
}

impl Writer {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no more threads; or the store's reserve is too small to take all that may wait when the disk is full,
    /// and a segment for deletions beside it.
    pub fn start<D: Disk>(
        store: Store<D>,
        options: WriterOptions,
        sink: impl Sink,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        if (options.queue_bytes_max as u64).saturating_add(store.segment_bytes()) > store.reserve_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the journal's reserve is smaller than its queue and a segment",
            ));
        }
        let (sender, receiver) = unbounded();
        let shared = Arc::new(Shared::new(options));
        let handle = Handle {
            sender,
            shared: Arc::clone(&shared),
        };
        let thread = Thread::new(store, options, Box::new(sink), clock, (receiver, &handle))?;
        let thread = std::thread::Builder::new()
            .name("sol-journal".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
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
    pub fn stop(mut self) -> Result<(), CommitError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), CommitError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let _ = self.handle.sender.send(Message::Stop);
        if std::thread::panicking() {
            // Its owner has other worries than to wait for a disk.
            return Ok(());
        }
        thread.join().unwrap_or_else(|_| Err(death().into()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What is said of a thread that ended without being told to.
fn death() -> Failure {
    Failure("a thread of the journal has died: a fault of this program".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Kind;

    /// A batch that was used up is found by its source, empty, with its room; one that is very large is freed, and so is what
    /// nobody comes for.
    #[test]
    fn batches_are_used_again() {
        let (sender, _receiver) = unbounded();
        let shared = Arc::new(Shared::new(WriterOptions {
            mode: Mode::Os,
            sources: 2,
            queue_bytes_max: 0,
        }));
        let handle = Handle { sender, shared };
        let filled = |length| {
            let mut batch = Batch::default();
            batch.put(Kind::new(1), 1, &vec![0; length]);
            batch
        };
        let used = filled(1_000);
        let room = used.bytes().as_ptr();
        handle.shared.give_back(1, used);
        assert_ne!(handle.batch(0).bytes().as_ptr(), room);
        let again = handle.batch(1);
        assert!(again.is_empty() && again.records() == 0 && again.bytes().as_ptr() == room);
        handle.shared.give_back(1, filled(SPARE_BYTES_MAX + 1));
        (0..=SPARES_MAX).for_each(|_| handle.shared.give_back(0, filled(1)));
        let waiting = |source: usize| handle.shared.spares[source].1.len();
        assert_eq!((waiting(0), waiting(1)), (SPARES_MAX, 0));
    }
}
