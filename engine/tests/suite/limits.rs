//! Limits that the engine keeps for others: how long a client waits that sends too fast, and who is one too many.

use core::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use sol_codec::{Connect, Packet, Subscribe, Subscriptions, TopicFilter};
use sol_engine::{
    ConnectionId, Effects, Elsewhere, Engine, EngineConfig, Event, Flow, Input, ListenerId, ListenerTerms, MemoryLevel,
    Now, Outgoing, Read, ShardId, Tally,
};

use crate::support::*;

/// An engine whose clock the test moves.
struct Timed {
    engine: Engine,
    effects: Effects,
    now: Now,
}

impl Timed {
    fn new(config: EngineConfig) -> Self {
        Self {
            engine: Engine::new(ShardId(0), Rc::new(config), [7; 4]),
            effects: Effects::default(),
            now: Now::default(),
        }
    }

    fn input(&mut self, input: Input<'_>) -> Flow {
        self.effects.clear();
        self.engine.handle(self.now, input, &mut self.effects)
    }

    fn connect(&mut self, n: u32, connect: &Connect<'_>) -> ConnectionId {
        let connection = ConnectionId::new(n, NonZeroU32::MIN);
        let listener = ListenerId(0);
        let _ = self.input(Input::Opened { connection, listener });
        let _ = self.input(Input::Packet(connection, &Packet::Connect(*connect)));
        connection
    }

    /// Lets time pass, a tick every tenth of a second; gives who was told to be read, and whether anybody was closed.
    fn pass(&mut self, time: Duration) -> (Vec<Read>, bool) {
        let (mut reads, mut closed) = (Vec::new(), false);
        for _ in 0..time.as_millis() / 100 {
            self.now.mono = self.now.mono.saturating_add(Duration::from_millis(100));
            self.effects.clear();
            self.engine.tick(self.now, &mut self.effects);
            reads.append(&mut self.effects.reads);
            closed |= !self.effects.closes.is_empty();
        }
        (reads, closed)
    }
}

/// A client that sends faster than it may is not read for so long and then read again, and it is not taken to be silent
/// meanwhile, nor for one and a half Keep Alives after that.
#[test]
fn a_hurried_client_waits_and_is_read_again() {
    let mut timed = Timed::new(EngineConfig::default());
    let impatient = Connect {
        keep_alive: 1,
        ..connect(V5, "hurried")
    };
    let id = timed.connect(1, &impatient);
    for n in 1..3 {
        assert_eq!(timed.input(Input::Hurried(id, Duration::from_secs(5))), Flow::Stop);
        assert_eq!(
            timed.input(Input::Hurried(id, Duration::from_secs(1))),
            Flow::Go,
            "it waits already"
        );
        assert_eq!(timed.pass(Duration::from_millis(4_900)), (vec![], false));
        assert_eq!(timed.pass(Duration::from_millis(200)), (vec![Read::Resume(id)], false));
        assert_eq!(timed.pass(Duration::from_millis(1_300)), (vec![], false));
        assert_eq!(timed.engine.stats().rate_pauses, n);
        timed.engine.check().unwrap();
    }
    // From here on it is silent by its own will.
    assert_eq!(timed.pass(Duration::from_millis(400)), (vec![], true));
}

/// Nobody waits longer than a connection may be paused, and who is gone waits for nothing.
#[test]
fn a_wait_for_a_rate_is_bounded() {
    let config = EngineConfig {
        pause_time_max: Duration::from_secs(2),
        ..EngineConfig::default()
    };
    let mut timed = Timed::new(config);
    let id = timed.connect(1, &connect(V5, "hurried"));
    assert_eq!(timed.input(Input::Hurried(id, Duration::MAX)), Flow::Stop);
    assert_eq!(
        timed.pass(Duration::from_millis(2_100)),
        (vec![Read::Resume(id)], false)
    );
    assert_eq!(timed.input(Input::Hurried(id, Duration::from_secs(1))), Flow::Stop);
    let _ = timed.input(Input::Closed(id));
    assert_eq!(timed.input(Input::Hurried(id, Duration::from_secs(1))), Flow::Go);
    assert_eq!(timed.pass(Duration::from_secs(3)), (vec![], false));
    timed.engine.check().unwrap();
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// CONNECT of the nth client, as this user; its Session outlives its connection.
fn as_user(n: usize, username: Option<&'static str>) -> Connect<'static> {
    let mut connect = Connect {
        username,
        ..connect(V5, NAMES[n])
    };
    connect.properties.session_expiry_interval = Some(1_000);
    connect
}

impl Timed {
    /// The Reason Code of the CONNACK.
    fn try_connect(&mut self, slot: u32, connect: &Connect<'_>) -> u8 {
        let id = self.connect(slot, connect);
        let mut answers = self
            .effects
            .transmits
            .iter()
            .filter(|transmit| transmit.connection == id);
        match answers.next().map(|transmit| &transmit.packet) {
            Some(Outgoing::ConnAck(connack)) => connack.reason_code as u8,
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// What the others hear.
    fn changes(&mut self) -> Vec<isize> {
        std::iter::from_fn(|| self.engine.next_tally_change())
            .map(|(_, grown)| grown)
            .collect()
    }
}

/// A user has so many connections, on other shards too, and who has no User Name is no user. One that takes its own over
/// needs no place, and a place is free when its client is gone.
#[test]
fn a_user_has_its_number_of_connections() {
    let mut timed = Timed::new(EngineConfig {
        connections_per_user_max: 2,
        ..EngineConfig::default()
    });
    let ann = Some("ann");
    assert_eq!(timed.try_connect(1, &as_user(0, ann)), 0);
    assert_eq!(timed.try_connect(2, &as_user(1, ann)), 0);
    assert_eq!(timed.try_connect(3, &as_user(2, ann)), 0x97);
    assert_eq!(timed.try_connect(4, &as_user(1, ann)), 0, "its own place");
    assert_eq!(timed.try_connect(5, &as_user(3, Some("bob"))), 0);
    assert_eq!(timed.try_connect(6, &as_user(4, None)), 0);
    assert_eq!(timed.changes(), [1, 2]);
    let _ = timed.input(Input::Closed(ConnectionId::new(1, NonZeroU32::MIN)));
    assert_eq!(timed.changes(), [-1]);
    // Others say that they have one of hers.
    let packet = as_user(2, ann);
    let id = opened(&mut timed);
    let [sessions, tally, at_listener] = timed
        .engine
        .limited_tallies(&Input::Packet(id, &Packet::Connect(packet)));
    assert_eq!((sessions, at_listener), (None, None));
    let told = [None, tally.map(|tally| (tally, 1)), None];
    let _ = timed.input(Input::Elsewhere(Elsewhere::Tallies(told)));
    assert_eq!(timed.try_connect(8, &packet), 0x97);
    let _ = timed.input(Input::Elsewhere(Elsewhere::Tallies([None; 3])));
    assert_eq!(timed.try_connect(9, &packet), 0);
    assert_eq!(timed.engine.stats().full_user, 2);
    timed.engine.check().unwrap();
}

fn opened(timed: &mut Timed) -> ConnectionId {
    let connection = ConnectionId::new(7, NonZeroU32::MIN);
    let listener = ListenerId(0);
    let _ = timed.input(Input::Opened { connection, listener });
    connection
}

/// A limit of a listener counts its own connections alone, and other limits count those that are there already.
#[test]
fn a_listener_has_a_limit_for_each_user_and_a_reload_changes_it() {
    let config = |all, own| EngineConfig {
        connections_per_user_max: all,
        terms: vec![ListenerTerms {
            connections_per_user_max: own,
            ..ListenerTerms::default()
        }],
        ..EngineConfig::default()
    };
    let mut timed = Timed::new(config(usize::MAX, 1));
    assert_eq!(timed.try_connect(1, &as_user(0, Some("ann"))), 0);
    assert_eq!(timed.try_connect(2, &as_user(1, Some("ann"))), 0x97);
    let _ = timed.input(Input::Reload(Rc::new(config(2, usize::MAX))));
    assert_eq!(timed.try_connect(3, &as_user(1, Some("ann"))), 0);
    assert_eq!(timed.try_connect(4, &as_user(2, Some("ann"))), 0x97);
    let _ = timed.input(Input::Reload(Rc::new(config(usize::MAX, usize::MAX))));
    assert_eq!(timed.try_connect(5, &as_user(2, Some("ann"))), 0);
    let mut left = timed.changes();
    left.sort_unstable();
    assert_eq!(left, [], "nothing is counted that has no limit");
    timed.engine.check().unwrap();
}

/// A name that anybody may give takes no place of the user whom an authenticator has confirmed: whoever comes by a door
/// without a lock keeps nobody out who comes by another.
#[test]
fn a_name_that_nobody_vouched_for_takes_no_place_of_its_user() {
    let mut timed = Timed::new(EngineConfig {
        connections_per_user_max: 1,
        ..EngineConfig::default()
    });
    let ann = Some("ann");
    assert_eq!(timed.try_connect(1, &as_user(0, ann)), 0);
    assert_eq!(timed.try_connect(2, &as_user(1, ann)), 0x97);
    for (n, reason_code) in [(2, 0), (3, 0x97)] {
        let connection = ConnectionId::new(7 + n, NonZeroU32::MIN);
        let listener = ListenerId(0);
        let _ = timed.input(Input::Opened { connection, listener });
        let _ = timed.input(Input::Identified(connection, "ann".into()));
        let packet = Packet::Connect(as_user(n as usize, None));
        let [_, tally, _] = timed.engine.limited_tallies(&Input::Packet(connection, &packet));
        let _ = timed.input(Input::Packet(connection, &packet));
        let answer = timed
            .effects
            .transmits
            .iter()
            .find_map(|transmit| match &transmit.packet {
                Outgoing::ConnAck(connack) => Some(connack.reason_code as u8),
                _ => None,
            });
        assert_eq!(answer, Some(reason_code));
        assert_eq!(timed.engine.tally(tally.unwrap()), 1, "asked for where it is counted");
    }
    timed.engine.check().unwrap();
}

/// Sessions are counted whether their clients are there or not, those of other shards too. Who has one may come back, and
/// one that ends makes room.
#[test]
fn there_are_so_many_sessions() {
    let mut timed = Timed::new(EngineConfig {
        sessions_max: 2,
        ..EngineConfig::default()
    });
    assert_eq!(timed.try_connect(1, &as_user(0, None)), 0);
    assert_eq!(timed.try_connect(2, &as_user(1, None)), 0);
    let _ = timed.input(Input::Closed(ConnectionId::new(1, NonZeroU32::MIN)));
    assert_eq!(timed.changes(), [2]);
    assert_eq!(timed.try_connect(3, &as_user(2, None)), 0x97);
    assert_eq!(timed.try_connect(4, &as_user(0, None)), 0, "it has a Session");
    assert_eq!(
        timed.try_connect(5, &connect(V5, "a")),
        0,
        "and a clean one takes its place"
    );
    let _ = timed.input(Input::Closed(ConnectionId::new(5, NonZeroU32::MIN)));
    assert_eq!(timed.changes(), [-1]);
    let _ = timed.input(Input::Elsewhere(Elsewhere::Tallies([
        Some((Tally::Sessions, 1)),
        None,
        None,
    ])));
    assert_eq!(timed.try_connect(6, &as_user(2, None)), 0x97);
    let _ = timed.input(Input::Elsewhere(Elsewhere::Tallies([
        Some((Tally::Sessions, 0)),
        None,
        None,
    ])));
    assert_eq!(timed.try_connect(7, &as_user(2, None)), 0);
    assert_eq!(timed.engine.stats().full_sessions, 2);
}

impl Timed {
    /// Publishes at QoS 1 and gives the Reason Code of the PUBACK, 0 where it is taken; then lets a turn end.
    fn publish(&mut self, slot: u32, topic: &str, retain: bool, payload: &[u8]) -> u8 {
        let id = ConnectionId::new(slot, NonZeroU32::MIN);
        let mut publish = publish(topic, 1, 1, payload);
        publish.retain = retain;
        let _ = self.input(Input::Packet(id, &Packet::Publish(publish)));
        let reason = self
            .effects
            .transmits
            .iter()
            .find_map(|transmit| match &transmit.packet {
                Outgoing::Ack { reason_code, .. } if transmit.connection == id => Some(*reason_code as u8),
                _ => None,
            });
        self.turn();
        // That nobody listens is no refusal.
        reason.filter(|&reason| reason != 0x10).unwrap_or(0)
    }

    /// Ends a turn; gives the levels of memory that it told of.
    fn turn(&mut self) -> Vec<MemoryLevel> {
        self.effects.clear();
        self.engine.tick(self.now, &mut self.effects);
        let events = self.effects.events.iter();
        let levels = events.filter_map(|event| match event {
            Event::Memory(level) => Some(*level),
            _ => None,
        });
        levels.collect()
    }

    /// Has others use so much of the memory.
    fn use_memory(&mut self, bytes: usize) -> Vec<MemoryLevel> {
        let used = self.engine.memory_bytes();
        let _ = self.input(Input::Elsewhere(Elsewhere::Memory(bytes - used)));
        self.turn()
    }
}

/// From four fifths of the memory on nothing new that lasts is taken on, from nine tenths on what would be queued is refused
/// where that can be said; what is there already goes on at each level, and all is as before when there is room again.
#[test]
fn memory_is_refused_in_three_levels() {
    const MAX: usize = 1_000_000;
    let mut timed = Timed::new(EngineConfig {
        memory_bytes_max: MAX,
        ..EngineConfig::default()
    });
    // An absent client with a Subscription, and a publisher of each version.
    assert_eq!(timed.try_connect(1, &as_user(0, None)), 0);
    let requests = [(TopicFilter::new("queue").unwrap(), options(1))];
    let subscribe = Subscribe {
        packet_id: id(1),
        properties: Default::default(),
        filters: Subscriptions::from_slice(&requests),
    };
    let _ = timed.input(Input::Packet(
        ConnectionId::new(1, NonZeroU32::MIN),
        &Packet::Subscribe(subscribe),
    ));
    let _ = timed.input(Input::Closed(ConnectionId::new(1, NonZeroU32::MIN)));
    assert_eq!(timed.try_connect(2, &connect(V5, "new")), 0);
    assert_eq!(timed.try_connect(3, &connect(V311, "old")), 0);
    assert_eq!(timed.publish(2, "kept", true, b"1"), 0);
    assert_eq!(timed.publish(2, "queue", false, b"1"), 0);

    assert_eq!(timed.use_memory(MAX / 10 * 8), [MemoryLevel::Tight]);
    assert_eq!(timed.try_connect(4, &as_user(1, None)), 0x97, "a Session that lasts");
    assert_eq!(timed.try_connect(5, &connect(V5, "c")), 0);
    assert_eq!(timed.publish(2, "another", true, b"1"), 0x97);
    assert_eq!(timed.publish(2, "kept", true, b"2"), 0);
    assert_eq!(timed.publish(3, "acknowledged", true, b"1"), 0, "it cannot be told");
    assert_eq!(
        timed.engine.stats().retained_messages,
        2,
        "what was acknowledged is kept"
    );
    assert_eq!(timed.publish(2, "queue", false, b"2"), 0);

    assert_eq!(timed.use_memory(MAX / 10 * 9), [MemoryLevel::Scarce]);
    assert_eq!(timed.publish(2, "queue", false, b"3"), 0x97);
    assert_eq!(timed.publish(3, "queue", false, b"3"), 0, "it cannot be told");
    assert_eq!(timed.publish(2, "nobody", false, b""), 0);

    assert_eq!(timed.use_memory(MAX + 1), [MemoryLevel::Full]);
    assert_eq!(timed.publish(2, "nobody", false, b""), 0x97);
    assert_eq!(timed.try_connect(6, &as_user(0, None)), 0, "who comes to read");
    assert_eq!(timed.engine.stats().memory_level, 3);

    assert_eq!(timed.use_memory(MAX / 2), [MemoryLevel::Plenty]);
    assert_eq!(timed.try_connect(7, &as_user(2, None)), 0);
    assert_eq!(timed.publish(2, "another", true, b"1"), 0);
    assert_eq!(timed.engine.stats().full_memory, 1);
    timed.engine.check().unwrap();
}

/// A shard on which nothing happens goes by what the others use as soon as it hears of it: nobody is refused for memory that
/// is free again, and nobody let in on memory that is used up.
#[test]
fn an_idle_shard_knows_the_level_of_all() {
    const MAX: usize = 1_000_000;
    let mut timed = Timed::new(EngineConfig {
        memory_bytes_max: MAX,
        ..EngineConfig::default()
    });
    for (slot, (elsewhere, reason_code)) in (1..).zip([(MAX / 10 * 9, 0x97), (MAX / 2, 0), (MAX / 10 * 9, 0x97)]) {
        let _ = timed.input(Input::Elsewhere(Elsewhere::Memory(elsewhere)));
        assert_eq!(timed.try_connect(slot, &as_user(slot as usize, None)), reason_code);
    }
    let config = EngineConfig {
        memory_bytes_max: MAX * 2,
        ..EngineConfig::default()
    };
    let _ = timed.input(Input::Reload(Rc::new(config)));
    assert_eq!(timed.try_connect(4, &as_user(4, None)), 0, "and of another limit");
}

/// Whoever comes for what is queued for it brings the Will that it always brings, while there is any memory: a fleet with
/// large Wills frees what its queues hold. When there is none it may bring as much as it had.
#[test]
fn who_has_a_session_comes_with_its_will() {
    static LARGE: [u8; 4_000] = [b'w'; 4_000];
    const MAX: usize = 1_000_000;
    let mut timed = Timed::new(EngineConfig {
        memory_bytes_max: MAX,
        ..EngineConfig::default()
    });
    let with_will = |n, len: usize| {
        let mut connect = as_user(n, None);
        connect.will = Some(will("w", &LARGE[..len], 0));
        connect
    };
    assert_eq!(timed.try_connect(1, &with_will(0, 2_000)), 0);
    let _ = timed.input(Input::Closed(ConnectionId::new(1, NonZeroU32::MIN)));
    assert_eq!(timed.use_memory(MAX / 10 * 9), [MemoryLevel::Scarce]);
    assert_eq!(timed.try_connect(2, &with_will(0, 2_000)), 0);
    assert_eq!(timed.try_connect(3, &with_will(1, 10)), 0x97, "a new Session");
    assert_eq!(timed.use_memory(MAX + 1), [MemoryLevel::Full]);
    assert_eq!(timed.try_connect(4, &with_will(0, 2_000)), 0, "its own again");
    assert_eq!(timed.try_connect(5, &with_will(0, 3_000)), 0x97, "and no larger one");
}
