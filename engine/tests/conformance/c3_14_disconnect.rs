//! Section 3.14: DISCONNECT, and PINGREQ (3.12).

use std::num::NonZeroU32;
use std::time::Duration;

use sol_codec::{Packet, PubAck, ReasonCode};
use sol_engine::{Cause, EngineConfig, Event, Input};

use crate::support::*;

/// After DISCONNECT, of either side, the connection is closed and nothing more is sent, although there is something to
/// send and the peer goes on.
///
/// Proves 5.0: MQTT-3.14.4-1, MQTT-3.14.4-2.
#[test]
fn after_disconnect_nothing_is_sent() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            for by_server in [false, true] {
                let client = node.connect_durable(version, "client");
                node.subscribed(client, &["t"], 1);
                node.publish(publisher, "t", 1, 1, "open");
                node.take(client);
                let says = if by_server {
                    node.send_bytes(client, b"\xc0\x01x");
                    (version == V5).then(|| "DISCONNECT 81".to_owned())
                } else {
                    node.disconnect(client);
                    None
                };
                node.publish(publisher, "t", 0, 0, "late");
                node.publish(publisher, "t", 1, 2, "late");
                node.push(client, &Packet::PingReq);
                node.push(client, &Packet::PubAck(PubAck::success(id(1))));
                node.push(client, &Packet::Publish(publish("t", 1, 1, b"")));
                node.pass(Duration::from_secs(10));
                let expected: Vec<_> = says.into_iter().chain(["CLOSE".to_owned()]).collect();
                assert_eq!(node.take(client), expected);
                node.connect(version, "client");
            }
        }
    });
}

/// Flags of DISCONNECT that are not 0 end the connection as any fault does, the Will published.
///
/// Proves 5.0: MQTT-3.14.1-1; 3.1.1: MQTT-3.14.1-1.
#[test]
fn the_flags_of_disconnect_are_0() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["w"], 0);
        for version in [V311, V5] {
            for flags in [1, 2, 4, 8, 15] {
                let client = node.connect_with(version, "client", |connect| connect.will = Some(will("w", b"gone", 0)));
                node.refuses_bytes(client, &[0xe0 | flags, 0], 0x81);
                node.expect(watcher, &[r#"PUBLISH w q0 "gone""#]);
            }
        }
    });
}

/// Every DISCONNECT of the broker has one of its Reason Codes and nothing else: three bytes, which every client takes.
///
/// Proves 5.0: MQTT-3.1.2-22, MQTT-3.1.4-3, MQTT-3.14.2-1, MQTT-3.14.2-2, MQTT-3.14.2-3, MQTT-3.14.2-4.
#[test]
fn the_brokers_disconnect_is_a_reason_code() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        let connected = |node: &mut Node| {
            let client = node.connect_with(V5, "client", |connect| {
                connect.keep_alive = 1;
                connect.properties.maximum_packet_size = NonZeroU32::new(16);
            });
            node.take_bytes(client);
            client
        };
        let told = |node: &mut Node, client: Client, reason_code: u8| {
            assert_eq!(node.take_bytes(client), [[0xe0, 1, reason_code]]);
        };
        for (bytes, reason_code) in [
            (&b"\xc0\x01x"[..], 0x81),
            (b"\xd0\x00", 0x82),
            (b"\x82\x09\x00\x01\x00\x00\x03a#b\x00", 0x8f),
            (b"\x34\x09\x00\x01t\x00\x01\x03\x23\xff\xff", 0x94),
            (b"\x30\xff\xff\xff\x7f", 0x95),
        ] {
            let client = connected(node);
            node.send_bytes(client, bytes);
            told(node, client, reason_code);
        }
        let client = connected(node);
        node.pass(Duration::from_secs(2));
        told(node, client, 0x8d);
        let client = connected(node);
        let again = connected(node);
        told(node, client, 0x8e);
        node.input_all(|| Input::Shutdown);
        told(node, again, 0x8b);
    });
}

/// A client's DISCONNECT with a Reason Code that it does not have is a fault.
///
/// Proves 5.0: MQTT-3.14.2-1.
#[test]
fn disconnect_has_its_own_reason_codes() {
    in_every_node(|node| {
        for code in [
            0x01, 0x02, 0x10, 0x18, 0x7f, 0x84, 0x85, 0x86, 0x88, 0x8a, 0x91, 0x92, 0xa3, 0xff,
        ] {
            let client = node.connect(V5, "client");
            node.refuses_bytes(client, &[0xe0, 1, code], 0x82);
        }
    });
}

/// Section 3.14.2.2.2: DISCONNECT may change the Session Expiry Interval, up and down.
///
/// Proves 5.0: MQTT-4.1.0-2.
#[test]
fn disconnect_changes_the_expiry() {
    in_every_node(|node| {
        for (interval, after, expected) in [
            (Some(100), 99, "CONNACK 00 present"),
            (Some(100), 101, "CONNACK 00"),
            (Some(2), 3, "CONNACK 00"),
            (Some(0), 0, "CONNACK 00"),
            (None, 9, "CONNACK 00 present"),
            (None, 11, "CONNACK 00"),
        ] {
            let client = node.resume(V5, "client", 10);
            node.take(client);
            node.disconnect_with(client, ReasonCode::Success, interval);
            node.expect(client, &["CLOSE"]);
            node.pass(Duration::from_secs(after));
            let client = node.resume(V5, "client", 10);
            node.expect(client, &[expected]);
            node.disconnect_with(client, ReasonCode::Success, Some(0));
        }
    });
}

/// Section 3.14.2.2.2: from 0 the expiry cannot be raised; that is a Protocol Error, and the Will is published.
#[test]
fn an_expiry_of_0_cannot_be_raised() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["w"], 0);
        let client = node.connect_with(V5, "client", |connect| connect.will = Some(will("w", b"gone", 0)));
        node.take(client);
        node.disconnect_with(client, ReasonCode::Success, Some(1));
        node.expect(client, &["DISCONNECT 82", "CLOSE"]);
        node.expect(watcher, &[r#"PUBLISH w q0 "gone""#]);
        let again = node.resume(V5, "client", 0);
        node.expect(again, &["CONNACK 00"]);
    });
}

/// Who asked for a Session that stays, and was told that there is none, has not asked for 0: it may ask again, in vain, and
/// its DISCONNECT drops the Will (section 3.14.2.2.2).
///
/// Proves 5.0: MQTT-3.14.4-3.
#[test]
fn an_expiry_that_was_cut_to_0_was_not_0() {
    let config = EngineConfig {
        session_expiry_max: 0,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["w"], 0);
        for (asked, expected) in [(10, &["CLOSE"][..]), (0, &["DISCONNECT 82", "CLOSE"])] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.will = Some(will("w", b"gone", 0));
                connect.properties.session_expiry_interval = Some(asked);
            });
            node.take(client);
            node.disconnect_with(client, ReasonCode::Success, Some(5));
            node.expect(client, expected);
            assert_eq!(node.take(watcher).len(), usize::from(asked == 0));
        }
        assert_eq!(node.stats().clients_disconnected, 0);
    });
}

/// The reason that a client gave is told to the log.
#[test]
fn the_reason_is_told() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.disconnect_with(client, ReasonCode::ReceiveMaximumExceeded, None);
        let cause = node.events.iter().find_map(|event| match event {
            Event::Disconnected { cause, client_id, .. } => Some((cause.clone(), client_id.clone())),
            _ => None,
        });
        let expected = Cause::Client(ReasonCode::ReceiveMaximumExceeded);
        assert_eq!(cause, Some((expected, "client".into())));
    });
}

/// PINGREQ is answered, whatever else waits.
///
/// Proves 5.0: MQTT-3.12.4-1; 3.1.1: MQTT-3.12.4-1.
#[test]
fn pingreq_is_answered() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.hold_mail();
            node.subscribe(client, &["t"], 0);
            node.ping(client);
            let got = node.take(client);
            assert!(got.contains(&"PINGRESP".to_owned()), "{got:?}");
            node.release_mail();
            node.disconnect(client);
        }
    });
}
