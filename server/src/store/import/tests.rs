use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use proptest::prelude::*;
use sol_engine::{Record, ReferenceState};
use sol_journal::OnDamage;

use super::*;
use crate::store::output::Output;
use crate::store::{self, place, records};

/// What belongs together: a Session with its Subscriptions, and messages with what refers to them.
fn family(first: u64) -> impl Strategy<Value = Vec<Record>> {
    let id = move |count| records::id(first + count);
    let session = id(1);
    let parts = (
        records::session(),
        prop::collection::vec(records::subscription(session), 0..3),
        records::message(),
        records::author(),
        prop::collection::vec(records::reference(session, id(10)), 0..4),
        any::<bool>(),
    );
    parts.prop_map(
        move |(mut own, subscriptions, message, author, references, is_retained)| {
            own.client_id = format!("{} {first}", own.client_id);
            let mut all = vec![Record::Session(session, Box::new(own))];
            for (n, subscription) in subscriptions.into_iter().enumerate() {
                all.push(Record::Subscription(id(2 + n as u64), Box::new(subscription)));
            }
            all.push(Record::Inbound {
                id: id(5),
                session,
                packet_id: sol_codec::PacketId::new(u16::MAX).unwrap(),
            });
            all.push(Record::Body(id(10), Rc::new(message)));
            if is_retained {
                all.push(Record::Retained {
                    id: id(11),
                    body: id(10),
                    author,
                });
            }
            let mut used = Vec::new();
            for (n, reference) in references.into_iter().enumerate() {
                if let ReferenceState::Sent(packet_id) | ReferenceState::Released(packet_id) = reference.state {
                    if used.contains(&packet_id) {
                        continue;
                    }
                    used.push(packet_id);
                }
                all.push(Record::Reference(id(12 + n as u64), reference));
            }
            all
        },
    )
}

fn export(directory: &Path, to: &Path) -> String {
    let (place, snapshot) = place::read(directory, OnDamage::Refuse).unwrap();
    let mut output = Output::new(Some(to)).unwrap();
    store::export::write(&place, &snapshot, &mut output, false).unwrap();
    output.finish().unwrap();
    fs::read_to_string(to).unwrap()
}

fn lines_of(all: &[Record]) -> String {
    let about = records::about();
    let mut text = lines::head(&about) + "\n";
    for record in all {
        lines::write(record, &about, &mut text);
        text.push('\n');
    }
    text
}

fn import_text(text: &str, directory: &Path) -> Result<(u64, PathBuf), Failure> {
    fill("lines", text.as_bytes(), directory)
}

/// What is exported and imported is exported as the same lines again: Sessions with their Wills, authors, payloads that are
/// no text, everything.
#[test]
fn an_export_that_was_imported_is_exported_as_it_was() {
    let families = prop::collection::vec(any::<()>(), 1..5)
        .prop_flat_map(|units| (0..units.len() as u64).map(|n| family(n * 20)).collect::<Vec<_>>());
    let config = ProptestConfig::with_cases(32);
    proptest!(config, |(families in families)| {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let all: Vec<Record> = families.into_iter().flatten().collect();
        let text = lines_of(&all);
        import_text(&text, &at("one")).unwrap();
        let first = export(&at("one"), &at("first"));
        let (records, _) = import_text(&first, &at("two")).unwrap();
        let second = export(&at("two/sol-journal"), &at("second"));
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(records + 1, first.lines().count() as u64);
        // But for messages that nobody refers to, these are the records that were put.
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let (first, all) = (sorted(&first), sorted(&text));
        let missing = all.iter().filter(|line| !first.contains(line));
        let are_messages = missing.clone().all(|line| line.starts_with(r#"{"record":"message""#));
        prop_assert!(are_messages);
        let are_there = first.iter().all(|line| all.contains(line));
        prop_assert!(are_there);
    });
}

/// A line that is wrong, or that does not belong to those before, is named, and nothing is left of the import.
#[test]
fn a_wrong_line_is_named_and_nothing_is_left() {
    let session = r#"{"record":"session","id":"0-1","client_id":"c","session_expiry_interval":9}"#;
    let head = lines::head(&records::about());
    for (lines, text) in [
        ("".to_owned(), "lines:1: the file is empty"),
        ("{}".to_owned(), "lines:1: `format` is missing"),
        (
            format!("{head}\n{session}\nhello"),
            "lines:3: it is not JSON, from column 1",
        ),
        (
            format!("{head}\n{session}\n{session}"),
            "lines:3: its identifier has been there before",
        ),
        (
            format!("{head}\n{session}\n{}", session.replace("0-1", "0-2")),
            "lines:3: its Client Identifier",
        ),
        (
            format!(r#"{head}{}{{"record":"retained","id":"0-1","message":"0-2"}}"#, "\n\n"),
            "lines:3: its message has not been there before",
        ),
        (
            format!(
                r#"{head}{}{{"record":"inbound","id":"0-1","session":"0-2","packet_id":1}}"#,
                "\n"
            ),
            "lines:2: its Session has not been there before",
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let failure = import_text(&lines, scratch.path()).unwrap_err();
        assert_eq!(failure.code, DATA);
        assert!(failure.text.starts_with(text), "{}", failure.text);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "{text}");
    }
    let failure = fill("f", &b"\xff\n"[..], Path::new("nowhere")).unwrap_err();
    assert_eq!(failure.text, "f:1: it is not UTF-8; nothing was imported");
}

/// Nothing is imported where a journal is, or where one is in use; what is made is for its owner alone.
#[test]
fn a_journal_is_never_written_over() {
    use std::os::unix::fs::MetadataExt as _;

    use sol_journal::{Disk as _, OsDisk};

    let scratch = tempfile::tempdir().unwrap();
    let text = lines::head(&records::about());
    let (_, made) = import_text(&text, scratch.path()).unwrap();
    assert_eq!(made, scratch.path().join("sol-journal"));
    assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&made).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    for directory in [scratch.path(), &made] {
        let failure = import_text(&text, directory).unwrap_err();
        assert_eq!(failure.code, 73, "{}", failure.text);
        assert!(failure.text.contains("is not empty"), "{}", failure.text);
    }
    let other = scratch.path().join("sol-journal-2/sol-journal");
    fs::create_dir_all(&other).unwrap();
    let in_use = OsDisk::existing(&other).unwrap();
    in_use.lock().unwrap();
    let failure = import_text(&text, &other).unwrap_err();
    assert_eq!(failure.code, 75);
    assert!(failure.text.contains("it is in use by process"), "{}", failure.text);
    drop(in_use);
    import_text(&text, &other).unwrap();
}
