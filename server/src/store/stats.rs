//! `sol store stats`: what a journal is made of.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sol_engine::{Belongs, Record, RecordId};
use sol_journal::{Disk, OnDamage, Snapshot};

use super::{IO, place, say};
use crate::config::reason;
use crate::serve::Failure;

/// How many queues are named.
const QUEUES: usize = 10;
/// What a block of a file's size on the disk is, whatever the disk.
const BLOCK: u64 = 512;

/// Names by kind, in the order of [`Record`]'s variants; the first is what the journal says of itself.
const NAMES: [&str; 7] = [
    "about itself",
    "Sessions",
    "Subscriptions",
    "messages",
    "retained",
    "references",
    "inbound identifiers",
];

/// What waits for one client.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    messages: u64,
    bytes: u64,
}

/// Prints it.
///
/// # Errors
/// There is no journal, or it cannot be used.
pub(super) fn stats(directory: &Path) -> Result<(), Failure> {
    let (place, snapshot) = place::read(directory, OnDamage::Refuse)?;
    let stats = snapshot.stats();
    let mut text = format!("{:<20} {:>12} {:>16}", "", "records", "bytes");
    for (number, name) in NAMES.iter().enumerate() {
        let of_kind = stats
            .kinds
            .iter()
            .find(|kind| usize::from(kind.kind.number()) == number);
        let (records, bytes) = of_kind.map_or((0, 0), |kind| (kind.records, kind.bytes));
        let _ = write!(text, "\n{name:<20} {records:>12} {bytes:>16}");
    }
    let _ = write!(
        text,
        "\n\nlive         {:>16} bytes, with what the log needs beside them",
        stats.live_bytes
    );
    let _ = write!(text, "\nlog          {:>16} bytes", stats.segment_bytes);
    let _ = write!(
        text,
        "\non the disk  {:>16} bytes, what is kept in reserve included",
        disk_use(&place)?
    );
    say(&text);
    let queues = queues(&snapshot).map_err(|error| place::refuse(&place, &error))?;
    if !queues.is_empty() {
        say(&format!("\n{:>12} {:>16}  the longest queues", "messages", "bytes"));
    }
    for (client_id, queue) in queues {
        say(&format!("{:>12} {:>16}  {client_id:?}", queue.messages, queue.bytes));
    }
    Ok(())
}

fn disk_use(place: &Path) -> Result<u64, Failure> {
    let sum = || -> std::io::Result<u64> {
        let mut blocks = 0;
        for entry in std::fs::read_dir(place)? {
            // A segment may be removed meanwhile.
            blocks += entry?.metadata().map_or(0, |file| file.blocks());
        }
        Ok(blocks * BLOCK)
    };
    sum().map_err(|error| Failure {
        code: IO,
        text: format!("cannot read {}: {}", place.display(), reason(&error)),
    })
}

/// The clients with the most messages waiting.
fn queues<D: Disk>(snapshot: &Snapshot<D>) -> Result<Vec<(String, Queue)>, sol_journal::OpenError> {
    let mut clients: HashMap<u64, String> = HashMap::new();
    let mut lengths: HashMap<u64, u64> = HashMap::new();
    let mut queues: HashMap<u64, Queue> = HashMap::new();
    snapshot.for_each(
        |key| key.id,
        |record| match Belongs::of(record.kind.number(), record.bytes) {
            Ok(Belongs::ToClient(client_id)) => {
                clients.insert(record.id, client_id.to_owned());
            }
            Ok(Belongs::ToTopic(_)) => {
                let parent = record.parent.map(RecordId);
                let body = Record::decode(RecordId(record.id), record.kind.number(), parent, record.bytes);
                if let Ok(Record::Body(_, message)) = body {
                    lengths.insert(record.id, message.payload().len() as u64);
                }
            }
            Ok(Belongs::ToSession(session)) => {
                if let Some(body) = record.parent {
                    let queue = queues.entry(session.0).or_default();
                    queue.messages += 1;
                    queue.bytes += lengths.get(&body).copied().unwrap_or_default();
                }
            }
            Ok(Belongs::ToBody) | Err(_) => {}
        },
    )?;
    let named = queues
        .into_iter()
        .filter_map(|(session, queue)| Some((clients.remove(&session)?, queue)));
    let mut named: Vec<_> = named.collect();
    named.sort_by(|(a, one), (b, other)| other.messages.cmp(&one.messages).then_with(|| a.cmp(b)));
    named.truncate(QUEUES);
    Ok(named)
}
