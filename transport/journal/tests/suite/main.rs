//! The journal over a disk that fails, fills up and loses power.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

#[path = "../support/mod.rs"]
mod support;

mod basics;
mod damage;
mod faults;
mod full;
mod golden;
mod os;
mod power;
mod salvage;
mod tools;
mod transactions;
mod writer;
