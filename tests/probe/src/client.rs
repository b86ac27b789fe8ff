//! A client that blocks, and keeps no more state than its bytes.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sol_codec::{
    Connect, DecodeLimits, Decoded, Filters, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, RetainHandling, Subscribe, SubscribeProperties, SubscriptionOptions, Subscriptions, TopicFilter,
    TopicName, Unsubscribe, UserProperties, decode,
};

/// After so long whoever waits is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// One connection that was let in.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    version: ProtocolVersion,
    received: Vec<u8>,
    /// How many of them have been looked at.
    seen: usize,
    buffer: Box<[u8]>,
    /// What [`Client::flush`] sends.
    out: Vec<u8>,
}

impl Client {
    /// Connects, with a clean Session, and waits for the CONNACK.
    pub(crate) fn connect(address: SocketAddr, version: ProtocolVersion, client_id: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Self {
            stream,
            version,
            received: Vec::new(),
            seen: 0,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            out: Vec::new(),
        };
        let connect = Connect::new(version, client_id);
        client.send(&Packet::Connect(connect))?;
        let code = client.receive(|packet| match packet {
            Packet::ConnAck(connack) => Some(connack.reason_code),
            _ => None,
        })?;
        match code {
            Some(ReasonCode::Success) => Ok(client),
            other => Err(Error::other(format!("{client_id} was not let in: {other:?}"))),
        }
    }

    /// How long a read may take.
    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// Reads so much at once and no more: a slow reader fills the buffers on the way to it.
    pub(crate) fn read_little(&mut self, bytes: usize) {
        self.buffer = vec![0; bytes].into_boxed_slice();
    }

    /// Puts a packet behind those to be sent.
    pub(crate) fn queue(&mut self, packet: &Packet<'_>) {
        packet.encode(self.version, &mut self.out);
    }

    /// How many bytes are to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.out.len()
    }

    /// Sends what was put there.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        self.queue(packet);
        self.flush()
    }

    /// The next packet, of those that are here already.
    pub(crate) fn received<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> io::Result<Option<T>> {
        let bytes = self.received.get(self.seen..).unwrap_or_default();
        match decode(bytes, self.version, &DecodeLimits::default()) {
            Ok(Decoded::Packet { packet, len }) => {
                let seen = look(&packet);
                self.seen += len;
                Ok(Some(seen))
            }
            Ok(Decoded::NeedMore(_)) => Ok(None),
            Err(error) => Err(Error::new(ErrorKind::InvalidData, format!("{error:?}"))),
        }
    }

    /// Reads once; what came is behind [`Client::received`].
    pub(crate) fn read(&mut self) -> io::Result<()> {
        self.received.drain(..self.seen);
        self.seen = 0;
        match self.stream.read(&mut self.buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.received
                    .extend_from_slice(self.buffer.get(..n).unwrap_or_default());
                Ok(())
            }
        }
    }

    /// Waits for a packet.
    pub(crate) fn receive<T>(&mut self, mut look: impl FnMut(&Packet<'_>) -> T) -> io::Result<T> {
        loop {
            if let Some(seen) = self.received(&mut look)? {
                return Ok(seen);
            }
            self.read()?;
        }
    }

    /// Waits for the packet that `look` gives something for, and passes the others over.
    pub(crate) fn await_packet<T>(&mut self, mut look: impl FnMut(&Packet<'_>) -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = self.receive(&mut look)? {
                return Ok(found);
            }
        }
    }

    /// A round trip.
    pub(crate) fn ping(&mut self) -> io::Result<()> {
        self.send(&Packet::PingReq)?;
        self.await_packet(|packet| matches!(packet, Packet::PingResp).then_some(()))
    }

    /// Puts a SUBSCRIBE there.
    pub(crate) fn queue_subscribe(&mut self, packet_id: PacketId, filters: &[String], qos: QoS) -> io::Result<()> {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::default(),
        };
        let filters: Vec<_> = filters
            .iter()
            .map(|filter| TopicFilter::new(filter).map(|filter| (filter, options)))
            .collect::<Result<_, _>>()
            .map_err(|error| Error::other(format!("{error:?}")))?;
        self.queue(&Packet::Subscribe(Subscribe {
            packet_id,
            properties: SubscribeProperties::default(),
            filters: Subscriptions::from_slice(&filters),
        }));
        Ok(())
    }

    /// Subscribes, and waits for the SUBACK of just that.
    pub(crate) fn subscribe(&mut self, packet_id: PacketId, filters: &[String], qos: QoS) -> io::Result<()> {
        self.queue_subscribe(packet_id, filters, qos)?;
        self.flush()?;
        self.await_packet(|packet| match packet {
            Packet::SubAck(suback) if suback.packet_id == packet_id => Some(()),
            _ => None,
        })
    }

    /// Puts an UNSUBSCRIBE there.
    pub(crate) fn queue_unsubscribe(&mut self, packet_id: PacketId, filter: &str) -> io::Result<()> {
        let filter = TopicFilter::new(filter).map_err(|error| Error::other(format!("{error:?}")))?;
        self.queue(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user_properties: UserProperties::default(),
            filters: Filters::from_slice(&[filter]),
        }));
        Ok(())
    }

    /// Puts a PUBLISH there; `packet_id` decides between QoS 0 and `qos`.
    pub(crate) fn queue_publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        packet_id: Option<PacketId>,
        retain: bool,
    ) -> io::Result<()> {
        let topic = TopicName::new(topic).map_err(|error| Error::other(format!("{error:?}")))?;
        self.queue(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic: Some(topic),
            packet_id,
            properties: PublishProperties::default(),
            payload,
        }));
        Ok(())
    }
}

/// A Packet Identifier of a number that counts on.
pub(crate) fn packet_id(n: u64) -> PacketId {
    let id = u16::try_from(n % 60_000 + 1).unwrap_or(1);
    PacketId::new(id).unwrap_or_else(|| unreachable!("it is at least 1"))
}

/// Whether a read only took too long.
pub(crate) fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
