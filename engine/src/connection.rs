//! One Network Connection as the engine sees it, and the table of them.
//!
//! ```text
//! ExpectConnect ──CONNECT──► ExpectAuthentication ──► ExpectDurable ──► Active ──► gone
//!        └───────────────────────────┴─ nobody to ask, nothing to write ──┘
//! ```

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    string::String,
    vec::Vec,
};

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, ProtocolVersion, QoS, TopicAlias};

use crate::effects::ConnAckData;
use crate::ids::{ConnectionId, ListenerId, SessionKey};
use crate::input::OwnedConnect;
use crate::last_route::LastRoute;
use crate::memory::Memory;
use crate::message::Message;
use crate::time::Instant;
use crate::timer_wheel::TimerKey;

/// What a connection expects.
#[derive(Debug)]
pub(crate) enum State {
    /// Nobody has this slot.
    Free,
    /// The first packet.
    ExpectConnect,
    /// The same, of a client with this User Name: the transport knows it.
    #[expect(clippy::box_collection, reason = "every idle connection pays for the largest state")]
    ExpectNamed(Box<String>),
    /// The authenticator's answer; or, between the steps of enhanced authentication, the client's AUTH.
    ExpectAuthentication(Box<OwnedConnect>),
    /// Its Session's record on stable storage; CONNACK leaves then.
    ExpectDurable(SessionKey, Box<ConnAckData>),
    /// Packets of a client whose Session is this one.
    Active(SessionKey, Terms),
}

/// What a CONNACK allowed its client, which holds for as long as the connection does, whatever a reload changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) receive_maximum: u16,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) maximum_qos: QoS,
    pub(crate) retain_available: bool,
    /// The client asked for a longer Session Expiry Interval than it was given: if that is 0, it did not ask for 0.
    pub(crate) expiry_was_cut: bool,
}

impl Terms {
    pub(crate) fn of(connack: &ConnAckData) -> Self {
        Self {
            receive_maximum: connack.receive_maximum.unwrap_or(u16::MAX),
            topic_alias_maximum: connack.topic_alias_maximum.unwrap_or(0),
            maximum_qos: connack.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: connack.retain_available.unwrap_or(true),
            expiry_was_cut: connack.session_expiry_interval.is_some(),
        }
    }
}

/// What is seldom true of a connection, a bit each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks(u8);

impl Marks {
    /// A congested peer took some since its patience was last counted.
    pub(crate) const DRAINING: u8 = 1;
    /// The connection ends once the present input is done.
    pub(crate) const DOOMED: u8 = 2;
    /// Its Session's queue or replay goes on in a later tick, and is in the list for it.
    pub(crate) const GOES_ON: u8 = 4;
    /// Its listener has a mount point.
    pub(crate) const MOUNTED: u8 = 8;

    pub(crate) const fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    /// Sets a mark, and returns whether it was set already.
    pub(crate) const fn set(&mut self, mark: u8) -> bool {
        let had = self.has(mark);
        self.0 |= mark;
        had
    }

    /// Clears a mark, and returns whether it was set.
    pub(crate) const fn take(&mut self, mark: u8) -> bool {
        let had = self.has(mark);
        self.0 &= !mark;
        had
    }
}

/// One Network Connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: Option<ConnectionId>,
    pub(crate) state: State,
    pub(crate) listener: ListenerId,
    pub(crate) version: ProtocolVersion,
    /// The kernel did not take everything.
    pub(crate) congested: bool,
    pub(crate) marks: Marks,
    /// Reading is paused for a cause of ours, which is a [`crate::fanout::Hold`].
    pub(crate) paused: bool,
    /// Keep Alive in force, in seconds.
    pub(crate) keep_alive: u16,
    /// The lower of the client's Receive Maximum and our own limit.
    pub(crate) quota: u16,
    /// The client's Maximum Packet Size; `u32::MAX` without one.
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    /// Bytes transmitted and not yet flushed.
    pub(crate) unsent: u32,
    /// The flush before which `unsent` was counted.
    epoch: u32,
    pub(crate) last_heard: Instant,
    pub(crate) timer: Option<TimerKey>,
    pub(crate) congested_timer: Option<TimerKey>,
    pub(crate) aliases: Option<Box<Aliases>>,
    pub(crate) parked: Option<Box<Parked>>,
    /// Where its latest PUBLISH went.
    pub(crate) last_route: Option<Box<LastRoute>>,
}

// The table of these is the largest part of an idle connection.
const _: () = assert!(size_of::<Connection>() <= 96);

/// The Topic Aliases of both directions, on a connection that uses any.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    incoming: Vec<Option<Box<str>>>,
    outgoing: BTreeMap<Box<[u8]>, TopicAlias>,
    /// Bytes of both, which are charged.
    pub(crate) bytes: usize,
}

/// Bytes charged for a Topic Alias beyond its topic.
const ALIAS_BYTES: usize = 32;

/// Publishes that wait unacknowledged for memory, or for room in the journal.
#[derive(Debug)]
pub(crate) struct Parked {
    /// Its place among those that wait.
    pub(crate) n: u64,
    /// When our patience ends.
    pub(crate) timer: TimerKey,
    pub(crate) waiting: VecDeque<(Rc<Message>, Option<PacketId>)>,
    pub(crate) bytes: usize,
    /// What it waits for is room in the journal, and not memory.
    pub(crate) for_journal: bool,
}

impl Connection {
    const fn new() -> Self {
        Self {
            id: None,
            state: State::Free,
            listener: ListenerId(0),
            version: ProtocolVersion::V311,
            congested: false,
            marks: Marks(0),
            paused: false,
            keep_alive: 0,
            quota: 0,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: 0,
            unsent: 0,
            epoch: 0,
            last_heard: Instant::from_nanos(0),
            timer: None,
            congested_timer: None,
            aliases: None,
            parked: None,
            last_route: None,
        }
    }

    /// Counts bytes as unsent; whatever an earlier flush took is forgotten first. Returns the sum.
    #[inline]
    pub(crate) const fn add_unsent(&mut self, bytes: u32, epoch: u32) -> u32 {
        if !self.congested && self.epoch != epoch {
            self.unsent = 0;
        }
        self.epoch = epoch;
        self.unsent = self.unsent.saturating_add(bytes);
        self.unsent
    }

    /// Bytes that wait to be sent, as far as is known.
    pub(crate) const fn unsent(&self, epoch: u32) -> u32 {
        if self.congested || self.epoch == epoch {
            self.unsent
        } else {
            0
        }
    }

    /// Whether so much is unsent that nothing new should follow.
    #[inline]
    pub(crate) const fn is_clogged(&self, high: u32) -> bool {
        self.congested && self.unsent > high
    }

    pub(crate) const fn session(&self) -> Option<SessionKey> {
        match self.state {
            State::Active(key, _) | State::ExpectDurable(key, _) => Some(key),
            _ => None,
        }
    }

    /// The topic that a client's Topic Alias stands for.
    pub(crate) fn alias_in(&self, alias: TopicAlias) -> Option<&str> {
        let aliases = self.aliases.as_ref()?;
        aliases.incoming.get(usize::from(alias.get()))?.as_deref()
    }

    /// Lets a client's Topic Alias stand for a topic from now on; the alias is within the announced maximum.
    pub(crate) fn set_alias_in(&mut self, alias: TopicAlias, topic: &str, memory: &mut Memory) {
        let at = usize::from(alias.get());
        let aliases = &mut **self.aliases.get_or_insert_default();
        let incoming = &mut aliases.incoming;
        if incoming.len() <= at {
            incoming.resize(at.saturating_add(1), None);
        }
        if let Some(slot) = incoming.get_mut(at)
            && slot.as_deref() != Some(topic)
        {
            let old = slot.replace(Box::from(topic));
            aliases.charge(alias_charge(topic), memory);
            aliases.refund(old.as_deref().map_or(0, alias_charge), memory);
        }
    }

    /// The Topic Alias for a topic towards the client, and whether the client knows it already. The first topics get
    /// one, as long as there is memory; they keep it as long as the connection lasts [MQTT-3.3.2-7].
    pub(crate) fn alias_out(&mut self, topic: &str, memory: &mut Memory) -> (Option<TopicAlias>, bool) {
        if self.topic_alias_maximum == 0 {
            return (None, false);
        }
        let aliases = &mut **self.aliases.get_or_insert_default();
        let outgoing = &mut aliases.outgoing;
        if let Some(&alias) = outgoing.get(topic.as_bytes()) {
            return (Some(alias), true);
        }
        let all_given = outgoing.len() >= usize::from(self.topic_alias_maximum) && !mutant("5.0/3.3.2-11");
        if all_given || memory.is_full() {
            return (None, false);
        }
        let alias = TopicAlias::new((outgoing.len() as u16).saturating_add(1));
        if let Some(alias) = alias {
            outgoing.insert(topic.as_bytes().into(), alias);
            aliases.charge(alias_charge(topic), memory);
        }
        (alias, false)
    }

    /// Takes back the Topic Alias given out last: the packet with it was not sent.
    pub(crate) fn forget_alias_out(&mut self, topic: &str, memory: &mut Memory) {
        if let Some(aliases) = &mut self.aliases
            && aliases.outgoing.remove(topic.as_bytes()).is_some()
        {
            aliases.refund(alias_charge(topic), memory);
        }
    }
}

impl Aliases {
    fn charge(&mut self, bytes: usize, memory: &mut Memory) {
        self.bytes = self.bytes.saturating_add(bytes);
        memory.charge(bytes);
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "what goes was counted when it came; if not, we counted wrong, which the overflow check finds"
    )]
    fn refund(&mut self, bytes: usize, memory: &mut Memory) {
        self.bytes -= bytes;
        memory.refund(bytes);
    }
}

const fn alias_charge(topic: &str) -> usize {
    ALIAS_BYTES.saturating_add(topic.len())
}

/// The connections of a shard, in the transport's slots.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Connection>,
}

impl Connections {
    /// Gives the slot to a new tenant.
    pub(crate) fn open(&mut self, id: ConnectionId, listener: ListenerId, now: Instant) -> &mut Connection {
        let at = id.slot();
        if self.slots.len() <= at {
            // By a quarter and not by doubling: the table is the largest part of an idle connection.
            let needed = at.saturating_add(1);
            let more = needed.saturating_sub(self.slots.len()).max(self.slots.len() / 4);
            self.slots.reserve_exact(more);
            self.slots.resize_with(needed, Connection::new);
        }
        #[expect(clippy::indexing_slicing, reason = "a slot at `at` was just made sure of")]
        let connection = &mut self.slots[at];
        *connection = Connection::new();
        connection.id = Some(id);
        connection.listener = listener;
        connection.state = State::ExpectConnect;
        connection.last_heard = now;
        connection
    }

    #[inline]
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.slot()).filter(|connection| connection.id == Some(id))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots
            .get_mut(id.slot())
            .filter(|connection| connection.id == Some(id))
    }

    /// Whether a connection's CONNACK has left: only then may anything else [MQTT-3.2.0-1].
    pub(crate) fn is_active(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| matches!(connection.state, State::Active(..)))
    }

    /// Takes the slot back and returns what its tenant was.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.get_mut(id)?;
        Some(core::mem::replace(connection, Connection::new()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.slots
            .iter()
            .filter_map(|connection| Some((connection.id?, connection)))
    }
}

/// What a CONNECT asked for, beside the Session, as the connection keeps it.
impl Connection {
    pub(crate) fn agree(&mut self, connect: &OwnedConnect, keep_alive: u16, quota: u16, alias_out_max: u16) {
        self.version = connect.version;
        self.keep_alive = keep_alive;
        self.quota = quota;
        self.maximum_packet_size = connect.maximum_packet_size;
        self.topic_alias_maximum = connect.topic_alias_maximum.min(alias_out_max);
    }
}

/// The Client Identifier of whoever is in a state before its Session, for the log.
pub(crate) fn name_before_session(state: &State) -> String {
    match state {
        State::ExpectAuthentication(connect) => connect.client_id.clone(),
        _ => String::new(),
    }
}
