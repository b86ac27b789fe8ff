//! The journal's directory: opened when the broker starts, and looked at, copied, saved and filled by `sol store`.

mod check;
mod export;
mod fill;
mod import;
mod lines;
mod mosquitto;
mod open;
mod output;
mod place;
pub(crate) mod progress;
#[cfg(test)]
mod records;
mod stats;

use std::io::Write as _;
use std::path::Path;

use sol_journal::{OnDamage, OsDisk, Snapshot};

use crate::cli::StoreTool;
use crate::print_error;
use crate::serve::Failure;

use self::output::Output;
use self::place::Fresh;

pub(crate) use self::open::{failure, open, prepare};

/// Exit codes, as `sysexits.h` has them: data that cannot be used, none at all, a file that is in the way, a disk that
/// fails, a directory that somebody else has, which goes away by itself.
const DATA: u8 = 65;
const NO_INPUT: u8 = 66;
const CANNOT_CREATE: u8 = 73;
pub(crate) const IO: u8 = 74;
const IN_USE: u8 = 75;

/// `sol store …`.
///
/// # Errors
/// A sentence that names the file, and what to do.
pub(crate) fn run(tool: &StoreTool) -> Result<(), Failure> {
    match tool {
        StoreTool::Check { directory } => check::check(directory),
        StoreTool::Stats { directory } => stats::stats(directory),
        StoreTool::Export { directory, out } => export(directory, out.as_deref()),
        StoreTool::Import { file, directory } => import::import(file, directory),
        StoreTool::Backup { directory, to } => backup(directory, to),
        StoreTool::Salvage { directory, out } => salvage(directory, out),
        StoreTool::ImportMosquitto {
            file,
            directory,
            partial,
        } => mosquitto::import(file, directory, *partial),
    }
}

fn export(directory: &Path, out: Option<&Path>) -> Result<(), Failure> {
    let (place, snapshot) = place::read(directory, OnDamage::Refuse)?;
    let mut output = Output::new(out)?;
    let written = export::write(&place, &snapshot, &mut output, false)?;
    output.finish()?;
    note(&format!("{} records exported", written.records));
    Ok(())
}

fn salvage(directory: &Path, out: &Path) -> Result<(), Failure> {
    let (place, snapshot) = place::read(directory, OnDamage::Salvage)?;
    let mut output = Output::new(Some(out))?;
    let written = export::write(&place, &snapshot, &mut output, true)?;
    output.finish()?;
    let report = snapshot.report();
    for hole in &report.holes {
        note(&check::hole_text(&place, hole));
    }
    if let Some(tail) = &report.tail {
        note(&format!("missing: {}", check::tail_text(tail)));
    }
    for unreadable in &written.unreadable {
        note(&format!("missing: {unreadable}"));
    }
    let lost = report.orphans + written.orphans;
    if lost > 0 {
        note(&format!(
            "missing: {lost} records that refer to a message or a Session that is lost"
        ));
    }
    let is_whole = report.holes.is_empty() && report.tail.is_none() && written.unreadable.is_empty() && lost == 0;
    note(&format!(
        "{} records saved in {}{}; `sol store import` makes a new journal of them",
        written.records,
        out.display(),
        if is_whole { ", nothing is missing" } else { "" }
    ));
    Ok(())
}

fn backup(directory: &Path, to: &Path) -> Result<(), Failure> {
    let place = place::existing(directory)?;
    let disk = place::disk(&place)?;
    let fresh = Fresh::at(to)?;
    let copy: Snapshot<OsDisk> =
        sol_journal::backup(&disk, fresh.disk()?).map_err(|error| place::refuse(&place, &error))?;
    let report = copy.report();
    let (frames, bytes) = (report.frames, report.bytes);
    let target = fresh.finish()?;
    say(&format!(
        "{frames} frames of {bytes} bytes copied to {}, and verified",
        target.display()
    ));
    Ok(())
}

/// The key of a new store's hashes.
fn seeds() -> Result<[u64; 4], Failure> {
    let mut seeds = [0; 4];
    for seed in &mut seeds {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
        *seed = u64::from_le_bytes(bytes);
    }
    Ok(seeds)
}

/// Prints what was asked for; a closed pipe is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Tells the operator beside what was asked for.
fn note(line: &str) {
    print_error(line);
}
