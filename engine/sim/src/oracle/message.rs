//! A message, and what is known of its way.

use sol_codec::QoS;
use sol_engine::{Now, UnixMillis};

use super::At;

/// The name of a message: no two have the same.
pub type Number = u32;

/// What is published.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its name.
    pub number: Number,
    /// The client that publishes it, or whose Will it is.
    pub origin: usize,
    /// It is a Will.
    pub is_will: bool,
    /// Topic Name.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Message Expiry Interval.
    pub expiry: Option<u32>,
    /// Its number is told as a User Property, to those who get any.
    pub tagged: bool,
}

impl Message {
    /// An upper bound of its encoded length as a PUBLISH of this broker, where few Subscription Identifiers are added.
    pub(super) const fn len_max(&self) -> usize {
        self.topic.len() + self.payload.len() + 96
    }
}

/// What is known of its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// How often it was published: a QoS 1 message that comes again is published again.
    pub(super) times: u32,
    /// When it was published first and last.
    pub(super) first: At,
    pub(super) last: At,
    /// When it was published last, perhaps.
    pub(super) again: At,
    /// Since when it is surely where it was to go.
    pub(super) settled: Option<At>,
    /// The last time it was published when it was noted down as owed.
    pub(super) owed: At,
    /// At least one Session did not take it, and its publisher knows.
    pub(super) refused: bool,
    /// Nobody can say whether it was published.
    pub(super) doubtful: bool,
    /// Since when it is surely not retained any more.
    pub(super) replaced: Option<At>,
    /// When it expires, for each time that it was published.
    pub(super) expires: Vec<UnixMillis>,
}

impl Life {
    pub(super) const fn is_published(&self) -> bool {
        self.times > 0
    }

    pub(super) fn published(&mut self, at: At) {
        if self.times == 0 {
            self.first = at;
        }
        self.times += 1;
        (self.last, self.again) = (at, at);
        (self.settled, self.replaced) = (None, None);
    }

    /// It was perhaps published once more.
    pub(super) const fn may_come_again(&mut self, at: At) {
        self.times += 1;
        self.again = at;
        (self.settled, self.replaced) = (None, None);
    }

    /// Whether it may have expired by now.
    pub(super) fn may_have_expired(&self, now: Now) -> bool {
        self.expires.iter().any(|&at| at <= now.wall)
    }
}
