//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: what is kept of a password, and the two steps of an exchange.
//!
//! Pure: users, randomness and the way to the client are the caller's, and so is what is kept between the two steps, a
//! [`Challenge::memo`]. The client proves that it knows the password without showing it, and the server that it knows
//! the [`Keys`]; whoever reads the keys cannot log in with them, and has to try passwords one by one.
//!
//! ```text
//!  client                                  server
//!  n,,n=user,r=NONCE            ─────►     Opening::parse, Opening::challenge
//!                               ◄─────     r=NONCE+OURS,s=SALT,i=ITERATIONS
//!  c=biws,r=NONCE+OURS,p=PROOF  ─────►     Closing::parse, Closing::verify
//!                               ◄─────     v=SIGNATURE
//! ```
//! There is no channel binding, since there is no channel to bind to yet.

use std::borrow::Cow;
use std::fmt;

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// What an entry of the password file begins with.
pub const PREFIX: &str = "$scram-sha-256$";

/// Fewest iterations: what RFC 7677 demands.
pub const ITERATIONS_MIN: u32 = 4_096;
/// Most iterations: some tenths of a second of a core, which a login with the plain password costs us, too.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Iterations unless told otherwise. A client computes them within the time for its CONNECT exchange, and a small device
/// takes a second for these; to try passwords against a stolen file costs about as much as with `$6$`.
pub const ITERATIONS_DEFAULT: u32 = 15_000;

/// Longest message of a client, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2_048;
/// Longest nonce of a client, in bytes.
pub const NONCE_BYTES_MAX: usize = 256;
/// Longest user name, in bytes, as it is sent and as it is prepared: SASLprep makes 33 bytes of the 3 of U+FDFA.
pub const USER_BYTES_MAX: usize = 1_024;
/// Largest [`Challenge::memo`]: both messages, the header and the nonce once more, and the user.
pub const MEMO_BYTES_MAX: usize = 4_096;
/// Bytes of a new salt.
pub const SALT_BYTES: usize = 16;
/// Fewest and most bytes of a salt that is read.
const SALT_BYTES_MIN: usize = 8;
const SALT_BYTES_MAX: usize = 64;

type Key = [u8; 32];

/// What the keys of several users may have in common, and a challenge shows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ScramKind {
    /// Iterations of the hash.
    pub iterations: u32,
    /// Bytes of the salt, at most twice those of a hash.
    pub salt_bytes: usize,
}

/// What is kept of a password.
#[derive(Clone, Eq, PartialEq)]
pub struct Keys {
    iterations: u32,
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// As in the password file.
impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| Base64::encode_string(bytes);
        let (salt, stored_key, server_key) = (encode(&self.salt), encode(&self.stored_key), encode(&self.server_key));
        write!(f, "{PREFIX}{}${salt}${stored_key}${server_key}", self.iterations)
    }
}

impl Keys {
    /// The keys of a password. Takes milliseconds.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted_password: Key = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations);
        let client_key = hmac(&salted_password, &[b"Client Key"]);
        Self {
            iterations,
            salt: salt.into(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted_password, &[b"Server Key"]),
        }
    }

    /// Keys that no password has: a stand-in for a user who does not exist. The same `secret` and `user` give the same.
    pub fn of_nobody(secret: &[u8], user: &str, kind: ScramKind) -> Self {
        let part = |name: &[u8]| hmac(secret, &[name, user.as_bytes()]);
        let mut salt = [part(b"salt of "), part(b"rest of the salt of ")].concat();
        salt.truncate(kind.salt_bytes);
        Self {
            iterations: kind.iterations,
            salt: salt.into(),
            stored_key: part(b"StoredKey of "),
            server_key: part(b"ServerKey of "),
        }
    }

    /// Reads the fields behind [`PREFIX`].
    ///
    /// # Errors
    /// A sentence that says what is wrong, without the text.
    pub fn parse(fields: &[&str]) -> Result<Self, String> {
        let &[iterations, salt, stored_key, server_key] = fields else {
            return Err(format!("a SCRAM entry is {PREFIX}iterations$salt$StoredKey$ServerKey"));
        };
        let iterations = Some(iterations)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|iterations| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(iterations))
            .ok_or_else(|| format!("iterations must be from {ITERATIONS_MIN} to {ITERATIONS_MAX}"))?;
        let salt = Base64::decode_vec(salt)
            .ok()
            .filter(|salt| (SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()))
            .ok_or_else(|| format!("the salt must be {SALT_BYTES_MIN} to {SALT_BYTES_MAX} bytes in Base64"))?;
        let key =
            |text| decode_key(text).ok_or_else(|| "StoredKey and ServerKey must be 32 bytes in Base64".to_owned());
        Ok(Self {
            iterations,
            salt: salt.into(),
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// Whether these are the keys of `password`; compared in constant time. Takes milliseconds.
    pub fn matches(&self, password: &[u8]) -> bool {
        // What cannot be prepared is nobody's password, even where the hash is the same: HMAC fills a key up with NULs.
        let prepared = std::str::from_utf8(password).ok().and_then(prepare);
        let candidate = Self::derive(
            prepared.as_deref().unwrap_or("x").as_bytes(),
            &self.salt,
            self.iterations,
        );
        let same = bool::from(candidate.stored_key.ct_eq(&self.stored_key));
        same && prepared.is_some()
    }

    /// What a challenge shows of them.
    pub const fn kind(&self) -> ScramKind {
        ScramKind {
            iterations: self.iterations,
            salt_bytes: self.salt.len(),
        }
    }
}

/// Names and passwords as both sides have to write them (SASLprep, RFC 4013); `None`: not allowed.
pub fn prepare(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok().filter(|prepared| !prepared.is_empty())
}

/// What is wrong with a message of a client, for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault(pub &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The client's first message.
#[derive(Debug, Eq, PartialEq)]
pub struct Opening<'a> {
    gs2_header: &'a str,
    bare: &'a str,
    user: String,
    nonce: &'a str,
}

/// The server's first message, and what it has to remember of it.
#[derive(Debug, Eq, PartialEq)]
pub struct Challenge {
    /// To the client.
    pub message: String,
    /// For [`Closing::parse`].
    pub memo: String,
}

impl<'a> Opening<'a> {
    /// Reads a client's first message.
    ///
    /// # Errors
    /// It is malformed, or asks for what is not supported.
    pub fn parse(message: &'a [u8]) -> Result<Self, Fault> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(Fault("no channel binding flag"))?;
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(Fault("channel binding is not supported")),
            _ => return Err(Fault("no channel binding flag")),
        }
        let (authzid, bare) = rest.split_once(',').ok_or(Fault("no authorisation identity"))?;
        let mut parts = bare.split(',');
        let (user, nonce) = match (parts.next(), parts.next()) {
            (Some(part), _) if part.starts_with("m=") => return Err(Fault("a mandatory extension")),
            (Some(user), Some(nonce)) => (attribute(user, "n=")?, attribute(nonce, "r=")?),
            _ => return Err(Fault("no user name and nonce")),
        };
        check_extensions(parts)?;
        let user = name(user)?;
        if !authzid.is_empty() && name(attribute(authzid, "a=")?)? != user {
            return Err(Fault("nobody may act as somebody else"));
        }
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX || !printable {
            return Err(Fault("the nonce is empty, too long or not printable"));
        }
        Ok(Self {
            gs2_header: &text[..text.len() - bare.len()],
            bare,
            user,
            nonce,
        })
    }

    /// Who wants to log in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What the client has to prove that it knows; `nonce` is random, printable and without a comma.
    pub fn challenge(&self, keys: &Keys, nonce: &str) -> Challenge {
        let nonce = format!("{}{nonce}", self.nonce);
        let salt = Base64::encode_string(&keys.salt);
        let message = format!("r={nonce},s={salt},i={}", keys.iterations);
        // None of them has a NUL: no message of a client may.
        let memo = format!("{}\0{}\0{nonce}\0{},{message}", self.gs2_header, self.user, self.bare);
        Challenge { message, memo }
    }
}

/// The client's last message, with what was remembered of the first two.
pub struct Closing<'a> {
    user: &'a str,
    /// The two messages before this one, as they are signed.
    signed: &'a str,
    without_proof: &'a str,
    proof: Key,
}

impl<'a> Closing<'a> {
    /// Reads a client's last message.
    ///
    /// # Errors
    /// It is malformed, or no answer to the challenge of `memo`.
    pub fn parse(memo: &'a [u8], message: &'a [u8]) -> Result<Self, Fault> {
        let mut fields = std::str::from_utf8(memo).unwrap_or_default().splitn(4, '\0');
        let (Some(gs2_header), Some(user), Some(nonce), Some(signed)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(Fault("a challenge that was never made"));
        };
        let (without_proof, proof) = text(message)?.rsplit_once(",p=").ok_or(Fault("no proof"))?;
        let mut parts = without_proof.split(',');
        let (Some(binding), Some(echo)) = (parts.next(), parts.next()) else {
            return Err(Fault("no channel binding and nonce"));
        };
        check_extensions(parts)?;
        if attribute(echo, "r=")? != nonce {
            return Err(Fault("another nonce"));
        }
        if Base64::decode_vec(attribute(binding, "c=")?).ok().as_deref() != Some(gs2_header.as_bytes()) {
            return Err(Fault("another channel binding"));
        }
        Ok(Self {
            user,
            signed,
            without_proof,
            proof: decode_key(proof).ok_or(Fault("a proof is 32 bytes in Base64"))?,
        })
    }

    /// Who wants to log in.
    pub fn user(&self) -> &str {
        self.user
    }

    /// The server's last message, which proves that it has the keys; `None`: the client did not know the password.
    pub fn verify(&self, keys: &Keys) -> Option<String> {
        let signed = [self.signed.as_bytes(), b",", self.without_proof.as_bytes()];
        let mut client_key = hmac(&keys.stored_key, &signed);
        client_key
            .iter_mut()
            .zip(&self.proof)
            .for_each(|(byte, proof)| *byte ^= proof);
        let stored_key: Key = Sha256::digest(client_key).into();
        let server_signature = hmac(&keys.server_key, &signed);
        bool::from(stored_key.ct_eq(&keys.stored_key))
            .then(|| format!("v={}", Base64::encode_string(&server_signature)))
    }
}

/// What a client sends as its proof.
#[cfg(test)]
pub(crate) fn prove(password: &[u8], salt: &[u8], iterations: u32, signed: &[u8]) -> Key {
    let salted_password: Key = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations);
    let mut proof = hmac(&salted_password, &[b"Client Key"]);
    let stored_key = Sha256::digest(proof);
    let signature = hmac(&stored_key, &[signed]);
    proof.iter_mut().zip(signature).for_each(|(byte, other)| *byte ^= other);
    proof
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    // A key of HMAC may have any length, so this makes one of every slice.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Key::default();
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn decode_key(text: &str) -> Option<Key> {
    let mut key = Key::default();
    let decoded = Base64::decode(text, &mut key).ok()?;
    (decoded.len() == key.len()).then_some(key)
}

fn text(message: &[u8]) -> Result<&str, Fault> {
    let short = Some(message).filter(|message| message.len() <= MESSAGE_BYTES_MAX);
    let message = short.ok_or(Fault("a message that is too long"))?;
    std::str::from_utf8(message)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or(Fault("a message that is no text"))
}

fn attribute<'a>(part: &'a str, name: &str) -> Result<&'a str, Fault> {
    part.strip_prefix(name).ok_or(Fault("an attribute out of place"))
}

/// Extensions that may be ignored are; one that must not be, or an attribute for the second time, is a fault.
fn check_extensions<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    const TAKEN: &[u8] = b"aceimnprsv";
    let is_optional = |part: &str| match part.as_bytes() {
        [name, b'=', _, ..] => name.is_ascii_alphabetic() && !TAKEN.contains(name),
        _ => false,
    };
    if parts.all(is_optional) {
        Ok(())
    } else {
        Err(Fault("an extension that is mandatory or malformed"))
    }
}

/// A user name: `=2C` is a comma and `=3D` an equals sign.
fn name(escaped: &str) -> Result<String, Fault> {
    let mut pieces = escaped.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2).ok_or(Fault("a stray `=` in a name"))?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return Err(Fault("a stray `=` in a name")),
        });
        name.push_str(rest);
    }
    let fits = |name: &str| name.len() <= USER_BYTES_MAX;
    Some(&*name)
        .filter(|name| fits(name))
        .and_then(prepare)
        .filter(|name| fits(name))
        .map(Cow::into_owned)
        .ok_or(Fault("a name that is empty, too long or not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: user "user", password "pencil".
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const OURS: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const SECOND: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn keys() -> Keys {
        Keys::derive(b"pencil", &Base64::decode_vec(SALT).unwrap(), 4096)
    }

    fn challenge(first: &str) -> Challenge {
        Opening::parse(first.as_bytes()).unwrap().challenge(&keys(), OURS)
    }

    /// The published exchange, message by message.
    #[test]
    fn the_example_of_rfc_7677() {
        let opening = Opening::parse(FIRST.as_bytes()).unwrap();
        assert_eq!(opening.user(), "user");
        let Challenge { message, memo } = opening.challenge(&keys(), OURS);
        assert_eq!(message, SECOND);
        let closing = Closing::parse(memo.as_bytes(), LAST.as_bytes()).unwrap();
        assert_eq!(closing.user(), "user");
        assert_eq!(closing.verify(&keys()).as_deref(), Some(SIGNATURE));
        for wrong in [
            Keys::derive(b"Pencil", &keys().salt, 4096),
            Keys::derive(b"pencil", &keys().salt, 4097),
            Keys::of_nobody(b"secret", "user", keys().kind()),
        ] {
            assert_eq!(closing.verify(&wrong), None);
        }
    }

    /// A proof holds for the very words it was made for: no message of the exchange can be changed, and no byte of the
    /// proof.
    #[test]
    fn a_proof_is_bound_to_its_exchange() {
        let memo = challenge(FIRST).memo;
        for other in [
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO,x=1",
            "y,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        ] {
            let memo = challenge(other).memo;
            let closing = Closing::parse(memo.as_bytes(), LAST.as_bytes());
            assert!(
                closing.is_err() || closing.is_ok_and(|closing| closing.verify(&keys()).is_none()),
                "{other}"
            );
        }
        let fresh = Opening::parse(FIRST.as_bytes()).unwrap().challenge(&keys(), "another");
        let replayed = Closing::parse(fresh.memo.as_bytes(), LAST.as_bytes());
        assert_eq!(replayed.err(), Some(Fault("another nonce")));
        let (head, proof) = LAST.rsplit_once("p=").unwrap();
        let proof = decode_key(proof).unwrap();
        for at in 0..proof.len() {
            let mut wrong = proof;
            wrong[at] ^= 1;
            let last = format!("{head}p={}", Base64::encode_string(&wrong));
            let closing = Closing::parse(memo.as_bytes(), last.as_bytes()).unwrap();
            assert_eq!(closing.verify(&keys()), None);
        }
    }

    /// Both flags without channel binding, the user's own name as the one to act as, escaped and prepared names, and
    /// extensions that may be ignored are taken.
    #[test]
    fn what_is_taken() {
        for (first, user) in [
            ("n,,n=user,r=x", "user"),
            ("y,,n=user,r=x", "user"),
            ("n,a=user,n=user,r=x", "user"),
            ("n,a==2C,n==2C,r=x", ","),
            ("n,,n=a=2Cb=3D=2C,r=x", "a,b=,"),
            ("n,,n=j\u{FC}rgen,r=x", "j\u{FC}rgen"),
            // SASLprep: compatibility forms become one, a soft hyphen nothing.
            ("n,,n=u\u{AD}\u{FF53}er,r=x", "user"),
            ("n,,n=user,r=x,x=f,Z=long=value", "user"),
            ("n,,n=n=3Dm,r=r=m=", "n=m"),
        ] {
            assert_eq!(
                Opening::parse(first.as_bytes()).map(|opening| opening.user),
                Ok(user.to_owned()),
                "{first}"
            );
        }
        let with_extension = LAST.replace(",p=", ",x=1,p=");
        let memo = challenge(FIRST).memo;
        assert!(Closing::parse(memo.as_bytes(), with_extension.as_bytes()).is_ok());
    }

    /// Every malformed first message is refused, and so is what is not supported.
    #[test]
    fn malformed_first_messages() {
        let long_nonce = format!("n,,n=user,r={}", "x".repeat(NONCE_BYTES_MAX + 1));
        let long_name = format!("n,,n={},r=x", "x".repeat(MESSAGE_BYTES_MAX));
        for first in [
            "",
            ",",
            ",,",
            "n",
            "n,",
            "n,,",
            "n,,,",
            "x,,n=user,r=x",
            "N,,n=user,r=x",
            "n ,,n=user,r=x",
            "p=tls-unique,,n=user,r=x",
            "p=,,n=user,r=x",
            "n=user,r=x",
            "n,n=user,r=x",
            "n,b=user,n=user,r=x",
            "n,a=,n=user,r=x",
            "n,a=other,n=user,r=x",
            "n,,n=user",
            "n,,r=x",
            "n,,r=x,n=user",
            "n,,n=user,",
            "n,,n=user,r=",
            "n,,n=user,r=x y",
            "n,,n=user,r=\u{FC}",
            "n,,n=user,r=x\x7F",
            "n,,n=user,x=1,r=x",
            "n,,N=user,r=x",
            "n,,n=,r=x",
            "n,,n=us=er,r=x",
            "n,,n=user=,r=x",
            "n,,n=user=2,r=x",
            "n,,n=user=2c,r=x",
            "n,,n=user=\u{FC},r=x",
            "n,,n=us\x07er,r=x",
            "n,,n=\u{AD},r=x",
            "n,,n=us\0er,r=x",
            "n,,m=ext,n=user,r=x",
            "n,,n=user,r=x,m=ext",
            "n,,n=user,r=x,r=y",
            "n,,n=user,r=x,n=other",
            "n,,n=user,r=x,",
            "n,,n=user,r=x,1=a",
            "n,,n=user,r=x,x=",
            "n,,n=user,r=x,x",
            &long_nonce,
            &long_name,
        ] {
            assert!(Opening::parse(first.as_bytes()).is_err(), "{first:?}");
        }
        assert!(Opening::parse(b"n,,n=us\xFFer,r=x").is_err());
    }

    /// What is kept of an exchange is bounded, however long the client makes each part of its message, and however much
    /// longer a name gets when it is prepared.
    #[test]
    fn a_memo_is_bounded() {
        let swells = |count: usize| format!("n,,n={},r=x", "\u{FDFA}".repeat(count));
        assert_eq!(Opening::parse(swells(31).as_bytes()).unwrap().user().len(), 31 * 33);
        let too_long = Fault("a name that is empty, too long or not allowed");
        for first in [
            swells(32),
            swells(341),
            format!("n,,n={},r=x", "x".repeat(USER_BYTES_MAX + 1)),
        ] {
            assert_eq!(Opening::parse(first.as_bytes()), Err(too_long));
        }
        let kind = ScramKind {
            iterations: ITERATIONS_MAX,
            salt_bytes: SALT_BYTES_MAX,
        };
        let nonce = "r".repeat(NONCE_BYTES_MAX);
        let longest = |first: &str| {
            let fill = "z".repeat(MESSAGE_BYTES_MAX - first.len() - 3);
            let first = format!("{first},z={fill}");
            let opening = Opening::parse(first.as_bytes()).unwrap();
            let keys = Keys::of_nobody(b"k", opening.user(), kind);
            opening.challenge(&keys, &"o".repeat(24)).memo.len()
        };
        let (long, swollen) = ("x".repeat(USER_BYTES_MAX), "\u{FDFA}".repeat(31));
        let memos = [
            longest(&format!("n,,n={long},r={nonce}")),
            longest(&format!("n,,n={swollen},r={nonce}")),
            longest(&format!("n,a={swollen},n={swollen},r={nonce}")),
        ];
        assert!(
            memos.iter().all(|len| (3_500..=MEMO_BYTES_MAX).contains(len)),
            "{memos:?}"
        );
    }

    /// Every malformed last message is refused, and so is every memo that is none.
    #[test]
    fn malformed_last_messages() {
        let memo = challenge(FIRST).memo;
        let (head, proof) = LAST.rsplit_once(",p=").unwrap();
        let nonce = head.split_once(',').unwrap().1;
        for last in [
            String::new(),
            "p=".to_owned(),
            head.to_owned(),
            format!("{head},p="),
            format!("{head},p={}", &proof[..43]),
            format!("{head},p={proof}="),
            format!("{head},p={proof}AAAA"),
            format!("{head},p={}", proof.replace('+', "-")),
            format!("{head},p={proof},x=1"),
            format!("{head},{head},p={proof}"),
            format!("{head},m=1,p={proof}"),
            format!("p={proof},{head}"),
            format!("{nonce},c=biws,p={proof}"),
            format!("c=,{nonce},p={proof}"),
            format!("c=eSws,{nonce},p={proof}"),
            format!("c=biw,{nonce},p={proof}"),
            format!("c=biws,{nonce}x,p={proof}"),
            format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={proof}"),
            format!("c=biws,r={OURS},p={proof}"),
            format!("c=biws,p={proof}"),
            format!("{head}\0,p={proof}"),
            format!("{head},x={},p={proof}", "x".repeat(MESSAGE_BYTES_MAX)),
        ] {
            assert!(Closing::parse(memo.as_bytes(), last.as_bytes()).is_err(), "{last:?}");
        }
        assert!(Closing::parse(memo.as_bytes(), b"c=biws,r=\xFF,p=").is_err());
        for memo in [&b""[..], b"n,,", b"n,,\0user\0nonce", b"\xFF\0\0\0"] {
            assert!(Closing::parse(memo, LAST.as_bytes()).is_err());
        }
    }

    /// Keys are written and read back, and match their password in every form that SASLprep makes one; bounds are kept.
    #[test]
    fn keys_in_a_file() {
        let text = keys().to_string();
        let fields: Vec<_> = text.strip_prefix(PREFIX).unwrap().split('$').collect();
        assert_eq!(Keys::parse(&fields), Ok(keys()));
        assert_eq!((fields[0], fields[1]), ("4096", SALT));
        assert!(keys().matches(b"pencil") && keys().matches("pen\u{AD}cil".as_bytes()));
        for wrong in [&b"Pencil"[..], b"", b"pencil\0", b"pen\xFFcil"] {
            assert!(!keys().matches(wrong));
        }
        let umlaut = Keys::derive("\u{FC}ber".as_bytes(), b"saltsalt", 4096);
        assert!(umlaut.matches("u\u{308}ber".as_bytes()));
        let with = |at: usize, field: &'static str| {
            let mut fields = fields.clone();
            fields[at] = field;
            Keys::parse(&fields).map(|_| ())
        };
        assert_eq!((with(0, "1000000"), with(1, "c2FsdHNhbHQ=")), (Ok(()), Ok(())));
        for iterations in [
            "4095",
            "1000001",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "-1",
            "+5000",
            "0x1000",
            "",
        ] {
            assert_eq!(
                with(0, iterations),
                Err("iterations must be from 4096 to 1000000".to_owned())
            );
        }
        for salt in ["", "c2FsdA==", "c2FsdHNhbHQ", "c2FsdHNhbHQ==", "c2Fsd*NhbHQ="] {
            assert_eq!(
                with(1, salt),
                Err("the salt must be 8 to 64 bytes in Base64".to_owned())
            );
        }
        for key in ["", "c2FsdHNhbHQ=", "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ"] {
            let expected = Err("StoredKey and ServerKey must be 32 bytes in Base64".to_owned());
            assert_eq!((with(2, key), with(3, key)), (expected.clone(), expected));
        }
        assert!(
            Keys::parse(&fields[1..])
                .unwrap_err()
                .starts_with("a SCRAM entry is $scram-sha-256$")
        );
    }

    /// Somebody who does not exist has a salt of the form that is asked for, always the same one, and not another's.
    #[test]
    fn nobody_looks_like_somebody() {
        let nobody = |secret: &[u8], user| Keys::of_nobody(secret, user, keys().kind());
        assert_eq!(nobody(b"k", "eve"), nobody(b"k", "eve"));
        assert_eq!(nobody(b"k", "eve").salt.len(), SALT_BYTES);
        assert_ne!(nobody(b"k", "eve").salt, nobody(b"k", "eva").salt);
        assert_ne!(nobody(b"k", "eve").salt, nobody(b"l", "eve").salt);
        for salt_bytes in [SALT_BYTES_MIN, SALT_BYTES_MAX] {
            let kind = ScramKind {
                iterations: 5_000,
                salt_bytes,
            };
            assert_eq!(Keys::of_nobody(b"k", "eve", kind).kind(), kind);
        }
    }
}
