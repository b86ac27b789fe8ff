//! The journal over a disk that fails, fills up and loses power.

#[path = "../support/mod.rs"]
mod support;

mod basics;
mod power;
