use std::thread;

use super::*;

const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);

fn pair(high: usize) -> (Mailbox, Mailbox) {
    let (_, mut mailboxes) = Exchange::new(2, high, 0);
    let there = mailboxes.pop().unwrap();
    (mailboxes.pop().unwrap(), there)
}

/// Takes at most so many messages of the next batch.
fn take(mailbox: &mut Mailbox, count: usize) -> Option<Vec<u64>> {
    let mail = mailbox.take()?;
    let Mail::Batch(mut batch) = mail else {
        panic!("no batch: {mail:?}")
    };
    let number = |message: ShardMessage| match message {
        ShardMessage::Taken(n) => n,
        other => panic!("{other:?}"),
    };
    let next = |_| batch.next(Box::default).map(number);
    let numbers = (0..count).map_while(next).collect();
    mailbox.give_back(batch);
    Some(numbers)
}

#[test]
fn a_turns_messages_travel_in_one_batch_and_in_order() {
    let (mut here, mut there) = pair(1 << 20);
    for n in 1..=3 {
        here.post(THERE, ShardMessage::Taken(n));
    }
    assert!(there.take().is_none() && here.has_outgoing());
    here.send();
    assert!(!here.has_outgoing());
    here.post(THERE, ShardMessage::Taken(4));
    here.send();
    assert_eq!(there.len(), 2);
    assert_eq!(take(&mut there, 9).unwrap(), [1, 2, 3]);
    assert_eq!(take(&mut there, 9).unwrap(), [4]);
    assert!(there.take().is_none());
}

#[test]
fn a_confirmation_leaves_after_what_is_for_others() {
    // It promises that everything routed before was posted, to whomever.
    let (_, mut mailboxes) = Exchange::new(3, 1 << 20, 0);
    let mut last = mailboxes.pop().unwrap();
    let mut first = mailboxes.pop().unwrap();
    let mut here = mailboxes.pop().unwrap();
    here.post(ShardId(1), ShardMessage::Confirmed(1));
    here.post(ShardId(1), ShardMessage::Taken(2));
    here.post(ShardId(2), ShardMessage::Taken(3));
    assert!(here.has_outgoing());
    here.send();
    assert!(!here.has_outgoing());
    assert_eq!(take(&mut first, 9).unwrap(), [2]);
    assert_eq!(take(&mut last, 9).unwrap(), [3]);
    let Some(Mail::Batch(mut batch)) = first.take() else {
        panic!("the confirmation is missing")
    };
    assert_eq!(batch.next(Box::default), Some(ShardMessage::Confirmed(1)));
}

#[test]
fn a_batch_that_is_taken_in_parts_stays_in_order_and_gives_its_credit_back_in_parts() {
    let (mut here, mut there) = pair(1 << 20);
    for n in 1..=7 {
        here.post(THERE, ShardMessage::Taken(n));
    }
    here.send();
    here.post(THERE, ShardMessage::Taken(8));
    here.send();
    let whole = here.exchange.waiting(HERE, THERE);
    assert_eq!(take(&mut there, 3).unwrap(), [1, 2, 3]);
    assert_eq!(there.len(), 2);
    assert!(!there.may_sleep(), "a shard must not sleep over the rest");
    there.awake();
    assert_eq!(here.exchange.waiting(HERE, THERE), whole / 8 * 5);
    // Nothing of it may be taken.
    assert_eq!(take(&mut there, 0).unwrap(), []);
    assert_eq!(take(&mut there, 9).unwrap(), [4, 5, 6, 7]);
    assert_eq!(here.exchange.waiting(HERE, THERE), whole / 8);
    assert_eq!(take(&mut there, 9).unwrap(), [8]);
    assert_eq!((there.len(), here.exchange.waiting(HERE, THERE)), (0, 0));
}

#[test]
fn spent_batches_are_used_again_and_take_bounded_memory() {
    const SHARDS: u16 = 20;
    let (_, mut mailboxes) = Exchange::new(SHARDS, 1 << 20, 0);
    let mut here = mailboxes.swap_remove(0);
    // As much as one batch may take.
    let entries = SPARE_BYTES_MAX / size_of::<Entry>();
    for _ in 0..SHARDS {
        here.keep_spare(Box::new(Batch {
            messages: VecDeque::with_capacity(entries),
            ..Batch::default()
        }));
    }
    let kept = here.spare.len();
    assert!(kept == 4 && here.spare_bytes <= SPARES_BYTES_MAX, "{kept}");
    here.keep_spare(Box::new(Batch {
        messages: VecDeque::with_capacity(4 * entries),
        ..Batch::default()
    }));
    assert_eq!(here.spare.len(), kept);
    // More than are spare.
    for to in 0..SHARDS {
        here.post(ShardId(to), ShardMessage::Taken(1));
    }
    assert_eq!((here.spare.len(), here.spare_bytes), (0, 0));
}

#[test]
fn a_full_peer_is_told_once_and_so_is_its_relief() {
    let (mut here, mut there) = pair(100);
    assert_eq!(here.changed_peer(), None);
    while here.exchange.waiting(HERE, THERE) <= 100 {
        here.post(THERE, ShardMessage::Taken(1));
        here.send();
    }
    assert_eq!(here.changed_peer(), Some((THERE, true)));
    assert_eq!(here.changed_peer(), None);
    assert!(here.may_sleep());
    while take(&mut there, 9).is_some() {}
    assert!(!here.may_sleep(), "a shard must not sleep over the relief");
    assert_eq!(here.changed_peer(), Some((THERE, false)));
    assert_eq!(here.changed_peer(), None);
    assert_eq!(here.exchange.waiting(HERE, THERE), 0);
}

#[test]
fn a_shard_that_has_mail_does_not_sleep_and_one_that_sleeps_is_woken_once() {
    let (mut here, mut there) = pair(1 << 20);
    let (woken, wakes) = unbounded();
    there.set_wake(Box::new(move || woken.send(()).unwrap()));
    here.post(THERE, ShardMessage::Taken(1));
    here.send();
    assert!(wakes.try_recv().is_err(), "an awake shard gets no wake-up");
    assert!(!there.may_sleep());
    take(&mut there, 9).unwrap();
    assert!(there.may_sleep());
    for n in 2..4 {
        here.post(THERE, ShardMessage::Taken(n));
        here.send();
    }
    assert_eq!(wakes.try_iter().count(), 1);
    there.awake();
}

#[test]
fn nothing_is_lost_between_two_threads_that_sleep_and_wake() {
    // Each number is answered before the next is posted, so one lost wake-up hangs the test.
    const ROUNDS: u64 = 20_000;
    fn run(mut mailbox: Mailbox, peer: ShardId, begins: bool) -> u64 {
        let (woken, wakes) = unbounded();
        mailbox.set_wake(Box::new(move || woken.send(()).unwrap()));
        let mut last = 0;
        if begins {
            mailbox.post(peer, ShardMessage::Taken(1));
            mailbox.send();
        }
        while last < ROUNDS {
            if mailbox.may_sleep() {
                wakes.recv().unwrap();
            }
            mailbox.awake();
            while let Some(numbers) = take(&mut mailbox, 9) {
                for n in numbers {
                    assert_eq!(n, if last == 0 { n } else { last + 2 });
                    last = n;
                    mailbox.post(peer, ShardMessage::Taken(n + 1));
                }
            }
            mailbox.send();
        }
        last
    }
    let (here, there) = pair(1 << 20);
    let other = thread::spawn(move || run(there, HERE, false));
    let mine = run(here, THERE, true);
    assert!(mine >= ROUNDS && other.join().unwrap() >= ROUNDS);
}
