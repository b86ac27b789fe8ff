//! The backend over readiness: epoll on Linux, kqueue on the BSDs and macOS, both through mio.
//!
//! Registered once, edge-triggered; a socket is read until a short read, so readiness that was told need not be told
//! again. What a limit cut short waits in a list of its own, and the next wait does not block.

mod accept;

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::Socket;
use sol_engine::{ConnectionId, Instant, ListenerId};

use self::accept::Listener;
use super::slots::{Slot, Slots};
use super::{Backend, BackendLimits, Reading, SendOp, Sink, Wake, earlier};

/// Tokens count down from the top for what is no connection, and connections have their slots.
const WAKER: Token = Token(usize::MAX);
const LISTENER_TOP: usize = usize::MAX - 1;

/// More events in one wait change nothing that could be measured.
const EVENTS_MAX: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Epoll {
    poll: Poll,
    events: Events,
    /// This turn's share of work was fixed: what becomes runnable from now on is the next turn's.
    begun: bool,
    /// How many of the events were dispatched already.
    dispatched: usize,
    listeners: Vec<Listener>,
    sockets: Sockets,
}

/// Where a socket stands; it is read in small portions at first.
#[derive(Debug)]
struct State {
    /// The kernel reports it.
    registered: bool,
    /// Not read until resumed.
    paused: bool,
    /// Read in small portions.
    little: bool,
    /// In the list of those to be read next turn.
    queued: bool,
    /// A short send waits for room.
    awaits_room: bool,
    /// The kernel says that the peer has closed: a short read is not the end of what is there.
    hung_up: bool,
    /// Its end was told.
    ended: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            registered: false,
            paused: false,
            little: true,
            queued: false,
            awaits_room: false,
            hung_up: false,
            ended: false,
        }
    }
}

/// It is paid for every idle connection.
const _: () = assert!(size_of::<Slot<State>>() <= 16);

/// The connected sockets, apart from what is borrowed while events are walked.
#[derive(Debug)]
struct Sockets {
    limits: BackendLimits,
    slots: Slots<State>,
    /// Where every read goes.
    buffer: Box<[u8]>,
    /// Slots with more to read than their quantum allowed, or resumed.
    runnable: Vec<usize>,
    /// The list above while it is worked off.
    running: Vec<usize>,
    /// Closed, and not reported yet.
    closed: Vec<ConnectionId>,
}

impl Backend for Epoll {
    fn new(limits: BackendLimits) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            begun: false,
            dispatched: 0,
            listeners: Vec::new(),
            sockets: Sockets {
                limits,
                slots: Slots::default(),
                buffer: vec![0; limits.read_bytes.max(1)].into_boxed_slice(),
                runnable: Vec::new(),
                running: Vec::new(),
                closed: Vec::new(),
            },
        })
    }

    fn wake(&self) -> io::Result<Wake> {
        let waker = mio::Waker::new(self.poll.registry(), WAKER)?;
        // A wake-up can only fail for want of memory in the kernel; the shard then finds its mail at its next turn.
        Ok(Box::new(move || drop(waker.wake())))
    }

    fn listen(&mut self, listener: ListenerId, socket: Socket) -> io::Result<()> {
        let token = Token(LISTENER_TOP - self.listeners.len());
        self.poll
            .registry()
            .register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        self.listeners.push(Listener::new(listener, socket));
        Ok(())
    }

    fn accept_again(&mut self) {
        self.rearm_listeners();
    }

    fn stop_listening(&mut self) {
        for listener in self.listeners.drain(..) {
            // Other shards may hold the same socket, so that closing ours alone would not end its reports.
            let _ = self.poll.registry().deregister(&mut SourceFd(&listener.as_raw_fd()));
        }
    }

    fn adopt(&mut self, socket: Socket) -> io::Result<ConnectionId> {
        let state = State {
            paused: true,
            ..State::default()
        };
        Ok(self.sockets.slots.insert(socket, state))
    }

    fn release(&mut self, connection: ConnectionId) -> Option<Socket> {
        let slot = self.sockets.slots.find(connection)?;
        let registered = slot.state.registered;
        let socket = slot.socket.take()?;
        self.sockets.slots.free(connection);
        if registered {
            // The descriptor lives on elsewhere, so the kernel would go on reporting it here.
            let _ = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
        self.rearm_listeners();
        Some(socket)
    }

    fn send_batch(&mut self, operations: &mut [SendOp]) {
        for operation in operations {
            self.sockets.send(self.poll.registry(), operation);
        }
    }

    fn pause(&mut self, connection: ConnectionId) {
        if let Some(slot) = self.sockets.slots.find(connection) {
            slot.state.paused = true;
        }
    }

    fn resume(&mut self, connection: ConnectionId) {
        let Some(slot) = self.sockets.slots.find(connection) else {
            return;
        };
        slot.state.paused = false;
        // If it cannot be registered, the read below finds what is there, and the shard's own limits end it.
        let _ = slot.register(self.poll.registry(), connection.slot());
        self.sockets.queue(connection.slot());
    }

    fn shutdown_write(&mut self, connection: ConnectionId) {
        let Some(slot) = self.sockets.slots.find(connection) else {
            return;
        };
        if let Some(socket) = &slot.socket {
            // The peer may be gone already, which says it just as well.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
        let _ = slot.register(self.poll.registry(), connection.slot());
    }

    fn close(&mut self, connection: ConnectionId) {
        let Some(slot) = self.sockets.slots.find(connection) else {
            return;
        };
        if slot.socket.take().is_some() {
            self.sockets.closed.push(connection);
            self.rearm_listeners();
        }
    }

    fn wait(&mut self, now: Instant, timeout: Option<Duration>) -> io::Result<()> {
        let mut timeout = timeout;
        for listener in &mut self.listeners {
            timeout = earlier(timeout, listener.wait(now, self.sockets.limits.accept_pause));
        }
        if !self.sockets.runnable.is_empty() || !self.sockets.closed.is_empty() {
            timeout = Some(Duration::ZERO);
        }
        self.begun = false;
        self.dispatched = 0;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    fn dispatch<S: Sink>(&mut self, sink: &mut S) -> bool {
        let registry = self.poll.registry();
        if !self.begun {
            self.begun = true;
            self.sockets.report_closed(sink);
            self.sockets.begin();
        }
        if !self.sockets.run(sink) {
            return true;
        }
        for event in self.events.iter().skip(self.dispatched) {
            if sink.is_full() {
                return true;
            }
            self.dispatched += 1;
            if !self.sockets.on_event(registry, event, sink)
                && let Some(index) = LISTENER_TOP.checked_sub(event.token().0)
                && let Some(listener) = self.listeners.get_mut(index)
            {
                listener.pending = true;
            }
        }
        for listener in &mut self.listeners {
            listener.accept(registry, &mut self.sockets, sink);
        }
        false
    }
}

impl Epoll {
    /// A descriptor is free again, or a place: whoever rests for want of one may try.
    fn rearm_listeners(&mut self) {
        for listener in &mut self.listeners {
            listener.rearm();
        }
    }
}

impl Sockets {
    fn report_closed<S: Sink>(&mut self, sink: &mut S) {
        while let Some(connection) = self.closed.pop() {
            self.slots.free(connection);
            sink.on_closed(connection);
        }
    }

    /// Fixes who is read before the events. Whoever is resumed later in the turn waits for the next one, or busy peers
    /// that a full sink pauses and relief resumes would keep everybody else waiting for ever.
    fn begin(&mut self) {
        if self.running.is_empty() {
            core::mem::swap(&mut self.runnable, &mut self.running);
        } else {
            self.running.append(&mut self.runnable);
        }
    }

    /// Reads those that were cut short in the turn before; `false`: the sink is full.
    fn run<S: Sink>(&mut self, sink: &mut S) -> bool {
        while let Some(&index) = self.running.last() {
            if sink.is_full() {
                return false;
            }
            self.running.pop();
            if let Some(slot) = self.slots.at(index) {
                slot.state.queued = false;
                self.read(index, sink);
            }
        }
        true
    }

    fn queue(&mut self, index: usize) {
        if let Some(slot) = self.slots.at(index)
            && !slot.state.queued
        {
            slot.state.queued = true;
            self.runnable.push(index);
        }
    }

    /// Takes an event of a connection; `false`: it is not a connection's.
    fn on_event<S: Sink>(&mut self, registry: &Registry, event: &Event, sink: &mut S) -> bool {
        let index = event.token().0;
        let Some(slot) = self.slots.at(index) else { return false };
        let ends = event.is_read_closed() || event.is_error();
        slot.state.hung_up |= ends;
        if event.is_writable() {
            self.writable(registry, index, sink);
        }
        if event.is_readable() || ends {
            self.readable(index, sink);
        }
        true
    }

    fn readable<S: Sink>(&mut self, index: usize, sink: &mut S) {
        // One that was cut short in this turn has had its share; one that is paused is read when it is resumed.
        if self
            .slots
            .at(index)
            .is_some_and(|slot| !slot.state.queued && !slot.state.paused)
        {
            self.read(index, sink);
        }
    }

    /// Reads until a short read or the end of the quantum.
    fn read<S: Sink>(&mut self, index: usize, sink: &mut S) {
        for _ in 0..self.limits.reads_max {
            let Some(slot) = self.slots.at(index) else { return };
            let connection = slot.connection(index);
            let Some(socket) = slot.socket.as_ref().filter(|_| !slot.state.paused && !slot.state.ended) else {
                return;
            };
            let limit = if slot.state.little {
                self.limits.little_bytes.min(self.buffer.len())
            } else {
                self.buffer.len()
            };
            let room = self.buffer.get_mut(..limit).unwrap_or_default();
            match (&*socket).read(room) {
                Ok(n) if n > 0 => {
                    let drained = n < limit && !slot.state.hung_up;
                    let reading = sink.on_data(connection, room.get_mut(..n).unwrap_or_default());
                    match reading {
                        Reading::On => slot.state.little = false,
                        Reading::Little => slot.state.little = true,
                        Reading::Pause => slot.state.paused = true,
                    }
                    if drained || slot.state.paused {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    slot.state.ended = true;
                    return sink.on_end(connection);
                }
            }
        }
        self.queue(index);
    }

    fn writable<S: Sink>(&mut self, registry: &Registry, index: usize, sink: &mut S) {
        let Some(slot) = self.slots.at(index) else { return };
        if slot.state.awaits_room {
            slot.state.awaits_room = false;
            // Else some kernels report room for every packet that the peer acknowledges.
            let _ = slot.reregister(registry, index, Interest::READABLE);
            sink.on_writable(slot.connection(index));
        }
    }

    fn send(&mut self, registry: &Registry, operation: &mut SendOp) {
        let Some(slot) = self.slots.find(operation.connection) else {
            operation.failed = true;
            return;
        };
        let Some(socket) = &slot.socket else {
            operation.failed = true;
            return;
        };
        let output = &mut operation.output;
        let outcome = loop {
            match (&*socket).write(output.unsent()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(n) => output.sent += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                operation.failed = true;
                return;
            }
        }
        if !output.unsent().is_empty() && !slot.state.awaits_room {
            slot.state.awaits_room = true;
            let index = operation.connection.slot();
            operation.failed |= slot
                .reregister(registry, index, Interest::READABLE | Interest::WRITABLE)
                .is_err();
        }
    }
}

impl Slot<State> {
    /// Has the kernel report this socket, from the first time that it is needed: many a connection is moved or closed
    /// before.
    fn register(&mut self, registry: &Registry, index: usize) -> io::Result<()> {
        match &self.socket {
            Some(socket) if !self.state.registered => {
                registry.register(&mut SourceFd(&socket.as_raw_fd()), Token(index), Interest::READABLE)?;
                self.state.registered = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn reregister(&mut self, registry: &Registry, index: usize, interests: Interest) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let descriptor = socket.as_raw_fd();
        if self.state.registered {
            return registry.reregister(&mut SourceFd(&descriptor), Token(index), interests);
        }
        registry.register(&mut SourceFd(&descriptor), Token(index), interests)?;
        self.state.registered = true;
        Ok(())
    }
}
