//! Faults of ours, planted in the codec and in the engine: what they take with them, what other clients see, and when
//! the shard gives up. Needs the feature `mutants`: a PUBLISH to a topic of that name asks for a fault.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

#[macro_use]
mod support;

use std::num::NonZeroU16;

use sol_codec::{Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, TopicName};
use sol_transport::Exit;
use support::{Broker, Client, name_at_home, puback, publish_at};

on_each_backend! {
    a_fault_costs_the_connection_that_caused_it_and_nobody_else
    faults_while_decoding_do_not_add_up
    a_fault_that_leaves_a_contradiction_ends_the_shard
    a_second_fault_within_a_minute_ends_the_shard
    a_fault_ahead_of_a_forward_is_survived_on_many_shards
    a_fault_behind_a_forward_ends_the_broker
    a_fault_over_what_waited_in_line_ends_the_broker
}

const V5: ProtocolVersion = ProtocolVersion::V5;
const V311: ProtocolVersion = ProtocolVersion::V311;
/// Why the shard ends where a call failed that no connection had caused.
const NOBODY_TO_TELL: &str = "planted in the middle of an update; others wait for what failed, and nobody can be told";

fn id(value: u16) -> Option<PacketId> {
    PacketId::new(value)
}

/// Publishes and waits for the acknowledgement.
fn publish_acked(client: &mut Client, version: ProtocolVersion, topic: &str, packet_id: u16) {
    client.send(&publish_at(version, topic, b"", QoS::AtLeastOnce, id(packet_id)));
    expect_puback(client, packet_id);
}

fn expect_puback(client: &mut Client, packet_id: u16) {
    client.with_packet(|packet| match packet {
        Packet::PubAck(ack) => assert_eq!(Some(ack.packet_id), id(packet_id)),
        other => panic!("no PUBACK: {other:?}"),
    });
}

/// The next packet is this message, and is acknowledged.
fn expect_and_ack(client: &mut Client, version: ProtocolVersion, topic: &str) {
    let packet_id = client.with_packet(|packet| match packet {
        Packet::Publish(publish) => {
            assert_eq!(publish.topic.map(TopicName::as_str), Some(topic));
            assert!(!publish.dup);
            publish.packet_id
        }
        other => panic!("no PUBLISH: {other:?}"),
    });
    client.send(&puback(version, packet_id.unwrap()));
}

/// A client with so small a Receive Maximum that one message which never left would stop it for ever.
fn narrow(broker: &Broker, filter: &str) -> Client {
    let mut bytes = Vec::new();
    Connect {
        properties: ConnectProperties {
            receive_maximum: NonZeroU16::new(1),
            ..ConnectProperties::default()
        },
        ..Connect::new(V5, "narrow")
    }
    .encode(V5, &mut bytes);
    let mut client = Client::open(broker.address, V5);
    client.send(&bytes);
    client.expect_connack();
    client.subscribe_at(filter, QoS::AtLeastOnce);
    client
}

/// A fault while decoding, before an update or in the middle of one ends the connection that caused it, 5.0 with a
/// DISCONNECT 0x83, after what it was owed already. Others lose nothing and get nothing of it: their messages go on, in
/// order, and are acknowledged.
fn a_fault_costs_the_connection_that_caused_it_and_nobody_else() {
    support::keep_shards();
    for place in ["panic/decode", "panic/before", "panic/middle"] {
        for version in [V311, V5] {
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let broker = Broker::start(1, |_, _| ());
                let mut narrow = narrow(&broker, "#");
                let mut old = Client::connect(broker.address, V311, "old");
                old.subscribe_at("#", QoS::AtLeastOnce);
                let mut publisher = Client::connect(broker.address, V5, "publisher");
                publish_acked(&mut publisher, V5, "one", 1);
                expect_and_ack(&mut narrow, V5, "one");
                expect_and_ack(&mut old, V311, "one");

                let mut guilty = Client::connect(broker.address, version, "guilty");
                let mut bytes = publish_at(version, "two", b"", QoS::AtLeastOnce, id(1));
                bytes.extend(publish_at(version, place, b"", qos, id(2)));
                bytes.extend(publish_at(version, "never", b"", QoS::AtLeastOnce, id(3)));
                guilty.send(&bytes);
                expect_puback(&mut guilty, 1);
                if version == V5 {
                    guilty.expect_disconnect(ReasonCode::ImplementationSpecificError);
                } else {
                    guilty.expect_end();
                }

                publish_acked(&mut publisher, V5, "three", 2);
                publish_acked(&mut publisher, V5, "four", 3);
                for topic in ["two", "three", "four"] {
                    expect_and_ack(&mut narrow, V5, topic);
                    expect_and_ack(&mut old, V311, topic);
                }
                Client::connect(broker.address, version, "guilty").ping();
                assert_eq!(broker.counters().panics, 1);
                drop((narrow, old, publisher));
                broker.stop();
            }
        }
    }
}

/// Faults while decoding cost their connections however many there are: the codec keeps nothing that could be broken,
/// and else whoever finds one sequence of bytes ends the broker by sending it twice.
fn faults_while_decoding_do_not_add_up() {
    support::keep_shards();
    let broker = Broker::start(1, |_, _| ());
    let mut other = Client::connect(broker.address, V5, "other");
    for panics in 1..=5 {
        let mut guilty = Client::connect(broker.address, V5, "guilty");
        guilty.send(&publish_at(V5, "panic/decode", b"", QoS::AtMostOnce, None));
        guilty.expect_disconnect(ReasonCode::ImplementationSpecificError);
        assert_eq!(broker.counters().panics, panics);
    }
    other.ping();
    drop(other);
    broker.stop();
}

/// A fault after which the engine finds its tables in contradiction ends the shard as poisoned, and from then on no
/// acknowledgement leaves, not even one that was due before.
fn a_fault_that_leaves_a_contradiction_ends_the_shard() {
    support::keep_shards();
    let broker = Broker::start(1, |_, _| ());
    let mut guilty = Client::connect(broker.address, V5, "guilty");
    let mut bytes = publish_at(V5, "fine", b"", QoS::AtLeastOnce, id(1));
    bytes.extend(publish_at(V5, "panic/unsound", b"", QoS::AtLeastOnce, id(2)));
    guilty.send(&bytes);
    guilty.expect_no_more();
    let Exit::Poisoned(why) = broker.join() else {
        panic!("the shard goes on")
    };
    assert_eq!(
        why,
        "planted with the gauges wrong; the gauge of Subscriptions is wrong"
    );
}

/// A second fault of the engine within a minute ends the shard as poisoned, whoever caused it, and from then on no
/// acknowledgement leaves.
fn a_second_fault_within_a_minute_ends_the_shard() {
    support::keep_shards();
    let broker = Broker::start(1, |_, _| ());
    let mut first = Client::connect(broker.address, V5, "first");
    first.send(&publish_at(V5, "panic/before", b"", QoS::AtLeastOnce, id(1)));
    first.expect_disconnect(ReasonCode::ImplementationSpecificError);
    let mut second = Client::connect(broker.address, V5, "second");
    let mut bytes = publish_at(V5, "fine", b"", QoS::AtLeastOnce, id(1));
    bytes.extend(publish_at(V5, "panic/before", b"", QoS::AtLeastOnce, id(2)));
    second.send(&bytes);
    second.expect_no_more();
    let Exit::Poisoned(why) = broker.join() else {
        panic!("the shard goes on")
    };
    assert_eq!(why, "planted before an update; the second within a minute");
}

/// With other shards, whatever they were told already cannot be taken back: a fault behind it ends the broker, and one
/// ahead of it does not.
fn a_fault_ahead_of_a_forward_is_survived_on_many_shards() {
    support::keep_shards();
    let broker = Broker::start(2, |_, _| ());
    let mut readers: Vec<Client> = (0..4)
        .map(|n| {
            let mut reader = Client::connect(broker.address, V5, &format!("reader {n}"));
            reader.subscribe_at("#", QoS::AtLeastOnce);
            reader
        })
        .collect();
    let mut guilty = Client::connect(broker.address, V5, "guilty");
    guilty.send(&publish_at(V5, "panic/before", b"", QoS::AtLeastOnce, id(1)));
    guilty.expect_disconnect(ReasonCode::ImplementationSpecificError);
    let mut publisher = Client::connect(broker.address, V5, "publisher");
    publish_acked(&mut publisher, V5, "fine", 1);
    for reader in &mut readers {
        expect_and_ack(reader, V5, "fine");
    }
    drop((readers, publisher));
    broker.stop();
}

/// A fault over what another shard has forwarded cannot be told to the publisher, whose acknowledgement waits for it and
/// for which later ones wait: it ends the broker, and no acknowledgement leaves.
fn a_fault_behind_a_forward_ends_the_broker() {
    support::keep_shards();
    let broker = Broker::start(2, |_, _| ());
    let mut reader = Client::connect(broker.address, V5, &name_at_home("reader", 1));
    reader.subscribe_at("panic/middle", QoS::AtLeastOnce);
    let mut publisher = Client::connect(broker.address, V5, &name_at_home("publisher", 0));
    publish_acked(&mut publisher, V5, "fine", 1);
    publisher.send(&publish_at(V5, "panic/middle", b"", QoS::AtLeastOnce, id(2)));
    let Exit::Poisoned(why) = broker.join() else {
        panic!("the shard goes on")
    };
    assert_eq!(why, NOBODY_TO_TELL);
    // Its own shard did not fail, and is stopped with the broker.
    publisher.expect_disconnect(ReasonCode::ServerShuttingDown);
}

/// The same for a publish that waited in line behind a large fan-out: its call is long over when it is routed.
fn a_fault_over_what_waited_in_line_ends_the_broker() {
    support::keep_shards();
    let broker = Broker::start(1, |_, engine| engine.tray_max = 2);
    let mut readers: Vec<Client> = (0..6)
        .map(|n| {
            let mut reader = Client::connect(broker.address, V5, &format!("reader {n}"));
            reader.subscribe_at("wide", QoS::AtMostOnce);
            reader
        })
        .collect();
    readers[0].subscribe_at("panic/middle", QoS::AtMostOnce);
    let mut publisher = Client::connect(broker.address, V5, "publisher");
    let mut bytes = publish_at(V5, "wide", b"", QoS::AtMostOnce, None);
    bytes.extend(publish_at(V5, "panic/middle", b"", QoS::AtLeastOnce, id(1)));
    bytes.extend(publish_at(V5, "fine", b"", QoS::AtLeastOnce, id(2)));
    publisher.send(&bytes);
    publisher.expect_no_more();
    let Exit::Poisoned(why) = broker.join() else {
        panic!("the shard goes on")
    };
    assert_eq!(why, NOBODY_TO_TELL);
}
