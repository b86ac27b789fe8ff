//! From what Mosquitto kept to records.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use sol_codec::{ApplicationProperties, PacketId, QoS, TopicFilter, TopicName};
use sol_engine::{
    Homes, ListenerId, Message, Origin, Record, RecordId, Reference, ReferenceState, SessionRecord, SubscriptionRecord,
    UnixMillis,
};

use super::chunks::{self, Client, Database, Owed, Subscription};

/// Where Mosquitto stands with a message that it owes.
mod state {
    pub(super) const PUBLISH_QOS_1: u8 = 2;
    pub(super) const WAIT_FOR_PUBACK: u8 = 3;
    pub(super) const PUBLISH_QOS_2: u8 = 4;
    pub(super) const WAIT_FOR_PUBREC: u8 = 5;
    pub(super) const RESEND_PUBREL: u8 = 6;
    pub(super) const WAIT_FOR_PUBCOMP: u8 = 9;
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;

/// What is left out.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Messages of QoS 0 that were queued.
    pub(super) qos_0: u64,
    /// What refers to something that is not there, or was there before.
    pub(super) strays: u64,
    /// User Names that cannot be one.
    pub(super) names: u64,
}

/// Makes records of it, each behind those that it refers to.
pub(super) fn convert(database: &Database<'_>, seeds: [u64; 4], put: impl FnMut(Record)) -> Left {
    let mut converter = Converter {
        database,
        homes: Homes::new(seeds, 1),
        put,
        last: 0,
        sessions: HashMap::new(),
        filters: HashSet::new(),
        sent: HashSet::new(),
        received: HashSet::new(),
        left: Left::default(),
    };
    converter.sessions();
    converter.subscriptions();
    let mut children = converter.owed();
    converter.retained(&mut children);
    converter.messages(children);
    converter.left
}

/// What refers to a message.
enum Child {
    Owed(RecordId, Reference),
    Retained(RecordId),
}

struct Converter<'a, P> {
    database: &'a Database<'a>,
    homes: Homes,
    put: P,
    /// The last identifier given out. Those of a Session's messages count up in their order.
    last: u64,
    sessions: HashMap<&'a str, RecordId>,
    filters: HashSet<(RecordId, &'a str)>,
    sent: HashSet<(RecordId, PacketId)>,
    received: HashSet<(RecordId, PacketId)>,
    left: Left,
}

impl<'a, P: FnMut(Record)> Converter<'a, P> {
    fn next_id(&mut self) -> RecordId {
        self.last += 1;
        RecordId(self.last)
    }

    fn sessions(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        let mut names = Names::default();
        for client in &self.database.clients {
            if self.sessions.contains_key(client.client_id) {
                self.left.strays += 1;
                continue;
            }
            let id = self.next_id();
            self.sessions.insert(client.client_id, id);
            let (username, vouched) = names.of(client);
            let session = SessionRecord {
                client_id: client.client_id.to_owned(),
                username,
                vouched,
                granted: false,
                own_rules: false,
                listener: ListenerId::default(),
                expiry_interval: client.expiry_interval,
                disconnected_at: Some(UnixMillis::from_millis(away_since(client).unwrap_or(now))),
                will: None,
            };
            (self.put)(Record::Session(id, Box::new(session)));
        }
        self.left.names = names.broken;
    }

    fn subscriptions(&mut self) {
        for subscription in &self.database.subscriptions {
            let session = self.sessions.get(subscription.client_id).copied();
            let Some(session) = session.filter(|&session| self.filters.insert((session, subscription.filter))) else {
                self.left.strays += 1;
                continue;
            };
            let id = self.next_id();
            let record = SubscriptionRecord {
                session,
                filter: subscription.filter.to_owned(),
                // Without what is reserved.
                options: subscription.options & 0x3C | subscription.qos as u8,
                subscription_id: subscription.identifier,
            };
            (self.put)(Record::Subscription(id, Box::new(record)));
        }
    }

    /// What is on its way, by its message.
    fn owed(&mut self) -> HashMap<u64, Vec<Child>> {
        let messages: HashMap<u64, &chunks::Message<'a>> = self
            .database
            .messages
            .iter()
            .map(|message| (message.id, message))
            .collect();
        let mut children: HashMap<u64, Vec<Child>> = HashMap::new();
        for owed in &self.database.owed {
            let Some(&session) = self.sessions.get(owed.client_id) else {
                self.left.strays += 1;
                continue;
            };
            let message = messages.get(&owed.message).copied();
            if owed.is_inbound {
                self.inbound(session, owed, message, &mut children);
                continue;
            }
            if owed.qos == QoS::AtMostOnce {
                self.left.qos_0 += 1;
                continue;
            }
            let state = self.state_of(session, owed);
            let is_released = matches!(state, ReferenceState::Released(_));
            if !is_released && message.is_none() {
                self.left.strays += 1;
                continue;
            }
            let id = self.next_id();
            let reference = Reference {
                session,
                body: None,
                qos: owed.qos,
                retain: owed.retain,
                subscription_ids: owed.identifier.into_iter().collect(),
                share: None,
                state,
            };
            if is_released {
                (self.put)(Record::Reference(id, reference));
            } else {
                children
                    .entry(owed.message)
                    .or_default()
                    .push(Child::Owed(id, reference));
            }
        }
        children
    }

    /// Where the exchange of a message stands. One that never left has no Packet Identifier yet, whatever is written there.
    fn state_of(&mut self, session: RecordId, owed: &Owed<'_>) -> ReferenceState {
        let Some(packet_id) = PacketId::new(owed.packet_id) else {
            return ReferenceState::Queued;
        };
        let state = match (owed.state, owed.qos) {
            (state::WAIT_FOR_PUBACK, QoS::AtLeastOnce) | (state::WAIT_FOR_PUBREC, QoS::ExactlyOnce) => {
                ReferenceState::Sent(packet_id)
            }
            (state::PUBLISH_QOS_1, QoS::AtLeastOnce) | (state::PUBLISH_QOS_2, QoS::ExactlyOnce) if owed.dup => {
                ReferenceState::Sent(packet_id)
            }
            (state::RESEND_PUBREL | state::WAIT_FOR_PUBCOMP, QoS::ExactlyOnce) => ReferenceState::Released(packet_id),
            _ => return ReferenceState::Queued,
        };
        if self.sent.insert((session, packet_id)) {
            state
        } else {
            ReferenceState::Queued
        }
    }

    /// A message that Mosquitto has and has not passed on yet: it is owed to whoever has subscribed to it.
    fn inbound(
        &mut self,
        session: RecordId,
        owed: &Owed<'_>,
        message: Option<&chunks::Message<'_>>,
        children: &mut HashMap<u64, Vec<Child>>,
    ) {
        let packet_id = PacketId::new(owed.packet_id).filter(|&id| self.received.insert((session, id)));
        let (Some(packet_id), Some(message)) = (packet_id, message) else {
            self.left.strays += 1;
            return;
        };
        let id = self.next_id();
        (self.put)(Record::Inbound { id, session, packet_id });
        for reference in self.interested(message) {
            let id = self.next_id();
            children.entry(message.id).or_default().push(Child::Owed(id, reference));
        }
    }

    /// What those are owed who have subscribed to a message with QoS 1 or 2: one delivery for all plain Subscriptions of a
    /// Session, and one for each group that shares, to one of its members.
    fn interested(&self, message: &chunks::Message<'_>) -> Vec<Reference> {
        let mut owed: BTreeMap<(RecordId, &str), Reference> = BTreeMap::new();
        let mut groups = HashSet::new();
        let topic = TopicName::assume_valid(message.topic);
        for subscription in &self.database.subscriptions {
            let Subscription {
                client_id,
                filter,
                qos,
                options,
                identifier,
            } = subscription;
            let (Ok(parsed), Some(&session)) = (TopicFilter::new(filter), self.sessions.get(client_id)) else {
                continue;
            };
            let is_own = options & NO_LOCAL != 0 && *client_id == message.source;
            let qos = (*qos).min(message.qos);
            let shared = parsed.shared();
            let plain = shared.map_or(parsed, |(_, plain)| plain);
            if qos == QoS::AtMostOnce || is_own || !plain.matches(topic) {
                continue;
            }
            if shared.is_some() && !groups.insert(filter) {
                continue;
            }
            let group = if shared.is_some() { filter } else { "" };
            let reference = owed.entry((session, group)).or_insert_with(|| Reference {
                session,
                body: None,
                qos,
                retain: false,
                subscription_ids: Box::default(),
                share: shared.map(|(name, plain)| Box::new((name.as_str().to_owned(), plain.as_str().to_owned()))),
                state: ReferenceState::Queued,
            });
            reference.qos = reference.qos.max(qos);
            reference.retain |= options & RETAIN_AS_PUBLISHED != 0 && message.retain;
            let ids = std::mem::take(&mut reference.subscription_ids).into_vec();
            reference.subscription_ids = ids.into_iter().chain(*identifier).collect();
        }
        owed.into_values().collect()
    }

    /// One message is retained for a topic: the last one of the file, or one that had not been passed on.
    fn retained(&mut self, children: &mut HashMap<u64, Vec<Child>>) {
        let mut by_topic: BTreeMap<&str, u64> = BTreeMap::new();
        let messages: HashMap<u64, &chunks::Message<'a>> = self
            .database
            .messages
            .iter()
            .map(|message| (message.id, message))
            .collect();
        for id in &self.database.retained {
            match messages.get(id) {
                Some(message) => drop(by_topic.insert(message.topic, *id)),
                None => self.left.strays += 1,
            }
        }
        for owed in self.database.owed.iter().filter(|owed| owed.is_inbound) {
            match messages.get(&owed.message) {
                Some(message) if message.retain && message.payload.is_empty() => drop(by_topic.remove(message.topic)),
                Some(message) if message.retain => drop(by_topic.insert(message.topic, message.id)),
                _ => {}
            }
        }
        for (_, message) in by_topic {
            let id = self.next_id();
            children.entry(message).or_default().push(Child::Retained(id));
        }
    }

    fn messages(&mut self, mut children: HashMap<u64, Vec<Child>>) {
        for stored in &self.database.messages {
            // Of two with one number the second one is a stray: there is nothing left for it.
            let Some(children) = children.remove(&stored.id) else {
                continue;
            };
            let body = self.next_id();
            let mut message = Message::empty();
            let properties = ApplicationProperties::from_stored(&stored.properties);
            message.fill(stored.topic, properties, stored.payload);
            message.qos = stored.qos;
            message.retain = stored.retain;
            message.origin = if stored.source.is_empty() {
                Origin::BROKER
            } else {
                self.homes.origin(stored.source)
            };
            if let Some(millis) = millis(stored.expires_at) {
                message.expires_at = UnixMillis::from_millis(millis);
            }
            (self.put)(Record::Body(body, Rc::new(message)));
            for child in children {
                (self.put)(match child {
                    Child::Retained(id) => Record::Retained { id, body, author: None },
                    Child::Owed(id, reference) => Record::Reference(
                        id,
                        Reference {
                            body: Some(body),
                            ..reference
                        },
                    ),
                });
            }
        }
    }
}

/// User Names, of which Mosquitto 2.0 has mixed some up as it wrote them: a client that has none got the one before it, by
/// turns with a length that reaches into memory behind it, and with the right one.
#[derive(Debug, Default)]
struct Names<'a> {
    last: Option<&'a str>,
    is_mixed_up: bool,
    broken: u64,
}

impl<'a> Names<'a> {
    /// The next client's, and whether it is certain enough for the Session to be this user's alone.
    fn of(&mut self, client: &Client<'a>) -> (Option<String>, bool) {
        let Some(bytes) = client.username else {
            return (None, false);
        };
        let Some(name) = std::str::from_utf8(bytes).ok().filter(|name| !name.contains('\0')) else {
            self.is_mixed_up = true;
            self.broken += 1;
            return (None, false);
        };
        let is_certain = !self.is_mixed_up || self.last != Some(name);
        if is_certain {
            self.is_mixed_up = false;
            self.last = Some(name);
        }
        (Some(name.to_owned()), is_certain)
    }
}

/// When a client's connection ended, if the file says so.
fn away_since(client: &Client<'_>) -> Option<u64> {
    let expires_at = millis(client.expires_at)?;
    expires_at.checked_sub(u64::from(client.expiry_interval) * 1_000)
}

/// Seconds as milliseconds, unless that is no moment.
fn millis(seconds: i64) -> Option<u64> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
    seconds.checked_mul(1_000)
}
