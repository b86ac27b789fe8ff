//! What lies between a connection's socket and its MQTT: TLS, WebSocket, or the one inside of the other; and before all of it
//! the header of a proxy.
//!
//! A filter knows no socket and no packet. Input goes through [`Filter::receive`], which leaves MQTT; output is gathered as
//! MQTT, and [`Filter::seal`] makes one message and as few records as possible of it when it is about to leave:
//!
//! ```text
//!             sent              sealed                  framed
//! bytes: ──────┼──────────────────┼───────────────────────┼──────────────────
//!         left │ as on the socket │ in WebSocket's frames │ MQTT
//! ```
//!
//! An idle one holds no buffer: what is held is a record, frame or request of which a part has come, and what rustls needs
//! to go on.

mod fault;
mod tls;

use std::fmt;
use std::mem;
use std::time::Duration;

use sol_engine::Instant;

use self::tls::TlsLayer;
use crate::backend::Output;
use crate::download::Download;
use crate::listener::{ListenerConfig, Protocol};
use crate::proxy::Proxy;
use crate::websocket::{CLOSE_GOING_AWAY, CLOSE_NORMAL, Ending, WebSocket};

pub(crate) use self::fault::Fault;
pub(crate) use self::tls::HANDSHAKE_FIRST_BYTE;

/// What lies between one connection's socket and its MQTT.
pub(crate) struct Filter {
    /// Until the header of a proxy has come.
    proxy: Option<Proxy>,
    /// What that said who the client is.
    common_name: Option<String>,
    tls: Option<Box<TlsLayer>>,
    websocket: Option<WebSocket>,
    stage: Stage,
    /// The file that the peer has asked for instead.
    download: Option<Box<Download>>,
    /// The connection waits for its turn to go on with the handshake, or for the next piece of a file.
    pub(crate) queued: bool,
    /// The peer has said that no more will come, behind MQTT that is kept and has to be decoded first.
    pub(crate) is_over: bool,
    /// Since when a part of something has been held.
    since: Option<Instant>,
    /// Bytes that were counted as held.
    pub(crate) charged: usize,
    /// The same of a piece of a file that the peer does not take.
    pub(crate) piece: usize,
    /// The peer, which is sent a file, has ended its side of the socket.
    pub(crate) half_closed: bool,
}

/// How far a filter has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first byte.
    ExpectFirst,
    /// The end of what TLS and WebSocket have to agree on.
    Handshake,
    /// MQTT goes both ways.
    Open,
    /// The peer was told that no more will come.
    Over,
}

/// What the input made a filter say, apart from MQTT.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Goes to the socket as it is.
    sealed: Vec<u8>,
    /// Goes through TLS, where there is TLS.
    framed: Vec<u8>,
}

/// What became of a segment.
#[derive(Debug)]
pub(crate) struct Received<'b> {
    /// The MQTT of it.
    pub(crate) mqtt: &'b [u8],
    /// Both sides have just agreed: a connection begins, in front of that MQTT.
    pub(crate) opened: bool,
    /// Nothing more will come, behind that MQTT.
    pub(crate) end: Option<End>,
}

/// Why a connection's input is at its end.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer said so.
    Closed,
    /// It asked for a file, and [`Filter::serve`] gives that.
    Answered,
    /// It went wrong.
    Fault(Fault),
}

impl Filter {
    /// The filter of a new connection of a listener; `None`: it speaks MQTT and nothing around it.
    pub(crate) fn new(listener: &ListenerConfig) -> Option<Box<Self>> {
        let websocket = match listener.protocol {
            Protocol::Mqtt => None,
            Protocol::WebSocket(_) => Some(WebSocket::default()),
        };
        let proxy = listener.proxy.as_ref().map(|_| Proxy::default());
        (listener.tls.is_some() || websocket.is_some() || proxy.is_some()).then(|| {
            Box::new(Self {
                proxy,
                common_name: None,
                tls: None,
                websocket,
                stage: Stage::ExpectFirst,
                download: None,
                queued: false,
                is_over: false,
                since: None,
                charged: 0,
                piece: 0,
                half_closed: false,
            })
        })
    }

    /// What owes the header of a proxy, if it is owed.
    pub(crate) const fn proxy(&mut self) -> Option<&mut Proxy> {
        self.proxy.as_mut()
    }

    /// Whether the header of a proxy is owed.
    pub(crate) const fn owes_introduction(&self) -> bool {
        self.proxy.is_some()
    }

    /// The header has come. `false`: behind it there is nothing but MQTT.
    pub(crate) fn introduce(&mut self, common_name: Option<String>, listener: &ListenerConfig) -> bool {
        self.proxy = None;
        self.common_name = common_name;
        listener.tls.is_some() || self.websocket.is_some()
    }

    /// Whether the next input may cost as much as a handshake does.
    pub(crate) fn is_costly(&self, listener: &ListenerConfig) -> bool {
        match self.stage {
            Stage::ExpectFirst => listener.tls.is_some() && self.proxy.is_none(),
            Stage::Handshake => self.tls.as_ref().is_some_and(|tls| !tls.is_established()),
            Stage::Open | Stage::Over => false,
        }
    }

    /// Takes a segment as it came, at `now`, and gives the MQTT of it, which lies in the segment or in `plain`. What it has
    /// to say itself is added to `said`.
    pub(crate) fn receive<'b>(
        &mut self,
        bytes: &'b mut [u8],
        listener: &ListenerConfig,
        now: Instant,
        plain: &'b mut Vec<u8>,
        said: &mut Said,
    ) -> Received<'b> {
        plain.clear();
        let (inner, tls_end) = match self.decrypt(bytes.first().copied(), listener) {
            Err(fault) => return Received::fault(fault),
            Ok(None) => (bytes, None),
            Ok(Some(tls)) => {
                let end = tls.receive(bytes, plain, &mut said.sealed);
                (plain.as_mut_slice(), end)
            }
        };
        let has_decrypted = self.tls.is_some() && !inner.is_empty();
        let received = self.unframe(inner, listener, tls_end, said);
        if matches!(received.end, Some(End::Answered)) {
            let file = self.websocket.as_mut().and_then(WebSocket::file);
            self.download = Some(Box::new(Download::new(file, now)));
        }
        // Something whole has come, so that what is held now began behind it.
        let has_come = has_decrypted || !received.mqtt.is_empty();
        self.since = self
            .is_partial()
            .then(|| self.since.filter(|_| !has_come).unwrap_or(now));
        received
    }

    /// The TLS of the connection, which begins with its first byte; `None`: it has none.
    fn decrypt(&mut self, first: Option<u8>, listener: &ListenerConfig) -> Result<Option<&mut TlsLayer>, Fault> {
        if self.stage == Stage::ExpectFirst
            && let Some(first) = first
        {
            self.stage = Stage::Handshake;
            if let Some(tls) = &listener.tls {
                self.tls = Some(TlsLayer::begin(first, tls)?);
            }
        }
        Ok(self.tls.as_deref_mut())
    }

    /// Takes the WebSocket off what TLS has let through.
    fn unframe<'b>(
        &mut self,
        inner: &'b mut [u8],
        listener: &ListenerConfig,
        tls_end: Option<End>,
        said: &mut Said,
    ) -> Received<'b> {
        let mut received = match (&mut self.websocket, &listener.protocol) {
            (Some(websocket), Protocol::WebSocket(rules)) if !inner.is_empty() => {
                let received = websocket.receive(inner, rules, &mut said.framed);
                Received {
                    mqtt: inner.get(..received.payload_len).unwrap_or_default(),
                    opened: false,
                    end: received.end.map(End::from),
                }
            }
            _ => Received {
                mqtt: inner,
                opened: false,
                end: None,
            },
        };
        received.end = match received.end {
            // Nothing can be encrypted any more.
            Some(End::Answered) if matches!(tls_end, Some(End::Fault(_))) => tls_end,
            end => end.or(tls_end),
        };
        let is_agreed = self.tls.as_ref().is_none_or(|tls| tls.is_established())
            && self
                .websocket
                .as_ref()
                .is_none_or(|websocket| websocket.is_open() || !received.mqtt.is_empty());
        if self.stage == Stage::Handshake && is_agreed {
            self.stage = Stage::Open;
            received.opened = true;
        }
        received
    }

    /// Makes of what `output` has gathered what goes to the socket. `false`: it cannot be encrypted any more, and is gone.
    pub(crate) fn seal(&mut self, output: &mut Output, spare: &mut Vec<u8>) -> bool {
        if self.stage == Stage::Over {
            // MQTT behind the end is nobody's.
            output.bytes.truncate(output.framed);
        }
        self.frame(output);
        let sealed = self.encrypt(output, spare);
        output.sealed = output.bytes.len();
        output.framed = output.bytes.len();
        sealed
    }

    /// Appends what the filter said itself, in its place. Gives how many bytes longer `output` is.
    pub(crate) fn say(&mut self, said: &mut Said, output: &mut Output) -> usize {
        let before = output.bytes.len();
        if !said.sealed.is_empty() {
            let at = output.sealed;
            output.bytes.splice(at..at, said.sealed.drain(..));
            let len = output.bytes.len() - before;
            output.sealed += len;
            output.framed += len;
        }
        if !said.framed.is_empty() {
            self.frame(output);
            output.bytes.append(&mut said.framed);
            output.framed = output.bytes.len();
        }
        output.bytes.len() - before
    }

    /// Appends the next `len` bytes of the file that the peer has asked for; behind the last of them what tells it that no
    /// more will come.
    pub(crate) fn serve(&mut self, len: usize, output: &mut Output, spare: &mut Vec<u8>) {
        self.frame(output);
        let download = self.download.as_mut();
        let is_last = download.is_none_or(|download| download.take(len, &mut output.bytes));
        output.framed = output.bytes.len();
        if is_last {
            self.finish(output, spare, false);
        }
    }

    /// Whether the peer takes its file fast enough. See [`Download::keeps_pace`].
    pub(crate) fn keeps_pace(&mut self, now: Instant, unsent: usize, time: Duration) -> bool {
        let download = self.download.as_mut();
        download.is_some_and(|download| download.keeps_pace(now, unsent, time))
    }

    /// Appends what tells the peer that no more will come, behind all else. Once only.
    pub(crate) fn finish(&mut self, output: &mut Output, spare: &mut Vec<u8>, going_away: bool) {
        if mem::replace(&mut self.stage, Stage::Over) == Stage::Over {
            return;
        }
        self.frame(output);
        if let Some(websocket) = &mut self.websocket {
            let code = if going_away { CLOSE_GOING_AWAY } else { CLOSE_NORMAL };
            websocket.close(&mut output.bytes, code);
            output.framed = output.bytes.len();
        }
        if self.encrypt(output, spare)
            && let Some(tls) = &mut self.tls
        {
            tls.close(&mut output.bytes);
        }
        output.sealed = output.bytes.len();
        output.framed = output.bytes.len();
    }

    /// Whether the peer was told that no more will come.
    pub(crate) const fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Makes one message of the MQTT.
    fn frame(&self, output: &mut Output) {
        if self.websocket.is_some() {
            WebSocket::wrap(&mut output.bytes, output.framed);
        }
        output.framed = output.bytes.len();
    }

    /// Encrypts what is not yet, where it has to be.
    fn encrypt(&mut self, output: &mut Output, spare: &mut Vec<u8>) -> bool {
        let Some(tls) = &mut self.tls else { return true };
        let plain = output.bytes.get(output.sealed..).unwrap_or_default();
        if plain.is_empty() {
            return true;
        }
        spare.clear();
        let is_sealed = tls.seal(plain, spare);
        output.bytes.truncate(output.sealed);
        if output.bytes.is_empty() {
            mem::swap(&mut output.bytes, spare);
        } else {
            output.bytes.append(spare);
        }
        is_sealed
    }

    /// The certificates that the peer has proven to have the key of, its own first.
    pub(crate) fn certificates(&self) -> &[rustls::pki_types::CertificateDer<'static>] {
        self.tls.as_ref().map_or(&[], |tls| tls.certificates())
    }

    /// Who the client is by the word of its proxy. Given once.
    pub(crate) const fn common_name(&mut self) -> Option<String> {
        self.common_name.take()
    }

    /// Since when a part of something has been held.
    pub(crate) const fn partial_since(&self) -> Option<Instant> {
        self.since
    }

    /// Begins the time of what is held anew: its peer was not read until `now`.
    pub(crate) fn begin_again(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }

    fn is_partial(&self) -> bool {
        let has_frame = self
            .websocket
            .as_ref()
            .is_some_and(|websocket| websocket.held_bytes() > 0);
        has_frame || self.tls.as_ref().is_some_and(|tls| tls.is_partial())
    }

    /// Keeps a segment for when it is this connection's turn.
    pub(crate) fn hold(&mut self, bytes: &[u8], listener: &ListenerConfig) -> Result<(), Fault> {
        match self.decrypt(bytes.first().copied(), listener)? {
            Some(tls) => tls.hold(bytes),
            None => Ok(()),
        }
    }

    /// Lets go of what was held of the input: nothing will come of it.
    pub(crate) fn forget_input(&mut self) {
        self.since = None;
        if let Some(proxy) = &mut self.proxy {
            *proxy = Proxy::default();
        }
        if let Some(tls) = &mut self.tls {
            tls.forget_input();
        }
    }

    /// Memory held for a handshake and for what has come in part, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |tls| tls.held_bytes());
        let websocket = self.websocket.as_ref().map_or(0, WebSocket::held_bytes);
        let proxy = self.proxy.as_ref().map_or(0, Proxy::held_bytes);
        tls.saturating_add(websocket).saturating_add(proxy)
    }
}

/// The keys of a connection are nobody's business.
impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("tls", &self.tls.is_some())
            .field("websocket", &self.websocket.is_some())
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Said {
    /// Forgets what was said for a connection that did not get to say it.
    pub(crate) fn clear(&mut self) {
        self.sealed.clear();
        self.framed.clear();
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.framed.is_empty()
    }

    /// Leaves out the answers that nobody is owed who does not take them.
    pub(crate) fn drop_answers(&mut self) {
        self.framed.clear();
    }
}

impl Received<'_> {
    const fn fault(fault: Fault) -> Self {
        Self {
            mqtt: &[],
            opened: false,
            end: Some(End::Fault(fault)),
        }
    }
}

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Closed(_) => Self::Closed,
            Ending::Answered => Self::Answered,
            ending => Self::Fault(Fault::WebSocket(ending)),
        }
    }
}

#[cfg(test)]
mod tests;
