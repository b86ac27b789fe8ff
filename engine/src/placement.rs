//! Where things live: keyed hashes that all shards share.

use ahash::RandomState;

use crate::ids::ShardId;
use crate::message::Origin;
use crate::topic_tree::hash_text;

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

/// Where a node's Sessions and retained messages live, for whoever hands records out to its engines: those have to be made
/// with the same seeds.
#[derive(Clone, Debug)]
pub struct Homes(Placement);

impl Homes {
    /// Those of a node with so many shards.
    #[must_use]
    pub fn new(seeds: [u64; 4], shards: u16) -> Self {
        let [a, b, c, d] = seeds;
        Self(Placement::new(RandomState::with_seeds(a, b, c, d), shards))
    }

    /// Who a message of this client is by.
    #[must_use]
    pub fn origin(&self, client_id: &str) -> Origin {
        self.0.origin(client_id)
    }

    /// The shard of a Client Identifier's Session.
    #[must_use]
    pub fn of_client(&self, client_id: &str) -> ShardId {
        self.0.home_of(self.0.origin(client_id))
    }

    /// The shard of a Topic Name's retained message.
    #[must_use]
    pub fn of_topic(&self, topic: &str) -> ShardId {
        self.0.home_of_hash(hash_text(&self.0.hasher, topic.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records are handed to the engines that look for them.
    #[test]
    fn homes_are_where_engines_are_at_home() {
        let seeds = [1, 2, 3, 4];
        let config = crate::EngineConfig {
            shards: 5,
            ..crate::EngineConfig::default()
        };
        let config = alloc::rc::Rc::new(config);
        let homes = Homes::new(seeds, 5);
        for shard in (0..5).map(ShardId) {
            let engine = crate::Engine::new(shard, alloc::rc::Rc::clone(&config), seeds);
            for n in 0..100 {
                let name = alloc::format!("name/{n}");
                assert_eq!(engine.is_home_of_client(&name), homes.of_client(&name) == shard);
                assert_eq!(engine.is_home_of_topic(&name), homes.of_topic(&name) == shard);
            }
        }
    }

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
