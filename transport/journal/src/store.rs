//! The log without a thread: what is added is written, synced, moved and removed when it is told to.

mod open;
mod records;
mod segments;
mod space;
mod sync;

use std::{collections::VecDeque, sync::Arc};

use crate::disk::{Disk, DiskFile};
use crate::error::{CommitError, Failure, is_full};
use crate::format::{CLEAN_CLOSE, FRAME_MAX, HEAD, Head, RELOCATION, salt, segment_name};
use crate::index::Index;
use crate::ops::{Batch, Ops};
use crate::read::OnDamage;

pub use open::Opened;
pub(crate) use records::visit;
pub use records::{RecordKey, RecordRef};
use segments::create_segment;
use space::{Relocation, full_is_fine};
pub use sync::SyncJob;
use sync::Syncs;

/// What a buffer keeps after a frame that needed much more.
const KEPT_CAPACITY: usize = 4 << 20;

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// When a segment is full. A frame is never split, so one may be longer. At most 1 GiB.
    pub segment_bytes: u32,
    /// What is kept in reserve where the disk is full, for what is on its way and for deletions; it counts as used. At
    /// least, and usually, two segments.
    pub reserve_bytes: u64,
    /// Above this many bytes on the disk the journal says that it is full, as it does where there is no room.
    pub max_bytes: u64,
    /// What to do with a damaged journal.
    pub on_damage: OnDamage,
    /// The identity of a new journal: bytes that nobody else knows.
    pub identity: [u8; 16],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            reserve_bytes: 0,
            max_bytes: u64::MAX,
            on_damage: OnDamage::Refuse,
            identity: *b"sol-journal-test",
        }
    }
}

impl Options {
    /// How many segments are kept ahead: the next one, and a reserve for deletions and for moving where there is no more
    /// room.
    pub(crate) fn spares_wanted(&self) -> usize {
        let segments = self.reserve_bytes.div_ceil(u64::from(self.segment_bytes));
        (segments as usize).max(2)
    }

    /// What a journal takes before anything is in it: its first segment and those that are made ahead.
    pub(crate) fn beginning_bytes(&self) -> u64 {
        (self.spares_wanted() as u64 + 1) * u64::from(self.segment_bytes)
    }
}

/// Whether there is room for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pressure {
    /// There is.
    #[default]
    Normal,
    /// The disk is full: what is added goes into what was kept in reserve. Add deletions, and little else.
    DiskFull,
    /// The journal has as many bytes as it may have.
    MaxBytes,
}

/// What a [`Store`] counts, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records put and deleted.
    pub records: u64,
    /// Frames written, which is how many writes there were.
    pub frames: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes of these that were moved from old segments.
    pub moved_bytes: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Segments removed.
    pub removed_segments: u64,
}

/// A journal's state on the disk, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes on the disk, those in reserve included.
    pub disk_bytes: u64,
    /// Bytes that the live records would take alone.
    pub live_bytes: u64,
    /// Live records.
    pub live_records: u64,
    /// Segments, those in reserve included.
    pub segments: u64,
    /// Bytes of memory of the index.
    pub index_bytes: u64,
}

/// A journal that is open.
#[derive(Debug)]
pub struct Store<D: Disk> {
    disk: Arc<D>,
    options: Options,
    identity: [u8; 16],
    index: Index,
    sealed: VecDeque<Sealed>,
    current: Segment<D::File>,
    spares: VecDeque<Segment<D::File>>,
    /// The frame that is being filled: room for its head, then operations.
    filling: Vec<u8>,
    filling_records: u32,
    /// A frame that the index knows already and the disk does not.
    outgoing: Vec<u8>,
    /// Its records, if an owner put them.
    outgoing_records: u32,
    outgoing_is_moved: bool,
    next: Head,
    written: u64,
    durable: u64,
    marked: u64,
    /// Frames with records have been written since the last sync, and since the last one that told of a sync.
    is_unsynced: bool,
    is_unmarked: bool,
    low: u64,
    pressure: Pressure,
    relocation: Option<Relocation<D::File>>,
    moved: Batch,
    /// Segments to be removed once this frame is durable.
    leaving: VecDeque<(Sealed, u64)>,
    /// Bytes of all segments before the current one.
    old_bytes: u64,
    failure: Option<Failure>,
    syncs: Syncs,
    counts: Counts,
    /// Bytes written by the owner since space was last looked after.
    written_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sealed {
    id: u64,
    length: u64,
}

#[derive(Debug)]
struct Segment<F> {
    id: u64,
    file: F,
    length: u64,
}

impl<D: Disk> Store<D> {
    /// Adds a batch to the frame that the next [`commit`](Self::commit) writes: all of a frame is kept, or nothing.
    pub fn add(&mut self, batch: &Batch) {
        self.filling.extend_from_slice(batch.bytes());
        self.filling_records += batch.records();
    }

    /// How many bytes have been added and not committed.
    #[must_use]
    pub const fn added(&self) -> usize {
        self.filling.len() - HEAD
    }

    /// Writes what was added, as one frame. It survives the process now, and a power cut after a sync. Says the frame's
    /// number.
    ///
    /// # Errors
    /// There is no room yet, or the journal has failed.
    pub fn commit(&mut self, now_unix_millis: u64) -> Result<u64, CommitError> {
        self.flush()?;
        if self.filling.len() > HEAD {
            self.frame(0, now_unix_millis)?;
        }
        Ok(self.written)
    }

    /// Makes all that was committed durable.
    ///
    /// # Errors
    /// The disk failed. Then nothing that was committed since the last sync is known to be durable, nothing ever will be,
    /// and to ask again would prove nothing.
    pub fn sync(&mut self) -> Result<(), CommitError> {
        self.check()?;
        if self.is_unsynced || self.durable < self.written {
            let result = self.syncs.sync(&self.current.file);
            self.counts.syncs += 1;
            self.synced(self.written, result)?;
        }
        Ok(())
    }

    /// What another thread can sync in the meantime; nothing if no record waits for it.
    #[must_use]
    pub fn sync_job(&self) -> Option<SyncJob<D::File>> {
        self.is_unsynced.then(|| SyncJob {
            file: self.current.file.clone(),
            frame: self.written,
            syncs: self.syncs.clone(),
        })
    }

    /// The [`SyncJob`] of this frame has been done.
    ///
    /// # Errors
    /// It failed, and so has the journal.
    pub fn finished(&mut self, frame: u64, result: std::io::Result<()>) -> Result<(), CommitError> {
        self.counts.syncs += 1;
        self.synced(frame, result)
    }

    /// Whether it wants to be [tended](Self::tend) soon, though nothing is committed.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.failure.is_none()
            && (self.relocation.is_some()
                || !self.leaving.is_empty()
                || (self.pressure != Pressure::DiskFull && self.has_garbage()))
    }

    fn synced(&mut self, frame: u64, result: std::io::Result<()>) -> Result<(), CommitError> {
        if let Err(error) = result {
            let name = segment_name(self.current.id);
            return self.fail(format!(
                "cannot sync {name}: {error}; what is not acknowledged may be lost"
            ));
        }
        // Segments before the current one were synced before it was begun.
        self.durable = self.durable.max(frame);
        self.is_unsynced = self.durable < self.written;
        Ok(())
    }

    /// Frames up to this one are durable.
    #[must_use]
    pub const fn durable(&self) -> u64 {
        self.durable
    }

    /// Frames up to this one are written.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Writes down what is durable, if no frame has said so yet: from then on damage to it cannot be taken for a tail.
    /// Worth a call when nothing else is to be done.
    ///
    /// # Errors
    /// There is no room yet, or the journal has failed.
    pub fn mark(&mut self, now_unix_millis: u64) -> Result<(), CommitError> {
        self.flush()?;
        if self.is_unmarked && self.marked < self.durable && self.filling.len() == HEAD {
            self.frame(0, now_unix_millis)?;
            self.is_unmarked = false;
        }
        Ok(())
    }

    /// Writes and syncs everything, says in the log that it was closed, and gives reserves back.
    ///
    /// # Errors
    /// There is no room for what was added, or the disk failed.
    pub fn close(mut self, now_unix_millis: u64) -> Result<(), CommitError> {
        self.commit(now_unix_millis)?;
        self.sync()?;
        self.remove_durable()?;
        // Where there is no room to say so, all is kept nevertheless.
        full_is_fine(self.frame(CLEAN_CLOSE, now_unix_millis))?;
        let length = self.current.length;
        let _ = self.current.file.truncate(length);
        self.is_unsynced = true;
        self.sync()?;
        while self.give_back_spare()? {}
        Ok(())
    }

    /// Whether there is room.
    #[must_use]
    pub const fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// What it has failed with, if it has.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// What was done since it was opened.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How large it is.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            disk_bytes: self.disk_bytes(),
            live_bytes: self.index.live_bytes(),
            live_records: self.index.records(),
            segments: (self.sealed.len() + self.leaving.len() + self.spares.len()) as u64 + 1,
            index_bytes: self.index.memory() as u64,
        }
    }

    /// Makes what was filled into a frame, and writes it.
    fn frame(&mut self, flags: u32, now_unix_millis: u64) -> Result<(), CommitError> {
        if self.filling.len() > FRAME_MAX {
            // It could not be read again.
            return self.fail("a commit is longer than a frame may be: a fault of this program".to_owned());
        }
        self.make_room(self.filling.len() as u64, flags != 0)?;
        std::mem::swap(&mut self.filling, &mut self.outgoing);
        self.filling.clear();
        self.filling.resize(HEAD, 0);
        let records = std::mem::take(&mut self.filling_records);
        let mut head = Head {
            sequence: self.written + 1,
            durable: self.durable,
            unix_millis: now_unix_millis,
            records,
            flags,
            ..self.next
        };
        head.seal(salt(&self.identity, self.current.id), &mut self.outgoing);
        self.next.previous = head.crc;
        self.apply()?;
        self.marked = head.durable;
        self.outgoing_is_moved = flags & RELOCATION != 0;
        self.outgoing_records = if self.outgoing_is_moved { 0 } else { records };
        self.is_unmarked |= records > 0;
        self.is_unsynced |= records > 0;
        self.flush()
    }

    /// Tells the index of the outgoing frame, before the disk: a frame that does not make sense must never be written.
    fn apply(&mut self) -> Result<(), CommitError> {
        let body = self.outgoing.get(HEAD..).unwrap_or_default();
        let operations = (self.current.length + HEAD as u64) as u32;
        for op in Ops::new(body) {
            let Ok(op) = op else {
                return self.fail("a batch could not be read back: a fault of this program".to_owned());
            };
            self.index.apply(&op, self.current.id as u32, operations);
        }
        match self.index.end_of_frame() {
            Ok(()) => Ok(()),
            Err(orphan) => self.fail(format!(
                "a record refers to record {:#x}, which is not there: a fault of this program",
                orphan.parent
            )),
        }
    }

    /// Writes the outgoing frame, if there is one.
    fn flush(&mut self) -> Result<(), CommitError> {
        self.check()?;
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let mut written = self.current.file.write_at(&self.outgoing, self.current.length);
        while let Err(error) = &written
            && is_full(error)
        {
            self.pressure = Pressure::DiskFull;
            // A part of it would keep room for nothing. Should this fail, the next write will tell.
            let _ = self.current.file.truncate(self.current.length);
            // Room that is kept ahead is of no use while this segment has none.
            if !self.give_back_spare()? {
                return Err(CommitError::Full);
            }
            written = self.current.file.write_at(&self.outgoing, self.current.length);
        }
        if let Err(error) = written {
            let name = segment_name(self.current.id);
            return self.fail(format!("cannot write {name}: {error}"));
        }
        let length = self.outgoing.len() as u64;
        self.outgoing.clear();
        if self.outgoing.capacity() > 2 * KEPT_CAPACITY {
            self.outgoing.shrink_to(KEPT_CAPACITY);
        }
        self.counts.records += u64::from(std::mem::take(&mut self.outgoing_records));
        self.current.length += length;
        self.written += 1;
        self.written_bytes += if self.outgoing_is_moved { 0 } else { length };
        self.counts.bytes += length;
        self.counts.frames += 1;
        Ok(())
    }

    fn check(&self) -> Result<(), CommitError> {
        self.failure.clone().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// From now on nothing is acknowledged any more.
    fn fail<T>(&mut self, sentence: String) -> Result<T, CommitError> {
        let failure = self.failure.get_or_insert(Failure(sentence));
        Err(CommitError::Failed(failure.clone()))
    }
}
