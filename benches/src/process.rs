//! What the kernel says of a broker in a process of its own.

use std::fs;
use std::io;
use std::path::Path;

/// Of the kernel's accounting, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A broker's process, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Processor time so far, user and system, in seconds.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn spent(self) -> io::Result<f64> {
        seconds(format!("/proc/{}/stat", self.0).as_ref())
    }

    /// What of it is resident, in bytes.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resident(self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.ok_or_else(|| io::Error::other("no VmRSS"))? << 10)
    }
}

/// Processor time in a `stat` file of the kernel, user and system, in seconds.
pub(crate) fn seconds(stat: &Path) -> io::Result<f64> {
    let stat = fs::read_to_string(stat)?;
    // Behind the name, which may hold anything, the 12th and 13th field are user and system time.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let fields = behind.split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}
