//! Asks somebody else over HTTP whether a client is to be let in, as EMQX's hooks are asked. Once for a CONNECT, never for a
//! message: the rules come with the answer.
//!
//! ```text
//! POST {"clientid": …, "username": …, "password": …, "peerhost": …, "peerport": …, "cert_common_name": …,
//!       "listener": …, "protocol_version": …}
//! 200  {"result": "allow"|"deny"|"ignore", "is_superuser": …, "acl": …, "expire_at": …}       204: allow
//! ```
//!
//! Anything else, and no answer in time, is no answer: the client hears that the service is not there, nobody is let in, and
//! it counts against nobody. For a moment after it nobody is asked, so that a hook that hangs costs its clients no more
//! than that. A redirection is not followed. The threads are the hook's own: however slow it is, no other login waits.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::crypto::ring::default_provider;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512_256};
use sol_engine::{Grant, Rules, UnixMillis};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::acl_json;
use crate::config::{Diagnostic, HttpAuth, reason};
use crate::password_file::read;

/// Requests that are under way at a time.
const THREADS: usize = 4;
/// Logins that wait for one of them.
const WAITING_MAX: usize = 256;
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Answers that are remembered.
const REMEMBERED_MAX: usize = 16_384;
/// For how long nobody is asked after no answer, in milliseconds.
const REST_MILLIS: u64 = 1_000;

/// What somebody is asked about.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: &'a str,
    pub(crate) peer: Option<SocketAddr>,
    /// Of the certificate that it has shown.
    pub(crate) common_name: Option<&'a str>,
    pub(crate) listener: &'a str,
    /// The Protocol Level: 3, 4 or 5.
    pub(crate) version: u8,
}

impl Question<'_> {
    fn host(&self) -> Option<String> {
        self.peer.map(|peer| peer.ip().to_canonical().to_string())
    }
}

/// What a hook says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Let it in, with this.
    Allow(Grant),
    /// Do not.
    Deny,
    /// It knows nothing of this client: ask the next.
    Ignore,
    /// It lets the client in, by rules that are not understood, or until a moment that has passed.
    Unfit(&'static str),
}

/// There was no answer that means anything. Says why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Silence(pub(crate) String);

type Job = Box<dyn FnOnce() + Send>;

/// One URL that is asked, by threads of its own. They end when it is dropped, each with what it is at.
pub(crate) struct Hook {
    url: String,
    agent: Agent,
    cache: Option<Duration>,
    key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], (u64, Grant)>>,
    /// Until when nobody is asked.
    rests_until: AtomicU64,
    queue: Sender<Job>,
    jobs: Receiver<Job>,
    /// How many threads there are. They start with the first question: a file is read before the process has given up what it
    /// does not need, and a thread of then would have it still.
    threads: Mutex<usize>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Hook {
    /// Gets ready to ask.
    ///
    /// # Errors
    /// The authorities cannot be read, or the system has no randomness to give.
    pub(crate) fn new(config: &HttpAuth) -> Result<Self, Diagnostic> {
        let lacks = |error: io::Error| {
            let text = format!("http_auth_url cannot be asked: {}", reason(&error));
            Diagnostic::of_file(config.cafile.as_deref().unwrap_or_else(|| Path::new("")), text)
        };
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| lacks(io::Error::other(error)))?;
        let (queue, jobs): (_, Receiver<Job>) = bounded(WAITING_MAX);
        Ok(Self {
            url: config.url.clone(),
            agent: agent(config)?,
            cache: (!config.cache.is_zero()).then_some(config.cache),
            key,
            remembered: Mutex::default(),
            rests_until: AtomicU64::new(0),
            queue,
            jobs,
            threads: Mutex::default(),
        })
    }

    /// Whom it asks.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether as much waits for the threads as may.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.is_full()
    }

    /// Has one of the threads do this; what there is no room for is dropped.
    pub(crate) fn run(&self, job: Job) {
        if self.has_threads() {
            drop(self.queue.try_send(job));
        }
    }

    /// Whether anybody does what is to be done; starts those who are missing.
    fn has_threads(&self) -> bool {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while *threads < THREADS {
            let jobs = self.jobs.clone();
            let thread = std::thread::Builder::new().name(format!("sol-hook-{threads}"));
            if let Err(error) = thread.spawn(move || jobs.iter().for_each(|job| job())) {
                tracing::error!("no thread to ask http_auth_url: {}", reason(&error));
                break;
            }
            *threads += 1;
        }
        *threads > 0
    }

    /// Whether there was no answer a moment ago, so that nobody is asked now. `now` is in milliseconds since the Unix epoch.
    pub(crate) fn rests(&self, now: u64) -> bool {
        now < self.rests_until.load(Ordering::Relaxed)
    }

    /// What was granted to the same question before, if that holds still.
    pub(crate) fn remembered(&self, question: &Question<'_>, now: u64) -> Option<Grant> {
        self.cache?;
        let tag = self.tag(question);
        let remembered = self.remembered_answers();
        let (until, grant) = remembered.get(&tag)?;
        (now < *until && now < grant.expires_at.as_millis()).then(|| grant.clone())
    }

    /// Asks, and waits for the answer, for as long as the configuration says.
    ///
    /// # Errors
    /// [`Silence`]: nobody is asked for a moment then.
    pub(crate) fn ask(&self, question: &Question<'_>, now: u64) -> Result<Answer, Silence> {
        let answer = self
            .post(question)
            .and_then(|(status, body)| understand(status, &body, now));
        match &answer {
            Err(Silence(why)) => {
                let before = self
                    .rests_until
                    .swap(now.saturating_add(REST_MILLIS), Ordering::Relaxed);
                if before == 0 {
                    tracing::error!(
                        url = self.url,
                        "http_auth_url does not answer, nobody is let in by it: {why}"
                    );
                }
            }
            Ok(answer) => {
                if self.rests_until.swap(0, Ordering::Relaxed) != 0 {
                    tracing::info!(url = self.url, "http_auth_url answers again");
                }
                if let (Answer::Allow(grant), Some(cache)) = (answer, self.cache) {
                    let until = now.saturating_add(u64::try_from(cache.as_millis()).unwrap_or(u64::MAX));
                    self.remember(self.tag(question), until, grant.clone(), now);
                }
            }
        }
        answer
    }

    fn post(&self, question: &Question<'_>) -> Result<(u16, Vec<u8>), Silence> {
        let said = json!({
            "clientid": question.client_id,
            "username": question.username,
            "password": question.password,
            "peerhost": question.host(),
            "peerport": question.peer.map(|peer| peer.port()),
            "cert_common_name": question.common_name,
            "listener": question.listener,
            "protocol_version": question.version,
        });
        let said = said.to_string();
        let answer = match self.send(&said) {
            // The connection of an earlier question may have been closed just now.
            Err(ureq::Error::Io(_)) => self.send(&said),
            answer => answer,
        };
        answer.map_err(|error| Silence(error.to_string()))
    }

    fn send(&self, said: &str) -> Result<(u16, Vec<u8>), ureq::Error> {
        let request = self.agent.post(&self.url).header("content-type", "application/json");
        let mut response = request.send(said)?;
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()?;
        Ok((response.status().as_u16(), body))
    }

    /// A keyed hash of all that is asked about: nothing of a password can be read from what is remembered.
    fn tag(&self, question: &Question<'_>) -> [u8; 32] {
        // A client that comes again has another port.
        let host = question.host();
        let version = question.version.to_string();
        let parts = [
            Some(question.client_id),
            question.username,
            Some(question.password),
            host.as_deref(),
            question.common_name,
            Some(question.listener),
            Some(&version),
        ];
        let mut digest = Sha512_256::new().chain_update(self.key);
        for part in parts {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            digest.update(length.to_le_bytes());
            digest.update(part.unwrap_or_default());
        }
        digest.finalize().into()
    }

    fn remember(&self, tag: [u8; 32], until: u64, grant: Grant, now: u64) {
        let mut remembered = self.remembered_answers();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, (until, _)| now < *until);
        }
        if remembered.len() >= REMEMBERED_MAX {
            // All of them are asked for anew, a few at a time.
            remembered.clear();
        }
        remembered.insert(tag, (until, grant));
    }

    fn remembered_answers(&self) -> MutexGuard<'_, HashMap<[u8; 32], (u64, Grant)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn agent(config: &HttpAuth) -> Result<Agent, Diagnostic> {
    let mut roots = Vec::new();
    if let Some(path) = &config.cafile {
        let (bytes, _) = read(path).map_err(|error| {
            Diagnostic::of_file(path, format!("http_auth_cafile cannot be read: {}", reason(&error)))
        })?;
        for item in parse_pem(&bytes) {
            match item {
                Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
                Ok(_) => {}
                Err(_) => return Err(Diagnostic::of_file(path, "it is broken PEM")),
            }
        }
        if roots.is_empty() {
            return Err(Diagnostic::of_file(path, "there is no certificate in PEM in it"));
        }
    }
    if config.trusts_system() {
        roots = system_roots()?;
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
        .build();
    let agent = Agent::config_builder()
        .timeout_global(Some(config.timeout))
        // What was asked about is for this URL alone.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .http_status_as_error(false)
        .user_agent("sol")
        .tls_config(tls)
        .build();
    Ok(agent.into())
}

/// The authorities that the system trusts.
fn system_roots() -> Result<Vec<Certificate<'static>>, Diagnostic> {
    let found = rustls_native_certs::load_native_certs();
    let fault = found.errors.first().map(ToString::to_string);
    if found.certs.is_empty() {
        let why = fault.unwrap_or_else(|| "there are none".to_owned());
        let text = format!("no authorities that the system trusts: {why}; name some in http_auth_cafile");
        return Err(Diagnostic::of_file(Path::new("http_auth_url"), text));
    }
    if let Some(why) = fault {
        tracing::warn!("http_auth_url: not all authorities that the system trusts can be read: {why}");
    }
    let roots = found.certs.iter();
    Ok(roots.map(|root| Certificate::from_der(root).to_owned()).collect())
}

/// What an answer says.
fn understand(status: u16, body: &[u8], now: u64) -> Result<Answer, Silence> {
    if status == 204 {
        return Ok(Answer::Allow(nothing_more()));
    }
    if status != 200 {
        return Err(Silence(format!("it answers with status {status}")));
    }
    let said: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Silence("its answer is no JSON object".to_owned()))?;
    match said.get("result").and_then(Value::as_str) {
        Some("allow") => Ok(grant(&said, now).map_or_else(Answer::Unfit, Answer::Allow)),
        Some("deny") => Ok(Answer::Deny),
        Some("ignore") => Ok(Answer::Ignore),
        _ => Err(Silence("its result is none of allow, deny and ignore".to_owned())),
    }
}

const fn nothing_more() -> Grant {
    Grant {
        username: None,
        rules: None,
        expires_at: UnixMillis::NEVER,
    }
}

fn grant(said: &Map<String, Value>, now: u64) -> Result<Grant, &'static str> {
    let told = |name: &str| said.get(name).filter(|value| !value.is_null());
    let is_superuser = match told("is_superuser") {
        None => false,
        Some(Value::Bool(is)) => *is,
        Some(_) => return Err("its is_superuser is neither true nor false"),
    };
    let rules = match told("acl") {
        _ if is_superuser => Some(Rules::for_everything()),
        None => None,
        Some(acl) => Some(acl_json::rules(acl)?),
    };
    let expires_at = match told("expire_at").map(Value::as_f64) {
        None => UnixMillis::NEVER,
        // A time that is too large for an integer becomes the largest.
        Some(Some(seconds)) if seconds >= 0.0 => UnixMillis::from_millis((seconds * 1_000.0) as u64),
        Some(_) => return Err("its expire_at is no time"),
    };
    if expires_at.as_millis() <= now {
        return Err("its expire_at has passed");
    }
    Ok(Grant {
        rules: rules.map(Arc::new),
        expires_at,
        ..nothing_more()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn answer(status: u16, body: &str) -> Result<Answer, Silence> {
        understand(status, body.as_bytes(), NOW)
    }

    /// What EMQX's hooks answer is understood: who is let in, by which rules and until when, who is not, and who is not known.
    #[test]
    fn answers() {
        let allow = |rules: Option<Rules>, expires_at| {
            Ok(Answer::Allow(Grant {
                username: None,
                rules: rules.map(Arc::new),
                expires_at,
            }))
        };
        let acl = json!([{"permission": "allow", "action": "publish", "topic": "t"}]);
        let rules = acl_json::rules(&acl).unwrap();
        let until = UnixMillis::from_millis(NOW + 1_000);
        for (status, body, wanted) in [
            (204, String::new(), allow(None, UnixMillis::NEVER)),
            (204, "nonsense".to_owned(), allow(None, UnixMillis::NEVER)),
            (200, json!({"result": "allow"}).to_string(), allow(None, UnixMillis::NEVER)),
            (
                200,
                json!({"result": "allow", "is_superuser": false, "client_attrs": {"a": "b"}, "acl": acl, "expire_at": 1_800_000_001})
                    .to_string(),
                allow(Some(rules), until),
            ),
            (
                200,
                json!({"result": "allow", "is_superuser": true, "acl": []}).to_string(),
                allow(Some(Rules::for_everything()), UnixMillis::NEVER),
            ),
            (
                200,
                json!({"result": "allow", "acl": null, "expire_at": null}).to_string(),
                allow(None, UnixMillis::NEVER),
            ),
            (200, json!({"result": "deny", "is_superuser": true}).to_string(), Ok(Answer::Deny)),
            (200, json!({"result": "ignore"}).to_string(), Ok(Answer::Ignore)),
        ] {
            assert_eq!(answer(status, &body), wanted, "{body}");
        }
    }

    /// What is not understood lets nobody in, whatever it is: another status, what is no JSON, no result; and who would be let
    /// in by rules that are not understood, or by now too late, is not.
    #[test]
    fn no_answers() {
        for (status, body) in [
            (200, ""),
            (200, "allow"),
            (200, "{}"),
            (200, "[]"),
            (200, "{\"result\":true}"),
            (200, "{\"result\":\"ALLOW\"}"),
            (200, "{\"result\":\"allow\"} x"),
            (201, "{\"result\":\"allow\"}"),
            (301, "{\"result\":\"allow\"}"),
            (401, "{\"result\":\"allow\"}"),
            (500, ""),
        ] {
            assert!(answer(status, body).is_err(), "{status} {body}");
        }
        for more in [
            "\"acl\":\"#\"",
            "\"acl\":[{}]",
            "\"is_superuser\":\"true\"",
            "\"is_superuser\":1",
            "\"expire_at\":\"never\"",
            "\"expire_at\":-1",
            "\"expire_at\":1800000000",
        ] {
            let answer = answer(200, &format!("{{\"result\":\"allow\",{more}}}"));
            assert!(matches!(answer, Ok(Answer::Unfit(_))), "{more}: {answer:?}");
        }
    }

    /// What is remembered is of the same question alone, for as long as it was to be, and not longer than the login is good.
    #[test]
    fn memory() {
        let config = HttpAuth {
            url: "http://127.0.0.1:1/".to_owned(),
            cafile: None,
            timeout: Duration::from_secs(1),
            cache: Duration::from_secs(10),
        };
        let hook = Hook::new(&config).unwrap();
        let question = || Question {
            client_id: "c",
            username: Some("ann"),
            password: "secret",
            peer: None,
            common_name: None,
            listener: "l",
            version: 5,
        };
        let grant = Grant {
            expires_at: UnixMillis::from_millis(NOW + 5_000),
            ..nothing_more()
        };
        hook.remember(hook.tag(&question()), NOW + 10_000, grant.clone(), NOW);
        assert_eq!(hook.remembered(&question(), NOW + 4_999), Some(grant));
        assert_eq!(hook.remembered(&question(), NOW + 5_000), None);
        for other in [
            Question {
                client_id: "d",
                ..question()
            },
            Question {
                username: None,
                ..question()
            },
            Question {
                password: "secre",
                ..question()
            },
            Question {
                peer: Some(([127, 0, 0, 1], 7).into()),
                ..question()
            },
            Question {
                common_name: Some("c"),
                ..question()
            },
            Question {
                listener: "m",
                ..question()
            },
            Question {
                version: 4,
                ..question()
            },
        ] {
            assert_eq!(hook.remembered(&other, NOW), None, "{other:?}");
        }
        for n in 0..REMEMBERED_MAX + 10 {
            let mut tag = [0; 32];
            tag[..8].copy_from_slice(&n.to_le_bytes());
            hook.remember(tag, NOW + 1, nothing_more(), NOW);
        }
        assert!(hook.remembered_answers().len() <= REMEMBERED_MAX);
    }

    /// Nobody is asked for a moment after no answer, and then again.
    #[test]
    fn rest() {
        let config = HttpAuth {
            // Nobody listens at port 1.
            url: "http://127.0.0.1:1/".to_owned(),
            cafile: None,
            timeout: Duration::from_secs(5),
            cache: Duration::ZERO,
        };
        let hook = Hook::new(&config).unwrap();
        let question = Question {
            client_id: "c",
            username: None,
            password: "",
            peer: None,
            common_name: None,
            listener: "l",
            version: 4,
        };
        assert!(!hook.rests(NOW));
        assert!(hook.ask(&question, NOW).is_err());
        assert!(hook.rests(NOW + REST_MILLIS - 1) && !hook.rests(NOW + REST_MILLIS));
    }
}
