//! Section 4.12: enhanced authentication, and AUTH (3.15).
//!
//! The method is played by the test: what it says is text that shows the step.

use std::time::Duration;

use sol_codec::{Auth, AuthProperties, Packet, ReasonCode};
use sol_engine::{AuthOutcome, Cause, Credentials, EngineConfig, Event, ListenerRules, Violation};

use crate::support::raw::*;
use crate::support::*;

use ReasonCode::{ContinueAuthentication, ReAuthenticate, Success};

const METHOD: &str = "METHOD";

/// Nobody comes in unasked, and one method is known.
fn asking() -> EngineConfig {
    EngineConfig {
        listeners: vec![ListenerRules {
            allow_anonymous: false,
            ask: true,
            named: false,
        }],
        authentication_methods: vec![METHOD.to_owned()],
        ..Default::default()
    }
}

/// Sends a CONNECT that begins an exchange.
fn begin(node: &mut Node, client_id: &str) -> Client {
    node.connect_with(V5, client_id, |connect| {
        connect.properties.authentication_method = Some(METHOD);
        connect.properties.authentication_data = Some(b"client 1");
        connect.properties.session_expiry_interval = Some(100);
    })
}

/// Sends an AUTH.
fn auth(node: &mut Node, client: Client, reason_code: ReasonCode, method: Option<&'static str>, data: &'static str) {
    node.send(client, move |send| {
        send(&Packet::Auth(Auth {
            reason_code,
            properties: AuthProperties {
                authentication_method: method,
                authentication_data: (!data.is_empty()).then_some(data.as_bytes()),
                ..Default::default()
            },
        }));
    });
}

/// The authenticator wants another step.
fn challenge(node: &mut Node, data: &str, memo: &str) {
    node.answer_login(AuthOutcome::Continue {
        data: data.into(),
        memo: memo.into(),
    });
}

/// The authenticator knows who it is.
fn prove(node: &mut Node, username: &str, data: &str) {
    node.answer_login(AuthOutcome::Proven {
        username: username.to_owned(),
        data: (!data.is_empty()).then(|| data.into()),
    });
}

/// What the authenticator is asked: the memo of the step before, and the client's data.
#[track_caller]
fn asked(node: &Node) -> (Option<String>, Option<String>) {
    let text = |bytes: &Option<Vec<u8>>| bytes.clone().map(|bytes| String::from_utf8(bytes).unwrap());
    match &node.auth_requests.first().expect("nobody is asked").1.credentials {
        Credentials::Exchange { method, memo, data } => {
            assert_eq!(method, METHOD);
            (text(memo), text(data))
        }
        other => panic!("{other:?}"),
    }
}

/// A client that has come in by two steps, as `user`, who is known by this name.
#[track_caller]
fn enter(node: &mut Node, client_id: &str, user: &str) -> Client {
    let client = begin(node, client_id);
    challenge(node, "server 1", "memo");
    auth(node, client, ContinueAuthentication, Some(METHOD), "client 2");
    prove(node, user, "server 2");
    let got = node.take(client);
    assert_eq!(got, [r#"AUTH 18 METHOD "server 1""#, "CONNACK 00"]);
    client
}

/// The cause that the log was told of a client's end.
fn cause_of(node: &Node, name: &str) -> Option<Cause> {
    node.events.iter().rev().find_map(|event| match event {
        Event::Disconnected { cause, client_id, .. } if **client_id == *name => Some(cause.clone()),
        _ => None,
    })
}

fn connack_of(node: &Node, client: Client) -> (Option<String>, Option<Vec<u8>>) {
    let connack = node.clients[client.0].connack.clone().unwrap();
    (connack.authentication_method, connack.authentication_data)
}

/// Section 4.12: CONNECT, AUTH and AUTH lead to CONNACK, all with the method; the authenticator finds its memo again, and
/// the client is known by the name that it proved. Several steps are as good as one, and none at all as well.
///
/// Proves 5.0: MQTT-4.12.0-2, MQTT-4.12.0-5.
#[test]
fn an_exchange_leads_to_connack() {
    in_each_node(asking(), |node| {
        for steps in 0..3 {
            let client = begin(node, "client");
            let mut expected = (None, Some("client 1".to_owned()));
            for _ in 0..steps {
                assert_eq!(asked(node), expected);
                challenge(node, "server", "memo");
                node.expect(client, &[r#"AUTH 18 METHOD "server""#]);
                auth(node, client, ContinueAuthentication, Some(METHOD), "client");
                expected = (Some("memo".to_owned()), Some("client".to_owned()));
            }
            assert_eq!(asked(node), expected);
            prove(node, "user", "last");
            node.expect(client, &["CONNACK 00"]);
            let last = (Some(METHOD.to_owned()), Some(b"last".to_vec()));
            assert_eq!(connack_of(node, client), last);
            let told = |event: &Event| matches!(event, Event::Connected { username, .. } if username.as_deref() == Some("user"));
            assert_eq!(node.events.iter().filter(|event| told(event)).count(), steps + 1);
            node.disconnect_with(client, Success, Some(0));
        }
        assert_eq!((node.stats().memory_bytes, node.auth_requests.len()), (0, 0));
    });
}

/// A method that is not known, or known and nobody there to ask, gets CONNACK 0x8C, and nobody is asked.
///
/// Proves 5.0: MQTT-4.12.0-1.
#[test]
fn an_unknown_method_is_refused() {
    let unasked = EngineConfig {
        listeners: Vec::new(),
        ..asking()
    };
    for (config, method) in [(asking(), "METHOD-2"), (asking(), "method"), (unasked, METHOD)] {
        in_each_node(config, |node| {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.properties.authentication_method = Some(method);
                connect.username = Some("user");
                connect.password = Some(b"secret");
            });
            node.expect(client, &["CONNACK 8c", "CLOSE"]);
            assert!(node.auth_requests.is_empty());
        });
    }
}

/// A failed exchange ends with CONNACK and its reason, at any step, and nothing that the client sent is handled: no
/// Session is made, none is taken over, its Will is not published.
///
/// Proves 5.0: MQTT-4.12.0-4, MQTT-3.1.4-2, MQTT-3.1.4-6, MQTT-3.2.2-6.
#[test]
fn a_failed_exchange_is_refused() {
    in_each_node(asking(), |node| {
        let owner = enter(node, "client", "owner");
        node.subscribed(owner, &["#"], 0);
        for steps in 0..2 {
            let thief = node.connect_with(V5, "client", |connect| {
                connect.properties.authentication_method = Some(METHOD);
                connect.will = Some(will("w", b"gone", 0));
            });
            for _ in 0..steps {
                challenge(node, "server 1", "memo");
                node.take(thief);
                auth(node, thief, ContinueAuthentication, Some(METHOD), "client 2");
            }
            node.publish(thief, "t", 0, 0, "forged");
            auth(node, thief, ContinueAuthentication, Some(METHOD), "client 3");
            node.answer_login(AuthOutcome::Refused(ReasonCode::NotAuthorized));
            node.expect(thief, &["CONNACK 87", "CLOSE"]);
            assert!(node.auth_requests.is_empty());
        }
        node.ping(owner);
        node.expect(owner, &["PINGRESP"]);
        assert_eq!(node.stats().takeovers, 0);
    });
}

/// Between CONNECT and CONNACK a client with a method may send AUTH and DISCONNECT: anything else is a Protocol Error, and
/// so is an AUTH that begins anew or ends. The answer is CONNACK, since DISCONNECT must not come before it.
///
/// Proves 5.0: MQTT-3.1.2-30, MQTT-4.12.0-3.
#[test]
fn only_auth_may_come_before_connack() {
    in_each_node(asking(), |node| {
        type Wrong = fn(&mut Node, Client);
        let wrong: [(Wrong, &str); 8] = [
            (|node, client| node.publish(client, "t", 0, 0, "early"), "CONNACK 82"),
            (|node, client| node.subscribe(client, &["t"], 0), "CONNACK 82"),
            (|node, client| node.ping(client), "CONNACK 82"),
            (|node, client| node.puback(client, 1), "CONNACK 82"),
            (
                |node, client| node.send(client, |send| send(&Packet::Connect(connect(V5, "client")))),
                "CONNACK 82",
            ),
            (
                |node, client| auth(node, client, ReAuthenticate, Some(METHOD), "client 2"),
                "CONNACK 82",
            ),
            (
                |node, client| auth(node, client, Success, Some(METHOD), ""),
                "CONNACK 82",
            ),
            (|node, client| auth(node, client, Success, None, ""), "CONNACK 82"),
        ];
        for (send, expected) in wrong {
            let client = begin(node, "client");
            challenge(node, "server 1", "memo");
            node.take(client);
            send(node, client);
            node.expect(client, &[expected, "CLOSE"]);
            assert!(node.auth_requests.is_empty());
        }
        let leaver = begin(node, "leaver");
        challenge(node, "server 1", "memo");
        node.take(leaver);
        node.disconnect(leaver);
        node.expect(leaver, &["CLOSE"]);
        assert_eq!(cause_of(node, "leaver"), Some(Cause::Client(Success)));
        assert_eq!((node.stats().memory_bytes, node.stats().clients_disconnected), (0, 0));
    });
}

/// What is no packet ends the exchange with a CONNACK that says so, in a Reason Code that CONNACK has.
///
/// Proves 5.0: MQTT-3.15.1-1, MQTT-3.15.2-1.
#[test]
fn malformed_packets_before_connack() {
    in_each_node(asking(), |node| {
        let method = section(V5, &[&[0x15][..], &field(METHOD.as_bytes())].concat());
        for (bytes, expected) in [
            (packet(0xf1, &[&[0x18], &method]), "CONNACK 81"),
            (packet(0xf0, &[&[0x01], &method]), "CONNACK 82"),
            (packet(0xf0, &[&[0x18], &section(V5, &[])]), "CONNACK 82"),
            (
                packet(0x82, &[&[0, 1], &section(V5, &[]), &field(b"a/#/b"), &[0]]),
                "CONNACK 82",
            ),
        ] {
            let client = begin(node, "client");
            challenge(node, "server 1", "memo");
            node.take(client);
            node.send_bytes(client, &bytes);
            node.expect(client, &[expected, "CLOSE"]);
        }
    });
}

/// An AUTH of ours says what the method says and nothing more: neither Reason String nor User Property swells it, so a
/// client may allow as little as that.
///
/// Proves 5.0: MQTT-3.15.2-2, MQTT-3.15.2-3.
#[test]
fn auth_has_no_more_than_the_method_says() {
    in_each_node(asking(), |node| {
        node.keeps_bytes = true;
        let expected = packet(
            0xf0,
            &[
                &[0x18],
                &section(
                    V5,
                    &[&[0x15][..], &field(METHOD.as_bytes()), &[0x16], &field(b"server 1")].concat(),
                ),
            ],
        );
        let maximum = u32::try_from(expected.len()).unwrap();
        let client = node.connect_with(V5, "client", move |connect| {
            connect.properties.authentication_method = Some(METHOD);
            connect.properties.maximum_packet_size = std::num::NonZeroU32::new(maximum);
        });
        challenge(node, "server 1", "memo");
        assert_eq!(node.take_bytes(client), [expected]);
    });
}

/// What a client sends behind its CONNECT without waiting is looked at after the answer, in order.
#[test]
fn what_is_sent_early_is_looked_at_in_order() {
    in_each_node(asking(), |node| {
        let hasty = begin(node, "hasty");
        auth(node, hasty, ContinueAuthentication, Some(METHOD), "client 2");
        node.subscribe(hasty, &["t"], 0);
        node.expect(hasty, &[]);
        challenge(node, "server 1", "memo");
        assert_eq!(asked(node), (Some("memo".to_owned()), Some("client 2".to_owned())));
        prove(node, "user", "");
        node.expect(hasty, &[r#"AUTH 18 METHOD "server 1""#, "CONNACK 00", "SUBACK #1 [00]"]);
    });
}

/// Every AUTH names the method of CONNECT: before CONNACK another one is answered with 0x8C, later it is a Protocol Error.
///
/// Proves 5.0: MQTT-4.12.0-5.
#[test]
fn another_method_is_refused() {
    in_each_node(asking(), |node| {
        let client = begin(node, "client");
        challenge(node, "server 1", "memo");
        node.take(client);
        auth(node, client, ContinueAuthentication, Some("METHOD-2"), "client 2");
        node.expect(client, &["CONNACK 8c", "CLOSE"]);

        let client = enter(node, "client", "user");
        auth(node, client, ReAuthenticate, Some("METHOD-2"), "client 1");
        node.expect(client, &["DISCONNECT 82", "CLOSE"]);
        assert_eq!(
            cause_of(node, "client"),
            Some(Cause::Violation(Violation::AnotherMethod))
        );
        assert!(node.auth_requests.is_empty());
    });
}

/// A client that named no method gets no AUTH and no method in CONNACK, and an AUTH of its own is a Protocol Error.
///
/// Proves 5.0: MQTT-4.12.0-6, MQTT-4.12.0-7.
#[test]
fn without_a_method_there_is_no_auth() {
    in_each_node(asking(), |node| {
        for reason_code in [Success, ContinueAuthentication, ReAuthenticate] {
            let client = node.connect_with(V5, "client", |connect| connect.username = Some("user"));
            node.answer_login(AuthOutcome::Accepted);
            node.expect(client, &["CONNACK 00"]);
            assert_eq!(connack_of(node, client), (None, None));
            auth(node, client, reason_code, Some(METHOD), "client 1");
            node.expect(client, &["DISCONNECT 82", "CLOSE"]);
            assert_eq!(
                cause_of(node, "client"),
                Some(Cause::Violation(Violation::UninvitedAuth))
            );
            assert!(node.auth_requests.is_empty());
        }
    });
}

/// A User Name in CONNECT may only say what the exchange proves; without one the proven name holds. A Password is not
/// looked at.
///
/// Proves 5.0: MQTT-3.2.2-6.
#[test]
fn a_user_name_beside_the_method_must_be_the_proven_one() {
    in_each_node(asking(), |node| {
        for (name, expected) in [("user", &["CONNACK 00"][..]), ("admin", &["CONNACK 87", "CLOSE"])] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.properties.authentication_method = Some(METHOD);
                connect.username = Some(name);
                connect.password = Some(b"never looked at");
            });
            assert_eq!(asked(node), (None, None));
            prove(node, "user", "");
            node.expect(client, expected);
        }
    });
}

/// An authenticator that accepts an exchange without saying whom it proves lets nobody in: the User Name beside it is a
/// claim.
#[test]
fn an_exchange_that_proves_nobody_lets_nobody_in() {
    in_each_node(asking(), |node| {
        let client = node.connect_with(V5, "client", |connect| {
            connect.properties.authentication_method = Some(METHOD);
            connect.username = Some("admin");
        });
        node.answer_login(AuthOutcome::Accepted);
        node.expect(client, &["CONNACK 80", "CLOSE"]);
        let client = enter(node, "client", "user");
        auth(node, client, ReAuthenticate, Some(METHOD), "client 1");
        node.answer_login(AuthOutcome::Accepted);
        node.expect(client, &["DISCONNECT 80", "CLOSE"]);
        let odd = node.events.iter().filter(|event| matches!(event, Event::Odd(_)));
        assert_eq!(odd.count(), 2);
    });
}

/// CONNACK is the first packet but AUTH: what waits in the Session comes behind it.
///
/// Proves 5.0: MQTT-3.2.0-1.
#[test]
fn what_waits_comes_behind_connack() {
    in_each_node(asking(), |node| {
        let client = enter(node, "client", "user");
        node.subscribed(client, &["t"], 1);
        node.disconnect(client);
        node.take(client);
        let publisher = enter(node, "publisher", "user");
        node.publish(publisher, "t", 1, 1, "waited");
        let client = node.connect_with(V5, "client", |connect| {
            connect.clean_start = false;
            connect.properties.authentication_method = Some(METHOD);
        });
        challenge(node, "server 1", "memo");
        node.publish(publisher, "t", 1, 2, "came");
        auth(node, client, ContinueAuthentication, Some(METHOD), "client 2");
        prove(node, "user", "server 2");
        node.expect(
            client,
            &[
                r#"AUTH 18 METHOD "server 1""#,
                "CONNACK 00 present",
                r#"PUBLISH t q1 #1 "waited""#,
                r#"PUBLISH t q1 #2 "came""#,
            ],
        );
    });
}

/// A client may authenticate once more while it publishes and is published to, and ends with AUTH 0x00; it may do so
/// again and again.
///
/// Proves 5.0: MQTT-4.12.0-5, MQTT-4.12.1-1.
#[test]
fn reauthentication_goes_on_beside_traffic() {
    in_each_node(asking(), |node| {
        let client = enter(node, "client", "user");
        node.subscribed(client, &["t"], 1);
        for _ in 0..2 {
            auth(node, client, ReAuthenticate, Some(METHOD), "client 1");
            node.publish(client, "t", 0, 0, "while asked");
            node.expect(client, &[r#"PUBLISH t q0 "while asked""#]);
            assert_eq!(asked(node), (None, Some("client 1".to_owned())));
            challenge(node, "server 1", "memo");
            node.publish(client, "t", 0, 0, "while answering");
            node.ping(client);
            node.expect(
                client,
                &[
                    r#"AUTH 18 METHOD "server 1""#,
                    r#"PUBLISH t q0 "while answering""#,
                    "PINGRESP",
                ],
            );
            auth(node, client, ContinueAuthentication, Some(METHOD), "client 2");
            assert_eq!(asked(node), (Some("memo".to_owned()), Some("client 2".to_owned())));
            prove(node, "user", "server 2");
            node.ping(client);
            node.expect(client, &[r#"AUTH 00 METHOD "server 2""#, "PINGRESP"]);
        }
    });
}

/// A failed re-authentication ends the connection with DISCONNECT and a code that DISCONNECT has; the Will is published.
/// So does one that proves another user.
///
/// Proves 5.0: MQTT-4.12.1-2.
#[test]
fn a_failed_reauthentication_closes() {
    in_each_node(asking(), |node| {
        let watcher = enter(node, "watcher", "user");
        node.subscribed(watcher, &["w"], 0);
        let proven = |username: &str| AuthOutcome::Proven {
            username: username.to_owned(),
            data: None,
        };
        for (outcome, expected) in [
            (AuthOutcome::Refused(ReasonCode::NotAuthorized), "DISCONNECT 87"),
            (AuthOutcome::Refused(ReasonCode::ServerBusy), "DISCONNECT 89"),
            // Codes that a CONNACK has and a DISCONNECT does not.
            (AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword), "DISCONNECT 87"),
            (AuthOutcome::Refused(ReasonCode::ServerUnavailable), "DISCONNECT 87"),
            (AuthOutcome::Refused(ReasonCode::Banned), "DISCONNECT 87"),
            (proven("other"), "DISCONNECT 87"),
        ] {
            let client = node.connect_with(V5, "client", |connect| {
                connect.properties.authentication_method = Some(METHOD);
                connect.will = Some(will("w", b"gone", 0));
            });
            prove(node, "user", "");
            node.expect(client, &["CONNACK 00"]);
            auth(node, client, ReAuthenticate, Some(METHOD), "client 1");
            node.answer_login(outcome);
            node.expect(client, &[expected, "CLOSE"]);
            node.expect(watcher, &[r#"PUBLISH w q0 "gone""#]);
            assert!(matches!(cause_of(node, "client"), Some(Cause::Reauthentication(_))));
        }
    });
}

/// An AUTH that nothing waits for is a Protocol Error: an answer without a question, an end, a second beginning while the
/// first is asked about or waits for the client.
///
/// Proves 5.0: MQTT-4.12.1-1.
#[test]
fn auth_out_of_turn_is_a_protocol_error() {
    in_each_node(asking(), |node| {
        for (step, wrong) in [
            (0, ContinueAuthentication),
            (0, Success),
            (1, ReAuthenticate),
            (1, ContinueAuthentication),
            (2, ReAuthenticate),
            (2, Success),
            (3, ContinueAuthentication),
            (3, ReAuthenticate),
        ] {
            let client = enter(node, "client", "user");
            if step > 0 {
                auth(node, client, ReAuthenticate, Some(METHOD), "client 1");
            }
            if step > 1 {
                challenge(node, "server 1", "memo");
            }
            if step > 2 {
                auth(node, client, ContinueAuthentication, Some(METHOD), "client 2");
            }
            node.take(client);
            auth(node, client, wrong, Some(METHOD), "wrong");
            node.expect(client, &["DISCONNECT 82", "CLOSE"]);
            assert_eq!(
                cause_of(node, "client"),
                Some(Cause::Violation(Violation::AuthOutOfTurn))
            );
            // The answer to the step that was asked about comes too late, and does no harm.
            if !node.auth_requests.is_empty() {
                prove(node, "user", "late");
            }
            node.expect(client, &[]);
        }
        assert!(!node.events.iter().any(|event| matches!(event, Event::Odd(_))));
    });
}

/// An exchange ends with its connection, at any step, before and after CONNACK; whoever was asked answers in vain.
#[test]
fn an_exchange_ends_with_its_connection() {
    in_each_node(asking(), |node| {
        for step in 0..3 {
            let client = begin(node, "client");
            if step > 0 {
                challenge(node, "server 1", "memo");
            }
            if step > 1 {
                auth(node, client, ContinueAuthentication, Some(METHOD), "client 2");
            }
            node.take(client);
            node.lose(client);
            if step != 1 {
                prove(node, "user", "late");
            }
            node.expect(client, &[]);
            assert_eq!((node.stats().memory_bytes, node.stats().clients_disconnected), (0, 0));
        }
        let client = enter(node, "client", "user");
        auth(node, client, ReAuthenticate, Some(METHOD), "client 1");
        node.lose(client);
        let again = enter_at_last(node);
        node.expect(again, &["CONNACK 00"]);
        assert!(!node.events.iter().any(|event| matches!(event, Event::Odd(_))));
    });
}

/// The same Client Identifier comes in while the answer for its lost connection is outstanding: that answer is not its.
fn enter_at_last(node: &mut Node) -> Client {
    let again = begin(node, "client");
    prove(node, "late", "for the lost connection");
    node.expect(again, &[]);
    prove(node, "user", "server 1");
    again
}

/// A takeover ends the exchanges of the connection that is taken over, and not those of the one that takes it.
///
/// Proves 5.0: MQTT-3.1.4-3.
#[test]
fn a_takeover_in_the_middle_of_an_exchange() {
    in_each_node(asking(), |node| {
        let old = enter(node, "client", "user");
        let new = begin(node, "client");
        challenge(node, "server 1", "memo");
        node.expect(new, &[r#"AUTH 18 METHOD "server 1""#]);
        auth(node, old, ReAuthenticate, Some(METHOD), "client 1");
        challenge(node, "server 1", "memo of the old");
        node.expect(old, &[r#"AUTH 18 METHOD "server 1""#]);
        auth(node, new, ContinueAuthentication, Some(METHOD), "client 2");
        assert_eq!(asked(node), (Some("memo".to_owned()), Some("client 2".to_owned())));
        prove(node, "user", "server 2");
        node.expect(old, &["DISCONNECT 8e", "CLOSE"]);
        node.expect(new, &["CONNACK 00"]);
        auth(node, new, ContinueAuthentication, Some(METHOD), "client 2");
        node.expect(new, &["DISCONNECT 82", "CLOSE"]);
    });
}

/// A stop ends exchanges as it ends everything, and a CONNECT that is proven later is refused.
#[test]
fn a_stop_in_the_middle_of_an_exchange() {
    in_each_node(asking(), |node| {
        let inside = enter(node, "inside", "user");
        auth(node, inside, ReAuthenticate, Some(METHOD), "client 1");
        let asked = begin(node, "asked");
        let waiting = begin(node, "waiting");
        node.auth_requests.swap(1, 2);
        node.auth_requests.swap(0, 1);
        challenge(node, "server 1", "memo");
        node.take(waiting);
        node.input_all(|| sol_engine::Input::Shutdown);
        node.expect(inside, &["DISCONNECT 8b", "CLOSE"]);
        node.expect(asked, &["CLOSE"]);
        node.expect(waiting, &["CLOSE"]);
        prove(node, "user", "late");
        prove(node, "user", "late");
        node.expect(asked, &[]);
    });
}

/// Keep Alive begins with CONNACK, however long the exchange took, and AUTH counts as a sign of life.
///
/// Proves 5.0: MQTT-3.1.2-22.
#[test]
fn keep_alive_runs_beside_an_exchange() {
    in_each_node(asking(), |node| {
        let client = node.connect_with(V5, "client", |connect| {
            connect.keep_alive = 10;
            connect.properties.authentication_method = Some(METHOD);
        });
        node.pass(Duration::from_secs(60));
        prove(node, "user", "");
        node.expect(client, &["CONNACK 00"]);
        node.pass(Duration::from_secs(14));
        auth(node, client, ReAuthenticate, Some(METHOD), "client 1");
        node.pass(Duration::from_secs(14));
        node.expect(client, &[]);
        node.pass(Duration::from_secs(2));
        node.expect(client, &["DISCONNECT 8d", "CLOSE"]);
    });
}

/// A client that takes only smaller packets than the AUTH that is due is not sent it: it is refused.
///
/// Proves 5.0: MQTT-3.1.2-24.
#[test]
fn an_auth_that_is_too_large_is_not_sent() {
    in_each_node(asking(), |node| {
        for (maximum, expected) in [
            // f0, Remaining Length, Reason Code, Property Length, Authentication Method (3 + 6), Authentication Data (3 + 8)
            (24, &[r#"AUTH 18 METHOD "server 1""#][..]),
            (23, &["CONNACK 83", "CLOSE"]),
        ] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.properties.authentication_method = Some(METHOD);
                connect.properties.maximum_packet_size = std::num::NonZeroU32::new(maximum);
            });
            challenge(node, "server 1", "memo");
            node.expect(client, expected);
        }
        // Its CONNACK has 25 bytes.
        let client = node.connect_with(V5, "inside", |connect| {
            connect.properties.authentication_method = Some(METHOD);
            connect.properties.maximum_packet_size = std::num::NonZeroU32::new(25);
        });
        prove(node, "user", "");
        node.expect(client, &["CONNACK 00"]);
        auth(node, client, ReAuthenticate, Some(METHOD), "client 1");
        challenge(node, "server 1 and more", "memo");
        node.expect(client, &["DISCONNECT 83", "CLOSE"]);
    });
}

/// What an authenticator notes of a client that is in is charged, as long as it is kept: until the client's next step, or
/// its end.
#[test]
fn what_is_noted_is_charged() {
    in_each_node(asking(), |node| {
        let client = enter(node, "client", "user");
        let before = node.stats().memory_bytes;
        for _ in 0..2 {
            auth(node, client, ReAuthenticate, Some(METHOD), "again");
            challenge(node, "server", &"m".repeat(1_000));
            assert_eq!(node.stats().memory_bytes - before, 1_000);
            auth(node, client, ContinueAuthentication, Some(METHOD), "client");
            assert_eq!(node.stats().memory_bytes, before);
            prove(node, "user", "");
        }
        // Each of these ends leaves a step unfinished: the client's, and ours for its mistake.
        auth(node, client, ReAuthenticate, Some(METHOD), "again");
        challenge(node, "server", &"m".repeat(1_000));
        node.disconnect_with(client, Success, Some(0));
        assert_eq!(node.stats().memory_bytes, 0);
        let client = enter(node, "client", "user");
        auth(node, client, ReAuthenticate, Some(METHOD), "again");
        challenge(node, "server", &"m".repeat(1_000));
        assert_eq!(node.stats().memory_bytes, before + 1_000);
        auth(node, client, ReAuthenticate, Some(METHOD), "out of turn");
        assert_eq!(node.stats().memory_bytes, before);
    });
}
