//! Clients that send faster than they may, and addresses that come too often: slowed down, and nothing lost.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use sol_codec::{ConnAck, Connect, Packet, ProtocolVersion, ReasonCode};
use sol_engine::Query;
use sol_transport::{Admission, Clock, Limits, ListenAddr, ListenerConfig, ListenerLimits, Rates, TransportConfig};

use crate::support::{Broker, Client, PATIENCE, connect, publish};

const V5: ProtocolVersion = ProtocolVersion::V5;

on_each_backend! {
    a_flood_is_slowed_to_its_rate_and_nothing_of_it_is_lost
    what_comes_behind_connect_in_one_piece_is_slowed_too
    bytes_are_counted_as_they_arrive_and_not_packet_by_packet
    who_is_not_read_for_its_rate_is_not_taken_to_be_silent
    other_rates_hold_for_those_who_are_there_already
    rates_that_come_later_hold_for_those_who_are_read_already
    who_takes_over_does_not_wait_for_what_the_one_before_has_sent
    an_address_has_its_number_of_connections_and_the_next_is_closed
    an_address_that_has_its_number_takes_nobody_elses_place
    connections_above_the_rate_wait_and_nobody_is_refused
    a_user_has_its_number_of_connections_on_all_shards_together
    there_are_so_many_sessions_on_all_shards_together
}

fn limited(rates: Rates, admission: Admission) -> Limits {
    Limits {
        all: Admission::default(),
        listeners: vec![ListenerLimits {
            rates,
            admission,
            counted_at: None,
        }],
    }
}

fn messages(max: u32) -> Limits {
    let rates = Rates {
        messages_max: NonZeroU32::new(max),
        bytes_max: None,
    };
    limited(rates, Admission::default())
}

fn bytes(max: u32) -> Limits {
    let rates = Rates {
        messages_max: None,
        bytes_max: NonZeroU32::new(max),
    };
    limited(rates, Admission::default())
}

/// A broker whose first listener has limits, and its second has none.
fn start(limits: Limits) -> (Broker, SocketAddr) {
    start_with(2, limits, |_| ())
}

fn start_with(shards: u16, limits: Limits, change: impl FnOnce(&mut TransportConfig)) -> (Broker, SocketAddr) {
    let broker = Broker::start(shards, |config, _| {
        config.limits = limits;
        change(config);
        let second = ListenerConfig::new(ListenAddr::Tcp("127.0.0.1:0".parse().unwrap()));
        config.listeners.push(second);
    });
    let ListenAddr::Tcp(free) = broker.shards().addresses()[1] else {
        panic!("not a TCP listener")
    };
    (broker, free)
}

/// How often clients were held up.
fn rate_pauses(broker: &Broker) -> u64 {
    let answers = broker.shards().handle().ask(Query::Stats, PATIENCE);
    let of_shard = |answer: &sol_transport::ShardAnswer| {
        let sol_engine::Answer::Stats(stats) = &answer.answer;
        stats.rate_pauses
    };
    answers.iter().map(of_shard).sum()
}

fn a_flood_is_slowed_to_its_rate_and_nothing_of_it_is_lost() {
    const RATE: u32 = 100;
    const SENT: u32 = 150;
    let (broker, free) = start(messages(RATE));
    let mut subscriber = Client::connect(free, V5, "subscriber");
    subscriber.subscribe("flood");
    let mut flooder = Client::connect(broker.address, V5, "flooder");
    let flood: Vec<u8> = (0..SENT).flat_map(|n| publish(V5, "flood", &n.to_be_bytes())).collect();
    let clock = Clock::start();
    flooder.send(&flood);
    for n in 0..SENT {
        subscriber.expect_publish("flood", &n.to_be_bytes());
    }
    // A tenth of a second's worth may come at once.
    let least = Duration::from_secs(1) * (SENT - RATE / 10 - 1) / RATE;
    let took = Duration::from_nanos(clock.now().mono.as_nanos());
    assert!(took >= least, "{took:?}");
    assert!(rate_pauses(&broker) > 0);
    // Nobody else waits for it, and it is answered behind its flood.
    flooder.ping();
    broker.stop();
}

fn what_comes_behind_connect_in_one_piece_is_slowed_too() {
    // Who comes again and again would have as much for nothing each time.
    const RATE: u32 = 100;
    const SENT: u32 = 50;
    let (broker, free) = start_with(1, messages(RATE), |_| ());
    let mut subscriber = Client::connect(free, V5, "subscriber");
    subscriber.subscribe("flood");
    let mut flooder = Client::open(broker.address, V5);
    let mut bytes = connect(V5, "flooder");
    bytes.extend((0..SENT).flat_map(|n| publish(V5, "flood", &n.to_be_bytes())));
    let clock = Clock::start();
    flooder.send(&bytes);
    for n in 0..SENT {
        subscriber.expect_publish("flood", &n.to_be_bytes());
    }
    let least = Duration::from_secs(1) * (SENT - RATE / 10 - 1) / RATE;
    let took = Duration::from_nanos(clock.now().mono.as_nanos());
    assert!(took >= least, "{took:?}");
    broker.stop();
}

fn bytes_are_counted_as_they_arrive_and_not_packet_by_packet() {
    const RATE: u32 = 64 << 10;
    let (broker, free) = start(bytes(RATE));
    let mut subscriber = Client::connect(free, V5, "subscriber");
    subscriber.subscribe("large");
    let mut sender = Client::connect(broker.address, V5, "sender");
    let clock = Clock::start();
    // One packet of two seconds: it is not read at once and then paid for.
    let payload = vec![7; 2 * RATE as usize];
    sender.send(&publish(V5, "large", &payload));
    subscriber.expect_publish("large", &payload);
    let took = Duration::from_nanos(clock.now().mono.as_nanos());
    // The part that comes last is let through before it is paid for, and is no larger than what is read at once.
    assert!(took >= Duration::from_millis(800), "{took:?}");
    assert!(rate_pauses(&broker) > 1);
    broker.stop();
}

fn who_is_not_read_for_its_rate_is_not_taken_to_be_silent() {
    // [MQTT-3.1.2-22] is about clients that say nothing, not about those whom nobody hears.
    let (broker, _) = start(bytes(Rates::BYTES_MIN));
    let mut client = Client::open(broker.address, V5);
    let mut hello = Vec::new();
    Connect {
        keep_alive: 1,
        ..Connect::new(V5, "impatient")
    }
    .encode(V5, &mut hello);
    client.send(&hello);
    client.expect_connack();
    let clock = Clock::start();
    // Four seconds' worth, and PINGREQ behind it.
    client.send(&publish(V5, "t", &[0; 4 * Rates::BYTES_MIN as usize]));
    client.ping();
    let took = Duration::from_nanos(clock.now().mono.as_nanos());
    assert!(took >= Duration::from_millis(1_600), "{took:?}");
    broker.stop();
}

fn other_rates_hold_for_those_who_are_there_already() {
    let (broker, free) = start(messages(1));
    let mut subscriber = Client::connect(free, V5, "subscriber");
    subscriber.subscribe("t");
    let mut client = Client::connect(broker.address, V5, "client");
    broker.shards().handle().change_limits(Limits::default());
    // A minute's worth by the old rate.
    let flood: Vec<u8> = (0..60_u32).flat_map(|n| publish(V5, "t", &n.to_be_bytes())).collect();
    let clock = Clock::start();
    client.send(&flood);
    for n in 0..60_u32 {
        subscriber.expect_publish("t", &n.to_be_bytes());
    }
    assert!(clock.now().mono.as_nanos() < 50_000_000_000);
    broker.stop();
}

fn rates_that_come_later_hold_for_those_who_are_read_already() {
    // With io_uring a receive is armed for all that comes: what it has taken in already is paid for, and the rest is left.
    const RATE: u32 = 100;
    const SENT: u32 = 150;
    let (broker, free) = start(Limits::default());
    let mut subscriber = Client::connect(free, V5, "subscriber");
    subscriber.subscribe("flood");
    let mut flooder = Client::connect(broker.address, V5, "flooder");
    flooder.ping();
    broker.shards().handle().change_limits(messages(RATE));
    // Whoever has answered knows them.
    assert_eq!(rate_pauses(&broker), 0);
    let payload = |n: u32| [&n.to_be_bytes()[..], &[7; 4_096]].concat();
    let flood: Vec<u8> = (0..SENT).flat_map(|n| publish(V5, "flood", &payload(n))).collect();
    let clock = Clock::start();
    let mut stream = flooder.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut stream, &flood).unwrap());
    for n in 0..SENT {
        subscriber.expect_publish("flood", &payload(n));
    }
    let least = Duration::from_secs(1) * (SENT - RATE / 10 - 1) / RATE;
    let took = Duration::from_nanos(clock.now().mono.as_nanos());
    assert!(took >= least, "{took:?}");
    sender.join().unwrap();
    flooder.ping();
    broker.stop();
}

fn who_takes_over_does_not_wait_for_what_the_one_before_has_sent() {
    // It may be the client's way out of its own flood; what nobody has read by then is nobody's [MQTT-3.1.4-3].
    const SENT: u32 = 100;
    let (broker, free) = start(messages(1));
    let mut subscriber = Client::connect(free, V5, "subscriber");
    subscriber.subscribe("flood");
    let mut flooder = Client::connect(broker.address, V5, "flooder");
    let flood: Vec<u8> = (0..SENT).flat_map(|n| publish(V5, "flood", &n.to_be_bytes())).collect();
    let clock = Clock::start();
    flooder.send(&flood);
    broker.wait_until("the pause", |_| rate_pauses(&broker) > 0);
    let mut next = Client::connect(broker.address, V5, "flooder");
    flooder.expect_disconnect(ReasonCode::SessionTakenOver);
    flooder.expect_cut();
    next.ping();
    next.send(&publish(V5, "flood", b"next"));
    let mut before = 0;
    while subscriber.with_packet(|packet| matches!(packet, Packet::Publish(publish) if publish.payload != b"next")) {
        before += 1;
    }
    assert!(before < SENT / 2, "{before}");
    subscriber.ping();
    assert!(clock.now().mono.as_nanos() < 20_000_000_000);
    broker.stop();
}

fn an_address_has_its_number_of_connections_and_the_next_is_closed() {
    let admission = Admission {
        per_address_max: NonZeroU32::new(3),
        ..Admission::default()
    };
    let (broker, free) = start(limited(Rates::default(), admission));
    // Wherever they are at home, and let in or not.
    let mut inside: Vec<Client> = (0..2)
        .map(|n| Client::connect(broker.address, V5, &format!("client {n}")))
        .collect();
    let mut silent = Client::open(broker.address, V5);
    silent.send(&connect(V5, "half")[..5]);
    broker.wait_until("three", |counters| counters.accepted == 3);
    for refused in 1..=4 {
        let mut late = Client::open(broker.address, V5);
        // What it says is not even read.
        let _ = std::io::Write::write_all(&mut late.stream, &connect(V5, "late"));
        late.expect_cut();
        assert_eq!(broker.counters().address_refused, refused);
    }
    Client::connect(free, V5, "elsewhere").ping();
    inside.pop();
    broker.wait_until("two are gone", |counters| counters.connections == 2);
    let mut next = Client::connect(broker.address, V5, "next");
    next.ping();
    inside[0].ping();
    broker.stop();
}

fn an_address_that_has_its_number_takes_nobody_elses_place() {
    // One that comes in a loop would use up the rate of all, and have those thrown out who came before it.
    let admission = Admission {
        per_address_max: NonZeroU32::new(2),
        accepted_per_second: NonZeroU32::new(20),
    };
    let (broker, _) = start_with(1, limited(Rates::default(), admission), |config| {
        config.unauthenticated_max = 3;
        config.accept_pause = Duration::ZERO;
        config.connect_time_max = 10 * PATIENCE;
    });
    let neighbour = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    neighbour
        .bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    neighbour.connect(&broker.address.into()).unwrap();
    broker.wait_until("the neighbour is there", |counters| counters.accepted == 1);
    let _silent = [(); 2].map(|()| Client::open(broker.address, V5));
    broker.wait_until("all places are taken", |counters| counters.accepted == 3);
    for refused in 1..=10 {
        Client::open(broker.address, V5).expect_cut();
        assert_eq!(broker.counters().address_refused, refused);
    }
    let counters = broker.counters();
    assert_eq!((counters.evicted, counters.accept_waits), (0, 0));
    broker.stop();
}

fn connections_above_the_rate_wait_and_nobody_is_refused() {
    const RATE: u32 = 20;
    const COUNT: u32 = 30;
    let admission = Admission {
        accepted_per_second: NonZeroU32::new(RATE),
        ..Admission::default()
    };
    let (broker, free) = start(limited(Rates::default(), admission));
    let clock = Clock::start();
    let mut crowd: Vec<Client> = (0..COUNT)
        .map(|n| {
            let mut client = Client::open(broker.address, V5);
            client.send(&connect(V5, &format!("client {n}")));
            client
        })
        .collect();
    Client::connect(free, V5, "elsewhere").ping();
    crowd.iter_mut().for_each(Client::expect_connack);
    let took = Duration::from_nanos(clock.now().mono.as_nanos());
    // A fifth of a second's worth at once, and one more of each shard.
    let least = Duration::from_secs(1) * (COUNT - RATE / 5 - 3) / RATE;
    assert!(took >= least, "{took:?}");
    // It rests after one at the earliest, however often it is looked at.
    let waits = broker.counters().accept_waits;
    assert!((1..=u64::from(COUNT)).contains(&waits), "{waits}");
    broker.stop();
}

/// The Reason Code of the CONNACK, with the client.
fn come(broker: &Broker, hello: &Connect<'_>) -> (ReasonCode, Client) {
    let mut client = Client::open(broker.address, V5);
    let mut bytes = Vec::new();
    hello.encode(V5, &mut bytes);
    client.send(&bytes);
    let code = client.with_packet(|packet| match packet {
        Packet::ConnAck(ConnAck { reason_code, .. }) => reason_code,
        other => panic!("no CONNACK: {other:?}"),
    });
    (code, client)
}

fn a_user_has_its_number_of_connections_on_all_shards_together() {
    let broker = Broker::start(3, |_, engine| engine.connections_per_user_max = 3);
    let names: Vec<String> = (0..12).map(|n| format!("client {n}")).collect();
    let hello = |n: usize, username| Connect {
        username: Some(username),
        ..Connect::new(V5, &names[n])
    };
    let came: Vec<_> = (0..9).map(|n| come(&broker, &hello(n, "ann"))).collect();
    let (mut inside, refused): (Vec<_>, Vec<_>) = came.into_iter().partition(|(code, _)| *code == ReasonCode::Success);
    assert_eq!(inside.len(), 3);
    assert!(refused.iter().all(|(code, _)| *code == ReasonCode::QuotaExceeded));
    assert_eq!(come(&broker, &hello(10, "bob")).0, ReasonCode::Success);
    let (_, leaving) = inside.remove(0);
    drop((leaving, refused));
    broker.wait_until("all but two are gone", |counters| counters.connections == 2);
    assert_eq!(come(&broker, &hello(11, "ann")).0, ReasonCode::Success);
    broker.stop();
}

fn there_are_so_many_sessions_on_all_shards_together() {
    let broker = Broker::start(3, |_, engine| engine.sessions_max = 4);
    let names: Vec<String> = (0..10).map(|n| format!("client {n}")).collect();
    let hello = |n: usize| {
        let mut hello = Connect::new(V5, &names[n]);
        hello.clean_start = false;
        hello.properties.session_expiry_interval = Some(3_600);
        hello
    };
    let came: Vec<_> = (0..9).map(|n| come(&broker, &hello(n)).0).collect();
    let mut wanted = vec![ReasonCode::Success; 4];
    wanted.resize(9, ReasonCode::QuotaExceeded);
    assert_eq!(came, wanted, "whether they are there still or not");
    assert_eq!(come(&broker, &hello(2)).0, ReasonCode::Success);
    // Who leaves for good makes room.
    let mut last = hello(2);
    last.clean_start = true;
    last.properties.session_expiry_interval = None;
    drop(come(&broker, &last));
    broker.wait_until("it is gone", |counters| counters.connections == 0);
    assert_eq!(come(&broker, &hello(9)).0, ReasonCode::Success);
    broker.stop();
}
