//! Who listens to one filter, in as little memory as the case at hand needs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{GroupKey, Subscription};
use crate::ids::SessionKey;
use crate::tight;

/// Most filters have one subscriber here, or only other shards: those two cases allocate nothing.
pub(super) enum Listeners {
    None,
    One(Subscription),
    /// Other shards alone, one bit each.
    Remote(u64),
    Many(Box<Many>),
}

#[derive(Default)]
pub(super) struct Many {
    /// By Session, in order.
    subscriptions: Vec<Subscription>,
    /// In the order of their ShareNames' numbers.
    pub(super) groups: Vec<GroupKey>,
    shards: u64,
}

impl Listeners {
    pub(super) const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn subscriptions(&self) -> &[Subscription] {
        match self {
            Self::One(subscription) => core::slice::from_ref(subscription),
            Self::Many(many) => &many.subscriptions,
            Self::None | Self::Remote(_) => &[],
        }
    }

    pub(super) fn groups(&self) -> &[GroupKey] {
        match self {
            Self::Many(many) => &many.groups,
            _ => &[],
        }
    }

    pub(super) const fn shards(&self) -> u64 {
        match self {
            Self::Remote(shards) => *shards,
            Self::Many(many) => many.shards,
            Self::None | Self::One(_) => 0,
        }
    }

    pub(super) fn find(&self, session: SessionKey) -> Option<&Subscription> {
        let subscriptions = self.subscriptions();
        subscriptions.get(position(subscriptions, session).ok()?)
    }

    pub(super) fn find_mut(&mut self, session: SessionKey) -> Option<&mut Subscription> {
        let subscriptions = match self {
            Self::One(subscription) => core::slice::from_mut(subscription),
            Self::Many(many) => &mut many.subscriptions,
            Self::None | Self::Remote(_) => &mut [],
        };
        let at = position(subscriptions, session).ok()?;
        subscriptions.get_mut(at)
    }

    /// Adds a Subscription and returns the one of the same Session that it replaces [MQTT-3.8.4-3].
    pub(super) fn insert(&mut self, new: Subscription) -> Option<Subscription> {
        match self {
            Self::None => {
                *self = Self::One(new);
                None
            }
            Self::One(old) if old.session == new.session => Some(core::mem::replace(old, new)),
            _ => insert_sorted(&mut self.many().subscriptions, new),
        }
    }

    pub(super) fn remove(&mut self, session: SessionKey) -> Option<Subscription> {
        match self {
            Self::One(old) if old.session == session => {
                let old = *old;
                *self = Self::None;
                Some(old)
            }
            Self::Many(many) => {
                let old = remove_sorted(&mut many.subscriptions, session)?;
                self.settle();
                Some(old)
            }
            _ => None,
        }
    }

    /// Replaces the set of other shards.
    pub(super) fn set_shards(&mut self, shards: u64) {
        match self {
            Self::None | Self::Remote(_) => *self = if shards == 0 { Self::None } else { Self::Remote(shards) },
            _ => {
                self.many().shards = shards;
                self.settle();
            }
        }
    }

    /// The general case; [`settle`](Self::settle) after something was taken out of it.
    pub(super) fn many(&mut self) -> &mut Many {
        if !matches!(self, Self::Many(_)) {
            let many = Many {
                subscriptions: self.subscriptions().into(),
                groups: Vec::new(),
                shards: self.shards(),
            };
            *self = Self::Many(Box::new(many));
        }
        match self {
            Self::Many(many) => many,
            #[expect(clippy::unreachable, reason = "the general case was made above")]
            _ => unreachable!("the general case was just made"),
        }
    }

    /// Returns to a case that allocates nothing, if one fits.
    pub(super) fn settle(&mut self) {
        let Self::Many(many) = self else { return };
        match (many.subscriptions.as_slice(), many.groups.is_empty(), many.shards) {
            ([], true, 0) => *self = Self::None,
            ([], true, shards) => *self = Self::Remote(shards),
            (&[only], true, 0) => *self = Self::One(only),
            _ => {}
        }
    }
}

/// Adds to a list in the order of Sessions and returns what it replaces.
pub(super) fn insert_sorted(list: &mut Vec<Subscription>, new: Subscription) -> Option<Subscription> {
    let at = list.partition_point(|known| known.session < new.session);
    match list.get_mut(at).filter(|known| known.session == new.session) {
        Some(known) => Some(core::mem::replace(known, new)),
        None => {
            tight::insert(list, at, new);
            None
        }
    }
}

/// Removes from a list in the order of Sessions.
pub(super) fn remove_sorted(list: &mut Vec<Subscription>, session: SessionKey) -> Option<Subscription> {
    let old = list.remove(position(list, session).ok()?);
    tight::settle(list);
    Some(old)
}

fn position(list: &[Subscription], session: SessionKey) -> Result<usize, usize> {
    list.binary_search_by_key(&session, |subscription| subscription.session)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one subscriber that most filters have costs no more than its Subscription and a tag.
    #[test]
    fn listeners_are_small() {
        assert_eq!((size_of::<Subscription>(), size_of::<Listeners>()), (12, 16));
    }
}
