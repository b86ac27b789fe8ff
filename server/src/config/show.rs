//! How values are printed, so that their readers read them back.

use std::path::Path;

/// A value that is always printed.
pub(crate) fn one(value: impl ToString) -> Vec<String> {
    vec![value.to_string()]
}

/// A value that may be missing.
pub(crate) fn optional(value: Option<impl ToString>) -> Vec<String> {
    value.iter().map(ToString::to_string).collect()
}

/// A path that may be missing.
pub(crate) fn path(path: Option<&Path>) -> Vec<String> {
    path.iter().map(|path| path.display().to_string()).collect()
}

/// A number of which there may be no limit.
pub(crate) fn count(count: Option<u32>) -> String {
    count.map_or_else(|| "-1".to_owned(), |count| count.to_string())
}

/// What is wrong with a word that is none of the known ones.
pub(crate) fn not_one_of<T: ToString>(text: &str, known: &[T]) -> String {
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    format!("`{text}` is none of {}", names.join(", "))
}
