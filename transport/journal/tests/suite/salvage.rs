//! A damaged journal is opened with what can be read.

use std::collections::BTreeMap;

use sol_journal::{
    Batch, Disk, OnDamage, Opened, Options, Progress, Store,
    model::{Fault, ModelDisk, Random},
};

use crate::damage::{files, small_store};
use crate::support::{BODY, CHILD, SINGLE, State, state_of};

fn salvage() -> Options {
    Options {
        segment_bytes: 1024,
        on_damage: OnDamage::Salvage,
        ..Options::default()
    }
}

/// A salvaged store has only records that were once there, as they were; it is whole afterwards, and what was damaged is
/// still there beside it.
#[test]
fn salvage_starts_with_what_is_proven() {
    let (mut salvaged, mut lost) = (0, 0);
    for seed in 40..42 {
        let world = small_store(seed, 120);
        let last = world.states.last().unwrap();
        for (name, bytes) in files(&world.disk) {
            for at in (0..bytes.len()).step_by(17) {
                let disk = world.disk.restart();
                let mut other = bytes.clone();
                other[at] ^= 0x10;
                disk.replace(&name, other);
                if Store::open(disk.restart(), &world.options, 0).is_ok() {
                    continue;
                }
                let options = Options {
                    on_damage: OnDamage::Salvage,
                    ..world.options.clone()
                };
                let Opened { store, report } = Store::open(disk.clone(), &options, 0).unwrap();
                assert!(!report.holes.is_empty());
                let state = state_of(&store).unwrap();
                check_salvaged(&world.states, &state);
                lost += last.keys().filter(|id| !state.contains_key(id)).count();
                salvaged += 1;
                drop(store);
                assert!(disk.list().unwrap().contains(&format!("{name}.damaged")));
                let Opened { store, report } = Store::open(disk, &world.options, 0).unwrap();
                assert_eq!((state_of(&store).unwrap(), report.holes), (state, vec![]));
            }
        }
    }
    println!("{salvaged} stores salvaged, {lost} records lost");
    assert!(salvaged > 1_000, "{salvaged}");
}

fn check_salvaged(states: &[State], state: &State) {
    for (id, record) in state {
        assert!(
            states.iter().any(|old| old.get(id) == Some(record)),
            "invented {id}: {record:?}"
        );
        if let Some(parent) = record.1 {
            assert!(state.contains_key(&parent));
        }
    }
}

/// A store of many frames without relocation, its records, and in which frame each of them was put last.
fn known_frames(seed: u64) -> (ModelDisk, State, BTreeMap<u64, u64>) {
    let disk = ModelDisk::new(seed);
    let mut random = Random::new(seed);
    let Opened { mut store, .. } = Store::open(disk.clone(), &salvage(), 0).unwrap();
    let (mut state, mut frames) = (State::new(), BTreeMap::new());
    let mut batch = Batch::default();
    for n in 1..150_u64 {
        batch.clear();
        let mut ids = vec![2 * n];
        let bytes = vec![n as u8; random.below(60) as usize];
        if random.below(2) == 0 {
            batch.body(BODY, 2 * n, &bytes);
            batch.child(CHILD, 2 * n + 1, 2 * n, &bytes);
            state.insert(2 * n, (BODY.number(), None, bytes.clone()));
            state.insert(2 * n + 1, (CHILD.number(), Some(2 * n), bytes));
            ids.push(2 * n + 1);
        } else {
            batch.put(SINGLE, 2 * n, &bytes);
            state.insert(2 * n, (SINGLE.number(), None, bytes));
        }
        store.add(&batch);
        let frame = store.commit(0).unwrap();
        frames.extend(ids.into_iter().map(|id| (id, frame)));
        store.sync().unwrap();
    }
    store.close(0).unwrap();
    (disk, state, frames)
}

/// All is kept whose frames, its own and its parent's, lie outside of what is reported as lost.
#[test]
fn salvage_keeps_all_that_lies_outside_the_holes() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..3 {
        let (disk, state, frames) = known_frames(seed);
        for (name, bytes) in files(&disk) {
            for at in (64..bytes.len()).step_by(41) {
                let disk = disk.restart();
                let mut other = bytes.clone();
                other[at] ^= 0x40;
                disk.replace(&name, other);
                let Opened { store, report } = Store::open(disk, &salvage(), 0).unwrap();
                let salvaged = state_of(&store).unwrap();
                // A frame that was never promised and is cut is a tail; all others are in a hole.
                let cut = |frame: u64| report.tail.is_some() && frame > report.sequence;
                let is_lost = |frame: u64| {
                    cut(frame)
                        || report
                            .holes
                            .iter()
                            .any(|hole| (hole.first..=hole.last).contains(&frame))
                };
                for (id, record) in &state {
                    let whole = !is_lost(frames[id]) && record.1.is_none_or(|parent| !is_lost(frames[&parent]));
                    if whole {
                        assert_eq!(salvaged.get(id), Some(record), "{name} at {at}: {report:?}");
                        kept += 1;
                    } else {
                        lost += 1;
                    }
                }
                let first_last: Vec<_> = report.holes.iter().map(|hole| hole.last - hole.first).collect();
                assert!(
                    first_last.iter().all(|frames| *frames == 0),
                    "one bit costs one frame: {report:?}"
                );
            }
        }
    }
    assert!(kept > 100 * lost && lost > 100, "{kept} kept, {lost} lost");
}

/// Whoever opens a journal hears of each segment that is read, and in a salvage how much is written anew, never more than all.
#[test]
fn an_opening_says_how_far_it_is() {
    let disk = ModelDisk::new(9);
    let options = Options {
        segment_bytes: 4 << 20,
        ..salvage()
    };
    let mut store = Store::open(disk.clone(), &options, 0).unwrap().store;
    for id in 1..=60 {
        let mut batch = Batch::default();
        batch.put(SINGLE, id, &vec![1; 100_000]);
        store.add(&batch);
        store.commit(0).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    let opened = |disk| {
        let mut told = Vec::new();
        let report = Store::open_telling(disk, &options, 0, &mut |progress| told.push(progress))
            .unwrap()
            .report;
        (report, told)
    };
    let (report, told) = opened(disk.restart());
    let of = report.bytes;
    assert_eq!(told.len() as u64, report.segments);
    assert_eq!(told.last(), Some(&Progress::Read { bytes: of, of }));
    let (name, mut bytes) = files(&disk).swap_remove(0);
    bytes[500_000] ^= 1;
    disk.replace(&name, bytes);
    let (report, told) = opened(disk);
    assert_eq!(report.holes.len(), 1);
    let salvaged = told[report.segments as usize..].iter().map(|told| match told {
        Progress::Salvaged { records, of: 59 } => *records,
        other => panic!("{other:?}"),
    });
    let salvaged = salvaged.collect::<Vec<_>>();
    assert!(
        salvaged.len() >= 4 && salvaged.is_sorted() && *salvaged.last().unwrap() <= 59,
        "{salvaged:?}"
    );
}

/// The power goes out at any call of a salvage: the next one comes to the same records, and what was damaged is still there
/// beside them.
#[test]
fn a_salvage_that_is_cut_short_loses_nothing() {
    let (disk, ..) = known_frames(7);
    let (name, mut bytes) = files(&disk).swap_remove(3);
    bytes[500] ^= 1;
    disk.replace(&name, bytes.clone());
    let whole = disk.restart();
    let Opened { store, .. } = Store::open(whole.clone(), &salvage(), 0).unwrap();
    let expected = state_of(&store).unwrap();
    let calls = whole.calls() - disk.calls();
    for call in 1..=calls {
        let cut = disk.restart();
        cut.plant(cut.calls() + call, Fault::PowerOff);
        // The last calls read what was salvaged.
        drop(Store::open(cut.clone(), &salvage(), 0));
        let cut = cut.cut(call);
        let Opened { store, .. } = Store::open(cut.clone(), &salvage(), 0).unwrap();
        assert_eq!(state_of(&store).unwrap(), expected, "call {call}");
        assert_eq!(
            cut.read(&format!("{name}.damaged")).as_ref(),
            Some(&bytes),
            "call {call}"
        );
        assert_eq!(cut.read(&name), None);
        assert_eq!(cut.read("SALVAGE"), None);
        drop(store);
        let report = Store::open(cut, &Options::default(), 0).unwrap().report;
        assert_eq!((report.holes, report.orphans), (vec![], 0));
    }
    assert!(calls > 100, "{calls}");
}

/// The disk cannot read a place at first: a salvage reads the rest, and nothing is changed that it did not read.
#[test]
fn what_a_disk_cannot_read_is_read_in_pieces() {
    let world = small_store(44, 120);
    let last = world.states.last().unwrap();
    let mut opened = 0;
    for call in 1..60 {
        let disk = world.disk.restart();
        disk.plant(disk.calls() + call, Fault::Io);
        if Store::open(disk.restart(), &world.options, 0).is_err() {
            panic!("nothing is wrong with it");
        }
        if let Ok(Opened { store, report }) = Store::open(disk, &salvage(), 0)
            && report.holes.is_empty()
        {
            assert_eq!(state_of(&store).unwrap(), *last);
            opened += 1;
        }
    }
    assert!(opened > 4, "{opened}");
}

/// A log whose program wrote a child without its parent cannot be opened but by a salvage, which drops the child for good.
#[test]
fn an_orphan_without_damage_is_dropped_by_a_salvage() {
    let disk = ModelDisk::new(1);
    let frames: &[&[u8]] = &[b"\x05\x19\x50\x05hello", b"\x05\x12\x60\x02\x01x"];
    disk.replace("0000000000000001.seg", sol_journal::model::segment(frames));
    let error = Store::open(disk.clone(), &Options::default(), 0).unwrap_err();
    assert!(error.to_string().starts_with("a record refers to record"), "{error}");
    let Opened { store, report } = Store::open(disk.clone(), &salvage(), 0).unwrap();
    assert_eq!((report.orphans, report.holes), (1, vec![]));
    let state = state_of(&store).unwrap();
    assert_eq!(state.into_keys().collect::<Vec<_>>(), [0x28]);
    drop(store);
    let report = Store::open(disk, &Options::default(), 0).unwrap().report;
    assert_eq!(report.orphans, 0);
}
