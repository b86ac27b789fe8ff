//! Records as bytes, and back: the payloads of the journal's format 1.
//!
//! A payload begins with its version, then come its fields in order, all of them: numbers as LEB128, texts and bytes behind
//! their length, what is last without one. The identifier of another record is its shard and then what it counts, each a
//! number, which is short for most. What belongs to a body is the journal's to keep: it is the record's parent, and no field.
//!
//! ```text
//! 1 Session       flags · Client Identifier · [User Name] · listener · Session Expiry Interval · [disconnected at]
//!                 · [Will: flags · delay · [Message Expiry Interval] · topic · properties · payload]
//! 2 Subscription  session · options · Subscription Identifier or 0 · Topic Filter
//! 3 Body          flags · origin, 8 bytes · [expires at] · topic · length of properties · properties and payload
//! 4 Retained      flags · [listener · [User Name] · [Client Identifier]]
//! 5 Reference     flags · session · [Packet Identifier] · [ShareName · Topic Filter] · Subscription Identifiers
//! 6 Inbound       session · Packet Identifier
//! ```

use alloc::{boxed::Box, rc::Rc, string::String, vec::Vec};
use core::fmt;

use sol_codec::{PacketId, QoS, SubscriptionId};

use super::{Record, RecordId, Reference, ReferenceState, SessionRecord, SubscriptionRecord};
use crate::ids::ListenerId;
use crate::input::OwnedWill;
use crate::message::{Message, Origin};
use crate::rights::authors::Author;
use crate::time::UnixMillis;

/// The only version there is.
const VERSION: u8 = 1;

/// What a record is to the journal, beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// It stands alone.
    Single,
    /// A body: it lives while another record names it as its parent.
    Body,
    /// It needs that body.
    Child(RecordId),
    /// Its item is gone.
    Gone,
}

/// What decides where a record is at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs<'a> {
    /// It is the Session of this Client Identifier.
    ToClient(&'a str),
    /// It goes where this Session is.
    ToSession(RecordId),
    /// It is a message with this topic: it goes to whoever refers to it.
    ToTopic(&'a str),
    /// It goes where the topic of its body is at home.
    ToBody,
}

impl<'a> Belongs<'a> {
    /// Looks at a record's payload for that alone.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn of(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::behind_version(kind, payload)?;
        fields.belongs(kind).ok_or(PayloadError::Malformed)
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// A later version of this program wrote it.
    Newer,
    /// It is none that was ever written.
    Malformed,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newer => "it was written by a later version",
            Self::Malformed => "its fields are not what its kind has",
        })
    }
}

impl core::error::Error for PayloadError {}

impl Record {
    /// The kind of [`Record::Session`]; so it is with the others. Kinds are restored in this order; 0 is for whoever keeps the
    /// journal.
    pub const SESSION: u8 = 1;
    /// Of [`Record::Subscription`].
    pub const SUBSCRIPTION: u8 = 2;
    /// Of [`Record::Body`].
    pub const BODY: u8 = 3;
    /// Of [`Record::Retained`].
    pub const RETAINED: u8 = 4;
    /// Of [`Record::Reference`].
    pub const REFERENCE: u8 = 5;
    /// Of [`Record::Inbound`].
    pub const INBOUND: u8 = 6;

    /// The number of its kind; a deletion has none.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Delete(_) => 0,
            Self::Session(..) => Self::SESSION,
            Self::Subscription(..) => Self::SUBSCRIPTION,
            Self::Body(..) => Self::BODY,
            Self::Retained { .. } => Self::RETAINED,
            Self::Reference(..) => Self::REFERENCE,
            Self::Inbound { .. } => Self::INBOUND,
        }
    }

    /// Has it speak of listeners by the numbers that they have now.
    pub fn renumber_listener(&mut self, number: impl Fn(ListenerId) -> ListenerId) {
        match self {
            Self::Session(_, session) => session.listener = number(session.listener),
            Self::Retained {
                author: Some(author), ..
            } => author.listener = number(author.listener),
            _ => {}
        }
    }

    /// What it is to the journal.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Delete(_) => Family::Gone,
            Self::Body(..) => Family::Body,
            Self::Retained { body, .. } => Family::Child(*body),
            Self::Reference(_, Reference { body: Some(body), .. }) => Family::Child(*body),
            Self::Session(..) | Self::Subscription(..) | Self::Reference(..) | Self::Inbound { .. } => Family::Single,
        }
    }

    /// Appends its payload. A deletion has none.
    pub fn encode(&self, to: &mut Vec<u8>) {
        if !matches!(self, Self::Delete(_)) {
            to.push(VERSION);
        }
        match self {
            Self::Session(_, session) => put_session(to, session),
            Self::Subscription(_, subscription) => {
                put_id(to, subscription.session);
                to.push(subscription.options);
                put_number(to, subscription.subscription_id.map_or(0, |id| u64::from(id.get())));
                to.extend_from_slice(subscription.filter.as_bytes());
            }
            Self::Body(_, message) => put_body(to, message),
            Self::Retained { author, .. } => put_author(to, author.as_deref()),
            Self::Reference(_, reference) => put_reference(to, reference),
            Self::Inbound { session, packet_id, .. } => {
                put_id(to, *session);
                put_number(to, u64::from(packet_id.get()));
            }
            Self::Delete(_) => {}
        }
    }

    /// The record that has this identifier, kind and payload, and that body as its parent, if it has one.
    ///
    /// # Errors
    /// It is none, or none that this version knows.
    pub fn decode(id: RecordId, kind: u8, parent: Option<RecordId>, payload: &[u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::behind_version(kind, payload)?;
        let record = fields.record(id, kind, parent).ok_or(PayloadError::Malformed)?;
        if fields.0.is_empty() {
            Ok(record)
        } else {
            Err(PayloadError::Malformed)
        }
    }
}

/// A flag for each of these, from the lowest bit.
fn bits<const N: usize>(flags: [bool; N]) -> u8 {
    flags.into_iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(flag))
}

/// QoS in the lower two bits, flags above them.
fn qos_bits<const N: usize>(qos: QoS, flags: [bool; N]) -> u8 {
    bits(flags) << 2 | qos as u8
}

fn put_number(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn put_id(to: &mut Vec<u8>, id: RecordId) {
    put_number(to, id.0 >> RecordId::COUNT_BITS);
    put_number(to, id.0 & RecordId::COUNT);
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn put_session(to: &mut Vec<u8>, session: &SessionRecord) {
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
    to.push(bits([
        username.is_some(),
        *vouched,
        *granted,
        *own_rules,
        disconnected_at.is_some(),
        will.is_some(),
    ]));
    put_bytes(to, client_id.as_bytes());
    if let Some(username) = username {
        put_bytes(to, username.as_bytes());
    }
    put_number(to, u64::from(listener.0));
    put_number(to, u64::from(*expiry_interval));
    if let Some(at) = disconnected_at {
        put_number(to, at.as_millis());
    }
    if let Some(will) = will {
        let OwnedWill {
            topic,
            properties,
            payload,
            qos,
            retain,
            delay,
            message_expiry_interval,
        } = will;
        to.push(qos_bits(*qos, [*retain, message_expiry_interval.is_some()]));
        put_number(to, u64::from(*delay));
        if let Some(seconds) = message_expiry_interval {
            put_number(to, u64::from(*seconds));
        }
        put_bytes(to, topic.as_bytes());
        put_bytes(to, properties);
        to.extend_from_slice(payload);
    }
}

fn put_body(to: &mut Vec<u8>, message: &Message) {
    let expires = message.expires_at != UnixMillis::NEVER;
    to.push(qos_bits(message.qos, [message.retain, expires]));
    to.extend_from_slice(&message.origin.0.to_le_bytes());
    if expires {
        put_number(to, message.expires_at.as_millis());
    }
    put_bytes(to, message.topic().as_bytes());
    put_number(to, u64::from(message.properties_len()));
    to.extend_from_slice(message.stored());
}

fn put_author(to: &mut Vec<u8>, author: Option<&Author>) {
    let Some(author) = author else {
        return to.push(0);
    };
    let (username, client_id) = (author.username.as_deref(), author.client_id.as_deref());
    to.push(bits([true, author.vouched, username.is_some(), client_id.is_some()]));
    put_number(to, u64::from(author.listener.0));
    for text in [username, client_id].into_iter().flatten() {
        put_bytes(to, text.as_bytes());
    }
}

fn put_reference(to: &mut Vec<u8>, reference: &Reference) {
    let (sent, released) = match reference.state {
        ReferenceState::Queued => (None, None),
        ReferenceState::Sent(packet_id) => (Some(packet_id), None),
        ReferenceState::Released(packet_id) => (None, Some(packet_id)),
    };
    to.push(qos_bits(
        reference.qos,
        [
            reference.retain,
            sent.is_some(),
            released.is_some(),
            reference.share.is_some(),
        ],
    ));
    put_id(to, reference.session);
    if let Some(packet_id) = sent.or(released) {
        put_number(to, u64::from(packet_id.get()));
    }
    if let Some((name, filter)) = reference.share.as_deref() {
        put_bytes(to, name.as_bytes());
        put_bytes(to, filter.as_bytes());
    }
    for id in &reference.subscription_ids {
        put_number(to, u64::from(id.get()));
    }
}

/// What is left of a payload.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn behind_version(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let (&version, fields) = payload.split_first().ok_or(PayloadError::Malformed)?;
        if version > VERSION || kind > Record::INBOUND {
            return Err(PayloadError::Newer);
        }
        Ok(Self(fields))
    }

    fn belongs(&mut self, kind: u8) -> Option<Belongs<'a>> {
        Some(match kind {
            Record::SESSION => {
                self.byte()?;
                Belongs::ToClient(self.utf8()?)
            }
            Record::BODY => {
                let (_, [_, expires]) = self.qos_and_flags()?;
                self.0 = self.0.get(size_of::<Origin>()..)?;
                if expires {
                    self.moment()?;
                }
                Belongs::ToTopic(self.utf8()?)
            }
            Record::RETAINED => Belongs::ToBody,
            Record::REFERENCE => {
                self.byte()?;
                Belongs::ToSession(self.id()?)
            }
            Record::SUBSCRIPTION | Record::INBOUND => Belongs::ToSession(self.id()?),
            _ => return None,
        })
    }

    fn record(&mut self, id: RecordId, kind: u8, parent: Option<RecordId>) -> Option<Record> {
        Some(match (kind, parent) {
            (Record::SESSION, None) => Record::Session(id, Box::new(self.session()?)),
            (Record::SUBSCRIPTION, None) => Record::Subscription(
                id,
                Box::new(SubscriptionRecord {
                    session: self.id()?,
                    options: self.byte()?,
                    subscription_id: match self.number()? {
                        0 => None,
                        number => Some(SubscriptionId::new(number.try_into().ok()?)?),
                    },
                    filter: core::str::from_utf8(self.rest()).ok()?.into(),
                }),
            ),
            (Record::BODY, None) => Record::Body(id, Rc::new(self.body()?)),
            (Record::RETAINED, Some(body)) => Record::Retained {
                id,
                body,
                author: self.author()?,
            },
            (Record::REFERENCE, body) => Record::Reference(id, self.reference(body)?),
            (Record::INBOUND, None) => Record::Inbound {
                id,
                session: self.id()?,
                packet_id: self.packet_id()?,
            },
            _ => return None,
        })
    }

    fn session(&mut self) -> Option<SessionRecord> {
        let [named, vouched, granted, own_rules, is_away, willing] = self.flags()?;
        Some(SessionRecord {
            client_id: self.text()?,
            username: if named { Some(self.text()?) } else { None },
            vouched,
            granted,
            own_rules,
            listener: self.listener()?,
            expiry_interval: self.number32()?,
            disconnected_at: if is_away { Some(self.moment()?) } else { None },
            will: if willing { Some(self.will()?) } else { None },
        })
    }

    fn will(&mut self) -> Option<OwnedWill> {
        let (qos, [retain, expires]) = self.qos_and_flags()?;
        Some(OwnedWill {
            qos,
            retain,
            delay: self.number32()?,
            message_expiry_interval: if expires { Some(self.number32()?) } else { None },
            topic: self.text()?,
            properties: self.bytes()?.to_vec(),
            payload: self.rest().to_vec(),
        })
    }

    fn body(&mut self) -> Option<Message> {
        let (qos, [retain, expires]) = self.qos_and_flags()?;
        let (origin, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        let expires_at = if expires { self.moment()? } else { UnixMillis::NEVER };
        let topic = self.utf8()?;
        let properties_len = self.number32()?;
        let stored = self.rest();
        stored.get(..properties_len as usize)?;
        let mut message = Message::empty();
        message.put(topic, stored, properties_len);
        message.qos = qos;
        message.retain = retain;
        message.origin = Origin(u64::from_le_bytes(*origin));
        message.expires_at = expires_at;
        Some(message)
    }

    #[expect(
        clippy::option_option,
        reason = "the outer one is that of all fields: there is one, or it is malformed"
    )]
    fn author(&mut self) -> Option<Option<Box<Author>>> {
        let [known, vouched, named, personal] = self.flags()?;
        if !known {
            return (!vouched && !named && !personal).then_some(None);
        }
        let listener = self.listener()?;
        Some(Some(Box::new(Author {
            username: if named { Some(self.text()?.into()) } else { None },
            vouched,
            client_id: if personal { Some(self.text()?.into()) } else { None },
            listener,
        })))
    }

    fn reference(&mut self, body: Option<RecordId>) -> Option<Reference> {
        let (qos, [retain, is_sent, is_released, is_shared]) = self.qos_and_flags()?;
        let session = self.id()?;
        let state = match (is_sent, is_released) {
            (false, false) => ReferenceState::Queued,
            (true, false) => ReferenceState::Sent(self.packet_id()?),
            (false, true) => ReferenceState::Released(self.packet_id()?),
            (true, true) => return None,
        };
        let share = if is_shared {
            Some(Box::new((self.text()?, self.text()?)))
        } else {
            None
        };
        let mut subscription_ids = Vec::new();
        while !self.0.is_empty() {
            subscription_ids.push(SubscriptionId::new(self.number32()?)?);
        }
        Some(Reference {
            session,
            body,
            qos,
            retain,
            subscription_ids: subscription_ids.into(),
            share,
            state,
        })
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn flags<const N: usize>(&mut self) -> Option<[bool; N]> {
        flags_of(self.byte()?)
    }

    fn qos_and_flags<const N: usize>(&mut self) -> Option<(QoS, [bool; N])> {
        let byte = self.byte()?;
        Some((QoS::from_bits(byte & 3)?, flags_of(byte >> 2)?))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part > u64::MAX >> shift {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn number32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn moment(&mut self) -> Option<UnixMillis> {
        self.number().map(UnixMillis::from_millis)
    }

    fn listener(&mut self) -> Option<ListenerId> {
        Some(ListenerId(self.number()?.try_into().ok()?))
    }

    fn packet_id(&mut self) -> Option<PacketId> {
        PacketId::new(self.number()?.try_into().ok()?)
    }

    fn id(&mut self) -> Option<RecordId> {
        let (shard, count) = (self.number()?, self.number()?);
        let is_one = shard <= u64::MAX >> RecordId::COUNT_BITS && count <= RecordId::COUNT;
        is_one.then_some(RecordId(shard << RecordId::COUNT_BITS | count))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?.try_into().ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn utf8(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.bytes()?).ok()
    }

    fn text(&mut self) -> Option<String> {
        self.utf8().map(String::from)
    }

    fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
}

/// Flags from the lowest bit; `None`: there are more than these.
fn flags_of<const N: usize>(mut bits: u8) -> Option<[bool; N]> {
    let flags = core::array::from_fn(|_| {
        let flag = bits & 1 == 1;
        bits >>= 1;
        flag
    });
    (bits == 0).then_some(flags)
}

#[cfg(test)]
mod tests;
