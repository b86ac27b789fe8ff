//! Engines, their mailboxes and clients in one thread, on one clock, from one seed.
//!
//! ```text
//!  Client ──says──► Link ──Request──► Shard (Engine, tray) ──flush──► mailboxes of the other shards, one FIFO each
//!         ◄─hears──      ◄──Parcel───    │
//!                                     Oracle and checks hear all that passes here
//! ```
//! Nothing happens by itself: each step does one of the things that could happen next, drawn by the seed. So
//! mail lies as long as it likes, bytes come between, and what a shard posts leaves when it flushes. A shard may rest for
//! a while and do nothing at all.

mod end;
mod journal;
mod observe;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{ProtocolVersion, QoS, ReasonCode, SubscriptionOptions};
use sol_engine::{ConnectionId, Effects, Engine, EngineConfig, Input, Instant, Now, QueueFull, ShardId, UnixMillis};

use self::journal::Journal;
use self::observe::Seen;
use self::turn::Mail;
use crate::checks::answers::Answers;
use crate::checks::flights::Flights;
use crate::checks::owners::Owners;
use crate::client::Client;
use crate::fault::Fault;
use crate::oracle::{LinkId, Message, Number, Oracle, SessionId};
use crate::packet::{ConnectRequest, PublishRequest, Reply, Request, WillRequest, payload_of};
use crate::rng::Rng;
use crate::violation::Verdict;

/// Unsent bytes of a congested connection: above the mark where deliveries wait, below the one where it is closed.
const CONGESTED_BYTES: u32 = 2 << 20;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// From this follows everything that is left to chance.
    pub seed: u64,
    /// The engines' configuration; its number of shards is the world's.
    pub config: EngineConfig,
    /// The clients, by the version that each speaks.
    pub clients: Vec<ProtocolVersion>,
    /// What is broken on purpose.
    pub fault: Option<Fault>,
}

/// See the [module](self).
pub struct World {
    rng: Rng,
    now: Now,
    config: EngineConfig,
    shards: Vec<Shard>,
    links: BTreeMap<LinkId, Link>,
    last_link: LinkId,
    parties: Vec<Party>,
    last_number: Number,
    oracle: Oracle,
    flights: Flights,
    answers: Answers,
    owners: Owners,
    fault: Option<Fault>,
    /// What the next request of a connection was exchanged for, by a fault.
    swapped: BTreeMap<LinkId, Request>,
    /// What the last client, which looks at what is retained, was sent.
    seen: BTreeMap<String, Number>,
    steps: u64,
    /// What has crossed the engines' border, if anybody wants to read it.
    log: Option<Vec<String>>,
}

/// One engine and what the transport keeps for it.
struct Shard {
    engine: Engine,
    tray: Effects,
    seen: Seen,
    mailbox: VecDeque<Mail>,
    /// Connections that it has given away and not posted.
    moving: Vec<LinkId>,
    journal: Journal,
    /// The connection in each slot, and how many tenants there were.
    slots: Vec<Option<LinkId>>,
    tenants: u32,
    /// Steps for which it does nothing.
    rests: usize,
}

/// A client and its present connection.
struct Party {
    client: Client,
    link: Option<LinkId>,
}

/// A Network Connection: a pipe each way that carries whole packets in order.
struct Link {
    who: usize,
    connect: ConnectRequest,
    shard: usize,
    /// Its name at its shard; `None` while it moves.
    connection: Option<ConnectionId>,
    to_broker: VecDeque<Request>,
    to_client: VecDeque<Parcel>,
    /// The engine wants no packet now.
    stopped: bool,
    /// CONNACK has left.
    active: bool,
    /// The engine is done with it.
    ended: bool,
    congested: bool,
}

/// A packet on its way to a client, with the Session that it is for and the time it left.
struct Parcel {
    reply: Reply,
    session: Option<SessionId>,
    sent: Now,
}

/// How a client connects.
#[derive(Clone, Debug, Default)]
pub struct ConnectPlan {
    /// Clean Start, or Clean Session of 3.1.1.
    pub clean_start: bool,
    /// Session Expiry Interval; 3.1.1 knows only 0 and for ever, by Clean Session.
    pub session_expiry_interval: u32,
    /// Receive Maximum.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size.
    pub maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: u16,
    /// The Will: topic, QoS, RETAIN, Will Delay Interval.
    pub will: Option<(String, QoS, bool, u32)>,
}

/// How a client publishes.
#[derive(Clone, Debug, Default)]
pub struct PublishPlan {
    /// Topic Name.
    pub topic: String,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// No payload.
    pub empty: bool,
    /// Message Expiry Interval; 5.0 only.
    pub expiry: Option<u32>,
    /// With a Topic Alias, where the broker takes any.
    pub alias: bool,
    /// Bytes of payload that say nothing.
    pub padding: usize,
    /// With a User Property; 5.0 only.
    pub tagged: bool,
}

impl World {
    /// A world where nobody is connected.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let seeds = [rng.next(), rng.next(), rng.next(), rng.next()];
        let config = Rc::new(setup.config.clone());
        let shards = (0..config.shards)
            .map(|shard| Shard {
                engine: Engine::new(ShardId(shard), Rc::clone(&config), seeds),
                tray: Effects::default(),
                seen: Seen::default(),
                mailbox: VecDeque::new(),
                moving: Vec::new(),
                journal: Journal::default(),
                slots: Vec::new(),
                tenants: 0,
                rests: 0,
            })
            .collect();
        let versions = setup.clients.into_iter().chain([ProtocolVersion::V5]);
        let refuses = setup.config.queue_full == QueueFull::Refuse;
        let party = |(who, version)| Party {
            client: Client::new(format!("client {who}"), version),
            link: None,
        };
        let mut world = Self {
            rng,
            now: Now {
                mono: Instant::from_nanos(0),
                wall: UnixMillis::from_millis(1_000_000_000_000),
            },
            config: setup.config,
            shards,
            links: BTreeMap::new(),
            last_link: 0,
            parties: versions.enumerate().map(party).collect(),
            last_number: 0,
            oracle: Oracle::new(refuses),
            flights: Flights::default(),
            answers: Answers::default(),
            owners: Owners::default(),
            fault: setup.fault,
            swapped: BTreeMap::new(),
            seen: BTreeMap::new(),
            steps: 0,
            log: None,
        };
        world.oracle.time(world.now);
        world
    }

    /// Steps taken so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// From now on all that crosses the engines' border is written down.
    pub fn write_down(&mut self) {
        self.log.get_or_insert_default();
    }

    /// What was written down.
    #[must_use]
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    fn note_down(&mut self, line: impl FnOnce() -> String) {
        let at = self.now.mono.as_nanos() / 1_000_000;
        if let Some(log) = &mut self.log {
            log.push(format!("{at} ms: {}", line()));
        }
    }

    /// A client connects, in place of a connection that it has. Nothing happens while an earlier CONNECT of its is under
    /// way.
    pub fn connect(&mut self, who: usize, plan: &ConnectPlan) {
        if self
            .links
            .values()
            .any(|link| link.who == who && !link.active && !link.ended)
        {
            return;
        }
        self.abandon(who);
        let will = plan.will.as_ref().map(|will| self.will(who, will));
        let party = &mut self.parties[who];
        if plan.clean_start {
            party.client.forget();
        }
        let v5 = party.client.version == ProtocolVersion::V5;
        let connect = ConnectRequest {
            version: party.client.version,
            client_id: party.client.client_id.clone(),
            clean_start: plan.clean_start,
            session_expiry_interval: match (v5, plan.clean_start) {
                (true, _) => plan.session_expiry_interval,
                (false, true) => 0,
                (false, false) => u32::MAX,
            },
            receive_maximum: plan.receive_maximum.filter(|_| v5),
            maximum_packet_size: plan.maximum_packet_size.filter(|_| v5),
            topic_alias_maximum: if v5 { plan.topic_alias_maximum } else { 0 },
            will,
        };
        self.last_link += 1;
        let link = self.last_link;
        self.parties[who].link = Some(link);
        let shard = self.rng.below(self.shards.len());
        self.open(link, shard, who, connect);
    }

    fn will(&mut self, who: usize, (topic, qos, retain, delay): &(String, QoS, bool, u32)) -> WillRequest {
        self.last_number += 1;
        let number = self.last_number;
        let payload = payload_of(number, 0);
        let v5 = self.parties[who].client.version == ProtocolVersion::V5;
        self.oracle.introduce(Message {
            number,
            origin: who,
            is_will: true,
            topic: topic.clone(),
            payload: payload.clone(),
            qos: *qos,
            retain: *retain,
            expiry: None,
            tagged: false,
        });
        WillRequest {
            number,
            topic: topic.clone(),
            payload,
            qos: *qos,
            retain: *retain,
            delay: if v5 { *delay } else { 0 },
        }
    }

    /// A client gives up its connection without a word: what is on its way to the broker may arrive or not.
    pub fn lose(&mut self, who: usize) {
        let Some(link) = self.parties[who].link.and_then(|link| self.links.get_mut(&link)) else {
            return;
        };
        // A CONNECT arrives, so that the client knows what became of its Session.
        let least = usize::from(matches!(link.to_broker.front(), Some(Request::Connect(_))));
        let most = link.to_broker.len();
        let kept = least + self.rng.below(most - least + 1);
        link.to_broker.truncate(kept);
        link.to_broker.push_back(Request::End);
        self.abandon(who);
    }

    /// A client says good-bye.
    pub fn disconnect(&mut self, who: usize, with_will: bool, session_expiry_interval: Option<u32>) {
        let Party { client, link } = &mut self.parties[who];
        let Some(link) = link
            .filter(|_| client.connected)
            .and_then(|link| self.links.get_mut(&link))
        else {
            return;
        };
        let v5 = client.version == ProtocolVersion::V5;
        // A Session that was to end with its connection cannot be made to last (section 3.14.2.2.2).
        let may_change = v5 && link.connect.session_expiry_interval > 0;
        link.to_broker.push_back(Request::Disconnect {
            reason_code: if with_will && v5 {
                ReasonCode::DisconnectWithWillMessage
            } else {
                ReasonCode::Success
            },
            session_expiry_interval: session_expiry_interval.filter(|_| may_change),
        });
        self.abandon(who);
    }

    /// A client no longer looks at its connection.
    fn abandon(&mut self, who: usize) {
        let Party { client, link } = &mut self.parties[who];
        client.leave();
        if let Some(id) = link.take() {
            if let Some(link) = self.links.get_mut(&id) {
                link.to_client.clear();
            }
            self.reap(id);
        }
    }

    /// Forgets a connection that nobody looks at any more.
    fn reap(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        if link.ended && self.parties[link.who].link != Some(id) {
            self.links.remove(&id);
            self.swapped.remove(&id);
        }
    }

    /// A client subscribes.
    pub fn subscribe(&mut self, who: usize, filters: &[(String, SubscriptionOptions)], subscription_id: Option<u32>) {
        let client = &mut self.parties[who].client;
        if !client.connected {
            return;
        }
        let v5 = client.version == ProtocolVersion::V5;
        let mut names = BTreeSet::new();
        let mut filters: Vec<_> = filters
            .iter()
            .filter(|(name, _)| names.insert(name.clone()))
            .cloned()
            .collect();
        for (name, options) in &mut filters {
            if !v5 {
                *options = SubscriptionOptions {
                    qos: options.qos,
                    ..SubscriptionOptions::default()
                };
            }
            // [MQTT-3.8.3-4]
            options.no_local &= !name.starts_with("$share/");
        }
        client.ask(true, filters.len(), |packet_id| Request::Subscribe {
            packet_id,
            subscription_id: subscription_id.filter(|_| v5),
            filters,
        });
        self.carry(who);
    }

    /// A client unsubscribes.
    pub fn unsubscribe(&mut self, who: usize, filters: &[String]) {
        let client = &mut self.parties[who].client;
        if client.connected {
            client.ask(false, filters.len(), |packet_id| Request::Unsubscribe {
                packet_id,
                filters: filters.to_vec(),
            });
            self.carry(who);
        }
    }

    /// A client publishes.
    pub fn publish(&mut self, who: usize, plan: &PublishPlan) {
        let client = &mut self.parties[who].client;
        if !client.connected {
            return;
        }
        self.last_number += 1;
        let number = self.last_number;
        let v5 = client.version == ProtocolVersion::V5;
        let payload = if plan.empty {
            String::new()
        } else {
            payload_of(number, plan.padding)
        };
        let message = Message {
            number,
            origin: who,
            is_will: false,
            topic: plan.topic.clone(),
            payload: payload.clone(),
            qos: plan.qos,
            retain: plan.retain,
            expiry: plan.expiry.filter(|_| v5),
            tagged: plan.tagged && v5,
        };
        let publish = PublishRequest {
            number,
            dup: false,
            qos: plan.qos,
            retain: plan.retain,
            topic: Some(plan.topic.clone()),
            alias: None,
            packet_id: None,
            expiry: message.expiry,
            tagged: message.tagged,
            payload,
        };
        self.oracle.introduce(message);
        client.publish(publish, plan.alias && v5);
        self.carry(who);
    }

    /// A client keeps its acknowledgements to itself from now on, or no longer.
    pub fn withhold(&mut self, who: usize, withholds: bool) {
        self.parties[who].client.withholds = withholds;
        if !withholds {
            self.release(who, usize::MAX);
        }
    }

    /// A client gives some of the acknowledgements that it kept to itself.
    pub fn release(&mut self, who: usize, count: usize) {
        self.parties[who].client.release(count);
        self.carry(who);
    }

    /// A client's connection takes no more bytes, or takes all again.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn congest(&mut self, who: usize, congested: bool) -> Verdict {
        let Some((id, link)) = self.parties[who]
            .link
            .and_then(|id| Some((id, self.links.get_mut(&id)?)))
        else {
            return Ok(());
        };
        let Some(connection) = link.connection.filter(|_| link.active && !link.ended) else {
            return Ok(());
        };
        let shard = link.shard;
        link.congested = congested;
        self.oracle.clogged(id);
        let input = if congested {
            Input::Congested(connection, CONGESTED_BYTES)
        } else {
            Input::Drained(connection)
        };
        self.tell(shard, input).map(drop)
    }

    /// Some of what could happen happens.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn steps_of_chance(&mut self, count: usize) -> Verdict {
        for _ in 0..count {
            self.step()?;
        }
        Ok(())
    }

    /// Time passes. Deadlines on the way are kept, unless all shards stand still meanwhile.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn pass(&mut self, duration: Duration) -> Verdict {
        let end = self.now.mono.saturating_add(duration);
        if !self.rng.once_in(4) {
            self.keep_deadlines(end)?;
        }
        self.move_clock(end);
        Ok(())
    }

    fn keep_deadlines(&mut self, end: Instant) -> Verdict {
        loop {
            let deadlines = self.shards.iter().filter_map(|shard| shard.engine.next_deadline());
            let Some(next) = deadlines.min().filter(|next| *next <= end) else {
                return Ok(());
            };
            self.move_clock(next.max(self.now.mono));
            for shard in 0..self.shards.len() {
                if self.is_due(shard) {
                    self.tick(shard)?;
                }
            }
            let count = self.rng.below(8);
            self.steps_of_chance(count)?;
        }
    }

    fn move_clock(&mut self, to: Instant) {
        let passed = to.saturating_since(self.now.mono).as_millis() as u64;
        self.now = Now {
            mono: to,
            wall: UnixMillis::from_millis(self.now.wall.as_millis() + passed),
        };
        self.oracle.time(self.now);
    }

    /// What a client says enters its pipe.
    fn carry(&mut self, who: usize) {
        let Party { client, link } = &mut self.parties[who];
        if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
            link.to_broker.append(&mut client.says);
        }
    }
}
