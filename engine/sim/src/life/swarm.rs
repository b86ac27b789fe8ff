//! What one world is made of: which features are on, and how often what goes wrong. Many things are left out of many
//! worlds, which finds more than everything in all.

use std::num::NonZeroU16;

use sol_codec::{ProtocolVersion, QoS, RetainHandling, SubscriptionOptions};
use sol_engine::{EngineConfig, QueueFull};

use super::{Chaos, Options};
use crate::rng::Rng;
use crate::story::{FILTERS, TOPICS, options};
use crate::world::{ConnectPlan, Pace, PublishPlan, Setup};

/// One seed of so many lives long with few clients, until identifiers come round.
const LONG_ONCE_IN: u64 = 512;
/// The first of them.
const LONG_FIRST: u64 = 127;
/// One seed of so many has a rude client, and engines that do not know of it.
const TWIN_ONCE_IN: u64 = 50;
/// The first of them.
const TWIN_FIRST: u64 = 5;
/// One seed of so many has a world where a message comes, is refused or is dropped, and nothing else.
const COUNTS_ONCE_IN: u64 = 8;
/// The first of them.
const COUNTS_FIRST: u64 = 3;
/// One seed of so many has Shared Subscriptions alone, whose members come and go on many shards.
const SHARES_ONCE_IN: u64 = 32;
/// The first of them.
const SHARES_FIRST: u64 = 17;
/// Shards of those lives at least.
const SHARES_SHARDS_MIN: u16 = 3;
/// Clients of those lives at most: a shard has few members, and none is soon left.
const SHARES_CLIENTS_MAX: usize = 5;
/// Deeds of a chapter of a long life.
const LONG_CHAPTER: u64 = 4_000;
/// Events of a long life, for each that was asked for.
const LONG_TIMES: u64 = 40;

/// See the [module](self).
pub(super) struct Swarm {
    config: EngineConfig,
    versions: Vec<ProtocolVersion>,
    logins: u64,
    logins_refused: u64,
    mail_bytes_high: Option<usize>,
    pace: Pace,
    topics: Vec<&'static str>,
    filters: Vec<usize>,
    /// How often in a hundred times.
    retain: u64,
    empty: u64,
    expiry: u64,
    alias: u64,
    will: u64,
    clean: u64,
    large: u64,
    qos: Vec<QoS>,
    /// Deeds by weight.
    pub(super) weights: [u64; 6],
    pub(super) burst_max: usize,
    /// Deeds of one chapter, and steps between two deeds.
    pub(super) chapter: u64,
    pub(super) steps_max: usize,
    /// All ends once in so many chapters; 0: not before the end.
    pub(super) ends_once_in: u64,
    chaos: [u64; Chaos::ALL.len()],
    /// Once in so many deeds everything comes to rest, and what is owed by then is asked for; 0: not before the end of a
    /// chapter.
    pub(super) rests_once_in: u64,
    is_long: bool,
    shares: bool,
    /// Sessions and Subscriptions are there from the beginning and to the end.
    pub(super) counts: bool,
}

impl Swarm {
    pub(super) fn draw(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::named(seed, "swarm");
        let rng = &mut rng;
        let is_long = seed % LONG_ONCE_IN == LONG_FIRST;
        let clients = match rng.below(10) {
            _ if is_long => 2,
            0..=3 => rng.between(1, 4),
            4..=7 => rng.between(5, 12),
            _ => rng.between(13, 64),
        } as usize;
        let versions = versions(rng, clients);
        let config = config(rng, options);
        let chaos = rates(rng, options);
        let (logs_in, refused, mail) = (
            rng.next(),
            some(rng, 50, &[5, 30]),
            some(rng, 50, &[300, 1_000, 10_000]),
        );
        let logs_in = if rng.percent(30) { logs_in } else { 0 };
        let pace = Pace {
            rests_once_in: chaos[Chaos::Rest as usize],
            rests_max: *rng.pick(&[4, 64, 400]),
            stalls_once_in: chaos[Chaos::Stall as usize],
            stalls_max: *rng.pick(&[10, 100, 1_000]),
        };
        let topics = subset(rng, &TOPICS);
        let places: Vec<usize> = (0..FILTERS.len()).collect();
        let filters = subset(rng, &places);
        let qos = subset(rng, &[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let chapter = rng.between(60, 700);
        let mut swarm = Self {
            config,
            versions,
            logins: if options.has(Chaos::Login) { logs_in } else { 0 },
            logins_refused: refused,
            mail_bytes_high: (mail > 0 && options.has(Chaos::Mail)).then_some(mail as usize),
            pace,
            topics,
            filters,
            retain: some(rng, 70, &[10, 30, 60]),
            empty: some(rng, 60, &[5, 20]),
            expiry: some(rng, 50, &[10, 40]),
            alias: some(rng, 50, &[20, 60]),
            will: some(rng, 60, &[30, 80]),
            clean: some(rng, 60, &[10, 40]),
            large: some(rng, 40, &[10]),
            qos,
            weights: [
                4,
                some(rng, 60, &[1, 2]),
                some(rng, 95, &[2, 5, 10]),
                some(rng, 80, &[1, 3]),
                16,
                2,
            ],
            burst_max: *rng.pick(&[1, 3, 8]),
            chapter,
            steps_max: *rng.pick(&[4, 12, 40, 80]),
            ends_once_in: some(rng, 60, &[1, 2, 4]),
            rests_once_in: some(rng, 60, &[8, 20, 60]),
            chaos,
            is_long,
            shares: !is_long && seed % SHARES_ONCE_IN == SHARES_FIRST,
            counts: !is_long && seed % COUNTS_ONCE_IN == COUNTS_FIRST,
        };
        swarm.chaos[Chaos::Crash as usize] = swarm.crashes_once_in(seed, options);
        swarm.chaos[Chaos::Disk as usize] = swarm.fills_once_in(seed, options);
        swarm.specialise(options);
        swarm
    }

    fn specialise(&mut self, options: &Options) {
        if self.is_long {
            self.live_long();
        }
        if self.counts {
            self.live_by_the_book();
        }
        if self.shares {
            self.live_in_a_group(options.has(Chaos::Rest));
        }
    }

    /// How often the broker dies: never where nothing outlives it, or where what is counted begins anew with it.
    fn crashes_once_in(&self, seed: u64, options: &Options) -> u64 {
        let rate = some(&mut Rng::named(seed, "crash rate"), 50, &[5, 30, 120, 400]);
        let is_even = self.is_long || self.counts || seed % TWIN_ONCE_IN == TWIN_FIRST;
        let may = self.config.journal && !is_even && options.has(Chaos::Crash);
        if may { rate } else { 0 }
    }

    /// How often the disk is full, or has room again: never where nothing is written, or where nothing but a limit may keep
    /// a message from a Session.
    fn fills_once_in(&self, seed: u64, options: &Options) -> u64 {
        let rate = some(&mut Rng::named(seed, "disk rate"), 40, &[20, 60, 200]);
        let may = self.config.journal && !self.is_long && !self.counts && options.has(Chaos::Disk);
        if may { rate } else { 0 }
    }

    /// Few clients, many messages, and Sessions that do not end.
    fn live_long(&mut self) {
        self.qos = vec![QoS::AtLeastOnce];
        self.topics.truncate(1);
        self.filters = vec![0];
        (self.clean, self.ends_once_in, self.chapter) = (0, 0, LONG_CHAPTER);
        (self.expiry, self.will, self.retain, self.logins) = (0, 0, 0, 0);
        (self.burst_max, self.steps_max) = (8, 80);
        self.weights = [1, 0, 1, 0, 40, 0];
        self.config.queue_max = 100_000;
        for kind in [
            Chaos::Storm,
            Chaos::Withhold,
            Chaos::Congest,
            Chaos::Press,
            Chaos::Memory,
        ] {
            self.chaos[kind as usize] = 0;
        }
    }

    /// Members of one group come and go while mail lies long, so that what was meant for one finds nobody on shard after
    /// shard.
    fn live_in_a_group(&mut self, rests: bool) {
        self.config.shards = self.config.shards.max(SHARES_SHARDS_MIN);
        (self.config.memory_bytes_max, self.config.connections_max) = (usize::MAX, usize::MAX);
        self.versions.truncate(SHARES_CLIENTS_MAX);
        self.topics = vec!["s/a"];
        self.filters = (0..FILTERS.len()).filter(|&n| FILTERS[n] == "$share/h/s/a").collect();
        (self.retain, self.burst_max, self.steps_max) = (0, 3, 12);
        self.weights = [2, 0, 12, 12, 16, 1];
        if rests {
            (self.pace.rests_once_in, self.pace.rests_max) = (4, 100);
        }
    }

    /// Nothing but a limit keeps a message from a Session.
    fn live_by_the_book(&mut self) {
        (self.retain, self.empty, self.expiry, self.will, self.clean, self.large) = (0, 0, 0, 0, 0, 0);
        (self.logins_refused, self.ends_once_in) = (0, 0);
        // No good-bye, SUBSCRIBE or UNSUBSCRIBE.
        (self.weights[1], self.weights[2], self.weights[3]) = (0, 0, 0);
        self.filters.retain(|&filter| !FILTERS[filter].starts_with("$share/"));
        if self.filters.is_empty() {
            self.filters.push(0);
        }
        self.qos.retain(|&qos| qos > QoS::AtMostOnce);
        // What was refused while nobody was there to hear is not known to have been when it comes again at QoS 2.
        if self.qos.is_empty() || self.config.queue_full == QueueFull::Refuse {
            self.qos = vec![QoS::AtLeastOnce];
        }
        (self.config.memory_bytes_max, self.config.connections_max) = (usize::MAX, usize::MAX);
        self.chaos[Chaos::Press as usize] = 0;
    }

    /// Events of this life.
    pub(super) const fn events(&self, asked: u64) -> u64 {
        if self.is_long {
            asked.saturating_mul(LONG_TIMES)
        } else {
            asked
        }
    }

    pub(super) const fn clients(&self) -> usize {
        self.versions.len()
    }

    /// A kind of fault happens once in so many deeds; 0: never.
    pub(super) const fn once_in(&self, chaos: Chaos) -> u64 {
        self.chaos[chaos as usize]
    }

    pub(super) fn setup(&self, seed: u64) -> Setup {
        let config = &self.config;
        let lacks_room = config.memory_bytes_max < usize::MAX || config.connections_max < usize::MAX;
        let is_twin = seed % TWIN_ONCE_IN == TWIN_FIRST;
        Setup {
            seed,
            config: EngineConfig {
                // Records of a client that only one of two engines knows have tickets that the other does not.
                journal: config.journal && !is_twin,
                unanswered_bytes_max: unanswered_bytes_max(seed),
                ..config.clone()
            },
            clients: self.versions.clone(),
            logins: self.logins,
            logins_refused: self.logins_refused,
            mail_bytes_high: self.mail_bytes_high,
            pace: self.pace,
            twin: is_twin && !lacks_room,
            syncs: Rng::named(seed, "syncs").percent(50),
            counts: self.counts,
            fault: None,
        }
    }

    pub(super) fn connect_plan(&self, rng: &mut Rng) -> ConnectPlan {
        let maybe = |rng: &mut Rng, often: u64| rng.percent(often);
        let will = maybe(rng, self.will).then(|| {
            let delay = if rng.percent(50) { 0 } else { rng.between(1, 5) as u32 };
            (self.topic(rng), *rng.pick(&self.qos), rng.percent(self.retain), delay)
        });
        let expiry = [0, rng.between(1, 5) as u32, 100, u32::MAX][rng.below(4)];
        let expiry = if self.is_long || self.counts { u32::MAX } else { expiry };
        ConnectPlan {
            clean_start: rng.percent(self.clean),
            session_expiry_interval: expiry,
            receive_maximum: rng.percent(50).then(|| rng.between(1, 5) as u16),
            maximum_packet_size: (rng.percent(10) && !self.counts).then(|| rng.between(130, 200) as u32),
            topic_alias_maximum: rng.below(3) as u16,
            will,
        }
    }

    pub(super) fn publish_plan(&self, rng: &mut Rng) -> PublishPlan {
        PublishPlan {
            topic: self.topic(rng),
            qos: *rng.pick(&self.qos),
            retain: rng.percent(self.retain),
            empty: rng.percent(self.empty),
            expiry: rng.percent(self.expiry).then(|| rng.between(1, 4) as u32),
            alias: rng.percent(self.alias),
            padding: if rng.percent(self.large) { 120 } else { rng.below(8) },
            tagged: rng.percent(50),
        }
    }

    fn topic(&self, rng: &mut Rng) -> String {
        (*rng.pick(&self.topics)).to_owned()
    }

    pub(super) fn filter(&self, rng: &mut Rng) -> usize {
        *rng.pick(&self.filters)
    }

    pub(super) fn subscription_options(&self, rng: &mut Rng) -> SubscriptionOptions {
        let handling = match rng.below(5) {
            0 => RetainHandling::SendIfNew,
            1 => RetainHandling::DoNotSend,
            _ => RetainHandling::SendAtSubscribe,
        };
        let qos = *rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let qos = if self.is_long { QoS::AtLeastOnce } else { qos };
        if self.counts {
            return options(qos.max(QoS::AtLeastOnce), false, rng.percent(20), handling);
        }
        options(qos, rng.percent(20), rng.percent(20), handling)
    }
}

/// One of these so often in a hundred times, else 0.
fn some(rng: &mut Rng, often: u64, of: &[u64]) -> u64 {
    if rng.percent(often) { *rng.pick(of) } else { 0 }
}

fn versions(rng: &mut Rng, clients: usize) -> Vec<ProtocolVersion> {
    let v5 = *rng.pick(&[20, 50, 80, 100]);
    let version = |rng: &mut Rng| match rng.percent(v5) {
        true => ProtocolVersion::V5,
        false if rng.percent(30) => ProtocolVersion::V31,
        false => ProtocolVersion::V311,
    };
    (0..clients).map(|_| version(rng)).collect()
}

/// How often each kind of fault happens.
fn rates(rng: &mut Rng, options: &Options) -> [u64; Chaos::ALL.len()] {
    let mut rates = [0; Chaos::ALL.len()];
    for kind in Chaos::ALL {
        // These have streams of their own.
        if matches!(kind, Chaos::Crash | Chaos::Disk) {
            continue;
        }
        let rate = some(rng, 55, &[10, 30, 100, 300]);
        rates[kind as usize] = if options.has(kind) { rate } else { 0 };
    }
    // The wall clock and storms change much at once.
    for kind in [Chaos::Wall, Chaos::Storm] {
        rates[kind as usize] *= 5;
    }
    rates
}

/// Some of these, at least one.
fn subset<T: Copy>(rng: &mut Rng, of: &[T]) -> Vec<T> {
    let often = *rng.pick(&[30, 60, 100]);
    let first = *rng.pick(of);
    let mut some: Vec<T> = of.iter().copied().filter(|_| rng.percent(often)).collect();
    if some.is_empty() {
        some.push(first);
    }
    some
}

/// A stream of its own: what is drawn for the rest is what it was before.
fn unanswered_bytes_max(seed: u64) -> usize {
    *Rng::named(seed, "unanswered").pick(&[100, 1_000, 256 << 10])
}

/// Limits that are small enough to be met.
fn config(rng: &mut Rng, options: &Options) -> EngineConfig {
    let shards = *rng.pick(&[1, 1, 2, 2, 2, 3, 3, 4, 5, 8]);
    let policy = *rng.pick(&[QueueFull::Refuse, QueueFull::DropNewest, QueueFull::DropOldest]);
    let (queue_max, memory) = (rng.between(1, 8) as usize, rng.between(3_000, 20_000) as usize);
    let (few, tight, full) = (rng.percent(35), rng.percent(15), rng.percent(8));
    let tight = tight && options.has(Chaos::Memory);
    EngineConfig {
        shards,
        journal: rng.percent(40),
        tray_max: *rng.pick(&[1, 3, 10, 8_192]),
        retained_page_max: rng.between(1, 20) as usize,
        replay_seen_max: *rng.pick(&[0, 1, 2, 4, 1_024]),
        queue_max: if few { queue_max } else { 100_000 },
        queue_full: policy,
        queue_qos0: rng.percent(20),
        inflight_max: *rng.pick(&[1, 3, 6, 20]),
        receive_maximum: NonZeroU16::MIN.saturating_add(rng.below(12) as u16),
        topic_alias_maximum: rng.below(4) as u16,
        topic_alias_out_max: rng.below(4) as u16,
        acks_waiting_max: *rng.pick(&[2, 4, 16]),
        fanout_waiting_max: *rng.pick(&[2, 8, 1_024]),
        memory_bytes_max: if tight { memory } else { usize::MAX },
        connections_max: if full && options.has(Chaos::Memory) {
            3
        } else {
            usize::MAX
        },
        parked_bytes_max: *rng.pick(&[300, 65_536]),
        ..EngineConfig::default()
    }
}
