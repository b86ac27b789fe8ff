//! From bytes to a packet: frame first, then a parser per Control Packet over the borrowed slice.

use crate::fixed_header::{FixedHeader, peek_fixed_header};
use crate::packet::ack::{PubAck, PubComp, PubRec, PubRel};
use crate::packet::{
    Packet, PacketType, auth, connack, connect, disconnect, publish, suback, subscribe, unsuback, unsubscribe,
};
use crate::primitive::{Parsed, fail};
use crate::{DecodeError, DecodeErrorKind, ProtocolVersion};

/// What [`decode`] found at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a packet lives on the stack, and `no_std` without an allocator too"
)]
pub enum Decoded<'a> {
    /// A whole packet.
    Packet {
        /// The packet; it borrows from the bytes.
        packet: Packet<'a>,
        /// How many bytes it took: the next packet begins there.
        len: usize,
    },
    /// No fault so far, but the packet goes on: call again with at least this many bytes in total, counted from the
    /// packet's first byte. Once the Fixed Header is complete this is the packet's exact size.
    NeedMore(usize),
}

/// What a receiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest packet, in bytes, the Fixed Header included.
    pub maximum_packet_size: u32,
    /// The most levels of a Topic Name or Topic Filter; the `$share` and ShareName of a Shared Subscription do not
    /// count.
    pub topic_levels: u16,
    /// Who sends.
    pub direction: Direction,
}

impl DecodeLimits {
    /// The size of the largest packet that MQTT can frame, in bytes.
    pub const LARGEST_PACKET: u32 = 268_435_460;
    /// The default limit of topic levels.
    pub const TOPIC_LEVELS: u16 = 128;
}

impl Default for DecodeLimits {
    /// Any size, 128 topic levels, either direction.
    fn default() -> Self {
        Self {
            maximum_packet_size: Self::LARGEST_PACKET,
            topic_levels: Self::TOPIC_LEVELS,
            direction: Direction::Either,
        }
    }
}

/// Who sends the bytes: decides which packets and Properties are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A server reads from a client.
    FromClient,
    /// A client reads from a server.
    FromServer,
    /// A tool reads what either says.
    Either,
}

/// Reads the packet at the front of `bytes`. `version` is the one that the connection's CONNECT settled; CONNECT
/// itself brings its own. Allocates nothing and looks at each byte a bounded number of times; asking again with more
/// bytes gives the same answer as asking once with all of them.
///
/// # Errors
/// A [`DecodeError`] for bytes that no further byte can turn into a packet; what the Fixed Header shows is told
/// before the rest has come.
#[inline]
pub fn decode<'a>(
    bytes: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Decoded<'a>, DecodeError> {
    let Some(header) = peek_fixed_header(bytes, version, limits)? else {
        return Ok(Decoded::NeedMore((bytes.len() + 1).max(2)));
    };
    let len = header.packet_len();
    let Some(body) = bytes.get(usize::from(header.len)..len) else {
        return Ok(Decoded::NeedMore(len));
    };
    match packet(
        body,
        Context {
            header,
            version,
            limits,
        },
    ) {
        Ok((_, packet)) => Ok(Decoded::Packet { packet, len }),
        Err(nom::Err::Error(fault) | nom::Err::Failure(fault)) => Err(fault.into_error(bytes)),
        // The parsers are all of the complete kind; one that asks for more has met the packet's end.
        Err(nom::Err::Incomplete(_)) => Err(DecodeError {
            kind: DecodeErrorKind::Truncated,
            offset: len,
        }),
    }
}

/// What a parser must know beside the bytes.
#[derive(Clone, Copy)]
pub(crate) struct Context<'l> {
    pub(crate) header: FixedHeader,
    pub(crate) version: ProtocolVersion,
    pub(crate) limits: &'l DecodeLimits,
}

impl Context<'_> {
    #[inline]
    pub(crate) fn is_v5(&self) -> bool {
        self.version == ProtocolVersion::V5
    }
}

#[inline]
fn packet<'a>(body: &'a [u8], context: Context<'_>) -> Parsed<'a, Packet<'a>> {
    let (rest, packet) = match context.header.packet_type {
        PacketType::Publish => publish::parse(body, context).map(|(rest, packet)| (rest, Packet::Publish(packet)))?,
        _ => other_packet(body, context)?,
    };
    if rest.is_empty() {
        Ok((rest, packet))
    } else {
        Err(fail(rest, DecodeErrorKind::TrailingBytes))
    }
}

fn other_packet<'a>(body: &'a [u8], context: Context<'_>) -> Parsed<'a, Packet<'a>> {
    Ok(match context.header.packet_type {
        PacketType::Connect => with(connect::parse(body, context)?, Packet::Connect),
        PacketType::ConnAck => with(connack::parse(body, context)?, Packet::ConnAck),
        PacketType::Publish => with(publish::parse(body, context)?, Packet::Publish),
        PacketType::PubAck => with(PubAck::parse(body, context)?, Packet::PubAck),
        PacketType::PubRec => with(PubRec::parse(body, context)?, Packet::PubRec),
        PacketType::PubRel => with(PubRel::parse(body, context)?, Packet::PubRel),
        PacketType::PubComp => with(PubComp::parse(body, context)?, Packet::PubComp),
        PacketType::Subscribe => with(subscribe::parse(body, context)?, Packet::Subscribe),
        PacketType::SubAck => with(suback::parse(body, context)?, Packet::SubAck),
        PacketType::Unsubscribe => with(unsubscribe::parse(body, context)?, Packet::Unsubscribe),
        PacketType::UnsubAck => with(unsuback::parse(body, context)?, Packet::UnsubAck),
        PacketType::PingReq => (body, Packet::PingReq),
        PacketType::PingResp => (body, Packet::PingResp),
        PacketType::Disconnect => with(disconnect::parse(body, context)?, Packet::Disconnect),
        PacketType::Auth => with(auth::parse(body, context)?, Packet::Auth),
    })
}

fn with<'a, T>((rest, packet): (&'a [u8], T), wrap: impl Fn(T) -> Packet<'a>) -> (&'a [u8], Packet<'a>) {
    (rest, wrap(packet))
}
