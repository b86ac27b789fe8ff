//! JSON Web Tokens as passwords: who vouches for one, and what it grants. Pure: knows of no file, thread or clock.
//!
//! ```text
//! Password = BASE64URL(header) . BASE64URL(claims) . BASE64URL(signature)          RFC 7519, RFC 7515 section 7.1
//! ```
//!
//! Each key is for one algorithm, which its directive or its kind says; what the header says only chooses among the keys, so
//! that no token makes a public key a secret, or does without one. A token that names its key (`kid`) is checked by those of
//! that name and, unless there are more than a few, by those without one; with more than a few keys it has to. Where a header
//! says to find keys elsewhere is not looked at.
//!
//! The claims: `exp` must be there, and ends the connection, after a year at the latest; `nbf`, `iss` and `aud` are checked; one claim names the user;
//! `acl` says what he may do ([`crate::acl_json`]).

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value};
use sol_engine::{Grant, UnixMillis};
use std::sync::Arc;

use crate::acl_json;

pub use self::keys::{KEYS_MAX, Key, KeySource, load, parse};

mod keys;

/// Longest token, in bytes; what is longer is none.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Keys that one token is tried with.
pub const KEYS_TRIED_MAX: usize = 8;
/// How far the clock of who signs may be ahead of ours, in seconds: by so much a token may be used before its `nbf`.
const LEEWAY_SECONDS: f64 = 60.0;
/// How long a login lasts at most that comes by a token, in milliseconds: a year. Who has one for longer shows it again.
const LOGIN_MILLIS_MAX: u64 = 366 * 24 * 3_600 * 1_000;
/// Longest User Name, in bytes: what an MQTT string holds.
const USER_BYTES_MAX: usize = 65_535;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// HMAC by a secret that both sides have, with SHA-256.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// EdDSA on Curve25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// As RFC 7518 calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// Why a token lets nobody in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nobody who is trusted has signed it.
    Forged(&'static str),
    /// There are too many keys to try all of them: who has signed it was not looked at.
    Untried(&'static str),
    /// It is genuine, and not for now.
    Untimely(&'static str),
    /// It is genuine, and not for us, or not to be understood.
    Unfit(&'static str),
}

/// What tokens have to be.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Who may sign.
    pub keys: Vec<Key>,
    /// The claim that is the User Name.
    pub username_claim: String,
    /// Whom they have to be for. Without it none may say.
    pub audience: Option<String>,
    /// Who has to have issued them.
    pub issuer: Option<String>,
}

/// Whether a password looks like a token, whoever has signed it.
pub fn is_token(password: &[u8]) -> bool {
    Token::parse(password).is_some()
}

impl Tokens {
    /// Whether whoever may log in by these may log in by others, too, under the same name.
    pub(crate) fn are_all_good_by(&self, others: &Self) -> bool {
        let says = |tokens: &Self| {
            (
                tokens.username_claim.clone(),
                tokens.audience.clone(),
                tokens.issuer.clone(),
            )
        };
        says(self) == says(others) && self.keys.iter().all(|key| others.keys.contains(key))
    }

    /// The algorithms of which there are so many keys that a token has to name its own, and whether no name can help since so
    /// many have the same or none.
    pub(crate) fn crowds(&self) -> Vec<(Algorithm, bool)> {
        let crowd = |algorithm| {
            let keys: Vec<_> = self.keys.iter().filter(|key| key.is_for(algorithm)).collect();
            let is_crowded = |name| keys.iter().filter(|key| key.kid() == name).count() > KEYS_TRIED_MAX;
            let is_nameless = keys.iter().any(|key| is_crowded(key.kid()));
            (keys.len() > KEYS_TRIED_MAX).then_some((algorithm, is_nameless))
        };
        Algorithm::ALL.into_iter().filter_map(crowd).collect()
    }

    /// Whom a token names. Says nothing of who has signed it.
    pub(crate) fn user_of(&self, password: &[u8]) -> Option<String> {
        let claims = object(Token::parse(password)?.claims)?;
        Some(claims.get(&self.username_claim)?.as_str()?.to_owned())
    }

    /// What a password grants that is a token; `None` if it is none. `now` is in milliseconds since the Unix epoch.
    pub fn judge(&self, password: &[u8], now: u64) -> Option<Result<Grant, Fault>> {
        let token = Token::parse(password)?;
        Some(self.vouch(&token).and_then(|claims| self.grant(&claims, now)))
    }

    /// The claims of a token that one of the keys has signed.
    fn vouch(&self, token: &Token<'_>) -> Result<Map<String, Value>, Fault> {
        if token.header.contains_key("crit") {
            return Err(Fault::Forged("it demands an extension (crit)"));
        }
        let algorithm = token
            .header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(Fault::Forged("its alg is none of those that are known"))?;
        let kid = match token.header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(&**kid),
            Some(_) => return Err(Fault::Forged("its kid is no text")),
        };
        let signature = decoded(token.signature).ok_or(Fault::Forged("its signature is not Base64url"))?;
        let may_be = |key: &&Key| key.is_for(algorithm) && (kid.is_none() || key.kid().is_none() || key.kid() == kid);
        let mut candidates: Vec<&Key> = self.keys.iter().filter(may_be).collect();
        if candidates.len() > KEYS_TRIED_MAX && candidates.iter().any(|key| kid.is_some() && key.kid() == kid) {
            candidates.retain(|key| key.kid() == kid);
        }
        if candidates.is_empty() {
            return Err(Fault::Forged("there is no key of its alg and kid"));
        }
        // What nobody has signed would have all of them tried.
        if candidates.len() > KEYS_TRIED_MAX {
            return Err(Fault::Untried("its kid does not say which of many keys has signed it"));
        }
        if !candidates.iter().any(|key| key.verifies(token.signed, &signature)) {
            return Err(Fault::Forged("no key has signed it"));
        }
        object(token.claims).ok_or(Fault::Unfit("its claims are no JSON object"))
    }

    fn grant(&self, claims: &Map<String, Value>, now: u64) -> Result<Grant, Fault> {
        let seconds = |name: &str| match claims.get(name).map(Value::as_f64) {
            None => Ok(None),
            Some(Some(seconds)) if seconds >= 0.0 => Ok(Some(seconds)),
            Some(_) => Err(Fault::Unfit("exp or nbf is no time")),
        };
        let expires = seconds("exp")?.ok_or(Fault::Unfit("it never expires: there is no exp"))?;
        // A time that is too large for an integer becomes the largest.
        let expires = (expires * 1_000.0) as u64;
        if expires <= now {
            return Err(Fault::Untimely("it has expired"));
        }
        if seconds("nbf")?.is_some_and(|from| (from - LEEWAY_SECONDS) * 1_000.0 > now as f64) {
            return Err(Fault::Untimely("it is not valid yet"));
        }
        if self.issuer.is_some() && claims.get("iss").and_then(Value::as_str) != self.issuer.as_deref() {
            return Err(Fault::Unfit("its iss is another"));
        }
        // RFC 7519, section 4.1.3: who does not find itself in there must refuse it.
        if (self.audience.is_some() || claims.contains_key("aud")) && !self.is_for_us(claims.get("aud")) {
            return Err(Fault::Unfit("its aud is another, or there is no jwt_audience"));
        }
        let user = claims.get(&self.username_claim).and_then(Value::as_str);
        let is_name = |user: &&str| (1..=USER_BYTES_MAX).contains(&user.len()) && !user.contains('\0');
        let user = user.filter(is_name).ok_or(Fault::Unfit("no claim names its user"))?;
        let rules = claims.get("acl").map(acl_json::rules).transpose();
        Ok(Grant {
            username: Some(user.to_owned()),
            rules: rules.map_err(Fault::Unfit)?.map(Arc::new),
            expires_at: UnixMillis::from_millis(expires.min(now.saturating_add(LOGIN_MILLIS_MAX))),
        })
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let Some(ours) = self.audience.as_deref() else {
            return false;
        };
        match audience {
            Some(Value::String(one)) => one == ours,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(ours)),
            _ => false,
        }
    }
}

/// A token in its parts, none of them believed.
struct Token<'a> {
    header: Map<String, Value>,
    claims: &'a str,
    signature: &'a str,
    /// What the signature is of.
    signed: &'a [u8],
}

impl<'a> Token<'a> {
    /// Reads a password; `None` if it does not look like a token.
    fn parse(password: &'a [u8]) -> Option<Self> {
        if password.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(password).ok()?;
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header = object(header).filter(|header| header.contains_key("alg"))?;
        Some(Self {
            header,
            claims,
            signature,
            signed: signed.as_bytes(),
        })
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(text).ok()
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decoded(text)?).ok()
}

#[cfg(test)]
mod tests;
