//! Nothing that a client sends costs without limit or without a charge: work is cut into steps, and what is kept is
//! charged and bounded.

use std::num::NonZeroU32;
use std::rc::Rc;

use sol_codec::{Packet, Subscribe, Subscriptions, TopicFilter};
use sol_engine::{
    ConnectionId, Effects, Engine, EngineConfig, Input, ListenerId, Message, Now, Outgoing, ShardId, ShardMessage,
    Transmit,
};

use crate::support::*;

/// Whoever was given a Client Identifier cannot tell the next: it is no linear function of the one before.
#[test]
fn assigned_client_identifiers_cannot_be_predicted() {
    let mut node = Node::new(1, EngineConfig::default());
    let numbers: Vec<u64> = (0..4)
        .map(|_| {
            let client = node.connect(V5, "");
            let name = node.clients[client.0].connack.clone().unwrap().assigned_client_id;
            u64::from_str_radix(name.unwrap().rsplit('-').next().unwrap(), 16).unwrap()
        })
        .collect();
    let steps: Vec<u64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    // With d(n + 1) = a * d(n) for one a, d0 * d2 = d1 * d1.
    assert_ne!(steps[0].wrapping_mul(steps[2]), steps[1].wrapping_mul(steps[1]));
    assert!(numbers.iter().all(|&number| number > 1_000));
}

/// Topic Aliases of both directions are charged with their topics, and refunded with their connection.
#[test]
fn topic_aliases_are_charged() {
    in_every_node(|node| {
        let subscriber = node.connect_with(V5, "subscriber", |c| c.properties.topic_alias_maximum = Some(4));
        node.take(subscriber);
        node.subscribed(subscriber, &["#"], 0);
        let publisher = node.connect(V5, "publisher");
        let before = node.stats().memory_bytes;
        let topic = |n: u16| format!("{n}/{}", "long".repeat(250));
        for n in 1..=4 {
            node.publish_with(publisher, &topic(n), 0, 0, "x", move |p| {
                p.properties.topic_alias = sol_codec::TopicAlias::new(1 + n % 2);
            });
        }
        let charged = node.stats().memory_bytes - before;
        assert!((6_000..8_000).contains(&charged), "two in, four out: {charged}");
        node.lose(publisher);
        node.lose(subscriber);
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// A filter that is subscribed, given up and subscribed again before any shard has confirmed it waits for the latest
/// announcement, and for that alone.
#[test]
fn a_filter_waits_for_its_latest_announcement() {
    let mut node = Node::new(2, EngineConfig::default());
    let name = node.name_on(0, "subscriber");
    let subscriber = node.connect(V5, &name);
    node.held_links.push((1, 0));
    for _ in 0..3 {
        node.subscribe(subscriber, &["a", "b/+"], 1);
        node.unsubscribe(subscriber, &["a"]);
    }
    node.subscribe(subscriber, &["a", "b/+"], 1);
    let early = node.take(subscriber);
    assert!(early.iter().all(|line| line.starts_with("UNSUBACK")), "{early:?}");
    node.held_links.clear();
    node.run();
    node.expect(subscriber, &["SUBACK #1 [01, 01]"; 4]);
    node.subscribe(subscriber, &["a"], 0);
    node.expect(subscriber, &["SUBACK #1 [00]"]);
}

/// An engine by itself, for what a whole node hides: how much one call does.
struct Bare {
    engine: Engine,
    effects: Effects,
    now: Now,
}

impl Bare {
    fn new(config: EngineConfig) -> Self {
        Self {
            engine: Engine::new(ShardId(0), Rc::new(config), SEEDS),
            effects: Effects::default(),
            now: Now::default(),
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let _ = self.engine.handle(self.now, input, &mut self.effects);
    }

    fn connection(n: u32) -> ConnectionId {
        ConnectionId::new(n, NonZeroU32::MIN)
    }

    fn send(&mut self, n: u32, packet: &Packet<'_>) {
        self.input(Input::Packet(Self::connection(n), packet));
    }

    /// Connects client `n`, whose Session outlives its connection.
    fn connect(&mut self, n: u32) {
        self.input(Input::Opened {
            connection: Self::connection(n),
            listener: ListenerId(0),
        });
        let name = format!("c{n}");
        let mut packet = connect(V5, &name);
        packet.properties.session_expiry_interval = Some(1_000);
        self.send(n, &Packet::Connect(packet));
        self.effects.clear();
    }

    fn subscribe(&mut self, n: u32, filters: &[String], level: u8) {
        let requests: Vec<_> = filters
            .iter()
            .map(|filter| (TopicFilter::new(filter).unwrap(), options(level)))
            .collect();
        self.send(
            n,
            &Packet::Subscribe(Subscribe {
                packet_id: id(1),
                properties: Default::default(),
                filters: Subscriptions::from_slice(&requests),
            }),
        );
    }

    /// Publishes a message of the broker's own.
    fn retain(&mut self, topic: &str) {
        self.input(Input::Publish(Box::new(Message::new(topic, b"x", true))));
        self.effects.clear();
    }

    /// PUBLISH packets in the tray, which is cleared.
    fn sent(&mut self) -> usize {
        let publishes = |transmit: &&Transmit| matches!(transmit.packet, Outgoing::Publish(_));
        let sent = self.effects.transmits.iter().filter(publishes).count();
        self.effects.clear();
        sent
    }

    fn is_busy(&self) -> bool {
        self.engine.next_deadline().is_some_and(|at| at <= self.now.mono)
    }

    /// What each tick does until nothing is left to do.
    fn ticks(&mut self, mut did: impl FnMut(&mut Self) -> usize) -> Vec<usize> {
        let mut all = Vec::new();
        while self.is_busy() {
            self.engine.tick(self.now, &mut self.effects);
            all.push(did(self));
            assert!(all.len() < 10_000, "it does not come to rest");
        }
        all
    }
}

/// However often a filter is subscribed to while its replay cannot begin, its retained messages come once for the
/// replay at work and once for those behind it.
#[test]
fn a_filter_has_one_replay_ahead() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for topic in ["a", "b", "c"] {
            node.retain(publisher, topic, 1, 1, "x");
        }
        let subscriber = node.connect_with(V5, "subscriber", |c| {
            c.properties.receive_maximum = std::num::NonZeroU16::new(1);
        });
        node.take(subscriber);
        for _ in 0..50 {
            node.subscribe(subscriber, &["+"; 100], 1);
        }
        let got = node.drink(subscriber);
        let publishes = got.iter().filter(|line| line.starts_with("PUBLISH")).count();
        assert!((3..=6).contains(&publishes), "{publishes}");
        node.subscribe(subscriber, &["+"], 1);
        let got = node.drink(subscriber);
        assert_eq!(got.iter().filter(|line| line.starts_with("PUBLISH")).count(), 3);
    });
}

/// Two thousand exact filters in one SUBSCRIBE take a page's worth of messages a turn, not one filter a turn.
#[test]
fn many_exact_filters_are_replayed_in_few_turns() {
    let mut bare = Bare::new(EngineConfig::default());
    let topics: Vec<String> = (0..2_000).map(|n| format!("t/{n}")).collect();
    for topic in &topics {
        bare.retain(topic);
    }
    bare.connect(0);
    bare.subscribe(0, &topics, 0);
    let first = bare.sent();
    let turns = bare.ticks(Bare::sent);
    assert_eq!(first + turns.iter().sum::<usize>(), 2_000);
    assert!(turns.len() <= 10, "{turns:?}");
}

/// Replays of many Sessions go on in turn, a bounded number of them in a tick.
#[test]
fn replays_take_turns() {
    let config = EngineConfig {
        retained_page_max: 1,
        tray_max: 20,
        ..Default::default()
    };
    let mut bare = Bare::new(config);
    for n in 0..5 {
        bare.retain(&format!("t{n}"));
    }
    let mut sent = 0;
    for n in 0..100 {
        bare.connect(n);
        bare.subscribe(n, &["#".into()], 0);
        sent += bare.sent();
    }
    let turns = bare.ticks(Bare::sent);
    assert!(turns.iter().all(|&sent| sent <= 20), "{turns:?}");
    assert_eq!(sent + turns.iter().sum::<usize>(), 500);
}

/// A question of another shard looks at a bounded number of topics, and says where to go on.
#[test]
fn a_retained_query_has_one_budget() {
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        ..Default::default()
    });
    let mut topics: Vec<String> = (0..20_000).map(|n| format!("building/{n:05}/temperature")).collect();
    topics.retain(|topic| bare.engine.is_home_of_topic(topic));
    topics.iter().for_each(|topic| bare.retain(topic));
    let (mut after, mut questions) = (None, 0);
    loop {
        questions += 1;
        bare.input(Input::Shard {
            from: ShardId(1),
            message: ShardMessage::RetainedQuery {
                id: 1,
                filter: "building/+/nothing".into(),
                after: after.take(),
            },
        });
        let answer = bare.effects.forwards.pop();
        let Some((_, ShardMessage::RetainedPage { messages, more, .. })) = answer else {
            panic!("{answer:?}")
        };
        assert!(messages.is_empty());
        let Some(more) = more else { break };
        let looked = topics.partition_point(|topic| *topic <= more);
        assert!(looked <= questions * 4_096, "{looked} after {questions}");
        after = Some(more);
    }
    assert!(questions >= topics.len() / 4_096);
}
