//! Section 3.1.2.11: what a client asks for in the Properties of its CONNECT holds for all that is sent to it.

use std::num::NonZeroU32;

use sol_codec::{DecodeLimits, Decoded, Direction, Packet, ReasonCode, decode};
use sol_engine::EngineConfig;

use crate::support::*;

/// Connects with a Maximum Packet Size and a Session that stays.
fn small(node: &mut Node, maximum_packet_size: u32) -> Client {
    node.connect_with(V5, "small", move |connect| {
        connect.clean_start = false;
        connect.properties.maximum_packet_size = NonZeroU32::new(maximum_packet_size);
        connect.properties.session_expiry_interval = Some(100);
    })
}

/// The size of the CONNACK that [`small`] is answered with.
const CONNACK_BYTES: u32 = 16;

/// A CONNACK that the client would not take is not sent: the client is refused, in as few bytes as there are.
///
/// Proves 5.0: MQTT-3.1.2-24, MQTT-3.2.2-6, MQTT-3.2.2-19, MQTT-3.2.2-20.
#[test]
fn a_connack_is_no_larger_than_the_client_takes() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        let fits = small(node, CONNACK_BYTES);
        assert_eq!(node.take_bytes(fits)[0].len(), CONNACK_BYTES as usize);
        node.lose(fits);
        let owner = small(node, CONNACK_BYTES);
        node.take_bytes(owner);
        for (maximum, expected) in [
            (CONNACK_BYTES - 1, &[&b"\x20\x03\x00\x83\x00"[..]][..]),
            (5, &[b"\x20\x03\x00\x83\x00"]),
            (4, &[]),
            (1, &[]),
        ] {
            let client = small(node, maximum);
            assert!(!node.clients[client.0].open);
            assert_eq!(node.take_bytes(client), expected);
            let unnamed = node.connect_with(V5, &"x".repeat(2_000), move |connect| {
                connect.properties.maximum_packet_size = NonZeroU32::new(maximum);
            });
            assert_eq!(node.take_bytes(unnamed).len(), expected.len());
        }
        // Who was refused took nothing over.
        node.ping(owner);
        node.expect(owner, &["PINGRESP"]);
    });
}

/// A SUBACK or UNSUBACK that the client would not take is not sent: nothing is done, and the connection ends.
///
/// Proves 5.0: MQTT-3.1.2-24.
#[test]
fn an_answer_is_no_larger_than_the_client_takes() {
    in_every_node(|node| {
        let filters: Vec<_> = (0..12).map(|n| format!("f{n}")).collect();
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        let client = small(node, CONNACK_BYTES);
        node.take(client);
        node.subscribe(client, &filters[..11], 0);
        node.unsubscribe(client, &filters[..11]);
        assert_eq!(node.take(client).len(), 2);
        node.subscribe(client, &filters, 0);
        node.expect(client, &["DISCONNECT 95", "CLOSE"]);
        assert_eq!(node.stats().subscriptions, 0);

        let client = small(node, CONNACK_BYTES);
        node.subscribe(client, &filters[..11], 0);
        node.take(client);
        node.unsubscribe(client, &filters);
        node.expect(client, &["DISCONNECT 95", "CLOSE"]);
        assert_eq!(node.stats().subscriptions, 11);
    });
}

/// A PUBLISH that the client would not take is dropped as if it had been delivered: what comes next is sent, at every QoS,
/// and the last byte counts.
///
/// Proves 5.0: MQTT-3.1.2-24, MQTT-3.1.2-25.
#[test]
fn a_publish_is_no_larger_than_the_client_takes() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for level in 0..=2 {
            let client = small(node, 30);
            node.take(client);
            node.subscribed(client, &["t"], level);
            node.keeps_bytes = true;
            // Fixed Header, topic, Packet Identifier and Property Length.
            let room = 30 - 2 - 3 - if level == 0 { 0 } else { 2 } - 1;
            for n in 0..300 {
                node.publish(publisher, "t", level, 1, &"x".repeat(room + 1));
                node.pubrel(publisher, 1);
                assert!(node.clients[client.0].bytes.is_empty(), "{n}");
            }
            node.publish(publisher, "t", level, 1, &"x".repeat(room));
            node.pubrel(publisher, 1);
            let got = node.take_bytes(client);
            assert_eq!((got.len(), got[0].len()), (1, 30));
            node.keeps_bytes = false;
            node.disconnect_with(client, ReasonCode::Success, Some(0));
        }
        assert_eq!(node.stats().stored_messages, 0);
    });
}

/// The broker gives out as many Topic Aliases as the client takes, and none to one who takes none.
///
/// Proves 5.0: MQTT-3.1.2-26, MQTT-3.1.2-27, MQTT-3.3.2-11.
#[test]
fn topic_aliases_are_no_more_than_the_client_takes() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for maximum in [None, Some(0), Some(1), Some(2), Some(40)] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.properties.topic_alias_maximum = maximum;
            });
            node.take(client);
            node.subscribed(client, &["#"], 0);
            for n in 0..50 {
                node.publish(publisher, &format!("t{n}"), 0, 0, "");
            }
            let aliases: Vec<u16> = node
                .take(client)
                .iter()
                .filter_map(|line| {
                    line.split(' ')
                        .find_map(|word| word.strip_prefix("alias")?.parse().ok())
                })
                .collect();
            // 32 are what the broker wants to remember.
            let expected: Vec<u16> = (1..=maximum.unwrap_or(0).min(32)).collect();
            assert_eq!(aliases, expected);
            node.disconnect(client);
        }
    });
}

/// Response Information is never sent, asked for or not. Reason Strings and User Properties of the broker's own neither.
///
/// Proves 5.0: MQTT-3.1.2-28, MQTT-3.1.2-29.
#[test]
fn nothing_is_said_that_was_not_asked_for() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        for asked in [None, Some(false), Some(true)] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.properties.request_response_information = asked;
                connect.properties.request_problem_information = asked;
            });
            node.subscribe(client, &["t", "u"], 2);
            node.unsubscribe(client, &["u", "never"]);
            node.publish(client, "nobody", 1, 1, "");
            node.publish(client, "$SYS/forbidden", 2, 2, "");
            node.pubrel(client, 77);
            node.publish(client, "t", 2, 3, "");
            node.pubrec(client, 1);
            node.send_bytes(client, b"\xc0\x01x");
            let packets = node.take_bytes(client);
            assert_eq!(packets.len(), 10);
            packets.iter().for_each(|bytes| is_silent(bytes));
        }
    });
}

/// Asserts that a packet has neither Response Information nor Reason String nor User Properties.
fn is_silent(bytes: &[u8]) {
    let limits = DecodeLimits {
        direction: Direction::FromServer,
        ..Default::default()
    };
    let Ok(Decoded::Packet { packet, .. }) = decode(bytes, V5, &limits) else {
        panic!("no packet: {bytes:02x?}");
    };
    let silent = match packet {
        Packet::ConnAck(p) => {
            p.properties.response_information.is_none()
                && p.properties.reason_string.is_none()
                && p.properties.user_properties.iter().next().is_none()
        }
        Packet::SubAck(p) => p.properties == Default::default(),
        Packet::UnsubAck(p) => p.properties == Default::default(),
        Packet::PubAck(p) => p.properties == Default::default(),
        Packet::PubRec(p) => p.properties == Default::default(),
        Packet::PubRel(p) => p.properties == Default::default(),
        Packet::PubComp(p) => p.properties == Default::default(),
        Packet::Disconnect(p) => p.properties == Default::default(),
        Packet::Publish(_) => true,
        other => panic!("not expected: {other:?}"),
    };
    assert!(silent, "{packet:?}");
}

/// With a limit below the broker's own, fewer exchanges are open; with one above, no more than the broker's.
#[test]
fn receive_maximum_is_the_lower_of_both() {
    let config = EngineConfig {
        inflight_max: 5,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for (maximum, open) in [(2, 2), (5, 5), (100, 5)] {
            let client = node.connect_with(V5, "client", move |connect| {
                connect.properties.receive_maximum = std::num::NonZeroU16::new(maximum);
            });
            node.take(client);
            node.subscribed(client, &["t"], 1);
            for _ in 0..10 {
                node.publish(publisher, "t", 1, 1, "");
            }
            assert_eq!(node.take(client).len(), open);
            node.disconnect(client);
        }
    });
}
