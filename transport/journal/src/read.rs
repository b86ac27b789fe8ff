//! From the files of a directory to the records that live, or a refusal.
//!
//! One pass in the order of writing. Where the next frame is not, one question decides: does any frame behind it say that
//! it was durable? If so, this is damage, and the journal refuses. If not, it is a tail, and dropped.

mod evidence;
mod files;

use std::collections::VecDeque;

use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, OpenError};
use crate::format::{CLEAN_CLOSE, HEAD, HEADER, Head, find_head, frame, salt, segment_name, segment_of};
use crate::index::Index;
use crate::ops::{Op, Ops};

use files::File;

/// What to do with a journal that is damaged at or before its durable mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not open it.
    #[default]
    Refuse,
    /// Open it with what can still be read before and after the damage. What was deleted within a hole may be there
    /// again, and what was put there is not.
    Salvage,
}

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments that were read.
    pub segments: u64,
    /// Frames that were read.
    pub frames: u64,
    /// Bytes of these segments.
    pub bytes: u64,
    /// The last frame's sequence number.
    pub sequence: u64,
    /// When the last frame was written, in milliseconds since 1970; 0 if there is none.
    pub written_at: u64,
    /// It was closed in order.
    pub was_closed: bool,
    /// A tail of which nothing says that it was durable, and which is dropped.
    pub tail: Option<Tail>,
    /// Frames that are lost: only in a journal that is salvaged.
    pub holes: Vec<Hole>,
    /// Records that were dropped because their parent is lost: only in a journal that is salvaged.
    pub orphans: u64,
}

impl Report {
    /// Whether all that was durable was there and is used. Where it was not, it was salvaged.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.holes.is_empty() && self.orphans == 0
    }
}

/// A tail that is not whole, and of which nothing says that it was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The segment in which it begins.
    pub file: String,
    /// Where.
    pub offset: u64,
    /// Its bytes, and those of segments behind it.
    pub bytes: u64,
    /// The frames in it that can be made out.
    pub frames: u64,
}

/// Frames that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The segment in which it begins.
    pub file: String,
    /// Where.
    pub offset: u64,
    /// The first frame that is lost; 0 if it is a segment's header, which holds no frame.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// How far an opening is, for whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The log is read.
    Read {
        /// Bytes that were.
        bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// It was damaged, and what could be read is written anew.
    Salvaged {
        /// Records that were.
        records: u64,
        /// Of so many.
        of: u64,
    },
}

/// All that a journal goes on with.
#[derive(Debug)]
pub(crate) struct Found<F> {
    pub(crate) index: Index,
    pub(crate) store: Option<[u8; 16]>,
    /// Segments that count, with the length that does.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Empty segments behind them, that were made ahead.
    pub(crate) spares: Vec<u64>,
    /// Segments that do not count.
    pub(crate) leftovers: Vec<u64>,
    pub(crate) low: u64,
    pub(crate) previous: u32,
    /// The highest durable mark in a frame.
    pub(crate) marked: u64,
    /// Where the first frame begins of which nothing says that it is durable: segment and offset.
    pub(crate) unproven: Option<(u64, u64)>,
    /// All files that count: they can be read even if they are removed meanwhile.
    pub(crate) files: Vec<(u64, F)>,
    pub(crate) report: Report,
}

impl<F> Found<F> {
    /// Up to which offset a segment is known to be durable.
    pub(crate) fn proven_to(&self, segment: u64) -> u64 {
        match self.unproven {
            Some((first, offset)) if first == segment => offset,
            Some((first, _)) if first < segment => HEADER as u64,
            _ => self.length_of(segment),
        }
    }

    fn length_of(&self, segment: u64) -> u64 {
        let mut lengths = self.segments.iter();
        lengths.find(|(id, _)| *id == segment).map_or(0, |(_, length)| *length)
    }
}

pub(crate) fn io_error(doing: &'static str, file: &str, error: std::io::Error) -> OpenError {
    OpenError::Io {
        doing,
        file: file.to_owned(),
        error,
    }
}

/// Reads a directory. Changes nothing in it.
pub(crate) fn read<D: Disk>(disk: &D, on_damage: OnDamage) -> Result<Found<D::File>, OpenError> {
    read_telling(disk, on_damage, &mut |_| {})
}

/// The same, and says after each segment how far it is.
pub(crate) fn read_telling<D: Disk>(
    disk: &D,
    on_damage: OnDamage,
    tell: &mut dyn FnMut(Progress),
) -> Result<Found<D::File>, OpenError> {
    let names = disk.list().map_err(|error| io_error("read the directory", "", error))?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
    ids.sort_unstable();
    let mut reader = Reader {
        disk,
        on_damage,
        files: Vec::new(),
        store: None,
        index: Index::reading(),
        expected: None,
        promised: 0,
        proven: 0,
        hole: None,
        low: 1,
        previous: 0,
        marked: 0,
        unproven: VecDeque::new(),
        unfinished: None,
        report: Report::default(),
    };
    let mut leftovers = reader.headers(&ids)?;
    let segments = reader.segments(&mut leftovers, tell)?;
    reader.finish(segments, leftovers)
}

struct Reader<'a, D: Disk> {
    disk: &'a D,
    on_damage: OnDamage,
    files: Vec<File<D::File>>,
    store: Option<[u8; 16]>,
    index: Index,
    /// The next frame's number and the checksum before it, once that can be told.
    expected: Option<(u64, u32)>,
    /// Frames up to this one were durable, says a header.
    promised: u64,
    /// In a salvage: frames up to this one were durable, says anything at all.
    proven: u64,
    /// Where frames are lost, until the next one that is not.
    hole: Option<(String, u64)>,
    low: u64,
    previous: u32,
    marked: u64,
    /// Frames that are not known to be durable yet: number, segment and offset.
    unproven: VecDeque<(u64, u64, u64)>,
    /// The last file, if it has less than a header.
    unfinished: Option<Tail>,
    report: Report,
}

impl<D: Disk> Reader<'_, D> {
    /// Reads all segments; what comes after a tail is added to the leftovers.
    fn segments(
        &mut self,
        leftovers: &mut Vec<u64>,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Vec<(u64, u64)>, OpenError> {
        if self.files.first().is_some_and(|file| file.id == 1) {
            self.expected = Some((1, 0));
        }
        let mut segments = Vec::new();
        let mut bytes = Vec::new();
        let mut next = None;
        let of = self.files.iter().map(|file| file.size).sum();
        let mut read = 0;
        for at in 0..self.files.len() {
            let Some(id) = self.files.get(at).map(|file| file.id) else {
                break;
            };
            if next.is_some_and(|next| next != id) {
                self.missing(next.unwrap_or(id))?;
            }
            next = Some(id + 1);
            if let Some(file) = self.files.get(at) {
                file.load(self.on_damage, &mut bytes)?;
            }
            let end = self.segment(at, &bytes)?;
            read += bytes.len() as u64;
            tell(Progress::Read { bytes: read, of });
            self.report.segments += 1;
            self.report.bytes += end;
            segments.push((id, end));
            if self.report.tail.is_some() {
                leftovers.extend(self.files.iter().skip(at + 1).map(|file| file.id));
                break;
            }
        }
        self.check_promise(&segments)?;
        if let Some(&(first, _)) = segments.first()
            && first > self.low
        {
            self.missing(self.low)?;
        }
        Ok(segments)
    }

    /// A log that ends before what a header says was durable was cut.
    fn check_promise(&mut self, segments: &[(u64, u64)]) -> Result<(), OpenError> {
        let with_frames = segments.iter().rfind(|(_, length)| *length > HEADER as u64);
        let Some(&(id, end)) = with_frames.or_else(|| segments.first()) else {
            return Ok(());
        };
        let sequence = self.report.sequence + 1;
        if self.promised < sequence || self.report.tail.is_some() {
            return Ok(());
        }
        let file = segment_name(id);
        if self.on_damage == OnDamage::Refuse {
            return Err(OpenError::Damaged(Damage {
                file,
                offset: end,
                sequence,
                durable: self.promised,
            }));
        }
        self.hole.get_or_insert((file, end));
        Ok(())
    }

    fn missing(&mut self, segment: u64) -> Result<(), OpenError> {
        let file = segment_name(segment);
        if self.on_damage == OnDamage::Refuse {
            return Err(OpenError::Missing { file });
        }
        self.hole.get_or_insert((file, 0));
        Ok(())
    }

    /// Reads one segment and says how much of it counts.
    fn segment(&mut self, at: usize, bytes: &[u8]) -> Result<u64, OpenError> {
        let Some((id, name, salt)) = self.names(at) else {
            return Ok(0);
        };
        let mut offset = HEADER;
        while offset < bytes.len() {
            let rest = bytes.get(offset..).unwrap_or_default();
            match frame(salt, rest) {
                Some((head, body)) if self.follows(&head, at) => {
                    self.frame(id, &name, offset, &head, body)?;
                    offset += HEAD + body.len();
                }
                _ => match self.break_at(at, bytes, offset)? {
                    Some(next) => offset = next,
                    None => return Ok(offset as u64),
                },
            }
        }
        Ok(bytes.len() as u64)
    }

    fn names(&self, at: usize) -> Option<(u64, String, u32)> {
        let file = self.files.get(at)?;
        Some((file.id, file.name.clone(), salt(&self.store?, file.id)))
    }

    /// Whether this frame is the next one. A segment without a frame is never followed by one with frames.
    fn follows(&self, head: &Head, at: usize) -> bool {
        match self.expected {
            None => at == 0 || self.hole.is_some(),
            Some((sequence, _)) if self.hole.is_some() => head.sequence >= sequence,
            Some((sequence, previous)) => head.sequence == sequence && head.previous == previous,
        }
    }

    fn frame(&mut self, id: u64, name: &str, offset: usize, head: &Head, body: &[u8]) -> Result<(), OpenError> {
        let newer = |at: usize| OpenError::Newer {
            file: name.to_owned(),
            offset: at as u64,
        };
        if head.is_newer() {
            return Err(newer(offset + 40));
        }
        if let Some((file, at)) = self.hole.take() {
            let first = self.expected.map_or(0, |(sequence, _)| sequence);
            let hole = Hole {
                file,
                offset: at,
                first,
                last: head.sequence - 1,
            };
            self.report.holes.push(hole);
        }
        // Whoever opened the file has seen to it that the number is small.
        let (segment, operations) = (id as u32, (offset + HEAD) as u32);
        let mut records = 0;
        for op in Ops::new(body) {
            let op = op.map_err(|unknown| newer(offset + HEAD + unknown.at))?;
            if let Op::Low { segment } = op {
                // It never speaks of what comes after it.
                if segment > id {
                    return Err(newer(offset + HEAD));
                }
                self.low = self.low.max(segment);
            } else {
                records += 1;
            }
            self.index.apply(&op, segment, operations);
        }
        if records != head.records {
            return Err(newer(offset + 36));
        }
        self.expected = Some((head.sequence + 1, head.crc));
        self.previous = head.crc;
        self.marked = self.marked.max(head.durable);
        self.unproven.push_back((head.sequence, id, offset as u64));
        let proven = self.marked.max(self.promised);
        while self.unproven.front().is_some_and(|(sequence, ..)| *sequence <= proven) {
            self.unproven.pop_front();
        }
        self.report.frames += 1;
        self.report.sequence = head.sequence;
        self.report.written_at = head.unix_millis;
        self.report.was_closed = head.flags & CLEAN_CLOSE != 0;
        Ok(())
    }

    /// The next frame is not at this offset. Says where to go on, if anywhere in this segment.
    fn break_at(&mut self, at: usize, bytes: &[u8], offset: usize) -> Result<Option<usize>, OpenError> {
        let Some(file) = self.files.get(at) else {
            return Ok(None);
        };
        let (id, name) = (file.id, file.name.clone());
        let evidence = self.evidence(at, bytes, offset)?;
        if evidence.durable == 0 && self.hole.is_none() {
            self.report.tail = Some(Tail {
                file: name,
                offset: offset as u64,
                bytes: evidence.bytes,
                frames: evidence.frames,
            });
            return Ok(None);
        }
        if self.on_damage == OnDamage::Refuse {
            return Err(OpenError::Damaged(self.damage(at, offset, evidence.durable)));
        }
        self.hole.get_or_insert((name, offset as u64));
        let salt = self.store.map_or(0, |store| salt(&store, id));
        let first = self.expected.map_or(1, |(sequence, _)| sequence);
        let mut from = offset;
        while let Some((found, _)) = find_head(salt, bytes, from, &(first..=u64::MAX)) {
            if frame(salt, bytes.get(found..).unwrap_or_default()).is_some() {
                return Ok(Some(found));
            }
            from = found + 1;
        }
        Ok(None)
    }

    /// A frame that is whole but not the next one says that the segment before it was cut.
    fn damage(&self, at: usize, offset: usize, durable: u64) -> Damage {
        let sequence = self.expected.map_or(0, |(sequence, _)| sequence);
        let before = at.checked_sub(1).and_then(|at| self.files.get(at));
        let here = self.files.get(at).map(|file| file.name.clone()).unwrap_or_default();
        let (file, offset) = match before {
            Some(before) if offset == HEADER && self.is_later(at, offset, sequence) => {
                (before.name.clone(), before.size)
            }
            _ => (here, offset as u64),
        };
        Damage {
            file,
            offset,
            sequence,
            durable,
        }
    }

    fn is_later(&self, at: usize, offset: usize, sequence: u64) -> bool {
        let (Some(file), Some(store)) = (self.files.get(at), self.store) else {
            return false;
        };
        let mut bytes = [0; HEAD];
        file.file
            .read_at(&mut bytes, offset as u64)
            .is_ok_and(|length| length == HEAD)
            && Head::decode(salt(&store, file.id), &bytes).is_some_and(|head| head.sequence > sequence)
    }

    fn finish(mut self, mut segments: Vec<(u64, u64)>, leftovers: Vec<u64>) -> Result<Found<D::File>, OpenError> {
        let mut spares = Vec::new();
        while segments.len() > 1
            && let Some(&(id, length)) = segments.last()
            && length == HEADER as u64
        {
            spares.insert(0, id);
            segments.pop();
        }
        if let Some((file, offset)) = self.hole.take() {
            // What is lost at the end has no end that could be told.
            let first = self.expected.map_or(0, |(sequence, _)| sequence);
            self.report.holes.push(Hole {
                file,
                offset,
                first,
                last: first,
            });
        }
        for file in self.files.iter().filter(|file| file.header.is_none()) {
            let hole = Hole {
                file: file.name.clone(),
                offset: 0,
                first: 0,
                last: 0,
            };
            self.report.holes.push(hole);
        }
        match (&mut self.report.tail, self.unfinished.take()) {
            (Some(tail), Some(unfinished)) => tail.bytes += unfinished.bytes,
            (tail, unfinished) => *tail = tail.take().or(unfinished),
        }
        if self.on_damage == OnDamage::Salvage {
            // Without a hole too: it is the only way to start where the program that wrote it was at fault.
            self.report.orphans = self.index.end_of_damaged_log();
        } else {
            self.index
                .end_of_log()
                .map_err(|orphan| OpenError::Orphan { parent: orphan.parent })?;
        }
        Ok(Found {
            index: self.index,
            store: self.store,
            segments,
            spares,
            leftovers,
            low: self.low,
            previous: self.previous,
            marked: self.marked,
            unproven: self.unproven.front().map(|&(_, segment, offset)| (segment, offset)),
            files: self.files.into_iter().map(|file| (file.id, file.file)).collect(),
            report: self.report,
        })
    }
}
