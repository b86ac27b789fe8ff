//! The store on a thread: promises, order, full disks and failures as sources hear of them.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use sol_journal::{
    Batch, Clock, Disk, DiskFile, Event, Handle, Load, LockError, Mode, Opened, Options, OsDisk, Part, Pressure, Sink,
    Store, Submission, Writer, WriterOptions,
    model::{Fault, ModelDisk, ModelFile},
};

use crate::support::{SINGLE, options, state_of};

/// Time goes on by a millisecond whenever it is asked for.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn unix_millis(&self) -> u64 {
        self.nanos() / 1_000_000
    }

    fn nanos(&self) -> u64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

struct Channel(mpsc::Sender<(u16, Event)>);

impl Sink for Channel {
    fn tell(&mut self, source: u16, event: Event) {
        let _ = self.0.send((source, event));
    }
}

fn start<D: Disk>(disk: D, options: &Options, mode: Mode) -> (Writer, mpsc::Receiver<(u16, Event)>) {
    let Opened { store, .. } = Store::open(disk, options, 0).unwrap();
    let (sender, receiver) = mpsc::channel();
    let options = WriterOptions {
        mode,
        sources: 4,
        queue_bytes_max: 1 << 20,
    };
    let writer = Writer::start(store, options, Channel(sender), Arc::new(Ticks::default())).unwrap();
    (writer, receiver)
}

fn put(source: u16, ticket: u64) -> Submission {
    let mut batch = Batch::default();
    batch.put(SINGLE, u64::from(source) << 48 | ticket, &[source as u8; 40]);
    Submission {
        source,
        ticket,
        part: None,
        batch,
    }
}

fn part(source: u16, ticket: u64, transaction: u64, of: u16) -> Submission {
    let part = Part {
        transaction,
        of,
        is_first: source == 0,
    };
    Submission {
        part: Some(part),
        ..put(source, ticket)
    }
}

/// The next event that is not about a buffer.
fn next(events: &mpsc::Receiver<(u16, Event)>) -> (u16, Event) {
    loop {
        match events.recv_timeout(Duration::from_secs(30)).unwrap() {
            (_, Event::Spent(batch)) => assert!(batch.is_empty()),
            event => return event,
        }
    }
}

/// Waits until all tickets up to these are kept, one for each source.
fn kept(events: &mpsc::Receiver<(u16, Event)>, wanted: [u64; 4]) {
    let mut kept = [0; 4];
    while kept != wanted {
        match next(events) {
            (source, Event::Kept(ticket)) => {
                assert!(ticket > kept[usize::from(source)], "tickets are answered in order");
                kept[usize::from(source)] = ticket;
            }
            (_, Event::Pressure(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Submits again where too much waits.
fn submit(handle: &Handle, mut submission: Submission) {
    while let Err(refused) = handle.submit(submission) {
        submission = refused.0;
        std::thread::yield_now();
    }
}

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
                scope.spawn(move || (1..=2_000).for_each(|ticket| submit(&handle, put(source, ticket))));
            }
        });
        kept(&events, [2_000; 4]);
        let numbers = writer.handle().numbers();
        assert!(numbers.queued_bytes == 0 && numbers.timed_syncs + 1 >= u64::from(mode == Mode::Fsync));
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
    handle.submit(part(0, 1, 7, 2)).unwrap();
    handle.submit(put(0, 2)).unwrap();
    assert_eq!(next(&events), (0, Event::KeptAlone(2)));
    handle.submit(put(1, 1)).unwrap();
    assert_eq!(next(&events), (1, Event::Kept(1)));
    let restarted = Store::open(disk.cut(1), &options(), 0).unwrap().store;
    assert!(!state_of(&restarted).unwrap().contains_key(&1));
    handle.submit(part(1, 2, 7, 2)).unwrap();
    assert_eq!(next(&events), (0, Event::Kept(2)));
    assert_eq!(next(&events), (1, Event::Kept(2)));
    let restarted = Store::open(disk.cut(1), &options(), 0).unwrap().store;
    assert_eq!(state_of(&restarted).unwrap().len(), 4);
    writer.stop().unwrap();
}

/// While a sync is under way submitting goes on, up to what may wait; beyond that only a part that others wait for is taken.
/// What came meanwhile is one frame and one sync.
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
    handle.submit(put(0, 1)).unwrap();
    gate.wait_until_stuck();
    let (mut ticket, mut high) = (2, 0);
    while let Ok(load) = handle.submit(put(0, ticket)) {
        high += u64::from(load == Load::High);
        ticket += 1;
    }
    assert!(ticket > 2_000 && high > 1_000, "{ticket} {high}");
    handle.submit(part(1, 1, 1, 1)).unwrap();
    gate.open();
    kept(&events, [ticket - 1, 1, 0, 0]);
    let numbers = handle.numbers();
    assert!(numbers.counts.frames <= 5, "one frame for all that waited: {numbers:?}");
    assert_eq!(handle.numbers().queued_bytes, 0);
    writer.stop().unwrap();
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
        handle.submit(put(0, ticket)).unwrap();
        kept_one(&events, ticket);
    }
    gate.close();
    // The clock goes on by at least a millisecond a turn, so a sync becomes due within a second of these.
    while !gate.is_stuck() {
        ticket += 1;
        handle.submit(put(0, ticket)).unwrap();
        kept_one(&events, ticket);
    }
    for ticket in ticket + 1..ticket + 50 {
        handle.submit(put(0, ticket)).unwrap();
        kept_one(&events, ticket);
    }
    gate.open();
    writer.stop().unwrap();
}

fn kept_one(events: &mpsc::Receiver<(u16, Event)>, ticket: u64) {
    assert_eq!(next(events), (0, Event::Kept(ticket)));
}

/// A full disk is told; deletions go on; nothing is lost that was answered, and when there is room again that is told too,
/// and what waited is kept.
#[test]
fn a_full_disk_is_told_and_recovers_by_itself() {
    let disk = ModelDisk::new(1);
    disk.set_capacity(12 * 4096);
    let (writer, events) = start(disk.clone(), &options(), Mode::Fsync);
    let handle = writer.handle();
    let mut ticket = 0;
    // Fill it, with nothing that could be thrown away, until it says so.
    loop {
        ticket += 1;
        handle.submit(put(0, ticket)).unwrap();
        match next(&events) {
            (0, Event::Kept(kept)) => assert_eq!(kept, ticket),
            (_, Event::Pressure(Pressure::DiskFull)) => break,
            other => panic!("{other:?}"),
        }
    }
    let full_at = ticket;
    // The reserve takes what is on the way, and deletions free space.
    for id in 1..=full_at - 5 {
        ticket += 1;
        let mut batch = Batch::default();
        batch.delete(id);
        handle
            .submit(Submission {
                source: 0,
                ticket,
                part: None,
                batch,
            })
            .unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let (mut is_full, mut kept) = (true, 0);
    while is_full || kept < ticket {
        assert!(
            Instant::now() < deadline,
            "{kept} of {ticket}, full {is_full}, {:?}",
            handle.numbers()
        );
        match next(&events) {
            (0, Event::Kept(ticket)) => kept = ticket,
            (0, Event::Pressure(pressure)) => is_full = pressure != Pressure::Normal,
            (_, Event::Pressure(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    writer.stop().unwrap();
    assert_eq!(Store::open(disk, &options(), 0).unwrap().store.sizes().live_records, 5);
}

/// Beyond even the reserve, what cannot be written waits unanswered, and is kept once there is room again.
#[test]
fn what_does_not_fit_waits_until_there_is_room() {
    let disk = ModelDisk::new(1);
    disk.set_capacity(12 * 4096);
    let (writer, events) = start(disk.clone(), &options(), Mode::Fsync);
    let handle = writer.handle();
    for ticket in 1..=3_000 {
        submit(&handle, put(0, ticket));
    }
    while next(&events) != (3, Event::Pressure(Pressure::DiskFull)) {}
    assert!(handle.numbers().counts.records < 3_000);
    disk.set_capacity(u64::MAX);
    while next(&events) != (0, Event::Kept(3_000)) {}
    while next(&events) != (3, Event::Pressure(Pressure::Normal)) {}
    writer.stop().unwrap();
    assert_eq!(
        Store::open(disk, &options(), 0).unwrap().store.sizes().live_records,
        3_000
    );
}

/// `max_bytes` says that it is full before the disk does, and not any more when enough was deleted.
#[test]
fn max_bytes_is_told_as_a_full_disk_is() {
    let options = Options {
        max_bytes: 10 * 4096,
        ..options()
    };
    let Opened { mut store, .. } = Store::open(ModelDisk::new(1), &options, 0).unwrap();
    let mut put = 0;
    let mut batch = Batch::default();
    while store.pressure() == Pressure::Normal {
        put += 1;
        batch.put(SINGLE, put, &[0; 100]);
        store.add(&batch);
        batch.clear();
        store.commit(0).unwrap();
        store.sync().unwrap();
        store.tend(0, false).unwrap();
    }
    assert_eq!(store.pressure(), Pressure::MaxBytes);
    for id in 1..=put {
        batch.delete(id);
    }
    store.add(&batch);
    store.commit(0).unwrap();
    for _ in 0..100 {
        store.sync().unwrap();
        store.tend(0, true).unwrap();
    }
    assert_eq!(store.pressure(), Pressure::Normal);
}

/// After a failed sync nothing is answered any more, everybody hears why, once, and the writer ends with that sentence.
#[test]
fn a_failed_sync_ends_all_answers() {
    let disk = ModelDisk::new(1);
    let (writer, events) = start(disk.clone(), &options(), Mode::Fsync);
    let handle = writer.handle();
    let mut ticket = 1;
    handle.submit(put(0, ticket)).unwrap();
    kept_one(&events, ticket);
    while handle.numbers().sizes.segments < 3 {
        ticket += 1;
        handle.submit(put(0, ticket)).unwrap();
        kept_one(&events, ticket);
    }
    disk.fail_next_sync();
    handle.submit(put(0, ticket + 1)).unwrap();
    let mut failed = Vec::new();
    while failed.len() < 4 {
        match next(&events) {
            (source, Event::Failed(failure)) => failed.push((source, failure.to_string())),
            (_, Event::Pressure(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(
        failed[0].1.starts_with("cannot sync 0000000000000001.seg: "),
        "{failed:?}"
    );
    handle.submit(put(0, ticket + 2)).unwrap();
    assert!(writer.stop().is_err());
    let rest: Vec<_> = events.iter().collect();
    assert!(
        rest.iter().all(|(_, event)| matches!(event, Event::Spent(_))),
        "{rest:?}"
    );
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
        let writer_options = WriterOptions {
            mode: Mode::Fsync,
            sources: 4,
            queue_bytes_max: 1 << 20,
        };
        let writer = Writer::start(store, writer_options, Channel(sender), Arc::new(Ticks::default())).unwrap();
        let handle = writer.handle();
        let mut kept = 0;
        'life: for ticket in 1..1_000 {
            handle.submit(put(0, ticket)).unwrap();
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

/// Holds up every sync while it is closed.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn close(&self) {
        self.state.lock().unwrap().0 = true;
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    fn is_stuck(&self) -> bool {
        self.state.lock().unwrap().1
    }

    fn wait_until_stuck(&self) {
        drop(
            self.changed
                .wait_while(self.state.lock().unwrap(), |state| !state.1)
                .unwrap(),
        );
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 = state.0;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.0).unwrap());
        self.state.lock().unwrap().1 = false;
    }
}

#[derive(Clone, Debug)]
struct SlowDisk {
    disk: ModelDisk,
    gate: Arc<Gate>,
}

#[derive(Clone, Debug)]
struct SlowFile {
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
    fn free_space(&self) -> io::Result<u64> {
        self.disk.free_space()
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
