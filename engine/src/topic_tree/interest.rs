//! Which other shards want what this shard's publishers send.
//!
//! Filters with wildcards are entries of the trie. Of a filter without, only a keyed hash is kept, which costs 16
//! bytes instead of the text: if two filters share a hash, a message is forwarded in vain, and nothing else happens.

use super::{Listeners, TopicTree, is_wildcard};

/// The shards that want the exact filters of one hash.
pub(super) struct ExactInterest {
    pub(super) hash: u64,
    pub(super) shards: u64,
}

impl TopicTree {
    /// Notes that `shard` (at most 63) has subscribers of `filter`, which has a wildcard; false if that was known.
    pub fn interest_add(&mut self, filter: &str, shard: u16) -> bool {
        debug_assert!(is_wildcard(filter), "exact filters are told by hash");
        let key = self.make_key(filter);
        self.change_shards(key, |shards| shards | bit(shard))
    }

    /// Notes that `shard` has none any more; false if that was known.
    pub fn interest_remove(&mut self, filter: &str, shard: u16) -> bool {
        let Some(key) = self.find_key(filter) else { return false };
        let changed = self.change_shards(key, |shards| shards & !bit(shard));
        self.forget_idle_filter(key);
        changed
    }

    /// Notes that `shard` (at most 63) has subscribers of an exact filter with that [`hash`](Self::topic_hash); false
    /// if that was known.
    pub fn exact_interest_add(&mut self, hash: u64, shard: u16) -> bool {
        let entry = self
            .exact_interest
            .entry(hash, |interest| interest.hash == hash, |interest| interest.hash);
        let shards = &mut entry.or_insert(ExactInterest { hash, shards: 0 }).into_mut().shards;
        let known = *shards;
        *shards |= bit(shard);
        let changed = *shards != known;
        self.generation += u64::from(changed);
        changed
    }

    /// Notes that `shard` has none any more; false if that was known.
    pub fn exact_interest_remove(&mut self, hash: u64, shard: u16) -> bool {
        let Ok(mut entry) = self.exact_interest.find_entry(hash, |interest| interest.hash == hash) else {
            return false;
        };
        let known = entry.get().shards;
        let left = known & !bit(shard);
        entry.get_mut().shards = left;
        if left == 0 {
            entry.remove();
        }
        self.generation += u64::from(left != known);
        left != known
    }

    /// How many exact filters with that hash have subscribers here, groups not counted: the first and the last is what
    /// other shards are told.
    #[must_use]
    pub fn exact_hash_count(&self, hash: u64) -> usize {
        let mut count = 0;
        self.exact_index.find(hash, |slot| {
            let filter = self.exact.at(slot);
            let listened = !filter.listeners.subscriptions().is_empty();
            count += usize::from(listened && self.topic_hash(filter.text.as_str()) == hash);
            false
        });
        count
    }

    fn change_shards(&mut self, key: super::FilterKey, change: impl FnOnce(u64) -> u64) -> bool {
        let Some(listeners) = self.listeners_mut(key) else {
            return false;
        };
        let known = listeners.shards();
        let shards = change(known);
        if shards != known {
            Listeners::set_shards(listeners, shards);
            self.generation += 1;
        }
        shards != known
    }
}

/// A shard beyond the 64 that a set holds is a mistake of the configuration, not of a peer.
pub(crate) fn bit(shard: u16) -> u64 {
    assert!(shard < 64, "at most 64 shards");
    1 << shard
}
