//! What waits until its records are on stable storage, and what does not.

use std::num::NonZeroU16;

use sol_engine::{EngineConfig, Input};

use crate::support::*;

/// Nodes with a journal, where nothing becomes durable by itself once `prepare` has run.
fn with_journal<T>(prepare: impl Fn(&mut Node) -> T, test: impl Fn(&mut Node, T)) {
    let config = EngineConfig {
        journal: true,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let prepared = prepare(node);
        node.durable_at_once = false;
        test(node, prepared);
    });
}

/// A publisher of 5.0 without a lasting Session, and a durable subscriber of `t` at QoS 2 on the last shard.
fn pair(node: &mut Node) -> (Client, Client) {
    let publisher = node.connect(V5, "publisher");
    let name = node.name_on(node.engines.len() - 1, "durable");
    let durable = node.connect_durable(V5, &name);
    node.subscribed(durable, &["t"], 2);
    (publisher, durable)
}

/// PUBACK and PUBREC wait where a durable Session is to keep the message, on whatever shard.
#[test]
fn acknowledgements_of_kept_messages_wait() {
    with_journal(pair, |node, (publisher, durable)| {
        node.lose(durable);
        node.publish(publisher, "t", 1, 1, "x");
        node.publish(publisher, "t", 2, 2, "y");
        node.publish(publisher, "t", 0, 0, "zero");
        node.ping(publisher);
        node.expect(publisher, &["PINGRESP"]);
        node.make_all_durable();
        let mut got = node.take(publisher);
        got.sort();
        assert_eq!(got, ["PUBACK #1", "PUBREC #2"]);
    });
}

/// A publish that nobody keeps waits for nothing.
#[test]
fn publishes_that_write_nothing_do_not_wait() {
    let prepare = |node: &mut Node| {
        let subscriber = node.connect(V5, "subscriber");
        node.subscribed(subscriber, &["t"], 2);
        (node.connect(V5, "publisher"), subscriber)
    };
    with_journal(prepare, |node, (publisher, subscriber)| {
        node.publish(publisher, "t", 1, 1, "x");
        node.publish(publisher, "t", 2, 2, "y");
        node.publish(publisher, "nobody", 1, 3, "");
        node.expect(publisher, &["PUBACK #1", "PUBREC #2", "PUBACK #3 10"]);
        node.pubrel(publisher, 2);
        node.expect(publisher, &["PUBCOMP #2"]);
        node.expect(subscriber, &[r#"PUBLISH t q1 #1 "x""#, r#"PUBLISH t q2 #2 "y""#]);
        node.pubrec(subscriber, 2);
        node.expect(subscriber, &["PUBREL #2"]);
    });
}

/// A retained message is on stable storage before it is acknowledged; at QoS 0 nobody waits.
#[test]
fn retained_messages_wait() {
    with_journal(
        |node| node.connect(V5, "publisher"),
        |node, publisher| {
            for shard in 0..node.engines.len() {
                let topic = node.topic_on(shard, "r");
                node.retain(publisher, &topic, 1, 1, "x");
                node.expect(publisher, &[]);
                node.make_all_durable();
                node.expect(publisher, &["PUBACK #1 10"]);
                node.retain(publisher, &topic, 0, 0, "y");
            }
        },
    );
}

/// The inbound identifier of a durable publisher is kept before PUBREC, and forgotten before PUBCOMP. A repeat waits with
/// the first.
#[test]
fn inbound_identifiers_wait() {
    with_journal(
        |node| node.connect_durable(V5, "publisher"),
        |node, publisher| {
            node.publish(publisher, "t", 2, 1, "x");
            node.publish(publisher, "t", 2, 1, "x");
            node.expect(publisher, &[]);
            node.make_all_durable();
            node.expect(publisher, &["PUBREC #1 10", "PUBREC #1"]);
            node.pubrel(publisher, 1);
            node.expect(publisher, &[]);
            node.pubrel(publisher, 1);
            node.expect(publisher, &[]);
            node.make_all_durable();
            node.expect(publisher, &["PUBCOMP #1", "PUBCOMP #1 92"]);
        },
    );
}

/// CONNACK, SUBACK and UNSUBACK of durable Sessions wait; those of others do not, but for a CONNACK that says that such a Session
/// has ended [MQTT-3.1.2-4].
#[test]
fn changes_of_durable_sessions_wait() {
    with_journal(
        |_| {},
        |node, ()| {
            for version in [V311, V5] {
                let durable = node.resume(version, "durable", 100);
                node.expect(durable, &[]);
                node.make_all_durable();
                node.expect(durable, &["CONNACK 00"]);
                node.subscribe(durable, &["a", "$share/g/b"], 1);
                node.run();
                node.expect(durable, &[]);
                node.make_all_durable();
                node.expect(durable, &["SUBACK #1 [01, 01]"]);
                node.unsubscribe(durable, &["a", "nothing"]);
                node.expect(durable, &[]);
                node.make_all_durable();
                node.expect(durable, &["UNSUBACK #2 [00, 11]"]);
                node.unsubscribe(durable, &["nothing"]);
                node.expect(durable, &["UNSUBACK #2 [11]"]);

                let short = node.connect(version, "short");
                node.subscribe(short, &["a"], 1);
                node.unsubscribe(short, &["a"]);
                node.expect(short, &["SUBACK #1 [01]", "UNSUBACK #2 [00]"]);
                node.disconnect(short);
                let clean = node.connect_with(version, "durable", |_| {});
                node.expect(clean, &[]);
                node.make_all_durable();
                node.expect(clean, &["CONNACK 00"]);
                node.disconnect(clean);
            }
        },
    );
}

/// Out of a durable Session: QoS 1 leaves at once, a QoS 2 PUBLISH and its PUBREL only when they are kept.
#[test]
fn qos2_out_of_a_durable_session_waits() {
    with_journal(pair, |node, (publisher, durable)| {
        node.publish(publisher, "t", 1, 1, "one");
        node.publish(publisher, "t", 2, 2, "two");
        node.expect(durable, &[r#"PUBLISH t q1 #1 "one""#]);
        node.make_all_durable();
        node.expect(durable, &[r#"PUBLISH t q2 #2 "two""#]);
        node.puback(durable, 1);
        node.pubrec(durable, 2);
        node.pubrec(durable, 2);
        node.expect(durable, &[]);
        node.make_all_durable();
        node.expect(durable, &["PUBREL #2"]);
        node.pubcomp(durable, 2);
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// [MQTT-3.2.0-1]: what waited for the journal when its connection was lost comes after the CONNACK of the next, once.
#[test]
fn nothing_comes_before_connack() {
    for released in [false, true] {
        with_journal(pair, |node, (publisher, durable)| {
            let last = node.engines.len() - 1;
            let name = node.name_on(last, "durable");
            node.publish(publisher, "t", 2, 2, "two");
            if released {
                node.make_all_durable();
                node.expect(durable, &[r#"PUBLISH t q2 #1 "two""#]);
                node.pubrec(durable, 1);
            }
            node.expect(durable, &[]);
            node.lose(durable);
            let durable = node.resume(V5, &name, 3_600);
            node.expect(durable, &[]);
            node.make_all_durable();
            let expected = if released {
                "PUBREL #1"
            } else {
                r#"PUBLISH t q2 #1 "two""#
            };
            node.expect(durable, &["CONNACK 00 present", expected]);
            node.make_all_durable();
            node.expect(durable, &[]);
        });
    }
}

/// A connection that is lost, or taken over, while its CONNACK waits leaves a sound Session behind.
#[test]
fn a_connack_that_nobody_waits_for() {
    with_journal(
        |_| {},
        |node, ()| {
            let lost = node.resume(V5, "durable", 100);
            node.lose(lost);
            let taken = node.resume(V5, "durable", 100);
            let taker = node.resume(V5, "durable", 100);
            node.make_all_durable();
            node.expect(lost, &[]);
            node.expect(taken, &["CLOSE"]);
            node.expect(taker, &["CONNACK 00 present"]);
            assert_eq!(node.stats().clients_connected, 1);
        },
    );
}

/// What clears a topic that was cleared a moment before, or where nothing written is retained any more, waits for that: else
/// what was retained could be back after a crash though its publisher has heard that it is not.
#[test]
fn what_is_cleared_already_waits_for_what_cleared_it() {
    let prepare = |node: &mut Node| {
        let [first, second] = ["first", "second"].map(|name| node.connect(V5, name));
        for topic in ["r", "gone"] {
            node.retain(first, topic, 1, 1, "kept");
            node.take(first);
        }
        (first, second)
    };
    with_journal(prepare, |node, (first, second)| {
        node.retain(first, "r", 1, 1, "");
        node.retain(second, "r", 1, 2, "");
        node.expect(second, &[]);
        node.make_all_durable();
        node.expect(first, &["PUBACK #1 10"]);
        node.expect(second, &["PUBACK #2 10"]);
        node.retain(second, "r", 2, 3, "");
        node.expect(second, &["PUBREC #3 10"]);
        node.input_all(|| Input::JournalFull(true));
        node.retain(first, "gone", 0, 0, "in memory");
        node.retain(second, "gone", 1, 4, "");
        node.expect(second, &[]);
        node.make_all_durable();
        node.expect(second, &["PUBACK #4 10"]);
    });
}

/// Acknowledgements behind one that waits for the journal keep their order.
#[test]
fn order_holds_while_the_journal_is_slow() {
    with_journal(pair, |node, (publisher, durable)| {
        node.lose(durable);
        node.publish(publisher, "t", 1, 1, "kept");
        node.publish(publisher, "nobody", 1, 2, "");
        node.expect(publisher, &[]);
        node.make_all_durable();
        node.expect(publisher, &["PUBACK #1", "PUBACK #2 10"]);
    });
}

/// A QoS 2 message whose refusal waits its turn counts once towards Receive Maximum: a client that keeps to it is not
/// told 0x93 [MQTT-3.3.4-9].
#[test]
fn a_refusal_that_waits_counts_once() {
    let config = EngineConfig {
        journal: true,
        queue_max: 2,
        receive_maximum: NonZeroU16::new(4).unwrap(),
        ..Default::default()
    };
    let mut node = Node::new(1, config);
    let durable = node.connect_durable(V5, "durable");
    node.subscribed(durable, &["t"], 2);
    node.lose(durable);
    let publisher = node.connect(V5, "publisher");
    node.durable_at_once = false;
    for packet_id in 1..=4 {
        node.publish(publisher, "t", 2, packet_id, "x");
    }
    node.expect(publisher, &[]);
    node.make_all_durable();
    node.expect(publisher, &["PUBREC #1", "PUBREC #2", "PUBREC #3 97", "PUBREC #4 97"]);
}

/// While the journal has too much to do, whoever adds to it is not read; whoever does not is.
#[test]
fn who_writes_waits_for_a_busy_journal() {
    with_journal(pair, |node, (publisher, durable)| {
        node.lose(durable);
        node.durable_at_once = true;
        node.input_all(|| Input::JournalBusy(true));
        node.publish(publisher, "nobody", 1, 1, "x");
        node.expect(publisher, &["PUBACK #1 10"]);
        node.publish(publisher, "t", 0, 0, "not kept");
        node.ping(publisher);
        node.expect(publisher, &["PINGRESP"]);
        node.retain(publisher, "r", 1, 2, "kept");
        node.make_all_durable();
        node.ping(publisher);
        node.expect(publisher, &["PUBACK #2 10"]);
        node.input_all(|| Input::JournalBusy(false));
        node.run();
        node.expect(publisher, &["PINGRESP"]);
    });
}

/// What the broker says of itself is not kept: in the next process it would not be true.
#[test]
fn the_brokers_own_messages_are_not_kept() {
    with_journal(pair, |node, (publisher, durable)| {
        node.durable_at_once = true;
        node.lose(durable);
        node.retain(publisher, "own", 1, 1, "a client's");
        let before = node.store.facts();
        assert!(before.iter().any(|fact| fact.starts_with("retained")), "{before:?}");
        let shard = node.shard_of(publisher);
        for _ in 0..2 {
            let own = |topic| Input::Publish(Box::new(sol_engine::Message::new(topic, b"1", true)));
            node.input(shard, own("$SYS/broker/uptime"));
            node.input(shard, own("own"));
            node.run();
        }
        let after = node.store.facts();
        assert!(!after.iter().any(|fact| fact.starts_with("retained")), "{after:?}");
    });
}
