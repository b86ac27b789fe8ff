//! Subscriptions of whose filter their Session may read every topic are marked, so that no message has to be judged.
//!
//! A mark is the number of the rules that it was found by; under other rules it says nothing, and messages are judged one
//! by one until the Subscription is looked at again. So marks are never waited for.

use alloc::string::String;

use crate::engine::Engine;
use crate::ids::{ConnectionId, ListenerId, SessionKey};
use crate::rights::Standing;
use crate::session::User;
use crate::topic_tree::{FilterKey, GroupKey};

/// Subscriptions and empty places looked at in one tick.
const PORTION: usize = 1_024;

/// Where the look at all Subscriptions has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marking {
    session: u32,
    /// Of the Session's Subscriptions, Shared ones last.
    nth: usize,
}

impl Engine {
    /// The mark of a Session's Subscription to a filter, without its `$share/`.
    pub(crate) fn readable_mark(&mut self, key: SessionKey, filter: &str) -> u16 {
        let clients = &mut self.clients;
        match clients.sessions.get(key) {
            Some(session) if clients.rights.may_read_all(session, filter) => clients.rights.mark().get(),
            // Under no rules that is the mark of everybody.
            _ => 0,
        }
    }

    /// Other rules are in force, or none any more, or there are Subscriptions that nobody has looked at.
    pub(crate) fn start_marking(&mut self) {
        self.marking = Some(Marking::default());
    }

    /// A Session has this connection now, and is this user's. If that is news, its rights are others, and what was found
    /// of its Subscriptions says nothing.
    pub(crate) fn set_owner(&mut self, id: ConnectionId, key: SessionKey, user: Option<User>) {
        let connection = self.clients.connections.get(id);
        let listener = connection.map_or(ListenerId(0), |connection| connection.listener);
        let is_known = self.clients.sessions.get(key).is_some_and(|session| {
            let is_same =
                |old: &User, new: &User| (&old.name, old.vouched, &old.rules) == (&new.name, new.vouched, &new.rules);
            let user = match (session.user.as_deref(), &user) {
                (Some(old), Some(new)) => is_same(old, new),
                (old, new) => old.is_none() && new.is_none(),
            };
            user && session.standing.get().listener() == listener
        });
        if self.clients.set_user(key, user) {
            self.start_marking();
        }
        if is_known {
            return;
        }
        if let Some(session) = self.clients.sessions.get(key) {
            session.standing.set(Standing::at(listener));
        }
        // An open fan-out has it among its targets with the old marks.
        self.line.review();
        if self.clients.rights.are_limited() {
            self.clients.rights.forget_clients();
            self.mark_anew(key);
        }
    }

    fn mark_anew(&mut self, key: SessionKey) {
        self.clients.rights.begin();
        for nth in 0.. {
            if !self.mark_nth(key, nth) {
                return;
            }
        }
    }

    /// Goes on with the look at all Subscriptions, a bounded portion at a time.
    pub(crate) fn mark_portion(&mut self) {
        let Some(Marking { mut session, mut nth }) = self.marking.take() else {
            return;
        };
        self.clients.rights.begin();
        let end = self.clients.sessions.slots();
        for _ in 0..PORTION {
            if session >= end {
                return;
            }
            if self.mark_nth(SessionKey(session), nth) {
                nth += 1;
            } else {
                (session, nth) = (session + 1, 0);
            }
        }
        self.marking = Some(Marking { session, nth });
    }

    /// Looks at one of a Session's Subscriptions; `false`: there are no more.
    fn mark_nth(&mut self, key: SessionKey, nth: usize) -> bool {
        let Some(subscriptions) = self.clients.sessions.get(key).and_then(|s| s.subscriptions.as_deref()) else {
            return false;
        };
        let (filters, groups) = (&subscriptions.filters, &subscriptions.groups);
        if let Some(&filter) = filters.get(nth) {
            self.mark_filter(key, filter);
            return true;
        }
        let group = nth.checked_sub(filters.len()).and_then(|nth| groups.get(nth)).copied();
        if let Some(group) = group {
            self.mark_member(key, group);
        }
        group.is_some()
    }

    fn mark_filter(&mut self, key: SessionKey, filter: FilterKey) {
        let mut text = String::new();
        self.tree.filter_of(filter, &mut text);
        let mark = self.readable_mark(key, &text);
        self.tree.mark_readable(filter, key, mark);
    }

    fn mark_member(&mut self, key: SessionKey, group: GroupKey) {
        if let Some((_, filter)) = self.group_names(group) {
            let mark = self.readable_mark(key, &filter);
            self.tree.mark_member_readable(group, key, mark);
        }
    }
}
