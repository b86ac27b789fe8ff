//! seccomp: which system calls may be made.
//!
//! A call that is not on the list fails with ENOSYS, as in a kernel that is older than it. It does not end the process: a
//! C library of tomorrow that tries something new goes on with what it did before, as it must on an older kernel, and a
//! broker that serves a country's meters does not die of an update. To an intruder both are the same: the call is not made.
//! Nor is it silent: whatever of ours needed it fails with the system's words, which its place in the log repeats.
//!
//! What io_uring does for the shards is not seen here, for no call is made for it. The rings know receiving, sending,
//! accepting, polling and closing, of sockets that are there; but this filter cannot hold an intruder to these. What he
//! could do by a ring beside that, to open a file or a connection, Landlock judges as well.

use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

/// Calls with whatever they are given.
const FREE: &[i64] = &[
    // Sockets that are there.
    libc::SYS_accept4,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Waiting.
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Files, which Landlock judges.
    libc::SYS_chdir,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads and signals of its own.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tkill,
    // What it is, and when.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// What some configurations need beside that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Rings of io_uring.
    pub(super) rings: bool,
    /// Connections to the log of the system, which may be started anew.
    pub(super) system_log: bool,
    /// Connections to whoever judges a login, at ports that Landlock knows.
    pub(super) hooks: bool,
    /// Files that are reserved, written at a place, synced and moved.
    pub(super) journal: bool,
}

/// What makes a thread, and none of what makes a process or a place apart from the system.
const THREAD: i32 = libc::CLONE_THREAD;
const APART: i32 = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// Forbids this process every call that is not on the list, in all its threads, and that a program it starts gains any
/// right: it can start none.
///
/// # Errors
/// Why this is not to be had, in words.
pub(super) fn confine(needs: &Needs) -> Result<(), String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let rules = rules(needs).map_err(|error| error.to_string())?;
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, unknown, SeccompAction::Allow, arch);
    let program = filter
        .and_then(seccompiler::BpfProgram::try_from)
        .map_err(|error| error.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

fn rules(needs: &Needs) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<_, _> = FREE.iter().map(|call| (*call, Vec::new())).collect();
    // `clone3` names its flags where no filter can read them. Without it the C library takes this.
    rules.insert(libc::SYS_clone, vec![masked(0, THREAD | APART, THREAD)?]);
    // Nothing that was written becomes a program.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![masked(2, libc::PROT_EXEC, 0)?]);
    }
    if needs.rings {
        let calls = [
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_io_uring_setup,
        ];
        rules.extend(calls.map(|call| (call, Vec::new())));
    }
    if needs.journal {
        let calls = [
            libc::SYS_fallocate,
            libc::SYS_fdatasync,
            libc::SYS_flock,
            libc::SYS_fstatfs,
            libc::SYS_fsync,
            libc::SYS_ftruncate,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_renameat,
            libc::SYS_renameat2,
        ];
        rules.extend(calls.map(|call| (call, Vec::new())));
    }
    let mut families = Vec::new();
    if needs.system_log || needs.hooks {
        families.push(i64::from(libc::AF_UNIX));
    }
    if needs.hooks {
        families.extend([libc::AF_INET, libc::AF_INET6].map(i64::from));
    }
    if !families.is_empty() {
        rules.insert(libc::SYS_connect, Vec::new());
        rules.insert(libc::SYS_socket, any(0, &families)?);
    }
    // A signal to itself, by which a thread ends the process.
    rules.insert(libc::SYS_tgkill, any(0, &[i64::from(std::process::id())])?);
    // By which io_uring is tried out.
    rules.insert(libc::SYS_socketpair, any(0, &[i64::from(libc::AF_UNIX)])?);
    // Whether a file waits or is a terminal: nothing that commands a device.
    let commands = [libc::FIONBIO as i64, libc::TCGETS as i64];
    rules.insert(libc::SYS_ioctl, any(1, &commands)?);
    rules.insert(libc::SYS_prctl, any(0, &[i64::from(libc::PR_SET_NAME)])?);
    // Limits are read, and not set.
    rules.insert(
        libc::SYS_prlimit64,
        vec![SeccompRule::new(vec![SeccompCondition::new(
            2,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::Eq,
            0,
        )?])?],
    );
    Ok(rules)
}

/// An argument that is one of these.
fn any(argument: u8, values: &[i64]) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |value: &i64| {
        let value = u64::from(*value as u32);
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![is])
    };
    values.iter().map(rule).collect()
}

/// An argument of whose bits in `mask` those of `value` are set, and no other.
fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, BackendError> {
    let (mask, value) = (u64::from(mask as u32), u64::from(value as u32));
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?])
}
