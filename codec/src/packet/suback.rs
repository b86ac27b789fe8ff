//! SUBACK (section 3.9).

use core::{fmt, slice};

use crate::decode::Context;
use crate::encode::{Body, Sink, encodable};
use crate::mutants::mutant;
use crate::primitive::{Parsed, fail, packet_id};
use crate::{AckProperties, DecodeErrorKind, PacketId, PacketType, ProtocolVersion, ReasonCode};

/// SUBACK: the server's answer to SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Always empty on 3.x.
    pub properties: AckProperties<'a>,
    /// One for each Subscription that was asked for, in order. 3.x knows one failure only, 0x80.
    pub reason_codes: ReasonCodes<'a>,
}

/// The Reason Codes of a SUBACK or UNSUBACK, in order.
#[derive(Clone, Copy)]
pub struct ReasonCodes<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked payload.
    Payload(&'a [u8]),
    Slice(&'a [ReasonCode]),
}

impl<'a> ReasonCodes<'a> {
    /// Those of a slice.
    #[must_use]
    pub const fn from_slice(codes: &'a [ReasonCode]) -> Self {
        Self(Source::Slice(codes))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Source::Payload(payload) => payload.len(),
            Source::Slice(codes) => codes.len(),
        }
    }

    /// Whether there is none: an UNSUBACK of 3.x.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The codes in order.
    #[must_use]
    pub fn iter(&self) -> ReasonCodesIter<'a> {
        ReasonCodesIter(match self.0 {
            Source::Payload(payload) => IterSource::Payload(payload.iter()),
            Source::Slice(codes) => IterSource::Slice(codes.iter()),
        })
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

impl fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &ReasonCodes<'a> {
    type Item = ReasonCode;
    type IntoIter = ReasonCodesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The codes of [`ReasonCodes`].
#[derive(Clone, Debug)]
pub struct ReasonCodesIter<'a>(IterSource<'a>);

#[derive(Clone, Debug)]
enum IterSource<'a> {
    Payload(slice::Iter<'a, u8>),
    Slice(slice::Iter<'a, ReasonCode>),
}

impl Iterator for ReasonCodesIter<'_> {
    type Item = ReasonCode;

    fn next(&mut self) -> Option<ReasonCode> {
        match &mut self.0 {
            IterSource::Payload(payload) => payload.next().and_then(|code| ReasonCode::from_value(*code)),
            IterSource::Slice(codes) => codes.next().copied(),
        }
    }
}

impl Body for SubAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::SubAck.first_byte()
    }

    fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
        out.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            out.put_section(&self.properties);
        }
        for code in self.reason_codes.iter() {
            let flat = version < ProtocolVersion::V5 && code.is_error() && !mutant("3.1.1/3.9.3-2");
            out.put_u8(if flat { ReasonCode::UnspecifiedError } else { code }.value());
        }
    }
}

encodable!(SubAck<'_>);

pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, SubAck<'a>> {
    let (rest, packet_id) = packet_id(input)?;
    let (rest, properties) = match context.version {
        ProtocolVersion::V5 => AckProperties::parse(rest, context)?,
        _ => (rest, AckProperties::default()),
    };
    let (rest, reason_codes) = reason_codes(rest, context)?;
    Ok((
        rest,
        SubAck {
            packet_id,
            properties,
            reason_codes,
        },
    ))
}

/// All that is left, one code a byte.
pub(super) fn reason_codes<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, ReasonCodes<'a>> {
    if input.is_empty() {
        return Err(fail(input, DecodeErrorKind::NoReasonCode));
    }
    match input.iter().position(|code| !is_allowed(*code, context)) {
        None => Ok((&[], ReasonCodes(Source::Payload(input)))),
        Some(at) => {
            let at = input.get(at..).unwrap_or_default();
            Err(fail(
                at,
                DecodeErrorKind::InvalidReasonCode(at.first().copied().unwrap_or_default()),
            ))
        }
    }
}

fn is_allowed(code: u8, context: Context<'_>) -> bool {
    if context.is_v5() {
        ReasonCode::from_value(code).is_some_and(|code| code.is_allowed_on(context.header.packet_type))
    } else {
        // [MQTT-3.9.3-2] of 3.1.1
        matches!(code, 0x00..=0x02 | 0x80)
    }
}
