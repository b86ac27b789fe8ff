//! Connections that speak TLS or WebSocket: from the socket's bytes to MQTT, and what their filter says itself.
//!
//! A handshake costs as much as a thousand messages, so a turn has a quantum of time for all of them: whoever comes when
//! it is used up keeps what it sent and waits in line, unread.

use std::mem;

use sol_engine::{Close, ConnectionId, Input};

use super::Core;
use super::contain::Step;
use crate::backend::{Backend, Reading};
use crate::conns::Phase;
use crate::filter::{End, Fault, Received};
use crate::listener::ListenerConfig;
use crate::observer::{Notice, Observer, Source};

/// Handshakes that wait for their turn, above which their listeners accept nobody: whoever waits in the system's queue
/// costs nothing, and whoever waits here may be evicted.
const HANDSHAKES_WAITING_MAX: usize = 64;

/// Why a client has no name that its proxy was to know it by.
pub(super) const NO_COMMON_NAME: &str =
    "its proxy tells of no certificate that it has proven, or of one without a Common Name";

/// A scratch buffer that has grown larger does not keep its memory.
pub(super) const SCRATCH_BYTES_MAX: usize = 512 << 10;

impl<O: Observer> Core<O> {
    /// Takes bytes of a connection with a filter; none, when it is its turn to go on with what was kept.
    pub(super) fn take_filtered(&mut self, id: ConnectionId, bytes: &mut [u8]) -> Reading {
        let Some(conn) = self.conns.get_mut(id) else {
            return Reading::Pause;
        };
        let Some(listener) = self.config.listeners.get(usize::from(conn.source().listener.0)) else {
            return Reading::Pause;
        };
        let Some(filter) = &mut conn.filter else {
            return Reading::Pause;
        };
        if filter.proxy().is_some() {
            return self.take_introduction(id, bytes);
        }
        let is_costly = filter.is_costly(listener);
        if filter.queued || is_costly && !self.handshakes.may_begin() {
            if !mem::replace(&mut filter.queued, true) {
                self.handshakes.push(id);
            }
            conn.held = true;
            let held = filter.hold(bytes, listener);
            self.charge_filter(id);
            return match held {
                Ok(()) => Reading::Pause,
                Err(fault) => self.end_filtered(id, &End::Fault(fault)),
            };
        }
        let mut plain = mem::take(&mut self.plain);
        // After a panic it may be somebody else's.
        self.said.clear();
        // Whatever goes wrong with the bytes of one connection concerns no other.
        self.watch.set(Step::Decode);
        let began = is_costly.then(|| self.clock.now().mono);
        let received = filter.receive(bytes, listener, self.now.mono, &mut plain, &mut self.said);
        #[cfg(test)]
        super::tests::trap_filter(received.mqtt);
        if let Some(began) = began {
            self.handshakes.spend(self.clock.now().mono.saturating_since(began));
        }
        if conn.congested && conn.phase == Phase::Open {
            self.said.drop_answers();
        }
        self.watch.set(Step::Transport);
        let reading = self.take_received(id, &received);
        if plain.capacity() <= SCRATCH_BYTES_MAX {
            self.plain = plain;
        }
        reading
    }

    fn take_received(&mut self, id: ConnectionId, received: &Received<'_>) -> Reading {
        self.say(id);
        self.charge_filter(id);
        if self.conns.get(id).is_none_or(|conn| conn.ended) {
            // What it held was one too many, and the engine must not hear of it any more.
            return Reading::Pause;
        }
        if received.opened {
            self.open_filtered(id);
        }
        if !received.mqtt.is_empty() {
            self.take_plain(id, received.mqtt);
        }
        if let Some(end) = &received.end {
            return self.end_filtered(id, end);
        }
        // It may just have been let in.
        self.watch_frame(id);
        self.reading(id)
    }

    /// Both sides have agreed: the engine hears of the connection, and who its certificate says it is.
    fn open_filtered(&mut self, id: ConnectionId) {
        let Some(conn) = self
            .conns
            .get_mut(id)
            .filter(|conn| conn.phase == Phase::ExpectHandshake)
        else {
            return;
        };
        let source = conn.source();
        self.counters.handshakes += 1;
        let listener = self.config.listeners.get(usize::from(source.listener.0));
        let name_of = listener.and_then(|listener| listener.tls.as_ref()?.name_of.as_ref());
        let by_proxy = listener.is_some_and(ListenerConfig::proxies_name_clients);
        let name = match (name_of, &mut conn.filter) {
            (Some(name_of), Some(filter)) => {
                self.watch.set(Step::Decode);
                Some(name_of(filter.certificates()))
            }
            (None, Some(filter)) if by_proxy => Some(filter.common_name().ok_or_else(|| NO_COMMON_NAME.to_owned())),
            _ => None,
        };
        self.watch.set(Step::Transport);
        self.let_connect(id, source, name);
    }

    /// The engine hears of a connection, and who its client is where that is known or was to be.
    pub(super) fn let_connect(&mut self, id: ConnectionId, source: Source, name: Option<Result<String, String>>) {
        self.conns.set_phase(id, Phase::ExpectConnect);
        self.tell(
            Some(id),
            Input::Opened {
                connection: id,
                listener: source.listener,
            },
        );
        if let Some(name) = name {
            match name {
                Ok(name) => {
                    self.tell(Some(id), Input::Identified(id, name));
                }
                // Its CONNECT is refused then.
                Err(why) => self.observer.notice(Notice::NoName { source, why: &why }),
            }
        }
    }

    /// A connection's input is at its end, by its peer's will or fault. What its filter has to say to that still leaves.
    fn end_filtered(&mut self, id: ConnectionId, end: &End) -> Reading {
        let Some(conn) = self.conns.get(id).filter(|conn| !conn.ended) else {
            return Reading::Pause;
        };
        let (source, phase) = (conn.source(), conn.phase);
        if matches!(end, End::Answered) {
            return self.begin_serving(id);
        }
        if let End::Fault(fault) = end {
            self.counters.handshakes_failed += u64::from(phase == Phase::ExpectHandshake);
            let why = &fault.to_string();
            self.observer.notice(match fault {
                Fault::NoTls => Notice::PlainOnTls(source),
                _ if phase == Phase::ExpectHandshake => Notice::HandshakeFailed { source, why },
                _ => Notice::FilterFailed { source, why },
            });
        }
        if let End::Fault(Fault::NoTls) = end {
            // There is no answer that it would understand.
            self.lose(id);
            return Reading::Pause;
        }
        if phase == Phase::Closing {
            return Reading::On;
        }
        if matches!(end, End::Closed) && self.keep_end(id) {
            return Reading::Pause;
        }
        self.forget_input(id);
        self.conns.set_phase(id, Phase::Closing);
        if phase != Phase::ExpectHandshake {
            self.tell(Some(id), Input::Closed(id));
        }
        self.closes.push(Close {
            connection: id,
            flush: true,
        });
        Reading::On
    }

    /// Remembers an orderly end that came behind MQTT which has to wait, as the end of a socket waits that is not read; its
    /// connection may move home before. `false`: nothing waits.
    fn keep_end(&mut self, id: ConnectionId) -> bool {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.stopped || conn.held) else {
            return false;
        };
        if let Some(filter) = &mut conn.filter {
            filter.is_over = true;
        }
        true
    }

    /// Goes on with a connection whose kept MQTT was decoded, and ends it if its end came behind that.
    pub(super) fn go_on_filtered(&mut self, id: ConnectionId) -> Reading {
        let now = self.now.mono;
        if let Some(filter) = self.conns.get_mut(id).and_then(|conn| conn.filter.as_mut()) {
            if filter.is_over {
                return self.end_filtered(id, &End::Closed);
            }
            filter.begin_again(now);
            self.watch_frame(id);
        }
        self.reading(id)
    }

    /// Has leave what a filter said.
    fn say(&mut self, id: ConnectionId) {
        if self.said.is_empty() {
            return;
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(filter) = &mut conn.filter else { return };
        let output = conn.output.get_or_insert_with(|| self.outboxes.lend());
        let added = filter.say(&mut self.said, output);
        self.outboxes.count(added, output.unsent().len(), conn.congested);
        self.make_dirty(id);
    }

    /// Has the filter of a connection that is closed tell its peer so, behind all else.
    pub(super) fn finish_filter(&mut self, id: ConnectionId) {
        let going_away = self.stops_at.is_some();
        let Some(conn) = self.conns.get_mut(id) else { return };
        let blocked = conn.blocked_bytes();
        let Some(filter) = &mut conn.filter else { return };
        let output = conn.output.get_or_insert_with(|| self.outboxes.lend());
        filter.finish(output, &mut self.sealed, going_away);
        if output.unsent().is_empty()
            && let Some(output) = conn.output.take()
        {
            return self.outboxes.take_back(output);
        }
        self.outboxes.blocked_bytes += conn.blocked_bytes();
        self.outboxes.blocked_bytes -= blocked;
        self.make_dirty(id);
    }

    fn make_dirty(&mut self, id: ConnectionId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.congested) {
            self.outboxes.mark(conn);
        }
    }

    /// Counts what a filter holds, within the bounds for all of them.
    pub(super) fn charge_filter(&mut self, id: ConnectionId) {
        if self.conns.charge_filter(id) {
            self.bound_input(id);
        }
    }

    /// Lets go of input that nobody will decode.
    pub(super) fn forget_input(&mut self, id: ConnectionId) {
        drop(self.conns.take_kept(id));
        if let Some(filter) = self.conns.get_mut(id).and_then(|conn| conn.filter.as_mut()) {
            filter.forget_input();
            self.conns.charge_filter(id);
        }
    }

    /// Goes on with the handshakes that waited, at the beginning of a turn.
    pub(super) fn shake_hands<B: Backend>(&mut self, backend: &mut B) {
        self.handshakes.begin_turn();
        while let Some(id) = self.handshakes.next() {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            let Some(filter) = &mut conn.filter else { continue };
            filter.queued = false;
            conn.held = false;
            if conn.ended || conn.phase == Phase::Closing {
                continue;
            }
            let reading = self.contain(Some(id), |core| core.take_filtered(id, &mut []));
            self.post_forwards();
            if reading.is_some_and(|reading| reading != Reading::Pause) {
                backend.resume(id);
            }
        }
    }

    /// Whether one more connection of a listener may have to shake hands.
    pub(super) fn has_time_for_handshakes(&self) -> bool {
        self.handshakes.waiting() < HANDSHAKES_WAITING_MAX
    }
}
