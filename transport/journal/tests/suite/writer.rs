//! The store on a thread: promises, order, full disks and failures as sources hear of them.

use std::sync::{Arc, mpsc};

use sol_journal::{
    Event, Load, Mode, Opened, Options, OsDisk, Sink, Store, Writer,
    model::{Fault, Gate, ModelDisk, SlowDisk},
};

use crate::support::writer::{Channel, Ticks, kept, kept_one, next, part, put, start, writer_options};
use crate::support::{SINGLE, options, state_of};

/// All that four threads submit is kept, each source's in order, in both modes, and read back from the file system.
#[test]
fn four_sources_are_answered_and_read_back() {
    for mode in [Mode::Os, Mode::Fsync] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (writer, events) = start(OsDisk::create(&path).unwrap(), &Options::default(), mode);
        std::thread::scope(|scope| {
            for source in 0..4 {
                let handle = writer.handle();
                scope.spawn(move || {
                    for ticket in 1..=2_000 {
                        handle.submit(put(source, ticket));
                    }
                });
            }
        });
        kept(&events, [2_000; 4]);
        let numbers = writer.handle().numbers();
        assert!(numbers.queued_bytes == 0 && (mode == Mode::Os || numbers.timed_syncs > 0));
        writer.stop().unwrap();
        let Opened { store, report } = Store::open(OsDisk::create(&path).unwrap(), &Options::default(), 0).unwrap();
        assert!(report.was_closed && store.sizes().live_records == 8_000, "{report:?}");
    }
}

/// A directory that is in use is refused with the other's process id; its files are the owner's alone.
#[test]
fn a_directory_in_use_is_refused() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let opened = Store::open(OsDisk::create(&path).unwrap(), &Options::default(), 0).unwrap();
    let error = Store::open(OsDisk::create(&path).unwrap(), &Options::default(), 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("it is in use by process {}", std::process::id())
    );
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    drop(opened);
    symlink(&path, directory.path().join("link")).unwrap();
    assert!(OsDisk::create(&directory.path().join("link")).is_err());
    symlink("/dev/null", path.join("0000000000000002.seg")).unwrap();
    let error = Store::open(OsDisk::create(&path).unwrap(), &Options::default(), 0).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot open 0000000000000002.seg"),
        "{error}"
    );
}

/// A transaction is kept with its last part; whoever has no part in it is not held up, and is never told that a ticket
/// before a waiting one covers it.
#[test]
fn a_transaction_waits_for_its_parts_alone() {
    let disk = ModelDisk::new(1);
    let (writer, events) = start(disk.clone(), &options(), Mode::Fsync);
    let handle = writer.handle();
    handle.submit(part(0, 1, 7, 1));
    handle.submit(put(0, 2));
    assert_eq!(next(&events), (0, Event::KeptAlone(2)));
    handle.submit(put(1, 1));
    assert_eq!(next(&events), (1, Event::Kept(1)));
    let restarted = Store::open(disk.cut(1), &options(), 0).unwrap().store;
    assert!(!state_of(&restarted).unwrap().contains_key(&1));
    handle.submit(part(1, 2, 7, 0));
    assert_eq!(next(&events), (0, Event::Kept(2)));
    assert_eq!(next(&events), (1, Event::Kept(2)));
    let restarted = Store::open(disk.cut(1), &options(), 0).unwrap().store;
    assert_eq!(state_of(&restarted).unwrap().len(), 4);
    writer.stop().unwrap();
}

/// While a sync is under way submitting goes on: it is answered that much waits, but nothing is refused, not even a batch
/// that is larger than all that may wait. What came meanwhile is one frame and one sync, and then everybody hears, once, that
/// little waits.
#[test]
fn nobody_waits_for_a_sync() {
    let gate = Arc::new(Gate::default());
    let disk = SlowDisk {
        disk: ModelDisk::new(1),
        gate: Arc::clone(&gate),
    };
    let (writer, events) = start(disk, &Options::default(), Mode::Fsync);
    let handle = writer.handle();
    gate.close();
    handle.submit(put(0, 1));
    gate.wait_until_stuck();
    let loads: Vec<Load> = (2..=6_000).map(|ticket| handle.submit(put(0, ticket))).collect();
    let normal = loads.iter().take_while(|load| **load == Load::Normal).count();
    let bytes = handle.numbers().queued_bytes as usize / 5_999;
    assert!(
        (normal * bytes).abs_diff(1 << 19) < 1 << 13,
        "{normal} of {bytes} bytes"
    );
    assert!(loads[normal..].iter().all(|load| *load == Load::High));
    let mut large = put(1, 1);
    large.batch.put(SINGLE, 1 << 40, &vec![0; 2 << 20]);
    assert_eq!(handle.submit(large), Load::High);
    gate.open();
    let (mut kept, mut told) = ([0; 2], [0; 4]);
    while kept != [6_000, 1] || told != [1; 4] {
        match next(&events) {
            (source, Event::Kept(ticket)) => kept[usize::from(source)] = ticket,
            (source, Event::Load(load)) => {
                assert_eq!(load, Load::Normal);
                told[usize::from(source)] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let numbers = handle.numbers();
    assert!(numbers.counts.frames <= 6, "one frame for all that waited: {numbers:?}");
    assert_eq!(numbers.queued_bytes, 0);
    assert_eq!(handle.submit(put(1, 2)), Load::Normal);
    assert_eq!(next(&events), (1, Event::Kept(2)));
    writer.stop().unwrap();
}

/// Batches that wait for parts of their transaction count as queued, are counted with their age, and let everybody hear
/// when they are gone.
#[test]
fn what_waits_for_its_transaction_is_load() {
    let (writer, events) = start(ModelDisk::new(1), &Options::default(), Mode::Fsync);
    let handle = writer.handle();
    let mut first = part(0, 1, 7, 1);
    first.batch.put(SINGLE, 1 << 40, &vec![0; 900 << 10]);
    assert_eq!(handle.submit(first), Load::High);
    handle.submit(part(0, 2, 8, 1));
    let mut ticket = 0;
    while handle.numbers().oldest_wait_millis < 20 {
        ticket += 1;
        assert_eq!(handle.submit(put(1, ticket)), Load::High);
        assert_eq!(next(&events), (1, Event::Kept(ticket)));
    }
    let numbers = handle.numbers();
    assert_eq!(numbers.waiting_transactions, 2);
    assert!(numbers.queued_bytes > 900 << 10);
    handle.submit(part(2, 1, 7, 0));
    let mut heard = Vec::new();
    while heard.len() < 6 {
        heard.push(next(&events));
    }
    let load = |source| (source, Event::Load(Load::Normal));
    assert_eq!(
        heard,
        [
            load(0),
            load(1),
            load(2),
            load(3),
            (0, Event::Kept(1)),
            (2, Event::Kept(1))
        ]
    );
    handle.submit(part(2, 2, 8, 0));
    assert_eq!(
        [next(&events), next(&events)],
        [(0, Event::Kept(2)), (2, Event::Kept(2))]
    );
    handle.submit(put(0, 3));
    kept_one(&events, 3);
    let numbers = handle.numbers();
    assert_eq!((numbers.waiting_transactions, numbers.oldest_wait_millis), (0, 0));
    writer.stop().unwrap();
}

/// A sink that panics at the first ticket that is kept.
struct Broken(Channel);

impl Sink for Broken {
    fn tell(&mut self, source: u16, event: Event) {
        assert!(!matches!(event, Event::Kept(_)), "a fault of the program");
        self.0.tell(source, event);
    }
}

/// Whichever thread of the journal dies of a fault of the program, everybody hears that no ticket will be answered any more,
/// and submitting goes on without a panic.
#[test]
fn the_death_of_a_thread_is_told() {
    for mode in [Mode::Fsync, Mode::Os] {
        let gate = Arc::new(Gate::default());
        let disk = SlowDisk {
            disk: ModelDisk::new(1),
            gate: Arc::clone(&gate),
        };
        let Opened { store, .. } = Store::open(disk, &Options::default(), 0).unwrap();
        let (sender, events) = mpsc::channel();
        let clock = Arc::new(Ticks::default());
        let writer = match mode {
            Mode::Fsync => Writer::start(
                store,
                writer_options(mode, &Options::default()),
                Broken(Channel(sender)),
                clock,
            ),
            Mode::Os => Writer::start(store, writer_options(mode, &Options::default()), Channel(sender), clock),
        };
        let (writer, mut ticket) = (writer.unwrap(), 0);
        let handle = writer.handle();
        let mut ends = Vec::new();
        while ends.len() < 4 {
            ticket += 1;
            handle.submit(put(0, ticket));
            if mode == Mode::Os && handle.numbers().sizes.segments == 3 {
                gate.break_at_the_next();
            }
            loop {
                match next(&events) {
                    (0, Event::Kept(_)) => break,
                    (source, Event::Failed(failure)) => {
                        assert!(
                            failure.to_string().contains("a thread of the journal has died"),
                            "{failure}"
                        );
                        ends.push(source);
                        if ends.len() == 4 {
                            break;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(ends, [0, 1, 2, 3]);
        handle.submit(put(0, ticket + 1));
        assert!(writer.stop().is_err());
        handle.submit(put(0, ticket + 2));
    }
}

/// A writer that is dropped keeps what was submitted before, and gives the directory back.
#[test]
fn a_writer_that_is_dropped_stops() {
    for mode in [Mode::Os, Mode::Fsync] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (writer, _events) = start(OsDisk::create(&path).unwrap(), &Options::default(), mode);
        let handle = writer.handle();
        handle.submit(put(0, 1));
        drop(writer);
        let Opened { store, report } = Store::open(OsDisk::create(&path).unwrap(), &Options::default(), 0).unwrap();
        assert!(report.was_closed && store.sizes().live_records == 1);
    }
}

/// In mode `os` answers come while a sync is under way.
#[test]
fn mode_os_answers_beside_the_sync() {
    let gate = Arc::new(Gate::default());
    let disk = SlowDisk {
        disk: ModelDisk::new(1),
        gate: Arc::clone(&gate),
    };
    let (writer, events) = start(disk, &Options::default(), Mode::Os);
    let handle = writer.handle();
    let mut ticket = 0;
    // Segments ahead are made, and synced, by the writer itself: a few at the start, one for every 16 MiB later.
    while handle.numbers().sizes.segments < 3 {
        ticket += 1;
        handle.submit(put(0, ticket));
        kept_one(&events, ticket);
    }
    gate.close();
    // The clock goes on by at least a millisecond a turn, so a sync becomes due within a second of these.
    while !gate.is_stuck() {
        ticket += 1;
        handle.submit(put(0, ticket));
        kept_one(&events, ticket);
    }
    for ticket in ticket + 1..ticket + 50 {
        handle.submit(put(0, ticket));
        kept_one(&events, ticket);
    }
    gate.open();
    writer.stop().unwrap();
}

/// After a failed sync nothing is answered any more, everybody hears why, once, and the writer ends with that sentence.
#[test]
fn a_failed_sync_ends_all_answers() {
    let disk = ModelDisk::new(1);
    let (writer, events) = start(disk.clone(), &options(), Mode::Fsync);
    let handle = writer.handle();
    let mut ticket = 1;
    handle.submit(put(0, ticket));
    kept_one(&events, ticket);
    while handle.numbers().sizes.segments < 3 {
        ticket += 1;
        handle.submit(put(0, ticket));
        kept_one(&events, ticket);
    }
    disk.fail_next_sync();
    handle.submit(put(0, ticket + 1));
    let mut failed = Vec::new();
    while failed.len() < 4 {
        match next(&events) {
            (source, Event::Failed(failure)) => failed.push((source, failure.to_string())),
            (_, Event::Pressure(_) | Event::Load(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(
        failed[0].1.starts_with("cannot sync 0000000000000001.seg: "),
        "{failed:?}"
    );
    handle.submit(put(0, ticket + 2));
    assert!(writer.stop().is_err());
    let rest: Vec<_> = events.iter().collect();
    assert_eq!(rest, []);
}

/// Wherever the disk fails for good, a source is told of a failure, and what was answered is there after a restart.
#[test]
fn a_disk_that_fails_at_any_call_loses_nothing_that_was_answered() {
    for call in 1..120 {
        let disk = ModelDisk::new(call);
        let Ok(Opened { store, .. }) = Store::open(disk.clone(), &options(), 0) else {
            panic!()
        };
        disk.plant(disk.calls() + call, Fault::PowerOff);
        let (sender, events) = mpsc::channel();
        let clock = Arc::new(Ticks::default());
        let writer = Writer::start(store, writer_options(Mode::Fsync, &options()), Channel(sender), clock).unwrap();
        let handle = writer.handle();
        let mut kept = 0;
        'life: for ticket in 1..1_000 {
            handle.submit(put(0, ticket));
            loop {
                match next(&events) {
                    (0, Event::Kept(ticket)) => {
                        kept = ticket;
                        break;
                    }
                    (_, Event::Failed(_)) => break 'life,
                    _ => {}
                }
            }
        }
        assert!(kept < 999);
        assert!(writer.stop().is_err());
        let store = Store::open(disk.cut(call), &options(), 0).unwrap().store;
        let state = state_of(&store).unwrap();
        assert!(
            (1..=kept).all(|id| state.contains_key(&id)),
            "call {call}: {kept} {}",
            state.len()
        );
    }
}
