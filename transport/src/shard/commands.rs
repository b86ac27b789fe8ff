//! What the backend is told between turns: moves, changes of reading, closes; and the shard's own deadlines.

use std::mem;

use sol_engine::{Close, ConnectionId, Flow, Input, Move, Read};

use super::Core;
use crate::backend::{Backend, Reading, Sink};
use crate::conns::{Conn, Phase};
use crate::mailbox::Moved;
use crate::observer::{Notice, Observer};

impl<O: Observer> Core<O> {
    /// Sends connections to their home shards.
    pub(super) fn move_away<B: Backend>(&mut self, backend: &mut B) {
        for Move {
            connection,
            to,
            handover,
        } in self.moves.drain(..)
        {
            // One that was given up meanwhile may have lost bytes that were kept of it; it is closed here.
            let is_given_up = |conn: &Conn| conn.ended || conn.phase == Phase::Closing;
            if self.conns.get(connection).is_none_or(is_given_up) {
                continue;
            }
            let Some(conn) = self.conns.remove(connection) else {
                continue;
            };
            self.outboxes.blocked_bytes -= conn.blocked_bytes();
            let Some(socket) = backend.release(connection) else {
                self.mailbox
                    .exchange()
                    .whole
                    .doors
                    .leave(&self.config.limits, conn.source());
                continue;
            };
            let peer = conn.source().peer;
            let (kept, filter, output) = conn.into_parts();
            self.mailbox.post_moved(
                to,
                Moved {
                    socket,
                    peer,
                    handover,
                    kept,
                    filter,
                    output,
                },
            );
        }
    }

    /// Takes a connection that another shard sent home.
    pub(super) fn adopt<B: Backend>(&mut self, backend: &mut B, moved: Moved) {
        let Moved {
            socket,
            peer,
            handover,
            kept,
            filter,
            output,
        } = moved;
        if self.stops_at.is_some() {
            return;
        }
        let source = crate::observer::Source {
            peer,
            listener: handover.listener(),
        };
        #[cfg(test)]
        let socket = super::tests::trap_adoption(socket, &kept);
        // Without room for it the client sees its connection end, and comes again.
        let Ok(id) = backend.adopt(socket) else {
            return self.leave(source);
        };
        self.counters.adopted += 1;
        let mut conn = Conn::new(id, source, Phase::Open, handover.version());
        conn.filter = filter;
        // What its filter said while it was let in, if that had no time to leave.
        if let Some(output) = output {
            conn.output = Some(output);
            self.outboxes.mark(&mut conn);
        }
        self.conns.insert(conn);
        self.conns.keep(id, kept, self.now.mono);
        match self.contain(Some(id), |core| core.handle_login(Input::Adopted(id, handover))) {
            Some(Flow::Go) => self.read_on(backend, id),
            _ => self.stop(id),
        }
    }

    /// Does what the engine said about reading, and goes on with those that only waited for output to leave.
    pub(super) fn change_reading<B: Backend>(&mut self, backend: &mut B) {
        for read in mem::take(&mut self.reads) {
            match read {
                Read::Pause(id) => {
                    self.stop(id);
                    backend.pause(id);
                }
                Read::Resume(id) => {
                    if let Some(conn) = self.conns.get_mut(id) {
                        conn.stopped = false;
                    }
                    if self.conns.get(id).is_some_and(Conn::expects_login) {
                        self.conns.set_phase(id, Phase::Open);
                    }
                    self.make_way(backend);
                    self.read_on(backend, id);
                }
                Read::Auth(id) => self.expect_auth(backend, id),
            }
        }
        for id in mem::take(&mut self.held) {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.held = false;
            }
            self.make_way(backend);
            self.read_on(backend, id);
        }
    }

    /// Before what is kept of one more connection is decoded, what the others have brought may have to leave: a crowd that
    /// was paused for a full shard goes on all at once.
    fn make_way<B: Backend>(&mut self, backend: &mut B) {
        self.post_forwards();
        if self.is_full() {
            self.relieve(backend);
        }
    }

    /// Goes on reading a connection that has not been let in. The time for its CONNECT holds for all of the exchange.
    fn expect_auth<B: Backend>(&mut self, backend: &mut B, id: ConnectionId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.expects_login()) else {
            return;
        };
        conn.stopped = false;
        let is_late = conn.phase == Phase::ExpectLateLogin;
        conn.phase = Phase::ExpectAuth;
        if is_late {
            return self.time_out_login(id);
        }
        self.read_on(backend, id);
    }

    /// Ends a connection that owes CONNECT or AUTH, because its time is up.
    fn time_out_login(&mut self, id: ConnectionId) {
        if let Some(source) = self.waiting_for_login(id) {
            self.counters.connect_timeouts += 1;
            self.observer.notice(Notice::ConnectTimeout(source));
            self.lose(id);
        }
    }

    /// Decodes what was kept and has the connection read again, if nothing speaks against it.
    fn read_on<B: Backend>(&mut self, backend: &mut B, id: ConnectionId) {
        let may_read = |conn: &Conn| !conn.stopped && !conn.held && !conn.ended && conn.phase != Phase::Closing;
        if self.conns.get(id).is_some_and(may_read)
            && self.take_kept(id) != Reading::Pause
            && self.go_on_filtered(id) != Reading::Pause
        {
            backend.resume(id);
        }
    }

    /// Closes what the engine has given up and what has ended by itself.
    pub(super) fn close_connections<B: Backend>(&mut self, backend: &mut B) {
        for Close { connection, flush } in mem::take(&mut self.closes) {
            let Some(conn) = self.conns.get(connection) else {
                continue;
            };
            let must_end = !flush || conn.ended;
            self.conns.set_phase(connection, Phase::Closing);
            self.forget_input(connection);
            if !must_end {
                self.finish_filter(connection);
            }
            let has_output = self.conns.get(connection).is_some_and(|conn| conn.output.is_some());
            if must_end {
                self.ends.push(connection);
            } else if has_output {
                self.flushing.push(self.now.mono, connection);
            } else {
                self.linger(backend, connection);
            }
        }
        for id in mem::take(&mut self.ends) {
            self.conns.set_phase(id, Phase::Closing);
            // Nobody will send it, and its memory may be why the connection ends: or the next would end for it too.
            if let Some(conn) = self.conns.get_mut(id) {
                self.outboxes.blocked_bytes -= conn.blocked_bytes();
                if let Some(output) = conn.output.take() {
                    self.outboxes.take_back(output);
                }
            }
            backend.close(id);
        }
    }

    /// Announces the end, and reads on for a while: a reset for unread input would eat what was sent last.
    pub(super) fn linger<B: Backend>(&mut self, backend: &mut B, id: ConnectionId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        // Who has no more to say has nothing that could be unread.
        if conn.filter.as_ref().is_some_and(|filter| filter.half_closed) {
            return self.ends.push(id);
        }
        let was_paused = conn.stopped || conn.held;
        conn.stopped = false;
        conn.held = false;
        backend.shutdown_write(id);
        if was_paused {
            backend.resume(id);
        }
        self.lingering.push(self.now.mono, id);
    }

    /// Does what has come due.
    pub(super) fn expire(&mut self) {
        let now = self.now.mono;
        self.free_a_descriptor();
        while let Some(id) = self.connecting.expired(now) {
            self.time_out_login(id);
            if self.conns.get(id).is_some_and(|conn| conn.phase == Phase::ExpectLogin) {
                self.conns.set_phase(id, Phase::ExpectLateLogin);
            }
        }
        while let Some(id) = self.readers.expired(now) {
            if self.may_be_served_on(id) {
                self.readers.push(now, id);
            }
        }
        self.expire_frames();
        while let Some(id) = self.flushing.expired(now) {
            if self.conns.get(id).is_some_and(|conn| conn.output.is_some()) {
                self.ends.push(id);
            }
        }
        while let Some(id) = self.lingering.expired(now) {
            self.ends.push(id);
        }
        let conns = &self.conns;
        self.flushing.skip(|id| conns.get(id).is_some());
        self.lingering.skip(|id| conns.get(id).is_some());
        self.tick();
    }

    /// Sends what was posted, and tells the engine of whom that has filled up and who has emptied.
    pub(super) fn send_mail(&mut self) {
        self.mailbox.send();
        while let Some((shard, full)) = self.mailbox.changed_peer() {
            self.tell(None, Input::Peer { shard, full });
        }
    }
}
