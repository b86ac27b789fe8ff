//! The flag by which a shard that waits is woken, and one that is awake is not; and the credit whose return may be what
//! a shard waits for.
//!
//! Whoever posts first does what the sleeper looks for and then looks at the flag; the sleeper first sets the flag and
//! then looks. A fence between the two steps on both sides makes it impossible that both look and neither sees, which
//! is all that the promise rests on: no wake-up is lost. Here stands nothing else, so that loom can try every order in
//! which the steps of several threads may be seen; `.ci/run` has it do that.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Whether a shard waits, or is about to, and has to be woken.
///
/// Nobody writes it without reading it: so it has one history, in which everybody's place is known, and not one of plain
/// stores besides, which loom does not follow. That costs a shard that goes to sleep some nanoseconds.
#[derive(Debug)]
pub(super) struct Sleeping {
    flag: AtomicBool,
    /// A twin without the fence, to show that the model would find it missing.
    #[cfg(all(test, loom))]
    is_fenced: bool,
}

impl Sleeping {
    /// Nobody sleeps.
    pub(super) fn new() -> Self {
        Self {
            flag: AtomicBool::new(false),
            #[cfg(all(test, loom))]
            is_fenced: true,
        }
    }

    /// From now on whoever does something that the shard waits for wakes it. The shard looks once more before it waits.
    pub(super) fn begin(&self) {
        self.flag.swap(true, Ordering::Relaxed);
        self.order();
    }

    /// The shard looks after itself again.
    pub(super) fn end(&self) {
        // A shard that did not sleep writes nothing that others would have to fetch.
        if self.flag.load(Ordering::Relaxed) {
            self.flag.swap(false, Ordering::Relaxed);
        }
    }

    /// Called after something was done that the shard may wait for. `true`: the caller wakes it, and nobody else does.
    pub(super) fn must_be_woken(&self) -> bool {
        self.order();
        self.flag.load(Ordering::Relaxed) && self.flag.swap(false, Ordering::AcqRel)
    }

    /// What was done before is seen by a shard that finds it need not sleep, or the shard's flag is seen here.
    fn order(&self) {
        #[cfg(all(test, loom))]
        if !self.is_fenced {
            return;
        }
        fence(Ordering::SeqCst);
    }
}

/// Bytes that one shard posted to another and that were not taken yet.
#[derive(Debug)]
pub(super) struct Credit(AtomicUsize);

impl Credit {
    /// Nothing is on its way.
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Bytes on their way.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Posted. Gives how much is on its way now.
    pub(super) fn charge(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes)
    }

    /// Taken. `true`: what is on its way was more than `low` and is no more; the sender may wait for just that.
    pub(super) fn give_back(&self, bytes: usize, low: usize) -> bool {
        let before = self.0.fetch_sub(bytes, Ordering::AcqRel);
        before > low && before - bytes <= low
    }
}

/// Every order of the steps of two threads beside the sleeper's, as far as the memory model allows it, with as many
/// preemptions as it takes to get between any two steps of all three. A wake-up that is lost leaves the sleeper parked
/// for ever, which loom tells as a deadlock.
#[cfg(all(test, loom))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize as Count;

    use loom::model::Builder;
    use loom::sync::Arc;
    use loom::thread::{self, Thread};

    use super::*;

    const PREEMPTIONS_MAX: usize = 3;

    /// A shard that sleeps, and what it looks for. The mail is counted without any order of its own.
    struct Desk {
        sleeping: Sleeping,
        mail: AtomicUsize,
        credit: Credit,
        /// Remembers a wake-up that comes before the sleep, as what a shard waits on in the kernel does.
        sleeper: Thread,
        wakes: Count,
    }

    const LOW: usize = 10;

    impl Desk {
        /// The present thread's.
        fn new(is_fenced: bool) -> Arc<Self> {
            Arc::new(Self {
                sleeping: Sleeping {
                    is_fenced,
                    ..Sleeping::new()
                },
                mail: AtomicUsize::new(0),
                credit: Credit::new(),
                sleeper: thread::current(),
                wakes: Count::new(0),
            })
        }

        fn nudge(&self) {
            if self.sleeping.must_be_woken() {
                self.wakes.fetch_add(1, Ordering::Relaxed);
                self.sleeper.unpark();
            }
        }

        fn post(&self) {
            self.mail.fetch_add(1, Ordering::Relaxed);
            self.nudge();
        }

        fn take(&self, bytes: usize) {
            if self.credit.give_back(bytes, LOW) {
                self.nudge();
            }
        }

        /// Sleeps, unless there is something to do, until `is_done`.
        fn sleep_until(&self, mut has_work: impl FnMut() -> bool, mut is_done: impl FnMut() -> bool) {
            let mut sleeps = 0;
            while !is_done() {
                sleeps += 1;
                self.sleeping.begin();
                if !has_work() {
                    thread::park();
                }
                self.sleeping.end();
            }
            let wakes = self.wakes.load(Ordering::Relaxed);
            assert!(wakes <= sleeps, "{wakes} wake-ups in {sleeps} sleeps");
        }
    }

    fn model(work: impl Fn() + Send + Sync + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS_MAX);
        builder.check(work);
    }

    /// Two that post one mail each, and a shard that sleeps until it has both.
    fn two_posters(is_fenced: bool) {
        model(move || {
            let desk = Desk::new(is_fenced);
            for _ in 0..2 {
                let desk = Arc::clone(&desk);
                thread::spawn(move || desk.post());
            }
            let mut taken = 0;
            desk.sleep_until(
                || desk.mail.load(Ordering::Relaxed) > 0,
                || {
                    taken += desk.mail.swap(0, Ordering::Relaxed);
                    taken == 2
                },
            );
        });
    }

    /// A shard whose mail lies full with another, which takes it in two steps, while a third one posts: it sleeps until it
    /// hears of the relief and has the mail.
    fn relief(is_fenced: bool) {
        model(move || {
            let desk = Desk::new(is_fenced);
            desk.credit.charge(LOW + 2);
            let receiver = Arc::clone(&desk);
            thread::spawn(move || {
                receiver.take(1);
                receiver.take(1);
            });
            let poster = Arc::clone(&desk);
            thread::spawn(move || poster.post());
            let (mut taken, relieved) = (0, core::cell::Cell::new(false));
            desk.sleep_until(
                || desk.mail.load(Ordering::Relaxed) > 0 || !relieved.get() && desk.credit.bytes() <= LOW,
                || {
                    taken += desk.mail.swap(0, Ordering::Relaxed);
                    relieved.set(relieved.get() || desk.credit.bytes() <= LOW);
                    taken == 1 && relieved.get()
                },
            );
        });
    }

    /// No wake-up is lost, and nobody is woken more often than it has gone to sleep, whoever posts when.
    #[test]
    fn a_shard_that_sleeps_is_woken_by_whoever_posts_and_once() {
        two_posters(true);
    }

    /// A sender that sleeps while the mailbox of another is full of its mail is woken when that has emptied.
    #[test]
    fn a_shard_that_sleeps_is_woken_by_the_relief_of_another() {
        relief(true);
    }

    /// The proofs above bite: without the fence loom finds the wake-up that is lost, in both.
    #[test]
    fn without_the_fence_a_wake_up_is_lost() {
        for model in [two_posters, relief] {
            let lost = catch_unwind(AssertUnwindSafe(|| model(false)));
            let panic = lost.expect_err("the fence is not needed, or the model does not see it");
            let text = panic.downcast_ref::<String>().unwrap();
            assert!(text.contains("deadlock"), "{text}");
        }
    }
}
