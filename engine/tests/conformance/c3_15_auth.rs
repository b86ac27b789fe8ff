//! Sections 3.15 and 4.12: AUTH and enhanced authentication.

use sol_codec::{Auth, AuthProperties, Packet, ReasonCode};

use crate::support::raw::*;
use crate::support::*;

/// Flags of AUTH that are not 0 end the connection.
///
/// Proves 5.0: MQTT-3.15.1-1.
#[test]
fn the_flags_of_auth_are_0() {
    in_every_node(|node| {
        for flags in 1..16 {
            let client = node.connect(V5, "client");
            node.refuses_bytes(client, &[0xf0 | flags, 0], 0x81);
            let client = node.open(V5);
            node.send_bytes(client, &[0xf0 | flags, 0]);
            node.expect(client, &["CLOSE"]);
        }
    });
}

/// A Reason Code that AUTH does not have ends the connection.
///
/// Proves 5.0: MQTT-3.15.2-1.
#[test]
fn auth_has_its_own_reason_codes() {
    in_every_node(|node| {
        let method = section(V5, &[&[21][..], &field(b"M")].concat());
        for code in (0..=255).filter(|code| ![0x00, 0x18, 0x19].contains(code)) {
            let client = node.connect(V5, "client");
            node.refuses_bytes(client, &packet(0xf0, &[&[code], &method]), 0x82);
        }
    });
}

/// Without an Authentication Method in CONNECT there is no AUTH: none is sent, CONNACK has no method, and one that comes
/// ends the connection, before CONNACK too.
///
/// Proves 5.0: MQTT-3.14.0-1, MQTT-4.12.0-6.
#[test]
fn without_a_method_there_is_no_auth() {
    in_every_node(|node| {
        node.keeps_bytes = true;
        let client = node.connect_with(V5, "client", |connect| {
            connect.username = Some("user");
            connect.password = Some(b"secret");
        });
        node.subscribe(client, &["t"], 0);
        node.ping(client);
        for reason_code in [
            ReasonCode::ReAuthenticate,
            ReasonCode::ContinueAuthentication,
            ReasonCode::Success,
        ] {
            let auth = Auth {
                reason_code,
                properties: AuthProperties {
                    authentication_method: Some("SCRAM-SHA-256"),
                    ..Default::default()
                },
            };
            let client = node.connect(V5, "other");
            node.take_bytes(client);
            node.push(client, &Packet::Auth(auth));
            assert_eq!(node.take_bytes(client), [b"\xe0\x01\x82"]);
            let early = node.open(V5);
            node.push(early, &Packet::Auth(auth));
            node.expect(early, &["CLOSE"]);
        }
        let got = node.take_bytes(client);
        let first_bytes: Vec<_> = got.iter().map(|bytes| bytes[0]).collect();
        assert_eq!(first_bytes, [0x20, 0x90, 0xd0]);
        // Receive Maximum, Maximum Packet Size and Topic Alias Maximum are all its Properties.
        assert_eq!(got[0][..5], [0x20, 14, 0, 0, 11]);
    });
}
