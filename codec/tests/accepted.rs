//! Packets at the edge of what is allowed.

use sol_codec::*;

fn accept<'a>(bytes: &'a [u8], version: ProtocolVersion, direction: Direction) -> Packet<'a> {
    let limits = DecodeLimits {
        direction,
        ..DecodeLimits::default()
    };
    match decode(bytes, version, &limits) {
        Ok(Decoded::Packet { packet, len }) if len == bytes.len() => packet,
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

#[test]
fn the_version_of_a_connect_is_its_own() {
    // [MQTT-3.1.2-1], [MQTT-3.1.2-2]: the server learns the version here.
    for said in ProtocolVersion::ALL {
        let packets: [(&[u8], _); 3] = [
            (b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00", ProtocolVersion::V31),
            (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", ProtocolVersion::V311),
            (b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00", ProtocolVersion::V5),
        ];
        for (bytes, version) in packets {
            let Packet::Connect(connect) = accept(bytes, said, Direction::FromClient) else {
                panic!("no CONNECT")
            };
            assert_eq!(connect.version, version);
        }
    }
}

#[test]
fn an_unknown_version_tells_its_level() {
    // [MQTT-3.1.2-2]: the answer is a return code for an old peer and a Reason Code for a new one.
    let error = decode(
        b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x00\x00\x00",
        ProtocolVersion::V5,
        &DecodeLimits::default(),
    );
    let error = error.expect_err("level 6 does not exist");
    assert_eq!(error.kind, DecodeErrorKind::UnsupportedProtocolVersion { level: 6 });
    assert_eq!(
        error.to_string(),
        "the protocol version is not supported: level 6 (at byte 2 of the packet)"
    );
}

#[test]
fn a_fault_is_placed_at_its_byte() {
    // Section 4.13: a person who reads the log finds the byte.
    let cases: [(&[u8], usize); 5] = [
        (b"\x30\x06\x00\x03a/+\x00", 4),
        (b"\x30\x0c\x00\x01a\x08\x26\x00\x01k\x00\x01\xffx", 12),
        (b"\x30\x0c\x00\x01a\x08\x01\x01\x02\x00\x00\x00\x01\x7f", 13),
        (b"\x82\x09\x00\x01\x00\x00\x03a/b\x40", 10),
        (b"\xc0\x80\x00", 1),
    ];
    for (bytes, offset) in cases {
        let error = decode(bytes, ProtocolVersion::V5, &DecodeLimits::default()).expect_err("malformed");
        assert_eq!(error.offset, offset, "{error}");
    }
}

#[test]
fn mqtt_3_1_may_repeat_with_dup() {
    // Section 2.1 of 3.1: SUBSCRIBE, UNSUBSCRIBE and PUBREL have QoS 1 and so a DUP flag.
    accept(
        b"\x8a\x06\x00\x01\x00\x01a\x00",
        ProtocolVersion::V31,
        Direction::FromClient,
    );
    accept(
        b"\xaa\x05\x00\x01\x00\x01a",
        ProtocolVersion::V31,
        Direction::FromClient,
    );
    accept(b"\x6a\x02\x00\x01", ProtocolVersion::V31, Direction::FromClient);
}

#[test]
fn mqtt_3_1_may_leave_out_an_announced_login() {
    // Section 3.1 of 3.1: "the Remaining Length field takes precedence over the User Name flag".
    let bytes = b"\x10\x0f\x00\x06MQIsdp\x03\xc2\x00\x00\x00\x01c";
    let Packet::Connect(connect) = accept(bytes, ProtocolVersion::V31, Direction::FromClient) else {
        panic!("no CONNECT")
    };
    assert_eq!((connect.username, connect.password), (None, None));
}

#[test]
fn mqtt_5_may_have_a_password_alone() {
    // Section 3.1.2.9 of 5.0: a token needs no user name.
    let bytes = b"\x10\x11\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01c\x00\x01p";
    let Packet::Connect(connect) = accept(bytes, ProtocolVersion::V5, Direction::FromClient) else {
        panic!("no CONNECT")
    };
    assert_eq!((connect.username, connect.password), (None, Some(&b"p"[..])));
}

#[test]
fn a_topic_alias_stands_in_for_the_name() {
    // Section 3.3.2.1
    let bytes = b"\x30\x06\x00\x00\x03\x23\x00\x07";
    let Packet::Publish(publish) = accept(bytes, ProtocolVersion::V5, Direction::FromClient) else {
        panic!("no PUBLISH")
    };
    assert_eq!(
        (publish.topic, publish.properties.topic_alias),
        (None, TopicAlias::new(7))
    );
}

#[test]
fn a_server_may_send_several_subscription_identifiers() {
    // [MQTT-3.3.4-4]
    let bytes = b"\x30\x0a\x00\x01a\x05\x0b\x01\x0b\x80\x01!";
    let Packet::Publish(publish) = accept(bytes, ProtocolVersion::V5, Direction::FromServer) else {
        panic!("no PUBLISH")
    };
    assert!(
        publish
            .properties
            .subscription_ids
            .iter()
            .map(SubscriptionId::get)
            .eq([1, 128])
    );
    assert_eq!(publish.payload, b"!");
}

#[test]
fn exactly_as_many_levels_as_allowed_are_fine() {
    // The limit of topic levels is one of this receiver's, not of the specification's.
    let limits = DecodeLimits {
        topic_levels: 3,
        ..DecodeLimits::default()
    };
    let version = ProtocolVersion::V311;
    assert!(decode(b"\x30\x07\x00\x05a/b/c", version, &limits).is_ok());
    assert!(decode(b"\x30\x08\x00\x06a/b/c/", version, &limits).is_err());
    let shared = b"\x82\x12\x00\x01\x00\x0d$share/g/a/b/\x00";
    assert!(decode(shared, version, &limits).is_ok());
}
