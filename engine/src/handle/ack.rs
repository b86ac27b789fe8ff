//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7). Acknowledgements of what is not under way change nothing.

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, PubAck, PubComp, PubRec, PubRel, ReasonCode};

use crate::effects::{AckKind, Effects};
use crate::engine::Engine;
use crate::ids::{ConnectionId, SessionKey};
use crate::journal::Gate;
use crate::session::acks::{Lane, Waiting};
use crate::session::sender::SenderFlow;
use crate::time::Now;

impl Engine {
    /// QoS 1 is done, whatever the Reason Code says [MQTT-4.4.0-2].
    pub(crate) fn on_puback(&mut self, now: Now, key: SessionKey, ack: &PubAck<'_>, effects: &mut Effects) {
        if ack.reason_code.is_error() && mutant("5.0/4.4.0-2") {
            return;
        }
        self.finish_expected(now, key, ack.packet_id, SenderFlow::ExpectPuback, effects);
    }

    /// QoS 2, first half: PUBREL follows [MQTT-4.3.3-4], or nothing after a failure [MQTT-4.4.0-2].
    pub(crate) fn on_pubrec(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: SessionKey,
        ack: &PubRec<'_>,
        effects: &mut Effects,
    ) {
        if ack.reason_code.is_error() && mutant("5.0/4.4.0-2") {
            return;
        }
        if ack.reason_code.is_error() {
            self.finish_expected(now, key, ack.packet_id, SenderFlow::ExpectPubrec, effects);
        } else if !self.clients.release(key, ack.packet_id, effects) {
            let reason = ReasonCode::PacketIdentifierNotFound;
            self.clients
                .send_ack(id, AckKind::PubRel, ack.packet_id, reason, effects);
        }
    }

    /// QoS 2 as receiver, second half: the identifier is free again [MQTT-4.3.3-11, -12].
    pub(crate) fn on_pubrel(&mut self, id: ConnectionId, key: SessionKey, ack: &PubRel<'_>, effects: &mut Effects) {
        let known = self.forget_inbound(key, ack.packet_id, effects);
        let reason = if known {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        if self.clients.journal.is_dirty() {
            let waiting = Waiting::new(ack.packet_id, reason, 1);
            if let Some(place) = self.clients.open_ack(key, Lane::PubComp, waiting) {
                let session = self.clients.sessions.reference(key);
                self.clients.journal.hold(Gate::Ack(session, place));
            }
        } else if self.clients.lane_is_free(key, Lane::PubComp) {
            self.clients
                .send_ack(id, AckKind::PubComp, ack.packet_id, reason, effects);
        } else {
            self.clients
                .open_ack(key, Lane::PubComp, Waiting::new(ack.packet_id, reason, 0));
        }
    }

    /// QoS 2 is done.
    pub(crate) fn on_pubcomp(&mut self, now: Now, key: SessionKey, ack: &PubComp<'_>, effects: &mut Effects) {
        self.finish_expected(now, key, ack.packet_id, SenderFlow::ExpectPubcomp, effects);
    }

    /// An exchange is over, if it stands where this acknowledgement belongs: its place in the window goes to whatever
    /// waits for one.
    fn finish_expected(
        &mut self,
        now: Now,
        key: SessionKey,
        packet_id: PacketId,
        flow: SenderFlow,
        effects: &mut Effects,
    ) {
        if self.clients.finish_expected(key, packet_id, flow, effects) {
            self.go_on(now, key, effects);
        }
    }

    /// A place in a Session's window has become free. While a replay is open every second one is its own: the queue may
    /// never be empty.
    pub(crate) fn go_on(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let session = self.clients.sessions.get_mut(key);
        let Some(replays) = session.and_then(|session| session.replays.as_mut()) else {
            return self.clients.pump(now, key, effects);
        };
        replays.favoured = !replays.favoured;
        if replays.favoured {
            self.replay(now, key, effects);
        }
        self.clients.pump(now, key, effects);
        self.replay(now, key, effects);
    }
}
