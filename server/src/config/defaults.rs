//! What holds where a file says nothing.

use super::demand::Demand;
use super::place::Places;
use super::{
    Config, Dialect, Host, Io, Levels, Limits, Log, LogFormat, LogStream, Logins, Metrics, QueueFull, Sandbox, Shards,
    sol,
};
use std::time::Duration;

/// Topic Aliases of each client, and towards it, where a sol file is read.
pub(crate) const TOPIC_ALIASES_SOL: u16 = 32;
/// The same, where another file is.
pub(crate) const TOPIC_ALIASES: u16 = 10;

pub(crate) fn defaults(dialect: Dialect, host: &Host) -> Config {
    let sol = dialect == Dialect::Sol;
    Config {
        source: None,
        dialect,
        listeners: Vec::new(),
        tcp_backlog: sol::TCP_BACKLOG_MAX,
        tcp_nodelay: true,
        shards: Shards::Auto,
        cores: host.cores,
        pin_shards: false,
        io: Io::Auto,
        limits: if sol { of_sol(host) } else { of_mosquitto(host) },
        logins: Logins::default(),
        log: Log {
            levels: if sol { Levels::UP_TO_WARNING } else { Levels::UP_TO_INFO },
            format: LogFormat::Text,
            timestamp: true,
            stream: LogStream::Stderr,
            file: None,
            syslog: false,
            topic: false,
            timestamp_format: None,
            facility: None,
            connections: true,
        },
        sys_interval: Some(Duration::from_secs(10)),
        metrics: Metrics::Default,
        pid_file: None,
        user: None,
        sandbox: Sandbox::On,
        include_dirs: Vec::new(),
        persistence: super::Persistence::default(),
        places: Places::default(),
        warnings: Vec::new(),
    }
}

fn of_sol(host: &Host) -> Limits {
    Limits {
        packet_bytes_max: 512 << 10,
        memory_bytes_max: Some(host.memory_default().min(sol::MEMORY_BYTES_DEFAULT)),
        inflight_max: 256,
        queued_messages_max: Some(10_000),
        queued_bytes_max: Some(8 << 20),
        ..of_mosquitto(host)
    }
}

/// As Mosquitto has them, but for the memory: there is always a limit.
fn of_mosquitto(host: &Host) -> Limits {
    Limits {
        packet_bytes_max: 2_000_000,
        payload_bytes_max: None,
        memory_bytes_max: Some(host.memory_default()),
        connections_max: None,
        sessions_max: None,
        demand: Demand::default(),
        inflight_max: 20,
        inflight_bytes_max: None,
        queued_messages_max: Some(1_000),
        queued_bytes_max: None,
        queue_full: QueueFull::Refuse,
        queue_qos0: false,
        upgrade_outgoing_qos: false,
        keep_alive_max: None,
        retain_available: true,
        retain_expiry: None,
        check_retain_source: true,
        session_expiry_max: None,
        connect_bytes_max: 16 << 10,
        connect_timeout: Duration::from_secs(5),
    }
}
