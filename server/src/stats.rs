//! The broker's counters as plain numbers: what `$SYS`, `$SOL` and the metrics are made from.

use std::time::Duration;

/// One moment's counters, summed over all shards. What counts events only grows while the process lives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Since the start.
    pub uptime: Duration,
    /// Network Connections that have sent a CONNECT and are served.
    pub clients_connected: u64,
    /// Sessions that wait for their client.
    pub clients_disconnected: u64,
    /// The most clients connected and disconnected at any moment.
    pub clients_maximum: u64,
    /// Sessions that ended because their expiry came.
    pub clients_expired: u64,
    /// Network Connections accepted by the listeners.
    pub sockets_opened: u64,
    /// CONNECT packets received.
    pub connects_received: u64,
    /// MQTT Control Packets received.
    pub packets_received: u64,
    /// MQTT Control Packets sent.
    pub packets_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// PUBLISH packets received.
    pub publish_received: u64,
    /// PUBLISH packets sent.
    pub publish_sent: u64,
    /// Messages that a client should have got and did not: a full queue, a slow consumer, an expired message.
    pub publish_dropped: u64,
    /// Payload bytes of PUBLISH packets received.
    pub publish_bytes_received: u64,
    /// Payload bytes of PUBLISH packets sent.
    pub publish_bytes_sent: u64,
    /// Messages kept: retained, queued and on their way.
    pub messages_stored: u64,
    /// Bytes of these messages.
    pub messages_stored_bytes: u64,
    /// Retained messages.
    pub messages_retained: u64,
    /// Subscriptions of all Sessions.
    pub subscriptions: u64,
    /// Of these, the Shared Subscriptions.
    pub shared_subscriptions: u64,
    /// Bytes charged against `max_memory`.
    pub memory_bytes: u64,
    /// The most that was ever charged.
    pub memory_bytes_maximum: u64,
    /// Logins refused.
    pub logins_refused: u64,
    /// Connections closed because the peer broke the protocol.
    pub protocol_errors: u64,
}

impl Stats {
    /// Sessions with and without a connection.
    pub fn clients_total(&self) -> u64 {
        self.clients_connected + self.clients_disconnected
    }
}
