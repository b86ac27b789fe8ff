//! What there is to measure: a row for each metric, and where its value stands. How rows are served is said above.

use crate::stats::{ShardStats, Stats};

/// Name, sentence and value of a metric.
pub(super) type Row = (&'static str, &'static str, Value);
/// How a value is found.
pub(super) type Value = fn(&Stats) -> u64;

/// What only grows.
pub(super) const COUNTERS: [Row; 54] = [
    ("sol_sockets_opened_total", "Network Connections accepted", |s| {
        s.sockets_opened
    }),
    ("sol_connects_received_total", "CONNECT packets received", |s| {
        s.connects_received
    }),
    ("sol_packets_received_total", "MQTT Control Packets received", |s| {
        s.packets_received
    }),
    ("sol_packets_sent_total", "MQTT Control Packets sent", |s| {
        s.packets_sent
    }),
    ("sol_bytes_received_total", "Bytes received", |s| s.bytes_received),
    ("sol_bytes_sent_total", "Bytes sent", |s| s.bytes_sent),
    ("sol_publish_received_total", "PUBLISH packets received", |s| {
        s.publish_received
    }),
    ("sol_publish_sent_total", "PUBLISH packets sent", |s| s.publish_sent),
    (
        "sol_publish_dropped_total",
        "Messages that did not reach a client",
        |s| s.publish_dropped,
    ),
    ("sol_publish_bytes_received_total", "Payload bytes received", |s| {
        s.publish_bytes_received
    }),
    ("sol_publish_bytes_sent_total", "Payload bytes sent", |s| {
        s.publish_bytes_sent
    }),
    ("sol_clients_expired_total", "Sessions ended by their expiry", |s| {
        s.clients_expired
    }),
    ("sol_connects_refused_total", "CONNECT packets refused", |s| {
        s.connects_refused
    }),
    ("sol_logins_accepted_total", "Logins that were right", |s| {
        s.logins.accepted
    }),
    (
        "sol_logins_remembered_total",
        "Right logins whose password had been right before, which cost no hash",
        |s| s.logins.remembered,
    ),
    ("sol_passwords_hashed_total", "Passwords hashed to be checked", |s| {
        s.logins.hashed
    }),
    (
        "sol_login_bans_total",
        "Bans of addresses and users for too many failed logins",
        |s| s.logins.bans,
    ),
    (
        "sol_protocol_errors_total",
        "Connections closed for a broken protocol",
        |s| s.protocol_errors,
    ),
    (
        "sol_accept_errors_total",
        "Connections that could not be accepted",
        |s| s.accept_errors,
    ),
    (
        "sol_accept_pauses_total",
        "Times that a listener rested because descriptors or memory had run out",
        |s| s.accept_pauses,
    ),
    (
        "sol_connect_timeouts_total",
        "Connections closed because no CONNECT came in time",
        |s| s.connect_timeouts,
    ),
    (
        "sol_proxy_refused_total",
        "Connections closed because their PROXY header is missing or wrong, or who sends it is not believed",
        |s| s.proxy_refused,
    ),
    (
        "sol_evicted_total",
        "Connections closed because too many had not been let in yet",
        |s| s.evicted,
    ),
    (
        "sol_short_sends_total",
        "Sends that the kernel took only in part",
        |s| s.short_sends,
    ),
    ("sol_panics_total", "Faults of the broker that were survived", |s| {
        s.panics
    }),
    (
        "sol_slow_closed_total",
        "Connections closed because the peer did not read",
        |s| s.slow_closed,
    ),
    (
        "sol_parked_closed_total",
        "Connections closed because what they published waited too long for memory or room in the journal, or was too much",
        |s| s.parked_closed,
    ),
    (
        "sol_publish_refused_total",
        "PUBLISH packets refused for a full queue, memory or journal",
        |s| s.publish_refused,
    ),
    (
        "sol_publish_unauthorized_total",
        "PUBLISH packets and Wills without the right to publish",
        |s| s.publish_unauthorized,
    ),
    (
        "sol_subscribe_unauthorized_total",
        "Topic Filters refused because nothing they match may be read",
        |s| s.subscribe_unauthorized,
    ),
    (
        "sol_deliver_unauthorized_total",
        "Messages withheld from subscribers that may not read them",
        |s| s.deliver_unauthorized,
    ),
    (
        "sol_retained_unauthorized_total",
        "Retained messages withheld from subscribers that may not read them",
        |s| s.retained_unauthorized,
    ),
    (
        "sol_publish_expired_total",
        "Messages that expired before they were sent, a part of the dropped",
        |s| s.publish_expired,
    ),
    (
        "sol_publish_oversized_total",
        "Messages larger than their receiver takes, a part of the dropped",
        |s| s.publish_oversized,
    ),
    ("sol_takeovers_total", "Sessions taken over by a new connection", |s| {
        s.takeovers
    }),
    (
        "sol_accept_waits_total",
        "Times that a listener rested because of max_connect_rate",
        |s| s.accept_waits,
    ),
    (
        "sol_rate_pauses_total",
        "Times that a client was not read for a while because of max_messages_rate or max_bytes_rate",
        |s| s.rate_pauses,
    ),
    (
        "sol_handshakes_total",
        "Connections that have agreed on TLS or WebSocket",
        |s| s.handshakes,
    ),
    (
        "sol_handshakes_failed_total",
        "Connections closed because TLS or WebSocket could not be agreed on",
        |s| s.handshakes_failed,
    ),
    (
        "sol_journal_records_total",
        "Records put and deleted in the journal",
        |s| s.journal.counts.records,
    ),
    (
        "sol_journal_commits_total",
        "Writes of the journal, each of all that waited",
        |s| s.journal.counts.frames,
    ),
    ("sol_journal_written_bytes_total", "Bytes written to the journal", |s| {
        s.journal.counts.bytes
    }),
    (
        "sol_journal_moved_bytes_total",
        "Of these, what was moved from old segments",
        |s| s.journal.counts.moved_bytes,
    ),
    ("sol_journal_syncs_total", "Syncs of the journal", |s| {
        s.journal.timed_syncs
    }),
    (
        "sol_journal_sync_microseconds_total",
        "How long they took together",
        |s| s.journal.sync_nanos / 1_000,
    ),
    (
        "sol_http_requests_total",
        "Requests for files of http_dir that were answered, whichever way",
        |s| s.files_requested,
    ),
    (
        "sol_http_cut_total",
        "Connections closed because they did not take a file of http_dir in time",
        |s| s.files_cut,
    ),
    (
        "sol_frame_timeouts_total",
        "Connections closed because a packet did not arrive whole in time",
        |s| s.frame_timeouts,
    ),
    (
        "sol_shed_total",
        "Connections closed because they held the most when too much was held",
        |s| s.shed,
    ),
    (
        "sol_paused_closed_total",
        "Connections closed because what they published to could not be taken for too long",
        |s| s.paused_closed,
    ),
    ("sol_logins_expired_total", "Connections whose login expired", |s| {
        s.login_expired_closed
    }),
    (
        "sol_keep_alive_closed_total",
        "Connections closed for one and a half Keep Alives of silence",
        |s| s.keep_alive_closed,
    ),
    (
        "sol_packets_too_large_total",
        "Connections closed for a packet above max_packet_size, or a CONNECT above max_connect_size",
        |s| s.packets_too_large,
    ),
    ("sol_uptime_seconds_total", "Seconds since the start", |s| {
        s.uptime.as_secs()
    }),
];

/// Logins refused, by reason.
pub(super) const LOGINS_REFUSED_NAME: &str = "sol_logins_refused_total";

/// Reasons and values of [`LOGINS_REFUSED_NAME`].
pub(super) const LOGINS_REFUSED: [(&str, Value); 5] = [
    ("wrong", |s| s.logins.wrong),
    ("unfit", |s| s.logins.unfit),
    ("banned_address", |s| s.logins.of_banned_address),
    ("banned_user", |s| s.logins.of_banned_user),
    ("busy", |s| s.logins.busy),
];

/// Logins that an authenticator has judged.
pub(super) const AUTH_NAME: &str = "sol_auth_total";

/// Authenticators, outcomes and values of [`AUTH_NAME`].
pub(super) const AUTH: [(&str, &str, Value); 10] = [
    ("jwt", "accepted", |s| s.logins.tokens_accepted),
    ("jwt", "forged", |s| s.logins.tokens_forged),
    ("jwt", "untimely", |s| s.logins.tokens_untimely),
    ("jwt", "unfit", |s| s.logins.tokens_unfit),
    ("http", "accepted", |s| s.logins.hook_accepted),
    ("http", "remembered", |s| s.logins.hook_remembered),
    ("http", "denied", |s| s.logins.hook_denied),
    ("http", "ignored", |s| s.logins.hook_ignored),
    ("http", "unfit", |s| s.logins.hook_unfit),
    ("http", "silent", |s| s.logins.hook_silent),
];

/// Connections turned away, by limit.
pub(super) const FULL_NAME: &str = "sol_connections_refused_total";

/// Limits and values of [`FULL_NAME`].
pub(super) const FULL: [(&str, Value); 6] = [
    ("address", |s| s.full.address),
    ("connections", |s| s.full.connections),
    ("user", |s| s.full.user),
    ("clients", |s| s.full.sessions),
    ("memory", |s| s.full.memory),
    ("journal", |s| s.full.journal),
];

/// What rises and falls.
pub(super) const GAUGES: [Row; 25] = [
    ("sol_clients_connected", "Clients connected", |s| s.clients_connected),
    ("sol_clients_disconnected", "Sessions that wait for their client", |s| {
        s.clients_disconnected
    }),
    (
        "sol_clients_connected_maximum",
        "The most clients connected at any moment",
        |s| s.clients_connected_maximum,
    ),
    (
        "sol_clients_maximum",
        "The most Sessions, connected or not, whenever somebody looked",
        |s| s.clients_maximum,
    ),
    ("sol_banned_addresses", "Addresses banned for failed logins", |s| {
        s.logins.banned_addresses
    }),
    ("sol_banned_users", "Users banned for failed logins", |s| {
        s.logins.banned_users
    }),
    ("sol_connections", "Network Connections", |s| s.connections),
    (
        "sol_connections_unauthenticated",
        "Network Connections that have not been let in yet",
        |s| s.unauthenticated,
    ),
    (
        "sol_messages_stored",
        "Messages retained, queued and on their way",
        |s| s.messages_stored,
    ),
    ("sol_messages_retained", "Retained messages", |s| s.messages_retained),
    ("sol_subscriptions", "Subscriptions", |s| s.subscriptions),
    ("sol_shared_subscriptions", "Shared Subscriptions", |s| {
        s.shared_subscriptions
    }),
    ("sol_memory_bytes", "Bytes charged against max_memory", |s| {
        s.memory_bytes
    }),
    ("sol_journal_records", "Records that the journal keeps", |s| {
        s.journal.sizes.live_records
    }),
    (
        "sol_journal_disk_bytes",
        "Bytes that the journal takes on the disk",
        |s| s.journal.sizes.disk_bytes,
    ),
    (
        "sol_journal_live_bytes",
        "Of these, what its records would take alone",
        |s| s.journal.sizes.live_bytes,
    ),
    (
        "sol_journal_queued_bytes",
        "Bytes that wait to be written to the journal",
        |s| s.journal.queued_bytes,
    ),
    (
        "sol_journal_waiting_transactions",
        "Messages to several shards of which one has not written its part",
        |s| s.journal.waiting_transactions,
    ),
    (
        "sol_journal_sync_microseconds_maximum",
        "The longest sync of the journal",
        |s| s.journal.sync_nanos_max / 1_000,
    ),
    (
        "sol_journal_full",
        "Whether the journal has no room: 0, or 1 if the disk is full, 2 if persistence_max_size is met",
        |s| s.journal.pressure as u64,
    ),
    (
        "sol_journal_salvage",
        "Whether a damaged journal is used: 0, or 1 if it would be (persistence_damage salvage), 2 if it was damaged and is",
        |s| s.salvage as u64,
    ),
    (
        "sol_memory_level",
        "How far max_memory is used up: 0, or 1 from four fifths on, 2 from nine tenths on, 3 when it is met",
        |s| s.memory_level,
    ),
    ("sol_memory_bytes_maximum", "The most bytes ever charged", |s| {
        s.memory_bytes_maximum
    }),
    (
        "sol_mailbox_bytes",
        "Bytes on their way from one shard to another",
        |s| s.mailbox_bytes,
    ),
    (
        "sol_mailbox_bytes_maximum",
        "The most bytes ever on their way between each two shards, added up",
        |s| s.mailbox_bytes_maximum,
    ),
];

/// Name, sentence and value of a metric that each shard has, with a label for its number: Client Identifiers find their
/// shard by a keyed hash, and here it shows if one is busier than the others all the same.
pub(super) type ShardRow = (&'static str, &'static str, fn(&ShardStats) -> u64);

/// What only grows, by shard.
pub(super) const SHARD_COUNTERS: [ShardRow; 6] = [
    (
        "sol_shard_sockets_opened_total",
        "Network Connections accepted by each shard",
        |s| s.sockets_opened,
    ),
    (
        "sol_shard_connections_adopted_total",
        "Connections that moved to each shard, the home of their client, from the one that accepted them",
        |s| s.adopted,
    ),
    (
        "sol_shard_forwards_sent_total",
        "Publishes forwarded by each shard to others",
        |s| s.forwards_sent,
    ),
    (
        "sol_shard_forwards_received_total",
        "Publishes forwarded to each shard by others",
        |s| s.forwards_received,
    ),
    (
        "sol_shard_packets_received_total",
        "MQTT Control Packets received by each shard",
        |s| s.packets_received,
    ),
    (
        "sol_shard_packets_sent_total",
        "MQTT Control Packets sent by each shard",
        |s| s.packets_sent,
    ),
];

/// What rises and falls, by shard.
pub(super) const SHARD_GAUGES: [ShardRow; 2] = [
    (
        "sol_shard_clients_connected",
        "Clients connected, by their shard",
        |s| s.clients_connected,
    ),
    (
        "sol_shard_memory_bytes",
        "Bytes charged against max_memory, by shard",
        |s| s.memory_bytes,
    ),
];
