//! The names that shards, connections and Sessions go by.

use core::num::NonZeroU32;

/// A shard: one engine on one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A listener, by its place in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// A Network Connection of one shard: a slot of the transport's table and the generation of its tenant, so that a late
/// effect or event cannot reach the slot's next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: NonZeroU32,
}

impl ConnectionId {
    /// The tenant number `generation` of `slot`. The transport chooses both: slots small and dense, generations
    /// different for each tenant of a slot.
    #[must_use]
    pub const fn new(slot: u32, generation: NonZeroU32) -> Self {
        Self { slot, generation }
    }

    /// The slot, an index.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// Which tenant of the slot.
    #[must_use]
    pub const fn generation(self) -> NonZeroU32 {
        self.generation
    }
}

/// A Session of one shard, by its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u32);
