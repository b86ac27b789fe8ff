//! The bytes between a client and the node, for what only they show: flags, Properties, sizes.

use sol_codec::{DecodeLimits, Decoded, Direction, ProtocolVersion, decode};
use sol_engine::{Input, Outgoing};

use super::{Client, Node, V5};

impl Node {
    /// Sends whole packets as bytes, which are decoded as the transport would.
    pub fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        let limits = DecodeLimits {
            maximum_packet_size: self.config.maximum_packet_size,
            topic_levels: self.config.topic_levels_max,
            direction: Direction::FromClient,
        };
        let version = self.clients[client.0].version;
        let mut rest = bytes;
        while !rest.is_empty() {
            match decode(rest, version, &limits) {
                Ok(Decoded::Packet { len, .. }) => {
                    let (packet, behind) = rest.split_at(len);
                    let packet = packet.to_vec();
                    self.send(client, move |send| {
                        let Ok(Decoded::Packet { packet, .. }) = decode(&packet, version, &limits) else {
                            unreachable!("it was decoded before")
                        };
                        send(&packet);
                    });
                    rest = behind;
                }
                Ok(Decoded::NeedMore(_)) => panic!("the last packet is cut short"),
                Err(error) => {
                    let (shard, connection) = (self.clients[client.0].shard, self.clients[client.0].connection);
                    self.input(shard, Input::Malformed(connection, error));
                    return self.run();
                }
            }
        }
    }

    /// The packets that a client got since it last looked, as bytes; set [`Node::keeps_bytes`] before. Each is one that
    /// a server may send.
    #[track_caller]
    pub fn take_bytes(&mut self, client: Client) -> Vec<Vec<u8>> {
        let state = &mut self.clients[client.0];
        state.inbox.clear();
        let packets = std::mem::take(&mut state.bytes);
        let limits = DecodeLimits {
            direction: Direction::FromServer,
            ..Default::default()
        };
        for bytes in &packets {
            let decoded = decode(bytes, state.version, &limits);
            assert!(
                matches!(decoded, Ok(Decoded::Packet { len, .. }) if len == bytes.len()),
                "{bytes:02x?} {decoded:?}"
            );
        }
        packets
    }

    /// Sends bytes that the client's version of MQTT forbids: the connection ends, and a 5.0 client is told why.
    #[track_caller]
    pub fn refuses_bytes(&mut self, client: Client, bytes: &[u8], reason_code: u8) {
        let version = self.clients[client.0].version;
        self.take(client);
        self.send_bytes(client, bytes);
        let mut expected = vec!["CLOSE".to_owned()];
        if version == V5 {
            expected.insert(0, format!("DISCONNECT {reason_code:02x}"));
        }
        assert_eq!(self.take(client), expected, "{version:?} {bytes:02x?}");
    }
}

/// A packet as the transport would write it.
pub(super) fn encode(packet: &Outgoing, version: ProtocolVersion) -> Vec<u8> {
    let version = match packet {
        Outgoing::ConnAck(data) => data.version,
        _ => version,
    };
    let mut out = Vec::new();
    packet.with_packet(|packet| packet.encode(version, &mut out));
    out
}
