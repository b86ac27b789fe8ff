//! What is said of a start that takes long: a line a second, and a word to the supervisor with each.

use std::sync::Arc;
use std::time::Duration;

use sol_transport::{Clock, LogProgress, Progress, Watch};

use super::check::counted;
use crate::serve::Rhythm;
use crate::supervisor::Supervisor;

/// How often it is said, and how long a start takes at least that is spoken of.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// Says how far a start is that begins now.
pub(crate) fn watch(supervisor: Arc<Supervisor>, clock: Clock, interval: Duration) -> Watch {
    let mut rhythm = Rhythm::since(clock.now().mono);
    let mut last = None;
    Watch::new(move |progress| {
        if rhythm.is_due(clock.now().mono, Some(interval)) {
            tracing::info!("{}", text(progress));
            // One that stands still is to end.
            if last.replace(progress) != Some(progress) {
                supervisor.starting();
            }
        }
    })
}

fn text(progress: Progress) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match progress {
        Progress::Log(LogProgress::Read { bytes, of }) => format!("journal: {} of {} MiB read", mib(bytes), mib(of)),
        Progress::Log(LogProgress::Salvaged { records, of }) => {
            format!("journal: {records} of {} salvaged", counted(of, "record"))
        }
        Progress::Placed { records } => format!(
            "journal: looked at {} before they are restored",
            counted(records, "record")
        ),
        Progress::Restored { records, of } => format!("journal: {records} of {} restored", counted(of, "record")),
        Progress::Settling => "journal: all records restored; the shards tell each other of Subscriptions".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::config::{Config, Host};
    use crate::store::open;

    /// A supervisor hears of a start that takes longer than the interval while the journal is opened, and of a quick one nothing.
    #[test]
    fn a_supervisor_hears_of_a_long_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let location = format!("persistence_location {}", directory.path().display());
        let config = Config::parse("c".as_ref(), location.as_bytes(), &Host::default()).unwrap();
        crate::store::prepare(&config, None).unwrap();
        let opened = |interval| {
            let (supervisor, clock) = (Arc::new(Supervisor::at(&path)), Clock::start());
            let watch = watch(supervisor, clock, interval);
            open(&config, [1; 4], &[], clock, watch).unwrap().unwrap();
            let mut bytes = [0; 64];
            let told = std::iter::from_fn(|| listener.recv(&mut bytes).ok().map(|len| bytes[..len].to_vec()));
            told.collect::<Vec<_>>()
        };
        assert!(opened(Duration::ZERO).is_empty(), "there is nothing to be read");
        assert!(opened(Duration::from_secs(3_600)).is_empty(), "it does not take long");
        let told = opened(Duration::ZERO);
        assert!(
            !told.is_empty() && told.iter().all(|told| told == b"EXTEND_TIMEOUT_USEC=60000000"),
            "{told:?}"
        );
    }

    /// A start that stands still is spoken of, and not extended.
    #[test]
    fn a_start_that_stands_still_is_not_extended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut watch = watch(Arc::new(Supervisor::at(&path)), Clock::start(), Duration::ZERO);
        for progress in [Progress::Placed { records: 1 }, Progress::Settling, Progress::Settling] {
            watch.tell(progress);
        }
        let told = std::iter::from_fn(|| listener.recv(&mut [0; 64]).ok());
        assert_eq!(told.count(), 2);
    }

    /// Each stage of a start is a sentence that says how far it is.
    #[test]
    fn how_far_it_is() {
        let said = [
            (
                Progress::Log(LogProgress::Read {
                    bytes: 3 << 20,
                    of: (7 << 20) + 5,
                }),
                "3 of 7 MiB read",
            ),
            (
                Progress::Log(LogProgress::Salvaged { records: 1, of: 1 }),
                "1 of 1 record salvaged",
            ),
            (
                Progress::Placed { records: 2_048 },
                "looked at 2048 records before they are restored",
            ),
            (
                Progress::Restored {
                    records: 1_024,
                    of: 5_000,
                },
                "1024 of 5000 records restored",
            ),
            (
                Progress::Settling,
                "all records restored; the shards tell each other of Subscriptions",
            ),
        ];
        for (progress, expected) in said {
            assert_eq!(text(progress), format!("journal: {expected}"));
        }
    }
}
