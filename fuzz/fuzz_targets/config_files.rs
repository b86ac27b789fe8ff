//! The files that the server reads: configurations of both dialects, and password files. Nothing panics, and nothing
//! fails open: a file with a fault grants nothing, and one without grants what it says.
//!
//! Input: a byte whose lowest bit chooses a password file, then the file.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sol_server::config::{Config, Dialect, Host, Refused};
use sol_server::password_file::Users;

fuzz_target!(|input: &[u8]| {
    let Some((first, file)) = input.split_first() else {
        return;
    };
    if first & 1 == 0 {
        configuration(file)
    } else {
        passwords(file)
    }
});

fn configuration(file: &[u8]) {
    // Such a directory would be read, which the input does not say.
    if file.windows(11).any(|word| word == b"include_dir") {
        return;
    }
    let config = match parse(file) {
        Ok(config) => config,
        Err(refused) => return assert!(!refused.to_string().is_empty(), "a refusal says why"),
    };
    assert!(!config.listeners.is_empty());
    let text = std::str::from_utf8(file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file));
    lets_in_whom_it_says(&config, &directives(text.unwrap_or_default()));

    let shown = config.to_directives();
    let again = parse(shown.as_bytes()).unwrap_or_else(|refused| panic!("{refused}\n{shown}"));
    assert_eq!(meaning(again), meaning(config.clone()), "{shown}");

    for fault in [&b"\xff"[..], b"ip_port \x01", b"listener 1883 \x7f"] {
        assert!(parse(&[file, b"\n", fault].concat()).is_err(), "a fault is passed over");
    }
    if config.dialect == Dialect::Listener {
        assert!(
            parse(&[file, b"\nallow_anonymus false"].concat()).is_err(),
            "a misspelt directive is passed over"
        );
    }
}

fn parse(file: &[u8]) -> Result<Config, Refused> {
    Config::parse(Path::new("/etc/sol/sol.conf"), file, &Host::default())
}

/// What is in force, whatever line it stands on.
fn meaning(mut config: Config) -> Config {
    config.warnings.clear();
    config
}

/// Whoever has no name is let in where the file says so, or says nothing and is the old broker's, or does not ask to be
/// reached from outside.
fn lets_in_whom_it_says(config: &Config, directives: &[(String, &str)]) {
    let open = config.listeners.iter().any(|listener| listener.auth.allow_anonymous);
    let checked = (0..config.listeners.len()).any(|listener| config.password_file(listener).is_some());
    let said = |name: &'static str| {
        let there = directives
            .iter()
            .filter(move |(key, value)| key == name && !value.is_empty());
        there.map(|(_, value)| *value)
    };
    let yes = |value: &str| {
        ["true", "1", "yes", "on"]
            .iter()
            .any(|yes| yes.eq_ignore_ascii_case(value))
    };
    let spoken = || said("allow_anonymous").chain(said("listener_allow_anonymous"));
    if open && spoken().next().is_some() {
        let local = config.listeners.iter().all(|listener| listener.address.is_local());
        assert!(
            local || spoken().any(yes),
            "anonymous clients are let in against the file"
        );
    }
    if open && spoken().next().is_none() && config.dialect == Dialect::Listener {
        assert!(
            config.listeners.iter().all(|listener| listener.address.is_local()),
            "the network is let in"
        );
        let asks = ["listener", "port", "bind_address"]
            .iter()
            .any(|name| said(name).next().is_some());
        assert!(!asks, "a listener lets in whom it was not told to");
    }
    if config.dialect == Dialect::Listener && said("per_listener_settings").next().is_none() {
        assert_eq!(
            checked,
            said("password_file").next().is_some(),
            "passwords are not checked"
        );
    }
    if config.dialect == Dialect::Sol && !open {
        assert_eq!(checked, config.listeners[0].auth.password_file.is_some());
    }
}

/// Lower-case keys and their first values.
fn directives(text: &str) -> Vec<(String, &str)> {
    let lines = text.split('\n').filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line
                .split(|c: char| c.is_ascii_whitespace())
                .filter(|word| !word.is_empty());
            Some((words.next()?.to_ascii_lowercase(), words.next().unwrap_or_default()))
        })
        .collect()
}

fn passwords(file: &[u8]) {
    let users = match Users::parse(Path::new("/etc/sol/passwd"), file) {
        Ok(users) => users,
        Err(faults) => return assert!(!faults.is_empty(), "a refusal says why"),
    };
    let text = std::str::from_utf8(file).expect("a password file is text");
    let mut known = BTreeMap::new();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) = line.split_once(':').expect("a line is user:hash");
        assert!(
            !user.is_empty() && known.insert(user, hash).is_none(),
            "{user:?} has two passwords or no name"
        );
    }
    assert_eq!(users.len(), known.len());
    for (user, hash) in &known {
        let stored = users.get(user).unwrap_or_else(|| panic!("{user:?} is not known"));
        assert_eq!(stored.as_str(), *hash);
        assert!(hash.starts_with('$'), "a password stands in the clear");
        let again = [file, b"\n", user.as_bytes(), b":", hash.as_bytes()].concat();
        assert!(
            Users::parse(Path::new("p"), &again).is_err(),
            "a second password is passed over"
        );
    }
    let nobody = known.keys().copied().collect::<String>() + "x";
    assert!(users.get("").is_none() && users.get(&nobody).is_none());
    for fault in [&b"x"[..], b"x:", b"x:secret", b":$6$", b"\xff"] {
        let ruined = [file, b"\n", fault].concat();
        assert!(Users::parse(Path::new("p"), &ruined).is_err(), "a fault is passed over");
    }
}
