//! What connections hold in memory: bounded for all of them together, and in time.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[macro_use]
mod support;

use std::io::Write;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use sol_codec::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    TopicName,
};
use sol_engine::{AuthRequest, Event, ShardId};
use sol_transport::{Applicant, AuthReply, Notice, Observer, Source};

use self::support::{Broker, Client, PATIENCE, name_at_home, names_at_home, publish};

on_each_backend! {
    parts_of_packets_are_bounded_for_all_together_and_the_largest_goes
    output_that_is_not_taken_is_bounded_for_all_together
    a_shard_that_sleeps_closes_whoever_holds_most_when_another_passes_the_limit
    a_packet_that_does_not_arrive_whole_in_time_ends_its_connection
    no_shard_lets_a_session_in_after_one_was_refused_for_memory
}

/// A PUBLISH of 900 KB.
fn large() -> Vec<u8> {
    publish(ProtocolVersion::V5, "large", &vec![b'x'; 900_000])
}

/// Publishes a retained message at QoS 1, and gives the Reason Code of its PUBACK.
fn publish_retained(client: &mut Client) -> ReasonCode {
    retain(client, "retained", b"x")
}

fn retain(client: &mut Client, topic: &str, payload: &[u8]) -> ReasonCode {
    let mut bytes = Vec::new();
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: Some(TopicName::new(topic).unwrap()),
        packet_id: PacketId::new(1),
        properties: PublishProperties::default(),
        payload,
    }
    .encode(ProtocolVersion::V5, &mut bytes);
    client.send(&bytes);
    client.with_packet(|packet| match packet {
        Packet::PubAck(ack) => ack.reason_code,
        other => panic!("no PUBACK: {other:?}"),
    })
}

fn parts_of_packets_are_bounded_for_all_together_and_the_largest_goes() {
    support::keep_shards();
    // With 1 MiB for everything, the marks are at 512 KiB and 1 MiB.
    let broker = Broker::start(1, |_, engine| engine.memory_bytes_max = 1 << 20);
    let version = ProtocolVersion::V5;
    let mut other = Client::connect(broker.address, version, "other");
    assert_eq!(publish_retained(&mut other), ReasonCode::NoMatchingSubscribers);
    let packet = large();
    let part = |name: &str, len: usize| {
        let mut client = Client::connect(broker.address, version, name);
        let before = broker.counters().bytes_in;
        client.send(&packet[..len]);
        broker.wait_until("its part", |counters| counters.bytes_in >= before + len as u64);
        client
    };
    let mut largest = part("largest", 600_000);
    assert_eq!(broker.counters().shed, 0);
    // Above the first mark nothing more is taken in to be kept (0x97, section 3.4.2.1).
    assert_eq!(publish_retained(&mut other), ReasonCode::QuotaExceeded);
    let small: Vec<Client> = (0..8).map(|n| part(&format!("small{n}"), 150_000)).collect();
    let counters = broker.counters();
    assert!(counters.shed >= 1 && counters.held_bytes <= 1 << 20, "{counters:?}");
    largest.expect_cut();
    other.ping();
    // And back again, when they have gone.
    drop(small);
    broker.wait_until("relief", |counters| counters.held_bytes == 0);
    assert_eq!(publish_retained(&mut other), ReasonCode::NoMatchingSubscribers);
    broker.stop();
}

fn output_that_is_not_taken_is_bounded_for_all_together() {
    support::keep_shards();
    // Each of them is within what one connection may have unsent; together they are not.
    let broker = Broker::start(1, |_, engine| {
        engine.memory_bytes_max = 4 << 20;
        engine.maximum_packet_size = 100_000;
        engine.unsent_bytes_high = 1 << 20;
        engine.unsent_bytes_max = 4 << 20;
    });
    let version = ProtocolVersion::V5;
    let mut slow: Vec<Client> = (0..4)
        .map(|n| {
            let mut client = Client::connect(broker.address, version, &format!("slow{n}"));
            client.subscribe("flood");
            client
        })
        .collect();
    let mut publisher = Client::connect(broker.address, version, "publisher");
    let message = publish(version, "flood", &vec![b'x'; 60_000]);
    let mut sent = 0;
    while broker.counters().shed == 0 {
        publisher.send(&message);
        publisher.ping();
        sent += 1;
        assert!(sent < 2_000, "nobody was closed: {:?}", broker.counters());
    }
    broker.wait_until("room", |counters| counters.held_bytes <= 2 << 20);
    // Closing one of them was enough.
    assert_eq!(broker.counters().shed, 1);
    for client in &mut slow {
        let _ = client.stream.shutdown(std::net::Shutdown::Both);
    }
    broker.wait_until("relief", |counters| counters.held_bytes == 0);
    publisher.ping();
    broker.stop();
}

/// Tells on which shard somebody was closed for what was held.
struct Witness(ShardId, Sender<ShardId>);

impl Observer for Witness {
    fn event(&mut self, _: &Event, _: Option<Source>) {}

    fn notice(&mut self, notice: Notice<'_>) {
        if matches!(notice, Notice::Shed(_)) {
            self.1.send(self.0).unwrap();
        }
    }

    fn auth(&mut self, _: AuthRequest, _: Applicant<'_>, _: AuthReply) {}
}

/// Where most is held on a shard that has nothing to do, it wakes up for it when the limit is passed elsewhere, and closes
/// who holds most; those who hold less on the other shard stay.
fn a_shard_that_sleeps_closes_whoever_holds_most_when_another_passes_the_limit() {
    let (shed, sheds) = channel();
    let broker = Broker::start_observed(
        2,
        move |shard| Witness(shard, shed.clone()),
        |_, engine| {
            engine.shards = 2;
            // The limit of what is held is half of it.
            engine.memory_bytes_max = 4 << 20;
            engine.maximum_packet_size = 100_000;
            engine.unsent_bytes_high = 900_000;
            engine.unsent_bytes_max = 4 << 20;
        },
    );
    let version = ProtocolVersion::V5;
    // All are at home before anything is held, so that the shard of the slow ones hears of nothing later.
    let at_home = |name: String| Client::connect(broker.address, version, &name);
    let mut halves: Vec<Client> = names_at_home("half", 0).take(4).map(at_home).collect();
    let mut slow: Vec<Client> = names_at_home("slow", 1).take(2).map(at_home).collect();
    let mut publisher = at_home(name_at_home("publisher", 1));
    for client in &mut slow {
        client.subscribe("flood");
    }
    let message = publish(version, "flood", &[b'x'; 20_000]);
    let mut sent = 0;
    // What each may have unsent, and no more than that is put into their output.
    while broker.counters().held_bytes < 1_800_000 {
        publisher.send(&message);
        publisher.ping();
        sent += 1;
        assert!(sent < 4_000, "they take all of it: {:?}", broker.counters());
    }
    let counters = broker.counters();
    assert!(counters.shed == 0 && counters.held_bytes < 2_000_000, "{counters:?}");
    let large = publish(version, "nobody", &[b'x'; 95_000]);
    let (part, rest) = large.split_at(90_000);
    for half in &mut halves {
        half.send(part);
    }
    // Nobody asks the shards anything before that: it would wake them.
    assert_eq!(sheds.recv_timeout(PATIENCE), Ok(ShardId(1)));
    for half in &mut halves {
        half.send(rest);
        half.ping();
    }
    assert_eq!(broker.counters().shed, 1);
    broker.stop();
}

fn a_packet_that_does_not_arrive_whole_in_time_ends_its_connection() {
    let broker = Broker::start(1, |config, _| config.frame_time_max = Duration::from_millis(300));
    let version = ProtocolVersion::V5;
    let mut idle = Client::connect(broker.address, version, "idle");
    idle.subscribe("large");
    let mut half = Client::connect(broker.address, version, "half");
    let packet = large();
    half.send(&packet[..100]);
    half.expect_cut();
    assert_eq!(broker.counters().frame_timeouts, 1);
    // One that trickles is no better.
    let mut trickle = Client::connect(broker.address, version, "trickle");
    trickle.send(&packet[..100]);
    while trickle.stream.write_all(b"x").is_ok() {
        idle.ping();
    }
    assert_eq!(broker.counters().frame_timeouts, 2);
    // Between two packets a client may be silent for as long as it likes.
    let mut whole = Client::connect(broker.address, version, "whole");
    whole.send(&packet);
    idle.expect_publish("large", &vec![b'x'; 900_000]);
    idle.ping();
    broker.stop();
}

/// At QoS 0, which is not refused when memory is full: an empty message clears what is retained (section 3.3.1.3).
fn clear(client: &mut Client, topic: &str) {
    let mut bytes = Vec::new();
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic: Some(TopicName::new(topic).unwrap()),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"",
    }
    .encode(ProtocolVersion::V5, &mut bytes);
    client.send(&bytes);
}

/// The Reason Code of the CONNACK for a client whose Session would stay.
fn come_to_stay(broker: &Broker, client_id: &str) -> ReasonCode {
    let mut bytes = Vec::new();
    Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry_interval: Some(600),
            ..ConnectProperties::default()
        },
        ..Connect::new(ProtocolVersion::V5, client_id)
    }
    .encode(ProtocolVersion::V5, &mut bytes);
    let mut client = Client::open(broker.address, ProtocolVersion::V5);
    client.send(&bytes);
    client.with_packet(|packet| match packet {
        Packet::ConnAck(ack) => ack.reason_code,
        other => panic!("no CONNACK: {other:?}"),
    })
}

fn no_shard_lets_a_session_in_after_one_was_refused_for_memory() {
    // 0x97 (section 3.2.2.2) from whichever shard, as soon as a publisher has heard it from any; until there is room.
    for shards in [2, 3, 5] {
        let broker = Broker::start(shards, |_, engine| engine.memory_bytes_max = 1 << 20);
        let mut publisher = Client::connect(broker.address, ProtocolVersion::V5, "publisher");
        let topic = |n: usize| format!("retained/{n}");
        let mut kept = 0;
        while retain(&mut publisher, &topic(kept), &[b'x'; 3_000]) != ReasonCode::QuotaExceeded {
            kept += 1;
        }
        for n in 0..4 * shards {
            assert_eq!(come_to_stay(&broker, &format!("stays{n}")), ReasonCode::QuotaExceeded);
        }
        assert!((200..360).contains(&kept), "{kept}");
        for n in 0..kept / 4 {
            clear(&mut publisher, &topic(n));
        }
        for n in 0..4 * shards {
            let client_id = format!("comes-back{n}");
            broker.wait_until("room", |_| come_to_stay(&broker, &client_id) == ReasonCode::Success);
        }
        broker.stop();
    }
}
