//! Syncs beside the writer, which goes on answering meanwhile.

use std::{io, sync::Arc, thread::JoinHandle};

use crossbeam_channel::{Sender, bounded};

use crate::disk::DiskFile;
use crate::store::SyncJob;

use super::{Clock, Message, death};

#[derive(Debug)]
pub(super) struct Syncer<F> {
    jobs: Sender<SyncJob<F>>,
    thread: JoinHandle<()>,
    is_at_work: bool,
}

/// Says so if the thread dies.
struct Guard(Sender<Message>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Message::Synced {
                frame: 0,
                result: Err(io::Error::other(death())),
                nanos: 0,
            });
        }
    }
}

impl<F: DiskFile> Syncer<F> {
    pub(super) fn start(results: Sender<Message>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (jobs, receiver) = bounded::<SyncJob<F>>(1);
        let thread = std::thread::Builder::new()
            .name("sol-journal-sync".to_owned())
            .spawn(move || {
                let guard = Guard(results);
                for job in receiver {
                    let before = clock.nanos();
                    let result = job.run();
                    let nanos = clock.nanos().saturating_sub(before);
                    let _ = guard.0.send(Message::Synced {
                        frame: job.frame(),
                        result,
                        nanos,
                    });
                }
            })?;
        Ok(Self {
            jobs,
            thread,
            is_at_work: false,
        })
    }

    pub(super) const fn is_at_work(&self) -> bool {
        self.is_at_work
    }

    pub(super) fn begin(&mut self, job: SyncJob<F>) {
        self.is_at_work = self.jobs.try_send(job).is_ok();
    }

    pub(super) const fn finished(&mut self) {
        self.is_at_work = false;
    }

    pub(super) fn stop(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}
