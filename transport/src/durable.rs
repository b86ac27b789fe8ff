//! The journal between engines and disk: what a store says of itself, how shards write to it and hear of it, and how they
//! begin with what it holds.

mod ledger;
mod restore;
mod watch;

use std::fmt;
use std::io;
use std::sync::Arc;

use sol_engine::{ListenerId, PayloadError, RecordId, RestoreError, ShardId};
use sol_journal::{Batch, CommitError, Disk, Event, Kind, Mode, OpenError, Opened, Options, Report, Sink, Store};

pub(crate) use self::ledger::Ledger;
pub(crate) use self::restore::{Restored, Restorer};
pub use self::watch::{Progress, Watch};
use crate::clock::Clock;
use crate::mailbox::{Exchange, Mail};

const ABOUT_VERSION: u8 = 1;

/// A store that shards write to, opened and not yet read.
#[derive(Debug)]
pub struct Durable<D: Disk> {
    store: Store<D>,
    mode: Mode,
    about: About,
    numbers: Arc<Numbers>,
    report: Report,
    watch: Watch,
}

/// What a store says of itself, in a record of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The key of the hashes that place what it holds, and that tell clients apart in it.
    pub seeds: [u64; 4],
    /// All listeners that its records ever spoke of, by the numbers that they have in there.
    pub listeners: Vec<String>,
}

/// What number a listener has in the configuration, and what number in the store: one keeps its number there, wherever its
/// lines stand.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    in_store: Vec<ListenerId>,
    in_configuration: Vec<ListenerId>,
}

impl Numbers {
    fn new(configured: &[String], stored: &[String]) -> Self {
        let find = |names: &[String], name: &String| {
            let at = names.iter().position(|other| other == name).unwrap_or_default();
            ListenerId(at as u16)
        };
        Self {
            in_store: configured.iter().map(|name| find(stored, name)).collect(),
            // What came in through one that is gone is judged by the first.
            in_configuration: stored.iter().map(|name| find(configured, name)).collect(),
        }
    }

    pub(crate) fn in_store(&self, listener: ListenerId) -> ListenerId {
        self.in_store.get(usize::from(listener.0)).copied().unwrap_or(listener)
    }

    pub(crate) fn in_configuration(&self, listener: ListenerId) -> ListenerId {
        let known = self.in_configuration.get(usize::from(listener.0));
        known.copied().unwrap_or(ListenerId(0))
    }
}

/// Why the shards cannot begin with what a store holds.
#[derive(Debug)]
pub enum DurableError {
    /// The store cannot be opened or read.
    Open(OpenError),
    /// It cannot be written to.
    Write(CommitError),
    /// A record is not what this program writes.
    Record(RecordId, PayloadError),
    /// A record does not belong to the others.
    Restore(RecordId, RestoreError),
    /// The system has no thread for it.
    System(io::Error),
}

impl fmt::Display for DurableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Record(id, PayloadError::Newer) => {
                write!(
                    f,
                    "record {:#x} was written by a later version: use that version, or a later one",
                    id.0
                )
            }
            Self::Record(id, error) => write!(f, "record {:#x} cannot be read: {error}", id.0),
            Self::Restore(id, error) => {
                write!(f, "record {:#x} does not belong to the others: ", id.0)?;
                match error {
                    RestoreError::UnknownSession(of) => write!(f, "its Session, record {:#x}, is not there", of.0),
                    RestoreError::UnknownBody(of) => write!(f, "its message, record {:#x}, is not there", of.0),
                    RestoreError::InvalidFilter(_) => f.write_str("its Topic Filter is not valid"),
                    RestoreError::Deletion(_) => f.write_str("it is a deletion"),
                }
            }
            Self::System(error) => write!(f, "no thread can be had for the journal: {error}"),
        }
    }
}

impl std::error::Error for DurableError {}

impl From<OpenError> for DurableError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl<D: Disk> Durable<D> {
    /// Opens the store of a disk, or makes one, whose hashes have these seeds then: they must be unpredictable. `listeners`
    /// are the names of the listeners, by number: Sessions are found again by them where numbers have changed. `watch` hears
    /// how far it is, and later how far the start with it is.
    ///
    /// # Errors
    /// It is in use, damaged, of a later version, or the disk failed.
    pub fn open(
        disk: D,
        options: &Options,
        mode: Mode,
        seeds: [u64; 4],
        listeners: &[String],
        clock: Clock,
        mut watch: Watch,
    ) -> Result<Self, DurableError> {
        let now = clock.now().wall.as_millis();
        let Opened { mut store, report } =
            Store::open_telling(disk, options, now, &mut |progress| watch.tell(Progress::Log(progress)))?;
        let mut about = None;
        store.for_each_of(
            1 << About::KIND.number(),
            |key| key.id,
            |record| about = Some(About::decode(record.bytes)),
        )?;
        let known = about
            .transpose()
            .map_err(|error| DurableError::Record(About::ID, error))?;
        let mut about = known.clone().unwrap_or(About {
            seeds,
            listeners: Vec::new(),
        });
        for name in listeners {
            if !about.listeners.contains(name) {
                about.listeners.push(name.clone());
            }
        }
        if known.as_ref() != Some(&about) {
            let mut batch = Batch::default();
            batch.put(About::KIND, About::ID.0, &about.encode());
            store.add(&batch);
            match store.commit(now) {
                Ok(_) => store.sync().map_err(DurableError::Write)?,
                // It is kept, and written before anything else once there is room.
                Err(CommitError::Full) => {}
                Err(error) => return Err(DurableError::Write(error)),
            }
        }
        Ok(Self {
            numbers: Arc::new(Numbers::new(listeners, &about.listeners)),
            store,
            mode,
            about,
            report,
            watch,
        })
    }

    /// What was found.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// What engines have to be made with.
    pub(crate) const fn seeds(&self) -> [u64; 4] {
        self.about.seeds
    }

    pub(crate) const fn numbers(&self) -> &Arc<Numbers> {
        &self.numbers
    }
}

impl About {
    /// The record's identifier: no shard gives it out.
    pub const ID: RecordId = RecordId(u64::MAX);
    /// The record's kind: no record of the engine has it.
    pub const KIND: Kind = Kind::new(0);

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![ABOUT_VERSION];
        for seed in self.seeds {
            bytes.extend_from_slice(&seed.to_le_bytes());
        }
        // A name is a line of a configuration file, so none has a line break in it.
        bytes.extend_from_slice(self.listeners.join("\n").as_bytes());
        bytes
    }

    /// What the record's bytes say.
    ///
    /// # Errors
    /// They are none that this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let (&version, mut rest) = bytes.split_first().ok_or(PayloadError::Malformed)?;
        if version > ABOUT_VERSION {
            return Err(PayloadError::Newer);
        }
        let mut seeds = [0; 4];
        for seed in &mut seeds {
            let (bytes, behind) = rest.split_first_chunk().ok_or(PayloadError::Malformed)?;
            *seed = u64::from_le_bytes(*bytes);
            rest = behind;
        }
        let names = std::str::from_utf8(rest).map_err(|_| PayloadError::Malformed)?;
        Ok(Self {
            seeds,
            listeners: names.lines().map(str::to_owned).collect(),
        })
    }
}

/// Has the shards hear of what becomes of their records.
struct Posts(Arc<Exchange>);

impl Sink for Posts {
    fn tell(&mut self, source: u16, event: Event) {
        self.0.post(ShardId(source), Mail::Journal(event));
    }
}

/// The journal's clock is the transport's.
impl sol_journal::Clock for Clock {
    fn unix_millis(&self) -> u64 {
        self.now().wall.as_millis()
    }

    fn nanos(&self) -> u64 {
        self.now().mono.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener keeps its number in the store, wherever it stands in the configuration.
    #[test]
    fn listeners_are_found_by_their_names() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let numbers = Numbers::new(&names(&["new", "b", "a"]), &names(&["a", "b", "gone", "new"]));
        let stored: Vec<_> = (0..3).map(|n| numbers.in_store(ListenerId(n)).0).collect();
        assert_eq!(stored, [3, 1, 0]);
        let configured: Vec<_> = (0..5).map(|n| numbers.in_configuration(ListenerId(n)).0).collect();
        assert_eq!(configured, [2, 1, 0, 0, 0]);
    }

    /// What a store says of itself is read as it was written, and whatever else is there is refused.
    #[test]
    fn a_store_knows_its_seeds_and_listeners() {
        for listeners in [
            vec![],
            vec!["0.0.0.0:1883".to_owned()],
            vec!["a".to_owned(), "/run/b".to_owned()],
        ] {
            let about = About {
                seeds: [1, 2, u64::MAX, 4],
                listeners,
            };
            assert_eq!(About::decode(&about.encode()), Ok(about));
        }
        assert_eq!(About::decode(b"\x02"), Err(PayloadError::Newer));
        assert_eq!(About::decode(b"\x01short"), Err(PayloadError::Malformed));
        assert_eq!(About::decode(b""), Err(PayloadError::Malformed));
    }
}
