//! A disk in memory that loses power.
//!
//! It keeps what was synced apart from what was only written. A [power cut](ModelDisk::cut) lets any subset of the
//! unsynced sectors survive, tears writes at sectors, and lets any subset of the unsynced creations, renames and unlinks
//! survive. Every call is counted; a fault can be planted at any of them, or the power go out there.

mod check;
mod slow;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use crate::disk::{Disk, DiskFile, LockError};

pub use check::{check_bytes, segment};
pub use slow::{Gate, SlowDisk, SlowFile};

/// What survives or is lost as one.
pub const SECTOR: usize = 512;

/// What goes wrong at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full. A write may have been done in part.
    NoSpace,
    /// The disk fails. A write may have been done in part; a sync loses what it was to write, and the next one succeeds.
    Io,
    /// The power goes out: this call and all that follow fail.
    PowerOff,
}

/// The disk; clones are the same one.
#[derive(Clone, Debug)]
pub struct ModelDisk(Arc<Mutex<State>>);

/// A file of a [`ModelDisk`].
#[derive(Clone, Debug)]
pub struct ModelFile {
    disk: ModelDisk,
    inode: usize,
}

#[derive(Debug)]
struct State {
    random: Random,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    calls: u64,
    syncs: u64,
    bytes_read: u64,
    fault: Option<(u64, Fault)>,
    next_sync_fails: bool,
    capacity: u64,
    is_off: bool,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    reserved: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Unlink(String),
}

/// A small generator: the same seed, the same disk.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, or 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    /// How many of a hundred unsynced things survive: nothing, all, and anything between are cases of their own.
    const fn odds(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => 100,
            2 => 50,
            3 => 90,
            _ => 10,
        }
    }
}

impl ModelDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::new(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            calls: 0,
            syncs: 0,
            bytes_read: 0,
            fault: None,
            next_sync_fails: false,
            capacity: u64::MAX,
            is_off: false,
        })))
    }

    /// How many calls there have been.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// How many calls of [`DiskFile::sync_data`] there have been.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// How many bytes have been read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// Plants a fault at the call of this number, counted from the first of all.
    pub fn plant(&self, call: u64, fault: Fault) {
        self.state().fault = Some((call, fault));
    }

    /// The next sync of a file fails, and what it was to write may not be written by any later one.
    pub fn fail_next_sync(&self) {
        self.state().next_sync_fails = true;
    }

    /// How many bytes all files together may have.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The disk as it is now, without the fault: what a process finds that was killed and started again.
    #[must_use]
    pub fn restart(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            random: state.random.clone(),
            inodes: state.inodes_left(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            unsynced_names: state.unsynced_names.clone(),
            fault: None,
            next_sync_fails: false,
            is_off: false,
            ..*state
        })))
    }

    /// What a power cut leaves: all that was synced, and any part of the rest. The same seed leaves the same.
    #[must_use]
    pub fn cut(&self, seed: u64) -> Self {
        let state = self.state();
        let mut random = Random::new(seed);
        let mut odds = random.odds();
        let mut names = state.durable_names.clone();
        for change in &state.unsynced_names {
            if random.below(100) < odds {
                change.apply(&mut names);
            }
        }
        odds = random.odds();
        let inodes = state.inodes_left();
        let inodes = inodes.iter().map(|inode| inode.cut(&mut random, odds)).collect();
        Self(Arc::new(Mutex::new(State {
            random,
            inodes,
            durable_names: names.clone(),
            names,
            unsynced_names: Vec::new(),
            calls: 0,
            syncs: 0,
            bytes_read: 0,
            fault: None,
            next_sync_fails: false,
            capacity: state.capacity,
            is_off: false,
        })))
    }

    /// A file's bytes.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state
            .inodes
            .get(*state.names.get(name)?)
            .map(|inode| inode.bytes.clone())
    }

    /// Sets a file's bytes, durably: damage, or a store from elsewhere.
    pub fn replace(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode {
            durable: bytes.clone(),
            bytes,
            ..Inode::default()
        });
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// All files' lengths, or what is reserved for them, together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and says what goes wrong at it.
    fn call(&self) -> Result<MutexGuard<'_, State>, Failed<'_>> {
        let mut state = self.state();
        state.calls += 1;
        if state.is_off {
            return Err(Failed(Errno::IO, None));
        }
        match state.fault {
            Some((call, fault)) if call == state.calls => {
                state.is_off = fault == Fault::PowerOff;
                let errno = if fault == Fault::NoSpace {
                    Errno::NOSPC
                } else {
                    Errno::IO
                };
                Err(Failed(errno, Some(state)))
            }
            _ => Ok(state),
        }
    }
}

/// A call fails; what it does may be done in part.
struct Failed<'a>(Errno, Option<MutexGuard<'a, State>>);

impl From<Failed<'_>> for io::Error {
    fn from(failed: Failed<'_>) -> Self {
        failed.0.into()
    }
}

impl State {
    fn used(&self) -> u64 {
        let inodes = self.names.values().filter_map(|&inode| self.inodes.get(inode));
        inodes.map(Inode::used).sum()
    }

    /// All inodes; those that no name can lead to any more are empty, since nobody has them open either.
    fn inodes_left(&self) -> Vec<Inode> {
        let named = self.names.values().chain(self.durable_names.values()).copied();
        let changed = self.unsynced_names.iter().filter_map(|change| match change {
            NameChange::Create(_, inode) => Some(*inode),
            NameChange::Rename(..) | NameChange::Unlink(_) => None,
        });
        let kept: BTreeSet<usize> = named.chain(changed).collect();
        let inodes = self.inodes.iter().enumerate();
        inodes
            .map(|(n, inode)| {
                if kept.contains(&n) {
                    inode.clone()
                } else {
                    Inode::default()
                }
            })
            .collect()
    }

    fn has_room(&self, inode: usize, length: u64) -> bool {
        let before = self.inodes.get(inode).map_or(0, Inode::used);
        self.used() - before.min(self.used()) + before.max(length) <= self.capacity
    }

    fn inode(&mut self, inode: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(inode).ok_or_else(|| Errno::BADF.into())
    }
}

impl Inode {
    fn used(&self) -> u64 {
        self.reserved.max(self.bytes.len() as u64)
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        overlay(&mut self.bytes, offset, bytes);
        self.unsynced.push(Change::Write(offset, bytes.to_vec()));
    }

    /// What is unsynced becomes durable. What an earlier sync failed to write does not, though it is still read.
    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Truncate(length) => self.durable.truncate(length),
                Change::Write(offset, written) => overlay(&mut self.durable, offset, &written),
            }
        }
    }

    /// As systems do: the error is told once. What was written is taken for clean, and is on the disk or not.
    fn fail_to_sync(&mut self, random: &mut Random) {
        let odds = random.odds();
        for change in self.unsynced.drain(..) {
            match change {
                Change::Truncate(length) => self.durable.truncate(length),
                Change::Write(offset, written) => {
                    for (sector, from, to) in sectors(offset, written.len()) {
                        if random.below(100) < odds {
                            overlay(&mut self.durable, sector, written.get(from..to).unwrap_or_default());
                        }
                    }
                }
            }
        }
    }

    fn cut(&self, random: &mut Random, odds: u64) -> Self {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            match change {
                Change::Truncate(length) if random.below(100) < odds => bytes.truncate(*length),
                Change::Truncate(_) => {}
                Change::Write(offset, written) => {
                    for (sector, from, to) in sectors(*offset, written.len()) {
                        if random.below(100) < odds {
                            overlay(&mut bytes, sector, written.get(from..to).unwrap_or_default());
                        }
                    }
                }
            }
        }
        Self {
            durable: bytes.clone(),
            bytes,
            unsynced: Vec::new(),
            reserved: 0,
        }
    }
}

/// Where each sector's part of a write goes, and which part it is.
fn sectors(offset: usize, length: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from >= length {
            return None;
        }
        let at = offset + from;
        let to = length.min(from + SECTOR - at % SECTOR);
        let part = (at, from, to);
        from = to;
        Some(part)
    })
}

fn overlay(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    if let Some(place) = file.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl Disk for ModelDisk {
    type File = ModelFile;

    fn lock(&self) -> Result<(), LockError> {
        match self.call() {
            // What is written into the lock needs room, the lock does not.
            Ok(_) | Err(Failed(Errno::NOSPC, _)) => Ok(()),
            Err(failed) => Err(LockError::Io(failed.into())),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.call()?.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<ModelFile> {
        let mut state = self.call()?;
        if state.names.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.unsynced_names.push(NameChange::Create(name.to_owned(), inode));
        Ok(ModelFile {
            disk: self.clone(),
            inode,
        })
    }

    fn open(&self, name: &str) -> io::Result<ModelFile> {
        let inode = *self.call()?.names.get(name).ok_or(Errno::NOENT)?;
        Ok(ModelFile {
            disk: self.clone(),
            inode,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.call()?;
        let inode = state.names.remove(from).ok_or(Errno::NOENT)?;
        state.names.insert(to.to_owned(), inode);
        state
            .unsynced_names
            .push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut state = self.call()?;
        state.names.remove(name).ok_or(Errno::NOENT)?;
        state.unsynced_names.push(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.call()?;
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }
}

impl DiskFile for ModelFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.call()?.inode(self.inode)?.bytes.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.call()?;
        let bytes = &state.inode(self.inode)?.bytes;
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let length = from.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..length), from.get(..length)) {
            into.copy_from_slice(from);
        }
        state.bytes_read += length as u64;
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, failed) = match self.disk.call() {
            Ok(state) => (state, None),
            Err(Failed(errno, Some(state))) => (state, Some(errno)),
            Err(failed) => return Err(failed.into()),
        };
        let end = offset + bytes.len() as u64;
        let failed = failed.or_else(|| (!state.has_room(self.inode, end)).then_some(Errno::NOSPC));
        let Some(errno) = failed else {
            state.inode(self.inode)?.write(offset as usize, bytes);
            return Ok(());
        };
        let mut part = state.random.below(bytes.len() as u64 + 1) as usize;
        while part > 0 && !state.has_room(self.inode, offset + part as u64) {
            part /= 2;
        }
        let part = bytes.get(..part).unwrap_or_default();
        state.inode(self.inode)?.write(offset as usize, part);
        Err(errno.into())
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.call()?;
        if !state.has_room(self.inode, length) {
            return Err(Errno::NOSPC.into());
        }
        let inode = state.inode(self.inode)?;
        inode.reserved = inode.reserved.max(length);
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.call()?;
        let inode = state.inode(self.inode)?;
        inode.bytes.truncate(length as usize);
        inode.unsynced.push(Change::Truncate(length as usize));
        inode.reserved = 0;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, failed) = match self.disk.call() {
            Ok(state) => (state, None),
            Err(Failed(errno, Some(state))) if !state.is_off => (state, Some(errno)),
            Err(failed) => return Err(failed.into()),
        };
        state.syncs += 1;
        let failed = failed.or_else(|| std::mem::take(&mut state.next_sync_fails).then_some(Errno::IO));
        let mut random = state.random.clone();
        let inode = state.inode(self.inode)?;
        match failed {
            None => inode.sync(),
            Some(_) => inode.fail_to_sync(&mut random),
        }
        state.random = random;
        failed.map_or(Ok(()), |errno| Err(errno.into()))
    }
}
