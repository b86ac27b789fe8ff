//! The last step of a packet before the tray: what this one client's connection makes of it.

use sol_codec::{PacketId, ProtocolVersion, ReasonCode};

use crate::clients::Clients;
use crate::connection::Marks;
use crate::effects::{AckKind, Delivery, Effects, Outgoing, Transmit};
use crate::event::Cause;
use crate::ids::ConnectionId;
use crate::time::Now;

impl Clients {
    /// Sends a PUBLISH. `false`: it is larger than the client's Maximum Packet Size, and done with [MQTT-3.1.2-25].
    pub(crate) fn send_publish(
        &mut self,
        now: Now,
        id: ConnectionId,
        delivery: Delivery,
        effects: &mut Effects,
    ) -> bool {
        if self
            .connections
            .get(id)
            .is_some_and(|connection| connection.marks.has(Marks::MOUNTED))
        {
            return self.send_unmounted(now, id, delivery, effects);
        }
        self.send_seen(now, id, delivery, effects)
    }

    /// The same with the topic that the client is to see.
    #[inline]
    pub(crate) fn send_seen(
        &mut self,
        now: Now,
        id: ConnectionId,
        mut delivery: Delivery,
        effects: &mut Effects,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            self.let_go(delivery.message, effects);
            return true;
        };
        if connection.version == ProtocolVersion::V5 {
            delivery.set_message_expiry_interval(delivery.message.expiry_left(now));
            (delivery.topic_alias, delivery.alias_only) =
                connection.alias_out(delivery.message.topic(), &mut self.memory);
        }
        let bytes = delivery.bytes_max();
        if bytes > connection.maximum_packet_size
            && delivery.encoded_len(connection.version) > connection.maximum_packet_size as usize
        {
            if !delivery.alias_only {
                // The client will not see the packet that was to tell it.
                connection.forget_alias_out(delivery.message.topic(), &mut self.memory);
            }
            self.stats.publish_oversized += 1;
            // Of a replay's message nobody else has hold.
            self.let_go(delivery.message, effects);
            return false;
        }
        self.stats.publish_sent += 1;
        self.stats.publish_bytes_sent += delivery.message.payload().len() as u64;
        let unsent = connection.add_unsent(bytes, self.epoch);
        self.push(id, unsent, Outgoing::Publish(delivery), effects);
        true
    }

    /// Sends one of the four acknowledgements.
    #[inline]
    pub(crate) fn send_ack(
        &mut self,
        id: ConnectionId,
        kind: AckKind,
        packet_id: PacketId,
        reason_code: ReasonCode,
        effects: &mut Effects,
    ) {
        self.send(
            id,
            Outgoing::Ack {
                kind,
                packet_id,
                reason_code,
            },
            5,
            effects,
        );
    }

    /// Sends any packet; `bytes` is about its length.
    pub(crate) fn send(&mut self, id: ConnectionId, packet: Outgoing, bytes: u32, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let unsent = connection.add_unsent(bytes, self.epoch);
        self.push(id, unsent, packet, effects);
    }

    #[inline]
    pub(super) fn push(&mut self, id: ConnectionId, unsent: u32, packet: Outgoing, effects: &mut Effects) {
        self.stats.packets_sent += 1;
        effects.transmits.push(Transmit { connection: id, packet });
        if unsent > self.config.unsent_bytes_max && self.connections.get(id).is_some_and(|c| c.congested) {
            self.doom(id, Cause::Slow);
        }
    }
}
