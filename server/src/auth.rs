//! Checks passwords on threads of its own, so that no shard ever waits for a hash.
//!
//! A request enters a bounded queue and its verdict comes back through the request's own `reply`, on a verifier thread.
//! A login that was right once is remembered as a keyed hash bound to the stored entry: when ten thousand clients
//! reconnect at once, each costs microseconds. Wrong passwords and unknown users are never remembered and always cost
//! the full hash, both the same.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sha2::{Digest, Sha512_256};
use subtle::ConstantTimeEq;

use crate::config::Diagnostic;
use crate::password_file::{PASSWORD_BYTES_MAX, Stored, Users};

/// What a check found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The password is this user's.
    Accepted,
    /// There is no such user, or the password is another. Nobody is told which.
    Refused,
}

/// One login to check.
pub struct Request {
    /// The User Name.
    pub user: String,
    /// The Password, any bytes.
    pub password: Vec<u8>,
    /// Called exactly once with the verdict, on a verifier thread; should only post it.
    pub reply: Box<dyn FnOnce(Verdict) + Send>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The queue is full: answer "Server busy" (0x89; 3.1.1: 3) at once. Holds the request, so that nothing is lost.
#[derive(Debug)]
pub struct Full(pub Request);

/// A bounded pool of threads that check passwords. Dropping it finishes what is queued and ends them.
pub struct Verifier {
    queue: Option<Sender<Request>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    users: RwLock<Arc<Users>>,
    cache: Mutex<HashMap<Box<str>, Tag>>,
    key: [u8; 32],
}

/// A keyed hash of stored entry and password.
type Tag = [u8; 32];

impl Verifier {
    /// Starts `threads` threads behind a queue of `queue` requests.
    ///
    /// # Errors
    /// The system has no thread or no randomness to give.
    pub fn new(users: Users, threads: usize, queue: usize) -> io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            users: RwLock::new(Arc::new(users)),
            cache: Mutex::default(),
            key,
        });
        let (sender, receiver) = bounded(queue);
        let threads = (0..threads.max(1))
            .map(|index| {
                let (shared, receiver): (_, Receiver<Request>) = (Arc::clone(&shared), receiver.clone());
                std::thread::Builder::new()
                    .name(format!("sol-auth-{index}"))
                    .spawn(move || receiver.iter().for_each(|request| shared.answer(request)))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            queue: Some(sender),
            shared,
            threads,
        })
    }

    /// Queues a login; never waits.
    ///
    /// # Errors
    /// [`Full`] with the request, if the queue is full.
    pub fn submit(&self, request: Request) -> Result<(), Full> {
        let Some(queue) = &self.queue else {
            return Err(Full(request));
        };
        queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => Full(request),
        })
    }

    /// Requests waiting for a thread.
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }

    /// Reads the password file anew. What is wrong with it leaves the old users in force.
    ///
    /// # Errors
    /// As [`Users::load`].
    pub fn reload(&self, path: &Path) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let (users, warnings) = Users::load(path)?;
        self.replace(users);
        Ok(warnings)
    }

    /// Puts other users in force.
    pub fn replace(&self, users: Users) {
        *self.shared.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
        // The tags of changed entries would never match again; this gives their memory back.
        self.shared.cache().clear();
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.queue = None;
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
    fn answer(&self, request: Request) {
        let Request { user, password, reply } = request;
        let accepted = self.verify(&user, &password);
        reply(if accepted { Verdict::Accepted } else { Verdict::Refused });
    }

    fn verify(&self, user: &str, password: &[u8]) -> bool {
        let users = Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner));
        let tag = users
            .get(user)
            .filter(|_| password.len() <= PASSWORD_BYTES_MAX)
            .map(|stored| self.tag(stored, password));
        if tag.is_some_and(|tag| self.cache().get(user).is_some_and(|known| known.ct_eq(&tag).into())) {
            return true;
        }
        let accepted = users.verify(user, password);
        if let Some(tag) = tag.filter(|_| accepted) {
            // One tag a user, and only for users of the file: the map is bounded by the file.
            self.cache().insert(user.into(), tag);
        }
        accepted
    }

    fn tag(&self, stored: &Stored, password: &[u8]) -> Tag {
        let entry = stored.as_str().as_bytes();
        let digest = Sha512_256::new()
            .chain_update(self.key)
            .chain_update(entry.len().to_le_bytes())
            .chain_update(entry)
            .chain_update(password);
        digest.finalize().into()
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Tag>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passwd::hash_password;
    use std::sync::mpsc;

    fn users(entries: &[(&str, &[u8])]) -> Users {
        let lines: String = entries
            .iter()
            .map(|(user, password)| format!("{user}:{}\n", hash_password(password).unwrap()))
            .collect();
        Users::parse("p".as_ref(), lines.as_bytes()).unwrap()
    }

    fn ask(verifier: &Verifier, user: &str, password: &[u8]) -> Verdict {
        let (sender, receiver) = mpsc::channel();
        let reply = Box::new(move |verdict| sender.send(verdict).unwrap());
        verifier
            .submit(Request {
                user: user.to_owned(),
                password: password.to_vec(),
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
            verifier.shared.cache().len(),
            2,
            "only right logins are remembered, one a user"
        );
    }

    /// A changed password is in force at once, although the old one was remembered; a removed user is gone.
    #[test]
    fn replacing_users() {
        let verifier = Verifier::new(users(&[("ann", b"old"), ("bob", b"b")]), 1, 8).unwrap();
        assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Accepted);
        assert_eq!(ask(&verifier, "bob", b"b"), Verdict::Accepted);
        verifier.replace(users(&[("ann", b"new")]));
        assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Refused);
        assert_eq!(ask(&verifier, "ann", b"new"), Verdict::Accepted);
        assert_eq!(ask(&verifier, "bob", b"b"), Verdict::Refused);
    }

    /// A tag is bound to the stored entry: even a remembered login does not outlive it.
    #[test]
    fn tags_are_bound_to_the_entry() {
        let verifier = Verifier::new(users(&[("ann", b"old")]), 1, 8).unwrap();
        assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Accepted);
        let remembered = verifier.shared.cache().clone();
        verifier.replace(users(&[("ann", b"new")]));
        *verifier.shared.cache() = remembered;
        assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Refused);
    }

    /// A full queue answers at once and hands the request back; what was queued is still answered.
    #[test]
    fn full_queue() {
        let verifier = Verifier::new(Users::none(), 1, 1).unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let (started, starts) = mpsc::channel();
        let (sender, receiver) = mpsc::channel();
        let first = Box::new(move |_| {
            started.send(()).unwrap();
            let _ = held.recv();
        });
        let request = |reply| Request {
            user: "u".to_owned(),
            password: b"p".to_vec(),
            reply,
        };
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
        assert_eq!(third.user, "u");
        drop(hold);
        assert_eq!(receiver.recv().unwrap(), Verdict::Refused);
        (third.reply)(Verdict::Refused);
        assert_eq!(receiver.recv().unwrap(), Verdict::Refused);
    }

    /// A broken file at reload keeps the old users in force.
    #[test]
    fn reload_keeps_old_users_on_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        let verifier = Verifier::new(users(&[("ann", b"old")]), 1, 8).unwrap();
        std::fs::write(&path, "ann\n").unwrap();
        assert!(verifier.reload(&path).is_err());
        assert!(verifier.reload(&dir.path().join("absent")).is_err());
        assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Accepted);
        std::fs::write(&path, format!("ann:{}\n", hash_password(b"new").unwrap())).unwrap();
        assert!(verifier.reload(&path).is_ok());
        assert_eq!(ask(&verifier, "ann", b"old"), Verdict::Refused);
    }
}
