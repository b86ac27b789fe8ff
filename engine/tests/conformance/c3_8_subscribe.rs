//! Section 3.8: SUBSCRIBE.

use std::num::NonZeroU32;

use sol_codec::{Packet, Subscribe, SubscribeProperties, Subscriptions, TopicFilter};
use sol_engine::EngineConfig;

use crate::support::*;

/// One SUBACK with the Packet Identifier of the SUBSCRIBE and one code a filter, in order: the granted QoS.
///
/// Proves 5.0: MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-3.8.4-6, MQTT-3.8.4-7, MQTT-3.9.3-1; 3.1.1: MQTT-3.8.4-1, MQTT-3.8.4-2,
/// MQTT-3.8.4-5, MQTT-3.9.3-1.
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

/// A SUBSCRIBE with several filters does what several SUBSCRIBEs do, retained messages included, and has one SUBACK.
///
/// Proves 5.0: MQTT-3.8.4-5; 3.1.1: MQTT-3.8.4-4.
#[test]
fn several_filters_are_several_subscribes() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        let filters = ["a", "b/+", "c/#"];
        let topics = ["a", "b/x", "c"];
        for topic in topics {
            node.retain(publisher, topic, 0, 0, "kept");
        }
        for version in [V311, V5] {
            let [together, apart] = ["together", "apart"].map(|name| node.connect(version, name));
            node.subscribe(together, &filters, 1);
            filters.iter().for_each(|filter| node.subscribe(apart, &[filter], 1));
            for topic in topics {
                node.publish(publisher, topic, 0, 0, "live");
            }
            let [mut one, mut three] = [together, apart].map(|client| node.take(client));
            assert_eq!(one.remove(0), "SUBACK #1 [01, 01, 01]");
            three.retain(|line| line != "SUBACK #1 [01]");
            one.sort();
            three.sort();
            assert_eq!(one.len(), 6);
            assert_eq!(one, three);
        }
    });
}

/// SUBSCRIBE has the flags 0010; with others it is malformed and ends the connection.
///
/// Proves 5.0: MQTT-3.8.1-1; 3.1.1: MQTT-3.8.1-1.
#[test]
fn subscribe_has_its_flags() {
    in_every_node(|node| {
        for (version, rest) in [
            (V311, &[6, 0, 1, 0, 1, b't', 0][..]),
            (V5, &[7, 0, 1, 0, 0, 1, b't', 0]),
        ] {
            for flags in 0..16 {
                let client = node.connect(version, "client");
                let packet = [&[0x80 | flags], rest].concat();
                if flags == 2 {
                    node.send_bytes(client, &packet);
                    node.expect(client, &["SUBACK #1 [00]"]);
                } else {
                    node.refuses_bytes(client, &packet, 0x81);
                }
            }
        }
    });
}

/// The reserved bits of the Subscription Options are 0, else the packet is malformed; so are QoS 3 and Retain Handling 3.
///
/// Proves 5.0: MQTT-3.8.3-5.
#[test]
fn reserved_options_end_the_connection() {
    in_every_node(|node| {
        for options in 0..=0xff_u8 {
            let client = node.connect(V5, "client");
            let packet = [0x82, 7, 0, 1, 0, 0, 1, b't', options];
            if options & 0xc0 != 0 {
                node.refuses_bytes(client, &packet, 0x81);
            } else if options & 0x03 < 3 && options & 0x30 < 0x30 {
                node.send_bytes(client, &packet);
                node.expect(client, &[&format!("SUBACK #1 [{:02x}]", options & 0x03)]);
            } else {
                node.send_bytes(client, &packet);
                assert_eq!(node.take(client).last().unwrap(), "CLOSE");
            }
        }
    });
}

/// A requested QoS above 2, or with any other bit set, is malformed.
///
/// Proves 3.1.1: MQTT-3.8.3-4.
#[test]
fn a_requested_qos_is_nothing_else() {
    in_every_node(|node| {
        for requested in 0..=0xff {
            let client = node.connect(V311, "client");
            let packet = [0x82, 6, 0, 1, 0, 1, b't', requested];
            if requested < 3 {
                node.send_bytes(client, &packet);
                node.expect(client, &[&format!("SUBACK #1 [{requested:02x}]")]);
            } else {
                node.refuses_bytes(client, &packet, 0x81);
            }
        }
    });
}

/// No Local on a Shared Subscription is a Protocol Error.
///
/// Proves 5.0: MQTT-3.8.3-4.
#[test]
fn no_local_on_a_shared_subscription_is_an_error() {
    in_every_node(|node| {
        for options in [0x04, 0x05, 0x0e] {
            let client = node.connect(V5, "client");
            let filter = b"$share/g/t";
            let packet = [&[0x82, 16, 0, 1, 0, 0, 10], &filter[..], &[options]].concat();
            node.refuses_bytes(client, &packet, 0x82);
        }
    });
}

/// On the wire a SUBACK has the codes that its protocol version knows, and never a Reason String or a User Property, so
/// that it is no longer than it must be.
///
/// Proves 5.0: MQTT-3.9.2-1, MQTT-3.9.2-2, MQTT-3.9.3-2; 3.1.1: MQTT-3.9.3-2.
#[test]
fn suback_on_the_wire() {
    let config = EngineConfig {
        subscriptions_max: 3,
        ..Default::default()
    };
    in_each_node(config, |node| {
        for version in [V311, V5] {
            node.keeps_bytes = false;
            let client = node.connect_with(version, "client", |connect| {
                connect.properties.maximum_packet_size = NonZeroU32::new(30);
            });
            node.take(client);
            node.keeps_bytes = true;
            for (level, filter) in ["a", "b", "c", "d"].into_iter().enumerate() {
                node.subscribe(client, &[filter], level.min(2) as u8);
            }
            let expected: &[[u8; 6]] = if version == V5 {
                &[
                    [0x90, 4, 0, 1, 0, 0x00],
                    [0x90, 4, 0, 1, 0, 0x01],
                    [0x90, 4, 0, 1, 0, 0x02],
                    [0x90, 4, 0, 1, 0, 0x97],
                ]
            } else {
                &[
                    [0x90, 3, 0, 1, 0x00, 0],
                    [0x90, 3, 0, 1, 0x01, 0],
                    [0x90, 3, 0, 1, 0x02, 0],
                    [0x90, 3, 0, 1, 0x80, 0],
                ]
            };
            let expected: Vec<_> = expected
                .iter()
                .map(|packet| &packet[..usize::from(packet[1]) + 2])
                .collect();
            assert_eq!(node.take_bytes(client), expected);
        }
    });
}

/// The same filter again replaces the Subscription, up and down, with its identifier and options.
///
/// Proves 5.0: MQTT-3.8.4-3.
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

/// Subscribing again replaces the Subscription, sends what is retained once more, and interrupts nothing.
///
/// Proves 5.0: MQTT-3.8.4-3, MQTT-3.8.4-4; 3.1.1: MQTT-3.8.4-3.
#[test]
fn subscribing_again_interrupts_nothing() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "t/kept", 0, 0, "kept");
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.subscribed(client, &["t/+"], 0);
            node.publish(publisher, "t/x", 1, 1, "one");
            node.subscribe(client, &["t/+"], 1);
            node.publish(publisher, "t/x", 1, 2, "two");
            node.subscribe(client, &["t/+"], 2);
            node.publish(publisher, "t/x", 2, 3, "three");
            node.pubrel(publisher, 3);
            node.expect(
                client,
                &[
                    r#"PUBLISH t/x q0 "one""#,
                    "SUBACK #1 [01]",
                    r#"PUBLISH t/kept q0 retain "kept""#,
                    r#"PUBLISH t/x q1 #1 "two""#,
                    "SUBACK #1 [02]",
                    r#"PUBLISH t/kept q0 retain "kept""#,
                    r#"PUBLISH t/x q2 #2 "three""#,
                ],
            );
            assert_eq!(node.stats().subscriptions, 1);
            node.disconnect(client);
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

/// Replacing a Subscription again and again loses no message.
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
///
/// Proves 5.0: MQTT-3.8.4-7, MQTT-3.9.3-1.
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
