//! A seed is a life: everything that happens in a world follows from one number.
//!
//! The seed draws what a world is made of (`life/swarm`), then one deed of a client after the other, and whatever
//! the world around does to them. Each kind of chance has a stream of its own, so that leaving one out changes no other.
//! A life has chapters. In each, faults are on and nothing is promised but the invariants; then faults are over,
//! everybody comes back, and what was owed must have come, nothing be left to do, and nothing be kept that nobody owns.
//!
//! ```
//! use sol_sim::life::{self, Options};
//!
//! let report = life::run(7, &Options { events: 2_000, ..Options::default() });
//! assert!(report.failure.is_none(), "{report}");
//! assert_eq!(report.hash, life::run(7, &report.options).hash);
//! ```

mod chaos;
mod deeds;
mod minimise;
mod options;
mod swarm;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::chaos::Chaos;
pub use self::minimise::minimise;
pub use self::options::Options;

use self::chaos::Storms;
use self::deeds::Deeds;
use self::swarm::Swarm;
use crate::marks::Marks;
use crate::rng::Rng;
use crate::story::Op;
use crate::violation::{Verdict, Violation};
use crate::world::{Setup, World};

/// Lines that a report tells of what happened before a failure.
const TAIL_MAX: usize = 200;

/// How a life went.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was asked for.
    pub options: Options,
    /// Steps that it took.
    pub events: u64,
    /// Deeds that were drawn.
    pub deeds: u64,
    /// The hash of all that crossed the engines' border.
    pub hash: u64,
    /// Rare states that it came through.
    pub marks: Marks,
    /// What a check found.
    pub failure: Option<Violation>,
    /// The last of what happened, if it was written down.
    pub tail: Vec<String>,
}

/// Lives the life of a seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    live(seed, options, None)
}

/// Lives it again and writes down its end.
#[must_use]
pub fn tell(seed: u64, options: &Options) -> Report {
    live(seed, options, Some(TAIL_MAX))
}

/// Lives it again and writes down all of it.
#[must_use]
pub fn trace(seed: u64, options: &Options) -> Report {
    live(seed, options, Some(usize::MAX))
}

fn live(seed: u64, options: &Options, lines_max: Option<usize>) -> Report {
    let mut life = Life::new(seed, options);
    if let Some(lines_max) = lines_max {
        life.world.write_down(lines_max);
    }
    // An assertion of the engine is a finding like any other.
    let verdict = catch_unwind(AssertUnwindSafe(|| life.live())).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
        Err(Violation {
            invariant: "panic",
            what: what.unwrap_or_default(),
        })
    });
    Report {
        seed,
        options: options.clone(),
        events: life.world.steps(),
        deeds: life.deed,
        hash: life.world.hash(),
        marks: *life.world.marks(),
        failure: verdict.err(),
        tail: life.world.log(),
    }
}

struct Life<'a> {
    world: World,
    swarm: Swarm,
    options: &'a Options,
    deeds: Deeds,
    storms: Storms,
    between: Rng,
    /// Deeds drawn so far.
    deed: u64,
}

impl<'a> Life<'a> {
    fn new(seed: u64, options: &'a Options) -> Self {
        let swarm = Swarm::draw(seed, options);
        let mut world = World::new(Setup {
            fault: options.fault,
            ..swarm.setup(seed)
        });
        world.let_in(options.clients);
        Self {
            deeds: Deeds::new(seed),
            storms: Storms::new(seed, &swarm),
            between: Rng::named(seed, "between deeds"),
            world,
            swarm,
            options,
            deed: 0,
        }
    }

    fn live(&mut self) -> Verdict {
        let (mut chapters, events) = (0, self.swarm.events(self.options.events));
        if self.swarm.counts {
            self.begin()?;
        }
        while self.world.steps() < events && self.deed < self.options.deeds_max {
            self.chapter()?;
            chapters += 1;
            if self.swarm.ends_once_in > 0 && chapters % self.swarm.ends_once_in == 0 {
                self.world.end()?;
            }
            self.world.go_on()?;
        }
        self.world.end()
    }

    /// Everybody connects and subscribes.
    fn begin(&mut self) -> Verdict {
        let rng = &mut self.between;
        for who in (0..self.swarm.clients()).filter(|&who| self.options.lets_in(who)) {
            self.world.act(&Op::Connect(who, self.swarm.connect_plan(rng)))?;
            self.world.rest()?;
            let count = rng.between(1, 3);
            let filters = (0..count).map(|_| (self.swarm.filter(rng), self.swarm.subscription_options(rng)));
            self.world.act(&Op::Subscribe(who, filters.collect(), None))?;
        }
        self.world.recover()?;
        self.world.go_on()
    }

    /// Faults are on, then everything heals.
    fn chapter(&mut self) -> Verdict {
        for _ in 0..self.swarm.chapter {
            if self.deed >= self.options.deeds_max {
                break;
            }
            self.deed += 1;
            let op = self.deeds.next(&self.swarm);
            let storms = self.storms.next(&self.swarm);
            let steps = self.between.below(self.swarm.steps_max + 1);
            if self.options.skips(self.deed) {
                continue;
            }
            if op.who().is_none_or(|who| self.options.lets_in(who)) {
                self.world.act(&op)?;
            }
            for (chaos, mut rng) in storms {
                self.storm(chaos, &mut rng)?;
            }
            self.world.steps_of_chance(steps)?;
            let rests = self.swarm.rests_once_in;
            if rests > 0 && self.deed.is_multiple_of(rests) && !self.world.may_lack_room() {
                self.world.rest()?;
            }
        }
        self.world.recover()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "{line}")?;
        }
        match &self.failure {
            Some(violation) => writeln!(
                f,
                "FAILED after {} events and {} deeds: {violation}",
                self.events, self.deeds
            )?,
            None => writeln!(
                f,
                "{} events, {} deeds, hash {:016x}",
                self.events, self.deeds, self.hash
            )?,
        }
        write!(f, "sim --seed {} {}", self.seed, self.options)
    }
}
