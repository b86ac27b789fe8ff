//! One publisher, one subscriber, and what becomes of what is between them.

use std::collections::HashMap;
use std::io::{self, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sol_codec::{Packet, PacketId, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, QoS};

use super::Stage;
use crate::client::{Client, is_timeout, packet_id};

/// Unacknowledged messages of a publisher; the broker takes 256.
const WINDOW: usize = 200;
/// Messages that a slow subscriber reads at once, and how long it rests then.
const SIP: usize = 8;
const REST: Duration = Duration::from_millis(20);
/// How often somebody who waits for a packet looks whether it is all over.
const LOOK: Duration = Duration::from_millis(100);

/// Who publishes what to whom.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) topic: String,
    pub(super) publisher: String,
    pub(super) subscriber: String,
    pub(super) version: ProtocolVersion,
    pub(super) qos: QoS,
    /// Bytes of a message.
    pub(super) payload: usize,
    /// The subscriber rests between reads.
    pub(super) is_slow: bool,
    /// It subscribes to two to the power of so many filters, which all match.
    pub(super) overlaps: u32,
}

impl Flow {
    /// The subscriber's filters: the topic, with every choice of its levels, but the first two, replaced by a wildcard.
    pub(super) fn filters(&self) -> Vec<String> {
        let levels: Vec<&str> = self.topic.split('/').collect();
        let chosen = |choice: u32| {
            let level = |(n, level): (usize, &&str)| if choice << 2 >> n & 1 == 1 { "+" } else { *level }.to_owned();
            levels.iter().enumerate().map(level).collect::<Vec<_>>().join("/")
        };
        (0..1 << self.overlaps).map(chosen).collect()
    }
}

/// What is counted of all flows.
#[derive(Clone, Debug, Default)]
pub(super) struct Account(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    published: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    /// Publishers that have begun and not ended.
    publishing: AtomicU64,
}

/// The sums at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    pub(super) published: u64,
    pub(super) refused: u64,
    pub(super) delivered: u64,
}

impl Account {
    pub(super) fn total(&self) -> Total {
        let value = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Total {
            published: value(&self.0.published),
            refused: value(&self.0.refused),
            delivered: value(&self.0.delivered),
        }
    }

    /// Nobody publishes any more.
    pub(super) fn has_ended(&self) -> bool {
        self.0.publishing.load(Ordering::SeqCst) == 0
    }

    pub(super) fn begin(&self) {
        self.0.publishing.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.0.publishing.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn publish(&self) {
        self.0.published.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn deliver(&self) {
        self.0.delivered.fetch_add(1, Ordering::SeqCst);
    }
}

/// A publisher's unacknowledged messages.
#[derive(Debug)]
struct Window {
    free: Vec<PacketId>,
}

/// What a packet is to a publisher, and to a subscriber.
enum Heard {
    /// An exchange is over; refused or not.
    Settled(PacketId, bool),
    /// A PUBREC that wants its PUBREL.
    Received(PacketId),
    /// A message: its topic's number and its own, and what acknowledges it.
    Message(String, u64, Option<(QoS, PacketId)>),
    /// A PUBREL that wants its PUBCOMP.
    Released(PacketId),
    Nothing,
}

fn hear(packet: &Packet<'_>) -> Heard {
    match packet {
        Packet::PubAck(ack) => Heard::Settled(ack.packet_id, ack.reason_code.is_error()),
        Packet::PubRec(ack) if ack.reason_code.is_error() => Heard::Settled(ack.packet_id, true),
        Packet::PubRec(ack) => Heard::Received(ack.packet_id),
        Packet::PubComp(ack) => Heard::Settled(ack.packet_id, false),
        Packet::PubRel(ack) => Heard::Released(ack.packet_id),
        Packet::Publish(publish) => {
            let number = publish
                .payload
                .first_chunk()
                .map_or(0, |bytes| u64::from_be_bytes(*bytes));
            let topic = publish.topic.map(|topic| topic.as_str().to_owned()).unwrap_or_default();
            let ack = publish.packet_id.map(|packet_id| (publish.qos, packet_id));
            Heard::Message(topic, number, ack)
        }
        _ => Heard::Nothing,
    }
}

impl Window {
    fn new() -> Self {
        Self {
            free: (0..WINDOW as u64).map(packet_id).collect(),
        }
    }

    const fn is_idle(&self) -> bool {
        self.free.len() == WINDOW
    }
}

/// Publishes as fast as it may, and ends when everything is acknowledged.
pub(super) fn publisher(mut client: Client, flow: &Flow, stage: &Stage, account: &Account) -> io::Result<()> {
    let mut window = Window::new();
    let mut payload = vec![0; flow.payload];
    let mut number: u64 = 0;
    account.begin();
    while stage.is_pressure() || !window.is_idle() {
        while stage.is_pressure() && client.queued() < 64 << 10 {
            let packet_id = if flow.qos == QoS::AtMostOnce {
                None
            } else if let Some(packet_id) = window.free.pop() {
                Some(packet_id)
            } else {
                break;
            };
            number += 1;
            if let Some(head) = payload.first_chunk_mut() {
                *head = number.to_be_bytes();
            }
            client.queue_publish(&flow.topic, &payload, flow.qos, packet_id, false)?;
            account.publish();
        }
        client.flush()?;
        if window.free.len() < WINDOW / 2 || !stage.is_pressure() && !window.is_idle() {
            acknowledged(&mut client, &mut window, account)?;
        }
    }
    // All that was sent has been handled when this is answered.
    client.ping()?;
    account.end();
    Ok(())
}

/// Waits for an acknowledgement, and takes those that came with it.
fn acknowledged(client: &mut Client, window: &mut Window, account: &Account) -> io::Result<()> {
    let mut next = Some(client.receive(hear)?);
    while let Some(heard) = next {
        settle(client, window, &heard, account);
        next = client.received(hear)?;
    }
    Ok(())
}

fn settle(client: &mut Client, window: &mut Window, heard: &Heard, account: &Account) {
    match *heard {
        Heard::Settled(packet_id, refused) => {
            window.free.push(packet_id);
            if refused {
                account.refuse();
            }
        }
        Heard::Received(packet_id) => client.queue(&Packet::PubRel(PubRel::success(packet_id))),
        _ => {}
    }
}

/// Takes a message, in order.
fn take(client: &mut Client, heard: &Heard, latest: &mut HashMap<String, u64>, account: &Account) -> io::Result<bool> {
    match heard {
        Heard::Message(topic, number, ack) => {
            let before = latest.insert(topic.clone(), *number).unwrap_or(0);
            if *number <= before {
                return Err(Error::other(format!("{topic}: {number} came after {before}")));
            }
            account.deliver();
            match ack {
                Some((QoS::AtLeastOnce, packet_id)) => client.queue(&Packet::PubAck(PubAck::success(*packet_id))),
                Some((_, packet_id)) => client.queue(&Packet::PubRec(PubRec::success(*packet_id))),
                None => {}
            }
            Ok(true)
        }
        Heard::Released(packet_id) => {
            client.queue(&Packet::PubComp(PubComp::success(*packet_id)));
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Reads, with rests if it is slow, until it is all over.
pub(super) fn subscriber(mut client: Client, is_slow: bool, stage: &Stage, account: &Account) -> io::Result<()> {
    client.set_read_timeout(LOOK)?;
    if is_slow {
        client.read_little(4 << 10);
    }
    let mut latest = HashMap::new();
    let mut sipped = 0;
    while !stage.is_done() {
        match client.read() {
            Err(error) if is_timeout(&error) => continue,
            result => result?,
        }
        while let Some(heard) = client.received(hear)? {
            sipped += usize::from(take(&mut client, &heard, &mut latest, account)?);
            if is_slow && sipped >= SIP && stage.is_pressure() {
                sipped = 0;
                client.flush()?;
                thread::sleep(REST);
            }
        }
        client.flush()?;
    }
    Ok(())
}

/// One of two clients that publish to each other.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) client: Client,
    pub(super) topic: String,
}

/// Writes all that its window allows before it reads again, as a simple client does.
pub(super) fn mutual(part: Part, stage: &Stage, account: &Account) -> io::Result<()> {
    let Part { mut client, topic } = part;
    let (mut window, mut latest) = (Window::new(), HashMap::new());
    let mut number: u64 = 0;
    account.begin();
    let mut is_publishing = true;
    client.set_read_timeout(LOOK)?;
    while !stage.is_done() {
        while stage.is_pressure()
            && let Some(packet_id) = window.free.pop()
        {
            number += 1;
            let mut payload = [0; 1024];
            if let Some(head) = payload.first_chunk_mut() {
                *head = number.to_be_bytes();
            }
            client.queue_publish(&topic, &payload, QoS::AtLeastOnce, Some(packet_id), false)?;
            account.publish();
        }
        client.flush()?;
        match client.read() {
            Err(error) if is_timeout(&error) => {}
            result => result?,
        }
        while let Some(heard) = client.received(hear)? {
            settle(&mut client, &mut window, &heard, account);
            take(&mut client, &heard, &mut latest, account)?;
        }
        client.flush()?;
        if is_publishing && !stage.is_pressure() && window.is_idle() {
            is_publishing = false;
            account.end();
        }
    }
    Ok(())
}
