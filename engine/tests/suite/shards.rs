//! What shards tell each other: nothing that a client can see depends on the order or length of a turn.

use std::time::Duration;

use sol_codec::{RetainHandling, SubscriptionOptions};
use sol_engine::{EngineConfig, Input, Level, ShardId};

use crate::support::*;

/// Interest is confirmed by count: SUBACK does not leave before every other shard has confirmed, in whatever order they
/// do; then a publish that is accepted anywhere arrives.
#[test]
fn suback_waits_for_every_shard() {
    for (filter, topic) in [("t", "t"), ("+", "t"), ("$share/g/t", "t"), ("$share/g/#", "t")] {
        for (first, second) in [(1, 2), (2, 1)] {
            in_every_node(|node| {
                if node.engines.len() < 3 {
                    return;
                }
                let subscriber = node.name_on(0, "subscriber");
                let subscriber = node.connect(V5, &subscriber);
                let publishers: Vec<_> = (0..3)
                    .map(|shard| {
                        let name = node.name_on(shard, "publisher");
                        node.connect(V5, &name)
                    })
                    .collect();
                node.hold_mail();
                node.subscribe(subscriber, &[filter], 1);
                node.expect(subscriber, &[]);
                node.deliver_all(0, first);
                node.deliver_all(first, 0);
                node.expect(subscriber, &[]);
                node.deliver_all(0, second);
                node.expect(subscriber, &[]);
                node.deliver_all(second, 0);
                node.expect(subscriber, &["SUBACK #1 [01]"]);
                for &publisher in &publishers {
                    node.publish(publisher, topic, 1, 1, "x");
                }
                node.release_mail();
                assert_eq!(node.take(subscriber).len(), 3);
            });
        }
    }
}

/// A second Subscription to a filter that is not confirmed yet waits for the same; one to a confirmed filter does not.
#[test]
fn a_second_subscription_waits_for_the_same() {
    for filter in ["t", "t/+"] {
        in_every_node(|node| {
            let shards = node.engines.len();
            let names: Vec<_> = (0..3).map(|n| node.name_on(0, &format!("s{n}-"))).collect();
            let clients: Vec<_> = names.iter().map(|name| node.connect(V5, name)).collect();
            node.hold_mail();
            node.subscribe(clients[0], &[filter], 0);
            node.subscribe(clients[1], &[filter], 1);
            if shards > 1 {
                node.expect(clients[0], &[]);
                node.expect(clients[1], &[]);
            }
            node.release_mail();
            node.expect(clients[0], &["SUBACK #1 [00]"]);
            node.expect(clients[1], &["SUBACK #1 [01]"]);
            node.hold_mail();
            // It asks no other shard for what is retained, so it has nothing to wait for.
            let alone = SubscriptionOptions {
                retain_handling: RetainHandling::DoNotSend,
                ..options(2)
            };
            node.subscribe_with(clients[2], &[filter], None, alone);
            node.expect(clients[2], &["SUBACK #1 [02]"]);
            node.release_mail();
        });
    }
}

/// SUBACKs of one client leave in the order of their SUBSCRIBEs, though the second needs no confirmation.
#[test]
fn subacks_leave_in_order() {
    in_every_node(|node| {
        let other = node.name_on(0, "other");
        let other = node.connect(V5, &other);
        node.subscribed(other, &["known"], 0);
        let client = node.name_on(0, "client");
        let client = node.connect(V5, &client);
        node.hold_mail();
        node.subscribe(client, &["new"], 0);
        node.subscribe(client, &["known"], 1);
        node.release_mail();
        node.expect(client, &["SUBACK #1 [00]", "SUBACK #1 [01]"]);
    });
}

/// PUBACK and PUBREC wait until every shard with interest has taken the message; QoS 0 waits for nothing.
#[test]
fn acknowledgements_wait_for_every_shard() {
    in_every_node(|node| {
        if node.engines.len() < 3 {
            return;
        }
        let publisher = node.name_on(0, "publisher");
        let publisher = node.connect(V5, &publisher);
        let subscribers: Vec<_> = (1..3)
            .map(|shard| {
                let name = node.name_on(shard, "subscriber");
                let client = node.connect(V5, &name);
                node.subscribed(client, &["t"], 2);
                client
            })
            .collect();
        for (level, kind) in [(1, "PUBACK #7"), (2, "PUBREC #7")] {
            node.hold_mail();
            node.publish(publisher, "t", 0, 0, "zero");
            node.publish(publisher, "t", level, 7, "x");
            node.deliver_all(0, 1);
            node.deliver_all(1, 0);
            node.expect(publisher, &[]);
            assert_eq!(node.take(subscribers[0]).len(), 2);
            node.deliver_all(0, 2);
            node.expect(publisher, &[]);
            node.deliver_all(2, 0);
            node.expect(publisher, &[kind]);
            node.release_mail();
            assert_eq!(node.take(subscribers[1]).len(), 2);
        }
    });
}

/// A repeat of a QoS 2 PUBLISH whose PUBREC still waits is not answered early; after a resume it is answered once.
#[test]
fn a_repeat_waits_with_the_first() {
    in_every_node(|node| {
        let shards = node.engines.len();
        let publisher_name = node.name_on(0, "publisher");
        let publisher = node.connect_durable(V5, &publisher_name);
        let far = node.name_on(shards - 1, "far");
        let far = node.connect(V5, &far);
        node.subscribed(far, &["t"], 2);
        node.hold_mail();
        node.publish(publisher, "t", 2, 7, "x");
        node.publish(publisher, "t", 2, 7, "x");
        if shards == 1 {
            node.expect(publisher, &["PUBREC #7", "PUBREC #7"]);
            return;
        }
        node.expect(publisher, &[]);
        node.lose(publisher);
        node.release_mail();
        node.hold_mail();
        // Its home is the shard where it comes in next, or one that it is moved to: neither needs mail.
        let publisher = node.resume(V5, &publisher_name, 100);
        node.expect(publisher, &["CONNACK 00 present"]);
        node.publish_with(publisher, "t", 2, 7, "x", |publish| publish.dup = true);
        node.expect(publisher, &["PUBREC #7"]);
        node.release_mail();
        assert_eq!(
            node.drink(far)
                .iter()
                .filter(|line| line.starts_with("PUBLISH"))
                .count(),
            1
        );
    });
}

/// An acknowledgement that comes from another shard after its connection was taken over is not sent to the new one.
#[test]
fn late_answers_do_not_reach_the_next_connection() {
    in_every_node(|node| {
        let shards = node.engines.len();
        if shards == 1 {
            return;
        }
        let publisher_name = node.name_on(0, "publisher");
        let publisher = node.connect_durable(V5, &publisher_name);
        let far = node.name_on(1, "far");
        let far = node.connect(V5, &far);
        node.subscribed(far, &["t"], 1);
        node.hold_mail();
        node.publish(publisher, "t", 1, 7, "x");
        node.subscribe(publisher, &["new"], 0);
        let publisher = node.resume(V5, &publisher_name, 100);
        node.expect(publisher, &["CONNACK 00 present"]);
        node.release_mail();
        node.expect(publisher, &[]);
        node.publish_with(publisher, "t", 1, 7, "x", |publish| publish.dup = true);
        node.expect(publisher, &["PUBACK #7"]);
    });
}

/// The retained query of a SUBSCRIBE begins after its interest is confirmed, so a message published in between comes
/// exactly once or as an update, never not at all.
#[test]
fn retained_queries_begin_after_confirmation() {
    in_every_node(|node| {
        let shards = node.engines.len();
        for home in 0..shards {
            let topic = node.topic_on(home, "r");
            let publisher = node.name_on(shards - 1, "publisher");
            let publisher = node.connect(V5, &publisher);
            let subscriber = node.name_on(0, "subscriber");
            let subscriber = node.connect(V5, &subscriber);
            node.hold_mail();
            node.subscribe(subscriber, &[&topic, "#"], 0);
            node.retain(publisher, &topic, 1, 1, "between");
            node.release_mail();
            let got = node.take(subscriber);
            let publishes: Vec<_> = got
                .iter()
                .filter(|line| line.starts_with(&format!("PUBLISH {topic} ")))
                .collect();
            assert!(!publishes.is_empty(), "{got:?}");
            node.retain(publisher, &topic, 1, 1, "");
            node.disconnect(subscriber);
            node.disconnect(publisher);
        }
    });
}

/// Pages of a replay are asked for one at a time.
#[test]
fn one_page_is_outstanding() {
    let config = EngineConfig {
        retained_page_max: 16,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let shards = node.engines.len();
        let publisher = node.connect(V5, "publisher");
        for n in 0..200 {
            node.retain(publisher, &format!("r/{n}"), 0, 0, "x");
        }
        let subscriber = node.name_on(0, "subscriber");
        let subscriber = node.connect(V5, &subscriber);
        node.subscribed(subscriber, &["other/#"], 0);
        node.hold_mail();
        node.subscribe(subscriber, &["r/#"], 0);
        for shard in 1..shards {
            node.deliver_all(0, shard);
        }
        for shard in 1..shards {
            node.deliver_all(shard, 0);
        }
        let mut pages = 0;
        loop {
            let asked: usize = (1..shards).map(|shard| node.waiting_mail(0, shard)).sum();
            if asked == 0 {
                break;
            }
            assert_eq!(asked, 1);
            pages += 1;
            for shard in 1..shards {
                node.deliver_all(0, shard);
                node.deliver_all(shard, 0);
            }
        }
        if shards > 1 {
            assert!(pages > 200 / shards / 20, "{pages}");
        }
        node.release_mail();
        let got = node.take(subscriber);
        assert_eq!(got.iter().filter(|line| line.starts_with("PUBLISH")).count(), 200);
    });
}

/// A full mailbox of another shard pauses those who publish there, and nobody else, until it has room.
#[test]
fn a_full_peer_pauses_its_publishers() {
    in_every_node(|node| {
        let shards = node.engines.len();
        if shards == 1 {
            return;
        }
        let [there, here] = ["there", "here"].map(|prefix| node.name_on(0, prefix));
        let (there, here) = (node.connect(V5, &there), node.connect(V5, &here));
        let far = node.name_on(1, "far");
        let far = node.connect(V5, &far);
        let near = node.name_on(0, "near");
        let near = node.connect(V5, &near);
        node.subscribed(far, &["far"], 0);
        node.subscribed(near, &["near"], 0);
        node.input(
            0,
            Input::Peer {
                shard: ShardId(1),
                full: true,
            },
        );
        for n in 0..5 {
            node.publish(there, "far", 0, 0, &n.to_string());
            node.publish(here, "near", 0, 0, &n.to_string());
        }
        assert_eq!(node.take(far).len(), 1, "the first one went before it was known");
        assert_eq!(node.take(near).len(), 5);
        node.input(
            0,
            Input::Peer {
                shard: ShardId(1),
                full: false,
            },
        );
        node.run();
        assert_eq!(node.take(far).len(), 4);
    });
}

/// A full mailbox pauses who subscribes, too: what every shard is told of it would lie there.
#[test]
fn a_full_peer_pauses_who_subscribes() {
    in_every_node(|node| {
        if node.engines.len() == 1 {
            return;
        }
        let eager = node.name_on(0, "eager");
        let eager = node.connect(V5, &eager);
        let peer = |full| Input::Peer {
            shard: ShardId(1),
            full,
        };
        node.input(0, peer(true));
        node.subscribed(eager, &["first"], 0);
        node.subscribe(eager, &["second"], 1);
        node.expect(eager, &[]);
        node.input(0, peer(false));
        node.run();
        node.expect(eager, &["SUBACK #1 [01]"]);
    });
}

/// Keep Alive does not run while we do not listen.
#[test]
fn a_paused_publisher_does_not_time_out() {
    in_every_node(|node| {
        if node.engines.len() == 1 {
            return;
        }
        let publisher = node.name_on(0, "publisher");
        let publisher = node.connect_with(V5, &publisher, |connect| connect.keep_alive = 10);
        let far = node.name_on(1, "far");
        let far = node.connect(V5, &far);
        node.subscribed(far, &["far"], 0);
        node.take(publisher);
        node.input(
            0,
            Input::Peer {
                shard: ShardId(1),
                full: true,
            },
        );
        node.publish(publisher, "far", 0, 0, "x");
        node.pass(Duration::from_secs(25));
        node.expect(publisher, &[]);
        node.input(
            0,
            Input::Peer {
                shard: ShardId(1),
                full: false,
            },
        );
        node.pass(Duration::from_secs(14));
        node.expect(publisher, &[]);
        node.pass(Duration::from_secs(2));
        node.expect(publisher, &["DISCONNECT 8d", "CLOSE"]);
    });
}

/// When the last Subscription to a filter ends, other shards stop to forward; when one comes again, they begin again.
#[test]
fn lost_interest_stops_forwards() {
    for filter in ["t", "t/#"] {
        in_every_node(|node| {
            let shards = node.engines.len() as u64;
            let publisher = node.name_on(0, "publisher");
            let publisher = node.connect(V5, &publisher);
            let far = node.name_on(node.engines.len() - 1, "far");
            let far = node.connect(V5, &far);
            let second = node.name_on(node.engines.len() - 1, "second");
            let second = node.connect(V5, &second);
            for round in 0..3 {
                node.subscribed(far, &[filter], 0);
                node.subscribed(second, &[filter], 0);
                node.unsubscribe(second, &[filter]);
                node.take(second);
                node.publish(publisher, "t", 1, 1, "x");
                assert_eq!(node.take(far).len(), 1);
                node.unsubscribe(far, &[filter]);
                node.take(far);
                node.publish(publisher, "t", 1, 1, "x");
                assert_eq!(node.stats().forwards_sent, if shards > 1 { round + 1 } else { 0 });
            }
        });
    }
}

/// A connection is moved to its home with what the client sent right behind CONNECT, wherever it comes in.
#[test]
fn a_moved_connection_goes_on() {
    in_every_node(|node| {
        let shards = node.engines.len();
        for home in 0..shards {
            let name = node.name_on(home, "client");
            for _ in 0..shards {
                let client = node.open(V5);
                let first = name.clone();
                let sendings: Vec<Sending> = vec![
                    Box::new(move |send| send(&sol_codec::Packet::Connect(connect(V5, &first)))),
                    Box::new(|send| send(&sol_codec::Packet::PingReq)),
                ];
                node.send_batch(client, sendings);
                node.expect(client, &["CONNACK 00", "PINGRESP"]);
                assert_eq!(node.shard_of(client), home);
                node.disconnect(client);
            }
        }
    });
}

/// A message may expire on its way to another shard: nobody there gets it [MQTT-3.3.2-5], and it is retained no more than
/// what it replaced.
#[test]
fn a_message_expires_on_its_way() {
    in_every_node(|node| {
        if node.engines.len() < 2 {
            return;
        }
        let (away, topic) = (node.name_on(1, "subscriber"), node.topic_on(1, "t"));
        let name = node.name_on(0, "publisher");
        let (publisher, subscriber) = (node.connect(V5, &name), node.connect(V5, &away));
        node.subscribed(subscriber, &[&topic], 1);
        node.retain(publisher, &topic, 0, 0, "old");
        node.take(subscriber);
        node.hold_mail();
        node.publish_with(publisher, &topic, 1, 1, "new", |publish| {
            publish.retain = true;
            publish.properties.message_expiry_interval = Some(1);
        });
        node.pass(Duration::from_secs(2));
        node.release_mail();
        node.expect(publisher, &["PUBACK #1"]);
        node.expect(subscriber, &[]);
        node.subscribe(subscriber, &[&topic], 1);
        node.expect(subscriber, &["SUBACK #1 [01]"]);
        assert_eq!(node.stats().publish_expired, 1);
    });
}

/// QoS 2 messages that a client sends again are acknowledged in the order in which it does so, though the first of them
/// were settled in between and the last was not [MQTT-4.6.0-3]; and each with what became of it.
#[test]
fn what_is_sent_again_is_acknowledged_in_order() {
    for version in [V311, V5] {
        in_every_node(|node| {
            if node.engines.len() < 2 {
                return;
            }
            let (name, topic) = (node.name_on(0, "publisher"), node.topic_on(1, "t"));
            let publisher = node.connect_durable(version, &name);
            node.hold_mail();
            for packet_id in 1..=3 {
                node.retain(publisher, &topic, 2, packet_id, "x");
            }
            node.deliver_one(0, 1);
            node.deliver_one(0, 1);
            // Its answer is posted when it has nothing else to do.
            node.run();
            node.deliver_all(1, 0);
            let first = node.take(publisher);
            assert_eq!(first, ["PUBREC #1", "PUBREC #2"].map(|line| told(version, line)));
            node.lose(publisher);
            let publisher = node.resume(version, &name, 3_600);
            node.expect(publisher, &["CONNACK 00 present"]);
            for packet_id in [1, 2, 3] {
                node.publish_with(publisher, &topic, 2, packet_id, "x", |publish| {
                    (publish.retain, publish.dup) = (true, true);
                });
            }
            node.release_mail();
            let got = node.take(publisher);
            let ids: Vec<u16> = got.iter().map(|line| packet_id_of(line)).collect();
            assert_eq!(ids, [1, 2, 3], "{got:?}");
            assert_eq!(got[2], told(version, "PUBREC #3"));
        });
    }
}

/// [MQTT-4.3.3-2] of 3.1.1, [MQTT-4.3.3-8] of 5.0: each QoS 2 PUBLISH is answered with a PUBREC, a repeat that comes while
/// the first waits too, and in the order in which they came; and the message is delivered once.
#[test]
fn each_repeat_has_a_pubrec_of_its_own() {
    for version in [V311, V5] {
        in_every_node(|node| {
            let shards = node.engines.len();
            let far = node.connect(V5, &node.name_on(shards - 1, "far"));
            node.subscribed(far, &["t"], 0);
            let publisher = node.connect(version, &node.name_on(0, "publisher"));
            node.hold_mail();
            for packet_id in [7, 7, 8, 7, 7, 8] {
                node.publish_with(publisher, "t", 2, packet_id, "x", |publish| publish.dup = true);
            }
            if shards > 1 {
                node.expect(publisher, &[]);
            }
            node.release_mail();
            let answers = [7, 7, 8, 7, 7, 8].map(|n| format!("PUBREC #{n}"));
            assert_eq!(node.take(publisher), answers);
            assert_eq!(node.take(far).len(), 2);
            for packet_id in [7, 8] {
                node.pubrel(publisher, packet_id);
                node.expect(publisher, &[&format!("PUBCOMP #{packet_id}")]);
            }
        });
    }
}

/// [MQTT-4.3.3-9]: a repeat of a message that is refused while it waits is refused too, and the identifier is free then.
#[test]
fn a_repeat_is_refused_with_the_first() {
    in_every_node(|node| {
        if node.engines.len() < 2 {
            return;
        }
        let topic = node.topic_on(1, "t");
        let publisher = node.connect(V5, &node.name_on(0, "publisher"));
        node.hold_mail();
        node.retain(publisher, &topic, 2, 7, "x");
        node.retain(publisher, &topic, 2, 8, "x");
        node.retain(publisher, &topic, 2, 7, "x");
        node.input(1, Input::Pressure(Level::Full));
        node.release_mail();
        node.expect(publisher, &["PUBREC #7 97", "PUBREC #8 97", "PUBREC #7 97"]);
        node.pubrel(publisher, 7);
        node.expect(publisher, &["PUBCOMP #7 92"]);
    });
}

/// A PUBREC that only repeats a refusal says nothing of the message that has the identifier since.
#[test]
fn a_repeated_refusal_leaves_the_next_message_alone() {
    in_every_node(|node| {
        if node.engines.len() < 3 {
            return;
        }
        let (refusing, slow, other) = (node.topic_on(1, "t"), node.topic_on(2, "t"), node.topic_on(0, "t"));
        let publisher = node.connect(V5, &node.name_on(0, "publisher"));
        let subscriber = node.connect(V5, &node.name_on(0, "subscriber"));
        node.subscribed(subscriber, &[&other], 0);
        node.hold_mail();
        node.retain(publisher, &refusing, 2, 7, "x");
        node.retain(publisher, &slow, 2, 8, "x");
        node.retain(publisher, &refusing, 2, 7, "x");
        node.input(1, Input::Pressure(Level::Full));
        node.deliver_all(0, 1);
        node.deliver_all(1, 0);
        node.expect(publisher, &["PUBREC #7 97"]);
        node.publish(publisher, &other, 2, 7, "next");
        node.release_mail();
        node.expect(publisher, &["PUBREC #8 10", "PUBREC #7 97", "PUBREC #7"]);
        node.publish(publisher, &other, 2, 7, "next");
        node.pubrel(publisher, 7);
        node.expect(publisher, &["PUBREC #7", "PUBCOMP #7"]);
        assert_eq!(node.take(subscriber).len(), 1, "what was taken is not delivered twice");
    });
}

/// A shard posts to one after the other: what it has sent to subscribers here may still be on its way to where it is
/// retained. So a replay from there waits until every shard has answered, though interest was confirmed long ago.
#[test]
fn a_replay_is_not_older_than_what_was_delivered_before_it() {
    for wildcard in [false, true] {
        in_every_node(|node| {
            if node.engines.len() < 3 {
                return;
            }
            let topic = node.topic_on(2, "t");
            let filter = if wildcard { "#" } else { &topic };
            let early = node.connect(V5, &node.name_on(0, "early"));
            node.subscribed(early, &[filter], 0);
            let late = node.connect(V5, &node.name_on(0, "late"));
            let publisher = node.connect(V5, &node.name_on(1, "publisher"));
            node.hold_mail();
            node.retain(publisher, &topic, 0, 0, "new");
            node.deliver_all(1, 0);
            assert_eq!(node.take(early).len(), 1);
            node.subscribe(late, &[filter], 0);
            // All but what the publisher's shard has posted.
            for (from, to) in [(0, 2), (2, 0), (0, 1), (0, 2), (2, 0)] {
                node.deliver_all(from, to);
            }
            node.expect(late, &[]);
            node.release_mail();
            let got = node.take(late);
            assert_eq!(got.len(), 2, "{got:?}");
            assert!(got[1].contains("\"new\""), "{got:?}");
        });
    }
}

/// A QoS 1 message that a client sends again is another one: its PUBACK says what became of it, not of the first.
#[test]
fn a_second_publish_has_an_answer_of_its_own() {
    in_every_node(|node| {
        if node.engines.len() < 2 {
            return;
        }
        let (name, topic) = (node.name_on(0, "publisher"), node.topic_on(1, "t"));
        let subscriber = node.name_on(0, "subscriber");
        let (publisher, subscriber) = (node.connect_durable(V5, &name), node.connect(V5, &subscriber));
        node.hold_mail();
        node.retain(publisher, &topic, 1, 1, "x");
        node.lose(publisher);
        node.subscribe(subscriber, &[&topic], 0);
        let publisher = node.resume(V5, &name, 3_600);
        node.publish_with(publisher, &topic, 1, 1, "x", |publish| {
            (publish.retain, publish.dup) = (true, true);
        });
        node.release_mail();
        node.expect(publisher, &["CONNACK 00 present", "PUBACK #1"]);
    });
}

/// A Subscription made while an earlier one's replay goes on gets the retained messages of its topics too, those that
/// came live before it among them [MQTT-3.3.1-9]; the earlier replay does not repeat them.
#[test]
fn a_later_subscription_is_sent_what_came_live() {
    in_every_node(|node| {
        let shards = node.engines.len();
        if shards < 2 {
            return;
        }
        let topic = node.topic_on(0, "t");
        let [subscriber, publisher] = ["subscriber", "publisher"].map(|name| {
            let name = node.name_on(0, name);
            node.connect(V5, &name)
        });
        node.hold_mail();
        node.subscribe(subscriber, &["#"], 0);
        for other in 1..shards {
            node.deliver_all(0, other);
            node.deliver_all(other, 0);
        }
        node.expect(subscriber, &["SUBACK #1 [00]"]);
        node.retain(publisher, &topic, 0, 0, "x");
        let live = node.take(subscriber);
        assert_eq!(live, [format!(r#"PUBLISH {topic} q0 "x""#)]);
        node.subscribe(subscriber, &[&topic], 0);
        node.release_mail();
        let got = node.take(subscriber);
        assert_eq!(
            got,
            ["SUBACK #1 [00]".into(), format!(r#"PUBLISH {topic} q0 retain "x""#)]
        );
    });
}

/// What a lost member of a Shared Subscription had not acknowledged does not go to another one once it has expired
/// [MQTT-3.3.2-5], whether the member may come back or not.
#[test]
fn what_has_expired_is_not_given_to_another_member() {
    for expiry in [0, 3_600] {
        in_every_node(|node| {
            let lost = node.connect_with(V5, "lost", move |connect| {
                connect.properties.session_expiry_interval = Some(expiry);
            });
            node.take(lost);
            node.subscribed(lost, &["$share/g/t"], 1);
            let publisher = node.connect(V5, "publisher");
            node.publish_with(publisher, "t", 1, 1, "x", |publish| {
                publish.properties.message_expiry_interval = Some(1);
            });
            node.expect(lost, &[r#"PUBLISH t q1 #1 expiry1 "x""#]);
            let other = node.connect(V5, "other");
            node.subscribed(other, &["$share/g/t"], 1);
            node.pass(Duration::from_secs(2));
            node.lose(lost);
            node.expect(other, &[]);
        });
    }
}

/// A message that a lost member of a Shared Subscription gives back is older than what is retained, and keeps no replay
/// from sending that.
#[test]
fn what_is_given_back_is_no_retained_update() {
    in_every_node(|node| {
        if node.engines.len() < 2 {
            return;
        }
        let topic = node.topic_on(0, "t");
        let share = format!("$share/g/{topic}");
        let [lost, other] = ["lost", "other"].map(|name| {
            let name = node.name_on(1, name);
            node.connect_durable(V5, &name)
        });
        node.subscribed(lost, &[&share], 1);
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, &topic, 1, 1, "old");
        node.retain(publisher, &topic, 0, 0, "new");
        node.subscribed(other, &[&share], 1);
        node.hold_mail();
        node.subscribe(other, &[&topic], 0);
        for shard in (0..node.engines.len()).filter(|&shard| shard != 1) {
            node.deliver_all(1, shard);
            node.deliver_all(shard, 1);
        }
        node.expect(other, &["SUBACK #1 [00]"]);
        node.lose(lost);
        let given = node.take(other);
        assert_eq!(given, [format!(r#"PUBLISH {topic} q1 #1 "old""#)]);
        node.release_mail();
        let replayed = node.take(other);
        assert_eq!(replayed, [format!(r#"PUBLISH {topic} q0 retain "new""#)]);
    });
}

/// An acknowledgement of a message that nobody has subscribed to.
fn told(version: sol_codec::ProtocolVersion, line: &str) -> String {
    if version == V5 {
        format!("{line} 10")
    } else {
        line.into()
    }
}
