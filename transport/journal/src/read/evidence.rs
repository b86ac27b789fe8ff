//! What is said of frames that are not there by those behind them.

use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::{FRAME_MAX, HEADER, find_head, salt};

use super::{OnDamage, Reader};

/// What is said by frames that lie behind one that is not there.
#[derive(Default)]
pub(super) struct Evidence {
    /// The highest durable mark, if it says that the missing frame was durable; otherwise 0.
    pub(super) durable: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

impl Evidence {
    /// Looks for heads from an offset on. `first` is the missing frame's number; where that cannot be told, no segment
    /// before it is left, which was only removed once this one was durable.
    fn look(&mut self, salt: u32, bytes: &[u8], mut from: usize, first: Option<u64>) {
        let sequences = match first {
            // No more frames than fit, and those that fit in later segments of any number.
            Some(first) => first..=first.saturating_add(FRAME_MAX as u64),
            None => 1..=u64::MAX,
        };
        while let Some((at, head)) = find_head(salt, bytes, from, &sequences) {
            self.frames += 1;
            if head.durable >= first.unwrap_or(0) {
                self.durable = self.durable.max(head.durable.max(1));
            }
            from = at + 1;
        }
    }
}

impl<D: Disk> Reader<'_, D> {
    /// What can be told of everything at and behind an offset.
    pub(super) fn evidence(&mut self, at: usize, bytes: &[u8], offset: usize) -> Result<Evidence, OpenError> {
        let mut evidence = Evidence::default();
        let (mut later, mut from) = (Vec::new(), offset);
        let first = self.expected.map(|(sequence, _)| sequence);
        // A frame that says of this one that it was durable lies behind it: all of them need not be read for every hole.
        if self.on_damage == OnDamage::Salvage && first.is_some_and(|first| first <= self.proven) {
            evidence.durable = self.proven;
            return Ok(evidence);
        }
        if self.promised > 0 && self.promised >= first.unwrap_or(0) {
            evidence.durable = self.promised;
        }
        for (number, file) in self.files.iter().enumerate().skip(at) {
            if number > at {
                file.load(self.on_damage, &mut later)?;
                from = HEADER;
            }
            let bytes = if number > at { &later } else { bytes };
            let Some(store) = self.store else { break };
            evidence.bytes += bytes.len().saturating_sub(from) as u64;
            evidence.look(salt(&store, file.id), bytes, from, first);
        }
        self.proven = self.proven.max(evidence.durable);
        Ok(evidence)
    }
}
