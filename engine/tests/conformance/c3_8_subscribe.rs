//! Section 3.8: SUBSCRIBE.

use sol_codec::{Packet, Subscribe, SubscribeProperties, Subscriptions, TopicFilter};
use sol_engine::EngineConfig;

use crate::support::*;

/// [MQTT-3.8.4-1, -2, -5, -6, -7], [MQTT-3.9.3-1]: one SUBACK with one code a filter, in order; the granted QoS.
#[test]
fn suback_has_a_code_for_each_filter() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.send(client, |send| {
                let requests = [("a", 2), ("b/+", 0), ("$share/g/c", 1), ("#", 2)]
                    .map(|(filter, level)| (TopicFilter::new(filter).unwrap(), options(level)));
                send(&Packet::Subscribe(Subscribe {
                    packet_id: id(65_535),
                    properties: SubscribeProperties::default(),
                    filters: Subscriptions::from_slice(&requests),
                }));
            });
            node.expect(client, &["SUBACK #65535 [02, 00, 01, 02]"]);
            assert_eq!(node.stats().subscriptions, 4);
            node.disconnect(client);
            assert_eq!(node.stats().subscriptions, 0);
        }
    });
}

/// [MQTT-3.8.4-3]: the same filter again replaces the Subscription, up and down, with its identifier and options.
#[test]
fn the_same_filter_replaces() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        let client = node.connect(V5, "client");
        for filter in ["t", "+"] {
            for (level, subscription_id, expected) in
                [(0, Some(1), "q0 ids[1]"), (2, Some(2), "q2 ids[2]"), (1, None, "q1")]
            {
                node.subscribe_with(client, &[filter], subscription_id, options(level));
                assert_eq!(node.take(client), [format!("SUBACK #1 [{level:02x}]")]);
                node.publish(publisher, "t", 2, 1, "x");
                node.pubrel(publisher, 1);
                let got = node.drink(client);
                let id = packet_id_of(&got[0]);
                assert_eq!(
                    got[0].replace(&format!("#{id} "), ""),
                    format!("PUBLISH t {expected} \"x\"")
                );
            }
            node.unsubscribe(client, &[filter]);
            node.expect(client, &["UNSUBACK #2 [00]"]);
            assert_eq!(node.stats().subscriptions, 0);
        }
    });
}

/// One SUBSCRIBE may name a filter twice: the last one stands.
#[test]
fn a_filter_named_twice_stands_once() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.subscribe(client, &["t", "t"], 1);
        node.expect(client, &["SUBACK #1 [01, 01]"]);
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, "x");
        node.expect(client, &[r#"PUBLISH t q1 #1 "x""#]);
        assert_eq!(node.stats().subscriptions, 1);
    });
}

/// SUBACK comes before the retained messages that it brings, also of several filters, whichever shard has them.
#[test]
fn suback_comes_before_retained_messages() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for topic in ["a", "b", "c/d"] {
            node.retain(publisher, topic, 0, 0, "x");
        }
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.subscribe(client, &["a", "b", "c/#"], 0);
            let got = node.take(client);
            assert_eq!(got[0], "SUBACK #1 [00, 00, 00]");
            assert_eq!(got.len(), 4);
        }
    });
}

/// [MQTT-3.8.4-4]: replacing a Subscription loses no message.
#[test]
fn replacing_loses_nothing() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        let publisher = node.connect(V5, "publisher");
        node.subscribed(client, &["t"], 1);
        for n in 0..20 {
            node.publish(publisher, "t", 1, 1, &n.to_string());
            node.subscribe(client, &["t"], 1);
        }
        let got = node.drink(client);
        assert_eq!(got.iter().filter(|line| line.starts_with("PUBLISH")).count(), 20);
    });
}

/// `subscriptions_max` refuses a new one with 0x97 and lets an old one be replaced; the others of the SUBSCRIBE stand.
#[test]
fn subscriptions_max_is_kept() {
    let config = EngineConfig {
        subscriptions_max: 2,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let client = node.connect(V5, "client");
        node.subscribe(client, &["a", "$share/g/b", "c", "$share/g/d"], 1);
        node.expect(client, &["SUBACK #1 [01, 01, 97, 97]"]);
        node.subscribe(client, &["$share/g/b", "a", "e"], 2);
        node.expect(client, &["SUBACK #1 [02, 02, 97]"]);
        node.unsubscribe(client, &["a"]);
        node.subscribe(client, &["c"], 1);
        node.expect(client, &["UNSUBACK #2 [00]", "SUBACK #1 [01]"]);
        assert_eq!(node.stats().subscriptions, 2);
    });
}

/// A client gets what it publishes itself, if it subscribed to it.
#[test]
fn a_client_hears_itself() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.subscribed(client, &["t"], 1);
            node.publish(client, "t", 1, 1, "x");
            let mut got = node.take(client);
            got.sort();
            assert_eq!(got, ["PUBACK #1", r#"PUBLISH t q1 #1 "x""#]);
        }
    });
}

/// A thousand Subscriptions of one client match the one that they should.
#[test]
fn many_subscriptions_of_one_client() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        for n in 0..1_000u32 {
            let filter = if n % 3 == 0 {
                format!("w/{n}/+")
            } else {
                format!("w/{n}/x")
            };
            node.subscribe_with(client, &[&filter], Some(n + 1), options(0));
        }
        node.take(client);
        let publisher = node.connect(V5, "publisher");
        for n in [0, 1, 500, 998, 999] {
            node.publish(publisher, &format!("w/{n}/x"), 0, 0, "");
            assert_eq!(node.take(client), [format!("PUBLISH w/{n}/x q0 ids[{}] \"\"", n + 1)]);
        }
        node.disconnect(client);
        assert_eq!(node.stats().subscriptions, 0);
    });
}
