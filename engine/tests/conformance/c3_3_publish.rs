//! Section 3.3: PUBLISH. Properties and retained messages are in files of their own.

use std::num::NonZeroU32;

use sol_codec::{Packet, PublishProperties, QoS, SubscriptionId, SubscriptionIds};
use sol_engine::{EngineConfig, Input, Message};

use crate::support::*;

/// A message reaches a subscriber on whatever shard, and its publisher gets what its QoS demands: nothing, PUBACK, or
/// PUBREC and PUBCOMP.
///
/// Proves 5.0: MQTT-3.3.4-1; 3.1.1: MQTT-3.3.4-1.
#[test]
fn a_message_reaches_its_subscriber() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let subscriber = node.connect(V5, "subscriber");
            let publisher = node.connect(version, "publisher");
            node.subscribed(subscriber, &["a/+"], 1);
            node.publish(publisher, "a/b", 0, 0, "zero");
            node.expect(publisher, &[]);
            node.publish(publisher, "a/b", 1, 7, "one");
            node.expect(publisher, &["PUBACK #7"]);
            node.publish(publisher, "a/b", 2, 8, "two");
            node.expect(publisher, &["PUBREC #8"]);
            node.pubrel(publisher, 8);
            node.expect(publisher, &["PUBCOMP #8"]);
            node.expect(
                subscriber,
                &[
                    r#"PUBLISH a/b q0 "zero""#,
                    r#"PUBLISH a/b q1 #1 "one""#,
                    r#"PUBLISH a/b q1 #2 "two""#,
                ],
            );
        }
    });
}

/// On the wire the Topic Name is the first field behind the Fixed Header, as UTF-8, and the QoS bits are the QoS; a QoS
/// of 3 or a Topic Name that is not UTF-8 is malformed.
///
/// Proves 5.0: MQTT-3.3.1-4, MQTT-3.3.2-1; 3.1.1: MQTT-3.3.1-4, MQTT-3.3.2-1.
#[test]
fn publish_on_the_wire() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        for version in [V311, V5] {
            let subscriber = node.connect(version, "subscriber");
            node.subscribed(subscriber, &["#"], 2);
            node.take_bytes(subscriber);
            let publisher = node.connect(version, "publisher");
            let none: &[u8] = if version == V5 { &[0] } else { &[] };
            for (level, packet_id) in [(0, &[][..]), (1, &[0, 1]), (2, &[0, 2])] {
                node.publish(publisher, "hö", level, 9, "p");
                let behind = [&[0, 3, b'h', 0xc3, 0xb6], packet_id, none, b"p"].concat();
                let whole = [&[0x30 | level << 1, behind.len() as u8], &behind[..]].concat();
                assert_eq!(node.take_bytes(subscriber), [whole]);
            }
            node.refuses_bytes(publisher, &[0x36, 5, 0, 1, b't', 0, 1], 0x81);
            for text in [&[0xff][..], &[0xc3], &[0xed, 0xa0, 0x80]] {
                let publisher = node.connect(version, "publisher");
                let behind = [&[0, text.len() as u8], text, none].concat();
                node.refuses_bytes(publisher, &[&[0x30, behind.len() as u8], &behind[..]].concat(), 0x81);
            }
            node.expect(subscriber, &[]);
            node.disconnect(subscriber);
        }
    });
}

/// Every QoS is delivered at the lower of published and granted.
///
/// Proves 5.0: MQTT-3.8.4-8; 3.1.1: MQTT-3.8.4-6.
#[test]
fn the_lower_qos_is_delivered() {
    in_every_node(|node| {
        for version in [V311, V5] {
            for granted in 0..=2 {
                let subscriber = node.connect(version, "subscriber");
                let publisher = node.connect(V5, "publisher");
                node.subscribed(subscriber, &["t"], granted);
                for published in 0..=2 {
                    node.publish(publisher, "t", published, u16::from(published), "x");
                    let level = granted.min(published);
                    let got = node.take(subscriber);
                    assert_eq!(got.len(), 1);
                    assert!(got[0].starts_with(&format!("PUBLISH t q{level}")), "{got:?}");
                    assert_eq!(packet_id_of(&got[0]) > 0, level > 0);
                }
            }
        }
    });
}

/// DUP of an incoming message is not passed on.
///
/// Proves 5.0: MQTT-3.3.1-3; 3.1.1: MQTT-3.3.1-3.
#[test]
fn dup_is_not_passed_on() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let subscriber = node.connect(version, "subscriber");
            node.subscribed(subscriber, &["t"], 2);
            let publisher = node.connect(version, "publisher");
            node.publish_with(publisher, "t", 2, 1, "x", |publish| publish.dup = true);
            node.expect(publisher, &["PUBREC #1"]);
            node.expect(subscriber, &[r#"PUBLISH t q2 #1 "x""#]);
        }
    });
}

/// Section 3.4.2.1: a 5.0 publisher learns that nobody subscribed (0x10); a 3.1.1 publisher gets a plain acknowledgement.
#[test]
fn no_matching_subscribers_is_told() {
    in_every_node(|node| {
        let five = node.connect(V5, "five");
        node.publish(five, "t", 1, 1, "x");
        node.publish(five, "t", 2, 2, "x");
        node.expect(five, &["PUBACK #1 10", "PUBREC #2 10"]);
        node.pubrel(five, 2);
        node.expect(five, &["PUBCOMP #2"]);
        let three = node.connect(V311, "three");
        node.publish(three, "t", 1, 1, "x");
        node.publish(three, "t", 2, 2, "x");
        node.expect(three, &["PUBACK #1", "PUBREC #2"]);
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 0);
        node.publish(five, "t", 1, 3, "x");
        node.expect(five, &["PUBACK #3"]);
    });
}

/// Overlapping Subscriptions give one copy, at the highest QoS, with all their identifiers.
///
/// Proves 5.0: MQTT-3.3.4-2, MQTT-3.3.4-3, MQTT-3.3.4-4; 3.1.1: MQTT-3.3.5-1.
#[test]
fn overlapping_subscriptions_give_one_copy() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            let subscriber = node.connect(version, "subscriber");
            for (filter, id, level) in [("a/#", 11, 0), ("a/+", 7, 2), ("a/b", 268_435_455, 1)] {
                let id = (version == V5).then_some(id);
                node.subscribe_with(subscriber, &[filter], id, options(level));
            }
            node.take(subscriber);
            node.publish(publisher, "a/b", 2, 1, "x");
            node.pubrel(publisher, 1);
            let expected = if version == V5 {
                r#"PUBLISH a/b q2 #1 ids[7, 11, 268435455] "x""#
            } else {
                r#"PUBLISH a/b q2 #1 "x""#
            };
            node.expect(subscriber, &[expected]);
            node.publish(publisher, "a/c", 1, 2, "y");
            let expected = if version == V5 {
                r#"PUBLISH a/c q1 #2 ids[7, 11] "y""#
            } else {
                r#"PUBLISH a/c q1 #2 "y""#
            };
            node.expect(subscriber, &[expected]);
        }
    });
}

/// An overlap is found also where other Sessions stand between, and where a fan-out is cut.
#[test]
fn overlaps_of_many_sessions_give_one_copy_each() {
    let config = EngineConfig {
        tray_max: 3,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let clients: Vec<_> = (0..10).map(|n| node.connect(V5, &format!("c{n}"))).collect();
        for filter in ["a/#", "a/b", "+/b"] {
            for &client in &clients {
                node.subscribed(client, &[filter], 1);
            }
        }
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "a/b", 1, 1, "x");
        node.expect(publisher, &["PUBACK #1"]);
        for client in clients {
            node.expect(client, &[r#"PUBLISH a/b q1 #1 "x""#]);
        }
    });
}

/// No Local keeps a client's own messages from it, and nobody else's; without it they come back.
///
/// Proves 5.0: MQTT-3.8.3-3.
#[test]
fn no_local_keeps_own_messages_away() {
    in_every_node(|node| {
        let client = node.connect_durable(V5, "client");
        let other = node.connect(V5, "other");
        let mut no_local = options(1);
        no_local.no_local = true;
        node.subscribe_with(client, &["t"], None, no_local);
        node.subscribe_with(other, &["t"], None, no_local);
        node.take(client);
        node.take(other);
        node.publish(client, "t", 1, 1, "own");
        let got = node.take(client);
        assert_eq!(got, ["PUBACK #1"]);
        node.publish(other, "t", 1, 1, "other");
        node.expect(client, &[r#"PUBLISH t q1 #1 "other""#]);
        node.expect(other, &[r#"PUBLISH t q1 #1 "own""#, "PUBACK #1"]);
        // A second Subscription without No Local is one that the message matches.
        node.subscribed(client, &["#"], 0);
        node.publish(client, "t", 0, 0, "own");
        node.expect(client, &[r#"PUBLISH t q0 "own""#]);
    });
}

/// [MQTT-3.3.4-6]: a Subscription Identifier in a client's PUBLISH is a Protocol Error.
#[test]
fn a_subscription_identifier_in_publish_is_an_error() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.send(client, |send| {
            let mut packet = publish("t", 0, 0, b"");
            packet.properties = PublishProperties {
                subscription_ids: SubscriptionIds::one(SubscriptionId::new(1).unwrap()),
                ..Default::default()
            };
            send(&Packet::Publish(packet));
        });
        node.expect(client, &["DISCONNECT 82", "CLOSE"]);
    });
}

/// [MQTT-3.2.2-11, -14]: QoS above Maximum QoS (0x9B) and RETAIN where it is not available (0x9A) end the connection.
#[test]
fn what_connack_forbade_ends_the_connection() {
    let config = EngineConfig {
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let client = node.connect(V5, "client");
        node.publish(client, "t", 2, 1, "");
        node.expect(client, &["DISCONNECT 9b", "CLOSE"]);
        let client = node.connect(V5, "client");
        node.retain(client, "t", 0, 0, "x");
        node.expect(client, &["DISCONNECT 9a", "CLOSE"]);
        // 3.1.1 has no way to be told: the message is passed on and not kept.
        let three = node.connect(V311, "three");
        node.subscribed(three, &["t"], 0);
        node.retain(three, "t", 0, 0, "x");
        assert_eq!(node.take(three).len(), 1);
        node.publish(three, "t", 2, 1, "");
        node.expect(three, &["CLOSE"]);
        assert_eq!(node.stats().retained_messages, 0);
    });
}

/// [MQTT-3.2.2-10]: a server with Maximum QoS 1 still takes a SUBSCRIBE with QoS 2, and grants 1.
#[test]
fn subscribing_above_maximum_qos_is_granted_less() {
    let config = EngineConfig {
        maximum_qos: QoS::AtLeastOnce,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let client = node.connect(V5, "client");
        node.subscribe(client, &["t"], 2);
        node.expect(client, &["SUBACK #1 [01]"]);
    });
}

/// A message larger than the client's Maximum Packet Size is dropped and counts as delivered: the next one goes on.
///
/// Proves 5.0: MQTT-3.1.2-24, MQTT-3.1.2-25.
#[test]
fn too_large_messages_are_dropped_for_that_client() {
    in_every_node(|node| {
        let small = node.connect_with(V5, "small", |connect| {
            connect.properties.maximum_packet_size = NonZeroU32::new(30);
            connect.properties.session_expiry_interval = Some(100);
        });
        let large = node.connect(V5, "large");
        node.take(small);
        node.subscribed(small, &["t"], 2);
        node.subscribed(large, &["t"], 2);
        let publisher = node.connect(V5, "publisher");
        let long = "x".repeat(100);
        for level in 0..=2 {
            node.publish(publisher, "t", level, u16::from(level), &long);
        }
        node.publish(publisher, "t", 2, 3, "short");
        node.expect(small, &[r#"PUBLISH t q2 #3 "short""#]);
        assert_eq!(node.take(large).len(), 4);
        assert_eq!(node.stats().publish_oversized, 3);
        // Exactly as large as allowed: 2 + (2 + 1) + 2 + 1 + 22.
        node.publish(publisher, "t", 1, 4, &"y".repeat(22));
        node.publish(publisher, "t", 1, 5, &"z".repeat(23));
        assert_eq!(node.take(small), [format!("PUBLISH t q1 #4 {:?}", "y".repeat(22))]);
        // From the queue, too.
        node.lose(small);
        node.publish(publisher, "t", 1, 6, &long);
        node.publish(publisher, "t", 1, 7, "queued");
        let small = node.connect_with(V5, "small", |connect| {
            connect.properties.maximum_packet_size = NonZeroU32::new(30);
            connect.clean_start = false;
        });
        let got = node.drink(small);
        assert_eq!(got[0], "CONNACK 00 present");
        let publishes: Vec<_> = got.iter().filter(|line| line.starts_with("PUBLISH")).collect();
        assert_eq!(publishes.last().unwrap().as_str(), r#"PUBLISH t q1 #7 "queued""#);
    });
}

/// Topics of the broker's own are not for clients to write: 0x87 for 5.0, a plain acknowledgement for 3.1.1.
///
/// Proves 3.1.1: MQTT-3.3.5-2.
#[test]
fn clients_do_not_publish_to_the_brokers_topics() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["$SYS/#", "$SOL/#", "$other/#"], 0);
        let five = node.connect(V5, "five");
        let three = node.connect(V311, "three");
        node.publish(five, "$SYS/x", 1, 1, "");
        node.publish(five, "$SOL/x", 2, 2, "");
        node.publish(three, "$SYS", 1, 1, "");
        node.publish(three, "$SOL/x/", 2, 2, "");
        node.publish(three, "$SYS/x", 0, 0, "");
        node.expect(five, &["PUBACK #1 87", "PUBREC #2 87"]);
        node.expect(three, &["PUBACK #1", "PUBREC #2"]);
        node.expect(watcher, &[]);
        assert_eq!(node.stats().publish_unauthorized, 5);
        node.publish(three, "$other/x", 0, 0, "");
        node.publish(three, "$SYSTEM", 0, 0, "");
        node.expect(watcher, &[r#"PUBLISH $other/x q0 """#]);
    });
}

/// The broker's own messages reach subscribers on every shard, and are kept if they are to be.
#[test]
fn the_brokers_own_messages_are_published() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["$SYS/clients"], 1);
        for (topic, retain) in [("$SYS/clients", false), ("$SYS/uptime", true)] {
            node.input(0, Input::Publish(Box::new(Message::new(topic, b"1", retain))));
        }
        node.run();
        node.expect(watcher, &[r#"PUBLISH $SYS/clients q0 "1""#]);
        let late = node.connect(V311, "late");
        node.subscribe(late, &["$SYS/uptime"], 1);
        node.expect(late, &["SUBACK #1 [01]", r#"PUBLISH $SYS/uptime q0 retain "1""#]);
    });
}

/// An empty payload and one of many bytes arrive as they were sent.
#[test]
fn payloads_of_any_size_arrive() {
    in_every_node(|node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 1);
        let publisher = node.connect(V311, "publisher");
        for (n, size) in [0, 1, 127, 128, 16_383, 100_000].into_iter().enumerate() {
            let payload = "p".repeat(size);
            node.publish(publisher, "t", 1, n as u16 + 1, &payload);
            assert_eq!(node.take(subscriber), [format!("PUBLISH t q1 #{} {payload:?}", n + 1)]);
        }
    });
}

/// Counters tell what happened.
#[test]
fn publishes_are_counted() {
    in_every_node(|node| {
        let clients: Vec<_> = (0..4).map(|n| node.connect(V5, &format!("c{n}"))).collect();
        for &client in &clients {
            node.subscribed(client, &["t"], 0);
        }
        node.publish(clients[0], "t", 0, 0, "abc");
        node.publish(clients[1], "t", 1, 1, "de");
        let stats = node.stats();
        assert_eq!((stats.publish_received, stats.publish_bytes_received), (2, 5));
        assert_eq!((stats.publish_sent, stats.publish_bytes_sent), (8, 20));
        assert_eq!(stats.publish_dropped, 0);
        assert_eq!(stats.subscriptions, 4);
    });
}
