//! When a listener rests: the system has run out of descriptors or memory, or there is no room, and trying again at once
//! would be no use.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;
use sol_engine::Instant;

/// Whether a listener rests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    No,
    /// From the next wait on, which knows the time.
    Begins,
    Until(Instant),
}

impl Rest {
    /// How much longer it rests; `None`: it does not, or not any more.
    pub(super) fn remaining(&mut self, now: Instant, pause: Duration) -> Option<Duration> {
        if *self == Self::Begins {
            *self = Self::Until(now.saturating_add(pause));
        }
        match self {
            Self::Until(end) if *end > now => Some(end.saturating_since(now)),
            _ => {
                *self = Self::No;
                None
            }
        }
    }
}

/// Whether an error is about the connection that was to be accepted, and the next one may be fine. Linux reports network
/// errors of a new connection here.
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::ETIMEDOUT
        )
    )
}

/// Whether an error says nothing: descriptors have run out, of which a system takes one before it looks whether anybody is
/// there to be accepted, and nobody is.
pub(super) fn concerns_nobody(error: &io::Error, listener: &Socket) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) && !has_waiting(listener)
}

/// Whether somebody waits to be accepted, as far as can be found out.
fn has_waiting(listener: &Socket) -> bool {
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())) != Ok(0)
}
