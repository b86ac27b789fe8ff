//! One step: something that could happen next happens.

use std::num::NonZeroU32;

use sol_codec::{ProtocolVersion, QoS, ReasonCode};
use sol_engine::{AckKind, ConnectionId, Flow, Handover, Input, ListenerId, ShardId, ShardMessage, Ticket};

use super::{Link, Shard, World};
use crate::checks::answers::Kind;
use crate::client::Heard;
use crate::fault::{Fault, Given};
use crate::oracle::{Arrival, LinkId};
use crate::packet::{ConnectRequest, Request};
use crate::violation::{Verdict, Violation};

/// What lies in a mailbox.
pub(super) enum Mail {
    Message(ShardId, ShardMessage),
    Moved(LinkId, Box<Handover>),
}

/// Something that could happen next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A client takes a packet out of its pipe, or sees that its connection is closed.
    Hear(usize),
    /// A shard takes a packet out of a pipe.
    Take(LinkId),
    /// A shard takes one piece of mail.
    Mail(usize),
    /// A shard does what has come due.
    Tick(usize),
    /// A shard's tray is applied, and what it posts is posted.
    Flush(usize),
    /// A journal has written something.
    Durable(usize),
}

/// A shard rests once in so many steps, and for how long at most.
const RESTS_ONCE_IN: usize = 64;
const RESTS_MAX: usize = 64;

impl World {
    /// One thing happens. Whether anything could.
    pub(super) fn step(&mut self) -> Result<bool, Violation> {
        self.steps += 1;
        if self.rng.once_in(RESTS_ONCE_IN) {
            let shard = self.rng.below(self.shards.len());
            self.shards[shard].rests = self.rng.below(RESTS_MAX);
        }
        let mut acts = self.acts();
        for shard in &mut self.shards {
            shard.rests = shard.rests.saturating_sub(1);
        }
        if acts.is_empty() {
            self.shards.iter_mut().for_each(|shard| shard.rests = 0);
            acts = self.acts();
        }
        if acts.is_empty() {
            return Ok(false);
        }
        match acts[self.rng.below(acts.len())] {
            Act::Hear(who) => self.hear(who)?,
            Act::Take(link) => self.take(link)?,
            Act::Mail(shard) => self.take_mail(shard)?,
            Act::Tick(shard) => self.tick(shard)?,
            Act::Flush(shard) => self.flush(shard)?,
            Act::Durable(shard) => self.make_durable(shard)?,
        }
        Ok(true)
    }

    fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (who, party) in self.parties.iter().enumerate() {
            let link = party.link.and_then(|link| self.links.get(&link));
            if link.is_some_and(|link| link.ended || !link.to_client.is_empty()) {
                acts.push(Act::Hear(who));
            }
        }
        for (&id, link) in &self.links {
            let ready = link.connection.is_some() && !link.stopped && !link.to_broker.is_empty();
            // The end of a stream is seen though nothing is read.
            let over = link.connection.is_some() && matches!(link.to_broker.front(), Some(Request::End));
            if (ready || over) && !link.ended && self.shards[link.shard].rests == 0 {
                acts.push(Act::Take(id));
            }
        }
        for (n, shard) in self.shards.iter().enumerate().filter(|(_, shard)| shard.rests == 0) {
            if !shard.mailbox.is_empty() {
                acts.push(Act::Mail(n));
            }
            if self.is_due(n) {
                acts.push(Act::Tick(n));
            }
            if !shard.tray.is_empty() {
                acts.push(Act::Flush(n));
            }
            if shard.journal.durable < shard.journal.written {
                acts.push(Act::Durable(n));
            }
        }
        acts
    }

    pub(super) fn is_due(&self, shard: usize) -> bool {
        let deadline = self.shards[shard].engine.next_deadline();
        deadline.is_some_and(|deadline| deadline <= self.now.mono)
    }

    fn hear(&mut self, who: usize) -> Verdict {
        let Some(id) = self.parties[who].link else {
            return Ok(());
        };
        let Some(parcel) = self.links.get_mut(&id).and_then(|link| link.to_client.pop_front()) else {
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
    pub(super) fn open(&mut self, id: LinkId, shard: usize, who: usize, connect: ConnectRequest) {
        let connection = self.shards[shard].let_in(id);
        let link = Link {
            who,
            shard,
            connection: Some(connection),
            to_broker: [Request::Connect(connect.clone())].into(),
            connect,
            to_client: std::collections::VecDeque::new(),
            stopped: false,
            active: false,
            ended: false,
            congested: false,
        };
        self.links.insert(id, link);
        let listener = ListenerId(0);
        let opened = self.tell(shard, Input::Opened { connection, listener });
        debug_assert_eq!(opened, Ok(Flow::Go), "nothing follows from an accepted connection");
    }

    fn take(&mut self, id: LinkId) -> Verdict {
        let Some(link) = self.links.get_mut(&id) else {
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
        let given = self.given(id, &request);
        if matches!(request, Request::End) {
            self.oracle.leave(id, false, None);
            self.over(id);
            return self.tell(shard, Input::Closed(connection)).map(drop);
        }
        self.listen(id, &request, &given);
        let request = match given {
            Given::Request(request) => request,
            Given::Answer(answer) => return self.transmit(id, &answer),
            Given::Besides(request, message) => {
                self.tell(shard, Input::Publish(message)).map(drop)?;
                request
            }
        };
        let flow = request.with_packet(version, |packet| self.tell_packet(shard, connection, packet));
        let flow = flow.unwrap_or(Ok(Flow::Go))?;
        // A Resume in the tray of the same call comes after the Stop.
        if let Some(link) = self.links.get_mut(&id) {
            link.stopped = flow == Flow::Stop;
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
        let next = self.links.get(&id)?.to_broker.front()?;
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
    fn listen(&mut self, id: LinkId, request: &Request, given: &Given) {
        let Some(link) = self.links.get(&id) else { return };
        match request {
            Request::Connect(connect) => {
                let client_id = match given {
                    Given::Request(Request::Connect(given)) => &given.client_id,
                    _ => &connect.client_id,
                };
                if self.shards[link.shard].engine.is_home_of_client(client_id) {
                    self.oracle.connect(link.who, id, connect);
                }
            }
            Request::Publish(publish) => {
                let kind = if publish.qos == QoS::ExactlyOnce {
                    Kind::PubRec
                } else {
                    Kind::PubAck
                };
                if let Some(packet_id) = publish.packet_id {
                    self.answers.due(id, kind, packet_id);
                }
                self.oracle.publish(id, publish.number, publish.packet_id);
            }
            Request::Ack(AckKind::PubRel, packet_id) => {
                self.answers.due(id, Kind::PubComp, *packet_id);
                self.oracle.released(id, *packet_id);
            }
            Request::Ack(kind, packet_id) => {
                if let Some(session) = self.oracle.session_of(id) {
                    self.flights.acknowledged(session, *kind, *packet_id);
                }
            }
            Request::Subscribe {
                packet_id,
                subscription_id,
                filters,
            } => {
                self.answers.due(id, Kind::SubAck, *packet_id);
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

    fn tell_packet(
        &mut self,
        shard: usize,
        connection: ConnectionId,
        packet: &sol_codec::Packet<'_>,
    ) -> Result<Flow, Violation> {
        let Shard { engine, tray, .. } = &mut self.shards[shard];
        Ok(engine.handle(self.now, Input::Packet(connection, packet), tray))
    }

    /// Gives an engine an input and looks at what follows.
    pub(super) fn tell(&mut self, shard: usize, input: Input<'_>) -> Result<Flow, Violation> {
        let Shard { engine, tray, .. } = &mut self.shards[shard];
        let flow = engine.handle(self.now, input, tray);
        self.observe(shard)?;
        Ok(flow)
    }

    pub(super) fn tick(&mut self, shard: usize) -> Verdict {
        self.note_down(|| format!("shard {shard} ticks"));
        let Shard { engine, tray, .. } = &mut self.shards[shard];
        engine.tick(self.now, tray);
        self.observe(shard)
    }

    fn take_mail(&mut self, shard: usize) -> Verdict {
        match self.shards[shard].mailbox.pop_front() {
            Some(Mail::Message(from, message)) => {
                self.note_down(|| format!("shard {shard} takes of shard {}: {message:?}", from.0));
                self.tell(shard, Input::Shard { from, message }).map(drop)
            }
            Some(Mail::Moved(id, handover)) => self.adopt(shard, id, handover),
            None => Ok(()),
        }
    }

    /// A connection arrives at its home.
    fn adopt(&mut self, shard: usize, id: LinkId, handover: Box<Handover>) -> Verdict {
        let connection = self.shards[shard].let_in(id);
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        (link.shard, link.connection) = (shard, Some(connection));
        let (who, connect) = (link.who, link.connect.clone());
        self.note_down(|| format!("shard {shard} adopts connection {id} of client {who}"));
        self.oracle.connect(who, id, &connect);
        let Shard { engine, tray, .. } = &mut self.shards[shard];
        let flow = engine.handle(self.now, Input::Adopted(connection, handover), tray);
        if let Some(link) = self.links.get_mut(&id) {
            link.stopped = flow == Flow::Stop;
        }
        self.observe(shard)
    }

    /// The tray is applied: what is for other shards is posted, the rest has been looked at already.
    fn flush(&mut self, shard: usize) -> Verdict {
        self.note_down(|| format!("shard {shard} flushes"));
        let from = ShardId(shard as u16);
        let tray = &mut self.shards[shard].tray;
        let forwards: Vec<_> = tray.forwards.drain(..).collect();
        let moves: Vec<_> = tray.moves.drain(..).collect();
        tray.clear();
        self.shards[shard].seen = super::Seen::default();
        for (to, message) in forwards {
            self.shards[usize::from(to.0)]
                .mailbox
                .push_back(Mail::Message(from, message));
        }
        let moving = std::mem::take(&mut self.shards[shard].moving);
        for (id, moved) in moving.into_iter().zip(moves) {
            let to = usize::from(moved.to.0);
            self.shards[to].mailbox.push_back(Mail::Moved(id, moved.handover));
        }
        self.tell(shard, Input::Flushed).map(drop)
    }

    fn make_durable(&mut self, shard: usize) -> Verdict {
        let journal = &mut self.shards[shard].journal;
        let pending = (journal.written - journal.durable) as usize;
        journal.durable += 1 + self.rng.below(pending) as u64;
        let ticket = Ticket(journal.durable);
        self.tell(shard, Input::Durable(ticket)).map(drop)
    }

    /// The engine is done with a connection.
    pub(super) fn over(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !std::mem::replace(&mut link.ended, true)
            && let Some(connection) = link.connection
        {
            let (who, shard) = (link.who, link.shard);
            link.to_broker.clear();
            self.shards[shard].let_out(connection);
            self.owners.leaves(who, id);
            self.answers.forget(id);
        }
        self.reap(id);
    }
}

impl Shard {
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
pub(super) fn hears_why(version: ProtocolVersion) -> bool {
    version == ProtocolVersion::V5
}
