//! A client's end of a connection: it remembers what it said, and objects to whatever it must not hear.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use sol_codec::{
    ConnAck, DecodeLimits, Decoded, Direction, Packet, PacketId, PacketType, ProtocolVersion, PubAck, PubComp, PubRec,
    PubRel, Publish, QoS, ReasonCode, SubAck, TopicAlias, UnsubAck, decode,
};
use sol_engine::{ConnectionId, Outgoing};

use crate::encoded;

/// The engines' own limit of messages on their way to one client.
pub const INFLIGHT_MAX: u16 = 4;

/// See the [module](self).
pub struct Peer {
    /// The shard that has the connection, and its name there.
    pub shard: usize,
    pub connection: ConnectionId,
    pub version: ProtocolVersion,
    /// The engine wants no packet now.
    pub stopped: bool,
    connected: bool,
    session_present: bool,
    /// The last packet was heard.
    ended: bool,
    client_id: String,
    method: Option<String>,
    receive_maximum: usize,
    maximum_packet_size: usize,
    alias_maximum: u16,
    aliases: BTreeSet<TopicAlias>,
    /// What was delivered and is not acknowledged, and the acknowledgement that ends it.
    unacknowledged: BTreeMap<PacketId, PacketType>,
    /// Answered with a PUBREC on this connection.
    received: BTreeSet<PacketId>,
    /// How many answers of a kind may still come for an identifier.
    owed: BTreeMap<(PacketType, PacketId), usize>,
    /// SUBSCRIBEs and UNSUBSCRIBEs that are not answered, with the number of their filters.
    asked: Vec<(PacketType, PacketId, usize)>,
    pings: usize,
}

impl Peer {
    pub fn new(shard: usize, connection: ConnectionId) -> Self {
        Self {
            shard,
            connection,
            version: ProtocolVersion::V311,
            stopped: false,
            connected: false,
            session_present: false,
            ended: false,
            client_id: String::new(),
            method: None,
            receive_maximum: usize::MAX,
            maximum_packet_size: usize::MAX,
            alias_maximum: 0,
            aliases: BTreeSet::new(),
            unacknowledged: BTreeMap::new(),
            received: BTreeSet::new(),
            owed: BTreeMap::new(),
            asked: Vec::new(),
            pings: 0,
        }
    }

    /// The Client Identifier that this connection owns, once it does. Before 5.0 nobody tells a client which one it was
    /// assigned.
    pub fn owns(&self) -> Option<&str> {
        (self.connected && !self.client_id.is_empty()).then_some(&*self.client_id)
    }

    /// It says something; the engine has not heard it yet.
    pub fn says(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Connect(connect) if !self.connected => {
                self.version = connect.version;
                self.client_id = connect.client_id.to_owned();
                let properties = &connect.properties;
                self.method = properties.authentication_method.map(str::to_owned);
                self.receive_maximum = properties.receive_maximum.map_or(usize::MAX, |max| max.get().into());
                let largest = properties.maximum_packet_size.map(NonZeroU32::get);
                self.maximum_packet_size = largest.map_or(usize::MAX, |max| max as usize);
                self.alias_maximum = properties.topic_alias_maximum.unwrap_or(0);
            }
            Packet::Publish(Publish {
                qos,
                packet_id: Some(id),
                ..
            }) => match qos {
                QoS::ExactlyOnce => self.expect(PacketType::PubRec, *id),
                _ => self.expect(PacketType::PubAck, *id),
            },
            Packet::PubAck(PubAck { packet_id, .. }) => self.acknowledge(PacketType::PubAck, *packet_id),
            Packet::PubComp(PubComp { packet_id, .. }) => self.acknowledge(PacketType::PubComp, *packet_id),
            Packet::PubRec(PubRec {
                packet_id, reason_code, ..
            }) if reason_code.is_error() => {
                self.acknowledge(PacketType::PubComp, *packet_id);
            }
            Packet::PubRec(PubRec { packet_id, .. }) => {
                self.received.insert(*packet_id);
            }
            Packet::PubRel(PubRel { packet_id, .. }) => self.expect(PacketType::PubComp, *packet_id),
            Packet::Subscribe(subscribe) => {
                self.asked
                    .push((PacketType::SubAck, subscribe.packet_id, subscribe.filters.len()));
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.asked
                    .push((PacketType::UnsubAck, unsubscribe.packet_id, unsubscribe.filters.len()));
            }
            Packet::PingReq => self.pings += 1,
            _ => {}
        }
    }

    fn expect(&mut self, answer: PacketType, id: PacketId) {
        *self.owed.entry((answer, id)).or_default() += 1;
    }

    /// An acknowledgement ends what it belongs to, and nothing else.
    fn acknowledge(&mut self, with: PacketType, id: PacketId) {
        if self.unacknowledged.get(&id) == Some(&with) {
            self.unacknowledged.remove(&id);
        }
    }

    /// It finds nothing wrong with what it is sent.
    pub fn hears(&mut self, packet: &Outgoing) {
        // A refusal may come before the version is settled, and says it in its own.
        let version = match packet {
            Outgoing::ConnAck(connack) => connack.version,
            _ => self.version,
        };
        if version < ProtocolVersion::V5 && matches!(packet, Outgoing::Disconnect(_)) {
            return; // 3.x has none from a server: the close says it
        }
        let bytes = packet.with_packet(|packet| encoded(packet, version));
        let limits = DecodeLimits {
            direction: Direction::FromServer,
            ..DecodeLimits::default()
        };
        let (packet, len) = match decode(&bytes, version, &limits) {
            Ok(Decoded::Packet { packet, len }) if len == bytes.len() => (packet, len),
            other => panic!("{packet:?} is sent as {bytes:02x?}: {other:?}"),
        };
        assert!(!self.ended, "{packet:?} after the last packet");
        self.ended = matches!(packet, Packet::Disconnect(_));
        let introduced = matches!(packet, Packet::ConnAck(_) | Packet::Auth(_) | Packet::Disconnect(_));
        assert!(self.connected || introduced, "[MQTT-3.2.0-1] {packet:?} before CONNACK");
        assert!(
            len <= self.maximum_packet_size,
            "[MQTT-3.1.2-24] {len} bytes: {packet:?}"
        );
        self.reads(&packet);
    }

    fn reads(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::ConnAck(connack) => self.is_let_in(connack),
            Packet::Publish(publish) => self.receives(publish),
            Packet::PubAck(PubAck { packet_id, .. }) => self.is_owed(PacketType::PubAck, *packet_id),
            Packet::PubRec(PubRec { packet_id, .. }) => self.is_owed(PacketType::PubRec, *packet_id),
            Packet::PubComp(PubComp { packet_id, .. }) => self.is_owed(PacketType::PubComp, *packet_id),
            Packet::PubRel(PubRel {
                packet_id, reason_code, ..
            }) => self.is_released(*packet_id, *reason_code),
            Packet::SubAck(SubAck {
                packet_id,
                reason_codes,
                ..
            }) => {
                self.is_answered(PacketType::SubAck, *packet_id, reason_codes.len());
            }
            Packet::UnsubAck(UnsubAck {
                packet_id,
                reason_codes,
                ..
            }) => {
                self.is_answered(PacketType::UnsubAck, *packet_id, reason_codes.len());
            }
            Packet::PingResp => {
                self.pings = self.pings.checked_sub(1).expect("PINGRESP without PINGREQ");
            }
            Packet::Disconnect(_) => {}
            Packet::Auth(auth) => {
                let method = auth.properties.authentication_method;
                assert!(
                    method.is_some() && method == self.method.as_deref(),
                    "[MQTT-4.12.0-5] {auth:?}"
                );
            }
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => {
                panic!("a server sends {packet:?}")
            }
        }
    }

    fn is_let_in(&mut self, connack: &ConnAck<'_>) {
        assert!(!self.connected, "a second CONNACK");
        self.connected = connack.reason_code == ReasonCode::Success;
        self.session_present = connack.session_present;
        if let Some(assigned) = connack.properties.assigned_client_id {
            self.client_id = assigned.to_owned();
        }
    }

    fn receives(&mut self, publish: &Publish<'_>) {
        if let Some(alias) = publish.properties.topic_alias {
            assert!(alias.get() <= self.alias_maximum, "[MQTT-3.1.2-26] {alias:?}");
            assert!(
                publish.topic.is_some() || self.aliases.contains(&alias),
                "{alias:?} stands for nothing"
            );
            self.aliases.insert(alias);
        }
        let Some(id) = publish.packet_id else { return };
        let end = if publish.qos == QoS::ExactlyOnce {
            PacketType::PubComp
        } else {
            PacketType::PubAck
        };
        let used = self.unacknowledged.insert(id, end);
        assert_eq!(used, None, "[MQTT-2.2.1-4] {id:?} is in use");
        self.has_room();
    }

    /// PUBREL answers a PUBREC of this connection, or goes on with what an earlier one began.
    fn is_released(&mut self, id: PacketId, reason_code: ReasonCode) {
        assert!(
            self.received.contains(&id) || self.session_present,
            "PUBREL of {id:?} without PUBREC"
        );
        // Before 5.0 a PUBREC of nothing is answered like any other; it takes no place of the window.
        let is_stray = self.received.contains(&id) && !self.unacknowledged.contains_key(&id);
        if reason_code == ReasonCode::Success && !is_stray {
            self.unacknowledged.insert(id, PacketType::PubComp);
            self.has_room();
        }
    }

    fn has_room(&self) {
        let quota = self.receive_maximum.min(INFLIGHT_MAX.into());
        assert!(
            self.unacknowledged.len() <= quota,
            "[MQTT-3.3.4-9] Receive Maximum {quota}"
        );
    }

    fn is_owed(&mut self, answer: PacketType, id: PacketId) {
        let owed = self.owed.entry((answer, id)).or_default();
        *owed = owed
            .checked_sub(1)
            .unwrap_or_else(|| panic!("{answer:?} of {id:?} was not asked for"));
    }

    /// One Reason Code a filter, in an answer to a question; an UNSUBACK of 3.x has none.
    fn is_answered(&mut self, answer: PacketType, id: PacketId, codes: usize) {
        let bare = answer == PacketType::UnsubAck && self.version < ProtocolVersion::V5;
        let question =
            |asked: &(PacketType, PacketId, usize)| (asked.0, asked.1) == (answer, id) && (bare || asked.2 == codes);
        let at = self.asked.iter().position(question);
        self.asked
            .remove(at.unwrap_or_else(|| panic!("{answer:?} of {id:?} with {codes} codes was not asked for")));
    }
}
