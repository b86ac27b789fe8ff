//! Resident bytes per subscription and per retained entry, from the kernel's own count: what the allocator rounds up
//! and what a growing table leaves behind is in it.
#![allow(
    missing_docs,
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::fs;

use sol_benches::routing;
use sol_engine::bench_support::TopicTree;

const COUNT: usize = 1_000_000;

fn main() {
    let text: usize = (0..COUNT).map(|i| routing::filter(i).len()).sum();
    println!("filters of {} bytes on average", text / COUNT);
    let (tree, bytes) = measure(|| routing::tree(COUNT));
    println!("{bytes} resident bytes per subscription");
    println!("{} ns to unsubscribe, on average", unsubscribe_all(tree));

    let text: usize = (0..COUNT).map(|i| routing::topic(i).len()).sum();
    let (retained, bytes) = measure(|| routing::retained(COUNT));
    assert_eq!(retained.len(), COUNT);
    println!(
        "{bytes} resident bytes per retained entry, {} of them its topic, 8 its value",
        text / COUNT
    );
}

/// What `build` makes, and its resident bytes per entry.
fn measure<T>(build: impl FnOnce() -> T) -> (T, usize) {
    let before = resident();
    let built = build();
    (built, (resident() - before) / COUNT)
}

fn unsubscribe_all(mut tree: TopicTree) -> u128 {
    let start = std::time::Instant::now();
    for i in 0..COUNT {
        assert!(
            tree.unsubscribe(&routing::filter(i), sol_engine::SessionKey(i as u32))
                .is_some()
        );
    }
    assert!(tree.is_empty());
    start.elapsed().as_nanos() / COUNT as u128
}

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells its count");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("the count is there");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .expect("a number of KiB")
        * 1024
}
