//! What an engine has put into its tray, looked at as soon as it is there.

use std::fmt::{Debug, Write as _};

use sol_codec::ReasonCode;
use sol_engine::{
    AckKind, Cause, ConnectionId, Effects, Event, Interest, Message, Outgoing, Read, Record, ShardMessage,
};

use super::turn::hears_why;
use super::{Parcel, World};
use crate::checks::answers::Kind;
use crate::checks::flights::To;
use crate::fault::Fault;
use crate::hash::Hash;
use crate::marks::Mark;
use crate::oracle::LinkId;
use crate::packet::Reply;
use crate::violation::{Verdict, broken, ensure};
use crate::wire;

/// How much of a tray has been looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    records: usize,
    forwards: usize,
    pub(super) transmits: usize,
    pub(super) moves: usize,
    pub(super) auth_requests: usize,
    reads: usize,
    events: usize,
    pub(super) closes: usize,
}

impl World {
    /// Looks at what is new in a shard's tray.
    pub(super) fn observe(&mut self, shard: usize) -> Verdict {
        let tray = std::mem::take(&mut self.shards[shard].tray);
        let seen = self.shards[shard].seen;
        self.shards[shard].seen = Seen {
            records: tray.records.len(),
            forwards: tray.forwards.len(),
            transmits: tray.transmits.len(),
            moves: tray.moves.len(),
            auth_requests: tray.auth_requests.len(),
            reads: tray.reads.len(),
            events: tray.events.len(),
            closes: tray.closes.len(),
        };
        hash_rest(&mut self.hash, &tray, seen);
        let records = &tray.records[seen.records..];
        if !records.is_empty() {
            self.shards[shard].unsubmitted.add(self.began);
            self.writer.look_at(records)?;
        }
        for (to, message) in &tray.forwards[seen.forwards..] {
            self.hash.number(u64::from(to.0) << 32 | digest(message));
        }
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
            if let Some(link) = self.links.get_mut(link) {
                link.connection = None;
            }
        }
        for asks in &tray.auth_requests[seen.auth_requests..] {
            let link = self.link_of(shard, asks.connection);
            let link = link.ok_or_else(|| broken("I12", format!("{asks:?} is for nobody")))?;
            self.shards[shard].logins.push((link, asks.connection));
        }
        for close in &tray.closes[seen.closes..] {
            let link = self.link_of(shard, close.connection);
            let link = link.ok_or_else(|| broken("I12", format!("{close:?} is for nobody")))?;
            self.note_down(|| format!("connection {link} is closed"));
            self.hash.number(link as u64);
            self.oracle.leave(link, false, None);
            self.over(link);
        }
        for read in &tray.reads[seen.reads..] {
            let (connection, stopped) = match *read {
                Read::Pause(connection) => (connection, true),
                Read::Resume(connection) | Read::Auth(connection) => (connection, false),
            };
            if let Some(id) = self.link_of(shard, connection)
                && let Some(link) = self.links.get_mut(id)
            {
                link.stopped = stopped;
                self.offer_take(id);
            }
        }
        self.shards[shard].tray = tray;
        Ok(())
    }

    fn link_of(&self, shard: usize, connection: ConnectionId) -> Option<LinkId> {
        let id = self.shards[shard].tenant(connection)?;
        let link = self.links.get(id)?;
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
            Event::Disconnected { cause, .. } => {
                let mark = match cause {
                    Cause::Slow => Mark::SlowClosed,
                    Cause::Parked | Cause::Unwritten => Mark::ParkedClosed,
                    Cause::Paused => Mark::PausedTooLong,
                    _ => return Ok(()),
                };
                self.marks.hit(mark);
                Ok(())
            }
            Event::Odd(what) => Err(broken("odd", (*what).to_owned())),
            _ => Ok(()),
        }
    }

    /// A packet leaves for a client.
    pub(super) fn transmit(&mut self, id: LinkId, packet: &Outgoing) -> Verdict {
        let Some(link) = self.links.get(id) else { return Ok(()) };
        let (who, version, expects_refusal) = (link.who, link.connect.version, link.refused);
        let packet_max = link.connect.maximum_packet_size.map_or(usize::MAX, |max| max as usize);
        let is_connack = matches!(packet, Outgoing::ConnAck(_));
        ensure(link.active || is_connack, "I12", || {
            format!("{packet:?} before CONNACK")
        })?;
        let carried = wire::carry(packet, version, packet_max, &mut self.bytes)?;
        let Some(mut reply) = carried else {
            return Ok(());
        };
        self.hash.number(id as u64);
        self.hash.bytes(&self.bytes);
        let is_refusal = matches!(&reply, Reply::ConnAck { reason_code, .. } if reason_code.is_error());
        if is_refusal {
            self.is_right_refusal(id, &reply, expects_refusal)?;
        } else if is_connack {
            self.parties[who].is_untold = false;
            // It may be gone before it hears that its Session is a new one; nobody can then tell by packets.
            self.parties[who].client.begins_anew |= matches!(
                &reply,
                Reply::ConnAck {
                    session_present: false,
                    ..
                }
            );
            self.owners.enters(who, id, hears_why(version))?;
        } else {
            self.owners.may_send(who, id)?;
        }
        if let Reply::Publish(received) = &mut reply {
            received.dup &= self.fault != Some(Fault::ForgetsDup);
        }
        self.note_down(|| format!("connection {id} of client {who} is sent {reply:?}"));
        if !is_refusal {
            self.check_reply(id, &reply)?;
        }
        let parcel = Parcel {
            reply,
            session: self.oracle.session_of(id),
            sent: self.now,
        };
        if let Some(link) = self.links.get_mut(id)
            && self.parties[who].link == Some(id)
        {
            link.to_client.push_back(parcel);
            self.offer_hear(who);
        }
        Ok(())
    }

    /// A CONNECT is refused because its login was, or for want of room.
    fn is_right_refusal(&mut self, id: LinkId, reply: &Reply, login_was_refused: bool) -> Verdict {
        let Reply::ConnAck {
            session_present: false,
            reason_code,
            ..
        } = reply
        else {
            return Err(broken("I12", format!("{reply:?}")));
        };
        let right = match reason_code {
            ReasonCode::BadUserNameOrPassword => login_was_refused,
            ReasonCode::QuotaExceeded | ReasonCode::ServerUnavailable => {
                let lacks_room = self.oracle.may_lack_room();
                self.marks.hit(if lacks_room {
                    Mark::ConnectRefused
                } else {
                    Mark::ConnectRefusedForDisk
                });
                lacks_room || self.would_be_written(id)
            }
            _ => false,
        };
        ensure(right, "I12", || format!("{reply:?}, and why?"))
    }

    /// Whether there is no room on the disk for what a CONNECT would have written: for a Session that lasts or one with a
    /// Will, and the client surely has none that lasts.
    fn would_be_written(&self, id: LinkId) -> bool {
        self.links.get(id).is_some_and(|link| {
            let is_written = link.connect.session_expiry_interval > 0 || link.connect.will.is_some();
            self.shards[link.shard].lacks_disk && is_written && !self.oracle.surely_lasts(link.who)
        })
    }

    /// The oracle and the checks hear a reply.
    fn check_reply(&mut self, id: LinkId, reply: &Reply) -> Verdict {
        let Some((link, session)) = self.links.get_mut(id).zip(self.oracle.session_of(id)) else {
            return Err(broken("I12", format!("{reply:?} for a client without a Session")));
        };
        match reply {
            Reply::ConnAck { session_present, .. } => {
                link.active = true;
                self.oracle.connack(id, *session_present)?;
                self.parties[link.who].client.doubts |= self.oracle.is_blurred(id);
                Ok(())
            }
            Reply::Publish(received) => {
                self.sums.publishes_out += 1;
                let to = To {
                    session,
                    link: id,
                    quota: link.quota,
                    packet_max: link.connect.maximum_packet_size.map_or(usize::MAX, |max| max as usize),
                    lends: self.oracle.may_lend(session),
                };
                if received.topic.is_none() {
                    self.marks.hit(Mark::AliasOut);
                }
                if received.packet_id.is_none() {
                    self.oracle.taken(session);
                }
                let wraps = self.flights.publish(to, received)?;
                if wraps {
                    self.marks.hit(Mark::PacketIdWrap);
                }
                Ok(())
            }
            Reply::Ack(AckKind::PubRel, packet_id, reason) => {
                let found = *reason == ReasonCode::Success;
                if self.flights.pubrel(session, id, *packet_id, found)? {
                    self.marks.hit(Mark::PubrelAgain);
                }
                Ok(())
            }
            Reply::Ack(kind, packet_id, reason) => self.check_ack(id, *kind, *packet_id, *reason),
            Reply::SubAck(packet_id, codes) => {
                self.answers.given(id, Kind::SubAck, *packet_id)?;
                if codes.iter().any(|code| code.is_error()) {
                    self.marks.hit(if self.oracle.may_lack_room() {
                        Mark::SubscribeRefused
                    } else {
                        Mark::SubscribeRefusedForDisk
                    });
                }
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

    fn check_ack(&mut self, id: LinkId, kind: AckKind, packet_id: u16, reason: ReasonCode) -> Verdict {
        if let Some(kind) = Kind::of(kind) {
            self.answers.given(id, kind, packet_id)?;
        }
        if matches!(kind, AckKind::PubAck | AckKind::PubRec)
            && let Some(link) = self.links.get_mut(id)
            && link.parked.take_if(|parked| *parked == packet_id).is_some()
        {
            self.marks.hit(Mark::ParkedForDisk);
        }
        match reason {
            ReasonCode::QuotaExceeded => {
                self.sums.refusals += 1;
                self.marks.hit(Mark::RefusedHere);
                if !self.oracle.may_refuse() {
                    self.marks.hit(Mark::RefusedForDisk);
                }
            }
            ReasonCode::PacketIdentifierNotFound => self.marks.hit(Mark::PubrelUnknown),
            _ => {}
        }
        self.oracle.answered(id, kind, packet_id, reason)
    }
}

/// A number that stands for what one shard tells another: for all of it but the names of records.
pub(super) fn digest(message: &ShardMessage) -> u64 {
    let mut hash = Hash::default();
    match message {
        ShardMessage::Interest { n, filter } => {
            hash.number(*n << 4);
            hash_interest(&mut hash, filter);
        }
        ShardMessage::Lost(filter) => {
            hash.number(1);
            hash_interest(&mut hash, filter);
        }
        ShardMessage::Confirmed(n) => hash.number(*n << 4 | 2),
        ShardMessage::Forward(forward) => {
            let flags = [forward.route, forward.retain, forward.may_refuse];
            let flags = flags.iter().fold(0, |flags, &flag| flags << 1 | u64::from(flag));
            hash.number(forward.n << 8 | flags << 4 | 3);
            hash_message(&mut hash, &forward.message);
            for group in &forward.groups {
                hash.number(group.tried);
                hash.bytes(group.share.as_bytes());
                hash.bytes(group.filter.as_bytes());
            }
        }
        ShardMessage::Taken(n) => hash.number(*n << 4 | 4),
        ShardMessage::Refused(n) => hash.number(*n << 4 | 5),
        ShardMessage::RetainedQuery { id, filter, after } => {
            hash.number(*id << 4 | 6);
            hash.bytes(filter.as_bytes());
            hash.text(after.as_deref());
        }
        ShardMessage::RetainedPage { id, messages, more } => {
            hash.number(*id << 4 | 7);
            messages.iter().for_each(|message| hash_message(&mut hash, message));
            hash.text(more.as_deref());
        }
        ShardMessage::Members {
            n,
            share,
            filter,
            online,
            offline,
        } => {
            hash.number(*n << 4 | 8);
            hash.bytes(share.as_bytes());
            hash.bytes(filter.as_bytes());
            hash.number(u64::from(*online) << 32 | u64::from(*offline));
        }
    }
    hash.get()
}

/// Of what is new in a tray, all that has no number for what it says: forwards and packets have, and closes are told by
/// the connection that they end.
fn hash_rest(hash: &mut Hash, tray: &Effects, seen: Seen) {
    for record in &tray.records[seen.records..] {
        hash_record(hash, record);
    }
    for event in &tray.events[seen.events..] {
        hash_debug(hash, event);
    }
    for read in &tray.reads[seen.reads..] {
        hash_debug(hash, read);
    }
    for moved in &tray.moves[seen.moves..] {
        hash_debug(hash, moved);
    }
    for asks in &tray.auth_requests[seen.auth_requests..] {
        hash_debug(hash, asks);
    }
}

fn hash_debug(hash: &mut Hash, what: &impl Debug) {
    // A hash takes anything.
    let _ = write!(hash, "{what:?}");
}

fn hash_record(hash: &mut Hash, record: &Record) {
    hash.number(record.id().0);
    match record {
        Record::Body(_, message) => hash_message(hash, message),
        Record::Retained { body, .. } => hash.number(body.0 << 4 | 1),
        Record::Inbound { session, packet_id, .. } => {
            hash.number(session.0 << 4 | 2);
            hash.number(u64::from(packet_id.get()));
        }
        Record::Delete(_) => hash.number(3),
        Record::Reference(_, reference) => {
            hash.number(reference.session.0 << 4 | 4);
            hash.number(reference.body.map_or(0, |body| body.0));
            hash.number(u64::from(reference.retain) << 2 | reference.qos as u64);
            hash_debug(hash, &(&reference.state, &reference.subscription_ids, &reference.share));
        }
        Record::Session(..) | Record::Subscription(..) => hash_debug(hash, record),
    }
}

fn hash_interest(hash: &mut Hash, interest: &Interest) {
    match interest {
        Interest::Exact(of_filter) => hash.number(*of_filter),
        Interest::Wildcard(filter) => hash.bytes(filter.as_bytes()),
        Interest::Nothing => hash.number(0),
    }
}

fn hash_message(hash: &mut Hash, message: &Message) {
    hash.bytes(message.topic().as_bytes());
    hash.bytes(message.payload());
    let mut properties = Vec::new();
    message.properties().write_to(&mut properties);
    hash.bytes(&properties);
    hash.number(u64::from(message.retain) << 2 | message.qos as u64);
    hash.number(message.origin.0);
    hash.number(message.expires_at.as_millis());
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use sol_engine::{AuthRequest, Credentials, ListenerId, RecordId};

    use super::*;

    /// What goes another way has another hash, whatever kind of effect it is seen by first.
    #[test]
    fn each_kind_of_effect_is_in_the_hash() {
        let id = ConnectionId::new(1, NonZeroU32::MIN);
        let asks = AuthRequest {
            connection: id,
            listener: ListenerId(0),
            client_id: "a".to_owned(),
            version: sol_codec::ProtocolVersion::V5,
            credentials: Credentials::Password {
                username: Some("a".to_owned()),
                password: None,
            },
        };
        let record = |n| Record::Delete(RecordId(n));
        let changes: [&dyn Fn(&mut Effects); 7] = [
            &|_| {},
            &|tray| tray.records.push(record(1)),
            &|tray| tray.records.push(record(2)),
            &|tray| tray.reads.push(Read::Pause(id)),
            &|tray| tray.reads.push(Read::Resume(id)),
            &|tray| tray.events.push(Event::Odd("odd")),
            &|tray| tray.auth_requests.push(asks.clone()),
        ];
        let hashes = changes.map(|change| {
            let (mut tray, mut hash) = (Effects::default(), Hash::default());
            change(&mut tray);
            hash_rest(&mut hash, &tray, Seen::default());
            hash.get()
        });
        let different: std::collections::BTreeSet<u64> = hashes.into_iter().collect();
        assert_eq!(different.len(), changes.len());
    }
}
