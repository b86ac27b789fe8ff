//! The HTTP request with which a client asks for WebSocket, and its answer (RFC 6455, section 4.2).
//!
//! Nothing of a request is ever repeated in an answer, and every refusal is a complete answer of its own.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use sha1::{Digest, Sha1};

use super::files::File;
use super::{Ending, WebSocketRules};

/// The first byte of every CONNECT: its type, and flags that are all zero (section 3.1.1).
pub(crate) const CONNECT_FIRST_BYTE: u8 = 0x10;
/// Headers of a request; browsers send twenty, proxies add some.
const HEADERS_MAX: usize = 64;
/// What an answer proves to know (RFC 6455, section 1.3).
const PROOF: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols that mean MQTT [MQTT-6.0.0-3]; the second is from before it had a standard, and some clients know no
/// other.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
const HEAD_END: &[u8; 4] = b"\r\n\r\n";

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP request from some place on.
    Malformed,
    /// The method is not GET.
    Method,
    /// The version is not HTTP/1.1.
    HttpVersion,
    /// There is no Host, or more than one (RFC 9112, section 3.2).
    Host,
    /// It announces a body.
    Body,
    /// It asks for a web page.
    NoUpgrade,
    /// It asks for another version of WebSocket than 13.
    WebSocketVersion,
    /// The key is not 16 bytes in Base64.
    Key,
    /// It comes from a page that may not connect.
    Origin,
    /// It does not offer MQTT [MQTT-6.0.0-3].
    Subprotocol,
    /// The request line alone is larger than a request may be.
    LongLine,
    /// It is larger than a request may be, or has too many headers.
    LongHead,
}

impl Refusal {
    /// The status of the answer, and a sentence for whoever reads it.
    const fn status_and_sentence(self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed => ("400 Bad Request", "This is no HTTP request."),
            Self::Method => ("405 Method Not Allowed", "A WebSocket is asked for with GET."),
            Self::HttpVersion => (
                "505 HTTP Version Not Supported",
                "A WebSocket is asked for with HTTP/1.1.",
            ),
            Self::Host => ("400 Bad Request", "The request needs one Host header."),
            Self::Body => ("400 Bad Request", "The request must not have a body."),
            Self::NoUpgrade => ("426 Upgrade Required", "This is a WebSocket for MQTT, not a web page."),
            Self::WebSocketVersion => ("426 Upgrade Required", "The request needs Sec-WebSocket-Version: 13."),
            Self::Key => (
                "400 Bad Request",
                "The request needs a Sec-WebSocket-Key of 16 bytes in Base64.",
            ),
            Self::Origin => ("403 Forbidden", "Pages of this origin may not connect."),
            Self::Subprotocol => ("400 Bad Request", "The request needs Sec-WebSocket-Protocol: mqtt."),
            Self::LongLine => ("414 URI Too Long", "The request line is too long."),
            Self::LongHead => ("431 Request Header Fields Too Large", "The request is too large."),
        }
    }

    /// Headers that its status demands.
    const fn headers(self) -> &'static str {
        match self {
            Self::Method => "Allow: GET\r\nConnection: close\r\n",
            Self::NoUpgrade | Self::WebSocketVersion => {
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: close, Upgrade\r\n"
            }
            _ => "Connection: close\r\n",
        }
    }

    fn answer(self, out: &mut Vec<u8>) {
        let (status, sentence) = self.status_and_sentence();
        say(out, status, self.headers(), sentence, true);
    }
}

/// Appends an answer that is a sentence, with these headers; or what it would be, without its body.
pub(super) fn say(out: &mut Vec<u8>, status: &str, headers: &str, sentence: &str, has_body: bool) {
    let body_len = sentence.len().saturating_add(1).to_string();
    let head = [
        "HTTP/1.1 ",
        status,
        "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ",
        &body_len,
        "\r\n",
        headers,
        "\r\n",
    ];
    let body = [sentence, "\n"];
    for part in head.iter().chain(body.iter().filter(|_| has_body)) {
        out.extend_from_slice(part.as_bytes());
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, sentence) = self.status_and_sentence();
        write!(f, "{status}: {sentence}")
    }
}

/// A request of which a part has come.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    head: Vec<u8>,
    /// The request line has come, and is one of HTTP.
    has_line: bool,
}

/// What came of a segment that is one of a request.
pub(super) enum Progress {
    /// More of it has to come.
    Partial,
    /// A WebSocket begins, behind so many bytes of the segment.
    Granted(usize),
    /// It asked for no WebSocket, and this file is what the answer still lacks.
    Answered(Option<Arc<File>>),
}

impl Handshake {
    /// Takes a segment. Once the request is whole, answers it.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        rules: &WebSocketRules,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Ending> {
        self.take(bytes, rules, out).inspect_err(|ending| {
            if let Ending::Refused(refusal) = ending {
                refusal.answer(out);
            }
        })
    }

    pub(super) const fn held_bytes(&self) -> usize {
        self.head.capacity()
    }

    fn take(&mut self, bytes: &[u8], rules: &WebSocketRules, out: &mut Vec<u8>) -> Result<Progress, Ending> {
        let had = self.head.len();
        if had == 0 {
            judge_first_byte(bytes)?;
        }
        let room = rules.handshake_bytes_max.saturating_sub(had);
        self.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        // What is no HTTP is not waited for.
        if !self.has_line
            && let Some(line) = self.head.split_inclusive(|&byte| byte == b'\n').next()
            && line.ends_with(b"\n")
        {
            parse_part(line)?;
            self.has_line = true;
        }
        if let Some(end) = end_of_head(&self.head, had) {
            return answer(
                self.head.get(..end).unwrap_or_default(),
                end.saturating_sub(had),
                rules,
                out,
            );
        }
        if self.head.len() < rules.handshake_bytes_max {
            return Ok(Progress::Partial);
        }
        parse_part(&self.head)?;
        Err(Ending::Refused(if self.has_line {
            Refusal::LongHead
        } else {
            Refusal::LongLine
        }))
    }
}

/// HTTP begins with a method, and every one that there is with a capital letter.
fn judge_first_byte(bytes: &[u8]) -> Result<(), Ending> {
    match bytes.first() {
        Some(&CONNECT_FIRST_BYTE) => Err(Ending::PlainMqtt),
        Some(first) if !first.is_ascii_uppercase() => Err(Ending::NotHttp),
        _ => Ok(()),
    }
}

/// Where the request ends, if it does. Of what was there before, `had` bytes, no end is in all but the last three.
fn end_of_head(head: &[u8], had: usize) -> Option<usize> {
    let from = had.saturating_sub(HEAD_END.len().saturating_sub(1));
    let found = head
        .get(from..)?
        .windows(HEAD_END.len())
        .position(|window| window == HEAD_END)?;
    Some(from.saturating_add(found).saturating_add(HEAD_END.len()))
}

/// Whether a request could begin so.
fn parse_part(head: &[u8]) -> Result<(), Ending> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let parsed = httparse::Request::new(&mut headers).parse(head);
    parsed.map(drop).map_err(|error| ending_for(error, head))
}

/// Answers a whole request, of which `used` bytes were in the last segment.
fn answer(head: &[u8], used: usize, rules: &WebSocketRules, out: &mut Vec<u8>) -> Result<Progress, Ending> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        // An end that only httparse sees is one of bare line feeds, and what stands behind it would be no frame.
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Ending::Refused(Refusal::Malformed)),
        Err(error) => return Err(ending_for(error, head)),
    }
    if let Some(files) = rules.files.as_ref().filter(|_| !asks_for_websocket(&request)) {
        return Ok(Progress::Answered(files.answer(&request, out)));
    }
    judge(&request, rules).map_err(Ending::Refused)?.answer(out);
    Ok(Progress::Granted(used))
}

/// Whether a request is meant to be one for a WebSocket. With a key it is, even where a proxy has left out the rest: that it
/// has is what its operator is to learn.
fn asks_for_websocket(request: &httparse::Request<'_, '_>) -> bool {
    let headers = Headers(request.headers);
    let mut upgrades = headers.elements("Upgrade");
    upgrades.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        || headers.values("Sec-WebSocket-Key").next().is_some()
}

fn ending_for(error: httparse::Error, head: &[u8]) -> Ending {
    match error {
        httparse::Error::Token => Ending::NotHttp,
        httparse::Error::Version => {
            let mut words = head.split(|&byte| byte == b' ');
            let version = words.nth(2).unwrap_or_default();
            if version.starts_with(b"HTTP/") {
                Ending::Refused(Refusal::HttpVersion)
            } else {
                Ending::NotHttp
            }
        }
        httparse::Error::TooManyHeaders => Ending::Refused(Refusal::LongHead),
        _ => Ending::Refused(Refusal::Malformed),
    }
}

/// What a request that is granted is answered with.
struct Acceptance {
    proof: [u8; 20],
    subprotocol: &'static str,
}

impl Acceptance {
    fn answer(&self, out: &mut Vec<u8>) {
        let mut proof = [0; 28];
        let proof = Base64::encode(&self.proof, &mut proof).unwrap_or_default();
        for part in [
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
            proof,
            "\r\nSec-WebSocket-Protocol: ",
            self.subprotocol,
            "\r\n\r\n",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Judges a request by section 4.2.1. An extension that it offers is not taken.
fn judge(request: &httparse::Request<'_, '_>, rules: &WebSocketRules) -> Result<Acceptance, Refusal> {
    let headers = Headers(request.headers);
    if request.method != Some("GET") {
        return Err(Refusal::Method);
    }
    if request.version != Some(1) {
        return Err(Refusal::HttpVersion);
    }
    headers.only("Host").ok_or(Refusal::Host)?;
    let has_body = headers.values("Content-Length").any(|length| length != b"0");
    if has_body || headers.values("Transfer-Encoding").next().is_some() {
        return Err(Refusal::Body);
    }
    let asks = |name, token: &str| {
        headers
            .elements(name)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    };
    if !asks("Upgrade", "websocket") || !asks("Connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if headers.only("Sec-WebSocket-Version") != Some(b"13") {
        return Err(Refusal::WebSocketVersion);
    }
    let key = headers
        .only("Sec-WebSocket-Key")
        .filter(|key| is_key(key))
        .ok_or(Refusal::Key)?;
    let may_come = |origin: &[u8]| {
        rules
            .origins
            .iter()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(origin))
    };
    if !rules.origins.is_empty() && !headers.values("Origin").all(may_come) {
        return Err(Refusal::Origin);
    }
    let subprotocol = headers
        .elements("Sec-WebSocket-Protocol")
        .find_map(|offered| SUBPROTOCOLS.into_iter().find(|known| known.as_bytes() == offered));
    Ok(Acceptance {
        proof: Sha1::new().chain_update(key).chain_update(PROOF).finalize().into(),
        subprotocol: subprotocol.ok_or(Refusal::Subprotocol)?,
    })
}

/// Whether it is Base64 of 16 bytes. Bits that the last character has too many do not matter: nobody decodes it.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==")
        .is_some_and(|digits| digits.len() == 22 && digits.iter().all(is_digit))
}

/// The headers of a request. Names are told apart without regard to case.
pub(super) struct Headers<'h>(pub(super) &'h [httparse::Header<'h>]);

impl<'h> Headers<'h> {
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        let named = self
            .0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value.trim_ascii())
    }

    /// The value of a header that is there once.
    pub(super) fn only(&self, name: &str) -> Option<&'h [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The elements of a list, which may be spread over several headers.
    pub(super) fn elements(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        let lists = self.values(name);
        lists
            .flat_map(|list| list.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
    }
}
