//! From a packet to bytes, and the copy that a fan-out makes of a head that was encoded once.
#![allow(missing_docs, reason = "criterion's macros document nothing")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sol_benches::packets::{self, Sample};
use sol_codec::{DecodeLimits, Decoded, Packet, PacketId, PublishHead, QoS, decode};

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for Sample { name, version, packet } in packets::samples() {
        let mut out = packets::encoded(&packet, version);
        let len = out.len();
        assert_eq!(len, packet.encoded_len(version), "{name}");
        assert_eq!(
            decode(&out, version, &DecodeLimits::default()),
            Ok(Decoded::Packet { packet, len }),
            "{name}"
        );
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                black_box(&packet).encode(version, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

/// One receiver of a fan-out: a head and payload that lie ready, and a Packet Identifier of its own.
fn copying(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode/copy of a head");
    for Sample { name, version, packet } in packets::samples() {
        let Packet::Publish(publish) = packet else {
            continue;
        };
        let mut shared = Vec::new();
        let head = PublishHead::encode(&publish, version, &mut shared);
        shared.extend_from_slice(publish.payload);
        let packet_id = PacketId::new(0x1234).filter(|_| publish.qos > QoS::AtMostOnce);
        let mut out = Vec::new();
        head.copy(&shared, false, publish.qos, false, packet_id, &mut out);
        let own = Packet::Publish(sol_codec::Publish { packet_id, ..publish });
        assert_eq!(out, packets::encoded(&own, version), "{name}");

        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                head.copy(
                    black_box(&shared),
                    false,
                    publish.qos,
                    false,
                    black_box(packet_id),
                    &mut out,
                );
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encoding, copying);
criterion_main!(benches);
