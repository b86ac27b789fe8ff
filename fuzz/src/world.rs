//! One engine or two, and what surrounds them: a clock, mailboxes, journals, an authenticator, four places for
//! connections. It keeps the engines' contracts as the transport does, and lets each client watch what it is sent.

use std::collections::{BTreeSet, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{DecodeLimits, Decoded, Direction, QoS, ReasonCode, decode};
use sol_engine::{
    AuthOutcome, ConnectionId, Credentials, Effects, Engine, EngineConfig, Flow, Handover, Input, Instant, Level,
    ListenerId, ListenerRules, Now, QueueFull, Read, ShardId, ShardMessage, Ticket, UnixMillis,
};

use crate::conversation::{CLIENT_IDS, METHODS, Setup, Step, TOPICS};
use crate::peer::{INFLIGHT_MAX, Peer};

/// Turns that engines may want without the clock moving.
const TURNS_MAX: usize = 10_000;

/// See the [module](self).
pub struct World {
    shards: Vec<Shard>,
    now: Now,
    peers: [Option<Peer>; 4],
    generation: NonZeroU32,
    /// Who waits for the authenticator, and whether it is asked about a step of an exchange.
    logins: VecDeque<(usize, ConnectionId, bool)>,
    /// Mail between shards lies where it is.
    held: bool,
}

/// One engine, with its tray, its mailbox and its journal.
struct Shard {
    engine: Engine,
    effects: Effects,
    mailbox: VecDeque<(ShardId, ShardMessage)>,
    /// Records emitted and records durable, as tickets.
    emitted: u64,
    durable: u64,
}

impl World {
    pub fn new(setup: Setup, shards: u16) -> Self {
        let config = Rc::new(config(setup, shards));
        let shard = |number| Shard {
            engine: Engine::new(ShardId(number), config.clone(), [1, 2, 3, 4]),
            effects: Effects::default(),
            mailbox: VecDeque::new(),
            emitted: 0,
            durable: 0,
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            now: Now {
                mono: Instant::from_nanos(0),
                wall: UnixMillis::from_millis(1_000_000_000_000),
            },
            peers: [const { None }; 4],
            generation: NonZeroU32::MIN,
            logins: VecDeque::new(),
            held: false,
        }
    }

    /// Holds that two shards share the clients of a story and the topics that they use.
    ///
    /// # Panics
    /// If one of them has all.
    pub fn check_spread(setup: Setup) {
        let world = Self::new(setup, 2);
        let [one, _] = &*world.shards else {
            unreachable!("there are two")
        };
        let clients = CLIENT_IDS.map(|client_id| one.engine.is_home_of_client(client_id));
        let topics = TOPICS.map(|topic| one.engine.is_home_of_topic(topic));
        for homes in [&clients[..], &topics[..]] {
            assert!(
                homes.contains(&true) && homes.contains(&false),
                "all are at home on one shard"
            );
        }
    }

    /// Lets one thing happen and looks whether everything is still sound.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Open { who } => self.open(*who),
            Step::Send { who, request } => {
                if let Some(peer) = &self.peers[place(*who)] {
                    let bytes = request.bytes(peer.version);
                    self.receive(*who, &bytes);
                }
            }
            Step::Garbage { who, bytes } => self.receive(*who, bytes),
            Step::Lose { who } => {
                if let Some(peer) = self.peers[place(*who)].take() {
                    self.handle(peer.shard, Input::Closed(peer.connection));
                }
            }
            Step::Congest { who, unsent } => self.tell(*who, |connection| Input::Congested(connection, *unsent)),
            Step::Drain { who } => self.tell(*who, Input::Drained),
            Step::Login { answer } => self.answer_login(*answer),
            Step::Durable => self.make_durable(),
            Step::Pressure { full } => {
                self.handle_all(|_| Some(Input::Pressure(if *full { Level::Full } else { Level::Normal })))
            }
            Step::Tick => self.turn(),
            Step::Pass { seconds } => self.pass(Duration::from_secs(u64::from(*seconds))),
            Step::Shutdown => self.handle_all(|_| Some(Input::Shutdown)),
            Step::Hold => self.held = true,
            Step::Release => self.held = false,
            Step::Crowd { shard, full } => {
                let crowded = ShardId(u16::from(*shard) % self.shards.len() as u16);
                self.handle_all(|of| {
                    (of != crowded).then_some(Input::Peer {
                        shard: crowded,
                        full: *full,
                    })
                });
            }
        }
        self.deliver_mail();
        self.check();
    }

    /// Everything comes to rest and to its end.
    pub fn end(mut self) {
        self.held = false;
        self.rest();
        self.handle_all(|_| Some(Input::Shutdown));
        self.rest();
        self.check();
        assert!(
            self.peers.iter().all(Option::is_none),
            "somebody was not told of the end"
        );
    }

    /// Time passes until nobody has anything to do but to wait.
    fn rest(&mut self) {
        for _ in 0..3 {
            self.deliver_mail();
            self.make_durable();
            self.pass(Duration::from_secs(1));
        }
    }

    fn check(&self) {
        for shard in &self.shards {
            if let Err(fault) = shard.engine.check() {
                panic!("{fault}");
            }
        }
        let mut owned = BTreeSet::new();
        for client_id in self.peers.iter().flatten().filter_map(Peer::owns) {
            assert!(
                owned.insert(client_id),
                "[MQTT-3.1.4-3] two connections own {client_id:?}"
            );
        }
    }

    fn tell(&mut self, who: u8, input: impl FnOnce(ConnectionId) -> Input<'static>) {
        if let Some((shard, connection)) = self.peers[place(who)]
            .as_ref()
            .map(|peer| (peer.shard, peer.connection))
        {
            self.handle(shard, input(connection));
        }
    }

    /// Connections come in at the shards in turn.
    fn open(&mut self, who: u8) {
        if self.peers[place(who)].is_some() {
            return;
        }
        let connection = self.name(who);
        let shard = self.generation.get() as usize % self.shards.len();
        self.peers[place(who)] = Some(Peer::new(shard, connection));
        let listener = ListenerId(u16::from(who & 0x01));
        self.handle(shard, Input::Opened { connection, listener });
    }

    fn name(&mut self, who: u8) -> ConnectionId {
        self.generation = self.generation.saturating_add(1);
        ConnectionId::new(u32::from(who & 0x03), self.generation)
    }

    /// Bytes of a client arrive. What is no whole packet is forgotten.
    fn receive(&mut self, who: u8, bytes: &[u8]) {
        let Some(peer) = self.peers[place(who)].as_mut().filter(|peer| !peer.stopped) else {
            return;
        };
        let (shard, connection) = (peer.shard, peer.connection);
        let limits = DecodeLimits {
            maximum_packet_size: 1 << 20,
            direction: Direction::FromClient,
            ..DecodeLimits::default()
        };
        match decode(bytes, peer.version, &limits) {
            Ok(Decoded::Packet { packet, .. }) => {
                peer.says(&packet);
                let flow = self.call(shard, Input::Packet(connection, &packet));
                // A Resume in the tray of the same call comes after the Stop.
                if let Some(peer) = self.find(shard, connection) {
                    peer.stopped = flow == Flow::Stop;
                }
                self.apply(shard);
            }
            Ok(Decoded::NeedMore(_)) => {}
            Err(error) => {
                self.handle(shard, Input::Malformed(connection, error));
                let there = self.find(shard, connection).is_some();
                assert!(!there, "a malformed packet has no consequence");
            }
        }
    }

    /// A password is right or wrong; an exchange may take another step first.
    fn answer_login(&mut self, answer: u8) {
        let Some((shard, connection, is_exchange)) = self.logins.pop_front() else {
            return;
        };
        let proven = |username: &str, data| AuthOutcome::Proven {
            username: username.to_owned(),
            data,
        };
        let outcome = match (is_exchange, answer % 4) {
            (_, 0) | (false, 2) => AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword),
            (false, _) => AuthOutcome::Accepted,
            (true, 1) => proven("u", Some(b"end".to_vec())),
            (true, 2) => AuthOutcome::Continue {
                data: b"more".to_vec(),
                memo: b"memo".to_vec(),
            },
            (true, _) => proven("v", None),
        };
        self.handle(shard, Input::Authenticated(connection, outcome));
    }

    fn make_durable(&mut self) {
        // What becomes durable may write more, but not for ever.
        for _ in 0..TURNS_MAX {
            let Some(at) = self.shards.iter().position(|shard| shard.durable < shard.emitted) else {
                return;
            };
            let shard = &mut self.shards[at];
            shard.durable = shard.emitted;
            let ticket = Ticket(shard.durable);
            self.handle(at, Input::Durable(ticket));
        }
        panic!("the journals do not come to rest");
    }

    /// A turn of each loop without anything new: a tick, and everything leaves.
    fn turn(&mut self) {
        let now = self.now;
        for at in 0..self.shards.len() {
            let shard = &mut self.shards[at];
            shard.engine.tick(now, &mut shard.effects);
            self.apply(at);
            self.handle(at, Input::Flushed);
        }
        self.deliver_mail();
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now.mono.saturating_add(duration);
        for _ in 0..TURNS_MAX {
            let next = self
                .shards
                .iter()
                .filter_map(|shard| shard.engine.next_deadline())
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.move_clock(end);
                return self.turn();
            };
            self.move_clock(next.max(self.now.mono));
            self.turn();
        }
        panic!("the engines do not come to rest");
    }

    fn move_clock(&mut self, to: Instant) {
        let passed = to.saturating_since(self.now.mono).as_millis() as u64;
        self.now = Now {
            mono: to,
            wall: UnixMillis::from_millis(self.now.wall.as_millis() + passed),
        };
    }

    /// Mail arrives, and what is posted in answer, in order, until there is none.
    fn deliver_mail(&mut self) {
        for _ in 0..TURNS_MAX {
            let waiting = self
                .shards
                .iter()
                .position(|shard| !self.held && !shard.mailbox.is_empty());
            let Some(at) = waiting else { return };
            if let Some((from, message)) = self.shards[at].mailbox.pop_front() {
                self.handle(at, Input::Shard { from, message });
            }
        }
        panic!("the shards do not stop writing to each other");
    }

    fn handle(&mut self, shard: usize, input: Input<'_>) {
        let _ = self.call(shard, input);
        self.apply(shard);
    }

    fn handle_all<'a>(&mut self, input: impl Fn(ShardId) -> Option<Input<'a>>) {
        for at in 0..self.shards.len() {
            if let Some(input) = input(ShardId(at as u16)) {
                self.handle(at, input);
            }
        }
    }

    fn call(&mut self, shard: usize, input: Input<'_>) -> Flow {
        let Shard { engine, effects, .. } = &mut self.shards[shard];
        engine.handle(self.now, input, effects)
    }

    /// Applies the tray of one call.
    fn apply(&mut self, at: usize) {
        let mut effects = std::mem::take(&mut self.shards[at].effects);
        self.shards[at].emitted += u64::from(!effects.records.is_empty());
        for (to, message) in effects.forwards.drain(..) {
            let to = usize::from(to.0);
            assert_ne!(to, at, "a shard writes to itself: {message:?}");
            self.shards[to].mailbox.push_back((ShardId(at as u16), message));
        }
        for transmit in &effects.transmits {
            let peer = self.find(at, transmit.connection);
            let peer = peer.expect("a packet is for a connection that is gone or never was");
            peer.hears(&transmit.packet);
        }
        let moves: Vec<_> = effects.moves.drain(..).collect();
        self.logins.extend(effects.auth_requests.iter().map(|request| {
            let is_exchange = matches!(request.credentials, Credentials::Exchange { .. });
            (at, request.connection, is_exchange)
        }));
        for read in effects.reads.drain(..) {
            let (connection, stopped) = match read {
                Read::Pause(connection) => (connection, true),
                Read::Resume(connection) | Read::Auth(connection) => (connection, false),
            };
            if let Some(peer) = self.find(at, connection) {
                peer.stopped = stopped;
            }
        }
        for close in effects.closes.drain(..) {
            let peer = self.peers.iter_mut().find(|peer| is(peer, at, close.connection));
            *peer.expect("a connection is closed that is gone or never was") = None;
        }
        effects.clear();
        self.shards[at].effects = effects;
        for moved in moves {
            self.adopt(at, moved.connection, usize::from(moved.to.0), moved.handover);
        }
    }

    /// A connection moves to the shard of its Session.
    fn adopt(&mut self, from: usize, connection: ConnectionId, to: usize, handover: Box<Handover>) {
        let who = self.peers.iter().position(|peer| is(peer, from, connection));
        let who = who.expect("a connection is moved that is gone or never was");
        let name = self.name(who as u8);
        if let Some(peer) = &mut self.peers[who] {
            (peer.shard, peer.connection) = (to, name);
        }
        let flow = self.call(to, Input::Adopted(name, handover));
        if let Some(peer) = self.find(to, name) {
            peer.stopped = flow == Flow::Stop;
        }
        self.apply(to);
    }

    fn find(&mut self, shard: usize, connection: ConnectionId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| is(peer, shard, connection))?.as_mut()
    }
}

fn is(peer: &Option<Peer>, shard: usize, connection: ConnectionId) -> bool {
    peer.as_ref()
        .is_some_and(|peer| (peer.shard, peer.connection) == (shard, connection))
}

fn config(setup: Setup, shards: u16) -> EngineConfig {
    let rules = ListenerRules {
        allow_anonymous: true,
        ask: setup.ask,
        named: false,
    };
    let limits = usize::from(setup.limits);
    EngineConfig {
        shards,
        listeners: vec![ListenerRules::default(), rules],
        receive_maximum: NonZeroU16::MIN.saturating_add(u16::from(setup.limits & 0x03)),
        inflight_max: INFLIGHT_MAX,
        queue_max: 1 + limits % 5,
        queue_bytes_max: 16 << (limits % 7),
        queue_full: match setup.queue_full % 3 {
            0 => QueueFull::Refuse,
            1 => QueueFull::DropNewest,
            _ => QueueFull::DropOldest,
        },
        queue_qos0: setup.queue_qos0,
        topic_alias_maximum: 4,
        topic_alias_out_max: 2,
        keep_alive_max: if setup.limits & 0x10 != 0 { 10 } else { 0 },
        session_expiry_max: if setup.limits & 0x20 != 0 { 100 } else { u32::MAX },
        maximum_qos: if setup.limits & 0x40 != 0 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        },
        retain_available: setup.limits & 0x80 == 0,
        memory_bytes_max: match setup.memory {
            0..=127 => usize::MAX,
            scarce => usize::from(scarce) * 64,
        },
        unsent_bytes_high: 64,
        unsent_bytes_max: 4_096,
        parked_bytes_max: 64,
        tray_max: 1 + limits % 9,
        fanout_waiting_max: 1 + limits % 3,
        retained_page_max: 1 + limits % 4,
        replay_seen_max: limits % 3,
        subscriptions_max: 1 + limits % 11,
        authentication_methods: vec![METHODS[0].to_owned()],
        journal: setup.journal,
        ..EngineConfig::default()
    }
}

fn place(who: u8) -> usize {
    usize::from(who & 0x03)
}
