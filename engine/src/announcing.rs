//! Which of a Shared Subscription's members are online, and what other shards are told of that.
//!
//! Of who joins a group they are told at once, for until they have confirmed it the SUBACK does not leave; of its last
//! member's end too, for after that nobody is to pick this shard. What else changes only shifts how the shards take turns:
//! that is told in [`Engine::tick`], in portions, once for all that came and went since, and not while a mailbox is full.

use alloc::{collections::BTreeSet, string::String};

use crate::connection::State;
use crate::effects::Effects;
use crate::engine::Engine;
use crate::ids::SessionKey;
use crate::shard_message::ShardMessage;
use crate::topic_tree::{GroupKey, Weight};

/// Bytes of announcements to each shard after which a tick tells of no further group.
const PORTION_BYTES: usize = 64 << 10;

/// Groups whose members here may be others than the other shards were told.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    groups: BTreeSet<GroupKey>,
    /// The group that had its turn last: one that changes all the time must not keep others from being told.
    latest: Option<GroupKey>,
}

impl Untold {
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(crate) fn add(&mut self, group: GroupKey) {
        self.groups.insert(group);
    }

    /// The group whose turn it is; it is untold no more.
    fn next(&mut self) -> Option<GroupKey> {
        let after = self
            .latest
            .map_or(GroupKey(0), |GroupKey(latest)| GroupKey(latest.wrapping_add(1)));
        let next = self
            .groups
            .range(after..)
            .next()
            .or_else(|| self.groups.first())
            .copied()?;
        self.groups.remove(&next);
        self.latest = Some(next);
        Some(next)
    }
}

impl Engine {
    /// A Session has been sent its CONNACK, or has lost the connection that was: its groups have one member more or less
    /// online.
    pub(crate) fn count_online(&mut self, key: SessionKey, is_online: bool) {
        let Self {
            clients,
            tree,
            links,
            untold,
            ..
        } = self;
        let session = clients.sessions.get(key);
        let subscriptions = session.and_then(|session| session.subscriptions.as_ref());
        for &group_key in subscriptions.iter().flat_map(|subscriptions| &subscriptions.groups) {
            if let Some(group) = tree.group_mut(group_key) {
                group.count_online(is_online);
            }
            if !links.is_alone() {
                untold.add(group_key);
            }
        }
    }

    /// Whether a Session's client has its CONNACK, and its connection still.
    pub(crate) fn is_online(&self, key: SessionKey) -> bool {
        let session = self.clients.sessions.get(key);
        let connection = session.and_then(|session| self.clients.connections.get(session.connection?));
        connection.is_some_and(|connection| matches!(connection.state, State::Active(..)))
    }

    /// Whether a message of a group would find a member online.
    pub(crate) fn has_member_online(&self, group: GroupKey) -> bool {
        let group = self.tree.group(group);
        group.is_some_and(|group| group.weight().online > 0 || group.remote.iter().any(|weight| weight.online > 0))
    }

    /// Tells the other shards how many members a group has here, unless they know. Returns the number of the
    /// announcement that said so last.
    pub(crate) fn announce_members(&mut self, group: GroupKey, effects: &mut Effects) -> u64 {
        let Some(known) = self.tree.group(group).filter(|_| !self.links.is_alone()) else {
            return 0;
        };
        let weight = known.weight();
        if weight == known.told {
            return known.told_by;
        }
        let Some((share, filter)) = self.group_names(group) else {
            return 0;
        };
        let n = self.announce_weight(&share, &filter, weight, effects);
        if let Some(group) = self.tree.group_mut(group) {
            (group.told, group.told_by) = (weight, n);
        }
        n
    }

    /// Tells the other shards a group's weight here.
    pub(crate) fn announce_weight(&mut self, share: &str, filter: &str, weight: Weight, effects: &mut Effects) -> u64 {
        if self.links.is_alone() {
            return 0;
        }
        let Weight { online, offline } = weight;
        let message = |n| ShardMessage::Members {
            n,
            share: String::from(share),
            filter: String::from(filter),
            online,
            offline,
        };
        self.links.announce(message, effects)
    }

    /// Whether [`announce_portion`](Self::announce_portion) has something to tell and may.
    pub(crate) fn may_announce(&self) -> bool {
        !self.untold.is_empty() && self.links.full_one().is_none()
    }

    /// Tells the other shards of groups whose members have changed, as many as are due in one tick.
    pub(crate) fn announce_portion(&mut self, effects: &mut Effects) {
        if !self.may_announce() {
            return;
        }
        let mut bytes = 0;
        while bytes < PORTION_BYTES
            && let Some(group) = self.untold.next()
        {
            let before = effects.forwards.len();
            self.announce_members(group, effects);
            let told = effects.forwards.get(before).map_or(0, |(_, message)| message.charge());
            // Looking costs something, too.
            bytes += told.max(size_of::<ShardMessage>());
        }
    }

    /// Tells the other shards of all of them: after a restart, which ends before anybody comes.
    pub(crate) fn announce_all(&mut self, effects: &mut Effects) {
        while let Some(group) = self.untold.next() {
            self.announce_members(group, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// A group that changes all the time keeps no other from being told, and one that changed twice is told once.
    #[test]
    fn groups_are_told_in_turn() {
        let mut untold = Untold::default();
        for group in [7, 3, 3, 9] {
            untold.add(GroupKey(group));
        }
        let mut told = Vec::new();
        for _ in 0..4 {
            told.extend(untold.next());
            untold.add(GroupKey(3));
        }
        assert_eq!(told, [3, 7, 9, 3].map(GroupKey));
    }
}
