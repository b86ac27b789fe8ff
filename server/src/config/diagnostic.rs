//! What the configuration language has to say to the operator, and where in the file.

use std::fmt;
use std::path::{Path, PathBuf};

/// One warning or error, with the place that caused it.
///
/// Prints as `path:line:column: text`, the form editors and terminals jump to. Without a line (the file itself is at
/// fault, or the command line is) only what is known is printed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// The file, or `None` for the command line.
    pub path: Option<PathBuf>,
    /// Line, from 1; 0 if the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 if the whole line is meant.
    pub column: usize,
    /// One sentence, without a final full stop.
    pub text: String,
}

impl Diagnostic {
    /// Speaks of a place inside `path`.
    pub fn at(path: &Path, line: usize, column: usize, text: impl Into<String>) -> Self {
        Self {
            path: Some(path.to_owned()),
            line,
            column,
            text: text.into(),
        }
    }

    /// Speaks of a file as a whole.
    pub fn of_file(path: &Path, text: impl Into<String>) -> Self {
        Self::at(path, 0, 0, text)
    }

    /// Speaks of the command line.
    pub fn of_command_line(text: impl Into<String>) -> Self {
        Self {
            path: None,
            line: 0,
            column: 0,
            text: text.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}:", path.display())?,
            None => write!(f, "command line:")?,
        }
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if self.column > 0 {
            write!(f, "{}:", self.column)?;
        }
        write!(f, " {}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A diagnostic names its place as far as it knows it.
    #[test]
    fn prints_the_place() {
        let path = Path::new("/etc/sol/sol.conf");
        assert_eq!(
            Diagnostic::at(path, 3, 7, "bad").to_string(),
            "/etc/sol/sol.conf:3:7: bad"
        );
        assert_eq!(Diagnostic::of_file(path, "bad").to_string(), "/etc/sol/sol.conf: bad");
        assert_eq!(Diagnostic::of_command_line("bad").to_string(), "command line: bad");
    }
}
