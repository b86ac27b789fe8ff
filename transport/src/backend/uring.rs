//! The backend over completions: io_uring, on Linux.
//!
//! A connection that was let in has one receive that goes on until it ends, into buffers that all connections of the shard
//! share; a listener has one accept that goes on; what a turn sends leaves in one system call, and nothing of it is in
//! flight afterwards.
//!
//! ```text
//!            resume                             pause, close: cancelled
//! not armed ────────► armed: receives or polls ─────────────────────────► ending ──► not armed
//!     ▲                        │ a completion that says that none follows
//!     └────────────────────────┘ no buffer, cancelled, overflow; the end of the peer is told once
//! ```
//!
//! "Not armed" is all that such a completion means. What a connection should be doing is written down in its slot, and
//! looked at before each wait: whoever was paused and resumed within a turn costs nothing. A slot is free, and its
//! descriptor closed, when nothing of it is in flight.
//!
//! Three things bound what one peer takes of a turn: the buffers, which come back only between two calls of the kernel,
//! hold all that a turn can receive, from all connections together; a connection is told of `reads_max` buffers' worth of
//! it, and of the rest a turn later; and of new connections `accepts_max` are taken in.
//!
//! A connection that was paused may still be told what had been received of it: that is in the buffers already, which
//! others need, and it is not more than they hold. Its end is not told before it is resumed.

mod accept;
mod buffers;
mod ladder;
mod receive;
mod ring;
mod send;
mod tag;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use socket2::Socket;
use sol_engine::{ConnectionId, Instant, ListenerId};

use self::accept::Listeners;
pub(crate) use self::ladder::try_out;
use self::receive::Turn;
use self::ring::{Completion, Ring};
use self::send::Short;
use self::tag::{Kind, Tag};
use super::slots::{Slot, Slots};
use super::{Backend, BackendLimits, SendOp, Sink, Wake, earlier};

/// Below it a batch is sent by single calls: entering the ring costs about as much as they do.
const RING_SENDS_MIN: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Uring {
    ring: Ring,
    limits: BackendLimits,
    slots: Slots<State>,
    listeners: Listeners,
    /// Slots to be looked at before the next wait.
    changed: Vec<u32>,
    /// Completions taken from the ring while something else was looked for. Older than those in the ring.
    taken: VecDeque<Completion>,
    /// Completions of connections that have had their share of this turn.
    late: VecDeque<Completion>,
    /// Connections that end by what was learnt while they were paused, and are resumed.
    over: Vec<ConnectionId>,
    /// Closed, and not reported yet.
    closed: Vec<ConnectionId>,
    turn: Turn,
    /// Where those are read who have not been let in.
    scratch: Box<[u8]>,
    /// The number of the last batch of sends.
    batch: u32,
    /// What of it was not sent entirely.
    shorts: Vec<Short>,
    waker: Arc<OwnedFd>,
    waker_is_armed: bool,
}

/// What a connection has in flight to learn of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    No,
    /// A poll, while it is read little at a time: it takes no buffer from those who were let in, and holds no bytes that
    /// would be lost when the socket moves.
    Readable,
    Receive,
}

/// Where a socket stands.
#[derive(Debug)]
struct State {
    armed: Armed,
    /// What is armed was cancelled.
    ending: bool,
    /// Not read until resumed.
    paused: bool,
    /// Read in small portions, as it is at first.
    little: bool,
    /// In the list of those to be looked at.
    queued: bool,
    /// A short send waits for room.
    awaits_room: bool,
    /// A poll for room is in flight.
    polls_room: bool,
    /// It has completions in the list of late ones.
    late: bool,
    /// Its peer has ended or failed, which was not told while it was paused.
    over: bool,
    /// Its end was told.
    ended: bool,
    /// It is being closed.
    closing: bool,
}

impl State {
    const fn new(paused: bool, little: bool) -> Self {
        Self {
            armed: Armed::No,
            ending: false,
            paused,
            little,
            queued: false,
            awaits_room: false,
            polls_room: false,
            late: false,
            over: false,
            ended: false,
            closing: false,
        }
    }

    const fn wants_input(&self) -> bool {
        !(self.paused || self.over || self.ended || self.closing)
    }

    fn is_in_flight(&self) -> bool {
        self.armed != Armed::No || self.polls_room
    }
}

/// It is paid for every idle connection.
const _: () = assert!(size_of::<Slot<State>>() <= 20);

impl Backend for Uring {
    fn new(limits: BackendLimits) -> io::Result<Self> {
        let size = u32::try_from(limits.read_bytes).unwrap_or(u32::MAX);
        Ok(Self {
            ring: Ring::new(limits.completions_max, limits.buffers, size)?,
            limits,
            slots: Slots::default(),
            listeners: Listeners::default(),
            changed: Vec::new(),
            taken: VecDeque::new(),
            late: VecDeque::new(),
            over: Vec::new(),
            closed: Vec::new(),
            turn: Turn::default(),
            scratch: vec![0; limits.read_bytes.min(limits.little_bytes).max(1)].into_boxed_slice(),
            batch: 0,
            shorts: Vec::new(),
            waker: Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?),
            waker_is_armed: false,
        })
    }

    fn wake(&self) -> io::Result<Wake> {
        let waker = Arc::clone(&self.waker);
        // Nobody reads what is counted there: each write is an event for who polls it, and the count never comes near its
        // limit.
        Ok(Box::new(move || {
            let _ = rustix::io::write(&waker, &1_u64.to_ne_bytes());
        }))
    }

    fn listen(&mut self, listener: ListenerId, socket: Socket) -> io::Result<()> {
        self.listeners.insert(listener, socket)
    }

    fn accept_again(&mut self) {
        self.listeners.rearm();
    }

    fn stop_listening(&mut self) {
        self.listeners.stop(&mut self.ring, &mut self.taken);
    }

    fn adopt(&mut self, socket: Socket) -> io::Result<ConnectionId> {
        Ok(self.slots.insert(socket, State::new(true, false)))
    }

    fn release(&mut self, connection: ConnectionId) -> Option<Socket> {
        let slot = self.slots.find(connection).filter(|slot| !slot.state.closing)?;
        if slot.state.armed == Armed::Receive || slot.state.late {
            // Against the contract: bytes may be on their way that would not be seen there.
            self.close(connection);
            return None;
        }
        let (has_poll, waits_for_room) = (slot.state.armed == Armed::Readable, slot.state.polls_room);
        let socket = slot.socket.take()?;
        self.slots.free(connection);
        // A poll holds no bytes, and its last completion finds nobody.
        if has_poll {
            self.ring.cancel(Tag::of(Kind::Readable, connection));
        }
        if waits_for_room {
            self.ring.cancel(Tag::of(Kind::Room, connection));
        }
        self.listeners.rearm();
        Some(socket)
    }

    fn send_batch(&mut self, operations: &mut [SendOp]) {
        if operations.len() < RING_SENDS_MIN {
            self.send_each(operations);
        } else {
            self.send_together(operations);
        }
    }

    fn pause(&mut self, connection: ConnectionId) {
        if let Some(slot) = self.open(connection) {
            slot.state.paused = true;
            self.look_at(connection);
        }
    }

    fn resume(&mut self, connection: ConnectionId) {
        if let Some(slot) = self.open(connection) {
            slot.state.paused = false;
            if core::mem::take(&mut slot.state.over) {
                return self.over.push(connection);
            }
            self.look_at(connection);
        }
    }

    fn shutdown_write(&mut self, connection: ConnectionId) {
        if let Some(slot) = self.open(connection)
            && let Some(socket) = &slot.socket
        {
            // The peer may be gone already, which says it just as well.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        if let Some(slot) = self.open(connection) {
            slot.state.closing = true;
            self.finish_or_look_at(connection);
        }
    }

    fn wait(&mut self, now: Instant, timeout: Option<Duration>) -> io::Result<()> {
        self.arm_waker();
        let mut timeout = earlier(timeout, self.listeners.arm(&mut self.ring, now, &self.limits));
        self.arm_changed();
        let has_more =
            !(self.taken.is_empty() && self.late.is_empty() && self.over.is_empty() && self.closed.is_empty());
        if has_more {
            timeout = Some(Duration::ZERO);
        }
        self.turn = Turn::default();
        self.ring.wait(timeout)
    }

    fn dispatch<S: Sink>(&mut self, sink: &mut S) -> bool {
        if !self.turn.begun {
            self.begin(sink);
        }
        while self.turn.left > 0 {
            if sink.is_full() {
                return true;
            }
            let Some(completion) = self.next() else { break };
            self.turn.left -= 1;
            self.complete(completion, sink);
        }
        self.admit(sink);
        false
    }
}

impl Uring {
    /// The slot of a connection that is not being closed.
    fn open(&mut self, connection: ConnectionId) -> Option<&mut Slot<State>> {
        self.slots
            .find(connection)
            .filter(|slot| slot.socket.is_some() && !slot.state.closing)
    }

    /// Has what a connection should be doing looked at before the next wait.
    fn look_at(&mut self, connection: ConnectionId) {
        if let Some(slot) = self.slots.find(connection)
            && !slot.state.queued
        {
            slot.state.queued = true;
            self.changed.push(connection.slot() as u32);
        }
    }

    /// Closes the descriptor of a connection that has nothing in flight, or sees to it that this comes.
    fn finish_or_look_at(&mut self, connection: ConnectionId) {
        let Some(slot) = self.slots.find(connection) else {
            return;
        };
        if slot.state.is_in_flight() {
            return self.look_at(connection);
        }
        if slot.socket.take().is_some() {
            self.closed.push(connection);
            // A descriptor is free again: whoever rests for want of one may try.
            self.listeners.rearm();
        }
    }

    /// The oldest completion.
    #[inline]
    fn next(&mut self) -> Option<Completion> {
        // The list is empty but in rare cases.
        match self.taken.pop_front() {
            None => self.ring.next(),
            taken => taken,
        }
    }

    /// Begins a turn: what comes from now on is the next one's.
    fn begin<S: Sink>(&mut self, sink: &mut S) {
        self.turn.begun = true;
        while let Some(connection) = self.closed.pop() {
            self.slots.free(connection);
            sink.on_closed(connection);
        }
        for connection in core::mem::take(&mut self.over) {
            self.end(connection, sink);
        }
        for completion in &self.late {
            if let Some(slot) = completion.tag.connection().and_then(|id| self.slots.find(id)) {
                slot.state.late = false;
            }
        }
        // They are older than all others.
        self.late.append(&mut self.taken);
        core::mem::swap(&mut self.late, &mut self.taken);
        self.turn.left = self.taken.len().saturating_add(self.ring.ready());
    }

    fn complete<S: Sink>(&mut self, completion: Completion, sink: &mut S) {
        match completion.tag.kind {
            Kind::Receive => self.received(completion, sink),
            Kind::Readable => self.readable(&completion, sink),
            Kind::Room => self.has_room(&completion, sink),
            Kind::Accept => self.listeners.accepted(completion, sink),
            Kind::Wake => self.waker_is_armed &= !completion.is_last(),
            Kind::Cancel | Kind::Send => {}
        }
    }

    fn has_room<S: Sink>(&mut self, completion: &Completion, sink: &mut S) {
        let Some(connection) = completion.tag.connection() else {
            return;
        };
        let Some(slot) = self.slots.find(connection) else {
            return;
        };
        slot.state.polls_room = false;
        if slot.state.closing {
            return self.finish_or_look_at(connection);
        }
        if core::mem::take(&mut slot.state.awaits_room) {
            sink.on_writable(connection);
        }
    }

    fn arm_waker(&mut self) {
        if !self.waker_is_armed {
            self.waker_is_armed = true;
            self.ring
                .poll(&self.waker, libc::POLLIN, true, Tag::new(Kind::Wake, 0, 0));
        }
    }

    /// Has the kernel do for each connection what it should be doing.
    fn arm_changed(&mut self) {
        while let Some(index) = self.changed.pop() {
            let Some(slot) = self.slots.at(index as usize) else {
                continue;
            };
            let connection = slot.connection(index as usize);
            let Slot {
                socket: Some(socket),
                state,
                ..
            } = slot
            else {
                continue;
            };
            state.queued = false;
            if state.armed == Armed::No && state.wants_input() {
                state.arm(&mut self.ring, socket, connection);
            } else if state.armed != Armed::No && !state.wants_input() && !state.ending {
                state.ending = true;
                self.ring.cancel(state.tag(connection));
            }
            if state.polls_room && state.closing {
                self.ring.cancel(Tag::of(Kind::Room, connection));
            } else if state.awaits_room && !state.polls_room {
                state.polls_room = true;
                let tag = Tag::of(Kind::Room, connection);
                self.ring.poll(socket, libc::POLLOUT, false, tag);
            }
        }
    }
}

/// Whoever was accepted, and not even looked at, is closed.
impl Drop for Uring {
    fn drop(&mut self) {
        for completion in self.taken.drain(..) {
            drop(completion.into_accepted());
        }
    }
}

#[cfg(test)]
mod tests;
