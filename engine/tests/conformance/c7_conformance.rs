//! Chapter 7 of 3.1.1: conformance.

use sol_codec::{DecodeErrorKind, DecodeLimits, Direction, PacketType, decode};
use sol_engine::Outgoing;

use crate::support::raw::*;
use crate::support::*;

/// A client that says nothing but what the specification asks of it gets the whole service, at every QoS, byte by byte
/// what the specification writes.
///
/// Proves 3.1.1: MQTT-7.0.0-2.
#[test]
fn a_plain_client_is_served() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        let client = node.open(V311);
        let mut talk = |sent: &[u8], expected: &[&[u8]]| {
            node.send_bytes(client, sent);
            assert_eq!(node.take_bytes(client), expected, "{sent:02x?}");
        };
        talk(&connect_bytes(V311, 2, &field(b"plain")), &[b"\x20\x02\x00\x00"]);
        talk(b"\x82\x06\x00\x01\x00\x01t\x02", &[b"\x90\x03\x00\x01\x02"]);
        talk(b"\x30\x04\x00\x01t0", &[b"\x30\x04\x00\x01t0"]);
        talk(
            b"\x32\x06\x00\x01t\x00\x011",
            &[b"\x32\x06\x00\x01t\x00\x011", b"\x40\x02\x00\x01"],
        );
        talk(b"\x40\x02\x00\x01", &[]);
        talk(
            b"\x34\x06\x00\x01t\x00\x022",
            &[b"\x34\x06\x00\x01t\x00\x022", b"\x50\x02\x00\x02"],
        );
        talk(b"\x50\x02\x00\x02", &[b"\x62\x02\x00\x02"]);
        talk(b"\x62\x02\x00\x02", &[b"\x70\x02\x00\x02"]);
        talk(b"\x70\x02\x00\x02", &[]);
        talk(b"\xa2\x05\x00\x03\x00\x01t", &[b"\xb0\x02\x00\x03"]);
        talk(b"\xc0\x00", &[b"\xd0\x00"]);
        talk(b"\xe0\x00", &[]);
        node.expect(client, &[]);
    });
}

/// The broker connects to no other server, so that it need not conform as a client: it has no packet for it. Add one to
/// what it sends and this match is not complete.
///
/// Proves 3.1.1: MQTT-7.0.0-1.
#[test]
fn the_broker_is_no_client() {
    let first_byte = |packet: Outgoing| match packet {
        Outgoing::Publish(_) | Outgoing::Ack { .. } => "either side's",
        Outgoing::ConnAck(_) | Outgoing::SubAck { .. } | Outgoing::UnsubAck { .. } | Outgoing::PingResp => "a server's",
        Outgoing::Disconnect(_) | Outgoing::Auth(_) => "either side's, of 5.0",
    };
    assert_eq!(first_byte(Outgoing::PingResp), "a server's");
    let limits = DecodeLimits {
        direction: Direction::FromServer,
        ..Default::default()
    };
    for (first, packet_type) in [
        (0x10, PacketType::Connect),
        (0x82, PacketType::Subscribe),
        (0xa2, PacketType::Unsubscribe),
        (0xc0, PacketType::PingReq),
    ] {
        let refused = decode(&[first], V311, &limits).unwrap_err();
        assert_eq!(refused.kind, DecodeErrorKind::UnexpectedPacket(packet_type));
    }
}
