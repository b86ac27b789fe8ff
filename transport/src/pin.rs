//! Keeping a thread on one core.

use std::io;

/// One of the cores that the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Core(usize);

/// A core for each shard, again and again over those that the process may use; nothing if threads are not to be pinned.
/// Asked for on a thread that is not pinned itself.
pub(crate) fn cores(pin: bool) -> Box<dyn Iterator<Item = io::Result<Core>>> {
    if !pin {
        return Box::new(std::iter::empty());
    }
    match allowed() {
        Ok(cores) => Box::new(cores.into_iter().cycle().map(Ok)),
        Err(error) => {
            let (kind, text) = (error.kind(), error.to_string());
            Box::new(std::iter::repeat_with(move || Err(io::Error::new(kind, text.clone()))))
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn allowed() -> io::Result<Vec<Core>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    let is_allowed = |&core: &usize| set.is_set(core);
    Ok((0..rustix::thread::CpuSet::MAX_CPU)
        .filter(is_allowed)
        .map(Core)
        .collect())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allowed() -> io::Result<Vec<Core>> {
    Err(unsupported())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "threads can be kept on one core on Linux only",
    )
}

impl Core {
    /// Keeps the calling thread on this core.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn pin(self) -> io::Result<()> {
        let mut set = rustix::thread::CpuSet::new();
        set.set(self.0);
        Ok(rustix::thread::sched_setaffinity(None, &set)?)
    }

    /// Never there to be asked: no core was given out.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn pin(self) -> io::Result<()> {
        Err(unsupported())
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn each_shard_gets_a_core_of_those_that_the_process_may_use_and_stays_there() {
        let allowed = allowed().unwrap();
        let given: Vec<Core> = cores(true).take(2 * allowed.len()).map(Result::unwrap).collect();
        assert_eq!(given, [allowed.clone(), allowed.clone()].concat());
        for core in allowed {
            thread::spawn(move || {
                core.pin().unwrap();
                assert_eq!(super::allowed().unwrap(), [core]);
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn nobody_is_pinned_unasked() {
        assert!(cores(false).next().is_none());
    }
}
