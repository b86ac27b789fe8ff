//! Mosquitto's database as it lies in the file: formats 5 and 6.
//!
//! Behind a magic number, a checksum that is always 0 and the version come chunks: kind and length, fields in network byte
//! order, then what has a length of its own. What Mosquitto has as 64 bits is in the byte order of the machine that wrote
//! it. Alignment has left gaps behind some fields.

use sol_codec::{QoS, SubscriptionId, TopicFilter, TopicName};

use crate::store::lines::checked_properties;

const MAGIC: &[u8; 15] = b"\0\xB5\0mosquitto db";
const HEADER: usize = MAGIC.len() + 8;

/// Kinds of chunks.
const CONFIGURATION: u32 = 1;
const MESSAGE: u32 = 2;
const OWED: u32 = 3;
const RETAINED: u32 = 4;
const SUBSCRIPTION: u32 = 5;
const CLIENT: u32 = 6;

/// What is in a database.
#[derive(Debug, Default)]
pub(super) struct Database<'a> {
    pub(super) clients: Vec<Client<'a>>,
    pub(super) subscriptions: Vec<Subscription<'a>>,
    pub(super) messages: Vec<Message<'a>>,
    pub(super) owed: Vec<Owed<'a>>,
    pub(super) retained: Vec<u64>,
    is_old: bool,
    is_big_endian: bool,
}

#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) client_id: &'a str,
    /// It may be that of another client and then more: Mosquitto 2.0 forgot to begin anew where there is none.
    pub(super) username: Option<&'a [u8]>,
    /// Seconds since 1970; 0 or less where it does not expire.
    pub(super) expires_at: i64,
    pub(super) expiry_interval: u32,
}

#[derive(Debug)]
pub(super) struct Subscription<'a> {
    pub(super) client_id: &'a str,
    pub(super) filter: &'a str,
    pub(super) qos: QoS,
    /// Subscription Options without QoS.
    pub(super) options: u8,
    pub(super) identifier: Option<SubscriptionId>,
}

#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) id: u64,
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    /// Those that are passed on, as they are stored.
    pub(super) properties: Vec<u8>,
    /// Who published it; empty where that was the broker.
    pub(super) source: &'a str,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Seconds since 1970; 0 or less where it does not expire.
    pub(super) expires_at: i64,
}

/// A message on its way to a client, or from one.
#[derive(Debug)]
pub(super) struct Owed<'a> {
    pub(super) client_id: &'a str,
    pub(super) message: u64,
    pub(super) packet_id: u16,
    pub(super) qos: QoS,
    pub(super) state: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) is_inbound: bool,
    pub(super) identifier: Option<SubscriptionId>,
}

/// Where a file is damaged, and how.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) text: &'static str,
}

/// Reads a file, as far as it is sound.
///
/// # Errors
/// In words: it is no database, or of a format that is not known.
pub(super) fn read(bytes: &[u8]) -> Result<(Database<'_>, Option<Fault>), String> {
    let mut file = Bytes(bytes);
    if file.take(MAGIC.len()) != Some(MAGIC) {
        return Err(if bytes.iter().all(|byte| *byte == 0) {
            "there is nothing in it but zeros: Mosquitto had lost it before, in a power cut perhaps".to_owned()
        } else {
            "it is no database of Mosquitto's".to_owned()
        });
    }
    let header = file.u32().and_then(|_| file.u32());
    let mut database = Database::default();
    match header {
        Some(5) => database.is_old = true,
        Some(6) => {}
        Some(version) => {
            return Err(format!(
                "it has format {version}, and only 5 and 6 are known; let Mosquitto 2.0 or 2.1 read and write it once"
            ));
        }
        None => return Err("it ends within its header".to_owned()),
    }
    let mut offset = HEADER;
    while !file.0.is_empty() {
        let fault = |text| Some(Fault { offset, text });
        let Some((kind, length)) = file.u32().and_then(|kind| Some((kind, file.u32()?))) else {
            return Ok((database, fault("it ends within a chunk's head")));
        };
        let Some(chunk) = file.take(length as usize) else {
            return Ok((database, fault("the chunk is longer than the file")));
        };
        if let Err(text) = database.chunk(kind, chunk) {
            return Ok((database, fault(text)));
        }
        offset = bytes.len() - file.0.len();
    }
    Ok((database, None))
}

impl<'a> Database<'a> {
    fn chunk(&mut self, kind: u32, chunk: &'a [u8]) -> Result<(), &'static str> {
        let mut chunk = Bytes(chunk);
        let is_read = match kind {
            CONFIGURATION => self.configuration(&mut chunk),
            MESSAGE => self.message(&mut chunk),
            OWED => self.owed(&mut chunk),
            RETAINED => {
                let id = self.wide(&mut chunk);
                id.map(|id| self.retained.push(id))
            }
            SUBSCRIPTION => self.subscription(&mut chunk),
            CLIENT => self.client(&mut chunk),
            _ => return Err("there is no such kind of chunk"),
        };
        match is_read {
            Some(()) if chunk.0.is_empty() => Ok(()),
            _ => Err("the chunk's fields are not what its kind has"),
        }
    }

    /// A number in the byte order of whoever wrote the file.
    fn wide(&self, chunk: &mut Bytes<'a>) -> Option<u64> {
        let bytes = *chunk.take(8)?.first_chunk()?;
        Some(if self.is_big_endian {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        })
    }

    fn configuration(&mut self, chunk: &mut Bytes<'a>) -> Option<()> {
        let bytes = *chunk.take(8)?.first_chunk()?;
        // The number of the last message. They count up from 1, so it is far below 2^32 in the right byte order.
        self.is_big_endian = u64::from_be_bytes(bytes) < u64::from_le_bytes(bytes);
        let _was_shut_down = chunk.u8()?;
        let id_bytes = chunk.u8()?;
        chunk.take(6)?;
        (usize::from(id_bytes) == size_of::<u64>()).then_some(())
    }

    fn client(&mut self, chunk: &mut Bytes<'a>) -> Option<()> {
        let expires_at = self.wide(chunk)?.cast_signed();
        let expiry_interval = chunk.u32()?;
        let _last_packet_id = chunk.u16()?;
        let client_id = chunk.u16()?;
        let username = if self.is_old {
            0
        } else {
            let _port = chunk.u16()?;
            let username = chunk.u16()?;
            chunk.take(4)?;
            username
        };
        self.clients.push(Client {
            client_id: chunk.text(client_id).filter(|id| !id.is_empty())?,
            username: if username == 0 {
                None
            } else {
                Some(chunk.take(usize::from(username))?)
            },
            expires_at,
            expiry_interval,
        });
        Some(())
    }

    fn message(&mut self, chunk: &mut Bytes<'a>) -> Option<()> {
        let id = self.wide(chunk)?;
        let expires_at = self.wide(chunk)?.cast_signed();
        let payload = chunk.u32()?;
        let _source_packet_id = chunk.u16()?;
        let source = chunk.u16()?;
        let source_username = chunk.u16()?;
        let topic = chunk.u16()?;
        let _source_port = chunk.u16()?;
        let qos = QoS::from_bits(chunk.u8()?)?;
        let retain = chunk.u8()? != 0;
        let source = chunk.text(source)?;
        chunk.take(usize::from(source_username))?;
        let topic = chunk.text(topic)?;
        TopicName::new(topic).ok()?;
        let payload = chunk.take(payload as usize)?;
        let properties = checked_properties(topic, chunk.properties()?)?;
        self.messages.push(Message {
            id,
            topic,
            payload,
            properties,
            source,
            qos,
            retain,
            expires_at,
        });
        Some(())
    }

    fn owed(&mut self, chunk: &mut Bytes<'a>) -> Option<()> {
        let message = self.wide(chunk)?;
        let packet_id = chunk.u16()?;
        let client_id = chunk.u16()?;
        let qos = QoS::from_bits(chunk.u8()?)?;
        let state = chunk.u8()?;
        let flags = chunk.u8()?;
        let direction = chunk.u8()?;
        let client_id = chunk.text(client_id)?;
        let mut properties = Bytes(chunk.properties()?);
        let mut identifier = None;
        if !properties.0.is_empty() {
            // A Subscription Identifier is all that a message has for one client alone.
            (properties.u8()? == 0x0B).then_some(())?;
            identifier = Some(SubscriptionId::new(properties.variable()?)?);
            properties.0.is_empty().then_some(())?;
        }
        self.owed.push(Owed {
            client_id,
            message,
            packet_id,
            qos,
            state,
            retain: flags >> 4 != 0,
            dup: flags & 0x0F != 0,
            is_inbound: match direction {
                0 => true,
                1 => false,
                _ => return None,
            },
            identifier,
        });
        Some(())
    }

    fn subscription(&mut self, chunk: &mut Bytes<'a>) -> Option<()> {
        let identifier = chunk.u32()?;
        let client_id = chunk.u16()?;
        let filter = chunk.u16()?;
        let qos = QoS::from_bits(chunk.u8()?)?;
        let options = chunk.u8()?;
        chunk.take(2)?;
        let client_id = chunk.text(client_id)?;
        let filter = chunk.text(filter)?;
        TopicFilter::new(filter).ok()?;
        self.subscriptions.push(Subscription {
            client_id,
            filter,
            qos,
            options,
            identifier: match identifier {
                0 => None,
                identifier => Some(SubscriptionId::new(identifier)?),
            },
        });
        Some(())
    }
}

/// What is left of a file or a chunk.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.take(4)?.first_chunk()?))
    }

    fn text(&mut self, length: u16) -> Option<&'a str> {
        let text = std::str::from_utf8(self.take(usize::from(length))?).ok()?;
        (!text.contains('\0')).then_some(text)
    }

    /// A Variable Byte Integer.
    fn variable(&mut self) -> Option<u32> {
        let mut number = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            number |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// All that is left, if that is Properties behind their length. There may be none at all.
    fn properties(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return Some(&[]);
        }
        let length = self.variable()?;
        self.take(length as usize)
    }
}
