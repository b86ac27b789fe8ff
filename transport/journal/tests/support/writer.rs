//! A writer whose sources are one test, and a disk that is slow.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use sol_journal::{
    Batch, Clock, Disk, DiskFile, Event, LockError, Mode, Opened, Options, Part, Sink, Store, Submission, Writer,
    WriterOptions,
    model::{ModelDisk, ModelFile},
};

use super::SINGLE;

/// Time goes on by a millisecond whenever it is asked for.
#[derive(Default)]
pub(crate) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn unix_millis(&self) -> u64 {
        self.nanos() / 1_000_000
    }

    fn nanos(&self) -> u64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

pub(crate) struct Channel(pub(crate) mpsc::Sender<(u16, Event)>);

impl Sink for Channel {
    fn tell(&mut self, source: u16, event: Event) {
        let _ = self.0.send((source, event));
    }
}

pub(crate) fn start<D: Disk>(disk: D, options: &Options, mode: Mode) -> (Writer, mpsc::Receiver<(u16, Event)>) {
    let Opened { store, .. } = Store::open(disk, options, 0).unwrap();
    let (sender, receiver) = mpsc::channel();
    let clock = Arc::new(Ticks::default());
    let writer = Writer::start(store, writer_options(mode, options), Channel(sender), clock).unwrap();
    (writer, receiver)
}

/// As much may wait as the reserve takes, and no more than a MiB.
pub(crate) fn writer_options(mode: Mode, options: &Options) -> WriterOptions {
    WriterOptions {
        mode,
        sources: 4,
        queue_bytes_max: (options.segment_bytes as usize).min(1 << 20),
    }
}

pub(crate) fn put(source: u16, ticket: u64) -> Submission {
    let mut batch = Batch::default();
    batch.put(SINGLE, u64::from(source) << 48 | ticket, &[source as u8; 40]);
    Submission {
        source,
        ticket,
        part: None,
        batch,
    }
}

/// A source's only part of a transaction.
pub(crate) fn part(source: u16, ticket: u64, transaction: u64, forwards: u32) -> Submission {
    let part = Part {
        transaction,
        forwards,
        is_last: true,
        after: None,
    };
    Submission {
        part: Some(part),
        ..put(source, ticket)
    }
}

pub(crate) fn delete(source: u16, ticket: u64, ids: impl IntoIterator<Item = u64>) -> Submission {
    let mut batch = Batch::default();
    ids.into_iter().for_each(|id| batch.delete(id));
    Submission {
        batch,
        ..put(source, ticket)
    }
}

/// The next event.
pub(crate) fn next(events: &mpsc::Receiver<(u16, Event)>) -> (u16, Event) {
    events.recv_timeout(Duration::from_secs(30)).unwrap()
}

/// Waits until all tickets up to these are kept, one for each source.
pub(crate) fn kept(events: &mpsc::Receiver<(u16, Event)>, wanted: [u64; 4]) {
    let mut kept = [0; 4];
    while kept != wanted {
        match next(events) {
            (source, Event::Kept(ticket)) => {
                assert!(ticket > kept[usize::from(source)], "tickets are answered in order");
                kept[usize::from(source)] = ticket;
            }
            (_, Event::Pressure(_) | Event::Load(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn kept_one(events: &mpsc::Receiver<(u16, Event)>, ticket: u64) {
    assert_eq!(next(events), (0, Event::Kept(ticket)));
}

/// Holds up every sync while it is closed.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
    is_broken: AtomicBool,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.state.lock().unwrap().0 = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.state.lock().unwrap().1
    }

    pub(crate) fn wait_until_stuck(&self) {
        drop(
            self.changed
                .wait_while(self.state.lock().unwrap(), |state| !state.1)
                .unwrap(),
        );
    }

    /// The next sync is a panic.
    pub(crate) fn break_at_the_next(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    fn pass(&self) {
        assert!(!self.is_broken.load(Ordering::Relaxed), "a fault of the program");
        let mut state = self.state.lock().unwrap();
        state.1 = state.0;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.0).unwrap());
        self.state.lock().unwrap().1 = false;
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SlowDisk {
    pub(crate) disk: ModelDisk,
    pub(crate) gate: Arc<Gate>,
}

#[derive(Clone, Debug)]
pub(crate) struct SlowFile {
    file: ModelFile,
    gate: Arc<Gate>,
}

impl Disk for SlowDisk {
    type File = SlowFile;

    fn lock(&self) -> Result<(), LockError> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<SlowFile> {
        Ok(SlowFile {
            file: self.disk.create(name)?,
            gate: Arc::clone(&self.gate),
        })
    }
    fn open(&self, name: &str) -> io::Result<SlowFile> {
        Ok(SlowFile {
            file: self.disk.open(name)?,
            gate: Arc::clone(&self.gate),
        })
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk.unlink(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn reserve(&self, length: u64) -> io::Result<()> {
        self.file.reserve(length)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
}
