//! Chance from a seed: the same seed makes the same run on every machine.

/// A small generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above 0.
    pub const fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether it happens that happens once in `times`.
    pub const fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

impl Rng {
    /// The stream of a seed that has this name: how much is drawn from one changes nothing in another.
    #[must_use]
    pub fn named(seed: u64, name: &str) -> Self {
        let mut rng = Self(seed ^ 0x5851_f42d_4c95_7f2d);
        for &byte in name.as_bytes() {
            rng.0 = rng.next() ^ u64::from(byte);
        }
        rng
    }

    /// A number from `from` to `to`, both included.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    /// Whether it happens that happens so often in a hundred times.
    pub const fn percent(&mut self, often: u64) -> bool {
        self.next() % 100 < often
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// How long until something happens that happens once in `times` on average; `times` 0: never.
    pub const fn wait(&mut self, times: u64) -> u64 {
        if times == 0 {
            u64::MAX
        } else {
            self.between(1, 2 * times - 1)
        }
    }
}
