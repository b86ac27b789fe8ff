//! Clients and clocks that mean harm: memory on ways around its limit, storms that fall due at once, time that jumps.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{Packet, PublishProperties, TopicName};
use sol_engine::{
    ConnectionId, Effects, Engine, EngineConfig, Input, Instant, Level, ListenerId, Now, ShardId, UnixMillis,
};

use crate::support::*;

// --- Memory -----------------------------------------------------------------------------------------------------------

/// Random Client Identifiers that never come back fill the memory and no more; those who are known still get in, and so
/// do clients without a Session. When the Sessions have expired, there is room again.
#[test]
fn sessions_that_never_come_back_are_bounded() {
    let config = EngineConfig {
        memory_bytes_max: 100_000,
        session_expiry_max: 600,
        ..Default::default()
    };
    in_each_node(config, |node| {
        let known = node.connect_durable(V5, "known");
        node.lose(known);
        let (mut refused, mut accepted) = (0, 0);
        for n in 0..2_000 {
            let client = node.resume(V5, &format!("random{n}"), u32::MAX);
            if node.take(client)[0].starts_with("CONNACK 97") {
                refused += 1;
            } else {
                accepted += 1;
                node.lose(client);
            }
        }
        assert!(
            refused > 500 && accepted > 300,
            "{refused} refused, {accepted} accepted"
        );
        assert!(node.stats().memory_bytes < 110_000 * node.engines.len() as u64);
        let known = node.resume(V5, "known", 600);
        node.expect(known, &["CONNACK 00 present"]);
        node.connect(V5, "passing");
        node.pass(Duration::from_secs(601));
        assert_eq!(node.stats().clients_expired, accepted);
        for n in 0..100 {
            node.connect_durable(V5, &format!("fresh{n}"));
        }
    });
}

/// A Will or a User Name is no way around the memory limit: a large one is refused with 0x97 while memory is full. With
/// a small one whoever comes to take what is queued gets in.
#[test]
fn a_large_will_is_refused_without_memory() {
    in_every_node(|node| {
        let name = "x".repeat(8_000).leak() as &'static str;
        node.input_all(|| Input::Pressure(Level::Full));
        let with_will = |node: &mut Node, payload: &'static [u8]| {
            node.connect_with(V5, "c", move |connect| connect.will = Some(will("w", payload, 0)))
        };
        let large = with_will(node, name.as_bytes());
        node.expect(large, &["CONNACK 97", "CLOSE"]);
        let small = with_will(node, b"gone");
        node.expect(small, &["CONNACK 00"]);
        let named = node.connect_with(V311, "d", move |connect| connect.username = Some(name));
        node.expect(named, &["CONNACK 97", "CLOSE"]);
        node.input_all(|| Input::Pressure(Level::Normal));
        let before = node.stats().memory_bytes;
        let named = node.connect_with(V311, "d", move |connect| connect.username = Some(name));
        node.expect(named, &["CONNACK 00"]);
        assert!(node.stats().memory_bytes > before + 8_000, "a User Name is charged");
        node.disconnect(named);
        node.disconnect(small);
        assert_eq!(node.stats().memory_bytes, 0);
    });
}

/// One PUBLISH of 64 KiB to a thousand Sessions is held once on each shard, with a few bytes for each Session.
#[test]
fn a_fanout_holds_its_payload_once() {
    in_every_node(|node| {
        for n in 0..1_000 {
            let client = node.connect_durable(V5, &format!("c{n}"));
            node.subscribed(client, &["t"], 1);
            if n % 2 == 0 {
                node.lose(client);
            }
        }
        let publisher = node.connect(V5, "publisher");
        let before = node.stats().memory_bytes;
        node.publish(publisher, "t", 1, 1, &"x".repeat(64 << 10));
        node.expect(publisher, &["PUBACK #1"]);
        let grown = node.stats().memory_bytes - before;
        let shards = node.engines.len() as u64;
        assert!(grown < (65 << 10) * shards + 1_000 * 256, "{grown}");
    });
}

// --- Storms -----------------------------------------------------------------------------------------------------------

/// An engine by itself, to see what one call does.
struct Alone {
    engine: Engine,
    effects: Effects,
    now: Now,
}

impl Alone {
    fn new() -> Self {
        Self {
            engine: Engine::new(ShardId(0), Rc::new(EngineConfig::default()), SEEDS),
            effects: Effects::default(),
            now: Now::default(),
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let _ = self.engine.handle(self.now, input, &mut self.effects);
        self.effects.clear();
    }

    /// Connects client `n` and gives its connection.
    fn connect(&mut self, n: u32, expiry: u32) -> ConnectionId {
        let connection = ConnectionId::new(n, NonZeroU32::MIN);
        let listener = ListenerId(0);
        self.input(Input::Opened { connection, listener });
        let name = format!("c{n}");
        let mut packet = connect(V5, &name);
        packet.properties.session_expiry_interval = Some(expiry);
        self.input(Input::Packet(connection, &Packet::Connect(packet)));
        connection
    }

    fn sleep(&mut self, duration: Duration) {
        self.now.mono = self.now.mono.saturating_add(duration);
        let wall = self.now.wall.as_millis() + duration.as_millis() as u64;
        self.now.wall = UnixMillis::from_millis(wall);
    }

    /// Ticks until nothing is due, and gives how much `count` fell with each.
    fn ticks(&mut self, count: impl Fn(&Engine) -> u64) -> Vec<u64> {
        let mut slices = Vec::new();
        while self.engine.next_deadline().is_some_and(|at| at <= self.now.mono) {
            let before = count(&self.engine);
            self.engine.tick(self.now, &mut self.effects);
            self.effects.clear();
            slices.push(before - count(&self.engine));
            assert!(slices.len() < 1_000, "it does not come to rest");
        }
        slices
    }
}

/// Ten thousand deadlines that fall due at once are worked off a thousand a turn, so that nobody waits for all of them.
#[test]
fn deadlines_due_at_once_are_sliced() {
    let mut alone = Alone::new();
    for n in 0..10_000 {
        let connection = alone.connect(n, 60);
        alone.input(Input::Closed(connection));
    }
    alone.sleep(Duration::from_secs(61));
    let slices = alone.ticks(|engine| engine.stats().clients_disconnected);
    assert_eq!(slices.iter().sum::<u64>(), 10_000);
    assert!(slices.iter().all(|&ended| ended <= 1_024), "{slices:?}");
}

/// Twenty thousand retained messages that expire in one second go in slices, with pauses between them.
#[test]
fn messages_that_expire_at_once_are_sliced() {
    let mut alone = Alone::new();
    let connection = alone.connect(1, 0);
    for n in 0..20_000 {
        let topic = format!("t/{n}");
        let mut packet = publish(&topic, 0, 0, b"x");
        packet.topic = Some(TopicName::new(&topic).unwrap());
        packet.retain = true;
        packet.properties = PublishProperties {
            message_expiry_interval: Some(1),
            ..Default::default()
        };
        alone.input(Input::Packet(connection, &Packet::Publish(packet)));
    }
    assert_eq!(alone.engine.stats().retained_messages, 20_000);
    let mut slices = Vec::new();
    for _ in 0..100 {
        alone.sleep(Duration::from_secs(1));
        slices.extend(alone.ticks(|engine| engine.stats().retained_messages));
    }
    assert_eq!(slices.iter().sum::<u64>(), 20_000);
    assert!(slices.iter().all(|&gone| gone <= 4_096), "{slices:?}");
}

/// Five hundred clients that are lost at once: every Will is published, and reaches who waits for it in order.
#[test]
fn a_storm_of_wills_is_delivered_whole() {
    in_every_node(|node| {
        let watcher = node.connect(V5, "watcher");
        node.subscribed(watcher, &["wills/#"], 1);
        let clients: Vec<_> = (0..500)
            .map(|n| {
                let topic = format!("wills/{n}").leak() as &'static str;
                node.connect_with(V5, &format!("c{n}"), move |connect| {
                    connect.will = Some(will(topic, b"gone", 1));
                })
            })
            .collect();
        for client in clients {
            node.lose(client);
        }
        assert_eq!(node.drink(watcher).len(), 500);
    });
}

// --- Clocks -----------------------------------------------------------------------------------------------------------

/// The wall clock goes back an hour and forward a year: Keep Alive does not care, and message expiry follows it.
#[test]
fn the_wall_clock_may_jump() {
    in_every_node(|node| {
        let client = node.connect_with(V5, "client", |connect| connect.keep_alive = 10);
        node.take(client);
        let away = node.connect_durable(V5, "away");
        node.subscribed(away, &["t"], 1);
        node.lose(away);
        node.publish_with(client, "t", 1, 1, "short", |publish| {
            publish.properties.message_expiry_interval = Some(1_000);
        });
        node.publish(client, "t", 1, 2, "for ever");
        let wall = node.now.wall.as_millis();
        for jumped in [wall - 3_600_000, wall + 365 * 86_400_000] {
            node.now.wall = UnixMillis::from_millis(jumped);
            node.pass(Duration::from_secs(10));
            node.ping(client);
        }
        node.expect(client, &["PUBACK #1", "PUBACK #2", "PINGRESP", "PINGRESP"]);
        let away = node.resume(V5, "away", 3_600);
        node.expect(away, &["CONNACK 00 present", r#"PUBLISH t q1 #1 "for ever""#]);
        node.pass(Duration::from_secs(16));
        node.expect(client, &["DISCONNECT 8d", "CLOSE"]);
    });
}

/// A broker that stood still for a minute cuts nobody whose packets came meanwhile and were not read yet; who is silent
/// in truth goes a second later.
#[test]
fn a_broker_that_stood_still_reads_before_it_judges() {
    in_every_node(|node| {
        let speaks = node.connect_with(V5, "speaks", |connect| connect.keep_alive = 10);
        let silent = node.connect_with(V311, "silent", |connect| connect.keep_alive = 10);
        node.take(speaks);
        node.take(silent);
        node.now.mono = node.now.mono.saturating_add(Duration::from_secs(60));
        // A turn before anything of theirs is read.
        node.run();
        node.ping(speaks);
        node.expect(speaks, &["PINGRESP"]);
        node.expect(silent, &[]);
        node.pass(Duration::from_millis(1_100));
        node.expect(silent, &["CLOSE"]);
        node.pass(Duration::from_secs(13));
        node.expect(speaks, &[]);
        node.pass(Duration::from_secs(2));
        node.expect(speaks, &["DISCONNECT 8d", "CLOSE"]);
    });
}

/// Who is silent gets that second once, however often the broker stands still; who spoke since gets it again.
#[test]
fn a_broker_that_stands_still_again_and_again_judges_at_last() {
    in_every_node(|node| {
        let [speaks, silent] = ["speaks", "silent"].map(|client_id| {
            let client = node.connect_with(V311, client_id, |connect| connect.keep_alive = 10);
            node.take(client);
            client
        });
        let stand_still = |node: &mut Node| {
            node.now.mono = node.now.mono.saturating_add(Duration::from_secs(60));
            node.run();
        };
        stand_still(node);
        node.ping(speaks);
        node.expect(speaks, &["PINGRESP"]);
        node.expect(silent, &[]);
        stand_still(node);
        node.expect(silent, &["CLOSE"]);
        node.ping(speaks);
        node.expect(speaks, &["PINGRESP"]);
    });
}

/// The ends of the ranges: Keep Alive 1 and 65,535, expiries of 0xFFFFFFFE (136 years) and 0xFFFFFFFF (never), and a
/// clock that has run for 2^32 milliseconds.
#[test]
fn the_largest_intervals_overflow_nothing() {
    in_every_node(|node| {
        node.pass(Duration::from_millis((1 << 32) - 5_000));
        for (keep_alive, millis) in [(1, 1_500), (u16::MAX, 98_302_500)] {
            for version in [V311, V5] {
                let client = node.connect_with(version, "client", move |connect| connect.keep_alive = keep_alive);
                node.take(client);
                node.pass(Duration::from_millis(millis - 20));
                node.expect(client, &[]);
                node.pass(Duration::from_millis(40));
                assert_eq!(node.take(client).last().map(String::as_str), Some("CLOSE"));
            }
        }
        for expiry in [u32::MAX - 1, u32::MAX] {
            let client = node.resume(V5, &format!("{expiry}"), expiry);
            node.take(client);
            node.subscribed(client, &["t"], 1);
            node.lose(client);
        }
        let publisher = node.connect(V5, "publisher");
        for seconds in [u32::MAX - 1, u32::MAX] {
            node.publish_with(publisher, "t", 1, 1, "x", move |publish| {
                publish.properties.message_expiry_interval = Some(seconds);
            });
        }
        node.pass(Duration::from_secs(u64::from(u32::MAX) - 2));
        assert_eq!(node.stats().clients_disconnected, 2);
        node.pass(Duration::from_secs(2));
        assert_eq!(node.stats().clients_disconnected, 1, "the one that never ends");
    });
}

/// A clock at the end of its range: deadlines beyond it are kept for ever, and nothing wraps.
#[test]
fn the_end_of_time_is_survived() {
    let mut alone = Alone::new();
    alone.now.mono = Instant::from_nanos(u64::MAX - 1_000_000_000);
    let connection = alone.connect(1, u32::MAX - 1);
    alone.input(Input::Closed(connection));
    alone.ticks(|engine| engine.stats().clients_disconnected);
    alone.now.mono = Instant::from_nanos(u64::MAX);
    alone.engine.tick(alone.now, &mut alone.effects);
    alone.engine.check().unwrap();
}

// --- Takeovers --------------------------------------------------------------------------------------------------------

/// One Client Identifier that comes in through every shard again and again, while messages for it arrive: one
/// connection is left, each earlier one heard 0x8E, and every message comes once.
#[test]
fn takeovers_leave_one_and_lose_nothing() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        let mut present = node.connect_durable(V5, "same");
        node.subscribed(present, &["t"], 2);
        let mut got = Vec::new();
        for n in 1..=300_u16 {
            node.publish(publisher, "t", 2, n, &n.to_string());
            node.pubrel(publisher, n);
            if n % 3 == 0 {
                got.extend(node.drink(present));
            }
            let next = node.resume(V5, "same", 3_600);
            let last = node.take(present);
            assert_eq!(last[last.len() - 2..], ["DISCONNECT 8e", "CLOSE"], "{last:?}");
            got.extend(last);
            present = next;
        }
        got.extend(node.drink(present));
        let is_live = |client: &&ClientState| client.open && client.connack.is_some();
        assert_eq!(node.clients.iter().filter(is_live).count(), 2);
        let first = |line: &&String| line.starts_with("PUBLISH") && !line.contains(" dup ");
        let payloads: Vec<_> = got
            .iter()
            .filter(first)
            .filter_map(|line| line.split('"').nth(1))
            .collect();
        let wanted: Vec<_> = (1..=300).map(|n| n.to_string()).collect();
        assert_eq!(payloads, wanted);
    });
}
