//! What a turn sends: by one system call for a batch, and nothing of it is in flight afterwards.

#![allow(unsafe_code, reason = "the kernel is handed memory")]

use std::io::{self, Write};
use std::mem;
use std::os::fd::AsRawFd;

use super::Uring;
use super::ring::{Completion, SEND_BYTES_MAX};
use super::tag::{Kind, Tag};
use crate::backend::SendOp;

/// Sends lent to the kernel at once.
const TOGETHER_MAX: usize = 256;

/// A send that was not done entirely.
#[derive(Debug)]
pub(super) struct Short {
    /// Its place in the batch.
    index: u32,
    /// How much of it was done, or an error's number below zero.
    result: i32,
}

impl Uring {
    /// Sends each by a call of its own.
    pub(super) fn send_each(&mut self, operations: &mut [SendOp]) {
        for operation in operations {
            let Some(socket) = self.open(operation.connection).and_then(|slot| slot.socket.as_ref()) else {
                operation.failed = true;
                continue;
            };
            let mut socket: &socket2::Socket = socket;
            let outcome = loop {
                match socket.write(operation.output.unsent()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    outcome => break outcome,
                }
            };
            match outcome {
                Ok(sent) => operation.output.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => operation.failed = true,
            }
            self.await_room(operation);
        }
    }

    /// Sends all of them by one call, or a few when there are very many.
    pub(super) fn send_together(&mut self, operations: &mut [SendOp]) {
        for operations in operations.chunks_mut(TOGETHER_MAX) {
            if self.submit_sends(operations) {
                self.take_outcomes();
                self.apply_outcomes(operations);
            }
            for operation in operations {
                self.await_room(operation);
            }
        }
    }

    /// Has the kernel try each once. `false`: it cannot, and all have failed.
    fn submit_sends(&mut self, operations: &mut [SendOp]) -> bool {
        self.batch = self.batch.wrapping_add(1);
        for (index, operation) in (0..).zip(operations.iter_mut()) {
            let slot = self.slots.find(operation.connection);
            let Some(socket) = slot
                .filter(|slot| !slot.state.closing)
                .and_then(|slot| slot.socket.as_ref())
            else {
                operation.failed = true;
                continue;
            };
            let tag = Tag::new(Kind::Send, index, self.batch);
            // SAFETY: the bytes belong to `operations`, which is borrowed mutably for all of this function, and nobody
            // touches them before `submit` below; where that fails they are never freed. Nothing in between can panic: the
            // loop indexes and allocates nothing.
            unsafe { self.ring.send(socket.as_raw_fd(), operation.output.unsent(), tag) };
        }
        if self.ring.submit().is_ok() {
            return true;
        }
        for operation in operations {
            // The kernel may still look at it if it should take what is queued after all; the shard ends at its next wait.
            mem::forget(mem::take(&mut operation.output));
            operation.failed = true;
        }
        false
    }

    /// Finds what was not sent entirely among the completions, and keeps the others for later.
    fn take_outcomes(&mut self) {
        self.shorts.clear();
        loop {
            while let Some(completion) = self.ring.next() {
                self.take_outcome(completion);
            }
            // A completion that did not fit is one that was not seen.
            if !self.ring.is_overflown() || self.ring.fetch().is_err() {
                return;
            }
        }
    }

    fn take_outcome(&mut self, completion: Completion) {
        let Completion { tag, result, .. } = completion;
        if tag.kind != Kind::Send {
            self.taken.push_back(completion);
        } else if tag.generation == self.batch {
            self.shorts.push(Short {
                index: tag.index,
                result,
            });
        }
    }

    /// The kernel has tried each, so what has no completion was sent entirely.
    fn apply_outcomes(&mut self, operations: &mut [SendOp]) {
        self.shorts.sort_unstable_by_key(|short| short.index);
        let mut shorts = self.shorts.iter().peekable();
        for (index, operation) in (0..).zip(operations) {
            let Some(Short { result, .. }) = shorts.next_if(|short| short.index == index) else {
                if !operation.failed {
                    operation.output.sent += operation.output.unsent().len().min(SEND_BYTES_MAX);
                }
                continue;
            };
            match usize::try_from(*result) {
                Ok(sent) => operation.output.sent += sent,
                Err(_) => operation.failed |= !matches!(result.saturating_neg(), libc::EAGAIN | libc::EINTR),
            }
        }
    }

    /// After a short send: has it told when there is room.
    fn await_room(&mut self, operation: &SendOp) {
        if operation.failed || operation.output.unsent().is_empty() {
            return;
        }
        if let Some(slot) = self.open(operation.connection)
            && !slot.state.awaits_room
        {
            slot.state.awaits_room = true;
            self.look_at(operation.connection);
        }
    }
}
