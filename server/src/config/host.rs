//! What the configuration needs to know of the machine.

use std::path::Path;
use std::thread::available_parallelism;

/// Part of the machine's memory the broker takes by default, in percent: the rest is for the kernel's socket buffers.
const MEMORY_PERCENT: u64 = 70;
/// What is assumed where the machine does not say how much memory it has.
const MEMORY_FALLBACK: u64 = 1 << 30;

/// Facts of the machine, read once so that tests can choose them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Host {
    /// Bytes of memory this process may use: the smaller of the machine's and the control group's.
    pub memory_bytes: u64,
    /// Cores this process may use: what its affinity and its control group leave of the machine's.
    pub cores: u16,
    /// Whether root started the process, which may become another user since.
    pub is_root: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_FALLBACK,
            cores: 1,
            is_root: rustix::process::geteuid().is_root(),
        }
    }
}

impl Host {
    /// Asks the running machine.
    pub fn detect() -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let machine = read(Path::new("/proc/meminfo")).and_then(|text| mem_total(&text));
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let group = cgroup_paths(&groups)
            .filter_map(|path| read(Path::new(&path)))
            .filter_map(|text| limit(&text))
            .min();
        let memory_bytes = machine.into_iter().chain(group).min().unwrap_or(MEMORY_FALLBACK);
        let cores = available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX));
        Self {
            memory_bytes,
            cores,
            ..Self::default()
        }
    }

    /// The most that `max_memory` is by default.
    pub fn memory_default(&self) -> u64 {
        // Whole mebibytes print as such.
        let bytes = self.memory_bytes / 100 * MEMORY_PERCENT;
        (bytes >> 20).max(16) << 20
    }
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Every file that may hold a limit: the process's group and all above it, for both versions of control groups.
fn cgroup_paths(groups: &str) -> impl Iterator<Item = String> + '_ {
    groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        Path::new(path.trim_start_matches('/'))
            .ancestors()
            .map(|group| Path::new(root).join(group).join(file).display().to_string())
            .collect()
    })
}

fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default leaves the kernel its share and is never absurdly small.
    #[test]
    fn memory_default() {
        let default = |memory_bytes| {
            let host = Host {
                memory_bytes,
                ..Host::default()
            };
            host.memory_default()
        };
        assert_eq!(default(1 << 30), 716 << 20);
        assert_eq!(default(0), 16 << 20);
        let here = Host::detect();
        assert!(here.memory_bytes > 0 && here.cores > 0);
    }

    /// The kernel's files are read as it writes them; "max" is no limit.
    #[test]
    fn kernel_files() {
        assert_eq!(
            mem_total("MemTotal:       16303428 kB\nMemFree: 1 kB\n"),
            Some(16_303_428 * 1024)
        );
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("1048576\n"), Some(1 << 20));
        let paths: Vec<_> = cgroup_paths("5:cpu:/x\n4:memory:/a\n0::/b/c\n").collect();
        assert_eq!(
            paths,
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/b/c/memory.max",
                "/sys/fs/cgroup/b/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }
}
