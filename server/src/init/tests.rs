use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{reload, rights};

fn options(directory: &Path) -> Init {
    let password_file = directory.with_file_name("secret");
    fs::write(&password_file, "correct horse\nnot this\n").unwrap();
    Init {
        directory: Some(directory.to_owned()),
        user: "alice".to_owned(),
        password_file: Some(password_file),
        hosts: vec!["broker.example".to_owned(), "192.0.2.7".to_owned()],
        cert: None,
        key: None,
        ca: None,
        force: false,
    }
}

/// What is written is what a broker starts with: no warning, a certificate with its key, a user, and rules.
#[test]
fn what_is_written_holds() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("new one");
    let (told, warnings) = init(&options(&directory)).unwrap();
    assert_eq!(warnings, []);
    let config = Config::load(Some(&directory.join("sol.conf")), &Host::default()).unwrap();
    assert_eq!(config.warnings, []);
    let (users, warnings) = reload::users(&config).unwrap();
    assert_eq!((users.unwrap().count_at(0), warnings), (1, Vec::new()));
    assert_eq!(rights::rights(&config).unwrap().1, []);
    let (listeners, warnings) = tls::load_all(&config).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(listeners.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    assert!(config.listeners[1].address.is_local());
    assert!(config.listeners.iter().all(|listener| !listener.auth.allow_anonymous));
    for name in ["sol.conf", "passwd", "acl", "ca.key", "server.key", "server.crt"] {
        let mode = fs::metadata(directory.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    let folder = directory.display().to_string();
    assert!(
        told.contains(&format!(
            "mosquitto_sub -h localhost -p 8883 --cafile '{folder}/ca.crt' -u alice -P PASSWORD -t 'test/#' -v"
        )),
        "{told}"
    );
    assert!(!told.contains("correct horse"), "a given password is repeated: {told}");
}

/// Every line that is commented out can be put in force as it stands.
#[test]
fn what_is_commented_out_holds_too() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("d");
    init(&options(&directory)).unwrap();
    let conf = fs::read_to_string(directory.join("sol.conf")).unwrap();
    let is_directive = |line: &str| {
        let word = line.split(' ').next().unwrap_or_default();
        word.contains('_') || ["listener", "protocol", "certfile", "keyfile"].contains(&word)
    };
    let lines = conf.lines().map(|line| match line.strip_prefix("# ") {
        Some(directive) if is_directive(directive) => directive,
        _ => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let config = Config::parse("f".as_ref(), text.as_bytes(), &Host::default()).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.listeners.len(), 3);
}

/// A second time nothing is written, unless it is forced; a file of others in the way is left as it is.
#[test]
fn nothing_is_overwritten() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("d");
    let mut options = options(&directory);
    init(&options).unwrap();
    let before = fs::read(directory.join("ca.crt")).unwrap();
    let error = init(&options).unwrap_err();
    assert!(error.contains("is there already; --force replaces it"), "{error}");
    assert_eq!(fs::read(directory.join("ca.crt")).unwrap(), before);
    options.force = true;
    fs::rename(directory.join("sol.conf"), directory.join("other.conf")).unwrap();
    init(&options).expect_err("those are not ours");
    fs::rename(directory.join("other.conf"), directory.join("sol.conf")).unwrap();
    init(&options).unwrap();
    assert_ne!(fs::read(directory.join("ca.crt")).unwrap(), before);
}

/// A given certificate is named where it lies, after it was looked at with its key; a wrong one is refused, and nothing written.
#[test]
fn a_given_certificate() {
    let outer = tempfile::tempdir().unwrap();
    let [made, given] = ["made", "given"].map(|name| outer.path().join(name));
    init(&options(&made)).unwrap();
    let mut options = options(&given);
    options.cert = Some(made.join("server.crt"));
    options.key = Some(made.join("ca.key"));
    let error = init(&options).unwrap_err();
    assert!(error.contains("the key is not that of the certificate"), "{error}");
    assert!(!given.exists());
    options.key = Some(made.join("server.key"));
    let (told, _) = init(&options).unwrap();
    assert!(
        told.contains("-h broker.example -p 8883 --capath /etc/ssl/certs"),
        "{told}"
    );
    assert!(!given.join("server.key").exists());
    let conf = fs::read_to_string(given.join("sol.conf")).unwrap();
    assert!(conf.contains(&format!("\ncertfile {}/server.crt\n", made.display())));
}

/// What cannot be is refused by one sentence, before anything is written.
#[test]
fn what_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let good = options(&outer.path().join("d"));
    let refused = |change: &dyn Fn(&mut Init)| {
        let mut options = good.clone();
        change(&mut options);
        let error = init(&options).unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let missing = refused(&|options| options.password_file = Some("/nowhere".into()));
    assert_eq!(missing, "/nowhere cannot be read: No such file or directory");
    let host = refused(&|options| options.hosts = vec!["no host".to_owned()]);
    assert_eq!(host, "`no host` is neither a host name nor an address");
    refused(&|options| options.user = "a:b".to_owned());
    refused(&|options| options.user = " a".to_owned());
    refused(&|options| options.directory = Some("a\nb".into()));
    let nested = refused(&|options| options.directory = Some("/nowhere/deeper".into()));
    assert_eq!(nested, "/nowhere/deeper cannot be written: No such file or directory");
    assert_eq!(
        fs::read_dir(outer.path()).unwrap().count(),
        1,
        "only the password's file"
    );
}

/// A password that is made is long, of what nobody mistakes, and another each time.
#[test]
fn made_passwords() {
    let [a, b] = [make_password().unwrap(), make_password().unwrap()];
    assert_ne!(a, b);
    assert!(a.len() == PASSWORD_CHARS && a.bytes().all(|byte| ALPHABET.contains(&byte)));
}

/// A word is told so that a shell gives it back.
#[test]
fn words_for_a_shell() {
    assert_eq!(quoted("/etc/sol/ca.crt"), "/etc/sol/ca.crt");
    assert_eq!(quoted("it's $5"), "'it'\\''s $5'");
    assert_eq!(quoted(""), "''");
}
