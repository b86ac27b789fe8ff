//! Lives that once went wrong, and that a seed is all there is to know of one.

use sol_sim::life::{self, Options};

/// Seeds that found a fault: seed, options, and what it was.
const FOUND: &[(u64, &str, &str)] = &[(
    129,
    "--events 700 --deeds 150",
    "a question for retained messages was answered before what waited in line behind a fan-out",
)];

/// What a seed has found once stays found.
#[test]
fn lives_that_went_wrong_go_well() {
    for (seed, options, what) in FOUND {
        let report = life::run(*seed, &Options::of(options));
        assert!(
            report.failure.is_none(),
            "{what}\n{}",
            life::tell(*seed, &report.options)
        );
    }
}

/// The same seed makes the same life: all that crosses the engines' border has the same hash, and another seed another.
#[test]
fn a_seed_is_a_life() {
    let options = Options {
        events: 3_000,
        ..Options::default()
    };
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let report = life::run(seed, &options);
        assert!(report.failure.is_none(), "{}", life::tell(seed, &options));
        assert_eq!(report.hash, life::tell(seed, &options).hash, "seed {seed}");
        hashes.insert(report.hash);
    }
    assert_eq!(hashes.len(), 8);
}

/// A deed that is left out changes no other, so that a failing life can be made shorter: what is drawn for the rest is
/// the same.
#[test]
fn minimising_keeps_what_fails() {
    let seed = 3;
    let options = Options {
        events: 2_000,
        skip: vec![(1, 50)],
        ..Options::default()
    };
    let report = life::run(seed, &options);
    assert!(report.failure.is_none(), "{}", life::tell(seed, &options));
    assert_ne!(
        report.hash,
        life::run(
            seed,
            &Options {
                skip: Vec::new(),
                ..options
            }
        )
        .hash
    );
}
