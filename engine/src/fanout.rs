//! The open fan-out, and the line behind it.
//!
//! A fan-out that does not fit the tray is cut: its targets are kept and the next ticks go on. Until it is done every
//! later publish waits in line, and its acknowledgement with it, so that order holds [MQTT-4.6.0-5]. There is never more
//! than one open fan-out.

use alloc::{collections::VecDeque, rc::Rc, vec::Vec};

use sol_codec::SubscriptionId;

use crate::clients::{Delivered, How};
use crate::effects::{Effects, Read};
use crate::engine::Engine;
use crate::ids::{ConnectionId, SessionKey, ShardId};
use crate::journal::Gate;
use crate::message::Message;
use crate::rights::Action;
use crate::route::{Publish, Source, is_own};
use crate::session::sender::Extra;
use crate::session::sessions::SessionRef;
use crate::subscription::Options;
use crate::time::Now;
use crate::topic_tree::Matches;

/// One Session that a message goes to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) session: SessionRef,
    pub(crate) options: Options,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) extra: Option<Rc<Extra>>,
}

/// A message and those it goes to.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) publish: Publish,
    pub(crate) targets: Vec<Target>,
    /// The first target that has not had it.
    pub(crate) next: usize,
    /// The tree's generation when the targets were found.
    pub(crate) generation: u64,
    pub(crate) refused: bool,
    /// It has emitted records.
    pub(crate) wrote: bool,
}

/// The open fan-out, the publishes behind it, and the connections that are not read because of them.
#[derive(Debug, Default)]
pub(crate) struct Line {
    open: Option<FanOut>,
    waiting: VecDeque<Publish>,
    paused: Vec<(Hold, ConnectionId)>,
}

/// Why a connection is not read for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The line is long.
    Line,
    /// A shard's mailbox is full.
    Shard(ShardId),
    /// Too many of its own acknowledgements wait.
    Acks,
}

impl Line {
    /// Whether a publish must wait.
    pub(crate) const fn is_busy(&self) -> bool {
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

    /// Puts a publish in line and returns how many wait.
    pub(crate) fn wait(&mut self, publish: Publish) -> usize {
        self.waiting.push_back(publish);
        self.waiting.len()
    }

    /// A paused connection has ended.
    pub(crate) fn forget_paused(&mut self, id: ConnectionId) {
        self.paused.retain(|&(_, paused)| paused != id);
    }
}

impl Engine {
    /// Pauses a connection until its cause is gone.
    pub(crate) fn pause(&mut self, id: ConnectionId, because_of: Hold) {
        if let Some(connection) = self.clients.connections.get_mut(id)
            && !connection.paused
        {
            connection.paused = true;
            self.line.paused.push((because_of, id));
        }
    }

    /// Resumes the connections that were paused for one cause.
    pub(crate) fn resume(&mut self, now: Now, because_of: Hold, effects: &mut Effects) {
        self.resume_if(now, |cause, _| cause == because_of, effects);
    }

    fn resume_if(&mut self, now: Now, is_free: impl Fn(Hold, ConnectionId) -> bool, effects: &mut Effects) {
        let Self { line, clients, .. } = self;
        line.paused.retain(|&(cause, id)| {
            if !is_free(cause, id) {
                return true;
            }
            if let Some(connection) = clients.connections.get_mut(id) {
                connection.paused = false;
                // Its Keep Alive did not run while we would not listen.
                connection.last_heard = now.mono;
                effects.reads.push(Read::Resume(id));
            }
            false
        });
    }

    /// Whether so many acknowledgements of a client wait that it has to wait too: it is paused then.
    pub(crate) fn pause_for_acks(&mut self, id: ConnectionId, key: SessionKey) -> bool {
        // Most packets open no acknowledgement that waits.
        if !core::mem::take(&mut self.clients.lane_is_long)
            || self.longest_lane(key) < self.clients.config.acks_waiting_max
        {
            return false;
        }
        self.pause(id, Hold::Acks);
        true
    }

    /// Acknowledgements of a Session have left: its client goes on once half of them are gone.
    pub(crate) fn resume_for_acks(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let connection = self.clients.sessions.get(key).and_then(|session| session.connection);
        if let Some(id) = connection
            && self
                .clients
                .connections
                .get(id)
                .is_some_and(|connection| connection.paused)
            && self.longest_lane(key) <= self.clients.config.acks_waiting_max / 2
        {
            self.resume_if(now, |cause, paused| cause == Hold::Acks && paused == id, effects);
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
        let may_refuse = matches!(
            fanout.publish.source,
            Source::Client { may_refuse: true, .. } | Source::Shard { may_refuse: true, .. }
        );
        self.review_targets(fanout);
        while let Some(target) = fanout.targets.get(fanout.next) {
            if effects.transmits.len() >= self.clients.config.tray_max {
                fanout.wrote |= self.clients.journal.is_dirty();
                return false;
            }
            fanout.next += 1;
            let Some(key) = self.clients.sessions.resolve(target.session) else {
                continue;
            };
            let how = How {
                options: target.options,
                subscription_id: target.subscription_id,
                extra: target.extra.clone(),
                may_refuse,
                tries_others: false,
                action: Action::Deliver,
            };
            let delivered = self.clients.deliver(now, key, &fanout.publish.message, &how, effects);
            fanout.refused |= delivered == Delivered::Refused;
        }
        fanout.wrote |= self.clients.journal.is_dirty();
        true
    }

    /// Subscriptions have changed since the targets were found: those whose every matching Subscription has ended are no
    /// targets any more [MQTT-3.10.4-1], and the others get what is left of theirs.
    fn review_targets(&mut self, fanout: &mut FanOut) {
        if self.tree.generation() == fanout.generation {
            return;
        }
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
                Some(standing) => standing.merge(options, id),
                None => {
                    standing = Some(Target {
                        session: target.session,
                        options,
                        subscription_id: id,
                        extra: None,
                    });
                }
            }
        }
        standing
    }

    /// Goes on with the open fan-out, then with the line behind it, as far as the tray has room.
    pub(crate) fn continue_line(&mut self, now: Now, effects: &mut Effects) {
        while let Some(mut fanout) = self.line.open.take() {
            if !self.continue_fanout(now, &mut fanout, effects) {
                self.line.open = Some(fanout);
                break;
            }
            let FanOut {
                publish,
                refused,
                wrote,
                ..
            } = fanout;
            self.clients.let_go(publish.message, effects);
            self.settle(now, publish.source, refused, wrote, effects);
            self.route_waiting(now, effects);
        }
        if self.line.waiting.len() <= self.clients.config.fanout_waiting_max / 2 && !self.line.paused.is_empty() {
            self.resume(now, Hold::Line, effects);
        }
    }

    /// Routes what waits, up to the next fan-out that is cut.
    fn route_waiting(&mut self, now: Now, effects: &mut Effects) {
        while !self.line.is_busy()
            && let Some(publish) = self.line.waiting.pop_front()
        {
            let source = publish.source.without_groups();
            let dirty_before = self.clients.journal.is_dirty();
            let outcome = self.route(now, publish, effects);
            if let Source::Client { ack: Some(who), .. } = source {
                self.wait_for_posted(who, effects);
            }
            if !outcome.cut {
                let wrote = dirty_before || self.clients.journal.is_dirty();
                self.settle(now, source, outcome.refused, wrote, effects);
            }
        }
    }

    /// Lets a waiting acknowledgement wait for the forwards of the latest publish too.
    pub(crate) fn wait_for_posted(&mut self, who: (SessionRef, crate::session::acks::Place), _effects: &mut Effects) {
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

    /// A message has been routed: whoever waits for that is told, or waits on for the journal.
    pub(crate) fn settle(&mut self, now: Now, source: Source, refused: bool, wrote: bool, effects: &mut Effects) {
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
                let held = wrote && !refused && self.clients.journal.hold(Gate::Forward(from, n));
                if !held {
                    self.links.settle(from, n, refused, effects);
                }
            }
            _ => {}
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
