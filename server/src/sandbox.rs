//! What the broker takes from itself before it lets anybody in: the privileges it was started with, files that are not its
//! own, and system calls that it does not make.
//!
//! ```text
//!   read files, bind ports, open the log   ──►  drop to `user`  ──►  Landlock  ──►  seccomp  ──►  threads, clients
//!   as whoever started it                       uid, groups          files          calls
//! ```
//! All of it is done by the only thread that there is: users, Landlock and the promise to gain no privileges are kept for
//! each thread of its own by Linux, and one that starts another hands them on. There is no way back out, so that SIGHUP
//! reads files as that user, and only where the configuration of the start had some.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls;
#[cfg(target_os = "linux")]
mod files;
mod paths;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::include::is_included;
use crate::config::{Config, Dialect, reason};
use crate::owner::{self, Account, Ids};
use sol_transport::Io;

pub(crate) use self::paths::Paths;

/// Whether the broker restricts itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sandbox {
    /// It does not.
    Off,
    /// As far as the kernel can.
    On,
    /// As far as the kernel can, and at least to its own files and calls; or it does not start.
    Required,
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Required => "required",
        })
    }
}

/// Whom root becomes where nobody is named: a user made for this broker, the one that Mosquitto has, or nobody at all.
const USERS: [&str; 3] = ["sol", "mosquitto", "nobody"];

/// The user that the process is to become; `None`: it stays who it is.
#[derive(Clone, Debug)]
pub struct Successor(Option<Account>);

impl Successor {
    /// Whom the configuration names, or the first of the users that it may be; only root can become another. The old broker
    /// became nobody else, and where its file names nobody, nor does this one.
    ///
    /// # Errors
    /// A sentence about a user that there is not, or about a system where this cannot be done.
    pub fn of(config: &Config) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let account = match config.user.as_deref() {
            Some(name) => {
                let place = config.places.of("user").cloned();
                let say = |text: String| match &place {
                    Some(place) => place.say(text).to_string(),
                    None => text,
                };
                let account = owner::account(name);
                Some(account.ok_or_else(|| say(format!("`user`: there is no user `{name}` in /etc/passwd")))?)
            }
            None if config.dialect == Dialect::Sol => None,
            None => USERS.into_iter().find_map(owner::account),
        };
        let account = account.filter(|account| account.ids.user != 0);
        if account.is_some() && cfg!(not(target_os = "linux")) {
            let text =
                "root cannot become another user here: let who is to run the broker start it, or say `user root`";
            return Err(text.to_owned());
        }
        Ok(Self(account))
    }

    /// Whom files belong to that are made before.
    pub fn ids(&self) -> Option<Ids> {
        self.0.as_ref().map(|account| account.ids)
    }
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Entered {
    /// In a sentence, for the log.
    pub told: String,
    /// The kernel could not give what the configuration asks for.
    pub is_lacking: bool,
    /// Where alone files may be touched; `None`: wherever the user may.
    pub(crate) paths: Option<Paths>,
}

/// Becomes the other user and restricts the process.
///
/// # Errors
/// A sentence: the user cannot be had, or what is required is not.
pub fn enter(config: &Config, successor: &Successor) -> Result<Entered, String> {
    // Looked at with the rights of before, for there may be links that only these can follow.
    let paths = Paths::of(config);
    let user = match &successor.0 {
        Some(account) => become_user(account)
            .map_err(|why| format!("cannot become user {}: {why}; `user root` stays root", account.name))?,
        None if rustix::process::geteuid().is_root() => "runs as root".to_owned(),
        None => "runs as the user who started it".to_owned(),
    };
    hand_on_no_capabilities();
    if config.sandbox == Sandbox::Off {
        return Ok(Entered {
            told: format!("{user}; sandbox: off"),
            is_lacking: false,
            paths: None,
        });
    }
    let files = confine_files(&paths);
    let calls = confine_calls(config, !paths.ports.is_empty());
    if config.sandbox == Sandbox::Required
        && let Some(why) = [("files", files.as_ref().err()), ("system calls", calls.as_ref().err())]
            .into_iter()
            .find_map(|(what, why)| Some(format!("no sandbox for {what}: {}", why?)))
    {
        return Err(format!("{why}; `sandbox on` starts without"));
    }
    let is_lacking = files.is_err() || calls.is_err();
    let paths = files.is_ok().then_some(paths);
    let files = match files {
        Ok(lacking) if lacking.is_empty() => "Landlock".to_owned(),
        Ok(lacking) => format!("Landlock (this kernel's has nothing for {})", lacking.join(", ")),
        Err(why) => format!("no Landlock ({why})"),
    };
    let calls = match calls {
        Ok(()) => "seccomp".to_owned(),
        Err(why) => format!("no seccomp ({why})"),
    };
    Ok(Entered {
        told: format!("{user}; sandbox: {files}, {calls}"),
        is_lacking,
        paths,
    })
}

/// Files that a reload will not be able to read, and a log that a rotation will not be able to open anew: a sentence each.
/// Told by the process as it is now.
pub fn unreadable(config: &Config) -> Vec<String> {
    let mut files: Vec<_> = paths::files(config).into_iter().map(Path::to_owned).collect();
    for directory in paths::directories(config) {
        let is_read =
            |file: &PathBuf| !config.include_dirs.iter().any(|included| included == directory) || is_included(file);
        files.extend(entries(directory).into_iter().filter(is_read));
    }
    // What is no file, as a pipe that hands over a key once, is not looked at a second time.
    let files = files
        .iter()
        .filter(|file| file.metadata().map_or_else(is_fault, |metadata| metadata.is_file()));
    let unreadable = files.filter_map(|file| {
        let why = reason(&std::fs::File::open(file).err()?);
        Some(format!("SIGHUP will not be able to read {}: {why}", file.display()))
    });
    unreadable
        .chain(config.log.file.as_deref().and_then(unwritable))
        .collect()
}

/// What a directory names; nothing where that cannot be listed, which a file of the configuration would have said.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A link to what is gone is none.
fn is_fault(error: std::io::Error) -> bool {
    error.kind() != std::io::ErrorKind::NotFound
}

/// Why a log cannot be opened anew, or not once it has been renamed.
fn unwritable(log: &Path) -> Option<String> {
    use rustix::fs::{Access, access};

    let shown = log.display();
    match std::fs::OpenOptions::new().append(true).open(log) {
        Err(error) => Some(format!(
            "SIGHUP will not be able to open {shown} anew: {}",
            reason(&error)
        )),
        Ok(file) if !file.metadata().is_ok_and(|metadata| metadata.is_file()) => None,
        Ok(_) => {
            let directory = log.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or_else(|| Path::new("."));
            let why = reason(&access(directory, Access::WRITE_OK | Access::EXEC_OK).err()?.into());
            let uid = rustix::process::geteuid().as_raw();
            Some(format!(
                "SIGHUP will not be able to make {shown} anew once it has been renamed: uid {uid} may not write to {}: {why}; \
                 give the directory to that user, or have the file made by who renames it (logrotate's `create`)",
                directory.display()
            ))
        }
    }
}

#[cfg(target_os = "linux")]
fn become_user(account: &Account) -> Result<String, String> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    // What follows holds for this thread and those that it starts. Were there another, it would stay root.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert!(threads == 1, "{threads} threads before the privileges are dropped");
    let (user, group) = (Uid::from_raw(account.ids.user), Gid::from_raw(account.ids.group));
    let groups: Vec<_> = [account.ids.group]
        .iter()
        .chain(&account.groups)
        .copied()
        .map(Gid::from_raw)
        .collect();
    // The user last: with it goes the right to change the others.
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user))
        .map_err(|error| match error {
            rustix::io::Errno::PERM => {
                "root lacks the capabilities CAP_SETUID and CAP_SETGID, as in a container that drops them".to_owned()
            }
            error => reason(&error.into()),
        })?;
    Ok(format!("runs as user {}", account.name))
}

/// Whoever got the right to bind a low port from its supervisor keeps it, and no program that it might be made to start has it.
#[cfg(target_os = "linux")]
fn hand_on_no_capabilities() {
    // A kernel without them has none to hand on.
    let _ = rustix::thread::clear_ambient_capability_set();
}

#[cfg(not(target_os = "linux"))]
const fn hand_on_no_capabilities() {}

#[cfg(not(target_os = "linux"))]
fn become_user(_: &Account) -> Result<String, String> {
    Err("only Linux has a way".to_owned())
}

#[cfg(target_os = "linux")]
fn confine_files(paths: &Paths) -> Result<Vec<&'static str>, String> {
    files::confine(paths)
}

#[cfg(not(target_os = "linux"))]
fn confine_files(_: &Paths) -> Result<Vec<&'static str>, String> {
    Err("only Linux has it".to_owned())
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn confine_calls(config: &Config, hooks: bool) -> Result<(), String> {
    calls::confine(&calls::Needs {
        rings: config.io != Io::Epoll,
        system_log: config.log.syslog,
        hooks,
        journal: config.persistence.directory().is_some(),
    })
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn confine_calls(_: &Config, _: bool) -> Result<(), String> {
    Err("there is no list of calls for this system".to_owned())
}
