//! From the store to the shards: each gets the records that are at home with it, in the order that its engine wants.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use sol_engine::{Belongs, Engine, Homes, PayloadError, Record, RecordId, ShardId};
use sol_journal::{Batch, CommitError, Disk, Handle, RecordKey, RecordRef, Store, Writer, WriterOptions};

use super::{Durable, DurableError, Numbers, Posts, Progress, Watch};
use crate::clock::Clock;
use crate::mailbox::Exchange;

/// Records are handed over by so many bytes, and so many such heaps wait for a shard.
const HEAP_BYTES: usize = 64 << 10;
const HEAPS_MAX: usize = 4;

/// What decides where others go.
const DECIDING: u32 = 1 << Record::SESSION | 1 << Record::RETAINED | 1 << Record::REFERENCE;
/// All kinds but the store's own: one that is not known is refused.
const ALL: u32 = !1;

/// After so many records it is said how far it is.
const TOLD_EVERY: u64 = 1 << 10;

/// What may wait in the journal's queue.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// What a shard begins with.
#[derive(Debug)]
pub(crate) enum Restored {
    /// Records, in order.
    Heap(Heap),
    /// That was all.
    Done {
        /// No identifier up to this one is free.
        floor: RecordId,
        /// What the shard writes through.
        handle: Handle,
    },
}

/// Records one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    kind: u8,
    id: u64,
    parent: Option<u64>,
    end: usize,
}

impl Heap {
    fn push(&mut self, record: &RecordRef<'_>) {
        self.bytes.extend_from_slice(record.bytes);
        self.items.push(Item {
            kind: record.kind.number(),
            id: record.id,
            parent: record.parent,
            end: self.bytes.len(),
        });
    }

    /// Gives an engine all of them.
    ///
    /// # Errors
    /// One is none of this program's, or does not belong to the others.
    pub(crate) fn restore(&self, engine: &mut Engine, numbers: &Numbers) -> Result<(), DurableError> {
        let mut begin = 0;
        for item in &self.items {
            let id = RecordId(item.id);
            let bytes = self.bytes.get(begin..item.end).unwrap_or_default();
            begin = item.end;
            let mut record = Record::decode(id, item.kind, item.parent.map(RecordId), bytes)
                .map_err(|error| DurableError::Record(id, error))?;
            record.renumber_listener(|listener| numbers.in_configuration(listener));
            engine
                .restore(record)
                .map_err(|error| DurableError::Restore(id, error))?;
        }
        Ok(())
    }
}

/// Hands a store's records out.
pub(crate) struct Restorer<D: Disk> {
    durable: Durable<D>,
    shards: Vec<Sender<Restored>>,
}

/// What is known of records while they are handed out.
struct Plan {
    homes: Homes,
    /// Where each Session is at home.
    sessions: HashMap<u64, ShardId>,
    /// The shards of the Sessions that are owed a body, as bits, and whether it is retained.
    bodies: HashMap<u64, (u64, bool)>,
    /// Where each retained body is at home.
    topics: HashMap<u64, ShardId>,
    /// Records of Sessions that have ended, which a crash has left.
    orphans: Vec<u64>,
    highest: u64,
}

impl<D: Disk> Restorer<D> {
    /// For so many shards, and what each of them hears.
    pub(crate) fn new(durable: Durable<D>, shards: u16) -> (Self, Vec<Receiver<Restored>>) {
        let (senders, receivers) = (0..shards).map(|_| bounded(HEAPS_MAX)).unzip();
        let shards = senders;
        (Self { durable, shards }, receivers)
    }

    /// Hands all of them out, and starts the thread that writes from now on. Whoever hears how far it is is given back.
    ///
    /// # Errors
    /// The store cannot be read, holds what it should not, or the system has no thread for it.
    pub(crate) fn run(self, exchange: Arc<Exchange>, clock: Clock) -> Result<(Writer, Watch), DurableError> {
        let Self { durable, shards } = self;
        let Durable {
            mut store,
            mode,
            about,
            mut watch,
            ..
        } = durable;
        let mut plan = Plan {
            homes: Homes::new(about.seeds, shards.len() as u16),
            sessions: HashMap::new(),
            bodies: HashMap::new(),
            topics: HashMap::new(),
            orphans: Vec::new(),
            highest: 0,
        };
        let mut fault = None;
        let mut records = 0;
        store.for_each_of(DECIDING, order, |record| {
            records += 1;
            if records % TOLD_EVERY == 0 {
                watch.tell(Progress::Placed { records });
            }
            if let Err(error) = plan.look_at(&record) {
                fault.get_or_insert(error);
            }
        })?;
        if let Some(fault) = fault.take() {
            return Err(fault);
        }
        let mut heaps: Vec<Heap> = shards.iter().map(|_| Heap::default()).collect();
        records = 0;
        let of = store.sizes().live_records;
        store.for_each_of(ALL, order, |record| {
            records += 1;
            if records % TOLD_EVERY == 0 {
                watch.tell(Progress::Restored { records, of });
            }
            match plan.homes_of(&record) {
                Ok(homes) => hand_out(&mut heaps, &shards, homes, &record),
                Err(error) => {
                    fault.get_or_insert(error);
                }
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        let now = clock.now().wall.as_millis();
        forget_orphans(&mut store, &plan.orphans, now)?;
        let options = WriterOptions {
            mode,
            sources: shards.len() as u16,
            queue_bytes_max: QUEUE_BYTES_MAX,
        };
        let writer = Writer::start(store, options, Posts(exchange), Arc::new(clock)).map_err(DurableError::System)?;
        for (heap, shard) in heaps.into_iter().zip(&shards) {
            // One that has died meanwhile is missed by whoever waits for it.
            let _ = shard.send(Restored::Heap(heap));
            let _ = shard.send(Restored::Done {
                floor: RecordId(plan.highest),
                handle: writer.handle(),
            });
        }
        Ok((writer, watch))
    }
}

/// Older ones first: those of one Session were given out by one shard, and count up.
const fn order(key: RecordKey) -> u64 {
    key.id & RecordId::COUNT
}

const fn bit(shard: ShardId) -> u64 {
    1 << shard.0
}

impl Plan {
    /// Looks at what decides where others go.
    fn look_at(&mut self, record: &RecordRef<'_>) -> Result<(), DurableError> {
        let belongs = belongs(record)?;
        match (belongs, record.parent) {
            (Belongs::ToClient(client_id), _) => {
                self.sessions.insert(record.id, self.homes.of_client(client_id));
            }
            (Belongs::ToSession(session), Some(body)) => {
                if let Some(&home) = self.sessions.get(&session.0) {
                    self.bodies.entry(body).or_default().0 |= bit(home);
                }
            }
            (Belongs::ToBody, Some(body)) => self.bodies.entry(body).or_default().1 = true,
            _ => {}
        }
        Ok(())
    }

    /// The shards that get a record, as bits.
    fn homes_of(&mut self, record: &RecordRef<'_>) -> Result<u64, DurableError> {
        self.highest = self.highest.max(record.id & RecordId::COUNT);
        Ok(match belongs(record)? {
            Belongs::ToClient(_) => self.sessions.get(&record.id).copied().map_or(0, bit),
            Belongs::ToTopic(topic) => {
                let (mut homes, is_retained) = self.bodies.get(&record.id).copied().unwrap_or_default();
                if is_retained {
                    let home = self.homes.of_topic(topic);
                    self.topics.insert(record.id, home);
                    homes |= bit(home);
                }
                homes
            }
            Belongs::ToBody => {
                let home = record.parent.and_then(|body| self.topics.get(&body));
                home.copied().map_or(0, bit)
            }
            Belongs::ToSession(session) => match self.sessions.get(&session.0) {
                Some(&home) => bit(home),
                None => {
                    self.orphans.push(record.id);
                    0
                }
            },
        })
    }
}

fn belongs<'a>(record: &RecordRef<'a>) -> Result<Belongs<'a>, DurableError> {
    let fault = |error: PayloadError| DurableError::Record(RecordId(record.id), error);
    Belongs::of(record.kind.number(), record.bytes).map_err(fault)
}

fn hand_out(heaps: &mut [Heap], shards: &[Sender<Restored>], homes: u64, record: &RecordRef<'_>) {
    for (at, (heap, shard)) in heaps.iter_mut().zip(shards).enumerate() {
        if homes >> at & 1 == 0 {
            continue;
        }
        heap.push(record);
        if heap.bytes.len() >= HEAP_BYTES {
            // One that has died meanwhile is missed by whoever waits for it.
            let _ = shard.send(Restored::Heap(std::mem::take(heap)));
        }
    }
}

/// A Session ended and the process was killed before all that it had was deleted too.
fn forget_orphans<D: Disk>(store: &mut Store<D>, orphans: &[u64], now: u64) -> Result<(), DurableError> {
    if orphans.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for &id in orphans {
        batch.delete(id);
    }
    store.add(&batch);
    match store.commit(now) {
        Ok(_) | Err(CommitError::Full) => Ok(()),
        Err(error) => Err(DurableError::Write(error)),
    }
}

#[cfg(test)]
mod tests;
