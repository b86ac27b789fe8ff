//! The live records, handed out in order.

use std::collections::HashMap;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::segment_name;
use crate::index::{Index, Live, Place};
use crate::ops::{Batch, Family, Kind};
use crate::read::io_error;

use super::Store;

/// How much is read at once where a segment is jumped about in, and where it is read on.
const WINDOW_MIN: usize = 4 << 10;
const WINDOW_MAX: usize = 64 << 10;
/// How many segments are open at once.
const FILES_MAX: usize = 256;

/// A live record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its identifier.
    pub id: u64,
    /// The body that it keeps alive.
    pub parent: Option<u64>,
    /// Whether it is a body.
    pub is_body: bool,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A live record without its bytes, as it is put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKey {
    /// What it is.
    pub kind: Kind,
    /// Its identifier.
    pub id: u64,
}

impl<D: Disk> Store<D> {
    /// Hands out all live records, by kind and within a kind by what `order` makes of them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn for_each(&self, order: impl Fn(RecordKey) -> u64, each: impl FnMut(RecordRef<'_>)) -> Result<(), OpenError> {
        self.for_each_of(u32::MAX, order, each)
    }

    /// The same for some kinds only: a bit for each, by its number.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn for_each_of(
        &self,
        kinds: u32,
        order: impl Fn(RecordKey) -> u64,
        each: impl FnMut(RecordRef<'_>),
    ) -> Result<(), OpenError> {
        visit(&*self.disk, &[], &self.index, kinds, order, each)
    }
}

/// Hands out the live records of an index. Files that are open already are used as they are.
pub(crate) fn visit<D: Disk>(
    disk: &D,
    open: &[(u64, D::File)],
    index: &Index,
    wanted: u32,
    order: impl Fn(RecordKey) -> u64,
    mut each: impl FnMut(RecordRef<'_>),
) -> Result<(), OpenError> {
    let mut pages = Pages {
        disk,
        open,
        segments: HashMap::new(),
    };
    let kinds = wanted
        & index
            .iter()
            .fold(0_u32, |kinds, (_, live)| kinds | 1 << live.kind.number());
    let mut lives: Vec<(u64, u32)> = Vec::new();
    for kind in (0..Kind::COUNT).filter(|kind| kinds & 1 << kind != 0) {
        lives.clear();
        let of_kind = index.iter().filter(|(_, live)| live.kind.number() == kind);
        lives.extend(of_kind.map(|(slot, Live { kind, id, .. })| (order(RecordKey { kind, id }), slot)));
        let id = |slot| index.live(slot).map_or(0, |live| live.id);
        lives.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| id(a.1).cmp(&id(b.1))));
        for live in lives.iter().filter_map(|(_, slot)| index.live(*slot)) {
            let bytes = pages.read(live.place)?;
            each(RecordRef {
                kind: live.kind,
                id: live.id,
                parent: match live.family {
                    Family::Child(parent) => Some(parent),
                    _ => None,
                },
                is_body: live.family == Family::Body,
                bytes,
            });
        }
    }
    Ok(())
}

impl Batch {
    /// Puts a record as it was put.
    pub(crate) fn put_again(&mut self, record: &RecordRef<'_>) {
        match record.parent {
            Some(parent) => self.child(record.kind, record.id, parent, record.bytes),
            None if record.is_body => self.body(record.kind, record.id, record.bytes),
            None => self.put(record.kind, record.id, record.bytes),
        }
    }
}

/// Reads records through a window of each segment: neighbours in order are often neighbours in one of a few segments.
struct Pages<'a, D: Disk> {
    disk: &'a D,
    open: &'a [(u64, D::File)],
    segments: HashMap<u32, Window<D::File>>,
}

struct Window<F> {
    file: F,
    at: u64,
    bytes: Vec<u8>,
    /// How much is read at once: more where it goes on just ahead.
    ahead: usize,
}

impl<D: Disk> Pages<'_, D> {
    fn read(&mut self, place: Place) -> Result<&[u8], OpenError> {
        if !self.segments.contains_key(&place.segment) {
            if self.segments.len() >= FILES_MAX {
                self.segments.clear();
            }
            let file = self.file(u64::from(place.segment))?;
            self.segments.insert(place.segment, Window::new(file));
        }
        let window = self.segments.get_mut(&place.segment);
        let bytes = window.map_or(Ok(None), |window| {
            window.read(u64::from(place.offset), place.length as usize)
        });
        let failed = |error| io_error("read", &segment_name(u64::from(place.segment)), error);
        let bytes = bytes.map_err(failed)?;
        bytes.ok_or_else(|| failed(std::io::ErrorKind::UnexpectedEof.into()))
    }

    fn file(&self, segment: u64) -> Result<D::File, OpenError> {
        if let Ok(at) = self.open.binary_search_by_key(&segment, |(id, _)| *id)
            && let Some((_, file)) = self.open.get(at)
        {
            return Ok(file.clone());
        }
        let name = segment_name(segment);
        self.disk.open(&name).map_err(|error| io_error("open", &name, error))
    }
}

impl<F: DiskFile> Window<F> {
    const fn new(file: F) -> Self {
        Self {
            file,
            at: 0,
            bytes: Vec::new(),
            ahead: WINDOW_MIN,
        }
    }

    fn read(&mut self, offset: u64, length: usize) -> std::io::Result<Option<&[u8]>> {
        let end = self.at + self.bytes.len() as u64;
        if offset < self.at || offset + length as u64 > end {
            let goes_on = !self.bytes.is_empty() && offset >= self.at && offset <= end + self.ahead as u64;
            self.ahead = if goes_on {
                (4 * self.ahead).min(WINDOW_MAX)
            } else {
                WINDOW_MIN
            };
            self.bytes.clear();
            self.bytes.resize(length.max(self.ahead), 0);
            let read = self.file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(read);
            self.at = offset;
        }
        let from = (offset - self.at) as usize;
        Ok(self.bytes.get(from..from + length))
    }
}
