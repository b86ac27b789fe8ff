//! From what was found in the files to a store that goes on behind it.

use std::{collections::VecDeque, sync::Arc};

use crate::disk::{Disk, DiskFile};
use crate::error::{CommitError, OpenError, is_full};
use crate::format::{HEAD, HEADER, Head, Header, SEGMENT_MAX, segment_name};
use crate::index::Index;
use crate::ops::Batch;
use crate::read::{Found, OnDamage, Progress, Report, io_error, read_telling};

use super::records::visit;
use super::{Counts, Options, Pressure, Sealed, Segment, Store, Syncs, create_segment};

/// How much is written again at once.
const PIECE: u64 = 1 << 20;
/// A file that is there while a salvage is under way.
const SALVAGE: &str = "SALVAGE";
/// What a segment is called that was damaged and salvaged.
const DAMAGED: &str = ".damaged";

/// A journal that has been opened.
#[derive(Debug)]
pub struct Opened<D: Disk> {
    /// It.
    pub store: Store<D>,
    /// What was found.
    pub report: Report,
}

impl<D: Disk> Store<D> {
    /// Opens the journal of a directory, or makes one if there is none. All that it holds is durable then.
    ///
    /// # Errors
    /// It is in use, damaged, of a later version or another store, or the disk failed. Then nothing was changed, except
    /// that a tail may have been cut of which nothing says that it was durable.
    pub fn open(disk: D, options: &Options, now_unix_millis: u64) -> Result<Opened<D>, OpenError> {
        Self::open_telling(disk, options, now_unix_millis, &mut |_| {})
    }

    /// The same, and says again and again how far it is: after each segment that is read, and in a salvage after each MiB
    /// that is written.
    ///
    /// # Errors
    /// As there.
    pub fn open_telling(
        disk: D,
        options: &Options,
        now_unix_millis: u64,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Opened<D>, OpenError> {
        disk.lock().map_err(OpenError::Locked)?;
        let found = read_telling(&disk, options.on_damage, tell)?;
        let report = found.report.clone();
        let is_salvaged = options.on_damage == OnDamage::Salvage && !report.is_whole();
        clear(&disk, &found, is_salvaged)?;
        let options = Options {
            // An offset within a segment, and a frame behind it, fit into 32 bits.
            segment_bytes: options.segment_bytes.min(SEGMENT_MAX),
            ..options.clone()
        };
        let mut store = Self::behind(disk, &options, found, is_salvaged)?;
        if is_salvaged {
            store.rewrite(now_unix_millis, tell)?;
        }
        match store.first_mark(now_unix_millis) {
            Ok(()) | Err(CommitError::Full) => {}
            Err(CommitError::Failed(failure)) => return Err(OpenError::Failed(failure)),
        }
        Ok(Opened { store, report })
    }

    /// What was read is durable: says so in the log.
    fn first_mark(&mut self, now_unix_millis: u64) -> Result<(), CommitError> {
        self.is_unmarked = true;
        self.mark(now_unix_millis)?;
        self.sync()
    }

    fn behind(disk: D, options: &Options, found: Found<D::File>, is_salvaged: bool) -> Result<Self, OpenError> {
        let identity = found.store.unwrap_or(options.identity);
        let mut spares = VecDeque::new();
        for &id in &found.spares {
            let length = HEADER as u64;
            let spare = Sealed { id, length };
            spares.push_back(continue_segment(&disk, spare, length, options.segment_bytes)?);
        }
        let mut sealed: VecDeque<_> = found
            .segments
            .iter()
            .map(|&(id, length)| Sealed { id, length })
            .collect();
        if is_salvaged {
            sealed.extend(spares.drain(..).map(|Segment { id, length, .. }| Sealed { id, length }));
        }
        let last = if is_salvaged { None } else { sealed.pop_back() };
        let current = match last {
            Some(last) => continue_segment(&disk, last, found.proven_to(last.id), options.segment_bytes)?,
            None => first_segment(
                &disk,
                &sealed,
                (found.low, found.report.sequence, found.index.live_bytes()),
                identity,
                options,
            )?,
        };
        // The process may have been killed before it could do this for a segment that it had just made.
        disk.sync_dir()
            .map_err(|error| io_error("sync the directory", "", error))?;
        let sequence = found.report.sequence;
        let old_bytes = sealed.iter().map(|segment| segment.length).sum();
        Ok(Self {
            disk: Arc::new(disk),
            options: options.clone(),
            identity,
            index: found.index,
            sealed,
            current,
            spares,
            filling: vec![0; HEAD],
            filling_records: 0,
            outgoing: Vec::new(),
            outgoing_records: 0,
            outgoing_is_moved: false,
            next: Head {
                previous: found.previous,
                ..Head::default()
            },
            written: sequence,
            durable: sequence,
            marked: found.marked,
            is_unsynced: false,
            is_unmarked: false,
            low: found.low,
            pressure: Pressure::Normal,
            relocation: None,
            moved: Batch::default(),
            leaving: VecDeque::new(),
            old_bytes,
            failure: None,
            syncs: Syncs::default(),
            counts: Counts::default(),
            written_bytes: 0,
        })
    }

    /// Writes all live records anew, and puts what was damaged aside.
    fn rewrite(&mut self, now_unix_millis: u64, tell: &mut dyn FnMut(Progress)) -> Result<(), OpenError> {
        let failed = unwritten(self.index.live_bytes() + self.options.beginning_bytes());
        let first = self.current.id;
        self.move_all(first, now_unix_millis, failed, tell)?;
        self.sync().map_err(failed)?;
        // The header of the next segment says that nothing before the first new one counts.
        self.low = first;
        let next = self.new_segment().map_err(failed)?;
        let Segment { id, length, .. } = std::mem::replace(&mut self.current, next);
        let old = std::mem::take(&mut self.sealed);
        self.old_bytes = length;
        for segment in old {
            if segment.id >= first {
                self.old_bytes += segment.length;
                self.sealed.push_back(segment);
                continue;
            }
            put_aside(&*self.disk, &segment_name(segment.id))?;
        }
        self.sealed.push_back(Sealed { id, length });
        self.disk
            .sync_dir()
            .map_err(|error| io_error("sync the directory", "", error))?;
        end_of_salvage(&*self.disk)
    }

    /// Puts all live records again, wherever they lie.
    fn move_all(
        &mut self,
        first: u64,
        now_unix_millis: u64,
        failed: impl Fn(CommitError) -> OpenError + Copy,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), OpenError> {
        let index = std::mem::replace(&mut self.index, Index::reading());
        let mut batch = Batch::default();
        let mut result = Ok(());
        let (mut records, of) = (0, index.records());
        // Counting is put off to the end, so a body may be written apart from its children.
        let disk = Arc::clone(&self.disk);
        visit(
            &*disk,
            &[],
            &index,
            u32::MAX,
            |key| key.id,
            |record| {
                if result.is_err() {
                    return;
                }
                batch.put_again(&record);
                records += 1;
                if batch.len() as u64 > PIECE {
                    self.add(&batch);
                    batch.clear();
                    result = self.commit(now_unix_millis).map(drop);
                    tell(Progress::Salvaged { records, of });
                }
            },
        )?;
        result.map_err(failed)?;
        batch.low(first);
        self.add(&batch);
        self.commit(now_unix_millis).map_err(failed)?;
        self.index
            .end_of_log()
            .map_err(|orphan| OpenError::Orphan { parent: orphan.parent })
    }
}

/// Why what was salvaged, which needs so much room, could not be written.
fn unwritten(bytes: u64) -> impl Fn(CommitError) -> OpenError + Copy {
    move |error| match error {
        CommitError::Full => OpenError::Full {
            what: "what was salvaged",
            bytes,
        },
        CommitError::Failed(failure) => OpenError::Failed(failure),
    }
}

/// A new segment behind those that there are, if any; what lives in those is to be written to it and those that follow.
fn first_segment<D: Disk>(
    disk: &D,
    before: &VecDeque<Sealed>,
    (low, durable, live): (u64, u64, u64),
    store: [u8; 16],
    options: &Options,
) -> Result<Segment<D::File>, OpenError> {
    let id = before.back().map_or(1, |last| last.id + 1);
    let header = Header {
        segment: id,
        low,
        store,
        durable,
    };
    let file = create_segment(disk, header, options.segment_bytes).map_err(|error| {
        if is_full(&error) {
            // Not for itself alone: without those that are made ahead nothing would be taken.
            let bytes = options.beginning_bytes() + live;
            if !before.is_empty() {
                return unwritten(bytes)(CommitError::Full);
            }
            let what = "a new journal";
            return OpenError::Full { what, bytes };
        }
        io_error("make", &segment_name(id), error)
    })?;
    Ok(Segment {
        id,
        file,
        length: HEADER as u64,
    })
}

/// Removes what does not count, durably, before anything is written that could be taken for its neighbour. After a salvage
/// that was cut short, what is not needed any more was damaged: it is put aside.
fn clear<D: Disk>(disk: &D, found: &Found<D::File>, is_salvaged: bool) -> Result<(), OpenError> {
    let failed = |doing, name: &str| {
        let name = name.to_owned();
        move |error| io_error(doing, &name, error)
    };
    let names = disk.list().map_err(failed("read the directory", ""))?;
    let was_salvaged = names.iter().any(|name| name == SALVAGE);
    // The last one first, so that no gap is left if this is cut short.
    for &segment in found.leftovers.iter().rev() {
        let name = segment_name(segment);
        if was_salvaged && segment < found.low {
            put_aside(disk, &name)?;
            disk.sync_dir().map_err(failed("sync the directory", ""))?;
        } else {
            let removed = disk.unlink(&name).and_then(|()| disk.sync_dir());
            removed.map_err(failed("remove", &name))?;
        }
    }
    if is_salvaged && !was_salvaged {
        let made = disk.create(SALVAGE).and_then(|_| disk.sync_dir());
        made.map_err(failed("make", SALVAGE))?;
    } else if was_salvaged && !is_salvaged {
        end_of_salvage(disk)?;
    }
    Ok(())
}

fn put_aside<D: Disk>(disk: &D, name: &str) -> Result<(), OpenError> {
    disk.rename(name, &format!("{name}{DAMAGED}"))
        .map_err(|error| io_error("put aside", name, error))
}

/// All that was damaged has been put aside, durably.
fn end_of_salvage<D: Disk>(disk: &D) -> Result<(), OpenError> {
    let removed = disk.unlink(SALVAGE).and_then(|()| disk.sync_dir());
    removed.map_err(|error| io_error("remove", SALVAGE, error))
}

/// Cuts the tail of a segment, makes the rest durable, and goes on behind it.
///
/// What is read may be in memory alone: after a failed sync the system takes it for written, and to sync it would do
/// nothing. So all that is not known to be durable, which begins at this offset, is written again. The bytes are the same,
/// so it does no harm if the power goes out meanwhile.
fn continue_segment<D: Disk>(disk: &D, last: Sealed, proven: u64, reserve: u32) -> Result<Segment<D::File>, OpenError> {
    let name = segment_name(last.id);
    let open = || {
        let file = disk.open(&name)?;
        if file.size()? != last.length {
            file.truncate(last.length)?;
        }
        write_again(&file, 0, HEADER as u64)?;
        write_again(&file, proven, last.length)?;
        file.sync_data()?;
        Ok(file)
    };
    let file: D::File = open().map_err(|error| io_error("continue", &name, error))?;
    // Where there is no room it is told at the first write.
    let _ = file.reserve(u64::from(reserve));
    Ok(Segment {
        id: last.id,
        file,
        length: last.length,
    })
}

fn write_again<F: DiskFile>(file: &F, from: u64, to: u64) -> std::io::Result<()> {
    let mut bytes = vec![0; PIECE.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        bytes.truncate((to - at) as usize);
        let length = file.read_at(&mut bytes, at)?;
        match file.write_at(bytes.get(..length).unwrap_or_default(), at) {
            // Where even that needs room, a journal on a full disk has to do without; only a failed sync would need it.
            Err(error) if is_full(&error) => return Ok(()),
            result => result?,
        }
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        at += length as u64;
    }
    Ok(())
}
