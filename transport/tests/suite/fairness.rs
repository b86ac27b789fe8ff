//! Peers that keep a shard busy, and what is left for the others.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sol_codec::ProtocolVersion;

use crate::support::{Broker, Client, name_at_home, publish};

on_each_backend! {
    a_ping_is_answered_while_others_flood
    a_ping_is_answered_while_there_is_mail
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

fn a_ping_is_answered_while_there_is_mail() {
    // What another shard has handed over in one turn takes this one long, since each message matches many filters of one
    // client. Somebody else's PINGREQ [MQTT-3.12.4-1] waits for a little of that, and not for all.
    crate::support::keep_shards();
    const MESSAGES: u32 = 3_000;
    let broker = Broker::start(2, |_, _| ());
    let version = ProtocolVersion::V311;
    let mut subscriber = Client::connect(broker.address, version, &name_at_home("subscriber", 0));
    for filter in 0..256_u32 {
        let level = |n: u32| if filter >> n & 1 == 0 { "level" } else { "+" };
        let levels: Vec<&str> = (0..8).map(level).collect();
        subscriber.subscribe(&levels.join("/"));
    }
    let mut pinger = Client::connect(broker.address, version, &name_at_home("pinger", 0));
    let mut publisher = Client::connect(broker.address, version, &name_at_home("publisher", 1));
    let topic = ["level"; 8].join("/");
    let burst = publish(version, &topic, b"x").repeat(MESSAGES as usize);
    let (is_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let pings = thread::scope(|scope| {
        scope.spawn(|| publisher.send(&burst));
        scope.spawn(|| {
            for _ in 0..MESSAGES {
                subscriber.expect_publish(&topic, b"x");
                is_begun.store(true, Ordering::Relaxed);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let mut pings = 0;
        while !is_over.load(Ordering::Relaxed) {
            pinger.ping();
            pings += u32::from(is_begun.load(Ordering::Relaxed));
        }
        pings
    });
    // Without a cut it is one.
    assert!(pings >= 5, "{pings} of them");
    publisher.ping();
    broker.stop();
}
