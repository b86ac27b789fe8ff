//! The old broker's keys, as its `sol.conf` has them.

use super::directives::{Directive, nearest_of, suggestion};
use super::draft::Draft;
use super::listener::{Address, HOST_BYTES_MAX};
use super::own;
use super::reader::{Fault, Reader, fault};
use super::units::show_size;
use super::{Config, Dialect, Levels};
use std::time::Duration;

/// The longest queue the old broker asked for (`SOMAXCONN` of its C library).
pub(crate) const TCP_BACKLOG_MAX: u32 = 4096;
/// What the old broker took for its limit of memory, on machines that have as much, in bytes.
pub(crate) const MEMORY_BYTES_DEFAULT: u64 = 2 << 30;

/// In the order in which the old broker compared them: a prefix means the first that fits.
pub(crate) const ROWS: &[Directive] = &[
    Directive {
        name: "log_level",
        only_in: Some(Dialect::Sol),
        values: "DEBUG|INFO|WARNING|ERROR",
        default: "WARNING",
        help: "The least important level that is logged.",
        repeats: false,
        apply: log_level,
        show: |config| vec![level_name(config.log.levels).to_owned()],
    },
    Directive {
        name: "log_path",
        only_in: Some(Dialect::Sol),
        values: "PATH",
        default: "none",
        help: "A file that log lines are appended to, beside standard error; reopened on SIGHUP.",
        repeats: false,
        apply: |draft, reader| {
            draft.config.log.file = Some(reader.path()?);
            Ok(())
        },
        show: |config| config.log.file.iter().map(|path| path.display().to_string()).collect(),
    },
    Directive {
        name: "unix_socket",
        only_in: Some(Dialect::Sol),
        values: "PATH",
        default: "none",
        help: "Listen on a Unix socket instead of TCP. There is one listener: the later of ip_address and unix_socket wins.",
        repeats: false,
        apply: |draft, reader| draft.sol_unix_socket(reader),
        show: |config| match &config.listeners[..] {
            [only] if matches!(only.address, Address::Unix(_)) => vec![only.to_string()],
            _ => Vec::new(),
        },
    },
    Directive {
        name: "ip_address",
        only_in: Some(Dialect::Sol),
        values: "ADDRESS",
        default: "127.0.0.1",
        help: "The address or host name to listen on; 0.0.0.0 is every IPv4 interface, :: every interface.",
        repeats: false,
        apply: ip_address,
        show: |config| {
            tcp(config)
                .map(|(host, _)| host.unwrap_or("::").to_owned())
                .into_iter()
                .collect()
        },
    },
    Directive {
        name: "ip_port",
        only_in: Some(Dialect::Sol),
        values: "PORT",
        default: "1883",
        help: "The TCP port to listen on.",
        repeats: false,
        apply: |draft, reader| {
            draft.sol_port = Some((reader.number(0, u16::MAX)?, reader.line_number()));
            Ok(())
        },
        show: |config| tcp(config).map(|(_, port)| port.to_string()).into_iter().collect(),
    },
    own::MAX_MEMORY,
    Directive {
        name: "max_request_size",
        only_in: Some(Dialect::Sol),
        values: "SIZE",
        default: "512KB",
        help: "The largest packet accepted (Maximum Packet Size); a larger one closes its connection.",
        repeats: false,
        apply: own::packet_size,
        show: |config| vec![show_size(config.limits.packet_bytes_max.into())],
    },
    Directive {
        name: "tcp_backlog",
        only_in: Some(Dialect::Sol),
        values: "COUNT",
        default: "4096",
        help: "How many connections may wait to be accepted.",
        repeats: false,
        apply: tcp_backlog,
        show: |config| vec![config.tcp_backlog.to_string()],
    },
    Directive {
        name: "stats_publish_interval",
        only_in: Some(Dialect::Sol),
        values: "TIME",
        default: "10s",
        help: "How often the $SOL and $SYS topics are published; 0 publishes none.",
        repeats: false,
        apply: |draft, reader| {
            let interval = reader.seconds()?;
            draft.config.sys_interval = (!interval.is_zero()).then_some(interval);
            Ok(())
        },
        show: |config| vec![format!("{}s", config.sys_interval.unwrap_or(Duration::ZERO).as_secs())],
    },
    Directive {
        name: "keepalive",
        only_in: Some(Dialect::Sol),
        values: "TIME",
        default: "60s",
        help: "Without effect, as in the old broker: each client names its own Keep Alive.",
        repeats: false,
        apply: |_, reader| {
            let _ = reader.seconds()?;
            reader.warnings.push((
                0,
                "keepalive has no effect, as in the old broker: each client names its own".into(),
            ));
            Ok(())
        },
        show: |_| Vec::new(),
    },
    tls_file(
        "cafile",
        "The authorities that clients are checked against.",
        |draft, reader| tls_line(draft, reader, "cafile"),
    ),
    tls_file("certfile", "The server's certificate.", |draft, reader| {
        tls_line(draft, reader, "certfile")
    }),
    tls_file("keyfile", "The server's private key.", |draft, reader| {
        tls_line(draft, reader, "keyfile")
    }),
    own::ALLOW_ANONYMOUS,
    own::PASSWORD_FILE,
    Directive {
        name: "tls_protocols",
        only_in: Some(Dialect::Sol),
        values: "tlsv1_2,tlsv1_3",
        default: "tlsv1_2,tlsv1_3",
        help: "Without effect until TLS exists.",
        repeats: false,
        apply: tls_protocols,
        show: |_| Vec::new(),
    },
];

/// TLS was switched on by `cafile`. Whoever names any of the three files expects encryption, so none is skipped.
const fn tls_file(
    name: &'static str,
    help: &'static str,
    apply: fn(&mut Draft, &mut Reader<'_>) -> Result<(), Fault>,
) -> Directive {
    Directive {
        name,
        only_in: Some(Dialect::Sol),
        values: "PATH",
        default: "none",
        help,
        repeats: false,
        apply,
        show: |_| Vec::new(),
    }
}

fn tls_line(draft: &mut Draft, reader: &mut Reader<'_>, key: &'static str) -> Result<(), Fault> {
    let _ = reader.word()?;
    draft.tls_lines.push((key, reader.line_number()));
    Ok(())
}

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
    draft.config.log.levels_line = reader.line_number();
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
    for name in token.text.split(',').filter(|name| !name.is_empty()) {
        if !known.iter().any(|protocol| protocol.eq_ignore_ascii_case(name)) {
            let near = suggestion(nearest_of(&known, name));
            reader
                .warnings
                .push((token.column, format!("`{name}` is no protocol of TLS{near}")));
        }
    }
    draft.tls_protocols = Some((reader.line_number(), token.column));
    Ok(())
}

fn tcp(config: &Config) -> Option<(Option<&str>, u16)> {
    match &config.listeners.first()?.address {
        Address::Tcp { host, port } => Some((host.as_deref(), *port)),
        Address::Unix(_) => None,
    }
}
