//! Section 3.10: UNSUBSCRIBE.

use crate::support::*;

/// [MQTT-3.10.4-4, -5, -6], [MQTT-3.11.3-1]: one UNSUBACK with one code a filter; 0x11 where there was no Subscription.
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

/// [MQTT-3.10.4-1]: filters are compared character by character.
#[test]
fn filters_are_compared_character_by_character() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.subscribed(client, &["a/b", "a/+"], 0);
        node.unsubscribe(client, &["a/#", "+/b", "A/b", "a/b/", "/a/b", "#", "$share/g/a/b"]);
        node.expect(client, &["UNSUBACK #2 [11, 11, 11, 11, 11, 11, 11]"]);
        assert_eq!(node.stats().subscriptions, 2);
    });
}

/// [MQTT-3.10.4-2]: after UNSUBSCRIBE no new message comes; other Subscriptions and other clients go on.
#[test]
fn nothing_new_comes_after_unsubscribe() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        let client = node.connect(V5, "client");
        let other = node.connect(V5, "other");
        node.subscribed(client, &["a", "b"], 0);
        node.subscribed(other, &["a"], 0);
        node.unsubscribe(client, &["a"]);
        node.publish(publisher, "a", 0, 0, "x");
        node.publish(publisher, "b", 0, 0, "y");
        node.expect(client, &["UNSUBACK #2 [00]", r#"PUBLISH b q0 "y""#]);
        node.expect(other, &[r#"PUBLISH a q0 "x""#]);
        node.unsubscribe(other, &["a"]);
        node.take(other);
        node.publish(publisher, "a", 1, 1, "z");
        node.expect(publisher, &["PUBACK #1 10"]);
    });
}

/// [MQTT-3.10.4-3]: deliveries begun before UNSUBSCRIBE are completed, on this connection and the next.
#[test]
fn begun_deliveries_are_completed() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        let client = node.connect_durable(V5, "client");
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
        let client = node.resume(V5, "client", 100);
        node.expect(
            client,
            &["CONNACK 00 present", "PUBREL #2", r#"PUBLISH t q2 #3 dup "three""#],
        );
        node.pubcomp(client, 2);
        node.pubrec(client, 3);
        node.expect(client, &["PUBREL #3"]);
        node.pubcomp(client, 3);
        assert_eq!(node.stats().stored_messages, 0);
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
