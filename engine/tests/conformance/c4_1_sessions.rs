//! Section 4.1: how long Session State is kept, and whose it is.

use std::time::Duration;

use crate::support::*;

const LONG: Duration = Duration::from_secs(1_000_000);

/// Session State is kept for as long as the connection is open, however short its expiry.
///
/// Proves 5.0: MQTT-4.1.0-1; 3.1.1: MQTT-4.1.0-1, MQTT-4.1.0-2.
#[test]
fn a_session_lasts_as_long_as_its_connection() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for (version, expiry) in [(V311, None), (V5, None), (V5, Some(0)), (V5, Some(1))] {
            let client = node.connect_with(version, "client", move |connect| {
                connect.properties.session_expiry_interval = expiry;
            });
            node.take(client);
            node.subscribed(client, &["t"], 2);
            node.publish(publisher, "t", 2, 1, "begun");
            node.publish(client, "u", 2, 7, "");
            node.take(client);
            node.pass(LONG);
            node.pubrec(client, 1);
            node.pubrel(client, 7);
            node.publish(publisher, "t", 2, 2, "later");
            node.expect(client, &["PUBREL #1", "PUBCOMP #7", r#"PUBLISH t q2 #2 "later""#]);
            node.disconnect(client);
            node.pass(LONG);
            node.pubrel(publisher, 1);
            node.pubrel(publisher, 2);
        }
    });
}

/// The Session of 3.1.1's Clean Session 0 keeps what section 4.1 lists: Subscriptions, messages for them, and exchanges
/// of both directions.
///
/// Proves 5.0: MQTT-3.1.2-5, MQTT-3.1.2-23; 3.1.1: MQTT-3.1.2-4, MQTT-3.1.2-5, MQTT-4.1.0-1.
#[test]
fn a_session_that_stays_keeps_all_of_its_state() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            let client = node.connect_durable(version, "client");
            node.subscribed(client, &["t"], 2);
            node.publish(publisher, "t", 1, 1, "sent");
            node.publish(publisher, "t", 2, 2, "released");
            node.pubrec(client, 2);
            node.publish(client, "u", 2, 7, "");
            node.lose(client);
            node.pass(Duration::from_secs(3_000));
            for (qos, payload) in [(0, "zero"), (1, "one"), (2, "two")] {
                node.publish(publisher, "t", qos, 3 + u16::from(qos), payload);
            }
            let client = node.resume(version, "client", 0);
            node.expect(
                client,
                &[
                    "CONNACK 00 present",
                    r#"PUBLISH t q1 #1 dup "sent""#,
                    "PUBREL #2",
                    r#"PUBLISH t q1 #3 "one""#,
                    r#"PUBLISH t q2 #4 "two""#,
                ],
            );
            node.publish_with(client, "u", 2, 7, "", |publish| publish.dup = true);
            node.pubrel(client, 7);
            let got = node.take(client);
            assert!(got[0].starts_with("PUBREC #7") && got[1] == "PUBCOMP #7", "{got:?}");
            node.connect(version, "client");
            for id in [2, 5] {
                node.pubrel(publisher, id);
            }
            node.take(publisher);
        }
    });
}

/// A Session is found by its Client Identifier, character by character, and by nothing else.
///
/// Proves 5.0: MQTT-3.1.3-2; 3.1.1: MQTT-3.1.3-2.
#[test]
fn sessions_belong_to_client_identifiers() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let names = ["a", "A", "aa", "a ", "á", "a\u{301}"];
            for name in names {
                let client = node.connect_durable(version, name);
                node.subscribed(client, &[&format!("for/{name}")], 1);
                node.lose(client);
            }
            let publisher = node.connect(V5, "publisher");
            for name in names {
                node.publish(publisher, &format!("for/{name}"), 1, 1, name);
            }
            for name in names.into_iter().rev() {
                let client = node.resume(version, name, 0);
                let mine = format!("PUBLISH for/{name} q1 #1 {name:?}");
                assert_eq!(node.take(client), ["CONNACK 00 present".to_owned(), mine]);
                node.connect(version, name);
            }
        }
    });
}

/// Retained messages belong to no Session and stay when one ends.
///
/// Proves 3.1.1: MQTT-3.1.2-7.
#[test]
fn retained_messages_outlive_sessions() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.retain(client, "t", 1, 1, "kept");
            node.disconnect(client);
            node.connect(version, "client");
            node.pass(LONG);
            let late = node.connect(V5, "late");
            node.subscribe(late, &["t"], 0);
            node.expect(late, &["SUBACK #1 [00]", r#"PUBLISH t q0 retain "kept""#]);
        }
    });
}
