//! Whom a listener asks about a login, one after the other: the first that knows the client decides.
//!
//! A password file knows the users in it; tokens know passwords that look like one; an HTTP hook says itself whom it knows.
//! Whom nobody knows is refused. Where tokens are asked for, what looks like one is no password: a file is not asked about it,
//! wherever it stands, or whoever has a token could find out by it who is in the file.

use std::sync::Arc;

use crate::config::{Authenticator, Config, Diagnostic, HttpAuth, Jwt};
use crate::hook::Hook;
use crate::jwt::{self, KEYS_MAX, KEYS_TRIED_MAX, Tokens};

/// One of those who are asked.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The users of the listener's password file.
    Passwords,
    /// JSON Web Tokens, and what the listener is called.
    Tokens(Arc<Tokens>, Arc<str>),
    /// An HTTP hook, and what the listener is called there.
    Hook(Arc<Hook>, Arc<str>),
}

impl Step {
    /// Whether whom this lets in may come in by one of these, too. Of a password file each user is looked at instead.
    pub(super) fn is_good_by_one_of(&self, chain: &[Self]) -> bool {
        let mut others = chain.iter();
        match self {
            Self::Passwords => true,
            Self::Tokens(tokens, _) => {
                others.any(|other| matches!(other, Self::Tokens(other, _) if tokens.are_all_good_by(other)))
            }
            Self::Hook(hook, _) => {
                others.any(|other| matches!(other, Self::Hook(other, _) if hook.url() == other.url()))
            }
        }
    }
}

/// Whom each listener asks, by its place in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Chains(Vec<Vec<Step>>);

impl Chains {
    /// Listeners of which that is said.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whom a listener asks; its password file alone, if that was never said.
    pub(crate) fn at(&self, listener: usize) -> &[Step] {
        self.0.get(listener).map_or(&[Step::Passwords], Vec::as_slice)
    }

    /// Reads the keys that the listeners of a configuration check tokens by. The warnings are about the files.
    ///
    /// # Errors
    /// Every file that cannot be read, or has a fault.
    pub(crate) fn load(config: &Config) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        let mut known: Vec<(&Jwt, Arc<Tokens>)> = Vec::new();
        let mut hooks: Vec<(&HttpAuth, Arc<Hook>)> = Vec::new();
        let mut chains = Vec::new();
        for listener in &config.listeners {
            let mut chain = Vec::new();
            for authenticator in &listener.auth.order {
                match (authenticator, &listener.auth.jwt) {
                    (Authenticator::PasswordFile, _) => chain.push(Step::Passwords),
                    (Authenticator::Jwt, Some(jwt)) => {
                        let same = known.iter().find(|(other, _)| *other == jwt);
                        let tokens = match same {
                            Some((_, tokens)) => Arc::clone(tokens),
                            None => Arc::new(tokens(jwt, &mut warnings, &mut errors)),
                        };
                        known.push((jwt, Arc::clone(&tokens)));
                        chain.push(Step::Tokens(tokens, listener.to_string().into()));
                    }
                    (Authenticator::Http, _) => {
                        let hook = listener.auth.http.as_ref().map(|http| hook(http, &mut hooks));
                        match hook.transpose() {
                            Ok(hook) => chain.extend(hook.map(|hook| Step::Hook(hook, listener.to_string().into()))),
                            Err(error) => errors.push(error),
                        }
                    }
                    (Authenticator::Jwt, None) => {}
                }
            }
            chains.push(chain);
        }
        if errors.is_empty() {
            Ok((Self(chains), warnings))
        } else {
            Err(errors)
        }
    }
}

/// One hook for all listeners that ask it in the same way.
fn hook<'a>(http: &'a HttpAuth, known: &mut Vec<(&'a HttpAuth, Arc<Hook>)>) -> Result<Arc<Hook>, Diagnostic> {
    if let Some((_, hook)) = known.iter().find(|(other, _)| *other == http) {
        return Ok(Arc::clone(hook));
    }
    let hook = Arc::new(Hook::new(http)?);
    known.push((http, Arc::clone(&hook)));
    Ok(hook)
}

fn tokens(jwt: &Jwt, warnings: &mut Vec<Diagnostic>, errors: &mut Vec<Diagnostic>) -> Tokens {
    let mut keys = Vec::new();
    for (source, path) in &jwt.keys {
        match jwt::load(*source, path) {
            Ok((found, told)) => {
                keys.extend(found);
                warnings.extend(told);
            }
            Err(error) => errors.push(error),
        }
        if keys.len() > KEYS_MAX {
            errors.push(Diagnostic::of_file(
                path,
                format!("more than {KEYS_MAX} keys with those before it"),
            ));
            keys.truncate(KEYS_MAX);
        }
    }
    let tokens = Tokens {
        keys,
        username_claim: jwt.username_claim.clone(),
        audience: jwt.audience.clone(),
        issuer: jwt.issuer.clone(),
    };
    let Some((_, path)) = jwt.keys.last() else {
        return tokens;
    };
    for (algorithm, is_nameless) in tokens.crowds() {
        let algorithm = algorithm.as_str();
        let said = |text| Diagnostic::of_file(path, text);
        if is_nameless {
            errors.push(said(format!(
                "more than {KEYS_TRIED_MAX} keys of {algorithm} without a name, or with the same, with those before it: give each \
                 its own, in a JSON Web Key Set (kid)"
            )));
        } else {
            warnings.push(said(format!(
                "more than {KEYS_TRIED_MAX} keys of {algorithm} with those before it: tokens that do not name theirs (kid) are \
                 refused"
            )));
        }
    }
    tokens
}
