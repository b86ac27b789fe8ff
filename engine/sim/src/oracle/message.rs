//! A message, and what is known of its way.

use sol_codec::QoS;
use sol_engine::{Instant, Now, UnixMillis};

use super::session::LATENESS;
use super::topics::TopicId;
use super::{At, LinkId, SessionId};

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
    /// Its Will Delay Interval, if it is one.
    pub delay: u32,
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
    /// Sessions that surely had room for it when it was refused, of those that have it at QoS 0.
    pub(super) had_room: Vec<SessionId>,
    /// Nobody can say whether it was published.
    pub(super) doubtful: bool,
    /// It is retained in memory alone, and what was retained before is perhaps gone.
    pub(super) unwritten: bool,
    /// The broker died before it answered: when it comes again, it is published then or was before.
    pub(super) lost: bool,
    /// Until when it may be published, if nobody can say when.
    until: Option<Instant>,
    /// Since when it is surely not retained any more.
    pub(super) replaced: Option<At>,
    /// When it expires, for each time that it was published.
    pub(super) expires: Vec<UnixMillis>,
    /// The connection that it was published on last, but for Wills.
    pub(super) link: Option<LinkId>,
    /// It had expired, perhaps, when much was forgotten.
    pub(super) had_expired: bool,
    /// Its topic.
    pub(super) topic: TopicId,
    /// Sessions that have had a copy.
    pub(super) holders: Vec<SessionId>,
    /// It has come to all that it was to come to, and what comes now is retained.
    pub(super) over: bool,
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
        self.doubtful = false;
        (self.settled, self.replaced) = (None, None);
    }

    /// It was published now, or had been: not twice.
    pub(super) const fn published_after_all(&mut self, at: At, may_be_refused: bool) {
        self.again = at;
        self.doubtful = may_be_refused;
        (self.settled, self.replaced) = (None, None);
    }

    pub(super) fn may_come_until(&mut self, until: Instant) {
        self.until = self.until.max(Some(until));
    }

    /// Whether it may still be published, as a deadline is kept.
    pub(super) fn may_yet_come(&self, now: Now) -> bool {
        self.until
            .is_some_and(|until| until.saturating_add(LATENESS) > now.mono)
    }

    /// It was perhaps published once more.
    pub(super) const fn may_come_again(&mut self, at: At) {
        self.times += 1;
        self.again = at;
        (self.settled, self.replaced) = (None, None);
    }

    /// Whether it may have expired, where this is the latest that the wall clock has been.
    pub(super) fn may_have_expired(&self, wall_max: UnixMillis) -> bool {
        self.had_expired || self.expires.iter().any(|&at| at <= wall_max)
    }
}

/// A message and its way.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) message: Message,
    pub(super) life: Life,
}

/// All messages, by number. Those that are forgotten leave their place empty.
#[derive(Debug, Default)]
pub(super) struct Messages(Vec<Option<Box<Told>>>);

impl Messages {
    pub(super) fn insert(&mut self, message: Message, topic: TopicId) {
        let number = message.number as usize;
        if self.0.len() <= number {
            self.0.resize_with(number + 1, || None);
        }
        let life = Life {
            topic,
            ..Life::default()
        };
        self.0[number] = Some(Box::new(Told { message, life }));
    }

    pub(super) fn find(&self, number: Number) -> Option<&Told> {
        self.0.get(number as usize)?.as_deref()
    }

    pub(super) fn find_mut(&mut self, number: Number) -> Option<&mut Told> {
        self.0.get_mut(number as usize)?.as_deref_mut()
    }

    pub(super) fn get(&self, number: Number) -> &Told {
        match self.find(number) {
            Some(told) => told,
            None => unreachable!("message {number} was introduced"),
        }
    }

    pub(super) fn get_mut(&mut self, number: Number) -> &mut Told {
        match self.find_mut(number) {
            Some(told) => told,
            None => unreachable!("message {number} was introduced"),
        }
    }

    /// Those that are not forgotten.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Told> {
        self.0.iter().filter_map(Option::as_deref)
    }

    /// Forgets those that are not `kept`, which are in order.
    pub(super) fn forget(&mut self, kept: &[Number]) {
        for (number, told) in self.0.iter_mut().enumerate() {
            if told.is_some() && kept.binary_search(&(number as Number)).is_err() {
                *told = None;
            }
        }
    }
}
