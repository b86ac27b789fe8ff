//! A Session belongs to the user who made it (section 5.4.2 of 5.0): nobody else resumes it, takes it over or ends it.

use std::time::Duration;

use sol_engine::{AuthOutcome, ChangedUser, EngineConfig, Input, ListenerId, ListenerRules, UserChange};

use crate::support::*;

/// Names are asked about; clients without one come in as well.
fn asking() -> EngineConfig {
    EngineConfig {
        listeners: vec![ListenerRules {
            allow_anonymous: true,
            ask: true,
            named: false,
        }],
        journal: true,
        ..Default::default()
    }
}

/// Logs in with the right password; `clean` and an hour of Session Expiry Interval.
fn log_in(node: &mut Node, client_id: &str, user: &'static str, clean: bool) -> Client {
    let client = node.connect_with(V5, client_id, move |connect| {
        connect.clean_start = clean;
        connect.properties.session_expiry_interval = Some(3_600);
        connect.username = Some(user);
    });
    node.answer_login(AuthOutcome::Accepted);
    client
}

/// Alice's Session "device", which is away with a message queued, and the publisher.
fn prepare(node: &mut Node) -> Client {
    let device = log_in(node, "device", "alice", false);
    node.expect(device, &["CONNACK 00"]);
    node.subscribed(device, &["t"], 1);
    node.lose(device);
    let publisher = node.connect(V5, "publisher");
    node.publish(publisher, "t", 1, 1, "secret");
    node.expect(publisher, &["PUBACK #1"]);
    publisher
}

/// Another user, or none, gets neither the Session that is away nor the one that is connected, and cannot discard it
/// with Clean Start; its owner has lost nothing.
#[test]
fn a_session_is_not_handed_to_another_user() {
    in_each_node(asking(), |node| {
        prepare(node);
        for clean in [false, true] {
            let mallory = log_in(node, "device", "mallory", clean);
            node.expect(mallory, &["CONNACK 87", "CLOSE"]);
            let nobody = node.connect_with(V311, "device", move |connect| connect.clean_start = clean);
            node.expect(nobody, &["CONNACK 87", "CLOSE"]);
        }
        let device = log_in(node, "device", "alice", false);
        node.expect(device, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "secret""#]);
        let mallory = log_in(node, "device", "mallory", true);
        node.expect(mallory, &["CONNACK 87", "CLOSE"]);
        node.ping(device);
        node.expect(device, &["PINGRESP"]);
        // Another connection of the same user does take over.
        let again = log_in(node, "device", "alice", false);
        node.expect(device, &["DISCONNECT 8e", "CLOSE"]);
        node.expect(again, &["CONNACK 00 present", r#"PUBLISH t q1 #1 dup "secret""#]);
    });
}

/// The owner is known after a restart, on however many shards.
#[test]
fn the_owner_outlives_the_broker() {
    in_each_node(asking(), |node| {
        prepare(node);
        for shards in 1..=3 {
            let mut node = node.restart(shards, Duration::ZERO);
            let mallory = log_in(&mut node, "device", "mallory", false);
            node.expect(mallory, &["CONNACK 87", "CLOSE"]);
            let device = log_in(&mut node, "device", "alice", false);
            node.expect(device, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "secret""#]);
        }
    });
}

/// A name that nobody has confirmed owns nothing: on an open broker a client may change it and keep its Session.
#[test]
fn an_unconfirmed_name_owns_nothing() {
    in_every_node(|node| {
        for user in [Some("a"), Some("b"), None] {
            let client = node.connect_with(V5, "device", move |connect| {
                connect.clean_start = false;
                connect.properties.session_expiry_interval = Some(3_600);
                connect.username = user;
            });
            let connack = if user == Some("a") {
                "CONNACK 00"
            } else {
                "CONNACK 00 present"
            };
            node.expect(client, &[connack]);
            node.lose(client);
        }
    });
}

fn change_user(node: &mut Node, username: &str, change: UserChange) {
    let changed = [ChangedUser {
        username: username.into(),
        change,
    }];
    for shard in 0..node.engines.len() {
        node.input(shard, Input::Users(&changed));
    }
    node.run();
}

/// A login that would fail now ends its connections, with 0x87, and nobody else's.
#[test]
fn a_revoked_login_ends() {
    in_each_node(asking(), |node| {
        let clients: Vec<_> = (0..4).map(|n| log_in(node, &format!("a{n}"), "alice", true)).collect();
        let bob = log_in(node, "bob", "bob", true);
        let anonymous = node.connect(V5, "alice");
        change_user(node, "alice", UserChange::Changed);
        for client in clients {
            node.expect(client, &["CONNACK 00", "DISCONNECT 87", "CLOSE"]);
        }
        node.expect(bob, &["CONNACK 00"]);
        node.ping(anonymous);
        node.expect(anonymous, &["PINGRESP"]);
        assert_eq!(node.stats().clients_connected, 2);
    });
}

/// With another password the user keeps what is queued; when there is no such user any more, whoever comes by the
/// Client Identifier begins anew, and gets nothing of it.
#[test]
fn a_session_without_its_user_is_not_handed_over() {
    in_each_node(asking(), |node| {
        prepare(node);
        change_user(node, "alice", UserChange::Changed);
        let device = log_in(node, "device", "alice", false);
        node.expect(device, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "secret""#]);
        node.lose(device);
        change_user(node, "alice", UserChange::Gone);
        let bob = log_in(node, "device", "bob", false);
        node.expect(bob, &["CONNACK 00"]);
        node.lose(bob);
        let alice = log_in(node, "device", "alice", false);
        node.expect(alice, &["CONNACK 87", "CLOSE"]);
    });
}

/// A user who was gone and is back owns again what nobody has taken meanwhile, and keeps what is queued; that he is back
/// ends no connection.
#[test]
fn a_user_who_is_back_owns_his_session() {
    in_each_node(asking(), |node| {
        prepare(node);
        change_user(node, "alice", UserChange::Gone);
        change_user(node, "alice", UserChange::Added);
        for clean in [false, true] {
            let bob = log_in(node, "device", "bob", clean);
            node.expect(bob, &["CONNACK 87", "CLOSE"]);
        }
        let device = log_in(node, "device", "alice", false);
        node.expect(device, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "secret""#]);
        change_user(node, "alice", UserChange::Added);
        node.ping(device);
        node.expect(device, &["PINGRESP"]);
    });
}

/// A login that is revoked while its connection moves to its home, or while it is checked, lets nobody in: the client is
/// told to come again, and is checked by what holds now. Others who were on their way have to come again, too.
#[test]
fn a_login_that_is_revoked_on_its_way_lets_nobody_in() {
    for version in [V311, V5] {
        in_each_node(asking(), |node| {
            let shards = node.engines.len();
            for n in 0..shards {
                let come = |node: &mut Node| {
                    let client_id = node.name_on(n, "device");
                    node.connect_with(version, &client_id, |connect| connect.username = Some("alice"))
                };
                node.holds_moves = true;
                let client = come(node);
                node.answer_login(AuthOutcome::Accepted);
                change_user(node, "alice", UserChange::Gone);
                let (inbox, moved) = (node.take(client), node.release_moves());
                if moved == 0 {
                    // It was at home, and in, when it was revoked.
                    let ended: &[&str] = match version {
                        V5 => &["CONNACK 00", "DISCONNECT 87", "CLOSE"],
                        _ => &["CONNACK 00", "CLOSE"],
                    };
                    assert_eq!(inbox, ended);
                } else {
                    node.expect(client, &["CONNACK 89", "CLOSE"]);
                }
                let client = come(node);
                change_user(node, "alice", UserChange::Gone);
                node.answer_login(AuthOutcome::Accepted);
                node.expect(client, &["CONNACK 89", "CLOSE"]);
                let client = come(node);
                // That one is there who was not revokes nothing.
                change_user(node, "bob", UserChange::Added);
                node.answer_login(AuthOutcome::Accepted);
                node.expect(client, &["CONNACK 00"]);
                node.disconnect(client);
            }
            assert_eq!(node.stats().clients_connected, 0);
        });
    }
}

/// Once nobody is asked about logins any more, nobody can prove to own a Session: its client keeps it, as on a broker
/// that never asked. Until then, on a listener that asks or not, it stays its owner's.
#[test]
fn authentication_that_is_turned_off_locks_nobody_out() {
    let open = ListenerRules {
        allow_anonymous: true,
        ask: false,
        named: false,
    };
    in_each_node(asking(), |node| {
        prepare(node);
        let mut config = asking();
        config.listeners.insert(0, open);
        node.reload(config.clone());
        let come = |node: &mut Node| {
            node.connect_with(V5, "device", |connect| {
                connect.clean_start = false;
                connect.username = Some("alice");
            })
        };
        let device = come(node);
        node.expect(device, &["CONNACK 87", "CLOSE"]);
        config.listeners.truncate(1);
        node.reload(config);
        let device = come(node);
        node.expect(device, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "secret""#]);
    });
}

/// A client that the transport knows is its user, whatever its CONNECT says, and owns its Session as one who has logged
/// in; where it is to know everybody, one that it does not is refused, and so is a method that would prove another.
#[test]
fn a_user_may_be_known_by_the_transport() {
    let mut config = asking();
    config.listeners.push(ListenerRules {
        allow_anonymous: false,
        ask: true,
        named: true,
    });
    config.authentication_methods = vec!["M".to_owned()];
    in_each_node(config, |node| {
        let come = |node: &mut Node, name: Option<&str>, method: Option<&'static str>| {
            node.name = name.map(str::to_owned);
            node.connect_with(V5, "device", move |connect| {
                connect.clean_start = false;
                connect.properties.session_expiry_interval = Some(3_600);
                connect.properties.authentication_method = method;
                connect.username = Some("mallory");
                connect.password = Some(b"wrong");
            })
        };
        node.listener = ListenerId(1);
        let device = come(node, Some("alice"), None);
        node.expect(device, &["CONNACK 00"]);
        node.lose(device);
        let device = come(node, Some("alice"), None);
        node.expect(device, &["CONNACK 00 present"]);
        for (name, method, connack) in [
            (None, None, "CONNACK 86"),
            (Some("mallory"), None, "CONNACK 87"),
            (Some("alice"), Some("M"), "CONNACK 8c"),
        ] {
            let refused = come(node, name, method);
            node.expect(refused, &[connack, "CLOSE"]);
        }
        // At another listener the User Name has to be proven.
        (node.listener, node.name) = (ListenerId(0), None);
        let device = log_in(node, "device", "alice", false);
        node.expect(device, &["CONNACK 00 present"]);
    });
}
