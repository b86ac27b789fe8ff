//! The power goes out, or the process is killed, at any call.

use std::collections::BTreeSet;

use sol_journal::{Opened, Store, model::Fault};

use crate::damage::frames_of;
use crate::support::{World, state_of};

/// Seeds of a test: `SOL_JOURNAL_SEEDS` times as many as usual.
fn seeds(from: u64, usual: u64) -> std::ops::Range<u64> {
    let times = std::env::var("SOL_JOURNAL_SEEDS")
        .ok()
        .and_then(|times| times.parse().ok());
    from..from + usual * times.unwrap_or(1)
}

/// A life until a fault ends it, a restart, and another one, from one seed.
///
/// Says how many lives a fault ended.
fn lives(seed: u64, lives: u32, cuts_of_ten: u64) -> u32 {
    let mut world = World::new(seed);
    let mut faults = 0;
    for life in 0..lives {
        let call = world.disk.calls() + 1 + world.random.below(150);
        let fault = if world.random.below(4) == 0 {
            Fault::Io
        } else {
            Fault::PowerOff
        };
        world.disk.plant(call, fault);
        world.syncs_beside = world.random.below(2) == 0;
        if world.open().is_ok() {
            // One life in three is to end in order.
            let steps = if world.random.below(3) == 0 {
                world.random.below(40)
            } else {
                300
            };
            let taken = (0..steps).take_while(|_| world.step().is_ok()).count() as u64;
            if taken == steps && world.store.take().unwrap().close(1).is_ok() {
                world.acknowledged = world.states.len() - 1;
            } else {
                faults += 1;
            }
        } else {
            faults += 1;
        }
        world.store = None;
        if world.random.below(10) < cuts_of_ten {
            world.disk = world.disk.cut(seed << 8 | u64::from(life));
        } else {
            // A write that has been answered survives the process.
            world.acknowledged = world.acknowledged.max(world.committed);
            world.disk = world.disk.restart();
        }
        let report = world
            .open()
            .unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        assert!(report.holes.is_empty());
        world.store = None;
    }
    faults
}

/// After a power cut at any call, the store opens, and says what it said after some commit, none before the last sync.
#[test]
fn a_power_cut_loses_nothing_that_was_synced() {
    let faults: u32 = seeds(0, 120).map(|seed| lives(seed, 12, 10)).sum();
    assert!(faults > 700, "{faults}");
}

/// After a kill at any call, nothing is lost that was committed.
#[test]
fn a_kill_loses_nothing_that_was_committed() {
    let faults: u32 = seeds(0, 60).map(|seed| lives(seed, 12, 0)).sum();
    assert!(faults > 350, "{faults}");
}

/// The same where a kill is followed by a power cut: a start makes durable what it goes on with.
#[test]
fn a_kill_and_then_a_power_cut_lose_nothing_that_was_promised() {
    let faults: u32 = seeds(1_000_000, 80).map(|seed| lives(seed, 12, 5)).sum();
    assert!(faults > 450, "{faults}");
}

/// As in mode `os`, commits are answered and nothing is synced. A power cut then leaves what was committed up to the first frame
/// that is not whole, in the order of the commits, never one without those before it; the rest is told as a tail. A kill loses
/// nothing.
#[test]
fn what_was_never_synced_comes_back_in_order() {
    let (mut kept, mut torn) = (BTreeSet::new(), 0);
    for seed in seeds(2_000_000, 20) {
        let mut world = World::new(seed);
        // All of it fits into the first segment: to begin another one would be to sync.
        world.options.segment_bytes = 1 << 20;
        world.open().unwrap();
        let syncs = world.disk.syncs();
        for _ in 0..40 {
            let batch = world.batch();
            let store = world.store.as_mut().unwrap();
            store.add(&batch);
            let frame = store.commit(1).unwrap();
            world.frames.push((frame, world.states.len() - 1));
            store.tend(1, false).unwrap();
        }
        world.store = None;
        let segment = "0000000000000001.seg";
        let written = world.disk.read(segment).unwrap();
        let frames = frames_of(&written);
        assert!(frames.len() == 40 && frames.iter().all(|frame| frame.durable == 0));
        for cut in 0..20 {
            let disk = world.disk.cut(seed << 8 | cut);
            let left = disk.read(segment).unwrap();
            let same = left
                .iter()
                .zip(&written)
                .take_while(|(left, written)| left == written)
                .count();
            let whole = frames.iter().take_while(|frame| frame.to <= same).count();
            let end = frames[..whole].last().map_or(64, |frame| frame.to);
            let Opened { store, report } = Store::open(disk, &world.options, 2).unwrap();
            assert_eq!(report.sequence, whole as u64, "seed {seed}, cut {cut}");
            assert_eq!(
                state_of(&store).unwrap(),
                *world.state_after(whole as u64),
                "seed {seed}, cut {cut}"
            );
            let tail = report.tail.map(|tail| (tail.offset, tail.bytes));
            assert_eq!(
                tail,
                (left.len() > end).then(|| (end as u64, (left.len() - end) as u64))
            );
            kept.insert(whole);
            torn += u32::from(tail.is_some());
        }
        let Opened { store, report } = Store::open(world.disk.restart(), &world.options, 2).unwrap();
        assert_eq!(
            (state_of(&store).unwrap(), report.tail),
            (world.states.last().unwrap().clone(), None)
        );
        // The first two are those of the segments made ahead.
        assert!(world.disk.syncs() <= syncs + 2, "something was synced");
    }
    println!("{torn} torn tails; frames kept: {kept:?}");
    assert!(
        torn > 200 && kept.len() > 15 && kept.contains(&0) && kept.contains(&40),
        "{torn} {kept:?}"
    );
}
