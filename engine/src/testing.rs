//! One engine and a few clients, for tests that look inside; the suite beside this crate has a whole node.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use sol_codec::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, RetainHandling,
    Subscribe, SubscribeProperties, SubscriptionOptions, Subscriptions, TopicFilter, TopicName,
};

use crate::{
    ConnectionId, Effects, Engine, EngineConfig, Flow, Input, ListenerId, Mark, Now, Outgoing, ShardId, Transmit,
};

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) effects: Effects,
    slots: u32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            engine: Engine::new(ShardId(0), Rc::new(EngineConfig::default()), [1, 2, 3, 4]),
            effects: Effects::default(),
            slots: 0,
        }
    }

    pub(crate) fn input(&mut self, input: Input<'_>) -> Flow {
        self.engine.handle(Now::default(), input, &mut self.effects)
    }

    /// A client of 5.0 that may have so much under way, and is subscribed to `filter` at QoS 2.
    pub(crate) fn client(&mut self, client_id: &str, receive_maximum: u16, filter: &str) -> ConnectionId {
        let id = ConnectionId::new(self.slots, NonZeroU32::MIN);
        self.slots += 1;
        let _ = self.input(Input::Opened {
            connection: id,
            listener: ListenerId(0),
        });
        let connect = Connect {
            properties: ConnectProperties {
                receive_maximum: NonZeroU16::new(receive_maximum),
                topic_alias_maximum: Some(10),
                ..ConnectProperties::default()
            },
            ..Connect::new(ProtocolVersion::V5, client_id)
        };
        let _ = self.input(Input::Packet(id, &Packet::Connect(connect)));
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::default(),
        };
        let filters = [(TopicFilter::new(filter).unwrap(), options)];
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            properties: SubscribeProperties::default(),
            filters: Subscriptions::from_slice(&filters),
        };
        let _ = self.input(Input::Packet(id, &Packet::Subscribe(subscribe)));
        self.leave();
        id
    }

    pub(crate) fn publish(&mut self, from: ConnectionId, topic: &str, qos: QoS, packet_id: u16) {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(TopicName::new(topic).unwrap()),
            packet_id: PacketId::new(packet_id),
            properties: PublishProperties::default(),
            payload: b"",
        };
        let _ = self.input(Input::Packet(from, &Packet::Publish(publish)));
    }

    /// All that is in the tray leaves, and what that sets free is in it then.
    pub(crate) fn leave(&mut self) -> Vec<Transmit> {
        let left = self.effects.transmits.drain(..).collect();
        self.effects.clear();
        let _ = self.input(Input::Flushed);
        self.engine.tick(Now::default(), &mut self.effects);
        left
    }

    pub(crate) fn take_back(&mut self, mark: &Mark) -> Result<Vec<ConnectionId>, &'static str> {
        self.engine.take_back(mark, &mut self.effects)
    }
}

/// The PUBLISH packets for one connection: topic, identifier, and whether the topic is told.
pub(crate) fn publishes(transmits: &[Transmit], to: ConnectionId) -> Vec<(&str, u16, bool)> {
    transmits
        .iter()
        .filter(|transmit| transmit.connection == to)
        .filter_map(|transmit| match &transmit.packet {
            Outgoing::Publish(delivery) => Some((
                delivery.message.topic(),
                delivery.packet_id.map_or(0, PacketId::get),
                !delivery.alias_only,
            )),
            _ => None,
        })
        .collect()
}
