//! Which backend the shards run on: what was asked for, and what the system permits. It is chosen once, before the first
//! shard starts, so all of them have the same one.

use std::fmt;
use std::str::FromStr;

use crate::shards::StartError;

/// Which backend is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// io_uring where the system permits it, and readiness elsewhere.
    #[default]
    Auto,
    /// io_uring, or no start.
    IoUring,
    /// Readiness: epoll on Linux, kqueue on the BSDs and macOS.
    Epoll,
}

impl Io {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Auto, Self::IoUring, Self::Epoll];

    /// What it is called where it is configured.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIo;

impl fmt::Display for UnknownIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("use auto, io_uring or epoll")
    }
}

impl std::error::Error for UnknownIo {}

impl FromStr for Io {
    type Err = UnknownIo;

    fn from_str(word: &str) -> Result<Self, UnknownIo> {
        Self::ALL.into_iter().find(|io| io.as_str() == word).ok_or(UnknownIo)
    }
}

/// The backend that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendName {
    /// Readiness on Linux.
    Epoll,
    /// Readiness on the BSDs and macOS.
    Kqueue,
    /// Completions, on Linux.
    IoUring,
}

impl BackendName {
    /// What readiness is called here.
    pub(crate) const READINESS: Self = if cfg!(any(target_os = "linux", target_os = "android")) {
        Self::Epoll
    } else {
        Self::Kqueue
    };

    /// The name, for logs, metrics and `$SYS`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Kqueue => "kqueue",
            Self::IoUring => "io_uring",
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) backend: BackendName,
    /// Why `auto` did not take io_uring, in one sentence.
    pub(crate) fallback: Option<String>,
}

/// Chooses.
pub(crate) fn choose(io: Io) -> Result<Choice, StartError> {
    match io {
        Io::Auto | Io::Epoll => Ok(Choice {
            backend: BackendName::READINESS,
            fallback: None,
        }),
        Io::IoUring => Err(StartError::NoIoUring(
            "this build has no io_uring; use auto or epoll".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each choice is read by the word that it is written with, and no other word is taken for one.
    #[test]
    fn the_words_of_the_choices() {
        for io in Io::ALL {
            assert_eq!(io.to_string().parse(), Ok(io));
        }
        for word in ["", "AUTO", "uring", "io-uring", "kqueue"] {
            assert_eq!(word.parse::<Io>(), Err(UnknownIo), "{word}");
        }
    }
}
