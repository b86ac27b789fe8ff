//! What crosses between shards: by value, in order, never refused.

use alloc::{boxed::Box, string::String, vec::Vec};

use crate::journal::Transaction;
use crate::message::Message;
use crate::rights::authors::Author;

/// One message of one engine to another. Between two shards these arrive in the order they were posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardMessage {
    /// The sender now has a Subscription that this filter describes. Answered with [`ShardMessage::Confirmed`].
    Interest {
        /// The sender's number for this announcement, counting up by one.
        n: u64,
        /// What it is interested in.
        filter: Interest,
    },
    /// The sender has no such Subscription any more. Not answered.
    Lost(Interest),
    /// All of the receiver's announcements up to this number are installed, and everything routed before that was
    /// posted before this.
    Confirmed(u64),
    /// A publish for the receiver.
    Forward(Box<Forward>),
    /// The receiver's forwards up to this number are settled, but for those refused before.
    Taken(u64),
    /// That forward could not be taken by every Session; it is settled by this.
    Refused(u64),
    /// Asks for retained messages that match a filter.
    RetainedQuery {
        /// The asker's name for this question.
        id: u64,
        /// The Topic Filter, without `$share`.
        filter: String,
        /// Where the last page ended.
        after: Option<String>,
    },
    /// One page of an answer.
    RetainedPage {
        /// The question.
        id: u64,
        /// Matching retained messages.
        messages: Vec<Message>,
        /// Where to go on, if there is more.
        more: Option<String>,
    },
    /// How many members a Shared Subscription has on the sender; both 0 when it has none any more.
    Members {
        /// The sender's number for this announcement; confirmed like interest.
        n: u64,
        /// ShareName.
        share: String,
        /// Topic Filter.
        filter: String,
        /// Members with a Network Connection.
        online: u32,
        /// Members without one whose Session is kept.
        offline: u32,
    },
}

/// What a shard is interested in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// A Topic Filter without wildcards, as its keyed hash.
    Exact(u64),
    /// A Topic Filter with wildcards.
    Wildcard(String),
    /// Nothing: the sender only wants to know that it has heard all that the receiver posted before it confirms.
    Nothing,
}

/// A publish on its way to another shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward {
    /// The sender's number, to be answered with `Taken` or `Refused`; 0 when no answer is wanted: QoS 0 that the receiver
    /// is not to retain.
    pub n: u64,
    /// What is published.
    pub message: Message,
    /// The receiver routes it to its Subscriptions.
    pub route: bool,
    /// The receiver is the home of this topic's retained message and stores or clears it.
    pub retain: bool,
    /// Shared Subscriptions that the receiver was picked for.
    pub groups: Vec<GroupPick>,
    /// By whose rights it was published, where it is to be retained.
    pub author: Option<Box<Author>>,
    /// A 5.0 publisher waits for the outcome, so that a full queue refuses.
    pub may_refuse: bool,
    /// What the receiver writes down because of it is a part of this.
    pub transaction: Option<Transaction>,
}

/// A Shared Subscription that a shard was picked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPick {
    /// ShareName.
    pub share: String,
    /// Topic Filter.
    pub filter: String,
    /// The shards that found nobody for it, as bits; the last one of all counts the drop.
    pub tried: u64,
}

impl ShardMessage {
    /// Roughly the bytes it takes in a mailbox, for the byte credits.
    #[must_use]
    pub fn charge(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Forward(forward) => size_of::<Forward>() + forward.message.bytes_len(),
                Self::RetainedPage { messages, .. } => messages.iter().map(Message::charge).sum(),
                Self::RetainedQuery { filter, .. }
                | Self::Interest {
                    filter: Interest::Wildcard(filter),
                    ..
                } => filter.len(),
                Self::Members { share, filter, .. } => share.len() + filter.len(),
                _ => 0,
            }
    }
}
