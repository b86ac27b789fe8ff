//! Records as lines of JSON, and back.
//!
//! The first line says what the store says of itself:
//! `{"format":"sol-store","version":1,"seeds":["…",…],"listeners":["0.0.0.0:1883"]}`. Each other line is a record, whose
//! `record` says which: `session`, `subscription`, `message`, `retained`, `reference` or `inbound`. An `id` is the shard
//! that gave it out, and its number there. Payloads and Properties are Base64, moments are milliseconds since 1970. What a
//! record does not have is left out.

mod read;

use std::fmt::Write as _;

use base64ct::{Base64, Encoding as _};
use sol_codec::{ApplicationProperties, DecodeLimits, Decoded, Packet, ProtocolVersion, SubscriptionId};
use sol_engine::{
    Author, ListenerId, Message, OwnedWill, Record, RecordId, Reference, ReferenceState, SessionRecord,
    SubscriptionRecord, UnixMillis,
};
use sol_transport::About;

pub(super) use self::read::{head as read_head, read};

const FORMAT: &str = "sol-store";
const VERSION: u64 = 1;

/// Bits of Subscription Options, as SUBSCRIBE has them.
const QOS: u8 = 0x03;
const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING: u8 = 0x30;

/// The first line.
pub(super) fn head(about: &About) -> String {
    let mut line = String::new();
    let mut object = Object::new(&mut line, "format", FORMAT);
    object.number("version", VERSION);
    let seeds: Vec<String> = about.seeds.iter().map(|seed| format!("\"{seed:016x}\"")).collect();
    object.raw("seeds", &format!("[{}]", seeds.join(",")));
    let listeners: Vec<String> = about.listeners.iter().map(|name| quoted(name)).collect();
    object.raw("listeners", &format!("[{}]", listeners.join(",")));
    object.end();
    line
}

/// Appends a record's line. A deletion has none.
pub(super) fn write(record: &Record, about: &About, line: &mut String) {
    match record {
        Record::Session(id, session) => write_session(*id, session, about, line),
        Record::Subscription(id, subscription) => write_subscription(*id, subscription, line),
        Record::Body(id, message) => write_message(*id, message, line),
        Record::Retained { id, body, author } => {
            let mut object = Object::of(line, "retained", *id);
            object.id("message", *body);
            if let Some(author) = author {
                object.raw("author", &author_of(author, about));
            }
            object.end();
        }
        Record::Reference(id, reference) => write_reference(*id, reference, line),
        Record::Inbound { id, session, packet_id } => {
            let mut object = Object::of(line, "inbound", *id);
            object.id("session", *session);
            object.number("packet_id", u64::from(packet_id.get()));
            object.end();
        }
        Record::Delete(_) => {}
    }
}

/// The Session that a record belongs to, if it is not one itself.
pub(super) fn session_of(record: &Record) -> Option<RecordId> {
    match record {
        Record::Subscription(_, subscription) => Some(subscription.session),
        Record::Reference(_, reference) => Some(reference.session),
        Record::Inbound { session, .. } => Some(*session),
        Record::Session(..) | Record::Body(..) | Record::Retained { .. } | Record::Delete(_) => None,
    }
}

/// Properties as they are stored, if a client could have sent these with a message of this topic: those that are passed on.
pub(super) fn checked_properties(topic: &str, properties: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(topic.len() + properties.len() + 8);
    body.extend_from_slice(&u16::try_from(topic.len()).ok()?.to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    put_length(&mut body, properties.len());
    body.extend_from_slice(properties);
    // PUBLISH at QoS 0.
    let mut packet = vec![0x30];
    put_length(&mut packet, body.len());
    packet.append(&mut body);
    let limits = DecodeLimits {
        topic_levels: u16::MAX,
        ..DecodeLimits::default()
    };
    let Ok(Decoded::Packet {
        packet: Packet::Publish(publish),
        ..
    }) = sol_codec::decode(&packet, ProtocolVersion::V5, &limits)
    else {
        return None;
    };
    let mut stored = Vec::new();
    publish.properties.application.write_to(&mut stored);
    Some(stored)
}

/// A Variable Byte Integer.
fn put_length(to: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

fn write_session(id: RecordId, session: &SessionRecord, about: &About, line: &mut String) {
    let SessionRecord {
        client_id,
        username,
        vouched,
        granted,
        own_rules,
        listener,
        expiry_interval,
        disconnected_at,
        will,
    } = session;
    let mut object = Object::of(line, "session", id);
    object.text("client_id", client_id);
    object.maybe_text("username", username.as_deref());
    object.flag("vouched", *vouched);
    object.flag("granted", *granted);
    object.flag("own_rules", *own_rules);
    object.listener(*listener, about);
    object.number("session_expiry_interval", u64::from(*expiry_interval));
    if let Some(at) = disconnected_at {
        object.number("disconnected_at", at.as_millis());
    }
    if let Some(will) = will {
        object.raw("will", &will_of(will));
    }
    object.end();
}

fn will_of(will: &OwnedWill) -> String {
    let OwnedWill {
        topic,
        properties,
        payload,
        qos,
        retain,
        delay,
        message_expiry_interval,
    } = will;
    let mut line = String::new();
    let mut object = Object::new(&mut line, "topic", topic);
    object.number("qos", *qos as u64);
    object.flag("retain", *retain);
    object.number("will_delay_interval", u64::from(*delay));
    if let Some(seconds) = message_expiry_interval {
        object.number("message_expiry_interval", u64::from(*seconds));
    }
    object.properties(properties);
    object.bytes("payload", payload);
    object.end();
    line
}

fn write_subscription(id: RecordId, subscription: &SubscriptionRecord, line: &mut String) {
    let SubscriptionRecord {
        session,
        filter,
        options,
        subscription_id,
    } = subscription;
    let mut object = Object::of(line, "subscription", id);
    object.id("session", *session);
    object.text("filter", filter);
    object.number("qos", u64::from(options & QOS));
    object.flag("no_local", options & NO_LOCAL != 0);
    object.flag("retain_as_published", options & RETAIN_AS_PUBLISHED != 0);
    object.number("retain_handling", u64::from((options & RETAIN_HANDLING) >> 4));
    object.flag("replays_retained", options & SubscriptionRecord::REPLAYS != 0);
    if let Some(id) = subscription_id {
        object.number("subscription_identifier", u64::from(id.get()));
    }
    object.end();
}

fn write_message(id: RecordId, message: &Message, line: &mut String) {
    let mut object = Object::of(line, "message", id);
    object.text("topic", message.topic());
    object.number("qos", message.qos as u64);
    object.flag("retain", message.retain);
    if message.expires_at != UnixMillis::NEVER {
        object.number("expires_at", message.expires_at.as_millis());
    }
    object.text("origin", &format!("{:016x}", message.origin.0));
    object.properties(&stored(message.properties()));
    object.bytes("payload", message.payload());
    object.end();
}

fn stored(properties: ApplicationProperties<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(properties.encoded_len());
    properties.write_to(&mut bytes);
    bytes
}

fn author_of(author: &Author, about: &About) -> String {
    let mut line = String::new();
    let mut object = Object(&mut line, '{');
    object.listener(author.listener, about);
    object.maybe_text("username", author.username.as_deref());
    object.flag("vouched", author.vouched);
    object.maybe_text("client_id", author.client_id.as_deref());
    object.end();
    line
}

fn write_reference(id: RecordId, reference: &Reference, line: &mut String) {
    let mut object = Object::of(line, "reference", id);
    object.id("session", reference.session);
    if let Some(body) = reference.body {
        object.id("message", body);
    }
    object.number("qos", reference.qos as u64);
    object.flag("retain", reference.retain);
    let (state, packet_id) = match reference.state {
        ReferenceState::Queued => ("queued", None),
        ReferenceState::Sent(packet_id) => ("sent", Some(packet_id)),
        ReferenceState::Released(packet_id) => ("released", Some(packet_id)),
    };
    object.text("state", state);
    if let Some(packet_id) = packet_id {
        object.number("packet_id", u64::from(packet_id.get()));
    }
    if let Some((name, filter)) = reference.share.as_deref() {
        object.text("share", &format!("$share/{name}/{filter}"));
    }
    if !reference.subscription_ids.is_empty() {
        let number = |id: &SubscriptionId| id.get().to_string();
        let numbers: Vec<String> = reference.subscription_ids.iter().map(number).collect();
        object.raw("subscription_identifiers", &format!("[{}]", numbers.join(",")));
    }
    object.end();
}

fn id_text(id: RecordId) -> String {
    format!("{}-{}", id.0 >> RecordId::COUNT_BITS, id.0 & RecordId::COUNT)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An object that is written, its fields in the order in which they are added, and what stands before the next one.
struct Object<'a>(&'a mut String, char);

impl<'a> Object<'a> {
    fn new(line: &'a mut String, name: &str, text: &str) -> Self {
        let mut object = Self(line, '{');
        object.text(name, text);
        object
    }

    fn of(line: &'a mut String, record: &str, id: RecordId) -> Self {
        let mut object = Self::new(line, "record", record);
        object.id("id", id);
        object
    }

    fn raw(&mut self, name: &str, value: &str) {
        let _ = write!(self.0, "{}\"{name}\":{value}", self.1);
        self.1 = ',';
    }

    fn text(&mut self, name: &str, text: &str) {
        self.raw(name, &quoted(text));
    }

    fn maybe_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.raw(name, &number.to_string());
    }

    fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.raw(name, "true");
        }
    }

    fn id(&mut self, name: &str, id: RecordId) {
        self.text(name, &id_text(id));
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.text(name, &Base64::encode_string(bytes));
    }

    fn properties(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes("properties", bytes);
        }
    }

    /// By its name, where that says which.
    fn listener(&mut self, listener: ListenerId, about: &About) {
        let number = usize::from(listener.0);
        match about.listeners.get(number) {
            Some(name) if about.listeners.iter().position(|other| other == name) == Some(number) => {
                self.text("listener", name);
            }
            _ => self.number("listener", u64::from(listener.0)),
        }
    }

    fn end(self) {
        self.0.push('}');
    }
}

#[cfg(test)]
mod tests;
