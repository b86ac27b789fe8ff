//! What the sandbox leaves a process, tried by one that is inside of it.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::unwrap_used, reason = "a failure fails the test")]
#![allow(clippy::print_stdout, reason = "it is what the outer process reads")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;

use sol_server::config::{Config, Host, Sandbox};
use sol_server::sandbox::{self, Successor};

/// Says to this program that it is to be inside, and where its files are.
const DIRECTORY: &str = "SOL_TEST_SANDBOX";

const CONFIG: &str = "listener 1883 127.0.0.1\nallow_anonymous true\npassword_file @/users/passwd\n\
                      listener 0 @/run/sol.sock\nlog_dest file @/log/sol.log\nuser root\n";

fn config(dir: &Path) -> Config {
    let text = CONFIG.replace('@', &dir.display().to_string());
    let path = dir.join("conf/sol.conf");
    fs::write(&path, &text).unwrap();
    Config::parse(&path, text.as_bytes(), &Host::default()).unwrap()
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().unwrap().kind()
}

/// A process inside reads what its configuration names, also what was renamed to it, appends to its log and makes a new one,
/// and removes its socket. Other files it can neither read, write, make nor remove; it starts no program and listens and
/// connects nowhere; and so for a thread that it starts. Where the kernel has no Landlock, it is told so.
#[test]
fn what_is_left_to_who_is_inside() {
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        return inside(Path::new(&dir));
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    for name in ["conf", "users", "run", "log", "other"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("users/passwd"), "old").unwrap();
    fs::write(dir.join("other/secret"), "secret").unwrap();
    fs::write(dir.join("log/sol.log"), "").unwrap();
    let inside = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_is_left_to_who_is_inside", "--nocapture"])
        .env(DIRECTORY, &dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(inside.status.success() && said.contains("inside: "), "{inside:?}");
}

fn inside(dir: &Path) {
    let (config, socket) = (config(dir), dir.join("run/sol.sock"));
    let _bound = UnixListener::bind(&socket).unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = elsewhere.local_addr().unwrap();
    let successor = Successor::of(&config).unwrap();
    let entered = sandbox::enter(&config, &successor).unwrap();
    println!("inside: {}", entered.told);
    assert!(entered.told.ends_with(", seccomp"), "{}", entered.told);
    assert_eq!(kind(Command::new("/bin/true").status()), io::ErrorKind::Unsupported);
    assert_eq!(kind(UdpSocket::bind("127.0.0.1:0")), io::ErrorKind::Unsupported);
    assert_eq!(kind(UnixDatagram::unbound()), io::ErrorKind::Unsupported);
    assert_eq!(kind(TcpListener::bind("127.0.0.1:0")), io::ErrorKind::Unsupported);
    let has_landlock = !entered.told.contains("no Landlock");
    if has_landlock {
        files(dir, &socket);
        let there = dir.to_owned();
        std::thread::spawn(move || {
            let secret = there.join("other/secret");
            assert_eq!(kind(fs::read(secret)), io::ErrorKind::PermissionDenied);
        })
        .join()
        .unwrap();
    }
    assert_eq!(kind(TcpStream::connect(address)), io::ErrorKind::Unsupported);
    // Who is inside cannot make it another.
    let required = Config {
        sandbox: Sandbox::Required,
        ..config
    };
    assert!(sandbox::enter(&required, &successor).is_err());
}

fn files(dir: &Path, socket: &Path) {
    // Nobody inside may rename: this is how it would look from outside.
    let read = |path: &Path| {
        let mut text = String::new();
        fs::File::open(path)?.read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    let append = |path: &Path| {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(b"line\n")
    };
    assert_eq!(read(&dir.join("users/passwd")).unwrap(), "old");
    append(&dir.join("log/sol.log")).unwrap();
    append(&dir.join("log/sol.log.new")).unwrap();
    fs::remove_file(socket).unwrap();
    for denied in [
        append(&dir.join("users/passwd")).err(),
        append(&dir.join("other/new")).err(),
        append(&dir.join("other/secret")).err(),
        read(&dir.join("other/secret")).err(),
        read(Path::new("/etc/passwd")).err(),
        fs::remove_file(dir.join("other/secret")).err(),
        fs::remove_file(dir.join("log/sol.log")).err(),
    ] {
        assert_eq!(denied.map(|error| error.kind()), Some(io::ErrorKind::PermissionDenied));
    }
    assert_eq!(
        fs::read_dir(dir.join("other")).err().unwrap().kind(),
        io::ErrorKind::PermissionDenied
    );
}
