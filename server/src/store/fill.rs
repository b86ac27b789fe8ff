//! A new journal, filled with records that come from elsewhere: they have to belong together.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sol_codec::PacketId;
use sol_engine::{Family, Record, RecordId, ReferenceState};
use sol_journal::{Batch, CommitError, Kind, Options, OsDisk, Store};
use sol_transport::About;

use super::place::{self, Fresh};
use super::{IO, lines};
use crate::serve::Failure;

/// A frame is written when it has so many bytes.
const FRAME_BYTES: usize = 1 << 20;

/// A journal that is being filled. It comes to be when it is [finished](Self::finish), and not at all otherwise.
pub(super) struct Fill {
    store: Store<OsDisk>,
    place: Fresh,
    directory: PathBuf,
    batch: Batch,
    payload: Vec<u8>,
    known: Known,
    /// Messages that nothing has referred to yet: the journal keeps none without.
    waiting: HashMap<RecordId, Vec<u8>>,
    records: u64,
}

/// What was put, for what comes after it.
#[derive(Debug, Default)]
struct Known {
    ids: HashSet<RecordId>,
    sessions: HashSet<RecordId>,
    bodies: HashSet<RecordId>,
    clients: HashSet<String>,
    sent: HashSet<(RecordId, PacketId)>,
    received: HashSet<(RecordId, PacketId)>,
}

/// Why a record was not put.
#[derive(Debug)]
pub(super) enum PutError {
    /// It does not belong to the others, in words.
    Record(String),
    /// The disk failed.
    Disk(Failure),
}

impl Fill {
    /// Begins one that says this of itself.
    ///
    /// # Errors
    /// There is a journal in the directory, or it cannot be written.
    pub(super) fn new(directory: &Path, about: &About) -> Result<Self, Failure> {
        let place = Fresh::at(directory)?;
        let mut identity = [0; 16];
        getrandom::fill(&mut identity).map_err(|error| format!("no randomness: {error}"))?;
        let options = Options {
            identity,
            ..Options::default()
        };
        let opened = Store::open(place.disk()?, &options, now()).map_err(|error| place::refuse(directory, &error))?;
        let mut batch = Batch::default();
        batch.put(About::KIND, About::ID.0, &about.encode());
        Ok(Self {
            store: opened.store,
            place,
            directory: directory.to_owned(),
            batch,
            payload: Vec::new(),
            known: Known::default(),
            waiting: HashMap::new(),
            records: 0,
        })
    }

    /// Adds a record; what it refers to has to come before it.
    ///
    /// # Errors
    /// It does not belong to the others, or the disk failed.
    pub(super) fn put(&mut self, record: &Record) -> Result<(), PutError> {
        self.known.check(record).map_err(PutError::Record)?;
        self.payload.clear();
        record.encode(&mut self.payload);
        let (kind, id) = (Kind::new(record.kind()), record.id().0);
        match record.family() {
            Family::Body => {
                self.waiting.insert(record.id(), std::mem::take(&mut self.payload));
            }
            Family::Child(parent) => {
                // In one frame with what keeps it alive.
                if let Some(bytes) = self.waiting.remove(&parent) {
                    self.batch.body(Kind::new(Record::BODY), parent.0, &bytes);
                    self.records += 1;
                }
                self.batch.child(kind, id, parent.0, &self.payload);
                self.records += 1;
            }
            Family::Single => {
                self.batch.put(kind, id, &self.payload);
                self.records += 1;
            }
            Family::Gone => {}
        }
        if self.batch.len() >= FRAME_BYTES {
            self.commit().map_err(PutError::Disk)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.store.add(&self.batch);
        self.batch.clear();
        self.store.commit(now()).map(drop).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &CommitError) -> Failure {
        Failure {
            code: IO,
            text: format!(
                "cannot write the journal in {}: {error}; nothing is left of it",
                self.directory.display()
            ),
        }
    }

    /// All records have been put: says how many, and where. Messages that nobody refers to are left out.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn finish(mut self) -> Result<(u64, PathBuf), Failure> {
        self.commit()?;
        let Self {
            store,
            place,
            directory,
            records,
            ..
        } = self;
        store.close(now()).map_err(|error| Failure {
            code: IO,
            text: format!(
                "cannot write the journal in {}: {error}; nothing is left of it",
                directory.display()
            ),
        })?;
        Ok((records, place.finish()?))
    }
}

impl Known {
    fn check(&mut self, record: &Record) -> Result<(), String> {
        if !self.ids.insert(record.id()) {
            return Err("its identifier has been there before".to_owned());
        }
        if let Some(session) = lines::session_of(record)
            && !self.sessions.contains(&session)
        {
            return Err("its Session has not been there before".to_owned());
        }
        if let Family::Child(body) = record.family()
            && !self.bodies.contains(&body)
        {
            return Err("its message has not been there before".to_owned());
        }
        let is_new = match record {
            Record::Session(id, session) => {
                self.sessions.insert(*id);
                self.clients.insert(session.client_id.clone())
            }
            Record::Body(id, _) => self.bodies.insert(*id),
            Record::Reference(_, reference) => match reference.state {
                ReferenceState::Sent(id) | ReferenceState::Released(id) => self.sent.insert((reference.session, id)),
                ReferenceState::Queued => true,
            },
            Record::Inbound { session, packet_id, .. } => self.received.insert((*session, *packet_id)),
            Record::Subscription(..) | Record::Retained { .. } | Record::Delete(_) => true,
        };
        if is_new {
            Ok(())
        } else {
            Err("its Client Identifier, or its Session's Packet Identifier, has been there before".to_owned())
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
