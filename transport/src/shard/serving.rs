//! Files that browsers ask for: they leave a piece at a time, behind everything else that a turn has to do.
//!
//! Who is sent one has not been let in, counts as such, and goes first when there are too many of those. What is held for it
//! is a piece, the smaller the more there are; and it has a while for each 256 KiB, or is cut.

use sol_engine::{Close, ConnectionId};

use super::Core;
use crate::backend::Reading;
use crate::conns::Phase;
use crate::observer::{Notice, Observer};

/// Bytes of files that a turn hands out: as long, and one piece, others wait for it.
const TURN_BYTES_MAX: usize = 512 << 10;
/// The largest piece, and the smallest.
const PIECE_BYTES_MAX: usize = 64 << 10;
const PIECE_BYTES_MIN: usize = 2 << 10;

impl<O: Observer> Core<O> {
    /// A request for a file was answered. From now on that leaves, and what its peer sends is discarded.
    pub(super) fn begin_serving(&mut self, id: ConnectionId) -> Reading {
        self.counters.files_requested += 1;
        self.forget_input(id);
        self.conns.set_phase(id, Phase::Serving);
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
        let mut served = 0_usize;
        while served < TURN_BYTES_MAX
            && let Some(id) = self.serving.pop_front()
        {
            served = served.saturating_add(self.serve_piece(id));
        }
    }

    fn serve_piece(&mut self, id: ConnectionId) -> usize {
        let share = self.config.unauthenticated_bytes_max / self.conns.unauthenticated.max(1);
        let len = share.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
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
    pub(super) fn may_go_on_reading(&mut self, id: ConnectionId) -> bool {
        let (now, time) = (self.now.mono, self.config.frame_time_max);
        let conn = self.conns.get_mut(id);
        let Some(conn) = conn.filter(|conn| conn.phase == Phase::Serving && !conn.ended) else {
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
}
