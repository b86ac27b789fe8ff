//! The journal's directory, and what its owner hears of it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use sol_engine::PayloadError;
use sol_journal::{LockError, Mode, OnDamage, OpenError, Options, OsDisk, Report};
use sol_transport::{Clock, Durable, DurableError, Watch};

use super::check::{counted, hole_text};
use super::{DATA, IN_USE, IO};
use crate::config::{Config, Durability, in_words, reason};
use crate::owner::Ids;
use crate::serve::Failure;

/// Makes the journal's directory, while that may take a privilege, and gives it to whom the process becomes.
///
/// # Errors
/// A sentence that says what is missing.
pub(crate) fn prepare(config: &Config, successor: Option<Ids>) -> Result<(), Failure> {
    let Some(directory) = config.persistence.directory() else {
        return Ok(());
    };
    let fail = |error: &io::Error| {
        let hint = match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
                format!("; make {} first, for the broker's user alone", parent.display())
            }
            _ => String::new(),
        };
        let place = config
            .places
            .of("persistence_location")
            .or_else(|| config.places.of("persistence"));
        let text = format!("no journal in {}: {}{hint}", directory.display(), reason(error));
        Failure {
            code: IO,
            text: place.map_or_else(|| text.clone(), |place| place.say(&text).to_string()),
        }
    };
    OsDisk::create(&directory).map_err(|error| fail(&error))?;
    if let Some(Ids { user, group }) = successor {
        std::os::unix::fs::lchown(&directory, Some(user), Some(group)).map_err(|error| fail(&error))?;
    }
    Ok(())
}

/// Opens the journal, if there is to be one; `listeners` are the names of the listeners that are bound, and `watch` hears how
/// far it is.
///
/// # Errors
/// A sentence that says why it cannot be used, and what to do.
pub(crate) fn open(
    config: &Config,
    seeds: [u64; 4],
    listeners: &[String],
    clock: Clock,
    watch: Watch,
) -> Result<Option<Durable<OsDisk>>, Failure> {
    let Some(directory) = config.persistence.directory() else {
        return Ok(None);
    };
    let mode = match config.persistence.durability() {
        Durability::Fsync => Mode::Fsync,
        Durability::Os | Durability::None => Mode::Os,
    };
    let mut identity = [0; 16];
    getrandom::fill(&mut identity).map_err(|error| format!("no randomness: {error}"))?;
    let options = Options {
        max_bytes: config.persistence.bytes_max.unwrap_or(u64::MAX),
        on_damage: if config.persistence.salvages {
            OnDamage::Salvage
        } else {
            OnDamage::Refuse
        },
        identity,
        ..Options::default()
    };
    let disk = OsDisk::existing(&directory).map_err(|error| Failure {
        code: IO,
        text: format!("no journal in {}: {}", directory.display(), reason(&error)),
    })?;
    let durable = Durable::open(disk, &options, mode, seeds, listeners, clock, watch);
    let durable = durable.map_err(|error| failure(&directory, &error))?;
    tell(&directory, durable.report());
    Ok(Some(durable))
}

/// Why a journal cannot be used.
pub(crate) fn failure(directory: &Path, error: &DurableError) -> Failure {
    let directory = directory.display();
    let (code, hint) = match error {
        DurableError::Open(OpenError::Damaged(_) | OpenError::Missing { .. } | OpenError::Orphan { .. }) => (
            DATA,
            format!(
                "; what was acknowledged would be missing. `sol store check {directory}` tells more, `sol store salvage {directory} \
                 --out FILE` saves what can be read, and `persistence_damage salvage` starts with it"
            ),
        ),
        // `persistence_damage salvage` is no help here: what is in the log is sound.
        DurableError::Record(_, PayloadError::Malformed) | DurableError::Restore(..) => (
            DATA,
            format!(
                "; `sol store salvage {directory} --out FILE` saves the others, and `sol store import FILE DIRECTORY` makes a \
                 journal of them that persistence_location can name"
            ),
        ),
        DurableError::Open(OpenError::Locked(LockError::Taken(_))) => (IN_USE, IN_USE_HINT.to_owned()),
        DurableError::Open(OpenError::Locked(LockError::Io(error)) | OpenError::Io { error, .. }) => {
            (IO, owner_hint(error).to_owned())
        }
        DurableError::Open(OpenError::Full { .. } | OpenError::Failed(_)) | DurableError::Write(_) => {
            (IO, String::new())
        }
        DurableError::System(_) => (1, String::new()),
        // What is to be done is in the sentence.
        DurableError::Open(OpenError::Newer { .. } | OpenError::Foreign { .. } | OpenError::Misnumbered { .. })
        | DurableError::Record(_, PayloadError::Newer) => (DATA, String::new()),
    };
    let error = in_words(error.to_string());
    Failure {
        code,
        text: format!("the journal in {directory} cannot be used: {error}{hint}"),
    }
}

/// What to do where another broker has it.
pub(super) const IN_USE_HINT: &str = "; stop that broker first";

/// What to do where somebody else, root as a rule, has run a broker there before.
pub(super) fn owner_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; all that is in it has to belong to the user that the broker runs as",
        _ => "",
    }
}

/// Says what was found.
fn tell(place: &Path, report: &Report) {
    let directory = place.display();
    if let Some(tail) = &report.tail {
        tracing::warn!(
            "journal: dropped {} ({}) at the end of {directory}/{}: not whole, and nothing says that it was durable",
            counted(tail.bytes, "byte"),
            counted(tail.frames, "frame"),
            tail.file
        );
    }
    for hole in &report.holes {
        tracing::error!("journal: {}", hole_text(place, hole));
    }
    if report.orphans > 0 {
        tracing::error!(
            "journal: dropped {}: what they refer to is lost",
            counted(report.orphans, "record")
        );
    }
    let mut text = format!(
        "journal: read {} of {} in {}",
        counted(report.frames, "frame"),
        counted(report.bytes, "byte"),
        counted(report.segments, "segment")
    );
    if !report.was_closed && report.frames > 0 {
        let _ = write!(text, "; the last broker did not end in order");
    }
    tracing::info!("{text}");
}

#[cfg(test)]
mod tests {
    use sol_engine::{RecordId, RestoreError};

    use super::*;

    /// An operator reads one sentence: who has the journal, or what the system would not do, without its numbers, and the exit
    /// code tells which.
    #[test]
    fn a_journal_that_cannot_be_had_is_a_sentence_and_a_code() {
        let open = |error: OpenError| {
            let Failure { code, text } = failure("/d".as_ref(), &DurableError::Open(error));
            (code, text)
        };
        let denied = || io::Error::from_raw_os_error(13);
        let begin = "the journal in /d cannot be used: ";
        let hint = "; all that is in it has to belong to the user that the broker runs as";
        assert_eq!(
            open(OpenError::Locked(LockError::Taken(Some(7)))),
            (
                IN_USE,
                format!("{begin}it is in use by process 7; stop that broker first")
            )
        );
        assert_eq!(
            open(OpenError::Locked(LockError::Io(denied()))),
            (IO, format!("{begin}it cannot be written: Permission denied{hint}"))
        );
        let file = "0000000000000001.seg".to_owned();
        assert_eq!(
            open(OpenError::Io {
                doing: "make",
                file,
                error: io::Error::from_raw_os_error(5),
            }),
            (
                IO,
                format!("{begin}cannot make 0000000000000001.seg: Input/output error")
            )
        );
        assert_eq!(
            open(OpenError::Full {
                what: "a new journal",
                bytes: 64 << 20,
            }),
            (
                IO,
                format!("{begin}the disk is full: a new journal needs 64 MiB of room")
            )
        );
    }

    /// Records that the broker cannot use are named, and what helps with them; a sound log is not to be salvaged.
    #[test]
    fn records_that_cannot_be_used_are_a_sentence_and_a_code() {
        let hint = "; `sol store salvage /d --out FILE` saves the others, and `sol store import FILE DIRECTORY` makes a journal of \
                    them that persistence_location can name";
        let (one, other) = (RecordId(0x1a), RecordId(0x2b));
        for (error, said) in [
            (
                DurableError::Record(one, PayloadError::Malformed),
                format!("record 0x1a cannot be read: its fields are not what its kind has{hint}"),
            ),
            (
                DurableError::Record(one, PayloadError::Newer),
                "record 0x1a was written by a later version: use that version, or a later one".to_owned(),
            ),
            (
                DurableError::Restore(one, RestoreError::UnknownSession(other)),
                format!("record 0x1a does not belong to the others: its Session, record 0x2b, is not there{hint}"),
            ),
            (
                DurableError::Restore(one, RestoreError::InvalidFilter(one)),
                format!("record 0x1a does not belong to the others: its Topic Filter is not valid{hint}"),
            ),
        ] {
            let Failure { code, text } = failure("/d".as_ref(), &error);
            assert_eq!(
                (code, text),
                (DATA, format!("the journal in /d cannot be used: {said}"))
            );
        }
        let orphan = failure("/d".as_ref(), &DurableError::Open(OpenError::Orphan { parent: 7 }));
        assert!(orphan.code == DATA && orphan.text.ends_with("`persistence_damage salvage` starts with it"));
    }
}
