//! The broker that `sol` runs: the shards of the transport, configured, observed and asked.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::Errno;
use sol_codec::ReasonCode;
use sol_engine::{
    Answer, AuthOutcome, AuthRequest, ChangedUser, Credentials, ListenerId, MemoryLevel, Message, Query, Rules, ShardId,
};
use sol_journal::Disk;
use sol_transport::{
    Applicant, AuthReply, BoundShards, Clock, Durable, Exit, Files, Handle, ListenAddr, ListenError, ListenerConfig,
    Notice, Observer, ProxyRules, ProxyVersion, Shards, Source, StartError, TransportConfig, WebSocketRules,
};

use crate::auth::{Full, Login, Peer, Request, Verdict, Verifier};
use crate::banner::{Facts, Listening, Salvage};
use crate::config::{self, Address, CertificateName, Config, Listener, SocketDomain, in_words, reason};
use crate::engine_config::{engine_config, transport_limits};
use crate::events;
use crate::log::Publish;
use crate::owner;
use crate::rights::Rights;
use crate::serve::{Bound, Broker, End, Failure, OnEnd, Startup};
use crate::stats::Stats;
use crate::store;
use crate::tls;

/// How long the shards may take to tell their counters.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Ports tried where several addresses are to have the same.
const PORT_ATTEMPTS_MAX: usize = 16;
/// How often a port that is in use is tried, and how long after the last time: for a second. A broker that was killed has its
/// ports until the system has taken its io_uring apart, which is a matter of ten milliseconds and happens behind its end.
const BIND_ATTEMPTS: usize = 21;
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// Exit code after a fault of ours: a supervisor restarts the process.
const EXIT_POISONED: u8 = 70;

/// Binds the listeners.
///
/// # Errors
/// A sentence that says which one cannot be had.
pub fn bind(config: &Config, rights: &Rights, tls: &tls::Listeners) -> Result<Box<dyn Bound>, String> {
    let (transport, owners) = transport_config(config, tls)?;
    let engine = engine_config(config, rights, owners.iter().copied());
    let pause = |attempt, error: &ListenError| {
        if attempt == 1 {
            tracing::warn!("{error}; trying again for a second");
        }
        thread::sleep(BIND_PAUSE);
    };
    let shards = bind_patiently(|| Shards::bind(&transport, &engine), pause).map_err(sentence)?;
    Ok(Box::new(Listeners {
        shards,
        owners,
        count: usize::from(engine.shards),
    }))
}

/// Tries again where a port or socket is in use; `pause` hears of each attempt but the last.
fn bind_patiently<T>(
    bind: impl Fn() -> Result<T, StartError>,
    mut pause: impl FnMut(usize, &ListenError),
) -> Result<T, StartError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match bind() {
            Err(StartError::Listen(error))
                if error.source.kind() == io::ErrorKind::AddrInUse && attempt < BIND_ATTEMPTS =>
            {
                pause(attempt, &error);
            }
            done => return done,
        }
    }
}

/// Listeners that are bound, and of each which one of the configuration it is of.
struct Listeners {
    shards: BoundShards,
    owners: Vec<usize>,
    count: usize,
}

impl Bound for Listeners {
    fn start(self: Box<Self>, startup: &Startup, on_end: OnEnd) -> Result<Arc<dyn Broker>, Failure> {
        start(*self, startup, on_end)
    }
}

fn sentence(error: StartError) -> String {
    in_words(error.to_string())
}

fn start(bound: Listeners, startup: &Startup, on_end: OnEnd) -> Result<Arc<dyn Broker>, Failure> {
    let Listeners {
        mut shards,
        owners,
        count,
    } = bound;
    for (id, owner) in (0..).map(ListenerId).zip(&owners) {
        if let Some(files) = startup.files.get(*owner).and_then(Option::as_ref) {
            shards.change_files(id, files);
        }
    }
    let config = &startup.config;
    let mut seeds = [0; 4];
    for seed in &mut seeds {
        *seed = getrandom::u64().map_err(|error| format!("no randomness: {error}"))?;
    }
    let clock = Clock::start();
    let quiet = Arc::new(AtomicBool::new(!config.log.connections));
    let listeners: Arc<[usize]> = owners.as_slice().into();
    let memory = Arc::new(MemoryLevels::default());
    let observer = |shard: ShardId| Watcher {
        shard,
        memory: Arc::clone(&memory),
        quiet: Arc::clone(&quiet),
        verifier: Arc::clone(&startup.verifier),
        listeners: Arc::clone(&listeners),
    };
    let name = |&owner: &usize| config.listeners.get(owner).map(|listener| listener.address.to_string());
    let names: Vec<_> = owners.iter().filter_map(name).collect();
    let watch = store::progress::watch(Arc::clone(&startup.supervisor), clock, store::progress::INTERVAL);
    let durable = store::open(config, seeds, &names, clock, watch)?;
    let salvage = salvage(config, durable.as_ref());
    let shards = match durable {
        Some(durable) => shards.start_durable(durable, clock, observer),
        None => shards.start(seeds, clock, observer),
    };
    let shards = shards.map_err(|error| match (&error, config.persistence.directory()) {
        (StartError::Durable(error), Some(directory)) => store::failure(&directory, error),
        _ => sentence(error).into(),
    })?;
    let bound = shards.addresses().iter().map(address).zip(owners);
    let listening = bound
        .map(|(address, listener)| Listening { address, listener })
        .collect();
    let backend = shards.backend().as_str();
    if let Some(why) = shards.fallback() {
        tracing::info!("{backend} and not io_uring: {why}");
    }
    let handle = shards.handle();
    let journal = config.persistence.directory();
    let joiner = thread::Builder::new()
        .name("sol-shards".to_owned())
        .spawn(move || on_end(end(shards.join(), journal.as_deref())))
        .map_err(|error| format!("no thread: {}", reason(&error)))?;
    let facts = Facts {
        listening,
        backend,
        shards: count,
        users: Vec::new(),
        salvage,
    };
    Ok(Arc::new(Running {
        handle,
        clock,
        facts,
        quiet,
        verifier: Arc::clone(&startup.verifier),
        clients_maximum: AtomicU64::new(0),
        joiner: Mutex::new(Some(joiner)),
    }))
}

/// What was, or would be, made of a damaged journal.
fn salvage<D: Disk>(config: &Config, durable: Option<&Durable<D>>) -> Salvage {
    match durable {
        Some(durable) if !durable.report().is_whole() => Salvage::Done,
        Some(_) if config.persistence.salvages => Salvage::Allowed,
        _ => Salvage::Refused,
    }
}

struct Running {
    handle: Handle,
    clock: Clock,
    facts: Facts,
    /// Clients that come and go are not written down.
    quiet: Arc<AtomicBool>,
    verifier: Arc<Verifier>,
    clients_maximum: AtomicU64,
    joiner: Mutex<Option<JoinHandle<()>>>,
}

impl Broker for Running {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn stats(&self) -> Option<Stats> {
        let answers = self.handle.ask(Query::Stats, ASK_TIMEOUT);
        if answers.len() < self.facts.shards {
            return None;
        }
        let uptime = Duration::from_nanos(self.clock.now().mono.as_nanos());
        let mut sum = Stats {
            uptime,
            backend: self.facts.backend,
            logins: self.verifier.stats(),
            journal: self.handle.journal().unwrap_or_default(),
            salvage: self.facts.salvage,
            ..Stats::default()
        };
        for answer in answers {
            let Answer::Stats(engine) = &answer.answer;
            sum.add(engine, &answer.counters);
        }
        sum.maxima(self.handle.maxima());
        let total = sum.clients_total().max(sum.clients_connected_maximum);
        sum.clients_maximum = self.clients_maximum.fetch_max(total, Ordering::Relaxed).max(total);
        Some(sum)
    }

    fn publish(&self, messages: Vec<(String, String)>) {
        for (topic, payload) in messages {
            self.handle.publish(Message::new(&topic, payload.as_bytes(), true));
        }
    }

    fn log_publisher(&self) -> Publish {
        let handle = self.handle.clone();
        Box::new(move |topic, line| handle.publish(Message::new(topic, line.as_bytes(), false)))
    }

    fn reload(&self, config: &Config, rights: &[Option<Arc<Rules>>]) {
        self.quiet.store(!config.log.connections, Ordering::Relaxed);
        let owners = self.facts.listening.iter().map(|listening| listening.listener);
        self.handle.change_limits(transport_limits(config, owners.clone()));
        self.handle.reload(engine_config(config, rights, owners));
    }

    fn change_tls(&self, listener: usize, tls: sol_transport::Tls) {
        for (id, listening) in (0..).map(ListenerId).zip(&self.facts.listening) {
            if listening.listener == listener {
                self.handle.change_tls(id, tls.clone());
            }
        }
    }

    fn change_files(&self, listener: usize, files: &Arc<Files>) {
        for (id, listening) in (0..).map(ListenerId).zip(&self.facts.listening) {
            if listening.listener == listener {
                self.handle.change_files(id, files);
            }
        }
    }

    fn change_users(&self, changed: Vec<ChangedUser>) {
        self.handle.change_users(changed);
    }

    fn end_grants(&self, listeners: &[usize]) {
        let bound = (0..).map(ListenerId).zip(&self.facts.listening);
        let there = bound.filter(|(_, listening)| listeners.contains(&listening.listener));
        self.handle.end_grants(&there.map(|(id, _)| id).collect::<Vec<_>>());
    }

    fn stop(&self) {
        self.handle.stop();
        let joiner = self.joiner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(joiner) = joiner {
            // A panic there has been printed.
            let _ = joiner.join();
        }
        for listening in &self.facts.listening {
            // Its directory may be of somebody else than whom the process has become.
            if let Address::Unix(path) = &listening.address
                && path.symlink_metadata().is_ok()
            {
                tracing::warn!("the socket {} stays behind: it cannot be removed", path.display());
            }
        }
    }
}

/// One shard's observer: writes the log and hands logins to the verifier.
struct Watcher {
    shard: ShardId,
    memory: Arc<MemoryLevels>,
    quiet: Arc<AtomicBool>,
    verifier: Arc<Verifier>,
    /// Of each listener of the transport, which one of the configuration it is of.
    listeners: Arc<[usize]>,
}

impl Observer for Watcher {
    fn event(&mut self, event: &sol_engine::Event, source: Option<Source>) {
        if let sol_engine::Event::Memory(level) = event {
            return self.memory.tell(self.shard, *level);
        }
        if !(self.quiet.load(Ordering::Relaxed) && events::is_coming_or_going(event)) {
            events::event(event, source);
        }
    }

    fn notice(&mut self, notice: Notice<'_>) {
        events::notice(&notice);
    }

    fn auth(&mut self, request: AuthRequest, applicant: Applicant<'_>, reply: AuthReply) {
        // What is no listener's is asked of nobody, and refused.
        let listener = self
            .listeners
            .get(usize::from(request.listener.0))
            .copied()
            .unwrap_or(usize::MAX);
        let (login, refused) = match login(request.credentials) {
            Ok(login) => login,
            Err(reason) => return reply.answer(AuthOutcome::Refused(reason)),
        };
        // Dropping the reply refuses the login.
        let reply = Arc::new(Mutex::new(Some(reply)));
        let answer = |reply: &Mutex<Option<AuthReply>>, outcome| {
            if let Some(reply) = reply.lock().unwrap_or_else(PoisonError::into_inner).take() {
                reply.answer(outcome);
            }
        };
        let later = Arc::clone(&reply);
        let request = Request {
            login,
            listener,
            client_id: request.client_id.into(),
            version: request.version.level(),
            peer: applicant.peer.client().map(|address| Peer {
                address,
                is_brought: applicant.is_brought,
            }),
            common_name: tls::common_name(applicant.certificates),
            reply: Box::new(move |verdict| answer(&later, outcome(verdict, refused))),
        };
        if let Err(Full(request)) = self.verifier.submit(request) {
            let user = request.user().unwrap_or_default();
            tracing::warn!(peer = %applicant.peer, user, "login not checked: too many are waiting");
            answer(&reply, AuthOutcome::Refused(ReasonCode::ServerBusy));
        }
    }
}

/// How far each shard finds the memory of all used up; the broker's level is the highest.
#[derive(Default)]
struct MemoryLevels(Mutex<BTreeMap<ShardId, MemoryLevel>>);

impl MemoryLevels {
    /// A shard finds another level than before. Written down if it is the broker's.
    fn tell(&self, shard: ShardId, level: MemoryLevel) {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all = |levels: &BTreeMap<_, MemoryLevel>| levels.values().copied().max().unwrap_or_default();
        let before = of_all(&levels);
        levels.insert(shard, level);
        let after = of_all(&levels);
        if after != before {
            events::memory(after);
        }
    }
}

/// What the verifier is to check, and how a client is told that it was wrong; or why there is nothing to check.
fn login(credentials: Credentials) -> Result<(Login, ReasonCode), ReasonCode> {
    match credentials {
        Credentials::Password { username, password } => {
            let refused = ReasonCode::BadUserNameOrPassword;
            let password = password.ok_or(refused)?;
            let user = username;
            Ok((Login::Password { user, password }, refused))
        }
        Credentials::Exchange { memo, data, .. } => {
            let message = data.unwrap_or_default();
            Ok((Login::Scram { memo, message }, ReasonCode::NotAuthorized))
        }
    }
}

fn outcome(verdict: Verdict, refused: ReasonCode) -> AuthOutcome {
    match verdict {
        Verdict::Accepted => AuthOutcome::Accepted,
        Verdict::Granted(grant) => AuthOutcome::Granted(grant),
        Verdict::Proven { user, message } => AuthOutcome::Proven {
            username: user,
            data: Some(message),
        },
        Verdict::Continue { message, memo } => AuthOutcome::Continue { data: message, memo },
        Verdict::Refused => AuthOutcome::Refused(refused),
        Verdict::Banned => AuthOutcome::Refused(ReasonCode::Banned),
        Verdict::Unavailable => AuthOutcome::Refused(ReasonCode::ServerUnavailable),
    }
}

/// What the transport is told, and of each of its listeners which one of the configuration it is of.
fn transport_config(config: &Config, tls: &tls::Listeners) -> Result<(TransportConfig, Vec<usize>), String> {
    let (mut listeners, mut owners) = (Vec::new(), Vec::new());
    for (index, listener) in config.listeners.iter().enumerate() {
        let socket = &listener.socket;
        let owner = socket.unix_owner.as_deref().map(owner::resolve).transpose();
        let unix_owner = owner.map_err(|text| {
            let place = listener.place_of("unix_socket_owner");
            place.say(format!("`unix_socket_owner`: {text}")).to_string()
        })?;
        for address in addresses(listener)? {
            listeners.push(ListenerConfig {
                interface: socket.interface.clone(),
                unix_mode: socket.unix_mode,
                unix_owner: unix_owner.unwrap_or_default(),
                backlog: config.tcp_backlog,
                nodelay: config.tcp_nodelay,
                tls: tls.get(index).cloned().flatten(),
                protocol: protocol(listener),
                proxy: listener.proxy.as_ref().map(|proxy| proxy_rules(proxy, listener)),
                ..ListenerConfig::new(address)
            });
            owners.push(index);
        }
    }
    let transport = TransportConfig {
        listeners,
        limits: transport_limits(config, owners.iter().copied()),
        connect_bytes_max: config.limits.connect_bytes_max,
        connect_time_max: config.limits.connect_timeout,
        pin_shards: config.pin_shards,
        io: config.io,
        ..TransportConfig::default()
    };
    Ok((transport, owners))
}

/// Where nobody is named, everybody is believed: nobody but this machine can reach such a listener.
fn proxy_rules(proxy: &config::Proxy, listener: &Listener) -> ProxyRules {
    let trusted = proxy.trusted.clone();
    ProxyRules {
        version: if proxy.version == 1 {
            ProxyVersion::V1
        } else {
            ProxyVersion::V2
        },
        trusts: Arc::new(move |address| trusted.is_empty() || trusted.iter().any(|network| network.contains(address))),
        requires_tls: proxy.requires_tls,
        // A certificate that is shown here says more than what another tells of one.
        names_clients: listener.tls.is_none() && listener.certificate_name == Some(CertificateName::CommonName),
    }
}

fn protocol(listener: &Listener) -> sol_transport::Protocol {
    match listener.protocol {
        config::Protocol::Mqtt => sol_transport::Protocol::Mqtt,
        config::Protocol::WebSockets => sol_transport::Protocol::WebSocket(Arc::new(WebSocketRules {
            origins: listener.websockets.origins.clone(),
            handshake_bytes_max: usize::from(listener.websockets.headers_bytes_max),
            ..WebSocketRules::default()
        })),
    }
}

/// What one listener of the configuration binds: a host name may have several addresses, and every one of them gets the
/// same port.
fn addresses(listener: &Listener) -> Result<Vec<ListenAddr>, String> {
    match &listener.address {
        Address::Unix(path) => Ok(vec![ListenAddr::Unix(path.clone())]),
        tcp @ Address::Tcp { .. } => {
            let found = tcp
                .resolve()
                .map_err(|error| format!("cannot listen on {tcp}: {}", reason(&error)))?;
            let found = of_domain(listener, found)?;
            let found = available(tcp, found);
            let found = one_port(found).map_err(|error| format!("cannot listen on {tcp}: {}", reason(&error)))?;
            Ok(found.into_iter().map(ListenAddr::Tcp).collect())
        }
    }
}

/// Leaves out the addresses of the family that is not asked for.
fn of_domain(listener: &Listener, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    let Some(domain) = listener.socket.domain else {
        return Ok(found);
    };
    let wanted = |address: &SocketAddr| address.is_ipv4() == (domain == SocketDomain::Ipv4);
    let left: Vec<_> = found.into_iter().filter(wanted).collect();
    if left.is_empty() {
        let text = format!("`socket_domain` leaves {} no address", listener.address);
        return Err(listener.place_of("socket_domain").say(text).to_string());
    }
    Ok(left)
}

/// Leaves out, with a warning, those of several addresses that this machine does not have: `localhost` is `::1` too,
/// where there is no IPv6. If it has none of them, all stay, to be refused by name.
fn available(listener: &Address, found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_missing = |error: io::Error| {
        matches!(
            Errno::from_io_error(&error),
            Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)
        )
    };
    let (missing, there): (Vec<_>, Vec<_>) = found
        .iter()
        .partition(|address| UdpSocket::bind((address.ip(), 0)).is_err_and(is_missing));
    if there.is_empty() {
        return found;
    }
    for address in missing {
        tracing::warn!("not listening on {address}, one of the addresses of {listener}: this machine does not have it");
    }
    there
}

/// Gives several addresses without a port one that is free on all of them.
fn one_port(mut addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    if addresses.len() < 2 || addresses.iter().any(|address| address.port() != 0) {
        return Ok(addresses);
    }
    let mut result = Ok(());
    for _ in 0..PORT_ATTEMPTS_MAX {
        let first = TcpListener::bind(addresses[0])?;
        let port = first.local_addr()?.port();
        result = addresses[1..]
            .iter()
            .try_for_each(|address| TcpListener::bind((address.ip(), port)).map(drop));
        if result.is_ok() {
            addresses.iter_mut().for_each(|address| address.set_port(port));
            return Ok(addresses);
        }
    }
    result.map(|()| addresses)
}

fn address(listening: &ListenAddr) -> Address {
    match listening {
        ListenAddr::Unix(path) => Address::Unix(path.clone()),
        ListenAddr::Tcp(address) => Address::Tcp {
            host: Some(address.ip().to_string()),
            port: address.port(),
        },
    }
}

/// What is told of the end; `journal` is where the journal is, if there is one.
fn end(exit: Exit, journal: Option<&Path>) -> End {
    let place = journal
        .map(|path| format!(" in {}", path.display()))
        .unwrap_or_default();
    match exit {
        Exit::Stopped => End {
            code: 0,
            text: String::new(),
        },
        Exit::Poisoned(text) => End {
            code: EXIT_POISONED,
            text: format!("a fault of the broker itself: {text}"),
        },
        Exit::Unkept(why) => End {
            code: store::IO,
            text: format!(
                "the journal{place} has failed, and nothing is acknowledged any more: {}",
                in_words(why)
            ),
        },
        Exit::NoRoom => End {
            code: store::IO,
            text: format!(
                "the disk is full, and what was on its way when the broker stopped is not in the journal{place}: nothing of it was \
                 acknowledged, and all that was is kept; make room before the next start"
            ),
        },
        Exit::Failed(error) => End {
            code: 1,
            text: format!("the system fails the broker: {}", reason(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use sol_engine::EngineConfig;

    use super::*;

    /// Of several addresses those that the machine lacks are left out; a machine that has none of them is told so.
    #[test]
    fn addresses_that_are_not_there() {
        let name = Address::Tcp {
            host: Some("name".to_owned()),
            port: 1883,
        };
        let (here, gone): (SocketAddr, SocketAddr) =
            ("127.0.0.1:1883".parse().unwrap(), "203.0.113.1:1883".parse().unwrap());
        assert_eq!(available(&name, vec![gone, here]), [here]);
        assert_eq!(available(&name, vec![gone]), [gone]);
    }

    /// Why the journal failed is told in the system's words, without its number.
    #[test]
    fn a_journal_that_failed_is_a_sentence() {
        let error = io::Error::from_raw_os_error(5);
        let exit = Exit::Unkept(format!("cannot sync 0000000000000001.seg: {error}"));
        let End { code, text } = end(exit, Some(Path::new("/d")));
        let why = "cannot sync 0000000000000001.seg: Input/output error";
        let all = format!("the journal in /d has failed, and nothing is acknowledged any more: {why}");
        assert_eq!((code, text), (store::IO, all));
        let End { code, text } = end(Exit::NoRoom, None);
        assert!(
            code == store::IO && text.starts_with("the disk is full, and ") && !text.contains("failed"),
            "{text}"
        );
    }

    /// What is in use is tried again for a second, and whoever waits is told why: a broker that was killed may have its port
    /// for a moment. Another one that runs keeps it, and is named as ever.
    #[test]
    fn a_port_in_use_is_tried_again() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let config = TransportConfig {
            listeners: vec![ListenerConfig::new(ListenAddr::Tcp(address))],
            ..TransportConfig::default()
        };
        let bind = || Shards::bind(&config, &EngineConfig::default());
        let refused = format!("cannot listen on {address}: the port is in use; another broker may be running");
        let mut heard = Vec::new();
        let Err(error) = bind_patiently(bind, |attempt, error| heard.push((attempt, error.to_string()))) else {
            panic!("bound twice");
        };
        assert_eq!(error.to_string(), refused);
        assert_eq!(heard.len(), BIND_ATTEMPTS - 1);
        assert_eq!(BIND_PAUSE * heard.len() as u32, Duration::from_secs(1));
        let mut held = Some(held);
        let bound = bind_patiently(bind, |attempt, error| {
            assert_eq!((attempt, error.to_string()), (1, refused.clone()));
            held = None;
        });
        assert!(bound.is_ok());
        let mut attempts = 0;
        let other = || Err::<(), _>(StartError::System(io::ErrorKind::AddrInUse.into()));
        assert!(bind_patiently(other, |_, _| attempts += 1).is_err());
        assert_eq!(attempts, 0, "nothing else is tried twice");
    }

    /// A port that the system chooses is one for all addresses of a name.
    #[test]
    fn one_port_for_all() {
        let free = |ip: &str| format!("{ip}:0").parse().unwrap();
        let found = one_port(vec![free("127.0.0.1"), free("127.0.0.2")]).unwrap();
        assert_ne!(found[0].port(), 0);
        assert_eq!(found[0].port(), found[1].port());
        assert_eq!(one_port(vec![free("127.0.0.1")]).unwrap(), [free("127.0.0.1")]);
    }
}
