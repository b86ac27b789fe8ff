//! What the journal is told of Sessions and of the messages owed to them.

use alloc::boxed::Box;

use sol_codec::{PacketId, QoS};

use crate::clients::Clients;
use crate::effects::Effects;
use crate::ids::SessionKey;
use crate::record::{Record, RecordId, Reference, ReferenceState, SessionRecord};
use crate::session::sender::{Owed, SenderFlow};
use crate::time::{Now, UnixMillis};

impl Clients {
    /// Writes the reference of a message owed to a durable Session, and the body before the first of them.
    pub(super) fn keep(&mut self, key: SessionKey, owed: &mut Owed, effects: &mut Effects) {
        if !self.journal.is_on() || owed.record != RecordId(0) || owed.qos == QoS::AtMostOnce {
            return;
        }
        if self.sessions.get(key).is_some_and(|session| session.is_durable()) {
            owed.record = self.journal.next_id();
            self.write_reference(key, owed, None, true, effects);
        }
    }

    /// Puts the reference of an owed message as it stands now; the first one brings the body along, which lives as long
    /// as references follow each other.
    pub(super) fn write_reference(
        &mut self,
        key: SessionKey,
        owed: &Owed,
        packet_id: Option<PacketId>,
        is_first: bool,
        effects: &mut Effects,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        let state = match (owed.flow, packet_id) {
            (SenderFlow::ExpectPubcomp | SenderFlow::ExpectDurableRelease, Some(id)) => ReferenceState::Released(id),
            (SenderFlow::Queued, _) | (_, None) => ReferenceState::Queued,
            (_, Some(id)) => ReferenceState::Sent(id),
        };
        if let Some(message) = owed.message.as_ref().filter(|_| is_first) {
            self.journal.body(message, effects);
        }
        let more = owed.extra.as_ref().and_then(|extra| extra.subscription_ids.as_ref());
        let reference = Reference {
            session: session.record,
            body: owed.message.as_ref().map(|message| RecordId(message.body)),
            qos: owed.qos,
            retain: owed.retain,
            subscription_ids: owed
                .subscription_id
                .into_iter()
                .chain(more.into_iter().flat_map(|m| m.iter().copied()))
                .collect(),
            // A QoS 2 exchange that has begun stays with its Session.
            share: owed
                .share()
                .filter(|_| state == ReferenceState::Queued || owed.qos == QoS::AtLeastOnce)
                .map(|share| Box::new(share.clone())),
            state,
        };
        self.journal.emit(Record::Reference(owed.record, reference), effects);
    }

    /// Writes a Session as it stands now. One that need not survive any more keeps its record until it ends: what was
    /// written while it was durable refers to it.
    pub(crate) fn write_session(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        self.write_session_away(key, now.wall, effects);
    }

    /// The same for a Session that has been away since an earlier moment.
    pub(crate) fn write_session_away(&mut self, key: SessionKey, since: UnixMillis, effects: &mut Effects) {
        if !self.journal.is_on() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.record == RecordId(0) {
            if !session.is_durable() && session.will.is_none() {
                return;
            }
            session.record = self.journal.next_id();
        }
        let record = SessionRecord {
            client_id: (&*session.client_id).into(),
            username: session.username().map(Into::into),
            vouched: session.user.as_deref().is_some_and(|user| user.vouched),
            granted: session.user.as_deref().is_some_and(|user| user.granted),
            own_rules: session.own_rules().is_some(),
            listener: session.standing.get().listener(),
            expiry_interval: session.expiry_interval,
            disconnected_at: session.connection.is_none().then_some(since),
            will: session.will.as_deref().cloned(),
        };
        self.journal
            .emit(Record::Session(session.record, Box::new(record)), effects);
    }
}
