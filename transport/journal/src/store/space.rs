//! Room: segments ahead, old ones moved and removed, and what is said where there is none.
//!
//! The oldest segment alone is ever moved: nothing is older, so its deletions need not be kept. What is still live in it is
//! put again behind everything else, then it is removed. A segment without anything live is only removed.

use crate::disk::{Disk, DiskFile};
use crate::error::{CommitError, is_full};
use crate::format::{HEAD, HEADER, Head, RELOCATION, frame, salt, segment_name};
use crate::index::Place;
use crate::ops::{Batch, Family, Op, Ops, Put};

use super::{KEPT_CAPACITY, Pressure, Sealed, Store};

/// What may be moved at once where nothing was written.
const SLICE: u64 = 64 << 10;
const IDLE_SLICE: u64 = 1 << 20;

/// How far the oldest segment has been looked through.
#[derive(Debug)]
pub(super) struct Relocation<F> {
    segment: Sealed,
    file: F,
    at: u64,
    frame: Vec<u8>,
}

impl<D: Disk> Store<D> {
    /// Looks after space, in a bounded step: makes segments ahead, moves live records out of the oldest segment, removes
    /// it. To be called after each commit, and regularly where there are none: `is_idle` then allows a larger step, and
    /// room is looked for again if there was none.
    ///
    /// # Errors
    /// The journal has failed. That there is no room is no error, but [`pressure`](Self::pressure).
    pub fn tend(&mut self, now_unix_millis: u64, is_idle: bool) -> Result<(), CommitError> {
        full_is_fine(self.flush())?;
        self.remove_durable()?;
        if self.pressure != Pressure::DiskFull || is_idle {
            full_is_fine(self.make_spares())?;
        }
        let written = std::mem::take(&mut self.written_bytes);
        let slice = if is_idle { IDLE_SLICE } else { SLICE };
        if self.outgoing.is_empty() && (self.relocation.is_some() || self.has_garbage()) {
            // What has been added comes after it, and may be waiting for the room that this makes.
            let added = std::mem::replace(&mut self.filling, vec![0; HEAD]);
            let records = std::mem::take(&mut self.filling_records);
            let result = self.relocate(4 * written + slice, now_unix_millis);
            self.filling = added;
            self.filling_records = records;
            result?;
            if is_idle && self.pressure == Pressure::DiskFull {
                // What has just been moved may have used up what tells that there is room again, each time.
                full_is_fine(self.make_spares())?;
            }
        }
        self.tell_pressure();
        Ok(())
    }

    /// All that is on the disk, what is kept in reserve included.
    pub(super) fn disk_bytes(&self) -> u64 {
        let segment = u64::from(self.options.segment_bytes);
        self.old_bytes + self.current.length.max(segment) + self.spares.len() as u64 * segment
    }

    fn tell_pressure(&mut self) {
        let bytes = self.disk_bytes();
        let segment = u64::from(self.options.segment_bytes);
        let is_roomless = self.spares.len() <= self.spares_wanted() || !self.outgoing.is_empty();
        self.pressure = match self.pressure {
            Pressure::DiskFull if is_roomless => Pressure::DiskFull,
            _ if bytes > self.options.max_bytes => Pressure::MaxBytes,
            // Not at once, or it would flicker.
            Pressure::MaxBytes if bytes + segment > self.options.max_bytes => Pressure::MaxBytes,
            _ => Pressure::Normal,
        };
    }

    /// Whether so much of the disk is garbage that the oldest segment has to go. The bound that is promised is
    /// max(8 segments, 2 × live + 4 segments): what is written while the live bytes are moved has to fit below it.
    pub(super) fn has_garbage(&self) -> bool {
        let segment = u64::from(self.options.segment_bytes);
        let (bytes, live) = (self.disk_bytes(), self.index.live_bytes());
        let more = (self.spares_wanted() as u64 - 2) * segment;
        let bound = match self.pressure {
            Pressure::Normal => (6 * segment).max(live + live / 2 + 7 * segment / 2) + more,
            // Live bytes are an estimate: it must not look for garbage that is none for ever.
            Pressure::MaxBytes => live + live / 8 + 4 * segment + more,
            // The reserve is used up now and will be made anew: all of it is to be found in garbage.
            Pressure::DiskFull => live + live / 8 + 2 * segment,
        };
        !self.sealed.is_empty() && bytes > bound
    }

    /// Moves what is live in the oldest segment, as many bytes as that.
    fn relocate(&mut self, budget: u64, now_unix_millis: u64) -> Result<(), CommitError> {
        let Some(mut relocation) = self.begin()? else {
            return Ok(());
        };
        let Sealed { id, length } = relocation.segment;
        if self.index.live_in(id as u32) == 0 {
            relocation.at = length;
        }
        // The frame's head, and what ends a segment.
        let left = self.room_left().saturating_sub(HEAD as u64 + 16);
        let budget = budget.min(left);
        let mut read = 0;
        while relocation.at < length && (self.moved.len() as u64) < budget && read < 4 * budget {
            read += self.move_frame(&mut relocation)?;
        }
        let is_done = relocation.at >= length;
        if is_done {
            self.moved.low(id + 1);
        }
        if let Err(error) = self.make_room((HEAD + self.moved.len()) as u64, true) {
            // What was to be moved may be deleted before there is room: it is looked for again then.
            self.moved.clear();
            return full_is_fine(Err(error));
        }
        let moved = std::mem::take(&mut self.moved);
        self.add(&moved);
        self.counts.moved_bytes += moved.len() as u64;
        self.moved = moved;
        self.moved.clear();
        self.moved.shrink_to(KEPT_CAPACITY);
        let frame = self.written + 1;
        if self.filling.len() > HEAD {
            full_is_fine(self.frame(RELOCATION, now_unix_millis))?;
        }
        if is_done {
            self.sealed.pop_front();
            self.leaving.push_back((relocation.segment, frame));
            self.is_unsynced = true;
        } else {
            self.relocation = Some(relocation);
        }
        Ok(())
    }

    /// Goes on where it was stopped, or begins with the oldest segment.
    fn begin(&mut self) -> Result<Option<Relocation<D::File>>, CommitError> {
        if let Some(relocation) = self.relocation.take() {
            return Ok(Some(relocation));
        }
        let Some(&segment) = self.sealed.front() else {
            return Ok(None);
        };
        let name = segment_name(segment.id);
        match self.disk.open(&name) {
            Ok(file) => Ok(Some(Relocation {
                segment,
                file,
                at: HEADER as u64,
                frame: Vec::new(),
            })),
            Err(error) => self.fail(format!("cannot open {name}: {error}")),
        }
    }

    /// Looks through one frame, and says how long it is.
    fn move_frame(&mut self, relocation: &mut Relocation<D::File>) -> Result<u64, CommitError> {
        let id = relocation.segment.id;
        let salt = salt(&self.identity, id);
        let bytes = &mut relocation.frame;
        let head = read_exact(&relocation.file, relocation.at, HEAD, bytes)
            .map(|()| Head::decode(salt, bytes).map_or(0, |head| head.length as usize));
        let whole = head.and_then(|length| read_exact(&relocation.file, relocation.at, HEAD + length, bytes));
        if let Err(error) = whole {
            return self.fail(format!("cannot read {}: {error}", segment_name(id)));
        }
        let Some((_, body)) = frame(salt, bytes) else {
            let name = segment_name(id);
            // To go on would be to remove the segment without what lives in this frame.
            return self.fail(format!(
                "{name} is damaged at offset {}: what was written there does not read back, as the next start will find, too",
                relocation.at
            ));
        };
        let operations = relocation.at as u32 + HEAD as u32;
        for op in Ops::new(body) {
            if let Ok(Op::Put(put)) = op {
                let place = Place {
                    segment: id as u32,
                    offset: operations + put.bytes.start as u32,
                    length: put.bytes.len() as u32,
                };
                if self.index.place(put.id) == Some(place) {
                    again(&mut self.moved, &put, body);
                }
            }
        }
        relocation.at += (HEAD + body.len()) as u64;
        Ok((HEAD + body.len()) as u64)
    }

    /// Removes old segments whose records are durable elsewhere: one after the other, so that none comes back after a power
    /// cut without those behind it.
    pub(super) fn remove_durable(&mut self) -> Result<(), CommitError> {
        while let Some(&(segment, frame)) = self.leaving.front()
            && frame <= self.durable
        {
            let name = segment_name(segment.id);
            match self.disk.unlink(&name).and_then(|()| self.disk.sync_dir()) {
                Ok(()) => {}
                // Some file systems need room to remove a name: there may be some the next time.
                Err(error) if is_full(&error) => return Ok(()),
                // It was removed the last time.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if let Err(error) = self.disk.sync_dir() {
                        return self.fail(format!("cannot remove {name}: {error}"));
                    }
                }
                Err(error) => return self.fail(format!("cannot remove {name}: {error}")),
            }
            self.leaving.pop_front();
            self.old_bytes -= segment.length;
            self.low = segment.id + 1;
            self.counts.removed_segments += 1;
        }
        Ok(())
    }
}

fn again(into: &mut Batch, put: &Put, body: &[u8]) {
    let bytes = body.get(put.bytes.clone()).unwrap_or_default();
    match put.family {
        Family::Single => into.put(put.kind, put.id, bytes),
        Family::Child(parent) => into.child(put.kind, put.id, parent, bytes),
        Family::Body => into.body(put.kind, put.id, bytes),
    }
}

fn read_exact<F: DiskFile>(file: &F, offset: u64, length: usize, into: &mut Vec<u8>) -> std::io::Result<()> {
    into.clear();
    into.resize(length, 0);
    let read = file.read_at(into, offset)?;
    into.truncate(read);
    Ok(())
}

/// That there is no room shows in the pressure; only a failure ends anything.
pub(super) fn full_is_fine(result: Result<(), CommitError>) -> Result<(), CommitError> {
    match result {
        Err(CommitError::Full) => Ok(()),
        result => result,
    }
}
