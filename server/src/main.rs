//! The `sol` binary.
#![forbid(unsafe_code)]

fn main() {}
