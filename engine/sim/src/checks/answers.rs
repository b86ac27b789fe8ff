//! I4, the other way: acknowledgements of one kind leave in the order in which they became due [MQTT-4.6.0-2 to -4].

use std::collections::{BTreeMap, VecDeque};

use sol_engine::AckKind;

use crate::oracle::LinkId;
use crate::violation::{Verdict, ensure};

/// What each connection waits for, in order.
#[derive(Debug, Default)]
pub(crate) struct Answers(BTreeMap<LinkId, [VecDeque<u16>; KINDS]>);

const KINDS: usize = 5;

/// Kinds of answers; those of one kind do not overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    PubAck,
    PubRec,
    PubComp,
    SubAck,
    UnsubAck,
}

impl Kind {
    /// `None`: PUBREL answers nothing that a client has asked for.
    pub(crate) const fn of(kind: AckKind) -> Option<Self> {
        Some(match kind {
            AckKind::PubAck => Self::PubAck,
            AckKind::PubRec => Self::PubRec,
            AckKind::PubComp => Self::PubComp,
            AckKind::PubRel => return None,
        })
    }
}

impl Answers {
    /// A request was handled.
    pub(crate) fn due(&mut self, link: LinkId, kind: Kind, packet_id: u16) {
        self.0.entry(link).or_default()[kind as usize].push_back(packet_id);
    }

    /// An answer leaves.
    pub(crate) fn given(&mut self, link: LinkId, kind: Kind, packet_id: u16) -> Verdict {
        let first = (self.0.get_mut(&link)).and_then(|due| due[kind as usize].pop_front());
        ensure(first == Some(packet_id), "I4", || {
            format!("{kind:?} {packet_id} leaves, and {first:?} is due")
        })
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, link: LinkId) {
        self.0.remove(&link);
    }

    /// How many answers are due.
    pub(crate) fn waiting(&self) -> usize {
        self.0.values().flatten().map(VecDeque::len).sum()
    }

    /// Whether a connection waits for PUBACK or PUBREC, and whether for SUBACK.
    pub(crate) fn waiting_of(&self, link: LinkId) -> (bool, bool) {
        let waits = |kind: Kind| self.0.get(&link).is_some_and(|due| !due[kind as usize].is_empty());
        (waits(Kind::PubAck) || waits(Kind::PubRec), waits(Kind::SubAck))
    }
}
