//! Storms of logins against the verifier, by what they cost in hashes. What they cost in time is measured elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::mpsc;

use sol_server::auth::{Full, Login, Peer, Request, Verdict, Verifier};
use sol_server::config::Logins;
use sol_server::passwd::Scheme;
use sol_server::password_file::Users;
use sol_server::stored::Cost;

const QUEUE: usize = 1024;

/// So many users, each with a password of its own, hashed as `sol passwd` does.
fn users(count: usize) -> Users {
    let lines: String = (0..count)
        .map(|n| {
            let hash = Scheme::Argon2id(Cost::USUAL).hash("u", password(n).as_bytes()).unwrap();
            format!("user{n}:{hash}\n")
        })
        .collect();
    Users::parse("p".as_ref(), lines.as_bytes()).unwrap()
}

fn password(user: usize) -> String {
    format!("password of {user}")
}

/// All these clients log in at once from as many addresses; whoever hears "Server busy" tries again. Returns how many were
/// answered before `submit` returned.
fn storm(verifier: &Verifier, clients: usize, users: usize) -> usize {
    let (sender, receiver) = mpsc::channel();
    let (mut at_once, mut answered) = (0, 0);
    let mut take = |verdict: Verdict| {
        assert_eq!(verdict, Verdict::Accepted);
        answered += 1;
    };
    for client in 0..clients {
        let user = client % users;
        let reply = sender.clone();
        let address = u32::try_from(client).unwrap() + 0xC633_0000;
        let mut request = Request {
            login: Login::Password {
                user: Some(format!("user{user}")),
                password: password(user).into_bytes(),
            },
            listener: 0,
            client_id: Box::default(),
            version: 5,
            peer: Some(Peer {
                address: (std::net::Ipv4Addr::from(address), 1).into(),
                is_brought: false,
            }),
            common_name: None,
            reply: Box::new(move |verdict| reply.send(verdict).unwrap()),
        };
        while let Err(Full(again)) = verifier.submit(request) {
            request = *again;
            take(receiver.recv().unwrap());
        }
        while let Ok(verdict) = receiver.try_recv() {
            at_once += 1;
            take(verdict);
        }
    }
    drop(sender);
    receiver.iter().for_each(take);
    assert_eq!(answered, clients);
    at_once
}

/// Thousands of clients that share some users cost a hash for each user and thread at most, the first time; when all of them
/// come again they cost none and none waits, whatever guesses fill the queue meanwhile.
#[test]
fn clients_that_come_back_cost_no_hash() {
    const CLIENTS: usize = 4_000;
    const USERS: usize = 10;
    const THREADS: usize = 2;
    let verifier = Verifier::new(users(USERS), THREADS, QUEUE).unwrap();
    verifier.limit(Logins {
        failures_max: Some(1_000_000),
        ..Logins::default()
    });
    storm(&verifier, CLIENTS, USERS);
    let first = verifier.stats();
    assert_eq!((first.accepted, first.wrong), (CLIENTS as u64, 0));
    assert!(verifier.stats().hashed <= (USERS * THREADS) as u64, "{first:?}");
    for n in 0..QUEUE / 8 {
        let guess = Request {
            login: Login::Password {
                user: Some(format!("user{}", n % USERS)),
                password: b"guess".to_vec(),
            },
            listener: 0,
            client_id: Box::default(),
            version: 5,
            peer: None,
            common_name: None,
            reply: Box::new(drop),
        };
        verifier.submit(guess).unwrap();
    }
    assert_eq!(storm(&verifier, CLIENTS, USERS), CLIENTS, "before submit returned");
    assert!(verifier.queued() > 0, "the guesses are being hashed still");
    let second = verifier.stats();
    assert_eq!(second.remembered - first.remembered, CLIENTS as u64);
}
