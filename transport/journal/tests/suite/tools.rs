//! Looking at a journal and saving it, while it is in use.

use sol_journal::{OnDamage, Opened, Snapshot, Store, backup, model::ModelDisk};

use crate::support::{BODY, CHILD, SINGLE, State, World, state_of};

fn records<D: sol_journal::Disk>(snapshot: &Snapshot<D>) -> State {
    let mut state = State::new();
    let collect = |record: sol_journal::RecordRef<'_>| {
        state.insert(record.id, (record.kind.number(), record.parent, record.bytes.to_vec()));
    };
    snapshot.for_each(|key| key.id, collect).unwrap();
    state
}

/// A journal in use is read, counted and handed out without being changed.
#[test]
fn a_journal_in_use_is_looked_at() {
    let mut world = World::new(50);
    world.open().unwrap();
    for _ in 0..200 {
        world.step().unwrap();
    }
    let store = world.store.as_mut().unwrap();
    store.commit(0).unwrap();
    let before: Vec<_> = (1..40).map(|n| world.disk.read(&format!("{n:016x}.seg"))).collect();
    let snapshot = Snapshot::read(world.disk.clone(), OnDamage::Refuse).unwrap();
    let state = world.states.last().unwrap();
    assert_eq!(records(&snapshot), *state);
    let stats = snapshot.stats();
    for kind in [BODY, CHILD, SINGLE] {
        let of_kind = || state.values().filter(|record| record.0 == kind.number());
        let told = stats.kinds.iter().find(|told| told.kind == kind).unwrap();
        assert_eq!(told.records, of_kind().count() as u64);
        assert_eq!(told.bytes, of_kind().map(|record| record.2.len() as u64).sum::<u64>());
    }
    assert_eq!(stats.live_bytes, world.store.as_ref().unwrap().sizes().live_bytes);
    let after: Vec<_> = (1..40).map(|n| world.disk.read(&format!("{n:016x}.seg"))).collect();
    assert_eq!(before, after);
}

/// A copy of a journal in use is one: it has what was durable, opens, and goes on.
#[test]
fn a_backup_is_a_journal() {
    for seed in 0..20 {
        let mut world = World::new(60 + seed);
        world.open().unwrap();
        for _ in 0..150 {
            world.step().unwrap();
        }
        let copy = ModelDisk::new(seed);
        let snapshot = backup(&world.disk, copy.clone()).unwrap();
        assert_eq!(records(&snapshot), world.states[world.committed]);
        let Opened { store, report } = Store::open(copy.cut(1), &world.options, 0).unwrap();
        assert_eq!(state_of(&store).unwrap(), world.states[world.committed]);
        assert_eq!(report.tail, None);
        let error = backup(&world.disk, copy).unwrap_err();
        assert!(error.to_string().starts_with("cannot make 00000000"), "{error}");
    }
}
