//! Starting and stopping: the threads, their listeners and how they end.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::Socket;
use sol_engine::{EngineConfig, ListenerId, ShardId};
use sol_journal::{CommitError, Disk, OsDisk, Writer};

use crate::backend::epoll::Epoll;
use crate::backend::uring::{Uring, try_out};
use crate::backend::{Backend, BackendLimits};
use crate::choice::{BackendName, Choice, choose};
use crate::clock::Clock;
use crate::config::TransportConfig;
use crate::durable::{Durable, DurableError, Numbers, Progress, Restored, Restorer, Watch};
use crate::handle::Handle;
use crate::listener::{ListenAddr, ListenError, SocketFile, bind};
use crate::mailbox::{Exchange, Mailbox};
use crate::observer::{Notice, Observer};
use crate::pin::{Core, cores};
use crate::shard::{Shard, panic_text};
use crate::websocket::Files;

/// How the shards ended.
#[derive(Debug)]
pub enum Exit {
    /// They were stopped.
    Stopped,
    /// A fault of ours left a shard in a state that cannot be trusted; the text says what it was. Nothing was
    /// acknowledged after it. The process must end (with exit code 70), because other shards may wait for this one.
    Poisoned(String),
    /// The system failed a shard in a way that it cannot go on from.
    Failed(io::Error),
    /// The journal cannot keep anything any more; the sentence says why. Nothing was acknowledged after it. The process must
    /// end (with exit code 74): what is really kept can only be read anew.
    Unkept(String),
    /// They were stopped, and what was on its way then does not fit on the disk, which is full. Nothing of it was acknowledged;
    /// all that was is kept. The process should say so in the end (with exit code 74).
    NoRoom,
}

/// Why the shards could not be started.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be had.
    Listen(ListenError),
    /// [`crate::Io::IoUring`] was asked for and is not to be had; the sentence says why, and what to do.
    NoIoUring(String),
    /// The system refused a thread, a descriptor or memory.
    System(io::Error),
    /// What the journal holds cannot be taken up.
    Durable(DurableError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::NoIoUring(why) => write!(f, "cannot start with io_uring: {why}"),
            Self::System(error) => write!(f, "cannot start: {error}"),
            Self::Durable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::NoIoUring(_) => None,
            Self::System(error) => Some(error),
            Self::Durable(error) => Some(error),
        }
    }
}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Less would have shards pause each other's publishers for every message. It keeps 64 shards within their part of 32 MiB.
const MAILBOX_BYTES_HIGH_MIN: usize = 1 << 10;

/// How often whoever waits for the start hears of it while the shards settle.
const SETTLING_TOLD_EVERY: Duration = Duration::from_secs(1);

/// The running shards.
#[derive(Debug)]
pub struct Shards {
    choice: Choice,
    handle: Handle,
    addresses: Vec<ListenAddr>,
    #[expect(dead_code, reason = "removed when dropped")]
    files: Vec<SocketFile>,
    threads: Vec<JoinHandle<()>>,
    exits: Receiver<Exit>,
    journal: Option<Writer>,
}

/// What one shard's thread is given.
struct Start<O> {
    config: TransportConfig,
    engine: EngineConfig,
    seeds: [u64; 4],
    clock: Clock,
    mailbox: Mailbox,
    sockets: Vec<Socket>,
    /// Where the thread is to stay, if it is to.
    core: Option<io::Result<Core>>,
    /// What it begins with, and how listeners are numbered in it.
    restored: Option<(Receiver<Restored>, Arc<Numbers>)>,
    observer: O,
}

/// What shards are started with.
struct Begin<D: Disk> {
    choice: Choice,
    seeds: [u64; 4],
    clock: Clock,
    durable: Option<Restorer<D>>,
    /// What each shard hears of it, the last shard's first.
    restored: Vec<(Receiver<Restored>, Arc<Numbers>)>,
}

/// Everything that needs a privilege, done; no thread runs yet, and nobody is accepted. Dropped, it lets go of it all.
#[derive(Debug)]
pub struct BoundShards {
    config: TransportConfig,
    engine: EngineConfig,
    addresses: Vec<ListenAddr>,
    files: Vec<SocketFile>,
    /// Each shard's, the last shard's first.
    sockets: Vec<Vec<Socket>>,
}

impl BoundShards {
    /// Has a listener serve these files. Does nothing to a listener without WebSocket.
    pub fn change_files(&mut self, listener: ListenerId, files: &Arc<Files>) {
        self.config.change_files(listener, Arc::clone(files));
    }

    /// Starts `engine.shards` shards, on the backend that `config.io` chooses. `seeds` must be unpredictable: they key the
    /// hashes of what clients choose. `observer` makes each shard's own.
    ///
    /// # Errors
    /// When the wanted backend cannot be had, or the system refuses a resource; nothing runs then.
    pub fn start<O: Observer>(
        self,
        seeds: [u64; 4],
        clock: Clock,
        observer: impl FnMut(ShardId) -> O,
    ) -> Result<Shards, StartError> {
        let choice = choose(self.config.io, try_out)?;
        let begin = Begin {
            choice,
            seeds,
            clock,
            durable: None::<Restorer<OsDisk>>,
            restored: Vec::new(),
        };
        self.start_with(begin, observer)
    }

    /// As [`start`](Self::start), with all that a store holds, and what is durable written there from now on.
    ///
    /// # Errors
    /// As there, or what the store holds cannot be taken up.
    pub fn start_durable<D: Disk, O: Observer>(
        mut self,
        durable: Durable<D>,
        clock: Clock,
        observer: impl FnMut(ShardId) -> O,
    ) -> Result<Shards, StartError> {
        let choice = choose(self.config.io, try_out)?;
        self.engine.journal = true;
        let (seeds, numbers) = (durable.seeds(), Arc::clone(durable.numbers()));
        let (restorer, receivers) = Restorer::new(durable, self.engine.shards);
        let restored = receivers.into_iter().map(|receiver| (receiver, Arc::clone(&numbers)));
        let begin = Begin {
            choice,
            seeds,
            clock,
            restored: restored.rev().collect(),
            durable: Some(restorer),
        };
        self.start_with(begin, observer)
    }

    fn start_with<D: Disk, O: Observer>(
        self,
        begin: Begin<D>,
        observer: impl FnMut(ShardId) -> O,
    ) -> Result<Shards, StartError> {
        match begin.choice.backend {
            BackendName::IoUring => self.start_on::<Uring, D, O>(begin, observer),
            BackendName::Epoll | BackendName::Kqueue => self.start_on::<Epoll, D, O>(begin, observer),
        }
    }

    fn start_on<B: Backend, D: Disk, O: Observer>(
        mut self,
        begin: Begin<D>,
        mut observer: impl FnMut(ShardId) -> O,
    ) -> Result<Shards, StartError> {
        let Begin {
            choice,
            seeds,
            clock,
            durable,
            mut restored,
        } = begin;
        let (config, engine) = (&self.config, &self.engine);
        let (exchange, mailboxes) = Exchange::new(engine.shards, config.mailbox_bytes_high, config.listeners.len());
        let (exit, exits) = bounded(mailboxes.len());
        let (ready, readies) = bounded(mailboxes.len());
        let mut shards = Shards {
            choice,
            handle: Handle::new(exchange),
            addresses: self.addresses,
            files: self.files,
            threads: Vec::new(),
            exits,
            journal: None,
        };
        let mut cores = cores(config.pin_shards);
        for mailbox in mailboxes {
            let start = Start {
                config: config.clone(),
                engine: engine.clone(),
                seeds,
                clock,
                observer: observer(mailbox.shard()),
                sockets: self.sockets.pop().unwrap_or_default(),
                core: cores.next(),
                restored: restored.pop(),
                mailbox,
            };
            let (ready, exit) = (ready.clone(), exit.clone());
            let thread = thread::Builder::new().name(format!("shard-{}", start.mailbox.shard().0));
            shards.threads.push(thread.spawn(move || {
                if let Some(shard) = answer(start.shard::<B>(), ready) {
                    // Nobody listens any more when the process is on its way out.
                    let _ = exit.send(run(shard));
                }
            })?);
        }
        // Only the threads can answer now.
        drop(ready);
        let mut watch = Watch::default();
        if let Some(durable) = durable {
            let exchange = Arc::clone(shards.handle.exchange());
            let (writer, told) = durable.run(exchange, clock).map_err(StartError::Durable)?;
            shards.handle.set_journal(writer.handle());
            shards.journal = Some(writer);
            watch = told;
        }
        match await_all(&shards.threads, &readies, &mut watch) {
            Ok(()) => Ok(shards),
            Err(error) => Err(shards.failure_of_journal().unwrap_or(error)),
        }
    }
}

impl Shards {
    /// Binds the listeners, for shards that [`BoundShards::start`] starts: what lies between the two may take privileges
    /// away. The process may have as many descriptors as the system grants it now, and peers that were not let in at most a
    /// quarter of them.
    ///
    /// # Errors
    /// When a listener cannot be had.
    pub fn bind(config: &TransportConfig, engine: &EngineConfig) -> Result<BoundShards, StartError> {
        let mut bound = BoundShards {
            config: TransportConfig {
                unauthenticated_max: unauthenticated_max(config, descriptors_max(), engine.shards),
                mailbox_bytes_high: mailbox_bytes_high(config, engine),
                ..config.clone()
            },
            engine: engine.clone(),
            addresses: Vec::new(),
            files: Vec::new(),
            sockets: (0..engine.shards).map(|_| Vec::new()).collect(),
        };
        for listener in &config.listeners {
            let one = bind(listener, bound.sockets.len())?;
            for (own, socket) in bound.sockets.iter_mut().zip(one.sockets) {
                own.push(socket);
            }
            bound.addresses.push(one.address);
            bound.files.extend(one.file);
        }
        Ok(bound)
    }

    /// [`Self::bind`] and [`BoundShards::start`] in one.
    ///
    /// # Errors
    /// As both of them.
    pub fn start<O: Observer>(
        config: &TransportConfig,
        engine: &EngineConfig,
        seeds: [u64; 4],
        clock: Clock,
        observer: impl FnMut(ShardId) -> O,
    ) -> Result<Self, StartError> {
        Self::bind(config, engine)?.start(seeds, clock, observer)
    }

    /// Where the listeners listen, in the order of the configuration, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// The backend that all shards run on.
    #[must_use]
    pub const fn backend(&self) -> BackendName {
        self.choice.backend
    }

    /// Why [`crate::Io::Auto`] did not take io_uring, in one sentence without a full stop; `None`: it did, or there was
    /// nothing to choose.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.choice.fallback.as_deref()
    }

    /// What other threads speak to the shards through.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What the journal has failed with, if it has: a shard that ends for that before it has begun cannot say so.
    fn failure_of_journal(&mut self) -> Option<StartError> {
        let failure = self.journal.take()?.stop().err()?;
        matches!(failure, CommitError::Failed(_)).then(|| StartError::Durable(DurableError::Write(failure)))
    }

    /// Waits until the shards have stopped, or the first one of them has failed.
    #[must_use]
    pub fn join(mut self) -> Exit {
        for _ in 0..self.threads.len() {
            match self.exits.recv() {
                Ok(Exit::Stopped) => {}
                Ok(failed) => {
                    // The others may wait for the one that failed, so nobody waits for them.
                    self.threads.clear();
                    return failed;
                }
                Err(_) => break,
            }
        }
        // Nobody writes any more, and what was written is kept.
        self.journal
            .take()
            .map_or(Exit::Stopped, |writer| stopped(writer.stop()))
    }
}

/// How it ends where the shards have ended in order, and the journal like this.
fn stopped(journal: Result<(), CommitError>) -> Exit {
    match journal {
        Ok(()) => Exit::Stopped,
        Err(CommitError::Full) => Exit::NoRoom,
        Err(CommitError::Failed(failure)) => Exit::Unkept(failure.to_string()),
    }
}

/// Stops what still runs and waits for it.
impl Drop for Shards {
    fn drop(&mut self) {
        self.handle.stop();
        for thread in self.threads.drain(..) {
            // Its exit was told or is of no interest any more.
            let _ = thread.join();
        }
    }
}

impl<O: Observer> Start<O> {
    fn shard<B: Backend>(mut self) -> Result<Shard<B, O>, StartError> {
        // Before anything is allocated that should lie near that core.
        if let Some(core) = self.core.take()
            && let Err(error) = core.and_then(Core::pin)
        {
            self.observer.notice(Notice::NotPinned(&error));
        }
        let backend = B::new(BackendLimits {
            read_bytes: self.config.read_bytes,
            little_bytes: usize::try_from(self.config.connect_bytes_max).unwrap_or(usize::MAX),
            reads_max: self.config.reads_max,
            accepts_max: self.config.accepts_max,
            accept_pause: self.config.accept_pause,
            buffers: self.config.read_buffers,
            completions_max: self.config.completions_max,
        })?;
        self.mailbox.set_wake(backend.wake()?);
        let mut shard = Shard::new(
            backend,
            self.config,
            self.engine,
            self.seeds,
            self.clock,
            self.mailbox,
            self.observer,
        );
        if let Some((restored, numbers)) = self.restored {
            shard.restore(&restored, &numbers)?;
        }
        shard.listen(self.sockets)?;
        Ok(shard)
    }
}

/// Raises the limit of descriptors as far as the process may, and gives it; `None`: there is none. The soft limit is low
/// by default for the sake of programs that use `select`.
fn descriptors_max() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Some systems have another limit below the hard one; then it stays as it is.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    }
}

/// A pair of shards gets its part of an eighth of the memory that all may use: what lies in mailboxes is charged to nobody.
fn mailbox_bytes_high(config: &TransportConfig, engine: &EngineConfig) -> usize {
    let pairs = usize::from(engine.shards.max(1)).pow(2);
    config
        .mailbox_bytes_high
        .min((engine.memory_bytes_max / 8 / pairs).max(MAILBOX_BYTES_HIGH_MIN))
}

/// How many connections of one shard may be unauthenticated: the crowd outside must leave descriptors to those inside.
fn unauthenticated_max(config: &TransportConfig, descriptors: Option<u64>, shards: u16) -> usize {
    let share = descriptors.map(|max| usize::try_from(max / 4 / u64::from(shards.max(1))).unwrap_or(usize::MAX));
    config.unauthenticated_max.min(share.unwrap_or(usize::MAX).max(1))
}

/// Says whether a shard has started, and gives it if somebody listens. `ready` ends here: a thread that lived on with it
/// would hide that another has died.
fn answer<T>(started: Result<T, StartError>, ready: Sender<Result<(), StartError>>) -> Option<T> {
    let (told, shard) = match started {
        Ok(shard) => (Ok(()), Some(shard)),
        Err(error) => (Err(error), None),
    };
    ready.send(told).ok().and(shard)
}

/// Waits until all threads have answered. One that has died before it could is an error too, and nobody waits for it.
fn await_all<T>(
    threads: &[JoinHandle<T>],
    readies: &Receiver<Result<(), StartError>>,
    watch: &mut Watch,
) -> Result<(), StartError> {
    let mut waiting = threads.len();
    while waiting > 0 {
        match readies.recv_timeout(SETTLING_TOLD_EVERY) {
            Ok(answer) => answer?,
            // What it had answered would be here.
            Err(RecvTimeoutError::Timeout) if threads.iter().any(JoinHandle::is_finished) && readies.is_empty() => {
                return Err(io::Error::other("a shard has ended before it had begun").into());
            }
            Err(RecvTimeoutError::Timeout) => {
                watch.tell(Progress::Settling);
                continue;
            }
            Err(error) => return Err(io::Error::other(error).into()),
        }
        waiting -= 1;
    }
    Ok(())
}

fn run<B: Backend, O: Observer>(shard: Shard<B, O>) -> Exit {
    // What the turn itself does not contain, nothing can be said about.
    catch_unwind(AssertUnwindSafe(|| shard.run()))
        .unwrap_or_else(|panic| Exit::Poisoned(panic_text(panic.as_ref()).to_owned()))
}

const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Handle>();
    is_send_and_sync::<Arc<Exchange>>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_outside_gets_a_quarter_of_the_descriptors_at_most() {
        let config = TransportConfig::default();
        assert_eq!(unauthenticated_max(&config, None, 2), 8_192);
        assert_eq!(unauthenticated_max(&config, Some(1 << 20), 2), 8_192);
        assert_eq!(unauthenticated_max(&config, Some(1_024), 2), 128);
        assert_eq!(unauthenticated_max(&config, Some(1), 2), 1);
    }

    /// From 32 MiB on all pairs of shards together stay within an eighth of the memory, however many shards there are.
    #[test]
    fn mailboxes_take_a_bounded_part_of_the_memory_however_many_there_are() {
        let config = TransportConfig::default();
        let high = |shards, memory_bytes_max| {
            let engine = EngineConfig {
                shards,
                memory_bytes_max,
                ..EngineConfig::default()
            };
            mailbox_bytes_high(&config, &engine)
        };
        assert_eq!(high(2, usize::MAX), 1 << 20);
        assert_eq!(high(64, 16 << 30), 512 << 10);
        for shards in 1..=64_u16 {
            let pairs = usize::from(shards).pow(2);
            for memory in [32 << 20, 256 << 20, 1 << 30, 16 << 30] {
                let high = high(shards, memory);
                assert!(
                    (1 << 10..=1 << 20).contains(&high),
                    "{shards} shards, {memory} bytes: {high}"
                );
                assert!(pairs * high <= memory / 8, "{shards} shards, {memory} bytes: {high}");
            }
        }
    }

    /// A shard that dies while it starts ends the start with an error although another one runs, and runs on: one that has
    /// begun, and one that waits to hear of the dead one's.
    #[test]
    fn a_shard_that_runs_does_not_hide_one_that_died_while_it_started() {
        for has_begun in [true, false] {
            let (ready, readies) = bounded(2);
            let (end, ended) = bounded::<()>(0);
            let runs = {
                let ready = ready.clone();
                thread::spawn(move || {
                    let waits = if has_begun {
                        assert!(answer(Ok(()), ready).is_some());
                        None
                    } else {
                        Some(ready)
                    };
                    assert!(ended.recv().is_err());
                    drop(waits);
                })
            };
            let dies = thread::spawn(move || {
                let _ready = ready;
                panic!("planted in the start of a shard");
            });
            let threads = [runs, dies];
            assert!(await_all(&threads, &readies, &mut Watch::default()).is_err());
            drop(end);
            assert_eq!(threads.map(|thread| thread.join().is_ok()), [true, false]);
        }
    }

    /// That there was no room at the stop is not taken for a failure, nor for an end in order.
    #[test]
    fn a_stop_on_a_full_disk_is_told_from_a_failed_one() {
        assert!(matches!(stopped(Ok(())), Exit::Stopped));
        assert!(matches!(stopped(Err(CommitError::Full)), Exit::NoRoom));
    }

    #[test]
    fn the_soft_limit_of_descriptors_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let max = descriptors_max();
        let after = getrlimit(Resource::Nofile);
        assert_eq!((after.current, after.maximum), (max, before.maximum));
        assert_eq!(max, before.maximum);
    }
}
