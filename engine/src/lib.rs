//! One shard of an MQTT broker as a pure state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod ids;
mod time;

pub use ids::SessionKey;
pub use time::Instant;
