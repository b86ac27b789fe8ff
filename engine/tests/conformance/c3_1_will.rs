//! Sections 3.1.2.5 and 3.1.3.2: the Will Message.

use std::time::Duration;

use sol_codec::{ApplicationProperties, ReasonCode};
use sol_engine::Input;

use crate::support::*;

/// A 5.0 client with a Will at QoS 0, a delay and a Session Expiry Interval; and one who watches.
fn with_will(node: &mut Node, delay: u32, expiry: u32) -> (Client, Client) {
    let watcher = node.connect(V5, "watcher");
    node.subscribed(watcher, &["w/#"], 2);
    let client = node.connect_with(V5, "client", move |connect| {
        let mut will = will("w/client", b"gone", 0);
        will.properties.will_delay_interval = delay;
        connect.will = Some(will);
        connect.properties.session_expiry_interval = Some(expiry);
        connect.clean_start = false;
    });
    node.take(client);
    (watcher, client)
}

const GONE: &str = r#"PUBLISH w/client q0 "gone""#;

/// The Will of a lost connection is published, once, with its QoS, and not retained.
///
/// Proves 5.0: MQTT-3.1.2-8, MQTT-3.1.2-14; 3.1.1: MQTT-3.1.2-8, MQTT-3.1.2-9, MQTT-3.1.2-16.
#[test]
fn a_lost_connection_publishes_the_will() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["w/#"], 2);
        for version in [V311, V5] {
            for (level, expected) in [
                (0, r#"PUBLISH w/x q0 "gone""#),
                (1, r#"PUBLISH w/x q1 #1 "gone""#),
                (2, r#"PUBLISH w/x q2 #1 "gone""#),
            ] {
                let client = node.connect_with(version, "client", move |connect| {
                    connect.will = Some(will("w/x", b"gone", level));
                });
                node.take(client);
                node.lose(client);
                let got = node.drink(watcher);
                let id = packet_id_of(&got[0]);
                assert_eq!(got[0].replace(&format!("#{id}"), "#1"), expected);
                assert_eq!(got.len(), if level == 2 { 2 } else { 1 });
            }
        }
        let late = node.connect(V5, "late");
        node.subscribe(late, &["w/#"], 0);
        node.expect(late, &["SUBACK #1 [00]"]);
    });
}

/// DISCONNECT drops the Will, and so does its publication: the Session that goes on has none.
///
/// Proves 5.0: MQTT-3.1.2-10, MQTT-3.14.4-3; 3.1.1: MQTT-3.1.2-10, MQTT-3.14.4-3.
#[test]
fn a_clean_disconnect_drops_the_will() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["w/#"], 2);
        for version in [V311, V5] {
            let with_will = move |node: &mut Node| {
                let client = node.connect_with(version, "client", move |connect| {
                    connect.will = Some(will("w/x", b"gone", 0));
                    connect.clean_start = false;
                    connect.properties.session_expiry_interval = (version == V5).then_some(1_000);
                });
                node.take(client);
                client
            };
            let client = with_will(node);
            node.lose(client);
            node.expect(watcher, &[r#"PUBLISH w/x q0 "gone""#]);
            let client = with_will(node);
            node.disconnect(client);
            node.expect(client, &["CLOSE"]);
            node.pass(Duration::from_secs(500));
            node.expect(watcher, &[]);
            let client = node.resume(version, "client", 1);
            node.expect(client, &["CONNACK 00 present"]);
            node.lose(client);
            node.pass(Duration::from_secs(500));
            node.expect(watcher, &[]);
            node.connect(version, "client");
        }
    });
}

/// Will Flag 0: no Will is published, whatever an earlier connection of the Session had.
///
/// Proves 3.1.1: MQTT-3.1.2-12.
#[test]
fn without_will_flag_there_is_no_will() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["#"], 2);
        for version in [V311, V5] {
            let client = node.connect_with(version, "client", move |connect| {
                connect.will = Some(will("w/x", b"gone", 0));
                connect.clean_start = false;
                connect.properties.session_expiry_interval = (version == V5).then_some(1_000);
            });
            node.lose(client);
            node.expect(watcher, &[r#"PUBLISH w/x q0 "gone""#]);
            let client = node.resume(version, "client", 1_000);
            node.lose(client);
            node.pass(Duration::from_secs(2_000));
            node.expect(watcher, &[]);
            node.connect(version, "client");
        }
    });
}

/// Section 3.14.2.1: DISCONNECT 0x04, and any code but 0x00, wants the Will published.
#[test]
fn disconnect_with_will_publishes_it() {
    in_every_node(|node| {
        for reason in [ReasonCode::DisconnectWithWillMessage, ReasonCode::UnspecifiedError] {
            let (watcher, client) = with_will(node, 0, 0);
            node.disconnect_with(client, reason, None);
            node.expect(client, &["CLOSE"]);
            node.expect(watcher, &[GONE]);
            node.disconnect(watcher);
        }
    });
}

/// With a delay the Will, which is the Session's, comes when the delay has passed.
///
/// Proves 5.0: MQTT-3.1.2-7, MQTT-3.1.2-8.
#[test]
fn the_will_waits_for_its_delay() {
    in_every_node(|node| {
        let (watcher, client) = with_will(node, 10, 60);
        node.lose(client);
        node.pass(Duration::from_millis(9_900));
        node.expect(watcher, &[]);
        node.pass(Duration::from_millis(200));
        node.expect(watcher, &[GONE]);
        let client = node.resume(V5, "client", 60);
        node.expect(client, &["CONNACK 00 present"]);
        node.lose(client);
        node.pass(Duration::from_secs(200));
        node.expect(watcher, &[]);
    });
}

/// Section 3.1.3.2.2: the Will does not wait longer than the Session lasts.
///
/// Proves 5.0: MQTT-3.1.2-8, MQTT-4.1.0-2.
#[test]
fn the_end_of_the_session_ends_the_delay() {
    in_every_node(|node| {
        let (watcher, client) = with_will(node, 100, 5);
        node.lose(client);
        node.pass(Duration::from_millis(4_900));
        node.expect(watcher, &[]);
        node.pass(Duration::from_millis(200));
        node.expect(watcher, &[GONE]);
        node.pass(Duration::from_secs(200));
        node.expect(watcher, &[]);
        assert_eq!(node.stats().clients_disconnected, 0);
    });
}

/// Section 3.1.3.2.2: without a Session to come back to, the delay does not count.
///
/// Proves 5.0: MQTT-3.1.2-8.
#[test]
fn without_a_session_the_delay_does_not_count() {
    in_every_node(|node| {
        let (watcher, client) = with_will(node, 100, 0);
        node.lose(client);
        node.expect(watcher, &[GONE]);
    });
}

/// Who comes back before the delay has passed keeps its Will to itself.
///
/// Proves 5.0: MQTT-3.1.2-8, MQTT-3.1.3-9.
#[test]
fn coming_back_in_time_cancels_the_will() {
    in_every_node(|node| {
        let (watcher, client) = with_will(node, 10, 60);
        node.lose(client);
        node.pass(Duration::from_secs(5));
        let again = node.resume(V5, "client", 60);
        node.expect(again, &["CONNACK 00 present"]);
        node.lose(again);
        node.pass(Duration::from_secs(100));
        node.expect(watcher, &[]);
    });
}

/// Section 3.1.3.2.2: Clean Start ends the Session, so a Will that waited for its delay is due.
///
/// Proves 5.0: MQTT-3.1.2-8.
#[test]
fn clean_start_publishes_a_waiting_will() {
    in_every_node(|node| {
        let (watcher, client) = with_will(node, 10, 60);
        node.lose(client);
        node.connect(V5, "client");
        node.expect(watcher, &[GONE]);
    });
}

/// A takeover without delay publishes the Will of the old connection; with a delay it does not.
///
/// Proves 5.0: MQTT-3.1.2-8, MQTT-3.1.3-9, MQTT-3.1.4-3.
#[test]
fn takeover_and_will() {
    in_every_node(|node| {
        let (watcher, old) = with_will(node, 0, 60);
        let new = node.resume(V5, "client", 60);
        node.expect(old, &["DISCONNECT 8e", "CLOSE"]);
        node.expect(new, &["CONNACK 00 present"]);
        node.expect(watcher, &[GONE]);
        node.disconnect_with(new, ReasonCode::Success, Some(0));
        node.disconnect(watcher);

        let (watcher, _) = with_will(node, 10, 60);
        let new = node.resume(V5, "client", 60);
        node.expect(new, &["CONNACK 00 present"]);
        node.pass(Duration::from_secs(100));
        node.expect(watcher, &[]);
    });
}

/// The payload of a Will is bytes: NUL does not cut it.
#[test]
fn a_will_may_contain_nul() {
    in_every_node(|node| {
        let watcher = node.connect(V311, "watcher");
        node.subscribed(watcher, &["w"], 0);
        let client = node.connect_with(V311, "client", |connect| connect.will = Some(will("w", b"a\0b", 0)));
        node.take(client);
        node.lose(client);
        node.expect(watcher, &[r#"PUBLISH w q0 "a\0b""#]);
    });
}

/// A retained Will is stored when it is published, not at CONNECT.
///
/// Proves 5.0: MQTT-3.1.2-15; 3.1.1: MQTT-3.1.2-9, MQTT-3.1.2-17.
#[test]
fn a_retained_will_is_stored_when_published() {
    in_every_node(|node| {
        for (version, topic) in [(V311, "w/3"), (V5, "w/5")] {
            let client = node.connect_with(version, "client", move |connect| {
                let mut will = will(topic, b"gone", 1);
                will.retain = true;
                connect.will = Some(will);
            });
            node.take(client);
            let early = node.connect(V5, "early");
            node.subscribe(early, &[topic], 1);
            node.expect(early, &["SUBACK #1 [01]"]);
            node.lose(client);
            assert_eq!(node.take(early).len(), 1);
            let late = node.connect(V5, "late");
            node.subscribe(late, &[topic], 1);
            let stored = format!("PUBLISH {topic} q1 #1 retain \"gone\"");
            node.expect(late, &["SUBACK #1 [01]", &stored]);
        }
    });
}

/// Topics of the broker's own are not for a client's Will.
#[test]
fn a_will_to_sys_is_not_published() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["$SYS/#", "$SOL/#"], 0);
        for topic in ["$SYS/broker/uptime", "$SOL/broker/uptime"] {
            let client = node.connect_with(V5, "client", move |connect| connect.will = Some(will(topic, b"", 0)));
            node.take(client);
            node.lose(client);
        }
        node.expect(watcher, &[]);
        assert_eq!(node.stats().publish_unauthorized, 2);
    });
}

/// User Properties of the Will keep their order; its expiry begins when it is published.
///
/// Proves 5.0: MQTT-3.1.2-8, MQTT-3.1.3-10.
#[test]
fn will_properties_are_published() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["w"], 0);
        let client = node.open(V5);
        node.send(client, |send| {
            let pairs = [("b", "1"), ("a", "2"), ("b", "0")];
            let mut stored = Vec::new();
            let mut builder = sol_codec::ApplicationPropertiesBuilder::new(&mut stored).content_type("text/plain");
            for (name, value) in pairs {
                builder = builder.user_property(name, value);
            }
            let mut will = will("w", b"gone", 0);
            will.properties.application = ApplicationProperties::from_stored(&stored);
            will.properties.message_expiry_interval = Some(30);
            will.properties.will_delay_interval = 20;
            let mut packet = connect(V5, "client");
            packet.will = Some(will);
            packet.properties.session_expiry_interval = Some(100);
            send(&sol_codec::Packet::Connect(packet));
        });
        node.expect(client, &["CONNACK 00"]);
        node.lose(client);
        node.pass(Duration::from_secs(21));
        node.expect(
            watcher,
            &[r#"PUBLISH w q0 expiry30 "gone" type=text/plain b=1 a=2 b=0"#],
        );
    });
}

/// Keep Alive, a broken rule and the broker's end are no clean DISCONNECT.
///
/// Proves 5.0: MQTT-3.1.2-8, MQTT-3.1.2-22; 3.1.1: MQTT-3.1.2-8.
#[test]
fn every_other_end_publishes_the_will() {
    in_every_node(|node| {
        let (watcher, client) = with_will(node, 0, 0);
        node.refuses_bytes(client, b"\xc0\x01x", 0x81);
        node.expect(watcher, &[GONE]);

        let client = node.connect_with(V5, "client", |connect| {
            connect.will = Some(will("w/client", b"gone", 0));
            connect.keep_alive = 1;
        });
        node.pass(Duration::from_secs(2));
        node.expect(client, &["CONNACK 00", "DISCONNECT 8d", "CLOSE"]);
        node.expect(watcher, &[GONE]);

        let keeper = node.connect_durable(V5, "keeper");
        node.subscribed(keeper, &["w/#"], 1);
        node.lose(keeper);
        node.connect_with(V5, "client", |connect| {
            connect.will = Some(will("w/client", b"gone", 1))
        });
        node.input_all(|| Input::Shutdown);
        assert_eq!(node.stats().stored_messages, 1);
    });
}

/// A Will reaches Shared Subscriptions and queues like any message.
#[test]
fn a_will_is_queued_for_who_is_away() {
    in_every_node(|node| {
        let keeper = node.connect_durable(V311, "keeper");
        node.subscribed(keeper, &["w"], 1);
        node.lose(keeper);
        let client = node.connect_with(V5, "client", |connect| connect.will = Some(will("w", b"gone", 1)));
        node.take(client);
        node.lose(client);
        let keeper = node.resume(V311, "keeper", 0);
        node.expect(keeper, &["CONNACK 00 present", r#"PUBLISH w q1 #1 "gone""#]);
    });
}
