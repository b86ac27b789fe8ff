//! Starts the broker with everything around it, and stays until a signal ends it.
//!
//! What serves clients is behind [`Broker`]: this module never touches a socket of theirs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sol_engine::{ChangedUser, Instant, Rules};
use sol_transport::Clock;

use crate::auth::{UserFiles, Verifier};
use crate::banner::{Facts, banner, open_warning};
use crate::cli::Serve;
use crate::config::{Config, Diagnostic, Host, Levels, Log, LogStream, METRICS_DEFAULT, Metrics, Overrides, reason};
use crate::daemon::{PidFile, Ready};
use crate::http_files::{self, Served};
use crate::log::{Logger, Publish};
use crate::metrics::MetricsServer;
use crate::reload::{self, Parts};
use crate::rights::{self, Rights};
use crate::sandbox::{self, Entered, Successor};
use crate::signals::{self, Signal};
use crate::stats::Stats;
use crate::store;
use crate::supervisor::Supervisor;
use crate::sys_topics::{Loads, sys_topics};
use crate::tls;

/// Threads that check passwords: two keep a login storm moving and leave the shards their cores.
const VERIFIER_THREADS: usize = 2;
/// Logins waiting for them; more are answered "Server busy".
const VERIFIER_QUEUE_MAX: usize = 1024;

/// How long a stop may take: the shards' own limit, and the last lines of the log.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the start waits for its lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The running broker, as the rest of the process sees it.
pub trait Broker: Send + Sync {
    /// What only it knows: where it listens in fact, how many shards it has.
    fn facts(&self) -> Facts;
    /// Its counters now; `None` if it does not answer in time.
    fn stats(&self) -> Option<Stats>;
    /// Publishes retained messages of its own.
    fn publish(&self, messages: Vec<(String, String)>);
    /// Gives what publishes lines of the log, as long as the broker runs.
    fn log_publisher(&self) -> Publish;
    /// Puts other limits, rules of who may connect, and each listener's rules of who may read and write what in force;
    /// listeners stay as they are.
    fn reload(&self, config: &Config, rights: &[Option<Arc<Rules>>]);
    /// Has those who come to a listener of the configuration from now on be encrypted in this way.
    fn change_tls(&self, listener: usize, tls: sol_transport::Tls);
    /// Has those who come to a listener of the configuration from now on be served these files.
    fn change_files(&self, listener: usize, files: &Arc<sol_transport::Files>);
    /// Ends the connections of those whose login may be wrong now, and gives back to those who are back what is theirs.
    fn change_users(&self, changed: Vec<ChangedUser>);
    /// Ends the connections of those whom a token or a hook has let in at these listeners of the configuration.
    fn end_grants(&self, listeners: &[usize]);
    /// Ends every connection gracefully and returns when all is done.
    fn stop(&self);
}

/// How the broker ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End {
    /// The exit code that says so.
    pub code: u8,
    /// Why, for whoever reads the log; empty if it was stopped.
    pub text: String,
}

/// Told once when the broker has ended, whether it was stopped or not.
pub type OnEnd = Box<dyn FnOnce(End) + Send>;

/// Why the process ends, if not by a signal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// A sentence, or a line each.
    pub text: String,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { code: 1, text }
    }
}

/// What the main thread waits for.
enum Occurrence {
    Signal(Signal),
    Ended(End),
}

/// What the broker is started with.
#[derive(Debug)]
pub struct Startup {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Checks passwords, if any are to be checked now or after a reload.
    pub verifier: Arc<Verifier>,
    /// Who may read and write what, by the listeners of the configuration.
    pub rights: Vec<Option<Arc<Rules>>>,
    /// What browsers get, by the listeners of the configuration.
    pub files: Served,
    /// Who hears that the start takes long.
    pub(crate) supervisor: Arc<Supervisor>,
}

/// A broker whose listeners are bound, and that has no thread yet.
pub trait Bound {
    /// Starts it; returns when it serves.
    ///
    /// # Errors
    /// A sentence that says why it cannot.
    fn start(self: Box<Self>, startup: &Startup, on_end: OnEnd) -> Result<Arc<dyn Broker>, Failure>;
}

/// Binds every listener; or gives a sentence that says why not. Nobody is let in yet.
pub type Bind = fn(&Config, &Rights, &tls::Listeners) -> Result<Box<dyn Bound>, String>;

/// What was read, opened and bound with the privileges that the process was started with. There is no thread but this.
struct Prepared {
    config: Config,
    users: UserFiles,
    rights: Rights,
    bound: Box<dyn Bound>,
    metrics: Option<TcpListener>,
    /// Removed when the broker has stopped, whichever way that is.
    pid_file: Option<PidFile>,
    supervisor: Arc<Supervisor>,
    successor: Successor,
}

/// Serves until a signal says stop.
///
/// # Errors
/// Why it could not start, or why it ended by itself.
pub fn serve(config: Config, options: &Serve, ready: Option<Ready>, bind: Bind) -> Result<(), Failure> {
    // First of all: what follows may take its time, and a signal without its handler ends the process.
    let caught = signals::catch().map_err(|error| format!("no signal handler: {}", reason(&error)))?;
    let successor = Successor::of(&config)?;
    let (logger, log_fault) = Logger::open(&config.log, successor.ids());
    logger.install();
    let mut warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(log_fault);
    warnings.extend(config.wandering_journal());
    if ready.is_some() && config.log.file.is_none() && !config.log.syslog {
        warnings.push("in the background, without a log file and syslog, nothing is logged".to_owned());
    }
    let (log, host) = (config.log.clone(), Host::detect());
    let files = read_files(&config, &mut warnings);
    // Before anybody can connect: whoever started the broker reads first what it thinks of the file.
    warnings.iter().for_each(|warning| warn(&log, warning));
    logger.flush(FLUSH_TIMEOUT);
    let prepared = prepare(config, files?, successor, bind)?;
    let entered = sandbox::enter(&prepared.config, &prepared.successor)?;
    let unreadable = sandbox::unreadable(&prepared.config);
    // With the rights that are left, so that what is served now can be read at SIGHUP, and nobody is shown what only root sees.
    let mut of_files = Vec::new();
    let served = at_start(&prepared.config, http_files::load_all(&prepared.config), &mut of_files)?;
    unreadable
        .iter()
        .chain(&of_files)
        .for_each(|warning| warn(&log, warning));
    logger
        .run()
        .map_err(|error| format!("no log thread: {}", reason(&error)))?;
    let (sender, occurrences) = channel();
    let _watcher = caught
        .watch(forward(sender.clone()))
        .map_err(|error| format!("no signal handler: {}", reason(&error)))?;
    let surroundings = Surroundings {
        host,
        entered,
        served,
        overrides: options.overrides(),
        logger: &logger,
        ready,
    };
    run_broker(prepared, surroundings, sender, &occurrences)
}

/// What the files say that the configuration names.
struct Files {
    users: UserFiles,
    rights: Rights,
    tls: tls::Listeners,
}

fn read_files(config: &Config, warnings: &mut Vec<String>) -> Result<Files, String> {
    Ok(Files {
        users: load_users(config, warnings)?,
        rights: at_start(config, rights::rights(config), warnings)?,
        tls: at_start(config, tls::load_all(config), warnings)?,
    })
}

/// Binds everything, and opens what else needs a privilege.
fn prepare(config: Config, files: Files, successor: Successor, bind: Bind) -> Result<Prepared, Failure> {
    forbid_cores();
    store::prepare(&config, successor.ids())?;
    Ok(Prepared {
        bound: bind(&config, &files.rights, &files.tls)?,
        metrics: bind_metrics(&config)?,
        pid_file: config.pid_file.as_deref().map(PidFile::write).transpose()?,
        supervisor: Arc::new(Supervisor::of_this_process()),
        config,
        users: files.users,
        rights: files.rights,
        successor,
    })
}

/// What the broker runs in.
struct Surroundings<'a> {
    host: Host,
    entered: Entered,
    served: Served,
    overrides: Overrides,
    logger: &'a Logger,
    ready: Option<Ready>,
}

/// Starts all threads and serves to the end.
fn run_broker(
    prepared: Prepared,
    around: Surroundings<'_>,
    sender: Sender<Occurrence>,
    occurrences: &Receiver<Occurrence>,
) -> Result<(), Failure> {
    let (config, users, supervisor) = (prepared.config, prepared.users, prepared.supervisor);
    let user_counts = (0..config.listeners.len()).map(|listener| users.count_at(listener));
    let user_counts = user_counts.collect();
    let verifier = Verifier::new(users, VERIFIER_THREADS, VERIFIER_QUEUE_MAX)
        .map_err(|error| format!("no verifier: {}", reason(&error)))?;
    verifier.limit(config.logins.clone());
    let startup = Startup {
        config: Arc::new(config),
        verifier: Arc::new(verifier),
        rights: prepared.rights,
        files: around.served,
        supervisor: Arc::clone(&supervisor),
    };
    let on_end = Box::new(move |end| drop(sender.send(Occurrence::Ended(end))));
    let config = &startup.config;
    // Dropped after the broker has stopped, whichever way this ends.
    let (_metrics, _pid_file);
    _pid_file = prepared.pid_file;
    let broker = prepared.bound.start(&startup, on_end)?;
    let stop = StopBroker(broker.as_ref(), &supervisor);
    around.logger.publish_by(broker.log_publisher());
    _metrics = prepared
        .metrics
        .map(|listener| start_metrics(listener, &broker))
        .transpose()?;
    let facts = Facts {
        users: user_counts,
        ..broker.facts()
    };
    if around.entered.is_lacking {
        tracing::warn!("{}", around.entered.told);
    } else {
        tracing::info!("{}", around.entered.told);
    }
    greet(config, &facts, around.ready.is_some());
    if let Some(ready) = around.ready {
        around.logger.flush(FLUSH_TIMEOUT);
        ready
            .announce()
            .map_err(|error| format!("cannot leave the terminal: {}", reason(&error)))?;
    }
    supervisor.ready();
    let parts = Parts {
        overrides: around.overrides,
        host: around.host,
        paths: around.entered.paths,
        logger: around.logger,
        verifier: &startup.verifier,
        broker: broker.as_ref(),
    };
    let rights = startup.rights.clone();
    let ended = run(Config::clone(config), rights, &parts, &supervisor, occurrences);
    drop(stop);
    match ended.or_else(|| failed_to_stop(occurrences)) {
        Some(End { code, text }) => {
            tracing::error!("{text}");
            Err(Failure { code, text })
        }
        None => Ok(()),
    }
}

/// How the broker ended after it was told to stop, unless that was in order: it may not be able to keep what it has acknowledged.
fn failed_to_stop(occurrences: &Receiver<Occurrence>) -> Option<End> {
    let end = occurrences.try_iter().find_map(|occurrence| match occurrence {
        Occurrence::Ended(end) => Some(end),
        Occurrence::Signal(_) => None,
    })?;
    (end.code != 0).then_some(end)
}

/// Most bytes of a core file. On Linux a limit of 0 holds for files alone, and a program that `core_pattern` pipes to is
/// given everything; 1 is what forbids that, too, and is less than any file may have. (To make the process undumpable
/// would do as well, but hides its descriptors from the user who runs it.)
const CORE_BYTES_MAX: u64 = if cfg!(target_os = "linux") { 1 } else { 0 };

/// Has a fault of ours leave no core: passwords and messages would stand in it.
fn forbid_cores() {
    let maximum = getrlimit(Resource::Core).maximum;
    // A lower limit can always be set; a system that thinks otherwise has its own reason.
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(maximum.map_or(CORE_BYTES_MAX, |maximum| maximum.min(CORE_BYTES_MAX))),
            maximum,
        },
    );
}

/// Stops the broker when dropped, so that no failure of what surrounds it leaves clients or a socket's file behind.
struct StopBroker<'a>(&'a dyn Broker, &'a Supervisor);

impl Drop for StopBroker<'_> {
    fn drop(&mut self) {
        self.1.stopping();
        tracing::info!("sol stops");
        self.0.stop();
    }
}

/// Says where the broker listens and for whom. The log's level may hide it from the log, never from who starts it.
fn greet(config: &Config, facts: &Facts, in_background: bool) {
    let hidden = config.log.stream == LogStream::None || !config.log.levels.has(Levels::INFO);
    for line in banner(config, facts) {
        tracing::info!("{line}");
        if hidden && !in_background {
            crate::print_error(&line);
        }
    }
    if let Some(warning) = open_warning(config, facts) {
        warn(&config.log, &warning);
    }
}

/// The loop of the main thread: statistics and the supervisor when they are due, signals when they come. Ends by a signal or
/// with the broker.
fn run(
    mut config: Config,
    mut rights: Rights,
    parts: &Parts<'_>,
    supervisor: &Supervisor,
    occurrences: &Receiver<Occurrence>,
) -> Option<End> {
    let (mut loads, clock) = (Loads::default(), Clock::start());
    let (mut publishing, mut watching) = (Rhythm::default(), Rhythm::default());
    loop {
        let now = clock.now().mono;
        let publishes = publishing.is_due(now, config.sys_interval);
        let tells = watching.is_due(now, supervisor.watchdog_interval());
        // Each shard has answered then: one that hangs is one that the supervisor is to see.
        if (publishes || tells)
            && let Some(stats) = parts.broker.stats()
        {
            supervisor.alive();
            if publishes {
                loads.update(&stats);
                let mut messages = Vec::new();
                sys_topics(&stats, &loads, &mut messages);
                parts.broker.publish(messages);
            }
        }
        let now = clock.now().mono;
        let left = [
            publishing.left(now, config.sys_interval),
            watching.left(now, supervisor.watchdog_interval()),
        ];
        let left = left.into_iter().flatten().min();
        match occurrences.recv_timeout(left.unwrap_or(Duration::MAX)) {
            Ok(Occurrence::Signal(Signal::Reload)) => {
                supervisor.reloading();
                reload::reload(&mut config, &mut rights, parts);
                supervisor.ready();
            }
            Ok(Occurrence::Signal(Signal::User)) => tracing::info!("SIGUSR1 and SIGUSR2 are ignored"),
            Ok(Occurrence::Signal(Signal::Stop)) | Err(RecvTimeoutError::Disconnected) => return None,
            Ok(Occurrence::Ended(end)) => return Some(end),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// When something was done last that is done again and again: signals, and what else is waited for, move it neither way.
#[derive(Default)]
pub(crate) struct Rhythm {
    last: Option<Instant>,
}

impl Rhythm {
    /// It was done, or need not be, at this moment.
    pub(crate) const fn since(now: Instant) -> Self {
        Self { last: Some(now) }
    }

    /// Whether it is time, as it is at first; the next time is counted from now then. Never, without an interval.
    pub(crate) fn is_due(&mut self, now: Instant, interval: Option<Duration>) -> bool {
        let is_due = self.left(now, interval).is_some_and(|left| left.is_zero());
        if is_due {
            self.last = Some(now);
        }
        is_due
    }

    /// How long it is until then.
    fn left(&self, now: Instant, interval: Option<Duration>) -> Option<Duration> {
        let interval = interval?;
        let since = self.last.map_or(interval, |last| now.saturating_since(last));
        Some(interval.saturating_sub(since))
    }
}

/// The users to start with: nobody, where passwords are not checked.
fn load_users(config: &Config, warnings: &mut Vec<String>) -> Result<UserFiles, String> {
    let users = at_start(config, reload::users(config), warnings)?;
    Ok(users.unwrap_or_default())
}

/// What a file says, with the warnings about it; its errors are a sentence a line.
fn at_start<T>(
    config: &Config,
    read: Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>,
    warnings: &mut Vec<String>,
) -> Result<T, String> {
    let from = config
        .source
        .as_ref()
        .map(|source| format!("{}: ", source.display()))
        .unwrap_or_default();
    let (said, told) = read.map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(|error| format!("{from}{error}")).collect();
        lines.join("\n")
    })?;
    warnings.extend(told.iter().map(ToString::to_string));
    Ok(said)
}

/// The first signal to stop goes to the main thread, which ends in good order within the stop time: another one in that
/// time asks for what is done already. One that comes later is for a broker that hangs.
fn forward(sender: Sender<Occurrence>) -> impl FnMut(Signal) + Send {
    let (clock, mut stopping) = (Clock::start(), None);
    move |signal| {
        if signal == Signal::Stop {
            let now = clock.now().mono;
            match stopping {
                None => stopping = Some(now),
                Some(since) if now.saturating_since(since) < STOP_TIME_MAX => return,
                Some(_) => std::process::exit(1),
            }
        }
        let _ = sender.send(Occurrence::Signal(signal));
    }
}

/// Metrics that nobody asked for give way when their port is taken; those that somebody did are owed.
fn bind_metrics(config: &Config) -> Result<Option<TcpListener>, String> {
    let address = match config.metrics {
        Metrics::Off => return Ok(None),
        Metrics::At(address) => address,
        Metrics::Default => match METRICS_DEFAULT.parse() {
            Ok(address) => address,
            Err(error) => return Err(format!("metrics: {error}")),
        },
    };
    match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.metrics == Metrics::Default => {
            let warning = format!("no metrics: {address} cannot be bound: {}", reason(&error));
            warn(&config.log, &warning);
            Ok(None)
        }
        Err(error) => Err(cannot_serve_metrics(address, &error)),
    }
}

fn start_metrics(listener: TcpListener, broker: &Arc<dyn Broker>) -> Result<MetricsServer, String> {
    let asked = Arc::clone(broker);
    let address = listener
        .local_addr()
        .map_err(|error| format!("metrics: {}", reason(&error)))?;
    let server = MetricsServer::serve(listener, Box::new(move || asked.stats()))
        .map_err(|error| cannot_serve_metrics(address, &error))?;
    tracing::info!("metrics on http://{}/metrics", server.address());
    Ok(server)
}

fn cannot_serve_metrics(address: SocketAddr, error: &io::Error) -> String {
    format!("metrics cannot be served on {address}: {}", reason(error))
}

/// Logs a warning of the start; one that the log would not show is printed.
fn warn(log: &Log, warning: &str) {
    tracing::warn!("{warning}");
    if log.stream != LogStream::Stderr || !log.levels.has(Levels::WARNING) {
        crate::print_error(&format!("warning: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that was stopped is heard to its end: whatever came before, that it did not end in order is what counts.
    #[test]
    fn a_failure_at_the_stop_is_heard() {
        let (sender, occurrences) = channel();
        let ended = |code, text: &str| {
            Occurrence::Ended(End {
                code,
                text: text.to_owned(),
            })
        };
        sender.send(Occurrence::Signal(Signal::Reload)).unwrap();
        sender.send(ended(0, "")).unwrap();
        assert_eq!(failed_to_stop(&occurrences), None);
        sender.send(Occurrence::Signal(Signal::Stop)).unwrap();
        sender.send(ended(74, "why")).unwrap();
        let why = "why".to_owned();
        assert_eq!(failed_to_stop(&occurrences), Some(End { code: 74, text: why }));
    }

    /// What has another rhythm beside it keeps its own: with a watchdog every second, something that is due every three is done
    /// every three.
    #[test]
    fn each_has_its_own_rhythm() {
        let (mut slow, mut quick) = (Rhythm::default(), Rhythm::default());
        let seconds = Duration::from_secs;
        let at = |n| Instant::from_nanos(0).saturating_add(seconds(n));
        let (mut slow_at, mut quick_at) = (Vec::new(), Vec::new());
        for n in 0..8 {
            if slow.is_due(at(n), Some(seconds(3))) {
                slow_at.push(n);
            }
            if quick.is_due(at(n), Some(seconds(1))) {
                quick_at.push(n);
            }
        }
        assert_eq!(slow_at, [0, 3, 6]);
        assert_eq!(quick_at, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(slow.left(at(7), Some(seconds(3))), Some(seconds(2)));
        assert_eq!(
            slow.left(at(7), Some(seconds(1))),
            Some(Duration::ZERO),
            "the interval is another now"
        );
        let mut later = Rhythm::since(at(5));
        let due: Vec<_> = (5..9).filter(|&n| later.is_due(at(n), Some(seconds(2)))).collect();
        assert_eq!(due, [7], "not at once, where it begins at a moment");
        assert!(!slow.is_due(at(100), None) && slow.left(at(100), None).is_none());
    }
}
