//! What can go wrong between a ring and its user, each case by itself. What every backend promises is tested above the seam.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::backend::tests::{LIMITS, Notes, adopted, is_there, listen, turn};
use crate::backend::{Output, Reading};

/// Turns taken for what takes one or two.
const TURNS_MAX: usize = 2_000;

/// A backend, if the system permits one.
fn backend(limits: BackendLimits) -> Option<Uring> {
    is_there().then(|| Uring::new(limits).unwrap())
}

/// Takes turns until something has happened.
fn turn_until(backend: &mut Uring, notes: &mut Notes, mut done: impl FnMut(&mut Uring, &Notes) -> bool) {
    for _ in 0..TURNS_MAX {
        if done(backend, notes) {
            return;
        }
        turn(backend, notes);
    }
    panic!("it never happened: {notes:?}");
}

/// Connections that are read, and their other ends.
fn readers(backend: &mut Uring, count: usize) -> Vec<(ConnectionId, UnixStream)> {
    let all: Vec<_> = (0..count).map(|_| adopted(backend)).collect();
    for (connection, _) in &all {
        backend.resume(*connection);
    }
    all
}

/// A stream that no other connection has.
fn stream(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + n * 17) as u8).collect()
}

/// When the buffers have run out, a turn receives what they hold and no more; those who got none are armed again when
/// some have come back, and every stream arrives whole.
#[test]
fn exhausted_buffers_come_back_and_those_who_got_none_are_armed_again() {
    let limits = BackendLimits {
        read_bytes: 100,
        buffers: 2,
        ..LIMITS
    };
    let Some(mut backend) = backend(limits) else { return };
    let mut notes = Notes::default();
    let mut peers = readers(&mut backend, 5);
    for (n, (_, theirs)) in peers.iter_mut().enumerate() {
        theirs.write_all(&stream(n, 1_000)).unwrap();
    }
    let mut before = 0;
    turn_until(&mut backend, &mut notes, |_, notes| {
        let received: usize = notes.data.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(received - before <= 200, "more than the buffers hold");
        before = received;
        received == 5_000
    });
    for (n, (connection, _)) in peers.iter().enumerate() {
        assert_eq!(notes.bytes_of(*connection), stream(n, 1_000));
    }
    // And the buffers are all there still.
    for (_, theirs) in &mut peers {
        theirs.write_all(b"more").unwrap();
    }
    turn_until(&mut backend, &mut notes, |_, notes| {
        peers
            .iter()
            .all(|(connection, _)| notes.bytes_of(*connection).ends_with(b"more"))
    });
}

/// What one connection is told a turn later, because it has had its share, lies in a buffer beside what others are told
/// at once: each gets its own bytes.
#[test]
fn who_has_had_its_share_does_not_shift_the_bytes_of_others() {
    let limits = BackendLimits {
        read_bytes: 64,
        reads_max: 1,
        buffers: 16,
        ..LIMITS
    };
    let Some(mut backend) = backend(limits) else { return };
    let mut notes = Notes::default();
    let mut peers = readers(&mut backend, 4);
    turn(&mut backend, &mut notes);
    const ROUNDS: usize = 50;
    for round in 1..=ROUNDS {
        for (n, (_, theirs)) in peers.iter_mut().enumerate() {
            // The first has more than its share, and ends in the middle of a buffer.
            let len = if n == 0 { 150 } else { 10 };
            theirs.write_all(&stream(n, len)).unwrap();
        }
        turn_until(&mut backend, &mut notes, |_, notes| {
            let received: usize = notes.data.iter().map(|(_, bytes)| bytes.len()).sum();
            received == 180 * round
        });
    }
    for (n, (connection, _)) in peers.iter().enumerate() {
        let len = if n == 0 { 150 } else { 10 };
        assert_eq!(notes.bytes_of(*connection), stream(n, len).repeat(ROUNDS));
    }
}

/// Completions that do not fit are neither lost nor taken for silence: what is received arrives whole, and a connection
/// whose receive ended for want of room is armed again.
#[test]
fn more_completions_than_fit_lose_nothing() {
    let limits = BackendLimits {
        completions_max: 4,
        ..LIMITS
    };
    let Some(mut backend) = backend(limits) else { return };
    let mut notes = Notes::default();
    let mut peers = readers(&mut backend, 40);
    turn(&mut backend, &mut notes);
    let mut has_overflown = false;
    for round in 1..=5 {
        for (n, (_, theirs)) in peers.iter_mut().enumerate() {
            theirs.write_all(&stream(n, 30)).unwrap();
        }
        turn_until(&mut backend, &mut notes, |backend, notes| {
            has_overflown |= backend.ring.is_overflown();
            let received: usize = notes.data.iter().map(|(_, bytes)| bytes.len()).sum();
            received == 40 * 30 * round
        });
    }
    assert!(has_overflown, "they did fit");
    for (n, (connection, _)) in peers.iter().enumerate() {
        assert_eq!(notes.bytes_of(*connection), stream(n, 30).repeat(5));
    }
    let count = peers.len();
    drop(peers);
    turn_until(&mut backend, &mut notes, |_, notes| notes.ended.len() == count);
}

/// A short send whose completion does not fit is not taken for one that was done: what is unsent is exact.
#[test]
fn a_short_send_is_noticed_although_its_completion_does_not_fit() {
    const READERS: usize = 12;
    let limits = BackendLimits {
        completions_max: 4,
        ..LIMITS
    };
    let Some(mut backend) = backend(limits) else { return };
    let peers = readers(&mut backend, READERS);
    let mut operations: Vec<SendOp> = peers
        .iter()
        .enumerate()
        .map(|(n, (connection, _))| SendOp {
            connection: *connection,
            output: Box::new(Output {
                bytes: stream(n, 600_000),
                ..Output::default()
            }),
            failed: false,
        })
        .collect();
    backend.send_batch(&mut operations);
    for (n, (operation, (_, mut theirs))) in operations.iter().zip(peers).enumerate() {
        let sent = operation.output.sent;
        assert!(!operation.failed && sent > 0 && sent < 600_000);
        let mut received = vec![0; sent];
        theirs.read_exact(&mut received).unwrap();
        assert!(received == stream(n, 600_000)[..sent], "reader {n}");
        theirs.set_nonblocking(true).unwrap();
        assert!(theirs.read(&mut [0]).is_err(), "more was sent than was told");
    }
}

/// A connection that is closed while it is received from and waits for room is gone when nothing of it is in flight, and
/// that is told once.
#[test]
fn a_close_waits_for_what_is_in_flight() {
    let Some(mut backend) = backend(LIMITS) else { return };
    let mut notes = Notes::default();
    turn(&mut backend, &mut notes);
    let idle = backend.ring.in_flight();
    let mut peers = readers(&mut backend, 3);
    for (connection, _) in &peers {
        let operation = crate::backend::tests::send(&mut backend, *connection, &[0; 2_000_000]);
        assert!(!operation.output.unsent().is_empty());
    }
    turn(&mut backend, &mut notes);
    assert_eq!(backend.ring.in_flight(), idle + 6, "a receive and a poll for room each");
    let connections: Vec<_> = peers.iter().map(|(connection, _)| *connection).collect();
    // Something may arrive between the decision and the kernel's answer; nobody is told of it.
    peers[0].1.write_all(b"late").unwrap();
    for connection in &connections {
        backend.close(*connection);
        backend.close(*connection);
    }
    assert!(notes.closed.is_empty());
    turn_until(&mut backend, &mut notes, |_, notes| notes.closed.len() == 3);
    for _ in 0..3 {
        turn(&mut backend, &mut notes);
    }
    notes.closed.sort_unstable();
    assert_eq!(notes.closed, connections);
    assert_eq!(backend.ring.in_flight(), idle);
    assert!(
        notes.data.is_empty() && notes.ended.is_empty() && notes.writable.is_empty(),
        "{notes:?}"
    );
    // Their descriptors are closed: each peer reads to the end of what was sent.
    for (_, mut theirs) in peers {
        let mut rest = Vec::new();
        let _ = theirs.read_to_end(&mut rest);
    }
}

/// What was received of a closed connection, or is told of a released one, never reaches the next tenant of its slot and
/// its descriptor.
#[test]
fn a_late_completion_does_not_reach_the_next_tenant() {
    let Some(mut backend) = backend(LIMITS) else { return };
    let mut notes = Notes::default();
    for round in 0..200 {
        let (connection, mut theirs) = readers(&mut backend, 1).pop().unwrap();
        turn_until(&mut backend, &mut notes, |backend, _| backend.changed.is_empty());
        theirs.write_all(b"old").unwrap();
        // Received, and not told yet.
        backend.wait(Instant::default(), Some(Duration::from_secs(1))).unwrap();
        backend.close(connection);
        backend.dispatch(&mut notes);
        turn_until(&mut backend, &mut notes, |_, notes| {
            notes.closed.last() == Some(&connection)
        });
        let (next, mut theirs) = readers(&mut backend, 1).pop().unwrap();
        assert_eq!(next.slot(), connection.slot());
        assert_ne!(next, connection);
        theirs.write_all(b"new").unwrap();
        turn_until(&mut backend, &mut notes, |_, notes| notes.bytes_of(next).len() == 3);
        assert_eq!(notes.bytes_of(next), b"new", "round {round}");
        assert!(notes.data.iter().all(|(from, _)| *from == next), "round {round}");
        notes.data.clear();
        backend.close(next);
        turn_until(&mut backend, &mut notes, |_, notes| notes.closed.last() == Some(&next));
    }
}

/// A connection that was not let in yet and moves away leaves nothing behind that could take a byte of it, nor disturb who
/// has its slot next.
#[test]
fn a_released_connection_leaves_nothing_behind() {
    let Some(mut backend) = backend(LIMITS) else { return };
    let mut strangers = Notes {
        reading: Reading::Little,
        ..Notes::default()
    };
    let (path, _directory) = listen(&mut backend);
    let mut theirs = UnixStream::connect(&path).unwrap();
    theirs.write_all(b"CONN").unwrap();
    let in_flight = |backend: &mut Uring, strangers: &mut Notes| {
        for _ in 0..3 {
            turn(backend, strangers);
        }
        backend.ring.in_flight()
    };
    let with_poll = in_flight(&mut backend, &mut strangers);
    let connection = strangers.accepted[0];
    assert_eq!(strangers.bytes_of(connection), b"CONN");
    let mut socket = backend.release(connection).unwrap();
    let (next, mut next_theirs) = adopted(&mut backend);
    assert_eq!(next.slot(), connection.slot());
    theirs.write_all(b"ECT").unwrap();
    assert_eq!(in_flight(&mut backend, &mut strangers), with_poll - 1);
    assert!(strangers.data.len() == 1 && strangers.ended.is_empty());
    // Every byte is still there for whoever reads it now.
    let mut rest = [0; 3];
    socket.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"ECT");
    next_theirs.write_all(b"next").unwrap();
    backend.resume(next);
    in_flight(&mut backend, &mut strangers);
    assert_eq!(strangers.data.last(), Some(&(next, b"next".to_vec())));
}

/// A backend that ends with everything in flight lets go of every socket before it is gone.
#[test]
fn a_backend_that_ends_keeps_no_socket_alive() {
    let Some(mut backend) = backend(LIMITS) else { return };
    let mut notes = Notes::default();
    let (path, _directory) = listen(&mut backend);
    let mut peers = readers(&mut backend, 20);
    turn(&mut backend, &mut notes);
    // One that nobody has taken in yet.
    let mut unseen = UnixStream::connect(&path).unwrap();
    backend.wait(Instant::default(), Some(Duration::from_secs(1))).unwrap();
    drop(backend);
    for theirs in peers.iter_mut().map(|(_, theirs)| theirs).chain([&mut unseen]) {
        theirs.set_nonblocking(true).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "its other end is closed");
    }
    assert!(UnixStream::connect(&path).is_err(), "nobody listens");
}

/// While there is no room for those who were accepted the kernel accepts no more: they wait in the system's queue, where they
/// cost nothing, and come in when there is room.
#[test]
fn a_listener_without_room_accepts_no_more() {
    let Some(mut backend) = backend(LIMITS) else { return };
    let mut notes = Notes::default();
    let (path, _directory) = listen(&mut backend);
    turn(&mut backend, &mut notes);
    let armed = backend.ring.in_flight();
    notes.room = Some(0);
    let mut clients = vec![UnixStream::connect(&path).unwrap()];
    turn_until(&mut backend, &mut notes, |backend, _| {
        backend.ring.in_flight() == armed - 1
    });
    clients.extend((0..3).map(|_| UnixStream::connect(&path).unwrap()));
    for _ in 0..3 {
        turn(&mut backend, &mut notes);
    }
    assert_eq!((backend.ring.in_flight(), notes.accepted.len()), (armed - 1, 0));
    notes.room = None;
    backend.accept_again();
    turn_until(&mut backend, &mut notes, |_, notes| notes.accepted.len() == 4);
}
