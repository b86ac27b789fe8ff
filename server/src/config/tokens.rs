//! The directives about logins by JSON Web Tokens and by an HTTP hook, and the order in which those are asked who know
//! clients.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::directives::{Directive, Scope};
use super::draft::Draft;
use super::reader::{Fault, Reader, fault};
use super::show::{not_one_of, one, optional, path};
use crate::jwt::KeySource;

/// Files of keys of one listener.
const FILES_MAX: usize = 16;
/// Which claim is the User Name, unless a line says so.
pub(crate) const USERNAME_CLAIM: &str = "sub";

/// Who knows clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Authenticator {
    /// The password file.
    PasswordFile,
    /// JSON Web Tokens.
    Jwt,
    /// An HTTP hook.
    Http,
}

impl Authenticator {
    /// All, in the order in which they are asked by default.
    pub(crate) const ALL: [Self; 3] = [Self::PasswordFile, Self::Jwt, Self::Http];

    /// The directive that brings it.
    pub(crate) const fn directive(self) -> &'static str {
        match self {
            Self::PasswordFile => "password_file",
            Self::Jwt => "jwt_key_file",
            Self::Http => "http_auth_url",
        }
    }
}

impl fmt::Display for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PasswordFile => "password_file",
            Self::Jwt => "jwt",
            Self::Http => "http",
        })
    }
}

/// What a listener takes as a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Jwt {
    /// The files of keys, and what each is; at least one.
    pub keys: Vec<(KeySource, PathBuf)>,
    /// The claim that is the User Name.
    pub username_claim: String,
    /// What `aud` has to name.
    pub audience: Option<String>,
    /// What `iss` has to be.
    pub issuer: Option<String>,
}

/// The longest that an HTTP hook may take, and that its answers may be remembered.
const HTTP_TIMEOUT_MAX: Duration = Duration::from_secs(30);
const HTTP_CACHE_MAX: Duration = Duration::from_secs(86_400);
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);

/// Who is asked over HTTP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpAuth {
    /// Where.
    pub url: String,
    /// The authorities that its certificate is checked against.
    pub cafile: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long a login that was let in is remembered; zero is not at all.
    pub cache: Duration,
}

impl HttpAuth {
    /// Whether its certificate is checked against the authorities that the system trusts.
    pub(crate) fn trusts_system(&self) -> bool {
        self.url.starts_with("https://") && self.cafile.is_none()
    }

    /// The port that is connected to.
    pub(crate) fn port(&self) -> u16 {
        let uri = self.url.parse::<ureq::http::Uri>().ok();
        let usual = if self.url.starts_with("https://") { 443 } else { 80 };
        uri.and_then(|uri| uri.port_u16()).unwrap_or(usual)
    }
}

/// What the lines say of the HTTP hook.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HttpDraft {
    pub(crate) url: Option<String>,
    pub(crate) cafile: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cache: Option<Duration>,
}

impl HttpDraft {
    /// What the lines mean together; or the directive that is at fault, and why.
    pub(crate) fn settle(self) -> Result<Option<HttpAuth>, (&'static str, &'static str)> {
        let Some(url) = self.url else {
            let alone = [
                ("http_auth_cafile", self.cafile.is_some()),
                ("http_auth_timeout", self.timeout.is_some()),
                ("http_auth_cache", self.cache.is_some()),
            ];
            let alone = alone.into_iter().find(|(_, given)| *given);
            return alone.map_or(Ok(None), |(name, _)| Err((name, "has no effect without http_auth_url")));
        };
        if !url.starts_with("https://") && self.cafile.is_some() {
            return Err(("http_auth_cafile", "has no effect where http_auth_url is not https"));
        }
        Ok(Some(HttpAuth {
            url,
            cafile: self.cafile,
            timeout: self.timeout.unwrap_or(HTTP_TIMEOUT),
            cache: self.cache.unwrap_or_default(),
        }))
    }
}

/// What the lines say of tokens.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct JwtDraft {
    pub(crate) keys: Vec<(KeySource, PathBuf)>,
    pub(crate) username_claim: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) issuer: Option<String>,
}

impl JwtDraft {
    /// What the lines mean together; or the directive that means nothing without keys.
    pub(crate) fn settle(self) -> Result<Option<Jwt>, &'static str> {
        if self.keys.is_empty() {
            let alone = [
                ("jwt_username_claim", self.username_claim.is_some()),
                ("jwt_audience", self.audience.is_some()),
                ("jwt_issuer", self.issuer.is_some()),
            ];
            let alone = alone.into_iter().find(|(_, given)| *given);
            return alone.map_or(Ok(None), |(name, _)| Err(name));
        }
        Ok(Some(Jwt {
            keys: self.keys,
            username_claim: self.username_claim.unwrap_or_else(|| USERNAME_CLAIM.to_owned()),
            audience: self.audience,
            issuer: self.issuer,
        }))
    }
}

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "jwt_key_file",
        "HS256|RS256|ES256|EdDSA|JWKS PATH",
        "none: no tokens",
        "Who signs tokens (JWT) that clients may show as their Password: a secret, public keys in PEM, or a JSON Web Key \
         Set; may be given several times.",
        key_file,
    )
    .own()
    .of(Scope::Security)
    .repeated()
    .shown_each(|listener| {
        let keys = listener.auth.jwt.iter().flat_map(|jwt| &jwt.keys);
        keys.map(|(source, path)| format!("{source} {}", path.display())).collect()
    }),
    Directive::new(
        "jwt_username_claim",
        "NAME",
        USERNAME_CLAIM,
        "The claim of a token that is the User Name, whatever the client gave.",
        |draft, reader| {
            draft.security().jwt.username_claim = Some(reader.rest()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| optional(listener.auth.jwt.as_ref().map(|jwt| &jwt.username_claim))),
    Directive::new(
        "jwt_audience",
        "TEXT",
        "none: a token must not name any",
        "Whom tokens have to be for: their claim aud is this, or a list with it.",
        |draft, reader| {
            draft.security().jwt.audience = Some(reader.rest()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| optional(listener.auth.jwt.as_ref().and_then(|jwt| jwt.audience.as_ref()))),
    Directive::new(
        "jwt_issuer",
        "TEXT",
        "none: anybody who has a key",
        "Who has to have issued tokens: their claim iss.",
        |draft, reader| {
            draft.security().jwt.issuer = Some(reader.rest()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| optional(listener.auth.jwt.as_ref().and_then(|jwt| jwt.issuer.as_ref()))),
    Directive::new(
        "http_auth_url",
        "URL",
        "none: nobody is asked",
        "Who is asked over HTTP, once at each CONNECT with a user name or a password, whether its client is to be let in.",
        url,
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| optional(listener.auth.http.as_ref().map(|http| &http.url))),
    Directive::new(
        "http_auth_cafile",
        "PATH",
        "none: those that the system trusts",
        "The authorities that the certificate of http_auth_url is checked against.",
        |draft, reader| {
            draft.security().http.cafile = Some(reader.path()?);
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| path(listener.auth.http.as_ref().and_then(|http| http.cafile.as_deref()))),
    Directive::new(
        "http_auth_timeout",
        "SECONDS",
        "3s",
        "How long an answer of http_auth_url may take; without one nobody is let in.",
        |draft, reader| {
            draft.security().http.timeout = Some(span(reader, Duration::from_secs(1), HTTP_TIMEOUT_MAX)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| optional(listener.auth.http.as_ref().map(|http| format!("{}s", http.timeout.as_secs())))),
    Directive::new(
        "http_auth_cache",
        "SECONDS",
        "0s, which is not at all",
        "How long a login that http_auth_url has let in is let in again without asking.",
        |draft, reader| {
            draft.security().http.cache = Some(span(reader, Duration::ZERO, HTTP_CACHE_MAX)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| optional(listener.auth.http.as_ref().map(|http| format!("{}s", http.cache.as_secs())))),
    Directive::new(
        "auth_order",
        "NAME…",
        "password_file jwt http, those that there are",
        "In which order those are asked who know clients; the first that knows one decides.",
        order,
    )
    .own()
    .of(Scope::Security)
    .shown_each(|listener| {
        let names: Vec<_> = listener.auth.order.iter().map(ToString::to_string).collect();
        if names.len() < 2 { Vec::new() } else { one(names.join(" ")) }
    }),
];

fn span(reader: &mut Reader<'_>, min: Duration, max: Duration) -> Result<Duration, Fault> {
    let column = reader.column();
    let span = reader.seconds()?;
    if span < min || span > max {
        let text = format!("a time from {} to {} seconds", min.as_secs(), max.as_secs());
        return Err(Fault { column, text });
    }
    Ok(span)
}

fn url(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.word()?;
    let rest = token
        .text
        .strip_prefix("http://")
        .or_else(|| token.text.strip_prefix("https://"));
    let host = rest
        .and_then(|rest| rest.split(['/', '?', '#']).next())
        .unwrap_or_default();
    if host.is_empty() || token.text.parse::<ureq::http::Uri>().is_err() {
        return Err(fault(
            token,
            format!("`{}` is no URL that begins with http:// or https://", token.text),
        ));
    }
    if host.contains('@') {
        return Err(fault(
            token,
            "a URL with a password in it would be shown to whoever reads this".to_owned(),
        ));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if token.text.starts_with("http://") && !["127.0.0.1", "localhost", "[::1]"].contains(&name) {
        let text = "passwords are sent there as they are: whoever is on the way can read them; use https";
        reader.warnings.push((token.column, text.to_owned()));
    }
    draft.security().http.url = Some(token.text.to_owned());
    Ok(())
}

fn key_file(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let source = reader.with(|text| {
        let known = KeySource::ALL.into_iter().find(|source| source.to_string() == text);
        known.ok_or_else(|| not_one_of(text, &KeySource::ALL))
    })?;
    let column = reader.column();
    let path = reader.path()?;
    let keys = &mut draft.security().jwt.keys;
    if keys.len() == FILES_MAX {
        let text = format!("more than {FILES_MAX} files of keys");
        return Err(Fault { column, text });
    }
    keys.push((source, path));
    Ok(())
}

fn order(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let mut order = Vec::new();
    let mut next = Some(reader.word()?);
    while let Some(token) = next {
        let known = Authenticator::ALL
            .into_iter()
            .find(|known| known.to_string() == token.text);
        let known = known.ok_or_else(|| fault(token, not_one_of(token.text, &Authenticator::ALL)))?;
        if order.contains(&known) {
            return Err(fault(token, format!("`{known}` stands in it twice")));
        }
        order.push(known);
        next = reader.optional();
    }
    draft.security().order = Some(order);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Host};

    fn read(text: &str) -> Result<Config, String> {
        let config = Config::parse("f".as_ref(), text.as_bytes(), &Host::default());
        config.map_err(|refused| refused.errors[0].to_string())
    }

    /// Tokens are those of the listener, or of all; what is printed is read back as the same.
    #[test]
    fn tokens_of_listeners() {
        let text = "per_listener_settings true\nlistener 1 127.0.0.1\njwt_key_file HS256 /s\njwt_key_file JWKS /k s\n\
                    jwt_audience a b\njwt_issuer i\njwt_username_claim name\npassword_file /p\nauth_order jwt password_file\n\
                    listener 2 127.0.0.1\npassword_file /p\n";
        let config = read(text).unwrap();
        let auth = &config.listeners[0].auth;
        let wanted = Jwt {
            keys: vec![(KeySource::ALL[0], "/s".into()), (KeySource::Set, "/k s".into())],
            username_claim: "name".to_owned(),
            audience: Some("a b".to_owned()),
            issuer: Some("i".to_owned()),
        };
        assert_eq!(auth.jwt.as_ref(), Some(&wanted));
        assert_eq!(auth.order, [Authenticator::Jwt, Authenticator::PasswordFile]);
        let other = &config.listeners[1].auth;
        assert_eq!((&other.jwt, &*other.order), (&None, &[Authenticator::PasswordFile][..]));
        let printed = config.to_directives();
        let again = read(&printed).unwrap();
        assert_eq!(again.listeners[0].auth, *auth, "{printed}");
        let all = read("listener 1\nlistener 2\njwt_key_file ES256 /k\n").unwrap();
        assert!(all.listeners.iter().all(|listener| listener.auth.jwt.is_some()));
        assert!(all.warnings.is_empty(), "{:?}", all.warnings);
    }

    /// What is wrong is said with its line.
    #[test]
    fn faults() {
        for (lines, fault) in [
            (
                "jwt_key_file none /k",
                "f:2:14: `none` is none of HS256, RS256, ES256, EdDSA, JWKS",
            ),
            (
                "jwt_key_file hs256 /k",
                "f:2:14: `hs256` is none of HS256, RS256, ES256, EdDSA, JWKS",
            ),
            ("jwt_issuer x", "f:2: `jwt_issuer` has no effect without jwt_key_file"),
            ("auth_order ldap", "f:2:12: `ldap` is none of password_file, jwt, http"),
            (
                "http_auth_cache 1s",
                "f:2: `http_auth_cache` has no effect without http_auth_url",
            ),
            (
                "http_auth_url ftp://x",
                "f:2:15: `ftp://x` is no URL that begins with http:// or https://",
            ),
            (
                "http_auth_url http:///x",
                "f:2:15: `http:///x` is no URL that begins with http:// or https://",
            ),
            (
                "http_auth_url http://u:p@x/",
                "f:2:15: a URL with a password in it would be shown to whoever reads this",
            ),
            (
                "http_auth_url http://127.0.0.1/\nhttp_auth_timeout 0s",
                "f:3:19: a time from 1 to 30 seconds",
            ),
            (
                "http_auth_url http://127.0.0.1/\nhttp_auth_cafile /ca",
                "f:3: `http_auth_cafile` has no effect where http_auth_url is not https",
            ),
            ("auth_order jwt jwt", "f:2:16: `jwt` stands in it twice"),
            (
                "jwt_key_file JWKS /k\nauth_order password_file",
                "f:3: `auth_order` has to name those that there are, and no others: jwt",
            ),
        ] {
            assert_eq!(read(&format!("listener 1\n{lines}\n")).unwrap_err(), fault, "{lines}");
        }
    }
}
