//! From bytes to packets to the engine.

use std::io;
use std::mem;

use sol_codec::{Decoded, Packet, ProtocolVersion};
use sol_engine::{ConnectionId, Flow, Input, Instant, ListenerId};

use super::Core;
use super::contain::Step;
use super::memory::is_progress;
use crate::backend::{Reading, Sink};
use crate::conns::{Conn, Conns, Phase, append_held};
use crate::filter::{Filter, HANDSHAKE_FIRST_BYTE};
use crate::observer::{Notice, Observer, Source};
use crate::peer::PeerAddr;
use crate::websocket::CONNECT_FIRST_BYTE;

impl<O: Observer> Sink for Core<O> {
    fn is_full(&self) -> bool {
        self.outboxes.is_full() || self.mailbox.has_plenty()
    }

    fn may_accept(&mut self, listener: ListenerId) -> bool {
        let shakes_hands = || {
            let listener = self.config.listeners.get(usize::from(listener.0));
            listener.is_some_and(|listener| listener.tls.is_some())
        };
        // Who comes while the broker stops is turned away at once.
        if self.stops_at.is_some() {
            return true;
        }
        let whole = &self.mailbox.exchange().whole;
        if !whole.doors.may_accept(&self.config.limits, listener, self.now.mono) {
            // It is looked at again and again until then.
            self.counters.accept_waits += u64::from(self.resting.insert(listener));
            return false;
        }
        self.resting.remove(&listener);
        let may = (self.has_time_for_handshakes() || !shakes_hands()) && self.can_make_room();
        self.lacks_room |= !may;
        may
    }

    fn on_accept(&mut self, listener: ListenerId, connection: ConnectionId, peer: PeerAddr) -> bool {
        if self.stops_at.is_some() {
            return false;
        }
        self.counters.accepted += 1;
        let source = Source { peer, listener };
        let config = self.config.listeners.get(usize::from(listener.0));
        let proxy = config.and_then(|config| config.proxy.as_ref());
        if proxy.is_some_and(|proxy| !proxy.trust(peer)) {
            self.counters.proxy_refused += 1;
            self.observer.notice(Notice::NoProxy(source));
            return false;
        }
        let filter = config.and_then(Filter::new);
        // Behind a proxy it is the client's address that counts, which is not known yet.
        if proxy.is_none() && !self.enter(source) {
            return false;
        }
        // Who is turned away takes nobody's place, neither in the rate nor among those who have yet to say who they are.
        let doors = &self.mailbox.exchange().whole.doors;
        doors.accepted(&self.config.limits, listener, self.now.mono);
        self.make_room();
        let phase = if filter.is_some() {
            Phase::ExpectHandshake
        } else {
            Phase::ExpectConnect
        };
        let mut conn = Conn::new(connection, source, phase, ProtocolVersion::V5);
        conn.filter = filter;
        self.conns.insert(conn);
        let conns = &self.conns;
        self.connecting
            .skip(|id| conns.get(id).is_some_and(Conn::is_unauthenticated));
        self.connecting.push(self.now.mono, connection);
        if phase == Phase::ExpectConnect {
            self.tell(Some(connection), Input::Opened { connection, listener });
        }
        true
    }

    fn on_data(&mut self, connection: ConnectionId, bytes: &mut [u8]) -> Reading {
        self.counters.bytes_in += bytes.len() as u64;
        let reading = self.contain(Some(connection), |core| core.take_bytes(connection, bytes));
        self.post_forwards();
        reading.unwrap_or(Reading::Pause)
    }

    fn on_end(&mut self, connection: ConnectionId) {
        // Who has asked for a file may have nothing more to say, and still get it: if it is gone, that cannot be sent.
        let served = self.conns.get_mut(connection).filter(|conn| conn.is_served());
        match served.and_then(|conn| conn.filter.as_mut()) {
            Some(filter) => filter.half_closed = true,
            None => self.lose(connection),
        }
    }

    fn on_writable(&mut self, connection: ConnectionId) {
        if let Some(conn) = self.conns.get_mut(connection)
            && conn.output.is_some()
        {
            self.outboxes.mark(conn);
        }
    }

    fn on_closed(&mut self, connection: ConnectionId) {
        let Some(conn) = self.conns.remove(connection) else {
            return;
        };
        if !conn.owes_introduction() {
            self.leave(conn.source());
        }
        self.outboxes.blocked_bytes -= conn.blocked_bytes();
        if let Some(output) = conn.output {
            self.outboxes.take_back(output);
        }
    }

    fn on_accept_error(&mut self, listener: ListenerId, error: io::Error, paused: bool) {
        self.counters.accept_errors += 1;
        self.counters.accept_pauses += u64::from(paused);
        self.observer.notice(Notice::AcceptFailed {
            listener,
            error: &error,
            paused,
        });
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            self.lacks_descriptors = true;
        }
    }
}

impl<O: Observer> Core<O> {
    /// Whether one more connection may be unauthenticated, once somebody has made room for it.
    fn can_make_room(&self) -> bool {
        self.has_room() || {
            let owes = |id| owes_login(&self.conns, id).is_some();
            self.has_reader() || self.connecting.has_first(self.before_accept_pause(), owes)
        }
    }

    /// Makes room for one more connection that is unauthenticated. Whoever has waited longest goes, so that a crowd of
    /// silent peers does not keep the others out; but nobody who came just now, for what it said may be on its way.
    fn make_room(&mut self) {
        if !self.has_room() {
            self.evict_longest_waiting(self.before_accept_pause());
        }
    }

    fn before_accept_pause(&self) -> Instant {
        self.now.mono.saturating_sub(self.config.accept_pause)
    }

    fn has_room(&self) -> bool {
        // Who is about to move home keeps no place here: a crowd that has sent CONNECT would shut out those behind it.
        let moving = self.effects.moves.len().saturating_add(self.moves.len());
        self.conns.unauthenticated.saturating_sub(moving) < self.config.unauthenticated_max
    }

    /// Whether somebody waits to be accepted for whom there is room now.
    pub(super) fn found_room(&mut self) -> bool {
        let found = self.lacks_room && self.has_room() && self.has_time_for_handshakes();
        self.lacks_room &= !found;
        found
    }

    /// Gives the descriptor of a silent peer to the next one, who may say more, if this turn found none free. Called after
    /// everybody was read, and never at the cost of a peer who came while the listener was not yet resting: what it said
    /// may be on its way.
    pub(super) fn free_a_descriptor(&mut self) {
        if mem::take(&mut self.lacks_descriptors) {
            self.evict_longest_waiting(self.before_accept_pause());
        }
    }

    /// Ends a connection that is sent a file, or else the one that came first of those that owe CONNECT or AUTH, if it was there
    /// at `since`; `false`: there is none.
    fn evict_longest_waiting(&mut self, since: Instant) -> bool {
        if self.evict_reader(|_| true) {
            return true;
        }
        let conns = &self.conns;
        let Some(id) = self.connecting.first(since, |id| owes_login(conns, id).is_some()) else {
            return false;
        };
        if let Some(source) = owes_login(conns, id) {
            self.evict(id, source);
        }
        true
    }

    /// Where a connection comes from, if it still has to send CONNECT or AUTH.
    pub(super) fn waiting_for_login(&self, id: ConnectionId) -> Option<Source> {
        owes_login(&self.conns, id)
    }

    pub(super) fn evict(&mut self, id: ConnectionId, source: Source) {
        self.counters.evicted += 1;
        self.observer.notice(Notice::Evicted(source));
        self.lose(id);
    }

    /// Takes bytes that arrived.
    fn take_bytes(&mut self, id: ConnectionId, bytes: &mut [u8]) -> Reading {
        let Some(conn) = self.conns.get_mut(id) else {
            return Reading::Pause;
        };
        if matches!(conn.phase, Phase::Closing | Phase::Serving) {
            return self.discard(id, bytes.len());
        }
        if conn.ended {
            return Reading::Pause;
        }
        if conn.filter.is_some() {
            return self.take_filtered(id, bytes);
        }
        self.take_plain(id, bytes)
    }

    /// Takes MQTT that arrived, of a connection that is not at its end.
    #[inline]
    pub(super) fn take_plain(&mut self, id: ConnectionId, bytes: &[u8]) -> Reading {
        let Some(conn) = self.conns.get_mut(id) else {
            return Reading::Pause;
        };
        if conn.stopped || conn.held {
            let mut kept = self.conns.take_kept(id);
            kept.extend_from_slice(bytes);
            return self.keep(id, kept);
        }
        if conn.phase == Phase::ExpectConnect && !conn.has_kept() && bytes.first() != Some(&CONNECT_FIRST_BYTE) {
            return self.refuse_stranger(id, bytes.first().copied());
        }
        if !conn.has_kept() {
            return self.decode_and_keep(id, bytes);
        }
        match self.complete(id, bytes) {
            Some(rest) => self.decode_and_keep(id, rest),
            None => self.reading(id),
        }
    }

    /// Decodes what came while the connection was not read. `Pause`: it must still not be.
    pub(super) fn take_kept(&mut self, id: ConnectionId) -> Reading {
        let mut kept = self.conns.take_kept(id);
        if kept.is_empty() {
            return self.reading(id);
        }
        let decoded = self.contain(Some(id), |core| core.decode_all(id, &kept));
        let Some(used) = decoded else { return Reading::Pause };
        kept.drain(..used);
        kept.shrink_to_fit();
        self.keep(id, kept)
    }

    /// Completes the packet of which a part is kept, and gives the engine that packet. The bytes behind it are returned;
    /// `None`: there are none to be decoded now.
    fn complete<'b>(&mut self, id: ConnectionId, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let began = self.conns.get(id).and_then(Conn::kept_since);
        let mut since = began.unwrap_or(self.now.mono);
        let mut kept = self.conns.take_kept(id);
        let mut rest = bytes;
        loop {
            match self.decode_one(id, &kept) {
                Outcome::NeedMore(total) => {
                    let missing = total.saturating_sub(kept.len());
                    let (more, behind) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
                    if more.is_empty() {
                        self.pace_part(id, kept.len());
                        self.keep_since(id, kept, since);
                        return None;
                    }
                    if is_progress(kept.len(), more.len()) {
                        since = self.now.mono;
                    }
                    append_held(&mut kept, more, total);
                    rest = behind;
                }
                Outcome::Packet(len, flow) => {
                    if self.pace(id, &kept, len, flow) == Flow::Go {
                        return (!rest.is_empty()).then_some(rest);
                    }
                    self.keep(id, rest.to_vec());
                    return None;
                }
                Outcome::Malformed => return None,
            }
        }
    }

    fn decode_and_keep(&mut self, id: ConnectionId, bytes: &[u8]) -> Reading {
        let used = self.decode_all(id, bytes);
        match bytes.get(used..) {
            Some(rest) if !rest.is_empty() => self.keep(id, rest.to_vec()),
            _ => self.reading(id),
        }
    }

    /// Decodes whole packets in place and gives them to the engine, until it wants no more. Gives how many bytes are
    /// done with.
    fn decode_all(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        // Whether its client has a limit may be settled by the first of these packets.
        if !self.meters.are_off() {
            return self.decode_paced(id, bytes);
        }
        let mut used = 0;
        while let Some(rest) = bytes.get(used..)
            && !rest.is_empty()
        {
            match self.decode_one(id, rest) {
                Outcome::Packet(len, Flow::Go) => used = len.saturating_add(used),
                Outcome::Packet(len, Flow::Stop) => return len.saturating_add(used),
                Outcome::NeedMore(_) => break,
                Outcome::Malformed => return bytes.len(),
            }
        }
        used
    }

    #[inline]
    pub(super) fn decode_one(&mut self, id: ConnectionId, bytes: &[u8]) -> Outcome {
        let Some(conn) = self.conns.get(id) else {
            return Outcome::Malformed;
        };
        let (phase, version) = (conn.phase, conn.version);
        let limits = if phase == Phase::Open {
            &self.rules.open
        } else {
            &self.rules.connect
        };
        self.watch.set(Step::Decode);
        #[cfg(test)]
        super::tests::trap_decode(bytes);
        // Taken out of the shard: its packet is borrowed from it while the shard handles that.
        let mut decoder = mem::take(&mut self.decoder);
        let decoded = decoder.decode(bytes, version, limits);
        self.watch.set(Step::Transport);
        let outcome = match decoded {
            Ok(Decoded::Packet { packet, len }) => {
                let flow = if phase == Phase::Open {
                    self.handle(Input::Packet(id, &packet))
                } else {
                    let flow = self.handle_login(Input::Packet(id, &packet));
                    self.on_login(id, &packet, flow);
                    flow
                };
                Outcome::Packet(len, self.go_on(id, flow))
            }
            Ok(Decoded::NeedMore(total)) => Outcome::NeedMore(total),
            Err(error) => {
                let _ = self.handle(Input::Malformed(id, error));
                self.stop(id);
                Outcome::Malformed
            }
        };
        self.decoder = decoder;
        outcome
    }

    /// Whether to decode on: the engine may want no more, or output and mail may have to leave first.
    #[inline]
    fn go_on(&mut self, id: ConnectionId, flow: Flow) -> Flow {
        if flow == Flow::Stop {
            self.stop(id);
            return Flow::Stop;
        }
        let transmits = self.effects.transmits.len().saturating_sub(self.encoded);
        if transmits.saturating_add(self.effects.forwards.len()) > self.config.tray_max {
            self.apply();
            if self.is_full() {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.held = true;
                    self.held.push(id);
                }
                return Flow::Stop;
            }
        }
        Flow::Go
    }

    /// Remembers what a CONNECT or AUTH settled.
    fn on_login(&mut self, id: ConnectionId, packet: &Packet<'_>, flow: Flow) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match (conn.phase, packet) {
            (Phase::ExpectConnect, Packet::Connect(connect)) => conn.version = connect.version,
            (Phase::ExpectAuth, Packet::Auth(_)) => {}
            _ => return,
        }
        let phase = if flow == Flow::Go {
            Phase::Open
        } else {
            Phase::ExpectLogin
        };
        self.conns.set_phase(id, phase);
    }

    pub(super) fn stop(&mut self, id: ConnectionId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.stopped = true;
        }
    }

    /// Somebody who does not speak MQTT gets no answer in it.
    fn refuse_stranger(&mut self, id: ConnectionId, first: Option<u8>) -> Reading {
        self.counters.not_mqtt += 1;
        if let Some(conn) = self.conns.get(id) {
            let source = conn.source();
            self.observer.notice(if first == Some(HANDSHAKE_FIRST_BYTE) {
                Notice::TlsOnPlain(source)
            } else {
                Notice::NotMqtt(source)
            });
        }
        self.lose(id);
        Reading::Pause
    }

    /// Keeps bytes for later, within the bound for those who were not let in. Whoever has waited longest for CONNECT goes
    /// when it is passed, so that a crowd of slow peers does not keep the others out.
    fn keep(&mut self, id: ConnectionId, bytes: Vec<u8>) -> Reading {
        self.keep_since(id, bytes, self.now.mono)
    }

    fn keep_since(&mut self, id: ConnectionId, bytes: Vec<u8>, since: Instant) -> Reading {
        self.conns.keep(id, bytes, since);
        self.watch_frame(id);
        self.bound_input(id);
        self.reading(id)
    }

    /// Sees to it that no more is kept than may be, now that more is kept of this connection.
    pub(super) fn bound_input(&mut self, id: ConnectionId) {
        self.shed_input();
        while self.conns.unauthenticated_bytes > self.config.unauthenticated_bytes_max {
            if self.evict_reader(|conn| conn.piece_bytes() > 0) || self.evict_longest_waiting(self.now.mono) {
                continue;
            }
            // All of it is pipelined behind CONNECT packets that are being checked.
            if let Some(conn) = self.conns.get(id).filter(|conn| conn.is_unauthenticated()) {
                self.evict(id, conn.source());
            }
            break;
        }
    }

    /// What the backend does with this connection's input next.
    pub(super) fn reading(&self, id: ConnectionId) -> Reading {
        match self.conns.get(id) {
            Some(conn) if conn.stopped || conn.held || conn.ended => Reading::Pause,
            Some(conn) if conn.is_unauthenticated() => Reading::Little,
            // What it has sent beyond its rate waits in the system, and not here.
            Some(_) if !self.meters.are_off() && self.rates_of(id).is_some() => Reading::Little,
            Some(_) => Reading::On,
            None => Reading::Pause,
        }
    }

    /// Throws away what a connection sends that is being closed, or sent a file, up to a limit.
    fn discard(&mut self, id: ConnectionId, len: usize) -> Reading {
        let Some(conn) = self.conns.get_mut(id) else {
            return Reading::Pause;
        };
        conn.discarded = conn.discarded.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if conn.discarded <= self.config.linger_bytes_max {
            return if conn.phase == Phase::Serving {
                Reading::Little
            } else {
                Reading::On
            };
        }
        self.ends.push(id);
        Reading::Pause
    }

    /// A connection has ended without the engine's doing: tells it, and closes the socket after what it was sent.
    pub(super) fn lose(&mut self, id: ConnectionId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.ended {
            return;
        }
        conn.ended = true;
        let is_engines = conn.is_engines();
        // Nobody will decode it, and its memory may be why the connection ends.
        self.forget_input(id);
        self.conns.charge_piece(id, 0);
        self.ends.push(id);
        if is_engines {
            self.tell(Some(id), Input::Closed(id));
        }
    }
}

/// Where a connection comes from, if it still has to send CONNECT or AUTH.
fn owes_login(conns: &Conns, id: ConnectionId) -> Option<Source> {
    let conn = conns.get(id).filter(|conn| conn.owes_login() && !conn.ended)?;
    Some(conn.source())
}

/// What became of the bytes at the front.
pub(super) enum Outcome {
    /// A packet of so many bytes, and whether to go on behind it.
    Packet(usize, Flow),
    /// A part of a packet that has this many bytes, as far as can be told.
    NeedMore(usize),
    /// No packet; the engine was told.
    Malformed,
}
