//! Full queues: whoever can be told is told (0x97), and what is dropped is counted, never in silence.

use std::num::NonZeroU16;
use std::time::Duration;

use sol_engine::{Cause, EngineConfig, Event, QueueFull};

use crate::support::*;

fn config(queue_full: QueueFull) -> EngineConfig {
    EngineConfig {
        queue_max: 3,
        inflight_max: 2,
        queue_full,
        ..Default::default()
    }
}

fn payloads(lines: &[String]) -> String {
    lines
        .iter()
        .filter(|line| line.starts_with("PUBLISH"))
        .filter_map(|line| line.split('"').nth(1))
        .collect()
}

fn drops(node: &Node) -> Vec<u64> {
    node.events
        .iter()
        .filter_map(|event| match event {
            Event::Dropped { count, .. } => Some(*count),
            _ => None,
        })
        .collect()
}

/// `queue_full refuse`: a 5.0 publisher gets 0x97 when a Session could not take the message; the others have it. For
/// Sessions of this shard and of others, at QoS 1 and 2.
#[test]
fn refuse_tells_a_5_0_publisher() {
    in_each_node(config(QueueFull::Refuse), |node| {
        let shards = node.engines.len();
        let publisher = node.connect(V5, "publisher");
        for shard in 0..shards {
            let (slow, quick) = (node.name_on(shard, "slow"), node.name_on(shard, "quick"));
            let slow = node.connect(V5, &slow);
            let quick = node.connect(V5, &quick);
            node.subscribed(slow, &["t"], 2);
            node.subscribed(quick, &["t"], 0);
            for n in 1..=8 {
                node.publish(publisher, "t", 1 + n % 2, u16::from(n), &n.to_string());
                node.pubrel(publisher, u16::from(n));
            }
            let acks = node.take(publisher);
            let refused: Vec<_> = acks.iter().filter(|line| line.ends_with(" 97")).collect();
            let mut ids: Vec<_> = refused.iter().map(|line| packet_id_of(line)).collect();
            ids.sort_unstable();
            assert_eq!(ids, [6, 7, 8], "{acks:?}");
            assert_eq!(payloads(&node.take(quick)), "12345678");
            assert_eq!(payloads(&node.drink(slow)), "12345");
            node.disconnect(slow);
            node.disconnect(quick);
        }
        assert_eq!(node.stats().publish_refused, 3 * shards as u64);
        assert_eq!(node.stats().publish_dropped, 0);
    });
}

/// A refused QoS 2 identifier is free: the next message with it is a new one [MQTT-4.3.3-9].
#[test]
fn a_refused_identifier_is_free() {
    in_each_node(config(QueueFull::Refuse), |node| {
        let shards = node.engines.len();
        for shard in 0..shards {
            let slow = node.name_on(shard, "slow");
            let slow = node.connect(V5, &slow);
            node.subscribed(slow, &["t"], 2);
            let publisher = node.connect(V5, "publisher");
            for n in 1..=5 {
                node.publish(publisher, "t", 1, n, "x");
            }
            node.take(publisher);
            node.publish(publisher, "t", 2, 9, "refused");
            node.pubrel(publisher, 9);
            node.expect(publisher, &["PUBREC #9 97", "PUBCOMP #9 92"]);
            assert_eq!(payloads(&node.drink(slow)), "xxxxx");
            node.publish(publisher, "t", 2, 9, "new");
            node.expect(publisher, &["PUBREC #9"]);
            assert_eq!(payloads(&node.drink(slow)), "new");
            node.disconnect(slow);
        }
    });
}

/// A publisher whose Session lasts is not told of a refusal before that is durable: else a restart would still know the
/// identifier, and take the next message with it for a repeat [MQTT-4.3.3-9].
#[test]
fn a_refused_identifier_is_free_after_a_restart() {
    let config = EngineConfig {
        journal: true,
        ..config(QueueFull::Refuse)
    };
    in_each_node(config, |node| {
        let slow = node.connect(V5, "slow");
        node.subscribed(slow, &["t"], 2);
        let publisher = node.connect_durable(V5, "publisher");
        for n in 1..=5 {
            node.publish(publisher, "t", 1, n, "x");
        }
        node.take(publisher);
        node.durable_at_once = false;
        node.publish(publisher, "t", 2, 9, "refused");
        let has_id = |node: &Node| node.store.facts().iter().any(|fact| fact.starts_with("inbound"));
        assert!(has_id(node));
        node.make_all_durable();
        assert!(!has_id(node));
        node.expect(publisher, &[]);
        // Until it is told it may ask again, and is not taken for somebody else.
        node.publish_with(publisher, "t", 2, 9, "refused", |publish| publish.dup = true);
        node.make_all_durable();
        assert_eq!(node.take(publisher)[0], "PUBREC #9 97");
        assert!(!has_id(node));
        node.check();
    });
}

/// A 3.1.1 publisher cannot be told: it gets its acknowledgement, and the drop is counted and told to the log, first at
/// once and then at doubling counts.
#[test]
fn refuse_counts_for_a_3_1_1_publisher() {
    in_each_node(config(QueueFull::Refuse), |node| {
        let slow = node.connect(V5, "slow");
        node.subscribed(slow, &["t"], 1);
        let publisher = node.connect(V311, "publisher");
        for n in 1..=12 {
            node.publish(publisher, "t", 1, n, "x");
        }
        assert_eq!(
            node.take(publisher),
            (1..=12).map(|n| format!("PUBACK #{n}")).collect::<Vec<_>>()
        );
        assert_eq!(node.stats().publish_dropped, 7);
        assert_eq!(drops(node), [1, 2, 4]);
        assert_eq!(payloads(&node.drink(slow)).len(), 5);
    });
}

/// `queue_full drop_newest`: the new message is dropped and counted, and the publisher acknowledged.
#[test]
fn drop_newest() {
    in_each_node(config(QueueFull::DropNewest), |node| {
        let slow = node.connect_durable(V5, "slow");
        node.subscribed(slow, &["t"], 1);
        node.lose(slow);
        let publisher = node.connect(V5, "publisher");
        for n in 1..=9 {
            node.publish(publisher, "t", 1, n, &n.to_string());
        }
        assert_eq!(
            node.take(publisher),
            (1..=9).map(|n| format!("PUBACK #{n}")).collect::<Vec<_>>()
        );
        let slow = node.resume(V5, "slow", 10);
        assert_eq!(payloads(&node.drink(slow)), "123");
        assert_eq!(node.stats().publish_dropped, 6);
    });
}

/// `queue_full drop_oldest`: the oldest queued message makes room; what has begun is not touched.
#[test]
fn drop_oldest() {
    in_each_node(config(QueueFull::DropOldest), |node| {
        let slow = node.connect_durable(V5, "slow");
        node.subscribed(slow, &["t"], 1);
        let publisher = node.connect(V5, "publisher");
        for n in 1..=9 {
            node.publish(publisher, "t", 1, n, &n.to_string());
        }
        assert_eq!(
            node.take(publisher),
            (1..=9).map(|n| format!("PUBACK #{n}")).collect::<Vec<_>>()
        );
        assert_eq!(payloads(&node.drink(slow)), "12789");
        assert_eq!(node.stats().publish_dropped, 4);
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// `queue_bytes_max` limits bytes, whatever the count; a message that is larger than all of it finds no room.
#[test]
fn the_queue_is_limited_in_bytes() {
    for policy in [QueueFull::Refuse, QueueFull::DropOldest] {
        let config = EngineConfig {
            queue_bytes_max: 5_000,
            queue_full: policy,
            ..Default::default()
        };
        in_each_node(config, |node| {
            let slow = node.connect_durable(V5, "slow");
            node.subscribed(slow, &["t"], 1);
            node.lose(slow);
            let publisher = node.connect(V5, "publisher");
            for n in 1..=20 {
                node.publish(publisher, "t", 1, n, &format!("{n:01000}"));
            }
            let acks = node.take(publisher);
            let slow = node.resume(V5, "slow", 10);
            let got = payloads(&node.drink(slow));
            assert_eq!(got.len(), 4_000);
            match policy {
                QueueFull::DropOldest => assert!(got.starts_with(&format!("{:01000}", 17))),
                _ => assert_eq!(acks.iter().filter(|line| line.ends_with("97")).count(), 16),
            }
            assert_eq!(node.stats().stored_messages, 0);
        });
    }
}

/// QoS 0 is queued only on demand; then it counts against the queue like any other.
#[test]
fn queued_qos0_counts() {
    let config = EngineConfig {
        queue_qos0: true,
        ..config(QueueFull::DropNewest)
    };
    in_each_node(config, |node| {
        let away = node.connect_durable(V311, "away");
        node.subscribed(away, &["t"], 1);
        node.lose(away);
        let publisher = node.connect(V5, "publisher");
        for n in 0..5 {
            node.publish(publisher, "t", 0, 0, &n.to_string());
        }
        let away = node.resume(V311, "away", 0);
        node.expect(
            away,
            &[
                "CONNACK 00 present",
                r#"PUBLISH t q0 "0""#,
                r#"PUBLISH t q0 "1""#,
                r#"PUBLISH t q0 "2""#,
            ],
        );
        assert_eq!(node.stats().publish_dropped, 2);
        node.connect(V311, "away");
        node.run();
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// A client that does not read is closed when too much waits for it, or for too long; nobody else is disturbed.
#[test]
fn slow_clients_are_closed() {
    let config = EngineConfig {
        unsent_bytes_high: 5_000,
        unsent_bytes_max: 10_000,
        congested_time_max: Duration::from_secs(10),
        ..Default::default()
    };
    in_each_node(config, |node| {
        let slow = node.connect(V5, "slow");
        let late = node.connect(V5, "late");
        let quick = node.connect(V5, "quick");
        for client in [slow, late, quick] {
            node.subscribed(client, &["t"], 0);
        }
        let publisher = node.connect(V5, "publisher");
        node.congest(late, 10);
        node.congest(slow, 10_001);
        node.expect(slow, &["CLOSE"]);
        node.publish(publisher, "t", 0, 0, "x");
        node.expect(late, &[r#"PUBLISH t q0 "x""#]);
        node.pass(Duration::from_secs(9));
        node.expect(late, &[]);
        node.pass(Duration::from_secs(2));
        node.expect(late, &["CLOSE"]);
        node.expect(quick, &[r#"PUBLISH t q0 "x""#]);
        assert_eq!(node.stats().slow_closed, 2);
        let slow_ends = node
            .events
            .iter()
            .filter(|event| matches!(event, Event::Disconnected { cause: Cause::Slow, .. }))
            .count();
        assert_eq!(slow_ends, 2);
    });
}

/// A congested client that drains in time is not closed.
#[test]
fn a_drained_client_stays() {
    let config = EngineConfig {
        congested_time_max: Duration::from_secs(10),
        ..Default::default()
    };
    in_each_node(config, |node| {
        let client = node.connect(V5, "client");
        for _ in 0..5 {
            node.congest(client, 10);
            node.pass(Duration::from_secs(9));
            node.drain(client);
        }
        node.pass(Duration::from_secs(100));
        node.expect(client, &[]);
    });
}

/// The window and the queue together hold what is owed; acknowledging moves one on.
#[test]
fn the_queue_feeds_the_window() {
    in_every_node(|node| {
        let slow = node.connect_with(V5, "slow", |connect| {
            connect.properties.receive_maximum = NonZeroU16::new(1);
        });
        node.take(slow);
        node.subscribed(slow, &["t"], 1);
        let publisher = node.connect(V5, "publisher");
        for n in 1..=5 {
            node.publish(publisher, "t", 1, n, &n.to_string());
        }
        assert_eq!(node.stats().stored_messages, 5);
        for n in 1..=5 {
            node.expect(slow, &[&format!("PUBLISH t q1 #{n} \"{n}\"")]);
            node.puback(slow, n);
            assert_eq!(node.stats().stored_messages, u64::from(5 - n));
        }
    });
}

/// A message for a Shared Subscription whose members left meanwhile is passed on once; where it finds a full queue it is
/// dropped and counted, for the shard that waited for it has said that it was taken.
#[test]
fn what_is_passed_on_and_not_taken_is_counted() {
    in_each_node(config(QueueFull::Refuse), |node| {
        if node.engines.len() < 3 {
            return;
        }
        let publisher = node.connect(V5, &node.name_on(0, "publisher"));
        let near = node.connect(V5, &node.name_on(1, "near"));
        node.subscribed(near, &["$share/g/t"], 1);
        let far = node.connect(V5, &node.name_on(2, "far"));
        node.subscribed(far, &["$share/g/t", "full"], 1);
        for n in 1..=5 {
            node.publish(publisher, "full", 1, n, "x");
        }
        node.take(publisher);
        node.hold_mail();
        for n in 1..=4 {
            node.publish(publisher, "t", 1, n, "y");
        }
        node.disconnect(near);
        node.deliver_all(0, 1);
        node.release_mail();
        let acks = node.take(publisher);
        let refused = acks.iter().filter(|line| line.ends_with(" 97")).count() as u64;
        assert_eq!(acks.len(), 4, "{acks:?}");
        assert!(refused < 4, "none was passed on: {acks:?}");
        assert_eq!(refused + node.stats().publish_dropped, 4);
        node.check();
    });
}
