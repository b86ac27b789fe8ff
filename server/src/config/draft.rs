//! Turns lines into a [`Config`]: one line at a time by the table, then what holds between lines.

use super::defaults::{TOPIC_ALIASES, TOPIC_ALIASES_SOL, defaults};
use super::dialect::is_sol_only;
use super::directives::{Directive, Scope, by_prefix, named, nearest, suggestion};
use super::include;
use super::later::later;
use super::lexer::{self, Line};
use super::listener::UNIX_PATH_BYTES_MAX;
use super::place::{Place, Places};
use super::reader::{Fault, Reader, fault, shorten};
use super::sol::SolProtocols;
use super::tls::TlsDraft;
use super::tokens::{HttpDraft, JwtDraft};
use super::{
    Address, Authenticator, CertificateName, Config, Diagnostic, Dialect, Host, Levels, Listener, LogStream, Network,
    Refused,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const PORT: u16 = 1883;
/// Places to listen at in one file.
const LISTENERS_MAX: usize = 256;

/// A configuration in the making, with what must be remembered until the last line.
pub(crate) struct Draft {
    pub(crate) config: Config,
    pub(crate) host: Host,
    /// Who may connect, at all listeners.
    pub(crate) everywhere: Security,
    /// The listener of `port` and `bind_address`, and of what stands above the first `listener`.
    pub(crate) default: Part,
    pub(crate) parts: Vec<Part>,
    pub(crate) per_listener: bool,
    pub(crate) clientid_prefixes: Option<String>,
    pub(crate) headers_bytes_max: Option<u16>,
    pub(crate) port: Option<(u16, Place)>,
    pub(crate) bind_address: Option<(String, Place)>,
    /// A directory whose files are read before the next line.
    pub(crate) include: Option<PathBuf>,
    pub(crate) sol_port: Option<(u16, Place)>,
    pub(crate) sol_protocols: Option<SolProtocols>,
    pub(crate) sol_host: Option<(String, Place)>,
    pub(crate) sol_unix: Option<(PathBuf, Place)>,
    current: Current,
    /// The first directive that `per_listener_settings` would have changed.
    first_security: Option<(&'static str, Place)>,
    /// How many files include the one that is read.
    depth: usize,
    log_dest_given: bool,
    log_type_given: bool,
}

/// Whose the directives of a listener are.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Current {
    /// No listener stands above them.
    Nobodys,
    /// The one of `port` and `bind_address`.
    Default,
    /// This one of the `listener`s.
    One(usize),
}

/// A listener in the making.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Part {
    pub(crate) listener: Listener,
    pub(crate) security: Security,
    pub(crate) tls: TlsDraft,
    pub(crate) proxy: ProxyDraft,
    pub(crate) names: NamesDraft,
}

impl Part {
    pub(crate) fn new(dialect: Dialect, address: Address, place: Place) -> Self {
        let aliases = match dialect {
            Dialect::Sol => TOPIC_ALIASES_SOL,
            Dialect::Listener => TOPIC_ALIASES,
        };
        Self {
            listener: Listener::new(address, place, aliases),
            security: Security::default(),
            tls: TlsDraft::default(),
            proxy: ProxyDraft::default(),
            names: NamesDraft::default(),
        }
    }
}

/// What the lines say of who may connect.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Security {
    pub(crate) allow_anonymous: Option<bool>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) acl_file: Option<PathBuf>,
    pub(crate) allow_zero_length_clientid: Option<bool>,
    pub(crate) auto_id_prefix: Option<String>,
    pub(crate) jwt: JwtDraft,
    pub(crate) http: HttpDraft,
    pub(crate) order: Option<Vec<Authenticator>>,
}

/// What the lines say of the proxies before a listener.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ProxyDraft {
    pub(crate) version: Option<u8>,
    pub(crate) trusted: Vec<Network>,
    pub(crate) requires_tls: bool,
}

/// What the lines say of the names in clients' certificates.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NamesDraft {
    pub(crate) common: bool,
    pub(crate) subject: bool,
}

impl NamesDraft {
    /// Of two that are asked for the Common Name counts, as in Mosquitto.
    pub(crate) const fn settle(&self) -> Option<CertificateName> {
        match (self.common, self.subject) {
            (true, _) => Some(CertificateName::CommonName),
            (false, true) => Some(CertificateName::Subject),
            (false, false) => None,
        }
    }
}

/// Reads all lines of a file and reports every fault in it.
pub(crate) fn read(path: &Path, lines: &[Line<'_>], host: &Host) -> Result<Config, Refused> {
    let dialect = Dialect::of(lines);
    let mut draft = Draft::new(dialect, host);
    let mut errors = Vec::new();
    draft.file(&Arc::from(path), lines, &mut errors);
    draft.finish(path, &mut errors);
    draft.config.source = Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    if errors.is_empty() {
        Ok(draft.config)
    } else {
        Err(Refused {
            errors,
            warnings: draft.config.warnings,
        })
    }
}

type Warnings = Vec<(usize, String)>;

impl Draft {
    pub(crate) fn new(dialect: Dialect, host: &Host) -> Self {
        let address = Address::Tcp { host: None, port: PORT };
        Self {
            config: defaults(dialect, host),
            host: *host,
            everywhere: Security::default(),
            default: Part::new(dialect, address, Place::nowhere()),
            parts: Vec::new(),
            per_listener: false,
            clientid_prefixes: None,
            headers_bytes_max: None,
            port: None,
            bind_address: None,
            include: None,
            sol_port: None,
            sol_protocols: None,
            sol_host: None,
            sol_unix: None,
            current: Current::Nobodys,
            first_security: None,
            depth: 0,
            log_dest_given: false,
            log_type_given: false,
        }
    }

    /// What runs without a file.
    pub(crate) fn config_without_lines(mut self) -> Config {
        self.finish(Path::new(""), &mut Vec::new());
        self.config
    }

    fn file(&mut self, path: &Arc<Path>, lines: &[Line<'_>], errors: &mut Vec<Diagnostic>) {
        for line in lines {
            let mut warnings = Vec::new();
            if let Err(Fault { column, text }) = self.line(path, line, &mut warnings) {
                errors.push(Diagnostic::at(path, line.number, column, text));
            }
            let placed = warnings
                .into_iter()
                .map(|(column, text)| Diagnostic::at(path, line.number, column, text));
            self.config.warnings.extend(placed);
            if let Some(directory) = self.include.take() {
                self.included(path, line, &directory, errors);
            }
        }
    }

    /// Reads the files of a directory, each as if it began anew: what it says of a listener is never said of one outside.
    fn included(&mut self, path: &Arc<Path>, line: &Line<'_>, directory: &Path, errors: &mut Vec<Diagnostic>) {
        if self.depth > 0 {
            let text = "include_dir stands in the main file alone";
            return errors.push(Diagnostic::at(path, line.number, 1, text));
        }
        self.config.include_dirs.push(directory.to_owned());
        let files = match include::files(directory) {
            Ok(files) => files,
            Err((at, text)) => {
                let text = format!("{} {text}", at.display());
                return errors.push(Diagnostic::at(path, line.number, 0, text));
            }
        };
        self.depth += 1;
        for (path, bytes) in files {
            let before = std::mem::replace(&mut self.current, Current::Nobodys);
            match lexer::lex(&path, &bytes) {
                Ok(lines) => self.file(&Arc::from(path), &lines, errors),
                Err(faults) => errors.extend(faults),
            }
            self.current = before;
        }
        self.depth -= 1;
    }

    fn line(&mut self, path: &Arc<Path>, line: &Line<'_>, warnings: &mut Warnings) -> Result<(), Fault> {
        let Some(directive) = self.directive(line, warnings)? else {
            return Ok(());
        };
        let dialect = self.config.dialect;
        if dialect == Dialect::Sol && line.values.is_empty() {
            warnings.push((
                line.key.column,
                format!("`{}` has no value, its default stays", line.key.text),
            ));
            return Ok(());
        }
        if directive.scope == Scope::ListenerAbove && self.current == Current::Nobodys {
            let text = format!("`{}` stands below the `listener` that it is for", directive.name);
            return Err(fault(line.key, text));
        }
        let mut reader = Reader::new(line, dialect, path);
        self.once(directive, &reader.place(), line, warnings)?;
        let result = (directive.apply)(self, &mut reader).and_then(|()| reader.finish());
        warnings.append(&mut reader.warnings);
        if let (Some(why), Ok(())) = (directive.no_effect, &result) {
            warnings.push((0, format!("{} has no effect: {why}", directive.name)));
        }
        result
    }

    /// The listener that a line speaks of.
    pub(crate) fn part(&mut self) -> &mut Part {
        match self.current {
            Current::One(index) => &mut self.parts[index],
            Current::Nobodys | Current::Default => &mut self.default,
        }
    }

    /// Who may connect: at all listeners, or at the one that a line speaks of.
    pub(crate) fn security(&mut self) -> &mut Security {
        if self.per_listener {
            &mut self.part().security
        } else {
            &mut self.everywhere
        }
    }

    /// What follows speaks of the listener of `port` and `bind_address`.
    pub(crate) fn go_on_with_default(&mut self) {
        self.current = Current::Default;
    }

    pub(crate) fn per_listener_settings(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let wanted = reader.switch()?;
        if let (true, Some((name, place))) = (wanted != self.per_listener, &self.first_security) {
            let text = format!(
                "per_listener_settings stands above all directives that it changes, but `{name}` stands on {} already",
                said(place, &reader.place())
            );
            return Err(Fault { column: 0, text });
        }
        self.per_listener = wanted;
        Ok(())
    }

    /// Finds the directive of a line; `None` if the line is to be ignored.
    fn directive(&self, line: &Line<'_>, warnings: &mut Warnings) -> Result<Option<&'static Directive>, Fault> {
        let (dialect, key) = (self.config.dialect, line.key);
        if let Some(directive) = named(dialect, key.text) {
            return Ok(Some(directive));
        }
        match dialect {
            Dialect::Listener => Err(fault(key, unknown_directive(key.text))),
            Dialect::Sol => {
                if key.text.starts_with('#') {
                    let text = "taken for a comment, though a comment starts in the first column".to_owned();
                    warnings.push((key.column, text));
                    return Ok(None);
                }
                if let Some(directive) = by_prefix(key.text) {
                    warnings.push((key.column, format!("`{}` is read as {}", key.text, directive.name)));
                    return Ok(Some(directive));
                }
                if later(key.text).is_some() || named(Dialect::Listener, key.text).is_some() {
                    let text = format!("`{}` does not exist in a sol file: {MIXED}", key.text);
                    return Err(fault(key, text));
                }
                let near = suggestion(nearest(dialect, key.text));
                warnings.push((
                    key.column,
                    format!("unknown key `{}` is ignored{near}", shorten(key.text)),
                ));
                Ok(None)
            }
        }
    }

    /// The last of several lines won in the old broker; elsewhere a second line is a fault, unless it stands in another
    /// file: then it was meant to win.
    fn once(
        &mut self,
        directive: &Directive,
        place: &Place,
        line: &Line<'_>,
        warnings: &mut Warnings,
    ) -> Result<(), Fault> {
        if directive.scope == Scope::Security && self.first_security.is_none() {
            self.first_security = Some((directive.name, place.clone()));
        }
        let Some(before) = self.places(directive.scope).note(directive.name, place.clone()) else {
            return Ok(());
        };
        if directive.repeats {
            return Ok(());
        }
        let before_said = said(&before, place);
        if self.config.dialect == Dialect::Sol || *before.path != *place.path {
            warnings.push((line.key.column, format!("wins over {before_said}")));
            return Ok(());
        }
        let text = format!("`{}` stands on {before_said} already", directive.name);
        Err(fault(line.key, text))
    }

    fn places(&mut self, scope: Scope) -> &mut Places {
        match scope {
            Scope::Broker => &mut self.config.places,
            Scope::Security if !self.per_listener => &mut self.config.places,
            Scope::Security | Scope::Listener | Scope::ListenerAbove => &mut self.part().listener.places,
        }
    }

    pub(crate) fn sol_unix_socket(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let token = reader.word()?;
        let path = unix_path(token.text).map_err(|text| fault(token, text))?;
        if let Some((host, place)) = self.sol_host.take() {
            let line = place.line;
            let text = format!("wins over ip_address {host} of line {line}: a sol file has one listener");
            reader.warnings.push((0, text));
        }
        self.sol_unix = Some((path, reader.place()));
        Ok(())
    }

    pub(crate) fn sol_ip_address(&mut self, host: &str, reader: &mut Reader<'_>) {
        if let Some((path, place)) = self.sol_unix.take() {
            let text = format!(
                "wins over unix_socket {} of line {}: a sol file has one listener",
                path.display(),
                place.line
            );
            reader.warnings.push((0, text));
        }
        self.sol_host = Some((host.to_owned(), reader.place()));
    }

    pub(crate) fn listener(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let port = reader.number(0, u16::MAX)?;
        let address = match reader.optional() {
            Some(place) if place.text.starts_with('/') => {
                let path = unix_path(place.text).map_err(|text| fault(place, text))?;
                if port != 0 {
                    return Err(fault(place, "a Unix socket has port 0"));
                }
                Address::Unix(path)
            }
            place if port > 0 => Address::Tcp {
                host: place.map(|place| place.text.to_owned()),
                port,
            },
            _ => {
                return Err(Fault {
                    column: 0,
                    text: "port 0 needs the path of a Unix socket".to_owned(),
                });
            }
        };
        if self.parts.len() == LISTENERS_MAX {
            return Err(Fault {
                column: 0,
                text: format!("more than {LISTENERS_MAX} listeners"),
            });
        }
        self.parts.push(Part::new(self.config.dialect, address, reader.place()));
        self.current = Current::One(self.parts.len() - 1);
        Ok(())
    }

    pub(crate) fn log_dest(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let token = reader.word()?;
        let log = &mut self.config.log;
        if !std::mem::replace(&mut self.log_dest_given, true) {
            log.stream = LogStream::None;
        }
        match token.text {
            "stderr" => log.stream = LogStream::Stderr,
            "stdout" => log.stream = LogStream::Stdout,
            "file" => log.file = Some(reader.path()?),
            "syslog" => log.syslog = true,
            "topic" => log.topic = true,
            "none" => {
                (log.stream, log.file) = (LogStream::None, None);
                (log.syslog, log.topic) = (false, false);
            }
            "dlt" | "android" => {
                let text = format!(
                    "log_dest {} has no effect: only a car or a telephone has it",
                    token.text
                );
                reader.warnings.push((token.column, text));
            }
            other => {
                let text = format!("`{other}` is none of stderr, stdout, syslog, topic, none, file");
                return Err(fault(token, text));
            }
        }
        Ok(())
    }

    pub(crate) fn log_type(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let levels = reader.with(|text| match text {
            "error" => Ok(Levels::ERROR),
            "warning" => Ok(Levels::WARNING),
            "notice" | "information" => Ok(Levels::INFO),
            "debug" => Ok(Levels::DEBUG),
            "all" => Ok(Levels::ALL),
            "none" => Ok(Levels::NONE),
            "subscribe" | "unsubscribe" | "websockets" | "internal" => Ok(Levels::DEBUG),
            other => Err(format!(
                "`{other}` is none of error, warning, notice, information, debug, all, none"
            )),
        })?;
        let first = !std::mem::replace(&mut self.log_type_given, true);
        let before = if first || levels == Levels::NONE {
            Levels::NONE
        } else {
            self.config.log.levels
        };
        self.config.log.levels = before.with(levels);
        Ok(())
    }
}

/// Names a line to whoever reads about another one: by its file only where that is another.
fn said(place: &Place, from: &Place) -> String {
    if *place.path == *from.path {
        format!("line {}", place.line)
    } else {
        format!("line {} of {}", place.line, place.path.display())
    }
}

const MIXED: &str = "one file is either in the old broker's dialect or in Mosquitto's";

fn unknown_directive(name: &str) -> String {
    if let Some(sentence) = later(name) {
        return format!("`{name}`: {sentence}");
    }
    if is_sol_only(name) || named(Dialect::Sol, name).is_some() {
        return format!("`{name}` exists only in a sol file: {MIXED}");
    }
    let near = suggestion(nearest(Dialect::Listener, name));
    format!("unknown directive `{}`{near}", shorten(name))
}

fn unix_path(text: &str) -> Result<PathBuf, String> {
    let path = std::path::absolute(text).map_err(|_| format!("`{text}` is not a path"))?;
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes"
        ));
    }
    Ok(path)
}
