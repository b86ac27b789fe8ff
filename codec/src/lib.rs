//! The bytes of MQTT 3.1, 3.1.1 and 5.0 as typed, borrowed packets.
#![no_std]
#![forbid(unsafe_code)]
