//! The fifteen Control Packets (section 3), one type each.

pub(crate) mod ack;
pub(crate) mod auth;
pub(crate) mod connack;
pub(crate) mod connect;
pub(crate) mod disconnect;
pub(crate) mod ping;
pub(crate) mod publish;
pub(crate) mod publish_head;
pub(crate) mod suback;
pub(crate) mod subscribe;
pub(crate) mod unsuback;
pub(crate) mod unsubscribe;

use bytes::BufMut;

use crate::ProtocolVersion;
use crate::packet::ack::{PubAck, PubComp, PubRec, PubRel};
use crate::packet::auth::Auth;
use crate::packet::connack::ConnAck;
use crate::packet::connect::Connect;
use crate::packet::disconnect::Disconnect;
use crate::packet::ping::{PingReq, PingResp};
use crate::packet::publish::Publish;
use crate::packet::suback::SubAck;
use crate::packet::subscribe::Subscribe;
use crate::packet::unsuback::UnsubAck;
use crate::packet::unsubscribe::Unsubscribe;
use crate::property::Holder;

/// The type of a Control Packet, by its value on the wire (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// CONNECT: a client asks for a Session.
    Connect = 1,
    /// CONNACK: the server's answer.
    ConnAck = 2,
    /// PUBLISH: an Application Message, either way.
    Publish = 3,
    /// PUBACK: the end of a QoS 1 delivery.
    PubAck = 4,
    /// PUBREC: a QoS 2 delivery has arrived.
    PubRec = 5,
    /// PUBREL: the sender lets go of its copy.
    PubRel = 6,
    /// PUBCOMP: the end of a QoS 2 delivery.
    PubComp = 7,
    /// SUBSCRIBE: a client wants messages.
    Subscribe = 8,
    /// SUBACK: the server's answer.
    SubAck = 9,
    /// UNSUBSCRIBE: a client wants no more of them.
    Unsubscribe = 10,
    /// UNSUBACK: the server's answer.
    UnsubAck = 11,
    /// PINGREQ: a client is alive.
    PingReq = 12,
    /// PINGRESP: so is the server.
    PingResp = 13,
    /// DISCONNECT: the last packet, either way on 5.0.
    Disconnect = 14,
    /// AUTH: a step of enhanced authentication, 5.0 only.
    Auth = 15,
}

impl PacketType {
    /// The type that the first byte of a packet names; `None` for the reserved value 0.
    #[inline]
    #[must_use]
    pub const fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type whose flags are fixed.
    pub(crate) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.fixed_flags()
    }

    /// The flags that section 2.1.3 fixes; PUBLISH chooses its own.
    pub(crate) const fn fixed_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }
}

/// Some of the packet types and the Will, as bits.
#[derive(Clone, Copy)]
pub(crate) struct PacketSet(u16);

impl PacketSet {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn with(self, holder: Holder) -> Self {
        Self(self.0 | Self::bit(holder))
    }

    #[inline]
    pub(crate) const fn contains(self, holder: Holder) -> bool {
        self.0 & Self::bit(holder) != 0
    }

    /// The reserved packet type 0 leaves its bit to the Will.
    #[inline]
    const fn bit(holder: Holder) -> u16 {
        match holder {
            Holder::Packet(packet) => 1 << packet as u8,
            Holder::Will => 1,
        }
    }
}

/// Any Control Packet; it borrows from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented on its type")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(PubAck<'a>),
    PubRec(PubRec<'a>),
    PubRel(PubRel<'a>),
    PubComp(PubComp<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// Calls a method of whichever packet it is.
macro_rules! dispatch {
    ($packet:expr, $inner:ident => $call:expr) => {
        match $packet {
            Packet::Connect($inner) => $call,
            Packet::ConnAck($inner) => $call,
            Packet::Publish($inner) => $call,
            Packet::PubAck($inner) => $call,
            Packet::PubRec($inner) => $call,
            Packet::PubRel($inner) => $call,
            Packet::PubComp($inner) => $call,
            Packet::Subscribe($inner) => $call,
            Packet::SubAck($inner) => $call,
            Packet::Unsubscribe($inner) => $call,
            Packet::UnsubAck($inner) => $call,
            Packet::PingReq => {
                let $inner = &PingReq;
                $call
            }
            Packet::PingResp => {
                let $inner = &PingResp;
                $call
            }
            Packet::Disconnect($inner) => $call,
            Packet::Auth($inner) => $call,
        }
    };
}

impl Packet<'_> {
    /// Which packet it is.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// How many bytes [`encode`](Self::encode) appends: the packet's size as Maximum Packet Size counts it.
    #[must_use]
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        dispatch!(self, packet => packet.encoded_len(version))
    }

    /// Appends the packet in the form of `version`; what that version cannot say is left out. A CONNECT has a version
    /// of its own and takes that.
    ///
    /// # Panics
    /// If the packet would be longer than the 268,435,455 bytes that a Fixed Header can announce, or `out` is a slice
    /// that is too short.
    pub fn encode(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        dispatch!(self, packet => packet.encode(version, out));
    }
}
