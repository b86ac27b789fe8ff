//! Which backend the shards run on: what was asked for, and what the system permits. It is chosen once, before the first
//! shard starts, so all of them have the same one.

use std::fmt;
use std::io;
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

/// Chooses; `try_out` tries io_uring.
pub(crate) fn choose(io: Io, try_out: impl FnOnce() -> io::Result<()>) -> Result<Choice, StartError> {
    let readiness = Choice {
        backend: BackendName::READINESS,
        fallback: None,
    };
    if io == Io::Epoll {
        return Ok(readiness);
    }
    match (try_out(), io) {
        (Ok(()), _) => Ok(Choice {
            backend: BackendName::IoUring,
            fallback: None,
        }),
        (Err(error), io) => match (why_not(&error), io) {
            (Some(why), Io::IoUring) => Err(StartError::NoIoUring(format!("{why}; use auto or epoll instead"))),
            // Where there is no other there was nothing to choose.
            (Some(why), _) => Ok(Choice {
                fallback: cfg!(target_os = "linux").then(|| why.to_owned()),
                ..readiness
            }),
            // Out of descriptors or memory: another backend would not fare better for long.
            (None, _) => Err(error.into()),
        },
    }
}

/// Why io_uring cannot be had here, if that is what an error says.
fn why_not(error: &io::Error) -> Option<&'static str> {
    if error.kind() == io::ErrorKind::Unsupported && error.raw_os_error().is_none() {
        return Some("io_uring exists on Linux only, and not on every architecture");
    }
    if error.kind() == io::ErrorKind::InvalidInput {
        return Some("this kernel's io_uring lacks what is needed (EINVAL): Linux 6.12 and later have it");
    }
    if error.kind() == io::ErrorKind::TimedOut {
        return Some("io_uring did not answer here within seconds");
    }
    match error.raw_os_error()? {
        libc::EPERM => Some(
            "io_uring is not permitted here (EPERM): by kernel.io_uring_disabled, or by a seccomp filter as containers have",
        ),
        libc::EACCES => Some("io_uring is not permitted here (EACCES): by a policy of the system"),
        libc::ENOSYS => Some("there is no io_uring here (ENOSYS): the kernel lacks it, or a sandbox hides it"),
        _ => None,
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

    /// io_uring is taken where it can be had, and what cannot be had is told in one sentence without a full stop.
    #[test]
    fn auto_takes_what_can_be_had() {
        let choice = choose(Io::Auto, || Ok(())).unwrap();
        assert_eq!((choice.backend, choice.fallback), (BackendName::IoUring, None));
        let errors = || {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            let told = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL];
            told.into_iter().map(io::Error::from_raw_os_error).chain([late])
        };
        for (error, again) in errors().zip(errors()) {
            let choice = choose(Io::Auto, || Err(error)).unwrap();
            assert_eq!(choice.backend, BackendName::READINESS);
            assert_eq!(choice.fallback.is_some(), cfg!(target_os = "linux"));
            let error = choose(Io::IoUring, || Err(again)).unwrap_err();
            assert!(error.to_string().starts_with("cannot start with io_uring: "), "{error}");
            assert!(error.to_string().ends_with("; use auto or epoll instead"), "{error}");
        }
    }
}
