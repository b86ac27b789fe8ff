//! Files that browsers ask for: they leave a piece at a time, behind everything else that a turn has to do.
//!
//! Who is sent one has not been let in, counts as such, and goes first when there are too many of those. What is held for it
//! is a piece, the smaller the more is held for all who have not been let in; and it has a while for each 256 KiB, or is cut.

use sol_engine::{Close, ConnectionId};

use super::Core;
use crate::backend::Reading;
use crate::conns::{Conn, Phase};
use crate::observer::{Notice, Observer};

/// Bytes of files that a turn hands out: as long, and one piece, others wait for it.
const TURN_BYTES_MAX: usize = 512 << 10;
/// The largest piece, and the smallest.
const PIECE_BYTES_MAX: usize = 64 << 10;
const PIECE_BYTES_MIN: usize = 2 << 10;
/// The part of what may still be held that a piece takes: many who take nothing leave enough for those who come after them.
const PIECES: usize = 64;

impl<O: Observer> Core<O> {
    /// A request for a file was answered. From now on that leaves, and what its peer sends is discarded.
    pub(super) fn begin_serving(&mut self, id: ConnectionId) -> Reading {
        self.counters.files_requested += 1;
        self.forget_input(id);
        self.conns.set_phase(id, Phase::Serving);
        let conns = &self.conns;
        self.readers.skip(|id| conns.get(id).is_some_and(Conn::is_served));
        self.readers.push(self.now.mono, id);
        self.go_on_serving(id);
        self.reading(id)
    }

    /// All of a connection's output has left: it waits for its next piece, or is done.
    pub(super) fn go_on_serving(&mut self, id: ConnectionId) {
        let filter = self.conns.get_mut(id).and_then(|conn| conn.filter.as_mut());
        let Some(filter) = filter else { return };
        if filter.is_finished() {
            self.closes.push(Close {
                connection: id,
                flush: true,
            });
        } else if !std::mem::replace(&mut filter.queued, true) {
            self.serving.push_back(id);
        }
    }

    /// Hands out pieces to those who have waited longest.
    pub(super) fn serve(&mut self) {
        if self.serving.is_empty() {
            return;
        }
        while self.budget_left() < PIECE_BYTES_MIN && self.evict_reader(|conn| conn.piece_bytes() > 0) {}
        // Without any room one still goes on: who does not take that is closed for it.
        let left = self.budget_left().min(self.memory_for_readers()).max(PIECE_BYTES_MIN);
        let mut served = 0_usize;
        while served < TURN_BYTES_MAX
            && let rest = left.saturating_sub(served)
            && rest >= PIECE_BYTES_MIN
            && let Some(id) = self.serving.pop_front()
        {
            let len = (rest / PIECES).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
            served = served.saturating_add(self.serve_piece(id, len));
        }
    }

    /// How much more may be held for those who have not been let in.
    const fn budget_left(&self) -> usize {
        let budget = self.config.unauthenticated_bytes_max;
        budget.saturating_sub(self.conns.unauthenticated_bytes)
    }

    fn serve_piece(&mut self, id: ConnectionId, len: usize) -> usize {
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        let Some(filter) = &mut conn.filter else { return 0 };
        filter.queued = false;
        // One that is congested comes again when what it has to send has left.
        if conn.phase != Phase::Serving || conn.ended || conn.congested {
            return 0;
        }
        let output = conn.output.get_or_insert_with(|| self.outboxes.lend());
        let before = output.bytes.len();
        filter.serve(len, output, &mut self.sealed);
        let added = output.bytes.len().saturating_sub(before);
        self.outboxes.count(added, output.unsent().len(), false);
        if !output.unsent().is_empty() {
            self.outboxes.mark(conn);
        } else if let Some(output) = conn.output.take() {
            self.outboxes.take_back(output);
            self.go_on_serving(id);
        }
        added
    }

    /// Whether a connection whose time is up has more, since it is sent a file and takes that. One that does not take it is
    /// cut.
    pub(super) fn may_be_served_on(&mut self, id: ConnectionId) -> bool {
        let (now, time) = (self.now.mono, self.config.frame_time_max);
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_served()) else {
            return false;
        };
        let (source, unsent) = (conn.source(), conn.unsent_bytes());
        if conn
            .filter
            .as_mut()
            .is_some_and(|filter| filter.keeps_pace(now, unsent, time))
        {
            return true;
        }
        self.counters.files_cut += 1;
        self.observer.notice(Notice::FileNotTaken(source));
        self.lose(id);
        false
    }

    /// Whether somebody is sent a file.
    pub(super) fn has_reader(&self) -> bool {
        let is_served = |id| self.conns.get(id).is_some_and(Conn::is_served);
        self.readers.has_first(self.now.mono, is_served)
    }

    /// Takes the one that was looked at longest ago of those that are sent a file and `meant`. It is to be closed: it has said
    /// all that it had to say, so that it does not matter whether it came just now.
    pub(super) fn longest_reader(&mut self, meant: impl Fn(&Conn) -> bool) -> Option<ConnectionId> {
        let conns = &self.conns;
        let is_meant = |id| conns.get(id).is_some_and(|conn| conn.is_served() && meant(conn));
        self.readers.first(self.now.mono, is_meant)
    }

    /// Ends that one. `false`: there is none.
    pub(super) fn evict_reader(&mut self, meant: impl Fn(&Conn) -> bool) -> bool {
        let Some(id) = self.longest_reader(meant) else {
            return false;
        };
        if let Some(conn) = self.conns.get(id) {
            self.evict(id, conn.source());
        }
        true
    }
}
