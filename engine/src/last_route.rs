//! Where a publisher's latest topic led to.
//!
//! Most publishers use one topic over and over. From the second time on its hash and its walk of the trie are
//! remembered, as long as no Subscription has changed since; a publisher that changes its topic each time costs one
//! comparison of hashes.

use alloc::{boxed::Box, string::String};
use core::cell::Cell;

use crate::rights::RulesNumber;
use crate::topic_tree::{FilterKey, Matches, TopicTree};

/// Filters that are worth remembering; a topic that matches more pays for the walk.
const FILTERS_MAX: usize = 4;
/// Bytes of a topic that are worth remembering: every connection may hold as many.
const TOPIC_BYTES_MAX: usize = 256;

/// No generation of a tree.
const NEVER: u64 = u64::MAX;

/// A publisher's latest topic.
#[derive(Debug, Default)]
pub(crate) struct LastRoute {
    hash: u64,
    /// Empty until the topic came twice in a row.
    topic: String,
    /// The rules by which the client may publish to that topic; 0 for none.
    allowed: Cell<u16>,
    /// PUBLISH packets and Topic Filters of this client that it had no right to.
    pub(crate) refused: u32,
    /// When the tree led to what follows; [`NEVER`] if that is not worth remembering.
    generation: u64,
    shards: u64,
    filters: [FilterKey; FILTERS_MAX],
    count: usize,
}

impl LastRoute {
    /// Whether the client may publish to this topic by the rules of that number.
    #[inline]
    pub(crate) fn is_allowed(&self, topic: &str, rules: RulesNumber) -> bool {
        self.allowed.get() == rules.get() && self.topic == topic
    }

    /// The client may publish to this topic by the rules of that number.
    pub(crate) fn allow(&self, topic: &str, rules: RulesNumber) {
        if self.topic == topic {
            self.allowed.set(rules.get());
        }
    }
}

/// Finds where a topic leads to, and returns its hash.
pub(crate) fn find(tree: &TopicTree, last: &mut Option<Box<LastRoute>>, topic: &str, matches: &mut Matches) -> u64 {
    matches.clear();
    if let Some(last) = last
        && last.generation == tree.generation()
        && last.topic == topic
    {
        matches
            .filters
            .extend_from_slice(last.filters.get(..last.count).unwrap_or_default());
        matches.shards = last.shards;
        return last.hash;
    }
    let hash = tree.topic_hash(topic);
    tree.matches(topic, hash, matches);
    let last = last.get_or_insert_default();
    if last.hash != hash {
        last.hash = hash;
        last.topic.clear();
        last.allowed.set(0);
        return hash;
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return hash;
    }
    if last.topic != topic {
        last.topic.clear();
        last.topic.push_str(topic);
        last.allowed.set(0);
    }
    last.generation = NEVER;
    if matches.groups.is_empty() && matches.filters.len() <= FILTERS_MAX {
        last.generation = tree.generation();
        last.shards = matches.shards;
        last.count = matches.filters.len();
        for (slot, filter) in last.filters.iter_mut().zip(&matches.filters) {
            *slot = *filter;
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionKey;
    use crate::topic_tree::Subscription;

    /// What is remembered is what the tree says, through every change of topic and of Subscriptions.
    #[test]
    fn a_remembered_route_is_never_stale() {
        let mut tree = TopicTree::new([1, 2, 3, 4]);
        let mut last = None;
        let subscription = |key| Subscription {
            session: SessionKey(key),
            sub_id: 0,
            readable: 0,
            options: 0,
        };
        let mut check = |tree: &TopicTree, topic: &str| {
            for _ in 0..3 {
                let (mut found, mut expected) = (Matches::default(), Matches::default());
                let hash = find(tree, &mut last, topic, &mut found);
                tree.matches(topic, hash, &mut expected);
                assert_eq!(hash, tree.topic_hash(topic));
                assert_eq!((&found.filters, found.shards), (&expected.filters, expected.shards));
                assert_eq!(found.groups, expected.groups);
            }
        };
        check(&tree, "a/b");
        for (key, filter) in ["a/b", "a/+", "#", "+/b", "a/#", "+/+"].into_iter().enumerate() {
            tree.subscribe(filter, subscription(key as u32));
            check(&tree, "a/b");
            check(&tree, "a/c");
        }
        tree.group_join("a/b", "share", subscription(9), true);
        check(&tree, "a/b");
        tree.interest_add("a/+", 3);
        check(&tree, "a/b");
        for (key, filter) in ["a/b", "a/+", "#", "+/b", "a/#", "+/+"].into_iter().enumerate() {
            tree.unsubscribe(filter, SessionKey(key as u32));
            check(&tree, "a/b");
        }
    }
}
