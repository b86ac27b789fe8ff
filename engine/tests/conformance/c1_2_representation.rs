//! Chapters 1 and 2: how data is written, and what all packets have in common. What comes in as bytes goes through the
//! codec as it does in the transport; what goes out is written and read again as a client would.

use sol_codec::ProtocolVersion;
use sol_engine::EngineConfig;

use crate::support::raw::*;
use crate::support::*;

/// Text that is not UTF-8, surrogates among it, ends the connection.
///
/// Proves 5.0: MQTT-1.5.4-1; 3.1.1: MQTT-1.5.3-1.
#[test]
fn ill_formed_text_ends_the_connection() {
    in_every_node(|node| {
        // A surrogate, a character cut short, a long way to write "/", and what is above U+10FFFF.
        for text in [&b"\xed\xa0\x80"[..], b"\xe2\x82", b"\xc0\xaf", b"\xf4\x90\x80\x80"] {
            for version in [V311, V5] {
                let client = node.connect(version, "client");
                node.refuses_bytes(client, &publish_bytes(version, text, b"", b""), 0x81);
                let client = node.open(version);
                node.send_bytes(client, &connect_bytes(version, 2, &field(text)));
                node.expect(client, malformed_connect(version));
            }
            let client = node.connect(V5, "client");
            let content_type = [&[3][..], &field(text)].concat();
            node.refuses_bytes(client, &publish_bytes(V5, b"t", &content_type, b""), 0x81);
        }
    });
}

/// What a malformed CONNECT gets: 3.1.1 has no return code that says so.
fn malformed_connect(version: ProtocolVersion) -> &'static [&'static str] {
    if version == V5 {
        &["CONNACK 81", "CLOSE"]
    } else {
        &["CLOSE"]
    }
}

/// U+0000 in a string ends the connection, and so does any fault in either string of a pair.
///
/// Proves 5.0: MQTT-1.5.4-2, MQTT-1.5.7-1; 3.1.1: MQTT-1.5.3-2.
#[test]
fn a_null_character_ends_the_connection() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.open(version);
            node.send_bytes(client, &connect_bytes(version, 2, &field(b"a\0b")));
            node.expect(client, malformed_connect(version));
        }
        for (name, value) in [
            (&b"\0"[..], &b"v"[..]),
            (b"n", b"a\0"),
            (b"\xff", b"v"),
            (b"n", b"\xff"),
        ] {
            let client = node.connect(V5, "client");
            let pair = [&[38][..], &field(name), &field(value)].concat();
            node.refuses_bytes(client, &publish_bytes(V5, b"t", &pair, b""), 0x81);
        }
    });
}

/// Text of any planes, U+FEFF at its front among it, is passed on as it came, and is well-formed where it leaves.
///
/// Proves 5.0: MQTT-1.5.4-1, MQTT-1.5.4-3; 3.1.1: MQTT-1.5.3-1, MQTT-1.5.3-3.
#[test]
fn text_arrives_as_it_was_sent() {
    const TEXT: &str = "\u{feff}a\u{feff}é€\u{1f980}\u{10ffff}";
    in_every_node(|node| {
        node.keeps_bytes = true;
        let properties = [
            &[3][..],
            &field(TEXT.as_bytes()),
            &[38],
            &field(TEXT.as_bytes()),
            &field(TEXT.as_bytes()),
        ];
        let properties = properties.concat();
        for version in [V311, V5] {
            let client = node.connect(version, TEXT);
            node.subscribed(client, &[TEXT], 0);
            node.take_bytes(client);
            let other = node.connect(version, &TEXT[3..]);
            node.subscribed(other, &[&TEXT[3..]], 0);
            let sent = publish_bytes(version, TEXT.as_bytes(), &properties, b"x");
            node.send_bytes(client, &sent);
            assert_eq!(node.take_bytes(client), [sent]);
            node.expect(other, &[]);
            node.disconnect(client);
            node.disconnect(other);
        }
    });
}

/// Lengths are written in as few bytes as hold them, and refused where they are not.
///
/// Proves 5.0: MQTT-1.5.5-1.
#[test]
fn variable_byte_integers_are_minimal() {
    let config = EngineConfig {
        maximum_packet_size: 4 << 20,
        ..Default::default()
    };
    in_each_node(config, |node| {
        for bytes in [
            &b"\xc0\x80\x00"[..],
            b"\x30\x84\x80\x00\x00\x01a\x00",
            b"\x30\x05\x00\x01a\x80\x00",
            b"\x82\x0a\x00\x01\x03\x0b\x81\x00\x00\x01a\x00",
        ] {
            let client = node.connect(V5, "client");
            node.refuses_bytes(client, bytes, 0x81);
        }
        let client = node.connect(V5, "client");
        node.subscribed(client, &["t"], 0);
        node.keeps_bytes = true;
        for remaining in [127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let payload = "p".repeat(remaining - 4);
            node.publish(client, "t", 0, 0, &payload);
            let got = node.take_bytes(client);
            assert_eq!(got[0], publish_bytes(V5, b"t", b"", payload.as_bytes()));
        }
    });
}

/// Flags of the Fixed Header that are not those of the packet end the connection; those of the broker are as they should
/// be.
///
/// Proves 5.0: MQTT-2.1.3-1, MQTT-3.6.1-1, MQTT-3.8.1-1, MQTT-3.10.1-1, MQTT-3.14.1-1;
/// 3.1.1: MQTT-2.2.2-1, MQTT-2.2.2-2, MQTT-3.6.1-1, MQTT-3.8.1-1, MQTT-3.10.1-1, MQTT-3.14.1-1.
#[test]
fn flags_are_those_of_the_tables() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let none = section(version, &[]);
            let acknowledgements = [0x40, 0x50, 0x62, 0x70].map(|fixed| packet(fixed, &[&[0, 1]]));
            let others = [
                packet(0x82, &[&[0, 1], &none, &field(b"t"), &[0]]),
                packet(0xa2, &[&[0, 1], &none, &field(b"t")]),
                packet(0xc0, &[]),
                packet(0xe0, &[]),
            ];
            for mut bytes in acknowledgements.into_iter().chain(others) {
                let fixed = bytes[0];
                for flags in (0..16).filter(|flags| fixed & 0x0f != *flags) {
                    bytes[0] = fixed & 0xf0 | flags;
                    let client = node.connect(version, "client");
                    node.refuses_bytes(client, &bytes, 0x81);
                }
            }
            for flags in 1..16 {
                let client = node.open(version);
                node.send_bytes(client, &[0x10 | flags, 0]);
                node.expect(client, &["CLOSE"]);
            }
            let first_bytes = first_bytes_of_a_conversation(node, version);
            let expected = [0x20, 0x90, 0xb0, 0xd0, 0x30, 0x32, 0x40, 0x34, 0x50, 0x70, 0x62];
            assert_eq!(first_bytes, expected);
        }
    });
}

/// The first bytes of what a client gets who does everything that a client can do.
fn first_bytes_of_a_conversation(node: &mut Node, version: ProtocolVersion) -> Vec<u8> {
    node.keeps_bytes = true;
    let client = node.connect(version, "client");
    node.subscribe(client, &["t", "u"], 2);
    node.unsubscribe(client, &["u"]);
    node.ping(client);
    node.publish(client, "t", 0, 0, "");
    node.publish(client, "t", 1, 1, "");
    node.publish(client, "t", 2, 2, "");
    node.pubrel(client, 2);
    node.pubrec(client, 2);
    let got = node.take_bytes(client);
    node.disconnect(client);
    node.keeps_bytes = false;
    // Deliveries and acknowledgements may be told in any order; this is theirs.
    got.iter().map(|bytes| bytes[0]).collect()
}

/// At QoS 0 a PUBLISH has no Packet Identifier, in either direction: what follows its topic belongs to the payload.
///
/// Proves 5.0: MQTT-2.2.1-2; 3.1.1: MQTT-2.3.1-5.
#[test]
fn qos_0_has_no_packet_identifier() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            node.subscribed(client, &["t"], 2);
            node.take_bytes(client);
            let sent = publish_bytes(version, b"t", b"", b"\0\x07x");
            node.send_bytes(client, &sent);
            assert_eq!(node.take_bytes(client), [sent]);
            node.disconnect(client);
        }
    });
}

/// A Packet Identifier of 0 ends the connection, and the broker gives out none.
///
/// Proves 3.1.1: MQTT-2.3.1-1.
#[test]
fn packet_identifiers_are_not_0() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let none = section(version, &[]);
            for bytes in [
                packet(0x32, &[&field(b"t"), &[0, 0], &none]),
                packet(0x34, &[&field(b"t"), &[0, 0], &none]),
                packet(0x82, &[&[0, 0], &none, &field(b"t"), &[0]]),
                packet(0xa2, &[&[0, 0], &none, &field(b"t")]),
            ] {
                let client = node.connect(version, "client");
                node.refuses_bytes(client, &bytes, 0x82);
            }
            let client = node.connect(version, "client");
            node.subscribed(client, &["t"], 2);
            node.publish(client, "t", 1, 1, "");
            node.expect(client, &[r#"PUBLISH t q1 #1 """#, "PUBACK #1"]);
            node.disconnect(client);
        }
    });
}

/// Every acknowledgement has the Packet Identifier of the PUBLISH that it belongs to, whatever the order of others.
///
/// Proves 5.0: MQTT-2.2.1-5; 3.1.1: MQTT-2.3.1-6.
#[test]
fn acknowledgements_have_the_identifier_of_their_publish() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            for (qos, id) in [(1, 65_535), (2, 9), (1, 300), (2, 65_534)] {
                node.publish(client, "t", qos, id, "");
            }
            let got = node.take(client).join(", ").replace(" 10", "");
            assert_eq!(got, "PUBACK #65535, PUBREC #9, PUBACK #300, PUBREC #65534");
            node.pubrel(client, 65_534);
            node.pubrel(client, 9);
            node.expect(client, &["PUBCOMP #65534", "PUBCOMP #9"]);

            let publisher = node.connect(V5, "publisher");
            node.subscribed(client, &["u"], 2);
            for id in 1..=3 {
                node.publish(publisher, "u", 2, id, "");
            }
            node.take(client);
            for id in [3, 1, 2] {
                node.pubrec(client, id);
            }
            node.expect(client, &["PUBREL #3", "PUBREL #1", "PUBREL #2"]);
            node.disconnect(client);
        }
    });
}

/// SUBACK and UNSUBACK have the Packet Identifier of the request.
///
/// Proves 5.0: MQTT-2.2.1-6; 3.1.1: MQTT-2.3.1-7.
#[test]
fn suback_and_unsuback_have_the_identifier_of_their_request() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let client = node.connect(version, "client");
            let none = section(version, &[]);
            for id in [1_u16, 300, 65_535] {
                let number = id.to_be_bytes();
                node.send_bytes(client, &packet(0x82, &[&number, &none, &field(b"t"), &[1]]));
                node.send_bytes(client, &packet(0xa2, &[&number, &none, &field(b"t")]));
                let expected = [format!("SUBACK #{id} [01]"), format!("UNSUBACK #{id} [00]")];
                assert_eq!(node.take(client), expected);
            }
            node.disconnect(client);
        }
    });
}

/// Without Properties a packet has a Property Length of 0, in either direction.
///
/// Proves 5.0: MQTT-2.2.2-1.
#[test]
fn no_properties_are_written_as_length_0() {
    in_every_node(|node| {
        for bytes in [
            &b"\x30\x03\x00\x01a"[..],
            b"\x82\x06\x00\x01\x00\x01a\x00",
            b"\xa2\x05\x00\x01\x00\x01a",
        ] {
            let client = node.connect(V5, "client");
            node.refuses_bytes(client, bytes, 0x81);
        }
        node.keeps_bytes = true;
        let refused = node.connect_with(V5, &"x".repeat(2_000), |_| {});
        assert_eq!(node.take_bytes(refused), [b"\x20\x03\x00\x85\x00"]);
        let client = node.connect(V5, "client");
        node.take_bytes(client);
        node.subscribe(client, &["t"], 1);
        node.publish(client, "t", 0, 0, "x");
        node.unsubscribe(client, &["t"]);
        let got = node.take_bytes(client);
        assert_eq!(
            got,
            [
                &b"\x90\x04\x00\x01\x00\x01"[..],
                b"\x30\x05\x00\x01t\x00x",
                b"\xb0\x04\x00\x02\x00\x00"
            ]
        );
    });
}
