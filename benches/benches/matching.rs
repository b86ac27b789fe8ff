//! Matching a Topic Name against 10,000 and 1,000,000 Subscriptions, and paging through as many retained messages.
#![allow(missing_docs, reason = "criterion's macros document nothing")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sol_benches::routing::{self, SITES};
use sol_engine::SessionKey;
use sol_engine::bench_support::{Matches, Page, Retained, Subscription, TopicTree};

const COUNTS: [usize; 2] = [10_000, 1_000_000];

/// Publishes from all over the table, so that a large one misses the caches as it does in life.
fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("matching");
    for count in COUNTS {
        let tree = routing::tree(count);
        let topics: Vec<_> = (0..100_000)
            .map(|n| n * 7_919 % count)
            .map(|i| (i, routing::topic(i)))
            .collect();
        let mut matches = Matches::default();
        for (i, topic) in &topics {
            assert_eq!(sessions(&tree, topic, &mut matches), [SessionKey(*i as u32)], "{topic}");
        }
        assert!(sessions(&tree, "site/0000/nothing/temp", &mut matches).is_empty());

        let mut all = topics.iter().cycle();
        group.bench_function(BenchmarkId::new("any device", count), |b| {
            b.iter(|| all.next().map(|(_, topic)| find(&tree, topic, &mut matches)));
        });
        for (name, kind) in [("one exact", 0), ("one wildcard", 2)] {
            let topic = routing::topic(kind);
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| find(&tree, black_box(&topic), &mut matches))
            });
        }
        group.bench_function(BenchmarkId::new("nobody", count), |b| {
            b.iter(|| find(&tree, black_box("site/0000/nothing/temp"), &mut matches));
        });
    }
    group.finish();
}

/// Subscribing and unsubscribing a filter beside all the others.
fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("churn");
    for count in COUNTS {
        let mut tree = routing::tree(count);
        let subscription = Subscription {
            session: SessionKey(u32::MAX),
            sub_id: 0,
            readable: 0,
            options: 0,
        };
        for filter in ["one/more/exact/filter", "one/more/+/filter"] {
            group.bench_function(BenchmarkId::new(filter, count), |b| {
                b.iter(|| {
                    let added = tree.subscribe(black_box(filter), subscription);
                    let removed = tree.unsubscribe(black_box(filter), subscription.session);
                    assert!(added.first && removed.is_some_and(|removed| removed.last));
                });
            });
        }
    }
    group.finish();
}

/// One Session among 100,000 on one filter comes and goes.
fn crowd(c: &mut Criterion) {
    let mut tree = TopicTree::new([1, 2, 3, 4]);
    let subscription = |session| Subscription {
        session: SessionKey(session),
        sub_id: 0,
        readable: 0,
        options: 0,
    };
    for session in 0..100_000 {
        tree.subscribe("news", subscription(session));
    }
    c.bench_function("churn/in a crowd of 100000", |b| {
        b.iter(|| {
            let removed = tree.unsubscribe("news", black_box(SessionKey(50_000)));
            assert!(removed.is_some_and(|removed| !removed.last));
            tree.subscribe("news", subscription(50_000))
        });
    });
}

/// A page of what a filter matches, and whole scans of selective filters.
fn retained(c: &mut Criterion) {
    let mut group = c.benchmark_group("retained");
    for count in COUNTS {
        let store = routing::retained(count);
        let per_site = count / SITES;
        for (name, filter, limit, expected) in [
            ("page of 100 of all", "#", 100, 100),
            ("one topic", "site/0042/dev0000042/temp", 100, 1),
            ("one device of any site", "site/+/dev0000042/temp", usize::MAX, 1),
            ("all devices of a site", "site/0042/+/temp", usize::MAX, per_site),
            ("nothing", "site/+/temp", usize::MAX, 0),
        ] {
            assert_eq!(page(&store, filter, limit), expected, "{filter}");
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| page(&store, black_box(filter), limit))
            });
        }
    }
    group.finish();
}

fn find(tree: &TopicTree, topic: &str, matches: &mut Matches) -> usize {
    matches.clear();
    tree.matches(topic, tree.topic_hash(topic), matches);
    matches.filters.len()
}

fn sessions(tree: &TopicTree, topic: &str, matches: &mut Matches) -> Vec<SessionKey> {
    find(tree, topic, matches);
    matches
        .filters
        .iter()
        .flat_map(|&key| tree.subscribers(key))
        .map(|subscription| subscription.session)
        .collect()
}

fn page(store: &Retained<usize>, filter: &str, limit: usize) -> usize {
    let mut given = 0;
    let page = store.page(filter, None, limit, usize::MAX, |_, _| given += 1);
    assert_eq!(page == Page::Done, given < limit);
    given
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group!(name = benches; config = config(); targets = matching, churn, crowd, retained);
criterion_main!(benches);
