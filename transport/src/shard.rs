//! One shard: its turn, and nothing else. What the steps do stands in the modules below.

mod apply;
mod commands;
mod contain;
mod filtering;
mod handshakes;
mod input;
mod introduction;
mod mail;
mod memory;
mod pace;
mod records;
mod serving;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use socket2::Socket;
use sol_codec::{DecodeLimits, Decoder, Direction};
use sol_engine::{Close, ConnectionId, Effects, Engine, EngineConfig, Instant, Level, ListenerId, Move, Now, Read};

use self::contain::Watch;
pub(crate) use self::contain::panic_text;
use self::handshakes::Handshakes;
use self::memory::{FRAME_LOOKS, Marks, Others};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::TransportConfig;
use crate::conns::Conns;
use crate::counters::Counters;
use crate::durable::{Ledger, Numbers, Restored};
use crate::encode::Encoder;
use crate::filter::Said;
use crate::handle::ShardAnswer;
use crate::mailbox::Mailbox;
use crate::observer::Observer;
use crate::outbox::Outboxes;
use crate::rates::Meters;
use crate::shards::{Exit, StartError};
use crate::waiting::Waiting;
use crate::whole::Share;

/// Rounds of apply, flush and tell in one turn: what a flush sets free leaves in the same turn, but no chain of them
/// keeps the sockets waiting.
const ROUNDS_MAX: u32 = 4;

/// A shard on its thread.
pub(crate) struct Shard<B, O> {
    backend: B,
    core: Core<O>,
}

/// All of a shard but its backend, so that the backend can call it.
struct Core<O> {
    config: TransportConfig,
    rules: Rules,
    clock: Clock,
    now: Now,
    engine: Engine,
    effects: Effects,
    /// Transmits of the tray that have been encoded.
    encoded: usize,
    conns: Conns,
    outboxes: Outboxes,
    decoder: Decoder,
    encoder: Encoder,
    mailbox: Mailbox,
    /// When the sockets had their turn although mail was left.
    mail_cut: Option<Instant>,
    observer: O,
    counters: Counters,
    watch: Watch,
    /// Who asked what the engine is about to answer.
    asks: VecDeque<Sender<ShardAnswer>>,
    /// What clients have sent who may send so much a second.
    meters: Meters,
    /// Connections that have to send CONNECT.
    connecting: Waiting,
    /// Those who are sent a file, each looked at again and again whether it takes that.
    readers: Waiting,
    /// Whether somebody waits to be accepted because too many owe their login.
    lacks_room: bool,
    /// Listeners where as many were accepted as may be in a second.
    resting: BTreeSet<ListenerId>,
    /// Whether somebody could not be accepted in this turn for want of a descriptor.
    lacks_descriptors: bool,
    /// Those whose handshake goes on in the next turn.
    handshakes: Handshakes,
    /// Those who get the next piece of a file, in order.
    serving: VecDeque<ConnectionId>,
    /// MQTT that was decrypted, what filters said, and what was sealed, each for the length of a call.
    plain: Vec<u8>,
    said: Said,
    sealed: Vec<u8>,
    /// Connections of which a part of a packet may be kept, to be looked at again.
    partial: Waiting,
    /// How scarce memory is, as the engine was told.
    pressure: Level,
    /// What this shard has added to the sums over all of them, and what it knows of the others.
    share: Share,
    others: Others,
    /// Connections that are being closed and have to read what was sent to them.
    flushing: Waiting,
    /// Connections whose end was announced.
    lingering: Waiting,
    /// What the backend is to do, because it cannot be told while it calls.
    moves: Vec<Move>,
    reads: Vec<Read>,
    closes: Vec<Close>,
    /// Connections to end at once.
    ends: Vec<ConnectionId>,
    /// Connections that we stopped decoding because output had to leave first.
    held: Vec<ConnectionId>,
    /// What the last flush found, until the engine is told.
    congested: Vec<(ConnectionId, u32)>,
    drained: Vec<ConnectionId>,
    /// When the shard ends, whoever is left.
    stops_at: Option<Instant>,
    /// Every shard has what it begins with, and knows what every other is interested in.
    has_begun: bool,
    /// What is to be kept is written here.
    ledger: Option<Ledger>,
    /// More waits to be written than should.
    journal_busy: bool,
    /// Why nothing is kept any more.
    unkept: Option<String>,
}

/// What packets may be, before and after a connection was let in, and how much may be held of them.
struct Rules {
    connect: DecodeLimits,
    open: DecodeLimits,
    memory: Marks,
}

impl Rules {
    fn new(transport: &TransportConfig, engine: &EngineConfig) -> Self {
        let open = DecodeLimits {
            maximum_packet_size: engine.maximum_packet_size,
            topic_levels: engine.topic_levels_max,
            direction: Direction::FromClient,
        };
        let maximum_packet_size = transport.connect_bytes_max.min(engine.maximum_packet_size);
        Self {
            connect: DecodeLimits {
                maximum_packet_size,
                ..open
            },
            open,
            memory: Marks::new(engine),
        }
    }
}

impl<B: Backend, O: Observer> Shard<B, O> {
    /// A shard that has not taken a turn yet. Must be made on its own thread.
    pub(crate) fn new(
        backend: B,
        config: TransportConfig,
        engine: EngineConfig,
        seeds: [u64; 4],
        clock: Clock,
        mailbox: Mailbox,
        observer: O,
    ) -> Self {
        let core = Core {
            rules: Rules::new(&config, &engine),
            clock,
            now: clock.now(),
            engine: Engine::new(mailbox.shard(), Rc::new(engine), seeds),
            effects: Effects::default(),
            encoded: 0,
            conns: Conns::default(),
            outboxes: Outboxes::new(
                config.pool_bytes_max,
                config.outbox_bytes_high,
                config.output_bytes_high,
            ),
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            mailbox,
            mail_cut: None,
            observer,
            counters: Counters::default(),
            watch: Watch::default(),
            asks: VecDeque::new(),
            meters: Meters::new(config.limits.rates()),
            connecting: Waiting::new(config.connect_time_max),
            readers: Waiting::new(config.connect_time_max.max(Duration::from_millis(1))),
            lacks_room: false,
            resting: BTreeSet::new(),
            lacks_descriptors: false,
            handshakes: Handshakes::default(),
            serving: VecDeque::new(),
            plain: Vec::new(),
            said: Said::default(),
            sealed: Vec::new(),
            partial: Waiting::new((config.frame_time_max / FRAME_LOOKS).max(Duration::from_millis(1))),
            pressure: Level::Normal,
            share: Share::default(),
            others: Others::default(),
            flushing: Waiting::new(config.flush_time_max),
            lingering: Waiting::new(config.linger_time_max),
            moves: Vec::new(),
            reads: Vec::new(),
            closes: Vec::new(),
            ends: Vec::new(),
            held: Vec::new(),
            congested: Vec::new(),
            drained: Vec::new(),
            stops_at: None,
            has_begun: false,
            ledger: None,
            journal_busy: false,
            unkept: None,
            config,
        };
        Self { backend, core }
    }

    /// Begins with what a store holds: takes turns until every shard knows what every other is interested in, or a message
    /// of the first client would pass a Subscription by.
    ///
    /// # Errors
    /// What comes is no record of this program's, or does not belong together; or the system failed.
    pub(crate) fn restore(&mut self, restored: &Receiver<Restored>, numbers: &Arc<Numbers>) -> Result<(), StartError> {
        loop {
            match restored.recv() {
                Ok(Restored::Heap(heap)) => {
                    let engine = &mut self.core.engine;
                    heap.restore(engine, numbers).map_err(StartError::Durable)?;
                }
                Ok(Restored::Done { floor, handle }) => {
                    self.core.engine.note_record_id(floor);
                    let source = self.core.mailbox.shard().0;
                    self.core.ledger = Some(Ledger::new(handle, source, Arc::clone(numbers)));
                    break;
                }
                // Whoever hands them out says why.
                Err(_) => return Err(io::Error::other("the records of the journal did not come").into()),
            }
        }
        self.core.now = self.core.clock.now();
        self.core.engine.restored(self.core.now, &mut self.core.effects);
        let mut is_told = false;
        while !self.core.has_begun {
            if !is_told && self.core.engine.is_announced() {
                is_told = true;
                self.core.mailbox.exchange().begin_one();
            }
            if self.turn()?.is_some() {
                return Err(io::Error::other("ended before it had begun").into());
            }
        }
        Ok(())
    }

    /// Accepts connections from now on.
    ///
    /// # Errors
    /// The system refuses it.
    pub(crate) fn listen(&mut self, sockets: Vec<Socket>) -> io::Result<()> {
        for (listener, socket) in (0..).map(ListenerId).zip(sockets) {
            self.backend.listen(listener, socket)?;
        }
        Ok(())
    }

    /// Takes turns until the shard ends.
    pub(crate) fn run(mut self) -> Exit {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(exit)) => return exit,
                Err(error) => return Exit::Failed(error),
            }
        }
    }

    fn turn(&mut self) -> io::Result<Option<Exit>> {
        self.wait()?;
        self.core.counters.turns += 1;
        self.core.look_at_others();
        self.core.look_at_journal();
        self.core.take_mail(&mut self.backend);
        self.core.shake_hands(&mut self.backend);
        // A poisoned shard is never relieved, so its output may stay full.
        while !self.core.watch.is_poisoned() && self.backend.dispatch(&mut self.core) {
            self.core.relieve(&mut self.backend);
        }
        if !self.core.watch.is_poisoned() {
            self.core.expire();
            self.core.serve();
            self.settle();
            if self.core.found_room() {
                self.backend.accept_again();
            }
            // What is set free by it is weighed again, for the others to hear of it.
            for _ in 0..ROUNDS_MAX {
                if self.core.watch.is_poisoned() || !self.core.weigh() {
                    break;
                }
                self.settle();
            }
        }
        Ok(self.core.exit())
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut timeout = self.core.timeout();
        if timeout != Some(Duration::ZERO) && (!self.core.mailbox.may_sleep() || self.core.must_look()) {
            timeout = Some(Duration::ZERO);
        }
        let waited = self.backend.wait(self.core.now.mono, timeout);
        self.core.mailbox.awake();
        self.core.now = self.core.clock.now();
        waited
    }

    /// Does all that the engine said, at the end of a turn.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            // Whoever is told that a connection has ended may have its place.
            self.core.count_connections();
            let Self { backend, core } = self;
            core.relieve(backend);
            if core.watch.is_poisoned() {
                return;
            }
            core.change_reading(backend);
            core.close_connections(backend);
            if !core.has_work() {
                return;
            }
        }
    }
}

impl<O: Observer> Core<O> {
    /// Has output and mail leave, so that more input can be taken, and tells the engine what came of it. Nobody is read
    /// for it: afterwards there is room.
    fn relieve<B: Backend>(&mut self, backend: &mut B) {
        while !self.watch.is_poisoned() {
            let applied = self.apply();
            self.move_away(backend);
            self.tell_full();
            self.send_mail();
            self.flush(backend);
            if applied {
                return self.tell_flushed();
            }
        }
    }

    /// Whether something waits that another round would do. The tray may be empty and all that was in it still be here:
    /// decoding what was kept empties it whenever it has grown.
    fn has_work(&self) -> bool {
        !self.effects.is_empty()
            || !self.outboxes.dirty.is_empty()
            || !self.reads.is_empty()
            || !self.moves.is_empty()
            || !self.closes.is_empty()
            || !self.ends.is_empty()
            || !self.congested.is_empty()
            || !self.drained.is_empty()
            || self.mailbox.has_outgoing()
    }

    /// How long the next wait may last; `None`: for ever.
    fn timeout(&self) -> Option<Duration> {
        if self.has_work() || !self.held.is_empty() || self.handshakes.waiting() > 0 || !self.serving.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.engine.next_deadline(),
            self.connecting.next_deadline(),
            self.readers.next_deadline(),
            self.partial.next_deadline(),
            self.flushing.next_deadline(),
            self.lingering.next_deadline(),
            self.stops_at,
        ];
        deadlines
            .into_iter()
            .flatten()
            .min()
            .map(|deadline| deadline.saturating_since(self.now.mono))
    }

    /// Whether the shard is done.
    fn exit(&mut self) -> Option<Exit> {
        if let Some(text) = self.watch.poisoned() {
            return Some(Exit::Poisoned(text));
        }
        if let Some(why) = self.unkept.take() {
            return Some(Exit::Unkept(why));
        }
        let stops_at = self.stops_at?;
        (self.conns.len() == 0 || stops_at <= self.now.mono).then_some(Exit::Stopped)
    }
}

#[cfg(test)]
mod tests;
