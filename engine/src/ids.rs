//! Names for slots: small integers that cannot be mistaken for one another.

/// A Session of this shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey(pub u32);
