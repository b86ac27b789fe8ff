//! The engine as its caller sees it, in nodes of one, two and three shards. A file for each chapter of the specification.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bounds;
mod c3_10_unsubscribe;
mod c3_14_disconnect;
mod c3_1_connect;
mod c3_1_will;
mod c3_3_properties;
mod c3_3_publish;
mod c3_3_retained;
mod c3_8_subscribe;
mod c4_3_qos;
mod c4_6_order;
mod c4_7_topics;
mod c4_8_shared;
mod corners;
mod journal;
mod memory;
mod model;
mod queues;
mod restart;
mod rights;
mod shards;
mod slow;
mod support;
