//! Logins that come with more than a name: rules of one Session alone, and a moment when they are over.

use std::sync::Arc;
use std::time::Duration;

use sol_engine::{
    Access, AuthOutcome, Cause, ChangedUser, Credentials, EngineConfig, Event, Grant, Input, ListenerId, ListenerRules,
    ListenerTerms, Rule, RuleSet, Rules, UnixMillis, UserChange,
};

use crate::support::*;

/// Names are asked about, Passwords without one too; whoever shows neither comes in, bound by these rules if there are any.
fn asking(rights: Option<Rules>) -> EngineConfig {
    EngineConfig {
        listeners: vec![ListenerRules {
            allow_anonymous: true,
            ask: true,
            named: false,
        }],
        terms: vec![ListenerTerms {
            asks_nameless: true,
            ..ListenerTerms::default()
        }],
        rights: vec![rights.map(Arc::new)],
        ..EngineConfig::default()
    }
}

fn own(rules: &[(Access, &str)]) -> Option<Arc<Rules>> {
    let rules = rules.iter().map(|(access, filter)| Rule::new(*access, filter));
    let set = RuleSet {
        anonymous: rules.collect(),
        ..RuleSet::default()
    };
    Some(Arc::new(Rules::new(set)))
}

fn patterns(rules: &[(Access, &str)]) -> Option<Arc<Rules>> {
    let rules = rules.iter().map(|(access, filter)| Rule::new(*access, filter));
    let set = RuleSet {
        patterns: rules.collect(),
        ..RuleSet::default()
    };
    Some(Arc::new(Rules::new(set)))
}

fn grant(username: &str, rules: Option<Arc<Rules>>) -> Grant {
    Grant {
        username: Some(username.to_owned()),
        rules,
        expires_at: UnixMillis::NEVER,
    }
}

/// Comes by a Password alone, keeps its Session for an hour, and is granted this.
fn come(node: &mut Node, client_id: &str, grant: Grant) -> Client {
    let client = node.connect_with(V5, client_id, |connect| {
        connect.password = Some(b"token");
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(3_600);
    });
    node.answer_login(AuthOutcome::Granted(Box::new(grant)));
    client
}

fn enters(node: &mut Node, client_id: &str, grant: Grant) -> Client {
    let client = come(node, client_id, grant);
    let got = node.take(client);
    assert!(got[0].starts_with("CONNACK 00"), "{got:?}");
    client
}

/// When the last Session with rules of its own has ended nothing is judged any more, and when the next one comes all is: what
/// was found before holds for nobody whose rules are others now, and new Subscriptions are judged, too.
#[test]
fn rules_come_and_go_with_their_session() {
    in_each_node(asking(None), |node| {
        let publisher = node.connect(V5, "publisher");
        let wide = || own(&[(Access::ReadWrite, "#")]);
        let narrow = || own(&[(Access::Read, "in/#")]);
        for (rules, hears) in [
            (wide(), true),
            (narrow(), false),
            (None, true),
            (narrow(), false),
            (wide(), true),
            (None, true),
        ] {
            // The Session of before is taken over, with its Subscriptions; the other one is new, and ends.
            let client = enters(node, "client", grant("ann", rules.clone()));
            let passing = node.connect_with(V5, "passing", |connect| connect.password = Some(b"token"));
            node.answer_login(AuthOutcome::Granted(Box::new(grant("bob", rules))));
            node.expect(passing, &["CONNACK 00"]);
            for client in [client, passing] {
                node.subscribe(client, &["#"], 0);
                node.expect(client, &["SUBACK #1 [00]"]);
            }
            node.publish(publisher, "in/x", 0, 0, "1");
            node.publish(publisher, "out/x", 0, 0, "2");
            for client in [client, passing] {
                let heard = [r#"PUBLISH in/x q0 "1""#, r#"PUBLISH out/x q0 "2""#];
                node.expect(client, if hears { &heard } else { &heard[..1] });
            }
            node.disconnect(passing);
            node.check();
        }
    });
}

/// A login that ends while its client is away ends nothing: what is queued goes on waiting, also what comes later, and is judged
/// by what the next login allows.
#[test]
fn a_login_ends_while_its_client_is_away() {
    in_each_node(asking(None), |node| {
        let expires_at = node.now.wall.plus_seconds(10);
        let first = Grant {
            expires_at,
            ..grant("ann", own(&[(Access::Read, "in/#")]))
        };
        let client = enters(node, "client", first);
        node.subscribed(client, &["in/#"], 1);
        node.lose(client);
        let publisher = node.connect(V5, "publisher");
        for (topic, payload) in [("in/x", "1"), ("in/y", "2")] {
            node.publish(publisher, topic, 0, 0, payload);
        }
        node.publish(publisher, "in/x", 1, 1, "3");
        node.publish(publisher, "in/y", 1, 2, "4");
        node.pass(Duration::from_secs(60));
        node.check();
        node.publish(publisher, "in/x", 1, 3, "5");
        node.expect(publisher, &["PUBACK #1", "PUBACK #2", "PUBACK #3"]);
        // Nobody else has the Session for that.
        let other = node.connect_with(V5, "client", |connect| connect.clean_start = false);
        node.expect(other, &["CONNACK 87", "CLOSE"]);
        let again = come(node, "client", grant("ann", own(&[(Access::Read, "in/x")])));
        let got = node.take(again);
        assert_eq!(
            got[1..],
            [r#"PUBLISH in/x q1 #1 "3""#, r#"PUBLISH in/x q1 #2 "5""#],
            "{got:?}"
        );
        node.check();
    });
}

/// A Password without a User Name is asked about where the listener says so, and only there.
#[test]
fn nameless_passwords_are_asked_about() {
    for asks_nameless in [true, false] {
        let mut config = asking(None);
        config.listeners[0].allow_anonymous = false;
        config.terms[0].asks_nameless = asks_nameless;
        in_each_node(config, |node| {
            let client = node.connect_with(V5, "c", |connect| connect.password = Some(b"token"));
            if !asks_nameless {
                return node.expect(client, &["CONNACK 87", "CLOSE"]);
            }
            let credentials = Credentials::Password {
                username: None,
                password: Some(b"token".to_vec()),
            };
            assert_eq!(node.auth_requests[0].1.credentials, credentials);
            node.answer_login(AuthOutcome::Granted(Box::new(grant("ann", None))));
            node.expect(client, &["CONNACK 00"]);
        });
    }
}

/// Rules of its own bind this Session alone, in place of its listener's, at each gate: others are bound by the listener's, or
/// by none. It is the user that the grant names.
#[test]
fn own_rules_are_of_one_session() {
    let strict = Rules::new(RuleSet::default());
    for listener in [None, Some(strict)] {
        let open = listener.is_none();
        in_each_node(asking(listener), |node| {
            let rules = own(&[
                (Access::Read, "in/#"),
                (Access::Write, "out/+"),
                (Access::Deny, "in/no"),
            ]);
            let client = enters(node, "client", grant("ann", rules));
            let other = node.connect(V5, "other");
            node.subscribe(client, &["in/#", "#", "out/x", "in/no"], 0);
            node.expect(client, &["SUBACK #1 [00, 00, 87, 87]"]);
            node.subscribe(other, &["out/#"], 0);
            node.expect(other, &[if open { "SUBACK #1 [00]" } else { "SUBACK #1 [87]" }]);
            node.publish(client, "out/x", 1, 1, "1");
            node.publish(client, "in/x", 1, 2, "2");
            node.expect(client, &["PUBACK #1", "PUBACK #2 87"]);
            if open {
                node.expect(other, &[r#"PUBLISH out/x q0 "1""#]);
                for _ in 0..2 {
                    for topic in ["in/x", "in/no", "out/x"] {
                        node.publish(other, topic, 0, 0, "3");
                    }
                }
                let lines = node.take(client);
                assert!(lines.iter().all(|line| line.starts_with("PUBLISH in/x ")), "{lines:?}");
                assert!(!lines.is_empty());
            }
            let named = node
                .events
                .iter()
                .any(|event| matches!(event, Event::Connected { username, .. } if username.as_deref() == Some("ann")));
            assert!(named);
            node.check();
        });
    }
}

/// Who comes back with other rules is bound by these at once, what is queued and what is subscribed to included; and by the
/// listener's when he brings none.
#[test]
fn rules_are_those_of_the_latest_login() {
    in_each_node(asking(None), |node| {
        let all = || own(&[(Access::ReadWrite, "#")]);
        let client = enters(node, "client", grant("ann", all()));
        node.subscribed(client, &["a", "b"], 1);
        node.lose(client);
        let publisher = node.connect(V5, "publisher");
        for (n, topic) in [(1, "a"), (2, "b")] {
            node.publish(publisher, topic, 1, n, topic);
        }
        node.take(publisher);
        let client = come(node, "client", grant("ann", own(&[(Access::Read, "b")])));
        node.expect(client, &["CONNACK 00 present", r#"PUBLISH b q1 #1 "b""#]);
        node.puback(client, 1);
        for topic in ["a", "b"] {
            node.publish(publisher, topic, 0, 0, "live");
        }
        node.expect(client, &[r#"PUBLISH b q0 "live""#]);
        node.lose(client);
        let client = come(node, "client", grant("ann", None));
        node.expect(client, &["CONNACK 00 present"]);
        for topic in ["a", "b"] {
            node.publish(publisher, topic, 0, 0, "open");
        }
        node.expect(client, &[r#"PUBLISH a q0 "open""#, r#"PUBLISH b q0 "open""#]);
        node.check();
    });
}

/// Names in rules of one's own widen nothing: with a wildcard or a level in one, no rule that names the client counts.
#[test]
fn names_do_not_widen_own_rules() {
    in_each_node(asking(None), |node| {
        for (client_id, username, allowed) in [
            ("good", "ann", true),
            ("+", "ann", false),
            ("a/b", "ann", false),
            ("good2", "a/b", false),
            ("good3", "#", false),
        ] {
            let rules = patterns(&[(Access::ReadWrite, "of/%c/%u/#")]);
            let client = enters(node, client_id, grant(username, rules));
            let topic = format!("of/{client_id}/{username}/x");
            let code = if allowed { "00" } else { "87" };
            node.subscribe(client, &["of/#"], 0);
            node.expect(client, &[&format!("SUBACK #1 [{code}]")]);
            if sol_codec::TopicName::new(&topic).is_ok() {
                node.publish(client, &topic, 1, 1, "");
                let got = node.take(client).concat();
                assert_eq!(got.contains("PUBACK #1 87"), !allowed, "{got}");
            }
        }
    });
}

/// What may do everything still does not publish as the broker does.
#[test]
fn everything_is_not_the_brokers_own() {
    in_each_node(asking(Some(Rules::new(RuleSet::default()))), |node| {
        let rules = Some(Arc::new(Rules::for_everything()));
        let client = enters(node, "root", grant("root", rules));
        node.subscribe(client, &["#", "$SYS/#"], 0);
        node.expect(client, &["SUBACK #1 [00, 00]"]);
        node.publish(client, "any/thing", 1, 1, "x");
        node.publish(client, "$SYS/x", 1, 2, "x");
        node.expect(client, &[r#"PUBLISH any/thing q0 "x""#, "PUBACK #1", "PUBACK #2 87"]);
    });
}

/// When its login is over a connection ends, told why where its version can say it (0x87), its Will is published by its own
/// rules, and its Session waits for it.
#[test]
fn a_login_ends_its_connection() {
    for version in [V5, V311] {
        in_each_node(asking(None), |node| {
            let watcher = node.connect(V5, "watcher");
            node.subscribed(watcher, &["will/#"], 0);
            let client = node.connect_with(version, "client", |connect| {
                connect.username = Some("whoever");
                connect.password = Some(b"token");
                connect.clean_start = false;
                connect.keep_alive = 0;
                connect.properties.session_expiry_interval = Some(3_600);
                connect.will = Some(will("will/client", b"gone", 0));
            });
            let expires_at = node.now.wall.plus_seconds(10);
            node.answer_login(AuthOutcome::Granted(Box::new(Grant {
                expires_at,
                ..grant("ann", own(&[(Access::Write, "will/+")]))
            })));
            node.expect(client, &["CONNACK 00"]);
            node.pass(Duration::from_secs(9));
            node.expect(client, &[]);
            node.pass(Duration::from_millis(1_100));
            let said: &[&str] = if version == V5 {
                &["DISCONNECT 87", "CLOSE"]
            } else {
                &["CLOSE"]
            };
            node.expect(client, said);
            node.expect(watcher, &[r#"PUBLISH will/client q0 "gone""#]);
            let cause = node.events.iter().find_map(|event| match event {
                Event::Disconnected { cause, .. } => Some(cause.clone()),
                _ => None,
            });
            assert_eq!(cause, Some(Cause::LoginExpired));
            node.check();
            let client = come(node, "client", grant("ann", None));
            node.expect(client, &["CONNACK 00 present"]);
            node.pass(Duration::from_secs(100));
            node.expect(client, &[]);
        });
    }
}

/// A login that is over already lets nobody in, and neither do rules for nobody.
#[test]
fn what_is_over_lets_nobody_in() {
    in_each_node(asking(None), |node| {
        let expires_at = node.now.wall;
        let late = Grant {
            expires_at,
            ..grant("ann", None)
        };
        let nobody = Grant {
            username: None,
            rules: own(&[(Access::Read, "#")]),
            expires_at: UnixMillis::NEVER,
        };
        for refused in [late, nobody] {
            let client = come(node, "client", refused);
            node.expect(client, &["CONNACK 87", "CLOSE"]);
        }
    });
}

/// A login is over by the wall clock, also where that alone has moved: it was set, or the machine has slept.
#[test]
fn the_wall_clock_ends_a_login() {
    in_each_node(asking(None), |node| {
        let expires_at = node.now.wall.plus_seconds(3_600);
        let client = enters(
            node,
            "client",
            Grant {
                expires_at,
                ..grant("ann", None)
            },
        );
        node.pass(Duration::from_secs(120));
        node.expect(client, &[]);
        node.now.wall = node.now.wall.plus_seconds(7_200);
        node.pass(Duration::from_secs(60));
        node.expect(client, &["DISCONNECT 87", "CLOSE"]);
        assert_eq!(node.stats().login_expired_closed, 1);
    });
}

fn tell(node: &mut Node, input: impl Fn() -> Input<'static>) {
    for shard in 0..node.engines.len() {
        node.input(shard, input());
    }
    node.run();
}

/// When what was granted at a listener may not hold any more, those who came in by it leave, and those who are on their way
/// in are asked about again; who came in by a password, or at another listener, stays.
#[test]
fn grants_end_at_their_listener() {
    in_each_node(asking(None), |node| {
        let client = enters(node, "client", grant("ann", None));
        let other = node.connect_with(V5, "other", |connect| {
            connect.username = Some("ann");
            connect.password = Some(b"secret");
        });
        node.answer_login(AuthOutcome::Accepted);
        node.expect(other, &["CONNACK 00"]);
        tell(node, || Input::GrantsEnd(&[ListenerId(1)]));
        node.expect(client, &[]);
        let late = node.connect_with(V5, "late", |connect| connect.password = Some(b"token"));
        tell(node, || Input::GrantsEnd(&[ListenerId(1), ListenerId(0)]));
        node.expect(client, &["DISCONNECT 87", "CLOSE"]);
        node.expect(other, &[]);
        node.answer_login(AuthOutcome::Granted(Box::new(grant("bob", None))));
        node.expect(late, &["CONNACK 89", "CLOSE"]);
        enters(node, "client", grant("ann", None));
        node.check();
    });
}

/// A user of a password file and whoever was granted the same name are two: what becomes of the one is nothing to the other,
/// neither to a connection nor to a Session that waits.
#[test]
fn a_password_file_is_nothing_to_a_grant() {
    in_each_node(asking(None), |node| {
        let client = enters(node, "client", grant("ann", None));
        for change in [UserChange::Changed, UserChange::Gone] {
            let changed = [ChangedUser {
                username: "ann".into(),
                change,
            }];
            for shard in 0..node.engines.len() {
                node.input(shard, Input::Users(&changed));
            }
        }
        node.run();
        node.expect(client, &[]);
        node.lose(client);
        let other = come(node, "client", grant("bob", None));
        node.expect(other, &["CONNACK 87", "CLOSE"]);
        let client = come(node, "client", grant("ann", None));
        node.expect(client, &["CONNACK 00 present"]);
    });
}

/// Where a listener has no users to prove anything about, its Authentication Methods are unknown [MQTT-4.12.0-1].
#[test]
fn methods_are_of_listeners_with_users() {
    for refuses_methods in [true, false] {
        let mut config = asking(None);
        config.authentication_methods = vec!["METHOD".to_owned()];
        config.terms[0].refuses_methods = refuses_methods;
        in_each_node(config, |node| {
            let client = node.connect_with(V5, "c", |connect| {
                connect.properties.authentication_method = Some("METHOD");
            });
            if refuses_methods {
                node.expect(client, &["CONNACK 8c", "CLOSE"]);
            } else {
                assert_eq!(node.auth_requests.len(), 1);
            }
        });
    }
}

/// Rules of one's own do not outlive the broker: what waits for their Session is kept, and judged by its next login; its Will
/// is not published on trust.
#[test]
fn own_rules_end_with_the_broker() {
    let config = EngineConfig {
        journal: true,
        ..asking(None)
    };
    in_each_node(config.clone(), |node| {
        for shards in 1..=2 {
            let mut before = Node::new(node.engines.len() as u16, config.clone());
            let watcher = before.connect_durable(V5, "watcher");
            before.subscribed(watcher, &["will/#"], 1);
            let reads = own(&[(Access::Read, "t/#")]);
            let client = before.connect_with(V5, "client", |connect| {
                connect.password = Some(b"token");
                connect.clean_start = false;
                connect.properties.session_expiry_interval = Some(3_600);
                connect.will = Some(will("will/client", b"gone", 1));
            });
            before.answer_login(AuthOutcome::Granted(Box::new(grant("ann", reads))));
            before.expect(client, &["CONNACK 00"]);
            before.subscribed(client, &["t/#"], 1);
            let mut after = before.restart(shards, Duration::ZERO);
            let publisher = after.connect(V5, "publisher");
            for (n, topic) in [(1, "t/yes"), (2, "t/no"), (3, "will/other")] {
                after.publish(publisher, topic, 1, n, "x");
            }
            let rules = own(&[(Access::Read, "t/yes")]);
            let client = come(&mut after, "client", grant("ann", rules));
            after.expect(client, &["CONNACK 00 present", r#"PUBLISH t/yes q1 #1 "x""#]);
            let watcher = after.resume(V5, "watcher", 3_600);
            after.expect(watcher, &["CONNACK 00 present", r#"PUBLISH will/other q1 #1 "x""#]);
            after.check();
        }
    });
}
