//! What each deadline does.

use core::time::Duration;

use sol_codec::mutants::mutant;

use crate::clients::{Clients, Reason};
use crate::effects::Effects;
use crate::engine::Engine;
use crate::event::Cause;
use crate::ids::{ConnectionId, SessionKey};
use crate::rare::Rare;
use crate::session::AwayTimers;
use crate::session::sessions::SessionRef;
use crate::time::{Instant, Now, UnixMillis};

/// Deadlines handled in one tick; the rest is due in the next, so that a million at once are sliced.
const DEADLINES_MAX: usize = 1_024;
/// How often expired retained messages are looked for, and how soon the next slice follows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
const SWEEP_SLICE: Duration = Duration::from_millis(50);
/// How long a login that has expired by the wall clock may go unnoticed.
const LOGIN_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// A Keep Alive that is judged so much too late finds a shard that stood still: what the client sent meanwhile may lie
/// unread.
const STALL_MIN: Duration = Duration::from_millis(500);
/// How long it may take to read that, once for each silence.
const STALL_GRACE: Duration = Duration::from_secs(1);
/// When a client was last heard that has had its grace and was not heard since.
const NOT_SINCE_GRACE: Instant = Instant::from_nanos(u64::MAX);

impl Engine {
    /// Handles the deadlines that have passed.
    pub(crate) fn expire(&mut self, now: Now, effects: &mut Effects) {
        for _ in 0..DEADLINES_MAX {
            let Some(reason) = self.clients.timers.pop_due(now.mono) else {
                return;
            };
            match reason {
                Reason::KeepAlive(id) => self.on_keep_alive(now, id, effects),
                Reason::Congested(id) => self.on_congested_for_long(now, id),
                Reason::LoginExpiry(id) => self.on_login_expiry(now, id, effects),
                Reason::Paused(id) => self.end_connection(now, id, Cause::Paused, effects),
                Reason::Hurried(id) => self.on_waited(now, id, effects),
                Reason::Parked(id) => self.end_parked(now, id, effects),
                Reason::WillDelay(session) => {
                    if let Some(key) = self.away(session, |timers| timers.will = None) {
                        self.on_will_delay(now, key, effects);
                    }
                }
                Reason::SessionExpiry(session) => {
                    if let Some(key) = self.away(session, |timers| timers.expiry = None) {
                        self.clients.stats.clients_expired += 1;
                        self.end_session(now, key, effects);
                    }
                }
                Reason::SweepRetained => {
                    self.sweep_retained(now, effects);
                    let next = if self.sweep_after.is_some() {
                        SWEEP_SLICE
                    } else {
                        SWEEP_INTERVAL
                    };
                    self.clients
                        .timers
                        .insert(now.mono.saturating_add(next), Reason::SweepRetained);
                }
            }
        }
    }

    /// Begins to look for expired retained messages; called once, when the first message that can expire is kept.
    pub(crate) fn start_sweeping(&mut self, now: Now) {
        self.clients
            .timers
            .insert(now.mono.saturating_add(SWEEP_INTERVAL), Reason::SweepRetained);
    }

    /// Silence for one and a half Keep Alives ends the connection [MQTT-3.1.2-22]. Anything heard since only moves the
    /// deadline, which is why packets do not touch the timer; and while we do not listen, it does not run.
    fn on_keep_alive(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        let Some(connection) = self.clients.connections.get_mut(id) else {
            return;
        };
        connection.timer = None;
        if connection.paused {
            connection.last_heard = now.mono;
        }
        let mut deadline = connection.last_heard.saturating_add(patience(connection.keep_alive));
        let had_grace = connection.last_heard == NOT_SINCE_GRACE;
        if !had_grace && now.mono.saturating_since(deadline) >= STALL_MIN {
            deadline = now.mono.saturating_add(STALL_GRACE);
            connection.last_heard = NOT_SINCE_GRACE;
        }
        if had_grace || deadline <= now.mono {
            self.end_connection(now, id, Cause::KeepAlive, effects);
        } else {
            connection.timer = Some(self.clients.timers.insert(deadline, Reason::KeepAlive(id)));
        }
    }

    /// A login is over, unless the wall clock says that it lasts on.
    fn on_login_expiry(&mut self, now: Now, id: ConnectionId, effects: &mut Effects) {
        let Some((expires_at, _)) = self.clients.expiring.remove(&id) else {
            return;
        };
        if expires_at > now.wall {
            self.clients.arm_login_expiry(now, id, expires_at);
        } else {
            self.end_connection(now, id, Cause::LoginExpired, effects);
        }
    }

    /// A Will's delay is over. The Session goes on being away, for as long as it has been.
    pub(crate) fn on_will_delay(&mut self, now: Now, key: SessionKey, effects: &mut Effects) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let delay = session
            .will
            .as_ref()
            .map_or(0, |will| will.delay.min(session.expiry_interval));
        self.clients.note_rare(Rare::WillDelayed);
        let since = now.wall.as_millis().saturating_sub(u64::from(delay) * 1_000);
        self.fire_will(now, key, effects);
        self.clients
            .write_session_away(key, UnixMillis::from_millis(since), effects);
    }

    fn away(&mut self, session: SessionRef, clear: impl FnOnce(&mut AwayTimers)) -> Option<SessionKey> {
        let key = self.clients.sessions.resolve(session)?;
        self.clients.away_timers(key, clear);
        Some(key)
    }
}

impl Clients {
    /// Starts the Keep Alive of a connection, if it has one.
    pub(crate) fn arm_keep_alive(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.keep_alive > 0 {
            let deadline = now.mono.saturating_add(patience(connection.keep_alive));
            connection.timer = Some(self.timers.insert(deadline, Reason::KeepAlive(id)));
        }
    }

    /// Starts the time until a connection's login is over, if it ever is. The wall clock is looked at now and then meanwhile: it
    /// may be set, and a machine that sleeps has deadlines stand still.
    pub(crate) fn arm_login_expiry(&mut self, now: Now, id: ConnectionId, expires_at: UnixMillis) {
        if expires_at == UnixMillis::NEVER {
            return;
        }
        let left = expires_at.as_millis().saturating_sub(now.wall.as_millis());
        let deadline = now
            .mono
            .saturating_add(Duration::from_millis(left).min(LOGIN_CHECK_INTERVAL));
        let timer = self.timers.insert(deadline, Reason::LoginExpiry(id));
        self.expiring.insert(id, (expires_at, timer));
    }

    /// Changes the deadlines of a Session that is away.
    pub(crate) fn away_timers(&mut self, key: SessionKey, change: impl FnOnce(&mut AwayTimers)) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut timers = session.timers.take().unwrap_or_default();
        change(&mut timers);
        if timers.will.is_some() || timers.expiry.is_some() {
            session.timers = Some(timers);
        }
    }

    /// The Session is not away any more, or ends.
    pub(crate) fn cancel_away_timers(&mut self, key: SessionKey) {
        let Some(timers) = self.sessions.get_mut(key).and_then(|session| session.timers.take()) else {
            return;
        };
        let AwayTimers { will, expiry } = *timers;
        for timer in [will, expiry].into_iter().flatten() {
            self.timers.cancel(timer);
        }
    }
}

/// One and a half Keep Alives.
fn patience(keep_alive: u16) -> Duration {
    let millis = if mutant("5.0/3.1.2-22") { 3_000 } else { 1_500 };
    Duration::from_millis(u64::from(keep_alive) * millis)
}
