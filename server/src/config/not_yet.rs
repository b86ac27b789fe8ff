//! What is understood but has no effect in this build.
//!
//! It is refused, because starting without it would promise what does not happen. Whatever gets its effect leaves this
//! list.

use super::listener::Listener;
use super::{Config, Diagnostic, Refused};

/// The directive that asks for it, whether a listener does, and what is missing.
type Row = (&'static str, fn(&Listener) -> bool, &'static str);

const LIST: &[Row] = &[(
    "http_dir",
    |listener| listener.websockets.http_dir.is_some(),
    "serving files to browsers",
)];

impl Config {
    /// What is asked for and has no effect in this build, a sentence each.
    pub fn not_yet(&self) -> Vec<Diagnostic> {
        let mut missing = Vec::new();
        for (name, asked, what) in LIST {
            for listener in self.listeners.iter().filter(|listener| asked(listener)) {
                let place = listener.places.of(name).or_else(|| self.places.of(name));
                let said = place
                    .unwrap_or(&listener.place)
                    .say(format!("`{name}`: {what} is not in this build yet"));
                if !missing.contains(&said) {
                    missing.push(said);
                }
            }
        }
        missing
    }

    /// Refuses what has no effect in this build.
    pub(crate) fn refuse_not_yet(self) -> Result<Self, Refused> {
        let errors = self.not_yet();
        if errors.is_empty() {
            return Ok(self);
        }
        Err(Refused {
            errors,
            warnings: self.warnings,
        })
    }
}
