//! Sections 4.3, 4.4 and 4.9: Quality of Service, message delivery retry, flow control.

use std::num::NonZeroU16;

use sol_codec::ReasonCode;
use sol_engine::{EngineConfig, Event};

use crate::support::*;

/// A publisher and a durable 5.0 subscriber of `t` at QoS 2 with a Receive Maximum.
fn pair(node: &mut Node, receive_maximum: u16) -> (Client, Client) {
    let publisher = node.connect(V5, "publisher");
    let subscriber = resume(node, receive_maximum);
    node.expect(subscriber, &["CONNACK 00"]);
    node.subscribed(subscriber, &["t"], 2);
    (publisher, subscriber)
}

fn resume(node: &mut Node, receive_maximum: u16) -> Client {
    node.connect_with(V5, "subscriber", move |connect| {
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(1_000);
        connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
    })
}

/// [MQTT-4.3.2-4, -5]: QoS 1 as receiver: PUBACK, and after it the same identifier is a new message, whatever DUP says.
#[test]
fn qos1_as_receiver() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, 100);
        node.publish(publisher, "t", 1, 5, "one");
        node.publish(publisher, "t", 1, 5, "two");
        node.publish_with(publisher, "t", 1, 5, "three", |publish| publish.dup = true);
        node.expect(publisher, &["PUBACK #5", "PUBACK #5", "PUBACK #5"]);
        node.expect(
            subscriber,
            &[
                r#"PUBLISH t q1 #1 "one""#,
                r#"PUBLISH t q1 #2 "two""#,
                r#"PUBLISH t q1 #3 "three""#,
            ],
        );
    });
}

/// [MQTT-4.3.3-8, -10, -11, -12]: QoS 2 as receiver: a repeat is answered and not delivered until PUBREL; then the
/// identifier is a new message. Also over connections, without looking at DUP.
#[test]
fn qos2_as_receiver() {
    in_every_node(|node| {
        let (_, subscriber) = pair(node, 100);
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
            node.publish(publisher, "t", 2, 5, "two");
            node.expect(publisher, &["PUBCOMP #5", "PUBREC #5"]);
            node.pubrel(publisher, 5);
            node.expect(publisher, &["PUBCOMP #5"]);
            let got = node.drink(subscriber);
            let publishes: Vec<_> = got.iter().filter(|line| line.starts_with("PUBLISH")).collect();
            assert_eq!(publishes.len(), 2, "{publishes:?}");
            node.connect(version, "sender");
        }
    });
}

/// [MQTT-4.3.3-12]: without its Session a QoS 2 identifier is a new message.
#[test]
fn qos2_identifiers_end_with_their_session() {
    in_every_node(|node| {
        let (_, subscriber) = pair(node, 100);
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

/// Section 3.6.2.1, 3.7.2.1: what acknowledges nothing is answered with 0x92 where there is an answer, else ignored.
#[test]
fn unknown_acknowledgements() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.puback(client, 1);
            node.pubcomp(client, 2);
            node.pubrec_code(client, 3, ReasonCode::UnspecifiedError);
            node.expect(client, &[]);
            node.pubrec(client, 4);
            node.pubrel(client, 5);
            node.expect(client, &["PUBREL #4 92", "PUBCOMP #5 92"]);
            node.ping(client);
            node.expect(client, &["PINGRESP"]);
        }
    });
}

/// Acknowledgements of the wrong kind do not end an exchange.
#[test]
fn acknowledgements_of_the_wrong_kind() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, 100);
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
        let subscriber = resume(node, 100);
        node.expect(
            subscriber,
            &[
                "CONNACK 00 present",
                r#"PUBLISH t q1 #1 dup "one""#,
                r#"PUBLISH t q2 #2 dup "two""#,
            ],
        );
    });
}

/// [MQTT-4.3.3-4, -5, -6]: QoS 2 as sender: PUBREL for PUBREC, again for a repeat, and no PUBLISH after it.
#[test]
fn qos2_as_sender() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, 100);
        node.publish(publisher, "t", 2, 1, "x");
        node.pubrec(subscriber, 1);
        node.pubrec(subscriber, 1);
        node.expect(subscriber, &[r#"PUBLISH t q2 #1 "x""#, "PUBREL #1", "PUBREL #1"]);
        node.lose(subscriber);
        let subscriber = resume(node, 100);
        node.expect(subscriber, &["CONNACK 00 present", "PUBREL #1"]);
        node.pubcomp(subscriber, 1);
        node.pubcomp(subscriber, 1);
        node.expect(subscriber, &[]);
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// [MQTT-4.4.0-2]: PUBACK or PUBREC with an error ends the exchange: it is not sent again, and its place is free.
#[test]
fn errors_end_the_exchange() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, 1);
        for level in [1, 2, 1] {
            node.publish(publisher, "t", level, 7, "x");
        }
        node.puback_code(subscriber, 1, ReasonCode::QuotaExceeded);
        node.pubrec_code(subscriber, 2, ReasonCode::ImplementationSpecificError);
        node.expect(
            subscriber,
            &[
                r#"PUBLISH t q1 #1 "x""#,
                r#"PUBLISH t q2 #2 "x""#,
                r#"PUBLISH t q1 #3 "x""#,
            ],
        );
        node.puback(subscriber, 3);
        node.lose(subscriber);
        let subscriber = resume(node, 1);
        node.expect(subscriber, &["CONNACK 00 present"]);
    });
}

/// [MQTT-4.9.0-1, -2], [MQTT-3.3.4-9, -10]: at most Receive Maximum exchanges are open; QoS 0 and acknowledgements go on.
#[test]
fn receive_maximum_is_kept() {
    in_every_node(|node| {
        for maximum in [1, 2, 10] {
            let (publisher, subscriber) = pair(node, maximum);
            for n in 0..20 {
                node.publish(publisher, "t", 1 + n % 2, u16::from(n) + 1, "x");
            }
            assert_eq!(node.take(subscriber).len(), usize::from(maximum));
            node.publish(publisher, "t", 0, 0, "zero");
            node.ping(subscriber);
            node.publish(subscriber, "y", 1, 1, "");
            node.expect(subscriber, &[r#"PUBLISH t q0 "zero""#, "PINGRESP", "PUBACK #1 10"]);
            // PUBREC does not free a place, PUBCOMP does.
            if maximum == 2 {
                node.pubrec(subscriber, 2);
                node.expect(subscriber, &["PUBREL #2"]);
                node.pubcomp(subscriber, 2);
                node.expect(subscriber, &[r#"PUBLISH t q1 #3 "x""#]);
            }
            node.connect(V5, "subscriber");
        }
    });
}

/// [MQTT-3.3.4-9]: after a resume the window is that of the new connection; what is open goes first.
#[test]
fn a_smaller_receive_maximum_after_resume() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, 10);
        for n in 1..=5 {
            node.publish(publisher, "t", 1, n, &n.to_string());
        }
        assert_eq!(node.take(subscriber).len(), 5);
        node.lose(subscriber);
        let subscriber = resume(node, 2);
        node.publish(publisher, "t", 1, 6, "6");
        node.expect(
            subscriber,
            &[
                "CONNACK 00 present",
                r#"PUBLISH t q1 #1 dup "1""#,
                r#"PUBLISH t q1 #2 dup "2""#,
            ],
        );
        node.puback(subscriber, 2);
        node.puback(subscriber, 1);
        node.expect(
            subscriber,
            &[r#"PUBLISH t q1 #3 dup "3""#, r#"PUBLISH t q1 #4 dup "4""#],
        );
        node.puback(subscriber, 3);
        node.puback(subscriber, 4);
        node.expect(subscriber, &[r#"PUBLISH t q1 #5 dup "5""#, r#"PUBLISH t q1 #6 "6""#]);
    });
}

/// [MQTT-4.4.0-1], [MQTT-4.6.0-1] of 3.1.1: resume sends again in the first order, with their identifiers and DUP, what
/// was begun; then the queue, without DUP. Both versions.
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

/// [MQTT-4.4.0-1]: only a resume sends again, not time.
#[test]
fn nothing_is_sent_again_on_a_connection() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, 10);
        node.publish(publisher, "t", 2, 1, "x");
        node.take(subscriber);
        node.pass(std::time::Duration::from_secs(3_600));
        node.expect(subscriber, &[]);
    });
}

/// [MQTT-2.2.1-4]: seventy thousand messages use every identifier, none twice at a time, never 0.
#[test]
fn packet_identifiers_wrap() {
    in_each_node(EngineConfig::default(), |node| {
        let (publisher, subscriber) = pair(node, 3);
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

/// [MQTT-3.3.4-7]: a 5.0 client that begins more exchanges than the announced Receive Maximum gets 0x93; repeats and
/// released ones do not count.
#[test]
fn exceeding_our_receive_maximum() {
    let config = EngineConfig {
        receive_maximum: NonZeroU16::new(2).unwrap(),
        ..Default::default()
    };
    in_each_node(config, |node| {
        let client = node.connect(V5, "client");
        for _ in 0..5 {
            node.publish(client, "t", 2, 1, "");
        }
        node.publish(client, "t", 2, 2, "");
        node.pubrel(client, 1);
        node.publish(client, "t", 2, 3, "");
        node.publish(client, "t", 0, 0, "");
        node.take(client);
        node.publish(client, "t", 2, 4, "");
        node.expect(client, &["DISCONNECT 93", "CLOSE"]);
        let three = node.connect(V311, "three");
        for n in 1..=10 {
            node.publish(three, "t", 2, n, "");
        }
        assert_eq!(node.take(three).len(), 10);
    });
}

/// [MQTT-4.5.0-1], [MQTT-3.1.2-5] of 3.1.1: messages are kept for who is away, QoS 0 only on demand, in order.
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
        let (publisher, subscriber) = pair(node, 1);
        for n in 1..10 {
            node.publish(publisher, "t", 2, n, "");
        }
        node.drink(subscriber);
        assert!(!node.events.iter().any(|event| matches!(event, Event::Odd(_))));
    });
}
