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

/// What the journal has held leaves as the client takes it, in order, though all of it is released at once: nobody who reads is
/// taken to be slow for it. A connection that is lost before leaves the rest to the next one, without DUP.
#[test]
fn what_the_journal_held_leaves_as_it_is_taken() {
    const MESSAGES: usize = 30;
    let config = EngineConfig {
        journal: true,
        unsent_bytes_high: 500,
        unsent_bytes_max: 2_000,
        ..EngineConfig::default()
    };
    in_each_node(config, |node| {
        let name = "client";
        let client = node.connect_durable(V5, name);
        node.subscribed(client, &["t"], 2);
        node.lose(client);
        let publisher = node.connect(V5, "publisher");
        for n in 0..MESSAGES {
            node.publish(publisher, "t", 2, n as u16 + 1, &format!("{n:0>200}"));
        }
        node.durable_at_once = false;
        let client = node.resume(V5, name, 3_600);
        node.make_all_durable();
        node.expect(client, &["CONNACK 00 present"]);
        // The kernel did not take all of something: from now on bytes add up.
        node.congest(client, 100);
        node.make_all_durable();
        let mut got = node.take(client);
        assert_eq!(got.len(), 2, "as many as fit: {got:?}");
        node.drain(client);
        got.extend(node.take(client));
        assert!(got.len() > 2 && !ended_as_slow(node));
        node.congest(client, 501);
        node.make_all_durable();
        node.expect(client, &[]);
        node.check();
        node.lose(client);
        node.check();
        node.durable_at_once = true;
        let client = node.resume(V5, name, 3_600);
        let all = node.drink(client);
        let payloads = |lines: &[String], wanted: &str| -> Vec<String> {
            let lines = lines
                .iter()
                .filter(|line| line.starts_with("PUBLISH") && line.contains(wanted));
            lines.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
        };
        let expected: Vec<_> = (0..MESSAGES).map(|n| format!("{n:0>200}")).collect();
        assert_eq!(payloads(&all, ""), expected, "everything comes, in order");
        assert_eq!(payloads(&all, "dup"), payloads(&got, ""), "DUP is set of what was sent");
        assert!(!ended_as_slow(node));
        node.check();
    });
}

/// [MQTT-3.3.2-5]: what expires while it waits for the journal, or behind it for room in the connection, was never begun and is
/// not sent; nor on a later connection, if this one is lost. What was sent once is sent again.
#[test]
fn what_expires_behind_the_journal_is_not_sent() {
    let config = EngineConfig {
        journal: true,
        unsent_bytes_high: 500,
        ..EngineConfig::default()
    };
    for (is_durable, is_lost) in [(true, false), (true, true), (false, false), (false, true)] {
        in_each_node(config.clone(), |node| {
            let client = node.connect_durable(V5, "client");
            node.subscribed(client, &["t"], 2);
            let publisher = node.connect(V5, "publisher");
            let send = |node: &mut Node, n: u16, expiry| {
                node.publish_with(publisher, "t", 2, n, &n.to_string(), move |publish| {
                    publish.properties.message_expiry_interval = expiry;
                });
            };
            send(node, 1, Some(10));
            node.expect(client, &[r#"PUBLISH t q2 #1 expiry10 "1""#]);
            node.durable_at_once = false;
            send(node, 2, Some(10));
            send(node, 3, None);
            // The kernel takes no more, so that the next waits behind the journal or for it.
            node.congest(client, 501);
            if is_durable {
                node.make_all_durable();
            }
            node.pass(Duration::from_secs(20));
            node.expect(client, &[]);
            let again = r#"PUBLISH t q2 #1 dup expiry0 "1""#;
            let last = r#"PUBLISH t q2 #3 "3""#;
            node.durable_at_once = true;
            if is_lost {
                node.lose(client);
                node.make_all_durable();
                let client = node.resume(V5, "client", 3_600);
                node.expect(client, &["CONNACK 00 present", again, last]);
            } else {
                node.make_all_durable();
                node.drain(client);
                node.expect(client, &[last]);
            }
            assert_eq!(node.stats().publish_expired, 1);
            node.check();
        });
    }
}
