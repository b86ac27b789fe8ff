//! What arrives: through the ring's buffers from those who were let in, and by single reads from the others.

use std::io::{self, Read};

use socket2::Socket;
use sol_engine::ConnectionId;

use super::ring::{Completion, Ring};
use super::tag::{Kind, Tag};
use super::{Armed, State, Uring};
use crate::backend::{Reading, Sink};

/// How far a turn has come.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Its share of work was fixed.
    pub(super) begun: bool,
    /// Completions that are this turn's and were not looked at yet.
    pub(super) left: usize,
    pub(super) share: Share,
}

/// How much of this turn the connection has had that completions come of just now. The kernel receives all that one socket
/// has before it goes on to the next.
#[derive(Debug, Default)]
pub(super) struct Share {
    index: u32,
    bytes: usize,
}

impl Share {
    /// Counts bytes of the connection at `index`; `false`: it has had its share.
    const fn take(&mut self, index: u32, bytes: usize, max: usize) -> bool {
        if self.index != index {
            self.index = index;
            self.bytes = 0;
        }
        if self.bytes >= max {
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl State {
    /// Has the kernel tell of a connection's input.
    pub(super) fn arm(&mut self, ring: &mut Ring, socket: &Socket, connection: ConnectionId) {
        if self.little {
            self.armed = Armed::Readable;
            ring.poll(socket, libc::POLLIN, false, self.tag(connection));
        } else {
            self.armed = Armed::Receive;
            ring.receive(socket, self.tag(connection));
        }
    }

    /// What its input is told by.
    pub(super) const fn tag(&self, connection: ConnectionId) -> Tag {
        let kind = match self.armed {
            Armed::Readable => Kind::Readable,
            Armed::Receive | Armed::No => Kind::Receive,
        };
        Tag::of(kind, connection)
    }

    const fn disarm(&mut self) {
        self.armed = Armed::No;
        self.ending = false;
    }

    fn obey(&mut self, reading: Reading) {
        match reading {
            Reading::On => self.little = false,
            Reading::Little => self.little = true,
            Reading::Pause => self.paused = true,
        }
    }
}

impl Uring {
    /// Takes a completion of a connection's receive.
    pub(super) fn received<S: Sink>(&mut self, completion: Completion, sink: &mut S) {
        let connection = completion.tag.connection();
        let Some((connection, slot)) = connection.and_then(|id| Some((id, self.slots.find(id)?))) else {
            return self.recycle(completion);
        };
        let len = usize::try_from(completion.result).unwrap_or(0);
        let share = self.limits.read_bytes.saturating_mul(self.limits.reads_max as usize);
        // What comes behind something late is late as well, or it would overtake that.
        if slot.state.late || !self.turn.share.take(completion.tag.index, len, share) {
            slot.state.late = true;
            return self.late.push_back(completion);
        }
        if completion.is_last() {
            slot.state.disarm();
        }
        if slot.state.closing {
            self.recycle(completion);
            return self.finish_or_look_at(connection);
        }
        if let Some(mut part) = completion.part {
            let buffers = self.ring.buffers();
            if !slot.state.ended {
                slot.state.obey(sink.on_data(connection, buffers.bytes(&mut part)));
            }
            buffers.done(part);
        } else if is_end(&completion) {
            return self.end(connection, sink);
        }
        let state = &slot.state;
        if (state.armed == Armed::No) == state.wants_input() {
            self.look_at(connection);
        }
    }

    /// Puts a buffer back that was received into for nobody.
    fn recycle(&mut self, completion: Completion) {
        if let Some(part) = completion.part {
            self.ring.buffers().done(part);
        }
    }

    /// A connection's peer has ended or failed, which a paused one is not told of: it may still have bytes to take in that
    /// came before.
    pub(super) fn end<S: Sink>(&mut self, connection: ConnectionId, sink: &mut S) {
        let Some(slot) = self.open(connection) else { return };
        if slot.state.ended {
            return;
        }
        if slot.state.paused {
            slot.state.over = true;
            return;
        }
        slot.state.ended = true;
        sink.on_end(connection);
    }

    /// Takes the completion of a poll: there is something to read, or the connection has failed, which reading tells.
    pub(super) fn readable<S: Sink>(&mut self, completion: &Completion, sink: &mut S) {
        let Some(connection) = completion.tag.connection() else {
            return;
        };
        let Some(slot) = self.slots.find(connection) else {
            return;
        };
        slot.state.disarm();
        if slot.state.closing {
            return self.finish_or_look_at(connection);
        }
        self.read_little(connection, sink);
    }

    /// Reads a connection that has not been let in until a short read, or until it is.
    pub(super) fn read_little<S: Sink>(&mut self, connection: ConnectionId, sink: &mut S) {
        for _ in 0..self.limits.reads_max {
            let Some(slot) = self.slots.find(connection) else {
                return;
            };
            let Some(socket) = slot
                .socket
                .as_ref()
                .filter(|_| slot.state.wants_input() && slot.state.little)
            else {
                break;
            };
            match (&*socket).read(&mut self.scratch) {
                Ok(n) if n > 0 => {
                    let bytes = self.scratch.get_mut(..n).unwrap_or_default();
                    slot.state.obey(sink.on_data(connection, bytes));
                    if n < self.scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return self.end(connection, sink),
            }
        }
        if let Some(slot) = self.slots.find(connection)
            && slot.state.armed == Armed::No
            && slot.state.wants_input()
        {
            self.look_at(connection);
        }
    }
}

/// Whether a receive has ended with its connection. Without a buffer, cancelled or interrupted it has only to be begun
/// again.
fn is_end(completion: &Completion) -> bool {
    !matches!(
        completion.result.saturating_neg(),
        libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN
    )
}
