//! Section 3.2: CONNACK, what comes before it and what follows.

use std::num::NonZeroU16;

use sol_codec::{QoS, ReasonCode};
use sol_engine::{AuthOutcome, EngineConfig, Input, ListenerRules};

use crate::support::*;

fn asking() -> EngineConfig {
    EngineConfig {
        listeners: vec![ListenerRules {
            allow_anonymous: true,
            ask: true,
            named: false,
        }],
        ..Default::default()
    }
}

fn named(node: &mut Node, version: sol_codec::ProtocolVersion, client_id: &str) -> Client {
    node.connect_with(version, client_id, |connect| {
        connect.username = Some("user");
        connect.clean_start = false;
    })
}

/// While CONNACK waits, for the disk or for a login, nothing else is sent; then it comes first, and once.
///
/// Proves 5.0: MQTT-3.2.0-1, MQTT-3.2.0-2; 3.1.1: MQTT-3.2.0-1.
#[test]
fn connack_comes_first_and_once() {
    let config = EngineConfig {
        journal: true,
        ..asking()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            let client = node.connect_durable(version, "client");
            node.subscribed(client, &["t"], 2);
            node.lose(client);
            node.publish(publisher, "t", 1, 1, "kept");
            node.take(publisher);

            let client = named(node, version, "client");
            node.publish(publisher, "t", 1, 2, "while the login is checked");
            node.ping(client);
            node.expect(client, &[]);
            node.durable_at_once = false;
            node.answer_login(AuthOutcome::Accepted);
            node.publish(publisher, "t", 0, 0, "while the record is written");
            node.expect(client, &[]);
            node.durable_at_once = true;
            node.make_all_durable();
            let got = node.drink(client);
            assert_eq!(got[0], "CONNACK 00 present");
            assert_eq!(got.iter().filter(|line| line.starts_with("CONNACK")).count(), 1);
            assert_eq!(got.iter().filter(|line| line.starts_with("PUBLISH")).count(), 2);
            assert!(got.contains(&"PINGRESP".to_owned()));
            node.disconnect_with(client, ReasonCode::Success, (version == V5).then_some(0));
            // The Session is this user's now, who discards it.
            let last = node.connect_with(version, "client", |connect| connect.username = Some("user"));
            node.answer_login(AuthOutcome::Accepted);
            node.disconnect(last);
        }
    });
}

/// An answer of the authenticator that comes twice makes no second CONNACK.
///
/// Proves 5.0: MQTT-3.2.0-2.
#[test]
fn a_second_answer_makes_no_second_connack() {
    in_each_node(asking(), |node| {
        let client = named(node, V5, "client");
        let (shard, request) = node.auth_requests[0].clone();
        node.answer_login(AuthOutcome::Accepted);
        node.expect(client, &["CONNACK 00"]);
        for outcome in [AuthOutcome::Accepted, AuthOutcome::Refused(ReasonCode::NotAuthorized)] {
            node.input(shard, Input::Authenticated(request.connection, outcome));
            node.run();
        }
        node.ping(client);
        node.expect(client, &["PINGRESP"]);
    });
}

/// Of the Connect Acknowledge Flags only Session Present is ever set, and that not beside a refusal, although there is a
/// Session.
///
/// Proves 5.0: MQTT-3.2.2-1, MQTT-3.2.2-6; 3.1.1: MQTT-3.2.2-4.
#[test]
fn a_refusal_has_no_session_present() {
    in_each_node(asking(), |node| {
        node.keeps_bytes = true;
        for version in [V311, V5] {
            let mut flags = |outcome| {
                let client = named(node, version, "client");
                node.answer_login(outcome);
                let connack = node.take_bytes(client).remove(0);
                node.lose(client);
                (connack[2], connack[3])
            };
            flags(AuthOutcome::Accepted);
            let refused = AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword);
            let bad = if version == V5 { 0x86 } else { 4 };
            assert_eq!(flags(refused), (0, bad));
            let there = u8::from(version == V311);
            assert_eq!(flags(AuthOutcome::Accepted), (there, 0));
        }
    });
}

/// Every refusal is one of the codes that CONNACK may have, and the connection is closed behind it. What 3.1.1 has no
/// return code for is closed without a word.
///
/// Proves 5.0: MQTT-3.2.2-7, MQTT-3.2.2-8, MQTT-3.2.2-12, MQTT-3.2.2-13; 3.1.1: MQTT-3.2.2-5, MQTT-3.2.2-6.
#[test]
fn refusals_have_a_code_of_connack() {
    let config = EngineConfig {
        maximum_qos: QoS::AtMostOnce,
        retain_available: false,
        connections_max: 0,
        ..asking()
    };
    in_each_node(config, |node| {
        node.keeps_bytes = true;
        for (version, codes) in [
            (V5, [Some(0x85), Some(0x9b), Some(0x9a), Some(0x89), Some(0x97)]),
            (V311, [Some(2), None, None, Some(3), Some(3)]),
        ] {
            let long = node.connect_with(version, &"x".repeat(2_000), |_| {});
            let qos = node.connect_with(version, "b", |connect| connect.will = Some(will("w", b"", 1)));
            let retain = node.connect_with(version, "c", |connect| {
                connect.will = Some(will("w", b"", 0));
                connect.will.as_mut().unwrap().retain = true;
            });
            let busy = named(node, version, "d");
            node.answer_login(AuthOutcome::Refused(ReasonCode::ServerBusy));
            let full = node.connect_with(version, "e", |_| {});
            for (client, code) in [long, qos, retain, busy, full].into_iter().zip(codes) {
                assert_eq!(node.clients[client.0].inbox.back().unwrap(), "CLOSE");
                let got: Vec<_> = node.take_bytes(client).iter().map(|connack| connack[3]).collect();
                assert_eq!(got, Vec::from_iter(code));
            }
        }
    });
}

/// A broker that takes less than QoS 2 says so, and still grants Subscriptions that ask for more what it can do.
///
/// Proves 5.0: MQTT-3.2.2-9, MQTT-3.2.2-10.
#[test]
fn subscriptions_above_maximum_qos_are_granted() {
    for maximum in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let config = EngineConfig {
            maximum_qos: maximum,
            ..Default::default()
        };
        in_each_node(config, |node| {
            let client = node.connect(V5, "client");
            assert_eq!(
                node.clients[client.0].connack.as_ref().unwrap().maximum_qos,
                Some(maximum)
            );
            for asked in 0..=2 {
                node.subscribe(client, &["t"], asked);
                let granted = asked.min(maximum as u8);
                assert_eq!(node.take(client), [format!("SUBACK #1 [{granted:02x}]")]);
            }
        });
    }
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        assert_eq!(node.clients[client.0].connack.as_ref().unwrap().maximum_qos, None);
    });
}

/// Session Present of a Session that has ended in the meantime is 0, of one whose time was changed to longer 1.
///
/// Proves 5.0: MQTT-3.2.2-3, MQTT-4.1.0-2.
#[test]
fn session_present_is_what_is_there_now() {
    in_every_node(|node| {
        let seconds = std::time::Duration::from_secs;
        for (at_disconnect, present) in [(Some(1), "CONNACK 00"), (Some(1_000), "CONNACK 00 present")] {
            let client = node.resume(V5, "client", 100);
            node.disconnect_with(client, ReasonCode::Success, at_disconnect);
            node.pass(seconds(500));
            let client = node.resume(V5, "client", 100);
            let got = node.take(client);
            assert_eq!(got, [present]);
            node.disconnect_with(client, ReasonCode::Success, Some(0));
        }
    });
}

/// The Receive Maximum, Maximum Packet Size and Topic Alias Maximum in force are told in every CONNACK.
#[test]
fn limits_in_force_are_told() {
    let config = EngineConfig {
        receive_maximum: NonZeroU16::new(9).unwrap(),
        ..Default::default()
    };
    in_each_node(config, |node| {
        for client_id in ["named", ""] {
            let client = node.connect(V5, client_id);
            let connack = node.clients[client.0].connack.clone().unwrap();
            let told = (
                connack.receive_maximum,
                connack.maximum_packet_size,
                connack.topic_alias_maximum,
            );
            assert_eq!(told, (Some(9), Some(1 << 20), Some(32)));
        }
    });
}
