//! Files for browsers (`http_dir`): each directory is read into memory as a whole, at the start and at SIGHUP.
//!
//! Only what lies in the directory is read, whoever may write there: every name on the way to a file is opened by itself, from
//! the directory on, and none of them may be a link. A link to a file is followed only where it ends inside, by opening that
//! file in the same way. It is read with the rights that the broker has left, not with those that it was started with.

mod content_type;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use sol_transport::Files;

use self::content_type::content_type;
use crate::config::{Config, Diagnostic, Protocol, reason};

/// Bytes of all directories together. They are kept beside `max_memory`, and twice while they are read again.
const BYTES_MAX: u64 = 64 << 20;
/// Files and directories, of all directories together.
const ENTRIES_MAX: usize = 10_000;
/// Directories inside of each other.
const DEPTH_MAX: usize = 16;

/// What each listener of the configuration serves, in its order.
pub(crate) type Served = Vec<Option<Arc<Files>>>;

/// Reads the directory of each listener, each of them once. The warnings name files that are not served. A listener that is
/// gone serves nothing any more.
///
/// # Errors
/// A directory that cannot be read, or has more in it than may be.
pub(crate) fn load_all(config: &Config) -> Result<(Served, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut known: HashMap<&Path, Option<Arc<Files>>> = HashMap::new();
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    let mut budget = Budget::default();
    let served = config.listeners.iter().map(|listener| {
        let is_spoken = listener.protocol == Protocol::WebSockets;
        let path = listener.websockets.http_dir.as_deref().filter(|_| is_spoken)?;
        if listener.is_gone {
            return Some(Arc::default());
        }
        let read = known.entry(path).or_insert_with(|| {
            let say = |text| listener.place_of("http_dir").say(format!("`http_dir`: {text}"));
            match load(path, &mut budget) {
                Ok((files, told)) => {
                    let (count, bytes) = (files.count(), files.bytes());
                    tracing::info!("serves {count} files of {}, {bytes} bytes in memory", path.display());
                    warnings.extend(told.into_iter().map(say));
                    Some(Arc::new(files))
                }
                Err(text) => {
                    errors.push(say(text));
                    None
                }
            }
        });
        read.clone()
    });
    let served = served.collect();
    if errors.is_empty() {
        Ok((served, warnings))
    } else {
        Err(errors)
    }
}

/// What may still be read.
struct Budget {
    entries: usize,
    bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            entries: ENTRIES_MAX,
            bytes: BYTES_MAX,
        }
    }
}

/// Reads a directory. The warnings are a sentence each, and so is the error.
fn load(directory: &Path, budget: &mut Budget) -> Result<(Files, Vec<String>), String> {
    let cannot = |error: Errno| cannot_read(directory, error);
    let root = openat(CWD, directory, flags() | OFlags::DIRECTORY, Mode::empty()).map_err(cannot)?;
    let mut reader = Reader {
        real: directory.canonicalize().unwrap_or_else(|_| directory.to_owned()),
        directory,
        root: &root,
        budget,
        files: Files::default(),
        bytes: 0,
        warnings: Vec::new(),
    };
    reader.read_directory(root.as_fd(), Path::new(""), 0)?;
    if reader.bytes > reader.budget.bytes {
        return Err(format!(
            "{} has {} bytes of files, and all directories together may have {BYTES_MAX}: they are kept in memory",
            directory.display(),
            reader.bytes
        ));
    }
    reader.budget.bytes -= reader.bytes;
    Ok((reader.files, reader.warnings))
}

fn cannot_read(directory: &Path, error: Errno) -> String {
    let (shown, why) = (directory.display(), reason(&error.into()));
    format!("{shown} cannot be read: {why}")
}

/// What is opened is not waited for, whatever it is.
fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
}

/// One directory while it is read.
struct Reader<'a> {
    directory: &'a Path,
    /// The same without links, for what lies behind a link.
    real: PathBuf,
    root: &'a OwnedFd,
    budget: &'a mut Budget,
    files: Files,
    bytes: u64,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// Reads what is in a directory, by its path from the root on.
    fn read_directory(&mut self, opened: impl AsFd, path: &Path, depth: usize) -> Result<(), String> {
        let names = match names(opened.as_fd()) {
            Ok(names) => names,
            Err(error) if depth == 0 => return Err(cannot_read(self.directory, error)),
            Err(error) => {
                self.pass_over(path, &reason(&error.into()));
                return Ok(());
            }
        };
        for name in names {
            if self.budget.entries == 0 {
                let directory = self.directory.display();
                return Err(format!(
                    "{directory} has too many files: all directories together may have {ENTRIES_MAX}"
                ));
            }
            self.budget.entries -= 1;
            self.read_entry(opened.as_fd(), &path.join(std::ffi::OsStr::from_bytes(&name)), depth)?;
        }
        Ok(())
    }

    fn read_entry(&mut self, parent: impl AsFd, path: &Path, depth: usize) -> Result<(), String> {
        let Some(name) = path.file_name() else { return Ok(()) };
        // What a page has to say to everybody has its place by RFC 8615; any other such name is meant to be unseen.
        if name.as_bytes().starts_with(b".") && name != ".well-known" {
            self.pass_over(path, "its name begins with a dot");
            return Ok(());
        }
        let (opened, is_link) = match openat(parent, name, flags() | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::LOOP | Errno::MLINK) => (self.open_linked(path), true),
            opened => (opened.map_err(|error| reason(&error.into())), false),
        };
        let looked = opened.and_then(|opened| {
            let stat = fstat(&opened).map_err(|error| reason(&error.into()))?;
            Ok((opened, FileType::from_raw_mode(stat.st_mode), stat.st_size))
        });
        match looked {
            Err(why) => self.pass_over(path, &why),
            Ok((opened, FileType::RegularFile, size)) => self.read_file(opened, path, u64::try_from(size).unwrap_or(0)),
            Ok((_, FileType::Directory, _)) if is_link => self.pass_over(path, "it is a link to a directory"),
            Ok((_, FileType::Directory, _)) if depth == DEPTH_MAX => {
                self.pass_over(path, &format!("it lies below {DEPTH_MAX} directories"));
            }
            Ok((opened, FileType::Directory, _)) => self.read_directory(opened, path, depth + 1)?,
            Ok(_) => self.pass_over(path, "it is no file"),
        }
        Ok(())
    }

    /// Opens the file that a link leads to, if that lies inside.
    fn open_linked(&self, path: &Path) -> Result<OwnedFd, String> {
        let target = self.real.join(path).canonicalize().map_err(|error| reason(&error))?;
        let inside = target.strip_prefix(&self.real);
        let inside = inside.map_err(|_| "it is a link that leads out of the directory".to_owned())?;
        let mut opened = None;
        // It has no link in it any more; whoever makes one now is not followed.
        for component in inside.components() {
            let Component::Normal(name) = component else {
                return Err("it is a link that leads nowhere".to_owned());
            };
            let parent = opened.as_ref().unwrap_or(self.root);
            let next = openat(parent, name, flags() | OFlags::NOFOLLOW, Mode::empty());
            opened = Some(next.map_err(|error| reason(&error.into()))?);
        }
        opened.ok_or_else(|| "it is a link to a directory".to_owned())
    }

    /// Reads a file; when there is too much, nothing but how much there is.
    fn read_file(&mut self, opened: OwnedFd, path: &Path, size: u64) {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.budget.bytes {
            return;
        }
        match read(File::from(opened), size) {
            Ok(body) => {
                let path = [b"/", path.as_os_str().as_bytes()].concat();
                self.files.insert(&path, content_type(&path), body);
            }
            Err(error) => self.pass_over(path, &reason(&error)),
        }
    }

    fn pass_over(&mut self, path: &Path, why: &str) {
        let path = self.directory.join(path);
        self.warnings.push(format!("{} is not served: {why}", path.display()));
    }
}

/// What is in a directory, in one order on every machine.
fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
            // One more than may be, so that it is found.
            if names.len() > ENTRIES_MAX {
                break;
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads a file that is not longer than it was said to be: it may just be written.
fn read(file: File, size: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    file.take(size).read_to_end(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests;
