//! The disk of the operating system, where a model would prove nothing.

use std::{fs, io::Write, path::Path, process::Command};

use sol_journal::{Batch, CommitError, Opened, Options, OsDisk, Pressure, Store};

use crate::support::SINGLE;

/// A small file system, until it is dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// Nothing where this process may not mount one.
    #[allow(clippy::print_stdout, reason = "what is not tested is to be seen")]
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let status = mount.arg(directory.path()).stderr(std::process::Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        println!("skipped: this process may not mount a tmpfs");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn options() -> Options {
    Options {
        segment_bytes: 32 << 10,
        ..Options::default()
    }
}

/// Writes a file until there is no room for another byte.
fn fill_up(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for piece in [4096, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

/// On a disk without room for one more byte a journal starts again, twice, says that it is full, takes deletions, and goes on
/// by itself when there is room.
#[test]
fn a_full_disk_is_no_reason_not_to_start() {
    let Some(tmpfs) = Tmpfs::mount("512k") else { return };
    let path = tmpfs.0.path().join("store");
    let mut batch = Batch::default();
    let mut put = 0;
    let Opened { mut store, .. } = Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap();
    while store.pressure() == Pressure::Normal {
        put += 1;
        batch.clear();
        batch.put(SINGLE, put, &[7; 1000]);
        store.add(&batch);
        store.commit(0).unwrap();
        store.sync().unwrap();
        store.tend(0, false).unwrap();
    }
    assert_eq!(store.pressure(), Pressure::DiskFull);
    assert!(put > 200, "{put}");
    drop(store);
    fill_up(&tmpfs.0.path().join("junk"));
    for _ in 0..2 {
        let Opened { mut store, report } = Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap();
        assert_eq!((store.sizes().live_records, report.tail), (put, None));
        store.tend(0, true).unwrap();
        assert_eq!(store.pressure(), Pressure::DiskFull);
        let error = Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap_err();
        assert!(error.to_string().starts_with("it is in use by process"), "{error}");
    }
    fs::remove_file(path.join("LOCK")).unwrap();
    fill_up(&tmpfs.0.path().join("more junk"));
    let Opened { mut store, .. } = Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap();
    for id in 2..=put {
        batch.clear();
        batch.delete(id);
        store.add(&batch);
        let mut tries = 0;
        while let Err(error) = store.commit(0) {
            assert!(
                error == CommitError::Full && tries < 20,
                "{id}: {error}, {:?}",
                store.sizes()
            );
            tries += 1;
            store.tend(0, true).unwrap();
        }
        store.sync().unwrap();
        store.tend(0, true).unwrap();
    }
    assert_eq!(store.pressure(), Pressure::Normal);
    store.close(0).unwrap();
    let Opened { store, report } = Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap();
    assert!(report.was_closed && store.sizes().live_records == 1);
}

/// Who removes the file that says who has a directory does not get the directory.
#[test]
fn the_directory_is_locked_and_not_a_file_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let opened = Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap();
    fs::remove_file(path.join("LOCK")).unwrap();
    let error = Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap_err();
    assert_eq!(error.to_string(), "it is in use by another process");
    drop(opened);
    Store::open(OsDisk::create(&path).unwrap(), &options(), 0).unwrap();
    let pid = fs::read_to_string(path.join("LOCK")).unwrap();
    assert_eq!(pid, format!("{:<15}\n", std::process::id()));
}
