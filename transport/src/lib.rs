//! Sockets, shards and the clock under an MQTT engine.
//!
//! This crate knows bytes and connections and nothing of topics: it reads frames, hands packets to a
//! [`sol_engine::Engine`], and does what the engine's [`sol_engine::Effects`] say. It reads no file and no environment;
//! whoever starts it brings the configuration.
//!
//! Each shard is one thread with one engine, and nothing on the path of a message is shared by two of them:
//!
//! ```text
//! wait ──► mailbox ──► sockets ──► timers ──► forwards ──► transmits ──► closes ──► wait
//! ```
//!
//! ```no_run
//! use sol_engine::EngineConfig;
//! use sol_transport::{Clock, ListenAddr, ListenerConfig, Shards, TransportConfig};
//!
//! let address = ListenAddr::Tcp("127.0.0.1:1883".parse().unwrap());
//! let config = TransportConfig { listeners: vec![ListenerConfig::new(address)], ..TransportConfig::default() };
//! let shards = Shards::start(&config, &EngineConfig::default(), [1, 2, 3, 4], Clock::start(), |_| ()).unwrap();
//! let handle = shards.handle();
//! std::thread::spawn(move || handle.stop());
//! shards.join();
//! ```
//!
//! The important types are [`Shards`], which owns the threads, [`Handle`], through which other threads speak to them,
//! and [`Observer`], which hears what happens.

#![deny(unsafe_code)]
// Nothing in here may panic on what a peer sends: the compiler refuses what could, and an exception says why it is none.
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

mod admission;
mod backend;
#[cfg(feature = "bench-support")]
#[doc(hidden)]
pub mod bench_support;
mod choice;
mod clock;
mod config;
mod conns;
mod counters;
mod download;
mod durable;
mod encode;
mod filter;
mod handle;
mod listener;
mod mailbox;
mod observer;
mod outbox;
mod peer;
mod pin;
mod proxy;
mod rates;
mod shard;
mod shards;
mod tables;
mod tallies;
mod waiting;
#[allow(unreachable_pub, reason = "opened to the fuzz target")]
mod websocket;
mod whole;

pub use admission::{Admission, Limits, ListenerLimits};
pub use choice::{BackendName, Io, UnknownIo};
pub use clock::Clock;
pub use config::TransportConfig;
pub use counters::Counters;
pub use durable::{About, Durable, DurableError, Progress, Watch};
pub use handle::{Handle, ShardAnswer};
pub use listener::{ListenAddr, ListenError, ListenerConfig, NameOf, Protocol, Tls};
pub use observer::{Applicant, AuthReply, Notice, Observer, Source};
pub use peer::PeerAddr;
pub use proxy::{ProxyRules, ProxyVersion};
pub use rates::Rates;
pub use shards::{BoundShards, Exit, Shards, StartError};
pub use sol_journal::Progress as LogProgress;
pub use websocket::{Files, WebSocketRules};
pub use whole::Maxima;
