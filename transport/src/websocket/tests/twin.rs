//! The filter beside tungstenite, which is another reading of RFC 6455.
//!
//! Where both are strict they agree. They differ on purpose in this:
//!
//! - tungstenite judges a frame when it is whole, the filter as soon as a byte tells;
//! - tungstenite gives whole messages, the filter the bytes of them as they come;
//! - tungstenite takes text, the filter does not [MQTT-6.0.0-1];
//! - tungstenite takes a control frame whose short length is written in the long form, the filter does not;
//! - tungstenite answers each Ping, the filter the last of a segment;
//! - tungstenite repeats the reason of a Close, the filter only its code;
//! - to a code that may not be sent tungstenite answers 1002 as to a good Close, the filter as to a fault, and before it
//!   looks at the reason; and tungstenite knows nothing of 1014, which was registered later.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message};

use super::*;

/// So that a length that is announced and does not come costs tungstenite no memory.
const FRAME_BYTES_MAX: usize = 100_000;

/// Both directions of a connection, as tungstenite sees them.
#[derive(Clone, Debug, Default)]
struct Wire(Rc<RefCell<(VecDeque<u8>, Vec<u8>)>>);

impl Wire {
    fn with(input: &[u8]) -> Self {
        let wire = Self::default();
        wire.0.borrow_mut().0.extend(input);
        wire
    }

    fn written(&self) -> Vec<u8> {
        self.0.borrow().1.clone()
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.borrow_mut().0.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn socket(wire: &Wire, role: Role) -> tungstenite::WebSocket<Wire> {
    let config = WebSocketConfig::default()
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .max_message_size(None);
    tungstenite::WebSocket::from_raw_socket(wire.clone(), role, Some(config))
}

/// What tungstenite reads, and the error that ended it; `None`: it waits for more.
fn read_as(role: Role, bytes: &[u8]) -> (Vec<Message>, Option<Error>) {
    let mut socket = socket(&Wire::with(bytes), role);
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}

fn binary(messages: &[Message]) -> Vec<u8> {
    let data = messages.iter().filter(|message| message.is_binary());
    data.flat_map(|message| message.clone().into_data()).collect()
}

fn close_code(messages: &[Message]) -> Option<u16> {
    messages.iter().find_map(|message| match message {
        Message::Close(frame) => Some(frame.as_ref().map_or(CLOSE_NO_STATUS, |frame| frame.code.into())),
        _ => None,
    })
}

fn pongs(messages: &[Message]) -> Vec<Vec<u8>> {
    let pongs = messages.iter().filter(|message| message.is_pong());
    pongs.map(|message| message.clone().into_data().to_vec()).collect()
}

fn rules() -> WebSocketRules {
    WebSocketRules {
        frame_bytes_max: FRAME_BYTES_MAX as u64,
        ..WebSocketRules::default()
    }
}

/// Tells the filter of an open connection these bytes, cut at these places.
fn tell(bytes: &[u8], cuts: &[usize]) -> Conversation {
    let mut conversation = Conversation {
        rules: rules(),
        ..Conversation::open()
    };
    for (from, to) in segments(bytes.len(), cuts) {
        conversation.hear(&bytes[from..to]);
    }
    conversation
}

fn segments(len: usize, cuts: &[usize]) -> Vec<(usize, usize)> {
    let mut places = [&[0, len], cuts].concat();
    places.sort_unstable();
    places.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// What a client says in one go.
#[derive(Clone, Debug)]
enum Said {
    Whole(Vec<u8>),
    /// A message in fragments, with a Ping behind some.
    Fragments(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        4 => vec(any::<u8>(), 120..130),
        1 => (65_530_usize..65_545, any::<u8>()).prop_map(|(len, first)| (first..=255).cycle().take(len).collect()),
    ]
}

fn control() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=125)
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        payload().prop_map(Said::Whole),
        vec((payload(), proptest::option::of(control())), 1..5).prop_map(Said::Fragments),
        control().prop_map(Said::Ping),
        control().prop_map(Said::Pong),
    ]
}

fn close() -> impl Strategy<Value = Option<(u16, String)>> {
    let code = prop_oneof![1000_u16..=1003, 1007_u16..=1013, 3000_u16..=4999];
    proptest::option::of((code, "[a-zé]{0,40}"))
}

/// A client that writes, and remembers where each of its Pings ends.
struct Client {
    wire: Wire,
    socket: tungstenite::WebSocket<Wire>,
    ends: Vec<usize>,
    pings: Vec<(usize, Vec<u8>)>,
}

impl Client {
    fn new() -> Self {
        let wire = Wire::default();
        Self {
            socket: socket(&wire, Role::Client),
            wire,
            ends: Vec::new(),
            pings: Vec::new(),
        }
    }

    fn send(&mut self, message: Message) {
        let ping = message.is_ping().then(|| message.clone().into_data().to_vec());
        self.socket.send(message).unwrap();
        let end = self.wire.written().len();
        self.ends.push(end);
        self.pings.extend(ping.map(|payload| (end, payload)));
    }

    fn say(&mut self, said: Said) {
        match said {
            Said::Whole(payload) => self.send(Message::binary(payload)),
            Said::Ping(payload) => self.send(Message::Ping(payload.into())),
            Said::Pong(payload) => self.send(Message::Pong(payload.into())),
            Said::Fragments(fragments) => {
                let last = fragments.len() - 1;
                for (at, (payload, ping)) in fragments.into_iter().enumerate() {
                    let kind = if at == 0 { Data::Binary } else { Data::Continue };
                    let frame = Frame::message(payload, OpCode::Data(kind), at == last);
                    self.send(Message::Frame(frame));
                    if let Some(ping) = ping {
                        self.send(Message::Ping(ping.into()));
                    }
                }
            }
        }
    }
}

/// A frame of which every part may be wrong, without the payload that it announces when that is `wild`.
#[derive(Clone, Debug)]
struct Rough {
    first: u8,
    masked: bool,
    form: u8,
    payload: Vec<u8>,
    wild: Option<u64>,
}

impl Rough {
    fn encode(&self, into: &mut Vec<u8>) {
        let len = self.wild.unwrap_or(self.payload.len() as u64);
        let mask_bit = u8::from(self.masked) << 7;
        into.push(self.first);
        match self.form {
            0 if len < 126 => into.push(mask_bit | len as u8),
            1 if len < 65_536 => {
                into.push(mask_bit | 126);
                into.extend((len as u16).to_be_bytes());
            }
            _ => {
                into.push(mask_bit | 127);
                into.extend(len.to_be_bytes());
            }
        }
        if self.masked {
            into.extend(MASK);
        }
        into.extend(
            self.payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
    }
}

fn rough() -> impl Strategy<Value = Rough> {
    let first = prop_oneof![
        12 => prop_oneof![Just(0x82_u8), Just(0x02), Just(0x00), Just(0x80), Just(0x89), Just(0x8a)],
        1 => Just(0x88),
        1 => any::<u8>(),
    ];
    let form = prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(2)];
    let payload = prop_oneof![
        8 => vec(any::<u8>(), 0..20),
        1 => vec(any::<u8>(), 120..130),
        1 => (990_u16..5_010).prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    let wild = proptest::option::weighted(0.02, prop_oneof![100_001_u64..=u64::MAX, Just(1 << 62), Just(1 << 63)]);
    (first, proptest::bool::weighted(0.97), form, payload, wild).prop_map(|(first, masked, form, payload, wild)| {
        Rough {
            first,
            masked,
            form,
            payload,
            wild,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// RFC 6455, sections 5.4 to 5.6, [MQTT-6.0.0-2]: wherever a right conversation is cut, both hear the same and answer
    /// the same; frame by frame, to the last Pong.
    #[test]
    fn a_right_conversation_is_heard_as_tungstenite_hears_it(
        story in vec(said(), 0..12),
        end in close(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let mut client = Client::new();
        for said in story {
            client.say(said);
        }
        if let Some((code, reason)) = end {
            client.send(Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() })));
        }
        let bytes = client.wire.written();
        let server = Wire::with(&bytes);
        let mut twin = socket(&server, Role::Server);
        let mut heard = Vec::new();
        while let Ok(message) = twin.read() {
            heard.push(message);
        }
        let _ = twin.flush();
        let (answers, _) = read_as(Role::Client, &server.written());

        let cuts: Vec<usize> = cuts.iter().map(|index| index.index(bytes.len() + 1)).collect();
        for cuts in [cuts, client.ends.clone()] {
            let ours = tell(&bytes, &cuts).close();
            prop_assert_eq!(&ours.payload, &binary(&heard));
            prop_assert_eq!(ours.end, close_code(&heard).map(Ending::Closed));
            let (said, _) = read_as(Role::Client, &ours.out);
            // Without a Close of the client's ours is the broker's own.
            prop_assert_eq!(close_code(&said), close_code(&answers).or(Some(CLOSE_NORMAL)));
            let last_pings: Vec<Vec<u8>> = segments(bytes.len(), &cuts)
                .into_iter()
                .filter_map(|(from, to)| {
                    let mut inside = client.pings.iter().filter(|(end, _)| (from + 1..=to).contains(end));
                    inside.next_back().map(|(_, payload)| payload.clone())
                })
                .collect();
            prop_assert_eq!(&pongs(&said), &last_pings);
            if cuts == client.ends {
                prop_assert_eq!(pongs(&said), pongs(&answers));
            }
        }
    }

    /// RFC 6455, section 5: where the one refuses, so does the other, and both have heard the same before.
    #[test]
    fn a_wrong_conversation_is_refused_where_tungstenite_refuses_it(
        story in vec(rough(), 0..12),
        end in any::<Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for frame in &story {
            frame.encode(&mut bytes);
        }
        if is_cut {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        let ours = tell(&bytes, &[]);
        let (heard, error) = read_as(Role::Server, &bytes);
        let closed = close_code(&heard);
        match ours.end {
            Some(Ending::Violated(Fault::Text | Fault::LongControl)) => {}
            Some(Ending::Violated(Fault::CloseCode)) => {
                prop_assert!(closed == Some(1002) || error.is_some(), "{heard:?}");
            }
            Some(Ending::Closed(1014)) => prop_assert_eq!(closed, Some(1002)),
            Some(Ending::Closed(code)) => prop_assert_eq!(closed, Some(code)),
            // It may wait for the rest of a frame that was cut, or that is too long.
            Some(Ending::Violated(_)) => prop_assert!(error.is_some() || is_cut, "{:?} {heard:?}", ours.end),
            None => prop_assert!(error.is_none() && closed.is_none(), "{error:?} {heard:?}"),
            Some(other) => prop_assert!(false, "{other:?}"),
        }
        let whole = binary(&heard);
        if matches!(ours.end, Some(Ending::Violated(Fault::Text | Fault::LongControl))) {
            prop_assert!(whole.starts_with(&ours.payload) || ours.payload.starts_with(&whole));
        } else {
            prop_assert!(ours.payload.starts_with(&whole));
        }
        // A fault is the same wherever it was cut.
        let pieces = tell(&bytes, &(0..bytes.len()).collect::<Vec<_>>());
        prop_assert_eq!((pieces.end, pieces.payload), (ours.end, ours.payload));
    }

    /// RFC 6455, section 5: noise ends, or is waited out, and is the same wherever it is cut.
    #[test]
    fn noise_is_judged_the_same_wherever_it_is_cut(
        noise in vec(any::<u8>(), 0..200),
        at in any::<Index>(),
        cuts in vec(any::<Index>(), 0..6),
        is_request in any::<bool>(),
    ) {
        let mut bytes = everything();
        let bytes = if is_request {
            let at = at.index(bytes.len());
            for (place, byte) in bytes[at..].iter_mut().zip(noise.iter().take(3)) {
                *place = *byte;
            }
            bytes
        } else {
            noise
        };
        let cuts: Vec<usize> = cuts.iter().map(|index| index.index(bytes.len() + 1)).collect();
        let mut whole = Conversation::default();
        whole.hear(&bytes);
        let mut pieces = Conversation::default();
        for (from, to) in segments(bytes.len(), &cuts) {
            pieces.hear(&bytes[from..to]);
        }
        prop_assert_eq!((&pieces.payload, pieces.end), (&whole.payload, whole.end));
    }

    /// RFC 6455, section 5.1: what is wrapped is what a client reads, and it accepts every header.
    #[test]
    fn what_is_wrapped_is_what_tungstenite_reads(messages in vec(payload(), 0..8)) {
        let mut out = Vec::new();
        for message in &messages {
            let mark = out.len();
            out.extend_from_slice(message);
            WebSocket::wrap(&mut out, mark);
        }
        let (heard, error) = read_as(Role::Client, &out);
        let sent = messages.into_iter().filter(|message| !message.is_empty()).map(Message::binary);
        prop_assert_eq!(heard, sent.collect::<Vec<_>>());
        prop_assert!(error.is_none(), "{error:?}");
    }
}

#[test]
fn a_client_that_checks_everything_is_content() {
    // RFC 6455, section 4.1: it verifies status, headers, proof and subprotocol before it speaks.
    let request = tungstenite::http::Request::builder()
        .uri("ws://localhost/mqtt")
        .header("Host", "localhost")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key())
        .header("Sec-WebSocket-Protocol", "mqtt")
        .body(())
        .unwrap();
    let wire = Wire::default();
    let Err(HandshakeError::Interrupted(waiting)) = tungstenite::client(request, wire.clone()) else {
        panic!("it waits for an answer");
    };
    let mut conversation = Conversation::default();
    conversation.hear(&wire.written());
    wire.0.borrow_mut().0.extend(&conversation.out);
    let (mut client, response) = waiting.handshake().unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");

    let sent = wire.written().len();
    client.send(Message::binary(b"CONNECT".as_slice())).unwrap();
    conversation.hear(&wire.written()[sent..]);
    assert_eq!(conversation.payload, b"CONNECT");
}
