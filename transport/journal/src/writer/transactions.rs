//! Parts of transactions, until all have come.
//!
//! A batch that changes a record of a waiting part, or refers to one, waits with it: otherwise it could be kept before, and
//! what it deletes be put after it. Whatever else comes overtakes them, so one slow source holds up nobody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ops::{Batch, Family, Op, Ops};

use super::Submission;

#[derive(Debug, Default)]
pub(super) struct Transactions {
    groups: BTreeMap<u64, Group>,
    next: u64,
    of_record: HashMap<u64, u64>,
    of_transaction: HashMap<u64, u64>,
}

/// What has to be kept together.
#[derive(Debug, Default)]
struct Group {
    waiting: Vec<Submission>,
    missing: BTreeMap<u64, u16>,
}

impl Transactions {
    /// Takes a submission; it and what waited for it are ready once nothing is missing.
    pub(super) fn take(&mut self, submission: Submission, ready: &mut Vec<Submission>) {
        let stands_alone = submission.part.is_none_or(|part| part.of <= 1);
        if self.groups.is_empty() && stands_alone {
            return ready.push(submission);
        }
        let mut touched: BTreeSet<u64> = BTreeSet::new();
        each_id(&submission.batch, |id| touched.extend(self.of_record.get(&id)));
        if let Some(part) = submission.part {
            touched.extend(self.of_transaction.get(&part.transaction));
        }
        if touched.is_empty() && stands_alone {
            return ready.push(submission);
        }
        let number = self.merge(&touched);
        each_id(&submission.batch, |id| {
            self.of_record.insert(id, number);
        });
        let mut group = self.groups.remove(&number).unwrap_or_default();
        if let Some(part) = submission.part {
            let missing = group.missing.entry(part.transaction).or_insert(part.of);
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                group.missing.remove(&part.transaction);
                self.of_transaction.remove(&part.transaction);
            } else {
                self.of_transaction.insert(part.transaction, number);
            }
        }
        group.waiting.push(submission);
        if group.missing.is_empty() {
            for submission in group.waiting {
                each_id(&submission.batch, |id| {
                    self.of_record.remove(&id);
                });
                ready.push(submission);
            }
        } else {
            self.groups.insert(number, group);
        }
    }

    /// Makes one group of these, in the order in which they came, or a new one.
    fn merge(&mut self, touched: &BTreeSet<u64>) -> u64 {
        let mut touched = touched.iter().copied();
        let Some(first) = touched.next() else {
            self.next += 1;
            return self.next;
        };
        for other in touched {
            let other = self.groups.remove(&other).unwrap_or_default();
            for submission in &other.waiting {
                each_id(&submission.batch, |id| {
                    self.of_record.insert(id, first);
                });
            }
            for &transaction in other.missing.keys() {
                self.of_transaction.insert(transaction, first);
            }
            let group = self.groups.entry(first).or_default();
            group.waiting.extend(other.waiting);
            group.missing.extend(other.missing);
        }
        first
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
    use super::*;
    use crate::ops::Kind;
    use crate::writer::Part;

    fn submission(ticket: u64, part: Option<(u64, u16)>, puts: &[u64]) -> Submission {
        let mut batch = Batch::default();
        for &id in puts {
            batch.put(Kind::new(1), id, b"");
        }
        let part = part.map(|(transaction, of)| Part {
            transaction,
            of,
            is_first: false,
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
            transactions.take(submission, &mut ready);
            ready.iter().map(|submission| submission.ticket).collect()
        };
        let result = submissions.into_iter().map(ready).collect();
        assert!(transactions.groups.is_empty() && transactions.of_record.is_empty());
        assert!(transactions.of_transaction.is_empty());
        result
    }

    /// Parts come out together, and whatever does not touch them overtakes.
    #[test]
    fn parts_wait_for_each_other_and_for_nobody_else() {
        let ready = run(vec![
            submission(1, Some((7, 3)), &[10]),
            submission(2, None, &[99]),
            submission(3, Some((7, 3)), &[]),
            submission(4, Some((8, 1)), &[98]),
            submission(5, Some((7, 3)), &[12]),
        ]);
        assert_eq!(ready, [vec![], vec![2], vec![], vec![4], vec![1, 3, 5]]);
    }

    /// What touches a waiting record waits with it, and what touches that one too.
    #[test]
    fn what_touches_a_waiting_record_waits_too() {
        let ready = run(vec![
            submission(1, Some((7, 2)), &[10]),
            submission(2, None, &[10, 11]),
            submission(3, None, &[11]),
            submission(4, Some((7, 2)), &[12]),
        ]);
        assert_eq!(ready, [vec![], vec![], vec![], vec![1, 2, 3, 4]]);
    }

    /// What touches two transactions waits for both, and they for each other.
    #[test]
    fn transactions_that_are_tied_together_are_kept_together() {
        let ready = run(vec![
            submission(1, Some((7, 2)), &[10]),
            submission(2, Some((8, 2)), &[20]),
            submission(3, None, &[10, 20]),
            submission(4, Some((8, 2)), &[21]),
            submission(5, None, &[20]),
            submission(6, Some((7, 2)), &[11]),
        ]);
        assert_eq!(ready, [vec![], vec![], vec![], vec![], vec![], vec![1, 2, 3, 4, 5, 6]]);
    }
}
