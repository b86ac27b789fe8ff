//! `sol store import-mosquitto`: a new journal of Mosquitto's database.
//!
//! A QoS 2 message that Mosquitto holds until PUBREL comes is owed to its Subscriptions here at once, as the broker itself
//! does it; its Packet Identifier stays taken. Mosquitto keeps no Wills, so none come along.

mod chunks;
mod convert;

use std::path::Path;

use sol_engine::Record;
use sol_transport::About;

use super::fill::{Fill, PutError};
use super::{DATA, NO_INPUT, note, say, seeds};
use crate::config::reason;
use crate::serve::Failure;

use self::convert::{Left, convert};

/// Makes a journal of it. With `is_partial` that of a damaged file which stands before the damage.
///
/// # Errors
/// The file is none of Mosquitto's, or damaged.
pub(super) fn import(file: &Path, directory: &Path, is_partial: bool) -> Result<(), Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure {
        code: NO_INPUT,
        text: format!("cannot read {}: {}", file.display(), reason(&error)),
    })?;
    let unusable = |text: &str| Failure {
        code: DATA,
        text: format!("{}: {text}", file.display()),
    };
    let (database, fault) = chunks::read(&bytes).map_err(|text| unusable(&text))?;
    if let Some(fault) = &fault {
        let text = format!("it is damaged at offset {}: {}", fault.offset, fault.text);
        if !is_partial {
            return Err(unusable(&format!("{text}; --partial imports what stands before that")));
        }
        note(&format!(
            "{}: {text}; what stands before that is imported",
            file.display()
        ));
    }
    let about = About {
        seeds: seeds()?,
        // The broker adds its own, and judges by the first.
        listeners: Vec::new(),
    };
    let mut fill = Fill::new(directory, &about)?;
    let mut counts = [0_u64; 7];
    let mut result = Ok(());
    let left = convert(&database, about.seeds, |record: Record| {
        if result.is_ok() {
            if let Some(count) = counts.get_mut(usize::from(record.kind())) {
                *count += 1;
            }
            result = fill.put(&record);
        }
    });
    result.map_err(|error| match error {
        PutError::Record(text) => unusable(&format!("its records do not belong together: {text}")),
        PutError::Disk(failure) => failure,
    })?;
    let (_, place) = fill.finish()?;
    let [_, sessions, subscriptions, _, retained, references, _] = counts;
    say(&format!(
        "imported into {}: {sessions} Sessions, {subscriptions} Subscriptions, {references} messages on their way, \
         {retained} retained messages",
        place.display()
    ));
    tell(&left);
    Ok(())
}

fn tell(left: &Left) {
    let Left { qos_0, strays, names } = left;
    if *qos_0 > 0 {
        note(&format!(
            "{qos_0} of the queued messages were left out: they have QoS 0, and nothing is promised of them"
        ));
    }
    if *strays > 0 {
        note(&format!(
            "{strays} of the entries were left out: they refer to clients or messages that are not in the file, or are there twice"
        ));
    }
    if *names > 0 {
        note(&format!(
            "{names} of the User Names were left out, which an old Mosquitto had mixed up as it wrote them"
        ));
    }
}

#[cfg(test)]
mod tests;
