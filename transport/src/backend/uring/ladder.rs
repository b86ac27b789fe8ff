//! Whether io_uring can be had here, found out by trying all of it once.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use super::ring::{Completion, Ring};
use super::tag::{Kind, Tag};
use crate::clock::Clock;

/// A byte through a socket pair takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sets up a ring, registers buffers, and receives a byte. On a thread of its own: a ring that goes interrupts, a little
/// later, whatever its thread waits for then.
///
/// # Errors
/// What the first rung says that does not hold.
pub(crate) fn try_out() -> io::Result<()> {
    let thread = thread::Builder::new().name("io_uring?".to_owned()).spawn(climb)?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("trying io_uring failed")))
}

fn climb() -> io::Result<()> {
    let mut ring = Ring::new(8, 1, 64)?;
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    ring.receive(&ours, Tag::new(Kind::Receive, 0, 0));
    theirs.write_all(b"x")?;
    let completion = first(&mut ring)?;
    match completion.buffer() {
        // More of the buffer is left: it is used up bit by bit, as was asked for.
        Some((0, true)) if completion.result == 1 && !completion.is_last() => Ok(()),
        _ if completion.result < 0 => Err(completion.error()),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Waits for a completion. A wait may end without one before its time is over, when a signal interrupts it.
fn first(ring: &mut Ring) -> io::Result<Completion> {
    let clock = Clock::start();
    let ends = clock.now().mono.saturating_add(PATIENCE);
    loop {
        let left = ends.saturating_since(clock.now().mono);
        ring.wait(Some(left))?;
        match ring.next() {
            Some(completion) => return Ok(completion),
            None if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            None => {}
        }
    }
}
