//! What a journal would have kept, as a map.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sol_engine::{Engine, Message, Record, RecordId, Reference, ReferenceState, SessionRecord, SubscriptionRecord};

/// Live records by identifier, each with the number of the put that made it.
#[derive(Clone, Default)]
pub struct Store {
    live: BTreeMap<RecordId, (u64, Record)>,
    puts: u64,
    /// Identifiers that were deleted: none of them may ever be put again.
    dead: BTreeSet<RecordId>,
    /// What it said after each commit, since it was watched.
    history: Option<Vec<Vec<String>>>,
}

impl Store {
    /// Applies one commit. A body that nothing points at afterwards is gone, as it is from a journal that reclaims space.
    pub fn apply(&mut self, records: &[Record]) {
        for record in records {
            self.puts += 1;
            if let Record::Delete(id) = record {
                self.live.remove(id);
                self.dead.insert(*id);
                continue;
            }
            let id = record.id();
            assert!(!self.dead.contains(&id), "{id:?} was deleted and is put again");
            if let Some((_, old)) = self.live.get(&id) {
                let same = std::mem::discriminant(old) == std::mem::discriminant(record);
                assert!(same, "{id:?} was {old:?} and becomes {record:?}");
            }
            // Replacing a record keeps its place: the order of references is the order of their first put.
            let order = self.live.get(&record.id()).map_or(self.puts, |(order, _)| *order);
            let copy = match record {
                // What is written is a copy: the engine's own message is charged until the last hold of it goes.
                Record::Body(id, message) => Record::Body(*id, Rc::new(message.exact())),
                other => other.clone(),
            };
            self.live.insert(id, (order, copy));
        }
        if !records.is_empty() {
            let referenced = self.referenced();
            self.live
                .retain(|id, (_, record)| !matches!(record, Record::Body(..)) || referenced.contains(id));
            if let Some(mut history) = self.history.take() {
                history.push(self.facts());
                self.history = Some(history);
            }
        }
    }

    /// Remembers from now on what it says after each commit.
    pub fn watch(&mut self) {
        self.history = Some(Vec::new());
    }

    /// What it said after each commit.
    pub fn take_history(&mut self) -> Vec<Vec<String>> {
        self.history.take().unwrap_or_default()
    }

    /// The live records with identifiers replaced by what they stand for, sorted: two stores that say the same are equal.
    pub fn facts(&self) -> Vec<String> {
        let records = self.records();
        let mut names: BTreeMap<RecordId, String> = BTreeMap::new();
        for record in &records {
            let name = match record {
                Record::Session(_, session) => session.client_id.clone(),
                Record::Body(_, message) => format!(
                    "{} {:?} q{} {} {:?}",
                    message.topic(),
                    String::from_utf8_lossy(message.payload()),
                    message.qos as u8,
                    message.retain,
                    message.expires_at,
                ),
                _ => continue,
            };
            names.insert(record.id(), name);
        }
        let mut places: BTreeMap<RecordId, usize> = BTreeMap::new();
        let mut facts: Vec<String> = records
            .iter()
            .filter_map(|record| match record {
                Record::Session(_, session) => Some(format!(
                    "session {} {:?} {}{}",
                    session.client_id,
                    session.username,
                    session.expiry_interval,
                    // What the Will says is the engine's own.
                    if format!("{session:?}").contains("will: Some") {
                        " will"
                    } else {
                        ""
                    },
                )),
                Record::Subscription(_, subscription) => Some(format!(
                    "subscription {} {} {:x} {:?}",
                    names[&subscription.session],
                    subscription.filter,
                    subscription.options,
                    subscription.subscription_id
                )),
                Record::Retained { body, .. } => Some(format!("retained {}", names[body])),
                Record::Reference(_, reference) => {
                    let place = places.entry(reference.session).or_default();
                    *place += 1;
                    // Identifiers of what is new are free to differ.
                    let state = match reference.state {
                        ReferenceState::Queued => "queued",
                        ReferenceState::Sent(_) => "sent",
                        ReferenceState::Released(_) => "released",
                    };
                    Some(format!(
                        "reference {} {:03} {:?} {:?} {} {:?} {:?} {}",
                        names[&reference.session],
                        place,
                        reference.body.map(|body| &names[&body]),
                        reference.qos,
                        reference.retain,
                        reference.subscription_ids,
                        reference.share,
                        state
                    ))
                }
                Record::Inbound { session, packet_id, .. } => {
                    Some(format!("inbound {} {}", names[session], packet_id.get()))
                }
                Record::Body(..) | Record::Delete(_) => None,
            })
            .collect();
        facts.sort();
        facts
    }

    /// Bodies live while something points at them.
    fn referenced(&self) -> BTreeSet<RecordId> {
        let body = |record: &Record| match record {
            Record::Retained { body, .. } => Some(*body),
            Record::Reference(_, Reference { body, .. }) => *body,
            _ => None,
        };
        self.live.values().filter_map(|(_, record)| body(record)).collect()
    }

    /// The live records in the order in which they are restored.
    pub fn records(&self) -> Vec<Record> {
        let referenced = self.referenced();
        let kind = |record: &Record| match record {
            Record::Session(..) => 0,
            Record::Subscription(..) => 1,
            Record::Body(..) => 2,
            Record::Retained { .. } => 3,
            Record::Reference(..) => 4,
            Record::Inbound { .. } => 5,
            Record::Delete(_) => 6,
        };
        let mut records: Vec<_> = self
            .live
            .values()
            .filter(|(_, record)| !matches!(record, Record::Body(id, _) if !referenced.contains(id)))
            .collect();
        records.sort_by_key(|(order, record)| (kind(record), *order));
        records.into_iter().map(|(_, record)| record.clone()).collect()
    }

    /// Another process goes on. What it writes comes later in the log, so it may use identifiers that are dead by now.
    pub fn next_process(&mut self) {
        self.dead.clear();
    }

    /// Hands the records out to engines: a Session and what belongs to it to its home, a retained message to its topic's.
    pub fn restore(&self, engines: &mut [Engine]) {
        let mut homes: BTreeMap<RecordId, usize> = BTreeMap::new();
        let mut bodies: BTreeMap<RecordId, Rc<Message>> = BTreeMap::new();
        for record in self.records() {
            engines.iter_mut().for_each(|engine| engine.note_record_id(record.id()));
            let owner = match &record {
                Record::Session(id, session) => {
                    let SessionRecord { client_id, .. } = &**session;
                    let home = engines
                        .iter()
                        .position(|engine| engine.is_home_of_client(client_id))
                        .unwrap();
                    homes.insert(*id, home);
                    homes[id]
                }
                Record::Subscription(_, subscription) => {
                    let SubscriptionRecord { session, .. } = **subscription;
                    homes[&session]
                }
                Record::Reference(_, reference) => homes[&reference.session],
                Record::Inbound { session, .. } => homes[session],
                Record::Body(id, message) => {
                    bodies.insert(*id, Rc::clone(message));
                    // Each engine takes the bodies that it refers to.
                    for engine in engines.iter_mut() {
                        engine.restore(record.clone()).unwrap();
                    }
                    continue;
                }
                Record::Retained { body, .. } => {
                    let topic = bodies[body].topic().to_owned();
                    engines
                        .iter()
                        .position(|engine| engine.is_home_of_topic(&topic))
                        .unwrap()
                }
                Record::Delete(_) => unreachable!("the store has no deletions"),
            };
            engines[owner].restore(record).unwrap();
        }
    }
}
