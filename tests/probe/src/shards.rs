//! Which shard is whose: the broker's metrics tell how many clients each shard has, so whoever has just come in is at home
//! where there is one more.

use std::collections::VecDeque;
use std::io::{self, Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sol_codec::ProtocolVersion;

use crate::client::{Client, PATIENCE};

/// A scrape of the broker's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks for them; a broker whose shards do not answer in time is asked again.
    pub(crate) fn of(address: SocketAddr) -> io::Result<Self> {
        let begin = Instant::now();
        loop {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: probe\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            if text.starts_with("HTTP/1.1 200") {
                return Ok(Self(text));
            }
            if begin.elapsed() > PATIENCE {
                return Err(Error::other(format!("no metrics: {text}")));
            }
        }
    }

    /// A metric's value; with labels its name ends in them.
    pub(crate) fn value(&self, name: &str) -> io::Result<u64> {
        let mut rows = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) = rows
            .find(|(row, _)| *row == name)
            .ok_or_else(|| Error::other(format!("there is no metric {name}")))?;
        value.parse().map_err(Error::other)
    }

    /// Clients connected, by shard.
    pub(crate) fn clients(&self) -> Vec<u64> {
        let of = |shard: usize| self.value(&format!("sol_shard_clients_connected{{shard=\"{shard}\"}}"));
        (0..).map_while(|shard| of(shard).ok()).collect()
    }
}

/// Finds Client Identifiers by their home shard. Nobody else may come or go meanwhile.
#[derive(Debug)]
pub(crate) struct Homes {
    address: SocketAddr,
    metrics: SocketAddr,
    prefix: String,
    tried: u32,
    found: Vec<VecDeque<String>>,
}

impl Homes {
    /// For a broker and its metrics; the identifiers begin with `prefix`.
    pub(crate) fn new(address: SocketAddr, metrics: SocketAddr, prefix: &str) -> io::Result<Self> {
        let shards = Metrics::of(metrics)?.clients().len();
        if shards == 0 {
            return Err(Error::other("the metrics name no shard"));
        }
        Ok(Self {
            address,
            metrics,
            prefix: prefix.to_owned(),
            tried: 0,
            found: vec![VecDeque::new(); shards],
        })
    }

    /// How many shards there are.
    pub(crate) const fn shards(&self) -> usize {
        self.found.len()
    }

    /// A Client Identifier that is at home on a shard, and nobody's yet.
    pub(crate) fn name(&mut self, shard: usize) -> io::Result<String> {
        loop {
            if let Some(name) = self.found.get_mut(shard).and_then(VecDeque::pop_front) {
                return Ok(name);
            }
            let name = format!("{}-{}", self.prefix, self.tried);
            self.tried += 1;
            let home = self.home_of(&name)?;
            if let Some(found) = self.found.get_mut(home) {
                found.push_back(name);
            }
        }
    }

    /// Connects as a client and looks where.
    fn home_of(&self, name: &str) -> io::Result<usize> {
        let before = Metrics::of(self.metrics)?.clients();
        let client = Client::connect(self.address, ProtocolVersion::V5, name)?;
        let with = Metrics::of(self.metrics)?.clients();
        drop(client);
        self.await_clients(&before)?;
        let changed = before
            .iter()
            .zip(&with)
            .position(|(before, with)| with == &(before + 1));
        changed.ok_or_else(|| Error::other(format!("{name} is nowhere: {before:?} {with:?}")))
    }

    fn await_clients(&self, wanted: &[u64]) -> io::Result<()> {
        let begin = Instant::now();
        while Metrics::of(self.metrics)?.clients() != wanted {
            if begin.elapsed() > PATIENCE {
                return Err(Error::other("somebody else comes and goes"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}
