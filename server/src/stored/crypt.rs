//! SHA-256-crypt and SHA-512-crypt, as crypt(3) writes them.

use sha_crypt::{PasswordHasher, PasswordVerifier, ShaCrypt};

use super::{Kind, digits};

/// Most rounds: half a second of a core. What tools choose by themselves is less.
pub const ROUNDS_MAX: u32 = 1_000_000;
/// Fewest rounds, by the definition of SHA-crypt.
const ROUNDS_MIN: u32 = 1_000;
/// Rounds of a hash that does not name them.
const ROUNDS_DEFAULT: u32 = 5_000;
const SALT_CHARS_MAX: usize = 16;
const SHA256_CHARS: usize = 43;
const SHA512_CHARS: usize = 86;
/// What a digest ends in, since of the last character's six bits it fills four, or two.
const SHA256_ENDS: &str = "./0123456789ABCD";
const SHA512_ENDS: &str = "./01";

/// A hash of crypt(3).
pub(super) struct Crypt<'a> {
    text: &'a str,
    kind: Kind,
}

impl<'a> Crypt<'a> {
    /// Reads the fields behind `$5$` or `$6$`.
    pub(super) fn read(text: &'a str, id: &str, fields: &[&str]) -> Result<Self, String> {
        let (rounds, fields) = match fields {
            [first, rest @ ..] if first.starts_with("rounds=") => (first.strip_prefix("rounds="), rest),
            fields => (None, fields),
        };
        let &[salt, digest] = fields else {
            return Err("a hash of crypt(3) is $id$salt$digest".to_owned());
        };
        let rounds = match rounds {
            None => ROUNDS_DEFAULT,
            Some(rounds) => digits(rounds)
                .filter(|rounds| (ROUNDS_MIN..=ROUNDS_MAX).contains(rounds))
                .ok_or_else(|| format!("rounds must be from {ROUNDS_MIN} to {ROUNDS_MAX}"))?,
        };
        if salt.is_empty() || salt.len() > SALT_CHARS_MAX || !is_in_alphabet(salt) {
            return Err(format!(
                "the salt must be 1 to {SALT_CHARS_MAX} of the characters ./0-9A-Za-z"
            ));
        }
        let (digest_chars, ends, kind) = match id {
            "5" => (SHA256_CHARS, SHA256_ENDS, Kind::Sha256Crypt(rounds)),
            _ => (SHA512_CHARS, SHA512_ENDS, Kind::Sha512Crypt(rounds)),
        };
        if digest.len() != digest_chars || !is_in_alphabet(digest) {
            return Err(format!(
                "the digest must be {digest_chars} of the characters ./0-9A-Za-z{}",
                if id == "6" {
                    ", or Mosquitto's 64 bytes in Base64"
                } else {
                    ""
                }
            ));
        }
        if !digest.ends_with(|end| ends.contains(end)) {
            return Err(format!(
                "the digest must end in one of {ends}: no password has one that ends like this"
            ));
        }
        Ok(Self { text, kind })
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        ShaCrypt::default().verify_password(password, self.text).is_ok()
    }
}

/// Hashes with `$6$`.
pub(super) fn hash(password: &[u8], salt: &[u8]) -> Result<String, String> {
    let hash = ShaCrypt::default()
        .hash_password_with_salt(password, salt)
        .map_err(|error| error.to_string())?;
    // The default rounds are what crypt(3) leaves out.
    Ok(hash.as_str().replacen("$rounds=5000$", "$", 1))
}

/// A hash that no password has.
pub(super) fn stand_in(id: &str, rounds: u32) -> String {
    let digest = ".".repeat(if id == "5" { SHA256_CHARS } else { SHA512_CHARS });
    format!("${id}$rounds={rounds}$nobodynobodynobo${digest}")
}

fn is_in_alphabet(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/')
}
