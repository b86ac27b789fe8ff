//! Rules at each of the gate's seven places, and what becomes of live Subscriptions, queues, retained messages and Wills
//! when rules change.

use std::sync::Arc;

use sol_engine::{Attempt, AuthOutcome, EngineConfig, Event, ListenerId, ListenerRules, Rule, RuleSet, Rules};

use crate::support::*;

/// Rules as lines: `read a/#` for clients without a User Name, `ann: read a/#` for Ann, `pattern read %c/#` for all.
fn rules(lines: &[&str]) -> Option<Arc<Rules>> {
    use sol_engine::Access::*;
    let mut set = RuleSet::default();
    for line in lines {
        let (user, rest) = line
            .split_once(": ")
            .map_or((None, *line), |(user, rest)| (Some(user), rest));
        let words: Vec<_> = rest.split(' ').collect();
        let (&[access, filter] | &[_, access, filter]) = words.as_slice() else {
            panic!("{line}")
        };
        let access = match access {
            "read" => Read,
            "write" => Write,
            "readwrite" => ReadWrite,
            "deny" => Deny,
            "denyread" => DenyRead,
            _ => DenyWrite,
        };
        let rule = Rule::new(access, filter);
        match user {
            Some(user) => set.users.push((user.to_owned(), vec![rule])),
            None if words.len() == 3 => set.patterns.push(rule),
            None => set.anonymous.push(rule),
        }
    }
    Some(Arc::new(Rules::new(set)))
}

fn limited(lines: &[&str]) -> EngineConfig {
    EngineConfig {
        rights: vec![rules(lines)],
        ..EngineConfig::default()
    }
}

/// A client with a User Name that nobody asks about, kept for an hour.
fn named(node: &mut Node, client_id: &str, username: &'static str) -> Client {
    let client = node.connect_with(V5, client_id, move |connect| {
        connect.username = Some(username);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(3_600);
    });
    let got = node.take(client);
    assert!(got[0].starts_with("CONNACK 00"), "{got:?}");
    client
}

/// PUBLISH: 5.0 is told 0x87 in PUBACK and PUBREC, and its QoS 2 identifier is free again; 3.1.1 is acknowledged; QoS 0 is
/// dropped. Each is counted, the first and doubling ones are told, and nobody gets anything or keeps it [MQTT-3.3.5-2 of
/// 3.1.1].
#[test]
fn a_publish_needs_a_right() {
    in_each_node(limited(&["read #", "write ok/#", "denywrite ok/no"]), |node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["#"], 0);
        let five = node.connect(V5, "five");
        let three = node.connect(V311, "three");
        node.publish(five, "no", 1, 1, "");
        node.retain(five, "no", 2, 2, "x");
        node.publish(five, "no", 2, 2, "");
        node.publish(five, "ok/no", 0, 0, "");
        node.expect(five, &["PUBACK #1 87", "PUBREC #2 87", "PUBREC #2 87"]);
        node.publish(three, "no", 1, 1, "");
        node.publish(three, "no", 2, 2, "");
        node.expect(three, &["PUBACK #1", "PUBREC #2"]);
        node.expect(watcher, &[]);
        assert_eq!(
            (node.stats().publish_unauthorized, node.stats().retained_messages),
            (6, 0)
        );
        let told: Vec<_> = node.events.iter().filter_map(refusal).collect();
        let publish = |client: &str, topic: &str, count| (Attempt::Publish, client.to_owned(), topic.to_owned(), count);
        assert_eq!(
            told,
            [
                publish("five", "no", 1),
                publish("five", "no", 2),
                publish("five", "ok/no", 4),
                publish("three", "no", 1),
                publish("three", "no", 2),
            ]
        );
        for n in 1..=4 {
            node.publish(five, "ok/yes", 1, n, "");
            node.expect(five, &[&format!("PUBACK #{n}")]);
            node.expect(watcher, &[r#"PUBLISH ok/yes q0 """#]);
        }
        node.publish(five, "ok/no", 1, 5, "");
        node.expect(five, &["PUBACK #5 87"]);
    });
}

/// Rules that say nothing allow nothing.
#[test]
fn no_rule_allows_nothing() {
    in_each_node(limited(&[]), |node| {
        for client in [node.connect(V5, "nobody"), named(node, "somebody", "ann")] {
            node.subscribe(client, &["#", "t"], 1);
            node.publish(client, "t", 1, 1, "");
            node.expect(client, &["SUBACK #1 [87, 87]", "PUBACK #1 87"]);
        }
    });
}

fn refusal(event: &Event) -> Option<(Attempt, String, String, u32)> {
    match event {
        Event::NotAuthorized {
            client_id,
            attempt,
            topic,
            count,
            ..
        } => Some((*attempt, client_id.to_string(), topic.to_string(), *count)),
        _ => None,
    }
}

/// What an alias stands for is judged like the topic itself [MQTT-3.3.2-12].
#[test]
fn an_alias_is_no_way_around() {
    in_each_node(limited(&["write ok", "read #"]), |node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["#"], 0);
        let client = node.connect(V5, "client");
        let alias = |publish: &mut sol_codec::Publish<'_>| {
            publish.properties.topic_alias = sol_codec::TopicAlias::new(1);
        };
        node.publish_with(client, "ok", 1, 1, "", alias);
        node.publish_with(client, "no", 1, 2, "", alias);
        node.publish_with(client, "no", 1, 3, "", move |publish| {
            alias(publish);
            publish.topic = None;
        });
        node.expect(client, &["PUBACK #1", "PUBACK #2 87", "PUBACK #3 87"]);
        node.expect(watcher, &[r#"PUBLISH ok q0 """#]);
    });
}

/// SUBSCRIBE: refused where no topic of the filter can be read, in its place [MQTT-3.8.4-6]; granted where
/// some can, and then only those are delivered. A refused filter does not keep the others from being granted.
#[test]
fn a_subscription_needs_something_to_read() {
    in_each_node(limited(&["read a/#", "denyread a/secret/#", "write #"]), |node| {
        let five = node.connect(V5, "five");
        let three = node.connect(V311, "three");
        let filters = ["b", "a/secret/#", "a/secret/+", "+", "#", "a/b", "+/b/c"];
        node.subscribe(five, &filters, 1);
        node.subscribe(three, &filters, 1);
        // To a client of 3.1.1 the encoder makes 0x80 of it.
        node.expect(five, &["SUBACK #1 [87, 87, 87, 01, 01, 01, 01]"]);
        node.expect(three, &["SUBACK #1 [87, 87, 87, 01, 01, 01, 01]"]);
        assert_eq!(
            (node.stats().subscribe_unauthorized, node.stats().subscriptions),
            (6, 8)
        );
        let publisher = node.connect(V5, "publisher");
        for topic in ["a", "a/b", "a/b/c", "a/secret", "a/secret/x", "b", "b/b/c"] {
            node.publish(publisher, topic, 0, 0, "");
        }
        let readable = [r#"PUBLISH a q0 """#, r#"PUBLISH a/b q0 """#, r#"PUBLISH a/b/c q0 """#];
        node.expect(five, &readable);
        node.expect(three, &readable);
        assert_eq!(node.stats().deliver_unauthorized, 8);
    });
}

/// A message for a thousand is judged for each of them by its own rules, whoever they share their filter with.
#[test]
fn each_subscriber_is_judged_by_its_own_rules() {
    let lines = [
        "ann: read #",
        "bob: read a/#",
        "dan: read d",
        "pattern read of/%c/#",
        "pattern read by/%u/#",
        "write #",
    ];
    in_each_node(limited(&lines), |node| {
        let publisher = node.connect(V5, "publisher");
        let mut clients = Vec::new();
        for n in 0..12 {
            let name = ["ann", "bob", "eve", "dan"][n % 4];
            let client = named(node, &format!("c{n}"), name);
            node.subscribed(client, &["#", "+/+/x"], 0);
            clients.push((client, name));
        }
        for topic in ["a/b/x", "c/d/x", "of/c5/x", "by/bob/x", "by/dan/x", "by/eve/x", "a/b/x"] {
            node.publish(publisher, topic, 0, 0, "");
            for (n, &(client, name)) in clients.iter().enumerate() {
                let is_own = topic == format!("of/c{n}/x") || topic == format!("by/{name}/x");
                let may = name == "ann" || name == "bob" && topic.starts_with("a/") || is_own;
                let line = format!("PUBLISH {topic} q0 \"\"");
                assert_eq!(
                    node.take(client),
                    if may { vec![line] } else { vec![] },
                    "{name} {topic}"
                );
            }
        }
    });
}

/// A repeat of what was taken is acknowledged though the right to it is gone: a refusal would free its identifier for another
/// message, which would then be taken for this one [MQTT-4.3.3-10].
#[test]
fn a_repeat_is_no_new_publish() {
    in_each_node(limited(&["write #"]), |node| {
        let client = node.connect(V5, "client");
        node.publish(client, "t", 2, 1, "");
        // Nobody subscribed to it, but it was taken.
        node.expect(client, &["PUBREC #1 10"]);
        node.reload(limited(&["write other"]));
        node.publish(client, "t", 2, 1, "");
        node.publish(client, "t", 2, 2, "");
        node.expect(client, &["PUBREC #1", "PUBREC #2 87"]);
    });
}

/// A message for a Shared Subscription comes to the member that may read it, on whichever shard that is.
#[test]
fn a_shared_message_is_passed_on_until_somebody_may_read_it() {
    let mut node = Node::new(4, limited(&["ann: read s/#", "bob: read s/a", "write #"]));
    let names = [0, 1, 2, 3].map(|shard| node.name_on(shard, "member"));
    let members = names.each_ref().map(|name| {
        let client = named(&mut node, name, if *name == names[3] { "ann" } else { "bob" });
        node.subscribed(client, &["$share/g/s/+"], 0);
        client
    });
    for shard in 0..4 {
        let name = node.name_on(shard, "publisher");
        let publisher = node.connect(V5, &name);
        for _ in 0..8 {
            node.publish(publisher, "s/b", 0, 0, "");
            node.expect(members[3], &[r#"PUBLISH s/b q0 """#]);
        }
    }
    for client in &members[..3] {
        node.expect(*client, &[]);
    }
}

/// Retained messages that a client has no right to are left out of its replay, from whichever shard they come
/// [MQTT-3.3.1-9].
#[test]
fn a_replay_leaves_out_what_may_not_be_read() {
    in_each_node(limited(&["write #", "read in/#", "denyread in/+/x"]), |node| {
        let publisher = node.connect(V5, "publisher");
        for topic in ["in/1", "in/1/x", "in/2/y", "out/1", "in/3/x"] {
            node.retain(publisher, topic, 1, 1, "");
            node.take(publisher);
            node.retain(publisher, topic, 1, 1, "kept");
            node.take(publisher);
        }
        let client = node.connect(V5, "client");
        node.subscribe(client, &["#"], 0);
        let mut got = node.take(client);
        assert_eq!(got.remove(0), "SUBACK #1 [00]");
        got.sort();
        assert_eq!(
            got,
            [r#"PUBLISH in/1 q0 retain "kept""#, r#"PUBLISH in/2/y q0 retain "kept""#]
        );
        assert_eq!(node.stats().retained_unauthorized, 3);
    });
}

/// The Will needs a right to write when it is published, not when it is given [MQTT-3.1.2-8].
#[test]
fn a_will_needs_a_right() {
    in_each_node(limited(&["write ok/#", "read #"]), |node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["#"], 0);
        for topic in ["no/will", "ok/will"] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.will = Some(will(topic, b"gone", 1))
            });
            node.take(client);
            node.lose(client);
        }
        node.expect(watcher, &[r#"PUBLISH ok/will q0 "gone""#]);
        assert_eq!(node.stats().publish_unauthorized, 1);
        let told: Vec<_> = node.events.iter().filter_map(refusal).collect();
        assert_eq!(told, [(Attempt::Will, "client".to_owned(), "no/will".to_owned(), 1)]);
    });
}

/// A Shared Subscription is judged by the filter behind its name, and its messages go to members that may read them, on
/// whichever shard they are [MQTT-4.8.2-4].
#[test]
fn a_shared_message_goes_to_a_member_with_the_right() {
    let lines = ["ann: read #", "bob: read a/#", "write #"];
    in_each_node(limited(&lines), |node| {
        let publisher = node.connect(V5, "publisher");
        let bobs: Vec<_> = (0..3).map(|n| named(node, &format!("bob{n}"), "bob")).collect();
        for &bob in &bobs {
            node.subscribe(bob, &["$share/g/b/#", "$share/g/#", "$share/g/+"], 1);
            node.expect(bob, &["SUBACK #1 [87, 01, 01]"]);
            node.unsubscribe(bob, &["$share/g/+"]);
            node.expect(bob, &["UNSUBACK #2 [00]"]);
        }
        let ann = named(node, "ann", "ann");
        node.subscribed(ann, &["$share/g/#"], 0);
        for _ in 0..9 {
            node.publish(publisher, "b/x", 0, 0, "");
        }
        let got = node.take(ann);
        assert!(bobs.iter().all(|&bob| node.take(bob).is_empty()));
        // One shard passes a message on once; where all its members have no right, that may be to the wrong one.
        assert!(node.engines.len() > 2 || got.len() == 9, "{got:?}");
        node.lose(ann);
        let dropped = node.stats().publish_dropped;
        node.publish(publisher, "b/x", 0, 0, "");
        assert!(bobs.iter().all(|&bob| node.take(bob).is_empty()));
        assert_eq!(node.stats().publish_dropped, dropped + 1);
    });
}

/// Other rules are in force for live Subscriptions with the next message, both ways, and a publisher's latest topic is
/// judged anew.
#[test]
fn a_change_reaches_live_clients() {
    in_each_node(limited(&["readwrite #"]), |node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["t", "+", "$share/g/t"], 0);
        let publisher = node.connect(V5, "publisher");
        let twice = [r#"PUBLISH t q0 """#; 2];
        for n in 1..=4 {
            node.publish(publisher, "t", 1, n, "");
            node.expect(publisher, &[&format!("PUBACK #{n}")]);
            node.expect(watcher, &twice);
        }
        for _ in 0..2 {
            node.reload(limited(&["write #"]));
            node.publish(publisher, "t", 1, 5, "");
            node.expect(publisher, &["PUBACK #5"]);
            node.expect(watcher, &[]);
            node.reload(limited(&["read #"]));
            node.publish(publisher, "t", 1, 6, "");
            node.expect(publisher, &["PUBACK #6 87"]);
            node.reload(EngineConfig::default());
            node.publish(publisher, "t", 1, 7, "");
            node.expect(publisher, &["PUBACK #7"]);
            node.expect(watcher, &twice);
            node.reload(limited(&["readwrite t"]));
            node.publish(publisher, "t", 1, 8, "");
            node.expect(publisher, &["PUBACK #8"]);
            node.expect(watcher, &twice);
        }
    });
}

/// What waited in a queue when the right to it was lost is not sent; what was begun before goes on [MQTT-4.4.0-1].
#[test]
fn a_change_reaches_queues() {
    in_each_node(limited(&["readwrite #"]), |node| {
        let away = node.connect_durable(V5, "away");
        node.subscribed(away, &["#"], 1);
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "no", 1, 1, "begun");
        node.expect(away, &[r#"PUBLISH no q1 #1 "begun""#]);
        node.lose(away);
        node.publish(publisher, "no", 1, 2, "");
        node.publish(publisher, "ok", 1, 3, "");
        node.reload(limited(&["write #", "read ok"]));
        node.publish(publisher, "no", 1, 4, "");
        let away = node.resume(V5, "away", 3_600);
        node.expect(
            away,
            &[
                "CONNACK 00 present",
                r#"PUBLISH no q1 #1 dup "begun""#,
                r#"PUBLISH ok q1 #2 """#,
            ],
        );
        assert_eq!(node.stats().deliver_unauthorized, 2);
        assert_eq!(node.stats().stored_messages, 2);
    });
}

/// A replay that was begun under other rules goes on under the new ones, and so does one that begins after.
#[test]
fn a_change_reaches_retained_messages() {
    in_each_node(limited(&["readwrite #"]), |node| {
        let publisher = node.connect(V5, "publisher");
        for n in 1..=4 {
            node.retain(publisher, &format!("r/{n}"), 1, n, "");
            node.retain(publisher, &format!("r/{n}"), 1, n, "kept");
        }
        let slow = node.connect_with(V5, "slow", |connect| {
            connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
        });
        node.take(slow);
        node.subscribe(slow, &["r/+"], 1);
        let got = node.take(slow);
        assert_eq!(got.len(), 2, "{got:?}");
        node.reload(limited(&["read none", "write #"]));
        node.puback(slow, 1);
        node.expect(slow, &[]);
        assert_eq!(node.stats().retained_unauthorized, 3);
        node.reload(limited(&["read r/3", "write #"]));
        node.subscribe(slow, &["r/+"], 1);
        node.expect(slow, &["SUBACK #1 [01]", r#"PUBLISH r/3 q1 #2 retain "kept""#]);
    });
}

/// A Will that was given with a right that is lost by now is not published, of a client that is there nor of one that is
/// away and whose Will waits for its delay.
#[test]
fn a_change_reaches_wills() {
    in_each_node(limited(&["readwrite #"]), |node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["will/#"], 0);
        let with_will = |node: &mut Node, client_id: &'static str, topic: &'static str, delay| {
            let client = node.connect_with(V5, client_id, move |connect| {
                let mut will = will(topic, b"", 0);
                will.properties.will_delay_interval = delay;
                connect.will = Some(will);
                connect.properties.session_expiry_interval = Some(100);
            });
            node.take(client);
            client
        };
        let (a, b) = (with_will(node, "a", "will/a", 0), with_will(node, "b", "will/b", 10));
        let c = with_will(node, "c", "will/c", 10);
        node.lose(b);
        node.lose(c);
        node.reload(limited(&["write will/c", "read #"]));
        node.lose(a);
        node.pass(std::time::Duration::from_secs(11));
        node.expect(watcher, &[r#"PUBLISH will/c q0 """#]);
        assert_eq!(node.stats().publish_unauthorized, 2);
    });
}

/// Rules are those of the listener of the latest connection and of the user it came as, while the Session is away too; what
/// was found of its Subscriptions for another user says nothing.
#[test]
fn rights_are_those_of_the_latest_connection() {
    let config = EngineConfig {
        rights: vec![rules(&["ann: read #", "bob: read bob", "write #"]), None],
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        let client = named(node, "client", "ann");
        node.subscribed(client, &["+", "$share/g/+"], 1);
        let send = |node: &mut Node, packet_id| {
            node.publish(publisher, "ann", 1, packet_id, "");
            node.publish(publisher, "bob", 1, packet_id + 1, "");
            node.take(publisher);
        };
        send(node, 1);
        assert_eq!(node.drink(client).len(), 4);
        let client = named(node, "client", "bob");
        send(node, 3);
        let got = node.drink(client);
        assert!(
            got.len() == 2 && got.iter().all(|line| line.contains(" bob ")),
            "{got:?}"
        );
        node.lose(client);
        send(node, 5);
        node.listener = ListenerId(1);
        let client = named(node, "client", "bob");
        send(node, 7);
        let got = node.drink(client);
        assert_eq!(got.iter().filter(|line| line.contains(" ann ")).count(), 2, "{got:?}");
    });
}

/// On an open listener a name has to be proven to count; without a proof it is as good as none.
#[test]
fn an_open_listener_asks_for_a_proof() {
    let config = EngineConfig {
        listeners: vec![
            ListenerRules::default(),
            ListenerRules {
                allow_anonymous: true,
                ask: true,
                named: false,
            },
        ],
        rights: vec![Some(Arc::new(Rules::for_open_listener())); 2],
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let filters = ["#", "+/#", "$SYS/#", "$SOL/#", "a/#"];
        let claimed = named(node, "claimed", "ann");
        let nobody = node.connect(V5, "nobody");
        for client in [claimed, nobody] {
            node.subscribe(client, &filters, 0);
            node.expect(client, &["SUBACK #1 [87, 87, 87, 87, 00]"]);
        }
        node.listener = ListenerId(1);
        let proven = node.connect_with(V5, "proven", |connect| connect.username = Some("ann"));
        node.answer_login(AuthOutcome::Accepted);
        node.expect(proven, &["CONNACK 00"]);
        node.subscribe(proven, &filters, 0);
        node.expect(proven, &["SUBACK #1 [00, 00, 00, 00, 00]"]);
        node.publish(nobody, "a/b", 0, 0, "");
        node.expect(claimed, &[r#"PUBLISH a/b q0 """#]);
        node.expect(proven, &[r#"PUBLISH a/b q0 """#]);
    });
}

/// A Client Identifier with a wildcard gets nothing by a pattern with `%c`, to read or to write.
#[test]
fn a_wildcard_in_a_name_widens_nothing() {
    in_each_node(limited(&["pattern readwrite of/%c/#"]), |node| {
        let victim = node.connect(V5, "victim");
        node.subscribed(victim, &["of/victim/#"], 0);
        for client_id in ["+", "#", "victim/x", "vic+im"] {
            let client = node.connect(V5, client_id);
            node.subscribe(client, &["#", "of/#", "of/victim/x/#"], 0);
            node.expect(client, &["SUBACK #1 [87, 87, 87]"]);
            node.publish(client, "of/victim/x/y", 1, 1, "");
            node.expect(client, &["PUBACK #1 87"]);
        }
        node.publish(victim, "of/victim/x/y", 0, 0, "");
        node.expect(victim, &[r#"PUBLISH of/victim/x/y q0 """#]);
    });
}

/// More Subscriptions than one tick looks at are judged by new rules at once, and after all have been looked at.
#[test]
fn a_change_does_not_wait_for_all_to_be_looked_at() {
    const MANY: usize = 3_000;
    let mut node = Node::new(1, limited(&["readwrite #"]));
    let clients: Vec<_> = (0..3).map(|n| node.connect(V5, &format!("c{n}"))).collect();
    let filters: Vec<String> = (0..MANY).map(|n| format!("t/{n}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    for &client in &clients {
        node.subscribed(client, &filters, 0);
    }
    node.reload(limited(&["write #", "read t/1"]));
    for _ in 0..2 {
        for topic in ["t/0", "t/1", "t/2999"] {
            node.publish(clients[0], topic, 0, 0, "");
        }
        for &client in &clients {
            node.expect(client, &[r#"PUBLISH t/1 q0 """#]);
        }
    }
    node.check();
}

/// A Session that was restored has the rights of its user at the listener of its latest connection.
#[test]
fn a_restart_keeps_whose_rights_they_are() {
    let config = EngineConfig {
        rights: vec![None, rules(&["ann: read ok", "write #"])],
        journal: true,
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        node.listener = ListenerId(1);
        let client = named(node, "client", "ann");
        node.subscribed(client, &["+"], 1);
        node.lose(client);
        let mut node = node.restart(node.engines.len() as u16, std::time::Duration::from_secs(1));
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "no", 1, 1, "");
        node.publish(publisher, "ok", 1, 2, "");
        assert_eq!(node.stats().deliver_unauthorized, 1);
        node.listener = ListenerId(1);
        let client = named(&mut node, "client", "ann");
        drop(node.take(client));
        assert_eq!(node.stats().stored_messages, 1);
    });
}

/// What was retained by somebody who may not publish it any more is not replayed, from whichever shard; it stays, and is
/// replayed again when the right is back, or when nobody asks for it. Nothing is left of who it was when it is gone.
#[test]
fn what_was_retained_without_a_right_is_not_replayed() {
    let lines = ["ann: write #", "bob: write #", "pattern write own/%c/#", "read #"];
    in_each_node(limited(&lines), |node| {
        let (ann, bob) = (named(node, "a", "ann"), named(node, "b", "bob"));
        let topics = ["r/1", "r/2", "r/3", "r/4"];
        let memory = node.stats().memory_bytes;
        for (n, topic) in topics.into_iter().enumerate() {
            node.retain(if n < 2 { ann } else { bob }, topic, 1, 1, "kept");
        }
        node.retain(bob, "own/b/x", 1, 1, "kept");
        let with_will = |node: &mut Node, topic: &'static str| {
            let client = node.connect_with(V5, "dying", move |connect| {
                let mut will = will(topic, b"kept", 1);
                will.retain = true;
                connect.username = Some("bob");
                connect.will = Some(will);
            });
            node.take(client);
            node.lose(client);
        };
        with_will(node, "r/will");
        let replayed = |node: &mut Node| {
            let late = node.connect(V5, "late");
            node.subscribe(late, &["r/+", "own/#"], 0);
            let mut got = node.take(late);
            assert!(got.remove(0).starts_with("SUBACK"));
            let mut topics: Vec<_> = got
                .iter()
                .map(|line| line.split(' ').nth(1).unwrap().to_owned())
                .collect();
            topics.sort();
            node.disconnect(late);
            topics
        };
        let all = ["own/b/x", "r/1", "r/2", "r/3", "r/4", "r/will"];
        assert_eq!(replayed(node), all);
        let before = node.stats().retained_unauthorized;
        let fewer = ["ann: write r/1", "bob: write r/3", "pattern write own/%c/#", "read #"];
        node.reload(limited(&fewer));
        assert_eq!(replayed(node), ["own/b/x", "r/1", "r/3"]);
        assert_eq!(
            (
                node.stats().retained_unauthorized - before,
                node.stats().retained_messages
            ),
            (3, 6)
        );
        node.reload(EngineConfig {
            check_retain_source: false,
            ..limited(&fewer)
        });
        assert_eq!(replayed(node), all);
        node.reload(limited(&lines));
        assert_eq!(replayed(node), all);
        for topic in all {
            node.retain(bob, topic, 0, 0, "");
        }
        for topic in topics {
            node.retain(ann, topic, 0, 0, "x");
            node.retain(ann, topic, 0, 0, "y");
            node.retain(ann, topic, 0, 0, "");
        }
        assert_eq!((node.stats().memory_bytes, node.stats().retained_messages), (memory, 0));
    });
}
