//! What a record costs: CPU and bytes, by batch, through a store and through the writer's thread.
//!
//! `cargo run --release -p sol-journal --example speed [DIRECTORY]`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints figures, or ends"
)]

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sol_journal::{
    Batch, Clock, Event, Kind, Mode, Opened, Options, OsDisk, Sink, Store, Submission, Writer, WriterOptions,
    model::Random,
};

const BODY: Kind = Kind::new(1);
const CHILD: Kind = Kind::new(2);

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn unix_millis(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }

    fn nanos(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// CPU of this process, all threads.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// One message into one queue: its body, a reference, and the acknowledgement of an older one. Three records.
fn message(batch: &mut Batch, n: u64, payload: &[u8]) {
    batch.body(BODY, 2 * n, payload);
    batch.child(CHILD, 2 * n + 1, 2 * n, &[7; 14]);
    if n > 1_000 {
        batch.delete(2 * (n - 1_000) + 1);
    }
}

fn open(path: &Path) -> Store<OsDisk> {
    let Opened { store, report } = Store::open(OsDisk::create(path).unwrap(), &Options::default(), 0).unwrap();
    assert_eq!(report.holes, []);
    store
}

fn through_a_store(path: &Path, per_batch: u64, messages: u64) {
    let mut store = open(path);
    let (mut batch, payload) = (Batch::default(), [0x5a; 128]);
    let (start, before) = (Instant::now(), cpu());
    let mut n = 0;
    while n < messages {
        for _ in 0..per_batch {
            n += 1;
            message(&mut batch, n, &payload);
        }
        store.add(&batch);
        batch.clear();
        store.commit(0).unwrap();
        store.tend(0, false).unwrap();
    }
    let (spent, wall, counts) = (cpu() - before, start.elapsed(), store.counts());
    assert_eq!(store.sizes().live_records, 2_000);
    println!(
        "store, {per_batch:4} messages a frame: {:.3} µs CPU a record, {:.0} MB/s, {:.1} bytes a record, {} removed",
        spent.as_secs_f64() * 1e6 / counts.records as f64,
        counts.bytes as f64 / 1e6 / wall.as_secs_f64(),
        counts.bytes as f64 / counts.records as f64,
        counts.removed_segments,
    );
    store.close(0).unwrap();
}

struct Channel(mpsc::Sender<Event>);

impl Sink for Channel {
    fn tell(&mut self, _source: u16, event: Event) {
        let _ = self.0.send(event);
    }
}

fn through_a_writer(path: &Path, mode: Mode, outstanding: u64, messages: u64) {
    let (sender, events) = mpsc::channel();
    let options = WriterOptions {
        mode,
        sources: 1,
        queue_bytes_max: 16 << 20,
    };
    let clock = Arc::new(SystemClock(Instant::now()));
    let writer = Writer::start(open(path), options, Channel(sender), clock).unwrap();
    let handle = writer.handle();
    let (start, before) = (Instant::now(), cpu());
    let (mut ticket, mut kept) = (0, 0);
    while kept < messages {
        while ticket < messages && ticket - kept < outstanding {
            ticket += 1;
            let mut batch = handle.batch(0);
            message(&mut batch, ticket, &[0x5a; 128]);
            handle.submit(Submission {
                source: 0,
                ticket,
                part: None,
                batch,
            });
        }
        match events.recv().unwrap() {
            Event::Kept(upto) => kept = upto,
            other => assert!(matches!(other, Event::Pressure(_) | Event::Load(_)), "{other:?}"),
        }
    }
    let (spent, wall) = (cpu() - before, start.elapsed());
    writer.stop().unwrap();
    let numbers = handle.numbers();
    println!(
        "writer, {mode:?}, {outstanding:4} outstanding: {:.0} messages/s, {:.3} µs CPU a record, {:.1} messages a frame, sync {:.0} µs",
        messages as f64 / wall.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / numbers.counts.records as f64,
        messages as f64 / numbers.counts.frames as f64,
        numbers.sync_nanos as f64 / 1e3 / numbers.timed_syncs.max(1) as f64,
    );
}

/// A million retained messages and a hundred thousand single records, read at a start.
fn restore(path: &Path) {
    let mut store = open(path);
    let mut batch = Batch::default();
    for n in 0..1_000_000 {
        batch.body(BODY, 2 * n + 2, &[1; 100]);
        batch.child(CHILD, 2 * n + 3, 2 * n + 2, &[]);
        if n < 100_000 {
            batch.put(Kind::new(3), 1 << 40 | n, &[2; 60]);
        }
        if n % 100 == 99 {
            store.add(&batch);
            batch.clear();
            store.commit(0).unwrap();
            store.tend(0, false).unwrap();
        }
    }
    store.close(0).unwrap();
    let start = Instant::now();
    let store = open(path);
    let read = start.elapsed();
    let mut bytes = 0;
    store
        .for_each(|key| key.id, |record| bytes += record.bytes.len())
        .unwrap();
    assert_eq!(bytes, 106_000_000);
    let sizes = store.sizes();
    println!(
        "restore of {} records: {read:.2?} to read, {:.2?} with all handed out; {:.1} bytes of index a record",
        sizes.live_records,
        start.elapsed(),
        sizes.index_bytes as f64 / sizes.live_records as f64,
    );
}

/// Half a million records, each put three times in a random order: neighbours lie in different segments.
fn restore_after_churn(path: &Path) {
    let mut store = open(path);
    let (mut batch, mut random) = (Batch::default(), Random::new(1));
    for n in 0..1_500_000 {
        batch.put(
            Kind::new(3),
            1 + if n < 500_000 { n } else { random.below(500_000) },
            &[1; 200],
        );
        if n % 100 == 99 {
            store.add(&batch);
            batch.clear();
            store.commit(0).unwrap();
            store.tend(0, false).unwrap();
        }
    }
    let moved = store.counts().moved_bytes;
    store.close(0).unwrap();
    let start = Instant::now();
    let store = open(path);
    let (read, mut bytes) = (start.elapsed(), 0);
    store
        .for_each(|key| key.id, |record| bytes += record.bytes.len())
        .unwrap();
    assert_eq!(bytes, 100_000_000);
    println!(
        "restore of 500000 records after churn ({} MB moved): {read:.2?} to read, {:.2?} with all handed out",
        moved / 1_000_000,
        start.elapsed(),
    );
}

fn main() {
    let scratch = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let path = scratch.join(format!("sol-journal-speed-{}", std::process::id()));
    let fresh = || drop(std::fs::remove_dir_all(&path));
    for per_batch in [1, 16, 256] {
        fresh();
        through_a_store(&path, per_batch, 400_000);
    }
    for (mode, outstanding, messages) in [
        (Mode::Os, 64, 200_000),
        (Mode::Os, 1024, 400_000),
        (Mode::Fsync, 64, 20_000),
        (Mode::Fsync, 1024, 100_000),
    ] {
        fresh();
        through_a_writer(&path, mode, outstanding, messages);
    }
    fresh();
    restore(&path);
    fresh();
    restore_after_churn(&path);
    fresh();
}
