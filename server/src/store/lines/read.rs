//! From a line to a record. What is wrong with one is told in words, and nothing is taken that the broker could not use.

use std::rc::Rc;

use base64ct::{Base64, Encoding as _};
use serde_json::{Map, Value};
use sol_codec::{ApplicationProperties, PacketId, QoS, SubscriptionId, TopicFilter, TopicName};
use sol_engine::{
    Author, ListenerId, Message, Origin, OwnedWill, Record, RecordId, Reference, ReferenceState, SessionRecord,
    SubscriptionRecord, UnixMillis,
};
use sol_transport::About;

use super::{FORMAT, NO_LOCAL, QOS, RETAIN_AS_PUBLISHED, VERSION, checked_properties};

/// What the first line says.
///
/// # Errors
/// In words: it is not the first line of such a file.
pub(in crate::store) fn head(line: &str) -> Result<About, String> {
    let mut fields = Fields::parse(line)?;
    if fields.text("format")? != FORMAT {
        return Err("the first line must be the one that `sol store export` writes".to_owned());
    }
    match fields.number("version")? {
        VERSION => {}
        version => {
            return Err(format!(
                "it has version {version}: a later version of this program wrote it"
            ));
        }
    }
    let seeds: Vec<u64> = fields
        .texts("seeds")?
        .iter()
        .map(|seed| hex("seeds", seed))
        .collect::<Result<_, _>>()?;
    let about = About {
        seeds: seeds.try_into().map_err(|_| "`seeds` must be four".to_owned())?,
        listeners: fields.texts("listeners")?,
    };
    if about.listeners.iter().any(|name| name.contains(char::is_control)) {
        return Err("a listener's name has a control character in it".to_owned());
    }
    fields.end()?;
    Ok(about)
}

/// The record that a line is.
///
/// # Errors
/// In words: it is none, or none that the broker could use.
pub(in crate::store) fn read(line: &str, about: &About) -> Result<Record, String> {
    let mut fields = Fields::parse(line)?;
    let kind = fields.text("record")?;
    let id = fields.id("id")?;
    let record = match kind.as_str() {
        "session" => Record::Session(id, Box::new(session(&mut fields, about)?)),
        "subscription" => Record::Subscription(id, Box::new(subscription(&mut fields)?)),
        "message" => Record::Body(id, Rc::new(message(&mut fields)?)),
        "retained" => Record::Retained {
            id,
            body: fields.id("message")?,
            author: author(&mut fields, about)?,
        },
        "reference" => Record::Reference(id, reference(&mut fields)?),
        "inbound" => Record::Inbound {
            id,
            session: fields.id("session")?,
            packet_id: fields.packet_id("packet_id")?,
        },
        other => return Err(format!("there is no record `{other}`")),
    };
    fields.end()?;
    Ok(record)
}

fn session(fields: &mut Fields, about: &About) -> Result<SessionRecord, String> {
    Ok(SessionRecord {
        client_id: fields.text("client_id")?,
        username: fields.maybe_text("username")?,
        vouched: fields.flag("vouched")?,
        granted: fields.flag("granted")?,
        own_rules: fields.flag("own_rules")?,
        listener: fields.listener(about)?,
        expiry_interval: fields.number32("session_expiry_interval")?,
        disconnected_at: fields.maybe_number("disconnected_at")?.map(UnixMillis::from_millis),
        will: fields.maybe_object("will")?.map(will).transpose()?,
    })
}

fn will(mut fields: Fields) -> Result<OwnedWill, String> {
    let topic = fields.topic()?;
    let will = OwnedWill {
        properties: fields.properties(&topic)?,
        payload: fields.bytes("payload")?,
        qos: fields.qos()?,
        retain: fields.flag("retain")?,
        delay: fields.maybe_number32("will_delay_interval")?.unwrap_or_default(),
        message_expiry_interval: fields.maybe_number32("message_expiry_interval")?,
        topic,
    };
    fields.end()?;
    Ok(will)
}

fn subscription(fields: &mut Fields) -> Result<SubscriptionRecord, String> {
    let filter = fields.text("filter")?;
    let is_shared = TopicFilter::new(&filter)
        .map_err(|error| format!("`filter` is no Topic Filter: {error}"))?
        .shared()
        .is_some();
    let mut options = fields.qos()? as u8;
    if fields.flag("no_local")? {
        options |= NO_LOCAL;
    }
    if fields.flag("retain_as_published")? {
        options |= RETAIN_AS_PUBLISHED;
    }
    match fields.maybe_number("retain_handling")?.unwrap_or_default() {
        handling @ 0..=2 => options |= (handling as u8) << 4,
        _ => return Err("`retain_handling` must be 0, 1 or 2".to_owned()),
    }
    if fields.flag("replays_retained")? {
        if is_shared || options & QOS == 0 {
            return Err("`replays_retained` has no place at QoS 0, nor in a Shared Subscription".to_owned());
        }
        options |= SubscriptionRecord::REPLAYS;
    }
    let subscription_id = fields.maybe_number("subscription_identifier")?;
    Ok(SubscriptionRecord {
        session: fields.id("session")?,
        filter,
        options,
        subscription_id: subscription_id.map(subscription_identifier).transpose()?,
    })
}

fn message(fields: &mut Fields) -> Result<Message, String> {
    let topic = fields.topic()?;
    let properties = fields.properties(&topic)?;
    let mut message = Message::empty();
    let properties = ApplicationProperties::from_stored(&properties);
    message.fill(&topic, properties, &fields.bytes("payload")?);
    message.qos = fields.qos()?;
    message.retain = fields.flag("retain")?;
    message.origin = match fields.maybe_text("origin")? {
        Some(origin) => Origin(hex("origin", &origin)?),
        None => Origin::BROKER,
    };
    if let Some(at) = fields.maybe_number("expires_at")? {
        message.expires_at = UnixMillis::from_millis(at);
    }
    Ok(message)
}

fn author(fields: &mut Fields, about: &About) -> Result<Option<Box<Author>>, String> {
    let Some(mut fields) = fields.maybe_object("author")? else {
        return Ok(None);
    };
    let author = Author {
        listener: fields.listener(about)?,
        username: fields.maybe_text("username")?.map(String::into_boxed_str),
        vouched: fields.flag("vouched")?,
        client_id: fields.maybe_text("client_id")?.map(String::into_boxed_str),
    };
    fields.end()?;
    Ok(Some(Box::new(author)))
}

fn reference(fields: &mut Fields) -> Result<Reference, String> {
    let state = match fields.text("state")?.as_str() {
        "queued" => ReferenceState::Queued,
        "sent" => ReferenceState::Sent(fields.packet_id("packet_id")?),
        "released" => ReferenceState::Released(fields.packet_id("packet_id")?),
        other => return Err(format!("there is no state `{other}`")),
    };
    let ids = fields.maybe_numbers("subscription_identifiers")?;
    let share = match fields.maybe_text("share")? {
        None => None,
        Some(share) => {
            let shared = TopicFilter::new(&share).ok().and_then(TopicFilter::shared);
            let (name, filter) = shared.ok_or_else(|| format!("`{share}` is no Shared Subscription"))?;
            Some(Box::new((name.as_str().to_owned(), filter.as_str().to_owned())))
        }
    };
    let reference = Reference {
        share,
        session: fields.id("session")?,
        body: fields.maybe_id("message")?,
        qos: fields.qos()?,
        retain: fields.flag("retain")?,
        subscription_ids: ids.into_iter().map(subscription_identifier).collect::<Result<_, _>>()?,
        state,
    };
    match (reference.state, reference.body, reference.qos) {
        (_, _, QoS::AtMostOnce) => Err("a message of QoS 0 is owed to nobody".to_owned()),
        (ReferenceState::Released(_), None, QoS::ExactlyOnce) => Ok(reference),
        (ReferenceState::Released(_), ..) => Err("what is released has QoS 2 and no message any more".to_owned()),
        (_, None, _) => Err("`message` is missing".to_owned()),
        _ => Ok(reference),
    }
}

fn subscription_identifier(number: u64) -> Result<SubscriptionId, String> {
    let id = u32::try_from(number).ok().and_then(SubscriptionId::new);
    id.ok_or_else(|| format!("{number} is no Subscription Identifier"))
}

fn hex(name: &str, text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("`{name}` must be hexadecimal, of 64 bits"))
}

/// The fields of an object that have not been taken yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn parse(line: &str) -> Result<Self, String> {
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err("it is no object".to_owned()),
            Err(error) => Err(format!("it is not JSON, from column {}", error.column())),
        }
    }

    /// Nothing may be left: what is not understood must not be lost silently.
    fn end(self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("`{name}` is not known, or has no place here")),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        what: &str,
        convert: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => convert(value)
                .map(Some)
                .ok_or_else(|| format!("`{name}` must be {what}")),
        }
    }

    fn maybe_text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.take(name, "a text", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        self.maybe_text(name)?.ok_or_else(|| missing(name))
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let texts = self.take(name, "a list of texts", |value| match value {
            Value::Array(values) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => Some(text),
                    _ => None,
                })
                .collect(),
            _ => None,
        })?;
        texts.ok_or_else(|| missing(name))
    }

    fn maybe_number(&mut self, name: &str) -> Result<Option<u64>, String> {
        self.take(name, "a number", |value| value.as_u64())
    }

    fn number(&mut self, name: &str) -> Result<u64, String> {
        self.maybe_number(name)?.ok_or_else(|| missing(name))
    }

    fn maybe_number32(&mut self, name: &str) -> Result<Option<u32>, String> {
        self.take(name, "a number of 32 bits", |value| value.as_u64()?.try_into().ok())
    }

    fn number32(&mut self, name: &str) -> Result<u32, String> {
        self.maybe_number32(name)?.ok_or_else(|| missing(name))
    }

    fn maybe_numbers(&mut self, name: &str) -> Result<Vec<u64>, String> {
        let numbers = self.take(name, "a list of numbers", |value| {
            value.as_array()?.iter().map(Value::as_u64).collect()
        })?;
        Ok(numbers.unwrap_or_default())
    }

    fn flag(&mut self, name: &str) -> Result<bool, String> {
        let flag = self.take(name, "true or false", |value| value.as_bool())?;
        Ok(flag.unwrap_or_default())
    }

    fn maybe_id(&mut self, name: &str) -> Result<Option<RecordId>, String> {
        self.take(name, "an identifier such as 0-17", |value| {
            let (shard, count) = value.as_str()?.split_once('-')?;
            let (shard, count) = (shard.parse::<u16>().ok()?, count.parse::<u64>().ok()?);
            // Far more than are ever given out, with room to go on behind it.
            let id = RecordId(u64::from(shard) << RecordId::COUNT_BITS | count);
            (1..RecordId::COUNT / 2).contains(&count).then_some(id)
        })
    }

    fn id(&mut self, name: &str) -> Result<RecordId, String> {
        self.maybe_id(name)?.ok_or_else(|| missing(name))
    }

    fn packet_id(&mut self, name: &str) -> Result<PacketId, String> {
        let id = self.take(name, "a number from 1 to 65535", |value| {
            PacketId::new(value.as_u64()?.try_into().ok()?)
        })?;
        id.ok_or_else(|| missing(name))
    }

    fn qos(&mut self) -> Result<QoS, String> {
        let qos = self.take("qos", "0, 1 or 2", |value| {
            QoS::from_bits(value.as_u64()?.try_into().ok()?)
        })?;
        qos.ok_or_else(|| missing("qos"))
    }

    fn topic(&mut self) -> Result<String, String> {
        let topic = self.text("topic")?;
        TopicName::new(&topic).map_err(|error| format!("`topic` is no Topic Name: {error}"))?;
        Ok(topic)
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let bytes = self.take(name, "Base64", |value| Base64::decode_vec(value.as_str()?).ok())?;
        Ok(bytes.unwrap_or_default())
    }

    fn properties(&mut self, topic: &str) -> Result<Vec<u8>, String> {
        let bytes = self.bytes("properties")?;
        match checked_properties(topic, &bytes) {
            Some(stored) if stored == bytes => Ok(bytes),
            _ => {
                Err("`properties` are not those that are passed on with a message, as MQTT 5.0 encodes them".to_owned())
            }
        }
    }

    fn listener(&mut self, about: &About) -> Result<ListenerId, String> {
        let listener = self.take("listener", "one of `listeners`, or a number", |value| {
            let number = match &value {
                Value::String(name) => about
                    .listeners
                    .iter()
                    .position(|other| other == name)?
                    .try_into()
                    .ok()?,
                value => value.as_u64()?.try_into().ok()?,
            };
            Some(ListenerId(number))
        })?;
        Ok(listener.unwrap_or_default())
    }

    fn maybe_object(&mut self, name: &str) -> Result<Option<Self>, String> {
        self.take(name, "an object", |value| match value {
            Value::Object(fields) => Some(Self(fields)),
            _ => None,
        })
    }
}

fn missing(name: &str) -> String {
    format!("`{name}` is missing")
}
