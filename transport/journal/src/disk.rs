//! What the journal asks of a disk, and all of it.

use std::{
    fmt,
    io::{self, ErrorKind},
};

/// One directory of files. The journal never asks for anything outside of it.
///
/// What has been done survives a power cut once it was synced: a file's bytes by [`DiskFile::sync_data`], its name by
/// [`Disk::sync_dir`]. Until then any part of it may survive, in any order.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Takes the directory for this process alone, until the disk is dropped. Needs no room: a full disk is no reason not to
    /// start.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written.
    fn lock(&self) -> Result<(), LockError>;

    /// The names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new, empty file; there must be none of that name.
    ///
    /// # Errors
    /// It exists, or there is no room for it.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// An existing file, to be read and written.
    ///
    /// # Errors
    /// It does not exist or may not be opened.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of whatever had it.
    ///
    /// # Errors
    /// There is no such file, or the directory may not be written.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// There is no such file, or the directory may not be written.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Makes the names of all files durable.
    ///
    /// # Errors
    /// They may not be.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file. Clones are the same file.
pub trait DiskFile: fmt::Debug + Clone + Send + Sync + 'static {
    /// How long it is.
    ///
    /// # Errors
    /// The system does not say.
    fn size(&self) -> io::Result<u64>;

    /// Reads at an offset, and says how many bytes; fewer than asked for only at the end of the file.
    ///
    /// # Errors
    /// The disk cannot read it.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of it at an offset. After an error any part of it may be written.
    ///
    /// # Errors
    /// There is no room, or the disk cannot write.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Keeps room for a file of this length without making it longer. Where a system cannot, this does nothing.
    ///
    /// # Errors
    /// There is no room.
    fn reserve(&self, length: u64) -> io::Result<()>;

    /// Cuts it to this length.
    ///
    /// # Errors
    /// The disk cannot write.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Makes its bytes and its length durable.
    ///
    /// # Errors
    /// They may not be, and to ask again would prove nothing.
    fn sync_data(&self) -> io::Result<()>;
}

/// Why a directory could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it; which one, if it says so.
    Taken(Option<u32>),
    /// It cannot be locked at all.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(Some(pid)) => write!(f, "it is in use by process {pid}"),
            Self::Taken(None) => f.write_str("it is in use by another process"),
            Self::Io(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
                ) =>
            {
                write!(f, "it cannot be written: {error}")
            }
            Self::Io(error) => write!(f, "cannot lock it: {error}"),
        }
    }
}

impl std::error::Error for LockError {}
