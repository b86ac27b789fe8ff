//! The broker dies, all at once: engines and what lies between them, connections, and what was on its way. Then new
//! engines, perhaps others in number, go on with what the journal has.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sol_engine::{DropCause, EngineConfig, Homes, Record, RecordId, ShardId, UnixMillis};
use sol_journal::Mode;

use super::journal::{Stored, homes_of, session_of};
use super::{Shard, World};
use crate::marks::Mark;
use crate::oracle::{Crash, Found, LinkId};
use crate::violation::{Verdict, Violation, broken, ensure};

/// Steps within which a start must be over.
const START_MAX: usize = 100_000;

/// How the broker dies and comes back.
#[derive(Clone, Debug)]
pub struct CrashPlan {
    /// The power goes out; or only the process ends. Where nothing is synced before it is acknowledged, that is all that
    /// happens.
    pub power: bool,
    /// How many shards there are then.
    pub shards: u16,
    /// How long it is down.
    pub down: Duration,
    /// By how many seconds the wall clock is set meanwhile.
    pub wall: i64,
    /// It dies once more if its start takes more steps than that.
    pub patience: usize,
}

impl Default for CrashPlan {
    fn default() -> Self {
        Self {
            power: true,
            shards: 1,
            down: Duration::ZERO,
            wall: 0,
            patience: usize::MAX,
        }
    }
}

/// What was counted by engines that are no more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    by_queues: u64,
    by_groups: u64,
    in_line: u64,
}

impl Past {
    pub(super) const fn of(&self, why: DropCause) -> u64 {
        match why {
            DropCause::QueueFull => self.by_queues,
            DropCause::NoMember => self.by_groups,
            DropCause::LineLong => self.in_line,
            _ => 0,
        }
    }
}

/// What the store says, without what a restart changes.
type Facts = BTreeMap<RecordId, (u8, Option<RecordId>, Vec<u8>)>;

impl World {
    /// Whether anything outlives the broker.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.config.journal
    }

    /// The broker dies, and is back when every shard knows what the others are interested in.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn crash(&mut self, plan: &CrashPlan) -> Verdict {
        if !self.is_durable() {
            return Ok(());
        }
        let power = plan.power && self.writer.mode == Mode::Fsync;
        self.note_down(|| {
            format!(
                "the broker dies, with the power: {power}, and comes back after {:?} and {} s with {} shards",
                plan.down, plan.wall, plan.shards
            )
        });
        self.mark_crash(power, usize::from(plan.shards));
        self.hear_the_last()?;
        for (who, party) in self.parties.iter_mut().enumerate() {
            // Nobody can tell which Session it would find, and whether that is the one that it remembers.
            party.client.insists |= party.is_untold || self.oracle.is_untold(who);
        }
        self.bury();
        self.began = self.oracle.at();
        let horizon = self.writer.horizon(self.shards.iter().map(|shard| &shard.unsubmitted));
        let dropped = (0..self.parties.len())
            .map(|who| (who, self.dropped_for(who)))
            .collect();
        self.keep_counts();
        self.now.mono = self.now.mono.saturating_add(plan.down);
        let wall = self.now.wall.as_millis() + plan.down.as_millis() as u64;
        self.now.wall = UnixMillis::from_millis(wall.saturating_add_signed(plan.wall * 1_000));
        let found = self.oracle.crash(&Crash {
            horizon,
            now: self.now,
            dropped,
        });
        for &who in &found.two {
            self.parties[who].client.insists = true;
        }
        self.mark_found(&found);
        self.oracle.have_disk();
        self.flights.crash();
        self.begin_again(power, plan.shards)?;
        for _ in 0..START_MAX.min(plan.patience) {
            if self.shards.iter().all(|shard| shard.engine.is_announced()) {
                self.note_down(|| "the broker is back".to_owned());
                return Ok(());
            }
            if !self.step()? {
                return Err(broken("I14", "the start does not come to its end".into()));
            }
        }
        ensure(plan.patience < START_MAX, "I14", || "the start takes for ever".into())?;
        self.marks.hit(Mark::DiedAtStart);
        self.crash(&CrashPlan {
            patience: usize::MAX,
            ..plan.clone()
        })
    }

    /// Everything is at rest, and then the broker dies: it comes back the same.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn restart(&mut self, plan: &CrashPlan) -> Verdict {
        self.rest()?;
        if !self.is_durable() {
            return Ok(());
        }
        let before = self.writer.stored()?;
        self.crash(&CrashPlan {
            patience: usize::MAX,
            ..plan.clone()
        })?;
        self.come_to_rest()?;
        let after = self.writer.stored()?;
        let stays = Stays::of(&before, self.now.wall)?;
        let (was, is) = (stays.facts(&before)?, stays.facts(&after)?);
        let same = if stays.messages {
            was == is
        } else {
            was.iter().all(|(id, fact)| is.get(id) == Some(fact))
        };
        ensure(same, "I16", || {
            let gone: Vec<_> = was.iter().filter(|(id, fact)| is.get(id) != Some(fact)).collect();
            let new: Vec<_> = is.iter().filter(|(id, fact)| was.get(id) != Some(fact)).collect();
            format!("records before: {gone:?}, and after: {new:?}")
        })?;
        let stats = self.stats();
        let count = |kind: u8| after.iter().filter(|record| record.kind == kind).count() as u64;
        let counted = [
            stats.clients_connected + stats.clients_disconnected,
            stats.subscriptions,
            stats.retained_messages,
            stats.stored_messages,
        ];
        let stored = [
            Record::SESSION,
            Record::SUBSCRIPTION,
            Record::RETAINED,
            Record::REFERENCE,
        ]
        .map(count);
        // QoS 0 that waits is not written.
        let unwritten = if self.config.queue_qos0 {
            counted[3].saturating_sub(stored[3])
        } else {
            0
        };
        let same = counted[..3] == stored[..3] && counted[3] == stored[3] + unwritten;
        ensure(same, "I16", || {
            format!("Sessions, Subscriptions, retained, owed: the engines have {counted:?} and the store {stored:?}")
        })?;
        if stays.messages && stored[3] > 0 {
            self.marks.hit(Mark::CameBackTheSame);
        }
        self.rest()
    }

    /// What was sent may arrive or not.
    fn hear_the_last(&mut self) -> Verdict {
        for who in 0..self.parties.len() {
            let Some(id) = self.parties[who].link else { continue };
            let sent = self.links.get(id).map_or(0, |link| link.to_client.len());
            for _ in 0..self.crashes.below(sent + 1) {
                if self.parties[who].link == Some(id) {
                    self.hear(who)?;
                }
            }
        }
        Ok(())
    }

    /// All connections are gone.
    fn bury(&mut self) {
        let ids: Vec<LinkId> = self.links.iter().map(|(id, _)| id).collect();
        for id in ids {
            let Some(link) = self.links.get_mut(id) else { continue };
            let who = link.who;
            if !std::mem::replace(&mut link.ended, true) {
                self.parties[who].client.insists |= !link.active && link.connect.clean_start;
            }
            self.owners.leaves(who, id);
            self.answers.forget(id);
            if self.parties[who].link == Some(id) {
                self.abandon(who);
            }
            self.reap(id);
        }
        self.swapped.clear();
    }

    fn keep_counts(&mut self) {
        self.past = Past {
            by_queues: self.dropped(DropCause::QueueFull),
            by_groups: self.dropped(DropCause::NoMember),
            in_line: self.dropped(DropCause::LineLong),
        };
        self.mark_stats();
        self.sums = super::Sums::default();
    }

    /// New engines begin with what the store has.
    fn begin_again(&mut self, power: bool, shards: u16) -> Verdict {
        let wall = self.now.wall.as_millis();
        let reopened = self.writer.restart(power, usize::from(shards), wall)?;
        if reopened.was_torn {
            self.marks.hit(Mark::TornTail);
        }
        let (old, new) = (self.shards.len(), usize::from(shards));
        self.config = Rc::new(EngineConfig {
            shards,
            ..EngineConfig::clone(&self.config)
        });
        self.credits = self.credits.renewed(new);
        self.is_pressed = false;
        let config = &self.config;
        self.shards = (0..shards)
            .map(|n| Shard::new(ShardId(n), config, self.seeds))
            .collect();
        let homes = homes_of(&reopened.records, &Homes::new(self.seeds, shards))?;
        let floor = reopened
            .records
            .iter()
            .map(|record| record.id.0 & RecordId::COUNT)
            .max();
        for (record, homes) in reopened.records.iter().zip(homes) {
            for home in homes {
                let engine = &mut self.shards[usize::from(home.0)].engine;
                let restored = engine.restore(record.decode()?);
                restored.map_err(|error| broken("I16", format!("{record:?}: {error:?}")))?;
            }
        }
        for shard in 0..new {
            let Shard { engine, tray, .. } = &mut self.shards[shard];
            engine.note_record_id(RecordId(floor.unwrap_or_default()));
            engine.restored(self.now, tray);
            self.called(shard, 0)?;
            self.observe(shard)?;
        }
        self.note_down(|| format!("{old} shards are {new}"));
        Ok(())
    }

    fn mark_crash(&mut self, power: bool, shards: usize) {
        let hits = [
            (Mark::PowerLost, power),
            (Mark::Killed, !power),
            (Mark::DiedInTransaction, self.writer.incomplete() > 0),
            (Mark::DiedUnwritten, self.writer.has_work()),
            (Mark::DiedWithoutRoom, self.shards.iter().any(|shard| shard.lacks_disk)),
            (Mark::DiedDuringPubrel, self.flights.has_released()),
            (Mark::FewerShards, shards < self.shards.len()),
            (Mark::MoreShards, shards > self.shards.len()),
        ];
        for (mark, _) in hits.into_iter().filter(|(_, hit)| *hit) {
            self.marks.hit(mark);
        }
    }

    fn mark_found(&mut self, found: &Found) {
        let hits = [
            (Mark::DiedAtTakeover, found.takeover),
            (Mark::DiedBeforePubrel, found.inbound),
            (Mark::WillOfTheDead, found.wills),
            (Mark::ExpiredWhileDown, found.expired),
        ];
        for (mark, _) in hits.into_iter().filter(|(_, hit)| *hit) {
            self.marks.hit(mark);
        }
    }
}

/// What a restart leaves as it was.
struct Stays {
    sessions: std::collections::BTreeSet<RecordId>,
    /// All messages too: no Will is published and no Session ends.
    messages: bool,
    now: UnixMillis,
}

impl Stays {
    fn of(before: &[Stored], now: UnixMillis) -> Result<Self, Violation> {
        let mut stays = Self {
            sessions: std::collections::BTreeSet::new(),
            messages: true,
            now,
        };
        for record in before {
            let Record::Session(id, session) = record.decode()? else {
                continue;
            };
            let since = session.disconnected_at.unwrap_or(now).as_millis();
            let left =
                (u64::from(session.expiry_interval) * 1_000).saturating_sub(now.as_millis().saturating_sub(since));
            // A deadline may come while what follows from the restart goes on.
            let lasts = session.expiry_interval == u32::MAX || left > 2_000;
            if lasts && session.will.is_none() {
                stays.sessions.insert(id);
            } else {
                stays.messages = false;
            }
        }
        Ok(stays)
    }

    fn facts(&self, records: &[Stored]) -> Result<Facts, Violation> {
        let mut expiring = std::collections::BTreeSet::new();
        let mut facts = Facts::new();
        for record in records {
            let mut decoded = record.decode()?;
            if let Record::Body(id, message) = &decoded
                && message.expires_at != UnixMillis::NEVER
                && message.expires_at.as_millis() <= self.now.as_millis() + 2_000
            {
                expiring.insert(*id);
            }
            let lasts = session_of(&decoded).is_none_or(|session| self.sessions.contains(&session));
            let is_message = matches!(decoded.kind(), Record::BODY | Record::RETAINED | Record::REFERENCE);
            let expires = expiring.contains(&record.id) || record.parent.is_some_and(|body| expiring.contains(&body));
            let is_session = matches!(decoded, Record::Session(..));
            if !lasts || is_session && !self.sessions.contains(&record.id) || is_message && (!self.messages || expires)
            {
                continue;
            }
            if let Record::Session(_, session) = &mut decoded {
                session.disconnected_at = None;
            }
            let mut bytes = Vec::new();
            decoded.encode(&mut bytes);
            facts.insert(record.id, (record.kind, record.parent, bytes));
        }
        Ok(facts)
    }
}
