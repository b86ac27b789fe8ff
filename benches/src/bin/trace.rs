//! Runs one conversation of the trace: `trace NAME BATCHES`. Counted by `benches/instructions`.

use std::process::ExitCode;

use sol_benches::trace::{Scenario, Trace};

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let parsed = match arguments.as_slice() {
        [_, name, batches] => Scenario::named(name).zip(batches.parse().ok()),
        _ => None,
    };
    let Some(((scenario, rights), batches)) = parsed else {
        let names: Vec<_> = Scenario::ALL.iter().map(|(name, ..)| *name).collect();
        eprintln!("usage: trace NAME BATCHES, where NAME is one of {}", names.join(", "));
        return ExitCode::from(2);
    };
    let (published, delivered) = Trace::new(scenario, rights).run(batches);
    println!("{published} {delivered}");
    ExitCode::SUCCESS
}
