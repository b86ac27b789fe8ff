//! From bytes to a packet: frame first, then a parser per Control Packet over the borrowed slice.

use crate::fixed_header::{FixedHeader, peek_fixed_header};
use crate::packet::ack::{PubAck, PubComp, PubRec, PubRel};
use crate::packet::{
    Packet, PacketType, auth, connack, connect, disconnect, publish, suback, subscribe, unsuback, unsubscribe,
};
use crate::primitive::{Fault, Parsed, fail};
use crate::{DecodeError, DecodeErrorKind, ProtocolVersion, TopicName};

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
    match frame(bytes, version, limits)? {
        Frame::Whole(found, body, context) => decode_body(found, body, context, None),
        Frame::NeedMore(total) => Ok(Decoded::NeedMore(total)),
    }
}

/// What the Fixed Header says of the bytes.
pub(crate) enum Frame<'a, 'l> {
    /// A whole packet's place, its body, and what its parser must know.
    Whole(Found<'a>, &'a [u8], Context<'l>),
    /// As [`Decoded::NeedMore`].
    NeedMore(usize),
}

#[inline]
pub(crate) fn frame<'a, 'l>(
    bytes: &'a [u8],
    version: ProtocolVersion,
    limits: &'l DecodeLimits,
) -> Result<Frame<'a, 'l>, DecodeError> {
    let Some(header) = peek_fixed_header(bytes, version, limits)? else {
        return Ok(Frame::NeedMore(bytes.len().saturating_add(1).max(2)));
    };
    let len = header.packet_len();
    let Some(body) = bytes.get(usize::from(header.len)..len) else {
        return Ok(Frame::NeedMore(len));
    };
    let found = Found { bytes, len };
    let context = Context {
        header,
        version,
        limits,
    };
    Ok(Frame::Whole(found, body, context))
}

/// `known`: the Topic Name of a PUBLISH, where somebody has compared and checked it already.
#[inline]
pub(crate) fn decode_body<'a>(
    found: Found<'a>,
    body: &'a [u8],
    context: Context<'_>,
    known: Option<TopicName<'a>>,
) -> Result<Decoded<'a>, DecodeError> {
    let len = found.len;
    match context.header.packet_type {
        PacketType::Publish => found.finish(publish::parse(body, context, known), Packet::Publish),
        PacketType::PubAck => found.finish(PubAck::parse(body, context), Packet::PubAck),
        PacketType::PubRec => found.finish(PubRec::parse(body, context), Packet::PubRec),
        PacketType::PubRel => found.finish(PubRel::parse(body, context), Packet::PubRel),
        PacketType::PubComp => found.finish(PubComp::parse(body, context), Packet::PubComp),
        PacketType::PingReq => Ok(Decoded::Packet {
            packet: Packet::PingReq,
            len,
        }),
        PacketType::PingResp => Ok(Decoded::Packet {
            packet: Packet::PingResp,
            len,
        }),
        _ => decode_rare(found, body, context),
    }
}

/// The packets of which a connection sees few, out of the way of the others.
fn decode_rare<'a>(found: Found<'a>, body: &'a [u8], context: Context<'_>) -> Result<Decoded<'a>, DecodeError> {
    match context.header.packet_type {
        PacketType::Connect => found
            .finish(connect::parse(body, context), Packet::Connect)
            .map_err(|error| DecodeError {
                connect_version: connect::version(body).ok().map(|(_, version)| version),
                ..error
            }),
        PacketType::ConnAck => found.finish(connack::parse(body, context), Packet::ConnAck),
        PacketType::Subscribe => found.finish(subscribe::parse(body, context), Packet::Subscribe),
        PacketType::SubAck => found.finish(suback::parse(body, context), Packet::SubAck),
        PacketType::Unsubscribe => found.finish(unsubscribe::parse(body, context), Packet::Unsubscribe),
        PacketType::UnsubAck => found.finish(unsuback::parse(body, context), Packet::UnsubAck),
        PacketType::Disconnect => found.finish(disconnect::parse(body, context), Packet::Disconnect),
        PacketType::Auth => found.finish(auth::parse(body, context), Packet::Auth),
        often => Err(DecodeError::new(DecodeErrorKind::UnexpectedPacket(often), 0)),
    }
}

/// A whole packet's place.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Found<'a> {
    /// What every packet ends with. The packet goes from its parser to the caller in one step: `Packet` is large, and
    /// each layer that took it apart and wrapped it again would copy all of it. That holds for this one too.
    #[inline(always)]
    fn finish<T>(self, parsed: Parsed<'a, T>, wrap: impl Fn(T) -> Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
        match parsed {
            Ok(([], packet)) => Ok(Decoded::Packet {
                packet: wrap(packet),
                len: self.len,
            }),
            Ok((rest, _)) => Err(self.error(fail(rest, DecodeErrorKind::TrailingBytes))),
            Err(fault) => Err(self.error(fault)),
        }
    }

    #[cold]
    fn error(self, fault: nom::Err<Fault<'_>>) -> DecodeError {
        match fault {
            nom::Err::Error(fault) | nom::Err::Failure(fault) => fault.into_error(self.bytes),
            // The parsers are all of the complete kind; one that asks for more has met the packet's end.
            nom::Err::Incomplete(_) => DecodeError::new(DecodeErrorKind::Truncated, self.len),
        }
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
