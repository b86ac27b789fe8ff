//! One set of filters and topics for everything that is measured about routing: a site's devices, each with a filter
//! of its own, a third of them with wildcards.

use sol_engine::SessionKey;
use sol_engine::bench_support::{Retained, Subscription, TopicTree};

/// Sites; the devices are spread over them in turn.
pub const SITES: usize = 1_000;

/// The filter of device `i`: 24 bytes on average; a wildcard for every third, in three forms.
#[must_use]
pub fn filter(i: usize) -> String {
    let site = i % SITES;
    match i % 9 {
        2 => format!("site/{site:04}/dev{i:07}/+"),
        5 => format!("site/{site:04}/dev{i:07}/#"),
        8 => format!("site/+/dev{i:07}/temp"),
        _ => format!("site/{site:04}/dev{i:07}/temp"),
    }
}

/// What device `i` publishes; the only filter that it matches is its own.
#[must_use]
pub fn topic(i: usize) -> String {
    format!("site/{:04}/dev{i:07}/temp", i % SITES)
}

/// The filters of `count` devices, one subscriber each.
#[must_use]
pub fn tree(count: usize) -> TopicTree {
    let mut tree = TopicTree::new([1, 2, 3, 4]);
    for i in 0..count {
        tree.subscribe(
            &filter(i),
            Subscription {
                session: SessionKey(i as u32),
                sub_id: 0,
                readable: 0,
                options: 0,
            },
        );
    }
    tree
}

/// The topics of `count` devices, each with a retained value of a pointer's size.
#[must_use]
pub fn retained(count: usize) -> Retained<usize> {
    let mut retained = Retained::new();
    for i in 0..count {
        retained.set(&topic(i), i);
    }
    retained
}
