//! How fast clients send, and how many connections an address has: what is held against those who ask for too much.

use std::time::Duration;

use sol_engine::{ConnectionId, Flow, Input};

use super::Core;
use super::input::Outcome;
use crate::conns::Phase;
use crate::observer::{Notice, Observer, Source};
use crate::rates::Rates;

/// CONNECT in the Fixed Header.
const CONNECT: u8 = 1;
/// PUBACK, PUBREC, PUBREL and PUBCOMP in the Fixed Header.
const ACKNOWLEDGEMENTS: std::ops::RangeInclusive<u8> = 4..=7;

impl<O: Observer> Core<O> {
    /// How fast the client of a connection may send, if that is limited. Until it is let in, other limits hold.
    pub(super) fn rates_of(&self, id: ConnectionId) -> Option<Rates> {
        let conn = self.conns.get(id).filter(|conn| conn.phase == Phase::Open)?;
        self.meters.rates_of(conn.source().listener.0)
    }

    /// Decodes whole packets in place and gives them to the engine, until their client has sent more than it may.
    pub(super) fn decode_paced(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..)
            && !rest.is_empty()
        {
            match self.decode_one(id, rest) {
                Outcome::Packet(len, flow) => {
                    used = len.saturating_add(used);
                    if self.pace(id, rest, len, flow) == Flow::Stop {
                        break;
                    }
                }
                Outcome::NeedMore(_) => {
                    self.pace_part(id, rest.len());
                    break;
                }
                Outcome::Malformed => return bytes.len(),
            }
        }
        used
    }

    /// Counts a packet, of `len` bytes at the front of these, that was decoded; and whether to decode on.
    pub(super) fn pace(&mut self, id: ConnectionId, bytes: &[u8], len: usize, flow: Flow) -> Flow {
        if self.meters.are_off() {
            return flow;
        }
        let Some(rates) = self.rates_of(id) else { return flow };
        let wait = self
            .meters
            .count_packet(id, &rates, self.now.mono, is_message(bytes), len);
        match (flow, wait) {
            (Flow::Go, Some(wait)) => self.hold_up(id, wait),
            _ => flow,
        }
    }

    /// Counts a part of a packet, of which so many bytes have arrived.
    pub(super) fn pace_part(&mut self, id: ConnectionId, len: usize) {
        if self.meters.are_off() {
            return;
        }
        let Some(rates) = self.rates_of(id) else { return };
        if let Some(wait) = self.meters.count_part(id, &rates, self.now.mono, len) {
            let _ = self.hold_up(id, wait);
        }
    }

    /// Has a client wait. The engine resumes it, and does not take it to be silent meanwhile.
    fn hold_up(&mut self, id: ConnectionId, wait: Duration) -> Flow {
        let flow = self.handle(Input::Hurried(id, wait));
        if flow == Flow::Stop {
            self.stop(id);
        }
        flow
    }

    /// Counts a connection of an address; `false`: that has as many as it may have. The address is the one that the
    /// connection has in the table, and [`Core::leave`] must be told the same.
    pub(super) fn enter(&mut self, source: Source) -> bool {
        let enters = self.mailbox.exchange().whole.doors.enter(&self.config.limits, source);
        if !enters {
            self.counters.address_refused += 1;
            self.observer.notice(Notice::TooManyOfAddress(source));
        }
        enters
    }

    /// A connection that had entered is gone.
    pub(super) fn leave(&self, source: Source) {
        self.mailbox.exchange().whole.doors.leave(&self.config.limits, source);
    }
}

/// Whether a packet is sent of its client's own accord, and not to acknowledge something or to be let in.
fn is_message(bytes: &[u8]) -> bool {
    let packet_type = bytes.first().map(|first| first >> 4);
    !packet_type.is_some_and(|packet_type| packet_type == CONNECT || ACKNOWLEDGEMENTS.contains(&packet_type))
}
