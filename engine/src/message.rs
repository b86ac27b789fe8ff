//! An Application Message that outlives the packet it came in.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::{string::String, vec::Vec};
use core::cell::Cell;
use core::fmt;

use sol_codec::mutants::mutant;
use sol_codec::{ApplicationProperties, QoS};

use crate::rights::authors::AuthorId;
use crate::time::{Now, UnixMillis};

/// Who published a message: a keyed hash of the Client Identifier, for No Local [MQTT-3.8.3-3].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u64);

impl Origin {
    /// The broker itself.
    pub const BROKER: Self = Self(0);
}

/// An Application Message: topic, application properties and payload, with what routing needs beside it.
///
/// A message is filled once and then shared; whoever keeps it for long keeps [`Message::exact`], since a message that
/// is only passing through may live in a recycled, larger buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Text of its own, so that nobody has to check again that it is text.
    topic: String,
    /// Application properties and payload.
    bytes: Vec<u8>,
    properties_len: u32,
    /// The QoS it was published with.
    pub qos: QoS,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// Who published it.
    pub origin: Origin,
    /// When it expires; [`UnixMillis::NEVER`] if it does not.
    pub expires_at: UnixMillis,
    /// The identifier of its BODY record, 0 while it has none.
    pub(crate) body: u64,
    /// Bytes it is charged with, refunded by whoever lets go of it last.
    pub(crate) charged: u32,
    /// Who published it, once it is retained on this shard.
    pub(crate) author: Cell<AuthorId>,
}

// Queues and retained messages are made of these.
const _: () = assert!(size_of::<Message>() <= 88);

impl Message {
    /// An empty message to be filled.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            topic: String::new(),
            bytes: Vec::new(),
            properties_len: 0,
            qos: QoS::AtMostOnce,
            retain: false,
            origin: Origin::BROKER,
            expires_at: UnixMillis::NEVER,
            body: 0,
            charged: 0,
            author: Cell::new(AuthorId::NONE),
        }
    }

    /// A message of the broker's own, QoS 0, without properties. The topic must be a valid Topic Name.
    #[must_use]
    pub fn new(topic: &str, payload: &[u8], retain: bool) -> Self {
        let mut message = Self::empty();
        message.fill(topic, ApplicationProperties::default(), payload);
        message.retain = retain;
        message
    }

    /// Puts topic, properties and payload in, whatever was there before.
    pub fn fill(&mut self, topic: &str, properties: ApplicationProperties<'_>, payload: &[u8]) {
        let properties_len = properties.encoded_len();
        self.topic.clear();
        self.topic.push_str(topic);
        self.bytes.clear();
        self.bytes.reserve(properties_len.saturating_add(payload.len()));
        if properties_len > 0 {
            properties.write_to(&mut self.bytes);
        }
        self.bytes.extend_from_slice(payload);
        // The length of a section of a packet, and a packet has fewer than 2^28 bytes.
        self.properties_len = properties_len as u32;
    }

    /// The same under another topic, in a buffer of its own, and charged to nobody.
    pub(crate) fn with_topic(&self, topic: &str) -> Self {
        Self {
            topic: String::from(topic),
            bytes: self.bytes.clone(),
            body: 0,
            charged: 0,
            author: Cell::new(AuthorId::NONE),
            ..*self
        }
    }

    /// Makes a recycled message an empty one, but for its buffer.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            topic: core::mem::take(&mut self.topic),
            bytes: core::mem::take(&mut self.bytes),
            ..Self::empty()
        };
    }

    /// The Topic Name.
    #[inline]
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The properties that are passed on unchanged [MQTT-3.3.2-4, -15 to -20].
    #[must_use]
    pub fn properties(&self) -> ApplicationProperties<'_> {
        ApplicationProperties::from_stored(self.bytes.get(..self.properties_len as usize).unwrap_or_default())
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.properties_len as usize..).unwrap_or_default()
    }

    /// Whether its Message Expiry Interval has passed [MQTT-3.3.2-5].
    #[must_use]
    pub fn is_expired(&self, now: Now) -> bool {
        self.expires_at <= now.wall && !mutant("5.0/3.3.2-5")
    }

    /// Whether its Message Expiry Interval passed while it waited to be routed. One that is routed as it comes is never
    /// late, though its interval be 0.
    pub(crate) fn is_late(&self, now: Now) -> bool {
        self.expires_at < now.wall
    }

    /// The Message Expiry Interval to pass on: what is left of it [MQTT-3.3.2-6].
    #[must_use]
    pub fn expiry_left(&self, now: Now) -> Option<u32> {
        (self.expires_at != UnixMillis::NEVER).then(|| self.expires_at.seconds_from(now.wall))
    }

    /// A copy whose buffer has exactly the size it needs, for keeping.
    #[must_use]
    pub fn exact(&self) -> Self {
        Self {
            topic: String::from(self.topic.as_str()),
            bytes: self.bytes.as_slice().to_vec(),
            charged: 0,
            body: 0,
            author: Cell::new(AuthorId::NONE),
            ..*self
        }
    }

    /// Becomes the same message for another shard, where its charge is made anew.
    pub(crate) fn copy_for_shard(&mut self, other: &Self) {
        self.put(&other.topic, &other.bytes, other.properties_len);
        *self = Self {
            topic: core::mem::take(&mut self.topic),
            bytes: core::mem::take(&mut self.bytes),
            charged: 0,
            author: Cell::new(AuthorId::NONE),
            ..*other
        };
    }

    /// Puts in what [`Message::topic`], [`Message::stored`] and [`Message::properties_len`] of another one gave.
    pub(crate) fn put(&mut self, topic: &str, stored: &[u8], properties_len: u32) {
        self.topic.clear();
        self.topic.push_str(topic);
        self.bytes.clear();
        self.bytes.extend_from_slice(stored);
        self.properties_len = properties_len;
        self.charged = 0;
        self.author = Cell::new(AuthorId::NONE);
    }

    /// Properties and payload as they are stored.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.bytes
    }

    /// How many of the stored bytes are properties.
    pub(crate) const fn properties_len(&self) -> u32 {
        self.properties_len
    }

    /// The same message for another shard, where its charge is made anew.
    pub(crate) fn clone_for_shard(&self) -> Self {
        Self {
            body: self.body,
            ..self.exact()
        }
    }

    /// Whether keeping this message would waste buffer.
    pub(crate) fn is_exact(&self) -> bool {
        self.capacity() <= self.bytes_len().saturating_add(32)
    }

    /// Bytes that this message is charged for while it is kept: its buffer and a constant for what surrounds it.
    #[must_use]
    pub const fn charge(&self) -> usize {
        self.capacity().saturating_add(128)
    }

    /// What it would be charged with in a buffer of its size: the same for whoever asks, whatever was in the buffer before.
    pub(crate) const fn exact_charge(&self) -> usize {
        self.bytes_len().saturating_add(128)
    }

    /// Bytes of topic, properties and payload.
    pub(crate) const fn bytes_len(&self) -> usize {
        self.topic.len().saturating_add(self.bytes.len())
    }

    /// Bytes of buffer, for deciding whether a spent message is worth recycling.
    pub(crate) const fn capacity(&self) -> usize {
        self.topic.capacity().saturating_add(self.bytes.capacity())
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("payload_len", &self.payload().len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}
