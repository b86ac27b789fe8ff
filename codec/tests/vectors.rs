//! Malformed packets as data: each file of `vectors/` is named by the statement that its packets break.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sol_codec::*;

struct Vector {
    versions: Vec<ProtocolVersion>,
    direction: Direction,
    reason_code: u8,
    kind: String,
    bytes: Vec<u8>,
}

#[test]
fn every_malformed_packet_is_refused_with_its_reason_code() {
    // Section 4.13.1, and the statement in each file's name.
    let mut count = 0;
    let mut words = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let place = format!("{}:{}: {line}", file.display(), number + 1);
            let vector = parse(line).unwrap_or_else(|| panic!("unreadable: {place}"));
            vector
                .versions
                .iter()
                .for_each(|version| check(&vector, *version, &place, &mut words));
            count += 1;
        }
    }
    assert!(count >= 240, "only {count} vectors were found");
}

/// `words`: what people are told of each kind of fault, so that no two sound the same.
fn check(vector: &Vector, version: ProtocolVersion, place: &str, words: &mut BTreeMap<String, String>) {
    let limits = DecodeLimits {
        maximum_packet_size: 1 << 20,
        direction: vector.direction,
        ..DecodeLimits::default()
    };
    let whole = decode(&vector.bytes, version, &limits);
    let Err(error) = whole else {
        panic!("{version:?} accepts {place}\n{whole:?}")
    };
    let kind = format!("{:?}", error.kind);
    assert_eq!(
        kind.split(['(', ' ']).next(),
        Some(&*vector.kind),
        "{version:?} {place}"
    );
    let told = error.to_string();
    assert!(
        told.ends_with(&format!("(at byte {} of the packet)", error.offset)),
        "{told}"
    );
    let sentence = told.split([':', '(']).next().unwrap_or_default();
    let known = words
        .entry(sentence.trim().to_owned())
        .or_insert_with(|| vector.kind.clone());
    assert_eq!(*known, vector.kind, "{told}");
    assert_eq!(error.reason_code().value(), vector.reason_code, "{version:?} {place}");
    assert!(error.offset <= vector.bytes.len(), "{version:?} {place}");
    assert_eq!(error.connect_version, asked_for(&vector.bytes), "{version:?} {place}");
    for cut in 0..vector.bytes.len() {
        match decode(&vector.bytes[..cut], version, &limits) {
            Ok(Decoded::NeedMore(total)) => assert!(total > cut, "{version:?} {place}"),
            early => assert_eq!(early, whole, "{version:?}, first {cut} bytes of {place}"),
        }
    }
}

/// The version that a CONNECT with a Protocol Name and Protocol Version in order asks for.
fn asked_for(bytes: &[u8]) -> Option<ProtocolVersion> {
    let has = |name: &[u8]| bytes[0] == 0x10 && bytes.windows(name.len()).any(|window| window == name);
    ProtocolVersion::ALL.into_iter().find(|version| match version {
        ProtocolVersion::V31 => has(b"\0\x06MQIsdp\x03"),
        ProtocolVersion::V311 => has(b"\0\x04MQTT\x04"),
        ProtocolVersion::V5 => has(b"\0\x04MQTT\x05"),
    })
}

fn parse(line: &str) -> Option<Vector> {
    let mut parts = line.split(" | ");
    let (head, bytes, _why) = (parts.next()?, parts.next()?, parts.next()?);
    let mut head = head.split(' ');
    Some(Vector {
        versions: versions(head.next()?)?,
        direction: match head.next()? {
            "client" => Direction::FromClient,
            "server" => Direction::FromServer,
            _ => return None,
        },
        reason_code: u8::from_str_radix(head.next()?.strip_prefix("0x")?, 16).ok()?,
        kind: head.next()?.to_owned(),
        bytes: unquote(bytes)?,
    })
}

fn versions(text: &str) -> Option<Vec<ProtocolVersion>> {
    if text == "all" {
        return Some(ProtocolVersion::ALL.to_vec());
    }
    text.split(',')
        .map(|version| match version {
            "3.1" => Some(ProtocolVersion::V31),
            "3.1.1" => Some(ProtocolVersion::V311),
            "5" => Some(ProtocolVersion::V5),
            _ => None,
        })
        .collect()
}

/// Text in quotation marks stands for itself, the rest is hexadecimal.
fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (at, part) in text.split('"').enumerate() {
        if at % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        for byte in part.split_whitespace() {
            bytes.push(u8::from_str_radix(byte, 16).ok()?);
        }
    }
    Some(bytes)
}
