//! Accepting: one operation for a listener that goes on by itself. What the kernel accepts beyond a turn's share waits
//! here, and while that is more than a share, or there is no room for them, it accepts no more.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::Socket;
use sol_engine::{Instant, ListenerId};

use super::ring::{Completion, Ring};
use super::tag::{Kind, Tag};
use super::{State, Uring};
use crate::backend::rest::{Rest, concerns_nobody, concerns_one_connection};
use crate::backend::{BackendLimits, Sink, earlier};
use crate::peer::PeerAddr;

/// One listening socket.
#[derive(Debug)]
struct Listener {
    id: ListenerId,
    socket: Socket,
    /// Its peers have addresses.
    has_addresses: bool,
    /// The kernel accepts.
    armed: bool,
    /// It was told to stop.
    ending: bool,
    /// Accepted, and not taken in yet.
    waiting: VecDeque<OwnedFd>,
    /// Whether they wait for room.
    full: Rest,
    /// Whether the kernel is not to accept.
    rest: Rest,
}

/// A shard's listening sockets. An operation's tag has a listener's place here.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Listener>);

const fn tag(index: u32) -> Tag {
    Tag::new(Kind::Accept, index, 0)
}

impl Listeners {
    pub(super) fn insert(&mut self, id: ListenerId, socket: Socket) -> io::Result<()> {
        let has_addresses = socket.local_addr()?.as_socket().is_some();
        self.0.push(Listener {
            id,
            socket,
            has_addresses,
            armed: false,
            ending: false,
            waiting: VecDeque::new(),
            full: Rest::No,
            rest: Rest::No,
        });
        Ok(())
    }

    /// Has the kernel accept where it should, and gives how long a wait may last for that.
    pub(super) fn arm(&mut self, ring: &mut Ring, now: Instant, limits: &BackendLimits) -> Option<Duration> {
        let mut timeout = None;
        for (index, listener) in (0..).zip(&mut self.0) {
            if let Some(rest) = listener.rest.remaining(now, limits.accept_pause) {
                timeout = earlier(timeout, Some(rest));
            } else if !listener.armed && listener.waiting.is_empty() {
                listener.armed = true;
                ring.accept(&listener.socket, tag(index));
            }
            if let Some(rest) = listener.full.remaining(now, limits.accept_pause) {
                timeout = earlier(timeout, Some(rest));
            } else if !listener.waiting.is_empty() {
                timeout = Some(Duration::ZERO);
            }
            // Whoever has to wait for room does so in the system's queue, as far as the kernel has not accepted them.
            let is_enough = listener.full != Rest::No || listener.waiting.len() > limits.accepts_max as usize;
            if listener.armed && !listener.ending && is_enough {
                listener.ending = true;
                ring.cancel(tag(index));
            }
        }
        timeout
    }

    /// Ends the rests early.
    pub(super) fn rearm(&mut self) {
        for listener in &mut self.0 {
            listener.rest = Rest::No;
            listener.full = Rest::No;
        }
    }

    /// Ends all of it, and lets no operation keep a listening socket alive. Whoever was accepted and not taken in yet is
    /// closed. Other completions that come meanwhile are kept for later.
    pub(super) fn stop(&mut self, ring: &mut Ring, others: &mut VecDeque<Completion>) {
        let listeners = std::mem::take(&mut self.0);
        let mut armed = 0_usize;
        for (index, listener) in (0..).zip(&listeners) {
            if listener.armed {
                armed += 1;
                ring.cancel(tag(index));
            }
        }
        // What is taken already may be the end of some.
        let is_end = |completion: &Completion| completion.tag.kind == Kind::Accept && completion.is_last();
        armed -= others.iter().filter(|completion| is_end(completion)).count().min(armed);
        while armed > 0 && ring.wait(Some(STOP_TIME)).is_ok() && ring.ready() > 0 {
            while let Some(completion) = ring.next() {
                armed -= usize::from(is_end(&completion)).min(armed);
                others.push_back(completion);
            }
        }
    }

    /// Takes a completion of a listener's accept.
    pub(super) fn accepted<S: Sink>(&mut self, completion: Completion, sink: &mut S) {
        let is_last = completion.is_last();
        let index = completion.tag.index as usize;
        let accepted = completion.into_accepted();
        // Without a listener any more, who was accepted late is closed here.
        let Some(listener) = self.0.get_mut(index) else { return };
        if is_last {
            listener.armed = false;
            listener.ending = false;
        }
        match accepted {
            Ok(socket) => listener.waiting.push_back(socket),
            Err(error) if is_nothing(&error) => {}
            Err(error) if concerns_nobody(&error, &listener.socket) => listener.rest = Rest::Begins,
            Err(error) if concerns_one_connection(&error) => sink.on_accept_error(listener.id, error, false),
            Err(error) => {
                listener.rest = Rest::Begins;
                sink.on_accept_error(listener.id, error, true);
            }
        }
    }

    /// The listener at a place, if it accepted somebody who is to be taken in.
    fn has_next(&self, index: usize) -> Option<ListenerId> {
        let listener = self.0.get(index)?;
        (listener.full == Rest::No && !listener.waiting.is_empty()).then_some(listener.id)
    }

    /// Has those wait whom the listener at a place accepted.
    fn hold(&mut self, index: usize) {
        if let Some(listener) = self.0.get_mut(index) {
            listener.full = Rest::Begins;
        }
    }

    /// The next that was accepted by the listener at a place, with where it comes from; `None` there: it is gone again.
    fn next(&mut self, index: usize) -> Option<(ListenerId, Option<(Socket, PeerAddr)>)> {
        let listener = self.0.get_mut(index)?;
        let socket = Socket::from(listener.waiting.pop_front()?);
        let peer = if listener.has_addresses {
            let address = socket.peer_addr().ok().and_then(|address| address.as_socket());
            address.map(PeerAddr::from)
        } else {
            Some(PeerAddr::UNIX)
        };
        Some((listener.id, peer.map(|peer| (socket, peer))))
    }
}

/// How long the kernel may take to say that it accepts no more; it says so at once.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Whether an accept has ended without anything having happened.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR))
}

impl Uring {
    /// Takes in who was accepted, as many as one turn allows, and reads them: their first bytes are usually there already.
    pub(super) fn admit<S: Sink>(&mut self, sink: &mut S) {
        for index in 0..self.listeners.0.len() {
            for _ in 0..self.limits.accepts_max {
                let Some(listener) = self.listeners.has_next(index) else {
                    break;
                };
                if !sink.may_accept(listener) {
                    self.listeners.hold(index);
                    break;
                }
                let Some((listener, accepted)) = self.listeners.next(index) else {
                    break;
                };
                let Some((socket, peer)) = accepted else { continue };
                let connection = self.slots.insert(socket, State::new(false, true));
                if sink.on_accept(listener, connection, peer) {
                    self.read_little(connection, sink);
                } else {
                    self.slots.free(connection);
                }
            }
        }
    }
}
