//! SUBSCRIBE (section 3.8).

use core::{fmt, slice};

use nom::number::complete::be_u8;

use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::mutants::mutant;
use crate::primitive::{Parsed, fail, packet_id, topic_filter};
use crate::property::parse::section;
use crate::property::{Holder, PropertyId, raw_text};
use crate::{DecodeErrorKind, PacketId, PacketType, ProtocolVersion, QoS, SubscriptionId, TopicFilter, UserProperties};

/// SUBSCRIBE: a client asks for one or more Subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Comes back in the SUBACK.
    pub packet_id: PacketId,
    /// Always empty on 3.x.
    pub properties: SubscribeProperties<'a>,
    /// One or more.
    pub filters: Subscriptions<'a>,
}

/// The Properties of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeProperties<'a> {
    /// The identifier of all Subscriptions in this packet.
    pub subscription_id: Option<SubscriptionId>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// What a client asks of a Subscription (section 3.8.3.1); on 3.x the QoS alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The largest QoS to deliver with.
    pub qos: QoS,
    /// Not to deliver what the client itself has published.
    pub no_local: bool,
    /// Whether RETAIN is delivered as it was published.
    pub retain_as_published: bool,
    /// Which retained messages to send at once.
    pub retain_handling: RetainHandling,
}

/// Which retained messages a new Subscription gets (section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// All that match.
    #[default]
    SendAtSubscribe = 0,
    /// All that match, if the Subscription did not exist before.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

impl RetainHandling {
    /// The value of the two bits; `None` for 3.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::SendAtSubscribe),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::DoNotSend),
            _ => None,
        }
    }
}

pub(super) const OPTION_NO_LOCAL: u8 = 0x04;
pub(super) const OPTION_RETAIN_AS_PUBLISHED: u8 = 0x08;
pub(super) const RETAIN_HANDLING_SHIFT: u8 = 4;

impl SubscriptionOptions {
    /// The options byte of that version; 3.x has room for the QoS only.
    fn bits(self, version: ProtocolVersion) -> u8 {
        if version < ProtocolVersion::V5 {
            return self.qos as u8;
        }
        self.qos as u8
            | if self.no_local { OPTION_NO_LOCAL } else { 0 }
            | if self.retain_as_published {
                OPTION_RETAIN_AS_PUBLISHED
            } else {
                0
            }
            | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT
    }

    /// The options that the byte stands for, reserved bits aside; `None` for a QoS or Retain Handling of 3.
    fn from_bits(bits: u8) -> Option<Self> {
        Some(Self {
            qos: QoS::from_bits(bits & 0x03)?,
            no_local: bits & OPTION_NO_LOCAL != 0,
            retain_as_published: bits & OPTION_RETAIN_AS_PUBLISHED != 0,
            retain_handling: RetainHandling::from_bits(bits >> RETAIN_HANDLING_SHIFT & 0x03)?,
        })
    }
}

/// A Topic Filter and what is asked of it.
pub type SubscriptionRequest<'a> = (TopicFilter<'a>, SubscriptionOptions);

/// The Subscriptions that a SUBSCRIBE asks for, in order; on the wire never none.
#[derive(Clone, Copy)]
pub struct Subscriptions<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked payload and how many Subscriptions it holds.
    Payload(&'a [u8], usize),
    Slice(&'a [SubscriptionRequest<'a>]),
}

impl<'a> Subscriptions<'a> {
    /// Those of a slice.
    #[must_use]
    pub const fn from_slice(requests: &'a [SubscriptionRequest<'a>]) -> Self {
        Self(Source::Slice(requests))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Source::Payload(_, count) => count,
            Source::Slice(requests) => requests.len(),
        }
    }

    /// Whether there is none, which no decoded packet has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The Subscriptions in order.
    #[must_use]
    pub fn iter(&self) -> SubscriptionsIter<'a> {
        SubscriptionsIter(match self.0 {
            Source::Payload(payload, _) => IterSource::Payload(payload),
            Source::Slice(requests) => IterSource::Slice(requests.iter()),
        })
    }
}

impl PartialEq for Subscriptions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Subscriptions<'_> {}

impl fmt::Debug for Subscriptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &Subscriptions<'a> {
    type Item = SubscriptionRequest<'a>;
    type IntoIter = SubscriptionsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The Subscriptions of a [`Subscribe`].
#[derive(Clone)]
pub struct SubscriptionsIter<'a>(IterSource<'a>);

#[derive(Clone)]
enum IterSource<'a> {
    Payload(&'a [u8]),
    Slice(slice::Iter<'a, SubscriptionRequest<'a>>),
}

impl<'a> Iterator for SubscriptionsIter<'a> {
    type Item = SubscriptionRequest<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterSource::Payload(payload) => {
                let (filter, rest) = split_filter(payload)?;
                let (&options, rest) = rest.split_first()?;
                *payload = rest;
                Some((filter, SubscriptionOptions::from_bits(options)?))
            }
            IterSource::Slice(requests) => requests.next().copied(),
        }
    }
}

impl fmt::Debug for SubscriptionsIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Takes a filter off the front of a checked payload.
pub(super) fn split_filter(payload: &[u8]) -> Option<(TopicFilter<'_>, &[u8])> {
    let len = u16::from_be_bytes(*payload.first_chunk()?);
    let (field, rest) = payload.split_at_checked(2 + usize::from(len))?;
    Some((TopicFilter::trusted(raw_text(field)?), rest))
}

impl Section for SubscribeProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        if let Some(id) = self.subscription_id {
            out.put_u8(PropertyId::SubscriptionIdentifier.value());
            out.put_var_int(id.get() as usize);
        }
        self.user_properties.write(out);
    }
}

impl Body for Subscribe<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Subscribe.first_byte()
    }

    fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
        out.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            out.put_section(&self.properties);
        }
        for (filter, options) in self.filters.iter() {
            out.put_str(filter.as_str());
            out.put_u8(options.bits(version));
        }
    }
}

encodable!(Subscribe<'_>);

pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, Subscribe<'a>> {
    let (rest, packet_id) = packet_id(input)?;
    let (payload, properties) = properties(rest, context)?;
    let (mut rest, mut count) = (payload, 0_usize);
    while !rest.is_empty() {
        (rest, _) = request(rest, context)?;
        count = count.saturating_add(1);
    }
    if count == 0 {
        return Err(fail(payload, DecodeErrorKind::NoTopicFilter));
    }
    Ok((
        rest,
        Subscribe {
            packet_id,
            properties,
            filters: Subscriptions(Source::Payload(payload, count)),
        },
    ))
}

fn properties<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, SubscribeProperties<'a>> {
    let mut properties = SubscribeProperties::default();
    if !context.is_v5() {
        return Ok((input, properties));
    }
    let holder = Holder::Packet(PacketType::Subscribe);
    let (rest, checked) = section(input, holder, context.limits.direction, |id, value| {
        if id == PropertyId::SubscriptionIdentifier {
            properties.subscription_id = value.subscription_id();
        }
    })?;
    properties.user_properties = checked.user_properties();
    Ok((rest, properties))
}

fn request<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, SubscriptionRequest<'a>> {
    let (at_options, filter) = topic_filter(input, context.limits)?;
    let (rest, bits) = be_u8(at_options)?;
    match options(bits, filter, context.version) {
        Ok(options) => Ok((rest, (filter, options))),
        Err(kind) => Err(fail(at_options, kind)),
    }
}

fn options(
    bits: u8,
    filter: TopicFilter<'_>,
    version: ProtocolVersion,
) -> Result<SubscriptionOptions, DecodeErrorKind> {
    let reserved = match version {
        ProtocolVersion::V5 if mutant("5.0/3.8.3-5") => 0,
        ProtocolVersion::V5 => 0xc0,
        ProtocolVersion::V31 | ProtocolVersion::V311 => 0xfc,
    };
    if bits & reserved != 0 {
        return Err(DecodeErrorKind::ReservedSubscriptionOptions);
    }
    if bits & 0x03 == 0x03 {
        return Err(DecodeErrorKind::InvalidSubscriptionQoS);
    }
    let options = SubscriptionOptions::from_bits(bits).ok_or(DecodeErrorKind::InvalidRetainHandling)?;
    let no_local_shared = options.no_local && filter.is_shared() && !mutant("5.0/3.8.3-4");
    if no_local_shared {
        Err(DecodeErrorKind::NoLocalOnSharedSubscription)
    } else {
        Ok(options)
    }
}
