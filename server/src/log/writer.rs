//! The thread that writes lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use super::line::Record;
use crate::config::{Log, LogFormat, LogStream, reason};

/// Lines waiting to be written; more are dropped and counted.
pub const QUEUE_LINES_MAX: usize = 4096;

enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

/// The sending side. The thread ends when it is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Item>,
    flags: Arc<Flags>,
}

#[derive(Debug, Default)]
struct Flags {
    reopen: AtomicBool,
    lost: AtomicU64,
}

impl Writer {
    /// Opens the destinations; a file that cannot be opened is told as a sentence and left out until it is reopened.
    pub(super) fn start(config: &Log) -> io::Result<(Self, Option<String>)> {
        let (file, fault) = match config.file.as_deref().map(open) {
            Some(Ok(file)) => (Some(file), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        let flags = Arc::new(Flags::default());
        let (queue, items) = sync_channel(QUEUE_LINES_MAX);
        let thread = Thread {
            format: config.format,
            stream: config.stream,
            path: config.file.clone(),
            file,
            flags: Arc::clone(&flags),
        };
        std::thread::Builder::new()
            .name("sol-log".to_owned())
            .spawn(move || thread.run(&items))?;
        Ok((Self { queue, flags }, fault))
    }

    /// Queues a line; never waits.
    pub(super) fn write(&self, line: String) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.flags.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the thread open its file anew before the next line.
    pub(super) fn reopen(&self) {
        self.flags.reopen.store(true, Ordering::Release);
    }

    /// Waits until all lines queued before are written.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        match self.queue.try_send(Item::Flush(done)) {
            Ok(()) => wait.recv_timeout(timeout).is_ok(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

struct Thread {
    format: LogFormat,
    stream: LogStream,
    path: Option<PathBuf>,
    file: Option<File>,
    flags: Arc<Flags>,
}

impl Thread {
    fn run(mut self, items: &Receiver<Item>) {
        for item in items {
            match item {
                Item::Line(line) => self.write(&line),
                Item::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    fn write(&mut self, line: &str) {
        if self.flags.reopen.swap(false, Ordering::Acquire)
            && let Some(path) = &self.path
        {
            match open(path) {
                Ok(file) => self.file = Some(file),
                Err(fault) => {
                    self.write_own(&format!("{fault}; the old one stays open"));
                }
            }
        }
        let lost = self.flags.lost.swap(0, Ordering::Relaxed);
        let told = lost == 0 || self.write_own(&format!("{lost} log lines were lost here"));
        if !told {
            self.flags.lost.fetch_add(lost, Ordering::Relaxed);
        }
        if !self.write_out(line) {
            self.flags.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes a line about the log itself.
    fn write_own(&mut self, text: &str) -> bool {
        let mut record = Record::new("WARNING");
        record.push("message", text.to_owned());
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.write_out(&record.line(self.format, Some(time)))
    }

    /// Whether the line reached every destination there is. There is nobody to tell if it did not.
    fn write_out(&mut self, line: &str) -> bool {
        let stream = match self.stream {
            LogStream::None => Ok(()),
            LogStream::Stdout => io::stdout()
                .write_all(line.as_bytes())
                .and_then(|()| io::stdout().flush()),
            LogStream::Stderr => io::stderr().write_all(line.as_bytes()),
        };
        let file = self
            .file
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(line.as_bytes()));
        stream.is_ok() && file.is_ok()
    }
}

fn open(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.map_err(|error| format!("log file {} cannot be opened: {}", path.display(), reason(&error)))
}
