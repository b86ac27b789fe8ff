//! What clients send, as functions, so that a test reads like a conversation.

use sol_codec::{
    AckProperties, Connect, Disconnect, DisconnectProperties, Packet, PacketId, ProtocolVersion, PubAck, PubComp,
    PubRec, PubRel, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeProperties,
    SubscriptionId, SubscriptionOptions, SubscriptionRequest, Subscriptions, TopicFilter, TopicName, Unsubscribe, Will,
    WillProperties,
};

use super::{Client, Node};

pub use ProtocolVersion::{V5, V311};

/// A CONNECT with Clean Start and nothing else.
pub fn connect(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    Connect::new(version, client_id)
}

/// A QoS as a number.
pub fn qos(level: u8) -> QoS {
    QoS::from_bits(level).unwrap()
}

/// A Packet Identifier.
pub fn id(packet_id: u16) -> PacketId {
    PacketId::new(packet_id).unwrap()
}

/// A PUBLISH without properties; `packet_id` 0 for none.
pub fn publish<'a>(topic: &'a str, level: u8, packet_id: u16, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        dup: false,
        qos: qos(level),
        retain: false,
        topic: Some(TopicName::new(topic).unwrap()),
        packet_id: PacketId::new(packet_id),
        properties: PublishProperties::default(),
        payload,
    }
}

/// A Will without properties.
pub fn will(topic: &'static str, payload: &'static [u8], level: u8) -> Will<'static> {
    Will {
        topic: TopicName::new(topic).unwrap(),
        payload,
        qos: qos(level),
        retain: false,
        properties: WillProperties::default(),
    }
}

/// Subscription Options with a QoS and nothing else.
pub fn options(level: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(level),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    }
}

impl Node {
    /// Connects with Clean Start; the CONNACK is checked and taken.
    #[track_caller]
    pub fn connect(&mut self, version: ProtocolVersion, client_id: &str) -> Client {
        let client = self.connect_with(version, client_id, |_| {});
        let got = self.take(client);
        assert_eq!(got.first().map(String::as_str), Some("CONNACK 00"), "{got:?}");
        client
    }

    /// Connects with Clean Start 0 and, for 5.0, a Session Expiry Interval; the CONNACK is left to be looked at.
    pub fn resume(&mut self, version: ProtocolVersion, client_id: &str, expiry: u32) -> Client {
        self.connect_with(version, client_id, move |connect| {
            connect.clean_start = false;
            connect.properties.session_expiry_interval = (version == V5).then_some(expiry);
        })
    }

    /// Connects a 5.0 client with Clean Start and a Session Expiry Interval, or a 3.1.1 client with Clean Session 0.
    #[track_caller]
    pub fn connect_durable(&mut self, version: ProtocolVersion, client_id: &str) -> Client {
        let client = self.resume(version, client_id, 3_600);
        let got = self.take(client);
        assert_eq!(got, ["CONNACK 00"]);
        client
    }

    /// Sends a CONNECT as `change` makes it.
    pub fn connect_with(
        &mut self,
        version: ProtocolVersion,
        client_id: &str,
        change: impl Fn(&mut Connect<'_>) + 'static,
    ) -> Client {
        let client = self.open(version);
        let client_id = client_id.to_owned();
        self.send(client, move |send| {
            let mut packet = connect(version, &client_id);
            change(&mut packet);
            send(&Packet::Connect(packet));
        });
        client
    }

    /// Publishes without properties; `packet_id` 0 for none.
    pub fn publish(&mut self, client: Client, topic: &str, level: u8, packet_id: u16, payload: &str) {
        self.publish_with(client, topic, level, packet_id, payload, |_| {});
    }

    /// Publishes with RETAIN.
    pub fn retain(&mut self, client: Client, topic: &str, level: u8, packet_id: u16, payload: &str) {
        self.publish_with(client, topic, level, packet_id, payload, |publish| {
            publish.retain = true
        });
    }

    /// Publishes as `change` makes it.
    pub fn publish_with(
        &mut self,
        client: Client,
        topic: &str,
        level: u8,
        packet_id: u16,
        payload: &str,
        change: impl Fn(&mut Publish<'_>) + 'static,
    ) {
        let (topic, payload) = (topic.to_owned(), payload.to_owned());
        self.send(client, move |send| {
            let mut packet = publish(&topic, level, packet_id, payload.as_bytes());
            change(&mut packet);
            send(&Packet::Publish(packet));
        });
    }

    /// Subscribes to filters at one QoS, Packet Identifier 1.
    pub fn subscribe(&mut self, client: Client, filters: &[&str], level: u8) {
        self.subscribe_with(client, filters, None, options(level));
    }

    /// Subscribes and takes the SUBACK, which must grant everything, and what is replayed is dropped.
    #[track_caller]
    pub fn subscribed(&mut self, client: Client, filters: &[&str], level: u8) {
        self.subscribe(client, filters, level);
        let got = self.take(client);
        let expected = format!("SUBACK #1 {:02x?}", vec![level; filters.len()]);
        assert_eq!(got.first(), Some(&expected), "{got:?}");
    }

    /// Subscribes with any options.
    pub fn subscribe_with(
        &mut self,
        client: Client,
        filters: &[&str],
        subscription_id: Option<u32>,
        options: SubscriptionOptions,
    ) {
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        self.send(client, move |send| {
            let requests: Vec<SubscriptionRequest<'_>> = filters
                .iter()
                .map(|filter| (TopicFilter::new(filter).unwrap(), options))
                .collect();
            send(&Packet::Subscribe(Subscribe {
                packet_id: id(1),
                properties: SubscribeProperties {
                    subscription_id: subscription_id.and_then(SubscriptionId::new),
                    ..Default::default()
                },
                filters: Subscriptions::from_slice(&requests),
            }));
        });
    }

    /// Unsubscribes, Packet Identifier 2.
    pub fn unsubscribe(&mut self, client: Client, filters: &[&str]) {
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        self.send(client, move |send| {
            let filters: Vec<_> = filters.iter().map(|filter| TopicFilter::new(filter).unwrap()).collect();
            send(&Packet::Unsubscribe(Unsubscribe {
                packet_id: id(2),
                user_properties: Default::default(),
                filters: sol_codec::Filters::from_slice(&filters),
            }));
        });
    }

    pub fn puback(&mut self, client: Client, packet_id: u16) {
        self.puback_code(client, packet_id, ReasonCode::Success);
    }

    pub fn puback_code(&mut self, client: Client, packet_id: u16, reason_code: ReasonCode) {
        let properties = AckProperties::default();
        self.send(client, move |send| {
            send(&Packet::PubAck(PubAck {
                packet_id: id(packet_id),
                reason_code,
                properties,
            }));
        });
    }

    pub fn pubrec(&mut self, client: Client, packet_id: u16) {
        self.pubrec_code(client, packet_id, ReasonCode::Success);
    }

    pub fn pubrec_code(&mut self, client: Client, packet_id: u16, reason_code: ReasonCode) {
        let properties = AckProperties::default();
        self.send(client, move |send| {
            send(&Packet::PubRec(PubRec {
                packet_id: id(packet_id),
                reason_code,
                properties,
            }));
        });
    }

    pub fn pubrel(&mut self, client: Client, packet_id: u16) {
        self.send(client, move |send| {
            send(&Packet::PubRel(PubRel::success(id(packet_id))))
        });
    }

    pub fn pubcomp(&mut self, client: Client, packet_id: u16) {
        self.send(client, move |send| {
            send(&Packet::PubComp(PubComp::success(id(packet_id))))
        });
    }

    pub fn ping(&mut self, client: Client) {
        self.send(client, |send| send(&Packet::PingReq));
    }

    /// Disconnects with Reason Code 0x00.
    pub fn disconnect(&mut self, client: Client) {
        self.disconnect_with(client, ReasonCode::Success, None);
    }

    pub fn disconnect_with(&mut self, client: Client, reason_code: ReasonCode, session_expiry_interval: Option<u32>) {
        self.send(client, move |send| {
            let properties = DisconnectProperties {
                session_expiry_interval,
                ..Default::default()
            };
            send(&Packet::Disconnect(Disconnect {
                reason_code,
                properties,
            }));
        });
    }
}
