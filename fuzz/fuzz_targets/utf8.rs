//! Strings: in every place where a packet has one, the bytes that are taken are those that the specification allows and
//! the standard library reads, and every other is refused for the right reason; what is too long is cut at a character.
//!
//! Input: the string.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sol_codec::{
    DecodeError, DecodeErrorKind, DecodeLimits, Decoded, Decoder, Disconnect, DisconnectProperties, Packet,
    ProtocolVersion, ReasonCode, TopicFilter, TopicName, decode,
};
use sol_fuzz::{encoded, naive};

fuzz_target!(|input: &[u8]| {
    let field = &input[..input.len().min(u16::MAX.into())];
    let text = std::str::from_utf8(field).ok();
    let valid = text.is_some_and(|text| !text.contains('\0'));
    assert_eq!(naive::is_utf8_encoded_string(field), valid, "the two twins disagree");

    for place in Place::ALL {
        let bytes = place.around(field);
        let read = read(&bytes);
        let allowed = text.filter(|_| valid).is_some_and(|text| place.allows(text));
        assert_eq!(read.is_ok(), allowed, "{place:?}: {read:?}");
        match read {
            Ok(packet) => assert_eq!(Some(place.text(&packet)), text, "{place:?}"),
            Err(error) => assert_eq!(is_of_text(error), !valid, "{place:?}: {error}"),
        }
        let mut decoder = Decoder::default();
        for _ in 0..2 {
            assert_eq!(
                decoder.decode(&bytes, VERSION, &limits()),
                decode(&bytes, VERSION, &limits()),
                "{place:?}"
            );
        }
    }
    if let Some(text) = text {
        assert_eq!(TopicName::new(text).is_ok(), naive::is_name(text));
        assert_eq!(TopicFilter::new(text).is_ok(), naive::is_filter(text));
    }
    if let Some(text) = text.filter(|_| valid) {
        is_cut_at_a_character(text);
    }
});

const VERSION: ProtocolVersion = ProtocolVersion::V5;

/// Where the string stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    ClientId,
    UserName,
    PropertyName,
    PropertyValue,
    ReasonString,
    ResponseTopic,
    TopicName,
    TopicFilter,
}

impl Place {
    const ALL: [Self; 8] = [
        Self::ClientId,
        Self::UserName,
        Self::PropertyName,
        Self::PropertyValue,
        Self::ReasonString,
        Self::ResponseTopic,
        Self::TopicName,
        Self::TopicFilter,
    ];

    /// A packet with the string in that place and nothing else to object to.
    fn around(self, field: &[u8]) -> Vec<u8> {
        let field = [&(field.len() as u16).to_be_bytes(), field].concat();
        match self {
            Self::ClientId => packet(0x10, &[b"\x00\x04MQTT\x05\x02\x00\x00\x00", &field]),
            Self::UserName => packet(0x10, &[b"\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01c", &field]),
            Self::PropertyName => packet(0x30, &[b"\x00\x01t", &section(&[b"\x26", &field, b"\x00\x01v"])]),
            Self::PropertyValue => packet(0x30, &[b"\x00\x01t", &section(&[b"\x26\x00\x01n", &field])]),
            Self::ReasonString => packet(0xe0, &[b"\x00", &section(&[b"\x1f", &field])]),
            Self::ResponseTopic => packet(0x30, &[b"\x00\x01t", &section(&[b"\x08", &field])]),
            Self::TopicName => packet(0x30, &[&field, b"\x00"]),
            Self::TopicFilter => packet(0x82, &[b"\x00\x01\x00", &field, b"\x00"]),
        }
    }

    /// Whether this place takes that text.
    fn allows(self, text: &str) -> bool {
        match self {
            Self::TopicName | Self::ResponseTopic => naive::is_name(text),
            Self::TopicFilter => naive::is_filter(text),
            _ => true,
        }
    }

    fn text<'a>(self, packet: &Packet<'a>) -> &'a str {
        let found = match packet {
            Packet::Connect(connect) => connect.username.or(Some(connect.client_id)),
            Packet::Publish(publish) => match self {
                Self::TopicName => publish.topic.map(TopicName::as_str),
                Self::ResponseTopic => publish.properties.application.response_topic(),
                _ => publish
                    .properties
                    .application
                    .user_properties()
                    .iter()
                    .next()
                    .map(|(name, value)| match self {
                        Self::PropertyName => name,
                        _ => value,
                    }),
            },
            Packet::Disconnect(disconnect) => disconnect.properties.reason_string,
            Packet::Subscribe(subscribe) => subscribe.filters.iter().next().map(|(filter, _)| filter.as_str()),
            _ => None,
        };
        found.expect("the string is where it was put")
    }
}

fn read(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    match decode(bytes, VERSION, &limits())? {
        Decoded::Packet { packet, len } if len == bytes.len() => Ok(packet),
        other => panic!("{other:?} of a whole packet"),
    }
}

/// The limit of topic levels is Sol's, not the specification's.
fn limits() -> DecodeLimits {
    DecodeLimits {
        topic_levels: u16::MAX,
        ..DecodeLimits::default()
    }
}

fn is_of_text(error: DecodeError) -> bool {
    matches!(error.kind, DecodeErrorKind::InvalidUtf8 | DecodeErrorKind::NulCharacter)
}

/// [MQTT-1.5.4-1]: half a character would be ill-formed.
fn is_cut_at_a_character(text: &str) {
    let long = text.repeat(1 + 66_000 / text.len().max(1));
    let properties = DisconnectProperties {
        reason_string: Some(&long),
        ..DisconnectProperties::default()
    };
    let reason_code = ReasonCode::ServerShuttingDown;
    let bytes = encoded(
        &Packet::Disconnect(Disconnect {
            reason_code,
            properties,
        }),
        VERSION,
    );
    let Ok(Packet::Disconnect(disconnect)) = read(&bytes) else {
        panic!("{:?}", read(&bytes))
    };
    let cut = disconnect.properties.reason_string.expect("it was given");
    assert!(
        long.starts_with(cut) && (cut.len() == long.len() || cut.len() > 65_535 - 4),
        "{} bytes",
        cut.len()
    );
}

fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[first], &*section(parts)].concat()
}

/// The parts behind their length.
fn section(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let (mut length, mut whole) = (body.len(), Vec::new());
    while length > 0x7f {
        whole.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    whole.push(length as u8);
    whole.extend_from_slice(&body);
    whole
}
