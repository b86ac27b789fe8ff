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
use sol_engine::Grant;
use tracing::field::{DisplayValue, display};

use super::chain::Step;
use super::guard::{Guard, count};
use super::user_files::{Tag, UserFile, UserFiles};
use super::{Changes, Login, Peer, Request, Verdict};
use crate::hook::{Answer, Hook, Question, Silence};
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
    /// Who knows does not answer.
    Unavailable,
    /// A hook has to be asked; behind it the chain goes on.
    Ask {
        hook: Arc<Hook>,
        name: Arc<str>,
        next: usize,
    },
}

/// A login that a hook has to be asked about.
pub(super) struct Pending<C> {
    pub(super) hook: Arc<Hook>,
    name: Arc<str>,
    next: usize,
    request: Request,
    checked: C,
}

/// What a hook is asked about; `None` if the password is no text, which no JSON has room for.
fn question<'a>(request: &'a Request, listener: &'a str) -> Option<Question<'a>> {
    let Login::Password { user, password } = &request.login else {
        return None;
    };
    Some(Question {
        client_id: &request.client_id,
        username: user.as_deref(),
        password: std::str::from_utf8(password).ok()?,
        peer: request.peer.map(|peer| peer.address),
        common_name: request.common_name.as_deref(),
        listener,
        version: request.version,
    })
}

/// What the log says of a login by a token that is refused.
struct Refusal<'a> {
    peer: Option<DisplayValue<IpAddr>>,
    listener: &'a str,
    user: &'a str,
    token_user: String,
}

impl Refusal<'_> {
    /// Of a token that may be anybody's.
    fn tell_quietly(self, why: &str) {
        let Self {
            peer, listener, user, ..
        } = self;
        tracing::debug!(peer, listener, user, "token refused: {why}");
    }

    /// Of a token that is genuine.
    fn tell(self, is_warning: bool, why: &str) {
        let Self {
            peer,
            listener,
            user,
            token_user,
        } = self;
        if is_warning {
            tracing::warn!(peer, listener, user, token_user, "token refused: {why}");
        } else {
            tracing::info!(peer, listener, user, token_user, "token refused: {why}");
        }
    }
}

/// Whether a login shows a token where tokens are asked for.
fn shows_token(files: &UserFiles, request: &Request) -> bool {
    match &request.login {
        Login::Password { password, .. } => files.asks_tokens_at(request.listener) && jwt::is_token(password),
        Login::Scram { .. } => false,
    }
}

/// The user whom a login counts against if it fails, and whose ban holds for it: nobody for a token, beside which any User
/// Name may stand. Many clients give the same, and one who forges would have them all banned.
fn counted_user<'a>(files: &UserFiles, request: &'a Request) -> Option<&'a str> {
    request.user().filter(|_| !shows_token(files, request))
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
    pub(super) fn replace(&self, mut files: UserFiles) -> Changes {
        let mut present = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let changes = Changes {
            users: files.succeed(&present),
            grants_lost_at: files.lost_grants(&present),
        };
        *present = Arc::new(files);
        changes
    }

    /// Whether a login shows a token, and nothing but keys is asked about it: it costs neither a hash nor a question to a hook.
    pub(super) fn is_settled_by_token(&self, request: &Request) -> bool {
        let files = self.files();
        files.asks_tokens_first_at(request.listener) && shows_token(&files, request)
    }

    /// Checks and answers a password, whatever it costs, asking those of the chain from this place on. `checked` is called
    /// between the two. Gives it back if a hook has to be asked first.
    pub(super) fn answer<C: FnOnce()>(
        &self,
        request: Request,
        from: usize,
        scratch: &mut Scratch,
        checked: C,
    ) -> Option<Pending<C>> {
        let mut pending = None;
        survive(|| pending = self.answer_or_ask(request, from, scratch, checked));
        pending
    }

    fn answer_or_ask<C: FnOnce()>(
        &self,
        request: Request,
        from: usize,
        scratch: &mut Scratch,
        checked: C,
    ) -> Option<Pending<C>> {
        // Banned while it waited.
        if self.guard.refuses(request.peer, counted_user(&self.files(), &request)) {
            checked();
            (request.reply)(Verdict::Banned);
            return None;
        }
        let (decision, in_force) = self.decide_in_force(&request, from, scratch);
        if let Decision::Ask { hook, name, next } = decision {
            return Some(Pending {
                hook,
                name,
                next,
                request,
                checked,
            });
        }
        checked();
        // Before the answer: who tries again when he has it is counted.
        let verdict = self.conclude(decision, &request, counted_user(&in_force, &request));
        (request.reply)(verdict);
        None
    }

    /// Answers a password as its hook says, or goes on with those behind it.
    pub(super) fn answer_by_hook<C: FnOnce()>(&self, pending: Pending<C>) -> Option<Pending<C>> {
        let Pending {
            hook,
            name,
            next,
            request,
            checked,
        } = pending;
        let now = self.guard.now_on_the_wall();
        // Those who waited behind one without an answer do not wait as long each.
        let answer = question(&request, &name).map(|question| match hook.rests(now) {
            true => Err(Silence(String::new())),
            false => hook.ask(&question, now),
        });
        let counts = &self.guard.counts;
        let decision = match answer {
            Some(Ok(Answer::Ignore)) => {
                count(&counts.hook_ignored);
                return self.answer(request, next, &mut Scratch::default(), checked);
            }
            Some(Ok(Answer::Allow(grant))) => {
                count(&counts.hook_accepted);
                Decision::Granted(Box::new(grant))
            }
            Some(Ok(Answer::Unfit(why))) => {
                count(&counts.hook_unfit);
                tracing::warn!(
                    user = request.user().unwrap_or_default(),
                    "http_auth_url lets in, and: {why}"
                );
                Decision::Unfit
            }
            Some(Ok(Answer::Deny)) | None => {
                count(&counts.hook_denied);
                Decision::Refused
            }
            Some(Err(_)) => Decision::Unavailable,
        };
        checked();
        let verdict = self.conclude(decision, &request, counted_user(&self.files(), &request));
        (request.reply)(verdict);
        None
    }

    /// Answers a password whose hook has no room for it.
    pub(super) fn answer_busy<C: FnOnce()>(&self, pending: Pending<C>) {
        count(&self.guard.counts.hook_silent);
        (pending.checked)();
        (pending.request.reply)(Verdict::Unavailable);
    }

    /// Counts what was decided of a login, and says it. `user` is whom it counts against if it failed.
    fn conclude(&self, decision: Decision, request: &Request, user: Option<&str>) -> Verdict {
        let peer = request.peer;
        match decision {
            Decision::Accepted => {
                self.guard.succeeded(peer, request.user().unwrap_or_default());
                Verdict::Accepted
            }
            Decision::Granted(grant) => {
                let user = grant.username.as_deref().or_else(|| request.user());
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
            Decision::Unavailable | Decision::Ask { .. } => {
                count(&self.guard.counts.hook_silent);
                Verdict::Unavailable
            }
        }
    }

    /// Asks those whom a listener asks, from this place on, until one knows the client.
    fn decide(&self, files: &UserFiles, request: &Request, from: usize, scratch: &mut Scratch) -> Decision {
        let Login::Password { user, password } = &request.login else {
            // Whatever else there is was answered at once.
            return Decision::Refused;
        };
        let user = user.as_deref();
        let file = files.asked_at(request.listener);
        let shows_token = shows_token(files, request);
        let mut passed_passwords = None;
        let mut decision = Decision::Refused;
        for (place, step) in files.chain_at(request.listener).iter().enumerate() {
            match (step, user) {
                (Step::Passwords, _) if shows_token => {}
                // Who was asked already has not known it.
                (Step::Passwords, user) if place < from => passed_passwords = user,
                _ if place < from => {}
                (Step::Passwords, Some(user)) if file.users.get(user).is_some() => {
                    let accepted = self.verify(file, user, password, scratch);
                    return if accepted {
                        Decision::Accepted
                    } else {
                        Decision::Refused
                    };
                }
                (Step::Passwords, user) => passed_passwords = user,
                (Step::Tokens(tokens, name), _) => {
                    let now = self.guard.now_on_the_wall();
                    if let Some(judged) = tokens.judge(password, now) {
                        return self.of_token(judged, || Refusal {
                            peer: request.peer.map(|peer| display(peer.ip())),
                            listener: name,
                            user: user.unwrap_or_default(),
                            // Whoever has signed it may be believed who it was for.
                            token_user: tokens.user_of(password).unwrap_or_default(),
                        });
                    }
                }
                (Step::Hook(hook, name), _) => {
                    if let Some(said) = self.before_hook(hook, name, place + 1, request) {
                        decision = said;
                        break;
                    }
                }
            }
        }
        // Who is none of the password file's is refused after as long as who is one.
        if let (Decision::Refused, Some(user)) = (&decision, passed_passwords) {
            self.verify(file, user, password, scratch);
        }
        decision
    }

    /// What can be said without the hook: what it said before, or that it does not answer; else that it has to be asked.
    /// `None` if there is nothing to ask about.
    fn before_hook(&self, hook: &Arc<Hook>, name: &Arc<str>, next: usize, request: &Request) -> Option<Decision> {
        let question = question(request, name)?;
        let now = self.guard.now_on_the_wall();
        if let Some(grant) = hook.remembered(&question, now) {
            count(&self.guard.counts.hook_remembered);
            return Some(Decision::Granted(Box::new(grant)));
        }
        if hook.rests(now) {
            return Some(Decision::Unavailable);
        }
        Some(Decision::Ask {
            hook: Arc::clone(hook),
            name: Arc::clone(name),
            next,
        })
    }

    fn of_token<'a>(&self, judged: Result<Grant, jwt::Fault>, refusal: impl FnOnce() -> Refusal<'a>) -> Decision {
        let counts = &self.guard.counts;
        match judged {
            Ok(grant) => {
                count(&counts.tokens_accepted);
                Decision::Granted(Box::new(grant))
            }
            Err(jwt::Fault::Forged(why)) => {
                count(&counts.tokens_forged);
                refusal().tell_quietly(why);
                Decision::Refused
            }
            // No key was tried, so that nothing is to be learnt by it; and it was said at the start.
            Err(jwt::Fault::Untried(why)) => {
                count(&counts.tokens_unfit);
                refusal().tell_quietly(why);
                Decision::Unfit
            }
            // Nobody guesses at these: they say no more of an address than that its client is late, or badly set up.
            Err(jwt::Fault::Untimely(why)) => {
                count(&counts.tokens_untimely);
                refusal().tell(false, why);
                Decision::Unfit
            }
            Err(jwt::Fault::Unfit(why)) => {
                count(&counts.tokens_unfit);
                refusal().tell(true, why);
                Decision::Unfit
            }
        }
    }

    /// A step of SCRAM; costs microseconds.
    fn scram(&self, users: &Users, peer: Option<Peer>, memo: Option<&[u8]>, message: &[u8]) -> Verdict {
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

    fn scram_challenge(&self, users: &Users, peer: Option<Peer>, message: &[u8]) -> Result<Verdict, Fault> {
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

    fn scram_verdict(&self, users: &Users, peer: Option<Peer>, memo: &[u8], message: &[u8]) -> Result<Verdict, Fault> {
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
        let file = files.asked_at(request.listener);
        let peer = request.peer;
        match request.login {
            Login::Scram { memo, message } => {
                survive(|| (request.reply)(self.scram(&file.users, peer, memo.as_deref(), &message)));
                None
            }
            Login::Password { .. } if self.guard.refuses(peer, counted_user(&files, &request)) => {
                (request.reply)(Verdict::Banned);
                None
            }
            Login::Password {
                user: Some(ref user),
                ref password,
            } => match self.known(file, user, password) {
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
        request: &Request,
        from: usize,
        scratch: &mut Scratch,
    ) -> (Decision, RwLockReadGuard<'_, Arc<UserFiles>>) {
        loop {
            let files = self.files();
            let decision = self.decide(&files, request, from, scratch);
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
pub(super) fn survive(check: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(check)).is_err() {
        tracing::error!("a fault of the broker in checking a login, survived");
    }
}
