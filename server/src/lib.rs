//! The parts of the `sol` binary: command line, configuration, logs, passwords, signals, metrics.
//!
//! This crate is the only one that reads files, the environment or configuration. It knows nothing of packets or
//! routing; the engine and the transport know nothing of it. [`main`] is the whole program; the broker proper is behind
//! [`serve::Broker`].
#![forbid(unsafe_code)]

pub mod acl_file;
pub mod acl_json;
pub mod auth;
pub mod banner;
pub mod broker;
pub mod cli;
pub mod config;
pub mod daemon;
mod engine_config;
mod events;
mod hook;
mod http_files;
pub mod init;
pub mod jwt;
pub mod log;
pub mod metrics;
pub mod owner;
pub mod passwd;
pub mod password_file;
mod reload;
pub mod rights;
pub mod sandbox;
pub mod scram;
pub mod serve;
pub mod signals;
pub mod stats;
mod store;
pub mod stored;
mod supervisor;
pub mod sys_topics;
pub mod tls;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use self::cli::{Cli, Command, Passwd, Serve};
use self::config::{Config, Diagnostic, Host, Refused, reason};
use self::daemon::Role;
use self::passwd::{Change, Scheme};
use self::serve::{Bind, Failure};

/// Exit code of a command line that makes no sense; clap uses it too.
const USAGE: u8 = 2;

/// The program: reads the command line and does what it says. Every error is a sentence on standard error.
pub fn main(bind: Bind) -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Check { config }) => check(config.as_deref(), None),
        Some(Command::Passwd(passwd)) => change_passwords(&passwd),
        Some(Command::Init(options)) => exit(init::init(&options).map(|(told, warnings)| {
            print_all("warning", &warnings);
            let _ = std::io::stdout().write_all(told.as_bytes());
        })),
        Some(Command::Store(tool)) => exit(store::run(&tool)),
        None if cli.serve.check => check(cli.serve.config.as_deref(), Some(&cli.serve)),
        None => serve_or_daemonise(&cli.serve, bind),
    }
}

fn serve_or_daemonise(options: &Serve, bind: Bind) -> ExitCode {
    let role = if options.daemon {
        Some(Role::of_this_process())
    } else {
        None
    };
    if let Some(Role::Between) = role {
        return exit(daemon::detach().map_err(|error| format!("cannot run in the background: {}", reason(&error))));
    }
    let config = match load(options.config.as_deref(), Some(options)) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match role {
        Some(Role::Terminal) => match daemon::start() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => exit(Err(format!("cannot run in the background: {}", reason(&error)))),
        },
        Some(Role::Broker(ready)) => exit(serve::serve(config, options, Some(ready), bind)),
        Some(Role::Between) | None => exit(serve::serve(config, options, None, bind)),
    }
}

/// Reads the configuration; a refusal is printed, and its exit code returned.
fn load(path: Option<&Path>, options: Option<&Serve>) -> Result<Config, ExitCode> {
    let loaded = Config::load(path, &Host::detect());
    let mut config = loaded.map_err(|refused| refuse(&refused, ExitCode::FAILURE))?;
    if let Some(options) = options {
        config
            .apply(&options.overrides())
            .map_err(|refused| refuse(&refused, ExitCode::from(USAGE)))?;
    }
    Ok(config)
}

fn refuse(refused: &Refused, code: ExitCode) -> ExitCode {
    print_all("warning", &refused.warnings);
    print_all("error", &refused.errors);
    code
}

/// `sol check`: the configuration as it would run on standard output, warnings and errors on standard error.
fn check(path: Option<&Path>, options: Option<&Serve>) -> ExitCode {
    let config = match load(path, options) {
        Ok(config) => config,
        Err(code) => return code,
    };
    print_all("warning", &config.warnings);
    if let Some(warning) = config.wandering_journal() {
        print_error(&format!("warning: {warning}"));
    }
    let _ = std::io::stdout().write_all(config.to_directives().as_bytes());
    let files = [
        reload::users(&config).map(|(_, warnings)| warnings),
        rights::rights(&config).map(|(_, warnings)| warnings),
        tls::load_all(&config).map(|(_, warnings)| warnings),
        http_files::load_all(&config).map(|(_, warnings)| warnings),
    ];
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match file {
            Ok(warnings) => print_all("warning", &warnings),
            Err(errors) => {
                print_all("error", &errors);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn change_passwords(options: &Passwd) -> ExitCode {
    let scheme = match options.scheme() {
        Ok(scheme) => scheme,
        Err(text) => return exit(Err(Failure { code: USAGE, text })),
    };
    let done = match &options.user {
        None => passwd::change_file(&options.file, &Change::HashAll(scheme), false),
        Some(user) if options.delete => passwd::change_file(&options.file, &Change::Delete(user.clone()), false),
        Some(user) => set_password(options, scheme, user),
    };
    exit(done.map(|done| {
        let _ = writeln!(std::io::stdout(), "{done}");
    }))
}

fn set_password(options: &Passwd, scheme: Scheme, user: &str) -> Result<String, String> {
    password_file::check_user(user)?;
    let password = match &options.password {
        Some(password) => password.clone().into_bytes(),
        None => passwd::ask_password()?,
    };
    let hash = scheme.hash(user, &password)?;
    if options.to_stdout() {
        return Ok(format!("{user}:{hash}"));
    }
    passwd::change_file(&options.file, &Change::Set(user.to_owned(), hash), options.create)
}

fn exit(result: Result<(), impl Into<Failure>>) -> ExitCode {
    match result.map_err(Into::into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            text.lines().for_each(|line| print_error(&format!("error: {line}")));
            ExitCode::from(code)
        }
    }
}

fn print_all(kind: &str, diagnostics: &[Diagnostic]) {
    diagnostics
        .iter()
        .for_each(|diagnostic| print_error(&format!("{kind}: {diagnostic}")));
}

/// Prints a line for the operator; a closed terminal is no reason to stop.
pub(crate) fn print_error(line: &str) {
    let _ = writeln!(std::io::stderr(), "sol: {line}");
}
