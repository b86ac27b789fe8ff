//! The index against a plain map.

use std::collections::BTreeMap;

use super::entry::OVERHEAD;
use super::*;
use crate::model::Random;
use crate::ops::{Batch, Ops};

const KIND: Kind = Kind::new(3);

fn frame(index: &mut Index, segment: u32, build: impl FnOnce(&mut Batch)) -> Result<(), Orphan> {
    let mut batch = Batch::default();
    build(&mut batch);
    for op in Ops::new(batch.bytes()) {
        index.apply(&op.unwrap(), segment, 100);
    }
    index.end_of_frame()
}

fn ids(index: &Index) -> Vec<u64> {
    let mut ids: Vec<_> = index.iter().map(|(_, live)| live.id).collect();
    ids.sort_unstable();
    ids
}

/// A body lives while a child of it does, whatever becomes of the child.
#[test]
fn a_body_lives_while_a_child_does() {
    let mut index = Index::default();
    frame(&mut index, 1, |b| {
        b.child(KIND, 11, 10, b"");
        b.child(KIND, 12, 10, b"");
        b.body(KIND, 10, b"body");
        b.body(KIND, 20, b"of nobody");
    })
    .unwrap();
    assert_eq!(ids(&index), [10, 11, 12]);
    frame(&mut index, 1, |b| b.delete(10)).unwrap();
    frame(&mut index, 1, |b| b.delete(11)).unwrap();
    assert_eq!(ids(&index), [10, 12]);
    // The same record without a parent.
    frame(&mut index, 2, |b| b.put(KIND, 12, b"")).unwrap();
    assert_eq!(ids(&index), [12]);
    assert_eq!((index.records(), index.live_bytes()), (1, OVERHEAD));
    assert_eq!((index.live_in(1), index.live_in(2)), (0, OVERHEAD));
}

/// A record whose parent is not there is its owner's mistake, and told.
#[test]
fn an_orphan_is_an_error() {
    for wrong in 0..3 {
        let mut index = Index::default();
        let result = frame(&mut index, 1, |b| match wrong {
            0 => b.child(KIND, 2, 1, b""),
            1 => {
                b.put(KIND, 1, b"");
                b.child(KIND, 2, 1, b"");
            }
            _ => b.child(KIND, 1, 1, b""),
        });
        assert_eq!(result, Err(Orphan { parent: 1 }));
    }
}

/// Of a damaged log, what would be a child of no body is dropped and counted once, whether its parent is missing or
/// something else; nothing else is.
#[test]
fn orphans_of_a_damaged_log_are_dropped() {
    let mut index = Index::reading();
    frame(&mut index, 1, |b| {
        b.put(KIND, 1, b"");
        b.child(KIND, 11, 1, b"of a record without children");
        b.child(KIND, 11, 1, b"again");
        b.child(KIND, 12, 2, b"of nobody");
        b.child(KIND, 4, 4, b"its own child");
        b.body(KIND, 5, b"");
        b.child(KIND, 14, 5, b"");
        b.child(KIND, 14, 1, b"was another's before");
        b.child(KIND, 15, 1, b"");
        b.put(KIND, 15, b"something else later");
    })
    .unwrap_err();
    assert_eq!(index.end_of_damaged_log(), 4);
    assert_eq!(ids(&index), [1, 15]);
    assert_eq!(index.end_of_frame(), Ok(()));
}

/// What was no body's child for a while, and was put again or deleted since, is judged by how it ends, as everything else is
/// while a log is read.
#[test]
fn a_log_is_judged_by_its_end() {
    for (end, left) in [(0, vec![1]), (1, vec![1, 2]), (2, vec![1])] {
        for is_damaged in [false, true] {
            let mut index = Index::reading();
            let build = |b: &mut Batch| {
                b.put(KIND, 1, b"");
                b.child(KIND, 2, 1, b"of a record without children");
                match end {
                    0 => b.delete(2),
                    1 => b.put(KIND, 2, b""),
                    _ => b.body(KIND, 2, b"of nobody"),
                }
            };
            frame(&mut index, 1, build).unwrap();
            if is_damaged {
                assert_eq!(index.end_of_damaged_log(), 0);
            } else {
                assert_eq!(index.end_of_log(), Ok(()));
            }
            assert_eq!(ids(&index), left);
        }
    }
}

/// An identifier that is given out anew, the deletion of its first record lost, is the new one's: what was a child of the
/// old one is dropped.
#[test]
fn the_newer_record_of_an_identifier_counts() {
    for (is_deleted_later, new_is_child) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut index = Index::reading();
        frame(&mut index, 1, |b| {
            b.body(KIND, 50, b"old");
            b.child(KIND, 51, 50, b"old");
            b.body(KIND, 10, b"");
            b.child(KIND, 11, 10, b"");
            if new_is_child {
                b.child(KIND, 50, 10, b"new");
            } else {
                b.put(KIND, 50, b"new");
            }
            if is_deleted_later {
                b.put(KIND, 51, b"new");
            }
        })
        .unwrap();
        assert_eq!(index.end_of_damaged_log(), u64::from(!is_deleted_later));
        let left: &[u64] = if is_deleted_later {
            &[10, 11, 50, 51]
        } else {
            &[10, 11, 50]
        };
        assert_eq!(ids(&index), left);
        assert_eq!(index.place(50).map(|place| place.length), Some(3));
        assert_eq!(index.records(), left.len() as u64);
        frame(&mut index, 2, |b| [11, 50, 51].iter().for_each(|&id| b.delete(id))).unwrap();
        assert_eq!((index.records(), index.live_bytes(), index.live_in(1)), (0, 0, 0));
    }
}

/// The index says what a plain map with recounted children says, over any operations; its sums are those of a recount.
#[test]
fn the_index_is_a_map_with_counts() {
    let mut random = Random::new(5);
    let mut index = Index::default();
    let mut map: BTreeMap<u64, Family> = BTreeMap::new();
    // Where the segment's number no longer fits into an entry.
    let first = (1 << 27) - 10;
    let mut segments: BTreeMap<u64, u32> = BTreeMap::new();
    for round in 0..30_000_u64 {
        let parent = 1 + random.below(50);
        let child = 1000 + random.below(400);
        let family = match random.below(6) {
            0 | 1 => None,
            2 => Some(Family::Single),
            _ => Some(Family::Child(parent)),
        };
        let segment = first + (round / 1000) as u32;
        segments.insert(child, segment);
        frame(&mut index, segment, |b| match family {
            None => b.delete(child),
            Some(Family::Child(_)) => {
                b.body(KIND, parent, b"1234");
                b.child(KIND, child, parent, b"12");
            }
            _ => b.put(KIND, child, b""),
        })
        .unwrap();
        match family {
            None => drop(map.remove(&child)),
            Some(family) => {
                if family != Family::Single {
                    map.insert(parent, Family::Body);
                }
                map.insert(child, family);
            }
        }
        let parents: Vec<_> = map.values().copied().collect();
        map.retain(|&id, family| *family != Family::Body || parents.contains(&Family::Child(id)));
        if round % 500 == 0 {
            let live: BTreeMap<_, _> = index.iter().map(|(_, live)| (live.id, live.family)).collect();
            assert_eq!(live, map);
            assert_eq!(index.records(), map.len() as u64);
            let cost: u64 = index
                .iter()
                .map(|(_, live)| u64::from(live.place.length) + OVERHEAD)
                .sum();
            assert_eq!(index.live_bytes(), cost);
            let in_segments = (first..first + 31).map(|segment| index.live_in(segment));
            assert_eq!(in_segments.sum::<u64>(), cost);
            let children = index.iter().filter(|(_, live)| live.id >= 1000);
            for (_, live) in children {
                assert_eq!(Some(&live.place.segment), segments.get(&live.id));
            }
        }
    }
}

/// A record costs at most 37 bytes of memory, at every number of them from ten thousand; and what is gone costs nothing.
#[test]
fn a_record_costs_at_most_37_bytes() {
    let mut index = Index::default();
    for n in 0..300_000_u64 {
        frame(&mut index, 1, |b| {
            if n == 0 {
                b.body(KIND, 1, b"");
            }
            b.child(KIND, n + 2, 1, b"");
        })
        .unwrap();
        if n >= 10_000 {
            assert!(index.memory() as u64 <= 37 * index.records(), "{n}");
        }
    }
    frame(&mut index, 1, |b| (0..300_000).for_each(|n| b.delete(n + 2))).unwrap();
    assert_eq!(index.records(), 0);
    assert!(index.memory() < 200_000, "{}", index.memory());
}
