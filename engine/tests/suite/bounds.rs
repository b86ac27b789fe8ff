//! Nothing that a client sends costs without limit or without a charge: work is cut into steps, and what is kept is
//! charged and bounded.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{Packet, Publish, Subscribe, Subscriptions, TopicFilter};
use sol_engine::{
    ConnectionId, Effects, Engine, EngineConfig, Flow, Forward, Input, Interest, Level, ListenerId, Message, Now,
    Outgoing, Read, ShardId, ShardMessage, Transmit, UnixMillis,
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

    /// Hears something of shard 1.
    fn hear(&mut self, message: ShardMessage) {
        let from = ShardId(1);
        self.input(Input::Shard { from, message });
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

    /// Connects so many clients that are at home on this shard, of which those from the `publishers`th on subscribe.
    fn connect_here(&mut self, count: usize, publishers: usize, filter: &str) -> Vec<u32> {
        let is_here = |n: &u32| self.engine.is_home_of_client(&format!("c{n}"));
        let here: Vec<u32> = (0..1_000).filter(is_here).take(count).collect();
        for &n in &here {
            self.connect(n);
        }
        for &n in &here[publishers..] {
            self.subscribe(n, &[filter.into()], 0);
        }
        here
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

/// A page for another shard is a copy: it ends by its bytes, however large the messages are.
#[test]
fn a_page_for_another_shard_ends_by_its_bytes() {
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        ..Default::default()
    });
    let mut topics: Vec<String> = (0..100).map(|n| format!("t{n:02}")).collect();
    topics.retain(|topic| bare.engine.is_home_of_topic(topic));
    for topic in &topics {
        bare.input(Input::Publish(Box::new(Message::new(topic, &[0; 20_000], true))));
        bare.effects.clear();
    }
    let (mut after, mut all) = (None, Vec::new());
    loop {
        bare.hear(ShardMessage::RetainedQuery {
            id: 1,
            filter: "#".into(),
            after: after.take(),
        });
        let answer = bare.effects.forwards.pop();
        let Some((_, ShardMessage::RetainedPage { messages, more, .. })) = answer else {
            panic!("{answer:?}")
        };
        assert!(messages.len() <= 4, "{} of 20 kB", messages.len());
        all.extend(messages.iter().map(|message| String::from(message.topic())));
        let Some(more) = more else { break };
        after = Some(more);
    }
    assert_eq!(all, topics);
}

/// Takes the questions of the tray to another shard: their names.
fn questions(bare: &mut Bare) -> Vec<u64> {
    let questions = bare.effects.forwards.drain(..);
    questions
        .filter_map(|(_, message)| match message {
            ShardMessage::RetainedQuery { id, .. } => Some(id),
            _ => None,
        })
        .collect()
}

/// Pages of another shard are copies: without memory none is asked for, what comes nevertheless is asked for again when
/// there is memory, and Sessions whose clients stop reading hold no more than there is.
#[test]
fn pages_wait_for_memory() {
    const MAX: usize = 1_000_000;
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        memory_bytes_max: MAX,
        ..Default::default()
    });
    let here = bare.connect_here(100, 0, "#");
    bare.effects.clear();
    bare.input(Input::Pressure(Level::Full));
    bare.hear(ShardMessage::Confirmed(u64::MAX));
    bare.ticks(|_| 0);
    assert_eq!(questions(&mut bare), []);
    bare.input(Input::Pressure(Level::Normal));
    bare.ticks(|_| 0);
    let mut asked = questions(&mut bare);
    assert_eq!(asked.len(), here.len());
    bare.effects.clear();
    for &n in &here {
        bare.input(Input::Congested(Bare::connection(n), 3 << 20));
    }
    let (mut sent, mut rounds) = (0, 0);
    while !asked.is_empty() {
        rounds += 1;
        assert!(rounds < 100, "it does not come to rest");
        for id in asked {
            bare.hear(ShardMessage::RetainedPage {
                id,
                messages: vec![Message::new("t", &[0; 50_000], true)],
                more: None,
            });
        }
        bare.ticks(|_| 0);
        let held = bare.engine.stats().memory_bytes as usize;
        assert!(held <= MAX + 60_000, "{held}");
        assert_eq!(questions(&mut bare), [], "there is no memory");
        for &n in &here {
            bare.input(Input::Drained(Bare::connection(n)));
        }
        sent += bare.effects.transmits.len();
        asked = questions(&mut bare);
        bare.effects.clear();
        bare.input(Input::Flushed);
        bare.ticks(|_| 0);
        asked.extend(questions(&mut bare));
    }
    assert_eq!(sent, here.len());
}

fn bounded(tray_max: usize) -> Bare {
    Bare::new(EngineConfig {
        tray_max,
        fanout_waiting_max: 3,
        ..Default::default()
    })
}

/// A line behind a fan-out that is never empty is no way around a full mailbox: who publishes into it is paused until that
/// has room.
#[test]
fn a_line_is_no_way_around_a_full_shard() {
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        tray_max: 4,
        ..Default::default()
    });
    let here = bare.connect_here(11, 1, "t");
    let peer = |full| Input::Peer {
        shard: ShardId(1),
        full,
    };
    bare.input(peer(true));
    bare.effects.clear();
    let publisher = Bare::connection(here[0]);
    let packet = Packet::Publish(publish("t", 0, 0, b"x"));
    let flows = [(); 2].map(|()| {
        let input = Input::Packet(publisher, &packet);
        bare.engine.handle(bare.now, input, &mut bare.effects)
    });
    assert_eq!(flows, [Flow::Go, Flow::Stop]);
    assert_eq!(bare.effects.reads, []);
    bare.input(peer(false));
    assert_eq!(bare.effects.reads, [Read::Resume(publisher)]);
}

/// QoS 0 that another shard is to retain is never dropped behind its line, so who pours it is not read while much of it is
/// unanswered, by way of our own line either. Nobody else is held up.
#[test]
fn what_another_shard_is_to_retain_is_paced() {
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        tray_max: 4,
        ..Default::default()
    });
    let here = bare.connect_here(12, 2, "t");
    let mut topics = (0..1_000).map(|n| format!("r{n}"));
    let topic = topics.find(|topic| !bare.engine.is_home_of_topic(topic)).unwrap();
    bare.hear(ShardMessage::Interest {
        n: 1,
        filter: Interest::Wildcard("#".into()),
    });
    bare.effects.clear();
    let payload = [0; 50_000];
    let plain = publish(&topic, 0, 0, &payload);
    let mut retained = plain;
    retained.retain = true;
    let say = |bare: &mut Bare, n: usize, packet: &Publish<'_>| {
        let packet = Packet::Publish(*packet);
        let input = Input::Packet(Bare::connection(here[n]), &packet);
        bare.engine.handle(bare.now, input, &mut bare.effects)
    };
    let poured = (1..100).find(|_| say(&mut bare, 0, &retained) == Flow::Stop).unwrap();
    assert!((2..10).contains(&poured), "{poured} of 50 kB");
    assert_eq!(say(&mut bare, 1, &plain), Flow::Go);
    assert_eq!(say(&mut bare, 1, &publish("t", 0, 0, b"x")), Flow::Go);
    assert_eq!(say(&mut bare, 1, &plain), Flow::Go);
    assert_eq!(say(&mut bare, 1, &retained), Flow::Stop);
    bare.ticks(Bare::sent);
    bare.hear(ShardMessage::Taken(1));
    assert_eq!(bare.effects.reads, []);
    bare.hear(ShardMessage::Taken(poured));
    let resumed = [0, 1].map(|n| Read::Resume(Bare::connection(here[n])));
    assert_eq!(bare.effects.reads, resumed);
    assert_eq!(say(&mut bare, 0, &retained), Flow::Go);
}

/// The answer to QoS 0 that is to be retained comes when it is, not when it waits in line; and when there is no memory for
/// it to wait.
#[test]
fn what_is_to_be_retained_is_answered_in_its_turn() {
    let (mut bare, topic, _) = with_fresh_in_line();
    let config = EngineConfig {
        shards: 2,
        tray_max: 4,
        fanout_waiting_max: 2,
        ..Default::default()
    };
    bare.input(Input::Reload(Rc::new(config)));
    for n in 1..=2 {
        let forward = Forward {
            n,
            message: Message::new(&topic, b"x", true),
            route: false,
            retain: true,
            groups: Vec::new(),
            author: None,
            may_refuse: false,
            transaction: None,
        };
        bare.hear(ShardMessage::Forward(Box::new(forward)));
        bare.input(Input::Pressure(Level::Full));
    }
    assert_eq!(bare.engine.stats().publish_dropped, 1);
    let mut answers = Vec::new();
    let ticks = bare.ticks(|bare| {
        let answered = bare.effects.forwards.len();
        answers.extend(bare.effects.forwards.drain(..).map(|(_, answer)| answer));
        bare.effects.clear();
        answered
    });
    assert_eq!(ticks.first(), Some(&0));
    assert_eq!(answers, [ShardMessage::Taken(2)]);
}

/// A fan-out to Sessions that are away sends nothing, and is cut by its steps.
#[test]
fn a_fanout_to_away_sessions_is_cut() {
    let mut bare = bounded(10);
    for n in 0..100 {
        bare.connect(n);
        bare.subscribe(n, &["t".into(), "t/#".into()], 1);
        if n > 0 {
            bare.input(Input::Closed(Bare::connection(n)));
        }
    }
    bare.effects.clear();
    let stored = |bare: &mut Bare| {
        bare.effects.clear();
        bare.engine.stats().stored_messages as usize
    };
    bare.send(0, &Packet::Publish(publish("t", 1, 1, b"x")));
    let first = stored(&mut bare);
    let mut counts = vec![0, first];
    counts.extend(bare.ticks(stored));
    assert!(counts.windows(2).all(|pair| pair[1] - pair[0] <= 10), "{counts:?}");
    assert_eq!(counts.last(), Some(&100));
}

/// What waits for a fan-out, in it or behind it, may expire there: those who have not had it by then do not get it
/// [MQTT-3.3.2-5], it is counted, and its acknowledgement leaves all the same.
#[test]
fn what_waits_for_a_fanout_may_expire() {
    let mut bare = bounded(2);
    bare.now.wall = UnixMillis::from_millis(1_000_000_000_000);
    for n in 0..5 {
        bare.connect(n);
        bare.subscribe(n, &["t".into(), "t/#".into()], 1);
    }
    bare.effects.clear();
    for packet_id in 1..=2 {
        let mut packet = publish("t", 1, packet_id, b"x");
        packet.properties.message_expiry_interval = Some(5);
        bare.send(0, &Packet::Publish(packet));
    }
    assert_eq!(bare.sent(), 2);
    bare.now.wall = bare.now.wall.plus_seconds(6);
    let mut acks = 0;
    let sent = bare.ticks(|bare| {
        let is_ack = |transmit: &&Transmit| matches!(transmit.packet, Outgoing::Ack { .. });
        acks += bare.effects.transmits.iter().filter(is_ack).count();
        bare.sent()
    });
    assert_eq!((sent.iter().sum::<usize>(), acks), (0, 2));
    assert!(bare.engine.stats().publish_expired >= 3);
}

/// So is one to many Shared Subscriptions; each of them gets it once, and the acknowledgement waits for the last.
#[test]
fn a_message_to_many_shared_subscriptions_is_cut() {
    let mut bare = bounded(10);
    bare.connect(0);
    let filters: Vec<String> = (0..100).map(|n| format!("$share/g{n}/t")).collect();
    bare.subscribe(0, &filters, 0);
    bare.effects.clear();
    bare.send(0, &Packet::Publish(publish("t", 1, 1, b"x")));
    let mut counts = vec![bare.sent()];
    let mut acked_at = None;
    counts.extend(bare.ticks(|bare| {
        let acked = bare
            .effects
            .transmits
            .iter()
            .any(|t| matches!(t.packet, Outgoing::Ack { .. }));
        acked_at = acked.then_some(()).or(acked_at);
        assert!(!acked || !bare.is_busy(), "acknowledged with the last");
        bare.sent()
    }));
    assert!(counts.iter().all(|&sent| sent <= 10), "{counts:?}");
    assert_eq!((counts.iter().sum::<usize>(), acked_at), (100, Some(())));
}

/// The same with members on other shards: every group's message is forwarded, and the acknowledgement waits for all.
#[test]
fn a_cut_message_reaches_shared_subscriptions_elsewhere() {
    let config = EngineConfig {
        tray_max: 7,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let filters: Vec<String> = (0..60).map(|n| format!("$share/g{n}/t")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let members: Vec<_> = ["a", "b", "c"].map(|name| node.connect(V5, name)).into();
        for &member in &members {
            node.subscribed(member, &filters, 1);
        }
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, "x");
        node.expect(publisher, &["PUBACK #1"]);
        let got: usize = members.iter().map(|&member| node.drink(member).len()).sum();
        assert_eq!(got, 60);
    });
}

/// What waits behind a fan-out is charged and routed a bounded number at a time; QoS 0 of the broker itself, which cannot
/// be paused, is dropped and counted where too much waits.
#[test]
fn the_line_behind_a_fanout_is_charged_and_bounded() {
    let mut bare = bounded(4);
    for n in 0..10 {
        bare.connect(n);
        bare.subscribe(n, &["t".into()], 0);
    }
    bare.connect(10);
    bare.subscribe(10, &["u".into()], 0);
    bare.effects.clear();
    let idle = bare.engine.stats().memory_bytes;
    bare.input(Input::Publish(Box::new(Message::new("t", b"x", false))));
    assert_eq!(bare.sent(), 4);
    for _ in 0..10 {
        bare.input(Input::Publish(Box::new(Message::new("u", &[b'x'; 100], false))));
    }
    let stats = bare.engine.stats();
    assert_eq!(stats.publish_dropped, 7);
    assert!(stats.memory_bytes - idle >= 300);
    let sent = bare.ticks(Bare::sent);
    assert!(sent.iter().all(|&sent| sent <= 4), "{sent:?}");
    assert_eq!(sent.iter().sum::<usize>(), 6 + 3);
    bare.engine.tick(bare.now, &mut bare.effects);
    assert_eq!(bare.engine.stats().memory_bytes, idle);
}

/// However long the line is, QoS 0 that replaces or clears what is retained has that effect, in its turn
/// [MQTT-3.3.1-5, -6]: of the broker itself, and of another shard.
#[test]
fn a_long_line_keeps_what_is_to_be_retained() {
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        tray_max: 4,
        fanout_waiting_max: 3,
        ..Default::default()
    });
    bare.connect_here(10, 0, "t");
    let mut topics: Vec<String> = (0..1_000).map(|n| format!("r{n}")).collect();
    topics.retain(|topic| bare.engine.is_home_of_topic(topic));
    let [replaced, cleared] = [&topics[0], &topics[1]];
    bare.retain(replaced);
    bare.retain(cleared);
    let from_there = |topic: &str, payload: &[u8], route| Input::Shard {
        from: ShardId(1),
        message: ShardMessage::Forward(Box::new(Forward {
            n: 0,
            message: Message::new(topic, payload, true),
            route,
            retain: !route,
            groups: Vec::new(),
            author: None,
            may_refuse: false,
            transaction: None,
        })),
    };
    bare.input(Input::Publish(Box::new(Message::new("t", b"x", false))));
    for _ in 0..3 {
        bare.input(Input::Publish(Box::new(Message::new("u", b"x", false))));
    }
    bare.input(Input::Publish(Box::new(Message::new(replaced, b"fresh", true))));
    bare.input(from_there(cleared, b"", false));
    // Whether it is kept is another shard's to see to.
    bare.input(from_there("elsewhere", b"x", true));
    assert_eq!(bare.engine.stats().publish_dropped, 1);
    bare.ticks(Bare::sent);
    assert_eq!(bare.engine.stats().retained_messages, 1);
    bare.effects.clear();
    bare.input(Input::Shard {
        from: ShardId(1),
        message: ShardMessage::RetainedQuery {
            id: 1,
            filter: "#".into(),
            after: None,
        },
    });
    let Some((_, ShardMessage::RetainedPage { messages, .. })) = bare.effects.forwards.pop() else {
        panic!("no answer")
    };
    let kept: Vec<_> = messages.iter().map(|kept| (kept.topic(), kept.payload())).collect();
    assert_eq!(kept, [(&**replaced, b"fresh".as_slice())]);
}

/// An engine where a topic is at home that has a message retained, with a fan-out to ten Sessions open before a fresh one
/// that another shard has posted; the topic, and a client that has subscribed to nothing.
fn with_fresh_in_line() -> (Bare, String, u32) {
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        tray_max: 4,
        ..Default::default()
    });
    let here = bare.connect_here(11, 1, "t");
    let mut topics = (0..1_000).map(|n| format!("r{n}"));
    let topic = topics.find(|topic| bare.engine.is_home_of_topic(topic)).unwrap();
    bare.retain(&topic);
    bare.subscribe(here[0], std::slice::from_ref(&topic), 0);
    bare.input(Input::Publish(Box::new(Message::new("t", b"x", false))));
    let forward = Forward {
        n: 0,
        message: Message::new(&topic, b"fresh", true),
        route: false,
        retain: true,
        groups: Vec::new(),
        author: None,
        may_refuse: false,
        transaction: None,
    };
    bare.hear(ShardMessage::Forward(Box::new(forward)));
    bare.effects.clear();
    (bare, topic, here[0])
}

/// What is retained is told to another shard only after all that it posted before it asked: the answer waits for the
/// line in which that may be.
#[test]
fn a_question_does_not_overtake_the_line() {
    let (mut bare, topic, _) = with_fresh_in_line();
    let page = |bare: &mut Bare| match bare.effects.forwards.pop() {
        Some((_, ShardMessage::RetainedPage { messages, .. })) => messages,
        _ => Vec::new(),
    };
    bare.hear(ShardMessage::RetainedQuery {
        id: 1,
        filter: topic,
        after: None,
    });
    assert!(page(&mut bare).is_empty(), "too early");
    let mut answers = Vec::new();
    bare.ticks(|bare| {
        answers.extend(page(bare));
        bare.sent()
    });
    let payloads: Vec<_> = answers.iter().map(Message::payload).collect();
    assert_eq!(payloads, [b"fresh"]);
}

/// A question is answered in its turn, however much has come behind it and goes on coming: a line that is never empty
/// again holds nobody up for ever.
#[test]
fn a_question_is_answered_under_a_load_that_does_not_end() {
    let (mut bare, topic, _) = with_fresh_in_line();
    bare.hear(ShardMessage::RetainedQuery {
        id: 1,
        filter: topic,
        after: None,
    });
    for _ in 0..20 {
        bare.input(Input::Publish(Box::new(Message::new("t", b"x", false))));
        bare.engine.tick(bare.now, &mut bare.effects);
        if let Some((_, ShardMessage::RetainedPage { messages, .. })) = bare.effects.forwards.pop() {
            assert_eq!(messages[0].payload(), b"fresh");
            return;
        }
        bare.effects.clear();
    }
    panic!("no answer");
}

/// A Session's own shard waits likewise: what another shard posted before it knew of the Subscription is retained here
/// and comes to the Session in no other way.
#[test]
fn a_replay_does_not_overtake_the_line() {
    let (mut bare, _, subscriber) = with_fresh_in_line();
    bare.hear(ShardMessage::Confirmed(u64::MAX));
    let mut replayed = Vec::new();
    let mut look = |bare: &mut Bare| {
        for transmit in &bare.effects.transmits {
            if let Outgoing::Publish(delivery) = &transmit.packet
                && transmit.connection == Bare::connection(subscriber)
            {
                replayed.push(delivery.message.payload().to_vec());
            }
        }
        bare.sent()
    };
    look(&mut bare);
    bare.ticks(look);
    assert_eq!(replayed, [b"fresh"]);
}

/// What is retained is told although an older update of its topic has passed between SUBSCRIBE and SUBACK: the one that is
/// retained may have been published where the Subscription was not known.
#[test]
fn an_update_before_suback_does_not_replace_a_replayed_one() {
    let mut bare = Bare::new(EngineConfig {
        shards: 2,
        ..Default::default()
    });
    let is_here = |n: &u32| bare.engine.is_home_of_client(&format!("c{n}"));
    let subscriber = (0..1_000).find(is_here).unwrap();
    bare.connect(subscriber);
    bare.subscribe(subscriber, &["r/#".into()], 0);
    let payloads = |bare: &mut Bare| {
        let publishes = bare
            .effects
            .transmits
            .iter()
            .filter_map(|transmit| match &transmit.packet {
                Outgoing::Publish(delivery) => Some(delivery.message.payload().to_vec()),
                _ => None,
            });
        let payloads: Vec<_> = publishes.collect();
        bare.effects.clear();
        payloads
    };
    bare.effects.clear();
    bare.hear(ShardMessage::Forward(Box::new(Forward {
        n: 0,
        message: Message::new("r/1", b"older", true),
        route: true,
        retain: false,
        groups: Vec::new(),
        author: None,
        may_refuse: false,
        transaction: None,
    })));
    assert_eq!(payloads(&mut bare), [b"older"]);
    bare.hear(ShardMessage::Confirmed(u64::MAX));
    bare.effects.clear();
    for id in 1..=2 {
        bare.hear(ShardMessage::RetainedPage {
            id,
            messages: vec![Message::new("r/1", b"newer", true)],
            more: None,
        });
    }
    bare.hear(ShardMessage::Confirmed(u64::MAX));
    assert_eq!(payloads(&mut bare), [b"newer"]);
}

/// Whether a client is paused for its own acknowledgements is nobody else's doing: what others send meanwhile makes no
/// difference.
#[test]
fn a_pause_for_acknowledgements_is_its_own() {
    let flows = [false, true].map(|others_speak| {
        let mut bare = Bare::new(EngineConfig {
            shards: 2,
            tray_max: 4,
            fanout_waiting_max: 2,
            acks_waiting_max: 2,
            ..Default::default()
        });
        let here = bare.connect_here(12, 2, "t");
        bare.hear(ShardMessage::Interest {
            n: 1,
            filter: Interest::Wildcard("u/#".into()),
        });
        bare.input(Input::Publish(Box::new(Message::new("t", b"x", false))));
        let (publisher, other) = (Bare::connection(here[0]), Bare::connection(here[1]));
        let say = |bare: &mut Bare, who, packet: &Packet<'_>| {
            bare.engine
                .handle(bare.now, Input::Packet(who, packet), &mut bare.effects)
        };
        let mut flows = [1, 2]
            .map(|id| say(&mut bare, publisher, &Packet::Publish(publish("u/v", 1, id, b"x"))))
            .to_vec();
        bare.ticks(Bare::sent);
        if others_speak {
            let _ = say(&mut bare, other, &Packet::PingReq);
        }
        flows.push(say(&mut bare, publisher, &Packet::PingReq));
        flows.push(say(&mut bare, publisher, &Packet::Publish(publish("u/v", 1, 3, b"x"))));
        flows
    });
    assert_eq!(flows[0], [Flow::Go, Flow::Stop, Flow::Go, Flow::Stop]);
    assert_eq!(flows[0], flows[1]);
}

/// Messages that waited under pressure go their way a bounded number at a time; of connections that ended meanwhile
/// nothing is left.
#[test]
fn parked_messages_are_released_in_steps() {
    let mut bare = bounded(5);
    bare.connect(1);
    bare.subscribe(1, &["t".into()], 0);
    bare.input(Input::Pressure(Level::Full));
    for n in 2..30 {
        bare.input(Input::Opened {
            connection: Bare::connection(n),
            listener: ListenerId(0),
        });
        bare.send(n, &Packet::Connect(connect(V311, &format!("old{n}"))));
        bare.send(n, &Packet::Publish(publish("t", 1, 1, b"x")));
        if n < 20 {
            bare.input(Input::Closed(Bare::connection(n)));
        }
    }
    assert_eq!(bare.sent(), 0);
    assert!(!bare.is_busy());
    bare.input(Input::Pressure(Level::Normal));
    let mut sent = vec![bare.sent()];
    sent.extend(bare.ticks(Bare::sent));
    assert!(sent.iter().all(|&sent| sent <= 5), "{sent:?}");
    assert_eq!(sent.iter().sum::<usize>(), 10);
}

/// A connection that held messages under pressure, or was paused, for `pause_time_max` is closed and counted.
#[test]
fn patience_ends() {
    let mut node = Node::new(1, EngineConfig::default());
    let publisher = node.connect(V311, "publisher");
    node.input_all(|| Input::Pressure(Level::Full));
    node.publish(publisher, "t", 1, 1, "x");
    node.pass(Duration::from_secs(29));
    node.expect(publisher, &[]);
    node.pass(Duration::from_secs(2));
    node.expect(publisher, &["CLOSE"]);
    assert_eq!((node.stats().parked_closed, node.stats().memory_bytes), (1, 0));

    let mut node = Node::new(2, EngineConfig::default());
    let (here, there) = (node.name_on(0, "here"), node.name_on(1, "there"));
    let subscriber = node.connect(V5, &there);
    node.subscribed(subscriber, &["t"], 0);
    let full = |node: &mut Node, full| {
        let shard = ShardId(1);
        node.input(0, Input::Peer { shard, full });
    };
    for (patient, lines) in [(true, &[][..]), (false, &["DISCONNECT 89", "CLOSE"][..])] {
        let publisher = node.connect(V5, &here);
        full(&mut node, true);
        node.publish(publisher, "t", 0, 0, "x");
        node.pass(Duration::from_secs(29));
        if patient {
            full(&mut node, false);
        }
        node.pass(Duration::from_secs(2));
        node.expect(publisher, lines);
        if patient {
            node.disconnect(publisher);
        }
        full(&mut node, false);
    }
    assert_eq!(node.stats().paused_closed, 1);
}

/// Texts are charged where they are kept and refunded when they go: filters, Wills, and retained topics as keys.
#[test]
fn texts_are_charged() {
    for journal in [false, true] {
        let config = EngineConfig {
            journal,
            ..Default::default()
        };
        in_each_node(config, |node| {
            let long = "long/".repeat(1_000);
            let text: &'static str = Box::leak(long.clone().into_boxed_str());
            let client = node.connect_with(V5, "client", move |c| {
                c.will = Some(sol_codec::Will {
                    payload: text.as_bytes(),
                    ..will("w", b"", 0)
                });
            });
            node.take(client);
            let with_will = node.stats().memory_bytes;
            assert!(with_will > 5_000);
            node.subscribed(client, &[&long, &format!("{long}#"), &format!("$share/g/{long}")], 1);
            let with_filters = node.stats().memory_bytes;
            assert!(with_filters - with_will > 15_000);
            node.retain(client, &long, 1, 1, "x");
            node.drink(client);
            assert!(node.stats().memory_bytes - with_filters > 10_000, "topic and key");
            node.retain(client, &long, 0, 0, "");
            node.drink(client);
            assert_eq!(node.stats().memory_bytes, with_filters);
            node.unsubscribe(client, &[&long, &format!("$share/g/{long}")]);
            assert!(with_filters - node.stats().memory_bytes > 10_000);
            node.disconnect(client);
            assert_eq!(node.stats().memory_bytes, 0);
        });
    }
}

/// A queued message does not keep the large buffer that it came in, and all Sessions share its copy.
#[test]
fn queued_messages_have_their_own_size() {
    let mut bare = Bare::new(EngineConfig::default());
    bare.connect(0);
    for n in 1..=50 {
        bare.connect(n);
        bare.subscribe(n, &["t".into()], 1);
        bare.input(Input::Closed(Bare::connection(n)));
    }
    bare.effects.clear();
    // A large message leaves its buffer behind.
    bare.send(0, &Packet::Publish(publish("nobody", 0, 0, &[0; 3_000])));
    bare.effects.clear();
    let before = bare.engine.stats().memory_bytes;
    bare.send(0, &Packet::Publish(publish("t", 1, 1, b"x")));
    bare.effects.clear();
    bare.engine.tick(bare.now, &mut bare.effects);
    let each = (bare.engine.stats().memory_bytes - before) / 50;
    assert!(each < 100, "{each}");
    bare.engine.tick(bare.now, &mut bare.effects);
}
