//! PINGREQ (section 3.12) and PINGRESP (section 3.13).

use crate::encode::{Body, Sink, encodable};
use crate::{PacketType, ProtocolVersion};

/// PINGREQ: asks for a sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PingReq;

/// PINGRESP: the sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PingResp;

impl Body for PingReq {
    fn first_byte(&self) -> u8 {
        PacketType::PingReq.first_byte()
    }

    fn write(&self, _: ProtocolVersion, _: &mut impl Sink) {}
}

impl Body for PingResp {
    fn first_byte(&self) -> u8 {
        PacketType::PingResp.first_byte()
    }

    fn write(&self, _: ProtocolVersion, _: &mut impl Sink) {}
}

encodable!(PingReq, PingResp);
