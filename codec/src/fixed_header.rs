//! The Fixed Header (section 2.1), judged before the rest of the packet has come.

use crate::mutants::mutant;
use crate::packet::{PacketSet, PacketType};
use crate::property::Holder;
use crate::var_int::{self, VarInt};
use crate::{DecodeError, DecodeErrorKind, DecodeLimits, Direction, ProtocolVersion, QoS};

/// The first two to five bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// Which packet follows.
    pub packet_type: PacketType,
    /// The low four bits of the first byte.
    pub flags: u8,
    /// How many bytes follow the Fixed Header.
    pub remaining_length: u32,
    /// How many bytes the Fixed Header takes, 2 to 5.
    pub len: u8,
}

impl FixedHeader {
    /// The size of the whole packet, in bytes, as Maximum Packet Size counts it.
    #[inline]
    #[must_use]
    pub const fn packet_len(&self) -> usize {
        (self.len as usize).saturating_add(self.remaining_length as usize)
    }
}

/// Reads the Fixed Header at the front of `bytes`, or `None` while it is incomplete. Every rule that it can break is
/// checked as soon as the byte in question is there: type, flags and direction at the first byte, the length at its
/// last.
///
/// # Errors
/// A [`DecodeError`] for what no byte to come can mend.
#[inline]
pub fn peek_fixed_header(
    bytes: &[u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Option<FixedHeader>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let packet_type = check_first_byte(first, version, limits.direction).map_err(|kind| DecodeError::new(kind, 0))?;
    let length = var_int::read(rest).and_then(|length| {
        let VarInt::Value(remaining_length, len) = length else {
            return Ok(None);
        };
        let header = FixedHeader {
            packet_type,
            flags: first & 0x0f,
            remaining_length,
            len: (len as u8).saturating_add(1),
        };
        check_length(&header, limits).map(|()| Some(header))
    });
    length.map_err(|kind| DecodeError::new(kind, 1))
}

#[inline]
fn check_first_byte(byte: u8, version: ProtocolVersion, direction: Direction) -> Result<PacketType, DecodeErrorKind> {
    let packet_type = PacketType::from_first_byte(byte).ok_or(DecodeErrorKind::ReservedPacketType)?;
    if !is_expected(packet_type, version, direction) {
        return Err(DecodeErrorKind::UnexpectedPacket(packet_type));
    }
    let flags = byte & 0x0f;
    if packet_type == PacketType::Publish {
        return check_publish_flags(flags).map(|()| packet_type);
    }
    // 3.1 lets a client set DUP when it repeats one of the three packets that have a fixed QoS of 1.
    let fixed = packet_type.fixed_flags();
    let repeated = version == ProtocolVersion::V31 && fixed != 0 && flags == fixed | 0x08;
    let tolerated = mutant("5.0/2.1.3-1") || packet_type == PacketType::PubRel && mutant("5.0/3.6.1-1");
    if flags == fixed || repeated || tolerated {
        Ok(packet_type)
    } else {
        Err(DecodeErrorKind::ReservedFlags(packet_type))
    }
}

#[inline]
fn check_publish_flags(flags: u8) -> Result<(), DecodeErrorKind> {
    match QoS::from_bits(flags >> 1 & 0x03) {
        None if mutant("5.0/3.3.1-4") => Ok(()),
        None => Err(DecodeErrorKind::InvalidQoS),
        Some(QoS::AtMostOnce) if flags & 0x08 != 0 && !mutant("5.0/3.3.1-2") => Err(DecodeErrorKind::DupAtQoS0),
        Some(_) => Ok(()),
    }
}

/// What each side sends (section 2.1.2, table 2-1); on 3.x a server has no DISCONNECT and nobody an AUTH.
const BY_CLIENT: PacketSet = BY_BOTH
    .with(Holder::Packet(PacketType::Connect))
    .with(Holder::Packet(PacketType::Subscribe))
    .with(Holder::Packet(PacketType::Unsubscribe))
    .with(Holder::Packet(PacketType::PingReq));
const BY_SERVER: PacketSet = BY_BOTH
    .with(Holder::Packet(PacketType::ConnAck))
    .with(Holder::Packet(PacketType::SubAck))
    .with(Holder::Packet(PacketType::UnsubAck))
    .with(Holder::Packet(PacketType::PingResp));
const BY_BOTH: PacketSet = PacketSet::NONE
    .with(Holder::Packet(PacketType::Publish))
    .with(Holder::Packet(PacketType::PubAck))
    .with(Holder::Packet(PacketType::PubRec))
    .with(Holder::Packet(PacketType::PubRel))
    .with(Holder::Packet(PacketType::PubComp))
    .with(Holder::Packet(PacketType::Disconnect))
    .with(Holder::Packet(PacketType::Auth));

#[inline]
fn is_expected(packet_type: PacketType, version: ProtocolVersion, direction: Direction) -> bool {
    let packet = Holder::Packet(packet_type);
    let sent = match direction {
        Direction::FromClient => BY_CLIENT.contains(packet),
        Direction::FromServer => BY_SERVER.contains(packet),
        Direction::Either => true,
    };
    let is_new = match packet_type {
        PacketType::Auth => true,
        PacketType::Disconnect => direction == Direction::FromServer,
        _ => false,
    };
    sent && (!is_new || version == ProtocolVersion::V5)
}

#[inline]
fn check_length(header: &FixedHeader, limits: &DecodeLimits) -> Result<(), DecodeErrorKind> {
    let size = header.remaining_length.saturating_add(u32::from(header.len));
    if size > limits.maximum_packet_size {
        return Err(DecodeErrorKind::PacketTooLarge {
            size,
            maximum: limits.maximum_packet_size,
        });
    }
    let is_ping = matches!(header.packet_type, PacketType::PingReq | PacketType::PingResp);
    if is_ping && header.remaining_length > 0 {
        Err(DecodeErrorKind::TrailingBytes)
    } else {
        Ok(())
    }
}
