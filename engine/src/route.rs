//! One message → deliveries here, forwards elsewhere.
//!
//! The cost is one hash, one lookup, one walk of the trie bounded by the topic's depth, and what the matches cost
//! themselves: Sessions and Subscriptions that are not meant add nothing.

use alloc::{boxed::Box, rc::Rc, string::String, vec::Vec};
use core::mem::take;

use sol_codec::mutants::{mutant, planted};
use sol_codec::{QoS, SubscriptionId};

use crate::clients::{Delivered, How};
use crate::effects::Effects;
use crate::engine::Engine;
use crate::fanout::{FanOut, Target};
use crate::ids::{ConnectionId, ShardId};
use crate::journal::Transaction;
use crate::last_route;
use crate::message::Message;
use crate::rights::authors::Author;
use crate::session::acks::Place;
use crate::session::sender::Extra;
use crate::session::sessions::SessionRef;
use crate::shard_message::{GroupPick, ShardMessage};
use crate::subscription::Options;
use crate::time::Now;
use crate::topic_tree::{FilterKey, GroupKey, Matches, Subscription};

/// A message on its way, and who waits for what becomes of it.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) message: Rc<Message>,
    pub(crate) source: Source,
    /// What is written down because of it is a part of this.
    pub(crate) transaction: Option<Transaction>,
}

impl Publish {
    /// Whether it is to be retained and no acknowledgement waits for that.
    pub(crate) fn is_retained_unacknowledged(&self) -> bool {
        self.message.qos == QoS::AtMostOnce && self.is_to_be_retained()
    }

    /// Whether it is kept or clears what is, here or at its topic's home.
    pub(crate) fn is_to_be_retained(&self) -> bool {
        match self.source {
            Source::Shard { retain, .. } => retain,
            _ => self.message.retain,
        }
    }
}

/// Where a message came from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A client of this shard; the place of its acknowledgement, if that waits already.
    Client {
        connection: ConnectionId,
        may_refuse: bool,
        ack: Option<(SessionRef, Place)>,
    },
    /// Another shard.
    Shard {
        from: ShardId,
        n: u64,
        route: bool,
        retain: bool,
        groups: Vec<GroupPick>,
        may_refuse: bool,
    },
    /// A Will, or the broker itself.
    Broker,
}

impl Source {
    pub(crate) const fn may_refuse(&self) -> bool {
        match self {
            Self::Client { may_refuse, .. } | Self::Shard { may_refuse, .. } => *may_refuse,
            Self::Broker => false,
        }
    }

    /// Whether a refusal by another shard reaches the publisher: only its own shard waits for the answers of others.
    const fn hears_of_refusals(&self) -> bool {
        matches!(self, Self::Client { may_refuse: true, .. })
    }
}

/// What became of a message so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Somebody subscribed to it.
    pub(crate) matched: bool,
    /// At least one Session could not take it, and the publisher wants to know.
    pub(crate) refused: bool,
    /// The fan-out was cut; it goes on in the next tick.
    pub(crate) cut: bool,
}

/// Buffers that routing reuses.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) matches: Option<Box<Matches>>,
    targets: Vec<Target>,
    /// By whose rights the message was published that is to be routed, where it is to be retained and its source does not
    /// tell.
    author: Option<Box<Author>>,
    posts: Vec<Post>,
    /// Forwards of the latest publish that its acknowledgement waits for.
    pub(crate) posted: Vec<(ShardId, u64)>,
    /// All shards that it was forwarded to, and whether its bytes count as unanswered there.
    posted_to: Vec<(ShardId, bool)>,
    /// Number of the latest publish, for finding overlapping Subscriptions.
    number: u32,
}

#[derive(Debug)]
struct Post {
    to: ShardId,
    route: bool,
    retain: bool,
    groups: Vec<GroupPick>,
}

impl Scratch {
    /// The shards that the latest publish was forwarded to, and whether its bytes count as unanswered there.
    pub(crate) fn posted_to(&self) -> impl Iterator<Item = (ShardId, bool)> {
        self.posted_to.iter().copied()
    }
}

impl Engine {
    /// Routes a message: nothing may be before it in the line. Forwards that its acknowledgement waits for are in
    /// `scratch.posted`.
    pub(crate) fn route(&mut self, now: Now, publish: Publish, effects: &mut Effects) -> Outcome {
        let mut outcome = Outcome::default();
        self.forget_posted();
        let mut matches = self.scratch.matches.take().unwrap_or_default();
        let hash = self.find_matches(&publish, &mut matches);
        let (route, retain) = match publish.source {
            Source::Shard { route, retain, .. } => (route, retain),
            _ => (true, publish.message.retain && self.clients.config.retain_available),
        };
        let late = publish.message.is_late(now);
        if late {
            // It is for nobody any more [MQTT-3.3.2-5], but it still takes the place of what was retained.
            self.clients.stats.publish_expired += 1;
            matches.clear();
        }
        if retain {
            outcome.refused = self.retain_or_post(now, &publish, hash, effects);
        }
        // Groups up to here have it.
        let mut shared = matches.groups.len();
        if route {
            outcome.matched = !matches.filters.is_empty() || !matches.groups.is_empty() || matches.shards != 0;
            if !matches!(publish.source, Source::Shard { .. }) {
                for shard in shards_in(matches.shards) {
                    self.post(shard, |post| post.route = true);
                }
                shared = self.share(now, &publish, &matches.groups, &mut outcome, effects);
            }
        }
        if let Source::Shard { groups, may_refuse, .. } = &publish.source
            && !late
        {
            for pick in groups {
                outcome.refused |= self.share_picked(now, &publish.message, pick, *may_refuse, effects);
            }
        }
        if !self.scratch.posts.is_empty() {
            self.send_posts(&publish, effects);
        }
        let left = matches.groups.get(shared..).unwrap_or_default();
        self.deliver_here(now, publish, &matches.filters, left, &mut outcome, effects);
        self.scratch.matches = Some(matches);
        outcome
    }

    /// Has a message retained, here or at its topic's home. Returns whether its publisher is told that there is no room
    /// for it.
    #[inline(never)]
    fn retain_or_post(&mut self, now: Now, publish: &Publish, hash: u64, effects: &mut Effects) -> bool {
        let home = self.placement.home_of_hash(hash);
        let author = self.author_of(&publish.source);
        if home != self.shard {
            self.scratch.author = author;
            self.post(home, |post| post.retain = true);
            return false;
        }
        let unkept = !self.store_retained(now, publish, author, effects);
        if unkept && !publish.source.may_refuse() {
            self.count_unkept(publish.message.topic(), effects);
        }
        unkept && publish.source.may_refuse()
    }

    /// Routes a message of which somebody else knows by whose rights it was published.
    #[inline(never)]
    pub(crate) fn route_of<R>(&mut self, author: Option<Box<Author>>, route: impl FnOnce(&mut Self) -> R) -> R {
        self.scratch.author = author;
        let routed = route(self);
        self.scratch.author = None;
        routed
    }

    /// By whose rights a message was published that is to be retained.
    fn author_of(&mut self, source: &Source) -> Option<Box<Author>> {
        let known = self.scratch.author.take();
        match source {
            Source::Client { connection, .. } if known.is_none() => {
                let key = self.clients.connections.get(*connection)?.session()?;
                self.author(key)
            }
            _ => known,
        }
    }

    /// Finds where a message goes, and returns its topic's hash.
    fn find_matches(&mut self, publish: &Publish, matches: &mut Matches) -> u64 {
        let topic = publish.message.topic();
        if let Source::Client { connection, .. } = publish.source
            && let Some(connection) = self.clients.connections.get_mut(connection)
        {
            return last_route::find(&self.tree, &mut connection.last_route, topic, matches);
        }
        matches.clear();
        let hash = self.tree.topic_hash(topic);
        if !matches!(publish.source, Source::Shard { route: false, .. }) {
            self.tree.matches(topic, hash, matches);
        }
        hash
    }

    /// Changes the forward to a shard, which is being put together.
    fn post(&mut self, to: ShardId, change: impl FnOnce(&mut Post)) {
        let posts = &mut self.scratch.posts;
        match posts.iter_mut().find(|post| post.to == to) {
            Some(post) => change(post),
            None => change(posts.push_mut(Post {
                to,
                route: false,
                retain: false,
                groups: Vec::new(),
            })),
        }
    }

    /// Has a Shared Subscription's message forwarded to a shard that was picked for it.
    pub(crate) fn post_pick(&mut self, to: ShardId, pick: GroupPick) {
        self.post(to, |post| post.groups.push(pick));
    }

    /// Whether forwards have been put together and not sent.
    pub(crate) fn has_posts(&self) -> bool {
        !self.scratch.posts.is_empty()
    }

    /// The forwards that were put together are not sent.
    pub(crate) fn drop_posts(&mut self) {
        self.scratch.posts.clear();
        self.scratch.author = None;
    }

    /// Nobody asks any more where the latest publish was forwarded to.
    pub(crate) fn forget_posted(&mut self) {
        self.scratch.posted.clear();
        self.scratch.posted_to.clear();
    }

    /// Sends the forwards that were put together.
    pub(crate) fn send_posts(&mut self, publish: &Publish, effects: &mut Effects) {
        let mut posts = take(&mut self.scratch.posts);
        let answered = publish.message.qos > QoS::AtMostOnce;
        for post in posts.drain(..) {
            // What is to be retained is never dropped behind a long line, so its publisher has to be held up.
            let unacknowledged = !answered && post.retain;
            self.scratch.posted_to.push((post.to, unacknowledged));
            let mut forward = effects.spare_forward();
            forward.message.copy_for_shard(&publish.message);
            let n = if answered {
                let n = self.links.number_forward(post.to);
                self.scratch.posted.push((post.to, n));
                n
            } else if unacknowledged {
                let max = self.clients.config.unanswered_bytes_max;
                self.links
                    .number_unacknowledged(post.to, publish.message.exact_charge(), max)
            } else {
                0
            };
            forward.n = n;
            forward.route = post.route;
            forward.retain = post.retain;
            forward.groups = post.groups;
            forward.author = if post.retain { self.scratch.author.take() } else { None };
            // What is passed on for another shard would be refused unheard: it is dropped there, and counted.
            forward.may_refuse = publish.source.hears_of_refusals();
            forward.transaction = if n > 0 { self.clients.journal.forward() } else { None };
            self.clients.stats.forwards_sent += 1;
            effects.forwards.push((post.to, ShardMessage::Forward(forward)));
        }
        self.scratch.posts = posts;
    }

    fn deliver_here(
        &mut self,
        now: Now,
        publish: Publish,
        filters: &[FilterKey],
        groups: &[GroupKey],
        outcome: &mut Outcome,
        effects: &mut Effects,
    ) {
        let done = effects.transmits.len().max(self.work);
        let room = self.clients.config.tray_max.saturating_sub(done);
        if let ([only], []) = (filters, groups) {
            let Self {
                tree, clients, work, ..
            } = self;
            let subscribers = tree.subscribers(*only);
            if subscribers.len() <= room {
                *work += subscribers.len();
                let may_refuse = publish.source.may_refuse();
                for subscription in subscribers {
                    let options = Options(subscription.options);
                    if options.no_local() && is_own(clients, subscription, &publish.message) {
                        continue;
                    }
                    if clients.is_withheld(subscription.readable, subscription.session, &publish.message) {
                        continue;
                    }
                    let how = How {
                        options,
                        subscription_id: SubscriptionId::new(subscription.sub_id),
                        extra: None,
                        tries_others: false,
                        tells_publisher: may_refuse,
                    };
                    let delivered = clients.deliver(now, subscription.session, &publish.message, &how, effects);
                    outcome.refused |= delivered == Delivered::Refused;
                    let is_planted = planted("panic/middle", publish.message.topic());
                    assert!(!is_planted, "planted in the middle of an update");
                }
                return self.clients.let_go(publish.message, effects);
            }
        }
        if filters.is_empty() && groups.is_empty() {
            return self.clients.let_go(publish.message, effects);
        }
        let mut targets = take(&mut self.scratch.targets);
        self.find_targets(&publish.message, filters, &mut targets);
        let generation = self.tree.generation();
        let mut fanout = FanOut {
            publish,
            targets,
            next: 0,
            groups: groups.to_vec(),
            generation,
            refused: false,
            wrote: false,
            depends: false,
        };
        if self.continue_fanout(now, &mut fanout, effects) {
            outcome.refused |= fanout.refused;
            fanout.targets.clear();
            self.scratch.targets = fanout.targets;
            self.clients.let_go(fanout.publish.message, effects);
        } else {
            fanout.refused |= outcome.refused;
            outcome.cut = true;
            self.line.open(fanout);
        }
    }

    /// One target for each Session, however many of its Subscriptions match: it gets one copy, with the highest QoS and
    /// the identifiers of all of them [MQTT-3.3.4-2, -3, -4].
    fn find_targets(&mut self, message: &Message, filters: &[FilterKey], targets: &mut Vec<Target>) {
        let Self {
            tree, clients, scratch, ..
        } = self;
        scratch.number = scratch.number.wrapping_add(1);
        for &filter in filters {
            for subscription in tree.subscribers(filter) {
                let options = Options(subscription.options);
                if options.no_local() && is_own(clients, subscription, message) {
                    continue;
                }
                let Some(session) = clients.sessions.get_mut(subscription.session) else {
                    continue;
                };
                let id = SubscriptionId::new(subscription.sub_id);
                if session.mark == scratch.number
                    && let Some(target) = targets.get_mut(session.mark_target as usize)
                    && target.session.key == subscription.session
                {
                    target.merge(options, id, subscription.readable);
                    continue;
                }
                session.mark = scratch.number;
                session.mark_target = targets.len() as u32;
                let session = SessionRef {
                    key: subscription.session,
                    generation: session.generation,
                };
                targets.push(Target {
                    session,
                    options,
                    subscription_id: id,
                    readable: subscription.readable,
                    extra: None,
                });
            }
        }
    }
}

impl Target {
    pub(crate) fn merge(&mut self, options: Options, id: Option<SubscriptionId>, readable: u16) {
        self.options = self.options.merged(options);
        // What one filter is readable by, its topics are. The later rules are those that may still hold.
        self.readable = self.readable.max(readable);
        match (self.subscription_id, id) {
            (None, _) => self.subscription_id = id,
            (Some(_), None) => {}
            _ if mutant("5.0/3.3.4-4") => {}
            (Some(_), Some(id)) => {
                let extra = Rc::make_mut(self.extra.get_or_insert_default());
                Rc::make_mut(extra.subscription_ids.get_or_insert_default()).push(id);
            }
        }
    }
}

/// Whether a Subscription is the publisher's own [MQTT-3.8.3-3].
pub(crate) fn is_own(clients: &crate::clients::Clients, subscription: &Subscription, message: &Message) -> bool {
    clients
        .sessions
        .get(subscription.session)
        .is_some_and(|session| session.origin == message.origin && !mutant("5.0/3.8.3-3"))
}

/// The shards of a bit set.
fn shards_in(mut bits: u64) -> impl Iterator<Item = ShardId> {
    core::iter::from_fn(move || {
        let shard = bits.trailing_zeros();
        bits &= bits.checked_sub(1)?;
        Some(ShardId(shard as u16))
    })
}

/// What a message of a Shared Subscription remembers of it, so that it can be given back.
pub(crate) fn share_extra(share: &str, filter: &str) -> Rc<Extra> {
    Rc::new(Extra {
        subscription_ids: None,
        share: Some((String::from(share), String::from(filter))),
    })
}
