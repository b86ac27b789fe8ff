//! Probes a running broker for what only real threads, sockets and a kernel show.
//!
//! ```text
//! sol-probe subscribe --broker 127.0.0.1:1883 --metrics 127.0.0.1:9883 --rounds 1000000
//! sol-probe retained  --broker 127.0.0.1:1883 --metrics 127.0.0.1:9883 --rounds 1000000
//! sol-probe pressure  --broker 127.0.0.1:1883 --metrics 127.0.0.1:9883 --pid 4711 --seconds 60
//! ```
//! Prints lines of a name and a value. The exit code is 0 if nothing was lost.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a tool: what it says is its purpose"
)]

mod client;
mod load;
mod pressure;
mod rounds;
mod shards;

use std::collections::HashMap;
use std::io::{self, Error};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use crate::rounds::Mode;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sol-probe: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<bool> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options = Arguments::of(arguments)?;
    match command.as_str() {
        "subscribe" => rounds(&options, Mode::Subscribe),
        "retained" => rounds(&options, Mode::Retained),
        "pressure" => pressure(&options),
        _ => Err(Error::other("subscribe, retained or pressure?")),
    }
}

/// `--name value`, again and again.
struct Arguments(HashMap<String, String>);

impl Arguments {
    fn of(mut arguments: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut values = HashMap::new();
        while let Some(argument) = arguments.next() {
            match (argument.strip_prefix("--"), arguments.next()) {
                (Some(name), Some(value)) => values.insert(name.to_owned(), value),
                _ => return Err(Error::other(format!("{argument}: not --name value"))),
            };
        }
        Ok(Self(values))
    }

    fn get<T: FromStr>(&self, name: &str, default: Option<T>) -> io::Result<T> {
        let wrong = || Error::other(format!("--{name} is missing or wrong"));
        match self.0.get(name) {
            Some(text) => text.parse().map_err(|_| wrong()),
            None => default.ok_or_else(wrong),
        }
    }
}

fn rounds(options: &Arguments, mode: Mode) -> io::Result<bool> {
    let outcome = rounds::run(rounds::Options {
        broker: options.get("broker", None)?,
        metrics: options.get("metrics", None)?,
        mode,
        rounds: options.get("rounds", Some(10_000))?,
        probers: options.get("probers", Some(4))?,
        load: options.get("load", Some(1))?,
    })?;
    let seconds = outcome.elapsed.as_secs_f64();
    println!("shards {}", outcome.shards);
    println!("rounds {}", outcome.rounds);
    println!("missing {}", outcome.missing);
    println!("seconds {seconds:.1}");
    println!("rounds_per_second {:.0}", outcome.rounds as f64 / seconds);
    println!("load_messages {}", outcome.load);
    Ok(outcome.missing == 0)
}

fn pressure(options: &Arguments) -> io::Result<bool> {
    let outcome = pressure::run(&pressure::Options {
        broker: options.get("broker", None)?,
        metrics: options.get("metrics", None)?,
        pid: options.get("pid", None)?,
        pressure: Duration::from_secs(options.get("seconds", Some(10))?),
    })?;
    println!("shards {}", outcome.shards);
    println!("published {}", outcome.published);
    println!("delivered {}", outcome.delivered);
    println!("refused {}", outcome.refused);
    println!("refused_told {}", outcome.refused_told);
    println!("dropped {}", outcome.dropped);
    println!("resident_before {}", outcome.resident_before);
    println!("resident_max {}", outcome.resident_max);
    println!("mailbox_max {}", outcome.mailbox_max);
    let latencies = &outcome.latencies;
    let kinds = [
        ("ping", latencies.ping),
        ("message", latencies.message),
        ("slow_ping", latencies.slow_ping),
        ("slow_message", latencies.slow_message),
    ];
    for (what, [before, during]) in kinds {
        for (when, [p50, p99, max]) in [("before", before), ("during", during)] {
            println!("{what}_{when}_p50_us {p50}");
            println!("{what}_{when}_p99_us {p99}");
            println!("{what}_{when}_max_us {max}");
        }
    }
    Ok(outcome.adds_up())
}
