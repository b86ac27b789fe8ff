//! Where lines go: standard output, or a new file for its owner alone.

use std::fs::{self, File};
use std::io::{self, BufWriter, Stdout, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{CANNOT_CREATE, IO};
use crate::config::reason;
use crate::serve::Failure;

/// What is written; a file that is not finished is removed again.
#[derive(Debug)]
pub(super) enum Output {
    Stdout(BufWriter<Stdout>),
    File {
        path: PathBuf,
        writer: BufWriter<File>,
        is_done: bool,
    },
}

impl Output {
    /// # Errors
    /// The file is there already, or cannot be made.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Stdout(BufWriter::new(io::stdout())));
        };
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| Failure {
            code: CANNOT_CREATE,
            text: match error.kind() {
                io::ErrorKind::AlreadyExists => format!("{} is there already: name a new file", path.display()),
                _ => format!("cannot make {}: {}", path.display(), reason(&error)),
            },
        })?;
        Ok(Self::File {
            path: path.to_owned(),
            writer: BufWriter::new(file),
            is_done: false,
        })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        let written = match self {
            Self::Stdout(writer) => writeln!(writer, "{line}"),
            Self::File { writer, .. } => writeln!(writer, "{line}"),
        };
        written.map_err(|error| self.cannot_write(&error))
    }

    /// All is written: makes it durable.
    ///
    /// # Errors
    /// It cannot be.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let finished = match &mut self {
            Self::Stdout(writer) => writer.flush(),
            Self::File { writer, .. } => writer.flush().and_then(|()| writer.get_ref().sync_all()),
        };
        finished.map_err(|error| self.cannot_write(&error))?;
        if let Self::File { is_done, .. } = &mut self {
            *is_done = true;
        }
        Ok(())
    }

    fn cannot_write(&self, error: &io::Error) -> Failure {
        let name = match self {
            Self::Stdout(_) => "standard output".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        };
        Failure {
            code: IO,
            text: format!("cannot write {name}: {}", reason(error)),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::File {
            path, is_done: false, ..
        } = self
        {
            let _ = fs::remove_file(path);
        }
    }
}
