//! User Properties (section 3.1.2.11.8 and its sisters).

use core::{fmt, slice};

use super::{PropertyId, RawProperties, raw_field_len, raw_text};
use crate::encode::Sink;

/// Zero or more pairs of name and value, in order. A name may stand more than once.
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked section, which may hold other Properties too.
    Section(&'a [u8]),
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> UserProperties<'a> {
    /// The pairs of a slice.
    #[must_use]
    pub const fn from_pairs(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Source::Pairs(pairs))
    }

    /// Those of a section that was checked before; other Properties in it are passed over.
    pub(crate) const fn from_section(section: &'a [u8]) -> Self {
        Self(Source::Section(section))
    }

    /// The pairs in order.
    #[must_use]
    pub fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter(match self.0 {
            Source::Section(section) => IterSource::Section(RawProperties(section)),
            Source::Pairs(pairs) => IterSource::Pairs(pairs.iter()),
        })
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.0 {
            // Most sections are empty, and then nobody need look for pairs among other Properties.
            Source::Section([]) => true,
            Source::Section(_) => self.iter().next().is_none(),
            Source::Pairs(pairs) => pairs.is_empty(),
        }
    }

    #[inline]
    pub(crate) fn write(&self, out: &mut impl Sink) {
        if self.is_empty() {
            return;
        }
        for (name, value) in self.iter() {
            out.put_u8(PropertyId::UserProperty.value());
            out.put_str(name);
            out.put_str(value);
        }
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        Self(Source::Section(&[]))
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The pairs of [`UserProperties`].
#[derive(Clone)]
pub struct UserPropertiesIter<'a>(IterSource<'a>);

#[derive(Clone)]
enum IterSource<'a> {
    Section(RawProperties<'a>),
    Pairs(slice::Iter<'a, (&'a str, &'a str)>),
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterSource::Section(section) => section
                .find(|property| property.id == PropertyId::UserProperty)
                .and_then(|property| pair(property.value)),
            IterSource::Pairs(pairs) => pairs.next().copied(),
        }
    }
}

impl fmt::Debug for UserPropertiesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

fn pair(value: &[u8]) -> Option<(&str, &str)> {
    let (name, value) = value.split_at_checked(raw_field_len(value)?)?;
    Some((raw_text(name)?, raw_text(value)?))
}
