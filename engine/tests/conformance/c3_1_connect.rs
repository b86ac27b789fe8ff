//! Section 3.1: CONNECT, and what becomes of Sessions. Wills are in a file of their own.

use std::num::NonZeroU16;
use std::time::Duration;

use sol_codec::{Auth, AuthProperties, DecodeError, DecodeErrorKind, Packet, QoS, ReasonCode};
use sol_engine::{AuthOutcome, Cause, Credentials, EngineConfig, Event, Input, ListenerRules, Violation};

use crate::support::*;

fn asking() -> EngineConfig {
    EngineConfig {
        listeners: vec![ListenerRules {
            allow_anonymous: false,
            ask: true,
            named: false,
        }],
        ..Default::default()
    }
}

/// A good CONNECT gets CONNACK 0x00, with Session Present 0 for a new Session.
///
/// Proves 5.0: MQTT-3.1.2-6, MQTT-3.1.4-5, MQTT-3.2.2-2, MQTT-3.2.2-3;
/// 3.1.1: MQTT-3.1.4-4, MQTT-3.2.2-1, MQTT-3.2.2-3.
#[test]
fn a_new_client_gets_connack() {
    in_every_node(|node| {
        for version in [V311, V5] {
            for clean in [true, false] {
                let client = node.connect_with(version, &format!("c{version:?}{clean}"), move |connect| {
                    connect.clean_start = clean;
                });
                node.expect(client, &["CONNACK 00"]);
            }
        }
    });
}

/// Section 3.2.2.3: CONNACK says what is true of this server, and leaves out what is as the client asked.
///
/// Proves 5.0: MQTT-3.2.2-9, MQTT-3.2.2-22.
#[test]
fn connack_says_the_limits_in_force() {
    let config = EngineConfig {
        receive_maximum: NonZeroU16::new(7).unwrap(),
        maximum_packet_size: 5_000,
        topic_alias_maximum: 3,
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        keep_alive_max: 100,
        session_expiry_max: 50,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let modest = node.connect_with(V5, "modest", |connect| {
            connect.keep_alive = 90;
            connect.properties.session_expiry_interval = Some(40);
        });
        let greedy = node.connect_with(V5, "greedy", |connect| {
            connect.keep_alive = 101;
            connect.properties.session_expiry_interval = Some(u32::MAX);
        });
        let eternal = node.connect_with(V5, "eternal", |_| {});
        for client in [modest, greedy, eternal] {
            node.expect(client, &["CONNACK 00"]);
            let connack = node.clients[client.0].connack.clone().unwrap();
            assert_eq!(connack.receive_maximum, Some(7));
            assert_eq!(connack.maximum_packet_size, Some(5_000));
            assert_eq!(connack.topic_alias_maximum, Some(3));
            assert_eq!(connack.maximum_qos, Some(QoS::AtLeastOnce));
            assert_eq!(connack.retain_available, Some(false));
            assert_eq!(connack.assigned_client_id, None);
        }
        let of = |node: &Node, client: Client| {
            let connack = node.clients[client.0].connack.clone().unwrap();
            (connack.server_keep_alive, connack.session_expiry_interval)
        };
        assert_eq!(of(node, modest), (None, None));
        assert_eq!(of(node, greedy), (Some(100), Some(50)));
        assert_eq!(of(node, eternal), (Some(100), None));
    });
}

/// [MQTT-3.2.2-9, 3.2.2-14]: without limits worth telling, none is told.
#[test]
fn connack_is_silent_about_what_is_not_limited() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        let connack = node.clients[client.0].connack.clone().unwrap();
        assert_eq!(
            (connack.maximum_qos, connack.retain_available, connack.server_keep_alive),
            (None, None, None)
        );
    });
}

/// Clean Start 0 resumes what there is; Clean Start 1 drops it. Both versions.
///
/// Proves 5.0: MQTT-3.1.2-4, MQTT-3.1.2-5, MQTT-3.1.2-6, MQTT-3.1.4-4, MQTT-3.2.2-2, MQTT-3.2.2-3;
/// 3.1.1: MQTT-3.1.2-4, MQTT-3.1.2-5, MQTT-3.1.2-6, MQTT-3.1.4-3, MQTT-3.2.2-1, MQTT-3.2.2-2, MQTT-3.2.2-3.
#[test]
fn clean_start_decides_what_becomes_of_the_session() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            let first = node.connect_durable(version, "durable");
            node.subscribed(first, &["t"], 1);
            node.lose(first);
            node.publish(publisher, "t", 1, 1, "kept");
            node.expect(publisher, &["PUBACK #1"]);

            let second = node.resume(version, "durable", 3_600);
            node.expect(second, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "kept""#]);
            node.puback(second, 1);
            node.disconnect(second);
            node.expect(second, &["CLOSE"]);

            let clean = node.connect_with(version, "durable", |_| {});
            node.expect(clean, &["CONNACK 00"]);
            node.publish(publisher, "t", 1, 2, "nobody");
            node.take(publisher);
            node.lose(clean);
            let none = node.resume(version, "durable", 3_600);
            node.expect(none, &["CONNACK 00"]);
            node.disconnect_with(none, ReasonCode::Success, (version == V5).then_some(0));
            node.take(none);
            let clean = node.connect(version, "durable");
            node.disconnect(clean);
        }
        assert_eq!(node.stats().subscriptions, 0);
    });
}

/// Without an expiry a Session ends with its connection.
///
/// Proves 3.1.1: MQTT-3.1.2-6.
#[test]
fn a_session_without_expiry_ends_with_its_connection() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "short");
            node.subscribed(client, &["t"], 2);
            node.lose(client);
            let again = node.resume(version, "short", 0);
            node.expect(again, &["CONNACK 00"]);
            node.disconnect_with(again, ReasonCode::Success, None);
            if version == V311 {
                // Clean Session 0 left a Session behind.
                node.connect(version, "short");
            }
        }
    });
}

/// A Session is dropped when its expiry has passed, not earlier; and the cap of the server counts.
///
/// Proves 5.0: MQTT-3.1.2-23, MQTT-4.1.0-2.
#[test]
fn a_session_expires_when_it_should() {
    let config = EngineConfig {
        session_expiry_max: 60,
        ..Default::default()
    };
    in_each_node(config, |node| {
        for (asked, lasts) in [(10, 10), (60, 60), (61, 60), (u32::MAX, 60)] {
            let client = node.resume(V5, "expiring", asked);
            node.expect(client, &["CONNACK 00"]);
            node.lose(client);
            node.pass(Duration::from_secs(lasts - 1));
            let in_time = node.resume(V5, "expiring", asked);
            node.expect(in_time, &["CONNACK 00 present"]);
            node.lose(in_time);
            node.pass(Duration::from_secs(lasts + 1));
            let late = node.resume(V5, "expiring", 0);
            node.expect(late, &["CONNACK 00"]);
            node.lose(late);
        }
        assert_eq!(node.stats().clients_expired, 4);
        assert_eq!(node.stats().clients_disconnected, 0);
    });
}

/// A Session Expiry Interval of 0xFFFFFFFF, and Clean Session 0 of 3.1.1, never expire.
///
/// Proves 5.0: MQTT-3.1.2-23; 3.1.1: MQTT-3.1.2-4.
#[test]
fn an_endless_session_does_not_expire() {
    in_every_node(|node| {
        let five = node.resume(V5, "five", u32::MAX);
        let three = node.resume(V311, "three", 0);
        node.lose(five);
        node.lose(three);
        node.pass(Duration::from_secs(200 * 365 * 24 * 3_600));
        let five = node.resume(V5, "five", 0);
        node.expect(five, &["CONNACK 00 present"]);
        let three = node.resume(V311, "three", 0);
        node.expect(three, &["CONNACK 00 present"]);
    });
}

/// Who connects with a Client Identifier in use throws the other out.
///
/// Proves 5.0: MQTT-3.1.4-3; 3.1.1: MQTT-3.1.4-2.
#[test]
fn takeover_tells_and_closes_the_old_connection() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let old = node.connect(version, "same");
            let new = node.connect(version, "same");
            if version == V5 {
                node.expect(old, &["DISCONNECT 8e", "CLOSE"]);
            } else {
                node.expect(old, &["CLOSE"]);
            }
            node.ping(new);
            node.expect(new, &["PINGRESP"]);
            node.disconnect(new);
        }
        assert_eq!(node.stats().takeovers, 2);
        assert!(node.events.iter().any(|event| matches!(
            event,
            Event::Disconnected {
                cause: Cause::TakenOver,
                ..
            }
        )));
    });
}

/// A takeover in the middle of QoS 1 and 2 exchanges resumes them, in both directions [MQTT-4.4.0-1].
///
/// Proves 5.0: MQTT-3.1.4-3.
#[test]
fn takeover_in_mid_flow_resumes_the_exchanges() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        let old = node.connect_durable(V5, "same");
        node.subscribed(old, &["t"], 2);
        node.publish(publisher, "t", 1, 1, "one");
        node.publish(publisher, "t", 2, 2, "two");
        node.publish(publisher, "t", 2, 3, "three");
        node.take(publisher);
        node.pubrec(old, 2);
        node.publish(old, "x", 2, 9, "inbound");
        node.expect(
            old,
            &[
                r#"PUBLISH t q1 #1 "one""#,
                r#"PUBLISH t q2 #2 "two""#,
                r#"PUBLISH t q2 #3 "three""#,
                "PUBREL #2",
                "PUBREC #9 10",
            ],
        );
        let new = node.resume(V5, "same", 3_600);
        node.expect(old, &["DISCONNECT 8e", "CLOSE"]);
        node.expect(
            new,
            &[
                "CONNACK 00 present",
                r#"PUBLISH t q1 #1 dup "one""#,
                "PUBREL #2",
                r#"PUBLISH t q2 #3 dup "three""#,
            ],
        );
        node.pubrel(new, 9);
        node.expect(new, &["PUBCOMP #9"]);
        node.puback(new, 1);
        node.pubcomp(new, 2);
        node.pubrec(new, 3);
        node.expect(new, &["PUBREL #3"]);
        node.pubcomp(new, 3);
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// An empty Client Identifier is given one that nobody has, and 5.0 clients learn it.
///
/// Proves 5.0: MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16; 3.1.1: MQTT-3.1.3-6.
#[test]
fn an_empty_client_identifier_is_given_one() {
    let config = EngineConfig {
        assigned_client_id_prefix: "given-".into(),
        ..Default::default()
    };
    in_each_node(config, |node| {
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let client = node.connect(V5, "");
            let name = node.clients[client.0]
                .connack
                .as_ref()
                .and_then(|connack| connack.assigned_client_id.clone());
            assert!(name.as_ref().is_some_and(|name| name.starts_with("given-")), "{name:?}");
            assert!(names.insert(name));
        }
        let old = node.connect(V311, "");
        node.ping(old);
        node.expect(old, &["PINGRESP"]);
        assert_eq!(node.stats().clients_connected, 21);
    });
}

/// An assigned Client Identifier can be used to resume the Session.
///
/// Proves 5.0: MQTT-3.1.3-7, MQTT-3.2.2-16.
#[test]
fn an_assigned_client_identifier_resumes() {
    in_every_node(|node| {
        let client = node.resume(V5, "", 100);
        node.expect(client, &["CONNACK 00"]);
        let connack = node.clients[client.0].connack.clone().unwrap();
        node.lose(client);
        let again = node.resume(V5, &connack.assigned_client_id.unwrap(), 100);
        node.expect(again, &["CONNACK 00 present"]);
    });
}

/// An identifier that is not accepted is refused with 0x85 (3.1.1: 2) and closed.
///
/// Proves 5.0: MQTT-3.1.3-8, MQTT-3.2.2-7; 3.1.1: MQTT-3.1.3-9, MQTT-3.2.2-5.
#[test]
fn client_identifiers_are_refused() {
    let config = EngineConfig {
        client_id_bytes_max: 4,
        ..Default::default()
    };
    in_each_node(config.clone(), |node| {
        for version in [V311, V5] {
            let long = node.connect_with(version, "12345", |_| {});
            node.expect(long, &["CONNACK 85", "CLOSE"]);
            node.connect(version, "1234");
        }
    });
    let config = EngineConfig {
        allow_empty_client_id: false,
        ..config
    };
    in_each_node(config, |node| {
        for version in [V311, V5] {
            let empty = node.connect_with(version, "", |_| {});
            node.expect(empty, &["CONNACK 85", "CLOSE"]);
        }
        assert_eq!(node.stats().connects_refused, 2);
    });
}

/// Clean Session 0 of 3.1.1 needs a name to resume by.
///
/// Proves 3.1.1: MQTT-3.1.3-8.
#[test]
fn a_session_that_stays_needs_a_name_in_3_1_1() {
    in_every_node(|node| {
        let unnamed = node.resume(V311, "", 0);
        node.expect(unnamed, &["CONNACK 85", "CLOSE"]);
        node.resume(V5, "", 100);
        node.connect(V311, "");
        assert_eq!(node.stats().clients_connected, 2);
    });
}

/// A client of MQTT 3.1 has to bring a name of one character at least (section 3.1 of MQTT 3.1).
#[test]
fn every_client_of_3_1_has_a_name() {
    in_every_node(|node| {
        for clean in [false, true] {
            let unnamed = node.connect_with(sol_codec::ProtocolVersion::V31, "", move |connect| {
                connect.clean_start = clean;
            });
            node.expect(unnamed, &["CONNACK 85", "CLOSE"]);
        }
        node.connect(sol_codec::ProtocolVersion::V31, "x");
        assert_eq!(node.stats().clients_connected, 1);
    });
}

/// Names of 1 to 23 letters and digits are let in, each as a Session of its own.
///
/// Proves 5.0: MQTT-3.1.3-5; 3.1.1: MQTT-3.1.3-5.
#[test]
fn names_that_every_server_takes_are_let_in() {
    const ALL: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    in_every_node(|node| {
        for version in [V311, V5] {
            let lengths = (1..=23).flat_map(|length| [&ALL[..length], &ALL[ALL.len() - length..]]);
            let single = (0..ALL.len()).map(|at| &ALL[at..=at]);
            let names: std::collections::BTreeSet<_> = lengths.chain(single).collect();
            let clients: Vec<_> = names.iter().map(|name| node.connect(version, name)).collect();
            assert_eq!(node.stats().clients_connected, names.len() as u64);
            for client in clients {
                node.disconnect(client);
                node.expect(client, &["CLOSE"]);
            }
        }
    });
}

/// After a refusal nothing more of that client is handled.
///
/// Proves 5.0: MQTT-3.1.4-6; 3.1.1: MQTT-3.1.4-5.
#[test]
fn after_a_refusal_nothing_is_handled() {
    in_each_node(asking(), |node| {
        let watcher_config = EngineConfig::default();
        node.reload(watcher_config);
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["#"], 0);
        node.reload(asking());
        for version in [V311, V5] {
            let refused = node.connect_with(version, "refused", |_| {});
            node.push(refused, &Packet::Publish(publish("t", 0, 0, b"smuggled")));
            node.push(refused, &Packet::Publish(publish("t", 1, 1, b"smuggled")));
            node.push(refused, &Packet::Connect(connect(version, "another")));
            node.push(refused, &Packet::PingReq);
            node.expect(refused, &["CONNACK 87", "CLOSE"]);
        }
        assert_eq!(node.stats().publish_received, 0);
        node.expect(watcher, &[]);
    });
}

/// Silence for one and a half Keep Alives ends the connection; anything heard puts that off.
///
/// Proves 5.0: MQTT-3.1.2-22; 3.1.1: MQTT-3.1.2-24.
#[test]
fn keep_alive_is_one_and_a_half() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect_with(version, "quiet", |connect| connect.keep_alive = 10);
            node.expect(client, &["CONNACK 00"]);
            node.pass(Duration::from_millis(14_900));
            node.expect(client, &[]);
            node.ping(client);
            node.expect(client, &["PINGRESP"]);
            node.pass(Duration::from_millis(14_900));
            node.publish(client, "t", 0, 0, "");
            node.pass(Duration::from_millis(14_900));
            node.expect(client, &[]);
            node.pass(Duration::from_millis(200));
            let expected: &[&str] = if version == V5 {
                &["DISCONNECT 8d", "CLOSE"]
            } else {
                &["CLOSE"]
            };
            node.expect(client, expected);
        }
        let forever = node.connect(V5, "forever");
        node.pass(Duration::from_secs(1_000_000));
        node.expect(forever, &[]);
    });
}

/// With Server Keep Alive that one is in force, without it the client's.
///
/// Proves 5.0: MQTT-3.1.2-22, MQTT-3.2.2-22.
#[test]
fn server_keep_alive_is_in_force() {
    let config = EngineConfig {
        keep_alive_max: 10,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let asked_too_much = node.connect_with(V5, "a", |connect| connect.keep_alive = 1_000);
        let asked_none = node.connect(V5, "b");
        let asked_less = node.connect_with(V5, "c", |connect| connect.keep_alive = 4);
        node.take(asked_too_much);
        node.take(asked_less);
        let told = |client: Client| node.clients[client.0].connack.as_ref().unwrap().server_keep_alive;
        let all = [told(asked_too_much), told(asked_none), told(asked_less)];
        assert_eq!(all, [Some(10), Some(10), None]);
        node.pass(Duration::from_millis(6_100));
        node.expect(asked_less, &["DISCONNECT 8d", "CLOSE"]);
        node.expect(asked_too_much, &[]);
        node.pass(Duration::from_millis(9_000));
        node.expect(asked_too_much, &["DISCONNECT 8d", "CLOSE"]);
        node.expect(asked_none, &["DISCONNECT 8d", "CLOSE"]);
    });
}

/// A 3.1.1 client cannot be told of a shorter Keep Alive; its silence is judged by it all the same (section 3.1.2.10).
///
/// Proves 3.1.1: MQTT-3.1.2-24.
#[test]
fn keep_alive_max_holds_for_clients_that_cannot_be_told() {
    let config = EngineConfig {
        keep_alive_max: 10,
        ..Default::default()
    };
    in_each_node(config, |node| {
        for asked in [0, 5_000, u16::MAX] {
            let client = node.connect_with(V311, "client", move |connect| connect.keep_alive = asked);
            node.expect(client, &["CONNACK 00"]);
            node.pass(Duration::from_millis(14_900));
            node.expect(client, &[]);
            node.pass(Duration::from_millis(200));
            node.expect(client, &["CLOSE"]);
        }
    });
}

/// A second CONNECT is a Protocol Error.
///
/// Proves 5.0: MQTT-3.1.0-2; 3.1.1: MQTT-3.1.0-2.
#[test]
fn a_second_connect_ends_the_connection() {
    in_every_node(|node| {
        for (version, expected) in [(V311, &["CLOSE"][..]), (V5, &["DISCONNECT 82", "CLOSE"][..])] {
            let client = node.connect(version, "eager");
            node.send(client, move |send| send(&Packet::Connect(connect(version, "eager"))));
            node.expect(client, expected);
        }
        assert_eq!(node.stats().protocol_errors, 2);
        assert_eq!(node.stats().clients_connected, 0);
    });
}

/// What comes before CONNECT closes the connection, without a word [MQTT-3.1.0-1].
///
/// Proves 5.0: MQTT-3.14.0-1.
#[test]
fn the_first_packet_must_be_connect() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let rude = node.open(version);
            node.publish(rude, "t", 0, 0, "first");
            node.expect(rude, &["CLOSE"]);
            let rude = node.open(version);
            node.subscribe(rude, &["#"], 0);
            node.expect(rude, &["CLOSE"]);
            let rude = node.open(version);
            node.ping(rude);
            node.expect(rude, &["CLOSE"]);
        }
        let told = |event: &&Event| matches!(event, Event::Disconnected { cause: Cause::Violation(v), .. } if *v == Violation::FirstPacketNotConnect);
        assert_eq!(node.events.iter().filter(told).count(), 6);
    });
}

/// [MQTT-4.12.0-7]: AUTH without an Authentication Method in CONNECT is a Protocol Error.
#[test]
fn uninvited_auth_ends_the_connection() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.send(client, |send| {
            send(&Packet::Auth(Auth {
                reason_code: ReasonCode::ReAuthenticate,
                properties: AuthProperties::default(),
            }));
        });
        node.expect(client, &["DISCONNECT 82", "CLOSE"]);
    });
}

/// A packet that only a server sends is a Protocol Error.
///
/// Proves 5.0: MQTT-4.13.1-1; 3.1.1: MQTT-4.8.0-1.
#[test]
fn a_servers_packet_ends_the_connection() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.send(client, |send| send(&Packet::PingResp));
            let expected: &[&str] = if version == V5 {
                &["DISCONNECT 82", "CLOSE"]
            } else {
                &["CLOSE"]
            };
            node.expect(client, expected);
        }
    });
}

/// An Authentication Method that is not supported gets CONNACK 0x8C.
///
/// Proves 5.0: MQTT-4.12.0-1.
#[test]
fn an_authentication_method_is_refused() {
    in_every_node(|node| {
        let client = node.connect_with(V5, "client", |connect| {
            connect.properties.authentication_method = Some("SCRAM-SHA-1");
        });
        node.expect(client, &["CONNACK 8c", "CLOSE"]);
    });
}

/// A Will beyond what the server can do is refused with 0x9B and 0x9A.
///
/// Proves 5.0: MQTT-3.2.2-12, MQTT-3.2.2-13.
#[test]
fn wills_beyond_the_servers_abilities_are_refused() {
    let config = EngineConfig {
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let two = node.connect_with(V5, "a", |connect| connect.will = Some(will("w", b"", 2)));
        node.expect(two, &["CONNACK 9b", "CLOSE"]);
        let retained = node.connect_with(V5, "b", |connect| {
            let mut will = will("w", b"", 1);
            will.retain = true;
            connect.will = Some(will);
        });
        node.expect(retained, &["CONNACK 9a", "CLOSE"]);
        let fine = node.connect_with(V5, "c", |connect| connect.will = Some(will("w", b"", 1)));
        node.expect(fine, &["CONNACK 00"]);
    });
}

/// [MQTT-3.1.4-1], [MQTT-3.1.2-2]: a malformed first packet closes at once; an unknown version is told first.
#[test]
fn malformed_first_packets_are_closed() {
    let error = |kind| DecodeError::new(kind, 0);
    in_every_node(|node| {
        for (kind, expected) in [
            (
                DecodeErrorKind::UnsupportedProtocolVersion { level: 6 },
                &["CONNACK 84", "CLOSE"][..],
            ),
            (
                DecodeErrorKind::UnsupportedProtocolVersion { level: 2 },
                &["CONNACK 84", "CLOSE"][..],
            ),
            (DecodeErrorKind::TrailingBytes, &["CLOSE"][..]),
        ] {
            let client = node.open(V311);
            let (shard, connection) = (node.shard_of(client), node.clients[client.0].connection);
            node.input(shard, Input::Malformed(connection, error(kind)));
            node.expect(client, expected);
        }
    });
}

/// [MQTT-3.1.4-1], section 4.13: a malformed CONNECT of 5.0 is answered with its Reason Code; 3.x has none for that.
#[test]
fn a_malformed_connect_is_answered_in_its_version() {
    let error = |kind, version| DecodeError {
        connect_version: Some(version),
        ..DecodeError::new(kind, 12)
    };
    in_every_node(|node| {
        for (kind, version, expected) in [
            (DecodeErrorKind::TrailingBytes, V5, &["CONNACK 81", "CLOSE"][..]),
            (DecodeErrorKind::EmptyTopic, V5, &["CONNACK 82", "CLOSE"][..]),
            (DecodeErrorKind::TopicTooDeep, V5, &["CONNACK 90", "CLOSE"][..]),
            (DecodeErrorKind::TrailingBytes, V311, &["CLOSE"][..]),
            (
                DecodeErrorKind::TrailingBytes,
                sol_codec::ProtocolVersion::V31,
                &["CLOSE"][..],
            ),
        ] {
            let client = node.open(V311);
            let (shard, connection) = (node.shard_of(client), node.clients[client.0].connection);
            node.input(shard, Input::Malformed(connection, error(kind, version)));
            node.expect(client, expected);
        }
    });
}

/// [MQTT-4.13.1-1]: a malformed packet ends the connection with its Reason Code, and publishes the Will.
#[test]
fn malformed_packets_end_the_connection() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["w"], 0);
        let client = node.connect_with(V5, "client", |connect| connect.will = Some(will("w", b"gone", 0)));
        node.take(client);
        let (shard, connection) = (node.shard_of(client), node.clients[client.0].connection);
        let error = DecodeError::new(DecodeErrorKind::TrailingBytes, 3);
        node.input(shard, Input::Malformed(connection, error));
        node.run();
        node.expect(client, &["DISCONNECT 81", "CLOSE"]);
        node.expect(watcher, &[r#"PUBLISH w q0 "gone""#]);
    });
}

/// A User Name is asked about, and the answer is the CONNACK. Until then nothing more is decoded.
///
/// Proves 5.0: MQTT-3.1.4-2, MQTT-3.1.4-5; 3.1.1: MQTT-3.1.4-4.
#[test]
fn a_login_is_asked_and_answered() {
    in_each_node(asking(), |node| {
        let anonymous = node.connect_with(V5, "anonymous", |_| {});
        node.expect(anonymous, &["CONNACK 87", "CLOSE"]);
        for version in [V311, V5] {
            let good = node.connect_with(version, "good", |connect| {
                connect.username = Some("user");
                connect.password = Some(b"secret");
            });
            node.ping(good);
            node.expect(good, &[]);
            let request = &node.auth_requests[0].1;
            let credentials = Credentials::Password {
                username: Some("user".into()),
                password: Some(b"secret".to_vec()),
            };
            assert_eq!(
                (&request.credentials, request.client_id.as_str()),
                (&credentials, "good")
            );
            node.answer_login(AuthOutcome::Accepted);
            node.expect(good, &["CONNACK 00", "PINGRESP"]);

            let bad = node.connect_with(version, "bad", |connect| connect.username = Some("user"));
            node.answer_login(AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword));
            node.expect(bad, &["CONNACK 86", "CLOSE"]);
            node.disconnect(good);
        }
    });
}

/// A client that is gone while its login is checked leaves nothing behind, and the answer is survived.
#[test]
fn a_client_gone_while_asked_leaves_nothing() {
    in_each_node(asking(), |node| {
        let gone = node.connect_with(V5, "gone", |connect| connect.username = Some("user"));
        node.lose(gone);
        node.answer_login(AuthOutcome::Accepted);
        node.expect(gone, &[]);
        assert_eq!(node.stats().clients_connected, 0);
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// A login that is refused does not disturb the client who has the Client Identifier.
///
/// Proves 5.0: MQTT-3.1.4-2, MQTT-3.2.2-6; 3.1.1: MQTT-3.2.2-4.
#[test]
fn a_refused_login_takes_nothing_over() {
    in_each_node(asking(), |node| {
        let owner = node.connect_with(V5, "same", |connect| connect.username = Some("owner"));
        node.answer_login(AuthOutcome::Accepted);
        node.expect(owner, &["CONNACK 00"]);
        let thief = node.connect_with(V5, "same", |connect| connect.username = Some("thief"));
        node.answer_login(AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword));
        node.expect(thief, &["CONNACK 86", "CLOSE"]);
        node.ping(owner);
        node.expect(owner, &["PINGRESP"]);
    });
}

/// `connections_max` holds for all shards together, wherever clients come in and are at home; a takeover needs no room, and
/// who leaves makes room for a client of any shard.
///
/// Proves 5.0: MQTT-3.1.4-3.
#[test]
fn connections_max_is_kept() {
    let config = EngineConfig {
        connections_max: 2,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let shards = node.engines.len();
        let fits: Vec<_> = (0..2).map(|n| node.name_on(n % shards, &format!("fits{n}-"))).collect();
        let clients: Vec<_> = fits.iter().map(|name| node.connect(V5, name)).collect();
        for shard in 0..shards {
            for version in [V311, V5] {
                let name = node.name_on(shard, "over");
                let refused = node.connect_with(version, &name, |_| {});
                node.expect(refused, &["CONNACK 97", "CLOSE"]);
            }
        }
        let again: Vec<_> = fits.iter().map(|name| node.connect(V5, name)).collect();
        assert_eq!(node.stats().clients_connected, 2);
        node.expect(clients[0], &["DISCONNECT 8e", "CLOSE"]);
        node.disconnect(again[1]);
        let name = node.name_on(shards - 1, "later");
        node.connect(V5, &name);
        assert_eq!(node.stats().clients_connected, 2);
    });
}

/// When the broker stops everybody is told who has got a CONNACK, and nobody new comes in.
///
/// Proves 5.0: MQTT-3.14.0-1.
#[test]
fn stopping_tells_everybody() {
    in_every_node(|node| {
        let three = node.connect(V311, "three");
        let five = node.connect(V5, "five");
        let silent = node.open(V5);
        node.input_all(|| Input::Shutdown);
        node.expect(three, &["CLOSE"]);
        node.expect(five, &["DISCONNECT 8b", "CLOSE"]);
        node.expect(silent, &["CLOSE"]);
        let late = node.connect_with(V5, "late", |_| {});
        node.expect(late, &["CONNACK 88", "CLOSE"]);
        assert_eq!(node.stats().clients_connected, 0);
    });
}

/// A client that vanishes before CONNECT leaves nothing behind.
#[test]
fn a_client_gone_before_connect_leaves_nothing() {
    in_every_node(|node| {
        let client = node.open(V5);
        node.lose(client);
        node.expect(client, &[]);
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// What comes for a connection that is gone changes nothing.
#[test]
fn late_inputs_of_a_gone_connection_are_ignored() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.disconnect(client);
        node.expect(client, &["CLOSE"]);
        node.congest(client, 10);
        node.drain(client);
        node.lose(client);
        node.expect(client, &[]);
        assert_eq!(node.stats().clients_connected, 0);
    });
}
