//! Durable records in an append-only log with group commit.
//!
//! A record is a kind, an identifier, the identifier of a parent, and bytes; what they mean is its owner's business. This
//! crate keeps what was put last for each identifier until it is deleted, and a *body* for as long as a record names it as
//! its parent. It tells the owner when that is on stable storage. It knows nothing of MQTT, sockets or time.
//!
//! ```
//! use sol_journal::{Batch, Kind, Options, Store, model::ModelDisk};
//!
//! let disk = ModelDisk::new(1);
//! let opened = Store::open(disk.clone(), &Options::default(), 0).unwrap();
//! let mut store = opened.store;
//! let mut batch = Batch::default();
//! batch.body(Kind::new(1), 10, b"shared by its children");
//! batch.child(Kind::new(2), 11, 10, b"a child");
//! store.add(&batch);
//! store.commit(0).unwrap();
//! store.sync().unwrap();
//! drop(store);
//!
//! let opened = Store::open(disk, &Options::default(), 0).unwrap();
//! let mut seen = Vec::new();
//! opened.store.for_each(|record| record.id, |record| seen.push((record.id, record.parent))).unwrap();
//! assert_eq!(seen, [(10, None), (11, Some(10))]);
//! ```
//!
//! [`Store`] is the log without a thread: tests and simulations call it directly. [`Writer`] runs one on a thread of its
//! own, takes batches through a queue that never blocks, and answers their tickets; [`Desk`] is what that thread does, a step
//! at a time. [`Disk`] is all that any of them sees of an operating system.

#![forbid(unsafe_code)]
// Nothing in here may panic on what lies on a disk: the compiler refuses what could.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod disk;
mod error;
mod format;
mod hash;
mod index;
#[cfg(feature = "model")]
pub mod model;
mod ops;
mod os;
mod read;
mod snapshot;
mod store;
mod writer;

pub use disk::{Disk, DiskFile, LockError};
pub use error::{CommitError, Damage, Failure, OpenError};
pub use format::FORMAT;
pub use ops::{Batch, Kind};
pub use os::{OsDisk, OsFile};
pub use read::{Hole, OnDamage, Progress, Report, Tail};
pub use snapshot::{KindStats, Snapshot, Stats, backup};
pub use store::{Counts, Opened, Options, Pressure, RecordKey, RecordRef, Sizes, Store, SyncJob};
pub use writer::{
    BATCH_SIZES, Clock, Desk, Event, Handle, Load, Mode, Numbers, Part, Sink, Submission, Writer, WriterOptions,
};
