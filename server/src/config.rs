//! The configuration: what a file and the command line say, as plain data.
//!
//! This module knows nothing of sockets, engines or threads; it reads one file and yields a [`Config`] or the list of
//! reasons why not. The language is `directive value…`, one a line, in two dialects: the old broker's (`sol`) and
//! Mosquitto's with names of our own (`listener`). [`Dialect`] says how they are told apart; the table in
//! [`directives`] is the only place where a directive is described.
//!
//! ```
//! use sol_server::config::{Config, Host};
//! let config = Config::parse("sol.conf".as_ref(), b"ip_port 1884\n", &Host::default()).unwrap();
//! assert_eq!(config.listeners[0].to_string(), "127.0.0.1:1884");
//! ```

mod check;
mod defaults;
pub(crate) mod demand;
mod diagnostic;
mod dialect;
mod directives;
mod draft;
mod finish;
mod host;
pub(crate) mod include;
mod later;
mod lexer;
mod limits;
mod listener;
mod listening;
mod logging;
mod logins;
pub(crate) mod others;
mod overrides;
mod persistence;
mod place;
mod reader;
mod security;
mod show;
mod sol;
pub(crate) mod threads;
mod tls;
mod tls_rows;
mod tokens;
pub(crate) mod units;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::demand::{Demand, ListenerDemand};
pub use self::diagnostic::Diagnostic;
pub use self::dialect::Dialect;
pub use self::directives::{Directive, Scope, directives};
pub use self::host::Host;
pub use self::lexer::{FILE_BYTES_MAX, KEY_BYTES_MAX, LINE_BYTES_MAX};
pub use self::listener::{
    Address, Auth, CertificateName, Listener, Network, Protocol, Proxy, SocketChoices, SocketDomain, Versions,
    WebSockets,
};
pub use self::logins::Logins;
pub use self::overrides::Overrides;
pub(crate) use self::persistence::DIRECTORY as JOURNAL_DIRECTORY;
pub use self::persistence::{Durability, Persistence};
pub use self::place::{Place, Places};
pub use self::tls::{Tls, TlsVersion};
pub use self::tokens::{Authenticator, HttpAuth, Jwt};
pub use crate::sandbox::Sandbox;
pub use sol_transport::Io;

/// Where the configuration is looked for when `-c` is not given.
pub const DEFAULT_PATH: &str = "/etc/sol/sol.conf";
/// Where metrics are served unless the configuration says otherwise.
pub const METRICS_DEFAULT: &str = "127.0.0.1:9883";

/// Everything the broker is told from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The file it came from.
    pub source: Option<PathBuf>,
    /// Which dialect the file is written in.
    pub dialect: Dialect,
    /// Where to listen; at least one.
    pub listeners: Vec<Listener>,
    /// Length of each listener's queue of connections not yet accepted.
    pub tcp_backlog: u32,
    /// Whether small packets leave at once (`TCP_NODELAY`).
    pub tcp_nodelay: bool,
    /// How many threads serve clients, as it was asked for.
    pub shards: Shards,
    /// Cores that the process may use, as the machine said when this was read.
    pub cores: u16,
    /// Whether each of these threads stays on one core.
    pub pin_shards: bool,
    /// How they wait for sockets.
    pub io: Io,
    /// Every bound on what clients may cost.
    pub limits: Limits,
    /// How many logins may fail.
    pub logins: Logins,
    /// What is written down, how and where.
    pub log: Log,
    /// Period of the `$SOL` and `$SYS` topics; `None` publishes none.
    pub sys_interval: Option<Duration>,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// Where the process identifier is written.
    pub pid_file: Option<PathBuf>,
    /// Whom the process belongs to once its ports are bound, if root starts it.
    pub user: Option<String>,
    /// Whether the process restricts itself to its own files and calls.
    pub sandbox: Sandbox,
    /// Directories whose files belong to the configuration.
    pub include_dirs: Vec<PathBuf>,
    /// What is kept on disk, and where.
    pub persistence: Persistence,
    /// Where the directives stand that were given for the whole broker.
    pub places: Places,
    /// What the operator should know; never empty by oversight, see the compatibility list.
    pub warnings: Vec<Diagnostic>,
}

/// How many threads serve clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shards {
    /// As many as are good for this machine.
    Auto,
    /// This many.
    Count(u16),
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// Every bound on what clients may cost. Sizes are in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Maximum Packet Size the broker announces and accepts.
    pub packet_bytes_max: u32,
    /// Memory for messages, Sessions and buffers together; `None` is no limit.
    pub memory_bytes_max: Option<u64>,
    /// Largest payload of a PUBLISH.
    pub payload_bytes_max: Option<u32>,
    /// Network Connections of all listeners together at a time.
    pub connections_max: Option<u32>,
    /// Sessions at a time.
    pub sessions_max: Option<u32>,
    /// What clients may ask for in a second, and how many one address or one user may be.
    pub demand: Demand,
    /// QoS 1 and 2 messages on their way to one client.
    pub inflight_max: u16,
    /// Bytes of such messages.
    pub inflight_bytes_max: Option<u64>,
    /// Messages waiting for one Session.
    pub queued_messages_max: Option<u32>,
    /// Bytes of messages waiting for one Session.
    pub queued_bytes_max: Option<u64>,
    /// What happens to a message that no longer fits a Session's queue.
    pub queue_full: QueueFull,
    /// Whether QoS 0 messages wait for an absent client too.
    pub queue_qos0: bool,
    /// Whether a message is delivered with its Subscription's QoS, even where it was published with a lower one.
    pub upgrade_outgoing_qos: bool,
    /// Longest Keep Alive granted, in seconds.
    pub keep_alive_max: Option<u16>,
    /// Whether retained messages are kept.
    pub retain_available: bool,
    /// How long a retained message is kept that names no Message Expiry Interval.
    pub retain_expiry: Option<Duration>,
    /// Whether a retained message is replayed only as long as who published it may still do so.
    pub check_retain_source: bool,
    /// Longest Session Expiry Interval granted.
    pub session_expiry_max: Option<Duration>,
    /// Largest CONNECT packet.
    pub connect_bytes_max: u32,
    /// How long a peer may take from its connection to a complete CONNECT.
    pub connect_timeout: Duration,
}

/// What happens to a message that no longer fits a Session's queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueFull {
    /// It is refused; a 5.0 publisher is told with 0x97 (Quota exceeded).
    Refuse,
    /// It is dropped and counted.
    DropNewest,
    /// The oldest waiting message is dropped and counted instead.
    DropOldest,
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
        })
    }
}

/// What is written down, how and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// The levels written.
    pub levels: Levels,
    /// The form of a line.
    pub format: LogFormat,
    /// Whether lines carry the time (the `sol` form always does).
    pub timestamp: bool,
    /// Which standard stream is written to.
    pub stream: LogStream,
    /// A file that is appended to.
    pub file: Option<PathBuf>,
    /// Whether lines go to the system's log.
    pub syslog: bool,
    /// Whether lines are published below `$SYS/broker/log`.
    pub topic: bool,
    /// How the time is written, in the language of strftime(3).
    pub timestamp_format: Option<String>,
    /// The local facility of lines for the system's log.
    pub facility: Option<u8>,
    /// Whether clients that come and go are written down.
    pub connections: bool,
}

/// A set of log levels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Levels(pub u8);

impl Levels {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Something failed.
    pub const ERROR: Self = Self(1);
    /// Something is wrong but goes on.
    pub const WARNING: Self = Self(2);
    /// Something happened that operators want to know.
    pub const INFO: Self = Self(4);
    /// Everything else.
    pub const DEBUG: Self = Self(8);
    /// ERROR alone.
    pub const UP_TO_ERROR: Self = Self(1);
    /// ERROR and WARNING: the old broker's default.
    pub const UP_TO_WARNING: Self = Self(3);
    /// ERROR, WARNING and INFO: the default without an old file.
    pub const UP_TO_INFO: Self = Self(7);
    /// All.
    pub const ALL: Self = Self(15);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// `2026-01-31T12:00:00.000Z INFO message key=value`.
    Text,
    /// One JSON object a line.
    Json,
    /// `<epoch seconds> <message>`, cut at 120 characters: the old broker's.
    Sol,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Sol => "sol",
        })
    }
}

/// Which standard stream log lines go to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogStream {
    /// Neither.
    None,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// At [`METRICS_DEFAULT`], or nowhere if that port is taken: nobody asked for it.
    Default,
    /// Here, or the broker does not start.
    At(SocketAddr),
}

/// Why a configuration is refused: all errors, and the warnings that came before them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// At least one.
    pub errors: Vec<Diagnostic>,
    /// What would have been warned about.
    pub warnings: Vec<Diagnostic>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl From<Diagnostic> for Refused {
    fn from(error: Diagnostic) -> Self {
        Self {
            errors: vec![error],
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// What runs without a file: 127.0.0.1:1883, anonymous.
    pub fn without_file(host: &Host) -> Self {
        draft::Draft::new(Dialect::Listener, host).config_without_lines()
    }

    /// Reads a configuration from text; `path` is only for messages.
    ///
    /// # Errors
    /// Every fault of the text, each with line and column.
    pub fn parse(path: &Path, bytes: &[u8], host: &Host) -> Result<Self, Refused> {
        let lines = lexer::lex(path, bytes).map_err(|errors| Refused {
            errors,
            warnings: Vec::new(),
        })?;
        draft::read(path, &lines, host)
    }

    /// Reads `path`; without one [`DEFAULT_PATH`] if that exists.
    ///
    /// # Errors
    /// An unreadable file, or any fault of its text.
    pub fn load(path: Option<&Path>, host: &Host) -> Result<Self, Refused> {
        let file = path.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        match read_bounded(file) {
            Ok(bytes) => Self::parse(file, &bytes, host),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::without_file(host))
            }
            Err(error) => Err(Diagnostic::of_file(file, format!("cannot be read: {}", reason(&error))).into()),
        }
    }

    /// The password file that a listener asks, by its place, if it checks passwords.
    pub fn password_file(&self, listener: usize) -> Option<&Path> {
        let auth = &self.listeners.get(listener)?.auth;
        let path = auth.password_file.as_deref();
        path.filter(|_| auth.checks_passwords(self.dialect))
    }

    /// How many threads serve clients: as many as there are cores, unless a number was asked for. All cores are to be
    /// used under load, and a shard without work sleeps.
    pub fn shard_count(&self) -> u16 {
        match self.shards {
            Shards::Auto => self.cores.clamp(1, threads::SHARDS_MAX),
            Shards::Count(count) => count,
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The operating system's words without Rust's "(os error N)".
pub(crate) fn reason(error: &std::io::Error) -> String {
    in_words(error.to_string())
}

/// A sentence that ends in the operating system's words, without Rust's "(os error N)".
pub(crate) fn in_words(mut sentence: String) -> String {
    if let Some(end) = sentence.find(" (os error") {
        sentence.truncate(end);
    }
    sentence
}
