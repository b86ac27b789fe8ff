//! What the journal keeps: every durable change as data.
//!
//! A record puts or deletes one item by its identifier, which the engine assigns and never uses again; putting an
//! identifier that exists replaces its item. A body lives while a reference or a retained entry points at it, so nobody
//! deletes it. [`crate::Engine::restore`] takes what is left, in the order of the variants.

mod payload;

use alloc::{boxed::Box, rc::Rc, string::String};

use sol_codec::{PacketId, QoS, SubscriptionId};

use crate::ids::ListenerId;
use crate::input::OwnedWill;
use crate::message::Message;
use crate::rights::authors::Author;
use crate::time::UnixMillis;

pub use payload::{Belongs, Family, PayloadError};

/// An item's identifier: unique in the node, counting up within a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

impl RecordId {
    /// How many of its lower bits count up; those above are the shard's that gave it out.
    pub const COUNT_BITS: u32 = 48;
    /// These bits.
    pub const COUNT: u64 = (1 << Self::COUNT_BITS) - 1;
}

/// One durable change.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A Session without what has records of its own.
    Session(RecordId, Box<SessionRecord>),
    /// A Subscription.
    Subscription(RecordId, Box<SubscriptionRecord>),
    /// A message, stored once however many refer to it.
    Body(RecordId, Rc<Message>),
    /// The retained message of its body's topic.
    Retained {
        /// The entry.
        id: RecordId,
        /// The message.
        body: RecordId,
        /// By whose rights it was published, where that is asked for.
        author: Option<Box<Author>>,
    },
    /// A QoS 1 or 2 message owed to a Session.
    Reference(RecordId, Reference),
    /// A QoS 2 Packet Identifier that a Session has used towards us and not yet released.
    Inbound {
        /// The entry.
        id: RecordId,
        /// Whose.
        session: RecordId,
        /// Which.
        packet_id: PacketId,
    },
    /// An item is gone.
    Delete(RecordId),
}

impl Record {
    /// The item that this record puts or deletes.
    #[must_use]
    pub const fn id(&self) -> RecordId {
        match self {
            Self::Session(id, _)
            | Self::Subscription(id, _)
            | Self::Body(id, _)
            | Self::Reference(id, _)
            | Self::Retained { id, .. }
            | Self::Inbound { id, .. }
            | Self::Delete(id) => *id,
        }
    }
}

/// A Session that outlives its connection, or one that has a Will to be published if the broker dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Client Identifier.
    pub client_id: String,
    /// User Name, for rights.
    pub username: Option<String>,
    /// An authenticator has confirmed that name: the Session is this user's alone.
    pub vouched: bool,
    /// It was a grant that confirmed it.
    pub granted: bool,
    /// It had rules of its own, which end with the process.
    pub own_rules: bool,
    /// The listener that its latest connection came in through, for rights.
    pub listener: ListenerId,
    /// Session Expiry Interval in seconds.
    pub expiry_interval: u32,
    /// When its connection ended; `None` while it is connected.
    pub disconnected_at: Option<UnixMillis>,
    /// Its Will, if it is armed.
    pub will: Option<OwnedWill>,
}

/// A Subscription of a durable Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// Whose.
    pub session: RecordId,
    /// Topic Filter, `$share/…` included.
    pub filter: String,
    /// Subscription options as in SUBSCRIBE, and [`Self::REPLAYS`].
    pub options: u8,
    /// Subscription Identifier.
    pub subscription_id: Option<SubscriptionId>,
}

impl SubscriptionRecord {
    /// Of the options' reserved bits: it is not through with the retained messages that it is due at QoS 1 or 2. After a restart
    /// all of them are sent, beside what it is owed already.
    pub const REPLAYS: u8 = 0x40;
}

/// A message owed to a Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Whose.
    pub session: RecordId,
    /// The message; none once PUBREC came and only PUBREL is owed.
    pub body: Option<RecordId>,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// The Subscription Identifiers to send along.
    pub subscription_ids: Box<[SubscriptionId]>,
    /// The Shared Subscription that it goes back to if this Session ends, `(ShareName, Topic Filter)`.
    pub share: Option<Box<(String, String)>>,
    /// Where the exchange stands.
    pub state: ReferenceState,
}

/// Where the exchange of an owed message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceState {
    /// Not yet sent.
    Queued,
    /// PUBLISH sent, PUBACK or PUBREC awaited.
    Sent(PacketId),
    /// PUBREC received, PUBCOMP awaited.
    Released(PacketId),
}

/// Why a record cannot be restored: the journal and the engine disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// It refers to a Session that was not restored before it.
    UnknownSession(RecordId),
    /// It refers to a body that was not restored before it.
    UnknownBody(RecordId),
    /// Its Topic Filter is not valid.
    InvalidFilter(RecordId),
    /// A deletion among the records that are left.
    Deletion(RecordId),
}
