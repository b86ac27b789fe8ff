//! Parts of transactions, until all have come.
//!
//! A batch that changes a record of a waiting part, or refers to one, waits with it: otherwise it could be kept before, and
//! what it deletes be put after it. Whatever else comes overtakes them, so one slow source holds up nobody else.

use std::collections::BTreeMap;

use crate::hash::IdMap;
use crate::ops::{Batch, Family, Op, Ops};

use super::Submission;

#[derive(Debug, Default)]
pub(super) struct Transactions {
    units: IdMap<Unit>,
    next: u64,
    arrivals: u64,
    visits: u64,
    /// Who touched a record last, of those that wait.
    of_record: IdMap<u64>,
    of_transaction: IdMap<u64>,
    /// Transactions of which parts are missing, and when they began.
    begun: BTreeMap<u64, u64>,
    touched: Vec<u64>,
    visited: Vec<u64>,
}

/// What is kept together: a transaction, or a batch that stands alone and touches what waits.
#[derive(Debug, Default)]
struct Unit {
    /// With the order of their arrival.
    parts: Vec<(u64, Submission)>,
    records: Vec<u64>,
    /// Units that touched one of its records before it did: they are kept before it, or with it.
    after: Vec<u64>,
    /// How many last parts are still to come.
    missing: i64,
    /// Complete units that wait for this one, which is not.
    watchers: Vec<u64>,
    /// The unit that is not complete and that this one, which is, watches.
    watches: u64,
    visit: u64,
}

impl Unit {
    const fn is_complete(&self) -> bool {
        self.missing <= 0
    }
}

impl Transactions {
    /// Takes a submission. It is ready, with all that waited for it, once nothing that has to be kept before it or with it
    /// is missing.
    pub(super) fn take(&mut self, submission: Submission, now: u64, ready: &mut Vec<Submission>) {
        let part = submission.part;
        let begun = part.and_then(|part| self.of_transaction.get(&part.transaction).copied());
        let stands_alone = begun.is_none() && part.is_none_or(|part| part.is_last && part.forwards == 0);
        if stands_alone && self.units.is_empty() {
            return ready.push(submission);
        }
        self.touched.clear();
        each_id(&submission.batch, |id| self.touched.push(id));
        self.touched.extend(part.and_then(|part| part.after));
        if stands_alone && !self.touched.iter().any(|id| self.of_record.contains_key(id)) {
            return ready.push(submission);
        }
        let number = begun.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let unit = self.units.entry(number).or_insert_with(|| Unit {
            missing: i64::from(part.is_some()),
            ..Unit::default()
        });
        for id in self.touched.drain(..) {
            match self.of_record.insert(id, number) {
                Some(last) if last == number => {}
                last => {
                    unit.records.push(id);
                    unit.after.extend(last);
                }
            }
        }
        self.arrivals += 1;
        unit.parts.push((self.arrivals, submission));
        if let Some(part) = part {
            unit.missing += i64::from(part.forwards) - i64::from(part.is_last);
            if !unit.is_complete() {
                self.of_transaction.insert(part.transaction, number);
                self.begun.entry(number).or_insert(now);
                return;
            }
            self.of_transaction.remove(&part.transaction);
            self.begun.remove(&number);
        }
        let watchers = std::mem::take(&mut unit.watchers);
        for complete in std::iter::once(number).chain(watchers) {
            self.settle(complete, ready);
        }
    }

    /// How many transactions are not complete, and when the oldest of them began.
    pub(super) fn waiting(&self) -> (usize, Option<u64>) {
        (self.begun.len(), self.begun.values().next().copied())
    }

    /// Releases a complete unit with all that has to be kept before it or with it, unless that is not complete.
    fn settle(&mut self, complete: u64, ready: &mut Vec<Submission>) {
        self.visits += 1;
        self.visited.clear();
        self.visit(complete);
        let mut at = 0;
        while let Some(&number) = self.visited.get(at) {
            if let Some(missing) = self.missing_for(number, complete) {
                return self.watch(complete, missing);
            }
            let after = self
                .units
                .get_mut(&number)
                .map(|unit| std::mem::take(&mut unit.after))
                .unwrap_or_default();
            after.iter().for_each(|&other| self.visit(other));
            if let Some(unit) = self.units.get_mut(&number) {
                unit.after = after;
            }
            at += 1;
        }
        self.release(ready);
    }

    /// Remembers to look at a unit, once.
    fn visit(&mut self, number: u64) {
        // One that is not there has been released.
        if let Some(unit) = self.units.get_mut(&number)
            && unit.visit != self.visits
        {
            unit.visit = self.visits;
            self.visited.push(number);
        }
    }

    /// A unit that is not complete and that this one waits for, as far as that is known.
    fn missing_for(&self, number: u64, asking: u64) -> Option<u64> {
        let unit = self.units.get(&number)?;
        if !unit.is_complete() {
            return Some(number);
        }
        let is_missing = |watched: &Unit| !watched.is_complete();
        (number != asking && self.units.get(&unit.watches).is_some_and(is_missing)).then_some(unit.watches)
    }

    fn watch(&mut self, complete: u64, missing: u64) {
        if let Some(unit) = self.units.get_mut(&complete) {
            unit.watches = missing;
        }
        if let Some(unit) = self.units.get_mut(&missing) {
            unit.watchers.push(complete);
        }
    }

    /// Hands out all units that were visited, in the order in which their parts came.
    fn release(&mut self, ready: &mut Vec<Submission>) {
        let mut parts = Vec::new();
        for number in self.visited.drain(..) {
            let unit = self.units.remove(&number).unwrap_or_default();
            for id in unit.records {
                if self.of_record.get(&id) == Some(&number) {
                    self.of_record.remove(&id);
                }
            }
            parts.extend(unit.parts);
        }
        parts.sort_unstable_by_key(|(arrival, _)| *arrival);
        ready.extend(parts.into_iter().map(|(_, submission)| submission));
    }
}

fn each_id(batch: &Batch, mut each: impl FnMut(u64)) {
    for op in Ops::new(batch.bytes()) {
        match op {
            Ok(Op::Delete { id }) => each(id),
            Ok(Op::Put(put)) => {
                each(put.id);
                if let Family::Child(parent) = put.family {
                    each(parent);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::Random;
    use crate::ops::Kind;
    use crate::writer::Part;

    /// The number of a transaction, what it forwards, and whether its source sends no more of it.
    type OfTransaction = Option<(u64, u32, bool)>;

    fn submission(ticket: u64, part: OfTransaction, puts: &[u64]) -> Submission {
        let mut batch = Batch::default();
        for &id in puts {
            batch.put(Kind::new(1), id, b"");
        }
        let part = part.map(|(transaction, forwards, is_last)| Part {
            transaction,
            forwards,
            is_last,
            after: None,
        });
        Submission {
            source: 0,
            ticket,
            part,
            batch,
        }
    }

    fn run(submissions: Vec<Submission>) -> Vec<Vec<u64>> {
        let mut transactions = Transactions::default();
        let ready = |submission| {
            let mut ready = Vec::new();
            transactions.take(submission, 0, &mut ready);
            ready.iter().map(|submission| submission.ticket).collect()
        };
        let result = submissions.into_iter().map(ready).collect();
        assert_empty(&transactions);
        result
    }

    fn assert_empty(transactions: &Transactions) {
        assert!(transactions.units.is_empty() && transactions.of_record.is_empty());
        assert!(transactions.of_transaction.is_empty() && transactions.begun.is_empty());
    }

    /// Parts come out together, and whatever does not touch them overtakes.
    #[test]
    fn parts_wait_for_each_other_and_for_nobody_else() {
        let ready = run(vec![
            submission(1, Some((7, 2, true)), &[10]),
            submission(2, None, &[99]),
            submission(3, Some((7, 0, true)), &[]),
            submission(4, Some((8, 0, true)), &[98]),
            submission(5, Some((7, 0, true)), &[12]),
        ]);
        assert_eq!(ready, [vec![], vec![2], vec![], vec![4], vec![1, 3, 5]]);
    }

    /// A part that comes because of another may forward too, and a source may send several pieces.
    #[test]
    fn how_many_parts_there_are_turns_out_as_they_come() {
        let ready = run(vec![
            submission(1, Some((7, 1, false)), &[10]),
            submission(2, Some((7, 1, false)), &[11]),
            submission(3, Some((7, 1, true)), &[20]),
            submission(4, Some((7, 0, true)), &[21]),
            submission(5, Some((7, 0, true)), &[30]),
            submission(6, Some((7, 0, true)), &[12]),
            submission(7, Some((8, 0, false)), &[]),
            submission(8, Some((8, 0, true)), &[]),
        ]);
        let mut expected = vec![vec![]; 8];
        expected[5] = vec![1, 2, 3, 4, 5, 6];
        expected[7] = vec![7, 8];
        assert_eq!(ready, expected);
    }

    /// What touches a waiting record waits with it, and what touches that one too.
    #[test]
    fn what_touches_a_waiting_record_waits_too() {
        let ready = run(vec![
            submission(1, Some((7, 1, true)), &[10]),
            submission(2, None, &[10, 11]),
            submission(3, None, &[11]),
            submission(4, Some((7, 0, true)), &[12]),
        ]);
        assert_eq!(ready, [vec![], vec![], vec![], vec![1, 4, 2, 3]]);
    }

    /// Transactions that name the same record are kept in order, though the later one is complete first; those that name
    /// another one, or none, overtake.
    #[test]
    fn transactions_of_one_order_do_not_overtake_each_other() {
        let after = |mut submission: Submission, record| {
            let part = submission.part.as_mut().unwrap();
            part.after = Some(record);
            submission
        };
        let ready = run(vec![
            after(submission(1, Some((7, 1, true)), &[10]), 5),
            after(submission(2, Some((8, 0, true)), &[11]), 5),
            after(submission(3, Some((9, 0, true)), &[12]), 6),
            after(submission(4, Some((10, 1, true)), &[13]), 5),
            submission(5, Some((10, 0, true)), &[14]),
            submission(6, Some((7, 0, true)), &[15]),
        ]);
        assert_eq!(ready, [vec![], vec![], vec![3], vec![], vec![], vec![1, 6, 2, 4, 5]]);
    }

    /// What touches two transactions waits for both, and they do not wait for each other.
    #[test]
    fn transactions_that_a_third_party_touches_do_not_wait_for_each_other() {
        let ready = run(vec![
            submission(1, Some((7, 1, true)), &[10]),
            submission(2, Some((8, 1, true)), &[20]),
            submission(3, None, &[10, 20]),
            submission(4, Some((8, 0, true)), &[21]),
            submission(5, None, &[20]),
            submission(6, Some((7, 0, true)), &[11]),
        ]);
        assert_eq!(ready, [vec![], vec![], vec![], vec![2, 4], vec![], vec![1, 6, 3, 5]]);
    }

    /// A transaction that is complete does not wait for one that touched the same record after it, though all of them
    /// overlap without end.
    #[test]
    fn a_chain_of_transactions_that_overlap_is_kept_link_by_link() {
        const RETAINED: u64 = 5;
        let mut submissions = vec![submission(1, Some((1, 1, true)), &[RETAINED])];
        for n in 1..50 {
            submissions.push(submission(2 * n, Some((n + 1, 1, true)), &[RETAINED]));
            submissions.push(submission(2 * n + 1, Some((n, 0, true)), &[100 + n]));
        }
        submissions.push(submission(100, Some((50, 0, true)), &[]));
        let ready = run(submissions);
        for (at, tickets) in ready.iter().enumerate() {
            let at = at as u64;
            match at {
                2 => assert_eq!(tickets, &[1, 3]),
                99 => assert_eq!(tickets, &[98, 100]),
                _ if at.is_multiple_of(2) && at > 0 => assert_eq!(tickets, &[at - 2, at + 1]),
                _ => assert!(tickets.is_empty(), "{at}"),
            }
        }
    }

    /// Transactions that touched each other's records crosswise are kept together.
    #[test]
    fn transactions_that_are_tied_crosswise_are_kept_together() {
        let ready = run(vec![
            submission(1, Some((7, 1, true)), &[10]),
            submission(2, Some((8, 1, true)), &[20]),
            submission(3, Some((8, 0, true)), &[10]),
            submission(4, Some((7, 0, true)), &[20]),
        ]);
        assert_eq!(ready, [vec![], vec![], vec![], vec![1, 2, 3, 4]]);
    }

    /// A waiting submission, as a plain list has it.
    #[derive(Clone)]
    struct Plain {
        ticket: u64,
        unit: u64,
        ids: Vec<u64>,
    }

    /// All that does not depend on something that is not complete, found by looking at every pair again and again.
    fn releasable(waiting: &[Plain], mut blocked: BTreeSet<u64>) -> BTreeSet<u64> {
        loop {
            let before = blocked.len();
            for (at, later) in waiting.iter().enumerate() {
                let waits = |earlier: &Plain| {
                    blocked.contains(&earlier.unit) && earlier.ids.iter().any(|id| later.ids.contains(id))
                };
                if waiting[..at].iter().any(waits) {
                    blocked.insert(later.unit);
                }
            }
            if blocked.len() == before {
                break;
            }
        }
        let free = waiting.iter().filter(|plain| !blocked.contains(&plain.unit));
        free.map(|plain| plain.ticket).collect()
    }

    /// Whatever the order in which parts come, exactly that is released which depends on nothing that is missing.
    #[test]
    fn what_is_released_is_what_looking_at_every_pair_says() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut transactions = Transactions::default();
            let (mut waiting, mut open): (Vec<Plain>, BTreeMap<u64, i64>) = Default::default();
            let mut unit = 0;
            for ticket in 1..200 {
                let ids: Vec<u64> = (0..random.below(3)).map(|_| 1 + random.below(30)).collect();
                let part = match random.below(3) {
                    0 => None,
                    1 if ticket < 150 => Some((ticket, random.below(3) as u32, random.below(3) > 0)),
                    _ if open.is_empty() => None,
                    _ => {
                        let at = random.below(open.len() as u64) as usize;
                        let forwards = u32::from(random.below(5) == 0);
                        Some((*open.keys().nth(at).unwrap(), forwards, random.below(4) > 0))
                    }
                };
                let number = part.map_or_else(
                    || {
                        unit += 1;
                        1_000 + unit
                    },
                    |part| part.0,
                );
                if let Some((transaction, forwards, is_last)) = part {
                    let missing = open.entry(transaction).or_insert(1);
                    *missing += i64::from(forwards) - i64::from(is_last);
                    if *missing <= 0 {
                        open.remove(&transaction);
                    }
                }
                let mut submitted = submission(ticket, part, &ids);
                let mut touched = ids;
                if let Some(part) = &mut submitted.part
                    && random.below(3) == 0
                {
                    let after = 100 + random.below(2);
                    part.after = Some(after);
                    touched.push(after);
                }
                let plain = Plain {
                    ticket,
                    unit: number,
                    ids: touched,
                };
                waiting.push(plain);
                let expected = releasable(&waiting, open.keys().copied().collect());
                waiting.retain(|plain| !expected.contains(&plain.ticket));
                let mut ready = Vec::new();
                transactions.take(submitted, ticket, &mut ready);
                let released: Vec<u64> = ready.iter().map(|submission| submission.ticket).collect();
                assert_eq!(
                    released.iter().copied().collect::<BTreeSet<_>>(),
                    expected,
                    "seed {seed}, {ticket}"
                );
                assert_eq!(transactions.waiting().0, open.len());
            }
        }
    }
}
