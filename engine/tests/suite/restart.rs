//! Nothing acknowledged is lost: engines that start from the records of others, as many as there are then, go on where
//! those stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sol_codec::{ReasonCode, RetainHandling};
use sol_engine::{EngineConfig, Record, RecordId, ReferenceState, SubscriptionRecord};

use crate::support::*;

const NOW: Duration = Duration::ZERO;

fn config() -> EngineConfig {
    EngineConfig {
        journal: true,
        inflight_max: 3,
        ..Default::default()
    }
}

/// Runs `prepare` in nodes of every size, restarts each into every size, and gives `test` what came back.
fn in_every_restart(prepare: impl Fn(&mut Node), away: Duration, test: impl Fn(&mut Node)) {
    in_each_node(config(), |node| {
        for shards in 1..=3 {
            let mut before = Node::new(node.engines.len() as u16, config());
            prepare(&mut before);
            let mut after = before.restart(shards, away);
            after.check();
            test(&mut after);
            after.check();
        }
    });
}

/// Session, Subscription with its options, queue, window with DUP, PUBREL, inbound identifiers: everything comes back.
#[test]
fn a_session_comes_back() {
    let prepare = |node: &mut Node| {
        let client = node.connect_durable(V5, "client");
        let mut rap = options(2);
        rap.retain_as_published = true;
        node.subscribe_with(client, &["t"], Some(77), rap);
        node.publish(client, "x", 2, 9, "inbound");
        let publisher = node.connect(V5, "publisher");
        for n in 1..=5 {
            node.publish(publisher, "t", 1 + n % 2, u16::from(n), &n.to_string());
            node.pubrel(publisher, u16::from(n));
        }
        node.pubrec(client, 1);
    };
    in_every_restart(prepare, NOW, |node| {
        let client = node.resume(V5, "client", 3_600);
        node.expect(
            client,
            &[
                "CONNACK 00 present",
                "PUBREL #1",
                r#"PUBLISH t q1 #2 dup ids[77] "2""#,
                r#"PUBLISH t q2 #3 dup ids[77] "3""#,
            ],
        );
        node.publish_with(client, "t", 2, 9, "inbound", |publish| publish.dup = true);
        node.pubrel(client, 9);
        node.expect(client, &["PUBREC #9", "PUBCOMP #9"]);
        node.pubcomp(client, 1);
        node.puback(client, 2);
        node.expect(
            client,
            &[r#"PUBLISH t q1 #4 ids[77] "4""#, r#"PUBLISH t q2 #5 ids[77] "5""#],
        );
        node.pubrec(client, 3);
        node.take(client);
        node.pubcomp(client, 3);
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "t", 0, 0, "after");
        node.expect(client, &[r#"PUBLISH t q0 retain ids[77] "after""#]);
    });
}

/// What a Subscription is due of the retained messages comes after a restart that cuts it short: all of it, beside what had
/// begun. Once it has come no restart sends it again; nor does one that comes behind UNSUBSCRIBE, or at QoS 0.
#[test]
fn an_open_replay_comes_back() {
    let prepare = |node: &mut Node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..9 {
            node.retain(publisher, &format!("r/{n}"), 1, 1, "kept");
            node.retain(publisher, &format!("gone/{n}"), 1, 1, "kept");
        }
        for (name, filter, level) in [("client", "r/+", 1), ("fickle", "gone/+", 1), ("zero", "gone/+", 0)] {
            let client = node.connect_durable(V5, name);
            node.subscribe_with(client, &[filter], Some(7), options(level));
            node.take(client);
            if name == "fickle" {
                node.unsubscribe(client, &[filter]);
            }
        }
    };
    in_every_restart(prepare, NOW, |node| {
        let expected: Vec<_> = (0..9)
            .map(|n| format!("PUBLISH r/{n} q1 # retain ids[7] \"kept\""))
            .collect();
        let mut shards = node.engines.len() as u16;
        for times in 1..=2 {
            let client = node.resume(V5, "client", 3_600);
            let mut got = node.drink(client);
            got.retain(|line| line.starts_with("PUBLISH") && !line.contains(" dup "));
            for line in &mut got {
                *line = line.replace(&format!("#{}", packet_id_of(line)), "#");
            }
            got.sort();
            let all = if times == 1 { expected.as_slice() } else { &[] };
            assert_eq!(got, all, "start {times}");
            for name in ["fickle", "zero"] {
                let client = node.resume(V5, name, 3_600);
                assert!(
                    !node
                        .drink(client)
                        .iter()
                        .any(|line| line.starts_with("PUBLISH") && !line.contains(" dup "))
                );
            }
            shards = shards % 3 + 1;
            *node = node.restart(shards, NOW);
        }
    });
}

/// [MQTT-3.3.1-9]: a replay that a restart cut short brings what is retained of a topic, though an earlier message of that topic
/// is owed: through a Subscription that has ended, one that overlaps, a Shared Subscription, or the same one.
#[test]
fn a_replay_that_comes_back_is_not_held_off_by_what_is_owed() {
    type Prepare = fn(&mut Node, Client, Client);
    let cases: [(&str, Prepare); 4] = [
        ("ended", |node, client, publisher| {
            node.subscribe(client, &["t"], 1);
            node.retain(publisher, "t", 1, 1, "old");
            node.unsubscribe(client, &["t"]);
            node.retain(publisher, "t", 1, 1, "new");
        }),
        ("overlapping", |node, client, publisher| {
            node.subscribe(client, &["+"], 1);
            node.retain(publisher, "t", 1, 1, "new");
        }),
        ("shared", |node, client, publisher| {
            node.subscribe(client, &["$share/g/t"], 1);
            node.retain(publisher, "t", 1, 1, "old");
            node.unsubscribe(client, &["$share/g/t"]);
            node.retain(publisher, "t", 1, 1, "new");
        }),
        ("the same", |node, client, publisher| {
            node.subscribe(client, &["t"], 1);
            node.retain(publisher, "t", 1, 1, "new");
        }),
    ];
    for (case, owe) in cases {
        let prepare = |node: &mut Node| {
            let publisher = node.connect(V5, "publisher");
            let client = node.connect_durable(V5, "client");
            node.subscribed(client, &["fill"], 1);
            for n in 1..=3 {
                node.publish(publisher, "fill", 1, n, "");
            }
            owe(node, client, publisher);
            node.subscribe_with(client, &["t"], Some(7), options(1));
        };
        in_every_restart(prepare, NOW, |node| {
            let client = node.resume(V5, "client", 3_600);
            let got = node.drink(client).join("\n");
            assert!(got.contains(r#"retain ids[7] "new""#), "{case}: {got}");
        });
    }
}

/// A replay is promised to no Subscription at QoS 0 and to no Shared Subscription: a record that says so, as only another program
/// writes one, is not followed at every start.
#[test]
fn a_replay_that_nobody_is_due_does_not_come_back() {
    let prepare = |node: &mut Node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "t", 1, 1, "kept");
        let client = node.connect_durable(V5, "client");
        node.subscribed(client, &["t"], 0);
        node.subscribed(client, &["$share/g/t"], 1);
        let mut records = node.store.records();
        records.retain_mut(|record| match record {
            Record::Subscription(_, subscription) => {
                subscription.options |= SubscriptionRecord::REPLAYS;
                true
            }
            _ => false,
        });
        assert_eq!(records.len(), 2);
        node.store.apply(&records);
    };
    in_every_restart(prepare, NOW, |node| {
        let client = node.resume(V5, "client", 3_600);
        node.expect(client, &["CONNACK 00 present"]);
    });
}

/// Retained messages come back, and the cleared ones do not.
#[test]
fn retained_messages_come_back() {
    let prepare = |node: &mut Node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..9 {
            node.retain(publisher, &format!("r/{n}"), n % 3, 1, "old");
            node.pubrel(publisher, 1);
            node.pubrel(publisher, 2);
            node.retain(
                publisher,
                &format!("r/{n}"),
                n % 3,
                2,
                if n % 2 == 0 { "new" } else { "" },
            );
        }
    };
    in_every_restart(prepare, NOW, |node| {
        assert_eq!(node.stats().retained_messages, 5);
        let client = node.connect(V5, "client");
        node.subscribe(client, &["r/+"], 0);
        let mut got = node.take(client);
        got.sort();
        let expected: Vec<_> = [0, 2, 4, 6, 8]
            .map(|n| format!("PUBLISH r/{n} q0 retain \"new\""))
            .into();
        assert_eq!(got[..5], expected);
        assert_eq!(got[5], "SUBACK #1 [00]");
    });
}

/// [MQTT-4.8.2-4]: what a member of a Shared Subscription was owed goes to another one when its Session ends after the restart:
/// what was queued, and QoS 1 that had begun; a QoS 2 exchange that had begun does not [MQTT-4.8.2-5].
#[test]
fn a_member_that_came_back_gives_back() {
    let prepare = |node: &mut Node| {
        let lost = node.connect_durable(V5, "lost");
        node.subscribed(lost, &["$share/g/t"], 2);
        let publisher = node.connect(V5, "publisher");
        for n in 1..=5 {
            node.publish(publisher, "t", 1 + n % 2, u16::from(n), &n.to_string());
        }
        node.lose(lost);
        let other = node.connect_durable(V5, "other");
        node.subscribed(other, &["$share/g/t"], 2);
        node.lose(other);
    };
    in_every_restart(prepare, NOW, |node| {
        node.connect(V5, "lost");
        let other = node.resume(V5, "other", 3_600);
        let got = node.take(other).join("\n");
        for (payload, comes) in [("1", false), ("2", true), ("3", false), ("4", true), ("5", true)] {
            assert_eq!(got.contains(&format!("{payload:?}")), comes, "{payload} in {got}");
        }
    });
}

/// [MQTT-4.1.0-2]: time goes on while the broker is down; who was connected counts from the restart.
#[test]
fn expiry_goes_on_while_the_broker_is_down() {
    let prepare = |node: &mut Node| {
        for name in ["away", "connected"] {
            let client = node.resume(V5, name, 100);
            node.take(client);
        }
        node.disconnect(Client(0));
        node.pass(Duration::from_secs(50));
    };
    in_every_restart(prepare, Duration::from_secs(40), |node| {
        node.pass(Duration::from_secs(9));
        let away = node.resume(V5, "away", 100);
        node.expect(away, &["CONNACK 00 present"]);
    });
    in_every_restart(prepare, Duration::from_secs(60), |node| {
        let away = node.resume(V5, "away", 100);
        node.expect(away, &["CONNACK 00"]);
        node.pass(Duration::from_secs(99));
        let connected = node.resume(V5, "connected", 100);
        node.expect(connected, &["CONNACK 00 present"]);
    });
}

/// [MQTT-3.1.2-8]: the broker's death is a lost connection: Wills are published, to Subscriptions on every shard, at the
/// restart or when what is left of their delay has passed.
#[test]
fn wills_are_published_after_a_restart() {
    let prepare = |node: &mut Node| {
        let watcher = node.connect_durable(V5, "watcher");
        node.subscribed(watcher, &["w/#"], 1);
        for (name, topic, delay, expiry) in [
            ("now", "w/now", 0, 0),
            ("session", "w/session", 0, 1_000),
            ("later", "w/later", 100, 1_000),
            ("ends", "w/ends", 100, 30),
        ] {
            let client = node.connect_with(V5, name, move |connect| {
                let mut will = will(topic, b"gone", 1);
                will.properties.will_delay_interval = delay;
                connect.will = Some(will);
                connect.properties.session_expiry_interval = Some(expiry);
            });
            node.take(client);
        }
        let clean = node.connect_with(V5, "clean", |connect| connect.will = Some(will("w/clean", b"", 1)));
        node.disconnect(clean);
    };
    in_every_restart(prepare, Duration::from_secs(5), |node| {
        let watcher = node.resume(V5, "watcher", 3_600);
        let topics = |lines: Vec<String>| -> Vec<String> {
            let mut topics: Vec<_> = lines
                .iter()
                .filter_map(|line| line.strip_prefix("PUBLISH ")?.split(' ').next().map(Into::into))
                .collect();
            topics.sort();
            topics
        };
        assert_eq!(topics(node.drink(watcher)), ["w/now", "w/session"]);
        node.pass(Duration::from_secs(29));
        assert!(node.drink(watcher).is_empty());
        node.pass(Duration::from_secs(2));
        assert_eq!(topics(node.drink(watcher)), ["w/ends"]);
        node.pass(Duration::from_secs(70));
        assert_eq!(topics(node.drink(watcher)), ["w/later"]);
    });
}

/// A Will that was published before the broker died is not published again, and its Session's time goes on.
#[test]
fn a_published_will_is_not_published_again() {
    let prepare = |node: &mut Node| {
        let watcher = node.connect_durable(V5, "watcher");
        node.subscribed(watcher, &["w"], 1);
        let client = node.connect_with(V5, "client", |connect| {
            let mut will = will("w", b"gone", 1);
            will.properties.will_delay_interval = 50;
            connect.will = Some(will);
            connect.properties.session_expiry_interval = Some(100);
        });
        node.take(client);
        node.lose(client);
        node.pass(Duration::from_secs(60));
    };
    in_every_restart(prepare, Duration::from_secs(45), |node| {
        let watcher = node.resume(V5, "watcher", 3_600);
        let got = node.drink(watcher);
        assert_eq!(got, ["CONNACK 00 present", r#"PUBLISH w q1 #1 dup "gone""#]);
        let client = node.resume(V5, "client", 100);
        node.expect(client, &["CONNACK 00"]);
    });
}

/// A durable Session that is resumed with expiry 0 ends with its connection, also when that is the broker's end.
#[test]
fn a_session_that_is_durable_no_more() {
    let prepare = |node: &mut Node| {
        let client = node.connect_durable(V5, "client");
        node.subscribed(client, &["t", "$share/g/t"], 2);
        let publisher = node.connect(V5, "publisher");
        for n in 1..=6 {
            node.publish(publisher, "t", 1 + n % 2, u16::from(n), "x");
        }
        node.publish(client, "x", 2, 9, "");
        let client = node.resume(V5, "client", 0);
        assert_eq!(node.take(client)[0], "CONNACK 00 present");
    };
    in_every_restart(prepare, NOW, |node| {
        assert_eq!(node.store.facts(), Vec::<String>::new());
        assert_eq!(node.stats().memory_bytes, 0);
        let client = node.resume(V5, "client", 0);
        node.expect(client, &["CONNACK 00"]);
    });
}

/// Shared Subscriptions come back with their members on whatever shard.
#[test]
fn shared_subscriptions_come_back() {
    let prepare = |node: &mut Node| {
        for n in 0..3 {
            let client = node.connect_durable(V5, &format!("m{n}"));
            node.subscribed(client, &["$share/g/t"], 1);
        }
    };
    in_every_restart(prepare, NOW, |node| {
        let publisher = node.connect(V5, "publisher");
        for n in 1..=9 {
            node.publish(publisher, "t", 1, n, "x");
        }
        let acks: Vec<_> = (1..=9).map(|n| format!("PUBACK #{n}")).collect();
        assert_eq!(node.take(publisher), acks);
        let mut count = 0;
        for n in 0..3 {
            let client = node.resume(V5, &format!("m{n}"), 100);
            count += node
                .drink(client)
                .iter()
                .filter(|line| line.starts_with("PUBLISH"))
                .count();
        }
        assert_eq!(count, 9);
    });
}

/// A message whose references were all settled before another was made is written again with that one.
#[test]
fn a_body_is_written_with_each_reference() {
    let prepare = |node: &mut Node| {
        let first = node.connect_durable(V5, "first");
        node.subscribed(first, &["$share/g/t"], 1);
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, "x");
        let second = node.connect_durable(V5, "second");
        node.subscribed(second, &["$share/g/t"], 1);
        node.lose(first);
        node.lose(second);
    };
    in_every_restart(prepare, NOW, |node| {
        let all: Vec<_> = ["first", "second"]
            .map(|name| {
                let client = node.resume(V5, name, 100);
                node.drink(client)
            })
            .concat();
        assert_eq!(all.iter().filter(|line| line.contains("\"x\"")).count(), 1, "{all:?}");
    });
}

/// Where the end of a record waits for other shards, what takes its place may be kept before: then one of them is there
/// after a restart, and the other is deleted. Of two Sessions that is the later one, which its client was not told of; of
/// two Subscriptions to a filter and two messages retained for a topic it is the former.
#[test]
fn of_two_records_one_stays() {
    let later = |id: &mut RecordId| *id = RecordId(id.0 + 1_000);
    let prepare = |node: &mut Node| {
        let client = node.connect_durable(V5, "client");
        node.subscribed(client, &["t"], 1);
        node.retain(client, "r", 1, 1, "x");
        let mut doubles = node.store.records();
        for record in &mut doubles {
            match record {
                Record::Session(id, session) => {
                    later(id);
                    session.expiry_interval = 7;
                }
                Record::Subscription(id, subscription) => {
                    later(id);
                    subscription.options = 2;
                }
                Record::Retained { id, .. } => later(id),
                _ => {}
            }
        }
        node.store.apply(&doubles);
        assert_eq!(node.store.records().len(), 7);
    };
    in_every_restart(prepare, NOW, |node| {
        let stats = node.stats();
        assert_eq!(
            (stats.clients_disconnected, stats.subscriptions, stats.retained_messages),
            (1, 1, 1)
        );
        let records = node.store.records();
        assert_eq!(records.len(), 4);
        for record in records {
            match record {
                Record::Session(_, session) => assert_ne!(session.expiry_interval, 7),
                Record::Subscription(_, subscription) => assert_eq!(subscription.options, 2),
                Record::Retained { id, .. } => assert!(id.0 & RecordId::COUNT > 1_000),
                _ => {}
            }
        }
    });
}

/// When everything has ended, the store holds nothing.
#[test]
fn the_store_is_empty_at_the_end() {
    let prepare = |node: &mut Node| {
        let clients = [node.connect_durable(V5, "a"), node.connect_durable(V311, "b")];
        for client in clients {
            node.subscribed(client, &["t/#", "$share/g/t/x"], 2);
        }
        for n in 1..=8 {
            node.publish(clients[0], "t/x", n % 3, u16::from(n % 3), "x");
            node.retain(clients[1], "t/r", n % 3, u16::from(n % 3), "x");
        }
        node.retain(clients[1], "t/r", 0, 0, "");
    };
    in_every_restart(prepare, NOW, |node| {
        let a = node.resume(V5, "a", 100);
        node.drink(a);
        node.disconnect_with(a, ReasonCode::Success, Some(0));
        let b = node.connect(V311, "b");
        node.disconnect(b);
        node.run();
        assert_eq!(node.store.records(), Vec::new());
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Op {
    Connect {
        who: usize,
        clean: bool,
        durable: bool,
    },
    Lose {
        who: usize,
    },
    Subscribe {
        who: usize,
        filter: usize,
        level: u8,
        id: u32,
    },
    Unsubscribe {
        who: usize,
        filter: usize,
    },
    Publish {
        who: usize,
        topic: usize,
        level: u8,
        retain: bool,
        empty: bool,
        packet_id: u16,
    },
    Release {
        who: usize,
        packet_id: u16,
    },
    Acknowledge {
        who: usize,
        count: usize,
    },
}

const CLIENTS: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const TOPICS: [&str; 4] = ["a", "a/b", "a/c", "d"];
const FILTERS: [&str; 5] = ["a", "a/+", "a/#", "d", "+/b"];

fn op() -> impl Strategy<Value = Op> {
    let who = 0..CLIENTS.len();
    prop_oneof![
        2 => (who.clone(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(who, clean, durable)| Op::Connect { who, clean, durable }),
        1 => who.clone().prop_map(|who| Op::Lose { who }),
        3 => (who.clone(), 0..FILTERS.len(), 0..3u8, 0..3u32)
            .prop_map(|(who, filter, level, id)| Op::Subscribe { who, filter, level, id }),
        1 => (who.clone(), 0..FILTERS.len()).prop_map(|(who, filter)| Op::Unsubscribe { who, filter }),
        8 => (who.clone(), 0..TOPICS.len(), 0..3u8, prop::bool::weighted(0.3), prop::bool::weighted(0.2), 1..5u16)
            .prop_map(|(who, topic, level, retain, empty, packet_id)| Op::Publish {
                who, topic, level, retain, empty, packet_id
            }),
        2 => (who.clone(), 1..5u16).prop_map(|(who, packet_id)| Op::Release { who, packet_id }),
        4 => (who, 1..5usize).prop_map(|(who, count)| Op::Acknowledge { who, count }),
    ]
}

/// The four clients as a run of operations drives them.
#[derive(Default)]
struct Run {
    connected: [Option<Client>; CLIENTS.len()],
    unread: [std::collections::VecDeque<String>; CLIENTS.len()],
    published: usize,
    /// Whether a Subscription is to bring what is retained.
    replays: bool,
}

impl Run {
    fn act(&mut self, node: &mut Node, op: Op) {
        match op {
            Op::Connect { who, clean, durable } => self.connect(node, who, clean, durable),
            Op::Lose { who } => {
                if let Some(client) = self.connected[who].take() {
                    node.lose(client);
                    self.unread[who].clear();
                }
            }
            Op::Subscribe { who, filter, level, id } => {
                if let Some(client) = self.connected[who] {
                    let id = (id > 0 && version(who) == V5).then_some(id);
                    let mut options = options(level);
                    if !self.replays {
                        options.retain_handling = RetainHandling::DoNotSend;
                    }
                    node.subscribe_with(client, &[FILTERS[filter]], id, options);
                }
            }
            Op::Unsubscribe { who, filter } => {
                if let Some(client) = self.connected[who] {
                    node.unsubscribe(client, &[FILTERS[filter]]);
                }
            }
            Op::Publish {
                who,
                topic,
                level,
                retain,
                empty,
                packet_id,
            } => {
                if let Some(client) = self.connected[who] {
                    self.published += 1;
                    let payload = if empty {
                        String::new()
                    } else {
                        self.published.to_string()
                    };
                    let packet_id = if level > 0 { packet_id } else { 0 };
                    node.publish_with(client, TOPICS[topic], level, packet_id, &payload, move |publish| {
                        publish.retain = retain;
                    });
                }
            }
            Op::Release { who, packet_id } => {
                if let Some(client) = self.connected[who] {
                    node.pubrel(client, packet_id);
                }
            }
            Op::Acknowledge { who, count } => {
                if let Some(client) = self.connected[who] {
                    for _ in 0..count {
                        self.unread[who].extend(node.take(client));
                        let Some(line) = self.unread[who].pop_front() else {
                            break;
                        };
                        node.acknowledge(client, &line);
                    }
                }
            }
        }
    }

    fn connect(&mut self, node: &mut Node, who: usize, clean: bool, durable: bool) {
        let version = version(who);
        let client = node.connect_with(version, CLIENTS[who], move |connect| {
            connect.clean_start = clean;
            connect.properties.session_expiry_interval = (version == V5 && durable).then_some(1_000);
        });
        self.connected[who] = Some(client);
        self.unread[who].clear();
    }

    /// What everybody finds who comes back now: Session, messages, Subscriptions, identifiers and retained messages.
    fn findings(&mut self, node: &mut Node) -> Vec<(String, Vec<String>)> {
        let mut all = Vec::new();
        let clients: Vec<_> = (0..CLIENTS.len())
            .map(|who| {
                let client = node.resume(version(who), CLIENTS[who], 1_000);
                all.push((format!("{} comes back", CLIENTS[who]), node.drink(client)));
                client
            })
            .collect();
        for (who, &client) in clients.iter().enumerate() {
            for packet_id in 1..5 {
                node.pubrel(client, packet_id);
            }
            all.push((format!("{} releases", CLIENTS[who]), node.take(client)));
        }
        let probe = node.connect(V5, "probe");
        for (n, topic) in TOPICS.into_iter().enumerate() {
            node.publish(probe, topic, 2, n as u16 + 1, "probe");
            for (who, &client) in clients.iter().enumerate() {
                all.push((format!("{} gets {topic}", CLIENTS[who]), node.drink(client)));
            }
        }
        node.subscribe(probe, &["#"], 0);
        let mut retained = node.take(probe);
        retained.sort();
        all.push(("retained".into(), retained));
        all
    }

    /// The same with the Packet Identifiers that the broker chose numbered by their first use: those of new messages are
    /// free to differ.
    fn renumbered(findings: Vec<(String, Vec<String>)>) -> Vec<(String, Vec<String>)> {
        let mut numbers: BTreeMap<(String, u16), usize> = BTreeMap::new();
        let mut renumber = |name: &str, line: String| {
            let id = packet_id_of(&line);
            if id == 0 || !(line.starts_with("PUBLISH") || line.starts_with("PUBREL")) {
                return line;
            }
            let next = numbers.len();
            let number = *numbers.entry((name.to_owned(), id)).or_insert(next);
            line.replace(&format!("#{id}"), &format!("#n{number}"))
        };
        let mut renumber_all = |what: String, lines: Vec<String>| {
            let name = what.split(' ').next().unwrap_or_default().to_owned();
            let lines = lines.into_iter().map(|line| renumber(&name, line)).collect();
            (what, lines)
        };
        findings
            .into_iter()
            .map(|(what, lines)| renumber_all(what, lines))
            .collect()
    }
}

const fn version(who: usize) -> sol_codec::ProtocolVersion {
    if who.is_multiple_of(2) { V5 } else { V311 }
}

/// What the Sessions that there are have been sent since they began, and their Subscriptions.
#[derive(Default)]
struct Sent {
    publishes: [Vec<(String, String)>; CLIENTS.len()],
    subscriptions: [BTreeMap<usize, u8>; CLIENTS.len()],
}

impl Sent {
    /// Looks at what an operation has brought.
    fn note(&mut self, node: &mut Node, run: &mut Run, op: Op) {
        for (who, client) in run.connected.iter().enumerate() {
            let Some(client) = *client else { continue };
            let lines = node.take(client);
            self.note_lines(who, &lines);
            run.unread[who].extend(lines);
        }
        match op {
            Op::Subscribe { who, filter, level, .. } if run.connected[who].is_some() => {
                self.subscriptions[who].insert(filter, level);
            }
            Op::Unsubscribe { who, filter } if run.connected[who].is_some() => {
                self.subscriptions[who].remove(&filter);
            }
            _ => {}
        }
    }

    fn note_lines(&mut self, who: usize, lines: &[String]) {
        for line in lines {
            if line.starts_with("CONNACK") && !line.contains("present") {
                self.publishes[who].clear();
                self.subscriptions[who].clear();
            } else if line.starts_with("PUBLISH") {
                let topic = line.split(' ').nth(1).unwrap();
                self.publishes[who].push((topic.to_owned(), payload_of(line)));
            }
        }
    }

    fn has(&self, who: usize, topic: &str, payload: &str) -> bool {
        self.publishes[who].iter().any(|(t, p)| t == topic && p == payload)
    }

    /// Whether a message on this topic is promised to a client.
    fn is_due(&self, who: usize, topic: &str) -> bool {
        self.subscriptions[who].iter().any(|(&filter, &level)| {
            let matches = match FILTERS[filter] {
                "a/+" => ["a/b", "a/c"].contains(&topic),
                "a/#" => topic.starts_with('a'),
                "+/b" => topic == "a/b",
                same => topic == same,
            };
            level > 0 && matches
        })
    }
}

fn payload_of(line: &str) -> String {
    line.split('"').nth(1).unwrap().to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    /// [MQTT-3.3.1-9]: after any operations and two deaths each Session has been sent what is retained at QoS 1 or 2 and one of its
    /// Subscriptions is due: as it was published or in a replay, however far those had come.
    #[test]
    fn what_is_retained_comes_through_deaths(
        ops in prop::collection::vec(op(), 1..60),
        later in prop::collection::vec(op(), 0..30),
        shards in (1..4u16, 1..4u16, 1..4u16),
    ) {
        // So that a replay is open for long.
        let config = EngineConfig { inflight_max: 1, ..config() };
        let mut node = Node::new(shards.0, config);
        let mut run = Run { replays: true, ..Run::default() };
        let mut sent = Sent::default();
        for (ops, next) in [(&ops, shards.1), (&later, shards.2)] {
            for &op in ops {
                // One by one, so that what each acknowledgement brings is seen.
                let (op, times) = match op {
                    Op::Acknowledge { who, count } => (Op::Acknowledge { who, count: 1 }, count),
                    op => (op, 1),
                };
                for _ in 0..times {
                    run.act(&mut node, op);
                    sent.note(&mut node, &mut run, op);
                }
            }
            node = node.restart(next, NOW);
            run.connected = Default::default();
            run.unread = Default::default();
            node.check();
        }
        for (who, name) in CLIENTS.into_iter().enumerate() {
            let client = node.resume(version(who), name, 1_000);
            let lines = node.drink(client);
            sent.note_lines(who, &lines);
        }
        let probe = node.connect(V5, "probe");
        node.subscribe(probe, &["#"], 2);
        for line in node.drink(probe) {
            let topic = line.split(' ').nth(1).unwrap();
            if !line.starts_with("PUBLISH") || line.contains(" q0 ") {
                continue;
            }
            for (who, name) in CLIENTS.into_iter().enumerate() {
                let payload = payload_of(&line);
                let is_lost = sent.is_due(who, topic) && !sent.has(who, topic, &payload);
                prop_assert!(!is_lost, "{name} never got {line}");
            }
        }
    }

    /// After any operations, a broker that died and came back, twice, with any numbers of shards, and one that only lost
    /// its connections cannot be told apart by any client.
    #[test]
    fn a_restart_is_a_loss_of_connections(
        ops in prop::collection::vec(op(), 1..60),
        later in prop::collection::vec(op(), 0..20),
        shards in (1..4u16, 1..4u16, 1..4u16),
    ) {
        let mut lives = Node::new(shards.0, config());
        let mut dies = Node::new(shards.0, config());
        let (mut living, mut dying) = (Run::default(), Run::default());
        for (ops, next) in [(&ops, shards.1), (&later, shards.2)] {
            for &op in ops {
                living.act(&mut lives, op);
                dying.act(&mut dies, op);
            }
            for who in 0..CLIENTS.len() {
                living.act(&mut lives, Op::Lose { who });
            }
            dies = dies.restart(next, NOW);
            dying.connected = Default::default();
            dying.unread = Default::default();
            dies.check();
            prop_assert_eq!(lives.store.facts(), dies.store.facts());
        }
        let (lived, died) = (living.findings(&mut lives), dying.findings(&mut dies));
        prop_assert_eq!(Run::renumbered(lived), Run::renumbered(died));
        lives.check();
        dies.check();
        prop_assert_eq!(lives.store.facts(), dies.store.facts());
    }
}

/// Of two QoS 2 messages the later one may be known as sent, and the earlier one not: then neither was, and they come in their
/// order [MQTT-4.6.0-5].
#[test]
fn what_was_begun_out_of_order_comes_in_order() {
    let prepare = |node: &mut Node| {
        let client = node.connect_durable(V5, "client");
        node.subscribed(client, &["t"], 2);
        let publisher = node.connect(V5, "publisher");
        for n in 1..=3 {
            node.publish(publisher, "t", 2, n, &n.to_string());
        }
        node.take(client);
        let mut records = node.store.records();
        let state = |record: &mut Record| match record {
            Record::Reference(_, reference) => Some(std::mem::replace(&mut reference.state, ReferenceState::Queued)),
            _ => None,
        };
        let states: Vec<_> = records.iter_mut().filter_map(state).collect();
        assert!(states.iter().all(|state| matches!(state, ReferenceState::Sent(_))) && states.len() == 3);
        let last = records
            .iter_mut()
            .rfind(|record| matches!(record, Record::Reference(..)));
        if let Some(Record::Reference(_, reference)) = last {
            reference.state = states[2];
        }
        node.store.apply(&records);
    };
    in_every_restart(prepare, NOW, |node| {
        let client = node.resume(V5, "client", 100);
        let all = node.drink(client);
        let payloads: Vec<_> = all.iter().filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!(payloads, ["1", "2", "3"], "{all:?}");
        assert!(!all.iter().any(|line| line.contains("dup")), "{all:?}");
    });
}
