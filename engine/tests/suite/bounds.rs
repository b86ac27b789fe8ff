//! Nothing that a client sends costs without limit or without a charge: work is cut into steps, and what is kept is
//! charged and bounded.

use sol_engine::EngineConfig;

use crate::support::*;

/// Whoever was given a Client Identifier cannot tell the next: it is no linear function of the one before.
#[test]
fn assigned_client_identifiers_cannot_be_predicted() {
    let mut node = Node::new(1, EngineConfig::default());
    let numbers: Vec<u64> = (0..4)
        .map(|_| {
            let client = node.connect(V5, "");
            let name = node.clients[client.0].connack.clone().unwrap().assigned_client_id;
            u64::from_str_radix(name.unwrap().rsplit('-').next().unwrap(), 16).unwrap()
        })
        .collect();
    let steps: Vec<u64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    // With d(n + 1) = a * d(n) for one a, d0 * d2 = d1 * d1.
    assert_ne!(steps[0].wrapping_mul(steps[2]), steps[1].wrapping_mul(steps[1]));
    assert!(numbers.iter().all(|&number| number > 1_000));
}

/// Topic Aliases of both directions are charged with their topics, and refunded with their connection.
#[test]
fn topic_aliases_are_charged() {
    in_every_node(|node| {
        let subscriber = node.connect_with(V5, "subscriber", |c| c.properties.topic_alias_maximum = Some(4));
        node.take(subscriber);
        node.subscribed(subscriber, &["#"], 0);
        let publisher = node.connect(V5, "publisher");
        let before = node.stats().memory_bytes;
        let topic = |n: u16| format!("{n}/{}", "long".repeat(250));
        for n in 1..=4 {
            node.publish_with(publisher, &topic(n), 0, 0, "x", move |p| {
                p.properties.topic_alias = sol_codec::TopicAlias::new(1 + n % 2);
            });
        }
        let charged = node.stats().memory_bytes - before;
        assert!((6_000..8_000).contains(&charged), "two in, four out: {charged}");
        node.lose(publisher);
        node.lose(subscriber);
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// A filter that is subscribed, given up and subscribed again before any shard has confirmed it waits for the latest
/// announcement, and for that alone.
#[test]
fn a_filter_waits_for_its_latest_announcement() {
    let mut node = Node::new(2, EngineConfig::default());
    let name = node.name_on(0, "subscriber");
    let subscriber = node.connect(V5, &name);
    node.held_links.push((1, 0));
    for _ in 0..3 {
        node.subscribe(subscriber, &["a", "b/+"], 1);
        node.unsubscribe(subscriber, &["a"]);
    }
    node.subscribe(subscriber, &["a", "b/+"], 1);
    let early = node.take(subscriber);
    assert!(early.iter().all(|line| line.starts_with("UNSUBACK")), "{early:?}");
    node.held_links.clear();
    node.run();
    node.expect(subscriber, &["SUBACK #1 [01, 01]"; 4]);
    node.subscribe(subscriber, &["a"], 0);
    node.expect(subscriber, &["SUBACK #1 [00]"]);
}
