//! Who hears how far a start is: a large store takes its time, and whoever waits should not have to guess.

use std::fmt;

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The journal is opened.
    Log(sol_journal::Progress),
    /// It is found out which shard each record belongs to.
    Placed {
        /// Records that were looked at.
        records: u64,
    },
    /// The shards are given their records.
    Restored {
        /// Records that were.
        records: u64,
        /// Of so many.
        of: u64,
    },
    /// All records are there, and the shards tell each other of Subscriptions.
    Settling,
}

/// Hears of it, on the thread that starts the shards, much more often than anybody wants to read. Waiting in it holds up the
/// start.
#[derive(Default)]
pub struct Watch(Option<Box<dyn FnMut(Progress)>>);

impl Watch {
    /// Has this be called.
    #[must_use]
    pub fn new(tell: impl FnMut(Progress) + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    /// Tells how far it is.
    pub fn tell(&mut self, progress: Progress) {
        if let Some(tell) = &mut self.0 {
            tell(progress);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").finish_non_exhaustive()
    }
}
