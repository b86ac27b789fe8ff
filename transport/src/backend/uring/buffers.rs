//! The memory that the kernel receives into: a ring of buffers that are used up bit by bit, each put back when it is used
//! up and everything in it was read.
//!
//! The kernel fills a buffer from its front, so a small frame takes what it needs and no more, and says with each
//! completion whether the buffer goes on. An idle connection holds none.

#![allow(
    unsafe_code,
    reason = "the kernel writes to this memory, and reads which parts of it it may write to"
)]

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU16, Ordering};
use std::io;

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The one group of buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// `IOU_PBUF_RING_INC` of `linux/io_uring.h`: buffers are used up bit by bit. Since Linux 6.12.
const INCREMENTAL: u16 = 2;

/// Zeroed pages of our own.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: without an address of ours and backed by no file, the mapping overlaps nothing.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nothing borrows from it any more: `Buffers` lends it only for
        // as long as it is itself borrowed.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Buffers {
    /// What the kernel reads: an entry for each buffer that it may write to, and in the first one the tail.
    entries: Pages,
    data: Pages,
    /// Of one buffer, in bytes.
    size: u32,
    /// One less than there are buffers, which is a power of two.
    mask: u16,
    tail: u16,
    used: Box<[Used]>,
    is_registered: bool,
}

/// Bytes of a buffer that were handed out and not read yet. There is one value for each, so that what it names stays as
/// it is for as long as it exists.
#[derive(Debug)]
pub(super) struct Part {
    id: u16,
    start: u32,
    len: u32,
}

/// How far a buffer is used up since it was put back.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// Bytes that the kernel has handed to us.
    bytes: u32,
    /// Parts of them that we have not read yet.
    unread: u32,
    /// The kernel writes no more to it.
    entirely: bool,
}

impl Buffers {
    /// At least `count` buffers of `size` bytes.
    pub(super) fn new(count: u16, size: u32) -> io::Result<Self> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let size = size.max(1);
        let len = (size as usize).checked_mul(usize::from(count));
        Ok(Self {
            entries: Pages::new(usize::from(count) * size_of::<BufRingEntry>())?,
            data: Pages::new(len.ok_or(io::ErrorKind::OutOfMemory)?)?,
            size,
            mask: count - 1,
            tail: 0,
            used: vec![Used::default(); usize::from(count)].into_boxed_slice(),
            is_registered: false,
        })
    }

    /// Tells the kernel of the ring, and gives it all buffers.
    pub(super) fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the entries lie in pages of their own, as many as are told, and stay until `unregister` has succeeded:
        // the owner forgets the value otherwise.
        unsafe {
            submitter.register_buf_ring_with_flags(
                self.entries.start.as_ptr() as u64,
                self.mask + 1,
                GROUP,
                INCREMENTAL,
            )
        }?;
        self.is_registered = true;
        for id in 0..=self.mask {
            self.put(id);
        }
        Ok(())
    }

    /// Takes all buffers from the kernel, which touches none of them afterwards.
    pub(super) fn unregister(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        if self.is_registered {
            submitter.unregister_buf_ring(GROUP)?;
            self.is_registered = false;
        }
        Ok(())
    }

    /// The next `len` bytes of a buffer. To be called once for each completion, in their order; the parts may be read in
    /// any. With `more` the kernel goes on with the buffer behind them.
    pub(super) fn hand_out(&mut self, id: u16, len: u32, more: bool) -> Part {
        let Some(used) = self.used.get_mut(usize::from(id)) else {
            return Part { id, start: 0, len: 0 };
        };
        // The kernel never hands out more than there is.
        let start = used.bytes.min(self.size);
        let len = len.min(self.size - start);
        used.bytes = start + len;
        used.unread += 1;
        used.entirely |= !more;
        Part { id, start, len }
    }

    /// The bytes of a part, which are its holder's until it is done with.
    pub(super) fn bytes<'p>(&'p mut self, part: &'p mut Part) -> &'p mut [u8] {
        if part.len == 0 {
            return &mut [];
        }
        // SAFETY: parts are made by `hand_out` alone, so `id` is the number of a buffer and `start + len` not more than its
        // size: the range lies within the pages, which are initialised from the start. Nobody else has it while it is lent:
        // the buffers and the part are both borrowed for as long, and `hand_out` gives no byte to two parts. The kernel
        // writes only behind what it has handed out, until the buffer is put into its ring again; which needs `self`
        // borrowed mutably, and every part of it consumed by `done`.
        unsafe {
            let start = self
                .data
                .start
                .add(usize::from(part.id) * self.size as usize + part.start as usize);
            core::slice::from_raw_parts_mut(start.as_ptr(), part.len as usize)
        }
    }

    /// Is done with a part; its buffer goes back when it is used up and all of its parts were read.
    pub(super) fn done(&mut self, part: Part) {
        if let Some(used) = self.used.get_mut(usize::from(part.id)) {
            used.unread = used.unread.saturating_sub(1);
            if used.unread == 0 && used.entirely {
                self.put(part.id);
            }
        }
    }

    /// Lets the kernel write to a buffer, from its front.
    fn put(&mut self, id: u16) {
        let Some(used) = self.used.get_mut(usize::from(id)) else {
            return;
        };
        *used = Used::default();
        let at = usize::from(self.tail & self.mask);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `id` is the number of a buffer and `at` less than there are, so both lie within their pages. An entry from
        // the tail on is ours to write: there are as many entries as buffers, and this buffer is not in the ring, so the
        // kernel is done with the entry that is overwritten. Its reserved part, which in the first one is the tail, is not
        // touched by the setters. The tail is written here only, and read by the kernel.
        unsafe {
            let entries = self.entries.start.cast::<BufRingEntry>();
            let entry = entries.add(at).as_mut();
            entry.set_addr(self.data.start.add(usize::from(id) * self.size as usize).as_ptr() as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(entries.as_ptr()).cast_mut();
            // What was written to the entry is seen by whoever sees the tail.
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
