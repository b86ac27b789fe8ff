//! What follows from an input: plain data, grouped by kind, in the order to apply.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::{boxed::Box, rc::Rc, string::String, vec::Vec};
use core::num::{NonZeroU16, NonZeroU32};

use sol_codec::{
    AckProperties, ConnAck, ConnAckProperties, Disconnect, Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec,
    PubRel, Publish, PublishProperties, QoS, ReasonCode, ReasonCodes, SubAck, SubscriptionId, SubscriptionIds,
    TopicAlias, TopicName, UnsubAck,
};

use crate::event::Event;
use crate::ids::{ConnectionId, ListenerId, ShardId};
use crate::input::Handover;
use crate::journal::Commit;
use crate::message::Message;
use crate::record::Record;
use crate::shard_message::{Forward, ShardMessage};
use crate::stats::Stats;

/// The tray: the caller owns and reuses it, the engine appends to it. Apply the kinds in the order of the fields; within
/// a kind, in order. Then [`Effects::clear`] it.
#[derive(Debug, Default)]
pub struct Effects {
    /// Durable changes, for the journal. What must wait for them does so inside the engine.
    pub records: Vec<Record>,
    /// Which of them are written together, and what answers that they are durable.
    pub commits: Vec<Commit>,
    /// Messages to other shards.
    pub forwards: Vec<(ShardId, ShardMessage)>,
    /// Packets to send.
    pub transmits: Vec<Transmit>,
    /// Connections that change their shard. Nothing more of them is decoded here.
    pub moves: Vec<Move>,
    /// Logins to be checked.
    pub auth_requests: Vec<AuthRequest>,
    /// Connections whose reading goes on.
    pub reads: Vec<Read>,
    /// Answers to [`crate::Input::Ask`].
    pub answers: Vec<Answer>,
    /// Facts for log and trace.
    pub events: Vec<Event>,
    /// Connections to close once their transmits have been flushed. The engine has already forgotten them.
    pub closes: Vec<Close>,
    /// Spent messages, whose buffers the next publishes are filled into.
    spare: Vec<Rc<Message>>,
    /// Spent forwards, whose buffers the next ones are copied into: to free on one core what was allocated on another costs
    /// both of them more than the copy.
    #[expect(clippy::vec_box, reason = "the boxes themselves are used again")]
    spare_forwards: Vec<Box<Forward>>,
    /// Charges of messages whose last hold was in the tray.
    refunds: usize,
}

/// Spent messages and forwards kept for reuse, and the largest buffer worth keeping.
const SPARE_MAX: usize = 1_024;
const SPARE_BYTES_MAX: usize = 4 << 10;

impl Effects {
    /// Empties the tray after it was applied, keeping its memory.
    pub fn clear(&mut self) {
        self.truncate(&Mark::default());
    }

    /// Takes back a record that was taken out of `records`, once it is written: the last hold of a message ends here,
    /// so that what it was charged with is free again.
    pub fn spend(&mut self, record: Record) {
        if let Record::Body(_, message) = record {
            self.refunds = self.recycle(message).saturating_add(self.refunds);
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.commits.is_empty()
            && self.forwards.is_empty()
            && self.transmits.is_empty()
            && self.moves.is_empty()
            && self.auth_requests.is_empty()
            && self.reads.is_empty()
            && self.answers.is_empty()
            && self.events.is_empty()
            && self.closes.is_empty()
    }

    /// How long each list is, for [`Effects::truncate`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            records: self.records.len(),
            commits: self.commits.len(),
            forwards: self.forwards.len(),
            transmits: self.transmits.len(),
            moves: self.moves.len(),
            auth_requests: self.auth_requests.len(),
            reads: self.reads.len(),
            answers: self.answers.len(),
            events: self.events.len(),
            closes: self.closes.len(),
        }
    }

    /// Takes back everything since `mark`: the input that caused it came to nothing.
    pub fn truncate(&mut self, mark: &Mark) {
        while self.records.len() > mark.records
            && let Some(record) = self.records.pop()
        {
            self.spend(record);
        }
        while self.transmits.len() > mark.transmits
            && let Some(transmit) = self.transmits.pop()
        {
            if let Outgoing::Publish(delivery) = transmit.packet {
                self.refunds = self.recycle(delivery.message).saturating_add(self.refunds);
            }
        }
        self.commits.truncate(mark.commits);
        if let Some(last) = self.commits.last_mut() {
            last.end = last.end.min(mark.records);
        }
        self.forwards.truncate(mark.forwards);
        self.moves.truncate(mark.moves);
        self.auth_requests.truncate(mark.auth_requests);
        self.reads.truncate(mark.reads);
        self.answers.truncate(mark.answers);
        self.events.truncate(mark.events);
        self.closes.truncate(mark.closes);
    }

    /// Takes out everything since `mark`.
    pub(crate) fn take_since(&mut self, mark: &Mark) -> Self {
        fn since<T>(list: &mut Vec<T>, at: usize) -> Vec<T> {
            list.split_off(at.min(list.len()))
        }
        Self {
            records: since(&mut self.records, mark.records),
            commits: since(&mut self.commits, mark.commits),
            forwards: since(&mut self.forwards, mark.forwards),
            transmits: since(&mut self.transmits, mark.transmits),
            moves: since(&mut self.moves, mark.moves),
            auth_requests: since(&mut self.auth_requests, mark.auth_requests),
            reads: since(&mut self.reads, mark.reads),
            answers: since(&mut self.answers, mark.answers),
            events: since(&mut self.events, mark.events),
            closes: since(&mut self.closes, mark.closes),
            ..Self::default()
        }
    }

    /// A message to fill, with a recycled buffer if there is one.
    pub(crate) fn spare_message(&mut self) -> Rc<Message> {
        self.spare.pop().unwrap_or_else(|| Rc::new(Message::empty()))
    }

    /// Gives up one hold of a message. The last one keeps its buffer for the next publish, unless it is large, and
    /// returns the bytes that it was charged with.
    pub(crate) fn recycle(&mut self, mut message: Rc<Message>) -> usize {
        let Some(alone) = Rc::get_mut(&mut message) else {
            return 0;
        };
        let charged = core::mem::take(&mut alone.charged) as usize;
        if self.spare.len() < SPARE_MAX && alone.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(message);
        }
        charged
    }

    /// A forward to fill, with a recycled buffer if there is one.
    pub fn spare_forward(&mut self) -> Box<Forward> {
        self.spare_forwards.pop().unwrap_or_default()
    }

    /// Takes the message out of a forward and keeps what carried it, unless that is large.
    pub(crate) fn unpack(&mut self, mut forward: Box<Forward>) -> Rc<Message> {
        let mut message = self.spare_message();
        if let Some(alone) = Rc::get_mut(&mut message) {
            core::mem::swap(alone, &mut forward.message);
        } else {
            message = Rc::new(core::mem::take(&mut forward.message));
        }
        self.spend_forward(forward);
        message
    }

    /// Takes back a forward that was taken out of `forwards`, if only its content crosses.
    pub fn spend_forward(&mut self, forward: Box<Forward>) {
        if self.spare_forwards.len() < SPARE_MAX && forward.message.capacity() <= SPARE_BYTES_MAX {
            self.spare_forwards.push(forward);
        }
    }

    /// Charges of messages that the tray was the last to hold.
    pub(crate) const fn take_refunds(&mut self) -> usize {
        core::mem::replace(&mut self.refunds, 0)
    }
}

/// A place in the tray; see [`Effects::mark`].
#[derive(Clone, Debug, Default)]
pub struct Mark {
    records: usize,
    commits: usize,
    forwards: usize,
    transmits: usize,
    moves: usize,
    auth_requests: usize,
    reads: usize,
    answers: usize,
    events: usize,
    closes: usize,
}

/// One packet for one connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Transmit {
    /// Where it goes.
    pub connection: ConnectionId,
    /// What goes there.
    pub packet: Outgoing,
}

// A fan-out to a thousand Sessions is a thousand of these.
const _: () = assert!(size_of::<Transmit>() <= 48);

/// A packet that the broker sends, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// PUBLISH.
    Publish(Delivery),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        /// Which of the four.
        kind: AckKind,
        /// The exchange it belongs to.
        packet_id: PacketId,
        /// How it went; not on the wire before 5.0.
        reason_code: ReasonCode,
    },
    /// CONNACK.
    ConnAck(Box<ConnAckData>),
    /// SUBACK.
    SubAck {
        /// The SUBSCRIBE it answers.
        packet_id: PacketId,
        /// One Reason Code for each filter, in order.
        reason_codes: Box<Vec<ReasonCode>>,
    },
    /// UNSUBACK.
    UnsubAck {
        /// The UNSUBSCRIBE it answers.
        packet_id: PacketId,
        /// One Reason Code for each filter, in order; not on the wire before 5.0.
        reason_codes: Box<Vec<ReasonCode>>,
    },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT, to 5.0 clients only.
    Disconnect(ReasonCode),
    /// AUTH, to 5.0 clients only.
    Auth(Box<AuthData>),
}

impl Outgoing {
    /// Gives `then` this as a packet of the codec, for whoever looks at packets one by one. To send the same PUBLISH to
    /// many there are cheaper ways, from [`Delivery::with_publish`].
    pub fn with_packet<R>(&self, then: impl FnOnce(&Packet<'_>) -> R) -> R {
        match self {
            Self::Publish(delivery) => {
                delivery.with_publish(&mut Vec::new(), |publish| then(&Packet::Publish(*publish)))
            }
            &Self::Ack {
                kind,
                packet_id,
                reason_code,
            } => then(&match kind {
                AckKind::PubAck => Packet::PubAck(PubAck::new(packet_id, reason_code)),
                AckKind::PubRec => Packet::PubRec(PubRec::new(packet_id, reason_code)),
                AckKind::PubRel => Packet::PubRel(PubRel::new(packet_id, reason_code)),
                AckKind::PubComp => Packet::PubComp(PubComp::new(packet_id, reason_code)),
            }),
            Self::ConnAck(data) => then(&Packet::ConnAck(data.packet())),
            Self::SubAck {
                packet_id,
                reason_codes,
            } => then(&Packet::SubAck(SubAck {
                packet_id: *packet_id,
                properties: AckProperties::default(),
                reason_codes: ReasonCodes::from_slice(reason_codes),
            })),
            Self::UnsubAck {
                packet_id,
                reason_codes,
            } => then(&Packet::UnsubAck(UnsubAck {
                packet_id: *packet_id,
                properties: AckProperties::default(),
                reason_codes: ReasonCodes::from_slice(reason_codes),
            })),
            Self::PingResp => then(&Packet::PingResp),
            Self::Disconnect(reason_code) => then(&Packet::Disconnect(Disconnect::new(*reason_code))),
            Self::Auth(auth) => then(&Packet::Auth(auth.packet())),
        }
    }
}

/// The four acknowledgements of QoS 1 and 2, which have one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// PUBACK.
    PubAck,
    /// PUBREC.
    PubRec,
    /// PUBREL.
    PubRel,
    /// PUBCOMP.
    PubComp,
}

/// A PUBLISH to one client: the shared message and what is this client's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The message.
    pub message: Rc<Message>,
    /// Subscription Identifiers beyond the first.
    pub more_subscription_ids: Option<Rc<Vec<SubscriptionId>>>,
    /// The first Subscription Identifier.
    pub subscription_id: Option<SubscriptionId>,
    /// The Message Expiry Interval that is left, plus one, so that 0 s has room beside "none".
    expiry: Option<NonZeroU32>,
    /// The Packet Identifier, if QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The Topic Alias to write.
    pub topic_alias: Option<TopicAlias>,
    /// The topic is left out: the client knows the alias.
    pub alias_only: bool,
    /// The QoS it is delivered with.
    pub qos: QoS,
    /// The RETAIN flag it is delivered with.
    pub retain: bool,
    /// It was sent before on an earlier connection [MQTT-3.3.1-1].
    pub dup: bool,
}

impl Delivery {
    /// A first delivery of `message`, with nothing of its own but QoS and RETAIN.
    #[must_use]
    pub const fn new(message: Rc<Message>, qos: QoS, retain: bool) -> Self {
        Self {
            message,
            more_subscription_ids: None,
            subscription_id: None,
            expiry: None,
            packet_id: None,
            topic_alias: None,
            alias_only: false,
            qos,
            retain,
            dup: false,
        }
    }

    /// An upper bound of its encoded length, found without encoding.
    pub(crate) fn bytes_max(&self) -> u32 {
        const FIXED: usize = 5 + 2 + 2 + 4 + 5 + 3 + 5;
        let ids = self.more_subscription_ids.as_ref().map_or(0, |more| more.len());
        let bytes = self.message.bytes_len().saturating_add(FIXED);
        u32::try_from(ids.saturating_mul(5).saturating_add(bytes)).unwrap_or(u32::MAX)
    }

    /// The exact encoded length.
    pub(crate) fn encoded_len(&self, version: ProtocolVersion) -> usize {
        let mut more = Vec::new();
        self.with_publish(&mut more, |publish| publish.encoded_len(version))
    }

    /// Gives `then` this delivery as the packet to encode. `ids` is scratch memory for several Subscription Identifiers.
    pub fn with_publish<R>(&self, ids: &mut Vec<SubscriptionId>, then: impl FnOnce(&Publish<'_>) -> R) -> R {
        let subscription_ids = match (self.subscription_id, &self.more_subscription_ids) {
            (Some(first), Some(more)) => {
                ids.clear();
                ids.push(first);
                ids.extend_from_slice(more);
                SubscriptionIds::from_slice(ids)
            }
            (Some(first), None) => SubscriptionIds::one(first),
            (None, _) => SubscriptionIds::default(),
        };
        then(&Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            // Only topics of decoded packets are ever delivered.
            topic: if self.alias_only {
                None
            } else {
                Some(TopicName::assume_valid(self.message.topic()))
            },
            packet_id: self.packet_id,
            properties: PublishProperties {
                message_expiry_interval: self.message_expiry_interval(),
                topic_alias: self.topic_alias,
                subscription_ids,
                application: self.message.properties(),
            },
            payload: self.message.payload(),
        })
    }

    /// The Message Expiry Interval that is left, in seconds.
    #[must_use]
    pub fn message_expiry_interval(&self) -> Option<u32> {
        self.expiry.map(|plus_one| plus_one.get() - 1)
    }

    /// Sets the Message Expiry Interval that is left, in seconds.
    pub(crate) fn set_message_expiry_interval(&mut self, seconds: Option<u32>) {
        self.expiry = seconds.map(|s| NonZeroU32::MIN.saturating_add(s));
    }
}

/// What a CONNACK says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAckData {
    /// The protocol version to answer in.
    pub version: ProtocolVersion,
    /// Whether there was Session State [MQTT-3.2.2-2, -3].
    pub session_present: bool,
    /// Success, or why not.
    pub reason_code: ReasonCode,
    /// Session Expiry Interval, when it is not what the client asked for.
    pub session_expiry_interval: Option<u32>,
    /// Receive Maximum.
    pub receive_maximum: Option<u16>,
    /// Maximum QoS, when it is below 2.
    pub maximum_qos: Option<QoS>,
    /// Retain Available, when it is not.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size.
    pub maximum_packet_size: Option<u32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<String>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: Option<u16>,
    /// Server Keep Alive, when it is not what the client asked for.
    pub server_keep_alive: Option<u16>,
    /// Authentication Method, if CONNECT had one.
    pub authentication_method: Option<String>,
    /// Authentication Data: what the method says last.
    pub authentication_data: Option<Vec<u8>>,
}

/// What an AUTH says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthData {
    /// 0x18 while the exchange goes on, 0x00 at the end of a re-authentication.
    pub reason_code: ReasonCode,
    /// Authentication Method.
    pub method: String,
    /// Authentication Data.
    pub data: Option<Vec<u8>>,
}

impl ConnAckData {
    /// The packet to encode.
    #[must_use]
    pub fn packet(&self) -> ConnAck<'_> {
        ConnAck {
            session_present: self.session_present,
            reason_code: self.reason_code,
            properties: ConnAckProperties {
                session_expiry_interval: self.session_expiry_interval,
                receive_maximum: self.receive_maximum.and_then(NonZeroU16::new),
                maximum_qos: self.maximum_qos,
                retain_available: self.retain_available,
                maximum_packet_size: self.maximum_packet_size.and_then(NonZeroU32::new),
                assigned_client_id: self.assigned_client_id.as_deref(),
                topic_alias_maximum: self.topic_alias_maximum,
                server_keep_alive: self.server_keep_alive,
                authentication_method: self.authentication_method.as_deref(),
                authentication_data: self.authentication_data.as_deref(),
                ..ConnAckProperties::default()
            },
        }
    }
}

/// A connection moves to its home shard, with its socket and what was read of it beyond CONNECT.
#[derive(Debug)]
pub struct Move {
    /// Its name here, which is void from now on.
    pub connection: ConnectionId,
    /// Where it goes.
    pub to: ShardId,
    /// What to give that shard's engine in [`crate::Input::Adopted`].
    pub handover: Box<Handover>,
}

/// A login to be checked; the answer is [`crate::Input::Authenticated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// Who waits.
    pub connection: ConnectionId,
    /// Where it came in.
    pub listener: ListenerId,
    /// Client Identifier.
    pub client_id: String,
    /// The protocol version it speaks.
    pub version: ProtocolVersion,
    /// What it shows for itself.
    pub credentials: Credentials,
}

/// What a client shows to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// User Name and Password of its CONNECT.
    Password {
        /// User Name.
        username: Option<String>,
        /// Password.
        password: Option<Vec<u8>>,
    },
    /// A step of enhanced authentication (section 4.12).
    Exchange {
        /// Authentication Method, one of [`crate::EngineConfig::authentication_methods`].
        method: String,
        /// What the authenticator noted at the step before; `None` at the first one.
        memo: Option<Vec<u8>>,
        /// Authentication Data.
        data: Option<Vec<u8>>,
    },
}

/// A change of whether a connection is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Read no more, for a cause that clears without this client.
    Pause(ConnectionId),
    /// Read and decode on, beginning with what is already there.
    Resume(ConnectionId),
    /// The same, for a client that has not been let in: its AUTH is awaited, and not for longer than a CONNECT is.
    Auth(ConnectionId),
}

/// An answer to a [`crate::Query`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// This shard's counters.
    Stats(Box<Stats>),
}

/// A connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Which.
    pub connection: ConnectionId,
    /// Flush what is transmitted and let the peer read it before the socket goes; else at once, for a peer that does
    /// not read.
    pub flush: bool,
}
