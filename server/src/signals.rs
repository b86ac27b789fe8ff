//! Signals, turned into calls on a thread of their own.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

/// What the operator asks for. SIGPIPE needs no word: Rust's runtime ignores it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM or SIGINT: stop gracefully.
    Stop,
    /// SIGHUP: read the configuration and the password file again, open log files anew.
    Reload,
    /// SIGUSR1 or SIGUSR2, which scripts send to Mosquitto: without a meaning here, but no reason to end.
    User,
}

/// Signals are caught for as long as this lives.
#[derive(Debug)]
pub struct Watcher {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Signals are caught, and wait to be told.
#[derive(Debug)]
pub struct Caught(Signals);

/// Catches signals. From its return on none is lost, and none ends the process.
///
/// # Errors
/// The system refuses the handlers.
pub fn catch() -> io::Result<Caught> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]).map(Caught)
}

/// Calls `on_signal` for every signal, on one thread, one at a time. From its return on no signal is lost.
///
/// # Errors
/// The system refuses the handlers or the thread.
pub fn watch(on_signal: impl FnMut(Signal) + Send + 'static) -> io::Result<Watcher> {
    catch()?.watch(on_signal)
}

impl Caught {
    /// Calls `on_signal` for every signal since, as [`watch`] does.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn watch(self, on_signal: impl FnMut(Signal) + Send + 'static) -> io::Result<Watcher> {
        tell(self.0, on_signal)
    }
}

fn tell(mut signals: Signals, mut on_signal: impl FnMut(Signal) + Send + 'static) -> io::Result<Watcher> {
    let handle = signals.handle();
    let thread = std::thread::Builder::new()
        .name("sol-signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                on_signal(match signal {
                    SIGHUP => Signal::Reload,
                    SIGUSR1 | SIGUSR2 => Signal::User,
                    _ => Signal::Stop,
                });
            }
        })?;
    Ok(Watcher {
        handle,
        thread: Some(thread),
    })
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// The signals arrive as what they mean, in order.
    #[test]
    fn signals_arrive() {
        let (sender, receiver) = mpsc::channel();
        let watcher = watch(move |signal| sender.send(signal).unwrap()).unwrap();
        for (number, meaning) in [
            (SIGHUP, Signal::Reload),
            (SIGTERM, Signal::Stop),
            (SIGINT, Signal::Stop),
            (SIGUSR1, Signal::User),
            (SIGUSR2, Signal::User),
        ] {
            signal_hook::low_level::raise(number).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(30)), Ok(meaning));
        }
        drop(watcher);
        assert!(receiver.recv().is_err());
    }
}
