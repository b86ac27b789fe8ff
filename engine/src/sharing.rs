//! Shared Subscriptions (section 4.8.2): which shard, which member, and what happens when a member is lost.

use alloc::{rc::Rc, string::String, vec::Vec};

use sol_codec::mutants::mutant;
use sol_codec::{QoS, SubscriptionId};

use crate::clients::{Clients, Delivered, How};
use crate::config::QueueFull;
use crate::effects::Effects;
use crate::engine::Engine;
use crate::ids::{SessionKey, ShardId};
use crate::message::Message;
use crate::rare::{DropCause, Rare};
use crate::rights::{Action, may};
use crate::route::{Outcome, Publish, Source, share_extra};
use crate::session::sender::Owed;
use crate::shard_message::GroupPick;
use crate::subscription::Options;
use crate::time::Now;
use crate::topic_tree::{GroupKey, bit};

/// Where a Shared Subscription's message goes.
enum Picked {
    Here,
    There(ShardId),
    Nobody,
}

impl Engine {
    /// Hands a client's message to one member of every Shared Subscription that matches, as far as this call's work
    /// goes. Returns how many have it.
    pub(crate) fn share(
        &mut self,
        now: Now,
        publish: &Publish,
        groups: &[GroupKey],
        outcome: &mut Outcome,
        effects: &mut Effects,
    ) -> usize {
        for (done, &group) in groups.iter().enumerate() {
            if self.has_done_enough(effects) {
                return done;
            }
            self.share_one(now, publish, group, outcome, effects);
        }
        groups.len()
    }

    /// Hands a message to one member of a Shared Subscription.
    pub(crate) fn share_one(
        &mut self,
        now: Now,
        publish: &Publish,
        group: GroupKey,
        outcome: &mut Outcome,
        effects: &mut Effects,
    ) {
        self.work += 1;
        match self.pick_shard(group, 0) {
            Picked::Here => {
                let may_refuse = publish.source.may_refuse();
                let delivered = self.give_to_member(now, group, None, &publish.message, may_refuse, effects);
                // Elsewhere a member may have nothing written for it.
                let has_no_room = delivered == Some(Delivered::Refused) && self.clients.journal.is_full;
                if (delivered.is_none() || has_no_room) && self.pass_on(group, 0) {
                    return;
                }
                let delivered = self.count_given(delivered, may_refuse);
                outcome.refused |= delivered == Some(Delivered::Refused);
            }
            Picked::There(shard) => {
                self.share_there(shard, group, 0);
            }
            Picked::Nobody => self.clients.count_dropped(DropCause::NoMember),
        }
    }

    /// Nobody here could be given the message, nor on the shards `tried`: another one shares it. `false`: there is none.
    fn pass_on(&mut self, group: GroupKey, tried: u64) -> bool {
        let tried = tried | bit(self.shard.0);
        matches!(self.pick_shard(group, tried), Picked::There(shard) if self.share_there(shard, group, tried))
    }

    /// Has a shard share the message. `false`: the group is gone.
    fn share_there(&mut self, shard: ShardId, group: GroupKey, tried: u64) -> bool {
        let Some((share, filter)) = self.group_names(group) else {
            return false;
        };
        self.post_pick(shard, GroupPick { share, filter, tried });
        true
    }

    /// Another shard picked this one. Returns whether the message was refused.
    pub(crate) fn share_picked(
        &mut self,
        now: Now,
        message: &Rc<Message>,
        pick: &GroupPick,
        may_refuse: bool,
        effects: &mut Effects,
    ) -> bool {
        let Some(group) = self.tree.find_group(&pick.filter, &pick.share) else {
            self.clients.count_dropped(DropCause::NoMember);
            return false;
        };
        let delivered = self.give_to_member(now, group, None, message, may_refuse, effects);
        if delivered.is_some() {
            return self.count_given(delivered, may_refuse) == Some(Delivered::Refused);
        }
        // Its members left while the message was on its way, or have no right to it.
        if self.pass_on(group, pick.tried) {
            self.clients.note_rare(Rare::PickPassedOn);
        } else {
            self.clients.note_rare(Rare::PickLost);
            self.clients.count_dropped(DropCause::NoMember);
        }
        false
    }

    /// Picks a shard by the number of its online members, or of its durable offline ones if nobody is online.
    fn pick_shard(&mut self, group: GroupKey, except: u64) -> Picked {
        let me = self.shard;
        // Nothing to weigh where no other shard has a member: its members need not be counted.
        if let Some(alone) = self.tree.group(group)
            && alone.remote.is_empty()
        {
            let is_here = except & bit(me.0) == 0 && !alone.members.is_empty();
            return if is_here { Picked::Here } else { Picked::Nobody };
        }
        let Some(group) = self.tree.group_mut(group) else {
            return Picked::Nobody;
        };
        match group.take_turn(me.0, except) {
            None => Picked::Nobody,
            Some(shard) if shard == me.0 => Picked::Here,
            Some(shard) => Picked::There(ShardId(shard)),
        }
    }

    /// Gives a message to a member on this shard: the next one in turn that is online with room, else any online, else a
    /// durable one, but never `except`. Counts nothing but who has no right to it; `None`: there is no member here that has.
    fn give_to_member(
        &mut self,
        now: Now,
        group: GroupKey,
        except: Option<SessionKey>,
        message: &Rc<Message>,
        tells_publisher: bool,
        effects: &mut Effects,
    ) -> Option<Delivered> {
        let extra = if self.clients.config.qos_out_max(message.qos) > QoS::AtMostOnce {
            let (share, filter) = self.group_names(group)?;
            Some(share_extra(&share, &filter))
        } else {
            None
        };
        let Self { tree, clients, .. } = self;
        let group = tree.group_mut(group)?;
        group.member_turn = group.member_turn.wrapping_add(1);
        let first = group.member_turn as usize % group.members.len().max(1);
        let (tail, head) = group.members.split_at_checked(first)?;
        let mut best = None;
        for readiness in [Readiness::Room, Readiness::Online, Readiness::Away] {
            for member in head.iter().chain(tail) {
                let key = member.session;
                if clients.readiness(key) != Some(readiness) || Some(key) == except {
                    continue;
                }
                let Some(session) = clients.sessions.get(key) else {
                    continue;
                };
                let is_allowed = clients.rights.holds(member.readable);
                if !is_allowed && !may(&mut clients.rights, session, Action::Share, message.topic()) {
                    clients.stats.deliver_unauthorized += 1;
                    continue;
                }
                let how = How {
                    options: Options(member.options | if mutant("5.0/4.8.2-3") { 2 } else { 0 }),
                    subscription_id: SubscriptionId::new(member.sub_id),
                    extra: extra.clone(),
                    tries_others: true,
                    tells_publisher,
                };
                match clients.deliver(now, key, message, &how, effects) {
                    Delivered::Taken => return Some(Delivered::Taken),
                    Delivered::Refused => best = Some(Delivered::Refused),
                    Delivered::Dropped => best = best.or(Some(Delivered::Dropped)),
                }
            }
        }
        best
    }

    /// Counts a message that no member took, unless its publisher is told.
    fn count_given(&mut self, delivered: Option<Delivered>, may_refuse: bool) -> Option<Delivered> {
        let refuses = self.clients.config.queue_full == QueueFull::Refuse || self.clients.journal.is_full;
        let tells = may_refuse && refuses;
        match delivered {
            Some(Delivered::Taken) => delivered,
            Some(Delivered::Refused) if tells => delivered,
            _ => {
                self.clients.count_dropped(DropCause::NoMember);
                Some(Delivered::Dropped)
            }
        }
    }

    /// ShareName and Topic Filter of a group.
    pub(crate) fn group_names(&self, group: GroupKey) -> Option<(String, String)> {
        let (share, key) = self.tree.group_name(group)?;
        let mut filter = String::new();
        self.tree.filter_of(key, &mut filter);
        Some((String::from(share), filter))
    }

    /// A member is lost: its QoS 1 messages that were not acknowledged, and everything not yet begun, go to another
    /// member. A QoS 2 delivery that has begun stays or ends with its Session [MQTT-4.8.2-4, -5].
    pub(crate) fn give_back(&mut self, now: Now, owed: Vec<Owed>, effects: &mut Effects) {
        for owed in owed {
            self.clients.note_rare(Rare::GivenBack);
            let share = owed.extra.as_ref().and_then(|extra| extra.share.clone());
            let message = owed.message.clone();
            self.clients.forget(owed, effects);
            let (Some((share, filter)), Some(message)) = (share, message) else {
                continue;
            };
            self.share_again(now, message, share, filter, effects);
        }
    }

    /// A member is away and may come back: what it holds of a group that has another member online goes there if that one
    /// takes it. The rest stays as it is, with its Packet Identifier.
    pub(crate) fn lend(&mut self, now: Now, key: SessionKey, groups: &[GroupKey], effects: &mut Effects) {
        let Some(sender) = self.clients.sessions.get_mut(key).and_then(|s| s.sender.as_deref_mut()) else {
            return;
        };
        let (begun, queued) = (sender.begun_shared(), sender.queue.len());
        for id in begun {
            let owed = self
                .clients
                .sessions
                .get_mut(key)
                .and_then(|s| s.sender_mut().finish(id));
            if let Some(owed) = owed.and_then(|owed| self.lend_one(now, key, groups, owed, effects))
                && let Some(session) = self.clients.sessions.get_mut(key)
            {
                session.sender_mut().restore(id, owed);
            }
        }
        for _ in 0..queued {
            let Some(owed) = self.clients.pop_queue(key) else {
                return;
            };
            if let Some(owed) = self.lend_one(now, key, groups, owed, effects)
                && let Some(session) = self.clients.sessions.get_mut(key)
            {
                session.sender_mut().queue.push_back(owed);
            }
        }
    }

    /// Gives one message to another member of its group, or back to the caller.
    fn lend_one(
        &mut self,
        now: Now,
        key: SessionKey,
        groups: &[GroupKey],
        owed: Owed,
        effects: &mut Effects,
    ) -> Option<Owed> {
        let Some(((share, filter), message)) = owed.share().zip(owed.message.as_ref()) else {
            return Some(owed);
        };
        if message.is_late(now) {
            // Nobody begins to get it any more [MQTT-3.3.2-5].
            return Some(owed);
        }
        let Some(group) = self
            .tree
            .find_group(filter, share)
            .filter(|group| groups.contains(group))
        else {
            return Some(owed);
        };
        let taken = match self.pick_shard(group, 0) {
            Picked::Here => {
                self.give_to_member(now, group, Some(key), message, false, effects) == Some(Delivered::Taken)
            }
            Picked::There(shard) => {
                let pick = GroupPick {
                    share: share.clone(),
                    filter: filter.clone(),
                    tried: 0,
                };
                self.post_pick(shard, pick);
                let publish = Publish {
                    message: Rc::clone(message),
                    source: Source::Broker,
                    transaction: None,
                };
                self.send_posts(&publish, effects);
                true
            }
            Picked::Nobody => false,
        };
        if !taken {
            return Some(owed);
        }
        self.clients.note_rare(Rare::Lent);
        self.clients.forget(owed, effects);
        None
    }

    fn share_again(&mut self, now: Now, message: Rc<Message>, share: String, filter: String, effects: &mut Effects) {
        if message.is_late(now) {
            self.clients.stats.publish_expired += 1;
            return self.clients.let_go(message, effects);
        }
        let picked = self
            .tree
            .find_group(&filter, &share)
            .map(|group| (group, self.pick_shard(group, 0)));
        match picked {
            Some((group, Picked::Here)) => {
                let delivered = self.give_to_member(now, group, None, &message, false, effects);
                self.count_given(delivered, false);
            }
            Some((_, Picked::There(shard))) => {
                self.post_pick(
                    shard,
                    GroupPick {
                        share,
                        filter,
                        tried: 0,
                    },
                );
            }
            Some((_, Picked::Nobody)) | None => self.clients.count_dropped(DropCause::NoMember),
        }
        let publish = Publish {
            message,
            source: Source::Broker,
            transaction: None,
        };
        self.send_posts(&publish, effects);
        self.clients.let_go(publish.message, effects);
    }
}

/// How well a member can take a message now; the better ones are asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// Its window has room.
    Room,
    /// It is there, and a message would wait.
    Online,
    /// It is away, and its Session keeps messages for it.
    Away,
}

impl Clients {
    fn readiness(&self, key: SessionKey) -> Option<Readiness> {
        let session = self.sessions.get(key)?;
        Some(match (self.sendable(key), session.connection) {
            (Some((_, quota)), _)
                if session
                    .sender
                    .as_ref()
                    .is_none_or(|sender| sender.has_room_now(quota, self.config.inflight_bytes_max)) =>
            {
                Readiness::Room
            }
            (_, Some(_)) => Readiness::Online,
            (_, None) => Readiness::Away,
        })
    }
}
