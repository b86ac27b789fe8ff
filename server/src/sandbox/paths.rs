//! The directories that the broker needs, as the configuration names them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::{Address, Config, DEFAULT_PATH, HttpAuth, Listener, Protocol};

/// Directories, each with everything below it. Files are replaced by renaming others over them, by log rotation and by
/// whoever renews a certificate, so that a right to a file alone would end with the next of its kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Paths {
    /// Where files are read again.
    pub(crate) read: BTreeSet<PathBuf>,
    /// Where files are made and appended to.
    pub(crate) append: BTreeSet<PathBuf>,
    /// Where files are removed.
    pub(crate) remove: BTreeSet<PathBuf>,
    /// The journal's own directory.
    pub(crate) journal: Option<PathBuf>,
    /// TCP ports that are connected to.
    pub(crate) ports: BTreeSet<u16>,
}

/// By which a name becomes an address, for whoever is asked by one.
const RESOLVER_FILES: [&str; 5] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
];

impl Paths {
    /// What a broker with this configuration needs.
    pub(crate) fn of(config: &Config) -> Self {
        let mut paths = Self::default();
        // Where there was none, a reload looks for the usual one.
        let usual = config.source.is_none().then_some(Path::new(DEFAULT_PATH));
        for listener in &config.listeners {
            if let Address::Unix(path) = &listener.address {
                paths.remove.extend(directory_of(path));
            }
        }
        let hooks = || {
            let listeners = config.listeners.iter();
            listeners.filter_map(|listener| listener.auth.http.as_ref())
        };
        paths.ports = hooks().map(HttpAuth::port).collect();
        if !paths.ports.is_empty() {
            let resolver = RESOLVER_FILES.map(Path::new);
            paths.read.extend(resolver.map(Path::to_owned));
            let links = resolver.into_iter().filter(|file| file.is_symlink());
            paths.read.extend(links.filter_map(real_directory_of));
        }
        let system = hooks().any(HttpAuth::trusts_system).then(openssl_probe::probe);
        let system_file = system.iter().filter_map(|system| system.cert_file.as_deref());
        let system_directories = system.iter().flat_map(|system| &system.cert_dir).map(PathBuf::as_path);
        let files = files(config).into_iter().chain(usual).chain(system_file);
        for file in files {
            paths.read.extend(directories_of(file));
        }
        for directory in directories(config).into_iter().chain(system_directories) {
            // Links in it lead to files beside it, more often than not.
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            paths.read.insert(whole(directory));
            paths
                .read
                .extend(entries.filter_map(|entry| real_directory_of(&entry.path())));
        }
        let serving = |listener: &&Listener| listener.protocol == Protocol::WebSockets;
        let http_dirs = config
            .listeners
            .iter()
            .filter(serving)
            .filter_map(|listener| listener.websockets.http_dir.as_deref());
        // Without the targets of links that lead out of it: these are not served.
        paths
            .read
            .extend(http_dirs.flat_map(|directory| [whole(directory)].into_iter().chain(directory.canonicalize())));
        if let Some(log) = &config.log.file {
            paths.append.extend(places_of_log(log));
        }
        paths.journal = config.persistence.directory();
        if let Some(pid_file) = &config.pid_file {
            paths.read.extend(directory_of(pid_file));
            paths.remove.extend(directory_of(pid_file));
        }
        paths
    }

    /// Directories that `other` reads, and this one may not.
    pub(crate) fn lacking(&self, other: &Self) -> Vec<PathBuf> {
        let lacks = |path: &&PathBuf| !self.read.iter().any(|given| path.starts_with(given));
        other.read.iter().filter(lacks).cloned().collect()
    }
}

/// The files that a reload reads, each once.
pub(crate) fn files(config: &Config) -> Vec<&Path> {
    let mut files: Vec<&Path> = config.source.iter().map(PathBuf::as_path).collect();
    for listener in &config.listeners {
        files.extend(listener.auth.password_file.as_deref());
        files.extend(listener.auth.acl_file.as_deref());
        let keys = listener.auth.jwt.iter().flat_map(|jwt| &jwt.keys);
        files.extend(keys.map(|(_, path)| path.as_path()));
        files.extend(listener.auth.http.as_ref().and_then(|http| http.cafile.as_deref()));
        if let Some(tls) = &listener.tls {
            files.extend([tls.certfile.as_path(), tls.keyfile.as_path()]);
            files.extend(tls.cafile.as_deref());
            files.extend(tls.crlfile.as_deref());
        }
    }
    files.sort_unstable();
    files.dedup();
    files
}

/// The directories of which a reload reads whatever they name.
pub(crate) fn directories(config: &Config) -> Vec<&Path> {
    let mut directories: Vec<&Path> = config.include_dirs.iter().map(PathBuf::as_path).collect();
    let tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    directories.extend(tls.filter_map(|tls| tls.capath.as_deref()));
    directories.sort_unstable();
    directories.dedup();
    directories
}

/// The directory that names a file, and the one that it lies in when links have been followed.
fn directories_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    directory_of(file).into_iter().chain(real_directory_of(file))
}

fn directory_of(file: &Path) -> Option<PathBuf> {
    whole(file).parent().map(Path::to_owned)
}

fn real_directory_of(file: &Path) -> Option<PathBuf> {
    file.canonicalize().ok()?.parent().map(Path::to_owned)
}

/// Where a log is written and made anew: its directory and, where it is a link, that of its target; of a device itself
/// alone, and not all of `/dev`.
fn places_of_log(log: &Path) -> Vec<PathBuf> {
    match log.canonicalize() {
        Ok(target) if !target.is_file() => vec![target],
        Ok(target) => directory_of(log)
            .into_iter()
            .chain(target.parent().map(Path::to_owned))
            .collect(),
        Err(_) => directory_of(log).into_iter().collect(),
    }
}

fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn paths(dir: &Path, text: &str) -> Paths {
        let text = text.replace('@', &dir.display().to_string());
        let config = Config::parse(&dir.join("conf/sol.conf"), text.as_bytes(), &Host::default()).unwrap();
        Paths::of(&config)
    }

    /// Every file that the configuration names has its directory among those that may be read, a link's target too; those of
    /// the log may be appended to, and those of a pid file and a Unix socket emptied of them. Nothing else is in it.
    #[test]
    fn what_a_configuration_needs() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        for name in [
            "conf", "conf/d", "users", "acl", "live", "archive", "run", "log", "cas", "store",
        ] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        std::fs::write(dir.join("archive/chain1.pem"), "").unwrap();
        std::fs::write(dir.join("store/ca.pem"), "").unwrap();
        std::os::unix::fs::symlink("../archive/chain1.pem", dir.join("live/chain.pem")).unwrap();
        std::os::unix::fs::symlink("../store/ca.pem", dir.join("cas/0123abcd.0")).unwrap();
        let paths = paths(
            &dir,
            "listener 1883 127.0.0.1\nallow_anonymous true\npassword_file @/users/p\nacl_file @/acl/a\n\
             listener 8883\ncertfile @/live/chain.pem\nkeyfile @/live/key.pem\ncapath @/cas\n\
             listener 0 @/run/sol.sock\ninclude_dir @/conf/d\nlog_dest file @/log/sol.log\npid_file @/run/sol.pid\n",
        );
        let set = |names: &[&str]| names.iter().map(|name| dir.join(name)).collect::<BTreeSet<_>>();
        assert_eq!(
            paths.read,
            set(&[
                "acl", "archive", "cas", "conf", "conf/d", "live", "run", "store", "users"
            ])
        );
        assert_eq!(paths.append, set(&["log"]));
        assert_eq!(paths.remove, set(&["run"]));
    }

    /// Hooks are connected to at the ports of their URLs, and at no other; where there is one, names can be looked up. Its
    /// authorities are read again.
    #[test]
    fn hooks_have_their_ports() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        let of = |lines: &str| paths(&dir, &format!("listener 1883 127.0.0.1\n{lines}\n"));
        let resolves = |paths: &Paths| paths.read.contains(Path::new("/etc/resolv.conf"));
        let none = of("allow_anonymous true");
        assert!(none.ports.is_empty() && !resolves(&none));
        for (url, port) in [
            ("https://auth.example/mqtt", 443),
            ("https://auth.example:8443/mqtt", 8_443),
            ("http://127.0.0.1/mqtt", 80),
            ("http://[::1]:8080", 8_080),
        ] {
            let is_https = url.starts_with("https");
            let cafile = if is_https {
                "\nhttp_auth_cafile @/cas/ca.crt"
            } else {
                ""
            };
            let paths = of(&format!("http_auth_url {url}{cafile}"));
            assert_eq!(paths.ports, [port].into(), "{url}");
            assert!(resolves(&paths));
            assert_eq!(paths.read.contains(&dir.join("cas")), is_https);
        }
    }

    /// A directory of web pages may be read where a listener serves it, and not where none does.
    #[test]
    fn pages_are_read_where_they_are_served() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        std::fs::create_dir(dir.join("www")).unwrap();
        for (protocol, is_served) in [("websockets", true), ("mqtt", false)] {
            let paths = paths(
                &dir,
                &format!("listener 1883\nallow_anonymous true\nprotocol {protocol}\nhttp_dir @/www\n"),
            );
            assert_eq!(paths.read.contains(&dir.join("www")), is_served, "{protocol}");
        }
    }

    /// A log that is a device, or a link to one, gives no right to the other devices.
    #[test]
    fn a_log_that_is_a_device() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.join("sol.log")).unwrap();
        for log in ["@/sol.log", "/dev/null"] {
            let paths = paths(
                &dir,
                &format!("listener 1883\nallow_anonymous true\nlog_dest file {log}\n"),
            );
            assert_eq!(paths.append, [PathBuf::from("/dev/null")].into(), "{log}");
        }
    }

    /// What a later configuration needs and was not given is named, once; below a directory that was given there is nothing.
    #[test]
    fn what_is_lacking() {
        let read = |paths: &[&str]| Paths {
            read: paths.iter().map(PathBuf::from).collect(),
            ..Paths::default()
        };
        let given = read(&["/etc/sol", "/srv/tls"]);
        assert_eq!(
            given.lacking(&read(&["/etc/sol/d", "/srv/tls"])),
            [""; 0].map(PathBuf::from)
        );
        assert_eq!(
            given.lacking(&read(&["/etc/sol", "/etc/solar", "/srv"])),
            ["/etc/solar", "/srv"].map(PathBuf::from)
        );
    }
}
