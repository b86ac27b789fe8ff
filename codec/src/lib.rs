//! The bytes of MQTT 3.1, 3.1.1 and 5.0 as typed, borrowed packets.
//!
//! This crate is *not* a client or a broker: it knows no Session, no socket and no clock, and judges one packet at a
//! time. It allocates nothing but a [`Decoder`]'s one text, and never panics on input.
//!
//! [`decode`] turns the front of a byte stream into a [`Packet`], [`Packet::encode`] (and the same method on every
//! packet type) turns it back, and a [`DecodeError`] says what is wrong with the bytes, where, and which
//! [`ReasonCode`] answers it.
//!
//! A loop over what a socket has brought so far:
//!
//! ```
//! use sol_codec::{DecodeError, DecodeLimits, Decoded, Packet, ProtocolVersion, decode};
//!
//! /// Handles all whole packets and gives how many bytes they took.
//! fn take(bytes: &[u8], version: ProtocolVersion, mut handle: impl FnMut(Packet<'_>)) -> Result<usize, DecodeError> {
//!     let mut taken = 0;
//!     while let Decoded::Packet { packet, len } = decode(&bytes[taken..], version, &DecodeLimits::default())? {
//!         handle(packet);
//!         taken += len;
//!     }
//!     Ok(taken)
//! }
//!
//! let taken = take(b"\xc0\x00\x30\x05\x00\x01", ProtocolVersion::V311, |packet| assert_eq!(packet, Packet::PingReq));
//! assert_eq!(taken, Ok(2));
//! ```
//!
//! And back again:
//!
//! ```
//! use sol_codec::{Disconnect, ProtocolVersion, ReasonCode};
//!
//! let mut out = Vec::new();
//! Disconnect::new(ReasonCode::ServerShuttingDown).encode(ProtocolVersion::V5, &mut out);
//! assert_eq!(out, [0xe0, 1, 0x8b]);
//! ```
#![no_std]
#![forbid(unsafe_code)]
// Nothing in here may panic on what a peer sends. So that it need not be proven again and again, the compiler refuses
// what could; an exception says beside it why it cannot be reached. A broken contract of the caller is an assertion.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

extern crate alloc;

#[cfg(test)]
extern crate std;

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod decode;
mod decoder;
mod encode;
mod error;
mod fixed_header;
mod ids;
#[doc(hidden)]
pub mod mutants;
mod packet;
mod primitive;
mod property;
mod qos;
mod reason_code;
mod topic;
mod utf8;
mod var_int;
mod version;

pub use decode::{DecodeLimits, Decoded, Direction, decode};
pub use decoder::Decoder;
pub use error::{DecodeError, DecodeErrorKind};
pub use fixed_header::{FixedHeader, peek_fixed_header};
pub use ids::{PacketId, SubscriptionId, TopicAlias};
pub use packet::ack::{AckProperties, PubAck, PubComp, PubRec, PubRel};
pub use packet::auth::{Auth, AuthProperties};
pub use packet::connack::{ConnAck, ConnAckProperties};
pub use packet::connect::{Connect, ConnectProperties, Will, WillProperties};
pub use packet::disconnect::{Disconnect, DisconnectProperties};
pub use packet::ping::{PingReq, PingResp};
pub use packet::publish::{Publish, PublishProperties};
pub use packet::publish_head::PublishHead;
pub use packet::suback::{ReasonCodes, ReasonCodesIter, SubAck};
pub use packet::subscribe::{
    RetainHandling, Subscribe, SubscribeProperties, SubscriptionOptions, SubscriptionRequest, Subscriptions,
    SubscriptionsIter,
};
pub use packet::unsuback::UnsubAck;
pub use packet::unsubscribe::{Filters, FiltersIter, Unsubscribe};
pub use packet::{Packet, PacketType};
pub use property::PropertyId;
pub use property::application::{ApplicationProperties, ApplicationPropertiesBuilder};
pub use property::subscription_ids::{SubscriptionIds, SubscriptionIdsIter};
pub use property::user::{UserProperties, UserPropertiesIter};
pub use qos::QoS;
pub use reason_code::ReasonCode;
pub use topic::{ShareName, TopicError, TopicFilter, TopicName};
pub use version::ProtocolVersion;
