//! Format 1 as files that are kept: this version writes these bytes, and every later one reads them.

use std::fmt::Write;

use sol_journal::{Batch, Disk, Kind, OnDamage, Opened, Options, Snapshot, Store, model::ModelDisk};

use crate::support::State;

const GOLDEN: &str = include_str!("../data/format-1.hex");

fn options() -> Options {
    Options {
        segment_bytes: 512,
        identity: *b"golden-format-1.",
        ..Options::default()
    }
}

/// Everything that the format has: all operations, near and far identifiers, a body, several batches in one frame, a
/// relocation, a mark, a clean close.
fn write() -> (ModelDisk, State) {
    let disk = ModelDisk::new(1);
    let Opened { mut store, .. } = Store::open(disk.clone(), &options(), 1_000).unwrap();
    let mut batch = Batch::default();
    batch.put(Kind::new(4), 0x0007_0000_0000_0001, b"far away");
    batch.body(Kind::new(1), 2, &[0xbb; 200]);
    batch.child(Kind::new(2), 3, 2, b"first child");
    batch.child(Kind::new(2), 4, 2, b"");
    store.add(&batch);
    batch.clear();
    batch.put(Kind::new(31), u64::MAX, b"the last kind and identifier");
    store.add(&batch);
    store.commit(1_001).unwrap();
    store.sync().unwrap();
    store.mark(1_002).unwrap();
    for n in 0..30 {
        batch.clear();
        batch.put(Kind::new(3), 100, &[n; 100]);
        if n == 20 {
            batch.delete(4);
        }
        store.add(&batch);
        store.commit(2_000 + u64::from(n)).unwrap();
        store.sync().unwrap();
        store.tend(3_000, true).unwrap();
    }
    store.close(4_000).unwrap();
    let state = State::from([
        (2, (1, None, vec![0xbb; 200])),
        (3, (2, Some(2), b"first child".to_vec())),
        (100, (3, None, vec![29; 100])),
        (0x0007_0000_0000_0001, (4, None, b"far away".to_vec())),
        (u64::MAX, (31, None, b"the last kind and identifier".to_vec())),
    ]);
    (disk, state)
}

fn hex(disk: &ModelDisk) -> String {
    let mut text = String::new();
    for name in disk.list().unwrap() {
        writeln!(text, "{name}").unwrap();
        for line in disk.read(&name).unwrap().chunks(32) {
            line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

fn unhex(text: &str) -> ModelDisk {
    let disk = ModelDisk::new(1);
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        if line.ends_with(".seg") {
            files.push((line.to_owned(), Vec::new()));
            continue;
        }
        let digits = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        files
            .last_mut()
            .unwrap()
            .1
            .extend((0..line.len()).step_by(2).map(digits));
    }
    for (name, bytes) in files {
        disk.replace(&name, bytes);
    }
    disk
}

/// The files are written byte for byte as they always were. `SOL_JOURNAL_GOLDEN=FILE` writes them anew, for a new format.
#[test]
fn the_bytes_are_those_of_format_1() {
    let text = hex(&write().0);
    if let Some(file) = std::env::var_os("SOL_JOURNAL_GOLDEN") {
        std::fs::write(file, &text).unwrap();
    }
    assert_eq!(text, GOLDEN);
    assert_eq!(sol_journal::FORMAT, 1);
}

/// The kept files are read as what was written, and closed in order.
#[test]
fn the_files_of_format_1_are_read() {
    let snapshot = Snapshot::read(unhex(GOLDEN), OnDamage::Refuse).unwrap();
    let mut state = State::new();
    let collect = |record: sol_journal::RecordRef<'_>| {
        state.insert(record.id, (record.kind.number(), record.parent, record.bytes.to_vec()));
    };
    snapshot.for_each(|key| key.id, collect).unwrap();
    assert_eq!(state, write().1);
    assert!(snapshot.report().was_closed && snapshot.report().written_at == 4_000);
    assert!(
        GOLDEN.lines().next() != Some("0000000000000001.seg"),
        "the first segments were moved and removed"
    );
}
