use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{Page, Retained};
use crate::topic_tree::naive;

/// Levels around the byte `/`, which is where order and hierarchy part ways.
fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(["", "a", "a-", "a0", "b", "-", "$s", "0"].as_slice())
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => level(), 1 => Just("+")];
    (prop::collection::vec(level, 1..5), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("empty", |filter| !filter.is_empty())
}

/// A change between two pages: set or remove.
fn change() -> impl Strategy<Value = (bool, String)> {
    (any::<bool>(), topic())
}

#[derive(Default)]
struct Naive(BTreeMap<String, u32>);

impl Naive {
    fn matching(&self, filter: &str) -> BTreeSet<String> {
        self.0
            .keys()
            .filter(|topic| naive::matches(filter, topic))
            .cloned()
            .collect()
    }
}

fn apply(store: &mut Retained<u32>, twin: &mut Naive, (set, topic): &(bool, String), value: u32) {
    if *set {
        assert_eq!(store.set(topic, value), twin.0.insert(topic.clone(), value));
    } else {
        assert_eq!(store.remove(topic), twin.0.remove(topic));
    }
    assert_eq!((store.len(), store.get(topic)), (twin.0.len(), twin.0.get(topic)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Pages of any size, with changes between them, give every matching topic that was there all the time exactly
    /// once, in order and with its value; and nothing that does not match.
    #[test]
    fn pages_give_each_lasting_match_once(
        start in prop::collection::vec(topic(), 0..40),
        filter in filter(),
        entries in 0_usize..6,
        steps in 0_usize..6,
        changes in prop::collection::vec(prop::collection::vec(change(), 0..4), 0..10),
    ) {
        let (mut store, mut twin) = (Retained::new(), Naive::default());
        for topic in start {
            apply(&mut store, &mut twin, &(true, topic), 0);
        }
        let mut lasting = twin.matching(&filter);
        let (mut given, mut after, mut changes) = (Vec::new(), None::<String>, changes.into_iter());
        loop {
            let before = given.len();
            let page = store.page(&filter, after.as_deref(), entries, steps, |topic, value| {
                assert_eq!(twin.0.get(topic), Some(value));
                given.push(topic.to_string());
            });
            prop_assert!(given.len() - before <= entries.max(1));
            match page {
                Page::Done => break,
                Page::More(next) => {
                    prop_assert!(after.as_ref() < Some(&next));
                    after = Some(next);
                }
            }
            for change in changes.next().into_iter().flatten() {
                apply(&mut store, &mut twin, &change, 1);
            }
            let matching = twin.matching(&filter);
            lasting.retain(|topic| matching.contains(topic));
        }
        prop_assert!(given.is_sorted_by(|a, b| a < b));
        prop_assert!(given.iter().all(|topic| naive::matches(&filter, topic)));
        prop_assert!(lasting.iter().all(|topic| given.contains(topic)));
    }

    /// A filter without limits gives exactly what the naive matcher finds.
    #[test]
    fn one_page_gives_all_matches(topics in prop::collection::vec(topic(), 0..60), filter in filter()) {
        let (mut store, mut twin) = (Retained::new(), Naive::default());
        for topic in topics {
            apply(&mut store, &mut twin, &(true, topic), 0);
        }
        let mut given = BTreeSet::new();
        let page = store.page(&filter, None, usize::MAX, usize::MAX, |topic, _| {
            given.insert(topic.to_string());
        });
        prop_assert_eq!(page, Page::Done);
        prop_assert_eq!(given, twin.matching(&filter));
    }
}

/// A selective filter looks at a few topics per subtree, not at everything in it.
#[test]
fn a_selective_filter_jumps_over_what_cannot_match() {
    let mut store = Retained::new();
    for device in 0..50 {
        for value in 0..200 {
            store.set(&format!("site/{device}/v{value}"), ());
            store.set(&format!("site/{device}/log/{value}"), ());
        }
        store.set(&format!("site/{device}/state"), ());
        store.set(&format!("tree/{device}"), ());
    }
    for (filter, matching, steps) in [
        ("site/+/state", 50, 151),
        ("site/+/log/7", 50, 151),
        ("site/7/+", 201, 220),
        ("+/7/state", 1, 8),
        ("+/absent", 0, 8),
        ("site/7/log/#", 200, 202),
        ("nothing/#", 0, 1),
    ] {
        let mut given = 0;
        let page = store.page(filter, None, usize::MAX, steps, |_, ()| given += 1);
        assert_eq!((given, page), (matching, Page::Done), "{filter}");
    }
}
