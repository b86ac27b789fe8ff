//! Retained messages: kept on the home shard of their topic, replayed page by page.

use alloc::{
    boxed::Box,
    rc::Rc,
    string::{String, ToString as _},
    vec::Vec,
};

use sol_codec::mutants::mutant;
use sol_codec::{PacketId, QoS};

use crate::clients::Clients;
use crate::connection::Marks;
use crate::effects::{Delivery, Effects};
use crate::engine::Engine;
use crate::event::Event;
use crate::ids::{ConnectionId, SessionKey, ShardId};
use crate::memory::RETAINED_BYTES;
use crate::message::{Message, Origin};
use crate::rare::{DropCause, Rare};
use crate::record::{Record, RecordId};
use crate::retained::Page;
use crate::rights::authors::{Author, AuthorId, Authors};
use crate::rights::{Action, Rights, may};
use crate::route::Publish;
use crate::session::replay::{Replay, Replays};
use crate::session::sender::{Owed, SenderFlow};
use crate::session::sessions::SessionRef;
use crate::shard_message::ShardMessage;
use crate::stats::Stats;
use crate::time::{Now, UnixMillis};

/// Topics that one Session's replay may look at before others have their turn, and one answer to another shard.
const PAGE_STEPS: usize = 4_096;
/// Bytes of messages after which a page for another shard ends: they are copies, and lie there while the Session's client
/// does not read.
const PAGE_BYTES_MAX: usize = 64 << 10;

/// What one Session's replay may still do before others have their turn.
struct Budget {
    messages: usize,
    steps: usize,
}

/// A retained message and its record.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) message: Rc<Message>,
    pub(crate) record: RecordId,
}

/// A question for one page of the retained messages that live here.
#[derive(Debug)]
pub(crate) enum Question {
    /// Of a Session's replay here, which knows the rest.
    Here { id: u64 },
    /// Of another shard.
    There {
        from: ShardId,
        /// The asker's name for it.
        id: u64,
        filter: String,
        /// Where the last page ended.
        after: Option<String>,
    },
}

impl Engine {
    /// Keeps or clears the retained message of a topic that is at home here [MQTT-3.3.1-5, -6, -7]. `false`: there is
    /// no room for it, in memory or on the disk.
    pub(crate) fn store_retained(
        &mut self,
        now: Now,
        publish: &Publish,
        author: Option<Box<Author>>,
        effects: &mut Effects,
    ) -> bool {
        let message = &publish.message;
        if message.payload().is_empty() && !mutant("5.0/3.3.1-6") || message.is_expired(now) {
            match self.retained.remove(message.topic()) {
                Some(old) => self.forget_retained(old, effects),
                None => self.clients.journal.depend(),
            }
            return true;
        }
        let is_full = self.clients.journal.is_full;
        if self.has_no_room_for(publish) && self.retained.get(message.topic()).is_none()
            || is_full && publish.source.may_refuse()
        {
            return false;
        }
        let written = author.clone().filter(|_| self.clients.journal.is_on());
        let author = author.map_or(AuthorId::NONE, |author| self.keep_author(*author));
        let expiry = self.clients.config.retained_expiry;
        let expiry = expiry.filter(|_| message.expires_at == UnixMillis::NEVER);
        let message = if message.is_exact() && message.charged > 0 && expiry.is_none() {
            Rc::clone(message)
        } else {
            let mut exact = message.exact();
            if let Some(seconds) = expiry {
                // Another message than the one that goes out now, which does not expire.
                exact.expires_at = now.wall.plus_seconds(seconds);
            } else {
                exact.body = message.body;
            }
            self.clients.charge_message(&mut exact);
            Rc::new(exact)
        };
        message.author.set(author);
        let mut record = RecordId(0);
        // What the broker says of itself is true of this process alone. And at QoS 0 nothing is promised: where there is no
        // room it is kept in memory, and what it replaces goes from the disk.
        let is_written = message.origin != Origin::BROKER && !(is_full && message.qos == QoS::AtMostOnce);
        if self.clients.journal.is_on() && is_written {
            record = self.retained.get(message.topic()).map_or(record, |old| old.record);
            if record == RecordId(0) {
                record = self.clients.journal.next_id();
            }
            self.clients.journal.body(&message, effects);
            let retained = Record::Retained {
                id: record,
                body: RecordId(message.body),
                author: written,
            };
            self.clients.journal.emit(retained, effects);
        }
        if message.expires_at != UnixMillis::NEVER && !self.sweeping {
            self.sweeping = true;
            self.start_sweeping(now);
        }
        let kept = Kept {
            message: Rc::clone(&message),
            record,
        };
        if let Some(old) = self.retained.set(message.topic(), kept) {
            if old.record != record {
                self.clients.journal.delete(old.record, effects);
            }
            self.release_author(&old.message);
            self.clients.let_go(old.message, effects);
        } else {
            self.clients.memory.charge(RETAINED_BYTES + message.topic().len());
        }
        true
    }

    /// Whether there is no memory for one retained topic more. What its publisher takes for kept, since it is acknowledged
    /// and no refusal can be said, is kept until memory is full: then such a publisher waits.
    fn has_no_room_for(&mut self, publish: &Publish) -> bool {
        if publish.source.may_refuse() || publish.message.qos == QoS::AtMostOnce {
            self.clients.memory.is_tight()
        } else {
            self.clients.memory.is_full()
        }
    }

    /// A retained message was removed.
    fn forget_retained(&mut self, old: Kept, effects: &mut Effects) {
        self.clients.memory.refund(RETAINED_BYTES + old.message.topic().len());
        if old.record == RecordId(0) {
            // What it had replaced may still be on the disk.
            self.clients.journal.depend();
        }
        self.clients.journal.delete(old.record, effects);
        self.release_author(&old.message);
        self.clients.let_go(old.message, effects);
    }

    /// By whose rights a Session publishes what is to be retained.
    pub(crate) fn author(&self, key: SessionKey) -> Option<Box<Author>> {
        self.clients.rights.author(self.clients.sessions.get(key)?)
    }

    pub(crate) fn keep_author(&mut self, author: Author) -> AuthorId {
        let (id, bytes) = self.authors.keep(author);
        self.clients.memory.charge(bytes);
        id
    }

    fn release_author(&mut self, message: &Message) {
        self.clients.memory.refund(self.authors.release(message.author.get()));
    }

    /// A retained message was not kept and its publisher cannot be told: it is counted, and told to the log at the first
    /// and at doubling counts.
    pub(crate) fn count_unkept(&mut self, topic: &str, effects: &mut Effects) {
        self.clients.note_rare(Rare::NotRetained);
        self.clients.count_dropped(DropCause::NotRetained);
        self.unkept += 1;
        if self.unkept.is_power_of_two() {
            effects.events.push(Event::NotRetained {
                topic: topic.into(),
                count: self.unkept,
            });
        }
    }

    /// The SUBACK of a SUBSCRIBE has left: its replays may begin.
    pub(crate) fn start_replays(&mut self, now: Now, key: SessionKey, packet_id: PacketId, effects: &mut Effects) {
        if let Some(session) = self.clients.sessions.get_mut(key)
            && let Some(replays) = &mut session.replays
        {
            replays.start(packet_id);
            self.replay(now, key, effects);
        }
    }

    /// Goes on with a Session's replay, as far as its flow control and one page's worth of work allow, in one page of a
    /// wildcard or in many of exact filters.
    pub(crate) fn replay(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let mut budget = self.new_budget();
        let bytes_max = self.clients.config.inflight_bytes_max;
        while let Some((id, quota)) = self.clients.sendable(key) {
            let Some(session) = self.clients.sessions.get_mut(key) else {
                return;
            };
            let is_held = session.is_durable() && self.clients.journal.is_full;
            let Some(replays) = session.replays.as_mut() else {
                return;
            };
            let first = replays.holds_live || replays.favoured;
            let Some(replay) = replays.active() else {
                return;
            };
            if let Some(message) = replay.page.front() {
                let qos = self.clients.config.qos_out_max(message.qos).min(replay.options.qos());
                // Live messages that wait for the replay's end must not hold it up.
                let free = session
                    .sender
                    .as_ref()
                    .is_none_or(|s| (first || s.queue.is_empty()) && s.has_room(quota, bytes_max));
                if qos > QoS::AtMostOnce {
                    if !free {
                        return;
                    }
                    if is_held {
                        return self.hold_replay(key);
                    }
                    replays.favoured = false;
                }
                self.replay_one(now, key, id, qos, effects);
                continue;
            }
            if replay.asked.is_some() {
                return;
            }
            if replay.shards.is_empty() {
                self.end_replay(now, key, effects);
                continue;
            }
            if budget.messages == 0 || budget.steps == 0 {
                return self.go_on_next_tick(key, id);
            }
            self.next_page(now, key, &mut budget, effects);
        }
        self.clients.go_on_after_flush(key);
    }

    fn new_budget(&self) -> Budget {
        Budget {
            messages: self.clients.config.retained_page_max.max(1),
            steps: PAGE_STEPS,
        }
    }

    /// A Session's replay goes on in the next tick, after those that wait already.
    pub(crate) fn go_on_next_tick(&mut self, key: SessionKey, id: ConnectionId) {
        if let Some(connection) = self.clients.connections.get_mut(id)
            && !connection.marks.set(Marks::GOES_ON)
        {
            let session = self.clients.sessions.reference(key);
            self.replaying.push_back(session);
        }
    }

    /// Sends the first message of the page at hand, unless it is stale, expired or not for this Session.
    fn replay_one(&mut self, now: Now, key: SessionKey, id: ConnectionId, qos: QoS, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(replays) = session.replays.as_mut() else {
            return;
        };
        let Some(replay) = replays.active() else { return };
        let (subscription_id, Some(message)) = (replay.subscription_id, replay.page.pop_front()) else {
            return;
        };
        let stale = replays.has_seen(message.topic().as_bytes()) && !mutant("shards/page-after-fresh");
        if stale {
            self.clients.rares.note(Rare::PageOvertaken);
        }
        if stale || message.is_expired(now) {
            return self.clients.let_go(message, effects);
        }
        if !may(&mut self.clients.rights, session, Action::Retained, message.topic()) {
            self.clients.stats.retained_unauthorized += 1;
            return self.clients.let_go(message, effects);
        }
        if qos == QoS::AtMostOnce {
            let mut delivery = Delivery::new(message, qos, true);
            delivery.subscription_id = subscription_id;
            self.clients.send_publish(now, id, delivery, effects);
        } else {
            let owed = Owed {
                message: Some(message),
                extra: None,
                record: RecordId(0),
                subscription_id,
                qos,
                retain: true,
                flow: SenderFlow::Queued,
                dup: false,
            };
            self.clients.begin(now, key, owed, effects);
        }
    }

    /// Fetches the next page: from here at once, from another shard by a question.
    fn next_page(&mut self, now: Now, key: SessionKey, budget: &mut Budget, effects: &mut Effects) {
        let reference = self.clients.sessions.reference(key);
        let Some(replays) = self.replays_mut(key) else { return };
        replays.begin();
        let Some(replay) = replays.active() else { return };
        let Some(&shard) = replay.shards.last() else { return };
        // What another shard sent before it knew of the Subscription may be in the line, and does not come to it but so.
        if shard == self.shard && self.line.len() == 0 {
            return self.take_page(now, key, budget);
        }
        self.last_query += 1;
        let id = self.last_query;
        if let Some(replay) = self.replays_mut(key).and_then(Replays::active) {
            replay.asked = Some(id);
        }
        if shard == self.shard {
            self.queries.insert(id, reference);
            self.line.put_question(Question::Here { id });
        } else if self.clients.memory.is_full() {
            self.clients.note_rare(Rare::QuestionHeld);
            self.hold_question(id, reference);
        } else {
            self.ask_shard(id, reference, effects);
        }
    }

    pub(crate) fn replays_mut(&mut self, key: SessionKey) -> Option<&mut Replays> {
        self.clients.sessions.get_mut(key)?.replays.as_deref_mut()
    }

    /// The replay that a question is for, if it still is.
    fn asking(&mut self, id: u64, session: SessionRef) -> Option<&mut Replay> {
        let key = self.clients.sessions.resolve(session)?;
        self.replays_mut(key)?.asked(id)
    }

    /// Takes the next page from here: what is retained is shared, so it takes no memory.
    fn take_page(&mut self, now: Now, key: SessionKey, budget: &mut Budget) {
        let Self {
            clients,
            retained,
            authors,
            work,
            ..
        } = self;
        let Clients {
            sessions,
            rights,
            stats,
            ..
        } = clients;
        let replays = sessions.get_mut(key).and_then(|s| s.replays.as_mut());
        let Some(replay) = replays.and_then(|replays| replays.active()) else {
            return;
        };
        let (steps, page) = (budget.steps, &mut replay.page);
        let mut given = 0;
        let (filter, after) = (&replay.filter, replay.after.as_deref());
        let end = retained.page_within(filter, after, budget.messages, &mut budget.steps, |_, kept| {
            given += 1;
            if !kept.message.is_expired(now) && is_still_right(rights, authors, stats, kept) {
                page.push_back(Rc::clone(&kept.message));
            }
            true
        });
        budget.messages -= given.min(budget.messages);
        *work += steps - budget.steps;
        replay.turn_page(end);
    }

    /// Asks another shard for a replay's next page.
    fn ask_shard(&mut self, id: u64, session: SessionRef, effects: &mut Effects) {
        let Some(replay) = self.asking(id, session) else { return };
        let Some(&shard) = replay.shards.last() else { return };
        let (filter, after) = (replay.filter.to_string(), replay.after.clone());
        self.queries.insert(id, session);
        effects
            .forwards
            .push((shard, ShardMessage::RetainedQuery { id, filter, after }));
    }

    /// A question waits for memory. Those whose replay has ended go before the list grows: it is never much longer than
    /// there are Sessions.
    fn hold_question(&mut self, id: u64, session: SessionRef) {
        if self.unasked.len() == self.unasked.capacity() {
            let mut unasked = core::mem::take(&mut self.unasked);
            unasked.retain(|&(id, session)| self.asking(id, session).is_some());
            unasked.reserve(unasked.len() + 1);
            self.unasked = unasked;
        }
        self.unasked.push_back((id, session));
    }

    /// There is memory: questions that waited for it are asked, as far as this call's work goes.
    pub(crate) fn ask_unasked(&mut self, effects: &mut Effects) {
        while !self.unasked.is_empty()
            && !self.clients.memory.is_full()
            && !self.has_done_enough(effects)
            && let Some((id, session)) = self.unasked.pop_front()
        {
            self.work += 1;
            self.ask_shard(id, session, effects);
        }
    }

    /// Another shard asks for a page. What it has posted before may still be in the line, and must be in the answer.
    pub(crate) fn on_question(&mut self, now: Now, question: Question, effects: &mut Effects) {
        if self.line.len() > 0 && !mutant("shards/question-overtakes") {
            self.clients.note_rare(Rare::QuestionInLine);
            self.line.put_question(question);
        } else {
            self.answer_question(now, question, effects);
        }
    }

    pub(crate) fn answer_question(&mut self, now: Now, question: Question, effects: &mut Effects) {
        match question {
            Question::Here { id } => self.answer_here(now, id, effects),
            Question::There {
                from,
                id,
                filter,
                after,
            } => {
                let (messages, more) = self.page_for_shard(now, &filter, after.as_deref());
                effects
                    .forwards
                    .push((from, ShardMessage::RetainedPage { id, messages, more }));
            }
        }
    }

    /// The turn of a Session's replay here has come.
    fn answer_here(&mut self, now: Now, id: u64, effects: &mut Effects) {
        let Some(session) = self.queries.remove(&id) else {
            return;
        };
        let Some(key) = self.clients.sessions.resolve(session) else {
            return self.clients.note_rare(Rare::PageForNobody);
        };
        let Some(replay) = self.asking(id, session) else { return };
        replay.asked = None;
        let mut budget = self.new_budget();
        self.take_page(now, key, &mut budget);
        self.replay(now, key, effects);
    }

    /// Copies of what matches a filter, and where to go on, if there is more.
    fn page_for_shard(&mut self, now: Now, filter: &str, after: Option<&str>) -> (Vec<Message>, Option<String>) {
        let mut messages = Vec::new();
        let (mut bytes, mut steps) = (0, PAGE_STEPS);
        let page_max = self.clients.config.retained_page_max;
        let Clients { rights, stats, .. } = &mut self.clients;
        let authors = &self.authors;
        let end = self
            .retained
            .page_within(filter, after, page_max, &mut steps, |_, kept| {
                if !kept.message.is_expired(now) && is_still_right(rights, authors, stats, kept) {
                    bytes += kept.message.charge();
                    messages.push(kept.message.clone_for_shard());
                }
                bytes < PAGE_BYTES_MAX
            });
        self.work += PAGE_STEPS - steps;
        match end {
            Page::Done => (messages, None),
            Page::More(after) => (messages, Some(after)),
        }
    }

    /// A page came.
    pub(crate) fn on_retained_page(
        &mut self,
        now: Now,
        id: u64,
        messages: Vec<Message>,
        more: Option<String>,
        effects: &mut Effects,
    ) {
        let Some(session) = self.queries.remove(&id) else {
            return;
        };
        let Some(key) = self.clients.sessions.resolve(session) else {
            return self.clients.note_rare(Rare::PageForNobody);
        };
        if self.asking(id, session).is_none() {
            return;
        }
        // Many may have been asked for while there was memory.
        if !messages.is_empty() && self.clients.memory.is_full() {
            self.clients.note_rare(Rare::PageThrownAway);
            return self.hold_question(id, session);
        }
        let Clients { sessions, memory, .. } = &mut self.clients;
        let replays = sessions.get_mut(key).and_then(|session| session.replays.as_mut());
        let Some(replay) = replays.and_then(|replays| replays.asked(id)) else {
            return;
        };
        replay.page.extend(messages.into_iter().map(|mut message| {
            message.charged = u32::try_from(message.charge()).unwrap_or(u32::MAX);
            memory.charge(message.charged as usize);
            Rc::new(message)
        }));
        replay.asked = None;
        replay.turn_page(more.map_or(Page::Done, Page::More));
        self.replay(now, key, effects);
    }

    /// A Subscription has all its retained messages. When no replay is open, live messages that were held go out.
    fn end_replay(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(replays) = session.replays.as_mut() else {
            return;
        };
        let (done, is_last) = replays.finish();
        if is_last {
            session.replays = None;
        }
        if let Some(filter) = done {
            self.write_replay_end(key, &filter, effects);
        }
        if is_last {
            self.clients.pump(now, key, effects);
        }
    }

    /// Replays that used up their work in an earlier call, in turn, as far as this call's work goes.
    pub(crate) fn continue_replays(&mut self, now: Now, effects: &mut Effects) {
        for _ in 0..self.replaying.len() {
            if self.has_done_enough(effects) {
                return;
            }
            let Some(session) = self.replaying.pop_front() else {
                return;
            };
            self.work += 1;
            if let Some(key) = self.clients.sessions.resolve(session) {
                self.clients.clear_goes_on(key);
                self.clients.pump(now, key, effects);
                self.replay(now, key, effects);
            }
        }
    }

    /// Removes retained messages that have expired, a bounded slice at a time.
    pub(crate) fn sweep_retained(&mut self, now: Now, effects: &mut Effects) {
        let mut expired = Vec::new();
        let after = self.sweep_after.take();
        let end = self
            .retained
            .page("#", after.as_deref(), PAGE_STEPS, PAGE_STEPS, |_, kept| {
                if kept.message.is_expired(now) {
                    expired.push(Rc::clone(&kept.message));
                }
            });
        if let Page::More(next) = end {
            self.sweep_after = Some(next);
        }
        if !expired.is_empty() {
            self.clients.note_rare(Rare::RetainedSwept);
        }
        for message in expired {
            if let Some(old) = self.retained.remove(message.topic()) {
                self.clients.stats.publish_expired += 1;
                self.forget_retained(old, effects);
            }
            self.clients.let_go(message, effects);
        }
    }
}

/// Whether whoever published what is retained still may; who may not is counted.
fn is_still_right(rights: &Rights, authors: &Authors, stats: &mut Stats, kept: &Kept) -> bool {
    let still_may = authors.still_may(rights, kept.message.author.get(), kept.message.topic());
    stats.retained_unauthorized += u64::from(!still_may);
    still_may
}
