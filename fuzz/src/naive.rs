//! The obviously right twins of what the broker does fast. They are slow, and share no code with it.

/// Whether a message published to `topic` is for `filter`, a valid one without a ShareName (section 4.7).
pub fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    // [MQTT-4.7.2-1]
    if topic[0].starts_with('$') && ["+", "#"].contains(&filter[0]) {
        return false;
    }
    let (wanted, open) = match filter.split_last() {
        Some((&"#", before)) => (before, true),
        _ => (&*filter, false),
    };
    let enough = if open {
        topic.len() >= wanted.len()
    } else {
        topic.len() == wanted.len()
    };
    enough
        && wanted
            .iter()
            .zip(&topic)
            .all(|(wanted, level)| *wanted == "+" || wanted == level)
}

/// Whether `text` is a Topic Filter, that of a Shared Subscription included (sections 4.7 and 4.8.2).
pub fn is_filter(text: &str) -> bool {
    let plain = match text.split('/').collect::<Vec<_>>().split_first() {
        Some((&"$share", rest @ [share, ..])) => match rest.split_first() {
            Some((_, filter)) if !share.is_empty() && !share.contains(['+', '#']) => filter.join("/"),
            _ => return false,
        },
        _ => text.to_owned(),
    };
    let levels: Vec<_> = plain.split('/').collect();
    let lone = |level: &&str| ["+", "#"].contains(level) || !level.contains(['+', '#']);
    let last = levels.len() - 1;
    is_text(text) && !plain.is_empty() && levels.iter().all(lone) && levels.iter().take(last).all(|level| *level != "#")
}

/// Whether `text` is a Topic Name.
pub fn is_name(text: &str) -> bool {
    is_text(text) && !text.is_empty() && !text.contains(['+', '#'])
}

/// A string may hold anything but U+0000 [MQTT-1.5.4-2], and is short enough for two bytes of length.
fn is_text(text: &str) -> bool {
    text.len() <= 65_535 && !text.chars().any(|character| character == '\0')
}

/// Whether the bytes are a UTF-8 Encoded String, decided character by character with the table of RFC 3629
/// [MQTT-1.5.4-1]: neither too long a form, nor a surrogate, nor anything above U+10FFFF; and no U+0000.
pub fn is_utf8_encoded_string(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let (length, second) = match first {
            0x01..=0x7f => (0, 0..=0),
            0xc2..=0xdf => (1, 0x80..=0xbf),
            0xe0 => (2, 0xa0..=0xbf),
            0xe1..=0xec | 0xee | 0xef => (2, 0x80..=0xbf),
            0xed => (2, 0x80..=0x9f),
            0xf0 => (3, 0x90..=0xbf),
            0xf1..=0xf3 => (3, 0x80..=0xbf),
            0xf4 => (3, 0x80..=0x8f),
            _ => return false,
        };
        let Some((more, after)) = tail.split_at_checked(length) else {
            return false;
        };
        let right = more.iter().enumerate().all(|(at, byte)| match at {
            0 => second.contains(byte),
            _ => (0x80..=0xbf).contains(byte),
        });
        if !right {
            return false;
        }
        rest = after;
    }
    true
}
