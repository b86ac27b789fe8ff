//! Mosquitto's directives, our own names, and those that both dialects share.

use super::directives::Directive;
use super::draft::Draft;
use super::listener::Address;
use super::reader::{Fault, Reader, fault};
use super::units::{show_size, show_span, span};
use super::{Config, Dialect, Levels, LogFormat, LogStream, Metrics, QueueFull};
use std::path::Path;
use std::time::Duration;

/// The largest packet the protocol can carry, in bytes.
pub(crate) const PACKET_BYTES_CEILING: u64 = 268_435_455 + 5;
/// A Maximum Packet Size below this serves nobody.
const PACKET_BYTES_FLOOR: u64 = 128;
/// A memory limit below this serves nobody.
const MEMORY_BYTES_FLOOR: u64 = 1 << 20;
/// Longest beginning of a Client Identifier made by the broker, in bytes.
const PREFIX_BYTES_MAX: usize = 50;

pub(crate) const MAX_MEMORY: Directive = Directive {
    name: "max_memory",
    only_in: None,
    values: "SIZE",
    default: "70 % of the machine's or control group's memory, in a sol file 2GB at most",
    help: "Memory for messages, Sessions and buffers; at the limit publishes are refused. 0 is no limit.",
    repeats: false,
    apply: memory,
    show: |config| vec![show_size(config.limits.memory_bytes_max.unwrap_or(0))],
};

pub(crate) const ALLOW_ANONYMOUS: Directive = Directive {
    name: "allow_anonymous",
    only_in: None,
    values: "true|false",
    default: "true in a sol file and without listeners, else false",
    help: "Whether clients without a user name are let in.",
    repeats: false,
    apply: |draft, reader| {
        draft.allow_anonymous = Some(reader.switch()?);
        Ok(())
    },
    show: |config| one(config.auth.allow_anonymous),
};

pub(crate) const PASSWORD_FILE: Directive = Directive {
    name: "password_file",
    only_in: None,
    values: "PATH",
    default: "none",
    help: "Lines of `user:hash`, written by `sol passwd`; in a sol file it is read only with allow_anonymous false.",
    repeats: false,
    apply: |draft, reader| {
        draft.config.auth.password_file = Some(reader.path()?);
        Ok(())
    },
    show: |config| path(config.auth.password_file.as_deref()),
};

const OWN: Option<Dialect> = Some(Dialect::Listener);

/// Our dialect, and what both share beyond the old broker's keys.
pub(crate) const ROWS: &[Directive] = &[
    Directive {
        name: "listener",
        only_in: OWN,
        values: "PORT [HOST] | 0 /PATH",
        default: "1883 127.0.0.1",
        help: "A place to listen at: a TCP port on every interface or on HOST, or a Unix socket.",
        repeats: true,
        apply: |draft, reader| draft.listener(reader),
        show: |config| {
            config
                .listeners
                .iter()
                .map(|listener| match &listener.address {
                    Address::Unix(path) => format!("0 {}", path.display()),
                    Address::Tcp { host: None, port } => port.to_string(),
                    Address::Tcp { host: Some(host), port } => format!("{port} {host}"),
                })
                .collect()
        },
    },
    Directive {
        name: "port",
        only_in: OWN,
        values: "PORT",
        default: "none",
        help: "Short for one listener, at bind_address if that is given.",
        repeats: false,
        apply: |draft, reader| {
            draft.port = Some((reader.number(1, u16::MAX)?, reader.line_number()));
            Ok(())
        },
        show: |_| Vec::new(),
    },
    Directive {
        name: "bind_address",
        only_in: OWN,
        values: "HOST",
        default: "every interface",
        help: "Where `port` listens.",
        repeats: false,
        apply: |draft, reader| {
            draft.bind_address = Some((reader.word()?.text.to_owned(), reader.line_number()));
            Ok(())
        },
        show: |_| Vec::new(),
    },
    Directive {
        name: "set_tcp_nodelay",
        only_in: OWN,
        values: "true|false",
        default: "true",
        help: "Whether small packets leave at once.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.tcp_nodelay = reader.switch()?;
            Ok(())
        },
        show: |config| one(config.tcp_nodelay),
    },
    Directive {
        name: "allow_zero_length_clientid",
        only_in: OWN,
        values: "true|false",
        default: "true",
        help: "Whether a 3.1.1 client may leave its Client Identifier empty.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.auth.allow_zero_length_clientid = reader.switch()?;
            Ok(())
        },
        show: |config| one(config.auth.allow_zero_length_clientid),
    },
    Directive {
        name: "auto_id_prefix",
        only_in: OWN,
        values: "TEXT",
        default: "auto-",
        help: "What a Client Identifier made by the broker starts with.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.auth.auto_id_prefix = reader.with(prefix)?;
            Ok(())
        },
        show: |config| one(&config.auth.auto_id_prefix),
    },
    Directive {
        name: "max_packet_size",
        only_in: OWN,
        values: "SIZE",
        default: "1MB",
        help: "The largest packet accepted (Maximum Packet Size). 0 is the protocol's own limit.",
        repeats: false,
        apply: packet_size,
        show: |config| vec![show_size(config.limits.packet_bytes_max.into())],
    },
    Directive {
        name: "memory_limit",
        only_in: OWN,
        values: "SIZE",
        default: "see max_memory",
        help: "Mosquitto's name of max_memory.",
        repeats: false,
        apply: memory,
        show: |_| Vec::new(),
    },
    Directive {
        name: "max_connections",
        only_in: None,
        values: "COUNT",
        default: "-1, which is no limit but the descriptors of the process",
        help: "Network Connections at a time.",
        repeats: false,
        apply: |draft, reader| {
            let count = reader.number(-1, i64::from(u32::MAX))?;
            draft.config.limits.connections_max = u32::try_from(count).ok();
            Ok(())
        },
        show: |config| {
            vec![
                config
                    .limits
                    .connections_max
                    .map_or_else(|| "-1".to_owned(), |max| max.to_string()),
            ]
        },
    },
    Directive {
        name: "max_inflight_messages",
        only_in: OWN,
        values: "COUNT",
        default: "256",
        help: "QoS 1 and 2 messages on their way to one client; 0 is the protocol's own limit.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.inflight_max = reader.limit(u16::MAX)?.unwrap_or(u16::MAX);
            Ok(())
        },
        show: |config| one(config.limits.inflight_max),
    },
    Directive {
        name: "max_queued_messages",
        only_in: OWN,
        values: "COUNT",
        default: "10000",
        help: "Messages waiting for one Session; 0 is no limit.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.queued_messages_max = reader.limit(u32::MAX)?;
            Ok(())
        },
        show: |config| one(config.limits.queued_messages_max.unwrap_or(0)),
    },
    Directive {
        name: "max_queued_bytes",
        only_in: OWN,
        values: "SIZE",
        default: "8MB",
        help: "Bytes of messages waiting for one Session; 0 is no limit.",
        repeats: false,
        apply: |draft, reader| {
            let bytes = reader.size()?;
            draft.config.limits.queued_bytes_max = (bytes > 0).then_some(bytes);
            Ok(())
        },
        show: |config| vec![show_size(config.limits.queued_bytes_max.unwrap_or(0))],
    },
    Directive {
        name: "queue_full",
        only_in: None,
        values: "refuse|drop_newest|drop_oldest",
        default: "refuse",
        help: "What happens to a message that no longer fits a Session's queue.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.queue_full = reader.with(|text| {
                let known = [QueueFull::Refuse, QueueFull::DropNewest, QueueFull::DropOldest];
                known
                    .into_iter()
                    .find(|policy| policy.to_string() == text)
                    .ok_or_else(|| not_one_of(text, &known))
            })?;
            Ok(())
        },
        show: |config| one(config.limits.queue_full),
    },
    Directive {
        name: "queue_qos0_messages",
        only_in: OWN,
        values: "true|false",
        default: "false",
        help: "Whether QoS 0 messages wait for an absent client too.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.queue_qos0 = reader.switch()?;
            Ok(())
        },
        show: |config| one(config.limits.queue_qos0),
    },
    Directive {
        name: "max_keepalive",
        only_in: None,
        values: "SECONDS",
        default: "0, which is no limit",
        help: "The longest Keep Alive granted: 5.0 clients are told; the silence of others is judged by it all the same.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.keep_alive_max = reader.limit(u16::MAX)?;
            Ok(())
        },
        show: |config| one(config.limits.keep_alive_max.unwrap_or(0)),
    },
    Directive {
        name: "max_qos",
        only_in: OWN,
        values: "0|1|2",
        default: "2",
        help: "Maximum QoS.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.qos_max = reader.number(0, 2)?;
            Ok(())
        },
        show: |config| one(config.limits.qos_max),
    },
    Directive {
        name: "max_topic_alias",
        only_in: OWN,
        values: "COUNT",
        default: "32",
        help: "Topic Alias Maximum of each client.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.topic_alias_max = reader.number(0, u16::MAX)?;
            Ok(())
        },
        show: |config| one(config.limits.topic_alias_max),
    },
    Directive {
        name: "retain_available",
        only_in: OWN,
        values: "true|false",
        default: "true",
        help: "Whether retained messages are kept.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.retain_available = reader.switch()?;
            Ok(())
        },
        show: |config| one(config.limits.retain_available),
    },
    Directive {
        name: "persistent_client_expiration",
        only_in: OWN,
        values: "SPAN",
        default: "never",
        help: "The longest a Session outlives its connection: a number with h, d, w, m (months) or y.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.session_expiry_max = Some(reader.with(span)?);
            Ok(())
        },
        show: |config| config.limits.session_expiry_max.map(show_span).into_iter().collect(),
    },
    Directive {
        name: "max_connect_size",
        only_in: None,
        values: "SIZE",
        default: "16KB",
        help: "The largest CONNECT packet: what a peer may send before it has shown who it is.",
        repeats: false,
        apply: connect_size,
        show: |config| vec![show_size(config.limits.connect_bytes_max.into())],
    },
    Directive {
        name: "connect_timeout",
        only_in: None,
        values: "SECONDS",
        default: "5",
        help: "How long a peer may take to send its CONNECT.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.limits.connect_timeout = Duration::from_secs(reader.number(1, 3600)?);
            Ok(())
        },
        show: |config| one(config.limits.connect_timeout.as_secs()),
    },
    Directive {
        name: "persistence",
        only_in: OWN,
        values: "false",
        default: "false",
        help: "Everything is in memory until there is a journal.",
        repeats: false,
        apply: |_, reader| match (
            reader.word()?,
            "persistence is not supported yet; everything is in memory",
        ) {
            (token, _) if token.text == "false" => Ok(()),
            (token, text) => Err(fault(token, text)),
        },
        show: |_| one(false),
    },
    Directive {
        name: "sys_interval",
        only_in: OWN,
        values: "SECONDS",
        default: "10",
        help: "How often the $SYS and $SOL topics are published; 0 publishes none.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.sys_interval = reader.limit(86_400)?.map(Duration::from_secs);
            Ok(())
        },
        show: |config| one(config.sys_interval.map_or(0, |interval| interval.as_secs())),
    },
    Directive {
        name: "log_dest",
        only_in: OWN,
        values: "stderr|stdout|none|file PATH",
        default: "stderr",
        help: "Where log lines go; may be given for a stream and a file. A file is reopened on SIGHUP.",
        repeats: true,
        apply: |draft, reader| draft.log_dest(reader),
        show: |config| {
            let stream = match config.log.stream {
                LogStream::Stderr => Some("stderr".to_owned()),
                LogStream::Stdout => Some("stdout".to_owned()),
                LogStream::None if config.log.file.is_none() => Some("none".to_owned()),
                LogStream::None => None,
            };
            stream
                .into_iter()
                .chain(config.log.file.iter().map(|path| format!("file {}", path.display())))
                .collect()
        },
    },
    Directive {
        name: "log_type",
        only_in: OWN,
        values: "error|warning|notice|information|debug|all|none",
        default: "error, warning, notice, information",
        help: "A kind of line that is written; may be given several times.",
        repeats: true,
        apply: |draft, reader| draft.log_type(reader),
        show: log_types,
    },
    Directive {
        name: "log_format",
        only_in: None,
        values: "text|json|sol",
        default: "text",
        help: "The form of a log line: for people, for machines, or as the old broker wrote it.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.log.format = reader.with(|text| {
                let known = [LogFormat::Text, LogFormat::Json, LogFormat::Sol];
                known
                    .into_iter()
                    .find(|format| format.to_string() == text)
                    .ok_or_else(|| not_one_of(text, &known))
            })?;
            Ok(())
        },
        show: |config| one(config.log.format),
    },
    Directive {
        name: "log_timestamp",
        only_in: OWN,
        values: "true|false",
        default: "true",
        help: "Whether log lines carry the time.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.log.timestamp = reader.switch()?;
            Ok(())
        },
        show: |config| one(config.log.timestamp),
    },
    Directive {
        name: "metrics",
        only_in: None,
        values: "ADDRESS:PORT|off",
        default: "127.0.0.1:9883 if it is free",
        help: "Where metrics are served for Prometheus, with /healthz beside them.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.metrics = reader.with(metrics)?;
            Ok(())
        },
        show: |config| match config.metrics {
            Metrics::Off => one("off"),
            Metrics::Default => Vec::new(),
            Metrics::At(address) => one(address),
        },
    },
    Directive {
        name: "pid_file",
        only_in: None,
        values: "PATH",
        default: "none",
        help: "Where the process identifier is written; removed at the end.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.pid_file = Some(reader.path()?);
            Ok(())
        },
        show: |config| path(config.pid_file.as_deref()),
    },
];

/// Reads a Maximum Packet Size; 0 and everything above the protocol's limit is that limit.
pub(crate) fn packet_size(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let bytes = reader.size()?;
    let bytes = if bytes == 0 { PACKET_BYTES_CEILING } else { bytes };
    if bytes > PACKET_BYTES_CEILING {
        let text = format!("cut to {PACKET_BYTES_CEILING} bytes, the largest packet of the protocol");
        reader.warnings.push((0, text));
    }
    if bytes < PACKET_BYTES_FLOOR {
        return Err(too_small(bytes, PACKET_BYTES_FLOOR, "no client could be served"));
    }
    draft.config.limits.packet_bytes_max = u32::try_from(bytes.min(PACKET_BYTES_CEILING)).unwrap_or(u32::MAX);
    Ok(())
}

fn memory(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let bytes = reader.size()?;
    if (1..MEMORY_BYTES_FLOOR).contains(&bytes) {
        return Err(too_small(
            bytes,
            MEMORY_BYTES_FLOOR,
            "the limit is enforced, unlike in the old broker",
        ));
    }
    if bytes > draft.host.memory_bytes {
        let has = show_size(draft.host.memory_bytes >> 20 << 20);
        let text = format!("{} are more than this process can have ({has})", show_size(bytes));
        reader.warnings.push((0, text));
    }
    draft.config.limits.memory_bytes_max = (bytes > 0).then_some(bytes);
    Ok(())
}

fn connect_size(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let bytes = reader.size()?.min(PACKET_BYTES_CEILING);
    if bytes < PACKET_BYTES_FLOOR {
        return Err(too_small(bytes, PACKET_BYTES_FLOOR, "no client could connect"));
    }
    draft.config.limits.connect_bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
    Ok(())
}

fn too_small(bytes: u64, floor: u64, why: &str) -> Fault {
    Fault {
        column: 0,
        text: format!("{bytes} bytes are too few, {floor} is the least: {why}; units are KB, MB and GB"),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    if text.len() > PREFIX_BYTES_MAX || text.contains(['+', '#', '/']) {
        return Err(format!(
            "`{text}` is longer than {PREFIX_BYTES_MAX} bytes or has one of + # /"
        ));
    }
    Ok(text.to_owned())
}

/// Reads where metrics are served.
pub(crate) fn metrics(text: &str) -> Result<Metrics, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Metrics::Off);
    }
    text.parse()
        .map(Metrics::At)
        .map_err(|_| format!("`{text}` is neither ADDRESS:PORT nor off"))
}

fn log_types(config: &Config) -> Vec<String> {
    let names = [
        (Levels::ERROR, "error"),
        (Levels::WARNING, "warning"),
        (Levels::INFO, "information"),
        (Levels::DEBUG, "debug"),
    ];
    let shown: Vec<_> = names
        .iter()
        .filter(|(level, _)| config.log.levels.has(*level))
        .map(|(_, name)| (*name).to_owned())
        .collect();
    if shown.is_empty() { one("none") } else { shown }
}

fn one(value: impl ToString) -> Vec<String> {
    vec![value.to_string()]
}

fn path(path: Option<&Path>) -> Vec<String> {
    path.iter().map(|path| path.display().to_string()).collect()
}

fn not_one_of<T: ToString>(text: &str, known: &[T]) -> String {
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    format!("`{text}` is none of {}", names.join(", "))
}
