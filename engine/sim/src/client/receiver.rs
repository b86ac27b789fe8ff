//! A client as receiver (section 4.3).

use std::collections::BTreeMap;

use sol_codec::QoS;

use crate::packet::Received;
use crate::violation::{Violation, broken, ensure};

/// What a client has received and not finished.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Topic Aliases of this connection.
    aliases: BTreeMap<u16, String>,
    /// QoS 1: the number of the message that came with an identifier, and whether it came on this connection.
    once: BTreeMap<u16, (Option<u32>, bool)>,
    /// QoS 2 identifiers that wait for PUBREL; whether they came on this connection.
    exactly: BTreeMap<u16, bool>,
}

impl Receiver {
    pub(super) fn leave(&mut self) {
        self.aliases.clear();
        self.once.values_mut().for_each(|(_, here)| *here = false);
        self.exactly.values_mut().for_each(|here| *here = false);
    }

    /// Puts the topic in that an alias stands for.
    pub(super) fn look_up(&mut self, mut received: Received) -> Result<Received, Violation> {
        match (received.alias, &received.topic) {
            (Some(alias), Some(topic)) => {
                self.aliases.insert(alias, topic.clone());
            }
            (Some(alias), None) => received.topic = self.aliases.get(&alias).cloned(),
            (None, _) => {}
        }
        if received.topic.is_none() {
            return Err(broken("I12", format!("nobody knows the topic of {received:?}")));
        }
        Ok(received)
    }

    /// Whether the application has this message already. `doubts`: what is remembered may be of another Session.
    pub(super) fn take(&mut self, received: &Received, doubts: bool) -> Result<bool, Violation> {
        let Some(packet_id) = received.packet_id else {
            return Ok(false);
        };
        if received.qos == QoS::ExactlyOnce {
            let known = self.exactly.insert(packet_id, true);
            ensure(known.is_none_or(|here| (received.dup || doubts) && !here), "I2", || {
                format!("{received:?} comes while its identifier waits for PUBREL")
            })?;
            return Ok(known.is_some() && received.dup);
        }
        let known = self.once.insert(packet_id, (received.number(), true));
        // After a reconnect the identifier may have been given to another message, which came to nobody before.
        Ok(received.dup && known.is_some_and(|(number, here)| number == received.number() && !here))
    }

    pub(super) fn is_done_with(&mut self, packet_id: u16) {
        self.once.remove(&packet_id);
    }

    pub(super) fn released(&mut self, packet_id: u16) {
        self.exactly.remove(&packet_id);
    }
}
