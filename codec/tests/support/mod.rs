//! Arbitrary packets. They borrow from leaked memory: a test is short, and a borrowed packet needs an owner.
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sol_codec::*;

/// Text of all kinds, the empty one too; no U+0000, which MQTT does not allow.
pub(crate) fn text() -> impl Strategy<Value = &'static str> {
    vec(
        prop_oneof![4 => (b'!'..b'~').prop_map(char::from), 1 => any::<char>()],
        0..12,
    )
    .prop_map(|chars| leak(chars.into_iter().filter(|char| *char != '\0').collect()))
}

pub(crate) fn bytes() -> impl Strategy<Value = &'static [u8]> {
    // Long ones now and then, so that lengths of two and three bytes occur.
    prop_oneof![8 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..400), 1 => vec(any::<u8>(), 16_300..16_500)]
        .prop_map(|bytes| &*bytes.leak())
}

fn short_bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| &*bytes.leak())
}

fn leak(text: String) -> &'static str {
    text.leak()
}

pub(crate) fn topic_name() -> impl Strategy<Value = TopicName<'static>> {
    vec(prop_oneof!["[a-c]{0,3}", "\\PC{0,3}"], 1..6).prop_map(|levels| {
        let text = levels.join("/").replace(['+', '#'], "x");
        TopicName::new(leak(if text.is_empty() { "/".into() } else { text })).unwrap()
    })
}

pub(crate) fn topic_filter() -> impl Strategy<Value = TopicFilter<'static>> {
    let level = prop_oneof![3 => "[a-c]{0,3}".boxed(), 1 => Just("+".to_owned()).boxed()];
    (vec(level, 1..6), any::<bool>(), of("[a-z]{1,4}")).prop_map(|(mut levels, hash, share)| {
        if hash {
            levels.push("#".into());
        }
        let plain = levels.join("/");
        let plain = if plain.is_empty() { "/".to_owned() } else { plain };
        TopicFilter::new(leak(
            share.map_or_else(|| plain.clone(), |share| format!("$share/{share}/{plain}")),
        ))
        .unwrap()
    })
}

pub(crate) fn version() -> impl Strategy<Value = ProtocolVersion> {
    prop::sample::select(&ProtocolVersion::ALL[..])
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    prop_oneof![1..200_u32, 1..=SubscriptionId::MAX].prop_map(|id| SubscriptionId::new(id).unwrap())
}

fn non_zero_u16() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|value| NonZeroU16::new(value).unwrap())
}

fn non_zero_u32() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|value| NonZeroU32::new(value).unwrap())
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..3).prop_map(|pairs| UserProperties::from_pairs(pairs.leak()))
}

fn application() -> impl Strategy<Value = ApplicationProperties<'static>> {
    (
        of(any::<bool>()),
        of(text()),
        of(topic_name()),
        of(short_bytes()),
        vec((text(), text()), 0..3),
    )
        .prop_map(|(format, content_type, response_topic, correlation_data, pairs)| {
            let mut stored = Vec::new();
            let mut builder = ApplicationPropertiesBuilder::new(&mut stored);
            for (name, value) in &pairs {
                builder = builder.user_property(name, value);
            }
            if let Some(format) = format {
                builder = builder.payload_format_indicator(format);
            }
            if let Some(content_type) = content_type {
                builder = builder.content_type(content_type);
            }
            if let Some(response_topic) = response_topic {
                builder = builder.response_topic(response_topic);
            }
            if let Some(correlation_data) = correlation_data {
                builder.correlation_data(correlation_data);
            }
            ApplicationProperties::from_stored(stored.leak())
        })
}

fn reason_code(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let codes: Vec<_> = ReasonCode::ALL
        .iter()
        .copied()
        .filter(|code| code.is_allowed_on(packet))
        .collect();
    prop::sample::select(codes)
}

fn ack_properties() -> impl Strategy<Value = AckProperties<'static>> {
    (of(text()), user_properties()).prop_map(|(reason_string, user_properties)| AckProperties {
        reason_string,
        user_properties,
    })
}

fn will() -> impl Strategy<Value = Will<'static>> {
    let properties =
        (any::<u32>(), of(any::<u32>()), application()).prop_map(|(delay, expiry, application)| WillProperties {
            will_delay_interval: delay,
            message_expiry_interval: expiry,
            application,
        });
    (topic_name(), short_bytes(), qos(), any::<bool>(), properties).prop_map(
        |(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let authentication = of((text(), of(short_bytes())));
    let numbers = (
        of(any::<u32>()),
        of(non_zero_u16()),
        of(non_zero_u32()),
        of(any::<u16>()),
    );
    (
        numbers,
        of(any::<bool>()),
        of(any::<bool>()),
        user_properties(),
        authentication,
    )
        .prop_map(
            |(numbers, response, problem, user_properties, authentication)| ConnectProperties {
                session_expiry_interval: numbers.0,
                receive_maximum: numbers.1,
                maximum_packet_size: numbers.2,
                topic_alias_maximum: numbers.3,
                request_response_information: response,
                request_problem_information: problem,
                user_properties,
                authentication_method: authentication.map(|(method, _)| method),
                authentication_data: authentication.and_then(|(_, data)| data),
            },
        )
}

pub(crate) fn connect(version: ProtocolVersion) -> impl Strategy<Value = Connect<'static>> {
    let login = (of(text()), of(short_bytes()));
    (
        any::<bool>(),
        any::<u16>(),
        text(),
        of(will()),
        login,
        connect_properties(),
    )
        .prop_map(
            move |(clean_start, keep_alive, client_id, will, (username, password), properties)| {
                let v5 = version == ProtocolVersion::V5;
                Connect {
                    version,
                    clean_start,
                    keep_alive,
                    client_id,
                    will: will.map(|will| Will {
                        properties: if v5 { will.properties } else { Default::default() },
                        ..will
                    }),
                    username,
                    password: password.filter(|_| v5 || username.is_some()),
                    properties: if v5 { properties } else { Default::default() },
                }
            },
        )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties<'static>> {
    let numbers = (
        of(any::<u32>()),
        of(non_zero_u16()),
        of(non_zero_u32()),
        of(any::<u16>()),
        of(any::<u16>()),
    );
    let flags = (
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
    );
    let texts = (of(text()), of(text()), of(text()), of(text()));
    (
        numbers,
        flags,
        texts,
        user_properties(),
        of((text(), of(short_bytes()))),
    )
        .prop_map(
            |(numbers, flags, texts, user_properties, authentication)| ConnAckProperties {
                session_expiry_interval: numbers.0,
                receive_maximum: numbers.1,
                maximum_packet_size: numbers.2,
                topic_alias_maximum: numbers.3,
                server_keep_alive: numbers.4,
                maximum_qos: flags.0.map(|qos| if qos { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
                retain_available: flags.1,
                wildcard_subscription_available: flags.2,
                subscription_ids_available: flags.3,
                shared_subscription_available: flags.4,
                assigned_client_id: texts.0,
                reason_string: texts.1,
                response_information: texts.2,
                server_reference: texts.3,
                user_properties,
                authentication_method: authentication.map(|(method, _)| method),
                authentication_data: authentication.and_then(|(_, data)| data),
            },
        )
}

fn connack(version: ProtocolVersion) -> impl Strategy<Value = ConnAck<'static>> {
    (
        any::<bool>(),
        reason_code(PacketType::ConnAck),
        0..6_u8,
        connack_properties(),
    )
        .prop_map(move |(session_present, reason_code, return_code, properties)| {
            let v5 = version == ProtocolVersion::V5;
            let reason_code = if v5 {
                reason_code
            } else {
                ReasonCode::from_connect_return_code(return_code).unwrap()
            };
            ConnAck {
                session_present: session_present && version > ProtocolVersion::V31 && !reason_code.is_error(),
                reason_code,
                properties: if v5 { properties } else { Default::default() },
            }
        })
}

pub(crate) fn publish(version: ProtocolVersion) -> impl Strategy<Value = Publish<'static>> {
    let properties = (
        of(any::<u32>()),
        of(1..=u16::MAX),
        vec(subscription_id(), 0..4),
        application(),
    )
        .prop_map(|(message_expiry_interval, alias, ids, application)| PublishProperties {
            message_expiry_interval,
            topic_alias: alias.and_then(TopicAlias::new),
            subscription_ids: if ids.len() == 1 {
                ids[0].into()
            } else {
                SubscriptionIds::from_slice(ids.leak())
            },
            application,
        });
    (
        any::<[bool; 3]>(),
        qos(),
        topic_name(),
        packet_id(),
        properties,
        bytes(),
    )
        .prop_map(
            move |([dup, retain, hide], qos, topic, packet_id, properties, payload)| {
                let properties = if version == ProtocolVersion::V5 {
                    properties
                } else {
                    Default::default()
                };
                Publish {
                    dup: dup && qos > QoS::AtMostOnce,
                    qos,
                    retain,
                    topic: (!hide || properties.topic_alias.is_none()).then_some(topic),
                    packet_id: (qos > QoS::AtMostOnce).then_some(packet_id),
                    properties,
                    payload,
                }
            },
        )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Subscribe<'static>> {
    let v5 = version == ProtocolVersion::V5;
    let handling = prop::sample::select(&[
        RetainHandling::SendAtSubscribe,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    let request = (topic_filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(filter, qos, no_local, retain_as_published, retain_handling)| {
            let no_local = no_local && !filter.is_shared();
            let options = SubscriptionOptions {
                qos,
                no_local,
                retain_as_published,
                retain_handling,
            };
            (
                filter,
                if v5 {
                    options
                } else {
                    SubscriptionOptions {
                        qos,
                        ..Default::default()
                    }
                },
            )
        },
    );
    (
        packet_id(),
        of(subscription_id()),
        user_properties(),
        vec(request, 1..5),
    )
        .prop_map(move |(packet_id, subscription_id, user_properties, requests)| {
            let properties = SubscribeProperties {
                subscription_id,
                user_properties,
            };
            Subscribe {
                packet_id,
                properties: if v5 { properties } else { Default::default() },
                filters: Subscriptions::from_slice(requests.leak()),
            }
        })
}

fn suback(version: ProtocolVersion) -> BoxedStrategy<SubAck<'static>> {
    let v5 = version == ProtocolVersion::V5;
    let codes_of_3_x = [
        ReasonCode::GRANTED_QOS_0,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS2,
        ReasonCode::UnspecifiedError,
    ];
    let code = if v5 {
        reason_code(PacketType::SubAck).boxed()
    } else {
        prop::sample::select(codes_of_3_x.to_vec()).boxed()
    };
    (packet_id(), ack_properties(), vec(code, 1..5))
        .prop_map(move |(packet_id, properties, codes)| SubAck {
            packet_id,
            properties: if v5 { properties } else { Default::default() },
            reason_codes: ReasonCodes::from_slice(codes.leak()),
        })
        .boxed()
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Unsubscribe<'static>> {
    (packet_id(), user_properties(), vec(topic_filter(), 1..5)).prop_map(
        move |(packet_id, user_properties, filters)| {
            let user_properties = if version == ProtocolVersion::V5 {
                user_properties
            } else {
                Default::default()
            };
            Unsubscribe {
                packet_id,
                user_properties,
                filters: Filters::from_slice(filters.leak()),
            }
        },
    )
}

fn unsuback(version: ProtocolVersion) -> impl Strategy<Value = UnsubAck<'static>> {
    (
        packet_id(),
        ack_properties(),
        vec(reason_code(PacketType::UnsubAck), 1..5),
    )
        .prop_map(move |(packet_id, properties, codes)| match version {
            ProtocolVersion::V5 => UnsubAck {
                packet_id,
                properties,
                reason_codes: ReasonCodes::from_slice(codes.leak()),
            },
            _ => UnsubAck {
                packet_id,
                properties: Default::default(),
                reason_codes: ReasonCodes::from_slice(&[]),
            },
        })
}

fn disconnect(version: ProtocolVersion) -> impl Strategy<Value = Disconnect<'static>> {
    (
        reason_code(PacketType::Disconnect),
        of(any::<u32>()),
        of(text()),
        user_properties(),
        of(text()),
    )
        .prop_map(
            move |(reason_code, session_expiry_interval, reason_string, user_properties, server_reference)| {
                let properties = DisconnectProperties {
                    session_expiry_interval,
                    reason_string,
                    user_properties,
                    server_reference,
                };
                match version {
                    ProtocolVersion::V5 => Disconnect {
                        reason_code,
                        properties,
                    },
                    _ => Disconnect::new(ReasonCode::NORMAL_DISCONNECTION),
                }
            },
        )
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    (
        reason_code(PacketType::Auth),
        text(),
        of(short_bytes()),
        of(text()),
        user_properties(),
    )
        .prop_map(
            |(reason_code, method, authentication_data, reason_string, user_properties)| {
                let authentication_method = Some(method);
                Auth {
                    reason_code,
                    properties: AuthProperties {
                        authentication_method,
                        authentication_data,
                        reason_string,
                        user_properties,
                    },
                }
            },
        )
}

macro_rules! ack {
    ($name:ident, $version:expr) => {
        (packet_id(), reason_code(PacketType::$name), ack_properties(), 0..3)
            .prop_map(move |(packet_id, reason_code, properties, form)| {
                // Each of the three forms on the wire has its turn.
                Packet::$name(match form {
                    _ if $version < ProtocolVersion::V5 => $name::success(packet_id),
                    0 => $name::success(packet_id),
                    1 => $name::new(packet_id, reason_code),
                    _ => $name {
                        packet_id,
                        reason_code,
                        properties,
                    },
                })
            })
            .boxed()
    };
}

/// Any packet that the version can say.
pub(crate) fn packet(version: ProtocolVersion) -> impl Strategy<Value = Packet<'static>> {
    let v5_only = if version == ProtocolVersion::V5 {
        auth().prop_map(Packet::Auth).boxed()
    } else {
        Just(Packet::PingReq).boxed()
    };
    prop_oneof![
        3 => connect(version).prop_map(Packet::Connect),
        2 => connack(version).prop_map(Packet::ConnAck),
        3 => publish(version).prop_map(Packet::Publish),
        1 => ack!(PubAck, version),
        1 => ack!(PubRec, version),
        1 => ack!(PubRel, version),
        1 => ack!(PubComp, version),
        2 => subscribe(version).prop_map(Packet::Subscribe),
        1 => suback(version).prop_map(Packet::SubAck),
        1 => unsubscribe(version).prop_map(Packet::Unsubscribe),
        1 => unsuback(version).prop_map(Packet::UnsubAck),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::PingResp),
        1 => disconnect(version).prop_map(Packet::Disconnect),
        1 => v5_only,
    ]
}

/// Any packet beside its version.
pub(crate) fn versioned_packet() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    version().prop_flat_map(|version| packet(version).prop_map(move |packet| (version, packet)))
}

pub(crate) fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}
