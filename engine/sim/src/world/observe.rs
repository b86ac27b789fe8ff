//! What an engine has put into its tray, looked at as soon as it is there.

use sol_codec::ReasonCode;
use sol_engine::{AckKind, ConnectionId, Event, Outgoing, Read};

use super::turn::hears_why;
use super::{Parcel, World};
use crate::checks::answers::Kind;
use crate::checks::flights::To;
use crate::fault::Fault;
use crate::oracle::LinkId;
use crate::packet::Reply;
use crate::violation::{Verdict, broken, ensure};
use crate::wire;

/// How much of a tray has been looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    records: usize,
    transmits: usize,
    moves: usize,
    reads: usize,
    events: usize,
    closes: usize,
}

impl World {
    /// Looks at what is new in a shard's tray.
    pub(super) fn observe(&mut self, shard: usize) -> Verdict {
        let tray = std::mem::take(&mut self.shards[shard].tray);
        let seen = self.shards[shard].seen;
        self.shards[shard].seen = Seen {
            records: tray.records.len(),
            transmits: tray.transmits.len(),
            moves: tray.moves.len(),
            reads: tray.reads.len(),
            events: tray.events.len(),
            closes: tray.closes.len(),
        };
        self.shards[shard].journal.write(&tray.records[seen.records..])?;
        for event in &tray.events[seen.events..] {
            self.note(event)?;
        }
        for transmit in &tray.transmits[seen.transmits..] {
            let link = self.link_of(shard, transmit.connection);
            let link = link.ok_or_else(|| broken("I12", format!("{transmit:?} is for nobody")))?;
            self.transmit(link, &transmit.packet)?;
        }
        for moved in &tray.moves[seen.moves..] {
            let link = self.link_of(shard, moved.connection);
            let link = link.ok_or_else(|| broken("I12", format!("{moved:?} is nobody")))?;
            self.shards[shard].let_out(moved.connection);
            self.shards[shard].moving.push(link);
            if let Some(link) = self.links.get_mut(&link) {
                link.connection = None;
            }
        }
        for close in &tray.closes[seen.closes..] {
            let link = self.link_of(shard, close.connection);
            let link = link.ok_or_else(|| broken("I12", format!("{close:?} is for nobody")))?;
            self.note_down(|| format!("connection {link} is closed"));
            self.oracle.leave(link, false, None);
            self.over(link);
        }
        for read in &tray.reads[seen.reads..] {
            let (connection, stopped) = match *read {
                Read::Pause(connection) => (connection, true),
                Read::Resume(connection) | Read::Auth(connection) => (connection, false),
            };
            if let Some(link) = self.link_of(shard, connection).and_then(|id| self.links.get_mut(&id)) {
                link.stopped = stopped;
            }
        }
        self.shards[shard].tray = tray;
        Ok(())
    }

    fn link_of(&self, shard: usize, connection: ConnectionId) -> Option<LinkId> {
        let id = self.shards[shard].tenant(connection)?;
        let link = self.links.get(&id)?;
        (link.connection == Some(connection) && !link.ended).then_some(id)
    }

    fn note(&mut self, event: &Event) -> Verdict {
        match event {
            Event::Dropped { client_id, count } => {
                let who = self
                    .parties
                    .iter()
                    .position(|party| party.client.client_id == *client_id);
                if let Some(who) = who {
                    self.oracle.dropped(who, *count);
                }
                Ok(())
            }
            Event::Odd(what) => Err(broken("odd", (*what).to_owned())),
            _ => Ok(()),
        }
    }

    /// A packet leaves for a client.
    pub(super) fn transmit(&mut self, id: LinkId, packet: &Outgoing) -> Verdict {
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let (who, version) = (link.who, link.connect.version);
        let packet_max = link.connect.maximum_packet_size.map_or(usize::MAX, |max| max as usize);
        let is_connack = matches!(packet, Outgoing::ConnAck(_));
        ensure(link.active || is_connack, "I12", || {
            format!("{packet:?} before CONNACK")
        })?;
        let Some(mut reply) = wire::carry(packet, version, packet_max)? else {
            return Ok(());
        };
        if is_connack {
            self.owners.enters(who, id, hears_why(version))?;
        } else {
            self.owners.may_send(who, id)?;
        }
        if let Reply::Publish(received) = &mut reply {
            received.dup &= self.fault != Some(Fault::ForgetsDup);
        }
        self.note_down(|| format!("connection {id} of client {who} is sent {reply:?}"));
        self.check_reply(id, &reply)?;
        let parcel = Parcel {
            reply,
            session: self.oracle.session_of(id),
            sent: self.now,
        };
        if let Some(link) = self.links.get_mut(&id)
            && self.parties[who].link == Some(id)
        {
            link.to_client.push_back(parcel);
        }
        Ok(())
    }

    /// The oracle and the checks hear a reply.
    fn check_reply(&mut self, id: LinkId, reply: &Reply) -> Verdict {
        let Some((link, session)) = self.links.get_mut(&id).zip(self.oracle.session_of(id)) else {
            return Err(broken("I12", format!("{reply:?} for a client without a Session")));
        };
        match reply {
            Reply::ConnAck { session_present, .. } => {
                link.active = true;
                self.oracle.connack(id, *session_present)
            }
            Reply::Publish(received) => {
                let quota = link.connect.receive_maximum.unwrap_or(u16::MAX);
                let to = To {
                    session,
                    link: id,
                    quota: usize::from(quota.min(self.config.inflight_max)),
                    packet_max: link.connect.maximum_packet_size.map_or(usize::MAX, |max| max as usize),
                    lends: self.oracle.may_lend(session),
                };
                self.flights.publish(to, received)
            }
            Reply::Ack(AckKind::PubRel, packet_id, reason) => {
                let found = *reason == ReasonCode::Success;
                self.flights.pubrel(session, *packet_id, found)
            }
            Reply::Ack(kind, packet_id, reason) => {
                if let Some(kind) = Kind::of(*kind) {
                    self.answers.given(id, kind, *packet_id)?;
                }
                self.oracle.answered(id, *kind, *packet_id, *reason)
            }
            Reply::SubAck(packet_id, codes) => {
                self.answers.given(id, Kind::SubAck, *packet_id)?;
                self.oracle.suback(id, *packet_id, codes)
            }
            Reply::UnsubAck(packet_id, _) => {
                self.answers.given(id, Kind::UnsubAck, *packet_id)?;
                self.oracle.unsuback(id, *packet_id);
                Ok(())
            }
            Reply::Disconnect(ReasonCode::SessionTakenOver) => {
                self.owners.is_told(link.who, id);
                Ok(())
            }
            Reply::Disconnect(_) | Reply::PingResp => Ok(()),
        }
    }
}
