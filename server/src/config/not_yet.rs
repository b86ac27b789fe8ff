//! What is understood but has no effect in this build.
//!
//! It is refused, because starting without it would promise what does not happen. Whatever gets its effect leaves this
//! list.

use super::listener::Listener;
use super::place::Place;
use super::{Config, Diagnostic, Refused};

/// Whether something is asked for.
enum Asked {
    OfBroker(fn(&Config) -> bool),
    OfListener(fn(&Listener) -> bool),
}

use Asked::{OfBroker, OfListener};

/// The directive that asks for it, and what is missing.
const LIST: &[(&str, Asked, &str)] = &[
    (
        "http_dir",
        OfListener(|l| l.websockets.http_dir.is_some()),
        "serving files to browsers",
    ),
];

impl Config {
    /// What is asked for and has no effect in this build, a sentence each.
    pub fn not_yet(&self) -> Vec<Diagnostic> {
        let mut missing = Vec::new();
        for (name, asked, what) in LIST {
            let mut say = |listener: Option<&Listener>| {
                let own = listener.and_then(|listener| listener.places.of(name));
                let place = own.or_else(|| self.places.of(name)).cloned();
                let place = place.or_else(|| listener.map(|listener| listener.place.clone()));
                let place = place.unwrap_or_else(Place::nowhere);
                let said = place.say(format!("`{name}`: {what} is not in this build yet"));
                if !missing.contains(&said) {
                    missing.push(said);
                }
            };
            match asked {
                OfBroker(asked) if asked(self) => say(self.listeners.iter().find(|l| l.places.of(name).is_some())),
                OfBroker(_) => {}
                OfListener(asked) => {
                    let asking = self.listeners.iter().filter(|listener| asked(listener));
                    asking.for_each(|listener| say(Some(listener)));
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
