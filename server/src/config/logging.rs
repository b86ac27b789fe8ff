//! The directives that say what is written down, how and where.

use super::directives::Directive;
use super::reader::fault;
use super::show::{not_one_of, one, optional};
use super::{Config, Levels, LogFormat, LogStream};
use crate::log::stamp;

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "log_dest",
        "stderr|stdout|syslog|topic|none|file PATH",
        "stderr",
        "Where log lines go; may be given for a stream, a file and the system's log. A file is reopened on SIGHUP.",
        |draft, reader| draft.log_dest(reader),
    )
    .own()
    .repeated()
    .restart()
    .shown(destinations),
    Directive::new(
        "log_type",
        "error|warning|notice|information|debug|all|none",
        "error, warning, notice, information",
        "A kind of line that is written; may be given several times.",
        |draft, reader| draft.log_type(reader),
    )
    .own()
    .repeated()
    .shown(log_types),
    Directive::new(
        "log_format",
        "text|json|sol",
        "text",
        "The form of a log line: for people, for machines, or as the old broker wrote it.",
        |draft, reader| {
            draft.config.log.format = reader.with(|text| {
                let known = [LogFormat::Text, LogFormat::Json, LogFormat::Sol];
                known
                    .into_iter()
                    .find(|format| format.to_string() == text)
                    .ok_or_else(|| not_one_of(text, &known))
            })?;
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(config.log.format)),
    Directive::new(
        "log_timestamp",
        "true|false",
        "true",
        "Whether log lines carry the time.",
        |draft, reader| {
            draft.config.log.timestamp = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .restart()
    .shown(|config| one(config.log.timestamp)),
    Directive::new(
        "log_timestamp_format",
        "FORMAT",
        "the time of RFC 3339, in milliseconds and UTC",
        "How the time of a log line of words is written, in the language of strftime(3) and in UTC.",
        |draft, reader| {
            let format = reader.rest()?;
            stamp::check(format.text).map_err(|text| fault(format, text))?;
            draft.config.log.timestamp_format = Some(format.text.to_owned());
            Ok(())
        },
    )
    .own()
    .restart()
    .shown(|config| optional(config.log.timestamp_format.as_ref())),
    Directive::new(
        "log_facility",
        "0-7",
        "daemon",
        "The local facility that lines for syslog are given.",
        |draft, reader| {
            draft.config.log.facility = Some(reader.number(0, 7)?);
            Ok(())
        },
    )
    .own()
    .restart()
    .shown(|config| optional(config.log.facility)),
    Directive::new(
        "connection_messages",
        "true|false",
        "true",
        "Whether clients that come and go are written down.",
        |draft, reader| {
            draft.config.log.connections = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.log.connections)),
    Directive::new(
        "websockets_log_level",
        "BITS",
        "0",
        "What a library says that is not in use here.",
        |_, reader| reader.number(0, i64::from(u32::MAX)).map(drop),
    )
    .own()
    .without_effect("there is no libwebsockets here, whose lines it chooses"),
];

fn destinations(config: &Config) -> Vec<String> {
    let log = &config.log;
    let stream = match log.stream {
        LogStream::Stderr => Some("stderr".to_owned()),
        LogStream::Stdout => Some("stdout".to_owned()),
        LogStream::None if log.file.is_none() && !log.syslog && !log.topic => Some("none".to_owned()),
        LogStream::None => None,
    };
    let mut shown: Vec<_> = stream.into_iter().collect();
    shown.extend(log.syslog.then(|| "syslog".to_owned()));
    shown.extend(log.topic.then(|| "topic".to_owned()));
    shown.extend(log.file.iter().map(|path| format!("file {}", path.display())));
    shown
}

fn log_types(config: &Config) -> Vec<String> {
    let names = [
        (Levels::ERROR, "error"),
        (Levels::WARNING, "warning"),
        (Levels::INFO, "information"),
        (Levels::DEBUG, "debug"),
    ];
    let shown: Vec<_> = names
        .iter()
        .filter(|(level, _)| config.log.levels.has(*level))
        .map(|(_, name)| (*name).to_owned())
        .collect();
    if shown.is_empty() { one("none") } else { shown }
}
