//! Bytes in, bytes out: however they are cut, the packets are the same.

use std::net::SocketAddr;

use sol_codec::{Packet, PacketId, ProtocolVersion, QoS, TopicName};

use crate::support::{Broker, Client, connect, disconnect, publish, publish_at, subscribe};

on_each_backend! {
    a_client_may_pipeline_everything_in_one_segment
    connections_move_to_their_home_shard
    a_client_may_send_one_byte_in_a_segment
    a_packet_larger_than_every_buffer_arrives_whole
    packets_cut_at_every_place_are_the_same_packets
    one_message_reaches_many_clients_of_every_version_and_qos_as_it_should
    what_a_client_sent_before_it_closed_its_side_is_answered
    disconnect_ends_the_connection_in_order
}

fn with_shards(test: impl Fn(&Broker)) {
    for shards in [1, 2] {
        let broker = Broker::start(shards, |_, _| ());
        test(&broker);
        broker.stop();
    }
}

/// CONNECT, SUBSCRIBE and two PUBLISH packets to itself.
fn conversation(version: ProtocolVersion, client_id: &str) -> Vec<u8> {
    let mut bytes = connect(version, client_id);
    bytes.extend(subscribe(version, client_id));
    bytes.extend(publish(version, client_id, b"one"));
    bytes.extend(publish(version, client_id, b"two"));
    bytes
}

/// The answers: the messages in order, and SUBACK wherever it falls. It waits for other shards, and messages that match
/// may come before it (section 3.8.4).
fn expect_conversation(client: &mut Client, client_id: &str) {
    client.expect_connack();
    let mut payloads = Vec::new();
    let mut subacks = 0;
    for _ in 0..3 {
        client.with_packet(|packet| match packet {
            Packet::SubAck(_) => subacks += 1,
            Packet::Publish(publish) => {
                assert_eq!(publish.topic.map(TopicName::as_str), Some(client_id));
                payloads.push(publish.payload.to_vec());
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(subacks, 1);
    assert_eq!(payloads, [b"one", b"two"]);
}

fn open(address: SocketAddr, version: ProtocolVersion) -> Client {
    Client::open(address, version)
}

fn a_client_may_pipeline_everything_in_one_segment() {
    // Nothing says that a client waits for CONNACK (3.1.4, non-normative comment), and no byte behind CONNECT is lost
    // when the connection moves to its home shard.
    with_shards(|broker| {
        for version in ProtocolVersion::ALL {
            for n in 0..20 {
                let client_id = format!("move{n}");
                let mut client = open(broker.address, version);
                client.send(&conversation(version, &client_id));
                expect_conversation(&mut client, &client_id);
            }
        }
    });
}

fn connections_move_to_their_home_shard() {
    crate::support::keep_shards();
    // A Session lives on one shard, wherever its connection was accepted.
    let broker = Broker::start(2, |_, _| ());
    for n in 0..40 {
        let client_id = format!("move{n}");
        let mut client = open(broker.address, ProtocolVersion::V5);
        client.send(&conversation(ProtocolVersion::V5, &client_id));
        expect_conversation(&mut client, &client_id);
        client.ping();
    }
    assert!(broker.counters().adopted > 0);
    broker.wait_until("the table is empty", |counters| counters.connections == 0);
    broker.stop();
}

fn a_client_may_send_one_byte_in_a_segment() {
    with_shards(|broker| {
        let version = ProtocolVersion::V5;
        let mut client = open(broker.address, version);
        for byte in conversation(version, "move-slowly") {
            client.send(&[byte]);
        }
        expect_conversation(&mut client, "move-slowly");
    });
}

fn a_packet_larger_than_every_buffer_arrives_whole() {
    let broker = Broker::start(1, |config, _| config.read_bytes = 4 << 10);
    let version = ProtocolVersion::V311;
    let payload: Vec<u8> = (0..500_000_u32).map(|n| n as u8).collect();
    let mut subscriber = Client::connect(broker.address, version, "subscriber");
    subscriber.subscribe("large");
    let mut publisher = Client::connect(broker.address, version, "publisher");
    for _ in 0..3 {
        publisher.send(&publish(version, "large", &payload));
        publisher.send(&publish(version, "large", b"small"));
        subscriber.expect_publish("large", &payload);
        subscriber.expect_publish("large", b"small");
    }
    broker.stop();
}

fn packets_cut_at_every_place_are_the_same_packets() {
    // Small reads make every packet straddle two of them at some place or other.
    let version = ProtocolVersion::V5;
    for read_bytes in [1, 2, 3, 7, 64] {
        let broker = Broker::start(1, |config, _| {
            config.read_bytes = read_bytes;
            config.connect_bytes_max = 64;
        });
        let mut client = open(broker.address, version);
        client.send(&conversation(version, "cut"));
        expect_conversation(&mut client, "cut");
        for length in 0..40 {
            client.send(&publish(version, "cut", &vec![b'x'; length]));
        }
        for length in 0..40 {
            client.expect_publish("cut", &vec![b'x'; length]);
        }
        drop(client);
        broker.stop();
    }
}

fn one_message_reaches_many_clients_of_every_version_and_qos_as_it_should() {
    // A fan-out copies bytes that were encoded once; nobody gets another one's.
    let broker = Broker::start(1, |_, _| ());
    let mut subscribers = Vec::new();
    for n in 0..30 {
        let version = ProtocolVersion::ALL[n % 3];
        let mut client = Client::connect(broker.address, version, &format!("subscriber{n}"));
        client.subscribe("fan/out");
        subscribers.push(client);
    }
    let mut publisher = Client::connect(broker.address, ProtocolVersion::V5, "publisher");
    for payload in [&b"first"[..], b"", b"third, and longer"] {
        publisher.send(&publish(ProtocolVersion::V5, "fan/out", payload));
        for subscriber in &mut subscribers {
            subscriber.expect_publish("fan/out", payload);
        }
    }
    drop(subscribers);
    broker.stop();
}

fn what_a_client_sent_before_it_closed_its_side_is_answered() {
    // A FIN that comes together with data ends the connection after the data, not instead of it.
    with_shards(|broker| {
        let version = ProtocolVersion::V5;
        let mut client = open(broker.address, version);
        let mut bytes = connect(version, "half");
        bytes.extend(publish_at(version, "half", b"x", QoS::AtLeastOnce, PacketId::new(7)));
        client.send(&bytes);
        client.finish_sending();
        client.expect_connack();
        client.with_packet(|packet| assert!(matches!(packet, Packet::PubAck(ack) if ack.packet_id.get() == 7)));
        client.expect_end();
    });
}

fn disconnect_ends_the_connection_in_order() {
    // [MQTT-3.14.4-3] names the client's close; the server closes if the client does not.
    with_shards(|broker| {
        let version = ProtocolVersion::V311;
        let mut client = Client::connect(broker.address, version, "leaves");
        client.send(&disconnect(version));
        client.expect_end();
        drop(client);
        broker.wait_until("the connection is gone", |counters| counters.connections == 0);
    });
}
