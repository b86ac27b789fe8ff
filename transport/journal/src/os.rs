//! The disk of the operating system.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use crate::disk::{Disk, DiskFile, LockError};
use crate::error::is_full;

const LOCK: &str = "LOCK";
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A directory of the file system, found once: renaming or replacing it later changes nothing for who has it open.
#[derive(Debug)]
pub struct OsDisk {
    directory: OwnedFd,
    /// Once the directory is locked, the file that says who has, if there was room for it.
    lock: Mutex<Option<Option<OwnedFd>>>,
}

impl OsDisk {
    /// Opens a directory, and makes it, readable for its owner alone, if its parent is there and it is not.
    ///
    /// # Errors
    /// It can be neither opened nor made, or it is a symbolic link or no directory.
    pub fn create(path: &Path) -> io::Result<Self> {
        let is_new = match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        // Without this the whole store may be gone after a power cut. Whoever made the directory before, this process in
        // another life or somebody else, may not have come to it.
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let synced = retry_on_intr(|| rustix::fs::openat(CWD, parent, flags, Mode::empty()))
            .and_then(|parent| retry_on_intr(|| rustix::fs::fsync(&parent)));
        match synced {
            // Its owner may keep a parent from us.
            Err(error) if is_new => return Err(error.into()),
            _ => {}
        }
        Self::existing(path)
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    /// It cannot be opened, or it is a symbolic link or no directory.
    pub fn existing(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Self {
            directory: rustix::fs::openat(CWD, path, flags, Mode::empty())?,
            lock: Mutex::new(None),
        })
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.directory, name, flags, PRIVATE_FILE);
        Ok(retry_on_intr(open)?)
    }

    fn try_lock(&self) -> Result<Option<OwnedFd>, LockError> {
        // The directory itself is locked too: the file may be removed.
        let whole = try_flock(&self.directory);
        if let Err(Errno::WOULDBLOCK) = whole {
            let file = self.file(LOCK, OFlags::RDONLY).ok();
            return Err(LockError::Taken(file.and_then(|file| pid_in(&file))));
        }
        let file = match self.file(LOCK, OFlags::RDWR | OFlags::CREATE) {
            Ok(file) => file,
            // Without room for the file there is only no process id in it.
            Err(error) if whole.is_ok() && is_full(&error) => return Ok(None),
            Err(error) => return Err(LockError::Io(error)),
        };
        match try_flock(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Taken(pid_in(&file))),
            Err(error) => return Err(LockError::Io(error.into())),
        }
        // Over the old one, so that the block it has is not given away; on a full disk nobody hears of this one.
        let pid = format!("{:<15}\n", std::process::id());
        let _ = rustix::io::pwrite(&file, pid.as_bytes(), 0);
        Ok(Some(file))
    }
}

fn try_flock(file: impl AsFd) -> Result<(), Errno> {
    retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))
}

fn pid_in(file: &OwnedFd) -> Option<u32> {
    let mut bytes = [0; 16];
    let length = rustix::io::pread(file, &mut bytes, 0).ok()?;
    std::str::from_utf8(bytes.get(..length)?).ok()?.trim().parse().ok()
}

impl Disk for OsDisk {
    type File = OsFile;

    fn lock(&self) -> Result<(), LockError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(self.try_lock()?);
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<OsFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        Ok(OsFile(Arc::new(self.file(name, flags)?)))
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        // What can only be read can still be checked and saved.
        let file = match self.file(name, OFlags::RDWR) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied || error.raw_os_error() == Some(30) => {
                self.file(name, OFlags::RDONLY)?
            }
            file => file?,
        };
        Ok(OsFile(Arc::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fsync(&self.directory))?)
    }
}

/// A file of an [`OsDisk`].
#[derive(Clone, Debug)]
pub struct OsFile(Arc<OwnedFd>);

impl DiskFile for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&*self.0)?.st_size).unwrap_or(0))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..)
            && !rest.is_empty()
        {
            match rustix::io::pread(&*self.0, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&*self.0, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    bytes = bytes.get(n..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        use rustix::fs::FallocateFlags;
        #[cfg(target_os = "linux")]
        match retry_on_intr(|| rustix::fs::fallocate(&*self.0, FallocateFlags::KEEP_SIZE, 0, length)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        #[cfg(not(target_os = "linux"))]
        let _ = length;
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&*self.0, length))?)
    }

    #[cfg(not(target_vendor = "apple"))]
    fn sync_data(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fdatasync(&*self.0))?)
    }

    // There fsync leaves the bytes in the drive's own cache.
    #[cfg(target_vendor = "apple")]
    fn sync_data(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fcntl_fullfsync(&*self.0))?)
    }
}
