//! The bytes of MQTT 3.1, 3.1.1 and 5.0 as typed, borrowed packets.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod decode;
mod encode;
mod error;
mod fixed_header;
mod ids;
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
