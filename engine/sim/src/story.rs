//! A sequence of operations, told to a world.

use std::time::Duration;

use sol_codec::{ProtocolVersion, QoS, RetainHandling, SubscriptionOptions};
use sol_engine::{EngineConfig, QueueFull};

use crate::fault::Fault;
use crate::violation::{Verdict, Violation};
use crate::world::{ConnectPlan, PublishPlan, Setup, World};

/// Topic Names that are published to.
pub const TOPICS: [&str; 7] = ["a", "a/b", "a/b/c", "/", "x/b", "$d/b", "s/a"];

/// Topic Filters that are subscribed to.
pub const FILTERS: [&str; 12] = [
    "#",
    "a",
    "a/#",
    "a/+",
    "+/b",
    "/",
    "$d/#",
    "+/b/c",
    "a/b",
    "$share/g/a/#",
    "$share/g/s/+",
    "$share/h/s/a",
];

/// One operation of one client, or of the world.
#[derive(Clone, Debug)]
pub enum Op {
    /// A client connects, in place of a connection that it has.
    Connect(usize, ConnectPlan),
    /// A client says good-bye; whether its Will is to be published, and a new Session Expiry Interval.
    Disconnect(usize, bool, Option<u32>),
    /// A client loses its connection.
    Lose(usize),
    /// A client subscribes, by places in [`FILTERS`], with a Subscription Identifier.
    Subscribe(usize, Vec<(usize, SubscriptionOptions)>, Option<u32>),
    /// A client unsubscribes.
    Unsubscribe(usize, usize),
    /// A client publishes, so many times.
    Publish(usize, PublishPlan, usize),
    /// A client keeps its acknowledgements to itself, or no longer.
    Withhold(usize, bool),
    /// A client gives some acknowledgements that it kept to itself.
    Release(usize, usize),
    /// A client's connection takes nothing, or everything again.
    Congest(usize, bool),
    /// Milliseconds pass.
    Pass(u64),
    /// Things happen by chance.
    Steps(usize),
    /// All that can happen happens.
    Rest,
    /// The same, and somebody looks at all that is retained.
    Look,
}

/// The sizes of a world: small ones, so that limits are met.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Number of engines.
    pub shards: u16,
    /// Acknowledgements wait for a journal.
    pub journal: bool,
    /// Packets in a tray.
    pub tray_max: usize,
    /// Retained messages in a page, and topics that a replay remembers.
    pub retained_page_max: usize,
    /// See [`EngineConfig::replay_seen_max`].
    pub replay_seen_max: usize,
    /// Messages in a queue, and what a full one does; `None`: there is always room.
    pub queue: Option<(usize, QueueFull)>,
    /// QoS 0 waits for who is away.
    pub queue_qos0: bool,
}

/// A whole story.
#[derive(Clone, Debug)]
pub struct Story {
    /// From this follows what is left to chance.
    pub seed: u64,
    /// The world's sizes.
    pub sizes: Sizes,
    /// What happens.
    pub ops: Vec<Op>,
}

/// The versions that the clients of a story speak.
pub const CLIENTS: [ProtocolVersion; 5] = [
    ProtocolVersion::V5,
    ProtocolVersion::V311,
    ProtocolVersion::V5,
    ProtocolVersion::V311,
    ProtocolVersion::V5,
];

impl Op {
    /// The client that does it.
    #[must_use]
    pub const fn who(&self) -> Option<usize> {
        match self {
            Self::Connect(who, _)
            | Self::Disconnect(who, ..)
            | Self::Lose(who)
            | Self::Subscribe(who, ..)
            | Self::Unsubscribe(who, _)
            | Self::Publish(who, ..)
            | Self::Withhold(who, _)
            | Self::Release(who, _)
            | Self::Congest(who, _) => Some(*who),
            Self::Pass(_) | Self::Steps(_) | Self::Rest | Self::Look => None,
        }
    }
}

impl Story {
    /// Tells it from the beginning to the end, where everybody comes back and takes what is owed. Returns how many steps
    /// that took.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn tell(&self, fault: Option<Fault>) -> Result<u64, Violation> {
        let mut world = self.world(fault);
        self.tell_to(&mut world)?;
        Ok(world.steps())
    }

    /// Tells it again, and returns all that crossed the engines' border.
    #[must_use]
    pub fn log(&self, fault: Option<Fault>) -> Vec<String> {
        let mut world = self.world(fault);
        world.write_down(usize::MAX);
        let verdict = self.tell_to(&mut world);
        let mut log = world.log();
        log.extend(verdict.err().map(|violation| violation.to_string()));
        log
    }

    fn world(&self, fault: Option<Fault>) -> World {
        World::new(Setup {
            seed: self.seed,
            config: self.sizes.config(),
            clients: CLIENTS.to_vec(),
            fault,
            ..Setup::default()
        })
    }

    fn tell_to(&self, world: &mut World) -> Verdict {
        for op in &self.ops {
            world.act(op)?;
        }
        world.recover()?;
        world.end()
    }
}

impl Sizes {
    fn config(&self) -> EngineConfig {
        let (queue_max, queue_full) = self.queue.unwrap_or((100_000, QueueFull::DropNewest));
        EngineConfig {
            shards: self.shards,
            journal: self.journal,
            tray_max: self.tray_max,
            retained_page_max: self.retained_page_max,
            replay_seen_max: self.replay_seen_max,
            queue_max,
            queue_full,
            queue_qos0: self.queue_qos0,
            inflight_max: 6,
            receive_maximum: std::num::NonZeroU16::MIN.saturating_add(4),
            topic_alias_maximum: 2,
            topic_alias_out_max: 2,
            acks_waiting_max: 16,
            ..EngineConfig::default()
        }
    }
}

impl World {
    /// Lets one operation happen.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn act(&mut self, op: &Op) -> Verdict {
        match op {
            Op::Connect(who, plan) => self.connect(*who, plan),
            Op::Disconnect(who, with_will, expiry) => self.disconnect(*who, *with_will, *expiry),
            Op::Lose(who) => self.lose(*who, false),
            Op::Subscribe(who, filters, id) => {
                let filters: Vec<_> = filters
                    .iter()
                    .map(|(n, options)| (FILTERS[*n].to_owned(), *options))
                    .collect();
                self.subscribe(*who, &filters, *id);
            }
            Op::Unsubscribe(who, filter) => self.unsubscribe(*who, &[FILTERS[*filter].to_owned()]),
            Op::Publish(who, plan, count) => (0..*count).for_each(|_| self.publish(*who, plan)),
            Op::Withhold(who, withholds) => self.withhold(*who, *withholds),
            Op::Release(who, count) => self.release(*who, *count),
            Op::Congest(who, congested) => self.congest(*who, *congested)?,
            Op::Pass(millis) => self.pass(Duration::from_millis(*millis))?,
            Op::Steps(count) => self.steps_of_chance(*count)?,
            Op::Rest => self.rest()?,
            Op::Look => self.look_at_retained()?,
        }
        Ok(())
    }
}

/// Subscription Options of their parts.
#[must_use]
pub const fn options(
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    handling: RetainHandling,
) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        no_local,
        retain_as_published,
        retain_handling: handling,
    }
}
