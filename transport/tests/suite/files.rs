//! Browsers that ask for files beside MQTT over WebSocket, and what slow ones may cost.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sol_codec::ProtocolVersion;
use sol_engine::{EngineConfig, ListenerId};
use sol_transport::{Files, ListenAddr, ListenerConfig, Protocol, TransportConfig, WebSocketRules};

use crate::authority::{Authority, TlsClient, VERSIONS};
use crate::support::{Broker, Client, PATIENCE, connect};

on_each_backend! {
    files_arrive_whole_and_a_piece_is_held
    files_arrive_whole_over_tls
    many_who_ask_at_once_all_get_their_files
    a_reader_that_has_nothing_more_to_say_gets_its_file
    a_reader_that_has_ended_its_side_does_not_linger
    a_reader_that_is_gone_does_not_stay
    a_reader_that_takes_nothing_is_cut
    a_reader_that_takes_its_file_may_take_longer_than_a_login
    the_pieces_are_smaller_the_more_there_are
    readers_go_before_clients_wait_for_their_memory
    who_reads_longest_goes_first_when_there_are_too_many
    readers_go_first_however_long_they_have_been_there
    other_files_are_for_those_who_come_later
    a_websocket_is_served_beside_files
    stopping_does_not_wait_for_readers
}

/// More than a system takes of what nobody reads.
const LARGE: usize = 24 << 20;
/// What a piece and its header may be.
const PIECE_MAX: u64 = 66 << 10;

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|n| ((n / 7) ^ (n >> 11)) as u8).collect()
}

fn files(len: usize) -> Arc<Files> {
    let mut files = Files::default();
    files.insert(b"/index.html", "text/html; charset=utf-8", b"<h1>Hello</h1>".to_vec());
    files.insert(b"/large", "application/octet-stream", body(len));
    Arc::new(files)
}

/// A broker whose first listener serves files, and whose second one speaks plain MQTT.
fn start(len: usize, change: impl FnOnce(&mut TransportConfig, &mut EngineConfig)) -> Broker {
    Broker::start(1, |config, engine| {
        config.listeners.push(config.listeners[0].clone());
        serve(&mut config.listeners[0], len);
        change(config, engine);
    })
}

fn serve(listener: &mut ListenerConfig, len: usize) {
    listener.protocol = Protocol::WebSocket(Arc::new(WebSocketRules {
        files: Some(files(len)),
        ..WebSocketRules::default()
    }));
}

fn ask(broker: &Broker, path: &str) -> Client {
    let mut client = Client::open(broker.address, ProtocolVersion::V5);
    client.send(request(path).as_bytes());
    client
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// What was answered, up to its orderly end.
fn answer(from: &mut impl Read) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let body = all.split_off(end);
    (String::from_utf8(all).unwrap(), body)
}

fn assert_large(from: &mut impl Read, len: usize) {
    let (head, got) = answer(from);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(got == body(len), "{} of {len} bytes, or others", got.len());
}

/// The plain listener serves its clients.
fn assert_served(broker: &Broker, name: &str) {
    Client::connect(plain(broker), ProtocolVersion::V5, name).ping();
}

fn plain(broker: &Broker) -> SocketAddr {
    let ListenAddr::Tcp(address) = broker.shards().addresses()[1] else {
        panic!("not a TCP listener")
    };
    address
}

/// Of a file that is larger than what the system takes, a piece is held for a reader that is slow, and it gets all of it.
fn files_arrive_whole_and_a_piece_is_held() {
    let broker = start(LARGE, |_, _| ());
    let mut slow = ask(&broker, "/large");
    broker.wait_until("what the system does not take", |counters| counters.held_bytes > 0);
    assert!(broker.counters().held_bytes <= PIECE_MAX);
    assert_served(&broker, "beside");
    let (head, page) = answer(&mut ask(&broker, "/").stream);
    assert!(
        head.contains("\r\nContent-Length: 14\r\n") && page == b"<h1>Hello</h1>",
        "{head}"
    );
    assert_large(&mut slow.stream, LARGE);
    broker.wait_until("the end of all", |counters| counters.connections == 0);
    let counters = broker.counters();
    assert_eq!((counters.files_requested, counters.files_cut), (2, 0));
    assert_eq!((counters.handshakes_failed, counters.held_bytes), (0, 0));
    assert!(counters.bytes_out > LARGE as u64);
    broker.stop();
}

/// Over TLS too, with either version, and the end is said in TLS: nobody can cut a file short unseen.
fn files_arrive_whole_over_tls() {
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let broker = start(LARGE, |config, _| config.listeners[0].tls = Some(tls));
    for version in VERSIONS {
        let config = authority.client(version, None);
        let mut slow = TlsClient::open(broker.address, &config);
        slow.send(request("/large").as_bytes());
        broker.wait_until("what the system does not take", |counters| counters.held_bytes > 0);
        assert!(broker.counters().held_bytes <= PIECE_MAX);
        assert_large(&mut slow.tls, LARGE);
        let mut none = TlsClient::open(broker.address, &config);
        none.send(request("/none").as_bytes());
        assert!(answer(&mut none.tls).0.starts_with("HTTP/1.1 404 "));
    }
    broker.stop();
}

/// A browser asks for all files of its page at once, and so do many browsers.
fn many_who_ask_at_once_all_get_their_files() {
    let len = 1 << 20;
    let broker = start(len, |_, _| ());
    let readers: Vec<_> = (0..40).map(|_| ask(&broker, "/large")).collect();
    for mut reader in readers {
        assert_large(&mut reader.stream, len);
    }
    assert_eq!(broker.counters().files_requested, 40);
    broker.stop();
}

/// A request may be all that a peer says, and the end of its side stand right behind it (RFC 9112, section 9.6).
fn a_reader_that_has_nothing_more_to_say_gets_its_file() {
    let broker = start(LARGE, |_, _| ());
    for path in ["/", "/large"] {
        let mut reader = ask(&broker, path);
        reader.finish_sending();
        let (head, got) = answer(&mut reader.stream);
        let wanted = if path == "/" {
            b"<h1>Hello</h1>".to_vec()
        } else {
            body(LARGE)
        };
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && got == wanted, "{head}");
    }
    broker.wait_until("the end of all", |counters| counters.connections == 0);
    broker.stop();
}

/// Who has gone away in the middle of a file is found out by what cannot be sent.
fn a_reader_that_is_gone_does_not_stay() {
    let broker = start(LARGE, |_, _| ());
    let reader = ask(&broker, "/large");
    broker.wait_until("what the system does not take", |counters| counters.held_bytes > 0);
    // With bytes unread that is a reset.
    drop(reader);
    broker.wait_until("its end", |counters| {
        counters.connections == 0 && counters.held_bytes == 0
    });
    assert_eq!(broker.counters().files_cut, 0);
    broker.stop();
}

/// A peer that asks for a file and does not take it does not stay.
fn a_reader_that_takes_nothing_is_cut() {
    let broker = start(LARGE, |config, _| {
        config.connect_time_max = Duration::from_millis(50);
        config.frame_time_max = Duration::from_millis(200);
    });
    let _slow = ask(&broker, "/large");
    broker.wait_until("the cut", |counters| counters.files_cut == 1);
    broker.wait_until("its end", |counters| {
        counters.connections == 0 && counters.held_bytes == 0 && counters.unauthenticated == 0
    });
    assert_eq!(broker.counters().connect_timeouts, 0);
    broker.stop();
}

/// The time for CONNECT is not the time for a file, and a reader that goes on is let.
fn a_reader_that_takes_its_file_may_take_longer_than_a_login() {
    let broker = start(LARGE, |config, _| {
        config.connect_time_max = Duration::from_millis(50);
        config.listeners[0].defer_accept = false;
    });
    let mut slow = ask(&broker, "/large");
    broker.wait_until("its request", |counters| counters.files_requested == 1);
    for n in 1..=3 {
        // Who came later, and says nothing, has had its time by now.
        let mut silent = Client::open(broker.address, ProtocolVersion::V5);
        silent.expect_end();
        broker.wait_until("the time-out", |counters| counters.connect_timeouts == n);
    }
    assert_large(&mut slow.stream, LARGE);
    assert_eq!(broker.counters().files_cut, 0);
    broker.stop();
}

/// What is held for all readers is bounded by what is held for all who have not been let in.
fn the_pieces_are_smaller_the_more_there_are() {
    crate::support::keep_shards();
    let budget = 32 << 10;
    let broker = start(LARGE, |config, _| config.unauthenticated_bytes_max = budget);
    let mut slow: Vec<_> = (1..=24)
        .map(|n| {
            let before = broker.counters().short_sends;
            let client = ask(&broker, "/large");
            broker.wait_until("what the system does not take", |counters| {
                counters.files_requested == n && counters.short_sends > before
            });
            client
        })
        .collect();
    let counters = broker.counters();
    assert!(
        counters.held_bytes > 0 && counters.held_bytes <= budget as u64,
        "{counters:?}"
    );
    assert!(counters.evicted > 0, "{counters:?}");
    slow[0].expect_cut();
    assert_served(&broker, "beside");
    assert_large(&mut slow.last_mut().unwrap().stream, LARGE);
    broker.stop();
}

/// No client waits, and none is closed, for the memory that readers hold: they go before.
fn readers_go_before_clients_wait_for_their_memory() {
    crate::support::keep_shards();
    let broker = start(LARGE, |_, engine| {
        engine.memory_bytes_max = 1 << 20;
        engine.maximum_packet_size = 200_000;
    });
    let mut slow: Vec<_> = (1..=2)
        .map(|n| {
            let before = broker.counters().short_sends;
            let client = ask(&broker, "/large");
            broker.wait_until("what the system does not take", |counters| {
                counters.files_requested == n && counters.short_sends > before
            });
            client
        })
        .collect();
    let mut clients: Vec<_> = ["a", "b"]
        .map(|name| Client::connect(plain(&broker), ProtocolVersion::V5, name))
        .into();
    // A part of a packet of each, together three quarters of what makes clients wait (400,000 bytes), and no more.
    let rest = 180_000 - 4;
    for client in &mut clients {
        client.send(&[0x30, 0xa0, 0xfe, 0x0a, 0, 1, b't', 0]);
        client.send(&vec![0; 160_000]);
    }
    broker.wait_until("the end of readers", |counters| counters.shed == 2);
    slow.iter_mut().for_each(Client::expect_cut);
    for client in &mut clients {
        client.send(&vec![0; rest - 160_000]);
        client.ping();
    }
    assert_eq!(broker.counters().shed, 2);
    broker.stop();
}

/// Readers take nobody's place who has a login to send.
fn who_reads_longest_goes_first_when_there_are_too_many() {
    crate::support::keep_shards();
    let broker = start(LARGE, |config, _| config.unauthenticated_max = 3);
    let mut readers: Vec<_> = (1..=3)
        .map(|n| {
            let reader = ask(&broker, "/large");
            broker.wait_until("its request", |counters| counters.files_requested == n);
            reader
        })
        .collect();
    assert_served(&broker, "inside");
    assert_eq!(broker.counters().evicted, 1);
    readers[0].expect_cut();
    assert_large(&mut readers[2].stream, LARGE);
    broker.stop();
}

/// The same when the time for a login is over for them: whoever came before that, and has yet to say who it is, stays.
fn readers_go_first_however_long_they_have_been_there() {
    crate::support::keep_shards();
    let broker = start(LARGE, |config, _| {
        config.unauthenticated_max = 3;
        config.linger_time_max = Duration::from_millis(1_000);
        config.connect_time_max = Duration::from_millis(1_500);
        config.listeners[1].defer_accept = false;
    });
    let silent = || Client::open(plain(&broker), ProtocolVersion::V5);
    // It does not end its side, and is there for a second.
    let _lingers = ask(&broker, "/none");
    broker.wait_until("its answer", |counters| {
        counters.files_requested == 1 && counters.unauthenticated == 0
    });
    let mut reader = ask(&broker, "/large");
    broker.wait_until("the request", |counters| counters.files_requested == 2);
    let mut first = silent();
    broker.wait_until("that second", |counters| counters.connections == 2);
    let mut second = silent();
    // By then the reader was looked at again.
    first.expect_end();
    let mut third = silent();
    broker.wait_until("all three", |counters| counters.unauthenticated == 3);
    assert_served(&broker, "inside");
    reader.expect_cut();
    assert_eq!(broker.counters().evicted, 1);
    for (client, name) in [(&mut second, "second"), (&mut third, "third")] {
        client.send(&connect(ProtocolVersion::V5, name));
        client.expect_connack();
    }
    broker.stop();
}

/// Who has ended its side does not stay when its file has left: nothing more will come.
fn a_reader_that_has_ended_its_side_does_not_linger() {
    let broker = start(1 << 10, |config, _| config.linger_time_max = PATIENCE * 10);
    let mut reader = ask(&broker, "/large");
    reader.finish_sending();
    assert_large(&mut reader.stream, 1 << 10);
    broker.wait_until("its end", |counters| counters.connections == 0);
    broker.stop();
}

/// A reload changes what is asked for from then on, and nothing that is on its way.
fn other_files_are_for_those_who_come_later() {
    let broker = start(LARGE, |_, _| ());
    let mut slow = ask(&broker, "/large");
    broker.wait_until("what the system does not take", |counters| counters.held_bytes > 0);
    let handle = broker.shards().handle();
    // One without WebSocket has nothing to serve them by.
    handle.change_files(ListenerId(1), &files(5));
    handle.change_files(ListenerId(0), &files(9));
    // Behind the news in every mailbox.
    broker.counters();
    assert_large(&mut ask(&broker, "/large").stream, 9);
    assert_served(&broker, "plain");
    assert_large(&mut slow.stream, LARGE);
    broker.stop();
}

/// On the same listener a WebSocket is one, and a request for a file that comes with a flood of more is answered once.
fn a_websocket_is_served_beside_files() {
    let broker = start(1 << 20, |_, _| ());
    let mut flood = Client::open(broker.address, ProtocolVersion::V5);
    flood.send(request("/").repeat(20).as_bytes());
    let (_, page) = answer(&mut flood.stream);
    assert_eq!(page, b"<h1>Hello</h1>");
    let mut web = Client::open(broker.address, ProtocolVersion::V5);
    let mut bytes =
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            .to_vec();
    let packet = connect(ProtocolVersion::V311, "web");
    bytes.extend([0x82, 0x80 | packet.len() as u8, 0, 0, 0, 0]);
    bytes.extend(packet);
    web.send(&bytes);
    let mut heard = Vec::new();
    while !heard.ends_with(&[0x82, 4, 0x20, 2, 0, 0]) {
        let mut bytes = [0; 512];
        let n = web.stream.read(&mut bytes).unwrap();
        assert!(n > 0, "{heard:?}");
        heard.extend_from_slice(&bytes[..n]);
    }
    assert!(heard.starts_with(b"HTTP/1.1 101 "));
    let counters = broker.counters();
    assert_eq!((counters.handshakes, counters.files_requested), (1, 1));
    broker.stop();
}

/// The broker stops although somebody has not taken its file.
fn stopping_does_not_wait_for_readers() {
    let broker = start(LARGE, |config, _| {
        config.stop_time_max = PATIENCE * 10;
        config.flush_time_max = PATIENCE * 10;
    });
    let mut slow = ask(&broker, "/large");
    broker.wait_until("what the system does not take", |counters| counters.held_bytes > 0);
    broker.stop();
    slow.expect_cut();
    let _ = slow.stream.write_all(b"late");
}
