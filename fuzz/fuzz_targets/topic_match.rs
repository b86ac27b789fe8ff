//! Routing: whatever is subscribed, shared, announced, retained and taken back, a Topic Name leads where the naive
//! matcher says, a filter finds the retained topics that it says, and when all is undone nothing is left.
//!
//! Input: deeds and topics, as `arbitrary` reads them.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use sol_codec::{TopicFilter, TopicName};
use sol_engine::SessionKey;
use sol_engine::bench_support::{Matches, Page, Retained, Subscription, TopicTree, is_wildcard};
use sol_fuzz::{naive, packets};

/// The most deeds of one input.
const DEEDS_MAX: usize = 60;

fuzz_target!(|input: &[u8]| -> Corpus {
    let mut table = Table::default();
    match table.live(&mut Unstructured::new(input)) {
        Ok(()) => Corpus::Keep,
        Err(_) => Corpus::Reject,
    }
});

/// Routes and retained topics, fast and naive.
struct Table {
    tree: TopicTree,
    matches: Matches,
    retained: Retained<u8>,
    /// Filter, Session and Subscription Identifier.
    subscriptions: BTreeMap<(String, u32), u32>,
    /// Filter and ShareName, then Session.
    members: BTreeSet<(String, String, u32)>,
    /// Filter and other shard.
    interest: BTreeSet<(String, u16)>,
    kept: BTreeMap<String, u8>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            tree: TopicTree::new([1, 2, 3, 4]),
            matches: Matches::default(),
            retained: Retained::new(),
            subscriptions: BTreeMap::new(),
            members: BTreeSet::new(),
            interest: BTreeSet::new(),
            kept: BTreeMap::new(),
        }
    }
}

/// Where a topic leads: Subscriptions, groups, shards.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    subscriptions: BTreeSet<(String, u32, u32)>,
    members: BTreeSet<(String, String, u32)>,
    shards: u64,
}

impl Table {
    fn live(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..DEEDS_MAX {
            if u.is_empty() {
                break;
            }
            self.deed(u)?;
        }
        self.undo();
        Ok(())
    }

    fn deed(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=7)? {
            0 | 1 => {
                let (filter, session) = (packets::filter(u)?, u.int_in_range(0..=3)?);
                self.subscribe(&filter, session, u.int_in_range(0..=2)?);
            }
            2 => {
                let (filter, session) = (packets::filter(u)?, u.int_in_range(0..=3)?);
                self.unsubscribe(&filter, session);
            }
            3 => {
                let (filter, shard) = (packets::filter(u)?, *u.choose(&[0, 1, 63])?);
                self.announce(plain(&filter), shard, u.arbitrary()?);
            }
            4 => {
                let (topic, value) = (topic(u)?, u.arbitrary()?);
                assert_eq!(self.retained.set(&topic, value), self.kept.insert(topic, value));
            }
            5 => {
                let topic = topic(u)?;
                assert_eq!(self.retained.remove(&topic), self.kept.remove(&topic));
            }
            6 => {
                let filter = packets::filter(u)?;
                self.replay(plain(&filter), u.int_in_range(1..=4)?, u.int_in_range(1..=4)?);
            }
            _ => {
                let topic = topic(u)?;
                self.publish(&topic);
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, filter: &str, session: u32, sub_id: u32) {
        let subscription = Subscription {
            session: SessionKey(session),
            sub_id,
            readable: 0,
            options: 0,
        };
        if let Some((share, filter)) = shared(filter) {
            let done = self.tree.group_join(filter, share, subscription, is_online(session));
            let new = self.members.insert((filter.to_owned(), share.to_owned(), session));
            assert_eq!(done.replaced.is_none(), new);
            return;
        }
        let old = self.subscriptions.insert((filter.to_owned(), session), sub_id);
        let done = self.tree.subscribe(filter, subscription);
        assert_eq!(done.replaced.map(|old| old.sub_id), old);
        assert_eq!(self.tree.find(filter, SessionKey(session)), Some(&subscription));
        assert_eq!(self.text(done.key), filter);
    }

    fn unsubscribe(&mut self, filter: &str, session: u32) {
        if let Some((share, filter)) = shared(filter) {
            let known = self.members.remove(&(filter.to_owned(), share.to_owned(), session));
            let group = self.tree.find_group(filter, share);
            let left = group.and_then(|group| self.tree.group_leave(group, SessionKey(session), is_online(session)));
            assert_eq!(left.is_some(), known);
            return;
        }
        let known = self.subscriptions.remove(&(filter.to_owned(), session)).is_some();
        let removed = self.tree.unsubscribe(filter, SessionKey(session));
        assert_eq!(removed.is_some(), known);
        let last = !self.subscriptions.keys().any(|(other, _)| other == filter);
        assert!(removed.is_none_or(|removed| removed.last == last));
        assert_eq!(self.tree.find(filter, SessionKey(session)), None);
    }

    /// Another shard has, or has no more, a subscriber.
    fn announce(&mut self, filter: &str, shard: u16, there: bool) {
        let hash = self.tree.topic_hash(filter);
        let news = match (is_wildcard(filter), there) {
            (true, true) => self.tree.interest_add(filter, shard),
            (true, false) => self.tree.interest_remove(filter, shard),
            (false, true) => self.tree.exact_interest_add(hash, shard),
            (false, false) => self.tree.exact_interest_remove(hash, shard),
        };
        let entry = (filter.to_owned(), shard);
        let expected = if there {
            self.interest.insert(entry)
        } else {
            self.interest.remove(&entry)
        };
        assert_eq!(news, expected);
    }

    fn publish(&mut self, topic: &str) {
        self.matches.clear();
        self.tree.matches(topic, self.tree.topic_hash(topic), &mut self.matches);
        let mut found = Found {
            shards: self.matches.shards,
            ..Found::default()
        };
        for &key in &self.matches.filters {
            let subscribers = self.tree.subscribers(key).iter();
            let fresh = subscribers.map(|s| found.subscriptions.insert((self.text(key), s.session.0, s.sub_id)));
            assert!(fresh.into_iter().all(|fresh| fresh), "a Subscription is found twice");
        }
        for &key in &self.matches.groups {
            let (share, filter) = self.tree.group_name(key).expect("a group that was found");
            let members = &self.tree.group(key).expect("a group that was found").members;
            found.members.extend(
                members
                    .iter()
                    .map(|s| (self.text(filter), share.to_owned(), s.session.0)),
            );
        }
        assert_eq!(found, self.expected(topic), "{topic:?}");
        let name = TopicName::new(topic).expect("it is one");
        for (filter, _) in self.subscriptions.keys() {
            let filter = TopicFilter::new(filter).expect("it was one");
            assert_eq!(
                filter.matches(name),
                naive::matches(filter.as_str(), topic),
                "{filter} {topic}"
            );
        }
    }

    fn expected(&self, topic: &str) -> Found {
        let subscriptions = self
            .subscriptions
            .iter()
            .filter(|((filter, _), _)| naive::matches(filter, topic));
        let interest = self.interest.iter().filter(|(filter, _)| naive::matches(filter, topic));
        Found {
            subscriptions: subscriptions
                .map(|((filter, session), id)| (filter.clone(), *session, *id))
                .collect(),
            members: self
                .members
                .iter()
                .filter(|(filter, ..)| naive::matches(filter, topic))
                .cloned()
                .collect(),
            shards: interest.fold(0, |shards, (_, shard)| shards | 1 << shard),
        }
    }

    /// Reads the retained topics of a filter, a few at a time.
    fn replay(&mut self, filter: &str, entries: usize, steps: usize) {
        let (mut given, mut after) = (Vec::new(), None);
        while let Page::More(last) = self
            .retained
            .page(filter, after.as_deref(), entries, steps, |topic, value| {
                given.push((topic.to_owned(), *value));
            })
        {
            assert!(after.as_ref() < Some(&last), "a scan goes back");
            after = Some(last);
        }
        let expected = self.kept.iter().filter(|(topic, _)| naive::matches(filter, topic));
        let expected: Vec<_> = expected.map(|(topic, value)| (topic.clone(), *value)).collect();
        assert_eq!(given, expected, "{filter:?}");
    }

    fn undo(&mut self) {
        for (filter, session) in self.subscriptions.keys().cloned().collect::<Vec<_>>() {
            self.unsubscribe(&filter, session);
        }
        for (filter, share, session) in self.members.iter().cloned().collect::<Vec<_>>() {
            self.unsubscribe(&format!("$share/{share}/{filter}"), session);
        }
        for (filter, shard) in self.interest.iter().cloned().collect::<Vec<_>>() {
            self.announce(&filter, shard, false);
        }
        assert!(self.tree.is_empty(), "something is left");
    }

    fn text(&self, key: sol_engine::bench_support::FilterKey) -> String {
        let mut text = String::new();
        self.tree.filter_of(key, &mut text);
        text
    }
}

/// Odd Sessions are online, for as long as they are members.
const fn is_online(session: u32) -> bool {
    session % 2 == 1
}

fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// The filter without its ShareName.
fn plain(filter: &str) -> &str {
    shared(filter).map_or(filter, |(_, filter)| filter)
}

/// A topic near the filters, or any other.
fn topic(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(1, 4)? {
        return Ok(packets::topic_name(u)?.as_str().to_owned());
    }
    let levels: Result<Vec<_>> = (0..u.int_in_range(1..=5)?)
        .map(|_| u.choose(&["a", "b", "", "$SYS", "a-", "a0"]).copied())
        .collect();
    let topic = levels?.join("/");
    Ok(if topic.is_empty() { "/".to_owned() } else { topic })
}
