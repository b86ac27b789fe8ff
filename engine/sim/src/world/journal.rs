//! The journal: the real store and the real transactions, on a disk in memory that loses power. What its thread would do
//! is done a step at a time, so that a crash may come between any two of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sol_codec::mutants::mutant;
use sol_engine::{Commit, Effects, Family, Homes, Input, Record, RecordId, ShardId, Ticket};
use sol_journal::model::ModelDisk;
use sol_journal::{Batch, CommitError, Desk, Event, Kind, Mode, Opened, Options, Pressure, Store, Submission};

use crate::oracle::At;
use crate::rng::Rng;
use crate::violation::{Verdict, Violation, broken, ensure};

/// How long the journal's thread stands still at most, in steps.
const RESTS_MAX: [u64; 4] = [0, 0, 20, 200];
/// Segments of so few bytes that some are full and old ones moved.
const SEGMENT_BYTES: [u32; 3] = [4 << 10, 16 << 10, 256 << 10];
/// What is not synced for an answer is so once in so many frames.
const SYNCS_ONCE_IN: usize = 16;

/// What of one shard's tray is not submitted.
#[derive(Debug, Default)]
pub(super) struct Unsubmitted {
    /// Calls that wrote it.
    calls: usize,
    /// When the first of them came, or before.
    since: Option<At>,
}

impl Unsubmitted {
    /// A call, which came at that moment or later, wrote something.
    pub(super) fn add(&mut self, at: At) {
        self.calls += 1;
        self.since.get_or_insert(at);
    }
}

/// The journal's thread and its disk.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: there is no journal.
    desk: Option<Desk<ModelDisk>>,
    disk: ModelDisk,
    options: Options,
    pub(super) mode: Mode,
    rng: Rng,
    inbox: VecDeque<Submission>,
    sources: Vec<Source>,
    /// Records that are live, were it not for a crash, and those that are not any more.
    live: BTreeSet<RecordId>,
    dead: BTreeSet<RecordId>,
    rests_max: u64,
    /// The step until which it does nothing.
    pub(super) wakes: u64,
    /// The disk takes no more than what is on it and what room was kept for.
    is_full: bool,
    /// Whether there is room, as the shards were told last.
    pressure: Pressure,
    /// Room is to be looked for, or made anew, though nothing waits to be written.
    looks: bool,
    /// What is to be written has no room, and nothing is left that would make some.
    is_stuck: bool,
    payload: Vec<u8>,
}

/// What a shard has submitted.
#[derive(Debug, Default)]
struct Source {
    /// What is not kept, and since when it may have been written.
    unkept: BTreeMap<u64, At>,
    /// What it has not been told of: tickets, each with how many calls wrote under it.
    untold: BTreeMap<u64, usize>,
    news: VecDeque<Event>,
}

/// A record as the store has it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) kind: u8,
    pub(super) id: RecordId,
    pub(super) parent: Option<RecordId>,
    bytes: Vec<u8>,
}

/// What a store had when it was opened again.
#[derive(Debug)]
pub(super) struct Reopened {
    pub(super) records: Vec<Stored>,
    /// The disk had the beginning of something that was never promised.
    pub(super) was_torn: bool,
}

impl Stored {
    pub(super) fn decode(&self) -> Result<Record, Violation> {
        Record::decode(self.id, self.kind, self.parent, &self.bytes)
            .map_err(|error| broken("journal", format!("{self:?}: {error}")))
    }
}

impl Writer {
    /// One for so many shards, if there `is` one; `syncs`: what is acknowledged survives a power cut.
    pub(super) fn new(seed: u64, shards: usize, is: bool, syncs: bool) -> Self {
        let mut rng = Rng::named(seed, "journal");
        let options = Options {
            segment_bytes: *rng.pick(&SEGMENT_BYTES),
            ..Options::default()
        };
        let rests_max = *rng.pick(&RESTS_MAX);
        let mut writer = Self {
            desk: None,
            disk: ModelDisk::new(rng.next()),
            options,
            mode: if syncs { Mode::Fsync } else { Mode::Os },
            rng,
            inbox: VecDeque::new(),
            sources: Vec::new(),
            live: BTreeSet::new(),
            dead: BTreeSet::new(),
            rests_max,
            wakes: 0,
            is_full: false,
            pressure: Pressure::Normal,
            looks: false,
            is_stuck: false,
            payload: Vec::new(),
        };
        if is {
            match Store::open(writer.disk.clone(), &writer.options, 0) {
                Ok(opened) => writer.start(opened.store, shards),
                Err(error) => unreachable!("an empty disk has room: {error}"),
            }
        }
        writer
    }

    fn start(&mut self, store: Store<ModelDisk>, shards: usize) {
        self.sources = (0..shards).map(|_| Source::default()).collect();
        self.desk = Some(Desk::new(store, self.mode, shards as u16));
        (self.pressure, self.is_stuck) = (Pressure::Normal, false);
        self.looks = self.is_full;
    }

    /// From now on the disk has no room for more, or has some again.
    pub(super) fn fill(&mut self, full: bool) {
        self.disk.set_capacity(if full { self.disk.used() } else { u64::MAX });
        (self.is_full, self.looks, self.is_stuck) = (full, true, false);
    }

    /// Whether there may be no room: the disk is full, or some shard has not heard that it is not any more.
    pub(super) fn may_be_full(&self) -> bool {
        self.is_full || self.pressure != Pressure::Normal
    }

    /// Looks at the records of one call.
    pub(super) fn look_at(&mut self, records: &[Record]) -> Verdict {
        for record in records {
            match record {
                Record::Delete(id) => {
                    self.live.remove(id);
                    self.dead.insert(*id);
                }
                // A body lives while something points at it; nobody deletes it.
                Record::Body(..) => {}
                other => {
                    let id = other.id();
                    ensure(!self.dead.contains(&id), "journal", || {
                        format!("{id:?} is written after its end")
                    })?;
                    self.live.insert(id);
                }
            }
        }
        Ok(())
    }

    /// Takes what a shard's tray has.
    pub(super) fn submit(&mut self, shard: usize, tray: &Effects, of_tray: &mut Unsubmitted) {
        let Unsubmitted { calls, since } = std::mem::take(of_tray);
        let mut begin = 0;
        for &Commit { ticket, end, part } in &tray.commits {
            let mut batch = Batch::default();
            for record in &tray.records[begin..end] {
                put(&mut batch, record, &mut self.payload);
            }
            begin = end;
            let source = &mut self.sources[shard];
            // A part may be empty, and nothing is lost with it.
            source.unkept.insert(ticket.0, since.unwrap_or(At::MAX));
            source.untold.insert(ticket.0, calls);
            if mutant("journal/answered-unwritten") {
                source.news.push_back(Event::Kept(ticket.0));
            }
            self.inbox.push_back(Submission {
                source: shard as u16,
                ticket: ticket.0,
                part: part.map(|part| sol_journal::Part {
                    transaction: part.transaction.0.get(),
                    forwards: part.forwards,
                    is_last: part.is_last,
                    after: part.after.map(|record| record.0),
                }),
                batch,
            });
        }
    }

    /// Whether its thread has something to do.
    pub(super) fn has_work(&self) -> bool {
        let waits = !self.inbox.is_empty() || self.desk.as_ref().is_some_and(Desk::owes_answers);
        waits && !self.is_stuck || self.looks
    }

    /// One step of its thread: it writes a frame of some of what waits, or answers for one. Where there is no room it looks
    /// for some.
    pub(super) fn work(&mut self, now_unix_millis: u64, steps: u64) -> Verdict {
        let worked = match self.write(now_unix_millis, steps) {
            Ok(true) => self.answer(now_unix_millis, steps),
            Ok(false) => Ok(()),
            Err(CommitError::Full) => self.look_for_room(now_unix_millis),
            Err(failed) => Err(failed),
        };
        let looked = worked.and_then(|()| self.look(now_unix_millis));
        self.tell_pressure();
        looked.map_err(|error| broken("journal", error.to_string()))
    }

    /// Whether what was written is to be answered for now.
    fn write(&mut self, now_unix_millis: u64, steps: u64) -> Result<bool, CommitError> {
        let Some(desk) = &mut self.desk else { return Ok(false) };
        if desk.owes_answers() {
            // There may have been no room for it.
            return desk.commit(now_unix_millis).map(|()| true);
        }
        let all = self.inbox.len();
        if all == 0 {
            return Ok(false);
        }
        let some = if self.rng.percent(50) {
            all
        } else {
            1 + self.rng.below(all)
        };
        for submission in self.inbox.drain(..some) {
            desk.take(submission, steps);
        }
        if !desk.is_ready() {
            return Ok(false);
        }
        desk.fill(drop);
        desk.commit(now_unix_millis)?;
        Ok(!self.rng.percent(50))
    }

    fn answer(&mut self, now_unix_millis: u64, steps: u64) -> Result<(), CommitError> {
        let Some(desk) = &mut self.desk else { return Ok(()) };
        if !mutant("journal/answered-unsynced") {
            desk.promise()?;
        }
        let sources = &mut self.sources;
        desk.answer(|source, event| {
            if let Some(source) = sources.get_mut(usize::from(source)) {
                match &event {
                    Event::Kept(upto) => source.unkept = source.unkept.split_off(&(upto + 1)),
                    Event::KeptAlone(ticket) => drop(source.unkept.remove(ticket)),
                    _ => {}
                }
                if !mutant("journal/answered-unwritten") {
                    source.news.push_back(event);
                }
            }
        });
        let store = desk.store_mut();
        store.tend(now_unix_millis, false)?;
        if self.rng.once_in(SYNCS_ONCE_IN) {
            store.sync()?;
            full_is_fine(store.mark(now_unix_millis))?;
        }
        self.wakes = steps + self.rng.next() % (self.rests_max + 1);
        Ok(())
    }

    /// What waits to be written has no room: what is not live any more may make some.
    fn look_for_room(&mut self, now_unix_millis: u64) -> Result<(), CommitError> {
        let Some(desk) = &mut self.desk else { return Ok(()) };
        let store = desk.store_mut();
        let so_far = |store: &Store<ModelDisk>| (store.counts().frames, store.counts().removed_segments);
        let before = so_far(store);
        store.tend(now_unix_millis, true)?;
        store.sync()?;
        store.tend(now_unix_millis, true)?;
        self.is_stuck = so_far(store) == before;
        Ok(())
    }

    /// Its thread has nothing else to do: what was kept in reserve is made anew where there is room for that.
    fn look(&mut self, now_unix_millis: u64) -> Result<(), CommitError> {
        let Some(desk) = self.desk.as_mut().filter(|_| self.looks) else {
            self.looks = false;
            return Ok(());
        };
        let store = desk.store_mut();
        store.tend(now_unix_millis, true)?;
        store.sync()?;
        self.looks = !self.is_full && store.pressure() != Pressure::Normal;
        Ok(())
    }

    fn tell_pressure(&mut self) {
        let Some(desk) = &self.desk else { return };
        let pressure = desk.store().pressure();
        if pressure == std::mem::replace(&mut self.pressure, pressure) {
            return;
        }
        for source in &mut self.sources {
            source.news.push_back(Event::Pressure(pressure));
        }
    }

    /// Whether a shard can be told something.
    pub(super) fn has_news(&self, shard: usize) -> bool {
        self.sources.get(shard).is_some_and(|source| !source.news.is_empty())
    }

    /// What a shard is told next, and how many calls waited for it at most.
    pub(super) fn news(&mut self, shard: usize) -> Option<(Input<'static>, usize)> {
        let source = self.sources.get_mut(shard)?;
        match source.news.pop_front()? {
            Event::Kept(upto) => {
                let later = source.untold.split_off(&(upto + 1));
                let calls = std::mem::replace(&mut source.untold, later).values().sum();
                Some((Input::Durable(Ticket(upto)), calls))
            }
            Event::KeptAlone(ticket) => {
                let calls = source.untold.get(&ticket).copied().unwrap_or_default();
                Some((Input::DurableAlone(Ticket(ticket)), calls))
            }
            Event::Pressure(pressure) => Some((Input::JournalFull(pressure != Pressure::Normal), 1)),
            Event::Load(_) | Event::Failed(_) => None,
        }
    }

    /// All that was written before that moment is kept.
    pub(super) fn horizon<'a>(&self, trays: impl Iterator<Item = &'a Unsubmitted>) -> At {
        let unkept = self.sources.iter().flat_map(|source| source.unkept.values().copied());
        let unsubmitted = trays.filter_map(|tray| tray.since);
        unkept.chain(unsubmitted).min().unwrap_or(At::MAX)
    }

    /// Records that are live, transactions that wait for a part, and what the store has.
    pub(super) fn left(&self) -> [u64; 3] {
        let desk = self.desk.as_ref();
        [
            self.live.len() as u64,
            self.incomplete() as u64,
            desk.map_or(0, |desk| desk.store().sizes().live_records),
        ]
    }

    /// Transactions that wait for a part.
    pub(super) fn incomplete(&self) -> usize {
        self.desk.as_ref().map_or(0, |desk| desk.waiting().0)
    }

    /// What is live in the store.
    pub(super) fn stored(&self) -> Result<Vec<Stored>, Violation> {
        self.desk.as_ref().map_or(Ok(Vec::new()), |desk| stored(desk.store()))
    }

    /// Opens the store again. Where there is no room to, somebody makes some.
    fn open(&mut self, now_unix_millis: u64) -> Result<Opened<ModelDisk>, Violation> {
        let mut opened = Store::open(self.disk.clone(), &self.options, now_unix_millis);
        if opened.is_err() && self.is_full {
            self.fill(false);
            opened = Store::open(self.disk.clone(), &self.options, now_unix_millis);
        }
        opened.map_err(|error| broken("journal", format!("it does not open again: {error}")))
    }

    /// The process dies, and the `power` may go out with it; another one begins with what is left, for so many shards.
    pub(super) fn restart(&mut self, power: bool, shards: usize, now_unix_millis: u64) -> Result<Reopened, Violation> {
        self.desk = None;
        self.inbox.clear();
        self.disk = if power {
            self.disk.cut(self.rng.next())
        } else {
            self.disk.restart()
        };
        let opened = self.open(now_unix_millis)?;
        let (mut store, report) = (opened.store, opened.report);
        ensure(
            report.holes.is_empty() && report.orphans == 0 && (power || report.tail.is_none()),
            "journal",
            || format!("it is damaged: {report:?}"),
        )?;
        let mut records = stored(&store)?;
        forget_orphans(&mut store, &mut records, now_unix_millis)?;
        let lives = records.iter().filter(|record| record.kind != Record::BODY);
        self.live = lives.map(|record| record.id).collect();
        self.dead.clear();
        self.start(store, shards);
        self.wakes = 0;
        Ok(Reopened {
            records,
            was_torn: report.tail.is_some(),
        })
    }
}

/// Puts a record in a batch, or its end; `payload` is scratch memory.
fn put(batch: &mut Batch, record: &Record, payload: &mut Vec<u8>) {
    payload.clear();
    record.encode(payload);
    let (kind, id) = (Kind::new(record.kind()), record.id().0);
    match record.family() {
        Family::Gone => batch.delete(id),
        Family::Single => batch.put(kind, id, payload),
        Family::Body => batch.body(kind, id, payload),
        Family::Child(parent) => batch.child(kind, id, parent.0, payload),
    }
}

/// All live records by kind, and the older ones of a kind first.
fn stored(store: &Store<ModelDisk>) -> Result<Vec<Stored>, Violation> {
    let mut records = Vec::new();
    let older = |key: sol_journal::RecordKey| key.id & RecordId::COUNT;
    let read = store.for_each(older, |record| {
        records.push(Stored {
            kind: record.kind.number(),
            id: RecordId(record.id),
            parent: record.parent.map(RecordId),
            bytes: record.bytes.to_vec(),
        });
    });
    read.map_err(|error| broken("journal", error.to_string()))?;
    Ok(records)
}

/// The Session that a record is of, if it is one's.
pub(super) const fn session_of(record: &Record) -> Option<RecordId> {
    match record {
        Record::Subscription(_, subscription) => Some(subscription.session),
        Record::Reference(_, reference) => Some(reference.session),
        Record::Inbound { session, .. } => Some(*session),
        _ => None,
    }
}

/// A Session had ended, and the broker died before all that it had was deleted too.
fn forget_orphans(store: &mut Store<ModelDisk>, records: &mut Vec<Stored>, now_unix_millis: u64) -> Verdict {
    let mut batch = Batch::default();
    let mut sessions = BTreeSet::new();
    let (mut kept, mut bodies) = (Vec::new(), BTreeSet::new());
    for record in records.drain(..) {
        let decoded = record.decode()?;
        if record.kind == Record::SESSION {
            sessions.insert(record.id);
        }
        if session_of(&decoded).is_some_and(|session| !sessions.contains(&session)) {
            batch.delete(record.id.0);
            continue;
        }
        bodies.extend(record.parent);
        kept.push(record);
    }
    kept.retain(|record| record.kind != Record::BODY || bodies.contains(&record.id));
    *records = kept;
    if batch.is_empty() {
        return Ok(());
    }
    store.add(&batch);
    // Where there is no room for it, it is written when there is.
    let committed = full_is_fine(store.commit(now_unix_millis).map(drop));
    committed.map_err(|error| broken("journal", error.to_string()))
}

/// That there is no room is told by the store's pressure.
fn full_is_fine(result: Result<(), CommitError>) -> Result<(), CommitError> {
    match result {
        Err(CommitError::Full) => Ok(()),
        other => other,
    }
}

/// The shards that get each record.
pub(super) fn homes_of(records: &[Stored], homes: &Homes) -> Result<Vec<BTreeSet<ShardId>>, Violation> {
    let mut sessions = BTreeMap::new();
    let mut topics = BTreeMap::new();
    let mut bodies: BTreeMap<RecordId, BTreeSet<ShardId>> = BTreeMap::new();
    let decoded = records.iter().map(Stored::decode).collect::<Result<Vec<_>, _>>()?;
    for record in &decoded {
        match record {
            Record::Session(id, session) => drop(sessions.insert(*id, homes.of_client(&session.client_id))),
            Record::Body(id, message) => drop(topics.insert(*id, homes.of_topic(message.topic()))),
            Record::Retained { body, .. } => {
                bodies.entry(*body).or_default().extend(topics.get(body));
            }
            Record::Reference(_, reference) => {
                if let Some(body) = reference.body {
                    bodies.entry(body).or_default().extend(sessions.get(&reference.session));
                }
            }
            _ => {}
        }
    }
    let home = |record: &Record| match record {
        Record::Session(id, _) => sessions.get(id).copied().into_iter().collect(),
        Record::Body(id, _) => bodies.get(id).cloned().unwrap_or_default(),
        Record::Retained { body, .. } => topics.get(body).copied().into_iter().collect(),
        other => {
            let session = session_of(other).and_then(|session| sessions.get(&session));
            session.copied().into_iter().collect()
        }
    };
    Ok(decoded.iter().map(home).collect())
}
