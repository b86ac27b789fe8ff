//! Memory that connections hold outside of the engine, all together: parts of packets, and output that is not taken. And
//! what other shards have, of all that is limited for the whole broker.
//!
//! Each is bounded for one connection, and many of them are not bounded by that. Above a mark the engine hears of
//! pressure, so that nothing more is taken in to be kept; above a limit whoever holds most is closed. And a packet has to
//! arrive whole in bounded time, or a part of it would be held for as long as its peer likes.

use std::cmp::Reverse;

use sol_engine::{ConnectionId, Elsewhere, EngineConfig, Flow, Input, Level, TALLIES_MAX, Tally};

use super::Core;
use crate::conns::{Conn, Phase};
use crate::download::STRIDE;
use crate::observer::{Notice, Observer};
use crate::whole::{Bytes, step};

/// How often an unfinished packet is looked at in the time that it has: it stays longer by a part of that at most.
pub(super) const FRAME_LOOKS: u32 = 4;

/// How much may be held in all shards, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Above it the engine is told.
    high: usize,
    /// Above it connections are closed.
    max: usize,
    /// How much all engines and transports may keep.
    all: usize,
    /// By how much shards may be wrong about each other.
    error: usize,
    /// Less is not told to anybody.
    step: usize,
}

/// What a shard knows of the others, and what it told its engine.
#[derive(Debug, Default)]
pub(super) struct Others {
    bytes: Bytes,
    /// Bytes that its engine was told are kept elsewhere.
    told: usize,
    /// How scarce it is what transports may hold.
    held: Level,
    /// The limit of memory is met for all, and this shard's engine has found that and said so.
    full: bool,
    said_full: bool,
    /// They may keep somebody waiting here, so their relief must be seen.
    pressing: bool,
}

impl Marks {
    /// A quarter of what the engine itself may keep, and up to a half where a single packet would pass that: or its
    /// publisher would be refused for the sake of its own packet.
    pub(super) fn new(engine: &EngineConfig) -> Self {
        let (quarter, half) = (engine.memory_bytes_max / 4, engine.memory_bytes_max / 2);
        let packets = (engine.maximum_packet_size as usize).saturating_mul(2);
        let high = if packets < quarter {
            quarter
        } else if packets > half {
            half
        } else {
            packets
        };
        let step = step(engine.memory_bytes_max, engine.shards);
        Self {
            high,
            max: high.saturating_mul(2),
            all: engine.memory_bytes_max,
            error: step.saturating_mul(usize::from(engine.shards) + 2),
            step,
        }
    }

    /// What is left when connections were closed for it: enough that it is not done again for every packet.
    const fn low(self) -> usize {
        self.max - self.max / 8
    }

    /// Whether somebody may have to wait while so much is kept, by as much as one shard can know.
    const fn presses(self, bytes: Bytes) -> bool {
        let held = (self.high - self.high / 4).saturating_sub(self.error);
        bytes.held > held || self.is_near(bytes)
    }

    /// Whether an engine that was full may still be, by as much as one shard can know: a twentieth must be free.
    const fn is_near(self, bytes: Bytes) -> bool {
        bytes.total() >= (self.all - self.all / 20).saturating_sub(self.error)
    }

    /// How much may be held before who was not let in is given nothing more: by then nobody waits for memory.
    const fn for_readers(self) -> usize {
        self.high - self.high / 4
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

    fn own_bytes(&self) -> Bytes {
        Bytes {
            charged: self.engine.memory_bytes(),
            held: self.held_bytes(),
        }
    }

    /// At the end of a turn: closes who holds most if too much is held, and tells the engine how scarce memory is, and the
    /// other shards what is kept here. `true`: something is to be done for it.
    pub(super) fn weigh(&mut self) -> bool {
        let marks = self.rules.memory;
        if !self.is_alone() {
            self.publish();
            self.others.full = self.is_whole_full();
        }
        let shed = self.shed_readers();
        let own = self.held_bytes().saturating_sub(shed);
        let held = own.saturating_add(self.others.bytes.held);
        let is_too_much = held > marks.max && self.is_largest(own, self.others.bytes.held);
        if is_too_much {
            self.shed(held.saturating_sub(marks.low()), |conn| {
                conn.kept_capacity().saturating_add(conn.blocked_bytes())
            });
        }
        self.tell_memory(own) || is_too_much || shed > 0
    }

    /// Adds what is kept here to the sums, and has the other shards look where one of them may have to do something about
    /// it: let somebody go on, or close whoever holds most.
    fn publish(&mut self) {
        let (marks, own) = (self.rules.memory, self.own_bytes());
        let whole = &self.mailbox.exchange().whole;
        let changed = self.share.set_bytes(whole, own, marks.step);
        self.others.bytes = self.share.others(whole);
        let Some((before, after)) = changed else { return };
        let relieves = marks.presses(before) && !marks.presses(after);
        // With every step, and not once: whoever looks may find too much only by what it has not added itself yet.
        let exceeds =
            after.held > marks.max && after.held > before.held && !self.is_largest(own.held, self.others.bytes.held);
        if relieves || exceeds {
            self.mailbox.nudge_others();
        }
    }

    /// At the beginning of a turn, and before a connection is let in: tells the engine what has changed on other shards
    /// since the last time.
    pub(super) fn look_at_others(&mut self) {
        if self.is_alone() {
            return;
        }
        let (bytes, full) = (self.share.others(&self.mailbox.exchange().whole), self.is_whole_full());
        if bytes != self.others.bytes || full != self.others.full {
            self.others.bytes = bytes;
            self.others.full = full;
            self.tell_memory(self.held_bytes());
        }
    }

    /// Before anything leaves: if the engine has found the limit of memory met, every shard is to know before anybody hears
    /// of it.
    #[inline]
    pub(super) fn tell_full(&mut self) {
        if self.is_alone() || self.engine.has_met_memory_max() == self.others.said_full {
            return;
        }
        self.others.said_full = !self.others.said_full;
        if self.others.said_full {
            let own = self.own_bytes();
            let whole = &self.mailbox.exchange().whole;
            // Or others would find room by what they know.
            self.share.set_bytes(whole, own, 1);
            whole.find_full();
        }
    }

    /// Whether the limit of memory is met for all. Once it is, it stays so until no engine can take it to be still met.
    fn is_whole_full(&mut self) -> bool {
        self.tell_full();
        let (marks, has_met) = (self.rules.memory, self.others.said_full);
        let whole = &self.mailbox.exchange().whole;
        if whole.find_room(|bytes| has_met || marks.is_near(bytes)) {
            self.mailbox.nudge_others();
        }
        whole.is_full()
    }

    /// Whether what other shards keep has changed, since this one looked, so that it has to do something about it.
    pub(super) fn must_look(&self) -> bool {
        self.is_relieved() || self.is_exceeded()
    }

    /// Whether other shards pressed when this one looked, and do no more.
    fn is_relieved(&self) -> bool {
        let whole = &self.mailbox.exchange().whole;
        self.others.pressing && !self.rules.memory.presses(whole.bytes()) || self.others.full && !whole.is_full()
    }

    /// Whether other shards hold more than when this one looked, too much, and it is here that some of it is to be closed.
    fn is_exceeded(&self) -> bool {
        let whole = &self.mailbox.exchange().whole;
        if whole.bytes().held <= self.rules.memory.max {
            return false;
        }
        let others = self.share.others(whole).held;
        others > self.others.bytes.held && self.is_largest(self.held_bytes(), others)
    }

    /// Tells the engine what of the memory is kept elsewhere, and how scarce what may be held is.
    fn tell_memory(&mut self, own_held: usize) -> bool {
        let marks = self.rules.memory;
        let others = self.others.bytes;
        let elsewhere = others.total().saturating_add(own_held);
        let has_grown = elsewhere.abs_diff(self.others.told) >= marks.step || elsewhere == 0 && self.others.told > 0;
        if has_grown {
            self.others.told = elsewhere;
            self.tell(None, Input::Elsewhere(Elsewhere::Memory(elsewhere)));
        }
        self.others.held = marks.level(own_held.saturating_add(others.held), self.others.held);
        let level = if self.others.full {
            Level::Full
        } else {
            self.others.held
        };
        let has_changed = level != self.pressure;
        if has_changed {
            self.pressure = level;
            self.tell(None, Input::Pressure(level));
        }
        self.others.pressing = marks.presses(others.and(self.share.bytes()));
        has_grown || has_changed
    }

    /// Whether this is the only shard.
    fn is_alone(&self) -> bool {
        self.mailbox.exchange().len() == 1
    }

    /// Whether this shard, with `own` bytes, holds as much as others do: whoever holds most is there, or as good as.
    fn holds_its_part(&self, own: usize, others: usize) -> bool {
        own >= own.saturating_add(others) / self.mailbox.exchange().len()
    }

    /// The same by what each has added to the sums, or there might be no such shard.
    fn is_largest(&self, own: usize, others: usize) -> bool {
        self.holds_its_part(own.max(self.share.bytes().held), others)
    }

    /// Within a turn, which may bring a part of a packet from every connection. What output will be taken is not known
    /// then.
    #[inline]
    pub(super) fn shed_input(&mut self) {
        let marks = self.rules.memory;
        let (kept, others) = (self.conns.kept_bytes, self.others.bytes.held);
        let held = kept.saturating_add(others);
        if held <= marks.max {
            return;
        }
        if self.holds_its_part(kept, others) {
            self.shed(held.saturating_sub(marks.low()), Conn::kept_capacity);
        } else {
            self.publish();
        }
    }

    /// Gives the engine an input while a place is held, if it may let a connection in: of all shards no more are let in than
    /// may be. Panics when the engine does.
    pub(super) fn handle_login(&mut self, input: Input<'_>) -> Flow {
        if !self.engine.may_let_in(&input) {
            return self.handle(input);
        }
        self.look_at_others();
        let others = self.share.hold_place(&self.mailbox.exchange().whole);
        let _ = self.handle(Input::Elsewhere(Elsewhere::Connections(others)));
        if let Some(listener) = self.engine.limited_listener(&input) {
            let others = self.share.hold_place_of(&self.mailbox.exchange().whole, listener);
            let _ = self.handle(Input::Elsewhere(Elsewhere::ConnectionsOf(listener, others)));
        }
        let tallies = self.engine.limited_tallies(&input);
        if tallies.iter().any(Option::is_some) {
            self.hold_tallies(tallies);
        }
        let flow = self.handle(input);
        self.give_place_back();
        flow
    }

    /// Holds a place in each of these, and tells the engine how much of them others have.
    fn hold_tallies(&mut self, tallies: [Option<Tally>; TALLIES_MAX]) {
        self.tell_tallies();
        self.share.holds_tallies = tallies;
        let whole = &self.mailbox.exchange().whole;
        let others = tallies.map(|tally| {
            let tally = tally?;
            Some((
                tally,
                whole.tallies.hold(tally).saturating_sub(self.engine.tally(tally)),
            ))
        });
        let _ = self.handle(Input::Elsewhere(Elsewhere::Tallies(others)));
    }

    /// Tells the other shards what there is here of what is counted by name.
    fn tell_tallies(&mut self) {
        let Self { engine, mailbox, .. } = self;
        while let Some((tally, grown)) = engine.next_tally_change() {
            mailbox.exchange().whole.tallies.add(tally, grown);
        }
    }

    /// Gives back the place that is held, if one is, after the engine has taken what it needs or failed.
    pub(super) fn give_place_back(&mut self) {
        let held = std::mem::take(&mut self.share.holds_tallies);
        if held.iter().any(Option::is_some) {
            // First what has come of it: in between nobody may have the place.
            self.tell_tallies();
            let whole = &self.mailbox.exchange().whole;
            held.into_iter()
                .flatten()
                .for_each(|tally| whole.tallies.release(tally));
        }
        let whole = &self.mailbox.exchange().whole;
        self.share.settle(whole, self.engine.connections());
        if let Some(listener) = self.share.place_of() {
            self.share.settle_of(whole, self.engine.connections_of(listener));
        }
    }

    /// Tells the other shards how many connections are let in here.
    pub(super) fn count_connections(&mut self) {
        self.tell_tallies();
        let connections = self.engine.connections();
        let whole = &self.mailbox.exchange().whole;
        self.share.set_connections(whole, connections);
        for listener in self.engine.limited_listeners() {
            self.share
                .set_connections_of(whole, listener, self.engine.connections_of(listener));
        }
    }

    /// How much more may be held in all shards before anybody waits for it.
    pub(super) fn memory_for_readers(&self) -> usize {
        let held = self.held_bytes().saturating_add(self.others.bytes.held);
        self.rules.memory.for_readers().saturating_sub(held)
    }

    /// Closes those who are sent a file, before anybody waits for the memory that they hold. Gives how much that sets free.
    fn shed_readers(&mut self) -> usize {
        let mut freed = 0_usize;
        if self.conns.blocked_piece_bytes == 0 {
            return freed;
        }
        let held = self.held_bytes().saturating_add(self.others.bytes.held);
        let excess = held.saturating_sub(self.rules.memory.for_readers());
        while freed < excess
            && let Some(id) = self.longest_reader(|conn| conn.blocked_bytes() > 0)
            && let Some(conn) = self.conns.get(id)
        {
            freed = freed.saturating_add(conn.blocked_bytes());
            self.counters.shed += 1;
            self.observer.notice(Notice::Shed(conn.source()));
            self.lose(id);
        }
        freed
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
            && conn.partial_since().is_some()
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
            match conn.partial_since() {
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
    len / STRIDE < len.saturating_add(more) / STRIDE
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
        let of = |high, max| (high, max);
        let marks = |memory, packet| {
            let marks = marks(memory, packet);
            (marks.high, marks.max)
        };
        assert_eq!(marks(1_000, 1), of(250, 500));
        assert_eq!(marks(1_000, 200), of(400, 800));
        assert_eq!(marks(1_000, u32::MAX), of(500, 1_000));
        // Without a limit there is none here either.
        assert_eq!(marks(usize::MAX, 1).1, usize::MAX / 4 * 2);
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
        assert!(!is_progress(0, STRIDE - 1));
        assert!(is_progress(STRIDE - 1, 1));
        assert!(!is_progress(STRIDE, 10));
        assert!(is_progress(10, 3 * STRIDE));
    }
}
