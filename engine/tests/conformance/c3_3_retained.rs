//! Section 3.3.1.3: retained messages, and how a new Subscription gets them (design: never truncated, nothing stale after
//! something fresh, nothing after its clearing).

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use sol_codec::{RetainHandling, SubscriptionOptions};
use sol_engine::EngineConfig;

use crate::support::*;

fn handling(level: u8, retain_handling: RetainHandling) -> SubscriptionOptions {
    SubscriptionOptions {
        retain_handling,
        ..options(level)
    }
}

/// A new Subscription gets the last retained message of each matching topic with RETAIN 1; what comes live later has
/// RETAIN 0.
///
/// Proves 5.0: MQTT-3.3.1-9, MQTT-3.3.1-12; 3.1.1: MQTT-3.3.1-5, MQTT-3.3.1-6, MQTT-3.3.1-8, MQTT-3.3.1-9.
#[test]
fn retained_messages_are_replayed() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let publisher = node.connect(version, "publisher");
            node.retain(publisher, "r/1", 0, 0, "old");
            node.retain(publisher, "r/1", 0, 0, "one");
            node.retain(publisher, "r/2", 1, 3, "two");
            let subscriber = node.connect(version, "subscriber");
            node.subscribe(subscriber, &["r/#"], 1);
            let mut got = node.take(subscriber);
            got[1..].sort();
            assert_eq!(
                got,
                [
                    "SUBACK #1 [01]",
                    r#"PUBLISH r/1 q0 retain "one""#,
                    r#"PUBLISH r/2 q1 #1 retain "two""#
                ]
            );
            node.retain(publisher, "r/1", 0, 0, "three");
            node.expect(subscriber, &[r#"PUBLISH r/1 q0 "three""#]);
        }
    });
}

/// RETAIN 1 replaces, at QoS 0 too, an empty payload clears and is not kept, RETAIN 0 changes nothing; whoever publishes.
///
/// Proves 5.0: MQTT-3.3.1-5, MQTT-3.3.1-6, MQTT-3.3.1-7, MQTT-3.3.1-8; 3.1.1: MQTT-3.3.1-5, MQTT-3.3.1-7,
/// MQTT-3.3.1-10, MQTT-3.3.1-11, MQTT-3.3.1-12.
#[test]
fn retained_state_follows_the_last_publish() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let publishers = [
                node.connect(version, "a"),
                node.connect(version, "b"),
                node.connect(version, "c"),
            ];
            let now = |node: &mut Node| {
                let client = node.connect(version, "reader");
                node.subscribe(client, &["t"], 2);
                let got = node.drink(client);
                node.disconnect(client);
                got.into_iter()
                    .filter(|line| line.starts_with("PUBLISH"))
                    .collect::<Vec<_>>()
            };
            assert!(now(node).is_empty());
            node.retain(publishers[0], "t", 0, 0, "one");
            assert_eq!(now(node), [r#"PUBLISH t q0 retain "one""#]);
            node.retain(publishers[1], "t", 2, 1, "two");
            assert_eq!(now(node), [r#"PUBLISH t q2 #1 retain "two""#]);
            node.publish(publishers[2], "t", 1, 1, "passing");
            node.publish(publishers[2], "t", 1, 2, "");
            assert_eq!(now(node), [r#"PUBLISH t q2 #1 retain "two""#]);
            node.retain(publishers[0], "t", 0, 0, "three");
            assert_eq!(now(node), [r#"PUBLISH t q0 retain "three""#]);
            node.retain(publishers[2], "t", 1, 3, "");
            assert!(now(node).is_empty());
            node.retain(publishers[0], "t", 1, 4, "");
            assert!(now(node).is_empty());
            assert_eq!(node.stats().retained_messages, 0);
        }
    });
}

/// The clearing message is passed on to who is there, like any other.
///
/// Proves 5.0: MQTT-3.3.1-6, MQTT-3.3.1-12, MQTT-3.3.1-13; 3.1.1: MQTT-3.3.1-9, MQTT-3.3.1-10.
#[test]
fn clearing_is_passed_on() {
    in_every_node(|node| {
        let mut rap = options(1);
        rap.retain_as_published = true;
        for version in [V311, V5] {
            let plain = node.connect(version, "plain");
            let as_published = node.connect(V5, "as-published");
            node.subscribed(plain, &["t"], 1);
            node.subscribe_with(as_published, &["t"], None, rap);
            node.take(as_published);
            let publisher = node.connect(version, "publisher");
            node.retain(publisher, "t", 1, 1, "x");
            node.retain(publisher, "t", 1, 2, "");
            node.expect(plain, &[r#"PUBLISH t q1 #1 "x""#, r#"PUBLISH t q1 #2 """#]);
            node.expect(
                as_published,
                &[r#"PUBLISH t q1 #1 retain "x""#, r#"PUBLISH t q1 #2 retain """#],
            );
            let late = node.connect(version, "late");
            node.subscribe(late, &["t"], 1);
            node.expect(late, &["SUBACK #1 [01]"]);
        }
    });
}

/// Retain As Published keeps the flag as it came, set or not.
///
/// Proves 5.0: MQTT-3.3.1-13.
#[test]
fn retain_as_published() {
    in_every_node(|node| {
        let mut rap = options(0);
        rap.retain_as_published = true;
        let client = node.connect(V5, "client");
        node.subscribe_with(client, &["t"], None, rap);
        let publisher = node.connect(V311, "publisher");
        node.publish(publisher, "t", 0, 0, "no");
        node.retain(publisher, "t", 0, 0, "yes");
        node.expect(
            client,
            &["SUBACK #1 [00]", r#"PUBLISH t q0 "no""#, r#"PUBLISH t q0 retain "yes""#],
        );
    });
}

/// Retain Handling 0, 1 and 2, for new and for existing Subscriptions, exact and wildcard.
///
/// Proves 5.0: MQTT-3.3.1-9, MQTT-3.3.1-10, MQTT-3.3.1-11, MQTT-3.8.4-4.
#[test]
fn retain_handling() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "r/1", 0, 0, "x");
        for filter in ["r/1", "r/+", "#"] {
            for (handling_value, first, second) in [
                (RetainHandling::SendAtSubscribe, true, true),
                (RetainHandling::SendIfNew, true, false),
                (RetainHandling::DoNotSend, false, false),
            ] {
                let client = node.connect(V5, "client");
                for expected in [first, second] {
                    node.subscribe_with(client, &[filter], Some(3), handling(0, handling_value));
                    let lines: &[&str] = if expected {
                        &["SUBACK #1 [00]", r#"PUBLISH r/1 q0 retain ids[3] "x""#]
                    } else {
                        &["SUBACK #1 [00]"]
                    };
                    node.expect(client, lines);
                }
            }
        }
    });
}

/// Section 4.8.2: Shared Subscriptions get no retained messages.
#[test]
fn shared_subscriptions_get_no_retained_messages() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "t", 0, 0, "x");
        let client = node.connect(V5, "client");
        node.subscribe(client, &["$share/g/t", "$share/g/#"], 0);
        node.expect(client, &["SUBACK #1 [00, 00]"]);
    });
}

/// A filter that begins with a wildcard gets no retained messages of `$` topics.
///
/// Proves 5.0: MQTT-4.7.2-1; 3.1.1: MQTT-4.7.2-1.
#[test]
fn wildcards_do_not_reach_dollar_topics() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "$x/y", 0, 0, "dollar");
        node.retain(publisher, "x/y", 0, 0, "plain");
        for (filter, expected) in [
            ("#", r#"PUBLISH x/y q0 retain "plain""#),
            ("+/y", r#"PUBLISH x/y q0 retain "plain""#),
            ("$x/#", r#"PUBLISH $x/y q0 retain "dollar""#),
        ] {
            for version in [V311, V5] {
                let client = node.connect(version, "client");
                node.subscribe(client, &[filter], 0);
                node.expect(client, &["SUBACK #1 [00]", expected]);
            }
        }
    });
}

/// Topics of publishes in a client's lines, with the last payload of each, and how many there were.
fn payloads(lines: &[String]) -> (BTreeMap<String, String>, usize) {
    let mut last = BTreeMap::new();
    let mut count = 0;
    for line in lines.iter().filter(|line| line.starts_with("PUBLISH ")) {
        let topic = line.split(' ').nth(1).unwrap().to_owned();
        let payload = line.split('"').nth(1).unwrap().to_owned();
        last.insert(topic, payload);
        count += 1;
    }
    (last, count)
}

/// Three thousand retained messages reach a new Subscription one and all, whatever its Receive Maximum.
#[test]
fn a_large_replay_is_not_truncated() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..3_000 {
            node.retain(publisher, &format!("r/{}/{n}", n % 7), 1, 1, &format!("v{n}"));
        }
        node.take(publisher);
        for (maximum, level) in [(1, 1), (10, 2), (65_535, 0)] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.properties.receive_maximum = NonZeroU16::new(maximum);
            });
            node.take(client);
            node.subscribe(client, &["r/#"], level);
            let first = node.take(client);
            assert_eq!(first[0], format!("SUBACK #1 [{level:02x}]"));
            if level > 0 {
                assert_eq!(first.len(), 1 + usize::from(maximum), "the window is kept");
            }
            first.iter().for_each(|line| node.acknowledge(client, line));
            let mut lines = first;
            lines.extend(node.drink(client));
            let (last, count) = payloads(&lines);
            assert_eq!((last.len(), count), (3_000, 3_000));
            assert!(
                last.iter()
                    .all(|(topic, payload)| topic.ends_with(&format!("/{}", &payload[1..])))
            );
            node.disconnect(client);
        }
    });
}

/// While a replay runs, live updates and clears pass it: nothing stale comes after something fresh, and nothing that
/// was cleared comes back. Also where more topics are updated than a replay remembers.
#[test]
fn live_updates_pass_a_replay() {
    for replay_seen_max in [1_000, 20, 0] {
        let config = EngineConfig {
            replay_seen_max,
            retained_page_max: 16,
            ..Default::default()
        };
        in_each_node(config, |node| {
            let publisher = node.connect(V5, "publisher");
            for n in 0..300 {
                node.retain(publisher, &format!("r/{n}"), 1, 1, "old");
            }
            let client = node.connect_with(V5, "client", |connect| {
                connect.properties.receive_maximum = NonZeroU16::new(3);
            });
            node.take(client);
            node.subscribe(client, &["r/#"], 1);
            let mut lines = Vec::new();
            let mut truth: BTreeMap<String, String> = (0..300).map(|n| (format!("r/{n}"), "old".into())).collect();
            for step in 0..300 {
                // Each step: one update or clear, then the client takes and acknowledges one message.
                let topic = format!("r/{}", step * 7 % 300);
                let payload = if step % 5 == 0 {
                    String::new()
                } else {
                    format!("new{step}")
                };
                node.retain(publisher, &topic, 1, 1, &payload);
                truth.insert(topic, payload);
                if let Some(line) = node.clients[client.0].inbox.pop_front() {
                    node.acknowledge(client, &line);
                    lines.push(line);
                }
            }
            let rest = node.take(client);
            rest.iter().for_each(|line| node.acknowledge(client, line));
            lines.extend(rest);
            lines.extend(node.drink(client));
            let (last, _) = payloads(&lines);
            for (topic, payload) in &truth {
                let got = last.get(topic).map_or("", String::as_str);
                assert_eq!(got, payload, "{topic} with {replay_seen_max} remembered");
            }
            assert_eq!(node.stats().stored_messages, 0);
        });
    }
}

/// A replay of more bytes than one turn may send goes on after the flush, at every QoS.
#[test]
fn a_replay_of_many_bytes_goes_on_after_the_flush() {
    let config = EngineConfig {
        unsent_bytes_max: 20_000,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..100 {
            node.retain(publisher, &format!("r/{n}"), 1, 1, &"x".repeat(1_000));
        }
        for level in 0..=2 {
            let client = node.connect(V311, "client");
            node.subscribe(client, &["r/#"], level);
            let (last, count) = payloads(&node.drink(client));
            assert_eq!((last.len(), count), (100, 100), "at QoS {level}");
        }
    });
}

/// A replay waits while its client is congested, and goes on when it has drained.
#[test]
fn a_replay_waits_for_a_congested_client() {
    let config = EngineConfig {
        retained_page_max: 4,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..50 {
            node.retain(publisher, &format!("r/{n}"), 0, 0, "x");
        }
        let client = node.connect(V5, "client");
        node.congest(client, 3 << 20);
        node.subscribe(client, &["r/#"], 0);
        node.expect(client, &["SUBACK #1 [00]"]);
        node.drain(client);
        assert_eq!(payloads(&node.take(client)).1, 50);
    });
}

/// UNSUBSCRIBE ends a replay; the replay of another Subscription of the client goes on; nothing stays charged when the
/// messages have been cleared.
///
/// Proves 5.0: MQTT-3.3.1-7.
#[test]
fn unsubscribing_ends_a_replay() {
    let config = EngineConfig {
        retained_page_max: 8,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..100 {
            node.retain(publisher, &format!("r/{n}"), 1, 1, "x");
        }
        let client = node.connect_with(V5, "client", |connect| {
            connect.properties.receive_maximum = NonZeroU16::new(2);
        });
        node.take(client);
        node.subscribe_with(client, &["r/#"], Some(1), options(1));
        node.subscribe_with(client, &["r/+"], Some(2), options(1));
        node.unsubscribe(client, &["r/#"]);
        for n in 0..100 {
            // The pages at hand are the last to hold these.
            node.retain(publisher, &format!("r/{n}"), 1, 1, if n % 2 == 0 { "" } else { "y" });
        }
        let lines = node.drink(client);
        let of = |id: &str| {
            lines
                .iter()
                .filter(|line| line.contains(id) && line.contains(" retain "))
                .count()
        };
        assert!(of("ids[1]") <= 2 + 2, "{lines:?}");
        let (last, _) = payloads(&lines);
        for n in 0..100 {
            let got = last.get(&format!("r/{n}")).map_or("", String::as_str);
            assert_eq!(got, if n % 2 == 0 { "" } else { "y" });
        }
        for n in 0..100 {
            node.retain(publisher, &format!("r/{n}"), 0, 0, "");
        }
        node.disconnect(client);
        node.disconnect(publisher);
        node.run();
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// A connection lost in the middle of a replay: the Session gets the rest when it comes back.
#[test]
fn a_replay_survives_a_lost_connection() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..50 {
            node.retain(publisher, &format!("r/{n}"), 1, 1, "x");
        }
        let narrow = |connect: &mut sol_codec::Connect<'_>| {
            connect.clean_start = false;
            connect.properties.receive_maximum = NonZeroU16::new(5);
            connect.properties.session_expiry_interval = Some(100);
        };
        let client = node.connect_with(V5, "client", narrow);
        node.take(client);
        node.subscribe(client, &["r/#"], 1);
        let first = node.take(client);
        assert_eq!(first.len(), 6);
        node.lose(client);
        let client = node.connect_with(V5, "client", narrow);
        let got = node.drink(client);
        assert_eq!(got[0], "CONNACK 00 present");
        assert_eq!(payloads(&got), (payloads(&got).0, 50));
        assert_eq!(payloads(&got).0.len(), 50);
    });
}

/// Retained messages are no part of a Session.
///
/// Proves 3.1.1: MQTT-3.1.2-7.
#[test]
fn retained_messages_outlive_their_publisher() {
    in_every_node(|node| {
        let publisher = node.connect(V311, "publisher");
        node.retain(publisher, "t", 1, 1, "x");
        node.disconnect(publisher);
        node.connect(V311, "publisher");
        let client = node.connect(V311, "client");
        node.subscribe(client, &["t"], 0);
        node.expect(client, &["SUBACK #1 [00]", r#"PUBLISH t q0 retain "x""#]);
    });
}
