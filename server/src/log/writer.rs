//! The thread that writes lines.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use super::limit::Limiter;
use super::line::{Form, Record};
use super::syslog::{self, Syslog};
use super::topic::{Publish, Topic};
use crate::config::{Log, LogFormat, LogStream, reason};
use crate::owner::Ids;

/// How often the numbers of lines held back are written.
const COUNTS_INTERVAL: Duration = Duration::from_secs(1);
/// Lines waiting to be written; more are dropped and counted.
pub const QUEUE_LINES_MAX: usize = 4096;

enum Item {
    /// A line of a level, and what the system's log gets of it.
    Line(&'static str, String, Option<String>),
    Flush(SyncSender<()>),
    Wake,
}

/// The sending side. The thread ends when it is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Item>,
    flags: Arc<Flags>,
    topic: Option<Topic>,
    /// Until [`Self::run`].
    waiting: Mutex<Option<Waiting>>,
}

/// What the thread will be made of. Its lines wait meanwhile.
struct Waiting {
    thread: Thread,
    items: Receiver<Item>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

#[derive(Debug, Default)]
struct Flags {
    reopen: AtomicBool,
    lost: AtomicU64,
}

impl Writer {
    /// Opens the destinations; a file that cannot be opened is told as a sentence and left out until it is reopened.
    /// One that is created belongs to `owner`.
    pub(super) fn open(config: &Log, limiter: Arc<Limiter>, owner: Option<Ids>) -> (Self, Option<String>) {
        let (file, fault) = match config.file.as_deref().map(|path| open_for(path, owner)) {
            Some(Ok(file)) => (Some(file), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        let (syslog, no_syslog) = match config.syslog {
            true => Some(Syslog::new(Path::new(syslog::PATH), config.facility)).unzip(),
            false => (None, None),
        };
        let fault = fault.or_else(|| no_syslog.flatten());
        let flags = Arc::new(Flags::default());
        let topic = config.topic.then(Topic::default);
        let (queue, items) = sync_channel(QUEUE_LINES_MAX);
        let thread = Thread {
            form: Form::from(config),
            syslog,
            topic: topic.clone(),
            timestamp: config.timestamp || config.format == LogFormat::Sol,
            stream: Stream(config.stream),
            stream_lost: 0,
            path: config.file.clone(),
            file,
            file_lost: 0,
            flags: Arc::clone(&flags),
            limiter,
        };
        let waiting = Mutex::new(Some(Waiting { thread, items }));
        let writer = Self {
            queue,
            flags,
            topic,
            waiting,
        };
        (writer, fault)
    }

    /// Starts the thread. The second time nothing happens.
    pub(super) fn run(&self) -> io::Result<()> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Waiting { thread, items }) = waiting {
            std::thread::Builder::new()
                .name("sol-log".to_owned())
                .spawn(move || thread.run(&items))?;
        }
        Ok(())
    }

    /// Queues a line; never waits.
    pub(super) fn write(&self, level: &'static str, line: String, words: Option<String>) {
        if self.queue.try_send(Item::Line(level, line, words)).is_err() {
            self.flags.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the thread see that there are counts to write.
    pub(super) fn wake(&self) {
        // A thread whose queue is full is awake.
        let _ = self.queue.try_send(Item::Wake);
    }

    /// Lets the thread open its file anew before the next line.
    pub(super) fn reopen(&self) {
        self.flags.reopen.store(true, Ordering::Release);
    }

    /// Has lines be published in this way from now on, where the configuration wants that.
    pub(super) fn publish_by(&self, publish: Publish) {
        if let Some(topic) = &self.topic {
            topic.publish_by(publish);
        }
    }

    /// Waits until all lines queued before are written; before [`Self::run`] they are written by who calls.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Waiting { thread, items }) = waiting.as_mut() {
            items.try_iter().for_each(|item| thread.take(item));
            return true;
        }
        drop(waiting);
        let (done, wait) = sync_channel(1);
        match self.queue.try_send(Item::Flush(done)) {
            Ok(()) => wait.recv_timeout(timeout).is_ok(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

struct Thread {
    form: Form,
    syslog: Option<Syslog>,
    topic: Option<Topic>,
    timestamp: bool,
    stream: Stream,
    /// Lines that this destination alone has not got.
    stream_lost: u64,
    path: Option<PathBuf>,
    file: Option<File>,
    file_lost: u64,
    flags: Arc<Flags>,
    limiter: Arc<Limiter>,
}

impl Thread {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            let item = if self.limiter.is_pending() {
                items.recv_timeout(COUNTS_INTERVAL)
            } else {
                items.recv().map_err(RecvTimeoutError::from)
            };
            match item {
                Ok(item) => self.take(item),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.limiter.is_pending() {
                self.write_counts(Some(since_epoch().as_secs()));
            }
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Line(level, line, words) => self.write_everywhere(level, &line, words.as_deref()),
            Item::Flush(done) => {
                self.write_counts(None);
                let _ = done.send(());
            }
            Item::Wake => {}
        }
    }

    /// Writes how many lines were held back in the seconds before `second`.
    fn write_counts(&mut self, second: Option<u64>) {
        for record in self.limiter.take(second) {
            let line = record.line(&self.form, self.timestamp.then(since_epoch));
            let words = record.line(&LogFormat::Text.into(), None);
            self.write_everywhere(record.level(), &line, Some(&words));
        }
    }

    /// `words` is the line as the system's log wants it.
    fn write_everywhere(&mut self, level: &str, line: &str, words: Option<&str>) {
        self.write(line);
        if let (Some(syslog), Some(words)) = (&mut self.syslog, words) {
            syslog.write(level, words);
        }
        if let Some(topic) = &self.topic {
            topic.write(level, line);
        }
    }

    fn write(&mut self, line: &str) {
        if self.flags.reopen.swap(false, Ordering::Acquire)
            && let Some(path) = &self.path
        {
            match open(path) {
                Ok(file) => self.file = Some(file),
                Err(fault) => {
                    let text = self.own(&format!("{fault}; the old one stays open"));
                    self.write_out(&text);
                }
            }
        }
        let lost = self.flags.lost.swap(0, Ordering::Relaxed);
        self.stream_lost += lost;
        self.file_lost += lost;
        self.write_out(line);
    }

    /// Writes a line to each destination, behind the number of those that it has not got. A stream that nobody will ever
    /// read again is given up.
    fn write_out(&mut self, line: &str) {
        if let Err(error) = deliver(&mut self.stream, &mut self.stream_lost, line, &self.form)
            && is_gone(&error)
        {
            let name = if self.stream.0 == LogStream::Stdout {
                "output"
            } else {
                "error"
            };
            self.stream = Stream(LogStream::None);
            self.stream_lost = 0;
            let text = self.own(&format!("standard {name} is gone, nothing is written to it any more"));
            self.write_file(&text);
        }
        self.write_file(line);
    }

    fn write_file(&mut self, line: &str) {
        if let Some(file) = &mut self.file {
            // There is nobody to tell before it can be written again.
            let _ = deliver(file, &mut self.file_lost, line, &self.form);
        }
    }

    /// A line about the log itself.
    fn own(&self, text: &str) -> String {
        own_line(&self.form, text)
    }
}

fn own_line(form: &Form, text: &str) -> String {
    let mut record = Record::new("WARNING");
    record.push("message", text.to_owned());
    record.line(form, Some(since_epoch()))
}

fn deliver(to: &mut impl Write, lost: &mut u64, line: &str, form: &Form) -> io::Result<()> {
    let mut write = || {
        if *lost > 0 {
            let text = own_line(form, &format!("{lost} log lines were lost here"));
            to.write_all(text.as_bytes())?;
            *lost = 0;
        }
        to.write_all(line.as_bytes())?;
        to.flush()
    };
    let written = write();
    if written.is_err() {
        *lost += 1;
    }
    written
}

/// Whether a stream fails for ever: its reader has ended, its terminal has been closed, or it was closed from the start.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::PIPE | Errno::IO | Errno::BADF))
}

/// A standard stream.
struct Stream(LogStream);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            LogStream::None => Ok(bytes.len()),
            LogStream::Stdout => io::stdout().write(bytes),
            LogStream::Stderr => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {
            LogStream::None | LogStream::Stderr => Ok(()),
            LogStream::Stdout => io::stdout().flush(),
        }
    }
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Opens the file; one that is made for it is given to `owner`. One that was there is not: whoever may put files and links
/// in its directory could have root give him any file of the system.
fn open_for(path: &Path, owner: Option<Ids>) -> Result<File, String> {
    let Some(owner) = owner else { return open(path) };
    let Ok(file) = options().create_new(true).open(path) else {
        // Root follows no link that the other user may have put into a directory of its own.
        let file = options().custom_flags(NO_LINK).open(path);
        return file.map_err(|error| cannot_open(path, &error));
    };
    fchown(&file, Some(owner.user), Some(owner.group)).map_err(|error| cannot_open(path, &error))?;
    Ok(file)
}

/// Refuses a path whose last part is a link.
const NO_LINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();

fn open(path: &Path) -> Result<File, String> {
    let file = options().create(true).open(path);
    file.map_err(|error| cannot_open(path, &error))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o600);
    options
}

fn cannot_open(path: &Path, error: &io::Error) -> String {
    format!("log file {} cannot be opened: {}", path.display(), reason(error))
}
