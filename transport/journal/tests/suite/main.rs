//! The journal over a disk that fails, fills up and loses power.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

#[path = "../support/mod.rs"]
mod support;

mod basics;
mod damage;
mod faults;
mod golden;
mod power;
mod tools;
mod writer;
