//! A journal that is only looked at: checked, counted, handed out, saved.
//!
//! Nothing here takes the directory's lock or changes a file, so it may be in use meanwhile. What its writer is just
//! writing then looks like a tail.

use std::io;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::{segment_name, segment_of};
use crate::ops::Kind;
use crate::read::{Found, OnDamage, Report, io_error, read};
use crate::store::{RecordKey, RecordRef, visit};

/// How often a directory is read again whose oldest segment was removed meanwhile.
const TRIES: u32 = 5;
/// How much is copied at once.
const PIECE: usize = 1 << 20;

/// A journal as it was read.
#[derive(Debug)]
pub struct Snapshot<D: Disk> {
    disk: D,
    found: Found,
}

/// What is in a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live records of each kind that there are any of, with their bytes.
    pub kinds: Vec<KindStats>,
    /// Bytes that the live records would take alone.
    pub live_bytes: u64,
    /// Bytes of the segments.
    pub segment_bytes: u64,
}

/// Live records of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindStats {
    /// Which.
    pub kind: Kind,
    /// How many.
    pub records: u64,
    /// Their bytes, without what the log needs beside them.
    pub bytes: u64,
}

impl<D: Disk> Snapshot<D> {
    /// Reads and verifies a journal, all of it. [`OnDamage::Salvage`] reads what is left of a damaged one.
    ///
    /// # Errors
    /// It is damaged, of a later version or another store, or it cannot be read.
    pub fn read(disk: D, on_damage: OnDamage) -> Result<Self, OpenError> {
        let found = again_if_gone(|| read(&disk, on_damage))?;
        Ok(Self { disk, found })
    }

    /// What was found.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.found.report
    }

    /// What is in it.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut kinds: Vec<KindStats> = Vec::new();
        for number in 0..Kind::COUNT {
            kinds.push(KindStats {
                kind: Kind::new(number),
                records: 0,
                bytes: 0,
            });
        }
        for live in self.found.index.iter() {
            if let Some(kind) = kinds.get_mut(usize::from(live.kind.number())) {
                kind.records += 1;
                kind.bytes += u64::from(live.place.length);
            }
        }
        kinds.retain(|kind| kind.records > 0);
        Stats {
            kinds,
            live_bytes: self.found.index.live_bytes(),
            segment_bytes: self.found.report.bytes,
        }
    }

    /// Hands out all live records as [`Store::for_each`](crate::Store::for_each) does.
    ///
    /// # Errors
    /// They cannot be read; in a journal that is in use, also if they have been moved meanwhile.
    pub fn for_each(&self, order: impl Fn(RecordKey) -> u64, each: impl FnMut(RecordRef<'_>)) -> Result<(), OpenError> {
        visit(&self.disk, &self.found.index, u32::MAX, order, each)
    }
}

/// Copies a journal, which may be in use, into an empty directory, and reads the copy. It has all that was durable when this
/// began.
///
/// # Errors
/// The journal is damaged, or a file cannot be read or written; or there is a journal in the other directory.
pub fn backup<D: Disk, T: Disk>(from: &D, to: T) -> Result<Snapshot<T>, OpenError> {
    let there = to.list().map_err(|error| io_error("read the directory", "", error))?;
    if let Some(name) = there.iter().find(|name| segment_of(name).is_some()) {
        return Err(io_error("make", name, io::ErrorKind::AlreadyExists.into()));
    }
    for (name, file) in again_if_gone(|| open_all(from))? {
        copy(&file, &to, &name).map_err(|error| io_error("copy", &name, error))?;
    }
    to.sync_dir()
        .map_err(|error| io_error("sync the directory", "", error))?;
    let snapshot = Snapshot::read(to, OnDamage::Refuse)?;
    if let Some(tail) = &snapshot.report().tail {
        let cut = || {
            let file = snapshot.disk.open(&tail.file)?;
            file.truncate(tail.offset)?;
            file.sync_data()
        };
        cut().map_err(|error| io_error("cut", &tail.file, error))?;
    }
    Ok(snapshot)
}

/// All segments, open: they can be read to their end even if they are removed meanwhile.
fn open_all<D: Disk>(disk: &D) -> Result<Vec<(String, D::File)>, OpenError> {
    let names = disk.list().map_err(|error| io_error("read the directory", "", error))?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
    ids.sort_unstable();
    let open = |id| {
        let name = segment_name(id);
        let file = disk.open(&name).map_err(|error| io_error("open", &name, error))?;
        Ok((name, file))
    };
    ids.into_iter().map(open).collect()
}

fn copy<F: DiskFile, T: Disk>(from: &F, to: &T, name: &str) -> io::Result<()> {
    let file = to.create(name)?;
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let length = from.read_at(&mut piece, offset)?;
        if length == 0 {
            return file.sync_data();
        }
        file.write_at(piece.get(..length).unwrap_or_default(), offset)?;
        offset += length as u64;
    }
}

fn again_if_gone<T>(mut read: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    for _ in 1..TRIES {
        match read() {
            Err(OpenError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    read()
}
