//! Peers that keep a shard busy, and what is left for the others.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[macro_use]
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use sol_codec::ProtocolVersion;

use self::support::{Broker, Client, publish};

on_each_backend! {
    a_ping_is_answered_while_others_flood
}

fn a_ping_is_answered_while_others_flood() {
    // Three publishers have more to say than two subscribers can be sent, for as long as this test lasts: the output is
    // always full, and the turn must end nevertheless.
    let broker = Broker::start(1, |config, _| {
        config.outbox_bytes_high = 16 << 10;
        config.output_bytes_high = 64 << 10;
    });
    let version = ProtocolVersion::V311;
    let mut streams = Vec::new();
    let mut threads = Vec::new();
    for n in 0..2 {
        let mut subscriber = Client::connect(broker.address, version, &format!("subscriber{n}"));
        subscriber.subscribe("flood");
        streams.push(subscriber.stream.try_clone().unwrap());
        threads.push(thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while subscriber.stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
        }));
    }
    let batch = publish(version, "flood", b"sixteen bytes...").repeat(4_000);
    for n in 0..3 {
        let mut publisher = Client::connect(broker.address, version, &format!("publisher{n}"));
        streams.push(publisher.stream.try_clone().unwrap());
        let batch = batch.clone();
        threads.push(thread::spawn(
            move || while publisher.stream.write_all(&batch).is_ok() {},
        ));
    }
    let mut other = Client::connect(broker.address, version, "other");
    other.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    while broker.counters().bytes_in < 16 << 20 {
        other.ping();
    }
    // Nobody new waits at the door either.
    Client::connect(broker.address, version, "newcomer").ping();
    broker.shards().handle().stop();
    other.expect_end();
    for stream in streams {
        // Most are closed by now.
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    broker.stop();
}
