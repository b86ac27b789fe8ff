//! A client as sender (section 4.3).

use std::collections::{BTreeMap, VecDeque};

use sol_codec::{QoS, ReasonCode};
use sol_engine::AckKind;

use crate::packet::{PublishRequest, Request};

/// Packet Identifiers in use, so few that they come again soon.
const PACKET_IDS: u16 = 24;

/// What a client has published and what became of it.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Begun and not finished, in the order in which it was begun.
    pending: VecDeque<Pending>,
    /// Not begun.
    backlog: VecDeque<(PublishRequest, bool)>,
    last_id: u16,
    /// The broker's Receive Maximum; 0 without a connection.
    receive_maximum: u16,
    alias_maximum: u16,
    aliases: BTreeMap<String, u16>,
}

#[derive(Debug)]
struct Pending {
    publish: PublishRequest,
    packet_id: u16,
    /// PUBREC has come.
    released: bool,
}

impl Sender {
    pub(super) fn put(&mut self, publish: PublishRequest, with_alias: bool) {
        self.backlog.push_back((publish, with_alias));
    }

    /// A Packet Identifier that nothing uses.
    pub(super) fn free_id(&mut self, taken: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in 0..PACKET_IDS {
            self.last_id = self.last_id % PACKET_IDS + 1;
            let id = self.last_id;
            if !taken(id) && self.pending.iter().all(|pending| pending.packet_id != id) {
                return Some(id);
            }
        }
        None
    }

    /// The next publish that may leave.
    pub(super) fn next(&mut self, taken: impl Fn(u16) -> bool) -> Option<PublishRequest> {
        let (front, _) = self.backlog.front()?;
        let acknowledged = front.qos > QoS::AtMostOnce;
        if acknowledged && self.pending.len() >= usize::from(self.receive_maximum) || self.receive_maximum == 0 {
            return None;
        }
        let packet_id = if acknowledged { Some(self.free_id(taken)?) } else { None };
        let (mut publish, with_alias) = self.backlog.pop_front()?;
        publish.packet_id = packet_id;
        if let Some(packet_id) = packet_id {
            self.pending.push_back(Pending {
                publish: publish.clone(),
                packet_id,
                released: false,
            });
        }
        if with_alias {
            self.put_alias(&mut publish);
        }
        Some(publish)
    }

    fn put_alias(&mut self, publish: &mut PublishRequest) {
        let Some(topic) = &publish.topic else { return };
        if let Some(&alias) = self.aliases.get(topic) {
            publish.alias = Some(alias);
            publish.topic = None;
        } else if self.aliases.len() < usize::from(self.alias_maximum) {
            let alias = self.aliases.len() as u16 + 1;
            self.aliases.insert(topic.clone(), alias);
            publish.alias = Some(alias);
        }
    }

    /// An acknowledgement came. Whether PUBREL follows; `None`: nothing waited for it.
    pub(super) fn acknowledged(&mut self, kind: AckKind, packet_id: u16, reason_code: ReasonCode) -> Option<bool> {
        let at = self.pending.iter().position(|pending| pending.packet_id == packet_id)?;
        let pending = self.pending.get_mut(at)?;
        let two = pending.publish.qos == QoS::ExactlyOnce;
        match kind {
            AckKind::PubRec if two && !pending.released && !reason_code.is_error() => {
                pending.released = true;
                Some(true)
            }
            AckKind::PubRec if two && !pending.released => self.pending.remove(at).map(|_| false),
            AckKind::PubAck if !two => self.pending.remove(at).map(|_| false),
            AckKind::PubComp if pending.released => self.pending.remove(at).map(|_| false),
            _ => None,
        }
    }

    /// A connection is established: what has to be sent again [MQTT-4.4.0-1].
    pub(super) fn resume(&mut self, receive_maximum: u16, alias_maximum: u16) -> Vec<Request> {
        (self.receive_maximum, self.alias_maximum) = (receive_maximum, alias_maximum);
        let again = |pending: &Pending| {
            if pending.released {
                return Request::Ack(AckKind::PubRel, pending.packet_id);
            }
            Request::Publish(PublishRequest {
                dup: true,
                ..pending.publish.clone()
            })
        };
        self.pending.iter().map(again).collect()
    }

    /// The connection is gone. What was not begun is not part of the Session State.
    pub(super) fn leave(&mut self) {
        self.receive_maximum = 0;
        self.backlog.clear();
        self.aliases.clear();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.backlog.is_empty()
    }
}
