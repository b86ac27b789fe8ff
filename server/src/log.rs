//! Writes what happens, as lines, to a standard stream, a file, the system's log and topics.
//!
//! Events come through `tracing`; this module is the subscriber, without spans or filters by target. A line is made on
//! the thread that reports the event and written by a thread of its own behind a bounded queue, so that neither a full
//! disk nor a pipe that nobody reads can stop a shard: what does not fit is dropped, counted, and the count is written.
//! So is what peers cause too often: of each kind of line they get a few a second.
//!
//! Whatever a client may have chosen belongs into a field, not into the message: fields are bounded and escaped, so that
//! no client forges a line or moves a terminal's cursor.

mod limit;
mod line;
pub(crate) mod stamp;
mod syslog;
mod topic;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

pub use self::limit::KIND_LINES_MAX;
pub use self::line::{FIELD_BYTES_MAX, MESSAGE_BYTES_MAX, SOL_CHARS_MAX};
pub use self::topic::Publish;
pub use self::writer::QUEUE_LINES_MAX;

use self::limit::{Admission, Limiter, is_limited};
pub(crate) use self::line::push_time as utc;
use self::line::{Bounded, Form, Record};
use self::writer::Writer;
use crate::config::{Levels, Log, LogFormat};
use crate::owner::Ids;

/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log: subscriber and writer thread. Dropping it writes what is queued, for at most a second.
#[derive(Debug)]
pub struct Logger {
    subscriber: LogSubscriber,
}

impl Logger {
    /// Opens the destinations and starts the writer. A file that cannot be opened is told as a sentence and left out:
    /// a broker without a log is better than none.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(config: &Log) -> io::Result<(Self, Option<String>)> {
        let (logger, fault) = Self::open(config, None);
        logger.run()?;
        Ok((logger, fault))
    }

    /// Opens the destinations, as [`Self::start`] does, and keeps lines until [`Self::run`] starts the writer, or
    /// [`Self::flush`] writes them. A file that is
    /// made for it belongs to `owner`.
    pub(crate) fn open(config: &Log, owner: Option<Ids>) -> (Self, Option<String>) {
        let limiter = Arc::new(Limiter::default());
        let (writer, fault) = Writer::open(config, Arc::clone(&limiter), owner);
        let shared = Shared {
            levels: AtomicU8::new(config.levels.0),
            form: Form::from(config),
            has_syslog: config.syslog,
            timestamp: config.timestamp,
            limiter,
            writer,
        };
        let subscriber = LogSubscriber(Arc::new(shared));
        (Self { subscriber }, fault)
    }

    /// Starts the writer.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(crate) fn run(&self) -> io::Result<()> {
        self.subscriber.0.writer.run()
    }

    /// Makes this the log of the process. Only the first call in a process has an effect.
    pub fn install(&self) {
        // Fails if there is one already, which a second broker in one test process may live with.
        let _ = tracing::subscriber::set_global_default(self.subscriber.clone());
    }

    /// The subscriber, for a log that holds only for a thread or a test.
    pub fn subscriber(&self) -> LogSubscriber {
        self.subscriber.clone()
    }

    /// Opens the file anew, as a log rotation asks for.
    pub fn reopen(&self) {
        self.subscriber.0.writer.reopen();
    }

    /// Has lines be published in this way from now on, where the configuration wants that. Only the first call has an
    /// effect.
    pub fn publish_by(&self, publish: Publish) {
        self.subscriber.0.writer.publish_by(publish);
    }

    /// Changes which levels are written.
    pub fn set_levels(&self, levels: Levels) {
        self.subscriber.0.levels.store(levels.0, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Waits until everything reported before is written, but no longer than `timeout`. Whether it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.subscriber.0.writer.flush(timeout)
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.flush(FLUSH_TIMEOUT);
    }
}

/// Turns events into lines.
#[derive(Clone, Debug)]
pub struct LogSubscriber(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    levels: AtomicU8,
    form: Form,
    has_syslog: bool,
    timestamp: bool,
    limiter: Arc<Limiter>,
    writer: Writer,
}

impl Subscriber for LogSubscriber {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The levels may change at a reload.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Levels(self.0.levels.load(Ordering::Relaxed)).has(level_bit(*metadata.level()))
    }

    fn event(&self, event: &Event<'_>) {
        let (log, metadata) = (&*self.0, event.metadata());
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let kind = is_limited(metadata).then(|| metadata.callsite());
        match kind.clone().map(|kind| log.limiter.admit(kind, time.as_secs())) {
            None | Some(Admission::Written) => {}
            Some(Admission::Counted) => return,
            Some(Admission::FirstCounted) => return log.writer.wake(),
        }
        let level = level_name(*metadata.level());
        let mut record = Record::new(level);
        event.record(&mut record);
        if let Some(kind) = kind {
            log.limiter.name(&kind, level, &record);
        }
        let time = (log.timestamp || log.form.format == LogFormat::Sol).then_some(time);
        let words = log.has_syslog.then(|| record.line(&LogFormat::Text.into(), None));
        log.writer.write(level, record.line(&log.form, time), words);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let limit = if field.name() == "message" {
            MESSAGE_BYTES_MAX
        } else {
            FIELD_BYTES_MAX
        };
        let text = Bounded::format(limit, format_args!("{value:?}"));
        self.push(field.name(), text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let limit = if field.name() == "message" {
            MESSAGE_BYTES_MAX
        } else {
            FIELD_BYTES_MAX
        };
        let text = Bounded::format(limit, format_args!("{value}"));
        self.push(field.name(), text);
    }
}

fn level_bit(level: Level) -> Levels {
    match level {
        Level::ERROR => Levels::ERROR,
        Level::WARN => Levels::WARNING,
        Level::INFO => Levels::INFO,
        Level::DEBUG | Level::TRACE => Levels::DEBUG,
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogStream;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn config(path: &Path, levels: Levels) -> Log {
        Log {
            levels,
            format: LogFormat::Text,
            timestamp: false,
            stream: LogStream::None,
            file: Some(path.to_owned()),
            syslog: false,
            topic: false,
            timestamp_format: None,
            facility: None,
            connections: true,
        }
    }

    fn written(logger: &Logger, path: &Path) -> String {
        assert!(logger.flush(Duration::from_secs(60)));
        std::fs::read_to_string(path).unwrap()
    }

    /// Events become lines of the levels that are on; the file is private; levels change while running.
    #[test]
    fn events_become_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sol.log");
        let (logger, fault) = Logger::start(&config(&path, Levels::UP_TO_WARNING)).unwrap();
        assert_eq!(fault, None);
        tracing::subscriber::with_default(logger.subscriber(), || {
            tracing::info!("not written");
            tracing::warn!(client = "a\nb", port = 7, "login failed");
            logger.set_levels(Levels::ALL);
            tracing::debug!("written now");
        });
        assert_eq!(
            written(&logger, &path),
            "WARNING login failed client=\"a\\nb\" port=7\nDEBUG written now\n"
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// Of one kind of line that peers cause a few are written a second, and the number of the others; another kind, and
    /// lines that no peer causes, are not held back.
    #[test]
    fn floods_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sol.log");
        let (logger, _) = Logger::start(&config(&path, Levels::ALL)).unwrap();
        tracing::subscriber::with_default(logger.subscriber(), || {
            for number in 0..1000 {
                tracing::warn!(target: "sol_server::events", number, "closed");
                tracing::info!("ours");
            }
            tracing::warn!(target: "sol_server::events", "another");
        });
        let text = written(&logger, &path);
        assert_eq!(text.matches("INFO ours\n").count(), 1000);
        assert!(text.contains("WARNING another\n"));
        let more = text.lines().filter_map(|line| {
            let (count, kind) = line.strip_prefix("WARNING ")?.split_once(" more: ")?;
            assert_eq!(kind, "closed");
            count.parse::<usize>().ok()
        });
        assert_eq!(
            more.sum::<usize>() + text.matches("WARNING closed number=").count(),
            1000
        );
        assert!(text.matches("WARNING closed number=").count() < 1000);
    }

    /// A fault in checking logins, which peers may cause as often as they like, is held back; the line of a ban is not,
    /// since fail2ban has to see each of them.
    #[test]
    fn bans_are_not_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sol.log");
        let (logger, _) = Logger::start(&config(&path, Levels::ALL)).unwrap();
        tracing::subscriber::with_default(logger.subscriber(), || {
            for _ in 0..1000 {
                tracing::error!(target: "sol_server::auth::judge", "fault");
                tracing::warn!(target: "sol_server::auth::guard", "banned");
            }
        });
        let text = written(&logger, &path);
        assert_eq!(text.matches("WARNING banned\n").count(), 1000);
        assert!(text.matches("ERROR fault\n").count() < 1000);
    }

    /// A rotated file is let go and a new one begun.
    #[test]
    fn reopens() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("sol.log"), dir.path().join("sol.log.1"));
        let (logger, _) = Logger::start(&config(&path, Levels::ALL)).unwrap();
        tracing::subscriber::with_default(logger.subscriber(), || {
            tracing::error!("one");
            assert_eq!(written(&logger, &path), "ERROR one\n");
            std::fs::rename(&path, &old).unwrap();
            tracing::error!("two");
            assert!(logger.flush(Duration::from_secs(60)));
            logger.reopen();
            tracing::error!("three");
            assert_eq!(written(&logger, &path), "ERROR three\n");
            assert_eq!(std::fs::read_to_string(&old).unwrap(), "ERROR one\nERROR two\n");
        });
    }

    /// Lines are published under their level's topic once somebody can do that, those about single packets never.
    #[test]
    fn lines_are_published() {
        let published = Arc::new(std::sync::Mutex::new(Vec::new()));
        let config = Log {
            topic: true,
            stream: LogStream::None,
            file: None,
            ..config(Path::new(""), Levels::ALL)
        };
        let (logger, _) = Logger::start(&config).unwrap();
        tracing::subscriber::with_default(logger.subscriber(), || {
            tracing::info!("before anybody could");
            assert!(logger.flush(Duration::from_secs(60)));
            let lines = Arc::clone(&published);
            logger.publish_by(Box::new(move |topic, line| {
                lines.lock().unwrap().push(format!("{topic} {line}"));
            }));
            tracing::error!("one");
            tracing::warn!("two");
            tracing::info!("three");
            tracing::debug!("four");
            assert!(logger.flush(Duration::from_secs(60)));
        });
        assert_eq!(
            *published.lock().unwrap(),
            [
                "$SYS/broker/log/E ERROR one",
                "$SYS/broker/log/W WARNING two",
                "$SYS/broker/log/I INFO three"
            ]
        );
    }

    /// A file that cannot be opened is told and left out; the broker goes on.
    #[test]
    fn a_log_that_cannot_be_opened() {
        let (logger, fault) = Logger::start(&config(Path::new("/nonexistent/sol.log"), Levels::ALL)).unwrap();
        assert_eq!(
            fault.as_deref(),
            Some("log file /nonexistent/sol.log cannot be opened: No such file or directory")
        );
        tracing::subscriber::with_default(logger.subscriber(), || tracing::error!("lost"));
        assert!(logger.flush(Duration::from_secs(60)));
    }

    /// A full destination (here the device that is always full) stops nobody, and what was lost is counted later.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_destination() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sol.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (logger, fault) = Logger::start(&config(&path, Levels::ALL)).unwrap();
        assert_eq!(fault, None);
        tracing::subscriber::with_default(logger.subscriber(), || {
            tracing::error!("one");
            tracing::error!("two");
            assert!(logger.flush(Duration::from_secs(60)));
            std::fs::remove_file(&path).unwrap();
            logger.reopen();
            tracing::error!("three");
        });
        let text = written(&logger, &path);
        assert!(
            text.ends_with("Z WARNING 2 log lines were lost here\nERROR three\n"),
            "{text}"
        );
    }
}
