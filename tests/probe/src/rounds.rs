//! Rounds that a broker whose shards do not wait for each other loses now and then.
//!
//! *Subscribe*: one connection subscribes to a filter that nobody had before, and as soon as its SUBACK has come another
//! one, on another shard, publishes to it. The message must arrive. *Retained*: one connection publishes a retained
//! message, and as soon as its PUBACK has come another one, on another shard, subscribes to it. It must be replayed.

use std::io;
use std::net::SocketAddr;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use sol_codec::{Packet, PacketId, ProtocolVersion, PubAck, QoS};

use crate::client::{Client, is_timeout, packet_id};
use crate::load::Load;
use crate::shards::Homes;

/// How long a message may take before it counts as missing.
const MISSING_AFTER: Duration = Duration::from_secs(10);

/// What a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Interest must be known everywhere when SUBACK comes.
    Subscribe,
    /// What is retained must be there for everybody when PUBACK comes.
    Retained,
}

/// How many rounds of how many at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) broker: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) mode: Mode,
    /// All together.
    pub(crate) rounds: u64,
    /// Pairs of connections that take rounds at the same time.
    pub(crate) probers: usize,
    /// Busy pairs for each shard.
    pub(crate) load: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) shards: usize,
    pub(crate) rounds: u64,
    pub(crate) missing: u64,
    pub(crate) elapsed: Duration,
    /// Messages of the load meanwhile.
    pub(crate) load: u64,
}

/// Takes the rounds.
pub(crate) fn run(options: Options) -> io::Result<Outcome> {
    let mut homes = Homes::new(options.broker, options.metrics, "probe")?;
    let shards = homes.shards();
    let mut probers = Vec::new();
    for n in 0..options.probers.max(1) {
        let mut connect = |shard: usize| {
            let name = homes.name(shard % shards)?;
            let client = Client::connect(options.broker, ProtocolVersion::V5, &name)?;
            client.set_read_timeout(MISSING_AFTER)?;
            Ok::<_, io::Error>(client)
        };
        let pair = [connect(n)?, connect(n + 1)?];
        let id = n as u64;
        probers.push(Prober { id, pair, round: 0 });
    }
    let load = Load::start(&mut homes, options.broker, options.load)?;
    let count = probers.len() as u64;
    let begin = Instant::now();
    let threads: Vec<_> = probers
        .into_iter()
        .map(|mut prober| {
            let rounds = options.rounds / count + u64::from(prober.id < options.rounds % count);
            thread::spawn(move || prober.take(options.mode, rounds))
        })
        .collect();
    let mut missing = 0;
    for thread in threads {
        missing += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(Outcome {
        shards,
        rounds: options.rounds,
        missing,
        elapsed: begin.elapsed(),
        load: load.end()?,
    })
}

/// Two connections that are at home on two shards, where there are two.
#[derive(Debug)]
struct Prober {
    id: u64,
    pair: [Client; 2],
    round: u64,
}

impl Prober {
    /// Takes rounds; how many messages were missing.
    fn take(&mut self, mode: Mode, rounds: u64) -> io::Result<u64> {
        let mut missing = 0;
        for _ in 0..rounds {
            self.round += 1;
            let has_come = match mode {
                Mode::Subscribe => self.subscribe(),
                Mode::Retained => self.retained(),
            }?;
            missing += u64::from(!has_come);
        }
        for client in &mut self.pair {
            // With what the last round left to be sent.
            client.ping()?;
        }
        Ok(missing)
    }

    /// A topic of this round, and a filter for it: exact in one round, with a wildcard in the next.
    fn names(&self) -> (String, String) {
        let (id, round) = (self.id, self.round);
        let topic = format!("probe/{id}/{round}/x");
        let filter = match round % 4 {
            1 => format!("probe/{id}/{round}/+"),
            3 => format!("probe/{id}/{round}/#"),
            _ => topic.clone(),
        };
        (topic, filter)
    }

    /// Both connections take both parts, in turn.
    const fn parts(&mut self) -> (&mut Client, &mut Client) {
        let [one, other] = &mut self.pair;
        if (self.round / 4).is_multiple_of(2) {
            (one, other)
        } else {
            (other, one)
        }
    }

    fn subscribe(&mut self) -> io::Result<bool> {
        let (round, (topic, filter)) = (self.round, self.names());
        let qos = if (round / 2).is_multiple_of(2) {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        let id = packet_id(round);
        let (subscriber, publisher) = self.parts();
        subscriber.subscribe(id, slice::from_ref(&filter), qos)?;
        publisher.queue_publish(
            &topic,
            &round.to_be_bytes(),
            qos,
            (qos > QoS::AtMostOnce).then_some(id),
            false,
        )?;
        publisher.flush()?;
        let has_come = arrives(subscriber, &topic, round)?;
        subscriber.queue_unsubscribe(id, &filter)?;
        Ok(has_come)
    }

    fn retained(&mut self) -> io::Result<bool> {
        let (round, (topic, filter)) = (self.round, self.names());
        let id = packet_id(2 * round);
        let (publisher, subscriber) = self.parts();
        publisher.queue_publish(&topic, &round.to_be_bytes(), QoS::AtLeastOnce, Some(id), true)?;
        publisher.flush()?;
        publisher.await_packet(|packet| match packet {
            Packet::PubAck(puback) if puback.packet_id == id => Some(()),
            _ => None,
        })?;
        subscriber.queue_subscribe(id, slice::from_ref(&filter), QoS::AtLeastOnce)?;
        subscriber.flush()?;
        let has_come = arrives(subscriber, &topic, round)?;
        subscriber.queue_unsubscribe(id, &filter)?;
        subscriber.flush()?;
        subscriber.await_packet(|packet| matches!(packet, Packet::UnsubAck(_)).then_some(()))?;
        // Cleared, so that what is kept does not grow with the rounds.
        publisher.queue_publish(&topic, &[], QoS::AtLeastOnce, Some(packet_id(2 * round + 1)), true)?;
        Ok(has_come)
    }
}

/// Waits for a round's message, and acknowledges it with what is sent next.
fn arrives(client: &mut Client, topic: &str, round: u64) -> io::Result<bool> {
    let arrived = client.await_packet(|packet| match packet {
        Packet::Publish(publish) => {
            let is_it = publish.topic.is_some_and(|name| name.as_str() == topic);
            (is_it && publish.payload == round.to_be_bytes()).then_some(publish.packet_id)
        }
        _ => None,
    });
    match arrived {
        Ok(packet_id) => {
            acknowledge(client, packet_id);
            Ok(true)
        }
        Err(error) if is_timeout(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn acknowledge(client: &mut Client, packet_id: Option<PacketId>) {
    if let Some(packet_id) = packet_id {
        client.queue(&Packet::PubAck(PubAck::success(packet_id)));
    }
}
