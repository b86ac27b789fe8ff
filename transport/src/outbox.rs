//! What waits to be sent in this turn, in buffers that are used over and over.

use sol_engine::ConnectionId;

use crate::backend::{Output, SendOp};
use crate::conns::Conn;

/// A spent buffer larger than this is given back to the allocator: twice what a connection gathers before it is sent.
const SPARE_BYTES_MAX: usize = 512 << 10;

/// The buffers of one shard's output: who has something to send, and what is spare.
#[derive(Debug)]
pub(crate) struct Outboxes {
    /// Connections with something to send, in the order in which they got it.
    pub(crate) dirty: Vec<ConnectionId>,
    /// Lent to the backend; kept for its memory.
    pub(crate) operations: Vec<SendOp>,
    #[expect(
        clippy::vec_box,
        reason = "a connection holds the box, so that an idle one pays for a pointer only"
    )]
    spare: Vec<Box<Output>>,
    spare_bytes: usize,
    spare_bytes_max: usize,
    /// Bytes encoded since the last flush, and the most of them before one is due.
    pending: usize,
    pending_max: usize,
    /// Bytes that the kernel does not take for now, of all congested connections.
    pub(crate) blocked_bytes: usize,
    /// A connection has more to send than `output_max`.
    has_large: bool,
    output_max: usize,
}

impl Outboxes {
    /// `spare_bytes_max`: bytes of spent buffers kept; `output_max`, `pending_max`: bytes for one connection, and for
    /// all, above which it is time to send.
    pub(crate) const fn new(spare_bytes_max: usize, output_max: usize, pending_max: usize) -> Self {
        Self {
            dirty: Vec::new(),
            operations: Vec::new(),
            spare: Vec::new(),
            spare_bytes: 0,
            spare_bytes_max,
            pending: 0,
            pending_max,
            blocked_bytes: 0,
            has_large: false,
            output_max,
        }
    }

    /// Whether it is time to send.
    pub(crate) const fn is_full(&self) -> bool {
        self.has_large || self.pending > self.pending_max
    }

    /// An empty buffer.
    pub(crate) fn lend(&mut self) -> Box<Output> {
        match self.spare.pop() {
            Some(output) => {
                self.spare_bytes -= output.bytes.capacity();
                output
            }
            None => Box::default(),
        }
    }

    /// Takes a buffer back.
    pub(crate) fn take_back(&mut self, mut output: Box<Output>) {
        let capacity = output.bytes.capacity();
        if capacity <= SPARE_BYTES_MAX && self.spare_bytes + capacity <= self.spare_bytes_max {
            output.bytes.clear();
            (output.sent, output.sealed, output.framed) = (0, 0, 0);
            self.spare_bytes += capacity;
            self.spare.push(output);
        }
    }

    /// Has what a connection has to send leave with the others' output.
    #[inline]
    pub(crate) fn mark(&mut self, conn: &mut Conn) {
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(conn.id());
        }
    }

    /// Counts `bytes` just encoded for a connection that now has `unsent`; `blocked`: the kernel takes none of it, so
    /// there is no use in sending early.
    pub(crate) const fn count(&mut self, bytes: usize, unsent: usize, blocked: bool) {
        self.pending += bytes;
        if blocked {
            self.blocked_bytes += bytes;
        } else {
            self.has_large |= unsent > self.output_max;
        }
    }

    /// Everything that could be sent was.
    pub(crate) const fn flushed(&mut self) {
        self.pending = 0;
        self.has_large = false;
    }
}

impl Output {
    /// Keeps no more memory than what has not left: there may be many of these, of peers who have not been let in.
    pub(crate) fn shrink(&mut self) {
        self.drop_sent();
        self.bytes.shrink_to_fit();
    }

    /// Drops what has left, when that is the greater part: the rest moves at most once for each byte sent.
    pub(crate) fn compact(&mut self) {
        if self.sent * 2 >= self.bytes.len() {
            self.drop_sent();
        }
    }

    fn drop_sent(&mut self) {
        self.bytes.drain(..self.sent);
        self.sealed = self.sealed.saturating_sub(self.sent);
        self.framed = self.framed.saturating_sub(self.sent);
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_up_to_a_limit() {
        let mut outboxes = Outboxes::new(1_000, 100, 1_000);
        let mut output = outboxes.lend();
        output.bytes.reserve_exact(600);
        output.bytes.push(1);
        output.sent = 1;
        outboxes.take_back(output);
        let again = outboxes.lend();
        assert!(again.bytes.is_empty() && again.bytes.capacity() >= 600 && again.sent == 0);
        outboxes.take_back(again);
        // A second one of that size is more than may be kept, and so is one that is large.
        for capacity in [600, SPARE_BYTES_MAX + 1] {
            outboxes.take_back(Box::new(Output {
                bytes: Vec::with_capacity(capacity),
                ..Output::default()
            }));
            assert_eq!(outboxes.spare.len(), 1);
        }
    }

    #[test]
    fn it_is_time_to_send_when_one_or_all_have_much() {
        let mut outboxes = Outboxes::new(0, 100, 1_000);
        outboxes.count(100, 100, false);
        outboxes.count(500, 500, true);
        assert!(!outboxes.is_full());
        outboxes.count(10, 110, false);
        assert!(outboxes.is_full());
        outboxes.flushed();
        for _ in 0..100 {
            outboxes.count(11, 11, false);
        }
        assert!(outboxes.is_full());
    }

    #[test]
    fn what_has_left_is_dropped_without_moving_the_rest_again_and_again() {
        let mut output = Output {
            bytes: (0..10).collect(),
            sent: 3,
            sealed: 8,
            framed: 9,
        };
        output.compact();
        assert_eq!((output.bytes.len(), output.sent), (10, 3));
        output.sent = 6;
        output.compact();
        assert_eq!((output.bytes.as_slice(), output.sent), ([6, 7, 8, 9].as_slice(), 0));
        assert_eq!((output.sealed, output.framed), (2, 3));
    }

    #[test]
    fn who_was_not_let_in_holds_no_more_memory_than_what_has_not_left() {
        // The buffer of a piece of a file may have been that of a large fan-out before.
        let mut output = Output {
            bytes: Vec::with_capacity(SPARE_BYTES_MAX),
            sent: 3,
            sealed: 8,
            framed: 9,
        };
        output.bytes.extend(0..10);
        output.shrink();
        assert_eq!(output.bytes, [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((output.sent, output.sealed, output.framed), (0, 5, 6));
        assert!(output.bytes.capacity() < 100, "{}", output.bytes.capacity());
    }
}
