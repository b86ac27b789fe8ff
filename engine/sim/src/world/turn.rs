//! One step: something that could happen next happens.

use std::num::NonZeroU32;

use sol_codec::{QoS, ReasonCode};
use sol_engine::{AckKind, AuthOutcome, Close, ConnectionId, Flow, Handover, Input, Outgoing, ShardId, ShardMessage};

use super::ready::Act;
use super::{Link, Shard, World};
use crate::checks::answers::Kind;
use crate::client::Heard;
use crate::fault::{Fault, Given};
use crate::marks::Mark;
use crate::oracle::{Arrival, LinkId};
use crate::packet::{ConnectRequest, Request};
use crate::violation::{Verdict, Violation};

/// What lies in a mailbox.
pub(super) enum Mail {
    Message(ShardId, ShardMessage),
    Moved(ShardId, LinkId, Box<Handover>),
}

/// Bytes that a connection is charged with in a mailbox.
const MOVED_BYTES: usize = 256;
/// Steps after which everything is looked at that can be at any time.
const LOOK_ONCE_IN: u64 = 1_000;

impl Mail {
    const fn from(&self) -> usize {
        match self {
            Self::Message(from, _) | Self::Moved(from, ..) => from.0 as usize,
        }
    }

    /// Whether it leaves when everything else has, whoever that is for: it promises that what was routed before has been
    /// posted to every shard.
    const fn is_last(&self) -> bool {
        matches!(self, Self::Message(_, ShardMessage::Confirmed(_)))
    }

    pub(super) fn charge(&self) -> usize {
        match self {
            Self::Message(_, message) => message.charge(),
            Self::Moved(..) => MOVED_BYTES,
        }
    }
}

impl World {
    /// One thing happens. Whether anything could.
    pub(super) fn step(&mut self) -> Result<bool, Violation> {
        self.pause();
        self.began = self.oracle.at();
        let Some(act) = self.choose() else {
            return Ok(false);
        };
        self.steps += 1;
        if self.steps.is_multiple_of(LOOK_ONCE_IN) {
            self.look_inside()?;
        }
        match act {
            Act::Hear(who) => self.hear(who)?,
            Act::Take(link) => self.take(link)?,
            Act::Mail(shard) => self.take_mail(shard)?,
            Act::Tick(shard) => self.tick(shard)?,
            Act::Flush(shard) => self.flush(shard)?,
            Act::Write => self.writer.work(self.now.wall.as_millis(), self.steps)?,
            Act::Durable(shard) => self.make_durable(shard)?,
            Act::Peer(shard) => self.hear_of_peer(shard)?,
            Act::Login(shard) => self.answer_login(shard)?,
        }
        Ok(true)
    }

    /// Somebody stands still for a while.
    fn pause(&mut self) {
        if self.steps >= self.next_rest {
            self.next_rest = self.steps + self.pauses.wait(self.pace.rests_once_in);
            let shard = self.pauses.below(self.shards.len());
            self.shards[shard].wakes = self.steps + self.pauses.between(1, self.pace.rests_max.max(1));
        }
        if self.steps >= self.next_stall {
            self.next_stall = self.steps + self.pauses.wait(self.pace.stalls_once_in);
            let who = self.pauses.below(self.parties.len());
            let until = self.steps + self.pauses.between(1, self.pace.stalls_max.max(1));
            let to_client = self.pauses.once_in(2);
            if let Some(link) = self.parties[who].link.and_then(|id| self.links.get_mut(id)) {
                if to_client {
                    link.client_stalls = until;
                } else {
                    link.broker_stalls = until;
                }
            }
        }
    }

    pub(super) fn hear(&mut self, who: usize) -> Verdict {
        let Some(id) = self.parties[who].link else {
            return Ok(());
        };
        let Some(parcel) = self.links.get_mut(id).and_then(|link| link.to_client.pop_front()) else {
            self.abandon(who);
            return Ok(());
        };
        let version = self.parties[who].client.version;
        match self.parties[who].client.hear(parcel.reply)? {
            Heard::Nothing => {}
            Heard::Bye => {
                self.abandon(who);
                return Ok(());
            }
            Heard::Message { received, again } => {
                if let (Some(session), false) = (parcel.session, again) {
                    self.oracle.received(&Arrival {
                        session,
                        version,
                        received: &received,
                        sent: parcel.sent,
                        journaled: self.config.journal,
                    })?;
                }
                if who + 1 == self.parties.len()
                    && let (Some(number), Some(topic)) = (received.number(), received.topic)
                {
                    self.seen.insert(topic, number);
                }
            }
        }
        self.carry(who);
        Ok(())
    }

    /// A connection is accepted by a shard.
    pub(super) fn open(&mut self, shard: usize, who: usize, connect: ConnectRequest) {
        let id = self.links.next();
        let connection = self.shards[shard].let_in(id);
        self.links.push(Link {
            who,
            shard,
            connection: Some(connection),
            to_broker: [Request::Connect(connect.clone())].into(),
            connect,
            to_client: std::collections::VecDeque::new(),
            stopped: false,
            active: false,
            ended: false,
            parked: None,
            congested: false,
            settled: false,
            quota: 0,
            refused: false,
            offered: false,
            broker_stalls: 0,
            client_stalls: 0,
        });
        self.offer_take(id);
        let listener = self.parties[who].listener;
        let opened = self.tell(shard, Input::Opened { connection, listener });
        debug_assert_eq!(opened, Ok(Flow::Go), "nothing follows from an accepted connection");
    }

    fn take(&mut self, id: LinkId) -> Verdict {
        let Some(link) = self.links.get_mut(id) else {
            return Ok(());
        };
        let (shard, Some(connection)) = (link.shard, link.connection) else {
            return Ok(());
        };
        let version = link.connect.version;
        let Some(request) = link.to_broker.pop_front() else {
            return Ok(());
        };
        self.note_down(|| format!("shard {shard} takes of connection {id}: {request:?}"));
        if matches!(request, Request::End) {
            self.oracle.leave(id, false, None);
            self.over(id);
            return self.tell(shard, Input::Closed(connection)).map(drop);
        }
        self.listen(id, &request);
        let request = if self.fault.is_none() {
            request
        } else {
            match self.given(id, &request) {
                Given::Request(request) => request,
                Given::Answer(answer) => return self.transmit(id, &answer),
                Given::Besides(request, message) => {
                    self.tell(shard, Input::Publish(message)).map(drop)?;
                    request
                }
            }
        };
        let parked = self.parked_for_disk(shard);
        let flow = request.with_packet(version, |packet| self.call(shard, Input::Packet(connection, packet)));
        let flow = flow.unwrap_or(Ok(Flow::Go))?;
        if self.parked_for_disk(shard) > parked
            && let (Some(link), Request::Publish(publish)) = (self.links.get_mut(id), &request)
        {
            link.parked = publish.packet_id;
        }
        if matches!(request, Request::Connect(_)) {
            self.settle(shard, id, connection);
        }
        self.may_go_on(id, flow);
        self.observe(shard)
    }

    /// What the engine says of a connection's reading. A Resume in the tray of the same call comes after it.
    fn may_go_on(&mut self, id: LinkId, flow: Flow) {
        if let Some(link) = self.links.get_mut(id) {
            link.stopped = flow == Flow::Stop;
            let is_full = |to| self.credits.is_full(link.shard, to);
            if link.stopped && link.active && (0..self.shards.len()).any(is_full) {
                self.marks.hit(Mark::PeerFullPaused);
            }
        }
    }

    /// A CONNECT has been handled. If that brought its connection to its Session, the oracle hears of it before it sees
    /// what followed.
    fn settle(&mut self, shard: usize, id: LinkId, connection: ConnectionId) {
        let Shard { tray, seen, config, .. } = &self.shards[shard];
        let refuses = |packet: &Outgoing| matches!(packet, Outgoing::ConnAck(data) if data.reason_code.is_error());
        let is_refused = (tray.transmits[seen.transmits..].iter())
            .any(|transmit| transmit.connection == connection && refuses(&transmit.packet));
        let is_closed = |close: &Close| close.connection == connection;
        let waits = is_refused
            || tray.closes[seen.closes..].iter().any(is_closed)
            || tray.moves[seen.moves..]
                .iter()
                .any(|moved| moved.connection == connection)
            || tray.auth_requests[seen.auth_requests..]
                .iter()
                .any(|asks| asks.connection == connection);
        let inflight_max = config.inflight_max;
        let Some(link) = self.links.get_mut(id).filter(|_| !waits) else {
            return;
        };
        link.settled = true;
        link.quota = usize::from(
            link.connect
                .receive_maximum
                .unwrap_or(u16::MAX)
                .min(inflight_max)
                .max(1),
        );
        let (who, connect) = (link.who, link.connect.clone());
        self.parties[who].client.insists &= !connect.clean_start;
        self.mark_takeover(shard, who, id);
        self.oracle.connect(who, id, &connect);
        // It may be gone before it hears that its Session is a new one, and a CONNACK that waits for a journal never leaves.
        self.parties[who].client.begins_anew |= self.oracle.is_surely_new(id);
    }

    /// A shard hears whether another one's mailbox is full.
    fn hear_of_peer(&mut self, shard: usize) -> Verdict {
        let Some((peer, full)) = self.credits.tell(shard) else {
            return Ok(());
        };
        if full {
            self.marks.hit(Mark::PeerFull);
        }
        self.note_down(|| format!("shard {shard} hears that shard {peer} is full: {full}"));
        let shard_id = ShardId(peer as u16);
        self.tell(shard, Input::Peer { shard: shard_id, full }).map(drop)
    }

    /// A login was checked: any of those that wait.
    fn answer_login(&mut self, shard: usize) -> Verdict {
        let waiting = self.shards[shard].logins.len();
        let (id, connection) = self.shards[shard].logins.swap_remove(self.logins.below(waiting));
        let refused = self.logins.percent(self.logins_refused) && !self.heals;
        self.note_down(|| format!("shard {shard} hears of connection {id}'s login, refused: {refused}"));
        let outcome = if refused {
            AuthOutcome::Refused(ReasonCode::BadUserNameOrPassword)
        } else {
            AuthOutcome::Accepted
        };
        match self.links.get_mut(id).filter(|link| !link.ended) {
            Some(link) => link.refused = refused,
            None => self.marks.hit(Mark::LoginForGone),
        }
        if refused {
            self.marks.hit(Mark::LoginRefused);
        }
        let _ = self.call(shard, Input::Authenticated(connection, outcome))?;
        if !refused && self.links.get(id).is_some_and(|link| !link.ended) {
            self.settle(shard, id, connection);
        }
        self.observe(shard)
    }

    /// What the engine gets instead of a request, where something is broken on purpose.
    fn given(&mut self, id: LinkId, request: &Request) -> Given {
        if let Some(swapped) = self.swapped.remove(&id) {
            return Given::Request(swapped);
        }
        match self.fault {
            None => Given::Request(request.clone()),
            Some(Fault::SwapsOrder) => Given::Request(self.swap(id, request).unwrap_or_else(|| request.clone())),
            Some(fault) => fault.change(request),
        }
    }

    /// Exchanges a QoS 0 message for the one that comes after it on the same topic.
    fn swap(&mut self, id: LinkId, request: &Request) -> Option<Request> {
        let next = self.links.get(id)?.to_broker.front()?;
        let (Request::Publish(first), Request::Publish(second)) = (request, next) else {
            return None;
        };
        let plain = |publish: &crate::packet::PublishRequest| {
            publish.qos == QoS::AtMostOnce && publish.alias.is_none() && !publish.retain
        };
        if !plain(first) || !plain(second) || first.topic != second.topic {
            return None;
        }
        let next = next.clone();
        self.swapped.insert(id, request.clone());
        Some(next)
    }

    /// The oracle and the checks hear a request before the engine does.
    fn listen(&mut self, id: LinkId, request: &Request) {
        match request {
            Request::Connect(_) => {}
            Request::Publish(publish) => {
                let kind = if publish.qos == QoS::ExactlyOnce {
                    Kind::PubRec
                } else {
                    Kind::PubAck
                };
                if let Some(packet_id) = publish.packet_id {
                    if kind == Kind::PubRec && self.oracle.expects_pubrel(id, packet_id) {
                        self.marks.hit(Mark::Qos2Repeated);
                    }
                    self.answers.due(id, kind, packet_id);
                }
                self.sums.publishes_in += 1;
                self.oracle.publish(id, publish.number, publish.packet_id);
            }
            Request::Ack(AckKind::PubRel, packet_id) => {
                self.answers.due(id, Kind::PubComp, *packet_id);
                self.oracle.released(id, *packet_id);
            }
            Request::Ack(kind, packet_id) => {
                if let Some(session) = self.oracle.session_of(id)
                    && self.flights.acknowledged(session, *kind, *packet_id)
                {
                    self.oracle.taken(session);
                }
                if let (AckKind::PubAck, Some(link)) = (kind, self.links.get(id)) {
                    self.parties[link.who].client.is_done_with(*packet_id);
                }
            }
            Request::Subscribe {
                packet_id,
                subscription_id,
                filters,
            } => {
                self.answers.due(id, Kind::SubAck, *packet_id);
                if filters.iter().any(|(filter, _)| self.oracle.is_unconfirmed(filter)) {
                    self.marks.hit(Mark::InterestUnconfirmed);
                }
                if filters
                    .iter()
                    .any(|(filter, _)| self.oracle.was_lost_unconfirmed(filter))
                {
                    self.marks.hit(Mark::InterestAgain);
                }
                self.oracle.subscribe(id, *packet_id, *subscription_id, filters);
            }
            Request::Unsubscribe { packet_id, filters } => {
                self.answers.due(id, Kind::UnsubAck, *packet_id);
                self.oracle.unsubscribe(id, *packet_id, filters);
            }
            Request::Disconnect {
                reason_code,
                session_expiry_interval,
            } => {
                let clean = *reason_code == ReasonCode::Success;
                self.oracle.leave(id, clean, *session_expiry_interval);
            }
            Request::End => {}
        }
    }

    fn take_mail(&mut self, shard: usize) -> Verdict {
        let Some(mail) = self.shards[shard].mailbox.pop_front() else {
            return Ok(());
        };
        self.credits.refund(mail.from(), shard, mail.charge());
        match mail {
            Mail::Message(from, message) => {
                self.note_down(|| format!("shard {shard} takes of shard {}: {message:?}", from.0));
                match &message {
                    ShardMessage::Refused(_) => self.marks.hit(Mark::RefusedThere),
                    ShardMessage::RetainedPage { more: Some(_), .. } => self.marks.hit(Mark::ReplayInPages),
                    _ => {}
                }
                if matches!(message, ShardMessage::Taken(_) | ShardMessage::Confirmed(_)) {
                    self.completes = 1 + self.answers.waiting();
                }
                let told = self.tell(shard, Input::Shard { from, message });
                self.completes = 1;
                told.map(drop)
            }
            Mail::Moved(_, id, handover) => self.adopt(shard, id, handover),
        }
    }

    /// A connection arrives at its home.
    fn adopt(&mut self, shard: usize, id: LinkId, handover: Box<Handover>) -> Verdict {
        let Some(link) = self.links.get_mut(id) else {
            return Ok(());
        };
        let connection = self.shards[shard].let_in(id);
        (link.shard, link.connection) = (shard, Some(connection));
        let who = link.who;
        self.note_down(|| format!("shard {shard} adopts connection {id} of client {who}"));
        if self.oracle.owner_of(who).is_some() {
            self.marks.hit(Mark::TakeoverElsewhere);
        }
        let flow = self.call(shard, Input::Adopted(connection, handover))?;
        self.settle(shard, id, connection);
        self.may_go_on(id, flow);
        self.offer_take(id);
        self.observe(shard)
    }

    /// The tray is applied: what is for other shards is posted, to one of them after the other, and each has its turns
    /// between. The rest has been looked at already.
    fn flush(&mut self, shard: usize) -> Verdict {
        if !self.shards[shard].is_posting() {
            self.note_down(|| format!("shard {shard} flushes"));
            let Shard { tray, unsubmitted, .. } = &mut self.shards[shard];
            self.writer.submit(shard, tray, unsubmitted);
            self.shards[shard].put_out(ShardId(shard as u16));
            if let Some(twin) = &mut self.twin {
                twin.flushed(shard);
            }
        }
        self.post_to_next(shard);
        if self.shards[shard].is_posting() {
            return Ok(());
        }
        self.tell(shard, Input::Flushed).map(drop)
    }

    /// Before an engine is called by what does not wait for its turn: what was to be posted before is.
    pub(super) fn finish_posting(&mut self, shard: usize) -> Verdict {
        while self.shards[shard].is_posting() {
            self.flush(shard)?;
        }
        Ok(())
    }

    /// Posts what is for the next receiver.
    fn post_to_next(&mut self, shard: usize) {
        let first = self.shards[shard]
            .posting
            .front()
            .map(|(to, mail)| (*to, mail.is_last()));
        while let Some((to, mail)) = self.shards[shard]
            .posting
            .pop_front_if(|(to, mail)| Some((*to, mail.is_last())) == first)
        {
            self.credits.charge(mail.from(), to, mail.charge());
            self.shards[to].mailbox.push_back(mail);
        }
    }

    fn make_durable(&mut self, shard: usize) -> Verdict {
        let Some((news, calls)) = self.writer.news(shard) else {
            return Ok(());
        };
        if matches!(news, Input::DurableAlone(_)) {
            self.marks.hit(Mark::KeptAlone);
        }
        if let Input::JournalFull(full) = news {
            return self.hear_of_disk(shard, full);
        }
        self.completes = calls;
        let told = self.tell(shard, news);
        self.completes = 1;
        told.map(drop)
    }

    /// Connections that have a publish parked, for want of room on the disk alone.
    fn parked_for_disk(&self, shard: usize) -> usize {
        let Shard { engine, lacks_disk, .. } = &self.shards[shard];
        if *lacks_disk && !self.oracle.may_lack_room() {
            engine.unrest().parked
        } else {
            0
        }
    }

    /// A shard hears whether the journal has room.
    fn hear_of_disk(&mut self, shard: usize, full: bool) -> Verdict {
        self.note_down(|| format!("shard {shard} hears that the disk is full: {full}"));
        self.oracle.lack_disk();
        self.shards[shard].lacks_disk = full;
        self.tell(shard, Input::JournalFull(full)).map(drop)?;
        if !self.shards.iter().any(|shard| shard.lacks_disk) {
            self.oracle.have_disk();
        }
        Ok(())
    }

    /// The engine is done with a connection.
    pub(super) fn over(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else { return };
        if !std::mem::replace(&mut link.ended, true)
            && let Some(connection) = link.connection
        {
            let (who, shard) = (link.who, link.shard);
            // It does not know that what it wanted to be forgotten is still there.
            self.parties[who].client.insists |= !link.settled && link.connect.clean_start;
            link.to_broker.clear();
            self.shards[shard].let_out(connection);
            self.owners.leaves(who, id);
            self.answers.forget(id);
            if self.parties[who].link == Some(id) {
                self.offer_hear(who);
            }
        }
        self.reap(id);
    }
}

impl Shard {
    /// Whether something of a tray is posted and something is not.
    pub(super) fn is_posting(&self) -> bool {
        !self.posting.is_empty()
    }

    /// Empties the tray. What is for other shards is in the order in which it is posted.
    fn put_out(&mut self, from: ShardId) {
        let Self {
            tray,
            seen,
            moving,
            posting,
            ..
        } = self;
        let forwards = tray.forwards.drain(..);
        posting.extend(forwards.map(|(to, message)| (usize::from(to.0), Mail::Message(from, message))));
        let moves = moving.drain(..).zip(tray.moves.drain(..));
        posting.extend(moves.map(|(id, moved)| (usize::from(moved.to.0), Mail::Moved(from, id, moved.handover))));
        posting
            .make_contiguous()
            .sort_by_key(|(to, mail)| (mail.is_last(), *to));
        tray.clear();
        *seen = super::Seen::default();
    }

    /// Gives a connection a name.
    fn let_in(&mut self, id: LinkId) -> ConnectionId {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(id);
        self.tenants += 1;
        let generation = NonZeroU32::MIN.saturating_add(self.tenants);
        ConnectionId::new(slot as u32, generation)
    }

    pub(super) fn let_out(&mut self, connection: ConnectionId) {
        self.slots[connection.slot()] = None;
    }

    /// The connection of this name, if there is one in its slot.
    pub(super) fn tenant(&self, connection: ConnectionId) -> Option<LinkId> {
        *self.slots.get(connection.slot())?
    }
}

/// Whether a version has a DISCONNECT from the server.
pub(super) fn hears_why(version: sol_codec::ProtocolVersion) -> bool {
    version == sol_codec::ProtocolVersion::V5
}
