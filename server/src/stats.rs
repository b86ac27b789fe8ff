//! The broker's counters as plain numbers: what `$SYS`, `$SOL` and the metrics are made from.

use std::time::Duration;

use crate::banner::Salvage;

/// One moment's counters, summed over all shards. What counts events only grows while the process lives.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Since the start.
    pub uptime: Duration,
    /// The backend that waits for sockets.
    pub backend: &'static str,
    /// Network Connections that have sent a CONNECT and are served.
    pub clients_connected: u64,
    /// Sessions that wait for their client.
    pub clients_disconnected: u64,
    /// The most clients connected at any moment.
    pub clients_connected_maximum: u64,
    /// The most Sessions, with and without a connection, whenever somebody looked.
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
    /// Retained messages.
    pub messages_retained: u64,
    /// Subscriptions of all Sessions.
    pub subscriptions: u64,
    /// Of these, the Shared Subscriptions.
    pub shared_subscriptions: u64,
    /// Bytes that Sessions, messages and Subscriptions are charged with against `max_memory`.
    pub memory_bytes: u64,
    /// The most that was ever charged.
    pub memory_bytes_maximum: u64,
    /// What the journal has done, and how large it is; all zero where there is none.
    pub journal: sol_journal::Numbers,
    /// What was, or would be, made of a damaged journal.
    pub salvage: Salvage,
    /// How far `max_memory` is used up: 0, or 1 from four fifths on, 2 from nine tenths on, 3 when it is met.
    pub memory_level: u64,
    /// CONNECTs refused, a wrong password among the reasons.
    pub connects_refused: u64,
    /// Connections closed because the peer broke the protocol.
    pub protocol_errors: u64,
    /// Network Connections that exist now, those that are being closed included.
    pub connections: u64,
    /// Of these, the ones that have not been let in yet.
    pub unauthenticated: u64,
    /// Bytes that shards have posted to others and these have not taken yet.
    pub mailbox_bytes: u64,
    /// The most that lay between each two of them at any moment, added up.
    pub mailbox_bytes_maximum: u64,
    /// Connections that could not be accepted.
    pub accept_errors: u64,
    /// Times that a listener rested because descriptors or memory had run out.
    pub accept_pauses: u64,
    /// Times that a listener rested because as many connections had been accepted as may be in a second.
    pub accept_waits: u64,
    /// Times that a client was not read for a while because it had sent more than it may in that time.
    pub rate_pauses: u64,
    /// Who was turned away because of a limit.
    pub full: FullStats,
    /// Connections closed because no CONNECT came in time.
    pub connect_timeouts: u64,
    /// Connections closed because their PROXY header is missing or wrong, or who sends it is not believed.
    pub proxy_refused: u64,
    /// Connections closed because too many had not been let in yet.
    pub evicted: u64,
    /// Connections that have agreed on TLS or WebSocket.
    pub handshakes: u64,
    /// Connections closed because they could not.
    pub handshakes_failed: u64,
    /// Requests for a file that were answered.
    pub files_requested: u64,
    /// Connections closed because they did not take a file in time.
    pub files_cut: u64,
    /// Connections closed because a packet of theirs did not arrive whole in time.
    pub frame_timeouts: u64,
    /// Connections closed because they held the most when too much was held for all.
    pub shed: u64,
    /// Connections closed because what they published to could not be taken for too long.
    pub paused_closed: u64,
    /// Connections closed for one and a half Keep Alives of silence.
    pub keep_alive_closed: u64,
    /// Connections that ended because their login was good until then.
    pub login_expired_closed: u64,
    /// Connections closed for a packet that is larger than any may be.
    pub packets_too_large: u64,
    /// Sends that the kernel took only in part.
    pub short_sends: u64,
    /// Faults of ours that were survived.
    pub panics: u64,
    /// Connections closed because the peer did not read.
    pub slow_closed: u64,
    /// Connections closed because what they published waited too long for memory or for room in the journal, or was more than
    /// may wait.
    pub parked_closed: u64,
    /// PUBLISH packets refused for a full queue, memory or journal (0x97).
    pub publish_refused: u64,
    /// PUBLISH packets and Wills that the publisher had no right to.
    pub publish_unauthorized: u64,
    /// Topic Filters that the subscriber had no right to.
    pub subscribe_unauthorized: u64,
    /// Messages that a Session had no right to receive.
    pub deliver_unauthorized: u64,
    /// Retained messages that a Session had no right to receive.
    pub retained_unauthorized: u64,
    /// Messages that expired before they were sent; they count as dropped too.
    pub publish_expired: u64,
    /// Messages larger than their receiver takes; they count as dropped too.
    pub publish_oversized: u64,
    /// Sessions taken over by a new connection.
    pub takeovers: u64,
    /// What became of logins.
    pub logins: LoginStats,
    /// What tells a busy shard from an idle one, in order of shards.
    pub shards: Vec<ShardStats>,
}

/// Who was turned away because of which limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FullStats {
    /// Connections closed at once because their address had as many as it may have.
    pub address: u64,
    /// CONNECTs refused because there were as many connections as there may be, of all or of their listener.
    pub connections: u64,
    /// CONNECTs refused because their user had as many connections as it may have.
    pub user: u64,
    /// CONNECTs refused because there were as many Sessions as there may be.
    pub sessions: u64,
    /// CONNECTs refused for want of memory.
    pub memory: u64,
    /// CONNECTs refused because the journal had no room for their Session.
    pub journal: u64,
}

/// What became of logins that somebody had to be asked about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LoginStats {
    /// Logins that were right.
    pub accepted: u64,
    /// Of these, passwords that had been right before and cost no hash.
    pub remembered: u64,
    /// Passwords that were hashed, right ones and wrong ones.
    pub hashed: u64,
    /// Wrong passwords, unknown users, and faults in SCRAM.
    pub wrong: u64,
    /// Logins that were genuine and not to be let in: tokens out of their time, for somebody else, or not understood.
    pub unfit: u64,
    /// Logins that the HTTP hook has let in.
    pub hook_accepted: u64,
    /// Logins let in by what it said before.
    pub hook_remembered: u64,
    /// Logins that it has refused.
    pub hook_denied: u64,
    /// Logins that it knew nothing of.
    pub hook_ignored: u64,
    /// Logins that it let in by what is not understood, or too late.
    pub hook_unfit: u64,
    /// Logins refused because it did not answer, or too many waited for it.
    pub hook_silent: u64,
    /// Tokens that let somebody in.
    pub tokens_accepted: u64,
    /// Tokens that nobody who is trusted has signed.
    pub tokens_forged: u64,
    /// Genuine tokens that have expired, or are not valid yet.
    pub tokens_untimely: u64,
    /// Genuine tokens for somebody else, or not understood.
    pub tokens_unfit: u64,
    /// Logins refused for a ban of their address.
    pub of_banned_address: u64,
    /// Logins refused for a ban of their user.
    pub of_banned_user: u64,
    /// Logins refused because too many were waiting.
    pub busy: u64,
    /// Bans.
    pub bans: u64,
    /// Addresses that are banned now.
    pub banned_addresses: u64,
    /// Users that are banned now.
    pub banned_users: u64,
}

/// One shard's share.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ShardStats {
    /// Network Connections that its listeners accepted.
    pub sockets_opened: u64,
    /// Connections that moved there from the shard that accepted them, because their client is at home there.
    pub adopted: u64,
    /// Publishes that it forwarded to other shards, once for each.
    pub forwards_sent: u64,
    /// Publishes that other shards forwarded to it.
    pub forwards_received: u64,
    /// Clients at home there and connected.
    pub clients_connected: u64,
    /// MQTT Control Packets received.
    pub packets_received: u64,
    /// MQTT Control Packets sent.
    pub packets_sent: u64,
    /// Bytes charged against `max_memory`.
    pub memory_bytes: u64,
}

impl Stats {
    /// Adds what one shard counts; called in order of shards.
    pub(crate) fn add(&mut self, engine: &sol_engine::Stats, transport: &sol_transport::Counters) {
        self.clients_connected += engine.clients_connected;
        self.clients_disconnected += engine.clients_disconnected;
        self.clients_expired += engine.clients_expired;
        self.sockets_opened += transport.accepted;
        self.connects_received += engine.connects_accepted + engine.connects_refused;
        self.packets_received += engine.packets_received;
        self.packets_sent += engine.packets_sent;
        self.bytes_received += transport.bytes_in;
        self.bytes_sent += transport.bytes_out;
        self.publish_received += engine.publish_received;
        self.publish_sent += engine.publish_sent;
        self.publish_dropped += engine.publish_dropped + engine.publish_expired + engine.publish_oversized;
        self.publish_bytes_received += engine.publish_bytes_received;
        self.publish_bytes_sent += engine.publish_bytes_sent;
        self.messages_stored += engine.stored_messages + engine.retained_messages;
        self.messages_retained += engine.retained_messages;
        self.subscriptions += engine.subscriptions;
        self.shared_subscriptions += engine.shared_subscriptions;
        self.memory_bytes += engine.memory_bytes;
        self.memory_bytes_maximum += engine.memory_bytes_maximum;
        self.memory_level = self.memory_level.max(engine.memory_level);
        self.connects_refused += engine.connects_refused;
        self.protocol_errors += engine.protocol_errors + transport.not_mqtt;
        self.connections += transport.connections;
        self.unauthenticated += transport.unauthenticated;
        self.mailbox_bytes += transport.mailbox_bytes;
        self.mailbox_bytes_maximum += transport.mailbox_bytes_maximum;
        self.add_doors(transport);
        self.rate_pauses += engine.rate_pauses;
        self.full.address += transport.address_refused;
        self.full.connections += engine.full_connections;
        self.full.user += engine.full_user;
        self.full.sessions += engine.full_sessions;
        self.full.memory += engine.full_memory;
        self.full.journal += engine.full_journal;
        self.paused_closed += engine.paused_closed;
        self.keep_alive_closed += engine.keep_alive_closed;
        self.login_expired_closed += engine.login_expired_closed;
        self.packets_too_large += engine.packets_too_large;
        self.slow_closed += engine.slow_closed;
        self.parked_closed += engine.parked_closed;
        self.publish_refused += engine.publish_refused;
        self.publish_unauthorized += engine.publish_unauthorized;
        self.subscribe_unauthorized += engine.subscribe_unauthorized;
        self.deliver_unauthorized += engine.deliver_unauthorized;
        self.retained_unauthorized += engine.retained_unauthorized;
        self.publish_expired += engine.publish_expired;
        self.publish_oversized += engine.publish_oversized;
        self.takeovers += engine.takeovers;
        self.shards.push(ShardStats {
            sockets_opened: transport.accepted,
            adopted: transport.adopted,
            forwards_sent: engine.forwards_sent,
            forwards_received: engine.forwards_received,
            clients_connected: engine.clients_connected,
            packets_received: engine.packets_received,
            packets_sent: engine.packets_sent,
            memory_bytes: engine.memory_bytes,
        });
    }

    /// Adds what became of connections that were not let in, and of those that are slow.
    const fn add_doors(&mut self, transport: &sol_transport::Counters) {
        self.accept_errors += transport.accept_errors;
        self.accept_pauses += transport.accept_pauses;
        self.accept_waits += transport.accept_waits;
        self.connect_timeouts += transport.connect_timeouts;
        self.proxy_refused += transport.proxy_refused;
        self.evicted += transport.evicted;
        self.handshakes += transport.handshakes;
        self.handshakes_failed += transport.handshakes_failed;
        self.files_requested += transport.files_requested;
        self.files_cut += transport.files_cut;
        self.frame_timeouts += transport.frame_timeouts;
        self.shed += transport.shed;
        self.short_sends += transport.short_sends;
        self.panics += transport.panics;
    }

    /// Adds what there was at most in all shards together, after the last of them: their own maxima are of other moments.
    pub(crate) fn maxima(&mut self, maxima: sol_transport::Maxima) {
        self.clients_connected_maximum = maxima.connections.max(self.clients_connected);
        if self.shards.len() > 1 {
            self.memory_bytes_maximum = maxima.memory_bytes.max(self.memory_bytes);
        }
    }

    /// Sessions with and without a connection.
    pub fn clients_total(&self) -> u64 {
        self.clients_connected + self.clients_disconnected
    }
}
