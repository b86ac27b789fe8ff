//! The header that a proxy puts before a connection's first byte: who the client is (PROXY protocol, versions 1 and 2).
//!
//! It is *not* a library for proxies: it reads such a header and knows no socket. Whoever owns one hands every segment to
//! [`Proxy::receive`] until it gives a [`Header`]; what lies behind is the client's. Memory is held only for a header of
//! which a part has come, [`HEADER_BYTES_MAX`] at most.
//!
//! ```text
//!   PROXY TCP4 192.0.2.7 192.0.2.1 50123 1883 CR LF             version 1: a line of 107 bytes at most
//!
//!   ┌───────────────┬────────┬────────┬────────┬───────────┬───────────────────────────┐
//!   │ signature, 12 │ 2, cmd │ family │ length │ addresses │ type, length, value, …    │ version 2
//!   └───────────────┴────────┴────────┴────────┴───────────┴───────────────────────────┘
//! ```

// Nothing in here may panic on what a peer sends: lengths are added saturating or checked.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::peer::PeerAddr;

/// What may be held for a connection of which nothing is known yet. Proxies send some hundred bytes at most.
pub(crate) const HEADER_BYTES_MAX: usize = 1 << 10;
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LINE_START: &[u8] = b"PROXY ";

/// Type of the value that tells of the client's TLS, and bits and types in it.
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;
const SUBTYPE_SSL_CN: u8 = 0x22;

/// The version that a listener demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a listener demands of the header of each of its connections.
#[derive(Clone)]
pub struct ProxyRules {
    /// The only version that is understood.
    pub version: ProxyVersion,
    /// Which addresses are believed. Who is on a Unix socket is: its file says who may be.
    pub trusts: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// The client has to have come to the proxy over TLS.
    pub requires_tls: bool,
    /// The Common Name of the certificate that the client has proven to the proxy is its User Name.
    pub names_clients: bool,
}

impl ProxyRules {
    /// Whether somebody is believed.
    pub(crate) fn trust(&self, peer: PeerAddr) -> bool {
        peer.socket_addr()
            .is_none_or(|address| (self.trusts)(address.ip().to_canonical()))
    }
}

impl fmt::Debug for ProxyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRules")
            .field("version", &self.version)
            .field("requires_tls", &self.requires_tls)
            .field("names_clients", &self.names_clients)
            .finish_non_exhaustive()
    }
}

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where the client is; `None`: the connection is the proxy's own, or it cannot tell.
    pub(crate) client: Option<PeerAddr>,
    /// The client speaks TLS with the proxy.
    pub(crate) is_encrypted: bool,
    /// The Common Name of the certificate that the client has proven to have the key of.
    pub(crate) common_name: Option<String>,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What came does not begin like one of this version.
    Missing,
    /// It begins like one, and is more than a header may have.
    Long,
    /// A line that is none of version 1.
    Line,
    /// An unknown version, command or family of version 2.
    Unknown,
    /// Fewer bytes are announced than its addresses take.
    Short,
    /// A value ends behind the header's end, or is not what its type says.
    Value,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it begins with no PROXY header of the version that this listener demands",
            Self::Long => "its PROXY header is too long",
            Self::Line => "its PROXY line is malformed",
            Self::Unknown => "its PROXY header has an unknown command or family",
            Self::Short => "its PROXY header is too short for its addresses",
            Self::Value => "its PROXY header has a malformed value",
        })
    }
}

/// A connection that owes its header.
#[derive(Debug, Default)]
pub(crate) struct Proxy {
    held: Vec<u8>,
}

impl Proxy {
    /// Takes a segment. When the header is whole, gives it and how many bytes of this segment belong to it.
    pub(crate) fn receive(&mut self, bytes: &[u8], version: ProxyVersion) -> Result<Option<(Header, usize)>, Fault> {
        let bytes_max = match version {
            ProxyVersion::V1 => LINE_BYTES_MAX,
            ProxyVersion::V2 => HEADER_BYTES_MAX,
        };
        if self.held.is_empty() {
            let found = parse(bytes, version)?;
            if found.is_none() {
                // Shorter than a header may be, or it would have been one or none.
                self.held.reserve_exact(bytes_max);
                self.held.extend_from_slice(bytes);
            }
            return Ok(found);
        }
        let before = self.held.len();
        let room = bytes_max.saturating_sub(before);
        self.held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let Some((header, len)) = parse(&self.held, version)? else {
            return Ok(None);
        };
        self.held = Vec::new();
        Ok(Some((header, len.saturating_sub(before))))
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.capacity()
    }
}

/// The header at the front, and its length; `None`: it may become one. Less than [`HEADER_BYTES_MAX`] bytes alone may.
fn parse(bytes: &[u8], version: ProxyVersion) -> Result<Option<(Header, usize)>, Fault> {
    match version {
        ProxyVersion::V1 => parse_line(bytes),
        ProxyVersion::V2 => parse_binary(bytes),
    }
}

/// Whether bytes begin with `start`, or may yet.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, expected)| byte == expected)
}

fn parse_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    if !begins(bytes, LINE_START) {
        return Err(Fault::Missing);
    }
    let window = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX {
            Ok(None)
        } else {
            Err(Fault::Long)
        };
    };
    let line = window.get(LINE_START.len()..end).ok_or(Fault::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| Fault::Line)?;
    let header = Header {
        client: client_of_line(line)?,
        ..Header::default()
    };
    Ok(Some((header, end.saturating_add(2))))
}

fn client_of_line(line: &str) -> Result<Option<PeerAddr>, Fault> {
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let mut next = || words.next().ok_or(Fault::Line);
    let (source, destination, port, destination_port) = (next()?, next()?, next()?, next()?);
    if words.next().is_some() {
        return Err(Fault::Line);
    }
    let address = |text: &str| -> Result<IpAddr, Fault> {
        match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Fault::Line),
            Some("TCP6") => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Fault::Line),
            _ => Err(Fault::Line),
        }
    };
    // The other end is of no use, but a line that is wrong in one place is not believed in another.
    address(destination)?;
    port_of(destination_port)?;
    let client = SocketAddr::new(address(source)?, port_of(port)?);
    Ok(Some(client.into()))
}

/// A decimal number without a sign or a zero in front, which `parse` would take.
fn port_of(text: &str) -> Result<u16, Fault> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(Fault::Line)
}

fn parse_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    if !begins(bytes, SIGNATURE) {
        return Err(Fault::Missing);
    }
    let Some((_, rest)) = bytes.split_first_chunk::<12>() else {
        return Ok(None);
    };
    let Some(([command, family, high, low], rest)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let total = len.saturating_add(16);
    if total > HEADER_BYTES_MAX {
        return Err(Fault::Long);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Unknown),
    };
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let header = if is_local {
        // Whatever it says of addresses is to be ignored: the proxy speaks for itself.
        Header::default()
    } else {
        header_of(*family, body)?
    };
    Ok(Some((header, total)))
}

fn header_of(family: u8, body: &[u8]) -> Result<Header, Fault> {
    let (client, values) = match family {
        // Nothing that it can tell: it forwards what is no stream, or from where it does not know.
        0x00 => (None, body),
        0x11 => {
            let ([a, b, c, d, _, _, _, _, high, low, _, _], values) = body.split_first_chunk().ok_or(Fault::Short)?;
            let ip = IpAddr::from([*a, *b, *c, *d]);
            (
                Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])).into()),
                values,
            )
        }
        0x21 => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(Fault::Short)?;
            let (_, rest) = rest.split_first_chunk::<16>().ok_or(Fault::Short)?;
            let ([high, low, _, _], values) = rest.split_first_chunk().ok_or(Fault::Short)?;
            let ip = IpAddr::from(*source);
            (
                Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])).into()),
                values,
            )
        }
        0x31 => {
            let (_, values) = body.split_first_chunk::<216>().ok_or(Fault::Short)?;
            (Some(PeerAddr::UNIX), values)
        }
        _ => return Err(Fault::Unknown),
    };
    let mut header = Header {
        client,
        ..Header::default()
    };
    each_value(values, |kind, value| {
        if kind == TYPE_SSL {
            read_ssl(value, &mut header)?;
        }
        Ok(())
    })?;
    Ok(header)
}

/// Goes through values that have a type and a length each, and end where all of them do.
fn each_value(mut values: &[u8], mut each: impl FnMut(u8, &[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    while !values.is_empty() {
        let ([kind, high, low], rest) = values.split_first_chunk().ok_or(Fault::Value)?;
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(len).ok_or(Fault::Value)?;
        each(*kind, value)?;
        values = rest;
    }
    Ok(())
}

fn read_ssl(value: &[u8], header: &mut Header) -> Result<(), Fault> {
    let ([client, verify @ ..], values) = value.split_first_chunk::<5>().ok_or(Fault::Value)?;
    header.is_encrypted = client & CLIENT_SSL != 0;
    let is_proven = header.is_encrypted && client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS) != 0 && *verify == [0; 4];
    each_value(values, |kind, value| {
        if kind == SUBTYPE_SSL_CN {
            let name = std::str::from_utf8(value).map_err(|_| Fault::Value)?;
            // As of a certificate that is shown here.
            let is_name = is_proven && !name.is_empty() && !name.contains('\0');
            header.common_name = is_name.then(|| name.to_owned());
        }
        Ok(())
    })
}
