//! What must hold of any bytes in place of a log.

use std::collections::BTreeMap;

use crate::format::{HEAD, Head, Header, salt};
use crate::ops::{Op, Ops};
use crate::read::OnDamage;
use crate::store::{Options, RecordRef, Store};

use super::ModelDisk;

/// The bytes of a segment with these operations in its frames, whatever they are. For tests of what reads them.
#[must_use]
pub fn segment(frames: &[&[u8]]) -> Vec<u8> {
    let header = Header {
        segment: 1,
        low: 1,
        store: *b"a model's store.",
        durable: 0,
    };
    let mut bytes = header.encode().to_vec();
    let mut head = Head::default();
    for operations in frames {
        head = Head {
            sequence: head.sequence + 1,
            durable: head.sequence,
            previous: head.crc,
            records: Ops::new(operations)
                .filter(|op| !matches!(op, Ok(Op::Low { .. })))
                .count() as u32,
            ..Head::default()
        };
        let mut frame = vec![0; HEAD];
        frame.extend_from_slice(operations);
        head.seal(salt(&header.store, header.segment), &mut frame);
        bytes.extend_from_slice(&frame);
    }
    bytes
}

/// What must hold of any bytes in place of a log, whatever they are: they are refused with a sentence, or opened; then the
/// same is there when they are opened again, and no record refers to one that is not. The fuzz target of frames calls this.
///
/// # Panics
/// It does not hold.
#[allow(clippy::panic, clippy::unwrap_used, reason = "the oracle of tests")]
pub fn check_bytes(bytes: &[u8]) {
    // The first byte says how to read the rest: as a file, or as the operations of frames, one bit of which may be wrong.
    let (&how, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut file = match how % 3 {
        0 => rest.to_vec(),
        _ => segment(&rest.split(|&byte| byte == 0xff).collect::<Vec<_>>()),
    };
    if how % 3 == 2 {
        let bit = rest
            .iter()
            .fold(how as usize, |sum, &byte| sum.wrapping_mul(31) ^ usize::from(byte));
        let length = file.len();
        if let Some(byte) = file.get_mut(bit / 8 % length) {
            *byte ^= 1 << (bit % 8);
        }
    }
    for on_damage in [OnDamage::Refuse, OnDamage::Salvage] {
        let disk = ModelDisk::new(1);
        disk.replace("0000000000000001.seg", file.clone());
        let options = Options {
            on_damage,
            ..Options::default()
        };
        match Store::open(disk.clone(), &options, 0) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(opened) => {
                let first = records(&opened.store);
                drop(opened);
                let again = Store::open(disk, &Options::default(), 0).unwrap();
                assert_eq!(records(&again.store), first);
                assert_eq!(again.report.tail, None);
            }
        }
    }
}

type Records = BTreeMap<u64, (u8, Option<u64>, Vec<u8>)>;

#[allow(clippy::unwrap_used, reason = "the oracle of tests")]
fn records(store: &Store<ModelDisk>) -> Records {
    let mut records = Records::new();
    let keep = |record: RecordRef<'_>| {
        records.insert(record.id, (record.kind.number(), record.parent, record.bytes.to_vec()));
    };
    store.for_each(|key| key.id, keep).unwrap();
    assert!(
        records
            .values()
            .filter_map(|record| record.1)
            .all(|parent| records.contains_key(&parent))
    );
    records
}
