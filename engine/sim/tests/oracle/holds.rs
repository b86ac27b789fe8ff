//! The property.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use sol_sim::story::Story;

use crate::strategy::story;

/// Stories per number of shards. They are the same each time; `PROPTEST_CASES` asks for so many others.
const CASES: u32 = 300;

fn runner() -> TestRunner {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config = ProptestConfig {
        cases: asked.unwrap_or(CASES),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match asked {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    }
}

fn holds(shards: u16) {
    let told = |story: Story| {
        let verdict = story.tell(None);
        verdict
            .map(drop)
            .map_err(|violation| TestCaseError::fail(violation.to_string()))
    };
    match runner().run(&story(shards), told) {
        Ok(()) => {}
        Err(TestError::Fail(_, story)) => panic!("{story:#?}\n{}", story.log(None).join("\n")),
        Err(error) => panic!("{error}"),
    }
}

/// Whatever clients do on one shard: nothing is lost after its acknowledgement but by a named policy, QoS 2 comes exactly
/// once and QoS 1 again only with DUP on a new connection, each publisher's messages to a topic come in order, nothing
/// comes without a Subscription that explains it, what is retained is what was published last, Packet Identifiers and
/// Receive Maximum are kept to, each client has one connection, Wills are published when they are due and never else, and
/// every packet is legal where it comes; at last everything owed has come and nothing is left.
#[test]
fn one_shard_does_what_the_oracle_allows() {
    holds(1);
}

/// The same on two shards, whose mail lies for as long as chance will have it while clients go on.
#[test]
fn two_shards_do_what_the_oracle_allows() {
    holds(2);
}
