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

#[cfg(test)]
mod tests {
    use super::*;

    /// Client Identifiers that an attacker has chosen for one shard of a process whose key is known are spread by any
    /// other key.
    #[test]
    fn nobody_can_aim_at_a_shard() {
        const SHARDS: u16 = 4;
        let placement = |key: u64| Placement::new(RandomState::with_seeds(key, 2, 3, 4), SHARDS);
        let (known, real) = (placement(1), placement(99));
        let home = |placement: &Placement, name: &str| placement.home_of(placement.origin(name));
        let mut homes = [0_usize; SHARDS as usize];
        let names = (0_u32..).map(|n| alloc::format!("attacker{n}"));
        for name in names.filter(|name| home(&known, name) == ShardId(0)).take(4_000) {
            homes[usize::from(home(&real, &name).0)] += 1;
        }
        assert!(homes.iter().all(|&count| (850..1_150).contains(&count)), "{homes:?}");
    }
}
