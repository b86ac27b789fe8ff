//! The directives that say how many logins may fail, and who may not try for a while then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::directives::Directive;
use super::draft::Draft;
use super::reader::{Fault, Reader, fault};
use super::show::one;
use super::{Config, Network};

/// How many networks may be named.
const LIST_MAX: usize = 64;
const SPAN_MAX: Duration = Duration::from_secs(30 * 86_400);

/// How many logins may fail, and who may not try for a while then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Logins {
    /// Failed logins of one address, or of one user, within [`Logins::failures_window`]; with the last of them it is banned.
    /// `None` bans nobody.
    pub failures_max: Option<u32>,
    /// How long a failed login counts.
    pub failures_window: Duration,
    /// How long a ban holds.
    pub ban: Duration,
    /// Addresses whose failed logins are not counted, and that are not banned.
    pub ban_exempt: Vec<Network>,
}

impl Default for Logins {
    fn default() -> Self {
        let host = |address: IpAddr, bits| Network { address, bits };
        Self {
            failures_max: Some(20),
            failures_window: Duration::from_secs(600),
            ban: Duration::from_secs(600),
            // A proxy on this machine is one address for all its clients.
            ban_exempt: vec![
                host(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                host(Ipv6Addr::LOCALHOST.into(), 128),
            ],
        }
    }
}

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "login_failures_max",
        "COUNT",
        "20",
        "How many logins of one address, or of one user, may fail within login_failures_window; 0 is no limit.",
        |draft, reader| {
            draft.config.logins.failures_max = reader.limit(1_000_000)?;
            Ok(())
        },
    )
    .shown(|config| one(config.logins.failures_max.unwrap_or(0))),
    Directive::new(
        "login_failures_window",
        "SECONDS",
        "10m",
        "How long a failed login counts.",
        |draft, reader| {
            draft.config.logins.failures_window = span(reader)?;
            Ok(())
        },
    )
    .shown(|config| one(seconds(config.logins.failures_window))),
    Directive::new(
        "login_ban",
        "SECONDS",
        "10m",
        "How long an address or a user with too many failed logins is refused without a look at the password.",
        |draft, reader| {
            draft.config.logins.ban = span(reader)?;
            Ok(())
        },
    )
    .shown(|config| one(seconds(config.logins.ban))),
    Directive::new(
        "login_ban_exempt",
        "none|ADDRESS[/BITS]…",
        "127.0.0.0/8 ::1, this machine",
        "Addresses whose failed logins are not counted, and that are never banned.",
        exempt,
    )
    .shown(exempted),
];

fn span(reader: &mut Reader<'_>) -> Result<Duration, Fault> {
    let column = reader.column();
    let span = reader.seconds()?;
    if span.is_zero() || span > SPAN_MAX {
        let text = "a time from one second to 30 days".to_owned();
        return Err(Fault { column, text });
    }
    Ok(span)
}

fn seconds(span: Duration) -> String {
    format!("{}s", span.as_secs())
}

fn exempt(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let exempt = &mut draft.config.logins.ban_exempt;
    exempt.clear();
    if reader.peek() != Some("none") {
        return reader.networks(exempt, LIST_MAX);
    }
    reader.word()?;
    match reader.optional() {
        Some(more) => Err(fault(more, "`none` stands alone")),
        None => Ok(()),
    }
}

fn exempted(config: &Config) -> Vec<String> {
    let exempt = &config.logins.ban_exempt;
    if exempt.is_empty() {
        return one("none");
    }
    let networks: Vec<_> = exempt.iter().map(ToString::to_string).collect();
    one(networks.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Host};
    use super::*;

    fn read(text: &str) -> Result<Logins, String> {
        let config = Config::parse("f".as_ref(), text.as_bytes(), &Host::default());
        config
            .map(|config| config.logins)
            .map_err(|refused| refused.to_string())
    }

    /// In both dialects each has its value, and what would never ban or never end is refused by its place.
    #[test]
    fn values() {
        let lines = "login_failures_max 5\nlogin_failures_window 30s\nlogin_ban 1h\nlogin_ban_exempt 10.0.0.0/8 ::1\n";
        let wanted = Logins {
            failures_max: Some(5),
            failures_window: Duration::from_secs(30),
            ban: Duration::from_secs(3_600),
            ban_exempt: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        };
        assert_eq!(read(&format!("listener 1\n{lines}")), Ok(wanted));
        assert_eq!(read("port 1").unwrap(), Logins::default());
        let some = read("port 1\nlogin_failures_max 0\nlogin_ban_exempt none").unwrap();
        assert_eq!((some.failures_max, some.ban_exempt), (None, vec![]));
        for (line, fault) in [
            ("login_ban 0", "f:2:11: a time from one second to 30 days"),
            ("login_ban 31d", "f:2:11: a time from one second to 30 days"),
            ("login_failures_window 0s", "f:2:23: a time from one second to 30 days"),
            (
                "login_failures_max -1",
                "f:2:20: `-1` is not a whole number from 0 to 1000000",
            ),
            (
                "login_ban_exempt here",
                "f:2:18: `here` is not an address, nor ADDRESS/BITS",
            ),
            ("login_ban_exempt none ::1", "f:2:23: `none` stands alone"),
        ] {
            assert_eq!(read(&format!("port 1\n{line}")), Err(fault.to_owned()), "{line}");
        }
        let sol = read("ip_port 1\nlogin_ban_exempt ::1\nlogin_ban 2m\nlogin_failures_max 7\n").unwrap();
        assert_eq!(
            (sol.failures_max, sol.ban.as_secs(), sol.ban_exempt.len()),
            (Some(7), 120, 1)
        );
    }
}
