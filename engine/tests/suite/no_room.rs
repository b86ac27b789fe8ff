//! While the journal has no room, what is new and would be written is refused, or waits; all else goes on.

use std::sync::Arc;
use std::time::Duration;

use sol_engine::{Access, Cause, EngineConfig, Event, Input, Level, QueueFull, Rule, RuleSet, Rules};

use crate::support::*;

/// Nodes whose journal has no room once `prepare` has run, and has had some again at the end.
fn without_room<T>(prepare: impl Fn(&mut Node) -> T, test: impl Fn(&mut Node, T) -> Client, then: &[&str]) {
    for queue_full in [QueueFull::Refuse, QueueFull::DropOldest] {
        let config = EngineConfig {
            journal: true,
            queue_full,
            ..Default::default()
        };
        in_each_node(config, |node| {
            let prepared = prepare(node);
            let before = node.store.facts();
            node.input_all(|| Input::JournalFull(true));
            let client = test(node, prepared);
            assert_eq!(node.store.facts(), before, "what was written without room");
            node.input_all(|| Input::JournalFull(false));
            node.run();
            node.expect(client, then);
            assert_eq!(node.stats().publish_dropped, 0);
            node.check();
        });
    }
}

/// A subscriber of `t` at QoS 2 on the last shard whose Session ends with its connection, and a publisher beside it.
fn passing(node: &mut Node, version: sol_codec::ProtocolVersion) -> (Client, Client) {
    let last = node.engines.len() - 1;
    let subscriber = node.connect(V5, &node.name_on(last, "subscriber"));
    node.subscribed(subscriber, &["t"], 2);
    (node.connect(version, &node.name_on(last, "publisher")), subscriber)
}

/// Clients without a lasting Session come, subscribe and publish to each other, as if there were no journal.
#[test]
fn what_writes_nothing_goes_on() {
    for version in [V311, V5] {
        without_room(
            |node| passing(node, version),
            |node, (publisher, subscriber)| {
                node.publish(publisher, "t", 1, 1, "x");
                node.publish(publisher, "t", 2, 2, "y");
                node.pubrel(publisher, 2);
                node.expect(publisher, &["PUBACK #1", "PUBREC #2", "PUBCOMP #2"]);
                node.expect(subscriber, &[r#"PUBLISH t q1 #1 "x""#, r#"PUBLISH t q2 #2 "y""#]);
                let new = node.connect(version, "new");
                node.subscribed(new, &["new/#", "$share/g/new"], 1);
                node.publish(new, "new", 0, 0, "own");
                node.expect(new, &[r#"PUBLISH new q0 "own""#, r#"PUBLISH new q0 "own""#]);
                publisher
            },
            &[],
        );
    }
}

/// A 5.0 publisher hears 0x97 for what a durable Session would be owed, for what would be retained, and for an inbound
/// identifier that would be kept; wherever those are.
#[test]
fn what_would_be_written_is_refused() {
    let prepare = |node: &mut Node| {
        let durable = node.connect_durable(V5, &node.name_on(0, "durable"));
        node.subscribed(durable, &["t", "$share/g/shared"], 2);
        node.subscribed(durable, &["zero"], 0);
        let (publisher, _) = passing(node, V5);
        (publisher, node.connect_durable(V5, "lasting"), durable)
    };
    without_room(
        prepare,
        |node, (publisher, lasting, durable)| {
            node.publish(publisher, "t", 1, 1, "x");
            node.publish(publisher, "t", 2, 2, "y");
            node.publish(publisher, "shared", 1, 3, "z");
            node.retain(publisher, "r", 1, 4, "kept");
            node.publish(lasting, "nobody", 2, 5, "");
            let mut got = [node.take(publisher), node.take(lasting)].concat();
            got.sort();
            let refused = [
                "PUBACK #1 97",
                "PUBACK #3 97",
                "PUBACK #4 97",
                "PUBREC #2 97",
                "PUBREC #5 97",
            ];
            assert_eq!(got, refused);
            node.publish(publisher, "zero", 1, 1, "granted 0");
            node.publish(lasting, "nobody", 1, 1, "");
            node.expect(publisher, &["PUBACK #1"]);
            node.expect(lasting, &["PUBACK #1 10"]);
            node.expect(durable, &[r#"PUBLISH zero q0 "granted 0""#]);
            publisher
        },
        &[],
    );
}

/// A Shared Subscription's message goes to a member elsewhere for whom nothing is written, where it would be for those at the
/// publisher's own shard.
#[test]
fn a_member_elsewhere_takes_what_would_be_written_here() {
    let config = EngineConfig {
        journal: true,
        ..Default::default()
    };
    let mut node = Node::new(3, config);
    let durable = node.connect_durable(V5, &node.name_on(0, "durable"));
    node.subscribed(durable, &["$share/g/t"], 1);
    let passing = node.connect(V5, &node.name_on(1, "passing"));
    node.subscribed(passing, &["$share/g/t"], 1);
    let publisher = node.connect(V5, &node.name_on(0, "publisher"));
    node.input_all(|| Input::JournalFull(true));
    for n in 1..=4 {
        node.publish(publisher, "t", 1, n, "x");
    }
    node.expect(publisher, &["PUBACK #1", "PUBACK #2", "PUBACK #3", "PUBACK #4"]);
    node.expect(durable, &[]);
    assert_eq!(node.take(passing).len(), 4);
}

/// Whoever may not read a message is not owed it, so that nothing of it is written.
#[test]
fn what_nobody_may_read_goes_on() {
    let mut rules = RuleSet::default();
    rules.anonymous.push(Rule::new(Access::Write, "#"));
    rules.anonymous.push(Rule::new(Access::Read, "open/#"));
    let config = EngineConfig {
        journal: true,
        rights: vec![Some(Arc::new(Rules::new(rules)))],
        ..Default::default()
    };
    let mut node = Node::new(1, config);
    let durable = node.connect_durable(V5, "durable");
    node.subscribed(durable, &["+/#", "$share/g/+/#"], 1);
    node.input_all(|| Input::JournalFull(true));
    for (version, code) in [(V311, ""), (V5, " 97")] {
        let publisher = node.connect(version, "publisher");
        node.publish(publisher, "secret", 1, 1, "x");
        node.expect(publisher, &["PUBACK #1"]);
        node.publish(publisher, "open/x", 1, 2, "x");
        let answer = format!("PUBACK #2{code}");
        assert_eq!(node.take(publisher), if version == V5 { vec![answer] } else { vec![] });
    }
    node.expect(durable, &[]);
}

/// A 3.1.1 publisher cannot be told and waits, and is served when there is room.
#[test]
fn who_cannot_be_told_waits() {
    let prepare = |node: &mut Node| {
        let durable = node.connect_durable(V5, "durable");
        node.subscribed(durable, &["t", "$share/g/shared"], 2);
        node.lose(durable);
        node.connect(V311, "publisher")
    };
    without_room(
        prepare,
        |node, publisher| {
            node.publish(publisher, "t", 1, 1, "x");
            node.publish(publisher, "shared", 2, 2, "y");
            node.retain(publisher, "r", 1, 3, "kept");
            node.ping(publisher);
            node.expect(publisher, &["PINGRESP"]);
            publisher
        },
        &["PUBACK #1", "PUBREC #2", "PUBACK #3"],
    );
}

/// A Session that is away and is owed what is published to `t`, and two clients of 3.1.1 that could publish it.
fn two_who_may_wait(node: &mut Node) -> (Client, Client) {
    let durable = node.connect_durable(V5, "durable");
    node.subscribed(durable, &["t"], 2);
    node.lose(durable);
    (node.connect(V311, "publisher"), node.connect(V311, "other"))
}

/// A 3.1.1 publisher waits for half a minute for room on the disk, its Keep Alive kept all the while, and is closed then and no
/// moment before; that is told as the journal's doing, and counted, and nothing is written of what it published.
#[test]
fn nobody_waits_for_room_for_ever() {
    without_room(
        two_who_may_wait,
        |node, (publisher, other)| {
            node.publish(publisher, "t", 1, 1, "x");
            node.pass(Duration::from_secs(20));
            node.publish(publisher, "t", 2, 2, "behind it");
            node.ping(publisher);
            node.pass(Duration::from_millis(9_999));
            node.expect(publisher, &["PINGRESP"]);
            assert_eq!(node.stats().parked_closed, 0);
            // A timer's tick is 8.4 ms.
            node.pass(Duration::from_millis(10));
            node.expect(publisher, &["CLOSE"]);
            assert_eq!(node.stats().parked_closed, 1);
            let closed =
                |event: &&Event| matches!(event, Event::Disconnected { cause, .. } if *cause == Cause::Unwritten);
            assert_eq!(node.events.iter().filter(closed).count(), 1);
            node.ping(other);
            node.expect(other, &["PINGRESP"]);
            other
        },
        &[],
    );
}

/// Who waited for memory first, and for room on the disk when there was some, is told of the disk.
#[test]
fn the_last_thing_waited_for_is_told() {
    without_room(
        two_who_may_wait,
        |node, (publisher, other)| {
            node.input_all(|| Input::Pressure(Level::Full));
            node.publish(publisher, "t", 1, 1, "x");
            node.input_all(|| Input::Pressure(Level::Normal));
            node.pass(Duration::from_secs(31));
            let closed =
                |event: &Event| matches!(event, Event::Disconnected { cause, .. } if *cause == Cause::Unwritten);
            assert!(node.events.iter().any(closed));
            other
        },
        &[],
    );
}

/// More than may wait for room ends the connection at once, and it is the journal that is named.
#[test]
fn the_wait_for_room_is_limited() {
    let config = EngineConfig {
        journal: true,
        parked_bytes_max: 3_000,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V311, "publisher");
        node.input_all(|| Input::JournalFull(true));
        let long = "x".repeat(800);
        for n in 1..=3 {
            node.retain(publisher, "r", 1, n, &long);
        }
        node.expect(publisher, &[]);
        node.retain(publisher, "r", 1, 4, &long);
        node.expect(publisher, &["CLOSE"]);
        assert_eq!(node.stats().parked_closed, 1);
        let closed = |event: &Event| matches!(event, Event::Disconnected { cause, .. } if *cause == Cause::Unwritten);
        assert!(node.events.iter().any(closed));
    });
}

/// What waits for memory and writes nothing goes on when there is some, though others wait for the disk, and what is behind those.
#[test]
fn who_waits_for_memory_does_not_wait_for_the_disk() {
    let prepare = |node: &mut Node| {
        let durable = node.connect_durable(V5, "durable");
        node.subscribed(durable, &["t"], 1);
        node.lose(durable);
        let (publisher, subscriber) = passing(node, V311);
        node.subscribed(subscriber, &["other"], 1);
        (node.connect(V311, "before"), publisher, subscriber)
    };
    without_room(
        prepare,
        |node, (before, publisher, subscriber)| {
            node.publish(before, "t", 1, 1, "written");
            node.input_all(|| Input::Pressure(Level::Full));
            node.publish(before, "other", 1, 2, "behind it");
            node.publish(publisher, "other", 1, 1, "x");
            node.publish(publisher, "t", 1, 2, "written");
            node.expect(publisher, &[]);
            node.input_all(|| Input::Pressure(Level::Normal));
            node.expect(publisher, &["PUBACK #1"]);
            node.expect(subscriber, &[r#"PUBLISH other q1 #1 "x""#]);
            node.expect(before, &[]);
            before
        },
        &["PUBACK #1", "PUBACK #2"],
    );
}

/// What was taken in while there was room is written where it arrives, whatever there is by then.
#[test]
fn what_was_taken_before_is_written() {
    let config = EngineConfig {
        journal: true,
        ..Default::default()
    };
    let mut node = Node::new(2, config);
    let durable = node.connect_durable(V5, &node.name_on(1, "durable"));
    node.subscribed(durable, &["t", "$share/g/t"], 2);
    node.lose(durable);
    let publisher = node.connect(V311, &node.name_on(0, "publisher"));
    node.hold_mail();
    node.publish(publisher, "t", 1, 1, "x");
    node.input_all(|| Input::JournalFull(true));
    node.release_mail();
    node.expect(publisher, &["PUBACK #1"]);
    let facts = node.store.facts();
    assert_eq!(
        facts.iter().filter(|fact| fact.starts_with("reference")).count(),
        2,
        "{facts:?}"
    );
}

/// Durable Sessions that are new, new Wills, and new Subscriptions are refused; Sessions that are there come back, may replace a
/// Subscription, take what is theirs, and may go.
#[test]
fn sessions_do_not_grow() {
    let prepare = |node: &mut Node| {
        let durable = node.connect_durable(V5, "durable");
        node.subscribed(durable, &["t"], 1);
        node.publish(durable, "t", 1, 1, "x");
        assert_eq!(node.take(durable).len(), 2);
        node.lose(durable);
    };
    without_room(
        prepare,
        |node, ()| {
            for version in [V311, V5] {
                let new = node.resume(version, "new", 100);
                assert_eq!(node.take(new).first().map(String::as_str), Some("CONNACK 97"));
            }
            assert_eq!(node.stats().full_journal, 2);
            for (name, expiry) in [("new", 0), ("durable", 3_600)] {
                let client = node.connect_with(V5, name, move |connect| {
                    connect.clean_start = false;
                    connect.will = Some(will("w", &[0; 10_000], 1));
                    connect.properties.session_expiry_interval = Some(expiry);
                });
                node.expect(client, &["CONNACK 97", "CLOSE"]);
            }
            let durable = node.resume(V5, "durable", 3_600);
            node.expect(durable, &["CONNACK 00 present", r#"PUBLISH t q1 #1 dup "x""#]);
            node.subscribe(durable, &["more", "$share/g/more", "t"], 1);
            node.expect(durable, &["SUBACK #1 [97, 97, 01]"]);
            let gone = node
                .store
                .facts()
                .into_iter()
                .filter(|fact| fact.starts_with("reference"));
            assert_eq!(gone.count(), 1);
            durable
        },
        &[],
    );
}

/// A lasting Session that subscribes again waits for the retained messages that it would be owed until there is room, as does one
/// whose replay a restart cut short. To others they come at once.
#[test]
fn replays_that_would_write_wait() {
    let config = EngineConfig {
        journal: true,
        inflight_max: 2,
        ..Default::default()
    };
    in_each_node(config, |before| {
        let publisher = before.connect(V5, "publisher");
        for n in 0..6 {
            before.retain(publisher, &format!("r/{n}"), 1, 1, "kept");
        }
        let [open, done] = ["open", "done"].map(|name| before.connect_durable(V5, name));
        before.subscribe(open, &["r/+"], 1);
        before.subscribe(done, &["r/+"], 1);
        before.drink(done);
        let shards = before.engines.len() as u16;
        let mut node = before.restart(shards, Duration::ZERO);
        let references = |node: &Node| -> Vec<String> {
            let facts = node.store.facts().into_iter();
            facts.filter(|fact| fact.starts_with("reference")).collect()
        };
        let published = |lines: &[String]| lines.iter().filter(|line| line.starts_with("PUBLISH")).count();
        assert_eq!(references(&node).len(), 2);
        node.input_all(|| Input::JournalFull(true));
        let [open, done] = ["open", "done"].map(|name| node.resume(V5, name, 3_600));
        node.subscribe(done, &["r/+"], 1);
        node.expect(done, &["CONNACK 00 present", "SUBACK #1 [01]"]);
        assert_eq!(published(&node.drink(open)), 2, "what had begun");
        assert_eq!(references(&node), Vec::<String>::new());
        let passing = node.connect(V5, "passing");
        node.subscribe(passing, &["r/+"], 1);
        assert_eq!(published(&node.drink(passing)), 6);
        // Who was away when there was room again has them when it comes back.
        node.lose(open);
        node.input_all(|| Input::JournalFull(false));
        let open = node.resume(V5, "open", 3_600);
        for client in [open, done] {
            assert_eq!(published(&node.drink(client)), 6);
        }
        node.check();
    });
}

/// Where no Session outlives its connection, whatever its client asks for, it is not written either.
#[test]
fn what_the_configuration_ends_goes_on() {
    let config = EngineConfig {
        journal: true,
        session_expiry_max: 0,
        ..Default::default()
    };
    in_each_node(config, |node| {
        node.input_all(|| Input::JournalFull(true));
        let client = node.resume(V5, "client", 100);
        node.expect(client, &["CONNACK 00"]);
        assert!(node.store.facts().is_empty());
    });
}

/// What is retained at QoS 0 is promised nothing: it is given out and kept in memory, and what it replaced does not come back.
/// What clears is taken, as all deletions are.
#[test]
fn what_is_retained_at_qos_0_stays_in_memory() {
    let config = EngineConfig {
        journal: true,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "r", 1, 1, "old");
        node.retain(publisher, "cleared", 1, 2, "old");
        node.take(publisher);
        node.input_all(|| Input::JournalFull(true));
        node.retain(publisher, "r", 0, 0, "new");
        node.retain(publisher, "cleared", 1, 2, "");
        node.expect(publisher, &["PUBACK #2 10"]);
        let subscriber = node.connect(V5, "subscriber");
        node.subscribe(subscriber, &["#"], 1);
        node.expect(subscriber, &["SUBACK #1 [01]", r#"PUBLISH r q0 retain "new""#]);
        assert!(node.store.facts().is_empty(), "{:?}", node.store.facts());
        node.input_all(|| Input::JournalFull(false));
        node.retain(publisher, "r", 0, 0, "newer");
        assert_eq!(node.store.facts().len(), 1);
    });
}
