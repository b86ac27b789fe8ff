//! Section 3.3.2.3: the properties of PUBLISH.

use std::time::Duration;

use sol_codec::{
    ApplicationProperties, ApplicationPropertiesBuilder, Packet, Publish, PublishProperties, QoS, TopicAlias, TopicName,
};
use sol_engine::EngineConfig;

use crate::support::*;

/// Publishes with a Topic Alias, and with or without a topic.
fn publish_alias(node: &mut Node, client: Client, topic: Option<&'static str>, alias: u16, payload: &'static [u8]) {
    node.send(client, move |send| {
        send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.map(|topic| TopicName::new(topic).unwrap()),
            packet_id: None,
            properties: PublishProperties {
                topic_alias: TopicAlias::new(alias),
                ..Default::default()
            },
            payload,
        }));
    });
}

/// What belongs to the application is passed on unchanged and in order, live, retained and from the queue, and across
/// shards; 3.1.1 does without.
///
/// Proves 5.0: MQTT-3.3.2-4, MQTT-3.3.2-15, MQTT-3.3.2-16, MQTT-3.3.2-17, MQTT-3.3.2-18, MQTT-3.3.2-20.
#[test]
fn application_properties_are_passed_on() {
    in_every_node(|node| {
        let live = node.connect(V5, "live");
        let away = node.connect_durable(V5, "away");
        let three = node.connect(V311, "three");
        for client in [live, away, three] {
            node.subscribed(client, &["t"], 1);
        }
        node.lose(away);
        let publisher = node.connect(V5, "publisher");
        for retain in [false, true] {
            node.send(publisher, move |send| {
                let mut stored = Vec::new();
                let _ = ApplicationPropertiesBuilder::new(&mut stored)
                    .payload_format_indicator(true)
                    .user_property("b", "2")
                    .content_type("text/plain")
                    .response_topic(TopicName::new("reply/to").unwrap())
                    .user_property("a", "1")
                    .correlation_data(&[1, 0, 255])
                    .user_property("b", "1");
                let mut packet = publish(if retain { "kept" } else { "t" }, 1, 1, b"x");
                packet.retain = retain;
                packet.properties.application = ApplicationProperties::from_stored(&stored);
                send(&Packet::Publish(packet));
            });
        }
        let properties = r#""x" format=1 type=text/plain response=reply/to correlation=[01, 00, ff] b=2 a=1 b=1"#;
        node.expect(live, &[&format!("PUBLISH t q1 #1 {properties}")]);
        let away = node.resume(V5, "away", 0);
        node.expect(away, &["CONNACK 00 present", &format!("PUBLISH t q1 #1 {properties}")]);
        let late = node.connect(V5, "late");
        node.subscribe(late, &["kept"], 1);
        node.expect(
            late,
            &["SUBACK #1 [01]", &format!("PUBLISH kept q1 #1 retain {properties}")],
        );
        assert_eq!(node.take(three).len(), 1);
    });
}

/// Response Topic and Content Type are passed on byte for byte; what is not UTF-8, and a wildcard in a Response Topic, is
/// refused and reaches nobody.
///
/// Proves 5.0: MQTT-1.5.4-2, MQTT-3.3.2-13, MQTT-3.3.2-14, MQTT-3.3.2-19.
#[test]
fn texts_of_the_application_are_checked() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 0);
        node.take_bytes(subscriber);
        let (content_type, response_topic) = (0x03, 0x08);
        let packet = |property: u8, text: &[u8]| {
            let len = text.len() as u8;
            [&[0x30, len + 7, 0, 1, b't', len + 3, property, 0, len], text].concat()
        };
        for (property, text, refusal) in [
            (content_type, "ö/#".as_bytes(), None),
            (content_type, "".as_bytes(), None),
            (content_type, &[0xc3], Some(0x81)),
            (content_type, b"a\0", Some(0x81)),
            (response_topic, "ö/x".as_bytes(), None),
            (response_topic, &[0xff], Some(0x81)),
            (response_topic, b"a/+", Some(0x82)),
            (response_topic, b"#", Some(0x82)),
        ] {
            let publisher = node.connect(V5, "publisher");
            let packet = packet(property, text);
            match refusal {
                None => node.send_bytes(publisher, &packet),
                Some(reason_code) => node.refuses_bytes(publisher, &packet, reason_code),
            }
            let passed_on = if refusal.is_none() { vec![packet] } else { Vec::new() };
            assert_eq!(node.take_bytes(subscriber), passed_on);
        }
    });
}

/// Section 4.10: a request is answered on its Response Topic, with its Correlation Data.
#[test]
fn request_and_response() {
    in_every_node(|node| {
        let requester = node.connect(V5, "requester");
        let responder = node.connect(V5, "responder");
        node.subscribed(requester, &["reply"], 1);
        node.subscribed(responder, &["request"], 1);
        let with = |topic: &'static str, response: Option<&'static str>| {
            move |send: &mut dyn FnMut(&Packet<'_>)| {
                let mut stored = Vec::new();
                let builder = ApplicationPropertiesBuilder::new(&mut stored).correlation_data(b"7");
                if let Some(response) = response {
                    let _ = builder.response_topic(TopicName::new(response).unwrap());
                }
                let mut packet = publish(topic, 0, 0, b"");
                packet.properties.application = ApplicationProperties::from_stored(&stored);
                send(&Packet::Publish(packet));
            }
        };
        node.send(requester, with("request", Some("reply")));
        node.expect(responder, &[r#"PUBLISH request q0 "" response=reply correlation=[37]"#]);
        node.send(responder, with("reply", None));
        node.expect(requester, &[r#"PUBLISH reply q0 "" correlation=[37]"#]);
    });
}

/// A client's Topic Aliases stand for topics up to the announced maximum, can be moved, and end with the connection.
///
/// Proves 5.0: MQTT-3.3.2-7, MQTT-3.3.2-12.
#[test]
fn topic_aliases_of_a_client() {
    in_every_node(|node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["#"], 0);
        let publisher = node.connect_durable(V5, "publisher");
        publish_alias(node, publisher, Some("one"), 1, b"a");
        publish_alias(node, publisher, Some("two"), 32, b"b");
        publish_alias(node, publisher, None, 1, b"c");
        publish_alias(node, publisher, None, 32, b"d");
        publish_alias(node, publisher, Some("three"), 1, b"e");
        publish_alias(node, publisher, None, 1, b"f");
        node.expect(
            subscriber,
            &[
                r#"PUBLISH one q0 "a""#,
                r#"PUBLISH two q0 "b""#,
                r#"PUBLISH one q0 "c""#,
                r#"PUBLISH two q0 "d""#,
                r#"PUBLISH three q0 "e""#,
                r#"PUBLISH three q0 "f""#,
            ],
        );
        node.lose(publisher);
        let publisher = node.resume(V5, "publisher", 0);
        publish_alias(node, publisher, None, 1, b"g");
        node.expect(publisher, &["CONNACK 00 present", "DISCONNECT 82", "CLOSE"]);
        node.expect(subscriber, &[]);
    });
}

/// Nobody uses the Topic Alias 0: the broker counts from 1, and a client that sends it is told 0x94.
///
/// Proves 5.0: MQTT-3.3.2-8.
#[test]
fn topic_alias_0_is_not_used() {
    in_every_node(|node| {
        let subscriber = node.connect_with(V5, "subscriber", |connect| {
            connect.properties.topic_alias_maximum = Some(1);
        });
        node.take(subscriber);
        node.subscribed(subscriber, &["t"], 0);
        let publisher = node.connect(V5, "publisher");
        node.keeps_bytes = true;
        node.publish(publisher, "t", 0, 0, "");
        let first = [0x30, 7, 0, 1, b't', 3, 0x23, 0, 1];
        assert_eq!(node.take_bytes(subscriber), [first]);
        node.refuses_bytes(publisher, &[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0], 0x94);
        node.expect(subscriber, &[]);
    });
}

/// [MQTT-3.3.2-9], section 3.3.2.3.4: an alias above the maximum is 0x94, one that stands for nothing a Protocol Error.
#[test]
fn wrong_topic_aliases_end_the_connection() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        publish_alias(node, client, Some("t"), 33, b"");
        node.expect(client, &["DISCONNECT 94", "CLOSE"]);
        let client = node.connect(V5, "client");
        publish_alias(node, client, None, 5, b"");
        node.expect(client, &["DISCONNECT 82", "CLOSE"]);
    });
    let none = EngineConfig {
        topic_alias_maximum: 0,
        ..Default::default()
    };
    in_each_node(none, |node| {
        let client = node.connect(V5, "client");
        publish_alias(node, client, Some("t"), 1, b"");
        node.expect(client, &["DISCONNECT 94", "CLOSE"]);
    });
}

/// The server uses aliases within the client's maximum, tells each once, and none without a maximum.
///
/// Proves 5.0: MQTT-3.1.2-26, MQTT-3.1.2-27, MQTT-3.3.2-11.
#[test]
fn topic_aliases_towards_a_client() {
    in_every_node(|node| {
        let two = node.connect_with(V5, "two", |connect| connect.properties.topic_alias_maximum = Some(2));
        let none = node.connect(V5, "none");
        node.take(two);
        for client in [two, none] {
            node.subscribed(client, &["#"], 1);
        }
        let publisher = node.connect(V5, "publisher");
        for topic in ["a", "b", "c", "a", "b", "c"] {
            node.publish(publisher, topic, 0, 0, "");
        }
        node.expect(
            two,
            &[
                r#"PUBLISH a q0 alias1 """#,
                r#"PUBLISH b q0 alias2 """#,
                r#"PUBLISH c q0 """#,
                r#"PUBLISH a q0 alias1! """#,
                r#"PUBLISH b q0 alias2! """#,
                r#"PUBLISH c q0 """#,
            ],
        );
        assert!(node.take(none).iter().all(|line| !line.contains("alias")));
    });
}

/// What is sent again on a new connection tells its topic anew.
///
/// Proves 5.0: MQTT-3.3.2-7.
#[test]
fn aliases_do_not_outlive_the_connection() {
    in_every_node(|node| {
        let resume = |node: &mut Node| {
            node.connect_with(V5, "client", |connect| {
                connect.clean_start = false;
                connect.properties.topic_alias_maximum = Some(5);
                connect.properties.session_expiry_interval = Some(100);
            })
        };
        let client = resume(node);
        node.take(client);
        node.subscribed(client, &["t"], 1);
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, "x");
        node.publish(publisher, "t", 1, 2, "y");
        node.expect(
            client,
            &[r#"PUBLISH t q1 #1 alias1 "x""#, r#"PUBLISH t q1 #2 alias1! "y""#],
        );
        node.lose(client);
        let client = resume(node);
        node.expect(
            client,
            &[
                "CONNACK 00 present",
                r#"PUBLISH t q1 #1 dup alias1 "x""#,
                r#"PUBLISH t q1 #2 dup alias1! "y""#,
            ],
        );
    });
}

/// An alias that was in a packet too large to be sent is not used as if it were known.
///
/// Proves 5.0: MQTT-3.1.2-24.
#[test]
fn an_alias_of_a_dropped_packet_is_not_used() {
    in_every_node(|node| {
        let client = node.connect_with(V5, "client", |connect| {
            connect.properties.topic_alias_maximum = Some(5);
            connect.properties.maximum_packet_size = std::num::NonZeroU32::new(40);
        });
        node.take(client);
        node.subscribed(client, &["#"], 1);
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, &"x".repeat(100));
        node.publish(publisher, "t", 1, 2, "short");
        node.publish(publisher, "t", 0, 0, "again");
        node.expect(
            client,
            &[r#"PUBLISH t q1 #2 alias1 "short""#, r#"PUBLISH t q0 alias1! "again""#],
        );
    });
}

/// A queued message is passed on with what is left of its expiry, and dropped when nothing is.
///
/// Proves 5.0: MQTT-3.3.2-5, MQTT-3.3.2-6.
#[test]
fn queued_messages_expire() {
    in_every_node(|node| {
        let client = node.connect_durable(V5, "client");
        node.subscribed(client, &["t"], 1);
        node.lose(client);
        let publisher = node.connect(V5, "publisher");
        for (n, expiry) in [(1, Some(10)), (2, Some(100)), (3, None)] {
            node.publish_with(publisher, "t", 1, n, "x", move |publish| {
                publish.properties.message_expiry_interval = expiry;
            });
        }
        node.pass(Duration::from_millis(30_500));
        let client = node.resume(V5, "client", 100);
        node.expect(
            client,
            &[
                "CONNACK 00 present",
                r#"PUBLISH t q1 #1 expiry70 "x""#,
                r#"PUBLISH t q1 #2 "x""#,
            ],
        );
        assert_eq!(node.stats().publish_expired, 1);
    });
}

/// Once begun, a delivery is not dropped for its expiry.
///
/// Proves 5.0: MQTT-4.3.3-7.
#[test]
fn begun_deliveries_do_not_expire() {
    in_every_node(|node| {
        let client = node.connect_durable(V5, "client");
        node.subscribed(client, &["t"], 2);
        let publisher = node.connect(V5, "publisher");
        for level in 1..=2 {
            node.publish_with(publisher, "t", level, u16::from(level), "x", |publish| {
                publish.properties.message_expiry_interval = Some(5);
            });
        }
        node.lose(client);
        node.pass(Duration::from_secs(100));
        let client = node.resume(V5, "client", 100);
        let got: Vec<_> = node.drink(client);
        let publishes: Vec<_> = got.iter().filter(|line| line.starts_with("PUBLISH")).collect();
        assert_eq!(publishes.len(), 2, "{got:?}");
    });
}

/// So does a retained message, and it leaves the store.
///
/// Proves 5.0: MQTT-3.3.2-5, MQTT-3.3.2-6.
#[test]
fn retained_messages_expire() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for (topic, expiry) in [("r/1", 10), ("r/2", 200)] {
            node.publish_with(publisher, topic, 0, 0, "x", move |publish| {
                publish.retain = true;
                publish.properties.message_expiry_interval = Some(expiry);
            });
        }
        node.pass(Duration::from_millis(9_001));
        let client = node.connect(V5, "client");
        node.subscribe(client, &["r/1"], 0);
        node.expect(client, &["SUBACK #1 [00]", r#"PUBLISH r/1 q0 retain expiry1 "x""#]);
        node.pass(Duration::from_secs(1));
        node.subscribe(client, &["r/#"], 0);
        node.expect(client, &["SUBACK #1 [00]", r#"PUBLISH r/2 q0 retain expiry190 "x""#]);
        node.pass(Duration::from_secs(130));
        assert_eq!(node.stats().retained_messages, 1);
        node.pass(Duration::from_secs(130));
        assert_eq!(node.stats().retained_messages, 0);
        assert_eq!(node.stats().publish_expired, 2);
    });
}

/// Message Expiry Interval 0: passed on to who is there, kept for nobody.
///
/// Proves 5.0: MQTT-3.3.2-5, MQTT-3.3.2-6.
#[test]
fn an_expiry_of_zero_is_for_the_moment() {
    in_every_node(|node| {
        let there = node.connect(V5, "there");
        let away = node.connect_durable(V5, "away");
        for client in [there, away] {
            node.subscribed(client, &["t"], 1);
        }
        node.lose(away);
        let publisher = node.connect(V5, "publisher");
        for retain in [false, true] {
            let topic = if retain { "nobody" } else { "t" };
            node.publish_with(publisher, topic, 1, 1, "x", move |publish| {
                publish.retain = retain;
                publish.properties.message_expiry_interval = Some(0);
            });
        }
        node.expect(there, &[r#"PUBLISH t q1 #1 expiry0 "x""#]);
        let away = node.resume(V5, "away", 0);
        node.expect(away, &["CONNACK 00 present"]);
        assert_eq!(node.stats().retained_messages, 0);
    });
}
