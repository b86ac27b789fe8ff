//! What is read of an X.509 certificate: how long it is valid and whose it is; and of a list of revoked ones, how long that is
//! valid. Whether they can be believed is rustls' to say.

use std::fmt::Write as _;

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const UNIVERSAL_STRING: u8 = 0x1c;
const BMP_STRING: u8 = 0x1e;

const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// The short names that OpenSSL prints attributes of a subject by.
const SHORT_NAMES: &[(&[u8], &str)] = &[
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "street"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 13], "description"),
    (&[0x55, 4, 17], "postalCode"),
    (&[0x55, 4, 41], "name"),
    (&[0x55, 4, 42], "GN"),
    (&[0x55, 4, 43], "initials"),
    (&[0x55, 4, 46], "dnQualifier"),
    (&[0x55, 4, 65], "pseudonym"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
    (&[9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

/// Parts of a certificate.
pub(super) struct Certificate<'a> {
    /// Seconds since 1970 between which it is valid.
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    /// Its subject's attributes, in the order of the certificate; `true`: it belongs to the one before.
    attributes: Vec<(bool, Attribute<'a>)>,
}

struct Attribute<'a> {
    name: &'a [u8],
    tag: u8,
    value: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate in DER (RFC 5280, section 4.1).
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut certificate = Der(der).expect(SEQUENCE)?;
        let mut body = certificate.expect(SEQUENCE)?;
        if body.0.first() == Some(&VERSION) {
            body.next()?;
        }
        // Serial number, algorithm, issuer.
        for _ in 0..3 {
            body.next()?;
        }
        let mut validity = body.expect(SEQUENCE)?;
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let mut subject = body.expect(SEQUENCE)?;
        let mut attributes = Vec::new();
        while !subject.0.is_empty() {
            let mut set = subject.expect(SET)?;
            let mut is_continued = false;
            while !set.0.is_empty() {
                let mut attribute = set.expect(SEQUENCE)?;
                let name = attribute.expect(OBJECT_IDENTIFIER)?.0;
                let (tag, value) = attribute.next()?;
                attributes.push((is_continued, Attribute { name, tag, value }));
                is_continued = true;
            }
        }
        Some(Self {
            not_before,
            not_after,
            attributes,
        })
    }

    /// The first Common Name; `None`: there is none that could be a User Name.
    pub(super) fn common_name(&self) -> Option<String> {
        let (_, name) = self
            .attributes
            .iter()
            .find(|(_, attribute)| attribute.name == COMMON_NAME)?;
        name.text().filter(|name| !name.is_empty() && !name.contains('\0'))
    }

    /// The subject as RFC 2253 writes it: the last attribute first, with OpenSSL's names and escapes.
    pub(super) fn subject(&self) -> String {
        let mut subject = String::new();
        let mut sets: Vec<Vec<&Attribute<'_>>> = Vec::new();
        for (is_continued, attribute) in &self.attributes {
            match sets.last_mut() {
                Some(set) if *is_continued => set.push(attribute),
                _ => sets.push(vec![attribute]),
            }
        }
        for (index, set) in sets.iter().rev().enumerate() {
            for (place, attribute) in set.iter().rev().enumerate() {
                subject += match (index, place) {
                    (0, 0) => "",
                    (_, 0) => ",",
                    _ => "+",
                };
                attribute.write(&mut subject);
            }
        }
        subject
    }
}

/// When a list of revoked certificates in DER has to be followed by another (RFC 5280, section 5.1), in seconds since 1970;
/// `None`: it does not say.
pub(super) fn next_update(der: &[u8]) -> Option<u64> {
    let mut list = Der(der).expect(SEQUENCE)?;
    let mut body = list.expect(SEQUENCE)?;
    if body.0.first() == Some(&INTEGER) {
        body.next()?;
    }
    // Algorithm, issuer, and when it was written.
    for _ in 0..3 {
        body.next()?;
    }
    time(body.next()?)
}

impl Attribute<'_> {
    fn text(&self) -> Option<String> {
        match self.tag {
            UTF8_STRING | PRINTABLE_STRING | IA5_STRING => std::str::from_utf8(self.value).ok().map(str::to_owned),
            // Everybody writes Latin-1 there.
            TELETEX_STRING => Some(self.value.iter().map(|&byte| char::from(byte)).collect()),
            BMP_STRING if self.value.len().is_multiple_of(2) => {
                let units = self
                    .value
                    .chunks_exact(2)
                    .map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
                char::decode_utf16(units).collect::<Result<_, _>>().ok()
            }
            UNIVERSAL_STRING if self.value.len().is_multiple_of(4) => {
                let units = self.value.chunks_exact(4);
                units
                    .map(|unit| char::from_u32(u32::from_be_bytes([unit[0], unit[1], unit[2], unit[3]])))
                    .collect()
            }
            _ => None,
        }
    }

    /// Writes `name=value` (RFC 2253, section 2.4).
    fn write(&self, out: &mut String) {
        let known = SHORT_NAMES.iter().find(|(name, _)| *name == self.name);
        match known {
            Some((_, name)) => out.push_str(name),
            None => write_object_identifier(self.name, out),
        }
        out.push('=');
        match self.text().filter(|_| known.is_some()) {
            Some(text) => escape(&text, out),
            None => {
                // Its DER: what it means is not known.
                out.push('#');
                write_hex(&[self.tag], out);
                write_length(self.value.len(), out);
                write_hex(self.value, out);
            }
        }
    }
}

fn write_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // A string takes all that is written to it.
        let _ = write!(out, "{byte:02X}");
    }
}

fn write_length(length: usize, out: &mut String) {
    let bytes = length.to_be_bytes();
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len() - 1)..];
    if length > 0x7f {
        // As many as a `usize` has at most.
        write_hex(&[0x80 | bytes.len() as u8], out);
    }
    write_hex(bytes, out);
}

fn write_object_identifier(bytes: &[u8], out: &mut String) {
    let (mut value, mut is_first) = (0_u64, true);
    for byte in bytes {
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            let _ = if std::mem::take(&mut is_first) {
                let first = (value / 40).min(2);
                write!(out, "{first}.{}", value - first * 40)
            } else {
                write!(out, ".{value}")
            };
            value = 0;
        }
    }
}

fn escape(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..=0x7e => out.push(char::from(byte)),
            byte => {
                out.push('\\');
                write_hex(&[byte], out);
            }
        }
    }
}

/// Bytes in DER, of which the front is taken value by value.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and the contents of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, rest) = rest.split_first()?;
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0_u64, |length, byte| (length << 8) | u64::from(*byte));
                (usize::try_from(length).ok()?, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn expect(&mut self, expected: u8) -> Option<Self> {
        let (tag, value) = self.next()?;
        (tag == expected).then_some(Self(value))
    }
}

/// Seconds since 1970, 0 before (RFC 5280, section 4.1.2.5).
fn time((tag, value): (u8, &[u8])) -> Option<u64> {
    let digits = value.strip_suffix(b"Z")?;
    let number = |at: std::ops::Range<usize>| {
        let digits = std::str::from_utf8(digits.get(at)?).ok()?;
        digits.parse::<u64>().ok()
    };
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (
            number(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?,
            2,
        ),
        (GENERALIZED_TIME, 14) => (number(0..4)?, 4),
        _ => return None,
    };
    let part = |n: usize| number(rest + 2 * n..rest + 2 * n + 2);
    let (month, day) = (part(0)?, part(1)?);
    let (hour, minute, second) = (part(2)?, part(3)?, part(4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since March of the year 0, whose leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = hour * 3_600 + minute * 60 + second;
    Some((days * 86_400 + seconds).saturating_sub(719_468 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of both forms are what the calendar says.
    #[test]
    fn times() {
        let utc = |text: &str| time((UTC_TIME, text.as_bytes()));
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("000229120001Z"), Some(951_825_601));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999));
        assert_eq!(time((GENERALIZED_TIME, b"20500101000000Z")), Some(2_524_608_000));
        assert_eq!(time((GENERALIZED_TIME, b"99991231235959Z")), Some(253_402_300_799));
        assert_eq!(utc("500101000000Z"), Some(0), "before 1970");
        for wrong in [
            "",
            "Z",
            "700101000000",
            "701301000000Z",
            "7001010000Z",
            "70010100000xZ",
            "é0101000000Z",
        ] {
            assert_eq!(utc(wrong), None, "{wrong}");
        }
    }

    /// A subject is written as `openssl x509 -subject -nameopt RFC2253` writes it.
    #[test]
    fn subjects() {
        let attribute = |name, tag, value| Attribute { name, tag, value };
        let certificate = Certificate {
            not_before: 0,
            not_after: 0,
            attributes: vec![
                (false, attribute(&[0x55, 4, 6], PRINTABLE_STRING, b"DE")),
                (
                    false,
                    attribute(&[0x55, 4, 10], UTF8_STRING, "Käse, \"fein\"".as_bytes()),
                ),
                (true, attribute(&[0x55, 4, 11], UTF8_STRING, b"#1 ")),
                (false, attribute(&[0x2a, 3, 0x84, 0x01], UTF8_STRING, b"x")),
                (false, attribute(COMMON_NAME, BMP_STRING, b"\0j\0i\0l\0l")),
            ],
        };
        assert_eq!(
            certificate.subject(),
            "CN=jill,1.2.3.513=#0C0178,OU=\\#1\\ +O=K\\C3\\A4se\\, \\\"fein\\\",C=DE"
        );
        assert_eq!(certificate.common_name().as_deref(), Some("jill"));
    }

    /// What is no certificate, or is cut anywhere, is none, and never a panic.
    #[test]
    fn what_is_no_certificate() {
        assert!(Certificate::parse(b"").is_none());
        assert!(Certificate::parse(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]).is_none());
        assert!(Certificate::parse(&[SEQUENCE, 0x80]).is_none());
    }
}
