//! Packets as bytes, well-formed or not, and clients that send on although nobody listens.

use sol_codec::{Packet, ProtocolVersion};
use sol_engine::Input;

use super::{Client, Node, V5};

/// A string or binary data: its length, then its bytes.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A Variable Byte Integer, in as few bytes as hold it.
pub fn var_int(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A packet: first byte, Remaining Length, and the parts of the rest.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[first][..], &var_int(body.len()), &body].concat()
}

/// A Property section, as far as the version has one.
pub fn section(version: ProtocolVersion, properties: &[u8]) -> Vec<u8> {
    if version == V5 {
        [&var_int(properties.len())[..], properties].concat()
    } else {
        Vec::new()
    }
}

/// A PUBLISH with QoS 0.
pub fn publish_bytes(version: ProtocolVersion, topic: &[u8], properties: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&field(topic), &section(version, properties), payload])
}

/// A CONNECT with these Connect Flags, a Keep Alive of 0 and no Properties; `payload` begins with the Client Identifier.
pub fn connect_bytes(version: ProtocolVersion, flags: u8, payload: &[u8]) -> Vec<u8> {
    let level = if version == V5 { 5 } else { 4 };
    let fixed = [&field(b"MQTT")[..], &[level, flags, 0, 0]].concat();
    packet(0x10, &[&fixed, &section(version, &[]), payload])
}

impl Node {
    /// Gives the engine a packet of a client even where its connection has ended or was told to wait.
    pub fn push(&mut self, client: Client, packet: &Packet<'_>) {
        let (shard, connection) = (self.clients[client.0].shard, self.clients[client.0].connection);
        self.input(shard, Input::Packet(connection, packet));
        self.run();
    }
}
