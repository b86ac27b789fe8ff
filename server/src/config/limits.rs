//! The directives that bound what clients may cost.

use super::directives::Directive;
use super::draft::Draft;
use super::reader::{Fault, Reader};
use super::show::{count, not_one_of, one, optional};
use super::units::{show_size, show_span, span};
use super::{Dialect, QueueFull};
use std::time::Duration;

/// The largest packet the protocol can carry, in bytes.
pub(crate) const PACKET_BYTES_CEILING: u64 = 268_435_455 + 5;
/// A Maximum Packet Size below this serves nobody.
const PACKET_BYTES_FLOOR: u64 = 128;
/// The least Maximum Packet Size that Mosquitto takes.
const PACKET_BYTES_FLOOR_MOSQUITTO: u64 = 20;
/// A memory limit below this serves nobody.
const MEMORY_BYTES_FLOOR: u64 = 1 << 20;
/// The largest payload the protocol can carry, in bytes.
const PAYLOAD_BYTES_CEILING: u64 = 268_435_455;
/// The longest that retained messages may be kept to, in minutes: 19 years.
const RETAIN_MINUTES_MAX: u32 = 10_000_000;

pub(crate) const MAX_MEMORY: Directive = Directive::new(
    "max_memory",
    "SIZE",
    "70 % of the machine's or control group's memory, in a sol file 2GB at most",
    "Memory for messages, Sessions and buffers; more and more is refused from four fifths on. 0 is no limit.",
    memory,
)
.shown(|config| one(show_size(config.limits.memory_bytes_max.unwrap_or(0))));

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "memory_limit",
        "SIZE",
        "see max_memory",
        "Mosquitto's name of max_memory.",
        memory,
    )
    .own(),
    Directive::new(
        "max_packet_size",
        "SIZE",
        "2000000",
        "The largest packet accepted (Maximum Packet Size). 0 is the protocol's own limit.",
        packet_size,
    )
    .own()
    .shown(|config| one(show_size(config.limits.packet_bytes_max.into()))),
    Directive::new(
        "message_size_limit",
        "SIZE",
        "0, which is no limit but max_packet_size",
        "The largest payload accepted.",
        |draft, reader| {
            let bytes = reader.size_or_none(PAYLOAD_BYTES_CEILING)?;
            draft.config.limits.payload_bytes_max = bytes.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
            Ok(())
        },
    )
    .own()
    .shown(|config| one(show_size(config.limits.payload_bytes_max.unwrap_or(0).into()))),
    Directive::new(
        "max_connections",
        "COUNT",
        "-1, which is no limit but the descriptors of the process",
        "Network Connections at a time.",
        connections,
    )
    .only_in(Dialect::Sol)
    .shown(|config| one(count(config.limits.connections_max))),
    Directive::new(
        "global_max_connections",
        "COUNT",
        "-1, which is no limit but the descriptors of the process",
        "Network Connections of all listeners together at a time.",
        connections,
    )
    .own()
    .shown(|config| one(count(config.limits.connections_max))),
    Directive::new(
        "global_max_clients",
        "COUNT",
        "-1, which is no limit but memory",
        "Sessions at a time, of clients that are away too.",
        |draft, reader| {
            draft.config.limits.sessions_max = reader.count_or_none()?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(count(config.limits.sessions_max))),
    Directive::new(
        "max_inflight_messages",
        "COUNT",
        "20",
        "QoS 1 and 2 messages on their way to one client; 0 is the protocol's own limit.",
        |draft, reader| {
            draft.config.limits.inflight_max = reader.limit(u16::MAX)?.unwrap_or(u16::MAX);
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.limits.inflight_max)),
    Directive::new(
        "max_inflight_bytes",
        "SIZE",
        "0, which is no limit but their number",
        "Bytes of QoS 1 and 2 messages on their way to one client.",
        |draft, reader| {
            draft.config.limits.inflight_bytes_max = reader.size_or_none(u64::MAX)?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(show_size(config.limits.inflight_bytes_max.unwrap_or(0)))),
    Directive::new(
        "max_queued_messages",
        "COUNT",
        "1000",
        "Messages waiting for one Session; 0 is no limit.",
        |draft, reader| {
            draft.config.limits.queued_messages_max = reader.limit(u32::MAX)?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.limits.queued_messages_max.unwrap_or(0))),
    Directive::new(
        "max_queued_bytes",
        "SIZE",
        "0, which is no limit but memory",
        "Bytes of messages waiting for one Session.",
        |draft, reader| {
            draft.config.limits.queued_bytes_max = reader.size_or_none(u64::MAX)?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(show_size(config.limits.queued_bytes_max.unwrap_or(0)))),
    Directive::new(
        "queue_full",
        "refuse|drop_newest|drop_oldest",
        "refuse",
        "What happens to a message that no longer fits a Session's queue.",
        |draft, reader| {
            draft.config.limits.queue_full = reader.with(|text| {
                let known = [QueueFull::Refuse, QueueFull::DropNewest, QueueFull::DropOldest];
                known
                    .into_iter()
                    .find(|policy| policy.to_string() == text)
                    .ok_or_else(|| not_one_of(text, &known))
            })?;
            Ok(())
        },
    )
    .shown(|config| one(config.limits.queue_full)),
    Directive::new(
        "queue_qos0_messages",
        "true|false",
        "false",
        "Whether QoS 0 messages wait for an absent client too.",
        |draft, reader| {
            draft.config.limits.queue_qos0 = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.limits.queue_qos0)),
    Directive::new(
        "upgrade_outgoing_qos",
        "true|false",
        "false",
        "Whether a message is delivered with its Subscription's QoS, even where it was published with a lower one.",
        |draft, reader| {
            draft.config.limits.upgrade_outgoing_qos = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.limits.upgrade_outgoing_qos)),
    Directive::new(
        "max_keepalive",
        "SECONDS",
        "0, which is no limit",
        "The longest Keep Alive granted: 5.0 clients are told; the silence of others is judged by it all the same.",
        |draft, reader| {
            draft.config.limits.keep_alive_max = reader.limit(u16::MAX)?;
            Ok(())
        },
    )
    .shown(|config| one(config.limits.keep_alive_max.unwrap_or(0))),
    Directive::new(
        "retain_available",
        "true|false",
        "true",
        "Whether retained messages are kept.",
        |draft, reader| {
            draft.config.limits.retain_available = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.limits.retain_available)),
    Directive::new(
        "retain_expiry_interval",
        "MINUTES",
        "0, which is for ever",
        "How long a retained message is kept that names no Message Expiry Interval.",
        |draft, reader| {
            let minutes = reader.limit(RETAIN_MINUTES_MAX)?;
            draft.config.limits.retain_expiry = minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60));
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.limits.retain_expiry.map_or(0, |expiry| expiry.as_secs() / 60))),
    Directive::new(
        "check_retain_source",
        "true|false",
        "true",
        "Whether a retained message is replayed only as long as who published it may still do so.",
        |draft, reader| {
            draft.config.limits.check_retain_source = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.limits.check_retain_source)),
    Directive::new(
        "persistent_client_expiration",
        "SPAN",
        "never",
        "The longest a Session outlives its connection: a number with h, d, w, m (months) or y.",
        |draft, reader| {
            draft.config.limits.session_expiry_max = Some(reader.with(span)?);
            Ok(())
        },
    )
    .own()
    .shown(|config| optional(config.limits.session_expiry_max.map(show_span))),
    Directive::new(
        "max_connect_size",
        "SIZE",
        "16KB",
        "The largest CONNECT packet: what a peer may send before it has shown who it is.",
        connect_size,
    )
    .restart()
    .shown(|config| one(show_size(config.limits.connect_bytes_max.into()))),
    Directive::new(
        "connect_timeout",
        "SECONDS",
        "5",
        "How long a peer may take to send its CONNECT.",
        |draft, reader| {
            draft.config.limits.connect_timeout = Duration::from_secs(reader.number(1, 3600)?);
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(config.limits.connect_timeout.as_secs())),
    Directive::new(
        "websockets_headers_size",
        "BYTES",
        "4096",
        "The most bytes of the headers of a request for a WebSocket; 0 is the default.",
        headers_size,
    )
    .own()
    .restart()
    .shown(|config| optional(config.listeners.first().map(|first| first.websockets.headers_bytes_max))),
];

fn connections(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    draft.config.limits.connections_max = reader.count_or_none()?;
    Ok(())
}

fn headers_size(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    draft.headers_bytes_max = reader.limit(u16::MAX)?;
    Ok(())
}

/// Reads a Maximum Packet Size; 0 and everything above the protocol's limit is that limit.
pub(crate) fn packet_size(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let bytes = reader.size()?;
    let bytes = if bytes == 0 { PACKET_BYTES_CEILING } else { bytes };
    if bytes > PACKET_BYTES_CEILING {
        let text = format!("cut to {PACKET_BYTES_CEILING} bytes, the largest packet of the protocol");
        reader.warnings.push((0, text));
    }
    let floor = match draft.config.dialect {
        Dialect::Sol => PACKET_BYTES_FLOOR,
        Dialect::Listener => PACKET_BYTES_FLOOR_MOSQUITTO,
    };
    if bytes < floor {
        return Err(too_small(bytes, floor, "no client could be served"));
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
