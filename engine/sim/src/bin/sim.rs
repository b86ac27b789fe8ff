//! Lives many seeds, on some threads, and says what it found.
//!
//! ```text
//! sim --seed N [OPTIONS] [--minimise] [--trace]
//! sim --seeds A..B [OPTIONS] [--threads N] [--until-failure] [--need-marks]
//! OPTIONS  --events N  --deeds N  --clients MASK  --without FAULT,…  --skip A-B,…
//! ```
//! A line of progress holds sums since the first seed, so that runs can be added up, and gone on with after the last seed
//! that is done.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use sol_sim::life::{self, Options, Report};
use sol_sim::marks::Marks;

/// Every so many seeds one is lived twice, and must go the same way.
const TWICE_ONCE_IN: u64 = 1_000;
/// Seeds after which progress is told.
const PROGRESS: u64 = 1_000;

struct Job {
    seeds: Range<u64>,
    options: Options,
    threads: usize,
    minimise: bool,
    trace: bool,
    until_failure: bool,
    need_marks: bool,
}

fn main() -> ExitCode {
    let Some(job) = job(std::env::args().skip(1)) else {
        eprintln!(
            "sim --seed N | --seeds A..B  [--events N] [--deeds N] [--clients MASK] [--without FAULT,…] [--skip A-B,…] \
             [--threads N] [--minimise] [--trace] [--until-failure] [--need-marks]"
        );
        return ExitCode::from(2);
    };
    if job.seeds.end - job.seeds.start == 1 {
        one(&job)
    } else {
        many(&job)
    }
}

fn job(args: impl Iterator<Item = String>) -> Option<Job> {
    let mut job = Job {
        seeds: 0..0,
        options: Options::default(),
        threads: 1,
        minimise: false,
        trace: false,
        until_failure: false,
        need_marks: false,
    };
    let mut args = args.peekable();
    while let Some(name) = args.next() {
        match &*name {
            "--minimise" => job.minimise = true,
            "--trace" => job.trace = true,
            "--until-failure" => job.until_failure = true,
            "--need-marks" => job.need_marks = true,
            "--threads" => job.threads = args.next()?.parse().ok()?,
            "--seed" => {
                let seed = args.next()?.parse().ok()?;
                job.seeds = seed..seed + 1;
            }
            "--seeds" => {
                let text = args.next()?;
                let (first, end) = text.split_once("..")?;
                job.seeds = first.parse().ok()?..end.parse().ok()?;
            }
            _ => job.options.read(&name, &args.next()?)?,
        }
    }
    (!job.seeds.is_empty()).then_some(job)
}

fn one(job: &Job) -> ExitCode {
    let seed = job.seeds.start;
    if job.trace {
        let report = life::trace(seed, &job.options);
        println!("{report}");
        return code(report.failure.is_none());
    }
    let started = Instant::now();
    let report = life::run(seed, &job.options);
    let seconds = started.elapsed().as_secs_f64();
    if report.failure.is_none() {
        print!("{}", report.marks);
        println!("{report}\n{:.0} events/s", report.events as f64 / seconds);
        return ExitCode::SUCCESS;
    }
    println!("{}", shown(&report, job.minimise));
    ExitCode::FAILURE
}

/// A failing life, told again with its end.
fn shown(report: &Report, minimise: bool) -> Report {
    let shortest = if minimise {
        std::panic::set_hook(Box::new(|_| {}));
        life::minimise(report, |best| {
            eprintln!("fails: sim --seed {} {}", best.seed, best.options)
        })
    } else {
        report.clone()
    };
    life::tell(shortest.seed, &shortest.options)
}

struct Sum {
    seeds: u64,
    events: u64,
    failures: Vec<Report>,
    marks: Marks,
}

fn many(job: &Job) -> ExitCode {
    let started = Instant::now();
    let (next, stops) = (AtomicU64::new(job.seeds.start), AtomicBool::new(false));
    let sum = Mutex::new(Sum {
        seeds: 0,
        events: 0,
        failures: Vec::new(),
        marks: Marks::default(),
    });
    let work = || {
        while !stops.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= job.seeds.end {
                break;
            }
            let report = live(seed, &job.options);
            let Ok(mut sum) = sum.lock() else { break };
            sum.seeds += 1;
            sum.events += report.events;
            sum.marks.add(&report.marks);
            if report.failure.is_some() {
                eprintln!("seed {seed}: {report}");
                sum.failures.push(report);
                stops.store(job.until_failure, Ordering::Relaxed);
            }
            if sum.seeds.is_multiple_of(PROGRESS) {
                progress(&sum, started, job.seeds.start);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..job.threads {
            scope.spawn(work);
        }
    });
    let Ok(sum) = sum.into_inner() else {
        return ExitCode::FAILURE;
    };
    print!("{}", sum.marks);
    progress(&sum, started, job.seeds.start);
    let missed: Vec<_> = sum.marks.missed().map(|mark| mark.name()).collect();
    if !missed.is_empty() {
        println!("never hit: {}", missed.join("; "));
    }
    for report in sum.failures.iter().take(3) {
        println!("{}", shown(report, job.minimise));
    }
    code(sum.failures.is_empty() && (missed.is_empty() || !job.need_marks))
}

/// Lives a seed, some of them twice.
fn live(seed: u64, options: &Options) -> Report {
    let mut report = life::run(seed, options);
    if seed.is_multiple_of(TWICE_ONCE_IN) && report.failure.is_none() && life::run(seed, options).hash != report.hash {
        report.failure = Some(sol_sim::Violation {
            invariant: "determinism",
            what: "the same seed went another way".to_owned(),
        });
    }
    report
}

fn progress(sum: &Sum, started: Instant, first: u64) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} seeds from {first}, {} events, {} failures, {} of {} marks; {:.1} seeds/s, {:.0} events/s",
        sum.seeds,
        sum.events,
        sum.failures.len(),
        sol_sim::marks::Mark::ALL.len() - sum.marks.missed().count(),
        sol_sim::marks::Mark::ALL.len(),
        sum.seeds as f64 / seconds,
        sum.events as f64 / seconds,
    );
}

fn code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
