//! What a fan-out shares: the bytes of a PUBLISH ahead of its payload, encoded once.

use bytes::BufMut;

use crate::encode::{Body, Buffer, Sink};
use crate::packet::publish::{Publish, first_byte};
use crate::{PacketId, ProtocolVersion, QoS, var_int};

/// Knows where the parts are that differ between the receivers of one message.
///
/// A head is encoded once for each protocol version, and once for QoS 0 and once for the levels above it, because
/// only those have a Packet Identifier. A receiver with Subscription Identifiers or a Topic Alias of its own gets a
/// whole [`Publish`] instead.
///
/// ```
/// use sol_codec::{PacketId, ProtocolVersion, Publish, PublishHead, QoS, TopicName};
///
/// let publish = Publish {
///     dup: false,
///     qos: QoS::AtLeastOnce,
///     retain: false,
///     topic: Some(TopicName::new("a/b").unwrap()),
///     packet_id: PacketId::new(1), // every receiver gets its own
///     properties: Default::default(),
///     payload: b"21.5",
/// };
/// let mut shared = Vec::new();
/// let head = PublishHead::encode(&publish, ProtocolVersion::V311, &mut shared);
/// shared.extend_from_slice(publish.payload);
///
/// let mut out = Vec::new();
/// head.copy(&shared, false, QoS::AtLeastOnce, false, PacketId::new(7), &mut out);
/// assert_eq!(out, b"\x32\x0b\x00\x03a/b\x00\x0721.5");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishHead {
    /// Bytes ahead of the payload.
    len: u32,
    /// Where the Packet Identifier stands; 0 for none.
    packet_id_at: u32,
}

impl PublishHead {
    /// Appends everything of `publish` ahead of its payload; the Remaining Length counts the payload.
    ///
    /// # Panics
    /// As [`Publish::encode`].
    pub fn encode(publish: &Publish<'_>, version: ProtocolVersion, out: &mut impl BufMut) -> Self {
        let remaining = publish.remaining_length(version);
        let mut out = Buffer(out);
        out.put_u8(publish.first_byte());
        out.put_var_int(remaining);
        publish.write_head(version, &mut out);
        let fixed = var_int::len(remaining).saturating_add(1);
        let topic_len = publish.topic.map_or(0, |topic| topic.as_str().len());
        let packet_id_at = if publish.qos > QoS::AtMostOnce {
            fixed.saturating_add(2).saturating_add(topic_len)
        } else {
            0
        };
        // Both are below the 268,435,460 bytes of the largest packet, which `put_var_int` has asserted.
        Self {
            len: fixed.saturating_add(remaining).saturating_sub(publish.payload.len()) as u32,
            packet_id_at: packet_id_at as u32,
        }
    }

    /// How many bytes stand ahead of the payload.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Never: a head has a Fixed Header at least.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether there is a place for a Packet Identifier: whether it was encoded above QoS 0.
    #[inline]
    #[must_use]
    pub const fn has_packet_id(&self) -> bool {
        self.packet_id_at != 0
    }

    /// Appends `encoded`, which begins with what [`encode`](Self::encode) appended and may hold the payload too, with
    /// these flags and this Packet Identifier.
    ///
    /// # Panics
    /// If the head was encoded at QoS 0 and `qos` is above it or the other way round, if a Packet Identifier is
    /// missing or too much, or if `encoded` is shorter than the head.
    #[inline]
    pub fn copy(
        &self,
        encoded: &[u8],
        dup: bool,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
        out: &mut impl BufMut,
    ) {
        self.assert_fits(encoded, qos, packet_id);
        out.put_u8(first_byte(dup, qos, retain));
        let Some(packet_id) = packet_id else {
            out.put_slice(encoded.get(1..).unwrap_or_default());
            return;
        };
        let at = self.packet_id_at as usize;
        out.put_slice(encoded.get(1..at).unwrap_or_default());
        out.put_u16(packet_id.get());
        out.put_slice(encoded.get(at.saturating_add(2)..).unwrap_or_default());
    }

    /// As [`copy`](Self::copy), in place.
    ///
    /// # Panics
    /// As [`copy`](Self::copy).
    #[inline]
    pub fn patch(&self, encoded: &mut [u8], dup: bool, qos: QoS, retain: bool, packet_id: Option<PacketId>) {
        self.assert_fits(encoded, qos, packet_id);
        if let Some(first) = encoded.first_mut() {
            *first = first_byte(dup, qos, retain);
        }
        let place = encoded.get_mut(self.packet_id_at as usize..);
        if let Some(packet_id) = packet_id
            && let Some(place) = place.and_then(<[u8]>::first_chunk_mut)
        {
            *place = packet_id.get().to_be_bytes();
        }
    }

    #[inline]
    fn assert_fits(&self, encoded: &[u8], qos: QoS, packet_id: Option<PacketId>) {
        assert!(
            self.has_packet_id() == (qos > QoS::AtMostOnce),
            "a head is for QoS 0 or for the levels above it"
        );
        assert!(
            self.has_packet_id() == packet_id.is_some(),
            "a Packet Identifier stands exactly above QoS 0"
        );
        assert!(encoded.len() >= self.len(), "the bytes are not those of the head");
    }
}
