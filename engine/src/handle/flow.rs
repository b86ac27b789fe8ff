//! What the transport says of a connection's bytes: congested, drained; and who must leave, one or all.

use alloc::collections::BTreeMap;

use sol_codec::mutants::mutant;

use crate::clients::Reason;
use crate::connection::Marks;
use crate::effects::Effects;
use crate::engine::Engine;
use crate::event::Cause;
use crate::fanout::Hold;
use crate::ids::{ConnectionId, ListenerId, ShardId};
use crate::input::{ChangedUser, UserChange};
use crate::time::Now;

impl Engine {
    /// The kernel did not take everything: from now on bytes add up.
    pub(crate) fn on_congested(&mut self, now: Now, id: ConnectionId, unsent: u32) {
        let (limit, patience) = (
            self.clients.config.unsent_bytes_max,
            self.clients.config.congested_time_max,
        );
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return;
        };
        if connection.congested && unsent < connection.unsent {
            connection.marks.set(Marks::DRAINING);
        }
        connection.congested = true;
        connection.unsent = unsent;
        if connection.congested_timer.is_none() {
            let deadline = now.mono.saturating_add(patience);
            connection.congested_timer = Some(self.clients.timers.insert(deadline, Reason::Congested(id)));
        }
        if unsent > limit {
            self.clients.doom(id, Cause::Slow);
        }
    }

    /// A connection has been congested for as long as may be. If it took anything in that time it is slow, not stuck.
    pub(crate) fn on_congested_for_long(&mut self, now: Now, id: ConnectionId) {
        let patience = self.clients.config.congested_time_max;
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return;
        };
        connection.congested_timer = None;
        if connection.marks.take(Marks::DRAINING) {
            let deadline = now.mono.saturating_add(patience);
            connection.congested_timer = Some(self.clients.timers.insert(deadline, Reason::Congested(id)));
        } else {
            self.clients.doom(id, Cause::Slow);
        }
    }

    /// All bytes have left: what waited for that goes on.
    pub(crate) fn on_drained(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return;
        };
        connection.congested = false;
        connection.marks.take(Marks::DRAINING);
        connection.unsent = 0;
        if let Some(timer) = connection.congested_timer.take() {
            self.clients.timers.cancel(timer);
        }
        if let Some(key) = connection.session() {
            self.clients.pump(now, key, effects);
            self.replay(now, key, effects);
        }
    }

    /// Another shard's mailbox is above its mark, or below it again.
    pub(crate) fn on_peer(&mut self, now: Now, shard: ShardId, full: bool, effects: &mut Effects) {
        if let Some(link) = self.links.link_mut(shard) {
            link.full = full;
        }
        if !full && !mutant("shards/peer-stays-full") {
            self.resume(now, Hold::Shard(shard), effects);
        }
    }

    /// Ends the connections of logins that may be wrong now, and notes whose Sessions have no owner any more, or have him
    /// again.
    pub(crate) fn on_users(&mut self, now: Now, changed: &[ChangedUser], effects: &mut Effects) {
        let revokes = changed.iter().any(|changed| changed.change != UserChange::Added);
        self.revocations += u64::from(revokes);
        let changes: BTreeMap<&str, UserChange> = changed
            .iter()
            .map(|changed| (&*changed.username, changed.change))
            .collect();
        let mut ends = alloc::vec::Vec::new();
        for session in self.clients.sessions.iter_mut() {
            if let Some(user) = session.user.as_deref_mut()
                && user.vouched
                && !user.granted
                && let Some(&change) = changes.get(&*user.name)
            {
                user.is_gone = change == UserChange::Gone;
                if change != UserChange::Added {
                    ends.extend(session.connection);
                }
            }
        }
        for id in ends {
            self.end_connection(now, id, Cause::Revoked, effects);
        }
    }

    /// Ends the connections that grants have let in at these listeners. Those whose logins are on their way are asked about
    /// again.
    pub(crate) fn on_grants_end(&mut self, now: Now, listeners: &[ListenerId], effects: &mut Effects) {
        self.revocations += 1;
        let sessions = self.clients.sessions.iter_mut();
        let granted = sessions.filter(|session| session.user.as_deref().is_some_and(|user| user.granted));
        let there = granted.filter(|session| listeners.contains(&session.standing.get().listener()));
        let ends: alloc::vec::Vec<_> = there.filter_map(|session| session.connection).collect();
        for id in ends {
            self.end_connection(now, id, Cause::Revoked, effects);
        }
    }

    /// The broker stops: everybody is told [MQTT-3.14.0-1], and no new client comes in.
    pub(crate) fn on_shutdown(&mut self, now: Now, effects: &mut Effects) {
        self.stopping = true;
        let all: alloc::vec::Vec<_> = self.clients.connections.iter().map(|(id, _)| id).collect();
        for id in all {
            self.end_connection(now, id, Cause::Shutdown, effects);
        }
    }
}
