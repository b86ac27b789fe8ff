//! Argon2id in PHC's form: `$argon2id$v=19$m=MEMORY,t=PASSES,p=LANES$SALT$DIGEST`, with Base64 without padding.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64ct::{Base64Unpadded, Encoding};
use subtle::ConstantTimeEq;

use super::digits;

/// Most memory of one check, in KiB: each thread that checks passwords may take so much.
pub const MEMORY_KIB_MAX: u32 = 64 << 10;
/// Most memory times passes, in KiB: a third of a second of a core.
pub const WORK_KIB_MAX: u32 = 4 * MEMORY_KIB_MAX;
/// Most lanes. They are computed one after the other: logins have the threads, not the lanes of one.
const LANES_MAX: u32 = 16;
const SALT_BYTES_MIN: usize = 8;
const SALT_BYTES_MAX: usize = 64;
const DIGEST_BYTES_MIN: usize = 16;
const DIGEST_BYTES_MAX: usize = 64;
/// Bytes of a new digest.
const DIGEST_BYTES: usize = 32;

/// What a check costs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// What Mosquitto 2.1 writes, and the first of the settings that OWASP recommends: as much memory as it takes to make
    /// one pass enough.
    pub const USUAL: Self = Self {
        memory_kib: 46 << 10,
        passes: 1,
        lanes: 1,
    };

    /// The least that is read, for tests that are not about what it costs.
    #[cfg(test)]
    pub(crate) const LEAST: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    fn params(self, digest_bytes: usize) -> Result<Params, String> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(digest_bytes));
        params.map_err(|error| error.to_string())
    }
}

/// As in PHC's form.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={},t={},p={}", self.memory_kib, self.passes, self.lanes)
    }
}

/// Memory that checks work in. Whoever has several to do keeps it from one to the next: to be given it by the system takes
/// half as long as the check.
#[derive(Default)]
pub struct Scratch(Vec<Block>);

impl Scratch {
    fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            // Not grown: what stands in it would be copied.
            self.0 = Vec::new();
            self.0 = vec![Block::new(); count];
        }
        &mut self.0[..count]
    }

    /// Gives the memory back.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("kib", &self.0.len()).finish()
    }
}

/// A hash of Argon2id.
pub(super) struct Argon2id {
    cost: Cost,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

impl Argon2id {
    /// Reads the fields behind `$argon2id$`.
    pub(super) fn read(fields: &[&str]) -> Result<Self, String> {
        let &["v=19", cost, salt, digest] = fields else {
            return Err("a hash of Argon2id is $argon2id$v=19$m=memory,t=passes,p=lanes$salt$digest".to_owned());
        };
        let cost = read_cost(cost)?;
        let bytes = |text: &str, name: &str, min: usize, max: usize| {
            Base64Unpadded::decode_vec(text)
                .ok()
                .filter(|bytes| (min..=max).contains(&bytes.len()))
                .ok_or_else(|| format!("the {name} must be {min} to {max} bytes in Base64 without `=`"))
        };
        Ok(Self {
            cost,
            salt: bytes(salt, "salt", SALT_BYTES_MIN, SALT_BYTES_MAX)?,
            digest: bytes(digest, "digest", DIGEST_BYTES_MIN, DIGEST_BYTES_MAX)?,
        })
    }

    pub(super) const fn cost(&self) -> Cost {
        self.cost
    }

    pub(super) fn matches(&self, password: &[u8], scratch: &mut Scratch) -> bool {
        let mut found = vec![0; self.digest.len()];
        derive(password, &self.salt, self.cost, &mut found, scratch).is_ok() && bool::from(found.ct_eq(&self.digest))
    }
}

/// Reads `m=memory,t=passes,p=lanes`.
fn read_cost(text: &str) -> Result<Cost, String> {
    let mut parts = text.split(',');
    let mut number = |name: &str| parts.next()?.strip_prefix(name).and_then(digits);
    let (Some(memory_kib), Some(passes), Some(lanes), None) = (number("m="), number("t="), number("p="), parts.next())
    else {
        return Err("the cost of Argon2id is m=memory,t=passes,p=lanes".to_owned());
    };
    if !(1..=LANES_MAX).contains(&lanes) {
        return Err(format!("p must be from 1 to {LANES_MAX}"));
    }
    if !(8 * lanes..=MEMORY_KIB_MAX).contains(&memory_kib) {
        return Err(format!("m must be from 8 for each p to {MEMORY_KIB_MAX} (KiB)"));
    }
    if passes == 0 || memory_kib.saturating_mul(passes) > WORK_KIB_MAX {
        return Err(format!(
            "t must be at least 1, and m times t at most {WORK_KIB_MAX} (KiB)"
        ));
    }
    Ok(Cost {
        memory_kib,
        passes,
        lanes,
    })
}

/// Hashes a password; takes hundredths of a second.
pub(super) fn hash(password: &[u8], cost: Cost, salt: &[u8; 16]) -> Result<String, String> {
    let mut digest = [0; DIGEST_BYTES];
    derive(password, salt, cost, &mut digest, &mut Scratch::default())?;
    Ok(format(cost, salt, &digest))
}

/// The hash as it stands in a file.
pub(super) fn format(cost: Cost, salt: &[u8], digest: &[u8]) -> String {
    let encode = Base64Unpadded::encode_string;
    format!("$argon2id$v=19${cost}${}${}", encode(salt), encode(digest))
}

fn derive(password: &[u8], salt: &[u8], cost: Cost, digest: &mut [u8], scratch: &mut Scratch) -> Result<(), String> {
    let params = cost.params(digest.len())?;
    let blocks = scratch.blocks(params.block_count());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password, salt, digest, blocks)
        .map_err(|error| error.to_string())
}
