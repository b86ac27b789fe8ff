//! The table of directives: name, dialects, values, default, help, how it is read and how it is printed.
//!
//! It is the only place where a directive is described. The parser, `sol check`, the suggestions for misspelt names and
//! the test of `conf/sol.conf` all read it.

use super::draft::Draft;
use super::reader::{Fault, Reader};
use super::{
    Config, Dialect, Listener, demand, later, limits, listening, logging, logins, others, persistence, security, sol,
    threads, tls_rows, tokens,
};

/// Reads the values of one line into the draft.
pub(crate) type Apply = fn(&mut Draft, &mut Reader<'_>) -> Result<(), Fault>;

/// What a directive speaks of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The whole broker.
    Broker,
    /// Every listener; with `per_listener_settings true` the listener above it.
    Security,
    /// The listener above it; above all of them the one of `port` and `bind_address`.
    Listener,
    /// The listener above it, of which there must be one.
    ListenerAbove,
}

/// How the values in force are printed.
#[derive(Clone, Copy)]
pub(crate) enum Show {
    /// Not at all: another directive says it, or it has no effect.
    Nothing,
    /// Once, a line each.
    Broker(fn(&Config) -> Vec<String>),
    /// Below each listener, a line each.
    Listener(fn(&Listener) -> Vec<String>),
}

/// One row of the table.
pub struct Directive {
    /// The name, in lower case.
    pub name: &'static str,
    /// The dialect that has it; `None` for both.
    pub only_in: Option<Dialect>,
    /// What it speaks of.
    pub scope: Scope,
    /// What follows the name.
    pub values: &'static str,
    /// What holds without it, in words.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// Why it changes nothing, if it does not.
    pub no_effect: Option<&'static str>,
    /// It holds from the start to the end of the process, so that a reload does not change it.
    pub needs_restart: bool,
    pub(crate) repeats: bool,
    pub(crate) apply: Apply,
    pub(crate) show: Show,
}

impl Directive {
    /// A row of both dialects that speaks of the whole broker, and is not printed.
    pub(crate) const fn new(
        name: &'static str,
        values: &'static str,
        default: &'static str,
        help: &'static str,
        apply: Apply,
    ) -> Self {
        Self {
            name,
            only_in: None,
            scope: Scope::Broker,
            values,
            default,
            help,
            no_effect: None,
            needs_restart: false,
            repeats: false,
            apply,
            show: Show::Nothing,
        }
    }

    pub(crate) const fn only_in(mut self, dialect: Dialect) -> Self {
        self.only_in = Some(dialect);
        self
    }

    /// Mosquitto's dialect has it, the old broker's has not.
    pub(crate) const fn own(self) -> Self {
        self.only_in(Dialect::Listener)
    }

    pub(crate) const fn of(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Only a restart puts it in force.
    pub(crate) const fn restart(mut self) -> Self {
        self.needs_restart = true;
        self
    }

    /// May stand in a file several times.
    pub(crate) const fn repeated(mut self) -> Self {
        self.repeats = true;
        self
    }

    /// It is read, and told to change nothing.
    pub(crate) const fn without_effect(mut self, why: &'static str) -> Self {
        self.no_effect = Some(why);
        self
    }

    pub(crate) const fn shown(mut self, show: fn(&Config) -> Vec<String>) -> Self {
        self.show = Show::Broker(show);
        self
    }

    pub(crate) const fn shown_each(mut self, show: fn(&Listener) -> Vec<String>) -> Self {
        self.show = Show::Listener(show);
        self
    }

    /// Whether `dialect` has it.
    pub fn is_in(&self, dialect: Dialect) -> bool {
        self.only_in.is_none_or(|only| only == dialect)
    }

    /// The values in force, of all listeners one after the other.
    pub(crate) fn values_of(&self, config: &Config) -> Vec<String> {
        match self.show {
            Show::Nothing => Vec::new(),
            Show::Broker(show) => show(config),
            Show::Listener(show) => config.listeners.iter().flat_map(show).collect(),
        }
    }
}

/// Every directive that is read today: the old broker's keys in the order in which it compared them, then ours.
pub fn directives() -> impl Iterator<Item = &'static Directive> {
    [
        sol::ROWS,
        listening::ROWS,
        security::ROWS,
        tokens::ROWS,
        tls_rows::ROWS,
        limits::ROWS,
        demand::ROWS,
        logins::ROWS,
        logging::ROWS,
        others::ROWS,
        persistence::ROWS,
        threads::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// The directive called exactly `name`; the old broker's dialect does not tell cases apart.
pub(crate) fn named(dialect: Dialect, name: &str) -> Option<&'static Directive> {
    directives().filter(|row| row.is_in(dialect)).find(|row| match dialect {
        Dialect::Sol => row.name.eq_ignore_ascii_case(name),
        Dialect::Listener => row.name == name,
    })
}

/// The key of which `prefix` is the beginning: the old broker compared only as many characters as were written, and
/// the first key in its order won.
pub(crate) fn by_prefix(prefix: &str) -> Option<&'static Directive> {
    sol::ROWS.iter().find(|row| {
        row.name
            .get(..prefix.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    })
}

/// The known name nearest to `name`, if it is near enough to be meant.
pub(crate) fn nearest(dialect: Dialect, name: &str) -> Option<&'static str> {
    let known = directives().filter(|row| row.is_in(dialect)).map(|row| row.name);
    let names: Vec<_> = match dialect {
        Dialect::Sol => known.collect(),
        Dialect::Listener => known.chain(later::names()).collect(),
    };
    nearest_of(&names, name)
}

/// The entry of `names` nearest to `name`, if it is near enough to be meant.
pub(crate) fn nearest_of(names: &[&'static str], name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let scored = names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, &lower), *known));
    let (distance, known) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.chars().count() / 4).then_some(known)
}

/// `; did you mean X?`, or nothing.
pub(crate) fn suggestion(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prefixes resolve in the old broker's order of comparison.
    #[test]
    fn prefixes() {
        for (prefix, name) in [
            ("log", "log_level"),
            ("LOG_P", "log_path"),
            ("ip", "ip_address"),
            ("max", "max_memory"),
            ("k", "keepalive"),
            ("key", "keyfile"),
            ("t", "tcp_backlog"),
        ] {
            assert_eq!(by_prefix(prefix).map(|row| row.name), Some(name), "{prefix}");
        }
        assert!(by_prefix("log_levels").is_none());
        assert!(by_prefix("metr").is_none());
    }

    /// Transposed and forgotten letters find their name; what is far from all finds none.
    #[test]
    fn suggestions() {
        assert_eq!(nearest(Dialect::Listener, "lisetner"), Some("listener"));
        assert_eq!(nearest(Dialect::Listener, "pasword_file"), Some("password_file"));
        assert_eq!(nearest(Dialect::Sol, "ip_prot"), Some("ip_port"));
        assert_eq!(nearest(Dialect::Listener, "frobnicate"), None);
    }

    /// No name stands twice in one dialect, and a name that is read is not also refused.
    #[test]
    fn names_are_unique() {
        for dialect in [Dialect::Sol, Dialect::Listener] {
            let mut names: Vec<_> = directives()
                .filter(|row| row.is_in(dialect))
                .map(|row| row.name)
                .collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
        }
        for name in later::names() {
            assert!(named(Dialect::Listener, name).is_none(), "{name}");
        }
    }
}
