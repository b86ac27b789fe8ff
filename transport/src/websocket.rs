//! MQTT over WebSocket (RFC 6455, section 6 of MQTT 5.0), as a filter between a socket's bytes and MQTT's.
//!
//! It is *not* a WebSocket library: it knows the server's side of one subprotocol, no extension and no socket. Input is
//! unmasked where it lies and is MQTT afterwards; output gets its header where it was gathered. A connection goes
//!
//! ```text
//!                     101                    Close, or a broken rule             close()
//!   ExpectRequest ───────────► Open ────────────────────────────────► OwesClose ─────────► Ended
//!         │                     └───────────────────────── close() ──────────────────────────▲
//!         ├─────────────────── no WebSocket, or refused ─────────────────────────────────────┤
//!         └──► Answered: a file, which [`WebSocket::file`] gives out ─────────────────────────┘
//! ```
//!
//! Whoever owns the socket hands every segment to [`WebSocket::receive`], takes what it gives as MQTT, and sends what it
//! appended. Of a turn's MQTT it makes one message with [`WebSocket::wrap`], and when the connection is to end, on either
//! side's wish, [`WebSocket::close`] says so, behind all else. Memory is held only for a request that has not ended, and
//! for a Ping or Close of which a part has come.

// Nothing in here may panic on what a peer sends: lengths are added saturating or checked.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod files;
mod frames;
mod handshake;
#[cfg(test)]
mod tests;

use std::fmt;
use std::mem;
use std::sync::Arc;

pub use files::Files;
pub use frames::Fault;
pub use handshake::Refusal;

pub(crate) use files::File;
pub(crate) use handshake::CONNECT_FIRST_BYTE;

use frames::Frames;
use handshake::{Handshake, Progress};

/// Nothing was wrong; the connection has served its purpose.
pub const CLOSE_NORMAL: u16 = 1000;
/// The broker stops.
pub const CLOSE_GOING_AWAY: u16 = 1001;
/// Stands for a Close without a code, and is never sent (RFC 6455, section 7.4.1).
pub const CLOSE_NO_STATUS: u16 = 1005;

/// What a listener demands of those who come by WebSocket.
#[derive(Clone, Debug)]
pub struct WebSocketRules {
    /// Origins of web pages that may connect, such as `https://example.org`; empty: any. Who names no Origin is no
    /// browser, could claim any, and is let in.
    pub origins: Vec<String>,
    /// Largest request with its headers, in bytes.
    pub handshake_bytes_max: usize,
    /// Largest payload that a frame may announce, in bytes. None is held, so that it costs nothing; MQTT has no packet
    /// that needs more.
    pub frame_bytes_max: u64,
    /// What those get who ask for a file instead; `None`: nothing but the word that this is no web page.
    /// [`crate::Handle::change_files`] changes it for those who come later.
    pub files: Option<Arc<Files>>,
}

impl Default for WebSocketRules {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            handshake_bytes_max: 8 << 10,
            frame_bytes_max: 5 + 268_435_455,
            files: None,
        }
    }
}

/// One connection's filter.
#[derive(Debug, Default)]
pub struct WebSocket {
    state: State,
}

#[derive(Debug)]
enum State {
    /// The client's HTTP request, or the rest of it.
    ExpectRequest(Handshake),
    /// Frames go both ways.
    Open(Frames),
    /// Nothing is taken any more, and this file is what the answer still lacks.
    Answered(Option<Arc<File>>),
    /// Nothing is taken any more, and the client has yet to be told so with this code.
    OwesClose(u16),
    /// Nothing is taken any more.
    Ended,
}

impl Default for State {
    fn default() -> Self {
        Self::ExpectRequest(Handshake::default())
    }
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Received {
    /// So many bytes at its front are MQTT now.
    pub payload_len: usize,
    /// Nothing more will come, behind that MQTT. Said once.
    pub end: Option<Ending>,
}

/// Why a client's bytes are at their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It speaks no HTTP, and gets no answer in it.
    NotHttp,
    /// It speaks MQTT, but not over WebSocket; it gets no answer either.
    PlainMqtt,
    /// Its request was refused, and the answer appended.
    Refused(Refusal),
    /// It asked for a file, and was answered, all but the file.
    Answered,
    /// It sent a Close with this code.
    Closed(u16),
    /// It broke a rule of the protocol.
    Violated(Fault),
}

impl WebSocket {
    /// Takes a segment as it came and leaves the MQTT of it at its front. Appends what the transport itself answers: to the
    /// request, and one Pong for all Pings of the segment, with the payload of the last (RFC 6455, section 5.5.3): never
    /// more than frames have brought. Behind the end, and behind [`Self::close`], nothing is taken.
    ///
    /// `out` must not hold MQTT that was not wrapped. A Close is left to [`Self::close`], so that it can stand behind what
    /// the MQTT of the same segment causes. Whoever does not take its output needs no Pong either: the caller may cut off
    /// again what an open connection appended.
    pub fn receive(&mut self, bytes: &mut [u8], rules: &WebSocketRules, out: &mut Vec<u8>) -> Received {
        let received = match &mut self.state {
            State::Open(frames) => frames.receive(bytes, 0, rules, out),
            State::ExpectRequest(handshake) => match handshake.receive(bytes, rules, out) {
                Ok(Progress::Partial) => Received::default(),
                Ok(Progress::Answered(file)) => {
                    self.state = State::Answered(file);
                    return Received {
                        payload_len: 0,
                        end: Some(Ending::Answered),
                    };
                }
                Ok(Progress::Granted(used)) => {
                    let mut frames = Frames::default();
                    let received = frames.receive(bytes, used, rules, out);
                    self.state = State::Open(frames);
                    received
                }
                Err(ending) => Received {
                    payload_len: 0,
                    end: Some(ending),
                },
            },
            State::Answered(_) | State::OwesClose(_) | State::Ended => Received::default(),
        };
        if let Some(ending) = received.end {
            self.state = ending.close_code().map_or(State::Ended, State::OwesClose);
        }
        received
    }

    /// Makes one binary message of the MQTT at `out[mark..]` [MQTT-6.0.0-1]. Of nothing it makes none.
    pub fn wrap(out: &mut Vec<u8>, mark: usize) {
        frames::wrap(out, mark);
    }

    /// Appends the Close that ends an open connection: with `code`, unless the client caused the end, which decides on
    /// another. Once only, and not before the request was answered: then there is nothing to be said in frames.
    pub fn close(&mut self, out: &mut Vec<u8>, code: u16) {
        match mem::replace(&mut self.state, State::Ended) {
            State::Open(_) => frames::close(out, code),
            State::OwesClose(code) => frames::close(out, code),
            State::ExpectRequest(_) | State::Answered(_) | State::Ended => {}
        }
    }

    /// The file that its answer still lacks. Given once.
    pub(crate) fn file(&mut self) -> Option<Arc<File>> {
        match &mut self.state {
            State::Answered(file) => file.take(),
            _ => None,
        }
    }

    /// Whether MQTT may be sent to it.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Memory held beside `self`, in bytes.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::ExpectRequest(handshake) => handshake.held_bytes(),
            State::Open(frames) => frames.held_bytes(),
            State::Answered(_) | State::OwesClose(_) | State::Ended => 0,
        }
    }
}

impl Ending {
    /// The code of the Close that answers it; `None`: no frame does.
    const fn close_code(self) -> Option<u16> {
        match self {
            Self::NotHttp | Self::PlainMqtt | Self::Refused(_) | Self::Answered => None,
            Self::Closed(code) => Some(code),
            Self::Violated(fault) => Some(fault.close_code()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => f.write_str("it speaks no HTTP"),
            Self::PlainMqtt => f.write_str("it speaks MQTT without WebSocket"),
            Self::Refused(refusal) => write!(f, "its WebSocket request was refused: {refusal}"),
            Self::Answered => f.write_str("it asked for a file"),
            Self::Closed(CLOSE_NO_STATUS) => f.write_str("it closed the WebSocket"),
            Self::Closed(code) => write!(f, "it closed the WebSocket with code {code}"),
            Self::Violated(fault) => write!(f, "it broke the WebSocket protocol: {fault}"),
        }
    }
}
