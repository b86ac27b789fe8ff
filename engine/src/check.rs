//! The engine's view of its own soundness, asked after a contained panic and by tests.

use alloc::string::String;

use crate::connection::State;
use crate::engine::Engine;
use crate::ids::{ConnectionId, SessionKey};

impl Engine {
    /// Looks for contradictions between the tables: a Session and its connection, a Session and its Subscriptions, the
    /// gauges and what they count. Its cost grows with everything there is.
    ///
    /// # Errors
    /// Says which of them contradict each other: nothing that this engine says can be trusted any more.
    pub fn check(&self) -> Result<(), &'static str> {
        self.check_connections()?;
        self.check_waits()?;
        self.check_subscriptions()?;
        self.clients.check_tallies()?;
        self.check_gauges()
    }

    fn check_connections(&self) -> Result<(), &'static str> {
        for (id, connection) in self.clients.connections.iter() {
            if let Some(key) = connection.session()
                && self
                    .clients
                    .sessions
                    .get(key)
                    .is_none_or(|session| session.connection != Some(id))
            {
                return Err("a connection's Session does not know it");
            }
        }
        let is_settled = |id: &ConnectionId| self.clients.connections.get(*id).is_some_and(|c| c.session().is_some());
        if !self.clients.enhanced.keys().all(is_settled) {
            return Err("an Authentication Method outlives its connection");
        }
        if !self.clients.expiring.keys().all(is_settled) {
            return Err("the end of a login outlives its connection");
        }
        for (key, session) in self.clients.sessions.iter() {
            if let Some(id) = session.connection
                && self
                    .clients
                    .connections
                    .get(id)
                    .is_none_or(|connection| connection.session() != Some(key))
            {
                return Err("a Session's connection does not know it");
            }
            if session.sender.as_ref().is_some_and(|sender| !sender.is_consistent()) {
                return Err("a Session's window or queue is not what it counts");
            }
            if self.clients.sessions.find(&session.client_id) != Some(key) {
                return Err("a Session is not found by its Client Identifier");
            }
        }
        Ok(())
    }

    /// Whoever is not read has somebody who ends that, and a Session that is away has an end.
    fn check_waits(&self) -> Result<(), &'static str> {
        let (mut paused, mut parked) = (0, 0);
        for (id, connection) in self.clients.connections.iter() {
            paused += usize::from(connection.paused);
            if connection.paused && !self.line.has_paused(id) {
                return Err("a connection is paused, and nobody resumes it");
            }
            if let Some(waiting) = &connection.parked {
                parked += 1;
                let listed = [&self.parking, &self.parking_for_room].map(|parking| parking.get(&waiting.n));
                if !listed.contains(&Some(&id)) {
                    return Err("a connection has parked, and nobody releases it");
                }
            }
        }
        if (paused, parked) != (self.line.paused_len(), self.unrest().parked) {
            return Err("a connection that is gone is paused or has parked");
        }
        // Of those whose time passed while the broker was down, other shards may have to be heard first.
        let all_end = self.overdue.is_empty();
        for (_, session) in self.clients.sessions.iter().filter(|_| all_end) {
            let is_away = session.connection.is_none() && session.expiry_interval != u32::MAX;
            if is_away && session.timers.as_ref().is_none_or(|timers| timers.expiry.is_none()) {
                return Err("a Session that is away never expires");
            }
        }
        Ok(())
    }

    fn check_subscriptions(&self) -> Result<(), &'static str> {
        let has = |list: &[crate::topic_tree::Subscription], key: SessionKey| {
            list.binary_search_by_key(&key, |subscription| subscription.session)
                .is_ok()
        };
        let mut filter = String::new();
        for (key, session) in self.clients.sessions.iter() {
            let Some(subscriptions) = &session.subscriptions else {
                continue;
            };
            for &filter_key in &subscriptions.filters {
                filter.clear();
                self.tree.filter_of(filter_key, &mut filter);
                if !has(self.tree.subscribers(filter_key), key) || self.tree.find(&filter, key).is_none() {
                    return Err("a Session's Subscription is not in the tree");
                }
            }
            for &group in &subscriptions.groups {
                if !self.tree.group(group).is_some_and(|group| has(&group.members, key)) {
                    return Err("a Session's Shared Subscription is not in the tree");
                }
            }
        }
        for group in self.tree.groups() {
            let online = group.members.iter().filter(|member| self.is_online(member.session));
            if online.count() != group.weight().online as usize {
                return Err("a Shared Subscription's count of members online is wrong");
            }
        }
        Ok(())
    }

    fn check_gauges(&self) -> Result<(), &'static str> {
        let sessions = || self.clients.sessions.iter().map(|(_, session)| session);
        let subscriptions: usize = sessions()
            .filter_map(|s| s.subscriptions.as_ref())
            .map(|subscriptions| subscriptions.len())
            .sum();
        if subscriptions as u64 != self.clients.stats.subscriptions {
            return Err("the gauge of Subscriptions is wrong");
        }
        let owed: usize = sessions()
            .filter_map(|session| session.sender.as_ref())
            .map(|sender| sender.unfinished().count() + sender.queue.len())
            .sum();
        if owed as u64 != self.clients.stats.stored_messages {
            return Err("the gauge of stored messages is wrong");
        }
        if self.clients.drops.sum() != self.clients.stats.publish_dropped {
            return Err("the counter of dropped messages is not that of all causes");
        }
        if sessions().filter(|session| session.connection.is_some()).count() != self.clients.settled {
            return Err("the count of Sessions with a connection is wrong");
        }
        let at = |listener| {
            let online = sessions().filter(|session| session.connection.is_some());
            online
                .filter(|session| self.clients.config.counted_at(session.standing.get().listener()) == listener)
                .count()
        };
        let mut limited = self.clients.config.limited_listeners();
        if limited.any(|listener| at(listener) != self.clients.settled_at(listener)) {
            return Err("the count of a listener's Sessions with a connection is wrong");
        }
        if sessions().filter(|session| session.own_rules().is_some()).count() != self.clients.rights.with_own_rules() {
            return Err("the count of Sessions with rules of their own is wrong");
        }
        let connections = self.clients.connections.iter();
        let active = connections.filter(|(_, connection)| matches!(connection.state, State::Active(..)));
        if active.count() as u64 != self.clients.stats.clients_connected {
            return Err("the gauge of connected clients is wrong");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sol_codec::QoS;

    use super::*;
    use crate::connection::Connection;
    use crate::ids::ConnectionId;
    use crate::testing::Bench;

    fn key_of(bench: &Bench, id: ConnectionId) -> SessionKey {
        let connection = bench.engine.clients.connections.get(id);
        connection.and_then(Connection::session).unwrap()
    }

    /// A publish of this client's waits for memory.
    fn park(bench: &mut Bench, id: ConnectionId) {
        let parked = crate::connection::Parked {
            n: 1,
            timer: bench
                .engine
                .clients
                .timers
                .insert(crate::Instant::from_nanos(1), crate::clients::Reason::Parked(id)),
            waiting: Default::default(),
            bytes: 0,
            for_journal: false,
        };
        bench.engine.clients.connections.get_mut(id).unwrap().parked = Some(alloc::boxed::Box::new(parked));
        bench.engine.parking.insert(1, id);
        assert_eq!(bench.engine.check(), Ok(()));
    }

    /// A member of a Shared Subscription is counted as if it were away.
    fn miscount(bench: &mut Bench, _: SessionKey, _: ConnectionId) {
        bench.client("sharer", 1, "$share/g/t");
        assert_eq!(bench.engine.check(), Ok(()));
        let group = bench.engine.tree.find_group("t", "g").unwrap();
        bench.engine.tree.group_mut(group).unwrap().count_online(false);
    }

    /// Nothing ends a Session any more that is away.
    fn never_expire(bench: &mut Bench, key: SessionKey, id: ConnectionId) {
        bench.engine.clients.sessions.get_mut(key).unwrap().expiry_interval = 10;
        let _ = bench.input(crate::Input::Closed(id));
        assert_eq!(bench.engine.check(), Ok(()));
        bench.engine.clients.cancel_away_timers(key);
    }

    /// Every contradiction between the tables is found, and an engine without one is found sound.
    #[test]
    fn planted_contradictions_are_found() {
        type Plant = fn(&mut Bench, SessionKey, ConnectionId);
        let planted: [(&str, Plant); 17] = [
            ("a Session's connection does not know it", |bench, _, id| {
                bench.engine.clients.connections.remove(id);
            }),
            ("a connection's Session does not know it", |bench, key, _| {
                bench.engine.clients.sessions.get_mut(key).unwrap().connection = None;
            }),
            ("a Session is not found by its Client Identifier", |bench, key, _| {
                bench.engine.clients.sessions.get_mut(key).unwrap().client_id = "another".into();
            }),
            ("a Session's Subscription is not in the tree", |bench, key, _| {
                bench.engine.tree.unsubscribe("a/+", key).unwrap();
            }),
            ("a Shared Subscription's count of members online is wrong", miscount),
            ("a Session's window or queue is not what it counts", |bench, key, _| {
                let session = bench.engine.clients.sessions.get_mut(key).unwrap();
                session.sender.as_mut().unwrap().queue.miscount();
            }),
            ("the gauge of stored messages is wrong", |bench, key, _| {
                let session = bench.engine.clients.sessions.get_mut(key).unwrap();
                session.sender.as_mut().unwrap().queue.pop_back().unwrap();
            }),
            ("the gauge of Subscriptions is wrong", |bench, _, _| {
                bench.engine.clients.stats.subscriptions += 1;
            }),
            ("the gauge of stored messages is wrong", |bench, _, _| {
                bench.engine.clients.stats.stored_messages -= 1;
            }),
            ("the gauge of connected clients is wrong", |bench, _, _| {
                bench.engine.clients.stats.clients_connected -= 1;
            }),
            (
                "the count of Sessions with rules of their own is wrong",
                |bench, _, _| {
                    bench.engine.clients.rights.change_own_rules(false, true);
                },
            ),
            ("the count of Sessions with a connection is wrong", |bench, _, _| {
                bench.engine.clients.settled += 1;
            }),
            ("a connection is paused, and nobody resumes it", |bench, _, id| {
                bench.engine.clients.connections.get_mut(id).unwrap().paused = true;
            }),
            ("a connection has parked, and nobody releases it", |bench, _, id| {
                park(bench, id);
                bench.engine.parking.clear();
            }),
            ("a connection that is gone is paused or has parked", |bench, _, id| {
                park(bench, id);
                bench.engine.clients.connections.get_mut(id).unwrap().parked = None;
            }),
            ("a connection that is gone is paused or has parked", |bench, _, id| {
                bench.engine.pause(crate::Now::default(), id, crate::fanout::Hold::Line);
                bench.engine.clients.connections.get_mut(id).unwrap().paused = false;
            }),
            ("a Session that is away never expires", never_expire),
        ];
        for (found, plant) in planted {
            let mut bench = Bench::new();
            let id = bench.client("reader", 1, "a/+");
            let publisher = bench.client("publisher", 10, "none");
            for packet_id in 1..=3 {
                bench.publish(publisher, "a/b", QoS::AtLeastOnce, packet_id);
            }
            assert_eq!(bench.engine.check(), Ok(()));
            let key = key_of(&bench, id);
            plant(&mut bench, key, id);
            assert_eq!(bench.engine.check(), Err(found));
        }
    }
}
