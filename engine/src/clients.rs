//! Sessions and connections, and everything that is needed to hand a message to one: windows, queues, limits, aliases.
//! This knows nothing of routing; the [`crate::Engine`] decides who gets what.

mod records;
mod sending;
mod window;

use alloc::{boxed::Box, rc::Rc, vec::Vec};

use ahash::RandomState;
use hashbrown::HashMap;
use sol_codec::mutants::mutant;
use sol_codec::{QoS, SubscriptionId};

use crate::config::{EngineConfig, QueueFull};
use crate::connection::{Connections, Marks, State};
use crate::effects::{Delivery, Effects};
use crate::enhanced::Enhanced;
use crate::event::{Cause, Event};
use crate::ids::{ConnectionId, ListenerId, SessionKey, ShardId};
use crate::input::OwnedWill;
use crate::journal::Journal;
use crate::memory::{Memory, REFERENCE_BYTES, SUBSCRIPTION_BYTES};
use crate::message::Message;
use crate::mount::Unmounted;
use crate::rare::{DropCause, Drops, Rare, Rares};
use crate::record::RecordId;
use crate::rights::{Action, Rights, may};
use crate::session::User;
use crate::session::sender::{Extra, Owed, SenderFlow};
use crate::session::sessions::{SessionRef, Sessions};
use crate::stats::Stats;
use crate::subscription::Options;
use crate::tallies::Tallies;
use crate::time::{Instant, Now, UnixMillis};
use crate::timer_wheel::{TimerKey, TimerWheel};

/// Places kept for noting who was queued for: a large fan-out does not keep its memory.
const QUEUED_KEPT_MAX: usize = 1_024;

/// Why a deadline was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// One and a half Keep Alives may have passed in silence.
    KeepAlive(ConnectionId),
    /// A connection has been congested for too long.
    Congested(ConnectionId),
    /// A connection has been paused for too long.
    Paused(ConnectionId),
    /// The login of a connection is over.
    LoginExpiry(ConnectionId),
    /// A client that sent faster than it may has waited long enough.
    Hurried(ConnectionId),
    /// A connection's publishes have waited too long for memory, or for room in the journal.
    Parked(ConnectionId),
    /// A Will's delay is over.
    WillDelay(SessionRef),
    /// A Session's expiry.
    SessionExpiry(SessionRef),
    /// Look for retained messages that have expired.
    SweepRetained,
}

/// Sessions, connections, and what they share.
pub(crate) struct Clients {
    pub(crate) config: Rc<EngineConfig>,
    pub(crate) sessions: Sessions,
    pub(crate) connections: Connections,
    /// Enhanced authentication of those that use it, once their CONNECT is settled.
    pub(crate) enhanced: HashMap<ConnectionId, Enhanced, RandomState>,
    /// When the logins end that do, of those whose CONNECT is settled.
    pub(crate) expiring: HashMap<ConnectionId, (UnixMillis, TimerKey), RandomState>,
    pub(crate) timers: TimerWheel<Reason>,
    pub(crate) stats: Stats,
    pub(crate) memory: Memory,
    pub(crate) journal: Journal,
    pub(crate) rights: Rights,
    /// Connections that must end once the present input is done.
    pub(crate) doomed: Vec<(ConnectionId, Cause)>,
    /// Sessions with a connection, those included whose CONNACK waits for the journal.
    pub(crate) settled: usize,
    /// The same by the listener that they are counted at.
    settled_by: Vec<usize>,
    /// Such connections of one listener on other shards, as far as was told.
    pub(crate) settled_elsewhere_at: (ListenerId, usize),
    /// Such connections on other shards, as far as was told.
    pub(crate) settled_elsewhere: usize,
    /// Unsent bytes above which QoS 0 is dropped: [`EngineConfig::unsent_bytes_high`], and none while memory is scarce.
    pub(crate) unsent_bytes_high: u32,
    /// What is counted by name, where it is limited.
    pub(crate) tallies: Tallies,
    /// The present packet's acknowledgement waits behind as many as may wait.
    pub(crate) lane_is_long: bool,
    /// The message that was copied for queues last in this call, and its copy.
    copied: Option<(Rc<Message>, Rc<Message>)>,
    /// The message that was sent to a mounted client last in this call.
    pub(crate) unmounted: Option<Unmounted>,
    /// There is one of these two.
    pub(crate) has_copies: bool,
    /// Number of the present flush.
    pub(crate) epoch: u32,
    /// Sessions with more to send than one turn may take.
    pub(crate) after_flush: Vec<SessionRef>,
    /// Sessions into whose queue the present call has put a message, once for each.
    pub(crate) queued: Vec<SessionKey>,
    /// Rare branches taken, for simulations.
    pub(crate) rares: Rares,
    /// Messages dropped, by cause: the counter of all, taken apart.
    pub(crate) drops: Drops,
}

/// How one Session receives one message.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) options: Options,
    pub(crate) subscription_id: Option<SubscriptionId>,
    pub(crate) extra: Option<Rc<Extra>>,
    /// Another Session gets it if this one does not: what is not taken is not counted.
    pub(crate) tries_others: bool,
    /// Who published it is told, in the end, that it could not be taken: by a full queue, or where it would be written and there
    /// is no room.
    pub(crate) tells_publisher: bool,
}

/// What became of a message at one Session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Sent or kept.
    Taken,
    /// Not owed, or dropped and counted.
    Dropped,
    /// The queue is full and the publisher wants to know.
    Refused,
}

impl Clients {
    pub(crate) fn new(config: Rc<EngineConfig>, shard: ShardId, hasher: RandomState, tallies: Tallies) -> Self {
        Self {
            enhanced: HashMap::with_hasher(hasher.clone()),
            expiring: HashMap::with_hasher(hasher.clone()),
            sessions: Sessions::new(hasher),
            connections: Connections::default(),
            timers: TimerWheel::new(Instant::from_nanos(0)),
            stats: Stats::default(),
            memory: Memory::new(config.memory_bytes_max),
            journal: Journal::new(config.journal, shard),
            rights: Rights::new(&config),
            doomed: Vec::new(),
            settled: 0,
            settled_by: Vec::new(),
            settled_elsewhere_at: (ListenerId(0), 0),
            settled_elsewhere: 0,
            unsent_bytes_high: config.unsent_bytes_high,
            tallies,
            lane_is_long: false,
            copied: None,
            unmounted: None,
            has_copies: false,
            epoch: 1,
            after_flush: Vec::new(),
            queued: Vec::new(),
            rares: Rares::default(),
            drops: Drops::default(),
            config,
        }
    }

    /// Sessions with a connection that are counted where those of a listener are.
    pub(crate) fn settled_at(&self, listener: ListenerId) -> usize {
        let count = self.settled_by.get(usize::from(self.config.counted_at(listener).0));
        count.copied().unwrap_or(0)
    }

    /// A Session has got a connection.
    pub(crate) fn count_settled(&mut self, listener: ListenerId) {
        self.settled += 1;
        let at = usize::from(self.config.counted_at(listener).0);
        if self.settled_by.len() <= at {
            self.settled_by.resize(at + 1, 0);
        }
        if let Some(count) = self.settled_by.get_mut(at) {
            *count += 1;
        }
    }

    /// A Session has lost its connection.
    pub(crate) fn count_left(&mut self, listener: ListenerId) {
        self.settled -= 1;
        let at = usize::from(self.config.counted_at(listener).0);
        if let Some(count) = self.settled_by.get_mut(at) {
            *count -= 1;
        }
    }

    /// Whether a Session has no right to a message. `readable`: the rules by which it has a right to all that its
    /// Subscription is for.
    #[inline]
    pub(crate) fn is_withheld(&mut self, readable: u16, key: SessionKey, message: &Message) -> bool {
        !self.rights.holds(readable) && !self.is_allowed(key, message)
    }

    #[cold]
    #[inline(never)]
    fn is_allowed(&mut self, key: SessionKey, message: &Message) -> bool {
        let is_allowed = self.may_read(key, message);
        self.stats.deliver_unauthorized += u64::from(!is_allowed);
        is_allowed
    }

    /// Whether a Session has a right to a message. Who asks ahead counts nothing.
    pub(crate) fn may_read(&mut self, key: SessionKey, message: &Message) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| may(&mut self.rights, session, Action::Deliver, message.topic()))
    }

    /// Whether a message may have to be kept for somebody, and is charged before it is known.
    pub(crate) fn is_kept(&self, message: &Message) -> bool {
        message.retain || self.config.qos_out_max(message.qos) > QoS::AtMostOnce
    }

    /// Hands a message that a Session may read to it: into its window, its queue, or nowhere.
    pub(crate) fn deliver(
        &mut self,
        now: Now,
        key: SessionKey,
        message: &Rc<Message>,
        how: &How,
        effects: &mut Effects,
    ) -> Delivered {
        match self.sessions.get(key) {
            None => Delivered::Dropped,
            Some(session) if session.replays.is_none() => self.hand_over(now, key, message, how, false, effects),
            Some(_) => self.deliver_beside_replay(now, key, message, how, effects),
        }
    }

    /// The same for a Session whose replay the message may overtake, or must wait for.
    #[inline(never)]
    fn deliver_beside_replay(
        &mut self,
        now: Now,
        key: SessionKey,
        message: &Rc<Message>,
        how: &How,
        effects: &mut Effects,
    ) -> Delivered {
        let Some(replays) = self.sessions.get_mut(key).and_then(|session| session.replays.as_mut()) else {
            return Delivered::Dropped;
        };
        // What a Shared Subscription hands out may be older than what is retained; it is no update.
        let is_update = message.retain && !how.tries_others;
        if is_update {
            replays.expect_to_see(message.topic().as_bytes(), self.config.replay_seen_max);
        }
        let holds = replays.holds_live;
        if holds {
            self.note_rare(Rare::ReplaySeenFull);
        }
        let delivered = self.hand_over(now, key, message, how, holds, effects);
        // An update that was dropped leaves the replay's entry to be sent, and one that is held comes after it anyway.
        if is_update
            && !holds
            && delivered == Delivered::Taken
            && let Some(replays) = self.sessions.get_mut(key).and_then(|session| session.replays.as_mut())
        {
            replays.saw(message.topic().as_bytes());
        }
        delivered
    }

    fn hand_over(
        &mut self,
        now: Now,
        key: SessionKey,
        message: &Rc<Message>,
        how: &How,
        holds: bool,
        effects: &mut Effects,
    ) -> Delivered {
        let Some(session) = self.sessions.get(key) else {
            return Delivered::Dropped;
        };
        let qos = self.config.qos_out_max(message.qos).min(how.options.qos());
        let retain = message.retain && (how.options.retain_as_published() || mutant("5.0/3.3.1-12"));
        if qos == QoS::AtMostOnce {
            let waits = holds
                || session.sender.as_ref().is_some_and(|sender| {
                    sender.queues_qos0()
                        || mutant("5.0/4.9.0-3") && !sender.queue.is_empty() && self.sendable(key).is_some()
                });
            match session.connection {
                Some(connection) if !waits => return self.send_qos0(now, connection, message, how, retain, effects),
                None if !self.config.queue_qos0 => return Delivered::Dropped,
                _ => {}
            }
        }
        let owed = Owed {
            message: Some(Rc::clone(message)),
            extra: how.extra.clone(),
            record: RecordId(0),
            subscription_id: how.subscription_id,
            qos,
            retain,
            flow: SenderFlow::Queued,
            dup: false,
        };
        self.owe(now, key, owed, holds, how, effects)
    }

    #[inline]
    fn send_qos0(
        &mut self,
        now: Now,
        connection: ConnectionId,
        message: &Rc<Message>,
        how: &How,
        retain: bool,
        effects: &mut Effects,
    ) -> Delivered {
        let Some(state) = self.connections.get(connection) else {
            return Delivered::Dropped;
        };
        if !matches!(state.state, State::Active(..)) || state.is_clogged(self.unsent_bytes_high) {
            self.note_rare(Rare::CongestedDrop);
            // Another member of the group is tried, and who tries counts.
            if !how.tries_others {
                self.count_dropped(DropCause::Congested);
            }
            return Delivered::Dropped;
        }
        let mut delivery = Delivery::new(Rc::clone(message), QoS::AtMostOnce, retain);
        delivery.subscription_id = how.subscription_id;
        delivery.more_subscription_ids = how.extra.as_ref().and_then(|extra| extra.subscription_ids.clone());
        if self.send_publish(now, connection, delivery, effects) {
            Delivered::Taken
        } else {
            Delivered::Dropped
        }
    }

    /// A QoS 1 or 2 message: sent at once if nothing is before it and the client's window has room, else queued.
    fn owe(
        &mut self,
        now: Now,
        key: SessionKey,
        mut owed: Owed,
        holds: bool,
        how: &How,
        effects: &mut Effects,
    ) -> Delivered {
        let Some(session) = self.sessions.get_mut(key) else {
            return Delivered::Dropped;
        };
        if how.tells_publisher && self.journal.is_full && owed.qos > QoS::AtMostOnce && session.is_durable() {
            return Delivered::Refused;
        }
        if !holds
            && let Some(id) = session.connection
            && let Some(connection) = self.connections.get(id)
            && matches!(connection.state, State::Active(..))
            && !connection.is_clogged(self.config.unsent_bytes_high)
        {
            let quota = connection.quota;
            let sender = session.sender.get_or_insert_default();
            if sender.queue.is_empty() && sender.has_room(quota, self.config.inflight_bytes_max) {
                self.begin(now, key, owed, effects);
                return Delivered::Taken;
            }
        }
        if let Some(verdict) = self.make_room(now, key, &owed, how, effects) {
            return verdict;
        }
        if let Some(message) = &mut owed.message {
            self.share_exact(message, effects);
        }
        self.keep(key, &mut owed, effects);
        if let Some(session) = self.sessions.get_mut(key) {
            let sender = session.sender.get_or_insert_default();
            sender.queue.push_back(owed);
            self.memory.charge(REFERENCE_BYTES);
            self.stats.stored_messages += 1;
            self.queued.push(key);
        }
        Delivered::Taken
    }

    /// Applies the queue's limits. `None`: there is room.
    fn make_room(
        &mut self,
        now: Now,
        key: SessionKey,
        owed: &Owed,
        how: &How,
        effects: &mut Effects,
    ) -> Option<Delivered> {
        // Whoever cannot be told goes on until nothing is kept any more, and waits then: it would lose what it has sent.
        let may_refuse = how.tells_publisher || how.tries_others;
        let can_refuse = may_refuse && self.config.queue_full == QueueFull::Refuse;
        let is_scarce = can_refuse && self.memory.is_scarce();
        if !is_scarce && !self.memory.is_full() && !self.is_over(key, owed) {
            return None;
        }
        self.drop_expired(now, key, effects);
        let full = is_scarce || self.memory.is_full();
        if !full && !self.is_over(key, owed) {
            return None;
        }
        let policy = self.config.queue_full;
        if policy == QueueFull::DropOldest && !full {
            while self.is_over(key, owed)
                && let Some(oldest) = self.pop_queue(key)
            {
                self.count_drop(key, effects);
                self.forget(oldest, effects);
            }
            return None;
        }
        if may_refuse && (policy == QueueFull::Refuse || how.tries_others) {
            return Some(Delivered::Refused);
        }
        self.count_drop(key, effects);
        Some(Delivered::Dropped)
    }

    /// Whether a message is too much for a Session's queue as it stands.
    fn is_over(&self, key: SessionKey, owed: &Owed) -> bool {
        let sender = self.sessions.get(key).and_then(|session| session.sender.as_deref());
        let (queued, bytes) = sender.map_or((0, 0), |sender| (sender.queue.len(), sender.queue.bytes()));
        queued >= self.config.queue_max || bytes.saturating_add(owed.charge()) > self.config.queue_bytes_max
    }

    /// Drops what has expired at the front of a queue and among the oldest behind it [MQTT-3.3.2-5]: it must not keep
    /// others out.
    fn drop_expired(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let sender = self
            .sessions
            .get_mut(key)
            .and_then(|session| session.sender.as_deref_mut());
        for owed in sender.map(|sender| sender.take_expired(now)).unwrap_or_default() {
            self.stats.publish_expired += 1;
            self.forget(owed, effects);
        }
    }

    /// Counts a message that a Session did not get, and tells it at the first and at doubling counts.
    pub(crate) fn count_drop(&mut self, key: SessionKey, effects: &mut Effects) {
        self.note_rare(Rare::QueueFull);
        self.count_dropped(DropCause::QueueFull);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let sender = session.sender.get_or_insert_default();
        sender.dropped += 1;
        if sender.dropped.is_power_of_two() {
            effects.events.push(Event::Dropped {
                client_id: (&*session.client_id).into(),
                count: sender.dropped,
            });
        }
    }

    /// Takes the oldest message off a queue.
    pub(crate) fn pop_queue(&mut self, key: SessionKey) -> Option<Owed> {
        self.sessions.get_mut(key)?.sender.as_deref_mut()?.queue.pop_front()
    }

    /// An owed message is settled or dropped: its reference goes, and its charge with it.
    pub(crate) fn forget(&mut self, owed: Owed, effects: &mut Effects) {
        self.memory.refund(REFERENCE_BYTES);
        self.stats.stored_messages -= 1;
        self.journal.delete(owed.record, effects);
        if let Some(message) = owed.message {
            self.let_go(message, effects);
        }
    }

    /// Charges a message that will be kept or acknowledged; [`Clients::let_go`] refunds it.
    pub(crate) fn charge_message(&mut self, message: &mut Message) {
        message.charged = u32::try_from(message.charge()).unwrap_or(u32::MAX);
        self.memory.charge(message.charged as usize);
        if self.journal.is_on() && message.body == 0 {
            message.body = self.journal.next_id().0;
        }
    }

    /// Replaces a message that may live in a recycled, larger buffer by a copy of its own size, before it is queued. All
    /// Sessions that one call queues a message for share one copy.
    fn share_exact(&mut self, message: &mut Rc<Message>, effects: &mut Effects) {
        if message.is_exact() {
            return;
        }
        if !self
            .copied
            .as_ref()
            .is_some_and(|(passing, _)| Rc::ptr_eq(passing, message))
        {
            self.drop_copy(effects);
            let mut exact = message.exact();
            exact.body = message.body;
            self.charge_message(&mut exact);
            self.copied = Some((Rc::clone(message), Rc::new(exact)));
            self.has_copies = true;
        }
        if let Some((_, exact)) = &self.copied {
            let passing = core::mem::replace(message, Rc::clone(exact));
            self.let_go(passing, effects);
        }
    }

    /// The present call ends: nobody else will share the copy.
    #[inline]
    pub(crate) fn forget_copy(&mut self, effects: &mut Effects) {
        if self.has_copies {
            self.drop_copy(effects);
        }
    }

    #[cold]
    fn drop_copy(&mut self, effects: &mut Effects) {
        self.has_copies = false;
        self.forget_unmounted(effects);
        if let Some((passing, exact)) = self.copied.take() {
            self.let_go(passing, effects);
            self.let_go(exact, effects);
        }
    }

    /// Readies a message that only the caller holds for waiting: in a buffer of its own size, and charged.
    pub(crate) fn keep_message(&mut self, message: &mut Rc<Message>, effects: &mut Effects) {
        if !message.is_exact() {
            let mut exact = message.exact();
            exact.body = message.body;
            let passing = core::mem::replace(message, Rc::new(exact));
            self.let_go(passing, effects);
        }
        if let Some(alone) = Rc::get_mut(message)
            && alone.charged == 0
        {
            self.charge_message(alone);
        }
    }

    /// Gives a Session its Will, or takes it, and returns the one it had.
    pub(crate) fn set_will(&mut self, key: SessionKey, will: Option<Box<OwnedWill>>) -> Option<Box<OwnedWill>> {
        let session = self.sessions.get_mut(key)?;
        self.memory.charge(will.as_deref().map_or(0, OwnedWill::charge));
        let old = core::mem::replace(&mut session.will, will);
        self.memory.refund(old.as_deref().map_or(0, OwnedWill::charge));
        old
    }

    /// Sets whose a Session is. Returns whether that limits anybody's rights where nobody's were, or the other way round.
    pub(crate) fn set_user(&mut self, key: SessionKey, user: Option<User>) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let before = session.user_charge();
        let had_rules = session.own_rules().is_some();
        session.user = user.map(Box::new);
        self.memory.charge(session.user_charge());
        self.memory.refund(before);
        self.rights.change_own_rules(had_rules, session.own_rules().is_some())
    }

    /// Bytes to charge for a Subscription whose texts have this length: the tree holds them, and with a journal the
    /// Session does, too.
    pub(crate) fn subscription_charge(&self, text: usize) -> usize {
        let copies = if self.journal.is_on() { 2 } else { 1 };
        text.saturating_mul(copies).saturating_add(SUBSCRIPTION_BYTES)
    }

    /// A call begins: nobody asks any more what the last one has queued.
    #[inline]
    pub(crate) fn forget_queued(&mut self) {
        if !self.queued.is_empty() {
            self.queued.clear();
            self.queued.shrink_to(QUEUED_KEPT_MAX);
        }
    }

    /// Gives up one hold of a message; the last one refunds its charge and may recycle its buffer.
    pub(crate) fn let_go(&mut self, message: Rc<Message>, effects: &mut Effects) {
        self.memory.refund(effects.recycle(message));
    }

    /// Marks a connection to be ended when the present input is done.
    pub(crate) fn doom(&mut self, id: ConnectionId, cause: Cause) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.marks.set(Marks::DOOMED)
        {
            self.doomed.push((id, cause));
        }
    }
}
