//! I3 and I7: Packet Identifiers of deliveries, DUP, and how many are in flight.

use std::collections::{BTreeMap, BTreeSet};

use sol_codec::QoS;
use sol_engine::AckKind;

use crate::oracle::{LinkId, SessionId};
use crate::packet::Received;
use crate::violation::{Violation, ensure};

/// The unfinished deliveries of all Sessions.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    sessions: BTreeMap<SessionId, Outbound>,
    /// The broker has died since everything was at rest.
    has_crashed: bool,
}

/// The unfinished deliveries of one Session.
#[derive(Debug, Default)]
struct Outbound {
    flights: BTreeMap<u16, Flight>,
    /// Deliveries of before a crash that may be there again: identifiers, with what was sent at QoS 1, or nothing of what
    /// has come to its PUBCOMP.
    ghosts: BTreeSet<(u16, Option<String>)>,
    /// What has ended since all was at rest: it is written beside, and nobody waits for that.
    ended: Vec<(u16, Option<String>)>,
    /// The identifier that was given out last.
    last: u16,
}

/// A delivery from its PUBLISH to PUBACK or PUBCOMP.
#[derive(Debug)]
struct Flight {
    payload: String,
    qos: QoS,
    /// The connection that its PUBLISH was sent on last.
    link: LinkId,
    /// PUBREC has been handled.
    released: bool,
    /// Perhaps it has not, for the broker died.
    unsure: bool,
    /// The connection that PUBREL was sent on last.
    pubrel: Option<LinkId>,
}

/// The receiver's end of a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct To {
    pub(crate) session: SessionId,
    pub(crate) link: LinkId,
    /// Its Receive Maximum, or the broker's own limit.
    pub(crate) quota: usize,
    pub(crate) packet_max: usize,
    /// It has been a member of a Shared Subscription: what it lost with a connection may have gone to another one.
    pub(crate) lends: bool,
}

impl Flights {
    /// A PUBLISH leaves. Whether its identifier has come round.
    pub(crate) fn publish(&mut self, to: To, received: &Received) -> Result<bool, Violation> {
        let Outbound {
            flights, last, ghosts, ..
        } = self.sessions.entry(to.session).or_default();
        let Some(packet_id) = received.packet_id else {
            ensure(!received.dup, "I3", || format!("DUP at QoS 0: {received:?}"))?;
            return Ok(false);
        };
        let known = flights.get(&packet_id);
        if received.dup {
            // [MQTT-3.3.1-1]
            let again = known.is_some_and(|flight| {
                flight.link != to.link
                    && (!flight.released || flight.unsure)
                    && flight.payload == received.payload
                    && flight.qos == received.qos
            });
            let once = received.qos == QoS::AtLeastOnce;
            let is_back = if once {
                ghosts.contains(&(packet_id, Some(received.payload.clone())))
            } else {
                // It was written that it would be sent, and then it was not.
                self.has_crashed && known.is_none()
            };
            ensure(again || is_back, "I3", || {
                format!("DUP, and before it was {known:?}: {received:?}")
            })?;
        } else {
            // What an earlier connection took may be too large for this one, or another member's, and is over then.
            let over =
                |flight: &Flight| flight.link != to.link && (to.lends || flight.payload.len() + 96 > to.packet_max);
            ensure(known.is_none_or(over), "I7", || {
                format!("in use for {known:?}: {received:?}")
            })?;
        }
        let flight = Flight {
            payload: received.payload.clone(),
            qos: received.qos,
            link: to.link,
            released: false,
            unsure: false,
            pubrel: None,
        };
        flights.insert(packet_id, flight);
        let count = flights.values().filter(|flight| flight.link == to.link).count();
        ensure(count <= to.quota, "I7", || {
            format!("{count} in flight, and Receive Maximum {}", to.quota)
        })?;
        let before = std::mem::replace(last, packet_id);
        Ok(before > packet_id && before - packet_id > u16::MAX / 2)
    }

    /// A PUBREL leaves. Whether it did before on another connection.
    pub(crate) fn pubrel(
        &mut self,
        session: SessionId,
        link: LinkId,
        packet_id: u16,
        found: bool,
    ) -> Result<bool, Violation> {
        let Outbound { flights, ghosts, .. } = self.sessions.entry(session).or_default();
        let is_back = ghosts.contains(&(packet_id, None));
        let flight = flights.get_mut(&packet_id);
        let is_back = is_back && flight.as_ref().is_none_or(|flight| !flight.released);
        let right = !found || is_back || flight.as_ref().is_some_and(|flight| flight.released);
        ensure(right, "I7", || format!("PUBREL {packet_id} of {flight:?}"))?;
        let before = flight.and_then(|flight| flight.pubrel.replace(link));
        Ok(before.is_some_and(|before| before != link))
    }

    /// A client's acknowledgement is handled. Whether that ends a delivery.
    pub(crate) fn acknowledged(&mut self, session: SessionId, kind: AckKind, packet_id: u16) -> bool {
        let outbound = self.sessions.entry(session).or_default();
        let flights = &mut outbound.flights;
        let Some(flight) = flights.get_mut(&packet_id) else {
            return false;
        };
        let ends = match kind {
            AckKind::PubAck => flight.qos == QoS::AtLeastOnce,
            AckKind::PubRec => {
                flight.released |= flight.qos == QoS::ExactlyOnce;
                false
            }
            AckKind::PubComp => flight.released,
            AckKind::PubRel => false,
        };
        if ends {
            let payload = Some(std::mem::take(&mut flight.payload)).filter(|_| kind == AckKind::PubAck);
            flights.remove(&packet_id);
            outbound.ended.push((packet_id, payload));
        }
        ends
    }

    /// The broker died. A delivery at QoS 1 may be sent again in any way, and what had ended may not have; at QoS 2 it is
    /// known how far it has come, or was before.
    pub(crate) fn crash(&mut self) {
        self.has_crashed = true;
        for outbound in self.sessions.values_mut() {
            let Outbound {
                flights, ghosts, ended, ..
            } = outbound;
            ghosts.extend(ended.drain(..));
            let once = flights.extract_if(.., |_, flight| flight.qos < QoS::ExactlyOnce);
            ghosts.extend(once.map(|(packet_id, flight)| (packet_id, Some(flight.payload))));
            for flight in flights.values_mut() {
                flight.unsure |= flight.released && flight.pubrel.is_none();
            }
        }
    }

    /// Whether a delivery is between PUBREC and PUBCOMP.
    pub(crate) fn has_released(&self) -> bool {
        let mut flights = self.sessions.values().flat_map(|outbound| outbound.flights.values());
        flights.any(|flight| flight.released)
    }

    /// How many deliveries have not ended, of Sessions that `packet_max` knows a Maximum Packet Size of and no larger than
    /// that.
    pub(crate) fn unfinished(&self, packet_max: impl Fn(SessionId) -> Option<usize>) -> usize {
        let unfinished = |(&id, outbound): (&SessionId, &Outbound)| {
            let max = packet_max(id).unwrap_or_default();
            (outbound.flights)
                .values()
                .filter(|flight| flight.payload.len() + 96 <= max)
                .count()
        };
        self.sessions.iter().map(unfinished).sum()
    }

    /// Whether a connection has QoS 1 in flight, and whether a PUBREL.
    pub(crate) fn state_of(&self, session: SessionId, link: LinkId) -> (bool, bool) {
        let flights = || {
            self.sessions
                .get(&session)
                .into_iter()
                .flat_map(|outbound| outbound.flights.values())
        };
        let here = || flights().filter(|flight| flight.link == link);
        let released = here().any(|flight| flight.released);
        (here().any(|flight| flight.qos == QoS::AtLeastOnce), released)
    }

    /// Everything is at rest: forgets Sessions that are none any more, and deliveries that ended with their connection.
    pub(crate) fn forget(&mut self, is_there: impl Fn(SessionId) -> bool) {
        self.has_crashed = false;
        self.sessions.retain(|&id, _| is_there(id));
        for outbound in self.sessions.values_mut() {
            outbound.flights.clear();
            outbound.ghosts.clear();
            outbound.ended.clear();
        }
    }
}
