//! All Network Connections, by a number that is never used again.

use super::Link;
use crate::oracle::LinkId;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Links {
    places: Vec<Option<Box<Link>>>,
    /// The first place that is not surely empty.
    first: LinkId,
}

impl Links {
    /// The number of the next connection.
    pub(super) const fn next(&self) -> LinkId {
        self.places.len()
    }

    pub(super) fn push(&mut self, link: Link) {
        self.places.push(Some(Box::new(link)));
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.places.get(id)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.places.get_mut(id)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, id: LinkId) {
        if let Some(place) = self.places.get_mut(id) {
            *place = None;
        }
        while let Some(None) = self.places.get(self.first) {
            self.first += 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        let places = self.places.iter().enumerate().skip(self.first);
        places.filter_map(|(id, link)| Some((id, link.as_deref()?)))
    }

    /// Nothing is held up any more.
    pub(super) fn end_stalls(&mut self) {
        for link in self.places.iter_mut().skip(self.first).flatten() {
            (link.broker_stalls, link.client_stalls) = (0, 0);
        }
    }
}
