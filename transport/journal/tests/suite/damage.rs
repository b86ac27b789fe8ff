//! Bits flip and files are cut: what is left is a state that was once there, or a refusal that says where.

use sol_journal::{Disk, OnDamage, OpenError, Opened, Options, Store, model::ModelDisk};

use crate::support::{World, options, state_of};

/// A small store of several segments, with all its states; the files of its disk are durable.
pub(crate) fn small_store(seed: u64, steps: u32) -> World {
    let mut world = World::new(seed);
    world.options.segment_bytes = 1024;
    world.open().unwrap();
    for _ in 0..steps {
        world.step().unwrap();
    }
    let store = world.store.as_mut().unwrap();
    store.commit(0).unwrap();
    store.sync().unwrap();
    store.mark(0).unwrap();
    store.sync().unwrap();
    world
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
        Err(OpenError::Missing { .. }) if what.starts_with("cut") => Verdict::Refused,
        Err(other) => panic!("{name}, {what}: {other}"),
    }
}

/// Any byte of any file is another: the store refuses and names the file, or says what it said at some commit. Where the
/// byte belongs to what was known to be durable, it refuses.
#[test]
fn any_flipped_byte_is_found() {
    let (mut flips, mut refused, mut prefixes) = (0, 0, 0);
    for seed in 0..2 {
        let world = small_store(seed, 120);
        let files = files(&world.disk);
        for (name, bytes) in &files {
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 1 << (at % 8);
                flips += 1;
                match judge(&world, name, other, &format!("flip at {at}")) {
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
    assert!(refused > 8_000, "{refused}");
}

/// Any file ends anywhere: a state that was once there, or a refusal.
#[test]
fn any_cut_is_a_prefix_or_refused() {
    let (mut cuts, mut refused) = (0, 0);
    for seed in 10..12 {
        let world = small_store(seed, 120);
        let files = files(&world.disk);
        for (name, bytes) in &files {
            for length in 0..bytes.len() {
                cuts += 1;
                let verdict = judge(&world, name, bytes[..length].to_vec(), &format!("cut to {length}"));
                refused += u32::from(verdict == Verdict::Refused);
            }
        }
        // All but the segment that was written last are known to be whole.
        assert!(files.len() >= 5);
    }
    println!("{cuts} cuts: {refused} refused");
    assert!(refused * 2 > cuts, "{refused} of {cuts}");
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
            assert!(matches!(&error, OpenError::Foreign { file } if file == name), "{error}");
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
