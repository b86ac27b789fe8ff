//! Operations: what a frame does to the records, as bytes.
//!
//! An operation is one byte (its code in the lower three bits, the record's kind in the others), then identifiers as the
//! zigzag varint of their distance to the one before, a length as a varint, and the record's bytes. A body and ten thousand
//! records that point at it cost four bytes for each of them beside their own.

use std::ops::Range;

/// What a record is, as its owner numbers it: the journal only tells the kinds apart and hands them out in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(u8);

impl Kind {
    /// How many kinds there are.
    pub const COUNT: u8 = 32;

    /// The kind of this number, which is below [`COUNT`](Self::COUNT).
    #[must_use]
    pub const fn new(number: u8) -> Self {
        debug_assert!(number < Self::COUNT, "there is no kind of this number");
        Self(number % Self::COUNT)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

const DELETE: u8 = 0;
const PUT: u8 = 1;
const CHILD: u8 = 2;
const BODY: u8 = 3;
const LOW: u8 = 4;
const BATCH: u8 = 5;

/// Records to be put and deleted in one commit, as bytes.
///
/// An identifier is any number but 0. Putting one that is there replaces it; that of a record that is gone may be used for
/// another. Keep and reuse a batch: once it has grown, nothing is allocated for a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    records: u32,
    near: Near,
}

/// What the next identifiers are told relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Near {
    id: u64,
    parent: u64,
}

impl Near {
    /// What a parent is told relative to: a batch's body or the last parent; before there is one, the record itself.
    const fn of_parent(self) -> u64 {
        if self.parent == 0 { self.id } else { self.parent }
    }
}

impl Batch {
    /// Puts a record that lives until it is deleted.
    pub fn put(&mut self, kind: Kind, id: u64, bytes: &[u8]) {
        self.start(PUT, kind, id);
        self.bytes_of_record(bytes);
    }

    /// Puts a record that lives until it is deleted, and its parent, a body, at least as long.
    pub fn child(&mut self, kind: Kind, id: u64, parent: u64, bytes: &[u8]) {
        self.start(CHILD, kind, id);
        self.distance(self.near.of_parent(), parent);
        self.near.parent = parent;
        self.bytes_of_record(bytes);
    }

    /// Puts a record that lives while a child of it does. A batch that refers to a body puts it too, unless it only replaces
    /// a record that has the same parent: a deletion of another child may overtake it, and take the body away. Putting it
    /// twice is harmless. Where its identifier was another record's, that one is deleted, or the body put, before a child
    /// names it.
    pub fn body(&mut self, kind: Kind, id: u64, bytes: &[u8]) {
        self.start(BODY, kind, id);
        self.near.parent = id;
        self.bytes_of_record(bytes);
    }

    /// Deletes a record that is not a body. Deleting one that is not there is harmless.
    pub fn delete(&mut self, id: u64) {
        self.start(DELETE, Kind(0), id);
    }

    /// Segments before this one are not needed any more.
    pub(crate) fn low(&mut self, segment: u64) {
        self.open();
        self.bytes.push(LOW);
        varint(&mut self.bytes, segment);
    }

    /// How many records it puts and deletes.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Its length in the log.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes it empty, and keeps its room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.near = Near::default();
    }

    /// How many bytes it holds before it has to grow.
    pub(crate) fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back room beyond this much.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.bytes.shrink_to(bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Batches lie side by side in a frame: each begins anew.
    fn open(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.push(BATCH);
        }
    }

    fn start(&mut self, code: u8, kind: Kind, id: u64) {
        self.open();
        self.records += 1;
        self.bytes.push(code | kind.0 << 3);
        self.distance(self.near.id, id);
        self.near.id = id;
    }

    fn distance(&mut self, from: u64, to: u64) {
        debug_assert!(to != 0, "no record has this identifier");
        let distance = to.wrapping_sub(from).cast_signed();
        varint(&mut self.bytes, (distance << 1 ^ distance >> 63).cast_unsigned());
    }

    fn bytes_of_record(&mut self, bytes: &[u8]) {
        varint(&mut self.bytes, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// One operation. A range is where the record's bytes lie within the frame's operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Delete { id: u64 },
    Put(Put),
    Low { segment: u64 },
}

/// A record that is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) family: Family,
    pub(crate) bytes: Range<usize>,
}

/// How long a record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Until it is deleted.
    Single,
    /// Until it is deleted, and this body at least as long.
    Child(u64),
    /// While it has a child.
    Body,
}

/// The operations of a frame, whose checksum held: what cannot be read was written by a later version, or by a fault.
pub(crate) struct Ops<'a> {
    bytes: &'a [u8],
    at: usize,
    near: Near,
}

/// An operation that this version cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownOp {
    pub(crate) at: usize,
}

impl<'a> Ops<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            near: Near::default(),
        }
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline]
    fn near(&mut self, from: u64) -> Option<u64> {
        let zigzag = self.varint()?;
        let distance = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        Some(from.wrapping_add(distance)).filter(|&id| id != 0)
    }

    #[inline]
    fn op(&mut self) -> Option<Op> {
        let mut byte = *self.bytes.get(self.at)?;
        self.at += 1;
        while byte == BATCH {
            self.near = Near::default();
            byte = *self.bytes.get(self.at)?;
            self.at += 1;
        }
        if byte == LOW {
            return Some(Op::Low {
                segment: self.varint()?,
            });
        }
        let (code, kind) = (byte & 7, Kind(byte >> 3));
        let id = self.near(self.near.id)?;
        self.near.id = id;
        let family = match code {
            DELETE if kind.0 == 0 => return Some(Op::Delete { id }),
            PUT => Family::Single,
            CHILD => {
                let parent = self.near(self.near.of_parent())?;
                self.near.parent = parent;
                Family::Child(parent)
            }
            BODY => {
                self.near.parent = id;
                Family::Body
            }
            _ => return None,
        };
        let length = usize::try_from(self.varint()?).ok()?;
        let bytes = self.at..self.at.checked_add(length).filter(|&end| end <= self.bytes.len())?;
        self.at = bytes.end;
        Some(Op::Put(Put {
            kind,
            id,
            family,
            bytes,
        }))
    }
}

impl Iterator for Ops<'_> {
    type Item = Result<Op, UnknownOp>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let at = self.at;
        let op = self.op().ok_or(UnknownOp { at });
        if op.is_err() {
            self.at = self.bytes.len();
        }
        Some(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Op> {
        Ops::new(bytes).map(Result::unwrap).collect()
    }

    /// Operations are read as they were written, wherever their batch lies.
    #[test]
    fn operations_are_read_as_they_were_written() {
        let kind = Kind::new(31);
        let mut batch = Batch::default();
        batch.body(kind, u64::MAX, b"body");
        batch.child(Kind::new(2), 1, u64::MAX, b"");
        batch.child(Kind::new(2), 1 << 48, 2, b"x");
        batch.put(Kind::new(0), 5, &[0; 300]);
        batch.delete(1 << 63);
        batch.low(3);
        assert_eq!(batch.records(), 5);
        let twice = [batch.bytes(), batch.bytes()].concat();
        let ops = read(&twice);
        assert_eq!(ops.len(), 12);
        let Op::Put(body) = &ops[6] else { panic!("{ops:?}") };
        assert_eq!((body.kind, body.id, body.family), (kind, u64::MAX, Family::Body));
        assert_eq!(&twice[body.bytes.clone()], b"body");
        let Op::Put(child) = &ops[8] else { panic!("{ops:?}") };
        assert_eq!((child.id, child.family), (1 << 48, Family::Child(2)));
        assert_eq!(ops[10], Op::Delete { id: 1 << 63 });
        assert_eq!(ops[11], Op::Low { segment: 3 });
    }

    /// A record that shares a body costs at most twenty bytes of log, whatever the identifiers' upper bits are, if its
    /// own bytes are sixteen.
    #[test]
    fn a_child_of_a_shared_body_costs_four_bytes() {
        let mut batch = Batch::default();
        let base = 7 << 48 | 123_456_789;
        batch.body(Kind::new(1), base, &[1; 100]);
        let before = batch.len();
        for n in 1..=10_000 {
            batch.child(Kind::new(2), base + n, base, &[2; 16]);
        }
        assert_eq!(batch.len() - before, 10_000 * 20);
    }

    /// What is cut or unknown is an error, never a panic and never another operation.
    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut batch = Batch::default();
        batch.child(Kind::new(2), 300, 200, b"abc");
        for length in 2..batch.len() {
            assert!(Ops::new(&batch.bytes()[..length]).any(|op| op.is_err()), "{length}");
        }
        for bytes in [
            &[6][..],
            &[7],
            &[8],
            &[0, 0],
            &[0, 0x80],
            &[1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert!(Ops::new(bytes).any(|op| op.is_err()), "{bytes:?}");
        }
    }
}
