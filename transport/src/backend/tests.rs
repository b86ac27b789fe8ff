//! Every backend under a sink that writes down what it hears: what is promised at the seam, all of them keep.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use socket2::{Domain, SockAddr, Type};
use sol_engine::ListenerId;

use super::*;
use crate::peer::PeerAddr;

/// Makes a test of each function, for each backend.
macro_rules! on_each_backend {
    ($($test:ident)*) => {
        mod readiness {
            $(#[test]
            fn $test() {
                super::$test::<crate::backend::epoll::Epoll>();
            })*
        }

        mod io_uring {
            $(#[test]
            fn $test() {
                if super::is_there() {
                    super::$test::<crate::backend::uring::Uring>();
                }
            })*
        }
    };
}

on_each_backend! {
    what_comes_while_a_connection_is_paused_is_told_in_order
    the_end_of_a_paused_connection_is_told_after_it_is_resumed
    short_sends_of_many_at_once_lose_nothing
    a_quantum_cuts_a_busy_connection_and_the_next_turn_goes_on
    a_paused_connection_is_not_read_until_it_is_resumed
    a_pause_does_not_change_how_much_is_read_at_once
    a_send_that_had_failed_before_has_failed
    data_that_comes_together_with_the_end_is_told_before_the_end
    a_close_is_reported_once_and_late_calls_do_nothing
    a_short_send_is_followed_by_room_and_loses_nothing
    a_send_to_somebody_who_is_gone_fails_without_a_signal
    a_full_sink_is_given_no_more_until_it_has_room
    those_who_fill_the_sink_again_and_again_keep_nobody_waiting
    a_released_socket_lives_on_elsewhere
    accepting_is_bounded_in_a_turn_and_nobody_is_forgotten
    who_comes_while_there_is_no_room_waits_for_it
    a_wake_up_ends_a_wait_from_another_thread
}

/// Whether the system permits io_uring. Where `SOL_TEST_IO_URING` is set it must, or tests would pass without a test.
pub(super) fn is_there() -> bool {
    match uring::try_out() {
        Ok(()) => true,
        Err(error) => {
            assert!(std::env::var_os("SOL_TEST_IO_URING").is_none(), "no io_uring: {error}");
            println!("skipped: no io_uring here: {error}");
            false
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) accepted: Vec<ConnectionId>,
    pub(super) data: Vec<(ConnectionId, Vec<u8>)>,
    pub(super) ended: Vec<ConnectionId>,
    pub(super) writable: Vec<ConnectionId>,
    pub(super) closed: Vec<ConnectionId>,
    pub(super) full: bool,
    /// Every piece of data fills it.
    pub(super) fills: bool,
    /// What happens next with whoever sends.
    pub(super) reading: Reading,
    /// How many may be accepted, if not all.
    pub(super) room: Option<usize>,
}

impl Notes {
    /// All that a connection has sent.
    pub(super) fn bytes_of(&self, connection: ConnectionId) -> Vec<u8> {
        let own = self.data.iter().filter(|(from, _)| *from == connection);
        own.flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

impl Sink for Notes {
    fn is_full(&self) -> bool {
        self.full
    }

    fn may_accept(&mut self, _: ListenerId) -> bool {
        self.room.is_none_or(|room| self.accepted.len() < room)
    }

    fn on_accept(&mut self, _: ListenerId, connection: ConnectionId, _: PeerAddr) -> bool {
        self.accepted.push(connection);
        true
    }

    fn on_data(&mut self, connection: ConnectionId, bytes: &mut [u8]) -> Reading {
        self.data.push((connection, bytes.to_vec()));
        // Whatever a filter leaves there, nobody comes across it again.
        bytes.fill(0xff);
        self.full |= self.fills;
        self.reading
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

pub(super) const LIMITS: BackendLimits = BackendLimits {
    read_bytes: 1_000,
    little_bytes: 1_000,
    reads_max: 2,
    accepts_max: 2,
    accept_pause: Duration::from_millis(100),
    buffers: 64,
    completions_max: 1_024,
};

pub(super) fn turn(backend: &mut impl Backend, notes: &mut Notes) {
    backend
        .wait(Instant::default(), Some(Duration::from_millis(50)))
        .unwrap();
    backend.dispatch(notes);
}

/// A connection of the backend and its other end.
pub(super) fn adopted(backend: &mut impl Backend) -> (ConnectionId, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let connection = backend.adopt(Socket::from(std::os::fd::OwnedFd::from(ours))).unwrap();
    (connection, theirs)
}

pub(super) fn send(backend: &mut impl Backend, connection: ConnectionId, bytes: &[u8]) -> SendOp {
    let output = Box::new(Output {
        bytes: bytes.to_vec(),
        ..Output::default()
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

fn a_quantum_cuts_a_busy_connection_and_the_next_turn_goes_on<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
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

fn a_paused_connection_is_not_read_until_it_is_resumed<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let mut notes = Notes {
        reading: Reading::Pause,
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

/// Who was not let in is read little at a time, and that holds over a pause.
fn a_pause_does_not_change_how_much_is_read_at_once<B: Backend>() {
    let mut backend = B::new(BackendLimits {
        little_bytes: 100,
        ..LIMITS
    })
    .unwrap();
    let mut notes = Notes {
        reading: Reading::Little,
        ..Notes::default()
    };
    let (connection, mut theirs) = adopted(&mut backend);
    theirs.write_all(&[7]).unwrap();
    backend.resume(connection);
    turn(&mut backend, &mut notes);
    assert_eq!(notes.data, [(connection, vec![7])]);
    backend.pause(connection);
    turn(&mut backend, &mut notes);
    notes = Notes {
        reading: Reading::Pause,
        ..Notes::default()
    };
    theirs.write_all(&[7; 300]).unwrap();
    for portions in 1..=3 {
        backend.resume(connection);
        turn(&mut backend, &mut notes);
        assert_eq!(notes.data, vec![(connection, vec![7; 100]); portions]);
    }
}

/// What could not be encrypted has failed, however much of what was before it the kernel takes.
fn a_send_that_had_failed_before_has_failed<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let (connection, _theirs) = adopted(&mut backend);
    let mut operation = send(&mut backend, connection, &[7; 2_000_000]);
    for _ in 0..2 {
        operation.failed = true;
        backend.send_batch(core::slice::from_mut(&mut operation));
        assert!(operation.failed && !operation.output.unsent().is_empty());
    }
    let (connection, _theirs) = adopted(&mut backend);
    let mut operation = SendOp {
        connection,
        failed: true,
        ..operation
    };
    backend.send_batch(core::slice::from_mut(&mut operation));
    assert!(operation.failed);
}

fn data_that_comes_together_with_the_end_is_told_before_the_end<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
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

fn a_close_is_reported_once_and_late_calls_do_nothing<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
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

fn a_short_send_is_followed_by_room_and_loses_nothing<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
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
    while notes.closed.is_empty() {
        turn(&mut backend, &mut notes);
    }
    assert_eq!(reader.join().unwrap(), bytes);
}

/// A stalled reader's stream is whole in the end, whoever else was sent to in the same batch.
fn short_sends_of_many_at_once_lose_nothing<B: Backend>() {
    const READERS: usize = 6;
    let mut backend = B::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let stream = |n: usize| (0..700_000 + n).map(move |at| (at * 7 + n) as u8).collect::<Vec<_>>();
    let mut theirs = Vec::new();
    let mut operations: Vec<SendOp> = (0..READERS)
        .map(|n| {
            let (connection, their) = adopted(&mut backend);
            theirs.push(their);
            // One of them has little to say, and is done at once.
            let bytes = if n == 2 { b"little".to_vec() } else { stream(n) };
            let output = Box::new(Output {
                bytes,
                ..Output::default()
            });
            SendOp {
                connection,
                output,
                failed: false,
            }
        })
        .collect();
    let all: Vec<ConnectionId> = operations.iter().map(|operation| operation.connection).collect();
    backend.send_batch(&mut operations);
    for (n, operation) in operations.iter().enumerate() {
        assert!(!operation.failed);
        assert_eq!(operation.output.unsent().is_empty(), n == 2);
    }
    turn(&mut backend, &mut notes);
    assert!(notes.writable.is_empty(), "nobody has read yet");
    let readers: Vec<_> = theirs
        .into_iter()
        .map(|mut theirs| {
            std::thread::spawn(move || {
                let mut received = Vec::new();
                theirs.read_to_end(&mut received).unwrap();
                received
            })
        })
        .collect();
    operations.retain(|operation| !operation.output.unsent().is_empty());
    while !operations.is_empty() {
        while notes.writable.is_empty() {
            turn(&mut backend, &mut notes);
        }
        // Whoever has no room yet is tried as well, and is told of it later all the same.
        notes.writable.clear();
        backend.send_batch(&mut operations);
        assert!(operations.iter().all(|operation| !operation.failed));
        operations.retain(|operation| !operation.output.unsent().is_empty());
    }
    for &connection in &all {
        backend.close(connection);
    }
    while notes.closed.len() < READERS {
        turn(&mut backend, &mut notes);
    }
    for (n, reader) in readers.into_iter().enumerate() {
        let received = reader.join().unwrap();
        assert!(
            received == if n == 2 { b"little".to_vec() } else { stream(n) },
            "reader {n}"
        );
    }
}

/// A connection that is paused and resumed again and again is told of every byte once, and in order.
fn what_comes_while_a_connection_is_paused_is_told_in_order<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let (connection, mut theirs) = adopted(&mut backend);
    let sent: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
    let mut parts = sent.chunks(700);
    backend.resume(connection);
    for n in 0.. {
        // Paused by the sink, paused from outside in the middle of things, and not at all.
        notes.reading = if n % 3 == 0 { Reading::Pause } else { Reading::On };
        if n % 5 == 0 {
            backend.pause(connection);
        }
        if let Some(part) = parts.next() {
            theirs.write_all(part).unwrap();
        } else if notes.bytes_of(connection).len() == sent.len() {
            break;
        }
        turn(&mut backend, &mut notes);
        backend.resume(connection);
        assert!(
            n < 10_000,
            "{} bytes of {}",
            notes.bytes_of(connection).len(),
            sent.len()
        );
    }
    assert!(notes.bytes_of(connection) == sent, "another order");
}

/// What a peer sent before it closed may still have to be taken in when it is paused: its end waits for that.
fn the_end_of_a_paused_connection_is_told_after_it_is_resumed<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let mut notes = Notes {
        reading: Reading::Pause,
        ..Notes::default()
    };
    let (connection, mut theirs) = adopted(&mut backend);
    backend.resume(connection);
    theirs.write_all(b"last words").unwrap();
    drop(theirs);
    for _ in 0..3 {
        turn(&mut backend, &mut notes);
    }
    assert_eq!(notes.data, [(connection, b"last words".to_vec())]);
    assert!(notes.ended.is_empty(), "it is paused");
    backend.resume(connection);
    for _ in 0..3 {
        turn(&mut backend, &mut notes);
    }
    assert_eq!(notes.ended, [connection]);
}

fn a_send_to_somebody_who_is_gone_fails_without_a_signal<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let (connection, theirs) = adopted(&mut backend);
    drop(theirs);
    assert!(send(&mut backend, connection, b"x").failed);
}

fn a_full_sink_is_given_no_more_until_it_has_room<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
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

fn those_who_fill_the_sink_again_and_again_keep_nobody_waiting<B: Backend>() {
    // Busy peers are paused while the sink is full and resumed when it was relieved; if that counted as new work of the
    // same turn, the turn would never end, and nobody else would be read, accepted or told anything.
    let limits = BackendLimits { buffers: 256, ..LIMITS };
    let mut backend = B::new(limits).unwrap();
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

fn a_released_socket_lives_on_elsewhere<B: Backend>() {
    let mut here = B::new(LIMITS).unwrap();
    let mut there = B::new(LIMITS).unwrap();
    let mut notes = Notes {
        reading: Reading::Pause,
        ..Notes::default()
    };
    let (path, _directory) = listen(&mut here);
    let mut theirs = UnixStream::connect(&path).unwrap();
    theirs.write_all(b"let me in").unwrap();
    while notes.data.is_empty() {
        turn(&mut here, &mut notes);
    }
    let connection = notes.accepted[0];
    assert_eq!(notes.data, [(connection, b"let me in".to_vec())]);
    theirs.write_all(b"hel").unwrap();
    let moved = there.adopt(here.release(connection).unwrap()).unwrap();
    theirs.write_all(b"lo").unwrap();
    turn(&mut here, &mut notes);
    assert!(notes.data.len() == 1 && notes.closed.is_empty(), "{notes:?}");
    there.resume(moved);
    notes.reading = Reading::On;
    notes.data.clear();
    while notes.bytes_of(moved).len() < 5 {
        turn(&mut there, &mut notes);
    }
    assert_eq!(notes.bytes_of(moved), b"hello");
    assert!(here.release(connection).is_none(), "it is gone from here");
}

/// A listener of the backend, where it is, and what keeps that in being.
pub(super) fn listen(backend: &mut impl Backend) -> (PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(16).unwrap();
    backend.listen(ListenerId(0), listener).unwrap();
    (path, directory)
}

fn accepting_is_bounded_in_a_turn_and_nobody_is_forgotten<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let mut notes = Notes::default();
    let (path, _directory) = listen(&mut backend);
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

/// Closing whoever finds no room would send clients away that have said who they are and find it a moment later.
fn who_comes_while_there_is_no_room_waits_for_it<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let mut notes = Notes {
        room: Some(1),
        ..Notes::default()
    };
    let (path, _directory) = listen(&mut backend);
    let mut clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"early").unwrap();
    }
    for _ in 0..3 {
        turn(&mut backend, &mut notes);
    }
    assert_eq!((notes.accepted.len(), notes.data.len()), (1, 1));
    notes.room = Some(2);
    backend.accept_again();
    turn(&mut backend, &mut notes);
    assert_eq!((notes.accepted.len(), notes.data.len()), (2, 2));
    notes.room = None;
    // It asks again by itself after a while.
    backend
        .wait(
            Instant::default().saturating_add(LIMITS.accept_pause),
            Some(Duration::ZERO),
        )
        .unwrap();
    backend.dispatch(&mut notes);
    backend
        .wait(
            Instant::default().saturating_add(2 * LIMITS.accept_pause),
            Some(Duration::ZERO),
        )
        .unwrap();
    backend.dispatch(&mut notes);
    assert_eq!((notes.accepted.len(), notes.data.len()), (3, 3));
}

fn a_wake_up_ends_a_wait_from_another_thread<B: Backend>() {
    let mut backend = B::new(LIMITS).unwrap();
    let wake = backend.wake().unwrap();
    let waker = std::thread::spawn(move || {
        wake();
        wake
    });
    backend.wait(Instant::default(), None).unwrap();
    drop(waker.join().unwrap());
}
