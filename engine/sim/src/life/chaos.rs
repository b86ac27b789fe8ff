//! What the world around does to clients and engines. Each kind has a rate, many have none, and a stream of its own.

use std::time::Duration;

use sol_engine::EngineConfig;

use super::Life;
use super::swarm::Swarm;
use crate::rng::Rng;
use crate::violation::Verdict;
use crate::world::{ConnectPlan, CrashPlan};

macro_rules! chaos {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Chaos { $($(#[$doc])* $name,)* }

        impl Chaos {
            /// All of them.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// What it is called.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

chaos! {
    /// A connection is closed.
    Lose = "lose",
    /// A client is gone and nobody tells.
    Vanish = "vanish",
    /// A client connects while it is connected.
    Takeover = "takeover",
    /// All are lost, and come back at once.
    Storm = "storm",
    /// A client keeps its acknowledgements to itself.
    Withhold = "withhold",
    /// A client's connection takes no bytes.
    Congest = "congest",
    /// Time passes.
    Time = "time",
    /// Somebody sets the wall clock.
    Wall = "wall",
    /// Memory is scarce.
    Press = "press",
    /// Limits change.
    Reload = "reload",
    /// Shards stand still.
    Rest = "rest",
    /// One direction of a connection stands still.
    Stall = "stall",
    /// There is little room between shards.
    Mail = "mail",
    /// Logins take their time.
    Login = "login",
    /// There is little memory.
    Memory = "memory",
    /// The broker dies.
    Crash = "crash",
    /// The disk is full.
    Disk = "disk",
}

impl Chaos {
    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|chaos| chaos.name() == name)
    }
}

/// When each kind happens next.
pub(super) struct Storms {
    deed: u64,
    streams: Vec<(Chaos, Rng, u64)>,
}

impl Storms {
    pub(super) fn new(seed: u64, swarm: &Swarm) -> Self {
        let stream = |chaos: Chaos| {
            let mut rng = Rng::named(seed, chaos.name());
            let first = rng.wait(swarm.once_in(chaos));
            (chaos, rng, first)
        };
        Self {
            deed: 0,
            streams: Chaos::ALL.into_iter().map(stream).collect(),
        }
    }

    /// What happens at the next deed, each with chance of its own.
    pub(super) fn next(&mut self, swarm: &Swarm) -> Vec<(Chaos, Rng)> {
        self.deed += 1;
        let mut storms = Vec::new();
        for (chaos, rng, next) in &mut self.streams {
            if *next <= self.deed {
                *next = self.deed.saturating_add(rng.wait(swarm.once_in(*chaos)));
                storms.push((*chaos, Rng::new(rng.next())));
            }
        }
        storms
    }
}

impl Life<'_> {
    pub(super) fn storm(&mut self, chaos: Chaos, rng: &mut Rng) -> Verdict {
        let Self {
            world, swarm, options, ..
        } = self;
        let who = rng.below(swarm.clients());
        let shard = rng.below(world.shards());
        let takes_part = options.lets_in(who);
        match chaos {
            Chaos::Lose if takes_part => world.lose(who, false),
            Chaos::Vanish if takes_part => world.lose(who, true),
            Chaos::Takeover if takes_part => world.connect(who, &swarm.connect_plan(rng)),
            Chaos::Withhold if takes_part => world.withhold(who, rng.percent(60)),
            Chaos::Congest if takes_part => world.congest(who, rng.percent(60))?,
            Chaos::Storm => {
                let back: Vec<usize> = (0..swarm.clients()).filter(|&who| options.lets_in(who)).collect();
                for &who in &back {
                    world.lose(who, rng.percent(30));
                }
                world.steps_of_chance(rng.below(40))?;
                for who in back {
                    let plan = ConnectPlan {
                        clean_start: false,
                        session_expiry_interval: u32::MAX,
                        ..swarm.connect_plan(rng)
                    };
                    world.connect(who, &plan);
                }
            }
            Chaos::Time => {
                let millis = match rng.below(20) {
                    0 => 101_000,
                    1 => rng.between(6_000, 40_000),
                    2..=8 => rng.between(500, 6_000),
                    _ => rng.between(1, 500),
                };
                world.pass(Duration::from_millis(millis))?;
            }
            Chaos::Wall => {
                let seconds = [1, 3_600, 31_536_000][rng.below(3)];
                world.set_wall(if rng.percent(50) { seconds } else { -seconds });
            }
            Chaos::Crash => self.crash(rng)?,
            Chaos::Disk => world.fill_disk(rng.percent(60)),
            Chaos::Press => world.press(shard, rng.percent(60))?,
            Chaos::Reload => world.reload(shard, |config| change(config, rng))?,
            _ => {}
        }
        Ok(())
    }
}

impl Life<'_> {
    /// The broker dies, and some or all clients come back soon.
    fn crash(&mut self, rng: &mut Rng) -> Verdict {
        let down = match rng.below(10) {
            0..=4 => 0,
            5..=7 => rng.between(1, 3_000),
            8 => rng.between(3_000, 20_000),
            _ => 101_000,
        };
        let plan = CrashPlan {
            power: rng.percent(70),
            shards: *rng.pick(&[1, 1, 2, 2, 3, 4, 5, 8]),
            down: Duration::from_millis(down),
            wall: if rng.percent(5) {
                *rng.pick(&[-3_600, -2, 2, 3_600])
            } else {
                0
            },
            patience: if rng.percent(10) { rng.below(40) } else { usize::MAX },
        };
        if rng.percent(25) && !self.world.may_lack_room() {
            self.world.restart(&plan)?;
        } else {
            self.world.crash(&plan)?;
        }
        let back = *rng.pick(&[0, 40, 100]);
        for who in (0..self.swarm.clients()).filter(|&who| self.options.lets_in(who)) {
            let plan = self.swarm.connect_plan(rng);
            if rng.percent(back) {
                self.world.connect(who, &plan);
            }
        }
        Ok(())
    }
}

/// Other limits than before.
fn change(config: &mut EngineConfig, rng: &mut Rng) {
    let small = |rng: &mut Rng, most| rng.between(1, most) as usize;
    match rng.below(7) {
        0 => config.queue_max = small(rng, 6),
        1 => config.tray_max = small(rng, 8),
        2 => config.retained_page_max = small(rng, 4),
        3 => config.replay_seen_max = rng.below(3),
        4 => config.acks_waiting_max = small(rng, 4) + 1,
        5 => config.fanout_waiting_max = small(rng, 8) + 1,
        _ => config.inflight_max = rng.between(1, 8) as u16,
    }
}
