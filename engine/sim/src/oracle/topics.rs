//! Topic Names and Topic Filters by number, so that whether one matches the other is asked once.

use std::collections::BTreeMap;

use super::{SessionId, matches};

/// A Topic Name, by the order in which they came up.
pub(super) type TopicId = usize;

/// A Topic Filter with its ShareName, by the order in which they came up.
pub(super) type FilterId = usize;

/// Filters that there may be: one bit each.
const FILTERS_MAX: usize = 128;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Vec<Topic>,
    filters: Vec<Filter>,
    topic_ids: BTreeMap<String, TopicId>,
    filter_ids: BTreeMap<String, FilterId>,
}

#[derive(Debug)]
struct Topic {
    name: String,
    /// The filters that match it.
    matching: u128,
}

/// A Topic Filter and who has subscribed to it.
#[derive(Debug)]
pub(super) struct Filter {
    /// ShareName, of a Shared Subscription.
    pub(super) share: Option<String>,
    /// The filter without that.
    pub(super) plain: String,
    /// Subscriptions to it: Sessions, and places in their lists. Those that have ended are among them.
    pub(super) subscriptions: Vec<(SessionId, usize)>,
}

impl Topics {
    pub(super) fn topic(&mut self, name: &str) -> TopicId {
        if let Some(&id) = self.topic_ids.get(name) {
            return id;
        }
        let bits = self.filters.iter().enumerate();
        let matching = bits.fold(0, |bits, (id, filter)| {
            bits | u128::from(matches(&filter.plain, name)) << id
        });
        self.topics.push(Topic {
            name: name.to_owned(),
            matching,
        });
        self.topic_ids.insert(name.to_owned(), self.topics.len() - 1);
        self.topics.len() - 1
    }

    pub(super) fn filter_id(&mut self, text: &str) -> FilterId {
        if let Some(&id) = self.filter_ids.get(text) {
            return id;
        }
        let id = self.filters.len();
        assert!(id < FILTERS_MAX, "a world has few filters");
        let shared = text.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        let (share, plain) = shared.map_or((None, text), |(share, filter)| (Some(share), filter));
        for topic in &mut self.topics {
            topic.matching |= u128::from(matches(plain, &topic.name)) << id;
        }
        self.filters.push(Filter {
            share: share.map(str::to_owned),
            plain: plain.to_owned(),
            subscriptions: Vec::new(),
        });
        self.filter_ids.insert(text.to_owned(), id);
        id
    }

    pub(super) fn find_filter(&self, text: &str) -> Option<FilterId> {
        self.filter_ids.get(text).copied()
    }

    pub(super) fn filter(&self, id: FilterId) -> &Filter {
        &self.filters[id]
    }

    pub(super) fn filter_mut(&mut self, id: FilterId) -> &mut Filter {
        &mut self.filters[id]
    }

    /// Whether a filter matches a topic.
    pub(super) fn matches(&self, filter: FilterId, topic: TopicId) -> bool {
        self.topics[topic].matching >> filter & 1 == 1
    }

    /// The filters that match a topic.
    pub(super) fn matching(&self, topic: TopicId) -> impl Iterator<Item = FilterId> + use<> {
        let mut bits = self.topics[topic].matching;
        std::iter::from_fn(move || {
            let id = bits.trailing_zeros() as usize;
            bits &= bits.checked_sub(1)?;
            Some(id)
        })
    }

    /// All filters.
    pub(super) fn filters_mut(&mut self) -> impl Iterator<Item = &mut Filter> {
        self.filters.iter_mut()
    }

    /// A topic by its number.
    pub(super) fn name(&self, id: TopicId) -> &str {
        &self.topics[id].name
    }
}
