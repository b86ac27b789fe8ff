//! How identifiers are hashed.

use std::hash::{BuildHasherDefault, Hasher};

/// The owner assigns identifiers, so nobody else can make them collide.
pub(crate) const fn hash(id: u64) -> u64 {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// A map by identifiers, or by other numbers that nobody else chooses.
pub(crate) type IdMap<T> = hashbrown::HashMap<u64, T, BuildHasherDefault<IdHasher>>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = hash(self.0 ^ id);
    }
}
