//! What survives the Network Connection (section 4.1).

pub(crate) mod acks;
pub(crate) mod inbound;
pub(crate) mod queue;
pub(crate) mod replay;
pub(crate) mod sender;
pub(crate) mod sessions;

use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::cell::Cell;

use crate::ids::ConnectionId;
use crate::input::OwnedWill;
use crate::message::Origin;
use crate::record::RecordId;
use crate::rights::Standing;
use crate::rights::rules::Rules;
use crate::timer_wheel::TimerKey;
use crate::topic_tree::{FilterKey, GroupKey};

use acks::Acks;
use inbound::Inbound;
use replay::Replays;
use sender::Sender;

/// One client's Session. What may never be used is boxed on first use: most Sessions are idle.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Box<str>,
    pub(crate) user: Option<Box<User>>,
    /// Its rights, found out when they are first asked for.
    pub(crate) standing: Cell<Standing>,
    /// A keyed hash of the Client Identifier.
    pub(crate) origin: Origin,
    /// Distinguishes the tenants of a slot.
    pub(crate) generation: u32,
    /// Session Expiry Interval in seconds.
    pub(crate) expiry_interval: u32,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) sender: Option<Box<Sender>>,
    /// Inbound QoS 2 identifiers that wait for PUBREL: `ReceiverFlow::ExpectPubrel`.
    pub(crate) inbound: Inbound,
    pub(crate) acks: Option<Box<Acks>>,
    pub(crate) replays: Option<Box<Replays>>,
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    pub(crate) will: Option<Box<OwnedWill>>,
    /// The Session's own deadlines while it has no connection: its Will's delay and its end.
    pub(crate) timers: Option<Box<AwayTimers>>,
    /// Its record, 0 while it has none.
    pub(crate) record: RecordId,
    /// Number of the publish that last reached it and its target there, to find overlapping Subscriptions.
    pub(crate) mark: u32,
    pub(crate) mark_target: u32,
}

// An idle Session should cost little: what may never be used is boxed.
const _: () = assert!(size_of::<Session>() <= 128);

/// Whose a Session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: Box<str>,
    /// An authenticator has confirmed the name: the Session is this user's alone.
    pub(crate) vouched: bool,
    /// It was a grant that confirmed it: what becomes of a user of the same name elsewhere is nothing to him.
    pub(crate) granted: bool,
    /// There is no such user any more: whoever else comes by the Client Identifier begins anew.
    pub(crate) is_gone: bool,
    /// What his login allows this Session alone, in place of its listener's rules.
    pub(crate) rules: Option<Arc<Rules>>,
}

impl User {
    /// Of this name; an authenticator has confirmed it or not.
    pub(crate) fn new(name: String, vouched: bool) -> Self {
        Self {
            name: name.into_boxed_str(),
            vouched,
            granted: false,
            is_gone: false,
            rules: None,
        }
    }
}

/// A Session's Subscriptions, each list sorted.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    pub(crate) filters: Vec<FilterKey>,
    pub(crate) groups: Vec<GroupKey>,
    /// Records by filter text, while there is a journal.
    pub(crate) records: BTreeMap<String, RecordId>,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.filters.len() + self.groups.len()
    }
}

/// Deadlines of a Session that is away.
#[derive(Debug, Default)]
pub(crate) struct AwayTimers {
    pub(crate) will: Option<TimerKey>,
    pub(crate) expiry: Option<TimerKey>,
}

impl Session {
    pub(crate) fn username(&self) -> Option<&str> {
        self.user.as_deref().map(|user| &*user.name)
    }

    /// Bytes that it is charged for beyond its Client Identifier.
    pub(crate) fn user_charge(&self) -> usize {
        let rules = self.own_rules().map_or(0, Rules::bytes);
        self.username().map_or(0, str::len).saturating_add(rules)
    }

    /// The rules that speak of this Session alone, if its login came with some.
    pub(crate) fn own_rules(&self) -> Option<&Rules> {
        self.user.as_deref()?.rules.as_deref()
    }

    /// Whether it outlives its connection: what the journal keeps references for.
    pub(crate) const fn is_durable(&self) -> bool {
        self.expiry_interval > 0
    }

    pub(crate) fn sender_mut(&mut self) -> &mut Sender {
        self.sender.get_or_insert_default()
    }

    pub(crate) fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        self.subscriptions.get_or_insert_default()
    }
}
