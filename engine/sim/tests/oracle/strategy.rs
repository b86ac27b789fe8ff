//! Random stories that shrink.

use proptest::prelude::*;
use sol_codec::{QoS, RetainHandling, SubscriptionOptions};
use sol_engine::QueueFull;
use sol_sim::story::{CLIENTS, FILTERS, Op, Sizes, Story, TOPICS, options};
use sol_sim::world::{ConnectPlan, PublishPlan};

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn topic() -> impl Strategy<Value = String> {
    prop::sample::select(TOPICS.to_vec()).prop_map(str::to_owned)
}

fn seconds() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..5u32, Just(100), Just(u32::MAX)]
}

fn connect_plan() -> impl Strategy<Value = ConnectPlan> {
    let will = (topic(), qos(), rarely(), prop_oneof![Just(0), 1..5u32]);
    (
        rarely(),
        seconds(),
        prop::option::of(1..5u16),
        prop::option::weighted(0.1, 130..200u32),
        0..3u16,
        prop::option::weighted(0.3, will),
    )
        .prop_map(
            |(clean_start, expiry, receive_maximum, maximum_packet_size, topic_alias_maximum, will)| ConnectPlan {
                clean_start,
                session_expiry_interval: expiry,
                receive_maximum,
                maximum_packet_size,
                topic_alias_maximum,
                will,
            },
        )
}

fn publish_plan() -> impl Strategy<Value = PublishPlan> {
    (
        topic(),
        qos(),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.15),
        prop::option::weighted(0.15, 1..4u32),
        rarely(),
        prop_oneof![9 => 0..8usize, 1 => Just(120)],
        any::<bool>(),
    )
        .prop_map(
            |(topic, qos, retain, empty, expiry, alias, padding, tagged)| PublishPlan {
                topic,
                qos,
                retain,
                empty,
                expiry,
                alias,
                padding,
                tagged,
            },
        )
}

fn subscription_options() -> impl Strategy<Value = SubscriptionOptions> {
    let handling = prop_oneof![
        3 => Just(RetainHandling::SendAtSubscribe),
        1 => Just(RetainHandling::SendIfNew),
        1 => Just(RetainHandling::DoNotSend),
    ];
    (qos(), rarely(), rarely(), handling).prop_map(|(qos, no_local, retain_as_published, handling)| {
        options(qos, no_local, retain_as_published, handling)
    })
}

/// One operation. Clients are found by their place, so that fewer of them take part as a story shrinks.
fn op() -> impl Strategy<Value = Op> {
    let who = 0..CLIENTS.len();
    let filters = prop::collection::vec((0..FILTERS.len(), subscription_options()), 1..3);
    prop_oneof![
        4 => (who.clone(), connect_plan()).prop_map(|(who, plan)| Op::Connect(who, plan)),
        1 => (who.clone(), rarely(), prop::option::weighted(0.2, seconds()))
            .prop_map(|(who, with_will, expiry)| Op::Disconnect(who, with_will, expiry)),
        2 => who.clone().prop_map(Op::Lose),
        5 => (who.clone(), filters, prop::option::of(1..100u32)).prop_map(|(who, filters, id)| Op::Subscribe(who, filters, id)),
        1 => (who.clone(), 0..FILTERS.len()).prop_map(|(who, filter)| Op::Unsubscribe(who, filter)),
        16 => (who.clone(), publish_plan(), prop_oneof![3 => Just(1), 1 => 2..5usize])
            .prop_map(|(who, plan, count)| Op::Publish(who, plan, count)),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, withholds)| Op::Withhold(who, withholds)),
        2 => (who.clone(), 1..4usize).prop_map(|(who, count)| Op::Release(who, count)),
        1 => (who, any::<bool>()).prop_map(|(who, congested)| Op::Congest(who, congested)),
        1 => prop_oneof![1..500u64, 500..6_000u64, Just(101_000)].prop_map(Op::Pass),
        12 => (1..60usize).prop_map(Op::Steps),
        1 => Just(Op::Rest),
        1 => Just(Op::Look),
    ]
}

fn sizes(shards: u16) -> impl Strategy<Value = Sizes> {
    let full = prop_oneof![
        Just(QueueFull::Refuse),
        Just(QueueFull::DropNewest),
        Just(QueueFull::DropOldest)
    ];
    (
        any::<bool>(),
        prop_oneof![Just(1usize), Just(3), Just(8_192)],
        1..20usize,
        0..5usize,
        prop::option::weighted(0.2, (1..6usize, full)),
        rarely(),
    )
        .prop_map(
            move |(journal, tray_max, retained_page_max, replay_seen_max, queue, queue_qos0)| Sizes {
                shards,
                journal,
                tray_max,
                retained_page_max,
                replay_seen_max,
                queue,
                queue_qos0,
            },
        )
}

/// A story in a world of so many shards.
pub(crate) fn story(shards: u16) -> impl Strategy<Value = Story> {
    // Most begin with somebody connected, so that something happens at all.
    let begins = (0..CLIENTS.len(), connect_plan()).prop_map(|(who, plan)| Op::Connect(who, plan));
    (
        any::<u64>(),
        sizes(shards),
        prop::collection::vec(begins, 2..7),
        prop::collection::vec(op(), 1..120),
    )
        .prop_map(|(seed, sizes, mut ops, more)| {
            ops.push(Op::Rest);
            ops.extend(more);
            Story { seed, sizes, ops }
        })
}
