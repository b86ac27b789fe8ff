//! Topic Names and Topic Filters (section 4.7) as validated text.
//!
//! This module knows the syntax and the meaning of a single pair of filter and name. It is *not* an index: a broker
//! with many subscriptions wants a trie, and uses [`TopicFilter::matches`] as that trie's naive twin.
//!
//! ```
//! use sol_codec::{TopicFilter, TopicName};
//!
//! let filter = TopicFilter::new("$share/group/sensor/+/state").unwrap();
//! let (share, filter) = filter.shared().unwrap();
//! assert_eq!(share.as_str(), "group");
//! assert!(filter.matches(TopicName::new("sensor/7/state").unwrap()));
//! ```

use core::fmt;
use core::str::Split;

use crate::mutants::mutant;
use crate::utf8;

const SHARE_PREFIX: &str = "$share/";

/// Why a text is no Topic Name or no Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicError {
    /// It has no character [MQTT-4.7.3-1].
    Empty,
    /// It takes more than 65,535 bytes [MQTT-4.7.3-3].
    TooLong,
    /// It holds U+0000 [MQTT-4.7.3-2].
    NulCharacter,
    /// It is a Topic Name and holds `+` or `#` [MQTT-4.7.0-1].
    WildcardInName,
    /// A `+` or `#` shares its level, or `#` is not the last level [MQTT-4.7.1-1], [MQTT-4.7.1-2].
    MisplacedWildcard,
    /// The ShareName is empty [MQTT-4.8.2-1], or holds `+` or `#` [MQTT-4.8.2-2].
    InvalidShareName,
    /// `$share/` and a ShareName with no Topic Filter behind them [MQTT-4.8.2-2].
    ShareWithoutFilter,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it has no character",
            Self::TooLong => "it is longer than 65,535 bytes",
            Self::NulCharacter => "it holds U+0000",
            Self::WildcardInName => "a Topic Name holds a wildcard",
            Self::MisplacedWildcard => "a wildcard shares its level or `#` is not last",
            Self::InvalidShareName => "the ShareName is empty or holds a wildcard",
            Self::ShareWithoutFilter => "no Topic Filter follows the ShareName",
        })
    }
}

impl core::error::Error for TopicError {}

/// Where an Application Message is published to: not empty, no wildcard, no U+0000, at most 65,535 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks the text.
    ///
    /// # Errors
    /// A [`TopicError`] when the text breaks a rule of section 4.7.
    pub fn new(text: &'a str) -> Result<Self, TopicError> {
        Self::from_scanned(text, utf8::scan(text.as_bytes()))
    }

    /// Takes the caller's word that the text is a valid Topic Name, for whoever kept the text of a decoded one. If it is
    /// not, packets encoded with it are malformed.
    #[inline]
    #[must_use]
    pub const fn assume_valid(text: &'a str) -> Self {
        Self(text)
    }

    /// As `new`, for text whose scan has been made already.
    #[inline]
    pub(crate) fn from_scanned(text: &'a str, scan: utf8::Scan) -> Result<Self, TopicError> {
        let wildcard = scan.wildcard && !mutant("5.0/4.7.0-1");
        if scan.nul | wildcard | text.is_empty() | (text.len() > usize::from(u16::MAX)) {
            return Err(match () {
                () if text.is_empty() => TopicError::Empty,
                () if scan.nul => TopicError::NulCharacter,
                () if wildcard => TopicError::WildcardInName,
                () => TopicError::TooLong,
            });
        }
        Ok(Self(text))
    }

    /// The text.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The Topic Levels in order; a leading, doubled or trailing `/` gives an empty level.
    pub fn levels(self) -> Split<'a, char> {
        self.0.split('/')
    }

    /// Whether the first character is `$`: hidden from filters that begin with a wildcard [MQTT-4.7.2-1].
    #[inline]
    #[must_use]
    pub fn is_reserved(self) -> bool {
        self.0.starts_with('$')
    }
}

/// Which Topic Names a Subscription is for. May be the `$share/ShareName/filter` of a Shared Subscription.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    /// Checks the text, the form of a Shared Subscription included [MQTT-4.8.2-1], [MQTT-4.8.2-2].
    ///
    /// # Errors
    /// A [`TopicError`] when the text breaks a rule of section 4.7 or 4.8.2.
    pub fn new(text: &'a str) -> Result<Self, TopicError> {
        Self::from_scanned(text, utf8::scan(text.as_bytes()))
    }

    pub(crate) fn from_scanned(text: &'a str, scan: utf8::Scan) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > usize::from(u16::MAX) {
            return Err(TopicError::TooLong);
        }
        if scan.nul {
            return Err(TopicError::NulCharacter);
        }
        let plain = match text.strip_prefix(SHARE_PREFIX) {
            Some(_) if mutant("5.0/4.8.2-2") => "",
            Some(rest) => check_share(rest)?,
            None => text,
        };
        if scan.wildcard {
            check_wildcards(plain)?;
        }
        Ok(Self(text))
    }

    /// Text that passed `new` before and has not changed since.
    pub(crate) const fn trusted(text: &'a str) -> Self {
        Self(text)
    }

    /// The text, `$share/ShareName/` included.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The Topic Levels in order, `$share` and the ShareName included; see [`TopicFilter::shared`] to part them.
    pub fn levels(self) -> Split<'a, char> {
        self.0.split('/')
    }

    /// Whether it holds `+` or `#`.
    #[must_use]
    pub fn has_wildcards(self) -> bool {
        self.0.bytes().any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether it is the filter of a Shared Subscription.
    #[inline]
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.0.starts_with(SHARE_PREFIX)
    }

    /// The two parts of a Shared Subscription; `None` for an ordinary filter.
    #[must_use]
    pub fn shared(self) -> Option<(ShareName<'a>, Self)> {
        let (share, filter) = self.0.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
        Some((ShareName(share), Self(filter)))
    }

    /// Whether a message published to `name` is for this filter; the `$share/ShareName/` of a Shared Subscription
    /// plays no part. Work is linear in the number of levels, as no level can match in two ways.
    #[must_use]
    pub fn matches(self, name: TopicName<'_>) -> bool {
        let filter = self.shared().map_or(self.0, |(_, filter)| filter.0);
        if name.is_reserved() && filter.starts_with(['+', '#']) {
            return false;
        }
        level_matches(Some(filter), Some(name.0))
    }
}

/// The group of a Shared Subscription (section 4.8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName<'a>(&'a str);

impl<'a> ShareName<'a> {
    /// The text.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// Checks what follows `$share/` and gives the part behind the ShareName.
fn check_share(rest: &str) -> Result<&str, TopicError> {
    let (share, filter) = rest.split_once('/').ok_or(TopicError::ShareWithoutFilter)?;
    if share.is_empty() || share.contains(['+', '#']) {
        return Err(TopicError::InvalidShareName);
    }
    if filter.is_empty() {
        Err(TopicError::ShareWithoutFilter)
    } else {
        Ok(filter)
    }
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut ended = false;
    for level in filter.split('/') {
        let lone = level.len() == 1 || !level.contains(['+', '#']);
        if ended || !lone {
            return Err(TopicError::MisplacedWildcard);
        }
        ended = level == "#";
    }
    Ok(())
}

/// `None` is "no level left". Written as a loop, because a peer chooses the number of levels and so the depth.
fn level_matches(mut filter: Option<&str>, mut name: Option<&str>) -> bool {
    loop {
        let Some((level, filter_rest)) = filter.map(first_level) else {
            return name.is_none();
        };
        // `#` includes its parent: `a/#` matches `a`.
        if level == "#" {
            return true;
        }
        let Some((name_level, name_rest)) = name.map(first_level) else {
            return false;
        };
        if level != "+" && level != name_level {
            return false;
        }
        (filter, name) = (filter_rest, name_rest);
    }
}

fn first_level(text: &str) -> (&str, Option<&str>) {
    text.split_once('/')
        .map_or((text, None), |(level, rest)| (level, Some(rest)))
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl AsRef<str> for $name<'_> {
            fn as_ref(&self) -> &str {
                self.0
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.0, f)
            }
        }
    )*};
}

text!(TopicName, TopicFilter, ShareName);

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, name: &str) -> bool {
        TopicFilter::new(filter).unwrap().matches(TopicName::new(name).unwrap())
    }

    #[test]
    fn wildcards_match_as_the_examples_of_the_specification_say() {
        // The examples of section 4.7.1 [MQTT-4.7.1-1], [MQTT-4.7.1-2].
        for name in [
            "sport/tennis/player1",
            "sport/tennis/player1/ranking",
            "sport/tennis/player1/score/wimbledon",
        ] {
            assert!(matches("sport/tennis/player1/#", name));
        }
        assert!(matches("sport/#", "sport"));
        assert!(matches("#", "/finance"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(!matches("ACCOUNTS", "Accounts"));
    }

    #[test]
    fn a_leading_wildcard_does_not_see_reserved_names() {
        // [MQTT-4.7.2-1]
        assert!(!matches("#", "$SYS/x"));
        assert!(!matches("+/x", "$SYS/x"));
        assert!(!matches("$share/g/#", "$SYS/x"));
        assert!(matches("$SYS/#", "$SYS/x"));
        assert!(matches("$SYS/+", "$SYS/x"));
    }

    #[test]
    fn a_name_holds_no_wildcard_and_is_not_empty() {
        // [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-4.7.3-3]
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert_eq!(TopicName::new("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new("a#"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new("a\0b"), Err(TopicError::NulCharacter));
        let long = std::string::String::from_utf8(std::vec![b'a'; 65_536]).unwrap();
        assert_eq!(TopicName::new(&long), Err(TopicError::TooLong));
        assert!(TopicName::new(&long[1..]).is_ok());
    }

    #[test]
    fn wildcards_stand_alone_in_their_level_and_hash_stands_last() {
        // [MQTT-4.7.1-1], [MQTT-4.7.1-2]
        for text in ["a#", "a/#/b", "+a", "a+", "##", "a/#/#", "a/+b/c", "#/", "$share/g/a#"] {
            assert_eq!(TopicFilter::new(text), Err(TopicError::MisplacedWildcard), "{text}");
        }
        for text in [
            "#",
            "+",
            "+/+",
            "a/+/b/#",
            "/",
            "//",
            "$share/g/#",
            "$share",
            "$share/g//",
        ] {
            assert!(TopicFilter::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_shared_subscription_has_a_name_and_a_filter() {
        // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        for text in ["$share/", "$share/g", "$share/g/"] {
            assert_eq!(TopicFilter::new(text), Err(TopicError::ShareWithoutFilter), "{text}");
        }
        for text in ["$share//t", "$share/+/t", "$share/g#/t", "$share///"] {
            assert_eq!(TopicFilter::new(text), Err(TopicError::InvalidShareName), "{text}");
        }
        let (share, filter) = TopicFilter::new("$share/g//a/+").unwrap().shared().unwrap();
        assert_eq!((share.as_str(), filter.as_str()), ("g", "/a/+"));
    }
}
