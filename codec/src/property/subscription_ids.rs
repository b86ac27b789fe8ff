//! The Subscription Identifiers of a PUBLISH (section 3.3.2.3.8).

use core::{fmt, slice};

use super::{PropertyId, RawProperties};
use crate::SubscriptionId;
use crate::encode::Sink;
use crate::var_int::{self, VarInt};

/// Zero or more Subscription Identifiers, in order: one for each Subscription with an identifier that the delivery is
/// for [MQTT-3.3.4-3], [MQTT-3.3.4-4].
#[derive(Clone, Copy)]
pub struct SubscriptionIds<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked section, which may hold other Properties too.
    Section(&'a [u8]),
    Ids(&'a [SubscriptionId]),
    One(SubscriptionId),
}

impl<'a> SubscriptionIds<'a> {
    /// The identifiers of a slice.
    #[must_use]
    pub const fn from_slice(ids: &'a [SubscriptionId]) -> Self {
        Self(Source::Ids(ids))
    }

    /// A single identifier, held in place.
    #[must_use]
    pub const fn one(id: SubscriptionId) -> Self {
        Self(Source::One(id))
    }

    pub(crate) const fn from_section(section: &'a [u8]) -> Self {
        Self(Source::Section(section))
    }

    /// The identifiers in order.
    #[must_use]
    pub fn iter(&self) -> SubscriptionIdsIter<'a> {
        SubscriptionIdsIter(match self.0 {
            Source::Section(section) => IterSource::Section(RawProperties(section)),
            Source::Ids(ids) => IterSource::Ids(ids.iter()),
            Source::One(id) => IterSource::One(Some(id)),
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    #[inline]
    pub(crate) fn write(&self, out: &mut impl Sink) {
        match self.0 {
            // The usual case is none, and it is to cost nothing.
            Source::Ids(ids) => ids.iter().for_each(|id| write_id(*id, out)),
            Source::One(id) => write_id(id, out),
            Source::Section(_) => self.iter().for_each(|id| write_id(id, out)),
        }
    }
}

impl Default for SubscriptionIds<'_> {
    fn default() -> Self {
        Self(Source::Ids(&[]))
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> From<&'a [SubscriptionId]> for SubscriptionIds<'a> {
    fn from(ids: &'a [SubscriptionId]) -> Self {
        Self::from_slice(ids)
    }
}

impl From<SubscriptionId> for SubscriptionIds<'_> {
    fn from(id: SubscriptionId) -> Self {
        Self::one(id)
    }
}

impl<'a> IntoIterator for &SubscriptionIds<'a> {
    type Item = SubscriptionId;
    type IntoIter = SubscriptionIdsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The identifiers of [`SubscriptionIds`].
#[derive(Clone)]
pub struct SubscriptionIdsIter<'a>(IterSource<'a>);

#[derive(Clone)]
enum IterSource<'a> {
    Section(RawProperties<'a>),
    Ids(slice::Iter<'a, SubscriptionId>),
    One(Option<SubscriptionId>),
}

impl Iterator for SubscriptionIdsIter<'_> {
    type Item = SubscriptionId;

    fn next(&mut self) -> Option<SubscriptionId> {
        match &mut self.0 {
            IterSource::Section(section) => section
                .find(|property| property.id == PropertyId::SubscriptionIdentifier)
                .and_then(|property| id(property.value)),
            IterSource::Ids(ids) => ids.next().copied(),
            IterSource::One(id) => id.take(),
        }
    }
}

impl fmt::Debug for SubscriptionIdsIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

fn write_id(id: SubscriptionId, out: &mut impl Sink) {
    out.put_u8(PropertyId::SubscriptionIdentifier.value());
    out.put_var_int(id.get() as usize);
}

fn id(value: &[u8]) -> Option<SubscriptionId> {
    match var_int::read(value) {
        Ok(VarInt::Value(value, _)) => SubscriptionId::new(value),
        _ => None,
    }
}
