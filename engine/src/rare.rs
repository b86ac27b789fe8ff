//! What simulations want to know of an engine that no effect tells: rare branches that it has taken, and what it holds.

use crate::clients::Clients;
use crate::engine::Engine;

/// A rare branch, taken since somebody asked last. Nothing is noted on the way of an ordinary message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it; no part of the interface")]
pub enum Rare {
    PageOvertaken,
    PageForNobody,
    ReplaySeenFull,
    ReplayReplaced,
    ReplayStopped,
    RetainedSwept,
    Lent,
    GivenBack,
    PickPassedOn,
    PickLost,
    QueueFull,
    QueueFullOnResume,
    ExpiredInQueue,
    ExpiredInFanout,
    FanoutReviewed,
    FanoutTargetGone,
    LineLong,
    LineDropped,
    WillInLine,
    WillDelayed,
    AcksLong,
    AckMuted,
    AckForGone,
    AskedAgain,
    CongestedDrop,
    ConnackHeld,
    NotRetained,
    QuestionInLine,
    QuestionHeld,
    PageThrownAway,
    RetainingHeld,
}

/// Why a message was dropped for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it; no part of the interface")]
pub enum DropCause {
    QueueFull,
    Congested,
    LineLong,
    NoMember,
    NotRetained,
    NotSent,
    TooLarge,
}

/// How many were, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops([u64; 7]);

impl Drops {
    pub(crate) fn sum(self) -> u64 {
        self.0.iter().sum()
    }
}

/// What an engine holds that is not at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unrest {
    /// A fan-out is open.
    pub fanout: bool,
    /// Publishes wait behind it.
    pub line: usize,
    /// Connections are not read.
    pub paused: usize,
    /// Connections hold publishes until there is memory.
    pub parked: usize,
    /// Questions for retained messages are not answered.
    pub queries: usize,
}

/// A bit for each [`Rare`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rares(u32);

impl Rares {
    #[cold]
    pub(crate) const fn note(&mut self, rare: Rare) {
        self.0 |= 1 << rare as u32;
    }
}

impl Clients {
    #[cold]
    pub(crate) const fn note_rare(&mut self, rare: Rare) {
        self.rares.note(rare);
    }

    /// Counts a message that somebody does not get.
    #[cold]
    pub(crate) fn count_dropped(&mut self, why: DropCause) {
        self.stats.publish_dropped += 1;
        if let Some(count) = self.drops.0.get_mut(why as usize) {
            *count += 1;
        }
    }
}

impl Engine {
    /// The rare branches taken since this was asked last, a bit each.
    #[doc(hidden)]
    pub const fn take_rares(&mut self) -> u32 {
        core::mem::replace(&mut self.clients.rares.0, 0)
    }

    /// Messages dropped for a reason.
    #[doc(hidden)]
    #[must_use]
    pub fn dropped(&self, why: DropCause) -> u64 {
        self.clients.drops.0.get(why as usize).copied().unwrap_or_default()
    }

    /// Messages that a client's Session did not get because its queue was full, if it has a Session here.
    #[doc(hidden)]
    #[must_use]
    pub fn dropped_for(&self, client_id: &str) -> Option<u64> {
        let session = self.clients.sessions.get(self.clients.sessions.find(client_id)?)?;
        Some(session.sender.as_ref().map_or(0, |sender| sender.dropped))
    }

    /// What it holds that is not at rest.
    #[doc(hidden)]
    #[must_use]
    pub fn unrest(&self) -> Unrest {
        Unrest {
            fanout: self.line.has_open(),
            line: self.line.len(),
            paused: self.line.paused_len(),
            parked: self.parking.len() + self.parking_for_room.len(),
            queries: self.queries.len() + self.unasked.len(),
        }
    }
}
