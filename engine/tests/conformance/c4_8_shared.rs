//! Section 4.8.2: Shared Subscriptions.

use std::collections::BTreeMap;
use std::time::Duration;

use sol_codec::ReasonCode;
use sol_engine::EngineConfig;

use crate::support::*;

/// Clients `prefix0`, `prefix1`, …, spread over the shards, all members of `$share/g/t`.
fn members(node: &mut Node, prefix: &str, count: usize, level: u8) -> Vec<Client> {
    let shards = node.engines.len();
    (0..count)
        .map(|n| {
            let name = node.name_on(n % shards, &format!("{prefix}{n}-"));
            let client = node.connect(V5, &name);
            node.subscribed(client, &["$share/g/t"], level);
            client
        })
        .collect()
}

fn publishes(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| line.starts_with("PUBLISH"))
        .filter_map(|line| Some(line.split('"').nth(1)?.to_owned()))
        .collect()
}

/// Every message goes to exactly one member, whoever publishes; members take turns, also across shards.
#[test]
fn each_message_goes_to_one_member() {
    in_every_node(|node| {
        for count in 1..=6 {
            let clients = members(node, "m", count, 1);
            let publisher = node.connect(V5, "publisher");
            for n in 0..120 {
                node.publish(publisher, "t", 1, 1, &n.to_string());
            }
            let shares: Vec<_> = clients.iter().map(|&client| publishes(&node.drink(client))).collect();
            let mut all: Vec<u32> = shares
                .iter()
                .flatten()
                .map(|payload| payload.parse().unwrap())
                .collect();
            all.sort_unstable();
            assert_eq!(all, (0..120).collect::<Vec<_>>());
            for share in &shares {
                assert!(
                    share.len() * count * 2 >= 120,
                    "{count}: {:?}",
                    shares.iter().map(Vec::len).collect::<Vec<_>>()
                );
            }
            clients.into_iter().for_each(|client| node.disconnect(client));
        }
        assert_eq!(node.stats().publish_dropped, 0);
    });
}

/// A shard's share follows the number of its members.
#[test]
fn shards_are_weighed_by_their_members() {
    in_every_node(|node| {
        let shards = node.engines.len();
        let mut clients = Vec::new();
        for n in 0..4 {
            let name = node.name_on(if n == 0 { 0 } else { shards - 1 }, &format!("m{n}-"));
            let client = node.connect(V5, &name);
            node.subscribed(client, &["$share/g/t"], 0);
            clients.push(client);
        }
        let publisher = node.connect(V5, "publisher");
        for _ in 0..400 {
            node.publish(publisher, "t", 0, 0, "x");
        }
        for client in clients {
            let got = node.take(client).len();
            assert!((70..=130).contains(&got), "{got}");
        }
    });
}

/// The QoS granted to the member that gets it counts.
///
/// Proves 5.0: MQTT-4.8.2-3.
#[test]
fn the_members_qos_counts() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.subscribe_with(client, &["$share/g/t"], Some(5), options(1));
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 2, 1, "x");
        node.publish(publisher, "t", 0, 0, "y");
        node.expect(
            client,
            &[
                "SUBACK #1 [01]",
                r#"PUBLISH t q1 #1 ids[5] "x""#,
                r#"PUBLISH t q0 ids[5] "y""#,
            ],
        );
    });
}

/// Groups are told apart by ShareName and by filter; a normal Subscription of a member is another matter: it gets both.
#[test]
fn groups_and_normal_subscriptions_are_apart() {
    in_every_node(|node| {
        let clients: Vec<_> = ["a", "b", "c", "d"].map(|name| node.connect(V5, name)).into();
        for (client, filters) in clients.iter().zip([
            &["$share/one/t"][..],
            &["$share/two/t"][..],
            &["$share/one/+"][..],
            &["$share/one/t", "t"][..],
        ]) {
            node.subscribed(*client, filters, 1);
        }
        let publisher = node.connect(V5, "publisher");
        for _ in 0..20 {
            node.publish(publisher, "t", 1, 1, "x");
        }
        let counts: Vec<_> = clients
            .iter()
            .map(|&client| publishes(&node.drink(client)).len())
            .collect();
        assert_eq!(counts[0] + counts[3], 40, "{counts:?}");
        assert_eq!((counts[1], counts[2]), (20, 20));
        assert!(counts[0] >= 5 && counts[3] >= 25, "{counts:?}");
    });
}

/// A member with a normal Subscription too gets two copies, each with the identifier of its own Subscription.
///
/// Proves 5.0: MQTT-3.3.4-5.
#[test]
fn each_copy_has_its_identifier() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        node.subscribe_with(client, &["$share/g/t"], Some(5), options(1));
        node.subscribe_with(client, &["t"], Some(6), options(1));
        node.subscribe_with(client, &["$share/h/#"], Some(7), options(1));
        node.take(client);
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, "x");
        let mut ids: Vec<_> = node
            .take(client)
            .iter()
            .map(|line| line.split(' ').find(|word| word.starts_with("ids")).unwrap().to_owned())
            .collect();
        ids.sort();
        assert_eq!(ids, ["ids[5]", "ids[6]", "ids[7]"]);
    });
}

/// Subscribes with this filter, as bytes.
fn subscribe(filter: &str) -> Vec<u8> {
    let rest = [&[0, 1, 0, 0, filter.len() as u8], filter.as_bytes(), &[0]].concat();
    [&[0x82, rest.len() as u8], &rest[..]].concat()
}

/// A Shared Subscription has a ShareName of at least one character.
///
/// Proves 5.0: MQTT-4.8.2-1.
#[test]
fn a_share_name_has_a_character() {
    in_every_node(|node| {
        for filter in ["$share//t", "$share//", "$share///"] {
            let client = node.connect(V5, "client");
            node.refuses_bytes(client, &subscribe(filter), 0x8f);
        }
        let client = node.connect(V5, "client");
        node.send_bytes(client, &subscribe("$share/g/t"));
        node.expect(client, &["SUBACK #1 [00]"]);
        assert_eq!(node.stats().shared_subscriptions, 1);
    });
}

/// A ShareName has no wildcard, and `/` and a filter follow it.
///
/// Proves 5.0: MQTT-4.8.2-2.
#[test]
fn a_share_name_is_followed_by_a_filter() {
    in_every_node(|node| {
        for filter in [
            "$share/+/t",
            "$share/g#/t",
            "$share/#",
            "$share/g+g/t",
            "$share/g",
            "$share/g/",
            "$share/",
        ] {
            let client = node.connect(V5, "client");
            node.refuses_bytes(client, &subscribe(filter), 0x8f);
        }
        let client = node.connect(V5, "client");
        node.send_bytes(client, &subscribe("$share/g//"));
        node.expect(client, &["SUBACK #1 [00]"]);
    });
}

/// A member lost: what it did not acknowledge at QoS 1 goes to another member; nothing is lost and order is kept.
#[test]
fn unacknowledged_messages_are_given_back() {
    in_every_node(|node| {
        let clients = members(node, "m", 3, 1);
        let publisher = node.connect(V5, "publisher");
        for n in 0..30 {
            node.publish(publisher, "t", 1, 1, &n.to_string());
        }
        let lost = publishes(&node.take(clients[0]));
        assert!(!lost.is_empty());
        node.lose(clients[0]);
        let mut again = BTreeMap::new();
        for &client in &clients[1..] {
            for payload in publishes(&node.drink(client)) {
                *again.entry(payload.clone()).or_insert(0) += 1;
            }
        }
        assert_eq!(again.len(), 30, "each reached one who stayed");
        assert!(again.values().all(|&count| count == 1));
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// The same for a durable member, as soon as another is online; its own come back to it otherwise.
#[test]
fn a_durable_member_gives_back_too() {
    in_every_node(|node| {
        let durable = node.connect_durable(V5, "durable");
        node.subscribed(durable, &["$share/g/t"], 1);
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, "alone");
        node.expect(durable, &[r#"PUBLISH t q1 #1 "alone""#]);
        node.lose(durable);
        let durable = node.resume(V5, "durable", 1_000);
        node.expect(durable, &["CONNACK 00 present", r#"PUBLISH t q1 #1 dup "alone""#]);
        let other = node.connect(V5, "other");
        node.subscribed(other, &["$share/g/t"], 1);
        node.lose(durable);
        node.expect(other, &[r#"PUBLISH t q1 #1 "alone""#]);
        node.puback(other, 1);
        let durable = node.resume(V5, "durable", 1_000);
        node.expect(durable, &["CONNACK 00 present"]);
    });
}

/// A QoS 2 delivery that has begun stays with its Session: it is completed there, or ends with it.
///
/// Proves 5.0: MQTT-4.1.0-2, MQTT-4.8.2-4, MQTT-4.8.2-5.
#[test]
fn begun_qos2_stays_with_its_session() {
    in_every_node(|node| {
        for completes in [true, false] {
            let durable = node.connect_durable(V5, "durable");
            node.subscribed(durable, &["$share/g/t"], 2);
            let publisher = node.connect(V5, "publisher");
            node.publish(publisher, "t", 2, 1, "one");
            node.publish(publisher, "t", 2, 2, "two");
            node.pubrec(durable, 2);
            let got = node.take(durable);
            assert_eq!(got.len(), 3);
            let (one, two) = (packet_id_of(&got[0]), packet_id_of(&got[1]));
            let other = node.connect(V5, "other");
            node.subscribed(other, &["$share/g/t"], 2);
            node.lose(durable);
            node.expect(other, &[]);
            if completes {
                let durable = node.resume(V5, "durable", 1_000);
                let expected = [
                    "CONNACK 00 present".to_owned(),
                    format!("PUBLISH t q2 #{one} dup \"one\""),
                    format!("PUBREL #{two}"),
                ];
                assert_eq!(node.take(durable), expected);
                node.connect(V5, "durable");
            } else {
                node.pass(Duration::from_secs(4_000));
            }
            node.expect(other, &[]);
            node.disconnect(other);
            assert_eq!(node.stats().stored_messages, 0);
        }
    });
}

/// A member that answers with an error has had the message: nobody else gets it.
///
/// Proves 5.0: MQTT-4.4.0-2, MQTT-4.8.2-6.
#[test]
fn an_error_does_not_pass_the_message_on() {
    in_every_node(|node| {
        let clients = members(node, "m", 2, 2);
        let publisher = node.connect(V5, "publisher");
        for level in 1..=2 {
            node.publish(publisher, "t", level, 1, "x");
            node.publish(publisher, "t", level, 2, "x");
        }
        let mut count = 0;
        for &client in &clients {
            for line in node.take(client) {
                let id = packet_id_of(&line);
                count += 1;
                match line.contains(" q1 ") {
                    true => node.puback_code(client, id, ReasonCode::UnspecifiedError),
                    false => node.pubrec_code(client, id, ReasonCode::UnspecifiedError),
                }
            }
        }
        assert_eq!(count, 4);
        node.lose(clients[0]);
        node.expect(clients[1], &[]);
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// With nobody online the message waits at a durable member, on whatever shard, and is counted as matched.
#[test]
fn offline_durable_members_keep_messages() {
    in_every_node(|node| {
        let shards = node.engines.len();
        for shard in 0..shards {
            let name = node.name_on(shard, "durable");
            let durable = node.connect_durable(V5, &name);
            node.subscribed(durable, &["$share/g/t"], 1);
            node.lose(durable);
            let publisher = node.connect(V5, "publisher");
            node.publish(publisher, "t", 1, 1, "x");
            node.publish(publisher, "t", 0, 0, "zero");
            node.expect(publisher, &["PUBACK #1"]);
            let durable = node.resume(V5, &name, 0);
            node.expect(durable, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "x""#]);
            node.puback(durable, 1);
            node.disconnect(durable);
        }
        // The QoS 0 message had nobody to go to.
        assert_eq!(node.stats().publish_dropped, shards as u64);
    });
}

/// Members that are online are preferred to those who are away.
#[test]
fn online_members_come_first() {
    in_every_node(|node| {
        let shards = node.engines.len();
        for n in 0..4 {
            let name = node.name_on(n % shards, &format!("away{n}-"));
            let away = node.connect_durable(V5, &name);
            node.subscribed(away, &["$share/g/t"], 1);
            node.lose(away);
        }
        let there = node.connect(V5, "there");
        node.subscribed(there, &["$share/g/t"], 1);
        let publisher = node.connect(V5, "publisher");
        for _ in 0..10 {
            node.publish(publisher, "t", 1, 1, "x");
        }
        assert_eq!(publishes(&node.drink(there)).len(), 10);
    });
}

/// The last member's end: what it held is dropped and counted; later messages match nobody.
#[test]
fn without_a_member_drops_are_counted() {
    in_every_node(|node| {
        let clients = members(node, "m", 1, 1);
        let publisher = node.connect(V5, "publisher");
        for _ in 0..3 {
            node.publish(publisher, "t", 1, 1, "x");
        }
        node.take(publisher);
        node.lose(clients[0]);
        assert_eq!(node.stats().publish_dropped, 3);
        node.publish(publisher, "t", 1, 1, "x");
        node.expect(publisher, &["PUBACK #1 10"]);
        assert_eq!(node.stats().stored_messages, 0);
        assert_eq!(node.stats().shared_subscriptions, 0);
    });
}

/// A member that unsubscribes completes what it has, and gets nothing new.
#[test]
fn a_member_that_unsubscribes() {
    in_every_node(|node| {
        let clients = members(node, "m", 2, 1);
        let publisher = node.connect(V5, "publisher");
        for _ in 0..4 {
            node.publish(publisher, "t", 1, 1, "x");
        }
        let had = node.take(clients[0]).len();
        node.unsubscribe(clients[0], &["$share/g/t"]);
        node.expect(clients[0], &["UNSUBACK #2 [00]"]);
        for _ in 0..4 {
            node.publish(publisher, "t", 1, 1, "x");
        }
        node.expect(clients[0], &[]);
        assert_eq!(publishes(&node.drink(clients[1])).len(), 8 - had);
    });
}

/// A member without room lets the next one have it; only where none has room is the publisher told.
#[test]
fn a_full_member_is_passed_over() {
    let config = EngineConfig {
        queue_max: 1,
        inflight_max: 1,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let name = node.name_on(0, "a");
        let other = node.name_on(0, "b");
        let clients = [node.connect(V5, &name), node.connect(V5, &other)];
        for client in clients {
            node.subscribed(client, &["$share/g/t"], 1);
        }
        let publisher = node.connect(V5, "publisher");
        for n in 1..=5 {
            node.publish(publisher, "t", 1, n, &n.to_string());
        }
        node.expect(
            publisher,
            &["PUBACK #1", "PUBACK #2", "PUBACK #3", "PUBACK #4", "PUBACK #5 97"],
        );
        let all: Vec<_> = clients
            .iter()
            .flat_map(|&client| publishes(&node.drink(client)))
            .collect();
        assert_eq!(all.len(), 4);
    });
}

/// A message on its way to a shard whose members have just left is passed on once, to a shard that has some.
#[test]
fn a_message_for_members_that_left_is_passed_on() {
    in_every_node(|node| {
        let shards = node.engines.len();
        if shards < 3 {
            return;
        }
        let publisher_name = node.name_on(0, "publisher");
        let publisher = node.connect(V5, &publisher_name);
        let near = node.name_on(1, "near");
        let near = node.connect(V5, &near);
        node.subscribed(near, &["$share/g/t"], 1);
        let far = node.name_on(2, "far");
        let far = node.connect(V5, &far);
        node.subscribed(far, &["$share/g/t"], 1);
        node.hold_mail();
        for n in 1..=4 {
            node.publish(publisher, "t", 1, n, &n.to_string());
        }
        node.disconnect(near);
        node.release_mail();
        assert_eq!(node.take(publisher).len(), 4);
        assert_eq!(publishes(&node.drink(far)).len(), 4);
        assert_eq!(node.stats().publish_dropped, 0);
    });
}
