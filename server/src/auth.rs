//! Checks logins on threads of its own, so that no shard ever waits for a hash.
//!
//! A plain password that was right once is remembered as a keyed hash bound to the stored entry and answered at once: when
//! ten thousand clients reconnect, each costs microseconds, and none of them waits behind somebody who guesses. Any other
//! password enters a bounded queue, with few places for one address, and its verdict comes back through the request's own
//! `reply`, on a verifier thread. Wrong passwords and unknown users are never remembered and always cost a full hash. Tokens have
//! a queue and a thread of their own, where nobody hashes.
//!
//! Addresses and users that fail too often are refused without a look for a while, as `guard` says.
//!
//! A step of SCRAM costs the broker a few HMACs, whoever it is about, since it is the client that computes the hash. So it
//! is answered at once, too, and no flood of passwords delays it. Nothing is kept between the steps: what has to be
//! remembered of an exchange goes out with its challenge and comes back with the client's answer, which is checked against
//! the users of that moment. What an answer or its time tells of who exists is said in `judge`.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sol_engine::{ChangedUser, Grant};

pub use self::chain::Chains;
use self::guard::count;
pub use self::guard::{Ban, Banned};
use self::judge::{Judge, Pending, survive};
pub use self::user_files::UserFiles;
use crate::config::Logins;
use crate::stats::LoginStats;
use crate::stored::Scratch;

mod chain;
mod guard;
mod judge;
mod tally;
mod user_files;

/// Logins of one address that may wait at a time. Who connects from this machine is not counted: it may be a
/// proxy that does not say whom it brings.
pub const WAITING_PER_ADDRESS_MAX: u32 = 32;

/// The same of logins by a token, which costs microseconds where no hook is asked before: many clients may come from one address at once.
pub const TOKENS_PER_ADDRESS_MAX: u32 = 512;

/// What a check found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The password is this user's.
    Accepted,
    /// Something else vouches for the client, and says more of it.
    Granted(Box<Grant>),
    /// SCRAM has proven that the client is this user.
    Proven {
        /// The user.
        user: String,
        /// To be said to the client.
        message: Vec<u8>,
    },
    /// SCRAM challenges the client.
    Continue {
        /// To be said to the client.
        message: Vec<u8>,
        /// To be brought back with the client's answer.
        memo: Vec<u8>,
    },
    /// There is no such user, or the password is another. Nobody is told which.
    Refused,
    /// Nobody has looked at it: its address or its user has failed too often.
    Banned,
    /// Who knows does not answer.
    Unavailable,
}

/// What somebody shows to be let in.
pub enum Login {
    /// A password.
    Password {
        /// The User Name.
        user: Option<String>,
        /// The Password, any bytes.
        password: Vec<u8>,
    },
    /// A step of SCRAM-SHA-256.
    Scram {
        /// What [`Verdict::Continue`] had to be brought back; `None` at the first step.
        memo: Option<Vec<u8>>,
        /// The client's message, any bytes.
        message: Vec<u8>,
    },
}

/// What is another when users were replaced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Users of password files.
    pub users: Vec<ChangedUser>,
    /// The listeners, by their place in the configuration, where a token or a hook let somebody in who may not come in by it
    /// now.
    pub grants_lost_at: Vec<usize>,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its address and port.
    pub address: SocketAddr,
    /// It is a proxy that says so. What a proxy calls its own machine is not this one.
    pub is_brought: bool,
}

impl Peer {
    /// Its address, of IPv4 always as such.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Whether it has connected from this machine itself: a proxy here is one address for all its clients.
    fn is_local(&self) -> bool {
        self.ip().is_loopback() && !self.is_brought
    }
}

/// One login to check.
pub struct Request {
    /// What is shown.
    pub login: Login,
    /// Where it came in: the place of the listener in the configuration.
    pub listener: usize,
    /// Client Identifier, as the client gave it.
    pub client_id: Box<str>,
    /// The Protocol Level: 3, 4 or 5.
    pub version: u8,
    /// Where the client is; `None` on a Unix socket, and if its proxy does not say.
    pub peer: Option<Peer>,
    /// The Common Name of the certificate that it has shown, if it has.
    pub common_name: Option<Box<str>>,
    /// Called at most once with the verdict, on the caller's thread or a verifier's; should only post it. It is dropped
    /// uncalled if the check itself fails or the broker stops.
    pub reply: Box<dyn FnOnce(Verdict) + Send>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("user", &self.user())
            .finish_non_exhaustive()
    }
}

impl Request {
    /// The User Name, where one stands beside the password.
    pub fn user(&self) -> Option<&str> {
        match &self.login {
            Login::Password { user, .. } => user.as_deref(),
            Login::Scram { .. } => None,
        }
    }
}

/// The queue, or this address's share of it, is full: answer "Server busy" (0x89; 3.1.1: 3) at once. Holds the request, so that nothing is lost.
#[derive(Debug)]
pub struct Full(pub Box<Request>);

/// A bounded pool of threads that check passwords, and one for tokens. Dropping it ends them and leaves what is queued
/// unanswered.
pub struct Verifier {
    queues: Option<Queues>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Queues {
    passwords: Sender<Waiting>,
    tokens: Sender<Waiting>,
}

/// Which of the queues.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Line {
    Passwords,
    Tokens,
}

impl Line {
    const fn per_address_max(self) -> u32 {
        match self {
            Self::Passwords => WAITING_PER_ADDRESS_MAX,
            Self::Tokens => TOKENS_PER_ADDRESS_MAX,
        }
    }
}

/// In which queue, and what counts as one address.
type Whose = (Line, IpAddr);

struct Shared {
    judge: Judge,
    waiting: Mutex<HashMap<Whose, u32>>,
    stopping: AtomicBool,
}

/// A request in the queue, with its place among those of its address.
struct Waiting {
    request: Request,
    place: Option<Place>,
}

/// One of the places of an address; given back when dropped.
struct Place {
    whose: Whose,
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting();
        if let Some(count) = waiting.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.whose);
            }
        }
    }
}

impl Verifier {
    /// Starts `threads` threads behind a queue of `queue` requests, and one for tokens behind another.
    ///
    /// # Errors
    /// The system has no thread or no randomness to give.
    pub fn new(users: impl Into<UserFiles>, threads: usize, queue: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            judge: Judge::new(users.into())?,
            waiting: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let (passwords, passwords_waiting) = bounded(queue);
        let (tokens, tokens_waiting) = bounded(queue);
        let start = |name: String, waiting: &Receiver<Waiting>| {
            let (shared, waiting) = (Arc::clone(&shared), waiting.clone());
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(move || shared.work(&waiting))
        };
        let threads = (0..threads.max(1))
            .map(|index| start(format!("sol-auth-{index}"), &passwords_waiting))
            .chain(std::iter::once_with(|| start("sol-token".to_owned(), &tokens_waiting)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            queues: Some(Queues { passwords, tokens }),
            shared,
            threads,
        })
    }

    /// Answers who is banned, a step of SCRAM and a password that was right before, and queues any other; never waits for a
    /// hash.
    ///
    /// # Errors
    /// [`Full`] with the request, if the queue or the share of its address is full.
    pub fn submit(&self, request: Request) -> Result<(), Full> {
        let Some(request) = self.shared.judge.answer_at_once(request) else {
            return Ok(());
        };
        self.enqueue(request)
            .inspect_err(|_| count(&self.shared.judge.guard.counts.busy))
    }

    fn enqueue(&self, request: Request) -> Result<(), Full> {
        let Some(queues) = &self.queues else {
            return Err(Full(Box::new(request)));
        };
        let (line, queue) = if self.shared.judge.is_settled_by_token(&request) {
            (Line::Tokens, &queues.tokens)
        } else {
            (Line::Passwords, &queues.passwords)
        };
        let counted = request.peer.filter(|peer| !peer.is_local());
        let place = match counted.map(|peer| network(peer.ip())) {
            None => None,
            Some(address) => match self.place((line, address)) {
                None => return Err(Full(Box::new(request))),
                place => place,
            },
        };
        queue.try_send(Waiting { request, place }).map_err(|error| match error {
            TrySendError::Full(waiting) | TrySendError::Disconnected(waiting) => Full(Box::new(waiting.request)),
        })
    }

    fn place(&self, whose: Whose) -> Option<Place> {
        let mut waiting = self.shared.waiting();
        let count = waiting.entry(whose).or_default();
        if *count >= whose.0.per_address_max() {
            return None;
        }
        *count += 1;
        Some(Place {
            whose,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Requests waiting for a thread.
    pub fn queued(&self) -> usize {
        let queues = self.queues.as_ref();
        queues.map_or(0, |queues| queues.passwords.len() + queues.tokens.len())
    }

    /// Puts other users in force, and says whose logins are others than before. Whoever is let in by an entry of the old ones
    /// was answered before this returns.
    pub fn replace(&self, users: impl Into<UserFiles>) -> Changes {
        self.shared.judge.replace(users.into())
    }

    /// Puts other rules in force of how many logins may fail; who is banned stays so.
    pub fn limit(&self, rules: Logins) {
        self.shared.judge.guard.set_rules(rules);
    }

    /// Every ban that holds.
    pub fn bans(&self) -> Vec<Ban> {
        self.shared.judge.guard.bans()
    }

    /// Ends a ban; whether there was one.
    pub fn lift(&self, whose: &Banned) -> bool {
        self.shared.judge.guard.lift(whose)
    }

    /// What became of logins.
    pub fn stats(&self) -> LoginStats {
        self.shared.judge.guard.stats()
    }

    /// Whether a listener has any user to ask.
    pub fn has_users_at(&self, listener: usize) -> bool {
        self.shared.judge.files().count_at(listener) > 0
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.queues = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Answers what is queued, one after the other, until the verifier ends.
    fn work(self: &Arc<Self>, queue: &Receiver<Waiting>) {
        let mut scratch = Scratch::default();
        for Waiting { request, place } in queue {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            if let Some(pending) = self.judge.answer(request, 0, &mut scratch, move || drop(place)) {
                self.ask(pending);
            }
            // Kept in a storm alone: a broker that nobody logs in to has the memory back.
            if queue.is_empty() {
                scratch.clear();
            }
        }
    }

    /// Has a hook's own thread ask it.
    fn ask<C: FnOnce() + Send + 'static>(self: &Arc<Self>, pending: Pending<C>) {
        let (shared, hook) = (Arc::clone(self), Arc::clone(&pending.hook));
        if hook.is_full() {
            return self.judge.answer_busy(pending);
        }
        // Should its last place be taken in between, the login is dropped, and refused.
        hook.run(Box::new(move || {
            survive(move || {
                if let Some(pending) = shared.judge.answer_by_hook(pending) {
                    shared.ask(pending);
                }
            });
        }));
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Whose, u32>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one address: of IPv6 the /64, which is one subscriber's to choose from.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests;
