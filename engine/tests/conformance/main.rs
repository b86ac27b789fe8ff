//! What the specification demands of a server, statement by statement, in nodes of one, two and three engines.
//!
//! A file for each chapter. A line `Proves 5.0: MQTT-3.3.1-5, MQTT-3.3.1-7; 3.1.1: MQTT-3.3.1-5.` above a test is read by
//! `tests/conformance/report`, which makes CONFORMANCE.md of it: the test fails if one of these statements is broken, and
//! `tests/conformance/bite` breaks some of them to see that it does.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod c1_2_representation;
mod c3_10_unsubscribe;
mod c3_14_disconnect;
mod c3_15_auth;
mod c3_1_connect;
mod c3_1_malformed;
mod c3_1_properties;
mod c3_1_will;
mod c3_2_connack;
mod c3_3_properties;
mod c3_3_publish;
mod c3_3_retained;
mod c3_4_acknowledgements;
mod c3_8_subscribe;
mod c4_12_auth;
mod c4_13_errors;
mod c4_1_sessions;
mod c4_3_qos;
mod c4_6_order;
mod c4_7_topics;
mod c4_8_shared;
mod c4_9_flow_control;
mod c7_conformance;
#[path = "../suite/support/mod.rs"]
mod support;
