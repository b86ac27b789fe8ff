//! Segments: the one that is written to, and those that are made ahead.

use crate::disk::{Disk, DiskFile};
use crate::error::{CommitError, is_full};
use crate::format::{HEADER, Header, segment_name};

use super::{Pressure, Sealed, Segment, Store};

/// What is left of the last segment for the journal's own frames, which make room, and for no others.
const OWN_ROOM: u64 = 64 << 10;

impl<D: Disk> Store<D> {
    /// Goes on to the next segment where a frame of this length does not fit; nothing of the frame is done before there is
    /// room for all of it. The journal's `own` frames may use what others may not.
    pub(super) fn make_room(&mut self, length: u64, own: bool) -> Result<(), CommitError> {
        let segment = u64::from(self.options.segment_bytes);
        let is_new = self.current.length <= HEADER as u64;
        let left = segment.saturating_sub(self.current.length);
        if length > left && is_new {
            return self.make_room_for_long(length);
        }
        // Where there is a next segment, this one may be filled up.
        let must_go_on = length > left || (!own && self.spares.is_empty() && length + self.own_room() > left);
        if !must_go_on {
            return Ok(());
        }
        if self.spares.is_empty() {
            let spare = self.new_segment()?;
            self.spares.push_back(spare);
        }
        if length + HEADER as u64 > segment
            && let Some(spare) = self.spares.front()
        {
            let file = spare.file.clone();
            self.reserve(&file, HEADER as u64 + length, 1)?;
        }
        // Gives back what was reserved and not used. Should it fail, the sync will tell.
        let _ = self.current.file.truncate(self.current.length);
        self.is_unsynced = true;
        self.sync()?;
        if let Some(next) = self.spares.pop_front() {
            let Segment { id, length, .. } = std::mem::replace(&mut self.current, next);
            self.sealed.push_back(Sealed { id, length });
            self.old_bytes += length;
        }
        Ok(())
    }

    fn make_room_for_long(&mut self, length: u64) -> Result<(), CommitError> {
        let file = self.current.file.clone();
        self.reserve(&file, self.current.length + length, 0)
    }

    /// Keeps room for a frame that is longer than a segment, if need be in place of segments ahead, of which this many stay.
    fn reserve(&mut self, file: &D::File, length: u64, spares: usize) -> Result<(), CommitError> {
        loop {
            match file.reserve(length) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => {
                    self.pressure = Pressure::DiskFull;
                    if self.spares.len() <= spares || !self.give_back_spare()? {
                        return Err(CommitError::Full);
                    }
                }
                Err(error) => return self.fail(format!("cannot make room: {error}")),
            }
        }
    }

    pub(super) fn own_room(&self) -> u64 {
        OWN_ROOM.min(u64::from(self.options.segment_bytes) / 8)
    }

    /// How much may be moved at once without the next segment.
    pub(super) fn room_left(&self) -> u64 {
        if self.spares.is_empty() {
            u64::from(self.options.segment_bytes).saturating_sub(self.current.length)
        } else {
            u64::MAX
        }
    }

    /// As [`Options::spares_wanted`].
    pub(super) fn spares_wanted(&self) -> usize {
        self.options.spares_wanted()
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        u64::from(self.options.segment_bytes)
    }

    /// What can still be written where the disk is full.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.spares_wanted() as u64 * u64::from(self.options.segment_bytes)
    }

    pub(super) fn make_spares(&mut self) -> Result<(), CommitError> {
        // One more where there was no room, so that it is not gone again at once.
        let more = usize::from(self.pressure == Pressure::DiskFull);
        while self.spares.len() < self.spares_wanted() + more {
            let spare = self.new_segment()?;
            self.spares.push_back(spare);
        }
        Ok(())
    }

    /// An empty segment behind all others, durable with its name.
    pub(super) fn new_segment(&mut self) -> Result<Segment<D::File>, CommitError> {
        let id = self.spares.back().map_or(self.current.id, |spare| spare.id) + 1;
        let header = Header {
            segment: id,
            low: self.low,
            store: self.identity,
            durable: self.durable,
        };
        match create_segment(&*self.disk, header, self.options.segment_bytes) {
            Ok(file) => Ok(Segment {
                id,
                file,
                length: HEADER as u64,
            }),
            Err(error) if is_full(&error) => {
                self.pressure = Pressure::DiskFull;
                Err(CommitError::Full)
            }
            Err(error) => self.fail(format!("cannot make {}: {error}", segment_name(id))),
        }
    }

    /// Removes the last segment that was made ahead, if there is one: durably, so that no gap can be left before it.
    pub(super) fn give_back_spare(&mut self) -> Result<bool, CommitError> {
        let Some(spare) = self.spares.pop_back() else {
            return Ok(false);
        };
        let name = segment_name(spare.id);
        match self.disk.unlink(&name).and_then(|()| self.disk.sync_dir()) {
            Ok(()) => Ok(true),
            // Some file systems need room to remove a name.
            Err(error) if is_full(&error) => {
                self.spares.push_back(spare);
                Ok(false)
            }
            Err(error) => self.fail(format!("cannot remove {name}: {error}")),
        }
    }
}

/// Makes a segment, its header and its name durable.
pub(super) fn create_segment<D: Disk>(disk: &D, header: Header, reserve: u32) -> std::io::Result<D::File> {
    let name = segment_name(header.segment);
    let file = match disk.create(&name) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // The last try was cut short.
            disk.unlink(&name)?;
            disk.sync_dir()?;
            disk.create(&name)?
        }
        file => file?,
    };
    let made = file
        .reserve(u64::from(reserve))
        .and_then(|()| file.write_at(&header.encode(), 0))
        .and_then(|()| file.sync_data())
        .and_then(|()| disk.sync_dir());
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = disk.unlink(&name);
            Err(error)
        }
    }
}
