//! Looking at a journal and saving it, while it is in use.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use sol_journal::{
    Batch, Disk, DiskFile, Event, LockError, Mode, OnDamage, OpenError, Opened, Options, Snapshot, Store, backup,
    model::{ModelDisk, ModelFile, Random},
};

use crate::support::writer::{next, put, start};
use crate::support::{BODY, CHILD, SINGLE, State, World, state_of};

fn records<D: Disk>(snapshot: &Snapshot<D>) -> State {
    let mut state = State::new();
    let collect = |record: sol_journal::RecordRef<'_>| {
        state.insert(record.id, (record.kind.number(), record.parent, record.bytes.to_vec()));
    };
    snapshot.for_each(|key| key.id, collect).unwrap();
    state
}

/// A journal in use is read, counted and handed out without being changed.
#[test]
fn a_journal_in_use_is_looked_at() {
    let mut world = World::new(50);
    world.open().unwrap();
    for _ in 0..200 {
        world.step().unwrap();
    }
    let store = world.store.as_mut().unwrap();
    store.commit(0).unwrap();
    let before: Vec<_> = (1..40).map(|n| world.disk.read(&format!("{n:016x}.seg"))).collect();
    let snapshot = Snapshot::read(world.disk.clone(), OnDamage::Refuse).unwrap();
    let state = world.states.last().unwrap();
    assert_eq!(records(&snapshot), *state);
    let stats = snapshot.stats();
    for kind in [BODY, CHILD, SINGLE] {
        let of_kind = || state.values().filter(|record| record.0 == kind.number());
        let told = stats.kinds.iter().find(|told| told.kind == kind).unwrap();
        assert_eq!(told.records, of_kind().count() as u64);
        assert_eq!(told.bytes, of_kind().map(|record| record.2.len() as u64).sum::<u64>());
    }
    assert_eq!(stats.live_bytes, world.store.as_ref().unwrap().sizes().live_bytes);
    let after: Vec<_> = (1..40).map(|n| world.disk.read(&format!("{n:016x}.seg"))).collect();
    assert_eq!(before, after);
}

/// A copy of a journal in use is one: it has what was durable, opens, and goes on.
#[test]
fn a_backup_is_a_journal() {
    for seed in 0..20 {
        let mut world = World::new(60 + seed);
        world.open().unwrap();
        for _ in 0..150 {
            world.step().unwrap();
        }
        let copy = ModelDisk::new(seed);
        let snapshot = backup(&world.disk, copy.clone()).unwrap();
        assert_eq!(records(&snapshot), world.states[world.committed]);
        let Opened { store, report } = Store::open(copy.cut(1), &world.options, 0).unwrap();
        assert_eq!(state_of(&store).unwrap(), world.states[world.committed]);
        assert_eq!(report.tail, None);
        let error = backup(&world.disk, copy).unwrap_err();
        assert!(error.to_string().starts_with("cannot make 00000000"), "{error}");
    }
}

/// Ends a thread, whatever becomes of the test.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Beside a writer that goes on from segment to segment, and removes old ones, each copy and each look is one state of the
/// journal: an unbroken run of what was put, of which no more than the latest is missing.
#[test]
fn a_backup_beside_a_running_writer_is_a_state_of_it() {
    const ALIVE: u64 = 40;
    let options = Options {
        segment_bytes: 2048,
        ..Options::default()
    };
    let disk = ModelDisk::new(5);
    let (writer, events) = start(disk.clone(), &options, Mode::Fsync);
    let handle = writer.handle();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (_end, is_done) = (End(&is_done), &is_done);
        scope.spawn(move || {
            let mut ticket = 0;
            while !is_done.load(Ordering::Relaxed) {
                ticket += 1;
                let mut submission = put(0, ticket);
                if ticket > ALIVE {
                    submission.batch.delete(ticket - ALIVE);
                }
                handle.submit(submission);
                while next(&events) != (0, Event::Kept(ticket)) {}
            }
        });
        let (mut first, mut last_seen) = (0, 0);
        let mut check = |state: State| {
            let ids: Vec<u64> = state.into_keys().collect();
            let last = ids.last().copied().unwrap_or_default();
            let run: Vec<u64> = (last.saturating_sub(ALIVE) + 1..=last).collect();
            assert_eq!(ids, run);
            assert!(last >= last_seen);
            first = if first == 0 { last } else { first };
            last_seen = last;
        };
        let mut n = 0;
        // As long as it takes the writer to go through many segments.
        while n < 150 || writer.handle().numbers().counts.removed_segments <= 5 {
            n += 1;
            let copy = ModelDisk::new(n);
            let snapshot = backup(&disk, copy.clone()).unwrap();
            check(records(&snapshot));
            check(state_of(&Store::open(copy.cut(n), &options, 0).unwrap().store).unwrap());
            let snapshot = Snapshot::read(disk.clone(), OnDamage::Refuse).unwrap();
            // What is handed out is what was read, though the writer goes on.
            std::thread::yield_now();
            check(records(&snapshot));
        }
        assert!(last_seen > first, "{first} {last_seen}");
    });
    writer.stop().unwrap();
}

/// Before each call that a reader makes, the writer goes on: the worst of all orders.
#[derive(Clone)]
struct Beside {
    disk: ModelDisk,
    write: Arc<Mutex<dyn FnMut() + Send>>,
}

#[derive(Clone, Debug)]
struct FileBeside(ModelFile, Beside);

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Beside {
    fn disk(&self) -> &ModelDisk {
        (self.write.lock().unwrap())();
        &self.disk
    }
}

impl Disk for Beside {
    type File = FileBeside;

    fn lock(&self) -> Result<(), LockError> {
        self.disk().lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk().list()
    }
    fn create(&self, name: &str) -> io::Result<FileBeside> {
        Ok(FileBeside(self.disk().create(name)?, self.clone()))
    }
    fn open(&self, name: &str) -> io::Result<FileBeside> {
        Ok(FileBeside(self.disk().open(name)?, self.clone()))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk().rename(from, to)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk().unlink(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk().sync_dir()
    }
}

impl FileBeside {
    fn file(&self) -> &ModelFile {
        self.1.disk();
        &self.0
    }
}

impl DiskFile for FileBeside {
    fn size(&self) -> io::Result<u64> {
        self.file().size()
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file().read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file().write_at(bytes, offset)
    }
    fn reserve(&self, length: u64) -> io::Result<()> {
        self.file().reserve(length)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file().truncate(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file().sync_data()
    }
}

/// The same where the writer does something between any two calls of the reader, now and then a whole segment.
#[test]
fn a_backup_is_a_state_whatever_is_written_between_its_calls() {
    let mut states = 0;
    for seed in 0..200 {
        let options = Options {
            segment_bytes: 2048,
            ..Options::default()
        };
        let disk = ModelDisk::new(seed);
        let Opened { mut store, .. } = Store::open(disk.clone(), &options, 0).unwrap();
        let (mut random, mut n, mut batch) = (Random::new(seed), 0, Batch::default());
        let mut write = move |most: u64| {
            for _ in 0..random.below(most) {
                n += 1;
                batch.clear();
                batch.put(SINGLE, n, &[1; 100]);
                if n > 40 {
                    batch.delete(n - 40);
                }
                store.add(&batch);
                store.commit(0).unwrap();
                store.sync().unwrap();
                store.tend(0, false).unwrap();
            }
        };
        write(400);
        let write = Arc::new(Mutex::new(move || write(if seed % 2 == 0 { 12 } else { 4 })));
        let beside = Beside { disk, write };
        for n in 0..4 {
            let copy = ModelDisk::new(n);
            let looked_at = match n % 2 {
                0 => backup(&beside, copy).map(|snapshot| records(&snapshot)),
                _ => Snapshot::read(beside.clone(), OnDamage::Refuse).map(|snapshot| records(&snapshot)),
            };
            match looked_at {
                Ok(state) => {
                    states += 1;
                    let ids: Vec<u64> = state.into_keys().collect();
                    let last = ids.last().copied().unwrap_or_default();
                    assert_eq!(
                        ids,
                        (last.saturating_sub(40) + 1..=last).collect::<Vec<_>>(),
                        "seed {seed}"
                    );
                }
                // It may be overtaken again and again: then it says so.
                Err(error) => assert!(
                    matches!(&error, OpenError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound),
                    "seed {seed}: {error}"
                ),
            }
        }
    }
    assert!(states > 300, "{states}");
}

/// A backup that fails leaves nothing in the way of the next one.
#[test]
fn a_backup_that_fails_can_be_made_again() {
    let mut world = World::new(61);
    world.open().unwrap();
    for _ in 0..150 {
        world.step().unwrap();
    }
    let copy = ModelDisk::new(1);
    copy.set_capacity(9_000);
    assert!(backup(&world.disk, copy.clone()).is_err());
    copy.set_capacity(u64::MAX);
    let snapshot = backup(&world.disk, copy).unwrap();
    assert_eq!(records(&snapshot), world.states[world.committed]);
}
