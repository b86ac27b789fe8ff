//! What is kept on disk, and where.

use std::fmt;
use std::path::PathBuf;

use super::directives::Directive;
use super::reader::{Fault, Reader, fault};
use super::show::{one, path};
use super::units::show_size;
use super::{Config, draft::Draft};

const WRITTEN_AT_ONCE: &str = "what is acknowledged is on disk already, and nothing is dumped";

/// The journal's directory in `persistence_location`, beside what other brokers keep there.
pub(crate) const DIRECTORY: &str = "sol-journal";

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: everything ends with the process.
    None,
    /// What it acknowledges survives the process.
    Os,
    /// What it acknowledges survives a power cut.
    Fsync,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Os => "os",
            Self::Fsync => "fsync",
        })
    }
}

/// Everything about the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    durability: Option<Durability>,
    location: Option<PathBuf>,
    /// Where that is, from the root on: a daemon goes there.
    settled: Option<PathBuf>,
    /// Bytes that it may take on the disk.
    pub bytes_max: Option<u64>,
    /// A damaged journal is used as far as it can be read.
    pub salvages: bool,
}

impl Persistence {
    /// What is promised: by default that which a directory is enough for.
    #[must_use]
    pub fn durability(&self) -> Durability {
        let by_default = if self.location.is_some() {
            Durability::Os
        } else {
            Durability::None
        };
        self.durability.unwrap_or(by_default)
    }

    /// All is read: what was not said is what it is by default.
    pub(crate) fn settle(&mut self) {
        self.durability = Some(self.durability());
        self.settled = std::path::absolute(self.named()).ok();
    }

    fn named(&self) -> PathBuf {
        self.location.clone().unwrap_or_default().join(DIRECTORY)
    }

    /// Where the journal is; `None`: there is none.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        let directory = || self.settled.clone().unwrap_or_else(|| self.named());
        (self.durability() != Durability::None).then(directory)
    }
}

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "persistence",
        "none|os|fsync|true|false",
        "os with a persistence_location, else none",
        "What an acknowledged message, Subscription or Session survives: nothing, the process, or a power cut (true: that).",
        durability,
    )
    .restart()
    .shown(|config| one(config.persistence.durability())),
    Directive::new(
        "retained_persistence",
        "true|false",
        "false",
        "An old name of persistence.",
        durability,
    )
    .own()
    .restart(),
    Directive::new(
        "persistence_location",
        "PATH",
        "none",
        "The directory in which the journal has its own, sol-journal.",
        |draft, reader| {
            draft.config.persistence.location = Some(reader.path()?);
            Ok(())
        },
    )
    .restart()
    .shown(|config| path(config.persistence.location.as_deref())),
    Directive::new(
        "persistence_max_size",
        "SIZE",
        "none",
        "How much of the disk the journal may take; what is new is refused beyond, as on a full disk. 80MB at least, 0 is no limit.",
        |draft, reader| {
            draft.config.persistence.bytes_max = match reader.size()? {
                0 => None,
                size if size < BYTES_MAX_MIN => {
                    let (asked, taken) = (show_size(size), show_size(BYTES_MAX_MIN));
                    let text = format!("{asked} is too little for a journal, which may take {taken} now");
                    reader.warnings.push((0, text));
                    Some(BYTES_MAX_MIN)
                }
                size => Some(size),
            };
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(show_size(config.persistence.bytes_max.unwrap_or(0)))),
    Directive::new(
        "persistence_damage",
        "refuse|salvage",
        "refuse",
        "Whether a broker whose journal is damaged starts with what can be read of it.",
        damage,
    )
    .restart()
    .shown(|config| one(if config.persistence.salvages { "salvage" } else { "refuse" })),
    Directive::new(
        "persistence_file",
        "NAME",
        "mosquitto.db",
        "The name of Mosquitto's database.",
        |_, reader| reader.rest().map(drop),
    )
    .own()
    .without_effect("the journal is a directory; `sol store import-mosquitto` reads such a database"),
    Directive::new(
        "autosave_interval",
        "SECONDS",
        "1800",
        "How often Mosquitto writes its database.",
        |_, reader| reader.number(i64::from(i32::MIN), i64::from(i32::MAX)).map(drop),
    )
    .own()
    .without_effect(WRITTEN_AT_ONCE),
    Directive::new(
        "autosave_on_changes",
        "true|false",
        "false",
        "Whether autosave_interval counts changes.",
        |_, reader| reader.switch().map(drop),
    )
    .own()
    .without_effect(WRITTEN_AT_ONCE),
];

/// Five segments of 16 MiB: with less there is no room to move what is kept.
const BYTES_MAX_MIN: u64 = 80 << 20;

fn durability(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.word()?;
    let durability = match token.text.to_ascii_lowercase().as_str() {
        "true" | "1" | "fsync" => Durability::Fsync,
        "os" => Durability::Os,
        "false" | "0" | "none" => Durability::None,
        _ => {
            let text = format!("`{}` is none of none, os, fsync, true and false", token.text);
            return Err(fault(token, text));
        }
    };
    draft.config.persistence.durability = Some(durability);
    Ok(())
}

fn damage(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.word()?;
    draft.config.persistence.salvages = match token.text.to_ascii_lowercase().as_str() {
        "refuse" => false,
        "salvage" => true,
        _ => return Err(fault(token, format!("`{}` is neither refuse nor salvage", token.text))),
    };
    Ok(())
}

impl Config {
    /// That where the journal is depends on where the broker is started, if it does.
    #[must_use]
    pub fn wandering_journal(&self) -> Option<String> {
        let wanders = self.persistence.named().is_relative();
        let directory = self.persistence.directory().filter(|_| wanders)?;
        let place = self
            .places
            .of("persistence_location")
            .or_else(|| self.places.of("persistence"));
        let text = format!(
            "the journal is in {}, because the broker is started here: started elsewhere it would begin with an empty one. Name a \
             directory from the root on in persistence_location",
            directory.display()
        );
        Some(place.map_or_else(|| text.clone(), |place| place.say(&text).to_string()))
    }

    /// The directory of the journal in words.
    #[must_use]
    pub fn data_directory(&self) -> String {
        match self.persistence.directory() {
            None => "none, everything is in memory and ends with the process".to_owned(),
            Some(directory) => {
                let promise = match self.persistence.durability() {
                    Durability::Fsync => "what is acknowledged survives a power cut",
                    _ => "what is acknowledged survives the process, and a power cut but for the last second",
                };
                format!(
                    "{} (persistence {}: {promise})",
                    directory.display(),
                    self.persistence.durability()
                )
            }
        }
    }
}
