//! A Session's window and queue: what is begun, released, finished, and sent next.

use sol_codec::{PacketId, QoS, ReasonCode};

use crate::clients::Clients;
use crate::connection::{Connection, Marks, State};
use crate::effects::{AckKind, Delivery, Effects};
use crate::ids::{ConnectionId, SessionKey};
use crate::journal::Gate;
use crate::memory::REFERENCE_BYTES;
use crate::rare::Rare;
use crate::record::RecordId;
use crate::rights::{Action, may};
use crate::session::sender::{Owed, SenderFlow};
use crate::session::sessions::SessionRef;
use crate::time::Now;

impl Clients {
    /// Sends a QoS 1 or 2 message for the first time; the window has room.
    pub(crate) fn begin(&mut self, now: Now, key: SessionKey, mut owed: Owed, effects: &mut Effects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (Some(id), durable) = (session.connection, session.is_durable() && self.journal.is_on()) else {
            return;
        };
        let two = owed.qos == QoS::ExactlyOnce;
        owed.flow = match (two, durable) {
            (true, true) => SenderFlow::ExpectDurable,
            (true, false) => SenderFlow::ExpectPubrec,
            (false, _) => SenderFlow::ExpectPuback,
        };
        let held = owed.flow == SenderFlow::ExpectDurable;
        let is_first = owed.record == RecordId(0);
        if durable && is_first {
            owed.record = self.journal.next_id();
        }
        let delivery = if held { None } else { owed.delivery(None) };
        let written = durable.then(|| owed.clone());
        let packet_id = session.sender_mut().begin(owed);
        self.memory.charge(REFERENCE_BYTES);
        self.stats.stored_messages += 1;
        if let Some(written) = written {
            self.write_reference(key, &written, Some(packet_id), is_first, effects);
        }
        if held {
            self.journal.hold(Gate::Send(self.sessions.reference(key), packet_id));
        }
        if let Some(mut delivery) = delivery {
            delivery.packet_id = Some(packet_id);
            if !self.send_publish(now, id, delivery, effects) {
                self.finish(key, packet_id, effects);
            }
        }
    }

    /// Sends what a gate held: a QoS 2 PUBLISH or a PUBREL whose record is durable now. Returns the Session whose
    /// exchange ended with it, because its client does not take packets of that size or the message has expired.
    pub(crate) fn send_held(
        &mut self,
        now: Now,
        held: SessionRef,
        packet_id: PacketId,
        effects: &mut Effects,
    ) -> Option<SessionKey> {
        let key = self.sessions.resolve(held)?;
        let session = self.sessions.get_mut(key)?;
        // A connection whose CONNACK has not left takes it up when it becomes active.
        let connection = session.connection.filter(|&id| self.connections.is_active(id));
        let sender = session.sender.as_mut()?;
        let is_next = sender.released.is_empty();
        let owed = sender.get_mut(packet_id)?;
        match owed.flow {
            SenderFlow::ExpectDurable => {
                let Some(id) = connection else {
                    owed.flow = SenderFlow::ExpectPubrec;
                    return None;
                };
                if is_next && self.sendable(key).is_some() {
                    return self.send_released(now, key, id, packet_id, effects).then_some(key);
                }
                // Many may be released at once: more than a client has room for that reads as fast as it can.
                self.sessions.get_mut(key)?.sender_mut().released.push_back(packet_id);
                self.go_on_after_flush(key);
            }
            SenderFlow::ExpectDurableRelease => {
                owed.flow = SenderFlow::ExpectPubcomp;
                if let Some(id) = connection {
                    self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
                }
            }
            _ => {}
        }
        None
    }

    /// Sends a QoS 2 PUBLISH whose record is durable. Returns whether its exchange ended with it, as above.
    fn send_released(
        &mut self,
        now: Now,
        key: SessionKey,
        id: ConnectionId,
        packet_id: PacketId,
        effects: &mut Effects,
    ) -> bool {
        let sender = self.sessions.get_mut(key).and_then(|session| session.sender.as_mut());
        let Some(owed) = sender.and_then(|sender| sender.get_mut(packet_id)) else {
            return false;
        };
        owed.flow = SenderFlow::ExpectPubrec;
        let delivery = owed.delivery(Some(packet_id));
        if delivery
            .as_ref()
            .is_some_and(|delivery| delivery.message.is_expired(now))
        {
            drop(delivery);
            self.expire_unsent(key, packet_id, effects);
            return true;
        }
        let is_too_large = delivery.is_some_and(|delivery| !self.send_publish(now, id, delivery, effects));
        if is_too_large {
            self.finish(key, packet_id, effects);
        }
        is_too_large
    }

    /// Ends an exchange whose message expired before it was sent for the first time [MQTT-3.3.2-5].
    #[cold]
    fn expire_unsent(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) {
        self.stats.publish_expired += 1;
        self.note_rare(Rare::ExpiredInQueue);
        self.finish(key, packet_id, effects);
    }

    /// Ends an exchange and lets go of what it held. Returns whether there was one.
    pub(crate) fn finish(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) -> bool {
        let Some(sender) = self
            .sessions
            .get_mut(key)
            .and_then(|session| session.sender.as_deref_mut())
        else {
            return false;
        };
        let Some(owed) = sender.finish(packet_id) else {
            return false;
        };
        self.forget(owed, effects);
        true
    }

    /// Ends an exchange that expects just this, and lets go of what it held. Returns whether anything waits for the place
    /// that has become free.
    pub(crate) fn finish_expected(
        &mut self,
        key: SessionKey,
        packet_id: PacketId,
        flow: SenderFlow,
        effects: &mut Effects,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let has_replays = session.replays.is_some();
        let Some(sender) = session.sender.as_deref_mut() else {
            return false;
        };
        let Some(owed) = sender.finish_if(packet_id, |owed| owed.flow == flow) else {
            return false;
        };
        let has_waiting = has_replays || sender.has_waiting();
        self.forget(owed, effects);
        has_waiting
    }

    /// PUBREC came: the message itself is no longer owed, its PUBREL is. `false` if no PUBLISH was under way.
    pub(crate) fn release(&mut self, key: SessionKey, packet_id: PacketId, effects: &mut Effects) -> bool {
        let durable_on = self.journal.is_on();
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let (connection, durable) = (session.connection, durable_on && session.is_durable());
        let Some(owed) = session.sender.as_mut().and_then(|sender| sender.get_mut(packet_id)) else {
            return false;
        };
        match owed.flow {
            SenderFlow::ExpectPubrec => {}
            // A repeated PUBREC: the same PUBREL again.
            SenderFlow::ExpectPubcomp => {
                if let Some(id) = connection {
                    self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
                }
                return true;
            }
            SenderFlow::ExpectDurableRelease => return true,
            _ => return false,
        }
        let message = owed.message.take();
        owed.flow = if durable {
            SenderFlow::ExpectDurableRelease
        } else {
            SenderFlow::ExpectPubcomp
        };
        let written = durable.then(|| owed.clone());
        if let Some(message) = message {
            self.let_go(message, effects);
        }
        if let Some(written) = written {
            self.write_reference(key, &written, Some(packet_id), false, effects);
            self.journal.hold(Gate::Send(self.sessions.reference(key), packet_id));
        } else if let Some(id) = connection {
            self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
        }
        true
    }

    /// Sends all that a Session is owed and may have now: first what was begun on an earlier connection, then what the journal
    /// had held, then its queue.
    pub(crate) fn pump(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        while let Some((id, quota)) = self.sendable(key) {
            let Some(session) = self.sessions.get_mut(key) else {
                return;
            };
            let holds = session.replays.as_ref().is_some_and(|replays| replays.holds_live);
            let Some(sender) = session.sender.as_deref_mut() else {
                return;
            };
            if let Some((packet_id, owed)) = sender.next_resend(quota) {
                let (flow, delivery) = (owed.flow, owed.delivery(Some(packet_id)));
                self.send_again(now, key, id, packet_id, flow, delivery, effects);
                continue;
            }
            if let Some(packet_id) = sender.released.pop_front() {
                self.send_released(now, key, id, packet_id, effects);
                continue;
            }
            let room = sender.has_room(quota, self.config.inflight_bytes_max);
            let Some(next) = sender.queue.front_qos() else { return };
            if holds || !(room || next == QoS::AtMostOnce) {
                return;
            }
            let Some(owed) = self.pop_queue(key) else { return };
            self.send_queued(now, key, id, owed, effects);
        }
        self.go_on_after_flush(key);
    }

    /// Takes up an exchange of an earlier connection where it stood [MQTT-4.4.0-1].
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of one entry of the window, already taken apart"
    )]
    fn send_again(
        &mut self,
        now: Now,
        key: SessionKey,
        id: ConnectionId,
        packet_id: PacketId,
        flow: SenderFlow,
        delivery: Option<Delivery>,
        effects: &mut Effects,
    ) {
        if flow == SenderFlow::ExpectPubcomp {
            return self.send_ack(id, AckKind::PubRel, packet_id, ReasonCode::Success, effects);
        }
        // What still waits for the journal is sent by its gate.
        let sendable = matches!(flow, SenderFlow::ExpectPuback | SenderFlow::ExpectPubrec);
        let Some(delivery) = delivery.filter(|_| sendable) else {
            return;
        };
        if !delivery.dup && delivery.message.is_expired(now) {
            drop(delivery);
            self.expire_unsent(key, packet_id, effects);
        } else if !self.send_publish(now, id, delivery, effects) {
            self.finish(key, packet_id, effects);
        }
    }

    fn send_queued(&mut self, now: Now, key: SessionKey, id: ConnectionId, owed: Owed, effects: &mut Effects) {
        let Some(message) = owed.message.clone() else { return };
        let expired = message.is_expired(now);
        let Some(session) = self.sessions.get(key) else { return };
        let allowed = expired || may(&mut self.rights, session, Action::Replay, message.topic());
        if expired || !allowed {
            self.stats.publish_expired += u64::from(expired);
            self.stats.deliver_unauthorized += u64::from(!allowed);
            if expired {
                self.note_rare(Rare::ExpiredInQueue);
            }
            drop(message);
            return self.forget(owed, effects);
        }
        drop(message);
        if owed.qos == QoS::AtMostOnce {
            if let Some(delivery) = owed.delivery(None) {
                self.send_publish(now, id, delivery, effects);
            }
            self.forget(owed, effects);
        } else {
            // It moves from the queue to the window; `begin` charges it anew.
            self.memory.refund(REFERENCE_BYTES);
            self.stats.stored_messages -= 1;
            self.begin(now, key, owed, effects);
        }
    }

    /// The connection and quota of a Session that can be sent to at the moment.
    pub(crate) fn sendable(&self, key: SessionKey) -> Option<(ConnectionId, u16)> {
        let id = self.sessions.get(key)?.connection?;
        let connection = self.connections.get(id)?;
        let ready =
            matches!(connection.state, State::Active(..)) && !connection.is_clogged(self.config.unsent_bytes_high);
        // What is not flushed yet is bounded too, so that one Session's replay cannot fill the tray.
        (ready && self.has_unsent_room(connection)).then_some((id, connection.quota))
    }

    pub(super) fn has_unsent_room(&self, connection: &Connection) -> bool {
        connection.unsent(self.epoch) < self.config.unsent_bytes_max / 2
    }

    /// A Session that could be sent to, but for what this turn has already put into its connection: it goes on after
    /// the flush.
    pub(crate) fn go_on_after_flush(&mut self, key: SessionKey) {
        let Some(id) = self.sessions.get(key).and_then(|session| session.connection) else {
            return;
        };
        let full = self
            .connections
            .get(id)
            .is_some_and(|connection| !connection.congested && !self.has_unsent_room(connection));
        if full
            && let Some(connection) = self.connections.get_mut(id)
            && !connection.marks.set(Marks::GOES_ON)
        {
            self.after_flush.push(self.sessions.reference(key));
        }
    }

    /// A Session was taken off the list of those that go on.
    pub(crate) fn clear_goes_on(&mut self, key: SessionKey) {
        if let Some(id) = self.sessions.get(key).and_then(|session| session.connection)
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.marks.take(Marks::GOES_ON);
        }
    }
}
