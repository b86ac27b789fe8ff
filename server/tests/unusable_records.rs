//! The binary on a journal whose log is sound and that has a record in it which a broker cannot use.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::path::Path;
use std::process::{Command, Output};

use sol_engine::{ListenerId, Record, RecordId, SessionRecord, SubscriptionRecord};
use sol_journal::{Batch, Kind, Options, OsDisk, Store};
use sol_transport::About;

/// By convention of sysexits.h: data that cannot be used.
const EXIT_DATA: i32 = 65;
const SESSION: RecordId = RecordId(7);

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

fn session(id: RecordId, client_id: &str) -> Record {
    let session = SessionRecord {
        client_id: client_id.to_owned(),
        username: None,
        vouched: false,
        granted: false,
        own_rules: false,
        listener: ListenerId(0),
        expiry_interval: u32::MAX,
        disconnected_at: None,
        will: None,
    };
    Record::Session(id, Box::new(session))
}

fn subscription(id: RecordId, filter: &str) -> Record {
    let subscription = SubscriptionRecord {
        session: SESSION,
        filter: filter.to_owned(),
        options: 1,
        subscription_id: None,
    };
    Record::Subscription(id, Box::new(subscription))
}

/// A journal with a sound Session, and one more record.
fn journal(location: &Path, id: RecordId, kind: u8, bytes: &[u8]) {
    let directory = location.join("sol-journal");
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::default()
    };
    let mut store = Store::open(OsDisk::create(&directory).unwrap(), &options, 0)
        .unwrap()
        .store;
    let about = About {
        seeds: [1, 2, 3, 4],
        listeners: Vec::new(),
    };
    let mut batch = Batch::default();
    batch.put(About::KIND, About::ID.0, &about.encode());
    batch.put(
        Kind::new(Record::SESSION),
        SESSION.0,
        &encoded(&session(SESSION, "sound")),
    );
    batch.put(Kind::new(kind), id.0, bytes);
    store.add(&batch);
    store.close(0).unwrap();
}

fn sol(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sol")).args(args).output().unwrap()
}

/// Starts a broker on it that has to refuse: what it says on standard error, and in how many lines.
fn refused(location: &Path) -> String {
    let config = location.join("sol.conf");
    let lines = format!(
        "unix_socket {0}/socket\nmetrics off\npersistence os\npersistence_location {0}\n",
        location.display()
    );
    std::fs::write(&config, lines).unwrap();
    let output = sol(&[&"--shards", &"2", &"-c", &config]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(EXIT_DATA), "{said}");
    let last = said.lines().last().unwrap_or_default();
    last.strip_prefix("sol: error: ").unwrap_or(last).to_owned()
}

/// A record whose first fields are sound and whose last are not is refused with 65, in one sentence that names directory and
/// record; what that sentence advises leads to a journal with all the others.
#[test]
fn a_malformed_record_is_refused_by_its_name_and_the_advice_helps() {
    let location = tempfile::tempdir().unwrap();
    let id = RecordId(0x1234);
    let mut bytes = encoded(&session(id, "cut"));
    bytes.pop();
    journal(location.path(), id, Record::SESSION, &bytes);
    let directory = location.path().join("sol-journal");
    assert_eq!(
        refused(location.path()),
        format!(
            "the journal in {0} cannot be used: record 0x1234 cannot be read: its fields are not what its kind has; `sol store \
             salvage {0} --out FILE` saves the others, and `sol store import FILE DIRECTORY` makes a journal of them that \
             persistence_location can name",
            directory.display()
        )
    );
    let (lines, fresh) = (location.path().join("lines"), location.path().join("fresh"));
    let saved = sol(&[&"store", &"salvage", &directory, &"--out", &lines]);
    assert!(saved.status.success(), "{saved:?}");
    let imported = sol(&[&"store", &"import", &lines, &fresh]);
    assert!(imported.status.success(), "{imported:?}");
    let checked = sol(&[&"store", &"check", &fresh]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && said.contains("records     2"), "{said}");
}

/// Records that are sound each by itself and do not belong together are refused alike, in words.
#[test]
fn a_record_that_does_not_belong_to_the_others_is_refused_in_words() {
    let location = tempfile::tempdir().unwrap();
    let id = RecordId(0x99);
    journal(
        location.path(),
        id,
        Record::SUBSCRIPTION,
        &encoded(&subscription(id, "a/#/b")),
    );
    let said = refused(location.path());
    assert!(
        said.contains(
            ": record 0x99 does not belong to the others: its Topic Filter is not valid; `sol store salvage "
        ),
        "{said}"
    );
}
