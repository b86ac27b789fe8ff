//! Many clients on one thread: sockets that never wait, behind one readiness queue.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sol_codec::{
    Connect, DecodeLimits, Decoded, Disconnect, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, Subscribe,
    SubscribeProperties, SubscriptionOptions, Subscriptions, TopicFilter, decode,
};

/// What a measurement that may fail gives.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// What all of them speak.
pub(crate) const VERSION: ProtocolVersion = ProtocolVersion::V311;
/// Longer than a broker is silent that has something to say.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that are numbered in the order in which they joined.
#[derive(Debug)]
pub(crate) struct Swarm {
    address: SocketAddr,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// Who has something to say.
    talkative: Vec<usize>,
    buffer: Vec<u8>,
    /// How many were let in, into Sessions that the broker had kept, and subscribed; how many have left.
    counts: Counts,
}

/// What has happened to a swarm.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Clients that were let in.
    pub(crate) let_in: usize,
    /// Those of them whose Session the broker had kept.
    pub(crate) present: usize,
    /// Subscriptions that were granted.
    pub(crate) subscribed: usize,
    /// Clients that said so and were closed by the broker.
    pub(crate) left: usize,
}

#[derive(Debug)]
struct Client {
    stream: Option<TcpStream>,
    /// A piece of a packet.
    input: Vec<u8>,
    output: Vec<u8>,
    is_leaving: bool,
}

impl Swarm {
    /// Nobody yet, of clients of the broker at an address.
    ///
    /// # Errors
    /// When the system has no readiness queue for it.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            address,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            talkative: Vec::new(),
            buffer: vec![0; 256 << 10],
            counts: Counts::default(),
        })
    }

    /// What has happened so far.
    #[must_use]
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many have joined, which is the next one's number.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        self.clients.len()
    }

    /// Another client connects; its number.
    ///
    /// # Errors
    /// When there is no connection.
    pub(crate) fn join(&mut self, client_id: &str, clean_start: bool) -> io::Result<usize> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let client = self.clients.len();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut SourceFd(&stream.as_raw_fd()), Token(client), interest)?;
        self.clients.push(Client {
            stream: Some(stream),
            input: Vec::new(),
            output: Vec::new(),
            is_leaving: false,
        });
        let connect = Connect {
            clean_start,
            ..Connect::new(VERSION, client_id)
        };
        self.send(client, &Packet::Connect(connect));
        Ok(client)
    }

    /// Subscribes a client to one filter.
    ///
    /// # Errors
    /// When `filter` is no Topic Filter.
    pub(crate) fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) -> Outcome<()> {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let filters = [(TopicFilter::new(filter)?, options)];
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(PacketId::MAX).ok_or("no zero")?,
            filters: Subscriptions::from_slice(&filters),
            properties: SubscribeProperties::default(),
        });
        self.send(client, &subscribe);
        Ok(())
    }

    /// What a client says at the end of the turn.
    pub(crate) fn send(&mut self, client: usize, packet: &Packet<'_>) {
        let output = &mut self.clients[client].output;
        if output.is_empty() {
            self.talkative.push(client);
        }
        packet.encode(VERSION, output);
    }

    /// A client leaves in order.
    pub(crate) fn leave(&mut self, client: usize) {
        self.send(
            client,
            &Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)),
        );
        self.clients[client].is_leaving = true;
    }

    /// Says what is to be said, waits until somebody hears something, at most so long, and has it handled: by whom it was
    /// heard, what and when.
    ///
    /// # Errors
    /// When a connection is lost, a client refused, or `handle` fails.
    pub(crate) fn turn(
        &mut self,
        patience: Duration,
        mut handle: impl FnMut(&mut Self, usize, &Packet<'_>, Instant) -> Outcome<()>,
    ) -> Outcome<()> {
        self.flush()?;
        self.poll.poll(&mut self.events, Some(patience))?;
        let heard: Vec<usize> = self
            .events
            .iter()
            .filter(|event| event.is_readable())
            .map(|event| event.token().0)
            .collect();
        for event in &self.events {
            let client = event.token().0;
            if event.is_writable() && !self.clients[client].output.is_empty() {
                self.talkative.push(client);
            }
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        for client in heard {
            self.hear(client, &mut buffer, &mut handle)?;
        }
        self.buffer = buffer;
        self.flush()
    }

    /// Turns until it is so.
    ///
    /// # Errors
    /// As [`Self::turn`], and when nothing brings it about.
    pub(crate) fn until(
        &mut self,
        what: &str,
        is_so: impl Fn(&Self) -> bool,
        mut handle: impl FnMut(&mut Self, usize, &Packet<'_>, Instant) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut heard_at = Instant::now();
        while !is_so(self) {
            self.turn(Duration::from_millis(100), |swarm, client, packet, now| {
                heard_at = now;
                handle(swarm, client, packet, now)
            })?;
            if heard_at.elapsed() > PATIENCE {
                return Err(format!("in vain waited for {what}: {:?}", self.counts).into());
            }
        }
        Ok(())
    }

    fn hear(
        &mut self,
        client: usize,
        buffer: &mut [u8],
        handle: &mut impl FnMut(&mut Self, usize, &Packet<'_>, Instant) -> Outcome<()>,
    ) -> Outcome<()> {
        loop {
            let Some(stream) = &mut self.clients[client].stream else {
                return Ok(());
            };
            let read = match stream.read(buffer) {
                Ok(0) if self.clients[client].is_leaving => {
                    self.clients[client].stream = None;
                    self.counts.left += 1;
                    return Ok(());
                }
                Ok(0) => return Err(format!("client {client} was cut off").into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut input = std::mem::take(&mut self.clients[client].input);
            input.extend(&buffer[..read]);
            let taken = self.take(client, &input, handle)?;
            input.drain(..taken);
            self.clients[client].input = input;
        }
    }

    fn take(
        &mut self,
        client: usize,
        bytes: &[u8],
        handle: &mut impl FnMut(&mut Self, usize, &Packet<'_>, Instant) -> Outcome<()>,
    ) -> Outcome<usize> {
        let (mut taken, now) = (0, Instant::now());
        while let Decoded::Packet { packet, len } = decode(&bytes[taken..], VERSION, &DecodeLimits::default())? {
            taken += len;
            match &packet {
                Packet::ConnAck(connack) if connack.reason_code.is_error() => {
                    return Err(format!("client {client} is refused: {:?}", connack.reason_code).into());
                }
                Packet::ConnAck(connack) => {
                    self.counts.let_in += 1;
                    self.counts.present += usize::from(connack.session_present);
                }
                Packet::SubAck(suback) if suback.reason_codes.iter().any(ReasonCode::is_error) => {
                    return Err(format!("client {client} may not subscribe").into());
                }
                Packet::SubAck(suback) => self.counts.subscribed += suback.reason_codes.len(),
                _ => {}
            }
            handle(self, client, &packet, now)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> Outcome<()> {
        let mut talkative = std::mem::take(&mut self.talkative);
        for client in talkative.drain(..) {
            let Client { stream, output, .. } = &mut self.clients[client];
            let Some(stream) = stream else {
                output.clear();
                continue;
            };
            while !output.is_empty() {
                match stream.write(output) {
                    Ok(written) => drop(output.drain(..written)),
                    // The queue says when there is room.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.talkative = talkative;
        Ok(())
    }
}
