//! `sol store`: what is to be done with a journal.

use std::path::PathBuf;

use clap::Subcommand;

/// What to do with the journal. DIR is what `persistence_location` names, or the sol-journal in it.
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub enum StoreTool {
    /// Verify everything, and say what is there; a broker may use it meanwhile
    ///
    /// The exit code is 0 if all is sound, and 65 if something is damaged: then file and offset are named.
    Check {
        /// What persistence_location names, or the journal itself
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Count records and bytes, and name the longest queues; a broker may use it meanwhile
    Stats {
        /// What persistence_location names, or the journal itself
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Write every record as a line of JSON; a broker may use the journal meanwhile
    ///
    /// The first line names format and version. Payloads are Base64. The file is readable for its owner alone.
    Export {
        /// What persistence_location names, or the journal itself
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// A new file for it [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a journal of what `export` or `salvage` wrote
    Import {
        /// The lines of JSON, `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What persistence_location will name; there must be no journal in it
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Copy the journal, verified, while a broker uses it
    ///
    /// The copy has all that was durable when this began. A broker starts on it as on the original.
    Backup {
        /// What persistence_location names, or the journal itself
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Where to; there must be no journal in it
        #[arg(value_name = "TO")]
        to: PathBuf,
    },
    /// Write all of a damaged journal that can be read, as `export` does, and say what is missing
    ///
    /// The journal stays as it is. What was deleted where it is damaged may be there again.
    Salvage {
        /// What persistence_location names, or the journal itself
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// A new file for it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a journal of Mosquitto's database: Sessions, Subscriptions, queued and retained messages
    ///
    /// Formats 5 and 6 are read, those of Mosquitto 1.6 to 2.1. Stop Mosquitto first: it writes the file as it ends.
    ImportMosquitto {
        /// Mosquitto's database, usually /var/lib/mosquitto/mosquitto.db
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What persistence_location will name; there must be no journal in it
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Take what stands before the damage of a damaged file
        #[arg(long)]
        partial: bool,
    },
}
