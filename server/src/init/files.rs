//! Writes some files, or none of them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::reason;
use crate::passwd::Leftover;

/// A file that is to be there.
pub(super) struct New {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Whether it is meant for others, too.
    pub(super) is_public: bool,
}

/// Writes `files` into `directory`, which is made if it is not there, for its owner alone. Until all of them are on the disk
/// none has its name, and of those the last one gets it last.
///
/// # Errors
/// A sentence: one is there already and is not to be replaced, or something cannot be written. Nothing is changed then; only
/// where files are replaced, a disk that fails between two names leaves the first ones new.
pub(super) fn write_all(directory: &Path, files: &[New], may_replace: bool) -> Result<(), String> {
    let made = make(directory).map_err(|error| cannot(directory, &error))?;
    let written = write_into(directory, files, may_replace);
    if let (Err(_), Some(made)) = (&written, made) {
        // With what it does not hold.
        let _ = fs::remove_dir(made);
    }
    written
}

/// Makes the directory, and says so.
fn make(directory: &Path) -> io::Result<Option<&Path>> {
    if directory.is_dir() {
        return Ok(None);
    }
    DirBuilder::new().mode(0o700).create(directory)?;
    Ok(Some(directory))
}

fn write_into(directory: &Path, files: &[New], may_replace: bool) -> Result<(), String> {
    let mut staged = Vec::with_capacity(files.len());
    for file in files {
        let path = directory.join(file.name);
        if !may_replace && path.symlink_metadata().is_ok() {
            return Err(format!(
                "{} is there already; --force replaces it where a sol.conf is beside it",
                path.display()
            ));
        }
        staged.push((stage(directory, file)?, path));
    }
    let mut placed = Vec::with_capacity(files.len());
    for (mut beside, path) in staged {
        let Some(from) = beside.0.take() else { continue };
        if let Err(error) = fs::rename(&from, &path) {
            beside.0 = Some(from);
            if !may_replace {
                placed.iter().for_each(|path: &PathBuf| drop(fs::remove_file(path)));
            }
            return Err(cannot(&path, &error));
        }
        placed.push(path);
    }
    // The names are made durable; a system that cannot sync directories has them in its cache.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// Writes a file under another name, which keeps a second `sol init` out.
fn stage(directory: &Path, file: &New) -> Result<Leftover, String> {
    let path = directory.join(format!(".{}.new", file.name));
    let mode = if file.is_public { 0o644 } else { 0o600 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    let mut beside = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "{} is there: another `sol init` is at work, or one was killed and left it",
            path.display()
        ),
        _ => cannot(&path, &error),
    })?;
    let leftover = Leftover(Some(path.clone()));
    let written = beside.write_all(&file.bytes).and_then(|()| beside.sync_all());
    written.map_err(|error| cannot(&path, &error))?;
    Ok(leftover)
}

fn cannot(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {}", path.display(), reason(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &'static str) -> New {
        New {
            name,
            bytes: b"new".to_vec(),
            is_public: false,
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// One file that is there keeps all others from being written, and is as it was; with leave all are replaced.
    #[test]
    fn all_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("b");
        fs::write(&old, "old").unwrap();
        let files = [new("a"), new("b")];
        assert!(write_all(directory.path(), &files, false).is_err());
        assert_eq!(names(directory.path()), ["b"]);
        assert_eq!(fs::read(&old).unwrap(), b"old");
        write_all(directory.path(), &files, true).unwrap();
        assert_eq!(names(directory.path()), ["a", "b"]);
        assert_eq!(fs::read(&old).unwrap(), b"new");
    }

    /// Where a name cannot be given, those that were given before are taken back, and the directory that was made goes.
    #[test]
    fn a_failure_takes_back() {
        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("made");
        assert!(write_all(&directory, &[new("a"), new("no/such/folder")], false).is_err());
        assert!(!directory.exists());
    }

    /// Two at once do not mix: the second one is told of the first.
    #[test]
    fn another_at_work_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".b.new"), "").unwrap();
        let error = write_all(directory.path(), &[new("a"), new("b")], true).unwrap_err();
        assert!(error.contains("another `sol init` is at work"), "{error}");
        assert_eq!(names(directory.path()), [".b.new"]);
    }
}
