//! The trie of Topic Levels, which holds the filters with wildcards.
//!
//! A node is a chain of levels from the root. The children under a text are in one hash table for the whole trie,
//! keyed by parent and text; a `+` child is named in the node; a `#` is no node, but a second filter of its parent,
//! because it matches the parent level too [MQTT-4.7.1-2].

use alloc::string::String;
use alloc::vec::Vec;

use ahash::RandomState;
use sol_codec::mutants::mutant;

use super::hash_text;
use super::index::Index;
use super::slots::Slots;
use super::texts::{TextId, Texts};

/// The node above all levels. No node has it for a child, so it also says "none".
const ROOT: u32 = 0;
/// No filter ends here.
const NONE: u32 = u32::MAX;
/// The level of a `+`, which is no text: a number instead of an `Option` keeps a node at 24 bytes.
const PLUS: TextId = TextId::MAX;

/// Where a filter with wildcards ends: at a node, or at the `#` below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) node: u32,
    pub(super) multi: bool,
}

/// Nodes that a topic has reached, level by level; kept by the caller so that a walk allocates nothing.
#[derive(Default, Debug)]
pub(super) struct Frontier {
    here: Vec<u32>,
    next: Vec<u32>,
}

pub(super) struct Trie {
    hasher: RandomState,
    nodes: Slots<Node>,
    /// All children that have a text, by parent and text.
    edges: Index,
    levels: Texts,
}

struct Node {
    parent: u32,
    /// `PLUS` for the root too.
    level: TextId,
    /// The child `+`, or `ROOT`.
    plus: u32,
    /// How many children have a text: without any, a level need not be hashed.
    named: u32,
    /// Filters that end here and with a `#` below, or `NONE`.
    filter: u32,
    multi: u32,
}

impl Node {
    const fn new(parent: u32, level: TextId) -> Self {
        Self {
            parent,
            level,
            plus: ROOT,
            named: 0,
            filter: NONE,
            multi: NONE,
        }
    }

    const fn is_idle(&self) -> bool {
        self.plus == ROOT && self.named == 0 && self.filter == NONE && self.multi == NONE
    }

    const fn filter_mut(&mut self, multi: bool) -> &mut u32 {
        if multi { &mut self.multi } else { &mut self.filter }
    }
}

impl Trie {
    pub(super) fn new(hasher: RandomState) -> Self {
        let mut nodes = Slots::new();
        nodes.insert(Node::new(ROOT, PLUS));
        Self {
            levels: Texts::new(hasher.clone()),
            hasher,
            nodes,
            edges: Index::new(),
        }
    }

    /// The filter that ends where `filter` does.
    pub(super) fn find(&self, filter: &str) -> Option<u32> {
        let (path, multi) = split_multi(filter);
        let mut node = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            node = match level {
                "+" => Some(self.nodes.at(node).plus).filter(|&plus| plus != ROOT)?,
                _ => self.child(node, level.as_bytes(), hash_text(&self.hasher, level.as_bytes()))?,
            };
        }
        let node = &self.nodes.at(node);
        Some(if multi { node.multi } else { node.filter }).filter(|&filter| filter != NONE)
    }

    /// Makes the place where `filter` ends; it must be [`set`](Self::set) before anything else.
    pub(super) fn make(&mut self, filter: &str) -> Place {
        let (path, multi) = split_multi(filter);
        let mut node = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            node = match level {
                "+" => self.make_plus(node),
                _ => self.make_named(node, level),
            };
        }
        Place { node, multi }
    }

    pub(super) fn set(&mut self, place: Place, filter: u32) {
        *self.nodes.at_mut(place.node).filter_mut(place.multi) = filter;
    }

    /// Forgets the filter at `place`, and every level that only it used.
    pub(super) fn clear(&mut self, place: Place) {
        self.set(place, NONE);
        let mut index = place.node;
        while index != ROOT && self.nodes.at(index).is_idle() {
            let Some(node) = self.nodes.remove(index) else { return };
            if node.level == PLUS {
                self.nodes.at_mut(node.parent).plus = ROOT;
            } else {
                let hash = hash_text(&self.hasher, self.levels.text(node.level).as_bytes());
                self.edges.remove(hash_edge(&self.hasher, node.parent, hash), index);
                self.nodes.at_mut(node.parent).named -= 1;
                self.levels.release(node.level);
            }
            index = node.parent;
        }
    }

    /// Appends the text of the filter that ends at `place`.
    pub(super) fn write(&self, place: Place, out: &mut String) {
        let mut path = Vec::new();
        let mut index = place.node;
        while index != ROOT {
            let node = &self.nodes.at(index);
            path.push(if node.level == PLUS {
                "+"
            } else {
                self.levels.text(node.level)
            });
            index = node.parent;
        }
        path.reverse();
        if place.multi {
            path.push("#");
        }
        for (depth, level) in path.into_iter().enumerate() {
            if depth > 0 {
                out.push('/');
            }
            out.push_str(level);
        }
    }

    /// Calls `found` for each filter that matches `topic`.
    ///
    /// Each level of the topic is read once, and hashed at most once. A node is visited at most once, and only if
    /// the topic begins with its levels: with `+` beside texts, up to 2ⁿ nodes are in reach after n levels, but each
    /// is part of a filter that somebody subscribed to, so the bound on subscriptions bounds this walk too.
    pub(super) fn walk(&self, topic: &str, frontier: &mut Frontier, mut found: impl FnMut(u32)) {
        let Frontier { here, next } = frontier;
        // [MQTT-4.7.2-1] No leading wildcard matches a leading `$`.
        let mut wildcards = !topic.starts_with('$') || mutant("5.0/4.7.2-1");
        let all = self.nodes.at(ROOT).multi;
        if wildcards && all != NONE {
            found(all);
        }
        here.clear();
        here.push(ROOT);
        let mut rest = Some(topic.as_bytes());
        while let (Some(levels), false) = (rest, here.is_empty()) {
            let (level, below) = split_level(levels);
            next.clear();
            self.step(here, level, wildcards, next);
            for &index in next.iter() {
                let node = &self.nodes.at(index);
                if node.multi != NONE {
                    found(node.multi);
                }
                if below.is_none() && node.filter != NONE {
                    found(node.filter);
                }
            }
            core::mem::swap(here, next);
            rest = below;
            wildcards = true;
        }
    }

    /// The children of `here` that `level` leads to.
    fn step(&self, here: &[u32], level: &[u8], wildcards: bool, next: &mut Vec<u32>) {
        // Hashed when the first node with named children turns up, and then once for all.
        let mut hash = None;
        for &index in here {
            let node = &self.nodes.at(index);
            if node.named > 0 {
                let hash = *hash.get_or_insert_with(|| hash_text(&self.hasher, level));
                next.extend(self.child(index, level, hash));
            }
            if wildcards && node.plus != ROOT {
                next.push(node.plus);
            }
        }
    }

    /// The child under a level whose text has that hash.
    fn child(&self, parent: u32, level: &[u8], hash: u64) -> Option<u32> {
        self.edges.find(hash_edge(&self.hasher, parent, hash), |child| {
            let node = &self.nodes.at(child);
            node.parent == parent && self.levels.is(node.level, level)
        })
    }

    fn make_plus(&mut self, parent: u32) -> u32 {
        let known = self.nodes.at(parent).plus;
        if known != ROOT {
            return known;
        }
        let plus = self.nodes.insert(Node::new(parent, PLUS));
        self.nodes.at_mut(parent).plus = plus;
        plus
    }

    fn make_named(&mut self, parent: u32, text: &str) -> u32 {
        let hash = hash_text(&self.hasher, text.as_bytes());
        if let Some(child) = self.child(parent, text.as_bytes(), hash) {
            return child;
        }
        let level = self.levels.hold(text);
        let child = self.nodes.insert(Node::new(parent, level));
        self.edges.insert(hash_edge(&self.hasher, parent, hash), child);
        self.nodes.at_mut(parent).named += 1;
        child
    }

    /// Whether nothing is left but the root.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.nodes.at(ROOT).is_idle() && self.edges.len() == 0 && self.levels.len() == 0
    }
}

/// The first level and, behind its `/`, the rest. Levels are short: looking at each byte is half the work of
/// `str::split_once`.
fn split_level(levels: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = levels.iter().position(|&byte| byte == b'/');
    match end.and_then(|at| levels.split_at_checked(at)) {
        Some((level, rest)) => (level, rest.get(1..)),
        None => (levels, None),
    }
}

/// `level` is the keyed hash of the level's text.
fn hash_edge(hasher: &RandomState, parent: u32, level: u64) -> u64 {
    hasher.hash_one((level, parent))
}

/// The levels above a `#`, if there are any, and whether there is a `#`.
fn split_multi(filter: &str) -> (Option<&str>, bool) {
    match filter.strip_suffix('#') {
        Some("") => (None, true),
        Some(path) => (Some(path.strip_suffix('/').unwrap_or(path)), true),
        None => (Some(filter), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level of a filter costs 24 bytes besides its text and its edge.
    #[test]
    fn nodes_are_small() {
        assert_eq!(Slots::<Node>::SLOT_SIZE, 24);
    }
}
