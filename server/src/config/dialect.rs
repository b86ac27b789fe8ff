//! The one rule that tells the two dialects apart.

use super::lexer::Line;
use std::fmt;

/// How a configuration file is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// The old broker's: lenient, and what it read by accident is warned about.
    Sol,
    /// Mosquitto's, with names of our own: strict.
    Listener,
}

/// Keys that only the old broker has.
const SOL_ONLY: [&str; 9] = [
    "ip_address",
    "ip_port",
    "unix_socket",
    "log_path",
    "log_level",
    "max_request_size",
    "tcp_backlog",
    "stats_publish_interval",
    "tls_protocols",
];

/// Directives that make a file Mosquitto's.
const LISTENER_ONLY: [&str; 2] = ["listener", "port"];

impl Dialect {
    /// A file with a key that only the old broker has, and neither `listener` nor `port`, is the old broker's.
    pub(crate) fn of(lines: &[Line<'_>]) -> Self {
        let any = |names: &[&str]| {
            lines
                .iter()
                .any(|line| names.iter().any(|n| n.eq_ignore_ascii_case(line.key.text)))
        };
        if any(&SOL_ONLY) && !any(&LISTENER_ONLY) {
            Self::Sol
        } else {
            Self::Listener
        }
    }
}

/// Whether only the old broker's dialect has `name`.
pub(crate) fn is_sol_only(name: &str) -> bool {
    SOL_ONLY.iter().any(|only| only.eq_ignore_ascii_case(name))
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sol => "sol",
            Self::Listener => "listener",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::lex;
    use super::*;

    fn dialect(text: &str) -> Dialect {
        Dialect::of(&lex("f".as_ref(), text.as_bytes()).unwrap())
    }

    /// One rule: a sol-only key and no `listener` or `port`.
    #[test]
    fn one_rule() {
        assert_eq!(dialect("IP_Port 1883"), Dialect::Sol);
        assert_eq!(dialect("allow_anonymous true\ntls_protocols tlsv1_2"), Dialect::Sol);
        assert_eq!(dialect("allow_anonymous true"), Dialect::Listener);
        assert_eq!(dialect(""), Dialect::Listener);
        assert_eq!(dialect("ip_port 1883\nlistener 1884"), Dialect::Listener);
        assert_eq!(dialect("log_level DEBUG\nport 1884"), Dialect::Listener);
    }
}
