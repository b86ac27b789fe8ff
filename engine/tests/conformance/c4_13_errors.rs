//! Section 4.13, and 4.8 of 3.1.1: what a fault of the peer or a failure of our own does to the connection.

use std::time::Duration;

use sol_codec::{Packet, ReasonCode};
use sol_engine::{AuthOutcome, EngineConfig, Level, ListenerRules};

use crate::support::raw::*;
use crate::support::*;

/// A packet that does not belong there, and bytes that are no packet, end the connection with their Reason Code; who did
/// nothing wrong does not notice.
///
/// Proves 5.0: MQTT-4.13.1-1, MQTT-4.13.2-1; 3.1.1: MQTT-4.8.0-1.
#[test]
fn faults_end_the_connection_with_their_reason_code() {
    in_every_node(|node| {
        let good = node.connect(V5, "good");
        node.subscribed(good, &["t"], 1);
        for version in [V311, V5] {
            let none = section(version, &[]);
            let servers = [
                &b"\xd0\x00"[..],
                b"\x20\x02\x00\x00",
                b"\x90\x03\x00\x01\x00",
                b"\xb0\x02\x00\x01",
            ];
            for bytes in servers {
                let client = node.connect(version, "bad");
                node.refuses_bytes(client, bytes, 0x82);
            }
            for (bytes, reason_code) in [
                (packet(0x00, &[]), 0x81),
                (packet(0xc0, &[b"x"]), 0x81),
                (packet(0x32, &[&field(b"t")]), 0x81),
                (b"\xc0\xff\xff\xff\xff\x01".to_vec(), 0x81),
                (b"\x30\xff\xff\xff\x7f".to_vec(), 0x95),
                (packet(0x82, &[&[0, 1], &none, &field(b"a/#/b"), &[0]]), 0x8f),
                (packet(0x82, &[&[0, 1], &none]), 0x82),
            ] {
                let client = node.connect(version, "bad");
                node.refuses_bytes(client, &bytes, reason_code);
            }
            // Past the codec, which knows who sends what, the engine is no less strict.
            let client = node.connect(version, "bad");
            node.push(client, &Packet::PingResp);
            let got = node.take(client);
            assert_eq!(got.last().map(String::as_str), Some("CLOSE"));
            assert_eq!(got.first().map(String::as_str) == Some("DISCONNECT 82"), version == V5);
        }
        node.publish(good, "t", 1, 1, "fine");
        node.expect(good, &[r#"PUBLISH t q1 #1 "fine""#, "PUBACK #1"]);
    });
}

/// A Reason Code of 0x80 or more, sent or received, in CONNACK or in DISCONNECT, is the last word on a connection.
///
/// Proves 5.0: MQTT-4.13.2-1.
#[test]
fn an_error_is_the_last_word() {
    let config = EngineConfig {
        listeners: vec![ListenerRules {
            allow_anonymous: true,
            ask: true,
            named: false,
        }],
        ..Default::default()
    };
    in_each_node(config, |node| {
        let refused = node.connect_with(V5, "refused", |connect| connect.username = Some("user"));
        node.answer_login(AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword));
        let bad = node.connect(V5, "bad");
        node.send_bytes(bad, b"\xc0\x01x");
        let left = node.connect(V5, "left");
        node.disconnect_with(left, ReasonCode::ImplementationSpecificError, None);
        for (client, expected) in [
            (refused, &["CONNACK 86", "CLOSE"][..]),
            (bad, &["DISCONNECT 81", "CLOSE"]),
            (left, &["CLOSE"]),
        ] {
            node.push(client, &Packet::PingReq);
            node.expect(client, expected);
        }
    });
}

/// A message that cannot be kept for want of memory waits unacknowledged; when that takes too long the connection ends.
///
/// Proves 3.1.1: MQTT-4.8.0-2.
#[test]
fn what_cannot_be_handled_for_now_ends_the_connection_at_last() {
    in_every_node(|node| {
        let keeper = node.connect_durable(V311, "keeper");
        node.subscribed(keeper, &["t"], 1);
        node.lose(keeper);
        let client = node.connect(V311, "client");
        node.input_all(|| sol_engine::Input::Pressure(Level::Full));
        node.publish(client, "t", 1, 1, "too much");
        node.expect(client, &[]);
        node.pass(Duration::from_secs(29));
        node.expect(client, &[]);
        node.pass(Duration::from_secs(2));
        node.expect(client, &["CLOSE"]);
        assert_eq!(node.stats().parked_closed, 1);
    });
}
