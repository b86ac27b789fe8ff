//! Clients that have no part in the pressure, and measure what they feel of it.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sol_codec::{Packet, PubAck, QoS};

use super::Stage;
use super::flow::Account;
use crate::client::{Client, packet_id};

/// How often each measures.
const EVERY: Duration = Duration::from_millis(20);

/// What was measured, in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    sender: Sender<Sample>,
    samples: Arc<Mutex<Receiver<Sample>>>,
}

/// What took so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A PINGREQ's answer.
    Ping {
        /// By the shard that cannot keep up.
        is_slow: bool,
    },
    /// A message from one shard to another.
    Message {
        /// To the shard that cannot keep up: it waits in the mailbox behind what came before.
        is_slow: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    kind: Kind,
    is_before: bool,
    micros: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let (sender, samples) = channel();
        Self {
            sender,
            samples: Arc::new(Mutex::new(samples)),
        }
    }
}

/// p50, p99 and the largest of each kind, in microseconds: before the pressure, and since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    /// Of a PINGREQ.
    pub(crate) ping: [[u64; 3]; 2],
    /// Of a message between shards.
    pub(crate) message: [[u64; 3]; 2],
    /// The same at the shard that cannot keep up.
    pub(crate) slow_ping: [[u64; 3]; 2],
    /// The same to the shard that cannot keep up.
    pub(crate) slow_message: [[u64; 3]; 2],
}

impl Latencies {
    fn add(&self, kind: Kind, stage: &Stage, began: Instant) {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let sample = Sample {
            kind,
            is_before: stage.is_before(),
            micros,
        };
        // Both ends live in this value.
        let _ = self.sender.send(sample);
    }

    /// What has come so far.
    pub(super) fn summary(&self) -> Summary {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let samples: Vec<Sample> = samples.try_iter().collect();
        let of = |kind: Kind| {
            [true, false].map(|is_before| {
                let meant = |sample: &&Sample| sample.kind == kind && sample.is_before == is_before;
                let mut micros: Vec<u64> = samples.iter().filter(meant).map(|sample| sample.micros).collect();
                micros.sort_unstable();
                let at =
                    |percent: usize| micros.get((micros.len() * percent / 100).min(micros.len().saturating_sub(1)));
                [50, 99, 100].map(|percent| at(percent).copied().unwrap_or(0))
            })
        };
        Summary {
            ping: of(Kind::Ping { is_slow: false }),
            message: of(Kind::Message { is_slow: false }),
            slow_ping: of(Kind::Ping { is_slow: true }),
            slow_message: of(Kind::Message { is_slow: true }),
        }
    }
}

/// Pings until it is all over.
pub(super) fn pinger(mut client: Client, kind: Kind, stage: &Stage, latencies: &Latencies) -> io::Result<()> {
    while !stage.is_done() {
        let began = Instant::now();
        client.ping()?;
        latencies.add(kind, stage, began);
        thread::sleep(EVERY);
    }
    Ok(())
}

/// Sends a message now and then, from one shard to another.
pub(super) fn pair(
    mut sends: Client,
    mut hears: Client,
    topic: &str,
    kind: Kind,
    stage: &Stage,
    latencies: &Latencies,
    account: &Account,
) -> io::Result<()> {
    hears.subscribe(packet_id(0), &[topic.to_owned()], QoS::AtLeastOnce)?;
    let mut number: u64 = 0;
    account.begin();
    // It ends with the pressure, so that the account can be settled.
    while stage.is_pressure() {
        number += 1;
        let began = Instant::now();
        sends.queue_publish(
            topic,
            &number.to_be_bytes(),
            QoS::AtLeastOnce,
            Some(packet_id(number)),
            false,
        )?;
        account.publish();
        sends.flush()?;
        let ack = hears.await_packet(|packet| match packet {
            Packet::Publish(publish) => Some(publish.packet_id),
            _ => None,
        })?;
        latencies.add(kind, stage, began);
        account.deliver();
        if let Some(packet_id) = ack {
            hears.send(&Packet::PubAck(PubAck::success(packet_id)))?;
        }
        sends.await_packet(|packet| matches!(packet, Packet::PubAck(_)).then_some(()))?;
        thread::sleep(EVERY);
    }
    account.end();
    Ok(())
}
