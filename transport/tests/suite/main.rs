//! Shards, doors and clocks over real sockets, on both backends: one program, because all of the shard loop is built anew for
//! each that has it. What counts descriptors or memory of its process, or plants faults, is a program of its own beside it.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod authority;
mod bytes;
mod exchange;
mod fairness;
mod files;
mod ladder;
mod limits;
mod pressure;
mod proxy;
mod races;
mod rates;
mod slow_disk;
mod tls;
