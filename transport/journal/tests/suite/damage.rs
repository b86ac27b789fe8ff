//! Bits flip and files are cut: what is left is a state that was once there, or a refusal that says where.

use sol_journal::{Batch, CommitError, Disk, OnDamage, OpenError, Opened, Options, Store, model::ModelDisk};

use crate::support::{SINGLE, World, options, state_of};

/// A small store of several segments, with all its states; the files of its disk are durable.
pub(crate) fn small_store(seed: u64, steps: u32) -> World {
    let mut world = World::new(seed);
    world.options.segment_bytes = 1024;
    world.open().unwrap();
    for _ in 0..steps {
        world.step().unwrap();
    }
    settle(&mut world);
    world
}

/// All of it is durable, and marked as that.
fn settle(world: &mut World) {
    let store = world.store.as_mut().unwrap();
    let frame = store.commit(0).unwrap();
    world.frames.push((frame, world.states.len() - 1));
    store.sync().unwrap();
    store.mark(0).unwrap();
    store.sync().unwrap();
}

pub(crate) fn files(disk: &ModelDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".seg"));
    names.map(|name| (name.clone(), disk.read(&name).unwrap())).collect()
}

/// What a damaged store says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// A state that was once there, and a tail was told.
    Prefix,
    /// All of it.
    Whole,
    Refused,
}

fn judge(world: &World, name: &str, bytes: Vec<u8>, what: &str) -> Verdict {
    let disk = world.disk.restart();
    disk.replace(name, bytes);
    match Store::open(disk, &world.options, 0) {
        Ok(Opened { store, report }) => {
            let state = state_of(&store).unwrap();
            let found = world.states.iter().rposition(|candidate| *candidate == state);
            assert!(found.is_some(), "{name}, {what}: invented {state:?}, {report:?}");
            if found == Some(world.states.len() - 1) {
                Verdict::Whole
            } else {
                Verdict::Prefix
            }
        }
        Err(OpenError::Damaged(damage)) => {
            assert_eq!(damage.file, name, "{what}: {damage}");
            Verdict::Refused
        }
        Err(other) => panic!("{name}, {what}: {other}"),
    }
}

/// Any bit of any file is another: the store refuses and names the file, or says what it said at some commit. Where the
/// bit belongs to what was known to be durable, it refuses.
#[test]
fn any_flipped_bit_is_found() {
    let (mut flips, mut refused, mut prefixes) = (0, 0, 0);
    for seed in 0..2 {
        let world = small_store(seed, 40);
        let files = files(&world.disk);
        for (name, bytes) in &files {
            for bit in 0..8 * bytes.len() {
                let at = bit / 8;
                let mut other = bytes.clone();
                other[at] ^= 1 << (bit % 8);
                flips += 1;
                match judge(&world, name, other, &format!("bit {bit}")) {
                    Verdict::Refused => refused += 1,
                    Verdict::Prefix => prefixes += 1,
                    // The last frame is the mark, of which nothing is missed; nor are the last bytes of a header.
                    Verdict::Whole => assert!(at >= bytes.len() - 48 || (60..64).contains(&at) || bytes.len() == 64),
                }
            }
        }
    }
    println!("{flips} flips: {refused} refused, {prefixes} earlier states");
    assert_eq!(prefixes, 0, "all but the last frame was known to be durable");
    assert!(refused > 100_000, "{refused}");
}

/// A frame as its head in a file tells of it.
pub(crate) struct Framed {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) sequence: u64,
    pub(crate) durable: u64,
}

pub(crate) fn frames_of(bytes: &[u8]) -> Vec<Framed> {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (mut frames, mut from) = (Vec::new(), 64);
    while from < bytes.len() {
        let length = u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
        let to = from + 48 + length as usize;
        frames.push(Framed {
            from,
            to,
            sequence: u64_at(from + 8),
            durable: u64_at(from + 16),
        });
        from = to;
    }
    frames
}

/// What comes of cuts.
#[derive(Debug, Default)]
struct Cuts {
    sealed: u32,
    current_refused: u32,
    current_dropped: u32,
    empty: u32,
}

/// Cuts every file of a store everywhere. What must come of it is told by what is left on the disk alone: the marks of all
/// headers, of the frames in later files, and of those before the cut.
fn cut_everywhere(world: &World, cuts: &mut Cuts) {
    let files = files(&world.disk);
    let frames: Vec<Vec<Framed>> = files.iter().map(|(_, bytes)| frames_of(bytes)).collect();
    let current = frames.iter().rposition(|frames| !frames.is_empty()).unwrap();
    let headers = files
        .iter()
        .map(|(_, bytes)| u64::from_le_bytes(bytes[48..56].try_into().unwrap()));
    let promised = headers.max().unwrap();
    for (at, (name, bytes)) in files.iter().enumerate() {
        for length in 0..bytes.len() {
            let disk = world.disk.restart();
            disk.replace(name, bytes[..length].to_vec());
            let what = format!("{name} cut to {length} of {}", bytes.len());
            let opened = Store::open(disk, &world.options, 0);
            if at > current {
                // It holds nothing yet: the last one is made anew, before others it is missed.
                cuts.empty += 1;
                match opened {
                    Ok(Opened { store, .. }) if at == files.len() - 1 => {
                        assert_eq!(state_of(&store).unwrap(), *world.states.last().unwrap(), "{what}");
                    }
                    opened => refused_at(opened, name, 0, &what),
                }
                continue;
            }
            let first = frames[at].iter().find(|frame| frame.to > length).unwrap();
            let before = frames[at].iter().take_while(|frame| frame.to <= length);
            let marks = before
                .chain(frames[at + 1..].iter().flatten())
                .map(|frame| frame.durable);
            let marked = marks.max().unwrap_or(0).max(promised);
            let is_unfinished = length < 64 && at == files.len() - 1;
            let offset = if length < 64 { 0 } else { first.from };
            if at < current || first.sequence <= marked || length < 64 && !is_unfinished {
                assert!(
                    at == current || first.sequence <= marked,
                    "{what}: a sealed segment is not marked"
                );
                // Of what has no frame left it cannot be told that it had any: what is named is where the log ends.
                let (name, offset) = match at.checked_sub(1) {
                    Some(before) if at == current && length == 64 => (&files[before].0, files[before].1.len()),
                    _ => (name, offset),
                };
                refused_at(opened, name, offset, &what);
                *(if at < current {
                    &mut cuts.sealed
                } else {
                    &mut cuts.current_refused
                }) += 1;
                continue;
            }
            cuts.current_dropped += 1;
            let Opened { store, report } = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(
                state_of(&store).unwrap(),
                *world.state_after(first.sequence - 1),
                "{what}"
            );
            let left = length - offset;
            let tail = report
                .tail
                .map(|tail| (tail.file, tail.offset, tail.bytes, tail.frames));
            let told = (
                name.clone(),
                offset as u64,
                left as u64,
                u64::from(length >= 64 && left >= 48),
            );
            // A file that ends behind a frame looks as if it had always ended there.
            assert_eq!(tail, (left > 0).then_some(told), "{what}");
        }
    }
}

fn refused_at(opened: Result<Opened<ModelDisk>, OpenError>, name: &str, offset: usize, what: &str) {
    match opened {
        Err(OpenError::Damaged(damage)) => {
            assert_eq!(
                (&*damage.file, damage.offset),
                (name, offset as u64),
                "{what}: {damage}"
            );
        }
        Err(other) => panic!("{what}: {other}"),
        Ok(Opened { report, .. }) => panic!("{what}: opened, {report:?}"),
    }
}

/// Any file ends anywhere. A sealed segment is refused, with file and offset; so is the current one where any mark that is left says
/// that the first frame which is gone was durable. Only what no mark proves is dropped, to the state before it, and the report
/// says how many bytes and frames are left of it.
#[test]
fn a_cut_is_refused_wherever_a_mark_is_left_that_tells() {
    let mut cuts = Cuts::default();
    for seed in 10..12 {
        let mut world = small_store(seed, 60);
        cut_everywhere(&world, &mut cuts);
        // Closed, it has no segment behind the current one, whose header might tell of anything.
        world.store.take().unwrap().close(0).unwrap();
        cut_everywhere(&world, &mut cuts);
        // Segments that are made while the current one has frames already tell of these.
        world.open().unwrap();
        world.store.as_mut().unwrap().tend(0, true).unwrap();
        settle(&mut world);
        for _ in 0..3 {
            let batch = world.batch();
            let store = world.store.as_mut().unwrap();
            store.add(&batch);
            settle(&mut world);
        }
        cut_everywhere(&world, &mut cuts);
    }
    println!("{cuts:?}");
    assert!(
        cuts.sealed > 50_000 && cuts.current_dropped > 500 && cuts.current_refused > 100,
        "{cuts:?}"
    );
}

/// Replaces a few records, a frame each, as long as `goes_on`, until the store fails.
fn churn(store: &mut Store<ModelDisk>, goes_on: impl Fn(&Store<ModelDisk>) -> bool) -> Result<(), CommitError> {
    let mut batch = Batch::default();
    for n in 0..400 {
        if !goes_on(store) {
            break;
        }
        batch.clear();
        batch.put(SINGLE, 100 + n % 3, &[n as u8; 200]);
        store.add(&batch);
        store.commit(n)?;
        store.sync()?;
        store.tend(n, false)?;
    }
    Ok(())
}

/// A bit of an old segment turns while the store is in use: as soon as what lives there is to be moved the store ends, and says
/// which file is damaged, where, and what to do. Nothing is acknowledged from then on, the damaged file stays, and the next start
/// refuses it at the same offset.
#[test]
fn damage_under_a_running_store_is_found_when_it_is_moved() {
    let name = "0000000000000001.seg";
    let mut lasting = Batch::default();
    lasting.put(SINGLE, 1, &[7; 200]);
    // The first frame: its length, checksums, numbers and marks in the head, and all of its operations.
    for at in (64..112).step_by(4).chain([111]).chain((112..316).step_by(17)) {
        let disk = ModelDisk::new(at as u64);
        let mut store = Store::open(disk.clone(), &options(), 0).unwrap().store;
        store.add(&lasting);
        store.commit(0).unwrap();
        let wants_another = |store: &Store<ModelDisk>| store.sizes().live_records < 4 || store.sizes().segments < 5;
        churn(&mut store, wants_another).unwrap();
        let mut bytes = disk.read(name).unwrap();
        bytes[at] ^= 1 << (at % 8);
        disk.replace(name, bytes.clone());
        let error = churn(&mut store, |_| true).expect_err("damage was not found");
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(&format!("{name} is damaged at offset 64: ")),
            "{at}: {sentence}"
        );
        assert!(sentence.ends_with("as the next start will find, too"), "{sentence}");
        let durable = store.durable();
        store.add(&lasting);
        assert_eq!(store.commit(0), Err(error.clone()));
        assert_eq!(store.sync(), Err(error.clone()));
        assert_eq!(store.tend(0, true), Err(error));
        assert_eq!(store.durable(), durable);
        drop(store);
        assert_eq!(disk.read(name).unwrap(), bytes);
        let refused = Store::open(disk, &options(), 0).unwrap_err();
        assert!(
            matches!(&refused, OpenError::Damaged(damage) if damage.file == name && damage.offset == 64),
            "{refused}"
        );
    }
}

/// A file that is gone from the middle or the front is missed.
#[test]
fn a_missing_segment_is_missed() {
    let world = small_store(20, 150);
    let files = files(&world.disk);
    let with_frames = files.iter().filter(|(_, bytes)| bytes.len() > 64).count();
    for (name, _) in &files[..with_frames - 1] {
        let disk = world.disk.restart();
        disk.unlink(name).unwrap();
        let error = Store::open(disk, &world.options, 0).unwrap_err();
        assert!(
            matches!(&error, OpenError::Missing { file } if file == name),
            "{name}: {error}"
        );
    }
}

/// Zeros, a repeated piece of the log, or noise behind its end are a tail: told, dropped, and gone for good.
#[test]
fn what_hangs_behind_the_end_is_dropped() {
    let world = small_store(30, 60);
    let (name, bytes) = files(&world.disk)
        .into_iter()
        .rfind(|(_, bytes)| bytes.len() > 64)
        .unwrap();
    let last = world.states.last().unwrap();
    let half = bytes.len() / 2;
    for tail in [
        vec![0; 700],
        vec![0; 3],
        bytes[half..].to_vec(),
        bytes[64..].to_vec(),
        vec![0xa5; 1000],
    ] {
        let disk = world.disk.restart();
        disk.replace(&name, [&bytes[..], &tail].concat());
        let Opened { store, report } = Store::open(disk.clone(), &world.options, 0).unwrap();
        let told = report.tail.unwrap();
        assert_eq!(
            (told.file, told.offset, told.bytes),
            (name.clone(), bytes.len() as u64, tail.len() as u64)
        );
        assert_eq!(state_of(&store).unwrap(), *last);
        drop(store);
        let report = Store::open(disk, &world.options, 0).unwrap().report;
        assert_eq!(report.tail, None);
    }
}

/// A header of a later format, and an operation that is not known, are not damage: the journal says what to do.
#[test]
fn what_a_later_version_wrote_is_refused_as_such() {
    let disk = ModelDisk::new(1);
    drop(Store::open(disk.clone(), &options(), 0).unwrap());
    let name = "0000000000000001.seg";
    let mut bytes = disk.read(name).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..56]).to_le_bytes();
    bytes[56..60].copy_from_slice(&crc);
    disk.replace(name, bytes);
    for on_damage in [OnDamage::Refuse, OnDamage::Salvage] {
        let options = Options { on_damage, ..options() };
        let error = Store::open(disk.clone(), &options, 0).unwrap_err();
        assert!(error.to_string().contains("written by a newer version"), "{error}");
    }
}

/// Whatever lies in place of a log is refused with a sentence, or opened, and then opened again as the same.
#[test]
fn any_bytes_are_refused_or_opened() {
    let mut random = sol_journal::model::Random::new(9);
    for _ in 0..30_000 {
        let length = random.below(60);
        // Small numbers are operations, near identifiers and short lengths.
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8 >> random.below(8)).collect();
        sol_journal::model::check_bytes(&bytes);
    }
}

/// A frame that says that segments are not needed which come after it makes no sense, and is refused: it would have
/// everything that follows forgotten.
#[test]
fn what_is_needed_is_never_said_to_come_later() {
    let disk = ModelDisk::new(1);
    let segment = sol_journal::model::segment(&[b"\x05\x19\x50\x05hello", b"\x05\x04\x2a"]);
    disk.replace("0000000000000001.seg", segment);
    assert!(matches!(Store::open(disk, &options(), 0), Err(OpenError::Newer { .. })));
}

/// A file whose number is beyond all that a store comes to, or far from the others', is not one of its segments; a file that is
/// longer than a segment can be is damaged, and not read into memory.
#[test]
fn no_name_and_no_length_takes_all_memory() {
    for name in [
        "ffffffffffffffff.seg",
        "00000000ffffffff.seg",
        "00000000ee6b2800.seg",
        "0000000000000000.seg",
    ] {
        for on_damage in [OnDamage::Refuse, OnDamage::Salvage] {
            let disk = ModelDisk::new(1);
            drop(Store::open(disk.clone(), &options(), 0).unwrap());
            disk.replace(name, disk.read("0000000000000001.seg").unwrap());
            let options = Options { on_damage, ..options() };
            let error = Store::open(disk, &options, 0).unwrap_err();
            assert!(
                matches!(&error, OpenError::Misnumbered { file } if file == name),
                "{error}"
            );
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = || sol_journal::OsDisk::existing(directory.path()).unwrap();
    drop(Store::open(disk(), &options(), 0).unwrap());
    let name = directory.path().join("0000000000000001.seg");
    std::fs::File::options()
        .write(true)
        .open(name)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let error = Store::open(disk(), &options(), 0).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

/// A frame whose head counts other records than it has was not written by this version.
#[test]
fn a_frame_has_as_many_records_as_its_head_says() {
    let disk = ModelDisk::new(1);
    let mut segment = sol_journal::model::segment(&[b"\x05\x19\x50\x05hello"]);
    segment[64 + 36] += 1;
    let salt = crc32c::crc32c_append(crc32c::crc32c(&segment[32..48]), &1_u64.to_le_bytes());
    let crc = crc32c::crc32c_append(salt, &segment[64..108]);
    segment[108..112].copy_from_slice(&crc.to_le_bytes());
    disk.replace("0000000000000001.seg", segment);
    let error = Store::open(disk, &options(), 0).unwrap_err();
    assert!(matches!(error, OpenError::Newer { offset: 100, .. }), "{error}");
}
