//! Memory that connections hold outside of the engine, all together: parts of packets, and output that is not taken.
//!
//! Each is bounded for one connection, and many of them are not bounded by that. Above a mark the engine hears of
//! pressure, so that nothing more is taken in to be kept; above a limit whoever holds most is closed. And a packet has to
//! arrive whole in bounded time, or a part of it would be held for as long as its peer likes.

use std::cmp::Reverse;

use sol_engine::{ConnectionId, EngineConfig, Input, Level};

use super::Core;
use crate::conns::{Conn, Phase};
use crate::observer::{Notice, Observer};

/// How often an unfinished packet is looked at in the time that it has: it stays longer by a part of that at most.
pub(super) const FRAME_LOOKS: u32 = 4;

/// Bytes of a large packet that must arrive in the time that a small one has.
const FRAME_STRIDE: usize = 256 << 10;

/// How much may be held, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Above it the engine is told.
    high: usize,
    /// Above it connections are closed.
    max: usize,
}

impl Marks {
    /// A quarter of what the engine itself may keep, and up to a half where a single packet would pass that: or its
    /// publisher would be refused for the sake of its own packet.
    pub(super) const fn new(engine: &EngineConfig) -> Self {
        let (quarter, half) = (engine.memory_bytes_max / 4, engine.memory_bytes_max / 2);
        let packets = (engine.maximum_packet_size as usize).saturating_mul(2);
        let high = if packets < quarter {
            quarter
        } else if packets > half {
            half
        } else {
            packets
        };
        Self {
            high,
            max: high.saturating_mul(2),
        }
    }

    /// What is left when connections were closed for it: enough that it is not done again for every packet.
    const fn low(self) -> usize {
        self.max - self.max / 8
    }

    /// Above the mark it is scarce, and until a quarter is free again, so that it does not flutter.
    fn level(self, held: usize, before: Level) -> Level {
        if held > self.high {
            Level::Full
        } else if held > self.high - self.high / 4 {
            before
        } else {
            Level::Normal
        }
    }
}

impl<O: Observer> Core<O> {
    /// Bytes held for all connections.
    pub(super) const fn held_bytes(&self) -> usize {
        self.conns.kept_bytes.saturating_add(self.outboxes.blocked_bytes)
    }

    /// At the end of a turn: closes who holds most if too much is held, and tells the engine how scarce memory is.
    /// `true`: something is to be done for it.
    pub(super) fn weigh(&mut self) -> bool {
        let marks = self.rules.memory;
        let held = self.held_bytes();
        let is_too_much = held > marks.max;
        if is_too_much {
            self.shed(held.saturating_sub(marks.low()), |conn| {
                conn.kept_capacity().saturating_add(conn.blocked_bytes())
            });
        }
        let level = marks.level(held, self.pressure);
        let has_changed = level != self.pressure;
        if has_changed {
            self.pressure = level;
            self.tell(None, Input::Pressure(level));
        }
        is_too_much || has_changed
    }

    /// Within a turn, which may bring a part of a packet from every connection. What output will be taken is not known
    /// then.
    #[inline]
    pub(super) fn shed_input(&mut self) {
        let marks = self.rules.memory;
        if self.conns.kept_bytes > marks.max {
            self.shed(self.conns.kept_bytes.saturating_sub(marks.low()), Conn::kept_capacity);
        }
    }

    /// Closes who weighs most, until that sets `excess` bytes free.
    #[cold]
    fn shed(&mut self, excess: usize, weight: impl Fn(&Conn) -> usize) {
        let heavy = |conn: &Conn| Some((weight(conn), conn.id())).filter(|&(bytes, _)| bytes > 0 && !conn.ended);
        let mut heaviest: Vec<(usize, ConnectionId)> = self.conns.iter().filter_map(heavy).collect();
        heaviest.sort_unstable_by_key(|&(bytes, _)| Reverse(bytes));
        let mut freed = 0;
        for (bytes, id) in heaviest {
            if freed >= excess {
                return;
            }
            freed = bytes.saturating_add(freed);
            self.counters.shed += 1;
            if let Some(conn) = self.conns.get(id) {
                self.observer.notice(Notice::Shed(conn.source()));
            }
            self.lose(id);
        }
    }

    /// Has a connection looked at that a part of a packet is kept of.
    pub(super) fn watch_frame(&mut self, id: ConnectionId) {
        if let Some(conn) = self.conns.get_mut(id)
            && conn.phase == Phase::Open
            && conn.has_kept()
            && !conn.watched
        {
            conn.watched = true;
            self.partial.push(self.now.mono, id);
        }
    }

    /// Closes those whose packet has taken too long. While we do not read a connection ourselves, its time does not run.
    pub(super) fn expire_frames(&mut self) {
        let now = self.now.mono;
        while let Some(id) = self.partial.expired(now) {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.watched = false;
            if conn.stopped || conn.held || conn.ended {
                continue;
            }
            match conn.kept_since() {
                Some(since) if now.saturating_since(since) >= self.config.frame_time_max => {
                    let source = conn.source();
                    self.counters.frame_timeouts += 1;
                    self.observer.notice(Notice::FrameTimeout(source));
                    self.lose(id);
                }
                Some(_) => self.watch_frame(id),
                None => {}
            }
        }
    }
}

/// Whether a packet of which `len` bytes are there has come far enough with `more` of them that its time begins again.
pub(super) const fn is_progress(len: usize, more: usize) -> bool {
    len / FRAME_STRIDE < len.saturating_add(more) / FRAME_STRIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(memory_bytes_max: usize, maximum_packet_size: u32) -> Marks {
        Marks::new(&EngineConfig {
            memory_bytes_max,
            maximum_packet_size,
            ..EngineConfig::default()
        })
    }

    #[test]
    fn the_marks_are_a_share_of_the_memory_and_leave_room_for_a_packet() {
        let of = |high, max| Marks { high, max };
        assert_eq!(marks(1_000, 1), of(250, 500));
        assert_eq!(marks(1_000, 200), of(400, 800));
        assert_eq!(marks(1_000, u32::MAX), of(500, 1_000));
        // Without a limit there is none here either.
        assert_eq!(marks(usize::MAX, 1).max, usize::MAX / 4 * 2);
    }

    #[test]
    fn pressure_does_not_flutter() {
        let marks = marks(1_000, 1);
        let mut level = Level::Normal;
        let mut after = |held| {
            level = marks.level(held, level);
            level
        };
        assert_eq!(
            [200, 250, 251].map(&mut after),
            [Level::Normal, Level::Normal, Level::Full]
        );
        assert_eq!(
            [250, 189, 188].map(&mut after),
            [Level::Full, Level::Full, Level::Normal]
        );
        assert_eq!(after(250), Level::Normal);
    }

    #[test]
    fn a_large_packet_gets_its_time_again_for_every_stride() {
        assert!(!is_progress(0, FRAME_STRIDE - 1));
        assert!(is_progress(FRAME_STRIDE - 1, 1));
        assert!(!is_progress(FRAME_STRIDE, 10));
        assert!(is_progress(10, 3 * FRAME_STRIDE));
    }
}
