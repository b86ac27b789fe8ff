//! What a journal does when nothing goes wrong.

use sol_journal::{Batch, Opened, Options, Store, model::ModelDisk};

use crate::support::{BODY, CHILD, SINGLE, World, options, state_of};

/// A journal that was closed in order says the same when it is opened again, and that it was closed.
#[test]
fn what_was_closed_is_opened_as_it_was() {
    let mut world = World::new(1);
    world.open().unwrap();
    for life in 0..20 {
        for _ in 0..100 {
            world.step().unwrap();
        }
        world.store.take().unwrap().close(7).unwrap();
        world.acknowledged = world.states.len() - 1;
        let report = world.open().unwrap();
        assert!(
            report.was_closed && report.tail.is_none() && report.written_at == 7,
            "{life}: {report:?}"
        );
    }
}

/// Records are handed out by kind, and within a kind in the order that the owner asks for.
#[test]
fn records_are_handed_out_in_the_owners_order() {
    let Opened { mut store, .. } = Store::open(ModelDisk::new(1), &options(), 0).unwrap();
    let mut batch = Batch::default();
    batch.put(SINGLE, 9, b"");
    batch.body(BODY, 5, b"");
    for id in [30, 10, 20] {
        batch.child(CHILD, id, 5, b"");
    }
    store.add(&batch);
    store.commit(0).unwrap();
    let mut seen = Vec::new();
    store
        .for_each(|key| u64::MAX - key.id, |record| seen.push(record.id))
        .unwrap();
    assert_eq!(seen, [5, 30, 20, 10, 9]);
}

/// Disk use stays within its bound under endless churn, whatever lives long, and old segments go.
#[test]
fn churn_does_not_grow_the_disk() {
    for live in [0, 10, 400, 1500] {
        let disk = ModelDisk::new(1);
        let Opened { mut store, .. } = Store::open(disk.clone(), &options(), 0).unwrap();
        let mut batch = Batch::default();
        for id in 1..=live {
            batch.put(SINGLE, id, &[1; 30]);
            store.add(&batch);
            store.commit(0).unwrap();
            batch.clear();
        }
        let segment = u64::from(options().segment_bytes);
        for n in 0..6_000_u64 {
            batch.clear();
            batch.body(BODY, 10_000 + n, &[2; 100]);
            batch.child(CHILD, 1_000_000 + n, 10_000 + n, &[3; 14]);
            if n >= 20 {
                batch.delete(1_000_000 + n - 20);
            }
            if live > 0 {
                batch.put(SINGLE, 1 + n % live, &[4; 30]);
            }
            store.add(&batch);
            store.commit(0).unwrap();
            store.sync().unwrap();
            store.tend(0, false).unwrap();
            let sizes = store.sizes();
            let bound = (8 * segment).max(2 * sizes.live_bytes + 4 * segment);
            assert!(
                sizes.disk_bytes <= bound && disk.used() <= bound,
                "{live} {n} {sizes:?} {}",
                disk.used()
            );
        }
        assert_eq!(store.sizes().live_records, live + 40);
        assert!(store.counts().removed_segments > 50);
        let before = state_of(&store).unwrap();
        drop(store);
        let Opened { store, .. } = Store::open(disk, &options(), 0).unwrap();
        assert_eq!(state_of(&store).unwrap(), before);
    }
}

/// A store that is opened again and again, without a record, does not grow.
#[test]
fn restarts_alone_do_not_fill_the_disk() {
    let disk = ModelDisk::new(1);
    for _ in 0..2_000 {
        let Opened { mut store, .. } = Store::open(disk.clone(), &options(), 0).unwrap();
        store.tend(0, true).unwrap();
    }
    assert!(disk.used() <= 8 * 4096, "{}", disk.used());
}

/// One body for ten thousand records costs at most 20 bytes of log for each of them.
#[test]
fn a_fan_out_costs_20_bytes_a_record() {
    let Opened { mut store, .. } = Store::open(ModelDisk::new(1), &Options::default(), 0).unwrap();
    let mut batch = Batch::default();
    batch.body(BODY, 1 << 48, &[1; 1000]);
    for n in 1..=10_000 {
        batch.child(CHILD, 1 << 48 | n, 1 << 48, &[2; 16]);
    }
    let before = store.counts();
    store.add(&batch);
    store.commit(0).unwrap();
    let bytes = store.counts().bytes - before.bytes - 1000;
    assert!(bytes <= 20 * 10_000 + 100, "{bytes}");
    assert!(store.sizes().index_bytes <= 64 * 10_000, "{:?}", store.sizes());
}

/// After churn neighbours in order lie in many segments: a restore reads little more than a page for each record, and all of
/// them.
#[test]
fn a_restore_after_churn_reads_a_page_a_record() {
    let disk = ModelDisk::new(1);
    let options = Options {
        segment_bytes: 256 << 10,
        ..Options::default()
    };
    let Opened { mut store, .. } = Store::open(disk.clone(), &options, 0).unwrap();
    let mut random = sol_journal::model::Random::new(1);
    let mut batch = Batch::default();
    for n in 0..40_000_u64 {
        let id = if n < 10_000 { n } else { random.below(10_000) };
        batch.put(SINGLE, 1 + id, &[n as u8; 200]);
        if n % 10 == 9 {
            store.add(&batch);
            batch.clear();
            store.commit(0).unwrap();
            store.sync().unwrap();
            store.tend(0, false).unwrap();
        }
    }
    assert!(store.counts().moved_bytes > 100_000, "{:?}", store.counts());
    let before = state_of(&store).unwrap();
    store.close(0).unwrap();
    let Opened { store, .. } = Store::open(disk.clone(), &options, 0).unwrap();
    let read = disk.bytes_read();
    assert_eq!(state_of(&store).unwrap(), before);
    let read = disk.bytes_read() - read;
    assert!(read < 10_000 * 5_000, "{read}");
}
