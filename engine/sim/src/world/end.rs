//! Everything comes to rest, and at last to its end.

use std::time::Duration;

use sol_engine::Stats;

use super::{ConnectPlan, PublishPlan, World};
use crate::oracle::Rest;
use crate::violation::{Verdict, broken, ensure};

/// Steps within which everything must come to rest.
const STEPS_MAX: usize = 1_000_000;

impl World {
    /// Lets happen all that can, and holds what has come against what was owed.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn rest(&mut self) -> Verdict {
        self.come_to_rest()?;
        let ready = (0..self.parties.len()).filter(|&who| self.is_ready(who)).collect();
        let dropped = self.stats().publish_dropped;
        self.oracle.rest(&Rest { ready, dropped })?;
        self.check()
    }

    fn come_to_rest(&mut self) -> Verdict {
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
        let link = party.link.and_then(|link| self.links.get(&link));
        party.client.connected && party.client.has_acknowledged_all() && link.is_some_and(|link| !link.congested)
    }

    fn check(&self) -> Verdict {
        for shard in &self.shards {
            shard
                .engine
                .check()
                .map_err(|fault| broken("check", fault.to_owned()))?;
        }
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
        let clients = self.parties.len() - 1;
        for who in 0..clients {
            self.withhold(who, false);
            self.congest(who, false)?;
        }
        self.come_to_rest()?;
        for who in 0..clients {
            if self.parties[who].link.is_none() {
                self.connect(
                    who,
                    &ConnectPlan {
                        session_expiry_interval: u32::MAX,
                        ..ConnectPlan::default()
                    },
                );
            }
        }
        self.rest()?;
        let stored = self.stats().stored_messages;
        ensure(stored == 0, "I1", || {
            format!("{stored} messages are still in Sessions, and all are taken")
        })?;
        let packet_max = |id| self.oracle.packet_max(id).filter(|_| !self.oracle.may_lend(id));
        let unfinished = self.flights.unfinished(packet_max);
        ensure(unfinished == 0, "I7", || format!("{unfinished} deliveries do not end"))?;
        for party in &self.parties[..clients] {
            ensure(party.client.is_idle(), "I14", || {
                format!("{:?} still waits", party.client)
            })?;
        }
        self.look_at_retained()
    }

    /// All Sessions end and all that is retained is cleared: then nothing is left.
    ///
    /// # Errors
    /// A check found a violation.
    pub fn end(&mut self) -> Verdict {
        for who in 0..self.parties.len() {
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
        for who in 0..self.parties.len() {
            self.disconnect(who, false, None);
        }
        self.rest()?;
        self.pass(Duration::from_secs(1))?;
        self.rest()?;
        let stats = self.stats();
        let left = [
            stats.memory_bytes,
            stats.subscriptions,
            stats.shared_subscriptions,
            stats.retained_messages,
            stats.stored_messages,
            stats.clients_connected,
            stats.clients_disconnected,
            self.shards.iter().map(|shard| shard.journal.len() as u64).sum(),
        ];
        ensure(left == [0; 8], "I8", || {
            format!("bytes, Subscriptions, shared, retained, stored, online, away, records: {left:?} are left")
        })
    }

    /// The counters of all shards together.
    fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.engine.stats()));
        sum
    }
}
