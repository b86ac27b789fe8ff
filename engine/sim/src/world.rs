//! Engines, their mailboxes and clients in one thread, on one clock, from one seed.
//!
//! ```text
//!  Client ──says──► Link ──Request──► Shard (Engine, tray) ──flush──► mailboxes of the other shards, one FIFO each
//!         ◄─hears──      ◄──Parcel───    │
//!                                     Oracle and checks hear all that passes here
//! ```
//! Nothing happens by itself: each step does one of the things that could happen next, drawn by the seed. So
//! mail lies as long as it likes, bytes come between, and what a shard posts leaves when it flushes, for one receiver
//! after the other: others have their turns between. A shard may rest for a while and do nothing at all.

mod calls;
mod crash;
mod credits;
mod end;
mod journal;
mod links;
mod observe;
mod ready;
mod says;
mod turn;
mod twin;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{ProtocolVersion, QoS};
use sol_engine::{
    ConnectionId, Effects, Engine, EngineConfig, Input, Instant, Level, ListenerId, ListenerRules, Now, ShardId,
    UnixMillis,
};

pub use self::crash::CrashPlan;
use self::crash::Past;
use self::credits::Credits;
use self::journal::{Unsubmitted, Writer};
use self::links::Links;
use self::observe::Seen;
use self::ready::Act;
use self::turn::Mail;
use self::twin::Twin;
use crate::checks::answers::Answers;
use crate::checks::flights::Flights;
use crate::checks::owners::Owners;
use crate::client::Client;
use crate::fault::Fault;
use crate::hash::Hash;
use crate::marks::{Mark, Marks};
use crate::oracle::{At, LinkId, Number, Oracle, SessionId};
use crate::packet::{ConnectRequest, Reply, Request};
use crate::rng::Rng;
use crate::violation::Verdict;

/// Unsent bytes of a congested connection: above the mark where deliveries wait, below the one where it is closed.
const CONGESTED_BYTES: u32 = 2 << 20;
/// Engines in one world.
const SHARDS_MAX: usize = 8;

/// What a world is made of.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// From this follows everything that is left to chance.
    pub seed: u64,
    /// The engines' configuration; its number of shards, at most 8, is the world's.
    pub config: EngineConfig,
    /// The clients, by the version that each speaks: at most 64.
    pub clients: Vec<ProtocolVersion>,
    /// Clients that log in, a bit each, and how many logins of a hundred are refused.
    pub logins: u64,
    /// See [`Setup::logins`].
    pub logins_refused: u64,
    /// Bytes of mail between two shards above which the sender hears that the receiver is full.
    pub mail_bytes_high: Option<usize>,
    /// How actors pause.
    pub pace: Pace,
    /// A client that breaks every rule is told to a twin of each engine, and may make no difference to anybody else.
    pub twin: bool,
    /// Where there is a journal, what is acknowledged survives a power cut; else only the process.
    pub syncs: bool,
    /// What is dropped is exactly what does not come: nothing else may keep a message from a Session.
    pub counts: bool,
    /// What is broken on purpose.
    pub fault: Option<Fault>,
}

/// How often shards and connections stand still, once in so many steps, and for how many at most.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A shard rests, at any point of its turn; 0: none does.
    pub rests_once_in: u64,
    /// Steps that it rests.
    pub rests_max: u64,
    /// One direction of a connection stands still; 0: none does.
    pub stalls_once_in: u64,
    /// Steps that it does.
    pub stalls_max: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rests_once_in: 64,
            rests_max: 64,
            stalls_once_in: 0,
            stalls_max: 0,
        }
    }
}

/// See the [module](self).
pub struct World {
    /// What happens next.
    rng: Rng,
    /// Where a client connects, and what of its last words arrives.
    places: Rng,
    /// How much a journal writes at once, and how long a shard or a connection stands still.
    pauses: Rng,
    logins: Rng,
    /// What of the last words of a broker that dies arrives.
    crashes: Rng,
    /// Where things are at home.
    seeds: [u64; 4],
    now: Now,
    config: Rc<EngineConfig>,
    shards: Vec<Shard>,
    writer: Writer,
    credits: Credits,
    links: Links,
    parties: Vec<Party>,
    ready: Vec<Act>,
    pace: Pace,
    next_rest: u64,
    next_stall: u64,
    last_number: Number,
    oracle: Oracle,
    flights: Flights,
    answers: Answers,
    owners: Owners,
    twin: Option<Twin>,
    fault: Option<Fault>,
    logins_refused: u64,
    /// Clients that take part, a bit each; the one that looks at what is retained always does.
    present: u64,
    /// Faults are over: everything is to come to its end.
    heals: bool,
    /// Some engine may be under pressure.
    is_pressed: bool,
    /// What the next request of a connection was exchanged for, by a fault.
    swapped: BTreeMap<LinkId, Request>,
    /// What the last client, which looks at what is retained, was sent.
    seen: BTreeMap<String, Number>,
    counts: bool,
    sums: Sums,
    past: Past,
    /// When the present step began, by the oracle's time.
    began: At,
    /// How many earlier calls the present one may complete: a batch is no larger than what waits for it.
    completes: usize,
    steps: u64,
    hash: Hash,
    marks: Marks,
    /// Bytes of the packet at hand.
    bytes: Vec<u8>,
    /// What has crossed the engines' border lately, if anybody wants to read it.
    log: Option<Log>,
}

/// What has passed the engines' border, to be held against what they have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// PUBLISH packets that were handled.
    publishes_in: u64,
    /// PUBLISH packets that have left.
    publishes_out: u64,
    /// Acknowledgements with 0x97.
    refusals: u64,
    /// Messages that were counted as dropped when drops were last accounted for.
    dropped: u64,
}

/// The last lines of what has happened.
struct Log {
    lines: VecDeque<String>,
    max: usize,
}

/// One engine and what the transport keeps for it.
struct Shard {
    engine: Engine,
    config: Rc<EngineConfig>,
    tray: Effects,
    seen: Seen,
    mailbox: VecDeque<Mail>,
    /// Connections that it has given away and not posted.
    moving: Vec<LinkId>,
    /// What of its last tray is not posted yet: receivers and mail. It does nothing else before that is done.
    posting: VecDeque<(usize, Mail)>,
    /// Logins that are being checked.
    logins: Vec<(LinkId, ConnectionId)>,
    unsubmitted: Unsubmitted,
    /// The connection in each slot, and how many tenants there were.
    slots: Vec<Option<LinkId>>,
    tenants: u32,
    /// It was told that the journal has no room.
    lacks_disk: bool,
    /// When its engine has something to do next.
    deadline: Option<Instant>,
    /// The step until which it does nothing.
    wakes: u64,
}

/// A client and its present connection.
struct Party {
    client: Client,
    link: Option<LinkId>,
    /// It is among what could happen next that it hears something.
    offered: bool,
    /// It has begun anew, and no CONNACK has left since.
    is_untold: bool,
    /// The listener that it connects through: the second one asks who it is.
    listener: ListenerId,
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
    /// The Packet Identifier of a publish that waits for room on the disk.
    parked: Option<u16>,
    congested: bool,
    /// It has come to its Session, which may have so many deliveries in flight.
    settled: bool,
    quota: usize,
    /// Its login was refused.
    refused: bool,
    offered: bool,
    /// Steps until which nothing arrives.
    broker_stalls: u64,
    client_stalls: u64,
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
        let seed = setup.seed;
        let mut rng = Rng::named(seed, "engines");
        let seeds = [rng.next(), rng.next(), rng.next(), rng.next()];
        let config = Rc::new(with_listeners(setup.config, setup.logins != 0));
        let shards: Vec<_> = (0..config.shards)
            .map(|shard| Shard::new(ShardId(shard), &config, seeds))
            .collect();
        assert!(shards.len() <= SHARDS_MAX, "a world has few shards");
        let versions = setup.clients.into_iter().chain([ProtocolVersion::V5]);
        let party = |(who, version)| Party {
            client: Client::new(format!("client {who}"), version),
            link: None,
            offered: false,
            is_untold: false,
            listener: ListenerId(u16::from(who < 64 && setup.logins >> who & 1 == 1)),
        };
        let writer = Writer::new(seed, shards.len(), config.journal, setup.syncs);
        let mut pauses = Rng::named(seed, "pauses");
        let mut world = Self {
            rng: Rng::named(seed, "what happens next"),
            places: Rng::named(seed, "places"),
            logins: Rng::named(seed, "logins"),
            crashes: Rng::named(seed, "crashes"),
            seeds,
            now: Now {
                mono: Instant::from_nanos(0),
                wall: UnixMillis::from_millis(1_000_000_000_000),
            },
            writer,
            credits: Credits::new(shards.len(), setup.mail_bytes_high),
            shards,
            links: Links::default(),
            parties: versions.enumerate().map(party).collect(),
            ready: Vec::new(),
            pace: setup.pace,
            next_rest: pauses.wait(setup.pace.rests_once_in),
            next_stall: pauses.wait(setup.pace.stalls_once_in),
            pauses,
            last_number: 0,
            oracle: Oracle::new(crate::oracle::Rules::of(&config)),
            flights: Flights::default(),
            answers: Answers::default(),
            owners: Owners::default(),
            twin: setup.twin.then(|| Twin::new(seed, &config, seeds)),
            fault: setup.fault,
            logins_refused: setup.logins_refused,
            present: u64::MAX,
            heals: false,
            is_pressed: false,
            swapped: BTreeMap::new(),
            seen: BTreeMap::new(),
            counts: setup.counts,
            sums: Sums::default(),
            past: Past::default(),
            began: 0,
            completes: 1,
            steps: 0,
            hash: Hash::default(),
            marks: Marks::default(),
            bytes: Vec::new(),
            log: None,
            config,
        };
        world.oracle.time(world.now);
        world
    }

    /// Steps taken so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The hash of all that has crossed the engines' border.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// Which rare states it has come through.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// From now on what crosses the engines' border is written down, and so many last lines are kept.
    pub fn write_down(&mut self, lines_max: usize) {
        self.log = Some(Log {
            lines: VecDeque::new(),
            max: lines_max,
        });
    }

    /// What was written down.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        let lines = self.log.iter().flat_map(|log| log.lines.iter().cloned());
        lines.collect()
    }

    fn note_down(&mut self, line: impl FnOnce() -> String) {
        let (at, step) = (self.now.mono.as_nanos() / 1_000_000, self.steps);
        if let Some(log) = &mut self.log {
            if log.lines.len() >= log.max {
                log.lines.pop_front();
            }
            log.lines.push_back(format!("{step} ({at} ms): {}", line()));
        }
    }

    /// A client's connection takes no more bytes, or takes all again.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn congest(&mut self, who: usize, congested: bool) -> Verdict {
        let Some((id, link)) = self.parties[who]
            .link
            .and_then(|id| Some((id, self.links.get_mut(id)?)))
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

    /// Memory outside of a shard's engine is scarce, or there is plenty again.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn press(&mut self, shard: usize, full: bool) -> Verdict {
        if full {
            self.is_pressed = true;
            self.oracle.press();
        }
        let level = if full { Level::Full } else { Level::Normal };
        self.note_down(|| format!("shard {shard} is under pressure: {full}"));
        self.tell(shard, Input::Pressure(level)).map(drop)
    }

    /// A shard has other limits from now on.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn reload(&mut self, shard: usize, change: impl FnOnce(&mut EngineConfig)) -> Verdict {
        let mut config = EngineConfig::clone(&self.config);
        change(&mut config);
        self.note_down(|| format!("shard {shard} has new limits"));
        if config.queue_max < self.shards[shard].config.queue_max && self.stats().stored_messages > 0 {
            self.marks.hit(Mark::ReloadBelow);
        }
        self.oracle.expect(&config);
        let config = Rc::new(config);
        self.shards[shard].config = Rc::clone(&config);
        self.tell(shard, Input::Reload(config)).map(drop)
    }

    /// The journal's disk has no room for more from now on, or has some again. The shards hear of it from the journal.
    pub fn fill_disk(&mut self, full: bool) {
        if self.is_durable() {
            self.note_down(|| format!("the disk is full: {full}"));
            self.writer.fill(full);
        }
    }

    /// Whether memory may be scarce or the disk full, so that something waits for more.
    #[must_use]
    pub fn may_lack_room(&self) -> bool {
        let lacks_disk = self.writer.may_be_full() || self.shards.iter().any(|shard| shard.lacks_disk);
        self.oracle.may_lack_room() || lacks_disk
    }

    /// Only these clients take part, a bit each.
    pub const fn let_in(&mut self, present: u64) {
        self.present = present;
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Some of what could happen happens.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn steps_of_chance(&mut self, count: usize) -> Verdict {
        for _ in 0..count {
            if !self.step()? {
                break;
            }
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
            let deadlines = self.shards.iter().filter_map(|shard| shard.deadline);
            let Some(next) = deadlines.min().filter(|next| *next <= end) else {
                return Ok(());
            };
            self.move_clock(next.max(self.now.mono));
            for shard in 0..self.shards.len() {
                if self.shards[shard].deadline.is_some_and(|due| due <= self.now.mono) {
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

    /// Somebody sets the wall clock, by so many seconds.
    pub fn set_wall(&mut self, seconds: i64) {
        if seconds < 0 {
            self.marks.hit(Mark::WallBack);
        }
        self.note_down(|| format!("the wall clock is set by {seconds} s"));
        let millis = self.now.wall.as_millis().saturating_add_signed(seconds * 1_000);
        self.now.wall = UnixMillis::from_millis(millis);
        self.oracle.time(self.now);
    }
}

/// A configuration whose second listener, if there is one, asks who comes.
fn with_listeners(mut config: EngineConfig, asks: bool) -> EngineConfig {
    if asks {
        let asks = ListenerRules {
            allow_anonymous: false,
            ask: true,
            named: false,
        };
        config.listeners = vec![ListenerRules::default(), asks];
    }
    config
}

impl Shard {
    fn new(shard: ShardId, config: &Rc<EngineConfig>, seeds: [u64; 4]) -> Self {
        Self {
            engine: Engine::new(shard, Rc::clone(config), seeds),
            config: Rc::clone(config),
            tray: Effects::default(),
            seen: Seen::default(),
            mailbox: VecDeque::new(),
            moving: Vec::new(),
            posting: VecDeque::new(),
            logins: Vec::new(),
            unsubmitted: Unsubmitted::default(),
            slots: Vec::new(),
            tenants: 0,
            lacks_disk: false,
            deadline: None,
            wakes: 0,
        }
    }
}
