//! Two shards and clients that set them against each other: no lock, no loser but the one who must be, no stop that hangs.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use sol_codec::{ProtocolVersion, ReasonCode};
use sol_engine::EngineConfig;
use sol_transport::{Clock, Shards, StartError, TransportConfig};

use crate::support::{Broker, Client, PATIENCE, connect, publish};

on_each_backend! {
    two_shards_that_flood_each_other_do_not_lock
    takeovers_across_shards_leave_one
    a_stop_ends_in_every_state
}

/// Both shards forward to each other more than their mailboxes are to hold: publishers are paused and resumed, everybody
/// else is served, and neither shard waits for the other.
fn two_shards_that_flood_each_other_do_not_lock() {
    let broker = Broker::start(2, |config, _| config.mailbox_bytes_high = 1_000);
    let version = ProtocolVersion::V311;
    let (mut streams, mut threads) = (Vec::new(), Vec::new());
    for n in 0..4 {
        let mut subscriber = Client::connect(broker.address, version, &format!("subscriber{n}"));
        subscriber.subscribe("flood");
        streams.push(subscriber.stream.try_clone().unwrap());
        threads.push(thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while subscriber.stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
        }));
    }
    let batch = publish(version, "flood", &[b'x'; 200]).repeat(100);
    for n in 0..4 {
        let mut publisher = Client::connect(broker.address, version, &format!("publisher{n}"));
        streams.push(publisher.stream.try_clone().unwrap());
        let batch = batch.clone();
        threads.push(thread::spawn(
            move || while publisher.stream.write_all(&batch).is_ok() {},
        ));
    }
    let mut others: Vec<_> = (0..4)
        .map(|n| Client::connect(broker.address, version, &format!("other{n}")))
        .collect();
    let begin = Instant::now();
    while broker.counters().bytes_in < 8 << 20 {
        assert!(begin.elapsed() < 3 * PATIENCE, "the publishers were never resumed");
        for other in &mut others {
            other.ping();
        }
    }
    broker.shards().handle().stop();
    for stream in streams {
        // Most are closed by now.
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    broker.stop();
}

/// One Client Identifier that comes in through both shards from eight threads at a time: each connection but one hears
/// 0x8E, and the one that is left is served [MQTT-3.1.4-3].
fn takeovers_across_shards_leave_one() {
    const THREADS: usize = 8;
    const EACH: usize = 40;
    let broker = Broker::start(2, |_, _| ());
    let address = broker.address;
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            thread::spawn(move || {
                (0..EACH)
                    .map(|_| Client::connect(address, ProtocolVersion::V5, "the-same"))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let clients: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    broker.wait_until("one connection", |counters| counters.connections == 1);
    let mut alive = 0;
    for mut client in clients {
        // What the broker sent to the losers has arrived: it closed after that.
        client.stream.set_nonblocking(true).unwrap();
        let is_alive = client.stream.peek(&mut [0]).is_err();
        client.stream.set_nonblocking(false).unwrap();
        if is_alive {
            client.ping();
            alive += 1;
        } else {
            client.expect_disconnect(ReasonCode::SessionTakenOver);
        }
    }
    assert_eq!(alive, 1);
    broker.stop();
}

/// A shard that dies while it starts, here because an engine does not take so many others, ends the start with an error.
#[test]
fn a_shard_that_cannot_start_is_not_waited_for() {
    let config = TransportConfig::default();
    let engine = EngineConfig {
        shards: 65,
        ..EngineConfig::default()
    };
    let started = Shards::start(&config, &engine, crate::support::SEEDS, Clock::start(), |_| ());
    assert!(matches!(started, Err(StartError::System(_))));
}

/// Stopped with clients in every state, on one shard and on two: silent, in the middle of CONNECT, moving, flooding,
/// never reading, gone. It always ends, and in time.
fn a_stop_ends_in_every_state() {
    for n in 0..60 {
        let broker = Broker::start(1 + n % 2, |config, _| {
            config.stop_time_max = Duration::from_millis(50);
            config.listeners[0].defer_accept = n % 3 == 0;
        });
        let version = ProtocolVersion::V5;
        let silent = Client::open(broker.address, version);
        let mut half = Client::open(broker.address, version);
        half.send(&connect(version, "half")[..5]);
        let mut deaf = Client::connect(broker.address, version, "deaf");
        deaf.subscribe("t");
        let mut publisher = Client::connect(broker.address, version, "publisher");
        let message = publish(version, "t", &[0; 50_000]);
        for _ in 0..n {
            publisher.send(&message);
        }
        publisher.send(&message[..message.len() / 2]);
        let mut moving: Vec<_> = (0..4).map(|_| Client::open(broker.address, version)).collect();
        for (m, client) in moving.iter_mut().enumerate() {
            client.send(&connect(version, &format!("moving{m}")));
        }
        drop(Client::connect(broker.address, version, "gone"));
        broker.stop();
        drop((silent, half, deaf, publisher, moving));
    }
}
