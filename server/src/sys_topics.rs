//! The `$SOL` and `$SYS` topics: from counters to names and values, nothing else.
//!
//! `$SOL` is the old broker's tree. Its source had every name with a trailing `/` (two without), so each is published in
//! both forms, and the four that it registered and never published are filled. `$SYS` is Mosquitto's, with `backend` and
//! `shards` for what runs.

use std::time::Duration;

use crate::stats::Stats;

/// A Martian day in seconds: the old broker counted its uptime in them too.
const SOL_SECONDS: f64 = 88_775.24;

/// The names under `$SOL/broker/` and their values.
type SolTopic = (&'static str, fn(&Stats) -> String);

const SOL: [SolTopic; 11] = [
    ("uptime", |stats| stats.uptime.as_secs().to_string()),
    ("uptime/sol", |stats| {
        format!("{:.4}", stats.uptime.as_secs_f64() / SOL_SECONDS)
    }),
    ("clients/connected", |stats| stats.clients_connected.to_string()),
    ("clients/disconnected", |stats| stats.clients_disconnected.to_string()),
    ("clients", |stats| stats.clients_total().to_string()),
    ("bytes/sent", |stats| stats.bytes_sent.to_string()),
    ("bytes/received", |stats| stats.bytes_received.to_string()),
    ("messages/sent", |stats| stats.packets_sent.to_string()),
    ("messages/received", |stats| stats.packets_received.to_string()),
    ("messages", |stats| {
        (stats.packets_sent + stats.packets_received).to_string()
    }),
    ("memory/used", |stats| stats.memory_bytes.to_string()),
];

/// The names under `$SYS/broker/` and their values. `store/messages/bytes`, Mosquitto's count of payload bytes, is not
/// among them: what is charged here counts more than payloads, and stands in `heap/current`.
type SysTopic = (&'static str, fn(&Stats) -> u64);

const SYS: [SysTopic; 30] = [
    ("clients/total", Stats::clients_total),
    ("clients/maximum", |stats| stats.clients_maximum),
    ("clients/connected", |stats| stats.clients_connected),
    ("clients/disconnected", |stats| stats.clients_disconnected),
    ("clients/active", |stats| stats.clients_connected),
    ("clients/inactive", |stats| stats.clients_disconnected),
    ("clients/expired", |stats| stats.clients_expired),
    ("messages/received", |stats| stats.packets_received),
    ("messages/sent", |stats| stats.packets_sent),
    ("messages/stored", |stats| stats.messages_stored),
    ("store/messages/count", |stats| stats.messages_stored),
    ("subscriptions/count", |stats| stats.subscriptions),
    ("shared_subscriptions/count", |stats| stats.shared_subscriptions),
    ("retained messages/count", |stats| stats.messages_retained),
    ("heap/current", |stats| stats.memory_bytes),
    ("heap/maximum", |stats| stats.memory_bytes_maximum),
    ("memory/level", |stats| stats.memory_level),
    ("journal/records", |stats| stats.journal.sizes.live_records),
    ("journal/disk/bytes", |stats| stats.journal.sizes.disk_bytes),
    ("journal/full", |stats| stats.journal.pressure as u64),
    ("journal/salvage", |stats| stats.salvage as u64),
    ("bytes/received", |stats| stats.bytes_received),
    ("bytes/sent", |stats| stats.bytes_sent),
    ("publish/messages/received", |stats| stats.publish_received),
    ("publish/messages/sent", |stats| stats.publish_sent),
    ("publish/messages/dropped", |stats| stats.publish_dropped),
    ("publish/bytes/received", |stats| stats.publish_bytes_received),
    ("publish/bytes/sent", |stats| stats.publish_bytes_sent),
    ("connections/socket/count", |stats| stats.connections),
    ("packet/out/count", |stats| stats.packets_sent),
];

/// The names under `$SYS/broker/load/` and the counters whose rate they are.
const LOADS: [SysTopic; 9] = [
    ("messages/received", |stats| stats.packets_received),
    ("messages/sent", |stats| stats.packets_sent),
    ("publish/dropped", |stats| stats.publish_dropped),
    ("publish/received", |stats| stats.publish_received),
    ("publish/sent", |stats| stats.publish_sent),
    ("bytes/received", |stats| stats.bytes_received),
    ("bytes/sent", |stats| stats.bytes_sent),
    ("sockets", |stats| stats.sockets_opened),
    ("connections", |stats| stats.connects_received),
];

const MINUTES: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// Averages per minute over the last 1, 5 and 15 minutes, as Mosquitto computes them.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    last: Stats,
    averages: [[f64; MINUTES.len()]; LOADS.len()],
}

impl Loads {
    /// Takes the next counters into the averages. Without time between them nothing changes.
    pub fn update(&mut self, stats: &Stats) {
        let elapsed = stats.uptime.saturating_sub(self.last.uptime);
        if elapsed.is_zero() {
            return;
        }
        for (averages, (_, counter)) in self.averages.iter_mut().zip(LOADS) {
            let grown = counter(stats).saturating_sub(counter(&self.last));
            for (average, (_, minutes)) in averages.iter_mut().zip(MINUTES) {
                *average = next_average(*average, grown, elapsed, minutes);
            }
        }
        self.last.clone_from(stats);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is printed with two decimals")]
fn next_average(before: f64, grown: u64, elapsed: Duration, minutes: f64) -> f64 {
    let elapsed = elapsed.as_secs_f64() / 60.0;
    let per_minute = grown as f64 / elapsed;
    per_minute + (before - per_minute) * (-elapsed / minutes).exp()
}

/// Appends every topic with its value, to be published retained.
pub fn sys_topics(stats: &Stats, loads: &Loads, out: &mut Vec<(String, String)>) {
    for (name, value) in SOL {
        let value = value(stats);
        out.push((format!("$SOL/broker/{name}/"), value.clone()));
        out.push((format!("$SOL/broker/{name}"), value));
    }
    let version = concat!("sol version ", env!("CARGO_PKG_VERSION"));
    out.push(("$SYS/broker/version".to_owned(), version.to_owned()));
    out.push(("$SYS/broker/backend".to_owned(), stats.backend.to_owned()));
    out.push(("$SYS/broker/shards".to_owned(), stats.shards.len().to_string()));
    out.push((
        "$SYS/broker/uptime".to_owned(),
        format!("{} seconds", stats.uptime.as_secs()),
    ));
    out.extend(
        SYS.iter()
            .map(|(name, value)| (format!("$SYS/broker/{name}"), value(stats).to_string())),
    );
    for ((name, _), averages) in LOADS.iter().zip(&loads.averages) {
        for ((minutes, _), average) in MINUTES.iter().zip(averages) {
            out.push((format!("$SYS/broker/load/{name}/{minutes}"), format!("{average:.2}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ShardStats;
    use std::collections::HashMap;

    fn stats() -> Stats {
        Stats {
            uptime: Duration::from_secs(90),
            clients_connected: 2,
            clients_disconnected: 3,
            packets_received: 10,
            packets_sent: 20,
            bytes_received: 100,
            bytes_sent: 200,
            memory_bytes: 4096,
            clients_maximum: 9,
            connections: 4,
            messages_retained: 7,
            backend: "epoll",
            shards: vec![ShardStats::default(); 2],
            ..Stats::default()
        }
    }

    fn topics(stats: &Stats, loads: &Loads) -> HashMap<String, String> {
        let mut out = Vec::new();
        sys_topics(stats, loads, &mut out);
        let count = out.len();
        let map: HashMap<_, _> = out.into_iter().collect();
        assert_eq!(map.len(), count, "no topic twice");
        map
    }

    /// Every name of the old broker, with its slash and without, the four silent ones too.
    #[test]
    fn the_old_tree() {
        let topics = topics(&stats(), &Loads::default());
        for (name, value) in [
            ("uptime", "90"),
            ("uptime/sol", "0.0010"),
            ("clients/connected", "2"),
            ("clients/disconnected", "3"),
            ("clients", "5"),
            ("bytes/sent", "200"),
            ("bytes/received", "100"),
            ("messages/sent", "20"),
            ("messages/received", "10"),
            ("messages", "30"),
            ("memory/used", "4096"),
        ] {
            assert_eq!(
                topics.get(&format!("$SOL/broker/{name}")).map(String::as_str),
                Some(value),
                "{name}"
            );
            assert_eq!(
                topics.get(&format!("$SOL/broker/{name}/")).map(String::as_str),
                Some(value),
                "{name}/"
            );
        }
        assert_eq!(topics.keys().filter(|name| name.starts_with("$SOL/")).count(), 22);
    }

    /// Mosquitto's names and forms, and beside them what runs.
    #[test]
    fn the_sys_tree() {
        let topics = topics(&stats(), &Loads::default());
        for (name, value) in [
            ("uptime", "90 seconds"),
            ("version", concat!("sol version ", env!("CARGO_PKG_VERSION"))),
            ("backend", "epoll"),
            ("shards", "2"),
            ("clients/total", "5"),
            ("clients/maximum", "9"),
            ("connections/socket/count", "4"),
            ("retained messages/count", "7"),
            ("heap/current", "4096"),
            ("load/messages/received/1min", "0.00"),
        ] {
            assert_eq!(
                topics.get(&format!("$SYS/broker/{name}")).map(String::as_str),
                Some(value),
                "{name}"
            );
        }
    }

    /// A steady rate is reached from below, by the short average first, and silence lets it fall again.
    #[test]
    fn loads_are_averages() {
        let (mut loads, mut stats) = (Loads::default(), Stats::default());
        let rate = |loads: &Loads, minutes: usize| loads.averages[0][minutes];
        for _ in 0..30 {
            stats.uptime += Duration::from_secs(10);
            stats.packets_received += 100;
            loads.update(&stats);
        }
        assert!((590.0..600.0).contains(&rate(&loads, 0)), "{}", rate(&loads, 0));
        assert!(rate(&loads, 0) > rate(&loads, 1) && rate(&loads, 1) > rate(&loads, 2));
        let before = rate(&loads, 0);
        loads.update(&stats);
        assert!((rate(&loads, 0) - before).abs() < f64::EPSILON, "no time, no change");
        stats.uptime += Duration::from_secs(600);
        loads.update(&stats);
        assert!(rate(&loads, 0) < 1.0);
    }
}
