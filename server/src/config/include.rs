//! The files of `include_dir`.

use super::{read_bounded, reason};
use std::path::{Path, PathBuf};

/// Files of one directory that are read.
const FILES_MAX: usize = 256;

/// A path, and what is in it.
pub(crate) type File = (PathBuf, Vec<u8>);

/// The files of a directory that end in `.conf`, in the order of their names' bytes, with what is in them.
///
/// # Errors
/// The path at fault and a sentence.
pub(crate) fn files(directory: &Path) -> Result<Vec<File>, (PathBuf, String)> {
    let fault = |path: &Path, error: std::io::Error| (path.to_owned(), format!("cannot be read: {}", reason(&error)));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| fault(directory, error))? {
        let path = entry.map_err(|error| fault(directory, error))?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        return Err((directory.to_owned(), format!("holds more than {FILES_MAX} files")));
    }
    paths.sort();
    let read = |path: PathBuf| match read_bounded(&path) {
        Ok(bytes) => Ok((path, bytes)),
        Err(error) => Err(fault(&path, error)),
    };
    paths.into_iter().map(read).collect()
}
