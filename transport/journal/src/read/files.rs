//! The files of a directory: which may be segments, and their bytes.

use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, OpenError};
use crate::format::{BadHeader, FRAME_MAX, HEADER, Header, SEGMENT_MAX, segment_name};

use super::{OnDamage, Reader, Tail, io_error};

/// No store has segments so far from each other: they are never so many.
const SEGMENTS_MAX: u64 = 1 << 20;
/// No segment is longer: the last frame may begin just before it is full.
const LENGTH_MAX: u64 = SEGMENT_MAX as u64 + FRAME_MAX as u64;
/// What is lost where a disk cannot read a place.
const PIECE: usize = 4096;

pub(super) struct File<F> {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) file: F,
    pub(super) size: u64,
    pub(super) header: Option<Header>,
}

impl<D: Disk> Reader<'_, D> {
    /// Opens all segments that may count. The others' identifiers are returned.
    pub(super) fn headers(&mut self, ids: &[u64]) -> Result<Vec<u64>, OpenError> {
        let mut last = ids.first().copied().unwrap_or_default();
        for &id in ids {
            let name = segment_name(id);
            if id >= u64::from(u32::MAX) || id == 0 || id - last > SEGMENTS_MAX {
                return Err(OpenError::Misnumbered { file: name });
            }
            last = id;
            let file = self.disk.open(&name).map_err(|error| io_error("open", &name, error))?;
            self.files.push(File {
                id,
                name,
                file,
                size: 0,
                header: None,
            });
        }
        // From the newest to the oldest: if somebody is writing, an older one is not shorter than what a newer one follows.
        for file in self.files.iter_mut().rev() {
            file.look(self.on_damage)?;
        }
        self.choose()
    }

    /// Leaves those that count.
    fn choose(&mut self) -> Result<Vec<u64>, OpenError> {
        for file in &self.files {
            let Some(header) = file.header else { continue };
            if *self.store.get_or_insert(header.store) != header.store {
                return Err(OpenError::Foreign {
                    file: file.name.clone(),
                });
            }
            self.low = self.low.max(header.low);
        }
        let mut leftovers = Vec::new();
        let low = self.low;
        self.files.retain(|file| {
            if file.id < low {
                leftovers.push(file.id);
            }
            file.id >= low
        });
        // What one says that does not count does not count either.
        let promises = self.files.iter().filter_map(|file| file.header);
        self.promised = promises.map(|header| header.durable).max().unwrap_or(0);
        self.without_unfinished(&mut leftovers)?;
        Ok(leftovers)
    }

    /// The last segment may have been in the making when the power went: nothing is written to it before its header is
    /// durable.
    fn without_unfinished(&mut self, leftovers: &mut Vec<u64>) -> Result<(), OpenError> {
        let before = self
            .files
            .len()
            .checked_sub(2)
            .and_then(|at| self.files.get(at))
            .map(|file| file.id);
        if let Some(last) = self.files.last()
            && last.header.is_none()
            && last.size <= HEADER as u64
            && (last.id == 1 || before == Some(last.id - 1))
        {
            leftovers.push(last.id);
            // It may as well have held frames, of which no mark is left: whatever of it is there is told.
            self.unfinished = (last.size > 0).then(|| Tail {
                file: last.name.clone(),
                offset: 0,
                bytes: last.size,
                frames: 0,
            });
            self.files.pop();
        }
        let unreadable = self.files.iter().find(|file| file.header.is_none());
        match unreadable {
            Some(file) if self.on_damage == OnDamage::Refuse => Err(OpenError::Damaged(Damage {
                file: file.name.clone(),
                offset: 0,
                sequence: 0,
                durable: 0,
            })),
            _ => Ok(()),
        }
    }
}

impl<F: DiskFile> File<F> {
    /// Reads its length and its header.
    fn look(&mut self, on_damage: OnDamage) -> Result<(), OpenError> {
        let failed = |error| io_error("read", &self.name, error);
        let size = self.file.size().map_err(failed)?;
        if size > LENGTH_MAX && on_damage == OnDamage::Refuse {
            return Err(OpenError::Damaged(Damage {
                file: self.name.clone(),
                offset: LENGTH_MAX,
                sequence: 0,
                durable: 0,
            }));
        }
        let mut bytes = [0; HEADER];
        let length = match self.file.read_at(&mut bytes, 0) {
            Err(_) if on_damage == OnDamage::Salvage => 0,
            length => length.map_err(failed)?,
        };
        self.header = match Header::decode(bytes.get(..length).unwrap_or_default()) {
            Err(BadHeader::Newer) => {
                return Err(OpenError::Newer {
                    file: self.name.clone(),
                    offset: 8,
                });
            }
            Ok(header) if header.segment != self.id || header.low > self.id => None,
            header => header.ok(),
        };
        // It may just have got its header.
        let least = if self.header.is_some() { HEADER as u64 } else { 0 };
        self.size = size.clamp(least, LENGTH_MAX);
        Ok(())
    }

    /// Reads all of it. In a salvage, zeros are in place of what the disk cannot read.
    pub(super) fn load(&self, on_damage: OnDamage, into: &mut Vec<u8>) -> Result<(), OpenError> {
        into.clear();
        into.resize(usize::try_from(self.size).unwrap_or(usize::MAX), 0);
        match self.file.read_at(into, 0) {
            Ok(length) => into.truncate(length),
            Err(_) if on_damage == OnDamage::Salvage => {
                for (at, piece) in into.chunks_mut(PIECE).enumerate() {
                    if self.file.read_at(piece, (at * PIECE) as u64).is_err() {
                        piece.fill(0);
                    }
                }
            }
            Err(error) => return Err(io_error("read", &self.name, error)),
        }
        Ok(())
    }
}
