//! The crate `mqtt-protocol-core`: 3.1.1 and 5.0.

use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use sol_codec::{PacketType, ProtocolVersion};

use super::{Frame, Verdict};

pub(super) fn judge(frame: Frame<'_>) -> Option<Verdict> {
    let read = match frame.version {
        ProtocolVersion::V31 => return None,
        ProtocolVersion::V311 => read_v3_1_1(frame),
        ProtocolVersion::V5 => read_v5_0(frame),
    };
    Some(
        read.map(|packet| packet.to_continuous_buffer())
            .map_err(|error| format!("{error:?}")),
    )
}

/// As its connections do: a parser per packet type, which must take the whole body.
macro_rules! read {
    ($frame:expr, $version:ident, $($packet:ident),+) => {{
        let (flags, data) = ($frame.first & 0x0f, $frame.body);
        match $frame.packet_type() {
            Some(PacketType::Publish) => whole(data, $version::Publish::parse(flags, Arc::from(data))),
            $(Some(PacketType::$packet) => whole(data, read!(@ $version $packet)(data)),)+
            _ => Err(MqttError::MalformedPacket),
        }
    }};
    (@ $version:ident ConnAck) => { $version::Connack::parse };
    (@ $version:ident PubAck) => { $version::Puback::parse };
    (@ $version:ident PubRec) => { $version::Pubrec::parse };
    (@ $version:ident PubRel) => { $version::Pubrel::parse };
    (@ $version:ident PubComp) => { $version::Pubcomp::parse };
    (@ $version:ident SubAck) => { $version::Suback::parse };
    (@ $version:ident UnsubAck) => { $version::Unsuback::parse };
    (@ $version:ident PingReq) => { $version::Pingreq::parse };
    (@ $version:ident PingResp) => { $version::Pingresp::parse };
    (@ $version:ident $packet:ident) => { $version::$packet::parse };
}

fn read_v3_1_1(frame: Frame<'_>) -> Result<Packet, MqttError> {
    read!(
        frame,
        v3_1_1,
        Connect,
        ConnAck,
        PubAck,
        PubRec,
        PubRel,
        PubComp,
        Subscribe,
        SubAck,
        Unsubscribe,
        UnsubAck,
        PingReq,
        PingResp,
        Disconnect
    )
}

fn read_v5_0(frame: Frame<'_>) -> Result<Packet, MqttError> {
    read!(
        frame,
        v5_0,
        Connect,
        ConnAck,
        PubAck,
        PubRec,
        PubRel,
        PubComp,
        Subscribe,
        SubAck,
        Unsubscribe,
        UnsubAck,
        PingReq,
        PingResp,
        Disconnect,
        Auth
    )
}

fn whole<T: Into<Packet>>(data: &[u8], read: Result<(T, usize), MqttError>) -> Result<Packet, MqttError> {
    let (packet, taken) = read?;
    if taken == data.len() {
        Ok(packet.into())
    } else {
        Err(MqttError::MalformedPacket)
    }
}
