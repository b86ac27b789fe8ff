//! The writer's thread.

use std::{io, sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::disk::Disk;
use crate::error::{CommitError, Failure};
use crate::store::{Pressure, Store};

use super::desk::Desk;
use super::syncer::Syncer;
use super::{Clock, Event, Handle, Load, Message, Mode, Shared, Sink, WriterOptions, cost, death};

/// A frame is closed at this length, a cost for each batch included; one batch may be longer.
const FRAME_BYTES: usize = 1 << 20;
/// How long the thread sleeps where nothing is to be done, and where it moves records.
const TICK: Duration = Duration::from_secs(1);
const BUSY_TICK: Duration = Duration::from_millis(20);
/// How often what was written is synced in [`Mode::Os`], and how often sizes are counted.
const SYNC_NANOS: u64 = 1_000_000_000;
const COUNT_NANOS: u64 = 100_000_000;

/// All sources, who are told of the end even if it is the thread's death.
struct Sources {
    sink: Box<dyn Sink>,
    count: u16,
    have_heard_the_end: bool,
}

impl Sources {
    fn tell(&mut self, source: u16, event: Event) {
        self.sink.tell(source, event);
    }

    fn tell_all(&mut self, event: &Event) {
        for source in 0..self.count {
            self.sink.tell(source, event.clone());
        }
    }

    fn tell_end(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.have_heard_the_end, true) {
            self.tell_all(&Event::Failed(failure.clone()));
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It may be the sink that has panicked, and will again.
            let tell = std::panic::AssertUnwindSafe(|| self.tell_end(&death()));
            let _ = std::panic::catch_unwind(tell);
        }
    }
}

pub(super) struct Thread<D: Disk> {
    desk: Desk<D>,
    mode: Mode,
    sources: Sources,
    clock: Arc<dyn Clock>,
    receiver: Receiver<Message>,
    shared: Arc<Shared>,
    syncer: Option<Syncer<D::File>>,
    /// What has been taken since the last frame, ready or not.
    taken_bytes: usize,
    pressure: Pressure,
    now_nanos: u64,
    synced_at: u64,
    counted_at: u64,
    tended_at: u64,
}

impl<D: Disk> Thread<D> {
    pub(super) fn new(
        store: Store<D>,
        options: WriterOptions,
        sink: Box<dyn Sink>,
        clock: Arc<dyn Clock>,
        (receiver, handle): (Receiver<Message>, &Handle),
    ) -> io::Result<Self> {
        let syncer = match options.mode {
            Mode::Fsync => None,
            Mode::Os => Some(Syncer::start(handle.sender.clone(), Arc::clone(&clock))?),
        };
        let now = clock.nanos();
        Ok(Self {
            desk: Desk::new(store, options.mode, options.sources),
            mode: options.mode,
            sources: Sources {
                sink,
                count: options.sources,
                have_heard_the_end: false,
            },
            clock,
            receiver,
            shared: Arc::clone(&handle.shared),
            syncer,
            taken_bytes: 0,
            pressure: Pressure::Normal,
            now_nanos: now,
            synced_at: now,
            counted_at: now,
            tended_at: now,
        })
    }

    pub(super) fn run(mut self) -> Result<(), CommitError> {
        loop {
            let tick = if self.desk.store.has_work() { BUSY_TICK } else { TICK };
            let mut is_idle = false;
            let mut stops = false;
            match self.receiver.recv_timeout(tick) {
                Ok(message) => stops |= self.take(message),
                Err(RecvTimeoutError::Timeout) => is_idle = true,
                Err(RecvTimeoutError::Disconnected) => stops = true,
            }
            self.now_nanos = self.clock.nanos();
            while self.taken_bytes < FRAME_BYTES
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
                self.taken_bytes += cost(&submission.batch);
                self.desk.take(submission, self.now_nanos);
                false
            }
            Message::Synced { frame, result, nanos } => {
                self.shared.counters.sync(nanos);
                if let Some(syncer) = &mut self.syncer {
                    syncer.finished();
                }
                // A failure is kept by the store.
                let _ = self.desk.store.finished(frame, result);
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
        self.tend(now, is_idle)?;
        if is_idle {
            match self.desk.store.mark(now) {
                Ok(()) | Err(CommitError::Full) => {}
                failed => return failed,
            }
        }
        self.sync_beside(is_idle)?;
        self.tell_pressure();
        self.count();
        Ok(())
    }

    fn tend(&mut self, now: u64, is_idle: bool) -> Result<(), CommitError> {
        // Once a second even where deletions keep the thread busy, and on a full disk no more often.
        let is_due = self.now_nanos.saturating_sub(self.tended_at) >= SYNC_NANOS;
        if is_due {
            self.tended_at = self.now_nanos;
        }
        let may_take_long = is_idle && (self.pressure != Pressure::DiskFull || !self.desk.store.has_work());
        self.desk.store.tend(now, is_due || may_take_long)
    }

    /// One frame of all that is ready, and its answers.
    fn write(&mut self, now: u64) -> Result<(), CommitError> {
        self.taken_bytes = 0;
        if self.desk.owes_answers() {
            // There was no room for these.
            self.desk.commit(now)?;
            self.answer()?;
        }
        if !self.desk.is_ready() {
            return (self.desk.store)
                .failure()
                .map_or(Ok(()), |failure| Err(failure.clone().into()));
        }
        self.shared.counters.batch(self.desk.ready.len());
        let mut bytes = 0;
        let Self { desk, shared, .. } = self;
        desk.fill(|submission| {
            bytes += cost(&submission.batch);
            shared.give_back(submission.source, submission.batch);
        });
        self.shrink(bytes);
        self.desk.commit(now)?;
        self.answer()
    }

    fn shrink(&mut self, bytes: usize) {
        if self.shared.shrink(bytes) {
            self.sources.tell_all(&Event::Load(Load::Normal));
        }
    }

    /// The promise holds for all that was committed.
    fn answer(&mut self) -> Result<(), CommitError> {
        if self.mode == Mode::Fsync {
            self.sync()?;
        }
        let Self { desk, sources, .. } = self;
        desk.answer(|source, event| sources.tell(source, event));
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CommitError> {
        let before = self.clock.nanos();
        self.desk.store.sync()?;
        self.shared.counters.sync(self.clock.nanos().saturating_sub(before));
        Ok(())
    }

    /// Syncs what no answer waits for.
    fn sync_beside(&mut self, is_idle: bool) -> Result<(), CommitError> {
        let now = self.clock.nanos();
        let Some(syncer) = &mut self.syncer else {
            if is_idle && self.desk.store.sync_job().is_some() {
                self.sync()?;
            }
            return Ok(());
        };
        if !syncer.is_at_work()
            && (is_idle || now.saturating_sub(self.synced_at) >= SYNC_NANOS)
            && let Some(job) = self.desk.store.sync_job()
        {
            self.synced_at = now;
            syncer.begin(job);
        }
        Ok(())
    }

    fn tell_pressure(&mut self) {
        let pressure = self.desk.store.pressure();
        if pressure != self.pressure {
            self.pressure = pressure;
            self.sources.tell_all(&Event::Pressure(pressure));
        }
    }

    fn tell_failure(&mut self) {
        let bytes = self
            .desk
            .ready
            .drain(..)
            .map(|submission| cost(&submission.batch))
            .sum();
        self.taken_bytes = 0;
        self.shrink(bytes);
        if let Some(failure) = self.desk.store.failure() {
            self.sources.tell_end(failure);
        }
    }

    fn count(&mut self) {
        let counters = &self.shared.counters;
        counters.set(self.desk.store.counts(), self.desk.store.pressure());
        let now = self.clock.nanos();
        let (waiting, since) = self.desk.waiting();
        counters.set_waiting(waiting, since.map_or(0, |since| now.saturating_sub(since)));
        if now.saturating_sub(self.counted_at) >= COUNT_NANOS {
            self.counted_at = now;
            counters.set_sizes(self.desk.store.sizes());
        }
    }

    fn stop(mut self) -> Result<(), CommitError> {
        if let Some(syncer) = self.syncer.take() {
            syncer.stop();
        }
        while let Ok(message) = self.receiver.try_recv() {
            self.take(message);
        }
        let now = self.clock.unix_millis();
        let result = self.write(now);
        self.count();
        match result {
            Ok(()) => self.desk.store.close(now),
            failed => {
                // What did find room is to last.
                let synced = self.desk.store.sync();
                self.tell_failure();
                synced.and(failed)
            }
        }
    }
}
