//! A disk that takes its time holds up what waits for it, and nothing else.

use std::sync::Arc;

use crate::support::{Broker, Client, SEEDS, name_at_home, publish, publish_at};
use sol_codec::{Packet, PacketId, ProtocolVersion, QoS};
use sol_engine::EngineConfig;
use sol_journal::model::{Gate, ModelDisk, SlowDisk};
use sol_journal::{Mode, Options};
use sol_transport::{Clock, Durable, Shards, Watch};

on_each_backend! {
    nobody_waits_for_a_slow_disk_but_for_what_is_kept
}

const V5: ProtocolVersion = ProtocolVersion::V5;

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
            let durable = Durable::open(
                disk,
                &Options::default(),
                Mode::Fsync,
                SEEDS,
                &[],
                clock,
                Watch::default(),
            )
            .unwrap();
            Shards::bind(config, engine)?.start_durable(durable, clock, |_| ())
        },
    );
    let at_home = |stem, shard| Client::connect(broker.address, V5, &name_at_home(stem, shard));
    let mut waiting: Vec<_> = (0..2).map(|shard| at_home("waiting", shard)).collect();
    let mut others: Vec<_> = (0..2).map(|shard| at_home("other", shard)).collect();
    gate.close();
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
    gate.open();
    waiting.iter_mut().for_each(expect_puback);
    broker.stop();
}

fn unsubscribe_live() -> Vec<u8> {
    [&[0xa2, 9, 0, 7, 0, 0, 4][..], b"live"].concat()
}
