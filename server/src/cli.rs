//! The command line: flags of the old broker, and a few more.

mod store;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Io, Metrics, Overrides, Shards, others, threads};
use crate::passwd::Scheme;
use crate::scram;
use crate::stored::{Cost, PBKDF2_ITERATIONS_DEFAULT, PBKDF2_ITERATIONS_MAX};

pub use self::store::StoreTool;

/// An MQTT broker for MQTT 3.1, 3.1.1 and 5.0.
///
/// Without a file it listens on 127.0.0.1:1883 for clients of this machine. The command line wins over the file.
#[derive(Clone, Debug, Eq, Parser, PartialEq)]
#[command(name = "sol", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// How to serve.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct Serve {
    /// Listen on this address [default: 127.0.0.1]
    #[arg(short = 'a', value_name = "ADDR")]
    pub address: Option<String>,
    /// Listen on this port, 0 for any free one [default: 1883]
    #[arg(short = 'p', value_name = "PORT")]
    pub port: Option<u16>,
    /// Read this configuration [default: /etc/sol/sol.conf if it exists]
    #[arg(short = 'c', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log everything
    #[arg(short = 'v')]
    pub verbose: bool,
    /// Run in the background
    #[arg(short = 'd')]
    pub daemon: bool,
    /// Print the configuration that would run, and stop
    #[arg(long)]
    pub check: bool,
    /// Write the process identifier to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Serve metrics here [default: 127.0.0.1:9883 if it is free]
    #[arg(long, value_name = "ADDR|off", value_parser = others::metrics)]
    pub metrics: Option<Metrics>,
    /// Serve clients with so many threads [default: one for each core]
    #[arg(long, value_name = "N|auto", value_parser = threads::shards)]
    pub shards: Option<Shards>,
    /// Wait for sockets by io_uring or epoll [default: auto, the first where the system permits it]
    #[arg(long, value_name = "auto|io_uring|epoll", value_parser = threads::io)]
    pub io: Option<Io>,
}

impl Serve {
    /// What wins over the file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            address: self.address.clone(),
            port: self.port,
            verbose: self.verbose,
            pid_file: self.pid_file.clone(),
            metrics: self.metrics,
            shards: self.shards,
            io: self.io,
        }
    }
}

/// What to do instead of serving.
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub enum Command {
    /// Print the configuration that would run, with every warning and error
    Check {
        /// The configuration [default: /etc/sol/sol.conf if it exists]
        #[arg(short = 'c', value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Add, change or delete a user of a password file, or turn its passwords into hashes
    Passwd(Passwd),
    /// Write a configuration for a broker that is open to the network: TLS, a first user, and rules
    Init(Init),
    /// Verify, count, export, copy, save or fill the journal: what the broker keeps on disk
    #[command(subcommand)]
    Store(StoreTool),
}

/// Write a configuration for a broker that is open to the network: TLS, a first user, and rules.
///
/// The password is asked for, or read from standard input if that is no terminal. Without one, one is made and shown. Without
/// --cert an authority and a certificate are made.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct Init {
    /// Where to write it [default: /etc/sol for root, else the current folder]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// The first user, who may do everything
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub user: String,
    /// Take the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A name or address that clients connect to, several times for several [default: that of this machine]
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// A certificate that is there, with those between it and its authority
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The certificate of its authority, if clients do not know that anyway
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub ca: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Add, change or delete a user of a password file, or turn its passwords into hashes.
///
/// With a USER the password is asked for, or read from standard input if that is no terminal. Without a USER every
/// `user:password` line becomes a `user:hash` line.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
pub struct Passwd {
    /// Take the password from the command line, where other users of the machine can see it
    #[arg(short = 'b', requires = "password", conflicts_with_all = ["delete", "hash_all"])]
    pub batch: bool,
    /// Begin a new file; with `-` as FILE the line is written to standard output
    #[arg(short = 'c', requires = "user", conflicts_with_all = ["delete", "hash_all"])]
    pub create: bool,
    /// Delete USER
    #[arg(short = 'D', requires = "user", conflicts_with = "hash_all")]
    pub delete: bool,
    /// Turn every password of the file into a hash
    #[arg(short = 'U', conflicts_with = "user")]
    pub hash_all: bool,
    /// Keep keys for SCRAM-SHA-256, with which this user may also log in without showing the password
    #[arg(long, conflicts_with = "delete")]
    pub scram: bool,
    /// What to keep of passwords [default: argon2id]
    #[arg(short = 'H', long = "hash", value_name = "HASH", value_enum, conflicts_with_all = ["delete", "scram"])]
    pub hash: Option<Hash>,
    /// How often to hash, with --scram [default: 15000] or -H sha512-pbkdf2 [default: 100000]. Each login costs so much, of
    /// SCRAM the client, and each guess whoever steals the file
    #[arg(short = 'I', long, value_name = "N", conflicts_with = "delete")]
    pub iterations: Option<u32>,
    /// The password file
    pub file: PathBuf,
    /// The user
    pub user: Option<String>,
    /// The password, with -b
    #[arg(requires = "batch")]
    pub password: Option<String>,
}

/// What `-H` may name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Hash {
    /// Argon2id, which Mosquitto reads since 2.1
    Argon2id,
    /// PBKDF2 with SHA-512, for a file that Mosquitto 2.0 reads, too
    Sha512Pbkdf2,
    /// One SHA-512, for a file that Mosquitto 1.6 reads, too: quick to guess
    Sha512,
    /// SHA-512-crypt, for a file that crypt(3) reads, too
    Sha512Crypt,
}

impl Passwd {
    /// What to keep of passwords.
    ///
    /// # Errors
    /// A sentence: there are too many or too few iterations, or nothing that they are for.
    pub fn scheme(&self) -> Result<Scheme, String> {
        let iterations = |min: u32, default: u32, max: u32| match self.iterations.unwrap_or(default) {
            iterations if (min..=max).contains(&iterations) => Ok(iterations),
            _ => Err(format!("iterations must be from {min} to {max}")),
        };
        if self.scram {
            return iterations(scram::ITERATIONS_MIN, scram::ITERATIONS_DEFAULT, scram::ITERATIONS_MAX)
                .map(Scheme::Scram);
        }
        match self.hash.unwrap_or(Hash::Argon2id) {
            Hash::Sha512Pbkdf2 => iterations(1, PBKDF2_ITERATIONS_DEFAULT, PBKDF2_ITERATIONS_MAX).map(Scheme::Pbkdf2),
            _ if self.iterations.is_some() => Err("-I goes with -H sha512-pbkdf2 or with --scram".to_owned()),
            Hash::Argon2id => Ok(Scheme::Argon2id(Cost::USUAL)),
            Hash::Sha512 => Ok(Scheme::Sha512),
            Hash::Sha512Crypt => Ok(Scheme::Sha512Crypt),
        }
    }

    /// Whether the new line is to be written to standard output, and no file.
    pub fn to_stdout(&self) -> bool {
        self.create && self.file == Path::new("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    /// The definitions are sound by clap's own check.
    #[test]
    fn definitions() {
        Cli::command().debug_assert();
    }

    /// The old broker's flags mean what they meant.
    #[test]
    fn old_flags() {
        let serve = parse("sol -a ::1 -p 1884 -c f -v -d").unwrap().serve;
        let overrides = serve.overrides();
        assert_eq!(
            (overrides.address.as_deref(), overrides.port, overrides.verbose),
            (Some("::1"), Some(1884), true)
        );
        assert!(serve.daemon);
        assert_eq!(serve.config, Some(PathBuf::from("f")));
        assert_eq!(parse("sol -h"), Err(ErrorKind::DisplayHelp));
        assert_eq!(parse("sol --version"), Err(ErrorKind::DisplayVersion));
        // The old broker took these and did nothing with them but fail.
        assert_eq!(parse("sol -m 1"), Err(ErrorKind::UnknownArgument));
        assert_eq!(parse("sol -n 1"), Err(ErrorKind::UnknownArgument));
        assert_eq!(parse("sol -p 65536"), Err(ErrorKind::ValueValidation));
    }

    /// The new flags, and values that are refused before anything starts.
    #[test]
    fn new_flags() {
        let serve = parse("sol --check --pid-file p --metrics off").unwrap().serve;
        assert_eq!(
            (serve.check, serve.pid_file, serve.metrics),
            (true, Some("p".into()), Some(Metrics::Off))
        );
        assert_eq!(parse("sol --metrics here"), Err(ErrorKind::ValueValidation));
        assert_eq!(
            parse("sol --shards 2").unwrap().serve.overrides().shards,
            Some(Shards::Count(2))
        );
        assert_eq!(parse("sol --shards auto").unwrap().serve.shards, Some(Shards::Auto));
        assert_eq!(parse("sol --io epoll").unwrap().serve.overrides().io, Some(Io::Epoll));
        assert_eq!(parse("sol --io select"), Err(ErrorKind::ValueValidation));
        let too_many = (threads::SHARDS_MAX + 1).to_string();
        for bad in ["0", &too_many, "many", "-1"] {
            assert!(parse(&format!("sol --shards {bad}")).is_err(), "{bad}");
        }
        assert!(matches!(
            parse("sol check -c f").unwrap().command,
            Some(Command::Check { config: Some(_) })
        ));
        assert!(parse("sol -p 1 check").is_err());
    }

    /// `sol init` needs to be told nothing; a certificate comes with its key.
    #[test]
    fn init_flags() {
        let init = |line: &str| match parse(line)?.command {
            Some(Command::Init(init)) => Ok(init),
            _ => Err(ErrorKind::MissingSubcommand),
        };
        let bare = init("sol init").unwrap();
        assert_eq!((bare.directory, bare.user.as_str(), bare.force), (None, "admin", false));
        let given = init("sol init d --user u --host a --host b --cert c --key k --ca a --force").unwrap();
        assert_eq!((given.hosts.len(), given.force), (2, true));
        for bad in [
            "sol init --cert c",
            "sol init --key k",
            "sol init --ca a",
            "sol init a b",
        ] {
            assert!(init(bad).is_err(), "{bad}");
        }
    }

    /// `sol store` is told what to do and with which directory; a salvage never goes to a terminal.
    #[test]
    fn store_flags() {
        let tool = |line: &str| match parse(line)?.command {
            Some(Command::Store(tool)) => Ok(tool),
            _ => Err(ErrorKind::MissingSubcommand),
        };
        let directory = PathBuf::from("d");
        assert_eq!(
            tool("sol store export d"),
            Ok(StoreTool::Export {
                directory: directory.clone(),
                out: None
            })
        );
        assert_eq!(
            tool("sol store import-mosquitto f d --partial"),
            Ok(StoreTool::ImportMosquitto {
                file: "f".into(),
                directory,
                partial: true
            })
        );
        for bad in [
            "sol store",
            "sol store check",
            "sol store backup d",
            "sol store salvage d",
        ] {
            assert!(tool(bad).is_err(), "{bad}");
        }
    }

    /// `sol passwd` has mosquitto_passwd's flags, and contradictions are refused.
    #[test]
    fn passwd_flags() {
        let passwd = |line: &str| match parse(line)?.command {
            Some(Command::Passwd(passwd)) => Ok(passwd),
            _ => Err(ErrorKind::MissingSubcommand),
        };
        assert_eq!(passwd("sol passwd f").unwrap().user, None);
        assert_eq!(passwd("sol passwd -b f u p").unwrap().password.as_deref(), Some("p"));
        assert!(passwd("sol passwd -D f u").unwrap().delete);
        assert!(passwd("sol passwd -U f").unwrap().hash_all);
        assert!(passwd("sol passwd -c f u").unwrap().create);
        let scheme = |line: &str| passwd(line).unwrap().scheme();
        assert_eq!(scheme("sol passwd f u"), Ok(Scheme::Argon2id(Cost::USUAL)));
        assert_eq!(scheme("sol passwd -H argon2id f u"), scheme("sol passwd f u"));
        assert_eq!(scheme("sol passwd -H sha512 f u"), Ok(Scheme::Sha512));
        assert_eq!(scheme("sol passwd -H sha512-crypt f u"), Ok(Scheme::Sha512Crypt));
        let usual = Ok(Scheme::Pbkdf2(PBKDF2_ITERATIONS_DEFAULT));
        assert_eq!(scheme("sol passwd -H sha512-pbkdf2 -U f"), usual);
        let mosquitto = "sol passwd -c -H sha512-pbkdf2 -I 101 -b f u p";
        assert_eq!(scheme(mosquitto), Ok(Scheme::Pbkdf2(101)));
        let default = Ok(Scheme::Scram(scram::ITERATIONS_DEFAULT));
        assert_eq!(scheme("sol passwd --scram f u"), default);
        assert_eq!(scheme("sol passwd --scram -U f"), default);
        let line = "sol passwd --scram --iterations 4096 f u";
        assert_eq!(scheme(line), Ok(Scheme::Scram(4_096)));
        for bad in [
            "sol passwd -I 4096 f u",
            "sol passwd -H argon2id -I 4096 f u",
            "sol passwd -H sha512-pbkdf2 -I 0 f u",
            "sol passwd -H sha512-pbkdf2 -I 1000001 f u",
            "sol passwd --scram --iterations 4095 f u",
            "sol passwd --scram --iterations 1000001 f u",
        ] {
            assert!(scheme(bad).is_err(), "{bad}");
        }
        assert!(passwd("sol passwd -c - u").unwrap().to_stdout());
        assert!(!passwd("sol passwd - u").unwrap().to_stdout());
        for bad in [
            "sol passwd -H md5 f u",
            "sol passwd --scram -H argon2id f u",
            "sol passwd --scram -D f u",
            "sol passwd",
            "sol passwd -b f u",
            "sol passwd f u p",
            "sol passwd -D f",
            "sol passwd -U f u",
        ] {
            assert!(passwd(bad).is_err(), "{bad}");
        }
    }
}
