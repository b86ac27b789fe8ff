//! Accepting: a bounded number a turn, and a rest when the system has run out of descriptors or memory.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::Registry;
use socket2::{SockAddr, Socket};
use sol_engine::{Instant, ListenerId};

use super::{Sockets, State};
use crate::backend::Sink;
use crate::backend::rest::{Rest, concerns_nobody, concerns_one_connection};
use crate::peer::PeerAddr;

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    id: ListenerId,
    socket: Socket,
    /// Connections may be waiting.
    pub(super) pending: bool,
    /// Accepted, and not taken in for want of room.
    held: Option<(Socket, PeerAddr)>,
    rest: Rest,
}

impl Listener {
    pub(super) const fn new(id: ListenerId, socket: Socket) -> Self {
        // Somebody may have come before anybody was told of it.
        Self {
            id,
            socket,
            pending: true,
            held: None,
            rest: Rest::No,
        }
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// How long a wait may last for this listener's sake.
    pub(super) fn wait(&mut self, now: Instant, pause: Duration) -> Option<Duration> {
        self.rest
            .remaining(now, pause)
            .or_else(|| self.pending.then_some(Duration::ZERO))
    }

    /// Ends a rest early.
    pub(super) fn rearm(&mut self) {
        self.rest = Rest::No;
    }

    /// Accepts and reads who waits, as many as one turn allows.
    pub(super) fn accept<S: Sink>(&mut self, registry: &Registry, sockets: &mut Sockets, sink: &mut S) {
        if !self.pending || self.rest != Rest::No {
            return;
        }
        for _ in 0..sockets.limits.accepts_max {
            match self.next() {
                Ok(held) if !sink.may_accept(self.id) => {
                    self.held = Some(held);
                    self.rest = Rest::Begins;
                    return;
                }
                Ok((socket, peer)) => sockets.admit(registry, self.id, socket, peer, sink),
                // Whoever comes is reported anew either way.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || concerns_nobody(&error, &self.socket) => {
                    self.pending = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if concerns_one_connection(&error) => sink.on_accept_error(self.id, error, false),
                Err(error) => {
                    self.rest = Rest::Begins;
                    return sink.on_accept_error(self.id, error, true);
                }
            }
        }
    }

    fn next(&mut self) -> io::Result<(Socket, PeerAddr)> {
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        let (socket, address) = accept(&self.socket)?;
        Ok((socket, address.as_socket().map_or(PeerAddr::UNIX, PeerAddr::from)))
    }
}

impl Sockets {
    /// Reads a new connection before it is registered: its first bytes are usually there already, and registering
    /// reports what comes later.
    fn admit<S: Sink>(
        &mut self,
        registry: &Registry,
        listener: ListenerId,
        socket: Socket,
        peer: PeerAddr,
        sink: &mut S,
    ) {
        let connection = self.slots.insert(socket, State::default());
        if !sink.on_accept(listener, connection, peer) {
            return self.slots.free(connection);
        }
        self.read(connection.slot(), sink);
        if let Some(slot) = self.slots.find(connection)
            && !slot.state.paused
            && !slot.state.ended
            && slot.register(registry, connection.slot()).is_err()
        {
            slot.state.ended = true;
            sink.on_end(connection);
        }
    }
}

/// Accepts a socket that does not block and is not inherited.
#[cfg(any(
    target_os = "android",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "linux",
    target_os = "netbsd",
    target_os = "openbsd"
))]
fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    listener.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
}

#[cfg(not(any(
    target_os = "android",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "linux",
    target_os = "netbsd",
    target_os = "openbsd"
)))]
fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    let (socket, address) = listener.accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
