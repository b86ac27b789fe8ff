//! One log line: bounded, escaped, in one of three forms.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::stamp;
use crate::config::{Log, LogFormat};

/// Longest value of a field, in bytes: client identifiers, topics and user names are fields.
pub const FIELD_BYTES_MAX: usize = 256;
/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Where the old broker's form cuts a line, in characters.
pub const SOL_CHARS_MAX: usize = 120;

/// Text that stops growing at a limit, so that a huge value never exists in full.
#[derive(Debug)]
pub(super) struct Bounded {
    text: String,
    limit: usize,
}

impl Bounded {
    /// Formats at most `limit` bytes; `...` stands for the rest.
    pub(super) fn format(limit: usize, arguments: fmt::Arguments<'_>) -> String {
        let mut bounded = Self {
            text: String::new(),
            limit,
        };
        if bounded.write_fmt(arguments).is_err() {
            bounded.text.push_str("...");
        }
        bounded.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.limit - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
        Err(fmt::Error)
    }
}

/// The form of lines.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) format: LogFormat,
    /// How the time is written among words.
    pub(super) stamp: Option<Arc<str>>,
}

impl From<LogFormat> for Form {
    fn from(format: LogFormat) -> Self {
        Self { format, stamp: None }
    }
}

impl From<&Log> for Form {
    fn from(log: &Log) -> Self {
        let stamp = log.timestamp_format.as_deref().map(Arc::from);
        Self {
            format: log.format,
            stamp,
        }
    }
}

/// An event before it is a line.
#[derive(Debug)]
pub(super) struct Record {
    level: &'static str,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Record {
    pub(super) fn new(level: &'static str) -> Self {
        Self {
            level,
            message: String::new(),
            fields: Vec::new(),
        }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn push(&mut self, name: &'static str, text: String) {
        if name == "message" {
            self.message = text;
        } else {
            self.fields.push((name, text));
        }
    }

    pub(super) fn level(&self) -> &'static str {
        self.level
    }

    /// The line in its form, with its line feed. `time` is since the epoch.
    pub(super) fn line(&self, form: &Form, time: Option<Duration>) -> String {
        let mut line = String::with_capacity(128);
        match form.format {
            LogFormat::Text => {
                if let Some(time) = time {
                    match &form.stamp {
                        Some(stamp) => stamp::push(&mut line, stamp, time),
                        None => push_time(&mut line, time),
                    }
                    line.push(' ');
                }
                line.push_str(self.level);
                line.push(' ');
                self.push_words(&mut line);
            }
            LogFormat::Sol => {
                let _ = write!(line, "{} ", time.unwrap_or_default().as_secs());
                let mut words = String::new();
                self.push_words(&mut words);
                match words.char_indices().nth(SOL_CHARS_MAX) {
                    Some((end, _)) => {
                        line.push_str(&words[..end]);
                        line.push_str("...");
                    }
                    None => line.push_str(&words),
                }
            }
            LogFormat::Json => self.push_json(&mut line, time),
        }
        line.push('\n');
        line
    }

    fn push_words(&self, line: &mut String) {
        self.message.chars().for_each(|c| push_escaped(line, c));
        for (name, value) in &self.fields {
            let _ = write!(line, " {name}=");
            let plain = |c: char| !(c.is_whitespace() || c == '"' || c == '\\' || needs_escape(c));
            if !value.is_empty() && value.chars().all(plain) {
                line.push_str(value);
                continue;
            }
            line.push('"');
            for c in value.chars() {
                if c == '"' || c == '\\' {
                    line.push('\\');
                }
                push_escaped(line, c);
            }
            line.push('"');
        }
    }

    fn push_json(&self, line: &mut String, time: Option<Duration>) {
        line.push('{');
        if let Some(time) = time {
            line.push_str("\"time\":\"");
            push_time(line, time);
            line.push_str("\",");
        }
        let _ = write!(line, "\"level\":\"{}\",\"message\":", self.level);
        push_json_string(line, &self.message);
        for (name, value) in &self.fields {
            let _ = write!(line, ",\"{name}\":");
            push_json_string(line, value);
        }
        line.push('}');
    }
}

/// Whether `c` could end a line, move a cursor or turn the direction of the text around it.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{061C}')
}

fn push_escaped(line: &mut String, c: char) {
    match c {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        c if needs_escape(c) => {
            let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
        }
        c => line.push(c),
    }
}

fn push_json_string(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                line.push('\\');
                line.push(c);
            }
            c if needs_escape(c) => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn push_time(line: &mut String, time: Duration) {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let milli = time.subsec_millis();
    let _ = write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
    );
}

/// Year, month and day of a number of days since 1970-01-01. Years are counted from March, so that the leap day is the
/// last of its year; an era is the 400 years after which the calendar repeats.
pub(super) fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str, fields: &[(&'static str, &str)]) -> Record {
        let mut record = Record::new("INFO");
        record.push("message", message.to_owned());
        fields
            .iter()
            .for_each(|(name, value)| record.push(name, (*value).to_owned()));
        record
    }

    const TIME: Option<Duration> = Some(Duration::from_millis(1_709_208_000_042));

    /// The three forms of one event.
    #[test]
    fn forms() {
        let record = record("client gone", &[("client", "a b"), ("code", "0x82"), ("user", "")]);
        assert_eq!(
            record.line(&LogFormat::Text.into(), TIME),
            "2024-02-29T12:00:00.042Z INFO client gone client=\"a b\" code=0x82 user=\"\"\n"
        );
        assert_eq!(
            record.line(&LogFormat::Sol.into(), TIME),
            "1709208000 client gone client=\"a b\" code=0x82 user=\"\"\n"
        );
        assert_eq!(
            record.line(&LogFormat::Json.into(), TIME),
            "{\"time\":\"2024-02-29T12:00:00.042Z\",\"level\":\"INFO\",\"message\":\"client gone\",\
             \"client\":\"a b\",\"code\":\"0x82\",\"user\":\"\"}\n"
        );
        assert_eq!(record.line(&LogFormat::Json.into(), None).find("time"), None);
    }

    /// What a client chose cannot end a line, forge a field, colour a terminal or turn its text around.
    #[test]
    fn clients_forge_nothing() {
        let hostile = "x\n1 ERROR\r\u{1b}[31m\u{202e}\" a=\"b\\";
        let line = record("m", &[("client", hostile)]).line(&LogFormat::Text.into(), None);
        assert_eq!(
            line,
            "INFO m client=\"x\\n1 ERROR\\r\\u{1b}[31m\\u{202e}\\\" a=\\\"b\\\\\"\n"
        );
        let line = record("m\nn", &[("client", hostile)]).line(&LogFormat::Json.into(), None);
        assert_eq!(
            line,
            "{\"level\":\"INFO\",\"message\":\"m\\u000an\",\
             \"client\":\"x\\u000a1 ERROR\\u000d\\u001b[31m\\u202e\\\" a=\\\"b\\\\\"}\n"
        );
    }

    /// The old broker's form is cut at 120 characters, not bytes.
    #[test]
    fn sol_form_is_cut() {
        let line = record(&"é".repeat(121), &[]).line(&LogFormat::Sol.into(), TIME);
        assert_eq!(line, format!("1709208000 {}...\n", "é".repeat(120)));
        let line = record(&"é".repeat(120), &[]).line(&LogFormat::Sol.into(), TIME);
        assert!(!line.contains("..."));
    }

    /// Values are bounded while they are formatted, at a character's end.
    #[test]
    fn values_are_bounded() {
        let text = Bounded::format(FIELD_BYTES_MAX, format_args!("a{}{}", "é".repeat(400), "more"));
        assert_eq!(text, format!("a{}...", "é".repeat(127)));
        assert_eq!(Bounded::format(3, format_args!("{}", "abc")), "abc");
    }

    /// Days become dates on both sides of leap days and centuries.
    #[test]
    fn dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }
}
