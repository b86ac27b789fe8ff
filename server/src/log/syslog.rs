//! The system's log, as syslog(3) writes to it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::config::reason;

/// Where the system's log listens.
pub(super) const PATH: &str = "/dev/log";
/// `LOG_DAEMON`.
const DAEMON: u8 = 3;
/// `LOG_LOCAL0`.
const LOCAL0: u8 = 16;

/// The system's log. Never waits for it.
pub(super) struct Syslog {
    path: PathBuf,
    facility: u8,
    socket: Option<UnixDatagram>,
    /// Lines that it has not got.
    lost: u64,
}

impl Syslog {
    /// Connects; where that fails it is told, and tried again with each line. `local` is one of the local facilities.
    pub(super) fn new(path: &Path, local: Option<u8>) -> (Self, Option<String>) {
        let mut syslog = Self {
            path: path.to_owned(),
            facility: local.map_or(DAEMON, |local| LOCAL0 + local),
            socket: None,
            lost: 0,
        };
        let fault = syslog.connect().err().map(|error| {
            let path = path.display();
            format!("the system's log at {path} cannot be reached: {}", reason(&error))
        });
        (syslog, fault)
    }

    /// Writes a line, behind the number of those that were lost.
    pub(super) fn write(&mut self, level: &str, line: &str) {
        if self.lost > 0 {
            let text = format!("{} log lines were lost here", self.lost);
            if self.send("WARNING", &text).is_ok() {
                self.lost = 0;
            }
        }
        if self.send(level, line).is_err() {
            self.lost += 1;
        }
    }

    fn send(&mut self, level: &str, line: &str) -> io::Result<()> {
        let severity = match level {
            "ERROR" => 3,
            "WARNING" => 4,
            "INFO" => 6,
            _ => 7,
        };
        let priority = u32::from(self.facility) * 8 + severity;
        let text = format!("<{priority}>sol[{}]: {}", std::process::id(), line.trim_end());
        if let Some(socket) = &self.socket
            && socket.send(text.as_bytes()).is_ok()
        {
            return Ok(());
        }
        // It may have been restarted, and listens anew.
        self.connect()?.send(text.as_bytes()).map(drop)
    }

    fn connect(&mut self) -> io::Result<&UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        Ok(self.socket.insert(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line arrives with its facility and severity; one that cannot be sent is counted, and told when it is back.
    #[test]
    fn lines_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut syslog, fault) = Syslog::new(&path, Some(3));
        assert!(fault.unwrap().ends_with("cannot be reached: No such file or directory"));
        syslog.write("ERROR", "nobody hears\n");
        let system = UnixDatagram::bind(&path).unwrap();
        syslog.write("INFO", "INFO heard\n");
        let heard = || {
            let mut bytes = [0; 256];
            let length = system.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let pid = std::process::id();
        assert_eq!(heard(), format!("<156>sol[{pid}]: 1 log lines were lost here"));
        assert_eq!(heard(), format!("<158>sol[{pid}]: INFO heard"));
    }
}
