//! After a call that did not get to its end: the tray as it was before it, and Sessions that agree with it.
//!
//! Not a transaction. What the call changed in the tables stays changed, and [`Engine::check`] says whether that can be
//! lived with. This is about what was promised to others and never left: it must leave later, or they must hear that it
//! will not.

use alloc::vec::Vec;
use core::mem;

use crate::clients::Clients;
use crate::connection::Marks;
use crate::effects::{Delivery, Effects, Mark, Outgoing, Read, Transmit};
use crate::engine::Engine;
use crate::ids::{ConnectionId, SessionKey};
use crate::rare::DropCause;

impl Engine {
    /// Takes back what a call that panicked has put into the tray since `mark`. The publish that it was about, which was
    /// not acknowledged, counts as never seen, so that its client may repeat it; other messages that were begun go back to
    /// their queues. Gives the connections that wait for something else and would wait for ever: they have to end, and
    /// their clients take it up on the next one.
    ///
    /// Only for a call that a connection caused and that ends it: what [`Engine::tick`] or another shard's message had
    /// taken in hand is not among what is taken back, and those who wait for it are not named.
    ///
    /// # Errors
    /// Other shards or the journal were told something, and count on it.
    pub fn take_back(&mut self, mark: &Mark, effects: &mut Effects) -> Result<Vec<ConnectionId>, &'static str> {
        let taken = effects.take_since(mark);
        if !taken.forwards.is_empty() {
            return Err("another shard would wait for what was taken back");
        }
        if !taken.records.is_empty() {
            return Err("the journal would lack what was taken back");
        }
        // Else they would carry the next message, to members that did not subscribe to it.
        self.drop_posts();
        self.clients.journal.abandon();
        let unrouted = self.unrouted.take();
        if let Some((key, Some(packet_id))) = unrouted {
            self.forget_inbound(key, packet_id, effects);
        }
        if unrouted.is_some() {
            self.clients.unqueue(effects);
        }
        let mut waiting = Vec::new();
        // The latest first: identifiers and Topic Aliases go back in the order in which they were given out.
        for Transmit { connection, packet } in taken.transmits.into_iter().rev() {
            let settled = match packet {
                Outgoing::Publish(delivery) => self.clients.unsend(connection, delivery, unrouted.is_some(), effects),
                _ => false,
            };
            if !settled {
                waiting.push(connection);
            }
        }
        waiting.extend(taken.moves.iter().map(|moved| moved.connection));
        waiting.extend(taken.auth_requests.iter().map(|request| request.connection));
        waiting.extend(taken.closes.iter().map(|close| close.connection));
        waiting.extend(taken.reads.iter().map(|read| match read {
            Read::Pause(id) | Read::Resume(id) | Read::Auth(id) => *id,
        }));
        Ok(waiting)
    }
}

impl Clients {
    /// A PUBLISH did not leave: it is owed still, unless it is to be `forgotten`. `false`: neither can be had.
    fn unsend(&mut self, id: ConnectionId, delivery: Delivery, forgotten: bool, effects: &mut Effects) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            self.let_go(delivery.message, effects);
            return false;
        };
        if delivery.topic_alias.is_some() && !delivery.alias_only {
            connection.forget_alias_out(delivery.message.topic(), &mut self.memory);
        }
        let (session, packet_id, dup) = (connection.session(), delivery.packet_id, delivery.dup);
        self.let_go(delivery.message, effects);
        let Some(packet_id) = packet_id else {
            self.count_dropped(DropCause::NotSent);
            return true;
        };
        let sender = session
            .and_then(|key| self.sessions.get_mut(key))
            .and_then(|session| session.sender.as_deref_mut());
        let (Some(key), Some(sender)) = (session, sender) else {
            return false;
        };
        if dup {
            return sender.unresend(packet_id) && self.go_on_later(key, id);
        }
        match sender.unbegin(packet_id) {
            Some(owed) if forgotten => {
                self.forget(owed, effects);
                true
            }
            Some(owed) => {
                sender.requeue(owed);
                self.go_on_later(key, id)
            }
            None => false,
        }
    }

    /// Takes what the call has queued out of the queues.
    fn unqueue(&mut self, effects: &mut Effects) {
        for key in mem::take(&mut self.queued) {
            let session = self.sessions.get_mut(key);
            let sender = session.and_then(|session| session.sender.as_deref_mut());
            if let Some(owed) = sender.and_then(|sender| sender.queue.pop_back()) {
                self.forget(owed, effects);
            }
        }
    }

    /// Has a Session's queue go on in a tick after the next flush.
    fn go_on_later(&mut self, key: SessionKey, id: ConnectionId) -> bool {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.marks.set(Marks::GOES_ON)
        {
            self.after_flush.push(self.sessions.reference(key));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use sol_codec::{Packet, PubAck, QoS, ReasonCode};

    use super::*;
    use crate::input::Input;
    use crate::testing::{Bench, publishes};

    /// A publish that failed after some had it was never there: nothing of it leaves, their windows and Topic Aliases are
    /// as before, and repeated by its client it reaches everybody once, at QoS 2 too.
    #[test]
    fn a_publish_that_is_taken_back_can_be_repeated() {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut bench = Bench::new();
            let narrow = bench.client("narrow", 1, "t");
            let wide = bench.client("wide", 10, "t");
            let full = bench.client("full", 1, "+");
            let publisher = bench.client("publisher", 10, "none");
            bench.publish(publisher, "only full", QoS::AtLeastOnce, 6);
            bench.leave();
            bench.publish(publisher, "t", QoS::AtMostOnce, 0);
            let mark = bench.effects.mark();
            bench.publish(publisher, "t", qos, 7);
            // As if the call had failed just before its acknowledgement.
            let acked = bench.effects.transmits.pop().unwrap();
            assert_eq!(acked.connection, publisher);
            bench.engine.unrouted = bench
                .engine
                .clients
                .connections
                .get(publisher)
                .and_then(crate::connection::Connection::session)
                .map(|key| (key, acked_id(&acked)));
            assert_eq!(bench.take_back(&mark), Ok(vec![]));
            assert_eq!(bench.engine.check(), Ok(()));
            let left = bench.leave();
            assert_eq!(publishes(&left, narrow), [("t", 0, true)]);
            bench.publish(publisher, "t", qos, 7);
            let left = bench.leave();
            assert_eq!(publishes(&left, narrow), [("t", 1, false)]);
            assert_eq!(publishes(&left, wide), [("t", 1, false)]);
            assert_eq!(left.len(), 3, "{left:?}");
            let ack = PubAck::new(sol_codec::PacketId::new(1).unwrap(), ReasonCode::Success);
            let _ = bench.input(Input::Packet(full, &Packet::PubAck(ack)));
            assert_eq!(publishes(&bench.leave(), full), [("t", 2, false)]);
            assert_eq!(bench.leave(), []);
            assert_eq!(bench.engine.check(), Ok(()));
        }
    }

    fn acked_id(transmit: &Transmit) -> Option<sol_codec::PacketId> {
        match &transmit.packet {
            Outgoing::Ack { packet_id, .. } => Some(*packet_id),
            _ => None,
        }
    }

    /// What another client is owed and was taken back leaves later, in order, with the topic that its Topic Alias needs.
    #[test]
    fn what_others_are_owed_is_sent_later() {
        let mut bench = Bench::new();
        let reader = bench.client("reader", 2, "#");
        let publisher = bench.client("publisher", 10, "none");
        for packet_id in 1..=5 {
            bench.publish(
                publisher,
                ["a", "b", "c", "d", "e"][usize::from(packet_id) - 1],
                QoS::AtLeastOnce,
                packet_id,
            );
        }
        let left = bench.leave();
        assert_eq!(publishes(&left, reader), [("a", 1, true), ("b", 2, true)]);
        let mark = bench.effects.mark();
        for packet_id in [1, 2] {
            let ack = PubAck::new(sol_codec::PacketId::new(packet_id).unwrap(), ReasonCode::Success);
            let _ = bench.input(Input::Packet(reader, &Packet::PubAck(ack)));
        }
        assert_eq!(publishes(&bench.effects.transmits, reader).len(), 2);
        assert_eq!(bench.take_back(&mark), Ok(vec![]));
        assert_eq!(bench.engine.check(), Ok(()));
        assert_eq!(bench.leave(), []);
        let left = bench.leave();
        assert_eq!(publishes(&left, reader), [("c", 3, true), ("d", 4, true)]);
    }

    /// Whoever waits for anything else that was taken back is named, to be ended: a taken-over client, one whose read was
    /// to be resumed, one whose acknowledgement is gone.
    #[test]
    fn whoever_would_wait_for_ever_is_named() {
        let mut bench = Bench::new();
        let (one, two, three) = (
            bench.client("one", 10, "1"),
            bench.client("two", 10, "2"),
            bench.client("three", 10, "3"),
        );
        let mark = bench.effects.mark();
        bench
            .engine
            .clients
            .send(one, Outgoing::PingResp, 2, &mut bench.effects);
        bench.effects.reads.push(Read::Resume(two));
        bench.effects.closes.push(crate::Close {
            connection: three,
            flush: true,
        });
        assert_eq!(bench.take_back(&mark), Ok(vec![one, three, two]));
        assert!(bench.effects.is_empty());
    }

    /// What was to be sent to a connection that is gone by now is held by nobody any more, and its charge is free again.
    #[test]
    fn what_nobody_can_get_is_let_go() {
        let used = |goes: bool| {
            let mut bench = Bench::new();
            let reader = bench.client("reader", 10, "t");
            let publisher = bench.client("publisher", 10, "none");
            let mark = bench.effects.mark();
            bench.publish(publisher, "t", QoS::AtLeastOnce, 1);
            let _ = bench.input(Input::Closed(reader));
            if goes {
                bench.effects.clear();
                let _ = bench.input(Input::Flushed);
            } else {
                assert_eq!(bench.take_back(&mark), Ok(vec![publisher, reader]));
            }
            let message = bench.effects.spare_message();
            let mut message = alloc::rc::Rc::try_unwrap(message).unwrap();
            message.fill("t", sol_codec::ApplicationProperties::from_stored(&[]), b"");
            bench.engine.clients.charge_message(&mut message);
            let delivery = Delivery::new(alloc::rc::Rc::new(message), QoS::AtMostOnce, false);
            let Bench { engine, effects, .. } = &mut bench;
            engine
                .clients
                .send_publish(crate::Now::default(), reader, delivery, effects);
            let _ = bench.input(Input::Flushed);
            assert_eq!(bench.engine.check(), Ok(()));
            bench.engine.clients.memory.used()
        };
        assert_eq!(used(true), used(false));
        let mut idle = Bench::new();
        idle.client("publisher", 10, "none");
        assert_eq!(used(true), idle.engine.clients.memory.used());
    }

    /// Where a message was to be forwarded to when its call failed does not get the next one instead.
    #[test]
    fn what_was_to_be_forwarded_is_forgotten() {
        let mut bench = Bench::new();
        let publisher = bench.client("publisher", 10, "none");
        let mark = bench.effects.mark();
        let pick = crate::GroupPick {
            share: "group".into(),
            filter: "secret".into(),
            tried: 0,
        };
        bench.engine.post_pick(crate::ShardId(1), pick);
        assert_eq!(bench.take_back(&mark), Ok(vec![]));
        bench.publish(publisher, "other", QoS::AtMostOnce, 0);
        assert_eq!(bench.effects.forwards, []);
    }

    /// What other shards or the journal were told cannot be taken back.
    #[test]
    fn what_others_count_on_cannot_be_taken_back() {
        let mut bench = Bench::new();
        let mark = bench.effects.mark();
        bench.effects.records.push(crate::Record::Delete(crate::RecordId(1)));
        assert!(bench.take_back(&mark).is_err());
        let mark = bench.effects.mark();
        let answer = crate::ShardMessage::Confirmed(1);
        bench.effects.forwards.push((crate::ShardId(1), answer));
        assert!(bench.take_back(&mark).is_err());
    }
}
