//! Acknowledgements that wait by count: how they are opened, counted down, and leave.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use sol_codec::{PacketId, ProtocolVersion, ReasonCode};

use crate::clients::Clients;
use crate::connection::State;
use crate::effects::{AckKind, Effects, Outgoing};
use crate::engine::Engine;
use crate::ids::SessionKey;
use crate::journal::Gate;
use crate::rare::Rare;
use crate::session::acks::{Lane, Place, Waiting};
use crate::session::sessions::SessionRef;
use crate::time::Now;
use crate::topic_tree::FilterKey;

/// Acknowledgements that wait until all shards have confirmed an announcement, by its number.
#[derive(Debug, Default)]
pub(crate) struct Confirmations {
    waiting: BTreeMap<u64, Vec<(SessionRef, Place)>>,
    /// The latest announcement of each filter that is not confirmed yet.
    latest: BTreeMap<FilterKey, u64>,
    /// The same in the order of their numbers, and with filters that were forgotten since.
    filters: VecDeque<(u64, FilterKey)>,
}

impl Confirmations {
    pub(crate) fn add(&mut self, n: u64, who: (SessionRef, Place)) {
        self.waiting.entry(n).or_default().push(who);
    }

    /// Remembers that a filter was announced.
    pub(crate) fn remember(&mut self, filter: FilterKey, n: u64) {
        self.filters.push_back((n, filter));
        self.latest.insert(filter, n);
    }

    /// The announcement that a filter still waits for; 0 when it is confirmed.
    pub(crate) fn number_of(&self, filter: FilterKey) -> u64 {
        self.latest.get(&filter).copied().unwrap_or(0)
    }

    /// The filter has nobody left; its key may become another filter's.
    pub(crate) fn forget(&mut self, filter: FilterKey) {
        self.latest.remove(&filter);
    }

    fn pop_upto(&mut self, confirmed: u64) -> Option<Vec<(SessionRef, Place)>> {
        while let Some(&(n, filter)) = self.filters.front()
            && n <= confirmed
        {
            self.filters.pop_front();
            if self.latest.get(&filter) == Some(&n) {
                self.latest.remove(&filter);
            }
        }
        let entry = self.waiting.first_entry()?;
        (*entry.key() <= confirmed).then(|| entry.remove())
    }
}

impl Clients {
    /// Whether an acknowledgement of this kind may leave at once.
    pub(crate) fn lane_is_free(&self, key: SessionKey, lane: Lane) -> bool {
        self.sessions
            .get(key)
            .is_none_or(|session| session.acks.as_ref().is_none_or(|acks| acks.is_free(lane)))
    }

    /// Puts an acknowledgement in its lane, to leave when its count is down to zero.
    pub(crate) fn open_ack(&mut self, key: SessionKey, lane: Lane, waiting: Waiting) -> Option<Place> {
        let acks = self.sessions.get_mut(key)?.acks.get_or_insert_default();
        let place = acks.push(lane, waiting);
        self.lane_is_long |= acks.longest() >= self.config.acks_waiting_max;
        Some(place)
    }

    /// Has an acknowledgement told that waits already; see [`Acks::ask_again`](crate::session::acks::Acks::ask_again).
    pub(crate) fn ask_again(&mut self, key: SessionKey, lane: Lane, packet_id: PacketId) -> bool {
        let Some(acks) = self.sessions.get_mut(key).and_then(|session| session.acks.as_mut()) else {
            return false;
        };
        let waits = acks.ask_again(lane, packet_id);
        self.lane_is_long |= acks.longest() >= self.config.acks_waiting_max;
        waits
    }

    pub(crate) fn ack_mut(&mut self, key: SessionKey, place: Place) -> Option<&mut Waiting> {
        self.sessions.get_mut(key)?.acks.as_mut()?.get_mut(place)
    }
}

impl Waiting {
    pub(crate) const fn new(packet_id: PacketId, reason_code: ReasonCode, waits: u32) -> Self {
        Self {
            packet_id,
            reason_code,
            reason_codes: Vec::new(),
            waits,
            muted: false,
            repeats: false,
        }
    }
}

impl Engine {
    /// One completion of a waiting acknowledgement has come; `refused` turns a success into 0x97.
    pub(crate) fn complete(&mut self, now: Now, who: (SessionRef, Place), refused: bool, effects: &mut Effects) {
        let Some(key) = self.clients.sessions.resolve(who.0) else {
            return self.clients.note_rare(Rare::AckForGone);
        };
        let Some(waiting) = self.clients.ack_mut(key, who.1) else {
            return;
        };
        waiting.waits = waiting.waits.saturating_sub(1);
        if refused && !waiting.reason_code.is_error() {
            waiting.reason_code = ReasonCode::QuotaExceeded;
        }
        if waiting.waits > 0 || self.waits_for_end_of_inbound(key, who, effects) {
            return;
        }
        self.leave(now, key, who.1.lane, effects);
    }

    /// A client that is refused may use its Packet Identifier for another message [MQTT-4.3.3-9]: before it is told, a restart
    /// has to know no more of this one. Whether that has to be waited for.
    fn waits_for_end_of_inbound(&mut self, key: SessionKey, who: (SessionRef, Place), effects: &mut Effects) -> bool {
        let Some(waiting) = self.clients.ack_mut(key, who.1) else {
            return false;
        };
        let is_refused = who.1.lane == Lane::PubRec && waiting.reason_code.is_error() && !waiting.repeats;
        let packet_id = waiting.packet_id;
        let ends = is_refused && self.unwrite_inbound(key, packet_id, effects);
        if !ends || !self.clients.journal.hold(Gate::Ack(who.0, who.1)) {
            return false;
        }
        if let Some(waiting) = self.clients.ack_mut(key, who.1) {
            waiting.waits = 1;
        }
        true
    }

    /// Lets all acknowledgements of a lane leave whose turn it is.
    pub(crate) fn leave(&mut self, now: Now, key: SessionKey, lane: Lane, effects: &mut Effects) {
        while let Some(session) = self.clients.sessions.get_mut(key)
            && let Some(acks) = &mut session.acks
        {
            let Some(ready) = acks.pop_ready(lane) else {
                if acks.is_empty() {
                    session.acks = None;
                }
                return self.resume_for_acks(now, key, effects);
            };
            self.send_ready(now, key, lane, ready, effects);
        }
    }

    fn send_ready(&mut self, now: Now, key: SessionKey, lane: Lane, ready: Waiting, effects: &mut Effects) {
        let kind = match lane {
            Lane::PubAck => AckKind::PubAck,
            Lane::PubRec => AckKind::PubRec,
            Lane::PubComp => AckKind::PubComp,
            Lane::SubAck | Lane::UnsubAck => return self.send_filters_ack(now, key, lane, ready, effects),
        };
        let is_refused = ready.reason_code.is_error();
        // The identifier of one that only repeats may be another message's by now.
        if lane == Lane::PubRec && is_refused && !ready.repeats {
            self.forget_inbound(key, ready.packet_id, effects);
        }
        // A QoS 1 message that came again is another one, of which something else may have become.
        if lane == Lane::PubRec
            && (ready.muted || is_refused)
            && !ready.repeats
            && let Some(session) = self.clients.sessions.get_mut(key)
            && let Some(acks) = &mut session.acks
        {
            acks.repeat(lane, ready.packet_id, ready.reason_code);
        }
        if ready.muted {
            return self.clients.note_rare(Rare::AckMuted);
        }
        if let Some(id) = self.clients.sessions.get(key).and_then(|session| session.connection) {
            self.acknowledge(id, kind, ready.packet_id, ready.reason_code, effects);
        }
    }

    /// Sends a PUBACK, PUBREC or PUBCOMP. What a 3.x client cannot be told is counted instead.
    pub(crate) fn acknowledge(
        &mut self,
        id: crate::ids::ConnectionId,
        kind: AckKind,
        packet_id: PacketId,
        reason_code: ReasonCode,
        effects: &mut Effects,
    ) {
        let v5 = self
            .clients
            .connections
            .get(id)
            .is_some_and(|c| c.version == ProtocolVersion::V5);
        if reason_code == ReasonCode::QuotaExceeded && v5 {
            self.clients.stats.publish_refused += 1;
        }
        self.clients.send_ack(id, kind, packet_id, reason_code, effects);
    }

    fn send_filters_ack(&mut self, now: Now, key: SessionKey, lane: Lane, ready: Waiting, effects: &mut Effects) {
        let connection = self.clients.sessions.get(key).and_then(|session| session.connection);
        if let Some(id) = connection
            && !ready.muted
        {
            self.send_codes(id, lane, ready.packet_id, ready.reason_codes, effects);
        }
        if lane == Lane::SubAck {
            self.start_replays(now, key, ready.packet_id, effects);
        }
    }

    pub(crate) fn send_codes(
        &mut self,
        id: crate::ids::ConnectionId,
        lane: Lane,
        packet_id: PacketId,
        reason_codes: Vec<ReasonCode>,
        effects: &mut Effects,
    ) {
        let bytes = (reason_codes.len() as u32).saturating_add(8);
        let reason_codes = alloc::boxed::Box::new(reason_codes);
        let packet = match lane {
            Lane::SubAck => Outgoing::SubAck {
                packet_id,
                reason_codes,
            },
            _ => Outgoing::UnsubAck {
                packet_id,
                reason_codes,
            },
        };
        self.clients.send(id, packet, bytes, effects);
    }

    /// Another shard has confirmed announcements: what waited for the last of them goes on.
    pub(crate) fn on_confirmed(&mut self, now: Now, effects: &mut Effects) {
        let confirmed = self.links.confirmed();
        while let Some(waiting) = self.confirmations.pop_upto(confirmed) {
            for who in waiting {
                self.complete(now, who, false, effects);
            }
        }
        self.settle_overdue(now, effects);
    }

    /// Records are on stable storage: what they held goes on.
    pub(crate) fn on_durable(&mut self, now: Now, gate: Gate, effects: &mut Effects) {
        match gate {
            Gate::Ack(session, place) => self.complete(now, (session, place), false, effects),
            Gate::Send(session, packet_id) => {
                if let Some(key) = self.clients.send_held(now, session, packet_id, effects) {
                    self.go_on(now, key, effects);
                }
            }
            Gate::Forward(from, n) => self.links.settle(from, n, false, effects),
            Gate::Connect(id) => {
                let waits = self
                    .clients
                    .connections
                    .get(id)
                    .is_some_and(|c| matches!(c.state, State::ExpectDurable(..)));
                if waits {
                    self.activate(now, id, effects);
                    effects.reads.push(crate::effects::Read::Resume(id));
                }
            }
        }
    }
}
