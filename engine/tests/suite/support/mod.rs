//! A node of one, two or three engines over in-memory mailboxes, and clients that talk to it without sockets.
//!
//! Clients connect to shards in turn and are moved to their home as the transport would move them. What a client gets is
//! one line of text a packet, so that a test asserts the whole output:
//!
//! ```text
//! PUBLISH a/b q1 #1 "21.5"        PUBLISH a/b q0 retain "21.5"        PUBACK #1        SUBACK #1 [01]
//! ```
#![allow(
    unreachable_pub,
    missing_docs,
    dead_code,
    clippy::print_stdout,
    reason = "tools for tests, of a binary without an outside"
)]

pub mod client;
pub mod raw;
pub mod store;
pub mod wire;
pub mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{Packet, ProtocolVersion, ReasonCode};
use sol_engine::{
    AckKind, AuthOutcome, AuthRequest, Close, ConnAckData, ConnectionId, Delivery, Effects, Elsewhere, Engine,
    EngineConfig, Event, Flow, Handover, Input, Instant, ListenerId, Move, Now, Outgoing, Read, ShardId, ShardMessage,
    Stats, UnixMillis,
};

pub use client::*;

/// Runs a test in a node of one, of two and of three engines.
pub fn in_each_node(config: EngineConfig, test: impl Fn(&mut Node)) {
    for shards in 1..=3 {
        println!("with {shards} engines");
        let mut node = Node::new(shards, config.clone());
        test(&mut node);
        node.check();
    }
}

/// The same with the default configuration.
pub fn in_every_node(test: impl Fn(&mut Node)) {
    in_each_node(EngineConfig::default(), test);
}

/// A client of the node, by its place in [`Node::clients`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(pub usize);

/// What the node knows of a client.
pub struct ClientState {
    pub shard: usize,
    pub connection: ConnectionId,
    pub version: ProtocolVersion,
    /// What it got and did not look at yet.
    pub inbox: VecDeque<String>,
    /// The same as bytes, if the node keeps them.
    pub bytes: Vec<Vec<u8>>,
    /// Its latest CONNACK.
    pub connack: Option<ConnAckData>,
    pub open: bool,
    /// The engine has stopped the decoding of its packets.
    stopped: bool,
    /// Packets that wait for that to end, as functions that send them.
    held: VecDeque<Sending>,
}

/// A function that sends a packet.
pub type Sending = Box<dyn Fn(&mut dyn FnMut(&Packet<'_>))>;

/// Engines, their mailboxes, and their clients.
pub struct Node {
    pub now: Now,
    pub engines: Vec<Engine>,
    pub clients: Vec<ClientState>,
    pub events: Vec<Event>,
    pub auth_requests: Vec<(usize, AuthRequest)>,
    pub store: store::Store,
    /// Whether records become durable by themselves.
    pub durable_at_once: bool,
    /// Whether what clients get is kept as bytes too.
    pub keeps_bytes: bool,
    /// Mailboxes whose messages are held back until [`Node::deliver_mail`]: (from, to).
    pub held_links: Vec<(usize, usize)>,
    /// Whether connections on their way to their home are held back until [`Node::release_moves`].
    pub holds_moves: bool,
    held_moves: Vec<(usize, Move)>,
    /// Where clients that open a connection come in.
    pub listener: ListenerId,
    /// Who the transport says that those are who come now.
    pub name: Option<String>,
    config: EngineConfig,
    mailboxes: BTreeMap<(usize, usize), VecDeque<ShardMessage>>,
    effects: Vec<Effects>,
    pub writer: writer::Writer,
    next_shard: usize,
    slots: u32,
}

pub const SEEDS: [u64; 4] = [11, 22, 33, 44];

impl Node {
    pub fn new(shards: u16, config: EngineConfig) -> Self {
        let config = EngineConfig { shards, ..config };
        let engines = (0..shards)
            .map(|shard| Engine::new(ShardId(shard), Rc::new(config.clone()), SEEDS))
            .collect();
        Self {
            now: Now {
                mono: Instant::from_nanos(0),
                wall: UnixMillis::from_millis(1_000_000_000_000),
            },
            engines,
            clients: Vec::new(),
            events: Vec::new(),
            auth_requests: Vec::new(),
            store: store::Store::default(),
            durable_at_once: true,
            keeps_bytes: false,
            held_links: Vec::new(),
            holds_moves: false,
            held_moves: Vec::new(),
            listener: ListenerId(0),
            name: None,
            config,
            mailboxes: BTreeMap::new(),
            effects: (0..shards).map(|_| Effects::default()).collect(),
            writer: writer::Writer::new(usize::from(shards)),
            next_shard: 0,
            slots: 0,
        }
    }

    /// Opens a connection at the next shard in turn.
    pub fn open(&mut self, version: ProtocolVersion) -> Client {
        let shard = self.next_shard % self.engines.len();
        self.next_shard += 1;
        let connection = self.new_connection();
        self.clients.push(ClientState {
            shard,
            connection,
            version,
            inbox: VecDeque::new(),
            bytes: Vec::new(),
            connack: None,
            open: true,
            stopped: false,
            held: VecDeque::new(),
        });
        let listener = self.listener;
        self.input(shard, Input::Opened { connection, listener });
        if let Some(name) = self.name.clone() {
            self.input(shard, Input::Identified(connection, name));
        }
        Client(self.clients.len() - 1)
    }

    fn new_connection(&mut self) -> ConnectionId {
        self.slots += 1;
        ConnectionId::new(self.slots, NonZeroU32::new(self.slots).unwrap())
    }

    /// Sends a packet, or holds it back while the engine does not want one.
    pub fn send(&mut self, client: Client, sending: impl Fn(&mut dyn FnMut(&Packet<'_>)) + 'static) {
        self.clients[client.0].held.push_back(Box::new(sending));
        self.send_held(client);
        self.run();
    }

    /// Sends several packets in one turn: nothing of what follows from the first is seen before the last.
    pub fn send_batch(&mut self, client: Client, sendings: Vec<Sending>) {
        self.clients[client.0].held.extend(sendings);
        self.send_held(client);
        self.run();
    }

    fn send_held(&mut self, client: Client) {
        while self.clients[client.0].open && !self.clients[client.0].stopped {
            let Some(sending) = self.clients[client.0].held.pop_front() else {
                return;
            };
            let (shard, connection) = (self.clients[client.0].shard, self.clients[client.0].connection);
            let mut flow = Flow::Go;
            sending(&mut |packet| {
                flow = self.hand(shard, Input::Packet(connection, packet));
            });
            if flow == Flow::Stop && self.clients[client.0].connection == connection {
                self.clients[client.0].stopped = true;
            }
            self.apply(shard);
        }
    }

    /// Gives an engine an input that no client sends, and runs until nothing is left to do.
    pub fn input(&mut self, shard: usize, input: Input<'_>) {
        let _ = self.hand(shard, input);
        self.apply(shard);
    }

    /// Gives an engine an input, and before it what it has to know of the others.
    fn hand(&mut self, shard: usize, input: Input<'_>) -> Flow {
        let now = self.now;
        if self.engines[shard].may_let_in(&input) {
            let others =
                self.engines.iter().map(Engine::connections).sum::<usize>() - self.engines[shard].connections();
            let told = Input::Elsewhere(Elsewhere::Connections(others));
            let _ = self.call(shard, |engine, effects| engine.handle(now, told, effects));
            if let Some(listener) = self.engines[shard].limited_listener(&input) {
                let all = self.engines.iter().map(|engine| engine.connections_of(listener));
                let others = all.sum::<usize>() - self.engines[shard].connections_of(listener);
                let told = Input::Elsewhere(Elsewhere::ConnectionsOf(listener, others));
                let _ = self.call(shard, |engine, effects| engine.handle(now, told, effects));
            }
        }
        self.call(shard, |engine, effects| engine.handle(now, input, effects))
    }

    fn call<R>(&mut self, shard: usize, call: impl FnOnce(&mut Engine, &mut Effects) -> R) -> R {
        call(&mut self.engines[shard], &mut self.effects[shard])
    }

    /// The peer vanishes.
    pub fn lose(&mut self, client: Client) {
        let (shard, connection) = (self.clients[client.0].shard, self.clients[client.0].connection);
        self.clients[client.0].open = false;
        self.input(shard, Input::Closed(connection));
        self.run();
    }

    /// The kernel takes no more bytes of a client's.
    pub fn congest(&mut self, client: Client, unsent: u32) {
        let (shard, connection) = (self.clients[client.0].shard, self.clients[client.0].connection);
        self.input(shard, Input::Congested(connection, unsent));
        self.run();
    }

    /// The kernel has taken all bytes of a client's.
    pub fn drain(&mut self, client: Client) {
        let (shard, connection) = (self.clients[client.0].shard, self.clients[client.0].connection);
        self.input(shard, Input::Drained(connection));
        self.run();
    }

    /// Answers the oldest login.
    pub fn answer_login(&mut self, outcome: AuthOutcome) {
        let (shard, request) = self.auth_requests.remove(0);
        self.input(shard, Input::Authenticated(request.connection, outcome));
        self.run();
    }

    /// Lets time pass, with a tick at every deadline on the way.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now.mono.saturating_add(duration);
        loop {
            self.run();
            let next = self
                .engines
                .iter()
                .filter_map(Engine::next_deadline)
                .min()
                .filter(|&next| next <= end);
            let Some(next) = next else { break };
            self.move_clock(next.max(self.now.mono));
            self.tick_all();
        }
        self.move_clock(end);
        self.tick_all();
        self.run();
    }

    fn move_clock(&mut self, to: Instant) {
        let passed = to.saturating_since(self.now.mono);
        let wall = self.now.wall.as_millis() + passed.as_millis() as u64;
        self.now = Now {
            mono: to,
            wall: UnixMillis::from_millis(wall),
        };
    }

    fn tick_all(&mut self) {
        for shard in 0..self.engines.len() {
            let now = self.now;
            self.call(shard, |engine, effects| engine.tick(now, effects));
            self.apply(shard);
            self.input(shard, Input::Flushed);
        }
    }

    /// Runs until no shard has anything to do now.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            let mailed = self.deliver_some_mail();
            self.tick_all();
            let busy = self
                .engines
                .iter()
                .any(|engine| engine.next_deadline().is_some_and(|at| at <= self.now.mono));
            let mail = self
                .mailboxes
                .iter()
                .any(|(link, mail)| !mail.is_empty() && !self.held_links.contains(link));
            if !mailed && !busy && !mail {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    /// Delivers what lies in the mailboxes that are not held. Returns whether there was anything.
    fn deliver_some_mail(&mut self) -> bool {
        let links: Vec<_> = self
            .mailboxes
            .keys()
            .copied()
            .filter(|link| !self.held_links.contains(link))
            .collect();
        let mut any = false;
        for (from, to) in links {
            for message in std::mem::take(self.mailboxes.get_mut(&(from, to)).unwrap()) {
                any = true;
                self.input(
                    to,
                    Input::Shard {
                        from: ShardId(from as u16),
                        message,
                    },
                );
            }
        }
        any
    }

    /// Lets one message of a held mailbox through. Returns whether there was one.
    pub fn deliver_one(&mut self, from: usize, to: usize) -> bool {
        let Some(message) = self.mailboxes.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.input(
            to,
            Input::Shard {
                from: ShardId(from as u16),
                message,
            },
        );
        true
    }

    /// Applies an engine's tray as the transport would.
    fn apply(&mut self, shard: usize) {
        let mut effects = std::mem::take(&mut self.effects[shard]);
        self.writer.submit(shard, &effects, &mut self.store);
        for (to, message) in effects.forwards.drain(..) {
            self.mailboxes
                .entry((shard, usize::from(to.0)))
                .or_default()
                .push_back(message);
        }
        let keeps_bytes = self.keeps_bytes;
        for transmit in &effects.transmits {
            if let Some(client) = self.find(shard, transmit.connection) {
                if keeps_bytes {
                    client.bytes.push(wire::encode(&transmit.packet, client.version));
                }
                let text = text(&transmit.packet);
                client.inbox.push_back(text);
                if let Outgoing::ConnAck(connack) = &transmit.packet {
                    client.connack = Some((**connack).clone());
                }
            }
        }
        let moves: Vec<_> = effects.moves.drain(..).collect();
        let reads: Vec<_> = effects.reads.drain(..).collect();
        self.auth_requests
            .extend(effects.auth_requests.drain(..).map(|request| (shard, request)));
        self.events.append(&mut effects.events);
        for &Close { connection, .. } in &effects.closes {
            if let Some(client) = self.find(shard, connection) {
                client.open = false;
                client.inbox.push_back("CLOSE".into());
            }
        }
        effects.clear();
        self.effects[shard] = effects;
        if self.holds_moves {
            self.held_moves.extend(moves.into_iter().map(|moved| (shard, moved)));
        } else {
            self.adopt_all(shard, moves);
        }
        for read in reads {
            self.change_reading(shard, read);
        }
        if self.durable_at_once {
            self.tell_durable();
        }
    }

    fn adopt_all(&mut self, shard: usize, moves: Vec<Move>) {
        for moved in moves {
            self.adopt(shard, moved.connection, usize::from(moved.to.0), *moved.handover);
        }
    }

    /// Lets the connections that were held back arrive. Returns how many there were.
    pub fn release_moves(&mut self) -> usize {
        self.holds_moves = false;
        let held = std::mem::take(&mut self.held_moves);
        let count = held.len();
        for (shard, moved) in held {
            self.adopt_all(shard, vec![moved]);
        }
        self.run();
        count
    }

    /// Everything that was written is on stable storage.
    fn tell_durable(&mut self) {
        for shard in 0..self.engines.len() {
            for input in self.writer.news(shard) {
                self.input(shard, input);
            }
        }
    }

    fn adopt(&mut self, from: usize, connection: ConnectionId, to: usize, handover: Handover) {
        let new = self.new_connection();
        let Some(at) = self
            .clients
            .iter()
            .position(|c| c.shard == from && c.connection == connection)
        else {
            return;
        };
        self.clients[at].shard = to;
        self.clients[at].connection = new;
        let flow = self.hand(to, Input::Adopted(new, Box::new(handover)));
        self.clients[at].stopped = flow == Flow::Stop;
        self.apply(to);
        self.send_held(Client(at));
    }

    fn change_reading(&mut self, shard: usize, read: Read) {
        let (connection, stopped) = match read {
            Read::Pause(connection) => (connection, true),
            Read::Resume(connection) | Read::Auth(connection) => (connection, false),
        };
        if let Some(at) = self
            .clients
            .iter()
            .position(|c| c.shard == shard && c.connection == connection)
        {
            self.clients[at].stopped = stopped;
            self.send_held(Client(at));
        }
    }

    fn find(&mut self, shard: usize, connection: ConnectionId) -> Option<&mut ClientState> {
        self.clients
            .iter_mut()
            .find(|client| client.shard == shard && client.connection == connection)
    }

    /// What a client got since it last looked.
    pub fn take(&mut self, client: Client) -> Vec<String> {
        self.clients[client.0].inbox.drain(..).collect()
    }

    /// Asserts everything that a client got since it last looked.
    #[track_caller]
    pub fn expect(&mut self, client: Client, lines: &[&str]) {
        assert_eq!(self.take(client), lines);
    }

    /// What a client gets when it acknowledges all that comes, until nothing more comes.
    pub fn drink(&mut self, client: Client) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let lines = self.take(client);
            if lines.is_empty() {
                return all;
            }
            for line in &lines {
                self.acknowledge(client, line);
            }
            all.extend(lines);
        }
    }

    /// Answers one line as a client does.
    pub fn acknowledge(&mut self, client: Client, line: &str) {
        let id = packet_id_of(line);
        if line.starts_with("PUBREL") {
            self.pubcomp(client, id);
        } else if line.starts_with("PUBLISH") && line.contains(" q1 ") {
            self.puback(client, id);
        } else if line.starts_with("PUBLISH") && line.contains(" q2 ") {
            self.pubrec(client, id);
        }
    }

    /// New limits for all shards.
    pub fn reload(&mut self, config: EngineConfig) {
        let shards = self.config.shards;
        self.config = EngineConfig { shards, ..config };
        for shard in 0..self.engines.len() {
            self.input(shard, Input::Reload(Rc::new(self.config.clone())));
        }
        self.run();
    }

    /// Gives every engine the same input.
    pub fn input_all(&mut self, input: impl Fn() -> Input<'static>) {
        for shard in 0..self.engines.len() {
            self.input(shard, input());
        }
        self.run();
    }

    /// Everything that any engine has emitted is on stable storage.
    pub fn make_all_durable(&mut self) {
        self.tell_durable();
        self.run();
    }

    /// Holds back all mail between shards.
    pub fn hold_mail(&mut self) {
        let shards = self.engines.len();
        self.held_links = (0..shards)
            .flat_map(|from| (0..shards).map(move |to| (from, to)))
            .collect();
    }

    /// Lets all mail through again.
    pub fn release_mail(&mut self) {
        self.held_links.clear();
        self.run();
    }

    /// Lets the mail of one link through, as far as it is there.
    pub fn deliver_all(&mut self, from: usize, to: usize) {
        while self.deliver_one(from, to) {}
        self.run();
    }

    /// How much mail waits on a link.
    pub fn waiting_mail(&self, from: usize, to: usize) -> usize {
        self.mailboxes.get(&(from, to)).map_or(0, VecDeque::len)
    }

    /// A Client Identifier that is at home on a shard.
    pub fn name_on(&self, shard: usize, prefix: &str) -> String {
        (0..)
            .map(|n| format!("{prefix}{n}"))
            .find(|name| self.engines[shard].is_home_of_client(name))
            .unwrap()
    }

    /// A Topic Name whose retained message is at home on a shard.
    pub fn topic_on(&self, shard: usize, prefix: &str) -> String {
        (0..)
            .map(|n| format!("{prefix}{n}"))
            .find(|topic| self.engines[shard].is_home_of_topic(topic))
            .unwrap()
    }

    /// The counters of all shards together.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.engines.iter().for_each(|engine| sum.add(&engine.stats()));
        sum
    }

    /// Asserts that every engine is sound.
    #[track_caller]
    pub fn check(&self) {
        for engine in &self.engines {
            engine.check().unwrap();
        }
    }

    /// The shard that a client is at home on.
    pub fn shard_of(&self, client: Client) -> usize {
        self.clients[client.0].shard
    }

    /// All engines die; new ones, `shards` of them, start from what the store has.
    pub fn restart(&mut self, shards: u16, away: Duration) -> Self {
        let mut node = Self::new(shards, self.config.clone());
        let wall = self.now.wall.as_millis() + away.as_millis() as u64;
        node.now = Now {
            mono: Instant::from_nanos(0),
            wall: UnixMillis::from_millis(wall),
        };
        node.store = self.store.clone();
        node.store.next_process();
        node.store.restore(&mut node.engines);
        for shard in 0..node.engines.len() {
            let now = node.now;
            node.call(shard, |engine, effects| engine.restored(now, effects));
            node.apply(shard);
        }
        node.run();
        node
    }
}

/// A packet as one line.
pub fn text(packet: &Outgoing) -> String {
    match packet {
        Outgoing::Publish(delivery) => publish_text(delivery),
        Outgoing::Ack {
            kind,
            packet_id,
            reason_code,
        } => {
            let name = match kind {
                AckKind::PubAck => "PUBACK",
                AckKind::PubRec => "PUBREC",
                AckKind::PubRel => "PUBREL",
                AckKind::PubComp => "PUBCOMP",
            };
            let reason = if reason_code.value() == 0 {
                String::new()
            } else {
                format!(" {:02x}", reason_code.value())
            };
            format!("{name} #{}{reason}", packet_id.get())
        }
        Outgoing::ConnAck(data) => {
            let present = if data.session_present { " present" } else { "" };
            format!("CONNACK {:02x}{present}", data.reason_code.value())
        }
        Outgoing::SubAck {
            packet_id,
            reason_codes,
        } => format!("SUBACK #{} {:02x?}", packet_id.get(), values(reason_codes)),
        Outgoing::UnsubAck {
            packet_id,
            reason_codes,
        } => format!("UNSUBACK #{} {:02x?}", packet_id.get(), values(reason_codes)),
        Outgoing::PingResp => "PINGRESP".into(),
        Outgoing::Disconnect(reason) => format!("DISCONNECT {:02x}", reason.value()),
        Outgoing::Auth(auth) => {
            let data = auth
                .data
                .as_ref()
                .map(|data| format!(" {:?}", String::from_utf8_lossy(data)));
            format!(
                "AUTH {:02x} {}{}",
                auth.reason_code.value(),
                auth.method,
                data.unwrap_or_default()
            )
        }
    }
}

fn publish_text(delivery: &Delivery) -> String {
    let message = &delivery.message;
    let mut text = format!("PUBLISH {} q{}", message.topic(), delivery.qos as u8);
    if let Some(packet_id) = delivery.packet_id {
        text += &format!(" #{}", packet_id.get());
    }
    if delivery.dup {
        text += " dup";
    }
    if delivery.retain {
        text += " retain";
    }
    let more = delivery
        .more_subscription_ids
        .as_ref()
        .map(|more| more.as_slice())
        .unwrap_or_default();
    let mut ids: Vec<_> = delivery.subscription_id.iter().chain(more).map(|id| id.get()).collect();
    ids.sort_unstable();
    if !ids.is_empty() {
        text += &format!(" ids{ids:?}");
    }
    if let Some(seconds) = delivery.message_expiry_interval() {
        text += &format!(" expiry{seconds}");
    }
    if let Some(alias) = delivery.topic_alias {
        text += &format!(" alias{}{}", alias.get(), if delivery.alias_only { "!" } else { "" });
    }
    text + &format!(
        " {:?}{}",
        String::from_utf8_lossy(message.payload()),
        properties_text(delivery)
    )
}

fn properties_text(delivery: &Delivery) -> String {
    let properties = delivery.message.properties();
    let mut text = String::new();
    if let Some(is_utf8) = properties.payload_format_indicator() {
        text += &format!(" format={}", u8::from(is_utf8));
    }
    if let Some(content_type) = properties.content_type() {
        text += &format!(" type={content_type}");
    }
    if let Some(topic) = properties.response_topic() {
        text += &format!(" response={topic}");
    }
    if let Some(data) = properties.correlation_data() {
        text += &format!(" correlation={data:02x?}");
    }
    for property in properties.user_properties().iter() {
        let (name, value) = property;
        text += &format!(" {name}={value}");
    }
    text
}

/// The Packet Identifier of a line, 0 if it has none.
pub fn packet_id_of(line: &str) -> u16 {
    line.split(' ')
        .find_map(|word| word.strip_prefix('#')?.parse().ok())
        .unwrap_or_default()
}

fn values(reason_codes: &[ReasonCode]) -> Vec<u8> {
    reason_codes.iter().map(|code| code.value()).collect()
}
