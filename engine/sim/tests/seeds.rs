//! Lives that once went wrong, and that a seed is all there is to know of one.

use sol_sim::fault::Fault;
use sol_sim::life::{self, Options, Report};

/// Seeds that found a fault: seed, options, and what it was.
const FOUND: &[(u64, &str, &str)] = &[
    (
        162,
        "--events 20000",
        "a question for retained messages was answered before what waited in line behind a fan-out",
    ),
    (
        855,
        "--events 20000",
        "what another shard has not answered was counted by the buffers that it had lain in",
    ),
    (
        60_105,
        "--events 20000",
        "parked publishes were counted by the buffers that they lay in",
    ),
    (
        144,
        "--events 20000",
        "a restart left a record beside the one that had taken its place",
    ),
    (
        623,
        "--events 20000",
        "a repeat that a restart knew was answered before publishes that were parked",
    ),
    (
        768,
        "--events 20000",
        "the oracle did not count what a replay had sent before it began anew as coming again",
    ),
    (
        41_593,
        "--events 20000",
        "the oracle forgot the Wills of a Session that nobody was told of",
    ),
    (
        381,
        "--events 20000",
        "what cleared a topic was acknowledged before what had cleared it was kept",
    ),
];

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
/// the same, and the life another one.
#[test]
fn a_deed_can_be_left_out() {
    let options = Options {
        events: 2_000,
        skip: vec![(1, 50)],
        ..Options::default()
    };
    let report = life::run(3, &options);
    assert!(report.failure.is_none(), "{}", life::tell(3, &options));
    let all = Options {
        skip: Vec::new(),
        ..options
    };
    assert_ne!(report.hash, life::run(3, &all).hash);
}

/// A failing life that is made shorter still fails by the same invariant, is no longer, and has less in it.
#[test]
fn minimising_keeps_what_fails() {
    let options = Options {
        events: 2_000,
        fault: Some(Fault::LosesAcknowledged),
        ..Options::default()
    };
    let mut failing = (0..100).map(|seed| life::run(seed, &options));
    let report = failing
        .find(|report| report.failure.is_some())
        .expect("a fault is found");
    let invariant = |report: &Report| report.failure.as_ref().map(|failure| failure.invariant);
    let mut told = 0;
    let shortest = life::minimise(&report, |best| {
        assert_eq!(invariant(best), invariant(&report));
        told += 1;
    });
    assert!(told > 0, "it says how far it is");
    let again = life::run(report.seed, &shortest.options);
    assert_eq!(again.failure, shortest.failure, "what it returns is what a run finds");
    assert_eq!(invariant(&again), invariant(&report));
    assert!(again.deeds <= report.deeds, "{again} of {report}");
    let lived = |report: &Report| (1..=report.deeds).filter(|&deed| !report.options.skips(deed)).count();
    assert!(lived(&again) < lived(&report), "{again} of {report}");
    assert!(shortest.options.clients.count_ones() < options.clients.count_ones());
}
