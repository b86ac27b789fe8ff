//! The hashes of `mosquitto_passwd` before 2.1: `$6$SALT$DIGEST` and `$7$ITERATIONS$SALT$DIGEST`, with Base64 for salt and
//! digest.

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

use super::digits;

/// Most iterations: most of a second of a core.
pub const PBKDF2_ITERATIONS_MAX: u32 = 1_000_000;
/// Iterations unless told otherwise. Mosquitto's own 101, and 1,000 since 2.1, are a guess in less than a millisecond; but
/// it checks passwords where it serves its clients, so that many more would make it stop for each login.
pub const PBKDF2_ITERATIONS_DEFAULT: u32 = 100_000;

/// Characters of 64 bytes in Base64, of which the last two are `=`.
const DIGEST_CHARS: usize = 88;
/// Fewest and most bytes of a salt that is read: Mosquitto writes 12, and 64 since 2.1.
const SALT_BYTES_MIN: usize = 8;
const SALT_BYTES_MAX: usize = 64;

type Sum = [u8; 64];

/// Whether the last field of a `$6$` is Mosquitto's and not crypt(3)'s, whose is never so long and has no `=`.
pub(super) fn is_sha512(digest: &str) -> bool {
    digest.len() == DIGEST_CHARS && digest.ends_with("==")
}

/// One SHA-512 of password and salt.
pub(super) struct Sha512Once {
    salt: Vec<u8>,
    digest: Sum,
}

impl Sha512Once {
    /// Reads the fields behind `$6$`.
    pub(super) fn read(fields: &[&str]) -> Result<Self, String> {
        let &[salt, digest] = fields else {
            return Err("Mosquitto's $6$ is $6$salt$digest".to_owned());
        };
        let (salt, digest) = (decode_salt(salt)?, decode_digest(digest)?);
        Ok(Self { salt, digest })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        sum(password, &self.salt).ct_eq(&self.digest).into()
    }

    pub(super) fn hash(password: &[u8], salt: &[u8]) -> String {
        let encode = Base64::encode_string;
        format!("$6${}${}", encode(salt), encode(&sum(password, salt)))
    }
}

fn sum(password: &[u8], salt: &[u8]) -> Sum {
    Sha512::new()
        .chain_update(password)
        .chain_update(salt)
        .finalize()
        .into()
}

/// PBKDF2-HMAC-SHA512.
pub(super) struct Pbkdf2 {
    iterations: u32,
    salt: Vec<u8>,
    digest: Sum,
}

impl Pbkdf2 {
    /// Reads the fields behind `$7$`.
    pub(super) fn read(fields: &[&str]) -> Result<Self, String> {
        let &[iterations, salt, digest] = fields else {
            return Err("Mosquitto's $7$ is $7$iterations$salt$digest".to_owned());
        };
        let iterations = digits(iterations)
            .filter(|iterations| (1..=PBKDF2_ITERATIONS_MAX).contains(iterations))
            .ok_or_else(|| format!("iterations must be from 1 to {PBKDF2_ITERATIONS_MAX}"))?;
        Ok(Self {
            iterations,
            salt: decode_salt(salt)?,
            digest: decode_digest(digest)?,
        })
    }

    pub(super) const fn iterations(&self) -> u32 {
        self.iterations
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let found: Sum = pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, &self.salt, self.iterations);
        // HMAC fills its key up with NULs, so that one more at the end would not be seen.
        let whole = password.last() != Some(&0);
        bool::from(found.ct_eq(&self.digest)) && whole
    }

    pub(super) fn hash(password: &[u8], salt: &[u8], iterations: u32) -> String {
        let digest: Sum = pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations);
        let encode = Base64::encode_string;
        format!("$7${iterations}${}${}", encode(salt), encode(&digest))
    }
}

fn decode_salt(text: &str) -> Result<Vec<u8>, String> {
    Base64::decode_vec(text)
        .ok()
        .filter(|salt| (SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()))
        .ok_or_else(|| format!("the salt must be {SALT_BYTES_MIN} to {SALT_BYTES_MAX} bytes in Base64"))
}

fn decode_digest(text: &str) -> Result<Sum, String> {
    Base64::decode_vec(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "the digest must be 64 bytes in Base64".to_owned())
}
