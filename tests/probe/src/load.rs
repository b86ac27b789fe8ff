//! Keeps the shards busy: on each a publisher that hands one burst after the other to a subscriber on the next.

use std::io;
use std::net::SocketAddr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use sol_codec::{Packet, ProtocolVersion, QoS};

use crate::client::{Client, packet_id};
use crate::shards::Homes;

/// Messages of a burst; the next one begins when all have arrived.
const BURST: u64 = 64;

/// The load, until it is ended.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    messages: Arc<AtomicU64>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Load {
    /// `each` pairs for every shard.
    pub(crate) fn start(homes: &mut Homes, address: SocketAddr, each: usize) -> io::Result<Self> {
        let mut load = Self {
            stop: Arc::new(AtomicBool::new(false)),
            messages: Arc::new(AtomicU64::new(0)),
            threads: Vec::new(),
        };
        let mut pairs = Vec::new();
        for n in 0..homes.shards() * each {
            let from = n % homes.shards();
            let to = (from + 1) % homes.shards();
            pairs.push((homes.name(from)?, homes.name(to)?));
        }
        for (publisher, subscriber) in pairs {
            let topic = format!("load/{publisher}");
            let publisher = Client::connect(address, ProtocolVersion::V311, &publisher)?;
            let mut subscriber = Client::connect(address, ProtocolVersion::V311, &subscriber)?;
            subscriber.subscribe(packet_id(0), slice::from_ref(&topic), QoS::AtMostOnce)?;
            let (stop, messages) = (Arc::clone(&load.stop), Arc::clone(&load.messages));
            load.threads.push(thread::spawn(move || {
                run(publisher, subscriber, &topic, &stop, &messages)
            }));
        }
        Ok(load)
    }

    /// Ends it; how many messages arrived.
    pub(crate) fn end(self) -> io::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(self.messages.load(Ordering::Relaxed))
    }
}

fn run(
    mut publisher: Client,
    mut subscriber: Client,
    topic: &str,
    stop: &AtomicBool,
    messages: &AtomicU64,
) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            publisher.queue_publish(topic, &[b'x'; 64], QoS::AtMostOnce, None, false)?;
        }
        publisher.flush()?;
        for _ in 0..BURST {
            subscriber.await_packet(|packet| matches!(packet, Packet::Publish(_)).then_some(()))?;
        }
        messages.fetch_add(BURST, Ordering::Relaxed);
    }
    Ok(())
}
