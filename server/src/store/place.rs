//! Where a journal is, and where a new one comes to be.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use sol_journal::{Disk as _, LockError, OnDamage, OpenError, OsDisk, Snapshot};

use super::open::{IN_USE_HINT, owner_hint};
use super::{CANNOT_CREATE, DATA, IN_USE, IO, NO_INPUT};
use crate::config::{JOURNAL_DIRECTORY, in_words, reason};
use crate::serve::Failure;

/// What the journal locks.
const LOCK: &str = "LOCK";

/// The journal that a directory is, or has in it.
///
/// # Errors
/// There is none.
pub(super) fn existing(directory: &Path) -> Result<PathBuf, Failure> {
    let inner = directory.join(JOURNAL_DIRECTORY);
    for place in [inner.as_path(), directory] {
        let entries = match fs::read_dir(place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(Failure {
                    code: IO,
                    text: format!("cannot read {}: {}", place.display(), reason(&error)),
                });
            }
        };
        let is_segment = |entry: fs::DirEntry| entry.path().extension().is_some_and(|end| end == "seg");
        if entries.flatten().any(is_segment) {
            return Ok(place.to_owned());
        }
    }
    Err(Failure {
        code: NO_INPUT,
        text: format!(
            "there is no journal in {}: name what persistence_location names, or the {JOURNAL_DIRECTORY} in it",
            directory.display()
        ),
    })
}

pub(super) fn disk(place: &Path) -> Result<OsDisk, Failure> {
    OsDisk::existing(place).map_err(|error| Failure {
        code: IO,
        text: format!("cannot open {}: {}", place.display(), reason(&error)),
    })
}

/// Reads and verifies the journal of a directory.
///
/// # Errors
/// There is none, or it cannot be used.
pub(super) fn read(directory: &Path, on_damage: OnDamage) -> Result<(PathBuf, Snapshot<OsDisk>), Failure> {
    let place = existing(directory)?;
    let snapshot = Snapshot::read(disk(&place)?, on_damage).map_err(|error| refuse(&place, &error))?;
    Ok((place, snapshot))
}

/// Why a journal cannot be used, and what to do.
pub(super) fn refuse(place: &Path, error: &OpenError) -> Failure {
    let place = place.display();
    let (code, hint) = match error {
        OpenError::Damaged(_) | OpenError::Missing { .. } | OpenError::Orphan { .. } => (
            DATA,
            format!("; `sol store salvage {place} --out FILE` saves what can be read"),
        ),
        // What is to be done is in the sentence.
        OpenError::Newer { .. } | OpenError::Foreign { .. } | OpenError::Misnumbered { .. } => (DATA, String::new()),
        OpenError::Locked(LockError::Taken(_)) => (IN_USE, IN_USE_HINT.to_owned()),
        OpenError::Locked(LockError::Io(error)) | OpenError::Io { error, .. } => (IO, owner_hint(error).to_owned()),
        OpenError::Full { .. } | OpenError::Failed(_) => (IO, String::new()),
    };
    let error = in_words(error.to_string());
    Failure {
        code,
        text: format!("the journal in {place} cannot be used: {error}{hint}"),
    }
}

/// A journal that comes to be: under another name until it is whole, so that no broker ever starts with half of one.
#[derive(Debug)]
pub(super) struct Fresh {
    target: PathBuf,
    new: PathBuf,
    /// A directory around it that was made too.
    around: Option<PathBuf>,
    is_done: bool,
}

impl Fresh {
    /// In a directory, which is made if its parent is there, or as the directory itself if it has a journal's name.
    ///
    /// # Errors
    /// There is a journal already, or the directory cannot be written.
    pub(super) fn at(directory: &Path) -> Result<Self, Failure> {
        let is_journal = directory.file_name().is_some_and(|name| name == JOURNAL_DIRECTORY);
        let target = if is_journal {
            directory.to_owned()
        } else {
            directory.join(JOURNAL_DIRECTORY)
        };
        vacate(&target)?;
        let mut name = target.clone().into_os_string();
        name.push(".new");
        let mut fresh = Self {
            new: PathBuf::from(name),
            around: None,
            // There is nothing to be removed yet.
            is_done: true,
            target,
        };
        let parent = parent_of(&fresh.target);
        if !is_journal && !parent.exists() {
            make_directory(parent).map_err(|error| cannot_make(parent, &error))?;
            fresh.around = Some(parent.to_owned());
        }
        make_directory(&fresh.new).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure {
                code: CANNOT_CREATE,
                text: format!(
                    "{} is there already, from another import or from one that was cut short: remove it if none is at work",
                    fresh.new.display()
                ),
            },
            _ => cannot_make(&fresh.new, &error),
        })?;
        fresh.is_done = false;
        Ok(fresh)
    }

    /// Where it is until it is whole.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn disk(&self) -> Result<OsDisk, Failure> {
        disk(&self.new)
    }

    /// It is whole: gives it its name, and says which.
    ///
    /// # Errors
    /// Another one has come to be meanwhile, or the disk failed.
    pub(super) fn finish(mut self) -> Result<PathBuf, Failure> {
        let parent = parent_of(&self.target);
        let result = give_to_owner_of(parent, &self.new)
            .and_then(|()| fs::rename(&self.new, &self.target))
            .and_then(|()| fs::File::open(parent)?.sync_all());
        result.map_err(|error| cannot_make(&self.target, &error))?;
        self.is_done = true;
        Ok(self.target.clone())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_dir_all(&self.new);
            if let Some(around) = &self.around {
                let _ = fs::remove_dir(around);
            }
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn cannot_make(path: &Path, error: &std::io::Error) -> Failure {
    Failure {
        code: if error.kind() == std::io::ErrorKind::DirectoryNotEmpty {
            CANNOT_CREATE
        } else {
            IO
        },
        text: format!("cannot make {}: {}", path.display(), reason(error)),
    }
}

/// Makes sure that there is nothing where a journal is to be, and nobody who uses it.
fn vacate(target: &Path) -> Result<(), Failure> {
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_make(target, &error)),
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    let has_lock = names.iter().any(|name| name == LOCK);
    if has_lock {
        let locked = disk(target)?.lock();
        locked.map_err(|error| refuse(target, &OpenError::Locked(error)))?;
    }
    if names.iter().any(|name| name != LOCK) {
        return Err(Failure {
            code: CANNOT_CREATE,
            text: format!(
                "{} is not empty: name another directory, or move it away",
                target.display()
            ),
        });
    }
    if has_lock {
        // An empty directory is replaced by the new one, and by nobody else: it must be empty then, too.
        fs::remove_file(target.join(LOCK)).map_err(|error| cannot_make(target, &error))?;
    }
    Ok(())
}

/// Root makes a journal for the broker, which may run as somebody else: as whoever has the directory around it.
fn give_to_owner_of(parent: &Path, new: &Path) -> std::io::Result<()> {
    let owner = fs::metadata(parent)?;
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let ids = (Some(owner.uid()), Some(owner.gid()));
    for entry in fs::read_dir(new)? {
        lchown(entry?.path(), ids.0, ids.1)?;
    }
    lchown(new, ids.0, ids.1)
}
