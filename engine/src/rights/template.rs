//! A level of a pattern: text, with places for who the client is.

use alloc::{boxed::Box, string::String, vec::Vec};

use super::rules::Who;

/// One Topic Level of a pattern that names the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    ClientId,
    Username,
}

impl Template {
    /// Reads a level; `None` if it names nobody.
    pub(super) fn of(level: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let (mut text, mut rest) = (String::new(), level);
        let push = |pieces: &mut Vec<Piece>, text: &mut String, piece| {
            if !text.is_empty() {
                pieces.push(Piece::Text(core::mem::take(text).into()));
            }
            pieces.extend(piece);
        };
        while let Some((before, behind)) = rest.split_once('%') {
            text.push_str(before);
            let named = match behind.chars().next() {
                Some('c') => behind.strip_prefix('c').zip(Some(Piece::ClientId)),
                Some('u') => behind.strip_prefix('u').zip(Some(Piece::Username)),
                _ => None,
            };
            rest = match named {
                Some((behind, piece)) => {
                    push(&mut pieces, &mut text, Some(piece));
                    behind
                }
                None => {
                    text.push('%');
                    behind
                }
            };
        }
        if pieces.is_empty() {
            return None;
        }
        text.push_str(rest);
        push(&mut pieces, &mut text, None);
        Some(Self(pieces))
    }

    /// Whether the level says this of that client.
    pub(super) fn is(&self, level: &str, who: &Who<'_>) -> bool {
        let mut rest = Some(level);
        for piece in &self.0 {
            rest = rest
                .zip(piece.text(who))
                .and_then(|(rest, text)| rest.strip_prefix(text));
        }
        rest == Some("")
    }

    /// What the level says of a client; nothing of one who has no such name.
    pub(super) fn filled(&self, who: &Who<'_>) -> Option<String> {
        self.0.iter().map(|piece| piece.text(who)).collect()
    }

    pub(super) fn names_client_id(&self) -> bool {
        self.0.contains(&Piece::ClientId)
    }

    pub(super) fn names_user(&self) -> bool {
        self.0.contains(&Piece::Username)
    }

    /// Whether what it says begins with what the client says.
    pub(super) fn begins_with_client(&self) -> bool {
        !matches!(self.0.first(), Some(Piece::Text(_)))
    }
}

impl Piece {
    fn text<'a>(&'a self, who: &Who<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::ClientId => Some(who.client_id),
            Self::Username => who.username,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Who<'_> = Who {
        client_id: "id",
        username: Some("name"),
    };

    /// Both names are put in wherever they stand in a level; another `%` is text.
    #[test]
    fn names_are_put_in() {
        let filled = |level| Template::of(level).and_then(|template| template.filled(&WHO));
        let table = [
            ("%c", "id"),
            ("%u", "name"),
            ("a-%c", "a-id"),
            ("%u-b", "name-b"),
            ("%c%u", "idname"),
            ("%%c%x", "%id%x"),
        ];
        for (level, text) in table {
            assert_eq!(filled(level).as_deref(), Some(text), "{level}");
            let template = Template::of(level).unwrap();
            assert!(template.is(text, &WHO) && !template.is("", &WHO) && !template.is(level, &WHO));
            assert!(!template.is(&(String::from(text) + "x"), &WHO), "{level}");
        }
        for level in ["", "c", "%", "%%", "%C", "a%b"] {
            assert_eq!(Template::of(level), None, "{level}");
        }
    }

    /// A client without a User Name is none that `%u` speaks of.
    #[test]
    fn nobody_is_not_a_name() {
        let who = Who { username: None, ..WHO };
        let template = Template::of("%u").unwrap();
        assert_eq!(template.filled(&who), None);
        assert!(!template.is("", &who) && !template.is("name", &who));
    }
}
