//! One shard that hands more to another than that can take at once: nothing is lost on the way, what lies in between is
//! bounded, and whoever was paused for it goes on.

use std::io::Write;
use std::thread;

use sol_codec::{Connect, Packet, ProtocolVersion, QoS, TopicName, Will, WillProperties};
use sol_engine::{Answer, Query};

use crate::support::{Broker, Client, PATIENCE, connect, disconnect, name_at_home, names_at_home, publish, subscribe};

on_each_backend! {
    a_burst_that_another_shard_passes_on_arrives_whole
    many_publishers_at_once_do_not_pile_up_in_a_mailbox
    a_connection_on_its_way_counts_with_all_that_it_brings
    a_connection_that_is_given_up_does_not_move
}

const VERSION: ProtocolVersion = ProtocolVersion::V311;
/// One that hands over, and one that it is handed to.
const SHARDS: u16 = 2;

fn client(broker: &Broker, shard: u16, name: &'static str) -> Client {
    Client::connect(broker.address, VERSION, &name_at_home(name, shard))
}

fn dropped(broker: &Broker) -> u64 {
    let answers = broker.shards().handle().ask(Query::Stats, PATIENCE);
    let of = |answer: &Answer| {
        let Answer::Stats(stats) = answer;
        stats.publish_dropped
    };
    answers.iter().map(|answer| of(&answer.answer)).sum()
}

/// A burst of QoS 0 that one shard reads in a turn and another finds in its mailbox at once is more than a tray and the
/// line behind a fan-out hold, and reaches a subscriber that takes it whole and in order.
fn a_burst_that_another_shard_passes_on_arrives_whole() {
    const MESSAGES: u32 = 30_000;
    let broker = Broker::start(SHARDS, |_, engine| engine.shards = SHARDS);
    let mut subscriber = client(&broker, 0, "subscriber");
    subscriber.subscribe("t");
    let mut publisher = client(&broker, 1, "publisher");
    let burst: Vec<u8> = (0..MESSAGES)
        .flat_map(|n| publish(VERSION, "t", &n.to_be_bytes()))
        .collect();
    let sender = thread::spawn(move || {
        publisher.send(&burst);
        publisher
    });
    for n in 0..MESSAGES {
        subscriber.expect_publish("t", &n.to_be_bytes());
    }
    sender.join().unwrap().ping();
    assert_eq!(dropped(&broker), 0);
    broker.stop();
}

/// A hundred publishers that all send to the other shard at once, each as much as is read of a connection in a turn, and
/// are paused and resumed together: what lies in the mailbox stays below twice the mark, what is read of one of them in a
/// turn and a message of each, and all of them go on.
fn many_publishers_at_once_do_not_pile_up_in_a_mailbox() {
    const PUBLISHERS: usize = 100;
    const HIGH: usize = 100_000;
    const PAYLOAD: usize = 1_000;
    let broker = Broker::start(SHARDS, |config, engine| {
        engine.shards = SHARDS;
        config.mailbox_bytes_high = HIGH;
        // Where the subscriber gets no processor for a while, what it is sent waits and is not dropped.
        (engine.unsent_bytes_high, engine.unsent_bytes_max) = (64 << 20, 128 << 20);
    });
    let mut subscriber = client(&broker, 0, "subscriber");
    subscriber.subscribe("t");
    let batch = publish(VERSION, "t", &[0; PAYLOAD]).repeat(250);
    let mut publishers: Vec<_> = names_at_home("publisher", 1)
        .take(PUBLISHERS)
        .map(|name| Client::connect(broker.address, VERSION, &name))
        .collect();
    let before = broker.counters().bytes_in;
    let wanted = before + (PUBLISHERS * batch.len()) as u64;
    thread::scope(|scope| {
        scope.spawn(|| {
            for publisher in &mut publishers {
                // Blocks while it is paused.
                publisher.stream.write_all(&batch).unwrap();
            }
        });
        scope.spawn(|| {
            // It takes all of it: nobody is paused for its sake.
            for _ in 0..PUBLISHERS * 250 {
                subscriber.with_packet(|packet| assert!(matches!(packet, Packet::Publish(_))));
            }
        });
    });
    broker.wait_until("all was read", |counters| counters.bytes_in >= wanted);
    for publisher in &mut publishers {
        publisher.ping();
    }
    let counters = broker.counters();
    let message = PAYLOAD + 500;
    let bound = 2 * HIGH + (PUBLISHERS + 2 * 256) * message;
    assert!(
        counters.mailbox_bytes_maximum > HIGH as u64,
        "nobody was ever paused: {counters:?}"
    );
    assert!(counters.mailbox_bytes_maximum < bound as u64, "{counters:?}");
    assert_eq!((counters.mailbox_bytes, dropped(&broker)), (0, 0));
    broker.stop();
}

/// A connection that moves to its home shard counts as mail with what its CONNECT says, such as a Will Message, or a crowd
/// of them would take memory that no limit knows of.
fn a_connection_on_its_way_counts_with_all_that_it_brings() {
    let broker = Broker::start(SHARDS, |_, engine| engine.shards = SHARDS);
    let payload = [b'x'; 10_000];
    for name in names_at_home("willing", 0) {
        let mut bytes = Vec::new();
        Connect {
            will: Some(Will {
                topic: TopicName::new("gone").unwrap(),
                payload: &payload,
                qos: QoS::AtMostOnce,
                retain: false,
                properties: WillProperties::default(),
            }),
            ..Connect::new(VERSION, &name)
        }
        .encode(VERSION, &mut bytes);
        let mut willing = Client::open(broker.address, VERSION);
        willing.send(&bytes);
        willing.expect_connack();
        willing.send(&disconnect(VERSION));
        // The system picks the shard that accepts it.
        if broker.counters().adopted > 0 {
            break;
        }
    }
    assert!(broker.counters().mailbox_bytes_maximum > payload.len() as u64);
    broker.stop();
}

/// A connection that is given up in the turn in which it was to move, because too much is held behind its CONNECT, is
/// closed, and does not arrive at home without what it sent.
fn a_connection_that_is_given_up_does_not_move() {
    let broker = Broker::start(SHARDS, |config, engine| {
        engine.shards = SHARDS;
        config.unauthenticated_bytes_max = 100;
        config.listeners[0].defer_accept = true;
    });
    let mut given_up = 0;
    for name in names_at_home("heavy", 0).take(20) {
        let mut heavy = Client::open(broker.address, VERSION);
        let mut bytes = connect(VERSION, &name);
        bytes.extend(subscribe(VERSION, &"t/".repeat(100)));
        bytes.extend([0xc0, 0]);
        heavy.send(&bytes);
        // On its home shard it is in as soon as its CONNECT is read; elsewhere it is one of the crowd outside.
        let counters = || broker.counters();
        let mut first = [0];
        if heavy.stream.peek(&mut first).is_ok_and(|n| n == 1) {
            heavy.expect_connack();
            for _ in 0..2 {
                // SUBACK waits for the other shard, PINGRESP for nothing.
                let is_answer = |packet: Packet<'_>| matches!(packet, Packet::SubAck(_) | Packet::PingResp);
                assert!(heavy.with_packet(is_answer));
            }
        } else {
            given_up += 1;
        }
        assert_eq!(counters().adopted, 0);
        assert_eq!(counters().evicted, given_up);
    }
    broker.wait_until("all are closed", |counters| counters.connections == 0);
    assert!(given_up > 0, "all were accepted at home");
    broker.stop();
}
