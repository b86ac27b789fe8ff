//! The files that the server reads: configurations of both dialects, password files and ACL files. Nothing panics, and
//! nothing fails open: a file with a fault grants nothing, and one without grants what it says.
//!
//! Input: a byte that is 2 for an ACL file, and whose lowest bit otherwise chooses a password file; then the file.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sol_engine::{Rule, Rules};
use sol_server::acl_file;
use sol_server::config::{Config, Dialect, Host, Refused};
use sol_server::password_file::Users;

fuzz_target!(|input: &[u8]| {
    let Some((first, file)) = input.split_first() else {
        return;
    };
    match first {
        2 => rules(file),
        first if first & 1 == 1 => passwords(file),
        _ => configuration(file),
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

fn rules(file: &[u8]) {
    let set = match acl_file::parse(Path::new("/etc/sol/acl"), file) {
        Ok((set, _)) => set,
        Err(faults) => return assert!(!faults.is_empty(), "a refusal says why"),
    };
    let text = std::str::from_utf8(file).expect("an ACL file is text");
    // Whose the rules are: nobody's name, then one list behind each `user`; patterns are everybody's.
    let (mut own, mut patterns) = (vec![("", Vec::new())], Vec::new());
    for line in text.split('\n').map(str::trim_ascii_end) {
        if line.starts_with('#') || line.trim_start_matches(' ').is_empty() {
            continue;
        }
        let (word, rest) = line
            .trim_start_matches(' ')
            .split_once(' ')
            .expect("no word stands alone");
        let rest = rest.trim_start_matches(' ');
        let rule = rest.split_once(' ').unwrap_or(("readwrite", rest));
        let rule = (rule.0.to_owned(), rule.1.trim_start_matches(' ').to_owned());
        match word {
            "user" => own.push((rest, Vec::new())),
            "topic" => own.last_mut().expect("one is always there").1.push(rule),
            "pattern" => patterns.push(rule),
            other => panic!("{other:?} is passed over"),
        }
    }
    let said = |rules: &[Rule]| -> Vec<_> {
        let words = rules.iter();
        let words = words.map(|rule| (format!("{:?}", rule.access).to_lowercase(), rule.filter.to_string()));
        words.collect()
    };
    let mut read = vec![("", said(&set.anonymous))];
    read.extend(set.users.iter().map(|(name, rules)| (name.as_str(), said(rules))));
    assert_eq!(read, own);
    assert_eq!(said(&set.patterns), patterns);
    let _ = Rules::new(set);
    for fault in [
        &b"topic"[..],
        b"user ",
        b"topic rw a",
        b"topics a",
        b"topic a/#/b",
        b"pattern write %c+",
        b"\xff",
    ] {
        let ruined = [file, b"\n", fault].concat();
        assert!(
            acl_file::parse(Path::new("a"), &ruined).is_err(),
            "a fault is passed over"
        );
    }
}
