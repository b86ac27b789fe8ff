//! The one module of the transport whose steps of several threads are told apart by memory order alone, built over loom's
//! atomics instead of the standard library's. It is taken in by its path and not as a dependency, so that a build for
//! loom, which shares nothing with any other, is a matter of seconds. Never shipped.

#![forbid(unsafe_code)]

#[cfg(all(test, loom))]
#[path = "../../src/mailbox/sleeping.rs"]
mod sleeping;
