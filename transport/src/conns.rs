//! The table of connections: what a shard keeps for each of them beside what the engine and the backend keep.

use sol_codec::ProtocolVersion;
use sol_engine::{ConnectionId, Instant, ListenerId};

use crate::backend::Output;
use crate::filter::Filter;
use crate::observer::Source;
use crate::peer::PeerAddr;

/// How far a connection has come.
///
/// ```text
///   ExpectHandshake
///       │ TLS and WebSocket are agreed on
///       ▼      CONNECT            let in
/// ExpectConnect ─────► ExpectLogin ─────► Open ─┐
///       │                 │     ▲               │
///       │       challenge ▼     │ AUTH          │
///       │                ExpectAuth             ▼
///       └───────────────────┴────────────► Closing ──► (gone)
///
/// A request for a file leads from ExpectHandshake by Serving to Closing.
/// A connection that moves away leaves the table from ExpectLogin; one that moves here begins as Open.
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The engine does not know it yet: its filter has to agree with its peer, soon.
    ExpectHandshake,
    /// The engine never hears of it: it is sent a file, which it must take soon. What it sends is discarded.
    Serving,
    /// Nothing but CONNECT may come, and it must come soon.
    ExpectConnect,
    /// CONNECT has come, and the engine has not let it in yet: somebody is asked, or it moves.
    ExpectLogin,
    /// The same, and meanwhile the time for all of its CONNECT exchange has run out.
    ExpectLateLogin,
    /// The engine awaits its AUTH, which must come soon too.
    ExpectAuth,
    /// The engine takes its packets.
    Open,
    /// The engine has forgotten it. What was sent to it may still have to leave; what it sends is discarded.
    Closing,
}

/// One connection. An idle one owns no buffer.
#[derive(Debug)]
pub(crate) struct Conn {
    id: ConnectionId,
    peer: PeerAddr,
    listener: ListenerId,
    pub(crate) phase: Phase,
    /// What its bytes are; before CONNECT any will do.
    pub(crate) version: ProtocolVersion,
    /// The engine wants no packet of it, until it says so.
    pub(crate) stopped: bool,
    /// We want no packet of it, until output has left.
    pub(crate) held: bool,
    /// The peer sends no more, or it failed; the engine was told.
    pub(crate) ended: bool,
    /// In the list of those with something to send.
    pub(crate) dirty: bool,
    /// The kernel takes no more of it for now, and the engine was told.
    pub(crate) congested: bool,
    /// Among those that are looked at for a packet that does not arrive whole.
    pub(crate) watched: bool,
    /// While closing: bytes of it that were discarded.
    pub(crate) discarded: u32,
    /// What lies between its socket and its MQTT, if anything does.
    pub(crate) filter: Option<Box<Filter>>,
    /// An idle connection pays for a pointer only.
    kept: Option<Box<Kept>>,
    /// Bytes not sent yet.
    pub(crate) output: Option<Box<Output>>,
}

/// Bytes received and not decoded: a part of a packet, or what came while the connection was stopped.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    since: Instant,
}

impl Conn {
    pub(crate) const fn new(id: ConnectionId, source: Source, phase: Phase, version: ProtocolVersion) -> Self {
        Self {
            id,
            peer: source.peer,
            listener: source.listener,
            phase,
            version,
            stopped: false,
            held: false,
            ended: false,
            dirty: false,
            congested: false,
            watched: false,
            discarded: 0,
            filter: None,
            kept: None,
            output: None,
        }
    }

    pub(crate) const fn id(&self) -> ConnectionId {
        self.id
    }

    pub(crate) const fn source(&self) -> Source {
        Source {
            peer: self.peer,
            listener: self.listener,
        }
    }

    /// Its other end is not the proxy that brought it, but there.
    pub(crate) const fn set_peer(&mut self, peer: PeerAddr) {
        self.peer = peer;
    }

    /// Whether the proxy that brought it has not said yet for whom.
    pub(crate) fn owes_introduction(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.owes_introduction())
    }

    /// Whether bytes of it are kept.
    pub(crate) const fn has_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// What is kept of it, what it was filtered by, and what has not left yet, for whoever takes the connection over.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Option<Box<Filter>>, Option<Box<Output>>) {
        let kept = self.kept.map(|kept| kept.bytes).unwrap_or_default();
        (kept, self.filter, self.output)
    }

    /// How long something has been kept of it.
    pub(crate) fn kept_since(&self) -> Option<Instant> {
        self.kept.as_ref().map(|kept| kept.since)
    }

    /// Since when a part of something has been held that is not whole: a packet, or what it travels in.
    pub(crate) fn partial_since(&self) -> Option<Instant> {
        let filter = self.filter.as_ref().and_then(|filter| filter.partial_since());
        match (self.kept_since(), filter) {
            (Some(kept), Some(filter)) => Some(kept.min(filter)),
            (kept, filter) => kept.or(filter),
        }
    }

    /// Bytes that its filter was counted to hold.
    fn filter_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.charged)
    }

    /// Bytes of a piece of a file that it was counted to hold.
    pub(crate) fn piece_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.piece)
    }

    fn unauthenticated_bytes(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        kept.saturating_add(self.filter_bytes())
            .saturating_add(self.piece_bytes())
    }

    /// Memory that what is kept takes.
    pub(crate) fn kept_capacity(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.bytes.capacity());
        kept.saturating_add(self.filter_bytes())
    }

    /// Bytes that have not left.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.unsent().len())
    }

    /// Bytes that the kernel does not take for now.
    pub(crate) fn blocked_bytes(&self) -> usize {
        match &self.output {
            Some(output) if self.congested => output.unsent().len(),
            _ => 0,
        }
    }

    /// Whether it has not been let in.
    pub(crate) const fn is_unauthenticated(&self) -> bool {
        matches!(
            self.phase,
            Phase::ExpectHandshake
                | Phase::Serving
                | Phase::ExpectConnect
                | Phase::ExpectLogin
                | Phase::ExpectLateLogin
                | Phase::ExpectAuth
        )
    }

    /// Whether somebody is asked about it, or it moves.
    pub(crate) const fn expects_login(&self) -> bool {
        matches!(self.phase, Phase::ExpectLogin | Phase::ExpectLateLogin)
    }

    /// Whether it is the peer's turn to say who it is.
    pub(crate) const fn owes_login(&self) -> bool {
        matches!(
            self.phase,
            Phase::ExpectHandshake | Phase::ExpectConnect | Phase::ExpectAuth
        )
    }

    /// Whether it is sent a file.
    pub(crate) fn is_served(&self) -> bool {
        self.phase == Phase::Serving && !self.ended
    }

    /// Whether the engine knows it.
    pub(crate) const fn is_engines(&self) -> bool {
        !matches!(self.phase, Phase::ExpectHandshake | Phase::Serving | Phase::Closing)
    }
}

/// See the module. Slots are the backend's, so that no lookup needs a hash.
#[derive(Debug, Default)]
pub(crate) struct Conns {
    slots: Vec<Option<Conn>>,
    len: usize,
    /// Connections that have not been let in, and the bytes kept for them.
    pub(crate) unauthenticated: usize,
    pub(crate) unauthenticated_bytes: usize,
    /// Those of them that are pieces of files which their readers do not take.
    pub(crate) blocked_piece_bytes: usize,
    /// Memory that is taken by what is kept, for all.
    pub(crate) kept_bytes: usize,
}

impl Conns {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, conn: Conn) {
        let slot = conn.id.slot();
        if slot >= self.slots.len() {
            if slot >= self.slots.capacity() {
                // By a quarter, not by half: with a million connections the slack is what an operator sees.
                self.slots.reserve_exact(slot + 1 - self.slots.len() + slot / 4 + 64);
            }
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            self.len += 1;
            self.kept_bytes += conn.kept_capacity();
            if conn.is_unauthenticated() {
                self.unauthenticated += 1;
            }
            *place = Some(conn);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.slots.iter().flatten()
    }

    /// Those that the engine does not know.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = ConnectionId> {
        let is_unknown = |conn: &&Conn| matches!(conn.phase, Phase::ExpectHandshake | Phase::Serving);
        self.iter().filter(is_unknown).map(Conn::id)
    }

    #[inline]
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Conn> {
        self.slots.get(id.slot())?.as_ref().filter(|conn| conn.id == id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Conn> {
        self.slots.get_mut(id.slot())?.as_mut().filter(|conn| conn.id == id)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Conn> {
        self.get(id)?;
        let conn = self.slots.get_mut(id.slot())?.take()?;
        self.len -= 1;
        self.kept_bytes -= conn.kept_capacity();
        if conn.is_unauthenticated() {
            self.unauthenticated -= 1;
            self.unauthenticated_bytes -= conn.unauthenticated_bytes();
            self.blocked_piece_bytes -= conn.piece_bytes();
        }
        Some(conn)
    }

    /// Moves a connection on, and keeps count of those that have not been let in.
    pub(crate) fn set_phase(&mut self, id: ConnectionId, phase: Phase) {
        self.charge_piece(id, 0);
        let Some(conn) = self.get_mut(id) else { return };
        let was_unauthenticated = conn.is_unauthenticated();
        conn.phase = phase;
        let kept = conn.unauthenticated_bytes();
        if was_unauthenticated && !conn.is_unauthenticated() {
            self.unauthenticated -= 1;
            self.unauthenticated_bytes -= kept;
        }
    }

    /// Counts what a connection's filter holds now. `true`: it is another number than before.
    pub(crate) fn charge_filter(&mut self, id: ConnectionId) -> bool {
        let Some(conn) = self.get_mut(id) else { return false };
        let is_unauthenticated = conn.is_unauthenticated();
        let Some(filter) = &mut conn.filter else { return false };
        let held = filter.held_bytes();
        let before = core::mem::replace(&mut filter.charged, held);
        self.kept_bytes = self.kept_bytes + held - before;
        if is_unauthenticated {
            self.unauthenticated_bytes = self.unauthenticated_bytes + held - before;
        }
        held != before
    }

    /// Counts what a connection that is sent a file holds of it, of those who have not been let in.
    pub(crate) fn charge_piece(&mut self, id: ConnectionId, held: usize) {
        let Some(filter) = self.get_mut(id).and_then(|conn| conn.filter.as_mut()) else {
            return;
        };
        let before = core::mem::replace(&mut filter.piece, held);
        self.unauthenticated_bytes = self.unauthenticated_bytes + held - before;
        self.blocked_piece_bytes = self.blocked_piece_bytes + held - before;
    }

    /// Takes what is kept of a connection's input.
    pub(crate) fn take_kept(&mut self, id: ConnectionId) -> Vec<u8> {
        let Some(conn) = self.get_mut(id) else {
            return Vec::new();
        };
        let Some(kept) = conn.kept.take() else {
            return Vec::new();
        };
        let is_unauthenticated = conn.is_unauthenticated();
        let Kept { bytes, .. } = *kept;
        self.kept_bytes -= bytes.capacity();
        if is_unauthenticated {
            self.unauthenticated_bytes -= bytes.len();
        }
        bytes
    }

    /// Keeps input of a connection of which nothing is kept now; `since` says how long a part of it has waited.
    pub(crate) fn keep(&mut self, id: ConnectionId, bytes: Vec<u8>, since: Instant) {
        let Some(conn) = self.get_mut(id) else { return };
        let (len, capacity) = (bytes.len(), bytes.capacity());
        if len == 0 {
            return;
        }
        conn.kept = Some(Box::new(Kept { bytes, since }));
        let is_unauthenticated = conn.is_unauthenticated();
        self.kept_bytes += capacity;
        if is_unauthenticated {
            self.unauthenticated_bytes += len;
        }
    }
}

/// Appends to a part of something that has `total` bytes at most. What is announced is not believed: memory doubles as bytes
/// arrive, up to that.
pub(crate) fn append_held(held: &mut Vec<u8>, more: &[u8], total: usize) {
    let needed = held.len().saturating_add(more.len());
    if needed > held.capacity() {
        let target = held.capacity().saturating_mul(2).min(total).max(needed);
        held.reserve_exact(target.saturating_sub(held.len()));
    }
    held.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;

    use super::*;

    fn id(slot: u32, generation: u32) -> ConnectionId {
        ConnectionId::new(slot, NonZeroU32::new(generation).unwrap())
    }

    fn conn(id: ConnectionId) -> Conn {
        let source = Source {
            peer: PeerAddr::UNIX,
            listener: ListenerId(0),
        };
        Conn::new(id, source, Phase::ExpectConnect, ProtocolVersion::V311)
    }

    #[test]
    fn an_idle_connection_is_small() {
        // Every idle client pays for it; the table grows by a quarter, so that the slack is small too.
        assert!(size_of::<Option<Conn>>() <= 64, "{}", size_of::<Option<Conn>>());
        let mut conns = Conns::default();
        for slot in 0..10_000 {
            conns.insert(conn(id(slot, 1)));
        }
        assert!(conns.slots.capacity() <= 12_700, "{}", conns.slots.capacity());
    }

    #[test]
    fn a_large_packet_takes_memory_as_it_arrives_and_not_as_it_announces() {
        let mut held = Vec::new();
        append_held(&mut held, &[0; 10], 1 << 28);
        assert!(held.capacity() < 100);
        for _ in 0..100 {
            append_held(&mut held, &[0; 1_000], 100_010);
            assert!(held.capacity() <= 2 * held.len() + 100);
        }
        assert_eq!((held.len(), held.capacity()), (100_010, 100_010));
    }

    #[test]
    fn a_late_name_finds_nobody() {
        let mut conns = Conns::default();
        conns.insert(conn(id(3, 1)));
        assert!(conns.get(id(3, 2)).is_none());
        assert!(conns.remove(id(3, 2)).is_none());
        assert!(conns.remove(id(3, 1)).is_some());
        assert!(conns.get(id(3, 1)).is_none());
        assert_eq!(conns.len(), 0);
    }

    #[test]
    fn those_who_were_not_let_in_are_counted_with_their_bytes() {
        // Both are capped, so the counts must not drift on any way out.
        let mut conns = Conns::default();
        for slot in 0..3 {
            conns.insert(conn(id(slot, 1)));
            conns.keep(id(slot, 1), vec![0; 10], Instant::default());
        }
        assert_eq!((conns.unauthenticated, conns.unauthenticated_bytes), (3, 30));
        assert_eq!(conns.kept_bytes, 30);
        conns.set_phase(id(0, 1), Phase::ExpectLogin);
        conns.set_phase(id(0, 1), Phase::Open);
        assert_eq!(conns.kept_bytes, 30, "it takes memory whoever it is");
        assert_eq!(conns.take_kept(id(0, 1)).len(), 10);
        assert_eq!(conns.take_kept(id(1, 1)).len(), 10);
        assert_eq!(conns.kept_bytes, 10);
        assert_eq!((conns.unauthenticated, conns.unauthenticated_bytes), (2, 10));
        conns.remove(id(1, 1));
        conns.remove(id(2, 1));
        assert_eq!((conns.unauthenticated, conns.unauthenticated_bytes), (0, 0));
        assert_eq!(conns.kept_bytes, 0);
    }
}
