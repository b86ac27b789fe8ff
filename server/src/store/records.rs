//! For tests: any records, as a broker could have written them.

use std::rc::Rc;

use proptest::prelude::*;
use sol_codec::{ApplicationProperties, ApplicationPropertiesBuilder, PacketId, QoS, SubscriptionId};
use sol_engine::{
    Author, ListenerId, Message, Origin, OwnedWill, Record, RecordId, Reference, ReferenceState, SessionRecord,
    SubscriptionRecord, UnixMillis,
};
use sol_transport::About;

pub(super) fn about() -> About {
    About {
        seeds: [1, 2, 3, u64::MAX],
        listeners: vec!["0.0.0.0:1883".to_owned(), "web".to_owned()],
    }
}

pub(super) fn id(count: u64) -> RecordId {
    RecordId((count % 3) << RecordId::COUNT_BITS | count)
}

fn record_id() -> impl Strategy<Value = RecordId> {
    (1..1_000_u64).prop_map(id)
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    (1..268_435_455_u32).prop_map(|id| SubscriptionId::new(id).unwrap())
}

fn topic() -> impl Strategy<Value = String> {
    "[a-z/ \"\\\\\u{e9}\u{1F600}]{1,20}"
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof![topic(), Just("#".to_owned()), Just("$share/g/a/+/b".to_owned())]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..100)
}

fn properties() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::option::of("[a-z]{0,9}"),
        prop::option::of(bytes()),
        prop::option::of(("[a-z]{0,9}", "[a-z]{0,9}")),
    )
        .prop_map(|(content_type, correlation, user)| {
            let mut stored = Vec::new();
            if let Some(data) = correlation {
                let _ = ApplicationPropertiesBuilder::new(&mut stored).correlation_data(&data);
            }
            if let Some((name, value)) = user {
                let _ = ApplicationPropertiesBuilder::new(&mut stored).user_property(&name, &value);
            }
            if let Some(content_type) = content_type {
                let _ = ApplicationPropertiesBuilder::new(&mut stored).content_type(&content_type);
            }
            stored
        })
}

fn will() -> impl Strategy<Value = OwnedWill> {
    (topic(), properties(), bytes(), qos(), any::<(bool, u32, Option<u32>)>()).prop_map(
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

pub(super) fn session() -> impl Strategy<Value = SessionRecord> {
    let names = any::<(String, Option<String>, bool, bool, bool)>();
    let rest = (0..4_u16, any::<u32>(), any::<Option<u64>>());
    (names, rest, prop::option::of(will())).prop_map(|(names, (listener, expiry_interval, away), will)| SessionRecord {
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

pub(super) fn subscription(session: RecordId) -> impl Strategy<Value = SubscriptionRecord> {
    let options = (qos(), any::<(bool, bool, bool)>(), 0..3_u8);
    (filter(), options, prop::option::of(subscription_id())).prop_map(
        move |(filter, (qos, (no_local, as_published, replays), handling), subscription_id)| {
            let replays = replays && qos > QoS::AtMostOnce && !filter.starts_with("$share/");
            SubscriptionRecord {
                session,
                filter,
                options: qos as u8
                    | u8::from(no_local) << 2
                    | u8::from(as_published) << 3
                    | handling << 4
                    | u8::from(replays) << 6,
                subscription_id,
            }
        },
    )
}

pub(super) fn message() -> impl Strategy<Value = Message> {
    let rest = (qos(), any::<(bool, u64, Option<u32>)>());
    (topic(), properties(), bytes(), rest).prop_map(|(topic, properties, payload, (qos, rest))| {
        let mut message = Message::empty();
        message.fill(&topic, ApplicationProperties::from_stored(&properties), &payload);
        message.qos = qos;
        message.retain = rest.0;
        message.origin = Origin(rest.1);
        if let Some(at) = rest.2 {
            message.expires_at = UnixMillis::from_millis(u64::from(at));
        }
        message
    })
}

pub(super) fn author() -> impl Strategy<Value = Option<Box<Author>>> {
    let author = any::<(Option<String>, bool, Option<String>)>().prop_flat_map(|(username, vouched, client_id)| {
        (0..4_u16).prop_map(move |listener| {
            Box::new(Author {
                username: username.clone().map(String::into_boxed_str),
                vouched,
                client_id: client_id.clone().map(String::into_boxed_str),
                listener: ListenerId(listener),
            })
        })
    });
    prop::option::of(author)
}

pub(super) fn reference(session: RecordId, body: RecordId) -> impl Strategy<Value = Reference> {
    let state = prop_oneof![
        Just(ReferenceState::Queued),
        packet_id().prop_map(ReferenceState::Sent),
        packet_id().prop_map(ReferenceState::Released),
    ];
    let ids = prop::collection::vec(subscription_id(), 0..3);
    (state, any::<(bool, bool, bool)>(), ids).prop_map(move |(state, (twice, retain, shared), ids)| {
        let is_released = matches!(state, ReferenceState::Released(_));
        Reference {
            session,
            body: (!is_released).then_some(body),
            qos: if twice || is_released {
                QoS::ExactlyOnce
            } else {
                QoS::AtLeastOnce
            },
            retain,
            subscription_ids: ids.into(),
            share: shared.then(|| Box::new(("g".to_owned(), "a/+".to_owned()))),
            state,
        }
    })
}

pub(super) fn record() -> impl Strategy<Value = Record> {
    let two = (record_id(), record_id());
    prop_oneof![
        (record_id(), session()).prop_map(|(id, session)| Record::Session(id, Box::new(session))),
        two.prop_flat_map(|(id, session)| {
            subscription(session).prop_map(move |subscription| Record::Subscription(id, Box::new(subscription)))
        }),
        (record_id(), message()).prop_map(|(id, message)| Record::Body(id, Rc::new(message))),
        (record_id(), record_id(), author()).prop_map(|(id, body, author)| Record::Retained { id, body, author }),
        (record_id(), record_id(), record_id()).prop_flat_map(|(id, session, body)| {
            reference(session, body).prop_map(move |reference| Record::Reference(id, reference))
        }),
        (record_id(), record_id(), packet_id()).prop_map(|(id, session, packet_id)| Record::Inbound {
            id,
            session,
            packet_id
        }),
    ]
}
