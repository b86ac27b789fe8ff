//! An owner of records with a plain memory: what the journal must say after whatever happened.

pub(crate) mod writer;

use std::collections::BTreeMap;

use sol_journal::{
    Batch, CommitError, Kind, OpenError, Opened, Options, Report, Store, SyncJob,
    model::{ModelDisk, ModelFile, Random},
};

/// What lives: kind, parent and bytes of each identifier.
pub(crate) type State = BTreeMap<u64, (u8, Option<u64>, Vec<u8>)>;

pub(crate) const BODY: Kind = Kind::new(1);
pub(crate) const CHILD: Kind = Kind::new(2);
pub(crate) const SINGLE: Kind = Kind::new(3);

/// Small segments, so that a test sees many.
pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 4096,
        ..Options::default()
    }
}

/// All live records of a store.
pub(crate) fn state_of(store: &Store<ModelDisk>) -> Result<State, OpenError> {
    let mut state = State::new();
    store.for_each(
        |key| key.id,
        |record| {
            let other = state.insert(record.id, (record.kind.number(), record.parent, record.bytes.to_vec()));
            assert!(other.is_none(), "record {} came twice", record.id);
        },
    )?;
    Ok(state)
}

/// A store, and what it may say after a restart: any of `states` from `acknowledged` on.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) disk: ModelDisk,
    pub(crate) store: Option<Store<ModelDisk>>,
    pub(crate) states: Vec<State>,
    /// The newest of the states that a sync has promised.
    pub(crate) acknowledged: usize,
    /// The newest of the states whose commit has been answered.
    pub(crate) committed: usize,
    /// Each frame that an owner's commit wrote since the store was opened, with its state; before them what was found.
    pub(crate) frames: Vec<(u64, usize)>,
    pub(crate) options: Options,
    next_id: u64,
    pub(crate) clock: u64,
    /// Whether another thread syncs, as in mode `os`; and its job, with the newest state that was committed before.
    pub(crate) syncs_beside: bool,
    pub(crate) job: Option<(SyncJob<ModelFile>, usize)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = ModelDisk::new(seed);
        Self {
            random: Random::new(seed),
            store: None,
            disk,
            states: vec![State::new()],
            acknowledged: 0,
            committed: 0,
            frames: Vec::new(),
            options: options(),
            next_id: 1,
            clock: 1,
            syncs_beside: false,
            job: None,
        }
    }

    /// Opens the store and checks what it says; it goes on from there.
    pub(crate) fn open(&mut self) -> Result<Report, OpenError> {
        let Opened { store, report } = Store::open(self.disk.clone(), &self.options, self.clock)?;
        let state = state_of(&store)?;
        let found = self.states.iter().rposition(|candidate| *candidate == state);
        let found = found.unwrap_or_else(|| panic!("invented: {state:?}\n{report:?}"));
        assert!(
            found >= self.acknowledged,
            "lost: state {found} of {}, {} was promised; {report:?}",
            self.states.len() - 1,
            self.acknowledged
        );
        self.store = Some(store);
        self.job = None;
        self.states = vec![state];
        (self.acknowledged, self.committed) = (0, 0);
        self.frames = vec![(report.sequence, 0)];
        Ok(report)
    }

    /// One to five random changes.
    pub(crate) fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut state = self.states.last().unwrap().clone();
        for _ in 0..=self.random.below(5) {
            self.change(&mut batch, &mut state);
        }
        let alive: Vec<_> = state.values().filter_map(|record| record.1).collect();
        state.retain(|id, record| record.0 != BODY.number() || alive.contains(id));
        self.states.push(state);
        batch
    }

    fn change(&mut self, batch: &mut Batch, state: &mut State) {
        let ids: Vec<u64> = state
            .iter()
            .filter(|(_, record)| record.0 != BODY.number())
            .map(|(&id, _)| id)
            .collect();
        let some = ids.get(self.random.below(ids.len() as u64) as usize).copied();
        // Identifiers of two sources, whose upper bits differ.
        self.next_id += 1;
        let id = self.random.below(2) << 48 | self.next_id;
        let length = if self.random.below(40) == 0 {
            5000
        } else {
            self.random.below(120)
        };
        let bytes: Vec<u8> = (0..length).map(|_| self.random.next() as u8).collect();
        match (self.random.below(8), some) {
            (0..3, Some(old)) if ids.len() > 20 || self.random.below(3) == 0 => {
                batch.delete(old);
                state.remove(&old);
            }
            (3, Some(old)) => {
                batch.put(SINGLE, old, &bytes);
                state.insert(old, (SINGLE.number(), None, bytes));
            }
            (4, _) => {
                batch.put(SINGLE, id, &bytes);
                state.insert(id, (SINGLE.number(), None, bytes));
            }
            _ => {
                batch.body(BODY, id, &bytes);
                state.insert(id, (BODY.number(), None, bytes));
                for child in 0..1 + self.random.below(3) {
                    self.next_id += 1;
                    let bytes = vec![child as u8; self.random.below(20) as usize];
                    batch.child(CHILD, self.next_id, id, &bytes);
                    state.insert(self.next_id, (CHILD.number(), Some(id), bytes));
                }
            }
        }
    }

    /// One random step of a store's life.
    pub(crate) fn step(&mut self) -> Result<(), CommitError> {
        self.clock += 1;
        let action = self.random.below(10);
        let batch = (action < 5).then(|| self.batch());
        let store = self.store.as_mut().unwrap();
        match action {
            0..5 => {
                store.add(&batch.unwrap());
                if action < 4 {
                    let frame = store.commit(self.clock)?;
                    self.committed = self.states.len() - 1;
                    self.frames.push((frame, self.committed));
                }
            }
            5..7 if self.syncs_beside => match self.job.take() {
                None => self.job = store.sync_job().map(|job| (job, self.committed)),
                Some((job, committed)) => {
                    store.finished(job.frame(), job.run())?;
                    self.acknowledged = self.acknowledged.max(committed);
                }
            },
            5..7 => {
                store.sync()?;
                self.acknowledged = self.committed;
            }
            7 | 8 => store.tend(self.clock, action == 8)?,
            _ => store.mark(self.clock)?,
        }
        if store.added() == 0 && store.failure().is_none() {
            store.tend(self.clock, false)?;
            self.check_bound();
        }
        Ok(())
    }

    /// What the store says where this frame is the last.
    pub(crate) fn state_after(&self, frame: u64) -> &State {
        let known = self.frames.iter().rev().find(|(number, _)| *number <= frame);
        &self.states[known.expect("a frame from before the store was opened").1]
    }

    /// The disk is used within the bound.
    pub(crate) fn check_bound(&self) {
        let store = self.store.as_ref().unwrap();
        let (sizes, segment) = (store.sizes(), u64::from(self.options.segment_bytes));
        // A frame longer than a segment is a segment of its own.
        let bound = (8 * segment).max(2 * sizes.live_bytes + 4 * segment) + 2 * 6000;
        assert!(sizes.disk_bytes <= bound, "{sizes:?}");
        // A write that failed may have left a part of a frame behind the end.
        assert!(
            self.disk.used() <= sizes.disk_bytes + 6000,
            "{} {sizes:?}",
            self.disk.used()
        );
    }
}
