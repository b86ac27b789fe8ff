//! From bytes to a packet: what a broker reads most, and the two requests that each client makes.
#![allow(missing_docs, reason = "criterion's macros document nothing")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sol_benches::packets::{self, Sample};
use sol_codec::{DecodeLimits, Decoded, Direction, decode};

fn decoding(c: &mut Criterion) {
    let limits = DecodeLimits {
        maximum_packet_size: 1 << 20,
        direction: Direction::FromClient,
        ..DecodeLimits::default()
    };
    let mut group = c.benchmark_group("decode");
    for Sample { name, version, packet } in packets::samples() {
        let bytes = packets::encoded(&packet, version);
        let len = bytes.len();
        assert_eq!(
            decode(&bytes, version, &limits),
            Ok(Decoded::Packet { packet, len }),
            "{name}"
        );
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| b.iter(|| decode(black_box(&bytes), version, &limits)));
    }
    group.finish();
}

criterion_group!(benches, decoding);
criterion_main!(benches);
