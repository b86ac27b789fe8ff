//! One io_uring: setting it up, queueing operations, entering the kernel, and taking completions.
//!
//! It belongs to the thread that made it. The kernel works on it only inside [`Ring::wait`], [`Ring::submit`] and
//! [`Ring::gather`], which is what DEFER_TASKRUN means: no completion appears, and no buffer is filled, at any other time.

#![allow(unsafe_code, reason = "the kernel is handed memory and descriptors")]

use core::mem::ManuallyDrop;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::buffers::{Buffers, GROUP, Part};
use super::tag::{Kind, Tag};

/// Operations queued for one system call; there are no more sends than that in a batch.
const QUEUED_MAX: u32 = 256;
/// The kernel runs some twenty pieces of work and returns; we go on until there is no more, this many times.
const ROUNDS_MAX: u32 = 64;
/// Bytes of one send; what is beyond is left over as after a short send.
pub(super) const SEND_BYTES_MAX: usize = 1 << 30;
/// How often the kernel is asked to take what is queued before it counts as broken.
const SUBMITS_MAX: u32 = 1_000;
/// How often, and how long each time, operations are waited for that were all cancelled.
const REAPS_MAX: u32 = 20;
const REAP_TIME: Duration = Duration::from_millis(50);

/// What became of an operation, or of one more turn of one that goes on.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) tag: Tag,
    /// The operation's result, or an error's number below zero.
    pub(super) result: i32,
    flags: u32,
    /// What was received, to be given back by [`Buffers::done`].
    pub(super) part: Option<Part>,
}

impl Completion {
    fn new(entry: &cqueue::Entry) -> Self {
        Self {
            tag: Tag::from_user_data(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
            part: None,
        }
    }

    /// Whether the operation has ended: it is not armed any more. That is all that it says.
    pub(super) const fn is_last(&self) -> bool {
        self.flags & MORE == 0
    }

    /// The buffer that was received into, and whether it goes on. A failure has none.
    pub(super) fn buffer(&self) -> Option<(u16, bool)> {
        let id = cqueue::buffer_select(self.flags).filter(|_| self.result > 0)?;
        Some((id, cqueue::buffer_more(self.flags)))
    }

    /// The socket that was accepted.
    pub(super) fn into_accepted(self) -> io::Result<OwnedFd> {
        if self.tag.kind != Kind::Accept || self.result < 0 {
            return Err(self.error());
        }
        // SAFETY: the kernel has just made this descriptor, and tells it in this completion only, which is consumed.
        Ok(unsafe { OwnedFd::from_raw_fd(self.result) })
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.result.saturating_neg())
    }
}

/// `IORING_CQE_F_MORE`, of which the crate has only a function that is not const.
const MORE: u32 = 1 << 1;

/// See the module.
pub(super) struct Ring {
    uring: IoUring,
    /// Given back to the allocator only when the kernel knows them no more.
    buffers: ManuallyDrop<Buffers>,
    /// Operations that have not ended.
    in_flight: usize,
    wait_flags: EnterFlags,
    /// The kernel took no operations any more. Nothing is done with the ring from then on.
    broken: Option<io::ErrorKind>,
}

impl core::fmt::Debug for Ring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for this thread, which holds `completions` of them, with `count` buffers of `size` bytes.
    pub(super) fn new(completions: u32, count: u16, size: u32) -> io::Result<Self> {
        let completions = completions.clamp(2, 1 << 16).next_power_of_two();
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions)
            .dontfork()
            .build(QUEUED_MAX.min(completions / 2))?;
        let parameters = uring.params();
        // Each is older than the buffers that are asked for below.
        if !(parameters.is_feature_ext_arg()
            && parameters.is_feature_nodrop()
            && parameters.is_feature_skip_cqe_on_success())
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let wait_flags = if parameters.is_feature_no_iowait() {
            // Else a shard that waits for clients looks like one that waits for a disk.
            EnterFlags::NO_IOWAIT
        } else {
            EnterFlags::empty()
        };
        let mut ring = Self {
            uring,
            buffers: ManuallyDrop::new(Buffers::new(count, size)?),
            in_flight: 0,
            wait_flags,
            broken: None,
        };
        ring.buffers.register(&ring.uring.submitter())?;
        Ok(ring)
    }

    /// Receives from a socket into the buffers until it ends, fails or is cancelled.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd, tag: Tag) {
        self.begin(opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build(), tag);
    }

    /// Waits, once or again and again, for what `poll` calls `events`.
    pub(super) fn poll(&mut self, descriptor: &impl AsRawFd, events: libc::c_short, again: bool, tag: Tag) {
        let poll = opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), events as u32).multi(again);
        self.begin(poll.build(), tag);
    }

    /// Accepts from a listener until it fails or is cancelled.
    pub(super) fn accept(&mut self, listener: &impl AsRawFd, tag: Tag) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        self.begin(
            opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(flags).build(),
            tag,
        );
    }

    /// Has an operation end, if it has not yet; its last completion follows either way.
    pub(super) fn cancel(&mut self, tag: Tag) {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(tag.user_data()));
        let own = Tag::new(Kind::Cancel, tag.index, tag.generation);
        let entry = cancel.build().flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: it refers to no memory.
        unsafe { self.push(entry, own) };
    }

    /// Queues an operation that refers to no memory but the ring's buffers.
    fn begin(&mut self, entry: squeue::Entry, tag: Tag) {
        self.in_flight += 1;
        // SAFETY: it refers to no memory of ours but the buffers, which outlive their registration.
        unsafe { self.push(entry, tag) };
    }

    /// Queues a send that is tried once, without waiting, when the queue is next submitted. Only a send that was not done
    /// entirely has a completion; its result is how much of it was.
    ///
    /// # Safety
    /// `bytes` must stay as they are until [`Ring::submit`] has returned `Ok`, or for ever.
    pub(super) unsafe fn send(&mut self, socket: RawFd, bytes: &[u8], tag: Tag) {
        let len = bytes.len().min(SEND_BYTES_MAX) as u32;
        let entry = opcode::Send::new(Fd(socket), bytes.as_ptr(), len)
            // Tried once, because of DONTWAIT; a part of it counts as a failure, because of WAITALL.
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: by this function's own contract the bytes outlive the submission. The kernel uses them during it and not
        // later: a send with MSG_DONTWAIT that cannot be done is not retried but fails, on the spot.
        unsafe { self.push(entry, tag) };
    }

    /// # Safety
    /// What the entry refers to must stay as it is until the operation is done.
    unsafe fn push(&mut self, entry: squeue::Entry, tag: Tag) {
        let entry = entry.user_data(tag.user_data());
        // SAFETY: by this function's own contract.
        if unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        // If that fails the ring is broken, and the entry is not missed.
        if self.submit().is_ok() {
            // SAFETY: as above.
            let _ = unsafe { self.uring.submission().push(&entry) };
        }
    }

    /// Has the kernel begin all that is queued. `Err`: it takes nothing any more, and the ring is never entered again.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        for _ in 0..SUBMITS_MAX {
            self.check()?;
            if self.uring.submission().is_empty() {
                return Ok(());
            }
            match self.uring.submit() {
                Ok(_) => {}
                Err(error) if is_transient(&error) => std::thread::yield_now(),
                Err(error) => self.broken = Some(error.kind()),
            }
        }
        self.broken = Some(io::ErrorKind::OutOfMemory);
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Submits what is queued, and waits until there are completions or `timeout` has passed.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.check()?;
        let may_block = timeout != Some(Duration::ZERO) && self.ready() == 0;
        let queue = self.uring.submission();
        if !may_block && queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        let timeout = timeout.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(timeout) = &timeout {
            arguments = arguments.timespec(timeout);
        }
        let entered = self
            .uring
            .submitter()
            .submit_with_args_and_flags(may_block.into(), &arguments, self.wait_flags);
        match entered {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_transient(&error) => {}
            Err(error) => return Err(error),
            Ok(_) => self.gather()?,
        }
        Ok(())
    }

    /// Has the kernel do what is due, as far as completions fit.
    fn gather(&mut self) -> io::Result<()> {
        for _ in 0..ROUNDS_MAX {
            if !self.uring.submission().taskrun() || self.uring.completion().is_full() {
                break;
            }
            match self.uring.submitter().submit_and_wait(0) {
                Err(error) if is_transient(&error) => break,
                entered => entered?,
            };
        }
        Ok(())
    }

    /// How many completions there are.
    pub(super) fn ready(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// Whether there are more than fit, so that one that is due may not be there.
    pub(super) fn is_overflown(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Fetches completions that did not fit, as many as fit now.
    pub(super) fn fetch(&mut self) -> io::Result<()> {
        self.check()?;
        if let Err(error) = self.uring.submitter().submit_and_wait(0)
            && !is_transient(&error)
        {
            self.broken = Some(error.kind());
        }
        self.check()
    }

    /// The oldest completion.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Completion> {
        let mut completion = Completion::new(&self.uring.completion().next()?);
        if let Some((id, more)) = completion.buffer() {
            // Here, because here they come in their order.
            completion.part = Some(self.buffers.hand_out(id, completion.result.unsigned_abs(), more));
        }
        let is_operation = !matches!(completion.tag.kind, Kind::Cancel | Kind::Send);
        if is_operation && completion.is_last() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        Some(completion)
    }

    /// The buffers that were received into.
    pub(super) fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// Operations that have not ended.
    #[cfg(test)]
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Ends all operations, so that no socket lives on in the kernel and no descriptor is lost in a completion.
    fn end(&mut self) -> io::Result<()> {
        let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: it refers to no memory.
        unsafe { self.push(all, Tag::new(Kind::Cancel, 0, 0)) };
        for _ in 0..REAPS_MAX {
            self.wait(Some(REAP_TIME))?;
            while let Some(completion) = self.next() {
                drop(completion.into_accepted());
            }
            if self.in_flight == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// The kernel stops using what it was lent before it is given back.
impl Drop for Ring {
    fn drop(&mut self) {
        if self.broken.is_none() {
            // What is left then ends with the ring, a little later.
            let _ = self.end();
        }
        // The kernel fills a buffer only inside a call on the ring, so after this it never does; where it keeps them, so do
        // we.
        if self.buffers.unregister(&self.uring.submitter()).is_ok() {
            // SAFETY: they are not used again: this is the end of the ring that holds them.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

/// Whether to try again later is all there is to do.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}
