//! What SIGHUP changes: everything that can change while clients are served, and a word about the rest.
//!
//! What is wrong leaves the old in force: a configuration that does not parse as a whole; a password file that cannot be
//! read, or lost all its users, and an ACL file that cannot be read, either of them together with the other and the rules of
//! who may connect, which were written for each other; a certificate, a key or a list of revoked certificates that cannot be
//! used; a directory for browsers that cannot be read.

use std::sync::Arc;

use crate::auth::{Chains, UserFiles, Verifier};
use crate::banner::open_warning;
use crate::config::{Auth, Config, Diagnostic, Host, Listener, ListenerDemand, Log, Overrides, directives};
use crate::http_files;
use crate::log::Logger;
use crate::password_file::Users;
use crate::rights::{self, Rights};
use crate::sandbox::Paths;
use crate::serve::Broker;
use crate::tls;

/// Who hears of the new configuration.
pub(crate) struct Parts<'a> {
    pub(crate) overrides: Overrides,
    /// The machine as it was at the start: what tells of it cannot be read from inside of the sandbox.
    pub(crate) host: Host,
    /// Where alone files may be read, if a sandbox sees to that.
    pub(crate) paths: Option<Paths>,
    pub(crate) logger: &'a Logger,
    pub(crate) verifier: &'a Verifier,
    pub(crate) broker: &'a dyn Broker,
}

/// Reopens the log and reads the file of `current` again, with its password file and ACL files; `current` and `rights` are
/// what is in force.
pub(crate) fn reload(current: &mut Config, rights: &mut Rights, parts: &Parts<'_>) {
    parts.logger.reopen();
    tracing::info!("reloading");
    let mut next = match read(current, parts) {
        Ok(next) => {
            tell_closed(&next, parts.paths.as_ref());
            next
        }
        Err(errors) => {
            report(&errors);
            current.clone()
        }
    };
    for name in keep_fixed(current, &mut next) {
        tracing::warn!("needs a restart: {name}");
    }
    change_auth(current, &mut next, rights, parts);
    tell_gone(current, &next);
    parts.verifier.limit(next.logins.clone());
    reload_tls(&next, parts.broker);
    reload_files(&next, parts.broker);
    parts.logger.set_levels(next.log.levels);
    parts.broker.reload(&next, rights);
    let facts = parts.broker.facts();
    if open_warning(current, &facts).is_none()
        && let Some(warning) = open_warning(&next, &facts)
    {
        tracing::warn!("{warning}");
    }
    *current = next;
    tracing::info!("reloaded");
}

/// Puts users and rules in force, both or neither: users under rules that were written for others may do what nobody meant
/// them to.
fn change_auth(current: &Config, next: &mut Config, rights: &mut Rights, parts: &Parts<'_>) {
    let users = users(next).and_then(|read| keep_some(next, parts.verifier, read));
    match (users, rights::rights(next)) {
        (Ok((users, of_users)), Ok((mut read, of_rights))) => {
            tell(&of_users);
            tell(&of_rights);
            // Before the rules: nobody is asked about before there is somebody to ask.
            let mut changes = parts.verifier.replace(users.unwrap_or_default());
            if !changes.users.is_empty() {
                parts.broker.change_users(changes.users);
            }
            // Whoever came in at a listener that is gone stays, as users of its password file do.
            let is_there = |at: &usize| next.listeners.get(*at).is_some_and(|listener| !listener.is_gone);
            changes.grants_lost_at.retain(is_there);
            if !changes.grants_lost_at.is_empty() {
                parts.broker.end_grants(&changes.grants_lost_at);
            }
            // Whoever is still there, at a listener that is gone, is bound by what was said last.
            let rules = read.iter_mut().zip(rights.iter_mut());
            for ((new, old), _) in rules.zip(&next.listeners).filter(|(_, listener)| listener.is_gone) {
                *new = old.take();
            }
            *rights = read;
        }
        (users, rules) => {
            report(&users.err().unwrap_or_default());
            report(&rules.err().unwrap_or_default());
            keep_auth(current, next);
        }
    }
}

/// Reads certificates, keys, authorities and lists of revoked certificates again, for those who come from now on. A listener
/// with a file that is wrong goes on with what it had.
fn reload_tls(config: &Config, broker: &dyn Broker) {
    let listeners = config.listeners.iter().enumerate();
    for (index, listener) in listeners.filter(|(_, listener)| !listener.is_gone) {
        match tls::load(listener) {
            Ok((tls, warnings)) => {
                tell(&warnings);
                if let Some(tls) = tls {
                    broker.change_tls(index, tls);
                }
            }
            Err(error) => report(&[error]),
        }
    }
}

/// Reads the files for browsers again; all of them, or none where one directory is wrong.
fn reload_files(config: &Config, broker: &dyn Broker) {
    // Whatever is wrong with others, one that is gone serves nothing any more.
    let gone = config
        .listeners
        .iter()
        .enumerate()
        .filter(|(_, listener)| listener.is_gone);
    gone.for_each(|(index, _)| broker.change_files(index, &Arc::default()));
    match http_files::load_all(config) {
        Ok((served, warnings)) => {
            tell(&warnings);
            let served = served.iter().enumerate();
            served.for_each(|(index, files)| {
                if let Some(files) = files {
                    broker.change_files(index, files);
                }
            });
        }
        Err(errors) => {
            report(&errors);
            // The sandbox is closed around directories, not around their names.
            tracing::warn!("`http_dir`: a directory that has taken the place of another needs a restart");
        }
    }
}

/// Whom each listener lets in, and by which rules, stays as it is.
fn keep_auth(current: &Config, next: &mut Config) {
    let listeners = next.listeners.iter_mut().zip(&current.listeners);
    for (next, current) in listeners {
        next.auth.clone_from(&current.auth);
        next.is_gone = current.is_gone;
    }
    next.dialect = current.dialect;
}

/// Users of the password files, if any is to be read at all, and warnings about them.
///
/// # Errors
/// As [`Users::load`].
pub(crate) fn users(config: &Config) -> Result<(Option<UserFiles>, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (mut paths, mut files) = (Vec::new(), Vec::new());
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    let of_listener: Vec<_> = (0..config.listeners.len())
        .map(|listener| {
            let path = config.password_file(listener)?;
            let known = paths.iter().position(|known| *known == path);
            Some(known.unwrap_or_else(|| {
                paths.push(path);
                match Users::load(path) {
                    Ok((users, told)) => {
                        files.push(users);
                        warnings.extend(told);
                    }
                    Err(faults) => errors.extend(faults),
                }
                paths.len() - 1
            }))
        })
        .collect();
    let chains = match Chains::load(config) {
        Ok((chains, told)) => {
            warnings.extend(told);
            chains
        }
        Err(faults) => {
            errors.extend(faults);
            return Err(errors);
        }
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    let asks = config
        .listeners
        .iter()
        .any(|listener| listener.auth.checks_passwords(config.dialect));
    let users = asks.then(|| UserFiles::new(files, &of_listener).with_chains(chains));
    Ok((users, warnings))
}

/// Refuses a password file without users where there are some: it would end every login, and is most likely one that is
/// just being written, or was cut short.
fn keep_some<T>(
    config: &Config,
    verifier: &Verifier,
    (users, warnings): (Option<UserFiles>, T),
) -> Result<(Option<UserFiles>, T), Vec<Diagnostic>> {
    let empty = users.iter().flat_map(UserFiles::without_users);
    let lost = empty.filter(|&listener| verifier.has_users_at(listener));
    let mut paths: Vec<_> = lost.filter_map(|listener| config.password_file(listener)).collect();
    paths.dedup();
    if paths.is_empty() {
        return Ok((users, warnings));
    }
    let text = "no user is left in it; only a restart takes a password file without users";
    Err(paths.into_iter().map(|path| Diagnostic::of_file(path, text)).collect())
}

fn read(current: &Config, parts: &Parts<'_>) -> Result<Config, Vec<Diagnostic>> {
    let mut next = Config::load(current.source.as_deref(), &parts.host).map_err(|refused| refused.errors)?;
    next.apply(&parts.overrides).map_err(|refused| refused.errors)?;
    tell(&next.warnings);
    Ok(next)
}

/// Gives `next` what cannot change from `current`, and names the directives that were to.
fn keep_fixed(current: &Config, next: &mut Config) -> Vec<&'static str> {
    let differ = directives()
        .filter(|row| row.is_in(next.dialect) && row.needs_restart)
        .filter(|row| row.values_of(current) != row.values_of(next))
        .map(|row| row.name)
        .collect();
    let listeners = current.listeners.iter().enumerate();
    next.listeners = listeners
        .map(|(index, listener)| kept(listener, index, current, next))
        .collect();
    (next.tcp_backlog, next.tcp_nodelay) = (current.tcp_backlog, current.tcp_nodelay);
    next.limits.connect_bytes_max = current.limits.connect_bytes_max;
    next.limits.connect_timeout = current.limits.connect_timeout;
    next.limits.demand.per_address_max = current.limits.demand.per_address_max;
    next.log = Log {
        levels: next.log.levels,
        connections: next.log.connections,
        ..current.log.clone()
    };
    next.metrics = current.metrics;
    next.pid_file.clone_from(&current.pid_file);
    next.user.clone_from(&current.user);
    next.sandbox = current.sandbox;
    (next.shards, next.cores) = (current.shards, current.cores);
    (next.pin_shards, next.io) = (current.pin_shards, current.io);
    differ
}

/// Names directories that the sandbox has closed, before the files there are said to be unreadable.
fn tell_closed(next: &Config, paths: Option<&Paths>) {
    let Some(paths) = paths else { return };
    let wanted = Paths::of(next);
    for port in wanted.ports.difference(&paths.ports) {
        tracing::warn!(
            "needs a restart: the sandbox connects to the ports of the start alone, and {port} is none of them"
        );
    }
    for closed in paths.lacking(&wanted) {
        let path = closed.display();
        tracing::warn!(
            "needs a restart: the sandbox is closed around the directories of the start, and {path} is none of them"
        );
    }
}

/// Says of listeners that were taken out of the file what becomes of them.
fn tell_gone(current: &Config, next: &Config) {
    let listeners = next.listeners.iter().zip(&current.listeners);
    for (gone, _) in listeners.filter(|(next, current)| next.is_gone && !current.is_gone) {
        tracing::warn!(
            "needs a restart: {gone} is not in the file any more; it stays bound until then and lets nobody in"
        );
    }
}

/// A listener as it goes on: where and how it listens stays, whom it lets in and what it grants is what is said now. One
/// that is to be elsewhere is the one in the same place of the file, if none is new or gone. One that is gone lets nobody
/// in.
fn kept(listener: &Listener, index: usize, current: &Config, next: &Config) -> Listener {
    let same = |next: &&Listener| next.address == listener.address;
    let moved = next.listeners.get(index);
    let moved = moved.filter(|moved| {
        let is_known = |known: &Listener| known.address == moved.address;
        next.listeners.len() == current.listeners.len() && !current.listeners.iter().any(is_known)
    });
    let Some(next) = next.listeners.iter().find(same).or(moved) else {
        return Listener {
            auth: Auth::default(),
            is_gone: true,
            ..listener.clone()
        };
    };
    Listener {
        places: next.places.clone(),
        auth: next.auth.clone(),
        // Where the file could not be read, what is in force is what comes next.
        is_gone: next.is_gone,
        connections_max: next.connections_max,
        demand: ListenerDemand {
            per_address_max: listener.demand.per_address_max,
            ..next.demand
        },
        qos_max: next.qos_max,
        topic_alias_max: next.topic_alias_max,
        topic_alias_broker_max: next.topic_alias_broker_max,
        versions: next.versions,
        ..listener.clone()
    }
}

fn tell(warnings: &[Diagnostic]) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn report(errors: &[Diagnostic]) {
    errors
        .iter()
        .for_each(|error| tracing::error!("not reloaded, the old stays in force: {error}"));
}

#[cfg(test)]
mod tests {
    use crate::log::Publish;
    use std::sync::{Arc, Mutex};

    use sol_engine::{ChangedUser, Rules};

    use super::*;
    use crate::banner::Facts;
    use crate::engine_config::engine_config;
    use crate::stats::Stats;

    fn parse(text: &str) -> Config {
        Config::parse("/etc/sol.conf".as_ref(), text.as_bytes(), &Host::default()).unwrap()
    }

    /// A password file that has lost all its users changes nothing; one that has none from the start on is taken, and so is
    /// one with users.
    #[test]
    fn users_do_not_vanish() {
        let config = parse("allow_anonymous false\npassword_file /p\n");
        let some = || {
            let hash = crate::passwd::Scheme::Sha512.hash("u", b"x").unwrap();
            Users::parse("p".as_ref(), format!("u:{hash}\n").as_bytes()).unwrap()
        };
        let refused = |present, next| {
            let verifier = Verifier::new(present, 1, 1).unwrap();
            let next: Option<Users> = next;
            let errors = keep_some(&config, &verifier, (next.map(UserFiles::from), ())).err()?;
            Some(errors[0].to_string())
        };
        assert_eq!(
            refused(some(), Some(Users::none())).as_deref(),
            Some("/p: no user is left in it; only a restart takes a password file without users")
        );
        assert_eq!(refused(some(), Some(some())), None);
        assert_eq!(refused(some(), None), None);
        assert_eq!(refused(Users::none(), Some(Users::none())), None);
    }

    /// Each listener's file is read, once however many name it, and each fault of each of them is told; a listener that checks
    /// nobody has none.
    #[test]
    fn users_of_each_listener() {
        let dir = tempfile::tempdir().unwrap();
        let hash = crate::passwd::Scheme::Sha512.hash("u", b"x").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let write = |name: &str, text: String| std::fs::write(path(name), text).unwrap();
        write("a", format!("ann:{hash}\nbob:{hash}\n"));
        write("b", format!("cid:{hash}\n"));
        let config = parse(&format!(
            "per_listener_settings true\nlistener 1\npassword_file {a}\nlistener 2\npassword_file {b}\nlistener 3\n\
             password_file {a}\nlistener 4\nallow_anonymous true\n",
            a = path("a"),
            b = path("b")
        ));
        let users = users(&config).unwrap().0.unwrap();
        assert_eq!([0, 1, 2, 3].map(|at| users.count_at(at)), [2, 1, 2, 0]);
        write("a", "x\n".to_owned());
        write("b", "y\nz\n".to_owned());
        assert_eq!(super::users(&config).unwrap_err().len(), 3);
        assert!(
            super::users(&parse("listener 1\nallow_anonymous true\n"))
                .unwrap()
                .0
                .is_none()
        );
    }

    /// What the broker was told of.
    #[derive(Default)]
    struct Told {
        rights: Mutex<Vec<Option<Arc<Rules>>>>,
        changed: Mutex<Vec<String>>,
        grants_lost_at: Mutex<Vec<usize>>,
    }

    impl Broker for Told {
        fn facts(&self) -> Facts {
            Facts {
                listening: Vec::new(),
                backend: "none",
                shards: 1,
                users: Vec::new(),
                salvage: crate::banner::Salvage::Refused,
            }
        }

        fn stats(&self) -> Option<Stats> {
            None
        }

        fn publish(&self, _: Vec<(String, String)>) {}
        fn log_publisher(&self) -> Publish {
            Box::new(|_, _| ())
        }

        fn reload(&self, _: &Config, rights: &[Option<Arc<Rules>>]) {
            *self.rights.lock().unwrap() = rights.to_vec();
        }

        fn change_tls(&self, _: usize, _: sol_transport::Tls) {}

        fn change_files(&self, _: usize, _: &Arc<sol_transport::Files>) {}

        fn change_users(&self, changed: Vec<ChangedUser>) {
            let names = changed.iter().map(|user| user.username.to_string());
            self.changed.lock().unwrap().extend(names);
        }

        fn end_grants(&self, listeners: &[usize]) {
            self.grants_lost_at.lock().unwrap().extend(listeners);
        }

        fn stop(&self) {}
    }

    /// A broker that has started with a file, and reads it again.
    struct Running {
        dir: tempfile::TempDir,
        config: Config,
        rights: Rights,
        verifier: Verifier,
        logger: Logger,
        told: Told,
    }

    impl Running {
        fn start(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            write(&dir, files);
            let config = Config::load(Some(&dir.path().join("conf")), &Host::default()).unwrap();
            let users = users(&config).unwrap().0.unwrap_or_default();
            Self {
                rights: rights::rights(&config).unwrap().0,
                verifier: Verifier::new(users, 1, 1).unwrap(),
                logger: Logger::start(&config.log).unwrap().0,
                told: Told::default(),
                dir,
                config,
            }
        }

        /// Writes these files and reads everything again. Whose login is another then, by the name.
        fn reload(&mut self, files: &[(&str, &str)]) -> Vec<String> {
            write(&self.dir, files);
            let parts = Parts {
                overrides: Overrides::default(),
                host: Host::default(),
                paths: None,
                logger: &self.logger,
                verifier: &self.verifier,
                broker: &self.told,
            };
            reload(&mut self.config, &mut self.rights, &parts);
            assert_eq!(*self.told.rights.lock().unwrap(), self.rights);
            std::mem::take(&mut self.told.changed.lock().unwrap())
        }
    }

    /// `@` in a file is its directory.
    fn write(dir: &tempfile::TempDir, files: &[(&str, &str)]) {
        for (name, text) in files {
            let text = text.replace('@', &dir.path().display().to_string());
            std::fs::write(dir.path().join(name), text).unwrap();
        }
    }

    fn entry(user: &str, password: &str) -> String {
        let hash = crate::passwd::Scheme::Sha512.hash(user, password.as_bytes()).unwrap();
        format!("{user}:{hash}\n")
    }

    /// A faulty ACL file keeps the users of before in force, and a faulty password file the rules of before: who is new is
    /// never let in under rules that were not written for him. When both can be read, both change.
    #[test]
    fn users_and_rules_change_together() {
        let (ann, bob) = (entry("ann", "a"), entry("bob", "b"));
        let conf = "listener 1 127.0.0.1\npassword_file @/users\nacl_file @/acl\n";
        let mut running = Running::start(&[("conf", conf), ("users", &ann), ("acl", "topic read a\n")]);
        let rules = running.rights.clone();
        assert_eq!(running.reload(&[("users", &bob), ("acl", "topic reed a\n")]), [""; 0]);
        assert_eq!(running.rights, rules);
        assert_eq!(
            running.reload(&[("users", "bob\n"), ("acl", "topic read b\n")]),
            [""; 0]
        );
        assert_eq!(running.rights, rules);
        assert_eq!(running.reload(&[("users", &bob)]), ["ann", "bob"]);
        assert_ne!(running.rights, rules);
    }

    /// A listener that is taken out of the file lets nobody in any more, whoever it let in before, while those who are there
    /// stay bound by its rules; put back, it lets in whom the file says. Another that takes its line does not become it.
    #[test]
    fn a_listener_that_is_gone_lets_nobody_in() {
        let one = "per_listener_settings true\nlistener 1 127.0.0.1\nallow_anonymous true\nacl_file @/acl\n";
        let two = "listener 2 127.0.0.1\nallow_anonymous true\n";
        let three = "listener 3 127.0.0.1\nallow_anonymous true\n";
        let mut running = Running::start(&[("conf", &format!("{one}{two}")), ("acl", "topic read a\n")]);
        let rules = running.rights.clone();
        let is_open = |running: &Running| {
            let listeners = running.config.listeners.iter();
            listeners
                .map(|listener| listener.auth.allow_anonymous && !listener.is_gone)
                .collect::<Vec<_>>()
        };
        for without in [two.to_owned(), format!("{two}{three}"), "frobnicate\n".to_owned()] {
            running.reload(&[("conf", &format!("per_listener_settings true\n{without}"))]);
            assert_eq!(is_open(&running), [false, true], "{without}");
            let engine = engine_config(&running.config, &running.rights, 0..2);
            assert!(!engine.listeners[0].allow_anonymous && !engine.listeners[0].ask && !engine.listeners[0].named);
            assert_eq!(running.rights, rules, "its clients are bound still");
        }
        running.reload(&[("conf", &format!("{one}{two}"))]);
        assert_eq!(is_open(&running), [true; 2]);
        running.reload(&[("conf", &format!("{one}listener 4 127.0.0.1\n"))]);
        assert_eq!(is_open(&running), [true, false], "moved, and closed by its own lines");
    }

    /// What cannot change is named and stays; what can is let through, and nothing is named twice.
    #[test]
    fn what_stays() {
        let current = parse("ip_port 1884\nlog_path /a\nmax_memory 1GB\nconnect_timeout 5\n");
        let mut next = parse(
            "ip_port 1885\nlog_path /b\nlog_format json\nmetrics off\nmax_connect_size 1KB\nmax_memory 512MB\n\
             allow_anonymous false\nlog_level ERROR\n",
        );
        assert_eq!(
            keep_fixed(&current, &mut next),
            ["log_path", "ip_port", "max_connect_size", "log_format", "metrics"]
        );
        assert_eq!(next.listeners[0].address, current.listeners[0].address);
        assert_eq!(next.metrics, current.metrics);
        assert_eq!(next.limits.memory_bytes_max, Some(512 << 20));
        assert!(!next.listeners[0].auth.allow_anonymous && next.log.levels != current.log.levels);
        assert_eq!(
            keep_fixed(&current, &mut next),
            [""; 0],
            "what is in force differs no more"
        );
    }
}
