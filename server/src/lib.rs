//! The parts of the `sol` binary: command line, configuration, logs, passwords, signals, metrics.
//!
//! This crate is the only one that reads files, the environment or configuration. It knows nothing of packets or
//! routing; the engine and the transport know nothing of it.
#![forbid(unsafe_code)]

pub mod auth;
pub mod banner;
pub mod config;
pub mod log;
pub mod metrics;
pub mod passwd;
pub mod password_file;
pub mod signals;
pub mod stats;
pub mod sys_topics;
