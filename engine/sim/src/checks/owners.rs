//! I9: at most one connection has a Client Identifier, and the one that loses it is told first [MQTT-3.1.4-3].

use std::collections::BTreeMap;

use crate::oracle::LinkId;
use crate::violation::{Verdict, ensure};

/// The connection of each client, between its CONNACK and its end.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<usize, (LinkId, bool)>);

impl Owners {
    /// A CONNACK leaves; `hears`: this connection's version has a DISCONNECT from the server.
    pub(crate) fn enters(&mut self, who: usize, link: LinkId, hears: bool) -> Verdict {
        let before = self.0.insert(who, (link, !hears));
        ensure(before.is_none_or(|(_, told)| told), "I9", || {
            format!("client {who} is let in while an earlier connection of it was told nothing")
        })
    }

    /// A connection is told that another one has taken its place.
    pub(crate) fn is_told(&mut self, who: usize, link: LinkId) {
        if let Some((_, told)) = self.0.get_mut(&who).filter(|(owner, _)| *owner == link) {
            *told = true;
        }
    }

    /// A connection is over.
    pub(crate) fn leaves(&mut self, who: usize, link: LinkId) {
        if self.0.get(&who).is_some_and(|(owner, _)| *owner == link) {
            self.0.remove(&who);
        }
    }

    /// Whether a packet may be sent there.
    pub(crate) fn may_send(&self, who: usize, link: LinkId) -> Verdict {
        let owner = self.0.get(&who).map(|(owner, _)| *owner);
        ensure(owner == Some(link), "I9", || {
            format!("client {who} has connection {owner:?}, and {link} is sent to")
        })
    }
}
