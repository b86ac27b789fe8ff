//! Each check finds what it is there for: of a broker with one fault, some story tells.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sol_engine::QueueFull;
use sol_sim::fault::Fault;
use sol_sim::story::Sizes;

use crate::strategy::story;

/// Stories within which every fault is found. They are the same each time.
const STORIES: usize = 400;

/// Tells stories to a broker with a fault until a check finds it, and asserts that it is one of `invariants`.
fn bites(fault: Fault, invariants: &[&str]) {
    bites_in(fault, invariants, |_| true);
}

/// The same, in stories of some sizes.
fn bites_in(fault: Fault, invariants: &[&str], fits: impl Fn(&Sizes) -> bool) {
    for shards in 1..=2 {
        let mut runner = TestRunner::deterministic();
        let strategy = story(shards);
        let mut found = BTreeSet::new();
        let told = (0..STORIES).any(|_| {
            let story = strategy.new_tree(&mut runner).unwrap().current();
            if !fits(&story.sizes) {
                return false;
            }
            match story.tell(Some(fault)) {
                Ok(_) => false,
                Err(violation) => {
                    invariants.contains(&violation.invariant) || {
                        found.insert(violation.invariant);
                        false
                    }
                }
            }
        });
        assert!(
            told,
            "{fault:?} on {shards} shards: only {found:?} in {STORIES} stories"
        );
    }
}

/// I1: a message that was acknowledged and goes nowhere is missed.
#[test]
fn a_lost_message_is_found() {
    bites(Fault::LosesAcknowledged, &["I1"]);
}

/// I12: a publish is refused only where a limit may say so.
#[test]
fn a_refusal_without_a_limit_is_found() {
    bites(Fault::RefusesAll, &["I12"]);
}

/// I1: where queues may be full, a message that was refused comes to those that had room.
#[test]
fn a_refusal_that_leaves_out_who_had_room_is_found() {
    let may_refuse = |sizes: &Sizes| sizes.queue.is_some_and(|(_, full)| full == QueueFull::Refuse);
    bites_in(Fault::RefusesAll, &["I1"], may_refuse);
}

/// I2: a QoS 2 message that is delivered twice is noticed.
#[test]
fn a_second_delivery_of_qos_2_is_found() {
    bites(Fault::RepeatsExactlyOnce, &["I2"]);
}

/// I3: what is delivered again and does not say so is noticed.
#[test]
fn a_forgotten_dup_is_found() {
    bites(Fault::ForgetsDup, &["I3", "I7"]);
}

/// I4: two messages that have changed places are noticed.
#[test]
fn a_swapped_order_is_found() {
    bites(Fault::SwapsOrder, &["I4"]);
}

/// I5: a delivery after UNSUBACK has no cause.
#[test]
fn a_delivery_after_unsuback_is_found() {
    bites(Fault::DeliversAfterUnsuback, &["I5"]);
}

/// I5: No Local is kept to.
#[test]
fn an_ignored_no_local_is_found() {
    bites(Fault::IgnoresNoLocal, &["I5"]);
}

/// I5: Retain Handling is kept to.
#[test]
fn an_ignored_retain_handling_is_found() {
    bites(Fault::IgnoresRetainHandling, &["I5", "I2", "I3"]);
}

/// I5: Retain As Published is kept to.
#[test]
fn an_ignored_retain_as_published_is_found() {
    bites(Fault::IgnoresRetainAsPublished, &["I5"]);
}

/// I5: one member of a Shared Subscription gets a message.
#[test]
fn a_group_that_gets_all_is_found() {
    bites(Fault::SharesWithAll, &["I5"]);
}

/// I5, I6 and I8: a retained message that was cleared is not there any more: to replay it has no cause.
#[test]
fn a_retained_message_that_is_not_cleared_is_found() {
    bites(Fault::KeepsCleared, &["I5", "I6", "I8"]);
}

/// I7: no more is in flight than Receive Maximum says.
#[test]
fn an_ignored_receive_maximum_is_found() {
    bites(Fault::IgnoresReceiveMaximum, &["I7"]);
}

/// I9: a client has one connection.
#[test]
fn two_owners_are_found() {
    bites(Fault::HasTwoOwners, &["I9"]);
}

/// I10: a Will is not published after DISCONNECT 0x00.
#[test]
fn a_will_after_disconnect_is_found() {
    bites(Fault::PublishesWillAfterDisconnect, &["I10"]);
}

/// I10 and I1: a Will that is due is published.
#[test]
fn a_forgotten_will_is_found() {
    bites(Fault::ForgetsWill, &["I1", "I6"]);
}

/// What has expired is not delivered, and what will expire says when.
#[test]
fn an_ignored_expiry_is_found() {
    bites(Fault::IgnoresExpiry, &["expiry"]);
}

/// A Session outlives its connection for as long as it was asked to.
#[test]
fn a_forgotten_session_is_found() {
    bites(Fault::ForgetsSession, &["session"]);
}
