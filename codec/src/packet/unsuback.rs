//! UNSUBACK (section 3.11).

use super::suback::reason_codes;
use crate::decode::Context;
use crate::encode::{Body, Sink, encodable};
use crate::primitive::{Parsed, packet_id};
use crate::{AckProperties, PacketId, PacketType, ProtocolVersion, ReasonCodes};

/// UNSUBACK: the server's answer to UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Always empty on 3.x.
    pub properties: AckProperties<'a>,
    /// One for each Topic Filter, in order; none on 3.x.
    pub reason_codes: ReasonCodes<'a>,
}

impl Body for UnsubAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::UnsubAck.first_byte()
    }

    fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
        out.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            out.put_section(&self.properties);
            for code in self.reason_codes.iter() {
                out.put_u8(code.value());
            }
        }
    }
}

encodable!(UnsubAck<'_>);

pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, UnsubAck<'a>> {
    let (rest, packet_id) = packet_id(input)?;
    if !context.is_v5() {
        let (properties, reason_codes) = (AckProperties::default(), ReasonCodes::from_slice(&[]));
        return Ok((
            rest,
            UnsubAck {
                packet_id,
                properties,
                reason_codes,
            },
        ));
    }
    let (rest, properties) = AckProperties::parse(rest, context)?;
    let (rest, reason_codes) = reason_codes(rest, context)?;
    Ok((
        rest,
        UnsubAck {
            packet_id,
            properties,
            reason_codes,
        },
    ))
}
