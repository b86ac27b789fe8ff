//! Planted faults are found: with each switch of bites.tsv on, some seed of a thousand fails.

use std::process::Command;

/// Seeds within which each is found.
const SEEDS: &str = "0..1000";

/// Whatever an engine could forget to wait for or hold on to between shards: a life that it goes wrong in is found soon.
#[test]
fn each_planted_fault_is_found_within_a_thousand_seeds() {
    let mut missed = Vec::new();
    for line in include_str!("bites.tsv").lines() {
        let (name, what) = line.split_once('\t').unwrap_or((line, ""));
        let run = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["--seeds", SEEDS, "--until-failure", "--threads", "2"])
            .env("SOL_MUTANT", name)
            .output();
        let output = run.unwrap_or_else(|error| panic!("sim does not start: {error}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let seeds = text.lines().find(|line| line.contains(" seeds from "));
        println!("{name}: {}", seeds.unwrap_or("no summary"));
        if output.status.code() != Some(1) {
            missed.push(format!("{name}: {what}"));
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
