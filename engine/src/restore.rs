//! From the journal's records to an engine that goes on where the last one stopped.

use alloc::{boxed::Box, collections::BTreeMap, rc::Rc, sync::Arc, vec::Vec};
use core::cell::Cell;

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, QoS, TopicFilter};

use crate::clients::Reason;
use crate::effects::Effects;
use crate::engine::Engine;
use crate::ids::{SessionKey, ShardId};
use crate::memory::{REFERENCE_BYTES, RETAINED_BYTES, SESSION_BYTES};
use crate::message::Message;
use crate::record::{Record, RecordId, Reference, ReferenceState, RestoreError, SessionRecord, SubscriptionRecord};
use crate::retaining::Kept;
use crate::rights::Standing;
use crate::rights::authors::{Author, AuthorId};
use crate::rights::rules::Rules;
use crate::session::replay::Replay;
use crate::session::sender::{Extra, Owed, SenderFlow};
use crate::session::sessions::SessionRef;
use crate::session::{Session, User};
use crate::shard_message::ShardMessage;
use crate::subscription::Options;
use crate::time::{Now, UnixMillis, after};

/// Of the SUBSCRIBE of an earlier process: nobody waits for its SUBACK.
const NOBODYS: PacketId = PacketId::new(1).unwrap();

/// Sessions whose Will or end is overdue after a restart.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    sessions: Vec<SessionRef>,
    /// They wait until all shards have confirmed this announcement, and so told of their interest.
    after: u64,
}

impl Overdue {
    pub(crate) const fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// What is needed between the first record and the last.
#[derive(Debug, Default)]
pub(crate) struct Restoring {
    sessions: BTreeMap<RecordId, SessionKey>,
    bodies: BTreeMap<RecordId, Rc<Message>>,
    away_since: Vec<(SessionKey, Option<UnixMillis>)>,
    announcements: Vec<(ShardId, ShardMessage)>,
    /// Records that another one stands beside: the end of one waited for other shards, and the other was written meanwhile.
    doubles: Vec<RecordId>,
    /// A retained message can expire.
    expires: bool,
}

/// Whether a delivery is sent, and that only once its record is durable, behind all that was queued before. A replay of retained
/// messages overtakes what is queued.
fn is_in_order(qos: QoS, retain: bool) -> bool {
    qos == QoS::ExactlyOnce && !retain
}

impl Engine {
    /// Replays one record that the journal has kept. Call it for each, in the order of [`Record`]'s variants, references
    /// of a Session in the order they were put; then [`Engine::restored`] once, before any other call.
    ///
    /// # Errors
    /// The records do not belong together; the engine must not be used.
    pub fn restore(&mut self, record: Record) -> Result<(), RestoreError> {
        self.clients.journal.seen(record.id());
        match record {
            Record::Session(id, session) => self.restore_session(id, *session),
            Record::Subscription(id, subscription) => self.restore_subscription(id, &subscription)?,
            Record::Body(id, message) => {
                self.restoring.bodies.insert(id, message);
            }
            Record::Retained { id, body, author } => self.restore_retained(id, body, author)?,
            Record::Reference(id, _) if id.0.is_multiple_of(16) && mutant("journal/reference-lost") => {
                self.restoring.doubles.push(id);
            }
            Record::Reference(id, reference) => self.restore_reference(id, &reference)?,
            Record::Inbound { id, .. } if mutant("journal/inbound-forgotten") => self.restoring.doubles.push(id),
            Record::Inbound { id, session, packet_id } => {
                let key = self.restored_session(session)?;
                if let Some(session) = self.clients.sessions.get_mut(key) {
                    session.inbound.restore(packet_id, id);
                    self.clients.memory.charge(REFERENCE_BYTES);
                }
            }
            Record::Delete(id) => return Err(RestoreError::Deletion(id)),
        }
        Ok(())
    }

    /// All records are replayed: other shards are told of interest. Overdue Wills and expiries happen once all shards
    /// have told of theirs, so that whoever subscribed to a Will gets it.
    pub fn restored(&mut self, now: Now, effects: &mut Effects) {
        let Restoring {
            away_since,
            mut announcements,
            bodies,
            expires,
            doubles,
            ..
        } = core::mem::take(&mut self.restoring);
        if !mutant("journal/interest-untold") {
            effects.forwards.append(&mut announcements);
        }
        for record in doubles.into_iter().filter(|_| !mutant("journal/doubles-kept")) {
            self.clients.journal.delete(record, effects);
        }
        self.announce_all(effects);
        for body in bodies.into_values() {
            self.clients.let_go(body, effects);
        }
        if expires {
            self.sweeping = true;
            self.start_sweeping(now);
        }
        for (key, since) in away_since {
            self.restore_deadlines(now, key, since, effects);
        }
        if self.links.is_alone() {
            self.settle_overdue(now, effects);
        } else if !self.overdue.sessions.is_empty() {
            self.overdue.after = self.links.announce_nothing(effects);
        }
        self.start_marking();
        self.clients.journal.end_of_call();
    }

    /// Publishes Wills and ends Sessions whose time passed while the broker was down, if all shards have been heard.
    pub(crate) fn settle_overdue(&mut self, now: Now, effects: &mut Effects) {
        if self.overdue.sessions.is_empty() || self.links.confirmed() < self.overdue.after {
            return;
        }
        for session in core::mem::take(&mut self.overdue.sessions) {
            let Some(key) = self.clients.sessions.resolve(session) else {
                continue;
            };
            let Some(session) = self.clients.sessions.get(key) else {
                continue;
            };
            let expires = session.timers.as_ref().is_some_and(|timers| timers.expiry.is_some());
            if session.connection.is_some() {
                // Its client was faster.
            } else if expires || session.expiry_interval == u32::MAX {
                self.on_will_delay(now, key, effects);
            } else {
                self.clients.stats.clients_expired += 1;
                self.end_session(now, key, effects);
            }
        }
    }

    /// Tells this engine of a record that another one restores, so that its identifier is not given out again: an
    /// identifier stays with its record, which may change its shard. Tell every engine of every record.
    pub fn note_record_id(&mut self, id: RecordId) {
        self.clients.journal.seen(id);
    }

    fn restored_session(&self, id: RecordId) -> Result<SessionKey, RestoreError> {
        self.restoring
            .sessions
            .get(&id)
            .copied()
            .ok_or(RestoreError::UnknownSession(id))
    }

    fn restored_body(&mut self, id: RecordId) -> Result<Rc<Message>, RestoreError> {
        let body = self
            .restoring
            .bodies
            .get_mut(&id)
            .ok_or(RestoreError::UnknownBody(id))?;
        if body.charged == 0 || body.author.get() != AuthorId::NONE {
            let mut exact = body.exact();
            exact.body = id.0;
            self.clients.charge_message(&mut exact);
            *body = Rc::new(exact);
        }
        Ok(Rc::clone(body))
    }

    fn restore_session(&mut self, id: RecordId, record: SessionRecord) {
        // An older one's end was not kept, so nobody was told that there is another: a CONNACK waits for all before it.
        if self.clients.sessions.find(&record.client_id).is_some() {
            return self.restoring.doubles.push(id);
        }
        self.clients.memory.charge(SESSION_BYTES + record.client_id.len());
        let key = self.clients.sessions.insert(Session {
            origin: self.placement.origin(&record.client_id),
            client_id: record.client_id.into_boxed_str(),
            user: None,
            standing: Cell::new(Standing::at(record.listener)),
            generation: 0,
            expiry_interval: record.expiry_interval,
            connection: None,
            sender: None,
            inbound: Default::default(),
            acks: None,
            replays: None,
            subscriptions: None,
            will: None,
            timers: None,
            record: id,
            mark: 0,
            mark_target: 0,
        });
        // What may be queued for it is judged when it is sent, by what its next login allows. Till then it writes nothing.
        let rules = record.own_rules.then(|| Arc::new(Rules::for_reading()));
        let user = record.username.map(|name| User {
            rules,
            granted: record.granted,
            ..User::new(name, record.vouched)
        });
        if self.clients.set_user(key, user) {
            self.start_marking();
        }
        let will = record.will.filter(|_| !mutant("journal/will-forgotten"));
        self.clients.set_will(key, will.map(Box::new));
        self.restoring.sessions.insert(id, key);
        self.restoring.away_since.push((key, record.disconnected_at));
    }

    fn restore_subscription(&mut self, id: RecordId, record: &SubscriptionRecord) -> Result<(), RestoreError> {
        let key = self.restored_session(record.session)?;
        let filter = TopicFilter::new(&record.filter).map_err(|_| RestoreError::InvalidFilter(id))?;
        let options = Options(record.options & !SubscriptionRecord::REPLAYS);
        let mut effects = Effects::default();
        match filter.shared() {
            Some((share, plain)) => {
                let (plain, share) = (plain.as_str(), share.as_str());
                let group = self.join_group(key, plain, share, options, record.subscription_id);
                if !self.links.is_alone() {
                    self.untold.add(group);
                }
            }
            None => {
                self.add_subscription(key, filter.as_str(), options, record.subscription_id, &mut effects);
            }
        }
        self.restoring.announcements.append(&mut effects.forwards);
        if let Some(session) = self.clients.sessions.get_mut(key) {
            let known = session.subscriptions_mut().records.insert(record.filter.clone(), id);
            self.restoring.doubles.extend(known);
        }
        // At QoS 0 nothing is promised, and its end would not be written; a Shared Subscription has no replay.
        let is_due = record.options & SubscriptionRecord::REPLAYS != 0
            && options.qos() > QoS::AtMostOnce
            && filter.shared().is_none();
        if is_due && self.clients.config.retain_available {
            let shards = self.shards_to_replay(filter);
            let replay = Replay::new(&record.filter, options, record.subscription_id, shards, NOBODYS);
            if let Some(session) = self.clients.sessions.get_mut(key) {
                session.replays.get_or_insert_default().restore(replay);
            }
        }
        Ok(())
    }

    fn restore_retained(
        &mut self,
        id: RecordId,
        body: RecordId,
        author: Option<Box<Author>>,
    ) -> Result<(), RestoreError> {
        let message = self.restored_body(body)?;
        if let Some(author) = author {
            let author = self.keep_author(*author);
            message.author.set(author);
        }
        let kept = Kept {
            message: Rc::clone(&message),
            record: id,
        };
        self.restoring.expires |= message.expires_at != UnixMillis::NEVER;
        if let Some(old) = self.retained.set(message.topic(), kept) {
            self.restoring.doubles.push(old.record);
            self.clients.let_go(old.message, &mut Effects::default());
        } else {
            self.clients.memory.charge(RETAINED_BYTES + message.topic().len());
        }
        Ok(())
    }

    fn restore_reference(&mut self, id: RecordId, reference: &Reference) -> Result<(), RestoreError> {
        let key = self.restored_session(reference.session)?;
        let message = reference.body.map(|body| self.restored_body(body)).transpose()?;
        let (flow, packet_id) = match reference.state {
            ReferenceState::Queued => (SenderFlow::Queued, None),
            // What was queued before it had to be sent first, and was not: neither was this [MQTT-4.6.0-5].
            ReferenceState::Sent(_)
                if is_in_order(reference.qos, reference.retain) && self.has_queued_in_order(key) =>
            {
                (SenderFlow::Queued, None)
            }
            ReferenceState::Sent(packet_id) if reference.qos == QoS::ExactlyOnce => {
                (SenderFlow::ExpectPubrec, Some(packet_id))
            }
            ReferenceState::Sent(packet_id) => (SenderFlow::ExpectPuback, Some(packet_id)),
            ReferenceState::Released(packet_id) => (SenderFlow::ExpectPubcomp, Some(packet_id)),
        };
        let mut ids = reference.subscription_ids.iter().copied();
        let subscription_id = ids.next();
        let more: Vec<_> = ids.collect();
        let extra = Extra {
            subscription_ids: (!more.is_empty()).then(|| Rc::new(more)),
            share: reference.share.as_deref().cloned(),
        };
        let owed = Owed {
            message,
            extra: (extra != Extra::default()).then(|| Rc::new(extra)),
            record: id,
            subscription_id,
            qos: reference.qos,
            retain: reference.retain,
            flow,
            dup: packet_id.is_some(),
        };
        self.clients.memory.charge(REFERENCE_BYTES);
        self.clients.stats.stored_messages += 1;
        if let Some(session) = self.clients.sessions.get_mut(key) {
            let sender = session.sender_mut();
            match packet_id {
                Some(packet_id) => sender.restore(packet_id, owed),
                None => sender.queue.push_back(owed),
            }
        }
        Ok(())
    }

    fn has_queued_in_order(&self, key: SessionKey) -> bool {
        let session = self.clients.sessions.get(key);
        let mut queued = session
            .and_then(|session| session.sender.as_ref())
            .into_iter()
            .flat_map(|sender| sender.queue.flags());
        queued.any(|(qos, retain)| is_in_order(qos, retain))
    }

    /// A Session that was connected when the broker died counts as disconnected now: never shorter than promised.
    fn restore_deadlines(&mut self, now: Now, key: SessionKey, since: Option<UnixMillis>, effects: &mut Effects) {
        let reference = self.clients.sessions.reference(key);
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let passed = since.map_or(0, |since| {
            (now.wall.as_millis().saturating_sub(since.as_millis()) / 1_000) as u32
        });
        let expiry = session.expiry_interval;
        let will_left = session
            .will
            .as_ref()
            .map(|will| will.delay.min(expiry).saturating_sub(passed));
        if expiry != u32::MAX {
            if expiry <= passed {
                return self.overdue.sessions.push(reference);
            }
            let timer = self
                .clients
                .timers
                .insert(after(now, expiry - passed), Reason::SessionExpiry(reference));
            self.clients.away_timers(key, |timers| timers.expiry = Some(timer));
        }
        match will_left {
            Some(0) => self.overdue.sessions.push(reference),
            Some(left) => {
                let timer = self
                    .clients
                    .timers
                    .insert(after(now, left), Reason::WillDelay(reference));
                self.clients.away_timers(key, |timers| timers.will = Some(timer));
            }
            None => {}
        }
        self.clients.write_session_away(key, since.unwrap_or(now.wall), effects);
    }
}
