//! What shards tell each other of the members of Shared Subscriptions.

use sol_engine::{Effects, EngineConfig, Input, ShardId};

use crate::support::*;

/// Filters of so many Shared Subscriptions.
fn shared(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("$share/g/{n}")).collect()
}

/// A durable client on shard 0 with Shared Subscriptions to `filters`, at a node of several engines.
fn member(node: &mut Node, filters: &[String]) -> (String, Client) {
    let name = node.name_on(0, "member");
    let client = node.connect_durable(V5, &name);
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    node.subscribed(client, &filters, 1);
    (name, client)
}

const fn peer(full: bool) -> Input<'static> {
    Input::Peer {
        shard: ShardId(1),
        full,
    }
}

/// Whoever takes its own Session over again and again posts nothing: each group has as many members online as before.
#[test]
fn a_takeover_tells_nobody_of_its_groups() {
    in_every_node(|node| {
        if node.engines.len() == 1 {
            return;
        }
        let (name, _) = member(node, &shared(20));
        node.hold_mail();
        for _ in 0..10 {
            let client = node.resume(V5, &name, 3_600);
            node.expect(client, &["CONNACK 00 present"]);
        }
        assert_eq!(node.waiting_mail(0, 1), 0);
        node.release_mail();
    });
}

/// A second SUBSCRIBE to a Shared Subscription tells nobody anything, but its SUBACK waits for the same confirmation as
/// the first one's.
#[test]
fn a_repeated_subscribe_waits_for_the_first() {
    in_every_node(|node| {
        if node.engines.len() == 1 {
            return;
        }
        let name = node.name_on(0, "member");
        let client = node.connect(V5, &name);
        node.hold_mail();
        node.subscribe(client, &["$share/g/t"], 0);
        node.subscribe(client, &["$share/g/t"], 1);
        assert_eq!(node.waiting_mail(0, 1), 1);
        node.expect(client, &[]);
        node.release_mail();
        node.expect(client, &["SUBACK #1 [00]", "SUBACK #1 [01]"]);
        node.hold_mail();
        node.subscribe(client, &["$share/g/t"], 2);
        node.expect(client, &["SUBACK #1 [02]"]);
        assert_eq!(node.waiting_mail(0, 1), 0);
        node.release_mail();
    });
}

/// While a mailbox is full nobody is told of members that come and go; when it has room, what changed is told once, and
/// what did not is not.
#[test]
fn a_full_peer_is_told_of_members_later() {
    in_every_node(|node| {
        if node.engines.len() == 1 {
            return;
        }
        let (name, mut client) = member(node, &shared(20));
        node.hold_mail();
        for stays in [true, false] {
            node.input(0, peer(true));
            for _ in 0..10 {
                node.lose(client);
                client = node.resume(V5, &name, 3_600);
                node.expect(client, &["CONNACK 00 present"]);
            }
            if !stays {
                node.lose(client);
            }
            assert_eq!(node.waiting_mail(0, 1), 0, "the mailbox is full");
            node.input(0, peer(false));
            node.run();
            assert_eq!(node.waiting_mail(0, 1), if stays { 0 } else { 20 });
        }
        node.release_mail();
    });
}

/// What one turn tells of members is bounded in bytes, and the rest is told in the next ones, in turn: a group that
/// changes all the time keeps no other from being told.
#[test]
fn members_are_told_in_portions() {
    let config = EngineConfig {
        subscriptions_max: 10_000,
        ..EngineConfig::default()
    };
    let mut node = Node::new(2, config);
    let long: Vec<_> = (0..20).map(|n| format!("$share/g/{n:08000}")).collect();
    let (_, client) = member(&mut node, &long);
    node.hold_mail();
    let (connection, now) = (node.clients[client.0].connection, node.now);
    let mut effects = Effects::default();
    let engine = &mut node.engines[0];
    let _ = engine.handle(now, Input::Closed(connection), &mut effects);
    assert_eq!(effects.forwards.len(), 0);
    let mut told = Vec::new();
    while told.len() < 20 {
        engine.tick(now, &mut effects);
        told.push(effects.forwards.len());
        effects.clear();
        if engine.next_deadline().is_none_or(|at| at > now.mono) {
            break;
        }
    }
    assert_eq!(told, [9, 9, 2]);
}

/// A member that waits for its CONNACK is not online yet: what only members online can have goes to another one, on
/// whatever shard.
#[test]
fn a_member_without_connack_is_not_picked() {
    for shards in 1..=3 {
        let mut node = Node::new(
            shards,
            EngineConfig {
                journal: true,
                ..EngineConfig::default()
            },
        );
        let (name, client) = member(&mut node, &[String::from("$share/g/t")]);
        node.lose(client);
        let other = node.name_on(usize::from(shards) - 1, "other");
        let other = node.connect(V5, &other);
        node.subscribed(other, &["$share/g/t"], 1);
        let publisher = node.name_on(usize::from(shards) - 1, "publisher");
        let publisher = node.connect(V5, &publisher);
        node.durable_at_once = false;
        let client = node.resume(V5, &name, 3_600);
        for _ in 0..6 {
            node.publish(publisher, "t", 0, 0, "x");
        }
        assert_eq!(node.take(other).len(), 6);
        node.durable_at_once = true;
        node.make_all_durable();
        node.run();
        node.expect(client, &["CONNACK 00 present"]);
        for _ in 0..6 {
            node.publish(publisher, "t", 0, 0, "x");
        }
        assert_eq!((node.take(client).len(), node.take(other).len()), (3, 3));
        node.check();
    }
}

/// A restart tells each group once, however many members it has.
#[test]
fn a_restart_tells_each_group_once() {
    let config = EngineConfig {
        journal: true,
        ..EngineConfig::default()
    };
    let mut node = Node::new(2, config.clone());
    for n in 0..10 {
        let name = node.name_on(0, &format!("m{n}-"));
        let client = node.connect_durable(V5, &name);
        node.subscribed(client, &["$share/g/t", "$share/h/t"], 1);
    }
    let mut store = node.store.clone();
    store.next_process();
    let mut restarted = Node::new(2, config);
    store.restore(&mut restarted.engines);
    let mut effects = Effects::default();
    restarted.engines[0].restored(node.now, &mut effects);
    assert_eq!(effects.forwards.len(), 2);
}
