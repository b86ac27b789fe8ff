//! The filters of rules in a trie of their levels: which rules speak of a Topic Name, or of what a Topic Filter matches.
//!
//! It is *not* the routing table: it is built once, is small, and answers three questions of filters as well as one of
//! names. A `Trie` does not know what a right is; it adds up the bits of rules.

use alloc::{borrow::Cow, boxed::Box, vec::Vec};
use core::str::Split;

use super::rules::Who;
use super::template::Template;

/// What rules say, a bit each.
pub(super) type Bits = u8;

/// Filters and their bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trie {
    root: Node,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Of filters that end here.
    here: Bits,
    /// Of filters that go on with `#`.
    below: Bits,
    /// Of all filters that come through here.
    all: Bits,
    /// By text, in order.
    texts: Vec<(Box<str>, Self)>,
    /// Behind `+`.
    any: Option<Box<Self>>,
    /// Behind levels that name the client.
    named: Vec<(Template, Self)>,
}

/// How many nodes may still be looked at for a question about filters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps(pub(super) u32);

impl Steps {
    /// Takes one, if there is one.
    const fn take(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        left
    }
}

impl Trie {
    /// Adds a filter; `templates`: its levels may name the client.
    pub(super) fn add(&mut self, filter: &str, bits: Bits, templates: bool) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node.all |= bits;
            let template = templates.then(|| Template::of(level)).flatten();
            node = match (level, template) {
                ("#", _) => {
                    node.below |= bits;
                    return;
                }
                ("+", _) => node.any.get_or_insert_default(),
                (_, Some(template)) => node.child_named(template),
                (text, None) => node.child(text),
            };
        }
        node.all |= bits;
        node.here |= bits;
    }

    /// All bits of rules that are there.
    pub(super) const fn bits(&self) -> Bits {
        self.root.all
    }

    /// The bits of all filters that match a Topic Name.
    pub(super) fn of_topic(&self, topic: &str, who: &Who<'_>) -> Bits {
        if self.root.all == 0 {
            return 0;
        }
        // [MQTT-4.7.2-1]
        self.root.of_topic(topic.split('/'), topic.starts_with('$'), who)
    }

    /// The bits of those filters that match all that this filter matches.
    pub(super) fn covering(&self, levels: &[Cow<'_, str>], who: &Who<'_>) -> Bits {
        let hides_wildcards = levels.first().is_some_and(|level| level.starts_with('$'));
        self.root.covering(levels, hides_wildcards, who)
    }

    /// Gives `each` what filters with one of the `wanted` bits have in common with `filter`, as a filter, until it says
    /// that this is enough. `true`: it did, or the steps were used up.
    pub(super) fn has_in_common<'a>(
        &'a self,
        filter: &[Cow<'a, str>],
        wanted: Bits,
        who: &Who<'_>,
        steps: &mut Steps,
        mut each: impl FnMut(&[Cow<'_, str>]) -> bool,
    ) -> bool {
        let mut search = Search {
            wanted,
            who,
            steps,
            each: &mut each,
            common: Vec::new(),
        };
        search.meet(&self.root, filter, true)
    }
}

impl Node {
    fn child(&mut self, text: &str) -> &mut Self {
        let at = self.texts.partition_point(|(known, _)| **known < *text);
        if self.texts.get(at).is_none_or(|(known, _)| **known != *text) {
            self.texts.insert(at, (text.into(), Self::default()));
        }
        #[expect(clippy::indexing_slicing, reason = "a child at `at` was just made sure of")]
        &mut self.texts[at].1
    }

    fn child_named(&mut self, template: Template) -> &mut Self {
        let at = match self.named.iter().position(|(known, _)| *known == template) {
            Some(at) => at,
            None => {
                self.named.push((template, Self::default()));
                self.named.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "a child at `at` was just made sure of")]
        &mut self.named[at].1
    }

    fn find(&self, text: &str) -> Option<&Self> {
        let at = self.texts.binary_search_by(|(known, _)| (**known).cmp(text)).ok()?;
        self.texts.get(at).map(|(_, node)| node)
    }

    fn of_topic(&self, mut levels: Split<'_, char>, hides_wildcards: bool, who: &Who<'_>) -> Bits {
        let mut bits = if hides_wildcards { 0 } else { self.below };
        let Some(level) = levels.next() else {
            return bits | self.here;
        };
        if let Some(node) = self.find(level) {
            bits |= node.of_topic(levels.clone(), false, who);
        }
        if let Some(node) = self.any.as_deref().filter(|_| !hides_wildcards) {
            bits |= node.of_topic(levels.clone(), false, who);
        }
        for (template, node) in &self.named {
            if template.is(level, who) {
                bits |= node.of_topic(levels.clone(), false, who);
            }
        }
        bits
    }

    fn covering(&self, levels: &[Cow<'_, str>], hides_wildcards: bool, who: &Who<'_>) -> Bits {
        let mut bits = if hides_wildcards { 0 } else { self.below };
        let Some((level, rest)) = levels.split_first() else {
            return bits | self.here;
        };
        if level == "#" {
            return bits;
        }
        if let Some(node) = self.any.as_deref().filter(|_| !hides_wildcards) {
            bits |= node.covering(rest, false, who);
        }
        if level != "+" {
            if let Some(node) = self.find(level) {
                bits |= node.covering(rest, false, who);
            }
            for (template, node) in &self.named {
                if template.is(level, who) {
                    bits |= node.covering(rest, false, who);
                }
            }
        }
        bits
    }
}

/// A search for what rules and a filter have in common.
struct Search<'s, 'a, F> {
    wanted: Bits,
    who: &'s Who<'s>,
    steps: &'s mut Steps,
    each: &'s mut F,
    /// The levels that they have in common so far.
    common: Vec<Cow<'a, str>>,
}

impl<'a, F: FnMut(&[Cow<'_, str>]) -> bool> Search<'_, 'a, F> {
    /// Goes on below a node with what is left of the filter.
    fn meet(&mut self, node: &'a Node, filter: &[Cow<'a, str>], is_first: bool) -> bool {
        if node.all & self.wanted == 0 {
            return false;
        }
        if !self.steps.take() {
            return true;
        }
        let level = filter.first();
        // What begins with `$` is hidden from wildcards in front, of the rule and of the filter [MQTT-4.7.2-1].
        let hides_wildcards = is_first && level.is_some_and(|level| level.starts_with('$'));
        if !hides_wildcards && node.below & self.wanted != 0 {
            let before = self.common.len();
            self.common.extend_from_slice(filter);
            let enough = (self.each)(&self.common);
            self.common.truncate(before);
            if enough {
                return true;
            }
        }
        match level.map(|level| &**level) {
            None => node.here & self.wanted != 0 && (self.each)(&self.common),
            Some("#") => {
                let ends_here = node.here & self.wanted != 0 && (self.each)(&self.common);
                ends_here || self.meet_all(node, filter, is_first)
            }
            Some("+") => self.meet_all(node, filter.get(1..).unwrap_or_default(), is_first),
            Some(text) => self.meet_text(node, text, filter, hides_wildcards),
        }
    }

    /// Goes on with every child: the filter has a wildcard here.
    fn meet_all(&mut self, node: &'a Node, rest: &[Cow<'a, str>], is_first: bool) -> bool {
        let is_hidden = |text: &str| is_first && text.starts_with('$');
        for (text, child) in &node.texts {
            if !is_hidden(text) && self.descend(child, Cow::Borrowed(text), rest) {
                return true;
            }
        }
        for (template, child) in &node.named {
            if let Some(text) = template.filled(self.who)
                && !is_hidden(&text)
                && self.descend(child, Cow::Owned(text), rest)
            {
                return true;
            }
        }
        node.any
            .as_deref()
            .is_some_and(|child| self.descend(child, Cow::Borrowed("+"), rest))
    }

    fn meet_text(&mut self, node: &'a Node, text: &str, filter: &[Cow<'a, str>], hides_wildcards: bool) -> bool {
        let Some((level, rest)) = filter.split_first() else {
            return false;
        };
        if let Some(child) = node.find(text)
            && self.descend(child, level.clone(), rest)
        {
            return true;
        }
        for (template, child) in &node.named {
            if template.is(text, self.who) && self.descend(child, level.clone(), rest) {
                return true;
            }
        }
        let any = node.any.as_deref().filter(|_| !hides_wildcards);
        any.is_some_and(|child| self.descend(child, level.clone(), rest))
    }

    fn descend(&mut self, child: &'a Node, level: Cow<'a, str>, rest: &[Cow<'a, str>]) -> bool {
        self.common.push(level);
        let enough = self.meet(child, rest, false);
        self.common.pop();
        enough
    }
}
