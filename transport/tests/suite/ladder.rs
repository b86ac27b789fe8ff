//! Where io_uring cannot be had, the broker says why: it runs on epoll if it may choose, and refuses to start otherwise.

#![cfg(target_os = "linux")]

use std::thread;

use sol_codec::ProtocolVersion;
use sol_engine::EngineConfig;
use sol_transport::{BackendName, Clock, Io, ListenAddr, ListenerConfig, Shards, StartError, TransportConfig};

use crate::support::Client;

/// Runs on a thread on which the system refuses io_uring with an error, as a container's filter does. Whatever threads it
/// starts are under the filter too.
fn where_refused<T: Send>(errno: i32, run: impl FnOnce() -> T + Send) -> T {
    let refused = || {
        refuse_io_uring(errno);
        run()
    };
    thread::scope(|scope| scope.spawn(refused).join().unwrap())
}

#[expect(unsafe_code, reason = "a filter of system calls is installed by a system call")]
fn refuse_io_uring(errno: i32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut filter = [
        // The number of the system call comes first.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its steps outlive the call, which copies them.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
                0,
                0,
            ),
        ]
    };
    assert_eq!(results, [0, 0], "{}", std::io::Error::last_os_error());
}

fn start(io: Io) -> Result<Shards, StartError> {
    let config = TransportConfig {
        io,
        listeners: vec![ListenerConfig::new(ListenAddr::Tcp("127.0.0.1:0".parse().unwrap()))],
        ..TransportConfig::default()
    };
    let engine = EngineConfig {
        shards: 2,
        ..EngineConfig::default()
    };
    Shards::start(&config, &engine, crate::support::SEEDS, Clock::start(), |_| ())
}

/// Refused, `auto` takes epoll for all shards and says why in one sentence; clients are served.
#[test]
fn auto_runs_on_epoll_where_io_uring_is_refused_and_says_why() {
    let cases = [
        (
            libc::EPERM,
            "io_uring is not permitted here (EPERM): by kernel.io_uring_disabled, or by a seccomp filter as containers have",
        ),
        (
            libc::ENOSYS,
            "there is no io_uring here (ENOSYS): the kernel lacks it, or a sandbox hides it",
        ),
        (
            libc::EINVAL,
            "this kernel's io_uring lacks what is needed (EINVAL): Linux 6.12 and later have it",
        ),
    ];
    for (errno, why) in cases {
        let shards = where_refused(errno, || start(Io::Auto)).unwrap();
        assert_eq!(shards.backend(), BackendName::Epoll);
        assert_eq!(shards.fallback(), Some(why));
        let ListenAddr::Tcp(address) = shards.addresses()[0] else {
            panic!("no TCP address")
        };
        for n in 0..4 {
            Client::connect(address, ProtocolVersion::V5, &format!("client {n}")).ping();
        }
    }
}

/// Refused, a broker that is to run on io_uring does not start, and its one sentence says what to do.
#[test]
fn io_uring_that_is_refused_is_an_error_that_says_what_to_do() {
    let error = where_refused(libc::EPERM, || start(Io::IoUring).map(drop)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot start with io_uring: io_uring is not permitted here (EPERM): by kernel.io_uring_disabled, or by a seccomp \
         filter as containers have; use auto or epoll instead"
    );
}

/// Epoll that was asked for is not a fallback, and nothing is tried.
#[test]
fn epoll_that_was_asked_for_needs_no_reason() {
    let shards = where_refused(libc::EPERM, || start(Io::Epoll)).unwrap();
    assert_eq!((shards.backend(), shards.fallback()), (BackendName::Epoll, None));
}

/// Want of descriptors or memory is an error whatever was asked for: it would come back on epoll, later and worse.
#[test]
fn want_of_descriptors_or_memory_stays_an_error() {
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
        for io in [Io::Auto, Io::IoUring] {
            let error = where_refused(errno, || start(io).map(drop)).unwrap_err();
            assert!(
                matches!(&error, StartError::System(error) if error.raw_os_error() == Some(errno)),
                "{error}"
            );
        }
    }
}
