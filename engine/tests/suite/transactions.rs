//! What several calls or shards write because of one thing is kept together or not at all.

use std::time::Duration;

use sol_codec::{Disconnect, Packet, ReasonCode};
use sol_engine::EngineConfig;

use crate::support::*;

const SHARDS: u16 = 3;

fn with_journal(tray_max: usize) -> EngineConfig {
    EngineConfig {
        journal: true,
        tray_max,
        ..Default::default()
    }
}

/// A publisher whose Session is kept, on shard 0, and durable subscribers of `t` on each shard, who have left.
fn scene(shards: u16, subscribers: usize, tray_max: usize) -> (Node, Client, Vec<String>) {
    let mut node = Node::new(shards, with_journal(tray_max));
    let names: Vec<_> = (0..subscribers)
        .map(|n| node.name_on(n % usize::from(shards), &format!("durable{n}-")))
        .collect();
    for name in &names {
        let client = node.connect_durable(V5, name);
        node.subscribed(client, &["t"], 2);
        node.lose(client);
    }
    let publisher = node.name_on(0, "publisher");
    let publisher = node.connect_durable(V5, &publisher);
    (node, publisher, names)
}

/// How many messages are owed, and how many inbound identifiers are noted.
fn kept(facts: &[String]) -> (usize, usize) {
    let count = |what: &str| facts.iter().filter(|fact| fact.starts_with(what)).count();
    (count("reference"), count("inbound"))
}

/// Each of these got the message once, and nobody another one.
fn each_gets_it_once(node: &mut Node, names: &[String]) {
    for name in names {
        let client = node.resume(V5, name, 1_000);
        let got = node.drink(client);
        let publishes = got.iter().filter(|line| line.starts_with("PUBLISH")).count();
        assert_eq!(publishes, 1, "{name}: {got:?}");
    }
}

/// A QoS 2 PUBLISH that goes to several shards is kept by all of them at once, with its Packet Identifier; and whenever the
/// broker dies, its repeat makes it one message for everybody [MQTT-4.3.3-10].
#[test]
fn a_publish_to_several_shards_is_kept_at_once() {
    for dies_after in 0..6 {
        let (mut node, publisher, names) = scene(SHARDS, 6, 64);
        node.hold_mail();
        node.publish(publisher, "t", 2, 7, "x");
        let mut delivered = 0;
        for link in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            if delivered == dies_after {
                break;
            }
            node.deliver_all(link.0, link.1);
            delivered += 1;
            let all = delivered >= 2;
            assert_eq!(
                kept(&node.store.facts()),
                if all { (6, 1) } else { (0, 0) },
                "{delivered}"
            );
        }
        let answered = node.take(publisher) == ["PUBREC #7"];
        assert_eq!(answered, delivered == 4, "{delivered}");
        let name = node.name_on(0, "publisher");
        let mut node = node.restart(2, Duration::ZERO);
        let publisher = node.resume(V5, &name, 1_000);
        node.expect(publisher, &["CONNACK 00 present"]);
        node.publish_with(publisher, "t", 2, 7, "x", |publish| publish.dup = true);
        node.expect(publisher, &["PUBREC #7"]);
        node.pubrel(publisher, 7);
        node.expect(publisher, &["PUBCOMP #7"]);
        each_gets_it_once(&mut node, &names);
        node.check();
    }
}

/// A publisher's QoS 2 messages are kept in the order in which they came, wherever they go: what is not would be published
/// again after a crash, and come behind what is [MQTT-4.6.0-5]. Other publishers are not held up.
#[test]
fn publishes_of_a_session_are_kept_in_order() {
    let (mut node, publisher, _) = scene(SHARDS, 3, 64);
    let local = node.name_on(0, "local");
    let local = node.connect_durable(V5, &local);
    node.subscribed(local, &["here"], 2);
    node.lose(local);
    let other = node.name_on(0, "other");
    let other = node.connect_durable(V5, &other);
    node.hold_mail();
    node.publish(publisher, "t", 2, 1, "x");
    node.publish(publisher, "here", 2, 2, "x");
    node.publish(other, "here", 2, 1, "x");
    assert_eq!(kept(&node.store.facts()), (1, 1), "what the other one published");
    node.expect(other, &["PUBREC #1"]);
    node.expect(publisher, &[]);
    for link in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        node.deliver_all(link.0, link.1);
    }
    assert_eq!(kept(&node.store.facts()), (5, 3));
    node.expect(publisher, &["PUBREC #1", "PUBREC #2"]);
    node.check();
}

/// A fan-out that takes several calls is kept at once, and so is what waits in line behind it; whatever comes meanwhile is
/// kept without waiting for them.
#[test]
fn a_fan_out_in_steps_is_kept_at_once() {
    for shards in 1..=SHARDS {
        let (mut node, publisher, names) = scene(shards, 9, 2);
        node.store.watch();
        let send =
            |packet_id| -> Sending { Box::new(move |send| send(&Packet::Publish(publish("t", 2, packet_id, b"x")))) };
        node.send_batch(publisher, vec![send(1), send(2), send(3)]);
        let seen: Vec<_> = node.store.take_history().iter().map(|facts| kept(facts)).collect();
        assert!(seen.iter().all(|&(owed, noted)| owed == 9 * noted), "{seen:?}");
        assert_eq!(seen.last(), Some(&(27, 3)));
        node.expect(publisher, &["PUBREC #1", "PUBREC #2", "PUBREC #3"]);
        assert!(!node.writer.waits());
        assert_eq!(names.len(), 9);
        node.check();
    }
}

/// A Will that has to wait in line is either still to be published or owed to all who get it, whenever the broker dies.
#[test]
fn a_will_in_line_is_never_lost() {
    for shards in 1..=SHARDS {
        let (mut node, _, names) = scene(shards, 6, 2);
        let name = node.name_on(0, "willing");
        let client = node.connect_with(V5, &name, |connect| {
            connect.will = Some(will("t", b"gone", 2));
            connect.properties.session_expiry_interval = Some(1_000);
        });
        node.take(client);
        node.store.watch();
        let publish: Sending = Box::new(|send| send(&Packet::Publish(publish("t", 2, 1, b"x"))));
        let leave: Sending = Box::new(|send| {
            send(&Packet::Disconnect(Disconnect::new(
                ReasonCode::DisconnectWithWillMessage,
            )));
        });
        node.send_batch(client, vec![publish, leave]);
        let mut fired = false;
        for facts in node.store.take_history() {
            let (owed, _) = kept(&facts);
            let is_armed = facts.iter().any(|fact| fact.ends_with(" will"));
            fired |= !is_armed;
            assert!(owed == 0 || owed == 6 || owed == 12, "{facts:?}");
            assert_eq!(is_armed, owed < 12, "{facts:?}");
        }
        assert!(fired);
        assert_eq!(names.len(), 6);
        node.check();
    }
}

/// What a lost member of a Shared Subscription held goes to a member on another shard without ever being owed to nobody, or
/// to both [MQTT-4.8.2-5].
#[test]
fn what_is_given_back_is_owed_to_one() {
    let mut node = Node::new(2, with_journal(64));
    let (here, there) = (node.name_on(0, "here"), node.name_on(1, "there"));
    let here = node.connect_durable(V5, &here);
    node.subscribed(here, &["$share/g/t"], 1);
    let publisher = node.connect(V5, "publisher");
    for n in 1..=5 {
        node.publish(publisher, "t", 1, n, "x");
    }
    let there = node.connect_durable(V5, &there);
    node.subscribed(there, &["$share/g/t"], 1);
    node.store.watch();
    node.disconnect_with(here, ReasonCode::Success, Some(0));
    let seen: Vec<_> = node.store.take_history().iter().map(|facts| kept(facts).0).collect();
    assert!(!seen.is_empty() && seen.iter().all(|&owed| owed == 5), "{seen:?}");
    assert_eq!(node.take(there).len(), 5);
    node.check();
}
