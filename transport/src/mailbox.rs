//! How shards and everybody else reach a shard: one unbounded channel for each, so that a post never fails and what was
//! posted earlier is taken earlier.
//!
//! What bounds it is bytes: a shard charges what it posts to a pair of its own, and hears when the receiver has not
//! taken it; its engine then pauses whoever publishes there. What is gathered for one turn is sent early when it passes
//! the mark, so the bound is twice the mark, and a message more of each publisher. A batch may be taken in several turns.

mod sleeping;

use core::mem;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, unbounded};
use socket2::Socket;
use sol_engine::{
    AuthOutcome, ChangedUser, ConnectionId, EngineConfig, Forward, Handover, ListenerId, Message, Packed, Query,
    ShardId, ShardMessage,
};

use self::sleeping::{Credit, Sleeping};
use crate::ShardAnswer;
use crate::admission::Limits;
use crate::backend::{Output, Wake};
use crate::filter::Filter;
use crate::listener::Tls;
use crate::peer::PeerAddr;
use crate::websocket::Files;
use crate::whole::Whole;

/// What lies in a shard's mailbox.
#[derive(Debug)]
pub(crate) enum Mail {
    /// All that another shard had to say in one turn.
    Batch(Box<Batch>),
    /// The authenticator's answer.
    Authenticated(ConnectionId, AuthOutcome),
    /// A question of the admin plane, and where the answer goes.
    Ask(Query, Sender<ShardAnswer>),
    /// A message of the broker's own.
    Publish(Box<Message>),
    /// How a listener's connections are encrypted from now on.
    Tls(ListenerId, Arc<Tls>),
    /// What a listener serves to browsers from now on.
    Files(ListenerId, Arc<Files>),
    /// Who is accepted from now on, and how fast clients may send.
    Limits(Arc<Limits>),
    /// New limits of the engine.
    Reload(Arc<EngineConfig>),
    /// Users that are others than before.
    Users(Arc<Vec<ChangedUser>>),
    /// Listeners whose clients were let in by what may not hold any more.
    GrantsEnd(Arc<[ListenerId]>),
    /// Every shard has begun: see [`Exchange::begin_one`].
    Begun,
    /// What has become of what the shard wrote.
    Journal(sol_journal::Event),
    /// The broker stops; wakes who sleeps, since [`Exchange::is_stopping`] says it to who does not.
    Stop,
}

/// A spent batch that takes more memory is not worth keeping, and neither is one that has all of them take more.
const SPARE_BYTES_MAX: usize = 256 << 10;
const SPARES_BYTES_MAX: usize = 1 << 20;

/// One shard's mail to another, of one turn.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) from: ShardId,
    messages: VecDeque<Entry>,
    /// The publishes among the messages that can travel side by side.
    packed: Packed,
    moved: VecDeque<Moved>,
    /// Messages and connections that were not taken.
    left: usize,
    /// Bytes, and of how many of them: what the sender has no credit for.
    charge: usize,
    entries: usize,
}

/// What comes next in a batch.
#[derive(Debug)]
enum Entry {
    /// So many publishes, packed.
    Packed(usize),
    Single(ShardMessage),
}

impl Batch {
    /// Puts a message behind the others. Gives back the forward of which only the content travels.
    fn push(&mut self, message: ShardMessage) -> Option<Box<Forward>> {
        self.left += 1;
        match message {
            ShardMessage::Forward(forward) if self.packed.push(&forward) => {
                if let Some(Entry::Packed(count)) = self.messages.back_mut() {
                    *count += 1;
                } else {
                    self.messages.push_back(Entry::Packed(1));
                }
                Some(forward)
            }
            single => {
                self.messages.push_back(Entry::Single(single));
                None
            }
        }
    }

    /// Takes the next message; a publish into what `spare` gives.
    pub(crate) fn next(&mut self, spare: impl FnOnce() -> Box<Forward>) -> Option<ShardMessage> {
        let message = if let Entry::Packed(count) = self.messages.front_mut()? {
            *count -= 1;
            if *count == 0 {
                self.messages.pop_front();
            }
            let mut forward = spare();
            self.packed
                .pop_into(&mut forward)
                .then_some(ShardMessage::Forward(forward))
        } else if let Some(Entry::Single(message)) = self.messages.pop_front() {
            Some(message)
        } else {
            None
        };
        self.left -= 1;
        message
    }

    /// Takes the next connection. Those come after the messages.
    pub(crate) fn next_moved(&mut self) -> Option<Moved> {
        let moved = self.moved.pop_front()?;
        self.left -= 1;
        Some(moved)
    }

    /// Drops what was not taken.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.packed.clear();
        self.moved.clear();
        self.left = 0;
    }

    /// Bytes of memory that an empty one takes.
    fn capacity(&self) -> usize {
        let entries = self.messages.capacity() * size_of::<Entry>() + self.moved.capacity() * size_of::<Moved>();
        entries.saturating_add(self.packed.capacity())
    }
}

/// A connection on its way to its home shard.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) socket: Socket,
    pub(crate) peer: PeerAddr,
    pub(crate) handover: Box<Handover>,
    /// What was read of it beyond CONNECT.
    pub(crate) kept: Vec<u8>,
    /// What lies between its socket and its MQTT, with what was read and belongs to nothing whole.
    pub(crate) filter: Option<Box<Filter>>,
    /// What has not left yet of what that said.
    pub(crate) output: Option<Box<Output>>,
}

/// A shard at most fills its own cache lines, not its neighbour's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// All mailboxes, for everybody who posts.
#[derive(Debug)]
pub(crate) struct Exchange {
    desks: Box<[Padded<Desk>]>,
    /// Bytes posted and not taken, by sender and receiver.
    credits: Box<[Padded<Credit>]>,
    high: usize,
    /// The shards are to stop, whatever lies in their mailboxes before they are told.
    stopping: AtomicBool,
    /// How many shards have not begun.
    beginning: AtomicUsize,
    /// What counts against limits of the whole broker.
    pub(crate) whole: Whole,
}

/// One shard's end of the exchange.
struct Desk {
    sender: Sender<Mail>,
    sleeping: Sleeping,
    wake: OnceLock<Wake>,
}

impl core::fmt::Debug for Desk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Desk")
            .field("waiting", &self.sender.len())
            .field("sleeping", &self.sleeping)
            .finish()
    }
}

impl Exchange {
    /// Mailboxes for `shards` shards, and each shard's own end; `high` is the mark in bytes. With sums for so many listeners.
    pub(crate) fn new(shards: u16, high: usize, listeners: usize) -> (Arc<Self>, Vec<Mailbox>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| unbounded()).unzip();
        let pairs = usize::from(shards) * usize::from(shards);
        let desk = |sender| {
            Padded(Desk {
                sender,
                sleeping: Sleeping::new(),
                wake: OnceLock::new(),
            })
        };
        let exchange = Arc::new(Self {
            desks: senders.into_iter().map(desk).collect(),
            credits: (0..pairs).map(|_| Padded(Credit::new())).collect(),
            high,
            stopping: AtomicBool::new(false),
            beginning: AtomicUsize::new(usize::from(shards)),
            whole: Whole::new(listeners),
        });
        let mailbox = |(shard, receiver)| Mailbox::new(ShardId(shard), Arc::clone(&exchange), receiver);
        let mailboxes = (0..shards).zip(receivers).map(mailbox).collect();
        (exchange, mailboxes)
    }

    /// Puts mail into a shard's mailbox and wakes it if it waits.
    pub(crate) fn post(&self, to: ShardId, mail: Mail) {
        let Some(desk) = self.desks.get(usize::from(to.0)) else {
            return;
        };
        // It fails only when the shard has ended, and then nobody is there to read it.
        if desk.0.sender.send(mail).is_ok() {
            desk.0.nudge();
        }
    }

    /// Posts to every shard.
    pub(crate) fn post_all(&self, mut mail: impl FnMut() -> Mail) {
        for shard in self.shards() {
            self.post(shard, mail());
        }
    }

    /// Stops every shard: none has to get through its mail first.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.post_all(|| Mail::Stop);
    }

    /// One more shard has what it begins with, and is known to all others. The last one has all of them go on.
    pub(crate) fn begin_one(&self) {
        if self.beginning.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.post_all(|| Mail::Begun);
        }
    }

    /// Whether the shards are to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// How many shards there are.
    pub(crate) const fn len(&self) -> usize {
        self.desks.len()
    }

    /// Every shard.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        // As many as a u16 counted when the desks were made.
        (0..self.desks.len() as u16).map(ShardId)
    }

    fn credit(&self, from: ShardId, to: ShardId) -> Option<&Credit> {
        self.credits
            .get(usize::from(from.0) * self.desks.len() + usize::from(to.0))
            .map(|padded| &padded.0)
    }

    fn waiting(&self, from: ShardId, to: ShardId) -> usize {
        self.credit(from, to).map_or(0, Credit::bytes)
    }

    const fn low(&self) -> usize {
        self.high / 2
    }
}

impl Desk {
    /// Wakes the shard if it sleeps. What was done before is seen by a shard that finds it need not sleep.
    fn nudge(&self) {
        if self.sleeping.must_be_woken()
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }
}

/// A shard's own end: its mail, and what it posts itself, gathered to one batch a turn for each receiver.
#[derive(Debug)]
pub(crate) struct Mailbox {
    shard: ShardId,
    exchange: Arc<Exchange>,
    receiver: Receiver<Mail>,
    /// A batch of which a part was taken.
    begun: Option<Box<Batch>>,
    outgoing: Vec<Option<Box<Batch>>>,
    /// Batches of others that were taken whole, for batches of our own.
    #[expect(clippy::vec_box, reason = "it is the boxes that cross")]
    spare: Vec<Box<Batch>>,
    spare_bytes: usize,
    /// Bytes of all that are to be sent before the turn is over.
    outgoing_bytes: usize,
    /// Confirmations, posted to the batches when these have left.
    confirmations: Vec<(ShardId, ShardMessage)>,
    high: usize,
    /// Who had more than the mark of us after a send, to be told; usually nobody.
    filled: Vec<ShardId>,
    /// Who was told to be full; usually nobody.
    full: Vec<ShardId>,
    /// The most bytes that each ever had of us.
    posted_max: Vec<usize>,
}

impl Mailbox {
    fn new(shard: ShardId, exchange: Arc<Exchange>, receiver: Receiver<Mail>) -> Self {
        let shards = exchange.desks.len();
        Self {
            shard,
            receiver,
            begun: None,
            outgoing: core::iter::repeat_with(|| None).take(shards).collect(),
            spare: Vec::new(),
            spare_bytes: 0,
            outgoing_bytes: 0,
            confirmations: Vec::new(),
            high: exchange.high,
            filled: Vec::new(),
            full: Vec::new(),
            posted_max: vec![0; shards],
            exchange,
        }
    }

    /// Whose it is.
    pub(crate) const fn shard(&self) -> ShardId {
        self.shard
    }

    /// Everybody's mailboxes.
    pub(crate) const fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// How this shard is woken from now on.
    pub(crate) fn set_wake(&self, wake: Wake) {
        if let Some(desk) = self.exchange.desks.get(usize::from(self.shard.0)) {
            // Set once, when the shard starts.
            let _ = desk.0.wake.set(wake);
        }
    }

    /// Has every other shard look at what counts for all of them.
    pub(crate) fn nudge_others(&self) {
        for (shard, desk) in (0..).zip(&self.exchange.desks) {
            if shard != self.shard.0 {
                desk.0.nudge();
            }
        }
    }

    /// How much mail lies here now.
    pub(crate) fn len(&self) -> usize {
        self.receiver.len() + usize::from(self.begun.is_some())
    }

    /// Takes the oldest mail. The credit of a batch is to be given back.
    pub(crate) fn take(&mut self) -> Option<Mail> {
        match self.begun.take() {
            Some(batch) => Some(Mail::Batch(batch)),
            None => self.receiver.try_recv().ok(),
        }
    }

    /// Gives the sender credit for what was taken out of a batch, and keeps the rest, to be taken next.
    pub(crate) fn give_back(&mut self, mut batch: Box<Batch>) {
        let left = batch.left;
        // As if all of them were of one size: it comes out even at the end.
        let charge = if left < batch.entries {
            batch.charge / batch.entries * left
        } else {
            batch.charge
        };
        if let Some(credit) = self.exchange.credit(batch.from, self.shard)
            && credit.give_back(batch.charge - charge, self.exchange.low())
            && let Some(desk) = self.exchange.desks.get(usize::from(batch.from.0))
        {
            desk.0.nudge();
        }
        if left > 0 {
            (batch.charge, batch.entries) = (charge, left);
            self.begun = Some(batch);
        } else {
            self.keep_spare(batch);
        }
    }

    fn keep_spare(&mut self, mut batch: Box<Batch>) {
        let bytes = batch.capacity();
        let is_small = bytes <= SPARE_BYTES_MAX && self.spare_bytes + bytes <= SPARES_BYTES_MAX;
        if self.spare.len() < self.exchange.len() && is_small {
            (batch.charge, batch.entries) = (0, 0);
            self.spare_bytes += bytes;
            self.spare.push(batch);
        }
    }

    /// Whether this shard may wait: there is no mail. From now on whoever posts wakes it, until [`Mailbox::awake`].
    pub(crate) fn may_sleep(&self) -> bool {
        let Some(desk) = self.exchange.desks.get(usize::from(self.shard.0)) else {
            return false;
        };
        desk.0.sleeping.begin();
        self.begun.is_none() && self.receiver.is_empty() && !self.full.iter().any(|&to| self.has_drained(to))
    }

    /// This shard looks after its mail itself again.
    pub(crate) fn awake(&self) {
        if let Some(desk) = self.exchange.desks.get(usize::from(self.shard.0)) {
            desk.0.sleeping.end();
        }
    }

    /// Adds to the batch for a shard. It leaves with [`Mailbox::send`]. Gives back the forward of which only the content
    /// travels.
    pub(crate) fn post(&mut self, to: ShardId, message: ShardMessage) -> Option<Box<Forward>> {
        if let ShardMessage::Confirmed(_) = message {
            self.confirmations.push((to, message));
            return None;
        }
        self.add(to, message)
    }

    fn add(&mut self, to: ShardId, message: ShardMessage) -> Option<Box<Forward>> {
        self.batch(to, message.charge())?.push(message)
    }

    /// Adds a connection to the batch for a shard.
    pub(crate) fn post_moved(&mut self, to: ShardId, moved: Moved) {
        let owned = moved.kept.len().saturating_add(moved.handover.charge());
        let filter = moved.filter.as_ref().map_or(0, |filter| filter.held_bytes());
        let output = moved.output.as_ref().map_or(0, |output| output.bytes.len());
        let charge = [owned, filter, output]
            .into_iter()
            .fold(size_of::<Moved>(), usize::saturating_add);
        if let Some(batch) = self.batch(to, charge) {
            batch.left += 1;
            batch.moved.push_back(moved);
        }
    }

    /// The batch for a shard, charged with what is about to be added.
    fn batch(&mut self, to: ShardId, charge: usize) -> Option<&mut Batch> {
        let (from, spare, spare_bytes) = (self.shard, &mut self.spare, &mut self.spare_bytes);
        let new = || {
            let mut batch = spare.pop().map_or_else(Box::default, |batch| {
                *spare_bytes -= batch.capacity();
                batch
            });
            batch.from = from;
            batch
        };
        let batch = self.outgoing.get_mut(usize::from(to.0))?.get_or_insert_with(new);
        batch.charge = charge.saturating_add(batch.charge);
        batch.entries += 1;
        self.outgoing_bytes = charge.saturating_add(self.outgoing_bytes);
        Some(batch)
    }

    /// Whether something was posted and not sent.
    pub(crate) fn has_outgoing(&self) -> bool {
        self.outgoing.iter().any(Option::is_some) || !self.confirmations.is_empty()
    }

    /// Whether so much was posted that it should be sent before more is.
    pub(crate) const fn has_plenty(&self) -> bool {
        self.outgoing_bytes > self.high
    }

    /// Sends the batches. Confirmations leave after all else, whoever it is for: they promise that what was routed before
    /// has been posted to every shard, and one batch is posted after the other.
    pub(crate) fn send(&mut self) {
        self.send_batches();
        if !self.confirmations.is_empty() {
            for (to, message) in mem::take(&mut self.confirmations) {
                let _ = self.add(to, message);
            }
            self.send_batches();
        }
    }

    fn send_batches(&mut self) {
        self.outgoing_bytes = 0;
        let exchange = &self.exchange;
        for ((to, outgoing), max) in exchange.shards().zip(&mut self.outgoing).zip(&mut self.posted_max) {
            if let Some(batch) = outgoing.take() {
                if let Some(credit) = exchange.credit(self.shard, to) {
                    let waiting = credit.charge(batch.charge);
                    *max = waiting.max(*max);
                    if waiting > exchange.high && !self.full.contains(&to) && !self.filled.contains(&to) {
                        self.filled.push(to);
                    }
                }
                exchange.post(to, Mail::Batch(batch));
            }
        }
    }

    /// Bytes that were sent and not taken.
    pub(crate) fn posted_bytes(&self) -> usize {
        let waiting = self.exchange.shards().map(|to| self.exchange.waiting(self.shard, to));
        waiting.fold(0, usize::saturating_add)
    }

    /// The most that there ever were for each shard, added up.
    pub(crate) fn posted_bytes_max(&self) -> usize {
        self.posted_max.iter().fold(0, |sum, &max| max.saturating_add(sum))
    }

    /// A shard whose mailbox has filled above the mark with our mail, or fallen well below it, and was not told of yet.
    pub(crate) fn changed_peer(&mut self) -> Option<(ShardId, bool)> {
        while let Some(to) = self.filled.pop() {
            // It may have been emptied meanwhile; only a send fills it again.
            if self.exchange.waiting(self.shard, to) > self.exchange.high {
                self.full.push(to);
                return Some((to, true));
            }
        }
        let drained = self.full.iter().position(|&to| self.has_drained(to))?;
        Some((self.full.swap_remove(drained), false))
    }

    /// Whether a shard that was told to be full is so no more.
    fn has_drained(&self, to: ShardId) -> bool {
        self.exchange.waiting(self.shard, to) <= self.exchange.low()
    }
}

#[cfg(test)]
mod tests;
