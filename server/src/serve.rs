//! Starts the broker with everything around it, and stays until a signal ends it.
//!
//! What serves clients is behind [`Broker`]: this module never touches a socket of theirs.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sol_engine::{ChangedUser, Rules};
use sol_transport::Clock;

use crate::auth::{UserFiles, Verifier};
use crate::banner::{Facts, banner, open_warning};
use crate::cli::Serve;
use crate::config::{Config, Diagnostic, Levels, LogStream, METRICS_DEFAULT, Metrics, reason};
use crate::daemon::{PidFile, Ready};
use crate::log::{Logger, Publish};
use crate::metrics::MetricsServer;
use crate::reload::{self, Parts};
use crate::rights::{self, Rights};
use crate::signals::{self, Signal};
use crate::stats::Stats;
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
    /// Ends the connections of those whose login may be wrong now, and gives back to those who are back what is theirs.
    fn change_users(&self, changed: Vec<ChangedUser>);
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
    /// What each listener encrypts with.
    pub tls: tls::Listeners,
}

/// Starts the broker; returns when every listener is bound, or a sentence that says why not.
pub type Launch = fn(&Startup, OnEnd) -> Result<Arc<dyn Broker>, String>;

/// Serves until a signal says stop.
///
/// # Errors
/// Why it could not start, or why it ended by itself.
pub fn serve(config: Config, options: &Serve, ready: Option<Ready>, launch: Launch) -> Result<(), Failure> {
    let (sender, occurrences) = channel();
    // First of all: what follows may take its time, and a signal without its handler ends the process.
    let _watcher =
        signals::watch(forward(sender.clone())).map_err(|error| format!("no signal handler: {}", reason(&error)))?;
    let (logger, log_fault) =
        Logger::start(&config.log).map_err(|error| format!("no log thread: {}", reason(&error)))?;
    logger.install();
    let mut warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(log_fault);
    let users = load_users(&config, &mut warnings)?;
    let rights = at_start(&config, rights::rights(&config), &mut warnings)?;
    let tls = at_start(&config, tls::load_all(&config), &mut warnings)?;
    if ready.is_some() && config.log.file.is_none() && !config.log.syslog {
        warnings.push("in the background, without a log file and syslog, nothing is logged".to_owned());
    }
    forbid_cores();
    let user_counts = (0..config.listeners.len()).map(|listener| users.count_at(listener));
    let user_counts = user_counts.collect();
    let verifier = Verifier::new(users, VERIFIER_THREADS, VERIFIER_QUEUE_MAX)
        .map_err(|error| format!("no verifier: {}", reason(&error)))?;
    verifier.limit(config.logins.clone());
    let startup = Startup {
        config: Arc::new(config),
        verifier: Arc::new(verifier),
        rights,
        tls,
    };
    let on_end = Box::new(move |end| drop(sender.send(Occurrence::Ended(end))));
    let config = &startup.config;
    // Before anybody can connect: whoever started the broker reads first what it thinks of the file.
    warnings.iter().for_each(|warning| warn(config, warning));
    logger.flush(FLUSH_TIMEOUT);
    // Dropped after the broker has stopped, whichever way this ends.
    let (_metrics, _pid_file);
    let broker = launch(&startup, on_end)?;
    let _stop = StopBroker(broker.as_ref());
    logger.publish_by(broker.log_publisher());
    _metrics = start_metrics(config, &broker)?;
    _pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;
    let facts = Facts {
        users: user_counts,
        ..broker.facts()
    };
    greet(config, &facts, ready.is_some());
    if let Some(ready) = ready {
        logger.flush(FLUSH_TIMEOUT);
        ready
            .announce()
            .map_err(|error| format!("cannot leave the terminal: {}", reason(&error)))?;
    }
    let parts = Parts {
        overrides: options.overrides(),
        logger: &logger,
        verifier: &startup.verifier,
        broker: broker.as_ref(),
    };
    match run(Config::clone(config), startup.rights.clone(), &parts, &occurrences) {
        Some(End { code, text }) => Err(Failure { code, text }),
        None => Ok(()),
    }
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
struct StopBroker<'a>(&'a dyn Broker);

impl Drop for StopBroker<'_> {
    fn drop(&mut self) {
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
        warn(config, &warning);
    }
}

/// The loop of the main thread: statistics when they are due, signals when they come. Ends by a signal or with the
/// broker.
fn run(mut config: Config, mut rights: Rights, parts: &Parts<'_>, occurrences: &Receiver<Occurrence>) -> Option<End> {
    let mut loads = Loads::default();
    loop {
        let interval = config.sys_interval;
        if interval.is_some()
            && let Some(stats) = parts.broker.stats()
        {
            loads.update(&stats);
            let mut messages = Vec::new();
            sys_topics(&stats, &loads, &mut messages);
            parts.broker.publish(messages);
        }
        // A signal in between only publishes early.
        match occurrences.recv_timeout(interval.unwrap_or(Duration::MAX)) {
            Ok(Occurrence::Signal(Signal::Reload)) => reload::reload(&mut config, &mut rights, parts),
            Ok(Occurrence::Signal(Signal::User)) => tracing::info!("SIGUSR1 and SIGUSR2 are ignored"),
            Ok(Occurrence::Signal(Signal::Stop)) | Err(RecvTimeoutError::Disconnected) => return None,
            Ok(Occurrence::Ended(end)) => {
                tracing::error!("{}", end.text);
                return Some(end);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
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
fn start_metrics(config: &Config, broker: &Arc<dyn Broker>) -> Result<Option<MetricsServer>, String> {
    let address = match config.metrics {
        Metrics::Off => return Ok(None),
        Metrics::At(address) => address,
        Metrics::Default => match METRICS_DEFAULT.parse() {
            Ok(address) => address,
            Err(error) => return Err(format!("metrics: {error}")),
        },
    };
    let asked = Arc::clone(broker);
    match MetricsServer::start(address, Box::new(move || asked.stats())) {
        Ok(server) => {
            tracing::info!("metrics on http://{}/metrics", server.address());
            Ok(Some(server))
        }
        Err(error) if config.metrics == Metrics::Default => {
            let warning = format!("no metrics: {address} cannot be bound: {}", reason(&error));
            warn(config, &warning);
            Ok(None)
        }
        Err(error) => Err(format!("metrics cannot be served on {address}: {}", reason(&error))),
    }
}

/// Logs a warning of the start; one that the log would not show is printed.
fn warn(config: &Config, warning: &str) {
    tracing::warn!("{warning}");
    if config.log.stream != LogStream::Stderr || !config.log.levels.has(Levels::WARNING) {
        crate::print_error(&format!("warning: {warning}"));
    }
}
