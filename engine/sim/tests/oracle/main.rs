//! The engine against the oracle: whatever clients do, on one shard and on two, what is owed comes and nothing else; and
//! whatever is broken on purpose is found.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bites;
mod holds;
mod strategy;
