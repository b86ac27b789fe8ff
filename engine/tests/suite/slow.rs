//! Clients that do not read what they are sent.

use std::time::Duration;

use sol_engine::{Cause, EngineConfig, Event};

use crate::support::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn ended_as_slow(node: &Node) -> bool {
    node.events
        .iter()
        .any(|event| matches!(event, Event::Disconnected { cause: Cause::Slow, .. }))
}

/// A congested connection that takes nothing at all is closed when its time is up; one that takes something stays.
#[test]
fn a_stuck_client_is_closed_and_a_slow_one_is_not() {
    let config = EngineConfig {
        congested_time_max: PATIENCE,
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let client = node.connect(V5, "client");
        node.congest(client, 5_000);
        for left in (1..8).rev() {
            node.pass(PATIENCE / 2);
            node.congest(client, left * 500);
            assert!(!ended_as_slow(node), "{left}");
        }
        node.pass(2 * PATIENCE);
        assert!(ended_as_slow(node));
        node.expect(client, &["CLOSE"]);
        assert_eq!(node.stats().slow_closed, 1);
    });
}

/// Too many unsent bytes close a connection at once, and nobody else.
#[test]
fn too_much_unsent_closes_that_connection_alone() {
    in_every_node(|node| {
        let slow = node.connect(V5, "slow");
        let other = node.connect(V5, "other");
        node.congest(slow, u32::MAX);
        node.expect(slow, &["CLOSE"]);
        node.ping(other);
        node.expect(other, &["PINGRESP"]);
    });
}
