//! The disk is full: what is told, what goes on, and how it ends.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use sol_journal::{
    Batch, CommitError, Event, Handle, Mode, Opened, Options, Pressure, Store, Writer, WriterOptions,
    model::{ModelDisk, Random},
};

use crate::support::writer::{Channel, Ticks, delete, next, put, start};
use crate::support::{SINGLE, options, state_of};

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
        handle.submit(put(0, ticket));
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
        handle.submit(delete(0, ticket, [id]));
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
            (_, Event::Pressure(_) | Event::Load(_)) => {}
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
        handle.submit(put(0, ticket));
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

/// Submits what is kept, one after the other, until the disk is full.
fn fill(handle: &Handle, events: &mpsc::Receiver<(u16, Event)>) -> u64 {
    let mut ticket = 0;
    loop {
        ticket += 1;
        handle.submit(put(0, ticket));
        match next(events) {
            (0, Event::Kept(kept)) if kept == ticket => {}
            (_, Event::Pressure(Pressure::DiskFull)) => return ticket,
            other => panic!("{other:?}"),
        }
    }
}

/// When the disk is full and so is the queue, with what cannot be thrown away, the reserve takes all of it, and the
/// deletions behind it free the disk.
#[test]
fn deletions_behind_a_full_queue_free_a_full_disk() {
    for segments in 6..16 {
        let disk = ModelDisk::new(segments);
        disk.set_capacity(segments * 4096 + 700 * (segments % 5));
        let (writer, events) = start(disk.clone(), &options(), Mode::Fsync);
        let handle = writer.handle();
        let mut ticket = fill(&handle, &events);
        let mut queued = 0;
        while queued + 190 < 4096 {
            ticket += 1;
            queued += put(0, ticket).batch.len() + 128;
            handle.submit(put(0, ticket));
        }
        let last = ticket;
        for id in 1..last {
            ticket += 1;
            handle.submit(delete(0, ticket, [id]));
            let deadline = Instant::now() + Duration::from_secs(30);
            // Acknowledgements come one by one, as those of a client do.
            while next(&events) != (0, Event::Kept(ticket)) {
                assert!(
                    Instant::now() < deadline,
                    "{segments}: {id} of {last}, {:?}",
                    handle.numbers()
                );
            }
        }
        let mut pressure = handle.numbers().pressure;
        let deadline = Instant::now() + Duration::from_secs(30);
        while pressure != Pressure::Normal {
            assert!(Instant::now() < deadline, "{segments}: {:?}", handle.numbers());
            std::thread::yield_now();
            pressure = handle.numbers().pressure;
        }
        writer.stop().unwrap();
        let store = Store::open(disk, &options(), 0).unwrap().store;
        assert_eq!(state_of(&store).unwrap().into_keys().collect::<Vec<_>>(), [last]);
    }
}

/// A reserve that could not take the queue is refused at the start.
#[test]
fn a_reserve_that_is_too_small_is_refused() {
    for (reserve_bytes, is_refused) in [(0, true), (20 * 4096, true), (21 * 4096, false)] {
        let options = Options {
            reserve_bytes,
            ..options()
        };
        let Opened { store, .. } = Store::open(ModelDisk::new(1), &options, 0).unwrap();
        let writer_options = WriterOptions {
            mode: Mode::Fsync,
            sources: 1,
            queue_bytes_max: 20 * 4096,
        };
        let (sender, _events) = mpsc::channel();
        let writer = Writer::start(
            store,
            writer_options,
            Channel(sender),
            std::sync::Arc::new(Ticks::default()),
        );
        assert_eq!(writer.is_err(), is_refused, "{reserve_bytes}");
    }
}

/// On a disk with room for little more than the reserve, churn goes on for ever: garbage is found whatever waits for room.
#[test]
fn churn_goes_on_where_garbage_is_all_the_room() {
    let disk = ModelDisk::new(3);
    disk.set_capacity(5 * 4096 + 100);
    let Opened { mut store, .. } = Store::open(disk, &options(), 0).unwrap();
    let mut batch = Batch::default();
    for n in 0..3_000_u64 {
        batch.clear();
        batch.put(SINGLE, 1 + n % 7, &[n as u8; 100]);
        store.add(&batch);
        let mut tries = 0;
        while let Err(error) = store.commit(0) {
            assert_eq!(error, CommitError::Full);
            tries += 1;
            assert!(tries < 20, "{n}: {:?}", store.sizes());
            store.sync().unwrap();
            store.tend(0, true).unwrap();
        }
        store.sync().unwrap();
        store.tend(0, false).unwrap();
    }
    assert_eq!(store.sizes().live_records, 7);
}

/// Frames that fill segments to the last byte, and the reserve too, leave room for what frees the oldest segment.
#[test]
fn the_reserve_keeps_room_to_free_room() {
    let disk = ModelDisk::new(3);
    disk.set_capacity(7 * 4096);
    let Opened { mut store, .. } = Store::open(disk, &options(), 0).unwrap();
    let mut batch = Batch::default();
    let mut frames = 0;
    // Nobody tends it meanwhile.
    loop {
        batch.clear();
        batch.put(SINGLE, 1, &[0; 4]);
        store.add(&batch);
        let before = store.counts().bytes;
        match store.commit(0) {
            Ok(_) => assert_eq!(store.counts().bytes - before, (4096 - 64) / 72),
            Err(error) => break assert_eq!(error, CommitError::Full),
        }
        frames += 1;
    }
    assert!(frames > 6 * 72, "{frames}");
    let mut tries = 0;
    while store.commit(0).is_err() {
        tries += 1;
        assert!(tries < 10, "{:?}", store.sizes());
        store.tend(0, true).unwrap();
        store.sync().unwrap();
    }
    assert!(store.counts().removed_segments > 0);
}

/// A frame that is longer than all the room there is is not begun: nothing of it is known or written, and it is kept when
/// there is room.
#[test]
fn a_frame_that_does_not_fit_is_not_begun() {
    let disk = ModelDisk::new(3);
    disk.set_capacity(6 * 4096);
    let Opened { mut store, .. } = Store::open(disk.clone(), &options(), 0).unwrap();
    store.tend(0, false).unwrap();
    let mut batch = Batch::default();
    batch.put(SINGLE, 1, &[1; 7 * 4096]);
    store.add(&batch);
    for _ in 0..3 {
        assert_eq!(store.commit(0), Err(CommitError::Full));
        assert_eq!((store.pressure(), store.sizes().live_records), (Pressure::DiskFull, 0));
        assert!(disk.used() <= 3 * 4096, "{}", disk.used());
        store.tend(0, true).unwrap();
    }
    disk.set_capacity(20 * 4096);
    store.commit(0).unwrap();
    store.tend(0, true).unwrap();
    assert_eq!((store.pressure(), store.sizes().live_records), (Pressure::Normal, 1));
    drop(store);
    assert_eq!(Store::open(disk, &options(), 0).unwrap().store.sizes().live_records, 1);
}

/// What is moved at once is four times what was written since, and a slice; never more with every turn.
#[test]
fn what_is_moved_at_once_is_bounded() {
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::default()
    };
    let Opened { mut store, .. } = Store::open(ModelDisk::new(1), &options, 0).unwrap();
    let mut batch = Batch::default();
    let (mut moved, mut before) = (0, store.counts());
    let mut random = Random::new(1);
    for n in 0..16_000_u64 {
        batch.clear();
        let id = if n < 8_000 { n } else { random.below(8_000) };
        batch.put(SINGLE, 1 + id, &[n as u8; 1_000]);
        store.add(&batch);
        store.commit(0).unwrap();
        if n % 4 == 0 {
            store.sync().unwrap();
        }
        let written = store.counts();
        store.tend(0, false).unwrap();
        let now = store.counts();
        let slice = now.moved_bytes - written.moved_bytes;
        let bound = 4 * (written.bytes - before.bytes) + (64 << 10) + 1_100;
        assert!(slice <= bound, "{n}: {slice} of {bound}");
        moved += u64::from(slice > 0);
        before = now;
    }
    assert!(moved > 20, "{moved}");
}
