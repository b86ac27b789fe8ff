//! Section 3.1: CONNECT packets that are none, byte by byte.

use crate::support::raw::*;
use crate::support::*;

/// Sends the bytes as the first of a connection, and expects what is written, as bytes, before the close.
#[track_caller]
fn answered(node: &mut Node, version: sol_codec::ProtocolVersion, bytes: &[u8], expected: &[&[u8]]) {
    node.keeps_bytes = true;
    let client = node.open(version);
    node.send_bytes(client, bytes);
    assert!(!node.clients[client.0].open, "{bytes:02x?}");
    assert_eq!(node.take_bytes(client), expected, "{bytes:02x?}");
    node.push(client, &sol_codec::Packet::Connect(connect(version, "again")));
    node.expect(client, &[]);
}

/// Another Protocol Name is no MQTT, in any spelling: the peer is told so in the version nearest to its own, and closed.
///
/// Proves 5.0: MQTT-3.1.2-1; 3.1.1: MQTT-3.1.2-1.
#[test]
fn another_protocol_name_is_refused() {
    in_every_node(|node| {
        for name in [&b"MQTX"[..], b"mqtt", b"", b"MQTT ", b"MQIsdp", b"\xff\0"] {
            let rest = &[2, 0, 0, 0, 0, 1, b'c'];
            answered(
                node,
                V5,
                &packet(0x10, &[&field(name), &[5], rest]),
                &[b"\x20\x03\x00\x84\x00"],
            );
            answered(
                node,
                V311,
                &packet(0x10, &[&field(name), &[4], rest]),
                &[b"\x20\x02\x00\x01"],
            );
        }
    });
}

/// A Protocol Version that there is not is answered with 0x84, below 5 with return code 1, and the connection is closed.
///
/// Proves 5.0: MQTT-3.1.2-2; 3.1.1: MQTT-3.1.2-2.
#[test]
fn another_protocol_version_is_refused() {
    in_every_node(|node| {
        for level in [0, 1, 2, 3] {
            let bytes = packet(0x10, &[&field(b"MQTT"), &[level, 2, 0, 0, 0, 1, b'c']]);
            answered(node, V311, &bytes, &[b"\x20\x02\x00\x01"]);
        }
        for level in [6, 127, 128, 132, 133, 255] {
            let bytes = packet(0x10, &[&field(b"MQTT"), &[level, 2, 0, 0, 0, 0, 1, b'c']]);
            answered(node, V5, &bytes, &[b"\x20\x03\x00\x84\x00"]);
        }
    });
}

/// The reserved bit of the Connect Flags has to be 0.
///
/// Proves 5.0: MQTT-3.1.2-3; 3.1.1: MQTT-3.1.2-3.
#[test]
fn the_reserved_connect_flag_is_0() {
    in_every_node(|node| {
        for flags in [0x01, 0x03] {
            answered(
                node,
                V5,
                &connect_bytes(V5, flags, &field(b"c")),
                &[b"\x20\x03\x00\x81\x00"],
            );
            answered(node, V311, &connect_bytes(V311, flags, &field(b"c")), &[]);
        }
    });
}

/// A CONNECT that is not as section 3.1 has it opens no Session: 5.0 is told its Reason Code, 3.1.1 nothing.
///
/// Proves 5.0: MQTT-3.1.4-1; 3.1.1: MQTT-3.1.2-9, MQTT-3.1.4-1.
#[test]
fn a_connect_that_does_not_match_is_closed() {
    in_every_node(|node| {
        let (id, will) = (field(b"c"), [field(b"w"), field(b"gone")].concat());
        for version in [V311, V5] {
            let will = [section(version, &[]), will.clone()].concat();
            let connect = |flags, payload: &[&[u8]]| connect_bytes(version, flags, &payload.concat());
            for (bytes, reason_code) in [
                (connect(0x02, &[]), 0x81),
                (connect(0x02, &[&id, b"more"]), 0x81),
                (connect(0x06, &[&id]), 0x81),
                (connect(0x0a, &[&id]), 0x81),
                (connect(0x22, &[&id]), 0x81),
                (connect(0x1e, &[&id, &will]), 0x81),
                (
                    connect(0x06, &[&id, &section(version, &[]), &field(b""), &field(b"")]),
                    0x82,
                ),
                (connect(0x82, &[&id]), 0x81),
                (connect(0xc2, &[&id, &field(b"user")]), 0x81),
            ] {
                let connack = [0x20, 3, 0, reason_code, 0];
                let expected: &[&[u8]] = if version == V5 { &[&connack] } else { &[] };
                answered(node, version, &bytes, expected);
            }
        }
        answered(
            node,
            V311,
            &connect_bytes(V311, 0x42, &[&id[..], &field(b"secret")].concat()),
            &[],
        );
        for (properties, reason_code) in [
            (&b"\x21\x00\x00"[..], 0x82),
            (b"\x27\x00\x00\x00\x00", 0x82),
            (b"\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01", 0x82),
            (b"\x19\x02", 0x82),
            (b"\x01\x00", 0x82),
            (b"\x16\x00\x01x", 0x82),
            (b"\x7f", 0x81),
        ] {
            let fixed = [&field(b"MQTT")[..], &[5, 2, 0, 0]].concat();
            let bytes = packet(0x10, &[&fixed, &section(V5, properties), &id]);
            answered(node, V5, &bytes, &[&[0x20, 3, 0, reason_code, 0]]);
        }
        assert_eq!(node.stats().connects_accepted, 0);
    });
}
