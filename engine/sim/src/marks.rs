//! Rare states by name, and how often a run has come through each: what was never hit has not been tested.

use std::fmt;

macro_rules! marks {
    ($($(#[$doc:meta])* $mark:ident = $name:literal,)*) => {
        /// A rare state.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mark { $($(#[$doc])* #[doc = $name] $mark,)* }

        impl Mark {
            /// All of them.
            pub const ALL: [Self; [$(Self::$mark),*].len()] = [$(Self::$mark),*];

            /// What it is called.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$mark => $name,)* }
            }
        }
    };
}

marks! {
    Takeover = "takeover",
    TakeoverElsewhere = "takeover by a connection that another shard accepted",
    TakeoverInFlight = "takeover with QoS 1 in flight",
    TakeoverDuringPubrel = "takeover during PUBREL",
    TakeoverWhileOpen = "fan-out open at takeover",
    TakeoverWithReplay = "replay open at takeover",
    TakeoverFiresWill = "Will fired while its Session is taken over",
    TakeoverWithLogin = "login pending at takeover",
    TakeoverUnanswered = "takeover before PUBACK or PUBREC has left",
    TakeoverUnsubscribed = "takeover before SUBACK has left",
    LoginForGone = "login answered when its connection is gone",
    LoginRefused = "login refused",
    LostOnTheWay = "connection lost on its way to its home",
    ConnectRefused = "CONNECT refused for want of room",
    SubscribeRefused = "SUBSCRIBE refused for want of room",
    InterestUnconfirmed = "interest unconfirmed at second SUBSCRIBE",
    InterestAgain = "interest lost and wanted again before it was confirmed",
    PageOvertaken = "retained page overtaken by a live update",
    PageForNobody = "retained page for a replay that has ended",
    ReplaySeenFull = "replay set full",
    ReplayInPages = "replay in several pages",
    ReplayReplaced = "replay replaced before it began",
    ReplayStopped = "replay ended by UNSUBSCRIBE",
    QuestionHeld = "question held for memory",
    PageThrownAway = "page thrown away",
    RetainingHeld = "publisher held for retaining",
    RetainedSwept = "retained messages swept",
    NotRetained = "retained message not kept for want of memory",
    Lent = "shared message given back while its member may come back",
    GivenBack = "shared message given back at the end of its member's Session",
    PickPassedOn = "shared message passed on to another shard",
    PickLost = "shared message for a shard without a member dropped",
    RefusedThere = "Refused from a remote shard",
    RefusedHere = "publisher told 0x97",
    QueueFull = "message dropped by a full queue",
    QueueFullOnResume = "queue full on resume",
    ExpiredInQueue = "expiry in queue",
    ExpiredInFanout = "expiry in an open fan-out",
    PacketIdWrap = "packet identifier wrap",
    FanoutCut = "fan-out cut",
    FanoutReviewed = "Subscriptions changed while a fan-out was open",
    FanoutTargetGone = "Session ended while a fan-out was open",
    LineLong = "publisher paused by a long line",
    LineDropped = "QoS 0 dropped by a long line",
    WillInLine = "Will in line behind a fan-out",
    WillDelayed = "Will fired after its delay",
    WillCancelled = "Will not fired because its client came back",
    SessionExpired = "Session expired",
    PeerFull = "mailbox above its mark",
    PeerFullPaused = "peer full with publishers paused",
    PausedTooLong = "connection closed after a long pause",
    AcksPaused = "publisher paused by its own acknowledgements",
    AckMuted = "acknowledgement for nobody",
    AskedAgain = "QoS 2 id repeated while its PUBREC waits",
    Qos2Repeated = "QoS 2 id repeated",
    PubrelUnknown = "PUBREL of an unknown identifier",
    PubrelAgain = "PUBREL sent again on resume",
    Parked = "publish parked",
    ParkedClosed = "connection closed with parked publishes",
    CongestedDrop = "QoS 0 dropped by a congested connection",
    SlowClosed = "congested connection closed",
    Oversized = "message larger than its receiver takes",
    AliasOut = "topic alias alone towards a client",
    JournalHolds = "CONNACK waits for the journal",
    KeptAlone = "ticket kept before an earlier one",
    AckForGone = "acknowledgement complete for a Session that is gone",
    DropsBalance = "drops that are just what did not come",
    RefusalsBalance = "refusals that are just what did not come",
    QuestionInLine = "question for retained messages in line behind a fan-out",
    ReloadBelow = "limits lowered below what is queued",
    WallBack = "wall clock set back",
    PowerLost = "power lost",
    Killed = "process killed",
    DiedAtStart = "broker died again before its start was over",
    DiedUnwritten = "broker died while something waited to be written",
    DiedInTransaction = "broker died while a transaction was incomplete",
    DiedBeforePubrel = "broker died between PUBREC and PUBREL",
    DiedDuringPubrel = "broker died while a delivery was between PUBREC and PUBCOMP",
    DiedAtTakeover = "broker died during a takeover",
    FewerShards = "restart with fewer shards",
    MoreShards = "restart with more shards",
    WillOfTheDead = "Will of a client that was connected when the broker died",
    ExpiredWhileDown = "Session expired while the broker was down",
    TornTail = "torn tail found",
    RefusedForDisk = "publish refused for a full disk",
    ParkedForDisk = "3.1.1 publish parked for a full disk and taken when there was room again",
    ConnectRefusedForDisk = "CONNECT refused for a full disk",
    SubscribeRefusedForDisk = "SUBSCRIBE refused for a full disk",
    DiedWithoutRoom = "broker died while the disk was full",
    CameBackTheSame = "everything the same after a restart, with messages that wait",
}

/// How often each was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// Counts one more.
    pub const fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// How often it was hit.
    #[must_use]
    pub const fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Those that were never hit.
    pub fn missed(&self) -> impl Iterator<Item = Mark> {
        Mark::ALL.into_iter().filter(|&mark| self.count(mark) == 0)
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mark in Mark::ALL {
            writeln!(f, "{:>12}  {}", self.count(mark), mark.name())?;
        }
        Ok(())
    }
}
