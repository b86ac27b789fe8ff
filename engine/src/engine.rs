//! The engine: what it holds, and the way of an input to its handler.

use alloc::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use ahash::RandomState;
use hashbrown::HashMap;
use sol_codec::mutants::mutant;
use sol_codec::{Packet, PacketId, ReasonCode};

use crate::announcing::Untold;
use crate::clients::Clients;
use crate::config::EngineConfig;
use crate::connection::{Marks, State};
use crate::effects::{Answer, Effects};
use crate::event::Cause;
use crate::fanout::{Hold, Line};
use crate::handle::publish::Publisher;
use crate::ids::{ConnectionId, ListenerId, SessionKey, ShardId};
use crate::input::{AuthOutcome, Elsewhere, Flow, Input, Level, Query};
use crate::links::Links;
use crate::placement::Placement;
use crate::restore::{Overdue, Restoring};
use crate::retained::Retained;
use crate::retaining::Kept;
use crate::rights::authors::Authors;
use crate::rights::marks::Marking;
use crate::route::Scratch;
use crate::session::acks::Lane;
use crate::session::sessions::SessionRef;
use crate::stats::Stats;
use crate::tallies::{NamedUser, Tallies};
use crate::time::{Instant, Now};
use crate::topic_tree::TopicTree;
use crate::waiting::Confirmations;

/// Every Session, Subscription and retained message at home on one shard.
///
/// See the [crate's description](crate) for how it is driven.
pub struct Engine {
    pub(crate) shard: ShardId,
    pub(crate) placement: Placement,
    pub(crate) clients: Clients,
    pub(crate) tree: TopicTree,
    pub(crate) retained: Retained<Kept>,
    pub(crate) authors: Authors,
    pub(crate) links: Links,
    /// The open fan-out, and the publishes behind it.
    pub(crate) line: Line,
    /// What waits for other shards to confirm our announcements.
    pub(crate) confirmations: Confirmations,
    /// Groups of Shared Subscriptions of which the others have to be told.
    pub(crate) untold: Untold,
    /// Retained queries to other shards that have not been answered.
    pub(crate) queries: HashMap<u64, SessionRef, RandomState>,
    pub(crate) last_query: u64,
    /// Those that wait for memory before they are asked, and whose replay each is.
    pub(crate) unasked: VecDeque<(u64, SessionRef)>,
    /// Sessions whose replay or queue goes on in the next tick.
    pub(crate) replaying: VecDeque<SessionRef>,
    /// Those whose replay waits for room in the journal.
    pub(crate) held_replays: VecDeque<SessionRef>,
    /// Connections with parked publishes, in the order in which they began to park.
    pub(crate) parking: BTreeMap<u64, ConnectionId>,
    /// Those of them whose first publish was found to have no room in the journal.
    pub(crate) parking_for_room: BTreeMap<u64, ConnectionId>,
    pub(crate) last_parked: u64,
    pub(crate) scratch: Scratch,
    /// Steps of the present call: targets, members, topics looked at. A call does no more than `tray_max`, and one.
    pub(crate) work: usize,
    /// Counts assigned Client Identifiers, and the key that makes names of the counts.
    pub(crate) assigned: u64,
    pub(crate) assigner: RandomState,
    /// Somebody looks for expired retained messages, and where the last look ended.
    pub(crate) sweeping: bool,
    pub(crate) sweep_after: Option<alloc::string::String>,
    /// Retained messages that were not kept, and whose publishers could not be told.
    pub(crate) unkept: u64,
    /// Whose acknowledged publish the present call is routing, and its identifier where that has been noted.
    pub(crate) unrouted: Option<(SessionKey, Option<PacketId>)>,
    /// The present PUBLISH of a mounted client has its whole topic already.
    pub(crate) is_whole: bool,
    /// How often logins were revoked.
    pub(crate) revocations: u64,
    /// Subscriptions that are looked at because rules have changed.
    pub(crate) marking: Option<Marking>,
    pub(crate) stopping: bool,
    pub(crate) restoring: Restoring,
    pub(crate) overdue: Overdue,
}

impl Engine {
    /// An empty engine. All shards get the same `seeds`, which nobody outside the process may know; `config.shards` is
    /// at least 1 and at most 64, and `shard` is below it.
    #[must_use]
    pub fn new(shard: ShardId, config: Rc<EngineConfig>, seeds: [u64; 4]) -> Self {
        assert!(
            (1..=64).contains(&config.shards) && shard.0 < config.shards,
            "a shard is one of 1 to 64"
        );
        let hasher = RandomState::with_seeds(seeds[0], seeds[1], seeds[2], seeds[3]);
        Self {
            shard,
            placement: Placement::new(hasher.clone(), config.shards),
            tree: TopicTree::new(seeds),
            retained: Retained::new(),
            authors: Authors::new(derived(&hasher, "authors")),
            links: Links::new(shard, config.shards),
            line: Line::default(),
            confirmations: Confirmations::default(),
            untold: Untold::default(),
            queries: HashMap::with_hasher(hasher.clone()),
            last_query: 0,
            unasked: VecDeque::new(),
            replaying: VecDeque::new(),
            held_replays: VecDeque::new(),
            parking: BTreeMap::new(),
            parking_for_room: BTreeMap::new(),
            last_parked: 0,
            scratch: Scratch::default(),
            work: 0,
            assigned: 0,
            assigner: derived(&hasher, "assigned Client Identifier"),
            sweeping: false,
            sweep_after: None,
            unkept: 0,
            unrouted: None,
            is_whole: false,
            revocations: 0,
            marking: None,
            stopping: false,
            restoring: Restoring::default(),
            overdue: Overdue::default(),
            // All Sessions of a shard have the same upper bits of the hash that placed them, and a table goes by these too.
            clients: Clients::new(
                config,
                shard,
                derived(&hasher, "Sessions"),
                Tallies::new(derived(&hasher, "tallies"), derived(&hasher, "users")),
            ),
        }
    }

    /// Takes one input and appends all that follows from it to `effects`. Call it as often as you like: that is a batch.
    ///
    /// It never fails: a peer's fault is an effect (DISCONNECT, [`crate::Close`]). Its work is bounded by the input and by
    /// `tray_max` steps, beside listing the Subscriptions that match a message, and handing on what a lost member of a
    /// Shared Subscription holds, which is no more than `queue_max` and its window. The [`Flow`] matters for packets only.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Effects) -> Flow {
        self.clients.memory.refund(effects.take_refunds());
        self.work = 0;
        self.clients.forget_queued();
        let flow = self.dispatch(now, input, effects);
        self.bury_doomed(now, effects);
        self.clients.forget_copy(effects);
        self.clients.journal.end_of_call();
        flow
    }

    fn dispatch(&mut self, now: Now, input: Input<'_>, effects: &mut Effects) -> Flow {
        match input {
            Input::Packet(connection, packet) => return self.on_packet(now, connection, packet, effects),
            Input::Opened { connection, listener } => self.on_opened(now, connection, listener),
            Input::Adopted(connection, handover) => return self.on_adopted(now, connection, *handover, effects),
            Input::Malformed(connection, error) => self.on_malformed(now, connection, error, effects),
            Input::Congested(connection, unsent) => self.on_congested(now, connection, unsent),
            Input::Drained(connection) => self.on_drained(now, connection, effects),
            Input::Hurried(connection, time) => return self.on_hurried(now, connection, time),
            Input::Flushed => {
                self.clients.epoch = self.clients.epoch.wrapping_add(1);
                self.replaying.extend(self.clients.after_flush.drain(..));
            }
            Input::Identified(connection, username) => self.on_identified(connection, username),
            Input::Closed(connection) => self.on_closed(now, connection, effects),
            Input::Fault(connection) => self.end_connection(now, connection, Cause::Fault, effects),
            Input::Authenticated(connection, outcome) => self.on_authenticated(now, connection, outcome, effects),
            Input::Shard { from, message } => self.on_shard(now, from, message, effects),
            Input::Peer { shard, full } => self.on_peer(now, shard, full, effects),
            Input::Durable(ticket) => {
                while let Some(gate) = self.clients.journal.open(ticket) {
                    self.on_durable(now, gate, effects);
                }
            }
            Input::DurableAlone(ticket) => {
                while let Some(gate) = self.clients.journal.open_alone(ticket) {
                    self.on_durable(now, gate, effects);
                }
            }
            Input::JournalBusy(is_busy) => {
                self.clients.journal.is_busy = is_busy;
                if !is_busy {
                    self.resume(now, Hold::Journal, effects);
                }
            }
            Input::JournalFull(is_full) => {
                self.clients.journal.is_full = is_full;
                if is_full || !mutant("journal/room-untold") {
                    self.parking.append(&mut self.parking_for_room);
                }
                self.release_replays();
                self.release_parked(now, effects);
            }
            Input::Pressure(level) => self.on_pressure(now, level, effects),
            Input::Elsewhere(held) => self.on_elsewhere(now, held, effects),
            Input::Publish(message) => self.on_own_publish(now, *message, effects),
            Input::Ask(Query::Stats) => effects
                .answers
                .push(Answer::Stats(alloc::boxed::Box::new(self.stats()))),
            Input::Reload(config) => self.on_reload(config),
            Input::Users(changed) => self.on_users(now, changed, effects),
            Input::GrantsEnd(listeners) => self.on_grants_end(now, listeners, effects),
            Input::Shutdown => self.on_shutdown(now, effects),
        }
        Flow::Go
    }

    pub(crate) fn on_packet(&mut self, now: Now, id: ConnectionId, packet: &Packet<'_>, effects: &mut Effects) -> Flow {
        self.clients.stats.packets_received += 1;
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return Flow::Stop;
        };
        connection.last_heard = now.mono;
        let Some(from) = Publisher::of(id, connection) else {
            return self.on_first_packet(now, id, packet, effects);
        };
        let is_mounted = connection.marks.has(Marks::MOUNTED);
        let session = from.key;
        match packet {
            Packet::Publish(publish) => {
                if is_mounted && !core::mem::take(&mut self.is_whole) {
                    let flow = self.on_mounted_publish(now, from, publish, effects);
                    return self.stop_for_acks(now, id, session, flow);
                }
                let flow = self.on_publish(now, from, publish, effects);
                return self.stop_for_acks(now, id, session, flow);
            }
            Packet::PubAck(ack) => self.on_puback(now, session, ack, effects),
            Packet::PubRec(ack) => self.on_pubrec(now, id, session, ack, effects),
            Packet::PubRel(ack) => self.on_pubrel(id, session, ack, effects),
            Packet::PubComp(ack) => self.on_pubcomp(now, session, ack, effects),
            Packet::Subscribe(subscribe) => {
                self.on_subscribe(now, id, session, subscribe, effects);
                let flow = self.pause_for_any_full_shard(now, id);
                if flow == Flow::Stop {
                    return self.stop_for_acks(now, id, session, flow);
                }
            }
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(now, id, session, unsubscribe, effects),
            Packet::PingReq if mutant("5.0/3.12.4-1") && !self.clients.lane_is_free(session, Lane::SubAck) => {}
            Packet::PingReq => self.clients.send(id, crate::effects::Outgoing::PingResp, 2, effects),
            Packet::Disconnect(disconnect) => return self.on_disconnect(now, id, session, disconnect, effects),
            Packet::Auth(auth) => return self.on_auth(now, id, session, auth, effects),
            Packet::Connect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return self.on_out_of_place(now, id, packet, effects);
            }
        }
        let is_doomed = !self.clients.doomed.is_empty()
            && self
                .clients
                .connections
                .get(id)
                .is_none_or(|c| c.marks.has(Marks::DOOMED));
        let flow = if is_doomed { Flow::Stop } else { Flow::Go };
        self.stop_for_acks(now, id, session, flow)
    }

    /// Stops a client of which so many acknowledgements wait that it has to wait too.
    pub(crate) fn stop_for_acks(&mut self, now: Now, id: ConnectionId, session: SessionKey, flow: Flow) -> Flow {
        // Who is stopped already has a lane that may be long, and nobody else is to be asked about it.
        let is_long = core::mem::take(&mut self.clients.lane_is_long);
        if flow == Flow::Go && is_long && self.pause_for_acks(now, id, session) {
            Flow::Stop
        } else {
            flow
        }
    }

    /// Does what has come due, continues the open fan-out and open replays, and gives other shards the answers of this
    /// turn. Bounded work: what is left makes [`Engine::next_deadline`] immediate. Early calls are harmless.
    pub fn tick(&mut self, now: Now, effects: &mut Effects) {
        self.clients.memory.refund(effects.take_refunds());
        self.work = 0;
        self.clients.forget_queued();
        self.clients.look_at_memory(effects);
        self.continue_line(now, effects);
        self.continue_replays(now, effects);
        self.ask_unasked(effects);
        self.expire(now, effects);
        self.release_parked(now, effects);
        self.bury_doomed(now, effects);
        self.announce_portion(effects);
        self.mark_portion();
        self.links.answer(effects);
        self.clients.forget_copy(effects);
        self.clients.journal.end_of_call();
    }

    /// When [`Engine::tick`] has something to do next: in the past if it has something to do now.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let waits_for_memory = !self.parking.is_empty() || !self.unasked.is_empty();
        let has_memory = waits_for_memory && !self.clients.memory.would_be_full();
        let in_line = self.line.is_busy() || self.line.has_questions();
        let owes = self.links.owes_answer() || self.may_announce();
        if in_line || !self.replaying.is_empty() || has_memory || owes || self.marking.is_some() {
            return Some(Instant::from_nanos(0));
        }
        self.clients.timers.next_deadline()
    }

    /// Whether the present call should leave what is left to the next tick.
    #[inline]
    pub(crate) fn has_done_enough(&self, effects: &Effects) -> bool {
        let overtakes = mutant("shards/fanout-overtaken") && self.line.has_open();
        effects.transmits.len().max(self.work) >= self.clients.config.tray_max && !overtakes
    }

    /// Whether all other shards know what this one is interested in: what they route from now on reaches it.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.untold.is_empty() && self.links.confirmed() >= self.links.announced()
    }

    /// Whether retained messages of this Topic Name live here: which engine a retained record is restored into.
    #[must_use]
    pub fn is_home_of_topic(&self, topic: &str) -> bool {
        self.placement.home_of_hash(self.tree.topic_hash(topic)) == self.shard
    }

    /// Whether the Session of this Client Identifier lives here: which engine its records are restored into.
    #[must_use]
    pub fn is_home_of_client(&self, client_id: &str) -> bool {
        self.placement.home_of(self.placement.origin(client_id)) == self.shard
    }

    /// Whether this input may let a connection in here, so that [`Input::Elsewhere`] must tell before it how many there are
    /// on other shards.
    #[must_use]
    pub fn may_let_in(&self, input: &Input<'_>) -> bool {
        match input {
            Input::Adopted(..) => true,
            // Who brings no Client Identifier gets one that is at home here.
            Input::Packet(id, Packet::Connect(connect)) => {
                connect.client_id.is_empty() || self.is_home_of_client(connect.client_id) || self.may_be_named_anew(*id)
            }
            Input::Authenticated(id, AuthOutcome::Accepted | AuthOutcome::Granted(_) | AuthOutcome::Proven { .. }) => {
                self.clients
                    .connections
                    .get(*id)
                    .is_some_and(|connection| match &connection.state {
                        State::ExpectAuthentication(connect) => {
                            self.is_home_of_client(&connect.client_id) || self.may_be_named_anew(*id)
                        }
                        _ => false,
                    })
            }
            _ => false,
        }
    }

    /// By which listener a client comes that an input may let in, and as whose user.
    pub(crate) fn comes_as<'a>(&'a self, input: &'a Input<'_>) -> Option<(ListenerId, Option<NamedUser<'a>>)> {
        let (id, username) = match input {
            Input::Adopted(_, handover) => return Some((handover.listener, handover.connect.named_user())),
            Input::Packet(id, Packet::Connect(connect)) => (*id, connect.username),
            Input::Authenticated(id, AuthOutcome::Proven { username, .. }) => (*id, Some(&**username)),
            Input::Authenticated(id, AuthOutcome::Granted(grant)) => (*id, grant.username.as_deref()),
            Input::Authenticated(id, _) => (*id, None),
            _ => return None,
        };
        let connection = self.clients.connections.get(id)?;
        let (username, vouched) = match (&connection.state, input) {
            (State::ExpectNamed(name), _) => (Some(&***name), true),
            // Who is not named by an authenticator is who CONNECT says.
            (State::ExpectAuthentication(connect), _) => (username.or(connect.username.as_deref()), true),
            _ => (username, false),
        };
        let user = username.map(|name| NamedUser { name, vouched });
        Some((connection.listener, user))
    }

    /// Whether another name than the Client Identifier of its CONNECT may say where a client is at home.
    fn may_be_named_anew(&self, id: ConnectionId) -> bool {
        let connection = self.clients.connections.get(id);
        let terms = connection.and_then(|connection| self.clients.config.terms(connection.listener));
        terms.is_some_and(|terms| terms.username_is_client_id)
    }

    /// Where the connections of an input's listener are counted that may let one in here ([`Engine::may_let_in`]), if they
    /// have a limit of their own.
    #[must_use]
    pub fn limited_listener(&self, input: &Input<'_>) -> Option<ListenerId> {
        let listener = match input {
            Input::Adopted(_, handover) => handover.listener,
            Input::Packet(id, _) | Input::Authenticated(id, _) => self.clients.connections.get(*id)?.listener,
            _ => return None,
        };
        let terms = self.clients.config.terms(listener)?;
        (terms.connections_max < usize::MAX).then(|| self.clients.config.counted_at(listener))
    }

    /// The listeners whose connections have a limit of their own, and of those that share one the first.
    pub fn limited_listeners(&self) -> impl Iterator<Item = ListenerId> + '_ {
        self.clients.config.limited_listeners()
    }

    /// Connections that are let in here and counted at a listener: what [`Elsewhere::ConnectionsOf`] counts for the others.
    #[must_use]
    pub fn connections_of(&self, listener: ListenerId) -> usize {
        self.clients.settled_at(listener)
    }

    /// Connections that are let in here: what [`Elsewhere::Connections`] counts for the others.
    #[must_use]
    pub const fn connections(&self) -> usize {
        self.clients.settled
    }

    /// Bytes charged here: what [`Elsewhere::Memory`] counts for the others.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.clients.memory.used()
    }

    /// Whether this engine has found [`EngineConfig::memory_bytes_max`] met, and not enough was set free since.
    #[must_use]
    pub const fn has_met_memory_max(&self) -> bool {
        self.clients.memory.has_met_max()
    }

    /// This shard's counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.clients.stats.clone();
        stats.retained_messages = self.retained.len() as u64;
        stats.clients_disconnected = (self.clients.sessions.len() as u64).saturating_sub(stats.clients_connected);
        stats.memory_bytes = self.clients.memory.used() as u64;
        stats.memory_level = self.clients.memory.level() as u64;
        stats.memory_bytes_maximum = self.clients.memory.peak() as u64;
        stats
    }

    /// Ends the connections that the present call found must end.
    fn bury_doomed(&mut self, now: Now, effects: &mut Effects) {
        while let Some((id, cause)) = self.clients.doomed.pop() {
            self.end_connection(now, id, cause, effects);
        }
    }

    pub(crate) fn on_pressure(&mut self, now: Now, level: Level, effects: &mut Effects) {
        self.clients.memory.outside = level;
        self.release_parked(now, effects);
    }

    fn on_elsewhere(&mut self, now: Now, held: Elsewhere, effects: &mut Effects) {
        match held {
            Elsewhere::Connections(count) => self.clients.settled_elsewhere = count,
            Elsewhere::ConnectionsOf(listener, count) => self.clients.settled_elsewhere_at = (listener, count),
            Elsewhere::Tallies(counts) => self.clients.tallies.set_elsewhere(counts),
            Elsewhere::Memory(bytes) => {
                self.clients.memory.set_elsewhere(bytes);
                self.release_parked(now, effects);
            }
        }
    }

    fn on_reload(&mut self, config: Rc<EngineConfig>) {
        assert_eq!(
            config.shards, self.clients.config.shards,
            "the number of shards is fixed at start"
        );
        self.clients.memory.set_max(config.memory_bytes_max);
        if self.clients.rights.set(&config) {
            self.start_marking();
        }
        self.clients.config = config;
        self.clients.recount_users();
        self.clients.mark_clogged();
    }

    pub(crate) fn on_malformed(
        &mut self,
        now: Now,
        id: ConnectionId,
        error: sol_codec::DecodeError,
        effects: &mut Effects,
    ) {
        self.clients.stats.protocol_errors += 1;
        self.clients.stats.packets_too_large += u64::from(error.reason_code() == ReasonCode::PacketTooLarge);
        self.end_connection(now, id, Cause::Malformed(error), effects);
    }
}

/// Another key for another purpose: who sees hashes by it learns nothing of the first one, and they are no more alike.
fn derived(hasher: &RandomState, purpose: &str) -> RandomState {
    let key = |n: u64| hasher.hash_one((purpose, n));
    RandomState::with_seeds(key(0), key(1), key(2), key(3))
}
