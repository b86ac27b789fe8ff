//! Publishes under memory or disk pressure: a 5.0 publisher is told 0x97, an older one waits for its acknowledgement.

use alloc::rc::Rc;

use sol_codec::{PacketId, ReasonCode};

use crate::effects::Effects;
use crate::engine::Engine;
use crate::event::Cause;
use crate::handle::publish::{Publisher, lane_of};
use crate::ids::ConnectionId;
use crate::input::Flow;
use crate::message::Message;
use crate::session::acks::Lane;
use crate::time::Now;

impl Engine {
    /// Whether earlier publishes of this connection are parked: later ones must not overtake them.
    pub(crate) fn has_parked(&self, id: ConnectionId) -> bool {
        !self.parking.is_empty() && self.clients.connections.get(id).is_some_and(|c| c.parked.is_some())
    }

    /// Refuses a publish where that can be said, else parks it; when it does not fit there, the connection ends.
    pub(crate) fn refuse_or_park(
        &mut self,
        now: Now,
        from: Publisher,
        message: Rc<Message>,
        ack: Option<(Lane, PacketId)>,
        effects: &mut Effects,
    ) -> Flow {
        let Publisher { id, key, v5, .. } = from;
        if let Some((Lane::PubRec, packet_id)) = ack
            && self.has_inbound(key, packet_id)
        {
            // It was taken before: a refusal would let the client use the identifier for another message.
            self.clients.let_go(message, effects);
            return self.answer_again(now, from, packet_id, effects);
        }
        if ack.is_some() && v5 {
            self.clients.let_go(message, effects);
            return self.answer(now, from, ack, ReasonCode::QuotaExceeded, effects);
        }
        if ack.is_none() && !self.has_parked(id) {
            // QoS 0 with RETAIN: it goes to those who are there, and is not kept.
            return self.take_publish(now, from, message, ack, effects);
        }
        let max = self.clients.config.parked_bytes_max;
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return Flow::Stop;
        };
        let parked = connection.parked.get_or_insert_default();
        let bytes = message.charge();
        if parked.bytes + bytes > max {
            self.end_connection(now, id, Cause::Parked, effects);
            return Flow::Stop;
        }
        parked.bytes += bytes;
        parked.waiting.push_back((message, ack.map(|(_, packet_id)| packet_id)));
        if parked.waiting.len() == 1 {
            self.parking.push(id);
        }
        Flow::Go
    }

    /// The pressure is gone: parked publishes go their way, in order.
    pub(crate) fn release_parked(&mut self, now: Now, effects: &mut Effects) {
        while !self.clients.memory.is_full()
            && let Some(&id) = self.parking.first()
        {
            let next = self.clients.connections.get_mut(id).and_then(|connection| {
                let from = Publisher::of(id, connection)?;
                let (message, packet_id) = connection.parked.as_mut()?.waiting.pop_front()?;
                Some((from, message, packet_id))
            });
            let Some((from, mut message, packet_id)) = next else {
                self.parking.remove(0);
                if let Some(connection) = self.clients.connections.get_mut(id) {
                    connection.parked = None;
                }
                continue;
            };
            if let Some(alone) = Rc::get_mut(&mut message) {
                self.clients.charge_message(alone);
            }
            let lane = lane_of(message.qos);
            let ack = packet_id.map(|packet_id| (lane, packet_id));
            let _ = self.take_publish(now, from, message, ack, effects);
        }
    }
}
