//! What the command line says, and how it wins over the file.

use super::{Address, Config, Diagnostic, Dialect, Io, Levels, Metrics, Refused, Shards};
use std::path::PathBuf;

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overrides {
    /// `-a`: the address to listen on.
    pub address: Option<String>,
    /// `-p`: the port to listen on.
    pub port: Option<u16>,
    /// `-v`: log everything.
    pub verbose: bool,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--metrics`.
    pub metrics: Option<Metrics>,
    /// `--shards`.
    pub shards: Option<Shards>,
    /// `--io`.
    pub io: Option<Io>,
}

impl Config {
    /// Lets the command line win, with a warning for each value of the file that it replaces.
    ///
    /// # Errors
    /// `-a` or `-p` beside several listeners: which one they mean cannot be known.
    pub fn apply(&mut self, overrides: &Overrides) -> Result<(), Refused> {
        self.override_listener(overrides)?;
        if overrides.verbose {
            if let Some((_, place)) = self.places.first(["log_type", "log_level"])
                && self.log.levels != Levels::ALL
            {
                self.warnings
                    .push(place.say("the command line wins: -v logs everything"));
            }
            self.log.levels = Levels::ALL;
        }
        if let Some(path) = &overrides.pid_file {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            if self.pid_file.as_ref().is_some_and(|old| *old != path) {
                self.warn_override("--pid-file", "pid_file");
            }
            self.pid_file = Some(path);
        }
        if let Some(metrics) = overrides.metrics {
            if self.metrics != Metrics::Default && self.metrics != metrics {
                self.warn_override("--metrics", "metrics");
            }
            self.metrics = metrics;
        }
        if let Some(shards) = overrides.shards {
            if self.shards != Shards::Auto && self.shards != shards {
                self.warn_override("--shards", "shards");
            }
            self.shards = shards;
        }
        if let Some(io) = overrides.io {
            if self.io != Io::Auto && self.io != io {
                self.warn_override("--io", "io");
            }
            self.io = io;
        }
        Ok(())
    }

    fn override_listener(&mut self, overrides: &Overrides) -> Result<(), Refused> {
        if overrides.address.is_none() && overrides.port.is_none() {
            return Ok(());
        }
        let [listener] = self.listeners.as_mut_slice() else {
            let text = format!("-a and -p need a file with one listener, not {}", self.listeners.len());
            return Err(Diagnostic::of_command_line(text).into());
        };
        let old = listener.address.clone();
        listener.address = match &old {
            Address::Tcp { host, port } => Address::Tcp {
                host: overrides.address.clone().or_else(|| host.clone()),
                port: overrides.port.unwrap_or(*port),
            },
            Address::Unix(_) => Address::Tcp {
                host: Some(overrides.address.clone().unwrap_or_else(|| "127.0.0.1".to_owned())),
                port: overrides.port.unwrap_or(1883),
            },
        };
        if self.dialect == Dialect::Sol
            && let Address::Tcp { host: Some(host), port } = &listener.address
        {
            listener.address = Address::of_sol(host.clone(), *port);
        }
        let new = listener.address.clone();
        if listener.place.line > 0 && old != new {
            let text = format!("the command line wins: listening on {new}, not on {old}");
            self.warnings.push(listener.place.say(text));
        }
        Ok(())
    }

    fn warn_override(&mut self, flag: &str, directive: &str) {
        let text = format!("{flag} wins over {directive} in the file");
        self.warnings.push(Diagnostic::of_command_line(text));
    }
}
