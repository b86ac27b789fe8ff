//! The files of `include_dir`.

use super::{read_bounded, reason};
use std::path::{Path, PathBuf};

/// Files of one directory that are read.
const FILES_MAX: usize = 256;

/// A path, and what is in it.
pub(crate) type File = (PathBuf, Vec<u8>);

/// Whether a file of such a directory is read, by its name.
pub(crate) fn is_included(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "conf")
}

/// The files of a directory that end in `.conf`, with what is in them, in Mosquitto's order: of letters that differ in case
/// alone the large one comes first, but only where nothing else tells two names apart.
///
/// # Errors
/// The path at fault and a sentence.
pub(crate) fn files(directory: &Path) -> Result<Vec<File>, (PathBuf, String)> {
    let fault = |path: &Path, error: std::io::Error| (path.to_owned(), format!("cannot be read: {}", reason(&error)));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| fault(directory, error))? {
        let path = entry.map_err(|error| fault(directory, error))?.path();
        if is_included(&path) {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        return Err((directory.to_owned(), format!("holds more than {FILES_MAX} files")));
    }
    paths.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        (name.to_ascii_uppercase(), name.to_owned())
    });
    let read = |path: PathBuf| match read_bounded(&path) {
        Ok(bytes) => Ok((path, bytes)),
        Err(error) => Err(fault(&path, error)),
    };
    paths.into_iter().map(read).collect()
}
