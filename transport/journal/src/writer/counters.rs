//! What the writer has done, for whoever asks from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{Counts, Pressure, Sizes};

/// How many sizes of frames are told apart: 1, 2, up to 4, up to 8 and so on, and all beyond.
pub const BATCH_SIZES: usize = 14;

/// A writer's numbers. Those of the disk and the index are looked at ten times a second at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// What was done since the start.
    pub counts: Counts,
    /// How large the journal is.
    pub sizes: Sizes,
    /// Bytes that wait in the queue, or for parts of their transaction.
    pub queued_bytes: u64,
    /// Transactions of which parts are missing.
    pub waiting_transactions: u64,
    /// For how long the oldest of them has waited, in milliseconds.
    pub oldest_wait_millis: u64,
    /// Syncs that were timed.
    pub timed_syncs: u64,
    /// How long they took together.
    pub sync_nanos: u64,
    /// The longest.
    pub sync_nanos_max: u64,
    /// Frames by how many batches they held: at most 1, 2, 4, 8 and so on.
    pub batches: [u64; BATCH_SIZES],
    /// Whether there is room.
    pub pressure: Pressure,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    counts: [AtomicU64; 6],
    sizes: [AtomicU64; 5],
    syncs: [AtomicU64; 3],
    batches: [AtomicU64; BATCH_SIZES],
    waiting: [AtomicU64; 2],
    pressure: AtomicU64,
}

impl Counters {
    pub(super) fn batch(&self, submissions: usize) {
        let size = submissions.max(1).next_power_of_two().trailing_zeros() as usize;
        if let Some(count) = self.batches.get(size.min(BATCH_SIZES - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn sync(&self, nanos: u64) {
        let [count, sum, max] = &self.syncs;
        count.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(nanos, Ordering::Relaxed);
        max.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(super) fn set(&self, counts: Counts, pressure: Pressure) {
        let Counts {
            records,
            frames,
            bytes,
            moved_bytes,
            syncs,
            removed_segments,
        } = counts;
        set(
            &self.counts,
            [records, frames, bytes, moved_bytes, syncs, removed_segments],
        );
        let pressure = match pressure {
            Pressure::Normal => 0,
            Pressure::DiskFull => 1,
            Pressure::MaxBytes => 2,
        };
        self.pressure.store(pressure, Ordering::Relaxed);
    }

    pub(super) fn set_waiting(&self, transactions: usize, oldest_nanos: u64) {
        set(&self.waiting, [transactions as u64, oldest_nanos / 1_000_000]);
    }

    pub(super) fn set_sizes(&self, sizes: Sizes) {
        let Sizes {
            disk_bytes,
            live_bytes,
            live_records,
            segments,
            index_bytes,
        } = sizes;
        set(
            &self.sizes,
            [disk_bytes, live_bytes, live_records, segments, index_bytes],
        );
    }

    pub(super) fn numbers(&self, queued_bytes: u64) -> Numbers {
        let [records, frames, bytes, moved_bytes, syncs, removed_segments] = get(&self.counts);
        let [disk_bytes, live_bytes, live_records, segments, index_bytes] = get(&self.sizes);
        let [waiting_transactions, oldest_wait_millis] = get(&self.waiting);
        let [timed_syncs, sync_nanos, sync_nanos_max] = get(&self.syncs);
        Numbers {
            counts: Counts {
                records,
                frames,
                bytes,
                moved_bytes,
                syncs,
                removed_segments,
            },
            sizes: Sizes {
                disk_bytes,
                live_bytes,
                live_records,
                segments,
                index_bytes,
            },
            queued_bytes,
            waiting_transactions,
            oldest_wait_millis,
            timed_syncs,
            sync_nanos,
            sync_nanos_max,
            batches: get(&self.batches),
            pressure: match self.pressure.load(Ordering::Relaxed) {
                0 => Pressure::Normal,
                1 => Pressure::DiskFull,
                _ => Pressure::MaxBytes,
            },
        }
    }
}

fn set<const N: usize>(counters: &[AtomicU64; N], values: [u64; N]) {
    for (counter, value) in counters.iter().zip(values) {
        counter.store(value, Ordering::Relaxed);
    }
}

fn get<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|at| counters.get(at).map_or(0, |counter| counter.load(Ordering::Relaxed)))
}
