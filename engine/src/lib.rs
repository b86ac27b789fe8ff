//! One shard of an MQTT broker as a pure state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "bench-support")]
#[doc(hidden)]
pub mod bench_support;
mod ids;
#[allow(dead_code, unreachable_pub, reason = "the engine around it comes next")]
mod retained;
#[allow(dead_code, reason = "the engine around it comes next")]
mod tight;
mod time;
#[allow(dead_code, reason = "the engine around it comes next")]
mod timer_wheel;
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the engine around it comes next"
)]
mod topic_tree;

pub use ids::SessionKey;
pub use time::Instant;
