use alloc::{string::ToString as _, vec};

use proptest::prelude::*;

use super::*;

fn record_id() -> impl Strategy<Value = RecordId> {
    (0..3_u64, prop_oneof![0..500_u64, Just(RecordId::COUNT)])
        .prop_map(|(shard, count)| RecordId(shard << RecordId::COUNT_BITS | count))
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<u16>().prop_map(|id| PacketId::new(id.max(1)).unwrap())
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    (1..268_435_455_u32).prop_map(|id| SubscriptionId::new(id).unwrap())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn will() -> impl Strategy<Value = OwnedWill> {
    (
        any::<String>(),
        bytes(),
        bytes(),
        qos(),
        any::<(bool, u32, Option<u32>)>(),
    )
        .prop_map(
            |(topic, properties, payload, qos, (retain, delay, message_expiry_interval))| OwnedWill {
                topic,
                properties,
                payload,
                qos,
                retain,
                delay,
                message_expiry_interval,
            },
        )
}

fn session() -> impl Strategy<Value = SessionRecord> {
    let names = any::<(String, Option<String>, bool, bool, bool)>();
    let rest = (any::<(u16, u32, Option<u64>)>(), prop::option::of(will()));
    (names, rest).prop_map(|(names, ((listener, expiry_interval, away), will))| SessionRecord {
        client_id: names.0,
        username: names.1,
        vouched: names.2,
        granted: names.3,
        own_rules: names.4,
        listener: ListenerId(listener),
        expiry_interval,
        disconnected_at: away.map(UnixMillis::from_millis),
        will,
    })
}

fn message() -> impl Strategy<Value = Message> {
    (any::<String>(), bytes(), 0..50_usize, qos(), any::<(bool, u64, u64)>()).prop_map(
        |(topic, stored, properties, qos, (retain, origin, expires_at))| {
            let mut message = Message::empty();
            message.put(&topic, &stored, properties.min(stored.len()) as u32);
            message.qos = qos;
            message.retain = retain;
            message.origin = Origin(origin);
            message.expires_at = UnixMillis::from_millis(expires_at);
            message
        },
    )
}

fn author() -> impl Strategy<Value = Author> {
    any::<(Option<String>, bool, Option<String>, u16)>().prop_map(|(username, vouched, client_id, listener)| Author {
        username: username.map(Into::into),
        vouched,
        client_id: client_id.map(Into::into),
        listener: ListenerId(listener),
    })
}

fn reference() -> impl Strategy<Value = Reference> {
    let state = prop_oneof![
        Just(ReferenceState::Queued),
        packet_id().prop_map(ReferenceState::Sent),
        packet_id().prop_map(ReferenceState::Released),
    ];
    let ids = prop::collection::vec(subscription_id(), 0..4);
    let share = prop::option::of(any::<(String, String)>().prop_map(Box::new));
    (
        record_id(),
        prop::option::of(record_id()),
        qos(),
        any::<bool>(),
        ids,
        share,
        state,
    )
        .prop_map(
            |(session, body, qos, retain, subscription_ids, share, state)| Reference {
                session,
                body,
                qos,
                retain,
                subscription_ids: subscription_ids.into(),
                share,
                state,
            },
        )
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (record_id(), session()).prop_map(|(id, session)| Record::Session(id, Box::new(session))),
        (
            record_id(),
            record_id(),
            any::<(String, u8)>(),
            prop::option::of(subscription_id())
        )
            .prop_map(|(id, session, (filter, options), subscription_id)| {
                let record = SubscriptionRecord {
                    session,
                    filter,
                    options,
                    subscription_id,
                };
                Record::Subscription(id, Box::new(record))
            }),
        (record_id(), message()).prop_map(|(id, message)| Record::Body(id, Rc::new(message))),
        (record_id(), record_id(), prop::option::of(author())).prop_map(|(id, body, author)| Record::Retained {
            id,
            body,
            author: author.map(Box::new),
        }),
        (record_id(), reference()).prop_map(|(id, reference)| Record::Reference(id, reference)),
        (record_id(), record_id(), packet_id()).prop_map(|(id, session, packet_id)| Record::Inbound {
            id,
            session,
            packet_id,
        }),
    ]
}

fn parent(record: &Record) -> Option<RecordId> {
    match record.family() {
        Family::Child(parent) => Some(parent),
        _ => None,
    }
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

proptest! {
    /// Every record comes back as it was.
    #[test]
    fn what_is_written_is_read(record in record()) {
        let bytes = encoded(&record);
        let home = Belongs::of(record.kind(), &bytes).unwrap();
        prop_assert_eq!(home, match &record {
            Record::Session(_, session) => Belongs::ToClient(&session.client_id),
            Record::Subscription(_, subscription) => Belongs::ToSession(subscription.session),
            Record::Body(_, message) => Belongs::ToTopic(message.topic()),
            Record::Retained { .. } => Belongs::ToBody,
            Record::Reference(_, reference) => Belongs::ToSession(reference.session),
            Record::Inbound { session, .. } => Belongs::ToSession(*session),
            Record::Delete(_) => unreachable!(),
        });
        prop_assert_eq!(Record::decode(record.id(), record.kind(), parent(&record), &bytes), Ok(record));
    }

    /// Whatever bytes there are, they are a record, which those bytes are written for again, or refused.
    #[test]
    fn no_bytes_are_taken_for_what_they_are_not(
        kind in 0..8_u8,
        parent in prop::option::of(record_id()),
        version in prop_oneof![5 => Just(1_u8), 1 => any::<u8>()],
        mut bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..60),
    ) {
        bytes.insert(0, version);
        if let Ok(record) = Record::decode(RecordId(9), kind, parent, &bytes) {
            let again = encoded(&record);
            prop_assert_eq!(Record::decode(RecordId(9), kind, parent, &again), Ok(record));
        }
    }

    /// A payload that was cut is refused, or it ended with text or bytes that are only shorter now.
    #[test]
    fn a_cut_is_never_another_fault(record in record(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&record);
        let cut = &bytes[..at.index(bytes.len())];
        match Record::decode(record.id(), record.kind(), parent(&record), cut) {
            Ok(shorter) => prop_assert_eq!(encoded(&shorter), cut),
            Err(error) => prop_assert_eq!(error, PayloadError::Malformed),
        }
    }
}

/// What the records of the format's examples belong to.
const EXAMPLE: RecordId = RecordId(1 << RecordId::COUNT_BITS | 300);

/// Records as bytes.
type Examples = Vec<(Record, &'static [u8])>;

fn examples_of_sessions() -> Examples {
    let session = SessionRecord {
        client_id: "me".to_string(),
        username: Some("ann".to_string()),
        vouched: true,
        granted: false,
        own_rules: false,
        listener: ListenerId(2),
        expiry_interval: 3_600,
        disconnected_at: Some(UnixMillis::from_millis(1_000)),
        will: Some(OwnedWill {
            topic: "w".to_string(),
            properties: vec![1, 1],
            payload: b"gone".to_vec(),
            qos: QoS::ExactlyOnce,
            retain: true,
            delay: 5,
            message_expiry_interval: None,
        }),
    };
    let subscription = SubscriptionRecord {
        session: EXAMPLE,
        filter: "a/#".to_string(),
        options: 0b101,
        subscription_id: SubscriptionId::new(7),
    };
    vec![
        (
            Record::Session(EXAMPLE, Box::new(session)),
            b"\x01\x33\x02me\x03ann\x02\x90\x1c\xe8\x07\x06\x05\x01w\x02\x01\x01gone",
        ),
        (
            Record::Subscription(EXAMPLE, Box::new(subscription)),
            b"\x01\x01\xac\x02\x05\x07a/#",
        ),
    ]
}

fn examples_of_messages() -> Examples {
    let mut message = Message::new("a/b", b"payload", true);
    message.qos = QoS::AtLeastOnce;
    message.origin = Origin(0x0807_0605_0403_0201);
    message.expires_at = UnixMillis::from_millis(1_000);
    let author = Author {
        username: Some("ann".into()),
        vouched: true,
        client_id: None,
        listener: ListenerId(2),
    };
    let retained = Record::Retained {
        id: EXAMPLE,
        body: RecordId(1),
        author: Some(Box::new(author)),
    };
    vec![
        (
            Record::Body(EXAMPLE, Rc::new(message)),
            b"\x01\x0d\x01\x02\x03\x04\x05\x06\x07\x08\xe8\x07\x03a/b\x00payload",
        ),
        (retained, b"\x01\x07\x02\x03ann"),
    ]
}

fn examples_of_exchanges() -> Examples {
    let five = PacketId::new(5).unwrap();
    let of = |state, share| {
        let reference = Reference {
            session: EXAMPLE,
            body: Some(RecordId(1)),
            qos: QoS::ExactlyOnce,
            retain: false,
            subscription_ids: SubscriptionId::new(7).into_iter().collect(),
            share,
            state,
        };
        Record::Reference(EXAMPLE, reference)
    };
    let reference = |state| of(state, None);
    let shared = Some(Box::new(("g".to_string(), "t/#".to_string())));
    let inbound = Record::Inbound {
        id: EXAMPLE,
        session: EXAMPLE,
        packet_id: five,
    };
    vec![
        (reference(ReferenceState::Queued), b"\x01\x02\x01\xac\x02\x07"),
        (reference(ReferenceState::Sent(five)), b"\x01\x0a\x01\xac\x02\x05\x07"),
        (
            reference(ReferenceState::Released(five)),
            b"\x01\x12\x01\xac\x02\x05\x07",
        ),
        (
            of(ReferenceState::Sent(five), shared),
            b"\x01\x2a\x01\xac\x02\x05\x01g\x03t/#\x07",
        ),
        (inbound, b"\x01\x01\xac\x02\x05"),
    ]
}

/// The bytes of format 1 stay what they are.
#[test]
fn format_1_stays_as_it_is() {
    let examples = [examples_of_sessions(), examples_of_messages(), examples_of_exchanges()];
    for (record, bytes) in examples.into_iter().flatten() {
        assert_eq!(encoded(&record), bytes, "{record:?}");
        assert_eq!(
            Record::decode(EXAMPLE, record.kind(), parent(&record), bytes),
            Ok(record)
        );
    }
}

/// What a later version wrote is told as that, and not as damage.
#[test]
fn a_later_version_is_told_as_that() {
    for (kind, bytes) in [(5, &b"\x02anything"[..]), (7, b"\x01"), (31, b"\x01")] {
        assert_eq!(Record::decode(RecordId(1), kind, None, bytes), Err(PayloadError::Newer));
    }
    assert_eq!(Record::decode(RecordId(1), 5, None, b""), Err(PayloadError::Malformed));
}
