//! nom parsers of the data representations (section 1.5) and of the fields that many packets share.

use nom::IResult;
use nom::Parser;
use nom::error::{ErrorKind, ParseError};
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};

use crate::utf8::{self, Scan};
use crate::var_int::{self, VarInt};
use crate::{DecodeError, DecodeErrorKind, DecodeLimits, PacketId, PacketType, ReasonCode, TopicFilter, TopicName};

/// What a parser gives: the bytes behind the field, and the field.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, Fault<'a>>;

/// A fault, and the bytes that begin with it: its place in the packet is worked out only when it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault<'a> {
    at: &'a [u8],
    kind: DecodeErrorKind,
}

impl Fault<'_> {
    #[cold]
    pub(crate) fn into_error(self, packet: &[u8]) -> DecodeError {
        let offset = self.at.as_ptr().addr().saturating_sub(packet.as_ptr().addr());
        DecodeError::new(self.kind, offset)
    }
}

/// nom's own complaint is always the same: too few bytes.
impl<'a> ParseError<&'a [u8]> for Fault<'a> {
    fn from_error_kind(at: &'a [u8], _: ErrorKind) -> Self {
        Fault {
            at,
            kind: DecodeErrorKind::Truncated,
        }
    }

    fn append(_: &'a [u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

#[cold]
pub(crate) fn fail(at: &[u8], kind: DecodeErrorKind) -> nom::Err<Fault<'_>> {
    nom::Err::Failure(Fault { at, kind })
}

/// Binary Data (section 1.5.6).
#[inline]
pub(crate) fn binary(input: &[u8]) -> Parsed<'_, &[u8]> {
    length_data(be_u16).parse(input)
}

/// A UTF-8 Encoded String (section 1.5.4).
#[inline]
pub(crate) fn string(input: &[u8]) -> Parsed<'_, &str> {
    let (rest, bytes) = binary(input)?;
    utf8::check(bytes)
        .map(|text| (rest, text))
        .map_err(|kind| fail(bytes, kind))
}

/// A Variable Byte Integer (section 1.5.5).
#[inline]
pub(crate) fn var_int(input: &[u8]) -> Parsed<'_, u32> {
    match var_int::read(input) {
        Ok(VarInt::Value(value, len)) => Ok((input.get(len..).unwrap_or_default(), value)),
        Ok(VarInt::NeedMore) => Err(fail(input, DecodeErrorKind::Truncated)),
        Err(kind) => Err(fail(input, kind)),
    }
}

/// A Packet Identifier (section 2.2.1).
#[inline]
pub(crate) fn packet_id(input: &[u8]) -> Parsed<'_, PacketId> {
    let (rest, value) = be_u16(input)?;
    match PacketId::new(value) {
        Some(id) => Ok((rest, id)),
        None => Err(fail(input, DecodeErrorKind::ZeroPacketId)),
    }
}

/// A Reason Code that this packet may have (section 2.4).
#[inline]
pub(crate) fn reason_code(input: &[u8], packet: PacketType) -> Parsed<'_, ReasonCode> {
    let (rest, value) = be_u8(input)?;
    match ReasonCode::from_value(value) {
        Some(code) if code.is_allowed_on(packet) => Ok((rest, code)),
        _ => Err(fail(input, DecodeErrorKind::InvalidReasonCode(value))),
    }
}

/// A Topic Name, or `None` where it is empty.
#[inline]
pub(crate) fn topic_name<'a>(input: &'a [u8], limits: &DecodeLimits) -> Parsed<'a, Option<TopicName<'a>>> {
    let (rest, bytes) = binary(input)?;
    if bytes.is_empty() {
        return Ok((rest, None));
    }
    let (text, scan) = scanned(bytes)?;
    if scan.separators >= u32::from(limits.topic_levels) {
        return Err(fail(bytes, DecodeErrorKind::TopicTooDeep));
    }
    match TopicName::from_scanned(text, scan) {
        Ok(name) => Ok((rest, Some(name))),
        Err(why) => Err(fail(bytes, DecodeErrorKind::InvalidTopicName(why))),
    }
}

/// A Topic Filter.
pub(crate) fn topic_filter<'a>(input: &'a [u8], limits: &DecodeLimits) -> Parsed<'a, TopicFilter<'a>> {
    let (rest, bytes) = binary(input)?;
    let (text, scan) = scanned(bytes)?;
    let filter = match TopicFilter::from_scanned(text, scan) {
        Ok(filter) => filter,
        Err(why) => return Err(fail(bytes, DecodeErrorKind::InvalidTopicFilter(why))),
    };
    let share_levels = if filter.is_shared() { 2 } else { 0 };
    if scan.separators.saturating_sub(share_levels) >= u32::from(limits.topic_levels) {
        return Err(fail(bytes, DecodeErrorKind::FilterTooDeep));
    }
    Ok((rest, filter))
}

#[inline]
fn scanned(bytes: &[u8]) -> Result<(&str, Scan), nom::Err<Fault<'_>>> {
    let text = utf8::well_formed(bytes).map_err(|kind| fail(bytes, kind))?;
    let scan = utf8::scan(bytes);
    if scan.nul {
        Err(fail(bytes, DecodeErrorKind::NulCharacter))
    } else {
        Ok((text, scan))
    }
}
