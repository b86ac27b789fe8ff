//! Syncs of segments, by whichever thread.

use std::{
    io,
    sync::{Arc, Mutex},
};

use crate::disk::DiskFile;

/// Whether a sync has failed. The system tells of an error once, and the next sync of the same file finds nothing to do:
/// so one thread's failure counts for all of them, and they sync one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Syncs(Arc<Mutex<Option<String>>>);

impl Syncs {
    pub(super) fn sync<F: DiskFile>(&self, file: &F) -> io::Result<()> {
        let Ok(mut failed) = self.0.lock() else {
            return Err(io::Error::other("a sync before it ended in a fault of this program"));
        };
        if let Some(sentence) = &*failed {
            return Err(io::Error::other(format!("a sync before it failed: {sentence}")));
        }
        let result = file.sync_data();
        if let Err(error) = &result {
            *failed = Some(error.to_string());
        }
        result
    }
}

/// A sync for another thread to do; [`Store::finished`](crate::Store::finished) takes its result.
#[derive(Clone, Debug)]
pub struct SyncJob<F> {
    pub(super) file: F,
    pub(super) frame: u64,
    pub(super) syncs: Syncs,
}

impl<F: DiskFile> SyncJob<F> {
    /// The last frame that it makes durable.
    #[must_use]
    pub const fn frame(&self) -> u64 {
        self.frame
    }

    /// Does it. If it fails, no other sync of the journal succeeds any more.
    ///
    /// # Errors
    /// The disk failed.
    pub fn run(&self) -> io::Result<()> {
        self.syncs.sync(&self.file)
    }
}
