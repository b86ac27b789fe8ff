//! Who may not log in for a while, because too many logins failed.
//!
//! Failures are counted by address, where a /64 of IPv6 is one, and by user, whether there is a user of that name or not: an
//! answer is the same. With as many as the configuration allows in its window, the address or the user is banned, and hears
//! so without a look at the password.
//!
//! A user's ban would be a weapon if it kept out the user himself. So it does not hold where he has logged in before, from
//! that address, since the broker started: there only the address's own count can ban, and what fails there does not count
//! against the user elsewhere. A user who comes from an address for the first time waits until the ban is over. What this
//! tells is little: whoever shares an address with a user, and has him banned, learns that he has logged in there.
//!
//! A name longer than any that `sol passwd` takes counts for its address alone: a ban keeps the name.
//!
//! Exempt addresses are neither counted nor banned, nor is who has none: on a Unix socket, or where a proxy does not say whom it
//! brings. A loopback address is exempt only of who connects from there: one that a proxy tells is of the proxy's machine.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sol_transport::Clock;

use super::tally::{Seen, Tally, Terms};
use super::{Peer, network};
use crate::config::Logins;
use crate::scram::USER_BYTES_MAX;
use crate::stats::LoginStats;

/// Whose a ban is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Banned {
    /// An address; of IPv6 the first of its /64.
    Address(IpAddr),
    /// A User Name.
    User(Box<str>),
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address @ IpAddr::V4(_)) => write!(f, "address {address}"),
            Self::Address(network @ IpAddr::V6(_)) => write!(f, "network {network}/64"),
            Self::User(user) => write!(f, "user {user}"),
        }
    }
}

/// A ban that holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ban {
    /// Whose it is.
    pub whose: Banned,
    /// How long it holds still.
    pub left: Duration,
}

/// What became of logins, by number.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) accepted: AtomicU64,
    pub(super) remembered: AtomicU64,
    pub(super) hashed: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) unfit: AtomicU64,
    pub(super) hook_accepted: AtomicU64,
    pub(super) hook_remembered: AtomicU64,
    pub(super) hook_denied: AtomicU64,
    pub(super) hook_ignored: AtomicU64,
    pub(super) hook_unfit: AtomicU64,
    pub(super) hook_silent: AtomicU64,
    pub(super) tokens_accepted: AtomicU64,
    pub(super) tokens_forged: AtomicU64,
    pub(super) tokens_untimely: AtomicU64,
    pub(super) tokens_unfit: AtomicU64,
    wrong: AtomicU64,
    of_banned_address: AtomicU64,
    of_banned_user: AtomicU64,
    bans: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) struct Guard {
    pub(super) counts: Counts,
    keys: RandomState,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Logins,
    addresses: Tally<Banned>,
    users: Tally<Banned>,
    /// Users at addresses that they have logged in from.
    seen: Seen,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            counts: Counts::default(),
            keys: RandomState::new(),
            clock: Clock::start(),
            state: Mutex::default(),
        }
    }

    /// Puts other rules in force; what was counted and who is banned stays.
    pub(super) fn set_rules(&self, rules: Logins) {
        self.state().rules = rules;
    }

    /// Whether a login is refused without a look at what it shows.
    pub(super) fn refuses(&self, peer: Option<Peer>, user: Option<&str>) -> bool {
        let now = self.now();
        let state = self.state();
        let Some((address, _)) = state.counted(peer) else {
            return false;
        };
        let refused = if state.addresses.is_banned(self.of_address(address), now) {
            &self.counts.of_banned_address
        } else if user.is_some_and(|user| {
            state.users.is_banned(self.of_user(user), now) && !state.seen.has(self.of_both(user, address))
        }) {
            &self.counts.of_banned_user
        } else {
            return false;
        };
        count(refused);
        true
    }

    /// Notes a login that was right.
    pub(super) fn succeeded(&self, peer: Option<Peer>, user: &str) {
        count(&self.counts.accepted);
        let mut state = self.state();
        if let Some((address, _)) = state.counted(peer) {
            let both = self.of_both(user, address);
            state.seen.note(both);
        }
    }

    /// Notes a login that was wrong, of a user if it told one; a ban that comes of it is logged.
    pub(super) fn failed(&self, peer: Option<Peer>, user: Option<&str>) {
        count(&self.counts.wrong);
        let now = self.now();
        let mut state = self.state();
        let (Some(peer), Some((address, terms))) = (peer, state.counted(peer)) else {
            return;
        };
        let address_banned = state
            .addresses
            .fail(self.of_address(address), now, &terms, || Banned::Address(address));
        let elsewhere =
            user.filter(|user| user.len() <= USER_BYTES_MAX && !state.seen.has(self.of_both(user, address)));
        let user_banned = elsewhere.filter(|user| {
            let whose = || Banned::User((*user).into());
            state.users.fail(self.of_user(user), now, &terms, whose)
        });
        drop(state);
        let (address, failures, seconds) = (peer.ip(), terms.failures_max, terms.ban.as_secs());
        if address_banned {
            count(&self.counts.bans);
            // Nothing that a client has chosen stands in this line: other programs act on it.
            tracing::warn!(%address, failures, seconds, "address banned: too many failed logins");
        }
        if let Some(user) = user_banned {
            count(&self.counts.bans);
            tracing::warn!(user, %address, failures, seconds, "user banned: too many failed logins");
        }
    }

    /// Every ban that holds.
    pub(super) fn bans(&self) -> Vec<Ban> {
        let now = self.now();
        let state = self.state();
        let bans = state.addresses.bans(now).chain(state.users.bans(now));
        let whose = bans.map(|(whose, left)| Ban {
            whose: whose.clone(),
            left,
        });
        whose.collect()
    }

    /// Ends a ban; whether there was one.
    pub(super) fn lift(&self, whose: &Banned) -> bool {
        let now = self.now();
        let mut state = self.state();
        match whose {
            Banned::Address(address) => state.addresses.lift(self.of_address(network(*address)), now),
            Banned::User(user) => state.users.lift(self.of_user(user), now),
        }
    }

    pub(super) fn stats(&self) -> LoginStats {
        let now = self.now();
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.state();
        let counts = &self.counts;
        LoginStats {
            accepted: number(&counts.accepted),
            remembered: number(&counts.remembered),
            hashed: number(&counts.hashed),
            wrong: number(&counts.wrong),
            unfit: number(&counts.unfit),
            hook_accepted: number(&counts.hook_accepted),
            hook_remembered: number(&counts.hook_remembered),
            hook_denied: number(&counts.hook_denied),
            hook_ignored: number(&counts.hook_ignored),
            hook_unfit: number(&counts.hook_unfit),
            hook_silent: number(&counts.hook_silent),
            tokens_accepted: number(&counts.tokens_accepted),
            tokens_forged: number(&counts.tokens_forged),
            tokens_untimely: number(&counts.tokens_untimely),
            tokens_unfit: number(&counts.tokens_unfit),
            of_banned_address: number(&counts.of_banned_address),
            of_banned_user: number(&counts.of_banned_user),
            busy: number(&counts.busy),
            bans: number(&counts.bans),
            banned_addresses: state.addresses.bans(now).count() as u64,
            banned_users: state.users.bans(now).count() as u64,
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now_on_the_wall(&self) -> u64 {
        self.clock.now().wall.as_millis()
    }

    fn now(&self) -> u64 {
        self.clock.now().mono.as_nanos()
    }

    // 0 is no key.
    fn of_address(&self, address: IpAddr) -> u64 {
        self.keys.hash_one(address).max(1)
    }

    fn of_user(&self, user: &str) -> u64 {
        self.keys.hash_one(user).max(1)
    }

    fn of_both(&self, user: &str, address: IpAddr) -> u64 {
        self.keys.hash_one((user, address)).max(1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What counts as the address of a peer whose logins are counted, and when it is too much.
    fn counted(&self, peer: Option<Peer>) -> Option<(IpAddr, Terms)> {
        let (peer, failures_max) = (peer?, self.rules.failures_max?);
        let is_named = self.rules.ban_exempt.iter().any(|network| network.contains(peer.ip()));
        // Loopback addresses are named for proxies that do not say whom they bring.
        let exempt = is_named && (peer.is_local() || !peer.ip().is_loopback());
        let terms = Terms {
            failures_max,
            window: self.rules.failures_window,
            ban: self.rules.ban,
        };
        (!exempt).then(|| (network(peer.ip()), terms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1";
    const THERE: &str = "192.0.2.2";

    fn guard(ban: Duration) -> Guard {
        let guard = Guard::new();
        guard.set_rules(Logins {
            failures_max: Some(3),
            ban,
            ..Logins::default()
        });
        guard
    }

    fn peer(address: &str) -> Option<Peer> {
        Some(Peer {
            address: (address.parse::<IpAddr>().unwrap(), 1).into(),
            is_brought: false,
        })
    }

    fn fail(guard: &Guard, address: &str, user: &str, times: usize) {
        (0..times).for_each(|_| guard.failed(peer(address), Some(user)));
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    /// An address that fails too often is refused whatever user it names, and its /64 with it; another is not.
    #[test]
    fn addresses() {
        for (address, same, other) in [
            (HERE, "::ffff:192.0.2.1", THERE),
            ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ] {
            let guard = guard(HOUR);
            for user in ["ann", "bob"] {
                fail(&guard, address, user, 1);
            }
            assert!(!guard.refuses(peer(address), Some("eve")));
            guard.failed(peer(address), None);
            assert!(guard.refuses(peer(address), Some("eve")) && guard.refuses(peer(same), None));
            assert!(!guard.refuses(peer(other), Some("ann")));
            let bans = guard.bans();
            assert_eq!(bans.len(), 1);
            assert!(bans[0].left <= HOUR && bans[0].left > HOUR / 2);
            assert!(guard.lift(&Banned::Address(same.parse().unwrap())));
            assert!(!guard.refuses(peer(address), Some("ann")) && guard.bans().is_empty());
        }
    }

    /// A user whom many addresses guess at is refused everywhere but where he has logged in before; what fails there counts
    /// against the address alone. Nobody is refused for what is exempt, or has no address, and a ban ends.
    #[test]
    fn users() {
        let guard = guard(HOUR);
        guard.succeeded(peer(HERE), "ann");
        for n in 1..=3 {
            fail(&guard, &format!("198.51.100.{n}"), "ann", 1);
        }
        assert_eq!(
            guard.bans().iter().map(|ban| ban.whose.to_string()).collect::<Vec<_>>(),
            ["user ann"]
        );
        assert!(guard.refuses(peer(THERE), Some("ann")));
        assert!(!guard.refuses(peer(HERE), Some("ann")) && !guard.refuses(peer(THERE), Some("bob")));
        assert!(!guard.refuses(None, Some("ann")) && !guard.refuses(peer("127.0.0.1"), Some("ann")));
        fail(&guard, "127.0.0.1", "bob", 100);
        (0..100).for_each(|_| guard.failed(None, Some("bob")));
        assert!(!guard.refuses(peer("127.0.0.1"), Some("bob")) && !guard.refuses(peer(THERE), Some("bob")));
        assert!(guard.lift(&Banned::User("ann".into())) && !guard.refuses(peer(THERE), Some("ann")));
        fail(&guard, HERE, "ann", 3);
        assert!(guard.refuses(peer(HERE), Some("ann")), "the address");
        assert!(!guard.refuses(peer(THERE), Some("ann")), "and not the user");
        let stats = guard.stats();
        assert_eq!((stats.wrong, stats.accepted, stats.bans), (206, 1, 2));
        assert_eq!((stats.of_banned_user, stats.of_banned_address), (1, 1));
        assert_eq!((stats.banned_users, stats.banned_addresses), (0, 1));
    }

    /// Where a proxy says that a client is on the proxy's own machine, that is no exemption: it is banned as any other.
    #[test]
    fn loopback_behind_a_proxy() {
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let guard = guard(HOUR);
            let brought = peer(address).map(|peer| Peer {
                is_brought: true,
                ..peer
            });
            (0..3).for_each(|_| guard.failed(brought, Some("ann")));
            assert!(guard.refuses(brought, Some("bob")), "{address}");
            assert!(
                !guard.refuses(peer(address), Some("ann")),
                "who connects from here is exempt"
            );
        }
    }

    /// A name that is too long for `sol passwd` is not kept with a ban; its address is banned for it as for any.
    #[test]
    fn long_names() {
        let guard = guard(HOUR);
        for (bytes, banned) in [(USER_BYTES_MAX, true), (USER_BYTES_MAX + 1, false)] {
            let user = "x".repeat(bytes);
            (1..=3).for_each(|n| fail(&guard, &format!("198.51.100.{n}"), &user, 1));
            assert_eq!(guard.refuses(peer(THERE), Some(&user)), banned, "{bytes}");
        }
        fail(&guard, HERE, &"x".repeat(65_535), 3);
        assert!(guard.refuses(peer(HERE), Some("ann")));
    }

    /// Other rules hold from now on, and bans stay; with no limit there is none.
    #[test]
    fn other_rules() {
        let guard = guard(HOUR);
        fail(&guard, HERE, "ann", 3);
        guard.set_rules(Logins {
            failures_max: None,
            ..Logins::default()
        });
        fail(&guard, THERE, "ann", 1_000);
        assert!(!guard.refuses(peer(THERE), Some("ann")) && !guard.refuses(peer(HERE), Some("ann")));
        guard.set_rules(Logins::default());
        assert!(guard.refuses(peer(HERE), Some("ann")));
        guard.set_rules(Logins {
            ban_exempt: vec!["192.0.2.0/24".parse().unwrap()],
            ..Logins::default()
        });
        assert!(!guard.refuses(peer(HERE), Some("ann")));
    }
}
