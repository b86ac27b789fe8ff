//! What is written is what is read.

mod support;

use proptest::prelude::*;
use sol_codec::*;
use support::{encoded, publish, topic_filter, topic_name, versioned_packet};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_packet_comes_back_as_it_was((version, packet) in versioned_packet()) {
        // Chapter 3, all packets of all versions.
        let bytes = encoded(&packet, version);
        prop_assert_eq!(bytes.len(), packet.encoded_len(version));
        let decoded = decode(&bytes, version, &DecodeLimits::default());
        prop_assert_eq!(decoded, Ok(Decoded::Packet { packet, len: bytes.len() }));
        if let Ok(Decoded::Packet { packet, .. }) = decoded {
            prop_assert_eq!(encoded(&packet, version), bytes);
        }
    }

    #[test]
    fn what_follows_a_packet_is_left_alone((version, packet) in versioned_packet(), tail in any::<[u8; 3]>()) {
        // Section 2.1.4: the Remaining Length ends the packet.
        let bytes = encoded(&packet, version);
        let both = [&bytes[..], &tail].concat();
        let decoded = decode(&both, version, &DecodeLimits::default());
        prop_assert_eq!(decoded, Ok(Decoded::Packet { packet, len: bytes.len() }));
    }

    #[test]
    fn what_a_server_passes_on_survives_storage(publish in publish(ProtocolVersion::V5)) {
        // [MQTT-3.3.2-17], [MQTT-3.3.2-18]: unchanged and in order, whatever else stood in the section.
        let bytes = encoded(&Packet::Publish(publish), ProtocolVersion::V5);
        let decoded = decode(&bytes, ProtocolVersion::V5, &DecodeLimits::default());
        let Ok(Decoded::Packet { packet: Packet::Publish(read), .. }) = decoded else { panic!("{decoded:?}") };
        let mut stored = Vec::new();
        read.properties.application.write_to(&mut stored);
        prop_assert_eq!(stored.len(), read.properties.application.encoded_len());
        let restored = ApplicationProperties::from_stored(&stored);
        prop_assert_eq!(restored, publish.properties.application);
        prop_assert_eq!(restored.content_type(), publish.properties.application.content_type());
        prop_assert_eq!(restored.response_topic(), publish.properties.application.response_topic());
        prop_assert_eq!(restored.correlation_data(), publish.properties.application.correlation_data());
        prop_assert_eq!(restored.user_properties(), publish.properties.application.user_properties());
    }

    #[test]
    fn a_patched_head_is_the_packet_encoded_anew(
        (version, first) in support::version().prop_flat_map(|version| (Just(version), publish(version))),
        id in 1..=u16::MAX, exactly in any::<bool>(), dup in any::<bool>(), retain in any::<bool>(),
    ) {
        // A fan-out copies; each receiver sees what an encoding of its own would have said.
        let mut shared = Vec::new();
        let head = PublishHead::encode(&first, version, &mut shared);
        prop_assert_eq!(head.len(), shared.len());
        shared.extend_from_slice(first.payload);
        let above = first.qos > QoS::AtMostOnce;
        let qos = if !above { QoS::AtMostOnce } else if exactly { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let packet_id = PacketId::new(id).filter(|_| above);
        let own = Publish { dup: dup && above, qos, retain, packet_id, ..first };
        let mut copied = Vec::new();
        head.copy(&shared, own.dup, qos, retain, packet_id, &mut copied);
        prop_assert_eq!(&copied, &encoded(&Packet::Publish(own), version));
        head.patch(&mut shared, own.dup, qos, retain, packet_id);
        prop_assert_eq!(shared, copied);
    }

    #[test]
    fn a_matcher_that_splits_first_agrees(filter in topic_filter(), name in topic_name()) {
        // [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.2-1]
        prop_assert_eq!(filter.matches(name), matches_by_levels(filter, name));
    }
}

fn matches_by_levels(filter: TopicFilter<'_>, name: TopicName<'_>) -> bool {
    let filter = filter.shared().map_or(filter, |(_, filter)| filter);
    let (filter, name): (Vec<_>, Vec<_>) = (filter.levels().collect(), name.levels().collect());
    if name[0].starts_with('$') && ["+", "#"].contains(&filter[0]) {
        return false;
    }
    let (fixed, open) = match filter.split_last() {
        Some((&"#", fixed)) => (fixed, true),
        _ => (&filter[..], false),
    };
    let enough = if open {
        name.len() >= fixed.len()
    } else {
        name.len() == fixed.len()
    };
    enough
        && fixed
            .iter()
            .zip(&name)
            .all(|(filter, name)| *filter == "+" || filter == name)
}

#[test]
fn short_forms_are_as_short_as_they_can_be() {
    // Sections 3.4.2.1, 3.14.2.1, 3.15.2.1: what says nothing is left out.
    let id = PacketId::new(0x1234).unwrap();
    let v5 = ProtocolVersion::V5;
    assert_eq!(encoded(&Packet::PubAck(PubAck::success(id)), v5), [0x40, 2, 0x12, 0x34]);
    let refused = PubRec::new(id, ReasonCode::QuotaExceeded);
    assert_eq!(encoded(&Packet::PubRec(refused), v5), [0x50, 3, 0x12, 0x34, 0x97]);
    assert_eq!(
        encoded(&Packet::PubRec(refused), ProtocolVersion::V311),
        [0x50, 2, 0x12, 0x34]
    );
    assert_eq!(encoded(&Packet::PubRel(PubRel::success(id)), v5), [0x62, 2, 0x12, 0x34]);
    assert_eq!(
        encoded(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)), v5),
        [0xe0, 0]
    );
    let taken_over = Disconnect::new(ReasonCode::SessionTakenOver);
    assert_eq!(encoded(&Packet::Disconnect(taken_over), v5), [0xe0, 1, 0x8e]);
    assert_eq!(encoded(&Packet::PingReq, v5), [0xc0, 0]);
}

#[test]
fn a_refusal_is_a_return_code_on_3_x() {
    // Section 3.2.2.3 of 3.1.1; a failure in a SUBACK is 0x80 there [MQTT-3.9.3-2].
    let busy = Packet::ConnAck(ConnAck::new(false, ReasonCode::ServerBusy));
    assert_eq!(encoded(&busy, ProtocolVersion::V311), [0x20, 2, 0, 3]);
    let codes = [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized];
    let packet_id = PacketId::new(1).unwrap();
    let suback = SubAck {
        packet_id,
        properties: AckProperties::default(),
        reason_codes: ReasonCodes::from_slice(&codes),
    };
    let mut bytes = Vec::new();
    suback.encode(ProtocolVersion::V311, &mut bytes);
    assert_eq!(bytes, [0x90, 4, 0, 1, 1, 0x80]);
}

#[test]
fn text_that_is_too_long_is_cut_at_a_character() {
    // Section 1.5.4: a string has at most 65,535 bytes; encoding cannot fail, and never breaks the frame.
    let long = "é".repeat(40_000);
    let disconnect = Disconnect {
        reason_code: ReasonCode::ServerShuttingDown,
        properties: DisconnectProperties {
            reason_string: Some(&long),
            ..Default::default()
        },
    };
    let mut bytes = Vec::new();
    disconnect.encode(ProtocolVersion::V5, &mut bytes);
    let decoded = decode(&bytes, ProtocolVersion::V5, &DecodeLimits::default());
    let Ok(Decoded::Packet {
        packet: Packet::Disconnect(read),
        ..
    }) = decoded
    else {
        panic!("{decoded:?}")
    };
    assert_eq!(read.properties.reason_string, Some(&long[..65_534]));
}
