//! Bytes of mail that lie between each two shards, and who has heard that they are too many.

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Credits {
    shards: usize,
    /// Above this many a sender hears that the receiver is full, and at half of it that it is no more.
    high: usize,
    charged: Vec<usize>,
    /// Receivers that a sender has heard to be full, and those that it has news of, a bit each.
    full: Vec<u64>,
    news: Vec<u64>,
}

impl Credits {
    pub(super) fn new(shards: usize, high: Option<usize>) -> Self {
        Self {
            shards,
            high: high.unwrap_or(usize::MAX),
            charged: vec![0; shards * shards],
            full: vec![0; shards],
            news: vec![0; shards],
        }
    }

    /// The same between so many shards that have nothing.
    pub(super) fn renewed(&self, shards: usize) -> Self {
        Self::new(shards, Some(self.high))
    }

    /// Mail is posted.
    pub(super) fn charge(&mut self, from: usize, to: usize, bytes: usize) {
        self.charged[from * self.shards + to] += bytes;
        self.look(from, to);
    }

    /// Mail is taken.
    pub(super) fn refund(&mut self, from: usize, to: usize, bytes: usize) {
        self.charged[from * self.shards + to] -= bytes;
        self.look(from, to);
    }

    fn look(&mut self, from: usize, to: usize) {
        let charged = self.charged[from * self.shards + to];
        let is_full = self.is_full(from, to);
        let changed = if is_full {
            charged <= self.high / 2
        } else {
            charged > self.high
        };
        self.news[from] = self.news[from] & !(1 << to) | u64::from(changed) << to;
    }

    pub(super) fn is_full(&self, from: usize, to: usize) -> bool {
        self.full[from] >> to & 1 == 1
    }

    /// Whether a shard is to hear something.
    pub(super) fn has_news(&self, from: usize) -> bool {
        self.news[from] != 0
    }

    /// What a shard is to hear: whose mailbox, and whether it is full.
    pub(super) fn tell(&mut self, from: usize) -> Option<(usize, bool)> {
        if self.news[from] == 0 {
            return None;
        }
        let to = self.news[from].trailing_zeros() as usize;
        self.full[from] ^= 1 << to;
        self.look(from, to);
        Some((to, self.is_full(from, to)))
    }

    /// Bytes that lie in all mailboxes.
    pub(super) fn bytes(&self) -> usize {
        self.charged.iter().sum()
    }
}
