//! Where each live record lies, and how many children each body has.
//!
//! An entry is 24 bytes in a chunk, and 4 bytes and a control byte in a hash table of which at least seven sixteenths are
//! used while nothing is deleted: at most 36 bytes for a record then, and no step in which a large table of entries is copied.
//! What is deleted leaves room for what comes: a chunk goes with its last entry, and the table shrinks below an eighth.

mod entry;

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashTable;

use crate::hash::hash;
use crate::ops::{Family, Kind, Op, Put};

use entry::{At, Entry, Size, State};

const CHUNK: usize = 4096;
/// Entries that a chunk grows by: one that is not full yet must not make a few thousand records expensive.
const GROWTH: usize = CHUNK / 8;
const NONE: u32 = u32::MAX;

/// Where a record's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A live record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) family: Family,
    pub(crate) place: Place,
}

/// A record names a parent that is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) parent: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    entries: Vec<Entry>,
    live: usize,
    free: u32,
}

/// Live bytes of each segment.
#[derive(Debug, Default)]
struct Usage {
    first: u32,
    live: VecDeque<u64>,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    table: HashTable<u32>,
    chunks: Vec<Chunk>,
    /// Chunks with a free entry.
    roomy: Vec<u32>,
    usage: Usage,
    live_bytes: u64,
    records: u64,
    /// Entries to be looked at when the frame ends; unused while a log is read, when only its end counts: a body may have
    /// been moved to behind or before its children.
    touched: Vec<u32>,
    is_reading: bool,
    /// Records that were not taken, since what they name as their parent is there and no body; and what that is. What was put
    /// again or deleted since is not among them: while a log is read all is judged by its end, but for a parent that is a body
    /// only later.
    strays: BTreeMap<u64, u64>,
}

impl Index {
    /// An index of a log that is about to be read.
    pub(crate) fn reading() -> Self {
        Self {
            is_reading: true,
            ..Self::default()
        }
    }

    /// Applies an operation of a frame whose operations begin at an offset of a segment.
    #[inline]
    pub(crate) fn apply(&mut self, op: &Op, segment: u32, operations: u32) {
        match op {
            Op::Delete { id } => self.delete(*id),
            Op::Put(put) => self.put(put, segment, operations),
            Op::Low { .. } => {}
        }
    }

    fn put(&mut self, put: &Put, segment: u32, operations: u32) {
        let mut slot = self.slot_or_new(put.id);
        if put.family != Family::Body && self.entry(slot).children() > 0 {
            slot = self.set_aside(slot);
        }
        let old = *self.entry(slot);
        let (state, link) = match put.family {
            Family::Body => (State::Body, old.children()),
            Family::Single => (State::Single, 0),
            Family::Child(parent) => match self.adopt(slot, parent) {
                Some(parent) => (State::Child, parent),
                None => return self.stray(slot, parent),
            },
        };
        let new = Entry {
            id: put.id,
            // A segment is shorter than 4 GiB: FRAME_MAX and the size of one.
            at: At::new(segment, operations + put.bytes.start as u32, put.kind),
            size: Size::new(put.bytes.len() as u32, state),
            link,
        };
        *self.entry_mut(slot) = new;
        self.strays.remove(&put.id);
        self.forget(&old);
        self.usage.add(segment, new.cost());
        self.live_bytes += new.cost();
        self.records += 1;
        if state == State::Body && link == 0 {
            self.touch(slot);
        }
    }

    /// Counts a child of what is, or may become, a body.
    fn adopt(&mut self, child: u32, parent: u64) -> Option<u32> {
        let slot = self.slot_or_new(parent);
        let entry = self.entry_mut(slot);
        let state = entry.state();
        if slot == child || matches!(state, State::Single | State::Child) {
            return None;
        }
        entry.link += 1;
        if state == State::Absent {
            self.touch(slot);
        }
        Some(slot)
    }

    /// Makes room for another record of an identifier that was a body's: after a restart it may be given out anew, and of a
    /// damaged log the deletions between may be lost. Those that name it as their parent have none any more.
    fn set_aside(&mut self, slot: u32) -> u32 {
        let old = *self.entry(slot);
        self.unlist(slot, old.id);
        self.forget(&old);
        *self.entry_mut(slot) = Entry {
            link: old.link,
            ..Entry::absent(old.id)
        };
        self.touch(slot);
        self.allocate(old.id)
    }

    /// A child of what is no body is not taken, and what it was before is no more.
    fn stray(&mut self, slot: u32, parent: u64) {
        let old = *self.entry(slot);
        self.forget(&old);
        *self.entry_mut(slot) = Entry::absent(old.id);
        self.touch(slot);
        self.strays.insert(old.id, parent);
    }

    fn delete(&mut self, id: u64) {
        self.strays.remove(&id);
        let Some(slot) = self.slot(id) else { return };
        let old = *self.entry(slot);
        if matches!(old.state(), State::Single | State::Child) {
            self.forget(&old);
            self.free(slot);
        }
    }

    /// What an entry stood for is no more: its bytes are garbage, and its parent has a child less.
    fn forget(&mut self, old: &Entry) {
        if old.state() == State::Absent {
            return;
        }
        self.usage.sub(old.at.segment(self.usage.first), old.cost());
        self.live_bytes -= old.cost();
        self.records -= 1;
        if old.state() == State::Child {
            let entry = self.entry_mut(old.link);
            entry.link -= 1;
            if entry.link == 0 {
                self.touch(old.link);
            }
        }
    }

    /// A frame has been applied: bodies without children are gone.
    ///
    /// # Errors
    /// A record names a parent that is no body.
    pub(crate) fn end_of_frame(&mut self) -> Result<(), Orphan> {
        while let Some(slot) = self.touched.pop() {
            self.settle(slot)?;
        }
        self.no_strays()
    }

    fn no_strays(&self) -> Result<(), Orphan> {
        let first = self.strays.first_key_value();
        first.map_or(Ok(()), |(_, &parent)| Err(Orphan { parent }))
    }

    /// The log has been read.
    ///
    /// # Errors
    /// A record names a parent that is no body.
    pub(crate) fn end_of_log(&mut self) -> Result<(), Orphan> {
        self.is_reading = false;
        for slot in 0..(self.chunks.len() * CHUNK) as u32 {
            if self.is_used(slot) {
                self.settle(slot)?;
            }
        }
        self.touched.clear();
        self.no_strays()
    }

    /// The log has been read, as far as it could be: what names a parent that is not there is dropped. Says how many.
    pub(crate) fn end_of_damaged_log(&mut self) -> u64 {
        let all = 0..(self.chunks.len() * CHUNK) as u32;
        let slots: Vec<u32> = all.filter(|&slot| self.is_used(slot)).collect();
        let orphaned = |&&slot: &&u32| {
            let entry = self.entry(slot);
            entry.state() == State::Child && self.entry(entry.link).state() != State::Body
        };
        let orphans: Vec<u64> = slots.iter().filter(orphaned).map(|&slot| self.entry(slot).id).collect();
        for &id in &orphans {
            self.delete(id);
        }
        for slot in slots {
            if self.is_used(slot) && self.entry(slot).state() == State::Absent {
                self.free(slot);
            }
        }
        let strays = std::mem::take(&mut self.strays);
        // Nothing is left that could be an orphan.
        let _ = self.end_of_log();
        (orphans.len() + strays.len()) as u64
    }

    fn settle(&mut self, slot: u32) -> Result<(), Orphan> {
        if !self.is_used(slot) {
            return Ok(());
        }
        let entry = *self.entry(slot);
        match (entry.state(), entry.children()) {
            (State::Body, 0) => {
                self.forget(&entry);
                self.free(slot);
            }
            (State::Absent, 0) => self.free(slot),
            (State::Absent, 1..) => return Err(Orphan { parent: entry.id }),
            _ => {}
        }
        Ok(())
    }

    /// Where a live record lies.
    pub(crate) fn place(&self, id: u64) -> Option<Place> {
        let entry = self.entry(self.slot(id)?);
        (entry.state() != State::Absent).then(|| self.place_of(entry))
    }

    fn place_of(&self, entry: &Entry) -> Place {
        Place {
            segment: entry.at.segment(self.usage.first),
            offset: entry.at.offset(),
            length: entry.size.length(),
        }
    }

    /// All live records with their slots, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Live)> {
        let chunks = self.chunks.iter().enumerate();
        let slots = chunks.flat_map(|(number, chunk)| (0..chunk.entries.len()).map(move |at| number * CHUNK + at));
        slots.filter_map(|slot| Some((slot as u32, self.live(slot as u32)?)))
    }

    /// The live record of a slot.
    pub(crate) fn live(&self, slot: u32) -> Option<Live> {
        let entry = self.is_used(slot).then(|| self.entry(slot))?;
        let family = match entry.state() {
            State::Absent => return None,
            State::Single => Family::Single,
            State::Child => Family::Child(self.entry(entry.link).id),
            State::Body => Family::Body,
        };
        Some(Live {
            kind: entry.at.kind(),
            id: entry.id,
            family,
            place: self.place_of(entry),
        })
    }

    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    /// What all live records would take in a log of nothing else, about.
    pub(crate) const fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// What a segment's live records take.
    pub(crate) fn live_in(&self, segment: u32) -> u64 {
        self.usage.of(segment)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.entries.capacity()).sum();
        self.table.allocation_size() + chunks * size_of::<Entry>() + self.touched.capacity() * 4
    }

    fn touch(&mut self, slot: u32) {
        if !self.is_reading {
            self.touched.push(slot);
        }
    }

    fn slot(&self, id: u64) -> Option<u32> {
        self.table.find(hash(id), |&slot| self.entry(slot).id == id).copied()
    }

    fn slot_or_new(&mut self, id: u64) -> u32 {
        match self.slot(id) {
            Some(slot) => slot,
            None => self.allocate(id),
        }
    }

    fn allocate(&mut self, id: u64) -> u32 {
        let number = self.roomy.last().copied().unwrap_or_else(|| {
            self.chunks.push(Chunk {
                free: NONE,
                ..Chunk::default()
            });
            let number = self.chunks.len() as u32 - 1;
            self.roomy.push(number);
            number
        });
        let entry = Entry::absent(id);
        let chunk = self.chunk(number);
        chunk.live += 1;
        let place = if chunk.free == NONE {
            if chunk.entries.len() == chunk.entries.capacity() {
                chunk.entries.reserve_exact(GROWTH);
            }
            chunk.entries.push(entry);
            chunk.entries.len() - 1
        } else {
            let place = chunk.free as usize;
            if let Some(free) = chunk.entries.get_mut(place) {
                chunk.free = free.link;
                *free = entry;
            }
            place
        };
        if chunk.live == CHUNK {
            self.roomy.pop();
        }
        let slot = number * CHUNK as u32 + place as u32;
        let chunks = &self.chunks;
        self.table
            .insert_unique(hash(id), slot, |&slot| hash(entry_of(chunks, slot).id));
        slot
    }

    fn free(&mut self, slot: u32) {
        self.unlist(slot, self.entry(slot).id);
        let number = slot / CHUNK as u32;
        let chunk = self.chunk(number);
        let was_full = chunk.live == CHUNK;
        chunk.live -= 1;
        if chunk.live == 0 {
            *chunk = Chunk {
                free: NONE,
                ..Chunk::default()
            };
        } else if let Some(entry) = chunk.entries.get_mut(slot as usize % CHUNK) {
            *entry = Entry {
                link: chunk.free,
                ..Entry::absent(0)
            };
            chunk.free = slot % CHUNK as u32;
        }
        if was_full {
            self.roomy.push(number);
        }
        if self.table.capacity() > 4096 && self.table.len() * 8 < self.table.capacity() {
            let chunks = &self.chunks;
            self.table
                .shrink_to(self.table.len() * 2, |&slot| hash(entry_of(chunks, slot).id));
        }
    }

    fn unlist(&mut self, slot: u32, id: u64) {
        if let Ok(found) = self.table.find_entry(hash(id), |&other| other == slot) {
            found.remove();
        }
    }

    fn is_used(&self, slot: u32) -> bool {
        let chunk = self.chunks.get(slot as usize / CHUNK);
        chunk
            .and_then(|chunk| chunk.entries.get(slot as usize % CHUNK))
            .is_some_and(|entry| entry.id != 0)
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "a chunk's number comes from a slot, or from the list of chunks"
    )]
    fn chunk(&mut self, number: u32) -> &mut Chunk {
        &mut self.chunks[number as usize]
    }

    fn entry(&self, slot: u32) -> &Entry {
        entry_of(&self.chunks, slot)
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "slots come from the table and from parents, which are never freed before"
    )]
    fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.chunks[slot as usize / CHUNK].entries[slot as usize % CHUNK]
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "slots come from the table and from parents, which are never freed before"
)]
fn entry_of(chunks: &[Chunk], slot: u32) -> &Entry {
    &chunks[slot as usize / CHUNK].entries[slot as usize % CHUNK]
}

impl Usage {
    fn add(&mut self, segment: u32, bytes: u64) {
        if self.live.is_empty() {
            self.first = segment;
        }
        // Segments are only ever read and written in order, but one may be relocated from before the first with live bytes.
        while segment < self.first {
            self.live.push_front(0);
            self.first -= 1;
        }
        let at = (segment - self.first) as usize;
        if at >= self.live.len() {
            self.live.resize(at + 1, 0);
        }
        if let Some(live) = self.live.get_mut(at) {
            *live += bytes;
        }
    }

    fn sub(&mut self, segment: u32, bytes: u64) {
        if let Some(live) = segment
            .checked_sub(self.first)
            .and_then(|at| self.live.get_mut(at as usize))
        {
            *live -= bytes;
        }
        while self.live.len() > 1 && self.live.front() == Some(&0) {
            self.live.pop_front();
            self.first += 1;
        }
    }

    fn of(&self, segment: u32) -> u64 {
        let at = segment.checked_sub(self.first);
        at.and_then(|at| self.live.get(at as usize)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
