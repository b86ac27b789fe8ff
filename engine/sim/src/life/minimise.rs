//! A failing life with less in it: clients, faults and deeds go by halves while it still fails in the same way.

use super::{Chaos, Options, Report, run};

/// Lives that are tried.
const TRIES_MAX: usize = 600;

/// Takes out of a failing life what it fails without, and calls `tells` with each shorter one.
#[must_use]
pub fn minimise(report: &Report, mut tells: impl FnMut(&Report)) -> Report {
    let mut search = Search {
        best: report.clone(),
        tries: 0,
    };
    search.try_out(|options, report| options.deeds_max = report.deeds);
    loop {
        let before = search.best.options.clone();
        search.drop_chaos();
        tells(&search.best);
        search.drop_clients();
        tells(&search.best);
        search.drop_deeds();
        tells(&search.best);
        if search.best.options == before || search.tries >= TRIES_MAX {
            return search.best;
        }
    }
}

struct Search {
    best: Report,
    tries: usize,
}

impl Search {
    /// Keeps a change if the life still fails with it.
    fn try_out(&mut self, change: impl FnOnce(&mut Options, &Report)) -> bool {
        let Some(violation) = self.best.failure.clone().filter(|_| self.tries < TRIES_MAX) else {
            return false;
        };
        self.tries += 1;
        let mut options = self.best.options.clone();
        change(&mut options, &self.best);
        if options == self.best.options {
            return false;
        }
        let report = run(self.best.seed, &options);
        let fails = report.failure.as_ref();
        let same = fails.is_some_and(|found| found.invariant == violation.invariant);
        if same {
            self.best = report;
        }
        same
    }

    fn drop_chaos(&mut self) {
        for chaos in Chaos::ALL {
            if self.best.options.has(chaos) {
                self.try_out(|options, _| options.without.push(chaos));
            }
        }
    }

    fn drop_clients(&mut self) {
        let mut width = 32;
        while width > 0 {
            for first in (0..64).step_by(width) {
                let mask = (u64::MAX >> (64 - width)) << first;
                if self.best.options.clients & mask != 0 {
                    self.try_out(|options, _| options.clients &= !mask);
                }
            }
            width /= 2;
        }
    }

    fn drop_deeds(&mut self) {
        let all = self.best.options.deeds_max.min(self.best.deeds);
        let mut width = all.div_ceil(2);
        while width > 0 {
            let mut first = 1;
            while first <= all {
                let last = (first + width - 1).min(all);
                let skipped = (first..=last).all(|deed| self.best.options.skips(deed));
                if !skipped {
                    self.try_out(|options, _| skip(options, first, last));
                }
                first += width;
            }
            if width == 1 {
                return;
            }
            width = width.div_ceil(2);
        }
    }
}

/// Leaves out more deeds; runs that touch become one.
fn skip(options: &mut Options, first: u64, last: u64) {
    options.skip.push((first, last));
    options.skip.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for &(first, last) in &options.skip {
        match merged.last_mut() {
            Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    options.skip = merged;
}
