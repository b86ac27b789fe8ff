//! Retained messages of one shard, by Topic Name, found again by Topic Filter (3.3.1.3).
//!
//! Not a cache: it holds what was set until it is removed, and counts nothing but its entries.
//!
//! ```text
//! let mut store = Retained::new();
//! store.set("kitchen/lamp", message);
//! let page = store.page("kitchen/+", None, 100, 1_000, |topic, message| deliver(topic, message));
//! if let Page::More(last) = page { /* later: store.page("kitchen/+", Some(&last), …) */ }
//! ```
//!
//! Topics lie in byte order, and a wildcard filter reads them in that order. Two facts make it possible to jump over
//! what cannot match, although bytes such as `-` and space sort before the `/` between levels:
//!
//! - all topics that begin with the same bytes lie together, so what is below `a/x/` is one range, and `a/x0` (`0`
//!   follows `/`) comes after all of it;
//! - the topic `a` itself and the topics below `a/` do not: `a-b` lies between them. A jump therefore goes to the
//!   text up to and with a `/`, never to "the next level".
//!
//! A scan only moves forward through this order, whatever changes between two pages: a topic that is there all the
//! time is given exactly once.

mod seek;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::ops::Bound;

use seek::Verdict;

/// One retained value of type `M` per Topic Name.
///
/// An entry costs its topic's text, `M`, and at most 60 bytes.
pub struct Retained<M> {
    entries: BTreeMap<Box<str>, M>,
}

/// How a [`Retained::page`] ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Page {
    /// Every topic that matches has been given.
    Done,
    /// A limit was reached: hand this text to the next page as `after`.
    More(String),
}

impl<M> Default for Retained<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Retained<M> {
    /// An empty store.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }

    /// How many topics have a retained value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is retained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps `value` for `topic` and returns the one it replaces [MQTT-3.3.1-5].
    pub fn set(&mut self, topic: &str, value: M) -> Option<M> {
        if let Some(kept) = self.entries.get_mut(topic) {
            return Some(core::mem::replace(kept, value));
        }
        self.entries.insert(topic.into(), value)
    }

    /// Forgets the value of `topic` and returns it [MQTT-3.3.1-6].
    pub fn remove(&mut self, topic: &str) -> Option<M> {
        self.entries.remove(topic)
    }

    /// The value of `topic`.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&M> {
        self.entries.get(topic)
    }

    /// Gives `each` the entries that match `filter` and come after `after`, in the order of their topics, until
    /// `entries` of them were given or `steps` topics were looked at. Both count as at least one, so a chain of pages
    /// always ends.
    ///
    /// `after` is what [`Page::More`] returned, or `None` to begin; the entry of that name need not exist any more.
    pub fn page(
        &self,
        filter: &str,
        after: Option<&str>,
        entries: usize,
        mut steps: usize,
        mut each: impl FnMut(&str, &M),
    ) -> Page {
        self.page_within(filter, after, entries, &mut steps, |topic, value| {
            each(topic, value);
            true
        })
    }

    /// Like [`page`](Self::page), until `each` wants no more, and takes what it looked at off `steps`: at least one,
    /// whatever there was.
    pub fn page_within(
        &self,
        filter: &str,
        after: Option<&str>,
        entries: usize,
        steps: &mut usize,
        mut each: impl FnMut(&str, &M) -> bool,
    ) -> Page {
        *steps = steps.saturating_sub(1);
        let mut target = String::new();
        let mut verdict = match after {
            Some(topic) => seek::judge(filter, topic, &mut target),
            None => seek::begin(filter, &mut target),
        };
        let mut scan = match after {
            Some(topic) => self.entries.range::<str, _>((Bound::Excluded(topic), Bound::Unbounded)),
            None => self.entries.range::<str, _>(from(&target)),
        };
        let (mut given, mut first, mut wants_more) = (0, true, true);
        loop {
            let found = match verdict {
                Verdict::Never => return Page::Done,
                Verdict::Match | Verdict::Next => scan.next(),
                Verdict::Jump => match scan.next() {
                    // Most jumps are short: the neighbour is tried before the tree is descended again.
                    Some(near) if **near.0 < *target => {
                        scan = self.entries.range::<str, _>(from(&target));
                        scan.next()
                    }
                    near => near,
                },
            };
            let Some((topic, value)) = found else { return Page::Done };
            // The first look is paid for.
            if !core::mem::take(&mut first) {
                *steps = steps.saturating_sub(1);
            }
            verdict = seek::judge(filter, topic, &mut target);
            if matches!(verdict, Verdict::Match) {
                wants_more = each(topic, value);
                given += 1;
            }
            let full = !wants_more || given >= entries.max(1) || *steps == 0;
            if full && verdict != Verdict::Never {
                return Page::More(topic.as_ref().into());
            }
        }
    }
}

fn from(topic: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Included(topic), Bound::Unbounded)
}

#[cfg(test)]
mod tests;
