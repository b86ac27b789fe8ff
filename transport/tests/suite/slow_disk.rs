//! A disk that takes its time holds up what waits for it, and nothing else.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use crate::support::{Broker, Client, PATIENCE, SEEDS, name_at_home, publish, publish_at};
use sol_codec::{Packet, PacketId, ProtocolVersion, QoS};
use sol_engine::EngineConfig;
use sol_journal::model::{ModelDisk, ModelFile};
use sol_journal::{Disk, DiskFile, LockError, Mode, Options};
use sol_transport::{Clock, Durable, Shards};

on_each_backend! {
    nobody_waits_for_a_slow_disk_but_for_what_is_kept
}

const V5: ProtocolVersion = ProtocolVersion::V5;

/// Holds up every sync while it is closed.
#[derive(Debug, Default)]
struct Gate {
    /// Whether it is closed, and whether a sync is before it.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn wait_until_stuck(&self) {
        let state = self.state.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |(_, is_stuck)| !*is_stuck);
        assert!(!waited.unwrap().1.timed_out(), "no sync came");
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 = state.0;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |(is_closed, _)| *is_closed).unwrap();
        state.1 = false;
    }
}

#[derive(Clone, Debug)]
struct SlowDisk {
    disk: ModelDisk,
    gate: Arc<Gate>,
}

#[derive(Clone, Debug)]
struct SlowFile {
    file: ModelFile,
    gate: Arc<Gate>,
}

impl SlowDisk {
    fn slow(&self, file: ModelFile) -> SlowFile {
        SlowFile {
            file,
            gate: Arc::clone(&self.gate),
        }
    }
}

impl Disk for SlowDisk {
    type File = SlowFile;

    fn lock(&self) -> Result<(), LockError> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<SlowFile> {
        Ok(self.slow(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<SlowFile> {
        Ok(self.slow(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk.unlink(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.file.reserve(length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
}

fn expect_puback(client: &mut Client) {
    client.with_packet(|packet| assert!(matches!(packet, Packet::PubAck(_)), "no PUBACK: {packet:?}"));
}

/// While a sync does not come to its end no shard does: what is kept is not acknowledged, and everybody is served, the client
/// that waits among them. Then it is acknowledged.
fn nobody_waits_for_a_slow_disk_but_for_what_is_kept() {
    crate::support::keep_shards();
    let gate = Arc::new(Gate::default());
    let disk = SlowDisk {
        disk: ModelDisk::new(1),
        gate: Arc::clone(&gate),
    };
    let broker = Broker::start_by(
        2,
        |_, _: &mut EngineConfig| {},
        |config, engine| {
            let clock = Clock::start();
            let durable = Durable::open(disk, &Options::default(), Mode::Fsync, SEEDS, &[], clock).unwrap();
            Shards::bind(config, engine)?.start_durable(durable, clock, |_| ())
        },
    );
    let at_home = |stem, shard| Client::connect(broker.address, V5, &name_at_home(stem, shard));
    let mut waiting: Vec<_> = (0..2).map(|shard| at_home("waiting", shard)).collect();
    let mut others: Vec<_> = (0..2).map(|shard| at_home("other", shard)).collect();
    gate.set_closed(true);
    for (n, client) in waiting.iter_mut().enumerate() {
        let mut kept = publish_at(V5, &format!("kept/{n}"), b"x", QoS::AtLeastOnce, PacketId::new(1));
        // RETAIN.
        kept[0] |= 1;
        client.send(&kept);
    }
    gate.wait_until_stuck();
    for _ in 0..3 {
        // Its PUBACK would have come before.
        waiting.iter_mut().for_each(Client::ping);
        for n in 0..2 {
            others[n].subscribe("live");
            others[1 - n].send(&publish_at(V5, "nobody", b"", QoS::AtLeastOnce, PacketId::new(1)));
            expect_puback(&mut others[1 - n]);
            waiting[n].send(&publish(V5, "live", b"to all"));
            others[..=n]
                .iter_mut()
                .for_each(|other| other.expect_publish("live", b"to all"));
        }
        for other in &mut others {
            other.send(&unsubscribe_live());
            other.with_packet(|packet| assert!(matches!(packet, Packet::UnsubAck(_)), "{packet:?}"));
        }
    }
    gate.set_closed(false);
    waiting.iter_mut().for_each(expect_puback);
    broker.stop();
}

fn unsubscribe_live() -> Vec<u8> {
    [&[0xa2, 9, 0, 7, 0, 0, 4][..], b"live"].concat()
}
