//! What can go wrong, as sentences for an operator.

use std::{fmt, io};

use crate::disk::LockError;

/// Why a journal could not be opened. Nothing was changed.
#[derive(Debug)]
pub enum OpenError {
    /// It is in use, or cannot be locked.
    Locked(LockError),
    /// A later version wrote it.
    Newer {
        /// Where.
        file: String,
        /// The offset of what is unknown.
        offset: u64,
    },
    /// Something is damaged that was durable: to go on would lose it silently.
    Damaged(Damage),
    /// A file that belongs to it is gone.
    Missing {
        /// Which.
        file: String,
    },
    /// A file is not of this journal.
    Foreign {
        /// Which.
        file: String,
    },
    /// A file's number is none that a segment beside the others can have.
    Misnumbered {
        /// Its name.
        file: String,
    },
    /// Its records do not belong together: one names a parent that is not there.
    Orphan {
        /// The parent's identifier.
        parent: u64,
    },
    /// There is no room for what has to be written.
    Full {
        /// What.
        what: &'static str,
        /// How much room it needs.
        bytes: u64,
    },
    /// The disk failed.
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file; empty for the directory.
        file: String,
        /// What came of it.
        error: io::Error,
    },
    /// The disk failed where the log was to say that what was read is durable, or where what was salvaged was written.
    Failed(Failure),
}

/// Where a journal is damaged at or before its durable mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub file: String,
    /// The offset of the first bad byte, or of the frame that it lies in.
    pub offset: u64,
    /// The sequence number of the frame that is not there; 0 if that cannot be told.
    pub sequence: u64,
    /// Frames up to this one are known to have been durable.
    pub durable: u64,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(error) => error.fmt(f),
            Self::Newer { file, offset } => {
                write!(
                    f,
                    "{file} was written by a newer version (at offset {offset}); use that version, or a later one"
                )
            }
            Self::Damaged(damage) => damage.fmt(f),
            Self::Missing { file } => write!(f, "{file} is missing, and records in it were durable"),
            Self::Foreign { file } => {
                write!(
                    f,
                    "{file} belongs to another store than the segments before it: move away whichever came from elsewhere"
                )
            }
            Self::Misnumbered { file } => write!(
                f,
                "{file} has a number that no segment of this journal can have: move it away if it came from elsewhere"
            ),
            Self::Orphan { parent } => {
                write!(
                    f,
                    "a record refers to record {parent:#x}, which is not there, by a fault of the program that wrote it"
                )
            }
            Self::Full { what, bytes } => {
                write!(
                    f,
                    "the disk is full: {what} needs {} MiB of room",
                    bytes.div_ceil(1 << 20)
                )
            }
            Self::Io { doing, file, error } if file.is_empty() => write!(f, "cannot {doing}: {error}"),
            Self::Io { doing, file, error } => write!(f, "cannot {doing} {file}: {error}"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            offset,
            sequence,
            durable,
        } = self;
        write!(f, "{file} is damaged at offset {offset}")?;
        if *sequence > 0 {
            write!(f, " (frame {sequence}; frames up to {durable} were durable)")?;
        }
        Ok(())
    }
}

impl std::error::Error for OpenError {}

/// Why a commit is not on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// There is no room. What was added is kept and written first once there is: call again.
    Full,
    /// The journal has failed: nothing that was not told durable is, and nothing will be.
    Failed(Failure),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {}

/// The sentence that a journal ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for CommitError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Whether a disk says that it is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull, WriteZero};
    matches!(error.kind(), StorageFull | QuotaExceeded | WriteZero)
}
