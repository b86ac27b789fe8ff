//! A correct client, written without a look at the engine: its own Packet Identifiers, both flows of QoS 1 and 2, and what
//! it must remember from one Network Connection to the next (section 4.1).

mod receiver;
mod sender;

use std::collections::{BTreeMap, VecDeque};

use sol_codec::{ProtocolVersion, ReasonCode};
use sol_engine::AckKind;

use self::receiver::Receiver;
use self::sender::Sender;
use crate::packet::{PublishRequest, Received, Reply, Request};
use crate::violation::{Violation, broken, ensure};

/// See the [module](self).
#[derive(Debug)]
pub struct Client {
    /// Client Identifier.
    pub client_id: String,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// The CONNACK has come.
    pub connected: bool,
    /// What it says next, for whoever carries it away.
    pub says: VecDeque<Request>,
    /// It keeps its acknowledgements to itself.
    pub withholds: bool,
    /// It has begun anew, and the broker was not told: it connects with Clean Start until it was.
    pub insists: bool,
    /// Its Session is a new one, and it has not heard so yet.
    pub begins_anew: bool,
    /// Nobody can say whether its Session is the one that it remembers: what comes with an identifier that waits for
    /// PUBREL, and is no repeat, is of another one.
    pub doubts: bool,
    withheld: VecDeque<Request>,
    sender: Sender,
    receiver: Receiver,
    /// SUBSCRIBE and UNSUBSCRIBE that were not answered: Packet Identifier to number of filters.
    asked: BTreeMap<u16, (bool, usize)>,
}

/// What a client makes of a packet.
#[derive(Debug)]
pub enum Heard {
    /// Nothing for the application.
    Nothing,
    /// An Application Message; `again`: it is known already, this is a repeat.
    Message {
        /// The message, its topic looked up.
        received: Received,
        /// A repeat of what the application has.
        again: bool,
    },
    /// The broker ends the connection.
    Bye,
}

impl Client {
    /// A client without a Session.
    #[must_use]
    pub fn new(client_id: String, version: ProtocolVersion) -> Self {
        Self {
            client_id,
            version,
            connected: false,
            says: VecDeque::new(),
            withholds: false,
            insists: false,
            begins_anew: false,
            doubts: false,
            withheld: VecDeque::new(),
            sender: Sender::default(),
            receiver: Receiver::default(),
            asked: BTreeMap::new(),
        }
    }

    /// The old connection is given up, and nothing said on it matters any more.
    pub fn leave(&mut self) {
        self.connected = false;
        self.says.clear();
        self.withheld.clear();
        self.asked.clear();
        self.receiver.leave();
        self.sender.leave();
    }

    /// A CONNECT with Clean Start is about to be sent: the Session State goes [MQTT-3.1.2-4].
    pub fn forget(&mut self) {
        self.sender = Sender::default();
        self.receiver = Receiver::default();
        self.doubts = false;
    }

    /// Says a SUBSCRIBE or an UNSUBSCRIBE, as `make` forms it with its Packet Identifier.
    pub fn ask(&mut self, subscribes: bool, filters: usize, make: impl FnOnce(u16) -> Request) {
        let taken = |id: u16| self.asked.contains_key(&id);
        if let Some(packet_id) = self.sender.free_id(taken) {
            self.asked.insert(packet_id, (subscribes, filters));
            self.says.push_back(make(packet_id));
        }
    }

    /// Publishes, now or when there is room for it.
    pub fn publish(&mut self, publish: PublishRequest, with_alias: bool) {
        self.sender.put(publish, with_alias);
        self.go_on();
    }

    fn go_on(&mut self) {
        let asked = &self.asked;
        while let Some(publish) = self.sender.next(|id| asked.contains_key(&id)) {
            self.says.push_back(Request::Publish(publish));
        }
    }

    /// Gives some of the acknowledgements that it kept to itself, in their order [MQTT-4.6.0-2].
    pub fn release(&mut self, count: usize) {
        let count = count.min(self.withheld.len());
        self.says.extend(self.withheld.drain(..count));
    }

    /// Whether it has nothing to do and keeps nothing back.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.says.is_empty() && self.withheld.is_empty() && self.asked.is_empty() && self.sender.is_idle()
    }

    /// Whether all that it holds back is nothing.
    #[must_use]
    pub fn has_acknowledged_all(&self) -> bool {
        self.withheld.is_empty()
    }

    /// The broker has a PUBACK: its identifier is free for another message, though that may look just like this one.
    pub fn is_done_with(&mut self, packet_id: u16) {
        self.receiver.is_done_with(packet_id);
    }

    fn acknowledge(&mut self, kind: AckKind, packet_id: u16) {
        self.withheld.push_back(Request::Ack(kind, packet_id));
        if !self.withholds {
            self.release(usize::MAX);
        }
    }

    /// Takes in one packet.
    ///
    /// # Errors
    /// The packet is not legal here.
    pub fn hear(&mut self, reply: Reply) -> Result<Heard, Violation> {
        let first = matches!(reply, Reply::ConnAck { .. });
        ensure(
            first != self.connected || matches!(reply, Reply::Disconnect(_)),
            "I12",
            || format!("{} gets {reply:?}, connected: {}", self.client_id, self.connected),
        )?;
        match reply {
            Reply::ConnAck {
                session_present,
                reason_code,
                receive_maximum,
                topic_alias_maximum,
            } => {
                if reason_code != ReasonCode::Success {
                    return Ok(Heard::Bye);
                }
                self.connected = true;
                if std::mem::take(&mut self.begins_anew) || !session_present {
                    self.forget();
                }
                let again = self.sender.resume(receive_maximum, topic_alias_maximum);
                self.says.extend(again);
                self.go_on();
            }
            Reply::Publish(received) => return self.hear_publish(received),
            Reply::Ack(AckKind::PubRel, packet_id, _) => {
                self.receiver.released(packet_id);
                self.acknowledge(AckKind::PubComp, packet_id);
            }
            Reply::Ack(kind, packet_id, reason_code) => {
                let pubrel = self.sender.acknowledged(kind, packet_id, reason_code).ok_or_else(|| {
                    broken(
                        "I12",
                        format!("{} did not wait for {kind:?} {packet_id}", self.client_id),
                    )
                })?;
                if pubrel {
                    self.says.push_back(Request::Ack(AckKind::PubRel, packet_id));
                }
                self.go_on();
            }
            Reply::SubAck(packet_id, codes) => self.answered(packet_id, true, codes.len())?,
            Reply::UnsubAck(packet_id, codes) => self.answered(packet_id, false, codes.len())?,
            Reply::PingResp => return Err(broken("I12", "a PINGRESP without PINGREQ".into())),
            Reply::Disconnect(_) => return Ok(Heard::Bye),
        }
        Ok(Heard::Nothing)
    }

    fn hear_publish(&mut self, received: Received) -> Result<Heard, Violation> {
        let received = self.receiver.look_up(received)?;
        let again = self.receiver.take(&received, self.doubts)?;
        if let Some(packet_id) = received.packet_id {
            let kind = if received.qos == sol_codec::QoS::ExactlyOnce {
                AckKind::PubRec
            } else {
                AckKind::PubAck
            };
            self.acknowledge(kind, packet_id);
        }
        Ok(Heard::Message { received, again })
    }

    fn answered(&mut self, packet_id: u16, subscribed: bool, codes: usize) -> Result<(), Violation> {
        let asked = self.asked.remove(&packet_id);
        // An UNSUBACK has codes in 5.0 only.
        let counts = subscribed || self.version == ProtocolVersion::V5;
        let fits = asked
            .is_some_and(|(subscribes, filters)| subscribes == subscribed && codes == if counts { filters } else { 0 });
        ensure(fits, "I12", || {
            format!(
                "{} asked {asked:?} with {packet_id} and gets {codes} codes",
                self.client_id
            )
        })
    }
}
