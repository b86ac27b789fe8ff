//! What the clients of one listener are granted, and what stands before their topics.

use std::sync::Arc;
use std::time::Duration;

use sol_engine::{AuthOutcome, EngineConfig, ListenerId, ListenerRules, ListenerTerms};

use crate::support::*;

/// A node whose second listener has these terms.
fn second(terms: ListenerTerms) -> EngineConfig {
    EngineConfig {
        terms: vec![ListenerTerms::default(), terms],
        ..EngineConfig::default()
    }
}

fn mounted(prefix: &str) -> EngineConfig {
    second(ListenerTerms {
        mount_point: Some(Arc::from(prefix)),
        ..ListenerTerms::default()
    })
}

fn at(node: &mut Node, listener: u16, version: sol_codec::ProtocolVersion, name: &str) -> Client {
    node.listener = ListenerId(listener);
    node.connect(version, name)
}

/// Each listener announces its own limits, and judges by them.
#[test]
fn limits_of_a_listener() {
    let terms = ListenerTerms {
        maximum_qos: qos(1),
        topic_alias_maximum: 3,
        ..ListenerTerms::default()
    };
    in_each_node(second(terms), |node| {
        let (first, second) = (at(node, 0, V5, "a"), at(node, 1, V5, "b"));
        let said = |node: &Node, client: Client| {
            let connack = node.clients[client.0].connack.as_ref().unwrap();
            (connack.maximum_qos, connack.topic_alias_maximum)
        };
        assert_eq!(said(node, first), (None, Some(32)));
        assert_eq!(said(node, second), (Some(qos(1)), Some(3)));
        node.subscribe(second, &["t"], 2);
        node.expect(second, &["SUBACK #1 [01]"]);
        node.publish(second, "t", 2, 1, "");
        node.expect(second, &["DISCONNECT 9b", "CLOSE"]);
    });
}

/// A listener's connections have a limit of their own, for all shards together: others do not count, a takeover needs no
/// room unless it comes from elsewhere, and who leaves makes room.
#[test]
fn connections_of_a_listener() {
    let terms = ListenerTerms {
        connections_max: 2,
        ..ListenerTerms::default()
    };
    in_each_node(second(terms), |node| {
        let shards = node.engines.len();
        let name = |node: &Node, n: usize, prefix: &str| node.name_on(n % shards, prefix);
        for n in 0..3 {
            let other = name(node, n, "other");
            at(node, 0, V5, &other);
        }
        let names = [name(node, 0, "a"), name(node, 1, "b")];
        let first = at(node, 1, V5, &names[0]);
        at(node, 1, V5, &names[1]);
        for shard in 0..shards {
            let over = name(node, shard, "over");
            let refused = node.connect_with(V5, &over, |_| {});
            node.expect(refused, &["CONNACK 97", "CLOSE"]);
        }
        let taken = node.connect_with(V5, &name(node, 0, "other"), |_| {});
        node.expect(taken, &["CONNACK 97", "CLOSE"]);
        let again = at(node, 1, V5, &names[0]);
        node.expect(first, &["DISCONNECT 8e", "CLOSE"]);
        node.disconnect(again);
        let later = name(node, shards - 1, "later");
        at(node, 1, V5, &later);
        at(node, 0, V5, "one more");
        node.check();
    });
}

/// Listeners that share a limit have no more connections together than it says, on all shards: one takes the place that the
/// other has left, a takeover from the one to the other needs none, and others do not count.
#[test]
fn connections_of_listeners_that_share_a_limit() {
    let terms = ListenerTerms {
        connections_max: 2,
        counted_at: Some(ListenerId(1)),
        ..ListenerTerms::default()
    };
    let config = EngineConfig {
        terms: vec![ListenerTerms::default(), terms.clone(), terms],
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let shards = node.engines.len();
        at(node, 0, V5, "other");
        let names = [node.name_on(0, "a"), node.name_on(1 % shards, "b")];
        let first = at(node, 1, V5, &names[0]);
        at(node, 2, V5, &names[1]);
        for listener in [1, 2] {
            node.listener = ListenerId(listener);
            for shard in 0..shards {
                let over = node.name_on(shard, "over");
                let refused = node.connect_with(V5, &over, |_| {});
                node.expect(refused, &["CONNACK 97", "CLOSE"]);
            }
        }
        let again = at(node, 2, V5, &names[0]);
        node.expect(first, &["DISCONNECT 8e", "CLOSE"]);
        node.check();
        node.disconnect(again);
        let later = node.name_on(shards - 1, "later");
        at(node, 1, V5, &later);
        node.listener = ListenerId(2);
        let refused = node.connect_with(V5, "over", |_| {});
        node.expect(refused, &["CONNACK 97", "CLOSE"]);
        node.check();
    });
}

/// Versions that a listener does not speak are refused by the code that says so, and no others.
#[test]
fn versions_of_a_listener() {
    let terms = ListenerTerms {
        refused_versions: vec![V311],
        ..ListenerTerms::default()
    };
    in_each_node(second(terms), |node| {
        node.listener = ListenerId(1);
        let old = node.connect_with(V311, "old", |_| {});
        assert_eq!(node.take(old), ["CONNACK 84", "CLOSE"]);
        at(node, 1, V5, "new");
        at(node, 0, V311, "old");
    });
}

/// Client Identifiers of a listener: made with its beginning, refused without it, or not to be left empty.
#[test]
fn client_identifiers_of_a_listener() {
    let terms = ListenerTerms {
        assigned_client_id_prefix: "home-".to_owned(),
        client_id_prefix: Some("home-".to_owned()),
        ..ListenerTerms::default()
    };
    in_each_node(second(terms.clone()), |node| {
        node.listener = ListenerId(1);
        let stranger = node.connect_with(V5, "x", |_| {});
        assert_eq!(node.take(stranger), ["CONNACK 87", "CLOSE"]);
        node.connect(V5, "home-x");
        let nameless = node.connect(V5, "");
        let given = node.clients[nameless.0]
            .connack
            .as_ref()
            .unwrap()
            .assigned_client_id
            .clone();
        assert!(given.unwrap().starts_with("home-"));
        at(node, 0, V5, "x");
    });
    let terms = ListenerTerms {
        allow_empty_client_id: false,
        ..terms
    };
    in_each_node(second(terms), |node| {
        node.listener = ListenerId(1);
        let nameless = node.connect_with(V5, "", |_| {});
        assert_eq!(node.take(nameless), ["CONNACK 85", "CLOSE"]);
    });
}

/// Where users name clients, the User Name that was accepted is the Client Identifier, whatever CONNECT said: a second
/// connection of the user takes the Session over. Who has none is not let in.
#[test]
fn users_name_clients() {
    let mut config = second(ListenerTerms {
        username_is_client_id: true,
        ..ListenerTerms::default()
    });
    config.listeners = vec![
        ListenerRules::default(),
        ListenerRules {
            allow_anonymous: true,
            ask: true,
            named: false,
        },
    ];
    in_each_node(config, |node| {
        node.listener = ListenerId(1);
        let named = |node: &mut Node, client_id: &str| {
            let client = node.connect_with(V5, client_id, |connect| {
                connect.username = Some("ann");
                connect.password = Some(b"x");
                connect.clean_start = false;
                connect.properties.session_expiry_interval = Some(60);
            });
            node.answer_login(AuthOutcome::Accepted);
            client
        };
        let first = named(node, "one");
        node.expect(first, &["CONNACK 00"]);
        let second = named(node, "");
        node.expect(first, &["DISCONNECT 8e", "CLOSE"]);
        node.expect(second, &["CONNACK 00 present"]);
        let given = node.clients[second.0]
            .connack
            .as_ref()
            .unwrap()
            .assigned_client_id
            .clone();
        assert_eq!(given.as_deref(), Some("ann"));
        let nobody = node.connect_with(V5, "three", |_| {});
        assert_eq!(node.take(nobody), ["CONNACK 87", "CLOSE"]);
    });
}

/// Clients of a mounted listener see topics without what stands before them, and no topics without it: live, shared,
/// retained, queued, of Wills, with and without Topic Aliases.
#[test]
fn mounted_topics() {
    in_each_node(mounted("home/"), |node| {
        let outside = at(node, 0, V5, "outside");
        let inside = at(node, 1, V5, "inside");
        let old = at(node, 1, V311, "old");
        node.subscribed(outside, &["#"], 1);
        node.subscribed(inside, &["#"], 1);
        node.subscribed(old, &["a/+", "$share/g/s"], 1);
        node.publish(inside, "a/b", 0, 0, "in");
        node.expect(outside, &[r#"PUBLISH home/a/b q0 "in""#]);
        node.expect(inside, &[r#"PUBLISH a/b q0 "in""#]);
        node.expect(old, &[r#"PUBLISH a/b q0 "in""#]);
        node.publish(outside, "home/a/c", 1, 1, "out");
        node.expect(outside, &[r#"PUBLISH home/a/c q1 #1 "out""#, "PUBACK #1"]);
        node.expect(inside, &[r#"PUBLISH a/c q1 #1 "out""#]);
        node.expect(old, &[r#"PUBLISH a/c q1 #1 "out""#]);
        node.publish(outside, "home/s", 0, 0, "s");
        node.take(outside);
        node.expect(inside, &[r#"PUBLISH s q0 "s""#]);
        node.expect(old, &[r#"PUBLISH s q0 "s""#]);
        node.publish(outside, "a/b", 0, 0, "elsewhere");
        node.publish(outside, "home/", 0, 0, "nothing left");
        node.take(outside);
        node.expect(inside, &[]);
        node.unsubscribe(inside, &["#", "b"]);
        node.expect(inside, &["UNSUBACK #2 [00, 11]"]);
        node.retain(inside, "kept", 1, 2, "r");
        node.expect(inside, &["PUBACK #2"]);
        node.expect(outside, &[r#"PUBLISH home/kept q1 #2 "r""#]);
        node.subscribe(inside, &["kept"], 0);
        node.expect(inside, &["SUBACK #1 [00]", r#"PUBLISH kept q0 retain "r""#]);
    });
}

/// Messages for a mounted client that is away wait for it; its Will is below its mount point; and at another listener it
/// gets nothing from there.
#[test]
fn mounted_sessions() {
    in_each_node(mounted("home/"), |node| {
        let outside = at(node, 0, V5, "outside");
        node.subscribed(outside, &["home/#"], 0);
        node.listener = ListenerId(1);
        let away = node.connect_with(V5, "away", |connect| {
            connect.properties.session_expiry_interval = Some(3_600);
            connect.will = Some(will("gone", b"w", 0));
        });
        node.expect(away, &["CONNACK 00"]);
        node.subscribed(away, &["q"], 1);
        node.lose(away);
        node.expect(outside, &[r#"PUBLISH home/gone q0 "w""#]);
        node.publish(outside, "home/q", 1, 1, "waits");
        node.expect(outside, &[r#"PUBLISH home/q q0 "waits""#, "PUBACK #1"]);
        let back = node.resume(V5, "away", 3_600);
        node.expect(back, &["CONNACK 00 present", r#"PUBLISH q q1 #1 "waits""#]);
        node.acknowledge(back, "PUBLISH q q1 #1");
        node.lose(back);
        node.listener = ListenerId(0);
        let elsewhere = node.resume(V5, "away", 3_600);
        node.expect(elsewhere, &["CONNACK 00 present"]);
        node.subscribed(elsewhere, &["open"], 1);
        node.lose(elsewhere);
        node.publish(outside, "open", 1, 2, "not below");
        node.expect(outside, &["PUBACK #2"]);
        node.listener = ListenerId(1);
        let again = node.resume(V5, "away", 3_600);
        node.expect(again, &["CONNACK 00 present"]);
        assert_eq!(node.stats().stored_messages, 0);
        assert_eq!(node.stats().deliver_unauthorized, 1);
    });
}

/// No packet could hold such a topic: what is whole inside has to fit, too.
#[test]
fn mounted_topics_have_an_end() {
    in_each_node(mounted("home/"), |node| {
        let inside = at(node, 1, V5, "inside");
        let long: &'static str = "x".repeat(usize::from(u16::MAX)).leak();
        node.publish(inside, long, 1, 1, "");
        node.expect(inside, &["PUBACK #1 90"]);
        node.subscribe(inside, &[long], 0);
        node.expect(inside, &["SUBACK #1 [8f]"]);
        node.listener = ListenerId(1);
        let last = node.connect_with(V5, "last", move |connect| connect.will = Some(will(long, b"", 0)));
        assert_eq!(node.take(last), ["CONNACK 90", "CLOSE"]);
    });
}

/// A payload that is too large is dropped and told where there is room for it; its Topic Alias is set all the same.
#[test]
fn payloads_have_a_limit() {
    let config = EngineConfig {
        payload_bytes_max: 4,
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let (five, three) = (node.connect(V5, "five"), node.connect(V311, "three"));
        node.subscribed(three, &["t"], 0);
        node.publish(five, "t", 1, 1, "12345");
        node.publish(five, "t", 2, 2, "12345");
        node.publish(five, "t", 1, 3, "1234");
        node.expect(five, &["PUBACK #1 97", "PUBREC #2 97", "PUBACK #3"]);
        node.publish(three, "t", 1, 1, "12345");
        node.expect(three, &[r#"PUBLISH t q0 "1234""#, "PUBACK #1"]);
        assert_eq!(node.stats().publish_dropped, 3);
    });
}

/// From a limit of bytes on nothing follows what is on its way, until some of it has arrived; one message always goes.
#[test]
fn bytes_on_their_way_have_a_limit() {
    let config = EngineConfig {
        inflight_bytes_max: 8,
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let (from, to) = (node.connect(V5, "from"), node.connect(V5, "to"));
        node.subscribed(to, &["t"], 1);
        for (n, payload) in [(1, "12345"), (2, "6789"), (3, "x")] {
            node.publish(from, "t", 1, n, payload);
        }
        let first = r#"PUBLISH t q1 #1 "12345""#;
        node.expect(to, &[first, r#"PUBLISH t q1 #2 "6789""#]);
        node.acknowledge(to, first);
        node.expect(to, &[r#"PUBLISH t q1 #3 "x""#]);
    });
}

/// Messages go out with the QoS of their Subscription, live and retained, if that is asked for.
#[test]
fn outgoing_qos_is_raised() {
    let config = EngineConfig {
        upgrade_outgoing_qos: true,
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let (from, to) = (node.connect(V5, "from"), node.connect_durable(V5, "to"));
        node.subscribed(to, &["t"], 1);
        node.retain(from, "t", 0, 0, "a");
        node.expect(to, &[r#"PUBLISH t q1 #1 "a""#]);
        node.acknowledge(to, r#"PUBLISH t q1 #1 "a""#);
        node.lose(to);
        node.publish(from, "t", 0, 0, "b");
        let to = node.resume(V5, "to", 3_600);
        node.expect(to, &["CONNACK 00 present", r#"PUBLISH t q1 #2 "b""#]);
        node.acknowledge(to, r#"PUBLISH t q1 #2 "b""#);
        node.subscribe(to, &["t"], 2);
        node.expect(to, &["SUBACK #1 [02]", r#"PUBLISH t q2 #3 retain "a""#]);
    });
}

/// Retained messages without an end are given one; who is there gets them without.
#[test]
fn retained_messages_end() {
    let config = EngineConfig {
        retained_expiry: Some(60),
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let (from, to) = (node.connect(V5, "from"), node.connect(V5, "to"));
        node.subscribed(to, &["t"], 0);
        node.retain(from, "t", 1, 1, "a");
        node.expect(to, &[r#"PUBLISH t q0 "a""#]);
        node.pass(Duration::from_secs(59));
        node.subscribe(to, &["t"], 0);
        let got = node.take(to);
        assert!(got[1].starts_with("PUBLISH t q0 retain expiry"), "{got:?}");
        node.pass(Duration::from_secs(2));
        node.subscribe(to, &["t"], 0);
        node.expect(to, &["SUBACK #1 [00]"]);
    });
}
