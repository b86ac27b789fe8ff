//! What a journal would have kept, as a map.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sol_engine::{Engine, Message, Record, RecordId, Reference, SessionRecord, SubscriptionRecord};

/// Live records by identifier, each with the number of the put that made it.
#[derive(Clone, Default)]
pub struct Store {
    live: BTreeMap<RecordId, (u64, Record)>,
    puts: u64,
}

impl Store {
    pub fn apply(&mut self, records: &[Record]) {
        for record in records {
            self.puts += 1;
            if let Record::Delete(id) = record {
                self.live.remove(id);
                continue;
            }
            // Replacing a record keeps its place: the order of references is the order of their first put.
            let order = self.live.get(&record.id()).map_or(self.puts, |(order, _)| *order);
            self.live.insert(record.id(), (order, record.clone()));
        }
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

    /// Hands the records out to engines: a Session and what belongs to it to its home, a retained message to its topic's.
    pub fn restore(&self, engines: &mut [Engine]) {
        let mut homes: BTreeMap<RecordId, usize> = BTreeMap::new();
        let mut bodies: BTreeMap<RecordId, Rc<Message>> = BTreeMap::new();
        for record in self.records() {
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
