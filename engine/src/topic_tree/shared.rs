//! Shared Subscriptions (4.8.2): groups below a filter, by ShareName.
//!
//! Who gets a message is not decided here: a [`Group`] holds what the choice needs.

use alloc::vec::Vec;

use super::listeners::{insert_sorted, remove_sorted};
use super::texts::TextId;
use super::{FilterKey, Subscription, TopicTree, bit};
use crate::ids::SessionKey;
use crate::tight;

/// Names one group while it has a member here or elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupKey(pub u32);

/// The Sessions that share one ShareName and Topic Filter.
#[derive(Debug)]
pub struct Group {
    /// Members on this shard, in the order of their Sessions.
    pub members: Vec<Subscription>,
    /// Members on other shards, in the order of the shards; none with nobody.
    pub remote: Vec<RemoteWeight>,
    /// Which shard's turn it is; any number, for whoever chooses.
    pub turn: u32,
    /// Which member's turn it is on this shard; counted apart, or an even number of members would never take turns.
    pub member_turn: u32,
    /// What other shards were told of the members here.
    pub told: Weight,
    /// The announcement that told them; 0 for none.
    pub told_by: u64,
    /// Members here that are online, as they were counted.
    online: u32,
    share: TextId,
    filter: FilterKey,
}

/// How many members of a group one shard has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Weight {
    /// Members that are online.
    pub online: u32,
    /// Members that are not and whose Session keeps messages for them.
    pub offline: u32,
}

/// How many members of a group one other shard has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteWeight {
    /// The other shard.
    pub shard: u16,
    /// Members with a Network Connection.
    pub online: u32,
    /// Members without one whose Session keeps messages for them.
    pub offline: u32,
}

/// What [`TopicTree::group_join`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupJoin {
    /// The filter that the group is below.
    pub key: FilterKey,
    /// The group.
    pub group: GroupKey,
    /// The member's former Subscription.
    pub replaced: Option<Subscription>,
    /// Whether it is the group's only member on this shard.
    pub first: bool,
}

/// What [`TopicTree::group_leave`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupLeave {
    /// The filter that the group is, or was, below.
    pub key: FilterKey,
    /// The group, which is gone if `last` and no other shard has members.
    pub group: GroupKey,
    /// Whether the group has no member left on this shard.
    pub last: bool,
}

impl Group {
    /// How many members this shard has.
    #[must_use]
    pub const fn weight(&self) -> Weight {
        Weight {
            online: self.online,
            offline: self.members.len() as u32 - self.online,
        }
    }

    /// The shard whose turn it is among `me` and the others, by the number of their members online, or of all they have
    /// if nobody is online anywhere; never `except`.
    pub fn take_turn(&mut self, me: u16, except: u64) -> Option<u16> {
        let Weight { online, offline } = self.weight();
        let here = RemoteWeight {
            shard: me,
            online,
            offline,
        };
        let shards = || {
            let all = core::iter::once(&here).chain(&self.remote);
            all.filter(|weight| except & bit(weight.shard) == 0)
        };
        let online: u32 = shards().map(|weight| weight.online).sum();
        let of = |weight: &RemoteWeight| if online > 0 { weight.online } else { weight.offline };
        let total: u32 = if online > 0 { online } else { shards().map(of).sum() };
        let turn = self.turn.wrapping_add(1);
        let mut ticket = turn.checked_rem(total)?;
        let picked = shards().find(|&weight| {
            let weight = of(weight);
            let is_it = ticket < weight;
            ticket = ticket.saturating_sub(weight);
            is_it
        });
        let picked = picked.map(|weight| weight.shard);
        self.turn = turn;
        picked
    }

    /// One member of those here has come online, or is so no more.
    pub const fn count_online(&mut self, is_online: bool) {
        if is_online {
            self.online += 1;
        } else {
            self.online -= 1;
        }
    }
}

impl TopicTree {
    /// Notes by which rules a member may read all that the group's filter matches.
    pub fn mark_member_readable(&mut self, group: GroupKey, session: SessionKey, readable: u16) {
        let members = self.group_mut(group).map(|group| &mut group.members);
        if let Some(members) = members
            && let Ok(at) = members.binary_search_by_key(&session, |member| member.session)
            && let Some(member) = members.get_mut(at)
        {
            member.readable = readable;
        }
    }

    /// Adds a member, or replaces its Subscription [MQTT-3.8.4-3]. A new one counts as online if it is said to be.
    pub fn group_join(&mut self, filter: &str, share: &str, member: Subscription, is_online: bool) -> GroupJoin {
        let group = self.make_group(filter, share);
        let Group {
            members,
            online,
            filter: key,
            ..
        } = self.groups.at_mut(group.0);
        let replaced = insert_sorted(members, member);
        *online += u32::from(is_online && replaced.is_none());
        GroupJoin {
            key: *key,
            group,
            replaced,
            first: members.len() == 1 && replaced.is_none(),
        }
    }

    /// Removes a member, which was counted as online or not; `None` if it was none.
    pub fn group_leave(&mut self, group: GroupKey, session: SessionKey, is_online: bool) -> Option<GroupLeave> {
        let Group {
            members,
            online,
            filter,
            ..
        } = self.groups.get_mut(group.0)?;
        let key = *filter;
        remove_sorted(members, session)?;
        *online -= u32::from(is_online);
        let last = members.is_empty();
        self.forget_empty_group(group);
        Some(GroupLeave { key, group, last })
    }

    /// Says how many members another shard has; with none at all it is forgotten.
    pub fn group_set_remote(&mut self, filter: &str, share: &str, shard: u16, online: u32, offline: u32) {
        let weight = RemoteWeight { shard, online, offline };
        if online > 0 || offline > 0 {
            let group = self.make_group(filter, share);
            let remote = &mut self.groups.at_mut(group.0).remote;
            let at = remote.partition_point(|known| known.shard < shard);
            match remote.get_mut(at).filter(|known| known.shard == shard) {
                Some(known) => *known = weight,
                None => tight::insert(remote, at, weight),
            }
        } else if let Some(group) = self.find_group(filter, share) {
            self.groups
                .at_mut(group.0)
                .remote
                .retain(|weight| weight.shard != shard);
            self.forget_empty_group(group);
        }
    }

    /// The group of that ShareName below that filter.
    #[must_use]
    pub fn find_group(&self, filter: &str, share: &str) -> Option<GroupKey> {
        let groups = self.listeners(self.find_key(filter)?)?.groups();
        let share = self.shares.find(share)?;
        groups.get(self.group_position(groups, share).ok()?).copied()
    }

    /// The group, or `None` if it is gone.
    #[must_use]
    pub fn group(&self, key: GroupKey) -> Option<&Group> {
        self.groups.get(key.0)
    }

    /// The group, to take turns, or `None` if it is gone.
    pub fn group_mut(&mut self, key: GroupKey) -> Option<&mut Group> {
        self.groups.get_mut(key.0)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// The group's ShareName and filter.
    #[must_use]
    pub fn group_name(&self, key: GroupKey) -> Option<(&str, FilterKey)> {
        let group = self.groups.get(key.0)?;
        Some((self.shares.text(group.share), group.filter))
    }

    fn make_group(&mut self, filter: &str, share: &str) -> GroupKey {
        if let Some(group) = self.find_group(filter, share) {
            return group;
        }
        let key = self.make_key(filter);
        let share = self.shares.hold(share);
        let group = Group {
            members: Vec::new(),
            remote: Vec::new(),
            turn: 0,
            member_turn: 0,
            told: Weight::default(),
            told_by: 0,
            online: 0,
            share,
            filter: key,
        };
        let group = GroupKey(self.groups.insert(group));
        let at = match self.listeners(key) {
            Some(listeners) => self.group_position(listeners.groups(), share).unwrap_or_else(|at| at),
            None => 0,
        };
        if let Some(listeners) = self.listeners_mut(key) {
            tight::insert(&mut listeners.many().groups, at, group);
        }
        self.generation += 1;
        group
    }

    fn group_position(&self, groups: &[GroupKey], share: TextId) -> Result<usize, usize> {
        groups.binary_search_by_key(&share, |group| self.groups.at(group.0).share)
    }

    fn forget_empty_group(&mut self, key: GroupKey) {
        let Group {
            members,
            remote,
            share,
            filter,
            ..
        } = self.groups.at(key.0);
        if !members.is_empty() || !remote.is_empty() {
            return;
        }
        let (share, filter) = (*share, *filter);
        let at = self
            .listeners(filter)
            .and_then(|listeners| self.group_position(listeners.groups(), share).ok());
        if let (Some(at), Some(listeners)) = (at, self.listeners_mut(filter)) {
            listeners.many().groups.remove(at);
            listeners.settle();
        }
        self.groups.remove(key.0);
        self.shares.release(share);
        self.forget_idle_filter(filter);
        self.generation += 1;
    }
}
