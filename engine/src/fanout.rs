//! The open fan-out, and the line behind it.
//!
//! A fan-out that does not fit the tray, or takes more steps than one call should, is cut: its targets are kept and the
//! next ticks go on. Until it is done every later publish waits in line, and its acknowledgement with it, so that order
//! holds [MQTT-4.6.0-5]. There is never more than one open fan-out. Questions for retained messages wait as well, since
//! what waits before them may be kept or clear something.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    vec::Vec,
};
use core::time::Duration;

use sol_codec::mutants::mutant;
use sol_codec::{QoS, SubscriptionId};

use crate::clients::{Clients, Delivered, How, Reason};
use crate::connection::Connection;
use crate::effects::{Effects, Read};
use crate::engine::Engine;
use crate::ids::{ConnectionId, SessionKey, ShardId};
use crate::input::Flow;
use crate::journal::{Gate, Transaction};
use crate::message::Message;
use crate::rare::{DropCause, Rare};
use crate::retaining::Question;
use crate::rights::authors::Author;
use crate::route::{Outcome, Publish, Source, is_own};
use crate::session::acks::Place;
use crate::session::sender::Extra;
use crate::session::sessions::SessionRef;
use crate::subscription::Options;
use crate::time::Now;
use crate::timer_wheel::TimerKey;
use crate::topic_tree::{GroupKey, Matches};

/// One Session that a message goes to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) session: SessionRef,
    pub(crate) options: Options,
    pub(crate) subscription_id: Option<SubscriptionId>,
    /// The rules by which the Session may read all that one of its filters matches.
    pub(crate) readable: u16,
    pub(crate) extra: Option<Rc<Extra>>,
}

/// A message and those it goes to.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) publish: Publish,
    pub(crate) targets: Vec<Target>,
    /// The first target that has not had it.
    pub(crate) next: usize,
    /// Shared Subscriptions of which no member has had it.
    pub(crate) groups: Vec<GroupKey>,
    /// The tree's generation when the targets were found.
    pub(crate) generation: u64,
    pub(crate) refused: bool,
    /// It has emitted records, or found done what earlier calls have emitted.
    pub(crate) wrote: bool,
    /// It has found done what earlier calls have emitted: its answer waits for all of that.
    pub(crate) depends: bool,
}

/// The open fan-out, the publishes behind it, and the connections that are not read because of them.
#[derive(Debug, Default)]
pub(crate) struct Line {
    open: Option<FanOut>,
    /// Each with whose rights it was published by, where it is to be retained.
    waiting: VecDeque<(Publish, Option<Box<Author>>)>,
    /// How many have waited and gone their way.
    gone: u64,
    /// Questions for what is retained, each with how many must have gone their way before it is answered.
    questions: VecDeque<(u64, Question)>,
    /// Why each is, and when our patience ends.
    paused: BTreeMap<ConnectionId, (Hold, TimerKey)>,
    /// Connections that are not read because they send faster than they may, and when each is read again. They may be all
    /// there are, and no cause that ends for many is theirs: nobody goes through them.
    slowed: BTreeMap<ConnectionId, TimerKey>,
}

/// Why a connection is not read for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The line is long.
    Line,
    /// A shard's mailbox is full.
    Shard(ShardId),
    /// A shard has not got round to much that it is to retain.
    Retaining(ShardId),
    /// Too many of its own acknowledgements wait.
    Acks,
    /// Too much waits for the journal.
    Journal,
}

impl Line {
    /// Whether a publish must wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.is_some() || !self.waiting.is_empty()
    }

    /// Whoever the open fan-out is for is looked at again before it goes on.
    pub(crate) const fn review(&mut self) {
        if let Some(fanout) = &mut self.open {
            fanout.generation = u64::MAX;
        }
    }

    /// How many publishes wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a connection is to be resumed.
    pub(crate) fn has_paused(&self, id: ConnectionId) -> bool {
        self.paused.contains_key(&id) || self.slowed.contains_key(&id)
    }

    /// How many connections are to be resumed.
    pub(crate) fn paused_len(&self) -> usize {
        self.paused.len() + self.slowed.len()
    }

    /// A question waits for what is in the line now.
    pub(crate) fn put_question(&mut self, question: Question) {
        self.questions
            .push_back((self.gone + self.waiting.len() as u64, question));
    }

    /// Whether questions wait.
    pub(crate) fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// The next question that waits for nothing any more.
    fn next_question(&mut self) -> Option<Question> {
        let (after, _) = self.questions.front()?;
        if *after > self.gone {
            return None;
        }
        self.questions.pop_front().map(|(_, question)| question)
    }

    pub(crate) const fn has_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn open(&mut self, fanout: FanOut) {
        debug_assert!(self.open.is_none(), "one open fan-out at a time");
        self.open = Some(fanout);
    }

    /// The source of the open fan-out, to hang an acknowledgement on it.
    pub(crate) fn open_source(&mut self) -> Option<&mut Source> {
        self.open.as_mut().map(|fanout| &mut fanout.publish.source)
    }
}

impl Engine {
    /// Puts a publish in line, charged while it is there, and returns how many wait.
    pub(crate) fn wait_in_line(
        &mut self,
        mut publish: Publish,
        author: Option<Box<Author>>,
        effects: &mut Effects,
    ) -> usize {
        self.clients.keep_message(&mut publish.message, effects);
        self.line.waiting.push_back((publish, author));
        self.line.waiting.len()
    }

    /// Puts a publish in line whose origin cannot be paused: where too many wait, QoS 0 is dropped and counted. While
    /// there is memory that is not done to what is to be retained: what it replaces or clears would stay
    /// [MQTT-3.3.1-5, -6]. Of that another shard sends no more than we have answered, and a little.
    pub(crate) fn wait_in_line_or_drop(
        &mut self,
        publish: Publish,
        author: Option<Box<Author>>,
        effects: &mut Effects,
    ) {
        let full = self.line.waiting.len() >= self.clients.config.fanout_waiting_max;
        let droppable = !publish.is_to_be_retained() || self.clients.memory.is_full();
        if full && droppable && publish.message.qos == QoS::AtMostOnce {
            self.clients.note_rare(Rare::LineDropped);
            self.clients.count_dropped(DropCause::LineLong);
            self.clients.let_go(publish.message, effects);
            // Others wait for the part that would have come of it.
            self.clients.journal.enter(publish.transaction, true, effects);
            self.clients.journal.leave(true, effects);
            if let Source::Shard { from, n, .. } = publish.source {
                self.links.settle(from, n, false, effects);
            }
        } else {
            self.wait_in_line(publish, author, effects);
        }
    }

    /// Pauses a connection until its cause is gone.
    pub(crate) fn pause(&mut self, now: Now, id: ConnectionId, because_of: Hold) {
        if matches!(because_of, Hold::Retaining(_)) {
            self.clients.note_rare(Rare::RetainingHeld);
        }
        let time = self.clients.config.pause_time_max;
        if let Some(timer) = self.pause_for(now, id, time, Reason::Paused(id)) {
            self.line.paused.insert(id, (because_of, timer));
        }
    }

    /// Pauses a connection, and has something done if it still is after a while. `None`: it is paused already, or gone.
    fn pause_for(&mut self, now: Now, id: ConnectionId, time: Duration, then: Reason) -> Option<TimerKey> {
        let may_pause = |connection: &&mut Connection| !connection.paused;
        let connection = self.clients.connections.get_mut(id).filter(may_pause)?;
        connection.paused = true;
        Some(self.clients.timers.insert(now.mono.saturating_add(time), then))
    }

    /// A client sends faster than it may: it is not read for so long.
    pub(crate) fn on_hurried(&mut self, now: Now, id: ConnectionId, time: Duration) -> Flow {
        let time = time.min(self.clients.config.pause_time_max);
        let Some(timer) = self.pause_for(now, id, time, Reason::Hurried(id)) else {
            return Flow::Go;
        };
        self.line.slowed.insert(id, timer);
        self.clients.stats.rate_pauses += 1;
        Flow::Stop
    }

    /// It has waited, and is read again.
    pub(crate) fn on_waited(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        if self.line.slowed.remove(&id).is_some() {
            self.clients.read_on(now, id, effects);
        }
    }

    /// Resumes the connections that were paused for one cause.
    pub(crate) fn resume(&mut self, now: Now, because_of: Hold, effects: &mut Effects) {
        let Self { line, clients, .. } = self;
        line.paused.retain(|&id, &mut (cause, timer)| {
            if cause != because_of {
                return true;
            }
            clients.timers.cancel(timer);
            clients.read_on(now, id, effects);
            false
        });
    }

    /// A connection that is paused ends.
    pub(crate) fn forget_paused(&mut self, id: ConnectionId) {
        let paused = self.line.paused.remove(&id).map(|(_, timer)| timer);
        if let Some(timer) = paused.or_else(|| self.line.slowed.remove(&id)) {
            self.clients.timers.cancel(timer);
        }
    }

    /// Whether so many acknowledgements of a client wait that it has to wait too: it is paused then.
    pub(crate) fn pause_for_acks(&mut self, now: Now, id: ConnectionId, key: SessionKey) -> bool {
        if self.longest_lane(key) < self.clients.config.acks_waiting_max {
            return false;
        }
        self.clients.note_rare(Rare::AcksLong);
        self.pause(now, id, Hold::Acks);
        true
    }

    /// Acknowledgements of a Session have left: its client goes on once half of them are gone.
    pub(crate) fn resume_for_acks(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let connection = self.clients.sessions.get(key).and_then(|session| session.connection);
        if let Some(id) = connection
            && let Some(&(Hold::Acks, timer)) = self.line.paused.get(&id)
            && self.longest_lane(key) <= self.clients.config.acks_waiting_max / 2
        {
            self.line.paused.remove(&id);
            self.clients.timers.cancel(timer);
            self.clients.read_on(now, id, effects);
        }
    }

    fn longest_lane(&self, key: SessionKey) -> usize {
        let session = self.clients.sessions.get(key);
        session
            .and_then(|session| session.acks.as_ref())
            .map_or(0, |acks| acks.longest())
    }

    /// Hands out what fits the tray. `true`: all targets have it.
    pub(crate) fn continue_fanout(&mut self, now: Now, fanout: &mut FanOut, effects: &mut Effects) -> bool {
        let may_refuse = fanout.publish.source.may_refuse();
        self.review_targets(fanout);
        while let Some(target) = fanout.targets.get(fanout.next) {
            if self.has_done_enough(effects) {
                self.note_written(fanout);
                return false;
            }
            self.work += 1;
            fanout.next += 1;
            let Some(key) = self.clients.sessions.resolve(target.session) else {
                self.clients.note_rare(Rare::FanoutTargetGone);
                continue;
            };
            let message = &fanout.publish.message;
            if self.clients.is_withheld(target.readable, key, message) {
                continue;
            }
            let how = How {
                options: target.options,
                subscription_id: target.subscription_id,
                extra: target.extra.clone(),
                tries_others: false,
                tells_publisher: may_refuse,
            };
            let delivered = self.clients.deliver(now, key, message, &how, effects);
            fanout.refused |= delivered == Delivered::Refused;
        }
        let all = self.continue_shared(now, fanout, effects);
        self.note_written(fanout);
        all
    }

    fn note_written(&self, fanout: &mut FanOut) {
        fanout.wrote |= self.clients.journal.is_dirty();
        fanout.depends |= self.clients.journal.depends();
    }

    /// Goes on with the Shared Subscriptions of a fan-out. `true`: all have it.
    fn continue_shared(&mut self, now: Now, fanout: &mut FanOut, effects: &mut Effects) -> bool {
        let mut outcome = Outcome::default();
        while !self.has_done_enough(effects)
            && let Some(group) = fanout.groups.pop()
        {
            self.share_one(now, &fanout.publish, group, &mut outcome, effects);
        }
        fanout.refused |= outcome.refused;
        if self.has_posts() {
            self.forget_posted();
            self.send_posts(&fanout.publish, effects);
            if let Source::Client { ack: Some(who), .. } = fanout.publish.source {
                self.wait_for_posted(who);
            }
        }
        fanout.groups.is_empty()
    }

    /// Subscriptions have changed since the targets were found: those whose every matching Subscription has ended are no
    /// targets any more [MQTT-3.10.4-1], and the others get what is left of theirs.
    fn review_targets(&mut self, fanout: &mut FanOut) {
        if self.tree.generation() == fanout.generation {
            return;
        }
        self.clients.note_rare(Rare::FanoutReviewed);
        let message = &fanout.publish.message;
        let mut matches = self.scratch.matches.take().unwrap_or_default();
        matches.clear();
        let hash = self.tree.topic_hash(message.topic());
        self.tree.matches(message.topic(), hash, &mut matches);
        fanout.targets.drain(..fanout.next);
        fanout.next = 0;
        fanout
            .targets
            .retain_mut(|target| match self.as_it_stands(target, &matches, message) {
                Some(standing) => {
                    *target = standing;
                    true
                }
                None => false,
            });
        matches.groups.sort_unstable();
        fanout
            .groups
            .retain(|group| matches.groups.binary_search(group).is_ok());
        fanout.generation = self.tree.generation();
        self.scratch.matches = Some(matches);
    }

    /// A target by those of its Subscriptions that are there now.
    fn as_it_stands(&self, target: &Target, matches: &Matches, message: &Message) -> Option<Target> {
        let mut standing: Option<Target> = None;
        for &filter in &matches.filters {
            let subscribers = self.tree.subscribers(filter);
            let at = subscribers.binary_search_by_key(&target.session.key, |subscription| subscription.session);
            let Some(subscription) = at.ok().and_then(|at| subscribers.get(at)) else {
                continue;
            };
            let options = Options(subscription.options);
            if options.no_local() && is_own(&self.clients, subscription, message) {
                continue;
            }
            let id = SubscriptionId::new(subscription.sub_id);
            match &mut standing {
                Some(standing) => standing.merge(options, id, subscription.readable),
                None => {
                    standing = Some(Target {
                        session: target.session,
                        options,
                        subscription_id: id,
                        readable: subscription.readable,
                        extra: None,
                    });
                }
            }
        }
        standing
    }

    /// Goes on with the open fan-out, then with the line behind it and the questions in it, as far as this call's work
    /// goes.
    pub(crate) fn continue_line(&mut self, now: Now, effects: &mut Effects) {
        loop {
            if let Some(mut fanout) = self.line.open.take() {
                if fanout.publish.message.is_late(now) {
                    // Those who have not had it by now do not get it [MQTT-3.3.2-5].
                    let left = fanout.targets.len() - fanout.next + fanout.groups.len();
                    self.clients.note_rare(Rare::ExpiredInFanout);
                    self.clients.stats.publish_expired += left as u64;
                    fanout.targets.truncate(fanout.next);
                    fanout.groups.clear();
                }
                let transaction = fanout.publish.transaction;
                self.clients.journal.enter(transaction, true, effects);
                if !self.continue_fanout(now, &mut fanout, effects) {
                    self.clients.journal.leave(false, effects);
                    self.line.open = Some(fanout);
                    break;
                }
                let FanOut {
                    publish,
                    refused,
                    wrote,
                    depends,
                    ..
                } = fanout;
                self.clients.let_go(publish.message, effects);
                if depends {
                    self.clients.journal.depend();
                }
                self.settle(now, publish.source, transaction, refused, wrote, effects);
                self.clients.journal.leave(true, effects);
            }
            if self.has_done_enough(effects) {
                break;
            }
            // Before what came behind it: else a line that is never empty would hold it up for ever.
            if let Some(question) = self.line.next_question() {
                self.work += 1;
                self.answer_question(now, question, effects);
                continue;
            }
            let Some((publish, author)) = self.line.waiting.pop_front() else {
                break;
            };
            self.line.gone += 1;
            self.work += 1;
            self.route_of(author, |engine| engine.route_and_settle(now, publish, effects));
        }
        if self.line.waiting.len() <= self.clients.config.fanout_waiting_max / 2 && !self.line.paused.is_empty() {
            self.resume(now, Hold::Line, effects);
        }
    }

    /// Routes a publish whose acknowledgement, if there is one, waits already; and settles it unless its fan-out is cut.
    pub(crate) fn route_and_settle(&mut self, now: Now, publish: Publish, effects: &mut Effects) {
        let source = publish.source.without_groups();
        let transaction = publish.transaction;
        self.clients.journal.enter(transaction, true, effects);
        let outcome = self.route(now, publish, effects);
        if let Source::Client { ack: Some(who), .. } = source {
            self.wait_for_posted(who);
        }
        if !outcome.cut {
            let wrote = self.clients.journal.is_dirty();
            self.settle(now, source, transaction, outcome.refused, wrote, effects);
        }
        self.clients.journal.leave(!outcome.cut, effects);
    }

    /// Lets a waiting acknowledgement wait for the forwards of the latest publish too.
    pub(crate) fn wait_for_posted(&mut self, who: (SessionRef, Place)) {
        if mutant("shards/taken-ignored") {
            return;
        }
        let posted = core::mem::take(&mut self.scratch.posted);
        if let Some(key) = self.clients.sessions.resolve(who.0)
            && let Some(waiting) = self.clients.ack_mut(key, who.1)
        {
            waiting.waits += posted.len() as u32;
            for &(shard, n) in &posted {
                self.links.await_answer(shard, n, who);
            }
        }
        self.scratch.posted = posted;
    }

    /// A message has been routed: whoever waits for that is told, or waits on for the journal. The shard that began a
    /// transaction waits for all of it, and so need not wait for the parts of others.
    fn settle(
        &mut self,
        now: Now,
        source: Source,
        transaction: Option<Transaction>,
        refused: bool,
        wrote: bool,
        effects: &mut Effects,
    ) {
        match source {
            Source::Client { ack: Some(who), .. } => {
                if wrote
                    && self.clients.journal.hold(Gate::Ack(who.0, who.1))
                    && let Some(key) = self.clients.sessions.resolve(who.0)
                    && let Some(waiting) = self.clients.ack_mut(key, who.1)
                {
                    waiting.waits += 1;
                }
                self.complete(now, who, refused, effects);
            }
            Source::Shard { from, n, .. } if n > 0 => {
                let waits = !refused && (wrote && transaction.is_none() || self.clients.journal.depends());
                let held = waits && self.clients.journal.hold(Gate::Forward(from, n));
                if !held {
                    self.links.settle(from, n, refused, effects);
                }
            }
            _ => {}
        }
    }
}

impl Clients {
    /// A connection is not paused any more. Its Keep Alive did not run while we would not listen.
    fn read_on(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.paused = false;
            connection.last_heard = now.mono;
            effects.reads.push(Read::Resume(id));
        }
    }
}

impl Source {
    /// What is needed of a source after its message was routed.
    fn without_groups(&self) -> Self {
        match self {
            Self::Client {
                connection,
                may_refuse,
                ack,
            } => Self::Client {
                connection: *connection,
                may_refuse: *may_refuse,
                ack: *ack,
            },
            &Self::Shard {
                from,
                n,
                route,
                retain,
                may_refuse,
                ..
            } => Self::Shard {
                from,
                n,
                route,
                retain,
                may_refuse,
                groups: Vec::new(),
            },
            Self::Broker => Self::Broker,
        }
    }
}
