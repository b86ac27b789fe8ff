//! What of a directory is served, and what never is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::config::Host;

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn config(lines: &str) -> Config {
    let text = format!("listener 9001 127.0.0.1\nprotocol websockets\nallow_anonymous true\n{lines}");
    Config::parse("/etc/sol.conf".as_ref(), text.as_bytes(), &Host::default()).unwrap()
}

fn load(directory: &Path) -> Result<(Files, Vec<String>), String> {
    super::load(directory, &mut Budget::default())
}

/// Files are found by their paths, whatever bytes these have; links count where they end inside; all else is passed over with
/// a sentence that names it.
#[test]
fn what_is_served_and_what_is_not() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("www");
    write(temporary.path().join("secret"), "secret");
    write(dir.join("index.html"), "page");
    write(dir.join("js/mqtt.js"), "script");
    write(dir.join(".htpasswd"), "hidden");
    write(dir.join(".git/config"), "hidden");
    write(dir.join(".well-known/security.txt"), "mail");
    write(dir.join("..data/app.js"), "mounted");
    symlink("..data/app.js", dir.join("app.js")).unwrap();
    symlink("js", dir.join("scripts")).unwrap();
    symlink(".", dir.join("js/loop")).unwrap();
    symlink("../secret", dir.join("out")).unwrap();
    symlink(temporary.path().join("secret"), dir.join("js/out.js")).unwrap();
    symlink("none", dir.join("nowhere")).unwrap();
    symlink("self", dir.join("self")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let (files, warnings) = load(&dir).unwrap();
    assert_eq!((files.count(), files.bytes()), (4, "pagescriptmailmounted".len()));
    let named = |name: &str| format!("{} is not served: ", dir.join(name).display());
    let wanted = [
        ("..data", "its name begins with a dot"),
        (".git", "its name begins with a dot"),
        (".htpasswd", "its name begins with a dot"),
        ("js/loop", "it is a link to a directory"),
        ("js/out.js", "it is a link that leads out of the directory"),
        ("nowhere", "No such file or directory"),
        ("out", "it is a link that leads out of the directory"),
        ("scripts", "it is a link to a directory"),
        ("self", "Too many levels of symbolic links"),
        ("socket", "No such device or address"),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(name, why)| named(name) + why).collect();
    assert_eq!(warnings, wanted);
}

/// The directory itself may be a link, as it is where one release follows the other.
#[test]
fn the_directory_may_be_a_link() {
    let temporary = tempfile::tempdir().unwrap();
    write(temporary.path().join("releases/1/index.html"), "one");
    symlink("index.html", temporary.path().join("releases/1/home.html")).unwrap();
    symlink("releases/1", temporary.path().join("current")).unwrap();
    let (files, warnings) = load(&temporary.path().join("current")).unwrap();
    assert_eq!((files.count(), warnings), (2, Vec::new()));
}

/// A file that cannot be read is named, and the others are served.
#[test]
fn a_file_without_permission() {
    let temporary = tempfile::tempdir().unwrap();
    write(temporary.path().join("a.html"), "a");
    write(temporary.path().join("b.html"), "b");
    let closed = temporary.path().join("b.html");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&closed).is_ok() {
        // Root reads everything.
        return;
    }
    let (files, warnings) = load(temporary.path()).unwrap();
    assert_eq!(files.count(), 1);
    assert_eq!(
        warnings,
        [format!("{} is not served: Permission denied", closed.display())]
    );
}

/// What is kept in memory is bounded: in bytes, in files, and in depth.
#[test]
fn a_directory_is_bounded() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    write(dir.join("a"), "0123456789");
    write(dir.join("b"), "0123456789");
    let with = |entries, bytes| super::load(dir, &mut Budget { entries, bytes }).map(|(files, _)| files.bytes());
    assert_eq!(with(2, 20), Ok(20));
    let large = with(2, 19).unwrap_err();
    assert_eq!(
        large,
        format!(
            "{} has 20 bytes of files, and all directories together may have 67108864: they are kept in memory",
            dir.display()
        )
    );
    let many = with(1, 20).unwrap_err();
    assert_eq!(
        many,
        format!(
            "{} has too many files: all directories together may have 10000",
            dir.display()
        )
    );
    let deep = (0..=DEPTH_MAX).fold(dir.to_owned(), |path, n| path.join(n.to_string()));
    write(deep.join("file"), "x");
    let (files, warnings) = load(dir).unwrap();
    assert_eq!(files.count(), 2);
    assert_eq!(
        warnings,
        [format!(
            "{} is not served: it lies below 16 directories",
            deep.display()
        )]
    );
}

/// Each directory is read once for all listeners that name it, all of them share what there is room for, and one that cannot
/// be read is an error with its line.
#[test]
fn directories_of_listeners() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().display().to_string();
    write(temporary.path().join("a/index.html"), "a");
    write(temporary.path().join("b/index.html"), "bb");
    let config_of = |lines: &str| config(&lines.replace('@', &dir));
    let both = config_of(
        "http_dir @/a\nlistener 9002\nprotocol websockets\nhttp_dir @/a\nlistener 9003\nprotocol websockets\n\
         http_dir @/b\nlistener 9004\nprotocol websockets\nlistener 1883\n",
    );
    let (served, warnings) = load_all(&both).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let bytes: Vec<_> = served
        .iter()
        .map(|files| files.as_ref().map(|files| files.bytes()))
        .collect();
    assert_eq!(bytes, [Some(1), Some(1), Some(2), None, None]);
    assert!(Arc::ptr_eq(served[0].as_ref().unwrap(), served[1].as_ref().unwrap()));

    let mut gone = both;
    gone.listeners[0].is_gone = true;
    let (served, _) = load_all(&gone).unwrap();
    assert_eq!(served[0].as_ref().unwrap().count(), 0);

    for (path, why) in [
        ("@/none", "No such file or directory"),
        ("@/a/index.html", "Not a directory"),
    ] {
        let errors = load_all(&config_of(&format!("http_dir {path}\n"))).unwrap_err();
        let path = path.replace('@', &dir);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [format!("/etc/sol.conf:4: `http_dir`: {path} cannot be read: {why}")]
        );
    }
}
