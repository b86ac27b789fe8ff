//! A file for each thing that can come in; nothing else.

mod ack;
mod agree;
mod auth;
mod connect;
mod disconnect;
mod expired;
mod flow;
mod parked;
pub(crate) mod publish;
mod shard;
mod subscribe;
mod unsubscribe;
mod unwritten;
