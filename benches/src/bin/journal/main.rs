//! What a broker keeps, at what cost and how fast: durable Sessions and retained messages. `load/journal` starts brokers
//! and runs this against them; one line of JSON is the result.

mod flow;
mod swarm;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use sol_benches::process::Process;
use sol_codec::{Packet, QoS};

use crate::flow::{Flow, FlowCounts, Pace, Plan, Topics};
use crate::swarm::{Outcome, PATIENCE, Swarm};

/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// Publishers of what has no subscriber of its own.
const PUBLISHERS: usize = 10;

#[derive(Parser)]
#[command(about = "Loads a broker with what it has to keep and says what it spent.")]
struct Arguments {
    /// The broker's process.
    #[arg(long)]
    pid: u32,
    /// Where it listens.
    #[arg(long)]
    addr: SocketAddr,
    #[command(subcommand)]
    work: Work,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Subscribers {
    /// There, and their Sessions end with them.
    Clean,
    /// There, and their Sessions stay.
    Durable,
    /// Their Sessions stay while they are away; they come back at the end and hear everything.
    Away,
}

#[derive(Clone, Subcommand)]
enum Work {
    /// Each publisher has a topic and a subscriber of its own, and `window` messages under way.
    Pairs {
        #[arg(long, default_value_t = 50)]
        pairs: usize,
        #[arg(long, default_value_t = 1)]
        qos: u8,
        #[arg(long, default_value_t = 16)]
        window: usize,
        #[arg(long, value_enum, default_value = "durable")]
        subscribers: Subscribers,
        /// The publishers' Sessions stay as well.
        #[arg(long)]
        durable_publishers: bool,
        #[arg(long, default_value_t = 64)]
        size: usize,
        #[arg(long, default_value_t = 4)]
        secs: u64,
    },
    /// Fifty pairs at QoS 0 send at a rate, and 64 at QoS 1 with durable Sessions at another; times are those of QoS 0.
    Beside {
        #[arg(long, default_value_t = 10_000.0)]
        rate: f64,
        /// 0: nobody.
        #[arg(long, default_value_t = 0.0)]
        load_rate: f64,
        #[arg(long, default_value_t = 4)]
        secs: u64,
    },
    /// Clients come, subscribe and leave for good, in waves; their Sessions stay.
    Sessions {
        #[arg(long)]
        count: usize,
        /// As many as wait to be accepted where a broker says nothing else: with more, connecting takes seconds.
        #[arg(long, default_value_t = 100)]
        wave: usize,
        /// What all subscribe to; otherwise each has a filter of its own.
        #[arg(long)]
        filter: Option<String>,
        /// Their Sessions have to be there already, and nobody subscribes.
        #[arg(long)]
        present: bool,
    },
    /// Messages of QoS 1 to the topic `news`.
    News {
        #[arg(long)]
        messages: u64,
    },
    /// Retained messages of QoS 1 on so many topics in turn.
    Retained {
        #[arg(long)]
        topics: u64,
        #[arg(long)]
        messages: u64,
        #[arg(long, default_value_t = 64)]
        size: usize,
    },
    /// Somebody subscribes to all retained messages, and gets so many.
    Replay {
        #[arg(long)]
        count: u64,
    },
}

impl Arguments {
    const fn process(&self) -> Process {
        Process(self.pid)
    }

    fn work(&self) -> Outcome<String> {
        match self.work.clone() {
            Work::Pairs { .. } => self.pairs(),
            Work::Beside { rate, load_rate, secs } => self.beside(rate, load_rate, secs),
            Work::Sessions {
                count,
                wave,
                filter,
                present,
            } => self.sessions(count, wave, filter.as_deref(), present),
            Work::News { messages } => self.fill(Topics::One("news"), messages, 64),
            Work::Retained { topics, messages, size } => self.fill(Topics::Retained(topics), messages, size),
            Work::Replay { count } => self.replay(count),
        }
    }

    fn pairs(&self) -> Outcome<String> {
        let Work::Pairs {
            pairs,
            qos,
            window,
            subscribers,
            durable_publishers,
            size,
            secs,
        } = self.work
        else {
            return Err("not pairs".into());
        };
        let qos = QoS::from_bits(qos).ok_or("QoS is 0, 1 or 2")?;
        let mut swarm = Swarm::new(self.addr)?;
        let plan = Plan {
            qos,
            pace: Pace::Window(window),
            topics: Topics::Own("pairs/"),
            size,
            limit: u64::MAX,
        };
        let listeners = Listeners { subscribers, name: "s" };
        let mut flow = listeners.flow(&mut swarm, plan, pairs, !durable_publishers)?;
        flow.begin(&mut swarm)?;
        run(&mut swarm, &mut [&mut flow], WARM_UP)?;
        flow.counts = FlowCounts::default();
        let (before, start) = (self.process().spent()?, Instant::now());
        run(&mut swarm, &mut [&mut flow], Duration::from_secs(secs))?;
        let (spent, elapsed) = (self.process().spent()? - before, start.elapsed());
        let mut counts = flow.counts.clone();
        flow.finish(&mut swarm)?;
        if subscribers == Subscribers::Away {
            flow.listen(swarm.len());
            join(
                &mut swarm,
                listeners.name,
                pairs,
                false,
                |swarm, client, packet, now| flow.handle(swarm, client, packet, now),
            )?;
            flow.finish(&mut swarm)?;
        }
        counts.lost = flow.counts.lost;
        counts.doubled = flow.counts.doubled;
        let messages = counts.acknowledged as f64;
        Ok(format!(
            r#""messages": {messages}, "in_all": {}, "per_s": {:.0}, "cpu_us_per_msg": {:.4}, "cores": {:.2}, {}"#,
            flow.sent_in_all(),
            messages / elapsed.as_secs_f64(),
            spent * 1e6 / messages,
            spent / elapsed.as_secs_f64(),
            told(&mut counts),
        ))
    }

    fn beside(&self, rate: f64, load_rate: f64, secs: u64) -> Outcome<String> {
        let mut swarm = Swarm::new(self.addr)?;
        let plan = |qos, topic, rate| Plan {
            qos,
            pace: Pace::Rate(rate),
            topics: Topics::Own(topic),
            size: 64,
            limit: u64::MAX,
        };
        let clean = Listeners {
            subscribers: Subscribers::Clean,
            name: "q",
        };
        let durable = Listeners {
            subscribers: Subscribers::Durable,
            name: "s",
        };
        let mut timed = clean.flow(&mut swarm, plan(QoS::AtMostOnce, "timed/", rate), 50, true)?;
        let mut load = durable.flow(&mut swarm, plan(QoS::AtLeastOnce, "load/", load_rate), 64, true)?;
        load.is_open = load_rate > 0.0;
        timed.begin(&mut swarm)?;
        load.begin(&mut swarm)?;
        run(&mut swarm, &mut [&mut timed, &mut load], WARM_UP)?;
        timed.counts = FlowCounts::default();
        load.counts = FlowCounts::default();
        run(&mut swarm, &mut [&mut timed, &mut load], Duration::from_secs(secs))?;
        let (mut counts, acknowledged) = (timed.counts.clone(), load.counts.acknowledged);
        timed.is_open = false;
        load.is_open = false;
        let end = Instant::now() + PATIENCE;
        while !timed.is_quiet() || !load.is_quiet() {
            run(&mut swarm, &mut [&mut timed, &mut load], Duration::from_millis(10))?;
            if Instant::now() > end {
                return Err("not all of it came".into());
            }
        }
        let (delivered, load) = (counts.delivered, acknowledged / secs);
        Ok(format!(
            r#""messages": {delivered}, "load_per_s": {load}, {}"#,
            told(&mut counts)
        ))
    }

    fn sessions(&self, count: usize, wave: usize, filter: Option<&str>, present: bool) -> Outcome<String> {
        let start = Instant::now();
        for first in (0..count).step_by(wave) {
            let many = wave.min(count - first);
            let mut swarm = Swarm::new(self.addr)?;
            for number in first..first + many {
                let client = swarm.join(&format!("session{number}"), false)?;
                if !present {
                    let own = format!("sessions/{number}");
                    swarm.subscribe(client, filter.unwrap_or(&own), QoS::AtLeastOnce)?;
                }
            }
            let is_there = |swarm: &Swarm| match present {
                true => swarm.counts().present == many,
                false => swarm.counts().subscribed == many,
            };
            swarm.until("Sessions", is_there, ignore)?;
            (0..many).for_each(|client| swarm.leave(client));
            swarm.until("the end of a wave", |swarm| swarm.counts().left == many, ignore)?;
        }
        Ok(format!(
            r#""sessions": {count}, "seconds": {:.2}"#,
            start.elapsed().as_secs_f64()
        ))
    }

    fn fill(&self, topics: Topics, messages: u64, size: usize) -> Outcome<String> {
        let mut swarm = Swarm::new(self.addr)?;
        let plan = Plan {
            qos: QoS::AtLeastOnce,
            pace: Pace::Window(20),
            topics,
            size,
            limit: messages,
        };
        let first = join(&mut swarm, "filler", PUBLISHERS, true, ignore)?;
        let mut flow = Flow::new(plan, PUBLISHERS, first);
        let (before, resident, start) = (self.process().spent()?, self.process().resident()?, Instant::now());
        flow.begin(&mut swarm)?;
        let mut heard = (0, Instant::now());
        while flow.counts.sent < messages {
            run(&mut swarm, &mut [&mut flow], Duration::from_millis(10))?;
            if heard.0 != flow.counts.acknowledged {
                heard = (flow.counts.acknowledged, Instant::now());
            } else if heard.1.elapsed() > PATIENCE {
                return Err("nothing is acknowledged any more".into());
            }
        }
        flow.finish(&mut swarm)?;
        let elapsed = start.elapsed().as_secs_f64();
        let spent = self.process().spent()? - before;
        let grown = self.process().resident()?.saturating_sub(resident);
        let mut counts = flow.counts;
        Ok(format!(
            r#""messages": {messages}, "seconds": {elapsed:.2}, "per_s": {:.0}, "cpu_us_per_msg": {:.4}, "rss_grown": {grown}, {}"#,
            messages as f64 / elapsed,
            spent * 1e6 / messages as f64,
            told(&mut counts),
        ))
    }

    fn replay(&self, count: u64) -> Outcome<String> {
        let mut swarm = Swarm::new(self.addr)?;
        let reader = join(&mut swarm, "reader", 1, true, ignore)?;
        let (start, came) = (Instant::now(), std::cell::Cell::new(0));
        swarm.subscribe(reader, "r/#", QoS::AtMostOnce)?;
        swarm.until(
            "retained messages",
            |_| came.get() >= count,
            |_, _, packet, _| {
                came.set(came.get() + u64::from(matches!(packet, Packet::Publish(publish) if publish.retain)));
                Ok(())
            },
        )?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(format!(r#""messages": {}, "seconds": {seconds:.2}"#, came.get()))
    }
}

/// Subscribers of pairs, whose names begin alike.
struct Listeners {
    subscribers: Subscribers,
    name: &'static str,
}

impl Listeners {
    /// They are there, and publishers beside them, who wait for the beginning.
    fn flow(&self, swarm: &mut Swarm, plan: Plan, pairs: usize, clean_publishers: bool) -> Outcome<Flow> {
        let Topics::Own(topic) = plan.topics else {
            return Err("no topics of their own".into());
        };
        let (qos, before) = (plan.qos, swarm.counts());
        let first = join(swarm, self.name, pairs, self.subscribers == Subscribers::Clean, ignore)?;
        for number in 0..pairs {
            swarm.subscribe(first + number, &format!("{topic}{number}"), qos)?;
        }
        let are_all = |swarm: &Swarm| swarm.counts().subscribed == before.subscribed + pairs;
        swarm.until("Subscriptions", are_all, ignore)?;
        if self.subscribers == Subscribers::Away {
            (first..first + pairs).for_each(|client| swarm.leave(client));
            swarm.until("their leave", |swarm| swarm.counts().left == pairs, ignore)?;
        }
        let publishers = join(
            swarm,
            &format!("{}publisher", self.name),
            pairs,
            clean_publishers,
            ignore,
        )?;
        let mut flow = Flow::new(plan, pairs, publishers);
        if self.subscribers != Subscribers::Away {
            flow.listen(first);
        }
        Ok(flow)
    }
}

/// Clients with a name and numbers, all let in; the first one's number in the swarm.
fn join(
    swarm: &mut Swarm,
    name: &str,
    many: usize,
    clean_start: bool,
    handle: impl FnMut(&mut Swarm, usize, &Packet<'_>, Instant) -> Outcome<()>,
) -> Outcome<usize> {
    let (first, before) = (swarm.len(), swarm.counts().let_in);
    for number in 0..many {
        swarm.join(&format!("{name}{number}"), clean_start)?;
    }
    swarm.until("CONNACK", |swarm| swarm.counts().let_in == before + many, handle)?;
    Ok(first)
}

fn ignore(_: &mut Swarm, _: usize, _: &Packet<'_>, _: Instant) -> Outcome<()> {
    Ok(())
}

/// Lets flows run for so long. Where one has a rate it is looked at without a rest.
fn run(swarm: &mut Swarm, flows: &mut [&mut Flow], secs: Duration) -> Outcome<()> {
    let end = Instant::now() + secs;
    let patience = if flows.iter().any(|flow| flow.is_paced()) {
        Duration::ZERO
    } else {
        Duration::from_millis(10)
    };
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok(());
        }
        for flow in &mut *flows {
            flow.pace(swarm, now)?;
        }
        swarm.turn(patience, |swarm, client, packet, now| {
            flows
                .iter_mut()
                .try_for_each(|flow| flow.handle(swarm, client, packet, now))
        })?;
    }
}

fn told(counts: &mut FlowCounts) -> String {
    counts.nanos.sort_unstable();
    let at = |share: f64| {
        let place = (counts.nanos.len() as f64 * share) as usize;
        counts.nanos.get(place).map_or(0.0, |nanos| *nanos as f64 / 1e3)
    };
    format!(
        r#""p50_us": {:.1}, "p99_us": {:.1}, "p999_us": {:.1}, "lost": {}, "doubled": {}"#,
        at(0.5),
        at(0.99),
        at(0.999),
        counts.lost,
        counts.doubled
    )
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    match Arguments::parse().work() {
        Ok(line) => {
            println!("{{{line}}}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("journal: {error}");
            ExitCode::FAILURE
        }
    }
}
