//! Who is let in: the users in force, the passwords that were right before, and SCRAM. Knows of no thread or queue.
//!
//! # Which users exist
//! is told to nobody by an answer or its time. A name without a user has a stand-in of a kind that some users have; a plain
//! password for it costs what one costs for those, and SCRAM asks what it asks of them. A user without keys for SCRAM is
//! challenged as if he had some. Challenges for one name have the same salt and iterations each time. Not hidden is what a
//! change makes visible: stand-ins depend on a secret that ends with the process, so that over a restart the salt of a user
//! stays and that of nobody is another; and on how many entries are of which kind, so that a stand-in may be of another
//! kind when the file is read again. Nor is hidden that a password which was right before is answered sooner: it is right.

use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha512_256};
use sol_engine::{ChangedUser, Grant};

use super::chain::Step;
use super::guard::{Guard, count};
use super::user_files::{Tag, UserFile, UserFiles};
use super::{Login, Request, Verdict};
use crate::jwt;
use crate::password_file::{Pick, Users};
use crate::scram::{Challenge, Closing, Fault, Keys, Opening};
use crate::stored::{PASSWORD_BYTES_MAX, Scratch, Stored};

/// Random bytes of a nonce of SCRAM.
const NONCE_BYTES: usize = 18;

/// What those who were asked say of a login.
enum Decision {
    /// The password is this user's.
    Accepted,
    /// Let in, and more.
    Granted(Box<Grant>),
    /// Wrong, as who guesses is.
    Refused,
    /// Genuine, and not to be let in: nobody's guess, so it bans nobody.
    Unfit,
}

/// The users in force, and what is remembered of them.
pub(super) struct Judge {
    pub(super) guard: Guard,
    files: RwLock<Arc<UserFiles>>,
    key: [u8; 32],
}

impl Judge {
    /// # Errors
    /// The system has no randomness to give.
    pub(super) fn new(files: UserFiles) -> io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Self {
            guard: Guard::new(),
            files: RwLock::new(Arc::new(files)),
            key,
        })
    }

    /// See [`super::Verifier::replace`].
    pub(super) fn replace(&self, mut files: UserFiles) -> Vec<ChangedUser> {
        let mut present = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let changed = files.succeed(&present);
        *present = Arc::new(files);
        changed
    }

    /// Checks and answers a password, whatever it costs. `checked` is called between the two.
    pub(super) fn answer(&self, request: Request, scratch: &mut Scratch, checked: impl FnOnce()) {
        // Whatever else there is was answered at once.
        if let Request {
            login: Login::Password { user, password },
            listener,
            peer,
            reply,
        } = request
        {
            survive(|| {
                // Banned while it waited.
                if self.guard.refuses(peer, user.as_deref()) {
                    checked();
                    return reply(Verdict::Banned);
                }
                let (decision, _in_force) = self.decide_in_force(listener, user.as_deref(), &password, scratch);
                checked();
                // Before the answer: who tries again when he has it is counted.
                reply(self.conclude(decision, peer, user.as_deref()));
            });
        }
    }

    /// Counts what was decided of a login, and says it.
    fn conclude(&self, decision: Decision, peer: Option<IpAddr>, user: Option<&str>) -> Verdict {
        match decision {
            Decision::Accepted => {
                self.guard.succeeded(peer, user.unwrap_or_default());
                Verdict::Accepted
            }
            Decision::Granted(grant) => {
                let user = grant.username.as_deref().or(user);
                self.guard.succeeded(peer, user.unwrap_or_default());
                Verdict::Granted(grant)
            }
            Decision::Refused => {
                self.guard.failed(peer, user);
                Verdict::Refused
            }
            Decision::Unfit => {
                count(&self.guard.counts.unfit);
                Verdict::Refused
            }
        }
    }

    /// Asks those whom a listener asks, until one knows the client.
    fn decide(
        &self,
        files: &UserFiles,
        listener: usize,
        user: Option<&str>,
        password: &[u8],
        scratch: &mut Scratch,
    ) -> Decision {
        let file = files.at(listener);
        let mut passed_passwords = None;
        let mut decision = Decision::Refused;
        for step in files.chain_at(listener) {
            match (step, user) {
                (Step::Passwords, Some(user)) if file.users.get(user).is_some() => {
                    let accepted = self.verify(file, user, password, scratch);
                    return if accepted {
                        Decision::Accepted
                    } else {
                        Decision::Refused
                    };
                }
                (Step::Passwords, user) => passed_passwords = user,
                (Step::Tokens(tokens), _) => {
                    let now = self.guard.now_on_the_wall();
                    if let Some(judged) = tokens.judge(password, now) {
                        decision = self.of_token(judged, user);
                        break;
                    }
                }
            }
        }
        // Who is none of the password file's is refused after as long as who is one.
        if let (Decision::Refused | Decision::Unfit, Some(user)) = (&decision, passed_passwords) {
            self.verify(file, user, password, scratch);
        }
        decision
    }

    fn of_token(&self, judged: Result<Grant, jwt::Fault>, user: Option<&str>) -> Decision {
        let counts = &self.guard.counts;
        let user = user.unwrap_or_default();
        match judged {
            Ok(grant) => {
                count(&counts.tokens_accepted);
                Decision::Granted(Box::new(grant))
            }
            Err(jwt::Fault::Forged(why)) => {
                count(&counts.tokens_forged);
                tracing::debug!(user, "token refused: {why}");
                Decision::Refused
            }
            // Nobody guesses at these: they say no more of an address than that its client is late, or badly set up.
            Err(jwt::Fault::Untimely(why)) => {
                count(&counts.tokens_untimely);
                tracing::info!(user, "token refused: {why}");
                Decision::Unfit
            }
            Err(jwt::Fault::Unfit(why)) => {
                count(&counts.tokens_unfit);
                tracing::warn!(user, "token refused: {why}");
                Decision::Unfit
            }
        }
    }

    /// A step of SCRAM; costs microseconds.
    fn scram(&self, users: &Users, peer: Option<IpAddr>, memo: Option<&[u8]>, message: &[u8]) -> Verdict {
        let step = match memo {
            None => self.scram_challenge(users, peer, message),
            Some(memo) => self.scram_verdict(users, peer, memo, message),
        };
        // The refusal itself is logged where the client is known.
        step.unwrap_or_else(|fault| {
            tracing::debug!("a step of SCRAM is wrong: {fault}");
            self.guard.failed(peer, None);
            Verdict::Refused
        })
    }

    fn scram_challenge(&self, users: &Users, peer: Option<IpAddr>, message: &[u8]) -> Result<Verdict, Fault> {
        let opening = Opening::parse(message)?;
        if self.guard.refuses(peer, Some(opening.user())) {
            return Ok(Verdict::Banned);
        }
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Fault("the system has no randomness"))?;
        let (_, keys) = self.scram_keys(users, opening.user());
        let Challenge { message, memo } = opening.challenge(&keys, &Base64::encode_string(&nonce));
        Ok(Verdict::Continue {
            message: message.into_bytes(),
            memo: memo.into_bytes(),
        })
    }

    fn scram_verdict(
        &self,
        users: &Users,
        peer: Option<IpAddr>,
        memo: &[u8],
        message: &[u8],
    ) -> Result<Verdict, Fault> {
        let closing = Closing::parse(memo, message)?;
        let user = closing.user();
        if self.guard.refuses(peer, Some(user)) {
            return Ok(Verdict::Banned);
        }
        let (exists, keys) = self.scram_keys(users, user);
        let Some(message) = closing.verify(&keys).filter(|_| exists) else {
            self.guard.failed(peer, Some(user));
            return Ok(Verdict::Refused);
        };
        self.guard.succeeded(peer, user);
        Ok(Verdict::Proven {
            user: user.to_owned(),
            message: message.into_bytes(),
        })
    }

    /// The keys of a user, or what stands in for them, and whether they are a user's. Takes as long for either.
    fn scram_keys(&self, users: &Users, user: &str) -> (bool, Keys) {
        let stand_in = Keys::of_nobody(&self.key, user, users.scram_kind(user, self.pick(user)));
        match users.scram(user) {
            Some(keys) => (true, keys.clone()),
            None => (false, stand_in),
        }
    }

    /// Answers who is banned, a step of SCRAM, and a password that was right before if its entry is the same still; else gives
    /// it back.
    pub(super) fn answer_at_once(&self, request: Request) -> Option<Request> {
        // Held until it is answered: see [`Judge::replace`].
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let file = files.at(request.listener);
        let peer = request.peer;
        match request.login {
            Login::Scram { memo, message } => {
                survive(|| (request.reply)(self.scram(&file.users, peer, memo.as_deref(), &message)));
                None
            }
            Login::Password { ref user, .. } if self.guard.refuses(peer, user.as_deref()) => {
                (request.reply)(Verdict::Banned);
                None
            }
            Login::Password {
                user: Some(ref user),
                ref password,
            } if files.asks_passwords_at(request.listener) => match self.known(file, user, password) {
                Some((_, true)) => {
                    self.guard.succeeded(peer, user);
                    count(&self.guard.counts.remembered);
                    (request.reply)(Verdict::Accepted);
                    None
                }
                _ => Some(request),
            },
            Login::Password { .. } => Some(request),
        }
    }

    /// Checks a login by the users that are in force when the check is done, and keeps them in force while the answer
    /// is held.
    fn decide_in_force(
        &self,
        listener: usize,
        user: Option<&str>,
        password: &[u8],
        scratch: &mut Scratch,
    ) -> (Decision, RwLockReadGuard<'_, Arc<UserFiles>>) {
        loop {
            let files = self.files();
            let decision = self.decide(&files, listener, user, password, scratch);
            let present = self.files.read().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&files, &present) {
                return (decision, present);
            }
        }
    }

    /// The tag of a user of the file, and whether it is remembered.
    fn known(&self, file: &UserFile, user: &str, password: &[u8]) -> Option<(Tag, bool)> {
        let allowed = password.len() <= PASSWORD_BYTES_MAX;
        let stored = file.users.get(user).filter(|_| allowed)?;
        let tag = self.tag(stored, password);
        Some((tag, file.knows(user, &tag)))
    }

    fn verify(&self, file: &UserFile, user: &str, password: &[u8], scratch: &mut Scratch) -> bool {
        let tag = match self.known(file, user, password) {
            Some((_, true)) => return true,
            Some((tag, false)) => Some(tag),
            None => None,
        };
        count(&self.guard.counts.hashed);
        let accepted = file.users.verify(user, password, self.pick(user), scratch);
        if let Some(tag) = tag.filter(|_| accepted) {
            file.remember(user, tag);
        }
        accepted
    }

    pub(super) fn files(&self) -> Arc<UserFiles> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which stand-in this name has, for as long as the broker runs.
    fn pick(&self, user: &str) -> Pick {
        let digest = Sha512_256::new()
            .chain_update(self.key)
            .chain_update(b"stand-in of ")
            .chain_update(user);
        let halves: Tag = digest.finalize().into();
        let number = |at: usize| {
            halves[at..at + 8]
                .iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        Pick {
            kind: number(0),
            scram_kind: number(8),
        }
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
}

/// Runs the check of one login, whose fault must not cost all later ones their thread.
fn survive(check: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(check)).is_err() {
        tracing::error!("a fault of the broker in checking a login, survived");
    }
}
