//! Criterion benchmarks and the instruction-counted trace.
#![forbid(unsafe_code)]

pub mod doors;
pub mod packets;
pub mod peers;
pub mod process;
pub mod routing;
pub mod trace;
