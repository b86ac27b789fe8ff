//! Section 3.10: UNSUBSCRIBE.

use crate::support::*;

/// One UNSUBACK with the Packet Identifier of the UNSUBSCRIBE and one code a filter, in order; 0x11 where there was no
/// Subscription.
///
/// Proves 5.0: MQTT-3.10.4-4, MQTT-3.11.3-1; 3.1.1: MQTT-3.10.4-4.
#[test]
fn unsuback_has_a_code_for_each_filter() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.subscribed(client, &["a", "b/#", "$share/g/c"], 1);
            node.unsubscribe(client, &["b/#", "never", "$share/g/c", "$share/other/c", "a", "a"]);
            node.expect(client, &["UNSUBACK #2 [00, 11, 00, 11, 00, 11]"]);
            assert_eq!(node.stats().subscriptions, 0);
        }
    });
}

/// UNSUBACK comes even where nothing was deleted.
///
/// Proves 5.0: MQTT-3.10.4-5; 3.1.1: MQTT-3.10.4-5.
#[test]
fn unsuback_comes_for_nothing() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.unsubscribe(client, &["never", "$share/g/never"]);
            node.expect(client, &["UNSUBACK #2 [11, 11]"]);
        }
    });
}

/// An UNSUBSCRIBE with several filters does what several UNSUBSCRIBEs do, and has one UNSUBACK.
///
/// Proves 5.0: MQTT-3.10.4-6; 3.1.1: MQTT-3.10.4-6.
#[test]
fn several_filters_are_several_unsubscribes() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            let [together, apart] = ["together", "apart"].map(|name| node.connect(version, name));
            for client in [together, apart] {
                node.subscribed(client, &["a", "b/+", "c/#", "d"], 0);
            }
            node.unsubscribe(together, &["a", "c/#"]);
            ["a", "c/#"]
                .iter()
                .for_each(|filter| node.unsubscribe(apart, &[filter]));
            node.expect(together, &["UNSUBACK #2 [00, 00]"]);
            node.expect(apart, &["UNSUBACK #2 [00]", "UNSUBACK #2 [00]"]);
            for topic in ["a", "b/x", "c", "d"] {
                node.publish(publisher, topic, 0, 0, "");
            }
            for client in [together, apart] {
                node.expect(client, &[r#"PUBLISH b/x q0 """#, r#"PUBLISH d q0 """#]);
                node.disconnect(client);
            }
        }
    });
}

/// UNSUBSCRIBE has the flags 0010; with others it is malformed and ends the connection.
///
/// Proves 5.0: MQTT-3.10.1-1; 3.1.1: MQTT-3.10.1-1.
#[test]
fn unsubscribe_has_its_flags() {
    in_every_node(|node| {
        for (version, rest) in [(V311, &[5, 0, 2, 0, 1, b't'][..]), (V5, &[6, 0, 2, 0, 0, 1, b't'])] {
            for flags in 0..16 {
                let client = node.connect(version, "client");
                let packet = [&[0xa0 | flags], rest].concat();
                if flags == 2 {
                    node.subscribed(client, &["t"], 0);
                    node.send_bytes(client, &packet);
                    node.expect(client, &["UNSUBACK #2 [00]"]);
                } else {
                    node.refuses_bytes(client, &packet, 0x81);
                }
            }
        }
    });
}

/// On the wire an UNSUBACK of 5.0 has the codes that are its own, and never a Reason String or a User Property; one of
/// 3.1.1 has its Packet Identifier only.
///
/// Proves 5.0: MQTT-3.11.2-1, MQTT-3.11.2-2, MQTT-3.11.3-1, MQTT-3.11.3-2; 3.1.1: MQTT-3.10.4-4.
#[test]
fn unsuback_on_the_wire() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect_with(version, "client", |connect| {
                connect.properties.maximum_packet_size = std::num::NonZeroU32::new(30);
            });
            node.take(client);
            node.subscribed(client, &["a"], 0);
            node.keeps_bytes = true;
            node.unsubscribe(client, &["a", "b"]);
            let expected: &[u8] = if version == V5 {
                &[0xb0, 5, 0, 2, 0, 0x00, 0x11]
            } else {
                &[0xb0, 2, 0, 2]
            };
            assert_eq!(node.take_bytes(client), [expected]);
            node.keeps_bytes = false;
        }
    });
}

/// Filters are compared character by character.
///
/// Proves 5.0: MQTT-3.10.4-1; 3.1.1: MQTT-3.10.4-1.
#[test]
fn filters_are_compared_character_by_character() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.subscribed(client, &["a/b", "a/+"], 0);
            node.unsubscribe(client, &["a/#", "+/b", "A/b", "a/b/", "/a/b", "#", "$share/g/a/b"]);
            assert_eq!(node.stats().subscriptions, 2);
            node.unsubscribe(client, &["a/+"]);
            assert_eq!(node.stats().subscriptions, 1);
            node.unsubscribe(client, &["a/b"]);
            assert_eq!(node.stats().subscriptions, 0);
        }
    });
}

/// After UNSUBSCRIBE no new message comes; other Subscriptions and other clients go on.
///
/// Proves 5.0: MQTT-3.10.4-2; 3.1.1: MQTT-3.10.4-2.
#[test]
fn nothing_new_comes_after_unsubscribe() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let publisher = node.connect(V5, "publisher");
            let client = node.connect(version, "client");
            let other = node.connect(version, "other");
            node.subscribed(client, &["a", "b"], 1);
            node.subscribed(other, &["a"], 1);
            node.unsubscribe(client, &["a"]);
            node.publish(publisher, "a", 1, 1, "x");
            node.publish(publisher, "b", 0, 0, "y");
            node.expect(client, &["UNSUBACK #2 [00]", r#"PUBLISH b q0 "y""#]);
            node.expect(other, &[r#"PUBLISH a q1 #1 "x""#]);
            node.unsubscribe(other, &["a"]);
            node.take(other);
            node.take(publisher);
            node.publish(publisher, "a", 1, 1, "z");
            node.expect(publisher, &["PUBACK #1 10"]);
            node.expect(other, &[]);
        }
    });
}

/// Deliveries begun before UNSUBSCRIBE are completed, on this connection and the next.
///
/// Proves 5.0: MQTT-3.10.4-3; 3.1.1: MQTT-3.10.4-3.
#[test]
fn begun_deliveries_are_completed() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let publisher = node.connect(V5, "publisher");
            let client = node.connect_durable(version, "client");
            node.subscribed(client, &["t"], 2);
            node.publish(publisher, "t", 1, 1, "one");
            node.publish(publisher, "t", 2, 2, "two");
            node.publish(publisher, "t", 2, 3, "three");
            node.pubrec(client, 2);
            node.unsubscribe(client, &["t"]);
            node.take(client);
            node.puback(client, 1);
            node.expect(client, &[]);
            node.lose(client);
            let client = node.resume(version, "client", 100);
            let got = node.take(client);
            assert_eq!(got[..2], ["CONNACK 00 present", "PUBREL #2"]);
            assert!(got[2].starts_with("PUBLISH t q2 #3 ") && got.len() == 3, "{got:?}");
            node.pubcomp(client, 2);
            node.pubrec(client, 3);
            node.expect(client, &["PUBREL #3"]);
            node.pubcomp(client, 3);
            assert_eq!(node.stats().stored_messages, 0);
            node.connect(version, "client");
        }
    });
}

/// A client that unsubscribes and subscribes in turn, with others, gets exactly what was published in between.
#[test]
fn subscribing_and_unsubscribing_in_turn() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        let clients = [node.connect(V5, "a"), node.connect(V5, "b"), node.connect(V5, "c")];
        for round in 0..12 {
            for (n, &client) in clients.iter().enumerate() {
                if (round >> n) & 1 == 0 {
                    node.subscribe(client, &["t/+"], 0);
                } else {
                    node.unsubscribe(client, &["t/+"]);
                }
                node.take(client);
            }
            node.publish(publisher, "t/x", 0, 0, "x");
            for (n, &client) in clients.iter().enumerate() {
                let expected: &[&str] = if (round >> n) & 1 == 0 {
                    &[r#"PUBLISH t/x q0 "x""#]
                } else {
                    &[]
                };
                node.expect(client, expected);
            }
        }
    });
}
