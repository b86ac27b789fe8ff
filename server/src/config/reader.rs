//! Reads the values of one line, strictly or as the old broker did.

use super::Network;
use super::dialect::Dialect;
use super::lexer::{Line, Token};
use super::place::Place;
use super::units;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What is wrong with a line, and at which column.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    pub(crate) column: usize,
    pub(crate) text: String,
}

/// Walks over the values of one line; each typed reader takes the next value.
pub(crate) struct Reader<'a> {
    line: &'a Line<'a>,
    path: &'a Arc<Path>,
    dialect: Dialect,
    next: usize,
    /// Column and text of what the operator should know.
    pub(crate) warnings: Vec<(usize, String)>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(line: &'a Line<'a>, dialect: Dialect, path: &'a Arc<Path>) -> Self {
        Self {
            line,
            path,
            dialect,
            next: 0,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            path: Arc::clone(self.path),
            line: self.line.number,
        }
    }

    /// Where the next value stands, or would.
    pub(crate) fn column(&self) -> usize {
        let token = self.line.values.get(self.next);
        token.map_or(self.line.key.column, |token| token.column)
    }

    /// What the next value is, which stays the next.
    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.line.values.get(self.next).map(|token| token.text)
    }

    /// The next value.
    pub(crate) fn word(&mut self) -> Result<Token<'a>, Fault> {
        self.optional().ok_or_else(|| Fault {
            column: self.line.key.column + self.line.key.text.chars().count(),
            text: format!("`{}` needs a value", self.line.key.text),
        })
    }

    /// The next value, if there is one.
    pub(crate) fn optional(&mut self) -> Option<Token<'a>> {
        let token = self.line.values.get(self.next).copied();
        self.next += usize::from(token.is_some());
        token
    }

    /// The rest of the line as a path, made absolute: the daemon changes its directory. The old broker's values have
    /// no spaces.
    pub(crate) fn path(&mut self) -> Result<PathBuf, Fault> {
        let token = match self.dialect {
            Dialect::Sol => self.word()?,
            Dialect::Listener => self.rest()?,
        };
        std::path::absolute(token.text).map_err(|_| fault(token, format!("`{}` is not a path", token.text)))
    }

    /// The rest of the line as it stands.
    pub(crate) fn rest(&mut self) -> Result<Token<'a>, Fault> {
        let first = self.word()?;
        self.next = self.line.values.len();
        Ok(self.line.rest_from(first))
    }

    /// Reads the next value with `parse`, whose error becomes the fault's text.
    pub(crate) fn with<T>(&mut self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Fault> {
        let token = self.word()?;
        parse(token.text).map_err(|text| fault(token, text))
    }

    /// A whole number in `min..=max`.
    pub(crate) fn number<T>(&mut self, min: T, max: T) -> Result<T, Fault>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        self.with(|text| match text.parse::<T>() {
            Ok(value) if value >= min && value <= max => Ok(value),
            _ => Err(format!("`{text}` is not a whole number from {min} to {max}")),
        })
    }

    /// A number of which 0 means "no limit".
    pub(crate) fn limit<T>(&mut self, max: T) -> Result<Option<T>, Fault>
    where
        T: FromStr + PartialOrd + Display + Copy + Default,
    {
        let value = self.number(T::default(), max)?;
        Ok((value != T::default()).then_some(value))
    }

    /// A number of which a negative one means "no limit", as Mosquitto writes it.
    pub(crate) fn count_or_none(&mut self) -> Result<Option<u32>, Fault> {
        let count = self.number(-1, i64::from(u32::MAX))?;
        Ok(u32::try_from(count).ok())
    }

    /// A number of bytes of which 0 means "no limit".
    pub(crate) fn size_or_none(&mut self, max: u64) -> Result<Option<u64>, Fault> {
        let token = self.line.values.get(self.next).copied();
        match (self.size()?, token) {
            (0, _) => Ok(None),
            (bytes, Some(token)) if bytes > max => Err(fault(token, format!("at most {max} bytes"))),
            (bytes, _) => Ok(Some(bytes)),
        }
    }

    /// The rest of the line as networks, which become more of those in `known`: at most `max` of them.
    pub(crate) fn networks(&mut self, known: &mut Vec<Network>, max: usize) -> Result<(), Fault> {
        let mut token = self.word()?;
        loop {
            if known.len() == max {
                return Err(fault(token, format!("more than {max} networks")));
            }
            known.push(token.text.parse().map_err(|text: String| fault(token, text))?);
            match self.optional() {
                Some(next) => token = next,
                None => return Ok(()),
            }
        }
    }

    /// Yes or no. The old broker took everything that does not start with `false` for yes, even `no`.
    pub(crate) fn switch(&mut self) -> Result<bool, Fault> {
        let token = self.word()?;
        let lower = token.text.to_ascii_lowercase();
        match (self.dialect, lower.as_str()) {
            (_, "true" | "1") => Ok(true),
            (_, "false") => Ok(false),
            (Dialect::Listener, "0") => Ok(false),
            (Dialect::Sol, "yes" | "on") => Ok(true),
            (Dialect::Sol, "no" | "off" | "0") => {
                let text = format!("`{}` is read as false; the old broker read it as true", token.text);
                self.warnings.push((token.column, text));
                Ok(false)
            }
            (Dialect::Sol, text) if text.starts_with("false") => {
                self.warnings
                    .push((token.column, format!("`{}` is read as false", token.text)));
                Ok(false)
            }
            _ => Err(fault(token, format!("`{}` is neither true nor false", token.text))),
        }
    }

    /// A number of bytes. The old broker knew `KB`, `MB` and `GB` and took everything else for bytes.
    pub(crate) fn size(&mut self) -> Result<u64, Fault> {
        if self.dialect == Dialect::Listener {
            return self.with(units::size);
        }
        let token = self.word()?;
        let (digits, unit) = units::split(token.text);
        let lower = unit.to_ascii_lowercase();
        let shift = match lower.get(..2) {
            Some("kb") => 10,
            Some("mb") => 20,
            Some("gb") => 30,
            _ => 0,
        };
        let known = ["", "b", "kb", "mb", "gb"].contains(&lower.as_str());
        let value = units::scaled(digits, 1 << shift).ok_or_else(|| {
            fault(
                token,
                format!("`{}` is not a size: a number with KB, MB, GB or nothing", token.text),
            )
        })?;
        if !known {
            let text = format!(
                "`{}` is read as {value} bytes, as the old broker did; units are KB, MB and GB",
                token.text
            );
            self.warnings.push((token.column, text));
        }
        Ok(value)
    }

    /// A time. The old broker knew `m` and `d` and took everything else for seconds, even `h`.
    pub(crate) fn seconds(&mut self) -> Result<Duration, Fault> {
        if self.dialect == Dialect::Listener {
            return self.with(units::seconds);
        }
        let token = self.word()?;
        let (digits, unit) = units::split(token.text);
        let factor = match unit.chars().next() {
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => 1,
        };
        let value = units::scaled(digits, factor).ok_or_else(|| {
            fault(
                token,
                format!("`{}` is not a time: a number with s, m, h, d or nothing", token.text),
            )
        })?;
        if unit == "h" {
            let text = format!(
                "`{}` is read as {value} seconds; the old broker read it as {digits} seconds",
                token.text
            );
            self.warnings.push((token.column, text));
        } else if !["", "s", "m", "d"].contains(&unit) {
            let text = format!("`{}` is read as {value} seconds; units are s, m, h and d", token.text);
            self.warnings.push((token.column, text));
        }
        Ok(Duration::from_secs(value))
    }

    /// What no reader took: the old broker ignored it, which is warned about; elsewhere it is a fault.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        let Some(token) = self.optional() else { return Ok(()) };
        let rest = self.line.rest_from(token);
        if self.dialect == Dialect::Sol {
            self.warnings.push((
                token.column,
                format!("`{}` is ignored: a key has one value", shorten(rest.text)),
            ));
            return Ok(());
        }
        let hint = if token.text.starts_with('#') {
            "; a comment starts in the first column"
        } else {
            ""
        };
        Err(fault(
            token,
            format!("`{}` is one value too many{hint}", shorten(rest.text)),
        ))
    }
}

/// Blames `token`.
pub(crate) fn fault(token: Token<'_>, text: impl Into<String>) -> Fault {
    Fault {
        column: token.column,
        text: text.into(),
    }
}

/// At most 60 characters, so that a message stays a line.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::lex;
    use super::*;

    fn read<T>(
        dialect: Dialect,
        value: &str,
        with: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>,
    ) -> (Result<T, String>, Vec<String>) {
        let text = format!("k {value}");
        let lines = lex("f".as_ref(), text.as_bytes()).unwrap();
        let path = Arc::from(Path::new("f"));
        let mut reader = Reader::new(&lines[0], dialect, &path);
        let result = with(&mut reader).map_err(|fault| fault.text);
        (result, reader.warnings.into_iter().map(|(_, text)| text).collect())
    }

    /// The old broker's sizes: KB, MB, GB by prefix and in any case, everything else bytes, with a warning where
    /// somebody may have meant more.
    #[test]
    fn sol_sizes() {
        for (text, bytes, warned) in [
            ("1kb", 1024, false),
            ("50MB", 50 << 20, false),
            ("2Gb", 2 << 30, false),
            ("7", 7, false),
            ("7B", 7, false),
            ("2M", 2, true),
            ("2G", 2, true),
            ("1.5GB", 1, true),
            ("3kbit", 3072, true),
        ] {
            let (value, warnings) = read(Dialect::Sol, text, |r| r.size());
            assert_eq!((value, warnings.len()), (Ok(bytes), usize::from(warned)), "{text}");
        }
        assert!(read(Dialect::Sol, "lots", |r| r.size()).0.is_err());
    }

    /// The old broker's times, except that an hour is an hour.
    #[test]
    fn sol_times() {
        for (text, seconds, warned) in [
            ("10", 10, false),
            ("10s", 10, false),
            ("2m", 120, false),
            ("1d", 86_400, false),
            ("1h", 3600, true),
            ("9x", 9, true),
        ] {
            let (value, warnings) = read(Dialect::Sol, text, |r| r.seconds());
            assert_eq!(
                (value, warnings.len()),
                (Ok(Duration::from_secs(seconds)), usize::from(warned)),
                "{text}"
            );
        }
        let (_, warnings) = read(Dialect::Sol, "1h", |r| r.seconds());
        assert_eq!(
            warnings,
            ["`1h` is read as 3600 seconds; the old broker read it as 1 seconds"]
        );
        assert!(read(Dialect::Sol, "soon", |r| r.seconds()).0.is_err());
    }

    /// Whoever wrote `no` meant no; whoever wrote neither is asked.
    #[test]
    fn sol_switches() {
        for (text, on, warned) in [
            ("true", true, false),
            ("FALSE", false, false),
            ("falsehood", false, true),
            ("no", false, true),
            ("0", false, true),
            ("Off", false, true),
            ("yes", true, false),
        ] {
            let (value, warnings) = read(Dialect::Sol, text, |r| r.switch());
            assert_eq!((value, warnings.len()), (Ok(on), usize::from(warned)), "{text}");
        }
        assert!(read(Dialect::Sol, "flase", |r| r.switch()).0.is_err());
        assert!(read(Dialect::Listener, "no", |r| r.switch()).0.is_err());
    }

    /// Trailing words: ignored with a warning in sol's dialect, refused in the other.
    #[test]
    fn trailing_words() {
        let (value, warnings) = read(Dialect::Sol, "1883  # the port", |r| {
            r.number(0, u16::MAX).and_then(|n| r.finish().map(|()| n))
        });
        assert_eq!(
            (value, warnings),
            (
                Ok(1883),
                vec!["`# the port` is ignored: a key has one value".to_owned()]
            )
        );
        let (value, _) = read(Dialect::Listener, "1883 # the port", |r| {
            r.number(0, u16::MAX).and_then(|_| r.finish())
        });
        assert_eq!(
            value.unwrap_err(),
            "`# the port` is one value too many; a comment starts in the first column"
        );
    }
}
