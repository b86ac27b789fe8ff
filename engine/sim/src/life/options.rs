//! What of a life takes place: what minimising takes out of one, and what a regression test keeps.

use std::fmt;

use super::Chaos;
use crate::fault::Fault;

/// What of a life takes place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// It goes on until so many events have happened, and then to the end of its chapter.
    pub events: u64,
    /// Deeds after which nobody does anything any more.
    pub deeds_max: u64,
    /// Clients that take part, a bit each.
    pub clients: u64,
    /// Faults that do not happen.
    pub without: Vec<Chaos>,
    /// Deeds that are left out: the first and the last of each run of them.
    pub skip: Vec<(u64, u64)>,
    /// What is broken on purpose. Only tests break anything: it is not printed.
    pub fault: Option<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            events: 20_000,
            deeds_max: u64::MAX,
            clients: u64::MAX,
            without: Vec::new(),
            skip: Vec::new(),
            fault: None,
        }
    }
}

impl Options {
    /// Whether a client takes part.
    #[must_use]
    pub const fn lets_in(&self, who: usize) -> bool {
        self.clients >> who & 1 == 1
    }

    /// Whether a deed is left out.
    #[must_use]
    pub fn skips(&self, deed: u64) -> bool {
        self.skip.iter().any(|&(first, last)| (first..=last).contains(&deed))
    }

    /// Whether a fault may happen.
    #[must_use]
    pub fn has(&self, chaos: Chaos) -> bool {
        !self.without.contains(&chaos)
    }

    /// Reads one of them from a command line. `None`: it is none.
    pub fn read(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "--events" => self.events = value.replace('_', "").parse().ok()?,
            "--deeds" => self.deeds_max = value.parse().ok()?,
            "--clients" => self.clients = u64::from_str_radix(value.trim_start_matches("0x"), 16).ok()?,
            "--without" => self.without = value.split(',').map(Chaos::of).collect::<Option<_>>()?,
            "--skip" => self.skip = value.split(',').map(range).collect::<Option<_>>()?,
            _ => return None,
        }
        Some(())
    }

    /// Reads them as they are printed.
    ///
    /// # Panics
    /// They are not what is printed.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut options = Self::default();
        let mut words = text.split_whitespace();
        while let Some(name) = words.next() {
            let read = options.read(name, words.next().unwrap_or_default());
            assert!(read.is_some(), "{name} in {text:?}");
        }
        options
    }
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        write!(f, "--events {}", self.events)?;
        if self.deeds_max != default.deeds_max {
            write!(f, " --deeds {}", self.deeds_max)?;
        }
        if self.clients != default.clients {
            write!(f, " --clients {:#x}", self.clients)?;
        }
        if !self.without.is_empty() {
            let names: Vec<_> = self.without.iter().map(|chaos| chaos.name()).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if !self.skip.is_empty() {
            let range = |&(first, last): &(u64, u64)| format!("{first}-{last}");
            let ranges: Vec<_> = self.skip.iter().map(range).collect();
            write!(f, " --skip {}", ranges.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed is read as what it was.
    #[test]
    fn options_are_read_as_they_are_printed() {
        let all = Options {
            events: 30_000,
            deeds_max: 700,
            clients: 0x2f,
            without: vec![Chaos::Wall, Chaos::Lose],
            skip: vec![(1, 40), (60, 60)],
            fault: None,
        };
        for options in [Options::default(), all] {
            assert_eq!(Options::of(&options.to_string()), options);
        }
    }
}
