//! What an operation is told apart by: what it is, and whose.

use core::num::NonZeroU32;

use sol_engine::ConnectionId;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Takes another operation back.
    Cancel,
    /// Receives, again and again, into the ring's buffers.
    Receive,
    /// Waits until there is something to receive.
    Readable,
    /// Waits until there is room to send.
    Room,
    /// Accepts, again and again.
    Accept,
    /// Waits for a wake-up, again and again.
    Wake,
    /// Sends.
    Send,
}

/// The `user_data` of an operation and its completions: its kind in three bits, an index in 29, and in 32 the generation of
/// whoever has that index, so that a completion for a former tenant is recognised. There are fewer descriptors than 2^29.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    pub(super) index: u32,
    pub(super) generation: u32,
}

const KIND_SHIFT: u32 = 61;
const INDEX_SHIFT: u32 = 32;
const INDEX_MASK: u64 = (1 << (KIND_SHIFT - INDEX_SHIFT)) - 1;

impl Tag {
    pub(super) const fn new(kind: Kind, index: u32, generation: u32) -> Self {
        Self {
            kind,
            index,
            generation,
        }
    }

    /// An operation of a connection.
    pub(super) const fn of(kind: Kind, connection: ConnectionId) -> Self {
        Self::new(kind, connection.slot() as u32, connection.generation().get())
    }

    /// The connection that the operation was for.
    pub(super) fn connection(self) -> Option<ConnectionId> {
        NonZeroU32::new(self.generation).map(|generation| ConnectionId::new(self.index, generation))
    }

    pub(super) const fn user_data(self) -> u64 {
        (self.kind as u64) << KIND_SHIFT | (self.index as u64 & INDEX_MASK) << INDEX_SHIFT | self.generation as u64
    }

    pub(super) const fn from_user_data(user_data: u64) -> Self {
        let kind = match user_data >> KIND_SHIFT {
            1 => Kind::Receive,
            2 => Kind::Readable,
            3 => Kind::Room,
            4 => Kind::Accept,
            5 => Kind::Wake,
            6 => Kind::Send,
            _ => Kind::Cancel,
        };
        Self::new(kind, (user_data >> INDEX_SHIFT & INDEX_MASK) as u32, user_data as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was put into a tag comes out of it, whatever the kind, and at the ends of each range.
    #[test]
    fn a_tag_comes_back_as_it_was() {
        let kinds = [
            Kind::Cancel,
            Kind::Receive,
            Kind::Readable,
            Kind::Room,
            Kind::Accept,
            Kind::Wake,
            Kind::Send,
        ];
        for kind in kinds {
            for (index, generation) in [(0, 0), (1, u32::MAX), (INDEX_MASK as u32, 1)] {
                let tag = Tag::new(kind, index, generation);
                assert_eq!(Tag::from_user_data(tag.user_data()), tag);
            }
        }
    }
}
