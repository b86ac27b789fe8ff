//! UNSUBSCRIBE (section 3.10).

use core::{fmt, slice};

use super::subscribe::split_filter;
use crate::decode::Context;
use crate::encode::{Body, Section, Sink, encodable};
use crate::primitive::{Parsed, fail, packet_id, topic_filter};
use crate::property::Holder;
use crate::property::parse::section;
use crate::{DecodeErrorKind, PacketId, PacketType, ProtocolVersion, TopicFilter, UserProperties};

/// UNSUBSCRIBE: a client ends one or more of its Subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Comes back in the UNSUBACK.
    pub packet_id: PacketId,
    /// Always empty on 3.x.
    pub user_properties: UserProperties<'a>,
    /// One or more.
    pub filters: Filters<'a>,
}

/// The Topic Filters of an UNSUBSCRIBE, in order; on the wire never none.
#[derive(Clone, Copy)]
pub struct Filters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked payload and how many filters it holds.
    Payload(&'a [u8], usize),
    Slice(&'a [TopicFilter<'a>]),
}

impl<'a> Filters<'a> {
    /// Those of a slice.
    #[must_use]
    pub const fn from_slice(filters: &'a [TopicFilter<'a>]) -> Self {
        Self(Source::Slice(filters))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Source::Payload(_, count) => count,
            Source::Slice(filters) => filters.len(),
        }
    }

    /// Whether there is none, which no decoded packet has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The filters in order.
    #[must_use]
    pub fn iter(&self) -> FiltersIter<'a> {
        FiltersIter(match self.0 {
            Source::Payload(payload, _) => IterSource::Payload(payload),
            Source::Slice(filters) => IterSource::Slice(filters.iter()),
        })
    }
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Filters<'_> {}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &Filters<'a> {
    type Item = TopicFilter<'a>;
    type IntoIter = FiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The Topic Filters of an [`Unsubscribe`].
#[derive(Clone)]
pub struct FiltersIter<'a>(IterSource<'a>);

#[derive(Clone)]
enum IterSource<'a> {
    Payload(&'a [u8]),
    Slice(slice::Iter<'a, TopicFilter<'a>>),
}

impl<'a> Iterator for FiltersIter<'a> {
    type Item = TopicFilter<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterSource::Payload(payload) => {
                let (filter, rest) = split_filter(payload)?;
                *payload = rest;
                Some(filter)
            }
            IterSource::Slice(filters) => filters.next().copied(),
        }
    }
}

impl fmt::Debug for FiltersIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl Section for UserProperties<'_> {
    fn write(&self, out: &mut impl Sink) {
        UserProperties::write(self, out);
    }
}

impl Body for Unsubscribe<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Unsubscribe.first_byte()
    }

    fn write(&self, version: ProtocolVersion, out: &mut impl Sink) {
        out.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            out.put_section(&self.user_properties);
        }
        for filter in self.filters.iter() {
            out.put_str(filter.as_str());
        }
    }
}

encodable!(Unsubscribe<'_>);

pub(crate) fn parse<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, Unsubscribe<'a>> {
    let (rest, packet_id) = packet_id(input)?;
    let (payload, user_properties) = user_properties(rest, context)?;
    let (mut rest, mut count) = (payload, 0_usize);
    while !rest.is_empty() {
        (rest, _) = topic_filter(rest, context.limits)?;
        count = count.saturating_add(1);
    }
    if count == 0 {
        return Err(fail(payload, DecodeErrorKind::NoTopicFilter));
    }
    Ok((
        rest,
        Unsubscribe {
            packet_id,
            user_properties,
            filters: Filters(Source::Payload(payload, count)),
        },
    ))
}

fn user_properties<'a>(input: &'a [u8], context: Context<'_>) -> Parsed<'a, UserProperties<'a>> {
    if !context.is_v5() {
        return Ok((input, UserProperties::default()));
    }
    let holder = Holder::Packet(PacketType::Unsubscribe);
    let (rest, checked) = section(input, holder, context.limits.direction, |_, _| {})?;
    Ok((rest, checked.user_properties()))
}
