//! Every limit of the transport, with its unit and its default.

use std::sync::Arc;
use std::time::Duration;

use sol_engine::ListenerId;

use crate::admission::Limits;
use crate::choice::Io;
use crate::listener::{ListenerConfig, Protocol};
use crate::websocket::Files;

/// What the shards listen on, and their limits. Limits are per shard unless they say otherwise.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// The backend.
    pub io: Io,
    /// Where to listen; a listener's place here is its [`sol_engine::ListenerId`].
    pub listeners: Vec<ListenerConfig>,
    /// Who is accepted, and how fast clients may send, in all shards together. [`crate::Handle::change_limits`] changes it.
    pub limits: Limits,
    /// Whether each shard's thread stays on one core, in turn over those that the process may use.
    pub pin_shards: bool,
    /// Largest CONNECT, in bytes; nothing larger is held for a peer that has not been let in.
    pub connect_bytes_max: u32,
    /// How long a peer may take to send its CONNECT. As often it is looked at whether one that is sent a file takes that.
    pub connect_time_max: Duration,
    /// How long a packet may take to arrive whole once a part of it has come; a large one has as long for each 256 KiB, and
    /// so has a file to leave.
    pub frame_time_max: Duration,
    /// Connections that have not been let in yet; when there are more, the one that has waited longest goes. Lowered to a
    /// shard's part of a quarter of the process's descriptors.
    pub unauthenticated_max: usize,
    /// Bytes held for all connections that have not been let in yet, together.
    pub unauthenticated_bytes_max: usize,
    /// Bytes read at once.
    pub read_bytes: usize,
    /// Buffers of `read_bytes` that all connections of a shard share on io_uring, rounded up to a power of two: together
    /// they are what a turn receives at most.
    pub read_buffers: u16,
    /// Completions that io_uring keeps for a shard, rounded up to a power of two. More cost time, and are not lost.
    pub completions_max: u32,
    /// Reads of one connection in one turn.
    pub reads_max: u32,
    /// Connections accepted from one listener in one turn.
    pub accepts_max: u32,
    /// How long a listener rests when descriptors or memory have run out.
    pub accept_pause: Duration,
    /// Packets in the tray above which they are encoded before the turn is over. Not more than the messages that the
    /// engine recycles, so that a busy turn allocates none.
    pub tray_max: usize,
    /// Output of one connection above which it is sent before the turn is over, in bytes.
    pub outbox_bytes_high: usize,
    /// Output of all connections above which it is sent before the turn is over, in bytes.
    pub output_bytes_high: usize,
    /// Bytes of spent output buffers kept for reuse.
    pub pool_bytes_max: usize,
    /// How long a connection that is being closed may take to read what was sent to it.
    pub flush_time_max: Duration,
    /// How long a connection whose end was announced is still read, so that no reset eats the announcement.
    pub linger_time_max: Duration,
    /// How many bytes of it are read and discarded.
    pub linger_bytes_max: u32,
    /// How long the shards may take to stop.
    pub stop_time_max: Duration,
    /// Bytes posted from one shard to another and not yet taken, above which the sender is told. Lowered where all pairs
    /// together could take more than an eighth of the memory limit, to 1 KiB at least.
    pub mailbox_bytes_high: usize,
}

impl TransportConfig {
    /// Has a listener serve these files, if it speaks WebSocket.
    pub(crate) fn change_files(&mut self, listener: ListenerId, files: Arc<Files>) {
        let listener = self.listeners.get_mut(usize::from(listener.0));
        if let Some(Protocol::WebSocket(rules)) = listener.map(|listener| &mut listener.protocol) {
            Arc::make_mut(rules).files = Some(files);
        }
    }
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            io: Io::Auto,
            listeners: Vec::new(),
            limits: Limits::default(),
            pin_shards: false,
            connect_bytes_max: 16 << 10,
            connect_time_max: Duration::from_secs(5),
            frame_time_max: Duration::from_secs(30),
            unauthenticated_max: 8_192,
            unauthenticated_bytes_max: 16 << 20,
            read_bytes: 64 << 10,
            read_buffers: 16,
            completions_max: 4_096,
            reads_max: 4,
            accepts_max: 64,
            accept_pause: Duration::from_millis(100),
            tray_max: 256,
            outbox_bytes_high: 256 << 10,
            output_bytes_high: 4 << 20,
            pool_bytes_max: 4 << 20,
            flush_time_max: Duration::from_secs(2),
            linger_time_max: Duration::from_secs(1),
            linger_bytes_max: 64 << 10,
            stop_time_max: Duration::from_secs(2),
            mailbox_bytes_high: 1 << 20,
        }
    }
}
