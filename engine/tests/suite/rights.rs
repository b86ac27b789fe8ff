//! One gate for rights, at seven places and at no other.

use std::collections::BTreeMap;
use std::path::Path;

fn sources(folder: &Path, all: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// `may(session, action, topic)` stands once for each of the seven actions, and nowhere else.
#[test]
fn the_gate_stands_at_its_places() {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let mut actions: BTreeMap<String, usize> = BTreeMap::new();
    let mut gates = Vec::new();
    for (path, text) in all.iter().filter(|(path, _)| !path.ends_with("rights.rs")) {
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(" may(") || code.contains("!may(") || code.contains("(may(") {
                gates.push(format!("{path}:{}", n + 1));
            }
            for name in code.split("Action::").skip(1) {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
                *actions.entry(name).or_default() += 1;
            }
        }
    }
    let expected = ["Deliver", "Publish", "Replay", "Retained", "Share", "Subscribe", "Will"];
    let once: BTreeMap<String, usize> = expected.iter().map(|&name| (name.to_owned(), 1)).collect();
    assert_eq!(actions, once);
    assert_eq!(gates.len(), 7, "{gates:?}");
}
