//! The ACL file, in mosquitto's form: who may read and write which topics.
//!
//! ```text
//! # Lines before the first user are for clients without a User Name.
//! topic read public/#
//!
//! user ann
//! topic house/#
//! topic deny house/safe
//! topic denywrite house/plan
//!
//! pattern readwrite client/%c/#
//! ```
//!
//! A rule is `topic [read|write|readwrite|deny|denyread|denywrite] FILTER`; without the access it is `readwrite`, and only
//! with it may the filter contain spaces. `pattern` lines are for all clients, wherever they stand, with the Client
//! Identifier for `%c` and the User Name for `%u`. `denyread` and `denywrite` are ours: to mosquitto they are no access, so
//! a file with one of them is none of its.
//!
//! What the lines of a user deny comes first, then what they allow, then what patterns deny, then what patterns allow; the
//! rest is denied. So it is with mosquitto, where a pattern takes nothing from a user whose own lines allow it. Two things
//! differ. A name with a `/` in it is not put into a pattern, and none that begins with `$` where a topic begins; mosquitto
//! stops at `+` and `#`. And a filter of which nothing can be read is refused when it is subscribed to; mosquitto grants it
//! and delivers nothing.

use std::path::Path;

use sol_codec::{TopicError, TopicFilter};
use sol_engine::{Access, Rule, RuleSet};

use crate::config::{Diagnostic, reason};
use crate::password_file::{USER_BYTES_MAX, open_to_all, read};

/// Topic Levels of a filter, as many as a topic may have.
pub const FILTER_LEVELS_MAX: usize = 128;

/// What a rule may begin with.
const KEYWORDS: [&str; 3] = ["topic", "pattern", "user"];

const ACCESSES: [(&str, Access); 6] = [
    ("read", Access::Read),
    ("write", Access::Write),
    ("readwrite", Access::ReadWrite),
    ("deny", Access::Deny),
    ("denyread", Access::DenyRead),
    ("denywrite", Access::DenyWrite),
];

/// A fault or a warning: its column, from 1, and a sentence.
type Remark = (usize, String);

/// Reads an ACL file. The warnings are about its mode, and about lines that say something else than they seem to.
///
/// # Errors
/// Every malformed line, or why the file cannot be read, and as whom.
pub fn load(path: &Path) -> Result<(RuleSet, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (bytes, mode) = read(path).map_err(|error| {
        let uid = rustix::process::geteuid().as_raw();
        let text = format!("acl_file cannot be read as uid {uid}: {}", reason(&error));
        vec![Diagnostic::of_file(path, text)]
    })?;
    let (rules, mut warnings) = parse(path, &bytes)?;
    warnings.extend(open_to_all(path, mode));
    Ok((rules, warnings))
}

/// Reads rules from text; `path` is only for messages.
///
/// # Errors
/// Every malformed line.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<(RuleSet, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut rules = RuleSet::default();
    let (mut warnings, mut faults) = (Vec::new(), Vec::new());
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some(Line::User(name))) => rules.users.push((name.to_owned(), Vec::new())),
            Ok(Some(Line::Pattern(rule, remarks))) => {
                rules.patterns.push(rule);
                warnings.extend(remarks.into_iter().map(|remark| at(path, index, remark)));
            }
            Ok(Some(Line::Topic(rule, remarks))) => {
                match rules.users.last_mut() {
                    Some((_, own)) => own.push(rule),
                    None => rules.anonymous.push(rule),
                }
                warnings.extend(remarks.into_iter().map(|remark| at(path, index, remark)));
            }
            Err(fault) => faults.push(at(path, index, fault)),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    if rules.anonymous.is_empty() && rules.patterns.is_empty() && rules.users.iter().all(|(_, own)| own.is_empty()) {
        let text = "there is no rule in it, so nobody may read or write anything";
        warnings.push(Diagnostic::of_file(path, text));
    }
    Ok((rules, warnings))
}

fn at(path: &Path, index: usize, (column, text): Remark) -> Diagnostic {
    Diagnostic::at(path, index + 1, column, text)
}

/// What a line says.
enum Line<'a> {
    User(&'a str),
    Topic(Rule, Vec<Remark>),
    Pattern(Rule, Vec<Remark>),
}

/// Reads a line; `None` for a blank line or a comment.
fn parse_line(line: &[u8]) -> Result<Option<Line<'_>>, Remark> {
    let Ok(text) = std::str::from_utf8(line) else {
        return Err((1, "not UTF-8 text".to_owned()));
    };
    let text = text.trim_ascii_end();
    if text.starts_with('#') {
        return Ok(None);
    }
    let words = text.trim_start_matches(' ');
    if words.is_empty() {
        return Ok(None);
    }
    let column = |rest: &str| text.chars().count() - rest.chars().count() + 1;
    if let Some((before, _)) = text.split_once(|c: char| c.is_control()) {
        let fault = "a control character; words are separated by spaces";
        return Err((before.chars().count() + 1, fault.to_owned()));
    }
    let (keyword, rest) = words.split_once(' ').unwrap_or((words, ""));
    let rest = rest.trim_start_matches(' ');
    match keyword {
        "user" => user(rest).map_err(|text| (column(rest), text)).map(Some),
        "topic" | "pattern" => rule(keyword == "pattern", rest, &column).map(Some),
        _ => Err((column(words), unknown(keyword))),
    }
}

fn unknown(keyword: &str) -> String {
    if keyword.starts_with('#') {
        return "a comment has its `#` in the first column".to_owned();
    }
    let near = KEYWORDS
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, &keyword.to_lowercase()), known))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    match near {
        Some((_, known)) => format!("a line begins with `topic`, `pattern` or `user`; did you mean `{known}`?"),
        None => "a line begins with `topic`, `pattern` or `user`".to_owned(),
    }
}

fn user(name: &str) -> Result<Line<'_>, String> {
    match name.len() {
        0 => Err("a User Name is missing behind `user`".to_owned()),
        1..=USER_BYTES_MAX => Ok(Line::User(name)),
        _ => Err(format!("a User Name has 1 to {USER_BYTES_MAX} bytes")),
    }
}

fn rule<'a>(is_pattern: bool, rest: &str, column: &dyn Fn(&str) -> usize) -> Result<Line<'a>, Remark> {
    let (access, filter) = match rest.split_once(' ') {
        None => (Access::ReadWrite, rest),
        Some((word, filter)) => {
            let known = ACCESSES.iter().find(|(known, _)| *known == word);
            let (_, access) = known.ok_or_else(|| (column(rest), no_access(word)))?;
            (*access, filter.trim_start_matches(' '))
        }
    };
    let here = column(filter);
    check(filter).map_err(|text| (here, text))?;
    let mut remarks = Vec::new();
    let mut remark = |text: String| remarks.push((here, text));
    if !rest.contains(' ') && ACCESSES.iter().any(|(known, _)| *known == filter) {
        remark(format!("`{filter}` alone is a topic of that name, to read and write"));
    }
    if filter.starts_with("$share/") {
        remark("no topic is like this; a Shared Subscription is judged by the filter behind its name".to_owned());
    }
    match (is_pattern, filter.contains("%c") || filter.contains("%u")) {
        (true, false) => remark("a pattern with neither %c nor %u is the same for all clients".to_owned()),
        (false, true) => remark("%c and %u are names in `pattern` lines only; here they are text".to_owned()),
        _ => {}
    }
    let rule = Rule::new(access, filter);
    Ok(if is_pattern {
        Line::Pattern(rule, remarks)
    } else {
        Line::Topic(rule, remarks)
    })
}

fn no_access(word: &str) -> String {
    let known: Vec<_> = ACCESSES.iter().map(|(known, _)| format!("`{known}`")).collect();
    let word: String = word.chars().take(32).collect();
    format!(
        "`{word}` is no access; it is one of {}, and a filter with spaces needs one before it",
        known.join(", ")
    )
}

fn check(filter: &str) -> Result<(), String> {
    let shared = |error| matches!(error, TopicError::InvalidShareName | TopicError::ShareWithoutFilter);
    match TopicFilter::new(filter) {
        Err(TopicError::Empty) => Err("a Topic Filter is missing".to_owned()),
        Err(error) if !shared(error) => Err(format!("not a Topic Filter: {error}")),
        _ if filter.split('/').count() > FILTER_LEVELS_MAX => {
            Err(format!("a Topic Filter has at most {FILTER_LEVELS_MAX} levels here"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
        diagnostics.iter().map(ToString::to_string).collect()
    }

    fn parsed(text: &str) -> (RuleSet, Vec<String>) {
        let (rules, warnings) = parse("acl".as_ref(), text.as_bytes()).unwrap();
        (rules, lines(&warnings))
    }

    fn faults(text: &[u8]) -> Vec<String> {
        lines(&parse("acl".as_ref(), text).unwrap_err())
    }

    /// Every form of a line that mosquitto takes, its example file included, and our two.
    #[test]
    fn lines_are_read() {
        let (rules, warnings) = parsed(
            "# This affects clients with no username.\n\
             topic read $SYS/#\r\n\
             \n   \t\n\
             user roger\n\
             topic foo/bar\n\
             topic   write   two  words/+ \n\
             topic readwrite #\n\
             pattern write $SYS/broker/connection/%c/state\n\
             topic deny a\n\
             \x20topic denyread b\n\
             user  Ann  Smith \n\
             topic denywrite c/#\n\
             user roger\n\
             topic d\n\
             pattern read %u/#",
        );
        let rule = |access, filter| Rule::new(access, filter);
        let wanted = RuleSet {
            anonymous: vec![rule(Access::Read, "$SYS/#")],
            users: vec![
                (
                    "roger".to_owned(),
                    vec![
                        rule(Access::ReadWrite, "foo/bar"),
                        rule(Access::Write, "two  words/+"),
                        rule(Access::ReadWrite, "#"),
                        rule(Access::Deny, "a"),
                        rule(Access::DenyRead, "b"),
                    ],
                ),
                ("Ann  Smith".to_owned(), vec![rule(Access::DenyWrite, "c/#")]),
                ("roger".to_owned(), vec![rule(Access::ReadWrite, "d")]),
            ],
            patterns: vec![
                rule(Access::Write, "$SYS/broker/connection/%c/state"),
                rule(Access::Read, "%u/#"),
            ],
        };
        assert_eq!(rules, wanted);
        assert_eq!(warnings, [""; 0]);
    }

    /// A file is refused for every line that is wrong, each with its place and a sentence; what mosquitto refuses is refused.
    #[test]
    fn faults_have_a_place() {
        let accesses = "it is one of `read`, `write`, `readwrite`, `deny`, `denyread`, `denywrite`, and a filter with \
                        spaces needs one before it";
        let table: [(&[u8], String); 15] = [
            (b"topic", "1:6: a Topic Filter is missing".into()),
            (b"topic  ", "1:6: a Topic Filter is missing".into()),
            (b"\nuser", "2:5: a User Name is missing behind `user`".into()),
            (b"topic a b", format!("1:7: `a` is no access; {accesses}")),
            (b"topic READ b", format!("1:7: `READ` is no access; {accesses}")),
            (b"pattern  rw b", format!("1:10: `rw` is no access; {accesses}")),
            (
                b"topic read a/#/b",
                "1:12: not a Topic Filter: a wildcard shares its level or `#` is not last".into(),
            ),
            (
                b"topic a+",
                "1:7: not a Topic Filter: a wildcard shares its level or `#` is not last".into(),
            ),
            (
                "topic read ü\0".as_bytes(),
                "1:13: a control character; words are separated by spaces".into(),
            ),
            (
                b"topic\tread a",
                "1:6: a control character; words are separated by spaces".into(),
            ),
            (
                b"topics a",
                "1:1: a line begins with `topic`, `pattern` or `user`; did you mean `topic`?".into(),
            ),
            (
                b"  allow a",
                "1:3: a line begins with `topic`, `pattern` or `user`".into(),
            ),
            (
                b" # no comment",
                "1:2: a comment has its `#` in the first column".into(),
            ),
            (b"user \xff", "1:1: not UTF-8 text".into()),
            (
                b"roger:foo",
                "1:1: a line begins with `topic`, `pattern` or `user`".into(),
            ),
        ];
        for (text, fault) in table {
            assert_eq!(faults(text), [format!("acl:{fault}")], "{}", text.escape_ascii());
        }
        assert_eq!(faults(b"topic a b\n# fine\nuser\n").len(), 2, "all are told");
        let deep = |levels| format!("topic read {}", vec!["a"; levels].join("/"));
        assert_eq!(
            faults(deep(129).as_bytes()),
            ["acl:1:12: a Topic Filter has at most 128 levels here"]
        );
        parse("acl".as_ref(), deep(128).as_bytes()).unwrap();
        let long = format!("user {}", "u".repeat(65_536));
        assert_eq!(faults(long.as_bytes()), ["acl:1:6: a User Name has 1 to 65535 bytes"]);
        let long = format!("topic {}", "t".repeat(65_536));
        assert_eq!(
            faults(long.as_bytes()),
            ["acl:1:7: not a Topic Filter: it is longer than 65,535 bytes"]
        );
    }

    /// What is right and says something else than it seems to is warned about.
    #[test]
    fn lines_that_mislead_are_remarked() {
        let warnings = |text: &str| parsed(text).1;
        assert_eq!(
            warnings("topic read"),
            ["acl:1:7: `read` alone is a topic of that name, to read and write"]
        );
        assert_eq!(warnings("topic read read"), [""; 0]);
        assert_eq!(
            warnings("\npattern read a/#"),
            ["acl:2:14: a pattern with neither %c nor %u is the same for all clients"]
        );
        assert_eq!(
            warnings("topic write a/%c"),
            ["acl:1:13: %c and %u are names in `pattern` lines only; here they are text"]
        );
        for shared in ["$share/g/a", "$share/g", "$share//a"] {
            assert_eq!(
                warnings(&format!("topic read {shared}")),
                ["acl:1:12: no topic is like this; a Shared Subscription is judged by the filter behind its name"]
            );
        }
        for nothing in ["", "# only\n", "user ann\nuser bob\n"] {
            assert_eq!(
                warnings(nothing),
                ["acl: there is no rule in it, so nobody may read or write anything"]
            );
        }
    }

    /// A file that cannot be read is refused with the reason; one that others may read is warned about with the command that
    /// closes it.
    #[test]
    fn files_and_their_modes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        let refused = lines(&load(&path).unwrap_err());
        let uid = rustix::process::geteuid().as_raw();
        let reason = format!("{}: acl_file cannot be read as uid {uid}: no such file", path.display());
        assert!(
            refused.len() == 1 && refused[0].to_lowercase().starts_with(&reason.to_lowercase()),
            "{refused:?}"
        );
        fs::write(&path, "topic #\n").unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let (rules, warnings) = load(&path).unwrap();
            assert_eq!(rules.anonymous.len(), 1);
            let text = format!(
                "{0}: open to every user of this machine; run: chmod o-rwx '{0}'",
                path.display()
            );
            assert_eq!(lines(&warnings), if is_open { vec![text] } else { vec![] }, "{mode:o}");
        }
        assert!(load(folder.path()).is_err(), "a folder is no file");
    }
}
