//! What people read of a packet: lists, codes and faults in words.

use std::collections::BTreeSet;

use sol_codec::*;

/// Every fault that a Topic Name or Topic Filter can have is told in words of its own, with the fault of the packet.
#[test]
fn faults_of_topics_have_words_of_their_own() {
    let faults = [
        TopicError::Empty,
        TopicError::TooLong,
        TopicError::NulCharacter,
        TopicError::WildcardInName,
        TopicError::MisplacedWildcard,
        TopicError::InvalidShareName,
        TopicError::ShareWithoutFilter,
    ];
    let words: BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), faults.len());
    for fault in faults {
        let error = DecodeError::new(DecodeErrorKind::InvalidTopicFilter(fault), 4);
        assert_eq!(
            error.to_string(),
            format!("the Topic Filter is not allowed: {fault} (at byte 4 of the packet)")
        );
    }
}

/// A Reason Code is told with its value, and what a SUBACK grants is the QoS itself (section 3.9.3).
#[test]
fn reason_codes_tell_their_value() {
    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    assert_eq!(levels.map(|qos| ReasonCode::granted(qos).value()), [0, 1, 2]);
    for value in 0..=u8::MAX {
        if let Some(code) = ReasonCode::from_value(value) {
            assert_eq!(code.to_string(), format!("0x{value:02x}: {}", code.sentence()));
            assert!(!code.sentence().is_empty());
        }
    }
}

/// A list reads the same whether it comes out of a packet or out of a slice: as long, in the same order, equal.
#[test]
fn lists_read_the_same_from_a_packet_and_from_a_slice() {
    let filters = ["a/+", "$share/g/b", "#"].map(|filter| TopicFilter::new(filter).unwrap());
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: RetainHandling::default(),
    };
    let requests = filters.map(|filter| (filter, options));
    let codes = [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized, ReasonCode::Success];
    let packet_id = PacketId::new(7).unwrap();
    let packets = [
        Packet::Subscribe(Subscribe {
            packet_id,
            properties: SubscribeProperties {
                subscription_id: SubscriptionId::new(5),
                ..SubscribeProperties::default()
            },
            filters: Subscriptions::from_slice(&requests),
        }),
        Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user_properties: UserProperties::default(),
            filters: Filters::from_slice(&filters),
        }),
    ];
    for packet in packets {
        let mut bytes = Vec::new();
        packet.encode(ProtocolVersion::V5, &mut bytes);
        let Ok(Decoded::Packet { packet: decoded, .. }) = decode(&bytes, ProtocolVersion::V5, &DecodeLimits::default())
        else {
            panic!("{packet:?}")
        };
        assert_eq!(decoded, packet);
        assert_eq!(format!("{decoded:?}"), format!("{packet:?}"));
        match (decoded, packet) {
            (Packet::Subscribe(read), Packet::Subscribe(written)) => {
                assert!(!read.filters.is_empty());
                assert_eq!((read.filters.len(), written.filters.len()), (3, 3));
                assert!((&read.filters).into_iter().eq(requests));
                assert_eq!(format!("{:?}", read.filters.iter()), format!("{requests:?}"));
            }
            (Packet::Unsubscribe(read), Packet::Unsubscribe(written)) => {
                assert!(!read.filters.is_empty());
                assert_eq!((read.filters.len(), written.filters.len()), (3, 3));
                assert!((&read.filters).into_iter().eq(filters));
                assert_eq!(format!("{:?}", read.filters.iter()), format!("{filters:?}"));
            }
            other => panic!("{other:?}"),
        }
    }
    let listed = ReasonCodes::from_slice(&codes);
    assert_eq!((listed.len(), listed.is_empty()), (3, false));
    assert!((&listed).into_iter().eq(codes));
}
