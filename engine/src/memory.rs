//! What is kept is charged: `charge` and `refund` are the only way in and out.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::clients::Clients;
use crate::effects::Effects;
use crate::engine::Engine;
use crate::event::Event;
use crate::ids::SessionKey;
use crate::input::{Level, OwnedConnect, OwnedWill};

/// Bytes charged for a Session beyond what hangs on it.
pub(crate) const SESSION_BYTES: usize = 256;
/// Bytes charged for a Subscription beyond its filter's text.
pub(crate) const SUBSCRIPTION_BYTES: usize = 96;
/// Bytes charged for a retained message beyond itself and its topic as a key.
pub(crate) const RETAINED_BYTES: usize = 64;
/// Bytes charged for a Will beyond what it says.
pub(crate) const WILL_BYTES: usize = 96;
/// Bytes charged for a reference to a message.
pub(crate) const REFERENCE_BYTES: usize = 64;

/// Bytes of Will and User Name that a client may bring although memory is full, unless it has more already: whoever comes
/// to take what is queued must get in. More is an attacker's way around the limit.
pub(crate) const BAGGAGE_BYTES_MAX: usize = 1_024;

/// How far the memory is used up that there may be, and what is not done any more for it. Each is left again when a
/// twentieth of the memory more is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryLevel {
    /// Less than four fifths.
    #[default]
    Plenty,
    /// Four fifths: nothing new that lasts is taken on. Sessions that outlive their connection, retained messages of new
    /// topics, and large Wills and User Names are refused.
    Tight,
    /// Nine tenths: what would be queued is refused where its publisher can be told, and a client that does not take its QoS 0
    /// at once loses it.
    Scarce,
    /// All: nothing is kept any more. What ends something goes on: acknowledgements, PINGREQ, deliveries, clients that come
    /// for what is theirs.
    Full,
}

/// A shard's account.
#[derive(Debug)]
pub(crate) struct Memory {
    used: usize,
    /// What all together may use.
    max: usize,
    /// What others use of it.
    elsewhere: usize,
    /// What is left of it for this shard.
    share: usize,
    peak: usize,
    /// Pressure from outside: what transports hold.
    pub(crate) outside: Level,
    full: bool,
    /// As it was when somebody looked last.
    level: MemoryLevel,
    /// What was said of it last.
    told: MemoryLevel,
}

impl Memory {
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            used: 0,
            max,
            elsewhere: 0,
            share: max,
            peak: 0,
            outside: Level::Normal,
            full: false,
            level: MemoryLevel::Plenty,
            told: MemoryLevel::Plenty,
        }
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.settle();
    }

    /// Of the limit others use this much.
    pub(crate) fn set_elsewhere(&mut self, bytes: usize) {
        self.elsewhere = bytes;
        self.settle();
    }

    fn settle(&mut self) {
        // Without a limit it does not matter how much others use.
        self.share = if self.max == usize::MAX {
            usize::MAX
        } else {
            self.max.saturating_sub(self.elsewhere)
        };
        self.full |= self.used > self.share;
        // A shard that is idle hears of the others and has no turn of its own behind that.
        self.look();
    }

    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    pub(crate) const fn peak(&self) -> usize {
        self.peak
    }

    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
        self.full |= self.used > self.share;
    }

    #[inline]
    pub(crate) const fn refund(&mut self, bytes: usize) {
        debug_assert!(self.used >= bytes, "refunded more than was charged");
        self.used = self.used.saturating_sub(bytes);
    }

    /// Whether nothing more may be kept. Once full, it stays so until a twentieth is free, so that it does not flutter.
    pub(crate) const fn is_full(&mut self) -> bool {
        self.full &= !self.has_room();
        self.full || matches!(self.outside, Level::Full)
    }

    /// What [`is_full`](Self::is_full) would say.
    pub(crate) const fn would_be_full(&self) -> bool {
        self.has_met_max() || matches!(self.outside, Level::Full)
    }

    /// The same, pressure from outside left out.
    pub(crate) const fn has_met_max(&self) -> bool {
        self.full && !self.has_room()
    }

    /// Looks how far the memory is used up. Pressure from outside is no level: that is not what the limit is of.
    fn look(&mut self) {
        let used = if self.max == usize::MAX {
            0
        } else {
            self.used.saturating_add(self.elsewhere)
        };
        let max = self.max;
        let marks = [
            (MemoryLevel::Scarce, max.saturating_sub(max / 10)),
            (MemoryLevel::Tight, max.saturating_sub(max / 5)),
        ];
        let at = |more: usize| {
            let met = marks.iter().find(|(_, mark)| used.saturating_add(more) >= *mark);
            met.map_or(MemoryLevel::Plenty, |&(level, _)| level)
        };
        self.level = if self.has_met_max() {
            MemoryLevel::Full
        } else {
            // Down only as far as it would not come up again at once.
            at(0).max(self.level.min(at(max / 20)))
        };
    }

    /// Looks, and gives the level if it is another than was said last.
    pub(crate) fn say(&mut self) -> Option<MemoryLevel> {
        self.look();
        (core::mem::replace(&mut self.told, self.level) != self.level).then_some(self.level)
    }

    pub(crate) const fn level(&self) -> MemoryLevel {
        self.level
    }

    /// Whether nothing new that lasts is taken on.
    pub(crate) fn is_tight(&mut self) -> bool {
        // What was full when somebody looked last may have room by now.
        matches!(self.level, MemoryLevel::Tight | MemoryLevel::Scarce) || self.is_full()
    }

    /// Whether nothing is queued any more that can be refused.
    #[inline]
    pub(crate) fn is_scarce(&mut self) -> bool {
        matches!(self.level, MemoryLevel::Scarce) || self.is_full()
    }

    const fn has_room(&self) -> bool {
        self.used < self.share.saturating_sub(self.max / 20)
    }
}

impl Clients {
    /// Looks how far memory is used up, once a turn, and says so when that is another level.
    pub(crate) fn look_at_memory(&mut self, effects: &mut Effects) {
        if let Some(level) = self.memory.say() {
            effects.events.push(Event::Memory(level));
        }
        self.mark_clogged();
    }

    /// From how many unsent bytes on QoS 0 is dropped. Pressure from outside changes nothing here: where it comes of output
    /// that is not taken, whoever holds most of that is closed.
    pub(crate) fn mark_clogged(&mut self) {
        self.unsent_bytes_high = match self.memory.level() {
            MemoryLevel::Plenty | MemoryLevel::Tight => self.config.unsent_bytes_high,
            MemoryLevel::Scarce | MemoryLevel::Full => 0,
        };
    }
}

impl Engine {
    /// Whether there is no memory for a client. One that has a Session comes to have what is queued for it, and frees more
    /// than it brings: until all is full it may bring what it likes, and then as much as it had.
    pub(crate) fn has_no_memory_for(&mut self, connect: &OwnedConnect, known: Option<SessionKey>) -> bool {
        let will = connect.will.as_deref().map_or(0, OwnedWill::charge);
        let baggage = will.saturating_add(connect.username.as_deref().map_or(0, str::len));
        let Some(session) = known.and_then(|key| self.clients.sessions.get(key)) else {
            let takes_memory = connect.session_expiry_interval > 0 || baggage > BAGGAGE_BYTES_MAX;
            return takes_memory && self.clients.memory.is_tight();
        };
        let will = session.will.as_deref().map_or(0, OwnedWill::charge);
        let has = will.saturating_add(session.username().map_or(0, str::len));
        baggage > has.max(BAGGAGE_BYTES_MAX) && self.clients.memory.is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_met_in_order_and_left_when_a_twentieth_more_is_free() {
        // An operator reads each change, so that it must not flutter.
        use MemoryLevel::{Full, Plenty, Scarce, Tight};
        let mut memory = Memory::new(1_000);
        let mut at = |used: usize| {
            memory.used = used;
            memory.charge(0);
            memory.look();
            memory.level()
        };
        let steps = [799, 800, 899, 900, 1_000, 1_001, 951].map(&mut at);
        assert_eq!(steps, [Plenty, Tight, Tight, Scarce, Scarce, Full, Full]);
        let steps = [949, 851, 849, 751, 749].map(&mut at);
        assert_eq!(steps, [Scarce, Scarce, Tight, Tight, Plenty]);
    }

    #[test]
    fn what_others_use_counts_and_what_is_full_outside_is_full() {
        let mut memory = Memory::new(1_000);
        memory.charge(100);
        memory.set_elsewhere(750);
        assert!(memory.is_tight(), "before anybody has said so");
        assert_eq!(memory.say(), Some(MemoryLevel::Tight));
        assert_eq!(memory.say(), None);
        memory.outside = Level::Full;
        assert_eq!(memory.say(), None, "max_memory is not met");
        assert!(memory.is_full() && memory.is_scarce());
        memory.outside = Level::Normal;
        memory.set_elsewhere(0);
        assert!(!memory.is_tight());
        assert_eq!(memory.say(), Some(MemoryLevel::Plenty));
        let mut unlimited = Memory::new(usize::MAX);
        unlimited.charge(usize::MAX / 2);
        assert_eq!(unlimited.say(), None);
    }
}
