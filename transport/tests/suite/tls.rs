//! TLS over real sockets, on both backends, beside what the filter's own tests prove of its bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind};
use sol_codec::{Connect, Packet, ProtocolVersion, QoS, TopicName, Will, WillProperties};
use sol_engine::{AuthOutcome, AuthRequest, EngineConfig, Event, ListenerId, ListenerRules};
use sol_transport::{
    Applicant, AuthReply, ListenAddr, ListenerLimits, Notice, Observer, Protocol, Rates, Source, Tls, TransportConfig,
    WebSocketRules,
};

use crate::authority::{Authority, TlsClient, VERSIONS};
use crate::support::{Broker, Client, PATIENCE, connect, disconnect, names_at_home, publish, subscribe};

on_each_backend! {
    what_is_pipelined_arrives_whole_on_every_shard
    a_large_packet_reaches_a_reader_that_stalls
    the_end_is_said_in_order
    an_answer_and_the_end_leave_in_one_turn
    keys_that_change_all_the_time_are_answered_once
    an_end_right_behind_the_last_packet_loses_nothing
    an_end_behind_what_waits_for_a_rate_comes_after_it
    a_record_that_does_not_arrive_whole_in_time_ends_its_connection
    clients_need_a_certificate_that_is_not_revoked
    a_certificate_may_say_who_a_client_is
    a_session_of_tls_is_resumed_on_every_shard
    another_certificate_is_for_those_who_come_later
    who_speaks_something_else_is_closed_with_one_notice
    who_ends_in_the_middle_of_a_handshake_leaves_nothing
    who_is_evicted_while_it_agrees_is_not_let_in
    a_crowd_that_shakes_hands_at_once_comes_in
    a_stop_ends_those_who_still_shake_hands
    mqtt_over_websocket
}

fn start(shards: u16, tls: &Tls) -> Broker {
    Broker::start(shards, |config, _| config.listeners[0].tls = Some(tls.clone()))
}

fn expect_publish(client: &mut TlsClient, topic: &str, payload: &[u8]) {
    client.with_packet(|packet| match packet {
        Packet::Publish(publish) => {
            assert_eq!(publish.topic.map(TopicName::as_str), Some(topic));
            assert!(publish.payload == payload);
        }
        other => panic!("no PUBLISH: {other:?}"),
    });
}

/// A connection moves to its home shard with its keys and all that was read of it: what a client sends behind its CONNECT
/// without waiting arrives once and in order, in one record or in a record for each byte.
fn what_is_pipelined_arrives_whole_on_every_shard() {
    crate::support::keep_shards();
    let authority = Authority::new("authority");
    let broker = start(2, &authority.server(&authority.issue("broker", 1), None));
    for version in VERSIONS {
        let config = authority.client(version, None);
        for (shard, record) in [(0, usize::MAX), (1, usize::MAX), (0, 1), (1, 1), (0, 7), (1, 7)] {
            for name in names_at_home("pipelines", shard).take(3) {
                let mut client = TlsClient::open(broker.address, &config);
                let mut bytes = connect(client.version, &name);
                bytes.extend(subscribe(client.version, &name));
                for n in 0..5 {
                    bytes.extend(publish(client.version, &name, &[n]));
                }
                bytes
                    .chunks(record.min(bytes.len()))
                    .for_each(|record| client.send(record));
                client.with_packet(|packet| assert!(matches!(packet, Packet::ConnAck(_)), "{packet:?}"));
                // SUBACK waits for the other shard, and nothing else waits for it.
                let mut payloads = Vec::new();
                for _ in 0..6 {
                    client.with_packet(|packet| match packet {
                        Packet::Publish(publish) => payloads.extend_from_slice(publish.payload),
                        other => assert!(matches!(other, Packet::SubAck(_)), "{other:?}"),
                    });
                }
                assert_eq!(payloads, [0, 1, 2, 3, 4]);
            }
        }
    }
    let counters = broker.counters();
    assert!(counters.adopted > 0 && counters.handshakes == 36, "{counters:?}");
    broker.stop();
}

/// What the kernel does not take at once waits, encrypted, and leaves in order when the reader goes on.
fn a_large_packet_reaches_a_reader_that_stalls() {
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let broker = Broker::start(2, |config, engine| {
        config.listeners[0].tls = Some(tls);
        (engine.maximum_packet_size, engine.unsent_bytes_max) = (16 << 20, 16 << 20);
    });
    let payload: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
    for version in VERSIONS {
        let config = authority.client(version, None);
        let mut reader = TlsClient::connect(broker.address, &config, "reads");
        reader.send(&subscribe(reader.version, "large"));
        reader.with_packet(|packet| assert!(matches!(packet, Packet::SubAck(_))));
        let mut writer = TlsClient::connect(broker.address, &config, "writes");
        let short = broker.counters().short_sends;
        writer.send(&publish(writer.version, "large", &payload));
        broker.wait_until("a short send", |counters| counters.short_sends > short);
        expect_publish(&mut reader, "large", &payload);
        // The engine hears that it has room again.
        reader.ping();
        writer.send(&publish(writer.version, "large", b"behind it"));
        expect_publish(&mut reader, "large", b"behind it");
    }
    broker.stop();
}

/// The end of a connection is said in TLS, behind the last packet, and the client's own is answered.
fn the_end_is_said_in_order() {
    let authority = Authority::new("authority");
    let broker = start(1, &authority.server(&authority.issue("broker", 1), None));
    for version in VERSIONS {
        let config = authority.client(version, None);
        // One that breaks a rule is told so; without the end in TLS, reading on would be an error.
        let mut client = TlsClient::connect(broker.address, &config, "ends");
        client.send(&[0xff, 0]);
        client.with_packet(|packet| assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}"));
        assert_eq!(client.tls.read(&mut [0]).unwrap(), 0);
        let mut client = TlsClient::connect(broker.address, &config, "ends");
        client.send(&disconnect(client.version));
        assert_eq!(client.tls.read(&mut [0]).unwrap(), 0);
        let mut client = TlsClient::connect(broker.address, &config, "ends");
        client.tls.conn.send_close_notify();
        client.tls.flush().unwrap();
        assert_eq!(client.tls.read(&mut [0]).unwrap(), 0);
    }
    broker.wait_until("the ends", |counters| counters.connections == 0);
    broker.stop();
}

/// Whoever asks for something and ends the connection in one go gets the answer and the end, in this order: of TLS, and of
/// WebSocket by its own wish or by a broken rule.
fn an_answer_and_the_end_leave_in_one_turn() {
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let rules = Arc::new(WebSocketRules::default());
    let broker = start(1, &tls);
    for version in VERSIONS {
        let mut client = TlsClient::connect(broker.address, &authority.client(version, None), "ends");
        client.tls.conn.writer().write_all(&[0xc0, 0]).unwrap();
        client.tls.conn.send_close_notify();
        client.tls.flush().unwrap();
        client.with_packet(|packet| assert!(matches!(packet, Packet::PingResp), "{packet:?}"));
        assert_eq!(client.tls.read(&mut [0]).unwrap(), 0);
    }
    broker.stop();
    let broker = Broker::start(1, |config, _| config.listeners[0].protocol = Protocol::WebSocket(rules));
    for (last, code) in [
        (frame(0x88, &[3, 0xe9]), [3, 0xe9]),
        (frame(0x82, &[]), [3, 0xe8]),
        (frame(0x81, b"text"), [3, 0xeb]),
        (frame(0x83, b""), [3, 0xea]),
    ] {
        let mut stream = TcpStream::connect(broker.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(&[UPGRADE, &frame(0x82, &connect(ProtocolVersion::V311, "ends"))].concat())
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\x82\x04\x20\x02\0\0") {
            let mut bytes = [0; 4_096];
            let n = stream.read(&mut bytes).unwrap();
            assert!(n > 0, "{answer:?}");
            answer.extend_from_slice(&bytes[..n]);
        }
        let mqtt = [frame(0x82, &[0xc0, 0]), last];
        let end: &[u8] = if code == [3, 0xe8] { &[0xe0, 0] } else { &[] };
        stream.write_all(&[mqtt.concat(), frame(0x82, end)].concat()).unwrap();
        answer.clear();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [&b"\x82\x02\xd0\0\x88\x02"[..], &code].concat());
    }
    broker.stop();
}

/// A peer may ask for new keys between what it sends, and is answered once for all that it asked in one go; whoever does nothing
/// but ask goes.
fn keys_that_change_all_the_time_are_answered_once() {
    const ROUNDS: u64 = 100;
    let authority = Authority::new("authority");
    let broker = start(1, &authority.server(&authority.issue("broker", 1), None));
    let mut client = TlsClient::connect(broker.address, &authority.client(VERSIONS[1], None), "changes");
    let before = broker.counters().bytes_out;
    for _ in 0..ROUNDS {
        for _ in 0..30 {
            client.tls.conn.refresh_traffic_keys().unwrap();
        }
        client.ping();
    }
    let answered = broker.counters().bytes_out - before;
    assert!(answered < ROUNDS * 100, "{answered} bytes");
    for _ in 0..1_000 {
        client.tls.conn.refresh_traffic_keys().unwrap();
    }
    assert_ne!(client.refusal(), "");
    broker.wait_until("its end", |counters| counters.connections == 0);
    broker.stop();
}

/// Lets everybody in, a turn later.
struct Porter;

impl Observer for Porter {
    fn event(&mut self, _: &Event, _: Option<Source>) {}

    fn notice(&mut self, _: Notice<'_>) {}

    fn auth(&mut self, _: AuthRequest, _: Applicant<'_>, reply: AuthReply) {
        reply.answer(AuthOutcome::Accepted);
    }
}

/// Whoever says all it has to say at once, and the end in TLS or WebSocket right behind it, has said all of it: its PUBLISH
/// arrives and its Will does not, though its connection moves home before, or somebody is asked about it first.
fn an_end_right_behind_the_last_packet_loses_nothing() {
    const VERSION: ProtocolVersion = ProtocolVersion::V5;
    crate::support::keep_shards();
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let rules = |ask: bool| ListenerRules {
        allow_anonymous: !ask,
        ask,
        named: false,
    };
    for (has_tls, has_websocket, asks) in [
        (true, false, false),
        (true, false, true),
        (false, true, false),
        (false, true, true),
        (true, true, false),
    ] {
        let broker = Broker::start_observed(
            2,
            |_| Porter,
            |config, engine| {
                config.listeners.push(config.listeners[0].clone());
                config.listeners[0].tls = has_tls.then(|| tls.clone());
                if has_websocket {
                    config.listeners[0].protocol = Protocol::WebSocket(Arc::default());
                }
                engine.listeners = vec![rules(asks), rules(false)];
            },
        );
        let ListenAddr::Tcp(plain) = broker.shards().addresses()[1] else {
            panic!("no TCP address")
        };
        let mut reader = Client::connect(plain, VERSION, "reader");
        reader.subscribe("#");
        for (n, shard) in (0..12).map(|n| (n, n % 2)) {
            let name = names_at_home("leaves", shard).nth(usize::from(n)).unwrap();
            let mut mqtt = connect_with_will(VERSION, &name);
            mqtt.extend(publish(VERSION, &name, b"last words"));
            mqtt.extend(disconnect(VERSION));
            let config = has_tls.then(|| authority.client(VERSIONS[usize::from(n / 2 % 2)], None));
            let mut stream = say_all_at_once(broker.address, config.as_ref(), has_websocket, mqtt);
            reader.expect_publish(&name, b"last words");
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
        broker.wait_until("the ends", |counters| counters.connections == 1);
        // Behind all that would have been said of them.
        reader.send(&publish(VERSION, "sentinel", b""));
        reader.expect_publish("sentinel", b"");
        drop(reader);
        broker.stop();
    }
}

/// Sends MQTT, and the end of WebSocket and of TLS behind it, in one piece.
fn say_all_at_once(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    has_websocket: bool,
    mqtt: Vec<u8>,
) -> TcpStream {
    let mut bytes = mqtt;
    if has_websocket {
        bytes = [UPGRADE, &frame(0x82, &bytes), &frame(0x88, &[3, 0xe8])].concat();
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    if let Some(config) = tls {
        let mut client = TlsClient::open(address, config);
        client.shake_hands();
        client.tls.conn.writer().write_all(&bytes).unwrap();
        client.tls.conn.send_close_notify();
        bytes = Vec::new();
        while client.tls.conn.wants_write() {
            client.tls.conn.write_tls(&mut bytes).unwrap();
        }
        stream = client.tls.sock;
    }
    stream.write_all(&bytes).unwrap();
    stream
}

/// Whoever sends faster than it may, says that it leaves, and ends its input behind that is heard to the end, however often
/// it has to wait before: all that it published arrives, and its Will does not.
fn an_end_behind_what_waits_for_a_rate_comes_after_it() {
    const VERSION: ProtocolVersion = ProtocolVersion::V5;
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let slow = ListenerLimits {
        rates: Rates {
            messages_max: NonZeroU32::new(50),
            bytes_max: None,
        },
        ..ListenerLimits::default()
    };
    for (has_tls, has_websocket) in [(false, false), (true, false), (false, true), (true, true)] {
        let broker = Broker::start(2, |config, _| {
            config.listeners.push(config.listeners[0].clone());
            config.listeners[0].tls = has_tls.then(|| tls.clone());
            if has_websocket {
                config.listeners[0].protocol = Protocol::WebSocket(Arc::default());
            }
            config.limits.listeners = vec![slow, ListenerLimits::default()];
        });
        let ListenAddr::Tcp(plain) = broker.shards().addresses()[1] else {
            panic!("no TCP address")
        };
        let mut reader = Client::connect(plain, VERSION, "reader");
        reader.subscribe("#");
        let mut mqtt = connect_with_will(VERSION, "hasty");
        for n in 0..25_u8 {
            mqtt.extend(publish(VERSION, "word", &[n]));
        }
        mqtt.extend(disconnect(VERSION));
        let config = has_tls.then(|| authority.client(VERSIONS[0], None));
        let mut stream = say_all_at_once(broker.address, config.as_ref(), has_websocket, mqtt);
        stream.shutdown(Shutdown::Write).unwrap();
        for n in 0..25_u8 {
            reader.expect_publish("word", &[n]);
        }
        stream.read_to_end(&mut Vec::new()).unwrap();
        broker.wait_until("the end", |counters| counters.connections == 1);
        // Behind all that would have been said of it.
        reader.send(&publish(VERSION, "sentinel", b""));
        reader.expect_publish("sentinel", b"");
        drop(reader);
        broker.stop();
    }
}

/// A part of a record is not held for as long as its peer likes, though it came with the CONNECT that lets it in, here or on
/// another shard.
fn a_record_that_does_not_arrive_whole_in_time_ends_its_connection() {
    crate::support::keep_shards();
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let broker = Broker::start(2, |config, _| {
        config.listeners[0].tls = Some(tls);
        config.frame_time_max = Duration::from_millis(200);
    });
    let mut ended = 0;
    for version in VERSIONS {
        for name in [0, 1]
            .into_iter()
            .flat_map(|shard| names_at_home("half", shard).take(3))
        {
            let mut client = TlsClient::open(broker.address, &authority.client(version, None));
            client.shake_hands();
            let mut bytes = Vec::new();
            for mqtt in [
                connect(client.version, &name),
                publish(client.version, "half", b"never whole"),
            ] {
                client.tls.conn.writer().write_all(&mqtt).unwrap();
                while client.tls.conn.wants_write() {
                    client.tls.conn.write_tls(&mut bytes).unwrap();
                }
            }
            bytes.pop();
            client.tls.sock.write_all(&bytes).unwrap();
            client.with_packet(|packet| assert!(matches!(packet, Packet::ConnAck(_)), "{packet:?}"));
            ended += 1;
            broker.wait_until("its end", |counters| counters.frame_timeouts == ended);
        }
    }
    broker.stop();
}

/// A CONNECT of a client that is somebody and has a Will.
fn connect_with_will(version: ProtocolVersion, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Connect {
        username: Some("somebody"),
        will: Some(Will {
            topic: TopicName::new("will").unwrap(),
            payload: b"unwanted",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: WillProperties::default(),
        }),
        ..Connect::new(version, name)
    }
    .encode(version, &mut bytes);
    bytes
}

/// Writes down what is noticed, and who was let in.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Notes {
    fn event(&mut self, event: &Event, _: Option<Source>) {
        if let Event::Connected { username, .. } = event {
            self.0.lock().unwrap().push(format!("connected {username:?}"));
        }
    }

    fn notice(&mut self, notice: Notice<'_>) {
        self.0.lock().unwrap().push(match notice {
            Notice::TlsOnPlain(_) => "TLS on plain".to_owned(),
            Notice::PlainOnTls(_) => "plain on TLS".to_owned(),
            Notice::HandshakeFailed { why, .. } | Notice::NoName { why, .. } => why.to_owned(),
            other => format!("{other:?}"),
        });
    }

    fn auth(&mut self, _: AuthRequest, _: Applicant<'_>, _: AuthReply) {}
}

fn start_noting(change: impl FnOnce(&mut TransportConfig, &mut EngineConfig)) -> (Broker, Notes) {
    let notes = Notes::default();
    let observer = notes.clone();
    (Broker::start_observed(1, move |_| observer.clone(), change), notes)
}

/// Who has no certificate, one of nobody's, or one that was revoked is refused, and both sides hear why; who has a good one
/// comes in.
fn clients_need_a_certificate_that_is_not_revoked() {
    let (authority, other) = (Authority::new("authority"), Authority::new("another"));
    let tls = authority.server(&authority.issue("broker", 1), Some(3));
    let (broker, notes) = start_noting(|config, _| config.listeners[0].tls = Some(tls));
    for version in VERSIONS {
        let (good, revoked, foreign) = (
            authority.issue("good", 2),
            authority.issue("revoked", 3),
            other.issue("foreign", 4),
        );
        let mut client = TlsClient::connect(broker.address, &authority.client(version, Some(&good)), "good");
        client.ping();
        for (identity, why, alert) in [
            (
                None,
                "it has no certificate, and one is required",
                ["CertificateRequired", "HandshakeFailure"],
            ),
            (Some(&revoked), "its certificate is revoked", ["CertificateRevoked"; 2]),
            (
                Some(&foreign),
                "no known authority has issued its certificate",
                ["UnknownCA"; 2],
            ),
        ] {
            notes.take();
            let mut client = TlsClient::open(broker.address, &authority.client(version, identity));
            let refusal = client.refusal();
            assert!(alert.iter().any(|alert| refusal.contains(alert)), "{refusal}");
            assert_eq!(notes.take(), [why]);
        }
    }
    assert_eq!(broker.counters().handshakes_failed, 6);
    broker.stop();
}

/// With names from certificates that is the User Name, no Password is asked for, and who has none is refused in CONNACK.
fn a_certificate_may_say_who_a_client_is() {
    let authority = Authority::new("authority");
    let mut tls = authority.server(&authority.issue("broker", 1), Some(9));
    tls.name_of = Some(Arc::new(|certificates| match certificates {
        [own, ..] if own.len() > 100 && own.windows(4).any(|four| four == b"jill") => Ok("jill".to_owned()),
        _ => Err("its certificate has no name".to_owned()),
    }));
    let (broker, notes) = start_noting(|config, engine| {
        config.listeners[0].tls = Some(tls);
        engine.listeners = vec![ListenerRules {
            allow_anonymous: false,
            ask: true,
            named: true,
        }];
    });
    let config = authority.client(VERSIONS[1], Some(&authority.issue("jill", 2)));
    TlsClient::connect(broker.address, &config, "named").ping();
    assert_eq!(notes.take(), ["connected Some(\"jill\")"]);
    let config = authority.client(VERSIONS[1], Some(&authority.issue("jack", 3)));
    let mut client = TlsClient::open(broker.address, &config);
    client.send(&connect(client.version, "nameless"));
    client.with_packet(|packet| match packet {
        Packet::ConnAck(connack) => assert_eq!(connack.reason_code, sol_codec::ReasonCode::BadUserNameOrPassword),
        other => panic!("no CONNACK: {other:?}"),
    });
    assert_eq!(notes.take(), ["its certificate has no name"]);
    broker.stop();
}

/// Who was there before needs no full handshake, whichever shard it comes to.
fn a_session_of_tls_is_resumed_on_every_shard() {
    let authority = Authority::new("authority");
    let broker = start(2, &authority.server(&authority.issue("broker", 1), None));
    for version in VERSIONS {
        let config = authority.client(version, None);
        for round in 0..8 {
            let mut client = TlsClient::connect(broker.address, &config, "comes again");
            let expected = if round == 0 {
                HandshakeKind::Full
            } else {
                HandshakeKind::Resumed
            };
            client.ping();
            assert_eq!(client.tls.conn.handshake_kind(), Some(expected), "{version:?} {round}");
        }
    }
    broker.stop();
}

/// A new certificate is shown to those who come later, and nobody who is there is disturbed.
fn another_certificate_is_for_those_who_come_later() {
    let (old, new) = (Authority::new("authority"), Authority::new("another"));
    let broker = start(2, &old.server(&old.issue("broker", 1), None));
    let (trusts_old, trusts_new) = (old.client(VERSIONS[1], None), new.client(VERSIONS[1], None));
    let mut early = TlsClient::connect(broker.address, &trusts_old, "early");
    broker
        .shards()
        .handle()
        .change_tls(ListenerId(0), new.server(&new.issue("broker", 1), None));
    // A round trip through every shard.
    broker.counters();
    for _ in 0..4 {
        TlsClient::connect(broker.address, &trusts_new, "late").ping();
        let refusal = TlsClient::open(broker.address, &trusts_old).refusal();
        assert!(refusal.contains("UnknownIssuer"), "{refusal}");
    }
    early.ping();
    broker.stop();
}

/// Each of two who do not understand each other is closed at once, with a notice that says what was wrong.
fn who_speaks_something_else_is_closed_with_one_notice() {
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let (broker, notes) = start_noting(|config, _| config.listeners[0].tls = Some(tls));
    let mut client = Client::open(broker.address, ProtocolVersion::V5);
    client.send(&connect(ProtocolVersion::V5, "plain"));
    client.expect_cut();
    assert_eq!(notes.take(), ["plain on TLS"]);
    // A ClientHello of TLS 1.0, as OpenSSL writes it.
    let hello = [
        0x16, 3, 1, 0, 0x2d, 1, 0, 0, 0x29, 3, 1, //
        1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, //
        0, 0, 2, 0xc0, 0x09, 1, 0,
    ];
    let mut old = TcpStream::connect(broker.address).unwrap();
    old.set_read_timeout(Some(PATIENCE)).unwrap();
    old.write_all(&hello).unwrap();
    let mut alert = Vec::new();
    old.read_to_end(&mut alert).unwrap();
    // A fatal alert (RFC 8446, section 6).
    assert!(
        alert.len() == 7 && alert[..2] == [0x15, 3] && alert[5] == 2,
        "{alert:?}"
    );
    let said = notes.take();
    assert!(
        said.len() == 1 && said[0].contains("TLS 1.0 and 1.1 are not"),
        "{said:?}"
    );
    broker.stop();
    let (broker, notes) = start_noting(|_, _| ());
    let refusal = TlsClient::open(broker.address, &authority.client(VERSIONS[1], None)).refusal();
    assert!(!refusal.is_empty());
    assert_eq!(notes.take(), ["TLS on plain"]);
    broker.stop();
}

/// Whoever goes while it shakes hands, by a reset or in order, is forgotten with all that was held of it.
fn who_ends_in_the_middle_of_a_handshake_leaves_nothing() {
    let authority = Authority::new("authority");
    let broker = start(2, &authority.server(&authority.issue("broker", 1), None));
    let config = authority.client(VERSIONS[1], None);
    let hello = {
        let mut client = TlsClient::open(broker.address, &config);
        let mut hello = Vec::new();
        client.tls.conn.write_tls(&mut hello).unwrap();
        hello
    };
    for len in [1, 5, 6, 100, hello.len() - 1, hello.len()] {
        for resets in [false, true] {
            let mut stream = TcpStream::connect(broker.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&hello[..len]).unwrap();
            if resets {
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            } else {
                stream.shutdown(Shutdown::Write).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    }
    broker.wait_until("the end of all", |counters| {
        counters.connections == 0 && counters.unauthenticated == 0 && counters.held_bytes == 0
    });
    broker.stop();
}

/// Whoever holds more than may be held of those who were not let in goes, though its handshake is at its end just then; the
/// engine does not hear of it.
fn who_is_evicted_while_it_agrees_is_not_let_in() {
    let authority = Authority::new("authority");
    let tls = authority.server(&authority.issue("broker", 1), None);
    let broker = Broker::start(1, |config, _| {
        config.listeners[0].tls = Some(tls);
        config.unauthenticated_bytes_max = 8 << 10;
    });
    let config = authority.client(VERSIONS[1], None);
    let mut client = TlsClient::open(broker.address, &config);
    let (connection, socket) = (&mut client.tls.conn, &mut client.tls.sock);
    connection.write_tls(socket).unwrap();
    while connection.is_handshaking() {
        connection.read_tls(socket).unwrap();
        connection.process_new_packets().unwrap();
    }
    // What ends the handshake, and most of a record.
    connection.writer().write_all(&[0; 12_000]).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes.pop();
    socket.write_all(&bytes).unwrap();
    broker.wait_until("its end", |counters| counters.connections == 0);
    let counters = broker.counters();
    assert_eq!((counters.evicted, counters.handshakes, counters.held_bytes), (1, 0, 0));
    broker.stop();
}

/// More handshakes than a turn has time for wait for the next ones; everybody comes in, and nobody is evicted.
fn a_crowd_that_shakes_hands_at_once_comes_in() {
    const CROWD: usize = 150;
    let authority = Authority::new("authority");
    let broker = start(1, &authority.server(&authority.issue("broker", 1), None));
    let config = authority.client(VERSIONS[1], None);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| TlsClient::open(broker.address, &config)).collect();
    for client in &mut crowd {
        while client.tls.conn.wants_write() {
            client.tls.conn.write_tls(&mut client.tls.sock).unwrap();
        }
    }
    for (n, client) in crowd.iter_mut().enumerate() {
        client.send(&connect(client.version, &format!("crowd {n}")));
    }
    for client in &mut crowd {
        client.with_packet(|packet| assert!(matches!(packet, Packet::ConnAck(_)), "{packet:?}"));
    }
    let counters = broker.counters();
    assert_eq!((counters.handshakes, counters.evicted), (CROWD as u64, 0));
    drop(crowd);
    broker.wait_until("the end of all", |counters| counters.connections == 0);
    broker.stop();
}

/// The engine does not know who shakes hands, and the broker stops all the same.
fn a_stop_ends_those_who_still_shake_hands() {
    let authority = Authority::new("authority");
    let broker = start(2, &authority.server(&authority.issue("broker", 1), None));
    let mut stream = TcpStream::connect(broker.address).unwrap();
    stream.write_all(&[0x16, 3, 1]).unwrap();
    broker.wait_until("its first bytes", |counters| counters.held_bytes > 0);
    broker.stop();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
}

/// A client's request for a WebSocket.
const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A client's frame that begins with `first`, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = match u8::try_from(payload.len()) {
        Ok(len @ ..=125) => vec![first, 0x80 | len],
        _ => {
            let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
            vec![first, 0x80 | 126, high, low]
        }
    };
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// MQTT in WebSocket frames comes in and goes out, moves home with what was pipelined, and ends with a Close.
fn mqtt_over_websocket() {
    crate::support::keep_shards();
    let rules = Arc::new(WebSocketRules::default());
    let broker = Broker::start(2, |config, _| config.listeners[0].protocol = Protocol::WebSocket(rules));
    for shard in 0..2 {
        for name in names_at_home("web", shard).take(4) {
            web_client(broker.address, &name);
        }
    }
    broker.wait_until("the end of all", |counters| counters.connections == 0);
    assert!(broker.counters().adopted > 0);
    broker.stop();
}

fn web_client(address: SocketAddr, name: &str) {
    const VERSION: ProtocolVersion = ProtocolVersion::V311;
    let message = |bytes: &[u8]| frame(0x82, bytes);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = UPGRADE.to_vec();
    bytes.extend(message(&connect(VERSION, name)));
    bytes.extend(message(&crate::support::subscribe_at(VERSION, name, QoS::AtMostOnce)));
    bytes.extend(message(&publish(VERSION, name, b"payload")));
    stream.write_all(&bytes).unwrap();
    let expected = publish(VERSION, name, b"payload");
    let (mut answer, mut mqtt) = (Vec::new(), Vec::new());
    // CONNACK, SUBACK, which waits for the other shard, and the message.
    while mqtt.len() < 4 + 5 + expected.len() {
        let mut bytes = [0; 4_096];
        let n = stream.read(&mut bytes).unwrap();
        assert!(n > 0, "{answer:?}");
        answer.extend_from_slice(&bytes[..n]);
        (mqtt, _) = unframed(&answer);
    }
    assert!(mqtt.starts_with(b"\x20\x02\0\0"));
    assert!(mqtt.windows(expected.len()).any(|part| part == expected), "{mqtt:?}");
    stream.write_all(&message(&disconnect(VERSION))).unwrap();
    stream.read_to_end(&mut answer).unwrap();
    let (_, rest) = unframed(&answer);
    assert_eq!(rest, [0x88, 2, 3, 0xe8], "the Close stands last");
}

/// The payloads of the frames behind an answer that grants a WebSocket, and what is behind them.
fn unframed(answer: &[u8]) -> (Vec<u8>, &[u8]) {
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return (Vec::new(), &[]);
    };
    let (mut mqtt, mut rest) = (Vec::new(), &answer[at + 4..]);
    while let [0x82, len, behind @ ..] = rest
        && behind.len() >= usize::from(*len)
    {
        let (payload, behind) = behind.split_at(usize::from(*len));
        mqtt.extend_from_slice(payload);
        rest = behind;
    }
    (mqtt, rest)
}
