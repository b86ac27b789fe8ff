//! Publishes on their way to another shard, one behind the other.
//!
//! What another core has written is read a cache line at a time, and each line is waited for. So small forwards are not
//! sent as pieces of memory that point to each other: they lie in three runs of memory, which the processor fetches ahead.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::{string::String, vec::Vec};

use sol_codec::QoS;

use crate::journal::Transaction;
use crate::message::Origin;
use crate::shard_message::Forward;
use crate::time::UnixMillis;

/// A message with more bytes travels as it is: to copy it costs more than to fetch it.
const PACKED_BYTES_MAX: usize = 4 << 10;

/// Forwards, taken in the order in which they were put in.
#[derive(Debug, Default)]
pub struct Packed {
    heads: Vec<Head>,
    topics: String,
    bytes: Vec<u8>,
    /// Where the next one begins in each of the three.
    next: Place,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    head: usize,
    topic: usize,
    bytes: usize,
}

/// All of a forward that is no text.
#[derive(Clone, Copy, Debug)]
struct Head {
    n: u64,
    origin: Origin,
    expires_at: UnixMillis,
    body: u64,
    topic_len: u32,
    bytes_len: u32,
    properties_len: u32,
    qos: QoS,
    retain: bool,
    route: bool,
    keep: bool,
    may_refuse: bool,
    transaction: Option<Transaction>,
}

impl Packed {
    /// Puts a copy of `forward` behind the others; `false`: it is not worth it, or not possible, and must travel by itself.
    pub fn push(&mut self, forward: &Forward) -> bool {
        let message = &forward.message;
        let is_plain = forward.groups.is_empty() && forward.author.is_none();
        if !is_plain || message.bytes_len() > PACKED_BYTES_MAX {
            return false;
        }
        let (topic, bytes) = (message.topic(), message.stored());
        self.heads.push(Head {
            n: forward.n,
            origin: message.origin,
            expires_at: message.expires_at,
            body: message.body,
            // Both are parts of what has just been found to be short.
            topic_len: topic.len() as u32,
            bytes_len: bytes.len() as u32,
            properties_len: message.properties_len(),
            qos: message.qos,
            retain: message.retain,
            route: forward.route,
            keep: forward.retain,
            may_refuse: forward.may_refuse,
            transaction: forward.transaction,
        });
        self.topics.push_str(topic);
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// Takes the oldest into `forward`, whatever that was before; `false`: there is none.
    pub fn pop_into(&mut self, forward: &mut Forward) -> bool {
        let Some(&head) = self.heads.get(self.next.head) else {
            return false;
        };
        let topic_end = self.next.topic.saturating_add(head.topic_len as usize);
        let bytes_end = self.next.bytes.saturating_add(head.bytes_len as usize);
        let topic = self.topics.get(self.next.topic..topic_end).unwrap_or_default();
        let bytes = self.bytes.get(self.next.bytes..bytes_end).unwrap_or_default();
        forward.message.put(topic, bytes, head.properties_len);
        let message = &mut forward.message;
        message.qos = head.qos;
        message.retain = head.retain;
        message.origin = head.origin;
        message.expires_at = head.expires_at;
        message.body = head.body;
        forward.n = head.n;
        forward.route = head.route;
        forward.retain = head.keep;
        forward.may_refuse = head.may_refuse;
        forward.transaction = head.transaction;
        forward.groups.clear();
        forward.author = None;
        self.next = Place {
            head: self.next.head.saturating_add(1),
            topic: topic_end,
            bytes: bytes_end,
        };
        if self.is_empty() {
            self.clear();
        }
        true
    }

    /// Drops all of them, keeping the memory.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.topics.clear();
        self.bytes.clear();
        self.next = Place::default();
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.heads.len().saturating_sub(self.next.head)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.heads
            .capacity()
            .saturating_mul(size_of::<Head>())
            .saturating_add(self.topics.capacity())
            .saturating_add(self.bytes.capacity())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::message::Message;
    use crate::shard_message::GroupPick;

    fn forward(n: u64, topic: &str, payload: &[u8]) -> Forward {
        let mut message = Message::new(topic, payload, n.is_multiple_of(2));
        message.qos = QoS::AtLeastOnce;
        message.origin = Origin(n << 7);
        message.expires_at = UnixMillis::from_millis(n + 1);
        message.body = n + 2;
        Forward {
            n,
            message,
            route: n.is_multiple_of(3),
            retain: n.is_multiple_of(5),
            groups: Vec::new(),
            author: None,
            may_refuse: n.is_multiple_of(7),
            transaction: core::num::NonZeroU64::new(n % 3).map(Transaction),
        }
    }

    /// Whatever goes in comes out, in order, into whatever was there before.
    #[test]
    fn what_is_put_in_comes_out_in_order() {
        let mut packed = Packed::default();
        let mut taken = forward(99, "stale/topic", b"stale payload");
        taken.groups = vec![GroupPick {
            share: "s".into(),
            filter: "f".into(),
            tried: 1,
        }];
        let sent: Vec<_> = (0..40)
            .map(|n| forward(n, &"t/é".repeat(n as usize % 4 + 1), &vec![n as u8; n as usize * 3]))
            .collect();
        for round in 0..3 {
            for one in &sent {
                assert!(packed.push(one));
            }
            assert_eq!(packed.len(), 40);
            for one in &sent {
                assert!(packed.pop_into(&mut taken));
                assert_eq!(&taken, one, "{round}");
            }
            assert!(packed.is_empty() && !packed.pop_into(&mut taken));
            assert!(packed.heads.is_empty() && packed.topics.is_empty() && packed.bytes.is_empty());
        }
    }

    /// Properties stay properties.
    #[test]
    fn properties_are_kept_apart_from_the_payload() {
        let mut one = forward(1, "t", b"");
        one.message.put("t", b"\x03\x00\x01xpayload", 4);
        let (mut packed, mut taken) = (Packed::default(), Forward::default());
        assert!(packed.push(&one) && packed.pop_into(&mut taken));
        assert_eq!(taken.message.payload(), b"payload");
        assert_eq!(taken, one);
    }

    /// What is large, or picked for a Shared Subscription, travels by itself.
    #[test]
    fn large_and_shared_ones_are_left_out() {
        let mut packed = Packed::default();
        assert!(packed.push(&forward(1, "t", &[0; PACKED_BYTES_MAX - 1])));
        assert!(!packed.push(&forward(1, "t", &[0; PACKED_BYTES_MAX])));
        let mut shared = forward(1, "t", b"");
        shared.groups = vec![GroupPick {
            share: "s".into(),
            filter: "t".into(),
            tried: 0,
        }];
        assert!(!packed.push(&shared));
        assert_eq!(packed.len(), 1);
    }
}
