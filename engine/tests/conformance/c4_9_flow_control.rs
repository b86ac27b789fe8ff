//! Section 4.9: flow control, by the Receive Maximum of either side.

use std::num::NonZeroU16;

use sol_engine::EngineConfig;

use crate::support::*;

/// A publisher and a durable 5.0 subscriber of `t` at QoS 2 with a Receive Maximum.
fn pair(node: &mut Node, receive_maximum: Option<u16>) -> (Client, Client) {
    let publisher = node.connect(V5, "publisher");
    let subscriber = resume(node, receive_maximum);
    node.expect(subscriber, &["CONNACK 00"]);
    node.subscribed(subscriber, &["t"], 2);
    (publisher, subscriber)
}

fn resume(node: &mut Node, receive_maximum: Option<u16>) -> Client {
    node.connect_with(V5, "subscriber", move |connect| {
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(1_000);
        connect.properties.receive_maximum = receive_maximum.and_then(NonZeroU16::new);
    })
}

/// The window opens at Receive Maximum, or at less where the node's own limit is lower, and holds that many exchanges:
/// PUBACK, PUBCOMP and a PUBREC with an error each make room for one more, a PUBREC that goes on makes none.
///
/// Proves 5.0: MQTT-3.3.4-9, MQTT-4.4.0-2, MQTT-4.9.0-1, MQTT-4.9.0-2.
#[test]
fn receive_maximum_is_kept() {
    let config = EngineConfig {
        inflight_max: 12,
        ..Default::default()
    };
    in_each_node(config, |node| {
        for (announced, window) in [(Some(1), 1), (Some(2), 2), (Some(10), 10), (Some(40), 12), (None, 12)] {
            let (publisher, subscriber) = pair(node, announced);
            for n in 0..20 {
                node.publish(publisher, "t", 1 + n % 2, u16::from(n) + 1, "x");
            }
            assert_eq!(node.take(subscriber).len(), window);
            if announced == Some(2) {
                node.pubrec(subscriber, 2);
                node.expect(subscriber, &["PUBREL #2"]);
                node.pubcomp(subscriber, 2);
                node.expect(subscriber, &[r#"PUBLISH t q1 #3 "x""#]);
                node.puback(subscriber, 1);
                node.expect(subscriber, &[r#"PUBLISH t q2 #4 "x""#]);
                node.pubrec_code(subscriber, 4, sol_codec::ReasonCode::UnspecifiedError);
                node.expect(subscriber, &[r#"PUBLISH t q1 #5 "x""#]);
            }
            node.connect(V5, "subscriber");
        }
    });
}

/// With no place in the window QoS 0, acknowledgements and everything else still goes to the client, and is taken from
/// one that has none left towards the broker.
///
/// Proves 5.0: MQTT-3.3.4-10, MQTT-4.9.0-3.
#[test]
fn other_packets_do_not_wait_for_the_window() {
    let config = EngineConfig {
        receive_maximum: NonZeroU16::MIN,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let (publisher, subscriber) = pair(node, Some(1));
        for n in 1..4 {
            node.publish(publisher, "t", 1, n, "x");
        }
        node.expect(subscriber, &[r#"PUBLISH t q1 #1 "x""#]);
        node.publish(publisher, "t", 0, 0, "zero");
        node.publish(subscriber, "y", 2, 9, "");
        node.expect(subscriber, &[r#"PUBLISH t q0 "zero""#, "PUBREC #9 10"]);
        // Neither side has a place left.
        node.ping(subscriber);
        node.publish(subscriber, "y", 0, 0, "");
        node.subscribe(subscriber, &["y"], 0);
        node.unsubscribe(subscriber, &["t"]);
        node.pubrel(subscriber, 9);
        let others = ["PINGRESP", "SUBACK #1 [00]", "UNSUBACK #2 [00]", "PUBCOMP #9"];
        node.expect(subscriber, &others);
        assert_eq!(node.stats().publish_received, 6);
    });
}

/// After a resume the window is that of the new connection; what is open goes first.
///
/// Proves 5.0: MQTT-3.3.4-9, MQTT-4.9.0-1, MQTT-4.9.0-2.
#[test]
fn a_smaller_receive_maximum_after_resume() {
    in_every_node(|node| {
        let (publisher, subscriber) = pair(node, Some(10));
        for n in 1..=5 {
            node.publish(publisher, "t", 1, n, &n.to_string());
        }
        assert_eq!(node.take(subscriber).len(), 5);
        node.lose(subscriber);
        let subscriber = resume(node, Some(2));
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
