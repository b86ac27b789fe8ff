//! A writer whose sources are one test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use sol_journal::{
    Batch, Clock, Disk, Event, Mode, Opened, Options, Part, Sink, Store, Submission, Writer, WriterOptions,
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
