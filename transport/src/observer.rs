//! Who is told what happens, and asked who may come in.

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use sol_codec::ReasonCode;
use sol_engine::{AuthOutcome, AuthRequest, ConnectionId, Event, ListenerId, ShardId};

use crate::mailbox::{Exchange, Mail};
use crate::peer::PeerAddr;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its other end.
    pub peer: PeerAddr,
    /// The listener it came in through.
    pub listener: ListenerId,
}

/// What the transport itself has to say to the operator.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A connection did not get through CONNECT, and AUTH where it has to answer one, in time and was closed.
    ConnectTimeout(Source),
    /// What a connection sent first is not MQTT, and it was closed.
    NotMqtt(Source),
    /// A connection speaks TLS where none is spoken, and was closed.
    TlsOnPlain(Source),
    /// Whether the journal has room for more has changed. Told by one shard.
    Journal(sol_journal::Pressure),
    /// A connection does not speak TLS where nothing else is spoken, and was closed.
    PlainOnTls(Source),
    /// A connection was closed because TLS or WebSocket could not be agreed on.
    HandshakeFailed {
        /// Whose.
        source: Source,
        /// A sentence about it, without a full stop.
        why: &'a str,
    },
    /// A connection was closed because what came is not TLS or WebSocket any more.
    FilterFailed {
        /// Whose.
        source: Source,
        /// A sentence about it, without a full stop.
        why: &'a str,
    },
    /// A connection was closed because who has to send the header of a proxy is none that is believed.
    NoProxy(Source),
    /// A connection was closed because the header of its proxy is missing or wrong.
    ProxyFailed {
        /// Whose; the proxy's, where nothing is known of the client.
        source: Source,
        /// A sentence about it, without a full stop.
        why: &'a str,
    },
    /// A client's certificate was to say who it is and does not; its CONNECT is refused.
    NoName {
        /// Whose.
        source: Source,
        /// What the certificate lacks.
        why: &'a str,
    },
    /// There were too many unauthenticated connections, or they held too much, and this one was closed for it.
    Evicted(Source),
    /// The address of a connection has as many as it may have, and this one was closed at once.
    TooManyOfAddress(Source),
    /// A packet of a connection did not arrive whole in time, and it was closed.
    FrameTimeout(Source),
    /// A connection did not take in time a file that it had asked for, and was closed.
    FileNotTaken(Source),
    /// Too many bytes were held for all connections, and this one, which held the most, was closed for it.
    Shed(Source),
    /// A connection could not be accepted.
    AcceptFailed {
        /// Where.
        listener: ListenerId,
        /// What the system said.
        error: &'a io::Error,
        /// The listener rests, because the system has run out of something.
        paused: bool,
    },
    /// The shard's thread was to stay on one core, and the system did not grant it.
    NotPinned(&'a io::Error),
    /// A fault of ours was survived; a connection may have ended for it.
    Survived {
        /// The connection that was handled.
        source: Option<Source>,
        /// What the panic said.
        panic: &'a str,
    },
}

/// Who asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    /// Where it is.
    pub peer: PeerAddr,
    /// A proxy says so.
    pub is_brought: bool,
    /// What it has proven to have the key of, its own certificate first; empty where it showed none.
    pub certificates: &'a [CertificateDer<'static>],
}

/// One shard's observer. It is called on the shard's thread, so it must not wait.
pub trait Observer: Send + 'static {
    /// Something happened in the engine; `source` is there for events of a connection.
    fn event(&mut self, event: &Event, source: Option<Source>);

    /// Something happened in the transport.
    fn notice(&mut self, notice: Notice<'_>);

    /// A login is to be checked, elsewhere. Answer with `reply`, from any thread.
    fn auth(&mut self, request: AuthRequest, applicant: Applicant<'_>, reply: AuthReply);
}

/// Sees nothing and lets nobody in who has to be asked about.
impl Observer for () {
    fn event(&mut self, _: &Event, _: Option<Source>) {}

    fn notice(&mut self, _: Notice<'_>) {}

    fn auth(&mut self, _: AuthRequest, _: Applicant<'_>, _: AuthReply) {}
}

/// The way back to a connection that waits for its login. Dropped without an answer, it refuses: nobody waits for ever.
#[derive(Debug)]
pub struct AuthReply {
    exchange: Arc<Exchange>,
    shard: ShardId,
    connection: ConnectionId,
    answered: bool,
}

impl AuthReply {
    pub(crate) const fn new(exchange: Arc<Exchange>, shard: ShardId, connection: ConnectionId) -> Self {
        Self {
            exchange,
            shard,
            connection,
            answered: false,
        }
    }

    /// Tells the shard. If the connection is gone by now, nothing happens.
    pub fn answer(mut self, outcome: AuthOutcome) {
        self.post(outcome);
    }

    fn post(&mut self, outcome: AuthOutcome) {
        self.answered = true;
        self.exchange
            .post(self.shard, Mail::Authenticated(self.connection, outcome));
    }
}

impl Drop for AuthReply {
    fn drop(&mut self) {
        if !self.answered {
            self.post(AuthOutcome::Refused(ReasonCode::ServerUnavailable));
        }
    }
}
