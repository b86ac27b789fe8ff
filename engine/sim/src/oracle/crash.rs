//! The broker has died and comes back with what it had kept.
//!
//! What was acknowledged stands. What was not may have been kept or not, and where that makes a difference both are
//! allowed until an answer tells:
//!
//! | | why |
//! |---|---|
//! | a publish without PUBACK or PUBREC may come or not, and comes once more when its client sends it again | it was not acknowledged; QoS 2 that was kept is known by its identifier [MQTT-4.3.3-10] |
//! | QoS 2 that somebody had no room for, and of which its publisher did not hear 0x97, does not come to them when it is sent again | that its identifier is free again was not kept: it is known by it, and is answered as what was taken |
//! | QoS 2 comes again when it is sent again, to those too who have had it, where it may have been refused before its client heard so | with 0x97 its identifier is free again, and that is written before it leaves |
//! | QoS 0 that is retained is so or not | it may be discarded at any time (section 3.3.1.3) |
//! | what was retained at QoS 0 while the disk was full is not any more, nor is what that had replaced | nothing is promised of it: it is kept in memory alone, and what it replaces is deleted |
//! | QoS 1 comes once more for each crash, as a repeat or as another delivery | whether it was sent is written beside, and nothing waits for that [MQTT-4.3.2-1] |
//! | a SUBSCRIBE or UNSUBSCRIBE without its answer has had an effect or not, for ever | nobody was told |
//! | a CONNECT without CONNACK has begun or ended a Session or not, and has changed its Will and its end or not; so has each of several, whatever became of those before, and the Will of any of them may be published | nobody was told |
//! | a Session that has ended is there again although its client was let in anew, to a Session that does not last | that CONNACK waits for what its own CONNECT has written, and for nothing before |
//! | a DISCONNECT, or the end of a connection, is forgotten if it was not kept yet: its Will may be published, and the Session lasts longer | nothing is answered to either |
//! | a Will that had been published may be published again, as QoS 2 not twice to anybody | its Session had it still |
//! | the time of who was connected begins at the restart; where the wall clock was set, that of who was away may too | never shorter than promised |
//! | a replay that was open to a Session that lasts begins anew, and I6 asks only for what comes to a connection that stands | how far it had come is not written, nor is anything waited for that says it is over |
//! | such a replay goes by the QoS of a Subscription that has taken the place of its own since, though that one did not ask for what is retained | what is kept is the Subscription as it is now, and that something is still due to it |
//! | at QoS 1 each of those replays is one more delivery, and comes once more for each crash after it: with n crashes as often as 1 + 2 + … + (n + 1) | that a client has acknowledged a delivery is written beside, and nothing waits for that |
//! | two publishes of one publisher may change their order if the former was not acknowledged | the latter may have been kept alone, and the former comes again (section 4.6 speaks of messages sent again in their order, and so it is sent) |

use std::time::Duration;

use sol_codec::QoS;
use sol_engine::{Instant, Now, UnixMillis};

use super::session::{Session, State};
use super::{At, Number, Oracle, SessionId};

/// What the world knows of a crash.
#[derive(Clone, Debug)]
pub struct Crash {
    /// All that was written before that moment was kept.
    pub horizon: At,
    /// When the broker is back.
    pub now: Now,
    /// How many messages each client's Session had lost by a full queue.
    pub dropped: std::collections::BTreeMap<usize, u64>,
}

/// What is so rare that a run says how often it came by it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Clients that may have either of two Sessions.
    pub two: Vec<usize>,
    /// A client had taken over, and nobody had been told.
    pub takeover: bool,
    /// Clients between PUBREC and PUBREL.
    pub inbound: bool,
    /// Wills that the crash itself has published.
    pub wills: bool,
    /// A Session has ended while the broker was down.
    pub expired: bool,
}

impl Oracle {
    /// The broker died at this moment, and is back.
    pub fn crash(&mut self, crash: &Crash) -> Found {
        let at = self.advance();
        let mut found = Found::default();
        self.crashes.push(at);
        self.look_at_clocks(crash.now);
        let before = std::mem::replace(&mut self.now, crash.now);
        self.doubt_open(crash.now);
        self.doubt_unwritten();
        self.revive(crash.horizon, &mut found);
        let current: Vec<(usize, SessionId)> = self.current.iter().map(|(&who, &id)| (who, id)).collect();
        for (who, id) in current {
            let session = self.session_mut(id);
            session.dropped_before += crash.dropped.get(&who).copied().unwrap_or_default();
            session.dropped = 0;
            found.takeover |= session.link.is_some() && session.active.is_none() && session.was_active;
            found.inbound |= (session.inbound.iter()).any(|packet_id| !session.unanswered.contains_key(packet_id));
            self.crash_session(id, before, crash, &mut found);
        }
        self.time(crash.now);
        found
    }

    /// How often the broker has died since.
    pub(super) fn crashes_since(&self, at: At) -> u32 {
        let later = self.crashes.len() - self.crashes.partition_point(|&crash| crash <= at);
        later as u32
    }

    /// Whether nobody has told a client yet that it has this Session.
    #[must_use]
    pub fn is_untold(&self, who: usize) -> bool {
        let session = self.current.get(&who).map(|&id| self.session(id));
        session.is_some_and(|session| !session.was_active)
    }

    /// What was published since everything was at rest, and is not acknowledged.
    fn doubt_open(&mut self, now: Now) {
        for number in self.open.clone() {
            let told = self.messages.get_mut(number);
            let (message, life) = (&told.message, &mut told.life);
            if message.is_will {
                // What its Session had, it has still, or it was published.
                (life.settled, life.replaced) = (None, None);
                life.may_come_until(after(now, u64::from(message.delay) * 1_000));
            } else if message.qos == QoS::AtMostOnce {
                life.doubtful |= message.retain && life.settled.is_none();
            } else if life.owed != life.last {
                life.doubtful = true;
                life.lost = message.qos == QoS::ExactlyOnce;
            } else if life.refused {
                life.lost = message.qos == QoS::ExactlyOnce;
            }
        }
    }

    /// Sessions that had ended may be there again, unless a client was told of another one in their place.
    fn revive(&mut self, horizon: At, found: &mut Found) {
        for id in (0..self.sessions.len()).rev() {
            let session = self.session(id);
            let Some(ended) = session.ended.filter(|&at| at >= horizon) else {
                continue;
            };
            let lasts = session.states_since(horizon).any(|state| state.expiry > 0);
            let who = session.who;
            let current = self.current.get(&who).copied();
            let may_be_back = current.is_none_or(|id| !self.session(id).was_kept);
            if may_be_back && lasts {
                if let Some(untold) = current {
                    found.two.push(who);
                    self.doubt_wills_since(untold, horizon);
                    let (at, session) = (self.at, self.session_mut(untold));
                    let will = session.will.take();
                    session.end(at);
                    self.doubt_will(will);
                }
                self.current.insert(who, id);
                self.session_mut(id).begin_again(ended);
            } else {
                self.doubt_wills_since(id, horizon);
            }
        }
    }

    /// A Session that is not taken for its client's any more may be it nevertheless, with a Will that it had at any time
    /// since: it was replaced by a CONNECT that nobody answered, and perhaps by several.
    fn doubt_wills_since(&mut self, id: SessionId, horizon: At) {
        let wills = self.session(id).states_since(horizon).filter_map(|state| state.will);
        let unpublished = wills.filter(|&number| !self.life(number).is_published());
        let unpublished: Vec<Number> = unpublished.collect();
        unpublished.into_iter().for_each(|number| self.doubt_will(Some(number)));
    }

    /// What a Session may be now: as it was last, or as it was before what was not kept.
    fn crash_session(&mut self, id: SessionId, before: Now, crash: &Crash, found: &mut Found) {
        let (at, now) = (self.at, crash.now);
        if self
            .session(id)
            .states_since(crash.horizon)
            .any(|state| state.expiry == 0)
            || self.session(id).expiry == 0
        {
            self.forgive_all_groups_of(id);
        }
        let wall_set = self.wall_set;
        let session = self.session_mut(id);
        if session.link.is_none() && session.may_be_over(before) {
            session.present = None;
        }
        let mut states: Vec<State> = session.states_since(crash.horizon).cloned().collect();
        states.push(session.state(at));
        let state = session.state(at);
        if state.expiry < u32::MAX && state.left.is_some() && session.left_at <= wall_set {
            // Nobody can say how long it was away.
            states.push(State {
                left: Some(now.wall),
                ..state
            });
        }
        let is_sure = states.len() == 1 && session.was_active && session.present.is_some();
        let ends = |state: &State| ends(state, now);
        let earliest = states
            .iter()
            .filter_map(|state| ends(state).map(|(first, _)| first))
            .min();
        let latest = states.iter().map(|state| ends(state).map(|(_, last)| last));
        let latest = latest
            .collect::<Option<Vec<Instant>>>()
            .and_then(|all| all.into_iter().max());
        let was_connected = session.link.is_some();
        if was_connected {
            session.left.push(at);
        }
        (session.link, session.active) = (None, None);
        (session.ends, session.ends_latest) = (earliest, latest);
        if session.left_wall.is_none() {
            (session.left_wall, session.left_at) = (Some(now.wall), at);
        }
        session.expiry = states.iter().map(|state| state.expiry).min().unwrap_or_default();
        session.burden.lose();
        session.latest_retained.clear();
        for s in &mut session.subscriptions {
            s.unsure |= s.ended.is_none() && (s.ending.is_some() || s.granted.is_none());
        }
        found.expired |= !was_connected && earliest.is_some_and(|end| end <= now.mono);
        if is_sure {
            let state = &states[0];
            session.will_due = state.will.map(|_| will_due(state, now));
            session.undone = states;
            found.wills |= was_connected && session.will.is_some();
            let (due, over) = (session.will_due(now), session.expiry == 0);
            if let Some(number) = due {
                session.will = None;
                self.begin_will(number);
            }
            if over {
                self.end_session(id);
            }
            return;
        }
        self.doubt_session(id, states);
    }

    /// Nobody can say which of these a Session is, or whether it is there.
    fn doubt_session(&mut self, id: SessionId, mut states: Vec<State>) {
        let session = self.session_mut(id);
        session.will = None;
        session.present = None;
        let wills: Vec<Number> = states.iter().filter_map(|state| state.will).collect();
        for state in &mut states {
            // Which of them it is shows only when somebody is told of it.
            state.at = At::MAX;
        }
        session.undone = states;
        wills.into_iter().for_each(|number| self.doubt_will(Some(number)));
    }

    /// A Will may be published or not.
    fn doubt_will(&mut self, number: Option<Number>) {
        let Some(number) = number else { return };
        self.begin_will(number);
        let until = after(self.now, u64::from(self.message(number).delay) * 1_000);
        let life = self.life_mut(number);
        life.doubtful = true;
        (life.settled, life.replaced) = (None, None);
        life.may_come_until(until);
        if !self.open.contains(&number) {
            self.open.push(number);
        }
    }
}

impl Session {
    /// It had ended, and may be there again: with what it had, or with nothing.
    fn begin_again(&mut self, ended: At) {
        self.ended = None;
        self.present = None;
        for s in &mut self.subscriptions {
            if s.ended == Some(ended) {
                (s.ended, s.granted, s.unsure) = (None, None, true);
            }
        }
    }
}

/// When a Session ends, at the earliest and at the latest; `None`: never.
fn ends(state: &State, now: Now) -> Option<(Instant, Instant)> {
    if state.expiry == u32::MAX {
        return None;
    }
    let passed = passed(state.left, now);
    let whole = u64::from(state.expiry) * 1_000;
    Some((
        after(now, whole.saturating_sub(passed)),
        after(now, whole.saturating_sub(passed / 1_000 * 1_000)),
    ))
}

fn will_due(state: &State, now: Now) -> Instant {
    let whole = u64::from(state.will_delay.min(state.expiry)) * 1_000;
    after(now, whole.saturating_sub(passed(state.left, now)))
}

/// Milliseconds that somebody has been away, by the wall clock.
fn passed(left: Option<UnixMillis>, now: Now) -> u64 {
    left.map_or(0, |left| now.wall.as_millis().saturating_sub(left.as_millis()))
}

fn after(now: Now, millis: u64) -> Instant {
    now.mono.saturating_add(Duration::from_millis(millis))
}
