//! Criterion benchmarks and the instruction-counted trace.
#![forbid(unsafe_code)]

pub mod packets;
pub mod peers;
pub mod routing;
pub mod trace;
