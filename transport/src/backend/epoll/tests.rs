//! The backend under a sink that writes down what it hears.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use socket2::{Domain, SockAddr, Type};
use sol_engine::ListenerId;

use super::*;
use crate::backend::Output;
use crate::peer::PeerAddr;

#[derive(Debug, Default)]
struct Notes {
    accepted: Vec<ConnectionId>,
    data: Vec<(ConnectionId, Vec<u8>)>,
    ended: Vec<ConnectionId>,
    writable: Vec<ConnectionId>,
    closed: Vec<ConnectionId>,
    full: bool,
    /// Every piece of data fills it.
    fills: bool,
    pause: bool,
}

impl Sink for Notes {
    fn is_full(&self) -> bool {
        self.full
    }

    fn on_accept(&mut self, _: ListenerId, connection: ConnectionId, _: PeerAddr) -> bool {
        self.accepted.push(connection);
        true
    }

    fn on_data(&mut self, connection: ConnectionId, bytes: &[u8]) -> Reading {
        self.data.push((connection, bytes.to_vec()));
        self.full |= self.fills;
        if self.pause { Reading::Pause } else { Reading::On }
    }

    fn on_end(&mut self, connection: ConnectionId) {
        self.ended.push(connection);
    }

    fn on_writable(&mut self, connection: ConnectionId) {
        self.writable.push(connection);
    }

    fn on_closed(&mut self, connection: ConnectionId) {
        self.closed.push(connection);
    }

    fn on_accept_error(&mut self, _: ListenerId, error: io::Error, _: bool) {
        panic!("{error}");
    }
}

const LIMITS: BackendLimits = BackendLimits {
    read_bytes: 1_000,
    little_bytes: 1_000,
    reads_max: 2,
    accepts_max: 2,
    accept_pause: Duration::from_millis(100),
};

fn turn(backend: &mut Epoll, notes: &mut Notes) {
    backend
        .wait(Instant::default(), Some(Duration::from_millis(50)))
        .unwrap();
    backend.dispatch(notes);
}

/// A connection of the backend and its other end.
fn adopted(backend: &mut Epoll) -> (ConnectionId, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let connection = backend.adopt(Socket::from(std::os::fd::OwnedFd::from(ours))).unwrap();
    (connection, theirs)
}

fn send(backend: &mut Epoll, connection: ConnectionId, bytes: &[u8]) -> SendOp {
    let output = Box::new(Output {
        bytes: bytes.to_vec(),
        sent: 0,
    });
    let mut operations = [SendOp {
        connection,
        output,
        failed: false,
    }];
    backend.send_batch(&mut operations);
    let [operation] = operations;
    operation
}

#[test]
fn a_quantum_cuts_a_busy_connection_and_the_next_turn_goes_on() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let (connection, mut theirs) = adopted(&mut backend);
    theirs.write_all(&[7; 3_500]).unwrap();
    backend.resume(connection);
    turn(&mut backend, &mut notes);
    assert_eq!(
        notes.data.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(),
        [1_000, 1_000]
    );
    turn(&mut backend, &mut notes);
    assert_eq!(notes.data.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 3_500);
}

#[test]
fn a_paused_connection_is_not_read_until_it_is_resumed() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes {
        pause: true,
        ..Notes::default()
    };
    let (connection, mut theirs) = adopted(&mut backend);
    theirs.write_all(b"one").unwrap();
    turn(&mut backend, &mut notes);
    assert!(notes.data.is_empty(), "an adopted connection waits to be resumed");
    backend.resume(connection);
    turn(&mut backend, &mut notes);
    theirs.write_all(b"two").unwrap();
    turn(&mut backend, &mut notes);
    assert_eq!(notes.data, [(connection, b"one".to_vec())]);
    // What came meanwhile is told although its edge has passed.
    backend.resume(connection);
    turn(&mut backend, &mut notes);
    assert_eq!(notes.data.last(), Some(&(connection, b"two".to_vec())));
}

#[test]
fn data_that_comes_together_with_the_end_is_told_before_the_end() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let (connection, mut theirs) = adopted(&mut backend);
    backend.resume(connection);
    turn(&mut backend, &mut notes);
    theirs.write_all(b"last words").unwrap();
    drop(theirs);
    turn(&mut backend, &mut notes);
    assert_eq!(notes.data, [(connection, b"last words".to_vec())]);
    assert_eq!(notes.ended, [connection]);
}

#[test]
fn a_close_is_reported_once_and_late_calls_do_nothing() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let (connection, mut theirs) = adopted(&mut backend);
    backend.close(connection);
    backend.close(connection);
    turn(&mut backend, &mut notes);
    turn(&mut backend, &mut notes);
    assert_eq!(notes.closed, [connection]);
    assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0);
    // The slot has a new tenant, which late calls for the old one must not reach.
    let (next, mut theirs) = adopted(&mut backend);
    assert_eq!(next.slot(), connection.slot());
    backend.close(connection);
    backend.resume(connection);
    assert!(backend.release(connection).is_none());
    assert!(send(&mut backend, connection, b"x").failed);
    theirs.write_all(b"hello").unwrap();
    backend.resume(next);
    turn(&mut backend, &mut notes);
    assert_eq!(notes.data, [(next, b"hello".to_vec())]);
}

#[test]
fn a_short_send_is_followed_by_room_and_loses_nothing() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let (connection, mut theirs) = adopted(&mut backend);
    backend.resume(connection);
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| n as u8).collect();
    let mut operation = send(&mut backend, connection, &bytes);
    assert!(!operation.failed && operation.output.sent > 0 && !operation.output.unsent().is_empty());
    turn(&mut backend, &mut notes);
    assert!(notes.writable.is_empty(), "nobody has read yet");
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).unwrap();
        received
    });
    while !operation.output.unsent().is_empty() {
        while notes.writable.pop().is_none() {
            turn(&mut backend, &mut notes);
        }
        backend.send_batch(core::slice::from_mut(&mut operation));
        assert!(!operation.failed);
    }
    backend.close(connection);
    assert_eq!(reader.join().unwrap(), bytes);
}

#[test]
fn a_send_to_somebody_who_is_gone_fails_without_a_signal() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let (connection, theirs) = adopted(&mut backend);
    drop(theirs);
    assert!(send(&mut backend, connection, b"x").failed);
}

#[test]
fn a_full_sink_is_given_no_more_until_it_has_room() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let mut others: Vec<_> = (0..3).map(|_| adopted(&mut backend)).collect();
    for (connection, _) in &others {
        backend.resume(*connection);
    }
    turn(&mut backend, &mut notes);
    for (_, theirs) in &mut others {
        theirs.write_all(b"x").unwrap();
    }
    notes.full = true;
    backend.wait(Instant::default(), None).unwrap();
    assert!(backend.dispatch(&mut notes));
    assert!(notes.data.is_empty());
    notes.full = false;
    assert!(!backend.dispatch(&mut notes));
    assert_eq!(notes.data.len(), 3);
}

#[test]
fn those_who_fill_the_sink_again_and_again_keep_nobody_waiting() {
    // Busy peers are paused while the sink is full and resumed when it was relieved; if that counted as new work of the
    // same turn, the turn would never end, and nobody else would be read, accepted or told anything.
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes {
        fills: true,
        ..Notes::default()
    };
    let mut busy: Vec<_> = (0..3).map(|_| adopted(&mut backend)).collect();
    let (quiet, mut theirs) = adopted(&mut backend);
    backend.resume(quiet);
    turn(&mut backend, &mut notes);
    notes.full = false;
    for (connection, theirs) in &mut busy {
        theirs.write_all(&[7; 50_000]).unwrap();
        backend.resume(*connection);
    }
    theirs.write_all(b"quiet").unwrap();
    backend.wait(Instant::default(), None).unwrap();
    let mut calls = 0;
    while backend.dispatch(&mut notes) {
        notes.full = false;
        for (connection, _) in &busy {
            backend.resume(*connection);
        }
        calls += 1;
        assert!(calls < 20, "the turn does not end: {} reads", notes.data.len());
    }
    assert!(notes.data.contains(&(quiet, b"quiet".to_vec())));
    for (connection, _) in &busy {
        let reads = notes.data.iter().filter(|(from, _)| from == connection).count();
        assert_eq!(reads, LIMITS.reads_max as usize, "everybody has one share of a turn");
    }
}

#[test]
fn a_released_socket_lives_on_elsewhere() {
    let mut here = Epoll::new(LIMITS).unwrap();
    let mut there = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let (connection, mut theirs) = adopted(&mut here);
    here.resume(connection);
    turn(&mut here, &mut notes);
    here.pause(connection);
    let moved = there.adopt(here.release(connection).unwrap()).unwrap();
    theirs.write_all(b"hello").unwrap();
    turn(&mut here, &mut notes);
    assert!(notes.data.is_empty() && notes.closed.is_empty(), "{notes:?}");
    there.resume(moved);
    turn(&mut there, &mut notes);
    assert_eq!(notes.data, [(moved, b"hello".to_vec())]);
}

#[test]
fn accepting_is_bounded_in_a_turn_and_nobody_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(16).unwrap();
    let mut backend = Epoll::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    backend.listen(ListenerId(0), listener).unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| UnixStream::connect(&path).unwrap()).collect();
    clients[0].write_all(b"early").unwrap();
    for accepted in [2, 4, 5] {
        turn(&mut backend, &mut notes);
        assert_eq!(notes.accepted.len(), accepted);
    }
    assert_eq!(
        notes.data,
        [(notes.accepted[0], b"early".to_vec())],
        "read right after it was accepted"
    );
    clients[4].write_all(b"late").unwrap();
    turn(&mut backend, &mut notes);
    assert_eq!(notes.data.last(), Some(&(notes.accepted[4], b"late".to_vec())));
    backend.stop_listening();
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn a_wake_up_ends_a_wait_from_another_thread() {
    let mut backend = Epoll::new(LIMITS).unwrap();
    let wake = backend.wake().unwrap();
    let waker = std::thread::spawn(move || {
        wake();
        wake
    });
    backend.wait(Instant::default(), None).unwrap();
    drop(waker.join().unwrap());
}
