//! One packet, three codecs: ours and two that others published. What they disagree about is explained by a rule with a
//! name, or it is a finding.
//!
//! "The same meaning" is decided without three sets of types: what the other codec read, it writes again, and ours reads
//! that. The rules and an example of each are listed in `DIFFERENTIAL.md`; [`check_table`] holds the two together.

mod mqtt_proto;
mod mqtt_protocol_core;
mod rules;

use sol_codec::{DecodeError, DecodeErrorKind, DecodeLimits, Decoded, Packet, PacketType, ProtocolVersion, decode};

/// A packet as its Fixed Header frames it, before anybody has judged it.
#[derive(Clone, Copy)]
struct Frame<'a> {
    version: ProtocolVersion,
    first: u8,
    body: &'a [u8],
    whole: &'a [u8],
}

/// What another codec says: the packet as it would write it, or its reason to refuse it.
type Verdict = Result<Vec<u8>, String>;

/// A codec that others published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    MqttProto,
    MqttProtocolCore,
}

impl Other {
    const ALL: [Self; 2] = [Self::MqttProto, Self::MqttProtocolCore];

    /// `None` where the codec does not speak the version.
    fn judge(self, frame: Frame<'_>) -> Option<Verdict> {
        match self {
            Self::MqttProto => Some(mqtt_proto::judge(frame)),
            Self::MqttProtocolCore => mqtt_protocol_core::judge(frame),
        }
    }
}

/// How two codecs disagree.
#[derive(Debug)]
enum Difference<'a> {
    /// The other one accepts what we refuse.
    OnlyTheyAccept(DecodeErrorKind),
    /// The other one refuses what we accept, for that reason.
    OnlyWeAccept(&'a Packet<'a>, String),
    /// Both accept, and what the other one writes means something else to us, or nothing.
    OtherMeaning(&'a Packet<'a>, Result<Packet<'a>, DecodeErrorKind>),
}

/// Compares the codecs on the packet at the front of `bytes`, and gives the rules that explained a difference.
///
/// # Errors
/// A description of the differences that no rule explains, a line each.
pub fn compare(version: ProtocolVersion, bytes: &[u8]) -> Result<Vec<&'static str>, String> {
    let Some(frame) = frame(version, bytes) else {
        return Ok(Vec::new());
    };
    let ours = ours(frame);
    let (mut used, mut findings) = (Vec::new(), Vec::new());
    for other in Other::ALL {
        let Some(theirs) = other.judge(frame) else { continue };
        let rewritten = theirs.as_ref().cloned().unwrap_or_default();
        let Some(difference) = difference(frame, &ours, theirs, &rewritten) else {
            continue;
        };
        match rules::find(other, frame, &difference) {
            Some(rule) => used.push(rule),
            None => {
                let (version, whole) = (frame.version, frame.whole);
                findings.push(format!(
                    "{other:?}, {version:?}, {whole:02x?}: {difference:?}, rewritten {rewritten:02x?}"
                ));
            }
        }
    }
    if findings.is_empty() {
        Ok(used)
    } else {
        Err(findings.join("\n"))
    }
}

/// Takes the front of `bytes` apart without a judgement: any type, any flags, a length of any form.
fn frame(version: ProtocolVersion, bytes: &[u8]) -> Option<Frame<'_>> {
    let (&first, rest) = bytes.split_first()?;
    let mut length = 0;
    for (at, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let body = rest.get(at + 1..at + 1 + length)?;
            return Some(Frame {
                version: if first >> 4 == 1 { announced(body)? } else { version },
                first,
                body,
                whole: &bytes[..at + 2 + length],
            });
        }
    }
    None
}

/// A CONNECT brings its own version. Of one that names none that anybody speaks there is nothing to compare.
fn announced(body: &[u8]) -> Option<ProtocolVersion> {
    let (length, rest) = body.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    ProtocolVersion::from_name_and_level(name, *rest.first()?)
}

/// Neither who sends nor how deep a topic may be is known to the others.
fn ours(frame: Frame<'_>) -> Result<Packet<'_>, DecodeErrorKind> {
    let limits = DecodeLimits {
        topic_levels: u16::MAX,
        ..DecodeLimits::default()
    };
    match decode(frame.whole, frame.version, &limits) {
        Ok(Decoded::Packet { packet, .. }) => Ok(packet),
        Ok(Decoded::NeedMore(total)) => panic!("{total} bytes wanted of {:02x?}", frame.whole),
        Err(DecodeError { kind, .. }) => Err(kind),
    }
}

fn difference<'a>(
    frame: Frame<'a>,
    ours: &'a Result<Packet<'a>, DecodeErrorKind>,
    theirs: Verdict,
    rewritten: &'a [u8],
) -> Option<Difference<'a>> {
    match (ours, theirs) {
        (Err(_), Err(_)) => None,
        (Err(kind), Ok(_)) => Some(Difference::OnlyTheyAccept(*kind)),
        (Ok(packet), Err(reason)) => Some(Difference::OnlyWeAccept(packet, reason)),
        (Ok(packet), Ok(_)) => {
            let read = self::frame(frame.version, rewritten)
                .ok_or(DecodeErrorKind::Truncated)
                .and_then(self::ours);
            // `Debug` shows Properties by name, in whatever order they came.
            let same = read.is_ok_and(|read| format!("{read:?}") == format!("{packet:?}"));
            (!same).then_some(Difference::OtherMeaning(packet, read))
        }
    }
}

impl Frame<'_> {
    fn packet_type(self) -> Option<PacketType> {
        PacketType::from_first_byte(self.first)
    }
}

/// Holds `DIFFERENTIAL.md` and the rules together: each rule has a row, and each row an example that it explains.
///
/// # Panics
/// If it does not.
pub fn check_table() {
    let rows: Vec<_> = include_str!("../../DIFFERENTIAL.md").lines().filter_map(row).collect();
    for (name, version, bytes) in &rows {
        let used = compare(*version, bytes).unwrap_or_else(|finding| panic!("{name}: {finding}"));
        assert!(
            used.contains(name),
            "{name} does not explain {bytes:02x?}, but {used:?}"
        );
    }
    for name in rules::names() {
        assert!(
            rows.iter().any(|(row, ..)| *row == name),
            "DIFFERENTIAL.md has no row for {name}"
        );
    }
}

/// `| name | … | version | example |`; the other lines of the file are no rows.
fn row(line: &str) -> Option<(&str, ProtocolVersion, Vec<u8>)> {
    let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
    let [name, .., version, example] = *cells else {
        return None;
    };
    let version = match version {
        "3.1" => ProtocolVersion::V31,
        "3.1.1" => ProtocolVersion::V311,
        _ => ProtocolVersion::V5,
    };
    let bytes = example
        .trim_matches('`')
        .split(' ')
        .map(|byte| u8::from_str_radix(byte, 16));
    Some((
        name.trim_end_matches('`'),
        version,
        bytes.collect::<Result<_, _>>().ok()?,
    ))
}
