//! A journal that is only looked at: checked, counted, handed out, saved.
//!
//! Nothing here takes the directory's lock or changes a file, so it may be in use meanwhile. What its writer is just
//! writing then looks like a tail.

use std::io;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::{segment_name, segment_of};
use crate::ops::Kind;
use crate::read::{Found, OnDamage, Report, Tail, io_error, read};
use crate::store::{RecordKey, RecordRef, visit};

/// How often a directory is read again whose oldest segment was removed meanwhile.
const TRIES: u32 = 5;
/// How much is copied at once.
const PIECE: usize = 1 << 20;

/// A journal as it was read.
#[derive(Debug)]
pub struct Snapshot<D: Disk> {
    disk: D,
    found: Found<D::File>,
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
        for (_, live) in self.found.index.iter() {
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
    /// They cannot be read.
    pub fn for_each(&self, order: impl Fn(RecordKey) -> u64, each: impl FnMut(RecordRef<'_>)) -> Result<(), OpenError> {
        visit(&self.disk, &self.found.files, &self.found.index, u32::MAX, order, each)
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
    let mut names = Vec::new();
    let copied = copy_all(from, &to, &mut names).and_then(|()| check_copy(&to));
    let tail = match copied {
        Ok(tail) => tail,
        Err(error) => {
            // What was copied would be in the way of the next try.
            names.iter().for_each(|name| drop(to.unlink(name)));
            return Err(error);
        }
    };
    if let Some(tail) = tail {
        let cut = || {
            let file = to.open(&tail.file)?;
            file.truncate(tail.offset)?;
            file.sync_data()
        };
        cut().map_err(|error| io_error("cut", &tail.file, error))?;
    }
    Snapshot::read(to, OnDamage::Refuse)
}

fn copy_all<D: Disk, T: Disk>(from: &D, to: &T, names: &mut Vec<String>) -> Result<(), OpenError> {
    for (name, file, size) in again_if_gone(|| open_all(from))? {
        names.push(name.clone());
        copy(&file, size, to, &name).map_err(|error| io_error("copy", &name, error))?;
    }
    to.sync_dir().map_err(|error| io_error("sync the directory", "", error))
}

/// The tail of a copy: what its writer was just writing.
fn check_copy<T: Disk>(to: &T) -> Result<Option<Tail>, OpenError> {
    Ok(read(to, OnDamage::Refuse)?.report.tail)
}

/// All segments, open, with their lengths: they can be read even if they are removed meanwhile. The lengths are taken from
/// the newest to the oldest, so that none is shorter than what a newer one follows.
fn open_all<D: Disk>(disk: &D) -> Result<Vec<(String, D::File, u64)>, OpenError> {
    let names = disk.list().map_err(|error| io_error("read the directory", "", error))?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
    ids.sort_unstable();
    let mut files = Vec::new();
    for (at, &id) in ids.iter().enumerate() {
        let name = segment_name(id);
        if at > 0 && ids.get(at - 1).is_some_and(|before| before + 1 != id) {
            return Err(OpenError::Missing {
                file: segment_name(id - 1),
            });
        }
        let file = disk.open(&name).map_err(|error| io_error("open", &name, error))?;
        files.push((name, file, 0));
    }
    for (name, file, size) in files.iter_mut().rev() {
        *size = file.size().map_err(|error| io_error("read", name, error))?;
    }
    Ok(files)
}

fn copy<F: DiskFile, T: Disk>(from: &F, size: u64, to: &T, name: &str) -> io::Result<()> {
    let file = to.create(name)?;
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < size {
        piece.truncate((size - offset) as usize);
        let length = from.read_at(&mut piece, offset)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(piece.get(..length).unwrap_or_default(), offset)?;
        offset += length as u64;
    }
    file.sync_data()
}

/// Tries again where a segment was removed, or one made, while the directory was read.
fn again_if_gone<T>(mut read: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    for _ in 1..TRIES {
        match read() {
            Err(OpenError::Missing { .. }) => {}
            Err(OpenError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    read()
}
