use std::rc::Rc;
use std::thread;

use sol_engine::{EngineConfig, Message, Record, Reference, ReferenceState, SessionRecord, ShardId};
use sol_journal::model::ModelDisk;
use sol_journal::{Kind, Mode, Options};

use super::*;
use crate::durable::ledger;
use crate::mailbox::Exchange;

const SEEDS: [u64; 4] = [5, 6, 7, 8];

fn id(shard: u64, count: u64) -> RecordId {
    RecordId(shard << RecordId::COUNT_BITS | count)
}

fn put(batch: &mut Batch, record: &Record) {
    ledger::put(batch, record, &mut Vec::new());
}

fn session(record: RecordId, client_id: &str) -> Record {
    let session = SessionRecord {
        client_id: client_id.to_owned(),
        username: None,
        vouched: false,
        granted: false,
        own_rules: false,
        listener: sol_engine::ListenerId(0),
        expiry_interval: 1_000,
        disconnected_at: None,
        will: None,
    };
    Record::Session(record, Box::new(session))
}

fn reference(record: RecordId, session: RecordId, body: RecordId) -> Record {
    let reference = Reference {
        session,
        body: Some(body),
        qos: sol_codec::QoS::AtLeastOnce,
        retain: false,
        subscription_ids: Box::default(),
        share: None,
        state: ReferenceState::Queued,
    };
    Record::Reference(record, reference)
}

fn body(record: RecordId, topic: &str) -> Record {
    Record::Body(record, Rc::new(Message::new(topic, b"payload", true)))
}

fn open(disk: ModelDisk) -> Durable<ModelDisk> {
    open_watched(disk, Watch::default())
}

fn open_watched(disk: ModelDisk, watch: Watch) -> Durable<ModelDisk> {
    let name = ["127.0.0.1:1883".to_owned()];
    let options = Options::default();
    Durable::open(disk, &options, Mode::Fsync, SEEDS, &name, Clock::start(), watch).unwrap()
}

/// Has a store's records handed to so many engines. Gives the identifiers that each got, in order, and the lowest free one.
fn handed_out(durable: Durable<ModelDisk>, shards: u16) -> Vec<(Vec<u64>, RecordId)> {
    let (exchange, _mailboxes) = Exchange::new(shards, 1 << 20, 1);
    let numbers = Arc::clone(durable.numbers());
    let (restorer, receivers) = Restorer::new(durable, shards);
    let takers: Vec<_> = (0..shards)
        .zip(receivers)
        .map(|(shard, receiver)| {
            let numbers = Arc::clone(&numbers);
            thread::spawn(move || {
                let config = EngineConfig {
                    shards,
                    journal: true,
                    ..EngineConfig::default()
                };
                let mut engine = Engine::new(ShardId(shard), Rc::new(config), SEEDS);
                let mut got = Vec::new();
                loop {
                    match receiver.recv().unwrap() {
                        Restored::Heap(heap) => {
                            heap.restore(&mut engine, &numbers).unwrap();
                            got.extend(heap.items.iter().map(|item| item.id));
                        }
                        Restored::Done { floor, .. } => return (got, floor),
                    }
                }
            })
        })
        .collect();
    let (writer, _) = restorer.run(exchange, Clock::start()).unwrap();
    let got = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
    writer.stop().unwrap();
    got
}

/// Each record comes to the shard that its client or topic is at home on, a body to all who refer to it and to nobody else,
/// and those of a Session in the order in which they were given out, whichever shard that was. What a Session has left that
/// has ended is gone, and stays gone.
#[test]
fn records_come_home() {
    let disk = ModelDisk::new(3);
    let mut durable = open(disk.clone());
    let mut batch = Batch::default();
    let names: Vec<_> = (0..20).map(|n| format!("client {n}")).collect();
    for (n, name) in (1..).zip(&names) {
        put(&mut batch, &session(id(n % 3, n), name));
    }
    put(&mut batch, &body(id(1, 100), "for all"));
    put(&mut batch, &body(id(2, 101), "retained"));
    for n in 1..=20 {
        // Two each, the later one with the smaller shard.
        put(&mut batch, &reference(id(2, 200 + n), id(n % 3, n), id(1, 100)));
        put(&mut batch, &reference(id(0, 300 + n), id(n % 3, n), id(1, 100)));
    }
    let retained = Record::Retained {
        id: id(0, 400),
        body: id(2, 101),
        author: None,
    };
    put(&mut batch, &retained);
    put(&mut batch, &reference(id(1, 500), id(1, 99), id(1, 100)));
    durable.store.add(&batch);
    durable.store.commit(1).unwrap();
    durable.store.sync().unwrap();
    let homes = Homes::new(SEEDS, 4);
    for (shard, (got, floor)) in (0..).map(ShardId).zip(handed_out(durable, 4)) {
        assert_eq!(floor, RecordId(500), "{shard:?}");
        let of_names = |n: &u64| homes.of_client(&names[*n as usize - 1]) == shard;
        let here: Vec<_> = (1..=20_u64).filter(of_names).collect();
        let mut expected: Vec<_> = here.iter().map(|n| id(n % 3, *n).0).collect();
        expected.extend((!here.is_empty()).then_some(id(1, 100).0));
        let keeps = homes.of_topic("retained") == shard;
        expected.extend(keeps.then_some(id(2, 101).0));
        expected.extend(keeps.then_some(id(0, 400).0));
        expected.extend(here.iter().map(|n| id(2, 200 + n).0));
        expected.extend(here.iter().map(|n| id(0, 300 + n).0));
        assert_eq!(got, expected, "{shard:?}");
    }
    let again: usize = handed_out(open(disk), 1).iter().map(|(got, _)| got.len()).sum();
    assert_eq!(again, 20 + 2 + 40 + 1);
}

/// Whoever waits for a start hears of the log as it is read, of every thousand records as it is found out where they belong,
/// and again as they are handed out: what is done never shrinks, and never exceeds what is to be done.
#[test]
fn a_start_says_how_far_it_is() {
    let disk = ModelDisk::new(5);
    let mut durable = open(disk.clone());
    let mut batch = Batch::default();
    for n in 1..=3_000 {
        put(&mut batch, &session(id(0, n), &format!("client {n}")));
    }
    durable.store.add(&batch);
    durable.store.commit(1).unwrap();
    durable.store.sync().unwrap();
    drop(durable);
    let told = Rc::new(std::cell::RefCell::new(Vec::new()));
    let telling = Rc::clone(&told);
    let watch = Watch::new(move |progress| telling.borrow_mut().push(progress));
    let durable = open_watched(disk, watch);
    let bytes = durable.report().bytes;
    handed_out(durable, 2);
    let placed = |records| Progress::Placed { records };
    // What the store says of itself is one more.
    let restored = |records| Progress::Restored { records, of: 3_001 };
    let told = told.borrow();
    let read: Vec<_> = told
        .iter()
        .take_while(|told| matches!(told, Progress::Log(sol_journal::Progress::Read { .. })))
        .collect();
    assert_eq!(
        read.last(),
        Some(&&Progress::Log(sol_journal::Progress::Read { bytes, of: bytes }))
    );
    assert_eq!(
        told[read.len()..],
        [placed(1_024), placed(2_048), restored(1_024), restored(2_048)]
    );
}

/// The key of the hashes is the store's own, whatever it is opened with; and what is none of the engine's records is refused.
#[test]
fn a_store_is_what_it_was() {
    let disk = ModelDisk::new(4);
    drop(open(disk.clone()));
    let mut durable = Durable::open(
        disk,
        &Options::default(),
        Mode::Os,
        [0; 4],
        &[],
        Clock::start(),
        Watch::default(),
    )
    .unwrap();
    assert_eq!(durable.seeds(), SEEDS);
    let mut batch = Batch::default();
    batch.put(Kind::new(7), 9, b"\x01");
    durable.store.add(&batch);
    durable.store.commit(1).unwrap();
    let (exchange, _mailboxes) = Exchange::new(1, 1 << 20, 1);
    let (restorer, _receivers) = Restorer::new(durable, 1);
    let error = restorer.run(exchange, Clock::start()).unwrap_err().to_string();
    assert_eq!(
        error,
        "record 0x9 was written by a later version: use that version, or a later one"
    );
}
