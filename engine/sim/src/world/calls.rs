//! The engines as they are called, and what of it is counted.

use std::collections::BTreeMap;

use sol_engine::{ConnectionId, Flow, Input, Instant, Rare};

use super::{Shard, World};
use crate::marks::Mark;
use crate::oracle::LinkId;
use crate::violation::{Verdict, Violation, ensure};

/// Packets that one call may put into a tray beyond the limit of its work: what goes to the one client of the call.
const TRAY_SLACK: usize = 64;

impl World {
    /// Gives an engine an input and looks at what follows.
    pub(super) fn tell(&mut self, shard: usize, input: Input<'_>) -> Result<Flow, Violation> {
        let flow = self.call(shard, input)?;
        self.observe(shard)?;
        Ok(flow)
    }

    /// Gives an engine an input.
    pub(super) fn call(&mut self, shard: usize, input: Input<'_>) -> Result<Flow, Violation> {
        self.finish_posting(shard)?;
        if let Some(twin) = &mut self.twin {
            twin.follow(shard, self.now, Some(copy_of(&input)))?;
        }
        let Shard { engine, tray, .. } = &mut self.shards[shard];
        let before = tray.transmits.len();
        let flow = engine.handle(self.now, input, tray);
        self.called(shard, before)?;
        Ok(flow)
    }

    pub(super) fn tick(&mut self, shard: usize) -> Verdict {
        self.finish_posting(shard)?;
        self.note_down(|| format!("shard {shard} ticks"));
        if let Some(twin) = &mut self.twin {
            twin.follow(shard, self.now, None)?;
        }
        let Shard { engine, tray, .. } = &mut self.shards[shard];
        let before = tray.transmits.len();
        engine.tick(self.now, tray);
        self.called(shard, before)?;
        self.observe(shard)
    }

    /// An engine was called: its work was bounded, and it says when to call it again.
    pub(super) fn called(&mut self, shard: usize, before: usize) -> Verdict {
        let Shard {
            engine, tray, config, ..
        } = &mut self.shards[shard];
        if let Some(twin) = &mut self.twin {
            twin.agrees(shard, tray)?;
        }
        let sent = tray.transmits.len() - before;
        let (rares, deadline) = (engine.take_rares(), engine.next_deadline());
        // What a client may have in flight may be sent at once when it comes or acknowledges, and as many answers leave.
        let max = config
            .tray_max
            .saturating_add(TRAY_SLACK + usize::from(config.inflight_max) + config.acks_waiting_max);
        if sent > max {
            // What waits for one client may leave at once, as far as its bytes go.
            let mut to: BTreeMap<ConnectionId, usize> = BTreeMap::new();
            for transmit in &tray.transmits[before..] {
                *to.entry(transmit.connection).or_default() += 1;
            }
            let others = sent - to.values().max().copied().unwrap_or_default();
            // What a lost member of a Shared Subscription held goes to others at once: as many as a Session may hold.
            let hands_on = [Rare::Lent, Rare::GivenBack]
                .iter()
                .any(|&rare| rares >> rare as u32 & 1 == 1);
            let held = if hands_on { config.queue_max } else { 0 };
            let max = max.saturating_mul(self.completes.max(1)).saturating_add(held);
            ensure(others <= max, "I15", || {
                format!("one call of shard {shard} sends {sent} packets to many, and {max} would be many")
            })?;
        }
        let is_busy = deadline == Some(Instant::from_nanos(0));
        if is_busy && engine.unrest().fanout {
            self.marks.hit(Mark::FanoutCut);
        }
        if self.oracle.may_lack_room() && engine.unrest().parked > 0 {
            self.marks.hit(Mark::Parked);
        }
        self.shards[shard].deadline = deadline;
        if rares != 0 {
            for (rare, mark) in RARES {
                if rares >> rare as u32 & 1 == 1 {
                    self.marks.hit(mark);
                }
            }
        }
        Ok(())
    }

    /// Which rare states a takeover meets.
    pub(super) fn mark_takeover(&mut self, shard: usize, who: usize, id: LinkId) {
        let Some((old, session)) = self.oracle.owner_of(who) else {
            if self.oracle.has_waiting_will(who) {
                self.marks.hit(Mark::WillCancelled);
            }
            return;
        };
        let unrest = self.shards[shard].engine.unrest();
        let (in_flight, released) = self.flights.state_of(session, old);
        let (publishes, subscribes) = self.answers.waiting_of(old);
        let others = self
            .links
            .iter()
            .filter(|(other, link)| *other != id && link.who == who);
        let logs_in = others.filter(|(_, link)| !link.settled && !link.ended).count() > 0;
        let hits = [
            (Mark::Takeover, true),
            (Mark::TakeoverInFlight, in_flight),
            (Mark::TakeoverDuringPubrel, released),
            (Mark::TakeoverWhileOpen, unrest.fanout),
            (Mark::TakeoverWithReplay, self.oracle.awaits_replay(old)),
            (Mark::TakeoverFiresWill, self.oracle.will_is_immediate(session)),
            (Mark::TakeoverWithLogin, logs_in && self.parties[who].listener.0 > 0),
            (Mark::TakeoverUnanswered, publishes),
            (Mark::TakeoverUnsubscribed, subscribes),
        ];
        for (mark, _) in hits.into_iter().filter(|(_, hit)| *hit) {
            self.marks.hit(mark);
        }
    }
}

/// The same input once more.
fn copy_of<'a>(input: &Input<'a>) -> Input<'a> {
    match input {
        &Input::Opened { connection, listener } => Input::Opened { connection, listener },
        Input::Adopted(connection, handover) => Input::Adopted(*connection, handover.clone()),
        &Input::Packet(connection, packet) => Input::Packet(connection, packet),
        &Input::Congested(connection, bytes) => Input::Congested(connection, bytes),
        &Input::Drained(connection) => Input::Drained(connection),
        Input::Flushed => Input::Flushed,
        &Input::Closed(connection) => Input::Closed(connection),
        Input::Authenticated(connection, outcome) => Input::Authenticated(*connection, outcome.clone()),
        Input::Shard { from, message } => Input::Shard {
            from: *from,
            message: message.clone(),
        },
        &Input::Peer { shard, full } => Input::Peer { shard, full },
        &Input::Durable(ticket) => Input::Durable(ticket),
        &Input::DurableAlone(ticket) => Input::DurableAlone(ticket),
        &Input::Pressure(level) => Input::Pressure(level),
        Input::Publish(message) => Input::Publish(message.clone()),
        Input::Reload(config) => Input::Reload(std::rc::Rc::clone(config)),
        other => unreachable!("a world does not say {other:?}"),
    }
}

/// What an engine notes, and what it is called here.
const RARES: [(Rare, Mark); 31] = [
    (Rare::PageOvertaken, Mark::PageOvertaken),
    (Rare::PageForNobody, Mark::PageForNobody),
    (Rare::ReplaySeenFull, Mark::ReplaySeenFull),
    (Rare::ReplayReplaced, Mark::ReplayReplaced),
    (Rare::ReplayStopped, Mark::ReplayStopped),
    (Rare::RetainedSwept, Mark::RetainedSwept),
    (Rare::Lent, Mark::Lent),
    (Rare::GivenBack, Mark::GivenBack),
    (Rare::PickPassedOn, Mark::PickPassedOn),
    (Rare::PickLost, Mark::PickLost),
    (Rare::QueueFull, Mark::QueueFull),
    (Rare::QueueFullOnResume, Mark::QueueFullOnResume),
    (Rare::ExpiredInQueue, Mark::ExpiredInQueue),
    (Rare::ExpiredInFanout, Mark::ExpiredInFanout),
    (Rare::FanoutReviewed, Mark::FanoutReviewed),
    (Rare::FanoutTargetGone, Mark::FanoutTargetGone),
    (Rare::LineLong, Mark::LineLong),
    (Rare::LineDropped, Mark::LineDropped),
    (Rare::WillInLine, Mark::WillInLine),
    (Rare::WillDelayed, Mark::WillDelayed),
    (Rare::AcksLong, Mark::AcksPaused),
    (Rare::AckMuted, Mark::AckMuted),
    (Rare::AckForGone, Mark::AckForGone),
    (Rare::AskedAgain, Mark::AskedAgain),
    (Rare::CongestedDrop, Mark::CongestedDrop),
    (Rare::ConnackHeld, Mark::JournalHolds),
    (Rare::NotRetained, Mark::NotRetained),
    (Rare::QuestionInLine, Mark::QuestionInLine),
    (Rare::QuestionHeld, Mark::QuestionHeld),
    (Rare::PageThrownAway, Mark::PageThrownAway),
    (Rare::RetainingHeld, Mark::RetainingHeld),
];
