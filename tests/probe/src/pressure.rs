//! Publishers that are faster than their subscribers, towards shards that are busy, for a while; and the account of it.
//!
//! Every message is delivered, refused (0x97), or counted as dropped, and the three add up to what was published.
//! Bystanders, who ping and who send each other a message now and then, tell whether anybody else feels it; and so do two
//! clients that publish to each other as fast as they may and read only when they have written.

mod bystander;
mod flow;

use std::io::{self, Error};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sol_codec::{ProtocolVersion, QoS};

pub(crate) use self::bystander::Summary;
use self::bystander::{Kind, Latencies, pair, pinger};
use self::flow::{Account, Flow, Part, mutual, publisher, subscriber};
use crate::client::{Client, PATIENCE, packet_id};
use crate::shards::{Homes, Metrics};

/// How far the run has come; everybody looks.
#[derive(Debug, Default)]
pub(crate) struct Stage(AtomicU8);

impl Stage {
    const BEFORE: u8 = 0;
    const PRESSURE: u8 = 1;
    const DRAINING: u8 = 2;
    const DONE: u8 = 3;

    fn now(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    /// Only the bystanders are busy.
    pub(crate) fn is_before(&self) -> bool {
        self.now() == Self::BEFORE
    }

    /// Publishers publish.
    pub(crate) fn is_pressure(&self) -> bool {
        self.now() <= Self::PRESSURE
    }

    /// It is all over.
    pub(crate) fn is_done(&self) -> bool {
        self.now() == Self::DONE
    }
}

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) broker: SocketAddr,
    pub(crate) metrics: SocketAddr,
    /// The broker's process, whose memory is looked at.
    pub(crate) pid: u32,
    /// How long the publishers publish.
    pub(crate) pressure: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) shards: usize,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    pub(crate) dropped: u64,
    /// What the broker says it refused.
    pub(crate) refused_told: u64,
    pub(crate) resident_before: u64,
    pub(crate) resident_max: u64,
    pub(crate) mailbox_max: u64,
    /// What the bystanders feel.
    pub(crate) latencies: Summary,
}

/// The shard that is made slow.
const SLOW: usize = 1;

/// How long the bystanders are alone.
const BEFORE: Duration = Duration::from_secs(2);

/// Runs all of it.
pub(crate) fn run(options: &Options) -> io::Result<Outcome> {
    let mut homes = Homes::new(options.broker, options.metrics, "pressure")?;
    let stage = Arc::new(Stage::default());
    let flows = flows(&mut homes)?;
    let mut crew = Crew::new(options.broker, &stage);
    for shard in 0..homes.shards() {
        crew.bystanders(&mut homes, shard)?;
    }
    let mutual = crew.mutual(&mut homes)?;
    for flow in &flows {
        crew.subscriber(flow)?;
    }
    let before = Metrics::of(options.metrics)?;
    let resident_before = resident(options.pid)?;
    thread::sleep(BEFORE);
    stage.set(Stage::PRESSURE);
    for flow in &flows {
        crew.publisher(flow)?;
    }
    crew.publish_to_each_other(mutual);
    let resident_max = watch(options.pid, options.pressure)?;
    stage.set(Stage::DRAINING);
    crew.publishers_end()?;
    let after = settle(options.metrics, &before, &crew.account)?;
    stage.set(Stage::DONE);
    let latencies = crew.end()?.summary();
    let total = crew.account.total();
    let grown = |name: &str| Ok::<_, Error>(after.value(name)? - before.value(name)?);
    Ok(Outcome {
        shards: homes.shards(),
        published: total.published,
        delivered: total.delivered,
        refused: total.refused,
        dropped: grown("sol_publish_dropped_total")?,
        refused_told: grown("sol_publish_refused_total")?,
        resident_before,
        resident_max,
        mailbox_max: after.value("sol_mailbox_bytes_maximum")?,
        latencies,
    })
}

impl Outcome {
    /// Whether every message is accounted for.
    pub(crate) const fn adds_up(&self) -> bool {
        self.published == self.delivered + self.refused + self.dropped && self.refused == self.refused_told
    }
}

/// Who publishes what to whom: from each shard to the next, and all of them slow but the flood.
fn flows(homes: &mut Homes) -> io::Result<Vec<Flow>> {
    use ProtocolVersion::{V5, V311};
    let mut flows = Vec::new();
    let shards = homes.shards();
    for from in 0..shards {
        let to = (from + 1) % shards;
        let mut flow = |name: &str, version, qos, payload, is_slow, overlaps| {
            flows.push(Flow {
                topic: format!("{name}/{from}/a/b/c/d/e/f/g/h/i/j"),
                publisher: homes.name(from)?,
                subscriber: homes.name(to)?,
                version,
                qos,
                payload,
                is_slow,
                overlaps,
            });
            Ok::<_, Error>(())
        };
        flow("told", V5, QoS::AtLeastOnce, 512, true, 0)?;
        flow("untold", V311, QoS::AtLeastOnce, 512, true, 0)?;
        flow("once", V5, QoS::ExactlyOnce, 512, true, 0)?;
        flow("flood", V311, QoS::AtMostOnce, 8 << 10, false, 0)?;
        if to == SLOW % shards {
            // Each of these costs the shard that it goes to a thousand others.
            flow("steep", V5, QoS::AtLeastOnce, 64, false, 10)?;
        }
    }
    Ok(flows)
}

/// All threads.
struct Crew {
    broker: SocketAddr,
    stage: Arc<Stage>,
    account: Account,
    latencies: Latencies,
    publishers: Vec<JoinHandle<io::Result<()>>>,
    others: Vec<JoinHandle<io::Result<()>>>,
}

impl Crew {
    fn new(broker: SocketAddr, stage: &Arc<Stage>) -> Self {
        Self {
            broker,
            stage: Arc::clone(stage),
            account: Account::default(),
            latencies: Latencies::default(),
            publishers: Vec::new(),
            others: Vec::new(),
        }
    }

    /// One that pings a shard, and a pair: to it from the next one if it is the slow one, else from it to the next that is
    /// not.
    fn bystanders(&mut self, homes: &mut Homes, shard: usize) -> io::Result<()> {
        let version = ProtocolVersion::V5;
        let (shards, slow) = (homes.shards(), SLOW % homes.shards());
        let next = |shard: usize| (shard + 1) % shards;
        let is_slow = shard == slow;
        let (from, to) = if is_slow {
            (next(slow), slow)
        } else if next(shard) == slow {
            (shard, next(slow))
        } else {
            (shard, next(shard))
        };
        let pings = Client::connect(self.broker, version, &homes.name(shard)?)?;
        let sends = Client::connect(self.broker, version, &homes.name(from)?)?;
        let hears = Client::connect(self.broker, version, &homes.name(to)?)?;
        let (stage, latencies) = (Arc::clone(&self.stage), self.latencies.clone());
        self.others.push(thread::spawn(move || {
            pinger(pings, Kind::Ping { is_slow }, &stage, &latencies)
        }));
        let (stage, latencies, account) = (Arc::clone(&self.stage), self.latencies.clone(), self.account.clone());
        let topic = format!("bystander/{shard}");
        self.others.push(thread::spawn(move || {
            let kind = Kind::Message { is_slow };
            pair(sends, hears, &topic, kind, &stage, &latencies, &account)
        }));
        Ok(())
    }

    /// Two clients on two shards, subscribed to what the other one publishes.
    fn mutual(&self, homes: &mut Homes) -> io::Result<[Part; 2]> {
        let mut part = |shard: usize, own: &str, others: &str| {
            let name = homes.name(shard % homes.shards())?;
            let mut client = Client::connect(self.broker, ProtocolVersion::V5, &name)?;
            client.subscribe(packet_id(0), &[others.to_owned()], QoS::AtLeastOnce)?;
            Ok::<_, Error>(Part {
                client,
                topic: own.to_owned(),
            })
        };
        Ok([part(0, "mutual/0", "mutual/1")?, part(1, "mutual/1", "mutual/0")?])
    }

    fn publish_to_each_other(&mut self, parts: [Part; 2]) {
        for part in parts {
            let (stage, account) = (Arc::clone(&self.stage), self.account.clone());
            // It reads on until all is over: what it is sent last is on its way when it has stopped to publish.
            self.others.push(thread::spawn(move || mutual(part, &stage, &account)));
        }
    }

    fn subscriber(&mut self, flow: &Flow) -> io::Result<()> {
        let mut client = Client::connect(self.broker, flow.version, &flow.subscriber)?;
        client.subscribe(packet_id(0), &flow.filters(), flow.qos)?;
        let (stage, account, is_slow) = (Arc::clone(&self.stage), self.account.clone(), flow.is_slow);
        self.others
            .push(thread::spawn(move || subscriber(client, is_slow, &stage, &account)));
        Ok(())
    }

    fn publisher(&mut self, flow: &Flow) -> io::Result<()> {
        let client = Client::connect(self.broker, flow.version, &flow.publisher)?;
        let (stage, account, flow) = (Arc::clone(&self.stage), self.account.clone(), flow.clone());
        self.publishers
            .push(thread::spawn(move || publisher(client, &flow, &stage, &account)));
        Ok(())
    }

    fn publishers_end(&mut self) -> io::Result<()> {
        self.publishers.drain(..).try_for_each(join)
    }

    fn end(&mut self) -> io::Result<Latencies> {
        self.others.drain(..).try_for_each(join)?;
        Ok(self.latencies.clone())
    }
}

fn join(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until every message is accounted for, or nothing moves any more.
fn settle(metrics: SocketAddr, before: &Metrics, account: &Account) -> io::Result<Metrics> {
    let dropped_before = before.value("sol_publish_dropped_total")?;
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = Metrics::of(metrics)?;
        let dropped = now.value("sol_publish_dropped_total")? - dropped_before;
        let total = account.total();
        let accounted = total.delivered + total.refused + dropped;
        if account.has_ended() && accounted == total.published || since.elapsed() > PATIENCE {
            return Ok(now);
        }
        if accounted != last {
            (last, since) = (accounted, Instant::now());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Looks at the broker's memory for so long; the most that it was, in bytes.
fn watch(pid: u32, time: Duration) -> io::Result<u64> {
    let (begin, mut most) = (Instant::now(), 0);
    while begin.elapsed() < time {
        most = resident(pid)?.max(most);
        thread::sleep(Duration::from_millis(100));
    }
    Ok(most)
}

fn resident(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status")))?;
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = row.and_then(|row| row.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|kb| kb << 10).ok_or_else(|| Error::other("no VmRSS"))
}
