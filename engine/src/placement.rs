//! Where things live: keyed hashes that all shards share.

use ahash::RandomState;

use crate::ids::ShardId;
use crate::message::Origin;

/// The hash that places Client Identifiers and Topic Names on their home shards. Its key is the process's own, so that
/// nobody outside can aim at one shard.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    hasher: RandomState,
    shards: u16,
}

impl Placement {
    pub(crate) const fn new(hasher: RandomState, shards: u16) -> Self {
        Self { hasher, shards }
    }

    /// The identity of a client, for No Local and for its home.
    pub(crate) fn origin(&self, client_id: &str) -> Origin {
        // 0 is the broker's own.
        Origin(self.hasher.hash_one(client_id).max(1))
    }

    /// The shard of a Session.
    pub(crate) fn home_of(&self, origin: Origin) -> ShardId {
        self.home_of_hash(origin.0)
    }

    /// The shard of a Topic Name's retained message.
    pub(crate) fn home_of_hash(&self, hash: u64) -> ShardId {
        // The upper bits scaled to the number of shards: a multiplication instead of a division.
        ShardId(((u128::from(hash) * u128::from(self.shards)) >> 64) as u16)
    }
}
