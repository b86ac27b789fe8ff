//! Corners where several rules meet: each of these was wrong once.

use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{
    Connect, Filters, Packet, PubAck, ReasonCode, Subscribe, SubscriptionRequest, Subscriptions, TopicAlias,
    TopicFilter, Unsubscribe,
};
use sol_engine::{
    ConnectionId, Effects, Engine, EngineConfig, Event, Input, Level, ListenerId, Now, Outgoing, QueueFull, Record,
    ShardId, Ticket,
};

use crate::support::*;

/// An engine without a node around it, and the tray between the two: nothing becomes durable, and no tick happens, unless
/// the test says so.
struct Bare {
    engine: Engine,
    effects: Effects,
    ticket: u64,
}

impl Bare {
    fn new(config: EngineConfig) -> Self {
        Self {
            engine: Engine::new(ShardId(0), Rc::new(config), SEEDS),
            effects: Effects::default(),
            ticket: 0,
        }
    }

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId::new(slot, NonZeroU32::MIN)
    }

    fn input(&mut self, input: Input<'_>) {
        let _ = self.engine.handle(Now::default(), input, &mut self.effects);
        if let Some(last) = self.effects.commits.last() {
            self.ticket = last.ticket.0;
        }
    }

    fn open(&mut self, slot: u32, connect: &Connect<'_>) {
        let connection = Self::connection(slot);
        self.input(Input::Opened {
            connection,
            listener: ListenerId(0),
        });
        self.packet(slot, &Packet::Connect(*connect));
    }

    fn connect(&mut self, slot: u32, client_id: &str) {
        self.open(slot, &connect(V5, client_id));
    }

    /// Connects a Session that is kept; its CONNACK waits for the journal.
    fn open_durable(&mut self, slot: u32, client_id: &str) {
        let mut packet = connect(V5, client_id);
        packet.properties.session_expiry_interval = Some(1_000);
        self.open(slot, &packet);
    }

    fn connect_durable(&mut self, slot: u32, client_id: &str) {
        self.open_durable(slot, client_id);
        self.settle();
    }

    fn packet(&mut self, slot: u32, packet: &Packet<'_>) {
        self.input(Input::Packet(Self::connection(slot), packet));
    }

    /// Empties the tray and makes all records durable, until none are left. Returns how many bodies were written.
    fn settle(&mut self) -> usize {
        let mut bodies = 0;
        loop {
            bodies += self
                .effects
                .records
                .iter()
                .filter(|record| matches!(record, Record::Body(..)))
                .count();
            self.effects.clear();
            self.input(Input::Durable(Ticket(self.ticket)));
            if self.effects.records.is_empty() {
                self.effects.clear();
                return bodies;
            }
        }
    }

    /// Makes all records durable and leaves what follows in the tray.
    fn settle_keeping(&mut self) {
        self.effects.clear();
        self.input(Input::Durable(Ticket(self.ticket)));
    }

    fn acks(&self) -> usize {
        let is_ack = |packet: &Outgoing| matches!(packet, Outgoing::Ack { .. });
        self.effects
            .transmits
            .iter()
            .filter(|transmit| is_ack(&transmit.packet))
            .count()
    }

    /// Slot and QoS of each PUBLISH in the tray, which is emptied.
    fn take_publishes(&mut self) -> Vec<(usize, u8)> {
        let publishes = self
            .effects
            .transmits
            .iter()
            .filter_map(|transmit| match &transmit.packet {
                Outgoing::Publish(delivery) => Some((transmit.connection.slot(), delivery.qos as u8)),
                _ => None,
            });
        let publishes = publishes.collect();
        self.effects.clear();
        publishes
    }
}

fn subscribe<'a>(wishes: &'a [SubscriptionRequest<'a>]) -> Subscribe<'a> {
    Subscribe {
        packet_id: id(1),
        properties: Default::default(),
        filters: Subscriptions::from_slice(wishes),
    }
}

fn unsubscribe<'a>(filters: &'a [TopicFilter<'a>]) -> Unsubscribe<'a> {
    Unsubscribe {
        packet_id: id(2),
        user_properties: Default::default(),
        filters: Filters::from_slice(filters),
    }
}

/// However the tray is emptied, and whoever takes the records out of it: a message that nobody holds is not charged.
#[test]
fn a_message_in_the_tray_is_refunded() {
    let empty: [fn(&mut Effects); 3] = [
        Effects::clear,
        |effects| effects.truncate(&Effects::default().mark()),
        |effects| {
            for record in std::mem::take(&mut effects.records) {
                effects.spend(record);
            }
            effects.clear();
        },
    ];
    for empty in empty {
        let journal = EngineConfig {
            journal: true,
            ..Default::default()
        };
        let mut bare = Bare::new(journal);
        bare.connect(0, "a");
        let mut charged = Vec::new();
        for round in 1..=4 {
            for n in 1..=10 {
                let mut message = publish("t", 1, n, b"a payload of some length");
                message.retain = true;
                bare.packet(0, &Packet::Publish(message));
            }
            empty(&mut bare.effects);
            bare.input(Input::Durable(Ticket(10 * round)));
            empty(&mut bare.effects);
            bare.engine.tick(Now::default(), &mut bare.effects);
            charged.push(bare.engine.stats().memory_bytes);
        }
        assert!(charged.iter().all(|&bytes| bytes == charged[0]), "{charged:?}");
    }
}

/// A QoS 2 message that is found to be larger than the client takes, after its record became durable, frees its place
/// in the window for the next one.
#[test]
fn an_oversized_message_frees_its_place() {
    let journal = EngineConfig {
        journal: true,
        ..Default::default()
    };
    in_each_node(journal, |node| {
        let publisher = node.connect(V5, "publisher");
        let subscriber = node.connect_with(V5, "subscriber", |connect| {
            connect.clean_start = false;
            connect.properties.session_expiry_interval = Some(1_000);
            connect.properties.receive_maximum = NonZeroU16::new(1);
            connect.properties.maximum_packet_size = NonZeroU32::new(60);
        });
        node.take(subscriber);
        node.subscribed(subscriber, &["t"], 2);
        node.durable_at_once = false;
        node.publish(publisher, "t", 2, 1, &"x".repeat(200));
        node.publish(publisher, "t", 2, 2, "small");
        for _ in 0..4 {
            node.make_all_durable();
        }
        assert_eq!(node.take(subscriber), [r#"PUBLISH t q2 #2 "small""#]);
    });
}

/// [MQTT-3.3.1-9]: a retained message whose publish is on its way from another shard is not missed by a SUBSCRIBE on
/// the shard where it will be kept.
#[test]
fn a_subscription_awaits_retained_messages_under_way() {
    let mut node = Node::new(2, EngineConfig::default());
    let topic = node.topic_on(0, "t");
    let subscriber = node.connect(V5, &node.name_on(0, "s"));
    let publisher = node.connect(V5, &node.name_on(1, "p"));
    node.hold_mail();
    node.retain(publisher, &topic, 1, 1, "kept");
    node.subscribe(subscriber, &[&topic], 1);
    node.release_mail();
    node.expect(
        subscriber,
        &["SUBACK #1 [01]", &format!(r#"PUBLISH {topic} q1 #1 retain "kept""#)],
    );
}

/// [MQTT-3.3.2-5]: what has expired in a full queue makes room, and is counted as expired and not as dropped.
#[test]
fn expired_messages_keep_nobody_out() {
    let config = EngineConfig {
        queue_max: 4,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let away = node.connect_durable(V5, "away");
        node.subscribed(away, &["t"], 1);
        node.lose(away);
        let publisher = node.connect(V5, "publisher");
        for (n, seconds) in [(1, 1), (2, 100), (3, 1), (4, 1)] {
            node.publish_with(publisher, "t", 1, n, &n.to_string(), move |publish| {
                publish.properties.message_expiry_interval = Some(seconds);
            });
        }
        node.pass(Duration::from_secs(10));
        node.take(publisher);
        node.publish(publisher, "t", 1, 5, "5");
        node.expect(publisher, &["PUBACK #5"]);
        let stats = node.stats();
        assert_eq!((stats.publish_expired, stats.publish_dropped), (3, 0));
        let away = node.resume(V5, "away", 1_000);
        let got: Vec<_> = node
            .drink(away)
            .into_iter()
            .filter(|line| line.starts_with("PUBLISH"))
            .collect();
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(got[0].ends_with("\"2\"") && got[1].ends_with("\"5\""), "{got:?}");
    });
}

/// [MQTT-3.10.4-1]: whoever gives up one of two overlapping Subscriptions while a fan-out is open still gets the message
/// for the other one, as that one asks; whoever gives up both gets nothing.
#[test]
fn an_overlapping_subscription_that_is_left_gets_the_message() {
    let config = EngineConfig {
        tray_max: 2,
        ..Default::default()
    };
    let mut bare = Bare::new(config);
    for slot in 0..6 {
        bare.connect(slot, &format!("c{slot}"));
        let wishes = [
            (TopicFilter::new("a/b").unwrap(), options(1)),
            (TopicFilter::new("a/#").unwrap(), options(0)),
        ];
        bare.packet(slot, &Packet::Subscribe(subscribe(&wishes)));
        bare.effects.clear();
    }
    bare.packet(0, &Packet::Publish(publish("a/b", 1, 1, b"x")));
    let mut got = bare.take_publishes();
    let [one, two] = ["a/b", "a/#"].map(|filter| TopicFilter::new(filter).unwrap());
    bare.packet(4, &Packet::Unsubscribe(unsubscribe(&[one, two])));
    bare.packet(5, &Packet::Unsubscribe(unsubscribe(&[one])));
    bare.effects.clear();
    for _ in 0..10 {
        bare.engine.tick(Now::default(), &mut bare.effects);
        got.extend(bare.take_publishes());
    }
    got.sort_unstable();
    assert_eq!(got, [(0, 1), (1, 1), (2, 1), (3, 1), (5, 0)]);
}

/// A Shared Subscription refuses a message only when a member refused it. One whose only member is away and takes QoS 0
/// drops it, which is counted once, however many members were tried.
#[test]
fn a_group_refuses_only_what_a_member_refuses() {
    in_every_node(|node| {
        for member in ["one", "two"] {
            let member = node.connect_durable(V5, member);
            node.subscribed(member, &["$share/g/t"], 0);
            node.lose(member);
        }
        let publisher = node.connect(V5, "publisher");
        node.publish(publisher, "t", 1, 1, "x");
        node.expect(publisher, &["PUBACK #1"]);
        let stats = node.stats();
        assert_eq!((stats.publish_dropped, stats.publish_refused), (1, 0));
    });
    let config = EngineConfig {
        queue_max: 1,
        queue_full: QueueFull::DropNewest,
        ..Default::default()
    };
    let mut node = Node::new(1, config);
    for member in ["one", "two"] {
        let member = node.connect_durable(V5, member);
        node.subscribed(member, &["$share/g/t"], 1);
        node.lose(member);
    }
    let publisher = node.connect(V5, "publisher");
    for n in 1..=3 {
        node.publish(publisher, "t", 1, n, "x");
    }
    node.expect(publisher, &["PUBACK #1", "PUBACK #2", "PUBACK #3"]);
    assert_eq!(node.stats().publish_dropped, 1);
}

/// A retained message that its home shard has no memory for: a 5.0 publisher on whichever shard is told 0x97; for a
/// 3.1.1 publisher it is counted and told to the log.
#[test]
fn a_retained_message_without_memory_is_refused() {
    for home in 0..2 {
        let mut node = Node::new(2, EngineConfig::default());
        let topic = node.topic_on(home, "t");
        let publisher = node.connect(V5, &node.name_on(1, "p"));
        let old = node.connect(V311, &node.name_on(1 - home, "old"));
        node.input(home, Input::Pressure(Level::Full));
        node.retain(publisher, &topic, 1, 1, "v");
        node.expect(publisher, &["PUBACK #1 97"]);
        node.retain(old, &topic, 1, 1, "v");
        node.expect(old, &["PUBACK #1"]);
        let stats = node.stats();
        assert_eq!((stats.retained_messages, stats.publish_dropped), (0, 1));
        assert!(node.events.contains(&Event::NotRetained {
            topic: topic.as_str().into(),
            count: 1
        }));
        node.input(home, Input::Pressure(Level::Normal));
        node.retain(publisher, &topic, 1, 1, "v");
        node.expect(publisher, &["PUBACK #1 10"]);
    }
}

/// [MQTT-4.8.2-4, MQTT-4.4.0-1]: a member that goes away keeps, with Packet Identifier and DUP, what it holds of a group
/// that has nobody else, and what the others do not take; only what another member takes is given away.
#[test]
fn a_member_keeps_what_nobody_else_takes() {
    in_each_node(
        EngineConfig {
            queue_max: 1,
            ..Default::default()
        },
        |node| {
            let one = node.connect_durable(V5, "one");
            node.subscribed(one, &["$share/g/only", "$share/h/both"], 1);
            let publisher = node.connect(V5, "publisher");
            for (n, topic) in [(1, "only"), (2, "both"), (3, "only")] {
                node.publish(publisher, topic, 1, n, &n.to_string());
            }
            assert_eq!(node.take(one).len(), 3);
            let two = node.connect_durable(V5, "two");
            node.subscribed(two, &["$share/h/both"], 1);
            node.lose(one);
            node.expect(two, &[r#"PUBLISH both q1 #1 "2""#]);
            let one = node.resume(V5, "one", 1_000);
            node.expect(
                one,
                &[
                    "CONNACK 00 present",
                    r#"PUBLISH only q1 #1 dup "1""#,
                    r#"PUBLISH only q1 #3 dup "3""#,
                ],
            );
        },
    );
}

/// The same when the other member's queue is full.
#[test]
fn a_member_keeps_what_the_others_have_no_room_for() {
    let config = EngineConfig {
        queue_max: 1,
        inflight_max: 1,
        ..Default::default()
    };
    let mut node = Node::new(1, config);
    let publisher = node.connect(V5, "publisher");
    let two = node.connect_durable(V5, "two");
    node.subscribed(two, &["$share/h/t", "fill"], 1);
    for n in 1..=2 {
        node.publish(publisher, "fill", 1, n, "fill");
    }
    let one = node.connect_durable(V5, "one");
    node.subscribed(one, &["$share/h/t"], 1);
    node.publish(publisher, "t", 1, 3, "x");
    node.expect(one, &[r#"PUBLISH t q1 #1 "x""#]);
    node.lose(one);
    let one = node.resume(V5, "one", 1_000);
    node.expect(one, &["CONNACK 00 present", r#"PUBLISH t q1 #1 dup "x""#]);
    assert_eq!(node.stats().publish_dropped, 0);
}

/// [MQTT-3.3.1-9]: a stream of live messages that always fills the window does not keep a replay waiting for ever.
#[test]
fn a_busy_queue_does_not_starve_a_replay() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "kept", 1, 1, "kept");
        let subscriber = node.connect_with(V5, "subscriber", |connect| {
            connect.properties.receive_maximum = NonZeroU16::new(1);
        });
        node.take(subscriber);
        node.subscribed(subscriber, &["live"], 1);
        for n in 1..=3 {
            node.publish(publisher, "live", 1, n, "live");
        }
        node.subscribe(subscriber, &["kept"], 1);
        let mut lines = Vec::new();
        for _ in 0..8 {
            node.publish(publisher, "live", 1, 9, "live");
            for line in node.take(subscriber) {
                node.acknowledge(subscriber, &line);
                lines.push(line);
            }
        }
        assert!(lines.iter().any(|line| line.starts_with("PUBLISH kept")), "{lines:?}");
        assert!(
            lines.iter().filter(|line| line.starts_with("PUBLISH live")).count() >= 4,
            "{lines:?}"
        );
    });
}

/// A body is written with the first reference to it and not again when the reference moves on: what was queued, sent and
/// released of a large message costs its bytes once.
#[test]
fn a_body_is_written_once() {
    let config = EngineConfig {
        journal: true,
        inflight_max: 1,
        ..Default::default()
    };
    let mut bare = Bare::new(config);
    bare.connect_durable(0, "s");
    let wish = [(TopicFilter::new("t").unwrap(), options(1))];
    bare.packet(0, &Packet::Subscribe(subscribe(&wish)));
    bare.settle();
    bare.connect(1, "p");
    let mut bodies = 0;
    for n in 1..=4 {
        bare.packet(1, &Packet::Publish(publish("t", 1, n, b"x")));
        bodies += bare.settle();
    }
    assert_eq!(bodies, 4);
    for n in 1..=4 {
        bare.packet(0, &Packet::PubAck(PubAck::success(id(n))));
        bodies += bare.settle();
    }
    assert_eq!((bodies, bare.engine.stats().stored_messages), (4, 0));
}

/// Retained messages expire after a restart too, and what they were charged with is refunded.
#[test]
fn restored_retained_messages_expire() {
    let journal = EngineConfig {
        journal: true,
        ..Default::default()
    };
    in_each_node(journal, |node| {
        let publisher = node.connect(V5, "publisher");
        node.publish_with(publisher, "t", 1, 1, "x", |publish| {
            publish.retain = true;
            publish.properties.message_expiry_interval = Some(10);
        });
        node.disconnect(publisher);
        let shards = node.engines.len() as u16;
        let mut node = node.restart(shards, Duration::ZERO);
        assert_eq!(node.stats().retained_messages, 1);
        node.pass(Duration::from_secs(200));
        let stats = node.stats();
        assert_eq!((stats.retained_messages, stats.memory_bytes), (0, 0));
    });
}

/// [MQTT-3.2.0-1]: packets that come before CONNACK has left change nothing, and a connection that waits for it counts
/// towards `connections_max`.
#[test]
fn nothing_passes_before_connack() {
    let config = EngineConfig {
        journal: true,
        connections_max: 1,
        ..Default::default()
    };
    let mut bare = Bare::new(config);
    bare.open_durable(0, "a");
    bare.packet(0, &Packet::Publish(publish("t", 1, 1, b"x")));
    assert!(bare.effects.transmits.is_empty());
    assert_eq!(bare.engine.stats().publish_received, 0);
    bare.connect(1, "b");
    let refused = bare.effects.transmits.iter().any(
        |transmit| matches!(&transmit.packet, Outgoing::ConnAck(connack) if connack.reason_code == ReasonCode::QuotaExceeded),
    );
    assert!(refused, "{:?}", bare.effects.transmits);
}

/// Topic Names that nobody could subscribe to, or that are the broker's, are not for clients to publish to.
#[test]
fn reserved_topics_are_not_published_to() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for topic in ["$share/g/t", "$CONTROL/x", "$SYS/x", "$SOL/x", "$share"] {
            node.publish(publisher, topic, 1, 1, "x");
            node.expect(publisher, &["PUBACK #1 87"]);
        }
        node.publish(publisher, "$shared", 1, 1, "x");
        node.expect(publisher, &["PUBACK #1 10"]);
    });
}

/// [MQTT-4.3.3-10]: the PUBREC of a QoS 2 message that may not be published waits for the record of its identifier, like
/// any other.
#[test]
fn a_denied_message_waits_for_its_record() {
    let mut bare = Bare::new(EngineConfig {
        journal: true,
        ..Default::default()
    });
    let mut packet = connect(V311, "a");
    packet.clean_start = false;
    bare.open(0, &packet);
    bare.settle();
    bare.packet(0, &Packet::Publish(publish("$SYS/x", 2, 1, b"x")));
    assert_eq!(bare.acks(), 0);
    bare.settle_keeping();
    assert_eq!(bare.acks(), 1);
}

/// Without `queue_qos0` a Session that is away is owed no QoS 0 message, even while a replay of it is open that holds
/// live messages back.
#[test]
fn an_open_replay_queues_no_qos_0_for_the_away() {
    let config = EngineConfig {
        replay_seen_max: 1,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for n in 0..3 {
            node.retain(publisher, &format!("r/{n}"), 1, 1, "kept");
        }
        let subscriber = node.connect_with(V5, "subscriber", |connect| {
            connect.clean_start = false;
            connect.properties.session_expiry_interval = Some(1_000);
            connect.properties.receive_maximum = NonZeroU16::new(1);
        });
        node.take(subscriber);
        node.subscribed(subscriber, &["r/+"], 1);
        for n in [0, 1, 2, 0] {
            node.retain(publisher, &format!("r/{n}"), 0, 0, "live");
        }
        node.lose(subscriber);
        let stored = node.stats().stored_messages;
        node.retain(publisher, "r/1", 0, 0, "missed");
        assert_eq!(node.stats().stored_messages, stored);
    });
}

/// [MQTT-3.3.1-9]: a live retained update that was dropped because its client is slow does not stand in for the replay's
/// entry of the same topic.
#[test]
fn a_dropped_update_does_not_replace_a_replayed_one() {
    let config = EngineConfig {
        unsent_bytes_high: 10,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let publisher = node.connect(V5, "publisher");
        for topic in ["r/1", "r/2"] {
            node.retain(publisher, topic, 1, 1, "kept");
        }
        let subscriber = node.connect_with(V5, "subscriber", |connect| {
            connect.properties.receive_maximum = NonZeroU16::new(1);
        });
        node.take(subscriber);
        node.subscribe(subscriber, &["r/+"], 1);
        let first = node.take(subscriber);
        assert_eq!(first.len(), 2, "{first:?}");
        let other = if first[1].contains("r/1") { "r/2" } else { "r/1" };
        node.congest(subscriber, 1_000);
        node.retain(publisher, other, 0, 0, "dropped");
        node.drain(subscriber);
        node.acknowledge(subscriber, &first[1]);
        let rest = node.take(subscriber);
        assert!(
            rest.len() == 1 && rest[0].starts_with(&format!("PUBLISH {other} ")),
            "{rest:?}"
        );
    });
}

/// [MQTT-3.3.4-7]: only what a client began on this connection counts against its Receive Maximum; acknowledgements that
/// wait for it since an earlier one, and identifiers it used there, do not.
#[test]
fn each_connection_has_its_whole_receive_maximum() {
    let config = EngineConfig {
        receive_maximum: NonZeroU16::MIN.saturating_add(2),
        ..Default::default()
    };
    let mut node = Node::new(2, config);
    let subscriber = node.connect(V5, &node.name_on(1, "s"));
    node.subscribed(subscriber, &["t"], 1);
    let name = node.name_on(0, "p");
    let publisher = node.connect_durable(V5, &name);
    for level in [1, 2] {
        node.hold_mail();
        for n in 1..=3 {
            node.publish(publisher, "t", level, n, "x");
        }
        node.lose(publisher);
        let publisher = node.resume(V5, &name, 1_000);
        for n in 4..=6 {
            node.publish(publisher, "t", level, n, "x");
        }
        node.expect(publisher, &["CONNACK 00 present"]);
        node.publish(publisher, "t", level, 7, "x");
        node.expect(publisher, &["DISCONNECT 93", "CLOSE"]);
        node.release_mail();
    }
}

/// Acknowledgements on the first of two shards wait for a Subscriber on the second, four of a kind at most.
fn subscribed_elsewhere() -> (Node, Client) {
    let config = EngineConfig {
        acks_waiting_max: 4,
        ..Default::default()
    };
    let mut node = Node::new(2, config);
    let subscriber = node.connect(V5, &node.name_on(1, "s"));
    node.subscribed(subscriber, &["t"], 0);
    (node, subscriber)
}

/// A 3.1.1 client that uses one identifier again and again while nothing is acknowledged is read no further than
/// `acks_waiting_max`, and goes on when acknowledgements have left.
#[test]
fn waiting_acknowledgements_are_limited() {
    let (mut node, subscriber) = subscribed_elsewhere();
    let publisher = node.connect(V311, &node.name_on(0, "p"));
    node.hold_mail();
    for _ in 0..20 {
        node.publish(publisher, "t", 1, 1, "x");
    }
    assert_eq!(node.stats().publish_received, 4);
    node.release_mail();
    assert_eq!(node.take(publisher).len(), 20);
    assert_eq!(node.take(subscriber).len(), 20);
}

/// So is a client that comes back and asks again, out of turn, for acknowledgements that wait: each may put another
/// behind them.
#[test]
fn acknowledgements_that_are_asked_for_again_are_limited() {
    let (mut node, subscriber) = subscribed_elsewhere();
    let name = node.name_on(0, "p");
    let publisher = node.resume(V311, &name, 0);
    node.hold_mail();
    for n in 1..=4 {
        node.publish(publisher, "t", 2, n, "x");
    }
    node.lose(publisher);
    let publisher = node.resume(V311, &name, 0);
    node.take(publisher);
    for n in [3, 2, 1, 4] {
        node.publish_with(publisher, "t", 2, n, "x", |publish| publish.dup = true);
    }
    assert_eq!(node.stats().publish_received, 5);
    node.release_mail();
    node.expect(publisher, &["PUBREC #3", "PUBREC #2", "PUBREC #1", "PUBREC #4"]);
    assert_eq!(node.take(subscriber).len(), 4);
}

/// A reload disconnects nobody who keeps to what its CONNACK announced; who connects later is held to the new limits.
#[test]
fn a_reload_keeps_what_was_announced() {
    in_every_node(|node| {
        let before = node.connect(V5, "before");
        node.reload(EngineConfig {
            topic_alias_maximum: 2,
            maximum_qos: qos(0),
            retain_available: false,
            receive_maximum: NonZeroU16::MIN,
            ..Default::default()
        });
        node.publish_with(before, "t", 0, 0, "x", |publish| {
            publish.properties.topic_alias = TopicAlias::new(10)
        });
        for n in 1..=2 {
            node.publish(before, "t", 2, n, "x");
        }
        node.retain(before, "t", 1, 3, "x");
        node.expect(before, &["PUBREC #1 10", "PUBREC #2 10", "PUBACK #3 10"]);
        let after = node.connect(V5, "after");
        node.publish(after, "t", 1, 1, "x");
        node.expect(after, &["DISCONNECT 9b", "CLOSE"]);
    });
}
