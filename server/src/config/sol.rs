//! The old broker's keys, as its `sol.conf` has them.

use super::directives::{Directive, nearest_of, suggestion};
use super::draft::Draft;
use super::listener::{Address, HOST_BYTES_MAX};
use super::place::Place;
use super::reader::{Fault, Reader, fault};
use super::show::{one, optional, path};
use super::tls::TlsVersion;
use super::units::show_size;
use super::{Dialect, Levels, Listener, limits, security, tls_rows};
use std::time::Duration;

/// The longest queue the old broker asked for (`SOMAXCONN` of its C library).
pub(crate) const TCP_BACKLOG_MAX: u32 = 4096;
/// What the old broker took for its limit of memory, on machines that have as much, in bytes.
pub(crate) const MEMORY_BYTES_DEFAULT: u64 = 2 << 30;

/// In the order in which the old broker compared them: a prefix means the first that fits.
pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "log_level",
        "DEBUG|INFO|WARNING|ERROR",
        "WARNING",
        "The least important level that is logged.",
        log_level,
    )
    .only_in(Dialect::Sol)
    .shown(|config| one(level_name(config.log.levels))),
    Directive::new(
        "log_path",
        "PATH",
        "none",
        "A file that log lines are appended to, beside standard error; reopened on SIGHUP.",
        |draft, reader| {
            draft.config.log.file = Some(reader.path()?);
            Ok(())
        },
    )
    .only_in(Dialect::Sol)
    .restart()
    .shown(|config| path(config.log.file.as_deref())),
    Directive::new(
        "unix_socket",
        "PATH",
        "none",
        "Listen on a Unix socket instead of TCP. There is one listener: the later of ip_address and unix_socket wins.",
        |draft, reader| draft.sol_unix_socket(reader),
    )
    .only_in(Dialect::Sol)
    .restart()
    .shown_each(|listener| match &listener.address {
        Address::Unix(_) => one(listener),
        Address::Tcp { .. } => Vec::new(),
    }),
    Directive::new(
        "ip_address",
        "ADDRESS",
        "127.0.0.1",
        "The address or host name to listen on; 0.0.0.0 is every IPv4 interface, :: every interface.",
        ip_address,
    )
    .only_in(Dialect::Sol)
    .restart()
    .shown_each(|listener| optional(tcp(listener).map(|(host, _)| host.unwrap_or("::")))),
    Directive::new(
        "ip_port",
        "PORT",
        "1883",
        "The TCP port to listen on.",
        |draft, reader| {
            draft.sol_port = Some((reader.number(0, u16::MAX)?, reader.place()));
            Ok(())
        },
    )
    .only_in(Dialect::Sol)
    .restart()
    .shown_each(|listener| optional(tcp(listener).map(|(_, port)| port))),
    limits::MAX_MEMORY,
    Directive::new(
        "max_request_size",
        "SIZE",
        "512KB",
        "The largest packet accepted (Maximum Packet Size); a larger one closes its connection.",
        limits::packet_size,
    )
    .only_in(Dialect::Sol)
    .shown(|config| one(show_size(config.limits.packet_bytes_max.into()))),
    Directive::new(
        "tcp_backlog",
        "COUNT",
        "4096",
        "How many connections may wait to be accepted.",
        tcp_backlog,
    )
    .only_in(Dialect::Sol)
    .restart()
    .shown(|config| one(config.tcp_backlog)),
    Directive::new(
        "stats_publish_interval",
        "TIME",
        "10s",
        "How often the $SOL and $SYS topics are published; 0 publishes none.",
        |draft, reader| {
            let interval = reader.seconds()?;
            draft.config.sys_interval = (!interval.is_zero()).then_some(interval);
            Ok(())
        },
    )
    .only_in(Dialect::Sol)
    .shown(|config| one(format!("{}s", config.sys_interval.unwrap_or(Duration::ZERO).as_secs()))),
    Directive::new(
        "keepalive",
        "TIME",
        "60s",
        "Without effect, as in the old broker: each client names its own Keep Alive.",
        |_, reader| reader.seconds().map(drop),
    )
    .only_in(Dialect::Sol)
    .without_effect("as in the old broker, each client names its own"),
    tls_rows::CAFILE,
    tls_rows::CERTFILE,
    tls_rows::KEYFILE,
    security::ALLOW_ANONYMOUS,
    security::PASSWORD_FILE,
    Directive::new(
        "tls_protocols",
        "tlsv1_2,tlsv1_3",
        "tlsv1_2,tlsv1_3",
        "The versions of TLS that are spoken.",
        tls_protocols,
    )
    .only_in(Dialect::Sol)
    .restart()
    .shown_each(|listener| listener.tls.as_ref().map(tls_rows::protocols).unwrap_or_default()),
];

/// The levels by the names of the file, in the order in which the old broker compared them.
const LEVELS: [(&str, Levels); 5] = [
    ("DEBUG", Levels::ALL),
    ("WARNING", Levels::UP_TO_WARNING),
    ("ERROR", Levels::UP_TO_ERROR),
    ("INFO", Levels::UP_TO_INFO),
    ("INFORMATION", Levels::UP_TO_INFO),
];

fn level_name(levels: Levels) -> &'static str {
    LEVELS
        .iter()
        .find(|(_, known)| *known == levels)
        .map_or("WARNING", |(name, _)| name)
}

fn log_level(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.word()?;
    let upper = token.text.to_ascii_uppercase();
    let Some((name, levels)) = LEVELS.iter().find(|(name, _)| name.starts_with(&upper)) else {
        let near = suggestion(nearest_of(&["debug", "info", "warning", "error"], token.text));
        let text = format!("`{}` is no log level, WARNING stays{near}", token.text);
        reader.warnings.push((token.column, text));
        return Ok(());
    };
    if *levels == Levels::UP_TO_INFO {
        let text = format!(
            "`{}` is honoured now; the old broker ignored it and stayed at WARNING",
            token.text
        );
        reader.warnings.push((token.column, text));
    } else if *name != upper {
        reader
            .warnings
            .push((token.column, format!("`{}` is read as {name}", token.text)));
    }
    draft.config.log.levels = *levels;
    Ok(())
}

fn ip_address(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.word()?;
    if token.text.len() > HOST_BYTES_MAX {
        return Err(fault(token, format!("host name longer than {HOST_BYTES_MAX} bytes")));
    }
    draft.sol_ip_address(token.text, reader);
    Ok(())
}

fn tcp_backlog(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let asked = reader.number(1, u32::MAX)?;
    if asked > TCP_BACKLOG_MAX {
        let text = format!("tcp_backlog is cut to {TCP_BACKLOG_MAX}, as the old broker did");
        reader.warnings.push((0, text));
    }
    draft.config.tcp_backlog = asked.min(TCP_BACKLOG_MAX);
    Ok(())
}

fn tls_protocols(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.word()?;
    let known = ["tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3"];
    let mut protocols = SolProtocols {
        place: reader.place(),
        column: token.column,
        versions: Vec::new(),
        old: None,
    };
    for name in token.text.split(',').filter(|name| !name.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "tlsv1_2" => protocols.versions.push(TlsVersion::V1_2),
            "tlsv1_3" => protocols.versions.push(TlsVersion::V1_3),
            "tlsv1" | "tlsv1_1" => protocols.old = Some(name.to_owned()),
            _ => {
                let near = suggestion(nearest_of(&known, name));
                reader
                    .warnings
                    .push((token.column, format!("`{name}` is no protocol of TLS{near}")));
            }
        }
    }
    draft.sol_protocols = Some(protocols);
    Ok(())
}

/// The protocols of a sol file, which count only with TLS.
#[derive(Debug)]
pub(crate) struct SolProtocols {
    pub(crate) place: Place,
    pub(crate) column: usize,
    pub(crate) versions: Vec<TlsVersion>,
    /// One that is not spoken.
    pub(crate) old: Option<String>,
}

fn tcp(listener: &Listener) -> Option<(Option<&str>, u16)> {
    match &listener.address {
        Address::Tcp { host, port } => Some((host.as_deref(), *port)),
        Address::Unix(_) => None,
    }
}
