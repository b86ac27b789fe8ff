//! `sol store export` and `salvage`: every live record as a line.
//!
//! A message is followed by what refers to it, so that whoever reads the lines need not keep messages for long.

use std::collections::HashSet;
use std::path::Path;

use sol_engine::{PayloadError, Record, RecordId};
use sol_journal::{Disk, RecordKey, RecordRef, Snapshot};
use sol_transport::About;

use super::output::Output;
use super::{DATA, lines, place, seeds};
use crate::serve::Failure;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) records: u64,
    /// Records of Sessions that are not there. A crash may leave some; they are left out.
    pub(super) orphans: u64,
    /// Records that could not be made out, in words.
    pub(super) unreadable: Vec<String>,
}

/// A record that refers to a message, kept until the message is written.
#[derive(Clone, Copy, Debug)]
struct Child {
    parent: u64,
    id: u64,
    kind: u8,
    begin: usize,
    end: usize,
}

/// What has to be known before the first line.
#[derive(Debug, Default)]
struct Context {
    about: Option<About>,
    sessions: HashSet<RecordId>,
    children: Vec<Child>,
    bytes: Vec<u8>,
}

/// Writes all records. With `is_tolerant` what cannot be made out is passed over, and told in the end.
///
/// # Errors
/// A record cannot be made out, or a file cannot be read or written.
pub(super) fn write<D: Disk>(
    place: &Path,
    snapshot: &Snapshot<D>,
    output: &mut Output,
    is_tolerant: bool,
) -> Result<Written, Failure> {
    let mut context = Context::default();
    let mut first_fault = None;
    visit(place, snapshot, |record| {
        let result = context.look_at(&record);
        if let Err(error) = result {
            first_fault.get_or_insert((record.id, error));
        }
    })?;
    if let Some((id, error)) = first_fault
        && !is_tolerant
    {
        return Err(unusable(place, id, error));
    }
    context
        .children
        .sort_unstable_by_key(|child| (child.parent, order(child.id)));
    // A salvaged journal may have lost what it said of itself: without its seeds only No Local forgets whose a message is.
    let about = match context.about.take() {
        Some(about) => about,
        None => About {
            seeds: seeds()?,
            listeners: Vec::new(),
        },
    };
    output.line(&lines::head(&about))?;
    let mut writer = Writer {
        place,
        about,
        context,
        output,
        is_tolerant,
        written: Written::default(),
        line: String::new(),
    };
    let mut result = Ok(());
    visit(place, snapshot, |record| {
        if result.is_ok() {
            result = writer.record(&record);
        }
    })?;
    result.map(|()| writer.written)
}

fn visit<D: Disk>(place: &Path, snapshot: &Snapshot<D>, each: impl FnMut(RecordRef<'_>)) -> Result<(), Failure> {
    let read = snapshot.for_each(|RecordKey { id, .. }| order(id), each);
    read.map_err(|error| place::refuse(place, &error))
}

/// As the broker restores them.
const fn order(id: u64) -> u64 {
    id & RecordId::COUNT
}

fn unusable(place: &Path, id: u64, error: PayloadError) -> Failure {
    Failure {
        code: DATA,
        text: format!(
            "record {id:#x} in {} cannot be used: {error}; `sol store salvage {} --out FILE` saves the others",
            place.display(),
            place.display()
        ),
    }
}

impl Context {
    fn look_at(&mut self, record: &RecordRef<'_>) -> Result<(), PayloadError> {
        if record.kind == About::KIND {
            self.about = Some(About::decode(record.bytes)?);
        } else if let Some(parent) = record.parent {
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(record.bytes);
            self.children.push(Child {
                parent,
                id: record.id,
                kind: record.kind.number(),
                begin,
                end: self.bytes.len(),
            });
        } else if record.kind.number() == Record::SESSION {
            Record::decode(RecordId(record.id), Record::SESSION, None, record.bytes)?;
            self.sessions.insert(RecordId(record.id));
        }
        Ok(())
    }
}

struct Writer<'a> {
    place: &'a Path,
    about: About,
    context: Context,
    output: &'a mut Output,
    is_tolerant: bool,
    written: Written,
    line: String,
}

impl Writer<'_> {
    fn record(&mut self, record: &RecordRef<'_>) -> Result<(), Failure> {
        // What refers to a message is written behind it.
        if record.kind == About::KIND || record.parent.is_some() {
            return Ok(());
        }
        let is_there = self.one(record.id, record.kind.number(), None, record.bytes)?;
        if !record.is_body {
            return Ok(());
        }
        let children = &self.context.children;
        let begin = children.partition_point(|child| child.parent < record.id);
        let end = children.partition_point(|child| child.parent <= record.id);
        for at in begin..end {
            let Some(&child) = self.context.children.get(at) else {
                continue;
            };
            if !is_there {
                self.written.orphans += 1;
                continue;
            }
            let bytes = std::mem::take(&mut self.context.bytes);
            let payload = bytes.get(child.begin..child.end).unwrap_or_default();
            let result = self.one(child.id, child.kind, Some(RecordId(record.id)), payload);
            self.context.bytes = bytes;
            result?;
        }
        Ok(())
    }

    /// Says whether it is written.
    fn one(&mut self, id: u64, kind: u8, parent: Option<RecordId>, bytes: &[u8]) -> Result<bool, Failure> {
        let record = match Record::decode(RecordId(id), kind, parent, bytes) {
            Ok(record) => record,
            Err(error) if self.is_tolerant => {
                let text = format!("record {id:#x} of kind {kind} cannot be made out: {error}");
                self.written.unreadable.push(text);
                return Ok(false);
            }
            Err(error) => return Err(unusable(self.place, id, error)),
        };
        if lines::session_of(&record).is_some_and(|session| !self.context.sessions.contains(&session)) {
            self.written.orphans += 1;
            return Ok(false);
        }
        self.line.clear();
        lines::write(&record, &self.about, &mut self.line);
        self.output.line(&self.line)?;
        self.written.records += 1;
        Ok(true)
    }
}
