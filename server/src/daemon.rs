//! Running in the background.
//!
//! ```text
//! sol -d ──► starts itself, waits for "ready"          (terminal: its exit code is the start's)
//!              └─► leader of a new session, starts itself, ends
//!                     └─► the broker: no leader, so it never gets a terminal again
//! ```
//! The two steps are the customary double fork, but each step is a new program: nothing is shared with a process that
//! may already have threads, and no line of this is unsafe. Until the broker is ready its standard error is the
//! terminal, so that whoever started it reads why it could not; afterwards all three streams are `/dev/null`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::OFlags;

use crate::config::reason;

/// Says which of the processes this is; set by the one before.
const STAGE: &str = "SOL_DAEMON_STAGE";
const READY: &[u8] = b"ready\n";

/// Which of the processes of `sol -d` this is.
#[derive(Debug)]
pub enum Role {
    /// The one at the terminal: go on with [`start`].
    Terminal,
    /// The one in between: go on with [`detach`].
    Between,
    /// The broker itself; it calls [`Ready::announce`] when it serves.
    Broker(Ready),
}

impl Role {
    /// Which process this is. The environment says so: it is the one thing that survives between the steps.
    pub fn of_this_process() -> Self {
        match std::env::var_os(STAGE) {
            Some(stage) if stage == "1" => Self::Between,
            Some(stage) if stage == "2" => Self::Broker(Ready::take()),
            _ => Self::Terminal,
        }
    }
}

/// Starts the broker in the background and waits until it serves. Whether it does; why not it has told itself.
///
/// # Errors
/// The program cannot be started again.
pub fn start() -> io::Result<bool> {
    let mut child = next("1")?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut told = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(READY.len() as u64).read_to_end(&mut told)?;
    }
    child.wait()?;
    Ok(told == READY)
}

/// Leaves the terminal's session and starts the broker.
///
/// # Errors
/// The program cannot be started again.
pub fn detach() -> io::Result<()> {
    // Fails only for a process that leads a group already, which then is as free of the terminal's signals.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    next("2")?.spawn().map(drop)
}

fn next(stage: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(STAGE, stage);
    Ok(command)
}

/// The broker's word to the terminal: the pipe that the terminal waits at, if there is one.
#[derive(Debug)]
pub struct Ready(Option<File>);

impl Ready {
    /// Takes the pipe away from standard output, where a log that goes there would spoil the word.
    fn take() -> Self {
        let pipe = io::stdout().as_fd().try_clone_to_owned();
        let taken = pipe.and_then(|pipe| {
            let null = OpenOptions::new().write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdout(&null)?;
            Ok(File::from(pipe))
        });
        Self(taken.ok())
    }

    /// Says that clients are served, and lets the terminal and the current directory go.
    ///
    /// # Errors
    /// There is no `/dev/null`.
    pub fn announce(self) -> io::Result<()> {
        if let Some(mut pipe) = self.0 {
            // Nobody waits any more if this fails.
            let _ = pipe.write_all(READY);
        }
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        std::env::set_current_dir("/")
    }
}

/// A file with the process identifier; removed when dropped.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes the identifier of this process.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn write(path: &Path) -> Result<Self, String> {
        let text = format!("{}\n", std::process::id());
        // Its directory may be of somebody with less rights than this process has now.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| format!("pid file {} cannot be written: {}", path.display(), reason(&error)))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another broker may have written its own since.
        let ours = std::fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours && let Err(error) = std::fs::remove_file(&self.0) {
            let path = self.0.display();
            tracing::warn!("pid file {path} stays behind: it cannot be removed: {}", reason(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file holds this process, goes with it, and stays if another broker has taken it over.
    #[test]
    fn pid_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sol.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
        let refused = PidFile::write(Path::new("/nonexistent/sol.pid")).unwrap_err();
        assert_eq!(
            refused,
            "pid file /nonexistent/sol.pid cannot be written: No such file or directory"
        );
    }
}
