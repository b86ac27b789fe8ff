//! `sol init`: writes a configuration with which a broker can be shown to a network, and what belongs to it: an authority with a
//! certificate of it, unless one is given, a first user, and rules of who may do what.
//!
//! All that can be wrong with what it is told is found before anything is written.

mod certificates;
mod files;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use self::files::New;
use crate::cli::Init;
use crate::config::{Config, Diagnostic, Host, reason};
use crate::passwd::{self, Scheme};
use crate::password_file::check_user;
use crate::stored::{Cost, PASSWORD_BYTES_MAX};
use crate::tls;

/// Where the broker looks for its configuration by itself.
const SYSTEM_DIRECTORY: &str = "/etc/sol";
/// Letters and digits that nobody mistakes for another: 32, so that five bits choose one.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of a password that is made: 100 bits.
const PASSWORD_CHARS: usize = 20;

/// Writes the files, and returns what is to be told: what was written, and what to do with it.
///
/// # Errors
/// A sentence that says why nothing was written.
pub fn init(options: &Init) -> Result<(String, Vec<Diagnostic>), String> {
    let directory = directory(options)?;
    check_user(&options.user)?;
    if options.user.trim() != options.user {
        return Err("a user name does not begin or end with a space".to_owned());
    }
    let hosts = hosts(&options.hosts)?;
    let files = Names {
        certfile: given(options.cert.as_deref())?.unwrap_or_else(|| directory.join("server.crt")),
        keyfile: given(options.key.as_deref())?.unwrap_or_else(|| directory.join("server.key")),
        is_own: options.cert.is_none(),
    };
    let conf = files.configuration(&directory, &hosts)?;
    let warnings = files.check(&directory, &conf)?;
    // Only now is anybody asked for something.
    let password = password(options)?;
    let hash = Scheme::Argon2id(Cost::USUAL).hash(&options.user, password.as_bytes())?;

    let mut new = vec![
        file("passwd", format!("{}:{hash}\n", options.user)),
        file("acl", include_str!("init/acl").replace("@USER@", &options.user)),
    ];
    if files.is_own {
        let pair = certificates::issue(&hosts).map_err(|error| format!("no certificate can be made: {error}"))?;
        new.push(file("ca.key", pair.authority_key));
        new.push(file("server.key", pair.key));
        new.push(file("server.crt", pair.certificate));
        new.push(New {
            is_public: true,
            ..file("ca.crt", pair.authority)
        });
    }
    // The last one: where it is, all is there that it names.
    new.push(file("sol.conf", conf));
    // Other programs have a file `passwd`, too.
    let is_ours = directory.join("sol.conf").exists();
    files::write_all(&directory, &new, options.force && is_ours)?;
    let cafile = if files.is_own {
        Some(directory.join("ca.crt"))
    } else {
        given(options.ca.as_deref())?
    };
    let told = Told {
        directory: &directory,
        names: new.iter().rev().map(|new| new.name).collect(),
        options,
        password: &password,
        cafile: cafile.as_deref(),
        hosts: &hosts,
    };
    Ok((told.to_text(), warnings))
}

fn file(name: &'static str, text: String) -> New {
    New {
        name,
        bytes: text.into_bytes(),
        is_public: false,
    }
}

fn directory(options: &Init) -> Result<PathBuf, String> {
    let named = options.directory.clone().unwrap_or_else(|| {
        let is_root = rustix::process::geteuid().is_root();
        PathBuf::from(if is_root { SYSTEM_DIRECTORY } else { "." })
    });
    absolute(&named).map(|path| path.components().collect())
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("`{}` is not a path: {}", path.display(), reason(&error)))
}

fn given(path: Option<&Path>) -> Result<Option<PathBuf>, String> {
    path.map(absolute).transpose()
}

/// What the certificate is for: those named, or else this machine's name, and this machine for whoever is on it.
fn hosts(named: &[String]) -> Result<Vec<String>, String> {
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_host = |host: &str| !host.is_empty() && ServerName::try_from(host).is_ok();
    if let Some(wrong) = named.iter().find(|host| !is_host(host)) {
        return Err(format!("`{wrong}` is neither a host name nor an address"));
    }
    let mut hosts = named.to_vec();
    if hosts.is_empty() && is_host(&own) {
        hosts.push(own);
    }
    hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let mut seen = BTreeSet::new();
    hosts.retain(|host| seen.insert(host.clone()));
    Ok(hosts)
}

/// The password of the first user.
enum Password {
    Given(String),
    Made(String),
}

impl Password {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(password) | Self::Made(password) => password.as_bytes(),
        }
    }
}

fn password(options: &Init) -> Result<Password, String> {
    let bytes = match &options.password_file {
        Some(path) => Some(first_line(path)?),
        None => passwd::ask_for_password("Password (none: one is made): ")?,
    };
    match bytes {
        // Whoever types it into a client types text.
        Some(bytes) => String::from_utf8(bytes)
            .map(Password::Given)
            .map_err(|_| "the password is not UTF-8".to_owned()),
        None => make_password().map(Password::Made),
    }
}

fn first_line(path: &Path) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    File::open(path)
        .and_then(|file| BufReader::new(file.take(PASSWORD_BYTES_MAX as u64 + 3)).read_until(b'\n', &mut line))
        .map_err(|error| format!("{} cannot be read: {}", path.display(), reason(&error)))?;
    let line = line.trim_ascii_end();
    if line.is_empty() {
        return Err(format!("{}: the first line is empty", path.display()));
    }
    Ok(line.to_vec())
}

fn make_password() -> Result<String, String> {
    let mut random = [0; PASSWORD_CHARS];
    getrandom::fill(&mut random).map_err(|error| format!("no randomness: {error}"))?;
    let chars = random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    Ok(chars.collect())
}

/// The certificate that clients are shown.
struct Names {
    certfile: PathBuf,
    keyfile: PathBuf,
    /// Whether it is made now.
    is_own: bool,
}

impl Names {
    /// The text of sol.conf.
    fn configuration(&self, directory: &Path, hosts: &[String]) -> Result<String, String> {
        let text = |path: &Path| {
            let text = path.to_str().filter(|text| !text.contains(char::is_control));
            let text = text.ok_or_else(|| format!("{path:?} cannot be named in a configuration"))?;
            Ok::<_, String>(text.to_owned())
        };
        let tls = format!("certfile {}\nkeyfile {}", text(&self.certfile)?, text(&self.keyfile)?);
        let tls_off = tls
            .lines()
            .map(|line| format!("# {line}"))
            .collect::<Vec<_>>()
            .join("\n");
        let about = if self.is_own {
            include_str!("init/own_tls.conf")
                .replace("@DAYS@", &certificates::DAYS.to_string())
                .replace("@HOSTS@", &hosts.join(", "))
                .replace("@SAN@", &certificates::subject_alt_names(hosts))
        } else {
            String::new()
        };
        Ok(include_str!("init/sol.conf")
            .replace("@TLS@", &format!("{about}{tls}"))
            .replace("@TLS_OFF@", &tls_off)
            .replace("@DIR@", &text(directory)?))
    }

    /// Has the configuration read as the broker reads it, and a given certificate with its key.
    fn check(&self, directory: &Path, conf: &str) -> Result<Vec<Diagnostic>, String> {
        let sentences =
            |errors: Vec<Diagnostic>| errors.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n");
        let path = directory.join("sol.conf");
        let config =
            Config::parse(&path, conf.as_bytes(), &Host::detect()).map_err(|refused| sentences(refused.errors))?;
        let auth = config.listeners.first().map(|listener| &listener.auth);
        let password_file = auth.and_then(|auth| auth.password_file.as_deref());
        if password_file != Some(&directory.join("passwd")) {
            return Err(format!("{directory:?} cannot be named in a configuration"));
        }
        if self.is_own {
            return Ok(Vec::new());
        }
        tls::load_all(&config).map(|(_, warnings)| warnings).map_err(sentences)
    }
}

/// What is told in the end.
struct Told<'a> {
    directory: &'a Path,
    names: Vec<&'static str>,
    options: &'a Init,
    password: &'a Password,
    cafile: Option<&'a Path>,
    hosts: &'a [String],
}

impl Told<'_> {
    fn to_text(&self) -> String {
        let program = std::env::args().next().unwrap_or_else(|| "sol".to_owned());
        let conf = self.directory.join("sol.conf");
        let (user, is_own) = (&self.options.user, self.options.cert.is_none());
        let mut text = format!("written to {}: {}\n", self.directory.display(), self.names.join(", "));
        let password = match self.password {
            Password::Made(password) => {
                text += &format!("{user} has the password {password} and nobody will show it again\n");
                password
            }
            Password::Given(_) => "PASSWORD",
        };
        let authority = match self.cafile {
            Some(cafile) => format!("--cafile {}", quoted(&cafile.to_string_lossy())),
            None => "--capath /etc/ssl/certs".to_owned(),
        };
        let host = if is_own { "localhost" } else { &self.hosts[0] };
        let door = format!(
            "-h {host} -p 8883 {authority} -u {} -P {}",
            quoted(user),
            quoted(password)
        );
        text += &format!(
            "\nStart the broker:\n  {} -c {}\n",
            quoted(&program),
            quoted(&conf.to_string_lossy())
        );
        text +=
            &format!("Try it:\n  mosquitto_sub {door} -t 'test/#' -v\n  mosquitto_pub {door} -t test/hello -m hello\n");
        if is_own {
            text += &format!(
                "Clients elsewhere need a copy of ca.crt, and connect to {} by port 8883.\n",
                self.hosts[0]
            );
        }
        text
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@%+=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests;
