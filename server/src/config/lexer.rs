//! Lines and tokens of a configuration file, with their places; no meaning.
//!
//! The language of both dialects is the same here: one directive a line, words split on white space, a comment where
//! the first character of a line is `#`. The old broker copied keys and values into fixed buffers without a check; the
//! sizes of those buffers are limits here, and exceeding one is an error with a place.

use super::diagnostic::Diagnostic;
use std::path::Path;

/// Longest line, in bytes, without its line feed.
pub const LINE_BYTES_MAX: usize = 4095;
/// Longest directive name, in bytes.
pub const KEY_BYTES_MAX: usize = 254;
/// Largest file, in bytes: far above any real one, far below what would hurt.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// A word and where it starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Token<'a> {
    /// In characters, from 1.
    pub(crate) column: usize,
    pub(crate) text: &'a str,
}

/// A line that is neither blank nor a comment: its directive and the words after it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) raw: &'a str,
    pub(crate) key: Token<'a>,
    pub(crate) values: Vec<Token<'a>>,
}

impl<'a> Line<'a> {
    /// The text from a value of this line to the line's end, without white space around it.
    pub(crate) fn rest_from(&self, token: Token<'a>) -> Token<'a> {
        let skip = token.text.as_ptr() as usize - self.raw.as_ptr() as usize;
        Token {
            column: token.column,
            text: self.raw[skip..].trim_end(),
        }
    }
}

/// Splits `bytes` into lines of tokens. Every fault is reported, not only the first.
pub(crate) fn lex<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<Line<'a>>, Vec<Diagnostic>> {
    if bytes.len() > FILE_BYTES_MAX {
        let text = format!("larger than {FILE_BYTES_MAX} bytes, which no configuration is");
        return Err(vec![Diagnostic::of_file(path, text)]);
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    for (index, raw) in bytes.split(|&byte| byte == b'\n').enumerate() {
        match lex_line(index + 1, raw) {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => {}
            Err((column, text)) => faults.push(Diagnostic::at(path, index + 1, column, text)),
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(faults) }
}

fn lex_line(number: usize, bytes: &[u8]) -> Result<Option<Line<'_>>, (usize, String)> {
    if bytes.len() > LINE_BYTES_MAX {
        return Err((LINE_BYTES_MAX + 1, format!("line longer than {LINE_BYTES_MAX} bytes")));
    }
    if bytes.first() == Some(&b'#') {
        return Ok(None);
    }
    let raw = std::str::from_utf8(bytes).map_err(|error| {
        let column = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).chars().count() + 1;
        (column, "not UTF-8 text".to_owned())
    })?;
    if let Some(at) = raw.chars().position(|c| c.is_control() && !c.is_ascii_whitespace()) {
        return Err((at + 1, "a control character stands here".to_owned()));
    }
    let mut tokens = tokens(raw);
    let Some(key) = tokens.next() else { return Ok(None) };
    if key.text.len() > KEY_BYTES_MAX {
        return Err((key.column, format!("directive name longer than {KEY_BYTES_MAX} bytes")));
    }
    let values = tokens.collect();
    Ok(Some(Line {
        number,
        raw,
        key,
        values,
    }))
}

fn tokens(raw: &str) -> impl Iterator<Item = Token<'_>> {
    raw.split(|c: char| c.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
        .map(|text| {
            let before = text.as_ptr() as usize - raw.as_ptr() as usize;
            Token {
                column: raw[..before].chars().count() + 1,
                text,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex_text(text: &str) -> Result<Vec<Line<'_>>, Vec<Diagnostic>> {
        lex(Path::new("f"), text.as_bytes())
    }

    /// Blank lines and comments vanish; words keep their line and column, counted in characters.
    #[test]
    fn tokens_know_their_place() {
        let lines = lex_text("# c\n\n  é b\tc \r\nx").unwrap();
        let places: Vec<_> = lines
            .iter()
            .map(|l| {
                (
                    l.number,
                    l.key.column,
                    l.key.text,
                    l.values.iter().map(|v| (v.column, v.text)).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(places, [(3, 3, "é", vec![(5, "b"), (7, "c")]), (4, 1, "x", vec![])]);
    }

    /// Only a `#` in the first column starts a comment, as in the old broker.
    #[test]
    fn an_indented_hash_is_no_comment() {
        assert_eq!(lex_text(" # c").unwrap()[0].key.text, "#");
    }

    /// A path with spaces can be read whole.
    #[test]
    fn rest_of_line() {
        let lines = lex_text("log_dest file /a b/c \r").unwrap();
        assert_eq!(
            lines[0].rest_from(lines[0].values[1]),
            Token {
                column: 15,
                text: "/a b/c"
            }
        );
    }

    /// The old broker's fixed buffers are limits with a message; every fault of a file is reported at once.
    #[test]
    fn limits_and_bytes() {
        let long = "a".repeat(LINE_BYTES_MAX + 1);
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        let mut bytes = format!("{long}\nok 1\n {key} v\n").into_bytes();
        bytes.extend_from_slice(b"ab \xFF\nab\x00c 1\n");
        let faults: Vec<_> = lex(Path::new("f"), &bytes)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            faults,
            [
                "f:1:4096: line longer than 4095 bytes",
                "f:3:2: directive name longer than 254 bytes",
                "f:4:4: not UTF-8 text",
                "f:5:3: a control character stands here",
            ]
        );
        assert!(lex(Path::new("f"), &vec![b'#'; FILE_BYTES_MAX + 1]).is_err());
    }
}
