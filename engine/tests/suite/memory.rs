//! Memory is charged: limits hold, and everything that was charged is refunded.

use std::time::Duration;

use sol_codec::Packet;
use sol_engine::{Cause, Elsewhere, EngineConfig, Event, Input, Level};

use crate::support::*;

fn pressure(node: &mut Node, level: Level) {
    node.input_all(|| Input::Pressure(level));
}

/// Under pressure a 5.0 publisher gets 0x97 for what would be kept; QoS 0 goes through.
#[test]
fn under_pressure_5_0_publishers_are_refused() {
    in_every_node(|node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 1);
        let publisher = node.connect(V5, "publisher");
        pressure(node, Level::Full);
        node.publish(publisher, "t", 1, 1, "one");
        node.publish(publisher, "t", 2, 2, "two");
        node.publish(publisher, "t", 0, 0, "zero");
        node.expect(publisher, &["PUBACK #1 97", "PUBREC #2 97"]);
        node.expect(subscriber, &[r#"PUBLISH t q0 "zero""#]);
        pressure(node, Level::Normal);
        node.publish(publisher, "t", 2, 2, "two");
        node.expect(publisher, &["PUBREC #2"]);
        node.expect(subscriber, &[r#"PUBLISH t q1 #1 "two""#]);
    });
}

/// [MQTT-4.3.3-10]: a repeat of what was taken before is acknowledged under pressure too, and not delivered twice.
#[test]
fn a_repeat_is_acknowledged_under_pressure() {
    in_every_node(|node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 1);
        for version in [V311, V5] {
            let publisher = node.connect(version, "publisher");
            node.publish(publisher, "t", 2, 1, "x");
            pressure(node, Level::Full);
            node.publish(publisher, "t", 2, 1, "x");
            node.expect(publisher, &["PUBREC #1", "PUBREC #1"]);
            node.pubrel(publisher, 1);
            node.expect(publisher, &["PUBCOMP #1"]);
            pressure(node, Level::Normal);
            assert_eq!(node.drink(subscriber).len(), 1);
        }
    });
}

/// [MQTT-4.6.0-3]: behind messages that wait for memory it is acknowledged in its turn.
#[test]
fn a_repeat_waits_for_its_turn() {
    in_every_node(|node| {
        let publisher = node.connect(V311, "publisher");
        node.publish(publisher, "t", 2, 1, "x");
        node.expect(publisher, &["PUBREC #1"]);
        pressure(node, Level::Full);
        node.publish(publisher, "t", 2, 2, "y");
        node.publish(publisher, "t", 2, 1, "x");
        node.expect(publisher, &[]);
        pressure(node, Level::Normal);
        node.expect(publisher, &["PUBREC #2", "PUBREC #1"]);
    });
}

/// Under pressure the messages of a 3.1.1 publisher wait unacknowledged, QoS 0 behind them; packets that free space are
/// handled; and all go their way in order when the pressure is gone.
#[test]
fn under_pressure_3_1_1_publishers_wait() {
    in_every_node(|node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 1);
        let publisher = node.connect(V311, "publisher");
        pressure(node, Level::Full);
        node.publish(publisher, "t", 0, 0, "passes");
        node.publish(publisher, "t", 1, 1, "a");
        node.publish(publisher, "t", 0, 0, "b");
        node.publish(publisher, "t", 2, 2, "c");
        node.ping(publisher);
        node.unsubscribe(publisher, &["x"]);
        node.expect(publisher, &["PINGRESP", "UNSUBACK #2 [11]"]);
        node.expect(subscriber, &[r#"PUBLISH t q0 "passes""#]);
        pressure(node, Level::Normal);
        node.expect(publisher, &["PUBACK #1", "PUBREC #2"]);
        node.expect(
            subscriber,
            &[
                r#"PUBLISH t q1 #1 "a""#,
                r#"PUBLISH t q0 "b""#,
                r#"PUBLISH t q1 #2 "c""#,
            ],
        );
    });
}

/// What waits is limited; beyond it the connection is closed and counted, and what waited is gone unacknowledged.
#[test]
fn the_wait_is_limited() {
    let config = EngineConfig {
        parked_bytes_max: 3_000,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 1);
        let publisher = node.connect(V311, "publisher");
        pressure(node, Level::Full);
        let long = "x".repeat(800);
        for n in 1..=3 {
            node.publish(publisher, "t", 1, n, &long);
        }
        node.expect(publisher, &[]);
        node.publish(publisher, "t", 1, 4, &long);
        node.expect(publisher, &["CLOSE"]);
        pressure(node, Level::Normal);
        node.expect(subscriber, &[]);
        assert_eq!(node.stats().parked_closed, 1);
        assert!(node.events.iter().any(|event| matches!(
            event,
            Event::Disconnected {
                cause: Cause::Parked,
                ..
            }
        )));
    });
}

/// `memory_bytes_max` counts what is held elsewhere: a shard that holds nothing is full when the others fill the limit, and
/// has room again when a twentieth of it is free. Without a limit nobody's bytes matter.
#[test]
fn memory_elsewhere_counts() {
    let elsewhere = |bytes| move || Input::Elsewhere(Elsewhere::Memory(bytes));
    let config = EngineConfig {
        memory_bytes_max: 100_000,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 1);
        let (five, three) = (node.connect(V5, "five"), node.connect(V311, "three"));
        node.input_all(elsewhere(100_000));
        node.publish(five, "t", 1, 1, "refused");
        node.expect(five, &["PUBACK #1 97"]);
        node.publish(three, "t", 1, 1, "waits");
        node.input_all(elsewhere(95_000));
        node.expect(three, &[]);
        node.input_all(elsewhere(90_000));
        node.run();
        node.expect(three, &["PUBACK #1"]);
        node.publish(five, "t", 1, 1, "taken");
        node.expect(five, &["PUBACK #1"]);
        assert_eq!(node.drink(subscriber).len(), 2);
    });
    in_every_node(|node| {
        let retainer = node.connect(V5, "retainer");
        node.input_all(elsewhere(usize::MAX));
        node.retain(retainer, "t", 1, 1, "kept");
        node.expect(retainer, &["PUBACK #1 10"]);
        assert_eq!(node.stats().retained_messages, 1);
    });
}

/// `memory_bytes_max`: what is kept fills it up, then publishers are refused, until acknowledgements free space.
#[test]
fn memory_bytes_max_is_kept() {
    let config = EngineConfig {
        memory_bytes_max: 30_000,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let name = node.name_on(0, "durable");
        let durable = node.connect_durable(V5, &name);
        node.subscribed(durable, &["t"], 1);
        node.lose(durable);
        let publisher_name = node.name_on(0, "publisher");
        let publisher = node.connect(V5, &publisher_name);
        let long = "x".repeat(1_000);
        let mut refused = 0;
        for n in 1..=50 {
            node.publish(publisher, "t", 1, n, &long);
            refused += usize::from(node.take(publisher)[0].ends_with(" 97"));
        }
        assert!((20..40).contains(&refused), "{refused}");
        assert!(node.stats().memory_bytes < 33_000);
        let fresh = node.name_on(0, "fresh");
        let fresh = node.resume(V5, &fresh, 100);
        node.expect(fresh, &["CONNACK 97", "CLOSE"]);
        let durable = node.resume(V5, &name, 100);
        node.drink(durable);
        node.publish(publisher, "t", 1, 99, &long);
        node.expect(publisher, &["PUBACK #99"]);
        assert_eq!(node.drink(durable).len(), 1);
    });
}

/// Retained messages of new topics are not kept without memory; known topics may be replaced and cleared.
#[test]
fn retained_messages_without_memory() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "known", 0, 0, "old");
        pressure(node, Level::Full);
        node.retain(publisher, "new", 0, 0, "x");
        node.retain(publisher, "known", 0, 0, "y");
        assert_eq!(node.stats().retained_messages, 1);
        node.retain(publisher, "known", 0, 0, "");
        assert_eq!(node.stats().retained_messages, 0);
        pressure(node, Level::Normal);
    });
}

/// [MQTT-3.9.3-2]: SUBSCRIBE without memory is refused with 0x97, and an old Subscription may be replaced.
#[test]
fn subscribing_without_memory() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.subscribed(client, &["t"], 0);
        pressure(node, Level::Full);
        node.subscribe(client, &["t", "u"], 1);
        node.expect(client, &["SUBACK #1 [01, 97]"]);
        pressure(node, Level::Normal);
    });
}

/// When everything is gone, nothing is charged: queues, windows, retained messages, replays, Shared Subscriptions,
/// cut fan-outs, lost and expired Sessions, on every shard.
#[test]
fn everything_charged_is_refunded() {
    let config = EngineConfig {
        tray_max: 5,
        retained_page_max: 4,
        inflight_max: 3,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let idle = node.stats().memory_bytes;
        let clients: Vec<_> = (0..12)
            .map(|n| {
                let version = if n % 2 == 0 { V5 } else { V311 };
                node.connect_durable(version, &format!("c{n}"))
            })
            .collect();
        let publisher = node.connect(V5, "publisher");
        for n in 0..40 {
            node.retain(publisher, &format!("t/{n}"), n % 3, 1 + u16::from(n % 3), "retained");
        }
        for (n, &client) in clients.iter().enumerate() {
            let filters = [["t/#", "+/1", "$share/g/t/+"], ["t/+", "t/1", "$share/g/t/+"]][n % 2];
            node.subscribed(client, &filters, (n % 3) as u8);
        }
        for n in 0..40 {
            node.publish(publisher, &format!("t/{n}"), n % 3, 1 + u16::from(n % 3), "live");
            node.pubrel(publisher, 1 + u16::from(n % 3));
        }
        for &client in &clients[..4] {
            node.drink(client);
        }
        for &client in &clients[4..8] {
            node.lose(client);
        }
        for n in 0..40 {
            node.publish(publisher, &format!("t/{n}"), n % 3, 1 + u16::from(n % 3), "later");
            node.retain(publisher, &format!("t/{n}"), 0, 0, "");
        }
        for &client in &clients[8..] {
            let _ = node.take(client);
            node.disconnect(client);
        }
        assert!(node.stats().memory_bytes > idle);
        for n in 0..12 {
            let name = format!("c{n}");
            let version = if n % 2 == 0 { V5 } else { V311 };
            let client = node.connect(version, &name);
            node.disconnect(client);
        }
        node.disconnect(publisher);
        node.pass(Duration::from_secs(1));
        let stats = node.stats();
        assert_eq!((stats.memory_bytes, idle), (0, 0));
        assert_eq!(
            (stats.stored_messages, stats.subscriptions, stats.retained_messages),
            (0, 0, 0)
        );
        assert_eq!((stats.clients_connected, stats.clients_disconnected), (0, 0));
    });
}

/// The same for messages that waited under pressure and behind fan-outs, with their publishers gone.
#[test]
fn what_waited_is_refunded() {
    let config = EngineConfig {
        tray_max: 1,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let subscribers: Vec<_> = (0..5).map(|n| node.connect(V5, &format!("s{n}"))).collect();
        for &subscriber in &subscribers {
            node.subscribed(subscriber, &["t"], 1);
        }
        let publisher = node.connect(V311, "publisher");
        pressure(node, Level::Full);
        node.publish(publisher, "t", 1, 1, "parked");
        node.lose(publisher);
        pressure(node, Level::Normal);
        let publisher = node.connect(V5, "publisher");
        let sendings: Vec<Sending> = (1..20)
            .map(|n| {
                let sending: Sending = Box::new(move |send| send(&Packet::Publish(publish("t", 1, n, b"x"))));
                sending
            })
            .collect();
        node.send_batch(publisher, sendings);
        node.lose(publisher);
        for subscriber in subscribers {
            assert_eq!(node.take(subscriber).len(), 19);
            node.lose(subscriber);
        }
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// A retained message that came from another shard and is larger than its receiver's Maximum Packet Size
/// [MQTT-3.1.2-25] is refunded like any other.
#[test]
fn a_retained_message_that_is_too_large_is_refunded() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for topic in ["a", "b", "c", "d", "e", "f"] {
            node.retain(publisher, topic, 0, 0, &"x".repeat(200));
        }
        let before = node.stats().memory_bytes;
        let subscriber = node.connect_with(V5, "subscriber", |connect| {
            connect.properties.maximum_packet_size = std::num::NonZeroU32::new(150);
        });
        node.subscribe(subscriber, &["#"], 0);
        node.expect(subscriber, &["CONNACK 00", "SUBACK #1 [00]"]);
        assert_eq!(node.stats().publish_oversized, 6);
        node.disconnect(subscriber);
        assert_eq!(node.stats().memory_bytes, before);
    });
}
