use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// A small alphabet, so that filters collide, with empty levels, `$` and a level too long to be kept inline.
const LEVELS: [&str; 6] = ["", "a", "b", "$a", "c", "a-long-level"];

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(select(LEVELS.as_slice()), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => select(LEVELS.as_slice()), 1 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("empty", |filter| !filter.is_empty())
}

#[derive(Clone, Debug)]
enum Op {
    Subscribe(String, Subscription),
    Unsubscribe(String, SessionKey),
    Join(String, &'static str, Subscription),
    Leave(String, &'static str, SessionKey),
    SetRemote(String, &'static str, u16, u32, u32),
    AddInterest(String, u16),
    RemoveInterest(String, u16),
}

fn op() -> impl Strategy<Value = Op> {
    let session = || (0_u32..4).prop_map(SessionKey);
    let subscription = move || {
        (session(), 0_u32..3, 0_u8..3).prop_map(|(session, sub_id, options)| Subscription {
            session,
            sub_id,
            readable: 0,
            options,
        })
    };
    let share = || select(["x", "y", "a-long-share-name"].as_slice());
    let shard = || select([0_u16, 1, 63].as_slice());
    prop_oneof![
        4 => (filter(), subscription()).prop_map(|(f, s)| Op::Subscribe(f, s)),
        3 => (filter(), session()).prop_map(|(f, s)| Op::Unsubscribe(f, s)),
        3 => (filter(), share(), subscription()).prop_map(|(f, g, s)| Op::Join(f, g, s)),
        2 => (filter(), share(), session()).prop_map(|(f, g, s)| Op::Leave(f, g, s)),
        2 => (filter(), share(), shard(), 0_u32..2, 0_u32..2).prop_map(|(f, g, s, on, off)| Op::SetRemote(f, g, s, on, off)),
        2 => (filter(), shard()).prop_map(|(f, s)| Op::AddInterest(f, s)),
        2 => (filter(), shard()).prop_map(|(f, s)| Op::RemoveInterest(f, s)),
    ]
}

/// The obviously right table: lists, searched from end to end.
#[derive(Default)]
struct Naive {
    subscriptions: Vec<(String, Subscription)>,
    members: Vec<(String, &'static str, Subscription)>,
    remote: Vec<(String, &'static str, RemoteWeight)>,
    interest: Vec<(String, u16)>,
}

/// What a topic leads to, in words that do not depend on keys.
#[derive(Default, PartialEq, Debug)]
struct Found {
    subscriptions: Vec<(String, u32, u32, u8)>,
    groups: Vec<FoundGroup>,
    shards: u64,
}

/// Filter, ShareName, members, remote weights.
type FoundGroup = (String, String, Vec<u32>, Vec<(u16, u32, u32)>);

impl Naive {
    fn matches(&self, topic: &str) -> Found {
        let mut found = Found::default();
        for (filter, s) in self
            .subscriptions
            .iter()
            .filter(|(filter, _)| naive::matches(filter, topic))
        {
            found
                .subscriptions
                .push((filter.clone(), s.session.0, s.sub_id, s.options));
        }
        let names = self
            .members
            .iter()
            .map(|(f, g, _)| (f, g))
            .chain(self.remote.iter().map(|(f, g, _)| (f, g)));
        for (filter, share) in names
            .filter(|(filter, _)| naive::matches(filter, topic))
            .collect::<BTreeSet<_>>()
        {
            let members = self.members.iter().filter(|(f, g, _)| (f, g) == (filter, share));
            let mut members: Vec<_> = members.map(|(_, _, s)| s.session.0).collect();
            members.sort_unstable();
            let remote = self.remote.iter().filter(|(f, g, _)| (f, g) == (filter, share));
            let mut remote: Vec<_> = remote.map(|(_, _, w)| (w.shard, w.online, w.offline)).collect();
            remote.sort_unstable();
            found.groups.push((filter.clone(), share.to_string(), members, remote));
        }
        for (_, shard) in self.interest.iter().filter(|(filter, _)| naive::matches(filter, topic)) {
            found.shards |= 1 << shard;
        }
        found.subscriptions.sort_unstable();
        found.groups.sort_unstable();
        found
    }

    fn subscribers(&self, filter: &str) -> usize {
        self.subscriptions.iter().filter(|(f, _)| f == filter).count()
    }

    fn members(&self, filter: &str, share: &str) -> usize {
        self.members
            .iter()
            .filter(|(f, g, _)| f == filter && *g == share)
            .count()
    }
}

/// Takes the entries for which `is_it` holds, at most one of which exists.
fn take<T>(list: &mut Vec<T>, is_it: impl Fn(&T) -> bool) -> Option<T> {
    let at = list.iter().position(is_it)?;
    Some(list.swap_remove(at))
}

fn found(tree: &TopicTree, topic: &str, matches: &mut Matches) -> Found {
    matches.clear();
    tree.matches(topic, tree.topic_hash(topic), matches);
    let mut found = Found {
        shards: matches.shards,
        ..Found::default()
    };
    for &key in &matches.filters {
        let filter = text(tree, key);
        assert!(tree.subscribers(key).is_sorted_by_key(|s| s.session) && !tree.subscribers(key).is_empty());
        for s in tree.subscribers(key) {
            found
                .subscriptions
                .push((filter.clone(), s.session.0, s.sub_id, s.options));
        }
    }
    for &key in &matches.groups {
        let (share, filter) = tree.group_name(key).unwrap();
        let group = tree.group(key).unwrap();
        let members = group.members.iter().map(|s| s.session.0).collect();
        let remote = group.remote.iter().map(|w| (w.shard, w.online, w.offline)).collect();
        found
            .groups
            .push((text(tree, filter), share.to_string(), members, remote));
    }
    found.subscriptions.sort_unstable();
    found.groups.sort_unstable();
    found
}

fn text(tree: &TopicTree, key: FilterKey) -> String {
    let mut text = String::new();
    tree.filter_of(key, &mut text);
    assert_eq!(key.is_wildcard(), is_wildcard(&text));
    text
}

/// Does the same to both, and compares everything that the operation answers.
fn apply(tree: &mut TopicTree, twin: &mut Naive, op: Op) {
    match op {
        Op::Subscribe(filter, s) => {
            let old = take(&mut twin.subscriptions, |(f, old)| {
                *f == filter && old.session == s.session
            })
            .map(|(_, old)| old);
            let first = old.is_none() && twin.subscribers(&filter) == 0;
            let done = tree.subscribe(&filter, s);
            assert_eq!(
                (done.replaced, done.first, text(tree, done.key)),
                (old, first, filter.clone())
            );
            assert_eq!(tree.find(&filter, s.session), Some(&s));
            twin.subscriptions.push((filter, s));
        }
        Op::Unsubscribe(filter, session) => {
            let old = take(&mut twin.subscriptions, |(f, old)| {
                *f == filter && old.session == session
            });
            let last = old.map(|_| twin.subscribers(&filter) == 0);
            assert_eq!(tree.unsubscribe(&filter, session).map(|removed| removed.last), last);
            assert_eq!(tree.find(&filter, session), None);
        }
        Op::Join(filter, share, s) => {
            let old = take_member(twin, &filter, share, s.session);
            let first = old.is_none() && twin.members(&filter, share) == 0;
            let done = tree.group_join(&filter, share, s, is_online(s.session));
            assert_eq!(
                (done.replaced, done.first, text(tree, done.key)),
                (old, first, filter.clone())
            );
            assert_eq!(tree.find_group(&filter, share), Some(done.group));
            twin.members.push((filter, share, s));
        }
        Op::Leave(filter, share, session) => {
            let last = take_member(twin, &filter, share, session).map(|_| twin.members(&filter, share) == 0);
            let group = tree.find_group(&filter, share);
            let left = group.and_then(|group| tree.group_leave(group, session, is_online(session)));
            assert_eq!(left.map(|left| left.last), last);
        }
        Op::SetRemote(filter, share, shard, online, offline) => {
            take(&mut twin.remote, |(f, g, old)| {
                *f == filter && *g == share && old.shard == shard
            });
            if online + offline > 0 {
                twin.remote
                    .push((filter.clone(), share, RemoteWeight { shard, online, offline }));
            }
            tree.group_set_remote(&filter, share, shard, online, offline);
        }
        Op::AddInterest(filter, shard) => {
            let known = twin.interest.contains(&(filter.clone(), shard));
            let news = match is_wildcard(&filter) {
                true => tree.interest_add(&filter, shard),
                false => tree.exact_interest_add(tree.topic_hash(&filter), shard),
            };
            assert_eq!(news, !known);
            twin.interest.extend((!known).then_some((filter, shard)));
        }
        Op::RemoveInterest(filter, shard) => {
            let known = take(&mut twin.interest, |(f, s)| *f == filter && *s == shard).is_some();
            let news = match is_wildcard(&filter) {
                true => tree.interest_remove(&filter, shard),
                false => tree.exact_interest_remove(tree.topic_hash(&filter), shard),
            };
            assert_eq!(news, known);
        }
    }
}

fn take_member(twin: &mut Naive, filter: &str, share: &str, session: SessionKey) -> Option<Subscription> {
    let is_it = |(f, g, old): &(String, &str, Subscription)| f == filter && *g == share && old.session == session;
    take(&mut twin.members, is_it).map(|(_, _, old)| old)
}

/// Sessions with an odd key are online, for as long as they are members.
const fn is_online(session: SessionKey) -> bool {
    session.0 % 2 == 1
}

/// The operations that undo all that is left.
fn undo(twin: &Naive) -> Vec<Op> {
    let subscriptions = twin
        .subscriptions
        .iter()
        .map(|(f, s)| Op::Unsubscribe(f.clone(), s.session));
    let members = twin.members.iter().map(|(f, g, s)| Op::Leave(f.clone(), g, s.session));
    let remote = twin
        .remote
        .iter()
        .map(|(f, g, w)| Op::SetRemote(f.clone(), g, w.shard, 0, 0));
    let interest = twin.interest.iter().map(|(f, s)| Op::RemoveInterest(f.clone(), *s));
    subscriptions.chain(members).chain(remote).chain(interest).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// After any operations a topic leads where the naive matcher says, a match that changed has a new generation,
    /// and when all is undone nothing is left.
    #[test]
    fn the_tree_agrees_with_a_list(ops in prop::collection::vec(op(), 1..80), topics in prop::collection::vec(topic(), 1..12)) {
        let (mut tree, mut twin, mut matches) = (TopicTree::new(SEEDS), Naive::default(), Matches::default());
        for op in ops {
            let before: Vec<_> = topics.iter().map(|topic| found(&tree, topic, &mut matches)).collect();
            let generation = tree.generation();
            apply(&mut tree, &mut twin, op);
            for (topic, before) in topics.iter().zip(before) {
                let now = found(&tree, topic, &mut matches);
                prop_assert_eq!(&now, &twin.matches(topic));
                let names = |found: &Found| found.groups.iter().map(|g| (g.0.clone(), g.1.clone())).collect::<Vec<_>>();
                let same = (&now.subscriptions, now.shards) == (&before.subscriptions, before.shards) && names(&now) == names(&before);
                prop_assert!(same || tree.generation() != generation);
            }
            for group in tree.groups() {
                let online = group.members.iter().filter(|member| is_online(member.session)).count() as u32;
                prop_assert_eq!(group.weight(), Weight { online, offline: group.members.len() as u32 - online });
            }
            for (filter, _) in &twin.subscriptions {
                let expected = usize::from(!is_wildcard(filter));
                prop_assert_eq!(tree.exact_hash_count(tree.topic_hash(filter)), expected);
            }
        }
        for op in undo(&twin) {
            apply(&mut tree, &mut twin, op);
        }
        prop_assert!(tree.is_empty());
    }
}

fn subscription(session: u32) -> Subscription {
    Subscription {
        session: SessionKey(session),
        sub_id: 0,
        readable: 0,
        options: 0,
    }
}

/// A Session that ends leaves by key, and what it held alone is gone; late uses of its keys are harmless.
#[test]
fn an_ending_session_leaves_by_key() {
    let mut tree = TopicTree::new(SEEDS);
    let keys = ["a/b", "a/+", "a/#"].map(|filter| tree.subscribe(filter, subscription(7)).key);
    let group = tree.group_join("a/+", "share", subscription(7), true).group;
    tree.subscribe("a/b", subscription(8));
    assert_eq!(
        keys.map(|key| tree.unsubscribe_key(key, SessionKey(7))),
        [Some(false), Some(true), Some(true)]
    );
    let left = tree.group_leave(group, SessionKey(7), true);
    assert_eq!(
        left,
        Some(GroupLeave {
            key: keys[1],
            group,
            last: true
        })
    );
    assert_eq!(keys.map(|key| tree.unsubscribe_key(key, SessionKey(7))), [None; 3]);
    assert_eq!(keys.map(|key| tree.subscribers(key).len()), [1, 0, 0]);
    assert!(tree.group(group).is_none() && tree.group_name(group).is_none());
    assert_eq!(
        tree.unsubscribe("a/b", SessionKey(8)),
        Some(Removed {
            key: keys[0],
            last: true
        })
    );
    assert!(tree.is_empty());
}

/// Shards take turns by the number of their members online, or of all members where nobody is online; one that is left
/// out is never picked.
#[test]
fn shards_take_turns_by_their_members() {
    for (here, there, except, shares) in [
        ([2, 1], [3, 5], 0, [2, 3]),
        ([2, 1], [0, 5], 0, [2, 0]),
        ([0, 3], [0, 5], 0, [3, 5]),
        ([0, 3], [4, 0], 0, [0, 4]),
        ([2, 1], [3, 5], 0b10, [0, 3]),
        ([2, 1], [0, 5], 0b10, [0, 5]),
    ] {
        let mut tree = TopicTree::new(SEEDS);
        let mut group = None;
        for session in 0..here[0] + here[1] {
            group = Some(
                tree.group_join("t", "share", subscription(session), session < here[0])
                    .group,
            );
        }
        tree.group_set_remote("t", "share", 0, there[0], there[1]);
        let group = tree.group_mut(group.unwrap()).unwrap();
        let mut picked = [0; 2];
        for _ in 0..2 * (shares[0] + shares[1]) {
            let shard = group.take_turn(1, except).unwrap();
            picked[usize::from(1 - shard)] += 1;
        }
        assert_eq!(picked, shares.map(|share| 2 * share));
    }
    let mut tree = TopicTree::new(SEEDS);
    let group = tree.group_join("t", "share", subscription(1), true).group;
    assert_eq!(tree.group_mut(group).unwrap().take_turn(1, 0b10), None);
}

/// Shards with the same seeds agree on a topic's hash; others do not.
#[test]
fn the_hash_is_keyed() {
    let hash = |seeds| TopicTree::new(seeds).topic_hash("sport/tennis");
    assert_eq!(hash(SEEDS), hash(SEEDS));
    assert_ne!(hash(SEEDS), hash([5, 6, 7, 8]));
}

/// Many Sessions on one filter come and go in any order, and stay sorted.
#[test]
fn a_crowd_on_one_filter_stays_sorted() {
    let mut tree = TopicTree::new(SEEDS);
    let crowd = || (0..5_000_u32).map(|i| i * 2_147 % 5_003);
    let mut key = None;
    for session in crowd() {
        key = Some(tree.subscribe("news/#", subscription(session)).key);
    }
    let key = key.unwrap();
    assert!(tree.subscribers(key).len() == 5_000 && tree.subscribers(key).is_sorted_by(|a, b| a.session < b.session));
    for session in crowd() {
        assert!(tree.unsubscribe("news/#", SessionKey(session)).is_some());
    }
    assert!(tree.is_empty());
}

/// A filter and a topic of 32,768 empty levels, the most that 65,535 bytes hold, need no deep recursion.
#[test]
fn the_deepest_topic_is_walked_without_recursion() {
    let (mut tree, mut matches) = (TopicTree::new(SEEDS), Matches::default());
    let topic = "/".repeat(65_535);
    let filter = format!("{}#", "/".repeat(65_534));
    let key = tree.subscribe(&filter, subscription(1)).key;
    assert_eq!(text(&tree, key), filter);
    tree.matches(&topic, tree.topic_hash(&topic), &mut matches);
    assert_eq!(matches.filters, [key]);
    tree.unsubscribe(&filter, SessionKey(1));
    assert!(tree.is_empty());
}

/// A filter without wildcards costs 40 bytes, and its text where that is long; one with wildcards 24 and its levels.
#[test]
fn filters_are_small() {
    assert_eq!(
        (Slots::<ExactFilter>::SLOT_SIZE, Slots::<WildFilter>::SLOT_SIZE),
        (40, 24)
    );
}
