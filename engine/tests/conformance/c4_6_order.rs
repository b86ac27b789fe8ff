//! Section 4.6: message ordering, also where fan-outs are cut, connections congested, queues full and acknowledgements late.

use sol_codec::Packet;
use sol_engine::EngineConfig;

use crate::support::*;

fn small_tray() -> EngineConfig {
    EngineConfig {
        tray_max: 4,
        ..Default::default()
    }
}

/// Publishes several messages in one turn.
fn publish_all(node: &mut Node, client: Client, topic: &'static str, level: u8, numbers: std::ops::Range<u16>) {
    let sendings = numbers
        .map(|n| {
            let sending: Sending = Box::new(move |send| {
                let payload = n.to_string();
                let packet_id = if level > 0 { n } else { 0 };
                send(&Packet::Publish(publish(topic, level, packet_id, payload.as_bytes())));
            });
            sending
        })
        .collect();
    node.send_batch(client, sendings);
}

fn payloads(lines: &[String]) -> Vec<u16> {
    lines
        .iter()
        .filter_map(|line| line.split('"').nth(1)?.parse().ok())
        .collect()
}

/// In fan-outs that are cut again and again, every subscriber gets one publisher's messages in order, at each QoS, and
/// the publisher its acknowledgements in order.
///
/// Proves 5.0: MQTT-4.6.0-5, MQTT-4.6.0-6; 3.1.1: MQTT-4.6.0-5, MQTT-4.6.0-6.
#[test]
fn order_holds_through_cut_fanouts() {
    in_each_node(small_tray(), |node| {
        for version in [V311, V5] {
            let subscribers: Vec<_> = (0..15).map(|n| node.connect(version, &format!("s{n}"))).collect();
            for (n, &subscriber) in subscribers.iter().enumerate() {
                node.subscribed(subscriber, &["t"], (n % 3) as u8);
            }
            for level in 0..=2 {
                let publisher = node.connect(version, "publisher");
                publish_all(node, publisher, "t", level, 1..31);
                for &subscriber in &subscribers {
                    let lines = node.drink(subscriber);
                    assert_eq!(payloads(&lines), (1..31).collect::<Vec<_>>());
                }
                let acks = node.take(publisher);
                let ids: Vec<_> = acks.iter().map(|line| packet_id_of(line)).collect();
                let expected: Vec<u16> = if level > 0 { (1..31).collect() } else { Vec::new() };
                assert_eq!(ids, expected);
            }
        }
    });
}

/// What is published while a fan-out is open waits behind it; packets of other kinds go on.
#[test]
fn the_line_behind_an_open_fanout() {
    in_each_node(small_tray(), |node| {
        let subscribers: Vec<_> = (0..10).map(|n| node.connect(V5, &format!("s{n}"))).collect();
        for &subscriber in &subscribers {
            node.subscribed(subscriber, &["t", "u"], 1);
        }
        let publisher = node.connect(V5, "publisher");
        let (shard, connection) = (node.shard_of(publisher), node.clients[publisher.0].connection);
        let sendings: Vec<Sending> = vec![
            Box::new(|send| send(&Packet::Publish(publish("t", 1, 1, b"1")))),
            Box::new(|send| send(&Packet::Publish(publish("u", 2, 2, b"2")))),
            Box::new(|send| send(&Packet::PingReq)),
            Box::new(|send| send(&Packet::Publish(publish("t", 1, 3, b"3")))),
        ];
        node.send_batch(publisher, sendings);
        let got = node.take(publisher);
        assert_eq!(got.len(), 4, "{shard} {connection:?}");
        let of = |kind: &str| {
            got.iter()
                .filter(|line| line.starts_with(kind))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(of("PUBACK"), ["PUBACK #1", "PUBACK #3"]);
        assert_eq!(of("PUBREC"), ["PUBREC #2"]);
        for subscriber in subscribers {
            assert_eq!(payloads(&node.take(subscriber)), [1, 2, 3]);
        }
    });
}

/// A connection whose publishes fill the line is paused, resumed when the line is short, and loses nothing.
#[test]
fn a_long_line_pauses_its_publishers() {
    let config = EngineConfig {
        tray_max: 1,
        fanout_waiting_max: 3,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let subscribers: Vec<_> = (0..6).map(|n| node.connect(V311, &format!("s{n}"))).collect();
        for &subscriber in &subscribers {
            node.subscribed(subscriber, &["t"], 0);
        }
        let publisher = node.connect(V5, "publisher");
        publish_all(node, publisher, "t", 1, 1..101);
        for subscriber in subscribers {
            assert_eq!(payloads(&node.take(subscriber)), (1..101).collect::<Vec<_>>());
        }
        let ids: Vec<_> = node.take(publisher).iter().map(|line| packet_id_of(line)).collect();
        assert_eq!(ids, (1..101).collect::<Vec<_>>());
    });
}

/// A Session or Subscription that ends while a fan-out is open is skipped, and nobody else.
#[test]
fn who_leaves_an_open_fanout_is_skipped() {
    let config = EngineConfig {
        tray_max: 1,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        let home = node.shard_of(publisher);
        let names: Vec<_> = (0..8).map(|n| node.name_on(home, &format!("s{n}-"))).collect();
        let subscribers: Vec<_> = names.iter().map(|name| node.connect(V5, name)).collect();
        for &subscriber in &subscribers {
            node.subscribed(subscriber, &["t", "+"], 1);
        }
        // All of this happens in one turn of the home shard, before its tick.
        let connection = node.clients[publisher.0].connection;
        let mut packets = vec![(connection, Packet::Publish(publish("t", 1, 1, b"x")))];
        let mut filters = vec![
            sol_codec::TopicFilter::new("t").unwrap(),
            sol_codec::TopicFilter::new("+").unwrap(),
        ];
        let unsubscribe = |filters| {
            Packet::Unsubscribe(sol_codec::Unsubscribe {
                packet_id: id(2),
                user_properties: Default::default(),
                filters: sol_codec::Filters::from_slice(filters),
            })
        };
        let both = filters.clone();
        filters.pop();
        let of = |n: usize| node.clients[subscribers[n].0].connection;
        packets.push((of(7), unsubscribe(&both)));
        packets.push((of(6), unsubscribe(&filters)));
        packets.push((
            of(5),
            Packet::Disconnect(sol_codec::Disconnect::new(sol_codec::ReasonCode::Success)),
        ));
        for (connection, packet) in &packets {
            node.input(home, sol_engine::Input::Packet(*connection, packet));
        }
        node.run();
        node.expect(publisher, &["PUBACK #1"]);
        for (n, &subscriber) in subscribers.iter().enumerate() {
            let got = payloads_raw(&node.take(subscriber));
            assert_eq!(got, usize::from(n < 5 || n == 6 && got == 1), "subscriber {n}");
        }
    });
}

fn payloads_raw(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.starts_with("PUBLISH")).count()
}

/// A congested client gets QoS 1 and 2 in order when it drains; QoS 0 is dropped and counted.
///
/// Proves 5.0: MQTT-4.6.0-5, MQTT-4.6.0-6; 3.1.1: MQTT-4.6.0-5, MQTT-4.6.0-6.
#[test]
fn order_holds_through_congestion() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let dropped = node.stats().publish_dropped;
            let subscriber = node.connect(version, "subscriber");
            node.subscribed(subscriber, &["t"], 2);
            let publisher = node.connect(version, "publisher");
            publish_all(node, publisher, "t", 1, 1..4);
            node.congest(subscriber, 2 << 20);
            publish_all(node, publisher, "t", 0, 100..103);
            publish_all(node, publisher, "t", 1, 4..8);
            publish_all(node, publisher, "t", 2, 8..10);
            assert_eq!(payloads(&node.take(subscriber)), [1, 2, 3]);
            node.drain(subscriber);
            publish_all(node, publisher, "t", 1, 10..12);
            assert_eq!(payloads(&node.drink(subscriber)), (4..12).collect::<Vec<_>>());
            assert_eq!(node.stats().publish_dropped - dropped, 3);
        }
    });
}

/// Order holds from the queue of a Session that is away, with new messages behind it.
///
/// Proves 5.0: MQTT-4.6.0-5, MQTT-4.6.0-6; 3.1.1: MQTT-4.6.0-1, MQTT-4.6.0-5, MQTT-4.6.0-6.
#[test]
fn order_holds_through_the_queue() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for version in [V311, V5] {
            let subscriber = node.connect_durable(version, "subscriber");
            node.subscribed(subscriber, &["t/+"], 1);
            publish_all(node, publisher, "t/1", 1, 1..300);
            let seen = node.take(subscriber);
            seen.iter().take(7).for_each(|line| node.acknowledge(subscriber, line));
            node.lose(subscriber);
            publish_all(node, publisher, "t/1", 1, 300..400);
            let subscriber = node.resume(version, "subscriber", 100);
            publish_all(node, publisher, "t/1", 1, 400..500);
            let got = payloads(&node.drink(subscriber));
            assert_eq!(got, (8..500).collect::<Vec<_>>());
            node.connect(version, "subscriber");
        }
    });
}

/// Acknowledgements of one kind leave in the order of what they answer though a later one could leave earlier; kinds do
/// not wait for each other.
///
/// Proves 3.1.1: MQTT-4.6.0-2, MQTT-4.6.0-3.
#[test]
fn acknowledgements_leave_in_order() {
    in_every_node(|node| {
        let shards = node.engines.len();
        for (version, nobody) in [(V311, ""), (V5, " 10")] {
            let publisher = node.connect(version, "publisher");
            let home = node.shard_of(publisher);
            let far = node.name_on((home + 1) % shards, "far");
            let far = node.connect(V5, &far);
            node.subscribed(far, &["far"], 2);
            for (level, ack, first) in [(1, "PUBACK", 1), (2, "PUBREC", 4)] {
                node.hold_mail();
                node.publish(publisher, "far", level, first, "");
                node.publish(publisher, "near", level, first + 1, "");
                node.publish(publisher, "near", 3 - level, first + 2, "");
                let other = format!(
                    "{} #{}{nobody}",
                    if level == 1 { "PUBREC" } else { "PUBACK" },
                    first + 2
                );
                let near = format!("{ack} #{}{nobody}", first + 1);
                let in_order = [format!("{ack} #{first}"), near];
                let got = node.take(publisher);
                if shards == 1 {
                    assert_eq!(got, [&in_order[..], &[other]].concat());
                    continue;
                }
                assert_eq!(got, [other]);
                node.release_mail();
                assert_eq!(node.take(publisher), in_order);
            }
            node.held_links.clear();
            node.disconnect(far);
        }
    });
}

/// PUBRELs leave in the order in which the PUBRECs came, also where each waits for the journal.
///
/// Proves 3.1.1: MQTT-4.6.0-4.
#[test]
fn pubrels_follow_their_pubrecs() {
    for journal in [false, true] {
        let config = EngineConfig {
            journal,
            ..Default::default()
        };
        in_each_node(config, |node| {
            for version in [V311, V5] {
                let subscriber = node.connect_durable(version, "subscriber");
                node.subscribed(subscriber, &["t"], 2);
                let publisher = node.connect(V5, "publisher");
                publish_all(node, publisher, "t", 2, 1..6);
                assert_eq!(node.take(subscriber).len(), 5);
                let sendings = [3, 1, 5, 2, 4].map(|packet_id| -> Sending {
                    Box::new(move |send| send(&Packet::PubRec(sol_codec::PubRec::success(id(packet_id)))))
                });
                node.send_batch(subscriber, sendings.into());
                node.expect(
                    subscriber,
                    &["PUBREL #3", "PUBREL #1", "PUBREL #5", "PUBREL #2", "PUBREL #4"],
                );
                node.connect(version, "subscriber");
            }
        });
    }
}

/// Forwards are routed in the order in which they arrive, behind an open fan-out of the receiving shard too.
#[test]
fn forwards_keep_their_order() {
    in_each_node(small_tray(), |node| {
        let shards = node.engines.len();
        let subscribers: Vec<_> = (0..12)
            .map(|n| {
                let name = node.name_on(n % shards, &format!("s{n}-"));
                node.connect(V5, &name)
            })
            .collect();
        for &subscriber in &subscribers {
            node.subscribed(subscriber, &["t/#"], 1);
        }
        let publishers: Vec<_> = (0..shards)
            .map(|shard| {
                let name = node.name_on(shard, "p");
                node.connect(V5, &name)
            })
            .collect();
        for round in 0..5u16 {
            for &publisher in &publishers {
                publish_all(node, publisher, "t/x", 1, round * 10 + 1..round * 10 + 11);
            }
        }
        for subscriber in subscribers {
            let got = payloads(&node.drink(subscriber));
            assert_eq!(got.len(), 50 * shards);
            for n in 0..shards {
                // One publisher's messages, as the n-th occurrence of each payload at least keeps them ascending.
                let mut seen = std::collections::BTreeMap::new();
                let mine: Vec<_> = got
                    .iter()
                    .filter(|&&value| {
                        let count = seen.entry(value).or_insert(0);
                        *count += 1;
                        *count == n + 1
                    })
                    .collect();
                assert!(mine.is_sorted(), "{got:?}");
            }
        }
    });
}
