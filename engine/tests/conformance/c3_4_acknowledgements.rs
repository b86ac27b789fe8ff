//! Sections 3.4 to 3.7: what PUBACK, PUBREC, PUBREL and PUBCOMP may say, in both directions.

use std::num::NonZeroU32;

use sol_codec::ReasonCode;
use sol_engine::EngineConfig;

use crate::support::*;

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// The Reason Codes of each packet (tables 3-4, 3-5, 3-6 and 3-7).
const REASON_CODES: &[(u8, &[u8])] = &[
    (PUBACK, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (PUBREC, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (PUBREL, &[0x00, 0x92]),
    (PUBCOMP, &[0x00, 0x92]),
];

/// Has the node send all four acknowledgements, with every Reason Code that it has for them, to a client with this
/// Maximum Packet Size. Returns them as bytes.
fn all_acknowledgements(node: &mut Node, maximum_packet_size: u32) -> Vec<Vec<u8>> {
    let away = node.connect_durable(V5, "away");
    node.subscribed(away, &["full"], 2);
    node.lose(away);
    let client = node.connect_with(V5, "client", move |connect| {
        connect.properties.maximum_packet_size = NonZeroU32::new(maximum_packet_size);
    });
    node.take(client);
    node.subscribed(client, &["mine"], 2);
    node.keeps_bytes = true;
    for (n, topic) in ["mine", "nobody", "$SYS/x", "full", "full", "full"]
        .into_iter()
        .enumerate()
    {
        let packet_id = 10 + n as u16;
        node.publish(client, topic, 1, packet_id, "");
        node.publish(client, topic, 2, packet_id, "");
        node.pubrel(client, packet_id);
    }
    // The client's own messages came back to it.
    node.pubrec(client, 2);
    node.pubcomp(client, 2);
    node.pubrec(client, 99);
    let mut packets = node.take_bytes(client);
    packets.retain(|packet| packet[0] >> 4 > 3);
    packets
}

fn one_in_a_queue() -> EngineConfig {
    EngineConfig {
        queue_max: 1,
        ..Default::default()
    }
}

/// Each acknowledgement uses one of its own Reason Codes; a client that sends another one is disconnected, and with one
/// of them it stays.
///
/// Proves 5.0: MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1.
#[test]
fn each_acknowledgement_has_reason_codes_of_its_own() {
    in_each_node(one_in_a_queue(), |node| {
        let sent = all_acknowledgements(node, 1_000);
        let told = |first: u8| -> std::collections::BTreeSet<u8> {
            let of_this_kind = sent.iter().filter(|packet| packet[0] == first);
            of_this_kind
                .map(|packet| packet.get(4).copied().unwrap_or_default())
                .collect()
        };
        assert_eq!(Vec::from_iter(told(PUBACK)), [0x00, 0x10, 0x87, 0x97]);
        assert_eq!(Vec::from_iter(told(PUBREC)), [0x00, 0x10, 0x87, 0x97]);
        assert_eq!(Vec::from_iter(told(PUBREL)), [0x00, 0x92]);
        assert_eq!(Vec::from_iter(told(PUBCOMP)), [0x00, 0x92]);
        for &(first, legal) in REASON_CODES {
            for code in 0..=0xff {
                let client = node.connect(V5, "sender");
                let packet = [first, 3, 0, 7, code];
                if legal.contains(&code) {
                    node.send_bytes(client, &packet);
                    node.ping(client);
                    assert_eq!(node.take(client).last().unwrap(), "PINGRESP", "{packet:02x?}");
                } else {
                    node.refuses_bytes(client, &packet, 0x82);
                }
            }
        }
    });
}

/// An acknowledgement is never so long that the client could not take it: it has neither Reason String nor User Property.
/// A client's own that is longer than the announced Maximum Packet Size ends the connection.
///
/// Proves 5.0: MQTT-3.4.2-2, MQTT-3.4.2-3, MQTT-3.5.2-2, MQTT-3.5.2-3, MQTT-3.6.2-2, MQTT-3.6.2-3, MQTT-3.7.2-2,
/// MQTT-3.7.2-3.
#[test]
fn no_acknowledgement_is_longer_than_its_receiver_allows() {
    let config = EngineConfig {
        maximum_packet_size: 59,
        ..one_in_a_queue()
    };
    in_each_node(config, |node| {
        for packet in all_acknowledgements(node, 30) {
            let whole = [packet[0], 3, packet[2], packet[3], *packet.get(4).unwrap_or(&0)];
            assert!(
                packet == whole || packet == [packet[0], 2, packet[2], packet[3]],
                "{packet:02x?}"
            );
        }
        node.keeps_bytes = false;
        for &(first, _) in REASON_CODES {
            let packet = |reason_string: usize, user_property: usize| {
                let mut properties = vec![0x1f, 0, reason_string as u8];
                properties.extend(vec![b'r'; reason_string]);
                properties.extend([0x26, 0, user_property as u8]);
                properties.extend(vec![b'n'; user_property]);
                properties.extend([0, 1, b'v']);
                let len = properties.len() as u8;
                [vec![first, len + 4, 0, 7, 0, len], properties].concat()
            };
            let client = node.connect(V5, "sender");
            node.send_bytes(client, &packet(20, 24));
            node.ping(client);
            assert_eq!(node.take(client).last().unwrap(), "PINGRESP");
            node.refuses_bytes(client, &packet(21, 24), 0x95);
            let client = node.connect(V5, "sender");
            node.refuses_bytes(client, &packet(20, 25), 0x95);
        }
    });
}

/// PUBREL has the flags 0010, whoever sends it; with others it is malformed and ends the connection.
///
/// Proves 5.0: MQTT-3.6.1-1; 3.1.1: MQTT-3.6.1-1.
#[test]
fn pubrel_has_its_flags() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.subscribed(client, &["t"], 2);
            node.take_bytes(client);
            node.publish(client, "t", 2, 1, "");
            node.pubrec(client, 1);
            assert_eq!(node.take_bytes(client).last().unwrap(), &[PUBREL, 2, 0, 1]);
            for flags in (0..16).filter(|&flags| flags != 2) {
                let client = node.connect(version, "sender");
                node.refuses_bytes(client, &[0x60 | flags, 2, 0, 1], 0x81);
            }
        }
    });
}

/// Sections 3.6.2.1 and 3.7.2.1: what acknowledges nothing is answered with 0x92 where there is an answer, else ignored.
#[test]
fn unknown_acknowledgements() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.puback(client, 1);
            node.pubcomp(client, 2);
            node.pubrec_code(client, 3, ReasonCode::UnspecifiedError);
            node.expect(client, &[]);
            node.pubrec(client, 4);
            node.pubrel(client, 5);
            node.expect(client, &["PUBREL #4 92", "PUBCOMP #5 92"]);
            node.ping(client);
            node.expect(client, &["PINGRESP"]);
        }
    });
}
