//! Criterion benchmarks and the instruction-counted trace.
#![forbid(unsafe_code)]

pub mod doors;
pub mod flow;
pub mod packets;
pub mod peers;
pub mod process;
pub mod routing;
pub mod swarm;
pub mod trace;
