//! The seam between a shard and the kernel.
//!
//! It has the shape of the fastest kind of kernel interface, completions: a backend hands over bytes that have arrived
//! and takes bytes to send; it never hands out readiness. Input memory belongs to the backend and is lent for a call, to
//! be decrypted and unmasked where it lies; output memory belongs to the shard and is lent for a call. So nothing that the shard owns is ever in flight, which
//! is what makes an interface with operations in flight possible behind the same seam.
//!
//! There are two: [`epoll`] over readiness, and [`uring`] over completions. One suite tests what they promise.
//!
//! A turn of a shard is one [`Backend::wait`] and one [`Backend::dispatch`]; everything else is called between turns,
//! never from inside a [`Sink`].

pub(crate) mod epoll;
mod rest;
mod slots;
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "powerpc64"
    )
))]
pub(crate) mod uring;
/// Where the system has no io_uring, or the architecture is one that the crate for it does not know.
#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "powerpc64"
    )
)))]
pub(crate) mod uring {
    pub(crate) use super::epoll::Epoll as Uring;

    pub(crate) fn try_out() -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

use std::io;
use std::time::Duration;

use socket2::Socket;
use sol_engine::{ConnectionId, Instant, ListenerId};

use crate::peer::PeerAddr;

/// What happens next with a connection's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Read on.
    #[default]
    On,
    /// Read on, but little at a time: this peer has not been let in yet, or may send only so much.
    Little,
    /// Read no more until [`Backend::resume`]. What was received already may still be told, its end is not.
    Pause,
}

/// What a shard hears from its backend, only inside [`Backend::dispatch`].
pub(crate) trait Sink {
    /// Whether output must leave before more input is taken.
    fn is_full(&self) -> bool;
    /// Whether there is room for one more connection of a listener that was not let in. If not, those that wait to be
    /// accepted go on waiting, until [`Backend::accept_again`] or a while has passed.
    fn may_accept(&mut self, listener: ListenerId) -> bool;
    /// A connection was accepted. `false`: close it at once and never mention it again.
    fn on_accept(&mut self, listener: ListenerId, connection: ConnectionId, peer: PeerAddr) -> bool;
    /// Bytes arrived. The memory is the backend's; during the call it may be read, and written over.
    fn on_data(&mut self, connection: ConnectionId, bytes: &mut [u8]) -> Reading;
    /// The peer will send no more, or the connection failed. It still exists and must be closed.
    fn on_end(&mut self, connection: ConnectionId);
    /// After a short send: there is room again.
    fn on_writable(&mut self, connection: ConnectionId);
    /// The connection does not exist any more and its slot is free. The last event of every connection that was closed,
    /// exactly once; there is none after [`Backend::release`].
    fn on_closed(&mut self, connection: ConnectionId);
    /// A connection could not be accepted; `paused`: the listener rests because the system has run out of something.
    fn on_accept_error(&mut self, listener: ListenerId, error: io::Error, paused: bool);
}

/// Bytes to send on one connection, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The bytes; those before `sent` have left.
    pub(crate) bytes: Vec<u8>,
    /// How many have left.
    pub(crate) sent: usize,
    /// How many a filter has made what goes to the socket, and how many it has put into frames. See [`crate::filter`].
    pub(crate) sealed: usize,
    pub(crate) framed: usize,
}

impl Output {
    /// What is still to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }
}

/// One connection's part in [`Backend::send_batch`].
#[derive(Debug)]
pub(crate) struct SendOp {
    pub(crate) connection: ConnectionId,
    /// Lent to the backend for the call.
    pub(crate) output: Box<Output>,
    /// The connection failed while sending; told here instead of by [`Sink::on_end`].
    pub(crate) failed: bool,
}

/// Wakes a shard that waits. Callable from every thread.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

/// The kernel, as one shard sees it. Chosen once, at start; all calls are static.
///
/// Calls for a connection that is gone do nothing.
pub(crate) trait Backend: Sized {
    /// Sets up a backend for the thread it is called on.
    fn new(limits: BackendLimits) -> io::Result<Self>;
    /// What wakes [`Backend::wait`].
    fn wake(&self) -> io::Result<Wake>;
    /// Accepts from `socket`, which listens.
    fn listen(&mut self, listener: ListenerId, socket: Socket) -> io::Result<()>;
    /// Goes on accepting, after [`Sink::may_accept`] had said that there is no room.
    fn accept_again(&mut self);
    /// Accepts no more, for good.
    fn stop_listening(&mut self);
    /// Takes over a connected socket. It is not read before [`Backend::resume`].
    fn adopt(&mut self, socket: Socket) -> io::Result<ConnectionId>;
    /// Gives a connection's socket away; the connection is gone. Only for a connection whose reading is paused and that
    /// was never read but little at a time, which is what a connection is that moves to its home shard.
    fn release(&mut self, connection: ConnectionId) -> Option<Socket>;
    /// Sends what the kernel takes. When it returns, the kernel holds none of the memory. A short send leaves
    /// `output.unsent()`, and [`Sink::on_writable`] follows.
    fn send_batch(&mut self, operations: &mut [SendOp]);
    /// Reads a connection no more until it is resumed.
    fn pause(&mut self, connection: ConnectionId);
    /// Reads a paused or adopted connection (again).
    fn resume(&mut self, connection: ConnectionId);
    /// Tells the peer that no more will come.
    fn shutdown_write(&mut self, connection: ConnectionId);
    /// Ends a connection. [`Sink::on_closed`] follows.
    fn close(&mut self, connection: ConnectionId);
    /// Waits until there is something to dispatch, `timeout` has passed since `now`, or somebody wakes it.
    fn wait(&mut self, now: Instant, timeout: Option<Duration>) -> io::Result<()>;
    /// Tells the sink what has happened up to the last [`Backend::wait`]; a bounded amount for each connection. `true`:
    /// there is more, but the sink is full; call again when it is not.
    fn dispatch<S: Sink>(&mut self, sink: &mut S) -> bool;
}

/// The limits that a backend keeps to; see [`crate::TransportConfig`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackendLimits {
    pub(crate) read_bytes: usize,
    pub(crate) little_bytes: usize,
    pub(crate) reads_max: u32,
    pub(crate) accepts_max: u32,
    pub(crate) accept_pause: Duration,
    /// Buffers that are received into, of `read_bytes` each, where a backend has more than one.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "io_uring's alone"))]
    pub(crate) buffers: u16,
    /// Completions that the kernel keeps for the shard, where there are such.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "io_uring's alone"))]
    pub(crate) completions_max: u32,
}

/// The shorter of two waits, where `None` is for ever.
fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
