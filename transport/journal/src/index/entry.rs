//! One record's entry, packed into 24 bytes.

use crate::format::FRAME_MAX;
use crate::ops::Kind;

/// What a record costs in the log beside its own bytes, about.
pub(super) const OVERHEAD: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Named as a parent, and not there yet.
    Absent,
    Single,
    Child,
    Body,
}

/// A record, packed: there are as many as messages that wait for whoever is away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) at: At,
    pub(super) size: Size,
    /// Of a child, its parent's slot; of a body, or what may become one, how many children it has; of a free entry, the next.
    pub(super) link: u32,
}

/// The lower bits of the segment, the offset, and the kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct At(u64);

/// The length and the state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(u32);

const _: () = assert!(size_of::<Entry>() == 24);
const _: () = assert!(FRAME_MAX <= 1 << (u32::BITS - Size::STATE_BITS));
const _: () = assert!(Kind::COUNT as u32 <= 1 << At::KIND_BITS);

impl At {
    const KIND_BITS: u32 = 5;
    const OFFSET_BITS: u32 = 32;
    /// Segments with live records are never so far from each other.
    const SEGMENT_MASK: u32 = u32::MAX >> Self::KIND_BITS;

    pub(super) fn new(segment: u32, offset: u32, kind: Kind) -> Self {
        let segment = u64::from(segment & Self::SEGMENT_MASK);
        let offset = u64::from(offset);
        Self((segment << Self::OFFSET_BITS | offset) << Self::KIND_BITS | u64::from(kind.number()))
    }

    pub(super) const fn kind(self) -> Kind {
        Kind::new((self.0 & ((1 << Self::KIND_BITS) - 1)) as u8)
    }

    pub(super) const fn offset(self) -> u32 {
        (self.0 >> Self::KIND_BITS) as u32
    }

    /// The segment, which is not before the first that has live records.
    pub(super) const fn segment(self, first: u32) -> u32 {
        let lower = (self.0 >> (Self::KIND_BITS + Self::OFFSET_BITS)) as u32;
        first.wrapping_add(lower.wrapping_sub(first) & Self::SEGMENT_MASK)
    }
}

impl Size {
    const STATE_BITS: u32 = 2;

    pub(super) const fn new(length: u32, state: State) -> Self {
        Self(length << Self::STATE_BITS | state as u32)
    }

    pub(super) const fn length(self) -> u32 {
        self.0 >> Self::STATE_BITS
    }

    pub(super) const fn state(self) -> State {
        match self.0 & ((1 << Self::STATE_BITS) - 1) {
            0 => State::Absent,
            1 => State::Single,
            2 => State::Child,
            _ => State::Body,
        }
    }
}

impl Entry {
    pub(super) const fn absent(id: u64) -> Self {
        Self {
            id,
            at: At(0),
            size: Size::new(0, State::Absent),
            link: 0,
        }
    }

    pub(super) fn cost(&self) -> u64 {
        u64::from(self.size.length()) + OVERHEAD
    }

    pub(super) const fn state(&self) -> State {
        self.size.state()
    }

    /// How many records name it as their parent.
    pub(super) const fn children(&self) -> u32 {
        match self.state() {
            State::Absent | State::Body => self.link,
            State::Single | State::Child => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes in comes out, at every edge; a segment also where its number no longer fits.
    #[test]
    fn an_entry_holds_its_place() {
        let last = u32::MAX - 1;
        for (segment, first) in [
            (1, 1),
            (7, 5),
            (last, last),
            (last, last - 1000),
            (1 << 27, (1 << 27) - 1),
        ] {
            for (offset, kind) in [(0, 0), (u32::MAX, Kind::COUNT - 1), (1 << 31, 3)] {
                let at = At::new(segment, offset, Kind::new(kind));
                assert_eq!(
                    (at.segment(first), at.offset(), at.kind()),
                    (segment, offset, Kind::new(kind))
                );
            }
        }
        for state in [State::Absent, State::Single, State::Child, State::Body] {
            for length in [0, 1, FRAME_MAX as u32 - 1] {
                let size = Size::new(length, state);
                assert_eq!((size.length(), size.state()), (length, state));
            }
        }
    }
}
