//! UNSUBACK (section 3.11).

use crate::encode::{Body, Sink, encodable};
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
