//! What systemd is told, where it starts the broker: that its start takes longer, that it is ready, reads its files again,
//! stops, and is alive.
//!
//! ```text
//!   EXTEND_TIMEOUT_USEC=… ──► READY=1 ──► WATCHDOG=1 … ──► RELOADING=1, READY=1 ──► STOPPING=1
//! ```
//! A datagram each, to the socket that the environment names (sd_notify(3)). Who is not asked for it says nothing.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// How long it may take until what is told is taken. At the start of a whole machine its queue may be full for a moment, and
/// who is never heard to be ready is ended; later nobody who serves clients waits for this.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer a start may take than it was allowed to, from each time on that it says how far it is: much longer than from
/// one time to the next, because a disk may hang for a while.
const EXTENSION: Duration = Duration::from_secs(60);

/// Whom to tell.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names. Connected at once: later there may be no right to.
    pub(crate) fn of_this_process() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| connect(path.as_encoded_bytes()).ok());
        let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_asked = variable("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = variable("WATCHDOG_USEC").filter(|usec| is_asked && socket.is_some() && *usec > 0);
        Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// One that listens at this path.
    #[cfg(test)]
    pub(crate) fn at(path: &std::path::Path) -> Self {
        Self {
            socket: connect(path.as_os_str().as_encoded_bytes()).ok(),
            watchdog: None,
        }
    }

    /// How often it wants to hear that the broker is alive: twice in the time after which it would end it.
    pub(crate) fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// The start goes on, and takes longer.
    pub(crate) fn starting(&self) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
    }

    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(crate) fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// A supervisor that is gone, or too busy to take it in time, is no reason to stop.
    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// A path, or behind an `@` a name that Linux keeps apart from files.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(TELL_TIMEOUT))?;
    match name {
        [b'@', name @ ..] => connect_abstract(&socket, name)?,
        path => socket.connect(std::path::Path::new(
            std::str::from_utf8(path).map_err(io::Error::other)?,
        ))?,
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(listener: &UnixDatagram, name: &[u8]) -> Vec<String> {
        let supervisor = Supervisor {
            socket: Some(connect(name).unwrap()),
            watchdog: Some(Duration::from_secs(3)),
        };
        supervisor.starting();
        supervisor.ready();
        supervisor.reloading();
        supervisor.alive();
        supervisor.stopping();
        assert_eq!(supervisor.watchdog_interval(), Some(Duration::from_millis(1500)));
        let mut bytes = [0; 64];
        let mut next = || {
            let len = listener.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..len]).into_owned()
        };
        (0..5).map(|_| next()).collect()
    }

    /// A supervisor is told the words of sd_notify(3), a datagram each, by a path and by an abstract name.
    #[test]
    fn what_is_told() {
        let longer = "EXTEND_TIMEOUT_USEC=60000000";
        let words = [longer, "READY=1", "RELOADING=1", "WATCHDOG=1", "STOPPING=1"];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        assert_eq!(said(&listener, path.as_os_str().as_encoded_bytes()), words);
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("sol-test-{}", std::process::id());
            let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            assert_eq!(said(&listener, format!("@{name}").as_bytes()), words);
        }
    }

    /// What finds the supervisor's queue full waits for a place in it, so that nothing that matters is lost; but not for ever.
    #[test]
    fn a_supervisor_that_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        let filled = std::iter::repeat_with(|| filler.send_to(b"x", &path))
            .take_while(Result::is_ok)
            .count();
        assert!(filled > 0);
        let supervisor = Supervisor {
            socket: Some(connect(path.as_os_str().as_encoded_bytes()).unwrap()),
            watchdog: None,
        };
        supervisor.alive();
        let telling = std::thread::spawn(move || supervisor.ready());
        let mut bytes = [0; 64];
        let said: Vec<_> = (0..=filled)
            .map(|_| listener.recv(&mut bytes).map(|len| bytes[..len].to_vec()).unwrap())
            .collect();
        telling.join().unwrap();
        assert_eq!(said.last().map(Vec::as_slice), Some(&b"READY=1"[..]));
    }

    /// A supervisor that has gone is no reason to fail.
    #[test]
    fn a_supervisor_that_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor {
            socket: Some(connect(path.as_os_str().as_encoded_bytes()).unwrap()),
            watchdog: None,
        };
        drop(listener);
        supervisor.ready();
        Supervisor::default().ready();
    }
}
