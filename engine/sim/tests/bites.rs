//! Planted faults are found: with each switch of bites.tsv on, some seed of a thousand fails.

use std::process::{Command, Output};

/// Seeds within which each is found.
const SEEDS: &str = "0..1000";

/// Whatever an engine could forget to wait for or hold on to between shards: a life that it goes wrong in is found soon.
#[test]
fn each_planted_fault_is_found_within_a_thousand_seeds() {
    let mut missed = Vec::new();
    for line in include_str!("bites.tsv").lines() {
        let (name, what) = line.split_once('\t').unwrap_or((line, ""));
        let output = sim(name, &["--seeds", SEEDS, "--until-failure", "--threads", "2"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let seeds = text.lines().find(|line| line.contains(" seeds from "));
        let failed = text.lines().rev().find(|line| line.starts_with("sim --seed "));
        println!(
            "{name}: {}; {}",
            failed.unwrap_or("no seed"),
            seeds.unwrap_or("no summary")
        );
        // That life goes well where nothing is planted.
        let life: Vec<&str> = failed.unwrap_or_default().split_whitespace().skip(1).collect();
        let found = output.status.code() == Some(1) && sim("", &life).status.success();
        if !found {
            missed.push(format!("{name}: {what}"));
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

fn sim(switch: &str, args: &[&str]) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(args)
        .env("SOL_MUTANT", switch)
        .output();
    run.unwrap_or_else(|error| panic!("sim does not start: {error}"))
}
