//! Everything comes to rest, and at last to its end.

use std::time::Duration;

use sol_engine::{DropCause, Stats, Unrest};

use super::turn::Mail;
use super::{ConnectPlan, PublishPlan, Sums, World};
use crate::marks::Mark;
use crate::oracle::Rest;
use crate::violation::{Verdict, broken, ensure};

/// Steps within which everything must come to rest.
const STEPS_MAX: usize = 1_000_000;
/// How often a client tries to come back.
const RETURNS_MAX: usize = 16;

impl World {
    /// Lets happen all that can, and holds what has come against what was owed.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn rest(&mut self) -> Verdict {
        self.come_to_rest()?;
        let ready = (0..self.parties.len()).filter(|&who| self.is_ready(who));
        let rest = Rest {
            ready: ready.map(|who| (who, self.dropped_for(who))).collect(),
            by_queues: self.dropped(DropCause::QueueFull),
            by_groups: self.dropped(DropCause::NoMember),
            in_line: self.dropped(DropCause::LineLong),
        };
        self.oracle.rest(&rest)?;
        self.check()
    }

    /// Messages that all shards together counted as dropped for a reason.
    pub(super) fn dropped(&self, why: DropCause) -> u64 {
        let now: u64 = self.shards.iter().map(|shard| shard.engine.dropped(why)).sum();
        self.past.of(why) + now
    }

    /// Messages that a client's Session did not get because its queue was full.
    pub(super) fn dropped_for(&self, who: usize) -> u64 {
        let client_id = &self.parties[who].client.client_id;
        let mut engines = self.shards.iter().map(|shard| &shard.engine);
        let dropped = engines.find_map(|engine| engine.dropped_for(client_id));
        dropped.unwrap_or_default()
    }

    pub(super) fn come_to_rest(&mut self) -> Verdict {
        for _ in 0..STEPS_MAX {
            if !self.step()? {
                return Ok(());
            }
        }
        Err(broken("I14", "it does not come to rest".into()))
    }

    /// Whether a client has taken all that was sent to it, and said so.
    fn is_ready(&self, who: usize) -> bool {
        let party = &self.parties[who];
        let link = party.link.and_then(|link| self.links.get(link));
        party.client.connected && party.client.has_acknowledged_all() && link.is_some_and(|link| !link.congested)
    }

    /// What holds at any time: the engines' tables agree with each other and with their gauges, what is charged to
    /// mailboxes is what lies in them, and what the engines have counted is what has passed their border.
    pub(super) fn look_inside(&self) -> Verdict {
        for shard in &self.shards {
            shard
                .engine
                .check()
                .map_err(|fault| broken("check", fault.to_owned()))?;
        }
        let mail = self.shards.iter().flat_map(|shard| &shard.mailbox);
        let (lies, charged) = (mail.map(Mail::charge).sum::<usize>(), self.credits.bytes());
        ensure(lies == charged, "I8", || {
            format!("{charged} bytes of mail are charged, and there are {lies}")
        })?;
        if self.fault.is_some() {
            return Ok(());
        }
        let stats = self.stats();
        let counted = Sums {
            publishes_in: stats.publish_received,
            publishes_out: stats.publish_sent,
            refusals: stats.publish_refused,
            ..self.sums
        };
        ensure(counted == self.sums, "I8", || {
            format!("{counted:?} were counted, and there were {:?}", self.sums)
        })
    }

    fn check(&self) -> Verdict {
        self.look_inside()?;
        let waiting = self.answers.waiting();
        ensure(waiting == 0, "I14", || format!("{waiting} requests are never answered"))
    }

    /// Everything comes to rest and somebody looks at all that is retained.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn look_at_retained(&mut self) -> Verdict {
        self.rest()?;
        let reader = self.parties.len() - 1;
        self.seen.clear();
        self.connect(
            reader,
            &ConnectPlan {
                clean_start: true,
                ..ConnectPlan::default()
            },
        );
        self.come_to_rest()?;
        let all = ["#", "$d/#"].map(|filter| (filter.to_owned(), sol_codec::SubscriptionOptions::default()));
        self.subscribe(reader, &all, None);
        self.come_to_rest()?;
        self.oracle.retained_is(&self.seen)?;
        self.disconnect(reader, false, None);
        self.rest()
    }

    /// All clients come back and take all that they are owed; then nothing may be missing, and nothing be left to do.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn recover(&mut self) -> Verdict {
        self.heal()?;
        self.come_to_rest()?;
        for _ in 0..RETURNS_MAX {
            let mut away = false;
            for who in self.clients() {
                if self.parties[who].link.is_none() {
                    away = true;
                    let plan = ConnectPlan {
                        session_expiry_interval: u32::MAX,
                        ..ConnectPlan::default()
                    };
                    self.connect(who, &plan);
                }
            }
            if !away {
                break;
            }
            self.come_to_rest()?;
        }
        self.rest()?;
        let stored = self.stats().stored_messages;
        ensure(stored == 0, "I1", || {
            format!("{stored} messages are still in Sessions, and all are taken")
        })?;
        self.account_for_drops()?;
        let packet_max = |id| self.oracle.packet_max(id).filter(|_| !self.oracle.may_lend(id));
        let unfinished = self.flights.unfinished(packet_max);
        ensure(unfinished == 0, "I7", || format!("{unfinished} deliveries do not end"))?;
        for who in self.clients() {
            let client = &self.parties[who].client;
            ensure(client.connected && client.is_idle(), "I14", || {
                format!("{client:?} still waits")
            })?;
        }
        self.is_quiet()?;
        self.look_at_retained()
    }

    /// Messages delivered, refused and dropped are those that were published, where nothing else can become of one.
    fn account_for_drops(&mut self) -> Verdict {
        let all = self.stats().publish_dropped;
        let dropped = all - std::mem::replace(&mut self.sums.dropped, all);
        if self.counts {
            let refused = self.oracle.balance(dropped)?;
            for (mark, count) in [(Mark::DropsBalance, dropped), (Mark::RefusalsBalance, refused)] {
                if count > 0 {
                    self.marks.hit(mark);
                }
            }
        }
        Ok(())
    }

    /// Faults are over, and nobody holds anything back.
    fn heal(&mut self) -> Verdict {
        self.heals = true;
        for shard in 0..self.shards.len() {
            let config = &self.shards[shard].config;
            let lacks_room = config.memory_bytes_max < usize::MAX || config.connections_max < usize::MAX;
            if lacks_room || **config != *self.config {
                self.reload(shard, |config| {
                    config.memory_bytes_max = usize::MAX;
                    config.connections_max = usize::MAX;
                })?;
            }
            if self.is_pressed {
                self.press(shard, false)?;
            }
        }
        self.is_pressed = false;
        if self.writer.may_be_full() {
            self.fill_disk(false);
        }
        for who in self.clients() {
            self.withhold(who, false);
            let link = self.parties[who].link.and_then(|id| self.links.get(id));
            if link.is_some_and(|link| link.congested) {
                self.congest(who, false)?;
            }
        }
        Ok(())
    }

    /// What lies behind is forgotten, and the limits that were there before the faults were over are in force again.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn go_on(&mut self) -> Verdict {
        self.oracle.forget();
        let oracle = &self.oracle;
        self.flights.forget(|id| oracle.is_current(id));
        self.heals = false;
        for shard in 0..self.shards.len() {
            if *self.shards[shard].config != *self.config {
                self.reload(shard, |_| {})?;
            }
        }
        Ok(())
    }

    /// The clients that take part, without the one that looks at what is retained.
    fn clients(&self) -> impl Iterator<Item = usize> + use<> {
        let present = self.present;
        (0..self.parties.len() - 1).filter(move |who| present >> who & 1 == 1)
    }

    /// Nothing is under way in any engine or between them.
    fn is_quiet(&self) -> Verdict {
        let mail = self.credits.bytes();
        ensure(mail == 0, "I8", || {
            format!("{mail} bytes of mail are charged, and there is none")
        })?;
        for shard in &self.shards {
            let unrest = shard.engine.unrest();
            ensure(unrest == Unrest::default(), "I14", || {
                format!("nothing can happen any more, and there is {unrest:?}")
            })?;
        }
        Ok(())
    }

    /// All Sessions end and all that is retained is cleared: then nothing is left.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn end(&mut self) -> Verdict {
        self.heal()?;
        for who in self.clients().chain([self.parties.len() - 1]) {
            self.connect(
                who,
                &ConnectPlan {
                    clean_start: true,
                    ..ConnectPlan::default()
                },
            );
        }
        self.rest()?;
        for topic in self.oracle.retained_topics() {
            let clear = PublishPlan {
                topic,
                retain: true,
                empty: true,
                ..PublishPlan::default()
            };
            self.publish(self.parties.len() - 1, &clear);
        }
        self.come_to_rest()?;
        for who in self.clients().chain([self.parties.len() - 1]) {
            self.disconnect(who, false, None);
        }
        self.rest()?;
        self.pass(Duration::from_secs(1))?;
        self.rest()?;
        let stats = self.stats();
        self.mark_stats();
        let [records, incomplete, stored] = self.writer.left();
        let left = [
            stats.memory_bytes,
            stats.subscriptions,
            stats.shared_subscriptions,
            stats.retained_messages,
            stats.stored_messages,
            stats.clients_connected,
            stats.clients_disconnected,
            records,
            incomplete,
            stored,
        ];
        ensure(left == [0; 10], "I8", || {
            let decode = |record: &super::journal::Stored| record.decode();
            let kept = self
                .writer
                .stored()
                .map(|all| all.iter().map(decode).collect::<Vec<_>>());
            format!(
                "bytes, Subscriptions, shared, retained, stored, online, away, records, transactions, stored records: {left:?} are left: \
                 {kept:?}"
            )
        })
    }

    /// What the engines have counted and only tell at their end.
    pub(super) fn mark_stats(&mut self) {
        let stats = self.stats();
        for (mark, count) in [
            (Mark::SessionExpired, stats.clients_expired),
            (Mark::Oversized, stats.publish_oversized),
        ] {
            if count > 0 {
                self.marks.hit(mark);
            }
        }
    }

    /// The counters of all shards together.
    pub(super) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.engine.stats()));
        sum
    }
}
