//! Turns lines into a [`Config`]: one line at a time by the table, then what holds between lines.

use super::dialect::is_sol_only;
use super::directives::{Directive, by_prefix, named, nearest, suggestion};
use super::later::later;
use super::lexer::Line;
use super::listener::UNIX_PATH_BYTES_MAX;
use super::reader::{Fault, Reader, fault, shorten};
use super::{
    Address, Auth, Config, Diagnostic, Dialect, Host, Io, Levels, Limits, Listener, Log, LogFormat, LogStream, Metrics,
    QueueFull, Refused, Shards, sol,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOOPBACK: &str = "127.0.0.1";
const PORT: u16 = 1883;
/// Places to listen at in one file.
const LISTENERS_MAX: usize = 256;

/// A configuration in the making, with what must be remembered until the last line.
pub(crate) struct Draft {
    pub(crate) config: Config,
    pub(crate) host: Host,
    pub(crate) allow_anonymous: Option<bool>,
    pub(crate) port: Option<(u16, usize)>,
    pub(crate) bind_address: Option<(String, usize)>,
    pub(crate) sol_port: Option<(u16, usize)>,
    pub(crate) tls_lines: Vec<(&'static str, usize)>,
    pub(crate) tls_protocols: Option<(usize, usize)>,
    sol_host: Option<(String, usize)>,
    sol_unix: Option<(PathBuf, usize)>,
    log_dest_given: bool,
    log_type_given: bool,
    /// The line on which each directive stood last.
    seen: HashMap<&'static str, usize>,
}

/// Reads all lines of a file and reports every fault in it.
pub(crate) fn read(path: &Path, lines: &[Line<'_>], host: &Host) -> Result<Config, Refused> {
    let dialect = Dialect::of(lines);
    let mut draft = Draft::new(dialect, host);
    let mut errors = Vec::new();
    for line in lines {
        let mut warnings = Vec::new();
        if let Err(Fault { column, text }) = draft.line(line, &mut warnings) {
            errors.push(Diagnostic::at(path, line.number, column, text));
        }
        let placed = warnings
            .into_iter()
            .map(|(column, text)| Diagnostic::at(path, line.number, column, text));
        draft.config.warnings.extend(placed);
    }
    draft.finish(path, &mut errors);
    draft.config.source = Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    if errors.is_empty() {
        Ok(draft.config)
    } else {
        Err(Refused {
            errors,
            warnings: draft.config.warnings,
        })
    }
}

type Warnings = Vec<(usize, String)>;

impl Draft {
    pub(crate) fn new(dialect: Dialect, host: &Host) -> Self {
        Self {
            config: defaults(dialect, host),
            host: *host,
            allow_anonymous: None,
            port: None,
            bind_address: None,
            sol_port: None,
            tls_lines: Vec::new(),
            tls_protocols: None,
            sol_host: None,
            sol_unix: None,
            log_dest_given: false,
            log_type_given: false,
            seen: HashMap::new(),
        }
    }

    /// What runs without a file.
    pub(crate) fn config_without_lines(mut self) -> Config {
        self.finish(Path::new(""), &mut Vec::new());
        self.config
    }

    fn line(&mut self, line: &Line<'_>, warnings: &mut Warnings) -> Result<(), Fault> {
        let Some(directive) = self.directive(line, warnings)? else {
            return Ok(());
        };
        let dialect = self.config.dialect;
        if dialect == Dialect::Sol && line.values.is_empty() {
            warnings.push((
                line.key.column,
                format!("`{}` has no value, its default stays", line.key.text),
            ));
            return Ok(());
        }
        self.once(directive, line, warnings)?;
        let mut reader = Reader::new(line, dialect);
        let result = (directive.apply)(self, &mut reader).and_then(|()| reader.finish());
        warnings.append(&mut reader.warnings);
        result
    }

    /// Finds the directive of a line; `None` if the line is to be ignored.
    fn directive(&self, line: &Line<'_>, warnings: &mut Warnings) -> Result<Option<&'static Directive>, Fault> {
        let (dialect, key) = (self.config.dialect, line.key);
        if let Some(directive) = named(dialect, key.text) {
            return Ok(Some(directive));
        }
        match dialect {
            Dialect::Listener => Err(fault(key, unknown_directive(key.text))),
            Dialect::Sol => {
                if key.text.starts_with('#') {
                    let text = "taken for a comment, though a comment starts in the first column".to_owned();
                    warnings.push((key.column, text));
                    return Ok(None);
                }
                if let Some(directive) = by_prefix(key.text) {
                    warnings.push((key.column, format!("`{}` is read as {}", key.text, directive.name)));
                    return Ok(Some(directive));
                }
                if later(key.text).is_some() || named(Dialect::Listener, key.text).is_some() {
                    let text = format!("`{}` does not exist in a sol file: {MIXED}", key.text);
                    return Err(fault(key, text));
                }
                let near = suggestion(nearest(dialect, key.text));
                warnings.push((
                    key.column,
                    format!("unknown key `{}` is ignored{near}", shorten(key.text)),
                ));
                Ok(None)
            }
        }
    }

    /// The last of several lines won in the old broker; elsewhere a second line is a fault.
    fn once(&mut self, directive: &Directive, line: &Line<'_>, warnings: &mut Warnings) -> Result<(), Fault> {
        let Some(before) = self.seen.insert(directive.name, line.number) else {
            return Ok(());
        };
        if directive.repeats {
            return Ok(());
        }
        match self.config.dialect {
            Dialect::Sol => warnings.push((line.key.column, format!("wins over line {before}"))),
            Dialect::Listener => {
                return Err(fault(
                    line.key,
                    format!("`{}` stands on line {before} already", directive.name),
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn sol_unix_socket(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let token = reader.word()?;
        let path = unix_path(token.text).map_err(|text| fault(token, text))?;
        if let Some((host, line)) = self.sol_host.take() {
            let text = format!("wins over ip_address {host} of line {line}: a sol file has one listener");
            reader.warnings.push((0, text));
        }
        self.sol_unix = Some((path, reader.line_number()));
        Ok(())
    }

    pub(crate) fn sol_ip_address(&mut self, host: &str, reader: &mut Reader<'_>) {
        if let Some((path, line)) = self.sol_unix.take() {
            let text = format!(
                "wins over unix_socket {} of line {line}: a sol file has one listener",
                path.display()
            );
            reader.warnings.push((0, text));
        }
        self.sol_host = Some((host.to_owned(), reader.line_number()));
    }

    pub(crate) fn listener(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let port = reader.number(0, u16::MAX)?;
        let address = match reader.optional() {
            Some(place) if place.text.starts_with('/') => {
                let path = unix_path(place.text).map_err(|text| fault(place, text))?;
                if port != 0 {
                    return Err(fault(place, "a Unix socket has port 0"));
                }
                Address::Unix(path)
            }
            place if port > 0 => Address::Tcp {
                host: place.map(|place| place.text.to_owned()),
                port,
            },
            _ => {
                return Err(Fault {
                    column: 0,
                    text: "port 0 needs the path of a Unix socket".to_owned(),
                });
            }
        };
        if self.config.listeners.len() == LISTENERS_MAX {
            return Err(Fault {
                column: 0,
                text: format!("more than {LISTENERS_MAX} listeners"),
            });
        }
        self.config.listeners.push(Listener {
            address,
            line: reader.line_number(),
        });
        Ok(())
    }

    pub(crate) fn log_dest(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let token = reader.word()?;
        let log = &mut self.config.log;
        if !std::mem::replace(&mut self.log_dest_given, true) {
            log.stream = LogStream::None;
        }
        match token.text {
            "stderr" => log.stream = LogStream::Stderr,
            "stdout" => log.stream = LogStream::Stdout,
            "file" => log.file = Some(reader.path()?),
            "none" => (log.stream, log.file) = (LogStream::None, None),
            "syslog" | "topic" | "dlt" | "android" => {
                return Err(fault(token, format!("log_dest {} is not supported yet", token.text)));
            }
            other => return Err(fault(token, format!("`{other}` is none of stderr, stdout, none, file"))),
        }
        Ok(())
    }

    pub(crate) fn log_type(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let levels = reader.with(|text| match text {
            "error" => Ok(Levels::ERROR),
            "warning" => Ok(Levels::WARNING),
            "notice" | "information" => Ok(Levels::INFO),
            "debug" => Ok(Levels::DEBUG),
            "all" => Ok(Levels::ALL),
            "none" => Ok(Levels::NONE),
            "subscribe" | "unsubscribe" | "websockets" | "internal" => Ok(Levels::DEBUG),
            other => Err(format!(
                "`{other}` is none of error, warning, notice, information, debug, all, none"
            )),
        })?;
        let first = !std::mem::replace(&mut self.log_type_given, true);
        let before = if first || levels == Levels::NONE {
            Levels::NONE
        } else {
            self.config.log.levels
        };
        self.config.log.levels = before.with(levels);
        self.config.log.levels_line = reader.line_number();
        Ok(())
    }

    fn finish(&mut self, path: &Path, errors: &mut Vec<Diagnostic>) {
        match self.config.dialect {
            Dialect::Sol => self.finish_sol(path, errors),
            Dialect::Listener => self.finish_listeners(path, errors),
        }
        self.finish_auth(path);
    }

    fn finish_sol(&mut self, path: &Path, errors: &mut Vec<Diagnostic>) {
        let port_line = self.sol_port.map_or(0, |(_, line)| line);
        let listener = match (self.sol_unix.take(), self.sol_host.take()) {
            (Some((path, line)), _) => Listener {
                address: Address::Unix(path),
                line,
            },
            (None, host) => {
                let line = host.as_ref().map_or(port_line, |(_, line)| *line);
                let host = host.map_or_else(|| LOOPBACK.to_owned(), |(host, _)| host);
                let port = self.sol_port.map_or(PORT, |(port, _)| port);
                Listener {
                    address: Address::of_sol(host, port),
                    line,
                }
            }
        };
        self.config.listeners = vec![listener];
        if let Some((key, first)) = self.tls_lines.first() {
            let lines: Vec<_> = self.tls_lines.iter().map(|(_, line)| line.to_string()).collect();
            let text = format!(
                "`{key}`: TLS is not supported yet; to listen without encryption, comment out line {}",
                lines.join(", ")
            );
            errors.push(Diagnostic::at(path, *first, 1, text));
        } else if let Some((line, column)) = self.tls_protocols {
            let text = "tls_protocols has no effect without cafile";
            self.config.warnings.push(Diagnostic::at(path, line, column, text));
        }
    }

    fn finish_listeners(&mut self, path: &Path, errors: &mut Vec<Diagnostic>) {
        for (name, other) in [("max_memory", "memory_limit")] {
            if let (Some(_), Some(line)) = (self.seen.get(name), self.seen.get(other)) {
                errors.push(Diagnostic::at(
                    path,
                    *line,
                    1,
                    format!("`{other}` and `{name}` are two names of one thing"),
                ));
            }
        }
        let short = self.port.is_some() || self.bind_address.is_some();
        if short {
            let line = self.port.map_or(0, |(_, line)| line);
            let (host, bind_line) = self.bind_address.take().unzip();
            let port = self.port.map_or(PORT, |(port, _)| port);
            let line = if line == 0 { bind_line.unwrap_or(0) } else { line };
            self.config.listeners.insert(
                0,
                Listener {
                    address: Address::Tcp { host, port },
                    line,
                },
            );
        }
        if self.config.listeners.is_empty() {
            let address = Address::Tcp {
                host: Some(LOOPBACK.to_owned()),
                port: PORT,
            };
            self.config.listeners.push(Listener { address, line: 0 });
            self.config.auth.allow_anonymous = true;
        }
    }

    fn finish_auth(&mut self, path: &Path) {
        let line_of = |name| self.seen.get(name).copied().unwrap_or(0);
        let (anonymous_line, password_line) = (line_of("allow_anonymous"), line_of("password_file"));
        let auth = &mut self.config.auth;
        if let Some(allow) = self.allow_anonymous {
            auth.allow_anonymous = allow;
        }
        let warning = match (auth.allow_anonymous, auth.password_file.is_some(), self.config.dialect) {
            (false, false, _) => Some((
                anonymous_line,
                "nobody can connect: anonymous clients are refused and there is no password_file",
            )),
            (true, true, Dialect::Sol) => Some((
                password_line,
                "password_file has no effect: anonymous clients are allowed",
            )),
            (true, true, Dialect::Listener) => Some((
                password_line,
                "clients without a user name need no password: anonymous clients are allowed",
            )),
            (true, false, _) | (false, true, _) => None,
        };
        self.config
            .warnings
            .extend(warning.map(|(line, text)| Diagnostic::at(path, line, 0, text)));
    }
}

const MIXED: &str = "one file is either in the old broker's dialect or in Mosquitto's";

fn unknown_directive(name: &str) -> String {
    if let Some(sentence) = later(name) {
        return format!("`{name}`: {sentence}");
    }
    if is_sol_only(name) || named(Dialect::Sol, name).is_some() {
        return format!("`{name}` exists only in a sol file: {MIXED}");
    }
    let near = suggestion(nearest(Dialect::Listener, name));
    format!("unknown directive `{}`{near}", shorten(name))
}

fn unix_path(text: &str) -> Result<PathBuf, String> {
    let path = std::path::absolute(text).map_err(|_| format!("`{text}` is not a path"))?;
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes"
        ));
    }
    Ok(path)
}

fn defaults(dialect: Dialect, host: &Host) -> Config {
    let sol = dialect == Dialect::Sol;
    Config {
        source: None,
        dialect,
        listeners: Vec::new(),
        tcp_backlog: sol::TCP_BACKLOG_MAX,
        tcp_nodelay: true,
        auth: Auth {
            allow_anonymous: sol,
            password_file: None,
            allow_zero_length_clientid: true,
            auto_id_prefix: "auto-".to_owned(),
        },
        shards: Shards::Auto,
        cores: host.cores,
        pin_shards: false,
        io: Io::Auto,
        limits: Limits {
            packet_bytes_max: if sol { 512 << 10 } else { 1 << 20 },
            memory_bytes_max: Some(if sol {
                host.memory_default().min(sol::MEMORY_BYTES_DEFAULT)
            } else {
                host.memory_default()
            }),
            connections_max: None,
            inflight_max: 256,
            queued_messages_max: Some(10_000),
            queued_bytes_max: Some(8 << 20),
            queue_full: QueueFull::Refuse,
            queue_qos0: false,
            keep_alive_max: None,
            qos_max: 2,
            topic_alias_max: 32,
            retain_available: true,
            session_expiry_max: None,
            connect_bytes_max: 16 << 10,
            connect_timeout: Duration::from_secs(5),
        },
        log: Log {
            levels: if sol { Levels::UP_TO_WARNING } else { Levels::UP_TO_INFO },
            levels_line: 0,
            format: LogFormat::Text,
            timestamp: true,
            stream: LogStream::Stderr,
            file: None,
        },
        sys_interval: Some(Duration::from_secs(10)),
        metrics: Metrics::Default,
        pid_file: None,
        warnings: Vec::new(),
    }
}
