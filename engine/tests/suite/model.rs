//! The engine against a naive model: who gets what, once, in order, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use proptest::prelude::*;
use sol_codec::{ProtocolVersion, TopicFilter, TopicName};
use sol_engine::EngineConfig;

use crate::support::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Comes {
        who: usize,
        receive_maximum: u16,
    },
    Goes {
        who: usize,
    },
    Subscribes {
        who: usize,
        filter: usize,
        level: u8,
    },
    Unsubscribes {
        who: usize,
        filter: usize,
    },
    Reads {
        who: usize,
        count: usize,
    },
    Publishes {
        by: usize,
        topic: usize,
        level: u8,
        retain: bool,
        empty: bool,
    },
    Congested {
        who: usize,
        unsent: bool,
    },
}

const SUBSCRIBERS: usize = 5;
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "/", "x/b", "$d/b"];
const FILTERS: [&str; 8] = ["#", "a", "a/#", "a/+", "+/b", "/", "$d/#", "+/b/c"];

fn op() -> impl Strategy<Value = Op> {
    let who = 0..SUBSCRIBERS;
    prop_oneof![
        2 => (who.clone(), 1..6u16).prop_map(|(who, receive_maximum)| Op::Comes { who, receive_maximum }),
        1 => who.clone().prop_map(|who| Op::Goes { who }),
        3 => (who.clone(), 0..FILTERS.len(), 0..3u8).prop_map(|(who, filter, level)| Op::Subscribes { who, filter, level }),
        1 => (who.clone(), 0..FILTERS.len()).prop_map(|(who, filter)| Op::Unsubscribes { who, filter }),
        4 => (who.clone(), 1..8usize).prop_map(|(who, count)| Op::Reads { who, count }),
        10 => (0..2usize, 0..TOPICS.len(), 0..3u8, prop::bool::weighted(0.25), prop::bool::weighted(0.2))
            .prop_map(|(by, topic, level, retain, empty)| Op::Publishes { by, topic, level, retain, empty }),
        1 => (who, any::<bool>()).prop_map(|(who, unsent)| Op::Congested { who, unsent }),
    ]
}

/// A message that was received: topic, QoS, payload.
type Line = (String, u8, String);

/// A message that is owed; one at QoS 0 need not come where its receiver could not take it at once.
struct Owed {
    line: Line,
    must: bool,
}

/// Whether what came is what was owed, in order.
fn fits(got: &[&str], owed: &[(&str, bool)]) -> bool {
    match (got, owed) {
        ([], rest) => rest.iter().all(|(_, must)| !must),
        (_, []) => false,
        ([first, more @ ..], [(payload, must), rest @ ..]) => {
            first == payload && fits(more, rest) || !must && fits(got, rest)
        }
    }
}

/// A subscriber with a Session that lasts, as a correct client behaves, and what the model says it is owed.
struct Subscriber {
    version: ProtocolVersion,
    connected: Option<Client>,
    congested: bool,
    unread: VecDeque<String>,
    /// QoS 2 identifiers that wait for PUBREL.
    open: BTreeSet<u16>,
    /// QoS 1 identifiers that came and were not acknowledged, to know a repeat.
    unacknowledged: BTreeSet<u16>,
    subscriptions: BTreeMap<usize, u8>,
    got: Vec<Line>,
    owed: Vec<Owed>,
    retained: Vec<(String, String)>,
}

impl Subscriber {
    fn read(&mut self, node: &mut Node, count: usize) {
        let Some(client) = self.connected else { return };
        for _ in 0..count {
            self.unread.extend(node.take(client));
            let Some(line) = self.unread.pop_front() else { return };
            self.take_in(&line);
            if line.starts_with("PUBLISH") {
                self.unacknowledged.remove(&packet_id_of(&line));
            }
            node.acknowledge(client, &line);
        }
    }

    /// The connection ends: what has come is read, so that no QoS 0 message is lost, but no longer acknowledged.
    fn read_the_rest(&mut self, node: &mut Node) {
        let Some(client) = self.connected.take() else { return };
        self.unread.extend(node.take(client));
        for line in std::mem::take(&mut self.unread) {
            self.take_in(&line);
        }
        self.congested = false;
    }

    fn take_in(&mut self, line: &str) {
        let id = packet_id_of(line);
        if line.starts_with("PUBREL") {
            self.open.remove(&id);
        }
        let Some(rest) = line.strip_prefix("PUBLISH ") else {
            return;
        };
        let topic = rest.split(' ').next().unwrap().to_owned();
        let payload = line.split('"').nth(1).unwrap().to_owned();
        let level: u8 = rest.split(" q").nth(1).unwrap()[..1].parse().unwrap();
        let again = match level {
            2 => !self.open.insert(id),
            1 => !self.unacknowledged.insert(id) && line.contains(" dup "),
            _ => false,
        };
        if again {
            return;
        }
        if line.contains(" retain ") {
            return self.retained.push((topic, payload));
        }
        self.got.push((topic, level, payload));
    }

    /// The QoS at which the model delivers a topic.
    fn level_of(&self, topic: &str) -> Option<u8> {
        let name = TopicName::new(topic).unwrap();
        let matching = self
            .subscriptions
            .iter()
            .filter(|(filter, _)| TopicFilter::new(FILTERS[**filter]).unwrap().matches(name));
        matching.map(|(_, level)| *level).max()
    }
}

struct World {
    node: Node,
    subscribers: Vec<Subscriber>,
    publishers: [Client; 2],
    retained: BTreeMap<String, BTreeSet<String>>,
    truth: BTreeMap<String, String>,
    published: usize,
}

impl World {
    fn new(shards: u16, config: EngineConfig) -> Self {
        let mut node = Node::new(shards, config);
        let publishers = [node.connect(V5, "publisher"), node.connect(V311, "old publisher")];
        let subscribers = (0..SUBSCRIBERS)
            .map(|who| Subscriber {
                version: if who % 2 == 0 { V5 } else { V311 },
                connected: None,
                congested: false,
                unread: VecDeque::new(),
                open: BTreeSet::new(),
                unacknowledged: BTreeSet::new(),
                subscriptions: BTreeMap::new(),
                got: Vec::new(),
                owed: Vec::new(),
                retained: Vec::new(),
            })
            .collect();
        Self {
            node,
            subscribers,
            publishers,
            retained: BTreeMap::new(),
            truth: BTreeMap::new(),
            published: 0,
        }
    }

    fn act(&mut self, op: Op) {
        let Self { node, subscribers, .. } = self;
        match op {
            Op::Comes { who, receive_maximum } => {
                let subscriber = &mut subscribers[who];
                let version = subscriber.version;
                subscriber.read_the_rest(node);
                subscriber.connected = Some(
                    node.connect_with(version, &format!("subscriber {who}"), move |connect| {
                        connect.clean_start = false;
                        if version == V5 {
                            connect.properties.session_expiry_interval = Some(u32::MAX);
                            connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
                        }
                    }),
                );
            }
            Op::Goes { who } => {
                let client = subscribers[who].connected;
                subscribers[who].read_the_rest(node);
                if let Some(client) = client {
                    node.lose(client);
                }
            }
            Op::Subscribes { who, filter, level } => {
                if let Some(client) = subscribers[who].connected {
                    node.subscribe(client, &[FILTERS[filter]], level);
                    subscribers[who].subscriptions.insert(filter, level);
                }
            }
            Op::Unsubscribes { who, filter } => {
                if let Some(client) = subscribers[who].connected {
                    node.unsubscribe(client, &[FILTERS[filter]]);
                    subscribers[who].subscriptions.remove(&filter);
                }
            }
            Op::Reads { who, count } => subscribers[who].read(node, count),
            Op::Publishes {
                by,
                topic,
                level,
                retain,
                empty,
            } => self.publish(by, TOPICS[topic], level, retain, empty),
            Op::Congested { who, unsent } => {
                let Some(client) = subscribers[who].connected else {
                    return;
                };
                if unsent {
                    node.congest(client, 2 << 20);
                } else {
                    node.drain(client);
                }
                subscribers[who].congested = unsent;
            }
        }
    }

    fn publish(&mut self, by: usize, topic: &str, level: u8, retain: bool, empty: bool) {
        self.published += 1;
        // Only clearing messages are empty, so that all others can be told apart.
        let payload = if retain && empty {
            String::new()
        } else {
            self.published.to_string()
        };
        let mut matched = false;
        for subscriber in &mut self.subscribers {
            let Some(granted) = subscriber.level_of(topic) else {
                continue;
            };
            matched = true;
            let level = granted.min(level);
            subscriber.owed.push(Owed {
                line: (topic.to_owned(), level, payload.clone()),
                must: level > 0 || subscriber.connected.is_some() && !subscriber.congested,
            });
        }
        if retain {
            self.retained
                .entry(topic.to_owned())
                .or_default()
                .insert(payload.clone());
            self.truth.insert(topic.to_owned(), payload.clone());
        }
        let publisher = self.publishers[by];
        let packet_id = u16::from(level > 0) * 7;
        self.node
            .publish_with(publisher, topic, level, packet_id, &payload, move |publish| {
                publish.retain = retain
            });
        let kind = ["", "PUBACK #7", "PUBREC #7"][usize::from(level)];
        let code = if matched || by == 1 { "" } else { " 10" };
        let expected: Vec<_> = (level > 0).then(|| format!("{kind}{code}")).into_iter().collect();
        assert_eq!(self.node.take(publisher), expected);
        if level == 2 {
            self.node.pubrel(publisher, 7);
            self.node.expect(publisher, &["PUBCOMP #7"]);
        }
    }

    /// Everybody reads all there is, and then it must be what the model says.
    fn settle(&mut self) {
        for who in 0..SUBSCRIBERS {
            self.subscribers[who].read(&mut self.node, usize::MAX);
            self.act(Op::Congested { who, unsent: false });
            self.act(Op::Goes { who });
            self.act(Op::Comes {
                who,
                receive_maximum: 3,
            });
            self.subscribers[who].read(&mut self.node, usize::MAX);
        }
        for subscriber in &self.subscribers {
            assert!(subscriber.open.is_empty());
            for topic in TOPICS {
                for level in 0..=2 {
                    let is_it = |line: &Line| line.0 == topic && line.1 == level;
                    let got: Vec<_> = subscriber
                        .got
                        .iter()
                        .filter(|line| is_it(line))
                        .map(|line| &*line.2)
                        .collect();
                    let owed: Vec<_> = subscriber
                        .owed
                        .iter()
                        .filter(|owed| is_it(&owed.line))
                        .map(|owed| (&*owed.line.2, owed.must))
                        .collect();
                    assert!(fits(&got, &owed), "{topic} at QoS {level}: {got:?} of {owed:?}");
                }
            }
            assert!(subscriber.got.iter().all(|line| TOPICS.contains(&&*line.0)));
            for (topic, payload) in &subscriber.retained {
                let known = self
                    .retained
                    .get(topic)
                    .is_some_and(|payloads| payloads.contains(payload));
                assert!(known && !payload.is_empty(), "{topic} never had {payload} retained");
            }
        }
        self.settle_retained();
        let left: usize = self.node.stats().stored_messages as usize;
        assert_eq!(left, 0);
        self.node.check();
    }

    fn settle_retained(&mut self) {
        let reader = self.node.connect(V5, "reader");
        self.node.subscribe(reader, &["#", "$d/#"], 0);
        let got: BTreeMap<String, String> = self
            .node
            .drink(reader)
            .iter()
            .filter_map(|line| {
                let rest = line.strip_prefix("PUBLISH ")?;
                Some((rest.split(' ').next()?.to_owned(), line.split('"').nth(1)?.to_owned()))
            })
            .collect();
        let mut expected = self.truth.clone();
        expected.retain(|_, payload| !payload.is_empty());
        assert_eq!(got, expected);
        self.node.disconnect(reader);
    }

    /// Everybody leaves for good: nothing stays.
    fn end(&mut self) {
        for who in 0..SUBSCRIBERS {
            let version = self.subscribers[who].version;
            let client = self.node.connect_with(version, &format!("subscriber {who}"), |_| {});
            self.node.disconnect(client);
        }
        for topic in self.truth.clone().into_keys() {
            self.node.retain(self.publishers[0], &topic, 0, 0, "");
        }
        for publisher in self.publishers {
            self.node.disconnect(publisher);
        }
        self.node.run();
        let stats = self.node.stats();
        assert_eq!(
            (stats.memory_bytes, stats.subscriptions, stats.retained_messages),
            (0, 0, 0)
        );
        assert_eq!(self.node.store.records(), Vec::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever clients do: nothing that was acknowledged is lost where queues have room, QoS 2 comes exactly once, QoS 1
    /// at least once and QoS 0 at most once, each topic in order, nothing without a Subscription, and what is retained is
    /// what was published last. With trays, pages and memories of any size, with and without a journal.
    #[test]
    fn the_engine_does_what_the_model_does(
        ops in prop::collection::vec(op(), 1..120),
        shards in 1..4u16,
        tray_max in prop_oneof![Just(1usize), Just(3), Just(8_192)],
        retained_page_max in 1..20usize,
        replay_seen_max in 0..5usize,
        journal in any::<bool>(),
    ) {
        let config = EngineConfig {
            tray_max,
            retained_page_max,
            replay_seen_max,
            journal,
            inflight_max: 6,
            ..Default::default()
        };
        let mut world = World::new(shards, config);
        for op in ops {
            world.act(op);
        }
        world.settle();
        world.end();
    }
}
