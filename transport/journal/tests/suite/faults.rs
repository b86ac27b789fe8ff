//! The disk fails or is full at any call.

use sol_journal::{CommitError, OpenError, Pressure, Store, model::Fault};

use crate::support::{World, options, state_of};

/// How many calls a life makes that no fault ends.
const STEPS: u32 = 60;

/// The disk fails for one call, whichever: the store goes on if nothing was lost by it, or fails and says so; what was
/// promised is there afterwards.
#[test]
fn a_failure_at_any_call_loses_nothing() {
    let mut failed = 0;
    for seed in 0..2 {
        for call in 1..=calls_of_a_life(seed) {
            let mut world = World::new(seed);
            world.disk.plant(call, Fault::Io);
            failed += u32::from(live(&mut world));
            world.store = None;
            world.disk = world.disk.cut(call);
            let report = world
                .open()
                .unwrap_or_else(|error| panic!("seed {seed}, call {call}: {error}"));
            assert!(report.holes.is_empty());
        }
    }
    assert!(failed > 150, "{failed}");
}

/// The disk is full for one call, whichever: nothing fails, and everything is kept as if it had not been.
#[test]
fn no_space_at_any_call_is_no_failure() {
    for seed in 0..2 {
        for call in 1..=calls_of_a_life(seed) {
            let mut world = World::new(seed);
            world.disk.plant(call, Fault::NoSpace);
            if world.open().is_err() {
                world.open().unwrap();
            }
            for _ in 0..STEPS {
                match world.step() {
                    Ok(()) => {}
                    // Whatever was asked for is not done, and can be asked for again.
                    Err(CommitError::Full) => {
                        world.store.as_mut().unwrap().tend(0, true).unwrap();
                    }
                    // No room for a sync, or for a name to be removed, can only be taken as a failure.
                    Err(CommitError::Failed(failure)) if failure.to_string().starts_with("cannot ") => break,
                    Err(other) => panic!("seed {seed}, call {call}: {other}"),
                }
            }
            world.store = None;
            world.disk = world.disk.cut(call);
            world
                .open()
                .unwrap_or_else(|error| panic!("seed {seed}, call {call}: {error}"));
        }
    }
}

/// After a failed sync no commit is possible, and none that was not promised is.
#[test]
fn a_failed_sync_poisons() {
    let mut world = World::new(3);
    world.open().unwrap();
    let batch = world.batch();
    let store = world.store.as_mut().unwrap();
    store.add(&batch);
    store.commit(0).unwrap();
    world.disk.fail_next_sync();
    let Err(CommitError::Failed(failure)) = store.sync() else {
        panic!()
    };
    assert!(
        failure
            .to_string()
            .starts_with("cannot sync 0000000000000001.seg: Input/output error"),
        "{failure}"
    );
    store.add(&batch);
    assert_eq!(store.commit(0), Err(CommitError::Failed(failure.clone())));
    assert_eq!(store.sync(), Err(CommitError::Failed(failure.clone())));
    assert_eq!(store.tend(0, true), Err(CommitError::Failed(failure)));
}

/// A sync of another thread fails, and the system tells nobody else: no later sync passes for one that proves anything, no
/// segment is sealed or removed on the strength of it, and what was durable before is there after a power cut.
#[test]
fn a_failed_sync_beside_cannot_be_masked() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        world.syncs_beside = true;
        world.open().unwrap();
        for _ in 0..40 + seed {
            world.step().unwrap();
        }
        world.job = None;
        let batch = world.batch();
        let store = world.store.as_mut().unwrap();
        store.add(&batch);
        store.commit(0).unwrap();
        let job = store.sync_job().unwrap();
        world.disk.fail_next_sync();
        assert!(job.run().is_err());
        // The result is on its way, behind much else.
        let failure = (0..1_000).find_map(|_| {
            world.syncs_beside = false;
            world.step().err()
        });
        let Some(CommitError::Failed(failure)) = failure else {
            panic!("seed {seed}: {failure:?}")
        };
        assert!(
            failure
                .to_string()
                .contains("a sync before it failed: Input/output error"),
            "{failure}"
        );
        world.store = None;
        world.disk = world.disk.cut(seed);
        let report = world.open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(report.holes, []);
    }
}

/// A start after a failed sync makes durable what it goes on with: what it said is there after a power cut, though the
/// system had taken it for written before.
#[test]
fn a_start_after_a_failed_sync_believes_no_memory() {
    let mut unsynced = 0;
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.syncs_beside = seed % 2 == 0;
        world.open().unwrap();
        for _ in 0..seed {
            world.step().unwrap();
        }
        let batch = world.batch();
        let store = world.store.as_mut().unwrap();
        store.add(&batch);
        store.commit(0).unwrap();
        world.disk.fail_next_sync();
        assert!(store.sync().is_err());
        world.store = None;
        world.disk = world.disk.restart();
        let newest = world.states.last().unwrap().clone();
        unsynced += u32::from(world.acknowledged + 1 < world.states.len());
        world.open().unwrap();
        // A kill keeps what was written: only a power cut may lose it, and after this start not even that.
        assert_eq!(world.states, [newest]);
        for _ in 0..seed % 7 {
            world.step().unwrap();
        }
        world.store = None;
        world.disk = world.disk.cut(seed);
        world.open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(unsynced > 150, "{unsynced}");
}

/// A child of nobody is never written: the store fails instead, and opens as it was.
#[test]
fn a_fault_of_the_owner_never_reaches_the_disk() {
    let mut world = World::new(3);
    world.open().unwrap();
    let store = world.store.as_mut().unwrap();
    let mut batch = sol_journal::Batch::default();
    batch.child(crate::support::CHILD, 5, 4, b"");
    store.add(&batch);
    let Err(CommitError::Failed(failure)) = store.commit(0) else {
        panic!()
    };
    assert!(failure.to_string().contains("refers to record 0x4"), "{failure}");
    let store = Store::open(world.disk.restart(), &options(), 0).unwrap().store;
    assert!(state_of(&store).unwrap().is_empty());
}

/// A disk without room for the first segment is refused with a sentence, and opened when there is room.
#[test]
fn no_room_at_the_start_is_told() {
    let world = World::new(1);
    world.disk.set_capacity(100);
    let error = Store::open(world.disk.clone(), &options(), 0).unwrap_err();
    assert!(matches!(error, OpenError::Full { bytes, .. } if bytes == 3 * u64::from(options().segment_bytes)));
    assert_eq!(error.to_string(), "the disk is full: a new journal needs 1 MiB of room");
    world.disk.set_capacity(5_000);
    let mut store = Store::open(world.disk, &options(), 0).unwrap().store;
    store.tend(0, true).unwrap();
    assert_eq!(store.pressure(), Pressure::DiskFull);
}

fn calls_of_a_life(seed: u64) -> u64 {
    let mut world = World::new(seed);
    live(&mut world);
    world.disk.calls()
}

/// Whether it failed.
fn live(world: &mut World) -> bool {
    if world.open().is_err() {
        return true;
    }
    (0..STEPS).any(|_| world.step().is_err())
}
