//! What the engine is told.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::{boxed::Box, rc::Rc, string::String, sync::Arc, vec::Vec};
use core::time::Duration;

use sol_codec::{DecodeError, Packet, ProtocolVersion, QoS, ReasonCode};

use crate::config::EngineConfig;
use crate::enhanced::Enhanced;
use crate::ids::{ConnectionId, ListenerId, ShardId};
use crate::memory::WILL_BYTES;
use crate::message::Message;
use crate::rights::rules::Rules;
use crate::shard_message::ShardMessage;
use crate::tallies::{NamedUser, TALLIES_MAX, Tally};
use crate::time::UnixMillis;

/// One thing that happened. See [`crate::Engine::handle`].
#[derive(Debug)]
pub enum Input<'a> {
    /// A Network Connection was accepted. Its first packet must be CONNECT.
    Opened {
        /// Its name, until [`Input::Closed`] or a [`crate::Close`] of it.
        connection: ConnectionId,
        /// Where it came in.
        listener: ListenerId,
    },
    /// The transport knows who the client of a connection is that was opened and has not sent CONNECT: its certificate says
    /// so. That is its User Name then, and it is not asked for anything else.
    Identified(ConnectionId, String),
    /// A connection that another shard accepted and moved here ([`crate::Effects::moves`]).
    Adopted(ConnectionId, Box<Handover>),
    /// A whole packet arrived.
    Packet(ConnectionId, &'a Packet<'a>),
    /// Bytes arrived that are no packet. The connection ends.
    Malformed(ConnectionId, DecodeError),
    /// The kernel did not take all bytes of a connection; this many wait. May be told again as they change.
    Congested(ConnectionId, u32),
    /// A congested connection's bytes have all left.
    Drained(ConnectionId),
    /// A client sends faster than it may: it is not read for so long, and no longer than
    /// [`EngineConfig::pause_time_max`]. `Flow::Go`: there is no such client, or it is not read already.
    Hurried(ConnectionId, Duration),
    /// Everything transmitted so far has left, but for the connections that are congested. Once a turn.
    Flushed,
    /// The peer is gone, or took too long. Not told of connections that the engine closed.
    Closed(ConnectionId),
    /// Handling what this connection sent has failed by a mistake of ours: it ends.
    Fault(ConnectionId),
    /// The answer to an [`crate::AuthRequest`].
    Authenticated(ConnectionId, AuthOutcome),
    /// A message of another shard.
    Shard {
        /// Who sent it.
        from: ShardId,
        /// What it says.
        message: ShardMessage,
    },
    /// Another shard's mailbox filled above its mark, or fell below it.
    Peer {
        /// Whose mailbox.
        shard: ShardId,
        /// Whether it is above the mark.
        full: bool,
    },
    /// All records up to and with this ticket are on stable storage.
    Durable(Ticket),
    /// The records of this ticket are, though those of an earlier one still wait for another shard.
    DurableAlone(Ticket),
    /// Whether so much waits for the journal that those who add to it have to wait too.
    JournalBusy(bool),
    /// Whether the journal has no room: what is new and would be written is refused where that can be said, or waits. All else
    /// goes on.
    JournalFull(bool),
    /// How scarce memory is outside of what the engine charges itself.
    Pressure(Level),
    /// What counts against a limit of the whole broker beside what this engine has: other shards hold it, or the transport
    /// does.
    Elsewhere(Elsewhere),
    /// A message of the broker's own: `$SYS`, a bridge, the admin plane.
    Publish(Box<Message>),
    /// A question of the admin plane; the answer comes in [`crate::Effects::answers`].
    Ask(Query),
    /// New limits are in force. The number of shards must not change.
    Reload(Rc<EngineConfig>),
    /// These users are others than before: connections end whose login may be wrong now, and nobody keeps a Session from
    /// others whose user is gone, unless he is back.
    Users(&'a [ChangedUser]),
    /// What an authenticator granted at these listeners may be another now: connections end that came in by a [`Grant`].
    GrantsEnd(&'a [ListenerId]),
    /// The broker stops: every client is told and closed, Wills of Sessions without a clean DISCONNECT are published.
    Shutdown,
}

/// Whether to decode on after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Go on.
    Go,
    /// Decode no more of this connection until [`crate::Read::Resume`] or its end.
    Stop,
}

/// The number of a [`crate::Commit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How scarce a resource is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plenty.
    #[default]
    Normal,
    /// Nothing more may be kept: 5.0 publishers get 0x97, 3.1.1 publishers wait.
    Full,
}

/// What others hold of something that [`EngineConfig`] limits for the whole broker. Holds until it is told anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Connections, of [`EngineConfig::connections_max`]. Told before each input that [`crate::Engine::may_let_in`] names.
    Connections(usize),
    /// Connections of one listener, of [`crate::ListenerTerms::connections_max`]. Told before each input for which
    /// [`crate::Engine::limited_listener`] names that listener.
    ConnectionsOf(ListenerId, usize),
    /// What is counted by name. Told before each input for which [`crate::Engine::limited_tallies`] names some, of these.
    Tallies([Option<(Tally, usize)>; TALLIES_MAX]),
    /// Bytes, of [`EngineConfig::memory_bytes_max`].
    Memory(usize),
}

/// The authenticator's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// Let in, as whoever CONNECT named: the answer to a password, not to an exchange.
    Accepted,
    /// Let in, with more said than that: the answer to a password, not to an exchange.
    Granted(Box<Grant>),
    /// Let in, as the user that an exchange has proven the client to be.
    Proven {
        /// Who it is. A client that was known by another User Name before is refused.
        username: String,
        /// What the method says last, for the CONNACK or the AUTH that ends the exchange.
        data: Option<Vec<u8>>,
    },
    /// The exchange needs another step: the client is sent AUTH 0x18.
    Continue {
        /// What the method says to the client.
        data: Vec<u8>,
        /// What the authenticator wants to find in [`crate::Credentials::Exchange`] at the next step. The engine keeps
        /// it for as long as the connection is there, and does not read it.
        memo: Vec<u8>,
    },
    /// Refused, with the Reason Code of the CONNACK, or of the DISCONNECT that ends a client's later attempt (0x86 Bad
    /// User Name or Password, 0x89 Server busy, …).
    Refused(ReasonCode),
}

/// What an authenticator says of a client whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who the client is, whatever User Name CONNECT gave; `None`: who CONNECT says. A client that is nobody has no
    /// rules of its own, and is refused with some.
    pub username: Option<String>,
    /// What this client alone may read and write, in place of the rules of its listener. Its own are those for clients
    /// without a User Name.
    pub rules: Option<Arc<Rules>>,
    /// When the connection ends, by the wall clock.
    pub expires_at: UnixMillis,
}

/// A question of the admin plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// This shard's counters.
    Stats,
}

/// A user of whom the authenticator knows something else than before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangedUser {
    /// The User Name.
    pub username: Box<str>,
    /// What it is.
    pub change: UserChange,
}

/// What has become of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserChange {
    /// There was none of this name, or he was gone and is back: what was his is his again.
    Added,
    /// The login that was right may be wrong now: connections that it let in end.
    Changed,
    /// There is no such user any more: connections that he was let in by end, and nobody owns his Sessions.
    Gone,
}

/// A CONNECT that has been read and authenticated, on its way to its home shard.
#[derive(Clone, Debug)]
pub struct Handover {
    pub(crate) listener: ListenerId,
    pub(crate) connect: OwnedConnect,
}

impl Handover {
    /// The protocol version that the connection's bytes are decoded by from now on.
    #[must_use]
    pub const fn version(&self) -> ProtocolVersion {
        self.connect.version
    }

    /// The listener it came in through.
    #[must_use]
    pub const fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Roughly the bytes it takes on its way, for the byte credits.
    #[must_use]
    pub fn charge(&self) -> usize {
        size_of::<Self>().saturating_add(self.connect.owned_bytes())
    }
}

/// What a CONNECT asked for, kept while it waits for an authenticator or moves.
#[derive(Clone, Debug)]
pub(crate) struct OwnedConnect {
    pub(crate) version: ProtocolVersion,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive: u16,
    pub(crate) client_id: String,
    /// The server chose the Client Identifier and says so in CONNACK.
    pub(crate) assigned: bool,
    pub(crate) username: Option<String>,
    /// An authenticator has confirmed the User Name.
    pub(crate) vouched: bool,
    /// It was a grant that confirmed it.
    pub(crate) granted: bool,
    /// What it alone may read and write.
    pub(crate) rules: Option<Arc<Rules>>,
    /// When its login is over.
    pub(crate) expires_at: UnixMillis,
    /// How often logins had been revoked when the authenticator was asked.
    pub(crate) revocations: u64,
    pub(crate) will: Option<Box<OwnedWill>>,
    pub(crate) session_expiry_interval: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    /// Its Authentication Method, if it named one.
    pub(crate) enhanced: Option<Box<Enhanced>>,
    /// What that method said last.
    pub(crate) authentication_data: Option<Vec<u8>>,
}

impl OwnedConnect {
    /// Whether the client has the next word in its authentication.
    pub(crate) fn expects_auth(&self) -> bool {
        self.enhanced.as_ref().is_some_and(|enhanced| enhanced.expects_auth())
    }

    /// As whose user the client comes.
    pub(crate) fn named_user(&self) -> Option<NamedUser<'_>> {
        let vouched = self.vouched;
        self.username.as_deref().map(|name| NamedUser { name, vouched })
    }

    /// Bytes of all that it owns.
    fn owned_bytes(&self) -> usize {
        let enhanced = |enhanced: &Enhanced| enhanced.method.len().saturating_add(enhanced.noted_bytes());
        [
            self.client_id.len(),
            self.username.as_ref().map_or(0, String::len),
            self.rules.as_ref().map_or(0, |rules| rules.bytes()),
            self.will.as_deref().map_or(0, OwnedWill::charge),
            self.enhanced.as_deref().map_or(0, enhanced),
            self.authentication_data.as_ref().map_or(0, Vec::len),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

/// A Will Message as it waits in its Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedWill {
    /// Will Topic.
    pub topic: String,
    /// Properties of the message, as [`sol_codec::ApplicationProperties`] writes them.
    pub properties: Vec<u8>,
    /// Will Payload.
    pub payload: Vec<u8>,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay: u32,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
}

impl OwnedWill {
    /// Bytes that it is charged for.
    pub(crate) const fn charge(&self) -> usize {
        WILL_BYTES
            .saturating_add(self.topic.len())
            .saturating_add(self.properties.len())
            .saturating_add(self.payload.len())
    }
}
