//! Sections 4.3, 4.4 and 4.5: Quality of Service, message delivery retry, message receipt.

use std::time::Duration;

use sol_codec::{ProtocolVersion, ReasonCode};
use sol_engine::{EngineConfig, Event};

use crate::support::*;

/// A 5.0 publisher and a durable subscriber of `t` at QoS 2.
fn pair(node: &mut Node, version: ProtocolVersion) -> (Client, Client) {
    let publisher = node.connect(V5, "publisher");
    let subscriber = node.connect_durable(version, "subscriber");
    node.subscribed(subscriber, &["t"], 2);
    (publisher, subscriber)
}

fn resume(node: &mut Node, version: ProtocolVersion) -> Client {
    node.resume(version, "subscriber", 1_000)
}

fn publishes(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| line.starts_with("PUBLISH"))
        .cloned()
        .collect()
}

/// QoS 0: one PUBLISH with QoS 0 and DUP 0, whatever came in, and no answer to one; DUP beside QoS 0 is malformed.
///
/// Proves 5.0: MQTT-3.3.1-2, MQTT-4.3.1-1; 3.1.1: MQTT-3.3.1-2, MQTT-4.3.1-1.
#[test]
fn qos0_has_no_dup() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        for version in [V311, V5] {
            let publisher = node.connect(version, "publisher");
            let subscriber = node.connect(version, "subscriber");
            node.subscribed(subscriber, &["t"], 0);
            node.take_bytes(subscriber);
            node.publish(publisher, "t", 0, 0, "");
            node.expect(publisher, &[]);
            node.publish(publisher, "t", 1, 1, "");
            node.publish_with(publisher, "t", 2, 1, "", |publish| publish.dup = true);
            let got = node.take_bytes(subscriber);
            assert_eq!(got.len(), 3);
            let whole: &[u8] = if version == V5 {
                &[0x30, 4, 0, 1, b't', 0]
            } else {
                &[0x30, 3, 0, 1, b't']
            };
            assert!(got.iter().all(|packet| packet == whole), "{got:02x?}");
            node.refuses_bytes(publisher, &[0x38, 4, 0, 1, b't', 0], 0x81);
            node.expect(subscriber, &[]);
        }
    });
}

/// QoS 1 as receiver: PUBACK, and after it the same identifier is a new message, whatever DUP says.
///
/// Proves 5.0: MQTT-4.3.2-4, MQTT-4.3.2-5; 3.1.1: MQTT-4.3.2-2.
#[test]
fn qos1_as_receiver() {
    in_every_node(|node| {
        let (_, subscriber) = pair(node, V5);
        for version in [V311, V5] {
            let publisher = node.connect(version, "sender");
            node.publish(publisher, "t", 1, 5, "one");
            node.expect(publisher, &["PUBACK #5"]);
            node.publish(publisher, "t", 1, 5, "two");
            node.publish_with(publisher, "t", 1, 5, "three", |publish| publish.dup = true);
            node.expect(publisher, &["PUBACK #5", "PUBACK #5"]);
            let got = publishes(&node.drink(subscriber));
            let payloads: Vec<_> = got.iter().map(|line| line.split('"').nth(1).unwrap()).collect();
            assert_eq!(payloads, ["one", "two", "three"]);
        }
    });
}

/// QoS 1 as sender: each message has an identifier that is not in use, DUP 0, and stays unacknowledged until its PUBACK
/// comes; the next connection gets it again.
///
/// Proves 5.0: MQTT-4.3.2-1, MQTT-4.3.2-2, MQTT-4.3.2-3; 3.1.1: MQTT-4.3.2-1.
#[test]
fn qos1_as_sender() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let (publisher, subscriber) = pair(node, version);
            for payload in ["one", "two", "three"] {
                node.publish(publisher, "t", 1, 1, payload);
            }
            let first = [
                r#"PUBLISH t q1 #1 "one""#,
                r#"PUBLISH t q1 #2 "two""#,
                r#"PUBLISH t q1 #3 "three""#,
            ];
            node.expect(subscriber, &first);
            // Only its own PUBACK acknowledges a message.
            node.puback(subscriber, 2);
            node.puback(subscriber, 4);
            node.pubrec(subscriber, 3);
            node.pubcomp(subscriber, 1);
            node.take(subscriber);
            assert_eq!(node.stats().stored_messages, 2);
            node.lose(subscriber);
            let subscriber = resume(node, version);
            let got = publishes(&node.take(subscriber));
            assert_eq!(got.iter().map(|line| packet_id_of(line)).collect::<Vec<_>>(), [1, 3]);
            node.publish(publisher, "t", 1, 1, "four");
            node.expect(subscriber, &[r#"PUBLISH t q1 #4 "four""#]);
            for packet_id in [1, 3, 4] {
                node.puback(subscriber, packet_id);
            }
            assert_eq!(node.stats().stored_messages, 0);
            node.connect(version, "subscriber");
        }
    });
}

/// QoS 2 as receiver: a repeat is answered and not delivered until PUBREL; then the identifier is a new message. Also
/// over connections, without looking at DUP.
///
/// Proves 5.0: MQTT-4.3.3-8, MQTT-4.3.3-10, MQTT-4.3.3-11, MQTT-4.3.3-12; 3.1.1: MQTT-4.3.3-2.
#[test]
fn qos2_as_receiver() {
    in_every_node(|node| {
        let (_, subscriber) = pair(node, V5);
        for version in [V311, V5] {
            let publisher = node.connect_durable(version, "sender");
            node.publish(publisher, "t", 2, 5, "one");
            node.publish(publisher, "t", 2, 5, "one");
            node.publish_with(publisher, "t", 2, 5, "one", |publish| publish.dup = true);
            node.expect(publisher, &["PUBREC #5", "PUBREC #5", "PUBREC #5"]);
            node.lose(publisher);
            let publisher = node.resume(version, "sender", 100);
            node.publish_with(publisher, "t", 2, 5, "one", |publish| publish.dup = true);
            node.expect(publisher, &["CONNACK 00 present", "PUBREC #5"]);
            node.pubrel(publisher, 5);
            node.publish_with(publisher, "t", 2, 5, "two", |publish| publish.dup = true);
            node.expect(publisher, &["PUBCOMP #5", "PUBREC #5"]);
            node.pubrel(publisher, 5);
            node.expect(publisher, &["PUBCOMP #5"]);
            let got = publishes(&node.drink(subscriber));
            let payloads: Vec<_> = got.iter().map(|line| line.split('"').nth(1).unwrap()).collect();
            assert_eq!(payloads, ["one", "two"]);
            node.connect(version, "sender");
        }
    });
}

/// QoS 2 as receiver: what was refused with an error leaves its identifier free: the next PUBLISH with it is a new
/// message.
///
/// Proves 5.0: MQTT-4.3.3-9.
#[test]
fn a_refused_qos2_identifier_is_free() {
    let config = EngineConfig {
        queue_max: 1,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let (publisher, subscriber) = pair(node, V5);
        node.publish(publisher, "$SYS/x", 2, 5, "");
        node.expect(publisher, &["PUBREC #5 87"]);
        node.publish(publisher, "t", 2, 5, "one");
        node.expect(publisher, &["PUBREC #5"]);
        node.lose(subscriber);
        node.publish(publisher, "t", 2, 6, "queued");
        node.publish(publisher, "t", 2, 7, "refused");
        node.expect(publisher, &["PUBREC #6", "PUBREC #7 97"]);
        let subscriber = resume(node, V5);
        node.drink(subscriber);
        node.publish(publisher, "t", 2, 7, "two");
        node.expect(publisher, &["PUBREC #7"]);
        node.expect(subscriber, &[r#"PUBLISH t q2 #3 "two""#]);
    });
}

/// QoS 2 as receiver: an exchange goes on though its message has expired meanwhile.
///
/// Proves 5.0: MQTT-4.3.3-13.
#[test]
fn an_exchange_outlives_its_message() {
    in_every_node(|node| {
        let (publisher, _) = pair(node, V5);
        for dup in [false, true] {
            node.publish_with(publisher, "t", 2, 1, "x", move |publish| {
                publish.dup = dup;
                publish.properties.message_expiry_interval = Some(5);
            });
            node.expect(publisher, &["PUBREC #1"]);
            node.pass(Duration::from_secs(60));
        }
        node.pubrel(publisher, 1);
        node.expect(publisher, &["PUBCOMP #1"]);
    });
}

/// Without its Session a QoS 2 identifier is a new message.
#[test]
fn qos2_identifiers_end_with_their_session() {
    in_every_node(|node| {
        let (_, subscriber) = pair(node, V5);
        for _ in 0..2 {
            let publisher = node.connect(V311, "sender");
            node.publish(publisher, "t", 2, 5, "x");
            node.expect(publisher, &["PUBREC #5"]);
            node.lose(publisher);
        }
        let got = node.drink(subscriber);
        assert_eq!(got.iter().filter(|line| line.starts_with("PUBLISH")).count(), 2);
    });
}

/// Acknowledgements of the wrong kind do not end an exchange.
///
/// Proves 5.0: MQTT-4.3.2-3, MQTT-4.3.3-3; 3.1.1: MQTT-4.3.2-1, MQTT-4.3.3-1.
#[test]
fn acknowledgements_of_the_wrong_kind() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let (publisher, subscriber) = pair(node, version);
            node.publish(publisher, "t", 1, 1, "one");
            node.publish(publisher, "t", 2, 2, "two");
            node.take(subscriber);
            node.pubcomp(subscriber, 1);
            node.pubrec(subscriber, 1);
            node.puback(subscriber, 2);
            node.pubcomp(subscriber, 2);
            node.expect(subscriber, &["PUBREL #1 92"]);
            assert_eq!(node.stats().stored_messages, 2);
            node.lose(subscriber);
            let subscriber = resume(node, version);
            node.expect(
                subscriber,
                &[
                    "CONNACK 00 present",
                    r#"PUBLISH t q1 #1 dup "one""#,
                    r#"PUBLISH t q2 #2 dup "two""#,
                ],
            );
            node.connect(version, "subscriber");
        }
    });
}

/// QoS 2 as sender: an identifier that is not in use, DUP 0, the message again until its PUBREC, then PUBREL until its
/// PUBCOMP, and no PUBLISH after that.
///
/// Proves 5.0: MQTT-4.3.3-1, MQTT-4.3.3-2, MQTT-4.3.3-3, MQTT-4.3.3-4, MQTT-4.3.3-5, MQTT-4.3.3-6; 3.1.1: MQTT-4.3.3-1.
#[test]
fn qos2_as_sender() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let (publisher, subscriber) = pair(node, version);
            node.publish(publisher, "t", 2, 1, "x");
            node.publish(publisher, "t", 2, 2, "y");
            node.expect(subscriber, &[r#"PUBLISH t q2 #1 "x""#, r#"PUBLISH t q2 #2 "y""#]);
            node.lose(subscriber);
            let subscriber = resume(node, version);
            let again = [
                "CONNACK 00 present",
                r#"PUBLISH t q2 #1 dup "x""#,
                r#"PUBLISH t q2 #2 dup "y""#,
            ];
            node.expect(subscriber, &again);
            node.pubrec(subscriber, 1);
            node.pubrec(subscriber, 1);
            node.expect(subscriber, &["PUBREL #1", "PUBREL #1"]);
            for _ in 0..2 {
                node.lose(subscriber);
                let subscriber = resume(node, version);
                node.expect(
                    subscriber,
                    &["CONNACK 00 present", "PUBREL #1", r#"PUBLISH t q2 #2 dup "y""#],
                );
            }
            let subscriber = resume(node, version);
            node.take(subscriber);
            // The identifier is in use until PUBCOMP.
            node.publish(publisher, "t", 2, 3, "z");
            node.expect(subscriber, &[r#"PUBLISH t q2 #3 "z""#]);
            node.pubcomp(subscriber, 1);
            node.pubcomp(subscriber, 1);
            node.pubrec(subscriber, 2);
            node.pubcomp(subscriber, 2);
            node.pubrec(subscriber, 3);
            node.pubcomp(subscriber, 3);
            node.expect(subscriber, &["PUBREL #2", "PUBREL #3"]);
            assert_eq!(node.stats().stored_messages, 0);
            node.connect(version, "subscriber");
        }
    });
}

/// PUBACK or PUBREC with an error ends the exchange: it is not sent again, and its place is free.
///
/// Proves 5.0: MQTT-4.4.0-2.
#[test]
fn errors_end_the_exchange() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, V5);
        for level in [1, 2, 1] {
            node.publish(publisher, "t", level, 7, "x");
        }
        assert_eq!(node.take(subscriber).len(), 3);
        node.puback_code(subscriber, 1, ReasonCode::QuotaExceeded);
        node.pubrec_code(subscriber, 2, ReasonCode::ImplementationSpecificError);
        node.expect(subscriber, &[]);
        node.lose(subscriber);
        let subscriber = resume(node, V5);
        let got = node.take(subscriber);
        assert_eq!(got.len(), 2, "{got:?}");
        assert_eq!(packet_id_of(&got[1]), 3);
    });
}

/// Resume sends again in the first order, with their identifiers and DUP, what was begun; then the queue, without DUP.
///
/// Proves 5.0: MQTT-3.3.1-1, MQTT-4.4.0-1; 3.1.1: MQTT-3.3.1-1, MQTT-4.4.0-1, MQTT-4.6.0-1.
#[test]
fn resume_sends_again_in_order() {
    let config = EngineConfig {
        inflight_max: 4,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            let subscriber = node.connect_durable(version, "subscriber");
            node.subscribed(subscriber, &["t"], 2);
            for (n, level) in [1, 2, 2, 1, 1, 2].into_iter().enumerate() {
                node.publish(publisher, "t", level, n as u16 + 1, &n.to_string());
                node.pubrel(publisher, n as u16 + 1);
            }
            assert_eq!(node.take(subscriber).len(), 4);
            node.pubrec(subscriber, 3);
            for _ in 0..3 {
                node.lose(subscriber);
                let subscriber = node.resume(version, "subscriber", 1_000);
                node.expect(
                    subscriber,
                    &[
                        "CONNACK 00 present",
                        r#"PUBLISH t q1 #1 dup "0""#,
                        r#"PUBLISH t q2 #2 dup "1""#,
                        "PUBREL #3",
                        r#"PUBLISH t q1 #4 dup "3""#,
                    ],
                );
            }
            let subscriber = node.resume(version, "subscriber", 1_000);
            assert_eq!(node.take(subscriber).len(), 5);
            node.puback(subscriber, 1);
            node.puback(subscriber, 4);
            node.expect(subscriber, &[r#"PUBLISH t q1 #5 "4""#, r#"PUBLISH t q2 #6 "5""#]);
            node.connect(version, "subscriber");
        }
    });
}

/// Only a resume sends again, not time.
///
/// Proves 5.0: MQTT-4.4.0-1.
#[test]
fn nothing_is_sent_again_on_a_connection() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let (publisher, subscriber) = pair(node, version);
            node.publish(publisher, "t", 1, 1, "x");
            node.publish(publisher, "t", 2, 1, "x");
            node.publish(publisher, "t", 2, 2, "x");
            node.pubrec(subscriber, 3);
            node.take(subscriber);
            node.pass(Duration::from_secs(3_600));
            node.expect(subscriber, &[]);
            node.connect(version, "subscriber");
        }
    });
}

/// Seventy thousand messages use every identifier, none twice at a time, never 0.
///
/// Proves 5.0: MQTT-2.2.1-4, MQTT-4.3.2-1; 3.1.1: MQTT-2.3.1-4.
#[test]
fn packet_identifiers_wrap() {
    in_each_node(EngineConfig::default(), |node| {
        let (publisher, subscriber) = pair(node, V311);
        let mut open = std::collections::VecDeque::new();
        let mut highest = 0;
        for _ in 0..70_000 {
            node.publish(publisher, "t", 1, 1, "");
            for line in node.take(subscriber) {
                let id = packet_id_of(&line);
                assert!(id > 0 && !open.contains(&id));
                highest = highest.max(id);
                open.push_back(id);
            }
            if open.len() > 2 {
                let id = open.pop_front().unwrap();
                node.puback(subscriber, id);
            }
            node.clients[publisher.0].inbox.clear();
        }
        assert_eq!(highest, 65_535);
        assert!(node.stats().stored_messages <= 2);
    });
}

/// A message is added to the Session of everyone with a matching Subscription, there or away, however it was published.
///
/// Proves 5.0: MQTT-4.5.0-1; 3.1.1: MQTT-4.5.0-1.
#[test]
fn a_message_reaches_every_matching_session() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let filters = ["a/b", "a/+", "#", "+/b", "a/c", "b/#"];
            let names = |n: usize, away: bool| format!("{n}{}", if away { "away" } else { "" });
            for (n, filter) in filters.iter().enumerate() {
                for away in [false, true] {
                    let client = node.connect_durable(version, &names(n, away));
                    node.subscribed(client, &[filter], 2);
                    if away {
                        node.lose(client);
                    }
                }
            }
            for publisher in [V311, V5] {
                let publisher = node.connect(publisher, "publisher");
                node.publish(publisher, "a/b", 1, 1, "one");
                node.publish(publisher, "a/b", 2, 2, "two");
            }
            for (n, filter) in filters.iter().enumerate() {
                for away in [false, true] {
                    let client = node.resume(version, &names(n, away), 1_000);
                    let got = publishes(&node.drink(client));
                    assert_eq!(got.len(), if n < 4 { 4 } else { 0 }, "{filter}");
                    node.connect(version, &names(n, away));
                }
            }
        }
    });
}

/// Messages are kept for who is away, QoS 0 only on demand, in order.
///
/// Proves 5.0: MQTT-4.5.0-1; 3.1.1: MQTT-3.1.2-5, MQTT-4.5.0-1.
#[test]
fn messages_are_kept_for_who_is_away() {
    for queue_qos0 in [false, true] {
        let config = EngineConfig {
            queue_qos0,
            ..Default::default()
        };
        in_each_node(config, |node| {
            let publisher = node.connect(V5, "publisher");
            for version in [V311, V5] {
                let subscriber = node.connect_durable(version, "subscriber");
                node.subscribed(subscriber, &["t"], 2);
                node.disconnect(subscriber);
                for n in 0..6 {
                    node.publish(publisher, "t", n % 3, u16::from(n % 3), &n.to_string());
                    node.pubrel(publisher, 2);
                }
                let subscriber = node.resume(version, "subscriber", 100);
                let got = node.drink(subscriber);
                let payloads: String = got.iter().filter_map(|line| line.split('"').nth(1)).collect();
                assert_eq!(payloads, if queue_qos0 { "012345" } else { "1245" });
                node.connect(version, "subscriber");
            }
            assert_eq!(node.stats().stored_messages, 0);
        });
    }
}

/// No input of this suite is odd to the engine.
#[test]
fn nothing_odd_happens() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, V5);
        for n in 1..10 {
            node.publish(publisher, "t", 2, n, "");
        }
        node.drink(subscriber);
        assert!(!node.events.iter().any(|event| matches!(event, Event::Odd(_))));
    });
}
