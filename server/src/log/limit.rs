//! Keeps peers from filling the log with one kind of line.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

use super::line::Record;

/// Lines of one kind in one second; of more only their number is written.
pub const KIND_LINES_MAX: u32 = 20;

/// The modules that report what peers do, and so as often as peers like. `auth::guard` is none of them: other programs act on
/// each of its lines, and each costs its address as many failed logins as are allowed.
const OF_PEERS: [&str; 3] = ["sol_server::events", "sol_server::broker", "sol_server::auth::judge"];

/// Counts the lines of each kind; a kind is a place in the source, so there are few.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    kinds: Mutex<HashMap<Identifier, Kind>>,
    pending: AtomicBool,
}

#[derive(Debug, Default)]
struct Kind {
    second: u64,
    written: u32,
    more: u64,
    level: &'static str,
    message: String,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// It is written.
    Written,
    /// It is only counted.
    Counted,
    /// It is counted, and the first for which the count is owed: wake whoever writes.
    FirstCounted,
}

/// Whether the lines of this place are limited. Who asks for DEBUG wants to see everything.
pub(super) fn is_limited(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && OF_PEERS.contains(&metadata.target())
}

impl Limiter {
    /// Takes a line of `kind` into account in this `second`.
    pub(super) fn admit(&self, kind: Identifier, second: u64) -> Admission {
        let mut kinds = self.kinds();
        let kind = kinds.entry(kind).or_default();
        if kind.second != second {
            (kind.second, kind.written) = (second, 0);
        }
        if kind.written < KIND_LINES_MAX {
            kind.written += 1;
            return Admission::Written;
        }
        kind.more += 1;
        if self.pending.swap(true, Ordering::AcqRel) {
            Admission::Counted
        } else {
            Admission::FirstCounted
        }
    }

    /// Remembers how a kind reads, from its first line.
    pub(super) fn name(&self, kind: &Identifier, level: &'static str, record: &Record) {
        if let Some(kind) = self.kinds().get_mut(kind)
            && kind.message.is_empty()
        {
            (kind.level, kind.message) = (level, record.message().to_owned());
        }
    }

    /// Whether there are counts to be written.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The counts of past seconds; all of them without a `second`.
    pub(super) fn take(&self, second: Option<u64>) -> Vec<Record> {
        let mut kinds = self.kinds();
        let mut records = Vec::new();
        for kind in kinds
            .values_mut()
            .filter(|kind| kind.more > 0 && Some(kind.second) != second)
        {
            let more = std::mem::take(&mut kind.more);
            let mut record = Record::new(kind.level);
            record.push("message", format!("{more} more: {}", kind.message));
            records.push(record);
        }
        let pending = kinds.values().any(|kind| kind.more > 0);
        self.pending.store(pending, Ordering::Release);
        records
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
