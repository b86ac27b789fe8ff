//! One shard of an MQTT broker as a pure state machine.
//!
//! There is no socket, clock, thread, file or encoded byte in here: what happens comes in as [`Input`]s, with the time,
//! and what follows from it comes out as [`Effects`]. The caller owns the tray, applies it, and clears it:
//!
//! ```text
//!  sockets ─decode─►  Input ──► Engine::handle ──► Effects ──encode──► sockets
//!  mailbox ───────►   Input ──►       │            forwards ─────────► mailboxes of other shards
//!  journal ───────►   Input ──► Engine::tick       records ──────────► journal
//! ```
//! The important types: [`Engine`], [`Input`], [`Effects`].
//!
//! ```
//! use std::num::NonZeroU32;
//! use std::rc::Rc;
//! use sol_codec::{DecodeLimits, Decoded, ProtocolVersion, decode};
//! use sol_engine::{ConnectionId, Effects, Engine, EngineConfig, Input, ListenerId, Now, Outgoing, ShardId};
//!
//! let mut engine = Engine::new(ShardId(0), Rc::new(EngineConfig::default()), [1, 2, 3, 4]);
//! let mut effects = Effects::default();
//! let (now, connection) = (Now::default(), ConnectionId::new(0, NonZeroU32::MIN));
//! let _ = engine.handle(now, Input::Opened { connection, listener: ListenerId(0) }, &mut effects);
//!
//! let bytes = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
//! let Ok(Decoded::Packet { packet, .. }) = decode(bytes, ProtocolVersion::V311, &DecodeLimits::default()) else { panic!() };
//! let _ = engine.handle(now, Input::Packet(connection, &packet), &mut effects);
//! assert!(matches!(effects.transmits[0].packet, Outgoing::ConnAck(_)));
//! effects.clear();
//! ```
#![no_std]
#![forbid(unsafe_code)]
// Nothing in here may panic on what a peer sends: the compiler refuses what could. Where a table of our own is indexed,
// one accessor says why the index is good. Modules that reckon with lengths refuse unchecked arithmetic, too; what
// elsewhere counts what there is may overflow only by a mistake of ours, and then a contained panic is better.
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

extern crate alloc;
#[cfg(test)]
extern crate std;

mod announcing;
#[cfg(feature = "bench-support")]
#[doc(hidden)]
pub mod bench_support;
mod check;
mod clients;
mod config;
mod connection;
mod effects;
mod engine;
mod enhanced;
mod event;
mod fanout;
mod handle;
mod ids;
mod input;
mod journal;
mod last_route;
mod links;
mod memory;
mod message;
mod mount;
mod packed;
mod placement;
mod rare;
mod record;
mod restore;
#[allow(unreachable_pub, reason = "opened to the benchmarks")]
mod retained;
mod retaining;
mod rights;
mod route;
mod session;
mod shard_message;
mod sharing;
mod stats;
mod subscription;
mod take_back;
mod tallies;
#[cfg(test)]
mod testing;
mod tight;
mod time;
mod timer_wheel;
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "opened to the benchmarks; some of it only tests look at"
)]
mod topic_tree;
mod violation;
mod waiting;

pub use config::{EngineConfig, ListenerRules, ListenerTerms, QueueFull};
pub use effects::{
    AckKind, Answer, AuthData, AuthRequest, Close, ConnAckData, Credentials, Delivery, Effects, Mark, Move, Outgoing,
    Read, Transmit,
};
pub use engine::Engine;
pub use event::{Attempt, Cause, Event};
pub use ids::{ConnectionId, ListenerId, SessionKey, ShardId};
pub use input::{
    AuthOutcome, ChangedUser, Elsewhere, Flow, Grant, Handover, Input, Level, OwnedWill, Query, Ticket, UserChange,
};
pub use journal::{Commit, Part, Transaction};
pub use memory::MemoryLevel;
pub use message::{Message, Origin};
pub use packed::Packed;
pub use placement::Homes;
#[doc(hidden)]
pub use rare::{DropCause, Rare, Unrest};
pub use record::{
    Belongs, Family, PayloadError, Record, RecordId, Reference, ReferenceState, RestoreError, SessionRecord,
    SubscriptionRecord,
};
pub use rights::authors::Author;
pub use rights::rules::{Access, Rule, RuleSet, Rules};
pub use shard_message::{Forward, GroupPick, Interest, ShardMessage};
pub use stats::Stats;
pub use tallies::{TALLIES_MAX, Tally};
pub use time::{Instant, Now, UnixMillis};
pub use violation::Violation;
