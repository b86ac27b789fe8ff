//! Clients on every kind of door, each on a blocking socket: plain, TLS, WebSocket and WebSocket over TLS.
//!
//! They are for measuring what a broker in a process of its own spends. What they spend themselves does not matter.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Any key will do: it is there so that the broker has something to unmask with.
const MASK: [u8; 4] = [0x5A, 0x17, 0xC3, 0x88];
/// The Binary frame's first byte, with its final bit.
const BINARY: u8 = 0x82;

/// How clients come in.
#[derive(Clone, Debug)]
pub struct Door {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    websocket: bool,
}

/// Which handshakes a TLS client makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handshakes {
    /// A full one each time, in this version: 12 or 13.
    Full(u8),
    /// Resumed where the broker allows it.
    Resumed(u8),
}

impl Door {
    /// The plain door at an address.
    #[must_use]
    pub const fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            websocket: false,
        }
    }

    /// The same door behind WebSocket.
    #[must_use]
    pub fn websocket(self) -> Self {
        Self {
            websocket: true,
            ..self
        }
    }

    /// The same door behind TLS, trusting the certificates of a PEM file.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no certificate.
    pub fn tls(self, authorities: &str, handshakes: Handshakes) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authorities).map_err(io::Error::other)? {
            roots
                .add(certificate.map_err(io::Error::other)?)
                .map_err(io::Error::other)?;
        }
        let (version, resumption) = match handshakes {
            Handshakes::Full(version) => (version, Resumption::disabled()),
            Handshakes::Resumed(version) => (version, Resumption::in_memory_sessions(64)),
        };
        let version = if version == 12 { &TLS12 } else { &TLS13 };
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = resumption;
        Ok(Self {
            tls: Some(Arc::new(config)),
            ..self
        })
    }

    /// Comes in, up to where MQTT begins.
    ///
    /// # Errors
    /// When the connection or a handshake fails.
    pub fn enter(&self) -> io::Result<Visitor> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(tls, stream)))
            }
        };
        let mut visitor = Visitor {
            stream,
            frames: self.websocket.then(Frames::default),
        };
        if self.websocket {
            visitor.upgrade()?;
        }
        Ok(visitor)
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A client that has come in.
#[derive(Debug)]
pub struct Visitor {
    stream: Stream,
    frames: Option<Frames>,
}

impl Visitor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.stream {
            Stream::Plain(stream) => stream.read(buffer)?,
            Stream::Tls(stream) => stream.read(buffer)?,
        };
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(n)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    fn upgrade(&mut self) -> io::Result<()> {
        self.write(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Protocol: mqtt\r\n\r\n",
        )?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            self.read(&mut byte)?;
            answer.extend(byte);
        }
        if answer.starts_with(b"HTTP/1.1 101") {
            Ok(())
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
        }
    }

    /// Packets as this door wants them, ready to be sent as often as one likes: each in a frame of its own, as clients
    /// do, where there are frames.
    #[must_use]
    pub fn wrapped(&self, packets: &[&[u8]]) -> Vec<u8> {
        match self.frames {
            None => packets.concat(),
            Some(_) => packets.iter().flat_map(|packet| frame(packet)).collect(),
        }
    }

    /// Sends what [`Self::wrapped`] made.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, wrapped: &[u8]) -> io::Result<()> {
        self.write(wrapped)
    }

    /// Reads until so many bytes of MQTT have come, and gives the last one: of CONNACK of 3.1.1, its return code.
    ///
    /// # Errors
    /// When the connection fails or they do not come.
    pub fn receive(&mut self, bytes: usize) -> io::Result<u8> {
        let mut buffer = [0; 16 << 10];
        let (mut left, mut last) = (bytes, 0);
        while left > 0 {
            let n = self.read(&mut buffer)?;
            last = buffer[n - 1];
            let payload = match &mut self.frames {
                None => n,
                Some(frames) => frames.payload_in(&buffer[..n]),
            };
            left = left
                .checked_sub(payload)
                .ok_or_else(|| io::Error::other("more came than was due"))?;
        }
        Ok(last)
    }

    /// Whether the TLS session of this visit was a resumed one.
    #[must_use]
    pub fn was_resumed(&self) -> bool {
        matches!(&self.stream, Stream::Tls(stream) if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed))
    }
}

/// A masked Binary frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![BINARY];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Where in the frames from the broker the next byte stands.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    payload_left: usize,
}

impl Frames {
    /// How many of the next bytes are payload.
    fn payload_in(&mut self, mut bytes: &[u8]) -> usize {
        let mut sum = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let taken = self.payload_left.min(bytes.len());
                self.payload_left -= taken;
                sum += taken;
                bytes = &bytes[taken..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            let long = match self.head.get(1) {
                Some(126) => 2,
                Some(127) => 8,
                Some(_) => 0,
                None => continue,
            };
            if self.head.len() == 2 + long {
                let length = self.head[2..].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                self.payload_left = if long == 0 { usize::from(self.head[1]) } else { length };
                self.head.clear();
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of frames are told from their payload wherever a read ends.
    #[test]
    fn payload_is_counted_across_reads() {
        let mut bytes = Vec::new();
        for length in [1_usize, 125, 126, 70_000] {
            match length {
                ..126 => bytes.extend([BINARY, length as u8]),
                126..65_536 => bytes.extend([&[BINARY, 126][..], &(length as u16).to_be_bytes()].concat()),
                _ => bytes.extend([&[BINARY, 127][..], &(length as u64).to_be_bytes()].concat()),
            }
            bytes.extend(vec![0; length]);
        }
        for step in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let sum: usize = bytes.chunks(step).map(|chunk| frames.payload_in(chunk)).sum();
            assert_eq!(sum, 1 + 125 + 126 + 70_000, "steps of {step}");
        }
    }
}
