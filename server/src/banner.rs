//! What the broker says when it starts: where it listens, who may connect, what it keeps, and how to open it.

use crate::config::{Address, Authenticator, Config, Listener, units};

/// What only the running broker knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Where each listener listens in fact.
    pub listening: Vec<Listening>,
    /// The backend that waits for sockets.
    pub backend: &'static str,
    /// Threads that serve clients.
    pub shards: usize,
    /// Users in the password file of each listener of the configuration.
    pub users: Vec<usize>,
    /// What was, or would be, made of a damaged journal.
    pub salvage: Salvage,
}

/// Whether a journal that is damaged is used as far as it can be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Salvage {
    /// The broker would not start.
    #[default]
    Refused,
    /// It would start; the journal was sound.
    Allowed,
    /// It has started so.
    Done,
}

/// Where the broker listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listening {
    /// The address: a port that the system chose is named here.
    pub address: Address,
    /// Which listener of the configuration it is of: a host name may have bound several.
    pub listener: usize,
}

/// The banner, line by line.
pub fn banner(config: &Config, facts: &Facts) -> Vec<String> {
    let mut lines = vec![format!(
        "sol {} starts: {} shard{}, {} backend",
        env!("CARGO_PKG_VERSION"),
        facts.shards,
        if facts.shards == 1 { "" } else { "s" },
        facts.backend
    )];
    lines.push(match &config.source {
        Some(path) => format!("configuration: {} (dialect {})", path.display(), config.dialect),
        None => "configuration: none, defaults".to_owned(),
    });
    for Listening { address, listener } in &facts.listening {
        let users = facts.users.get(*listener).copied().unwrap_or_default();
        let listener = &config.listeners[*listener];
        let transport = listener.transport();
        let encryption = if listener.tls.is_some() { "" } else { ", no encryption" };
        let who = authentication(config, listener, users);
        lines.push(format!("listening on {address} ({transport}{encryption}): {who}"));
    }
    lines.push(format!("data directory: {}", config.data_directory()));
    lines.extend(salvage(facts.salvage).map(str::to_owned));
    lines.push(match config.limits.memory_bytes_max {
        Some(bytes) => format!("memory limit: {}", units::show_size(bytes)),
        None => "memory limit: none".to_owned(),
    });
    lines.extend(advice(config, facts));
    lines
}

/// What must not be forgotten of a broker that starts with a damaged journal.
fn salvage(salvage: Salvage) -> Option<&'static str> {
    match salvage {
        Salvage::Refused => None,
        Salvage::Allowed => Some(
            "persistence_damage salvage: the journal was sound; should it be damaged at another start, what cannot be read would be \
             lost without a question. Set it to refuse",
        ),
        Salvage::Done => Some(
            "persistence_damage salvage: the journal was damaged, and what could not be read is lost; all that was there is kept in it \
             as *.damaged. Set it to refuse",
        ),
    }
}

fn authentication(config: &Config, listener: &Listener, users: usize) -> String {
    if listener.certificate_name.is_some() {
        return "whom a certificate names".to_owned();
    }
    let checks = listener.auth.checks_passwords(config.dialect);
    let means = listener.auth.order.iter().map(|authenticator| match authenticator {
        Authenticator::PasswordFile => format!("user name and password ({users} users)"),
        Authenticator::Jwt => "token (JWT)".to_owned(),
        Authenticator::Http => "whom http_auth_url lets in".to_owned(),
    });
    let means = means.collect::<Vec<_>>().join(", or ");
    match (listener.auth.allow_anonymous, checks) {
        (true, false) if listener.requires_certificate() => "anyone with a certificate".to_owned(),
        (true, false) => "anyone".to_owned(),
        (true, true) if listener.auth.asks_nameless() => {
            format!("anyone; whoever shows a user name or a password needs a right one: {means}")
        }
        (true, true) => format!("anyone; a user name needs its password ({users} users)"),
        (false, true) => means,
        (false, false) => "nobody (anonymous clients are refused and there is no password_file)".to_owned(),
    }
}

/// The exact commands that open a local broker to the network.
fn advice(config: &Config, facts: &Facts) -> Vec<String> {
    if !facts
        .listening
        .iter()
        .all(|listening| config.listeners[listening.listener].is_local())
    {
        return Vec::new();
    }
    vec![
        "only this machine can connect; to open it to the network, with TLS and passwords:".to_owned(),
        "  sol init broker && sol -c broker/sol.conf".to_owned(),
    ]
}

/// What must be known of a broker that anybody on the network can use.
pub fn open_warning(config: &Config, facts: &Facts) -> Option<String> {
    let is_open = |listening: &Listening| {
        let listener = &config.listeners[listening.listener];
        let has_proof = listener.certificate_name.is_some() || listener.requires_certificate();
        listener.auth.allow_anonymous && !has_proof && !listener.is_local()
    };
    facts.listening.iter().any(is_open).then(|| {
        "everybody who reaches this machine can connect without a password; set allow_anonymous false and a \
         password_file (`sol passwd FILE USER`)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn show(text: &str) -> Vec<String> {
        let (config, facts) = parse(text);
        let mut lines = banner(&config, &facts);
        lines.extend(open_warning(&config, &facts));
        lines
    }

    fn parse(text: &str) -> (Config, Facts) {
        let config = Config::parse("/etc/sol.conf".as_ref(), text.as_bytes(), &Host::default()).unwrap();
        let listening = config
            .listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| Listening {
                address: listener.address.clone(),
                listener: index,
            })
            .collect();
        let facts = Facts {
            listening,
            backend: "epoll",
            shards: 1,
            users: vec![2, 3],
            salvage: Salvage::Refused,
        };
        (config, facts)
    }

    /// Everything that decides who can reach what is said, and how to open a local broker.
    #[test]
    fn local_and_anonymous() {
        let start = concat!("sol ", env!("CARGO_PKG_VERSION"), " starts: 1 shard, epoll backend");
        assert_eq!(
            show("port 1884\nbind_address ::1\nallow_anonymous true"),
            [
                start,
                "configuration: /etc/sol.conf (dialect listener)",
                "listening on [::1]:1884 (tcp, no encryption): anyone",
                "data directory: none, everything is in memory and ends with the process",
                "memory limit: 716MB",
                "only this machine can connect; to open it to the network, with TLS and passwords:",
                "  sol init broker && sol -c broker/sol.conf",
            ]
        );
    }

    /// What is kept, and what an acknowledgement promises, is said at every start.
    #[test]
    fn the_promise_is_said() {
        let here = std::env::current_dir().unwrap().display().to_string();
        for (lines, said) in [
            ("", "none, everything is in memory and ends with the process"),
            (
                "persistence_location /d\n",
                "/d/sol-journal (persistence os: what is acknowledged survives the process, and a power cut but for the last \
                 second)",
            ),
            (
                "persistence true\npersistence_location /d\n",
                "/d/sol-journal (persistence fsync: what is acknowledged survives a power cut)",
            ),
            (
                "persistence false\npersistence_location /d\n",
                "none, everything is in memory and ends with the process",
            ),
            (
                "retained_persistence true\n",
                &format!("{here}/sol-journal (persistence fsync: what is acknowledged survives a power cut)"),
            ),
        ] {
            let shown = show(&format!("{lines}listener 1883 localhost"));
            assert_eq!(shown[3], format!("data directory: {said}"));
        }
    }

    /// That a damaged journal is used, or would be, is said behind where it is, at every start.
    #[test]
    fn a_salvage_is_said() {
        let (config, mut facts) = parse("persistence_location /d\nlistener 1883 localhost");
        assert!(!banner(&config, &facts).iter().any(|line| line.contains("salvage")));
        for (salvage, said) in [
            (Salvage::Allowed, "the journal was sound"),
            (Salvage::Done, "kept in it as *.damaged"),
        ] {
            facts.salvage = salvage;
            let lines = banner(&config, &facts);
            assert!(lines[3].starts_with("data directory: "), "{}", lines[3]);
            assert!(
                lines[4].starts_with("persistence_damage salvage: ") && lines[4].contains(said),
                "{}",
                lines[4]
            );
        }
    }

    /// An open broker without passwords is warned about; one with passwords is not; the old dialect's rule is said.
    #[test]
    fn open_to_the_network() {
        let open = show("ip_address 0.0.0.0\npassword_file /p");
        assert_eq!(open[2], "listening on 0.0.0.0:1883 (tcp, no encryption): anyone");
        assert!(open[5].starts_with("everybody who reaches"));
        let closed = show("listener 1883\nlistener 0 /s\npassword_file /p");
        assert_eq!(
            closed[2],
            "listening on *:1883 (tcp, no encryption): user name and password (2 users)"
        );
        assert_eq!(
            closed[3],
            "listening on /s (unix, no encryption): user name and password (3 users)"
        );
        assert_eq!(closed.len(), 6);
        assert!(show("listener 1883")[2].contains(": nobody ("));
        assert!(
            show("listener 1\nallow_anonymous true\npassword_file /p")[2].contains("a user name needs its password")
        );
    }

    /// Where certificates let clients in, nobody is told that all or none can come, nor warned of an open listener.
    #[test]
    fn certificates() {
        let tls = "listener 1\ncertfile /c\nkeyfile /k\ncafile /a\n";
        for (more, who, is_open) in [
            (
                "use_identity_as_username true",
                "(tls): whom a certificate names",
                false,
            ),
            (
                "use_identity_as_username true\nallow_anonymous true",
                "(tls): whom a certificate names",
                false,
            ),
            (
                "require_certificate true\nallow_anonymous true",
                "(tls): anyone with a certificate",
                false,
            ),
            ("allow_anonymous true", "(tls): anyone", true),
        ] {
            let lines = show(&format!("{tls}{more}"));
            assert!(lines[2].ends_with(who), "{}", lines[2]);
            assert_eq!(
                lines.iter().any(|line| line.starts_with("everybody who reaches")),
                is_open,
                "{more}"
            );
        }
    }
}
