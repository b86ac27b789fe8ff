//! The live records, handed out in order.

use std::collections::HashMap;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::segment_name;
use crate::index::{Index, Live, Place};
use crate::ops::{Batch, Family, Kind};
use crate::read::io_error;

use super::Store;

/// How much is read at once.
const WINDOW: usize = 256 << 10;
/// How many segments are open at once.
const FILES_MAX: usize = 64;

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
        visit(&*self.disk, &self.index, kinds, order, each)
    }
}

/// Hands out the live records of an index.
pub(crate) fn visit<D: Disk>(
    disk: &D,
    index: &Index,
    wanted: u32,
    order: impl Fn(RecordKey) -> u64,
    mut each: impl FnMut(RecordRef<'_>),
) -> Result<(), OpenError> {
    let mut pages = Pages {
        disk,
        files: HashMap::new(),
        at: (0, 0),
        window: Vec::new(),
    };
    let kinds = wanted & index.iter().fold(0_u32, |kinds, live| kinds | 1 << live.kind.number());
    let mut lives: Vec<(u64, Live)> = Vec::new();
    for kind in (0..Kind::COUNT).filter(|kind| kinds & 1 << kind != 0) {
        lives.clear();
        let of_kind = index.iter().filter(|live| live.kind.number() == kind);
        lives.extend(of_kind.map(|live| {
            (
                order(RecordKey {
                    kind: live.kind,
                    id: live.id,
                }),
                live,
            )
        }));
        lives.sort_unstable_by_key(|(order, live)| (*order, live.id));
        for (_, live) in &lives {
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

/// Reads records through a window: neighbours in the log are often neighbours in order.
struct Pages<'a, D: Disk> {
    disk: &'a D,
    files: HashMap<u32, D::File>,
    at: (u32, u64),
    window: Vec<u8>,
}

impl<D: Disk> Pages<'_, D> {
    fn read(&mut self, place: Place) -> Result<&[u8], OpenError> {
        let (offset, length) = (u64::from(place.offset), place.length as usize);
        let held = self.at.1..=self.at.1 + self.window.len() as u64;
        let is_held = self.at.0 == place.segment && held.contains(&offset) && held.contains(&(offset + length as u64));
        if !is_held {
            self.load(place.segment, offset, length)?;
        }
        let from = (offset - self.at.1) as usize;
        self.window.get(from..from + length).ok_or_else(|| {
            let name = segment_name(u64::from(place.segment));
            io_error("read", &name, std::io::ErrorKind::UnexpectedEof.into())
        })
    }

    fn load(&mut self, segment: u32, offset: u64, length: usize) -> Result<(), OpenError> {
        let name = segment_name(u64::from(segment));
        let failed = |error| io_error("read", &name, error);
        if !self.files.contains_key(&segment) {
            if self.files.len() >= FILES_MAX {
                self.files.clear();
            }
            self.files.insert(segment, self.disk.open(&name).map_err(failed)?);
        }
        self.window.clear();
        self.window.resize(length.max(WINDOW), 0);
        if let Some(file) = self.files.get(&segment) {
            let read = file.read_at(&mut self.window, offset).map_err(failed)?;
            self.window.truncate(read);
        }
        self.at = (segment, offset);
        Ok(())
    }
}
