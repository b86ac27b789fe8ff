//! The engine as its caller sees it, in nodes of one, two and three shards. The conformance tests beside this suite go
//! by the specification's statements; here is what lies beyond: bounds, restarts, rights, and what happens in between.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod acl;
mod bounds;
mod corners;
mod grants;
mod hostile;
mod journal;
mod limits;
mod memory;
mod no_room;
mod owners;
mod queues;
mod restart;
mod rights;
mod shards;
mod sharing;
mod slow;
mod support;
mod terms;
mod transactions;
