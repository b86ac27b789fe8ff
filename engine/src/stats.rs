//! Plain counters behind `$SYS`, `$SOL` and the metrics. One shard's; the reader adds them up.

use crate::tallies::Full;

/// Counters (only growing) and gauges of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Gauge: Sessions with a Network Connection.
    pub clients_connected: u64,
    /// Gauge: Sessions without one.
    pub clients_disconnected: u64,
    /// Highest number of connected clients so far.
    pub clients_maximum: u64,
    /// Sessions that ended by their Session Expiry Interval.
    pub clients_expired: u64,
    /// Control Packets received.
    pub packets_received: u64,
    /// Control Packets sent.
    pub packets_sent: u64,
    /// PUBLISH packets received.
    pub publish_received: u64,
    /// Payload bytes in them.
    pub publish_bytes_received: u64,
    /// PUBLISH packets sent.
    pub publish_sent: u64,
    /// Payload bytes in them.
    pub publish_bytes_sent: u64,
    /// Messages dropped for a Session by a named limit: full queue, slow reader, memory.
    pub publish_dropped: u64,
    /// Messages that expired before they were sent.
    pub publish_expired: u64,
    /// PUBLISH packets answered with 0x97 Quota exceeded.
    pub publish_refused: u64,
    /// Messages larger than their receiver's Maximum Packet Size [MQTT-3.1.2-25].
    pub publish_oversized: u64,
    /// PUBLISH packets and Wills that the publisher had no right to.
    pub publish_unauthorized: u64,
    /// Topic Filters of SUBSCRIBEs that the subscriber had no right to.
    pub subscribe_unauthorized: u64,
    /// Messages that a Session did not get because it had no right to: live ones, queued ones, and those that went past it
    /// to another member of a Shared Subscription.
    pub deliver_unauthorized: u64,
    /// Retained messages that a Session did not get because it had no right to, or because their publisher has lost it.
    pub retained_unauthorized: u64,
    /// CONNECTs accepted.
    pub connects_accepted: u64,
    /// CONNECTs refused.
    pub connects_refused: u64,
    /// Of these, for as many connections as there may be, of all or of a listener.
    pub full_connections: u64,
    /// For as many connections as its user may have.
    pub full_user: u64,
    /// For as many Sessions as there may be.
    pub full_sessions: u64,
    /// For want of memory.
    pub full_memory: u64,
    /// For want of room in the journal.
    pub full_journal: u64,
    /// Connections ended for a malformed packet or a broken rule.
    pub protocol_errors: u64,
    /// Connections closed because the peer did not read.
    pub slow_closed: u64,
    /// Connections closed because what they published waited too long for memory or for room in the journal, or was more than
    /// may wait.
    pub parked_closed: u64,
    /// Connections closed because they had to be paused for too long.
    pub paused_closed: u64,
    /// Connections closed for one and a half Keep Alives of silence.
    pub keep_alive_closed: u64,
    /// Connections that ended because their login was good until then.
    pub login_expired_closed: u64,
    /// Connections closed for a packet above the Maximum Packet Size, or above what a CONNECT may have. They count as
    /// broken rules too.
    pub packets_too_large: u64,
    /// Times that a client was not read for a while because it had sent more than it may in that time.
    pub rate_pauses: u64,
    /// Takeovers of a Session by a new connection.
    pub takeovers: u64,
    /// Publishes forwarded to other shards.
    pub forwards_sent: u64,
    /// Publishes that came from other shards.
    pub forwards_received: u64,
    /// Gauge: Subscriptions, Shared Subscriptions among them.
    pub subscriptions: u64,
    /// Gauge: Shared Subscriptions.
    pub shared_subscriptions: u64,
    /// Gauge: retained messages.
    pub retained_messages: u64,
    /// Gauge: messages in queues and windows.
    pub stored_messages: u64,
    /// Gauge: bytes that Sessions, queues and retained messages are charged with.
    pub memory_bytes: u64,
    /// Gauge: how far memory is used up, a [`crate::MemoryLevel`] as a number; of several shards the highest.
    pub memory_level: u64,
    /// Highest `memory_bytes` so far.
    pub memory_bytes_maximum: u64,
}

impl Stats {
    /// A CONNECT is refused because something is full.
    pub(crate) const fn count_full(&mut self, full: Full) {
        let count = match full {
            Full::Connections => &mut self.full_connections,
            Full::User => &mut self.full_user,
            Full::Sessions => &mut self.full_sessions,
            Full::Memory => &mut self.full_memory,
            Full::Journal => &mut self.full_journal,
        };
        *count += 1;
    }

    /// Adds another shard's counters and gauges to these.
    pub fn add(&mut self, other: &Self) {
        macro_rules! add {
            ($($field:ident)*) => { $( self.$field = self.$field.saturating_add(other.$field); )* };
        }
        add!(clients_connected clients_disconnected clients_maximum clients_expired packets_received packets_sent
             publish_received publish_bytes_received publish_sent publish_bytes_sent publish_dropped publish_expired
             publish_refused publish_oversized publish_unauthorized subscribe_unauthorized
             deliver_unauthorized retained_unauthorized connects_accepted connects_refused full_connections full_user full_sessions full_memory full_journal protocol_errors
             slow_closed parked_closed paused_closed keep_alive_closed login_expired_closed packets_too_large rate_pauses takeovers forwards_sent forwards_received subscriptions shared_subscriptions
             retained_messages stored_messages memory_bytes memory_bytes_maximum);
        self.memory_level = self.memory_level.max(other.memory_level);
    }
}
