//! The Properties that a Server passes on unchanged with an Application Message.

use core::fmt;

use bytes::BufMut;

use super::{PropertyId, RawProperties, RawProperty, raw_text};
use crate::encode::{Buffer, Sink};
use crate::property::user::UserProperties;

/// Payload Format Indicator, Content Type, Response Topic, Correlation Data and User Properties of a PUBLISH or a
/// Will, in the order in which they came: what a Server forwards without change [MQTT-3.3.2-4], [MQTT-3.3.2-15],
/// [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20].
///
/// They stay in their wire form, because most brokers never look into them: storing and forwarding is one copy.
#[derive(Clone, Copy, Default)]
pub struct ApplicationProperties<'a> {
    /// The whole Property section; other kinds in it are passed over.
    section: &'a [u8],
    /// How many bytes of the section are ours.
    len: usize,
}

impl<'a> ApplicationProperties<'a> {
    /// Takes bytes that [`write_to`](Self::write_to) or an [`ApplicationPropertiesBuilder`] produced. They are not
    /// checked: on other bytes the accessors end early, and what is written is what was given.
    #[inline]
    #[must_use]
    pub const fn from_stored(bytes: &'a [u8]) -> Self {
        Self {
            section: bytes,
            len: bytes.len(),
        }
    }

    #[inline]
    pub(crate) const fn from_section(section: &'a [u8], len: usize) -> Self {
        Self { section, len }
    }

    /// Whether the payload is announced to be UTF-8 text; `None` when nothing is announced.
    #[must_use]
    pub fn payload_format_indicator(&self) -> Option<bool> {
        self.find(PropertyId::PayloadFormatIndicator)?
            .first()
            .map(|value| *value == 1)
    }

    /// The Content Type.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        raw_text(self.find(PropertyId::ContentType)?)
    }

    /// The Response Topic; decoding checks that it is a Topic Name.
    #[must_use]
    pub fn response_topic(&self) -> Option<&'a str> {
        raw_text(self.find(PropertyId::ResponseTopic)?)
    }

    /// The Correlation Data.
    #[must_use]
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.find(PropertyId::CorrelationData)?.get(2..)
    }

    /// The User Properties.
    #[must_use]
    pub fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::from_section(self.section)
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes [`write_to`](Self::write_to) appends.
    #[inline]
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        self.len
    }

    /// Appends these Properties in their wire form, in order, without a length before them.
    pub fn write_to(&self, out: &mut impl BufMut) {
        self.write(&mut Buffer(out));
    }

    #[inline]
    pub(crate) fn write(&self, out: &mut impl Sink) {
        if self.len == self.section.len() {
            out.put_slice(self.section);
        } else {
            self.properties().for_each(|property| out.put_slice(property.whole));
        }
    }

    fn properties(&self) -> impl Iterator<Item = RawProperty<'a>> + use<'a> {
        RawProperties(self.section).filter(|property| property.id.is_application())
    }

    fn find(&self, id: PropertyId) -> Option<&'a [u8]> {
        self.properties()
            .find(|property| property.id == id)
            .map(|property| property.value)
    }
}

/// Equal when the same Properties stand in the same order, whatever else stood between them.
impl PartialEq for ApplicationProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.properties()
            .map(|property| property.whole)
            .eq(other.properties().map(|property| property.whole))
    }
}

impl Eq for ApplicationProperties<'_> {}

impl fmt::Debug for ApplicationProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationProperties")
            .field("payload_format_indicator", &self.payload_format_indicator())
            .field("content_type", &self.content_type())
            .field("response_topic", &self.response_topic())
            .field("correlation_data", &self.correlation_data())
            .field("user_properties", &self.user_properties())
            .finish()
    }
}

/// Writes [`ApplicationProperties`] from typed fields into a buffer of the caller's.
///
/// ```
/// use sol_codec::{ApplicationProperties, ApplicationPropertiesBuilder};
///
/// let mut stored = Vec::new();
/// ApplicationPropertiesBuilder::new(&mut stored).content_type("text/plain").user_property("room", "kitchen");
/// let properties = ApplicationProperties::from_stored(&stored);
/// assert_eq!(properties.content_type(), Some("text/plain"));
/// ```
#[derive(Debug)]
pub struct ApplicationPropertiesBuilder<'b, B>(Buffer<'b, B>);

impl<'b, B: BufMut> ApplicationPropertiesBuilder<'b, B> {
    /// Starts to append to `out`.
    pub const fn new(out: &'b mut B) -> Self {
        Self(Buffer(out))
    }

    /// Appends a Payload Format Indicator. Call it once at most.
    pub fn payload_format_indicator(mut self, is_utf8: bool) -> Self {
        self.0.put_u8(PropertyId::PayloadFormatIndicator.value());
        self.0.put_u8(u8::from(is_utf8));
        self
    }

    /// Appends a Content Type. Call it once at most.
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.0.put_u8(PropertyId::ContentType.value());
        self.0.put_str(content_type);
        self
    }

    /// Appends a Response Topic. Call it once at most.
    pub fn response_topic(mut self, topic: crate::TopicName<'_>) -> Self {
        self.0.put_u8(PropertyId::ResponseTopic.value());
        self.0.put_str(topic.as_str());
        self
    }

    /// Appends Correlation Data. Call it once at most.
    pub fn correlation_data(mut self, data: &[u8]) -> Self {
        self.0.put_u8(PropertyId::CorrelationData.value());
        self.0.put_binary(data);
        self
    }

    /// Appends a User Property; as often as you like.
    pub fn user_property(mut self, name: &str, value: &str) -> Self {
        self.0.put_u8(PropertyId::UserProperty.value());
        self.0.put_str(name);
        self.0.put_str(value);
        self
    }
}
