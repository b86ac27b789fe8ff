//! The broker without its transport: engines, clients and an oracle in one thread, from one seed. Never shipped.
//!
//! | file | what it is |
//! |---|---|
//! | [`world`] | engines, mailboxes, connections, the clock: what can happen next, and one of it happening |
//! | [`client`] | a correct client with a memory of its own |
//! | [`oracle`] | what is owed and what is allowed: a naive broker that never predicts more than the standard does |
//! | `checks` | what must hold of each packet that passes |
//! | [`story`] | a sequence of operations, and how it is told |
//! | [`fault`] | what is broken on purpose, to see that the checks bite |
//!
//! ```
//! use sol_codec::ProtocolVersion;
//! use sol_engine::EngineConfig;
//! use sol_sim::world::{ConnectPlan, PublishPlan, Setup, World};
//!
//! let clients = vec![ProtocolVersion::V5, ProtocolVersion::V311];
//! let mut world = World::new(Setup { seed: 1, config: EngineConfig::default(), clients, fault: None });
//! world.connect(0, &ConnectPlan::default());
//! world.connect(1, &ConnectPlan::default());
//! world.rest()?;
//! world.subscribe(0, &[("a/#".into(), Default::default())], None);
//! world.rest()?;
//! world.publish(1, &PublishPlan { topic: "a/b".into(), ..PublishPlan::default() });
//! world.recover()?;
//! world.end()?;
//! # Ok::<(), sol_sim::Violation>(())
//! ```
#![forbid(unsafe_code)]

mod checks;
pub mod client;
pub mod fault;
pub mod oracle;
pub mod packet;
mod rng;
pub mod story;
mod violation;
mod wire;
pub mod world;

pub use rng::Rng;
pub use violation::{Verdict, Violation};
