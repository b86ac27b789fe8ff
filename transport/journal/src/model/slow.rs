//! A disk whose syncs take as long as a test likes.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{ModelDisk, ModelFile};
use crate::disk::{Disk, DiskFile, LockError};

/// How long a test waits for a sync that has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Holds up every sync while it is closed.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    is_broken: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    is_stuck: bool,
}

/// A [`ModelDisk`] behind a gate.
#[derive(Clone, Debug)]
pub struct SlowDisk {
    /// The disk.
    pub disk: ModelDisk,
    /// What each sync of a file has to pass.
    pub gate: Arc<Gate>,
}

/// A file of a [`SlowDisk`].
#[derive(Clone, Debug)]
pub struct SlowFile {
    file: ModelFile,
    gate: Arc<Gate>,
}

impl Gate {
    /// Syncs that come from now on do not end.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// Those that have come go on.
    pub fn open(&self) {
        self.state().is_closed = false;
        self.changed.notify_all();
    }

    /// Whether a sync is before it.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.state().is_stuck
    }

    /// Waits until one is.
    ///
    /// # Panics
    /// None comes.
    pub fn wait_until_stuck(&self) {
        let waited = self
            .changed
            .wait_timeout_while(self.state(), PATIENCE, |state| !state.is_stuck)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.1.timed_out(), "no sync came");
    }

    /// The next sync is a panic.
    pub fn break_at_the_next(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    fn pass(&self) {
        assert!(!self.is_broken.load(Ordering::Relaxed), "a fault of the program");
        let mut state = self.state();
        state.is_stuck = state.is_closed;
        self.changed.notify_all();
        let passed = self.changed.wait_while(state, |state| state.is_closed);
        passed.unwrap_or_else(PoisonError::into_inner).is_stuck = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlowDisk {
    fn slow(&self, file: ModelFile) -> SlowFile {
        SlowFile {
            file,
            gate: Arc::clone(&self.gate),
        }
    }
}

impl Disk for SlowDisk {
    type File = SlowFile;

    fn lock(&self) -> Result<(), LockError> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<SlowFile> {
        Ok(self.slow(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<SlowFile> {
        Ok(self.slow(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk.unlink(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.file.reserve(length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
}
