//! I13: a twin of every engine hears the same, and besides a client that breaks every rule. To nobody else may that make a
//! difference: after each call both trays say the same.
//!
//! The order in which a fan-out comes to Sessions is that of their places in a table, and not promised to anybody. So
//! that it is the same in both, the rude client's Session is the first one and never ends.

use std::mem::{Discriminant, discriminant};
use std::num::NonZeroU32;
use std::rc::Rc;

use sol_codec::{
    Connect, ConnectProperties, DecodeLimits, Direction, Packet, PacketId, ProtocolVersion, PubAck, PubRec, PubRel,
    Publish, PublishProperties, QoS, TopicAlias, TopicName, decode,
};
use sol_engine::{
    ConnectionId, Effects, Engine, EngineConfig, Input, ListenerId, Now, Record, ShardId, ShardMessage, Transmit,
    Unrest,
};

use super::observe::digest;
use crate::rng::Rng;
use crate::violation::{Verdict, ensure};

/// The rude client does something before one call of so many.
const RUDE_ONCE_IN: usize = 20;
/// Slots of its connections: nobody else comes so far.
const SLOT: u32 = 1 << 20;
/// Its topic: no filter of others matches it.
const TOPIC: &str = "$rude/a";

/// What clients are sent since, as they see it.
fn said(transmits: &[Transmit], since: usize) -> Vec<(ConnectionId, Vec<u8>)> {
    let new = transmits.iter().skip(since);
    let bytes = |transmit: &Transmit| {
        let mut bytes = Vec::new();
        let packet = &transmit.packet;
        packet.with_packet(|packet| packet.encode(ProtocolVersion::V5, &mut bytes));
        (transmit.connection, bytes)
    };
    new.map(bytes).collect()
}

/// What kinds of records are written since. Their names may be others.
fn written(records: &[Record], since: usize) -> Vec<Discriminant<Record>> {
    records.iter().skip(since).map(discriminant).collect()
}

/// What other shards are told since.
fn told(forwards: &[(ShardId, ShardMessage)], since: usize) -> Vec<(ShardId, u64)> {
    let new = forwards.iter().skip(since);
    new.map(|(to, message)| (*to, digest(message))).collect()
}

/// See the [module](self).
pub(super) struct Twin {
    shards: Vec<Shard>,
    rng: Rng,
    /// Connections that the rude client has had.
    tenants: u32,
}

struct Shard {
    engine: Engine,
    tray: Effects,
    /// How many of the packets, forwards and records in the tray have been compared.
    seen: (usize, usize, usize),
    /// The rude client's connection and tray.
    rude: Option<ConnectionId>,
    has_begun: bool,
    rude_tray: Effects,
}

impl Twin {
    pub(super) fn new(seed: u64, config: &Rc<EngineConfig>, seeds: [u64; 4]) -> Self {
        let shard = |n| Shard {
            engine: Engine::new(ShardId(n), Rc::clone(config), seeds),
            tray: Effects::default(),
            seen: (0, 0, 0),
            rude: None,
            has_begun: false,
            rude_tray: Effects::default(),
        };
        Self {
            shards: (0..config.shards).map(shard).collect(),
            rng: Rng::named(seed, "rude"),
            tenants: 0,
        }
    }

    /// The same call as the engine's own. `None` is a tick.
    pub(super) fn follow(&mut self, shard: usize, now: Now, input: Option<Input<'_>>) -> Verdict {
        let begins = !std::mem::replace(&mut self.shards[shard].has_begun, true);
        if begins || self.rng.once_in(RUDE_ONCE_IN) {
            self.be_rude(shard, now)?;
        }
        let Shard { engine, tray, .. } = &mut self.shards[shard];
        match input {
            Some(input) => {
                // Where it goes on is the engine's own to say.
                let _ = engine.handle(now, input, tray);
            }
            None => engine.tick(now, tray),
        }
        Ok(())
    }

    /// Holds what both have said since against each other.
    pub(super) fn agrees(&mut self, shard: usize, tray: &Effects) -> Verdict {
        let Shard { tray: mine, seen, .. } = &mut self.shards[shard];
        let (packets, forwards, records) = *seen;
        let same = said(&mine.transmits, packets) == said(&tray.transmits, packets)
            && told(&mine.forwards, forwards) == told(&tray.forwards, forwards)
            && written(&mine.records, records) == written(&tray.records, records)
            && mine.events == tray.events
            && mine.closes == tray.closes
            && mine.reads == tray.reads
            && mine.moves.len() == tray.moves.len();
        *seen = (mine.transmits.len(), mine.forwards.len(), mine.records.len());
        ensure(same, "I13", || {
            format!("a rude client makes a difference to others: {mine:?} and {tray:?}")
        })
    }

    /// The tray was applied.
    pub(super) fn flushed(&mut self, shard: usize) {
        let shard = &mut self.shards[shard];
        shard.tray.clear();
        shard.seen = (0, 0, 0);
    }

    fn be_rude(&mut self, shard: usize, now: Now) -> Verdict {
        let Some(id) = self.shards[shard].rude else {
            return self.connect(shard, now);
        };
        // What it publishes into a line takes one of the line's turns, as anybody's message does.
        let Unrest { fanout, line, .. } = self.shards[shard].engine.unrest();
        let deed = self.rng.below(10);
        if (fanout || line > 0) && deed <= 3 {
            return Ok(());
        }
        let packet_id = PacketId::new(1 + self.rng.below(30) as u16);
        let (Some(packet_id), Ok(topic)) = (packet_id, TopicName::new(TOPIC)) else {
            return Ok(());
        };
        let qos = if deed == 0 { QoS::AtMostOnce } else { QoS::ExactlyOnce };
        let publish = Publish {
            dup: self.rng.once_in(2),
            qos,
            retain: false,
            topic: Some(topic),
            packet_id: (qos > QoS::AtMostOnce).then_some(packet_id),
            properties: PublishProperties {
                topic_alias: if deed == 1 { TopicAlias::new(65_535) } else { None },
                ..PublishProperties::default()
            },
            payload: b"rude",
        };
        let input = match deed {
            0..=3 => Packet::Publish(publish),
            4 => Packet::PubAck(PubAck::success(packet_id)),
            5 => Packet::PubRec(PubRec::success(packet_id)),
            6 => Packet::PubRel(PubRel::success(packet_id)),
            7 => return self.end(shard, now, Input::Fault(id)),
            8 => return self.end(shard, now, Input::Closed(id)),
            _ => {
                let limits = DecodeLimits {
                    direction: Direction::FromClient,
                    ..DecodeLimits::default()
                };
                return match decode(&[0, 0], ProtocolVersion::V5, &limits) {
                    Err(error) => self.end(shard, now, Input::Malformed(id, error)),
                    Ok(_) => Ok(()),
                };
            }
        };
        self.tell(shard, now, Input::Packet(id, &input))
    }

    fn connect(&mut self, shard: usize, now: Now) -> Verdict {
        self.tenants += 1;
        let id = ConnectionId::new(SLOT, NonZeroU32::MIN.saturating_add(self.tenants));
        let names = (0..).map(|n| format!("rude {n}"));
        let engine = &self.shards[shard].engine;
        let Some(client_id) = names.take(1_000).find(|name| engine.is_home_of_client(name)) else {
            return Ok(());
        };
        let listener = ListenerId(0);
        self.tell(
            shard,
            now,
            Input::Opened {
                connection: id,
                listener,
            },
        )?;
        let connect = Packet::Connect(Connect {
            clean_start: false,
            properties: ConnectProperties {
                session_expiry_interval: Some(u32::MAX),
                ..ConnectProperties::default()
            },
            ..Connect::new(ProtocolVersion::V5, &client_id)
        });
        self.shards[shard].rude = Some(id);
        self.tell(shard, now, Input::Packet(id, &connect))
    }

    fn end(&mut self, shard: usize, now: Now, input: Input<'_>) -> Verdict {
        self.tell(shard, now, input)?;
        self.shards[shard].rude = None;
        Ok(())
    }

    /// The rude client's own call: nothing follows from it but to itself.
    fn tell(&mut self, shard: usize, now: Now, input: Input<'_>) -> Verdict {
        let Shard {
            engine,
            rude_tray: tray,
            rude,
            ..
        } = &mut self.shards[shard];
        let _ = engine.handle(now, input, tray);
        let to_others = tray
            .transmits
            .iter()
            .any(|transmit| transmit.connection.slot() != SLOT as usize)
            || tray.closes.iter().any(|close| close.connection.slot() != SLOT as usize);
        let contained = !to_others && tray.forwards.is_empty() && tray.records.is_empty();
        if !tray.closes.is_empty() {
            *rude = None;
        }
        ensure(contained, "I13", || {
            format!("what a rude client does reaches others: {tray:?}")
        })?;
        tray.clear();
        Ok(())
    }
}
