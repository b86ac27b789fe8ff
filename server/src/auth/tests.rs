//! Logins through the pool and past it.

use super::*;
use crate::passwd::Scheme;
use crate::password_file::Users;
use base64ct::{Base64, Encoding};
use sol_engine::UserChange;
use std::sync::mpsc;

fn users(entries: &[(&str, &[u8])]) -> Users {
    let lines: String = entries
        .iter()
        .map(|(user, password)| format!("{user}:{}\n", Scheme::Sha512.hash(user, password).unwrap()))
        .collect();
    Users::parse("p".as_ref(), lines.as_bytes()).unwrap()
}

fn ask(verifier: &Verifier, user: &str, password: &[u8]) -> Verdict {
    ask_at(verifier, 0, user, password)
}

fn ask_at(verifier: &Verifier, listener: usize, user: &str, password: &[u8]) -> Verdict {
    let (sender, receiver) = mpsc::channel();
    let reply = Box::new(move |verdict| sender.send(verdict).unwrap());
    verifier
        .submit(Request {
            login: Login::Password {
                user: Some(user.to_owned()),
                password: password.to_vec(),
            },
            listener,
            client_id: Box::default(),
            version: 5,
            peer: None,
            common_name: None,
            reply,
        })
        .unwrap();
    receiver.recv().unwrap()
}

/// Right passwords are accepted, again from memory; wrong ones and unknown users are refused, also after a right one.
#[test]
fn verdicts() {
    let verifier = Verifier::new(users(&[("ann", b"secret"), ("bob", b"\x00\xFF")]), 2, 8).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&verifier, "ann", b"secret"), Verdict::Accepted);
        assert_eq!(ask(&verifier, "bob", b"\x00\xFF"), Verdict::Accepted);
        for wrong in [&b"secre"[..], b"secret\0", b"", b"Secret", &[b's'; 60_000]] {
            assert_eq!(ask(&verifier, "ann", wrong), Verdict::Refused);
        }
        assert_eq!(ask(&verifier, "carol", b"secret"), Verdict::Refused);
        assert_eq!(ask(&verifier, "", b""), Verdict::Refused);
    }
    assert_eq!(
        verifier.shared.judge.files().at(0).remembered().len(),
        2,
        "only right logins are remembered, one a user"
    );
}

/// A changed password is in force at once, although the old one was remembered; a removed user is gone until he is
/// back; and whoever is another than before is named, nobody else.
#[test]
fn replacing_users() {
    let verifier = Verifier::new(users(&[("ann", b"old"), ("bob", b"b")]), 1, 8).unwrap();
    assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Accepted);
    assert_eq!(ask(&verifier, "bob", b"b"), Verdict::Accepted);
    let replace = |with| {
        let mut changed = verifier.replace(with).users;
        changed.sort();
        changed
            .into_iter()
            .map(|user| (String::from(user.username), user.change))
            .collect::<Vec<_>>()
    };
    let of = |user: &str, change| (user.to_owned(), change);
    assert_eq!(
        replace(users(&[("ann", b"new")])),
        [of("ann", UserChange::Changed), of("bob", UserChange::Gone)]
    );
    assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Refused);
    assert_eq!(ask(&verifier, "ann", b"new"), Verdict::Accepted);
    assert_eq!(ask(&verifier, "bob", b"b"), Verdict::Refused);
    let both = format!(
        "ann:{}\nbob:{PENCIL}\n",
        verifier.shared.judge.files().at(0).users.get("ann").unwrap().as_str()
    );
    assert_eq!(replace(scram_users(&both)), [of("bob", UserChange::Added)]);
    assert_eq!(replace(scram_users(&both)), []);
}

/// A tag is bound to the stored entry: even a remembered login does not outlive it.
#[test]
fn tags_are_bound_to_the_entry() {
    let verifier = Verifier::new(users(&[("ann", b"old")]), 1, 8).unwrap();
    assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Accepted);
    let remembered = verifier.shared.judge.files().at(0).remembered().clone();
    verifier.replace(users(&[("ann", b"new")]));
    *verifier.shared.judge.files().at(0).remembered() = remembered;
    assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Refused);
}

/// A user of one listener is nobody at another, be his password remembered or not; and where two have users of one name,
/// each has his own password.
#[test]
fn users_of_each_listener() {
    let files = || {
        let files = vec![users(&[("ann", b"first"), ("bob", b"b")]), users(&[("ann", b"second")])];
        UserFiles::new(files, &[Some(0), Some(1), None])
    };
    let verifier = Verifier::new(files(), 1, 8).unwrap();
    for round in 0..4 {
        let accepted =
            |listener, user, password: &[u8]| ask_at(&verifier, listener, user, password) == Verdict::Accepted;
        assert!(accepted(0, "ann", b"first") && !accepted(0, "ann", b"second"));
        assert!(accepted(1, "ann", b"second") && !accepted(1, "ann", b"first"));
        assert!(accepted(0, "bob", b"b") && !accepted(1, "bob", b"b"));
        assert!(!accepted(2, "ann", b"first") && !accepted(3, "ann", b"first"));
        if round == 1 {
            // Salts are others now.
            assert_eq!(verifier.replace(files()).users.len(), 2);
        }
    }
    assert!(verifier.has_users_at(1) && !verifier.has_users_at(2));
}

/// A file that is read again with an unchanged entry has nobody hash his password again.
#[test]
fn what_is_remembered_outlives_a_reload() {
    let hash = Scheme::Sha512.hash("ann", b"secret").unwrap();
    let file = |more: &str| Users::parse("p".as_ref(), format!("ann:{hash}\n{more}").as_bytes()).unwrap();
    let verifier = Verifier::new(file(""), 1, 1).unwrap();
    assert_eq!(ask(&verifier, "ann", b"secret"), Verdict::Accepted);
    verifier.replace(file(&format!("bob:{hash}\n")));
    let hold = hold(&verifier);
    let (sender, receiver) = mpsc::channel();
    let reply = Box::new(move |verdict| sender.send(verdict).unwrap());
    verifier.submit(from(None, "ann", reply)).unwrap();
    assert_eq!(receiver.try_recv(), Ok(Verdict::Accepted));
    drop(hold);
}

/// A full queue answers at once and hands the request back; what was queued is still answered.
#[test]
fn full_queue() {
    let verifier = Verifier::new(users(&[("ann", b"secret")]), 1, 1).unwrap();
    let (hold, held) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let (sender, receiver) = mpsc::channel();
    let first = Box::new(move |_| {
        started.send(()).unwrap();
        let _ = held.recv();
    });
    let request = |reply| from(None, "u", reply);
    verifier.submit(request(first)).unwrap();
    starts.recv().unwrap();
    let second = sender.clone();
    verifier
        .submit(request(Box::new(move |verdict| second.send(verdict).unwrap())))
        .unwrap();
    assert_eq!(verifier.queued(), 1);
    let Full(third) = verifier
        .submit(request(Box::new(move |verdict| sender.send(verdict).unwrap())))
        .unwrap_err();
    assert_eq!(third.user(), Some("u"));
    drop(hold);
    assert_eq!(receiver.recv().unwrap(), Verdict::Refused);
    (third.reply)(Verdict::Refused);
    assert_eq!(receiver.recv().unwrap(), Verdict::Refused);
}

/// Holds the only thread of a verifier until the sender is dropped.
fn hold(verifier: &Verifier) -> mpsc::Sender<()> {
    let (hold, held) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let reply = Box::new(move |_| {
        started.send(()).unwrap();
        let _ = held.recv();
    });
    verifier.submit(from(None, "nobody", reply)).unwrap();
    starts.recv().unwrap();
    hold
}

/// Who has connected from this address itself.
fn at(address: &str) -> Peer {
    Peer {
        address: (address.parse::<IpAddr>().unwrap(), 1).into(),
        is_brought: false,
    }
}

fn from(peer: Option<&str>, user: &str, reply: Box<dyn FnOnce(Verdict) + Send>) -> Request {
    Request {
        login: Login::Password {
            user: Some(user.to_owned()),
            password: b"secret".to_vec(),
        },
        listener: 0,
        client_id: Box::default(),
        version: 5,
        peer: peer.map(at),
        common_name: None,
        reply,
    }
}

/// A login that was right before is answered at once, whatever waits: nobody locks the others out by guessing.
#[test]
fn a_remembered_login_does_not_wait() {
    let verifier = Verifier::new(users(&[("ann", b"secret")]), 1, 1).unwrap();
    assert_eq!(ask(&verifier, "ann", b"secret"), Verdict::Accepted);
    let hold = hold(&verifier);
    verifier.submit(from(None, "eve", Box::new(drop))).unwrap();
    assert!(verifier.submit(from(None, "eve", Box::new(drop))).is_err(), "full");
    let (sender, receiver) = mpsc::channel();
    let reply = Box::new(move |verdict| sender.send(verdict).unwrap());
    verifier.submit(from(Some("192.0.2.1"), "ann", reply)).unwrap();
    assert_eq!(receiver.try_recv(), Ok(Verdict::Accepted));
    drop(hold);
}

/// One address has few places in the queue, gets them back, and takes none from another; a /64 is one address, and
/// the addresses of this machine are not counted.
#[test]
fn places_of_an_address() {
    let verifier = Verifier::new(users(&[("ann", b"secret")]), 1, 1024).unwrap();
    verifier.limit(Logins {
        failures_max: None,
        ..Logins::default()
    });
    let held = hold(&verifier);
    let (sender, receiver) = mpsc::channel();
    let submit = |peer: &str| {
        let sender = sender.clone();
        let reply = Box::new(move |verdict| sender.send(verdict).unwrap());
        verifier.submit(from(Some(peer), "eve", reply)).is_ok()
    };
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert!((0..WAITING_PER_ADDRESS_MAX).all(|_| submit(address)), "{address}");
        assert!(!submit(address), "{address}");
    }
    assert!(!submit("2001:db8::2") && !submit("::ffff:192.0.2.1"));
    assert!(submit("192.0.2.2") && submit("2001:db8:0:1::1"));
    assert!((0..2 * WAITING_PER_ADDRESS_MAX).all(|_| submit("127.0.0.1")));
    drop(held);
    for _ in 0..4 * WAITING_PER_ADDRESS_MAX + 2 {
        assert_eq!(receiver.recv().unwrap(), Verdict::Refused);
    }
    assert!(submit("192.0.2.1"));
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), Verdict::Refused);
}

/// Who fails too often is refused without a hash, be it by password or by SCRAM, and at once, while the only thread
/// hashes; what waited in the queue meanwhile is not looked at either. Right logins from elsewhere are served.
#[test]
fn bans() {
    let verifier = Verifier::new(scram_users(&format!("ann:{PENCIL}\n")), 1, 64).unwrap();
    verifier.limit(Logins {
        failures_max: Some(3),
        ..Logins::default()
    });
    let (sender, receiver) = mpsc::channel();
    let reply = || {
        let sender = sender.clone();
        Box::new(move |verdict| sender.send(verdict).unwrap())
    };
    let hold = hold(&verifier);
    for _ in 0..5 {
        verifier.submit(from(Some("192.0.2.1"), "eve", reply())).unwrap();
    }
    drop(hold);
    let verdicts: Vec<_> = (0..5).map(|_| receiver.recv().unwrap()).collect();
    assert_eq!(verdicts[..3], [Verdict::Refused, Verdict::Refused, Verdict::Refused]);
    assert_eq!(verdicts[3..], [Verdict::Banned, Verdict::Banned]);
    let hold = self::hold(&verifier);
    verifier.submit(from(Some("192.0.2.1"), "ann", reply())).unwrap();
    assert_eq!(receiver.try_recv(), Ok(Verdict::Banned));
    let scram = |peer: &str, memo, message: &str| {
        let request = Request {
            peer: Some(at(peer)),
            ..step(memo, message, reply())
        };
        verifier.submit(request).unwrap();
        receiver.try_recv().unwrap()
    };
    assert_eq!(scram("192.0.2.1", None, "n,,n=ann,r=client"), Verdict::Banned);
    assert_eq!(
        scram("192.0.2.7", None, "n,,n=eve,r=client"),
        Verdict::Banned,
        "the user"
    );
    for n in 0..3 {
        let Verdict::Continue { message, memo } = scram("192.0.2.2", None, "n,,n=ann,r=client") else {
            panic!("no challenge")
        };
        let challenge = String::from_utf8(message).unwrap();
        let good = answer("ann", &challenge, b"pencil");
        let proven = scram("192.0.2.3", Some(memo.clone()), &good);
        assert!(matches!(proven, Verdict::Proven { .. }), "{n}");
        let bad = answer("ann", &challenge, b"Pencil");
        assert_eq!(scram("192.0.2.2", Some(memo), &bad), Verdict::Refused);
    }
    assert_eq!(scram("192.0.2.2", None, "n,,n=ann,r=client"), Verdict::Banned);
    let again = scram("192.0.2.3", None, "n,,n=ann,r=client");
    assert!(matches!(again, Verdict::Continue { .. }), "he has logged in there");
    drop(hold);
    let whose: Vec<_> = verifier.bans().iter().map(|ban| ban.whose.to_string()).collect();
    assert_eq!(whose.len(), 4, "{whose:?}");
    for name in ["address 192.0.2.1", "address 192.0.2.2", "user eve", "user ann"] {
        assert!(whose.iter().any(|whose| whose == name), "{name} in {whose:?}");
    }
    assert!(verifier.bans().iter().all(|ban| verifier.lift(&ban.whose)));
    assert!(verifier.bans().is_empty());
    assert_eq!(verifier.stats().bans, 4);
}

/// A fault in one answer costs that login only: the thread goes on with the next.
#[test]
fn a_fault_is_survived() {
    let verifier = Verifier::new(users(&[("ann", b"secret")]), 1, 8).unwrap();
    let fault = Box::new(|_| std::panic::resume_unwind(Box::new("a fault")));
    verifier.submit(from(Some("192.0.2.1"), "eve", fault)).unwrap();
    assert_eq!(ask(&verifier, "ann", b"secret"), Verdict::Accepted);
    assert!(verifier.shared.waiting().is_empty());
}

/// The keys of "pencil" after 4,096 iterations.
const PENCIL: &str = "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$\
     WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn scram_users(lines: &str) -> Users {
    Users::parse("p".as_ref(), lines.as_bytes()).unwrap()
}

fn step(memo: Option<Vec<u8>>, message: &str, reply: Box<dyn FnOnce(Verdict) + Send>) -> Request {
    let message = message.as_bytes().to_vec();
    Request {
        login: Login::Scram { memo, message },
        listener: 0,
        client_id: Box::default(),
        version: 5,
        peer: None,
        common_name: None,
        reply,
    }
}

fn take_step(verifier: &Verifier, memo: Option<Vec<u8>>, message: &str) -> Verdict {
    let (sender, receiver) = mpsc::channel();
    let reply = Box::new(move |verdict| sender.send(verdict).unwrap());
    verifier.submit(step(memo, message, reply)).unwrap();
    receiver.recv().unwrap()
}

/// The challenge to `user`: what the client is told, and the memo.
fn challenged(verifier: &Verifier, user: &str) -> (String, Vec<u8>) {
    match take_step(verifier, None, &format!("n,,n={user},r=client")) {
        Verdict::Continue { message, memo } => (String::from_utf8(message).unwrap(), memo),
        other => panic!("{other:?}"),
    }
}

/// What a client answers to a challenge.
fn answer(user: &str, challenge: &str, password: &[u8]) -> String {
    let field = |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
    let salt = Base64::decode_vec(field("s=")).unwrap();
    let without_proof = format!("c=biws,r={}", field("r="));
    let signed = format!("n={user},r=client,{challenge},{without_proof}");
    let proof = crate::scram::prove(password, &salt, field("i=").parse().unwrap(), signed.as_bytes());
    format!("{without_proof},p={}", Base64::encode_string(&proof))
}

/// Somebody with keys gets in with the password, and only so; a plain password serves as well. A challenge is good for
/// its own answer only.
#[test]
fn scram() {
    let verifier = Verifier::new(scram_users(&format!("ann:{PENCIL}\nbob:{PENCIL}\n")), 1, 8).unwrap();
    let (message, memo) = challenged(&verifier, "ann");
    let good = answer("ann", &message, b"pencil");
    let Verdict::Proven { user, message: last } = take_step(&verifier, Some(memo.clone()), &good) else {
        panic!("not proven")
    };
    assert!(user == "ann" && last.starts_with(b"v="));
    let bad = answer("ann", &message, b"Pencil");
    assert_eq!(take_step(&verifier, Some(memo), &bad), Verdict::Refused);
    let (_, another) = challenged(&verifier, "ann");
    assert_eq!(take_step(&verifier, Some(another), &good), Verdict::Refused);
    let (_, of_bob) = challenged(&verifier, "bob");
    assert_eq!(take_step(&verifier, Some(of_bob), &good), Verdict::Refused);
    for garbage in ["", "n,,", "p=x,,n=ann,r=client"] {
        assert_eq!(take_step(&verifier, None, garbage), Verdict::Refused);
    }
    assert_eq!(ask(&verifier, "ann", b"pencil"), Verdict::Accepted);
}

/// While the only thread hashes and the queue is full, every step of SCRAM is answered before `submit` returns, whoever
/// it is about: nobody locks out by guessing passwords whoever logs in by SCRAM. A fault in an answer is survived.
#[test]
fn scram_does_not_wait() {
    let verifier = Verifier::new(scram_users(&format!("ann:{PENCIL}\n")), 1, 1).unwrap();
    let hold = hold(&verifier);
    verifier.submit(from(None, "eve", Box::new(drop))).unwrap();
    assert!(verifier.submit(from(None, "eve", Box::new(drop))).is_err(), "full");
    let at_once = |memo, message: &str| {
        let (sender, receiver) = mpsc::channel();
        let reply = Box::new(move |verdict| sender.send(verdict).unwrap());
        verifier.submit(step(memo, message, reply)).unwrap();
        receiver.try_recv().unwrap()
    };
    for (user, is_there) in [("ann", true), ("eve", false)] {
        let Verdict::Continue { message, memo } = at_once(None, &format!("n,,n={user},r=client")) else {
            panic!("no challenge")
        };
        let last = answer(user, &String::from_utf8(message).unwrap(), b"pencil");
        let verdict = at_once(Some(memo), &last);
        assert_eq!(matches!(verdict, Verdict::Proven { .. }), is_there, "{verdict:?}");
    }
    let fault = Box::new(|_| std::panic::resume_unwind(Box::new("a fault")));
    verifier.submit(step(None, "n,,n=ann,r=client", fault)).unwrap();
    drop(hold);
}

/// Who does not exist, or has a crypt(3) hash, is challenged like anybody: with as many iterations, a salt of the same
/// length and always the same one; and is refused whatever the answer.
#[test]
fn scram_tells_nobody_who_exists() {
    let crypt = Scheme::Sha512Crypt.hash("bob", b"pencil").unwrap();
    let verifier = Verifier::new(scram_users(&format!("ann:{PENCIL}\nbob:{crypt}\n")), 1, 8).unwrap();
    let shape = |user: &str| {
        let (message, _) = challenged(&verifier, user);
        let (nonce, rest) = message.split_once(',').unwrap();
        (nonce.len(), rest.to_owned())
    };
    let real = shape("ann");
    for user in ["bob", "eve"] {
        let (first, again) = (shape(user), shape(user));
        assert_eq!(first, again, "{user}");
        assert_eq!(
            (first.0, first.1.len(), &first.1[27..]),
            (real.0, real.1.len(), &real.1[27..]),
            "{user}"
        );
        let (message, memo) = challenged(&verifier, user);
        let reply = answer(user, &message, b"pencil");
        assert_eq!(take_step(&verifier, Some(memo), &reply), Verdict::Refused);
    }
    assert_ne!(shape("bob").1, shape("eve").1);
}

/// Where entries are of several kinds, names without a user are challenged now like one kind, now like another, each name
/// always alike, in whatever order the file has its users.
#[test]
fn scram_tells_nobody_who_exists_in_a_mixed_file() {
    let crypt = Scheme::Sha512Crypt.hash("bob", b"pencil").unwrap();
    let more = Scheme::Scram(9_000).hash("cid", b"pencil").unwrap();
    let lines = format!("ann:{PENCIL}\nbob:{crypt}\ncid:{more}\n");
    let verifier = Verifier::new(scram_users(&lines), 1, 8).unwrap();
    let iterations = |user: &str| challenged(&verifier, user).0.rsplit_once("i=").unwrap().1.to_owned();
    let names: Vec<_> = (0..200).map(|n| format!("nobody{n}")).collect();
    let first: Vec<_> = names.iter().map(|name| iterations(name)).collect();
    assert_eq!(first, names.iter().map(|name| iterations(name)).collect::<Vec<_>>());
    for kind in ["4096", "9000"] {
        // A half of them, give or take: the secret is another in each run.
        let count = first.iter().filter(|asked| *asked == kind).count();
        assert!((50..=150).contains(&count), "{kind}: {count}");
    }
    // Read again in any order, the file has the same stand-ins.
    verifier.replace(scram_users(&format!("cid:{more}\nann:{PENCIL}\nbob:{crypt}\n")));
    assert_eq!(first, names.iter().map(|name| iterations(name)).collect::<Vec<_>>());
}

/// An answer is checked against the users of its moment: a new file between the two steps harms nobody whose keys
/// stayed, and keeps out whose did not.
#[test]
fn scram_and_a_new_file_between_the_steps() {
    let verifier = Verifier::new(
        scram_users(&format!("ann:{PENCIL}\nbob:{PENCIL}\ncid:{PENCIL}\n")),
        1,
        8,
    )
    .unwrap();
    let begun: Vec<_> = ["ann", "bob", "cid"]
        .map(|user| {
            let (message, memo) = challenged(&verifier, user);
            (memo, answer(user, &message, b"pencil"))
        })
        .into();
    let changed = Scheme::Scram(4_096).hash("bob", b"pencil").unwrap();
    verifier.replace(scram_users(&format!("ann:{PENCIL}\nbob:{changed}\n")));
    let verdicts: Vec<_> = begun
        .into_iter()
        .map(|(memo, message)| matches!(take_step(&verifier, Some(memo), &message), Verdict::Proven { .. }))
        .collect();
    assert_eq!(verdicts, [true, false, false]);
}

const SECRET: &str = "a secret that has 32 bytes, or more";

/// Listeners that ask for tokens by this secret, each by more lines of its own.
fn chains(secret: &str, listeners: &[&str]) -> Chains {
    let dir = tempfile::tempdir().unwrap();
    let (key, users) = (dir.path().join("key"), dir.path().join("users"));
    std::fs::write(&key, secret).unwrap();
    std::fs::write(&users, "").unwrap();
    let lines = listeners.iter().enumerate().map(|(nth, lines)| {
        let lines = lines.replace("KEY", &format!("jwt_key_file HS256 {}\n", key.display()));
        let lines = lines.replace("USERS", &format!("password_file {}\n", users.display()));
        format!("listener {} 127.0.0.1\n{lines}\n", nth + 1)
    });
    let text = format!("per_listener_settings true\n{}", lines.collect::<String>());
    let config = crate::config::Config::parse("c".as_ref(), text.as_bytes(), &crate::config::Host::default()).unwrap();
    Chains::load(&config).unwrap().0
}

fn token(secret: &str, user: &str, exp: u64) -> Vec<u8> {
    let encode = |bytes: &[u8]| base64ct::Base64UrlUnpadded::encode_string(bytes);
    let claims = format!(r#"{{"sub":"{user}","exp":{exp}}}"#);
    let signed = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let signature = encode(ring::hmac::sign(&key, signed.as_bytes()).as_ref());
    format!("{signed}.{signature}").into_bytes()
}

const LATE: u64 = 99_999_999_999;

fn show(verifier: &Verifier, peer: &str, user: &str, password: &[u8]) -> Verdict {
    let (sender, receiver) = mpsc::channel();
    let request = Request {
        login: Login::Password {
            user: Some(user.to_owned()),
            password: password.to_vec(),
        },
        ..from(Some(peer), user, Box::new(move |verdict| sender.send(verdict).unwrap()))
    };
    verifier.submit(request).unwrap();
    receiver.recv().unwrap()
}

fn is_granted(verdict: &Verdict, user: &str) -> bool {
    matches!(verdict, Verdict::Granted(grant) if grant.username.as_deref() == Some(user))
}

/// Forged tokens ban the address that they come from and no User Name, which the tokens of others stand beside; and a name
/// that guesses at passwords have banned keeps no token out.
#[test]
fn forged_tokens_ban_addresses_alone() {
    let files = UserFiles::new(Vec::new(), &[None]).with_chains(chains(SECRET, &["KEY"]));
    let verifier = Verifier::new(files, 1, 8).unwrap();
    verifier.limit(Logins {
        failures_max: Some(3),
        ..Logins::default()
    });
    let (good, forged) = (token(SECRET, "ann", LATE), token(&SECRET.to_uppercase(), "ann", LATE));
    for n in 1..=9 {
        assert_eq!(
            show(&verifier, &format!("192.0.2.{n}"), "jwt", &forged),
            Verdict::Refused
        );
    }
    assert!(verifier.bans().is_empty());
    for _ in 0..2 {
        assert_eq!(show(&verifier, "192.0.2.1", "jwt", &forged), Verdict::Refused);
    }
    assert_eq!(
        show(&verifier, "192.0.2.1", "jwt", &good),
        Verdict::Banned,
        "the address"
    );
    for n in 1..=3 {
        assert_eq!(
            show(&verifier, &format!("198.51.100.{n}"), "jwt", b"guess"),
            Verdict::Refused
        );
    }
    assert_eq!(
        show(&verifier, "198.51.100.9", "jwt", b"guess"),
        Verdict::Banned,
        "the user"
    );
    assert!(is_granted(&show(&verifier, "198.51.100.9", "jwt", &good), "ann"));
    assert_eq!(show(&verifier, "198.51.100.9", "ann", &forged), Verdict::Refused);
    assert!(is_granted(&show(&verifier, "203.0.113.1", "ann", &good), "ann"));
}

/// Beside a password file what looks like a token is judged as one, whatever the order and whoever the User Name is: nobody
/// with a token finds out by it who is in the file, and no token, forged or late, costs a hash. Passwords are judged as ever.
#[test]
fn a_token_is_no_password() {
    for lines in ["USERS\nKEY", "KEY\nUSERS\nauth_order jwt password_file"] {
        let files =
            UserFiles::new(vec![users(&[("ann", b"secret")])], &[Some(0)]).with_chains(chains(SECRET, &[lines]));
        let verifier = Verifier::new(files, 1, 8).unwrap();
        for user in ["ann", "nobody"] {
            assert!(is_granted(&ask(&verifier, user, &token(SECRET, "bob", LATE)), "bob"));
            assert_eq!(ask(&verifier, user, &token(SECRET, "bob", 1)), Verdict::Refused);
            assert_eq!(
                ask(&verifier, user, &token(&SECRET.to_uppercase(), "bob", LATE)),
                Verdict::Refused
            );
        }
        assert_eq!(verifier.stats().hashed, 0);
        assert_eq!(ask(&verifier, "ann", b"secret"), Verdict::Accepted);
        assert_eq!(ask(&verifier, "ann", b"wrong"), Verdict::Refused);
        assert_eq!(ask(&verifier, "nobody", b"secret"), Verdict::Refused);
        assert_eq!(verifier.stats().hashed, 3);
    }
}

/// Tokens do not wait for hashes: while the only thread hashes and its queue is full, as many as may come from one address are
/// answered; of passwords not one.
#[test]
fn tokens_do_not_wait_for_hashes() {
    let files =
        UserFiles::new(vec![users(&[("ann", b"secret")])], &[Some(0)]).with_chains(chains(SECRET, &["USERS\nKEY"]));
    let verifier = Verifier::new(files, 1, 1).unwrap();
    let held = hold(&verifier);
    verifier.submit(from(None, "eve", Box::new(drop))).unwrap();
    assert!(
        verifier.submit(from(Some("192.0.2.1"), "ann", Box::new(drop))).is_err(),
        "full"
    );
    for _ in 0..2 * WAITING_PER_ADDRESS_MAX {
        let verdict = show(&verifier, "192.0.2.1", "jwt", &token(SECRET, "bob", LATE));
        assert!(is_granted(&verdict, "bob"));
    }
    drop(held);
}

/// A listener whose password file gives way to tokens lets nobody in by the file any more, neither by SCRAM nor by a password
/// that was right before; back again, the file does.
#[test]
fn a_file_that_is_not_asked_lets_nobody_in() {
    let file = || scram_users(&format!("ann:{PENCIL}\n"));
    let verifier = Verifier::new(file(), 1, 8).unwrap();
    let proves = || {
        let (message, memo) = challenged(&verifier, "ann");
        let verdict = take_step(&verifier, Some(memo), &answer("ann", &message, b"pencil"));
        matches!(verdict, Verdict::Proven { .. })
    };
    assert!(proves() && ask(&verifier, "ann", b"pencil") == Verdict::Accepted);
    verifier.replace(UserFiles::new(Vec::new(), &[None]).with_chains(chains(SECRET, &["KEY"])));
    assert!(!proves());
    assert_eq!(ask(&verifier, "ann", b"pencil"), Verdict::Refused);
    assert!(is_granted(&ask(&verifier, "ann", &token(SECRET, "ann", LATE)), "ann"));
    verifier.replace(file());
    assert!(proves() && ask(&verifier, "ann", b"pencil") == Verdict::Accepted);
}

/// Where a key, or what a token has to say, is another, or tokens are not taken any more, whoever came in by a token may not
/// come in again; with a key more, or on another port, he may.
#[test]
fn grants_that_are_lost() {
    let two = ["KEY", "KEY\njwt_issuer me"];
    let files = |secret: &str, listeners: &[&str]| UserFiles::default().with_chains(chains(secret, listeners));
    for (secret, now, lost) in [
        (SECRET, &two[..], &[][..]),
        ("another secret of 32 bytes or more", &two, &[0, 1]),
        (SECRET, &["KEY", "KEY\njwt_issuer you"], &[1]),
        (SECRET, &["KEY\njwt_audience x", "KEY\njwt_issuer me"], &[0]),
        (SECRET, &["USERS", "KEY\njwt_issuer me\nUSERS"], &[0]),
        (SECRET, &["KEY"], &[1]),
        (SECRET, &[], &[0, 1]),
    ] {
        let verifier = Verifier::new(files(SECRET, &two), 1, 8).unwrap();
        assert_eq!(verifier.replace(files(secret, now)).grants_lost_at, lost, "{now:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let more = dir.path().join("more");
    std::fs::write(&more, "another secret of 32 bytes or more").unwrap();
    let with_more = format!("KEY\njwt_key_file HS256 {}", more.display());
    let verifier = Verifier::new(files(SECRET, &["KEY"]), 1, 8).unwrap();
    assert!(verifier.replace(files(SECRET, &[&with_more])).grants_lost_at.is_empty());
    assert_eq!(
        verifier.replace(files(SECRET, &["KEY"])).grants_lost_at,
        [0],
        "one key less"
    );
}
