//! `sol store check`: everything is read and verified.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use sol_engine::{Record, RecordId};
use sol_journal::{Disk, Hole, OnDamage, Report, Snapshot, Tail};
use sol_transport::About;

use super::{DATA, place, say};
use crate::log::utc;
use crate::serve::Failure;

/// Prints what is there; succeeds if all of it is sound.
///
/// # Errors
/// Something is damaged, or cannot be read.
pub(super) fn check(directory: &Path) -> Result<(), Failure> {
    let place = place::existing(directory)?;
    let (snapshot, fault) = match Snapshot::read(place::disk(&place)?, OnDamage::Refuse) {
        Ok(snapshot) => (snapshot, None),
        Err(error) => {
            let fault = place::refuse(&place, &error);
            // What can be read of it is counted.
            match Snapshot::read(place::disk(&place)?, OnDamage::Salvage) {
                Ok(snapshot) => (snapshot, Some(fault)),
                Err(_) => return Err(fault),
            }
        }
    };
    say(&text(&place, snapshot.report()));
    if let Some(fault) = fault {
        return Err(fault);
    }
    check_records(&place, &snapshot)
}

/// Looks into every record: what the journal holds has to be what the broker reads.
fn check_records<D: Disk>(place: &Path, snapshot: &Snapshot<D>) -> Result<(), Failure> {
    let mut bad = None;
    let mut count = 0_u64;
    let read = snapshot.for_each(
        |key| key.id,
        |record| {
            count += 1;
            let kind = record.kind;
            let result = if kind == About::KIND {
                About::decode(record.bytes).map(drop)
            } else {
                let parent = record.parent.map(RecordId);
                Record::decode(RecordId(record.id), kind.number(), parent, record.bytes).map(drop)
            };
            if let Err(error) = result {
                bad.get_or_insert((record.id, error));
            }
        },
    );
    read.map_err(|error| place::refuse(place, &error))?;
    if let Some((id, error)) = bad {
        return Err(Failure {
            code: DATA,
            text: format!(
                "record {id:#x} in {} cannot be used: {error}; `sol store salvage {} --out FILE` saves the others",
                place.display(),
                place.display()
            ),
        });
    }
    say(&format!("records     {count}"));
    Ok(())
}

fn text(place: &Path, report: &Report) -> String {
    let mut text = format!(
        "journal     {}\nsegments    {}\nframes      {}\nbytes       {}\nlast frame  ",
        place.display(),
        report.segments,
        report.frames,
        report.bytes
    );
    if report.written_at == 0 {
        text += "none";
    } else {
        utc(&mut text, Duration::from_millis(report.written_at));
    }
    text += "\nclosed      ";
    text += if report.was_closed {
        "in order"
    } else {
        "no: a broker uses it, or the last one did not end in order"
    };
    text += "\ntail        ";
    match &report.tail {
        None => text += "none",
        Some(tail) => text += &tail_text(tail),
    }
    text += "\nholes       ";
    if report.holes.is_empty() {
        text += "none";
    }
    for (at, hole) in report.holes.iter().enumerate() {
        let begin = if at == 0 { "" } else { "\n            " };
        let _ = write!(text, "{begin}{}", hole_text(place, hole));
    }
    text
}

pub(super) fn tail_text(tail: &Tail) -> String {
    format!(
        "{} ({}) at the end of {}, from offset {}: being written, or nothing says that it was durable",
        counted(tail.bytes, "byte"),
        counted(tail.frames, "frame"),
        tail.file,
        tail.offset
    )
}

/// So many of something, as one says it.
pub(super) fn counted(count: u64, one: &str) -> String {
    let more = if count == 1 { "" } else { "s" };
    format!("{count} {one}{more}")
}

pub(super) fn hole_text(place: &Path, hole: &Hole) -> String {
    let lost = match (hole.first, hole.last) {
        (0, _) => "a header is lost, and no frame".to_owned(),
        (first, last) if first == last => format!("frame {first} is missing"),
        (first, last) => format!("frames {first} to {last} are missing"),
    };
    format!(
        "{}/{} is damaged at offset {}: {lost}",
        place.display(),
        hole.file,
        hole.offset
    )
}
