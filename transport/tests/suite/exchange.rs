//! Logins of several steps: who may wait for whom, and how long.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use sol_codec::{Auth, AuthProperties, Connect, ConnectProperties, Packet, ProtocolVersion, ReasonCode};
use sol_engine::{AuthOutcome, AuthRequest, Credentials, Event, ListenerRules, ShardId};
use sol_transport::{Applicant, AuthReply, Notice, Observer, Source};

use crate::support::{Broker, Client, PATIENCE};

on_each_backend! {
    an_exchange_ends_at_home
    a_client_that_owes_an_auth_is_cut_in_time
    a_late_challenge_comes_too_late
    who_owes_an_auth_makes_room
    who_comes_while_logins_are_checked_waits
}

const V5: ProtocolVersion = ProtocolVersion::V5;
const METHOD: &str = "METHOD";
/// A client whose first step is answered when the test says so.
const HELD: &str = "held";

/// Wants one step more of everybody, and lets everybody in then.
struct Examiner {
    held: Sender<AuthReply>,
}

impl Observer for Examiner {
    fn event(&mut self, _: &Event, _: Option<Source>) {}

    fn notice(&mut self, _: Notice<'_>) {}

    fn auth(&mut self, request: AuthRequest, _: Applicant<'_>, reply: AuthReply) {
        let Credentials::Exchange { memo, data, .. } = request.credentials else {
            panic!("there is one method")
        };
        match memo {
            None if request.client_id == HELD => self.held.send(reply).unwrap(),
            None => reply.answer(challenge()),
            Some(memo) => {
                assert_eq!((&memo[..], data.as_deref()), (&b"memo"[..], Some(&b"client 2"[..])));
                reply.answer(AuthOutcome::Proven {
                    username: "user".to_owned(),
                    data: Some(b"server 2".to_vec()),
                });
            }
        }
    }
}

fn challenge() -> AuthOutcome {
    AuthOutcome::Continue {
        data: b"server 1".to_vec(),
        memo: b"memo".to_vec(),
    }
}

fn start(shards: u16, connect_time_max: Duration, unauthenticated_max: usize) -> (Broker, Receiver<AuthReply>) {
    let (sender, held) = channel();
    let observer = move |_: ShardId| Examiner { held: sender.clone() };
    let broker = Broker::start_observed(shards, observer, |config, engine| {
        config.connect_time_max = connect_time_max;
        config.unauthenticated_max = unauthenticated_max;
        config.listeners[0].defer_accept = false;
        engine.listeners = vec![ListenerRules {
            allow_anonymous: false,
            ask: true,
            named: false,
        }];
        engine.authentication_methods = vec![METHOD.to_owned()];
    });
    (broker, held)
}

fn begin(broker: &Broker, client_id: &str) -> Client {
    let mut bytes = Vec::new();
    Connect {
        properties: ConnectProperties {
            authentication_method: Some(METHOD),
            authentication_data: Some(b"client 1"),
            ..ConnectProperties::default()
        },
        ..Connect::new(V5, client_id)
    }
    .encode(V5, &mut bytes);
    let mut client = Client::open(broker.address, V5);
    client.send(&bytes);
    client
}

fn auth() -> Vec<u8> {
    let mut bytes = Vec::new();
    Auth {
        reason_code: ReasonCode::ContinueAuthentication,
        properties: AuthProperties {
            authentication_method: Some(METHOD),
            authentication_data: Some(b"client 2"),
            ..AuthProperties::default()
        },
    }
    .encode(V5, &mut bytes);
    bytes
}

fn expect_challenge(client: &mut Client) {
    client.with_packet(|packet| match packet {
        Packet::Auth(auth) => assert_eq!(auth.properties.authentication_data, Some(&b"server 1"[..])),
        other => panic!("no AUTH: {other:?}"),
    });
}

fn expect_connack(client: &mut Client) {
    client.with_packet(|packet| match packet {
        Packet::ConnAck(connack) => {
            assert_eq!(connack.reason_code, ReasonCode::Success);
            assert_eq!(connack.properties.authentication_method, Some(METHOD));
            assert_eq!(connack.properties.authentication_data, Some(&b"server 2"[..]));
        }
        other => panic!("no CONNACK: {other:?}"),
    });
}

/// A client that has proven who it is comes in wherever it is at home, with what it sent behind its last AUTH.
fn an_exchange_ends_at_home() {
    crate::support::keep_shards();
    let (broker, _held) = start(3, Duration::from_secs(60), 100);
    for n in 0..12 {
        let mut client = begin(&broker, &format!("client {n}"));
        expect_challenge(&mut client);
        client.send(&[&auth()[..], &[0xc0, 0]].concat());
        expect_connack(&mut client);
        client.with_packet(|packet| assert!(matches!(packet, Packet::PingResp), "{packet:?}"));
    }
    assert!(broker.counters().adopted > 0);
    assert_eq!(broker.counters().unauthenticated, 0);
    broker.stop();
}

/// The time for CONNECT holds for all of the exchange: who is silent after a challenge is cut, and so is who has not
/// finished an AUTH; whoever is in is not.
fn a_client_that_owes_an_auth_is_cut_in_time() {
    let (broker, _held) = start(1, Duration::from_secs(1), 100);
    let mut inside = begin(&broker, "inside");
    expect_challenge(&mut inside);
    inside.send(&auth());
    expect_connack(&mut inside);
    for begun in [&[][..], &auth()[..10]] {
        let mut silent = begin(&broker, "silent");
        expect_challenge(&mut silent);
        silent.send(begun);
        silent.expect_end();
    }
    broker.wait_until("the time-outs", |counters| counters.connect_timeouts == 2);
    inside.ping();
    broker.stop();
}

/// While somebody else is asked no time-out cuts a client; when its time is over by the time it is challenged, it is cut
/// then.
fn a_late_challenge_comes_too_late() {
    let (broker, held) = start(1, Duration::from_secs(1), 100);
    let mut late = begin(&broker, HELD);
    let reply = held.recv_timeout(PATIENCE).unwrap();
    // It came later, so when its time is up, that of the other is.
    let mut silent = Client::open(broker.address, V5);
    silent.expect_end();
    broker.wait_until("the first time-out", |counters| counters.connect_timeouts == 1);
    assert_eq!(broker.counters().unauthenticated, 1);
    reply.answer(challenge());
    expect_challenge(&mut late);
    late.expect_end();
    assert_eq!(broker.counters().connect_timeouts, 2);
    broker.stop();
}

/// Clients that owe an AUTH are part of the crowd outside: whoever of it came first goes for a new one. Who waits for an
/// answer does not.
fn who_owes_an_auth_makes_room() {
    crate::support::keep_shards();
    let (broker, held) = start(1, Duration::from_secs(60), 3);
    let mut asked = begin(&broker, HELD);
    let reply = held.recv_timeout(PATIENCE).unwrap();
    let mut first = begin(&broker, "first");
    expect_challenge(&mut first);
    let mut second = begin(&broker, "second");
    expect_challenge(&mut second);
    let mut third = begin(&broker, "third");
    expect_challenge(&mut third);
    first.expect_end();
    assert_eq!((broker.counters().evicted, broker.counters().unauthenticated), (1, 3));
    reply.answer(challenge());
    expect_challenge(&mut asked);
    for client in [&mut asked, &mut second, &mut third] {
        client.send(&auth());
        expect_connack(client);
    }
    broker.stop();
}

/// While logins are being checked that take all places, whoever comes waits in the listener's queue, and is let in as soon
/// as one of them has its answer. Nobody is sent away.
fn who_comes_while_logins_are_checked_waits() {
    crate::support::keep_shards();
    let (broker, held) = start(1, Duration::from_secs(60), 1);
    let mut asked = begin(&broker, HELD);
    let reply = held.recv_timeout(PATIENCE).unwrap();
    let mut late = begin(&broker, "late");
    assert_eq!(broker.counters().accepted, 1);
    reply.answer(AuthOutcome::Proven {
        username: "user".to_owned(),
        data: Some(b"server 2".to_vec()),
    });
    expect_connack(&mut asked);
    expect_challenge(&mut late);
    late.send(&auth());
    expect_connack(&mut late);
    assert_eq!(broker.counters().evicted, 0);
    broker.stop();
}
