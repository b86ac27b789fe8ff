//! Peers that ask for too much, and what they may cost.

use std::io::Write;
use std::time::Duration;

use sol_codec::{ProtocolVersion, ReasonCode};
use sol_transport::ListenAddr;

use crate::support::{Broker, Client, connect, publish};

on_each_backend! {
    a_peer_that_stays_silent_is_cut_and_nobody_else_is
    a_peer_that_does_not_speak_mqtt_is_closed_at_its_first_byte
    a_connect_larger_than_allowed_is_refused_before_it_has_come
    the_crowd_outside_is_bounded_and_who_waits_longest_goes
    the_bytes_of_the_crowd_outside_are_bounded_and_who_waits_longest_goes
    the_reason_of_a_close_arrives_although_input_was_unread
    a_peer_that_goes_on_sending_after_its_end_is_cut
    a_peer_that_does_not_close_its_side_is_cut_after_a_while
    a_consumer_that_does_not_read_is_cut_and_the_others_are_served
    a_consumer_that_reads_late_gets_everything_that_fits_in_order
    stopping_tells_clients_why_and_ends
    stopping_does_not_wait_for_ever_for_a_client_that_stays
    clients_come_in_through_every_listener
}

fn a_peer_that_stays_silent_is_cut_and_nobody_else_is() {
    // The broker waits for CONNECT for a bounded time (section 3.1, [MQTT-3.1.0-1]).
    for defer_accept in [false, true] {
        let broker = Broker::start(1, |config, _| {
            config.connect_time_max = Duration::from_millis(300);
            config.listeners[0].defer_accept = defer_accept;
        });
        let mut inside = Client::connect(broker.address, ProtocolVersion::V5, "inside");
        let mut silent = Client::open(broker.address, ProtocolVersion::V5);
        // With deferred accepting the system holds it back for about a second first.
        silent.expect_end();
        broker.wait_until("the time-out", |counters| counters.connect_timeouts == 1);
        // One that has begun is no better.
        let mut slow = Client::open(broker.address, ProtocolVersion::V5);
        slow.send(&[0x10]);
        slow.expect_end();
        inside.ping();
        broker.stop();
    }
}

fn a_peer_that_does_not_speak_mqtt_is_closed_at_its_first_byte() {
    // The first packet must be CONNECT [MQTT-3.1.0-1]; nothing is read further to find out what it is.
    let broker = Broker::start(1, |_, _| ());
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xc0, 0], &[0x16, 3, 1], &[0]] {
        let mut client = Client::open(broker.address, ProtocolVersion::V5);
        client.send(first);
        client.expect_cut();
    }
    assert_eq!(broker.counters().not_mqtt, 4);
    broker.stop();
}

fn a_connect_larger_than_allowed_is_refused_before_it_has_come() {
    let broker = Broker::start(1, |config, _| config.connect_bytes_max = 100);
    let mut client = Client::open(broker.address, ProtocolVersion::V5);
    // Only the Fixed Header of a CONNECT of 101 bytes.
    client.send(&[0x10, 99]);
    client.expect_cut();
    let mut client = Client::connect(broker.address, ProtocolVersion::V5, &"x".repeat(60));
    client.ping();
    broker.stop();
}

fn the_crowd_outside_is_bounded_and_who_waits_longest_goes() {
    crate::support::keep_shards();
    let broker = Broker::start(1, |config, _| {
        config.unauthenticated_max = 3;
        config.listeners[0].defer_accept = false;
    });
    let mut crowd: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = Client::open(broker.address, ProtocolVersion::V5);
            client.send(&[0x10]);
            client
        })
        .collect();
    broker.wait_until("two evictions", |counters| counters.evicted == 2);
    assert_eq!(broker.counters().unauthenticated, 3);
    crowd[0].expect_cut();
    crowd[1].expect_cut();
    // Those who are inside do not count.
    let mut inside: Vec<Client> = (0..5)
        .map(|n| Client::connect(broker.address, ProtocolVersion::V5, &format!("inside{n}")))
        .collect();
    for client in &mut inside {
        client.ping();
    }
    broker.stop();
}

fn the_bytes_of_the_crowd_outside_are_bounded_and_who_waits_longest_goes() {
    crate::support::keep_shards();
    // Whoever came late is not made to pay for those who were there before.
    let broker = Broker::start(1, |config, _| config.unauthenticated_bytes_max = 2_500);
    let mut crowd: Vec<Client> = (0..4)
        .map(|n| {
            let mut client = Client::open(broker.address, ProtocolVersion::V5);
            // The Fixed Header of a CONNECT of 12 KB, and 1,000 bytes of it.
            client.send(&[0x10, 0xe0, 0x5d]);
            client.send(&[0; 997]);
            broker.wait_until("its bytes", |counters| counters.bytes_in == 1_000 * (n + 1));
            client
        })
        .collect();
    assert_eq!(broker.counters().evicted, 2);
    crowd[0].expect_cut();
    crowd[1].expect_cut();
    assert_eq!(broker.counters().unauthenticated, 2);
    Client::connect(broker.address, ProtocolVersion::V5, "inside").ping();
    broker.stop();
}

fn the_reason_of_a_close_arrives_although_input_was_unread() {
    // [MQTT-4.13.1-1]: a DISCONNECT that a reset eats would have said nothing.
    let broker = Broker::start(1, |_, _| ());
    let mut client = Client::connect(broker.address, ProtocolVersion::V5, "malformed");
    // A PUBLISH with QoS 3, and then more than the broker will look at before it answers.
    let mut bytes = vec![0x36, 4, 0, 1, b'a', 0];
    bytes.resize(50_000, 0);
    client.send(&bytes);
    client.expect_disconnect(ReasonCode::MalformedPacket);
    broker.wait_until("the connection is gone", |counters| counters.connections == 0);
    broker.stop();
}

fn a_peer_that_goes_on_sending_after_its_end_is_cut() {
    let broker = Broker::start(1, |config, _| config.linger_time_max = Duration::from_secs(3_600));
    let mut client = Client::connect(broker.address, ProtocolVersion::V5, "goes-on");
    client.send(&[0x36, 4, 0, 1, b'a', 0]);
    // Ends in an error when the broker has discarded enough; a broken pipe is what is wanted.
    while client.stream.write_all(&[0; 4_096]).is_ok() {}
    broker.wait_until("the connection is gone", |counters| counters.connections == 0);
    broker.stop();
}

fn a_peer_that_does_not_close_its_side_is_cut_after_a_while() {
    let broker = Broker::start(1, |config, _| config.linger_time_max = Duration::from_millis(100));
    let mut client = Client::connect(broker.address, ProtocolVersion::V5, "stays");
    client.send(&[0x36, 4, 0, 1, b'a', 0]);
    client.expect_disconnect(ReasonCode::MalformedPacket);
    broker.wait_until("the connection is gone", |counters| counters.connections == 0);
    broker.stop();
}

fn a_consumer_that_does_not_read_is_cut_and_the_others_are_served() {
    // Output is bounded for each connection, and nobody waits for somebody else's reading.
    let broker = Broker::start(1, |_, engine| {
        engine.unsent_bytes_high = 64 << 10;
        engine.unsent_bytes_max = 256 << 10;
        engine.congested_time_max = Duration::from_millis(300);
    });
    let version = ProtocolVersion::V311;
    let mut slow = Client::connect(broker.address, version, "slow");
    slow.subscribe("flood");
    let mut good = Client::connect(broker.address, version, "good");
    good.subscribe("flood");
    let mut publisher = Client::connect(broker.address, version, "publisher");
    let payload = vec![b'x'; 100_000];
    let message = publish(version, "flood", &payload);
    let mut sent = 0;
    while broker.counters().connections == 3 {
        publisher.send(&message);
        good.expect_publish("flood", &payload);
        sent += 1;
        assert!(sent < 20_000, "the slow consumer was never cut");
    }
    slow.expect_cut();
    good.ping();
    publisher.ping();
    assert!(broker.counters().short_sends > 0);
    broker.stop();
}

fn a_consumer_that_reads_late_gets_everything_that_fits_in_order() {
    let broker = Broker::start(1, |_, engine| {
        engine.unsent_bytes_high = 64 << 20;
        engine.unsent_bytes_max = 128 << 20;
    });
    let version = ProtocolVersion::V5;
    let mut late = Client::connect(broker.address, version, "late");
    late.subscribe("much");
    let mut publisher = Client::connect(broker.address, version, "publisher");
    let message = |n: u32| [&n.to_be_bytes()[..], &[0; 50_000]].concat();
    for n in 0..400 {
        publisher.send(&publish(version, "much", &message(n)));
    }
    publisher.ping();
    assert!(broker.counters().short_sends > 0, "20 MB do not fit into a socket");
    for n in 0..400 {
        late.expect_publish("much", &message(n));
    }
    late.ping();
    broker.stop();
}

fn stopping_tells_clients_why_and_ends() {
    // 5.0 clients get DISCONNECT with 0x8B; the older versions have no such packet from a server.
    for shards in [1, 2] {
        let broker = Broker::start(shards, |_, _| ());
        let mut modern: Vec<Client> = (0..5)
            .map(|n| Client::connect(broker.address, ProtocolVersion::V5, &format!("move{n}")))
            .collect();
        let mut old = Client::connect(broker.address, ProtocolVersion::V311, "move-old");
        broker.shards().handle().stop();
        for client in &mut modern {
            client.expect_disconnect(ReasonCode::ServerShuttingDown);
        }
        old.expect_end();
        drop((modern, old));
        broker.stop();
    }
}

fn stopping_does_not_wait_for_ever_for_a_client_that_stays() {
    let broker = Broker::start(1, |config, _| config.stop_time_max = Duration::from_millis(200));
    let _stays = Client::connect(broker.address, ProtocolVersion::V5, "stays");
    broker.stop();
}

fn clients_come_in_through_every_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let broker = Broker::start(2, |config, _| {
        let mut unix = config.listeners[0].clone();
        unix.address = ListenAddr::Unix(path.clone());
        let mut v6 = config.listeners[0].clone();
        v6.address = ListenAddr::Tcp("[::1]:0".parse().unwrap());
        config.listeners.push(unix);
        config.listeners.push(v6);
    });
    let ListenAddr::Tcp(v6) = broker.shards().addresses()[2] else {
        panic!("no TCP address")
    };
    for address in [broker.address, v6] {
        Client::connect(address, ProtocolVersion::V311, "move-tcp").ping();
    }
    let mut unix = std::os::unix::net::UnixStream::connect(&path).unwrap();
    unix.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    unix.write_all(&connect(ProtocolVersion::V311, "move-unix")).unwrap();
    let mut answer = [0; 4];
    std::io::Read::read_exact(&mut unix, &mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    broker.stop();
    assert!(!path.exists(), "the socket's file goes with the broker");
}
