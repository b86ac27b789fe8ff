//! Both backends and several numbers of shards, in one process with their clients: processor time of the shards' threads.
#![allow(missing_docs, reason = "criterion's macros document nothing")]
#![allow(
    clippy::print_stdout,
    reason = "what could not be measured here is told beside what was"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark whose connection fails has nothing to measure"
)]

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use sol_benches::peers::{Broker, Client, publish};
use sol_transport::Io;

/// Messages under way at once from one publisher.
const WINDOW: usize = 16;
/// Receivers of a fan-out.
const RECEIVERS: usize = 1_000;
/// Connections that do nothing, beside one that does.
const IDLE: usize = 5_000;
/// The system's accounting is coarse: a sample shorter than this would measure its steps.
const SAMPLE: Duration = Duration::from_millis(400);

/// Runs `bench` on each backend that there is and each number of shards.
fn on_each(
    c: &mut Criterion,
    name: &str,
    per_iteration: u64,
    bench: impl Fn(&Broker, &mut dyn FnMut(&mut dyn FnMut())),
) {
    let mut group = c.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(SAMPLE)
        .measurement_time(10 * SAMPLE)
        .throughput(Throughput::Elements(per_iteration));
    for io in [Io::Epoll, Io::IoUring] {
        for shards in [1, 2, 4] {
            match Broker::start(io, shards) {
                Ok(broker) => {
                    bench(&broker, &mut |step| {
                        measure(&mut group, &broker, &format!("{io}/{shards}"), step)
                    });
                    broker.stop();
                }
                Err(error) => println!("{name}/{io}/{shards}: not here: {error}"),
            }
        }
    }
    group.finish();
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, broker: &Broker, name: &str, step: &mut dyn FnMut()) {
    group.bench_function(name, |b| {
        b.iter_custom(|iterations| {
            let before = broker.processor_time().unwrap();
            for _ in 0..iterations {
                step();
            }
            // Nothing measured is nothing divided: one step of the accounting at least.
            broker
                .processor_time()
                .unwrap()
                .saturating_sub(before)
                .max(Duration::from_millis(1))
        });
    });
}

/// One message from a client on the first shard to one on the last, sixteen at a time.
fn forward(c: &mut Criterion) {
    on_each(c, "forward", WINDOW as u64, |broker, run| {
        let mut receiver = broker.client(&broker.name_on(u16::MAX, "receiver")).unwrap();
        let mut sender = broker.client(&broker.name_on(0, "sender")).unwrap();
        receiver.subscribe("t").unwrap();
        let (one, batch) = (publish("t"), publish("t").repeat(WINDOW));
        run(&mut || {
            sender.send(&batch).unwrap();
            receiver.receive(one.len() * WINDOW).unwrap();
        });
    });
}

/// One message to a thousand clients, wherever they are at home.
fn fan_out(c: &mut Criterion) {
    on_each(c, "fan-out 1 to 1000", RECEIVERS as u64, |broker, run| {
        let name = |n| format!("receiver{n}");
        let mut receivers: Vec<Client> = (0..RECEIVERS).map(|n| broker.client(&name(n)).unwrap()).collect();
        for receiver in &mut receivers {
            receiver.subscribe("t").unwrap();
        }
        let mut sender = broker.client("sender").unwrap();
        let one = publish("t");
        run(&mut || {
            sender.send(&one).unwrap();
            for receiver in &mut receivers {
                receiver.receive(one.len()).unwrap();
            }
        });
    });
}

/// A connection that comes, is let in and goes.
fn accept(c: &mut Criterion) {
    on_each(c, "accept", 1, |broker, run| {
        let mut n = 0;
        run(&mut || {
            n += 1;
            drop(broker.client(&format!("client{n}")).unwrap());
        });
    });
}

/// One message at a time while five thousand others are silent.
fn idle(c: &mut Criterion) {
    on_each(c, "one among 5000 idle", 1, |broker, run| {
        let _idle: Vec<Client> = (0..IDLE).map(|n| broker.client(&format!("idle{n}")).unwrap()).collect();
        let mut client = broker.client("client").unwrap();
        client.subscribe("t").unwrap();
        let one = publish("t");
        run(&mut || {
            client.send(&one).unwrap();
            client.receive(one.len()).unwrap();
        });
    });
}

criterion_group!(benches, forward, fan_out, accept, idle);
criterion_main!(benches);
