//! Corners where several rules meet: each of these was wrong once.

use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;

use sol_codec::Packet;
use sol_engine::{ConnectionId, Effects, Engine, EngineConfig, Input, ListenerId, Now, Outgoing, ShardId, Ticket};

use crate::support::*;

/// An engine without a node around it, and the tray between the two.
struct Bare {
    engine: Engine,
    effects: Effects,
}

impl Bare {
    fn new(config: EngineConfig) -> Self {
        Self {
            engine: Engine::new(ShardId(0), Rc::new(config), SEEDS),
            effects: Effects::default(),
        }
    }

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId::new(slot, NonZeroU32::MIN)
    }

    fn input(&mut self, input: Input<'_>) {
        let _ = self.engine.handle(Now::default(), input, &mut self.effects);
    }

    fn connect(&mut self, slot: u32, client_id: &str) {
        let connection = Self::connection(slot);
        self.input(Input::Opened {
            connection,
            listener: ListenerId(0),
        });
        self.packet(slot, &Packet::Connect(connect(V5, client_id)));
    }

    fn packet(&mut self, slot: u32, packet: &Packet<'_>) {
        self.input(Input::Packet(Self::connection(slot), packet));
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
