//! What has a limit over all shards and is counted by name: Sessions, and the connections of each user. Nothing is counted
//! that has no limit.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::vec::Vec;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::clients::Clients;
use crate::engine::Engine;
use crate::ids::{ListenerId, SessionKey};
use crate::input::Input;
use crate::session::Session;

/// Something that is counted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tally {
    /// Sessions, of [`crate::EngineConfig::sessions_max`].
    Sessions,
    /// Connections of a user, at one listener or at all: by a keyed hash, which all shards have in common.
    User(u64),
}

/// What there is no place in for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The broker's connections, or those of its listener.
    Connections,
    /// Those of its user.
    User,
    /// Sessions.
    Sessions,
    /// Memory.
    Memory,
    /// The journal.
    Journal,
}

/// What one CONNECT may add to: all Sessions, the user's connections, and these at the listener.
pub const TALLIES_MAX: usize = 3;

/// As whose user somebody connects.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct NamedUser<'a> {
    pub(crate) name: &'a str,
    /// An authenticator has confirmed the name. Where anybody may give it, it is another user's: or strangers would take
    /// his places.
    pub(crate) vouched: bool,
}

/// What this shard counts, and what it was told of the others.
#[derive(Debug)]
pub(crate) struct Tallies {
    counts: HashMap<Tally, Count, RandomState>,
    /// Those of which the others have to be told.
    changed: Vec<Tally>,
    elsewhere: [Option<(Tally, usize)>; TALLIES_MAX],
    names: RandomState,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    now: usize,
    /// What the others know of.
    told: usize,
    is_changed: bool,
}

impl Tallies {
    pub(crate) fn new(hasher: RandomState, names: RandomState) -> Self {
        Self {
            counts: HashMap::with_hasher(hasher),
            changed: Vec::new(),
            elsewhere: [None; TALLIES_MAX],
            names,
        }
    }

    fn user(&self, scope: Option<ListenerId>, user: NamedUser<'_>) -> Tally {
        Tally::User(self.names.hash_one((scope.map(|listener| listener.0), user)))
    }

    fn set(&mut self, tally: Tally, change: impl FnOnce(usize) -> usize) {
        let count = self.counts.entry(tally).or_default();
        count.now = change(count.now);
        if !core::mem::replace(&mut count.is_changed, true) {
            self.changed.push(tally);
        }
    }

    fn here(&self, tally: Tally) -> usize {
        self.counts.get(&tally).map_or(0, |count| count.now)
    }

    pub(crate) const fn set_elsewhere(&mut self, elsewhere: [Option<(Tally, usize)>; TALLIES_MAX]) {
        self.elsewhere = elsewhere;
    }

    fn elsewhere(&self, tally: Tally) -> usize {
        let told = self.elsewhere.iter().flatten().find(|(told, _)| *told == tally);
        told.map_or(0, |&(_, count)| count)
    }

    fn next_change(&mut self) -> Option<(Tally, isize)> {
        while let Some(tally) = self.changed.pop() {
            let Some(count) = self.counts.get_mut(&tally) else {
                continue;
            };
            let grown = (count.now as isize).wrapping_sub(count.told as isize);
            count.told = count.now;
            count.is_changed = false;
            if count.now == 0 {
                self.counts.remove(&tally);
            }
            if grown != 0 {
                return Some((tally, grown));
            }
        }
        None
    }
}

impl Clients {
    /// Where the connections of a user are counted, with how many there may be; nowhere, where they have no limit.
    fn tallies_of_user(&self, listener: ListenerId, user: Option<NamedUser<'_>>) -> [Option<(Tally, usize)>; 2] {
        let limited = |max: usize, scope| {
            let user = user.filter(|_| max < usize::MAX)?;
            Some((self.tallies.user(scope, user), max))
        };
        let own = self.config.terms(listener);
        let own = own.map_or(usize::MAX, |terms| terms.connections_per_user_max);
        [
            limited(self.config.connections_per_user_max, None),
            limited(own, Some(self.config.counted_at(listener))),
        ]
    }

    fn tallies_of_session(&self, session: &Session) -> [Option<(Tally, usize)>; 2] {
        let user = session.user.as_deref().map(|user| NamedUser {
            name: &user.name,
            vouched: user.vouched,
        });
        self.tallies_of_user(session.standing.get().listener(), user)
    }

    /// A Session has got a connection, or has lost it.
    pub(crate) fn count_user(&mut self, key: SessionKey, comes: bool) {
        let Some(session) = self.sessions.get(key) else { return };
        for (tally, _) in self.tallies_of_session(session).into_iter().flatten() {
            self.tallies.set(tally, |now| {
                if comes {
                    now.saturating_add(1)
                } else {
                    now.saturating_sub(1)
                }
            });
        }
    }

    /// Other limits are in force: what is counted may be something else.
    pub(crate) fn recount_users(&mut self) {
        let counted: Vec<Tally> = self.tallies.counts.keys().copied().collect();
        for tally in counted.into_iter().filter(|tally| matches!(tally, Tally::User(_))) {
            self.tallies.set(tally, |_| 0);
        }
        let online = self.sessions.iter().filter(|(_, session)| session.connection.is_some());
        let keys: Vec<SessionKey> = online.map(|(key, _)| key).collect();
        for key in keys {
            self.count_user(key, true);
        }
    }

    /// Whether there is one too many with who comes: of Sessions, or of his user's connections. Who takes a connection of
    /// his own over needs no place.
    pub(crate) fn tallies_full(
        &self,
        listener: ListenerId,
        user: Option<NamedUser<'_>>,
        known: Option<SessionKey>,
    ) -> Option<Full> {
        let sessions = self
            .sessions
            .len()
            .saturating_add(self.tallies.elsewhere(Tally::Sessions));
        if known.is_none() && sessions >= self.config.sessions_max {
            return Some(Full::Sessions);
        }
        let old = known.and_then(|key| self.sessions.get(key));
        let old = old.filter(|session| session.connection.is_some());
        let gives_back = old.map(|session| self.tallies_of_session(session)).unwrap_or_default();
        let is_full = |&(tally, max): &(Tally, usize)| {
            let has_place = gives_back.iter().flatten().any(|&(old, _)| old == tally);
            let count = self.tallies.here(tally).saturating_add(self.tallies.elsewhere(tally));
            !has_place && count >= max
        };
        let full = self.tallies_of_user(listener, user);
        full.iter().flatten().any(is_full).then_some(Full::User)
    }

    /// Whether the counts are right of what has a limit.
    pub(crate) fn check_tallies(&self) -> Result<(), &'static str> {
        let mut counted = HashMap::with_hasher(self.tallies.names.clone());
        for (_, session) in self.sessions.iter().filter(|(_, session)| session.connection.is_some()) {
            for (tally, _) in self.tallies_of_session(session).into_iter().flatten() {
                let count: &mut usize = counted.entry(tally).or_default();
                *count = count.saturating_add(1);
            }
        }
        let users = self.tallies.counts.iter();
        let mut users = users.filter(|(tally, count)| matches!(tally, Tally::User(_)) && count.now > 0);
        let is_right = users.clone().count() == counted.len()
            && users.all(|(tally, count)| counted.get(tally) == Some(&count.now));
        is_right
            .then_some(())
            .ok_or("the count of a user's connections is wrong")
    }
}

impl Engine {
    /// What an input may add to that may let a connection in here ([`Engine::may_let_in`]), of what is counted by name and
    /// has a limit. [`crate::Elsewhere::Tallies`] must tell before it how much of each there is on other shards.
    #[must_use]
    pub fn limited_tallies(&self, input: &Input<'_>) -> [Option<Tally>; TALLIES_MAX] {
        let has_limit = self.clients.config.sessions_max < usize::MAX;
        let sessions = has_limit.then_some(Tally::Sessions);
        let [all, own] = match self.comes_as(input) {
            Some((listener, user)) => self.clients.tallies_of_user(listener, user),
            None => [None; 2],
        };
        [sessions, all.map(|(tally, _)| tally), own.map(|(tally, _)| tally)]
    }

    /// How much of a tally there is here: what the others were told, when [`Engine::next_tally_change`] has no more.
    #[must_use]
    pub fn tally(&self, tally: Tally) -> usize {
        match tally {
            Tally::Sessions => self.clients.sessions.len(),
            Tally::User(_) => self.clients.tallies.here(tally),
        }
    }

    /// What has become more or less here since the others were told, one after the other.
    pub fn next_tally_change(&mut self) -> Option<(Tally, isize)> {
        if self.clients.config.sessions_max < usize::MAX {
            let sessions = self.clients.sessions.len();
            if self.clients.tallies.here(Tally::Sessions) != sessions {
                self.clients.tallies.set(Tally::Sessions, |_| sessions);
            }
        }
        self.clients.tallies.next_change()
    }
}
