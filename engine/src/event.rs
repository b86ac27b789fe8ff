//! Facts for log and trace. Strings in them come from clients: escape them.

use alloc::{boxed::Box, string::String};

use sol_codec::{DecodeError, ProtocolVersion, ReasonCode};

use crate::ids::ConnectionId;
use crate::memory::MemoryLevel;
use crate::violation::Violation;

/// Something that an operator may want to read about.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A CONNECT was accepted.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// Client Identifier.
        client_id: Box<str>,
        /// User Name.
        username: Option<Box<str>>,
        /// Protocol version.
        version: ProtocolVersion,
        /// Keep Alive in seconds.
        keep_alive: u16,
        /// A new Session was made, or an old one dropped.
        clean_start: bool,
        /// A Session was resumed.
        session_present: bool,
    },
    /// A CONNECT was refused.
    Refused {
        /// The connection.
        connection: ConnectionId,
        /// Client Identifier.
        client_id: Box<str>,
        /// User Name.
        username: Option<Box<str>>,
        /// Why.
        reason: ReasonCode,
    },
    /// A connection ended.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// Client Identifier; empty before CONNECT.
        client_id: Box<str>,
        /// Why.
        cause: Cause,
    },
    /// A Session had to drop messages; told when it begins, then at doubling counts.
    Dropped {
        /// Client Identifier.
        client_id: String,
        /// Messages dropped for this Session so far.
        count: u64,
    },
    /// A retained message was not kept for want of memory, and its publisher cannot be told; told when it begins, then at
    /// doubling counts.
    NotRetained {
        /// Topic Name.
        topic: Box<str>,
        /// Retained messages not kept by this shard so far.
        count: u64,
    },
    /// This shard finds the memory used up to another level than before.
    Memory(MemoryLevel),
    /// A client tried what it has no right to; told at the first and at doubling counts of its connection.
    NotAuthorized {
        /// The connection; `None` of a Will.
        connection: Option<ConnectionId>,
        /// Client Identifier.
        client_id: Box<str>,
        /// User Name.
        username: Option<Box<str>>,
        /// What it tried.
        attempt: Attempt,
        /// Topic Name or Topic Filter.
        topic: Box<str>,
        /// PUBLISH packets and Topic Filters of this connection so far; 1 of a Will.
        count: u32,
    },
    /// A caller's effect or answer came for something that is gone or never was: a fault of ours, survived.
    Odd(&'static str),
}

/// What a client has no right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// PUBLISH.
    Publish,
    /// SUBSCRIBE.
    Subscribe,
    /// Its Will.
    Will,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client sent DISCONNECT.
    Client(ReasonCode),
    /// The peer closed, or the network failed.
    Lost,
    /// Nothing was heard for one and a half Keep Alives [MQTT-3.1.2-22].
    KeepAlive,
    /// The same Client Identifier connected again [MQTT-3.1.4-3].
    TakenOver,
    /// It failed to authenticate once more [MQTT-4.12.1-2].
    Reauthentication(ReasonCode),
    /// It sent what is no packet.
    Malformed(DecodeError),
    /// It broke the protocol.
    Violation(Violation),
    /// It did not read what was sent to it.
    Slow,
    /// It held more messages under memory pressure than there was room for, or for too long.
    Parked,
    /// What it published waited too long for room in the journal, or was more than may wait for it.
    Unwritten,
    /// It published to where nothing could be taken for too long.
    Paused,
    /// The password of its User Name is not what it was, or there is no such user any more.
    Revoked,
    /// Its login was good until now.
    LoginExpired,
    /// Handling its input failed by a mistake of ours.
    Fault,
    /// The broker stops.
    Shutdown,
}
