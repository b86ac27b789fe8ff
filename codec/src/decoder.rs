//! Decoding for whoever gets many packets in a row: the Topic Name that comes again is not checked again.

use alloc::string::String;

use crate::decode::{Frame, decode_body, frame};
use crate::primitive::{binary, topic_name};
use crate::{DecodeError, DecodeLimits, Decoded, PacketType, ProtocolVersion, TopicName};

/// Decodes like [`decode`](crate::decode()), and remembers the latest Topic Name.
///
/// Publishers send the same topic over and over, and checking one (well-formed UTF-8, no wildcard, not too deep) is the
/// largest part of decoding a small PUBLISH. A topic with the same bytes as the last one is known to be good.
///
/// ```
/// use sol_codec::{DecodeLimits, Decoded, Decoder, Packet, ProtocolVersion};
///
/// let mut decoder = Decoder::default();
/// for _ in 0..2 {
///     let decoded = decoder.decode(b"\x30\x05\x00\x03a/b", ProtocolVersion::V311, &DecodeLimits::default());
///     let Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) = decoded else { panic!() };
///     assert_eq!(publish.topic.unwrap().as_str(), "a/b");
/// }
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    topic: String,
    /// The limit that the topic is known to keep to.
    topic_levels: u16,
}

/// A topic longer than this is not worth the copy.
const REMEMBERED_BYTES_MAX: usize = 256;

impl Decoder {
    /// As [`decode`](crate::decode()); the packet borrows from the decoder too.
    ///
    /// # Errors
    /// As [`decode`](crate::decode()), byte for byte.
    #[inline]
    pub fn decode<'a>(
        &'a mut self,
        bytes: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Decoded<'a>, DecodeError> {
        match frame(bytes, version, limits)? {
            Frame::Whole(found, body, context) => {
                let is_publish = context.header.packet_type == PacketType::Publish;
                let known = if is_publish { self.know(body, limits) } else { None };
                decode_body(found, body, context, known)
            }
            Frame::NeedMore(total) => Ok(Decoded::NeedMore(total)),
        }
    }

    /// The Topic Name at the front of a PUBLISH's body, if it is the last one or a good one.
    #[inline]
    fn know(&mut self, body: &[u8], limits: &DecodeLimits) -> Option<TopicName<'_>> {
        let (_, bytes) = binary(body).ok()?;
        if bytes.is_empty() {
            return None;
        }
        let is_last = bytes == self.topic.as_bytes() && self.topic_levels == limits.topic_levels;
        if !is_last && !self.learn(body, limits) {
            return None;
        }
        Some(TopicName::assume_valid(&self.topic))
    }

    /// Checks a new Topic Name and remembers it. `false`: it is too long for that, or not one.
    fn learn(&mut self, body: &[u8], limits: &DecodeLimits) -> bool {
        let Ok((_, Some(topic))) = topic_name(body, limits) else {
            return false;
        };
        if topic.as_str().len() > REMEMBERED_BYTES_MAX {
            return false;
        }
        self.topic.clear();
        self.topic.push_str(topic.as_str());
        self.topic_levels = limits.topic_levels;
        true
    }
}
