//! The header of a proxy over real sockets, on both backends, beside what its reader's own tests prove of its bytes.

use std::io::Write;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sol_codec::{Packet, ProtocolVersion};
use sol_engine::{AuthRequest, Event};
use sol_transport::{Applicant, AuthReply, Notice, Observer, ProxyRules, ProxyVersion, Source};

use crate::authority::{Authority, TlsClient, VERSIONS};
use crate::support::{Broker, Client, connect, names_at_home, publish, subscribe};

on_each_backend! {
    a_client_is_where_its_proxy_says
    a_header_in_single_bytes_is_a_header
    behind_a_header_there_is_tls
    without_a_header_nobody_comes_in
    who_is_not_believed_is_closed_unread
    behind_a_proxy_the_number_of_an_address_is_its_clients
    a_header_that_does_not_come_is_waited_for_no_longer_than_connect
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 50123 1883\r\n";

fn rules(version: ProxyVersion) -> ProxyRules {
    ProxyRules {
        version,
        trusts: Arc::new(|address| address.is_loopback()),
        requires_tls: false,
        names_clients: false,
    }
}

/// Hears where clients come from, and why others do not.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Observer for Heard {
    fn event(&mut self, event: &Event, source: Option<Source>) {
        if let (Event::Connected { client_id, .. }, Some(source)) = (event, source) {
            self.0.lock().unwrap().push(format!("{client_id} {}", source.peer));
        }
    }

    fn notice(&mut self, notice: Notice<'_>) {
        let said = match notice {
            Notice::ProxyFailed { why, .. } => why.to_owned(),
            Notice::NoProxy(_) => "no proxy".to_owned(),
            Notice::ConnectTimeout(_) => "timeout".to_owned(),
            _ => return,
        };
        self.0.lock().unwrap().push(said);
    }

    fn auth(&mut self, _: AuthRequest, _: Applicant<'_>, _: AuthReply) {}
}

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn start(heard: &Heard, rules: ProxyRules) -> Broker {
    Broker::start_observed(
        2,
        |_| heard.clone(),
        |config, _| config.listeners[0].proxy = Some(rules),
    )
}

/// Header, CONNECT and what follows may come in one segment: all of it is served, and the client is where the header says on
/// whichever shard it is at home.
fn a_client_is_where_its_proxy_says() {
    crate::support::keep_shards();
    let heard = Heard::default();
    let broker = start(&heard, rules(ProxyVersion::V1));
    for shard in [0, 1] {
        for name in names_at_home("behind", shard).take(10) {
            let version = ProtocolVersion::V5;
            let mut client = Client::open(broker.address, version);
            let mut bytes = LINE.to_vec();
            bytes.extend(connect(version, &name));
            bytes.extend(subscribe(version, &name));
            bytes.extend(publish(version, &name, b"x"));
            client.send(&bytes);
            client.expect_connack();
            client.with_packet(|packet| assert!(matches!(packet, Packet::SubAck(_) | Packet::Publish(_))));
            client.with_packet(|packet| assert!(matches!(packet, Packet::SubAck(_) | Packet::Publish(_))));
            assert_eq!(heard.take(), [format!("{name} 192.0.2.7:50123")]);
        }
    }
    assert!(broker.counters().adopted > 0);
    broker.stop();
}

/// A header may come in as many segments as it has bytes, CONNECT right behind it, and nothing of it stays charged.
fn a_header_in_single_bytes_is_a_header() {
    let heard = Heard::default();
    let broker = start(&heard, rules(ProxyVersion::V1));
    let mut client = Client::open(broker.address, ProtocolVersion::V311);
    for byte in LINE {
        client.send(&[*byte]);
    }
    client.send(&connect(ProtocolVersion::V311, "drips"));
    client.expect_connack();
    client.ping();
    assert_eq!(heard.take(), ["drips 192.0.2.7:50123"]);
    let counters = broker.counters();
    assert_eq!((counters.held_bytes, counters.unauthenticated), (0, 0));
    broker.stop();
}

/// A header is taken off before TLS begins, in the same segment or not.
fn behind_a_header_there_is_tls() {
    let authority = Authority::new("authority");
    let heard = Heard::default();
    let server = authority.server(&authority.issue("broker", 1), None);
    let broker = Broker::start_observed(
        2,
        |_| heard.clone(),
        |config, _| {
            config.listeners[0].tls = Some(server);
            config.listeners[0].proxy = Some(rules(ProxyVersion::V1));
        },
    );
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let mut client = TlsClient::open(broker.address, &authority.client(version, None));
        client.tls.sock.write_all(LINE).unwrap();
        let name = format!("behind-tls-{index}");
        client.send(&connect(client.version, &name));
        client.with_packet(|packet| assert!(matches!(packet, Packet::ConnAck(_)), "{packet:?}"));
        assert_eq!(heard.take(), [format!("{name} 192.0.2.7:50123")]);
    }
    broker.stop();
}

/// Whoever begins with anything but a header of the version that is demanded, or with a malformed one, is closed without an
/// answer, counted, and told why; and so is who has not come by TLS where that is demanded.
fn without_a_header_nobody_comes_in() {
    let heard = Heard::default();
    let missing = "it begins with no PROXY header of the version that this listener demands";
    let unencrypted = "it has not come to its proxy by TLS";
    let v2 = ProxyRules {
        requires_tls: true,
        ..rules(ProxyVersion::V2)
    };
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let cases: [(ProxyRules, &[u8], &str); 5] = [
        (rules(ProxyVersion::V1), &connect(ProtocolVersion::V5, "bare"), missing),
        (rules(ProxyVersion::V1), local, missing),
        (
            rules(ProxyVersion::V1),
            b"PROXY TCP4 nowhere\r\n",
            "its PROXY line is malformed",
        ),
        (rules(ProxyVersion::V2), LINE, missing),
        (v2, local, unencrypted),
    ];
    for (rules, bytes, why) in cases {
        let broker = start(&heard, rules);
        let mut client = Client::open(broker.address, ProtocolVersion::V5);
        client.send(bytes);
        client.expect_no_more();
        broker.wait_until("a refusal", |counters| {
            counters.proxy_refused == 1 && counters.connections == 0
        });
        assert_eq!(heard.take(), [why]);
        broker.stop();
    }
}

/// Who is none of the proxies that are believed is closed before a byte is read, however good its header is.
fn who_is_not_believed_is_closed_unread() {
    let heard = Heard::default();
    let strangers = ProxyRules {
        trusts: Arc::new(|_| false),
        ..rules(ProxyVersion::V1)
    };
    let broker = start(&heard, strangers);
    let mut client = Client::open(broker.address, ProtocolVersion::V5);
    // It may be closed before or after.
    let _ = client.stream.write_all(LINE);
    client.expect_no_more();
    broker.wait_until("a refusal", |counters| counters.proxy_refused == 1);
    assert_eq!(
        (heard.take(), broker.counters().bytes_in),
        (vec!["no proxy".to_owned()], 0)
    );
    broker.stop();
}

/// A header shares the time of CONNECT: who sends a part of it, or it and no CONNECT, is closed when that is over.
fn a_header_that_does_not_come_is_waited_for_no_longer_than_connect() {
    let heard = Heard::default();
    let broker = Broker::start_observed(
        2,
        |_| heard.clone(),
        |config, _| {
            config.listeners[0].proxy = Some(rules(ProxyVersion::V1));
            config.connect_time_max = Duration::from_millis(300);
        },
    );
    for part in [&LINE[..9], LINE] {
        let mut client = Client::open(broker.address, ProtocolVersion::V5);
        client.send(part);
        client.expect_no_more();
        broker.wait_until("nothing held", |counters| {
            counters.connections == 0 && counters.held_bytes == 0
        });
        assert_eq!(heard.take(), ["timeout"]);
    }
    assert_eq!(broker.counters().connect_timeouts, 2);
    broker.stop();
}

/// Behind a proxy it is the client's address that has its number of connections: one client does not use up the proxy's, a
/// connection whose header has not come or is wrong takes no place, and each gives back what it took.
fn behind_a_proxy_the_number_of_an_address_is_its_clients() {
    const VERSION: ProtocolVersion = ProtocolVersion::V5;
    let heard = Heard::default();
    let broker = Broker::start_observed(
        2,
        |_| heard.clone(),
        |config, _| {
            config.listeners[0].proxy = Some(rules(ProxyVersion::V1));
            config.limits.all.per_address_max = NonZeroU32::new(2);
        },
    );
    let open = |address: &str, name: &str| {
        let mut client = Client::open(broker.address, VERSION);
        let mut bytes = format!("PROXY TCP4 {address} 192.0.2.1 50123 1883\r\n").into_bytes();
        bytes.extend(connect(VERSION, name));
        client.send(&bytes);
        client
    };
    let mut silent: Vec<_> = (0..5).map(|_| Client::open(broker.address, VERSION)).collect();
    let mut wrong = Client::open(broker.address, VERSION);
    wrong.send(b"PROXY NOBODY 192.0.2.7\r\n");
    wrong.expect_cut();
    for round in 1..=3 {
        let mut inside = [
            ("192.0.2.7", "a"),
            ("192.0.2.7", "b"),
            ("192.0.2.8", "c"),
            ("192.0.2.8", "d"),
        ]
        .map(|(address, name)| open(address, name));
        inside.iter_mut().for_each(Client::expect_connack);
        open("192.0.2.7", "e").expect_cut();
        assert_eq!(broker.counters().address_refused, round);
        inside.iter_mut().for_each(Client::ping);
        drop(inside);
        broker.wait_until("all but the silent are gone", |counters| {
            counters.connections == silent.len() as u64
        });
    }
    // Who was silent may still say who it is.
    let mut bytes = LINE.to_vec();
    bytes.extend(connect(VERSION, "late"));
    silent[0].send(&bytes);
    silent[0].expect_connack();
    broker.stop();
}
