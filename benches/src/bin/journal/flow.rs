//! Publishers and their subscribers in a [`Swarm`], with every acknowledgement timed and every delivery looked at.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sol_codec::{Packet, PacketId, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, QoS, TopicName};

use crate::swarm::{Outcome, PATIENCE, Swarm};

/// Number and time of a message, which its payload begins with.
const HEAD: usize = 16;

/// When a publisher sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As soon as fewer than so many messages are under way: not acknowledged, or not delivered where somebody is there.
    Window(usize),
    /// So many messages in a second, of all publishers in turn, whatever comes back. Times count from when each was due.
    Rate(f64),
}

/// Which topics they publish to.
#[derive(Clone, Debug)]
pub(crate) enum Topics {
    /// Each publisher has one, this with its number behind, which one subscriber listens to.
    Own(&'static str),
    /// All have this one.
    One(&'static str),
    /// The next of so many, in turn, each a retained message.
    Retained(u64),
}

/// What is published.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The QoS of publishers and subscribers.
    pub(crate) qos: QoS,
    /// When.
    pub(crate) pace: Pace,
    /// Where to.
    pub(crate) topics: Topics,
    /// Payload, in bytes; at least 16.
    pub(crate) size: usize,
    /// How many there are to be, of all publishers together; none is after these.
    pub(crate) limit: u64,
}

/// Its state.
#[derive(Debug)]
pub(crate) struct Flow {
    plan: Plan,
    publishers: Vec<Publisher>,
    /// The first publisher's and the first subscriber's number in the swarm, each followed by the others.
    first_publisher: usize,
    first_subscriber: Option<usize>,
    /// The number that each subscriber hears next.
    awaited: Vec<u64>,
    payload: Vec<u8>,
    began: Instant,
    due: u64,
    /// Whether publishers go on.
    pub(crate) is_open: bool,
    /// What counts since it was last set to nothing.
    pub(crate) counts: FlowCounts,
}

/// What has come of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowCounts {
    /// Messages that were sent.
    pub(crate) sent: u64,
    /// Of these, acknowledged to the end; at QoS 0 all.
    pub(crate) acknowledged: u64,
    /// Messages that a subscriber heard for the first time.
    pub(crate) delivered: u64,
    /// Messages that were not heard when a later one was.
    pub(crate) lost: u64,
    /// Messages that were heard again.
    pub(crate) doubled: u64,
    /// From sending to the last acknowledgement, or at QoS 0 to delivery, each in nanoseconds.
    pub(crate) nanos: Vec<u64>,
}

#[derive(Debug, Default)]
struct Publisher {
    topic: String,
    sent: u64,
    delivered: u64,
    next_id: u16,
    unacknowledged: VecDeque<(PacketId, Instant)>,
}

impl Flow {
    /// `publishers` clients that have joined the swarm one after the other, beginning with `first_publisher`.
    #[must_use]
    pub(crate) fn new(plan: Plan, publishers: usize, first_publisher: usize) -> Self {
        let topic = |number: usize| match &plan.topics {
            Topics::Own(name) => format!("{name}{number}"),
            Topics::One(name) => (*name).to_owned(),
            Topics::Retained(_) => String::new(),
        };
        let publishers: Vec<Publisher> = (0..publishers)
            .map(|number| Publisher {
                topic: topic(number),
                ..Publisher::default()
            })
            .collect();
        Self {
            awaited: vec![0; publishers.len()],
            payload: vec![b'x'; plan.size.max(HEAD)],
            plan,
            publishers,
            first_publisher,
            first_subscriber: None,
            began: Instant::now(),
            due: 0,
            is_open: true,
            counts: FlowCounts::default(),
        }
    }

    /// Each publisher's subscriber is there, numbered in the same order from `first_subscriber`.
    pub(crate) const fn listen(&mut self, first_subscriber: usize) {
        self.first_subscriber = Some(first_subscriber);
    }

    /// Publishes for the first time.
    ///
    /// # Errors
    /// When a topic is not one.
    pub(crate) fn begin(&mut self, swarm: &mut Swarm) -> Outcome<()> {
        self.began = Instant::now();
        for number in 0..self.publishers.len() {
            self.go_on(swarm, number, self.began)?;
        }
        Ok(())
    }

    /// Publishes what is due at a rate.
    ///
    /// # Errors
    /// When a topic is not one.
    pub(crate) fn pace(&mut self, swarm: &mut Swarm, now: Instant) -> Outcome<()> {
        let Pace::Rate(rate) = self.plan.pace else {
            return Ok(());
        };
        while self.is_open {
            let due = self.began + Duration::from_secs_f64(self.due as f64 / rate);
            if due > now {
                break;
            }
            let number = self.due as usize % self.publishers.len();
            self.due += 1;
            self.publish(swarm, number, due)?;
        }
        Ok(())
    }

    /// How many messages were sent since the beginning.
    #[must_use]
    pub(crate) fn sent_in_all(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.sent).sum()
    }

    /// Whether it has a rate, so that time alone makes it go on.
    #[must_use]
    pub(crate) const fn is_paced(&self) -> bool {
        matches!(self.plan.pace, Pace::Rate(_))
    }

    /// Whether nothing is under way.
    #[must_use]
    pub(crate) fn is_quiet(&self) -> bool {
        self.publishers.iter().all(|publisher| {
            publisher.unacknowledged.is_empty()
                && (self.first_subscriber.is_none() || publisher.delivered >= publisher.sent)
        })
    }

    /// Nobody publishes any more; turns until nothing is under way.
    ///
    /// # Errors
    /// When it does not come to that.
    pub(crate) fn finish(&mut self, swarm: &mut Swarm) -> Outcome<()> {
        self.is_open = false;
        let mut heard_at = Instant::now();
        while !self.is_quiet() {
            swarm.turn(Duration::from_millis(100), |swarm, client, packet, now| {
                heard_at = now;
                self.handle(swarm, client, packet, now)
            })?;
            if heard_at.elapsed() > PATIENCE {
                return Err("what is under way does not come".into());
            }
        }
        Ok(())
    }

    /// Takes what one of its clients hears, and leaves what others do.
    ///
    /// # Errors
    /// When acknowledgements are out of order.
    pub(crate) fn handle(
        &mut self,
        swarm: &mut Swarm,
        client: usize,
        packet: &Packet<'_>,
        now: Instant,
    ) -> Outcome<()> {
        let many = self.publishers.len();
        if let Some(number) = client.checked_sub(self.first_publisher).filter(|number| *number < many) {
            match packet {
                Packet::PubAck(puback) => self.acknowledged(number, puback.packet_id, now)?,
                Packet::PubRec(pubrec) => swarm.send(client, &Packet::PubRel(PubRel::success(pubrec.packet_id))),
                Packet::PubComp(pubcomp) => self.acknowledged(number, pubcomp.packet_id, now)?,
                _ => return Ok(()),
            }
            return self.go_on(swarm, number, now);
        }
        let first = self.first_subscriber.unwrap_or(usize::MAX);
        let Some(number) = client.checked_sub(first).filter(|number| *number < many) else {
            return Ok(());
        };
        match packet {
            Packet::Publish(publish) => {
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => swarm.send(client, &Packet::PubAck(PubAck::success(id))),
                    (QoS::ExactlyOnce, Some(id)) => swarm.send(client, &Packet::PubRec(PubRec::success(id))),
                    _ => {}
                }
                self.delivered(number, publish.payload, now)?;
                self.go_on(swarm, number, now)
            }
            Packet::PubRel(pubrel) => {
                swarm.send(client, &Packet::PubComp(PubComp::success(pubrel.packet_id)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn acknowledged(&mut self, number: usize, id: PacketId, now: Instant) -> Outcome<()> {
        let first = self.publishers[number].unacknowledged.pop_front();
        let (_, sent_at) = first
            .filter(|(first, _)| *first == id)
            .ok_or("acknowledged out of order")?;
        self.counts.acknowledged += 1;
        self.time(now.saturating_duration_since(sent_at));
        Ok(())
    }

    fn delivered(&mut self, number: usize, payload: &[u8], now: Instant) -> Outcome<()> {
        let (head, rest) = payload.split_first_chunk::<8>().ok_or("a short payload")?;
        let time = rest.first_chunk::<8>().ok_or("a short payload")?;
        let heard = u64::from_le_bytes(*head);
        let awaited = &mut self.awaited[number];
        if heard < *awaited {
            self.counts.doubled += 1;
            return Ok(());
        }
        let lost = heard - *awaited;
        *awaited = heard + 1;
        self.publishers[number].delivered = heard + 1;
        self.counts.lost += lost;
        self.counts.delivered += 1;
        if self.plan.qos == QoS::AtMostOnce {
            let sent_at = self.began + Duration::from_nanos(u64::from_le_bytes(*time));
            self.time(now.saturating_duration_since(sent_at));
        }
        Ok(())
    }

    fn time(&mut self, passed: Duration) {
        self.counts.nanos.push(passed.as_nanos() as u64);
    }

    /// Fills a publisher's window.
    fn go_on(&mut self, swarm: &mut Swarm, number: usize, now: Instant) -> Outcome<()> {
        let Pace::Window(window) = self.plan.pace else {
            return Ok(());
        };
        while self.is_open && self.counts.sent < self.plan.limit {
            let publisher = &self.publishers[number];
            let undelivered = match self.first_subscriber {
                Some(_) => (publisher.sent - publisher.delivered) as usize,
                None => 0,
            };
            if publisher.unacknowledged.len().max(undelivered) >= window {
                break;
            }
            self.publish(swarm, number, now)?;
        }
        Ok(())
    }

    fn publish(&mut self, swarm: &mut Swarm, number: usize, now: Instant) -> Outcome<()> {
        let Self { plan, publishers, .. } = self;
        let publisher = &mut publishers[number];
        if let Topics::Retained(count) = plan.topics {
            publisher.topic = retained_topic(self.counts.sent % count);
        }
        self.payload[..8].copy_from_slice(&publisher.sent.to_le_bytes());
        let nanos = now.saturating_duration_since(self.began).as_nanos() as u64;
        self.payload[8..HEAD].copy_from_slice(&nanos.to_le_bytes());
        let packet_id = if plan.qos == QoS::AtMostOnce {
            None
        } else {
            publisher.next_id = publisher.next_id.checked_add(1).unwrap_or(1);
            PacketId::new(publisher.next_id)
        };
        let publish = Packet::Publish(Publish {
            dup: false,
            qos: plan.qos,
            retain: matches!(plan.topics, Topics::Retained(_)),
            topic: Some(TopicName::new(&publisher.topic)?),
            packet_id,
            properties: PublishProperties::default(),
            payload: &self.payload,
        });
        swarm.send(self.first_publisher + number, &publish);
        match packet_id {
            Some(id) => publisher.unacknowledged.push_back((id, now)),
            None => self.counts.acknowledged += 1,
        }
        publisher.sent += 1;
        self.counts.sent += 1;
        Ok(())
    }
}

/// The topics of retained messages: `r/#`.
fn retained_topic(number: u64) -> String {
    format!("r/{}/{}", number / 1000, number % 1000)
}

#[cfg(test)]
mod tests {
    use sol_transport::Io;

    use super::*;
    use sol_benches::peers::Broker;

    const PAIRS: usize = 3;

    fn flow(qos: QoS) -> Flow {
        let plan = Plan {
            qos,
            pace: Pace::Window(5),
            topics: Topics::Own("pairs/"),
            size: 64,
            limit: 500,
        };
        Flow::new(plan, PAIRS, 0)
    }

    /// At each QoS all that is sent is acknowledged, comes once, and is timed.
    #[test]
    fn all_that_is_sent_comes_once() {
        let broker = Broker::start(Io::Epoll, 1).unwrap();
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let (mut swarm, mut flow) = (Swarm::new(broker.address()).unwrap(), flow(qos));
            for number in 0..2 * PAIRS {
                swarm.join(&format!("client{number}"), true).unwrap();
            }
            for number in 0..PAIRS {
                swarm
                    .subscribe(PAIRS + number, &format!("pairs/{number}"), qos)
                    .unwrap();
            }
            let ignore = |_: &mut Swarm, _, _: &Packet<'_>, _| Ok(());
            swarm
                .until("Subscriptions", |swarm| swarm.counts().subscribed == PAIRS, ignore)
                .unwrap();
            flow.listen(PAIRS);
            flow.begin(&mut swarm).unwrap();
            while flow.counts.sent < 500 {
                swarm
                    .turn(Duration::from_secs(1), |swarm, client, packet, now| {
                        flow.handle(swarm, client, packet, now)
                    })
                    .unwrap();
            }
            flow.finish(&mut swarm).unwrap();
            let counts = &flow.counts;
            assert_eq!(
                (counts.sent, counts.acknowledged, counts.delivered),
                (500, 500, 500),
                "{qos:?}"
            );
            assert_eq!(
                (counts.lost, counts.doubled, counts.nanos.len()),
                (0, 0, 500),
                "{qos:?}"
            );
            assert_eq!(flow.sent_in_all(), 500, "{qos:?}");
        }
        broker.stop();
    }

    /// A gap and a repetition are told from what is in order, of each subscriber for itself.
    #[test]
    fn loss_and_repetition_are_counted() {
        let mut flow = flow(QoS::AtLeastOnce);
        for (number, heard) in [(0, 0_u64), (1, 0), (0, 1), (0, 4), (0, 3), (0, 4), (1, 1)] {
            let payload = [heard.to_le_bytes(), [0; 8]].concat();
            flow.delivered(number, &payload, Instant::now()).unwrap();
        }
        assert_eq!(
            (flow.counts.delivered, flow.counts.lost, flow.counts.doubled),
            (5, 2, 2)
        );
    }
}
