//! The sans-IO trace: fixed conversations through codec and engine, for counting instructions.
//!
//! Bytes go in as a socket would deliver them, are decoded in place and handled; the tray is encoded into buffers and
//! cleared, once a batch. There is no clock, no socket and no randomness, so that two runs of one binary execute the
//! same instructions.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use sol_codec::{
    AckProperties, Connect, DecodeLimits, Decoded, Decoder, Direction, Packet, PacketId, ProtocolVersion, PubAck,
    PubComp, PubRec, PubRel, Publish, PublishProperties, QoS, Subscribe, SubscribeProperties, SubscriptionId,
    SubscriptionOptions, Subscriptions, TopicFilter, TopicName,
};
use sol_engine::{
    Access, AckKind, ConnectionId, Effects, Engine, EngineConfig, Input, ListenerId, Now, Outgoing, Rule, RuleSet,
    Rules, ShardId, Transmit,
};

/// The rules that a conversation's clients have rights by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// None: everything is allowed.
    None,
    /// A thousand, one of which allows what each client does.
    Thousand,
    /// A thousand, and Subscriptions with a wildcard that one of them denies a part of: each delivery is judged.
    Judged,
}

/// A conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Fifty pairs, each on a topic of its own, 64-byte payloads, sixteen messages a batch.
    Pairs(QoS),
    /// One publisher, a hundred subscribers of its topic.
    FanOut(QoS),
    /// Fifty publishers and nobody who subscribes.
    PublishOnly(QoS),
}

impl Scenario {
    /// All of them, with the names they are recorded under.
    pub const ALL: [(&str, Self, Limits); 14] = [
        ("pairs-qos0", Self::Pairs(QoS::AtMostOnce), Limits::None),
        ("pairs-qos1", Self::Pairs(QoS::AtLeastOnce), Limits::None),
        ("pairs-qos2", Self::Pairs(QoS::ExactlyOnce), Limits::None),
        ("fanout-qos0", Self::FanOut(QoS::AtMostOnce), Limits::None),
        ("fanout-qos1", Self::FanOut(QoS::AtLeastOnce), Limits::None),
        ("publish-qos0", Self::PublishOnly(QoS::AtMostOnce), Limits::None),
        ("publish-qos1", Self::PublishOnly(QoS::AtLeastOnce), Limits::None),
        ("publish-qos2", Self::PublishOnly(QoS::ExactlyOnce), Limits::None),
        ("pairs-qos0-acl", Self::Pairs(QoS::AtMostOnce), Limits::Thousand),
        ("pairs-qos1-acl", Self::Pairs(QoS::AtLeastOnce), Limits::Thousand),
        ("fanout-qos0-acl", Self::FanOut(QoS::AtMostOnce), Limits::Thousand),
        ("publish-qos0-acl", Self::PublishOnly(QoS::AtMostOnce), Limits::Thousand),
        ("pairs-qos0-judged", Self::Pairs(QoS::AtMostOnce), Limits::Judged),
        ("fanout-qos0-judged", Self::FanOut(QoS::AtMostOnce), Limits::Judged),
    ];

    /// The scenario of a name, and the rules in it.
    #[must_use]
    pub fn named(name: &str) -> Option<(Self, Limits)> {
        Self::ALL
            .iter()
            .find(|(known, ..)| *known == name)
            .map(|(_, scenario, limits)| (*scenario, *limits))
    }

    const fn subscribers_of(self, publisher: usize) -> std::ops::Range<usize> {
        match self {
            Self::Pairs(_) => PUBLISHERS + publisher..PUBLISHERS + publisher + 1,
            Self::FanOut(_) => PUBLISHERS..PUBLISHERS + FAN,
            Self::PublishOnly(_) => 0..0,
        }
    }

    const fn qos(self) -> QoS {
        match self {
            Self::Pairs(qos) | Self::FanOut(qos) | Self::PublishOnly(qos) => qos,
        }
    }
}

const PUBLISHERS: usize = 50;
/// Who all clients are where they have limited rights.
const USER: &str = "user";
const FAN: usize = 100;
const BATCH: u16 = 16;
const PAYLOAD: [u8; 64] = [b'x'; 64];

/// One engine and the two ends of its connections.
pub struct Trace {
    scenario: Scenario,
    rights: Limits,
    engine: Engine,
    effects: Effects,
    limits: DecodeLimits,
    decoder: Decoder,
    /// Bytes towards each client; what it answers is made from the tray.
    outboxes: Vec<Vec<u8>>,
    ids: Vec<SubscriptionId>,
    /// Answers of the clients to what the broker sent, by connection.
    answers: Vec<(usize, AckKind, PacketId)>,
    inbox: Vec<u8>,
    deliveries: u64,
}

impl Trace {
    /// Connects and subscribes everybody.
    #[must_use]
    pub fn new(scenario: Scenario, rights: Limits) -> Self {
        let config = EngineConfig {
            rights: vec![rights.rules()],
            ..EngineConfig::default()
        };
        let mut trace = Self {
            scenario,
            rights,
            engine: Engine::new(ShardId(0), Rc::new(config), [1, 2, 3, 4]),
            effects: Effects::default(),
            limits: DecodeLimits {
                direction: Direction::FromClient,
                ..DecodeLimits::default()
            },
            decoder: Decoder::default(),
            outboxes: vec![Vec::new(); PUBLISHERS + FAN],
            ids: Vec::new(),
            answers: Vec::new(),
            inbox: Vec::new(),
            deliveries: 0,
        };
        for client in 0..PUBLISHERS + FAN {
            let input = Input::Opened {
                connection: connection(client),
                listener: ListenerId(0),
            };
            let _ = trace.engine.handle(Now::default(), input, &mut trace.effects);
            trace.connect(client);
        }
        for publisher in 0..PUBLISHERS {
            for subscriber in scenario.subscribers_of(publisher) {
                trace.subscribe(subscriber, &filter(scenario, rights, publisher));
            }
        }
        trace
    }

    /// Publishes `batches` times a batch, whole exchanges included, and returns how many messages were published and
    /// how many delivered.
    pub fn run(&mut self, batches: u32) -> (u64, u64) {
        let publishers = if matches!(self.scenario, Scenario::FanOut(_)) {
            1
        } else {
            PUBLISHERS
        };
        self.deliveries = 0;
        for _ in 0..batches {
            for publisher in 0..publishers {
                self.publish(publisher);
            }
            self.apply();
            while !self.answers.is_empty() {
                self.answer();
                self.apply();
            }
        }
        (
            u64::from(batches) * u64::from(BATCH) * publishers as u64,
            self.deliveries,
        )
    }

    fn connect(&mut self, client: usize) {
        let client_id = format!("client-{client}");
        let packet = Packet::Connect(Connect {
            keep_alive: 60,
            username: (self.rights != Limits::None).then_some(USER),
            ..Connect::new(ProtocolVersion::V311, &client_id)
        });
        self.send(client, &[packet]);
        self.apply();
    }

    fn subscribe(&mut self, client: usize, topic: &str) {
        let options = SubscriptionOptions {
            qos: self.scenario.qos(),
            ..SubscriptionOptions::default()
        };
        let Ok(filter) = TopicFilter::new(topic) else { return };
        let filters = [(filter, options)];
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).unwrap_or_else(|| unreachable!("one is not zero")),
            properties: SubscribeProperties::default(),
            filters: Subscriptions::from_slice(&filters),
        });
        self.send(client, &[packet]);
        self.apply();
    }

    fn publish(&mut self, publisher: usize) {
        let topic = topic(self.scenario, publisher);
        let qos = self.scenario.qos();
        let Ok(name) = TopicName::new(&topic) else { return };
        let packets: Vec<_> = (1..=BATCH)
            .map(|id| {
                Packet::Publish(Publish {
                    dup: false,
                    qos,
                    retain: false,
                    topic: Some(name),
                    packet_id: PacketId::new(id).filter(|_| qos > QoS::AtMostOnce),
                    properties: PublishProperties::default(),
                    payload: &PAYLOAD,
                })
            })
            .collect();
        self.send(publisher, &packets);
    }

    /// Encodes packets of a client, and gives the engine what is decoded of the bytes.
    fn send(&mut self, client: usize, packets: &[Packet<'_>]) {
        self.inbox.clear();
        for packet in packets {
            packet.encode(ProtocolVersion::V311, &mut self.inbox);
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut rest = self.inbox.as_slice();
        while let Ok(Decoded::Packet { packet, len }) = decoder.decode(rest, ProtocolVersion::V311, &self.limits) {
            let _ = self.engine.handle(
                Now::default(),
                Input::Packet(connection(client), &packet),
                &mut self.effects,
            );
            rest = &rest[len..];
        }
        self.decoder = decoder;
    }

    /// Encodes the tray, notes what the clients answer to it, and clears it.
    fn apply(&mut self) {
        for Transmit { connection, packet } in &self.effects.transmits {
            let client = connection.slot();
            let out = &mut self.outboxes[client];
            match packet {
                Outgoing::Publish(delivery) => {
                    self.deliveries += 1;
                    delivery.with_publish(&mut self.ids, |publish| publish.encode(ProtocolVersion::V311, out));
                    if let Some(id) = delivery.packet_id {
                        let kind = if delivery.qos == QoS::AtLeastOnce {
                            AckKind::PubAck
                        } else {
                            AckKind::PubRec
                        };
                        self.answers.push((client, kind, id));
                    }
                }
                Outgoing::Ack {
                    kind,
                    packet_id,
                    reason_code,
                } => {
                    ack(*kind, *packet_id).encode(ProtocolVersion::V311, out);
                    debug_assert!(!reason_code.is_error(), "nothing is refused here");
                    match kind {
                        AckKind::PubRec => self.answers.push((client, AckKind::PubRel, *packet_id)),
                        AckKind::PubRel => self.answers.push((client, AckKind::PubComp, *packet_id)),
                        AckKind::PubAck | AckKind::PubComp => {}
                    }
                }
                _ => {}
            }
        }
        self.effects.clear();
        self.engine.tick(Now::default(), &mut self.effects);
        let _ = self.engine.handle(Now::default(), Input::Flushed, &mut self.effects);
        self.outboxes.iter_mut().for_each(Vec::clear);
    }

    fn answer(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        for (client, kind, packet_id) in answers.drain(..) {
            self.send(client, &[ack(kind, packet_id)]);
        }
        // Nothing was pushed meanwhile: only `apply` does.
        self.answers = answers;
    }
}

fn connection(client: usize) -> ConnectionId {
    ConnectionId::new(client as u32, NonZeroU32::MIN)
}

fn topic(scenario: Scenario, publisher: usize) -> String {
    match scenario {
        Scenario::FanOut(_) => String::from("fan/out/topic"),
        _ => format!("pair/{publisher:04}/topic"),
    }
}

/// The topic, or one with a wildcard for its last level.
fn filter(scenario: Scenario, rights: Limits, publisher: usize) -> String {
    let topic = topic(scenario, publisher);
    match (rights, topic.rsplit_once('/')) {
        (Limits::Judged, Some((before, _))) => format!("{before}/+"),
        _ => topic,
    }
}

impl Limits {
    /// Half of them of the user that all clients are, the others of many others and of patterns.
    fn rules(self) -> Option<Arc<Rules>> {
        if self == Self::None {
            return None;
        }
        let readwrite = |filter: &str| Rule::new(Access::ReadWrite, filter);
        let mut own = vec![readwrite("fan/out/+"), Rule::new(Access::Deny, "fan/out/secret")];
        for pair in 0..PUBLISHERS {
            own.push(readwrite(&format!("pair/{pair:04}/+")));
            if self == Self::Judged {
                own.push(Rule::new(Access::DenyRead, &format!("pair/{pair:04}/secret")));
            }
        }
        own.extend((own.len()..500).map(|n| readwrite(&format!("home/{n}/+/state"))));
        let others = (0..49).map(|user| {
            let rules = (0..10).map(|n| readwrite(&format!("user/{user}/{n}/#"))).collect();
            (format!("user-{user}"), rules)
        });
        let users = others.chain([(USER.to_owned(), own)]).collect();
        let patterns = (0..10).map(|n| readwrite(&format!("client/%c/{n}/#"))).collect();
        Some(Arc::new(Rules::new(RuleSet {
            anonymous: Vec::new(),
            users,
            patterns,
        })))
    }
}

fn ack(kind: AckKind, packet_id: PacketId) -> Packet<'static> {
    let properties = AckProperties::default();
    match kind {
        AckKind::PubAck => Packet::PubAck(PubAck {
            properties,
            ..PubAck::success(packet_id)
        }),
        AckKind::PubRec => Packet::PubRec(PubRec {
            properties,
            ..PubRec::success(packet_id)
        }),
        AckKind::PubRel => Packet::PubRel(PubRel {
            properties,
            ..PubRel::success(packet_id)
        }),
        AckKind::PubComp => Packet::PubComp(PubComp {
            properties,
            ..PubComp::success(packet_id)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every conversation delivers what it published.
    #[test]
    fn every_message_is_delivered() {
        for (name, scenario, rights) in Scenario::ALL {
            let mut trace = Trace::new(scenario, rights);
            let (published, delivered) = trace.run(3);
            let receivers = scenario.subscribers_of(0).len() as u64;
            assert_eq!(delivered, published * receivers, "{name}");
            trace.engine.check().unwrap();
        }
    }
}
