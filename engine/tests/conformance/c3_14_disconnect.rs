//! Section 3.14: DISCONNECT, and PINGREQ (3.12).

use std::time::Duration;

use sol_codec::ReasonCode;
use sol_engine::{Cause, Event};

use crate::support::*;

/// [MQTT-3.14.4-1, -2]: after DISCONNECT the connection is closed and nothing more is sent.
#[test]
fn after_disconnect_nothing_is_sent() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let publisher = node.connect(V5, "publisher");
            let client = node.connect(version, "client");
            node.subscribed(client, &["t"], 1);
            node.disconnect(client);
            node.publish(publisher, "t", 0, 0, "late");
            node.ping(client);
            node.expect(client, &["CLOSE"]);
        }
    });
}

/// Section 3.14.2.2.2: DISCONNECT may change the Session Expiry Interval, up and down.
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

/// [MQTT-3.12.4-1]: PINGREQ is answered, whatever else waits.
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
