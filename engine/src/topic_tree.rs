//! The routing table of one shard: which Subscriptions, groups and other shards a Topic Name leads to (4.7).
//!
//! It takes validated filters and topics, and knows nothing of rights, of QoS, or of who is connected.
//!
//! ```text
//! let mut tree = TopicTree::new(seeds);
//! tree.subscribe("kitchen/+", Subscription { session, sub_id: 0, readable: 0, options });
//! tree.matches("kitchen/lamp", tree.topic_hash("kitchen/lamp"), &mut matches);
//! for &filter in &matches.filters { deliver(tree.subscribers(filter)) }
//! ```
//!
//! Filters without wildcards are found by one hash lookup of the whole topic, the others in a trie of their levels.
//! Both kinds are [`FilterKey`]s, and both have [`Listeners`]. Each table gives its slots to later entries, so a key is
//! good until its filter loses its last listener; [`TopicTree::generation`] tells that something changed.

mod filter_text;
mod index;
mod interest;
mod listeners;
#[cfg(test)]
pub(crate) mod naive;
mod shared;
mod slots;
mod texts;
mod trie;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use hashbrown::HashTable;

use crate::ids::SessionKey;
use filter_text::FilterText;
use index::Index;
use interest::ExactInterest;
pub(crate) use interest::bit;
use listeners::Listeners;
use slots::Slots;
use texts::Texts;
use trie::{Frontier, Place, Trie};

pub use shared::{Group, GroupJoin, GroupKey, GroupLeave, RemoteWeight, Weight};

/// Names one Topic Filter while somebody listens to it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FilterKey(pub u32);

impl FilterKey {
    /// The lowest bit tells the two tables apart.
    const fn new(slot: u32, wildcard: bool) -> Self {
        Self(slot << 1 | wildcard as u32)
    }

    const fn slot(self) -> u32 {
        self.0 >> 1
    }

    /// Whether the filter has a wildcard.
    #[must_use]
    pub const fn is_wildcard(self) -> bool {
        self.0 & 1 == 1
    }
}

/// One Session's wish to get what matches a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// Who subscribed.
    pub session: SessionKey,
    /// Subscription Identifier, 0 for none.
    pub sub_id: u32,
    /// The rules by which its Session may read all that the filter matches, which mean nothing here.
    pub readable: u16,
    /// Subscription Options, which mean nothing here.
    pub options: u8,
}

/// What [`TopicTree::subscribe`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribed {
    /// The filter.
    pub key: FilterKey,
    /// The Session's former Subscription to it.
    pub replaced: Option<Subscription>,
    /// Whether it is the filter's only Subscription on this shard, groups not counted.
    pub first: bool,
}

/// What [`TopicTree::unsubscribe`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed {
    /// The filter, which is gone if nobody else listens to it.
    pub key: FilterKey,
    /// Whether the filter has no Subscription left on this shard, groups not counted.
    pub last: bool,
}

/// Where a topic leads to. Kept and reused by the caller, so that a match allocates nothing.
#[derive(Default, Debug)]
pub struct Matches {
    /// Filters with Subscriptions on this shard, in no particular order.
    pub filters: Vec<FilterKey>,
    /// Groups, in no particular order.
    pub groups: Vec<GroupKey>,
    /// Other shards with Subscriptions, one bit each.
    pub shards: u64,
    frontier: Frontier,
}

impl Matches {
    /// Forgets what was found.
    pub fn clear(&mut self) {
        self.filters.clear();
        self.groups.clear();
        self.shards = 0;
    }

    fn add(&mut self, key: FilterKey, listeners: &Listeners) {
        if !listeners.subscriptions().is_empty() {
            self.filters.push(key);
        }
        self.groups.extend_from_slice(listeners.groups());
        self.shards |= listeners.shards();
    }
}

/// The routing table of one shard.
pub struct TopicTree {
    hasher: RandomState,
    exact: Slots<ExactFilter>,
    exact_index: Index,
    exact_interest: HashTable<ExactInterest>,
    wild: Slots<WildFilter>,
    trie: Trie,
    groups: Slots<Group>,
    shares: Texts,
    generation: u64,
}

struct ExactFilter {
    listeners: Listeners,
    text: FilterText,
}

struct WildFilter {
    listeners: Listeners,
    place: Place,
}

impl TopicTree {
    /// An empty table. All shards take the same `seeds`, which peers must not be able to guess.
    #[must_use]
    pub fn new(seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        let hasher = RandomState::with_seeds(a, b, c, d);
        Self {
            exact: Slots::new(),
            exact_index: Index::new(),
            exact_interest: HashTable::new(),
            wild: Slots::new(),
            trie: Trie::new(hasher.clone()),
            groups: Slots::new(),
            shares: Texts::new(hasher.clone()),
            hasher,
            generation: 0,
        }
    }

    /// The hash of a Topic Name, or of a filter without wildcards: the same on all shards.
    #[must_use]
    pub fn topic_hash(&self, topic: &str) -> u64 {
        hash_text(&self.hasher, topic.as_bytes())
    }

    /// Changes whenever a match may have become a different one, its Subscriptions included. What happens inside a
    /// group does not change it, only that a group comes or goes.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds a Subscription, or replaces the one of the same Session [MQTT-3.8.4-3].
    pub fn subscribe(&mut self, filter: &str, subscription: Subscription) -> Subscribed {
        self.generation += 1;
        let key = self.make_key(filter);
        let listeners = if key.is_wildcard() {
            &mut self.wild.at_mut(key.slot()).listeners
        } else {
            &mut self.exact.at_mut(key.slot()).listeners
        };
        let replaced = listeners.insert(subscription);
        Subscribed {
            key,
            replaced,
            first: listeners.subscriptions().len() == 1 && replaced.is_none(),
        }
    }

    /// Removes a Subscription; `None` if there was none.
    pub fn unsubscribe(&mut self, filter: &str, session: SessionKey) -> Option<Removed> {
        let key = self.find_key(filter)?;
        self.unsubscribe_key(key, session).map(|last| Removed { key, last })
    }

    /// Like [`unsubscribe`](Self::unsubscribe), for a Session that ends and knows its filters; says whether it was the
    /// filter's last Subscription on this shard.
    pub fn unsubscribe_key(&mut self, key: FilterKey, session: SessionKey) -> Option<bool> {
        let listeners = self.listeners_mut(key)?;
        listeners.remove(session)?;
        let last = listeners.subscriptions().is_empty();
        self.forget_idle_filter(key);
        self.generation += 1;
        Some(last)
    }

    /// The Session's Subscription to `filter`.
    #[must_use]
    pub fn find(&self, filter: &str, session: SessionKey) -> Option<&Subscription> {
        self.listeners(self.find_key(filter)?)?.find(session)
    }

    /// Notes by which rules a Session may read all that the filter matches.
    pub fn mark_readable(&mut self, key: FilterKey, session: SessionKey, readable: u16) {
        if let Some(subscription) = self
            .listeners_mut(key)
            .and_then(|listeners| listeners.find_mut(session))
        {
            subscription.readable = readable;
        }
    }

    /// Appends the text of the filter; nothing if it is gone.
    pub fn filter_of(&self, key: FilterKey, out: &mut String) {
        if !key.is_wildcard() {
            out.push_str(self.exact.get(key.slot()).map_or("", |filter| filter.text.as_str()));
        } else if let Some(filter) = self.wild.get(key.slot()) {
            self.trie.write(filter.place, out);
        }
    }

    /// The filter's Subscriptions on this shard, in the order of their Sessions; none if it is gone.
    #[must_use]
    pub fn subscribers(&self, key: FilterKey) -> &[Subscription] {
        self.listeners(key).map_or(&[], Listeners::subscriptions)
    }

    /// Adds to `out` where `topic`, whose [`topic_hash`](Self::topic_hash) is `hash`, leads to: one lookup of the
    /// hash, one more if other shards listen to exact filters, and a walk through the trie along the topic.
    pub fn matches(&self, topic: &str, hash: u64, out: &mut Matches) {
        if let Some(slot) = self.exact_index.find(hash, |slot| self.exact.at(slot).text.is(topic)) {
            out.add(FilterKey::new(slot, false), &self.exact.at(slot).listeners);
        }
        if !self.exact_interest.is_empty() {
            let interest = self.exact_interest.find(hash, |interest| interest.hash == hash);
            out.shards |= interest.map_or(0, |interest| interest.shards);
        }
        let mut frontier = core::mem::take(&mut out.frontier);
        self.trie.walk(topic, &mut frontier, |slot| {
            out.add(FilterKey::new(slot, true), &self.wild.at(slot).listeners)
        });
        out.frontier = frontier;
    }

    /// Whether nobody listens to anything, and nothing is left of those who did.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let exact = self.exact.len() == 0 && self.exact_index.len() == 0 && self.exact_interest.is_empty();
        let wild = self.wild.len() == 0 && self.trie.is_empty();
        exact && wild && self.groups.len() == 0 && self.shares.len() == 0
    }

    fn find_key(&self, filter: &str) -> Option<FilterKey> {
        if is_wildcard(filter) {
            return self.trie.find(filter).map(|slot| FilterKey::new(slot, true));
        }
        let slot = self
            .exact_index
            .find(self.topic_hash(filter), |slot| self.exact.at(slot).text.is(filter))?;
        Some(FilterKey::new(slot, false))
    }

    /// The filter's key; a new filter must get a listener before anything else happens.
    fn make_key(&mut self, filter: &str) -> FilterKey {
        if let Some(key) = self.find_key(filter) {
            return key;
        }
        let listeners = Listeners::None;
        if is_wildcard(filter) {
            let place = self.trie.make(filter);
            let slot = self.wild.insert(WildFilter { listeners, place });
            self.trie.set(place, slot);
            return FilterKey::new(slot, true);
        }
        let slot = self.exact.insert(ExactFilter {
            listeners,
            text: FilterText::new(filter),
        });
        self.exact_index.insert(self.topic_hash(filter), slot);
        FilterKey::new(slot, false)
    }

    fn listeners(&self, key: FilterKey) -> Option<&Listeners> {
        if key.is_wildcard() {
            return self.wild.get(key.slot()).map(|filter| &filter.listeners);
        }
        self.exact.get(key.slot()).map(|filter| &filter.listeners)
    }

    fn listeners_mut(&mut self, key: FilterKey) -> Option<&mut Listeners> {
        if key.is_wildcard() {
            return self.wild.get_mut(key.slot()).map(|filter| &mut filter.listeners);
        }
        self.exact.get_mut(key.slot()).map(|filter| &mut filter.listeners)
    }

    fn forget_idle_filter(&mut self, key: FilterKey) {
        if !self.listeners(key).is_some_and(Listeners::is_none) {
            return;
        }
        let slot = key.slot();
        if key.is_wildcard() {
            if let Some(filter) = self.wild.remove(slot) {
                self.trie.clear(filter.place);
            }
        } else if let Some(filter) = self.exact.remove(slot) {
            self.exact_index.remove(self.topic_hash(filter.text.as_str()), slot);
        }
    }
}

/// Whether a filter has a wildcard. In a valid filter these characters are nothing else [MQTT-4.7.1-1].
#[must_use]
pub fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

pub(crate) fn hash_text(hasher: &RandomState, text: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(text);
    hasher.finish()
}
