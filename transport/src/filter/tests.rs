//! A filter and a client of rustls on both sides of a stream of bytes that is cut anywhere.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::*;
use crate::listener::{ListenAddr, Tls};
use crate::websocket::WebSocketRules;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn listener(config: &Arc<ServerConfig>, protocol: Protocol) -> ListenerConfig {
    let mut listener = ListenerConfig::new(ListenAddr::Unix("none".into()));
    listener.tls = Some(Tls {
        config: Arc::clone(config),
        name_of: None,
    });
    listener.protocol = protocol;
    listener
}

/// The filter of a connection, and what came of it.
struct Side {
    filter: Box<Filter>,
    listener: ListenerConfig,
    mqtt: Vec<u8>,
    opened: usize,
    ends: Vec<String>,
    output: Output,
}

impl Side {
    fn new(listener: ListenerConfig) -> Self {
        Self {
            filter: Filter::new(&listener).unwrap(),
            listener,
            mqtt: Vec::new(),
            opened: 0,
            ends: Vec::new(),
            output: Output::default(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.receive_at(Instant::default(), bytes);
    }

    fn receive_at(&mut self, now: Instant, bytes: &[u8]) {
        let (mut plain, mut said) = (Vec::new(), Said::default());
        let mut bytes = bytes.to_vec();
        let received = self
            .filter
            .receive(&mut bytes, &self.listener, now, &mut plain, &mut said);
        self.mqtt.extend_from_slice(received.mqtt);
        self.opened += usize::from(received.opened);
        self.ends.extend(received.end.map(|end| match end {
            End::Closed => "closed".to_owned(),
            End::Answered => "answered".to_owned(),
            End::Fault(fault) => fault.to_string(),
        }));
        self.filter.say(&mut said, &mut self.output);
    }

    /// What is to be sent now.
    fn take(&mut self) -> Vec<u8> {
        assert!(self.filter.seal(&mut self.output, &mut Vec::new()));
        let bytes = mem::take(&mut self.output).bytes;
        self.output = Output::default();
        bytes
    }
}

/// Lets both sides speak until neither has more to say; what the client says comes in pieces of so many bytes. Gives what
/// the client was told.
fn talk(client: &mut ClientConnection, side: &mut Side, piece: usize) -> Vec<u8> {
    let mut told = Vec::new();
    loop {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).unwrap();
        }
        said.chunks(piece).for_each(|piece| side.receive(piece));
        let answer = side.take();
        if said.is_empty() && answer.is_empty() {
            return told;
        }
        let mut answer = &answer[..];
        while !answer.is_empty() && client.read_tls(&mut answer).unwrap() > 0 {
            // A fault is looked at by who expects one, and so is the end.
            let _ = client.process_new_packets();
            let _ = client.reader().read_to_end(&mut told);
        }
    }
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// However a client's bytes are cut, what it sent arrives once, whole and in order, what is sent to it too, and nothing is
/// held afterwards.
#[test]
fn records_may_be_cut_anywhere() {
    for version in VERSIONS {
        let (server, config) = configs(version);
        let stream: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        for piece in [1, 2, 3, 5, 7, 64, 1_000, 4_096, 16_411, 1 << 20] {
            let (mut client, mut side) = (client(&config), Side::new(listener(&server, Protocol::Mqtt)));
            // In the first flight behind the handshake already.
            talk(&mut client, &mut side, piece);
            assert_eq!((side.opened, client.is_handshaking()), (1, false));
            client.writer().write_all(&stream).unwrap();
            client.writer().write_all(b"end").unwrap();
            side.output.bytes.extend_from_slice(&stream);
            let told = talk(&mut client, &mut side, piece);
            assert_eq!(side.mqtt.len(), stream.len() + 3);
            assert!(side.mqtt.starts_with(&stream) && side.mqtt.ends_with(b"end"));
            assert!(told == stream);
            assert_eq!((side.filter.held_bytes(), side.filter.partial_since()), (0, None));
            assert_eq!(side.ends, [""; 0]);
        }
    }
}

/// One record after the other, cut at every place of it.
#[test]
fn a_record_may_be_cut_at_every_place() {
    for version in VERSIONS {
        let (server, config) = configs(version);
        let (mut client, mut side) = (client(&config), Side::new(listener(&server, Protocol::Mqtt)));
        talk(&mut client, &mut side, usize::MAX);
        let mut cut = 0;
        loop {
            client.writer().write_all(b"one").unwrap();
            client.writer().write_all(b"two").unwrap();
            let mut said = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut said).unwrap();
            }
            if cut > said.len() {
                break;
            }
            let (front, back) = said.split_at(cut);
            side.receive(front);
            assert_eq!(side.filter.partial_since().is_some(), side.filter.held_bytes() > 0);
            side.receive(back);
            assert_eq!(mem::take(&mut side.mqtt), b"onetwo", "cut at {cut}");
            cut += 1;
        }
        assert!(cut > 50);
    }
}

/// The time of a part of a record begins when it comes, with every record anew however segments cut them, and when its
/// peer is read again; more of the same record does not prolong it.
#[test]
fn a_record_has_its_own_time() {
    let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
    for version in VERSIONS {
        let (server, config) = configs(version);
        let (mut client, mut side) = (client(&config), Side::new(listener(&server, Protocol::Mqtt)));
        talk(&mut client, &mut side, usize::MAX);
        let mut said = Vec::new();
        for _ in 0..3 {
            client.writer().write_all(&[7; 1_000]).unwrap();
            while client.wants_write() {
                client.write_tls(&mut said).unwrap();
            }
        }
        let (record, offset) = (said.len() / 3, 100);
        side.receive_at(at(1), &said[..offset]);
        assert_eq!(side.filter.partial_since(), Some(at(1)));
        // The rest of one and a part of the next.
        for n in 1..=2 {
            side.receive_at(at(10 * n as u64), &said[offset + record * (n - 1)..offset + record * n]);
            assert_eq!(
                (side.mqtt.len(), side.filter.partial_since()),
                (1_000 * n, Some(at(10 * n as u64)))
            );
        }
        side.receive_at(at(30), &said[offset + 2 * record..said.len() - 1]);
        assert_eq!(side.filter.partial_since(), Some(at(20)));
        side.filter.begin_again(at(40));
        assert_eq!(side.filter.partial_since(), Some(at(40)));
        side.receive_at(at(50), &said[said.len() - 1..]);
        assert_eq!((side.mqtt.len(), side.filter.partial_since()), (3_000, None));
        side.filter.begin_again(at(60));
        assert_eq!(side.filter.partial_since(), None);
    }
}

/// What tells the peer the end stands behind all that was sent before, and is said once.
#[test]
fn the_end_is_said_last() {
    for version in VERSIONS {
        let (server, config) = configs(version);
        let (mut client, mut side) = (client(&config), Side::new(listener(&server, Protocol::Mqtt)));
        talk(&mut client, &mut side, usize::MAX);
        side.output.bytes.extend_from_slice(b"last words");
        for _ in 0..2 {
            side.filter.finish(&mut side.output, &mut Vec::new(), false);
        }
        side.output.bytes.extend_from_slice(b"too late");
        assert_eq!(talk(&mut client, &mut side, usize::MAX), b"last words");
        // In order: the end was said.
        assert_eq!(client.reader().read(&mut [0]).unwrap(), 0);
        client.send_close_notify();
        talk(&mut client, &mut side, 1);
        assert_eq!(side.ends, ["closed"]);
    }
}

/// A peer that is no client of TLS, one whose handshake does not end, and one that forges a record are each told apart;
/// the last is told.
#[test]
fn faults_have_sentences() {
    let (server, config) = configs(&rustls::version::TLS13);
    let new = || Side::new(listener(&server, Protocol::Mqtt));
    let mut side = new();
    side.receive(&[0x10, 0]);
    assert_eq!(side.ends, ["it speaks no TLS"]);
    let mut side = new();
    // A ClientHello of 60 KiB that does not come to its end.
    for _ in 0..30 {
        let mut record = vec![0x16, 3, 1, 4, 0, 1, 0, 0xf0, 0];
        record.resize(5 + 1_024, 0);
        side.receive(&record);
    }
    assert_eq!(
        side.ends.first().map(String::as_str),
        Some("a message of its handshake takes too many bytes")
    );
    assert!(side.filter.held_bytes() < 32 << 10);
    let expired = rustls::CertificateError::ExpiredRevocationListContext {
        time: UnixTime::since_unix_epoch(Duration::from_secs(2)),
        next_update: UnixTime::since_unix_epoch(Duration::from_secs(1)),
    };
    assert_eq!(
        Fault::from(rustls::Error::from(expired)).to_string(),
        "the list of revoked certificates (crlfile) is too old to judge its certificate by"
    );
    let (mut client, mut side) = (client(&config), new());
    talk(&mut client, &mut side, usize::MAX);
    let mut forged = vec![0x17, 3, 3, 0, 64];
    forged.resize(5 + 64, 7);
    side.receive(&forged);
    assert_eq!((side.ends.len(), side.take().is_empty()), (1, false), "{:?}", side.ends);
    side.output.bytes.extend_from_slice(b"never in the clear");
    assert_eq!(side.take(), b"");
}

/// Behind the handshake no more is held than the largest record takes, and a record has room as it comes.
#[test]
fn what_is_held_is_bounded_after_the_handshake() {
    for version in VERSIONS {
        let (server, config) = configs(version);
        let (mut client, mut side) = (client(&config), Side::new(listener(&server, Protocol::Mqtt)));
        talk(&mut client, &mut side, usize::MAX);
        client.writer().write_all(&[7; 16 << 10]).unwrap();
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).unwrap();
        }
        let last = said.pop().unwrap();
        for piece in said.chunks(1_000) {
            side.receive(piece);
            assert!(side.filter.held_bytes() <= 24 << 10);
        }
        assert!(matches!(side.filter.hold(&said, &side.listener), Err(Fault::LongTls)));
        side.receive(&[last]);
        assert_eq!((side.mqtt.len(), side.filter.held_bytes()), (16 << 10, 0));
        side.filter.hold(&said, &side.listener).unwrap();
        side.filter.forget_input();
        assert_eq!(side.filter.held_bytes(), 0);
    }
}

/// WebSocket inside of TLS: a message is as many bytes as it is plain, and an answer stands in its place between two.
#[test]
fn websocket_inside_of_tls() {
    let (server, config) = configs(&rustls::version::TLS13);
    let protocol = || Protocol::WebSocket(Arc::new(WebSocketRules::default()));
    for piece in [1, 3, 100, usize::MAX] {
        let (mut client, mut side) = (client(&config), Side::new(listener(&server, protocol())));
        client
            .writer()
            .write_all(
                b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n\
                  \x82\x85\0\0\0\0first",
            )
            .unwrap();
        let answer = talk(&mut client, &mut side, piece);
        assert_eq!((side.opened, &*side.mqtt, side.ends.len()), (1, &b"first"[..], 0));
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
        side.output.bytes.extend_from_slice(b"before");
        client
            .writer()
            .write_all(b"\x89\x81\0\0\0\0p\x82\x86\0\0\0\0second")
            .unwrap();
        let mut said = Vec::new();
        client.write_tls(&mut said).unwrap();
        said.chunks(piece.min(said.len())).for_each(|piece| side.receive(piece));
        side.output.bytes.extend_from_slice(b"behind");
        side.filter.finish(&mut side.output, &mut Vec::new(), true);
        let told = talk(&mut client, &mut side, piece);
        assert_eq!(side.mqtt, b"firstsecond");
        assert_eq!(told, b"\x82\x06before\x8a\x01p\x82\x06behind\x88\x02\x03\xe9");
    }
}

/// A peer that breaks TLS behind its request gets no file: nothing could be encrypted for it any more.
#[test]
fn a_fault_of_tls_behind_a_request_is_its_end() {
    let (server, config) = configs(&rustls::version::TLS13);
    let mut files = crate::websocket::Files::default();
    files.insert(b"/f", "text/plain", b"file".to_vec());
    let rules = WebSocketRules {
        files: Some(Arc::new(files)),
        ..WebSocketRules::default()
    };
    let protocol = Protocol::WebSocket(Arc::new(rules));
    for (behind, is_answered) in [
        (&b""[..], true),
        (b"\x17\x03\x03\x00\x20garbage, for a record of 32 bytes", false),
    ] {
        let (mut client, mut side) = (client(&config), Side::new(listener(&server, protocol.clone())));
        talk(&mut client, &mut side, usize::MAX);
        client
            .writer()
            .write_all(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let mut said = Vec::new();
        client.write_tls(&mut said).unwrap();
        said.extend_from_slice(behind);
        side.receive(&said);
        assert_eq!(side.ends.len(), 1);
        assert_eq!(side.ends == ["answered"], is_answered, "{:?}", side.ends);
    }
}
